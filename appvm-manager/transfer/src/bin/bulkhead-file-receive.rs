//! `bulkhead-file-receive`: reads a stream of files; the receiving half of a copy between domains.

use std::ffi::OsString;
use std::fs::File;
use std::io::{IsTerminal, stderr, stdin, stdout};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::process::ExitCode;

use bulkhead_protocol::name::DomainName;
use bulkhead_transfer::meter::{Meter, size};
use bulkhead_transfer::{
    Cancel, FormatError, Incoming, Limits, Progress, ReceiveError, Received, Watch,
    clean_up_partial, receive_and_answer,
};

const HELP: &str = "\
Usage: bulkhead-file-receive --from NAME [--into DIR]

Reads a stream that bulkhead-file-send wrote from the standard input, puts the
files into DIR/NAME and answers on the standard output. This is the half of a
copy that runs in the target domain; a service starts it.

  --from NAME   the domain that the files come from
  --into DIR    where its folder is (default: ~/Incoming)

Nothing in DIR/NAME is ever replaced: a name that exists gets a number. Nothing
that is received is executable, and no link leads out of what was copied. The
files appear when all of them are complete; until then, and after any error,
there is nothing to see.

Exit status: 0 everything is there; 1 nothing is there; 2 wrong arguments; 3
everything is there, but the sender could not be told.
";

struct Arguments {
    from: DomainName,
    into: PathBuf,
}

fn main() -> ExitCode {
    let arguments = match arguments(std::env::args_os().skip(1)) {
        Ok(Some(arguments)) => arguments,
        Ok(None) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(message) => {
            eprintln!("bulkhead-file-receive: {message}; see --help");
            return ExitCode::from(2);
        }
    };
    let mut meter = Meter::default();
    let received = receive(&arguments, &mut meter);
    meter.clear();
    match received {
        Ok(received) => {
            if stderr().is_terminal() {
                let (entries, bytes) = (received.entries, size(received.bytes));
                eprintln!("received {entries} entries, {bytes}");
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("bulkhead-file-receive: {error}");
            ExitCode::from(match error {
                ReceiveError::Unanswered { .. } => 3,
                _ => 1,
            })
        }
    }
}

fn arguments(given: impl Iterator<Item = OsString>) -> Result<Option<Arguments>, String> {
    let mut given = given;
    let mut from = None;
    let mut into = None;
    while let Some(argument) = given.next() {
        let text = argument.to_string_lossy();
        match text.as_ref() {
            "--help" | "-h" => return Ok(None),
            "--from" => from = given.next(),
            "--into" => into = given.next(),
            _ => return Err(format!("`{text}` is no option")),
        }
        if matches!(text.as_ref(), "--from") && from.is_none()
            || matches!(text.as_ref(), "--into") && into.is_none()
        {
            return Err(format!("`{text}` needs a value"));
        }
    }
    let from = from.ok_or("say where the files come from: --from NAME")?;
    let from = from
        .to_string_lossy()
        .parse()
        .map_err(|error: bulkhead_protocol::name::InvalidName| error.to_string())?;
    let into = match into {
        Some(into) => PathBuf::from(into),
        None => std::env::home_dir()
            .ok_or("there is no home folder: say where to put the files: --into DIR")?
            .join("Incoming"),
    };
    if stdin().is_terminal() || stdout().is_terminal() {
        return Err("the standard streams are a terminal: they must lead to a sender".to_owned());
    }
    Ok(Some(Arguments { from, into }))
}

fn receive(arguments: &Arguments, meter: &mut Meter) -> Result<Received, ReceiveError> {
    let open = |stream: BorrowedFd<'_>| {
        let own = stream.try_clone_to_owned().map(File::from);
        own.map_err(|error| ReceiveError::Stream(FormatError::Read(error)))
    };
    let stream = open(stdin().as_fd())?;
    let answer = open(stdout().as_fd())?;
    let into = Incoming::open(&arguments.into, &arguments.from).inspect_err(|error| {
        // The sender waits for a word; our own error says more than a failed answer.
        let _ = error.status(0, 0).write(&answer);
    })?;
    if let Err(error) = clean_up_partial(&into) {
        eprintln!("bulkhead-file-receive: {error}");
    }
    let mut report = |progress: &Progress<'_>| meter.show(progress);
    let mut watch = Watch::new(&mut report, Cancel::default());
    receive_and_answer(stream, answer, &into, Limits::default(), &mut watch)
}
