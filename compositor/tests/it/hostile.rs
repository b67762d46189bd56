//! Each known fault of smithay, and other mischief: the client that tries is ended, the desktop
//! and all others go on.

use std::{
    io::Write,
    os::{fd::AsFd, unix::net::UnixStream},
    time::{Duration, Instant},
};

use serde_json::json;
use wayland_client::{WEnum, protocol::wl_shm};

use crate::{
    clients::{Client, memory},
    fixture::Desk,
};

const BLUE: u32 = 0xff00_00ff;

/// One hostile client in `work`; a witness in `personal` must not notice.
fn tries(act: impl FnOnce(&Desk, &mut Client)) -> Desk {
    let desk = Desk::two();
    let mut witness = Client::connect(&desk, "personal");
    witness.window(60, 60, 0xff12_3456);
    let mut hostile = Client::connect(&desk, "work");
    act(&desk, &mut hostile);
    drop(hostile);
    assert!(witness.sync(), "the witness was disconnected");
    assert_eq!(desk.picture().count([0x12, 0x34, 0x56]), 60 * 60);
    Client::connect(&desk, "work").window(30, 30, BLUE);
    desk
}

fn is_ended(act: impl FnOnce(&Desk, &mut Client)) {
    tries(|desk, client| {
        act(desk, client);
        client.assert_thrown_out();
    });
}

#[test]
fn pool_resized_to_nothing() {
    for size in [0, -1, i32::MIN, 1] {
        is_ended(|_, c| {
            let pool = c.shm.create_pool(memory(4096).as_fd(), 4096, &c.qh, ());
            pool.resize(size);
        });
    }
}

#[test]
fn pools_of_impossible_sizes() {
    for size in [0, -1, i32::MIN] {
        is_ended(|_, c| {
            c.shm.create_pool(memory(4096).as_fd(), size, &c.qh, ());
        });
    }
}

#[test]
fn pools_that_are_no_memory() {
    is_ended(|_, c| {
        let null = std::fs::File::open("/dev/null").unwrap();
        c.shm.create_pool(null.as_fd(), 4096, &c.qh, ());
    });
    is_ended(|_, c| {
        let (read, _write) = rustix::pipe::pipe().unwrap();
        c.shm.create_pool(read.as_fd(), 4096, &c.qh, ());
    });
}

#[test]
fn buffers_outside_their_pool() {
    let max = i32::MAX;
    for (offset, w, h, stride) in [
        (0, 32, 33, 128),
        (4, 32, 32, 128),
        (-4, 1, 1, 4),
        (0, 0, 1, 4),
        (0, 1, 1, 0),
        (0, -1, -1, -4),
        (max, max, max, max),
        (0, max, 2, max),
        (0, 2, max, 8),
        (0, 32, 32, 4),
        (2, 4, 4, 16),
    ] {
        is_ended(|_, c| {
            let pool = c.shm.create_pool(memory(4096).as_fd(), 4096, &c.qh, ());
            pool.create_buffer(offset, w, h, stride, wl_shm::Format::Argb8888, &c.qh, ());
        });
    }
}

#[test]
fn buffers_of_unknown_formats() {
    is_ended(|_, c| {
        let pool = c.shm.create_pool(memory(4096).as_fd(), 4096, &c.qh, ());
        pool.create_buffer(0, 4, 4, 16, wl_shm::Format::Nv12, &c.qh, ());
    });
}

/// Memory that is cut off while it is shown: reading it raises SIGBUS.
#[test]
fn memory_that_is_cut_off() {
    let desk = tries(|desk, c| {
        let window = c.bare_window();
        let fd = memory(200 * 200 * 4);
        let pool = c.shm.create_pool(fd.as_fd(), 200 * 200 * 4, &c.qh, ());
        let buffer = pool.create_buffer(0, 200, 200, 800, wl_shm::Format::Argb8888, &c.qh, ());
        window.surface.attach(Some(&buffer), 0, 0);
        window.surface.commit();
        assert!(c.sync());
        desk.picture();
        rustix::fs::ftruncate(&fd, 0).unwrap();
        window.surface.attach(Some(&buffer), 0, 0);
        window.surface.damage(0, 0, 200, 200);
        window.surface.commit();
        c.sync();
        desk.picture();
        c.assert_thrown_out();
    });
    assert!(desk.windows().len() <= 2);
}

