//! One domain's configuration: `NAME.toml`.

use std::path::Path;

use bulkhead_net::fixed::Fixed;
use bulkhead_net::rules::{Action, Log, MAX_RULES, Policy, Rule};
use bulkhead_protocol::{DomainName, Label};
use bulkhead_vmm_api::GpuBackend;
use serde::{Deserialize, Serialize};

use crate::pci::PciDevices;
use crate::tags::Tags;
use crate::{Error, Result};

/// What a domain is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Applications on a template's root, with a home of its own.
    #[default]
    App,
    /// Made for one application, and removed with it.
    Disposable,
    /// Stays as it is configured, but forgets its home at each end.
    NamedDisposable,
    /// Owns its whole root: a copy of a template's, and what it has changed of it.
    Standalone,
    /// Works for other domains; it has no windows.
    Service,
}

impl Kind {
    /// As in the file.
    pub fn name(self) -> &'static str {
        match self {
            Kind::App => "app",
            Kind::Disposable => "disposable",
            Kind::NamedDisposable => "named-disposable",
            Kind::Standalone => "standalone",
            Kind::Service => "service",
        }
    }

    /// Whether nothing of its home outlives its machine.
    pub fn forgets_home(self) -> bool {
        match self {
            Kind::App | Kind::Standalone | Kind::Service => false,
            Kind::Disposable | Kind::NamedDisposable => true,
        }
    }

    /// Whether its root is its own.
    pub fn owns_root(self) -> bool {
        self == Kind::Standalone
    }

    /// Whether its programs may open windows.
    pub fn has_windows(self) -> bool {
        self != Kind::Service
    }

    /// Whether a disposable may be made like it: from its template, with a home of its own.
    pub fn makes_disposables(self) -> bool {
        match self {
            Kind::App | Kind::NamedDisposable => true,
            // Its root is not the template's.
            Kind::Standalone => false,
            Kind::Disposable | Kind::Service => false,
        }
    }

    /// Whether it goes when it is done.
    pub fn is_disposable(self) -> bool {
        self == Kind::Disposable
    }
}

/// A domain, as its file describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DomainConfig {
    /// Its name, the same as the file's.
    pub name: DomainName,
    /// Its label.
    pub label: Label,
    /// What it is for.
    #[serde(default)]
    pub kind: Kind,
    /// The template that its root comes from.
    #[serde(default = "default_template")]
    pub template: DomainName,
    /// Its memory.
    #[serde(default = "default_memory_mib")]
    pub memory_mib: u32,
    /// Its processors.
    #[serde(default = "default_cpus")]
    pub cpus: u8,
    /// The size of its home volume, which may grow but not shrink; the file takes only what is
    /// used.
    #[serde(default = "default_home_size_mib")]
    pub home_size_mib: u32,
    /// Whether it starts with the manager.
    #[serde(default)]
    pub autostart: bool,
    /// How many snapshots of its home are kept; one is made at each start.
    #[serde(default = "default_snapshots")]
    pub snapshots: u32,
    /// Words by which rules speak of it.
    #[serde(default)]
    pub tags: Tags,
    /// The domain whose disposables its calls get.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_disposable: Option<DomainName>,
    /// Whether other domains may have it as their network domain.
    #[serde(default)]
    pub provides_network: bool,
    /// The domain through which it reaches the network; none: it has no network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub net_domain: Option<DomainName>,
    /// Whether the host's own network is its way out, by passt.
    #[serde(default)]
    pub host_network: bool,
    /// The address of its physical card, where no DHCP server is to be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub card_address: Option<Fixed>,
    /// What it may reach, in the order in which it is asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub firewall: Vec<Rule>,
    /// What becomes of that which fits no rule.
    #[serde(default)]
    pub firewall_default: Action,
    /// Which of its connections its network domain writes down.
    #[serde(default)]
    pub firewall_log: Log,
    /// The host's PCI devices that belong to it.
    #[serde(default, skip_serializing_if = "PciDevices::is_empty")]
    pub pci: PciDevices,
    /// How long it has to switch itself off when it is stopped.
    #[serde(default = "default_stop_timeout_s")]
    pub stop_timeout_s: u32,
    /// What carries its windows' messages: `native`, or `rutabaga`.
    #[serde(default)]
    pub gpu_backend: GpuBackend,
}

fn default_template() -> DomainName {
    match "apps".parse() {
        Ok(name) => name,
        Err(_) => unreachable!("a constant that is a valid name"),
    }
}
fn default_memory_mib() -> u32 {
    512
}
fn default_cpus() -> u8 {
    2
}
fn default_home_size_mib() -> u32 {
    4096
}
fn default_snapshots() -> u32 {
    2
}
fn default_stop_timeout_s() -> u32 {
    15
}

