//! Disposables: domains that are made for one application and removed when it is done. On disk
//! they are domains like all others, so that whatever happens, the next start of the daemon finds
//! and removes them.

use std::sync::Arc;
use std::time::Duration;

use bulkhead_protocol::DomainName;
use tokio::sync::{broadcast, oneshot};

use crate::config::DomainConfig;
use crate::domain::Machine;
use crate::manager::Manager;
use crate::rpc::quota::Place;
use crate::{Error, Result};

/// How long a disposable may be without a window and without its command. Programs that hand over
/// to a running one of theirs, or show a window after another, need a moment.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long one may take to show its first window, where it was made to show something: the command
/// hands over to a program that is only starting when it ends.
const FIRST_WINDOW: Duration = Duration::from_secs(30);
/// Names that are tried.
const NAMES: u32 = 10_000;

impl Manager {
    /// Removes what is left of disposables of an earlier daemon.
    pub(crate) fn sweep_disposables(&self) {
        for name in self.store.names().unwrap_or_default() {
            let disposable = self
                .store
                .load(&name)
                .is_ok_and(|config| config.kind.is_disposable());
            if disposable && let Err(error) = self.store.remove(&name) {
                tracing::warn!(domain = %name, %error, "a disposable that is left over");
            }
        }
    }

    /// A new domain like `model`, with nothing in its home, in which `argv` runs. `place` is held as
    /// long as it exists.
    pub(crate) async fn launch_disposable(
        self: &Arc<Self>,
        model: &DomainConfig,
        argv: Vec<String>,
        place: Option<Place>,
    ) -> Result<DomainName> {
        let config = model.disposable(self.disposable_name()?);
        self.create(&config).await?;
        let name = config.name;
        match self.run_detached(&name, argv).await {
            Ok(ended) => {
                tokio::spawn(
                    self.clone()
                        .remove_when_done(name.clone(), ended, false, place),
                );
                Ok(name)
            }
            Err(error) => {
                self.dispose(&name).await;
                Err(error)
            }
        }
    }

    /// A new domain like `model`, running, with nothing in its home, for one call. It is removed
    /// when the sender is dropped and its last window is closed; `shows`: a window will come.
    pub(crate) async fn disposable_for_call(
        self: &Arc<Self>,
        model: &DomainName,
        shows: bool,
        place: Place,
    ) -> Result<(Arc<Machine>, oneshot::Sender<()>)> {
        let config = self.store.load(model)?.disposable(self.disposable_name()?);
        self.create(&config).await?;
        let name = config.name;
        match self.ensure_running(&name).await {
            Ok(machine) => {
                let (sender, ended) = oneshot::channel();
                let done = self
                    .clone()
                    .remove_when_done(name, ended, shows, Some(place));
                tokio::spawn(done);
                Ok((machine, sender))
            }
            Err(error) => {
                self.dispose(&name).await;
                Err(error)
            }
        }
    }

    pub(crate) fn disposable_name(&self) -> Result<DomainName> {
        // The clock spreads the names: one that was used a moment ago does not come again.
        let start = (crate::domain::now_us() / 1000) as u32;
        (0..NAMES)
            .map(|step| start.wrapping_add(step) % NAMES)
            .filter_map(|number| format!("disp{number:04}").parse().ok())
            .find(|name| !self.store.exists(name))
            .ok_or_else(|| Error::Setting("there are too many disposables; stop some".to_owned()))
    }

    /// Waits until the last window is closed and the command has ended, or the machine has.
    async fn remove_when_done(
        self: Arc<Self>,
        name: DomainName,
        ended: oneshot::Receiver<()>,
        shows: bool,
        place: Option<Place>,
    ) {
        let mut events = self.events();
        let mut ended = Some(ended);
        let mut idle_since = None;
        // The first window has not been seen yet.
        let mut awaited = shows;
        loop {
            let running = self
                .domain(&name)
                .is_ok_and(|domain| domain.machine().is_some());
            if !running {
                break;
            }
            let has_window = self.locked_windows().has(&name);
            awaited &= !has_window;
            let patience = if awaited { FIRST_WINDOW } else { PATIENCE };
            let idle = ended.is_none() && !has_window;
            idle_since = match (idle, idle_since) {
                (false, _) => None,
                (true, None) => Some(tokio::time::Instant::now()),
                (true, since) => since,
            };
            let out_of_patience = async {
                match idle_since {
                    Some(since) => tokio::time::sleep_until(since + patience).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = out_of_patience => break,
                () = command_ended(&mut ended) => ended = None,
                // Windows and states are looked at again, whatever it was.
                event = events.recv() => {
                    if let Err(broadcast::error::RecvError::Closed) = event {
                        break;
                    }
                }
            }
        }
        self.dispose(&name).await;
        drop(place);
    }

    /// Ends and removes it. Nothing in it is worth an orderly end.
    pub(crate) async fn dispose(&self, name: &DomainName) {
        match self.kill(name).await {
            Ok(()) | Err(Error::NotRunning(_) | Error::NoSuchDomain(_)) => {}
            Err(error) => tracing::warn!(domain = %name, %error, "a disposable"),
        }
        match self.remove(name).await {
            Ok(()) | Err(Error::NoSuchDomain(_)) => {}
            Err(error) => tracing::warn!(domain = %name, %error, "a disposable"),
        }
    }
}

async fn command_ended(ended: &mut Option<oneshot::Receiver<()>>) {
    match ended {
        // An error is an end, too.
        Some(ended) => drop(ended.await),
        None => std::future::pending().await,
    }
}
