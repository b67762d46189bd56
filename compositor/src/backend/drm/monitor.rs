//! One lit output: its part of the desktop is drawn into plain memory, what changed is copied to the one of
//! two pictures that the screen does not show, and the screen is told to show that one.
//!
//! Drawing reads as much as it writes, and the memory of pictures for the screen is slow to read
//! on many devices: hence the copy.

use smithay::{
    backend::{
        allocator::Fourcc,
        drm::{
            DrmDevice, DrmDeviceFd, DrmError, DrmSurface, PlaneConfig, PlaneDamageClips, PlaneState,
        },
        renderer::{
            Bind, Offscreen,
            damage::OutputDamageTracker,
            element::{
                RenderElementStates,
                utils::{Relocate, RelocateRenderElement},
            },
            pixman::PixmanRenderer,
        },
    },
    reexports::{
        calloop::RegistrationToken,
        drm::control::{connector, crtc},
        pixman,
    },
    utils::{Buffer, Physical, Rectangle, Size as SmithaySize, Transform},
};

use super::{memory::Frame, plan::Plan, pointer::PointerPlane};
use crate::{
    backend::Screen,
    layout::Point,
    render::{GROUND, build},
    state::State,
};

/// An output that shows the desktop.
pub(super) struct Monitor {
    plan: Plan,
    device: DrmDeviceFd,
    surface: DrmSurface,
    image: pixman::Image<'static, 'static>,
    damage: OutputDamageTracker,
    /// The image holds the last drawing.
    drawn: bool,
    frames: [Frame; 2],
    front: usize,
    pointer: Option<PointerPlane>,
    /// A picture is on its way to the screen; the timer gives it up.
    pub(super) flight: Option<RegistrationToken>,
}

/// What came of a drawing.
pub(super) enum Shown {
    /// Nothing has changed.
    Same(RenderElementStates),
    /// The picture is on its way to the screen.
    Soon(RenderElementStates),
    /// The scene could not be drawn; the next try draws all of it.
    NotDrawn,
    /// The device did not take the picture.
    Refused(String),
}

fn tracker(screen: Screen) -> OutputDamageTracker {
    let pixels = screen.pixels();
    OutputDamageTracker::new(
        (pixels.w, pixels.h),
        f64::from(screen.scale),
        Transform::Normal,
    )
}

