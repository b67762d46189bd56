//! A channel that is a virtio-gpu cross-domain context: one open render node, one context, one
//! connection of the host to the compositor.
//!
//! Messages go to the host as SEND commands and come back one at a time: a POLL command's fence
//! signals when the host has written one message at the start of the channel ring. Sending and
//! asking for the next message share one command buffer where both are due.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use super::virtgpu_abi::{self as abi, cross_domain as xd};
use super::{
    Channel, ChannelError, HostDescriptor, HostMemory, Incoming, MemoryOwner, OutFd, Outbox,
    PipeId, PipeWrite,
};
use crate::event;
use crate::memory::Mapping;
use crate::stats::Stats;

const PAGE_BYTES: usize = 4096;
const QUERY_RING_BYTES: usize = PAGE_BYTES;
const CHANNEL_RING_BYTES: usize = 64 * 1024;
/// The host takes command buffers up to 256 KiB.
const MAX_COMMAND_BYTES: usize = 192 * 1024;
/// How long the host may take to answer a query before the channel counts as broken.
const QUERY_TIMEOUT_S: i64 = 10;
/// The render node's own name in the epoll set; fences of pipes use the pipes'.
const DEVICE_TOKEN: u64 = 0;
/// The largest received memory (a keymap) that is copied.
const MAX_RECEIVED_BYTES: usize = 16 * 1024 * 1024;

/// A buffer object of the render node; closed on drop.
#[derive(Debug)]
pub struct GemObject {
    device: Rc<OwnedFd>,
    handle: u32,
    /// The resource's name in the protocol between guest and host.
    resource: u32,
}

impl Drop for GemObject {
    fn drop(&mut self) {
        let mut close = abi::GemClose {
            handle: self.handle,
            pad: 0,
        };
        // SAFETY: the argument holds no addresses.
        let _ = unsafe { abi::ioctl(self.device.as_fd(), &mut close) };
    }
}

/// One cross-domain context.
pub struct VirtgpuChannel {
    epoll: OwnedFd,
    device: Rc<OwnedFd>,
    query_ring: HostMemory,
    channel_ring: HostMemory,
    stats: Rc<Stats>,
    /// A POLL is with the host.
    polling: bool,
    /// The last call of `receive` gave a message.
    just_received: bool,
    last_read_pipe: u32,
    /// The host's name for memory of a size, learned once per size.
    image_ids: HashMap<usize, u32>,
    /// Fences of writes to pipes that are not through.
    pipe_fences: HashMap<u32, OwnedFd>,
    command: Vec<u8>,
}

/// Finds the render node of a virtio-gpu device that offers cross-domain contexts.
pub fn find_render_node() -> Result<PathBuf, ChannelError> {
    let mut last = std::io::Error::from(std::io::ErrorKind::NotFound);
    for minor in 128..192 {
        let path = PathBuf::from(format!("/dev/dri/renderD{minor}"));
        match open(&path).and_then(|device| probe(&device)) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => last = error,
        }
    }
    Err(ChannelError::Io {
        what: "looking in /dev/dri for a virtio-gpu with cross-domain contexts",
        source: last,
    })
}

fn open(path: &Path) -> std::io::Result<OwnedFd> {
    let flags = libc::O_NONBLOCK | libc::O_CLOEXEC;
    Ok(OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(flags)
        .open(path)?
        .into())
}

/// Whether the device has the cross-domain capability set with the Wayland channel.
fn probe(device: &OwnedFd) -> std::io::Result<()> {
    let mut capset = [0u32; 4];
    let mut caps = abi::GetCaps {
        cap_set_id: abi::CAPSET_CROSS_DOMAIN,
        cap_set_ver: 0,
        addr: capset.as_mut_ptr() as u64,
        size: size_of_val(&capset) as u32,
        pad: 0,
    };
    // SAFETY: the address is that of the array above, of the size given.
    unsafe { abi::ioctl(device.as_fd(), &mut caps)? };
    if capset[1] & 1 << xd::CHANNEL_TYPE_WAYLAND == 0 {
        return Err(std::io::ErrorKind::Unsupported.into());
    }
    Ok(())
}

