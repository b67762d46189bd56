//! Who asks, one after the other.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use rustix::net::sockopt::socket_peercred;

use crate::kept::Kept;
use crate::request::{Answer, MAX_BYTES, Request};

/// Who is slower is not answered; nobody else waits longer for them.
const PATIENCE: Duration = Duration::from_secs(2);

/// Listens at `path`, which `owner` may use and nobody else.
pub fn listen(path: &Path, owner: u32) -> io::Result<UnixListener> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let _ = std::fs::remove_file(path);
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    chown(path, Some(owner), None)?;
    Ok(listener)
}

/// Answers for ever.
pub fn serve(listener: &UnixListener, owner: u32, kept: &mut Kept) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept()?;
        // A caller that goes away is no trouble.
        if let Err(error) = answer(&stream, owner, kept) {
            tracing::debug!(%error, "a caller");
        }
    }
}

fn answer(mut stream: &UnixStream, owner: u32, kept: &mut Kept) -> io::Result<()> {
    let peer = socket_peercred(stream)?.uid.as_raw();
    if peer != owner && peer != 0 {
        return Ok(());
    }
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut untrusted_line = Vec::new();
    let most = MAX_BYTES as u64 + 1;
    BufReader::new(stream.take(most)).read_until(b'\n', &mut untrusted_line)?;
    let answer = match Request::parse(&untrusted_line) {
        Err(error) => Answer::refused(error),
        Ok(request) => match kept.keep(&request.keep) {
            Err(error) => Answer::refused(error),
            Ok(results) => Answer {
                ok: true,
                devices: results
                    .into_iter()
                    .map(|(address, result)| (address, result.err().map(|e| e.to_string())))
                    .collect(),
                error: String::new(),
            },
        },
    };
    if !answer.error.is_empty() {
        tracing::warn!(error = answer.error, "refused");
    }
    let mut text = serde_json::to_vec(&answer)?;
    text.push(b'\n');
    stream.write_all(&text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::tests::{host, now_has};

    #[test]
    fn a_request_is_answered_and_nonsense_as_well() {
        let (root, host) = host(&[("0000:01:00.0", "0x020000\n", true)]);
        now_has(&host, "0000:01:00.0", "vfio-pci");
        let owner = rustix::process::getuid().as_raw();
        let path = root.path().join("run/broker.sock");
        let listener = listen(&path, owner).unwrap();
        let file = root.path().join("kept.json");
        std::thread::spawn(move || {
            let mut kept = Kept::open(host, file).unwrap();
            serve(&listener, owner, &mut kept)
        });
        for (line, expected) in [
            (
                "{\"keep\":[\"0000:01:00.0\",\"0000:09:00.0\"]}\n",
                "{\"ok\":true,\"devices\":{\"0000:01:00.0\":null,\"0000:09:00.0\":\"there is no PCI",
            ),
            ("nonsense\n", "{\"ok\":false,"),
            ("{\"keep\":[]}\n", "{\"ok\":true,\"devices\":{}}"),
        ] {
            let mut stream = UnixStream::connect(&path).unwrap();
            stream.write_all(line.as_bytes()).unwrap();
            let mut told = String::new();
            stream.read_to_string(&mut told).unwrap();
            assert!(told.starts_with(expected), "{told}");
        }
    }
}