impl Monitor {
    /// Lights an output. Nothing is shown before the first drawing.
    pub(super) fn new(
        gpu: &mut DrmDevice,
        plan: Plan,
        renderer: &mut PixmanRenderer,
    ) -> Result<Self, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let surface = gpu
            .create_surface(plan.crtc, plan.mode, &[plan.connector])
            .map_err(|e| text(&e))?;
        let device = gpu.device_fd().clone();
        let (w, h) = plan.mode.size();
        let frame = || Frame::new(&device, (u32::from(w), u32::from(h)), true);
        let frames = [
            frame().map_err(|e| text(&e))?,
            frame().map_err(|e| text(&e))?,
        ];
        // Drawn at the size that whole pixels of the desktop fill; a rest stays black.
        let size = SmithaySize::<i32, Buffer>::from((i32::from(w), i32::from(h)));
        let image = renderer
            .create_buffer(Fourcc::Xrgb8888, size)
            .map_err(|e| text(&e))?;
        let cursor_size = gpu.cursor_size();
        let pointer = PointerPlane::new(&device, &surface, cursor_size, plan.scale, renderer);
        Ok(Self {
            damage: tracker(plan.screen()),
            plan,
            device,
            surface,
            image,
            drawn: false,
            frames,
            front: 0,
            pointer,
            flight: None,
        })
    }

    pub(super) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Shows another part of the desktop from now on.
    pub(super) fn move_to(&mut self, corner: Point) {
        if self.plan.corner != corner {
            self.plan.corner = corner;
            self.drawn = false;
        }
    }

    pub(super) fn crtc(&self) -> crtc::Handle {
        self.plan.crtc
    }

    pub(super) fn connector(&self) -> connector::Handle {
        self.plan.connector
    }

    pub(super) fn has_pointer_plane(&self) -> bool {
        self.pointer.is_some()
    }

    /// Somebody else had the device: what the screen shows and what the device remembers is not
    /// ours.
    pub(super) fn forget_what_is_shown(&mut self) -> Result<(), DrmError> {
        for frame in &mut self.frames {
            frame.make_all_stale();
        }
        self.drawn = false;
        self.surface.reset_state()
    }

    /// Draws the desktop, and shows it if it looks different.
    pub(super) fn draw(&mut self, state: &mut State, renderer: &mut PixmanRenderer) -> Shown {
        let here = self.plan.rect();
        let corner = Point::new(here.x * self.plan.scale, here.y * self.plan.scale);
        let elements: Vec<_> = build(state, renderer, self.pointer.is_none())
            .into_iter()
            .map(|element| {
                let to_corner = (-corner.x, -corner.y);
                RelocateRenderElement::from_element(element, to_corner, Relocate::Relative)
            })
            .collect();
        let age = usize::from(self.drawn);
        let drawn = renderer
            .bind(&mut self.image)
            .map_err(|error| error.to_string())
            .and_then(|mut target| {
                self.damage
                    .render_output(renderer, &mut target, age, &elements, GROUND)
                    .map(|result| (result.damage.cloned().unwrap_or_default(), result.states))
                    .map_err(|error| error.to_string())
            });
        drop(elements);
        let (damage, states) = match drawn {
            Ok(drawn) => drawn,
            Err(error) => {
                // A client cut its memory off while it was drawn; smithay has ended it, and the
                // next picture is drawn whole, without it.
                tracing::warn!(error, "a picture could not be drawn");
                self.drawn = false;
                return Shown::NotDrawn;
            }
        };
        self.drawn = true;
        for frame in &mut self.frames {
            frame.make_stale(&damage);
        }
        let pointer = self
            .pointer
            .as_mut()
            .is_some_and(|pointer| pointer.update(state, renderer, here));
        if damage.is_empty() && !pointer && !self.surface.commit_pending() {
            return Shown::Same(states);
        }
        match self.flip(!damage.is_empty()) {
            Ok(()) => Shown::Soon(states),
            Err(error) => {
                // What the screen shows is not known now.
                for frame in &mut self.frames {
                    frame.make_all_stale();
                }
                self.drawn = false;
                if self.pointer.take().is_some() {
                    tracing::info!("the pointer is drawn into the picture from now on");
                }
                Shown::Refused(error)
            }
        }
    }

    fn flip(&mut self, desktop_changed: bool) -> Result<(), String> {
        let modeset = self.surface.commit_pending();
        let next = if desktop_changed || modeset {
            1 - self.front.min(1)
        } else {
            self.front
        };
        let frame = self.frames.get_mut(next).ok_or("no such picture")?;
        let copied = frame.freshen(&self.image);
        let handle = frame.handle().map_err(|error| error.to_string())?;
        let (w, h) = self.plan.mode.size();
        let src = Rectangle::<f64, Buffer>::from_size((f64::from(w), f64::from(h)).into());
        let dst = Rectangle::<i32, Physical>::from_size((i32::from(w), i32::from(h)).into());
        // Relative to what this very picture held before: devices that copy to their own memory
        // copy no more, and never too little.
        let clips = if modeset {
            None
        } else {
            PlaneDamageClips::from_damage(&self.device, src, dst, copied).unwrap_or_default()
        };
        let desktop = PlaneState {
            handle: self.surface.plane(),
            config: Some(PlaneConfig {
                src,
                dst,
                transform: Transform::Normal,
                alpha: 1.0,
                damage_clips: clips.as_ref().map(PlaneDamageClips::blob),
                fb: handle,
                fence: None,
            }),
        };
        let planes =
            std::iter::once(desktop).chain(self.pointer.as_ref().map(PointerPlane::plane_state));
        let done = if modeset {
            self.surface.commit(planes, true)
        } else {
            self.surface.page_flip(planes, true)
        };
        done.map_err(|error| describe(&error))?;
        self.front = next;
        Ok(())
    }
}

/// An error with its cause.
pub(super) fn describe(error: &DrmError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text
}