fn create_blob(
    device: &Rc<OwnedFd>,
    mut request: abi::ResourceCreateBlob,
    writable: bool,
) -> Result<HostMemory, ChannelError> {
    let size = request.size as usize;
    // SAFETY: the argument holds no addresses.
    unsafe { abi::ioctl(device.as_fd(), &mut request) }
        .map_err(|_| ChannelError::NoMemory(size))?;
    let gem = GemObject {
        device: device.clone(),
        handle: request.bo_handle,
        resource: request.res_handle,
    };
    let mut map = abi::Map {
        handle: request.bo_handle,
        ..Default::default()
    };
    // SAFETY: the argument holds no addresses.
    unsafe { abi::ioctl(device.as_fd(), &mut map) }.map_err(ChannelError::os("mapping a blob"))?;
    // SAFETY: the object has this size for as long as it lives, which is longer than the mapping:
    // the mapping holds a reference of its own in the kernel.
    let mapping = unsafe { Mapping::new(device.as_fd(), map.offset, size, writable) }
        .map_err(|_| ChannelError::NoMemory(size))?;
    Ok(HostMemory {
        mapping,
        owner: MemoryOwner::Gem(gem),
    })
}

fn guest_ring(device: &Rc<OwnedFd>, size: usize) -> Result<HostMemory, ChannelError> {
    let request = abi::ResourceCreateBlob {
        blob_mem: abi::BLOB_MEM_GUEST,
        blob_flags: abi::BLOB_FLAG_USE_MAPPABLE,
        size: size as u64,
        ..Default::default()
    };
    create_blob(device, request, true)
}

fn resource(memory: &HostMemory) -> Result<u32, ChannelError> {
    match &memory.owner {
        MemoryOwner::Gem(gem) => Ok(gem.resource),
        MemoryOwner::File(_) => Err(ChannelError::BadAnswer("memory of another channel")),
    }
}

impl VirtgpuChannel {
    /// Opens a context on the render node at `path` and connects it to the host's compositor.
    pub fn open(path: &Path, stats: Rc<Stats>) -> Result<Self, ChannelError> {
        let device = open(path).map_err(ChannelError::os("opening the render node"))?;
        let mut params = [
            (
                abi::CONTEXT_PARAM_CAPSET_ID,
                u64::from(abi::CAPSET_CROSS_DOMAIN),
            ),
            (abi::CONTEXT_PARAM_NUM_RINGS, u64::from(xd::NUM_RINGS)),
            (abi::CONTEXT_PARAM_POLL_RINGS_MASK, 1 << xd::CHANNEL_RING),
        ]
        .map(|(param, value)| abi::ContextSetParam { param, value });
        let mut init = abi::ContextInit {
            num_params: params.len() as u32,
            pad: 0,
            ctx_set_params: params.as_mut_ptr() as u64,
        };
        // SAFETY: the address is that of the array above, of the length given.
        unsafe { abi::ioctl(device.as_fd(), &mut init) }
            .map_err(ChannelError::os("making a cross-domain context"))?;
        let device = Rc::new(device);
        let query_ring = guest_ring(&device, QUERY_RING_BYTES)?;
        let channel_ring = guest_ring(&device, CHANNEL_RING_BYTES)?;
        let epoll =
            epoll::create(CreateFlags::CLOEXEC).map_err(ChannelError::io("making an epoll set"))?;
        epoll::add(
            &epoll,
            &*device,
            EventData::new_u64(DEVICE_TOKEN),
            EventFlags::IN,
        )
        .map_err(ChannelError::io("watching the render node"))?;
        let mut channel = Self {
            epoll,
            device,
            query_ring,
            channel_ring,
            stats,
            polling: false,
            just_received: false,
            last_read_pipe: xd::READ_PIPE_START,
            image_ids: HashMap::new(),
            pipe_fences: HashMap::new(),
            command: Vec::new(),
        };
        let rings = [
            resource(&channel.query_ring)?,
            resource(&channel.channel_ring)?,
        ];
        xd::header(&mut channel.command, xd::CMD_INIT, 20);
        xd::words(
            &mut channel.command,
            &[rings[0], rings[1], xd::CHANNEL_TYPE_WAYLAND],
        );
        channel.submit(0, 0)?;
        Ok(channel)
    }

