//! Starting processes and learning of their end. PID 1 inherits every orphan of the machine, so
//! one thread waits for all of them and tells whoever started one.

use std::{
    collections::HashMap,
    io,
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Child, Command},
    sync::{Mutex, MutexGuard, PoisonError, mpsc},
};

use rustix::process::{Pid, WaitId, WaitIdOptions, WaitOptions, wait, waitid};

use crate::protocol::Exit;

static WAITERS: Mutex<Option<HashMap<i32, mpsc::Sender<Exit>>>> = Mutex::new(None);

fn waiters() -> MutexGuard<'static, Option<HashMap<i32, mpsc::Sender<Exit>>>> {
    WAITERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Who a process becomes before it runs its program.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The user and the group of the same number.
    pub id: u32,
    /// More groups.
    pub groups: Vec<u32>,
    /// The root folder.
    pub root: Option<PathBuf>,
    /// The working folder, seen from that root.
    pub folder: PathBuf,
}

/// Starts a command in a session and process group of its own; the receiver gets its end.
pub fn spawn(
    command: &mut Command,
    identity: Identity,
) -> io::Result<(Child, mpsc::Receiver<Exit>)> {
    // SAFETY: between fork and exec only plain system calls, on memory prepared before the fork.
    unsafe {
        command.pre_exec(move || become_identity(&identity));
    }
    let (sender, receiver) = mpsc::channel();
    // Held over the start: the reaper must not take the end of a process before it is known, nor
    // that of a failed start, which the standard library waits for itself.
    let mut waiters = waiters();
    let child = command.spawn()?;
    waiters
        .get_or_insert_with(HashMap::new)
        .insert(child.id().cast_signed(), sender);
    Ok((child, receiver))
}

fn become_identity(identity: &Identity) -> io::Result<()> {
    rustix::process::setsid()?;
    if let Some(root) = &identity.root {
        rustix::process::chroot(root)?;
    }
    if rustix::process::chdir(&identity.folder).is_err() {
        rustix::process::chdir("/")?;
    }
    if identity.id != 0 {
        let check = |result: libc::c_int| {
            if result == 0 {
                Ok(())
            } else {
                Err(io::Error::last_os_error())
            }
        };
        // SAFETY: plain system calls; the group list lives until after the call.
        unsafe {
            check(libc::setgroups(
                identity.groups.len(),
                identity.groups.as_ptr(),
            ))?;
            check(libc::setgid(identity.id))?;
            check(libc::setuid(identity.id))?;
        }
    }
    Ok(())
}

/// Starts the thread that waits for every process of the machine.
pub fn start_reaper() {
    std::thread::spawn(|| {
        loop {
            // Look first, take later: see `spawn`.
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            if !matches!(waitid(WaitId::All, options), Ok(Some(_))) {
                std::thread::sleep(std::time::Duration::from_millis(20));
                continue;
            }
            let mut waiters = waiters();
            while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
                let exit = match (status.exit_status(), status.terminating_signal()) {
                    (Some(status), _) => Exit::Status(status),
                    (None, Some(signal)) => Exit::Signal(signal),
                    (None, None) => continue,
                };
                let sender = waiters
                    .as_mut()
                    .and_then(|map| map.remove(&Pid::as_raw(Some(pid))));
                if let Some(sender) = sender {
                    let _ = sender.send(exit);
                }
            }
        }
    });
}
