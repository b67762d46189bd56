//! The guest's side of the device for tests: a driver on real queues in real guest memory, and the
//! compositor's side on a real Unix socket.

use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bulkhead_vmm_api::GpuConfig;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::super::super::device::{Activation, ActiveQueue, DeviceFault, Interrupt, VirtioDevice};
use super::super::device::Gpu;
use super::super::protocol::{HEADER_BYTES, u32_at, u64_at};
use crate::memory::GuestMemory;
use crate::memory::host_window::HostVisibleWindow;

pub const WAIT: Duration = Duration::from_secs(10);
/// Long enough to notice an answer that should not come, short enough for a test.
pub const MOMENT: Duration = Duration::from_millis(100);
const QUEUE_SIZE: u16 = 64;
const SLOTS: u64 = 32;
const SLOT_BYTES: u64 = 0x60000;
const RESPONSE_AT: u64 = 0x58000;
/// Guest pages for rings, one MiB per context.
const RINGS: u64 = 0x200_0000;

pub struct Machine {
    pub gpu: Gpu,
    pub memory: GuestMemory,
    pub window: Arc<HostVisibleWindow>,
    pub faults: Arc<Mutex<Vec<String>>>,
    pub listener: UnixListener,
    _folder: tempfile::TempDir,
    kick: EventFd,
    next: u64,
    seen: u16,
    answers: Vec<Option<Vec<u8>>>,
}

pub fn machine_with(change: impl FnOnce(&mut GpuConfig)) -> Machine {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wayland.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let mut config = GpuConfig::new(path);
    config.window_mib = 64;
    change(&mut config);
    let gpu = Gpu::new(&config);
    let memory = GuestMemory::from_ranges(&[(GuestAddress(0), 64 << 20)]).unwrap();
    let mut machine = Machine {
        gpu,
        memory,
        window: Arc::new(HostVisibleWindow::new(64 << 20).unwrap()),
        faults: Arc::default(),
        listener,
        _folder: folder,
        kick: EventFd::new(EFD_NONBLOCK).unwrap(),
        next: 0,
        seen: 0,
        answers: Vec::new(),
    };
    machine.activate();
    machine
}

fn queue(base: u64) -> Queue {
    let mut queue = Queue::new(QUEUE_SIZE).unwrap();
    queue.set_size(QUEUE_SIZE);
    queue.set_desc_table_address(Some(base as u32), None);
    queue.set_avail_ring_address(Some(base as u32 + 0x1000), None);
    queue.set_used_ring_address(Some(base as u32 + 0x2000), None);
    queue.set_ready(true);
    queue
}

impl Machine {
    pub fn activate(&mut self) {
        self.memory
            .write_slice(&[0; 0x8000], GuestAddress(0x1000))
            .unwrap();
        self.kick = EventFd::new(EFD_NONBLOCK).unwrap();
        self.next = 0;
        self.seen = 0;
        self.answers = vec![None; SLOTS as usize];
        let faults = Arc::clone(&self.faults);
        let active = |base, kick| ActiveQueue {
            queue: queue(base),
            kick,
            interrupt: Interrupt::for_test().unwrap().0,
        };
        let activation = Activation {
            memory: self.memory.clone(),
            features: self.gpu.features() & !(1 << 29),
            queues: vec![
                active(0x1000, self.kick.try_clone().unwrap()),
                active(0x5000, EventFd::new(EFD_NONBLOCK).unwrap()),
            ],
            config_interrupt: Interrupt::for_test().unwrap().0,
            window: Some(Arc::clone(&self.window)),
            fault: DeviceFault::new(move |reason| faults.lock().unwrap().push(reason)),
        };
        self.gpu.activate(activation).unwrap();
    }

    /// Puts a request into the control queue; the number returned waits for its answer.
    pub fn ask(&mut self, request: &[u8]) -> u64 {
        let ticket = self.next;
        self.next += 1;
        let slot = ticket % SLOTS;
        let at = 0x40_0000 + slot * SLOT_BYTES;
        assert!(request.len() as u64 <= RESPONSE_AT);
        self.memory.write_slice(request, GuestAddress(at)).unwrap();
        self.memory
            .write_slice(&[0xee; 512], GuestAddress(at + RESPONSE_AT))
            .unwrap();
        let first = slot as u16 * 2;
        self.descriptor(first, at, request.len() as u32, 1, first + 1);
        self.descriptor(first + 1, at + RESPONSE_AT, 512, 2, 0);
        self.answers[slot as usize] = None;
        self.make_available(first);
        ticket
    }

