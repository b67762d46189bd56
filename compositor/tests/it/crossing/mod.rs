//! The clipboard across domains: only when the user moves it, only where the manager allows it,
//! only what is whole and bounded.

mod hostile;
mod moves;
mod pictures;

use std::io::Read;

use bulkhead_compositor::CrossingLimits;
use serde_json::{Value, json};

use crate::{
    clients::Client,
    fixture::{Channel, Desk},
};

const BLUE: u32 = 0xff00_00ff;
const CTRL: u32 = 29;
const SHIFT: u32 = 42;
const KEY_C: u32 = 46;
const KEY_V: u32 = 47;
const TEXT_TYPES: [&str; 3] = ["text/plain;charset=utf-8", "text/plain", "UTF8_STRING"];
/// The colour of a notice's ground.
const NOTICE: [u8; 3] = [0x1d, 0x20, 0x26];

/// Three domains with a window each, and a manager that hears of everything.
struct Three {
    desk: Desk,
    events: Channel,
    work: Client,
    personal: Client,
    /// In a third domain.
    watcher: Client,
}

impl Three {
    fn new() -> Self {
        Self::with(CrossingLimits::default())
    }

    fn with(limits: CrossingLimits) -> Self {
        let desk = Desk::with_crossing(limits);
        desk.add_domain("work", "red", "#cc0000");
        desk.add_domain("personal", "green", "#73d216");
        desk.add_domain("other", "blue", "#3465a4");
        let [mut work, mut personal, mut watcher] =
            ["work", "personal", "other"].map(|name| Client::connect(&desk, name));
        for client in [&mut work, &mut personal, &mut watcher] {
            client.window(100, 100, BLUE);
        }
        let events = desk.control_channel();
        assert_eq!(events.ask(json!({"op": "subscribe"}), &[])["ok"], true);
        let three = Self {
            desk,
            events,
            work,
            personal,
            watcher,
        };
        three.focus("work");
        three
    }

    fn focus(&self, domain: &str) {
        focus(&self.desk, domain);
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

    /// The keys for copying, in work, which gives what it has copied.
    fn copy_across(&mut self) -> String {
        self.focus("work");
        self.desk.chord(&[CTRL, SHIFT, KEY_C]);
        self.work.until("somebody pastes", |t| t.has("send"));
        self.notice()
    }

    /// The keys for pasting, in a domain, and the manager's answer.
    fn paste_across(&self, domain: &str, allow: bool) -> (Value, String) {
        self.focus(domain);
        self.desk.chord(&[CTRL, SHIFT, KEY_V]);
        let asked = self.event("paste");
        let answer = json!({
            "op": "answer_paste", "id": asked["id"], "allow": allow, "reason": "the rule r:1 denies it"
        });
        assert_eq!(self.desk.control(answer)["ok"], true);
        (asked, self.notice())
    }
}

fn focus(desk: &Desk, domain: &str) {
    let window = desk.window_of(domain).unwrap();
    desk.test(json!({"op": "pointer_move", "x": 790, "y": 590}));
    assert_eq!(
        desk.control(json!({"op": "activate_window", "id": window.id}))["ok"],
        true
    );
}

fn read(mut file: std::fs::File) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

/// A client was never told of a clipboard.
fn assert_saw_nothing(client: &mut Client) {
    assert!(client.sync());
    assert!(client.told.offers.is_empty(), "{:?}", client.told.offers);
    assert!(client.told.clipboard.is_none());
    assert!(!client.told.has("send") && !client.told.has("cancelled"));
}
