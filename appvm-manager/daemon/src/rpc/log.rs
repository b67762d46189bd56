//! The user's log of what crossed between domains, or was to: one JSON object a line.

use std::fmt;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use bulkhead_policy::{Allow, Call, Deny};
use bulkhead_protocol::ExitReason;
use bulkhead_transfer::Manifest;
use bulkhead_transfer::meter::size;
use serde::{Deserialize, Serialize};

use super::relay::Carried;

/// A file of this size, in bytes, is set aside; one older file is kept.
const MAX_FILE: u64 = 4 << 20;
/// So many names of files are kept of one call.
const MAX_NAMES: usize = 20;

/// One call, from its request to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// When it came, in UTC (RFC 3339).
    pub time: String,
    /// Who called.
    pub source: String,
    /// Whom it named.
    pub wanted: String,
    /// Where it went; nothing if it was refused.
    pub target: String,
    /// The service, with its argument.
    pub service: String,
    /// `allowed`, `refused`, or `failed`.
    pub verdict: String,
    /// Why not, or how it ended.
    pub detail: String,
    /// The rule that decided: file and line.
    pub rule: String,
    /// Files at the top: a line each, at most twenty.
    pub files: Vec<String>,
    /// Files, folders and links that were announced.
    pub entries: u64,
    /// Bytes that were announced.
    pub announced_bytes: u64,
    /// Bytes that the caller sent.
    pub sent_bytes: u64,
    /// Bytes that it got.
    pub received_bytes: u64,
    /// Calls of this domain before it that had no line: it calls too often.
    #[serde(default)]
    pub left_out: u64,
    /// The user is to be told.
    #[serde(skip)]
    pub(super) notify: bool,
    /// It is allowed because of a command of the user's, and as long as that runs.
    #[serde(skip)]
    pub(super) by_command: bool,
    /// What it is told, where that is not the usual line.
    #[serde(skip)]
    words: Option<String>,
}

impl Record {
    /// Of a call that has just come.
    pub(crate) fn new(call: &Call) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let argument = call.argument.as_str();
        let plus = if argument.is_empty() { "" } else { "+" };
        Record {
            time: super::host::date(now.unwrap_or_default().as_secs()),
            source: call.source.to_string(),
            wanted: call.target.to_string(),
            target: String::new(),
            service: format!("{}{plus}{argument}", call.service.as_str()),
            verdict: "refused".to_owned(),
            detail: String::new(),
            rule: String::new(),
            files: Vec::new(),
            entries: 0,
            announced_bytes: 0,
            sent_bytes: 0,
            received_bytes: 0,
            left_out: 0,
            notify: false,
            by_command: false,
            words: None,
        }
    }

    pub(super) fn files(&mut self, manifest: &Manifest) {
        // Whoever sends files wants to know that they went.
        self.notify = true;
        self.entries = manifest.entries;
        self.announced_bytes = manifest.bytes;
        let shown = manifest.shown.iter().take(MAX_NAMES);
        self.files = shown
            .map(|item| {
                let folder = match item.kind {
                    bulkhead_transfer::Kind::Folder => "/",
                    bulkhead_transfer::Kind::File => "",
                };
                format!("{}{folder} ({})", item.shown_name(), size(item.bytes))
            })
            .collect();
        let all = usize::try_from(manifest.top_level).unwrap_or(usize::MAX);
        if all > self.files.len() {
            let more = all - self.files.len();
            self.files.push(format!("and {more} more"));
        }
    }

    /// Something was dropped that is no file.
    pub(crate) fn dropped(&mut self, what: &str, bytes: u64) {
        self.notify = true;
        self.announced_bytes = bytes;
        self.files = vec![format!("{what} ({})", size(bytes))];
    }

    /// Why it did not come about.
    pub(crate) fn why_not(&self) -> Option<String> {
        match (
            self.verdict.as_str(),
            self.detail.as_str(),
            self.rule.as_str(),
        ) {
            ("allowed", ..) => None,
            (_, "", _) => Some("it failed".to_owned()),
            (_, detail, "") => Some(detail.to_owned()),
            (_, detail, rule) => Some(format!("{detail} ({rule})")),
        }
    }

    pub(super) fn file_lines(&self) -> &[String] {
        &self.files
    }

    pub(super) fn announced_bytes(&self) -> u64 {
        self.announced_bytes
    }

    pub(crate) fn allowed(&mut self, allow: &Allow) {
        self.notify |= allow.notify;
        self.target = allow.target.to_string();
        self.rule = allow.rule.to_string();
        self.by_command |= &*allow.rule.file == super::grants::FILE;
        // Until it is known how it ended.
        self.verdict = "failed".to_owned();
    }

    pub(crate) fn denied(&mut self, deny: &Deny) {
        self.notify |= deny.notify;
        self.detail = deny.reason.to_string();
        self.rule = deny
            .rule
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default();
    }

    pub(crate) fn ended(&mut self, detail: &str) {
        detail.clone_into(&mut self.detail);
    }

    pub(super) fn carried(&mut self, carried: &Carried) {
        self.sent_bytes = carried.sent_bytes;
        self.received_bytes = carried.received_bytes;
        self.notify |= carried.notice.is_some();
        self.words.clone_from(&carried.notice);
        self.detail = match carried.exit {
            Some(ExitReason::Code(0)) => String::new(),
            Some(reason) => format!("the service ended with status {}", reason.shell_status()),
            None => "a side broke it off".to_owned(),
        };
        if carried.exit == Some(ExitReason::Code(0)) {
            "allowed".clone_into(&mut self.verdict);
        }
    }

    /// The user has pasted so much.
    pub(crate) fn pasted(&mut self, bytes: u64) {
        (self.sent_bytes, self.received_bytes) = (bytes, bytes);
        "allowed".clone_into(&mut self.verdict);
    }

    /// What the user is told now.
    pub(super) fn told(&self) -> String {
        self.words.clone().unwrap_or_else(|| self.notice())
    }

    /// One line for the user.
    pub fn notice(&self) -> String {
        let what = match self.files.as_slice() {
            [] => self.service.clone(),
            [one] => one.clone(),
            [one, ..] => format!("{one} and more ({} entries)", self.entries),
        };
        let target = if self.target.is_empty() {
            &self.wanted
        } else {
            &self.target
        };
        let source = &self.source;
        match (self.verdict.as_str(), self.detail.as_str()) {
            ("allowed", _) => format!("{source} → {target}: {what}"),
            (verdict, "") => format!("{source} → {target}: {what}: {verdict}"),
            (verdict, detail) => format!("{source} → {target}: {what}: {verdict}: {detail}"),
        }
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.notice())?;
        match self.rule.as_str() {
            "" => Ok(()),
            rule => write!(f, " ({rule})"),
        }
    }
}

