//! What a context knows by number: images that it asked about and memory that the compositor
//! sent. The same for every backend, so that each has the same limits.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use rustix::fs::{FileType, MemfdFlags, OFlags, SealFlags};
use rustix::io::Errno;

use super::super::resources::HostMemory;
use super::image::{Catalogue, Image, NoSuchImage};
use super::{BlobError, ContextError};
use crate::memory::host_window::PAGE_SIZE;

/// Before the first read pipe's number; all other numbers are smaller.
pub const READ_PIPE_START: u32 = 0x8000_0000;
/// Pipes of either direction that a context may have at a time.
pub const MAX_PIPES: usize = 64;
/// Memory objects from the compositor that the guest has not made blobs of.
const MAX_RECEIVED: usize = 64;

/// What a descriptor of the compositor's is for a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// Memory of so many bytes.
    Memory(u32),
    /// A pipe to write to.
    WritePipe,
}

/// What `fd` is, if guests can use it.
pub fn classify(fd: &OwnedFd) -> Result<Received, ContextError> {
    let unsupported = |_| ContextError::UnsupportedDescriptor;
    let stat = rustix::fs::fstat(fd).map_err(unsupported)?;
    let access = rustix::fs::fcntl_getfl(fd).map_err(unsupported)? & OFlags::RWMODE;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile if access != OFlags::WRONLY => u32::try_from(stat.st_size)
            .map(Received::Memory)
            .map_err(|_| ContextError::UnsupportedDescriptor),
        FileType::Fifo if access == OFlags::WRONLY => Ok(Received::WritePipe),
        _ => Err(ContextError::UnsupportedDescriptor),
    }
}

/// Images and memory by number.
#[derive(Debug)]
pub struct Objects {
    /// The last number given to an image, memory object or write pipe.
    last: u32,
    images: Catalogue,
    received: BTreeMap<u32, (OwnedFd, u64)>,
}

impl Default for Objects {
    fn default() -> Self {
        Self {
            last: 1,
            images: Catalogue::default(),
            received: BTreeMap::new(),
        }
    }
}

impl Objects {
    /// A number that neither an object nor a pipe has. It wraps after two thousand million.
    pub fn next_number(&mut self, is_pipe: impl Fn(u32) -> bool) -> u32 {
        loop {
            self.last = match self.last {
                last if last >= READ_PIPE_START - 1 => 2,
                last => last + 1,
            };
            if !self.is_object(self.last) && !is_pipe(self.last) {
                return self.last;
            }
        }
    }

    fn is_object(&self, number: u32) -> bool {
        self.received.contains_key(&number) || self.images.get(number).is_some()
    }

    /// The answer to a question about an image, the number included.
    pub fn requirements(
        &mut self,
        image: Image,
        is_pipe: impl Fn(u32) -> bool,
    ) -> Result<[u8; 64], NoSuchImage> {
        image.layout()?;
        let number = match self.images.number_of(image) {
            Some(number) => number,
            None => {
                let number = self.next_number(is_pipe);
                self.images.remember(number, image);
                number
            }
        };
        image.requirements(number)
    }

    /// Keeps memory of the compositor's until the guest makes a blob of it.
    pub fn keep(&mut self, number: u32, fd: OwnedFd, bytes: u32) {
        if self.received.len() >= MAX_RECEIVED {
            // The guest made no blob of it for a long time: it does not want it.
            self.received.pop_first();
        }
        self.received.insert(number, (fd, u64::from(bytes)));
    }

    /// Whether a number that is no pipe now may have been one.
    pub fn may_have_been_pipe(&self, number: u32) -> bool {
        number > 1 && number <= self.last && !self.is_object(number)
    }

    /// Memory for a blob: of an image asked about before, or what the compositor sent.
    pub fn create_blob(&mut self, untrusted_id: u64, size: u64) -> Result<HostMemory, BlobError> {
        let unknown = BlobError::Unknown(untrusted_id);
        let Ok(number) = u32::try_from(untrusted_id) else {
            return Err(unknown);
        };
        if let Some(image) = self.images.get(number) {
            let (_, object) = image.layout().map_err(|_| unknown)?;
            if size != object {
                return Err(BlobError::Size {
                    object,
                    wanted: size,
                });
            }
            return Ok(allocate(size)?);
        }
        let Some((_, bytes)) = self.received.get(&number) else {
            return Err(unknown);
        };
        let object = bytes.next_multiple_of(PAGE_SIZE);
        if size > object {
            return Err(BlobError::Size {
                object,
                wanted: size,
            });
        }
        match self.received.remove(&number) {
            Some((fd, _)) => Ok(HostMemory {
                fd,
                // Nothing in Wayland asks a client to write into the compositor's memory.
                writable: false,
            }),
            None => Err(unknown),
        }
    }

    /// Gives up memory of the compositor's.
    pub fn clear(&mut self) {
        self.received.clear();
    }
}

/// Zeroed memory of a fixed size, so that the compositor may rely on it.
fn allocate(size: u64) -> Result<HostMemory, Errno> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = rustix::fs::memfd_create("bulkhead-blob", flags)?;
    rustix::fs::ftruncate(&fd, size)?;
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&fd, seals)?;
    Ok(HostMemory { fd, writable: true })
}
