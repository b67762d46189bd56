//! Messages arrive on the other side, for the right objects.
#![allow(missing_docs)]

mod common;

use std::os::unix::net::UnixStream;

use common::Setup;
use common::client::Value;
use rustix::fs::SealFlags;
use wayland_client::protocol::{wl_callback, wl_compositor, wl_registry, wl_surface};
use wayland_client::{Connection, Dispatch, QueueHandle, delegate_noop};
use wayland_protocols::xdg::shell::server::{
    xdg_surface::XdgSurface, xdg_toplevel::XdgToplevel, xdg_wm_base::XdgWmBase,
};
use wayland_server::Resource;
use wayland_server::protocol::__interfaces as core;

#[test]
fn only_the_allow_list_is_announced() {
    let setup = Setup::new();
    let client = setup.client();
    assert!(!client.globals.contains_key("ext_idle_notifier_v1"));
    assert_eq!(client.globals["wl_compositor"].1, 6);
    // The host has 7; the proxy relays 6.
    assert_eq!(client.globals["xdg_wm_base"].1, 6);
}

#[test]
fn hidden_globals_and_wrong_versions_cannot_be_bound() {
    let setup = Setup::new();
    let name = setup.client().globals["wl_compositor"].0;
    let cases: [(u32, &[u8], u32); 5] = [
        (name + 1, b"ext_idle_notifier_v1", 1),
        (name, b"wl_compositor", 7),
        (name, b"wl_compositor", 0),
        (name, b"wl_shm", 1),
        (999, b"wl_compositor", 1),
    ];
    for (name, interface, version) in cases {
        let mut client = setup.client();
        let id = client.new_id(&core::WL_COMPOSITOR_INTERFACE);
        client.request(2, 0, |m| {
            m.uint(name);
            m.string(Some(interface));
            m.uint(version);
            m.uint(id);
        });
        assert_eq!(
            client.error().1,
            0,
            "{}",
            String::from_utf8_lossy(interface)
        );
    }
}

/// The proxy's own pools and buffers lie between the application's objects on the host's side.
#[test]
fn ids_are_translated_around_the_proxys_own_objects() {
    let setup = Setup::new();
    let mut client = setup.client();
    let shell = client.bind(XdgWmBase::interface(), 6);
    let (pool, _file) = client.pool(1 << 16, true);
    let mut toplevels = Vec::new();
    for i in 0..20 {
        let surface = client.surface();
        let xdg = client.new_id(XdgSurface::interface());
        client.request(shell, 2, |m| {
            [xdg, surface].into_iter().for_each(|n| m.uint(n))
        });
        let toplevel = client.new_id(XdgToplevel::interface());
        client.request(xdg, 1, |m| m.uint(toplevel));
        client.roundtrip();
        let configure = client.wait_for("xdg_toplevel.configure").unwrap();
        assert_eq!(configure.object, toplevel);
        assert!(matches!(&configure.args[2], Value::Array(a) if a == &[4, 0, 0, 0]));
        let configure = client.wait_for("xdg_surface.configure").unwrap();
        assert_eq!((configure.object, configure.args[0].uint()), (xdg, 77));
        client.request(xdg, 4, |m| m.uint(77));
        let buffer = client.buffer(pool, 0, 10 + i, 10, 4 * (10 + i));
        client.attach(surface, buffer);
        client.commit(surface);
        toplevels.push((surface, xdg, toplevel));
        if i % 3 == 0 {
            let (surface, xdg, toplevel) = toplevels.remove(0);
            client.request(toplevel, 0, |_| {});
            client.request(xdg, 0, |_| {});
            client.request(surface, 0, |_| {});
            client.roundtrip();
        }
    }
    for (i, (_, _, toplevel)) in toplevels.iter().enumerate() {
        // set_title, then set_parent to the next one.
        client.request(*toplevel, 2, |m| {
            m.string(Some(format!("title {i}").as_bytes()))
        });
        let parent = toplevels.get(i + 1).map_or(0, |(_, _, t)| *t);
        client.request(*toplevel, 1, |m| m.uint(parent));
    }
    assert!(client.roundtrip());
    let log = setup.host.log();
    for i in 0..toplevels.len() {
        let title = format!("SetTitle {{ title: \"title {i}\" }}");
        assert_eq!(log.iter().filter(|line| line.contains(&title)).count(), 1);
    }
    assert_eq!(
        log.iter()
            .filter(|line| line.contains("AckConfigure { serial: 77 }"))
            .count(),
        20
    );
}

