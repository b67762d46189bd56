//! What the manager says, and what it is asked: a thread of its own that speaks D-Bus, so that
//! drawing never waits for the bus, and the bus never for drawing.

mod client;
mod proxy;
mod types;

use std::sync::{Mutex, PoisonError};

use futures_util::Stream;
use futures_util::stream::StreamExt;
use tokio::sync::mpsc;

pub use types::{Application, Command, Domain, Event, Label, Question, Window};

/// What a window wants to hear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// Windows, focus, domains and the time.
    Panel,
    /// Applications, their icons, when the menu is wanted, and questions.
    Menu,
}

/// The way to the manager.
#[derive(Debug, Clone)]
pub struct Bus(mpsc::UnboundedSender<Command>);

impl Bus {
    /// Asks for something; what comes of it comes as an event.
    pub fn send(&self, command: Command) {
        // The thread ends only with the process.
        let _ = self.0.send(command);
    }
}

/// Events on their way to the window. A process has one window and one bus.
static EVENTS: Mutex<Option<mpsc::UnboundedReceiver<Event>>> = Mutex::new(None);

/// Starts the thread.
pub fn start(interest: Interest) -> std::io::Result<Bus> {
    let (commands, requests) = mpsc::unbounded_channel();
    let (sender, events) = mpsc::unbounded_channel();
    *EVENTS.lock().unwrap_or_else(PoisonError::into_inner) = Some(events);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    std::thread::Builder::new()
        .name("bus".into())
        .spawn(move || {
            let result = runtime.block_on(client::run(interest, requests, sender));
            if let Err(error) = result {
                eprintln!(
                    "bulkhead-ui: the session bus: {error}; run inside `bulkhead session` or under \
                     dbus-run-session"
                );
                // Without the bus there is nothing to show. The session starts us again.
                std::process::exit(1);
            }
        })?;
    Ok(Bus(commands))
}

/// The events, for the one subscription that takes them.
pub fn events() -> impl Stream<Item = Event> {
    let events = EVENTS.lock().unwrap_or_else(PoisonError::into_inner).take();
    futures_util::stream::unfold(events, |events| async {
        let mut events = events?;
        let event = events.recv().await?;
        Some((event, Some(events)))
    })
    .fuse()
}
