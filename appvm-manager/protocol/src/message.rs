//! The messages, as types. Their bytes are in [`crate::frame`].

use serde::{Deserialize, Serialize};

/// One of the three streams of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// From host to guest.
    Stdin,
    /// From guest to host; with a terminal, everything that it shows.
    Stdout,
    /// From guest to host; unused with a terminal.
    Stderr,
}

/// As whom a command runs in the guest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum User {
    /// The desktop user, uid 1000.
    #[default]
    User,
    /// The guest's root.
    Root,
}

/// The size of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowSize {
    /// Characters in a line.
    pub columns: u16,
    /// Lines.
    pub rows: u16,
}

/// What to run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecRequest {
    /// The program and its arguments; empty: the user's login shell.
    #[serde(default)]
    pub argv: Vec<String>,
    /// Added to the session's environment.
    #[serde(default)]
    pub env: Vec<(String, String)>,
    /// Where to run; absent: the user's home.
    #[serde(default)]
    pub cwd: Option<String>,
    /// Give the command a terminal of this size.
    #[serde(default)]
    pub tty: Option<WindowSize>,
    /// As whom.
    #[serde(default)]
    pub user: User,
}

/// A program in one domain wants a service of another.
///
/// Both words come from a guest and are checked by the policy (docs/policy.md).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallRequest {
    /// A domain's name, or a keyword of the policy like `@default` or `@dispvm`.
    pub target: String,
    /// The service's name, perhaps with `+` and an argument.
    pub service: String,
    /// The drop that this call carries out, by the number that the manager gave this domain for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drop: Option<u64>,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitReason {
    /// It exited with this status.
    Code(u8),
    /// This signal ended it.
    Signal(u8),
}

impl ExitReason {
    /// The status as a shell tells it: a signal is 128 + its number.
    pub fn shell_status(self) -> i32 {
        match self {
            ExitReason::Code(code) => i32::from(code),
            ExitReason::Signal(signal) => 128 + i32::from(signal),
        }
    }
}

/// The agent's first words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The agent's [`crate::PROTOCOL_VERSION`].
    pub version: u32,
    /// The agent's own version, for logs.
    pub agent: String,
    /// Milliseconds from the guest's boot to the agent's first instruction.
    #[serde(default)]
    pub boot_ms: u64,
}

/// The agent can run commands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// Milliseconds from the guest's boot to this message.
    #[serde(default)]
    pub boot_ms: u64,
    /// The stages of the agent's work: name and milliseconds since the guest's boot.
    #[serde(default)]
    pub stages: Vec<(String, u64)>,
}

/// What the daemon asks of the whole guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Power {
    /// Orderly shutdown.
    Off,
    /// Orderly restart.
    Reboot,
}

/// The Wayland proxy of the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyStatus {
    /// It runs now.
    pub running: bool,
    /// How often it had to be started again.
    pub restarts: u32,
}

/// Everything that either side may say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Control, agent first.
    Hello(Hello),
    /// Control, the daemon's answer: its version.
    Welcome {
        /// The daemon's [`crate::PROTOCOL_VERSION`].
        version: u32,
    },
    /// Control, agent: commands can be run from now on.
    Ready(Ready),
    /// Control, agent: the state of the Wayland proxy changed.
    ProxyStatus(ProxyStatus),
    /// Control, daemon: shut down or restart.
    Power(Power),
    /// Exec, daemon first.
    Exec(ExecRequest),
    /// Call, first: a program of the guest calls; the daemon answers like an agent on an exec
    /// connection, and both go on as if the service were the command.
    Call(CallRequest),
    /// Exec, agent: the command runs.
    Started {
        /// Its process identifier in the guest.
        pid: u32,
    },
    /// Exec, agent: the command could not be run. The status follows shells: 127 not found, 126
    /// not executable, 125 anything else.
    Refused {
        /// As above.
        status: u8,
        /// Why, for a person; untrusted text.
        message: String,
    },
    /// Exec, both: bytes of a stream, never more than its credit.
    Data {
        /// Which one.
        stream: Stream,
        /// At most [`crate::MAX_DATA`].
        bytes: Vec<u8>,
    },
    /// Exec, both. From the writer: nothing follows. From the reader: nothing more is wanted.
    Eof {
        /// Which one.
        stream: Stream,
    },
    /// Exec, both: the reader has taken this many bytes.
    Credit {
        /// Which one.
        stream: Stream,
        /// How many more bytes may be sent.
        bytes: u32,
    },
    /// Exec, daemon: send this signal to the command's process group.
    Signal {
        /// 1 to 31.
        number: u8,
    },
    /// Exec, daemon: the terminal has a new size.
    Resize(WindowSize),
    /// Exec, agent, last: the command ended.
    Exit(ExitReason),
}

impl Message {
    /// The name, for errors.
    pub fn name(&self) -> &'static str {
        match self {
            Message::Hello(_) => "hello",
            Message::Welcome { .. } => "welcome",
            Message::Ready(_) => "ready",
            Message::ProxyStatus(_) => "proxy-status",
            Message::Power(_) => "power",
            Message::Exec(_) => "exec",
            Message::Call(_) => "call",
            Message::Started { .. } => "started",
            Message::Refused { .. } => "refused",
            Message::Data { .. } => "data",
            Message::Eof { .. } => "eof",
            Message::Credit { .. } => "credit",
            Message::Signal { .. } => "signal",
            Message::Resize(_) => "resize",
            Message::Exit(_) => "exit",
        }
    }
}
