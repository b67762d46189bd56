//! `nft`, the program that sets the kernel's packet filter.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use serde::Deserialize;

const PROGRAM: &str = "/usr/sbin/nft";
/// So much of its complaints is shown.
const MAX_WORDS: u64 = 500;

/// What `nft --json list table` says, as far as it matters here.
#[derive(Debug, Default, Deserialize)]
struct Listing {
    nftables: Vec<Item>,
}

#[derive(Debug, Deserialize)]
struct Item {
    chain: Option<Named>,
    set: Option<Named>,
}

#[derive(Debug, Deserialize)]
struct Named {
    name: String,
}

/// Whether the program is there.
pub fn is_there() -> bool {
    Path::new(PROGRAM).exists()
}

/// Does what `script` says, all of it or nothing.
pub fn run(script: &str) -> io::Result<()> {
    let mut child = Command::new(PROGRAM)
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    // It may end before it has read all.
    let told = child
        .stdin
        .take()
        .map_or(Ok(()), |mut stdin| stdin.write_all(script.as_bytes()));
    let mut words = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        stderr.take(MAX_WORDS).read_to_end(&mut words)?;
    }
    match child.wait()?.success() {
        true => told,
        false => Err(io::Error::other(
            String::from_utf8_lossy(&words).trim().to_owned(),
        )),
    }
}

/// The chains and sets of a table, as JSON; of one that is not there, nothing.
pub fn present(table: &str) -> io::Result<Vec<u8>> {
    let output = Command::new(PROGRAM)
        .args(["--json", "--terse", "list", "table", "ip", table])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()?;
    Ok(match output.status.success() {
        true => output.stdout,
        false => Vec::new(),
    })
}

/// What takes away the chains and sets of a table that new rules do not have. The kernel keeps them
/// when rules are replaced.
pub fn leftovers(present: &[u8], rules: &str, table: &str) -> String {
    let listing: Listing = serde_json::from_slice(present).unwrap_or_default();
    let kept: BTreeSet<(&str, &str)> = rules
        .lines()
        .filter_map(|line| {
            let (kind, rest) = line.trim().split_once(' ')?;
            Some((kind, rest.split(' ').next()?))
        })
        .collect();
    let mut text = String::new();
    for (kind, name) in listing.nftables.iter().flat_map(|item| {
        let chain = item.chain.as_ref().map(|chain| ("chain", &chain.name));
        let set = item.set.as_ref().map(|set| ("set", &set.name));
        chain.into_iter().chain(set)
    }) {
        if !kept.contains(&(kind, name.as_str())) {
            text.push_str(&format!("delete {kind} ip {table} {name}\n"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_not_needed_any_more_goes() {
        let present = br#"{"nftables": [
            {"metainfo": {"version": "1.1.3"}},
            {"table": {"family": "ip", "name": "t"}},
            {"set": {"family": "ip", "name": "name.a.org", "type": "ipv4_addr"}},
            {"set": {"family": "ip", "name": "name.b.org", "type": "ipv4_addr"}},
            {"chain": {"family": "ip", "name": "client5", "handle": 1}},
            {"chain": {"family": "ip", "name": "client7", "handle": 2}},
            {"rule": {"family": "ip", "chain": "client7", "expr": [{"accept": null}]}}
        ]}"#;
        let rules =
            "table ip t {\n    set name.b.org { type ipv4_addr; }\n    chain client7 {\n    }\n}\n";
        assert_eq!(
            leftovers(present, rules, "t"),
            "delete set ip t name.a.org\ndelete chain ip t client5\n"
        );
        assert_eq!(leftovers(b"", rules, "t"), "");
    }
}
