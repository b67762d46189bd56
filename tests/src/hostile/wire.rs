//! A Wayland client that keeps no rules: raw messages over a Unix socket.
//!
//! Only the wire format itself is implemented (Wayland protocol, chapter 4.2 "Wire Format"), so that
//! anything, valid or not, can be said.

use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

/// The display's object number (fixed by the protocol).
pub const DISPLAY: u32 = 1;

/// A connection that says what it is told to say.
pub struct Wire {
    stream: UnixStream,
    next_id: u32,
    received: Vec<u8>,
}

/// One message's arguments, built by hand.
#[derive(Default, Clone)]
pub struct Message(Vec<u8>);

impl Message {
    /// No arguments yet.
    pub fn new() -> Message {
        Message::default()
    }

    /// Adds an integer, object or new id.
    pub fn uint(mut self, value: u32) -> Message {
        self.0.extend_from_slice(&value.to_ne_bytes());
        self
    }

    /// Adds a signed integer.
    pub fn int(self, value: i32) -> Message {
        self.uint(value.cast_unsigned())
    }

    /// Adds a string with its length, terminator and padding.
    pub fn text(self, text: &str) -> Message {
        let mut bytes = text.as_bytes().to_vec();
        bytes.push(0);
        let mut message = self.uint(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        while !bytes.len().is_multiple_of(4) {
            bytes.push(0);
        }
        message.0.extend_from_slice(&bytes);
        message
    }
}

/// An event as it came: object, opcode and argument bytes.
#[derive(Debug)]
pub struct Event {
    /// The object it is about.
    pub object: u32,
    /// Its opcode.
    pub opcode: u16,
    /// Its arguments.
    pub body: Vec<u8>,
}

impl Event {
    /// The n-th 32-bit word of the arguments, or 0.
    pub fn word(&self, n: usize) -> u32 {
        self.body
            .get(n * 4..n * 4 + 4)
            .and_then(|bytes| bytes.try_into().ok())
            .map_or(0, u32::from_ne_bytes)
    }

    /// A string argument that begins at the n-th word.
    pub fn text(&self, n: usize) -> String {
        let length = self.word(n) as usize;
        let bytes = self.body.get(n * 4 + 4..).unwrap_or_default();
        let end = length.saturating_sub(1).min(bytes.len());
        String::from_utf8_lossy(&bytes[..end]).into_owned()
    }
}

impl Wire {
    /// Connects to `$XDG_RUNTIME_DIR/$WAYLAND_DISPLAY`.
    pub fn connect() -> io::Result<Wire> {
        let folder = std::env::var("XDG_RUNTIME_DIR").unwrap_or_else(|_| "/run/user/1000".into());
        let name = std::env::var("WAYLAND_DISPLAY").unwrap_or_else(|_| "wayland-0".into());
        Ok(Wire::over(UnixStream::connect(format!("{folder}/{name}"))?))
    }

    /// Speaks over an open connection.
    pub fn over(stream: UnixStream) -> Wire {
        Wire {
            stream,
            next_id: 2,
            received: Vec::new(),
        }
    }

    /// The next unused object number.
    pub fn new_id(&mut self) -> u32 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    /// Sends a well-formed message.
    pub fn send(&mut self, object: u32, opcode: u16, message: Message) -> io::Result<()> {
        self.send_with(object, opcode, message, &[])
    }

    /// Sends a well-formed message with descriptors.
    pub fn send_with(
        &mut self,
        object: u32,
        opcode: u16,
        message: Message,
        fds: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        let size = u32::try_from(message.0.len() + 8).map_err(io::Error::other)?;
        let mut bytes = object.to_ne_bytes().to_vec();
        bytes.extend_from_slice(&((size << 16) | u32::from(opcode)).to_ne_bytes());
        bytes.extend_from_slice(&message.0);
        self.send_raw(&bytes, fds)
    }

    /// Sends any bytes with any descriptors.
    pub fn send_raw(&mut self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(28))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(io::Error::other("too many descriptors for one message"));
        }
        let mut sent = 0;
        while sent < bytes.len() {
            let mut none = SendAncillaryBuffer::default();
            let rights = if sent == 0 { &mut control } else { &mut none };
            sent += sendmsg(
                &self.stream,
                &[io::IoSlice::new(&bytes[sent..])],
                rights,
                SendFlags::NOSIGNAL,
            )?;
        }
        Ok(())
    }

    /// Reads events until `enough` says so, the peer hangs up (an error) or the time is over.
    pub fn read_until(
        &mut self,
        timeout: Duration,
        mut enough: impl FnMut(&Event) -> bool,
    ) -> io::Result<Vec<Event>> {
        let end = Instant::now() + timeout;
        let mut events = Vec::new();
        loop {
            while let Some(event) = self.take_event() {
                let done = enough(&event);
                events.push(event);
                if done {
                    return Ok(events);
                }
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(events);
            }
            self.stream.set_read_timeout(Some(left))?;
            let mut piece = [0u8; 4096];
            match self.stream.read(&mut piece) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => self.received.extend_from_slice(&piece[..length]),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(events),
                Err(e) => return Err(e),
            }
        }
    }

    fn take_event(&mut self) -> Option<Event> {
        let header: [u8; 8] = self.received.get(..8)?.try_into().ok()?;
        let object = u32::from_ne_bytes(header[..4].try_into().ok()?);
        let word = u32::from_ne_bytes(header[4..].try_into().ok()?);
        let size = (word >> 16) as usize;
        let body = self.received.get(8..size.max(8))?.to_vec();
        self.received.drain(..size.max(8));
        Some(Event {
            object,
            opcode: (word & 0xffff) as u16,
            body,
        })
    }

    /// Waits for a round trip; an error when the peer has hung up.
    pub fn round_trip(&mut self) -> io::Result<Vec<Event>> {
        let callback = self.new_id();
        self.send(DISPLAY, 0, Message::new().uint(callback))?;
        self.read_until(Duration::from_secs(20), |event| event.object == callback)
    }

    /// Lists the globals and binds one of an interface at version 1; 0 when it is not offered.
    pub fn bind(&mut self, interface: &str) -> io::Result<u32> {
        let registry = self.new_id();
        self.send(DISPLAY, 1, Message::new().uint(registry))?;
        let events = self.round_trip()?;
        let Some(global) = events
            .iter()
            .find(|e| e.object == registry && e.opcode == 0 && e.text(1) == interface)
        else {
            return Ok(0);
        };
        let object = self.new_id();
        let name = global.word(0);
        self.send(
            registry,
            0,
            Message::new()
                .uint(name)
                .text(interface)
                .uint(1)
                .uint(object),
        )?;
        Ok(object)
    }
}
