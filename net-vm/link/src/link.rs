//! The loop: one thread, nothing that waits, no memory for a packet.
//!
//! The loop goes round all ports that have packets, a few each, and then wakes the cards that sleep and
//! have something to do now, each once. As long as there is work it looks into the rings by itself; before
//! it sleeps it asks all cards that had nothing to wake it. A client whose trunk is full is not read; a
//! client that does not keep up loses frames and holds nobody.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{Event, EventData, EventFlags};
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

use crate::frame::BUFFER_BYTES;
use crate::packets;
use crate::port::{Flow, Gone, Port};
use crate::ports::{Id, MAX_PORTS, Ports, Side};

/// Rounds in which a port that has nothing is looked at as long as others have something: it costs less than
/// a wake, but not for a thousand ports.
const LOOKS: u8 = 16;
/// Events taken from the kernel at once.
const EVENTS: usize = 128;
const CONTROL: u64 = u64::MAX;
const ALWAYS: EventFlags = EventFlags::IN.union(EventFlags::RDHUP);

/// All ports, the manager's socket, and the loop.
#[derive(Debug)]
pub struct Link {
    epoll: OwnedFd,
    pub(crate) ports: Ports,
    /// Ports that wait for their rate.
    sleeping: Vec<Id>,
    /// Ports that had nothing when they were last looked at, and were not asked to wake the loop.
    idle: Vec<Id>,
    /// Ports whose cards may sleep although there is something for them to do.
    touched: Vec<Id>,
    pub(crate) buffer: Box<[u8]>,
    control: OwnedFd,
    control_buffer: Box<[u8]>,
    /// An answer for which the manager's socket had no room.
    answer: Option<Vec<u8>>,
}

