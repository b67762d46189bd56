//! The D-Bus interface `org.bulkhead.Domains1`: copies, names, settings and snapshots of domains,
//! and plans over all of them. On the same object as `org.bulkhead.Manager1`.

use std::sync::Arc;

use zbus::interface;

use super::convert::{self, Dict, Result, flag_options, text, texts};
use crate::manager::Manager;
use crate::plan::{Plan, Source, Step};
use crate::settings::Difference;

/// The interface on the bus.
pub struct Domains {
    manager: Arc<Manager>,
}

impl Domains {
    /// In front of this manager.
    pub fn new(manager: Arc<Manager>) -> Self {
        Domains { manager }
    }
}

#[interface(name = "org.bulkhead.Domains1")]
impl Domains {
    /// Makes a domain like `old`, which does not run, with what is in its home.
    async fn clone_domain(&self, old: &str, new: &str) -> Result<()> {
        let (old, new) = (old.parse()?, new.parse()?);
        Ok(self.manager.clone_domain(&old, &new).await?)
    }

    /// Gives a domain that does not run another name; other domains' settings follow.
    async fn rename_domain(&self, old: &str, new: &str) -> Result<()> {
        let (old, new) = (old.parse()?, new.parse()?);
        Ok(self.manager.rename_domain(&old, &new).await?)
    }

    /// All settings of a domain: label, kind, template, default_disposable, net_domain,
    /// provides_network (yes or no), gpu_backend (s);
    /// memory_mib, cpus, home_size_mib, snapshots, stop_timeout_s (u); tags and pci (as).
    #[zbus(out_args("settings"))]
    async fn get_settings(&self, name: &str) -> Result<Dict> {
        let settings = self.manager.settings(&name.parse()?)?;
        let entry = |(key, value): &(&str, _)| ((*key).to_owned(), convert::setting(value));
        Ok(settings.iter().map(entry).collect())
    }

    /// Changes settings of a domain, all or none; they count from its next start (but a card that
    /// it has leads to another net_domain at once). Numbers and lists may also be text.
    /// Gives what changed: keys, old and new, as people read them.
    #[zbus(out_args("changes"))]
    async fn set_settings(&self, name: &str, settings: Dict) -> Result<Dict> {
        let settings = convert::settings(settings)?;
        let differences = self.manager.change_settings(&name.parse()?, settings)?;
        Ok(changes(&differences))
    }

    /// The snapshots of a domain's home, the newest first: number (u), taken_s (t, seconds since
    /// 1970), disk_bytes (t).
    #[zbus(out_args("snapshots"))]
    async fn list_snapshots(&self, name: &str) -> Result<Vec<Dict>> {
        let snapshots = self.manager.snapshots(&name.parse()?)?;
        let describe = |snapshot: &crate::volumes::snapshots::Snapshot| {
            Dict::from([
                ("number".into(), snapshot.number.into()),
                ("taken_s".into(), snapshot.taken_s.into()),
                ("disk_bytes".into(), snapshot.disk_bytes.into()),
            ])
        };
        Ok(snapshots.iter().map(describe).collect())
    }

    /// Puts a snapshot (0: the newest) in the place of the home of a domain that does not run.
    /// What was in the home is lost. Gives the snapshot's number.
    #[zbus(out_args("number"))]
    async fn revert_domain(&self, name: &str, number: u32) -> Result<u32> {
        let number = (number > 0).then_some(number);
        Ok(self.manager.revert(&name.parse()?, number).await?)
    }

    /// What is to do so that the domains are as files (name and text of each) describe them.
    /// Options: prune (b): domains that no file speaks of are removed. Gives the plan's id and its
    /// steps: domain, action (s: create, change, unchanged, remove), running (b), keys, old, new
    /// (as).
    #[zbus(out_args("id", "steps"))]
    async fn plan(
        &self,
        files: Vec<(String, String)>,
        options: Dict,
    ) -> Result<(String, Vec<Dict>)> {
        let [prune] = flag_options(options, ["prune"])?;
        let plan = self.manager.plan(&sources(files), prune)?;
        Ok((plan.id(), steps(&plan)))
    }

    /// Carries out the plan of this id, or nothing where the plan is another one by now.
    #[zbus(out_args("steps"))]
    async fn apply(
        &self,
        files: Vec<(String, String)>,
        options: Dict,
        id: &str,
    ) -> Result<Vec<Dict>> {
        let [prune] = flag_options(options, ["prune"])?;
        let plan = self.manager.carry_out(&sources(files), prune, id).await?;
        Ok(steps(&plan))
    }
}

fn sources(files: Vec<(String, String)>) -> Vec<Source> {
    let source = |(file, text)| Source { file, text };
    files.into_iter().map(source).collect()
}

fn changes(differences: &[Difference]) -> Dict {
    let column = |of: fn(&Difference) -> &str| {
        let words: Vec<String> = differences.iter().map(|d| of(d).to_owned()).collect();
        texts(&words)
    };
    Dict::from([
        ("keys".into(), column(|d| d.key)),
        ("old".into(), column(|d| &d.old)),
        ("new".into(), column(|d| &d.new)),
    ])
}

fn steps(plan: &Plan) -> Vec<Dict> {
    let describe = |step: &Step| {
        let mut dict = changes(&step.differences);
        dict.insert("domain".into(), text(step.config.name.as_str()));
        dict.insert("action".into(), text(step.action.name()));
        dict.insert("running".into(), step.running.into());
        dict
    };
    plan.steps.iter().map(describe).collect()
}
