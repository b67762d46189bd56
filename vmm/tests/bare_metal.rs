//! Guests of a few instructions on the real /dev/kvm, through the same door as every other guest:
//! a configuration that names an ELF kernel with a PVH note.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bulkhead_vmm::exit::ExitReason;
use bulkhead_vmm::vm::{self, VmError};
use bulkhead_vmm_api::{DiskConfig, GpuConfig, Socket, Source, VmConfig};

const LOAD_ADDRESS: u32 = 0x10_0000;
/// Machines without virtualization hardware emulate every instruction.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whether guests can run here; says so loudly when they cannot.
fn kvm_is_usable() -> bool {
    let result = kvm_ioctls::Kvm::new()
        .and_then(|kvm| kvm.create_vm())
        .map(drop);
    if let Err(error) = &result {
        eprintln!("SKIPPED: /dev/kvm cannot be used here: {error}");
    }
    result.is_ok()
}

/// 32-bit code, assembled by hand.
#[derive(Default)]
struct Code(Vec<u8>);

impl Code {
    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }
    fn out8(self, port: u16, value: u8) -> Self {
        let port = port.to_le_bytes();
        self.bytes(&[0x66, 0xba, port[0], port[1], 0xb0, value, 0xee])
    }
    fn out16(self, port: u16, value: u16) -> Self {
        let (port, value) = (port.to_le_bytes(), value.to_le_bytes());
        self.bytes(&[
            0x66, 0xba, port[0], port[1], 0x66, 0xb8, value[0], value[1], 0x66, 0xef,
        ])
    }
    /// Goes on only if the double word at `address` is `value`, else writes `?` and stops.
    fn expect32(self, address: u32, value: u32) -> Self {
        self.bytes(&[0xa1])
            .bytes(&address.to_le_bytes())
            .expect_eax(value)
    }
    /// Goes on only if the byte at `port` is `value`.
    fn expect_in8(self, port: u16, value: u8) -> Self {
        let port = port.to_le_bytes();
        self.bytes(&[0x31, 0xc0, 0x66, 0xba, port[0], port[1], 0xec])
            .expect_eax(value.into())
    }
    fn expect_eax(self, value: u32) -> Self {
        let failure = Self::default().out8(0x3f8, b'?').triple_fault();
        let length = u8::try_from(failure.0.len()).unwrap();
        self.bytes(&[0x3d])
            .bytes(&value.to_le_bytes())
            .bytes(&[0x74, length])
            .bytes(&failure.0)
    }
    fn write32(self, address: u32, value: u32) -> Self {
        self.bytes(&[0xc7, 0x05])
            .bytes(&address.to_le_bytes())
            .bytes(&value.to_le_bytes())
    }
    /// An empty interrupt table and an exception.
    fn triple_fault(self) -> Self {
        self.bytes(&[0x6a, 0, 0x6a, 0, 0x0f, 0x01, 0x1c, 0x24, 0xcc])
    }
    fn stack(self) -> Self {
        self.bytes(&[0xbc]).bytes(&0x8_0000u32.to_le_bytes())
    }
    fn power_off(self) -> Self {
        self.out16(0x604, 1 << 13 | 5 << 10).bytes(&[0xeb, 0xfe])
    }
}

