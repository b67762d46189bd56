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
mod decide;
pub(crate) mod drops;
mod host;
pub mod log;
pub(crate) mod quota;
mod relay;

use std::os::unix::net::UnixStream as StdStream;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bulkhead_policy::{Allow, Call};
use bulkhead_protocol::DomainName;
use tokio::sync::{Semaphore, mpsc};

use crate::manager::Manager;
use budget::Budget;
use caller::{Caller, CallerError};
pub(crate) use carry::serve_command;
use log::Record;

/// Calls of one domain at the same time, open questions included.
const MAX_CALLS: usize = 16;
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
        mut connections: mpsc::Receiver<StdStream>,
    ) {
        let slots = Arc::new(Semaphore::new(MAX_CALLS));
        let budget = Arc::new(Mutex::new(Budget::new(Instant::now())));
        while let Some(connection) = connections.recv().await {
            let slot = slots.clone().acquire_owned();
            let Ok(Ok(slot)) = tokio::time::timeout(PATIENCE, slot).await else {
                tracing::debug!(%domain, "too many calls at once");
                continue;
            };
            let (manager, domain) = (self.clone(), domain.clone());
            let budget = budget.clone();
            tokio::spawn(async move {
                manager.take_call(&domain, connection, &budget).await;
                drop(slot);
            });
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn take_call(
        self: &Arc<Self>,
        domain: &DomainName,
        connection: StdStream,
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
        match self.carry(call, allow, caller, dropped).await {
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
