//! `bulkhead-connect`: a port of this domain's loopback that leads to one of another domain's. Each
//! connection is one call of `bulkhead.ConnectTcp`, so that the policy decides about each, and no network
//! has a part in it.

use std::fs::File;
use std::io::{self, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bulkhead_protocol::client::Stdio;
use bulkhead_protocol::{CONNECT_SERVICE, CallRequest, TcpPort};

use crate::call::{Line, nowhere};
use crate::tcp::{self, NOTHING_LISTENS, carry};
use crate::{Failure, REFUSED};

/// Connections at a time, as many as the manager carries of one domain. Further ones wait until one ends.
const MAX_CONNECTIONS: usize = 64;
/// Lowest port that a plain user may listen on.
const FIRST_FREE: u16 = 1024;
/// What has gone wrong is told so often at most.
const TELL: Duration = Duration::from_secs(1);
/// After the end of the output, how long the service may take to say that it failed: after some output,
/// and where there was none at all.
const VERDICT: (Duration, Duration) = (Duration::from_millis(25), Duration::from_millis(500));

/// What is to be connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The other domain: anything that a call may have as its target.
    pub target: String,
    /// Its port.
    pub port: TcpPort,
    /// Where to listen here; 0: at a free one.
    pub listen: u16,
}

impl Wanted {
    /// From `TARGET:PORT`, and perhaps another port for this side.
    pub fn new(there: &str, listen: Option<&str>) -> Result<Self, Failure> {
        let wrong = |what: String| Failure::usage(what);
        let Some((target, port)) = there.rsplit_once(':').filter(|(to, _)| !to.is_empty()) else {
            return Err(wrong(format!(
                "`{}` is no DOMAIN:PORT",
                there.escape_default()
            )));
        };
        let port: TcpPort = port.parse().map_err(|error| wrong(format!("{error}")))?;
        let listen = match listen {
            Some("0") => 0,
            Some(given) => given
                .parse::<TcpPort>()
                .map_err(|error| wrong(format!("--listen: {error}")))?
                .get(),
            // This program has no right to listen on the lower ones.
            None if port.get() < FIRST_FREE => 0,
            None => port.get(),
        };
        Ok(Wanted {
            target: target.to_owned(),
            port,
            listen,
        })
    }
}

/// Listens until this process is ended.
pub fn listen(wanted: &Wanted) -> Result<u8, Failure> {
    let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, wanted.listen);
    let failed = |error: io::Error| Failure::new(1, cannot_listen(address.port(), &error));
    let listener = TcpListener::bind(address).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    // Whoever started it may not listen.
    let _ = writeln!(
        io::stdout(),
        "{address} leads to port {} of {}",
        wanted.port,
        wanted.target
    );
    let _ = io::stdout().flush();
    let places = Places::new(MAX_CONNECTIONS);
    let told = Arc::new(Told::default());
    loop {
        let place = Places::take(&places, &told);
        let client = match listener.accept() {
            Ok((client, _)) => client,
            Err(error) => {
                // Out of descriptors, or a client that has gone: neither ends the others.
                told.tell(&format!("a connection could not be taken: {error}"));
                thread::sleep(Duration::from_millis(100));
                continue;
            }
        };
        let (wanted, tell) = (wanted.clone(), told.clone());
        let spawned = thread::Builder::new().spawn(move || {
            if let Err(failure) = connect(&wanted, client) {
                tell.tell(&why_not(&wanted, &failure));
            }
            drop(place);
        });
        if let Err(error) = spawned {
            told.tell(&format!("a connection could not be taken: {error}"));
        }
    }
}

fn cannot_listen(port: u16, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!("port {port} is in use in this domain; choose another one by --listen")
        }
        io::ErrorKind::PermissionDenied => format!(
            "port {port} is not for users, as all below {FIRST_FREE}; choose another one by --listen"
        ),
        _ => format!("port {port}: {error}"),
    }
}

/// What a failed call means here.
fn why_not(wanted: &Wanted, failure: &Failure) -> String {
    let Wanted { target, port, .. } = wanted;
    match failure.status {
        NOTHING_LISTENS => format!("nothing listens on port {port} of {target}"),
        REFUSED if failure.message.ends_with("refused") => format!(
            "port {port} of {target}: refused by the host's policy or user, or there is no such domain"
        ),
        status if failure.message.is_empty() => {
            format!("port {port} of {target}: the connection broke there (status {status})")
        }
        _ => format!("port {port} of {target}: {failure}"),
    }
}

/// One connection, from here to the other domain's port, to its end.
fn connect(wanted: &Wanted, client: TcpStream) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::new(1, error.to_string());
    tcp::reset_when_closed(&client).map_err(failed)?;
    client.set_nodelay(true).map_err(failed)?;
    let line = Line::open()?;
    let (from_client, input) = io::pipe().map_err(failed)?;
    let (output, to_client) = io::pipe().map_err(failed)?;
    let sending = {
        let (client, line) = (client.try_clone().map_err(failed)?, line.handle()?);
        thread::Builder::new()
            .spawn(move || {
                // The end of the pipe is what the service gets as the end of its input; a client that
                // broke off must not look like one that has said everything.
                if let Err(error) = carry(&client, &input)
                    && error.kind() != io::ErrorKind::BrokenPipe
                {
                    line.shutdown();
                }
            })
            .map_err(failed)?
    };
    let (verdict, ended) = channel();
    let receiving = {
        let client = client.try_clone().map_err(failed)?;
        let (line, pumps) = (line.handle()?, line.pumps());
        let output = File::from(OwnedFd::from(output));
        thread::Builder::new()
            .spawn(move || {
                let mut counted = Counted(&client, 0);
                if carry(output, &mut counted).is_err() {
                    line.shutdown();
                } else if pumps.output_is_whole() && !has_failed(&ended, counted.1 > 0) {
                    let _ = client.shutdown(Shutdown::Write);
                }
            })
            .map_err(failed)?
    };
    let request = CallRequest {
        target: wanted.target.clone(),
        service: format!("{CONNECT_SERVICE}+{}", wanted.port),
        drop: None,
    };
    let stdio = Stdio {
        stdin: from_client.into(),
        stdout: to_client.into(),
        stderr: nowhere().map_err(failed)?,
    };
    let result = line.call(request, stdio);
    settle(&verdict, &result);
    // Nothing more is wanted of the client. This says nothing to it.
    let _ = client.shutdown(Shutdown::Read);
    let _ = sending.join();
    let _ = receiving.join();
    match result? {
        0 => tcp::close_in_order(&client).map_err(failed),
        status => Err(Failure::new(status, "")),
    }
}

