//! The cross-domain protocol: a context of the guest's virtio-gpu as a connection to the
//! compositor.
//!
//! [`CrossDomainBackend`] is the seam: the device ([`super::worker`]) knows resources, fences and
//! queues, a backend knows commands, descriptors and the compositor. There are two:
//! [`channel::Channel`], ours, and [`super::rutabaga`], which gives the work to rutabaga_gfx. What
//! a guest may ask for, its numbers and its limits are checked by the same code for both.

pub mod channel;
pub mod command;
pub mod connection;
pub mod image;
pub mod objects;
pub mod pipe;
pub mod ring;

use std::collections::HashSet;

use rustix::io::Errno;

use self::command::{Command, Commands, Identifier};
use self::image::Image;
use super::super::poller::Poller;
use super::resources::{HostMemory, Resources};
use super::stats::Stats;
use crate::memory::GuestMemory;

/// Why a context is closed. Only that context: others go on.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// A malformed command.
    #[error(transparent)]
    Command(#[from] command::CommandError),
    /// An image that cannot be had.
    #[error(transparent)]
    Image(#[from] image::NoSuchImage),
    /// A command that needs a connection came before INIT.
    #[error("a command before INIT")]
    NotInitialized,
    /// A second INIT.
    #[error("a second INIT")]
    InitializedTwice,
    /// A channel that is not Wayland.
    #[error("channel type {0} is not offered")]
    ChannelType(u32),
    /// A resource that is no usable ring: not there, not of guest memory, or too small. (With
    /// rutabaga a ring without memory is a panic.)
    #[error("resource {0} cannot be a ring of this context")]
    Ring(u32),
    /// A resource that cannot be sent: not there, not of this context, or not of host memory.
    #[error("resource {0} cannot be sent to the compositor")]
    Blob(u32),
    /// A read pipe's number that is not the next one. (Rutabaga leaks a descriptor.)
    #[error("read pipe {given:#x} instead of {expected:#x}")]
    PipeNumber {
        /// What the guest said.
        given: u32,
        /// What it should have been.
        expected: u32,
    },
    /// Too many read pipes at a time.
    #[error("too many pipes at a time")]
    TooManyPipes,
    /// A number that is no write pipe.
    #[error("{0:#x} is not a pipe to write to")]
    NoWritePipe(u32),
    /// Too much waits for a pipe.
    #[error(transparent)]
    Pipe(#[from] pipe::TooMuch),
    /// More than one POLL waits.
    #[error("more polls at a time than the protocol has use for")]
    TooManyPolls,
    /// The compositor sent a descriptor that guests cannot use.
    #[error("the compositor sent a descriptor that cannot be given to a guest")]
    UnsupportedDescriptor,
    /// The connection failed.
    #[error(transparent)]
    Connection(#[from] connection::ConnectionError),
    /// Connecting failed.
    #[error("cannot connect to the compositor at {path}: {source}")]
    Connect {
        /// The socket's path.
        path: String,
        /// Why.
        source: Errno,
    },
    /// Rutabaga failed, or its thread did.
    #[error(transparent)]
    Rutabaga(#[from] super::rutabaga::Failure),
    /// Another failure of the host.
    #[error("{0}: {1}")]
    Host(&'static str, Errno),
}

/// What a backend works with besides its own state.
pub struct Host<'a> {
    /// The context's number, for tokens.
    pub context: u32,
    /// Guest RAM.
    pub memory: &'a GuestMemory,
    /// All resources of the guest.
    pub resources: &'a Resources,
    /// The numbers of those that belong to this context.
    pub attached: &'a HashSet<u32>,
    /// Where descriptors are waited for.
    pub poller: &'a Poller,
    /// Counters.
    pub stats: &'a Stats,
    /// Room for one message.
    pub scratch: &'a mut [u8],
}

impl Host<'_> {
    /// The token of one of the context's descriptors.
    pub fn token(&self, item: u32) -> u64 {
        (u64::from(self.context) << 32) | u64::from(item)
    }
}

/// A pipe and how far it must have been drained.
pub type PipeMark = (u32, u64);

/// Why a blob could not be made; the context goes on.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// No object has this number.
    #[error("there is no object {0} to make a blob of")]
    Unknown(u64),
    /// The size is not that of the object. (Rutabaga would map a short memfd as a long one.)
    #[error("an object of {object} bytes cannot be a blob of {wanted} bytes")]
    Size {
        /// Bytes that there are, rounded up to pages.
        object: u64,
        /// Bytes asked for.
        wanted: u64,
    },
    /// The host has no memory or no descriptors left.
    #[error("allocating a blob: {0}")]
    Host(#[from] Errno),
}

/// One context's way to the compositor. No method blocks.
pub trait CrossDomainBackend: Send {
    /// Runs the commands of one buffer. Returned are the pipes that must be drained before the
    /// buffer counts as done.
    fn submit(
        &mut self,
        untrusted_commands: &[u8],
        host: &mut Host<'_>,
    ) -> Result<Vec<PipeMark>, ContextError> {
        Commands::check(untrusted_commands)?;
        let mut marks = Vec::new();
        for command in Commands::new(untrusted_commands) {
            match command? {
                Command::Init {
                    query_ring,
                    channel_ring,
                    channel_type,
                } => self.init(query_ring, channel_ring, channel_type, host)?,
                Command::ImageRequirements {
                    width,
                    height,
                    format,
                } => {
                    let image = Image {
                        width,
                        height,
                        format,
                    };
                    self.image_requirements(image, host)?;
                }
                // The fence of the request is the poll.
                Command::Poll => {}
                Command::Send { identifiers, data } => self.send(&identifiers, data, host)?,
                Command::Write {
                    pipe,
                    hang_up,
                    data,
                } => marks.extend(self.write(pipe, data, hang_up, host)?),
            }
        }
        Ok(marks)
    }

    /// The guest names its rings, and what it wants to speak with.
    fn init(
        &mut self,
        query_ring: u32,
        channel_ring: u32,
        channel_type: u32,
        host: &mut Host<'_>,
    ) -> Result<(), ContextError>;

    /// The guest asks how an image of this kind would lie in memory; the answer is in its query ring.
    fn image_requirements(&mut self, image: Image, host: &mut Host<'_>)
    -> Result<(), ContextError>;

    /// Bytes for the compositor, with descriptors that the guest knows by name.
    fn send(
        &mut self,
        identifiers: &[Identifier],
        data: &[u8],
        host: &mut Host<'_>,
    ) -> Result<(), ContextError>;

    /// Bytes for a pipe, which may be the last. Returned is what has to be drained, if anything.
    fn write(
        &mut self,
        pipe: u32,
        data: &[u8],
        ends: bool,
        host: &mut Host<'_>,
    ) -> Result<Option<PipeMark>, ContextError>;

    /// Whether those pipes are drained.
    fn drained(&self, marks: &[PipeMark]) -> bool;

    /// Puts one message into the channel ring, if there is one.
    fn deliver(&mut self, host: &mut Host<'_>) -> Result<bool, ContextError>;

    /// Something happened to one of the context's descriptors.
    fn event(
        &mut self,
        item: u32,
        readable: bool,
        writable: bool,
        host: &mut Host<'_>,
    ) -> Result<(), ContextError>;

    /// Memory for a blob: an image asked about before, or memory that the compositor sent.
    fn create_blob(&mut self, untrusted_id: u64, size: u64) -> Result<HostMemory, BlobError>;

    /// The ring in which the guest expects messages, once it named one.
    fn channel_ring(&self) -> Option<u32>;

    /// Gives up everything.
    fn close(&mut self, poller: &Poller);
}
