//! Answers clients whose rules are about names (a service of the template).
//!
//! Their questions come here, not to the forwarder ([`crate::firewall`]). A name that may not be
//! asked for is refused, so that nothing leaves in questions. All others are passed on to the
//! forwarder; what it answers for a name in the client's rules is put into the firewall before the
//! client gets to know it.

pub mod book;
pub mod message;
pub mod policies;

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::dns;
use crate::firewall::NAMES_PORT;
use crate::gateway::Gateway;
use crate::rules::Action;
use crate::run::{self, Wanted};
use book::Book;
use policies::Policies;

/// The longest message over UDP, with what EDNS may ask for (RFC 6891).
const MAX_DATAGRAM: usize = 4096;
/// Who is slower gets nothing.
const PATIENCE: Duration = Duration::from_secs(5);
/// So many questions of all, and of one client, are looked at at a time; others are dropped, and
/// asked again.
const AT_A_TIME: (usize, usize) = (64, 16);
/// So many questions come over one connection.
const PER_CONNECTION: usize = 16;
const STACK: usize = 256 * 1024;

/// Everything that the threads share.
struct Names {
    known: Mutex<(Policies, Book)>,
    busy: Mutex<HashMap<Ipv4Addr, usize>>,
}

/// Answers, once there are clients whose rules are about names.
pub fn serve() -> io::Result<()> {
    let address = Wanted::wait_for("names", |wanted| wanted.chosen_names)?;
    let names = Arc::new(Names {
        known: Mutex::default(),
        busy: Mutex::default(),
    });
    let (udp, tcp) = (
        UdpSocket::bind((address, NAMES_PORT))?,
        TcpListener::bind((address, NAMES_PORT))?,
    );
    let streams = {
        let names = names.clone();
        thread::spawn(move || names.connections(&tcp))
    };
    names.datagrams(udp)?;
    // Only when there is no socket any more.
    streams.join().map_err(|_| io::Error::other("it ended"))
}

impl Names {
    fn datagrams(self: &Arc<Self>, socket: UdpSocket) -> io::Result<()> {
        let socket = Arc::new(socket);
        let mut buffer = [0; MAX_DATAGRAM];
        loop {
            let (length, from) = socket.recv_from(&mut buffer)?;
            let Some(untrusted_question) = buffer.get(..length).map(<[u8]>::to_vec) else {
                continue;
            };
            let socket = socket.clone();
            self.in_turn(from, move |names, client| {
                if let Some(answer) = names.answer(client, &untrusted_question, ask_by_datagram) {
                    // It may be gone.
                    let _ = socket.send_to(&answer, from);
                }
            });
        }
    }

    fn connections(self: &Arc<Self>, listener: &TcpListener) {
        for stream in listener.incoming() {
            let Ok(stream) = stream else {
                // No descriptors left, perhaps.
                thread::sleep(Duration::from_millis(100));
                continue;
            };
            let Ok(from) = stream.peer_addr() else {
                continue;
            };
            self.in_turn(from, move |names, client| {
                // A client that goes away or says nonsense.
                let _ = names.connection(client, stream);
            });
        }
    }

    fn connection(&self, client: Ipv4Addr, mut stream: TcpStream) -> io::Result<()> {
        for timeout in [TcpStream::set_read_timeout, TcpStream::set_write_timeout] {
            timeout(&stream, Some(PATIENCE))?;
        }
        for _ in 0..PER_CONNECTION {
            let untrusted_question = receive(&mut stream)?;
            let Some(answer) = self.answer(client, &untrusted_question, ask_by_stream) else {
                break;
            };
            send(&mut stream, &answer)?;
        }
        Ok(())
    }

    /// Does it beside everything else, if that is not too much.
    fn in_turn(
        self: &Arc<Self>,
        from: SocketAddr,
        work: impl FnOnce(&Names, Ipv4Addr) + Send + 'static,
    ) {
        let IpAddr::V4(client) = from.ip() else {
            return;
        };
        {
            let mut busy = lock(&self.busy);
            let all: usize = busy.values().sum();
            let own = busy.entry(client).or_default();
            if all >= AT_A_TIME.0 || *own >= AT_A_TIME.1 {
                return;
            }
            *own += 1;
        }
        let names = self.clone();
        let started = thread::Builder::new().stack_size(STACK).spawn(move || {
            work(&names, client);
            names.done(client);
        });
        if started.is_err() {
            self.done(client);
        }
    }

    fn done(&self, client: Ipv4Addr) {
        let mut busy = lock(&self.busy);
        if let Some(own) = busy.get_mut(&client) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                busy.remove(&client);
            }
        }
    }

    /// What a client's question is answered. `forward` asks the forwarder.
    fn answer(
        &self,
        client: Ipv4Addr,
        untrusted_question: &[u8],
        forward: impl FnOnce(&[u8]) -> io::Result<Vec<u8>>,
    ) -> Option<Vec<u8>> {
        let asked = message::question(untrusted_question)?;
        let sets: Vec<String> = {
            let mut known = lock(&self.known);
            let (policies, book) = &mut *known;
            if policies.refresh(&run::file(policies::FILE)) {
                book.forget();
            }
            let policy = policies.of(client)?;
            if policy.question(&asked.name, now()) == Action::Drop {
                return message::refusal(untrusted_question);
            }
            let names = policy.names().into_iter();
            names
                .filter(|name| name.fits(&asked.name))
                .map(|name| name.set())
                .collect()
        };
        let answer = forward(untrusted_question).ok()?;
        if sets.is_empty() {
            return Some(answer);
        }
        let addresses = message::addresses(&answer);
        let (_, book) = &mut *lock(&self.known);
        match book.add(&sets, &addresses, Instant::now(), book::write) {
            Ok(()) => Some(answer),
            Err(error) => {
                // It asks again; nothing passes meanwhile.
                eprintln!("bulkhead-net: the addresses of {}: {error}", asked.name);
                None
            }
        }
    }
}

fn ask_by_datagram(question: &[u8]) -> io::Result<Vec<u8>> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.connect(forwarder())?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send(question)?;
    let mut buffer = [0; MAX_DATAGRAM];
    let length = socket.recv(&mut buffer)?;
    let answer = buffer.get(..length).unwrap_or_default();
    check(answer, question).map(|()| answer.to_vec())
}

fn ask_by_stream(question: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&forwarder(), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    send(&mut stream, question)?;
    let answer = receive(&mut stream)?;
    check(&answer, question).map(|()| answer)
}

/// Where the forwarder is: it does not answer everybody at the address that clients ask.
fn forwarder() -> SocketAddr {
    let port = Gateway::of_template().map_or(dns::PORT, Gateway::names_port);
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

fn check(answer: &[u8], question: &[u8]) -> io::Result<()> {
    match message::answers(answer, question) {
        true => Ok(()),
        false => Err(io::Error::other("that is no answer to the question")),
    }
}

/// A message in a stream has its length before it (RFC 1035, 4.2.2).
fn receive(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut message)?;
    Ok(message)
}

fn send(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    let framed = [&length.to_be_bytes()[..], message].concat();
    stream.write_all(&framed)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// In seconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
