//! Room on this computer's disk: machines whose disk cannot be written stop in the middle, in ways that
//! look like faults of theirs.

use std::path::Path;

const MIB: u64 = 1 << 20;
/// What scenarios need at most at one time, beside what is built: a second set of images, and the disks
/// of an emulated machine.
pub const NEEDED_MIB: u64 = 6 * 1024;

/// Refuses to begin where scenarios would run out of room.
pub fn check(folder: &Path) -> Result<(), String> {
    let disk = rustix::fs::statvfs(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    enough(
        folder,
        disk.f_bavail.saturating_mul(disk.f_frsize) / MIB,
        NEEDED_MIB,
    )
}

fn enough(folder: &Path, free_mib: u64, needed_mib: u64) -> Result<(), String> {
    if free_mib >= needed_mib {
        return Ok(());
    }
    Err(format!(
        "{} is on a disk with {free_mib} MiB free, and the scenarios need {needed_mib} MiB; make room, \
         or set CARGO_TARGET_DIR to a folder on another disk",
        folder.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_little_room_is_told_in_numbers() {
        let folder = Path::new("/somewhere");
        assert_eq!(enough(folder, 10, 10), Ok(()));
        let told = enough(folder, 9, 10).unwrap_err();
        assert!(told.contains("/somewhere") && told.contains(" 9 MiB") && told.contains(" 10 MiB"));
    }

    #[test]
    fn what_is_not_there_is_told() {
        assert!(check(Path::new("/nowhere/at/all")).is_err());
    }
}
