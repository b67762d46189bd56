//! The D-Bus interface `org.bulkhead.Calls1`: questions about calls between domains, and their log.

use std::sync::Arc;

use bulkhead_protocol::TcpPort;
use zbus::message::Header;
use zbus::object_server::SignalEmitter;
use zbus::{OwnedFd, interface};

use super::convert::{Dict, Result, connect_options, invalid, text, texts};
use crate::Error;
use crate::manager::Manager;
use crate::rpc::ask::Question;
use crate::rpc::connect::Wanted;
use crate::rpc::log::Record;

/// The most records that one call gives.
const MAX_RECORDS: u32 = 10_000;

/// The interface; it lies on the manager's object.
pub struct Calls {
    manager: Arc<Manager>,
}

impl Calls {
    pub(super) fn new(manager: Arc<Manager>) -> Self {
        Calls { manager }
    }

    /// The colour of a domain; of a new disposable, that of the domain it is made from. Nothing for
    /// the host.
    fn colour(&self, target: &str) -> String {
        let name = target.strip_prefix("@dispvm:").unwrap_or(target);
        let label = name.parse().ok().and_then(|name| self.manager.label(&name));
        label.map_or_else(String::new, |label| label.colour().to_owned())
    }
}

#[interface(name = "org.bulkhead.Calls1")]
impl Calls {
    /// Questions that wait for the user: id (t), source, colour, wanted, service, argument, default
    /// (s), targets, target_colours, files (as), bytes (t). All text is safe to be shown.
    #[zbus(out_args("questions"))]
    async fn list_asks(&self) -> Vec<Dict> {
        let asks = self.manager.calls.asks.list();
        let colour = |name: &str| self.colour(name);
        asks.into_iter().map(|ask| question(ask, &colour)).collect()
    }

    /// The user says yes. An empty target: the only one, or the suggested one.
    async fn allow_ask(&self, id: u64, target: &str) -> Result<()> {
        let target = Some(target).filter(|target| !target.is_empty());
        let allowed = self.manager.calls.asks.allow(id, target);
        Ok(allowed.map_err(Error::from)?)
    }

    /// The user says no.
    async fn deny_ask(&self, id: u64) -> Result<()> {
        Ok(self.manager.calls.asks.deny(id).map_err(Error::from)?)
    }

    /// The last calls between domains, oldest first, at most `most` of them: time, source, wanted,
    /// target, service, verdict, detail, rule (s), files (as), entries, announced_bytes, sent_bytes,
    /// received_bytes, left_out (t).
    #[zbus(out_args("records"))]
    async fn list_calls(&self, most: u32) -> Vec<Dict> {
        let most = usize::try_from(most.min(MAX_RECORDS)).unwrap_or(0);
        let records = self.manager.calls.log.last(most);
        records.into_iter().map(record).collect()
    }

    /// Has a domain listen on its loopback, each connection being a call for the TCP port of `target`'s.
    /// While this runs, exactly that is allowed where no rule of the user's says otherwise. Answers when
    /// the listening program has ended; it ends when the caller leaves the bus. Options: listen (q: the
    /// port of `source`; 0: a free one), token (s). What the program writes is in the guest's words.
    #[zbus(out_args("status", "message"))]
    #[allow(clippy::too_many_arguments)]
    async fn connect_domains(
        &self,
        #[zbus(header)] header: Header<'_>,
        source: &str,
        target: &str,
        port: u16,
        options: Dict,
        stdout: OwnedFd,
        stderr: OwnedFd,
    ) -> Result<(i32, String)> {
        let (listen, token) = connect_options(options)?;
        let wanted = Wanted {
            source: source.parse()?,
            target: target.parse()?,
            port: TcpPort::try_from(port).map_err(|error| invalid(error.to_string()))?,
            listen,
        };
        let key = (super::caller(&header), token);
        let streams = (stdout.into(), stderr.into());
        let outcome = self.manager.connect(&wanted, streams, key).await?;
        Ok((outcome.status, outcome.message))
    }

    /// A question waits for the user.
    #[zbus(signal)]
    pub(super) async fn ask_opened(emitter: &SignalEmitter<'_>, id: u64) -> zbus::Result<()>;

    /// It was answered, or withdrawn.
    #[zbus(signal)]
    pub(super) async fn ask_closed(emitter: &SignalEmitter<'_>, id: u64) -> zbus::Result<()>;

    /// A call ended, one way or another: a line for the user.
    #[zbus(signal)]
    pub(super) async fn call_ended(emitter: &SignalEmitter<'_>, notice: &str) -> zbus::Result<()>;
}

fn question((id, question): (u64, Question), colour: &dyn Fn(&str) -> String) -> Dict {
    let colours: Vec<String> = question.targets.iter().map(|name| colour(name)).collect();
    Dict::from([
        ("colour".into(), text(colour(&question.source))),
        ("target_colours".into(), texts(&colours)),
        ("id".into(), id.into()),
        ("source".into(), text(question.source)),
        ("wanted".into(), text(question.wanted)),
        ("service".into(), text(question.service)),
        ("argument".into(), text(question.argument)),
        ("default".into(), text(question.default.unwrap_or_default())),
        ("targets".into(), texts(&question.targets)),
        ("files".into(), texts(&question.files)),
        ("bytes".into(), question.bytes.into()),
    ])
}

fn record(record: Record) -> Dict {
    Dict::from([
        ("time".into(), text(record.time)),
        ("source".into(), text(record.source)),
        ("wanted".into(), text(record.wanted)),
        ("target".into(), text(record.target)),
        ("service".into(), text(record.service)),
        ("verdict".into(), text(record.verdict)),
        ("detail".into(), text(record.detail)),
        ("rule".into(), text(record.rule)),
        ("files".into(), texts(&record.files)),
        ("entries".into(), record.entries.into()),
        ("announced_bytes".into(), record.announced_bytes.into()),
        ("sent_bytes".into(), record.sent_bytes.into()),
        ("received_bytes".into(), record.received_bytes.into()),
        ("left_out".into(), record.left_out.into()),
    ])
}
