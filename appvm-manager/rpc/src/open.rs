//! `bulkhead-open`: a web address or a file, in another domain or a new disposable.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use bulkhead_protocol::client::Stdio;

use crate::call::{call, nowhere};
use crate::services::{NOTIFY, OPEN_FILE, OPEN_URL};
use crate::{Failure, copy, url};

/// The longest input of that kind; far less than a pipe holds.
const MAX_LINE: usize = 8192;

/// Opens it there. A file is copied; what is done to the copy does not come back.
pub fn open(target: &str, what: &str) -> Result<(), Failure> {
    match url::check(what.as_bytes()) {
        Ok(address) => open_url(target, address),
        Err(_) => copy::send(target, OPEN_FILE, &[PathBuf::from(what)]),
    }
}

fn open_url(target: &str, address: &str) -> Result<(), Failure> {
    match call_with_line(target, OPEN_URL, address)? {
        0 => Ok(()),
        status => Err(Failure::new(
            status,
            format!("the other domain could not open it (status {status})"),
        )),
    }
}

/// Shows a text on the host.
pub fn notify(text: &str) -> Result<(), Failure> {
    match call_with_line("@adminvm", NOTIFY, text)? {
        0 => Ok(()),
        status => Err(Failure::new(status, "the text is not shown")),
    }
}

/// Calls with one line as the input: its status.
fn call_with_line(target: &str, service: &str, line: &str) -> Result<u8, Failure> {
    let failed = |error: std::io::Error| Failure::new(1, error.to_string());
    if line.len() > MAX_LINE {
        return Err(Failure::usage(format!(
            "{} bytes are too many; at most {MAX_LINE} are allowed",
            line.len()
        )));
    }
    let (reader, writer) = std::io::pipe().map_err(failed)?;
    // A pipe takes 64 KiB before anybody reads.
    let mut file = File::from(std::os::fd::OwnedFd::from(writer));
    writeln!(file, "{line}").map_err(failed)?;
    drop(file);
    let stdio = Stdio {
        stdin: reader.into(),
        stdout: nowhere().map_err(failed)?,
        stderr: nowhere().map_err(failed)?,
    };
    call(target, service, stdio)
}
