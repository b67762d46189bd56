//! Copy and paste: everything arrives, whole, however slow or many.
#![allow(missing_docs)]

mod common;

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use common::Setup;
use common::client::{RawClient, Value, read_all};
use common::host::selection::{OfferFrom, pattern};
use wayland_server::protocol::__interfaces as core;

const MIB: usize = 1024 * 1024;

/// Binds a data device.
fn device(client: &mut RawClient) -> (u32, u32) {
    let seat = client.bind(&core::WL_SEAT_INTERFACE, 1);
    let manager = client.bind(&core::WL_DATA_DEVICE_MANAGER_INTERFACE, 3);
    let device = client.new_id(&core::WL_DATA_DEVICE_INTERFACE);
    client.request(manager, 1, |m| {
        [device, seat].into_iter().for_each(|n| m.uint(n))
    });
    client.roundtrip();
    (manager, device)
}

/// Makes a source the selection.
fn copy(client: &mut RawClient, manager: u32, device: u32) -> u32 {
    let source = client.new_id(&core::WL_DATA_SOURCE_INTERFACE);
    client.request(manager, 0, |m| m.uint(source));
    client.request(source, 0, |m| m.string(Some(b"text/plain")));
    client.request(device, 1, |m| {
        [source, 1].into_iter().for_each(|n| m.uint(n))
    });
    client.roundtrip();
    source
}

/// The newest offer, and its types.
fn offer(client: &mut RawClient) -> (u32, Vec<String>) {
    let selection = client.wait_for("wl_data_device.selection").unwrap();
    let offer = selection.args[0].uint();
    let events = std::mem::take(&mut client.events);
    let mimes = events
        .iter()
        .filter(|e| e.object == offer && e.name == "wl_data_offer.offer");
    (offer, mimes.map(|e| e.args[0].text().to_owned()).collect())
}

fn receive(client: &mut RawClient, offer: u32) -> OwnedFd {
    let (read, write) = rustix::pipe::pipe().unwrap();
    client.request_fd(offer, 1, Some(write.as_fd()), |m| {
        m.string(Some(b"text/plain"))
    });
    read
}

fn host_offers(setup: &Setup, len: usize) {
    setup
        .host
        .with(move |state, display| state.show_selection(display, &OfferFrom::Host(len)));
}

/// Serves requests for data from a client's source until `count` were served.
fn serve(mut client: RawClient, data: Vec<u8>, count: usize) -> std::thread::JoinHandle<RawClient> {
    std::thread::spawn(move || {
        let mut writers = Vec::new();
        for _ in 0..count {
            let mut event = client.wait_for("wl_data_source.send").unwrap();
            let Some(Value::Fd(fd)) = event.args.pop() else {
                panic!("no descriptor")
            };
            let data = data.clone();
            writers.push(std::thread::spawn(move || {
                std::fs::File::from(fd).write_all(&data).unwrap();
            }));
        }
        writers
            .into_iter()
            .for_each(|writer| writer.join().unwrap());
        client
    })
}

#[test]
fn eight_mebibytes_from_the_host() {
    let setup = Setup::new();
    let mut client = setup.client();
    device(&mut client);
    host_offers(&setup, 8 * MIB);
    let (offer, mimes) = offer(&mut client);
    assert_eq!(mimes, ["text/plain"]);
    let fd = receive(&mut client, offer);
    assert!(read_all(fd) == pattern(8 * MIB), "the data differs");
    assert!(client.roundtrip());
}

