//! A guest program that speaks to virtio-gpu's cross-domain context itself, without our proxy.
//!
//! The numbers are Linux's `virtgpu_drm.h` and rutabaga's `cross_domain_protocol.rs`.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

const EXECBUF_FENCE_FD_OUT: u32 = 2;
const EXECBUF_RING_IDX: u32 = 4;
const CAPSET_CROSS_DOMAIN: u64 = 5;
const CHANNEL_WAYLAND: u32 = 1;
/// Blob memory in the guest's own RAM.
pub const BLOB_GUEST: u32 = 1;
/// Blob memory on the host.
pub const BLOB_HOST3D: u32 = 2;
/// Bytes of a ring.
pub const RING_BYTES: u64 = 16384;

/// Cross-domain INIT.
pub const CMD_INIT: u8 = 1;
/// Cross-domain GET_IMAGE_REQUIREMENTS.
pub const CMD_REQUIREMENTS: u8 = 2;
/// Cross-domain POLL.
pub const CMD_POLL: u8 = 3;
/// Cross-domain SEND.
pub const CMD_SEND: u8 = 4;
/// Cross-domain WRITE.
pub const CMD_WRITE: u8 = 7;

#[repr(C)]
#[derive(Default)]
struct ExecBuffer {
    flags: u32,
    size: u32,
    command: u64,
    bo_handles: u64,
    num_bo_handles: u32,
    fence_fd: i32,
    ring_idx: u32,
    syncobj_stride: u32,
    num_in_syncobjs: u32,
    num_out_syncobjs: u32,
    in_syncobjs: u64,
    out_syncobjs: u64,
}

#[repr(C)]
#[derive(Default)]
struct CreateBlob {
    blob_mem: u32,
    blob_flags: u32,
    bo_handle: u32,
    res_handle: u32,
    size: u64,
    pad: u32,
    cmd_size: u32,
    cmd: u64,
    blob_id: u64,
}

#[repr(C)]
#[derive(Default)]
struct Map {
    offset: u64,
    handle: u32,
    pad: u32,
}

#[repr(C)]
struct ContextInit {
    num_params: u32,
    pad: u32,
    params: u64,
}

/// A blob: its GEM handle and its virtio resource number.
#[derive(Debug, Clone, Copy)]
pub struct Blob {
    /// GEM handle.
    pub bo: u32,
    /// Virtio resource id.
    pub resource: u32,
    /// Size in bytes.
    pub bytes: u64,
}

/// One render node opened as one cross-domain context.
pub struct Gpu {
    node: OwnedFd,
}

