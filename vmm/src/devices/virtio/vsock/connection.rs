//! One connection: a stream on the host, credit on both sides, and what is still to be said.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::Shutdown;

use super::packet::{
    MAX_DATA_BYTES, Operation, Ports, Received, SHUTDOWN_RECEIVE, SHUTDOWN_SEND, Sent,
};

/// How much data of the guest waits for a host program that does not read.
pub const BUFFER_BYTES: u32 = 256 << 10;
/// Tell the guest of new room when it amounts to this.
const UPDATE_BYTES: u32 = BUFFER_BYTES / 4;
/// So much is read from the host's stream at a time.
const READ_BYTES: usize = 64 << 10;
/// The longest `CONNECT <port>\n`.
const MAX_GREETING_BYTES: usize = 32;

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// A program of the host connected and has not said to which port.
    Greeting,
    /// The guest was asked.
    Requested,
    /// Data flows.
    Open,
    /// The guest is done; what it sent is still being written.
    Draining,
}

/// What became of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes on.
    Keep,
    /// It is over, and the guest knows or never knew.
    Forget,
    /// It is over, and the guest is to be told.
    Reset,
}

/// A connection.
#[derive(Debug)]
pub struct Connection {
    stream: OwnedFd,
    /// Where it is in its life.
    pub stage: Stage,
    /// Its name; meaningless while greeting.
    pub ports: Ports,
    greeting: Vec<u8>,

    // From the guest to the host.
    to_host: VecDeque<u8>,
    forwarded: u32,
    forwarded_told: u32,
    guest_sends: bool,
    guest_receives: bool,
    host_reads: bool,

    // From the host to the guest.
    to_guest: Vec<u8>,
    to_guest_from: usize,
    sent: u32,
    guest_buffer: u32,
    guest_forwarded: u32,
    readable: bool,
    host_sends: bool,
    credit_asked: bool,

    // What the guest does not know yet.
    request_due: bool,
    response_due: bool,
    update_due: bool,
    shutdown_told: u32,
    /// Whether the connection is in the list of those with something for the guest.
    pub queued: bool,
}

impl Connection {
    fn new(stream: OwnedFd, stage: Stage, ports: Ports) -> Self {
        Self {
            stream,
            stage,
            ports,
            greeting: Vec::new(),
            to_host: VecDeque::new(),
            forwarded: 0,
            forwarded_told: 0,
            guest_sends: true,
            guest_receives: true,
            host_reads: true,
            to_guest: Vec::new(),
            to_guest_from: 0,
            sent: 0,
            guest_buffer: 0,
            guest_forwarded: 0,
            readable: true,
            host_sends: true,
            credit_asked: false,
            request_due: false,
            response_due: false,
            update_due: false,
            shutdown_told: 0,
            queued: false,
        }
    }

    /// A program of the host has connected.
    pub fn from_host(stream: OwnedFd) -> Self {
        let nowhere = Ports { guest: 0, host: 0 };
        Self::new(stream, Stage::Greeting, nowhere)
    }

    /// The guest asked for a connection, and `stream` leads to who takes it.
    pub fn from_guest(stream: OwnedFd, request: &Received) -> Self {
        let mut connection = Self::new(stream, Stage::Open, request.ports);
        connection.response_due = true;
        connection.take_credit(request);
        connection
    }

    /// Reads the greeting. Returns the guest's port once it is complete.
    pub fn greet(&mut self) -> Result<Option<u32>, Fate> {
        // Byte by byte: what follows the greeting is the guest's.
        let mut byte = [0];
        loop {
            match rustix::io::read(&self.stream, &mut byte) {
                Ok(0) => return Err(Fate::Forget),
                Ok(_) if byte == *b"\n" => break,
                Ok(_) if self.greeting.len() >= MAX_GREETING_BYTES => return Err(Fate::Forget),
                Ok(_) => self.greeting.extend(byte),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(None),
                Err(_) => return Err(Fate::Forget),
            }
        }
        let port = std::str::from_utf8(&self.greeting)
            .ok()
            .and_then(|line| line.strip_prefix("CONNECT "))
            .and_then(|port| port.trim_end().parse().ok());
        port.map(Some).ok_or(Fate::Forget)
    }

    /// The guest is to be asked.
    pub fn request(&mut self, ports: Ports) {
        self.ports = ports;
        self.stage = Stage::Requested;
        self.request_due = true;
    }

    /// The host's stream had an event.
    pub fn stream_event(&mut self, readable: bool, writable: bool, hung_up: bool) -> Fate {
        self.readable |= readable;
        if hung_up {
            self.host_reads = false;
            if self.stage == Stage::Requested {
                return Fate::Reset;
            }
        }
        if writable { self.flush() } else { Fate::Keep }
    }

