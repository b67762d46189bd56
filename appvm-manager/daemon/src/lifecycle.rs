//! One start of a domain, one end of it.
//!
//! Whatever fails on the way, the machine's watcher is the one place that cleans up: it waits for
//! the VMM's process, disconnects the domain from the compositor and removes its sockets.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use bulkhead_protocol::{DomainName, Power};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};

use crate::dirs::private_dir;
use crate::domain::{Domain, Ended, Machine, Stage, State, now_us};
use crate::guest::{self, Report};
use crate::images::Drivers;
use crate::logs::{self, Log};
use crate::manager::Manager;
use crate::vmm::{self, Launch};
use crate::{Error, Result};

/// `sun_path` has room for 108 bytes with the zero.
const MAX_SOCKET_PATH: usize = 107;
/// How long the power button may stay without effect before the agent is asked too.
const BUTTON_PATIENCE: Duration = Duration::from_secs(2);
/// How long a killed VMM may take to be gone.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

fn listener(path: &Path) -> Result<UnixListener> {
    if path.as_os_str().len() > MAX_SOCKET_PATH {
        return Err(Error::LongPath(path.to_owned()));
    }
    UnixListener::bind(path).map_err(Error::io("make the socket", path))
}

/// The sockets' folder of a machine that is being made; gone again unless it is kept.
struct RuntimeDir {
    path: PathBuf,
    keep: bool,
}