    /// Submits the commands in `self.command`; gives the fence when one was asked for.
    fn submit(&mut self, flags: u32, ring: u32) -> Result<Option<OwnedFd>, ChannelError> {
        let mut exec = abi::ExecBuffer {
            flags,
            size: self.command.len() as u32,
            command: self.command.as_ptr() as u64,
            fence_fd: -1,
            ring_idx: ring,
            ..Default::default()
        };
        // SAFETY: the address is that of the command bytes, of the size given, and the kernel
        // only reads them.
        let result = unsafe { abi::ioctl(self.device.as_fd(), &mut exec) };
        self.command.clear();
        Stats::add(&self.stats.execbuffers, 1);
        result.map_err(ChannelError::os("submitting commands to the host"))?;
        if flags & abi::EXECBUF_FENCE_FD_OUT == 0 || exec.fence_fd < 0 {
            return Ok(None);
        }
        // SAFETY: the kernel made this descriptor for us just now.
        Ok(Some(unsafe { OwnedFd::from_raw_fd(exec.fence_fd) }))
    }

    fn append_send(&mut self, out: &mut Outbox) -> Result<(), ChannelError> {
        let piece = out.piece(xd::MAX_SEND_DATA_BYTES, xd::MAX_IDENTIFIERS);
        let (len, count) = (piece.bytes.len(), piece.fds);
        let mut ids = [0; xd::MAX_IDENTIFIERS];
        let mut types = [0; xd::MAX_IDENTIFIERS];
        let mut sizes = [0; xd::MAX_IDENTIFIERS];
        let slots = ids.iter_mut().zip(&mut types).zip(&mut sizes);
        for (((id, kind), size), fd) in slots.zip(out.front_fds(count)) {
            match fd {
                OutFd::Memory(memory) => {
                    *id = resource(memory)?;
                    *kind = xd::ID_TYPE_VIRTGPU_BLOB;
                    *size = u32::try_from(memory.mapping.len()).unwrap_or(u32::MAX);
                }
                OutFd::ReadPipe(pipe) => {
                    *id = pipe.0;
                    *kind = xd::ID_TYPE_READ_PIPE;
                }
            }
        }
        let size = (xd::SEND_RECEIVE_BYTES + len).next_multiple_of(4);
        let start = self.command.len();
        xd::header(&mut self.command, xd::CMD_SEND, size);
        xd::words(&mut self.command, &[count as u32, len as u32]);
        for list in [ids, types, sizes] {
            xd::words(&mut self.command, &list);
        }
        self.command.extend_from_slice(piece.bytes);
        self.command.resize(start + size, 0);
        out.advance(len, count);
        Stats::add(&self.stats.sends, 1);
        Ok(())
    }

    /// Reads the one message at the start of the channel ring.
    fn read_ring(&mut self) -> Result<Incoming, ChannelError> {
        let ring = &self.channel_ring.mapping;
        let mut head = [0; xd::SEND_RECEIVE_BYTES];
        if !ring.read(0, &mut head) {
            return Err(ChannelError::BadAnswer("the ring is too small"));
        }
        let data = |offset: usize, len: u32| {
            let len = len as usize;
            if len > CHANNEL_RING_BYTES - offset {
                return Err(ChannelError::BadAnswer("a message larger than the ring"));
            }
            let mut bytes = vec![0; len];
            match ring.read(offset, &mut bytes) {
                true => Ok(bytes),
                false => Err(ChannelError::BadAnswer("a message larger than the ring")),
            }
        };
        match head[0] {
            xd::CMD_RECEIVE => {
                let (count, len) = (xd::word(&head, 8) as usize, xd::word(&head, 12));
                if count > xd::MAX_IDENTIFIERS {
                    return Err(ChannelError::BadAnswer("too many descriptors"));
                }
                if count == 0 && len == 0 {
                    return Ok(Incoming::Closed);
                }
                let list = |index: usize, i: usize| {
                    xd::word(&head, 16 + (index * xd::MAX_IDENTIFIERS + i) * 4)
                };
                let fds = (0..count).map(|i| match list(1, i) {
                    xd::ID_TYPE_VIRTGPU_BLOB => HostDescriptor::Memory {
                        id: list(0, i),
                        untrusted_size_bytes: list(2, i),
                    },
                    xd::ID_TYPE_WRITE_PIPE => HostDescriptor::WritePipe(PipeId(list(0, i))),
                    _ => HostDescriptor::Unsupported,
                });
                let fds = fds.collect();
                Stats::add(&self.stats.receives, 1);
                Ok(Incoming::Wayland {
                    bytes: data(xd::SEND_RECEIVE_BYTES, len)?,
                    fds,
                })
            }
            xd::CMD_READ => Ok(Incoming::PipeData {
                id: PipeId(xd::word(&head, 8)),
                hang_up: xd::word(&head, 12) != 0,
                bytes: data(xd::READ_WRITE_BYTES, xd::word(&head, 16))?,
            }),
            // Nothing was written although the fence signalled: the context is gone.
            0 => Ok(Incoming::Closed),
            _ => Err(ChannelError::BadAnswer("an unknown message in the ring")),
        }
    }