impl DomainConfig {
    /// A domain with every default.
    pub fn new(name: DomainName, label: Label) -> Self {
        DomainConfig {
            name,
            label,
            kind: Kind::App,
            template: default_template(),
            memory_mib: default_memory_mib(),
            cpus: default_cpus(),
            home_size_mib: default_home_size_mib(),
            autostart: false,
            snapshots: default_snapshots(),
            tags: Tags::default(),
            default_disposable: None,
            provides_network: false,
            net_domain: None,
            host_network: false,
            card_address: None,
            firewall: Vec::new(),
            firewall_default: Action::default(),
            firewall_log: Log::default(),
            pci: PciDevices::default(),
            stop_timeout_s: default_stop_timeout_s(),
            gpu_backend: GpuBackend::default(),
        }
    }

    /// From the text of a file that may lie under another name.
    fn parse_any_name(file: &Path, text: &str) -> Result<Self> {
        toml::from_str(text).map_err(|error| Error::Config {
            file: file.to_owned(),
            line: error.span().map_or(1, |span| line_of(text, span.start)),
            reason: format!(
                "{}; correct the line",
                error.message().trim_end().replace('\n', ", ")
            ),
        })
    }

    /// From the text of `file`; errors name the file, the line and what is expected.
    pub fn parse(file: &Path, text: &str) -> Result<Self> {
        let config = DomainConfig::parse_any_name(file, text)?;
        let at = |key: &str, reason: String| Error::Config {
            file: file.to_owned(),
            line: line_with(text, key),
            reason,
        };
        let stem = file
            .file_stem()
            .and_then(|stem| stem.to_str())
            .unwrap_or_default();
        if config.name.as_str() != stem {
            let reason = format!(
                "the name `{}` differs from the file's; rename the file or write name = \"{stem}\"",
                config.name
            );
            return Err(at("name", reason));
        }
        config.check().map_err(|(key, reason)| at(key, reason))?;
        Ok(config)
    }

    /// Whether every value is one that a domain can have: the key and what to write instead.
    pub fn check(&self) -> std::result::Result<(), (&'static str, String)> {
        let ranges = [
            ("memory_mib", u64::from(self.memory_mib), 64, 65536),
            ("cpus", u64::from(self.cpus), 1, 32),
            (
                "home_size_mib",
                u64::from(self.home_size_mib),
                16,
                4 * 1024 * 1024,
            ),
            ("snapshots", u64::from(self.snapshots), 0, 100),
            ("stop_timeout_s", u64::from(self.stop_timeout_s), 1, 600),
        ];
        for (key, value, least, most) in ranges {
            if !(least..=most).contains(&value) {
                let reason = format!("{key} = {value} is not possible; use {least} to {most}");
                return Err((key, reason));
            }
        }
        if self.provides_network && self.kind.is_disposable() {
            let reason = "a disposable cannot provide network: nothing could name it".to_owned();
            return Err(("provides_network", reason));
        }
        if self.net_domain.as_ref() == Some(&self.name) {
            let reason = format!(
                "net_domain = \"{}\" is the domain itself; name another one",
                self.name
            );
            return Err(("net_domain", reason));
        }
        if self.host_network {
            let reason = match self {
                DomainConfig {
                    provides_network: false,
                    ..
                } => "host_network is for network domains: set provides_network as well",
                DomainConfig {
                    net_domain: Some(_),
                    ..
                } => "host_network and net_domain are two ways out: use one of them",
                config if !config.pci.is_empty() => {
                    "host_network and pci are two ways out: use one of them"
                }
                _ => "",
            };
            if !reason.is_empty() {
                return Err(("host_network", reason.to_owned()));
            }
        }
        if self.firewall.len() > MAX_RULES {
            let reason = format!(
                "{} rules are too many; use at most {MAX_RULES}",
                self.firewall.len()
            );
            return Err(("firewall", reason));
        }
        if !self.pci.is_empty() && self.kind.is_disposable() {
            let reason = "a disposable cannot have PCI devices: give them to a domain that stays";
            return Err(("pci", reason.to_owned()));
        }
        Ok(())
    }

    /// What it may reach.
    pub fn firewall(&self) -> Policy {
        Policy {
            rules: self.firewall.clone(),
            default: self.firewall_default,
            log: self.firewall_log,
        }
    }

    /// A disposable like this domain: it is behind the same network domain, and is none itself. It
    /// has none of its devices.
    pub fn disposable(&self, name: DomainName) -> Self {
        DomainConfig {
            name,
            kind: Kind::Disposable,
            provides_network: false,
            host_network: false,
            pci: PciDevices::default(),
            ..self.clone()
        }
    }

    /// The file's text, with a comment where a setting needs one.
    pub fn to_text(&self) -> String {
        let mut text =
            String::from("# A Bulkhead domain. docs/domains.md explains each setting.\n");
        for (_, line) in self.lines() {
            text.extend(line.iter().flat_map(|line| [line.as_str(), "\n"]));
        }
        text
    }

