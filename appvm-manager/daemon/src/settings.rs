//! A domain's settings by name: read, changed and checked before anything is written.

use bulkhead_net::fixed::InvalidFixed;
use bulkhead_net::rules::{Log, Rule};
use bulkhead_protocol::DomainName;

use crate::config::{DomainConfig, Kind};
use crate::pci::PciDevices;
use crate::tags::Tags;
use crate::{Error, Result};

/// The list of rules.
pub const FIREWALL: &str = "firewall";

/// A setting's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Setting {
    /// Names; also numbers and lists as a person writes them.
    Text(String),
    /// Sizes.
    Number(u64),
    /// Tags, or devices.
    List(Vec<String>),
}

impl Setting {
    /// As a person reads it; nothing is `-`.
    pub fn to_text(&self) -> String {
        match self {
            Setting::Text(text) if text.is_empty() => "-".to_owned(),
            Setting::List(words) if words.is_empty() => "-".to_owned(),
            Setting::Text(text) => text.clone(),
            Setting::Number(number) => number.to_string(),
            // A rule has blanks and may have commas.
            Setting::List(words) if words.iter().any(|word| word.contains(' ')) => words.join("; "),
            Setting::List(words) => words.join(", "),
        }
    }
}

/// Whether a person may give a domain this name: not the host's, and none that the next
/// disposable may be given.
pub fn check_name(name: &DomainName) -> Result<()> {
    let reason = match name.as_str() {
        "dom0" => "it is the name of the host",
        text => match text.strip_prefix("disp") {
            Some(rest) if !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()) => {
                "names of disposables look so"
            }
            _ => return Ok(()),
        },
    };
    Err(Error::ReservedName {
        name: name.clone(),
        reason,
    })
}

/// For people.
pub fn yes_or_no(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}

/// All settings of a domain, in the order of its file.
pub fn all(config: &DomainConfig) -> Vec<(&'static str, Setting)> {
    let text = |text: &dyn std::fmt::Display| Setting::Text(text.to_string());
    let number = |number: u32| Setting::Number(number.into());
    let tags = config.tags.iter().map(ToString::to_string).collect();
    let pci = config.pci.iter().map(|device| device.to_string()).collect();
    let rules = config.firewall.iter().map(ToString::to_string).collect();
    let model = config.default_disposable.as_ref();
    let backend = serde_json::to_value(config.gpu_backend).unwrap_or_default();
    vec![
        ("label", text(&config.label)),
        ("kind", text(&config.kind.name())),
        ("template", text(&config.template)),
        ("memory_mib", number(config.memory_mib)),
        ("cpus", number(config.cpus.into())),
        ("home_size_mib", number(config.home_size_mib)),
        ("autostart", text(&yes_or_no(config.autostart))),
        ("snapshots", number(config.snapshots)),
        ("stop_timeout_s", number(config.stop_timeout_s)),
        ("tags", Setting::List(tags)),
        (
            "default_disposable",
            Setting::Text(model.map(ToString::to_string).unwrap_or_default()),
        ),
        (
            "provides_network",
            text(&yes_or_no(config.provides_network)),
        ),
        (
            "net_domain",
            Setting::Text(
                config
                    .net_domain
                    .as_ref()
                    .map(ToString::to_string)
                    .unwrap_or_default(),
            ),
        ),
        ("host_network", text(&yes_or_no(config.host_network))),
        (
            "card_address",
            Setting::Text(
                config
                    .card_address
                    .as_ref()
                    .map(ToString::to_string)
                    .unwrap_or_default(),
            ),
        ),
        (FIREWALL, Setting::List(rules)),
        ("firewall_default", text(&config.firewall_default.name())),
        ("firewall_log", text(&config.firewall_log.name())),
        ("pci", Setting::List(pci)),
        (
            "gpu_backend",
            Setting::Text(backend.as_str().unwrap_or_default().to_owned()),
        ),
    ]
}

