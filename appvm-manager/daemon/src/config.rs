//! One domain's configuration: `NAME.toml`.

use std::fmt::Write;
use std::path::Path;

use bulkhead_protocol::{DomainName, Label};
use bulkhead_vmm_api::GpuBackend;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// What a domain is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Applications on a template's root, with a home of its own.
    #[default]
    App,
    /// Made for one application, and removed with it.
    Disposable,
}

impl Kind {
    /// As in the file.
    pub fn name(self) -> &'static str {
        match self {
            Kind::App => "app",
            Kind::Disposable => "disposable",
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
    /// The size of its home volume when that is made; the file takes only what is used.
    #[serde(default = "default_home_size_mib")]
    pub home_size_mib: u32,
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
            stop_timeout_s: default_stop_timeout_s(),
            gpu_backend: GpuBackend::default(),
        }
    }

    /// From the text of `file`; errors name the file, the line and what is expected.
    pub fn parse(file: &Path, text: &str) -> Result<Self> {
        let config: DomainConfig = toml::from_str(text).map_err(|error| Error::Config {
            file: file.to_owned(),
            line: error.span().map_or(1, |span| line_of(text, span.start)),
            reason: format!(
                "{}; correct the line",
                error.message().trim_end().replace('\n', ", ")
            ),
        })?;
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
            ("stop_timeout_s", u64::from(self.stop_timeout_s), 1, 600),
        ];
        for (key, value, least, most) in ranges {
            if !(least..=most).contains(&value) {
                let reason = format!("{key} = {value} is not possible; use {least} to {most}");
                return Err((key, reason));
            }
        }
        Ok(())
    }

    /// The file's text, with a comment for each setting.
    pub fn to_text(&self) -> String {
        let mut text = String::from("# A Bulkhead domain. `bulkhead help create` explains each.\n");
        let lines = [
            ("name", format!("\"{}\"", self.name), ""),
            (
                "label",
                format!("\"{}\"", self.label),
                "the colour of its windows' borders",
            ),
            ("kind", format!("\"{}\"", self.kind.name()), ""),
            (
                "template",
                format!("\"{}\"", self.template),
                "where its programs come from",
            ),
            ("memory_mib", self.memory_mib.to_string(), ""),
            ("cpus", self.cpus.to_string(), ""),
            (
                "home_size_mib",
                self.home_size_mib.to_string(),
                "when the home is made",
            ),
            (
                "stop_timeout_s",
                self.stop_timeout_s.to_string(),
                "then it is switched off",
            ),
        ];
        for (key, value, comment) in lines {
            let comment = if comment.is_empty() {
                String::new()
            } else {
                format!("  # {comment}")
            };
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{key} = {value}{comment}");
        }
        if self.gpu_backend == GpuBackend::Rutabaga {
            text.push_str("gpu_backend = \"rutabaga\"  # instead of Bulkhead's own\n");
        }
        text
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text
        .bytes()
        .take(offset)
        .filter(|&byte| byte == b'\n')
        .count()
}

fn line_with(text: &str, key: &str) -> usize {
    let assigns = |line: &str| {
        line.trim_start()
            .strip_prefix(key)
            .is_some_and(|rest| rest.trim_start().starts_with('='))
    };
    1 + text.lines().position(assigns).unwrap_or(0)
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
        assert_eq!(parse(&config.to_text()).unwrap(), config);
        config.gpu_backend = GpuBackend::Native;
        assert_eq!(parse(&config.to_text()).unwrap(), config);
        assert_eq!(parse("name = \"work\"\nlabel = \"red\"\n").unwrap(), config);
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
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text:?}: {error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }
}
