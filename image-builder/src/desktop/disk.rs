//! The disk as one sparse file: the partition table, and each partition's content in its place.

use std::{
    fs::{self, File},
    io::{Read, Write},
    os::unix::fs::FileExt,
    path::Path,
    process::Stdio,
};

use crate::{
    command::program,
    error::{Error, io},
};

use super::partitions::{Partition, Partitions};

/// What is copied or left out at once: a hole is worth having from this size.
const CHUNK: usize = 64 << 10;

/// Writes the disk to `output`, whole or not at all.
pub fn write(
    partitions: &Partitions,
    contents: &[(&Partition, &Path)],
    output: &Path,
) -> Result<(), Error> {
    let partial = output.with_extension("partial");
    let _ = fs::remove_file(&partial);
    let disk = File::create(&partial).map_err(io("creating", &partial))?;
    disk.set_len(partitions.disk_bytes())
        .map_err(io("creating", &partial))?;
    table(partitions, &partial)?;
    for (partition, content) in contents {
        if length(content)? > partition.size_bytes {
            return Err(Error::Io {
                action: "fitting into its partition",
                path: content.to_path_buf(),
                source: std::io::ErrorKind::FileTooLarge.into(),
            });
        }
        copy_at(content, &disk, partition.start_bytes).map_err(io("writing", &partial))?;
    }
    disk.sync_all().map_err(io("writing", &partial))?;
    fs::rename(&partial, output).map_err(io("moving to", output))
}

fn table(partitions: &Partitions, disk: &Path) -> Result<(), Error> {
    let mut child = program("sfdisk", "fdisk")?
        .args(["--quiet", "--no-reread", "--no-tell-kernel", "--wipe=never"])
        .arg(disk)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(io("partitioning", disk))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin
            .write_all(partitions.script().as_bytes())
            .map_err(io("partitioning", disk))?;
    }
    let output = child.wait_with_output().map_err(io("partitioning", disk))?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::Command {
        what: "partitioning the disk image".to_owned(),
        command: "sfdisk".to_owned(),
        status: output.status.to_string(),
        output: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Copies a file into the disk. What is zero stays a hole.
fn copy_at(from: &Path, disk: &File, start: u64) -> std::io::Result<()> {
    let mut from = File::open(from)?;
    let mut chunk = vec![0; CHUNK];
    let mut at = start;
    loop {
        let count = from.read(&mut chunk)?;
        let Some(part) = chunk.get(..count).filter(|part| !part.is_empty()) else {
            return Ok(());
        };
        if part.iter().any(|byte| *byte != 0) {
            disk.write_all_at(part, at)?;
        }
        at += part.len() as u64;
    }
}

/// A file's length.
pub(super) fn length(file: &Path) -> Result<u64, Error> {
    Ok(fs::metadata(file).map_err(io("looking at", file))?.len())
}

/// Writes a file, whole or not at all.
pub(super) fn write_whole(path: &Path, content: &[u8]) -> Result<(), Error> {
    let partial = path.with_extension("partial");
    fs::write(&partial, content).map_err(io("writing", &partial))?;
    fs::rename(&partial, path).map_err(io("moving to", path))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use bulkhead_host_boot::{gpt::Table, parameters::VerityParameters};

    use super::*;

    /// The program that boots the disk finds what the builder put there.
    #[test]
    fn the_disk_is_what_the_first_boot_expects() {
        if crate::command::find_program("sfdisk").is_none() {
            eprintln!("SKIPPED: no sfdisk (Debian's package `fdisk`)");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let mut root_hash = [0x17; 32];
        root_hash[31] = 0x18;
        let verity = VerityParameters {
            root_hash,
            salt: vec![1],
            blocks: 10,
        };
        let partitions = Partitions::new(8, 64, &verity, 4096).unwrap();
        let root = folder.path().join("root");
        let content = [vec![1; 10_000], vec![0; 300_000], vec![2; 10]].concat();
        fs::write(&root, &content).unwrap();
        let contents: [(&Partition, &Path); 1] = [(&partitions.root_a, &root)];
        let (first, second) = (folder.path().join("1.raw"), folder.path().join("2.raw"));
        write(&partitions, &contents, &first).unwrap();
        write(&partitions, &contents, &second).unwrap();
        assert!(fs::read(&first).unwrap() == fs::read(&second).unwrap());

        let disk = File::open(&first).unwrap();
        let size = disk.metadata().unwrap();
        assert!(size.blocks() * 512 < 1 << 20, "not sparse");
        let table = Table::read(&disk, size.len() / 512).unwrap();
        let (number, entry) = table.partition(verity.root_partition()).unwrap();
        assert_eq!(
            (number, entry.first * 512),
            (2, partitions.root_a.start_bytes)
        );
        assert_eq!(table.partition(verity.verity_partition()).unwrap().0, 3);
        let data = bulkhead_host_boot::parameters::DATA_TYPE.parse().unwrap();
        assert_eq!(table.of_kind(data).unwrap().0, 6);
        let mut found = vec![0; content.len()];
        disk.read_exact_at(&mut found, entry.first * 512).unwrap();
        assert!(found == content);
    }
}
