//! Web addresses from another domain.

/// The longest address.
pub const MAX_URL: usize = 8192;
/// What may be opened: nothing that runs a program or reads a file of this domain.
const SCHEMES: [&str; 4] = ["https", "http", "ftp", "mailto"];

/// Why an address is not opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Longer than any.
    #[error("the address has {0} bytes; at most {MAX_URL} are allowed")]
    Long(usize),
    /// Another scheme, or none.
    #[error("only addresses that begin with {} are opened", SCHEMES.join(":, ") + ":")]
    Scheme,
    /// Characters that no address has as they are.
    #[error("the address has a character that addresses only have in the form %XX")]
    Character,
}

/// Checks one address, as the other domain sent it: one line (RFC 3986, section 2: every other
/// character is written as `%XX`).
pub fn check(untrusted: &[u8]) -> Result<&str, UrlError> {
    if untrusted.len() > MAX_URL {
        return Err(UrlError::Long(untrusted.len()));
    }
    let text = untrusted.strip_suffix(b"\n").unwrap_or(untrusted);
    let allowed =
        |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()*+,;=%".contains(byte);
    if !text.iter().all(allowed) {
        return Err(UrlError::Character);
    }
    let text = str::from_utf8(text).map_err(|_| UrlError::Character)?;
    let known = text.split_once(':').is_some_and(|(scheme, rest)| {
        !rest.is_empty()
            && SCHEMES
                .iter()
                .any(|known| scheme.eq_ignore_ascii_case(known))
    });
    if known {
        Ok(text)
    } else {
        Err(UrlError::Scheme)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_addresses_of_known_schemes_pass() {
        for good in [
            "https://a.example/x?y=z#t",
            "HTTP://[::1]:80/%20",
            "mailto:a@b.example",
        ] {
            assert_eq!(check(good.as_bytes()), Ok(good));
        }
        assert_eq!(check(b"https://a.example\n"), Ok("https://a.example"));
        for bad in [
            "file:///etc/passwd",
            "javascript:1",
            "a.example",
            "-x",
            "https:",
            "",
        ] {
            assert_eq!(check(bad.as_bytes()), Err(UrlError::Scheme), "{bad}");
        }
        for bad in [
            "https://a b",
            "https://a\n-x",
            "https://a\u{202e}",
            "https://\"x",
            "https://a\0",
        ] {
            assert_eq!(check(bad.as_bytes()), Err(UrlError::Character), "{bad}");
        }
        let long = [b'a'; MAX_URL + 1];
        assert_eq!(check(&long), Err(UrlError::Long(MAX_URL + 1)));
    }
}