fn settle(verdict: &Sender<bool>, result: &Result<u8, Failure>) {
    // Nobody may wait for it.
    let _ = verdict.send(!matches!(result, Ok(0)));
}

/// The output has ended, which it also does when the service fails; that is told right after it.
fn has_failed(ended: &Receiver<bool>, some_output: bool) -> bool {
    let (after_some, after_none) = VERDICT;
    let patience = if some_output { after_some } else { after_none };
    ended.recv_timeout(patience).unwrap_or(false)
}

/// Counts what goes through.
struct Counted<W>(W, u64);

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.0.write(bytes)?;
        self.1 += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// How many connections may still be taken.
struct Places {
    free: Mutex<usize>,
    changed: Condvar,
}

/// One of them; it is free again when this is dropped.
struct Place(Arc<Places>);

impl Places {
    fn new(all: usize) -> Arc<Self> {
        Arc::new(Places {
            free: Mutex::new(all),
            changed: Condvar::new(),
        })
    }

    /// Waits for one.
    fn take(places: &Arc<Self>, told: &Told) -> Place {
        let mut free = places.free.lock().unwrap_or_else(PoisonError::into_inner);
        if *free == 0 {
            told.tell("as many connections as are possible are open; further ones wait");
        }
        while *free == 0 {
            free = places
                .changed
                .wait(free)
                .unwrap_or_else(PoisonError::into_inner);
        }
        *free -= 1;
        Place(places.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.changed.notify_one();
    }
}

/// What was told on the error stream, so that a client which tries again and again fills no screen.
#[derive(Default)]
struct Told {
    last: Mutex<Option<Instant>>,
    left_out: AtomicU64,
}

impl Told {
    fn tell(&self, line: &str) {
        let now = Instant::now();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_some_and(|last| now.saturating_duration_since(last) < TELL) {
            self.left_out.fetch_add(1, Ordering::Relaxed);
            return;
        }
        *last = Some(now);
        let more = match self.left_out.swap(0, Ordering::Relaxed) {
            0 => String::new(),
            more => format!(" ({more} more before it)"),
        };
        let _ = writeln!(io::stderr(), "bulkhead-connect: {line}{more}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_to_and_where_here() {
        let wanted = |there, listen| Wanted::new(there, listen).unwrap();
        let web = wanted("personal:8080", None);
        assert_eq!((web.target.as_str(), web.listen), ("personal", 8080));
        assert_eq!(wanted("personal:8080", Some("0")).listen, 0);
        assert_eq!(wanted("personal:8080", Some("9000")).listen, 9000);
        // Below 1024 a user cannot listen.
        assert_eq!(wanted("personal:22", None).listen, 0);
        assert_eq!(wanted("@dispvm:web:80", None).target, "@dispvm:web");
        for (there, listen) in [
            ("personal", None),
            (":80", None),
            ("personal:", None),
            ("personal:0", None),
            ("personal:080", None),
            ("personal:http", None),
            ("personal:80", Some("x")),
            ("personal:80", Some("65536")),
            ("personal:80", Some("-1")),
        ] {
            let failure = Wanted::new(there, listen).unwrap_err();
            assert_eq!(failure.status, 2, "{there} {listen:?}");
        }
    }

    #[test]
    fn a_port_in_use_says_what_to_do() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let wanted = Wanted {
            target: "personal".into(),
            port: "80".parse().unwrap(),
            listen: taken.local_addr().unwrap().port(),
        };
        let failure = listen(&wanted).unwrap_err();
        assert_eq!(failure.status, 1);
        assert!(
            failure.message.contains("is in use") && failure.message.contains("--listen"),
            "{failure}"
        );
    }

    #[test]
    fn what_failed_is_told_in_words() {
        let wanted = Wanted::new("personal:8080", None).unwrap();
        let told = |status, message: &str| why_not(&wanted, &Failure::new(status, message));
        assert_eq!(
            told(NOTHING_LISTENS, ""),
            "nothing listens on port 8080 of personal"
        );
        assert!(told(REFUSED, "refused").contains("policy"));
        assert!(told(125, "the other domain is not there").contains("is not there"));
        assert!(told(1, "").contains("broke"));
    }

    #[test]
    fn places_are_given_back() {
        let places = Places::new(1);
        let told = Told::default();
        let first = Places::take(&places, &told);
        let waiting = {
            let places = places.clone();
            thread::spawn(move || drop(Places::take(&places, &Told::default())))
        };
        thread::sleep(Duration::from_millis(20));
        assert!(!waiting.is_finished());
        drop(first);
        waiting.join().unwrap();
    }
}
