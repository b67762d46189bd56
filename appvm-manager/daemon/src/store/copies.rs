//! A domain under another name: its copy, and itself.

use std::fs;

use bulkhead_protocol::DomainName;

use super::{Store, check_space, steps};
use crate::config::{DomainConfig, Kind};
use crate::pci::PciDevices;
use crate::store::change::{self, Change, Folder};
use crate::volumes::{self, HOME, copy};
use crate::{Error, Result};

impl Store {
    /// Makes a domain like `old`, with what is in its home, but none of its devices. May take long: a file system that
    /// cannot share blocks copies them.
    pub fn clone_domain(&self, old: &DomainName, new: &DomainName) -> Result<()> {
        let mut config = self.under_other_name(old, new)?;
        // A device cannot be in both.
        config.pci = PciDevices::default();
        let text = config.edit(&self.config_file(old), &self.text(old)?);
        let claim = self.claim(new)?;
        let home = self.home_file(old);
        // A home that was lost is made anew at the start, there as here.
        let has_home = !config.kind.forgets_home() && home.exists();
        check_space(&self.dirs.data, super::NEEDED_MIB)?;
        let root = config.kind.owns_root().then(|| self.root_dir(old));
        self.make(&claim, &text, |data| {
            if let Some(root) = root {
                volumes::root::copy(&root, data, &config)?;
                steps::done()?;
            }
            match has_home {
                true => copy::whole(&home, &data.join(HOME)),
                false if config.kind.forgets_home() => Ok(()),
                false => volumes::make(&data.join(HOME), config.home_size_mib),
            }
        })
    }

    /// Gives a domain another name, also where other domains speak of it.
    pub fn rename(&self, old: &DomainName, new: &DomainName) -> Result<()> {
        let config = self.under_other_name(old, new)?;
        let text = config.edit(&self.config_file(old), &self.text(old)?);
        let _claim = self.claim(new)?;
        self.clean_up(new);
        let file = |name: &DomainName| format!("{name}.toml");
        let mut prepared = Vec::new();
        let mut prepare = || {
            let mut change = Change::default();
            let mut replace = |name: &DomainName, text: &str| {
                prepared.push(name.clone());
                let hidden = change::prepare(&self.dirs, Folder::Config, &file(name), text)?;
                let moves = std::mem::take(&mut change);
                change = moves.rename(Folder::Config, hidden, file(name));
                Ok::<(), Error>(())
            };
            replace(new, &text)?;
            for other in self.names()?.iter().filter(|other| *other != old) {
                // A file that is wrong speaks of nobody.
                let Ok(mut config) = self.load(other) else {
                    continue;
                };
                let mut speaks_of_it = false;
                for name in [&mut config.default_disposable, &mut config.net_domain] {
                    if name.as_ref() == Some(old) {
                        *name = Some(new.clone());
                        speaks_of_it = true;
                    }
                }
                if speaks_of_it {
                    replace(
                        other,
                        &config.edit(&self.config_file(other), &self.text(other)?),
                    )?;
                }
            }
            Ok(change
                .remove(Folder::Config, file(old))
                .rename(Folder::Data, old.as_str(), new.as_str())
                .rename(Folder::Logs, old.as_str(), new.as_str()))
        };
        let renamed = prepare().and_then(|change: Change| change.apply(&self.dirs, new.as_str()));
        if !change::is_decided(&self.dirs, new.as_str()) {
            prepared.iter().for_each(|name| self.clean_up(name));
            self.clean_up(old);
        }
        renamed
    }

    fn text(&self, name: &DomainName) -> Result<String> {
        let file = self.config_file(name);
        fs::read_to_string(&file).map_err(Error::io("read", &file))
    }

    fn under_other_name(&self, old: &DomainName, new: &DomainName) -> Result<DomainConfig> {
        let mut config = self.load(old)?;
        if config.kind == Kind::Disposable {
            return Err(Error::Disposable {
                name: old.clone(),
                reason: "it goes with its last window and cannot become another domain",
            });
        }
        config.name = new.clone();
        if config.default_disposable.as_ref() == Some(old) {
            config.default_disposable = Some(new.clone());
        }
        Ok(config)
    }
}