#[test]
fn memory_that_was_never_there() {
    tries(|desk, c| {
        let window = c.bare_window();
        let pool = c.shm.create_pool(memory(100).as_fd(), 1 << 20, &c.qh, ());
        let buffer = pool.create_buffer(0, 200, 200, 800, wl_shm::Format::Argb8888, &c.qh, ());
        window.surface.attach(Some(&buffer), 0, 0);
        window.surface.damage(0, 0, 200, 200);
        window.surface.commit();
        c.sync();
        desk.picture();
        c.assert_thrown_out();
    });
}

#[test]
fn a_window_twice_from_one_surface() {
    is_ended(|_, c| {
        let window = c.bare_window();
        window.xdg.get_toplevel(&c.qh, ());
    });
    is_ended(|_, c| {
        let window = c.bare_window();
        c.wm_base.get_xdg_surface(&window.surface, &c.qh, ());
    });
}

#[test]
fn numbers_at_their_ends() {
    let ends = [i32::MIN, -1, 0, 1, i32::MAX];
    tries(|_, c| {
        let window = c.window(40, 40, BLUE);
        for a in ends {
            for b in ends {
                window.surface.damage(a, b, a, b);
                window.surface.damage_buffer(b, a, b, a);
                let region = c.compositor.create_region(&c.qh, ());
                region.add(a, b, a, b);
                region.subtract(b, a, a, b);
                window.surface.set_opaque_region(Some(&region));
                window.surface.set_input_region(Some(&region));
                region.destroy();
                let buffer = c.buffer(40, 40, BLUE);
                window.surface.attach(Some(&buffer), a, b);
                window.surface.commit();
                buffer.destroy();
            }
        }
        assert!(c.sync(), "{:?}", c.error());
        let child = c.surface();
        let sub = c
            .subcompositor
            .get_subsurface(&child, &window.surface, &c.qh, ());
        for a in ends {
            sub.set_position(a, a);
            c.show(&child, 10, 10, BLUE);
            window.surface.commit();
        }
        assert!(c.sync(), "{:?}", c.error());
        for a in [1, i32::MAX] {
            window.toplevel.set_min_size(a, a);
            window.toplevel.set_max_size(a, a);
            window.xdg.set_window_geometry(i32::MIN, i32::MAX, a, a);
            window.surface.commit();
        }
        assert!(c.sync(), "{:?}", c.error());
    });
    for (w, h) in [(0, 0), (-5, 5), (i32::MIN, i32::MIN)] {
        is_ended(|_, c| c.bare_window().xdg.set_window_geometry(0, 0, w, h));
        is_ended(|_, c| {
            let positioner = c.wm_base.create_positioner(&c.qh, ());
            positioner.set_size(w, h);
        });
    }
    for scale in [0, -1, i32::MIN, i32::MAX] {
        is_ended(|_, c| c.bare_window().surface.set_buffer_scale(scale));
    }
}

#[test]
fn positioners_at_the_ends_of_numbers() {
    for n in [i32::MIN, i32::MAX] {
        tries(|_, c| {
            let window = c.window(40, 40, BLUE);
            let surface = c.surface();
            let xdg = c.wm_base.get_xdg_surface(&surface, &c.qh, ());
            let p = c.wm_base.create_positioner(&c.qh, ());
            p.set_size(i32::MAX, i32::MAX);
            p.set_anchor_rect(n, n, i32::MAX, i32::MAX);
            p.set_offset(n, n);
            p.set_parent_size(n, n);
            use wayland_protocols::xdg::shell::client::xdg_positioner::ConstraintAdjustment;
            p.set_constraint_adjustment(ConstraintAdjustment::all());
            let popup = xdg.get_popup(Some(&window.xdg), &p, &c.qh, ());
            surface.commit();
            popup.reposition(&p, 7);
            assert!(c.sync(), "{:?}", c.error());
        });
    }
}

