//! Words for the person in front of the machine, on every console that the kernel knows.

use std::{
    fs,
    fs::File,
    io::{Read, Write},
    os::{fd::AsFd, unix::fs::OpenOptionsExt},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    system::RebootCommand,
};

/// How long a message stands before the machine turns off by itself.
const PATIENCE: Duration = Duration::from_secs(30);

/// A line for the system's log (and, if it is not quiet, the screen).
pub fn note(text: &str) {
    if let Ok(mut log) = File::options().write(true).open("/dev/kmsg") {
        // Each write is a line of its own.
        let _ = log.write_all(format!("<5>bulkhead: {text}\n").as_bytes());
    }
}

/// The consoles that messages go to: the screen, and what else the kernel uses.
pub struct Consoles {
    files: Vec<File>,
}

impl Consoles {
    /// Opens them. A console that cannot be opened is left out: another one may work.
    #[must_use]
    pub fn open() -> Self {
        let active = fs::read_to_string("/sys/class/tty/console/active").unwrap_or_default();
        let mut names: Vec<&str> = active.split_ascii_whitespace().collect();
        if !names.contains(&"tty0") {
            names.push("tty0");
        }
        let files = names
            .iter()
            .filter_map(|name| {
                File::options()
                    .read(true)
                    .write(true)
                    // A serial line without a reader must not stop us.
                    .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
                    .open(format!("/dev/{name}"))
                    .ok()
            })
            .collect();
        Self { files }
    }

    /// Shows a message and ends the machine: Enter starts it again, and without a key it turns
    /// off. Never returns.
    pub fn stop(&mut self, title: &str, text: &str) -> ! {
        self.show(title, text);
        let enter = self.wait_for_enter();
        rustix::fs::sync();
        self.end(if enter {
            RebootCommand::Restart
        } else {
            RebootCommand::PowerOff
        })
    }

    /// Writes the message.
    pub fn show(&mut self, title: &str, text: &str) {
        // To the screen in its own colours: white on red for the title, cursor home, all clear.
        let mut message =
            format!("\x1b[0m\x1b[2J\x1b[H\r\n  \x1b[1;37;41m {title} \x1b[0m\r\n\r\n");
        for line in text.lines() {
            message.push_str(&format!("  {line}\r\n"));
        }
        message.push_str(&format!(
            "\r\n  Press Enter to start again. Without a key the machine turns off in {} s.\r\n",
            PATIENCE.as_secs()
        ));
        for file in &mut self.files {
            let _ = file.write_all(message.as_bytes());
        }
        for line in std::iter::once(title).chain(text.lines()) {
            note(line);
        }
    }

    fn wait_for_enter(&mut self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let mut waiting: Vec<PollFd<'_>> = self
                .files
                .iter()
                .map(|file| PollFd::from_borrowed_fd(file.as_fd(), PollFlags::IN))
                .collect();
            let limit = Timespec::try_from(left.min(Duration::from_secs(1))).ok();
            if poll(&mut waiting, limit.as_ref()).is_err() {
                std::thread::sleep(Duration::from_millis(200));
            }
            let mut gone = Vec::new();
            for (index, file) in self.files.iter_mut().enumerate() {
                let mut bytes = [0; 64];
                match file.read(&mut bytes) {
                    // A console that was hung up says so for ever.
                    Ok(0) => gone.push(index),
                    Ok(count) => {
                        let typed = bytes.get(..count).unwrap_or_default();
                        if typed.contains(&b'\n') || typed.contains(&b'\r') {
                            return true;
                        }
                    }
                    Err(_) => {}
                }
            }
            for index in gone.into_iter().rev() {
                self.files.remove(index);
            }
            if self.files.is_empty() {
                std::thread::sleep(Duration::from_secs(1));
            }
        }
    }

    fn end(&self, command: RebootCommand) -> ! {
        let _ = rustix::system::reboot(command);
        // Only a process without the right to do so comes here.
        loop {
            std::thread::sleep(Duration::from_secs(60));
        }
    }
}