    fn descriptor(&self, index: u16, address: u64, length: u32, flags: u16, next: u16) {
        let at = 0x1000 + u64::from(index) * 16;
        let mut bytes = [0; 16];
        bytes[0..8].copy_from_slice(&address.to_le_bytes());
        bytes[8..12].copy_from_slice(&length.to_le_bytes());
        bytes[12..14].copy_from_slice(&flags.to_le_bytes());
        bytes[14..16].copy_from_slice(&next.to_le_bytes());
        self.memory.write_slice(&bytes, GuestAddress(at)).unwrap();
    }

    pub fn make_available(&mut self, head: u16) {
        let index: u16 = self.memory.read_obj(GuestAddress(0x2002)).unwrap();
        let entry = 0x2004 + u64::from(index % QUEUE_SIZE) * 2;
        self.memory.write_obj(head, GuestAddress(entry)).unwrap();
        self.set_available(index.wrapping_add(1));
    }

    pub fn set_available(&mut self, index: u16) {
        self.memory.write_obj(index, GuestAddress(0x2002)).unwrap();
        self.kick.write(1).unwrap();
    }

    /// Whether the answer has come within `time`.
    pub fn answer_within(&mut self, ticket: u64, time: Duration) -> Option<Vec<u8>> {
        let end = Instant::now() + time;
        loop {
            let used: u16 = self.memory.read_obj(GuestAddress(0x3002)).unwrap();
            while self.seen != used {
                let entry = 0x3004 + u64::from(self.seen % QUEUE_SIZE) * 8;
                let head: u32 = self.memory.read_obj(GuestAddress(entry)).unwrap();
                let length: u32 = self.memory.read_obj(GuestAddress(entry + 4)).unwrap();
                let slot = u64::from(head / 2);
                let mut bytes = vec![0; length as usize];
                let at = 0x40_0000 + slot * SLOT_BYTES + RESPONSE_AT;
                self.memory
                    .read_slice(&mut bytes, GuestAddress(at))
                    .unwrap();
                self.answers[slot as usize] = Some(bytes);
                self.seen = self.seen.wrapping_add(1);
            }
            let slot = (ticket % SLOTS) as usize;
            if let Some(answer) = self.answers[slot].take() {
                return Some(answer);
            }
            if Instant::now() >= end {
                return None;
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    pub fn answer(&mut self, ticket: u64) -> Vec<u8> {
        self.answer_within(ticket, WAIT).expect("an answer")
    }

    pub fn call(&mut self, request: &[u8]) -> Vec<u8> {
        let ticket = self.ask(request);
        self.answer(ticket)
    }

    /// Calls and returns the response type.
    pub fn status(&mut self, request: &[u8]) -> u32 {
        u32_at(&self.call(request), 0).unwrap()
    }

    pub fn expect_ok(&mut self, request: &[u8]) {
        assert_eq!(self.status(request), 0x1100);
    }

    /// A context with rings 4 KiB (query) and `channel` bytes, connected to a new peer.
    pub fn connect_with_ring(&mut self, context: u32, channel: u64) -> Peer {
        self.expect_ok(&create_context(context, 5));
        for (ring, size) in [(0, 4096), (1, channel)] {
            let resource = ring_id(context, ring);
            let address = ring_address(context, u64::from(ring));
            // In pieces, as Linux's pages are.
            let entries: Vec<_> = (0..size / 4096)
                .map(|page| (address + page * 8192, 4096))
                .collect();
            self.expect_ok(&create_guest_blob(resource, size, &entries));
            self.expect_ok(&attach(context, resource));
        }
        self.submit(context, &init(context));
        self.listener.set_nonblocking(false).unwrap();
        let (stream, _) = self.listener.accept().unwrap();
        Peer { stream }
    }

    pub fn connect(&mut self, context: u32) -> Peer {
        self.connect_with_ring(context, 16384)
    }

    /// Submits commands with a fence on timeline 0 and returns the answer's type.
    pub fn submit(&mut self, context: u32, commands: &[u8]) -> u32 {
        self.status(&submit(context, Some(0), commands))
    }

    /// Asks for a message.
    pub fn poll(&mut self, context: u32) -> u64 {
        let header = GuestAddress(ring_address(context, 1));
        self.memory.write_slice(&[0; 8], header).unwrap();
        self.ask(&submit(context, Some(1), &POLL))
    }

    /// Asks for a message and waits for it.
    pub fn message(&mut self, context: u32) -> Message {
        let ticket = self.poll(context);
        let answer = self.answer(ticket);
        assert_eq!(u32_at(&answer, 0), Some(0x1100));
        self.read_ring(context)
    }

    /// What is in the channel ring now.
    pub fn read_ring(&self, context: u32) -> Message {
        let mut bytes = Vec::new();
        for page in 0..20 {
            let mut part = vec![0; 4096];
            let at = ring_address(context, 1) + page * 8192;
            self.memory.read_slice(&mut part, GuestAddress(at)).unwrap();
            bytes.extend(part);
        }
        let word = |at| u32_at(&bytes, at).unwrap();
        match bytes[0] {
            5 => Message::Receive {
                identifiers: (0..word(8) as usize)
                    .map(|i| (word(16 + i * 4), word(128 + i * 4), word(240 + i * 4)))
                    .collect(),
                data: bytes[352..][..word(12) as usize].to_vec(),
            },
            6 => Message::Read {
                pipe: word(8),
                hang_up: word(12) != 0,
                data: bytes[24..][..word(16) as usize].to_vec(),
            },
            other => Message::Other(other),
        }
    }

    /// Asks about an image: its blob id and size.
    pub fn image(&mut self, context: u32, width: u32, height: u32) -> (u32, u64) {
        let command = image_requirements(width, height, b"XR24");
        assert_eq!(self.submit(context, &command), 0x1100);
        let mut bytes = [0; 64];
        let at = GuestAddress(ring_address(context, 0));
        self.memory.read_slice(&mut bytes, at).unwrap();
        (u32_at(&bytes, 48).unwrap(), u64_at(&bytes, 40).unwrap())
    }

    /// Whether a context still answers: a message goes out and another comes in.
    pub fn assert_works(&mut self, context: u32, peer: &mut Peer) {
        assert_eq!(self.submit(context, &send(&[], b"still here?")), 0x1100);
        assert_eq!(peer.read(11), b"still here?");
        peer.stream.write_all(b"yes").unwrap();
        assert_eq!(
            self.message(context),
            Message::Receive {
                identifiers: vec![],
                data: b"yes".to_vec()
            }
        );
    }

    /// Whether a context was closed: it refuses work and tells of the end.
    pub fn assert_dead(&mut self, context: u32) {
        let ticket = self.poll(context);
        let answer = self.answer(ticket);
        assert_eq!(u32_at(&answer, 0), Some(0x1200), "an error");
        assert_eq!(u32_at(&answer, 4), Some(3), "with its fence");
        assert_eq!(self.read_ring(context), Message::end());
        assert_eq!(self.submit(context, &send(&[], b"x")), 0x1200);
    }

    pub fn stat(&self, name: &str) -> u64 {
        let values = self.gpu.stats().values();
        values.iter().find(|(n, _)| *n == name).unwrap().1
    }
}

#[derive(Debug, PartialEq, Eq)]
pub enum Message {
    Receive {
        identifiers: Vec<(u32, u32, u32)>,
        data: Vec<u8>,
    },
    Read {
        pipe: u32,
        hang_up: bool,
        data: Vec<u8>,
    },
    Other(u8),
}

impl Message {
    pub fn end() -> Self {
        Self::Receive {
            identifiers: vec![],
            data: vec![],
        }
    }
}

/// The compositor's end of a connection.
pub struct Peer {
    pub stream: UnixStream,
}

impl Peer {
    pub fn read(&mut self, count: usize) -> Vec<u8> {
        self.stream.set_read_timeout(Some(WAIT)).unwrap();
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes).unwrap();
        bytes
    }

    pub fn read_with_descriptors(&mut self, count: usize) -> (Vec<u8>, Vec<OwnedFd>) {
        let mut bytes = vec![0; count];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(28))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let message =
            rustix::net::recvmsg(&self.stream, &mut parts, &mut ancillary, RecvFlags::empty())
                .unwrap();
        let mut descriptors = Vec::new();
        for part in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = part {
                descriptors.extend(fds);
            }
        }
        bytes.truncate(message.bytes);
        (bytes, descriptors)
    }

