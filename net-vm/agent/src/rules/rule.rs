//! One rule, in the words of Qubes' `qvm-firewall`.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::host::{HostName, InvalidName};

/// A longer rule is none, in bytes.
pub const MAX_RULE: usize = 400;
/// A longer comment is none, in bytes.
pub const MAX_COMMENT: usize = 80;
/// The key whose value goes to the end of the rule.
const COMMENT: &str = "comment=";
/// What separates rules where several are written as one text, and what would end a value.
const NOT_IN_COMMENTS: &[u8] = b"\"\\;";

/// What becomes of what fits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It passes.
    #[default]
    Accept,
    /// It vanishes.
    Drop,
}

/// Where a packet is going.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// To an address of this network: its first address, and how many bits all have in common
    /// (0 to 32).
    Network(Ipv4Addr, u8),
    /// To an address that the client was told for this name.
    Name(HostName),
    /// To the network domain's own forwarder for names (`specialtarget=dns`).
    Dns,
}

/// A protocol over IPv4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Number 6.
    Tcp,
    /// Number 17.
    Udp,
    /// Number 1.
    Icmp,
}

/// A rule. What it does not name may be anything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Rule {
    /// What becomes of what fits.
    pub action: Action,
    /// Where it is going (`dsthost`, `dst4`, `specialtarget`).
    pub destination: Option<Destination>,
    /// Its protocol (`proto`).
    pub protocol: Option<Protocol>,
    /// The first and the last port, of TCP or UDP (`dstports`).
    pub ports: Option<(u16, u16)>,
    /// The type of an ICMP message (`icmptype`).
    pub icmp_type: Option<u8>,
    /// When it ends, in seconds since 1970 (`expire`).
    pub expire: Option<u64>,
    /// What a person wants to remember (`comment`).
    pub comment: Option<String>,
}

/// Why a text is no rule.
#[derive(Debug, thiserror::Error)]
pub enum RuleError {
    /// Too much of it.
    #[error("it is longer than {MAX_RULE} bytes")]
    TooLong,
    /// It does not say what is to happen.
    #[error("it begins with `accept` or `drop`, not with `{0}`")]
    NoAction(String),
    /// No `key=value`.
    #[error(
        "`{0}` is no part of a rule; there are dsthost=, dst4=, specialtarget=dns, proto=, \
         dstports=, icmptype=, expire= and comment="
    )]
    Unknown(String),
    /// The same twice.
    #[error("{0} is there twice")]
    Twice(&'static str),
    /// A value that cannot be.
    #[error("{key}={value} is not possible; use {expected}")]
    Value {
        /// Of which key.
        key: &'static str,
        /// What was written.
        value: String,
        /// What may be written.
        expected: &'static str,
    },
    /// No name.
    #[error("dsthost={0}: {1}")]
    Name(String, InvalidName),
    /// Keys that do not go together.
    #[error("{0}")]
    Together(&'static str),
}

impl Action {
    /// As in rules.
    pub fn name(self) -> &'static str {
        match self {
            Action::Accept => "accept",
            Action::Drop => "drop",
        }
    }
}

impl FromStr for Action {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        match text {
            "accept" => Ok(Action::Accept),
            "drop" => Ok(Action::Drop),
            other => Err(RuleError::NoAction(short(other))),
        }
    }
}

impl Protocol {
    /// As in rules.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Icmp => "icmp",
        }
    }
}

impl Rule {
    /// From a person's text, where `expire=+N` means so many seconds from `now` (seconds since 1970).
    pub fn parse(text: &str, now: u64) -> Result<Self, RuleError> {
        if text.len() > MAX_RULE {
            return Err(RuleError::TooLong);
        }
        let (text, comment) = match text.split_once(COMMENT) {
            // Not the end of some other word.
            Some((before, comment)) if before.is_empty() || before.ends_with(' ') => {
                (before, Some(comment))
            }
            _ => (text, None),
        };
        let mut words = text.split_ascii_whitespace();
        let action = words.next().unwrap_or_default();
        let action = action.strip_prefix("action=").unwrap_or(action).parse()?;
        let mut rule = Rule {
            action,
            destination: None,
            protocol: None,
            ports: None,
            icmp_type: None,
            expire: None,
            comment: comment.map(checked_comment).transpose()?,
        };
        for word in words {
            rule.take(word, now)?;
        }
        rule.check()?;
        Ok(rule)
    }

