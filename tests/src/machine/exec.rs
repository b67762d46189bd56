//! Commands inside the machine.

use std::{
    io::Write,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use bulkhead_host_init::protocol::{CHUNK, ExecRequest, Exit, Frame, Kind, User};

use super::{
    MachineError,
    connection::Connection,
    console_end, end_of,
    examine::{self, Traces},
};

/// A command to run, with what it needs.
#[derive(Debug, Clone)]
pub struct Exec {
    request: ExecRequest,
    timeout: Option<Duration>,
    stdin: Stdin,
    /// Whether it looks at the machine itself: then its own end in time needs no such look.
    looks: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Stdin {
    /// These bytes, then the end.
    Bytes(Vec<u8>),
    /// What [`Process::write`] sends.
    Open,
}

impl Exec {
    /// A program and its arguments, run as the desktop user.
    pub fn new<S: Into<String>>(argv: impl IntoIterator<Item = S>) -> Self {
        Self {
            request: ExecRequest {
                argv: argv.into_iter().map(Into::into).collect(),
                ..ExecRequest::default()
            },
            timeout: None,
            stdin: Stdin::Bytes(Vec::new()),
            looks: false,
        }
    }

    /// A line for the shell.
    #[must_use]
    pub fn shell(line: &str) -> Self {
        Self::new(["sh", "-c", line])
    }

    /// As the administrator.
    #[must_use]
    pub fn as_root(mut self) -> Self {
        self.request.user = User::Root;
        self
    }

    /// With a variable in its environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.request.env.insert(name.to_owned(), value.to_owned());
        self
    }

    /// In a folder.
    #[must_use]
    pub fn in_folder(mut self, folder: &str) -> Self {
        self.request.cwd = Some(folder.to_owned());
        self
    }

    /// With a template's files as its root: the same programs that a guest has, but directly on
    /// the host and its compositor.
    #[must_use]
    pub fn in_template(mut self, template: &str) -> Self {
        self.request.template = Some(template.to_owned());
        self
    }

    /// With the desktop running; `arguments` go to `bulkhead session` when it starts.
    #[must_use]
    pub fn with_session<S: Into<String>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.request.session = Some(arguments.into_iter().map(Into::into).collect());
        self
    }

    /// Killed if it runs longer.
    #[must_use]
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = Some(limit);
        self
    }

    /// For looking at a machine, which may not even answer that within this time.
    pub(super) fn looking(mut self, limit: Duration) -> Self {
        self.looks = true;
        self.timeout(limit)
    }

    /// With this standard input; without, it is empty.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Stdin::Bytes(bytes.into());
        self
    }

    /// With a standard input that [`Process::write`] feeds.
    #[must_use]
    pub fn open_stdin(mut self) -> Self {
        self.stdin = Stdin::Open;
        self
    }

    fn describe(&self) -> String {
        format!("`{}`", self.request.argv.join(" "))
    }
}

/// What a command left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// How it ended.
    pub exit: Exit,
    /// What it wrote on its standard output.
    pub stdout: Vec<u8>,
    /// What it wrote on its standard error.
    pub stderr: Vec<u8>,
}

impl Output {
    /// Whether it ended with status 0.
    #[must_use]
    pub fn success(&self) -> bool {
        self.exit == Exit::Status(0)
    }

    /// The standard output as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The standard error as text.
    #[must_use]
    pub fn errors(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }
}

/// A command that runs in the machine. Dropping it does not end it.
pub struct Process {
    connection: Arc<Connection>,
    stream: u32,
    frames: mpsc::Receiver<Frame>,
    name: String,
    deadline: Option<(Instant, Duration)>,
    looks: bool,
    traces: Traces,
    output: Output,
    ended: bool,
}

/// What one frame told us.
enum Event {
    Running,
    Stdout(Vec<u8>),
    Stderr(Vec<u8>),
    Ended,
    Nothing,
}

impl Process {
    pub(super) fn start(
        connection: Arc<Connection>,
        exec: &Exec,
        traces: Traces,
    ) -> Result<Self, MachineError> {
        let (stream, frames) = connection.open_stream();
        let mut process = Self {
            connection,
            stream,
            frames,
            name: exec.describe(),
            deadline: exec.timeout.map(|limit| (Instant::now() + limit, limit)),
            looks: exec.looks,
            traces,
            output: Output {
                exit: Exit::Status(0),
                stdout: Vec::new(),
                stderr: Vec::new(),
            },
            ended: false,
        };
        let request = serde_json::to_vec(&exec.request).unwrap_or_default();
        process.send(Kind::Exec, &request)?;
        if let Stdin::Bytes(bytes) = &exec.stdin {
            process.write(bytes)?;
            process.close_stdin()?;
        }
        // Whether it could be started at all is known here, not at the end.
        while let Event::Nothing = process.next(None)? {}
        Ok(process)
    }

    fn send(&self, kind: Kind, payload: &[u8]) -> Result<(), MachineError> {
        self.connection
            .send(&Frame::new(self.stream, kind, payload))
            .map_err(|error| self.lost(&format!("does not take commands ({error})")))
    }

