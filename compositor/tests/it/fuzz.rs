//! Random sequences of requests from a real client. Whatever it does, the compositor and a witness
//! go on, and everything is given back when it leaves.

use wayland_client::protocol::{wl_buffer::WlBuffer, wl_surface::WlSurface};
use wayland_protocols::xdg::shell::client::{
    xdg_popup::XdgPopup, xdg_surface::XdgSurface, xdg_toplevel::XdgToplevel,
};

use crate::{clients::Client, fixture::Desk};

struct Random(u64);

impl Random {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % below.max(1)
    }

    fn number(&mut self) -> i32 {
        let ends = [i32::MIN, -70_000, -1, 0, 1, 7, 100, 300, 70_000, i32::MAX];
        ends[self.next(ends.len())]
    }
}

#[derive(Default)]
struct Things {
    surfaces: Vec<WlSurface>,
    xdg: Vec<XdgSurface>,
    toplevels: Vec<XdgToplevel>,
    popups: Vec<XdgPopup>,
    buffers: Vec<WlBuffer>,
}

fn step(c: &Client, t: &mut Things, r: &mut Random) {
    fn any<'a, T>(list: &'a [T], r: &mut Random) -> Option<&'a T> {
        list.get(r.next(list.len()))
    }
    match r.next(22) {
        0 => t.surfaces.push(c.surface()),
        1 => t
            .buffers
            .push(c.buffer(1 + r.next(60) as i32, 1 + r.next(60) as i32, 0xff00_00ff)),
        2 => {
            if let Some(s) = any(&t.surfaces, r) {
                t.xdg.push(c.wm_base.get_xdg_surface(s, &c.qh, ()));
            }
        }
        3 => {
            if let Some(x) = any(&t.xdg, r) {
                t.toplevels.push(x.get_toplevel(&c.qh, ()));
            }
        }
        4 => {
            if let (Some(x), Some(parent)) = (any(&t.xdg, r), any(&t.xdg, r)) {
                let p = c.wm_base.create_positioner(&c.qh, ());
                p.set_size(1 + r.next(200) as i32, 1 + r.next(200) as i32);
                p.set_anchor_rect(r.number(), r.number(), 1, 1);
                t.popups.push(x.get_popup(Some(parent), &p, &c.qh, ()));
            }
        }
        5..=7 => {
            if let Some(s) = any(&t.surfaces, r) {
                s.attach(any(&t.buffers, r), 0, 0);
                s.commit();
            }
        }
        8 => {
            if let Some(s) = any(&t.surfaces, r) {
                s.damage(r.number(), r.number(), r.number(), r.number());
                s.frame(&c.qh, ());
                s.commit();
            }
        }
        9 => {
            if let (Some(a), Some(b)) = (any(&t.surfaces, r), any(&t.surfaces, r)) {
                let sub = c.subcompositor.get_subsurface(a, b, &c.qh, ());
                sub.set_position(r.number(), r.number());
                if r.next(2) == 0 {
                    sub.set_desync();
                }
                sub.place_above(b);
                if r.next(2) == 0 {
                    sub.destroy();
                }
            }
        }
        10 => {
            if let Some(x) = any(&t.xdg, r) {
                x.set_window_geometry(
                    r.number(),
                    r.number(),
                    1 + r.next(300) as i32,
                    1 + r.next(300) as i32,
                );
            }
        }
        11 => {
            if let Some(w) = any(&t.toplevels, r) {
                w.set_maximized();
                w.set_title("x".repeat(r.next(3000)));
            }
        }
        12 => {
            if let Some(w) = any(&t.toplevels, r) {
                w.set_fullscreen(None);
                w.unset_maximized();
                w.unset_fullscreen();
            }
        }
        13 => {
            if let (Some(a), Some(b)) = (any(&t.toplevels, r), any(&t.toplevels, r)) {
                a.set_parent(Some(b));
                b.set_parent(Some(a));
            }
        }
        14 => {
            if let Some(w) = any(&t.toplevels, r) {
                w._move(&c.seat, c.told.serial);
            }
        }
        15 if !t.buffers.is_empty() => t.buffers.swap_remove(r.next(t.buffers.len())).destroy(),
        16 if !t.popups.is_empty() => t.popups.swap_remove(r.next(t.popups.len())).destroy(),
        17 if !t.toplevels.is_empty() => {
            t.toplevels.swap_remove(r.next(t.toplevels.len())).destroy()
        }
        18 if !t.xdg.is_empty() => t.xdg.swap_remove(r.next(t.xdg.len())).destroy(),
        19 if !t.surfaces.is_empty() && r.next(4) == 0 => {
            t.surfaces.swap_remove(r.next(t.surfaces.len())).destroy();
        }
        20 => {
            if let Some(s) = any(&t.surfaces, r)
                && let Some(pointer) = &c.told.pointer
            {
                pointer.set_cursor(c.told.enter_serial, Some(s), r.number(), r.number());
            }
        }
        _ => {
            if let Some(s) = any(&t.surfaces, r) {
                let source = c.data_manager.create_data_source(&c.qh, ());
                source.offer("text/plain".into());
                c.device
                    .start_drag(Some(&source), s, any(&t.surfaces, r), c.told.serial);
            }
        }
    }
}

#[test]
fn random_requests() {
    let rounds: u64 = std::env::var("BULKHEAD_FUZZ_ROUNDS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(60);
    let desk = Desk::two();
    let mut witness = Client::connect(&desk, "personal");
    witness.window(60, 60, 0xff12_3456);
    for seed in 1..=rounds {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut client = Client::connect(&desk, "work");
        // Most rounds begin with a proper window, so that there is something to play with.
        let mut things = Things::default();
        if seed % 4 != 0 {
            let window = client.window(80, 60, 0xff00_00ff);
            if let Some(w) = desk.window_of("work") {
                desk.pointer(w.x + 5, w.y + 5);
                desk.button(0x110, true);
                client.sync();
            }
            things.surfaces.push(window.surface);
            things.xdg.push(window.xdg);
            things.toplevels.push(window.toplevel);
        }
        for i in 0..60 {
            step(&client, &mut things, &mut random);
            if i % 6 == 5 {
                if !client.sync() {
                    break;
                }
                desk.pointer(random.next(800) as i32, random.next(600) as i32);
            }
        }
        client.sync();
        desk.button(0x110, false);
        drop(client);
        assert!(
            witness.sync(),
            "the witness was disconnected in round {seed}"
        );
        desk.wait("everything is given back", || {
            let s = desk.stats("work");
            [
                "clients",
                "surfaces",
                "pools",
                "buffers",
                "bytes",
                "callbacks",
            ]
            .iter()
            .all(|what| s[what] == 0)
            .then_some(())
        });
    }
    assert_eq!(desk.windows().len(), 1);
}
