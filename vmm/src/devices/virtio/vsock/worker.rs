//! The device's thread: packets from the guest, streams of the host, and the table of connections.

use std::collections::{HashMap, VecDeque};
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use virtio_queue::QueueT;
use vmm_sys_util::eventfd::EventFd;

use super::super::buffers::Buffers;
use super::super::device::{ActiveQueue, DeviceFault};
use super::super::gpu::worker::borrow_eventfd;
use super::super::poller::{Interest, Poller, Readiness};
use super::super::queue::QueueError;
use super::connection::{Connection, Fate, Stage};
use super::packet::{
    self, HEADER_BYTES, HOST_CID, MAX_DATA_BYTES, Operation, Ports, Received, Sent, TYPE_STREAM,
};
use super::target::{GuestTarget, set_nonblocking};
use crate::memory::GuestMemory;

const TOKEN_STOP: u64 = 0;
const TOKEN_RECEIVE: u64 = 1;
const TOKEN_TRANSMIT: u64 = 2;
const TOKEN_LISTENER: u64 = 3;
const FIRST_CONNECTION: u64 = 16;
/// Connections at a time, of both directions.
const MAX_CONNECTIONS: usize = 512;
/// Resets that wait for the guest to offer buffers. Beyond, its packets are not looked at.
const MAX_RESETS: usize = 256;
/// Ports of the host's programs: from here on, so that they never look like a service.
const FIRST_HOST_PORT: u32 = 1 << 30;

/// What the thread works on.
pub struct WorkerParts {
    /// Guest RAM.
    pub memory: GuestMemory,
    /// The guest's address.
    pub cid: u64,
    /// Buffers for packets to the guest.
    pub receive: ActiveQueue,
    /// Packets of the guest.
    pub transmit: ActiveQueue,
    /// Where programs of the host connect.
    pub listener: Arc<UnixListener>,
    /// Where connections of the guest go.
    pub target: Arc<GuestTarget>,
    /// Ends the VM.
    pub fault: DeviceFault,
}

/// The thread's state.
pub struct Worker {
    parts: WorkerParts,
    poller: Poller,
    connections: HashMap<u64, Connection>,
    by_ports: HashMap<Ports, u64>,
    /// Connections with something for the guest, each once.
    ready: VecDeque<u64>,
    resets: VecDeque<Ports>,
    next_id: u64,
    next_port: u32,
    data: Vec<u8>,
}

impl Worker {
    /// Sets up the thread's state.
    pub fn new(parts: WorkerParts) -> Result<Self, rustix::io::Errno> {
        let poller = Poller::new()?;
        let kick = |queue: &ActiveQueue, token| {
            poller.add(borrow_eventfd(&queue.kick), token, Interest::Readable)
        };
        kick(&parts.receive, TOKEN_RECEIVE)?;
        kick(&parts.transmit, TOKEN_TRANSMIT)?;
        poller.add(&*parts.listener, TOKEN_LISTENER, Interest::Readable)?;
        Ok(Self {
            parts,
            poller,
            connections: HashMap::new(),
            by_ports: HashMap::new(),
            ready: VecDeque::new(),
            resets: VecDeque::new(),
            next_id: FIRST_CONNECTION,
            next_port: FIRST_HOST_PORT,
            data: Vec::new(),
        })
    }

    /// Works until `stop` is readable. Connections end with the thread.
    pub fn run(mut self, stop: &EventFd) {
        if let Err(error) = self
            .poller
            .add(borrow_eventfd(stop), TOKEN_STOP, Interest::Readable)
        {
            tracing::error!(%error, "virtio-vsock cannot be stopped, so it does not start");
            return;
        }
        let mut happened = Vec::new();
        loop {
            if let Err(error) = self.poller.wait(&mut happened) {
                tracing::error!(%error, "virtio-vsock cannot wait for events");
                return;
            }
            if happened.iter().any(|event| event.token == TOKEN_STOP) {
                return;
            }
            if let Err(error) = self.handle(&happened) {
                self.parts.fault.report(error.to_string());
                return;
            }
        }
    }

    fn handle(&mut self, happened: &[Readiness]) -> Result<(), QueueError> {
        let mut transmit = false;
        for event in happened {
            match event.token {
                TOKEN_STOP => {}
                TOKEN_RECEIVE => drop(self.parts.receive.kick.read()),
                TOKEN_TRANSMIT => {
                    let _ = self.parts.transmit.kick.read();
                    transmit = true;
                }
                TOKEN_LISTENER => self.accept(),
                id => self.stream_event(id, event),
            }
        }
        if transmit {
            self.take_packets()?;
        }
        self.give_packets()
    }

