//! One application: its socket, its channel to the host, and the relay between them.
//!
//! Bytes from the application become requests ([`requests`]), are checked against the tables, and
//! leave for the host with the host's ids; bytes from the host become events ([`events`]) and
//! leave with the application's. Pictures take their own way ([`pictures`]), and so do the pipes
//! of copy and paste ([`selection`]).

mod events;
mod objects;
mod pictures;
mod requests;
mod selection;

use std::collections::{HashMap, VecDeque};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use wayland_server::Resource;
use wayland_server::protocol::__interfaces::WL_DISPLAY_INTERFACE;
use wayland_server::protocol::wl_callback::WlCallback;
use wayland_server::protocol::wl_registry::WlRegistry;

use crate::channel::{Channel, ChannelError, HostDescriptor, Incoming, Outbox};
use crate::globals::Global;
use crate::pipes::Pipes;
use crate::shared::Shared;
use crate::shm::blobs::Blobs;
use crate::shm::pool::{Buffer, Pool};
use crate::shm::surface::Surface;
use crate::stats::Stats;
use crate::wire::{Header, MessageWriter, WireError};
use objects::{Counterpart, DISPLAY_ID, HostObject, Objects, OwnObject};

/// Taken from the application at once, so that a flood of one does not hold up the others.
const RECEIVE_BYTES: usize = 64 * 1024;
/// Descriptors of one message on the socket, and the most that may wait for their messages.
const FDS_PER_MESSAGE: usize = 28;
const MAX_WAITING_FDS: usize = 256;
/// Requests that wait for the host; beyond, the application's next ones are left in its socket.
const MAX_TO_HOST_BYTES: usize = 512 * 1024;
/// Events that wait for the application; beyond, the host's next ones are left with the host.
const MAX_TO_CLIENT_BYTES: usize = 256 * 1024;
/// An application that reads nothing for so long while events wait is disconnected.
const UNREAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a commit waits for the host to release a picture before another is made.
const STALL: Duration = Duration::from_millis(250);
/// How long the host's next message may wait for something to send, when the application was just
/// told to draw its next picture and will have something: one command buffer a picture instead of
/// two. Most applications draw in the thread that takes events, so those that wait meanwhile would
/// not be looked at earlier; a frame's time is the most that is lost.
const REPLY: Duration = Duration::from_millis(10);
/// The longest text of an error.
const MAX_ERROR_BYTES: usize = 512;
/// Messages from the host handled in one wakeup.
const HOST_MESSAGES_PER_WAKEUP: usize = 64;

/// `wl_display.error` codes.
pub mod display_error {
    /// The object does not exist.
    pub const INVALID_OBJECT: u32 = 0;
    /// The request does not exist or its arguments are wrong.
    pub const INVALID_METHOD: u32 = 1;
    /// Out of memory.
    pub const NO_MEMORY: u32 = 2;
    /// The proxy cannot do it.
    pub const IMPLEMENTATION: u32 = 3;
}

/// Why an application is disconnected.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// It broke the protocol, or the host said so. It is told.
    #[error("object {object}, error {code}: {message}")]
    Protocol {
        /// The object, by the application's id.
        object: u32,
        /// The error of the object's interface.
        code: u32,
        /// For a person.
        message: String,
    },
    /// It closed its connection.
    #[error("the application closed its connection")]
    Closed,
    /// It does not read its events.
    #[error("the application has not read its events for {} seconds", UNREAD_TIMEOUT.as_secs())]
    Unresponsive,
    /// Its socket failed.
    #[error("the application's socket: {0}")]
    Socket(std::io::Error),
    /// The host closed the connection.
    #[error("the host closed the connection")]
    HostClosed,
    /// The channel to the host failed.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// The host's compositor sent what no compositor sends.
    #[error("the host's compositor broke the protocol: {0}")]
    Host(String),
}

impl ClientError {
    fn invalid_method(message: String) -> Self {
        let code = display_error::INVALID_METHOD;
        Self::Protocol {
            object: DISPLAY_ID,
            code,
            message,
        }
    }

    fn invalid_object(message: String) -> Self {
        let code = display_error::INVALID_OBJECT;
        Self::Protocol {
            object: DISPLAY_ID,
            code,
            message,
        }
    }

    fn no_memory(message: String) -> Self {
        Self::Protocol {
            object: DISPLAY_ID,
            code: display_error::NO_MEMORY,
            message,
        }
    }

    fn implementation(message: String) -> Self {
        Self::Protocol {
            object: DISPLAY_ID,
            code: display_error::IMPLEMENTATION,
            message,
        }
    }
}

