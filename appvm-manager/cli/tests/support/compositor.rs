//! A compositor of the tests: answers, and keeps what it was told.

use std::io::IoSliceMut;
use std::os::fd::{FromRawFd, OwnedFd};

use std::io::Read;
use std::path::Path;

pub fn listen(path: &Path) -> OwnedFd {
    // SAFETY: plain system calls; results are checked, the address is initialised.
    unsafe {
        let fd = libc::socket(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC, 0);
        assert!(fd >= 0);
        let mut address: libc::sockaddr_un = std::mem::zeroed();
        address.sun_family = libc::AF_UNIX as u16;
        let bytes = path.as_os_str().as_encoded_bytes();
        for (to, from) in address.sun_path.iter_mut().zip(bytes) {
            *to = *from as libc::c_char;
        }
        let length = size_of::<libc::sockaddr_un>() as u32;
        assert_eq!(libc::bind(fd, (&raw const address).cast(), length), 0);
        assert_eq!(libc::listen(fd, 8), 0);
        OwnedFd::from_raw_fd(fd)
    }
}

pub fn accept(listener: &OwnedFd) -> std::os::unix::net::UnixStream {
    use std::os::fd::AsRawFd;
    // SAFETY: the listener is open; the result is checked.
    let fd = unsafe {
        libc::accept(
            listener.as_raw_fd(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
        )
    };
    assert!(fd >= 0);
    // SAFETY: the descriptor is new and nobody else owns it.
    std::os::unix::net::UnixStream::from(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// One packet; descriptors that came with it are counted by the kernel and dropped.
pub fn receive(stream: &mut std::os::unix::net::UnixStream) -> Option<serde_json::Value> {
    let mut buffer = [0; 65536];
    let count = stream
        .read_vectored(&mut [IoSliceMut::new(&mut buffer)])
        .ok()?;
    serde_json::from_slice(&buffer[..count]).ok()
}

/// One packet and at most four descriptors.
pub fn receive_with_descriptors(
    stream: &std::os::unix::net::UnixStream,
) -> Option<(serde_json::Value, Vec<OwnedFd>)> {
    use std::os::fd::AsRawFd;
    let mut buffer = vec![0_u8; 65536];
    // Aligned for the header of a control message.
    let mut control = [0_u64; 16];
    let mut part = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    let mut descriptors = Vec::new();
    // SAFETY: both buffers outlive the call and have the lengths that are said; the kernel fills the
    // control buffer with whole messages, and each descriptor in it is new and ours.
    let count = unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control);
        let count = libc::recvmsg(stream.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC);
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        if count > 0 && !header.is_null() && (*header).cmsg_type == libc::SCM_RIGHTS {
            let bytes = (*header).cmsg_len - libc::CMSG_LEN(0) as usize;
            let first = libc::CMSG_DATA(header).cast::<i32>();
            for index in 0..bytes / size_of::<i32>() {
                let fd = first.add(index).read_unaligned();
                descriptors.push(OwnedFd::from_raw_fd(fd));
            }
        }
        count
    };
    let packet = buffer.get(..usize::try_from(count).ok()?)?;
    Some((serde_json::from_slice(packet).ok()?, descriptors))
}
