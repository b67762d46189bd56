//! The manager's control socket, and the socket for tests. Both are sequenced packets: one JSON
//! object a packet, descriptors with SCM_RIGHTS on the same packet, one answer packet each.

mod events;
pub(crate) use events::time_us as now_us;
mod manager;
pub(crate) mod packets;
mod test_interface;

use std::{
    cell::RefCell,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::net::SocketType;
use serde::Serialize;
use serde_json::{Value, json};
use smithay::reexports::calloop::{
    Interest, LoopHandle, Mode, PostAction,
    generic::Generic,
    timer::{TimeoutAction, Timer},
};

use crate::{server::SharedDisplay, state::State};

/// Clients of the control sockets at a time.
const MAX_CONNECTIONS: usize = 32;

#[derive(Debug)]
struct Connection {
    id: u64,
    socket: Arc<OwnedFd>,
    test: bool,
    subscribed: bool,
}

/// A test that waits until clients are quiet.
#[derive(Debug)]
struct Settle {
    connection: u64,
    quiet: Duration,
    deadline: Instant,
}

/// All connections of both sockets.
#[derive(Debug, Default)]
pub struct Control {
    connections: Vec<Connection>,
    last_id: u64,
    settles: Vec<Settle>,
    settle_timer: bool,
    events: Vec<Value>,
    title_timer: bool,
    titles_told: Option<Instant>,
    /// The power button was pressed while nobody listened.
    power_pressed: Option<Instant>,
}

/// An answer, or none yet.
enum Answer {
    Now(Value),
    Later,
}

fn ok() -> Value {
    json!({ "ok": true })
}

fn error(message: impl std::fmt::Display) -> Value {
    json!({ "ok": false, "error": message.to_string() })
}

/// Makes a listening socket. Its folder decides who can reach it; its mode is 0600 all the same.
pub(crate) fn listen(
    events: &LoopHandle<'static, State>,
    path: &Path,
    test: bool,
    display: &SharedDisplay,
) -> std::io::Result<()> {
    let socket = packets::listen(path, SocketType::SEQPACKET)?;
    let display = display.clone();
    let source = Generic::new(socket, Interest::READ, Mode::Level);
    events
        .insert_source(source, move |_, socket, state| {
            while let Ok(connection) = packets::accept(socket.as_fd()) {
                state.control_connected(connection, test, &display);
            }
            Ok(PostAction::Continue)
        })
        .map(|_| ())
        .map_err(|error| std::io::Error::other(error.to_string()))
}

impl State {
    fn control_connected(&mut self, socket: OwnedFd, test: bool, display: &SharedDisplay) {
        if self.control.connections.len() >= MAX_CONNECTIONS {
            tracing::warn!("too many control connections; one more is refused");
            return;
        }
        self.control.last_id += 1;
        let id = self.control.last_id;
        let socket = Arc::new(socket);
        let display = display.clone();
        let buffer = Rc::new(RefCell::new(vec![0; packets::MAX_BYTES + 1]));
        let source = Generic::new(socket.clone(), Interest::READ, Mode::Level);
        let inserted = self
            .events
            .insert_source(source, move |_, socket, state: &mut Self| {
                let open = state.read_control(id, socket.as_fd(), test, &display, &buffer);
                let known = state.control.connections.iter().any(|c| c.id == id);
                if open && known {
                    return Ok(PostAction::Continue);
                }
                state.control.connections.retain(|c| c.id != id);
                state.control.settles.retain(|s| s.connection != id);
                Ok(PostAction::Remove)
            });
        match inserted {
            Ok(_) => {
                let connection = Connection {
                    id,
                    socket,
                    test,
                    subscribed: false,
                };
                self.control.connections.push(connection);
            }
            Err(error) => tracing::error!(%error, "control connection lost"),
        }
    }

    /// Answers what has arrived. False when the connection is over.
    fn read_control(
        &mut self,
        id: u64,
        socket: std::os::fd::BorrowedFd<'_>,
        test: bool,
        display: &SharedDisplay,
        buffer: &RefCell<Vec<u8>>,
    ) -> bool {
        loop {
            let Ok(mut buffer) = buffer.try_borrow_mut() else {
                return true;
            };
            let packet = match packets::receive(socket, &mut buffer) {
                Ok(packet) => packet,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return true,
                Err(_) => return false,
            };
            let Some(packet) = packet else { return false };
            let answer = if packet.truncated {
                Answer::Now(error("a packet is at most 64 KiB"))
            } else {
                let bytes = buffer.get(..packet.length).unwrap_or_default();
                match serde_json::from_slice::<Value>(bytes) {
                    Ok(request) if test => self.test_request(id, request),
                    Ok(request) => {
                        Answer::Now(self.manager_request(id, request, packet.fds, display))
                    }
                    Err(wrong) => Answer::Now(error(format!("not JSON: {wrong}"))),
                }
            };
            if let Answer::Now(answer) = answer {
                self.send_control(id, &answer);
            }
        }
    }

    fn send_control(&mut self, id: u64, message: &impl Serialize) {
        let Some(connection) = self.control.connections.iter().find(|c| c.id == id) else {
            return;
        };
        let Ok(mut bytes) = serde_json::to_vec(message) else {
            return;
        };
        if bytes.len() > packets::MAX_BYTES {
            bytes = error("the answer is longer than a packet")
                .to_string()
                .into_bytes();
        }
        if let Err(error) = packets::send(connection.socket.as_fd(), &bytes) {
            tracing::warn!(%error, test = connection.test, "a control connection does not read");
            let _ = rustix::net::shutdown(&*connection.socket, rustix::net::Shutdown::Both);
            self.control.connections.retain(|c| c.id != id);
        }
    }

    /// Sends what subscribers wait for.
    pub(crate) fn send_events(&mut self) {
        for event in std::mem::take(&mut self.control.events) {
            let ids: Vec<_> = self
                .control
                .connections
                .iter()
                .filter(|c| c.subscribed)
                .map(|c| c.id)
                .collect();
            for id in ids {
                self.send_control(id, &event);
            }
        }
    }

    fn settle(&mut self, connection: u64, quiet: Duration, limit: Duration) {
        let deadline = Instant::now() + limit;
        self.control.settles.push(Settle {
            connection,
            quiet,
            deadline,
        });
        if self.control.settle_timer {
            return;
        }
        let step = Duration::from_millis(10);
        let armed = self
            .events
            .insert_source(Timer::from_duration(step), move |_, (), state| {
                state.answer_settled();
                if state.control.settles.is_empty() {
                    state.control.settle_timer = false;
                    return TimeoutAction::Drop;
                }
                TimeoutAction::ToDuration(step)
            });
        self.control.settle_timer = armed.is_ok();
    }

    fn answer_settled(&mut self) {
        let quiet_for = self.last_commit.elapsed();
        let now = Instant::now();
        let waiting = std::mem::take(&mut self.control.settles);
        for settle in waiting {
            if quiet_for >= settle.quiet && !self.dirty {
                self.send_control(settle.connection, &ok());
            } else if now >= settle.deadline {
                self.send_control(settle.connection, &error("clients are not quiet yet"));
            } else {
                self.control.settles.push(settle);
            }
        }
    }
}
