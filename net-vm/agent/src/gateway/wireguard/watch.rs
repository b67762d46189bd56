//! Waits until something about the tunnel may have changed: a file in a folder, an interface of the
//! guest, or the end of a program. Nothing is asked again and again.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

/// `linux/rtnetlink.h`: interfaces that come, go and change.
const RTMGRP_LINK: u32 = 1;

/// What is watched always.
pub struct Watch {
    interfaces: OwnedFd,
    files: OwnedFd,
}

impl Watch {
    /// Begins to watch interfaces, and the files in `folder`.
    pub fn begin(folder: &Path) -> io::Result<Self> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: no pointers; the result is checked.
        let interfaces = unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_ROUTE) };
        let interfaces = owned(interfaces)?;
        // SAFETY: a sockaddr_nl is plain old data, for which zeroes are valid.
        let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        address.nl_family = libc::AF_NETLINK as libc::sa_family_t;
        address.nl_groups = RTMGRP_LINK;
        // SAFETY: the address is borrowed for the call, with its length.
        let bound = unsafe {
            libc::bind(
                interfaces.as_raw_fd(),
                std::ptr::from_ref(&address).cast(),
                size_of_val(&address) as libc::socklen_t,
            )
        };
        check(bound)?;
        // SAFETY: no pointers; the result is checked.
        let files = unsafe { libc::inotify_init1(libc::IN_CLOEXEC | libc::IN_NONBLOCK) };
        let files = owned(files)?;
        let folder = std::ffi::CString::new(folder.as_os_str().as_bytes())?;
        let events = libc::IN_CLOSE_WRITE
            | libc::IN_MOVED_TO
            | libc::IN_MOVED_FROM
            | libc::IN_DELETE
            | libc::IN_ATTRIB;
        // SAFETY: the path is a C string that lives until the call returns.
        let added = unsafe { libc::inotify_add_watch(files.as_raw_fd(), folder.as_ptr(), events) };
        check(added)?;
        Ok(Watch { interfaces, files })
    }

    /// Waits for a change, the end of the process `program`, or the end of `patience`.
    pub fn wait(&mut self, program: Option<u32>, patience: Option<Duration>) -> io::Result<()> {
        let program = program.map(open_process).transpose()?;
        let watched = [Some(&self.interfaces), Some(&self.files), program.as_ref()];
        let mut entries: Vec<libc::pollfd> = watched
            .into_iter()
            .flatten()
            .map(|fd| libc::pollfd {
                fd: fd.as_raw_fd(),
                events: libc::POLLIN,
                revents: 0,
            })
            .collect();
        let timeout = patience.map_or(-1, |patience| patience.as_millis() as libc::c_int);
        // SAFETY: the entries are borrowed for the call, with their count.
        let ready =
            unsafe { libc::poll(entries.as_mut_ptr(), entries.len() as libc::nfds_t, timeout) };
        match check(ready) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        // What is in them does not matter: the caller looks at everything.
        self.forget();
        Ok(())
    }

    /// Changes so far do not count.
    pub fn forget(&mut self) {
        drain(&self.interfaces);
        drain(&self.files);
    }
}

/// A descriptor that can be read when the process, a child, has ended.
fn open_process(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers; the result is checked.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    owned(fd as libc::c_int)
}

fn drain(fd: &OwnedFd) {
    let mut bytes = [0_u8; 4096];
    loop {
        // SAFETY: the buffer is borrowed for the call, with its length.
        let read = unsafe { libc::read(fd.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len()) };
        // Too much was there (ENOBUFS): that is news as well, and what is left can be read.
        let lost = || io::Error::last_os_error().raw_os_error() == Some(libc::ENOBUFS);
        if read <= 0 && !(read < 0 && lost()) {
            return;
        }
    }
}

fn owned(fd: libc::c_int) -> io::Result<OwnedFd> {
    check(fd)?;
    // SAFETY: the descriptor is new and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    match result {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    const LONG: Option<Duration> = Some(Duration::from_secs(20));

    #[test]
    fn files_and_ends_of_programs_are_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let mut watch = Watch::begin(folder.path()).unwrap();
        let begin = Instant::now();
        std::fs::write(folder.path().join("a"), "x").unwrap();
        watch.wait(None, LONG).unwrap();
        let mut child = std::process::Command::new("true").spawn().unwrap();
        watch.wait(Some(child.id()), LONG).unwrap();
        assert!(begin.elapsed() < Duration::from_secs(15));
        child.wait().unwrap();
        // Nothing else was left to be read.
        let begin = Instant::now();
        watch.wait(None, Some(Duration::from_millis(50))).unwrap();
        assert!(begin.elapsed() >= Duration::from_millis(40));
    }
}
