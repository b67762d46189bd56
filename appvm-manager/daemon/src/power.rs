//! Switching the machine off. The manager has no right to do so: it leaves a file where the
//! system's own service, which watches for it, finds it.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::manager::Manager;
use crate::{Error, Result};

/// The folder that the system watches.
const FOLDER: &str = "BULKHEAD_POWER_DIR";
/// After so long, domains that do not stop are killed: who asked wants the machine off.
const PATIENCE: Duration = Duration::from_secs(45);

/// What is to become of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Power {
    /// It is switched off.
    Off,
    /// It starts again.
    Reboot,
}

impl Power {
    /// The file that says so.
    fn file(self) -> &'static str {
        match self {
            Power::Off => "poweroff",
            Power::Reboot => "reboot",
        }
    }
}

fn folder() -> Result<PathBuf> {
    let folder = std::env::var_os(FOLDER).map(PathBuf::from);
    match folder {
        Some(folder) if folder.is_dir() => Ok(folder),
        Some(folder) => {
            let text = format!("{FOLDER} names {}, which is no folder", folder.display());
            Err(Error::Power(text))
        }
        None => Err(Error::Power(format!(
            "this session cannot switch the machine off: {FOLDER} is not set; end the session instead"
        ))),
    }
}

impl Manager {
    /// Stops all domains in order, then says what is to become of the machine.
    pub async fn power(self: &Arc<Self>, power: Power) -> Result<()> {
        let folder = folder()?;
        self.ending.store(true, Ordering::SeqCst);
        let result = self.power_with(&folder.join(power.file())).await;
        if result.is_err() {
            self.ending.store(false, Ordering::SeqCst);
        }
        result
    }

    /// The machine's power button was pressed: what it means everywhere else, too. A session in a
    /// window of another desktop does not own the machine, and only says so in its log.
    pub(crate) fn power_button(self: Arc<Self>) {
        if self.ending.load(Ordering::SeqCst) {
            return;
        }
        tokio::spawn(async move {
            if let Err(error) = self.power(Power::Off).await {
                tracing::warn!("the power button: {error}");
            }
        });
    }

    async fn power_with(self: &Arc<Self>, file: &std::path::Path) -> Result<()> {
        tracing::info!(file = %file.display(), "stopping all domains");
        let stopped = tokio::time::timeout(PATIENCE, self.stop_all()).await;
        if stopped.is_err() {
            tracing::warn!("some domains did not stop; they are killed");
            for domain in self.known_domains() {
                if let Some(machine) = domain.machine() {
                    machine.kill();
                }
            }
        }
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(file)
            .map_err(Error::io("write", file))?;
        Ok(())
    }
}
