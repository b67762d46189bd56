//! A driver and a hostile guest in front of the PCI transport, with a real disk behind it.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use virtio_queue::desc::RawDescriptor;
use virtio_queue::desc::split::Descriptor;
use virtio_queue::mock::MockSplitQueue;
use vm_memory::{Address, Bytes, GuestAddress};
use vmm_sys_util::eventfd::EventFd;

use super::blk::{Blk, Disk};
use super::device::DeviceFault;
use super::transport::{BAR_SIZE, Placement, VirtioPci};
use crate::bus::BusDevice;
use crate::irq::{MsiMessage, RouteError};
use crate::memory::GuestMemory;
use crate::pci::msix::MsiSink;
use crate::pci::root::PciFunction;

const RAM: usize = 1 << 20;
const F_WRITE: u16 = 2;
const F_NEXT: u16 = 1;

#[derive(Default)]
struct Sink(Mutex<Vec<EventFd>>);
impl MsiSink for Sink {
    fn connect(&self, _: u32, _: MsiMessage, eventfd: &EventFd) -> Result<(), RouteError> {
        self.0.lock().unwrap().push(eventfd.try_clone().unwrap());
        Ok(())
    }
    fn disconnect(&self, _: u32, _: &EventFd) {}
}

struct Bench {
    memory: GuestMemory,
    function: VirtioPci,
    sink: Arc<Sink>,
    faults: Arc<Mutex<Vec<String>>>,
}

impl Bench {
    fn new(read_only: bool) -> Self {
        let memory = GuestMemory::from_ranges(&[(GuestAddress(0), RAM)]).unwrap();
        let mut file = tempfile::tempfile().unwrap();
        for sector in 0..64u8 {
            file.write_all(&[sector; 512]).unwrap();
        }
        let device = Box::new(Blk::new(Disk::new(file, 64 * 512, read_only, "root")));
        let sink = Arc::new(Sink::default());
        let placement = Placement {
            bar: 0xc000_0000,
            ports: 0xc000,
            window: None,
            gsis: &[24, 25],
            sink: sink.clone(),
        };
        let faults = Arc::new(Mutex::new(Vec::new()));
        let seen = faults.clone();
        let fault = DeviceFault::new(move |reason| seen.lock().unwrap().push(reason));
        let function =
            VirtioPci::new("disk".into(), device, memory.clone(), placement, fault).unwrap();
        Self {
            memory,
            function,
            sink,
            faults,
        }
    }

    fn put(&mut self, offset: u64, data: &[u8]) {
        BusDevice::write(&mut self.function, offset, data);
    }

    fn status(&mut self) -> u8 {
        let mut status = [0];
        BusDevice::read(&mut self.function, 20, &mut status);
        status[0]
    }

    /// Negotiates `features` (with version 1) and starts with the queue at these addresses.
    fn start(&mut self, features: u32, tables: [u64; 3]) {
        for status in [1u8, 3] {
            self.put(20, &[status]);
        }
        for (select, half) in [(0u32, features), (1, 1)] {
            self.put(8, &select.to_le_bytes());
            self.put(12, &half.to_le_bytes());
        }
        self.put(20, &[0xb]);
        self.put(0x4000, &0xfee0_0000u64.to_le_bytes());
        self.put(0x4008, &0x30u64.to_le_bytes());
        let control = self.msix_control();
        PciFunction::write_config(&mut self.function, control, &0x8000u16.to_le_bytes());
        self.put(26, &0u16.to_le_bytes());
        self.put(24, &16u16.to_le_bytes());
        for (offset, address) in (32..).step_by(8).zip(tables) {
            self.put(offset, &address.to_le_bytes());
        }
        self.put(28, &1u16.to_le_bytes());
        self.put(20, &[0xf]);
    }

    /// The offset of the control word of the MSI-X capability.
    fn msix_control(&mut self) -> usize {
        let found = self.capabilities().into_iter();
        let mut found = found.filter(|(_, bytes)| bytes[0] == 0x11);
        found.next().expect("MSI-X").0 + 2
    }

    /// All capabilities: where, and their first bytes.
    fn capabilities(&mut self) -> Vec<(usize, [u8; 20])> {
        let mut found = Vec::new();
        let mut next = [0];
        PciFunction::read_config(&mut self.function, 0x34, &mut next);
        while next[0] != 0 {
            let at = usize::from(next[0]);
            let mut bytes = [0; 20];
            PciFunction::read_config(&mut self.function, at, &mut bytes);
            next[0] = bytes[1];
            found.push((at, bytes));
        }
        found
    }
}