struct App {
    surfaces: usize,
}

impl Dispatch<wl_registry::WlRegistry, ()> for App {
    fn event(
        _: &mut Self,
        _: &wl_registry::WlRegistry,
        _: wl_registry::Event,
        _: &(),
        _: &Connection,
        _: &QueueHandle<Self>,
    ) {
    }
}
impl Dispatch<wl_callback::WlCallback, ()> for App {
    fn event(
        app: &mut Self,
        _: &wl_callback::WlCallback,
        _: wl_callback::Event,
        _: &(),
        _: &Connection,
        _: &QueueHandle<Self>,
    ) {
        app.surfaces += 1;
    }
}
delegate_noop!(App: ignore wl_compositor::WlCompositor);
delegate_noop!(App: ignore wl_surface::WlSurface);

/// The real client library checks ids itself: objects come and go hundreds of times.
#[test]
fn a_real_client_library_is_content() {
    let setup = Setup::new();
    let stream = UnixStream::connect(&setup.socket).unwrap();
    let connection = Connection::from_socket(stream).unwrap();
    let mut queue = connection.new_event_queue::<App>();
    let handle = queue.handle();
    let registry = connection.display().get_registry(&handle, ());
    let mut app = App { surfaces: 0 };
    queue.roundtrip(&mut app).unwrap();
    let (name, _) = setup.client().globals["wl_compositor"];
    let compositor: wl_compositor::WlCompositor = registry.bind(name, 6, &handle, ());
    let mut surfaces = Vec::new();
    for i in 0..500 {
        let surface = compositor.create_surface(&handle, ());
        surface.frame(&handle, ());
        surface.commit();
        surfaces.push(surface);
        if surfaces.len() > 7 {
            surfaces.remove(i * 31 % 7).destroy();
        }
        if i % 11 == 0 {
            queue.roundtrip(&mut app).unwrap();
        }
    }
    queue.roundtrip(&mut app).unwrap();
    assert_eq!(app.surfaces, 500);
}

#[test]
fn keymaps_are_sealed_and_shared() {
    let setup = Setup::new();
    let mut inodes = Vec::new();
    for _ in 0..2 {
        let mut client = setup.client();
        let seat = client.bind(&core::WL_SEAT_INTERFACE, 9);
        for _ in 0..2 {
            let keyboard = client.new_id(&core::WL_KEYBOARD_INTERFACE);
            client.request(seat, 1, |m| m.uint(keyboard));
            let event = client.wait_for("wl_keyboard.keymap").unwrap();
            assert_eq!((event.object, event.args[0].uint()), (keyboard, 1));
            let Value::Fd(file) = &event.args[1] else {
                panic!("no file")
            };
            let size = event.args[2].uint() as usize;
            let mut keymap = vec![0; size];
            assert_eq!(rustix::io::pread(file, &mut keymap[..], 0).unwrap(), size);
            assert_eq!(keymap, setup.host.with(|state, _| state.keymap.clone()));
            assert!(
                rustix::fs::fcntl_get_seals(file)
                    .unwrap()
                    .contains(SealFlags::WRITE)
            );
            inodes.push(rustix::fs::fstat(file).unwrap().st_ino);
        }
    }
    assert!(inodes.iter().all(|inode| *inode == inodes[0]));
}

#[test]
fn the_hosts_errors_reach_the_application() {
    let setup = Setup::new();
    let mut client = setup.client();
    // An object of the proxy's own on the host's side first, so that ids differ.
    let surface = client.surface();
    let (pool, _file) = client.pool(1 << 16, true);
    let buffer = client.buffer(pool, 0, 8, 8, 32);
    client.attach(surface, buffer);
    client.commit(surface);
    let victim = client.surface();
    client.roundtrip();
    setup.host.with(|state, _| {
        state
            .surfaces
            .last()
            .unwrap()
            .post_error(2u32, "no such size")
    });
    let (object, code, text) = client.error();
    assert_eq!((object, code), (victim, 2));
    assert!(text.contains("no such size"), "{text}");
}
