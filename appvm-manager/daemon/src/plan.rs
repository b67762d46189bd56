//! Domains as files say they should be (`bulkhead apply`): what is to do is a plan, which is shown
//! before it is carried out, and which is empty once it has been.
//!
//! A file is one domain's own, or holds `[[domain]]` tables. What it does not say of a domain is
//! left as it is; a new domain gets the default.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use bulkhead_protocol::{DomainName, Label};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::config::DomainConfig;
use crate::manager::{Event, Manager};
use crate::settings::{self, Difference, Setting, check_name, configure};
use crate::{Error, Result};

/// More than this is no description of domains.
const MAX_BYTES: usize = 1024 * 1024;
/// The most domains in one plan.
const MAX_DOMAINS: usize = 256;

/// A file, as its reader found it.
#[derive(Debug, Clone)]
pub struct Source {
    /// Its name, for messages.
    pub file: String,
    /// What is in it.
    pub text: String,
}

/// What becomes of a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It is made.
    Create,
    /// Settings change.
    Change,
    /// It is as it should be.
    Unchanged,
    /// It is removed, since no file speaks of it.
    Remove,
}

impl Action {
    /// For D-Bus.
    pub fn name(self) -> &'static str {
        match self {
            Action::Create => "create",
            Action::Change => "change",
            Action::Unchanged => "unchanged",
            Action::Remove => "remove",
        }
    }
}

/// One domain in a plan.
#[derive(Debug, Clone)]
pub struct Step {
    /// What becomes of it.
    pub action: Action,
    /// As it should be, or as it is where it is removed.
    pub config: DomainConfig,
    /// What is different then; for a new domain, from the defaults.
    pub differences: Vec<Difference>,
    /// It runs: what changes counts from its next start.
    pub running: bool,
}

/// What is to do.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// Domain by domain, in the order of the files.
    pub steps: Vec<Step>,
}

impl Plan {
    /// Tells one plan from another while the manager runs, so that what was shown is what is done.
    pub fn id(&self) -> String {
        let mut hasher = DefaultHasher::new();
        for step in &self.steps {
            step.action.name().hash(&mut hasher);
            step.config.to_text().hash(&mut hasher);
            for difference in &step.differences {
                (difference.key, &difference.old, &difference.new).hash(&mut hasher);
            }
        }
        format!("{:016x}", hasher.finish())
    }
}

/// A setting that names another domain.
type Used = fn(&DomainConfig) -> &Option<DomainName>;

/// One domain, as a file describes it.
struct Wanted {
    name: DomainName,
    file: String,
    line: usize,
    settings: Vec<(usize, String, Setting)>,
}

impl Manager {
    /// What is to do so that the domains are as the files say. With `prune`, domains that no file
    /// speaks of are removed, but for disposables. Fails where something could not be done.
    pub fn plan(&self, sources: &[Source], prune: bool) -> Result<Plan> {
        let mut wanted: Vec<Wanted> = Vec::new();
        for source in sources {
            for domain in read(source)? {
                if let Some(other) = wanted.iter().find(|other| other.name == domain.name) {
                    let reason = format!(
                        "domain `{}` is described twice; the first time is {}, line {}",
                        domain.name, other.file, other.line
                    );
                    return Err(at(&domain.file, domain.line, reason));
                }
                wanted.push(domain);
            }
        }
        if wanted.len() > MAX_DOMAINS {
            let text = format!("{} domains are too many for one plan", wanted.len());
            return Err(Error::Plan(text));
        }
        let names: Vec<DomainName> = wanted.iter().map(|domain| domain.name.clone()).collect();
        let mut steps = Vec::new();
        for domain in &wanted {
            steps.push(self.step(domain, &names)?);
        }
        if prune {
            let removals = self.superfluous(&names, &steps)?;
            steps.extend(removals);
        }
        let changed = |step: &&Step| matches!(step.action, Action::Create | Action::Change);
        let changed: Vec<&DomainConfig> = steps
            .iter()
            .filter(changed)
            .map(|step| &step.config)
            .collect();
        self.check_net(&changed)?;
        Ok(Plan { steps })
    }

    fn step(&self, domain: &Wanted, planned: &[DomainName]) -> Result<Step> {
        let name = &domain.name;
        let here = |error: Error| at(&domain.file, domain.line, error.to_string());
        let exists = self.store.exists(name);
        let old = if exists {
            self.store.load(name).map_err(here)?
        } else {
            check_name(name).map_err(here)?;
            DomainConfig::new(name.clone(), Label::Gray)
        };
        let mut new = old.clone();
        for (line, key, value) in &domain.settings {
            new = configure(new, [(key.clone(), value.clone())])
                .map_err(|error| at(&domain.file, *line, error.to_string()))?;
        }
        self.check_new(exists.then_some(&old), &new, planned)
            .map_err(here)?;
        let differences = settings::differences(&old, &new);
        Ok(Step {
            action: match (exists, differences.is_empty()) {
                (false, _) => Action::Create,
                (true, true) => Action::Unchanged,
                (true, false) => Action::Change,
            },
            config: new,
            differences,
            running: exists && self.runs(name),
        })
    }

