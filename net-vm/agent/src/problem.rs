//! What is wrong with the physical devices of a network domain: firmware that their drivers asked for
//! in vain, and devices that no driver has.
//!
//! The first the kernel says in its log only, where everything else is as well: lines count by their
//! form, and so may be of somebody else's making.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// The kernel's log: a record each time it is read.
const LOG: &str = "/dev/kmsg";
/// The kernel makes none that is longer.
const MAX_RECORD: usize = 8192;
/// More are not looked at; the kernel keeps a few thousand.
const MAX_RECORDS: usize = 50_000;
/// The devices of the PCI bus.
const PCI: &str = "/sys/bus/pci/devices";
/// More problems are not told.
pub const MAX_PROBLEMS: usize = 8;
/// The longest name of a firmware file or a device.
const MAX_NAME: usize = 100;
/// The kernel's database of what is allowed where: without it radios keep to what is allowed everywhere.
const REGULATORY: &str = "regulatory.db";

/// Something that is wrong with a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Problem {
    /// Its driver asked for a firmware file that is not there.
    Firmware {
        /// The device, as the kernel calls it.
        device: String,
        /// The file, below `/usr/lib/firmware`.
        file: String,
    },
    /// No driver has it.
    NoDriver {
        /// Its address on the PCI bus.
        device: String,
        /// Its maker and kind, in hexadecimal digits.
        id: String,
    },
}

impl Problem {
    /// Whether it has the form that ours have.
    pub fn is_plain(&self) -> bool {
        let (device, other) = match self {
            Problem::Firmware { device, file } => (device, file),
            Problem::NoDriver { device, id } => (device, id),
        };
        is_name(device) && is_name(other)
    }

    /// In words.
    pub fn told(&self) -> String {
        match self {
            Problem::Firmware { device, file } => format!(
                "the firmware of {device} is missing: {file}; put the package that has it into the \
                 template (docs/wifi.md)"
            ),
            Problem::NoDriver { device, id } => {
                format!("no driver of the guest has the device {device} ({id})")
            }
        }
    }
}

/// All problems that can be seen here.
pub fn all() -> Vec<Problem> {
    let mut problems = missing_firmware(&log());
    problems.extend(without_driver(Path::new(PCI)));
    problems.truncate(MAX_PROBLEMS);
    problems
}

/// Letters that names of files and devices are made of, and nothing that leads elsewhere.
fn is_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/,+@".contains(&byte);
    !name.is_empty()
        && name.len() <= MAX_NAME
        && name.bytes().all(is_plain)
        && !name.split('/').any(|part| part == "..")
}

/// The kernel's messages.
fn log() -> Vec<String> {
    let open = fs::File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(LOG);
    let Ok(mut open) = open else {
        return Vec::new();
    };
    let mut messages = Vec::new();
    let mut record = vec![0; MAX_RECORD];
    for _ in 0..MAX_RECORDS {
        match open.read(&mut record) {
            Ok(0) => break,
            Ok(length) => messages.extend(message(record.get(..length).unwrap_or_default())),
            // The oldest were overwritten meanwhile.
            Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {}
            // There are no more.
            Err(_) => break,
        }
    }
    messages
}

/// The message of a record: `PRIORITY,NUMBER,TIME,FLAGS;MESSAGE`, and below it lines of properties.
fn message(record: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(record);
    let (_, message) = text.lines().next()?.split_once(';')?;
    Some(message.to_owned())
}

/// Firmware that drivers asked for in vain. Many ask for several files, the newest first, and are
/// content with one: then nothing is missing.
fn missing_firmware(messages: &[String]) -> Vec<Problem> {
    let mut missing: BTreeMap<&str, &str> = BTreeMap::new();
    for message in messages {
        let Some((device, file)) = asked(message) else {
            continue;
        };
        match file {
            // The first is what the driver would like best.
            Asked::InVain(file) => {
                missing.entry(device).or_insert(file);
            }
            Asked::Given => {
                missing.remove(device);
            }
        }
    }
    missing
        .into_iter()
        .map(|(device, file)| Problem::Firmware {
            device: device.to_owned(),
            file: file.to_owned(),
        })
        .collect()
}

enum Asked<'a> {
    InVain(&'a str),
    Given,
}

/// What a message says of firmware, and of which device: `DRIVER DEVICE: WORDS`. The words are those of
/// `drivers/base/firmware_loader`, and of Debian's kernel.
fn asked(message: &str) -> Option<(&str, Asked<'_>)> {
    let (who, words) = message.split_once(": ")?;
    let device = who.split(' ').next_back()?;
    let words = words.strip_prefix("firmware: ").unwrap_or(words);
    let given = ["direct-loading firmware ", "loaded firmware version "];
    if given.iter().any(|begin| words.starts_with(begin)) {
        return Some((device, Asked::Given));
    }
    let file = match words.strip_prefix("Direct firmware load for ") {
        Some(rest) => rest.split_once(" failed with error ")?.0,
        None => words.strip_prefix("failed to load ")?.split_once(" (")?.0,
    };
    let is_one = is_name(device) && is_name(file) && !file.starts_with(REGULATORY);
    is_one.then_some((device, Asked::InVain(file)))
}

