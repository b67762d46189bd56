//! What tests may do: take pictures, inject input, wait for quiet. There only when asked for.

use std::{path::PathBuf, time::Duration};

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, error, ok};
use crate::{
    input::typing::{KEY_LEFTSHIFT, key_for},
    layout::WindowId,
    state::State,
};

#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
enum Request {
    Screenshot {
        path: PathBuf,
    },
    Crop {
        window: u64,
        path: PathBuf,
    },
    PointerMove {
        x: f64,
        y: f64,
    },
    PointerButton {
        button: u32,
        pressed: bool,
    },
    PointerAxis {
        #[serde(default)]
        horizontal: f64,
        #[serde(default)]
        vertical: f64,
    },
    Key {
        code: u32,
        pressed: bool,
    },
    Type {
        text: String,
    },
    TouchDown {
        id: u32,
        x: f64,
        y: f64,
    },
    TouchMotion {
        id: u32,
        x: f64,
        y: f64,
    },
    TouchUp {
        id: u32,
    },
    Windows {},
    Layers {},
    Settle {
        #[serde(default = "default_quiet")]
        quiet_ms: u64,
        #[serde(default = "default_timeout")]
        timeout_ms: u64,
    },
    Stats {},
}

fn default_quiet() -> u64 {
    300
}

fn default_timeout() -> u64 {
    10_000
}

impl State {
    pub(super) fn test_request(&mut self, connection: u64, request: Value) -> Answer {
        let request = match serde_json::from_value::<Request>(request) {
            Ok(request) => request,
            Err(wrong) => return Answer::Now(error(wrong)),
        };
        let time = self.now_ms();
        match request {
            Request::Screenshot { path } => {
                let saved = self.screenshot().and_then(|picture| picture.save(&path));
                return Answer::Now(saved.map_or_else(error, |()| ok()));
            }
            Request::Crop { window, path } => {
                let saved = self
                    .window_picture(WindowId(window))
                    .and_then(|picture| picture.save(&path));
                return Answer::Now(saved.map_or_else(error, |()| ok()));
            }
            Request::PointerMove { x, y } => self.pointer_motion(x, y, time),
            Request::PointerButton { button, pressed } => {
                self.pointer_button(button, pressed, time);
            }
            Request::PointerAxis {
                horizontal,
                vertical,
            } => {
                self.pointer_axis(horizontal, vertical, time);
            }
            Request::Key { code, pressed } => {
                let time_us = super::now_us();
                self.key(code, pressed, time);
                return Answer::Now(json!({ "ok": true, "time_us": time_us }));
            }
            Request::Type { text } => {
                if let Some(strange) = text.chars().find(|c| key_for(*c).is_none()) {
                    return Answer::Now(error(format!(
                        "no key of the US layout types {strange:?}"
                    )));
                }
                for (code, shift) in text.chars().filter_map(key_for) {
                    if shift {
                        self.key(KEY_LEFTSHIFT, true, time);
                    }
                    self.key(code, true, time);
                    self.key(code, false, time);
                    if shift {
                        self.key(KEY_LEFTSHIFT, false, time);
                    }
                }
            }
            Request::TouchDown { id, x, y } => self.touch_down(id, x, y, time),
            Request::TouchMotion { id, x, y } => self.touch_motion(id, x, y, time),
            Request::TouchUp { id } => self.touch_up(id, time),
            Request::Windows {} => return Answer::Now(self.window_list()),
            Request::Layers {} => return Answer::Now(self.layer_list()),
            Request::Settle {
                quiet_ms,
                timeout_ms,
            } => {
                self.settle(
                    connection,
                    Duration::from_millis(quiet_ms),
                    Duration::from_millis(timeout_ms),
                );
                return Answer::Later;
            }
            Request::Stats {} => return Answer::Now(self.stats()),
        }
        Answer::Now(ok())
    }

    fn stats(&self) -> Value {
        let domains: Vec<_> = self
            .domains
            .iter()
            .map(|d| {
                json!({
                    "domain": d.name,
                    "label": d.label,
                    "clients": d.usage.clients,
                    "surfaces": d.usage.surfaces,
                    "pools": d.usage.pools,
                    "buffers": d.usage.buffers,
                    "bytes": d.usage.shm_bytes,
                    "callbacks": d.usage.callbacks,
                    "commits": d.commits,
                })
            })
            .collect();
        json!({ "ok": true, "domains": domains, "pictures": self.pictures })
    }
}