/// Whether the next request may be handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    Next,
    /// This request has to be handled again, later.
    Stall,
}

/// What of an application's descriptors is ready.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ready {
    /// Its socket can be read, or has ended.
    pub socket: bool,
    /// It has ended, although nothing is taken from its socket now.
    pub hung_up: bool,
    /// The channel has something.
    pub channel: bool,
    /// A pipe can go on.
    pub pipes: bool,
}

/// One connected application.
pub struct Client {
    socket: OwnedFd,
    channel: Box<dyn Channel>,
    shared: Rc<Shared>,
    /// Names this application among those of this process.
    key: u64,
    objects: Objects,
    /// What the host offers and the allow-list allows, by its name in the registry.
    globals: HashMap<u32, Global>,
    /// Everything that the host offers is known; requests are handled from then on.
    ready: bool,
    from_client: Vec<u8>,
    /// Where bytes arrive, once for all messages: it is large.
    receive_space: Box<[u8]>,
    from_client_fds: VecDeque<OwnedFd>,
    to_client: Outbox<OwnedFd>,
    /// Since when events wait without any being read.
    unread_since: Option<Instant>,
    from_host: Vec<u8>,
    from_host_fds: VecDeque<HostDescriptor>,
    to_host: Outbox,
    pipes: Pipes,
    host_shm: Option<u32>,
    formats: Vec<u32>,
    pools: HashMap<u32, Rc<Pool>>,
    buffers: HashMap<u32, Rc<Buffer>>,
    surfaces: HashMap<u32, Surface>,
    /// Surfaces by the frame callbacks that they wait for; as many as there are callbacks.
    frames: HashMap<u32, u32>,
    blobs: Blobs,
    /// A commit waits until this time for a picture to be released.
    stalled_until: Option<Instant>,
    /// Until when the application's answer to the host's last message is waited for.
    reply_due: Option<Instant>,
    selection: selection::Selections,
    /// The application has ended; what it said before is still relayed.
    ended: bool,
}

impl Client {
    /// Begins to serve an application.
    pub fn new(
        socket: OwnedFd,
        channel: Box<dyn Channel>,
        shared: Rc<Shared>,
    ) -> Result<Self, ClientError> {
        rustix::io::ioctl_fionbio(&socket, true).map_err(|e| ClientError::Socket(e.into()))?;
        let stats = shared.stats.clone();
        let mut client = Self {
            socket,
            channel,
            key: shared.next_key(),
            objects: Objects::new(&WL_DISPLAY_INTERFACE),
            globals: HashMap::new(),
            ready: false,
            from_client: Vec::new(),
            receive_space: vec![0; RECEIVE_BYTES].into_boxed_slice(),
            from_client_fds: VecDeque::new(),
            to_client: Outbox::default(),
            unread_since: None,
            from_host: Vec::new(),
            from_host_fds: VecDeque::new(),
            to_host: Outbox::default(),
            pipes: Pipes::new(stats.clone()).map_err(ClientError::Socket)?,
            host_shm: None,
            formats: Vec::new(),
            pools: HashMap::new(),
            buffers: HashMap::new(),
            surfaces: HashMap::new(),
            frames: HashMap::new(),
            blobs: Blobs::new(stats),
            stalled_until: None,
            reply_due: None,
            selection: selection::Selections::default(),
            ended: false,
            shared,
        };
        // The proxy's own registry: what the host offers has to be known before the application
        // asks for it.
        let registry = client.own_object(WlRegistry::interface(), 1, OwnObject::Registry);
        client.send_host(DISPLAY_ID, 1, |m| m.uint(registry))?;
        let done = client.own_object(WlCallback::interface(), 1, OwnObject::SetupDone);
        client.send_host(DISPLAY_ID, 0, |m| m.uint(done))?;
        Ok(client)
    }

    /// Names this application among those of this process.
    pub fn key(&self) -> u64 {
        self.key
    }