/// Devices that are none of ours and that no driver has: ours are virtio, and bridges need none.
fn without_driver(bus: &Path) -> Vec<Problem> {
    let mut found = Vec::new();
    for device in fs::read_dir(bus).into_iter().flatten().flatten() {
        let folder = device.path();
        let read = |name: &str| {
            let text = fs::read_to_string(folder.join(name)).unwrap_or_default();
            text.trim().trim_start_matches("0x").to_owned()
        };
        // Network controllers of all kinds.
        if folder.join("driver").exists() || !read("class").starts_with("02") {
            continue;
        }
        let problem = Problem::NoDriver {
            device: device.file_name().to_string_lossy().into_owned(),
            id: format!("{}:{}", read("vendor"), read("device")),
        };
        found.extend(problem.is_plain().then_some(problem));
    }
    found.sort_by_key(Problem::told);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing(messages: &[&str]) -> Vec<String> {
        let messages: Vec<String> = messages.iter().map(|m| (*m).to_owned()).collect();
        missing_firmware(&messages)
            .iter()
            .map(|problem| match problem {
                Problem::Firmware { device, file } => format!("{device} {file}"),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn missing_firmware_is_found_in_the_log() {
        let found = missing(&[
            "Linux version 6.12",
            "cfg80211: loaded regulatory.db is malformed",
            "platform regulatory.0: Direct firmware load for regulatory.db failed with error -2",
            "iwlwifi 0000:00:05.0: enabling device (0000 -> 0002)",
            "iwlwifi 0000:00:05.0: firmware: failed to load iwlwifi-cc-a0-77.ucode (-2)",
            "iwlwifi 0000:00:05.0: Direct firmware load for iwlwifi-cc-a0-76.ucode failed with error -2",
            "ath11k_pci 0000:00:06.0: Direct firmware load for ath11k/WCN6855/hw2.0/amss.bin failed with error -2",
        ]);
        assert_eq!(
            found,
            [
                "0000:00:05.0 iwlwifi-cc-a0-77.ucode",
                "0000:00:06.0 ath11k/WCN6855/hw2.0/amss.bin"
            ]
        );
    }

    #[test]
    fn a_driver_that_got_another_file_is_content() {
        for words in [
            "firmware: direct-loading firmware iwlwifi-cc-a0-74.ucode",
            "loaded firmware version 74.a5e9588b.0 cc-a0-74.ucode op_mode iwlmvm",
        ] {
            let found = missing(&[
                "iwlwifi 0000:00:05.0: Direct firmware load for iwlwifi-cc-a0-77.ucode failed with error -2",
                &format!("iwlwifi 0000:00:05.0: {words}"),
            ]);
            assert!(found.is_empty(), "{found:?}");
        }
    }

    #[test]
    fn names_that_none_has_are_not_taken() {
        for file in ["a b", "../etc/shadow", "\u{1b}[31m", "", &"x".repeat(101)] {
            let message =
                format!("x 0000:00:05.0: Direct firmware load for {file} failed with error -2");
            assert!(missing(&[&message]).is_empty(), "{message}");
        }
        for message in ["", ":", ": ", "x: failed to load", "a: failed to load b"] {
            assert!(missing(&[message]).is_empty(), "{message}");
        }
    }

    #[test]
    fn records_have_a_head_and_lines_of_properties() {
        let record = b"4,123,456,-;iwlwifi 0000:00:05.0: hello; x\n SUBSYSTEM=pci\n";
        assert_eq!(message(record).unwrap(), "iwlwifi 0000:00:05.0: hello; x");
        assert_eq!(message(b"4,1,1"), None);
    }

    #[test]
    fn network_devices_without_a_driver_are_told() {
        let folder = tempfile::tempdir().unwrap();
        for (device, class, driver) in [
            ("0000:00:01.0", "0x028000", false),
            ("0000:00:02.0", "0x020000", true),
            ("0000:00:03.0", "0x060400", false),
        ] {
            let folder = folder.path().join(device);
            fs::create_dir(&folder).unwrap();
            for (name, text) in [("class", class), ("vendor", "0x14e4"), ("device", "0x43a0")] {
                fs::write(folder.join(name), format!("{text}\n")).unwrap();
            }
            if driver {
                fs::create_dir(folder.join("driver")).unwrap();
            }
        }
        let found = without_driver(folder.path());
        let [Problem::NoDriver { device, id }] = found.as_slice() else {
            panic!("{found:?}");
        };
        assert_eq!(
            (device.as_str(), id.as_str()),
            ("0000:00:01.0", "14e4:43a0")
        );
    }
}