    /// `text` (a domain's file) with the settings of this configuration. Lines that say the same
    /// as before stay as they are, and so do comments on lines of their own.
    pub fn edit(&self, file: &Path, text: &str) -> String {
        let before = DomainConfig::parse_any_name(file, text);
        let before = before.map(|before| before.lines()).unwrap_or_default();
        let mut kept: Vec<String> = text.lines().map(str::to_owned).collect();
        for ((key, new), (_, old)) in self.lines().into_iter().zip(before) {
            if new == old {
                continue;
            }
            let at = kept.iter().position(|line| assigns(line, key));
            match (at, new) {
                (Some(at), Some(new)) => kept.splice(at..=at, [new]).for_each(drop),
                (Some(at), None) => drop(kept.remove(at)),
                (None, Some(new)) => kept.push(new),
                (None, None) => {}
            }
        }
        let edited = kept.join("\n") + "\n";
        // A value may have stood on several lines, or the file may have been wrong.
        match DomainConfig::parse_any_name(file, &edited) {
            Ok(config) if config == *self => edited,
            _ => self.to_text(),
        }
    }

    /// Each setting's key and its line in the file, if it has one.
    fn lines(&self) -> Vec<(&'static str, Option<String>)> {
        let tags: Vec<String> = self.tags.iter().map(|tag| format!("\"{tag}\"")).collect();
        let pci: Vec<String> = self.pci.iter().map(|d| format!("\"{d}\"")).collect();
        let rules: Vec<String> = self
            .firewall
            .iter()
            .map(|rule| format!("\"{rule}\""))
            .collect();
        let model = self.default_disposable.as_ref();
        let rutabaga = self.gpu_backend == GpuBackend::Rutabaga;
        let quoted = |text: &dyn std::fmt::Display| Some(format!("\"{text}\""));
        let lines = [
            ("name", quoted(&self.name), ""),
            (
                "label",
                quoted(&self.label),
                "the colour of its windows' borders",
            ),
            ("kind", quoted(&self.kind.name()), ""),
            (
                "template",
                quoted(&self.template),
                "where its programs come from",
            ),
            ("memory_mib", Some(self.memory_mib.to_string()), ""),
            ("cpus", Some(self.cpus.to_string()), ""),
            (
                "home_size_mib",
                Some(self.home_size_mib.to_string()),
                "it may grow",
            ),
            (
                "autostart",
                self.autostart.then(|| "true".to_owned()),
                "it starts with the desktop",
            ),
            (
                "snapshots",
                Some(self.snapshots.to_string()),
                "how many are kept of its home",
            ),
            (
                "stop_timeout_s",
                Some(self.stop_timeout_s.to_string()),
                "then it is switched off",
            ),
            (
                "tags",
                (!tags.is_empty()).then(|| format!("[{}]", tags.join(", "))),
                "",
            ),
            (
                "default_disposable",
                model.map(|model| format!("\"{model}\"")),
                "whose disposables its calls get",
            ),
            (
                "provides_network",
                self.provides_network.then(|| "true".to_owned()),
                "others may have it as net_domain",
            ),
            (
                "net_domain",
                self.net_domain.as_ref().map(|net| format!("\"{net}\"")),
                "through which it reaches the network",
            ),
            (
                "host_network",
                self.host_network.then(|| "true".to_owned()),
                "the host's own network is its way out",
            ),
            (
                "card_address",
                self.card_address
                    .as_ref()
                    .map(|fixed| format!("\"{fixed}\"")),
                "of its physical card; otherwise DHCP",
            ),
            (
                "firewall",
                (!rules.is_empty()).then(|| format!("[{}]", rules.join(", "))),
                "what it may reach; the first that fits counts",
            ),
            (
                "firewall_default",
                (self.firewall_default != Action::default())
                    .then(|| format!("\"{}\"", self.firewall_default.name())),
                "where no rule fits",
            ),
            (
                "firewall_log",
                (self.firewall_log != Log::default())
                    .then(|| format!("\"{}\"", self.firewall_log.name())),
                "in its network domain",
            ),
            (
                "pci",
                (!pci.is_empty()).then(|| format!("[{}]", pci.join(", "))),
                "the host's devices that belong to it",
            ),
            (
                "gpu_backend",
                rutabaga.then(|| "\"rutabaga\"".to_owned()),
                "instead of Bulkhead's own",
            ),
        ];
        let line = |key, value: Option<String>, comment| match (value, comment) {
            (None, _) => None,
            (Some(value), "") => Some(format!("{key} = {value}")),
            (Some(value), comment) => Some(format!("{key} = {value}  # {comment}")),
        };
        lines
            .into_iter()
            .map(|(key, value, comment)| (key, line(key, value, comment)))
            .collect()
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text
        .bytes()
        .take(offset)
        .filter(|&byte| byte == b'\n')
        .count()
}

fn assigns(line: &str, key: &str) -> bool {
    line.trim_start()
        .strip_prefix(key)
        .is_some_and(|rest| rest.trim_start().starts_with('='))
}

fn line_with(text: &str, key: &str) -> usize {
    1 + text
        .lines()
        .position(|line| assigns(line, key))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<DomainConfig> {
        DomainConfig::parse(Path::new("/c/work.toml"), text)
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut config = DomainConfig::new("work".parse().unwrap(), Label::Red);
        config.gpu_backend = GpuBackend::Rutabaga;
        config.pci = PciDevices::from_words(["0000:01:00.0", "0000:02:00.1"]).unwrap();
        assert_eq!(parse(&config.to_text()).unwrap(), config);
        config.pci = PciDevices::default();
        assert_eq!(parse(&config.to_text()).unwrap(), config);
        config.gpu_backend = GpuBackend::Native;
        assert_eq!(parse(&config.to_text()).unwrap(), config);
        assert_eq!(parse("name = \"work\"\nlabel = \"red\"\n").unwrap(), config);
    }

    #[test]
    fn an_edit_keeps_what_people_wrote() {
        let text = "# Mine.\nname = \"work\"\n\nlabel = \"red\" # angry\nmemory_mib = 900\n";
        let file = Path::new("/c/work.toml");
        let mut config = parse(text).unwrap();
        assert_eq!(config.edit(file, text), text);
        config.memory_mib = 1000;
        config.tags = Tags::from_words(["b", "a"]).unwrap();
        let edited = config.edit(file, text);
        let expected = "# Mine.\nname = \"work\"\n\nlabel = \"red\" # angry\nmemory_mib = 1000\n\
                        tags = [\"a\", \"b\"]\n";
        assert_eq!(edited, expected);
        config.tags = Tags::default();
        assert!(!config.edit(file, &edited).contains("tags"));
        // What cannot be edited line by line is written anew.
        let text = "name = \"work\"\nlabel = \"red\"\ntags = [\n  \"a\",\n]\n";
        assert_eq!(parse(&config.edit(file, text)).unwrap(), config);
        assert_eq!(config.edit(file, "nonsense"), config.to_text());
    }

    #[test]
    fn errors_name_file_line_and_remedy() {
        for (text, expected) in [
            (
                "name = \"work\"\nlabel = \"pink\"",
                "/c/work.toml, line 2: unknown variant `pink`",
            ),
            (
                "name = \"work\"\nlabel = \"red\"\nram = 5",
                "/c/work.toml, line 3: unknown field `ram`",
            ),
            ("name = \"work\"\nlabel \"red\"", "/c/work.toml, line 2: "),
            ("name = \"work\"", "missing field `label`"),
            (
                "name = \"play\"\nlabel = \"red\"",
                "/c/work.toml, line 1: the name `play` differs",
            ),
            (
                "name = \"work\"\nlabel = \"red\"\ncpus = 0",
                "/c/work.toml, line 3: cpus = 0 is not",
            ),
            (
                "name = \"work\"\nlabel = \"red\"\ncpus = 999",
                "/c/work.toml, line 3: ",
            ),
            (
                "name = \"Work\"\nlabel = \"red\"",
                "is no name for a domain",
            ),
            (
                "name = \"work\"\nlabel = \"red\"\nkind = \"vm\"",
                "unknown variant `vm`",
            ),
            (
                "name = \"work\"\nlabel = \"red\"\ntags = [\"A B\"]",
                "/c/work.toml, line 3: `A B` is no tag",
            ),
            (
                "name = \"work\"\nlabel = \"red\"\nsnapshots = 1000",
                "/c/work.toml, line 3: snapshots = 1000 is not possible",
            ),
            (
                "name = \"work\"\nlabel = \"red\"\ndefault_disposable = \"-\"",
                "/c/work.toml, line 3: `-` is no name",
            ),
            (
                "name = \"work\"\nlabel = \"red\"\nnet_domain = \"work\"",
                "/c/work.toml, line 3: net_domain = \"work\" is the domain itself",
            ),
            (
                "name = \"work\"\nlabel = \"red\"\nkind = \"disposable\"\nprovides_network = true",
                "/c/work.toml, line 4: a disposable cannot provide network",
            ),
            (
                "name = \"work\"\nlabel = \"red\"\npci = [\"01:00.0\"]",
                "/c/work.toml, line 3: \"01:00.0\" is no address of a PCI device: write it as",
            ),
            (
                "name = \"work\"\nlabel = \"red\"\nkind = \"disposable\"\npci = [\"0000:01:00.0\"]",
                "/c/work.toml, line 4: a disposable cannot have PCI devices",
            ),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text:?}: {error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }
}
