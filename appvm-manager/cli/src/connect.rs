//! `bulkhead connect`: a port of one domain that leads to another's, until this program ends.
//!
//! The listening program is the guest's. Of its words only the port is believed, and only as a number;
//! what it complains about is cleaned and shown under the domain's name.

use std::io::{BufRead, BufReader, PipeReader, Read};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use bulkhead_protocol::text::clean;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use zbus::{Fd, OwnedVariant, Str};

use crate::args;
use crate::bus::{Dict, calls};
use crate::error::Error;
use crate::output;

/// Names this program's only command to the manager.
const TOKEN: &str = "connect";
/// The longest line of a guest's that is looked at, in bytes.
const MAX_LINE: u64 = 2048;
/// What is shown of one, in characters.
const MAX_SHOWN: usize = 300;

/// Between two lines: a guest that complains without end is slowed down, and fills no screen.
const PAUSE: Duration = Duration::from_millis(50);

/// What the guest's program said.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    /// Where it listens.
    Listens(u16),
    /// A line for the user.
    Line(String),
}

pub async fn connect(args: args::Connect) -> Result<u8, Error> {
    let calls = calls().await?;
    let failed = |error| Error::Io("signals", error);
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;
    let (sender, mut heard) = mpsc::channel(16);
    let stdout = listen_to(sender.clone(), |line| listens(line).map(Heard::Listens))?;
    let stderr = listen_to(sender, |line| Some(Heard::Line(complaint(line))))?;
    let mut options = Dict::from([(
        "token".to_owned(),
        OwnedVariant::from(Str::from(TOKEN.to_owned())),
    )]);
    if let Some(port) = args.listen {
        options.insert("listen".to_owned(), port.into());
    }
    let (source, there) = (args.source.as_str(), &args.target);
    let running = async {
        let (out, err) = (Fd::from(stdout.as_fd()), Fd::from(stderr.as_fd()));
        let answer = calls
            .connect_domains(
                source,
                there.domain.as_str(),
                there.port.get(),
                options,
                out,
                err,
            )
            .await;
        // What is left in the pipes is read to its end only when nobody can write there any more.
        drop((stdout, stderr));
        answer
    };
    tokio::pin!(running);
    let mut last = String::new();
    let mut answer = None;
    loop {
        tokio::select! {
            done = &mut running, if answer.is_none() => answer = Some(done),
            // Leaving the bus ends what was started.
            _ = interrupt.recv() => return Ok(0),
            _ = terminate.recv() => return Ok(0),
            _ = hangup.recv() => return Ok(0),
            words = heard.recv() => match words {
                Some(Heard::Listens(port)) => tell(&args, port)?,
                Some(Heard::Line(line)) => {
                    eprintln!("bulkhead: {source}: {line}");
                    last = line;
                }
                // Both pipes have ended.
                None if answer.is_some() => break,
                None => {
                    answer = Some((&mut running).await);
                    break;
                }
            },
        }
    }
    let Some(answer) = answer else {
        return Ok(1);
    };
    let (status, message) = answer?;
    let why = match (message.as_str(), last.as_str()) {
        ("", "") => format!("its program has ended with status {status}"),
        // It stands above already.
        ("", _) => "its program has ended".to_owned(),
        (message, _) => message.to_owned(),
    };
    Err(Error::Command {
        status: 1,
        text: format!("domain `{source}`: {why}"),
    })
}

fn tell(args: &args::Connect, port: u16) -> Result<(), Error> {
    let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
    let there = &args.target;
    if args.json {
        return output::json(&json!({
            "source": args.source.as_str(),
            "address": address.ip().to_string(),
            "listen": port,
            "target": there.domain.as_str(),
            "port": there.port.get(),
        }));
    }
    output::line(&format!(
        "{address} of {} leads to port {} of {}",
        args.source, there.port, there.domain
    ))
}

/// A pipe whose lines are read on a thread of its own: its writing end.
fn listen_to(
    sender: mpsc::Sender<Heard>,
    understand: impl Fn(&[u8]) -> Option<Heard> + Send + 'static,
) -> Result<OwnedFd, Error> {
    let failed = |error| Error::Io("a pipe", error);
    let (reader, writer) = std::io::pipe().map_err(failed)?;
    std::thread::Builder::new()
        .spawn(move || {
            let mut reader = BufReader::new(reader);
            while let Some(untrusted_line) = next_line(&mut reader) {
                if let Some(words) = understand(&untrusted_line)
                    && sender.blocking_send(words).is_err()
                {
                    return;
                }
                std::thread::sleep(PAUSE);
            }
        })
        .map_err(failed)?;
    Ok(writer.into())
}

/// A line, or as much of it as is looked at.
fn next_line(reader: &mut BufReader<PipeReader>) -> Option<Vec<u8>> {
    let mut line = Vec::new();
    let read = reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line);
    matches!(read, Ok(count) if count > 0).then_some(line)
}

/// Where the guest says that it listens.
fn listens(untrusted_line: &[u8]) -> Option<u16> {
    let line = std::str::from_utf8(untrusted_line).ok()?;
    let address = line.split(' ').next()?;
    let address: SocketAddrV4 = address.parse().ok()?;
    (*address.ip() == Ipv4Addr::LOCALHOST && address.port() > 0).then_some(address.port())
}

/// A line of its error stream, without its program's name.
fn complaint(untrusted_line: &[u8]) -> String {
    let text = String::from_utf8_lossy(untrusted_line);
    let text = text.strip_prefix("bulkhead-connect: ").unwrap_or(&text);
    clean(text, MAX_SHOWN)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn of_a_guests_words_only_a_port_is_taken() {
        assert_eq!(
            listens(b"127.0.0.1:8080 leads to port 80 of personal\n"),
            Some(8080)
        );
        for bad in [
            &b"127.0.0.1:0 leads"[..],
            b"127.0.0.1:99999 x",
            b"192.0.2.1:80 x",
            b"127.0.0.1",
            b"\x1b[2J127.0.0.1:80 x",
            b"\xff\xfe",
            b"",
        ] {
            assert_eq!(listens(bad), None, "{bad:?}");
        }
        assert_eq!(
            complaint(b"bulkhead-connect: no\x1b[2J\rway\n"),
            "no [2J way"
        );
    }

    #[tokio::test]
    async fn a_line_without_end_is_cut() {
        let (sender, mut heard) = mpsc::channel(16);
        let writer = listen_to(sender, |line| Some(Heard::Line(line.len().to_string()))).unwrap();
        let mut writer = std::fs::File::from(writer);
        writer.write_all(&[b'x'; 5000]).unwrap();
        drop(writer);
        let mut lengths = Vec::new();
        while let Some(Heard::Line(length)) = heard.recv().await {
            lengths.push(length);
        }
        assert_eq!(lengths, ["2048", "2048", "904"]);
    }
}
