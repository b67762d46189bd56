//! GUID partition tables (UEFI specification 2.10, chapter 5.3): read with all checks, and written
//! so that a power cut at any moment leaves one of the two copies whole.

use std::{fs::File, os::unix::fs::FileExt};

use crate::{guid::Guid, parameters::SECTOR_BYTES};

const SIGNATURE: &[u8; 8] = b"EFI PART";
const REVISION: u32 = 0x0001_0000;
const HEADER_BYTES: usize = 92;
const ENTRY_BYTES: usize = 128;
/// As every tool makes it; a table with another number is not one of ours.
const ENTRIES: usize = 128;
const SECTOR: usize = SECTOR_BYTES as usize;
const ENTRY_SECTORS: u64 = (ENTRIES * ENTRY_BYTES / SECTOR) as u64;
/// Partitions start and end at whole mebibytes, as the image builder lays them out.
const ALIGNMENT: u64 = (1 << 20) / SECTOR_BYTES;

/// Why there is no table, or why it cannot be changed.
#[derive(Debug, thiserror::Error)]
pub enum GptError {
    /// The disk does not answer.
    #[error("the disk cannot be read or written: {0}")]
    Io(#[from] std::io::Error),
    /// Neither copy is whole.
    #[error("no whole partition table (the first copy: {0}; the second copy: {1})")]
    NoTable(&'static str, &'static str),
    /// The disk ends before the partitions do.
    #[error("the disk has {disk_sectors} sectors, but its partitions need {needed_sectors}")]
    DiskTooSmall {
        /// Sectors of the disk.
        disk_sectors: u64,
        /// Sectors that the table needs.
        needed_sectors: u64,
    },
}

/// A partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// What it is for.
    pub kind: Guid,
    /// Its own name.
    pub id: Guid,
    /// Its first sector.
    pub first: u64,
    /// Its last sector.
    pub last: u64,
    /// Bits 48 to 63 belong to the partition's type.
    pub attributes: u64,
    /// A label for people: UTF-16, kept as it is.
    label: [u8; 72],
}

impl Entry {
    const UNUSED: Self = Self {
        kind: Guid::ZERO,
        id: Guid::ZERO,
        first: 0,
        last: 0,
        attributes: 0,
        label: [0; 72],
    };

    /// Sectors that it has.
    #[must_use]
    pub fn sectors(&self) -> u64 {
        self.last.saturating_sub(self.first).saturating_add(1)
    }

    fn is_used(&self) -> bool {
        self.kind != Guid::ZERO
    }

    fn read(bytes: &[u8; ENTRY_BYTES]) -> Self {
        let mut label = [0; 72];
        label.copy_from_slice(&bytes[56..128]);
        Self {
            kind: Guid(bytes_at(bytes, 0)),
            id: Guid(bytes_at(bytes, 16)),
            first: u64::from_le_bytes(bytes_at(bytes, 32)),
            last: u64::from_le_bytes(bytes_at(bytes, 40)),
            attributes: u64::from_le_bytes(bytes_at(bytes, 48)),
            label,
        }
    }

    fn write(&self) -> [u8; ENTRY_BYTES] {
        let mut bytes = [0; ENTRY_BYTES];
        bytes[0..16].copy_from_slice(&self.kind.0);
        bytes[16..32].copy_from_slice(&self.id.0);
        bytes[32..40].copy_from_slice(&self.first.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.last.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.attributes.to_le_bytes());
        bytes[56..128].copy_from_slice(&self.label);
        bytes
    }
}

/// `N` bytes from `at`; both are constants of this file, inside the array.
fn bytes_at<const N: usize, const M: usize>(bytes: &[u8; M], at: usize) -> [u8; N] {
    let mut part = [0; N];
    part.copy_from_slice(&bytes[at..at + N]);
    part
}

/// The partitions of a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    disk: Guid,
    first_usable: u64,
    entries: Vec<Entry>,
}

