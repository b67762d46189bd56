//! Carries the frames of a call between the calling guest and the service in the target.
//!
//! Neither guest is believed: every frame is decoded, only those that its side may send go on, and
//! what goes on is encoded anew. One frame at a time is held for each direction; a side that does not
//! read stops the other one, and nothing else.

use std::io;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use bulkhead_protocol::pump::Outbox;
use bulkhead_protocol::{ExitReason, Message, ReadError, Stream, read_message};

/// How a call went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carried {
    /// Bytes from the caller to the service.
    pub sent_bytes: u64,
    /// Bytes from the service to the caller.
    pub received_bytes: u64,
    /// How the service ended; `None` where one side broke off.
    pub exit: Option<ExitReason>,
}

/// Relays until the service has ended or a side breaks off. Blocks: call it on a thread of its own.
pub fn relay(caller: UnixStream, service: UnixStream) -> io::Result<Carried> {
    let sent = AtomicU64::new(0);
    let received = AtomicU64::new(0);
    let to_service = Outbox::new(service.try_clone()?);
    let to_caller = Outbox::new(caller.try_clone()?);
    let (mut from_caller, mut from_service) = (caller.try_clone()?, service.try_clone()?);
    let exit = thread::scope(|scope| {
        scope.spawn(|| {
            pass(&mut from_caller, &to_service, &sent, caller_may);
            // The caller is gone: its agent's side of the connection ends the service.
            let _ = service.shutdown(Shutdown::Both);
        });
        let exit = pass(&mut from_service, &to_caller, &received, service_may);
        let _ = caller.shutdown(Shutdown::Both);
        let _ = service.shutdown(Shutdown::Both);
        exit
    });
    Ok(Carried {
        sent_bytes: sent.into_inner(),
        received_bytes: received.into_inner(),
        exit,
    })
}

fn pass(
    from: &mut UnixStream,
    to: &Outbox,
    count: &AtomicU64,
    may: fn(&Message) -> bool,
) -> Option<ExitReason> {
    loop {
        let message = match read_message(from) {
            Ok(message) if may(&message) => message,
            Ok(message) => {
                tracing::warn!("a guest sent `{}` within a call; it is cut off", message.name());
                return None;
            }
            Err(ReadError::Frame(error)) => {
                tracing::warn!("a guest broke the protocol within a call: {error}");
                return None;
            }
            Err(_) => return None,
        };
        if let Message::Data { bytes, .. } = &message {
            count.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        }
        let exit = match message {
            Message::Exit(reason) => Some(reason),
            _ => None,
        };
        if to.send(&message).is_err() {
            return None;
        }
        if exit.is_some() {
            return exit;
        }
    }
}

/// What a caller may say once it has called.
fn caller_may(message: &Message) -> bool {
    matches!(
        message,
        Message::Data {
            stream: Stream::Stdin,
            ..
        } | Message::Eof { .. }
            | Message::Credit {
                stream: Stream::Stdout | Stream::Stderr,
                ..
            }
    )
}

/// What the agent says about a command.
fn service_may(message: &Message) -> bool {
    matches!(
        message,
        Message::Started { .. }
            | Message::Refused { .. }
            | Message::Data {
                stream: Stream::Stdout | Stream::Stderr,
                ..
            }
            | Message::Eof { .. }
            | Message::Credit {
                stream: Stream::Stdin,
                ..
            }
            | Message::Exit(_)
    )
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn send(stream: &mut UnixStream, message: &Message) {
        stream.write_all(&message.encode().unwrap()).unwrap();
    }

    fn data(stream: Stream, text: &str) -> Message {
        Message::Data {
            stream,
            bytes: text.into(),
        }
    }

    #[test]
    fn a_call_is_carried_to_its_end_and_counted() {
        let (mut caller, ours) = UnixStream::pair().unwrap();
        let (theirs, mut service) = UnixStream::pair().unwrap();
        let thread = thread::spawn(move || relay(ours, theirs).unwrap());
        send(&mut caller, &data(Stream::Stdin, "hello"));
        assert_eq!(read_message(&mut service).unwrap(), data(Stream::Stdin, "hello"));
        send(&mut service, &Message::Started { pid: 7 });
        send(&mut service, &data(Stream::Stdout, "hi"));
        send(&mut service, &Message::Exit(ExitReason::Code(3)));
        assert_eq!(read_message(&mut caller).unwrap(), Message::Started { pid: 7 });
        assert_eq!(read_message(&mut caller).unwrap(), data(Stream::Stdout, "hi"));
        let last = read_message(&mut caller).unwrap();
        assert_eq!(last, Message::Exit(ExitReason::Code(3)));
        assert!(matches!(read_message(&mut caller), Err(ReadError::Closed)));
        let carried = thread.join().unwrap();
        assert_eq!((carried.sent_bytes, carried.received_bytes), (5, 2));
        assert_eq!(carried.exit, Some(ExitReason::Code(3)));
    }

    #[test]
    fn what_a_side_may_not_say_ends_the_call() {
        for bad in [
            Message::Exec(Default::default()),
            Message::Signal { number: 9 },
            data(Stream::Stdout, "x"),
            Message::Exit(ExitReason::Code(0)),
        ] {
            let (mut caller, ours) = UnixStream::pair().unwrap();
            let (theirs, mut service) = UnixStream::pair().unwrap();
            let thread = thread::spawn(move || relay(ours, theirs).unwrap());
            send(&mut caller, &bad);
            assert!(matches!(read_message(&mut service), Err(ReadError::Closed)));
            drop(service);
            assert_eq!(thread.join().unwrap().exit, None);
        }
    }

    #[test]
    fn a_caller_that_goes_ends_the_service() {
        let (caller, ours) = UnixStream::pair().unwrap();
        let (theirs, mut service) = UnixStream::pair().unwrap();
        let thread = thread::spawn(move || relay(ours, theirs).unwrap());
        drop(caller);
        assert!(matches!(read_message(&mut service), Err(ReadError::Closed)));
        assert_eq!(thread.join().unwrap().exit, None);
    }
}
