//! A process that stays behind and reports a root that turns out to be damaged later.
//!
//! dm-verity answers a wrong block with an I/O error, so nothing of it runs; but a program that
//! dies of it says nothing that a person understands. The kernel also sends an event for each such
//! block. This process waits for them, in memory that no disk is needed for, and then stops the
//! desktop and says what is wrong.

use std::{
    fs::{self, File},
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    process::{Command, Stdio},
};

use crate::{
    error::BootError,
    quiet_kvm,
    screen::{Consoles, note},
};

/// The argument that turns this program into the watcher.
pub const ARGUMENT: &str = "watch";
/// `DM_VERITY_ENV_VAR_NAME` of `drivers/md/dm-verity-target.c`.
const EVENT: &[u8] = b"DM_VERITY_ERR_BLOCK_NR=";
const TITLE: &str = "Bulkhead was stopped";
/// What the kernel says when /dev/kvm appears.
const KVM_APPEARS: &[u8] = b"add@/devices/virtual/misc/kvm\0";
/// Services and whatever they started.
const SLICES: [&str; 2] = ["/sys/fs/cgroup/system.slice", "/sys/fs/cgroup/user.slice"];

/// A socket that receives the kernel's events (netlink(7), NETLINK_KOBJECT_UEVENT). Opened before
/// the root is used, so that no event is missed.
pub fn socket() -> io::Result<OwnedFd> {
    // SAFETY: plain system calls; the structure is valid and outlives the call, and the new
    // descriptor belongs to nobody else.
    unsafe {
        let socket = libc::socket(
            libc::AF_NETLINK,
            libc::SOCK_DGRAM | libc::SOCK_CLOEXEC,
            libc::NETLINK_KOBJECT_UEVENT,
        );
        if socket < 0 {
            return Err(io::Error::last_os_error());
        }
        let socket = OwnedFd::from_raw_fd(socket);
        let mut address: libc::sockaddr_nl = std::mem::zeroed();
        address.nl_family = libc::AF_NETLINK as libc::sa_family_t;
        // The kernel's own messages, not those that udev sends on.
        address.nl_groups = 1;
        let length = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
        if libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(socket)
    }
}

/// Starts the watcher with the socket as its standard input.
pub fn start(socket: OwnedFd) -> io::Result<()> {
    Command::new("/proc/self/exe")
        .arg(ARGUMENT)
        .stdin(Stdio::from(socket))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .env_clear()
        .spawn()?;
    Ok(())
}

/// The watcher: returns only if there is nothing to watch.
pub fn run() -> io::Result<()> {
    // SAFETY: no pointers. Later this memory could not be read back if it were given up.
    unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE) };
    // When memory is short, whoever reports what is wrong is the last to go.
    let _ = fs::write("/proc/self/oom_score_adj", "-1000");
    let mut buffer = vec![0_u8; 16 << 10];
    loop {
        match receive(&mut buffer) {
            Ok(length) => {
                let untrusted_message = buffer.get(..length).unwrap_or_default();
                if let Some(block) = damaged_block(untrusted_message) {
                    report(&block);
                }
                if untrusted_message.starts_with(KVM_APPEARS) && quiet_kvm::is_emulated() {
                    hold_kvm();
                }
            }
            // Events were lost because many came at once; one for a damaged block comes again
            // with the next read of it.
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn hold_kvm() {
    // The event comes a moment before the device.
    for _ in 0..50 {
        match quiet_kvm::hold() {
            Ok(()) => return note("an emulated processor: one machine is held"),
            Err(_) => std::thread::sleep(std::time::Duration::from_millis(20)),
        }
    }
    note("an emulated processor, but no machine can be held");
}

/// A message from the kernel itself; others are passed over.
fn receive(buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the kernel writes at most the given lengths to both, which outlive the call.
    unsafe {
        let mut from: libc::sockaddr_nl = std::mem::zeroed();
        let mut length = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
        let count = libc::recvfrom(
            0,
            buffer.as_mut_ptr().cast(),
            buffer.len(),
            0,
            (&raw mut from).cast(),
            &raw mut length,
        );
        match usize::try_from(count) {
            Err(_) => Err(io::Error::last_os_error()),
            // Only the kernel has port 0.
            Ok(_) if from.nl_pid != 0 => Ok(0),
            Ok(count) => Ok(count),
        }
    }
}

/// The block that an event names: "kind,number", where kind 0 is data and 1 is the hash tree.
fn damaged_block(message: &[u8]) -> Option<String> {
    let value = message
        .split(|byte| *byte == 0)
        .find_map(|field| field.strip_prefix(EVENT))?;
    let text = String::from_utf8_lossy(value.get(..value.len().min(40))?).into_owned();
    Some(match text.split_once(',') {
        Some(("1", number)) => format!("block {number} of the hash tree"),
        Some((_, number)) => format!("block {number}"),
        None => format!("block {text}"),
    })
}

fn report(block: &str) -> ! {
    // Frozen first: systemd then cannot start again what is killed.
    for (file, value) in [("cgroup.freeze", "1"), ("cgroup.kill", "1")] {
        for slice in SLICES {
            let _ = fs::write(format!("{slice}/{file}"), value);
        }
    }
    // The display's owner is gone; now the kernel may show text again.
    std::thread::sleep(std::time::Duration::from_millis(300));
    show_text();
    rustix::fs::sync();
    let error = BootError::RootDamagedLater {
        reason: format!("{block} does not match its hash"),
    };
    Consoles::open().stop(TITLE, &error.to_string())
}

/// Leaves the graphics mode that the compositor's seat had set (console_ioctl(2)).
fn show_text() {
    const KDSETMODE: u64 = 0x4b3a;
    const KD_TEXT: u64 = 0;
    const KDSKBMODE: u64 = 0x4b45;
    const K_UNICODE: u64 = 3;
    if let Ok(terminal) = File::options().read(true).write(true).open("/dev/tty0") {
        // SAFETY: both take a number, no pointer.
        unsafe {
            libc::ioctl(terminal.as_raw_fd(), KDSKBMODE, K_UNICODE);
            libc::ioctl(terminal.as_raw_fd(), KDSETMODE, KD_TEXT);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_event_is_understood() {
        let event = b"change@/devices/virtual/block/dm-0\0ACTION=change\0DM_VERITY_ERR_BLOCK_NR=0,4711\0SEQNUM=9\0";
        assert_eq!(damaged_block(event).as_deref(), Some("block 4711"));
        let tree = b"x\0DM_VERITY_ERR_BLOCK_NR=1,3\0";
        assert_eq!(
            damaged_block(tree).as_deref(),
            Some("block 3 of the hash tree")
        );
    }

    #[test]
    fn other_messages_are_not() {
        for message in [
            b"".as_slice(),
            b"\0\0\0",
            b"libudev\0DM_VERITY",
            b"add@/x\0MODALIAS=DM_VERITY_ERR_BLOCK_NR=0,1\0",
        ] {
            assert_eq!(damaged_block(message), None);
        }
        let long = [b"DM_VERITY_ERR_BLOCK_NR=".as_slice(), &[b'9'; 10_000]].concat();
        assert!(damaged_block(&long).is_some_and(|text| text.len() < 60));
    }
}
