//! What a tunnel is: the file that providers give, as `wg-quick` has it, without what runs programs.
//!
//! Every line is understood or refused. IPv6 addresses are read and left out: nothing here carries them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};

use crate::address::is_of_a_machine;

const MAX_PEERS: usize = 16;
const MAX_LIST: usize = 64;

/// A tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunnel {
    private_key: Key,
    /// This end's addresses.
    pub addresses: Vec<Ipv4Addr>,
    /// Who is asked for names.
    pub servers: Vec<Ipv4Addr>,
    /// The longest packet.
    pub mtu: Option<u16>,
    listen_port: Option<u16>,
    /// Its other ends.
    pub peers: Vec<Peer>,
}

/// The other end of a tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    public_key: Key,
    preshared_key: Option<Key>,
    /// Where it is.
    pub endpoint: SocketAddrV4,
    /// What is behind it.
    pub allowed: Vec<(Ipv4Addr, u8)>,
    keepalive_s: Option<u16>,
}

/// A key, in base 64 as the tools write it. It is shown nowhere.
#[derive(Clone, PartialEq, Eq)]
struct Key(String);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

/// Why a text is no tunnel's.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TunnelError {
    /// A line.
    #[error("line {0}: {1}")]
    Line(usize, String),
    /// Something is not said.
    #[error("{0} is missing")]
    Missing(String),
}

/// What was read of a section so far.
#[derive(Default)]
struct Draft {
    private_key: Option<Key>,
    addresses: Option<Vec<Ipv4Addr>>,
    servers: Option<Vec<Ipv4Addr>>,
    mtu: Option<u16>,
    listen_port: Option<u16>,
    peers: Vec<PeerDraft>,
}

#[derive(Default)]
struct PeerDraft {
    public_key: Option<Key>,
    preshared_key: Option<Key>,
    endpoint: Option<SocketAddrV4>,
    allowed: Option<Vec<(Ipv4Addr, u8)>>,
    keepalive_s: Option<u16>,
}

#[derive(Clone, Copy)]
enum Section {
    None,
    Interface,
    Peer,
}

impl Tunnel {
    /// From a file's text.
    pub fn parse(text: &str) -> Result<Self, TunnelError> {
        let (mut draft, mut section, mut begun) = (Draft::default(), Section::None, false);
        for (at, line) in text.lines().enumerate() {
            let wrong = |words: String| TunnelError::Line(at + 1, words);
            let line = line.split('#').next().unwrap_or_default().trim();
            match line.to_ascii_lowercase().as_str() {
                "" => continue,
                "[interface]" if begun => return Err(wrong("a second [Interface]".to_owned())),
                "[interface]" => {
                    (section, begun) = (Section::Interface, true);
                    continue;
                }
                "[peer]" if draft.peers.len() == MAX_PEERS => {
                    return Err(wrong(format!("more than {MAX_PEERS} peers")));
                }
                "[peer]" => {
                    section = Section::Peer;
                    draft.peers.push(PeerDraft::default());
                    continue;
                }
                _ => {}
            }
            let Some((key, value)) = line.split_once('=') else {
                return Err(wrong("neither a section nor `Key = Value`".to_owned()));
            };
            let (key, value) = (key.trim(), value.trim());
            let taken = match (section, draft.peers.last_mut()) {
                (Section::Interface, _) => draft.take(key, value),
                (Section::Peer, Some(peer)) => peer.take(key, value),
                _ => Err("it is before [Interface]".to_owned()),
            };
            taken.map_err(wrong)?;
        }
        draft.finish()
    }

    /// For `wg setconf`; `mark` is what the kernel puts on the tunnel's packets.
    pub fn for_wg(&self, mark: u32) -> String {
        let mut text = format!(
            "[Interface]\nPrivateKey = {}\nFwMark = {mark:#x}\n",
            self.private_key.0
        );
        if let Some(port) = self.listen_port {
            text.push_str(&format!("ListenPort = {port}\n"));
        }
        for peer in &self.peers {
            text.push_str(&format!(
                "[Peer]\nPublicKey = {}\nEndpoint = {}\n",
                peer.public_key.0, peer.endpoint
            ));
            if let Some(key) = &peer.preshared_key {
                text.push_str(&format!("PresharedKey = {}\n", key.0));
            }
            if let Some(seconds) = peer.keepalive_s {
                text.push_str(&format!("PersistentKeepalive = {seconds}\n"));
            }
            for (network, prefix) in &peer.allowed {
                text.push_str(&format!("AllowedIPs = {network}/{prefix}\n"));
            }
        }
        text
    }
}