#[test]
fn a_slow_reader_gets_everything_and_keeps_its_events() {
    let setup = Setup::new();
    let mut client = setup.client();
    device(&mut client);
    host_offers(&setup, 40 * MIB);
    let (offer, _) = offer(&mut client);
    let fd = receive(&mut client, offer);
    // It does something else first.
    assert!(client.roundtrip());
    std::thread::sleep(Duration::from_millis(300));
    // More than the proxy keeps is left with the host.
    assert!(setup.stat("pipe_bytes") < 36 * MIB as u64);
    let mut file = std::fs::File::from(fd);
    let mut all = Vec::new();
    let mut piece = vec![0; MIB];
    loop {
        let n = file.read(&mut piece).unwrap();
        if n == 0 {
            break;
        }
        all.extend_from_slice(&piece[..n]);
        if all.len() < 3 * MIB {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    assert!(all == pattern(40 * MIB), "the data differs");
    assert!(client.roundtrip());
}

#[test]
fn many_pastes_at_once_and_some_given_up() {
    let setup = Setup::new();
    let mut client = setup.client();
    device(&mut client);
    host_offers(&setup, MIB);
    let (offer, _) = offer(&mut client);
    let mut fds: Vec<_> = (0..20).map(|_| receive(&mut client, offer)).collect();
    fds.truncate(15);
    // Read in another order than asked.
    for fd in fds.into_iter().rev() {
        assert!(read_all(fd) == pattern(MIB), "the data differs");
    }
    // All places are free again.
    for _ in 0..60 {
        assert!(
            read_all(receive(&mut client, offer)) == pattern(MIB),
            "the data differs"
        );
    }
}

#[test]
fn eight_mebibytes_to_the_host() {
    let setup = Setup::new();
    let mut client = setup.client();
    let (manager, device) = device(&mut client);
    copy(&mut client, manager, device);
    let data = pattern(8 * MIB + 3);
    let server = serve(client, data.clone(), 3);
    for _ in 0..3 {
        let (read, write) = rustix::pipe::pipe().unwrap();
        setup.host.with(move |state, _| {
            state
                .source
                .as_ref()
                .unwrap()
                .send("text/plain".into(), write.as_fd());
        });
        assert!(read_all(read) == data, "the data differs");
    }
    let mut client = server.join().unwrap();
    // A host that closes its end does no harm.
    let (read, write) = rustix::pipe::pipe().unwrap();
    drop(read);
    setup.host.with(move |state, _| {
        state
            .source
            .as_ref()
            .unwrap()
            .send("text/plain".into(), write.as_fd());
    });
    let mut event = client.wait_for("wl_data_source.send").unwrap();
    let Some(Value::Fd(fd)) = event.args.pop() else {
        panic!("no descriptor")
    };
    let _ = std::fs::File::from(fd).write_all(&data);
    assert!(client.roundtrip());
}

#[test]
fn between_applications_of_the_guest_nothing_goes_through_the_host() {
    let setup = Setup::new();
    let mut from = setup.client();
    let (manager, from_device) = device(&mut from);
    let mut to = setup.client();
    device(&mut to);
    copy(&mut from, manager, from_device);
    let (offered, mimes) = offer(&mut to);
    // The marker is the proxy's secret.
    assert_eq!(mimes, ["text/plain"]);
    let data = pattern(8 * MIB);
    let server = serve(from, data.clone(), 4);
    let fds: Vec<_> = (0..4).map(|_| receive(&mut to, offered)).collect();
    // Together, because none needs to be read for another to go on.
    for fd in fds {
        assert!(read_all(fd) == data, "the data differs");
    }
    let mut from = server.join().unwrap();
    assert_eq!(setup.stat("local_pastes"), 4);
    assert_eq!(setup.stat("pipe_bytes"), 0);
    // An application pastes from itself.
    let (own, _) = offer(&mut from);
    let fd = receive(&mut from, own);
    let server = serve(from, data.clone(), 1);
    assert!(read_all(fd) == data, "the data differs");
    drop(server.join().unwrap());
    // The source is gone with its application: the paste ends, empty.
    common::eventually("the application is gone", || setup.host.clients() == 1);
    assert!(to.roundtrip());
}

#[test]
fn an_application_that_dies_while_it_writes_ends_the_paste() {
    let setup = Setup::new();
    let mut from = setup.client();
    let (manager, from_device) = device(&mut from);
    copy(&mut from, manager, from_device);
    let (read, write) = rustix::pipe::pipe().unwrap();
    setup.host.with(move |state, _| {
        state
            .source
            .as_ref()
            .unwrap()
            .send("text/plain".into(), write.as_fd());
    });
    let mut event = from.wait_for("wl_data_source.send").unwrap();
    let Some(Value::Fd(fd)) = event.args.pop() else {
        panic!("no descriptor")
    };
    let mut file = std::fs::File::from(fd);
    file.write_all(b"only this").unwrap();
    drop(file);
    assert_eq!(read_all(read), b"only this");
    drop(from);
}
