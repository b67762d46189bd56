//! Popups have a border, a parent of their own client, and stay on the output.

use wayland_client::Proxy;

use crate::{
    clients::Client,
    fixture::{Desk, RED},
};

#[test]
fn a_popup_has_a_border_and_is_above_its_window() {
    let desk = Desk::two();
    let mut client = Client::connect(&desk, "work");
    let window = client.window(200, 200, 0xff00_00ff);
    client.shown_popup(&window.xdg, (20, 30), (100, 50), 0xffff_ffff);
    let (w, p) = (desk.window_of("work").unwrap(), desk.popup().unwrap());
    assert_eq!((p.x, p.y, p.w, p.h), (w.x + 20, w.y + 30, 100, 50));
    let picture = desk.picture();
    for x in p.x - 2..p.x + p.w + 2 {
        for i in [1, 2] {
            assert_eq!(picture.at(x, p.y - i), RED);
            assert_eq!(picture.at(x, p.y + p.h - 1 + i), RED);
        }
    }
    for y in p.y - 2..p.y + p.h + 2 {
        for i in [1, 2] {
            assert_eq!(picture.at(p.x - i, y), RED);
            assert_eq!(picture.at(p.x + p.w - 1 + i, y), RED);
        }
    }
    assert_eq!(
        picture.count([255, 255, 255]),
        100 * 50 + white_outside(&picture, &w)
    );
}

/// White pixels that are not the popup's: the title's letters.
fn white_outside(picture: &crate::fixture::Picture, w: &crate::fixture::Seen) -> usize {
    let mut count = 0;
    for y in w.y - 24..w.y {
        for x in w.x..w.x + w.w {
            count += usize::from(picture.at(x, y) == [255, 255, 255]);
        }
    }
    count
}

#[test]
fn a_popup_stays_on_the_output_whatever_it_asks_for() {
    let desk = Desk::two();
    let mut client = Client::connect(&desk, "work");
    let window = client.window(200, 200, 0xff00_00ff);
    for (place, size) in [
        ((5000, 5000), (100, 100)),
        ((-5000, -5000), (3000, 50)),
        ((0, 0), (4000, 4000)),
    ] {
        let (surface, xdg, popup) = client.shown_popup(&window.xdg, place, size, 0xffff_ffff);
        let p = desk.popup().unwrap();
        assert!(
            p.x >= 2 && p.y >= 2 && p.x + p.w <= 798 && p.y + p.h <= 598,
            "{p:?}"
        );
        assert_eq!(desk.picture().at(p.x - 1, p.y), RED);
        popup.destroy();
        xdg.destroy();
        surface.destroy();
        assert!(client.sync());
        assert!(desk.popup().is_none());
    }
}

#[test]
fn a_popup_without_a_parent_is_refused() {
    let desk = Desk::two();
    let mut client = Client::connect(&desk, "work");
    let surface = client.surface();
    let xdg = client.wm_base.get_xdg_surface(&surface, &client.qh, ());
    let positioner = client.wm_base.create_positioner(&client.qh, ());
    positioner.set_size(10, 10);
    positioner.set_anchor_rect(0, 0, 1, 1);
    xdg.get_popup(None, &positioner, &client.qh, ());
    client.assert_thrown_out();
}

#[test]
fn a_popup_that_is_its_own_parent_is_refused() {
    let desk = Desk::two();
    let mut client = Client::connect(&desk, "work");
    let surface = client.surface();
    let xdg = client.wm_base.get_xdg_surface(&surface, &client.qh, ());
    let positioner = client.wm_base.create_positioner(&client.qh, ());
    positioner.set_size(10, 10);
    positioner.set_anchor_rect(0, 0, 1, 1);
    xdg.get_popup(Some(&xdg), &positioner, &client.qh, ());
    surface.commit();
    client.assert_thrown_out();
    // Everybody else goes on.
    Client::connect(&desk, "personal").window(50, 50, 0xff00_00ff);
}

#[test]
fn a_menu_grab_ends_with_a_click_elsewhere() {
    let desk = Desk::two();
    let mut client = Client::connect(&desk, "work");
    let mut other = Client::connect(&desk, "personal");
    other.window(100, 100, 0xff00_00ff);
    let window = client.window(200, 200, 0xff00_00ff);
    let w = desk.window_of("work").unwrap();
    desk.click(w.x + 10, w.y + 10);
    client.until("the click", |t| t.has("release 0x110"));
    let (surface, xdg, popup) = client.popup(&window.xdg, (10, 10), (80, 80));
    popup.grab(&client.seat, client.told.serial);
    surface.commit();
    let key = xdg.id().protocol_id();
    client.until("configure", |t| t.configured.contains_key(&key));
    client.show(&surface, 80, 80, 0xffff_ffff);
    assert!(client.sync());
    assert_eq!(desk.popup().unwrap().all["focused"], true);
    // A click on the other domain's window only closes the menu.
    let o = desk.window_of("personal").unwrap();
    desk.click(o.x + 50, o.y + 50);
    client.until("popup_done", |t| t.popups_done == 1);
    assert!(other.sync());
    assert!(!other.told.log.iter().any(|l| l.starts_with("press")));
    assert!(desk.popup().is_none());
}

#[test]
fn a_menu_grab_needs_a_press_of_this_client() {
    let desk = Desk::two();
    let mut client = Client::connect(&desk, "work");
    let window = client.window(200, 200, 0xff00_00ff);
    let (surface, _, popup) = client.popup(&window.xdg, (10, 10), (80, 80));
    popup.grab(&client.seat, 12345);
    surface.commit();
    client.until("refused", |t| t.popups_done == 1);
}

#[test]
fn menus_nest_only_so_deep() {
    let desk = Desk::two();
    let mut client = Client::connect(&desk, "work");
    let window = client.window(200, 200, 0xff00_00ff);
    let mut parent = window.xdg.clone();
    for _ in 0..40 {
        let (surface, xdg, _) = client.popup(&parent, (1, 1), (50, 50));
        surface.commit();
        parent = xdg;
    }
    // Either it was told that no more popups are shown, or it was ended for going on regardless.
    let alive = client.sync();
    assert!(!alive || client.told.popups_done > 0);
    Client::connect(&desk, "personal").window(50, 50, 0xff00_00ff);
}