    fn superfluous(&self, wanted: &[DomainName], kept: &[Step]) -> Result<Vec<Step>> {
        let mut steps = Vec::new();
        for name in self.store.names()? {
            if wanted.contains(&name) {
                continue;
            }
            // Whoever wrote a file that cannot be read is asked first what it should say.
            let config = self.store.load(&name)?;
            if config.kind.is_disposable() {
                continue;
            }
            if self.runs(&name) {
                return Err(Error::StillRunning(name));
            }
            for (key, used) in [
                ("default_disposable", (|c| &c.default_disposable) as Used),
                ("net_domain", |c| &c.net_domain),
            ] {
                let uses = |step: &&Step| used(&step.config).as_ref() == Some(&name);
                if let Some(user) = kept.iter().find(uses) {
                    return Err(Error::Setting(format!(
                        "domain `{name}` would be removed, but it is the {key} of `{}`; describe \
                         it as well, or change that",
                        user.config.name
                    )));
                }
            }
            steps.push(Step {
                action: Action::Remove,
                config,
                differences: Vec::new(),
                running: false,
            });
        }
        Ok(steps)
    }

    fn runs(&self, name: &DomainName) -> bool {
        self.domain(name)
            .is_ok_and(|domain| domain.machine().is_some())
    }

    /// Carries out the plan that was shown, domain by domain, each whole or not at all. Fails
    /// before anything is done where there would be another plan now.
    pub async fn carry_out(
        self: &Arc<Self>,
        sources: &[Source],
        prune: bool,
        id: &str,
    ) -> Result<Plan> {
        let plan = self.plan(sources, prune)?;
        if plan.id() != id {
            let text = "the domains have changed since the plan was made; look at it again";
            return Err(Error::Plan(text.to_owned()));
        }
        let is_change = |step: &&Step| step.action != Action::Unchanged;
        let all = plan.steps.iter().filter(is_change).count();
        for (done, step) in plan.steps.iter().filter(is_change).enumerate() {
            self.carry_out_step(step).await.map_err(|error| {
                Error::Plan(format!(
                    "{error}; {done} of {all} changes are made and stay, apply again for the rest"
                ))
            })?;
        }
        Ok(plan)
    }

    async fn carry_out_step(self: &Arc<Self>, step: &Step) -> Result<()> {
        let config = &step.config;
        match step.action {
            Action::Unchanged => Ok(()),
            Action::Create => self.create(config).await,
            Action::Change => {
                let old = self.store.load(&config.name)?;
                self.save(&old, config).map(drop)
            }
            Action::Remove => {
                self.remove(&config.name).await?;
                self.tell(Event::Applications);
                Ok(())
            }
        }
    }
}

fn at(file: &str, line: usize, reason: String) -> Error {
    Error::Config {
        file: file.into(),
        line,
        reason,
    }
}

/// The domains that a file describes.
fn read(source: &Source) -> Result<Vec<Wanted>> {
    let Source { file, text } = source;
    let line = |offset: usize| {
        let before = text.get(..offset).unwrap_or_default();
        1 + before.matches('\n').count()
    };
    if text.len() > MAX_BYTES {
        let reason = format!("{} bytes are too many for a description", text.len());
        return Err(at(file, 1, reason));
    }
    let table = DeTable::parse(text).map_err(|error| {
        let reason = error.message().trim_end().replace('\n', ", ");
        let offset = error.span().map_or(0, |span| span.start);
        at(file, line(offset), format!("{reason}; correct the line"))
    })?;
    let table = table.get_ref();
    let Some(domains) = table.get("domain") else {
        return Ok(vec![domain(file, 1, table, &line)?]);
    };
    if let Some((key, _)) = table.iter().find(|(key, _)| key.get_ref() != "domain") {
        let reason = format!(
            "`{}` stands beside [[domain]] tables; write it into one of them",
            key.get_ref()
        );
        return Err(at(file, line(key.span().start), reason));
    }
    let wrong = || {
        let reason = "write each domain as a table of its own, under [[domain]]".to_owned();
        at(file, line(domains.span().start), reason)
    };
    let DeValue::Array(domains) = domains.get_ref() else {
        return Err(wrong());
    };
    domains
        .iter()
        .map(|value| match value.get_ref() {
            DeValue::Table(table) => domain(file, line(value.span().start), table, &line),
            _ => Err(wrong()),
        })
        .collect()
}