/// `config` with these settings. Nothing is written; every value has been checked by itself.
pub fn configure(
    mut config: DomainConfig,
    settings: impl IntoIterator<Item = (String, Setting)>,
) -> Result<DomainConfig> {
    for (key, value) in settings {
        set(&mut config, &key, &value)?;
    }
    config
        .check()
        .map_err(|(_, reason)| Error::Setting(reason))?;
    Ok(config)
}

fn set(config: &mut DomainConfig, key: &str, value: &Setting) -> Result<()> {
    let wrong = |expected: &str| {
        let given: String = value.to_text().chars().take(80).collect();
        Error::Setting(format!("{key} = `{given}` is not possible; use {expected}"))
    };
    let number = || match value {
        Setting::Number(number) => u32::try_from(*number).map_err(|_| wrong("a smaller number")),
        Setting::Text(text) => text.trim().parse().map_err(|_| wrong("a number")),
        Setting::List(_) => Err(wrong("a number")),
    };
    let size_mib = || match value {
        Setting::Text(text) => size_mib(text).ok_or_else(|| wrong("MiB, or a number with M or G")),
        _ => number(),
    };
    let text = || match value {
        Setting::Text(text) => Ok(text.trim()),
        _ => Err(wrong("text")),
    };
    let flag = || match text()? {
        "yes" | "true" => Ok(true),
        "no" | "false" => Ok(false),
        _ => Err(wrong("yes or no")),
    };
    let other_domain = || match text()? {
        "" | "-" => Ok(None),
        name => Ok::<_, Error>(Some(name.parse()?)),
    };
    match key {
        "label" => config.label = text()?.parse()?,
        "template" => config.template = text()?.parse()?,
        "kind" => {
            config.kind = match text()? {
                "app" => Kind::App,
                "named-disposable" => Kind::NamedDisposable,
                "standalone" => Kind::Standalone,
                "service" => Kind::Service,
                // Disposables are made by launching something in one.
                _ => return Err(wrong("app, named-disposable, standalone or service")),
            }
        }
        "memory_mib" => config.memory_mib = size_mib()?,
        "cpus" => config.cpus = u8::try_from(number()?).map_err(|_| wrong("1 to 32"))?,
        "home_size_mib" => config.home_size_mib = size_mib()?,
        "autostart" => config.autostart = flag()?,
        "snapshots" => config.snapshots = number()?,
        "stop_timeout_s" => config.stop_timeout_s = number()?,
        "tags" => {
            let words = words(value).ok_or_else(|| wrong("words"))?;
            let tags = Tags::from_words(words);
            config.tags = tags.map_err(|error| Error::Setting(error.to_string()))?;
        }
        "pci" => {
            let words = words(value).ok_or_else(|| wrong("addresses like 0000:01:00.0"))?;
            let devices = PciDevices::from_words(words);
            config.pci = devices.map_err(|error| Error::Setting(error.to_string()))?;
        }
        "default_disposable" => config.default_disposable = other_domain()?,
        "provides_network" => config.provides_network = flag()?,
        "net_domain" => config.net_domain = other_domain()?,
        "host_network" => config.host_network = flag()?,
        "card_address" => {
            config.card_address = match text()? {
                "" | "-" => None,
                fixed => Some(
                    fixed
                        .parse()
                        .map_err(|error: InvalidFixed| Error::Setting(error.to_string()))?,
                ),
            }
        }
        FIREWALL => config.firewall = rules(value, now())?,
        "firewall_default" => {
            config.firewall_default = text()?.parse().map_err(|_| wrong("accept or drop"))?;
        }
        "firewall_log" => {
            config.firewall_log = match text()? {
                "off" => Log::Off,
                "dropped" => Log::Dropped,
                "all" => Log::All,
                _ => return Err(wrong("off, dropped or all")),
            }
        }
        "gpu_backend" => {
            let name = serde_json::Value::from(text()?);
            config.gpu_backend =
                serde_json::from_value(name).map_err(|_| wrong("native or rutabaga"))?;
        }
        "name" => {
            return Err(Error::Setting(
                "a name is not changed like a setting; use `bulkhead rename`".to_owned(),
            ));
        }
        _ => {
            let known: Vec<&str> = all(config).iter().map(|(key, _)| *key).collect();
            let key: String = key
                .chars()
                .take(80)
                .flat_map(char::escape_default)
                .collect();
            return Err(Error::Setting(format!(
                "there is no setting `{key}`; there are {}",
                known.join(", ")
            )));
        }
    }
    Ok(())
}

