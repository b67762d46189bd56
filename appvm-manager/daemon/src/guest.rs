//! What the guest may say unasked: connections from its vsock, the agent's control connection.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::time::Duration;

use bulkhead_protocol::{
    CALL_PORT, CONTROL_PORT, Decoder, Hello, Message, PROTOCOL_VERSION, Power, Ready,
};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

/// After each refused connection, so that a flood of them costs the daemon nothing.
const REFUSAL_PAUSE: Duration = Duration::from_millis(5);

/// What the agent reported, checked.
#[derive(Debug)]
pub enum Report {
    /// It runs.
    Hello(Hello),
    /// It takes commands.
    Ready(Ready),
    /// It is of another version, or not an agent at all.
    Broken(String),
}

/// Takes the guest's connections until its VMM closes its end. The first one to the control port
/// is the agent's, which runs before any other program of the guest. Those to the call port go to
/// `calls`: while that is full, this guest waits. Every other one is closed.
pub async fn serve(
    connections: OwnedFd,
    reports: mpsc::UnboundedSender<Report>,
    requests: mpsc::UnboundedReceiver<Power>,
    calls: mpsc::Sender<StdStream>,
) {
    // SAFETY: an OwnedFd keeps its descriptor open, and the same, for as long as it lives.
    let connections = match unsafe { AsyncFd::register(connections) } {
        Ok(connections) => connections,
        Err(error) => {
            tracing::error!(%error, "guest connections");
            return;
        }
    };
    let mut agent = Some((reports, requests));
    loop {
        match next(&connections).await {
            Ok(Some((CONTROL_PORT, stream))) if agent.is_some() => {
                let Some((reports, requests)) = agent.take() else {
                    continue;
                };
                tokio::spawn(async move {
                    if let Err(reason) = control(stream, &reports, requests).await {
                        let _ = reports.send(Report::Broken(reason));
                    }
                });
            }
            Ok(Some((CALL_PORT, stream))) => {
                // Nobody takes calls any more: the machine ends.
                if calls.send(stream).await.is_err() {
                    return;
                }
            }
            Ok(Some((port, _closed))) => {
                tracing::debug!(port, "refused a guest's connection");
                // A guest that connects without end is slowed down; the VMM refuses for us when
                // its queue is full.
                tokio::time::sleep(REFUSAL_PAUSE).await;
            }
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(%error, "guest connections");
                return;
            }
        }
    }
}

/// The next packet: a port and a connected socket.
async fn next(connections: &AsyncFd<OwnedFd>) -> io::Result<Option<(u32, StdStream)>> {
    loop {
        let mut ready = connections.readable().await?;
        let Ok(received) = ready.try_io(|fd| receive(fd.get_ref())) else {
            continue;
        };
        return received;
    }
}

fn receive(socket: &OwnedFd) -> io::Result<Option<(u32, StdStream)>> {
    let mut bytes = [0; 4];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let message = recvmsg(
        socket,
        &mut [io::IoSliceMut::new(&mut bytes)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT,
    )?;
    if message.bytes == 0 {
        return Ok(None);
    }
    let mut stream = None;
    for part in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = part {
            stream = fds.into_iter().next().map(StdStream::from);
        }
    }
    match stream {
        Some(stream) if message.bytes == 4 && !message.flags.contains(ReturnFlags::TRUNC) => {
            Ok(Some((u32::from_le_bytes(bytes), stream)))
        }
        _ => Err(io::Error::other(
            "the VMM sent something else than a port and a socket",
        )),
    }
}

/// One control connection, to its end.
async fn control(
    stream: StdStream,
    reports: &mpsc::UnboundedSender<Report>,
    mut requests: mpsc::UnboundedReceiver<Power>,
) -> Result<(), String> {
    let text = |error: io::Error| error.to_string();
    stream.set_nonblocking(true).map_err(text)?;
    let mut stream = UnixStream::from_std(stream).map_err(text)?;
    let mut decoder = Decoder::default();
    let mut buffer = [0; 4096];
    let mut greeted = false;
    let mut ready = false;
    loop {
        let count = tokio::select! {
            count = stream.read(&mut buffer) => match count {
                Ok(0) | Err(_) => return Ok(()),
                Ok(count) => count,
            },
            Some(power) = requests.recv() => {
                let frame = Message::Power(power).encode().map_err(|error| error.to_string())?;
                // A guest that does not listen is switched off by other means.
                let _ = stream.write_all(&frame).await;
                continue;
            }
        };
        decoder.extend(&buffer[..count]);
        while let Some(message) = decoder.next().map_err(|error| error.to_string())? {
            match message {
                Message::Hello(hello) if !greeted => {
                    greeted = true;
                    let welcome = Message::Welcome {
                        version: PROTOCOL_VERSION,
                    };
                    let frame = welcome.encode().map_err(|error| error.to_string())?;
                    stream.write_all(&frame).await.map_err(text)?;
                    if hello.version != PROTOCOL_VERSION {
                        return Err(format!(
                            "its agent speaks version {} of the protocol, the manager {}; build \
                             the images again",
                            hello.version, PROTOCOL_VERSION
                        ));
                    }
                    let _ = reports.send(Report::Hello(hello));
                }
                Message::Ready(message) if greeted && !ready => {
                    ready = true;
                    let _ = reports.send(Report::Ready(message));
                }
                Message::ProxyStatus(status) if greeted => {
                    tracing::debug!(
                        running = status.running,
                        restarts = status.restarts,
                        "wayland proxy"
                    );
                }
                other => return Err(format!("unexpected `{}` from its agent", other.name())),
            }
        }
    }
}