fn domain(
    file: &str,
    first_line: usize,
    table: &DeTable<'_>,
    line: &dyn Fn(usize) -> usize,
) -> Result<Wanted> {
    let mut name = None;
    let mut settings = Vec::new();
    // The order of the file, whatever the map's.
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    for (key, value) in entries {
        let line = line(key.span().start);
        let key = key.get_ref().as_ref();
        let value = setting(value)
            .ok_or_else(|| at(file, line, format!("{key} has the wrong type of value")))?;
        match (key, value) {
            ("name", Setting::Text(text)) => {
                let parsed: std::result::Result<DomainName, _> = text.parse();
                name = Some(parsed.map_err(|error| at(file, line, error.to_string()))?);
            }
            (key, value) => settings.push((line, key.to_owned(), value)),
        }
    }
    let missing = || {
        let reason = "the domain's name is missing; write name = \"…\"".to_owned();
        at(file, first_line, reason)
    };
    Ok(Wanted {
        name: name.ok_or_else(missing)?,
        file: file.to_owned(),
        line: first_line,
        settings,
    })
}

fn setting(value: &Spanned<DeValue<'_>>) -> Option<Setting> {
    match value.get_ref() {
        DeValue::String(text) => Some(Setting::Text(text.to_string())),
        DeValue::Integer(integer) => {
            let digits = integer.as_str().replace('_', "");
            u64::from_str_radix(&digits, integer.radix())
                .ok()
                .map(Setting::Number)
        }
        DeValue::Boolean(value) => Some(Setting::Text(settings::yes_or_no(*value).to_owned())),
        DeValue::Array(values) => {
            let words = values.iter().map(|value| match value.get_ref() {
                DeValue::String(text) => Some(text.to_string()),
                _ => None,
            });
            words.collect::<Option<_>>().map(Setting::List)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source {
            file: "f.toml".to_owned(),
            text: text.to_owned(),
        }
    }

    #[test]
    fn both_forms_are_read() {
        let one = read(&source(
            "label = \"red\"\nname = \"work\"\nmemory_mib = 1_024\n",
        ))
        .unwrap();
        assert_eq!(one.len(), 1);
        assert_eq!(one[0].name.as_str(), "work");
        let expected = [
            (1, "label".to_owned(), Setting::Text("red".into())),
            (3, "memory_mib".to_owned(), Setting::Number(1024)),
        ];
        assert_eq!(one[0].settings, expected);
        let text = "# Both.\n[[domain]]\nname = \"a\"\ntags = [\"x\", \"y\"]\n\n[[domain]]\nname = \"b\"\n";
        let two = read(&source(text)).unwrap();
        assert_eq!(two.len(), 2);
        let tags = Setting::List(vec!["x".into(), "y".into()]);
        assert_eq!(two[0].settings, [(4, "tags".to_owned(), tags)]);
        assert_eq!((two[1].name.as_str(), two[1].line), ("b", 6));
        assert!(read(&source("domain = []")).unwrap().is_empty());
        // A domain's own file, as the manager writes it.
        let config = DomainConfig::new("work".parse().unwrap(), Label::Red);
        let own = read(&source(&config.to_text())).unwrap();
        let settings = own[0]
            .settings
            .iter()
            .map(|(_, key, value)| (key.clone(), value.clone()));
        let gray = DomainConfig::new("work".parse().unwrap(), Label::Gray);
        assert_eq!(configure(gray, settings).unwrap(), config);
    }

    #[test]
    fn the_documentation_can_be_applied() {
        let document = include_str!("../../../docs/domains.md");
        let examples = document.split("```toml\n").skip(1);
        let mut domains = 0;
        for example in examples.filter_map(|rest| rest.split("```").next()) {
            for wanted in read(&source(example)).unwrap() {
                let gray = DomainConfig::new(wanted.name, Label::Gray);
                let settings = wanted.settings.into_iter();
                configure(gray, settings.map(|(_, key, value)| (key, value))).unwrap();
                domains += 1;
            }
        }
        assert!(domains >= 2);
        // Every setting is explained.
        let config = DomainConfig::new("work".parse().unwrap(), Label::Gray);
        for (key, _) in settings::all(&config) {
            assert!(document.contains(&format!("| `{key}` |")), "{key}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (text, expected) in [
            (
                "label = \"red\"",
                "f.toml, line 1: the domain's name is missing",
            ),
            (
                "[[domain]]\nlabel = \"red\"",
                "line 1: the domain's name is missing",
            ),
            (
                "x = 1\n[[domain]]\nname = \"a\"",
                "line 1: `x` stands beside",
            ),
            (
                "[domain]\nname = \"a\"",
                "line 1: write each domain as a table",
            ),
            (
                "name = \"a\"\ncpus = 1.5",
                "line 2: cpus has the wrong type",
            ),
            ("name = \"a\"\ncpus = -1", "line 2: cpus has the wrong type"),
            ("name = \"A\"", "line 1: `A` is no name"),
            ("name = \"a\"\nname = \"a\"", "line 2: duplicate key"),
            ("name \"a\"", "line 1: "),
        ] {
            let error = match read(&source(text)) {
                Err(error) => error.to_string(),
                Ok(_) => panic!("{text}"),
            };
            assert!(error.contains(expected), "{text:?}: {error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }
}
