//! A domain's configuration as the text of its file: read with errors that name the line, written, and
//! edited so that what people wrote stays.

use std::path::Path;

use bulkhead_net::rules::{Action, Log};
use bulkhead_vmm_api::GpuBackend;

use super::DomainConfig;
use crate::{Error, Result};

impl DomainConfig {
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
    use bulkhead_protocol::Label;

    use super::*;
    use crate::pci::PciDevices;
    use crate::tags::Tags;

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
