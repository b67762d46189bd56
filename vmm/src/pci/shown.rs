//! Configuration space that a guest reads without leaving for the VMM: behind a function's page of the
//! ECAM area lies a page of memory that KVM lets the guest read. Writes still arrive here, and the page
//! then shows what the function says.
//!
//! That needs a function whose reads only tell what is there. One that has just been told to do
//! something when it is read is hidden: from then on each access is an exit, as without a page.

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use super::config_space::SIZE;
use super::root::PciFunction;

/// Size of a function's part of the ECAM area (PCI Express 5.0, 7.2.2).
pub const PAGE: usize = 4096;

/// A function's page. The guest reads it at any time; only this process writes it.
pub struct ConfigPage {
    page: NonNull<AtomicU32>,
    /// Takes the page from the guest.
    hide: Option<Box<dyn FnOnce() + Send>>,
}

// SAFETY: the page is accessed atomically only, and lives as long as this.
unsafe impl Send for ConfigPage {}

impl ConfigPage {
    /// A page of zeroes, which no guest sees yet.
    ///
    /// # Errors
    ///
    /// There is no memory.
    pub fn new() -> io::Result<Self> {
        // SAFETY: a fresh mapping at an address that the kernel chooses; nothing is replaced.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                PAGE,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        match NonNull::new(address.cast()) {
            Some(page) if address != libc::MAP_FAILED => Ok(Self { page, hide: None }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Where the page lies in this process, for the KVM memory slot.
    pub fn host_address(&self) -> u64 {
        self.page.as_ptr() as u64
    }

    /// Tells that a guest sees the page until `hide` has run. The page must stay for as long as it does.
    pub fn is_shown(&mut self, hide: impl FnOnce() + Send + 'static) {
        self.hide = Some(Box::new(hide));
    }

    /// Makes the page say what the function says, or takes it away from the guest.
    pub fn follow(&mut self, function: &mut dyn PciFunction) {
        if !function.reads_only_tell() {
            if let Some(hide) = self.hide.take() {
                hide();
            }
            return;
        }
        // What lies above is zero in every function here.
        for (index, word) in self.words().iter().enumerate().take(SIZE / 4) {
            let mut bytes = [0; 4];
            function.read_config(index * 4, &mut bytes);
            word.store(u32::from_le_bytes(bytes), Ordering::Release);
        }
    }

    fn words(&self) -> &[AtomicU32] {
        // SAFETY: the mapping has this size and alignment, lives as long as `self`, starts as zeroes,
        // and is never accessed in another way by this process.
        unsafe { std::slice::from_raw_parts(self.page.as_ptr(), PAGE / 4) }
    }
}

impl Drop for ConfigPage {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, has this size, and nothing refers to it any more: the owner keeps
        // it for as long as a guest may see it.
        unsafe { libc::munmap(self.page.as_ptr().cast(), PAGE) };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    /// A register of four bytes that counts its reads where that is asked for.
    struct Register {
        value: u32,
        has_effects: bool,
    }
    impl PciFunction for Register {
        fn read_config(&mut self, offset: usize, data: &mut [u8]) {
            assert!(!self.has_effects, "read for no guest");
            if offset == 8 {
                data.copy_from_slice(&self.value.to_le_bytes());
            }
        }
        fn write_config(&mut self, _offset: usize, _data: &[u8]) {}
        fn reads_only_tell(&self) -> bool {
            !self.has_effects
        }
    }

    #[test]
    fn a_page_follows_its_function_until_reading_has_effects() {
        let mut page = ConfigPage::new().unwrap();
        let hidden = Arc::new(AtomicUsize::new(0));
        let counter = hidden.clone();
        page.is_shown(move || {
            counter.fetch_add(1, Ordering::Relaxed);
        });
        let mut register = Register {
            value: 7,
            has_effects: false,
        };
        let shown = |page: &ConfigPage| -> Vec<u32> {
            let words = page.words().iter();
            words.map(|word| word.load(Ordering::Acquire)).collect()
        };
        page.follow(&mut register);
        register.value = 9;
        page.follow(&mut register);
        let words = shown(&page);
        assert_eq!(words.len(), PAGE / 4);
        assert_eq!(words[2], 9);
        assert_eq!(words.iter().sum::<u32>(), 9);
        register.has_effects = true;
        page.follow(&mut register);
        page.follow(&mut register);
        assert_eq!(hidden.load(Ordering::Relaxed), 1);
    }
}