impl Draft {
    fn take(&mut self, key: &str, value: &str) -> Result<(), String> {
        match key.to_ascii_lowercase().as_str() {
            "privatekey" => once(&mut self.private_key, key, read_key(value)?),
            "address" => {
                let networks = networks(value)?.into_iter();
                let addresses = networks.map(|(address, _)| machine(address));
                let addresses = addresses.collect::<Result<Vec<_>, _>>()?;
                more(&mut self.addresses, addresses)
            }
            "dns" => {
                let networks = networks(value)?.into_iter();
                let servers = networks.map(|(address, prefix)| match prefix {
                    32 => machine(address),
                    _ => Err(format!("{address}/{prefix} is no address")),
                });
                let servers = servers.collect::<Result<Vec<_>, _>>()?;
                more(&mut self.servers, servers)
            }
            "mtu" => once(&mut self.mtu, key, number(value, 576..=9000)?),
            "listenport" => once(&mut self.listen_port, key, number(value, 1..=65535)?),
            "preup" | "postup" | "predown" | "postdown" => Err(format!(
                "`{}` would run a program; no tunnel's file may",
                shown(key)
            )),
            "table" | "fwmark" | "saveconfig" => {
                Err(format!("`{}` is not the file's to say here", shown(key)))
            }
            _ => Err(format!("[Interface] has no `{}`", shown(key))),
        }
    }

    fn finish(self) -> Result<Tunnel, TunnelError> {
        let missing = |what: &str| TunnelError::Missing(what.to_owned());
        let addresses = self.addresses.unwrap_or_default();
        if addresses.is_empty() {
            return Err(missing("an IPv4 `Address` in [Interface]"));
        }
        let servers = self.servers.unwrap_or_default();
        let peers: Result<Vec<Peer>, TunnelError> =
            self.peers.into_iter().map(PeerDraft::finish).collect();
        let peers = peers?;
        if peers.is_empty() {
            return Err(missing("[Peer]"));
        }
        Ok(Tunnel {
            private_key: self
                .private_key
                .ok_or_else(|| missing("`PrivateKey` in [Interface]"))?,
            addresses,
            servers,
            mtu: self.mtu,
            listen_port: self.listen_port,
            peers,
        })
    }
}

impl PeerDraft {
    fn take(&mut self, key: &str, value: &str) -> Result<(), String> {
        match key.to_ascii_lowercase().as_str() {
            "publickey" => once(&mut self.public_key, key, read_key(value)?),
            "presharedkey" => once(&mut self.preshared_key, key, read_key(value)?),
            "endpoint" => once(&mut self.endpoint, key, endpoint(value)?),
            "allowedips" => {
                // Bits behind the length say nothing, and `ip` would refuse them.
                let masked = |(address, prefix): (Ipv4Addr, u8)| {
                    let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
                    (Ipv4Addr::from(u32::from(address) & mask), prefix)
                };
                let networks = networks(value)?.into_iter().map(masked).collect();
                more(&mut self.allowed, networks)
            }
            "persistentkeepalive" => {
                let seconds = match value {
                    "off" => 0,
                    _ => number(value, 0..=65535)?,
                };
                once(&mut self.keepalive_s, key, seconds)
            }
            _ => Err(format!("[Peer] has no `{}`", shown(key))),
        }
    }

    fn finish(self) -> Result<Peer, TunnelError> {
        let missing = |what: &str| TunnelError::Missing(format!("{what} of a [Peer]"));
        let allowed = self.allowed.unwrap_or_default();
        if allowed.is_empty() {
            return Err(missing("an IPv4 network in `AllowedIPs`"));
        }
        Ok(Peer {
            public_key: self.public_key.ok_or_else(|| missing("`PublicKey`"))?,
            preshared_key: self.preshared_key,
            endpoint: self.endpoint.ok_or_else(|| missing("`Endpoint`"))?,
            allowed,
            keepalive_s: self.keepalive_s,
        })
    }
}