    fn insert(&mut self, connection: Connection) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        if let Err(error) = self.poller.add(&connection, id, Interest::BothEdges) {
            // Without events it would hang: better that it never was.
            tracing::error!(%error, "virtio-vsock cannot watch a connection");
            return id;
        }
        self.connections.insert(id, connection);
        id
    }

    fn accept(&mut self) {
        // A few at a time; the listener stays readable.
        for _ in 0..16 {
            let Ok((stream, _)) = self.parts.listener.accept() else {
                return;
            };
            if self.connections.len() >= MAX_CONNECTIONS || set_nonblocking(&stream).is_err() {
                continue;
            }
            let id = self.insert(Connection::from_host(stream.into()));
            self.greet(id);
        }
    }

    fn greet(&mut self, id: u64) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        match connection.greet() {
            Ok(None) => {}
            Err(_) => self.remove(id),
            Ok(Some(guest)) => {
                let ports = loop {
                    let host = self.next_port;
                    self.next_port = host.wrapping_add(1).max(FIRST_HOST_PORT);
                    let ports = Ports { guest, host };
                    if !self.by_ports.contains_key(&ports) {
                        break ports;
                    }
                };
                connection.request(ports);
                self.by_ports.insert(ports, id);
                self.queue(id);
            }
        }
    }

    fn stream_event(&mut self, id: u64, event: &Readiness) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        if connection.stage == Stage::Greeting {
            return self.greet(id);
        }
        let fate = connection.stream_event(event.readable, event.writable, event.hung_up);
        self.decide(id, fate);
    }

    /// Does what became of a connection; one that goes on may have something for the guest.
    fn decide(&mut self, id: u64, fate: Fate) {
        match fate {
            Fate::Keep => {
                if let Some(connection) = self.connections.get(&id)
                    && connection.stage == Stage::Draining
                {
                    // The guest may use the ports again.
                    self.forget_ports(id, connection.ports);
                }
                self.queue(id);
            }
            Fate::Forget => self.remove(id),
            Fate::Reset => {
                if let Some(connection) = self.connections.get(&id) {
                    self.resets.push_back(connection.ports);
                }
                self.remove(id);
            }
        }
    }

    fn forget_ports(&mut self, id: u64, ports: Ports) {
        if self.by_ports.get(&ports) == Some(&id) {
            self.by_ports.remove(&ports);
        }
    }

    fn remove(&mut self, id: u64) {
        if let Some(connection) = self.connections.remove(&id) {
            self.poller.remove(&connection);
            self.forget_ports(id, connection.ports);
        }
    }

    fn queue(&mut self, id: u64) {
        if let Some(connection) = self.connections.get_mut(&id)
            && !std::mem::replace(&mut connection.queued, true)
        {
            self.ready.push_back(id);
        }
    }

    /// Takes the guest's packets, unless it does not take our answers.
    fn take_packets(&mut self) -> Result<(), QueueError> {
        let memory = self.parts.memory.clone();
        if !self.parts.transmit.queue.ready() {
            return Ok(());
        }
        self.parts.transmit.queue.disable_notification(&memory)?;
        for _ in 0..self.parts.transmit.queue.size() {
            if self.resets.len() >= MAX_RESETS {
                // Looked at again when the guest offers buffers.
                return self.parts.transmit.notify(&memory);
            }
            let Some(buffers) = self.parts.transmit.take(&memory)? else {
                self.parts.transmit.notify(&memory)?;
                if self.parts.transmit.rearm(&memory)? {
                    break;
                }
                return Ok(());
            };
            self.packet(&memory, &buffers);
            self.parts.transmit.give_back(&memory, buffers.head, 0)?;
        }
        // More waits, but others want a turn.
        let _ = self.parts.transmit.kick.write(1);
        self.parts.transmit.notify(&memory)
    }

    fn packet(&mut self, memory: &GuestMemory, buffers: &Buffers) {
        let mut header = [0; HEADER_BYTES];
        if buffers.read(memory, 0, &mut header).is_err() {
            return;
        }
        let Some(packet) = packet::parse(&header) else {
            return;
        };
        // Whoever it claims to be, an answer could only go to this guest: none for others.
        if packet.source != self.parts.cid {
            return;
        }
        let id = self.by_ports.get(&packet.ports).copied();
        let known = packet.destination == HOST_CID && packet.kind == TYPE_STREAM;
        let (Some(operation), true) = (packet.operation, known) else {
            return self.refuse(id, &packet);
        };
        let mut data = std::mem::take(&mut self.data);
        data.clear();
        if operation == Operation::Data {
            if packet.length <= MAX_DATA_BYTES {
                data.resize(packet.length as usize, 0);
            }
            let complete = data.len() == packet.length as usize
                && buffers.read(memory, HEADER_BYTES as u64, &mut data).is_ok();
            if !complete {
                self.data = data;
                return self.refuse(id, &packet);
            }
        }
        match (id, operation) {
            (None, Operation::Request) => self.open(&packet),
            (None, Operation::Reset) => {}
            (None, _) | (Some(_), Operation::Request) => self.refuse(id, &packet),
            (Some(id), _) => {
                if let Some(connection) = self.connections.get_mut(&id) {
                    let fate = connection.packet(&packet, operation, &data);
                    self.decide(id, fate);
                }
            }
        }
        self.data = data;
    }

    /// Resets what a packet that cannot be was about.
    fn refuse(&mut self, id: Option<u64>, packet: &Received) {
        if let Some(id) = id {
            self.remove(id);
        }
        if packet.operation != Some(Operation::Reset) {
            self.resets.push_back(packet.ports);
        }
    }

    /// The guest opens a connection.
    fn open(&mut self, packet: &Received) {
        if self.connections.len() >= MAX_CONNECTIONS {
            return self.resets.push_back(packet.ports);
        }
        match self.parts.target.connect(packet.ports.host) {
            Ok(stream) => {
                let id = self.insert(Connection::from_guest(stream, packet));
                self.by_ports.insert(packet.ports, id);
                self.queue(id);
            }
            Err(error) => {
                tracing::debug!(port = packet.ports.host, %error, "a connection of the guest was refused");
                self.resets.push_back(packet.ports);
            }
        }
    }

    /// Fills the guest's buffers with packets, connections taking turns.
    fn give_packets(&mut self) -> Result<(), QueueError> {
        let memory = self.parts.memory.clone();
        if !self.parts.receive.queue.ready() || (self.resets.is_empty() && self.ready.is_empty()) {
            return Ok(());
        }
        let was_full = self.resets.len() >= MAX_RESETS;
        self.parts.receive.queue.disable_notification(&memory)?;
        let mut turns = 4 * usize::from(self.parts.receive.queue.size());
        while !(self.resets.is_empty() && self.ready.is_empty()) {
            if turns == 0 {
                // Other events want a turn; come back at once.
                let _ = self.parts.receive.kick.write(1);
                break;
            }
            turns -= 1;
            let Some(buffers) = self.parts.receive.take(&memory)? else {
                // Tell the guest before looking again: it may wait for packets to free buffers.
                self.parts.receive.notify(&memory)?;
                if self.parts.receive.rearm(&memory)? {
                    continue;
                }
                break;
            };
            match self.fill(&memory, &buffers) {
                Some(written) => {
                    self.parts
                        .receive
                        .give_back(&memory, buffers.head, written)?;
                }
                None => self.parts.receive.untake(),
            }
        }
        self.parts.receive.notify(&memory)?;
        if was_full && self.resets.len() < MAX_RESETS {
            self.take_packets()?;
            let _ = self.parts.receive.kick.write(1);
        }
        Ok(())
    }

    /// Puts one packet into a buffer; `None` if there was none after all.
    fn fill(&mut self, memory: &GuestMemory, buffers: &Buffers) -> Option<u32> {
        let cid = self.parts.cid;
        let Some(room) = usize::try_from(buffers.writable_len())
            .ok()?
            .checked_sub(HEADER_BYTES)
        else {
            // No packet fits in; the guest gets it back empty.
            return Some(0);
        };
        if let Some(ports) = self.resets.pop_front() {
            let header = Sent::reset(ports).header(cid);
            let written = buffers.write(memory, 0, &header);
            return Some(written.map_or(0, |()| HEADER_BYTES as u32));
        }
        while let Some(id) = self.ready.pop_front() {
            let Some(connection) = self.connections.get_mut(&id) else {
                continue;
            };
            connection.queued = false;
            let Some((packet, data)) = connection.next_packet(room) else {
                let fate = connection.after_telling();
                if fate != Fate::Keep {
                    self.decide(id, fate);
                    return self.fill(memory, buffers);
                }
                continue;
            };
            let header = packet.header(cid);
            let written = buffers
                .write(memory, 0, &header)
                .and_then(|()| buffers.write(memory, HEADER_BYTES as u64, data));
            let length = HEADER_BYTES as u32 + packet.length;
            self.queue(id);
            return Some(written.map_or(0, |()| length));
        }
        None
    }
}
