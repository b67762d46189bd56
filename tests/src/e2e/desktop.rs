//! The desktop inside the test host: its windows, its pictures, its keys and its pointer.
//!
//! Everything goes through the compositor's private test interface by `testctl`, so that a scenario
//! acts at the place where a person would: on the screen and at the keyboard.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Value, json};

use super::context::Context;
use super::picture::{Area, Picture};
use super::{Failure, Outcome};

/// The left mouse button (linux/input-event-codes.h).
pub const BTN_LEFT: u32 = 0x110;
/// Left Super key (linux/input-event-codes.h).
pub const KEY_LEFTMETA: u32 = 125;

/// One window as the compositor reports it. Coordinates are logical pixels of the desktop; the
/// rectangle is the client's own area, inside the border.
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub struct Window {
    /// The compositor's number for it.
    pub id: u64,
    /// The domain whose socket it came through.
    pub domain: String,
    /// What the client calls itself, sanitised.
    #[serde(default)]
    pub title: String,
    /// The client's app_id, sanitised.
    #[serde(default)]
    pub app_id: String,
    /// `toplevel` or `popup`.
    pub kind: String,
    /// Left edge of the client's area.
    pub x: i32,
    /// Top edge of the client's area.
    pub y: i32,
    /// Width of the client's area.
    pub width: i32,
    /// Height of the client's area.
    pub height: i32,
    /// Whether it has the keyboard.
    #[serde(default)]
    pub focused: bool,
    /// Whether it is shown.
    #[serde(default)]
    pub mapped: bool,
    /// Commits so far.
    #[serde(default)]
    pub commits: u64,
}

impl Window {
    /// The client's area.
    pub fn area(&self) -> Area {
        Area {
            x: self.x,
            y: self.y,
            width: self.width,
            height: self.height,
        }
    }

    /// The middle of the client's area.
    pub fn centre(&self) -> (i32, i32) {
        (self.x + self.width / 2, self.y + self.height / 2)
    }
}

/// The desktop of a running host.
pub struct Desktop<'a> {
    context: &'a Context<'a>,
}

