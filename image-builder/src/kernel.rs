//! Debian's stock kernel: fetched, unpacked, and turned into the ELF file that PVH boots.
//!
//! The compressed kernel carries its own decompressor, which costs an emulated machine seconds of
//! every boot; so we take the ELF payload out once, when the image is built.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Stdio,
};

use crate::{
    apt::{Apt, Mirror},
    command::{program, run},
    error::{Error, io},
};

/// The package whose first dependency is the current kernel. The `cloud` flavour has no DRM.
const META_PACKAGE: &str = "linux-image-amd64";

/// Why a kernel package is of no use.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The boot image is not laid out as the x86 boot protocol says.
    #[error("{path} is not an x86 boot image: {reason}")]
    NotABootImage {
        /// The image.
        path: PathBuf,
        /// What is wrong.
        reason: &'static str,
    },
    /// The package lacks a file.
    #[error("kernel package {package} has no {what}")]
    Incomplete {
        /// The package.
        package: String,
        /// What is missing.
        what: &'static str,
    },
}

/// An unpacked kernel.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// As in `uname -r`.
    pub version: String,
    /// The ELF file.
    pub vmlinux: PathBuf,
    /// The compressed image that firmware starts.
    pub boot_image: PathBuf,
    /// `lib/modules/VERSION`.
    pub modules: PathBuf,
}

/// Fetches the current kernel of `suite`, or uses the one fetched earlier unless `refresh`.
pub fn fetch(cache: &Path, mirror: &Mirror, suite: &str, refresh: bool) -> Result<Kernel, Error> {
    let current = cache.join(format!("kernel-{suite}"));
    if !refresh && let Some(kernel) = opened(&current)? {
        return Ok(kernel);
    }
    tracing::info!("kernel: fetching {META_PACKAGE} of {suite}");
    fs::create_dir_all(cache).map_err(io("creating", cache))?;
    let apt = Apt::open(&cache.join(format!("apt-{suite}")), mirror, suite)?;
    let package = apt.dependency(META_PACKAGE, "linux-image-")?;
    let work = tempfile::tempdir_in(cache).map_err(io("creating a folder in", cache))?;
    let file = apt.download(&package, work.path())?;
    let tree = work.path().join("tree");
    run(
        program("dpkg-deb", "dpkg")?.arg("-x").arg(&file).arg(&tree),
        "unpacking the kernel",
    )?;

    let incomplete = |what| {
        Error::from(KernelError::Incomplete {
            package: package.clone(),
            what,
        })
    };
    let modules = ["usr/lib/modules", "lib/modules"]
        .iter()
        .find_map(|folder| only_entry(&tree.join(folder)))
        .ok_or_else(|| incomplete("lib/modules"))?;
    let version = modules
        .file_name()
        .and_then(|name| name.to_str())
        .ok_or_else(|| incomplete("version"))?
        .to_owned();
    let boot_image = tree.join("boot").join(format!("vmlinuz-{version}"));
    if !boot_image.exists() {
        return Err(incomplete("boot image"));
    }

    let made = work.path().join("made");
    fs::create_dir(&made).map_err(io("creating", &made))?;
    extract_elf(&boot_image, &made.join("vmlinux"))?;
    let kept = made.join("vmlinuz");
    fs::rename(&boot_image, &kept).map_err(io("moving", &boot_image))?;
    let new_modules = made.join("modules");
    fs::create_dir(&new_modules).map_err(io("creating", &new_modules))?;
    let new_modules = new_modules.join(&version);
    fs::rename(&modules, &new_modules).map_err(io("moving", &modules))?;
    if current.exists() {
        fs::remove_dir_all(&current).map_err(io("removing", &current))?;
    }
    fs::rename(&made, &current).map_err(io("moving", &made))?;
    opened(&current)?.ok_or_else(|| incomplete("vmlinux"))
}

