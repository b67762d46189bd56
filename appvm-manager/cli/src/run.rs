//! `bulkhead run`: the command's streams, signals and status are ours.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, IsTerminal, PipeWriter, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use futures_util::StreamExt;
use tokio::signal::unix::{Signal, SignalKind, signal};
use zbus::{Fd, OwnedVariant, Str, Variant};

use crate::args;
use crate::bus::{Dict, ManagerProxy, manager};
use crate::error::Error;
use crate::terminal::{self, RawMode};
use crate::timings;

/// Names this program's only command to the manager.
const TOKEN: &str = "run";
/// How long after a quick command's end a first frame is still waited for.
const FRAME_PATIENCE: Duration = Duration::from_millis(300);

fn options(args: &args::Run, size: Option<(u16, u16)>) -> Result<Dict, Error> {
    let text = |value: &str| OwnedVariant::from(Str::from(value.to_owned()));
    let mut options = Dict::from([
        ("token".into(), text(TOKEN)),
        ("start".into(), (!args.no_start).into()),
        ("user".into(), text(if args.root { "root" } else { "user" })),
    ]);
    if let Some(cwd) = &args.cwd {
        options.insert("cwd".into(), text(cwd));
    }
    let mut env: HashMap<String, String> = args.env.iter().cloned().collect();
    if let Some((columns, rows)) = size {
        options.insert("tty_columns".into(), columns.into());
        options.insert("tty_rows".into(), rows.into());
        if let Ok(term) = std::env::var("TERM") {
            env.entry("TERM".into()).or_insert(term);
        }
    }
    if !env.is_empty() {
        let env = Variant::from(env).try_into_owned()?;
        options.insert("env".into(), env);
    }
    Ok(options)
}

/// What the manager reads as the command's input. A terminal is read here, so that the manager,
/// which may be a background process of the same terminal, never is.
fn input() -> Result<OwnedFd, Error> {
    let failed = |error| Error::Io("standard input", error);
    if !io::stdin().is_terminal() {
        return io::stdin().as_fd().try_clone_to_owned().map_err(failed);
    }
    let (reader, writer) = io::pipe().map_err(failed)?;
    std::thread::Builder::new()
        .spawn(move || feed(writer))
        .map_err(failed)?;
    Ok(reader.into())
}

fn feed(mut writer: PipeWriter) {
    let mut buffer = [0; 4096];
    loop {
        if !terminal::input_ready(-1) {
            continue;
        }
        // In the background, reading would stop this program: the keys are not meant for it.
        if !terminal::in_foreground() {
            std::thread::sleep(Duration::from_millis(200));
            continue;
        }
        match io::stdin().read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(count) => {
                if writer.write_all(&buffer[..count]).is_err() {
                    return;
                }
            }
        }
    }
}

/// Output that was closed by whoever started us goes nowhere.
fn output_fd(fd: impl AsFd) -> Result<OwnedFd, Error> {
    match fd.as_fd().try_clone_to_owned() {
        Ok(fd) => Ok(fd),
        Err(_) => File::options()
            .write(true)
            .open("/dev/null")
            .map(OwnedFd::from)
            .map_err(|error| Error::Io("/dev/null", error)),
    }
}

/// The signals that are passed on.
struct Forwarded(Vec<(u8, Signal)>);

impl Forwarded {
    fn install() -> Result<Self, Error> {
        let kinds = [
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::hangup(),
            SignalKind::quit(),
            SignalKind::user_defined1(),
            SignalKind::user_defined2(),
        ];
        let signals: io::Result<Vec<_>> = kinds
            .into_iter()
            .map(|kind| Ok((kind.as_raw_value() as u8, signal(kind)?)))
            .collect();
        signals
            .map(Forwarded)
            .map_err(|error| Error::Io("signals", error))
    }

    async fn next(&mut self) -> u8 {
        std::future::poll_fn(|context| {
            for (number, signal) in &mut self.0 {
                if signal.poll_recv(context).is_ready() {
                    return std::task::Poll::Ready(*number);
                }
            }
            std::task::Poll::Pending
        })
        .await
    }
}