impl<'a> Desktop<'a> {
    /// The desktop of this scenario's host.
    pub fn new(context: &'a Context<'a>) -> Desktop<'a> {
        Desktop { context }
    }

    /// Sends requests in order over one connection; fails when one is refused.
    pub fn ask_all(&self, requests: &[Value]) -> Result<Vec<Value>, Failure> {
        let mut command = vec!["testctl".to_owned()];
        command.extend(requests.iter().map(Value::to_string));
        let output = self.context.host_ok(&command)?;
        output
            .lines()
            .map(|line| {
                serde_json::from_str(line)
                    .map_err(|error| Failure::new(format!("testctl answered {line:?}: {error}")))
            })
            .collect()
    }

    /// Sends one request and returns its answer.
    pub fn ask(&self, request: Value) -> Result<Value, Failure> {
        self.ask_all(&[request])?
            .pop()
            .ok_or_else(|| Failure::new("testctl answered nothing"))
    }

    /// Every window there is, popups included.
    pub fn windows(&self) -> Result<Vec<Window>, Failure> {
        let answer = self.ask(json!({"op": "windows"}))?;
        serde_json::from_value(answer["windows"].clone())
            .map_err(|error| Failure::new(format!("the window list {answer}: {error}")))
    }

    /// The shown windows of one domain.
    pub fn windows_of(&self, domain: &str) -> Result<Vec<Window>, Failure> {
        let mut windows = self.windows()?;
        windows.retain(|w| w.domain == domain && w.mapped);
        Ok(windows)
    }

    /// Waits until some window satisfies `wanted`.
    pub fn wait_window(
        &self,
        what: &str,
        timeout: Duration,
        wanted: impl Fn(&Window) -> bool,
    ) -> Result<Window, Failure> {
        let found = self.wait(what, timeout, || {
            Ok(self.windows()?.into_iter().find(|w| w.mapped && wanted(w)))
        });
        if found.is_err() {
            let _ = self.screenshot("failed");
        }
        found
    }

    /// Waits until `probe` answers something.
    pub fn wait<T>(
        &self,
        what: &str,
        timeout: Duration,
        mut probe: impl FnMut() -> Result<Option<T>, Failure>,
    ) -> Result<T, Failure> {
        let start = Instant::now();
        loop {
            if let Some(found) = probe()? {
                return Ok(found);
            }
            if start.elapsed() > timeout {
                return Err(Failure::new(format!(
                    "waited {} s in vain for {what}; windows: {:?}",
                    timeout.as_secs(),
                    self.windows()
                )));
            }
            std::thread::sleep(Duration::from_millis(150));
        }
    }

    /// Waits until no client has committed anything for `quiet_ms`.
    pub fn settle(&self, quiet_ms: u64) -> Outcome {
        self.ask(json!({"op": "settle", "quiet_ms": quiet_ms, "timeout_ms": 20_000}))
            .map(drop)
    }

    /// Takes a picture of the whole desktop; it stays as `NAME.png` beside the scenario's logs.
    pub fn screenshot(&self, name: &str) -> Result<Picture, Failure> {
        self.picture(name, |path| json!({"op": "screenshot", "path": path}))
    }

    /// Takes a picture of one window's own pixels.
    pub fn crop(&self, window: u64, name: &str) -> Result<Picture, Failure> {
        self.picture(
            name,
            |path| json!({"op": "crop", "window": window, "path": path}),
        )
    }

    fn picture(&self, name: &str, request: impl Fn(&str) -> Value) -> Result<Picture, Failure> {
        let inside = format!("/out/{name}.png");
        self.ask(request(&inside))?;
        let outside: PathBuf = self.context.bring_back(&format!("{name}.png"))?;
        Picture::open(&outside).map_err(Failure::new)
    }

    /// Moves the pointer to a place and presses and releases the left button there.
    pub fn click(&self, x: i32, y: i32) -> Outcome {
        self.ask_all(&[
            json!({"op": "pointer_move", "x": x, "y": y}),
            json!({"op": "pointer_button", "button": BTN_LEFT, "pressed": true}),
            json!({"op": "sleep", "ms": 40}),
            json!({"op": "pointer_button", "button": BTN_LEFT, "pressed": false}),
        ])
        .map(drop)
    }

    /// Drags with the left button from one place to another in a few steps, with `keys` held.
    pub fn drag(&self, from: (i32, i32), to: (i32, i32), keys: &[u32]) -> Outcome {
        let mut requests = Vec::new();
        requests.push(json!({"op": "pointer_move", "x": from.0, "y": from.1}));
        for key in keys {
            requests.push(json!({"op": "key", "code": key, "pressed": true}));
        }
        requests.push(json!({"op": "pointer_button", "button": BTN_LEFT, "pressed": true}));
        const STEPS: i32 = 8;
        for step in 1..=STEPS {
            let x = from.0 + (to.0 - from.0) * step / STEPS;
            let y = from.1 + (to.1 - from.1) * step / STEPS;
            requests.push(json!({"op": "pointer_move", "x": x, "y": y}));
            requests.push(json!({"op": "sleep", "ms": 30}));
        }
        requests.push(json!({"op": "pointer_button", "button": BTN_LEFT, "pressed": false}));
        for key in keys {
            requests.push(json!({"op": "key", "code": key, "pressed": false}));
        }
        self.ask_all(&requests).map(drop)
    }

    /// Types a text on a US keyboard.
    pub fn type_text(&self, text: &str) -> Outcome {
        self.ask(json!({"op": "type", "text": text})).map(drop)
    }

    /// Presses keys together and releases them in reverse (evdev codes).
    pub fn chord(&self, keys: &[u32]) -> Outcome {
        let mut requests: Vec<Value> = keys
            .iter()
            .map(|key| json!({"op": "key", "code": key, "pressed": true}))
            .collect();
        requests.extend(
            keys.iter()
                .rev()
                .map(|key| json!({"op": "key", "code": key, "pressed": false})),
        );
        self.ask_all(&requests).map(drop)
    }
}
