//! `bulkhead-wayland-proxy`: parses arguments and serves.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use bulkhead_wayland_proxy::server::{Host, Server};
use tracing_subscriber::EnvFilter;

const HELP: &str = "\
Relays the windows of a guest's applications to the host's compositor.

Usage: bulkhead-wayland-proxy --socket PATH [OPTIONS]

Options:
  --socket PATH       Where applications connect, e.g. /run/user/1000/wayland-0
  --render-node PATH  The virtio-gpu to use [default: the first with cross-domain contexts]
  --host-socket PATH  Relay to the compositor that listens on this socket instead,
                      without any virtio-gpu: for tests and debugging
  --stats FILE        Write the counters to this file on SIGUSR1 and at the end
                      [default: wayland-proxy.json beside the socket, on SIGUSR1 only]
  -h, --help          Show this help
  -V, --version       Show the version

RUST_LOG sets what is logged to stderr [default: info].
";

struct Arguments {
    socket: PathBuf,
    host: Host,
    stats: Option<PathBuf>,
}

fn parse(mut words: impl Iterator<Item = OsString>) -> Result<Option<Arguments>, String> {
    let (mut socket, mut render_node, mut host_socket, mut stats) = (None, None, None, None);
    while let Some(word) = words.next() {
        let target = match word.to_str() {
            Some("-h" | "--help") => {
                print!("{HELP}");
                return Ok(None);
            }
            Some("-V" | "--version") => {
                println!("bulkhead-wayland-proxy {}", env!("CARGO_PKG_VERSION"));
                return Ok(None);
            }
            Some("--socket") => &mut socket,
            Some("--render-node") => &mut render_node,
            Some("--host-socket") => &mut host_socket,
            Some("--stats") => &mut stats,
            _ => {
                return Err(format!(
                    "unknown option {}; try --help",
                    word.to_string_lossy()
                ));
            }
        };
        let value = words
            .next()
            .ok_or(format!("{} needs a value", word.to_string_lossy()))?;
        *target = Some(PathBuf::from(value));
    }
    let socket = socket.ok_or("--socket is missing; try --help")?;
    let host = match (host_socket, render_node) {
        (Some(_), Some(_)) => {
            return Err("--host-socket and --render-node exclude each other".into());
        }
        (Some(path), None) => Host::Socket(path),
        (None, node) => Host::Virtgpu(node),
    };
    Ok(Some(Arguments {
        socket,
        host,
        stats,
    }))
}

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    let arguments = match parse(std::env::args_os().skip(1)) {
        Ok(Some(arguments)) => arguments,
        Ok(None) => return ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("bulkhead-wayland-proxy: {message}");
            return ExitCode::from(2);
        }
    };
    let served = Server::new(&arguments.socket, arguments.host, arguments.stats)
        .and_then(|mut server| server.run());
    let _ = std::fs::remove_file(&arguments.socket);
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bulkhead-wayland-proxy: {error}");
            ExitCode::FAILURE
        }
    }
}
