//! Borders and labels are outside the client's pixels, in the domain's colour.

use serde_json::json;

use crate::{
    clients::Client,
    fixture::{Desk, GREEN, RED},
};

const BORDER: i32 = 4;
const TITLE: i32 = 24;
const BLUE: u32 = 0xff00_00ff;

#[test]
fn a_screen_with_small_pixels_shows_everything_larger() {
    let desk = Desk::with_scale(2);
    desk.add_domain("work", "red", "#cc0000");
    let mut client = Client::connect(&desk, "work");
    assert_eq!(client.told.outputs, [(1600, 1200)]);
    assert!(client.told.has("output scale 2"));
    let window = client.bare_window();
    // Twice the pixels, for a window of 100x50.
    window.surface.set_buffer_scale(2);
    client.show(&window.surface, 200, 100, 0xff00_00ff);
    assert!(client.sync(), "{:?}", client.error());
    let seen = desk.window_of("work").unwrap();
    assert_eq!((seen.w, seen.h), (100, 50));
    desk.pointer(700, 500);
    let picture = desk.picture();
    assert_eq!((picture.width, picture.height), (1600, 1200));
    let (left, right, bottom) = (seen.x * 2, (seen.x + seen.w) * 2, (seen.y + seen.h) * 2);
    let inside = [(left, seen.y * 2), (right - 1, bottom - 1)];
    for (x, y) in inside {
        assert_eq!(picture.at(x, y), [0, 0, 255]);
    }
    // Four pixels of border are eight.
    for (x, y) in [
        (left - 1, bottom - 1),
        (left - 8, bottom),
        (right, bottom + 7),
        (right + 7, bottom),
    ] {
        assert_eq!(picture.at(x, y), RED, "{x},{y}");
    }
    assert_ne!(picture.at(left - 9, bottom), RED);
    assert_ne!(picture.at(right + 8, bottom), RED);
    // The arrow is 22 pixels wide and sharp: black, white, or what is below it.
    assert_eq!(picture.at(1400, 1000), [0, 0, 0]);
    assert_eq!(picture.count([255, 255, 255]) % 4, 0);
}

#[test]
fn every_window_has_its_domains_border() {
    let desk = Desk::two();
    let mut work = Client::connect(&desk, "work");
    let mut personal = Client::connect(&desk, "personal");
    work.window(200, 100, BLUE);
    personal.window(150, 120, 0xffff_ffff);
    let picture = desk.picture();
    for (domain, colour, inside) in [
        ("work", RED, [0, 0, 255]),
        ("personal", GREEN, [255, 255, 255]),
    ] {
        let w = desk.window_of(domain).unwrap();
        let (right, bottom) = (w.x + w.w, w.y + w.h);
        for y in w.y - TITLE - BORDER..bottom + BORDER {
            for i in 0..BORDER {
                assert_eq!(picture.at(w.x - 1 - i, y), colour, "{domain} left at {y}");
                assert_eq!(picture.at(right + i, y), colour, "{domain} right at {y}");
            }
        }
        for x in w.x - BORDER..right + BORDER {
            for i in 0..BORDER {
                assert_eq!(picture.at(x, bottom + i), colour, "{domain} bottom at {x}");
                assert_eq!(
                    picture.at(x, w.y - TITLE - 1 - i),
                    colour,
                    "{domain} top at {x}"
                );
            }
        }
        // The client's pixels are all there, to the last one.
        for x in [w.x, w.x + w.w / 2, right - 1] {
            for y in [w.y, w.y + w.h / 2, bottom - 1] {
                assert_eq!(picture.at(x, y), inside, "{domain} inside at {x},{y}");
            }
        }
    }
}

#[test]
fn surfaces_are_cut_to_the_window_geometry() {
    let desk = Desk::two();
    let mut client = Client::connect(&desk, "work");
    let window = client.bare_window();
    // A shadow of 30 pixels around 100×80, and a subsurface that sticks out far.
    window.xdg.set_window_geometry(30, 30, 100, 80);
    let wide = client.surface();
    let sub = client
        .subcompositor
        .get_subsurface(&wide, &window.surface, &client.qh, ());
    sub.set_position(-200, -200);
    sub.set_desync();
    client.show(&wide, 700, 40, 0xffff_00ff);
    client.show(&window.surface, 160, 140, BLUE);
    assert!(client.sync());
    let w = desk.window_of("work").unwrap();
    assert_eq!((w.w, w.h), (100, 80));
    let picture = desk.picture();
    assert_eq!(
        picture.count([255, 0, 255]),
        0,
        "a subsurface is drawn outside the window"
    );
    assert_eq!(picture.count([0, 0, 255]), 100 * 80);
    assert_eq!(picture.at(w.x - 1, w.y + 10), RED);
    assert_eq!(picture.at(w.x + w.w, w.y + 10), RED);
}