impl Table {
    /// Reads the first copy or, if that is damaged, the one at the end of the disk.
    pub fn read(disk: &File, disk_sectors: u64) -> Result<Self, GptError> {
        let first = match read_copy(disk, disk_sectors, 1) {
            Ok(table) => return Ok(table),
            Err(Damage::Io(error)) => return Err(error.into()),
            Err(Damage::Wrong(reason)) => reason,
        };
        match read_copy(disk, disk_sectors, disk_sectors.saturating_sub(1)) {
            Ok(table) => Ok(table),
            Err(Damage::Io(error)) => Err(error.into()),
            Err(Damage::Wrong(second)) => Err(GptError::NoTable(first, second)),
        }
    }

    /// The partition with this name: its number, counted from 1, and its entry.
    #[must_use]
    pub fn partition(&self, id: Guid) -> Option<(u32, &Entry)> {
        self.find(|entry| entry.id == id)
    }

    /// The first partition of this type.
    #[must_use]
    pub fn of_kind(&self, kind: Guid) -> Option<(u32, &Entry)> {
        self.find(|entry| entry.kind == kind)
    }

    fn find(&self, wanted: impl Fn(&Entry) -> bool) -> Option<(u32, &Entry)> {
        (1..)
            .zip(&self.entries)
            .find(|(_, entry)| entry.is_used() && wanted(entry))
    }

    /// The partition with this number.
    #[must_use]
    pub fn entry(&self, number: u32) -> Option<&Entry> {
        let index = usize::try_from(number).ok()?.checked_sub(1)?;
        self.entries.get(index).filter(|entry| entry.is_used())
    }

    /// Sets a partition's attributes.
    pub fn set_attributes(&mut self, number: u32, attributes: u64) {
        if let Some(entry) = self.entry_mut(number) {
            entry.attributes = attributes;
        }
    }

    /// Lets a partition reach to the end of the disk, or to the partition behind it. It never
    /// becomes smaller. Returns its sectors.
    pub fn grow(&mut self, number: u32, disk_sectors: u64) -> Result<u64, GptError> {
        self.check_fits(disk_sectors)?;
        let Some(entry) = self.entry_mut(number).copied() else {
            return Ok(0);
        };
        let behind = self
            .entries
            .iter()
            .filter(|other| other.is_used() && other.first > entry.last)
            .map(|other| other.first)
            .min();
        let end = behind.unwrap_or(last_usable(disk_sectors) + 1);
        let last = (end / ALIGNMENT * ALIGNMENT)
            .saturating_sub(1)
            .max(entry.last);
        if let Some(entry) = self.entry_mut(number) {
            entry.last = last;
        }
        Ok(last - entry.first + 1)
    }

    /// Whether all partitions and the second copy have room on a disk of this size.
    pub fn check_fits(&self, disk_sectors: u64) -> Result<(), GptError> {
        let used = self.entries.iter().filter(|entry| entry.is_used());
        let last = used.map(|entry| entry.last).max().unwrap_or(0);
        let needed_sectors = last.saturating_add(ENTRY_SECTORS + 2);
        if needed_sectors > disk_sectors {
            return Err(GptError::DiskTooSmall {
                disk_sectors,
                needed_sectors,
            });
        }
        Ok(())
    }

    /// Writes both copies, one after the other: first the one at the end of the disk, and only
    /// when that has reached the disk, the one at its start. Whatever a power cut interrupts, the
    /// other copy is whole.
    pub fn write(&self, disk: &File, disk_sectors: u64) -> Result<(), GptError> {
        self.check_fits(disk_sectors)?;
        let (second, first) = (disk_sectors - 1, 1);
        let entries = self.entry_bytes();
        let mut end = entries.clone();
        end.extend_from_slice(&self.header(disk_sectors, second, first, second - ENTRY_SECTORS));
        disk.write_all_at(&end, (second - ENTRY_SECTORS) * SECTOR_BYTES)?;
        disk.sync_all()?;
        let mut start = self.header(disk_sectors, first, second, 2).to_vec();
        start.extend_from_slice(&entries);
        disk.write_all_at(&start, SECTOR_BYTES)?;
        disk.sync_all()?;
        Ok(())
    }

    fn entry_mut(&mut self, number: u32) -> Option<&mut Entry> {
        let index = usize::try_from(number).ok()?.checked_sub(1)?;
        self.entries.get_mut(index)
    }

