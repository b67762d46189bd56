//! What a guest can see, to the last name.

use crate::{clients::Client, fixture::Desk};

/// Names and versions, in alphabetical order.
fn names(client: &Client) -> Vec<String> {
    let mut names: Vec<_> = client
        .globals
        .iter()
        .map(|(name, version)| format!("{name} {version}"))
        .collect();
    names.sort();
    names
}

#[test]
fn guests_see_this_list_and_no_other() {
    let desk = Desk::two();
    let client = Client::connect(&desk, "work");
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
    assert_eq!(names(&client), expected);
    assert_eq!(client.told.outputs, [(800, 600)]);
}

#[test]
fn the_host_sees_layer_shell_besides() {
    let desk = Desk::two();
    let guest = Client::connect(&desk, "work");
    let host = Client::connect(&desk, "host");
    let mut expected = names(&guest);
    expected.push("zwlr_layer_shell_v1 4".into());
    expected.sort();
    assert_eq!(names(&host), expected);
    assert!(guest.layer_shell.is_none());
}

#[test]
fn a_guest_that_guesses_the_number_of_a_hidden_global_is_thrown_out() {
    let desk = Desk::two();
    // One after the other: a client does not survive a wrong guess.
    for number in 1..40 {
        let mut guest = Client::connect(&desk, "work");
        guest.bind_layer_shell_by_number(number);
        assert!(!guest.sync(), "global {number} could be bound");
    }
}
