//! Starts a program: its user, session, terminal, folder and descriptors.
//!
//! The standard library's `Command` waits for its child itself when `exec` fails, which PID 1's
//! reaper may have done already; so this is our own `fork` and `exec`.

use std::ffi::{CString, NulError};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::reaper::{Child, Reaper};

/// A program to start.
pub struct Program<'a> {
    /// The program, looked up in the environment's PATH, and its arguments.
    pub argv: Vec<String>,
    /// The whole environment.
    pub environment: Vec<(String, String)>,
    /// Where it starts; a missing folder becomes `/`.
    pub cwd: PathBuf,
    /// The user's and the group's number that it gets; `None` keeps ours.
    pub ids: Option<(u32, u32)>,
    /// Its standard descriptors.
    pub stdio: [BorrowedFd<'a>; 3],
    /// Descriptor 0 is to be its controlling terminal.
    pub terminal: bool,
    /// The name that the program sees as `argv[0]`, where it differs.
    pub arg0: Option<String>,
    /// A listening socket that it gets as descriptor 3.
    pub listener: Option<BorrowedFd<'a>>,
}

/// Why a program did not start.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// No such program.
    #[error("{0}: command not found in this domain")]
    NotFound(String),
    /// It exists but cannot be run.
    #[error("{0}: cannot be executed: {1}")]
    NotExecutable(String, io::Error),
    /// A string with a zero byte.
    #[error("an argument contains a zero byte")]
    Zero(#[from] NulError),
    /// The guest lacks something.
    #[error("no process could be made: {0}")]
    Io(#[from] io::Error),
}

impl SpawnError {
    /// The exit status that shells use for this.
    pub fn status(&self) -> u8 {
        match self {
            SpawnError::NotFound(_) => 127,
            SpawnError::NotExecutable(..) => 126,
            SpawnError::Zero(_) | SpawnError::Io(_) => 125,
        }
    }
}

/// The file that `name` stands for.
fn look_up(name: &str, path: &str, cwd: &Path) -> Result<PathBuf, SpawnError> {
    let executable = |file: &Path| {
        fs::metadata(file)
            .is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
    };
    if name.contains('/') {
        let file = cwd.join(name);
        return if executable(&file) {
            Ok(file)
        } else if file.exists() {
            let error = io::Error::from(io::ErrorKind::PermissionDenied);
            Err(SpawnError::NotExecutable(name.to_owned(), error))
        } else {
            Err(SpawnError::NotFound(name.to_owned()))
        };
    }
    path.split(':')
        .filter(|folder| !folder.is_empty() && !name.is_empty())
        .map(|folder| Path::new(folder).join(name))
        .find(|file| executable(file))
        .ok_or_else(|| SpawnError::NotFound(name.to_owned()))
}

/// Pointers to C strings, with the null pointer that ends the list.
fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings
        .iter()
        .map(|s| s.as_ptr())
        .chain([std::ptr::null()])
        .collect()
}

/// A copy of a descriptor, numbered `least` or more, closed on exec.
fn above(fd: BorrowedFd<'_>, least: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the descriptor is borrowed for the call.
    let copy = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, least) };
    if copy < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// A pipe, closed on exec: (reader, writer).
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: `ends` has room for two descriptors.
    if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: both descriptors are new and nobody else owns them.
    Ok(unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) })
}

/// Everything that the child needs between `fork` and `exec`, where it may allocate nothing.
struct Prepared {
    file: CString,
    argv: Vec<*const libc::c_char>,
    environment: Vec<*const libc::c_char>,
    cwd: CString,
    ids: Option<(u32, u32)>,
    stdio: [RawFd; 3],
    terminal: bool,
    listener: Option<RawFd>,
    report: RawFd,
}

