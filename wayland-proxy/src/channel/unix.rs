//! A channel that is a Unix socket of a compositor on the same machine.

use std::collections::HashMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventFlags};
use rustix::fs::{FileType, MemfdFlags, OFlags, SealFlags};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

use super::{
    Channel, ChannelError, HostDescriptor, HostMemory, Incoming, MemoryOwner, OutFd, Outbox,
    PipeId, PipeWrite,
};
use crate::event::{self, Watch};
use crate::memory::Mapping;
use crate::stats::Stats;

/// Descriptors in one message of the socket, as compositors and the virtio-gpu channel have it.
const FDS_PER_MESSAGE: usize = 28;
/// Bytes taken from socket or pipe at once.
const RECEIVE_BYTES: usize = 64 * 1024;
/// Pipes from the host have names from here on, as in the cross-domain protocol.
const READ_PIPE_START: u32 = 0x8000_0000;
/// The socket's own name in the epoll set; pipes use theirs.
const SOCKET_TOKEN: u64 = 0;

struct WritePipe {
    fd: OwnedFd,
    watch: Watch,
    /// What the pipe has not taken yet.
    pending: Vec<u8>,
    hang_up: bool,
}

/// A connection to a compositor's socket.
pub struct UnixChannel {
    epoll: OwnedFd,
    socket: OwnedFd,
    stats: Rc<Stats>,
    watch: Watch,
    /// Whether the host may deliver.
    receiving: bool,
    last_descriptor: u32,
    memory: HashMap<u32, OwnedFd>,
    last_read_pipe: u32,
    /// Pipes opened but not sent yet: their write ends.
    unsent_pipes: HashMap<u32, OwnedFd>,
    read_pipes: HashMap<u32, (OwnedFd, Watch)>,
    write_pipes: HashMap<u32, WritePipe>,
}

impl UnixChannel {
    /// Connects to the socket at `path`.
    pub fn connect(path: &Path, stats: Rc<Stats>) -> Result<Self, ChannelError> {
        let stream = std::os::unix::net::UnixStream::connect(path).map_err(ChannelError::os(
            "connecting to the host compositor's socket",
        ))?;
        Self::new(stream.into(), stats)
    }

    /// Uses a connected stream socket.
    pub fn new(socket: OwnedFd, stats: Rc<Stats>) -> Result<Self, ChannelError> {
        let failed = ChannelError::io;
        rustix::io::ioctl_fionbio(&socket, true).map_err(failed("making a socket non-blocking"))?;
        let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(failed("making an epoll set"))?;
        let mut watch = Watch::new(SOCKET_TOKEN);
        watch
            .set(&epoll, &socket, EventFlags::IN)
            .map_err(failed("watching the host's socket"))?;
        Ok(Self {
            epoll,
            socket,
            stats,
            watch,
            receiving: true,
            last_descriptor: 0,
            memory: HashMap::new(),
            last_read_pipe: READ_PIPE_START,
            unsent_pipes: HashMap::new(),
            read_pipes: HashMap::new(),
            write_pipes: HashMap::new(),
        })
    }

    fn watch(&mut self, wanted: EventFlags) -> Result<(), ChannelError> {
        let result = self.watch.set(&self.epoll, &self.socket, wanted);
        result.map_err(ChannelError::io("watching the host's socket"))
    }

    fn set_receiving(&mut self, receive: bool) -> Result<(), ChannelError> {
        if receive == self.receiving {
            return Ok(());
        }
        self.receiving = receive;
        let flags = if receive {
            EventFlags::IN
        } else {
            EventFlags::empty()
        };
        for (pipe, watch) in self.read_pipes.values_mut() {
            watch
                .set(&self.epoll, pipe, flags)
                .map_err(ChannelError::io("watching a pipe"))?;
        }
        Ok(())
    }

