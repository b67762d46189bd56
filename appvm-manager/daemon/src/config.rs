//! One domain's configuration: `NAME.toml`.

use bulkhead_net::fixed::Fixed;
use bulkhead_net::rules::{Action, Log, MAX_RULES, Policy, Rule};
use bulkhead_protocol::{DomainName, Label};
use bulkhead_vmm_api::GpuBackend;
use serde::{Deserialize, Serialize};

use crate::pci::PciDevices;
use crate::tags::Tags;

mod text;

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
}
