//! The kernel's virtio-gpu interface (`include/uapi/drm/virtgpu_drm.h`) and the cross-domain
//! protocol that travels through it, as far as the proxy uses them.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// The cross-domain capability set.
pub const CAPSET_CROSS_DOMAIN: u32 = 5;

pub const CONTEXT_PARAM_CAPSET_ID: u64 = 1;
pub const CONTEXT_PARAM_NUM_RINGS: u64 = 2;
pub const CONTEXT_PARAM_POLL_RINGS_MASK: u64 = 3;

pub const EXECBUF_FENCE_FD_OUT: u32 = 0x02;
pub const EXECBUF_RING_IDX: u32 = 0x04;

pub const BLOB_MEM_GUEST: u32 = 1;
pub const BLOB_MEM_HOST3D: u32 = 2;
pub const BLOB_FLAG_USE_MAPPABLE: u32 = 1;
pub const BLOB_FLAG_USE_SHAREABLE: u32 = 2;

/// `VIRTGPU_EVENT_FENCE_SIGNALED`, read from the render node.
pub const EVENT_FENCE_SIGNALED: u32 = 0x9000_0000;

#[repr(C)]
#[derive(Default)]
pub struct Map {
    pub offset: u64,
    pub handle: u32,
    pub pad: u32,
}

#[repr(C)]
#[derive(Default)]
pub struct ExecBuffer {
    pub flags: u32,
    pub size: u32,
    pub command: u64,
    pub bo_handles: u64,
    pub num_bo_handles: u32,
    pub fence_fd: i32,
    pub ring_idx: u32,
    pub pad: u32,
}

#[repr(C)]
#[derive(Default)]
pub struct GetCaps {
    pub cap_set_id: u32,
    pub cap_set_ver: u32,
    pub addr: u64,
    pub size: u32,
    pub pad: u32,
}

#[repr(C)]
#[derive(Default)]
pub struct ResourceCreateBlob {
    pub blob_mem: u32,
    pub blob_flags: u32,
    pub bo_handle: u32,
    pub res_handle: u32,
    pub size: u64,
    pub pad: u32,
    pub cmd_size: u32,
    pub cmd: u64,
    pub blob_id: u64,
}

#[repr(C)]
#[derive(Default)]
pub struct ContextSetParam {
    pub param: u64,
    pub value: u64,
}

#[repr(C)]
#[derive(Default)]
pub struct ContextInit {
    pub num_params: u32,
    pub pad: u32,
    pub ctx_set_params: u64,
}

#[repr(C)]
#[derive(Default)]
pub struct GemClose {
    pub handle: u32,
    pub pad: u32,
}

/// A structure that is the argument of one ioctl and of no other.
///
/// # Safety
///
/// The structure must have the layout that the kernel expects for this request, and every address
/// in it must be valid for what the kernel does with it during the call.
pub unsafe trait Request {
    /// The request's number.
    const REQUEST: libc::c_ulong;
}

const fn number(directions: libc::c_ulong, nr: libc::c_ulong, size: usize) -> libc::c_ulong {
    directions << 30 | (size as libc::c_ulong) << 16 | (b'd' as libc::c_ulong) << 8 | nr
}

macro_rules! requests {
    ($($type:ident = $directions:literal $nr:literal, $size:literal bytes;)*) => {
        $(
            const _: () = assert!(size_of::<$type>() == $size);
            // SAFETY: the structure is the one of the kernel's header, its size is checked above;
            // addresses in it are the caller's to keep valid, which the callers below this file do.
            unsafe impl Request for $type {
                const REQUEST: libc::c_ulong = number($directions, $nr, $size);
            }
        )*
    };
}

requests! {
    Map = 3 0x41, 16 bytes;
    ExecBuffer = 3 0x42, 40 bytes;
    GetCaps = 3 0x49, 24 bytes;
    ResourceCreateBlob = 3 0x4a, 48 bytes;
    ContextInit = 3 0x4b, 16 bytes;
    GemClose = 1 0x09, 8 bytes;
}

/// Makes the ioctl whose argument this is.
///
/// # Safety
///
/// Addresses inside the argument must be valid for what the kernel does with them.
pub unsafe fn ioctl<T: Request>(device: BorrowedFd<'_>, argument: &mut T) -> io::Result<()> {
    loop {
        let pointer = std::ptr::from_mut(argument);
        // SAFETY: the request belongs to the argument's type, which is borrowed for the call;
        // addresses inside are valid by this function's contract.
        if unsafe { libc::ioctl(device.as_raw_fd(), T::REQUEST, pointer) } >= 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EINTR | libc::EAGAIN) => {}
            _ => return Err(error),
        }
    }
}

/// Commands of the cross-domain protocol.
pub mod cross_domain {
    pub const CMD_INIT: u8 = 1;
    pub const CMD_GET_IMAGE_REQUIREMENTS: u8 = 2;
    pub const CMD_POLL: u8 = 3;
    pub const CMD_SEND: u8 = 4;
    pub const CMD_RECEIVE: u8 = 5;
    pub const CMD_READ: u8 = 6;
    pub const CMD_WRITE: u8 = 7;

    pub const CHANNEL_TYPE_WAYLAND: u32 = 1;

    pub const ID_TYPE_VIRTGPU_BLOB: u32 = 1;
    pub const ID_TYPE_READ_PIPE: u32 = 3;
    pub const ID_TYPE_WRITE_PIPE: u32 = 4;

    pub const MAX_IDENTIFIERS: usize = 28;
    pub const READ_PIPE_START: u32 = 0x8000_0000;

    /// Ring 0 carries answers to queries, ring 1 what [`CMD_POLL`] waits for; from ring 2 on
    /// fences tell that pipes have taken what was written.
    pub const QUERY_RING: u32 = 0;
    pub const CHANNEL_RING: u32 = 1;
    pub const FIRST_PIPE_RING: u32 = 2;
    pub const NUM_RINGS: u32 = 8;

    pub const SEND_RECEIVE_BYTES: usize = 352;
    pub const READ_WRITE_BYTES: usize = 24;
    pub const IMAGE_REQUIREMENTS_BYTES: usize = 64;
    /// The 16-bit size of a command limits what one SEND can carry.
    pub const MAX_SEND_DATA_BYTES: usize = 65_180;
    /// `DRM_FORMAT_R8`: one byte a pixel, which is how plain memory is asked for.
    pub const FORMAT_R8: u32 = u32::from_le_bytes(*b"R8  ");

    /// Appends words as the wire has them.
    pub fn words(out: &mut Vec<u8>, words: &[u32]) {
        for word in words {
            out.extend_from_slice(&word.to_le_bytes());
        }
    }

    /// Appends a command's header.
    pub fn header(out: &mut Vec<u8>, cmd: u8, size: usize) {
        out.extend_from_slice(&[cmd, 0]);
        out.extend_from_slice(&u16::try_from(size).unwrap_or(u16::MAX).to_le_bytes());
        out.extend_from_slice(&[0; 4]);
    }

    /// Reads the word at a byte offset, 0 when it is not there.
    pub fn word(bytes: &[u8], offset: usize) -> u32 {
        bytes
            .get(offset..)
            .and_then(|rest| rest.first_chunk::<4>())
            .map_or(0, |word| u32::from_le_bytes(*word))
    }
}
