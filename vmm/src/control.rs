//! Clients of the control socket: lines of JSON, bounded in length and number.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use bulkhead_vmm_api::{ControlCommand, ControlEvent, ControlReply, ControlRequest};

use crate::exit::ExitReason;

/// Clients at a time; more wait in the socket's queue.
pub const MAX_CLIENTS: usize = 16;
/// No command is nearly as long.
const MAX_LINE_BYTES: usize = 4096;

/// One connected client.
pub struct Client {
    stream: UnixStream,
    line: Vec<u8>,
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl Client {
    /// Takes the next waiting client.
    pub fn accept(listener: &UnixListener) -> Option<Self> {
        let (stream, _) = listener.accept().ok()?;
        stream.set_nonblocking(true).ok()?;
        Some(Self {
            stream,
            line: Vec::new(),
        })
    }

    /// Reads what is there and answers each whole line. Returns whether the client stays.
    pub fn serve(&mut self, mut obey: impl FnMut(ControlCommand) -> ControlReply) -> bool {
        let mut buffer = [0; 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) => return false,
            Ok(count) => self
                .line
                .extend_from_slice(buffer.get(..count).unwrap_or_default()),
            Err(error) => {
                return matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                );
            }
        }
        while let Some(end) = self.line.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.line.drain(..=end).collect();
            let reply = match serde_json::from_slice::<ControlRequest>(&line) {
                Ok(request) => obey(request.cmd),
                Err(error) => ControlReply::refused(format!("not a command: {error}")),
            };
            if !self.send(&reply) {
                return false;
            }
        }
        if self.line.len() > MAX_LINE_BYTES {
            self.send(&ControlReply::refused("the line is too long"));
            return false;
        }
        true
    }

    /// Tells the client that the guest has ended.
    pub fn tell_exit(&mut self, reason: &ExitReason) {
        self.send(&ControlEvent::Exit {
            reason: reason.to_string(),
            status: reason.status() as u8,
        });
    }

    /// Sends a line. A client that does not read its answers is let go.
    fn send(&mut self, message: &impl serde::Serialize) -> bool {
        let Ok(mut line) = serde_json::to_vec(message) else {
            return false;
        };
        line.push(b'\n');
        self.stream.write_all(&line).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use bulkhead_vmm_api::VmState;

    use super::*;

    fn pair() -> (UnixStream, Client) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        (
            ours,
            Client {
                stream: theirs,
                line: Vec::new(),
            },
        )
    }

    fn answers(stream: &mut UnixStream) -> String {
        let mut buffer = [0; 1024];
        let count = stream.read(&mut buffer).unwrap();
        String::from_utf8(buffer[..count].to_vec()).unwrap()
    }

    #[test]
    fn lines_are_answered_one_by_one() {
        let (mut ours, mut client) = pair();
        ours.write_all(b"{\"cmd\":\"pause\"}\n{\"cmd\":\"fly\"}\n{\"cmd\"")
            .unwrap();
        let mut seen = Vec::new();
        assert!(client.serve(|command| {
            seen.push(command);
            ControlReply::done(VmState::Paused)
        }));
        assert_eq!(seen, [ControlCommand::Pause]);
        let text = answers(&mut ours);
        assert!(
            text.starts_with("{\"ok\":true,\"state\":\"paused\"}\n{\"ok\":false"),
            "{text}"
        );
        ours.write_all(b":\"status\"}\n").unwrap();
        assert!(client.serve(|_| ControlReply::done(VmState::Running)));
        assert_eq!(answers(&mut ours), "{\"ok\":true,\"state\":\"running\"}\n");
        client.tell_exit(&ExitReason::PoweredOff);
        let event = "{\"event\":\"exit\",\"reason\":\"the guest powered off\",\"status\":0}\n";
        assert_eq!(answers(&mut ours), event);
    }

    #[test]
    fn endless_lines_and_lost_clients_go() {
        let (mut ours, mut client) = pair();
        ours.write_all(&[b'x'; 8192]).unwrap();
        let refuse = |_| ControlReply::refused("no");
        while client.serve(refuse) {}
        assert!(client.line.len() <= MAX_LINE_BYTES + 1024);
        drop(ours);
        let (ours, mut client) = pair();
        drop(ours);
        assert!(!client.serve(refuse));
    }
}
