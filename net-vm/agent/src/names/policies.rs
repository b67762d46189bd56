//! Each client's rules, for those who answer its questions: written by `apply`, read here.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::config::{MAX_BYTES, Trunk};
use crate::rules::{Dns, Policy};
use crate::run;

/// The file.
pub const FILE: &str = "names.json";

/// Writes down the rules of clients whose questions depend on them. Whether there are any.
pub fn write(trunk: &Trunk) -> io::Result<bool> {
    let chosen: HashMap<Ipv4Addr, &Policy> = trunk
        .clients
        .iter()
        .filter(|client| client.policy.dns() == Dns::Chosen)
        .map(|client| (client.address, &client.policy))
        .collect();
    let text = serde_json::to_string(&chosen).map_err(io::Error::other)?;
    run::write(FILE, &text)?;
    Ok(!chosen.is_empty())
}

/// The file's contents, read again when it is another one.
#[derive(Debug, Default)]
pub struct Policies {
    seen: Option<u64>,
    by_address: HashMap<Ipv4Addr, Policy>,
}

impl Policies {
    /// Looks whether it is another file. Whether it was.
    pub fn refresh(&mut self, file: &Path) -> bool {
        // It is replaced, never changed.
        let now = fs::metadata(file).map(|metadata| metadata.ino()).ok();
        if now == self.seen {
            return false;
        }
        let text = fs::read(file).unwrap_or_default();
        let read = match text.len() <= MAX_BYTES {
            true => serde_json::from_slice(&text).unwrap_or_default(),
            false => HashMap::new(),
        };
        (self.seen, self.by_address) = (now, read);
        true
    }

    /// A client's.
    pub fn of(&self, client: Ipv4Addr) -> Option<&Policy> {
        self.by_address.get(&client)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_file_counts_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(FILE);
        let client = Ipv4Addr::new(10, 137, 0, 7);
        let mut policies = Policies::default();
        assert!(!policies.refresh(&file));
        run::replace(&file, r#"{"10.137.0.7":{"default":"drop"}}"#).unwrap();
        assert!(policies.refresh(&file) && policies.of(client).is_some());
        assert!(!policies.refresh(&file));
        // What cannot be read lets nobody ask.
        run::replace(&file, "{").unwrap();
        assert!(policies.refresh(&file) && policies.of(client).is_none());
    }
}
