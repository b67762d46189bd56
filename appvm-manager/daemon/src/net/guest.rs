//! Tells a guest of its network, and asks it for its physical card's state: runs `bulkhead-net` in it,
//! as root.

use std::fs::File;
use std::io::{self, PipeReader, Read, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use bulkhead_net::Config;
use bulkhead_net::state::{self, State, StateError};
use bulkhead_net::wifi::{self, WifiError};
use bulkhead_protocol::{ExecRequest, User};

use crate::session::{self, Handle, Stdio};

/// Where the agent has put the program, out of the template's reach.
const PROGRAM: &str = "/run/bulkhead/bin/bulkhead-net";
/// It takes milliseconds; an emulated processor is slow.
const PATIENCE: Duration = Duration::from_secs(30);
/// Who asks for the state of all cards does not wait as long for one.
const STATE_PATIENCE: Duration = Duration::from_secs(5);
/// Looking for networks, or joining one, with what goes before.
const WIFI_PATIENCE: Duration = Duration::from_secs(75);
/// So much of a guest's words is read.
const MAX_WORDS: u64 = 2000;

/// Why a guest does not do as it is told, or does not answer.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// The daemon lacks something.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It cannot be spoken to.
    #[error("{0}")]
    Session(#[from] session::SessionError),
    /// It does not come to an end.
    #[error("it takes longer than {0} s")]
    Late(u64),
    /// What it says of its card is no state.
    #[error(transparent)]
    State(#[from] StateError),
    /// What it says of its networks is none, or what it is asked cannot be.
    #[error(transparent)]
    Wifi(#[from] WifiError),
    /// The program in it failed: the guest's words, cleaned.
    #[error("it says: {0}")]
    Failed(String),
}

/// Makes the network of the guest behind this vsock as `config` says.
pub async fn configure(vsock: PathBuf, config: &Config) -> Result<(), GuestError> {
    let text = serde_json::to_vec(config).map_err(io::Error::other)?;
    run(vsock, None, &text, PATIENCE, 0).await.map(drop)
}

/// What a guest says of its physical card.
pub async fn physical_card(vsock: PathBuf) -> Result<State, GuestError> {
    // One byte more shows that there is too much.
    let most = state::MAX_BYTES as u64 + 1;
    let untrusted_words = run(vsock, Some("status"), &[], STATE_PATIENCE, most).await?;
    Ok(State::parse(&untrusted_words)?)
}

/// Asks a guest with a wireless card for something. How its card is then.
pub async fn wifi(vsock: PathBuf, request: &wifi::Request) -> Result<wifi::State, GuestError> {
    request.check()?;
    let text = serde_json::to_vec(request).map_err(io::Error::other)?;
    let most = wifi::MAX_BYTES as u64 + 1;
    let untrusted_words = run(vsock, Some("wifi"), &text, WIFI_PATIENCE, most).await?;
    Ok(wifi::State::parse(&untrusted_words)?)
}

/// Runs the program in a guest, and gives up to `most` bytes of what it says.
async fn run(
    vsock: PathBuf,
    argument: Option<&str>,
    input: &[u8],
    patience: Duration,
    most: u64,
) -> Result<Vec<u8>, GuestError> {
    let (output, output_writer) = io::pipe()?;
    let (errors, errors_writer) = io::pipe()?;
    let stdio = Stdio {
        stdin: in_memory(input)?,
        stdout: output_writer.into(),
        stderr: errors_writer.into(),
    };
    let argv = [Some(PROGRAM), argument].into_iter().flatten();
    let request = ExecRequest {
        argv: argv.map(str::to_owned).collect(),
        user: User::Root,
        ..ExecRequest::default()
    };
    let handle = Handle::default();
    let read = |pipe: PipeReader, most: u64| {
        tokio::task::spawn_blocking(move || {
            let mut untrusted_words = Vec::new();
            // Then the pipe closes; nobody waits for a guest that says more.
            let _ = pipe.take(most).read_to_end(&mut untrusted_words);
            untrusted_words
        })
    };
    let (output, errors) = (read(output, most), read(errors, MAX_WORDS));
    let running = {
        let handle = handle.clone();
        tokio::task::spawn_blocking(move || session::run(&vsock, request, stdio, &handle, |_| {}))
    };
    let outcome = match tokio::time::timeout(patience, running).await {
        Ok(outcome) => outcome.map_err(io::Error::other)??,
        Err(_) => {
            handle.cancel();
            return Err(GuestError::Late(patience.as_secs()));
        }
    };
    if outcome.status == 0 {
        return Ok(output.await.unwrap_or_default());
    }
    let untrusted_words = match outcome.message.is_empty() {
        false => outcome.message.into_bytes(),
        true => errors.await.unwrap_or_default(),
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
