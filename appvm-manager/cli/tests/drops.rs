//! What is dragged from one domain to another: the real daemon, asked by a compositor of the tests.

mod support;

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{Machine, compositor};

/// A compositor to which the daemon has come, and two domains.
struct Desk {
    machine: Machine,
    events: UnixStream,
    requests: UnixStream,
}

impl Desk {
    fn new() -> Self {
        let machine = Machine::new();
        for name in ["work", "personal"] {
            machine.ok(&["create", name]);
            machine.ok(&["start", name]);
        }
        let listener = compositor::listen(&machine.path("run/bulkhead/compositor.sock"));
        let mut desk = Desk {
            events: compositor::accept(&listener),
            requests: compositor::accept(&listener),
            machine,
        };
        compositor::receive(&mut desk.events).unwrap();
        desk.events.write_all(b"{\"ok\":true}").unwrap();
        desk.until("windows");
        desk
    }

    /// Answers the daemon's requests until it makes this one.
    fn until(&mut self, op: &str) -> Value {
        loop {
            let request = compositor::receive(&mut self.requests).unwrap();
            let answer = b"{\"ok\":true,\"windows\":[]}";
            self.requests.write_all(answer).unwrap();
            if request["op"] == op {
                return request;
            }
        }
    }

    fn tell(&mut self, event: &Value) {
        self.events.write_all(event.to_string().as_bytes()).unwrap();
    }

    fn over(&mut self, kind: &str, target: &str) -> Value {
        self.tell(&json!({
            "event": "drag_over", "id": 7, "source": "work", "target": target, "kind": kind,
        }));
        self.until("answer_drag_over")
    }

    fn drop(&mut self, kind: &str, files: &[&str]) {
        self.tell(&json!({
            "event": "drop", "id": 8, "source": "work", "target": "personal", "kind": kind,
            "bytes": 12, "files": files,
        }));
    }

    fn policy(&self, text: &str) {
        let folder = self.machine.path("config/bulkhead/policy.d");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("30-user.policy"), text).unwrap();
    }

    fn question(&self) -> Value {
        let end = Instant::now() + support::PATIENCE;
        loop {
            let text = self.machine.ok(&["ask", "list", "--json"]);
            let asks: Value = serde_json::from_str(&text).unwrap();
            if let Some(one) = asks.get(0) {
                return one.clone();
            }
            assert!(Instant::now() < end, "no question");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn a_target_is_lit_by_the_policy() {
    let mut desk = Desk::new();
    for (kind, target, allow) in [
        ("files", "personal", true),
        ("text", "personal", true),
        ("image", "personal", true),
        ("other", "personal", false),
        ("text", "nosuch", false),
        ("text", "work", false),
        ("text", "@dispvm", false),
        ("text", "dom0", false),
    ] {
        let answer = desk.over(kind, target);
        assert_eq!(
            (&answer["id"], &answer["allow"]),
            (&json!(7), &json!(allow)),
            "{target}"
        );
    }
    desk.policy(
        "bulkhead.Drop +image * * deny\nbulkhead.Drop * * @anyvm allow target=work\n\
         qubes.Filecopy * work personal deny\n",
    );
    for (kind, why) in [
        ("image", "the rule 30-user.policy:1 denies it"),
        ("text", "the rule 30-user.policy:2 sends it elsewhere"),
        ("files", "the rule 30-user.policy:3 denies it"),
    ] {
        let answer = desk.over(kind, "personal");
        assert_eq!(answer["allow"], false, "{kind}");
        if kind != "text" {
            assert_eq!(answer["reason"], why);
        }
    }
    desk.policy("wrong\n");
    assert_eq!(desk.over("text", "personal")["allow"], false);
}

#[test]
fn text_waits_for_the_users_answer() {
    let mut desk = Desk::new();
    for (answer, allow) in [("deny", false), ("allow", true)] {
        desk.drop("text", &[]);
        let question = desk.question();
        assert_eq!(
            (
                &question["service"],
                &question["argument"],
                &question["source"]
            ),
            (&json!("bulkhead.Drop"), &json!("text"), &json!("work"))
        );
        // The window's domain and no other.
        assert_eq!(
            question["targets"].as_array().unwrap().len(),
            1,
            "{question}"
        );
        assert!(question["targets"].to_string().contains("personal"));
        assert_eq!(question["files"], json!(["text (12 B)"]));
        desk.machine
            .ok(&["ask", answer, &question["id"].to_string()]);
        let decided = desk.until("answer_drop");
        assert_eq!(
            (&decided["id"], &decided["allow"]),
            (&json!(8), &json!(allow))
        );
    }
    let log = desk.machine.ok(&["transfers"]);
    assert!(
        log.contains("refused by the user") && log.contains("bulkhead.Drop+text"),
        "{log}"
    );
    // Without a question.
    desk.policy("bulkhead.Drop * work personal allow\n");
    desk.drop("text", &[]);
    assert_eq!(desk.until("answer_drop")["allow"], true);
}

#[test]
fn a_picture_is_not_dropped_as_it_is() {
    let mut desk = Desk::new();
    // Nothing in the stand-in's template makes disposables.
    desk.policy("bulkhead.Drop * work personal allow\n");
    desk.drop("image", &[]);
    let decided = desk.until("answer_drop");
    assert_eq!(decided["allow"], false);
    let reason = decided["reason"].as_str().unwrap();
    assert!(
        reason.starts_with("there is no disposable to redraw it in"),
        "{reason}"
    );
}

#[test]
fn a_source_that_cannot_send_its_files_gives_none() {
    let mut desk = Desk::new();
    // The stand-in's agent has no program that sends.
    desk.drop("files", &["file:///etc/hostname"]);
    let decided = desk.until("answer_drop");
    assert_eq!(decided["allow"], false);
    let reason = decided["reason"].as_str().unwrap();
    assert!(reason.starts_with("work cannot send it"), "{reason}");
}
