//! `bulkhead-copy` and `bulkhead-move`: files to another domain.

use std::fs::File;
use std::io::IsTerminal;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::thread;

use bulkhead_protocol::CallRequest;
use bulkhead_protocol::client::Stdio;
use bulkhead_transfer::landed;
use bulkhead_transfer::meter::{Meter, size};
use bulkhead_transfer::{Cancel, Progress, SendError, Sender, Watch};

use crate::call::{call_with, nowhere};
use crate::{Failure, REFUSED};

/// Sends `files` by `service` of `target`, and waits until the other domain has them.
pub fn send(target: &str, service: &str, files: &[PathBuf]) -> Result<(), Failure> {
    let request = CallRequest {
        target: target.to_owned(),
        service: service.to_owned(),
        drop: None,
    };
    let mut meter = Meter::default();
    let result = send_with(request, files, &mut meter);
    meter.clear();
    let sent = result?;
    if std::io::stderr().is_terminal() {
        eprintln!("sent {} entries, {}", sent.entries, size(sent.bytes));
    }
    Ok(())
}

/// Sends what the user has dropped on a window of `target`, files by their addresses. The manager runs
/// it for the drop that it numbers so.
pub fn send_dropped(drop: u64, target: &str, uris: &[String]) -> Result<(), Failure> {
    let files: Option<Vec<PathBuf>> = uris.iter().map(|uri| landed::path(uri)).collect();
    let files = files.ok_or_else(|| Failure::usage("not every address is one of a file"))?;
    let request = CallRequest {
        target: target.to_owned(),
        service: crate::services::COPY.to_owned(),
        drop: Some(drop),
    };
    send_with(request, &files, &mut Meter::default()).map(|_| ())
}

fn send_with(
    request: CallRequest,
    files: &[PathBuf],
    meter: &mut Meter,
) -> Result<bulkhead_transfer::Sent, Failure> {
    let mut report = |progress: &Progress<'_>| meter.show(progress);
    let mut watch = Watch::new(&mut report, Cancel::default());
    let failed = |error: SendError| Failure::new(1, error.to_string());
    let sender = Sender::new(files, &mut watch).map_err(failed)?;
    let pipe = || {
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .map_err(|error| Failure::new(1, format!("a pipe: {error}")))
    };
    let (stream_end, stream): (OwnedFd, OwnedFd) = pipe()?;
    let (answer, answer_end) = pipe()?;
    let stdio = Stdio {
        stdin: stream_end,
        stdout: answer_end,
        stderr: nowhere().map_err(|error| Failure::new(1, error.to_string()))?,
    };
    let calling = thread::spawn(move || call_with(request, stdio));
    let sent = sender.send(File::from(stream), File::from(answer), &mut watch);
    let called = calling
        .join()
        .unwrap_or_else(|_| Err(Failure::new(crate::BROKEN, "the call's thread ended")));
    match (sent, called) {
        (Ok(sent), _) => Ok(sent),
        // The receiver's own word says most.
        (Err(error @ SendError::Refused { .. }), _) => Err(Failure::new(3, error.to_string())),
        (Err(_), Err(failure)) => Err(failure),
        (Err(_), Ok(REFUSED)) => Err(Failure::new(REFUSED, "refused")),
        (Err(error), Ok(_)) => Err(Failure::new(4, error.to_string())),
    }
}

/// Takes away what the other domain has. What cannot be taken away is told; the copy is there.
pub fn remove(files: &[PathBuf]) -> Result<(), Failure> {
    for file in files {
        remove_one(file).map_err(|error| {
            Failure::new(
                5,
                format!(
                    "{}: copied, but not removed here: {error}",
                    bulkhead_transfer::names::visible(file.as_os_str().as_encoded_bytes())
                ),
            )
        })?;
    }
    Ok(())
}

fn remove_one(file: &Path) -> std::io::Result<()> {
    if std::fs::symlink_metadata(file)?.is_dir() {
        std::fs::remove_dir_all(file)
    } else {
        std::fs::remove_file(file)
    }
}
