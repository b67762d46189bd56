//! The desktop user of the guest: `user`, uid 1000.

use std::fs;
use std::io;
use std::path::Path;

use crate::console::say;
use crate::files::{copy_tree, directory, give};

/// The user's number, and its group's.
pub const UID: u32 = 1000;
/// Its name.
pub const NAME: &str = "user";
/// Its home.
pub const HOME: &str = "/home/user";
/// `XDG_RUNTIME_DIR`.
pub const RUNTIME: &str = "/run/user/1000";
/// The Wayland proxy's socket.
pub const WAYLAND_SOCKET: &str = "/run/user/1000/wayland-0";
/// The session bus.
pub const BUS_SOCKET: &str = "/run/user/1000/bus";

/// Makes sure that the user, its home and its runtime folder exist.
pub fn prepare() {
    let shell = if Path::new("/bin/bash").exists() {
        "/bin/bash"
    } else {
        "/bin/sh"
    };
    let steps: [(&str, io::Result<()>); 5] = [
        (
            "/etc/passwd",
            ensure(
                "/etc/passwd",
                &format!("{NAME}:x:{UID}:{UID}:{NAME}:{HOME}:{shell}"),
            ),
        ),
        (
            "/etc/group",
            ensure("/etc/group", &format!("{NAME}:x:{UID}:")),
        ),
        (
            "/etc/shadow",
            ensure("/etc/shadow", &format!("{NAME}:!::0:99999:7:::")),
        ),
        (RUNTIME, runtime()),
        (HOME, home()),
    ];
    for (what, result) in steps {
        if let Err(error) = result {
            say(&format!("{what}: {error}"));
        }
    }
}

/// Appends a line for the user to a colon-separated file that lacks one.
fn ensure(path: &str, line: &str) -> io::Result<()> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error),
    };
    match with_line(&text, line) {
        Some(changed) => fs::write(path, changed),
        None => Ok(()),
    }
}

fn with_line(text: &str, line: &str) -> Option<String> {
    let name = |line: &str| line.split(':').next().map(str::to_owned);
    if text.lines().any(|present| name(present) == name(line)) {
        return None;
    }
    let separator = if text.is_empty() || text.ends_with('\n') {
        ""
    } else {
        "\n"
    };
    Some(format!("{text}{separator}{line}\n"))
}

fn runtime() -> io::Result<()> {
    directory(Path::new(RUNTIME), 0o700)?;
    give(Path::new(RUNTIME), UID, UID)
}

fn home() -> io::Result<()> {
    let home = Path::new(HOME);
    if home.exists() {
        return Ok(());
    }
    directory(home, 0o700)?;
    if Path::new("/etc/skel").is_dir() {
        copy_tree(Path::new("/etc/skel"), home, UID, UID)?;
    }
    give(home, UID, UID)
}

/// The environment of every program of the session.
pub fn environment(as_root: bool) -> Vec<(String, String)> {
    let mut environment = vec![
        (
            "PATH",
            "/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games:/run/bulkhead/bin",
        ),
        ("LANG", "C.UTF-8"),
        ("HOME", HOME),
        ("USER", NAME),
        ("LOGNAME", NAME),
        ("SHELL", "/bin/bash"),
        ("XDG_RUNTIME_DIR", RUNTIME),
        (
            "XDG_DATA_DIRS",
            "/usr/local/share:/usr/share:/run/bulkhead/share",
        ),
        ("XDG_SESSION_TYPE", "wayland"),
        ("WAYLAND_DISPLAY", "wayland-0"),
        ("DBUS_SESSION_BUS_ADDRESS", "unix:path=/run/user/1000/bus"),
        ("GDK_BACKEND", "wayland"),
        ("QT_QPA_PLATFORM", "wayland"),
        ("MOZ_ENABLE_WAYLAND", "1"),
        // Domains have no GPU of their own: cairo starts in a fifth of the time of software GL.
        ("GSK_RENDERER", "cairo"),
        ("LIBGL_ALWAYS_SOFTWARE", "1"),
    ];
    if as_root {
        for (name, value) in &mut environment {
            match *name {
                "PATH" => {
                    *value = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:\
                              /run/bulkhead/bin";
                }
                "HOME" => *value = "/root",
                "USER" | "LOGNAME" => *value = "root",
                _ => {}
            }
        }
    }
    environment
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_is_added_once() {
        let line = "user:x:1000:1000:user:/home/user:/bin/bash";
        let once = with_line("root:x:0:0::/root:/bin/sh", line).unwrap();
        assert_eq!(once, format!("root:x:0:0::/root:/bin/sh\n{line}\n"));
        assert_eq!(with_line(&once, line), None);
        assert!(with_line("user2:x:1001:\n", line).is_some());
    }
}
