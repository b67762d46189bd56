//! Drag-and-drop stays in its domain.

use std::{io::Read, os::fd::AsFd};

use wayland_client::protocol::wl_data_source::WlDataSource;

use crate::{
    clients::{COPY, Client, Window},
    fixture::Desk,
};

const BLUE: u32 = 0xff00_00ff;
const LEFT: u32 = 0x110;

fn begin(desk: &Desk, client: &mut Client, window: &Window) -> WlDataSource {
    let w = desk.window_of("work").unwrap();
    desk.pointer(w.x + 5, w.y + 5);
    desk.button(LEFT, true);
    client.until("the press", |t| t.has("press 0x110"));
    let source = client.data_manager.create_data_source(&client.qh, ());
    source.offer("text/plain".into());
    source.set_actions(COPY);
    client.told.gives = b"dragged".to_vec();
    let icon = client.surface();
    client.device.start_drag(
        Some(&source),
        &window.surface,
        Some(&icon),
        client.told.serial,
    );
    client.show(&icon, 200, 200, 0xffff_00ff);
    assert!(client.sync());
    source
}

#[test]
fn a_drag_reaches_another_client_of_the_same_domain() {
    let desk = Desk::two();
    let mut from = Client::connect(&desk, "work");
    let window = from.window(100, 100, BLUE);
    let first = desk.window_of("work").unwrap();
    let mut into = Client::connect(&desk, "work");
    into.window(120, 100, BLUE);
    let target = desk
        .windows()
        .into_iter()
        .find(|w| w.id != first.id)
        .unwrap();
    begin(&desk, &mut from, &window);
    desk.pointer(target.x + 10, target.y + 10);
    let shown = desk.picture().count([255, 0, 255]);
    assert!(shown > 0 && shown <= 64 * 64, "{shown} pixels of drag icon");
    desk.pointer(target.x + 12, target.y + 12);
    into.until("the drag", |t| t.has("drag motion"));
    let offer = into.told.drag_offer.clone().unwrap();
    offer.accept(into.told.drag_enter_serial, Some("text/plain".into()));
    offer.set_actions(COPY, COPY);
    assert!(into.sync());
    desk.button(LEFT, false);
    into.until("the drop", |t| t.has("drag drop"));
    let (read, write) = rustix::pipe::pipe().unwrap();
    offer.receive("text/plain".into(), write.as_fd());
    drop(write);
    assert!(into.sync());
    from.until("the request", |t| t.has("send"));
    let mut data = Vec::new();
    std::fs::File::from(read).read_to_end(&mut data).unwrap();
    assert_eq!(data, b"dragged");
    offer.finish();
    assert!(into.sync(), "{:?}", into.error());
    from.until("the end", |t| t.has("dropped") && t.has("finished"));
}

#[test]
fn another_domain_sees_nothing_of_a_drag() {
    let desk = Desk::two();
    let mut from = Client::connect(&desk, "work");
    let window = from.window(100, 100, BLUE);
    let mut foreign = Client::connect(&desk, "personal");
    foreign.window(100, 100, BLUE);
    let target = desk.window_of("personal").unwrap();
    begin(&desk, &mut from, &window);
    assert!(foreign.sync());
    let before = foreign.told.log.clone();
    for i in 0..10 {
        desk.pointer(target.x + 10 + i, target.y + 10);
    }
    assert!(foreign.sync());
    assert_eq!(
        foreign.told.log, before,
        "the foreign domain heard of the drag"
    );
    assert!(foreign.told.offers.is_empty());
    desk.button(LEFT, false);
    from.until("cancelled", |t| t.has("cancelled"));
    assert!(foreign.sync());
    assert!(!foreign.told.has("drag drop") && !foreign.told.has("drag enter"));
    // Afterwards the pointer is an ordinary one again.
    desk.click(target.x + 30, target.y + 30);
    foreign.until("a click", |t| t.has("release 0x110"));
}

#[test]
fn a_drag_needs_a_held_button() {
    let desk = Desk::two();
    let mut client = Client::connect(&desk, "work");
    let window = client.window(100, 100, BLUE);
    let source = client.data_manager.create_data_source(&client.qh, ());
    source.offer("text/plain".into());
    client
        .device
        .start_drag(Some(&source), &window.surface, None, 4711);
    client.until("refused", |t| t.has("cancelled"));
}

#[test]
fn a_source_that_dies_ends_its_drag() {
    let desk = Desk::two();
    let mut foreign = Client::connect(&desk, "personal");
    foreign.window(100, 100, BLUE);
    {
        let mut from = Client::connect(&desk, "work");
        let window = from.window(100, 100, BLUE);
        begin(&desk, &mut from, &window);
    }
    desk.wait("the window is gone", || {
        desk.window_of("work").is_none().then_some(())
    });
    desk.button(LEFT, false);
    let w = desk.window_of("personal").unwrap();
    desk.click(w.x + 5, w.y + 5);
    foreign.until("a click", |t| t.has("press 0x110"));
}
