//! The one request: a line of JSON, `{"keep":["0000:01:00.0"]}`, answered by a line that has for each
//! device `null`, or why it is not kept: `{"ok":true,"devices":{"0000:01:00.0":null}}`; or by
//! `{"ok":false,"error":"…"}`.

use std::collections::BTreeMap;

use bulkhead_vmm_api::PciAddress;
use serde::{Deserialize, Serialize};

use crate::kept::MAX_DEVICES;

/// A longer line is no request.
pub const MAX_BYTES: usize = 16 * 1024;

/// All devices that are to be kept.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Their addresses.
    pub keep: Vec<PciAddress>,
}

/// What became of it.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Whether it was a request that could be followed.
    pub ok: bool,
    /// Each device, and why it is not kept.
    #[serde(default)]
    pub devices: BTreeMap<PciAddress, Option<String>>,
    /// Why nothing was done.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub error: String,
}

impl Request {
    /// From a line.
    pub fn parse(untrusted_line: &[u8]) -> Result<Self, String> {
        if untrusted_line.len() > MAX_BYTES {
            return Err(format!("a request has at most {MAX_BYTES} bytes"));
        }
        let mut request: Request =
            serde_json::from_slice(untrusted_line).map_err(|error| error.to_string())?;
        request.keep.sort_unstable();
        request.keep.dedup();
        match request.keep.len() <= MAX_DEVICES {
            true => Ok(request),
            false => Err(format!("at most {MAX_DEVICES} devices are kept")),
        }
    }
}

impl Answer {
    /// Nothing was done.
    pub fn refused(error: impl ToString) -> Self {
        Answer {
            error: error.to_string(),
            ..Answer::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_checked() {
        let request = Request::parse(br#"{"keep":["0000:02:00.0","0000:01:00.0","0000:02:00.0"]}"#);
        let keep = request.unwrap().keep;
        assert_eq!(keep.len(), 2);
        assert!(keep[0] < keep[1]);
        for (line, expected) in [
            (
                &br#"{"keep":["eth0"]}"#[..],
                "is no address of a PCI device",
            ),
            (br#"{"keep":["0000:01:00.0/../x"]}"#, "is no address"),
            (br#"{"take":[]}"#, "unknown field"),
            (b"", "EOF"),
            (&[b' '; MAX_BYTES + 1], "at most"),
        ] {
            let error = Request::parse(line).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        let many: Vec<String> = (0..8)
            .flat_map(|f| (0..32).map(move |d| format!("0000:01:{d:02x}.{f}")))
            .collect();
        assert_eq!(
            Request::parse(serde_json::json!({"keep": many}).to_string().as_bytes())
                .unwrap()
                .keep
                .len(),
            256
        );
    }
}