    pub fn send_descriptors(&mut self, data: &[u8], descriptors: &[BorrowedFd<'_>]) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(28))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(descriptors)));
        let parts = [IoSlice::new(data)];
        rustix::net::sendmsg(
            self.stream.as_fd(),
            &parts,
            &mut ancillary,
            SendFlags::empty(),
        )
        .unwrap();
    }
}

pub fn ring_id(context: u32, ring: u32) -> u32 {
    1000 + context * 2 + ring
}

pub fn ring_address(context: u32, ring: u64) -> u64 {
    RINGS + u64::from(context) * 0x10_0000 + ring * 0x4_0000
}

pub const POLL: [u8; 8] = [3, 0, 8, 0, 0, 0, 0, 0];

fn words(list: &[u32]) -> Vec<u8> {
    list.iter().flat_map(|word| word.to_le_bytes()).collect()
}

pub fn request(kind: u32, context: u32, fence: Option<u8>, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; HEADER_BYTES];
    bytes[0..4].copy_from_slice(&kind.to_le_bytes());
    bytes[16..20].copy_from_slice(&context.to_le_bytes());
    if let Some(ring) = fence {
        bytes[4] = 3;
        bytes[8] = 99;
        bytes[20] = ring;
    }
    bytes.extend(body);
    bytes
}