fn ioctl<T>(node: &OwnedFd, number: u8, argument: &mut T) -> io::Result<()> {
    // _IOWR('d', 0x40 + number, T)
    let request = 3u64 << 30
        | (size_of::<T>() as u64) << 16
        | u64::from(b'd') << 8
        | u64::from(0x40 + number);
    loop {
        // SAFETY: `argument` is a live, exclusively borrowed struct of the size that the request
        // number carries, laid out as the kernel's uapi says.
        let result = unsafe { libc::ioctl(node.as_raw_fd(), request as _, argument as *mut T) };
        if result == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

impl Gpu {
    /// Opens the first render node and makes its cross-domain context.
    pub fn open() -> io::Result<Gpu> {
        let file = std::fs::File::options()
            .read(true)
            .write(true)
            .open("/dev/dri/renderD128")?;
        let gpu = Gpu { node: file.into() };
        // CAPSET_ID, NUM_RINGS, POLL_RINGS_MASK
        let params: [[u64; 2]; 3] = [[1, CAPSET_CROSS_DOMAIN], [2, 8], [3, 2]];
        let mut init = ContextInit {
            num_params: 3,
            pad: 0,
            params: params.as_ptr() as u64,
        };
        ioctl(&gpu.node, 0x0b, &mut init)?;
        Ok(gpu)
    }

    /// Creates a blob; the kernel does not wait for the host's verdict.
    pub fn blob(&self, memory: u32, blob_id: u64, bytes: u64) -> io::Result<Blob> {
        let mut blob = CreateBlob {
            blob_mem: memory,
            blob_flags: 1,
            size: bytes,
            blob_id,
            ..CreateBlob::default()
        };
        ioctl(&self.node, 0x0a, &mut blob)?;
        Ok(Blob {
            bo: blob.bo_handle,
            resource: blob.res_handle,
            bytes,
        })
    }

    /// Maps a blob; the slice lives as long as the process.
    pub fn map(&self, blob: Blob) -> io::Result<&'static mut [u8]> {
        let mut map = Map {
            handle: blob.bo,
            ..Map::default()
        };
        ioctl(&self.node, 0x01, &mut map)?;
        let length = usize::try_from(blob.bytes).map_err(io::Error::other)?;
        // SAFETY: a new shared mapping at an address of the kernel's choice, never unmapped, so
        // that the returned slice stays valid; this process touches it from one thread.
        unsafe {
            let address = libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                self.node.as_raw_fd(),
                libc::off_t::try_from(map.offset).map_err(io::Error::other)?,
            );
            if address == libc::MAP_FAILED {
                return Err(io::Error::last_os_error());
            }
            Ok(std::slice::from_raw_parts_mut(address.cast(), length))
        }
    }

    /// Submits commands on a ring and returns the fence's descriptor.
    pub fn submit(&self, commands: &[u8], ring: u32) -> io::Result<OwnedFd> {
        let mut exec = ExecBuffer {
            flags: EXECBUF_RING_IDX | EXECBUF_FENCE_FD_OUT,
            size: u32::try_from(commands.len()).map_err(io::Error::other)?,
            command: commands.as_ptr() as u64,
            ring_idx: ring,
            ..ExecBuffer::default()
        };
        ioctl(&self.node, 0x02, &mut exec)?;
        // SAFETY: the kernel has just made this descriptor for us and nobody else knows it.
        Ok(unsafe { OwnedFd::from_raw_fd(exec.fence_fd) })
    }

    /// Submits and waits for the fence; false when it did not signal in time.
    pub fn submit_and_wait(&self, commands: &[u8], ring: u32, time: Duration) -> io::Result<bool> {
        wait(&self.submit(commands, ring)?, time)
    }

    /// Creates both rings and sends INIT.
    pub fn init(&self) -> io::Result<Rings> {
        let query = self.blob(BLOB_GUEST, 0, RING_BYTES)?;
        let channel = self.blob(BLOB_GUEST, 0, RING_BYTES)?;
        let rings = Rings {
            query_memory: self.map(query)?,
            channel_memory: self.map(channel)?,
            query,
            channel,
        };
        self.submit_and_wait(
            &init_command(rings.query.resource, rings.channel.resource),
            0,
            Duration::from_secs(10),
        )?;
        Ok(rings)
    }

    /// Whether a context answers an image query, the simplest question that needs the host.
    pub fn answers(&self, rings: &mut Rings) -> io::Result<bool> {
        rings.query_memory[..64].fill(0);
        let done = self.submit_and_wait(
            &requirements_command(64, 64, u32::from_le_bytes(*b"XR24")),
            0,
            Duration::from_secs(10),
        )?;
        // strides[0] of CrossDomainImageRequirements
        Ok(done && rings.query_memory[..4] == 256u32.to_le_bytes())
    }
}

/// The two rings of a context.
pub struct Rings {
    /// Where answers to queries arrive.
    pub query: Blob,
    /// Where messages of the channel arrive.
    pub channel: Blob,
    /// The query ring's bytes.
    pub query_memory: &'static mut [u8],
    /// The channel ring's bytes.
    pub channel_memory: &'static mut [u8],
}

impl Rings {
    /// A little-endian word of the channel ring.
    pub fn channel_word(&self, offset: usize) -> u32 {
        self.channel_memory
            .get(offset..offset + 4)
            .and_then(|bytes| bytes.try_into().ok())
            .map_or(0, u32::from_le_bytes)
    }
}

/// Waits for a fence.
pub fn wait(fence: &OwnedFd, time: Duration) -> io::Result<bool> {
    let mut poll = libc::pollfd {
        fd: fence.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    let milliseconds = i32::try_from(time.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: one valid pollfd, borrowed for the duration of the call.
    let result = unsafe { libc::poll(&raw mut poll, 1, milliseconds) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result == 1)
}

/// Any command: header with the size it claims, then words.
pub fn command(cmd: u8, claimed_size: u16, words: &[u32]) -> Vec<u8> {
    let mut bytes = vec![cmd, 0];
    bytes.extend_from_slice(&claimed_size.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    for word in words {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes
}

/// INIT for a Wayland channel.
pub fn init_command(query: u32, channel: u32) -> Vec<u8> {
    command(CMD_INIT, 20, &[query, channel, CHANNEL_WAYLAND])
}

/// GET_IMAGE_REQUIREMENTS.
pub fn requirements_command(width: u32, height: u32, format: u32) -> Vec<u8> {
    command(CMD_REQUIREMENTS, 24, &[width, height, format, 0])
}

/// SEND with identifiers (id, type) and data; the counts can be made to lie.
pub fn send_command(
    identifiers: &[(u32, u32)],
    data: &[u8],
    claimed_identifiers: u32,
    claimed_bytes: u32,
) -> Vec<u8> {
    let mut words = vec![claimed_identifiers, claimed_bytes];
    let mut table = [0u32; 84];
    for (n, (id, kind)) in identifiers.iter().take(28).enumerate() {
        table[n] = *id;
        table[28 + n] = *kind;
    }
    words.extend_from_slice(&table);
    let size = u16::try_from(8 + words.len() * 4 + data.len()).unwrap_or(u16::MAX);
    let mut bytes = command(CMD_SEND, size, &words);
    bytes.extend_from_slice(data);
    bytes
}