/// A list, also as a person writes it; `-` is an empty one.
fn words(value: &Setting) -> Option<Vec<&str>> {
    match value {
        Setting::List(words) => Some(words.iter().map(String::as_str).collect()),
        Setting::Text(text) if text.trim() == "-" => Some(Vec::new()),
        Setting::Text(text) => {
            let words = text.split([',', ' ', '\t']);
            Some(words.filter(|word| !word.is_empty()).collect())
        }
        Setting::Number(_) => None,
    }
}

/// Rules, also as a person writes them, with a `;` between two.
fn rules(value: &Setting, now: u64) -> Result<Vec<Rule>> {
    let texts: Vec<&str> = match value {
        Setting::List(rules) => rules.iter().map(String::as_str).collect(),
        Setting::Text(text) if text.trim() == "-" => Vec::new(),
        Setting::Text(text) => text
            .split(';')
            .filter(|rule| !rule.trim().is_empty())
            .collect(),
        Setting::Number(_) => {
            return Err(Error::Setting(format!("{FIREWALL}: use rules, or -")));
        }
    };
    let rules = texts.into_iter().map(|text| rule(text, now));
    rules.collect()
}

/// One rule, as a person writes it.
pub fn rule(text: &str, now: u64) -> Result<Rule> {
    Rule::parse(text.trim(), now).map_err(|error| {
        let text: String = text
            .trim()
            .chars()
            .take(80)
            .flat_map(char::escape_debug)
            .collect();
        Error::Setting(format!("the rule `{text}`: {error}"))
    })
}

/// In seconds since 1970.
pub fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

fn size_mib(text: &str) -> Option<u32> {
    let text = text.trim();
    let (digits, factor) = match text.strip_suffix(['G', 'g']) {
        Some(digits) => (digits, 1024),
        None => (text.strip_suffix(['M', 'm']).unwrap_or(text), 1),
    };
    digits.parse::<u32>().ok()?.checked_mul(factor)
}

/// A setting that changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Which.
    pub key: &'static str,
    /// As a person reads it.
    pub old: String,
    /// As a person reads it.
    pub new: String,
}