#[test]
fn viewports_at_the_ends_of_numbers() {
    for (w, h) in [(i32::MAX, 1), (1, i32::MAX), (0, 1), (-2, 3)] {
        is_ended(|_, c| {
            let window = c.bare_window();
            let viewport = c.viewporter.get_viewport(&window.surface, &c.qh, ());
            viewport.set_destination(w, h);
            c.show(&window.surface, 20, 20, BLUE);
        });
    }
    tries(|desk, c| {
        let window = c.bare_window();
        let viewport = c.viewporter.get_viewport(&window.surface, &c.qh, ());
        viewport.set_source(0.0, 0.0, 1.0 / 256.0, 1.0 / 256.0);
        viewport.set_destination(16_000, 16_000);
        c.show(&window.surface, 20, 20, BLUE);
        c.sync();
        desk.picture();
    });
}

#[test]
fn surfaces_that_are_their_own_ancestors() {
    is_ended(|_, c| {
        let a = c.surface();
        c.subcompositor.get_subsurface(&a, &a, &c.qh, ());
    });
    is_ended(|_, c| {
        let (a, b) = (c.surface(), c.surface());
        c.subcompositor.get_subsurface(&a, &b, &c.qh, ());
        c.subcompositor.get_subsurface(&b, &a, &c.qh, ());
    });
}

#[test]
fn a_very_deep_tree_of_surfaces() {
    is_ended(|_, c| {
        let mut parent = c.surface();
        for _ in 0..500 {
            let child = c.surface();
            c.subcompositor.get_subsurface(&child, &parent, &c.qh, ());
            parent = child;
        }
    });
    // Built from the leaves up as well.
    is_ended(|_, c| {
        let mut child = c.surface();
        for _ in 0..500 {
            let parent = c.surface();
            c.subcompositor.get_subsurface(&child, &parent, &c.qh, ());
            child = parent;
        }
    });
}

#[test]
fn commits_that_wait_for_ever() {
    is_ended(|_, c| {
        let window = c.window(40, 40, BLUE);
        let child = c.surface();
        c.subcompositor
            .get_subsurface(&child, &window.surface, &c.qh, ());
        let buffer = c.buffer(10, 10, BLUE);
        for _ in 0..1000 {
            child.attach(Some(&buffer), 0, 0);
            child.commit();
        }
    });
}

#[test]
fn objects_destroyed_in_the_wrong_order() {
    tries(|desk, c| {
        let window = c.window(40, 40, BLUE);
        let popup = c.shown_popup(&window.xdg, (0, 0), (20, 20), BLUE);
        window.surface.destroy();
        c.sync();
        desk.picture();
        popup.0.destroy();
        c.sync();
        desk.picture();
    });
    tries(|_, c| {
        let window = c.window(40, 40, BLUE);
        window.xdg.destroy();
        c.sync();
    });
    tries(|_, c| {
        let window = c.window(40, 40, BLUE);
        c.wm_base.destroy();
        window.surface.commit();
        c.sync();
    });
}

#[test]
fn a_buffer_on_a_window_before_it_is_configured() {
    is_ended(|_, c| {
        let surface = c.surface();
        let xdg = c.wm_base.get_xdg_surface(&surface, &c.qh, ());
        xdg.get_toplevel(&c.qh, ());
        c.show(&surface, 20, 20, BLUE);
    });
}