    fn send_piece(&mut self, out: &mut Outbox) -> Result<bool, ChannelError> {
        let piece = out.piece(RECEIVE_BYTES, FDS_PER_MESSAGE);
        let (bytes, count) = (piece.bytes, piece.fds);
        let mut fds = Vec::with_capacity(count);
        let mut pipes = Vec::new();
        for fd in out.front_fds(count) {
            match fd {
                OutFd::Memory(memory) => match &memory.owner {
                    MemoryOwner::File(file) => fds.push(file.as_fd()),
                    MemoryOwner::Gem(_) => {
                        return Err(ChannelError::BadAnswer("memory of another channel"));
                    }
                },
                OutFd::ReadPipe(id) => {
                    let write_end = self.unsent_pipes.get(&id.0);
                    fds.push(write_end.ok_or(ChannelError::BadDescriptor(id.0))?.as_fd());
                    pipes.push(id.0);
                }
            }
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_PER_MESSAGE))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(&fds));
        }
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let sent = rustix::net::sendmsg(
            &self.socket,
            &[io::IoSlice::new(bytes)],
            &mut control,
            flags,
        );
        match sent {
            Ok(n) => {
                out.advance(n, count);
                for id in pipes {
                    self.unsent_pipes.remove(&id);
                }
                Stats::add(&self.stats.sends, 1);
                Ok(true)
            }
            Err(Errno::INTR) => Ok(true),
            Err(Errno::AGAIN) => Ok(false),
            // The host is gone; what it sent before may still be readable, so let the read side
            // find the end.
            Err(Errno::PIPE | Errno::CONNRESET) => {
                out.advance(usize::MAX / 2, usize::MAX / 2);
                Ok(true)
            }
            Err(errno) => Err(ChannelError::io("sending to the host")(errno)),
        }
    }

    fn receive_socket(&mut self) -> Result<Option<Incoming>, ChannelError> {
        let mut bytes = vec![0; RECEIVE_BYTES];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_PER_MESSAGE))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let received = rustix::net::recvmsg(
            &self.socket,
            &mut [io::IoSliceMut::new(&mut bytes)],
            &mut control,
            flags,
        );
        let len = match received {
            Ok(message) => message.bytes,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(None),
            Err(Errno::CONNRESET) => 0,
            Err(errno) => return Err(ChannelError::io("receiving from the host")(errno)),
        };
        let mut fds = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = message {
                for fd in received {
                    fds.push(self.classify(fd));
                }
            }
        }
        if len == 0 {
            self.watch(EventFlags::empty())?;
            return Ok(Some(Incoming::Closed));
        }
        bytes.truncate(len);
        Stats::add(&self.stats.receives, 1);
        Ok(Some(Incoming::Wayland { bytes, fds }))
    }

    /// Sorts a descriptor as the host end of the virtio-gpu channel does.
    fn classify(&mut self, fd: OwnedFd) -> HostDescriptor {
        let Ok(stat) = rustix::fs::fstat(&fd) else {
            return HostDescriptor::Unsupported;
        };
        self.last_descriptor = self.last_descriptor.wrapping_add(2);
        let id = self.last_descriptor;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                let Ok(size) = u32::try_from(stat.st_size) else {
                    return HostDescriptor::Unsupported;
                };
                self.memory.insert(id, fd);
                HostDescriptor::Memory {
                    id,
                    untrusted_size_bytes: size,
                }
            }
            FileType::Fifo if is_write_only(&fd) => {
                let Some(fd) = crate::pipes::nonblocking_writer(fd) else {
                    return HostDescriptor::Unsupported;
                };
                let pipe = WritePipe {
                    fd,
                    watch: Watch::new(u64::from(id)),
                    pending: Vec::new(),
                    hang_up: false,
                };
                self.write_pipes.insert(id, pipe);
                HostDescriptor::WritePipe(PipeId(id))
            }
            _ => HostDescriptor::Unsupported,
        }
    }

    fn receive_pipe(&mut self, id: u32) -> Result<Option<Incoming>, ChannelError> {
        let Some((pipe, _)) = self.read_pipes.get(&id) else {
            return Ok(None);
        };
        let mut bytes = vec![0; RECEIVE_BYTES];
        let len = match rustix::io::read(pipe, &mut bytes[..]) {
            Ok(len) => len,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(None),
            Err(errno) => return Err(ChannelError::io("reading a pipe")(errno)),
        };
        bytes.truncate(len);
        if len == 0 {
            self.read_pipes.remove(&id);
        }
        Ok(Some(Incoming::PipeData {
            id: PipeId(id),
            bytes,
            hang_up: len == 0,
        }))
    }

    /// Writes what waits for a pipe; true when the pipe is done with its write.
    fn push_pipe(&mut self, id: u32) -> Result<bool, ChannelError> {
        let Some(pipe) = self.write_pipes.get_mut(&id) else {
            return Ok(false);
        };
        let mut broken = false;
        while !pipe.pending.is_empty() && !broken {
            match rustix::io::write(&pipe.fd, &pipe.pending) {
                Ok(n) => drop(pipe.pending.drain(..n)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    pipe.watch
                        .set(&self.epoll, &pipe.fd, EventFlags::OUT)
                        .map_err(ChannelError::io("watching a pipe"))?;
                    return Ok(false);
                }
                Err(_) => broken = true,
            }
        }
        let _ = pipe.watch.set(&self.epoll, &pipe.fd, EventFlags::empty());
        if broken || pipe.hang_up {
            self.write_pipes.remove(&id);
        }
        Ok(true)
    }
}

