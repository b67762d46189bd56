//! Snapshots of a home volume: `snapshots/NUMBER.img` in the domain's folder, the newest with the
//! highest number. Each is the home as it was before a start.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bulkhead_protocol::DomainName;

use super::{HOME, copy};
use crate::dirs::private_dir;
use crate::store::{NEEDED_MIB, Store, free_mib, remove_all, steps, sync_dir};
use crate::{Error, Result};

/// The folder of snapshots, in the domain's folder.
const FOLDER: &str = "snapshots";
/// A home with no more than this is copied at a start even where blocks cannot be shared: that
/// takes a fraction of a second.
const COPIED_MIB: u64 = 64;

/// One snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Its number.
    pub number: u32,
    /// When it was made: seconds since 1970.
    pub taken_s: u64,
    /// What it takes on the disk; blocks that it shares count for each who shares them.
    pub disk_bytes: u64,
}

/// What became of a snapshot at a start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taken {
    /// There is a new one.
    Made(u32),
    /// None is wanted, or there is nothing to keep yet.
    NotNeeded,
    /// There is none, and why.
    Impossible(String),
}

impl Store {
    fn snapshot_file(&self, name: &DomainName, number: u32) -> PathBuf {
        self.data_dir(name)
            .join(FOLDER)
            .join(format!("{number}.img"))
    }

    /// A domain's snapshots, the newest first.
    pub fn snapshots(&self, name: &DomainName) -> Result<Vec<Snapshot>> {
        let dir = self.data_dir(name).join(FOLDER);
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::io("read", &dir)(error)),
        };
        let mut snapshots: Vec<Snapshot> = entries
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name();
                let number = name.to_str()?.strip_suffix(".img")?.parse().ok()?;
                let data = entry.metadata().ok()?;
                Some(Snapshot {
                    number,
                    taken_s: u64::try_from(data.mtime()).unwrap_or(0),
                    disk_bytes: data.blocks().saturating_mul(512),
                })
            })
            .collect();
        snapshots.sort_by_key(|snapshot| std::cmp::Reverse(snapshot.number));
        Ok(snapshots)
    }

    /// Makes a snapshot of a home that nobody writes to, and removes the oldest until `keep` are
    /// left. `home` is the open home volume.
    pub fn take_snapshot(&self, name: &DomainName, home: &File, keep: u32) -> Result<Taken> {
        if keep == 0 {
            self.prune(name, 0)?;
            return Ok(Taken::NotNeeded);
        }
        let in_use_mib = copy::allocated(home) >> 20;
        if copy::allocated(home) == 0 {
            return Ok(Taken::NotNeeded);
        }
        let dir = self.data_dir(name);
        let draft = dir.join(".bulkhead-new-snapshot");
        remove_all(&draft);
        if !copy::shared(home, &draft)? {
            if in_use_mib > COPIED_MIB {
                return Ok(Taken::Impossible(format!(
                    "the file system of {} cannot share blocks (Btrfs and XFS can), and {in_use_mib} \
                     MiB are too much to copy at each start (at most {COPIED_MIB})",
                    dir.display()
                )));
            }
            if free_mib(&dir)? < in_use_mib + NEEDED_MIB {
                let reason = format!("{}: the disk is full", dir.display());
                return Ok(Taken::Impossible(reason));
            }
            copy::sparse(home, &draft)?;
        }
        let number = self.put(name, &draft);
        if number.is_err() {
            remove_all(&draft);
        }
        let number = number?;
        self.prune(name, keep)?;
        Ok(Taken::Made(number))
    }

    fn put(&self, name: &DomainName, draft: &Path) -> Result<u32> {
        let dir = self.data_dir(name).join(FOLDER);
        private_dir(&dir).map_err(Error::io("make the folder", &dir))?;
        let newest = self
            .snapshots(name)?
            .first()
            .map_or(0, |newest| newest.number);
        let number = newest.saturating_add(1);
        let file = self.snapshot_file(name, number);
        steps::done()?;
        fs::rename(draft, &file).map_err(Error::io("write", &file))?;
        sync_dir(&dir)?;
        Ok(number)
    }

    fn prune(&self, name: &DomainName, keep: u32) -> Result<()> {
        let keep = usize::try_from(keep).unwrap_or(usize::MAX);
        for old in self.snapshots(name)?.iter().skip(keep) {
            let file = self.snapshot_file(name, old.number);
            fs::remove_file(&file).map_err(Error::io("remove", &file))?;
        }
        Ok(())
    }

    /// Puts a snapshot (the newest, if none is named) in the place of the home, whole or not at
    /// all, and gives its number. The snapshot stays. Nobody may use the home meanwhile.
    pub fn revert(&self, name: &DomainName, number: Option<u32>) -> Result<u32> {
        let known = self.snapshots(name)?;
        let wrong = |reason: String| Error::Volume {
            name: name.clone(),
            reason,
        };
        let Some(newest) = known.first() else {
            return Err(wrong(format!(
                "there is no snapshot of its home; one is made at each start (`bulkhead info \
                 {name}` says if not)"
            )));
        };
        let number = number.unwrap_or(newest.number);
        if !known.iter().any(|snapshot| snapshot.number == number) {
            let numbers: Vec<String> = known.iter().map(|s| s.number.to_string()).collect();
            return Err(wrong(format!(
                "there is no snapshot {number} of its home; there are {}",
                numbers.join(", ")
            )));
        }
        let dir = self.data_dir(name);
        let draft = dir.join(".bulkhead-new-home");
        remove_all(&draft);
        let copied =
            steps::done().and_then(|()| copy::whole(&self.snapshot_file(name, number), &draft));
        let put = copied.and_then(|()| {
            steps::done()?;
            let home = dir.join(HOME);
            fs::rename(&draft, &home).map_err(Error::io("write", &home))?;
            sync_dir(&dir)
        });
        if put.is_err() {
            remove_all(&draft);
        }
        put.map(|()| number)
    }
}
