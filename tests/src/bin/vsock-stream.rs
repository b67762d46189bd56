//! `vsock-stream`: bytes from one guest to another by nothing but vsock and one copying loop on the host:
//! what a copy between domains is compared with.
//!
//! In the guests `vsock-stream send PORT FILE` and `vsock-stream receive PORT FILE` wait for the host; on
//! the host `vsock-stream relay SOCKET SOCKET PORT` connects the first one's VMM to the second one's.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bulkhead_protocol::connection::Listener;

const BLOCK: usize = 256 * 1024;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["send", port, file] => number(port).and_then(|port| send(port, file)),
        ["receive", port, file] => number(port).and_then(|port| receive(port, file)),
        ["relay", from, to, port] => number(port).and_then(|port| relay(from, to, port)),
        _ => Err(io::Error::other(
            "send|receive PORT FILE, or relay SOCKET SOCKET PORT",
        )),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vsock-stream: {error}");
            ExitCode::FAILURE
        }
    }
}

fn number(text: &str) -> io::Result<u32> {
    text.parse()
        .map_err(|_| io::Error::other("a port is a number"))
}

fn send(port: u32, file: &str) -> io::Result<()> {
    let mut file = File::open(file)?;
    let mut connection = Listener::vsock(port)?.accept()?;
    copy(&mut file, &mut connection)?;
    // The receiver's word.
    connection.shutdown_write()?;
    connection.read_exact(&mut [0])
}

fn receive(port: u32, file: &str) -> io::Result<()> {
    let mut file = File::create(file)?;
    let mut connection = Listener::vsock(port)?.accept()?;
    copy(&mut connection, &mut file)?;
    file.sync_all()?;
    connection.write_all(b"!")
}

/// Prints the milliseconds from the first byte to the receiver's word.
fn relay(from: &str, to: &str, port: u32) -> io::Result<()> {
    let (mut from, mut to) = (wait_for(from, port)?, wait_for(to, port)?);
    let begun = Instant::now();
    copy(&mut from, &mut to)?;
    to.shutdown(std::net::Shutdown::Write)?;
    let mut word = [0];
    to.read_exact(&mut word)?;
    println!("{}", begun.elapsed().as_millis());
    from.write_all(&word)
}

/// Both guests need a moment until they listen.
fn wait_for(socket: &str, port: u32) -> io::Result<UnixStream> {
    for _ in 0..100 {
        if let Ok(stream) = connect(socket, port) {
            return Ok(stream);
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    connect(socket, port)
}

fn connect(socket: &str, port: u32) -> io::Result<UnixStream> {
    let mut stream = UnixStream::connect(socket)?;
    writeln!(stream, "CONNECT {port}")?;
    let mut byte = [0];
    let mut line = Vec::new();
    while byte != *b"\n" {
        stream.read_exact(&mut byte)?;
        line.extend(byte);
    }
    if line.starts_with(b"OK ") {
        Ok(stream)
    } else {
        Err(io::Error::other("the guest does not listen"))
    }
}

fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut block = vec![0; BLOCK];
    loop {
        let count = from.read(&mut block)?;
        match block.get(..count) {
            Some(bytes) if count > 0 => to.write_all(bytes)?,
            _ => return Ok(()),
        }
    }
}