    /// Takes events of the render node; true when the POLL's fence has signalled.
    fn poll_signalled(&mut self) -> Result<bool, ChannelError> {
        let mut bytes = [0; 256];
        let len = match rustix::io::read(&*self.device, &mut bytes[..]) {
            Ok(len) => len,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(false),
            Err(errno) => return Err(ChannelError::io("reading the render node")(errno)),
        };
        let mut rest = bytes.get(..len).unwrap_or_default();
        let mut signalled = false;
        while rest.len() >= 8 {
            signalled |= xd::word(rest, 0) == abi::EVENT_FENCE_SIGNALED;
            let event_len = (xd::word(rest, 4) as usize).max(8);
            rest = rest.get(event_len..).unwrap_or_default();
        }
        Ok(signalled && std::mem::take(&mut self.polling))
    }

    /// The host's name for memory of this size.
    fn image_id(&mut self, size: usize) -> Result<u32, ChannelError> {
        if let Some(id) = self.image_ids.get(&size) {
            return Ok(*id);
        }
        // One byte a pixel, one row for every page, or for every four where rows run out.
        let width = if size / PAGE_BYTES <= 16_384 {
            PAGE_BYTES
        } else {
            4 * PAGE_BYTES
        };
        let height = u32::try_from(size / width).map_err(|_| ChannelError::NoMemory(size))?;
        xd::header(&mut self.command, xd::CMD_GET_IMAGE_REQUIREMENTS, 24);
        xd::words(&mut self.command, &[width as u32, height, xd::FORMAT_R8, 0]);
        let fence = self.submit(
            abi::EXECBUF_RING_IDX | abi::EXECBUF_FENCE_FD_OUT,
            xd::QUERY_RING,
        )?;
        let fence = fence.ok_or(ChannelError::BadAnswer("no fence for a query"))?;
        let timeout = Timespec {
            tv_sec: QUERY_TIMEOUT_S,
            tv_nsec: 0,
        };
        loop {
            match rustix::event::poll(&mut [PollFd::new(&fence, PollFlags::IN)], Some(&timeout)) {
                Ok(1..) => break,
                Ok(0) => return Err(ChannelError::BadAnswer("no answer to a query")),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(ChannelError::io("waiting for a query")(errno)),
            }
        }
        let mut answer = [0; xd::IMAGE_REQUIREMENTS_BYTES];
        if !self.query_ring.mapping.read(0, &mut answer) {
            return Err(ChannelError::BadAnswer("the ring is too small"));
        }
        let (given, id) = (xd::word(&answer, 40) as usize, xd::word(&answer, 48));
        if given != size || id == 0 {
            return Err(ChannelError::NoMemory(size));
        }
        self.image_ids.insert(size, id);
        Ok(id)
    }
}

impl Channel for VirtgpuChannel {
    fn event_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    fn allocate(&mut self, size_bytes: usize) -> Result<HostMemory, ChannelError> {
        let size = size_bytes
            .checked_next_multiple_of(4 * PAGE_BYTES)
            .ok_or(ChannelError::NoMemory(size_bytes))?;
        let id = self.image_id(size)?;
        let request = abi::ResourceCreateBlob {
            blob_mem: abi::BLOB_MEM_HOST3D,
            blob_flags: abi::BLOB_FLAG_USE_MAPPABLE | abi::BLOB_FLAG_USE_SHAREABLE,
            size: size as u64,
            blob_id: u64::from(id),
            ..Default::default()
        };
        create_blob(&self.device, request, true)
    }

    fn open_read_pipe(&mut self) -> PipeId {
        // The host counts the same way: the first pipe is one above the start.
        self.last_read_pipe = self.last_read_pipe.wrapping_add(1);
        PipeId(self.last_read_pipe)
    }

    fn receiving_costs(&self) -> bool {
        !self.polling
    }