impl Link {
    /// A link without ports that obeys `control`.
    pub fn new(control: OwnedFd) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let token = EventData::new_u64(CONTROL);
        epoll::add(&epoll, &control, token, EventFlags::IN)?;
        Ok(Self {
            epoll,
            ports: Ports::default(),
            sleeping: Vec::new(),
            idle: Vec::with_capacity(MAX_PORTS),
            touched: Vec::with_capacity(MAX_PORTS),
            buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
            control,
            control_buffer: vec![0; packets::MAX_BYTES].into_boxed_slice(),
            answer: None,
        })
    }

    /// Works until the manager's socket ends.
    pub fn run(mut self) -> io::Result<()> {
        let mut events = Vec::with_capacity(EVENTS);
        let mut busy = false;
        loop {
            events.clear();
            let timeout = if busy {
                Some(Duration::ZERO)
            } else {
                self.next_wake()
            };
            self.wait(&mut events, timeout)?;
            let now = Instant::now();
            for event in &events {
                let (token, flags) = (event.data.u64(), event.flags);
                if token == CONTROL {
                    if !self.control_ready(now)? {
                        return Ok(());
                    }
                } else {
                    self.port_ready(Id::of_token(token), flags, now);
                }
            }
            self.wake(now);
            busy = self.round(now);
            self.wake_cards();
            busy |= self.look_again(busy, now);
        }
    }

    fn wait(&self, events: &mut Vec<Event>, timeout: Option<Duration>) -> io::Result<()> {
        let timeout = timeout.map(|time| Timespec {
            tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(time.subsec_nanos()),
        });
        match epoll::wait(&self.epoll, spare_capacity(events), timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes what the manager asks. False at its end.
    fn control_ready(&mut self, now: Instant) -> io::Result<bool> {
        if let Some(answer) = self.answer.take() {
            if !self.say(answer)? {
                return Ok(false);
            }
            if self.answer.is_some() {
                return Ok(true);
            }
            self.watch_control(EventFlags::IN)?;
        }
        let packet = match packets::receive(self.control.as_fd(), &mut self.control_buffer) {
            Ok(Some(packet)) => packet,
            Ok(None) => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(true),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(false),
            Err(error) => return Err(error),
        };
        let buffer = std::mem::take(&mut self.control_buffer);
        let request = buffer.get(..packet.length).unwrap_or_default();
        let answer = self.request(request, packet.truncated, packet.fds, now);
        self.control_buffer = buffer;
        if !self.say(answer)? {
            return Ok(false);
        }
        if self.answer.is_some() {
            // Nothing more is taken until it has read this.
            self.watch_control(EventFlags::OUT)?;
        }
        Ok(true)
    }

    /// Sends an answer, or keeps it where there is no room. False where nobody is there any more.
    fn say(&mut self, answer: Vec<u8>) -> io::Result<bool> {
        match packets::try_send(self.control.as_fd(), &answer) {
            Ok(true) => Ok(true),
            Ok(false) => {
                self.answer = Some(answer);
                Ok(true)
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
                ) =>
            {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    fn watch_control(&self, flags: EventFlags) -> io::Result<()> {
        let token = EventData::new_u64(CONTROL);
        Ok(epoll::modify(&self.epoll, &self.control, token, flags)?)
    }

    /// Adds a port that was checked, and tells its card and those on its other side.
    pub(crate) fn add(
        &mut self,
        name: &str,
        trunk: &str,
        side: Side,
        port: Port,
        now: Instant,
    ) -> io::Result<()> {
        let id = self.ports.add(name, trunk, side, port);
        let Some(entry) = self.ports.get(id) else {
            return Ok(());
        };
        let network = entry.network;
        let token = EventData::new_u64(id.token());
        if let Err(error) = epoll::add(&self.epoll, &entry.port, token, ALWAYS) {
            self.ports.remove(id);
            return Err(error.into());
        }
        // What came before this link did.
        self.has_packets(id);
        match side {
            Side::Trunk(_) => {
                self.flush(id, now);
                self.plug_clients(network, true, now);
            }
            Side::Client(_) => {
                let plugged = self
                    .ports
                    .network(network)
                    .is_some_and(|network| network.trunk.is_some());
                self.plug(id, plugged, now);
            }
        }
        Ok(())
    }

    /// Removes a port with all that waits for it. False where it is not there.
    pub(crate) fn remove(&mut self, id: Id, why: &str, now: Instant) -> bool {
        let Some(entry) = self.ports.remove(id) else {
            return false;
        };
        let _ = epoll::delete(&self.epoll, &entry.port);
        for list in [&mut self.sleeping, &mut self.idle, &mut self.touched] {
            list.retain(|other| *other != id);
        }
        let stats = entry.port.stats();
        tracing::info!(
            port = entry.name,
            received = stats.received.frames,
            sent = stats.sent.frames,
            refused = ?stats.refused(),
            lost = ?stats.lost(),
            "removed: {why}"
        );
        if matches!(entry.side, Side::Trunk(_)) {
            self.plug_clients(entry.network, false, now);
        }
        true
    }

    fn plug_clients(&mut self, network: usize, plugged: bool, now: Instant) {
        let clients: Vec<Id> = self
            .ports
            .network(network)
            .into_iter()
            .flat_map(|network| network.clients.values().copied())
            .collect();
        for id in clients {
            self.plug(id, plugged, now);
        }
    }

    fn plug(&mut self, id: Id, plugged: bool, now: Instant) {
        if let Some(entry) = self.ports.get_mut(id) {
            entry.port.plug(plugged);
        }
        self.flush(id, now);
    }

    fn flush(&mut self, id: Id, now: Instant) {
        if let Some(entry) = self.ports.get_mut(id) {
            let flow = entry.port.flush(now);
            self.follow(id, flow, now);
            self.touch(id);
        }
    }

    /// Waits for what a port waits for.
    pub(crate) fn follow(&mut self, id: Id, flow: Result<Flow, Gone>, now: Instant) {
        let watch = match flow {
            Ok(Flow::AsBefore) => return,
            Ok(Flow::Later(time)) => {
                self.sleep(id, time);
                false
            }
            Ok(Flow::Untold) => true,
            Ok(Flow::Full | Flow::Free) => false,
            Err(gone) => {
                self.lose(id, gone, now);
                return;
            }
        };
        let Some(entry) = self
            .ports
            .get_mut(id)
            .filter(|entry| entry.watched != watch)
        else {
            return;
        };
        entry.watched = watch;
        let flags = if watch {
            ALWAYS.union(EventFlags::OUT)
        } else {
            ALWAYS
        };
        let token = EventData::new_u64(id.token());
        if let Err(error) = epoll::modify(&self.epoll, &entry.port, token, flags) {
            tracing::warn!(port = entry.name, %error, "cannot be watched");
            self.remove(id, "it cannot be watched", now);
        }
    }

    /// Removes a port that cannot be one any more.
    pub(crate) fn lose(&mut self, id: Id, gone: impl Into<Gone>, now: Instant) {
        self.remove(id, &gone.into().to_string(), now);
    }

    pub(crate) fn sleep(&mut self, id: Id, time: Instant) {
        let Some(entry) = self.ports.get_mut(id) else {
            return;
        };
        match &mut entry.wake {
            Some(wake) => *wake = time.min(*wake),
            None => {
                entry.wake = Some(time);
                self.sleeping.push(id);
            }
        }
    }

    /// How long until a rate allows more.
    fn next_wake(&self) -> Option<Duration> {
        let times = self.sleeping.iter();
        times
            .filter_map(|id| self.ports.get(*id)?.wake)
            .min()
            .map(|time| time.saturating_duration_since(Instant::now()))
    }

    fn wake(&mut self, now: Instant) {
        let mut at = 0;
        while let Some(&id) = self.sleeping.get(at) {
            match self.ports.get_mut(id) {
                Some(entry) if entry.wake.is_some_and(|time| time > now) => at += 1,
                Some(entry) => {
                    entry.wake = None;
                    self.sleeping.swap_remove(at);
                    // May remove ports, or put this one at the end again with a later time.
                    self.flush(id, now);
                    self.queue(id);
                }
                None => {
                    self.sleeping.swap_remove(at);
                }
            }
        }
    }

    fn port_ready(&mut self, id: Id, flags: EventFlags, now: Instant) {
        let end = EventFlags::HUP
            .union(EventFlags::RDHUP)
            .union(EventFlags::ERR);
        if flags.intersects(end) {
            self.lose(id, Gone::Closed, now);
            return;
        }
        let Some(entry) = self.ports.get_mut(id) else {
            return;
        };
        if flags.contains(EventFlags::IN) {
            if let Err(gone) = entry.port.listen() {
                self.lose(id, gone, now);
                return;
            }
            self.has_packets(id);
        }
        // There is room in its ring, or in its socket.
        self.flush(id, now);
    }

    /// A port may have packets.
    fn has_packets(&mut self, id: Id) {
        if let Some(entry) = self.ports.get_mut(id) {
            entry.readable = true;
            self.queue(id);
        }
    }

    /// A port has no packets now.
    pub(crate) fn has_none(&mut self, id: Id) {
        if let Some(entry) = self.ports.get_mut(id) {
            entry.readable = false;
            if entry.looks == 0 {
                self.idle.push(id);
            }
            entry.looks = LOOKS;
        }
    }

    /// Looks into the rings of those that had nothing. If the loop is about to sleep otherwise, or has looked
    /// often enough, they are to wake it. True if somebody has something.
    fn look_again(&mut self, busy: bool, now: Instant) -> bool {
        let mut found = false;
        let mut at = 0;
        while let Some(&id) = self.idle.get(at) {
            let Some(entry) = self.ports.get_mut(id) else {
                self.idle.swap_remove(at);
                continue;
            };
            entry.looks = if busy {
                entry.looks.saturating_sub(1)
            } else {
                0
            };
            let looked = match entry.looks {
                0 => entry.port.wait_for_packets(),
                _ => entry.port.has_packets(),
            };
            if looked == Ok(false) && entry.looks > 0 {
                at += 1;
                continue;
            }
            entry.looks = 0;
            self.idle.swap_remove(at);
            match looked {
                Ok(true) => {
                    self.has_packets(id);
                    found = true;
                }
                Ok(false) => {}
                Err(broken) => self.lose(id, broken, now),
            }
        }
        found
    }

    /// There is something to do for a port's card: packets to take, or room for more.
    pub(crate) fn touch(&mut self, id: Id) {
        if let Some(entry) = self.ports.get_mut(id)
            && !entry.touched
        {
            entry.touched = true;
            self.touched.push(id);
        }
    }

    fn wake_cards(&mut self) {
        for id in self.touched.drain(..) {
            if let Some(entry) = self.ports.get_mut(id) {
                entry.touched = false;
                entry.port.wake();
            }
        }
    }

    /// Puts a client that may have packets into its network's list.
    fn queue(&mut self, id: Id) {
        let Some(entry) = self.ports.get_mut(id) else {
            return;
        };
        let is_client = matches!(entry.side, Side::Client(_));
        if !is_client || !entry.readable || entry.queued {
            return;
        }
        entry.queued = true;
        let network = entry.network;
        if let Some(network) = self.ports.network_mut(network) {
            network.ready.push_back(id);
        }
    }
}
