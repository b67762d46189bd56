//! Tries to get out of the sandbox, one way a run; the tests see how it ends. Says `out` on
//! standard output if it succeeds.

use std::io::Write;

fn main() {
    let way = std::env::args().nth(1).unwrap_or_default();
    bulkhead_icon::sandbox::enter().unwrap();
    match way.as_str() {
        "none" => {}
        "file" => drop(std::fs::read("/etc/hostname")),
        "socket" => drop(std::net::TcpListener::bind("127.0.0.1:0")),
        "unix" => drop(std::os::unix::net::UnixStream::pair()),
        "program" => drop(std::process::Command::new("/bin/true").status()),
        "thread" => drop(std::thread::Builder::new().spawn(|| {})),
        "kill" => {
            // SAFETY: no pointers; signal 0 sends nothing.
            unsafe { libc::kill(libc::getppid(), 0) };
        }
        "code" => {
            // SAFETY: a new anonymous mapping; nothing uses it.
            unsafe {
                libc::mmap(
                    std::ptr::null_mut(),
                    4096,
                    libc::PROT_READ | libc::PROT_EXEC,
                    libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                    -1,
                    0,
                )
            };
        }
        "memory" => {
            let mut all = Vec::new();
            loop {
                all.push(vec![1_u8; 1 << 20]);
            }
        }
        "time" => loop {
            std::hint::spin_loop();
        },
        other => panic!("no way {other}"),
    }
    let _ = std::io::stdout().write_all(b"out");
}
