//! The link as a process, the manager's end of its socket, and cards.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bulkhead_ring::{Endpoint, Memory, Side, WAKE};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recv, recvmsg, send, sendmsg, socketpair, sockopt,
};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);

pub fn pair() -> (OwnedFd, OwnedFd) {
    socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .unwrap()
}

pub struct Link {
    child: Child,
    control: Option<OwnedFd>,
}

impl Link {
    pub fn start() -> Self {
        let (control, theirs) = pair();
        let limit = Some(PATIENCE);
        sockopt::set_socket_timeout(&control, sockopt::Timeout::Recv, limit).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_bulkhead-link"))
            .args(["--control-fd", "0"])
            .env("BULKHEAD_LOG", "warn")
            .stdin(Stdio::from(theirs))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self {
            child,
            control: Some(control),
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn control(&self) -> &OwnedFd {
        self.control.as_ref().unwrap()
    }

    /// Sends bytes and descriptors as they are; what the link says.
    pub fn say(&self, request: &[u8], fds: &[BorrowedFd<'_>]) -> Value {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            assert!(ancillary.push(SendAncillaryMessage::ScmRights(fds)));
        }
        let parts = [IoSlice::new(request)];
        sendmsg(self.control(), &parts, &mut ancillary, SendFlags::NOSIGNAL).unwrap();
        self.answer()
    }

    pub fn answer(&self) -> Value {
        let mut bytes = vec![0; 1 << 16];
        let received = recvmsg(
            self.control(),
            &mut [IoSliceMut::new(&mut bytes)],
            &mut RecvAncillaryBuffer::default(),
            RecvFlags::empty(),
        )
        .expect("the link answers");
        serde_json::from_slice(&bytes[..received.bytes]).expect("an answer in JSON")
    }

    pub fn ask(&self, request: Value, fds: &[BorrowedFd<'_>]) -> Result<Value, String> {
        let answer = self.say(request.to_string().as_bytes(), fds);
        match answer["ok"].as_bool() {
            Some(true) => Ok(answer),
            _ => Err(answer["error"].as_str().unwrap().into()),
        }
    }

    /// Adds a port, if it may be.
    pub fn try_add(&self, request: Value) -> Result<Card, String> {
        let (card, theirs) = pair();
        let memory = Memory::create().unwrap();
        self.ask(request, &[theirs.as_fd(), memory.as_fd()])?;
        Ok(Card::new(card, memory))
    }

    /// Adds a port; the other end of its cable.
    pub fn add(&self, request: Value) -> Card {
        self.try_add(request).unwrap()
    }

    pub fn trunk(&self, name: &str, mac: &str) -> Card {
        self.add(json!({ "op": "add_trunk", "name": name, "mac": mac }))
    }

    pub fn client(&self, name: &str, trunk: &str, number: u8) -> Card {
        self.add(client(name, trunk, number))
    }

    /// All ports by name.
    pub fn stats(&self) -> serde_json::Map<String, Value> {
        let mut all = serde_json::Map::new();
        let mut after = Value::Null;
        loop {
            let request = json!({ "op": "stats", "after": after });
            let answer = self.ask(request, &[]).unwrap();
            let ports = answer["ports"].as_array().unwrap();
            for port in ports {
                after = port["name"].clone();
                all.insert(after.as_str().unwrap().into(), port.clone());
            }
            if answer["more"] == json!(false) {
                return all;
            }
        }
    }

    pub fn port(&self, name: &str) -> Value {
        self.stats().get(name).cloned().unwrap_or_default()
    }

    /// Waits until so many frames have come from a port.
    pub fn wait_for(&self, name: &str, frames: u64) -> Value {
        self.wait_until(name, |port| port["in"]["frames"] == json!(frames))
    }

    pub fn wait_until(&self, name: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let port = self.port(name);
            if is_so(&port) {
                return port;
            }
            assert!(Instant::now() < deadline, "{name}: {port}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Hangs up, and waits for the process to end.
    pub fn end(mut self) -> ExitStatus {
        self.control = None;
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the link does not end");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Client number `number` of a trunk: VLAN, card and address have it at their ends.
pub fn client(name: &str, trunk: &str, number: u8) -> Value {
    json!({
        "op": "add_client",
        "name": name,
        "trunk": trunk,
        "vlan": number,
        "mac": format!("02:00:00:00:00:{number:02x}"),
        "address": format!("10.137.0.{number}"),
    })
}

/// A card: the other end of a port.
pub struct Card {
    pub socket: OwnedFd,
    pub memory: OwnedFd,
    ring: Mutex<Endpoint>,
}

impl Card {
    pub fn new(socket: OwnedFd, memory: OwnedFd) -> Self {
        let mapped = Arc::new(Memory::map(&memory).unwrap());
        let ring = Mutex::new(Endpoint::attach(mapped, Side::Card).unwrap());
        Card {
            socket,
            memory,
            ring,
        }
    }

    pub fn ring(&self) -> MutexGuard<'_, Endpoint> {
        self.ring.lock().unwrap()
    }

    /// Writes over the memory that it has with the link.
    pub fn scribble(&self, at: usize, bytes: &[u8]) {
        rustix::io::pwrite(&self.memory, bytes, at as u64).unwrap();
    }

    /// Says something by the socket.
    pub fn say(&self, bytes: &[u8]) {
        send(&self.socket, bytes, SendFlags::NOSIGNAL).unwrap();
    }

    /// Sends, and waits for room if need be.
    pub fn send(&self, packet: &[u8]) {
        let deadline = Instant::now() + PATIENCE;
        while !self.try_send(packet) {
            assert!(Instant::now() < deadline, "no room");
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// Sends if there is room.
    pub fn try_send(&self, packet: &[u8]) -> bool {
        let mut ring = self.ring();
        let sent = ring.outgoing.push(packet, &[]).unwrap();
        self.wake(&mut ring);
        sent
    }

    fn wake(&self, ring: &mut Endpoint) {
        if ring.must_wake() {
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            let _ = send(&self.socket, &[WAKE], flags);
        }
    }

    /// A packet of the socket that is there now.
    pub fn try_hear(&self) -> Option<Vec<u8>> {
        let mut bytes = vec![0; 1 << 17];
        match recv(&self.socket, &mut bytes, RecvFlags::DONTWAIT) {
            Ok((length, _)) => {
                bytes.truncate(length);
                Some(bytes)
            }
            Err(Errno::AGAIN) => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// A packet that is there now: what the socket says but for wakes, or a packet of the ring.
    pub fn try_receive(&self) -> Option<Vec<u8>> {
        while let Some(said) = self.try_hear() {
            if said != [WAKE] {
                return Some(said);
            }
        }
        let mut ring = self.ring();
        let length = ring.incoming.peek().unwrap()?;
        let mut bytes = vec![0; length];
        ring.incoming.copy(0, &mut bytes);
        ring.incoming.drop_next();
        self.wake(&mut ring);
        Some(bytes)
    }

    /// The link is to wake this side. True if there is something already.
    pub fn wait_for_packets(&self) -> bool {
        let mut ring = self.ring();
        ring.incoming.wait_for_packets().unwrap()
    }

    pub fn receive(&self) -> Vec<u8> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(packet) = self.try_receive() {
                return packet;
            }
            assert!(Instant::now() < deadline, "nothing comes");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// The next packet says that the cable is plugged in, or out.
    pub fn expect_cable(&self, plugged: bool) {
        assert_eq!(self.receive(), [u8::from(plugged)]);
    }

    pub fn expect_nothing(&self) {
        assert_eq!(self.try_receive(), None);
    }
}
