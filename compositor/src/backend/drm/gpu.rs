//! One graphics device.

use std::{
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use smithay::{
    backend::{
        drm::{DrmDevice, DrmDeviceFd},
        session::Session,
    },
    reexports::{
        calloop::{LoopHandle, RegistrationToken},
        rustix::fs::OFlags,
    },
    utils::DeviceFd,
};

use super::{monitor::describe, seat::Seat};
use crate::state::State;

/// An open device.
pub(super) struct Gpu {
    pub device: DrmDevice,
    path: PathBuf,
    events: RegistrationToken,
}

impl Gpu {
    /// Opens a device through the seat.
    pub(super) fn open(
        seat: &mut Seat,
        path: &Path,
        events: &LoopHandle<'static, State>,
    ) -> Result<Self, String> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
        let fd = seat.open(path, flags).map_err(|error| error.to_string())?;
        let fd = DrmDeviceFd::new(DeviceFd::from(fd));
        let (device, notifier) = DrmDevice::new(fd, true).map_err(|error| describe(&error))?;
        let events = events
            .insert_source(notifier, |event, metadata, state| {
                state.screen_event(event, *metadata);
            })
            .map_err(|error| error.to_string())?;
        tracing::info!(
            device = %path.display(),
            atomic = device.is_atomic(),
            "graphics device"
        );
        Ok(Self {
            device,
            path: path.into(),
            events,
        })
    }

    /// Its number in the kernel.
    pub(super) fn id(&self) -> u64 {
        self.device.device_id()
    }

    /// Gives the device back to the seat.
    pub(super) fn close(self, events: &LoopHandle<'static, State>, seat: &mut Seat) {
        events.remove(self.events);
        let fd = self.device.device_fd().device_fd();
        drop(self.device);
        let alone: Result<OwnedFd, DeviceFd> = fd.try_into();
        match alone {
            Ok(fd) => {
                if let Err(error) = seat.close(fd) {
                    tracing::debug!(%error, "the seat had closed the device already");
                }
            }
            Err(_) => tracing::debug!(path = %self.path.display(), "the device is still in use"),
        }
    }
}
