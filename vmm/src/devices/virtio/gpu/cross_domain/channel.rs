//! The backend: a non-blocking connection to the domain's Wayland socket.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use super::super::super::poller::{Interest, Poller};
use super::super::resources::HostMemory;
use super::command::{
    self, CHANNEL_WAYLAND, ID_BLOB, ID_WRITE_PIPE, Identifier, SEND_BYTES, WRITE_BYTES,
};
use super::connection::{Connection, Incoming, Outgoing};
use super::image::Image;
use super::objects::{MAX_PIPES, Objects, READ_PIPE_START, Received, classify};
use super::pipe::{PipeState, ReadPart, ReadPipe, WritePipe};
use super::ring::{check_rings, data_room, write_end, write_ring};
use super::{BlobError, ContextError, CrossDomainBackend, Host, PipeMark};

/// The token of the connection.
const ITEM_CONNECTION: u32 = 0;

#[derive(Debug)]
enum Link {
    /// Before INIT.
    Idle,
    Open(Connection),
    /// The compositor is gone.
    Ended,
}

/// Which kind of source gets the next turn, so that neither starves the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Connection,
    Pipes,
}

/// A context's connection, pipes and objects.
pub struct Channel {
    path: Arc<PathBuf>,
    link: Link,
    query_ring: u32,
    channel_ring: u32,
    objects: Objects,
    last_read_pipe: u32,
    read_pipes: BTreeMap<u32, ReadPipe>,
    write_pipes: HashMap<u32, WritePipe>,
    turn: Turn,
    /// The pipe that was read last.
    last_read: u32,
}

impl Channel {
    /// A context that will connect to the socket at `path`.
    pub fn new(path: Arc<PathBuf>) -> Self {
        Self {
            path,
            link: Link::Idle,
            query_ring: 0,
            channel_ring: 0,
            objects: Objects::default(),
            last_read_pipe: READ_PIPE_START,
            read_pipes: BTreeMap::new(),
            write_pipes: HashMap::new(),
            turn: Turn::Connection,
            last_read: 0,
        }
    }

    fn open_read_pipe(&mut self, given: u32, host: &Host<'_>) -> Result<OwnedFd, ContextError> {
        let expected = self.last_read_pipe.wrapping_add(1).max(READ_PIPE_START);
        if given != expected {
            return Err(ContextError::PipeNumber { given, expected });
        }
        if self.read_pipes.len() >= MAX_PIPES {
            return Err(ContextError::TooManyPipes);
        }
        let (pipe, write_end) =
            ReadPipe::create().map_err(|error| ContextError::Host("making a pipe", error))?;
        host.poller
            .add(&pipe, host.token(expected), Interest::ReadableEdge)
            .map_err(|error| ContextError::Host("watching a pipe", error))?;
        self.last_read_pipe = expected;
        self.read_pipes.insert(expected, pipe);
        Ok(write_end)
    }

    fn close_write_pipe(&mut self, number: u32, poller: &Poller) {
        if let Some(pipe) = self.write_pipes.remove(&number) {
            poller.remove(&pipe);
        }
    }

    /// A message of the compositor, if there is one.
    fn deliver_from_connection(&mut self, host: &mut Host<'_>) -> Result<bool, ContextError> {
        let Link::Open(connection) = &mut self.link else {
            return Ok(false);
        };
        let room = data_room(host, self.channel_ring, SEND_BYTES)?;
        let buffer = host.scratch.get_mut(..room).unwrap_or_default();
        match connection.receive(buffer)? {
            Incoming::Nothing => Ok(false),
            Incoming::End => {
                host.poller.remove(&*connection);
                self.link = Link::Ended;
                write_end(self.channel_ring, host)?;
                Ok(true)
            }
            Incoming::Message(length, descriptors) => {
                let identifiers = descriptors
                    .into_iter()
                    .map(|fd| self.take_in(fd, host))
                    .collect::<Result<Vec<_>, _>>()?;
                let header = command::receive_header(&identifiers, length as u32);
                let scratch = std::mem::take(&mut host.scratch);
                let data = scratch.get(..length).unwrap_or_default();
                let written = write_ring(self.channel_ring, &[&header, data], host);
                host.scratch = scratch;
                host.stats.bytes_received.add(length as u64);
                written.map(|()| true)
            }
        }
    }

