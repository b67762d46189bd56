//! The host's own programs: panels and menus, and what the user does with them.

use serde_json::{Value, json};
use wayland_protocols_wlr::layer_shell::v1::client::{
    zwlr_layer_shell_v1::Layer,
    zwlr_layer_surface_v1::{Anchor, KeyboardInteractivity},
};

use crate::{
    clients::{Client, Panel},
    fixture::{Channel, Desk, RED},
};

const BLUE: u32 = 0xff00_00ff;
const PINK: u32 = 0xffff_00ff;
const PINK_RGB: [u8; 3] = [0xff, 0, 0xff];
const SUPER: u32 = 125;
const KEY_A: u32 = 30;
const KEY_Q: u32 = 16;

fn bar() -> Panel {
    Panel {
        layer: Layer::Top,
        anchor: Anchor::Top | Anchor::Left | Anchor::Right,
        size: (0, 30),
        zone: 30,
        keyboard: KeyboardInteractivity::None,
    }
}

fn menu() -> Panel {
    Panel {
        layer: Layer::Overlay,
        anchor: Anchor::empty(),
        size: (300, 200),
        zone: 0,
        keyboard: KeyboardInteractivity::Exclusive,
    }
}

fn layer(desk: &Desk, index: usize) -> Value {
    desk.test(json!({"op": "layers"}))["layers"][index].clone()
}

fn events(desk: &Desk) -> Channel {
    let channel = desk.control_channel();
    assert_eq!(channel.ask(json!({"op": "subscribe"}), &[])["ok"], true);
    channel
}

#[test]
fn a_panel_has_no_border_and_windows_keep_out_of_its_zone() {
    let desk = Desk::two();
    let mut work = Client::connect(&desk, "work");
    let window = work.window(200, 100, BLUE);
    let before = desk.window_of("work").unwrap();
    let mut host = Client::connect(&desk, "host");
    host.panel(&bar(), PINK);
    let picture = desk.picture();
    assert_eq!(picture.count(PINK_RGB), 800 * 30);
    // The window moved out of the panel's way.
    let after = desk.window_of("work").unwrap();
    assert!(after.y > before.y && after.y >= 30 + 28, "{after:?}");
    window.toplevel.set_maximized();
    let key = wayland_client::Proxy::id(&window.toplevel).protocol_id();
    work.until("the size that is left", |t| {
        t.configures.get(&key) == Some(&(792, 538))
    });
    work.show(&window.surface, 792, 538, BLUE);
    assert!(work.sync());
    let picture = desk.picture();
    assert_eq!(picture.at(0, 29), PINK_RGB);
    assert_eq!(picture.at(0, 30), RED);
    // When the panel goes, the window gets its room.
    drop(host);
    work.until("all of the room", |t| {
        t.configures.get(&key) == Some(&(792, 568))
    });
}

#[test]
fn a_domain_window_is_never_above_a_panel_and_never_below_a_background() {
    let desk = Desk::two();
    let mut host = Client::connect(&desk, "host");
    let background = Panel {
        layer: Layer::Background,
        anchor: Anchor::all(),
        size: (0, 0),
        zone: -1,
        keyboard: KeyboardInteractivity::None,
    };
    host.panel(&background, 0xff10_2030);
    host.panel(&bar(), PINK);
    let mut work = Client::connect(&desk, "work");
    work.window(780, 590, BLUE);
    let seen = desk.window_of("work").unwrap();
    // Dragged as far up as it goes.
    desk.pointer(seen.x + 50, seen.y - 10);
    desk.button(0x110, true);
    desk.pointer(seen.x + 50, 0);
    desk.button(0x110, false);
    desk.pointer(799, 599);
    let picture = desk.picture();
    assert_eq!(picture.count(PINK_RGB), 800 * 30);
    let seen = desk.window_of("work").unwrap();
    assert_eq!(picture.at(seen.x + 100, seen.y + 100), [0, 0, 255]);
    assert!(picture.count([0x10, 0x20, 0x30]) > 0);
}

#[test]
fn a_menu_takes_the_keyboard_and_gives_it_back() {
    let desk = Desk::two();
    let mut work = Client::connect(&desk, "work");
    work.window(200, 100, BLUE);
    work.until("the keyboard", |t| t.has("keyboard enter"));
    let mut host = Client::connect(&desk, "host");
    let (surface, layer_surface) = host.panel(&menu(), PINK);
    host.until("the keyboard", |t| t.has("keyboard enter"));
    work.until("no keyboard", |t| t.has("keyboard leave"));
    assert_eq!(layer(&desk, 0)["focused"], true);
    assert_eq!(layer(&desk, 0)["x"], 250);
    desk.key(KEY_A, true);
    desk.key(KEY_A, false);
    host.until("the key", |t| t.has("key 30 up"));
    assert!(work.sync() && !work.told.has("key 30 down"));
    // The desktop's own keys do nothing to the window behind.
    desk.key(SUPER, true);
    desk.key(KEY_Q, true);
    desk.key(KEY_Q, false);
    desk.key(SUPER, false);
    host.until("the key", |t| t.has("key 16 down"));
    assert!(work.sync() && !work.told.has("close"));
    // A click on the window does not take the keyboard away from the menu.
    let seen = desk.window_of("work").unwrap();
    desk.click(seen.x + 5, seen.y + 5);
    assert_eq!(layer(&desk, 0)["focused"], true);
    layer_surface.destroy();
    surface.destroy();
    assert!(host.sync());
    work.until("the keyboard again", |t| {
        t.log.iter().filter(|l| *l == "keyboard enter").count() == 2
    });
    assert_eq!(desk.picture().count(PINK_RGB), 0);
}

