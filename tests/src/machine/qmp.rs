//! QEMU's control socket (docs/interop/qmp-spec.rst): one command, one answer, events between.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::MachineError;

/// No command of ours takes longer, even on a busy machine.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// A connection to a running QEMU.
pub struct Qmp {
    reader: BufReader<UnixStream>,
    events: Vec<String>,
}

impl Qmp {
    /// Connects, as soon as QEMU listens.
    pub fn connect(
        socket: &Path,
        timeout: Duration,
        mut is_running: impl FnMut() -> bool,
    ) -> Result<Self, MachineError> {
        let deadline = Instant::now() + timeout;
        let stream = loop {
            match UnixStream::connect(socket) {
                Ok(stream) => break stream,
                Err(error) if Instant::now() > deadline || !is_running() => {
                    return Err(MachineError::NoQemu(format!("its control socket: {error}")));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        };
        stream
            .set_read_timeout(Some(ANSWER_TIMEOUT))
            .map_err(|error| MachineError::NoQemu(error.to_string()))?;
        let mut qmp = Self {
            reader: BufReader::new(stream),
            events: Vec::new(),
        };
        // The greeting; commands are taken after the first one.
        qmp.read()?;
        qmp.command("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Runs a command and returns what it answers.
    pub fn command(&mut self, name: &str, arguments: Value) -> Result<Value, MachineError> {
        let line = format!("{}\n", json!({ "execute": name, "arguments": arguments }));
        self.reader
            .get_mut()
            .write_all(line.as_bytes())
            .map_err(|error| MachineError::NoQemu(format!("{name}: {error}")))?;
        loop {
            let answer = self.read()?;
            if let Some(event) = answer.get("event").and_then(Value::as_str) {
                self.events.push(event.to_owned());
            } else if let Some(error) = answer.get("error") {
                return Err(MachineError::NoQemu(format!("{name}: {error}")));
            } else if let Some(value) = answer.get("return") {
                return Ok(value.clone());
            }
        }
    }

    /// How often an event has come, such as `RESET`.
    pub fn count(&mut self, event: &str) -> Result<usize, MachineError> {
        // Any command brings the events that are waiting.
        self.command("query-status", json!({}))?;
        Ok(self.events.iter().filter(|name| *name == event).count())
    }

    fn read(&mut self) -> Result<Value, MachineError> {
        let mut line = String::new();
        let count = self
            .reader
            .read_line(&mut line)
            .map_err(|error| MachineError::NoQemu(error.to_string()))?;
        if count == 0 {
            return Err(MachineError::NoQemu("it ended".to_owned()));
        }
        serde_json::from_str(&line)
            .map_err(|error| MachineError::NoQemu(format!("{error}: {line}")))
    }
}