fn opened(folder: &Path) -> Result<Option<Kernel>, Error> {
    let Some(modules) = only_entry(&folder.join("modules")) else {
        return Ok(None);
    };
    let Some(version) = modules
        .file_name()
        .and_then(|name| name.to_str())
        .map(str::to_owned)
    else {
        return Ok(None);
    };
    let (vmlinux, boot_image) = (folder.join("vmlinux"), folder.join("vmlinuz"));
    let whole = vmlinux.exists() && boot_image.exists();
    Ok(whole.then_some(Kernel {
        version,
        vmlinux,
        boot_image,
        modules,
    }))
}

fn only_entry(folder: &Path) -> Option<PathBuf> {
    fs::read_dir(folder)
        .ok()?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.is_dir())
}

/// Writes the ELF file that the boot image `image` carries.
fn extract_elf(image: &Path, to: &Path) -> Result<(), Error> {
    let bytes = fs::read(image).map_err(io("reading", image))?;
    let payload = payload(&bytes).map_err(|reason| KernelError::NotABootImage {
        path: image.to_path_buf(),
        reason,
    })?;
    let mut decompress = match payload {
        [0x28, 0xb5, 0x2f, 0xfd, ..] => program("zstd", "zstd")?,
        [0xfd, b'7', b'z', b'X', b'Z', ..] => program("xz", "xz-utils")?,
        _ => {
            let reason = "its payload is neither zstd nor xz";
            return Err(KernelError::NotABootImage {
                path: image.to_path_buf(),
                reason,
            }
            .into());
        }
    };
    let partial = to.with_extension("partial");
    let output = fs::File::create(&partial).map_err(io("creating", &partial))?;
    let mut child = decompress
        .args(["-d", "-c", "-q"])
        .stdin(Stdio::piped())
        .stdout(output)
        .stderr(Stdio::null())
        .spawn()
        .map_err(io("decompressing", image))?;
    if let Some(mut stdin) = child.stdin.take() {
        // The payload ends with its unpacked size, which the program calls garbage and which may
        // make it close the pipe early: what counts is the ELF file that comes out.
        let _ = stdin.write_all(payload);
    }
    child.wait().map_err(io("decompressing", image))?;
    let mut magic = [0_u8; 4];
    let written = fs::File::open(&partial)
        .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut magic));
    if written.is_err() || magic != *b"\x7fELF" {
        let reason = "its payload is not an ELF file";
        return Err(KernelError::NotABootImage {
            path: image.to_path_buf(),
            reason,
        }
        .into());
    }
    fs::rename(&partial, to).map_err(io("moving", &partial))
}

/// The compressed payload, found through the setup header of the x86 boot protocol
/// (`Documentation/arch/x86/boot.rst`: setup_sects, payload_offset, payload_length).
fn payload(image: &[u8]) -> Result<&[u8], &'static str> {
    let word = |at: usize| -> Option<usize> {
        let bytes: [u8; 4] = image.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    if image.get(0x202..0x206) != Some(b"HdrS".as_slice()) {
        return Err("no setup header");
    }
    let setup_sectors = match image.get(0x1f1) {
        Some(0) => 4,
        Some(count) => usize::from(*count),
        None => return Err("too short"),
    };
    let offset = word(0x248).ok_or("too short")?;
    let length = word(0x24c).ok_or("too short")?;
    let start = (setup_sectors + 1) * 512;
    let start = start.checked_add(offset).ok_or("payload out of range")?;
    // The last four bytes are the unpacked size, not part of the stream.
    let end = start
        .checked_add(length.saturating_sub(4))
        .ok_or("payload out of range")?;
    image.get(start..end).ok_or("payload out of range")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(payload_offset: u32, payload_length: u32) -> Vec<u8> {
        let mut image = vec![0_u8; 1024 + 64];
        image[0x1f1] = 1;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x248..0x24c].copy_from_slice(&payload_offset.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&payload_length.to_le_bytes());
        image[1024 + 16] = 42;
        image
    }

    #[test]
    fn the_payload_is_found_without_its_size() {
        assert_eq!(payload(&image(16, 12)).unwrap(), [42, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn broken_images_are_refused() {
        assert!(payload(&image(16, 4096)).is_err());
        assert!(payload(&image(u32::MAX, u32::MAX)).is_err());
        assert!(payload(&[0; 100]).is_err());
        assert!(payload(&[]).is_err());
    }
}
