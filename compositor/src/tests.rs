//! What cannot be tried from outside: a bug in the compositor itself.

use std::{
    os::{
        fd::AsFd,
        unix::net::{UnixListener, UnixStream},
    },
    time::Duration,
};

use wayland_client::{
    Connection, Dispatch, QueueHandle, delegate_noop,
    globals::{GlobalListContents, registry_queue_init},
    protocol::{wl_compositor::WlCompositor, wl_registry, wl_surface::WlSurface},
};
use wayland_protocols::xdg::shell::client::{
    xdg_surface::XdgSurface, xdg_toplevel::XdgToplevel, xdg_wm_base::XdgWmBase,
};

use crate::{Options, Server};

/// In tests the guard panics on this title.
pub(crate) const TITLE_THAT_PANICS: &str = "a title that makes the compositor panic";

struct Told;

impl Dispatch<wl_registry::WlRegistry, GlobalListContents> for Told {
    fn event(
        _: &mut Self,
        _: &wl_registry::WlRegistry,
        _: wl_registry::Event,
        _: &GlobalListContents,
        _: &Connection,
        _: &QueueHandle<Self>,
    ) {
    }
}

delegate_noop!(Told: WlCompositor);
delegate_noop!(Told: ignore WlSurface);
delegate_noop!(Told: ignore XdgWmBase);
delegate_noop!(Told: ignore XdgSurface);
delegate_noop!(Told: ignore XdgToplevel);

/// Sets a title; answers whether the client is still connected afterwards.
fn sets_title(path: &std::path::Path, title: &str) -> bool {
    let connection = Connection::from_socket(UnixStream::connect(path).unwrap()).unwrap();
    let (globals, mut queue) = registry_queue_init::<Told>(&connection).unwrap();
    let qh = queue.handle();
    let compositor: WlCompositor = globals.bind(&qh, 1..=4, ()).unwrap();
    let base: XdgWmBase = globals.bind(&qh, 1..=1, ()).unwrap();
    let surface = compositor.create_surface(&qh, ());
    let toplevel = base
        .get_xdg_surface(&surface, &qh, ())
        .get_toplevel(&qh, ());
    toplevel.set_title(title.into());
    surface.commit();
    queue.roundtrip(&mut Told).is_ok() && queue.roundtrip(&mut Told).is_ok()
}

#[test]
fn a_bug_costs_one_client_its_connection_and_nobody_the_desktop() {
    let dir = tempfile::tempdir().unwrap();
    let control = dir.path().join("control");
    let options = Options {
        control: Some(control.clone()),
        ..Options::default()
    };
    let (send, receive) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let server = Server::new(options).unwrap();
        send.send(server.stopper()).unwrap();
        server.run().unwrap();
    });
    let stopper = receive.recv().unwrap();
    let path = dir.path().join("work");
    let listener = UnixListener::bind(&path).unwrap();
    hand_over(&control, listener.as_fd());
    assert!(sets_title(&path, "an ordinary title"));
    assert!(!sets_title(&path, TITLE_THAT_PANICS));
    assert!(sets_title(&path, "an ordinary title"));
    stopper.stop();
    thread.join().unwrap();
    std::thread::sleep(Duration::from_millis(1));
    assert!(!control.exists(), "the socket is still there");
}

fn hand_over(control: &std::path::Path, listener: std::os::fd::BorrowedFd<'_>) {
    use rustix::net::{
        AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
        SocketType, connect, sendmsg, socket,
    };
    let socket = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
    connect(&socket, &SocketAddrUnix::new(control).unwrap()).unwrap();
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let fds = [listener];
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(&fds)));
    let request = br##"{"op":"add_domain","name":"work","label":"red","colour":"#cc0000"}"##;
    let data = [std::io::IoSlice::new(request)];
    sendmsg(&socket, &data, &mut ancillary, SendFlags::empty()).unwrap();
    let mut answer = [0; 512];
    let (length, _) =
        rustix::net::recv(&socket, &mut answer[..], rustix::net::RecvFlags::empty()).unwrap();
    assert!(
        answer[..length].starts_with(b"{\"id\"") || answer[..length].starts_with(b"{\"ok\":true")
    );
}
