//! What people do with domains that do not run: copies, other names, settings, snapshots.

use std::fs::File;
use std::sync::Arc;

use bulkhead_protocol::DomainName;

use crate::config::{DomainConfig, Kind};
use crate::domain::Domain;
use crate::manager::{Event, Manager};
use crate::settings::{self, Difference, Setting, check_name, configure};
use crate::store::Store;
use crate::volumes::snapshots::{Snapshot, Taken};
use crate::{Error, Result};

impl Manager {
    /// Makes a domain that a person asks for.
    pub async fn create_for_person(self: &Arc<Self>, config: &DomainConfig) -> Result<()> {
        check_name(&config.name)?;
        self.check_new(None, config, &[])?;
        self.check_net(&[config])?;
        self.create(config).await
    }

    /// Removes a domain that no other one names.
    pub async fn remove_unused(&self, name: &DomainName) -> Result<()> {
        let users: Vec<String> = self
            .store
            .names()?
            .into_iter()
            .filter(|other| other != name)
            .filter(|other| {
                let config = self.store.load(other);
                config.is_ok_and(|config| config.default_disposable.as_ref() == Some(name))
            })
            .map(|other| format!("`{other}`"))
            .collect();
        if !users.is_empty() {
            return Err(Error::Setting(format!(
                "domain `{name}` is the default_disposable of {}; change that first with \
                 `bulkhead prefs`",
                users.join(", ")
            )));
        }
        self.check_no_net_users(name)?;
        self.remove(name).await
    }

