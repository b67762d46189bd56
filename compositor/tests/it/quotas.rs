//! A domain that takes too much loses the client that did it, and nobody else notices.

use std::os::fd::AsFd;

use bulkhead_compositor::domain::Quota;
use wayland_client::protocol::wl_shm;

use crate::{
    clients::{Client, memory},
    fixture::Desk,
};

const BLUE: u32 = 0xff00_00ff;

fn small() -> Quota {
    Quota {
        clients: 4,
        surfaces: 10,
        pools: 6,
        buffers: 8,
        shm_bytes: 1 << 20,
        callbacks: 20,
        rects_per_region: 50,
        objects_per_client: 600,
    }
}

fn thrown_out_on(on: &str, act: impl Fn(&mut Client)) {
    let desk = Desk::with_quota(small());
    desk.add_domain("work", "red", "#cc0000");
    desk.add_domain("personal", "green", "#73d216");
    let mut same_domain = Client::connect(&desk, "work");
    same_domain.window(50, 50, BLUE);
    let mut other = Client::connect(&desk, "personal");
    other.window(50, 50, BLUE);
    let mut greedy = Client::connect(&desk, "work");
    act(&mut greedy);
    greedy.assert_thrown_out();
    // The reason stands in the error's text, which this client's library does not keep; the code
    // is that of `no_memory`. A client that still writes when it is ended may miss even that.
    let error = greedy.error().unwrap_or_default();
    assert!(error.is_empty() || error.contains(on), "{error}");
    assert!(same_domain.sync() && other.sync());
    assert_eq!(desk.windows().len(), 2);
    desk.wait("everything is given back", || {
        let s = desk.stats("work");
        (s["clients"] == 1 && s["surfaces"] == 1 && s["pools"] == 1 && s["callbacks"] == 0)
            .then_some(())
    });
    // The domain is not punished for it: another client may take what was given back.
    Client::connect(&desk, "work").window(40, 40, BLUE);
}

#[test]
fn surfaces() {
    thrown_out_on("wl_compositor: 2", |c| {
        (0..20).for_each(|_| drop(c.surface()))
    });
}

#[test]
fn buffers() {
    thrown_out_on("wl_shm_pool: 2", |c| {
        let pool = c.shm.create_pool(memory(4096).as_fd(), 4096, &c.qh, ());
        for _ in 0..20 {
            pool.create_buffer(0, 4, 4, 16, wl_shm::Format::Argb8888, &c.qh, ());
        }
    });
}

#[test]
fn pools() {
    thrown_out_on("wl_shm: 2", |c| {
        for _ in 0..20 {
            c.shm.create_pool(memory(4096).as_fd(), 4096, &c.qh, ());
        }
    });
}

#[test]
fn pools_that_only_buffers_keep() {
    thrown_out_on("wl_shm: 2", |c| {
        for _ in 0..20 {
            drop(c.buffer(2, 2, BLUE));
        }
    });
}

#[test]
fn shared_memory() {
    thrown_out_on("wl_shm_pool: 2", |c| {
        let pool = c.shm.create_pool(memory(4096).as_fd(), 4096, &c.qh, ());
        pool.resize(1 << 21);
    });
}

#[test]
fn frame_callbacks() {
    thrown_out_on("wl_surface: 2", |c| {
        let surface = c.surface();
        for _ in 0..40 {
            surface.frame(&c.qh, ());
        }
    });
}

#[test]
fn rectangles_of_a_region() {
    thrown_out_on("wl_region: 2", |c| {
        let region = c.compositor.create_region(&c.qh, ());
        for i in 0..60 {
            region.add(i, i, 10, 10);
        }
    });
}

#[test]
fn objects_of_any_kind() {
    thrown_out_on("wl_display: 3", |c| {
        for _ in 0..2000 {
            c.compositor.create_region(&c.qh, ());
        }
    });
}

#[test]
fn clients() {
    let desk = Desk::with_quota(small());
    desk.add_domain("work", "red", "#cc0000");
    desk.add_domain("personal", "green", "#73d216");
    let mut welcome: Vec<_> = (0..4).map(|_| Client::connect(&desk, "work")).collect();
    assert!(Client::try_connect(&desk, "work").is_none());
    assert!(Client::try_connect(&desk, "personal").is_some());
    assert!(welcome.iter_mut().all(Client::sync));
    welcome.pop();
    desk.wait("room again", || {
        Client::try_connect(&desk, "work").map(|_| ())
    });
}
