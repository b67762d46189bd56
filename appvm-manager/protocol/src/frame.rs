//! Messages as bytes: `u32` little-endian length of what follows, one byte of kind, the payload.
//!
//! Structured messages carry JSON, streams carry their bytes. A frame is at most [`MAX_FRAME`]
//! bytes, its length field included; a longer one is an error before anything is allocated.

use std::io::{self, Read};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::message::{ExitReason, Message, Power, Stream, WindowSize};
use crate::{MAX_DATA, WINDOW_BYTES};

/// The longest frame, header included. A guest that announces more is cut off.
pub const MAX_FRAME: usize = 64 * 1024;
/// Length and kind.
pub const HEADER: usize = 5;
/// The longest payload.
pub const MAX_PAYLOAD: usize = MAX_FRAME - HEADER;
/// The longest argument list; more is refused, as the frame would be too long anyway.
const MAX_ITEMS: usize = 4096;

/// Bytes that are no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Longer than any frame may be, or without a kind.
    #[error("a frame of {0} bytes, where 1 to {max} are allowed", max = MAX_FRAME - 4)]
    Length(u32),
    /// An unknown kind of frame.
    #[error("a frame of unknown kind {0:#04x}")]
    Kind(u8),
    /// The payload does not fit its kind.
    #[error("a {kind} frame that cannot be read: {reason}")]
    Payload {
        /// The kind's name.
        kind: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// Too long to be sent.
    #[error("a {kind} message is too long ({bytes} bytes; at most {MAX_PAYLOAD})")]
    TooLong {
        /// The kind's name.
        kind: &'static str,
        /// Its payload.
        bytes: usize,
    },
}

/// Why no message could be read from a stream.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The peer closed between two frames.
    #[error("the connection was closed")]
    Closed,
    /// The stream failed or ended inside a frame.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    /// The peer broke the protocol.
    #[error("the peer broke the protocol: {0}")]
    Frame(#[from] FrameError),
}

const HELLO: u8 = 0x01;
const WELCOME: u8 = 0x02;
const READY: u8 = 0x03;
const PROXY_STATUS: u8 = 0x04;
const POWER: u8 = 0x05;
const EXEC: u8 = 0x10;
const STARTED: u8 = 0x11;
const REFUSED: u8 = 0x12;
const DATA: u8 = 0x13;
const EOF: u8 = 0x14;
const CREDIT: u8 = 0x15;
const SIGNAL: u8 = 0x16;
const RESIZE: u8 = 0x17;
const EXIT: u8 = 0x18;
const CALL: u8 = 0x20;

impl Stream {
    fn code(self) -> u8 {
        match self {
            Stream::Stdin => 0,
            Stream::Stdout => 1,
            Stream::Stderr => 2,
        }
    }

    fn from_code(kind: &'static str, code: u8) -> Result<Self, FrameError> {
        match code {
            0 => Ok(Stream::Stdin),
            1 => Ok(Stream::Stdout),
            2 => Ok(Stream::Stderr),
            other => Err(bad(kind, format!("no stream {other}"))),
        }
    }
}

fn bad(kind: &'static str, reason: impl Into<String>) -> FrameError {
    FrameError::Payload {
        kind,
        reason: reason.into(),
    }
}

fn json<T: Serialize>(kind: &'static str, value: &T) -> Result<Vec<u8>, FrameError> {
    serde_json::to_vec(value).map_err(|error| bad(kind, error.to_string()))
}

fn from_json<T: DeserializeOwned>(kind: &'static str, payload: &[u8]) -> Result<T, FrameError> {
    serde_json::from_slice(payload).map_err(|error| bad(kind, error.to_string()))
}

fn exactly<const N: usize>(kind: &'static str, payload: &[u8]) -> Result<[u8; N], FrameError> {
    payload.try_into().map_err(|_| {
        bad(
            kind,
            format!("{} bytes where {N} are expected", payload.len()),
        )
    })
}

