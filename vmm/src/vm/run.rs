//! The life of a running VM: the main thread waits for its end, for signals and for commands.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::PoisonError;

use bulkhead_vmm_api::{ControlCommand, ControlReply, VmState};

use super::{Vm, VmError};
use crate::control::{Client, MAX_CLIENTS};
use crate::exit::ExitReason;
use crate::vcpu::Processors;

/// SIGTERM, SIGINT and SIGHUP as a descriptor. Made before any thread starts, so that all
/// threads leave these signals to it.
pub struct Signals(OwnedFd);

impl Signals {
    /// Blocks the signals in this thread and those that it starts.
    pub fn new() -> io::Result<Self> {
        // SAFETY: `set` is filled by sigemptyset before it is used; all pointers are to it.
        let fd = unsafe {
            let mut set = std::mem::zeroed::<libc::sigset_t>();
            libc::sigemptyset(&mut set);
            for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
                libc::sigaddset(&mut set, signal);
            }
            let error = libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
            if error != 0 {
                return Err(io::Error::from_raw_os_error(error));
            }
            libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just created, owned by nobody else.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }
}

impl Vm {
    /// Starts the guest and returns why it ended.
    pub fn run(mut self, signals: &Signals) -> Result<ExitReason, VmError> {
        let vcpus = std::mem::take(&mut self.vcpus);
        let mut processors = Processors::start(vcpus, self.buses.clone(), &self.memory, &self.exit)
            .map_err(VmError::host("starting the processors' threads"))?;
        tracing::info!(
            domain = %self.name,
            cpus = self.cpus,
            memory_mib = crate::memory::total_bytes(&self.memory) >> 20,
            "running"
        );
        let mut clients = Vec::new();
        let reason = self.wait_for_end(&processors, signals, &mut clients);
        processors.end();
        for function in &self.functions {
            function
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .stop();
        }
        for function in &self.passed {
            function
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .stop();
        }
        let reason = reason?;
        tracing::info!(domain = %self.name, "{reason}");
        for client in &mut clients {
            client.tell_exit(&reason);
        }
        Ok(reason)
    }

    fn wait_for_end(
        &self,
        processors: &Processors,
        signals: &Signals,
        clients: &mut Vec<Client>,
    ) -> Result<ExitReason, VmError> {
        let mut state = VmState::Running;
        loop {
            let mut fds: Vec<BorrowedFd<'_>> = Vec::with_capacity(3 + clients.len());
            // SAFETY: the eventfd lives as long as `self`.
            fds.push(unsafe { BorrowedFd::borrow_raw(self.exit.event().as_raw_fd()) });
            fds.push(signals.0.as_fd());
            fds.extend(clients.iter().map(AsFd::as_fd));
            let listening = self
                .control
                .as_ref()
                .filter(|_| clients.len() < MAX_CLIENTS);
            if let Some(control) = listening {
                fds.push(control.listener.as_fd());
            }
            let ready = wait_readable(&fds).map_err(VmError::host("waiting for events"))?;
            if let Some(reason) = self.exit.reason() {
                return Ok(reason);
            }
            let mut ready = ready.into_iter().skip(1);
            if ready.next() == Some(true) {
                self.exit.end(ExitReason::Killed("by a signal".into()));
                continue;
            }
            clients.retain_mut(|client| {
                if ready.next() != Some(true) {
                    return true;
                }
                client.serve(|command| self.obey(command, &mut state, processors))
            });
            if ready.next() == Some(true)
                && let Some(control) = listening
                && let Some(client) = Client::accept(&control.listener)
            {
                clients.push(client);
            }
        }
    }

    fn obey(
        &self,
        command: ControlCommand,
        state: &mut VmState,
        processors: &Processors,
    ) -> ControlReply {
        match command {
            ControlCommand::Status => {
                let mut reply = ControlReply::done(*state);
                reply.name = Some(self.name.clone());
                reply.cpus = Some(self.cpus);
                reply.memory_mib =
                    u32::try_from(crate::memory::total_bytes(&self.memory) >> 20).ok();
                reply.gpu = self.gpu_stats.as_ref().map(|stats| {
                    stats
                        .values()
                        .into_iter()
                        .map(|(name, value)| (name.to_owned(), value))
                        .collect()
                });
                return reply;
            }
            ControlCommand::Pause => {
                if *state == VmState::Running {
                    processors.pause();
                    *state = VmState::Paused;
                }
            }
            ControlCommand::Resume => {
                processors.resume();
                *state = VmState::Running;
            }
            ControlCommand::PowerButton => {
                let mut pm1 = self.pm1.lock().unwrap_or_else(PoisonError::into_inner);
                if !pm1.press_power_button() {
                    return ControlReply::refused(
                        "the guest does not listen to its power button yet; it will find it \
                         pressed when it does",
                    );
                }
            }
            ControlCommand::Kill => {
                self.exit
                    .end(ExitReason::Killed("through the control socket".into()));
            }
        }
        ControlReply::done(*state)
    }
}

/// Waits until some of `fds` are readable (or broken) and tells which.
fn wait_readable(fds: &[BorrowedFd<'_>]) -> io::Result<Vec<bool>> {
    let mut polls: Vec<libc::pollfd> = fds
        .iter()
        .map(|fd| libc::pollfd {
            fd: fd.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        })
        .collect();
    // SAFETY: an array of pollfds with its length, for the time of the call.
    let count = unsafe { libc::poll(polls.as_mut_ptr(), polls.len() as libc::nfds_t, -1) };
    if count < 0 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
        return Ok(vec![false; fds.len()]);
    }
    Ok(polls.iter().map(|poll| poll.revents != 0).collect())
}
