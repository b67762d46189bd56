//! Accepts exec connections, a thread each.

use std::io;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::console::say;
use crate::control::{self, Asked};
use crate::reaper::Reaper;
use crate::session::{self, Context};
use bulkhead_protocol::connection::{Connection, Listener};

/// At most so many commands at a time; each costs five threads.
const MAX_SESSIONS: usize = 256;

/// Serves for ever.
pub fn serve(context: Context, listener: Listener) {
    let running = Arc::new(AtomicUsize::new(0));
    loop {
        let connection = match listener.accept() {
            Ok(connection) => connection,
            Err(error) => {
                say(&format!("accept: {error}"));
                // Out of descriptors, most likely: give sessions time to end.
                thread::sleep(Duration::from_millis(100));
                continue;
            }
        };
        if running.fetch_add(1, Ordering::SeqCst) >= MAX_SESSIONS {
            running.fetch_sub(1, Ordering::SeqCst);
            connection.shutdown();
            continue;
        }
        let (context, counter) = (context.clone(), running.clone());
        let spawned = thread::Builder::new().name("exec".into()).spawn(move || {
            session::serve(&context, connection);
            counter.fetch_sub(1, Ordering::SeqCst);
        });
        if spawned.is_err() {
            running.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// The whole agent without PID 1's duties: commands over Unix sockets.
pub fn serve_unix(path: &Path, control: Option<&Path>) -> io::Result<()> {
    let listener = Listener::Unix(UnixListener::bind(path)?);
    let context = Context {
        reaper: Reaper::start()?,
        in_guest: false,
        services: Arc::default(),
    };
    let Some(control) = control else {
        serve(context, listener);
        return Ok(());
    };
    let mut link = control::Link::new(Connection::to_unix(control)?)?;
    link.hello()?;
    thread::Builder::new().spawn(move || serve(context, listener))?;
    link.ready(Vec::new())?;
    match link.wait() {
        Asked::Power(_) | Asked::Nothing => Ok(()),
    }
}
