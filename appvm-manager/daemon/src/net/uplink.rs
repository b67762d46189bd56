//! The way out of a network domain that has no physical card, on a desktop that keeps its own network:
//! passt, which makes the guest's connections as a process of this user, and between it and the guest's
//! card a process that knows both their ways to carry a frame.
//!
//! Both are started again when one ends. The daemon keeps a copy of the cable's end meanwhile, so that
//! the card, and the VMM that has it, notice nothing but a pause.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use bulkhead_protocol::DomainName;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use tokio::process::{Child, Command};

use super::LinkError;

/// Where the guest asks for names; passt asks whom the host asks.
pub const NAMES: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// Before they are started again; more each time.
const PAUSE: Duration = Duration::from_millis(200);
/// The most of it.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// The programs.
#[derive(Debug, Clone)]
pub struct Programs {
    /// passt.
    pub passt: PathBuf,
    /// `bulkhead-uplink`.
    pub relay: PathBuf,
}

/// The processes of one domain; they end with it.
#[derive(Debug)]
pub struct Uplink(tokio::task::JoinHandle<()>);

impl Drop for Uplink {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Running {
    passt: Child,
    relay: Child,
}

impl Uplink {
    /// Starts them. `cable` is the end of the card's cable that is not the card's.
    pub fn start(
        programs: &Programs,
        domain: &DomainName,
        cable: OwnedFd,
    ) -> Result<Self, LinkError> {
        let (programs, domain) = (programs.clone(), domain.clone());
        let running = programs.start(&cable)?;
        tracing::info!(%domain, "the host's network is its way out, by passt");
        Ok(Uplink(tokio::spawn(watch(
            programs, domain, cable, running,
        ))))
    }
}

/// Starts them again whenever one of them ends.
async fn watch(programs: Programs, domain: DomainName, cable: OwnedFd, mut running: Running) {
    let mut pause = PAUSE;
    loop {
        let (who, status) = tokio::select! {
            status = running.passt.wait() => ("passt", status),
            status = running.relay.wait() => ("bulkhead-uplink", status),
        };
        let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        tracing::error!(%domain, status, "{who} has ended; it is started again");
        drop(running);
        running = loop {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            match programs.start(&cable) {
                Ok(running) => break running,
                Err(error) => tracing::error!(%domain, %error, "once more in a moment"),
            }
        };
    }
}

impl Programs {
    fn start(&self, cable: &OwnedFd) -> Result<Running, LinkError> {
        let (passts, relays) = socketpair(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(|error| LinkError::Broken(error.into()))?;
        let number = |fd: &OwnedFd| fd.as_raw_fd().to_string();
        let names = NAMES.to_string();
        let passt = spawn(
            &self.passt,
            // It listens to nobody, and what the guest sends to its router does not reach the host's
            // own services.
            &[
                "--foreground",
                "--quiet",
                "--ipv4-only",
                "--no-map-gw",
                "--tcp-ports",
                "none",
                "--udp-ports",
                "none",
                "--dns-forward",
                &names,
                "--search",
                "none",
                "--fd",
                &number(&passts),
            ],
            &[&passts],
        )
        .map_err(|source| LinkError::Passt {
            program: self.passt.clone(),
            source,
        })?;
        let relay = spawn(
            &self.relay,
            &["--card-fd", &number(cable), "--passt-fd", &number(&relays)],
            &[cable, &relays],
        )
        .map_err(|source| LinkError::Start {
            program: self.relay.clone(),
            source,
        })?;
        Ok(Running { passt, relay })
    }
}

fn spawn(program: &Path, arguments: &[&str], inherited: &[&OwnedFd]) -> io::Result<Child> {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .process_group(0)
        .kill_on_drop(true);
    crate::child::tie(
        &mut command,
        inherited.iter().map(|fd| fd.as_raw_fd()).collect(),
    );
    command.spawn()
}
