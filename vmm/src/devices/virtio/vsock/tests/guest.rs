//! The guest's side of the queues.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::super::super::device::{Activation, ActiveQueue, DeviceFault, Interrupt, VirtioDevice};
use super::super::packet::Ports;
use super::super::{GuestTarget, Vsock};
use crate::memory::GuestMemory;

pub(super) const WAIT: Duration = Duration::from_secs(10);
pub(super) const MOMENT: Duration = Duration::from_millis(80);
pub(super) const CID: u64 = 7;
pub(super) const SIZE: u16 = 64;
pub(super) const BUFFER: u64 = 4096 + 44;
pub(super) const RX: u64 = 0x1000;
pub(super) const TX: u64 = 0x5000;
pub(super) const RX_BUFFERS: u64 = 0x10_0000;
pub(super) const TX_BUFFERS: u64 = 0x80_0000;
pub(super) const REQUEST: u16 = 1;
pub(super) const RESPONSE: u16 = 2;
pub(super) const RESET: u16 = 3;
pub(super) const SHUTDOWN: u16 = 4;
pub(super) const DATA: u16 = 5;
pub(super) const UPDATE: u16 = 6;
pub(super) const CREDIT_REQUEST: u16 = 7;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Packet {
    pub(super) ports: Ports,
    pub(super) operation: u16,
    pub(super) flags: u32,
    pub(super) buffer: u32,
    pub(super) forwarded: u32,
    pub(super) data: Vec<u8>,
}

pub(super) struct Guest {
    pub(super) device: Vsock,
    pub(super) memory: GuestMemory,
    pub(super) folder: tempfile::TempDir,
    pub(super) faults: Arc<Mutex<Vec<String>>>,
    pub(super) kicks: [EventFd; 2],
    pub(super) rx_seen: u16,
    pub(super) rx_given: u16,
    pub(super) tx_seen: u16,
    pub(super) tx_sent: u16,
    pub(super) received: VecDeque<Packet>,
    /// What the guest claims as its buffer.
    pub(super) buffer: u32,
    pub(super) forwarded: u32,
}

pub(super) fn guest() -> Guest {
    guest_with(|folder| GuestTarget::PathPrefix(folder.join("guest")))
}

pub(super) fn guest_with(target: impl FnOnce(PathBuf) -> GuestTarget) -> Guest {
    let folder = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(folder.path().join("host")).unwrap();
    listener.set_nonblocking(true).unwrap();
    let target = target(folder.path().to_owned());
    let memory = GuestMemory::from_ranges(&[(GuestAddress(0), 16 << 20)]).unwrap();
    let mut guest = Guest {
        device: Vsock::new(CID as u32, listener, target),
        memory,
        folder,
        faults: Arc::default(),
        kicks: [(); 2].map(|()| EventFd::new(EFD_NONBLOCK).unwrap()),
        rx_seen: 0,
        rx_given: 0,
        tx_seen: 0,
        tx_sent: 0,
        received: VecDeque::new(),
        buffer: 256 << 10,
        forwarded: 0,
    };
    let queue = |base: u64, kick: &EventFd| {
        let mut queue = Queue::new(SIZE).unwrap();
        queue.set_size(SIZE);
        queue.set_desc_table_address(Some(base as u32), None);
        queue.set_avail_ring_address(Some(base as u32 + 0x1000), None);
        queue.set_used_ring_address(Some(base as u32 + 0x2000), None);
        queue.set_ready(true);
        ActiveQueue {
            queue,
            kick: kick.try_clone().unwrap(),
            interrupt: Interrupt::for_test().unwrap().0,
        }
    };
    let faults = Arc::clone(&guest.faults);
    let activation = Activation {
        memory: guest.memory.clone(),
        features: 0,
        queues: vec![queue(RX, &guest.kicks[0]), queue(TX, &guest.kicks[1])],
        config_interrupt: Interrupt::for_test().unwrap().0,
        window: None,
        fault: DeviceFault::new(move |reason| faults.lock().unwrap().push(reason)),
    };
    guest.device.activate(activation).unwrap();
    guest
}

impl Guest {
    pub(super) fn offer_buffers(&mut self) {
        while self.rx_given != self.rx_seen.wrapping_add(SIZE) {
            let slot = u64::from(self.rx_given % SIZE);
            let address = RX_BUFFERS + slot * 8192;
            self.descriptor(RX, slot, address, BUFFER as u32, 2);
            self.announce(RX, slot as u16);
            self.rx_given = self.rx_given.wrapping_add(1);
        }
        self.kicks[0].write(1).unwrap();
    }

    pub(super) fn descriptor(&self, base: u64, index: u64, address: u64, length: u32, flags: u16) {
        let mut bytes = [0; 16];
        bytes[0..8].copy_from_slice(&address.to_le_bytes());
        bytes[8..12].copy_from_slice(&length.to_le_bytes());
        bytes[12..14].copy_from_slice(&flags.to_le_bytes());
        self.memory
            .write_slice(&bytes, GuestAddress(base + index * 16))
            .unwrap();
    }

    pub(super) fn announce(&self, base: u64, head: u16) {
        let index: u16 = self.memory.read_obj(GuestAddress(base + 0x1002)).unwrap();
        let entry = base + 0x1004 + u64::from(index % SIZE) * 2;
        self.memory.write_obj(head, GuestAddress(entry)).unwrap();
        let next = index.wrapping_add(1);
        self.memory
            .write_obj(next, GuestAddress(base + 0x1002))
            .unwrap();
    }

    pub(super) fn used(&self, base: u64) -> u16 {
        self.memory.read_obj(GuestAddress(base + 0x2002)).unwrap()
    }

