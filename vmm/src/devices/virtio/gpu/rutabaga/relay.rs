//! Both connections of a context, ours to the compositor and rutabaga's to us, and what passes
//! between them.
//!
//! Rutabaga stops for ever at a descriptor that it does not know, and waits in SEND for a peer
//! that does not read. Here a descriptor is looked at before rutabaga sees it, and what rutabaga
//! sends is always taken, within the limits of [`Connection`].

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::Shutdown;

use super::super::super::poller::{Interest, Poller};
use super::super::cross_domain::connection::{Connection, Incoming, Outgoing};
use super::super::cross_domain::objects::{MAX_PIPES, Objects, Received, classify};
use super::super::cross_domain::{ContextError, Host};
use super::pump::Pump;
use super::socket::PrivateSocket;
use super::{ITEM_INNER, ITEM_OUTER, ITEM_PUMP};

/// Descriptors that rutabaga has not told the guest of.
const MAX_EXPECTED: usize = 64;

/// A descriptor on its way through rutabaga, and the number that the guest will know it by.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// Our number, not rutabaga's.
    pub number: u32,
    /// What it is.
    pub kind: Received,
}

/// What became of a connection.
#[derive(Debug)]
enum Inner {
    Expected(PrivateSocket),
    Connected(Connection),
}

/// The two connections.
#[derive(Debug)]
pub struct Relay {
    outer: Connection,
    outer_ended: bool,
    inner: Inner,
    /// In the order in which rutabaga gets them.
    pub expected: VecDeque<Expected>,
    /// Bytes from the compositor that rutabaga was given.
    pub forwarded: u64,
}

impl Relay {
    /// A relay whose inner connection will come through `socket`.
    pub fn new(
        outer: Connection,
        socket: PrivateSocket,
        host: &Host<'_>,
    ) -> Result<Self, ContextError> {
        let watching = |error| ContextError::Host("watching a connection", error);
        host.poller
            .add(&outer, host.token(ITEM_OUTER), Interest::BothEdges)
            .map_err(watching)?;
        host.poller
            .add(&socket, host.token(ITEM_INNER), Interest::Readable)
            .map_err(watching)?;
        Ok(Self {
            outer,
            outer_ended: false,
            inner: Inner::Expected(socket),
            expected: VecDeque::new(),
            forwarded: 0,
        })
    }

    /// Something happened to the compositor's connection.
    pub fn outer_event(&mut self, writable: bool) -> Result<(), ContextError> {
        if writable {
            self.outer.flush()?;
        }
        Ok(())
    }

    /// Something happened to rutabaga's connection.
    pub fn inner_event(&mut self, writable: bool, host: &mut Host<'_>) -> Result<(), ContextError> {
        if let Inner::Expected(socket) = &self.inner {
            let Some(stream) = socket.accept() else {
                return Ok(());
            };
            host.poller.remove(socket);
            host.poller
                .add(&stream, host.token(ITEM_INNER), Interest::BothEdges)
                .map_err(|error| ContextError::Host("watching a connection", error))?;
            self.inner = Inner::Connected(Connection::over(stream));
        }
        if let Inner::Connected(inner) = &mut self.inner
            && writable
        {
            inner.flush()?;
        }
        self.take_from_rutabaga(host)
    }

    fn take_from_rutabaga(&mut self, host: &mut Host<'_>) -> Result<(), ContextError> {
        let Inner::Connected(inner) = &mut self.inner else {
            return Ok(());
        };
        // Its end is told by the thread, which has a reason.
        while let Incoming::Message(length, descriptors) = inner.receive(host.scratch)? {
            let data = host.scratch.get(..length).unwrap_or_default();
            let outgoing = descriptors.into_iter().map(Outgoing::Pipe).collect();
            self.outer.send(data, outgoing)?;
            host.stats.bytes_sent.add(length as u64);
        }
        Ok(())
    }

    /// Gives rutabaga what the compositor sent, as long as it takes it.
    pub fn give_to_rutabaga(
        &mut self,
        objects: &mut Objects,
        pumps: &mut BTreeMap<u32, Pump>,
        host: &mut Host<'_>,
    ) -> Result<(), ContextError> {
        let Inner::Connected(inner) = &mut self.inner else {
            return Ok(());
        };
        while !self.outer_ended && inner.is_idle() && self.expected.len() < MAX_EXPECTED {
            match self.outer.receive(host.scratch)? {
                Incoming::Nothing => break,
                Incoming::End => {
                    self.outer_ended = true;
                    host.poller.remove(&self.outer);
                    // Rutabaga reads an end, and can still send into the void.
                    rustix::net::shutdown(inner.as_fd(), Shutdown::Write)
                        .map_err(|error| ContextError::Host("ending a connection", error))?;
                }
                Incoming::Message(length, descriptors) => {
                    let data = host.scratch.get(..length).unwrap_or_default();
                    let mut outgoing = Vec::with_capacity(descriptors.len());
                    for fd in descriptors {
                        #[cfg(test)]
                        if data == super::tests::UNCHECKED {
                            outgoing.push(Outgoing::Pipe(fd));
                            continue;
                        }
                        let (expected, fd) = take_in(fd, objects, pumps, host)?;
                        self.expected.push_back(expected);
                        outgoing.push(Outgoing::Pipe(fd));
                    }
                    inner.send(data, outgoing)?;
                    self.forwarded += length as u64;
                }
            }
        }
        Ok(())
    }

    /// Stops watching.
    pub fn close(&self, poller: &Poller) {
        poller.remove(&self.outer);
        match &self.inner {
            Inner::Expected(socket) => poller.remove(socket),
            Inner::Connected(inner) => poller.remove(inner),
        }
    }
}

/// Gives a descriptor of the compositor's a number. Returned is what rutabaga gets in its place:
/// the same memory, or a pipe of ours.
fn take_in(
    fd: OwnedFd,
    objects: &mut Objects,
    pumps: &mut BTreeMap<u32, Pump>,
    host: &Host<'_>,
) -> Result<(Expected, OwnedFd), ContextError> {
    let kind = classify(&fd)?;
    let number = objects.next_number(|number| pumps.contains_key(&number));
    let expected = Expected { number, kind };
    match kind {
        Received::Memory(bytes) => {
            let copy = rustix::io::fcntl_dupfd_cloexec(&fd, 0)
                .map_err(|error| ContextError::Host("copying a descriptor", error))?;
            objects.keep(number, copy, bytes);
            Ok((expected, fd))
        }
        Received::WritePipe => {
            let (pump, rutabagas) =
                Pump::new(fd).map_err(|error| ContextError::Host("making a pipe", error))?;
            // Beyond the limit both pipes are closed at once, which their readers see as empty.
            if pumps.len() < MAX_PIPES {
                let watching = |error| ContextError::Host("watching a pipe", error);
                host.poller
                    .add(pump.to(), host.token(number), Interest::WritableEdge)
                    .map_err(watching)?;
                let token = host.token(ITEM_PUMP | number);
                host.poller
                    .add(pump.from(), token, Interest::ReadableEdge)
                    .map_err(watching)?;
                pumps.insert(number, pump);
            }
            Ok((expected, rutabagas))
        }
    }
}
