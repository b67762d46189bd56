//! Which devices are kept, also over the machine's restarts.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bulkhead_vmm_api::PciAddress;

use crate::device::{DeviceError, Host, Identity};

/// So many devices have all domains together.
pub const MAX_DEVICES: usize = 256;

/// What is kept, and where that is written down.
#[derive(Debug)]
pub struct Kept {
    host: Host,
    file: PathBuf,
    devices: BTreeMap<PciAddress, Identity>,
    /// Those on their way back to the host.
    leaving: Arc<Mutex<BTreeSet<PciAddress>>>,
}

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum KeptError {
    /// It cannot be written down.
    #[error("{file}: {1}", file = .0.display())]
    File(PathBuf, io::Error),
    /// What was written down cannot be read.
    #[error("{file} cannot be read ({1}); delete it and give the devices again", file = .0.display())]
    Unreadable(PathBuf, String),
}

impl Kept {
    /// What was kept before, as the file says.
    pub fn open(host: Host, file: PathBuf) -> Result<Self, KeptError> {
        let devices = match fs::read(&file) {
            Ok(text) => serde_json::from_slice(&text)
                .map_err(|error| KeptError::Unreadable(file.clone(), error.to_string()))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(KeptError::File(file, error)),
        };
        Ok(Kept {
            host,
            file,
            devices,
            leaving: Arc::default(),
        })
    }

    /// Takes everything again that was kept before. What is not there, or another device now, is left
    /// alone and said.
    pub fn again(&self) -> Vec<DeviceError> {
        let take = |(address, identity): (&PciAddress, &Identity)| {
            let checked = self.host.check(*address, Some(identity));
            checked.and_then(|_| self.host.take(*address)).err()
        };
        self.devices.iter().filter_map(take).collect()
    }

    /// Keeps these devices and gives back those that were kept and are not among them. What is wrong
    /// with one does not touch the others.
    pub fn keep(
        &mut self,
        wanted: &[PciAddress],
    ) -> Result<BTreeMap<PciAddress, Result<(), DeviceError>>, KeptError> {
        let mut results = BTreeMap::new();
        let mut devices = BTreeMap::new();
        for address in wanted {
            let meant = self.devices.get(address);
            if lock(&self.leaving).contains(address) {
                results.insert(*address, Err(DeviceError::Leaving(*address)));
                continue;
            }
            match self.host.check(*address, meant) {
                Ok(identity) => drop(devices.insert(*address, identity)),
                Err(error) => {
                    // It may come back; until then it is still the one that is meant.
                    if let Some(meant) = meant {
                        devices.insert(*address, meant.clone());
                    }
                    results.insert(*address, Err(error));
                }
            }
        }
        // First, so that nothing is taken that a restart would forget.
        self.write(&devices)?;
        let before = std::mem::replace(&mut self.devices, devices);
        for address in before.keys().filter(|address| !wanted.contains(address)) {
            let (host, address, leaving) = (self.host.clone(), *address, self.leaving.clone());
            lock(&leaving).insert(address);
            // A guest may have it for a long time yet.
            std::thread::spawn(move || {
                if let Err(error) = host.give_back(address) {
                    tracing::error!(%error, "not given back");
                }
                lock(&leaving).remove(&address);
            });
        }
        for address in wanted {
            results
                .entry(*address)
                .or_insert_with(|| self.host.take(*address));
        }
        Ok(results)
    }

    fn write(&self, devices: &BTreeMap<PciAddress, Identity>) -> Result<(), KeptError> {
        let failed = |error| KeptError::File(self.file.clone(), error);
        let draft = self.file.with_extension("new");
        let written = (|| {
            if let Some(folder) = self.file.parent() {
                fs::create_dir_all(folder)?;
            }
            let mut file = fs::File::create(&draft)?;
            file.write_all(&serde_json::to_vec(devices)?)?;
            file.sync_all()?;
            fs::rename(&draft, &self.file)
        })();
        written.map_err(failed)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::tests::{host, now_has};

    fn address(text: &str) -> PciAddress {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_kept_is_kept_again_as_long_as_it_is_the_same() {
        let (root, host) = host(&[
            ("0000:01:00.0", "0x020000\n", true),
            ("0000:02:00.0", "0x010802\n", true),
        ]);
        let file = root.path().join("state/kept.json");
        let (card, disk) = (address("0000:01:00.0"), address("0000:02:00.0"));
        // As if the kernel had done it at once.
        now_has(&host, "0000:01:00.0", "vfio-pci");
        let mut kept = Kept::open(host.clone(), file.clone()).unwrap();
        let results = kept.keep(&[card, disk]).unwrap();
        assert!(results[&card].is_ok());
        assert!(matches!(results[&disk], Err(DeviceError::Class(..))));
        let again = Kept::open(host.clone(), file.clone()).unwrap();
        assert_eq!(again.devices.keys().collect::<Vec<_>>(), [&card]);
        assert!(again.again().is_empty());
        // Another card in the same place.
        let folder = host.sys.join("bus/pci/devices/0000:01:00.0");
        fs::write(folder.join("device"), "0x15f3\n").unwrap();
        let errors = again.again();
        assert!(
            matches!(errors[..], [DeviceError::Changed(..)]),
            "{errors:?}"
        );
        let mut again = Kept::open(host.clone(), file.clone()).unwrap();
        assert!(again.keep(&[card]).unwrap()[&card].is_err());
        // Taken from its domain and given again it is the right one.
        again.keep(&[]).unwrap();
        while !lock(&again.leaving).is_empty() {
            std::thread::yield_now();
        }
        now_has(&host, "0000:01:00.0", "vfio-pci");
        assert!(again.keep(&[card]).unwrap()[&card].is_ok());
        fs::write(&file, "{").unwrap();
        let error = Kept::open(host, file).unwrap_err().to_string();
        assert!(error.contains("delete it"), "{error}");
    }
}