fn descriptor(address: u64, length: u32, flags: u16, next: u16) -> RawDescriptor {
    RawDescriptor::from(Descriptor::new(address, length, flags, next))
}

fn wait_for(mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "nothing happened"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Sends one request of type and sector with `data` as data descriptors; returns status and used
/// length.
fn request(bench: &mut Bench, header: &[u8], data: &[RawDescriptor]) -> (u8, u32) {
    let memory = bench.memory.clone();
    let queue = MockSplitQueue::create(&memory, GuestAddress(0x1000), 16);
    memory.write_slice(header, GuestAddress(0x8000)).unwrap();
    memory.write_obj(0xeeu8, GuestAddress(0x9000)).unwrap();
    let mut chain = vec![descriptor(0x8000, header.len() as u32, F_NEXT, 1)];
    chain.extend_from_slice(data);
    chain.push(descriptor(0x9000, 1, F_WRITE, 0));
    queue.build_desc_chain(&chain).unwrap();
    let tables = [
        queue.desc_table_addr(),
        queue.avail_addr(),
        queue.used_addr(),
    ];
    bench.put(20, &[0]);
    bench.start(0, tables.map(|address| address.raw_value()));
    assert_eq!(bench.status(), 0xf);
    bench.put(0x3000, &0u16.to_le_bytes());
    wait_for(|| queue.used().idx().load() == 1);
    let length = queue.used().ring().ref_at(0).unwrap().load().len();
    (memory.read_obj(GuestAddress(0x9000)).unwrap(), length)
}

fn header(kind: u32, sector: u64) -> Vec<u8> {
    let mut header = kind.to_le_bytes().to_vec();
    header.extend([0; 4]);
    header.extend(sector.to_le_bytes());
    header
}

#[test]
fn a_request_goes_all_the_way_round() {
    let mut bench = Bench::new(false);
    let data = [
        descriptor(0xa000, 512, F_WRITE | F_NEXT, 2),
        descriptor(0xc000, 512, 3, 3),
    ];
    assert_eq!(request(&mut bench, &header(0, 5), &data), (0, 1025));
    assert_eq!(
        bench.memory.read_obj::<u8>(GuestAddress(0xa1ff)).unwrap(),
        5
    );
    assert_eq!(
        bench.memory.read_obj::<u8>(GuestAddress(0xc000)).unwrap(),
        6
    );
    let fired = bench
        .sink
        .0
        .lock()
        .unwrap()
        .iter()
        .any(|eventfd| eventfd.read().is_ok());
    assert!(fired, "no interrupt");

    bench
        .memory
        .write_slice(&[0x77; 512], GuestAddress(0xa000))
        .unwrap();
    let written = request(
        &mut bench,
        &header(1, 63),
        &[descriptor(0xa000, 512, F_NEXT, 2)],
    );
    assert_eq!(written, (0, 1));
    assert_eq!(request(&mut bench, &header(4, 0), &[]), (0, 1));
    let read = request(&mut bench, &header(0, 63), &[descriptor(0xb000, 512, 3, 2)]);
    assert_eq!(read, (0, 513));
    assert_eq!(
        bench.memory.read_obj::<u8>(GuestAddress(0xb100)).unwrap(),
        0x77
    );
    assert_eq!(
        request(&mut bench, &header(8, 0), &[descriptor(0xb000, 20, 3, 2)]),
        (0, 21)
    );
    assert_eq!(
        bench
            .memory
            .read_obj::<[u8; 5]>(GuestAddress(0xb000))
            .unwrap(),
        *b"root\0"
    );
    assert!(bench.faults.lock().unwrap().is_empty());
}

#[test]
fn hostile_requests_get_an_error() {
    let mut bench = Bench::new(true);
    let into = |address, length| [descriptor(address, length, F_WRITE | F_NEXT, 2)];
    let from = |address, length| [descriptor(address, length, F_NEXT, 2)];
    for (header, data) in [
        (header(0, 64), into(0xa000, 512)),
        (header(0, 63), into(0xa000, 1024)),
        (header(0, u64::MAX), into(0xa000, 512)),
        (header(0, u64::MAX / 512), into(0xa000, 512)),
        (header(0, 0), into(0xa000, 511)),
        (header(0, 0), into(RAM as u64 - 256, 512)),
        (header(0, 0), into(u64::MAX - 100, 512)),
        (header(1, 0), from(0xa000, 512)), // the disk is read-only
        (header(8, 0), into(0xa000, 19)),
        (vec![0; 15], into(0xa000, 512)),
    ] {
        let (status, length) = request(&mut bench, &header, &data);
        assert_eq!((status, length), (1, 1), "{header:?} {data:?}");
    }
    // So long a chain is cut off, and with it the status byte: there is no way to answer.
    assert_eq!(
        request(&mut bench, &header(0, 0), &into(0xa000, u32::MAX)),
        (0xee, 0)
    );
    assert_eq!(request(&mut bench, &header(77, 0), &into(0xa000, 512)).0, 2);
    assert!(bench.faults.lock().unwrap().is_empty());
}

#[test]
fn queues_outside_of_memory_are_not_used() {
    for tables in [
        [RAM as u64, 0x2000, 0x3000],
        [0x1000, RAM as u64 - 4, 0x3000],
        [0x1000, 0x2000, u64::MAX - 3],
        [!15, !1, !3],
    ] {
        let mut bench = Bench::new(false);
        bench.start(0, tables);
        assert_eq!(bench.status(), 0x4f, "{tables:x?}");
        bench.put(20, &[0]);
        assert_eq!(bench.status(), 0);
    }
}

#[test]
fn features_that_were_not_offered_are_refused() {
    let mut bench = Bench::new(false);
    bench.start(1 << 4, [0x1000, 0x2000, 0x3000]);
    assert_eq!(bench.status() & 8, 0, "features were accepted");
    assert_eq!(bench.status() & 0x40, 0x40, "it started without features");
}

#[test]
fn a_ring_that_lies_stops_the_device() {
    let mut bench = Bench::new(false);
    let memory = bench.memory.clone();
    let queue = MockSplitQueue::create(&memory, GuestAddress(0x1000), 16);
    queue.avail().idx().store(1000);
    let tables = [
        queue.desc_table_addr(),
        queue.avail_addr(),
        queue.used_addr(),
    ];
    bench.start(0, tables.map(|address| address.raw_value()));
    wait_for(|| !bench.faults.lock().unwrap().is_empty());
}

#[test]
fn a_doorbell_is_told_as_a_port_first_and_rings_both_ways() {
    let mut bench = Bench::new(false);
    let capabilities = bench.capabilities();
    let of_type = |kind| move |(_, bytes): &&(usize, [u8; 20])| bytes[0] == 9 && bytes[3] == kind;
    let word =
        |bytes: &[u8; 20], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let notify: Vec<(u8, u32, u32, u32)> = capabilities
        .iter()
        .filter(of_type(2))
        .map(|(_, bytes)| (bytes[4], word(bytes, 8), word(bytes, 12), word(bytes, 16)))
        .collect();
    assert_eq!(notify, [(1, 0, 4, 4), (0, 0x3000, 4, 4)]);
    let kick = {
        let (memory, port, kick) = bench.function.doorbells().next().unwrap();
        assert_eq!((memory, port), (0x3000, 0));
        kick.try_clone().unwrap()
    };
    let access = capabilities.iter().find(of_type(5)).unwrap().0;
    let set = |bench: &mut Bench, at: usize, bytes: &[u8]| {
        PciFunction::write_config(&mut bench.function, access + at, bytes);
    };
    for (bar, offset, rings) in [
        (1, 0, true),
        (0, 0x3000, true),
        (1, 4, false),
        (1, 0x100, false),
        (2, 0, false),
    ] {
        set(&mut bench, 4, &[bar]);
        set(&mut bench, 8, &u32::to_le_bytes(offset));
        set(&mut bench, 12, &2u32.to_le_bytes());
        set(&mut bench, 16, &[0; 2]);
        assert_eq!(kick.read().is_ok(), rings, "BAR {bar}, {offset:#x}");
    }
}

#[test]
fn no_sequence_of_accesses_panics() {
    // A small generator is enough: the sequence must only be the same each time.
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    let mut bench = Bench::new(false);
    for _ in 0..20_000 {
        let length = [1, 2, 4, 8, 3][random(5) as usize];
        let data: Vec<u8> = match random(3) {
            0 => vec![0xff; length],
            1 => vec![0; length],
            _ => (0..length).map(|_| random(256) as u8).collect(),
        };
        let mut target = data.clone();
        match random(4) {
            0 => bench.put(random(0x40), &data),
            1 => bench.put(random(BAR_SIZE), &data),
            2 => PciFunction::write_config(&mut bench.function, random(4096) as usize, &data),
            _ => {
                BusDevice::read(&mut bench.function, random(BAR_SIZE), &mut target);
                PciFunction::read_config(&mut bench.function, random(4096) as usize, &mut target);
            }
        }
    }
}
