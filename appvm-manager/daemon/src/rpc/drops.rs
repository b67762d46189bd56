//! Files that the user has dropped on another domain's window. The source domain sends them itself,
//! by an ordinary call that names the drop: it is decided, asked about, limited and logged as any
//! other. What is different is that it goes to one domain only, and that the compositor hears of its
//! end, since the window is to be told where the files are.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bulkhead_policy::{Call, IntendedTarget, Name};
use tokio::sync::oneshot;

use super::log::Record;

/// The service that takes files.
pub(crate) const SERVICE: &str = "qubes.Filecopy";

/// How the call of a drop ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The target has the files, and says where.
    Landed(Vec<u8>),
    /// It has not, and why.
    Not(String),
}

#[derive(Debug)]
struct Pending {
    source: Name,
    target: Name,
    ended: oneshot::Sender<Ended>,
}

#[derive(Debug, Default)]
struct Table {
    last: u64,
    open: BTreeMap<u64, Pending>,
}

/// All drops whose call has not come yet.
#[derive(Debug, Clone, Default)]
pub(crate) struct Drops(Arc<Mutex<Table>>);

/// A drop that waits for its call; forgotten when this is dropped.
#[derive(Debug)]
pub(crate) struct Open {
    /// Its number.
    pub(crate) id: u64,
    /// How it ended.
    pub(crate) ended: oneshot::Receiver<Ended>,
    drops: Drops,
}

/// A call that carries a drop out.
#[derive(Debug)]
pub(super) struct Ticket(oneshot::Sender<Ended>);

impl Drops {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Expects a call of `source` to `target`.
    pub(crate) fn expect(&self, source: Name, target: Name) -> Open {
        let (sender, ended) = oneshot::channel();
        let mut table = self.table();
        table.last += 1;
        let id = table.last;
        let pending = Pending {
            source,
            target,
            ended: sender,
        };
        table.open.insert(id, pending);
        drop(table);
        Open {
            id,
            ended,
            drops: self.clone(),
        }
    }

    /// The drop that a call names, if it is the one that was expected, and the first.
    pub(super) fn take(&self, untrusted_id: u64, call: &Call) -> Option<Ticket> {
        let mut table = self.table();
        let pending = table.open.get(&untrusted_id)?;
        let target = matches!(&call.target, IntendedTarget::Domain(to) if *to == pending.target);
        let whole = call.service.as_str() == SERVICE && call.argument.as_str().is_empty();
        if pending.source != call.source || !target || !whole {
            return None;
        }
        let pending = table.open.remove(&untrusted_id)?;
        Some(Ticket(pending.ended))
    }
}

impl Open {
    /// Whether its call has not come.
    pub(crate) fn is_waiting(&self) -> bool {
        self.drops.table().open.contains_key(&self.id)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.drops.table().open.remove(&self.id);
    }
}

impl Ticket {
    pub(super) fn end(self, record: &Record, untrusted_landed: Vec<u8>) {
        // Nobody may wait any more.
        let _ = self.0.send(match record.why_not() {
            None => Ended::Landed(untrusted_landed),
            Some(why) => Ended::Not(why),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(source: &str, target: &str, service: &str) -> Call {
        let source = source.parse().unwrap();
        Call::parse(source, service.as_bytes(), target.as_bytes()).unwrap()
    }

    #[tokio::test]
    async fn only_the_expected_call_counts_and_only_once() {
        let drops = Drops::default();
        let mut open = drops.expect("work".parse().unwrap(), "personal".parse().unwrap());
        for wrong in [
            call("other", "personal", SERVICE),
            call("work", "vault", SERVICE),
            call("work", "personal", "qubes.OpenInVM"),
            call("work", "personal", "qubes.Filecopy+x"),
        ] {
            assert!(drops.take(open.id, &wrong).is_none(), "{wrong:?}");
        }
        let right = call("work", "personal", SERVICE);
        assert!(drops.take(open.id + 1, &right).is_none());
        assert!(open.is_waiting());
        let ticket = drops.take(open.id, &right).unwrap();
        assert!(!open.is_waiting() && drops.take(open.id, &right).is_none());
        let mut record = Record::new(&right);
        record.ended("refused by the user");
        ticket.end(&record, b"x".to_vec());
        let ended = (&mut open.ended).await.unwrap();
        assert_eq!(ended, Ended::Not("refused by the user".into()));
        let gone = drops.expect("work".parse().unwrap(), "personal".parse().unwrap());
        let id = gone.id;
        drop(gone);
        assert!(drops.take(id, &right).is_none());
    }
}