impl Prepared {
    /// In the child: becomes the program, or writes `errno` to the report pipe.
    ///
    /// # Safety
    /// Only right after `fork`, in the child.
    unsafe fn exec(&self) -> ! {
        // SAFETY: only async-signal-safe calls; every pointer belongs to strings that the parent
        // made before the fork, and this process has a copy of them.
        unsafe {
            let mut mask = std::mem::zeroed();
            libc::sigemptyset(&mut mask);
            libc::sigprocmask(libc::SIG_SETMASK, &mask, std::ptr::null_mut());
            // Rust ignores SIGPIPE; programs expect the default.
            libc::signal(libc::SIGPIPE, libc::SIG_DFL);
            libc::setsid();
            for (target, source) in (0..).zip(self.stdio) {
                if libc::dup2(source, target) < 0 {
                    self.give_up();
                }
            }
            if self.terminal && libc::ioctl(0, libc::TIOCSCTTY, 0) < 0 {
                self.give_up();
            }
            if let Some((uid, gid)) = self.ids {
                let failed = libc::setgroups(0, std::ptr::null()) != 0
                    || libc::setgid(gid) != 0
                    || libc::setuid(uid) != 0;
                if failed {
                    self.give_up();
                }
            }
            libc::close_range(3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC as i32);
            if let Some(listener) = self.listener
                && libc::dup2(listener, 3) < 0
            {
                self.give_up();
            }
            libc::umask(0o022);
            if libc::chdir(self.cwd.as_ptr()) != 0 {
                libc::chdir(c"/".as_ptr());
            }
            libc::execve(
                self.file.as_ptr(),
                self.argv.as_ptr(),
                self.environment.as_ptr(),
            );
            self.give_up();
        }
    }

    /// # Safety
    /// As [`Prepared::exec`].
    unsafe fn give_up(&self) -> ! {
        // SAFETY: `errno` is this thread's; the report pipe is open.
        unsafe {
            let errno = (*libc::__errno_location()).to_ne_bytes();
            libc::write(self.report, errno.as_ptr().cast(), errno.len());
            libc::_exit(127)
        }
    }
}

impl Program<'_> {
    /// Starts it in a session and process group of its own.
    pub fn spawn(&self, reaper: &Reaper) -> Result<Child, SpawnError> {
        let name = self.argv.first().cloned().unwrap_or_default();
        let variable = |wanted: &str| {
            self.environment
                .iter()
                .rev()
                .find(|(name, _)| name == wanted)
                .map(|(_, v)| v.as_str())
        };
        let file = look_up(
            &name,
            variable("PATH").unwrap_or("/usr/bin:/bin"),
            &self.cwd,
        )?;
        let mut argv: Vec<CString> = self
            .argv
            .iter()
            .map(|text| CString::new(text.as_str()))
            .collect::<Result<_, _>>()?;
        if let (Some(arg0), Some(first)) = (&self.arg0, argv.first_mut()) {
            *first = CString::new(arg0.as_str())?;
        }
        let environment: Vec<CString> = self
            .environment
            .iter()
            .map(|(name, value)| CString::new(format!("{name}={value}")))
            .collect::<Result<_, _>>()?;
        let stdio = [
            above(self.stdio[0], 3)?,
            above(self.stdio[1], 3)?,
            above(self.stdio[2], 3)?,
        ];
        // Above 3, so that making it descriptor 3 always makes a new one, without the flag that
        // closes it; the same for the report pipe, which must not be overwritten.
        let listener = self.listener.map(|fd| above(fd, 4)).transpose()?;
        let (reader, low_writer) = pipe()?;
        let writer = above(low_writer.as_fd(), 4)?;
        // Only the copy may stay: the reader waits until no writer is left.
        drop(low_writer);
        let prepared = Prepared {
            file: crate::files::c_path(&file)?,
            argv: pointers(&argv),
            environment: pointers(&environment),
            cwd: crate::files::c_path(&self.cwd)?,
            ids: self.ids,
            stdio: [
                stdio[0].as_raw_fd(),
                stdio[1].as_raw_fd(),
                stdio[2].as_raw_fd(),
            ],
            terminal: self.terminal,
            listener: listener.as_ref().map(AsRawFd::as_raw_fd),
            report: writer.as_raw_fd(),
        };
        let child = reaper.register(|| {
            // SAFETY: the child only calls `exec`, which allocates nothing and takes no lock.
            match unsafe { libc::fork() } {
                -1 => Err(io::Error::last_os_error()),
                // SAFETY: this is the child, right after the fork.
                0 => unsafe { prepared.exec() },
                pid => Ok(pid),
            }
        })?;
        drop(writer);
        let mut errno = [0; 4];
        match File::from(reader).read(&mut errno) {
            Ok(4) => {
                let error = io::Error::from_raw_os_error(i32::from_ne_bytes(errno));
                Err(SpawnError::NotExecutable(name, error))
            }
            _ => Ok(child),
        }
    }
}