fn is_write_only(fd: &OwnedFd) -> bool {
    rustix::fs::fcntl_getfl(fd).is_ok_and(|flags| flags & OFlags::ACCMODE == OFlags::WRONLY)
}

impl Channel for UnixChannel {
    fn event_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    fn allocate(&mut self, size_bytes: usize) -> Result<HostMemory, ChannelError> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = rustix::fs::memfd_create("bulkhead-buffer", flags)
            .map_err(ChannelError::io("making a memfd"))?;
        rustix::fs::ftruncate(&file, size_bytes as u64)
            .map_err(|_| ChannelError::NoMemory(size_bytes))?;
        rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)
            .map_err(ChannelError::io("sealing a memfd"))?;
        // SAFETY: the file is ours and sealed against shrinking.
        let mapping = unsafe { Mapping::new(&file, 0, size_bytes, true) }
            .map_err(|_| ChannelError::NoMemory(size_bytes))?;
        Ok(HostMemory {
            mapping,
            owner: MemoryOwner::File(file),
        })
    }

    fn open_read_pipe(&mut self) -> PipeId {
        self.last_read_pipe = self.last_read_pipe.wrapping_add(1);
        let id = self.last_read_pipe;
        // On failure nothing is sent under this name, and sending it ends the connection.
        if let Ok((read, write)) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            && rustix::io::ioctl_fionbio(&read, true).is_ok()
        {
            let flags = if self.receiving {
                EventFlags::IN
            } else {
                EventFlags::empty()
            };
            let mut watch = Watch::new(u64::from(id));
            if watch.set(&self.epoll, &read, flags).is_ok() {
                self.read_pipes.insert(id, (read, watch));
                self.unsent_pipes.insert(id, write);
            }
        }
        PipeId(id)
    }

    fn receiving_costs(&self) -> bool {
        false
    }

    fn flush(&mut self, out: &mut Outbox, receive: bool) -> Result<(), ChannelError> {
        self.set_receiving(receive)?;
        let mut wanted = if receive {
            EventFlags::IN
        } else {
            EventFlags::empty()
        };
        while !out.is_empty() {
            if !self.send_piece(out)? {
                wanted |= EventFlags::OUT;
                break;
            }
        }
        self.watch(wanted)
    }

    fn receive(&mut self) -> Result<Option<Incoming>, ChannelError> {
        let events = event::wait(&self.epoll, 16, Some(Timespec::default()))
            .map_err(ChannelError::io("waiting for the host"))?;
        for (token, flags) in events {
            let incoming = if token == SOCKET_TOKEN {
                let ended = flags.intersects(EventFlags::HUP | EventFlags::ERR);
                if flags.contains(EventFlags::IN) || ended {
                    self.receive_socket()?
                } else {
                    None
                }
            } else if let Ok(id) = u32::try_from(token) {
                if self.write_pipes.contains_key(&id) {
                    self.push_pipe(id)?
                        .then_some(Incoming::PipeWritable(PipeId(id)))
                } else if self.receiving {
                    self.receive_pipe(id)?
                } else {
                    None
                }
            } else {
                None
            };
            if incoming.is_some() {
                return Ok(incoming);
            }
        }
        Ok(None)
    }

    fn read_memory(&mut self, id: u32, len: usize) -> Result<Vec<u8>, ChannelError> {
        let file = self
            .memory
            .remove(&id)
            .ok_or(ChannelError::BadDescriptor(id))?;
        let mut bytes = vec![0; len];
        let mut done = 0;
        while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match rustix::io::pread(&file, rest, done as u64) {
                Ok(0) => return Err(ChannelError::BadDescriptor(id)),
                Ok(n) => done += n,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(ChannelError::io("reading the host's memory")(errno)),
            }
        }
        Ok(bytes)
    }

    fn write_pipe(
        &mut self,
        id: PipeId,
        bytes: &[u8],
        hang_up: bool,
    ) -> Result<PipeWrite, ChannelError> {
        let Some(pipe) = self.write_pipes.get_mut(&id.0) else {
            return Ok(PipeWrite::Broken);
        };
        pipe.pending.extend_from_slice(bytes);
        pipe.hang_up |= hang_up;
        if !self.push_pipe(id.0)? {
            return Ok(PipeWrite::Pending);
        }
        match hang_up || self.write_pipes.contains_key(&id.0) {
            true => Ok(PipeWrite::Done),
            false => Ok(PipeWrite::Broken),
        }
    }
}
