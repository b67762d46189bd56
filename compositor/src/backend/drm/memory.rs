//! Pictures in memory that the screen can show ("dumb buffers"): plain pixels, for any device.

use std::io;

use smithay::{
    backend::drm::DrmDeviceFd,
    reexports::{
        drm::{
            buffer::{Buffer, DrmFourcc},
            control::{
                Device,
                dumbbuffer::{DumbBuffer, DumbMapping},
                framebuffer,
            },
        },
        pixman,
    },
    utils::{Physical, Rectangle},
};

/// After so many rectangles the whole picture is copied.
const MAX_STALE: usize = 64;
/// Every pixel has four bytes.
const PIXEL_BYTES: usize = 4;

/// A picture that the screen can show, and the parts of it that are out of date.
pub(super) struct Frame {
    device: DrmDeviceFd,
    buffer: DumbBuffer,
    map: Option<DumbMapping<'static>>,
    shown_as: Option<framebuffer::Handle>,
    stale: Vec<Rectangle<i32, Physical>>,
    all_stale: bool,
}

impl Frame {
    /// An opaque picture for a screen, or one with holes for the pointer.
    pub(super) fn new(device: &DrmDeviceFd, size: (u32, u32), opaque: bool) -> io::Result<Self> {
        let (format, depth) = if opaque {
            (DrmFourcc::Xrgb8888, 24)
        } else {
            (DrmFourcc::Argb8888, 32)
        };
        let buffer = device.create_dumb_buffer(size, format, 32)?;
        let mut frame = Self {
            device: device.clone(),
            buffer,
            map: None,
            shown_as: None,
            stale: Vec::new(),
            all_stale: true,
        };
        let mut copy = buffer;
        let map = device.map_dumb_buffer(&mut copy)?;
        // SAFETY: the lifetime only says that the handle outlives the mapping, and the handle is a
        // number. The mapping is memory of its own: it stays valid until it is dropped, which
        // unmaps it, whatever becomes of the handle or the device.
        let map = unsafe { std::mem::transmute::<DumbMapping<'_>, DumbMapping<'static>>(map) };
        frame.map = Some(map);
        frame.shown_as = Some(device.add_framebuffer(&buffer, depth, 32)?);
        Ok(frame)
    }

    /// What the device calls it.
    pub(super) fn handle(&self) -> io::Result<framebuffer::Handle> {
        self.shown_as
            .ok_or_else(|| io::Error::other("a picture without a name"))
    }

    /// Parts of what it shows have changed.
    pub(super) fn make_stale(&mut self, parts: &[Rectangle<i32, Physical>]) {
        if self.all_stale || self.stale.len().saturating_add(parts.len()) > MAX_STALE {
            self.make_all_stale();
        } else {
            self.stale.extend_from_slice(parts);
        }
    }

    /// Everything that it shows has changed.
    pub(super) fn make_all_stale(&mut self) {
        self.all_stale = true;
        self.stale.clear();
    }

    /// Copies what is out of date from a picture of the same size. Answers what was copied.
    pub(super) fn freshen(
        &mut self,
        from: &pixman::Image<'static, 'static>,
    ) -> Vec<Rectangle<i32, Physical>> {
        let (w, h) = self.buffer.size();
        let side = |v: u32| i32::try_from(v).unwrap_or(i32::MAX);
        let whole = Rectangle::<i32, Physical>::from_size((side(w), side(h)).into());
        let parts = if std::mem::take(&mut self.all_stale) {
            vec![whole]
        } else {
            std::mem::take(&mut self.stale)
        };
        let parts: Vec<_> = parts
            .into_iter()
            .filter_map(|part| part.intersection(whole))
            .collect();
        let pitch = usize::try_from(self.buffer.pitch()).unwrap_or(0);
        if let Some(map) = &mut self.map {
            let (bytes, stride) = (bytes_of(from), from.stride());
            for part in &parts {
                copy(bytes, stride, map, pitch, *part);
            }
        }
        parts
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        self.map = None;
        // The device may be gone, and everything with it.
        if let Some(handle) = self.shown_as.take()
            && let Err(error) = self.device.destroy_framebuffer(handle)
        {
            tracing::debug!(%error, "a framebuffer was gone already");
        }
        if let Err(error) = self.device.destroy_dumb_buffer(self.buffer) {
            tracing::debug!(%error, "a dumb buffer was gone already");
        }
    }
}

/// The bytes of a picture in memory.
fn bytes_of<'a>(image: &'a pixman::Image<'static, 'static>) -> &'a [u8] {
    let length = image.stride().saturating_mul(image.height());
    // SAFETY: pixman keeps `height` rows of `stride` bytes at `data` as long as the image lives,
    // and the slice borrows the image. Nothing draws on it meanwhile: there is one thread.
    unsafe {
        let data = image.data();
        if data.is_null() {
            return &[];
        }
        std::slice::from_raw_parts(data.cast_const().cast::<u8>(), length)
    }
}

/// Copies the rows of one rectangle. Rows that either side does not have are left out.
fn copy(
    from: &[u8],
    from_pitch: usize,
    to: &mut [u8],
    to_pitch: usize,
    part: Rectangle<i32, Physical>,
) {
    let at = |v: i32| usize::try_from(v).unwrap_or(0);
    let (x, y) = (at(part.loc.x), at(part.loc.y));
    let (w, h) = (at(part.size.w), at(part.size.h));
    let span = |pitch: usize, row: usize| {
        let start = row * pitch + x * PIXEL_BYTES;
        start..start + w * PIXEL_BYTES
    };
    for row in y..y + h {
        let (Some(source), Some(target)) = (
            from.get(span(from_pitch, row)),
            to.get_mut(span(to_pitch, row)),
        ) else {
            return;
        };
        target.copy_from_slice(source);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rectangle_is_copied_and_nothing_beside_it() {
        // 4x3 pixels with a pitch of 5 pixels, into 4x3 pixels with a pitch of 4.
        let from: Vec<u8> = (0..60).collect();
        let mut to = vec![255; 48];
        let part = Rectangle::new((1, 1).into(), (2, 2).into());
        copy(&from, 20, &mut to, 16, part);
        assert_eq!(to[16 + 4..16 + 12], from[20 + 4..20 + 12]);
        assert_eq!(to[32 + 4..32 + 12], from[40 + 4..40 + 12]);
        assert_eq!(to.iter().filter(|b| **b == 255).count(), 48 - 16);
    }

    #[test]
    fn rows_that_are_not_there_are_left_out() {
        let mut to = vec![0; 16];
        let part = Rectangle::new((0, 0).into(), (2, 9).into());
        copy(&[7; 24], 8, &mut to, 8, part);
        assert_eq!(to, [7; 16]);
    }
}
