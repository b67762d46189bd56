//! Calls between domains: from a guest's request to the service's end.
//!
//! 1. [`crate::guest`] hands over connections to the call port; [`Manager::take_calls`] takes so many
//!    at once, so that a guest that floods the door slows down nobody but itself.
//! 2. [`caller`] reads the request, and later holds what the caller sends too early.
//! 3. [`decide`] asks the policy, and through [`ask`] the user.
//! 4. [`carry`] starts the target and the service there, and [`relay`] carries the streams.
//! 5. [`log`] keeps a line of it.
//!
//! The caller learns nothing but yes, no, and what the service answers.

pub mod ask;
mod budget;
mod caller;
mod carry;
pub(crate) mod connect;
mod decide;
pub(crate) mod drops;
pub(crate) mod grants;
mod host;
pub mod log;
pub(crate) mod quota;
mod relay;

use std::os::unix::net::UnixStream as StdStream;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bulkhead_policy::{Allow, Call};
use bulkhead_protocol::{CONNECT_SERVICE, DomainName, TcpPort};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::manager::Manager;
use budget::Budget;
use caller::{Caller, CallerError};
pub(crate) use carry::serve_command;
use log::Record;

/// Calls of one domain at the same time, open questions included.
const MAX_CALLS: usize = 16;
/// TCP connections that one domain has made at the same time. They last, so they are not among the calls.
const MAX_CONNECTIONS: usize = 64;
/// How long a call waits for one of them to end.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between two calls of one domain.
const PAUSE: Duration = Duration::from_millis(2);
/// Connections that wait to be taken.
pub(crate) const WAITING: usize = 4;
/// What a refused caller is told.
const REFUSAL: &str = "refused";

/// What belongs to all calls.
#[derive(Debug)]
pub(crate) struct Calls {
    pub(crate) asks: ask::Asks,
    pub(crate) log: log::Log,
    pub(crate) quota: quota::Quota,
    pub(crate) drops: drops::Drops,
    pub(crate) grants: grants::Grants,
}