    fn take(&mut self, word: &str, now: u64) -> Result<(), RuleError> {
        let unknown = || RuleError::Unknown(short(word));
        let (key, value) = word.split_once('=').ok_or_else(unknown)?;
        match key {
            "dsthost" => once("destination", &mut self.destination, host(value)?),
            "dst4" => {
                let network = network(value).ok_or_else(|| wrong("dst4", value, NETWORK))?;
                once("destination", &mut self.destination, network)
            }
            "dst6" => Err(RuleError::Together(
                "dst6= is not possible: the network carries no IPv6, so nothing of it passes",
            )),
            "specialtarget" => match value {
                "dns" => once("destination", &mut self.destination, Destination::Dns),
                _ => Err(wrong("specialtarget", value, "dns")),
            },
            "proto" => {
                let protocol = match value {
                    "tcp" => Protocol::Tcp,
                    "udp" => Protocol::Udp,
                    "icmp" => Protocol::Icmp,
                    _ => return Err(wrong("proto", value, "tcp, udp or icmp")),
                };
                once("proto", &mut self.protocol, protocol)
            }
            "dstports" => {
                let expected = "a port or two with a `-`, from 1 to 65535";
                let ports = ports(value).ok_or_else(|| wrong("dstports", value, expected))?;
                once("dstports", &mut self.ports, ports)
            }
            "icmptype" => {
                let kind = value
                    .parse()
                    .map_err(|_| wrong("icmptype", value, "0 to 255"))?;
                once("icmptype", &mut self.icmp_type, kind)
            }
            "expire" => {
                let expected = "+N with s, min, h or d, or seconds since 1970";
                let end = end(value, now).ok_or_else(|| wrong("expire", value, expected))?;
                once("expire", &mut self.expire, end)
            }
            _ => Err(unknown()),
        }
    }

    fn check(&self) -> Result<(), RuleError> {
        let has_ports = matches!(self.protocol, Some(Protocol::Tcp | Protocol::Udp));
        if self.ports.is_some() && !has_ports {
            return Err(RuleError::Together(
                "dstports= needs proto=tcp or proto=udp",
            ));
        }
        if self.icmp_type.is_some() && self.protocol != Some(Protocol::Icmp) {
            return Err(RuleError::Together("icmptype= needs proto=icmp"));
        }
        let is_dns = self.destination == Some(Destination::Dns);
        if is_dns && (self.protocol.is_some() || self.ports.is_some()) {
            return Err(RuleError::Together(
                "specialtarget=dns stands without proto= and dstports=: names are asked for by \
                 UDP and TCP",
            ));
        }
        Ok(())
    }

    /// Whether it has come to its end, at `now` (seconds since 1970).
    pub fn has_ended(&self, now: u64) -> bool {
        self.expire.is_some_and(|end| end <= now)
    }

    /// Whether every question to the network domain's forwarder fits.
    pub fn covers_dns(&self) -> bool {
        match self.destination {
            Some(Destination::Dns) => true,
            None => self.protocol.is_none(),
            Some(_) => false,
        }
    }
}

const NETWORK: &str = "an address, or a network like 192.0.2.0/24";

/// Into a place that must be empty.
fn once<T>(what: &'static str, place: &mut Option<T>, value: T) -> Result<(), RuleError> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(RuleError::Twice(what)),
    }
}

fn wrong(key: &'static str, value: &str, expected: &'static str) -> RuleError {
    RuleError::Value {
        key,
        value: short(value),
        expected,
    }
}

/// So much of it as an error shows.
fn short(text: &str) -> String {
    text.chars().take(80).flat_map(char::escape_debug).collect()
}