fn once<T>(place: &mut Option<T>, key: &str, value: T) -> Result<(), String> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(format!("`{}` a second time", shown(key))),
    }
}

fn more<T>(place: &mut Option<Vec<T>>, values: Vec<T>) -> Result<(), String> {
    let list = place.get_or_insert_default();
    list.extend(values);
    match list.len() <= MAX_LIST {
        true => Ok(()),
        false => Err(format!("more than {MAX_LIST} of them")),
    }
}

/// What may be part of a message; a value may be a secret and never is.
fn shown(key: &str) -> String {
    let plain = key.chars().filter(char::is_ascii_alphanumeric);
    plain.take(24).collect()
}

/// 32 bytes: 43 digits, of which the last has two bits to spare, and one to fill up.
fn read_key(value: &str) -> Result<Key, String> {
    let is_digit = |byte: u8| byte.is_ascii_alphanumeric() || b"+/".contains(&byte);
    let bytes = value.as_bytes();
    let is_key = bytes.len() == 44
        && bytes[..43].iter().copied().all(is_digit)
        && b"AEIMQUYcgkosw048".contains(&bytes[42])
        && bytes[43] == b'=';
    match is_key {
        true => Ok(Key(value.to_owned())),
        false => Err("no key: 44 letters of base 64 that end with `=`".to_owned()),
    }
}