    /// The application's socket.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Readable when the channel has something.
    pub fn channel_fd(&self) -> BorrowedFd<'_> {
        self.channel.event_fd()
    }

    /// Readable when pipes can go on.
    pub fn pipes_fd(&self) -> BorrowedFd<'_> {
        self.pipes.event_fd()
    }

    /// What the socket has to be watched for.
    pub fn socket_interest(&self) -> EventFlags {
        let mut flags = EventFlags::empty();
        if self.may_receive() {
            flags |= EventFlags::IN;
        } else if !self.ended {
            flags |= EventFlags::RDHUP;
        }
        if !self.to_client.is_empty() {
            flags |= EventFlags::OUT;
        }
        flags
    }

    /// When [`Client::handle`] has to be called although nothing is ready.
    pub fn deadline(&self) -> Option<Instant> {
        let unread = self.unread_since.map(|since| since + UNREAD_TIMEOUT);
        self.stalled_until
            .into_iter()
            .chain(self.reply_due)
            .chain(unread)
            .min()
    }

    /// Gives host memory that shows nothing back to the host.
    pub fn release_memory(&mut self) -> Result<(), ClientError> {
        self.free_blobs(true)?;
        self.flush()
    }

    fn may_receive(&self) -> bool {
        self.ready
            && !self.ended
            && self.stalled_until.is_none()
            && self.to_host.len() < MAX_TO_HOST_BYTES
    }

    /// Does everything that can be done now. An error ends the application's connection; it has
    /// been told as far as it could be.
    pub fn handle(&mut self, ready: Ready) -> Result<(), ClientError> {
        let result = self.handle_inner(ready);
        if let Err(ClientError::Protocol {
            object,
            code,
            message,
        }) = &result
        {
            // It may quote the application at any length.
            let text = message.as_bytes();
            let text = text.get(..MAX_ERROR_BYTES).unwrap_or(text);
            let told = self.send_client(DISPLAY_ID, 0, |m| {
                m.uint(*object);
                m.uint(*code);
                m.string(Some(text));
            });
            if told.is_ok() {
                let _ = self.flush_client();
            }
        }
        result
    }

    fn handle_inner(&mut self, ready: Ready) -> Result<(), ClientError> {
        if ready.hung_up && !self.may_receive() {
            // What it said last may be lost, but with it goes everything it was about.
            return Err(ClientError::Closed);
        }
        if ready.channel {
            self.receive_host()?;
        }
        if ready.pipes {
            self.pipes.pump(&mut *self.channel)?;
        }
        if ready.socket && self.may_receive() {
            self.receive_client()?;
        }
        self.handle_requests()?;
        self.flush()?;
        if self.ended && self.has_no_whole_request() {
            return Err(ClientError::Closed);
        }
        Ok(())
    }

    fn receive_host(&mut self) -> Result<(), ClientError> {
        for _ in 0..HOST_MESSAGES_PER_WAKEUP {
            match self.channel.receive()? {
                None => break,
                Some(Incoming::Wayland { bytes, fds }) => {
                    self.from_host.extend_from_slice(&bytes);
                    self.from_host_fds.extend(fds);
                    self.handle_events()?;
                }
                Some(Incoming::PipeData { id, bytes, hang_up }) => {
                    self.pipes.deliver(id, &bytes, hang_up);
                }
                Some(Incoming::PipeWritable(id)) => self.pipes.writable(id),
                Some(Incoming::Closed) => {
                    let _ = self.flush_client();
                    return Err(ClientError::HostClosed);
                }
            }
        }
        Ok(())
    }

    fn handle_events(&mut self) -> Result<(), ClientError> {
        let bytes = std::mem::take(&mut self.from_host);
        let mut rest = bytes.as_slice();
        let host_error = |error: WireError| ClientError::Host(error.to_string());
        while let Some(header) = Header::read(rest).map_err(host_error)? {
            let Some((message, after)) = rest.split_at_checked(header.size_bytes) else {
                break;
            };
            self.event(
                header,
                message.get(crate::wire::HEADER_BYTES..).unwrap_or_default(),
            )?;
            rest = after;
        }
        self.from_host.extend_from_slice(rest);
        Ok(())
    }

    fn receive_client(&mut self) -> Result<(), ClientError> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_PER_MESSAGE))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let iov = &mut [IoSliceMut::new(&mut self.receive_space)];
        let len = match rustix::net::recvmsg(&self.socket, iov, &mut control, flags) {
            Ok(message) => message.bytes,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
            Err(Errno::CONNRESET) => 0,
            Err(errno) => return Err(ClientError::Socket(errno.into())),
        };
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                self.from_client_fds.extend(fds);
            }
        }
        if self.from_client_fds.len() > MAX_WAITING_FDS {
            return Err(ClientError::no_memory("too many file descriptors".into()));
        }
        self.ended = len == 0;
        let bytes = self.receive_space.get(..len).unwrap_or_default();
        self.from_client.extend_from_slice(bytes);
        Ok(())
    }

    /// Whether no whole request is left to be handled.
    fn has_no_whole_request(&self) -> bool {
        match Header::read(&self.from_client) {
            Ok(Some(header)) => self.from_client.len() < header.size_bytes,
            _ => true,
        }
    }

    fn handle_requests(&mut self) -> Result<(), ClientError> {
        if !self.ready {
            return Ok(());
        }
        if self
            .stalled_until
            .is_some_and(|until| until > Instant::now())
        {
            return Ok(());
        }
        let bytes = std::mem::take(&mut self.from_client);
        let mut rest = bytes.as_slice();
        while self.to_host.len() < MAX_TO_HOST_BYTES {
            let header = Header::read(rest)
                .map_err(|error| ClientError::invalid_method(error.to_string()))?;
            let Some(header) = header else { break };
            let Some((message, after)) = rest.split_at_checked(header.size_bytes) else {
                break;
            };
            let body = message.get(crate::wire::HEADER_BYTES..).unwrap_or_default();
            if self.request(header, body)? == Flow::Stall {
                break;
            }
            Stats::add(&self.shared.stats.requests, 1);
            rest = after;
        }
        self.from_client.extend_from_slice(rest);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), ClientError> {
        self.flush_client()?;
        let mut receive = self.to_client.len() < MAX_TO_CLIENT_BYTES && !self.pipes.is_full();
        let reply_due = self.reply_due.is_some_and(|due| due > Instant::now());
        if reply_due && self.to_host.is_empty() && self.channel.receiving_costs() {
            receive = false;
        } else {
            self.reply_due = None;
        }
        self.channel.flush(&mut self.to_host, receive)?;
        Ok(())
    }

    fn flush_client(&mut self) -> Result<(), ClientError> {
        let mut progress = false;
        while !self.to_client.is_empty() {
            let piece = self.to_client.piece(RECEIVE_BYTES, FDS_PER_MESSAGE);
            let count = piece.fds;
            let fds: Vec<_> = self.to_client.front_fds(count).map(AsFd::as_fd).collect();
            let mut space =
                [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_PER_MESSAGE))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !fds.is_empty() {
                control.push(SendAncillaryMessage::ScmRights(&fds));
            }
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            let iov = [IoSlice::new(piece.bytes)];
            match rustix::net::sendmsg(&self.socket, &iov, &mut control, flags) {
                Ok(n) => {
                    progress = true;
                    self.to_client.advance(n, count);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                // It may have sent something before it left, which is still to be relayed.
                Err(Errno::PIPE | Errno::CONNRESET) => {
                    self.to_client.advance(usize::MAX / 2, usize::MAX / 2);
                }
                Err(errno) => return Err(ClientError::Socket(errno.into())),
            }
        }
        let now = Instant::now();
        self.unread_since = match self.unread_since {
            _ if self.to_client.is_empty() => None,
            Some(since) if !progress => Some(since),
            _ => Some(now),
        };
        match self.unread_since {
            Some(since) if now.duration_since(since) >= UNREAD_TIMEOUT => {
                Err(ClientError::Unresponsive)
            }
            _ => Ok(()),
        }
    }

    /// Makes an object of the proxy's own on the host's side; the next message has to create it.
    fn own_object(
        &mut self,
        interface: &'static wayland_backend::protocol::Interface,
        version: u32,
        what: OwnObject,
    ) -> u32 {
        self.objects.add_host(HostObject {
            interface,
            version,
            counterpart: Counterpart::Own(what),
        })
    }

    /// Queues a request of the proxy's own.
    fn send_host(
        &mut self,
        object: u32,
        opcode: u16,
        args: impl FnOnce(&mut MessageWriter<'_>),
    ) -> Result<(), ClientError> {
        let mut message = MessageWriter::new(self.to_host.bytes(), object, opcode);
        args(&mut message);
        message
            .finish()
            .map_err(|error| ClientError::Host(error.to_string()))
    }

    /// Queues an event of the proxy's own.
    fn send_client(
        &mut self,
        object: u32,
        opcode: u16,
        args: impl FnOnce(&mut MessageWriter<'_>),
    ) -> Result<(), ClientError> {
        Stats::add(&self.shared.stats.events, 1);
        let mut message = MessageWriter::new(self.to_client.bytes(), object, opcode);
        args(&mut message);
        message
            .finish()
            .map_err(|error| ClientError::Host(error.to_string()))
    }

    /// The application's id is free again, and it is told.
    fn delete_id(&mut self, id: u32) -> Result<(), ClientError> {
        self.objects.remove_client(id);
        self.send_client(DISPLAY_ID, 1, |m| m.uint(id))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.shared.pastes.remove_client(self.key);
    }
}