    /// Whether `new` can be what becomes of `old`, or a new domain. `planned` are names that will
    /// exist by then.
    pub(crate) fn check_new(
        &self,
        old: Option<&DomainConfig>,
        new: &DomainConfig,
        planned: &[DomainName],
    ) -> Result<()> {
        if let Some(old) = old {
            if old.kind == Kind::Disposable {
                return Err(Error::Disposable {
                    name: old.name.clone(),
                    reason: "its settings are those of the domain that it was made from",
                });
            }
            if old.kind != new.kind {
                return Err(Error::Setting(format!(
                    "the kind of domain `{}` cannot change: what would become of its home? Make \
                     another with `bulkhead create --kind {}`",
                    old.name,
                    new.kind.name()
                )));
            }
            self.store.check_home_size(new)?;
            if new.kind.owns_root() && old.template != new.template {
                return Err(Error::Setting(format!(
                    "the template of standalone domain `{}` cannot change: its root is a copy of \
                     `{}` with what was changed in it since; make another domain",
                    old.name, old.template
                )));
            }
        }
        if old.is_none_or(|old| old.template != new.template) {
            self.images.check_template(&new.template)?;
        }
        match &new.default_disposable {
            Some(model)
                if old.and_then(|old| old.default_disposable.as_ref()) != Some(model)
                    && *model != new.name
                    && !planned.contains(model) =>
            {
                // Its settings are read when a disposable is made of it.
                if self.store.load(model)?.kind == Kind::Disposable {
                    return Err(Error::Disposable {
                        name: model.clone(),
                        reason: "name one that stays as default_disposable",
                    });
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// All settings of a domain.
    pub fn settings(&self, name: &DomainName) -> Result<Vec<(&'static str, Setting)>> {
        Ok(settings::all(&self.store.load(name)?))
    }

    /// Changes settings of a domain, all or none. They count from its next start; only a card that
    /// it has leads to another `net_domain` at once. Gives what is different now.
    pub fn change_settings(
        self: &Arc<Self>,
        name: &DomainName,
        changes: impl IntoIterator<Item = (String, Setting)>,
    ) -> Result<Vec<Difference>> {
        let old = self.store.load(name)?;
        let new = configure(old.clone(), changes)?;
        self.check_new(Some(&old), &new, &[])?;
        let concerns = |config: &DomainConfig| {
            let net = (config.net_domain.clone(), config.provides_network);
            (net, config.pci.clone())
        };
        if concerns(&old) != concerns(&new) {
            self.check_net(&[&new])?;
        }
        self.save(&old, &new)
    }

    pub(crate) fn save(
        self: &Arc<Self>,
        old: &DomainConfig,
        new: &DomainConfig,
    ) -> Result<Vec<Difference>> {
        let differences = settings::differences(old, new);
        if !differences.is_empty() {
            self.store.save(new)?;
            self.net_settings_changed(Some(old), new);
            tracing::info!(domain = %new.name, changes = differences.len(), "settings");
            self.tell(Event::Applications);
        }
        Ok(differences)
    }

    /// Makes a domain like one that does not run, with what is in its home.
    pub async fn clone_domain(&self, old: &DomainName, new: &DomainName) -> Result<()> {
        check_name(new)?;
        let (from, to) = (old.clone(), new.clone());
        self.at_rest(old, move |store| store.clone_domain(&from, &to))
            .await?;
        tracing::info!(domain = %new, from = %old, "cloned");
        self.tell(Event::Added(new.clone()));
        self.tell(Event::Applications);
        Ok(())
    }

    /// Gives a domain that does not run another name.
    pub async fn rename_domain(&self, old: &DomainName, new: &DomainName) -> Result<()> {
        check_name(new)?;
        let domain = self.domain(old)?;
        let _nobody_starts_it = self.locked_at_rest(&domain)?;
        self.store.rename(old, new)?;
        self.forget(old);
        tracing::info!(domain = %new, from = %old, "renamed");
        self.tell(Event::Removed(old.clone()));
        self.tell(Event::Added(new.clone()));
        self.tell(Event::Applications);
        Ok(())
    }

    /// The snapshots of a domain's home, the newest first.
    pub fn snapshots(&self, name: &DomainName) -> Result<Vec<Snapshot>> {
        self.domain(name)?;
        self.store.snapshots(name)
    }

    /// Puts a snapshot in the place of the home of a domain that does not run.
    pub async fn revert(&self, name: &DomainName, number: Option<u32>) -> Result<u32> {
        let of = name.clone();
        let number = self
            .at_rest(name, move |store| store.revert(&of, number))
            .await?;
        tracing::info!(domain = %name, number, "reverted");
        Ok(number)
    }

    fn locked_at_rest<'a>(&self, domain: &'a Domain) -> Result<tokio::sync::MutexGuard<'a, ()>> {
        let running = || Error::StillRunning(domain.name.clone());
        // Whoever holds it starts the domain, or does what takes a while.
        let guard = match domain.transition.try_lock() {
            Ok(guard) => guard,
            Err(_) if domain.state.borrow().is_active() => return Err(running()),
            Err(_) => return Err(Error::Busy(domain.name.clone())),
        };
        if domain.machine().is_some() {
            return Err(running());
        }
        Ok(guard)
    }

    /// Does something on a thread of its own while a domain cannot be started.
    async fn at_rest<T: Send + 'static>(
        &self,
        name: &DomainName,
        work: impl FnOnce(Store) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let domain = self.domain(name)?;
        let _nobody_starts_it = self.locked_at_rest(&domain)?;
        let store = self.store.clone();
        let done = tokio::task::spawn_blocking(move || work(store)).await;
        done.unwrap_or_else(|error| Err(failed(name, &error)))
    }

    /// Makes a snapshot of the home of a domain that is about to start. A start does not fail
    /// for want of one.
    pub(crate) async fn snapshot_home(
        &self,
        domain: &Arc<Domain>,
        config: &DomainConfig,
        home: &File,
    ) {
        if config.kind.forgets_home() {
            return domain.set_snapshot_problem(String::new());
        }
        let name = domain.name.clone();
        let taken = match home.try_clone() {
            Ok(home) => {
                let (store, of, keep) = (self.store.clone(), name.clone(), config.snapshots);
                let take = move || store.take_snapshot(&of, &home, keep);
                let taken = tokio::task::spawn_blocking(take).await;
                taken.unwrap_or_else(|error| Err(failed(&name, &error)))
            }
            Err(error) => Err(failed(&name, &error)),
        };
        let problem = match taken {
            Ok(Taken::Made(number)) => {
                tracing::debug!(domain = %name, number, "a snapshot of its home");
                String::new()
            }
            Ok(Taken::NotNeeded) => String::new(),
            Ok(Taken::Impossible(reason)) => {
                tracing::info!(domain = %name, reason, "no snapshot of its home");
                reason
            }
            Err(error) => {
                tracing::warn!(domain = %name, %error, "no snapshot of its home");
                error.to_string()
            }
        };
        domain.set_snapshot_problem(problem);
    }
}

fn failed(name: &DomainName, error: &dyn std::error::Error) -> Error {
    Error::Volume {
        name: name.clone(),
        reason: error.to_string(),
    }
}
