//! `bulkhead-agent`: PID 1 of a Bulkhead guest.
//!
//! It loads modules, mounts the template's root and the domain's home, prepares the desktop user,
//! starts the session's D-Bus and the Wayland proxy, and runs what the manager asks for over
//! vsock. It runs inside the guest: it protects nobody from the guest, and trusts the host. What
//! it must never do is end before the guest does: every step that can fail is reported on the
//! console and the next one is tried.
//!
//! Start reading at [`init`] (what happens in which order), then [`session`] (one command).

mod cmdline;
mod console;
mod control;
mod disks;
mod file_actions;
mod files;
mod init;
mod modules;
mod mounts;
mod network;
mod power;
mod pty;
mod reaper;
mod server;
mod services;
mod session;
mod spawn;
mod template_services;
mod user;
mod volume;

use std::path::PathBuf;
use std::process::ExitCode;

const HELP: &str = "\
bulkhead-agent: runs in Bulkhead's guests as /init.

Started by hand it serves commands as a plain process (for tests):
  bulkhead-agent --serve-exec SOCKET [--control SOCKET]

  --serve-exec SOCKET  listen for exec connections on this Unix socket
  --control SOCKET     connect to a daemon's control socket and report readiness
  --version            print the version
";

fn main() -> ExitCode {
    // SAFETY: getpid takes nothing and cannot fail.
    if unsafe { libc::getpid() } == 1 {
        init::run();
    }
    let mut serve = None;
    let mut control = None;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--serve-exec" => serve = arguments.next().map(PathBuf::from),
            "--control" => control = arguments.next().map(PathBuf::from),
            "--version" => {
                println!("bulkhead-agent {}", env!("CARGO_PKG_VERSION"));
                return ExitCode::SUCCESS;
            }
            "--help" | "-h" => {
                print!("{HELP}");
                return ExitCode::SUCCESS;
            }
            other => {
                eprintln!("bulkhead-agent: unknown argument `{other}`; see --help");
                return ExitCode::from(2);
            }
        }
    }
    let Some(serve) = serve else {
        eprintln!("bulkhead-agent: this is a guest's /init; outside of one use --serve-exec");
        return ExitCode::from(2);
    };
    match server::serve_unix(&serve, control.as_deref()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bulkhead-agent: {}: {error}", serve.display());
            ExitCode::FAILURE
        }
    }
}
