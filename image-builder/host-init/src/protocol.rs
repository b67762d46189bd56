//! What the test program outside and PID 1 inside say to each other: frames of a stream number, a
//! kind and a payload, over one byte stream. A stream is one command from its start to its exit.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
};

use serde::{Deserialize, Serialize};

/// The name of the virtio console port.
pub const PORT_NAME: &str = "org.bulkhead.host";

/// The largest payload of a frame.
pub const MAX_PAYLOAD: usize = 1 << 20;

/// The largest piece of a command's output or input in one frame.
pub const CHUNK: usize = 32 << 10;

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Outside → inside: start a command ([`ExecRequest`] as JSON).
    Exec,
    /// Outside → inside: bytes for the command's standard input.
    Stdin,
    /// Outside → inside: end of the standard input.
    StdinEnd,
    /// Outside → inside: a signal for the command and its children (`u32`).
    Signal,
    /// Outside → inside: end the machine.
    PowerOff,
    /// Inside → outside: the machine takes commands.
    Ready,
    /// Inside → outside: the command runs (its process number, `u32`).
    Started,
    /// Inside → outside: bytes from the command's standard output.
    Stdout,
    /// Inside → outside: bytes from the command's standard error.
    Stderr,
    /// Inside → outside: the command ended ([`Exit`] as JSON); the stream's last frame.
    Exit,
    /// Inside → outside: the command could not be started (text); the stream's last frame.
    Failed,
}

const KINDS: [(Kind, u8); 11] = [
    (Kind::Exec, 1),
    (Kind::Stdin, 2),
    (Kind::StdinEnd, 3),
    (Kind::Signal, 4),
    (Kind::PowerOff, 5),
    (Kind::Ready, 16),
    (Kind::Started, 17),
    (Kind::Stdout, 18),
    (Kind::Stderr, 19),
    (Kind::Exit, 20),
    (Kind::Failed, 21),
];

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Which command it belongs to; chosen by the outside.
    pub stream: u32,
    /// What it carries.
    pub kind: Kind,
    /// The bytes.
    pub payload: Vec<u8>,
}

/// Why a frame could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ProtocolError {
    /// The byte stream.
    #[error("the connection between test and test host: {0}")]
    Io(#[from] std::io::Error),
    /// The two ends do not speak the same language.
    #[error("the test host's protocol is out of step: {0}")]
    Malformed(String),
}

impl Frame {
    /// A frame.
    #[must_use]
    pub fn new(stream: u32, kind: Kind, payload: impl Into<Vec<u8>>) -> Self {
        Self {
            stream,
            kind,
            payload: payload.into(),
        }
    }

    /// Reads one frame.
    pub fn read(source: &mut impl Read) -> Result<Self, ProtocolError> {
        let mut header = [0_u8; 9];
        source.read_exact(&mut header)?;
        let [s0, s1, s2, s3, kind, l0, l1, l2, l3] = header;
        let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        if length > MAX_PAYLOAD {
            return Err(ProtocolError::Malformed(format!(
                "a frame of {length} bytes"
            )));
        }
        let kind = KINDS
            .iter()
            .find(|(_, number)| *number == kind)
            .map(|(kind, _)| *kind)
            .ok_or_else(|| ProtocolError::Malformed(format!("a frame of kind {kind}")))?;
        let mut payload = vec![0; length];
        source.read_exact(&mut payload)?;
        Ok(Self {
            stream: u32::from_le_bytes([s0, s1, s2, s3]),
            kind,
            payload,
        })
    }

    /// Writes the frame, in one piece.
    pub fn write(&self, sink: &mut impl Write) -> std::io::Result<()> {
        let number = KINDS
            .iter()
            .find(|(kind, _)| *kind == self.kind)
            .map_or(0, |(_, n)| *n);
        let length = u32::try_from(self.payload.len())
            .map_err(|_| std::io::Error::from(std::io::ErrorKind::InvalidInput))?;
        let mut bytes = Vec::with_capacity(9 + self.payload.len());
        bytes.extend_from_slice(&self.stream.to_le_bytes());
        bytes.push(number);
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&self.payload);
        sink.write_all(&bytes)?;
        sink.flush()
    }

    /// The payload as a number.
    #[must_use]
    pub fn number(&self) -> Option<u32> {
        Some(u32::from_le_bytes(self.payload.as_slice().try_into().ok()?))
    }
}

/// Who runs a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum User {
    /// The desktop user.
    #[default]
    User,
    /// The administrator.
    Root,
}

/// A command to run.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecRequest {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// Variables beside those of the session.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// The working folder; the user's home if not given.
    #[serde(default)]
    pub cwd: Option<String>,
    /// Who runs it.
    #[serde(default)]
    pub user: User,
    /// Run inside this template's root instead of the host's: the same programs that guests have,
    /// directly on the host's compositor.
    #[serde(default)]
    pub template: Option<String>,
    /// Start the desktop session first, if it is not running: the words of its command line after
    /// `bulkhead session`.
    #[serde(default)]
    pub session: Option<Vec<String>>,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Exit {
    /// With this status.
    Status(i32),
    /// By this signal.
    Signal(i32),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_the_way() {
        let mut bytes = Vec::new();
        let frames: Vec<Frame> = KINDS
            .iter()
            .map(|(kind, n)| Frame::new(7, *kind, vec![*n; usize::from(*n)]))
            .collect();
        for frame in &frames {
            frame.write(&mut bytes).unwrap();
        }
        let mut source = bytes.as_slice();
        for frame in &frames {
            assert_eq!(&Frame::read(&mut source).unwrap(), frame);
        }
        assert!(Frame::read(&mut source).is_err());
    }

    #[test]
    fn odd_frames_are_errors() {
        let read = |bytes: &[u8]| Frame::read(&mut &*bytes);
        assert!(read(&[0, 0, 0, 0, 99, 0, 0, 0, 0]).is_err());
        assert!(read(&[0, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff]).is_err());
        assert!(read(&[0, 0, 0, 0, 1, 4, 0, 0, 0, 1]).is_err());
    }

    #[test]
    fn a_request_needs_only_its_command() {
        let request: ExecRequest = serde_json::from_str(r#"{"argv":["true"]}"#).unwrap();
        assert_eq!(request.user, User::User);
        assert!(serde_json::from_str::<ExecRequest>(r#"{"argv":[],"x":1}"#).is_err());
    }
}
