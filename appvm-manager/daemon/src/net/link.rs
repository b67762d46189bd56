//! The process that carries frames between domains' cards: started when the first card is there,
//! started again with all cards when it ends.
//!
//! Of every card's cable the daemon keeps a copy of the link's end. So a cable stays whole when the
//! link ends, or when the card is to lead to another trunk: the VMM does not notice. A link goes on in a
//! cable's memory where the one before has stopped.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::pin::Pin;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::process::{Child, Command};
use tokio::sync::Mutex;

use crate::packets::Packets;

/// Before the link is started again; more each time that it does not come up.
const PAUSE: Duration = Duration::from_millis(200);
/// The most of it.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// More ports than the link ever has are no answer.
const MOST_PORTS: usize = 4096;

/// Why the link did not do something.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// It cannot be started.
    #[error("the network's link ({program}) cannot be started: {source}", program = .program.display())]
    Start {
        /// Its program.
        program: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// passt cannot be started.
    #[error("the way to the host's network, passt ({program}), cannot be started: {source}; the package `passt` has it", program = .program.display())]
    Passt {
        /// Its program.
        program: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It said so.
    #[error("the network's link: {0}")]
    Refused(String),
    /// It does not answer.
    #[error("the network's link does not answer: {0}")]
    Broken(#[from] io::Error),
}

/// What a card of the link may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A network domain's.
    Trunk {
        /// Its hardware address.
        mac: String,
    },
    /// A client's.
    Client {
        /// The port of its network domain, which may not be there.
        trunk: String,
        /// Its VLAN there.
        vlan: u16,
        /// Its hardware address.
        mac: String,
        /// Its address.
        address: std::net::Ipv4Addr,
    },
}

impl Place {
    fn request(&self, name: &str) -> Value {
        match self {
            Place::Trunk { mac } => {
                json!({"op": "add_trunk", "name": name, "mac": mac, "mtu": super::MTU})
            }
            Place::Client {
                trunk,
                vlan,
                mac,
                address,
            } => json!({
                "op": "add_client", "name": name, "trunk": trunk, "vlan": vlan, "mac": mac,
                "address": address,
            }),
        }
    }
}

/// Frames and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Counter {
    /// How many.
    pub frames: u64,
    /// How much.
    pub bytes: u64,
}

/// What the link counted of a port.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct PortStats {
    /// Which.
    pub name: String,
    /// Whether the other side is there.
    pub plugged: bool,
    /// What came from the card.
    #[serde(rename = "in")]
    pub received: Counter,
    /// What went to it.
    #[serde(rename = "out")]
    pub sent: Counter,
    /// What came and was not passed on, by reason.
    pub refused: BTreeMap<String, u64>,
    /// What was to go and did not, by reason.
    pub lost: BTreeMap<String, u64>,
}

/// The link's end of a cable.
#[derive(Debug)]
pub struct Cable {
    /// Of its socket pair.
    pub socket: OwnedFd,
    /// The memory that packets go through.
    pub ring: OwnedFd,
}

struct Port {
    place: Place,
    /// A copy of the link's end.
    cable: Cable,
}

#[derive(Default)]
struct State {
    packets: Option<Packets>,
    /// Which process it is.
    generation: u64,
    ports: BTreeMap<String, Port>,
}

/// Handle on the link; clones are the same one.
#[derive(Clone)]
pub struct Link(Arc<Shared>);

struct Shared {
    program: PathBuf,
    state: Mutex<State>,
}

impl Link {
    /// Of this program; nothing is started yet.
    pub fn new(program: PathBuf) -> Self {
        Link(Arc::new(Shared {
            program,
            state: Mutex::default(),
        }))
    }

    /// Plugs a card in.
    pub async fn add(&self, name: &str, place: Place, cable: Cable) -> Result<(), LinkError> {
        let mut state = self.0.state.lock().await;
        state.unplug(name).await;
        self.ensure(&mut state).await?;
        let port = Port { place, cable };
        state.plug(name, &port).await?;
        state.ports.insert(name.to_owned(), port);
        Ok(())
    }

    /// Lets a card lead to another place; nothing happens where it is not there any more.
    pub async fn replug(&self, name: &str, place: Place) -> Result<(), LinkError> {
        let mut state = self.0.state.lock().await;
        let Some(port) = state.ports.remove(name) else {
            return Ok(());
        };
        if port.place == place {
            state.ports.insert(name.to_owned(), port);
            return Ok(());
        }
        state.remove(name).await;
        let port = Port { place, ..port };
        let plugged = state.plug(name, &port).await;
        // A link that is just starting again gets it with all others.
        state.ports.insert(name.to_owned(), port);
        plugged
    }