impl Message {
    /// The frame of this message.
    pub fn encode(&self) -> Result<Vec<u8>, FrameError> {
        let name = self.name();
        let (kind, payload) = match self {
            Message::Hello(hello) => (HELLO, json(name, hello)?),
            Message::Welcome { version } => (WELCOME, version.to_le_bytes().to_vec()),
            Message::Ready(ready) => (READY, json(name, ready)?),
            Message::ProxyStatus(status) => (PROXY_STATUS, json(name, status)?),
            Message::Power(Power::Off) => (POWER, vec![0]),
            Message::Power(Power::Reboot) => (POWER, vec![1]),
            Message::Exec(request) => (EXEC, json(name, request)?),
            Message::Call(request) => (CALL, json(name, request)?),
            Message::Started { pid } => (STARTED, pid.to_le_bytes().to_vec()),
            Message::Refused { status, message } => {
                let mut payload = vec![*status];
                payload.extend_from_slice(message.as_bytes());
                (REFUSED, payload)
            }
            Message::Data { stream, bytes } => {
                if bytes.len() > MAX_DATA {
                    return Err(FrameError::TooLong {
                        kind: name,
                        bytes: bytes.len(),
                    });
                }
                let mut payload = Vec::with_capacity(bytes.len() + 1);
                payload.push(stream.code());
                payload.extend_from_slice(bytes);
                (DATA, payload)
            }
            Message::Eof { stream } => (EOF, vec![stream.code()]),
            Message::Credit { stream, bytes } => {
                let mut payload = vec![stream.code()];
                payload.extend_from_slice(&bytes.to_le_bytes());
                (CREDIT, payload)
            }
            Message::Signal { number } => (SIGNAL, vec![*number]),
            Message::Resize(size) => {
                let mut payload = size.columns.to_le_bytes().to_vec();
                payload.extend_from_slice(&size.rows.to_le_bytes());
                (RESIZE, payload)
            }
            Message::Exit(ExitReason::Code(code)) => (EXIT, vec![0, *code]),
            Message::Exit(ExitReason::Signal(signal)) => (EXIT, vec![1, *signal]),
        };
        if payload.len() > MAX_PAYLOAD {
            return Err(FrameError::TooLong {
                kind: name,
                bytes: payload.len(),
            });
        }
        let length = u32::try_from(payload.len() + 1).map_err(|_| FrameError::TooLong {
            kind: name,
            bytes: payload.len(),
        })?;
        let mut frame = Vec::with_capacity(payload.len() + HEADER);
        frame.extend_from_slice(&length.to_le_bytes());
        frame.push(kind);
        frame.extend_from_slice(&payload);
        Ok(frame)
    }

    /// The message of one frame's kind and payload.
    pub fn decode(untrusted_kind: u8, untrusted_payload: &[u8]) -> Result<Message, FrameError> {
        let payload = untrusted_payload;
        match untrusted_kind {
            HELLO => Ok(Message::Hello(from_json("hello", payload)?)),
            WELCOME => Ok(Message::Welcome {
                version: u32::from_le_bytes(exactly("welcome", payload)?),
            }),
            READY => {
                let ready: crate::Ready = from_json("ready", payload)?;
                if ready.stages.len() > 256 {
                    return Err(bad("ready", "too many stages"));
                }
                Ok(Message::Ready(ready))
            }
            PROXY_STATUS => Ok(Message::ProxyStatus(from_json("proxy-status", payload)?)),
            POWER => match exactly::<1>("power", payload)? {
                [0] => Ok(Message::Power(Power::Off)),
                [1] => Ok(Message::Power(Power::Reboot)),
                [other] => Err(bad("power", format!("no request {other}"))),
            },
            EXEC => {
                let request: crate::ExecRequest = from_json("exec", payload)?;
                if request.argv.len() > MAX_ITEMS || request.env.len() > MAX_ITEMS {
                    return Err(bad("exec", "too many arguments"));
                }
                Ok(Message::Exec(request))
            }
            CALL => Ok(Message::Call(from_json("call", payload)?)),
            STARTED => Ok(Message::Started {
                pid: u32::from_le_bytes(exactly("started", payload)?),
            }),
            REFUSED => {
                let (status, text) = payload
                    .split_first()
                    .ok_or_else(|| bad("refused", "no status"))?;
                let message = String::from_utf8_lossy(text).into_owned();
                Ok(Message::Refused {
                    status: *status,
                    message,
                })
            }
            DATA => {
                let (stream, bytes) = payload
                    .split_first()
                    .ok_or_else(|| bad("data", "no stream"))?;
                if bytes.len() > MAX_DATA {
                    return Err(bad("data", format!("{} bytes at once", bytes.len())));
                }
                let stream = Stream::from_code("data", *stream)?;
                Ok(Message::Data {
                    stream,
                    bytes: bytes.to_vec(),
                })
            }
            EOF => {
                let [stream] = exactly("eof", payload)?;
                Ok(Message::Eof {
                    stream: Stream::from_code("eof", stream)?,
                })
            }
            CREDIT => {
                let [stream, a, b, c, d] = exactly("credit", payload)?;
                let bytes = u32::from_le_bytes([a, b, c, d]);
                if bytes == 0 || bytes > WINDOW_BYTES {
                    return Err(bad("credit", format!("{bytes} bytes")));
                }
                Ok(Message::Credit {
                    stream: Stream::from_code("credit", stream)?,
                    bytes,
                })
            }
            SIGNAL => match exactly::<1>("signal", payload)? {
                [number @ 1..=31] => Ok(Message::Signal { number }),
                [other] => Err(bad("signal", format!("no signal {other}"))),
            },
            RESIZE => {
                let [a, b, c, d] = exactly("resize", payload)?;
                Ok(Message::Resize(WindowSize {
                    columns: u16::from_le_bytes([a, b]),
                    rows: u16::from_le_bytes([c, d]),
                }))
            }
            EXIT => match exactly::<2>("exit", payload)? {
                [0, code] => Ok(Message::Exit(ExitReason::Code(code))),
                [1, signal @ 1..=127] => Ok(Message::Exit(ExitReason::Signal(signal))),
                _ => Err(bad("exit", "no such reason")),
            },
            other => Err(FrameError::Kind(other)),
        }
    }
}

