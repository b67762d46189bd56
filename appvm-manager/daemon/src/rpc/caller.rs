//! The calling guest's end of a call: what it says is read here first, and bounded.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream as StdStream;
use std::time::Duration;

use bulkhead_protocol::{
    CallRequest, Decoder, FrameError, MAX_PAYLOAD, Message, Stream, WINDOW_BYTES,
};
use bulkhead_transfer::{FormatError, Manifest};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// How long a guest may take to say what it wants, and to describe its files.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long it may take to read a refusal.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(2);
/// A call's two words and what JSON adds to them.
const MAX_REQUEST: usize = 2048;
/// What a caller may send before its service runs: a window of input, and the frames around it.
const MAX_HELD: usize = WINDOW_BYTES as usize + 64 * 1024;
/// The longest manifest, with room to spare.
const MAX_MANIFEST: usize = 72 * 1024;

/// Why there is no caller any more.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallerError {
    #[error("it did not say in time what it wants")]
    Slow,
    #[error("the caller went away")]
    Gone,
    #[error("the caller broke the protocol: {0}")]
    Frame(#[from] FrameError),
    #[error("the caller sent `{0}` where it may not")]
    Unexpected(&'static str),
    #[error("the caller sends more than it may before its service runs")]
    TooMuch,
    #[error("what the caller sends are no files: {0}")]
    Manifest(FormatError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A guest that called, and waits.
#[derive(Debug)]
pub(super) struct Caller {
    stream: UnixStream,
    /// Everything that came after the request, as it came.
    held: Vec<u8>,
    decoder: Decoder,
    /// The input of the service, as far as it was looked at.
    input: Vec<u8>,
    /// Nothing follows that input.
    input_ended: bool,
    started: bool,
}

/// What a relay needs of a caller.
#[derive(Debug)]
pub(super) struct Parts {
    /// The connection, blocking.
    pub stream: StdStream,
    /// What was read of it already.
    pub held: Vec<u8>,
    /// The caller believes that its service runs.
    pub started: bool,
}

impl Caller {
    /// Reads the request.
    pub(super) async fn accept(stream: StdStream) -> Result<(Self, CallRequest), CallerError> {
        stream.set_nonblocking(true)?;
        let mut stream = UnixStream::from_std(stream)?;
        let request = tokio::time::timeout(REQUEST_TIMEOUT, read_request(&mut stream))
            .await
            .map_err(|_| CallerError::Slow)??;
        let caller = Caller {
            stream,
            held: Vec::new(),
            decoder: Decoder::default(),
            input: Vec::new(),
            input_ended: false,
            started: false,
        };
        Ok((caller, request))
    }

    /// Lets the caller begin, and reads which files it wants to send. Its service does not run yet:
    /// what the caller sends meanwhile is held, at most one window.
    pub(super) async fn manifest(&mut self) -> Result<Manifest, CallerError> {
        self.begin().await?;
        let read = async {
            loop {
                match Manifest::read(self.input.as_slice()) {
                    Ok(manifest) => return Ok(manifest),
                    Err(FormatError::Ended) if self.input.len() < MAX_MANIFEST => {}
                    Err(error) => return Err(CallerError::Manifest(error)),
                }
                self.more().await?;
            }
        };
        tokio::time::timeout(REQUEST_TIMEOUT, read)
            .await
            .map_err(|_| CallerError::Slow)?
    }

    /// Lets the caller begin, and takes all of its input for a service of the host: at most so many
    /// bytes.
    pub(super) async fn whole_input(&mut self, most: usize) -> Result<Vec<u8>, CallerError> {
        self.begin().await?;
        let read = async {
            while !self.input_ended {
                if self.input.len() > most {
                    return Err(CallerError::TooMuch);
                }
                self.more().await?;
            }
            Ok(())
        };
        tokio::time::timeout(REQUEST_TIMEOUT, read)
            .await
            .map_err(|_| CallerError::Slow)??;
        if self.input.len() > most {
            return Err(CallerError::TooMuch);
        }
        Ok(std::mem::take(&mut self.input))
    }

    async fn begin(&mut self) -> Result<(), CallerError> {
        if !self.started {
            self.send(&Message::Started { pid: 0 }).await?;
            self.started = true;
        }
        Ok(())
    }

    /// Ends when the caller is gone, or has earned it. Nothing is lost if it is dropped earlier.
    pub(super) async fn gone(&mut self) -> CallerError {
        loop {
            if let Err(error) = self.more().await {
                return error;
            }
        }
    }

    /// Holds what comes next.
    async fn more(&mut self) -> Result<(), CallerError> {
        let mut buffer = [0; 16 * 1024];
        // Reading is safe to be given up: either it has read and goes on, or it has not.
        let count = match self.stream.read(&mut buffer).await {
            // It left without reading everything.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => 0,
            count => count?,
        };
        let untrusted = match buffer.get(..count) {
            Some(bytes) if count > 0 => bytes,
            _ => return Err(CallerError::Gone),
        };
        if !self.started {
            return Err(CallerError::Unexpected("bytes before the answer"));
        }
        if self.held.len() + count > MAX_HELD {
            return Err(CallerError::TooMuch);
        }
        self.held.extend_from_slice(untrusted);
        self.decoder.extend(untrusted);
        while let Some(message) = self.decoder.next()? {
            match message {
                Message::Data {
                    stream: Stream::Stdin,
                    bytes,
                } => {
                    if self.input.len() < MAX_MANIFEST {
                        self.input.extend_from_slice(&bytes);
                    }
                }
                Message::Eof {
                    stream: Stream::Stdin,
                } => self.input_ended = true,
                // A caller whose outputs are closed already.
                Message::Eof { .. } => {}
                other => return Err(CallerError::Unexpected(other.name())),
            }
        }
        Ok(())
    }

    async fn send(&mut self, message: &Message) -> Result<(), CallerError> {
        let frame = message.encode()?;
        // Few bytes on a connection that has carried none: they fit, or the guest plays games.
        tokio::time::timeout(REFUSAL_TIMEOUT, self.stream.write_all(&frame))
            .await
            .map_err(|_| CallerError::Slow)??;
        Ok(())
    }

    /// Ends the call.
    pub(super) async fn refuse(mut self, status: u8, reason: &str) {
        for message in refusal(self.started, status, reason) {
            if self.send(&message).await.is_err() {
                return;
            }
        }
        let _ = self.stream.shutdown().await;
        // Closed while the caller still sends, its kernel would throw away what it has not read.
        let mut buffer = [0; 4096];
        let rest = async {
            while self
                .stream
                .read(&mut buffer)
                .await
                .is_ok_and(|count| count > 0)
            {}
        };
        let _ = tokio::time::timeout(REFUSAL_TIMEOUT, rest).await;
    }

    /// Another handle on its connection.
    pub(super) fn handle(&self) -> io::Result<StdStream> {
        Ok(StdStream::from(self.stream.as_fd().try_clone_to_owned()?))
    }

    /// For threads.
    pub(super) fn into_parts(self) -> Result<Parts, CallerError> {
        let stream = self.stream.into_std()?;
        stream.set_nonblocking(false)?;
        Ok(Parts {
            stream,
            held: self.held,
            started: self.started,
        })
    }
}

impl Parts {
    /// Ends the call.
    pub(super) fn refuse(mut self, status: u8, reason: &str) {
        let _ = self.stream.set_write_timeout(Some(REFUSAL_TIMEOUT));
        for message in refusal(self.started, status, reason) {
            let Ok(frame) = message.encode() else { return };
            if self.stream.write_all(&frame).is_err() {
                return;
            }
        }
        linger(&self.stream, REFUSAL_TIMEOUT);
    }
}

/// Says that nothing follows, and waits until the other side has closed, at most so long. Closed
/// while it still sends, its kernel would throw away what it has not read.
pub(super) fn linger(mut stream: &StdStream, most: Duration) {
    let end = std::time::Instant::now() + most;
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut buffer = [0; 4096];
    loop {
        let left = end.saturating_duration_since(std::time::Instant::now());
        if left.is_zero() || stream.set_read_timeout(Some(left)).is_err() {
            return;
        }
        match stream.read(&mut buffer) {
            Ok(count) if count > 0 => {}
            _ => return,
        }
    }
}

/// To a caller that was told that its service runs, the service has ended.
pub(super) fn refusal(started: bool, status: u8, reason: &str) -> Vec<Message> {
    if started {
        vec![Message::Exit(bulkhead_protocol::ExitReason::Code(status))]
    } else {
        vec![Message::Refused {
            status,
            message: reason.to_owned(),
        }]
    }
}

/// Exactly one frame, so that nothing is read of what follows.
async fn read_request(stream: &mut UnixStream) -> Result<CallRequest, CallerError> {
    let mut length = [0; 4];
    read_exact(stream, &mut length).await?;
    let untrusted_length = u32::from_le_bytes(length);
    let length = match usize::try_from(untrusted_length) {
        Ok(length) if (1..=MAX_REQUEST.min(MAX_PAYLOAD)).contains(&length) => length,
        _ => return Err(FrameError::Length(untrusted_length).into()),
    };
    let mut frame = vec![0; length];
    read_exact(stream, &mut frame).await?;
    let Some((kind, payload)) = frame.split_first() else {
        return Err(FrameError::Length(0).into());
    };
    match Message::decode(*kind, payload)? {
        Message::Call(request) => Ok(request),
        other => Err(CallerError::Unexpected(other.name())),
    }
}

async fn read_exact(stream: &mut UnixStream, bytes: &mut [u8]) -> Result<(), CallerError> {
    match stream.read_exact(bytes).await {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(CallerError::Gone),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(target: &str) -> Vec<u8> {
        Message::Call(CallRequest {
            target: target.to_owned(),
            service: "x.Y".to_owned(),
            drop: None,
        })
        .encode()
        .unwrap()
    }

    fn data(bytes: &[u8]) -> Vec<u8> {
        Message::Data {
            stream: Stream::Stdin,
            bytes: bytes.to_vec(),
        }
        .encode()
        .unwrap()
    }

    #[tokio::test]
    async fn a_request_is_read_and_nothing_else() {
        let (mut guest, ours) = StdStream::pair().unwrap();
        guest.write_all(&call("work")).unwrap();
        guest.write_all(b"early").unwrap();
        let (caller, request) = Caller::accept(ours).await.unwrap();
        assert_eq!(request.target, "work");
        let parts = caller.into_parts().unwrap();
        drop(guest);
        let mut rest = String::new();
        (&parts.stream).read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "early");
    }

    #[tokio::test]
    async fn what_is_no_request_is_refused() {
        let hello = Message::Welcome { version: 1 }.encode().unwrap();
        let long = call(&"x".repeat(MAX_REQUEST));
        for bytes in [
            &hello[..],
            &long[..],
            &[0, 0, 0, 0, 1],
            &[255; 8],
            b"",
            b"\x05",
        ] {
            let (mut guest, ours) = StdStream::pair().unwrap();
            guest.write_all(bytes).unwrap();
            drop(guest);
            assert!(Caller::accept(ours).await.is_err(), "{bytes:?}");
        }
    }

    #[tokio::test]
    async fn a_manifest_is_read_and_everything_is_held() {
        let manifest = Manifest {
            entries: 1,
            bytes: 5,
            top_level: 1,
            shown: vec![bulkhead_transfer::Item {
                kind: bulkhead_transfer::Kind::File,
                bytes: 5,
                name: b"a.txt".to_vec(),
            }],
        };
        let mut bytes = Vec::new();
        manifest.write(&mut bytes).unwrap();
        let (mut guest, ours) = StdStream::pair().unwrap();
        let (head, tail) = bytes.split_at(10);
        let sent = [data(head), data(tail), data(b"more")].concat();
        guest.write_all(&call("work")).unwrap();
        guest.write_all(&sent).unwrap();
        let (mut caller, _) = Caller::accept(ours).await.unwrap();
        assert_eq!(caller.manifest().await.unwrap(), manifest);
        drop(guest);
        assert!(matches!(caller.gone().await, CallerError::Gone));
        let parts = caller.into_parts().unwrap();
        assert_eq!(parts.held, sent);
        assert!(parts.started);
    }

    #[tokio::test]
    async fn input_for_the_host_is_taken_to_its_end_and_no_further() {
        for (text, most, fits) in [("hello", 5, true), ("hello", 4, false)] {
            let (mut guest, ours) = StdStream::pair().unwrap();
            let eof = Message::Eof {
                stream: Stream::Stdin,
            };
            let sent = [
                call("@adminvm"),
                data(text.as_bytes()),
                eof.encode().unwrap(),
            ];
            guest.write_all(&sent.concat()).unwrap();
            let (mut caller, _) = Caller::accept(ours).await.unwrap();
            let input = caller.whole_input(most).await;
            assert_eq!(input.ok(), fits.then(|| text.as_bytes().to_vec()));
        }
    }

    #[tokio::test]
    async fn a_caller_holds_no_more_than_a_window() {
        let (mut guest, ours) = StdStream::pair().unwrap();
        guest.write_all(&call("work")).unwrap();
        let (mut caller, _) = Caller::accept(ours).await.unwrap();
        let writer = std::thread::spawn(move || {
            let frame = data(&[0; 30_000]);
            while guest.write_all(&frame).is_ok() {}
        });
        assert!(matches!(
            caller.manifest().await.unwrap_err(),
            CallerError::Manifest(FormatError::Magic)
        ));
        assert!(matches!(caller.gone().await, CallerError::TooMuch));
        drop(caller);
        writer.join().unwrap();
    }
}
