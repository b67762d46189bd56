//! Drags from one domain to another: the target sees nothing before the answer, nothing after a no,
//! and a whole drag after a yes.

mod answers;
mod hostile;

use std::{io::Read, os::fd::AsFd};

use bulkhead_compositor::CrossingLimits;
use serde_json::{Value, json};
use wayland_client::protocol::wl_data_source::WlDataSource;

use crate::{
    clients::{COPY, Client, Window},
    fixture::{Channel, Desk, Seen},
};

const BLUE: u32 = 0xff00_00ff;
const LEFT: u32 = 0x110;
/// The border of a green window on which something may be dropped.
const LIT: [u8; 3] = [0xd0, 0xf0, 0xb1];
/// The mark where nothing may be dropped.
const FORBIDDEN: [u8; 3] = [0xd0, 0x1a, 0x1a];
const TEXT_TYPES: [&str; 3] = ["text/plain;charset=utf-8", "text/plain", "UTF8_STRING"];

/// Two domains with a window each, and a manager that hears of everything.
struct Two {
    desk: Desk,
    events: Channel,
    work: Client,
    window: Window,
    personal: Client,
    target: Window,
}

impl Two {
    fn new() -> Self {
        Self::with(CrossingLimits::default())
    }

    fn with(limits: CrossingLimits) -> Self {
        let desk = Desk::with_crossing(limits);
        desk.add_domain("work", "red", "#cc0000");
        desk.add_domain("personal", "green", "#73d216");
        let [mut work, mut personal] =
            ["work", "personal"].map(|name| Client::connect(&desk, name));
        let window = work.window(100, 100, BLUE);
        let target = personal.window(100, 100, BLUE);
        let events = desk.control_channel();
        assert_eq!(events.ask(json!({"op": "subscribe"}), &[])["ok"], true);
        Self {
            desk,
            events,
            work,
            window,
            personal,
            target,
        }
    }

    fn event(&self, name: &str) -> Value {
        loop {
            let event = self.events.receive();
            if event["event"] == name {
                return event;
            }
        }
    }

    fn notice(&self) -> String {
        self.event("notice")["text"].as_str().unwrap().to_owned()
    }

    fn target(&self) -> Seen {
        self.desk.window_of("personal").unwrap()
    }

    /// Begins a drag in work.
    fn begin(&mut self, types: &[&str], data: &[u8]) -> WlDataSource {
        self.begin_with(types, data, COPY)
    }

    fn begin_with(
        &mut self,
        types: &[&str],
        data: &[u8],
        actions: wayland_client::protocol::wl_data_device_manager::DndAction,
    ) -> WlDataSource {
        let client = &mut self.work;
        client.told.log.clear();
        let place = self.desk.window_of("work").unwrap();
        self.desk.pointer(place.x + 5, place.y + 5);
        self.desk.button(LEFT, true);
        client.until("the press", |t| t.has("press 0x110"));
        let source = client.data_manager.create_data_source(&client.qh, ());
        for mime in types {
            source.offer((*mime).into());
        }
        source.set_actions(actions);
        client.told.gives = data.to_vec();
        let (surface, serial) = (&self.window.surface, client.told.serial);
        client
            .device
            .start_drag(Some(&source), surface, None, serial);
        assert!(client.sync());
        source
    }

    /// Moves the drag over the other domain's window: the question about it.
    fn over(&self) -> Value {
        self.move_over();
        self.event("drag_over")
    }

    fn move_over(&self) {
        let target = self.target();
        for i in 0..5 {
            self.desk.pointer(target.x + 20 + i, target.y + 30);
        }
    }

    fn answer_over(&self, asked: &Value, allow: bool) {
        let reason = "the rule r:1 denies it";
        let answer =
            json!({"op": "answer_drag_over", "id": asked["id"], "allow": allow, "reason": reason});
        assert_eq!(self.desk.control(answer)["ok"], true);
    }

    /// Drags something over, is let, and drops it: the question about the drop.
    fn dropped(&mut self, types: &[&str], data: &[u8]) -> Value {
        self.begin(types, data);
        let asked = self.over();
        self.answer_over(&asked, true);
        self.desk.button(LEFT, false);
        self.work.until("it is read", |t| t.has("send"));
        self.event("drop")
    }

    fn answer(&self, asked: &Value, answer: Value) {
        let mut whole = json!({"op": "answer_drop", "id": asked["id"]});
        for (key, value) in answer.as_object().unwrap() {
            whole[key] = value.clone();
        }
        assert_eq!(self.desk.control(whole)["ok"], true);
    }

    fn saw_nothing(&mut self) {
        assert!(self.personal.sync());
        let told = &self.personal.told;
        let drags = told.log.iter().filter(|line| line.contains("drag"));
        assert_eq!(drags.count(), 0, "{:?}", told.log);
        assert!(told.offers.is_empty() && told.drag_offer.is_none());
    }

    /// The target agrees to what it is shown, and reads what is dropped.
    fn take(&mut self, mime: &str) -> Vec<u8> {
        let personal = &mut self.personal;
        personal.until("the drag", |t| t.has("drag enter"));
        let offer = personal.told.drag_offer.clone().unwrap();
        offer.accept(personal.told.drag_enter_serial, Some(mime.into()));
        offer.set_actions(COPY, COPY);
        personal.until("the drop", |t| t.has("drag drop"));
        let (read, write) = rustix::pipe::pipe().unwrap();
        offer.receive(mime.into(), write.as_fd());
        drop(write);
        assert!(personal.sync());
        let mut data = Vec::new();
        std::fs::File::from(read).read_to_end(&mut data).unwrap();
        offer.finish();
        assert!(personal.sync(), "{:?}", personal.error());
        data
    }

    fn offered(&self) -> Vec<String> {
        let mut all = self.personal.told.offers.values();
        all.next().cloned().unwrap_or_default()
    }
}