/// What changes from `old` to `new`.
pub fn differences(old: &DomainConfig, new: &DomainConfig) -> Vec<Difference> {
    all(old)
        .into_iter()
        .zip(all(new))
        .filter(|(old, new)| old != new)
        .map(|((key, old), (_, new))| Difference {
            key,
            old: old.to_text(),
            new: new.to_text(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use bulkhead_protocol::Label;

    use super::*;

    fn config() -> DomainConfig {
        DomainConfig::new("work".parse().unwrap(), Label::Red)
    }

    fn with(key: &str, value: &str) -> Result<DomainConfig> {
        configure(
            config(),
            [(key.to_owned(), Setting::Text(value.to_owned()))],
        )
    }

    #[test]
    fn every_setting_takes_what_it_shows() {
        let mut changed = config();
        for (key, value) in [
            ("label", "blue"),
            ("kind", "named-disposable"),
            ("template", "office"),
            ("memory_mib", "2G"),
            ("cpus", "7"),
            ("home_size_mib", "9000M"),
            ("autostart", "yes"),
            ("snapshots", "0"),
            ("stop_timeout_s", "9"),
            ("tags", "b, a c"),
            ("default_disposable", "web"),
            ("provides_network", "yes"),
            ("net_domain", "sys-net"),
            (
                "firewall",
                "accept dsthost=a.org proto=tcp dstports=443; drop comment=b, c",
            ),
            (
                "card_address",
                "192.0.2.15/24 gateway=192.0.2.1 dns=192.0.2.53",
            ),
            ("firewall_default", "drop"),
            ("firewall_log", "all"),
            ("pci", "0000:02:00.0, 0000:01:00.0"),
            ("gpu_backend", "rutabaga"),
        ] {
            let value = Setting::Text(value.to_owned());
            changed = configure(changed, [(key.to_owned(), value)]).unwrap();
        }
        let different = differences(&config(), &changed);
        // It has two ways out already, by net_domain and by pci: host_network would be one more.
        assert_eq!(different.len() + 1, all(&changed).len(), "{different:?}");
        let shown = all(&changed);
        let copy = shown
            .iter()
            .map(|(key, value)| ((*key).to_owned(), value.clone()));
        assert_eq!(configure(config(), copy).unwrap(), changed);
        let copy = shown
            .iter()
            .map(|(key, value)| ((*key).to_owned(), Setting::Text(value.to_text())));
        assert_eq!(configure(config(), copy).unwrap(), changed);
        // Back again, as it was shown.
        let back = all(&config())
            .into_iter()
            .map(|(key, value)| (key.to_owned(), Setting::Text(value.to_text())));
        assert_eq!(configure(changed, back).unwrap(), config());
    }

    #[test]
    fn wrong_values_are_named_with_what_is_right() {
        for (key, value, expected) in [
            ("label", "pink", "unknown label `pink`"),
            (
                "kind",
                "disposable",
                "use app, named-disposable, standalone or service",
            ),
            ("autostart", "maybe", "use yes or no"),
            ("memory_mib", "much", "MiB, or a number with M or G"),
            ("memory_mib", "4", "memory_mib = 4 is not possible"),
            ("cpus", "300", "use 1 to 32"),
            ("home_size_mib", "9999999G", "not possible"),
            ("snapshots", "-1", "use a number"),
            ("tags", "A", "`A` is no tag"),
            ("default_disposable", "A", "`A` is no name"),
            ("provides_network", "maybe", "use yes or no"),
            ("host_network", "yes", "host_network is for network domains"),
            ("net_domain", "A", "`A` is no name"),
            ("net_domain", "work", "is the domain itself"),
            (
                "firewall",
                "drop; allow",
                "the rule `allow`: it begins with `accept` or `drop`",
            ),
            (
                "firewall",
                "accept dsthost=a b",
                "the rule `accept dsthost=a b`: `b` is no part",
            ),
            (
                "card_address",
                "192.0.2.15",
                "is no fixed address: write it as",
            ),
            ("firewall_default", "deny", "use accept or drop"),
            ("firewall_log", "some", "use off, dropped or all"),
            ("pci", "eth0", "\"eth0\" is no address of a PCI device"),
            ("gpu_backend", "magic", "native or rutabaga"),
            ("name", "x", "bulkhead rename"),
            (
                "ram",
                "1",
                "there is no setting `ram`; there are label, kind",
            ),
        ] {
            let error = with(key, value).unwrap_err().to_string();
            assert!(error.contains(expected), "{key} = {value}: {error}");
        }
    }

    #[test]
    fn names_of_the_host_and_of_disposables_are_not_for_people() {
        for reserved in ["dom0", "disp0", "disp1234", "disp99999999"] {
            let error = check_name(&reserved.parse().unwrap()).unwrap_err();
            assert!(error.to_string().contains("choose another name"), "{error}");
        }
        for fine in ["disp", "display", "disp-1", "disp1a", "dom1", "a"] {
            check_name(&fine.parse().unwrap()).unwrap();
        }
    }
}
