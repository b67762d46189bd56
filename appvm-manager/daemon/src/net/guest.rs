//! Tells a guest of its network: runs `bulkhead-net` in it, as root.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use bulkhead_net::Config;
use bulkhead_protocol::{ExecRequest, User};

use crate::session::{self, Handle, Stdio};

/// Where the agent has put the program, out of the template's reach.
const PROGRAM: &str = "/run/bulkhead/bin/bulkhead-net";
/// It takes milliseconds; an emulated processor is slow.
const PATIENCE: Duration = Duration::from_secs(30);
/// So much of a guest's words is read.
const MAX_WORDS: u64 = 2000;

/// Why a guest has no network, or not the one that it should have.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// The daemon lacks something.
    #[error("its network cannot be set up: {0}")]
    Io(#[from] io::Error),
    /// It cannot be spoken to.
    #[error("its network is not set up: {0}")]
    Session(#[from] session::SessionError),
    /// It does not come to an end.
    #[error("its network is not set up: it takes longer than {} s", PATIENCE.as_secs())]
    Late,
    /// The program in it failed: the guest's words, cleaned.
    #[error("its network is not set up: it says: {0}")]
    Failed(String),
}

/// Makes the network of the guest behind this vsock as `config` says.
pub async fn configure(vsock: PathBuf, config: &Config) -> Result<(), GuestError> {
    let text = serde_json::to_vec(config).map_err(io::Error::other)?;
    let (reader, writer) = io::pipe()?;
    let stdio = Stdio {
        stdin: in_memory(&text)?,
        stdout: File::options().write(true).open("/dev/null")?.into(),
        stderr: writer.into(),
    };
    let request = ExecRequest {
        argv: vec![PROGRAM.to_owned()],
        user: User::Root,
        ..ExecRequest::default()
    };
    let handle = Handle::default();
    let words = tokio::task::spawn_blocking(move || {
        let mut untrusted_words = Vec::new();
        let _ = reader.take(MAX_WORDS).read_to_end(&mut untrusted_words);
        untrusted_words
    });
    let running = {
        let handle = handle.clone();
        tokio::task::spawn_blocking(move || session::run(&vsock, request, stdio, &handle, |_| {}))
    };
    let outcome = match tokio::time::timeout(PATIENCE, running).await {
        Ok(outcome) => outcome.map_err(io::Error::other)??,
        Err(_) => {
            handle.cancel();
            return Err(GuestError::Late);
        }
    };
    if outcome.status == 0 {
        return Ok(());
    }
    let untrusted_words = match outcome.message.is_empty() {
        false => outcome.message.into_bytes(),
        true => words.await.unwrap_or_default(),
    };
    let words = String::from_utf8_lossy(&untrusted_words);
    let words = crate::text::clean(words.trim().trim_start_matches("bulkhead-net: "), 200);
    Err(GuestError::Failed(match words.is_empty() {
        true => format!("nothing (status {})", outcome.status),
        false => words,
    }))
}

/// A file without a name that is read from its beginning.
fn in_memory(bytes: &[u8]) -> io::Result<OwnedFd> {
    use std::io::Seek;
    let fd = rustix::fs::memfd_create("net-config", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut file = File::from(fd);
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(file.into())
}
