//! Tables that sfdisk made are read, grown and written, and interrupted at every sector.

use std::{io::Write, process::Command};

use super::*;

const MIB: u64 = 1 << 20;
const ROOT: &str = "4f68bce3-e8cd-4db1-96e7-fbcaf984b709";
const DATA: &str = "e0921d21-f506-44a3-933d-39f8c591cbea";
const ROOT_ID: &str = "11111111-2222-4333-8444-555555555555";

/// A disk of 16 MiB with a root and a data partition, made by the system's own tool.
fn disk() -> Option<tempfile::NamedTempFile> {
    let disk = tempfile::NamedTempFile::new().unwrap();
    disk.as_file().set_len(16 * MIB).unwrap();
    let script = format!(
        "label: gpt\nstart=1MiB, size=4MiB, type={ROOT}, uuid={ROOT_ID}, name=\"root a\"\n\
         size=2MiB, type={DATA}, name=\"data\"\n"
    );
    let mut child = Command::new("/usr/sbin/sfdisk")
        .args(["--quiet", "--no-reread", "--no-tell-kernel"])
        .arg(disk.path())
        .stdin(std::process::Stdio::piped())
        .spawn()
        .map_err(|error| eprintln!("SKIPPED: sfdisk: {error} (Debian's package `fdisk`)"))
        .ok()?;
    child
        .stdin
        .take()
        .unwrap()
        .write_all(script.as_bytes())
        .unwrap();
    assert!(child.wait().unwrap().success());
    Some(disk)
}

fn sectors(disk: &tempfile::NamedTempFile) -> u64 {
    disk.as_file().metadata().unwrap().len() / SECTOR_BYTES
}

fn verified_by_sfdisk(disk: &tempfile::NamedTempFile) {
    let output = Command::new("/usr/sbin/sfdisk")
        .args(["--verify", "--no-reread"])
        .arg(disk.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(
        output.status.success() && text.contains("No errors detected"),
        "{text}"
    );
}

#[test]
fn other_tools_tables_are_read_and_ours_are_read_by_them() {
    let Some(disk) = disk() else { return };
    let table = Table::read(disk.as_file(), sectors(&disk)).unwrap();
    let (number, root) = table.partition(ROOT_ID.parse().unwrap()).unwrap();
    assert_eq!((number, root.first, root.sectors()), (1, 2048, 8192));
    let (number, data) = table.of_kind(DATA.parse().unwrap()).unwrap();
    assert_eq!((number, data.sectors()), (2, 4096));
    table.write(disk.as_file(), sectors(&disk)).unwrap();
    verified_by_sfdisk(&disk);
    assert_eq!(Table::read(disk.as_file(), sectors(&disk)).unwrap(), table);
}

#[test]
fn the_last_partition_grows_with_the_disk() {
    let Some(disk) = disk() else { return };
    // An odd number of sectors, as real disks have.
    disk.as_file().set_len(64 * MIB + 512).unwrap();
    let mut table = Table::read(disk.as_file(), sectors(&disk)).unwrap();
    let (number, _) = table.of_kind(DATA.parse().unwrap()).unwrap();
    let grown = table.grow(number, sectors(&disk)).unwrap();
    assert_eq!(grown * SECTOR_BYTES, 58 * MIB);
    table.write(disk.as_file(), sectors(&disk)).unwrap();
    verified_by_sfdisk(&disk);
    assert_eq!(table.grow(number, sectors(&disk)).unwrap(), grown);
    // The root has a neighbour: it stays.
    assert_eq!(table.grow(1, sectors(&disk)).unwrap(), 8192);
}

#[test]
fn a_disk_that_lost_its_end_is_refused() {
    let Some(disk) = disk() else { return };
    let mut table = Table::read(disk.as_file(), sectors(&disk)).unwrap();
    for mib in [4, 6, 7] {
        let sectors = mib * MIB / SECTOR_BYTES;
        assert!(
            matches!(table.grow(2, sectors), Err(GptError::DiskTooSmall { .. })),
            "{mib}"
        );
        assert!(matches!(
            table.write(disk.as_file(), sectors),
            Err(GptError::DiskTooSmall { .. })
        ));
    }
    assert!(table.grow(2, 8 * MIB / SECTOR_BYTES).is_ok());
}

/// A write is cut after every number of sectors: what can be read is the old or the new table.
#[test]
fn a_power_cut_leaves_one_whole_table() {
    let Some(disk) = disk() else { return };
    disk.as_file().set_len(64 * MIB).unwrap();
    let before = std::fs::read(disk.path()).unwrap();
    let old = Table::read(disk.as_file(), sectors(&disk)).unwrap();
    let mut new = old.clone();
    new.grow(2, sectors(&disk)).unwrap();
    new.set_attributes(2, 1 << 48);
    new.write(disk.as_file(), sectors(&disk)).unwrap();
    let after = std::fs::read(disk.path()).unwrap();

    // In the order of writing: the copy at the end, then the one at the start.
    let end = after.len() / SECTOR - 33;
    let order: Vec<usize> = (end..after.len() / SECTOR).chain(1..34).collect();
    let mut now = before;
    let cut = tempfile::NamedTempFile::new().unwrap();
    for (written, sector) in order.iter().enumerate() {
        let place = sector * SECTOR..(sector + 1) * SECTOR;
        now[place.clone()].copy_from_slice(&after[place.clone()]);
        cut.as_file().write_all_at(&now, 0).unwrap();
        // The sector that was being written when the power went is anything.
        let mut torn = now[place.clone()].to_vec();
        torn[..256].fill(0xee);
        for content in [&now[place.clone()], torn.as_slice()] {
            cut.as_file()
                .write_all_at(content, place.start as u64)
                .unwrap();
            let read = Table::read(cut.as_file(), sectors(&cut)).unwrap();
            assert!(read == old || read == new, "after {written} sectors");
        }
    }
}

#[test]
fn damaged_tables_are_refused_without_a_panic() {
    let Some(disk) = disk() else { return };
    let good = std::fs::read(disk.path()).unwrap();
    // Any changed byte of the first copy sends us to the second, and the table is the same.
    let table = Table::read(disk.as_file(), sectors(&disk)).unwrap();
    for at in (512..512 + 92).chain([1024, 1024 + 40, 1024 + 16383]) {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        disk.as_file().write_all_at(&bad, 0).unwrap();
        assert_eq!(
            Table::read(disk.as_file(), sectors(&disk)).unwrap(),
            table,
            "byte {at}"
        );
    }
    disk.as_file()
        .write_all_at(&vec![0; good.len()], 0)
        .unwrap();
    assert!(matches!(
        Table::read(disk.as_file(), sectors(&disk)),
        Err(GptError::NoTable(..))
    ));
    for few in 0..70 {
        assert!(Table::read(disk.as_file(), few).is_err());
    }
}
