//! Which outputs show the desktop, and how: decided anew whenever one comes or goes.

use smithay::reexports::drm::control::{Device, Mode, ModeTypeFlags, connector, crtc};

use crate::{
    backend::{
        Screen,
        wish::{ModeInfo, OutputWish, pick_mode},
    },
    layout::{Point, Rect, Size},
};

/// A connected output and what is to be done with it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Plan {
    pub name: String,
    pub connector: connector::Handle,
    pub crtc: crtc::Handle,
    pub mode: Mode,
    pub scale: i32,
    /// The upper left corner of the part of the desktop that it shows.
    pub corner: Point,
}

impl Plan {
    /// That part of the desktop.
    pub(super) fn rect(&self) -> Rect {
        let size = self.screen().size;
        Rect::new(self.corner.x, self.corner.y, size.w, size.h)
    }

    /// Whether the output needs nothing but another part of the desktop.
    pub(super) fn is_same_but_for_place(&self, other: &Plan) -> bool {
        let corner = self.corner;
        *self
            == Plan {
                corner,
                ..other.clone()
            }
    }

    /// The desktop as if it were the only one.
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

/// A way from the device's memory to the output that no other output has: the one that it has now, if it can be.
fn crtc_for(
    device: &impl Device,
    output: &connector::Info,
    now: Option<crtc::Handle>,
    taken: &[Plan],
) -> Option<crtc::Handle> {
    let resources = device.resource_handles().ok()?;
    let encoders = output.encoders().iter();
    let mut possible: Vec<crtc::Handle> = encoders
        .filter_map(|encoder| device.get_encoder(*encoder).ok())
        .flat_map(|encoder| resources.filter_crtcs(encoder.possible_crtcs()))
        .filter(|crtc| !taken.iter().any(|plan| plan.crtc == *crtc))
        .collect();
    possible.sort_by_key(|crtc| Some(*crtc) != now);
    possible.first().copied()
}

/// What each output is to show: from left to right those in use as they are, then those that the user named, then
/// the others. The first one has the panels, and its scale is that of all.
pub(super) fn make(
    device: &impl Device,
    wishes: &[OutputWish],
    in_use: &[(connector::Handle, crtc::Handle)],
) -> Vec<Plan> {
    let mut outputs = connected(device);
    outputs.sort_by_key(|output| {
        let used = in_use
            .iter()
            .position(|(known, _)| *known == output.handle());
        let name = output.to_string();
        let named = wishes.iter().position(|wish| wish.name == name);
        (used.unwrap_or(usize::MAX), named.unwrap_or(usize::MAX))
    });
    let mut plans: Vec<Plan> = Vec::new();
    for output in &outputs {
        let known = in_use.iter().find(|(known, _)| *known == output.handle());
        let now = known.map(|(_, crtc)| *crtc);
        let Some(crtc) = crtc_for(device, output, now, &plans) else {
            tracing::warn!(output = %output, "stays dark: the device can show no more pictures");
            continue;
        };
        let Some((mode, wish)) = mode_of(output, wishes) else {
            continue;
        };
        let scale = match plans.first() {
            Some(first) => first.scale,
            None => wish.map_or(1, |wish| wish.scale),
        };
        plans.push(Plan {
            name: output.to_string(),
            connector: output.handle(),
            crtc,
            mode,
            scale,
            corner: Point::default(),
        });
    }
    in_a_row(&mut plans);
    plans
}

/// One beside the other, their upper edges at one height.
pub(super) fn in_a_row(plans: &mut [Plan]) {
    let mut x = 0;
    for plan in plans {
        plan.corner = Point::new(x, 0);
        x = plan.rect().right();
    }
}

fn mode_of<'a>(
    output: &connector::Info,
    wishes: &'a [OutputWish],
) -> Option<(Mode, Option<&'a OutputWish>)> {
    let name = output.to_string();
    let wish = wishes.iter().find(|wish| wish.name == name);
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
    Some((*output.modes().get(index)?, wish))
}
