//! `bulkhead-file-send`: writes files as one stream; the sending half of a copy between domains.

use std::ffi::OsString;
use std::fs::File;
use std::io::{IsTerminal, stdin, stdout};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;

use bulkhead_transfer::meter::{Meter, size};
use bulkhead_transfer::{Cancel, Progress, SendError, Sender, Sent, Watch};

const HELP: &str = "\
Usage: bulkhead-file-send [--] FILE...

Writes the files and folders to the standard output, as one stream for
bulkhead-file-receive, and waits on the standard input for its answer. This is
the half of a copy that runs in the source domain; a service starts it.

Folders, regular files and links inside of a folder are sent; links that lead
out of it, devices, named pipes and sockets are refused by name, before
anything is sent. Progress is shown if the error stream is a terminal.

Exit status: 0 the receiver has everything; 1 it could not be sent; 2 wrong
arguments; 3 the receiver refused it or failed; 4 everything was sent, but the
receiver did not confirm it.
";

fn main() -> ExitCode {
    let paths = match arguments(std::env::args_os().skip(1)) {
        Ok(Some(paths)) => paths,
        Ok(None) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(message) => {
            eprintln!("bulkhead-file-send: {message}; see --help");
            return ExitCode::from(2);
        }
    };
    let mut meter = Meter::default();
    let sent = send(&paths, &mut meter);
    meter.clear();
    match sent {
        Ok(sent) => {
            if std::io::stderr().is_terminal() {
                eprintln!("sent {} entries, {}", sent.entries, size(sent.bytes));
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("bulkhead-file-send: {error}");
            ExitCode::from(match error {
                SendError::Refused { .. } => 3,
                SendError::Answer(_) => 4,
                _ => 1,
            })
        }
    }
}

fn arguments(given: impl Iterator<Item = OsString>) -> Result<Option<Vec<PathBuf>>, String> {
    let mut paths = Vec::new();
    let mut options = true;
    for argument in given {
        if options && argument == "--" {
            options = false;
        } else if options && (argument == "--help" || argument == "-h") {
            return Ok(None);
        } else if options && argument.as_encoded_bytes().starts_with(b"-") {
            let argument = argument.display();
            return Err(format!(
                "there is no option `{argument}` (a file? then `./{argument}`)"
            ));
        } else {
            paths.push(PathBuf::from(argument));
        }
    }
    if paths.is_empty() {
        return Err("name at least one file or folder".to_owned());
    }
    if stdout().is_terminal() {
        return Err("the standard output is a terminal: it must lead to a receiver".to_owned());
    }
    Ok(Some(paths))
}

fn send(paths: &[PathBuf], meter: &mut Meter) -> Result<Sent, SendError> {
    let open = |stream: std::os::fd::BorrowedFd<'_>| {
        let own = stream.try_clone_to_owned().map(File::from);
        own.map_err(|error| SendError::Stream(bulkhead_transfer::FormatError::Write(error)))
    };
    let stream = open(stdout().as_fd())?;
    let answer = open(stdin().as_fd())?;
    let mut report = |progress: &Progress<'_>| meter.show(progress);
    let mut watch = Watch::new(&mut report, Cancel::default());
    Sender::new(paths, &mut watch)?.send(stream, answer, &mut watch)
}