/// Addresses with perhaps a length each, without those of IPv6.
fn networks(value: &str) -> Result<Vec<(Ipv4Addr, u8)>, String> {
    let mut networks = Vec::new();
    for word in value.split(',').map(str::trim) {
        let wrong = || format!("`{}` is neither address nor network", plain_word(word));
        let (address, prefix) = match word.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (word, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix: u16 = match prefix {
            Some(prefix) => prefix.parse().map_err(|_| wrong())?,
            None => most,
        };
        if prefix > most {
            return Err(wrong());
        }
        if let IpAddr::V4(address) = address {
            networks.push((address, prefix as u8));
        }
    }
    Ok(networks)
}

fn plain_word(word: &str) -> String {
    let plain = word.chars().filter(|c| c.is_ascii_graphic());
    plain.take(40).collect()
}

fn endpoint(value: &str) -> Result<SocketAddrV4, String> {
    let end: SocketAddrV4 = value.parse().map_err(|_| {
        "`Endpoint` is no IPv4 address with a port, like 192.0.2.1:51820: a name would have to be \
         asked outside of the tunnel"
            .to_owned()
    })?;
    machine(*end.ip())?;
    match end.port() {
        0 => Err("port 0 is none".to_owned()),
        _ => Ok(end),
    }
}

fn machine(address: Ipv4Addr) -> Result<Ipv4Addr, String> {
    match is_of_a_machine(address) {
        true => Ok(address),
        false => Err(format!("{address} is no address of a machine")),
    }
}

fn number(value: &str, range: std::ops::RangeInclusive<u16>) -> Result<u16, String> {
    let (least, most) = (range.start(), range.end());
    let wrong = || format!("no number from {least} to {most}");
    let number: u16 = value.parse().map_err(|_| wrong())?;
    range.contains(&number).then_some(number).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    const OTHER: &str = "BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBA=";

    fn text() -> String {
        format!(
            "# From a provider\n[Interface]\nPrivateKey = {KEY}\nAddress = 10.9.0.2/24, fd00::2/128\n\
             DNS = 10.9.0.1\nMTU = 1380\n\n[Peer]  # Far away\nPublicKey = {OTHER}\n\
             Endpoint = 192.0.2.1:51820\nAllowedIPs = 0.0.0.0/0, ::/0\nAllowedIPs = 10.1.2.3/16\n\
             PersistentKeepalive = 25\n"
        )
    }

    #[test]
    fn a_providers_file_is_read() {
        let tunnel = Tunnel::parse(&text()).unwrap();
        assert_eq!(tunnel.addresses, [Ipv4Addr::new(10, 9, 0, 2)]);
        assert_eq!(tunnel.servers, [Ipv4Addr::new(10, 9, 0, 1)]);
        assert_eq!(tunnel.mtu, Some(1380));
        let peer = &tunnel.peers[0];
        assert_eq!(peer.endpoint.to_string(), "192.0.2.1:51820");
        let networks = [(Ipv4Addr::UNSPECIFIED, 0), (Ipv4Addr::new(10, 1, 0, 0), 16)];
        assert_eq!(peer.allowed, networks);
        assert_eq!(
            tunnel.for_wg(0xab),
            format!(
                "[Interface]\nPrivateKey = {KEY}\nFwMark = 0xab\n[Peer]\nPublicKey = {OTHER}\n\
                 Endpoint = 192.0.2.1:51820\nPersistentKeepalive = 25\nAllowedIPs = 0.0.0.0/0\n\
                 AllowedIPs = 10.1.0.0/16\n"
            )
        );
        assert!(!format!("{tunnel:?}").contains(KEY));
    }

    #[test]
    fn what_is_not_understood_is_refused_with_its_line() {
        for (from, to, expected) in [
            ("[Interface]", "", "line 3: it is before [Interface]"),
            (
                "MTU = 1380",
                "PostUp = reboot",
                "line 6: `PostUp` would run a program",
            ),
            (
                "MTU = 1380",
                "Table = off",
                "line 6: `Table` is not the file's",
            ),
            ("MTU = 1380", "MTU = 70000", "line 6: no number from 576"),
            (
                "MTU = 1380",
                "Colour = red",
                "line 6: [Interface] has no `Colour`",
            ),
            ("MTU = 1380", "MTU", "line 6: neither a section"),
            ("MTU = 1380", "[Interface]", "line 6: a second [Interface]"),
            (
                "MTU = 1380",
                "DNS = example.org",
                "`example.org` is neither",
            ),
            (
                "DNS = 10.9.0.1",
                "DNS = 127.0.0.1",
                "127.0.0.1 is no address of a machine",
            ),
            (
                "192.0.2.1:51820",
                "vpn.example:51820",
                "line 10: `Endpoint` is no IPv4",
            ),
            ("192.0.2.1:51820", "192.0.2.1:0", "port 0"),
            (
                "0.0.0.0/0, ::/0",
                "0.0.0.0/33",
                "neither address nor network",
            ),
            ("[Peer]", "PrivateKey = AAAA", "line 8: no key"),
            ("PersistentKeepalive", "PublicKey", "line 13: no key"),
            (
                "10.9.0.2/24, ",
                "",
                "an IPv4 `Address` in [Interface] is missing",
            ),
            (
                "Endpoint = 192.0.2.1:51820",
                "",
                "`Endpoint` of a [Peer] is missing",
            ),
        ] {
            let text = text();
            assert!(text.contains(from), "{from}");
            let error = Tunnel::parse(&text.replacen(from, to, 1)).unwrap_err();
            let told = error.to_string();
            assert!(told.contains(expected), "{from} → {to}: {told}");
        }
        let twice = text().replacen("MTU = 1380", "MTU = 1380\nMTU = 1380", 1);
        let told = Tunnel::parse(&twice).unwrap_err().to_string();
        assert_eq!(told, "line 7: `MTU` a second time");
        let many = format!("{}{}", text(), "[Peer]\n".repeat(MAX_PEERS));
        assert!(
            Tunnel::parse(&many)
                .unwrap_err()
                .to_string()
                .contains("more than 16")
        );
        let none = text().split("[Peer]").next().unwrap().to_owned();
        assert_eq!(
            Tunnel::parse(&none).unwrap_err().to_string(),
            "[Peer] is missing"
        );
    }

    #[test]
    fn secrets_are_never_shown() {
        for secret in [
            "aGVsbG8gd29ybGQ",
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAB=",
        ] {
            for key in ["PrivateKey", "Privatekez"] {
                let error = Tunnel::parse(&format!("[Interface]\n{key} = {secret}\n"));
                assert!(!error.unwrap_err().to_string().contains(secret));
            }
        }
    }
}
