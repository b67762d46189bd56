//! The pointer on a plane of its own: it moves without the desktop being drawn again. Where the
//! device has no such plane the pointer is part of the picture.

use smithay::{
    backend::{
        allocator::Fourcc,
        drm::{DrmDeviceFd, DrmSurface, PlaneClaim, PlaneConfig, PlaneState},
        renderer::{Bind, Offscreen, damage::OutputDamageTracker, pixman::PixmanRenderer},
    },
    reexports::{drm::control::plane, pixman},
    utils::{Buffer, Physical, Point, Rectangle, Size, Transform},
};

use super::memory::Frame;
use crate::{
    layout::{Point as Cell, Rect},
    render::{MAX_CURSOR_PX, cursor_alone},
    state::State,
};

/// Nothing where the pointer's picture has holes.
const CLEAR: [f32; 4] = [0.0, 0.0, 0.0, 0.0];

pub(super) struct PointerPlane {
    plane: plane::Handle,
    /// Keeps the plane from being used for anything else.
    _claim: PlaneClaim,
    size: i32,
    image: pixman::Image<'static, 'static>,
    damage: OutputDamageTracker,
    drawn: bool,
    frames: [Frame; 2],
    front: usize,
    shown_at: Option<Point<i32, Physical>>,
}

impl PointerPlane {
    /// The plane, if the device has one that is large enough.
    pub(super) fn new(
        device: &DrmDeviceFd,
        surface: &DrmSurface,
        size: Size<u32, Buffer>,
        scale: i32,
        renderer: &mut PixmanRenderer,
    ) -> Option<Self> {
        if surface.is_legacy() {
            return None;
        }
        let side = size.w.min(size.h);
        let needed = (MAX_CURSOR_PX * scale).unsigned_abs();
        if side < needed {
            return None;
        }
        // Some devices take no other size than the one that they name.
        let plane = surface.planes().cursor.first()?.handle;
        let claim = surface.claim_plane(plane)?;
        let frame = || Frame::new(device, (size.w, size.h), false).ok();
        let pixels = (i32::try_from(size.w).ok()?, i32::try_from(size.h).ok()?);
        let image = renderer
            .create_buffer(Fourcc::Argb8888, Size::<i32, Buffer>::from(pixels))
            .ok()?;
        Some(Self {
            plane,
            _claim: claim,
            size: pixels.0.min(pixels.1),
            image,
            damage: OutputDamageTracker::new(pixels, f64::from(scale), Transform::Normal),
            drawn: false,
            frames: [frame()?, frame()?],
            front: 0,
            shown_at: None,
        })
    }

    /// Draws the pointer if it looks different, and is on the part of the desktop that is shown `here`. Answers
    /// whether the plane is to change.
    pub(super) fn update(
        &mut self,
        state: &mut State,
        renderer: &mut PixmanRenderer,
        here: Rect,
    ) -> bool {
        let before = self.shown_at;
        let reached = |corner: &Cell| {
            Rect::new(corner.x, corner.y, MAX_CURSOR_PX, MAX_CURSOR_PX).overlaps(&here)
        };
        let Some((elements, corner)) =
            cursor_alone(state, renderer).filter(|(_, corner)| reached(corner))
        else {
            self.shown_at = None;
            return before.is_some();
        };
        let at = Point::from((
            (corner.x - here.x) * state.scale,
            (corner.y - here.y) * state.scale,
        ));
        self.shown_at = Some(at);
        let age = usize::from(self.drawn);
        let drawn = renderer
            .bind(&mut self.image)
            .map_err(|error| error.to_string())
            .and_then(|mut target| {
                self.damage
                    .render_output(renderer, &mut target, age, &elements, CLEAR)
                    .map(|result| result.damage.is_some_and(|damage| !damage.is_empty()))
                    .map_err(|error| error.to_string())
            });
        match drawn {
            Ok(false) => before != self.shown_at,
            Ok(true) => {
                self.drawn = true;
                self.front = 1 - self.front.min(1);
                if let Some(frame) = self.frames.get_mut(self.front) {
                    frame.make_all_stale();
                    frame.freshen(&self.image);
                }
                true
            }
            Err(error) => {
                tracing::warn!(error, "the pointer could not be drawn");
                self.drawn = false;
                self.shown_at = None;
                before.is_some()
            }
        }
    }

    /// What the device is to do with the plane.
    pub(super) fn plane_state(&self) -> PlaneState<'static> {
        let frame = self.frames.get(self.front);
        let config = self.shown_at.zip(frame).and_then(|(at, frame)| {
            let size = (self.size, self.size);
            Some(PlaneConfig {
                src: Rectangle::from_size((f64::from(size.0), f64::from(size.1)).into()),
                dst: Rectangle::new(at, size.into()),
                transform: Transform::Normal,
                alpha: 1.0,
                damage_clips: None,
                fb: frame.handle().ok()?,
                fence: None,
            })
        });
        PlaneState {
            handle: self.plane,
            config,
        }
    }
}