/// The length field, checked: how many bytes of kind and payload follow.
fn checked_length(untrusted_length: u32) -> Result<usize, FrameError> {
    match usize::try_from(untrusted_length) {
        Ok(length) if (1..=MAX_FRAME - 4).contains(&length) => Ok(length),
        _ => Err(FrameError::Length(untrusted_length)),
    }
}

/// Takes bytes as they come and gives messages. It never holds more than what one call of
/// [`Decoder::extend`] added to an unfinished frame.
#[derive(Debug, Default)]
pub struct Decoder {
    pending: Vec<u8>,
    /// How much of `pending` has been given out; moved away in [`Decoder::extend`].
    taken: usize,
}

impl Decoder {
    /// Adds bytes from the peer. Call [`Decoder::next`] until it gives `None` before adding more.
    pub fn extend(&mut self, untrusted_bytes: &[u8]) {
        self.pending.drain(..self.taken);
        self.taken = 0;
        self.pending.extend_from_slice(untrusted_bytes);
    }

    /// The next whole message, if there is one.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Message>, FrameError> {
        let rest = self.pending.get(self.taken..).unwrap_or_default();
        let Some((length, rest)) = rest.split_first_chunk::<4>() else {
            return Ok(None);
        };
        let length = checked_length(u32::from_le_bytes(*length))?;
        let Some((kind, payload)) = rest.get(..length).and_then(<[u8]>::split_first) else {
            return Ok(None);
        };
        let message = Message::decode(*kind, payload)?;
        self.taken += 4 + length;
        Ok(Some(message))
    }

    /// Whether part of a frame waits for its rest.
    pub fn is_midway(&self) -> bool {
        self.taken < self.pending.len()
    }
}