impl Manager {
    /// Takes a domain's calls until its machine ends. Boxed, since a call may start a machine, which
    /// takes calls.
    pub(crate) fn take_calls(
        self: Arc<Self>,
        domain: DomainName,
        connections: mpsc::Receiver<StdStream>,
    ) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(self.take_all_calls(domain, connections))
    }

    async fn take_all_calls(
        self: Arc<Self>,
        domain: DomainName,
        mut incoming: mpsc::Receiver<StdStream>,
    ) {
        let slots = Arc::new(Semaphore::new(MAX_CALLS));
        let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let budget = Arc::new(Mutex::new(Budget::new(Instant::now())));
        while let Some(connection) = incoming.recv().await {
            let slot = slots.clone().acquire_owned();
            let Ok(Ok(slot)) = tokio::time::timeout(PATIENCE, slot).await else {
                tracing::debug!(%domain, "too many calls at once");
                continue;
            };
            let (manager, domain) = (self.clone(), domain.clone());
            let places = Places {
                call: Some(slot),
                connections: connections.clone(),
            };
            let budget = budget.clone();
            tokio::spawn(async move {
                manager
                    .take_call(&domain, connection, places, &budget)
                    .await;
            });
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn take_call(
        self: &Arc<Self>,
        domain: &DomainName,
        connection: StdStream,
        mut places: Places,
        budget: &Mutex<Budget>,
    ) {
        let (mut caller, request) = match Caller::accept(connection).await {
            Ok(accepted) => accepted,
            Err(error) => return tracing::debug!(%domain, %error, "no call"),
        };
        let source = match domain.as_str().parse() {
            Ok(source) => source,
            Err(error) => return tracing::error!(%domain, %error, "a name that no policy knows"),
        };
        let call = match Call::parse(
            source,
            request.service.as_bytes(),
            request.target.as_bytes(),
        ) {
            Ok(call) => call,
            Err(error) => {
                tracing::warn!(%domain, %error, "a call");
                // Its own mistake may be told.
                return caller.refuse(126, &error.to_string()).await;
            }
        };
        if let Err(error) = check_argument(&call) {
            tracing::warn!(%domain, %error, "a call");
            return caller.refuse(126, &error.to_string()).await;
        }
        let ticket = match request.drop.map(|id| self.calls.drops.take(id, &call)) {
            None => None,
            Some(Some(ticket)) => Some(ticket),
            Some(None) => return caller.refuse(126, REFUSAL).await,
        };
        let mut record = Record::new(&call);
        let mut untrusted_landed = Vec::new();
        match self
            .decide(&call, &mut caller, ticket.is_some(), &mut record)
            .await
        {
            Ok(allow) if !places.last(&call) => {
                record.allowed(&allow);
                record.ended("the caller has too many connections open");
                caller.refuse(125, "too many connections are open").await;
            }
            Ok(allow) => {
                record.allowed(&allow);
                untrusted_landed = self
                    .carry_and_record(&call, &allow, caller, ticket.is_some(), &mut record)
                    .await;
            }
            Err(decide::Refused::Denied) => caller.refuse(126, REFUSAL).await,
            Err(decide::Refused::Caller(error)) => record.ended(&error.to_string()),
        }
        if let Some(ticket) = ticket {
            ticket.end(&record, untrusted_landed);
        }
        let now = Instant::now();
        let mut budget = budget.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(left_out) = budget.line(now) {
            record.left_out = left_out;
            tracing::info!(%domain, "{record}");
            self.calls.log.append(&record);
        }
        if record.notify && budget.notice(now) {
            self.tell(crate::manager::Event::Call(record.told()));
        }
    }

    async fn carry_and_record(
        self: &Arc<Self>,
        call: &Call,
        allow: &Allow,
        caller: Caller,
        dropped: bool,
        record: &mut Record,
    ) -> Vec<u8> {
        let cut = match record.by_command.then(|| caller.handle()).transpose() {
            Ok(cut) => cut,
            Err(error) => {
                record.ended(&error.to_string());
                return Vec::new();
            }
        };
        let carried = self.carry(call, allow, caller, dropped);
        tokio::pin!(carried);
        let carried = match cut {
            None => carried.await,
            Some(caller) => tokio::select! {
                carried = &mut carried => carried,
                () = self.calls.grants.over(call) => {
                    // The caller's end takes the rest with it.
                    let _ = caller.shutdown(std::net::Shutdown::Both);
                    carried.await
                }
            },
        };
        match carried {
            Ok(carried) => {
                record.carried(&carried);
                carried.untrusted_landed
            }
            Err(error) => {
                record.ended(&error.to_string());
                Vec::new()
            }
        }
    }
}

/// What a call takes of what its domain may have at the same time.
struct Places {
    call: Option<OwnedSemaphorePermit>,
    connections: Arc<Semaphore>,
}

impl Places {
    /// A TCP connection may last for days: it gives its place among the calls back for one among the
    /// connections. Tells whether there is one.
    fn last(&mut self, call: &Call) -> bool {
        if call.service.as_str() == CONNECT_SERVICE {
            self.call = self.connections.clone().try_acquire_owned().ok();
        }
        self.call.is_some()
    }
}

/// A port that could be written in two ways would be two to the rules, and one to the service.
fn check_argument(call: &Call) -> Result<(), bulkhead_protocol::InvalidPort> {
    if call.service.as_str() == CONNECT_SERVICE {
        call.argument.as_str().parse::<TcpPort>()?;
    }
    Ok(())
}

/// Why a call that is allowed did not come about.
#[derive(Debug, thiserror::Error)]
enum CarryError {
    #[error(transparent)]
    Manager(#[from] crate::Error),
    #[error(transparent)]
    Caller(#[from] CallerError),
    #[error("too many disposables live that calls have made; close some")]
    TooManyDisposables,
    #[error("the host has no service `{0}`")]
    NoHostService(String),
    #[error("the rule's user `{0}` does not exist in domains; use root, or none")]
    NoUser(String),
    #[error("the target's agent cannot be reached: {0}")]
    Target(std::io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(service: &str) -> Call {
        let source = "work".parse().unwrap();
        Call::parse(source, service.as_bytes(), b"personal").unwrap()
    }

    #[test]
    fn a_port_is_checked_before_any_rule_is() {
        for fine in ["bulkhead.ConnectTcp+22", "my.Service+022", "my.Service"] {
            assert!(check_argument(&call(fine)).is_ok(), "{fine}");
        }
        for argument in [
            "", "+", "+0", "+022", "+65536", "+22+", "++22", "+a", "+22-23",
        ] {
            let call = call(&format!("bulkhead.ConnectTcp{argument}"));
            assert!(check_argument(&call).is_err(), "{call}");
        }
    }

    #[tokio::test]
    async fn connections_that_last_leave_room_for_calls() {
        let calls = Arc::new(Semaphore::new(1));
        let connections = Arc::new(Semaphore::new(1));
        let places = || Places {
            call: calls.clone().try_acquire_owned().ok(),
            connections: connections.clone(),
        };
        let connection = call("bulkhead.ConnectTcp+22");
        let mut first = places();
        assert!(first.last(&connection));
        // The place among the calls is free again, and is kept by what is no connection.
        let mut second = places();
        assert!(!second.last(&connection));
        let mut third = places();
        assert!(third.last(&call("my.Service")));
        assert_eq!(calls.available_permits(), 0);
        drop(first);
        assert!(second.last(&connection));
    }
}