fn host(text: &str) -> Result<Destination, RuleError> {
    // What looks like an address is none of a name's.
    if text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || b"./".contains(&byte))
    {
        return network(text).ok_or_else(|| wrong("dsthost", text, NETWORK));
    }
    let name = text
        .parse()
        .map_err(|error| RuleError::Name(short(text), error))?;
    Ok(Destination::Name(name))
}

/// A network whose bits behind its length are zero, so that nobody means one address and names many.
fn network(text: &str) -> Option<Destination> {
    let (address, bits) = text.split_once('/').unwrap_or((text, "32"));
    let address: Ipv4Addr = address.parse().ok()?;
    let bits: u8 = bits.parse().ok().filter(|bits| *bits <= 32)?;
    let rest = u32::MAX.checked_shr(bits.into()).unwrap_or(0);
    (address.to_bits() & rest == 0).then_some(Destination::Network(address, bits))
}

fn ports(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (1..=last).contains(&first).then_some((first, last))
}

fn end(text: &str, now: u64) -> Option<u64> {
    let Some(from_now) = text.strip_prefix('+') else {
        // The kernel counts in nanoseconds.
        return text.parse().ok().filter(|end| *end < 1 << 33);
    };
    let digits = from_now.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = from_now.split_at_checked(digits)?;
    let factor = match unit {
        "" | "s" => 1,
        "min" => 60,
        "h" => 3600,
        "d" => 24 * 3600,
        _ => return None,
    };
    let seconds = number.parse::<u32>().ok()?;
    now.checked_add(u64::from(seconds).checked_mul(factor)?)
}

fn checked_comment(text: &str) -> Result<String, RuleError> {
    let text = text.trim();
    let is_plain = |byte: u8| matches!(byte, b' '..=b'~') && !NOT_IN_COMMENTS.contains(&byte);
    match text.len() <= MAX_COMMENT && text.bytes().all(is_plain) {
        true => Ok(text.to_owned()),
        false => Err(wrong(
            "comment",
            text,
            "up to 80 plain characters without quotes, backslashes and semicolons",
        )),
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.action.name())?;
        match &self.destination {
            None => {}
            Some(Destination::Network(address, 32)) => write!(f, " dsthost={address}")?,
            Some(Destination::Network(address, bits)) => write!(f, " dsthost={address}/{bits}")?,
            Some(Destination::Name(name)) => write!(f, " dsthost={name}")?,
            Some(Destination::Dns) => f.write_str(" specialtarget=dns")?,
        }
        if let Some(protocol) = self.protocol {
            write!(f, " proto={}", protocol.name())?;
        }
        match self.ports {
            Some((first, last)) if first == last => write!(f, " dstports={first}")?,
            Some((first, last)) => write!(f, " dstports={first}-{last}")?,
            None => {}
        }
        if let Some(kind) = self.icmp_type {
            write!(f, " icmptype={kind}")?;
        }
        if let Some(end) = self.expire {
            write!(f, " expire={end}")?;
        }
        if let Some(comment) = &self.comment {
            write!(f, " {COMMENT}{comment}")?;
        }
        Ok(())
    }
}

/// From what was written by [`fmt::Display`], where no time is relative.
impl FromStr for Rule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        if text.contains(" expire=+") {
            return Err(wrong("expire", "+…", "seconds since 1970 here"));
        }
        Rule::parse(text, 0)
    }
}

impl TryFrom<String> for Rule {
    type Error = RuleError;

    fn try_from(text: String) -> Result<Self, RuleError> {
        text.parse()
    }
}

