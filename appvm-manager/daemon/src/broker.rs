//! Tells the broker, which runs as root, which physical devices belong to domains. Without one the
//! administrator takes them from the host by hand (docs/net.md).

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bulkhead_broker::request::{Answer, Request};
use bulkhead_vmm_api::PciAddress;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::Mutex;

use crate::config::DomainConfig;
use crate::manager::Manager;
use crate::store::Store;
use crate::{Error, Result};

/// A driver of the host's takes a moment to let go.
const PATIENCE: Duration = Duration::from_secs(30);
/// A longer answer is none: some words on each of the most devices.
const MAX_ANSWER: u64 = 256 * 1024;

/// Handle on the broker.
#[derive(Debug)]
pub struct Broker {
    socket: PathBuf,
    /// So that what is said last counts last.
    turn: Mutex<()>,
}

impl Broker {
    /// At this socket, where there is one.
    pub fn new(socket: PathBuf) -> Self {
        Broker {
            socket,
            turn: Mutex::default(),
        }
    }

    /// Lets it keep the devices of all domains. Gives for each why it is not kept, and nothing where
    /// there is no broker.
    async fn keep(&self, store: &Store) -> Result<BTreeMap<PciAddress, Option<String>>> {
        let _turn = self.turn.lock().await;
        if !self.socket.exists() {
            return Ok(BTreeMap::new());
        }
        let mut keep = Vec::new();
        for name in store.names()? {
            // A file that cannot be read may be that of a domain with devices: they stay its own.
            keep.extend(store.load(&name)?.pci.iter());
        }
        let answer = tokio::time::timeout(PATIENCE, self.ask(&Request { keep })).await;
        let answer = answer.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        match answer {
            Ok(answer) if answer.ok => Ok(answer.devices),
            Ok(answer) => Err(self.failed(&answer.error)),
            Err(error) => Err(self.failed(&error.to_string())),
        }
    }

    fn failed(&self, reason: &str) -> Error {
        let socket = self.socket.display();
        Error::Setting(format!("the broker of devices ({socket}): {reason}"))
    }

    async fn ask(&self, request: &Request) -> io::Result<Answer> {
        let mut stream = UnixStream::connect(&self.socket).await?;
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        stream.write_all(&line).await?;
        let mut answer = Vec::new();
        let mut reader = BufReader::new(stream.take(MAX_ANSWER));
        reader.read_until(b'\n', &mut answer).await?;
        Ok(serde_json::from_slice(&answer)?)
    }
}

impl Manager {
    /// Tells the broker soon, since the devices of some domain may have changed.
    pub(crate) fn devices_changed(&self) {
        let (broker, store) = (self.broker.clone(), self.store.clone());
        tokio::spawn(async move {
            match broker.keep(&store).await {
                Ok(devices) => {
                    for (device, problem) in devices {
                        if let Some(problem) = problem {
                            tracing::warn!(%device, problem, "not kept for its domain");
                        }
                    }
                }
                Err(error) => tracing::error!(%error, "devices"),
            }
        });
    }

    /// Makes sure that the devices of a domain that is about to start are its own. Where there is no
    /// broker the VMM says what is missing.
    pub(crate) async fn take_devices(&self, config: &DomainConfig) -> Result<()> {
        if config.pci.is_empty() {
            return Ok(());
        }
        let devices = self.broker.keep(&self.store).await?;
        let problem = config.pci.iter().find_map(|own| devices.get(&own)?.clone());
        match problem {
            None => Ok(()),
            Some(reason) => Err(Error::Start {
                name: config.name.clone(),
                reason,
            }),
        }
    }
}
