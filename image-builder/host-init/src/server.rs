//! Runs the commands that come through the port. One thread reads frames; each command has a
//! thread for each of its streams and one that waits for its end.

use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::{
    boot::{BootError, direct_root, note},
    children::spawn,
    protocol::{CHUNK, ExecRequest, Exit, Frame, Kind, ProtocolError},
    session,
};

/// How long to wait for the rest of the output after a command's end: a child that it left behind
/// may keep the pipes open for ever.
const OUTPUT_GRACE: Duration = Duration::from_millis(500);

type Port = Arc<Mutex<File>>;
type Streams = Arc<Mutex<HashMap<u32, Stream>>>;

/// A running command.
struct Stream {
    pid: u32,
    /// Bytes for its standard input; `None` is the end.
    stdin: mpsc::Sender<Option<Vec<u8>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves until the machine is told to end.
pub fn serve(port: PathBuf) -> Result<(), BootError> {
    let open = || {
        OpenOptions::new()
            .read(true)
            .write(true)
            .open(&port)
            .map_err(|source| BootError::Step {
                step: format!("opening {}", port.display()),
                source,
            })
    };
    let file = open()?;
    let writer = file.try_clone().map_err(|source| BootError::Step {
        step: "sharing the port".to_owned(),
        source,
    })?;
    let port: Port = Arc::new(Mutex::new(writer));
    let streams: Streams = Arc::default();
    let mut reader = PortReader(file);
    send(&port, &Frame::new(0, Kind::Ready, "1"));
    loop {
        match Frame::read(&mut reader) {
            Ok(Frame {
                kind: Kind::PowerOff,
                ..
            }) => return Ok(()),
            Ok(frame) => handle(frame, &port, &streams),
            Err(error @ (ProtocolError::Io(_) | ProtocolError::Malformed(_))) => {
                note(&error.to_string());
                return Ok(());
            }
        }
    }
}

/// A port reads as ended while nobody is connected at the other side: wait instead.
struct PortReader(File);

impl Read for PortReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read(buffer) {
                Ok(0) if !buffer.is_empty() => thread::sleep(Duration::from_millis(20)),
                other => return other,
            }
        }
    }
}

fn send(port: &Port, frame: &Frame) {
    if let Err(error) = frame.write(&mut *lock(port)) {
        note(&format!("writing to the port: {error}"));
    }
}

fn handle(frame: Frame, port: &Port, streams: &Streams) {
    match frame.kind {
        Kind::Exec => {
            let (port, streams) = (Arc::clone(port), Arc::clone(streams));
            // Starting may wait for the desktop: not in the thread that reads.
            let (sender, receiver) = mpsc::channel();
            lock(&streams).insert(
                frame.stream,
                Stream {
                    pid: 0,
                    stdin: sender,
                },
            );
            thread::spawn(move || {
                let result = serde_json::from_slice(&frame.payload)
                    .map_err(|error| error.to_string())
                    .and_then(|request: ExecRequest| {
                        run(frame.stream, &request, &port, &streams, receiver)
                    });
                lock(&streams).remove(&frame.stream);
                send(
                    &port,
                    &match result {
                        Ok(exit) => Frame::new(
                            frame.stream,
                            Kind::Exit,
                            serde_json::to_vec(&exit).unwrap_or_default(),
                        ),
                        Err(message) => Frame::new(frame.stream, Kind::Failed, message),
                    },
                );
            });
        }
        Kind::Stdin | Kind::StdinEnd => {
            if let Some(stream) = lock(streams).get(&frame.stream) {
                let bytes = (frame.kind == Kind::Stdin).then_some(frame.payload);
                let _ = stream.stdin.send(bytes);
            }
        }
        Kind::Signal => {
            let pid = lock(streams).get(&frame.stream).map(|stream| stream.pid);
            let signal = frame
                .number()
                .and_then(|number| i32::try_from(number).ok())
                .and_then(Signal::from_named_raw);
            if let (Some(pid), Some(signal)) =
                (pid.and_then(|pid| Pid::from_raw(pid.cast_signed())), signal)
            {
                let _ = kill_process_group(pid, signal);
            }
        }
        _ => note("a frame that only goes the other way"),
    }
}

fn run(
    stream: u32,
    request: &ExecRequest,
    port: &Port,
    streams: &Streams,
    input: mpsc::Receiver<Option<Vec<u8>>>,
) -> Result<Exit, String> {
    let (program, arguments) = request.argv.split_first().ok_or("an empty command")?;
    session::ensure(request.session.as_deref())?;
    let root = match &request.template {
        Some(template) => Some(direct_root(template).map_err(|error| error.to_string())?),
        None => None,
    };
    let identity = session::identity(request.user, root, request.cwd.as_ref().map(Into::into));
    let mut environment = session::environment(request.user);
    environment.extend(request.env.clone());
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .envs(&environment)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let (mut child, exit) = spawn(&mut command, identity).map_err(|error| {
        let place = match &request.template {
            Some(template) => format!(" in template {template}"),
            None if Path::new(program).is_absolute() => String::new(),
            None => format!(
                " (PATH={})",
                environment.get("PATH").map_or("", String::as_str)
            ),
        };
        format!("{program}: {error}{place}")
    })?;
    let pid = child.id();
    if let Some(known) = lock(streams).get_mut(&stream) {
        known.pid = pid;
    }
    send(port, &Frame::new(stream, Kind::Started, pid.to_le_bytes()));

    if let Some(mut stdin) = child.stdin.take() {
        thread::spawn(move || {
            while let Ok(Some(bytes)) = input.recv() {
                if stdin.write_all(&bytes).is_err() {
                    break;
                }
            }
        });
    }
    let copying = Arc::new(AtomicU32::new(0));
    let mut copies = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        copies.push(copy(stream, Kind::Stdout, stdout, port, &copying));
    }
    if let Some(stderr) = child.stderr.take() {
        copies.push(copy(stream, Kind::Stderr, stderr, port, &copying));
    }
    let exit = exit.recv().map_err(|_| "its end was lost".to_owned())?;
    for finished in copies {
        while let Err(mpsc::RecvTimeoutError::Timeout) = finished.recv_timeout(OUTPUT_GRACE) {
            // The other side may be slow to take what was written: that is not the end.
            if copying.load(Ordering::SeqCst) == 0 {
                break;
            }
        }
    }
    Ok(exit)
}

/// Sends what `source` yields, from a thread of its own; the receiver hears when it ended.
/// `copying` counts the threads that have something to send.
fn copy(
    stream: u32,
    kind: Kind,
    mut source: impl Read + Send + 'static,
    port: &Port,
    copying: &Arc<AtomicU32>,
) -> mpsc::Receiver<()> {
    let (port, copying) = (Arc::clone(port), Arc::clone(copying));
    let (done, finished) = mpsc::channel();
    thread::spawn(move || {
        let mut buffer = vec![0; CHUNK];
        while let Ok(count @ 1..) = source.read(&mut buffer) {
            copying.fetch_add(1, Ordering::SeqCst);
            let bytes = buffer.get(..count).unwrap_or_default();
            send(&port, &Frame::new(stream, kind, bytes));
            copying.fetch_sub(1, Ordering::SeqCst);
        }
        let _ = done.send(());
    });
    finished
}