impl From<Rule> for String {
    fn from(rule: Rule) -> String {
        rule.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_written_as_it_is_read() {
        for (text, shown) in [
            ("accept", ""),
            ("drop", ""),
            ("action=accept", "accept"),
            ("accept dsthost=192.0.2.7", ""),
            ("accept dst4=192.0.2.7/32", "accept dsthost=192.0.2.7"),
            ("drop dsthost=10.0.0.0/8 proto=udp", ""),
            ("drop dst4=0.0.0.0/0", "drop dsthost=0.0.0.0/0"),
            (
                "accept dsthost=Files.Example.ORG.",
                "accept dsthost=files.example.org",
            ),
            ("accept dsthost=*.example.org proto=tcp dstports=443", ""),
            ("accept proto=tcp dstports=80-90", ""),
            (
                "accept dstports=80-80 proto=tcp",
                "accept proto=tcp dstports=80",
            ),
            ("accept proto=icmp icmptype=8", ""),
            ("accept specialtarget=dns", ""),
            (
                "accept dsthost=192.0.2.7 expire=+2min",
                "accept dsthost=192.0.2.7 expire=1120",
            ),
            ("drop expire=2000000000 comment=until then, all of it", ""),
            ("drop comment=a=b comment=c", ""),
        ] {
            let rule = Rule::parse(text, 1000).unwrap();
            let shown = if shown.is_empty() { text } else { shown };
            assert_eq!(rule.to_string(), shown);
            assert_eq!(shown.parse::<Rule>().unwrap(), rule);
        }
    }

    #[test]
    fn what_is_no_rule_is_told_why() {
        for (text, expected) in [
            ("", "begins with `accept` or `drop`, not with ``"),
            ("allow", "not with `allow`"),
            (
                "accept example.org",
                "`example.org` is no part of a rule; there are dsthost=",
            ),
            ("accept port=80", "`port=80` is no part"),
            (
                "accept dsthost=192.0.2.300",
                "dsthost=192.0.2.300 is not possible",
            ),
            (
                "accept dsthost=192.0.2.1/24",
                "dsthost=192.0.2.1/24 is not possible",
            ),
            (
                "accept dsthost=192.0.2.0/33",
                "not possible; use an address, or a network",
            ),
            ("accept dsthost=a_b.org", "dsthost=a_b.org: "),
            ("accept dst4=a.org", "dst4=a.org is not possible"),
            ("accept dst6=::1", "no IPv6"),
            (
                "accept dsthost=a.org dst4=192.0.2.1",
                "destination is there twice",
            ),
            ("accept proto=tcp proto=udp", "proto is there twice"),
            ("accept proto=sctp", "use tcp, udp or icmp"),
            ("accept dstports=80", "dstports= needs proto=tcp"),
            ("accept proto=icmp dstports=80", "dstports= needs proto=tcp"),
            ("accept proto=tcp dstports=0", "dstports=0 is not possible"),
            ("accept proto=tcp dstports=90-80", "dstports=90-80 is not"),
            ("accept proto=tcp dstports=70000", "from 1 to 65535"),
            ("accept icmptype=8", "needs proto=icmp"),
            ("accept proto=icmp icmptype=256", "0 to 255"),
            ("accept specialtarget=ntp", "use dns"),
            (
                "accept specialtarget=dns proto=udp",
                "stands without proto=",
            ),
            ("accept expire=soon", "expire=soon is not possible; use +N"),
            ("accept expire=+5w", "expire=+5w is not"),
            ("accept expire=99999999999999", "is not possible"),
            ("accept comment=\"x\"", "without quotes"),
            ("accept comment=a\u{202e}", "plain characters"),
        ] {
            let error = Rule::parse(text, 0).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
        assert!(Rule::parse(&format!("accept comment={}", "x".repeat(81)), 0).is_err());
        assert!(matches!(
            Rule::parse(&"accept ".repeat(100), 0),
            Err(RuleError::TooLong)
        ));
        // Its time is that of its writing.
        assert!("accept expire=+5".parse::<Rule>().is_err());
    }

    #[test]
    fn a_rule_ends_and_covers() {
        let rule = |text: &str| Rule::parse(text, 100).unwrap();
        assert!(!rule("drop expire=+5").has_ended(104));
        assert!(rule("drop expire=+5").has_ended(105));
        assert!(!rule("drop").has_ended(u64::MAX));
        for (text, covers) in [
            ("accept", true),
            ("drop specialtarget=dns", true),
            ("accept proto=udp", false),
            ("accept dsthost=0.0.0.0/0", false),
            ("accept dsthost=a.org", false),
        ] {
            assert_eq!(rule(text).covers_dns(), covers, "{text}");
        }
    }
}
