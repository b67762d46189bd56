//! What is measured: one connection that carries bytes one way, or a small message to and fro.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
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
    let mut header = [0; 9];
    stream.read_exact(&mut header)?;
    let [kind, count @ ..] = header;
    let count = u64::from_le_bytes(count);
    match Kind::of_byte(kind)? {
        Kind::Up => {
            swallow(&mut stream, count)?;
            stream.write_all(b"!")
        }
        Kind::Down => pour(&mut stream, count),
        Kind::Ping => {
            let mut message = [0; MESSAGE];
            for _ in 0..count {
                stream.read_exact(&mut message)?;
                stream.write_all(&message)?;
            }
            Ok(())
        }
    }
}

/// Does something `count` times (bytes or messages) and returns how long it took: all of it, or for
/// messages each.
pub fn ask(address: Ipv4Addr, kind: Kind, count: u64) -> io::Result<Vec<Duration>> {
    let address = SocketAddrV4::new(address, PORT);
    let mut stream = TcpStream::connect_timeout(&address.into(), PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut header = [0; 9];
    header[0] = kind.byte();
    header[1..].copy_from_slice(&count.to_le_bytes());
    let begun = Instant::now();
    stream.write_all(&header)?;
    match kind {
        Kind::Up => {
            pour(&mut stream, count)?;
            stream.read_exact(&mut [0])?;
        }
        Kind::Down => swallow(&mut stream, count)?,
        Kind::Ping => {
            let mut message = [7; MESSAGE];
            let mut times = Vec::new();
            for _ in 0..count {
                let sent = Instant::now();
                stream.write_all(&message)?;
                stream.read_exact(&mut message)?;
                times.push(sent.elapsed());
            }
            return Ok(times);
        }
    }
    Ok(vec![begun.elapsed()])
}

fn pour(stream: &mut TcpStream, count: u64) -> io::Result<()> {
    let block = vec![0x5a; BLOCK];
    let mut left = count;
    while left > 0 {
        let length = left.min(BLOCK as u64) as usize;
        stream.write_all(&block[..length])?;
        left -= length as u64;
    }
    Ok(())
}

fn swallow(stream: &mut TcpStream, count: u64) -> io::Result<()> {
    let mut block = vec![0; BLOCK];
    let mut left = count;
    while left > 0 {
        let most = left.min(BLOCK as u64) as usize;
        match stream.read(&mut block[..most])? {
            0 => return Err(fail(format!("{left} bytes did not come"))),
            length => left -= length as u64,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_messages_arrive() {
        let here = Ipv4Addr::LOCALHOST;
        serve(here).unwrap();
        for kind in [Kind::Up, Kind::Down] {
            assert_eq!(Kind::named(kind.name()).unwrap(), kind);
            assert_eq!(ask(here, kind, 3_000_001).unwrap().len(), 1);
        }
        assert_eq!(ask(here, Kind::Ping, 20).unwrap().len(), 20);
        assert!(Kind::named("").is_err());
    }
}
