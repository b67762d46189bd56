//! `bulkhead.ConnectTcp`: what a domain answers with when another one calls for a TCP port of its
//! loopback, and how both sides end a connection.
//!
//! A TCP connection ends in one of two ways, and both must cross: in order, one direction after the other
//! (FIN), or broken (RST). So each side makes a socket that is reset when it is closed, however this
//! process ends, and takes that back only when both directions have come to their end.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddrV4, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use bulkhead_protocol::TcpPort;

use crate::Failure;

/// The status of a call for a port where nothing listens: the number of `ECONNREFUSED`.
pub const NOTHING_LISTENS: u8 = 111;
/// How long a program of this domain may take to be connected to.
const CONNECT: Duration = Duration::from_secs(10);
/// Read at once: what a pipe holds.
const BUFFER: usize = 64 * 1024;

/// Connects the standard streams to a port of this domain's loopback, until both directions have ended.
pub fn serve(untrusted_argument: &str) -> Result<u8, Failure> {
    let port: TcpPort = untrusted_argument
        .parse()
        .map_err(|error| Failure::new(2, format!("{error}")))?;
    let failed = |error: io::Error| Failure::new(1, format!("port {port}: {error}"));
    let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port.get());
    let socket = match TcpStream::connect_timeout(&address.into(), CONNECT) {
        Ok(socket) => socket,
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            return Err(Failure::new(
                NOTHING_LISTENS,
                format!("nothing listens at {address}"),
            ));
        }
        Err(error) => return Err(failed(error)),
    };
    let input = File::from(io::stdin().as_fd().try_clone_to_owned().map_err(failed)?);
    let output = File::from(io::stdout().as_fd().try_clone_to_owned().map_err(failed)?);
    // The only handle on the output is then the one that is dropped at its end.
    let null = File::options().write(true).open("/dev/null");
    rustix::stdio::dup2_stdout(null.map_err(failed)?).map_err(|error| failed(error.into()))?;
    // The other direction may wait for ever; the process's end ends the connection.
    let give_up = move |error| {
        eprintln!("port {port}: {error}");
        std::process::exit(1);
    };
    relay(&socket, input, output, give_up).map_err(failed)?;
    Ok(0)
}

/// Carries both directions to their ends; the end of one does not end the other. An error on the way to
/// the socket is given to `give_up`.
fn relay(
    socket: &TcpStream,
    input: impl Read + Send + 'static,
    output: impl Write,
    give_up: impl FnOnce(io::Error) + Send + 'static,
) -> io::Result<()> {
    reset_when_closed(socket)?;
    socket.set_nodelay(true)?;
    let writer = socket.try_clone()?;
    let sending = std::thread::Builder::new().spawn(move || {
        let sent = carry(input, &writer).and_then(|()| writer.shutdown(Shutdown::Write));
        if let Err(error) = sent {
            give_up(error);
        }
    })?;
    carry(socket, output)?;
    let _ = sending.join();
    close_in_order(socket)
}

/// From one to the other until the end; then the target is dropped. Never `splice`: it would keep the
/// pipe's other end from what is in it while it waits for more.
pub(crate) fn carry(mut from: impl Read, mut to: impl Write) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        to.write_all(buffer.get(..count).unwrap_or_default())?;
    }
}

/// Whoever is at the other end shall see that it broke, unless [`close_in_order`] says otherwise.
pub(crate) fn reset_when_closed(socket: &TcpStream) -> io::Result<()> {
    Ok(rustix::net::sockopt::set_socket_linger(
        socket,
        Some(Duration::ZERO),
    )?)
}

/// Both directions have ended; what is still under way arrives.
pub(crate) fn close_in_order(socket: &TcpStream) -> io::Result<()> {
    Ok(rustix::net::sockopt::set_socket_linger(socket, None)?)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (ours, listener.accept().unwrap().0)
    }

    #[test]
    fn an_end_of_one_direction_leaves_the_other() {
        let (ours, mut server) = pair();
        let (input, mut caller) = io::pipe().unwrap();
        let (mut answer, output) = io::pipe().unwrap();
        let thread = thread::spawn(move || relay(&ours, input, output, |_| ()));
        caller.write_all(b"question").unwrap();
        drop(caller);
        let mut heard = String::new();
        server.read_to_string(&mut heard).unwrap();
        assert_eq!(heard, "question");
        // Only after the end of the question.
        server.write_all(b"answer").unwrap();
        drop(server);
        let mut heard = String::new();
        answer.read_to_string(&mut heard).unwrap();
        assert_eq!(heard, "answer");
        thread.join().unwrap().unwrap();
    }

    #[test]
    fn the_server_may_end_first() {
        let (ours, mut server) = pair();
        let (input, mut caller) = io::pipe().unwrap();
        let (mut answer, output) = io::pipe().unwrap();
        let thread = thread::spawn(move || relay(&ours, input, output, |_| ()));
        server.write_all(b"hello").unwrap();
        server.shutdown(Shutdown::Write).unwrap();
        let mut heard = String::new();
        answer.read_to_string(&mut heard).unwrap();
        assert_eq!(heard, "hello");
        caller.write_all(b"later").unwrap();
        drop(caller);
        let mut heard = String::new();
        server.read_to_string(&mut heard).unwrap();
        assert_eq!(heard, "later");
        thread.join().unwrap().unwrap();
    }

    #[test]
    fn a_broken_connection_is_an_error_and_closing_early_breaks_it() {
        let (ours, mut server) = pair();
        let (input, _caller) = io::pipe().unwrap();
        let (_answer, output) = io::pipe().unwrap();
        let thread = thread::spawn(move || relay(&ours, input, output, |_| ()));
        server.write_all(b"half").unwrap();
        reset_when_closed(&server).unwrap();
        drop(server);
        let error = thread.join().unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);

        let (ours, mut server) = pair();
        reset_when_closed(&ours).unwrap();
        drop(ours);
        let error = server.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[test]
    fn what_is_no_port_is_refused_and_where_nothing_listens_is_told() {
        for bad in ["", "0", "080", "65536", "22+", "ssh", "+22"] {
            assert_eq!(serve(bad).unwrap_err().status, 2, "{bad}");
        }
        // A port that was free a moment ago.
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let failure = serve(&port.to_string()).unwrap_err();
        assert_eq!(failure.status, NOTHING_LISTENS);
        assert!(failure.message.contains("nothing listens"), "{failure}");
    }
}