#[test]
fn garbage_on_the_socket() {
    let desk = Desk::two();
    let mut witness = Client::connect(&desk, "personal");
    for seed in 0..40u32 {
        let mut stream = UnixStream::connect(desk.socket("work")).unwrap();
        let mut x = seed.wrapping_mul(2_654_435_761).wrapping_add(12345);
        let bytes: Vec<u8> = (0..4096)
            .map(|i| {
                x ^= x << 13;
                x ^= x >> 17;
                x ^= x << 5;
                // Half of them begin like a message to wl_display.
                if seed % 2 == 0 && i < 8 {
                    [1, 0, 0, 0, 1, 0, 12, 0][i]
                } else {
                    x as u8
                }
            })
            .collect();
        let _ = stream.write_all(&bytes);
    }
    assert!(witness.sync());
    desk.wait("all gone", || {
        (desk.stats("work")["clients"] == 0).then_some(())
    });
}

/// A client that floods the compositor and reads the answers, so that nothing ever fills up.
#[test]
fn a_flood_does_not_starve_the_others() {
    let desk = Desk::two();
    let mut witness = Client::connect(&desk, "personal");
    witness.window(60, 60, BLUE);
    let stream = UnixStream::connect(desk.socket("work")).unwrap();
    let mut writer = stream.try_clone().unwrap();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stopped = stop.clone();
    // wl_display.get_registry again and again costs the client 12 bytes and the compositor 15
    // events each; wl_display.sync is its smaller sister.
    let flood = std::thread::spawn(move || {
        let mut id = 2u32;
        while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
            let mut batch = Vec::new();
            for _ in 0..300 {
                batch.extend(1u32.to_ne_bytes());
                batch.extend((12u32 << 16).to_ne_bytes());
                batch.extend(id.to_ne_bytes());
                // The same identifier can be used again once the callback is done.
                id = if id > 200 { 2 } else { id + 1 };
            }
            if writer.write_all(&batch).is_err() {
                return;
            }
        }
    });
    let mut reader = stream.try_clone().unwrap();
    let drain = std::thread::spawn(move || {
        let mut bytes = vec![0; 1 << 16];
        while std::io::Read::read(&mut reader, &mut bytes).is_ok_and(|n| n > 0) {}
    });
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(3) {
        let asked = Instant::now();
        assert!(witness.sync());
        assert!(
            asked.elapsed() < Duration::from_secs(6),
            "{:?}",
            asked.elapsed()
        );
        desk.test(json!({"op": "pointer_move", "x": 10, "y": 10}));
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let _ = stream.shutdown(std::net::Shutdown::Both);
    flood.join().unwrap();
    drain.join().unwrap();
}

/// A client that never reads: what waits for it has a bound.
#[test]
fn a_client_that_never_reads() {
    let desk = Desk::two();
    let mut witness = Client::connect(&desk, "personal");
    witness.window(60, 60, BLUE);
    let mut deaf = Client::connect(&desk, "work");
    deaf.window(300, 300, BLUE);
    let w = desk.window_of("work").unwrap();
    let mut gone = false;
    for i in 0..40_000 {
        desk.pointer(w.x + 10 + i % 200, w.y + 10 + i % 150);
        if i % 500 == 0 && desk.window_of("work").is_none() {
            gone = true;
            break;
        }
    }
    assert!(gone, "the client that never reads is still there");
    assert!(witness.sync());
}

#[test]
fn unknown_enums_are_borne_or_refused() {
    tries(|_, c| {
        let window = c.window(40, 40, BLUE);
        let source = c.data_manager.create_data_source(&c.qh, ());
        source.set_actions(
            wayland_client::protocol::wl_data_device_manager::DndAction::from_bits_retain(0xff),
        );
        for mime in 0..200 {
            source.offer(format!("x/{mime}{}", "y".repeat(400)));
        }
        c.device.set_selection(Some(&source), 0);
        let _ = WEnum::Value(0u32);
        window
            .toplevel
            .set_title("\u{0}x".replace('\u{0}', "\u{1}"));
        window
            .toplevel
            .show_window_menu(&c.seat, 0, i32::MIN, i32::MAX);
        window.toplevel.set_minimized();
        window.surface.commit();
        assert!(c.sync(), "{:?}", c.error());
    });
}