pub async fn run(args: args::Run) -> Result<u8, Error> {
    let begin = timings::now_us();
    let manager = manager().await?;
    let wants_terminal = args.tty || (args.command.is_empty() && io::stdin().is_terminal());
    if args.tty && !io::stdin().is_terminal() && terminal::size().is_none() {
        return Err(Error::Other(
            "--tty needs a terminal on standard input or output".into(),
        ));
    }
    let size = wants_terminal.then(|| terminal::size().unwrap_or((80, 24)));
    let options = options(&args, size)?;
    let mut frames = if args.timings {
        Some(manager.receive_window_mapped().await?)
    } else {
        None
    };
    let mut signals = Forwarded::install()?;
    let mut resized =
        signal(SignalKind::window_change()).map_err(|error| Error::Io("signals", error))?;
    let raw = if size.is_some() && io::stdin().is_terminal() {
        Some(RawMode::enter().map_err(|error| Error::Io("the terminal", error))?)
    } else {
        None
    };
    let name = args.name.as_str();
    let (stdin, stdout, stderr) = (input()?, output_fd(io::stdout())?, output_fd(io::stderr())?);
    let exec = async {
        let fds = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()].map(Fd::from);
        let [stdin, stdout, stderr] = fds;
        manager
            .exec(name, args.command.clone(), options, stdin, stdout, stderr)
            .await
    };
    tokio::pin!(exec);
    let mut frame = None;
    let result = loop {
        tokio::select! {
            result = &mut exec => break result,
            number = signals.next() => {
                // No command yet: then the signal is ours. Leaving the bus cancels the request.
                if manager.signal_command(TOKEN, number).await.is_err() {
                    drop(raw);
                    return Ok(128 + number);
                }
            }
            _ = resized.recv(), if size.is_some() => {
                if let Some((columns, rows)) = terminal::size() {
                    let _ = manager.resize_command(TOKEN, columns, rows).await;
                }
            }
            Some(event) = next_frame(&mut frames), if frame.is_none() => {
                let Ok(event) = event.args() else { continue };
                if event.domain == name && event.time_us >= begin {
                    frame = Some(event.time_us);
                    report(&args, &manager, begin, frame).await?;
                }
            }
        }
    };
    drop(raw);
    let (status, message, _) = result?;
    if args.timings && frame.is_none() {
        if let Ok(Some(event)) = tokio::time::timeout(FRAME_PATIENCE, next_frame(&mut frames)).await
            && let Ok(event) = event.args()
            && event.domain == name
        {
            frame = Some(event.time_us);
        }
        report(&args, &manager, begin, frame).await?;
    }
    let status = u8::try_from(status).unwrap_or(255);
    if message.is_empty() {
        Ok(status)
    } else {
        Err(Error::Command {
            status,
            text: format!("domain `{name}`: {message}"),
        })
    }
}

async fn next_frame(
    frames: &mut Option<crate::bus::WindowMappedStream>,
) -> Option<crate::bus::WindowMapped> {
    match frames {
        Some(frames) => frames.next().await,
        None => std::future::pending().await,
    }
}

/// Prints the stages on standard error.
async fn report(
    args: &args::Run,
    manager: &ManagerProxy<'_>,
    begin: u64,
    frame: Option<u64>,
) -> Result<(), Error> {
    let mut times = manager.get_timings(args.name.as_str()).await?;
    if let Some(frame) = frame {
        times.insert("frame".into(), frame);
    }
    let text = if args.json {
        format!("{}\n", timings::json(begin, &times))
    } else {
        timings::text(begin, &times)
    };
    // In raw mode lines do not return by themselves.
    let text = if args.tty {
        text.replace('\n', "\r\n")
    } else {
        text
    };
    let _ = io::stderr().write_all(text.as_bytes());
    Ok(())
}
