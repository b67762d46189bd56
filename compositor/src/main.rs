//! `bulkhead-compositor`: see the library.

use std::{path::PathBuf, process::ExitCode};

use bulkhead_compositor::{BackendKind, Options, Server, backend::wish::OutputWish};
use clap::Parser;

/// Shows the windows of all domains on one desktop, each with its domain's coloured border.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Where the desktop is shown: `drm` (on a screen of its own), `winit` (in a window of the
    /// desktop that runs already) or `headless` (nowhere; for tests).
    #[arg(long, default_value = "winit")]
    backend: BackendKind,
    /// Size of the desktop in pixels. The winit backend follows its window later on; a screen has
    /// its own.
    #[arg(long, default_value = "1280x800", value_parser = size)]
    size: (u16, u16),
    /// Mode and scale of a screen: NAME=WIDTHxHEIGHT[@HZ][*SCALE], like eDP-1=1920x1080@60*2.
    /// Can be given several times: the first one has the panel, its scale is that of all, and the
    /// others lie to the right of it. Else a screen has the mode that it prefers, and scale 1.
    #[arg(long = "output", value_name = "OUTPUT")]
    outputs: Vec<OutputWish>,
    /// Where the manager's control socket is made.
    #[arg(long, value_name = "PATH")]
    control: PathBuf,
    /// Also makes a Wayland socket for the desktop's own programs (panel, menu). Whoever reaches
    /// it may draw above all windows.
    #[arg(long, value_name = "PATH")]
    host_socket: Option<PathBuf>,
    /// Also makes a socket for tests, which can take pictures and inject input. Never use this
    /// with data that matters.
    #[arg(long, value_name = "PATH")]
    test_socket: Option<PathBuf>,
}

/// What is logged unless `BULKHEAD_LOG` says otherwise. smithay complains where all is well: that it
/// is not the device's master (the seat is), and at the end that it could not put back the picture
/// of the kernel's console (the kernel does).
const LOG: &str =
    "info,smithay=warn,smithay::backend::drm=error,smithay::backend::drm::device::atomic=off";

fn size(text: &str) -> Result<(u16, u16), String> {
    let wrong = || format!("'{text}' is not a size; write it as WIDTHxHEIGHT, like 1280x800");
    let (w, h) = text.split_once('x').ok_or_else(wrong)?;
    let length = |t: &str| t.parse().ok().filter(|l| (64..=8192).contains(l));
    Ok((length(w).ok_or_else(wrong)?, length(h).ok_or_else(wrong)?))
}

fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_env("BULKHEAD_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(LOG));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    let arguments = Arguments::parse();
    let options = Options {
        backend: arguments.backend,
        size: arguments.size,
        outputs: arguments.outputs,
        control: Some(arguments.control),
        host_socket: arguments.host_socket,
        test_socket: arguments.test_socket,
        stop_on_signals: true,
        ..Options::default()
    };
    match Server::new(options).and_then(Server::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bulkhead-compositor: {error}");
            ExitCode::FAILURE
        }
    }
}