    fn entry_bytes(&self) -> Vec<u8> {
        self.entries.iter().flat_map(Entry::write).collect()
    }

    fn header(&self, disk_sectors: u64, own: u64, other: u64, entries_at: u64) -> [u8; SECTOR] {
        let mut sector = [0; SECTOR];
        let mut put = |at: usize, bytes: &[u8]| {
            sector[at..at + bytes.len()].copy_from_slice(bytes);
        };
        put(0, SIGNATURE);
        put(8, &REVISION.to_le_bytes());
        put(12, &(HEADER_BYTES as u32).to_le_bytes());
        put(24, &own.to_le_bytes());
        put(32, &other.to_le_bytes());
        put(40, &self.first_usable.to_le_bytes());
        put(48, &last_usable(disk_sectors).to_le_bytes());
        put(56, &self.disk.0);
        put(72, &entries_at.to_le_bytes());
        put(80, &(ENTRIES as u32).to_le_bytes());
        put(84, &(ENTRY_BYTES as u32).to_le_bytes());
        put(88, &crc32fast::hash(&self.entry_bytes()).to_le_bytes());
        let checksum = crc32fast::hash(&sector[..HEADER_BYTES]);
        sector[16..20].copy_from_slice(&checksum.to_le_bytes());
        sector
    }
}

fn last_usable(disk_sectors: u64) -> u64 {
    disk_sectors.saturating_sub(ENTRY_SECTORS + 2)
}

enum Damage {
    Io(std::io::Error),
    Wrong(&'static str),
}

fn read_copy(disk: &File, disk_sectors: u64, at: u64) -> Result<Table, Damage> {
    // Two copies and a sector between them: below that there is nothing to read.
    if disk_sectors < 2 * (ENTRY_SECTORS + 1) + 2 {
        return Err(Damage::Wrong("the disk is too small for one"));
    }
    let mut header = [0; SECTOR];
    disk.read_exact_at(&mut header, at * SECTOR_BYTES)
        .map_err(Damage::Io)?;
    let word = |at: usize| u32::from_le_bytes(bytes_at(&header, at));
    let long = |at: usize| u64::from_le_bytes(bytes_at(&header, at));
    if &bytes_at::<8, SECTOR>(&header, 0) != SIGNATURE || word(8) != REVISION {
        return Err(Damage::Wrong("there is none"));
    }
    let mut without_sum = header;
    without_sum[16..20].fill(0);
    if word(12) != HEADER_BYTES as u32
        || crc32fast::hash(&without_sum[..HEADER_BYTES]) != word(16)
        || long(24) != at
    {
        return Err(Damage::Wrong("its header is damaged"));
    }
    if word(80) != ENTRIES as u32 || word(84) != ENTRY_BYTES as u32 {
        return Err(Damage::Wrong("it has an unusual shape"));
    }
    let entries_at = long(72);
    if entries_at < 2 || entries_at > disk_sectors - ENTRY_SECTORS {
        return Err(Damage::Wrong("its entries lie outside the disk"));
    }
    let mut bytes = vec![0; ENTRIES * ENTRY_BYTES];
    disk.read_exact_at(&mut bytes, entries_at * SECTOR_BYTES)
        .map_err(Damage::Io)?;
    if crc32fast::hash(&bytes) != word(88) {
        return Err(Damage::Wrong("its entries are damaged"));
    }
    let entries: Vec<Entry> = bytes
        .as_chunks::<ENTRY_BYTES>()
        .0
        .iter()
        .map(Entry::read)
        .map(|entry| {
            if entry.is_used() {
                entry
            } else {
                Entry::UNUSED
            }
        })
        .collect();
    // 2^54 sectors are 8 EiB: below it no later sum or product can overflow.
    if entries
        .iter()
        .any(|entry| entry.first > entry.last || entry.last > 1 << 54)
    {
        return Err(Damage::Wrong("a partition ends before it starts"));
    }
    Ok(Table {
        disk: Guid(bytes_at(&header, 56)),
        first_usable: long(40),
        entries,
    })
}

#[cfg(test)]
mod tests;