    /// A packet of the guest's, with its data.
    pub fn packet(&mut self, packet: &Received, operation: Operation, data: &[u8]) -> Fate {
        self.take_credit(packet);
        match (self.stage, operation) {
            (Stage::Requested, Operation::Response) => {
                self.stage = Stage::Open;
                let answer = format!("OK {}\n", self.ports.host);
                // The first bytes on this stream: they always fit.
                self.write(answer.as_bytes());
                self.after_writing()
            }
            (Stage::Requested, Operation::Reset) => Fate::Forget,
            // After its end, the guest can only reset; anything else is a stray.
            (Stage::Draining, _) => Fate::Keep,
            (Stage::Open, Operation::Reset) => {
                self.stage = Stage::Draining;
                self.finish_draining()
            }
            (Stage::Open, Operation::Shutdown) => self.guest_shutdown(packet.flags),
            (Stage::Open, Operation::Data) => self.take_data(data),
            (Stage::Open, Operation::CreditUpdate) => Fate::Keep,
            (Stage::Open, Operation::CreditRequest) => {
                self.update_due = true;
                Fate::Keep
            }
            _ => Fate::Reset,
        }
    }

    fn take_credit(&mut self, packet: &Received) {
        self.guest_buffer = packet.buffer_bytes;
        self.guest_forwarded = packet.forwarded;
        self.credit_asked = false;
    }

    fn take_data(&mut self, data: &[u8]) -> Fate {
        if !self.guest_sends {
            return Fate::Reset;
        }
        // More than its credit: it did not want to wait, so we do not keep it.
        if self.to_host.len() + data.len() > BUFFER_BYTES as usize {
            return Fate::Reset;
        }
        self.deliver(data)
    }

    /// Writes data of the guest's to the host, or keeps what does not fit.
    fn deliver(&mut self, data: &[u8]) -> Fate {
        let mut written = 0;
        if self.to_host.is_empty() {
            written = self.write(data);
            self.forwarded = self.forwarded.wrapping_add(written as u32);
        }
        self.to_host.extend(data.get(written..).unwrap_or_default());
        self.after_writing()
    }

    fn flush(&mut self) -> Fate {
        while !self.to_host.is_empty() && self.host_reads {
            let waiting = std::mem::take(&mut self.to_host);
            let written = self.write(waiting.as_slices().0);
            self.to_host = waiting;
            if written == 0 {
                break;
            }
            self.to_host.drain(..written);
            self.forwarded = self.forwarded.wrapping_add(written as u32);
        }
        self.after_writing()
    }

    /// How many bytes the stream took.
    fn write(&mut self, data: &[u8]) -> usize {
        let mut written = 0;
        while let Some(rest) = data.get(written..)
            && !rest.is_empty()
        {
            let flags = rustix::net::SendFlags::NOSIGNAL | rustix::net::SendFlags::DONTWAIT;
            match rustix::net::send(&self.stream, rest, flags) {
                Ok(count) => written += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => {
                    self.host_reads = false;
                    break;
                }
            }
        }
        written
    }

    fn after_writing(&mut self) -> Fate {
        if !self.host_reads {
            // Nobody takes it: as if it had been read, until the guest learns of the end.
            let lost = self.to_host.len() as u32;
            self.forwarded = self.forwarded.wrapping_add(lost);
            self.to_host.clear();
        }
        if self.to_host.is_empty() && self.to_host.capacity() > BUFFER_BYTES as usize / 4 {
            self.to_host = VecDeque::new();
        }
        if self.forwarded.wrapping_sub(self.forwarded_told) >= UPDATE_BYTES {
            self.update_due = true;
        }
        match self.stage {
            Stage::Draining => self.finish_draining(),
            Stage::Open => self.pass_on_shutdown(),
            _ => Fate::Keep,
        }
    }

    fn finish_draining(&mut self) -> Fate {
        if self.to_host.is_empty() {
            Fate::Forget
        } else {
            Fate::Keep
        }
    }

    fn guest_shutdown(&mut self, flags: u32) -> Fate {
        if flags & SHUTDOWN_SEND != 0 {
            self.guest_sends = false;
        }
        if flags & SHUTDOWN_RECEIVE != 0 && self.guest_receives {
            self.guest_receives = false;
            self.to_guest = Vec::new();
            self.to_guest_from = 0;
            // The host's program learns of it when it writes. It may be gone already.
            let _ = rustix::net::shutdown(&self.stream, Shutdown::Read);
        }
        self.pass_on_shutdown()
    }

