//! The data partition: made at the first boot, mounted at every other.
//!
//! How far the first boot came stands in the partition's own attributes in the partition table
//! (bits 48 and 49 belong to the partition's type, which is ours): *begun* is written before a
//! file system is made, *complete* after it has reached the disk. So a file system that was cut
//! short by a power failure is made again, since nobody can have stored anything in it yet; one
//! that was complete once is never made again, however damaged it looks.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use rustix::mount::MountFlags;

use crate::{
    disks::Disk,
    error::BootError,
    gpt::GptError,
    mounts::mount_at,
    parameters::{DATA_TYPE, LEAST_DATA_BYTES, SECTOR_BYTES},
    screen::note,
};

/// Where it is mounted.
pub const DATA: &str = "/data";
/// XFS has room for twelve letters.
const LABEL: &str = "bulkhead";
const BEGUN: u64 = 1 << 48;
const COMPLETE: u64 = 1 << 49;
const MIB: u64 = 1 << 20;

/// How far an earlier boot came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// As the image was written.
    New,
    /// A file system was being made.
    Begun,
    /// It was made.
    Complete,
}

impl Progress {
    fn of(attributes: u64) -> Self {
        if attributes & COMPLETE != 0 {
            Self::Complete
        } else if attributes & BEGUN != 0 {
            Self::Begun
        } else {
            Self::New
        }
    }
}

/// What to do with the partition.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Action {
    Mount,
    Format,
    Refuse(String),
}

/// Decides. `content` says what is on the partition, and is asked only where it matters.
fn decide(
    progress: Progress,
    content: impl FnOnce() -> Result<Option<String>, BootError>,
) -> Result<Action, BootError> {
    Ok(match progress {
        Progress::Complete => Action::Mount,
        Progress::Begun => Action::Format,
        Progress::New => match content()? {
            None => Action::Format,
            Some(what) => Action::Refuse(what),
        },
    })
}

/// Finds the data partition beside the root, prepares it if this is the first boot, and mounts it
/// at [`DATA`].
pub fn mount(disk: &mut Disk) -> Result<(), BootError> {
    let kind = DATA_TYPE.parse().unwrap_or_default();
    let (number, entry) = disk
        .table
        .of_kind(kind)
        .map(|(number, entry)| (number, *entry))
        .ok_or_else(|| BootError::NoData {
            disk: disk.name.clone(),
        })?;
    let (path, _) = disk.partition(number)?;
    match decide(Progress::of(entry.attributes), || content(&path))? {
        Action::Mount => {}
        Action::Refuse(what) => {
            return Err(BootError::NotEmpty {
                partition: path,
                what,
            });
        }
        Action::Format => make(disk, number, entry.first, &path)?,
    }
    let flags = MountFlags::NOATIME | MountFlags::NOSUID | MountFlags::NODEV;
    mount_at(&path, DATA, "xfs", flags, "").map_err(|error| damaged(&path, error))
}

/// Whether the disk has its end: an image that was written to a smaller one has lost it, and the
/// kernel shows none of its partitions.
pub fn check_size(disk: &Disk) -> Result<(), BootError> {
    disk.table
        .check_fits(disk.sectors)
        .map_err(|error| table_error(disk, error))
}

/// An error of the data partition's file system.
#[must_use]
pub fn damaged(path: &Path, error: std::io::Error) -> BootError {
    BootError::DataDamaged {
        partition: path.to_path_buf(),
        reason: format!("its file system cannot be used ({error})"),
    }
}

fn table_error(disk: &Disk, error: GptError) -> BootError {
    match error {
        GptError::DiskTooSmall { needed_sectors, .. } => BootError::DiskTooSmall {
            disk: disk.name.clone(),
            has_mib: disk.sectors * SECTOR_BYTES / MIB,
            needs_mib: (needed_sectors.saturating_mul(SECTOR_BYTES) + LEAST_DATA_BYTES)
                .div_ceil(MIB),
        },
        source => BootError::Table {
            disk: disk.name.clone(),
            source,
        },
    }
}

