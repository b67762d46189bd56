//! A root that was changed: each change is caught and told, and nothing of it runs.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use bulkhead_image::Layout;

use crate::check;
use crate::e2e::disk::{BOOT_LIMIT, DiskContext, READY};
use crate::e2e::{Failure, Outcome, Place, Scenario};
use crate::machine::desktop::{Desktop, DesktopOptions};

pub(in crate::scenarios) const SCENARIO: Scenario = Scenario {
    name: "image-tampered",
    about: "a flipped bit in the root is caught and told on the screen, and never run",
    run: Place::Disk(run),
};

const BLOCK: usize = 4096;
/// What the screen and the log say.
const TOLD: &str = "damaged or was changed";

fn run(context: &DiskContext<'_>) -> Outcome {
    let root = &context.image().partitions.root_a;
    // The file system's own head, which is read before anything runs.
    tried(context, "superblock", root.start_bytes + 1024 + 3)?;
    // Code of a program that starts late. It is found by its bytes, since a root may lie anywhere.
    let at = code_of_the_compositor(context)?;
    tried(context, "program", at)
}

/// Flips one bit at `at` of a machine's disk and switches the machine on.
fn tried(context: &DiskContext<'_>, name: &str, at: u64) -> Outcome {
    let options = context.machine(name);
    // The disk is made by a first start, which ends before the firmware has done anything.
    Desktop::start(&options)?.cut_power();
    flip(&options, at)?;
    let mut desktop = Desktop::start(&options)?;
    let told = desktop.wait_for(TOLD, BOOT_LIMIT)?;
    check!(
        told.contains("system on this disk"),
        "the message does not say what is damaged: {told}"
    );
    std::thread::sleep(Duration::from_secs(1));
    let picture = context.screenshot(&mut desktop, name)?;
    // White on red: the message's head.
    let red = picture.share_of(picture.area(), [0xaa, 0, 0], 0x28);
    check!(
        red > 0.000_5,
        "the screen shows no message; see {name}.png (red: {red})"
    );
    let log = desktop.serial_log();
    context.log(&format!("{name}.log"), log.as_bytes())?;
    check!(
        !log.contains(READY),
        "the desktop started from a changed root"
    );
    // Without anybody at the keyboard it turns off, and nothing was written to the data.
    desktop.wait_for_power_off(Duration::from_secs(90))?;
    context.discard(&options)
}

fn flip(options: &DesktopOptions, at: u64) -> Outcome {
    let disk = File::options()
        .read(true)
        .write(true)
        .open(options.disk())?;
    let mut byte = [0];
    disk.read_exact_at(&mut byte, at)?;
    disk.write_all_at(&[byte[0] ^ 0x10], at)?;
    Ok(disk.sync_all()?)
}

/// The place on the disk of a page of the compositor's code.
fn code_of_the_compositor(context: &DiskContext<'_>) -> Result<u64, Failure> {
    let program = Layout::of_this_workspace()
        .target()
        .join("release/bulkhead-compositor");
    let file = File::open(&program)?;
    // Its entry point is run first of all (ELF-64, e_entry); code lies where it is in the file.
    let mut header = [0; 64];
    file.read_exact_at(&mut header, 0)?;
    let entry = u64::from_le_bytes(header[24..32].try_into().unwrap_or_default());
    let segment = segment_offset(&file, &header, entry)?;
    let page = segment / BLOCK as u64 * BLOCK as u64;
    let mut wanted = vec![0; BLOCK];
    file.read_exact_at(&mut wanted, page)?;
    let disk = File::open(&context.image().disk)?;
    let root = &context.image().partitions.root_a;
    let mut chunk = vec![0; 1 << 20];
    for start in (0..root.size_bytes).step_by(chunk.len()) {
        let place = root.start_bytes + start;
        disk.read_exact_at(&mut chunk, place)?;
        let found = chunk.chunks(BLOCK).position(|block| block == wanted);
        if let Some(block) = found {
            return Ok(place + (block * BLOCK) as u64 + segment - page);
        }
    }
    Err(Failure::new(format!(
        "no block of the root is the first code of {}",
        program.display()
    )))
}

/// Where the byte that is loaded at `address` lies in the file.
fn segment_offset(file: &File, header: &[u8; 64], address: u64) -> Result<u64, Failure> {
    let long = |bytes: &[u8], at: usize| {
        bytes
            .get(at..at + 8)
            .and_then(|part| part.try_into().ok())
            .map_or(0, u64::from_le_bytes)
    };
    let table = long(header, 32);
    let count = u64::from(u16::from_le_bytes([header[56], header[57]]));
    for index in 0..count {
        let mut entry = [0; 56];
        file.read_exact_at(&mut entry, table + index * 56)?;
        let (offset, start, size) = (long(&entry, 8), long(&entry, 16), long(&entry, 32));
        if entry[0] == 1 && (start..start + size).contains(&address) {
            return Ok(offset + address - start);
        }
    }
    Err(Failure::new("the compositor has no code at its entry"))
}