/// Reads one message from a blocking stream.
pub fn read_message(stream: &mut impl Read) -> Result<Message, ReadError> {
    let mut length = [0; 4];
    let mut filled = 0;
    while filled < length.len() {
        match stream.read(&mut length[filled..]) {
            Ok(0) if filled == 0 => return Err(ReadError::Closed),
            Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    let mut body = vec![0; checked_length(u32::from_le_bytes(length))?];
    stream.read_exact(&mut body)?;
    let (kind, payload) = body.split_first().ok_or(FrameError::Length(0))?;
    Ok(Message::decode(*kind, payload)?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::message::{CallRequest, ExecRequest, Hello, ProxyStatus, Ready, User};

    fn streams() -> impl Strategy<Value = Stream> {
        prop_oneof![
            Just(Stream::Stdin),
            Just(Stream::Stdout),
            Just(Stream::Stderr)
        ]
    }

    fn messages() -> impl Strategy<Value = Message> {
        let text = "[ -~ä€\\n]{0,40}";
        prop_oneof![
            (any::<u32>(), text, any::<u64>()).prop_map(|(version, agent, boot_ms)| {
                Message::Hello(Hello {
                    version,
                    agent,
                    boot_ms,
                })
            }),
            any::<u32>().prop_map(|version| Message::Welcome { version }),
            (
                any::<u64>(),
                prop::collection::vec((text, any::<u64>()), 0..8)
            )
                .prop_map(|(boot_ms, stages)| Message::Ready(Ready { boot_ms, stages })),
            (any::<bool>(), any::<u32>()).prop_map(|(running, restarts)| {
                Message::ProxyStatus(ProxyStatus { running, restarts })
            }),
            prop_oneof![Just(Power::Off), Just(Power::Reboot)].prop_map(Message::Power),
            (
                prop::collection::vec(text, 0..6),
                prop::collection::vec((text, text), 0..6),
                prop::option::of(text),
                prop::option::of((any::<u16>(), any::<u16>())),
                any::<bool>()
            )
                .prop_map(|(argv, env, cwd, tty, root)| {
                    let tty = tty.map(|(columns, rows)| WindowSize { columns, rows });
                    let user = if root { User::Root } else { User::User };
                    Message::Exec(ExecRequest {
                        argv,
                        env,
                        cwd,
                        tty,
                        user,
                    })
                }),
            (text, text).prop_map(|(target, service)| Message::Call(CallRequest {
                drop: (target.len() % 2 == 0).then_some(target.len() as u64),
                target,
                service,
            })),
            any::<u32>().prop_map(|pid| Message::Started { pid }),
            (any::<u8>(), text).prop_map(|(status, message)| Message::Refused { status, message }),
            (streams(), prop::collection::vec(any::<u8>(), 0..MAX_DATA))
                .prop_map(|(stream, bytes)| Message::Data { stream, bytes }),
            streams().prop_map(|stream| Message::Eof { stream }),
            (streams(), 1..=WINDOW_BYTES)
                .prop_map(|(stream, bytes)| Message::Credit { stream, bytes }),
            (1..=31u8).prop_map(|number| Message::Signal { number }),
            (any::<u16>(), any::<u16>())
                .prop_map(|(columns, rows)| Message::Resize(WindowSize { columns, rows })),
            any::<u8>().prop_map(|code| Message::Exit(ExitReason::Code(code))),
            (1..=127u8).prop_map(|signal| Message::Exit(ExitReason::Signal(signal))),
        ]
    }

    proptest! {
        #[test]
        fn messages_survive_any_cutting(
            sent in prop::collection::vec(messages(), 0..6),
            cut in 1usize..5000,
        ) {
            let mut bytes = Vec::new();
            for message in &sent {
                bytes.extend(message.encode().unwrap());
            }
            let mut decoder = Decoder::default();
            let mut received = Vec::new();
            for piece in bytes.chunks(cut) {
                decoder.extend(piece);
                while let Some(message) = decoder.next().unwrap() {
                    received.push(message);
                }
            }
            prop_assert!(!decoder.is_midway());
            prop_assert_eq!(&received, &sent);
            let mut stream = bytes.as_slice();
            for message in &sent {
                prop_assert_eq!(&read_message(&mut stream).unwrap(), message);
            }
            prop_assert!(matches!(read_message(&mut stream), Err(ReadError::Closed)));
        }

        #[test]
        fn garbage_never_panics_and_never_grows(
            bytes in prop::collection::vec(any::<u8>(), 0..2000),
        ) {
            let mut decoder = Decoder::default();
            for piece in bytes.chunks(100) {
                decoder.extend(piece);
                loop {
                    match decoder.next() {
                        Ok(Some(_)) => {}
                        Ok(None) => break,
                        Err(_) => return Ok(()),
                    }
                }
            }
            prop_assert!(decoder.pending.len() <= MAX_FRAME + 100);
        }

        #[test]
        fn any_kind_with_any_payload_is_an_answer(
            kind in any::<u8>(),
            payload in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let _ = Message::decode(kind, &payload);
        }
    }

    #[test]
    fn lengths_are_refused_before_anything_is_allocated() {
        for length in [0, (MAX_FRAME - 3) as u32, u32::MAX] {
            let mut decoder = Decoder::default();
            decoder.extend(&length.to_le_bytes());
            assert_eq!(decoder.next(), Err(FrameError::Length(length)));
            let mut stream = &length.to_le_bytes()[..];
            assert!(matches!(
                read_message(&mut stream),
                Err(ReadError::Frame(_))
            ));
        }
    }

    #[test]
    fn what_is_too_long_is_not_sent() {
        let request = ExecRequest {
            argv: vec!["x".repeat(MAX_FRAME)],
            ..Default::default()
        };
        assert!(matches!(
            Message::Exec(request).encode(),
            Err(FrameError::TooLong { .. })
        ));
        let data = Message::Data {
            stream: Stream::Stdin,
            bytes: vec![0; MAX_DATA + 1],
        };
        assert!(matches!(data.encode(), Err(FrameError::TooLong { .. })));
    }
}