    /// Sends any bytes as a packet, and waits until the device took it. False if it did not.
    pub(super) fn send_raw(&mut self, bytes: &[u8]) -> bool {
        self.send_raw_within(bytes, WAIT)
    }

    pub(super) fn send_raw_within(&mut self, bytes: &[u8], time: Duration) -> bool {
        let slot = u64::from(self.tx_sent % SIZE);
        let address = TX_BUFFERS + slot * 0x1_2000;
        self.memory
            .write_slice(bytes, GuestAddress(address))
            .unwrap();
        self.descriptor(TX, slot, address, bytes.len() as u32, 0);
        self.announce(TX, slot as u16);
        self.tx_sent = self.tx_sent.wrapping_add(1);
        self.kicks[1].write(1).unwrap();
        let end = Instant::now() + time;
        while self.tx_seen != self.tx_sent {
            self.tx_seen = self.used(TX);
            if Instant::now() > end {
                return false;
            }
        }
        true
    }

    pub(super) fn header(&self, ports: Ports, operation: u16, flags: u32, length: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(CID.to_le_bytes());
        bytes.extend(2u64.to_le_bytes());
        bytes.extend(ports.guest.to_le_bytes());
        bytes.extend(ports.host.to_le_bytes());
        bytes.extend(length.to_le_bytes());
        bytes.extend(1u16.to_le_bytes());
        bytes.extend(operation.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        bytes.extend(self.buffer.to_le_bytes());
        bytes.extend(self.forwarded.to_le_bytes());
        bytes
    }

    pub(super) fn send(&mut self, ports: Ports, operation: u16, flags: u32, data: &[u8]) {
        let mut bytes = self.header(ports, operation, flags, data.len() as u32);
        bytes.extend(data);
        assert!(self.send_raw(&bytes), "the device takes packets");
    }

    pub(super) fn receive_within(&mut self, time: Duration) -> Option<Packet> {
        let end = Instant::now() + time;
        loop {
            if let Some(packet) = self.received.pop_front() {
                return Some(packet);
            }
            let used = self.used(RX);
            while self.rx_seen != used {
                let entry = RX + 0x2004 + u64::from(self.rx_seen % SIZE) * 8;
                let head: u32 = self.memory.read_obj(GuestAddress(entry)).unwrap();
                let length: u32 = self.memory.read_obj(GuestAddress(entry + 4)).unwrap();
                let mut bytes = vec![0; length as usize];
                let address = RX_BUFFERS + u64::from(head) * 8192;
                self.memory
                    .read_slice(&mut bytes, GuestAddress(address))
                    .unwrap();
                let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
                assert_eq!(bytes[0..8], 2u64.to_le_bytes());
                assert_eq!(bytes[8..16], CID.to_le_bytes());
                assert_eq!(word(24) as usize, bytes.len() - 44);
                self.received.push_back(Packet {
                    ports: Ports {
                        host: word(16),
                        guest: word(20),
                    },
                    operation: u16::from_le_bytes([bytes[30], bytes[31]]),
                    flags: word(32),
                    buffer: word(36),
                    forwarded: word(40),
                    data: bytes[44..].to_vec(),
                });
                self.rx_seen = self.rx_seen.wrapping_add(1);
            }
            if self.received.is_empty() {
                self.offer_buffers();
                if Instant::now() > end {
                    return None;
                }
                std::thread::sleep(Duration::from_micros(100));
            }
        }
    }

    pub(super) fn receive(&mut self) -> Packet {
        self.receive_within(WAIT).expect("a packet")
    }

    /// The next packet of one kind, others skipped.
    pub(super) fn receive_kind(&mut self, operation: u16) -> Packet {
        loop {
            let packet = self.receive();
            if packet.operation == operation {
                return packet;
            }
            let skipped = [UPDATE, CREDIT_REQUEST, DATA];
            assert!(skipped.contains(&packet.operation), "{packet:?}");
        }
    }

    /// A program of the host connects to a port, and the guest accepts.
    pub(super) fn connect_from_host(&mut self, port: u32) -> (UnixStream, Ports) {
        let mut stream = UnixStream::connect(self.folder.path().join("host")).unwrap();
        writeln!(stream, "CONNECT {port}").unwrap();
        // What an earlier connection left behind is skipped.
        let request = loop {
            let packet = self.receive();
            if packet.operation == REQUEST {
                break packet;
            }
        };
        assert_eq!(request.ports.guest, port);
        assert!(request.buffer > 0);
        self.send(request.ports, RESPONSE, 0, &[]);
        stream.set_read_timeout(Some(WAIT)).unwrap();
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            line.extend(byte);
        }
        assert_eq!(line, format!("OK {}\n", request.ports.host).as_bytes());
        (stream, request.ports)
    }

    /// The guest connects to a program of the host.
    pub(super) fn connect_to_host(&mut self, ports: Ports) -> UnixStream {
        let path = self.folder.path().join(format!("guest_{}", ports.host));
        let listener = UnixListener::bind(path).unwrap();
        self.send(ports, REQUEST, 0, &[]);
        let response = self.receive();
        assert_eq!((response.operation, response.ports), (RESPONSE, ports));
        let stream = listener.accept().unwrap().0;
        stream.set_read_timeout(Some(WAIT)).unwrap();
        stream
    }

    pub(super) fn assert_works(&mut self) {
        let (mut stream, ports) = self.connect_from_host(4242);
        self.send(ports, DATA, 0, b"alive");
        let mut got = [0; 5];
        stream.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"alive");
        self.send(ports, RESET, 0, &[]);
        assert_eq!(stream.read(&mut got).unwrap(), 0);
        assert!(self.faults.lock().unwrap().is_empty());
    }
}