    /// The guest's end reaches the host after the guest's last byte.
    fn pass_on_shutdown(&mut self) -> Fate {
        if self.guest_sends || !self.to_host.is_empty() {
            return Fate::Keep;
        }
        if !self.guest_receives {
            return Fate::Reset;
        }
        // It may be gone already.
        let _ = rustix::net::shutdown(&self.stream, Shutdown::Write);
        // The guest has nothing more to say, and the host's end was passed on: both are done.
        if self.shutdown_told & SHUTDOWN_SEND != 0 {
            return Fate::Reset;
        }
        Fate::Keep
    }

    /// How much more the guest takes.
    fn credit(&self) -> u32 {
        let under_way = self.sent.wrapping_sub(self.guest_forwarded);
        self.guest_buffer.saturating_sub(under_way)
    }

    fn staged(&self) -> &[u8] {
        self.to_guest.get(self.to_guest_from..).unwrap_or_default()
    }

    /// Reads from the host's stream if nothing read earlier waits. Never more than one batch: a
    /// guest that takes nothing stops the host's program.
    fn stage_data(&mut self) {
        if !self.staged().is_empty() || !self.readable || !self.host_sends || !self.guest_receives {
            return;
        }
        self.to_guest_from = 0;
        self.to_guest.resize(READ_BYTES, 0);
        let count = loop {
            match rustix::io::read(&self.stream, &mut self.to_guest) {
                Ok(count) => break Some(count),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break None,
                // A reset by the host's program is an end as well.
                Err(_) => break Some(0),
            }
        };
        match count {
            Some(0) => self.host_sends = false,
            Some(_) => {}
            None => self.readable = false,
        }
        self.to_guest.truncate(count.unwrap_or(0));
        if self.to_guest.is_empty() {
            self.to_guest = Vec::new();
        }
    }

    /// The next packet for the guest and its data, which is at most `room` bytes long.
    pub fn next_packet(&mut self, room: usize) -> Option<(Sent, &[u8])> {
        match self.stage {
            Stage::Greeting | Stage::Draining => return None,
            Stage::Requested => {
                let due = std::mem::take(&mut self.request_due);
                return due.then(|| (self.sent(Operation::Request, 0, 0), &[][..]));
            }
            Stage::Open => {}
        }
        if std::mem::take(&mut self.response_due) {
            return Some((self.sent(Operation::Response, 0, 0), &[]));
        }
        let credit = self.credit() as usize;
        if credit > 0 {
            self.stage_data();
        }
        if !self.staged().is_empty() {
            let length = self.staged().len().min(credit).min(room);
            let length = length.min(MAX_DATA_BYTES as usize);
            if length > 0 {
                let start = self.to_guest_from;
                self.to_guest_from += length;
                self.sent = self.sent.wrapping_add(length as u32);
                let packet = self.sent(Operation::Data, length as u32, 0);
                let data = self.to_guest.get(start..start + length);
                return Some((packet, data.unwrap_or_default()));
            }
            if !std::mem::replace(&mut self.credit_asked, true) {
                return Some((self.sent(Operation::CreditRequest, 0, 0), &[]));
            }
        } else if self.end_to_tell() != self.shutdown_told {
            self.shutdown_told = self.end_to_tell();
            return Some((self.sent(Operation::Shutdown, 0, self.shutdown_told), &[]));
        } else if credit == 0
            && self.readable
            && self.host_sends
            && self.guest_receives
            && !std::mem::replace(&mut self.credit_asked, true)
        {
            return Some((self.sent(Operation::CreditRequest, 0, 0), &[]));
        }
        if self.update_due {
            return Some((self.sent(Operation::CreditUpdate, 0, 0), &[]));
        }
        None
    }

    /// What the guest should know of the host's end: only after the last byte.
    fn end_to_tell(&self) -> u32 {
        match (self.host_sends, self.host_reads) {
            (true, _) => 0,
            (false, true) => SHUTDOWN_SEND,
            (false, false) => SHUTDOWN_SEND | SHUTDOWN_RECEIVE,
        }
    }

    fn sent(&mut self, operation: Operation, length: u32, flags: u32) -> Sent {
        self.forwarded_told = self.forwarded;
        self.update_due = false;
        Sent {
            ports: self.ports,
            operation,
            flags,
            length,
            buffer_bytes: BUFFER_BYTES,
            forwarded: self.forwarded,
        }
    }

    /// After the guest was told of the host's end: is there anything left to do?
    pub fn after_telling(&mut self) -> Fate {
        if self.stage == Stage::Open && self.shutdown_told & SHUTDOWN_SEND != 0 && !self.guest_sends
        {
            return self.pass_on_shutdown();
        }
        Fate::Keep
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
