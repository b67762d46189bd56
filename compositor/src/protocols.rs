//! The globals that guests see: this list and no other. Clients of the host's socket see
//! layer-shell besides; guests never do. There is no session-lock, screencopy, data-control, virtual
//! input, input-method, foreign-toplevel, output-management, gamma control, security-context, DRM
//! lease, text-input or xdg-foreign here to be seen.

use smithay::{
    input::{Seat, SeatState, keyboard::XkbConfig},
    output::{Mode, Output, PhysicalProperties, Scale, Subpixel},
    reexports::{
        wayland_protocols::{
            wp::primary_selection::zv1::server::zwp_primary_selection_device_manager_v1::ZwpPrimarySelectionDeviceManagerV1,
            xdg::{
                activation::v1::server::xdg_activation_v1::XdgActivationV1,
                decoration::zv1::server::zxdg_decoration_manager_v1::ZxdgDecorationManagerV1,
                shell::server::xdg_toplevel::WmCapabilities,
            },
        },
        wayland_protocols_misc::server_decoration::server::org_kde_kwin_server_decoration_manager::OrgKdeKwinServerDecorationManager,
        wayland_server::{DisplayHandle, protocol::wl_data_device_manager::WlDataDeviceManager},
    },
    utils::Transform,
    wayland::{
        compositor::CompositorState,
        cursor_shape::CursorShapeManagerState,
        fractional_scale::FractionalScaleManagerState,
        output::OutputManagerState,
        presentation::PresentationState,
        shell::{wlr_layer::WlrLayerShellState, xdg::XdgShellState},
        shm::ShmState,
        viewporter::ViewporterState,
    },
};

use crate::{
    backend::Screen, domain::DomainId, guard::domain_of, server::StartError, state::State,
};

/// What smithay keeps for each protocol. Fields that are never read hold their global open.
#[derive(Debug)]
#[allow(dead_code)]
pub(crate) struct Protocols {
    pub compositor: CompositorState,
    pub shm: ShmState,
    pub xdg_shell: XdgShellState,
    pub layer_shell: WlrLayerShellState,
    viewporter: ViewporterState,
    fractional_scale: FractionalScaleManagerState,
    presentation: PresentationState,
    cursor_shape: CursorShapeManagerState,
    outputs: OutputManagerState,
}

impl Protocols {
    pub fn new(dh: &DisplayHandle) -> Self {
        dh.create_global::<State, ZxdgDecorationManagerV1, ()>(1, ());
        dh.create_global::<State, OrgKdeKwinServerDecorationManager, ()>(1, ());
        dh.create_global::<State, XdgActivationV1, ()>(1, ());
        dh.create_global::<State, WlDataDeviceManager, ()>(3, ());
        dh.create_global::<State, ZwpPrimarySelectionDeviceManagerV1, ()>(1, ());
        Self {
            compositor: CompositorState::new_v6::<State>(dh),
            shm: ShmState::new::<State>(dh, []),
            xdg_shell: XdgShellState::new_with_capabilities::<State>(
                dh,
                [WmCapabilities::Maximize, WmCapabilities::Fullscreen],
            ),
            layer_shell: WlrLayerShellState::new_with_filter::<State, _>(dh, |client| {
                domain_of(client) == Some(DomainId::HOST)
            }),
            viewporter: ViewporterState::new::<State>(dh),
            fractional_scale: FractionalScaleManagerState::new::<State>(dh),
            presentation: PresentationState::new::<State>(dh, 1 /* CLOCK_MONOTONIC */),
            cursor_shape: CursorShapeManagerState::new::<State>(dh),
            outputs: OutputManagerState::new_with_xdg_output::<State>(dh),
        }
    }
}

/// The one output.
pub(crate) fn output(dh: &DisplayHandle, screen: Screen) -> Output {
    let properties = PhysicalProperties {
        size: (0, 0).into(),
        subpixel: Subpixel::Unknown,
        // What guests may know of the machine: nothing.
        make: "Bulkhead".into(),
        model: "Desktop".into(),
    };
    let output = Output::new("BULKHEAD-1".into(), properties);
    output.create_global::<State>(dh);
    set_mode(&output, screen);
    output
}

/// The output is another one, or has another mode or scale.
pub(crate) fn set_mode(output: &Output, screen: Screen) {
    let pixels = screen.pixels();
    let mode = Mode {
        size: (pixels.w, pixels.h).into(),
        refresh: screen.refresh_mhz,
    };
    if let Some(old) = output.current_mode().filter(|old| *old != mode) {
        output.delete_mode(old);
    }
    output.change_current_state(
        Some(mode),
        Some(Transform::Normal),
        Some(Scale::Integer(screen.scale)),
        Some((0, 0).into()),
    );
    output.set_preferred(mode);
}

/// The one seat: pointer, keyboard (25 repeats a second after 600 ms), touch.
pub(crate) fn seat(
    dh: &DisplayHandle,
    seats: &mut SeatState<State>,
) -> Result<Seat<State>, StartError> {
    let mut seat = seats.new_wl_seat(dh, "seat0");
    seat.add_keyboard(XkbConfig::default(), 600, 25)
        .map_err(|error| StartError::Keymap(error.to_string()))?;
    seat.add_pointer();
    seat.add_touch();
    Ok(seat)
}