#[test]
fn no_guests_menu_keeps_the_pointer_from_the_hosts() {
    let desk = Desk::two();
    let mut work = Client::connect(&desk, "work");
    let window = work.window(200, 100, BLUE);
    let seen = desk.window_of("work").unwrap();
    desk.click(seen.x + 5, seen.y + 5);
    work.until("the press", |t| t.has("press 0x110"));
    let popup = work.popup(&window.xdg, (10, 10), (50, 50));
    popup.2.grab(&work.seat, work.told.serial);
    popup.0.commit();
    let key = wayland_client::Proxy::id(&popup.1).protocol_id();
    work.until("the popup's configure", |t| t.configured.contains_key(&key));
    work.show(&popup.0, 50, 50, BLUE);
    assert!(work.sync());
    assert_eq!(desk.popup().unwrap().all["focused"], true);
    let mut host = Client::connect(&desk, "host");
    host.panel(&menu(), PINK);
    work.until("the popup is dismissed", |t| t.popups_done == 1);
    // And it cannot take the pointer back with the press that it remembers.
    let again = work.popup(&window.xdg, (10, 10), (50, 50));
    again.2.grab(&work.seat, work.told.serial);
    work.until("the second one is dismissed", |t| t.popups_done == 2);
    desk.click(400, 300);
    host.until("the click", |t| t.has("press 0x110"));
}

#[test]
fn a_panel_gets_the_pointer_and_the_keyboard_only_on_demand() {
    let desk = Desk::two();
    let mut work = Client::connect(&desk, "work");
    work.window(200, 100, BLUE);
    let mut host = Client::connect(&desk, "host");
    host.panel(&bar(), PINK);
    let (surface, _) = host.panel(
        &Panel {
            anchor: Anchor::Bottom | Anchor::Left | Anchor::Right,
            keyboard: KeyboardInteractivity::OnDemand,
            ..bar()
        },
        PINK,
    );
    desk.click(400, 10);
    host.until("the click", |t| t.has("press 0x110"));
    assert_eq!(desk.window_of("work").unwrap().all["focused"], true);
    assert!(!host.told.has("keyboard enter"));
    desk.click(400, 590);
    host.until("the keyboard", |t| t.has("keyboard enter"));
    let seen = desk.window_of("work").unwrap();
    desk.click(seen.x + 5, seen.y + 5);
    host.until("no keyboard", |t| t.has("keyboard leave"));
    desk.key(KEY_A, true);
    work.until("the key", |t| t.has("key 30 down"));
    // A panel that attaches nothing vanishes with its zone, and can come back.
    surface.attach(None, 0, 0);
    surface.commit();
    assert!(host.sync());
    assert_eq!(layer(&desk, 1)["mapped"], false);
    surface.commit();
    assert!(host.sync());
    host.show(&surface, 800, 30, PINK);
    assert!(host.sync(), "{:?}", host.error());
    assert_eq!(layer(&desk, 1)["mapped"], true);
}

#[test]
fn the_hosts_programs_have_no_windows() {
    let desk = Desk::two();
    let mut host = Client::connect(&desk, "host");
    let surface = host.surface();
    let xdg = host.wm_base.get_xdg_surface(&surface, &host.qh, ());
    let _toplevel = xdg.get_toplevel(&host.qh, ());
    surface.commit();
    host.until("it is told to close", |t| t.has("close"));
    assert!(desk.windows().is_empty());
}

#[test]
fn absurd_panels_are_borne() {
    let desk = Desk::two();
    let mut work = Client::connect(&desk, "work");
    work.window(200, 100, BLUE);
    let mut host = Client::connect(&desk, "host");
    let (surface, layer_surface) = host.panel(&bar(), PINK);
    for number in [i32::MAX, i32::MIN, -1, 100_000] {
        layer_surface.set_exclusive_zone(number);
        layer_surface.set_margin(number, number, number, number);
        layer_surface.set_size(u32::MAX, u32::MAX);
        surface.commit();
        assert!(host.sync(), "{:?}", host.error());
        desk.picture();
    }
    assert!(work.sync());
}

