//! The device mapper's control device (`include/uapi/linux/dm-ioctl.h`): just enough to put
//! dm-verity in front of a partition and to ask how it is.

use std::{fs::File, io, os::fd::AsRawFd, path::Path};

const CONTROL: &str = "/dev/mapper/control";
const NAME_AT: usize = 48;
const NAME_BYTES: usize = 128;
const HEADER_BYTES: usize = 312;
const TARGET_BYTES: usize = 40;

const READ_ONLY: u32 = 1 << 0;

const DEVICE_CREATE: u8 = 3;
const DEVICE_SUSPEND: u8 = 6;
const TABLE_LOAD: u8 = 9;
const TABLE_STATUS: u8 = 12;

/// A device of the device mapper.
pub struct Mapped {
    control: File,
    name: &'static str,
    /// Its number: `/dev/dm-NUMBER`.
    minor: u32,
}

impl Mapped {
    /// Makes a read-only device `name` of one dm-verity target.
    pub fn verity(name: &'static str, sectors: u64, table: &str) -> io::Result<Self> {
        let control = File::options().read(true).write(true).open(CONTROL)?;
        let mut mapped = Self {
            control,
            name,
            minor: 0,
        };
        let made = mapped.call(DEVICE_CREATE, READ_ONLY, &[])?;
        // The kernel's huge_encode_dev: the minor number is in bits 0–7 and 20–31.
        let device = long(&made, 40);
        mapped.minor = u32::try_from((device & 0xff) | ((device >> 12) & 0x000f_ff00))
            .map_err(|_| io::ErrorKind::InvalidData)?;
        mapped.call(TABLE_LOAD, READ_ONLY, &target("verity", sectors, table))?;
        // "Suspend" without the flag for it resumes: from here on the device answers.
        mapped.call(DEVICE_SUSPEND, 0, &[])?;
        Ok(mapped)
    }

    /// The device's file.
    #[must_use]
    pub fn path(&self) -> std::path::PathBuf {
        Path::new("/dev").join(format!("dm-{}", self.minor))
    }

    /// Whether dm-verity has met a block that does not match its hash (its status is "C" then).
    pub fn is_corrupted(&self) -> io::Result<bool> {
        let answer = self.call(TABLE_STATUS, 0, &[0; 1024])?;
        let start = HEADER_BYTES + TARGET_BYTES;
        Ok(answer.get(start) == Some(&b'C'))
    }

    fn call(&self, command: u8, flags: u32, payload: &[u8]) -> io::Result<Vec<u8>> {
        let mut request = vec![0_u8; HEADER_BYTES];
        request.extend_from_slice(payload);
        let size = u32::try_from(request.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        // version 4.0.0: any later kernel understands it.
        for (at, value) in [
            (0, 4_u32),
            (12, size),
            (16, HEADER_BYTES as u32),
            (20, u32::from(!payload.is_empty() && command == TABLE_LOAD)),
            (28, flags),
        ] {
            request[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        let name = self.name.as_bytes();
        if name.len() >= NAME_BYTES {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        request[NAME_AT..NAME_AT + name.len()].copy_from_slice(name);
        // _IOWR(0xfd, command, struct dm_ioctl)
        let number =
            (3_u64 << 30) | ((HEADER_BYTES as u64) << 16) | (0xfd << 8) | u64::from(command);
        // SAFETY: the kernel reads and writes `data_size` bytes at the pointer, and `request` has
        // exactly that many.
        let result = unsafe { libc::ioctl(self.control.as_raw_fd(), number, request.as_mut_ptr()) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(request)
    }
}

fn long(bytes: &[u8], at: usize) -> u64 {
    let mut part = [0; 8];
    for (to, from) in part.iter_mut().zip(bytes.iter().skip(at)) {
        *to = *from;
    }
    u64::from_le_bytes(part)
}

/// A `struct dm_target_spec` and its text, padded to eight bytes.
fn target(kind: &str, sectors: u64, table: &str) -> Vec<u8> {
    let mut bytes = vec![0_u8; TARGET_BYTES];
    bytes[8..16].copy_from_slice(&sectors.to_le_bytes());
    bytes[24..24 + kind.len()].copy_from_slice(kind.as_bytes());
    bytes.extend_from_slice(table.as_bytes());
    bytes.push(0);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    let next = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    bytes[20..24].copy_from_slice(&next.to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_laid_out_as_the_kernel_reads_it() {
        let bytes = target("verity", 0x0102, "1 a b");
        assert_eq!(bytes.len() % 8, 0);
        assert_eq!(long(&bytes, 0), 0);
        assert_eq!(long(&bytes, 8), 0x0102);
        assert_eq!(&bytes[24..31], b"verity\0");
        assert_eq!(&bytes[40..46], b"1 a b\0");
        assert_eq!(bytes[20], bytes.len() as u8);
    }
}