fn make(disk: &mut Disk, number: u32, first: u64, path: &Path) -> Result<(), BootError> {
    note("first boot: preparing the data partition");
    let sectors = disk
        .table
        .grow(number, disk.sectors)
        .map_err(|error| table_error(disk, error))?;
    if sectors * SECTOR_BYTES < LEAST_DATA_BYTES {
        return Err(BootError::DiskTooSmall {
            disk: disk.name.clone(),
            has_mib: disk.sectors * SECTOR_BYTES / MIB,
            needs_mib: (first * SECTOR_BYTES + LEAST_DATA_BYTES).div_ceil(MIB) + 1,
        });
    }
    disk.table.set_attributes(number, BEGUN);
    disk.write_table(number)?;
    let failed = |reason: String| BootError::Format {
        partition: path.to_path_buf(),
        reason,
    };
    // "-f": whatever is here was never complete.
    let mut command = Command::new("/usr/sbin/mkfs.xfs");
    command
        .args(["-q", "-f", "-L", LABEL, "-m", "crc=1,reflink=1"])
        .arg(path);
    let output = run(&mut command).map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(first_line(&output)));
    }
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(|error| failed(error.to_string()))?;
    disk.table.set_attributes(number, BEGUN | COMPLETE);
    disk.write_table(number)?;
    note(&format!(
        "the data partition has {} MiB",
        sectors * SECTOR_BYTES / MIB
    ));
    Ok(())
}

/// What a partition holds, in words; nothing if no known file system or table is on it.
fn content(path: &Path) -> Result<Option<String>, BootError> {
    let failed = |reason: String| BootError::Format {
        partition: path.to_path_buf(),
        reason,
    };
    let mut command = Command::new("/usr/sbin/blkid");
    command.args(["--probe", "--output", "export"]).arg(path);
    let output = run(&mut command).map_err(|error| failed(error.to_string()))?;
    match output.status.code() {
        Some(0) => Ok(described(&String::from_utf8_lossy(&output.stdout))),
        // Documented: "2: no identifiable file system".
        Some(2) => Ok(None),
        // Several at once, which is also not nothing.
        Some(8) => Ok(Some("several file systems at once".to_owned())),
        _ => Err(failed(first_line(&output))),
    }
}

/// blkid also says what the partition table knows, of which nothing is on the partition itself.
fn described(blkid: &str) -> Option<String> {
    let value = |key: &str| blkid.lines().find_map(|line| line.strip_prefix(key));
    let kind = value("TYPE=").map(|kind| format!("a file system ({kind})"));
    let kind = kind.or_else(|| value("PTTYPE=").map(|_| "a partition table".to_owned()))?;
    Some(match value("LABEL=") {
        Some(label) => format!("it holds {kind} called {}", label.escape_default()),
        None => format!("it holds {kind}"),
    })
}

fn run(command: &mut Command) -> std::io::Result<Output> {
    command.stdin(Stdio::null()).env_clear().output()
}

fn first_line(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let line = text.lines().find(|line| !line.trim().is_empty());
    match line {
        Some(line) => line.trim().to_owned(),
        None => output.status.to_string(),
    }
}

/// The mounted partition's device, for messages.
#[must_use]
pub fn device() -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let found = mounts.lines().find_map(|line| {
        let mut words = line.split(' ');
        let source = words.next()?;
        (words.next()? == DATA).then(|| source.into())
    });
    found.unwrap_or_else(|| DATA.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_complete_once_is_never_made_again() {
        let asked = || -> Result<Option<String>, BootError> { panic!("asked") };
        for attributes in [COMPLETE, COMPLETE | BEGUN, u64::MAX] {
            let progress = Progress::of(attributes);
            assert_eq!(decide(progress, asked).unwrap(), Action::Mount);
        }
    }

    #[test]
    fn what_was_cut_short_is_made_again() {
        let asked = || -> Result<Option<String>, BootError> { panic!("asked") };
        let progress = Progress::of(BEGUN | 1);
        assert_eq!(decide(progress, asked).unwrap(), Action::Format);
    }

    #[test]
    fn a_new_partition_must_be_empty() {
        assert_eq!(
            decide(Progress::of(0), || Ok(None)).unwrap(),
            Action::Format
        );
        let action = decide(Progress::of(0), || Ok(Some("ext4".to_owned()))).unwrap();
        assert_eq!(action, Action::Refuse("ext4".to_owned()));
    }

    #[test]
    fn what_is_there_is_named() {
        let text = "DEVNAME=/dev/x\nLABEL=holi\x1bday\nTYPE=ext4\n";
        assert_eq!(
            described(text).as_deref(),
            Some("it holds a file system (ext4) called holi\\u{1b}day")
        );
        assert_eq!(
            described("PTTYPE=dos\n").as_deref(),
            Some("it holds a partition table")
        );
        let only_the_table = "DEVNAME=/dev/x\nPART_ENTRY_NAME=data\nPART_ENTRY_SCHEME=gpt\n";
        assert_eq!(described(only_the_table), None);
    }
}
