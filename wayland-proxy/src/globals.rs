//! The allow-list: which interfaces an application may see, and up to which version.
//!
//! Everything on it can be relayed by signature alone, or has its special cases handled in
//! [`crate::client`]. What is not on it is never announced, so no application can bind it. The
//! compositor has a list of its own; this one is not the wall but the promise that the proxy
//! understands every message that passes.

use wayland_backend::protocol::Interface;
use wayland_protocols::wp::cursor_shape::v1::server::wp_cursor_shape_manager_v1::WpCursorShapeManagerV1;
use wayland_protocols::wp::fractional_scale::v1::server::wp_fractional_scale_manager_v1::WpFractionalScaleManagerV1;
use wayland_protocols::wp::idle_inhibit::zv1::server::zwp_idle_inhibit_manager_v1::ZwpIdleInhibitManagerV1;
use wayland_protocols::wp::pointer_constraints::zv1::server::zwp_pointer_constraints_v1::ZwpPointerConstraintsV1;
use wayland_protocols::wp::pointer_gestures::zv1::server::zwp_pointer_gestures_v1::ZwpPointerGesturesV1;
use wayland_protocols::wp::presentation_time::server::wp_presentation::WpPresentation;
use wayland_protocols::wp::primary_selection::zv1::server::zwp_primary_selection_device_manager_v1::ZwpPrimarySelectionDeviceManagerV1;
use wayland_protocols::wp::relative_pointer::zv1::server::zwp_relative_pointer_manager_v1::ZwpRelativePointerManagerV1;
use wayland_protocols::wp::single_pixel_buffer::v1::server::wp_single_pixel_buffer_manager_v1::WpSinglePixelBufferManagerV1;
use wayland_protocols::wp::text_input::zv3::server::zwp_text_input_manager_v3::ZwpTextInputManagerV3;
use wayland_protocols::wp::viewporter::server::wp_viewporter::WpViewporter;
use wayland_protocols::xdg::activation::v1::server::xdg_activation_v1::XdgActivationV1;
use wayland_protocols::xdg::decoration::zv1::server::zxdg_decoration_manager_v1::ZxdgDecorationManagerV1;
use wayland_protocols::xdg::shell::server::xdg_wm_base::XdgWmBase;
use wayland_protocols::xdg::xdg_output::zv1::server::zxdg_output_manager_v1::ZxdgOutputManagerV1;
use wayland_protocols_misc::server_decoration::server::org_kde_kwin_server_decoration_manager::OrgKdeKwinServerDecorationManager;
use wayland_server::Resource;
use wayland_server::protocol::wl_compositor::WlCompositor;
use wayland_server::protocol::wl_data_device_manager::WlDataDeviceManager;
use wayland_server::protocol::wl_output::WlOutput;
use wayland_server::protocol::wl_seat::WlSeat;
use wayland_server::protocol::wl_shm::WlShm;
use wayland_server::protocol::wl_subcompositor::WlSubcompositor;

/// The generated table of an interface, with the newest version that is relayed.
pub type Global = (&'static Interface, u32);

/// The allow-list.
pub fn allowed() -> [Global; 22] {
    [
        (WlCompositor::interface(), 6),
        (WlSubcompositor::interface(), 1),
        (WlShm::interface(), 2),
        (WlSeat::interface(), 9),
        (WlOutput::interface(), 4),
        (WlDataDeviceManager::interface(), 3),
        (XdgWmBase::interface(), 6),
        (ZxdgDecorationManagerV1::interface(), 1),
        // GTK 3 knows only this one; without it its windows draw a second title bar.
        (OrgKdeKwinServerDecorationManager::interface(), 1),
        (ZxdgOutputManagerV1::interface(), 3),
        (XdgActivationV1::interface(), 1),
        (WpViewporter::interface(), 1),
        (WpFractionalScaleManagerV1::interface(), 1),
        (WpPresentation::interface(), 1),
        (WpCursorShapeManagerV1::interface(), 1),
        (WpSinglePixelBufferManagerV1::interface(), 1),
        (ZwpPrimarySelectionDeviceManagerV1::interface(), 1),
        (ZwpTextInputManagerV3::interface(), 1),
        (ZwpRelativePointerManagerV1::interface(), 1),
        (ZwpPointerConstraintsV1::interface(), 1),
        (ZwpPointerGesturesV1::interface(), 3),
        (ZwpIdleInhibitManagerV1::interface(), 1),
    ]
}

/// Finds an interface on the allow-list.
pub fn find(name: &[u8]) -> Option<Global> {
    allowed()
        .into_iter()
        .find(|(interface, _)| interface.name.as_bytes() == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use wayland_backend::protocol::{ArgumentType, MessageDesc};

    /// Every interface that can be reached from the list.
    fn reachable() -> Vec<&'static Interface> {
        let mut seen = HashSet::new();
        let mut todo: Vec<_> = allowed().iter().map(|(interface, _)| *interface).collect();
        let mut all = Vec::new();
        while let Some(interface) = todo.pop() {
            if seen.insert(interface.name) {
                all.push(interface);
                let messages = interface.requests.iter().chain(interface.events);
                todo.extend(messages.filter_map(|m| m.child_interface));
            }
        }
        all
    }

    #[test]
    fn versions_are_within_the_tables() {
        for (interface, version) in allowed() {
            assert!(version <= interface.version, "{}", interface.name);
        }
    }

    /// Descriptors cannot be relayed by signature: each message with one has code of its own.
    #[test]
    fn every_message_with_a_descriptor_is_known() {
        let has_fd = |m: &&MessageDesc| m.signature.contains(&ArgumentType::Fd);
        let mut found = HashSet::new();
        for interface in reachable() {
            for message in interface
                .requests
                .iter()
                .chain(interface.events)
                .filter(has_fd)
            {
                found.insert(format!("{}.{}", interface.name, message.name));
            }
        }
        let known = [
            "wl_shm.create_pool",
            "wl_keyboard.keymap",
            "wl_data_offer.receive",
            "wl_data_source.send",
            "zwp_primary_selection_offer_v1.receive",
            "zwp_primary_selection_source_v1.send",
        ];
        assert_eq!(found, known.map(String::from).into_iter().collect());
    }
}