    fn flush(&mut self, out: &mut Outbox, receive: bool) -> Result<(), ChannelError> {
        loop {
            while !out.is_empty() && self.command.len() < MAX_COMMAND_BYTES - (1 << 16) {
                self.append_send(out)?;
            }
            let poll = receive && !self.polling && out.is_empty();
            if poll {
                // A context that died leaves the ring as it was: make that recognizable.
                let _ = self.channel_ring.mapping.write(0, &[0; 8]);
                xd::header(&mut self.command, xd::CMD_POLL, 8);
                self.submit(abi::EXECBUF_RING_IDX, xd::CHANNEL_RING)?;
                self.polling = true;
                self.just_received = false;
            } else if !self.command.is_empty() {
                self.submit(0, 0)?;
            }
            if out.is_empty() {
                return Ok(());
            }
        }
    }

    fn receive(&mut self) -> Result<Option<Incoming>, ChannelError> {
        if self.pipe_fences.is_empty() {
            // Nothing else can have happened than the next message, and just after one there is none:
            // it has not been asked for. (Once: whatever else makes the device readable is read then.)
            if std::mem::take(&mut self.just_received) {
                return Ok(None);
            }
            self.just_received = self.poll_signalled()?;
            return match self.just_received {
                true => self.read_ring().map(Some),
                false => Ok(None),
            };
        }
        let events = event::wait(&self.epoll, 8, Some(Timespec::default()))
            .map_err(ChannelError::io("waiting for the host"))?;
        for (token, _) in events {
            if token == DEVICE_TOKEN {
                if self.poll_signalled()? {
                    return self.read_ring().map(Some);
                }
            } else if let Ok(id) = u32::try_from(token)
                && let Some(fence) = self.pipe_fences.remove(&id)
            {
                let _ = epoll::delete(&self.epoll, &fence);
                return Ok(Some(Incoming::PipeWritable(PipeId(id))));
            }
        }
        Ok(None)
    }

    fn read_memory(&mut self, id: u32, len: usize) -> Result<Vec<u8>, ChannelError> {
        let size = len
            .checked_next_multiple_of(PAGE_BYTES)
            .filter(|size| (1..=MAX_RECEIVED_BYTES).contains(size));
        let size = size.ok_or(ChannelError::BadDescriptor(id))?;
        let request = abi::ResourceCreateBlob {
            blob_mem: abi::BLOB_MEM_HOST3D,
            blob_flags: abi::BLOB_FLAG_USE_MAPPABLE,
            size: size as u64,
            blob_id: u64::from(id),
            ..Default::default()
        };
        let memory = create_blob(&self.device, request, false)?;
        let mut bytes = vec![0; len];
        match memory.mapping.read(0, &mut bytes) {
            true => Ok(bytes),
            false => Err(ChannelError::BadDescriptor(id)),
        }
    }

    fn write_pipe(
        &mut self,
        id: PipeId,
        bytes: &[u8],
        hang_up: bool,
    ) -> Result<PipeWrite, ChannelError> {
        let size = (xd::READ_WRITE_BYTES + bytes.len()).next_multiple_of(4);
        xd::header(&mut self.command, xd::CMD_WRITE, size);
        xd::words(
            &mut self.command,
            &[id.0, u32::from(hang_up), bytes.len() as u32, 0],
        );
        self.command.extend_from_slice(bytes);
        self.command.resize(size, 0);
        // Fences of one ring signal in order: spread pipes over the rings that are left.
        let rings = xd::NUM_RINGS - xd::FIRST_PIPE_RING;
        let ring = xd::FIRST_PIPE_RING + (id.0 / 2) % rings;
        if hang_up {
            self.submit(abi::EXECBUF_RING_IDX, ring)?;
            return Ok(PipeWrite::Done);
        }
        let fence = self.submit(abi::EXECBUF_RING_IDX | abi::EXECBUF_FENCE_FD_OUT, ring)?;
        let Some(fence) = fence else {
            return Ok(PipeWrite::Done);
        };
        epoll::add(
            &self.epoll,
            &fence,
            EventData::new_u64(u64::from(id.0)),
            EventFlags::IN,
        )
        .map_err(ChannelError::io("watching a fence"))?;
        self.pipe_fences.insert(id.0, fence);
        Ok(PipeWrite::Pending)
    }
}
