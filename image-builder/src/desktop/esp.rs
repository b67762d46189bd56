//! The EFI system partition: a FAT32 file system with the boot file in it, made without a mount.

use std::{fs, path::Path, time::Duration};

use crate::{
    SOURCE_DATE_EPOCH,
    command::{program, run},
    error::{Error, io},
};

/// Where firmware looks if nobody told it anything (UEFI specification 2.10, 3.5.1.1).
const FALLBACK: &str = "::/EFI/BOOT/BOOTX64.EFI";
/// Where boot loaders look for boot files (UAPI group's Boot Loader Specification).
const NAMED: &str = "::/EFI/Linux/bulkhead-a.efi";

/// Writes a file system of `mib` MiB with the boot file to `output`, whole or not at all.
pub fn build(uki: &Path, mib: u64, output: &Path) -> Result<(), Error> {
    let partial = output.with_extension("partial");
    let _ = fs::remove_file(&partial);
    let file = fs::File::create(&partial).map_err(io("creating", &partial))?;
    file.set_len(mib << 20).map_err(io("creating", &partial))?;
    drop(file);
    run(
        program("mkfs.vfat", "dosfstools")?
            .args(["--invariant", "-F", "32", "-s", "2", "-n", "BULKHEAD"])
            .arg(&partial),
        "making the EFI system partition",
    )?;
    // mtools copies a file's time into the file system. The original keeps its own: by that we
    // know whether it changed.
    let dated = output.with_extension("efi");
    let time = std::time::UNIX_EPOCH + Duration::from_secs(SOURCE_DATE_EPOCH);
    fs::copy(uki, &dated)
        .and_then(|_| fs::File::options().write(true).open(&dated))
        .and_then(|file| file.set_modified(time))
        .map_err(io("copying to", &dated))?;
    let mtools = |name: &str| -> Result<_, Error> {
        let mut command = program(name, "mtools")?;
        command
            .env("SOURCE_DATE_EPOCH", SOURCE_DATE_EPOCH.to_string())
            .env("TZ", "UTC")
            .env("MTOOLS_SKIP_CHECK", "1")
            .arg("-i")
            .arg(&partial);
        Ok(command)
    };
    run(
        mtools("mmd")?.args(["::/EFI", "::/EFI/BOOT", "::/EFI/Linux"]),
        "making the boot folders",
    )?;
    for place in [FALLBACK, NAMED] {
        run(
            mtools("mcopy")?.args(["-m", "-Q"]).arg(&dated).arg(place),
            "copying the boot file; is the EFI system partition large enough (`esp-mib`)? It",
        )?;
    }
    let _ = fs::remove_file(&dated);
    fs::rename(&partial, output).map_err(io("moving to", output))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_boot_file_gives_the_same_partition() {
        for (tool, package) in [("mkfs.vfat", "dosfstools"), ("mcopy", "mtools")] {
            if program(tool, package).is_err() {
                eprintln!("SKIPPED: no {tool} (Debian's package `{package}`)");
                return;
            }
        }
        let folder = tempfile::tempdir().unwrap();
        let (uki, first, second) = (
            folder.path().join("uki"),
            folder.path().join("1.fat"),
            folder.path().join("2.fat"),
        );
        // Smaller ones have too few clusters to be FAT32.
        fs::write(&uki, vec![3; 100_000]).unwrap();
        build(&uki, 80, &first).unwrap();
        // FAT's times have steps of two seconds.
        std::thread::sleep(Duration::from_millis(2100));
        build(&uki, 80, &second).unwrap();
        assert!(fs::read(&first).unwrap() == fs::read(&second).unwrap());
        fs::File::create(&uki).unwrap().set_len(41 << 20).unwrap();
        let error = build(&uki, 80, &second).unwrap_err().to_string();
        assert!(error.contains("esp-mib"), "{error}");
    }
}
