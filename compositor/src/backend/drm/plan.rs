//! Which output shows the desktop, and how: decided anew whenever an output comes or goes.

use smithay::reexports::drm::control::{Device, Mode, ModeTypeFlags, connector, crtc};

use crate::{
    backend::{
        Screen,
        wish::{ModeInfo, OutputWish, pick_mode},
    },
    layout::Size,
};

/// A connected output and what is to be done with it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Plan {
    pub name: String,
    pub connector: connector::Handle,
    pub crtc: crtc::Handle,
    pub mode: Mode,
    pub scale: i32,
}

impl Plan {
    /// The desktop that it shows.
    pub(super) fn screen(&self) -> Screen {
        let (w, h) = self.mode.size();
        let scale = self.scale.max(1);
        Screen {
            size: Size::new((i32::from(w) / scale).max(1), (i32::from(h) / scale).max(1)),
            scale,
            refresh_mhz: refresh_mhz(&self.mode),
        }
    }
}

/// Refreshes in a thousand seconds, from the mode's own numbers where they make sense.
fn refresh_mhz(mode: &Mode) -> i32 {
    let (_, _, across) = mode.hsync();
    let (_, _, down) = mode.vsync();
    let pixels = u64::from(across) * u64::from(down);
    let exact = (u64::from(mode.clock()) * 1_000_000).checked_div(pixels);
    exact
        .and_then(|refresh| i32::try_from(refresh).ok())
        .filter(|refresh| *refresh > 0)
        .unwrap_or_else(|| i32::try_from(mode.vrefresh()).map_or(60_000, |hz| hz * 1000))
}

/// All outputs that something is plugged into, in the device's order.
fn connected(device: &impl Device) -> Vec<connector::Info> {
    let Ok(resources) = device.resource_handles() else {
        return Vec::new();
    };
    resources
        .connectors()
        .iter()
        .filter_map(|handle| device.get_connector(*handle, true).ok())
        .filter(|info| info.state() == connector::State::Connected && !info.modes().is_empty())
        .collect()
}

/// Does the device have any place to plug a screen into?
pub(super) fn has_connectors(device: &impl Device) -> bool {
    device
        .resource_handles()
        .is_ok_and(|resources| !resources.connectors().is_empty())
}

/// Is something plugged in?
pub(super) fn any_connected(device: &impl Device) -> bool {
    !connected(device).is_empty()
}

fn crtc_for(device: &impl Device, output: &connector::Info) -> Option<crtc::Handle> {
    let resources = device.resource_handles().ok()?;
    let encoders = output.encoders().iter();
    encoders
        .filter_map(|encoder| device.get_encoder(*encoder).ok())
        .find_map(|encoder| {
            let possible = resources.filter_crtcs(encoder.possible_crtcs());
            possible.first().copied()
        })
}

/// Picks the output: the one in use if it is still there, else the first that the user named, else
/// the first. Only one shows the desktop.
pub(super) fn make(
    device: &impl Device,
    wishes: &[OutputWish],
    in_use: Option<connector::Handle>,
) -> Option<Plan> {
    let outputs = connected(device);
    let wish_for = |output: &connector::Info| {
        let name = output.to_string();
        wishes.iter().find(|wish| wish.name == name)
    };
    let output = outputs
        .iter()
        .find(|output| Some(output.handle()) == in_use)
        .or_else(|| {
            wishes.iter().find_map(|wish| {
                outputs
                    .iter()
                    .find(|output| output.to_string() == wish.name)
            })
        })
        .or_else(|| outputs.first())?;
    let others: Vec<String> = outputs
        .iter()
        .filter(|other| other.handle() != output.handle())
        .map(ToString::to_string)
        .collect();
    let wish = wish_for(output);
    let modes: Vec<ModeInfo> = output
        .modes()
        .iter()
        .map(|mode| ModeInfo {
            size: mode.size(),
            hertz: mode.vrefresh(),
            preferred: mode.mode_type().contains(ModeTypeFlags::PREFERRED),
        })
        .collect();
    let (index, as_wished) = pick_mode(&modes, wish)?;
    let mode = *output.modes().get(index)?;
    let name = output.to_string();
    if !as_wished {
        let has: Vec<_> = modes
            .iter()
            .map(|m| format!("{}x{}@{}", m.size.0, m.size.1, m.hertz))
            .collect();
        tracing::warn!(
            output = name,
            "does not have the mode that was asked for; it has: {}",
            has.join(" ")
        );
    }
    if !others.is_empty() {
        tracing::info!(
            output = name,
            "shows the desktop; these outputs stay dark: {}",
            others.join(" ")
        );
    }
    Some(Plan {
        crtc: crtc_for(device, output)?,
        connector: output.handle(),
        mode,
        scale: wish.map_or(1, |wish| wish.scale),
        name,
    })
}