    fn lost(&self, what: &str) -> MachineError {
        let what = format!("{what}, while running {}", self.name);
        MachineError::Gone {
            what,
            console: console_end(&self.traces.console),
        }
    }

    /// Feeds the standard input.
    pub fn write(&self, bytes: &[u8]) -> Result<(), MachineError> {
        bytes
            .chunks(CHUNK)
            .try_for_each(|chunk| self.send(Kind::Stdin, chunk))
    }

    /// Ends the standard input.
    pub fn close_stdin(&self) -> Result<(), MachineError> {
        self.send(Kind::StdinEnd, &[])
    }

    /// Sends a signal to the command and its children.
    pub fn signal(&self, signal: i32) -> Result<(), MachineError> {
        self.send(Kind::Signal, &signal.to_le_bytes())
    }

    /// Kills the command and its children.
    pub fn kill(&self) -> Result<(), MachineError> {
        self.signal(libc::SIGKILL)
    }

    /// Waits until the standard output contains `text`; `false` if the command or `limit` ended
    /// first. What was read stays part of the output.
    pub fn wait_for(&mut self, text: &str, limit: Duration) -> Result<bool, MachineError> {
        let until = Instant::now() + limit;
        loop {
            if self.output.text().contains(text) {
                return Ok(true);
            }
            if self.ended || Instant::now() >= until {
                return Ok(false);
            }
            let event = self.next(Some(until))?;
            self.keep(event);
        }
    }

    /// The end of the command, if it came already.
    pub fn try_wait(&mut self) -> Result<Option<Exit>, MachineError> {
        while !self.ended {
            let event = self.next(Some(Instant::now()))?;
            if matches!(event, Event::Nothing) {
                return Ok(None);
            }
            self.keep(event);
        }
        Ok(Some(self.output.exit))
    }

    /// What it wrote so far, as far as it was read by [`Process::wait_for`] or
    /// [`Process::try_wait`].
    #[must_use]
    pub fn output(&self) -> &Output {
        &self.output
    }

    /// Waits for the end and returns all output.
    pub fn wait(mut self) -> Result<Output, MachineError> {
        while !self.ended {
            let event = self.next(None)?;
            self.keep(event);
        }
        Ok(self.output)
    }

    /// Waits for the end and passes the output on as it comes.
    pub fn stream(
        mut self,
        stdout: &mut dyn Write,
        stderr: &mut dyn Write,
    ) -> Result<Exit, MachineError> {
        // Whoever reads our output may go away; the command still runs to its end.
        while !self.ended {
            match self.next(None)? {
                Event::Stdout(bytes) => {
                    let _ = stdout.write_all(&bytes).and_then(|()| stdout.flush());
                }
                Event::Stderr(bytes) => {
                    let _ = stderr.write_all(&bytes).and_then(|()| stderr.flush());
                }
                _ => {}
            }
        }
        Ok(self.output.exit)
    }

    fn keep(&mut self, event: Event) {
        match event {
            Event::Stdout(bytes) => self.output.stdout.extend(bytes),
            Event::Stderr(bytes) => self.output.stderr.extend(bytes),
            _ => {}
        }
    }

    /// The next event; [`Event::Nothing`] if `until` comes first.
    fn next(&mut self, until: Option<Instant>) -> Result<Event, MachineError> {
        let own = self.deadline.map(|(deadline, _)| deadline);
        let limit = match (until, own) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let received = match limit {
            None => self
                .frames
                .recv()
                .map_err(|_| mpsc::RecvTimeoutError::Disconnected),
            Some(limit) => self
                .frames
                .recv_timeout(limit.saturating_duration_since(Instant::now())),
        };
        let frame = match received {
            Ok(frame) => frame,
            Err(mpsc::RecvTimeoutError::Disconnected) => return Err(self.lost("went away")),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                if let Some((deadline, limit)) = self.deadline
                    && Instant::now() >= deadline
                {
                    let state = if self.looks {
                        String::new()
                    } else {
                        examine::what_hangs(&self.connection, &self.traces)
                    };
                    let _ = self.kill();
                    return Err(MachineError::TimedOut {
                        command: self.name.clone(),
                        seconds: limit.as_secs(),
                        said: end_of(&format!("{}{}", self.output.text(), self.output.errors())),
                        state,
                    });
                }
                return Ok(Event::Nothing);
            }
        };
        match frame.kind {
            Kind::Started => Ok(Event::Running),
            Kind::Stdout => Ok(Event::Stdout(frame.payload)),
            Kind::Stderr => Ok(Event::Stderr(frame.payload)),
            Kind::Exit => {
                self.ended = true;
                self.output.exit = serde_json::from_slice(&frame.payload)
                    .map_err(|error| self.lost(&format!("says nonsense ({error})")))?;
                Ok(Event::Ended)
            }
            _ => {
                self.ended = true;
                let reason = String::from_utf8_lossy(&frame.payload).into_owned();
                Err(MachineError::NotStarted {
                    command: self.name.clone(),
                    reason,
                })
            }
        }
    }
}
