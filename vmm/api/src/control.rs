//! The control socket: one JSON object per line in each direction.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What may be asked of a running VMM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ControlCommand {
    /// Report the state.
    Status,
    /// Stop the virtual processors.
    Pause,
    /// Let them run again.
    Resume,
    /// Press the guest's power button (an ACPI event; the guest decides what to do).
    PowerButton,
    /// End the guest at once.
    Kill,
}

/// One line from a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ControlRequest {
    /// The command.
    pub cmd: ControlCommand,
}

/// Whether the guest's processors run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VmState {
    /// The guest runs.
    Running,
    /// The guest is paused.
    Paused,
}

/// The answer to one request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlReply {
    /// Whether the command was carried out.
    pub ok: bool,
    /// The state after the command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<VmState>,
    /// The guest's name (for `status`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Virtual processors (for `status`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<u8>,
    /// Guest RAM (for `status`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u32>,
    /// The GPU device's counters (for `status`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<BTreeMap<String, u64>>,
    /// What went wrong, when `ok` is false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl ControlReply {
    /// A command carried out.
    pub fn done(state: VmState) -> Self {
        Self {
            ok: true,
            state: Some(state),
            ..Self::default()
        }
    }

    /// A command refused.
    pub fn refused(error: impl Into<String>) -> Self {
        Self {
            error: Some(error.into()),
            ..Self::default()
        }
    }
}

/// A line that the VMM sends unasked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum ControlEvent {
    /// The guest has ended; the last line on the socket.
    Exit {
        /// Why, in words.
        reason: String,
        /// The status with which the VMM's process ends.
        status: u8,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_look_as_documented() {
        let request: ControlRequest = serde_json::from_str(r#"{"cmd":"power-button"}"#).unwrap();
        assert_eq!(request.cmd, ControlCommand::PowerButton);
        assert_eq!(
            serde_json::to_string(&ControlReply::done(VmState::Paused)).unwrap(),
            r#"{"ok":true,"state":"paused"}"#
        );
        assert_eq!(
            serde_json::to_string(&ControlEvent::Exit {
                reason: "off".into(),
                status: 0
            })
            .unwrap(),
            r#"{"event":"exit","reason":"off","status":0}"#
        );
    }
}