    /// Gives a descriptor of the compositor's a number: (number, type, bytes).
    fn take_in(&mut self, fd: OwnedFd, host: &Host<'_>) -> Result<(u32, u32, u32), ContextError> {
        let kind = classify(&fd)?;
        let pipes = &self.write_pipes;
        let number = self
            .objects
            .next_number(|number| pipes.contains_key(&number));
        match kind {
            Received::Memory(bytes) => {
                self.objects.keep(number, fd, bytes);
                Ok((number, ID_BLOB, bytes))
            }
            Received::WritePipe => {
                // Beyond the limit the pipe is closed at once, which its reader sees as empty.
                if self.write_pipes.len() < MAX_PIPES {
                    let pipe = WritePipe::new(fd)
                        .map_err(|error| ContextError::Host("taking over a pipe", error))?;
                    host.poller
                        .add(&pipe, host.token(number), Interest::WritableEdge)
                        .map_err(|error| ContextError::Host("watching a pipe", error))?;
                    self.write_pipes.insert(number, pipe);
                }
                Ok((number, ID_WRITE_PIPE, 0))
            }
        }
    }

    /// Bytes from one of the pipes, or its end, if there is something.
    fn deliver_from_pipes(&mut self, host: &mut Host<'_>) -> Result<bool, ContextError> {
        loop {
            let after = self.last_read.saturating_add(1);
            let later = self.read_pipes.range_mut(after..);
            let next = later
                .filter(|(_, pipe)| pipe.ready)
                .map(|(id, _)| *id)
                .next();
            let next = next.or_else(|| {
                let mut all = self.read_pipes.iter();
                all.find(|(_, pipe)| pipe.ready).map(|(id, _)| *id)
            });
            let Some(number) = next else {
                return Ok(false);
            };
            self.last_read = number;
            let room = data_room(host, self.channel_ring, WRITE_BYTES)?;
            let Some(pipe) = self.read_pipes.get_mut(&number) else {
                return Ok(false);
            };
            let buffer = host.scratch.get_mut(..room).unwrap_or_default();
            let length = match pipe.read(buffer) {
                ReadPart::Nothing => continue,
                ReadPart::Bytes(length) => length,
                ReadPart::End => {
                    host.poller.remove(&*pipe);
                    self.read_pipes.remove(&number);
                    0
                }
            };
            let header = command::read_header(number, length == 0, length as u32);
            let scratch = std::mem::take(&mut host.scratch);
            let data = scratch.get(..length).unwrap_or_default();
            let written = write_ring(self.channel_ring, &[&header, data], host);
            host.scratch = scratch;
            host.stats.pipe_bytes.add(length as u64);
            return written.map(|()| true);
        }
    }
}

impl CrossDomainBackend for Channel {
    fn init(
        &mut self,
        query_ring: u32,
        channel_ring: u32,
        channel_type: u32,
        host: &mut Host<'_>,
    ) -> Result<(), ContextError> {
        if !matches!(self.link, Link::Idle) {
            return Err(ContextError::InitializedTwice);
        }
        if channel_type != CHANNEL_WAYLAND {
            return Err(ContextError::ChannelType(channel_type));
        }
        check_rings([query_ring, channel_ring], host.resources, host.attached)?;
        self.query_ring = query_ring;
        self.channel_ring = channel_ring;
        let connection = Connection::open(&self.path).map_err(|source| ContextError::Connect {
            path: self.path.display().to_string(),
            source,
        })?;
        host.poller
            .add(
                &connection,
                host.token(ITEM_CONNECTION),
                Interest::BothEdges,
            )
            .map_err(|error| ContextError::Host("watching the connection", error))?;
        self.link = Link::Open(connection);
        Ok(())
    }

    fn image_requirements(
        &mut self,
        image: Image,
        host: &mut Host<'_>,
    ) -> Result<(), ContextError> {
        if matches!(self.link, Link::Idle) {
            return Err(ContextError::NotInitialized);
        }
        let pipes = &self.write_pipes;
        let answer = self
            .objects
            .requirements(image, |number| pipes.contains_key(&number))?;
        write_ring(self.query_ring, &[&answer], host)
    }

