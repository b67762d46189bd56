//! The addresses that clients were told for names, in the sets of the firewall.

use std::collections::HashMap;
use std::io;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use crate::nft;

/// An address counts at least and at most so long as its answer says, in seconds.
const TTL_S: (u32, u32) = (60, 24 * 3600);
/// And so much longer: programs connect after they have asked, and not all ask again in time.
const GRACE_S: u32 = 300;
/// More is forgotten; it only saves work.
const MAX_REMEMBERED: usize = 8192;

/// What the sets have for certain.
#[derive(Debug, Default)]
pub struct Book {
    /// Until when an address of a set need not be written again.
    fresh: HashMap<(String, Ipv4Addr), Instant>,
}

impl Book {
    /// The sets may be others now.
    pub fn forget(&mut self) {
        self.fresh.clear();
    }

    /// Puts addresses into sets; `write` does what it is told in `nft`'s words.
    pub fn add(
        &mut self,
        sets: &[String],
        addresses: &[(Ipv4Addr, u32)],
        now: Instant,
        write: impl FnOnce(&str) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut script = String::new();
        let mut added = Vec::new();
        for set in sets {
            for (address, ttl) in addresses {
                let key = (set.clone(), *address);
                if self.fresh.get(&key).is_some_and(|until| *until > now) {
                    continue;
                }
                let seconds = ttl.clamp(&TTL_S.0, &TTL_S.1) + GRACE_S;
                // Adding does not make an older one count longer: it goes first, if it is there.
                let element = format!("element ip bulkhead {set} {{ {address}");
                script.push_str(&format!(
                    "add {element} }}\ndelete {element} }}\nadd {element} timeout {seconds}s }}\n"
                ));
                let half = Duration::from_secs(u64::from(seconds) / 2);
                added.push((key, now + half));
            }
        }
        if script.is_empty() {
            return Ok(());
        }
        write(&script)?;
        if self.fresh.len() + added.len() > MAX_REMEMBERED {
            self.forget();
        }
        self.fresh.extend(added);
        Ok(())
    }
}

/// Does it for the firewall that counts.
pub fn write(script: &str) -> io::Result<()> {
    nft::run(script)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_written_once_and_again_in_time() {
        let mut book = Book::default();
        let sets = ["name.a.org".to_owned(), "below.org".to_owned()];
        let address = Ipv4Addr::new(192, 0, 2, 1);
        let start = Instant::now();
        let add = |book: &mut Book, after, ttl| {
            let mut written = String::new();
            let now = start + Duration::from_secs(after);
            book.add(&sets, &[(address, ttl)], now, |script| {
                written.push_str(script);
                Ok(())
            })
            .unwrap();
            written
        };
        let written = add(&mut book, 0, 10);
        assert_eq!(written.matches("timeout 360s").count(), 2);
        assert!(written.contains(
            "delete element ip bulkhead name.a.org { 192.0.2.1 }\n\
             add element ip bulkhead name.a.org { 192.0.2.1 timeout 360s }\n"
        ));
        assert_eq!(add(&mut book, 179, 10), "");
        assert!(add(&mut book, 181, u32::MAX).contains("timeout 86700s"));
        book.forget();
        assert!(!add(&mut book, 182, 10).is_empty());
    }

    #[test]
    fn what_was_not_written_is_not_there() {
        let mut book = Book::default();
        let sets = ["name.a.org".to_owned()];
        let addresses = [(Ipv4Addr::new(192, 0, 2, 1), 60)];
        let now = Instant::now();
        let full = |_: &str| Err(io::Error::other("full"));
        assert!(book.add(&sets, &addresses, now, full).is_err());
        let mut written = false;
        book.add(&sets, &addresses, now, |_| {
            written = true;
            Ok(())
        })
        .unwrap();
        assert!(written);
    }
}
