//! `bulkhead log`.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use serde_json::json;

use crate::args;
use crate::bus::{ManagerProxy, manager};
use crate::error::Error;
use crate::output;

/// How often a followed log is looked at.
const PERIOD: Duration = Duration::from_millis(300);

fn failed(error: std::io::Error) -> Error {
    Error::Io("read the log", error)
}

async fn open(manager: &ManagerProxy<'_>, name: &str, log: &str) -> Result<File, Error> {
    let file: std::os::fd::OwnedFd = manager.open_log(name, log).await?.into();
    Ok(File::from(file))
}

/// The last `lines` lines.
fn tail(text: &[u8], lines: Option<usize>) -> &[u8] {
    let Some(lines) = lines else { return text };
    let body = text.strip_suffix(b"\n").unwrap_or(text);
    let mut ends = body
        .iter()
        .enumerate()
        .rev()
        .filter(|(_, byte)| **byte == b'\n');
    match lines.checked_sub(1) {
        None => &[],
        Some(before) => match ends.nth(before) {
            Some((at, _)) => &text[at + 1..],
            None => text,
        },
    }
}

pub async fn log(args: args::Log) -> Result<u8, Error> {
    let manager = manager().await?;
    let name = args.name.as_str();
    let which = if args.vmm { "vmm" } else { "serial" };
    let mut file = open(&manager, name, which).await?;
    let mut text = Vec::new();
    file.read_to_end(&mut text).map_err(failed)?;
    let shown = tail(&text, args.lines);
    if args.json {
        let shown = String::from_utf8_lossy(shown);
        let lines: Vec<_> = shown.lines().collect();
        output::json(&json!({ "domain": name, "log": which, "lines": lines }))?;
        return Ok(0);
    }
    output::untrusted_text(shown)?;
    if args.follow {
        follow(&manager, name, which, file).await?;
    }
    Ok(0)
}

/// Shows what is added, until the user has seen enough.
async fn follow(
    manager: &ManagerProxy<'_>,
    name: &str,
    which: &str,
    mut file: File,
) -> Result<(), Error> {
    let inode = |file: &File| file.metadata().map(|data| data.ino()).map_err(failed);
    let mut text = Vec::new();
    loop {
        tokio::time::sleep(PERIOD).await;
        text.clear();
        file.read_to_end(&mut text).map_err(failed)?;
        output::untrusted_text(&text)?;
        // A log that was set aside goes on in a new file.
        if let Ok(newest) = open(manager, name, which).await
            && inode(&newest)? != inode(&file)?
        {
            file = newest;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::tail;

    #[test]
    fn tails() {
        let text = b"a\nb\nc\n";
        assert_eq!(tail(text, None), text);
        assert_eq!(tail(text, Some(0)), b"");
        assert_eq!(tail(text, Some(1)), b"c\n");
        assert_eq!(tail(text, Some(2)), b"b\nc\n");
        assert_eq!(tail(text, Some(9)), text);
        assert_eq!(tail(b"a\nb", Some(1)), b"b");
    }
}
