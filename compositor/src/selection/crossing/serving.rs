//! Gives a domain what was pasted into it, through pipes that its clients bring.

use std::{
    fs::{File, OpenOptions},
    io::{self, ErrorKind, Write},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
    sync::Arc,
    time::Instant,
};

use smithay::reexports::calloop::{Interest, PostAction, timer::TimeoutAction};

use super::Parcel;
use crate::{
    domain::DomainId,
    selection::pipe::{CHUNK_BYTES, CHUNKS_PER_TURN, Watched},
    state::State,
};

/// Pipes of one domain that are written to at a time. Each keeps what was pasted in memory.
const MAX_PER_DOMAIN: usize = 8;

/// A client that takes what was pasted.
#[derive(Debug)]
pub(super) struct Serving {
    domain: DomainId,
    parcel: Arc<Parcel>,
    written: usize,
    began: Instant,
    /// When it last took something.
    taken: Instant,
    pipe: Watched,
}

#[derive(Debug, thiserror::Error)]
enum NotServed {
    #[error("what it brought is no pipe")]
    NoPipe,
    #[error("it has {MAX_PER_DOMAIN} pastes open")]
    TooMany,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The same pipe, as an open file of our own. Whether writing waits is a property of the open file,
/// and that of the client's descriptor is the client's as well: it could make us wait at any time.
fn our_own(untrusted_fd: &OwnedFd) -> Result<File, NotServed> {
    let kind = rustix::fs::FileType::from_raw_mode(
        rustix::fs::fstat(untrusted_fd)
            .map_err(io::Error::from)?
            .st_mode,
    );
    // Anything else may wait however it is opened.
    if kind != rustix::fs::FileType::Fifo {
        return Err(NotServed::NoPipe);
    }
    let path = format!("/proc/self/fd/{}", untrusted_fd.as_raw_fd());
    Ok(OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)?)
}

impl State {
    /// A client of `domain` wants what was pasted. Whatever is wrong, its pipe closes.
    pub(in crate::selection) fn serve_pasted(
        &mut self,
        domain: DomainId,
        parcel: Arc<Parcel>,
        untrusted_fd: OwnedFd,
    ) {
        if let Err(why) = self.start_serving(domain, parcel, untrusted_fd) {
            let name = self.domains.get(domain).map(|d| d.name.as_str());
            tracing::warn!(domain = name, %why, "a client cannot have what was pasted");
        }
    }

    fn start_serving(
        &mut self,
        domain: DomainId,
        parcel: Arc<Parcel>,
        untrusted_fd: OwnedFd,
    ) -> Result<(), NotServed> {
        let open = self.crossing().serving.values();
        if open.filter(|s| s.domain == domain).count() >= MAX_PER_DOMAIN {
            return Err(NotServed::TooMany);
        }
        let file = our_own(&untrusted_fd)?;
        drop(untrusted_fd);
        let id = self.crossing().next_id();
        let stalled = self.crossing().limits.stalled;
        let pipe = Watched::begin(
            &self.events,
            file,
            Interest::WRITE,
            move |file, state| state.serve_more(id, file),
            stalled,
            move |state| state.serve_deadline(id),
        )?;
        let now = Instant::now();
        let serving = Serving {
            domain,
            parcel,
            written: 0,
            began: now,
            taken: now,
            pipe,
        };
        self.crossing().serving.insert(id, serving);
        Ok(())
    }

    fn serve_more(&mut self, id: u64, mut pipe: &File) -> PostAction {
        let Some(serving) = self.crossing().serving.get_mut(&id) else {
            return PostAction::Remove;
        };
        for _ in 0..CHUNKS_PER_TURN {
            let rest = serving.parcel.bytes().get(serving.written..);
            let chunk = match rest {
                Some(rest @ [_, ..]) => rest.get(..CHUNK_BYTES).unwrap_or(rest),
                _ => {
                    self.stop_serving(id);
                    return PostAction::Remove;
                }
            };
            match pipe.write(chunk) {
                Ok(count) => {
                    serving.written = serving.written.saturating_add(count);
                    serving.taken = Instant::now();
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // It wants no more.
                Err(_) => {
                    self.stop_serving(id);
                    return PostAction::Remove;
                }
            }
        }
        PostAction::Continue
    }

    fn serve_deadline(&mut self, id: u64) -> TimeoutAction {
        let limits = self.crossing().limits;
        let Some(serving) = self.crossing().serving.get(&id) else {
            return TimeoutAction::Drop;
        };
        let deadline = (serving.taken + limits.stalled).min(serving.began + limits.whole);
        if Instant::now() < deadline {
            return TimeoutAction::ToInstant(deadline);
        }
        let domain = serving.domain;
        let name = self.domains.get(domain).map(|d| d.name.as_str());
        tracing::warn!(domain = name, "a client does not take what was pasted");
        self.stop_serving(id);
        TimeoutAction::Drop
    }

    fn stop_serving(&mut self, id: u64) {
        if let Some(serving) = self.crossing().serving.remove(&id) {
            serving.pipe.stop(&self.events);
        }
    }

    /// A domain is gone: its pipes close.
    pub(in crate::selection) fn stop_serving_domain(&mut self, domain: DomainId) {
        let serving = self.crossing().serving.iter();
        let ids: Vec<u64> = serving
            .filter(|(_, s)| s.domain == domain)
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            self.stop_serving(id);
        }
    }
}
