//! Finding partitions by name, on disks that may take a while to appear.

use std::{
    fs,
    fs::File,
    os::fd::AsRawFd,
    path::PathBuf,
    time::{Duration, Instant},
};

use crate::{
    error::{BootError, step},
    gpt::{GptError, Table},
    guid::Guid,
    parameters::SECTOR_BYTES,
};

/// How long a disk may take to appear: USB sticks need several seconds.
const PATIENCE: Duration = Duration::from_secs(30);
/// Block devices that are no disks.
const NO_DISKS: &[&str] = &["loop", "ram", "zram", "dm-", "sr", "fd", "md", "nbd"];

/// A disk with a whole partition table.
pub struct Disk {
    /// As in `vda`.
    pub name: String,
    /// Its size.
    pub sectors: u64,
    /// Its partitions.
    pub table: Table,
}

impl Disk {
    /// The whole disk's file.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/dev/{}", self.name))
    }

    /// The device of partition `number`: its file, and `MAJOR:MINOR`.
    pub fn partition(&self, number: u32) -> Result<(PathBuf, String), BootError> {
        let folder = format!("/sys/block/{}", self.name);
        let failed = || step(format!("looking for partition {number} of {}", self.name));
        for entry in fs::read_dir(&folder).map_err(failed())?.flatten() {
            let text = |file: &str| fs::read_to_string(entry.path().join(file)).ok();
            if text("partition").is_some_and(|found| found.trim().parse() == Ok(number)) {
                let device = text("dev").unwrap_or_default().trim().to_owned();
                return Ok((PathBuf::from("/dev").join(entry.file_name()), device));
            }
        }
        Err(failed()(std::io::Error::from(std::io::ErrorKind::NotFound)))
    }

    /// Writes the table, and tells the kernel the new size of partition `number`.
    pub fn write_table(&self, number: u32) -> Result<(), BootError> {
        let failed = |source| BootError::Table {
            disk: self.name.clone(),
            source,
        };
        let path = self.path();
        let file = File::options()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(|error| failed(error.into()))?;
        self.table.write(&file, self.sectors).map_err(failed)?;
        let Some(entry) = self.table.entry(number) else {
            return Ok(());
        };
        resize(&file, number, entry.first, entry.sectors()).map_err(step(format!(
            "resizing partition {number} of {}",
            self.name
        )))
    }
}

/// The one disk that has a partition with this name.
pub fn find(id: Guid) -> Result<Disk, BootError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut found = Vec::new();
        let mut seen = Vec::new();
        for name in disk_names() {
            match open(&name) {
                Ok(disk) if disk.table.partition(id).is_some() => found.push(disk),
                Ok(_) => seen.push(format!("{name} (another system)")),
                Err(error) => seen.push(format!("{name} ({error})")),
            }
        }
        if let Some(second) = found.get(1) {
            return Err(BootError::TwoRoots {
                first: found
                    .first()
                    .map(|disk| disk.name.clone())
                    .unwrap_or_default(),
                second: second.name.clone(),
            });
        }
        if let Some(disk) = found.pop() {
            return Ok(disk);
        }
        if Instant::now() > deadline {
            seen.sort();
            return Err(BootError::NoRoot {
                partition: id.to_string(),
                found: if seen.is_empty() {
                    "none".to_owned()
                } else {
                    seen.join(", ")
                },
            });
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn disk_names() -> Vec<String> {
    let entries = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !NO_DISKS.iter().any(|prefix| name.starts_with(prefix)))
        .collect()
}

fn open(name: &str) -> Result<Disk, GptError> {
    // The kernel counts in sectors of 512 bytes here, whatever the disk's own are.
    let sectors = fs::read_to_string(format!("/sys/block/{name}/size"))?
        .trim()
        .parse()
        .map_err(|_| std::io::Error::from(std::io::ErrorKind::InvalidData))?;
    let file = File::open(format!("/dev/{name}"))?;
    let table = Table::read(&file, sectors)?;
    Ok(Disk {
        name: name.to_owned(),
        sectors,
        table,
    })
}

#[repr(C)]
struct BlkpgPartition {
    start_bytes: i64,
    length_bytes: i64,
    number: i32,
    names: [u8; 128],
}

#[repr(C)]
struct BlkpgArgument {
    operation: i32,
    flags: i32,
    length: i32,
    data: *mut BlkpgPartition,
}

/// `BLKPG` (`include/uapi/linux/blkpg.h`): works while other partitions of the disk are in use,
/// where reading the whole table anew does not.
fn resize(disk: &File, number: u32, first: u64, sectors: u64) -> std::io::Result<()> {
    const BLKPG: u64 = 0x1269;
    const RESIZE: i32 = 3;
    let bytes = |sectors: u64| {
        sectors
            .checked_mul(SECTOR_BYTES)
            .and_then(|bytes| i64::try_from(bytes).ok())
            .ok_or(std::io::ErrorKind::InvalidInput)
    };
    let mut partition = BlkpgPartition {
        start_bytes: bytes(first)?,
        length_bytes: bytes(sectors)?,
        number: i32::try_from(number).map_err(|_| std::io::ErrorKind::InvalidInput)?,
        names: [0; 128],
    };
    let mut argument = BlkpgArgument {
        operation: RESIZE,
        flags: 0,
        length: i32::try_from(size_of::<BlkpgPartition>()).unwrap_or(i32::MAX),
        data: &raw mut partition,
    };
    // SAFETY: the kernel reads both structures, which have its layout and outlive the call.
    let result = unsafe { libc::ioctl(disk.as_raw_fd(), BLKPG, &raw mut argument) };
    if result < 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(())
}