/// The log's file.
#[derive(Debug)]
pub struct Log {
    file: PathBuf,
    one_at_a_time: Mutex<()>,
}

impl Log {
    /// At this place, which needs not exist.
    pub fn new(file: PathBuf) -> Self {
        Log {
            file,
            one_at_a_time: Mutex::new(()),
        }
    }

    fn older(&self) -> PathBuf {
        self.file.with_extension("old.jsonl")
    }

    /// Adds a line. A log that cannot be written is told, and stops nothing.
    pub fn append(&self, record: &Record) {
        if let Err(error) = self.try_append(record) {
            tracing::error!(file = %self.file.display(), %error, "the log of transfers");
        }
    }

    fn try_append(&self, record: &Record) -> std::io::Result<()> {
        let _guard = self.one_at_a_time.lock();
        if fs::metadata(&self.file).is_ok_and(|data| data.len() >= MAX_FILE) {
            fs::rename(&self.file, self.older())?;
        }
        let mut line = serde_json::to_vec(record)?;
        line.push(b'\n');
        let mut file = File::options()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&self.file)?;
        file.write_all(&line)
    }

    /// The last records, oldest first. Lines that are none are left out: a power cut may have cut one.
    pub fn last(&self, most: usize) -> Vec<Record> {
        let mut records = std::collections::VecDeque::new();
        for file in [self.older(), self.file.clone()] {
            for record in read(&file) {
                if records.len() >= most {
                    records.pop_front();
                }
                records.push_back(record);
            }
        }
        records.truncate(most);
        records.into()
    }
}

fn read(file: &Path) -> impl Iterator<Item = Record> {
    let lines = File::open(file).ok().map(BufReader::new);
    lines
        .into_iter()
        .flat_map(|lines| lines.lines().map_while(Result::ok))
        .filter_map(|line| serde_json::from_str(&line).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(service: &str) -> Record {
        let call = Call::parse("work".parse().unwrap(), service.as_bytes(), b"personal");
        Record::new(&call.unwrap())
    }

    #[test]
    fn lines_come_back_in_their_order_and_a_cut_one_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::new(dir.path().join("transfers.jsonl"));
        assert!(log.last(10).is_empty());
        for service in ["a.A", "b.B+c", "d.D"] {
            log.append(&record(service));
        }
        let mut file = File::options().append(true).open(&log.file).unwrap();
        file.write_all(b"{\"time\":\"20").unwrap();
        let services = |most| -> Vec<String> {
            log.last(most)
                .into_iter()
                .map(|record| record.service)
                .collect()
        };
        assert_eq!(services(10), ["a.A", "b.B+c", "d.D"]);
        assert_eq!(services(2), ["b.B+c", "d.D"]);
        assert!(services(0).is_empty());
    }

    #[test]
    fn a_full_file_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::new(dir.path().join("transfers.jsonl"));
        log.append(&record("a.A"));
        File::options()
            .write(true)
            .open(&log.file)
            .unwrap()
            .set_len(MAX_FILE)
            .unwrap();
        log.append(&record("b.B"));
        assert!(fs::metadata(&log.file).unwrap().len() < 1000);
        assert_eq!(log.last(10).len(), 2);
    }
}