/// An ELF file with one segment of code and a PVH note.
fn elf(code: &[u8]) -> Vec<u8> {
    let header = 64 + 2 * 56;
    let note_at = header as u64;
    let mut note = Vec::new();
    for word in [4u32, 4, 18] {
        note.extend(word.to_le_bytes());
    }
    note.extend(b"Xen\0");
    note.extend(LOAD_ADDRESS.to_le_bytes());
    let code_at = note_at + note.len() as u64;
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    file.extend(2u16.to_le_bytes());
    file.extend(62u16.to_le_bytes());
    file.extend(1u32.to_le_bytes());
    file.extend(u64::from(LOAD_ADDRESS).to_le_bytes());
    file.extend(64u64.to_le_bytes());
    file.extend(0u64.to_le_bytes());
    file.extend(0u32.to_le_bytes());
    for half in [64u16, 56, 2, 0, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    let segments = [
        (1u32, code_at, u64::from(LOAD_ADDRESS), code.len() as u64),
        (4, note_at, 0, note.len() as u64),
    ];
    for (kind, offset, address, size) in segments {
        file.extend(kind.to_le_bytes());
        file.extend(5u32.to_le_bytes());
        for word in [offset, address, address, size, size, 4] {
            file.extend(word.to_le_bytes());
        }
    }
    file.extend(note);
    file.extend(code);
    file
}

struct Guest {
    folder: tempfile::TempDir,
    config: VmConfig,
}

impl Guest {
    fn new(code: Code) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let kernel = folder.path().join("kernel");
        std::fs::write(&kernel, elf(&code.0)).unwrap();
        let config: VmConfig = serde_json::from_value(serde_json::json!({
            "name": "tiny", "memory_mib": 16,
            "kernel": { "path": kernel }, "serial": { "path": folder.path().join("serial") },
        }))
        .unwrap();
        Self { folder, config }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn disk(mut self, id: &str, bytes: &[u8]) -> Self {
        let path = self.path(id);
        std::fs::write(&path, bytes).unwrap();
        let disk = DiskConfig {
            id: id.into(),
            source: Source::Path(path),
            read_only: false,
        };
        self.config.disks.push(disk);
        self
    }

    fn start(&self) -> mpsc::Receiver<Result<ExitReason, VmError>> {
        let (sender, receiver) = mpsc::channel();
        let config = self.config.clone();
        std::thread::spawn(move || sender.send(vm::run(config)));
        receiver
    }

    /// Runs the guest to its end.
    fn run(&self) -> ExitReason {
        self.start()
            .recv_timeout(PATIENCE)
            .expect("the guest does not end")
            .unwrap()
    }

    fn serial(&self) -> String {
        std::fs::read_to_string(self.path("serial")).unwrap_or_default()
    }
}

#[test]
fn a_guest_writes_to_its_port_and_powers_off() {
    if !kvm_is_usable() {
        return;
    }
    let mut code = Code::default();
    for byte in b"hello" {
        code = code.out8(0x3f8, *byte);
    }
    let guest = Guest::new(code.power_off());
    assert_eq!(guest.run(), ExitReason::PoweredOff);
    assert_eq!(guest.serial(), "hello");
}

#[test]
fn reset_and_triple_fault_are_told_apart() {
    if !kvm_is_usable() {
        return;
    }
    let reset = Guest::new(Code::default().out8(0x64, 0xfe).bytes(&[0xeb, 0xfe]));
    assert_eq!(reset.run(), ExitReason::Reboot);
    let fault = Guest::new(Code::default().stack().triple_fault());
    assert!(matches!(fault.run(), ExitReason::Crashed(_)));
}

#[test]
fn what_is_not_there_reads_as_ones_and_what_is_there_answers() {
    if !kvm_is_usable() {
        return;
    }
    let mut code = Code::default()
        .stack()
        .bytes(&[0x8b, 0x03]) // mov eax, [ebx]
        .expect_eax(0x336e_c578) // the start information's magic number
        .expect_in8(0x1234, 0xff)
        .expect_in8(0x64, 0)
        .out8(0x70, 0x0d)
        .expect_in8(0x71, 0x80)
        .expect32(0xd000_0000, u32::MAX)
        .expect32(0xe000_0000, 0x0008_1b36) // host bridge
        .expect32(0xe000_8000, 0x1042_1af4) // disk
        .expect32(0xe000_8010, 0xc000_0000) // its BARs
        .expect32(0xe000_8014, 0xc001)
        .expect32(0xe00f_8000, u32::MAX);
    // Hostile writes to configuration space, table and doorbells, all over the first device.
    for offset in (0..0x100).step_by(4) {
        code = code.write32(0xe000_8000 + offset, u32::MAX);
    }
    for offset in (0..0x8000).step_by(0x404) {
        code = code.write32(0xc000_0000 + offset, u32::MAX);
    }
    let code = code.expect32(0xe000_8000, 0x1042_1af4).power_off();
    let guest = Guest::new(code).disk("root", &[0; 4096]);
    assert_eq!(guest.run(), ExitReason::PoweredOff, "{:?}", guest.serial());
}

#[test]
fn configuration_space_answers_whether_it_is_shown_or_not() {
    if !kvm_is_usable() {
        return;
    }
    let disk = 0xe000_8000;
    // The access capability is the sixth one; its window shows the number of queues (virtio 1.2, 4.1.4.9).
    let access = disk + 0x40 + 16 + 20 + 20 + 16 + 16;
    let mut code = Code::default().stack();
    for _ in 0..3 {
        code = code
            .write32(disk + 0x10, u32::MAX)
            .expect32(disk + 0x10, 0xffff_8000)
            .write32(disk + 0x10, 0xc000_0000)
            .expect32(disk + 0x10, 0xc000_0000)
            // What a guest may not write stays, here and in the part that no function has.
            .write32(disk, 0)
            .expect32(disk, 0x1042_1af4)
            .write32(disk + 0x800, 1)
            .expect32(disk + 0x800, 0)
            .write32(access + 8, 0x12)
            .write32(access + 12, 2)
            .expect32(access + 16, 1)
            // Each read asks the device: of a queue that is chosen by BAR 0, and of one that is not.
            .write32(access + 8, 0x18)
            .expect32(access + 16, 256)
            .bytes(&[0x66, 0xc7, 0x05, 0x16, 0, 0, 0xc0, 9, 0]) // mov word [BAR 0 + 0x16], 9
            .expect32(access + 16, 0)
            .bytes(&[0x66, 0xc7, 0x05, 0x16, 0, 0, 0xc0, 0, 0])
            .expect32(access + 16, 256)
            .write32(access + 12, 0)
            .expect32(access + 16, 0);
    }
    let guest = Guest::new(code.power_off()).disk("root", &[0; 4096]);
    assert_eq!(guest.run(), ExitReason::PoweredOff, "{:?}", guest.serial());
}

#[test]
fn touching_the_empty_window_ends_the_guest() {
    if !kvm_is_usable() {
        return;
    }
    let gpu = 0xe001_0000;
    // The window lies at 4 GiB: a page of 4 MiB with a 36-bit address shows it at 1 GiB.
    let code = Code::default()
        .stack()
        .expect32(gpu, 0x1050_1af4)
        .expect32(gpu + 0x18, 0xc)
        .expect32(gpu + 0x1c, 1)
        .write32(0x1_0000, 0x83)
        .write32(0x1_0400, 0x83 | 1 << 13)
        .bytes(&[0xb8, 0, 0, 1, 0, 0x0f, 0x22, 0xd8]) // cr3
        .bytes(&[0xb8, 0x10, 0, 0, 0, 0x0f, 0x22, 0xe0]) // cr4: large pages
        .bytes(&[0xb8, 0x11, 0, 0, 0x80, 0x0f, 0x22, 0xc0]) // cr0: paging
        .out8(0x3f8, b'!')
        .bytes(&[0xa1, 0, 0, 0, 0x40]) // mov eax, [1 GiB]
        .power_off();
    let mut guest = Guest::new(code);
    let mut config = GpuConfig::new("/nonexistent/wayland".into());
    config.window_mib = 256;
    guest.config.gpu = Some(config);
    let reason = guest.run();
    if guest.serial().is_empty() {
        eprintln!("SKIPPED: this machine's /dev/kvm runs no guests with paging: {reason}");
        return;
    }
    assert!(
        matches!(&reason, ExitReason::Crashed(why) if why.contains("memory")),
        "{reason}"
    );
}

#[test]
fn a_guest_that_loops_obeys_the_control_socket() {
    if !kvm_is_usable() {
        return;
    }
    let mut guest = Guest::new(Code::default().bytes(&[0xeb, 0xfe]));
    let path = guest.path("control");
    guest.config.control = Some(Socket::Path(path.clone()));
    guest.config.cpus = 2;
    let end = guest.start();
    let stream = connect(&path);
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let mut ask = |command: &str| {
        writeln!(&stream, "{{\"cmd\":\"{command}\"}}").unwrap();
        lines.next().unwrap().unwrap()
    };
    assert!(ask("status").contains("\"state\":\"running\""));
    for _ in 0..3 {
        assert!(ask("pause").contains("\"state\":\"paused\""));
        assert!(ask("resume").contains("\"state\":\"running\""));
    }
    assert!(ask("power-button").contains("\"ok\":false"));
    assert!(ask("pause").contains("\"state\":\"paused\""));
    assert!(ask("kill").contains("\"ok\":true"));
    let reason = end
        .recv_timeout(PATIENCE)
        .expect("the guest does not end")
        .unwrap();
    assert!(matches!(reason, ExitReason::Killed(_)), "{reason}");
    let last = lines.next().unwrap().unwrap();
    assert!(
        last.contains("\"event\":\"exit\"") && last.contains("\"status\":5"),
        "{last}"
    );
    assert!(!path.exists(), "the socket was left behind");
}

#[test]
fn bad_files_have_one_clear_message() {
    let message = |guest: &Guest| match vm::run(guest.config.clone()) {
        Ok(reason) => panic!("it ran: {reason}"),
        Err(error) => error.to_string(),
    };
    let mut missing = Guest::new(Code::default());
    missing.config.kernel = Source::Path(missing.path("nothing"));
    assert!(
        message(&missing).contains("nothing\": No such file"),
        "{}",
        message(&missing)
    );

    let mut truncated = Guest::new(Code::default());
    truncated.config.initramfs = Some(Source::Path(truncated.path("initramfs")));
    std::fs::write(truncated.path("initramfs"), b"070701").unwrap();
    std::fs::write(
        truncated.path("initramfs"),
        [b"070701".as_slice(), &[b'0'; 150]].concat(),
    )
    .unwrap();
    assert!(
        message(&truncated).contains("is truncated"),
        "{}",
        message(&truncated)
    );

    let odd = Guest::new(Code::default()).disk("home", &[0; 1000]);
    assert!(message(&odd).contains("1000 bytes"), "{}", message(&odd));
    let mut twice = Guest::new(Code::default()).disk("home", &[0; 1024]);
    twice.config.disks.push(twice.config.disks[0].clone());
    assert!(message(&twice).contains("two disks"), "{}", message(&twice));

    if !kvm_is_usable() {
        return;
    }
    let image = elf(&Code::default().power_off().0);
    for (bytes, part) in [
        (b"MZ not an ELF file".to_vec(), "not an ELF file"),
        (Vec::new(), "not an ELF file"),
        (image[..100].to_vec(), "truncated"),
        (image[..image.len() - 4].to_vec(), "truncated"),
        (without_note(&image), "no PVH note"),
    ] {
        let guest = Guest::new(Code::default());
        std::fs::write(guest.path("kernel"), &bytes).unwrap();
        let text = message(&guest);
        assert!(text.contains(part) && text.starts_with("kernel "), "{text}");
    }
}

fn without_note(image: &[u8]) -> Vec<u8> {
    let mut image = image.to_vec();
    image[56] = 1; // one program header
    image
}

fn connect(path: &Path) -> UnixStream {
    let start = Instant::now();
    loop {
        match UnixStream::connect(path) {
            Ok(stream) => return stream,
            Err(error) if start.elapsed() > PATIENCE => panic!("{error}"),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}
