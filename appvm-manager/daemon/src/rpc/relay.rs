//! Carries the frames of a call between the calling guest and the service in the target.
//!
//! Neither guest is believed: every frame is decoded, only those that its side may send go on, and
//! what goes on is encoded anew. One frame at a time is held for each direction; a side that does not
//! read stops the other one, and nothing else.

use std::io::{self, Cursor, Read};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use bulkhead_protocol::pump::Outbox;
use bulkhead_protocol::{ExitReason, Message, ReadError, Stream, read_message};

use bulkhead_transfer::landed;

use super::caller::Parts;

/// How long a caller may take to close when its service has ended.
const LINGER: Duration = Duration::from_millis(if cfg!(test) { 50 } else { 30_000 });

/// How a call went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carried {
    /// Bytes from the caller to the service.
    pub sent_bytes: u64,
    /// Bytes from the service to the caller.
    pub received_bytes: u64,
    /// How the service ended; `None` where one side broke off.
    pub exit: Option<ExitReason>,
    /// What the user is to be told besides.
    pub notice: Option<String>,
    /// Of a drop: where the target says that it put the files.
    pub untrusted_landed: Vec<u8>,
}

/// Relays until the service has ended or a side breaks off. Blocks: call it on a thread of its own.
/// Of a drop, the service's error stream is for the manager: it is kept, and never goes on.
pub(super) fn relay(caller: Parts, service: UnixStream, dropped: bool) -> io::Result<Carried> {
    let mut untrusted_landed = Vec::new();
    let sent = AtomicU64::new(0);
    let received = AtomicU64::new(0);
    let Parts {
        stream: caller,
        held,
        started,
    } = caller;
    let to_service = Outbox::new(service.try_clone()?);
    let to_caller = Outbox::new(caller.try_clone()?);
    let mut from_caller = Cursor::new(held).chain(caller.try_clone()?);
    let mut from_service = service.try_clone()?;
    let sent_ref = &sent;
    let exit = thread::scope(|scope| {
        let (left, caller_left) = mpsc::channel();
        let (service, caller) = (&service, &caller);
        scope.spawn(move || {
            pass(&mut from_caller, &to_service, sent_ref, |message| {
                caller_may(&message)
                    .then_some(message)
                    .ok_or("what no caller may")
            });
            // The caller is gone: its agent's side of the connection ends the service.
            let _ = service.shutdown(Shutdown::Both);
            // A service that ends before the caller does: see below.
            let _ = io::copy(&mut from_caller, &mut io::sink());
            let _ = left.send(());
        });
        let mut begun = false;
        let exit = pass(&mut from_service, &to_caller, &received, |message| {
            let first = !std::mem::replace(&mut begun, true);
            match message {
                Message::Data {
                    stream: Stream::Stderr,
                    bytes,
                } if dropped && !first => {
                    // A byte too many shows that there is too much.
                    let room = (landed::MAX_BYTES + 1).saturating_sub(untrusted_landed.len());
                    untrusted_landed.extend(bytes.into_iter().take(room));
                    Err(SWALLOW)
                }
                message => service_says(message, first, started),
            }
        });
        let _ = service.shutdown(Shutdown::Both);
        if exit.is_some() {
            // Closed while the caller still sends, its kernel would throw away what it has not read.
            let _ = caller.shutdown(Shutdown::Write);
            let _ = caller_left.recv_timeout(LINGER);
        }
        let _ = caller.shutdown(Shutdown::Both);
        exit
    });
    Ok(Carried {
        sent_bytes: sent.into_inner(),
        received_bytes: received.into_inner(),
        exit,
        notice: None,
        untrusted_landed,
    })
}