#[test]
fn nothing_shines_through_a_window() {
    let desk = Desk::two();
    let mut below = Client::connect(&desk, "personal");
    below.window(300, 200, 0xff00_ffff);
    assert_eq!(desk.picture().count([0, 255, 255]), 300 * 200);
    let mut above = Client::connect(&desk, "work");
    let window = above.bare_window();
    window.toplevel.set_maximized();
    assert!(above.sync());
    above.show(&window.surface, 792, 568, 0x0000_0000);
    assert!(above.sync());
    assert_eq!(desk.picture().count([0, 255, 255]), 0);
    // The client's own pixels are all there where other windows cover them.
    let hidden = desk.crop(desk.window_of("personal").unwrap().id);
    assert_eq!((hidden.width, hidden.height), (300, 200));
    assert_eq!(hidden.count([0, 255, 255]), 300 * 200);
}

#[test]
fn a_title_cannot_push_the_name_away() {
    let desk = Desk::two();
    let mut client = Client::connect(&desk, "work");
    let window = client.window(300, 100, BLUE);
    let w = desk.window_of("work").unwrap();
    let name = |desk: &Desk| {
        let picture = desk.picture();
        let mut pixels = Vec::new();
        for y in w.y - TITLE..w.y {
            for x in w.x..w.x + 44 {
                pixels.push(picture.at(x, y));
            }
        }
        pixels
    };
    let before = name(&desk);
    window
        .toplevel
        .set_title(format!("\u{202e}{}\u{0007}\n", "personal ".repeat(300)));
    window.surface.commit();
    assert!(client.sync());
    assert_eq!(name(&desk), before);
    let title = desk.window_of("work").unwrap().all["title"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(title.chars().count() <= 121, "{title}");
    assert!(!title.contains(['\u{202e}', '\u{7}', '\n']));
    assert!(title.starts_with("personal personal"));
}

#[test]
fn fullscreen_is_acknowledged_inside_the_border() {
    let desk = Desk::two();
    let mut client = Client::connect(&desk, "work");
    let window = client.window(200, 100, BLUE);
    window.toplevel.set_fullscreen(None);
    assert!(client.sync());
    use wayland_client::Proxy;
    let key = window.toplevel.id().protocol_id();
    let size = (800 - 2 * BORDER, 600 - 2 * BORDER - TITLE);
    client.until("fullscreen", |t| t.configures.get(&key) == Some(&size));
    assert!(
        client.told.states[&key].contains(&2),
        "the client believes it is fullscreen"
    );
    // It draws more than it was given, and is cut.
    client.show(&window.surface, 800, 600, BLUE);
    assert!(client.sync());
    let picture = desk.picture();
    for x in 0..800 {
        assert_eq!(picture.at(x, 0), RED);
        assert_eq!(picture.at(x, 599), RED);
    }
    for y in 0..600 {
        assert_eq!(picture.at(0, y), RED);
        assert_eq!(picture.at(799, y), RED);
    }
}

#[test]
fn the_colour_follows_the_manager() {
    let desk = Desk::two();
    let mut client = Client::connect(&desk, "work");
    client.window(100, 100, BLUE);
    desk.control(json!({"op":"set_domain","name":"work","label":"purple","colour":"#75507b"}));
    let w = desk.window_of("work").unwrap();
    assert_eq!(desk.picture().at(w.x - 1, w.y + 5), [0x75, 0x50, 0x7b]);
    assert_eq!(w.all["label"], "purple");
}

#[test]
fn cursors_and_drag_icons_are_cut_to_64_pixels() {
    let desk = Desk::two();
    let mut client = Client::connect(&desk, "work");
    client.window(300, 300, BLUE);
    let w = desk.window_of("work").unwrap();
    let surface = client.surface();
    client.show(&surface, 256, 256, 0xffff_00ff);
    let (x, y) = w.centre();
    desk.pointer(x, y);
    client.until("the pointer", |t| {
        t.log.iter().any(|l| l.starts_with("pointer enter"))
    });
    let serial = client.told.enter_serial;
    client
        .told
        .pointer
        .clone()
        .unwrap()
        .set_cursor(serial, Some(&surface), -500, -500);
    client.show(&surface, 256, 256, 0xffff_00ff);
    assert!(client.sync());
    let picture = desk.picture();
    let shown = picture.count([255, 0, 255]);
    assert!(shown > 0 && shown <= 64 * 64, "{shown} pixels of cursor");
    assert_eq!(
        picture.at(x, y),
        [255, 0, 255],
        "the hotspot is inside the picture"
    );
}
