//! Starts the target of a call that is allowed, and the service in it, and carries the streams.

use std::io;
use std::sync::Arc;

use bulkhead_policy::{Allow, Call, Destination, UserName};
use bulkhead_protocol::{
    DomainName, EXEC_PORT, ExecRequest, ExitReason, MAX_DATA, Message, Stream, User,
};
use bulkhead_transfer::landed;
use tokio::sync::oneshot;

use super::caller::{Caller, Parts, linger};
use super::quota::Place;
use super::relay::{Carried, relay};
use super::{CarryError, host};
use crate::domain::{Machine, State};
use crate::manager::Manager;
use crate::session;

/// How long a caller of the host's services may take to close.
const LINGER: std::time::Duration = std::time::Duration::from_secs(2);
/// The program of every guest that finds a service and becomes it.
const SERVER: &str = "/run/bulkhead/bin/bulkhead-rpc";

impl Manager {
    /// Carries the call to its end. Of what was dropped, the target is asked where it is then.
    pub(super) async fn carry(
        self: &Arc<Self>,
        call: &Call,
        allow: &Allow,
        mut caller: Caller,
        dropped: bool,
    ) -> Result<Carried, CarryError> {
        if call.service.as_str() == host::START_APP {
            return self.start_app(call, allow, caller).await;
        }
        if call.service.as_str() == host::NOTIFY && allow.target == Destination::Host {
            return self.notify(call, caller).await;
        }
        // A task of its own: a caller that hangs up meanwhile must not leave a domain half started.
        let starting = {
            let (manager, call, allow) = (self.clone(), call.clone(), allow.clone());
            tokio::spawn(async move { manager.target(&call, &allow).await })
        };
        let machine = tokio::select! {
            machine = starting => machine.unwrap_or_else(|error| Err(io::Error::other(error).into())),
            // A disposable that was made for it goes when nobody takes it.
            error = caller.gone() => return Err(error.into()),
        };
        let (machine, disposable) = match machine {
            Ok(Target::Domain(machine, disposable)) => (machine, disposable),
            Ok(Target::Host(answer)) => {
                let parts = caller.into_parts()?;
                let answered =
                    tokio::task::spawn_blocking(move || answer_from_host(parts, &answer));
                return answered
                    .await
                    .unwrap_or_else(|error| Err(io::Error::other(error).into()));
            }
            Err(error) => {
                caller.refuse(125, "the other domain is not there").await;
                return Err(error);
            }
        };
        let request = ExecRequest {
            argv: serve_command(
                call.service.as_str(),
                call.argument.as_str(),
                call.source.as_str(),
            ),
            user: user(allow.user.as_ref())?,
            env: dropped
                .then(|| (landed::WANTED.to_owned(), "1".to_owned()))
                .into_iter()
                .collect(),
            ..ExecRequest::default()
        };
        let parts = caller.into_parts()?;
        let (sender, receiver) = oneshot::channel();
        std::thread::Builder::new()
            .name(format!("call {}", call.source))
            .spawn(move || {
                // Whoever waits may be gone.
                let _ = sender.send(run(&machine, request, parts, dropped));
                drop(disposable);
            })
            .map_err(CarryError::Target)?;
        match receiver.await {
            Ok(carried) => carried,
            Err(_) => Err(CarryError::Target(io::ErrorKind::Other.into())),
        }
    }

    /// An application that the target's own menu has, as the user would launch it there.
    async fn start_app(
        self: &Arc<Self>,
        call: &Call,
        allow: &Allow,
        caller: Caller,
    ) -> Result<Carried, CarryError> {
        let (name, disposable) = match &allow.target {
            Destination::Domain(name) => (name, false),
            Destination::NewDisposable { template } => (template, true),
            Destination::Host => return Err(CarryError::NoHostService(call.service.to_string())),
        };
        let name: DomainName = name.as_str().parse().map_err(crate::Error::from)?;
        let app = call.argument.as_str().trim_end_matches(".desktop");
        let place = if disposable {
            match self.place(call) {
                Ok(place) => Some(place),
                Err(error) => {
                    caller.refuse(1, "it was not started").await;
                    return Err(error);
                }
            }
        } else {
            None
        };
        match self.launch_with(&name, app, disposable, place).await {
            Ok(_) => done(caller, 0),
            Err(error) => {
                caller.refuse(1, "it was not started").await;
                Err(error.into())
            }
        }
    }

    fn place(&self, call: &Call) -> Result<Place, CarryError> {
        let place = self.calls.quota.take(&call.source);
        place.ok_or(CarryError::TooManyDisposables)
    }