/// `turn` says what goes on of a message, or why nothing may.
fn pass(
    from: &mut impl Read,
    to: &Outbox,
    count: &AtomicU64,
    mut turn: impl FnMut(Message) -> Result<Message, &'static str>,
) -> Option<ExitReason> {
    loop {
        let message = match read_message(from) {
            Ok(message) => {
                let name = message.name();
                match turn(message) {
                    Ok(message) => message,
                    Err(SWALLOW) => continue,
                    Err(reason) => {
                        tracing::warn!("a guest sent `{name}` within a call, {reason}; cut off");
                        return None;
                    }
                }
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
        let end = match message {
            Message::Exit(reason) => Some(reason),
            Message::Refused { status, .. } => Some(ExitReason::Code(status)),
            _ => None,
        };
        if to.send(&message).is_err() {
            return None;
        }
        if end.is_some() {
            return end;
        }
    }
}

/// Not an error: the caller knows it already.
const SWALLOW: &str = "";

/// What goes on of the agent's words about a command. `told`: the caller believes already that its
/// service runs.
fn service_says(message: Message, first: bool, told: bool) -> Result<Message, &'static str> {
    match message {
        Message::Started { .. } | Message::Refused { .. } if !first => {
            Err("which comes first only")
        }
        Message::Started { .. } if told => Err(SWALLOW),
        // The number of a process and the words of an agent are nothing that callers need.
        Message::Started { .. } => Ok(Message::Started { pid: 0 }),
        Message::Refused { status, .. } if told => Ok(Message::Exit(ExitReason::Code(status))),
        Message::Refused { status, .. } => Ok(Message::Refused {
            status,
            message: "the service cannot be started there".to_owned(),
        }),
        _ if first => Err("before it has started anything"),
        message if service_may(&message) => Ok(message),
        _ => Err("which no service may"),
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
        Message::Data {
            stream: Stream::Stdout | Stream::Stderr,
            ..
        } | Message::Eof { .. }
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

    fn parts(stream: UnixStream) -> Parts {
        Parts {
            stream,
            held: Vec::new(),
            started: false,
        }
    }

    #[test]
    fn what_was_held_goes_first_and_the_caller_is_not_told_twice() {
        let (mut caller, ours) = UnixStream::pair().unwrap();
        let (theirs, mut service) = UnixStream::pair().unwrap();
        let parts = Parts {
            stream: ours,
            held: data(Stream::Stdin, "held").encode().unwrap(),
            started: true,
        };
        let thread = thread::spawn(move || relay(parts, theirs, false).unwrap());
        send(&mut caller, &data(Stream::Stdin, "later"));
        for text in ["held", "later"] {
            assert_eq!(
                read_message(&mut service).unwrap(),
                data(Stream::Stdin, text)
            );
        }
        send(&mut service, &Message::Started { pid: 7 });
        send(&mut service, &Message::Exit(ExitReason::Code(0)));
        let first = read_message(&mut caller).unwrap();
        assert_eq!(first, Message::Exit(ExitReason::Code(0)));
        assert_eq!(thread.join().unwrap().sent_bytes, 9);
    }

    #[test]
    fn a_service_that_cannot_start_ends_a_call_that_has_begun() {
        for told in [false, true] {
            let (mut caller, ours) = UnixStream::pair().unwrap();
            let (theirs, mut service) = UnixStream::pair().unwrap();
            let parts = Parts {
                started: told,
                ..parts(ours)
            };
            let thread = thread::spawn(move || relay(parts, theirs, false).unwrap());
            let message = "words of the other domain".to_owned();
            send(
                &mut service,
                &Message::Refused {
                    status: 127,
                    message,
                },
            );
            let answer = read_message(&mut caller).unwrap();
            if told {
                assert_eq!(answer, Message::Exit(ExitReason::Code(127)));
            } else {
                assert!(
                    matches!(answer, Message::Refused { status: 127, message } if !message.contains("words"))
                );
            }
            assert_eq!(thread.join().unwrap().exit, Some(ExitReason::Code(127)));
        }
    }

    #[test]
    fn a_call_is_carried_to_its_end_and_counted() {
        let (mut caller, ours) = UnixStream::pair().unwrap();
        let (theirs, mut service) = UnixStream::pair().unwrap();
        let thread = thread::spawn(move || relay(parts(ours), theirs, false).unwrap());
        send(&mut caller, &data(Stream::Stdin, "hello"));
        assert_eq!(
            read_message(&mut service).unwrap(),
            data(Stream::Stdin, "hello")
        );
        send(&mut service, &Message::Started { pid: 7 });
        send(&mut service, &data(Stream::Stdout, "hi"));
        send(&mut service, &Message::Exit(ExitReason::Code(3)));
        assert_eq!(
            read_message(&mut caller).unwrap(),
            Message::Started { pid: 0 }
        );
        assert_eq!(
            read_message(&mut caller).unwrap(),
            data(Stream::Stdout, "hi")
        );
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
            let thread = thread::spawn(move || relay(parts(ours), theirs, false).unwrap());
            send(&mut caller, &bad);
            assert!(matches!(read_message(&mut service), Err(ReadError::Closed)));
            drop(service);
            assert_eq!(thread.join().unwrap().exit, None);
        }
    }

    #[test]
    fn where_a_drop_landed_is_for_the_manager_alone() {
        let (mut caller, ours) = UnixStream::pair().unwrap();
        let (theirs, mut service) = UnixStream::pair().unwrap();
        let thread = thread::spawn(move || relay(parts(ours), theirs, true).unwrap());
        send(&mut service, &Message::Started { pid: 7 });
        send(&mut service, &data(Stream::Stderr, "/home/user/"));
        send(&mut service, &data(Stream::Stdout, "answer"));
        send(&mut service, &data(Stream::Stderr, "secret\0"));
        send(&mut service, &Message::Exit(ExitReason::Code(0)));
        for expected in [
            Message::Started { pid: 0 },
            data(Stream::Stdout, "answer"),
            Message::Exit(ExitReason::Code(0)),
        ] {
            assert_eq!(read_message(&mut caller).unwrap(), expected);
        }
        drop(caller);
        let landed = thread.join().unwrap().untrusted_landed;
        assert_eq!(landed, b"/home/user/secret\0");
    }

    #[test]
    fn a_target_that_says_too_much_of_where_it_landed_fills_nothing() {
        let (mut caller, ours) = UnixStream::pair().unwrap();
        let (theirs, mut service) = UnixStream::pair().unwrap();
        let thread = thread::spawn(move || relay(parts(ours), theirs, true).unwrap());
        send(&mut service, &Message::Started { pid: 7 });
        for _ in 0..10 {
            send(&mut service, &data(Stream::Stderr, &"x".repeat(20_000)));
        }
        send(&mut service, &Message::Exit(ExitReason::Code(0)));
        assert_eq!(
            read_message(&mut caller).unwrap(),
            Message::Started { pid: 0 }
        );
        drop(caller);
        let landed = thread.join().unwrap().untrusted_landed;
        assert_eq!(landed.len(), bulkhead_transfer::landed::MAX_BYTES + 1);
    }

    #[test]
    fn a_caller_that_goes_ends_the_service() {
        let (caller, ours) = UnixStream::pair().unwrap();
        let (theirs, mut service) = UnixStream::pair().unwrap();
        let thread = thread::spawn(move || relay(parts(ours), theirs, false).unwrap());
        drop(caller);
        assert!(matches!(read_message(&mut service), Err(ReadError::Closed)));
        assert_eq!(thread.join().unwrap().exit, None);
    }
}