/// `/dev/null` for reading and writing.
pub fn null() -> io::Result<OwnedFd> {
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    // SAFETY: the descriptor was just taken out of its owner.
    Ok(unsafe { OwnedFd::from_raw_fd(file.into_raw_fd()) })
}

#[cfg(test)]
mod tests {
    use bulkhead_protocol::ExitReason;

    use super::*;

    fn run(reaper: &Reaper, argv: &[&str]) -> Result<Child, SpawnError> {
        let null = null().unwrap();
        Program {
            argv: argv.iter().map(|&text| text.to_owned()).collect(),
            environment: vec![("PATH".into(), "/usr/bin:/bin".into())],
            cwd: "/nonexistent".into(),
            ids: None,
            stdio: [null.as_fd(); 3],
            terminal: false,
            arg0: None,
            listener: None,
        }
        .spawn(reaper)
    }

    #[test]
    fn statuses_signals_and_failures() {
        // One reaper per process: it waits for every child. So one test uses it.
        let reaper = Reaper::start().unwrap();
        let child = run(&reaper, &["sh", "-c", "test $PWD = / && exit 7"]).unwrap();
        assert_eq!(child.ended.recv().unwrap(), ExitReason::Code(7));
        let child = run(&reaper, &["sleep", "100"]).unwrap();
        assert!(reaper.signal_group(child.pid, libc::SIGTERM));
        assert_eq!(child.ended.recv().unwrap(), ExitReason::Signal(15));
        assert!(!reaper.signal_group(child.pid, libc::SIGTERM));
        assert_eq!(
            run(&reaper, &["no-such-program"]).unwrap_err().status(),
            127
        );
        assert_eq!(run(&reaper, &["/no/such"]).unwrap_err().status(), 127);
        assert_eq!(run(&reaper, &["/etc/passwd"]).unwrap_err().status(), 126);
        assert_eq!(run(&reaper, &[]).unwrap_err().status(), 127);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bus");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let null = null().unwrap();
        let child = Program {
            argv: ["/bin/sh", "-c", crate::services::BUS_SCRIPT]
                .map(String::from)
                .into(),
            environment: vec![("PATH".into(), "/usr/bin:/bin".into())],
            cwd: "/".into(),
            ids: None,
            stdio: [null.as_fd(); 3],
            terminal: false,
            arg0: None,
            listener: Some(listener.as_fd()),
        }
        .spawn(&reaper)
        .unwrap();
        let bus = format!("--bus=unix:path={}", path.display());
        let list = [
            "--dest=org.freedesktop.DBus",
            "/",
            "org.freedesktop.DBus.ListNames",
        ];
        let ask = run(
            &reaper,
            &[&["dbus-send", &bus, "--print-reply"][..], &list].concat(),
        );
        assert_eq!(ask.unwrap().ended.recv().unwrap(), ExitReason::Code(0));
        assert!(reaper.signal_group(child.pid, libc::SIGTERM));
        assert!(reaper.wait_until_alone(Duration::from_secs(5)));
    }

    use std::time::Duration;
}