    fn send(
        &mut self,
        identifiers: &[Identifier],
        data: &[u8],
        host: &mut Host<'_>,
    ) -> Result<(), ContextError> {
        if matches!(self.link, Link::Idle) {
            return Err(ContextError::NotInitialized);
        }
        let mut descriptors = Vec::with_capacity(identifiers.len());
        for identifier in identifiers {
            descriptors.push(match *identifier {
                Identifier::Blob(resource) => {
                    if !host.attached.contains(&resource) {
                        return Err(ContextError::Blob(resource));
                    }
                    let memory = host.resources.host_memory(resource);
                    Outgoing::Memory(memory.map_err(|_| ContextError::Blob(resource))?)
                }
                Identifier::ReadPipe(given) => Outgoing::Pipe(self.open_read_pipe(given, host)?),
            });
        }
        if let Link::Open(connection) = &mut self.link {
            connection.send(data, descriptors)?;
            host.stats.bytes_sent.add(data.len() as u64);
        }
        Ok(())
    }

    fn write(
        &mut self,
        pipe: u32,
        data: &[u8],
        ends: bool,
        host: &mut Host<'_>,
    ) -> Result<Option<PipeMark>, ContextError> {
        let Some(target) = self.write_pipes.get_mut(&pipe) else {
            // It may have closed itself because nobody reads it any more. What was never a pipe
            // is a mistake of the guest's.
            return match self.objects.may_have_been_pipe(pipe) {
                true => Ok(None),
                false => Err(ContextError::NoWritePipe(pipe)),
            };
        };
        host.stats.pipe_bytes.add(data.len() as u64);
        let state = target.write(data, ends)?;
        let mark = (pipe, target.accepted());
        if state == PipeState::Finished {
            self.close_write_pipe(pipe, host.poller);
        }
        Ok(Some(mark))
    }

    fn drained(&self, marks: &[PipeMark]) -> bool {
        marks.iter().all(|(pipe, position)| {
            let pipe = self.write_pipes.get(pipe);
            pipe.is_none_or(|pipe| pipe.delivered() >= *position)
        })
    }

    fn deliver(&mut self, host: &mut Host<'_>) -> Result<bool, ContextError> {
        match self.link {
            Link::Idle => return Err(ContextError::NotInitialized),
            Link::Open(_) => {}
            // What is still in pipes comes first.
            Link::Ended => {
                if !self.deliver_from_pipes(host)? {
                    write_end(self.channel_ring, host)?;
                }
                return Ok(true);
            }
        }
        let delivered = match self.turn {
            Turn::Connection => {
                self.turn = Turn::Pipes;
                self.deliver_from_connection(host)? || self.deliver_from_pipes(host)?
            }
            Turn::Pipes => {
                self.turn = Turn::Connection;
                self.deliver_from_pipes(host)? || self.deliver_from_connection(host)?
            }
        };
        if delivered {
            host.stats.messages.add(1);
        }
        Ok(delivered)
    }

    fn event(
        &mut self,
        item: u32,
        readable: bool,
        writable: bool,
        host: &mut Host<'_>,
    ) -> Result<(), ContextError> {
        if item == ITEM_CONNECTION {
            if let Link::Open(connection) = &mut self.link
                && writable
            {
                connection.flush()?;
            }
        } else if let Some(pipe) = self.read_pipes.get_mut(&item) {
            pipe.ready |= readable;
        } else if let Some(pipe) = self.write_pipes.get_mut(&item)
            && pipe.flush() == PipeState::Finished
        {
            self.close_write_pipe(item, host.poller);
        }
        Ok(())
    }

    fn create_blob(&mut self, untrusted_id: u64, size: u64) -> Result<HostMemory, BlobError> {
        self.objects.create_blob(untrusted_id, size)
    }

    fn channel_ring(&self) -> Option<u32> {
        (self.channel_ring != 0).then_some(self.channel_ring)
    }

    fn close(&mut self, poller: &Poller) {
        if let Link::Open(connection) = &self.link {
            poller.remove(connection);
        }
        self.link = Link::Ended;
        self.read_pipes
            .values()
            .for_each(|pipe| poller.remove(pipe));
        self.read_pipes.clear();
        self.write_pipes
            .values()
            .for_each(|pipe| poller.remove(pipe));
        self.write_pipes.clear();
        self.objects.clear();
    }
}