    async fn notify(&self, call: &Call, mut caller: Caller) -> Result<Carried, CarryError> {
        let untrusted_text = caller.whole_input(host::MAX_NOTIFICATION).await?;
        let notice = host::notification(call.source.as_str(), &untrusted_text);
        let carried = done(caller, untrusted_text.len())?;
        Ok(Carried {
            notice: Some(notice),
            ..carried
        })
    }

    /// Where the call goes, running.
    async fn target(self: &Arc<Self>, call: &Call, allow: &Allow) -> Result<Target, CarryError> {
        match &allow.target {
            Destination::Host => match host::answer(call) {
                Some(answer) => Ok(Target::Host(answer)),
                None => Err(CarryError::NoHostService(call.service.to_string())),
            },
            Destination::Domain(name) => {
                let name: DomainName = name.as_str().parse().map_err(crate::Error::from)?;
                let machine = if allow.autostart {
                    self.ensure_running(&name).await?
                } else {
                    let domain = self.domain(&name)?;
                    let running = *domain.state.borrow() == State::Running;
                    domain
                        .machine()
                        .filter(|_| running)
                        .ok_or(crate::Error::NotRunning(name))?
                };
                Ok(Target::Domain(machine, None))
            }
            Destination::NewDisposable { template } => {
                let model: DomainName = template.as_str().parse().map_err(crate::Error::from)?;
                let (machine, ended) = self
                    .disposable_for_call(&model, shows(call), self.place(call)?)
                    .await?;
                Ok(Target::Domain(machine, Some(ended)))
            }
        }
    }
}

/// What runs in a guest that is called.
pub(crate) fn serve_command(service: &str, argument: &str, source: &str) -> Vec<String> {
    [SERVER, "--serve", service, argument, source]
        .map(str::to_owned)
        .into()
}

/// Whether a window comes of it.
fn shows(call: &Call) -> bool {
    matches!(call.service.as_str(), "qubes.OpenInVM" | "qubes.OpenURL")
}

enum Target {
    /// With what tells a disposable that its call has ended, by being dropped.
    Domain(Arc<Machine>, Option<oneshot::Sender<()>>),
    Host(Vec<u8>),
}

fn user(wanted: Option<&UserName>) -> Result<User, CarryError> {
    match wanted.map(ToString::to_string).as_deref() {
        None | Some("user") => Ok(User::User),
        Some("root") => Ok(User::Root),
        Some(other) => Err(CarryError::NoUser(other.to_owned())),
    }
}

/// Blocks until the call has ended.
fn run(
    machine: &Machine,
    request: ExecRequest,
    parts: Parts,
    dropped: bool,
) -> Result<Carried, CarryError> {
    let connect = || {
        let mut service = session::connect(&machine.vsock, EXEC_PORT)?;
        let frame = Message::Exec(request).encode().map_err(io::Error::other)?;
        io::Write::write_all(&mut service, &frame)?;
        Ok(service)
    };
    match connect() {
        Ok(service) => Ok(relay(parts, service, dropped)?),
        Err(error) => {
            parts.refuse(125, "the other domain is not there");
            Err(CarryError::Target(error))
        }
    }
}

/// The host has done what was wanted.
fn done(caller: Caller, sent: usize) -> Result<Carried, CarryError> {
    let parts = caller.into_parts()?;
    // A thread, since whoever called may take its time.
    std::thread::spawn(move || answer_from_host(parts, &[]));
    Ok(Carried {
        sent_bytes: sent as u64,
        received_bytes: 0,
        exit: Some(ExitReason::Code(0)),
        notice: None,
        untrusted_landed: Vec::new(),
    })
}

/// The host's own services answer a few bytes and read nothing.
fn answer_from_host(parts: Parts, answer: &[u8]) -> Result<Carried, CarryError> {
    let mut messages = Vec::new();
    if !parts.started {
        messages.push(Message::Started { pid: 0 });
    }
    for bytes in answer.chunks(MAX_DATA) {
        messages.push(Message::Data {
            stream: Stream::Stdout,
            bytes: bytes.to_vec(),
        });
    }
    messages.push(Message::Exit(ExitReason::Code(0)));
    parts
        .stream
        .set_write_timeout(Some(std::time::Duration::from_secs(2)))?;
    for message in messages {
        let frame = message.encode().map_err(io::Error::other)?;
        io::Write::write_all(&mut &parts.stream, &frame)?;
    }
    linger(&parts.stream, LINGER);
    Ok(Carried {
        sent_bytes: 0,
        received_bytes: answer.len() as u64,
        exit: Some(ExitReason::Code(0)),
        notice: None,
        untrusted_landed: Vec::new(),
    })
}

impl From<io::Error> for CarryError {
    fn from(error: io::Error) -> Self {
        CarryError::Target(error)
    }
}