#[test]
fn a_tap_on_super_is_told_and_nothing_else_is() {
    let desk = Desk::two();
    let channel = events(&desk);
    let press = |code: u32, pressed| desk.key(code, pressed);
    // Super with another key, with a button, and pressed while another key is down.
    press(SUPER, true);
    press(KEY_A, true);
    press(KEY_A, false);
    press(SUPER, false);
    press(SUPER, true);
    desk.button(0x110, true);
    desk.button(0x110, false);
    press(SUPER, false);
    press(KEY_A, true);
    press(SUPER, true);
    press(SUPER, false);
    press(KEY_A, false);
    // A tap at last.
    let before = monotonic_us();
    press(SUPER, true);
    press(SUPER, false);
    let told = channel.receive();
    assert_eq!(told["event"], "menu");
    assert!(
        told["time_us"].as_u64().unwrap() >= before,
        "told too early"
    );
    // And the other Super key.
    press(126, true);
    press(126, false);
    assert_eq!(channel.receive()["event"], "menu");
}

#[test]
fn the_power_button_is_told_once_and_no_window_sees_it() {
    const POWER: u32 = 116;
    let desk = Desk::two();
    let channel = events(&desk);
    let mut work = Client::connect(&desk, "work");
    work.window(200, 100, BLUE);
    let told = |name: &str| loop {
        let event = channel.receive()["event"].clone();
        if event == name {
            return;
        }
        assert_ne!(event, "power", "told before or twice");
    };
    desk.key(KEY_A, true);
    desk.key(KEY_A, false);
    desk.key(POWER, true);
    told("power");
    desk.key(POWER, false);
    desk.key(SUPER, true);
    desk.key(SUPER, false);
    told("menu");
    work.until("the other key", |t| t.has("key 30 up"));
    assert!(!work.told.log.iter().any(|l| l.starts_with("key 116")));
}

#[test]
fn a_press_of_the_power_button_waits_for_the_manager() {
    const POWER: u32 = 116;
    let desk = Desk::two();
    desk.key(POWER, true);
    desk.key(POWER, false);
    let channel = events(&desk);
    assert_eq!(channel.receive()["event"], "power");
    // It is told once: who comes next hears of the next one only.
    let next = events(&desk);
    desk.key(SUPER, true);
    desk.key(SUPER, false);
    assert_eq!(next.receive()["event"], "menu");
}

fn monotonic_us() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(now.tv_sec * 1_000_000 + now.tv_nsec / 1000).unwrap()
}

#[test]
fn titles_are_told_when_they_change_and_not_as_often_as_a_guest_likes() {
    let desk = Desk::two();
    let mut work = Client::connect(&desk, "work");
    let window = work.window(200, 100, BLUE);
    desk.picture();
    let channel = events(&desk);
    window.toplevel.set_title("first\u{202e}\n".into());
    assert!(work.sync());
    let told = channel.receive();
    assert_eq!(
        (&told["event"], &told["title"]),
        (&json!("title"), &json!("first"))
    );
    assert_eq!(told["domain"], "work");
    for i in 0..500 {
        window.toplevel.set_title(format!("title {i}"));
        assert!(work.sync());
    }
    window.toplevel.set_app_id("foot".into());
    assert!(work.sync());
    let mut count = 0;
    loop {
        let told = channel.receive();
        assert_eq!(told["event"], "title");
        count += 1;
        if told["app_id"] == "foot" {
            assert_eq!(told["title"], "title 499");
            break;
        }
    }
    assert!(count < 50, "{count} events");
}

#[test]
fn the_window_list_raises_and_focuses() {
    let desk = Desk::two();
    let mut work = Client::connect(&desk, "work");
    work.window(200, 100, BLUE);
    let mut personal = Client::connect(&desk, "personal");
    personal.window(200, 100, BLUE);
    let first = desk.window_of("work").unwrap();
    assert_eq!(first.all["focused"], false);
    let answer = desk.control(json!({"op": "activate_window", "id": first.id}));
    assert_eq!(answer["ok"], true);
    let first = desk.window_of("work").unwrap();
    assert_eq!(
        (&first.all["focused"], &first.all["stacking"]),
        (&json!(true), &json!(1))
    );
    work.until("the keyboard", |t| {
        t.log.iter().filter(|l| *l == "keyboard enter").count() == 2
    });
    let answer = desk.control(json!({"op": "activate_window", "id": 999}));
    assert_eq!(answer["ok"], false);
}

#[test]
fn the_hosts_socket_is_private_and_goes_with_the_compositor() {
    use std::os::unix::fs::PermissionsExt;
    let desk = Desk::two();
    let path = desk.socket("host");
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // No domain can be given the host's rights by a name.
    for op in ["remove_domain", "set_domain"] {
        let mut request = json!({"op": op, "name": "(host)"});
        if op == "set_domain" {
            request["label"] = json!("red");
            request["colour"] = json!("#cc0000");
        }
        assert_eq!(desk.control(request)["ok"], false);
    }
}
