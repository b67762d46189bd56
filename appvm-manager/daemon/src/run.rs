//! The daemon's command line and its life.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use crate::dirs::Dirs;
use crate::manager::{Manager, Options};
use crate::net::Programs;

/// Bulkhead's domain manager. It serves org.bulkhead.Manager on the session bus.
#[derive(Debug, Parser)]
#[command(
    name = "bulkheadd",
    version,
    after_help = "\
Examples:
  bulkheadd                                    # with installed images and programs
  bulkheadd --images target/images --vmm target/release/bulkhead-vmm

Files:
  $XDG_CONFIG_HOME/bulkhead/domains/NAME.toml  one per domain
  $XDG_DATA_HOME/bulkhead/domains/NAME/        its home volume, snapshots
  $XDG_STATE_HOME/bulkhead/domains/NAME/       its logs
  $XDG_RUNTIME_DIR/bulkhead/domains/NAME/      its sockets while it runs
  $XDG_DATA_HOME/bulkhead/templates/NAME/      one per template of the user's own
  $XDG_CACHE_HOME/bulkhead/icons-1/            icons that were decoded"
)]
pub struct Args {
    /// The folder with guest/ and templates/.
    #[arg(long, value_name = "DIR", default_value = "/usr/share/bulkhead/images")]
    images: PathBuf,
    /// The VMM's program [default: bulkhead-vmm beside this program, or in PATH]
    #[arg(long, value_name = "FILE")]
    vmm: Option<PathBuf>,
    /// The network's link [default: bulkhead-link beside this program, or in PATH]
    #[arg(long, value_name = "FILE")]
    link: Option<PathBuf>,
    /// What leads to the host's network [default: bulkhead-uplink beside this program, or in PATH]
    #[arg(long, value_name = "FILE")]
    uplink: Option<PathBuf>,
    /// passt, for network domains with host_network [default: passt in PATH]
    #[arg(long, value_name = "FILE")]
    passt: Option<PathBuf>,
    /// Where the broker of physical devices listens, which runs as root
    #[arg(
        long,
        value_name = "SOCKET",
        default_value = "/run/bulkhead/broker.sock"
    )]
    broker: PathBuf,
    /// The program that decodes icons [default: bulkhead-icon beside this program, or in PATH]
    #[arg(long, value_name = "FILE")]
    icon_worker: Option<PathBuf>,
    /// The compositor's control socket [default: $XDG_RUNTIME_DIR/bulkhead/compositor.sock]
    #[arg(long, value_name = "SOCKET")]
    compositor_control: Option<PathBuf>,
    /// Words added to every guest's kernel command line.
    #[arg(long, value_name = "WORDS", default_value = "")]
    guest_cmdline: String,
    /// How long a guest may take until its agent is ready.
    #[arg(long, value_name = "SECONDS", default_value_t = 90)]
    start_timeout: u32,
}

/// Why the daemon cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The environment lacks something.
    #[error(transparent)]
    Environment(#[from] crate::dirs::MissingVariable),
    /// The manager's folders.
    #[error(transparent)]
    Manager(#[from] crate::Error),
    /// The bus.
    #[error("the session bus: {0}; run inside a desktop session or under dbus-run-session")]
    Bus(#[from] zbus::Error),
    /// Another daemon.
    #[error("another bulkheadd serves this session bus already")]
    Taken,
    /// The host.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

fn program(given: Option<PathBuf>, name: &str) -> PathBuf {
    let beside = || {
        let program = std::env::current_exe().ok()?.with_file_name(name);
        program.exists().then_some(program)
    };
    given.or_else(beside).unwrap_or_else(|| name.into())
}

/// Serves until SIGTERM, SIGINT or SIGHUP; then stops all domains.
pub fn run(args: Args) -> Result<(), RunError> {
    let dirs = Dirs::from_environment()?;
    let runtime_parent = dirs.runtime.parent().unwrap_or(&dirs.runtime).to_owned();
    crate::dirs::private_dir(&runtime_parent)?;
    // Held until the end: a second daemon would sweep away the first one's sockets.
    let lock = std::fs::File::create(runtime_parent.join("bulkheadd.lock"))?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| RunError::Taken)?;
    let options = Options {
        vmm: program(args.vmm, "bulkhead-vmm"),
        link: program(args.link, "bulkhead-link"),
        uplink: Programs {
            passt: args.passt.unwrap_or_else(|| PathBuf::from("passt")),
            relay: program(args.uplink, "bulkhead-uplink"),
        },
        broker: args.broker,
        icon_worker: program(args.icon_worker, "bulkhead-icon"),
        images: args.images,
        compositor_control: args
            .compositor_control
            .unwrap_or_else(|| runtime_parent.join("compositor.sock")),
        guest_cmdline: args.guest_cmdline,
        start_timeout_s: args.start_timeout,
    };
    // One thread: VMMs are tied to the life of the thread that starts them.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let manager = Manager::new(options, dirs)?;
        serve(manager).await
    })
}

async fn serve(manager: Arc<Manager>) -> Result<(), RunError> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let connection = match crate::dbus::serve(manager.clone()).await {
        Err(zbus::Error::NameTaken) => return Err(RunError::Taken),
        connection => connection?,
    };
    tokio::spawn(manager.clone().follow_compositor());
    tokio::spawn(manager.clone().autostart());
    manager.devices_changed();
    tracing::info!("serving");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        _ = hangup.recv() => {}
        () = closed(&connection) => tracing::error!("the session bus is gone"),
    }
    tracing::info!("stopping all domains");
    manager.stop_all().await;
    Ok(())
}

/// Waits until the bus is gone.
async fn closed(connection: &zbus::Connection) {
    use futures_util::StreamExt;
    let mut messages = zbus::MessageStream::from(connection);
    while let Some(message) = messages.next().await {
        if message.is_err() {
            return;
        }
    }
}
