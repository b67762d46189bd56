//! What is measured: one connection that carries bytes one way, or a small message to and fro.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddrV4, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use super::fail;

/// Where servers listen.
pub const PORT: u16 = 7001;
const BLOCK: usize = 128 * 1024;
/// A small message, as a key press in a remote shell is.
const MESSAGE: usize = 64;
/// A way that carries nothing for so long carries nothing.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a connection is for; its first byte says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Bytes to the server.
    Up,
    /// Bytes from the server.
    Down,
    /// Messages to and fro, one at a time.
    Ping,
}

impl Kind {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Up => "up",
            Kind::Down => "down",
            Kind::Ping => "ping",
        }
    }

    fn of_byte(byte: u8) -> io::Result<Kind> {
        match byte {
            b'u' => Ok(Kind::Up),
            b'd' => Ok(Kind::Down),
            b'p' => Ok(Kind::Ping),
            _ => Err(fail("an unknown kind of connection")),
        }
    }

    fn byte(self) -> u8 {
        match self {
            Kind::Up => b'u',
            Kind::Down => b'd',
            Kind::Ping => b'p',
        }
    }

    /// By its name.
    pub fn named(name: &str) -> io::Result<Kind> {
        Kind::of_byte(*name.as_bytes().first().unwrap_or(&0))
    }
}

/// Answers connections for ever, one at a time, from a thread of its own.
pub fn serve(address: Ipv4Addr) -> io::Result<()> {
    let listener = TcpListener::bind(SocketAddrV4::new(address, PORT))?;
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            // Whoever goes early finds out by itself.
            if let Err(error) = stream.and_then(answer) {
                eprintln!("net-bench: {error}");
            }
        }
    });
    Ok(())
}

fn answer(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut kind = [0];
    stream.read_exact(&mut kind)?;
    match Kind::of_byte(kind[0])? {
        Kind::Up => {
            let bytes = swallow(&mut stream, None)?;
            stream.write_all(&bytes.to_le_bytes())
        }
        Kind::Down => pour(&mut stream, None).map(drop),
        Kind::Ping => {
            let mut message = [0; MESSAGE];
            while stream.read_exact(&mut message).is_ok() {
                stream.write_all(&message)?;
            }
            Ok(())
        }
    }
}

/// What was done in a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    /// Bytes that arrived, or messages that came back.
    pub count: u64,
    /// How long that took; for messages one of them, the median.
    pub took: Duration,
}

/// Does one thing for so long.
pub fn ask(address: Ipv4Addr, kind: Kind, time: Duration) -> io::Result<Done> {
    let address = SocketAddrV4::new(address, PORT);
    let mut stream = TcpStream::connect_timeout(&address.into(), PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&[kind.byte()])?;
    let begun = Instant::now();
    let end = begun + time;
    let count = match kind {
        Kind::Up => {
            pour(&mut stream, Some(end))?;
            stream.shutdown(Shutdown::Write)?;
            let mut count = [0; 8];
            stream.read_exact(&mut count)?;
            u64::from_le_bytes(count)
        }
        Kind::Down => swallow(&mut stream, Some(end))?,
        Kind::Ping => return ping(&mut stream, end),
    };
    let took = begun.elapsed();
    Ok(Done { count, took })
}

fn ping(stream: &mut TcpStream, end: Instant) -> io::Result<Done> {
    let mut message = [7; MESSAGE];
    let mut times = Vec::new();
    while Instant::now() < end {
        let sent = Instant::now();
        stream.write_all(&message)?;
        stream.read_exact(&mut message)?;
        times.push(sent.elapsed());
    }
    times.sort_unstable();
    let took = times.get(times.len() / 2).copied().unwrap_or_default();
    let count = times.len() as u64;
    Ok(Done { count, took })
}

/// Sends until then, or until nobody takes any more.
fn pour(stream: &mut TcpStream, end: Option<Instant>) -> io::Result<()> {
    let block = vec![0x5a; BLOCK];
    while end.is_none_or(|end| Instant::now() < end) {
        match stream.write_all(&block) {
            Ok(()) => {}
            Err(_) if end.is_none() => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Takes what comes until then, or until its end, and counts it.
fn swallow(stream: &mut TcpStream, end: Option<Instant>) -> io::Result<u64> {
    let mut block = vec![0; BLOCK];
    let mut count = 0;
    while end.is_none_or(|end| Instant::now() < end) {
        match stream.read(&mut block)? {
            0 if end.is_none() => break,
            0 => return Err(fail("the server has gone")),
            length => count += length as u64,
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_messages_arrive() {
        let here = Ipv4Addr::LOCALHOST;
        serve(here).unwrap();
        let time = Duration::from_millis(50);
        for kind in [Kind::Up, Kind::Down, Kind::Ping] {
            assert_eq!(Kind::named(kind.name()).unwrap(), kind);
            let done = ask(here, kind, time).unwrap();
            assert!(done.count > 1, "{kind:?}: {done:?}");
            // All of the time, or that of one message.
            assert_eq!(done.took >= time, kind != Kind::Ping, "{kind:?}: {done:?}");
        }
        assert!(Kind::named("").is_err());
    }
}