impl Drop for RuntimeDir {
    fn drop(&mut self) {
        if !self.keep {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

impl Manager {
    /// Starts a domain and waits until its agent takes commands.
    pub async fn start(self: &Arc<Self>, name: &DomainName) -> Result<()> {
        let domain = self.domain(name)?;
        let _one_at_a_time = domain.transition.lock().await;
        if domain.machine().is_some() {
            return Err(Error::AlreadyRunning(name.clone()));
        }
        self.start_locked(&domain).await
    }

    /// Starts a domain unless it runs already. The machine that it gives takes commands.
    pub async fn ensure_running(self: &Arc<Self>, name: &DomainName) -> Result<Arc<Machine>> {
        let domain = self.domain(name)?;
        let _one_at_a_time = domain.transition.lock().await;
        if let Some(machine) = domain.machine() {
            if *domain.state.borrow() == State::Running {
                return Ok(machine);
            }
            // It is on its way down: wait, then start anew.
            machine.gone().await;
        }
        self.start_locked(&domain).await?;
        domain
            .machine()
            .ok_or_else(|| Error::NotRunning(name.clone()))
    }

    async fn start_locked(self: &Arc<Self>, domain: &Arc<Domain>) -> Result<()> {
        if self.ending.load(Ordering::SeqCst) {
            return Err(Error::Ending);
        }
        domain.clear_timings();
        domain.mark("request", now_us());
        self.set_state(
            domain,
            State::Starting {
                stage: Stage::Preparing,
            },
        );
        let mut result = self.make_machine(domain).await;
        if result.is_err() && domain.machine().is_none() {
            // There may be cards already, but nobody who watches over them.
            self.unplug(&domain.name).await;
        }
        // A guest may end in the moment in which it is ready; its watcher has cleaned up then.
        if result.is_ok() && domain.machine().is_none() {
            let reason = "it ended as soon as it was ready".to_owned();
            result = Err(Error::Start {
                name: domain.name.clone(),
                reason,
            });
        }
        match &result {
            Ok(()) => self.set_state(domain, State::Running),
            // A configuration that cannot start leaves the domain as it was; a guest that did
            // not come up has failed.
            Err(Error::Start { reason, .. }) => {
                self.set_state(
                    domain,
                    State::Failed {
                        reason: reason.clone(),
                    },
                );
            }
            Err(_) => self.set_state(domain, State::Halted),
        }
        result
    }

    async fn make_machine(self: &Arc<Self>, domain: &Arc<Domain>) -> Result<()> {
        let name = &domain.name;
        let config = self.store.load(name)?;
        let drivers = Drivers::of(&config);
        let images = match self.store.own_root(&config) {
            Some(folder) => self.images.open_own(&folder, drivers)?,
            None => self.images.open(&config.template, drivers)?,
        };
        self.take_devices(&config).await?;
        self.start_net_domain(&config).await?;
        let home = self.store.open_home(&config)?;
        lock_volume(&home, name, &self.store.home_file(name))?;
        self.snapshot_home(domain, &config, &home).await;

        let mut runtime = RuntimeDir {
            path: self.dirs.runtime_of(name),
            keep: false,
        };
        let path = &runtime.path;
        let _ = fs::remove_dir_all(path);
        private_dir(path).map_err(Error::io("make the folder", path))?;
        let wayland_path = path.join("wayland.sock");
        let wayland = listener(&wayland_path)?;
        let vsock = listener(&path.join("vsock.sock"))?;
        let control = listener(&path.join("control.sock"))?;
        let console = path.join("console.sock");
        let (connections, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(|error| Error::io("make sockets in", path)(error.into()))?;
        let logs_dir = self.dirs.logs_of(name);
        private_dir(&logs_dir).map_err(Error::io("make the folder", &logs_dir))?;

        let cards = self.plug_in(&config).await?;
        let launch = Launch {
            program: &self.options.vmm,
            config: &config,
            images,
            home,
            cid: self.next_cid(),
            vsock,
            guest_connections: theirs,
            control,
            console: console.clone(),
            wayland: wayland_path,
            extra_cmdline: &self.options.guest_cmdline,
            cards,
        };
        let failed = |what: &str, error: std::io::Error| Error::Start {
            name: name.clone(),
            reason: format!("{what}: {error}"),
        };
        let program = self.options.vmm.display().to_string();
        let launched = launch.spawn().map_err(|error| failed(&program, error))?;
        domain.mark("spawned", now_us());
        // From here on `kill_on_drop` ends the child on every early return.
        let pid = launched
            .child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .unwrap_or(0);
        let pidfd = Pid::from_raw(pid)
            .ok_or(rustix::io::Errno::SRCH)
            .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()))
            .map_err(|error| failed("watch the VMM", error.into()))?;
        let recorders = [
            logs::record(launched.serial, Log::Serial.file(&logs_dir)),
            logs::record(launched.messages, Log::Vmm.file(&logs_dir)),
        ];
        let recorders = recorders.into_iter().filter_map(|recorder| {
            recorder
                .inspect_err(|error| tracing::warn!(domain = %name, %error, "no log"))
                .ok()
        });
        let (agent, requests) = mpsc::unbounded_channel();
        let (reports_sender, mut reports) = mpsc::unbounded_channel();
        let (ended_sender, ended) = watch::channel(None);
        let machine = Arc::new(Machine {
            pid,
            pidfd,
            label: config.label,
            runtime: runtime.path.clone(),
            control: runtime.path.join("control.sock"),
            vsock: runtime.path.join("vsock.sock"),
            console,
            agent,
            ended,
            end_requested: AtomicBool::new(false),
        });
        runtime.keep = true;
        domain.set_machine(Some(machine.clone()));
        self.set_state(
            domain,
            State::Starting {
                stage: Stage::Kernel,
            },
        );
        tokio::spawn(self.clone().watch_machine(
            domain.clone(),
            machine.clone(),
            launched.child,
            recorders.collect(),
            ended_sender,
        ));
        let (calls_sender, calls) = mpsc::channel(crate::rpc::WAITING);
        tokio::spawn(guest::serve(
            connections,
            reports_sender,
            requests,
            calls_sender,
        ));
        tokio::spawn(self.clone().take_calls(name.clone(), calls));
        self.compositor.add(name, config.label, wayland).await;

        match self.wait_until_ready(domain, &machine, &mut reports).await {
            Ok(()) => {
                self.set_up_network(name).await;
                // Later reports matter only for the log.
                let domain_name = name.clone();
                tokio::spawn(async move {
                    while let Some(report) = reports.recv().await {
                        if let Report::Broken(reason) = report {
                            tracing::warn!(domain = %domain_name, reason, "the agent");
                        }
                    }
                });
                Ok(())
            }
            Err(reason) => {
                let by_request = machine.end_requested.load(Ordering::SeqCst);
                machine.kill();
                let _ = tokio::time::timeout(KILL_PATIENCE, machine.gone()).await;
                if by_request {
                    return Err(Error::StoppedEarly(name.clone()));
                }
                Err(Error::Start {
                    name: name.clone(),
                    reason,
                })
            }
        }
    }

    async fn wait_until_ready(
        &self,
        domain: &Arc<Domain>,
        machine: &Machine,
        reports: &mut mpsc::UnboundedReceiver<Report>,
    ) -> std::result::Result<(), String> {
        let timeout = Duration::from_secs(self.options.start_timeout_s.into());
        let deadline = tokio::time::Instant::now() + timeout;
        let name = &domain.name;
        loop {
            let report = tokio::select! {
                report = reports.recv() => report,
                ended = machine.gone() => {
                    return Err(format!("{}; see `bulkhead log {name}`", ended.reason));
                }
                () = tokio::time::sleep_until(deadline) => {
                    return Err(format!(
                        "its agent was not ready after {} s; see `bulkhead log {name}`",
                        timeout.as_secs()
                    ));
                }
            };
            match report {
                Some(Report::Hello(hello)) => {
                    domain.mark("hello", now_us());
                    domain.mark("guest.agent", hello.boot_ms);
                    self.set_state(
                        domain,
                        State::Starting {
                            stage: Stage::Agent,
                        },
                    );
                }
                Some(Report::Ready(ready)) => {
                    domain.mark("ready", now_us());
                    for (stage, ms) in ready.stages {
                        domain.mark(&format!("guest.{}", crate::text::clean(&stage, 20)), ms);
                    }
                    return Ok(());
                }
                Some(Report::Broken(reason)) => return Err(reason),
                // The VMM's end is near; its exit says more.
                None => {
                    let ended = machine.gone().await;
                    return Err(format!("{}; see `bulkhead log {name}`", ended.reason));
                }
            }
        }
    }

    /// Waits for the VMM's end and cleans up.
    async fn watch_machine(
        self: Arc<Self>,
        domain: Arc<Domain>,
        machine: Arc<Machine>,
        mut child: tokio::process::Child,
        recorders: Vec<JoinHandle<()>>,
        ended_sender: watch::Sender<Option<Ended>>,
    ) {
        let name = &domain.name;
        let status = child.wait().await;
        // The pipes end with the process; a moment later the logs are complete.
        let wait = tokio::task::spawn_blocking(move || {
            recorders
                .into_iter()
                .for_each(|recorder| drop(recorder.join()));
        });
        let _ = tokio::time::timeout(Duration::from_secs(2), wait).await;
        let last = logs::last_line(&Log::Vmm.file(&self.dirs.logs_of(name)));
        let (orderly, reason) = match status {
            Ok(status) => vmm::explain(status, last),
            Err(error) => (false, format!("its VMM cannot be watched: {error}")),
        };
        let orderly = orderly || machine.end_requested.load(Ordering::SeqCst);
        tracing::info!(domain = %name, reason, orderly, "the VMM has ended");
        self.compositor.remove(name).await;
        self.unplug(name).await;
        let _ = fs::remove_dir_all(&machine.runtime);
        domain.set_machine(None);
        // A start that waits for this machine says itself what became of it.
        let starting = matches!(*domain.state.borrow(), State::Starting { .. });
        if !starting {
            let state = if orderly {
                State::Halted
            } else {
                State::Failed {
                    reason: reason.clone(),
                }
            };
            self.set_state(&domain, state);
        }
        ended_sender.send_replace(Some(Ended { orderly, reason }));
    }

    /// Stops a domain unless others that run reach the network through it.
    pub async fn stop_unused(&self, name: &DomainName, timeout: Option<Duration>) -> Result<()> {
        self.check_no_net_clients(name)?;
        self.stop(name, timeout).await
    }

    /// Stops a domain: power button, then patience, then force.
    pub async fn stop(&self, name: &DomainName, timeout: Option<Duration>) -> Result<()> {
        let domain = self.domain(name)?;
        let machine = domain
            .machine()
            .ok_or_else(|| Error::NotRunning(name.clone()))?;
        let timeout = timeout.unwrap_or_else(|| {
            let seconds = self
                .store
                .load(name)
                .map_or(15, |config| config.stop_timeout_s);
            Duration::from_secs(seconds.into())
        });
        machine.end_requested.store(true, Ordering::SeqCst);
        let was_running = *domain.state.borrow() == State::Running;
        if was_running {
            self.set_state(&domain, State::Stopping);
        }
        let deadline = tokio::time::Instant::now() + timeout;
        // A guest that has not come up has nothing to lose.
        if was_running {
            if let Err(error) = power_button(&machine).await {
                tracing::warn!(domain = %name, %error, "the power button");
            }
            let patience = BUTTON_PATIENCE.min(timeout);
            if tokio::time::timeout(patience, machine.gone()).await.is_ok() {
                return Ok(());
            }
            // A guest without the button's driver still has its agent. A guest that obeys the
            // button already does not mind.
            let _ = machine.agent.send(Power::Off);
            if tokio::time::timeout_at(deadline, machine.gone())
                .await
                .is_ok()
            {
                return Ok(());
            }
            tracing::warn!(domain = %name, "it did not switch itself off; killed");
        }
        self.finish_off(name, &machine).await
    }

    /// Ends a domain at once.
    pub async fn kill(&self, name: &DomainName) -> Result<()> {
        let domain = self.domain(name)?;
        let machine = domain
            .machine()
            .ok_or_else(|| Error::NotRunning(name.clone()))?;
        self.finish_off(name, &machine).await
    }

    async fn finish_off(&self, name: &DomainName, machine: &Machine) -> Result<()> {
        machine.kill();
        match tokio::time::timeout(KILL_PATIENCE, machine.gone()).await {
            Ok(_) => Ok(()),
            Err(_) => {
                let reason = format!("its VMM (process {}) cannot be killed", machine.pid);
                Err(Error::Guest {
                    name: name.clone(),
                    reason,
                })
            }
        }
    }

    /// Ends everything, for the daemon's own end.
    pub async fn stop_all(self: &Arc<Self>) {
        let mut stops = tokio::task::JoinSet::new();
        for domain in self.known_domains() {
            if domain.machine().is_some() {
                let manager = self.clone();
                stops.spawn(async move { manager.stop(&domain.name, None).await });
            }
        }
        while stops.join_next().await.is_some() {}
    }
}

/// A volume that two guests write to is lost: whoever has it holds a lock, which lives as long
/// as the VMM's descriptor.
fn lock_volume(home: &fs::File, name: &DomainName, file: &Path) -> Result<()> {
    match rustix::fs::flock(home, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let reason = format!("{} is in use by another VMM; end that one", file.display());
            Err(Error::Guest {
                name: name.clone(),
                reason,
            })
        }
        Err(error) => Err(Error::io("lock", file)(error.into())),
    }
}

/// Presses it. The VMM is not trusted to answer.
async fn power_button(machine: &Machine) -> std::io::Result<()> {
    let press = async {
        let mut control = UnixStream::connect(&machine.control).await?;
        let request = bulkhead_vmm_api::ControlRequest {
            cmd: bulkhead_vmm_api::ControlCommand::PowerButton,
        };
        let mut line = serde_json::to_vec(&request).map_err(std::io::Error::other)?;
        line.push(b'\n');
        control.write_all(&line).await?;
        // Waiting for the answer keeps the request from being cut off.
        let mut answer = [0; 1024];
        tokio::io::AsyncReadExt::read(&mut control, &mut answer)
            .await
            .map(|_| ())
    };
    match tokio::time::timeout(BUTTON_PATIENCE, press).await {
        Ok(result) => result,
        Err(_) => Err(std::io::ErrorKind::TimedOut.into()),
    }
}