pub fn create_context(context: u32, capset: u32) -> Vec<u8> {
    let mut body = words(&[0, capset]);
    body.extend([0; 64]);
    request(0x200, context, None, &body)
}

pub fn attach(context: u32, resource: u32) -> Vec<u8> {
    request(0x202, context, None, &words(&[resource, 0]))
}

pub fn create_blob(context: u32, resource: u32, memory: u32, id: u64, size: u64) -> Vec<u8> {
    let mut body = words(&[resource, memory, 3, 0]);
    body.extend(id.to_le_bytes());
    body.extend(size.to_le_bytes());
    request(0x10c, context, None, &body)
}

pub fn create_guest_blob(resource: u32, size: u64, entries: &[(u64, u32)]) -> Vec<u8> {
    let mut body = words(&[resource, 1, 1, entries.len() as u32, 0, 0]);
    body.extend(size.to_le_bytes());
    for (address, length) in entries {
        body.extend(address.to_le_bytes());
        body.extend(words(&[*length, 0]));
    }
    request(0x10c, 0, None, &body)
}

pub fn map_blob(resource: u32, offset: u64) -> Vec<u8> {
    let mut body = words(&[resource, 0]);
    body.extend(offset.to_le_bytes());
    request(0x208, 0, None, &body)
}

pub fn submit(context: u32, ring: Option<u8>, commands: &[u8]) -> Vec<u8> {
    let mut body = words(&[commands.len() as u32, 0]);
    body.extend(commands);
    request(0x207, context, ring, &body)
}

/// A command with its header.
pub fn command(number: u8, body: &[u8]) -> Vec<u8> {
    let size = (8 + body.len()) as u16;
    let [low, high] = size.to_le_bytes();
    let mut bytes = vec![number, 0, low, high, 0, 0, 0, 0];
    bytes.extend(body);
    bytes
}

pub fn init(context: u32) -> Vec<u8> {
    command(1, &words(&[ring_id(context, 0), ring_id(context, 1), 1]))
}

pub fn image_requirements(width: u32, height: u32, format: &[u8; 4]) -> Vec<u8> {
    command(2, &words(&[width, height, u32::from_le_bytes(*format), 0]))
}

pub fn send(identifiers: &[(u32, u32)], data: &[u8]) -> Vec<u8> {
    let mut body = words(&[identifiers.len() as u32, data.len() as u32]);
    let mut table = [0; 28 * 3];
    for (index, (number, kind)) in identifiers.iter().enumerate() {
        table[index] = *number;
        table[28 + index] = *kind;
    }
    body.extend(words(&table));
    body.extend(data);
    command(4, &body)
}

pub fn write(pipe: u32, hang_up: bool, data: &[u8]) -> Vec<u8> {
    let mut body = words(&[pipe, u32::from(hang_up), data.len() as u32, 0]);
    body.extend(data);
    command(7, &body)
}