    /// Unplugs a card.
    pub async fn unplug(&self, name: &str) {
        self.0.state.lock().await.unplug(name).await;
    }

    /// What was counted of each port since it was plugged in.
    pub async fn stats(&self) -> Result<Vec<PortStats>, LinkError> {
        let mut state = self.0.state.lock().await;
        let mut ports: Vec<PortStats> = Vec::new();
        if state.packets.is_none() {
            return Ok(ports);
        }
        while ports.len() < MOST_PORTS {
            let mut request = json!({"op": "stats"});
            if let Some(last) = ports.last() {
                request["after"] = last.name.as_str().into();
            }
            let mut answer = state.ask(&request, &[]).await?;
            let page: Vec<PortStats> = serde_json::from_value(answer["ports"].take())
                .map_err(|error| LinkError::Refused(error.to_string()))?;
            let more = answer["more"] == true && !page.is_empty();
            ports.extend(page);
            if !more {
                break;
            }
        }
        Ok(ports)
    }

    /// Starts it unless it runs.
    async fn ensure(&self, state: &mut State) -> Result<(), LinkError> {
        if state.packets.is_some() {
            return Ok(());
        }
        let start = |source| LinkError::Start {
            program: self.0.program.clone(),
            source,
        };
        let (child, packets) = self.spawn().map_err(start)?;
        state.packets = Some(packets);
        state.generation += 1;
        let generation = state.generation;
        tracing::info!(pid = child.id(), "the network's link runs");
        tokio::spawn(self.clone().watch(child, generation));
        // What was there before it ended.
        for (name, port) in std::mem::take(&mut state.ports) {
            if let Err(error) = state.plug(&name, &port).await {
                tracing::error!(port = name, %error, "a card is not plugged in");
            }
            state.ports.insert(name, port);
        }
        match state.packets {
            Some(_) => Ok(()),
            None => Err(start(io::ErrorKind::UnexpectedEof.into())),
        }
    }

    fn spawn(&self) -> io::Result<(Child, Packets)> {
        let (ours, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )?;
        let mut command = Command::new(&self.0.program);
        command
            .args(["--control-fd", &theirs.as_raw_fd().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .process_group(0)
            .kill_on_drop(true);
        crate::child::tie(&mut command, vec![theirs.as_raw_fd()]);
        Ok((command.spawn()?, Packets::over(ours)?))
    }

    /// Waits for the link's end and starts it again as long as there are cards. Boxed, since the new
    /// one is watched in the same way.
    fn watch(self, mut child: Child, generation: u64) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            let status = child.wait().await;
            let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
            tracing::error!(status, "the network's link has ended; it is started again");
            {
                let mut state = self.0.state.lock().await;
                if state.generation == generation {
                    state.packets = None;
                }
            }
            let mut pause = PAUSE;
            loop {
                tokio::time::sleep(pause).await;
                let mut state = self.0.state.lock().await;
                if state.generation != generation || state.ports.is_empty() {
                    return;
                }
                match self.ensure(&mut state).await {
                    Ok(()) => return,
                    Err(error) => tracing::error!(%error, "once more in a moment"),
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        })
    }
}

impl State {
    async fn plug(&mut self, name: &str, port: &Port) -> Result<(), LinkError> {
        let request = port.place.request(name);
        let fds = [port.cable.socket.as_fd(), port.cable.ring.as_fd()];
        self.ask(&request, &fds).await.map(|_| ())
    }

    async fn unplug(&mut self, name: &str) {
        if self.ports.remove(name).is_some() {
            self.remove(name).await;
        }
    }

    /// A port whose card has gone has gone by itself: that it is not there is no error.
    async fn remove(&mut self, name: &str) {
        let request = json!({"op": "remove", "name": name});
        if let Err(error) = self.ask(&request, &[]).await {
            tracing::debug!(port = name, %error, "not removed");
        }
    }

    async fn ask(&mut self, request: &Value, fds: &[BorrowedFd<'_>]) -> Result<Value, LinkError> {
        let packets = self.packets.as_mut().ok_or_else(|| {
            let reason = "it has ended, and is started again in a moment";
            LinkError::Refused(reason.to_owned())
        })?;
        match packets.ask(request, fds).await {
            Ok(answer) if answer["ok"] == true => Ok(answer),
            Ok(answer) => {
                let error = answer["error"].as_str().unwrap_or("no reason given");
                Err(LinkError::Refused(crate::text::clean(error, 200)))
            }
            Err(error) => {
                // It ends with this socket.
                self.packets = None;
                Err(error.into())
            }
        }
    }
}
