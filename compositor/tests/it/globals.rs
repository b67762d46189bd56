//! What a guest can see, to the last name.

use crate::{clients::Client, fixture::Desk};

#[test]
fn guests_see_this_list_and_no_other() {
    let desk = Desk::two();
    let client = Client::connect(&desk, "work");
    let mut names: Vec<_> = client
        .globals
        .iter()
        .map(|(name, version)| format!("{name} {version}"))
        .collect();
    names.sort();
    let expected = [
        "org_kde_kwin_server_decoration_manager 1",
        "wl_compositor 6",
        "wl_data_device_manager 3",
        "wl_output 4",
        "wl_seat 9",
        "wl_shm 2",
        "wl_subcompositor 1",
        "wp_cursor_shape_manager_v1 2",
        "wp_fractional_scale_manager_v1 1",
        "wp_presentation 2",
        "wp_viewporter 1",
        "xdg_activation_v1 1",
        "xdg_wm_base 6",
        "zwp_primary_selection_device_manager_v1 1",
        "zxdg_decoration_manager_v1 1",
        "zxdg_output_manager_v1 3",
    ];
    assert_eq!(names, expected);
    assert_eq!(client.told.outputs, [(800, 600)]);
}
