//! `direct-socket NAME LABEL PATH`: makes a domain that exists only for the compositor.
//!
//! It listens on PATH, hands the listening socket to the compositor under the given name and label,
//! as the manager does for a real domain, and stays until it is ended, when it removes both.
//! Programs of the test host that connect to PATH are drawn as that domain: the baseline that a
//! guest's programs are compared with.

use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::process::ExitCode;

use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType,
};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, label, path] = arguments.as_slice() else {
        eprintln!("usage: direct-socket NAME LABEL PATH");
        return ExitCode::from(2);
    };
    match run(name, label, path) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("direct-socket: {error}");
            ExitCode::from(1)
        }
    }
}

fn run(name: &str, label: &str, path: &str) -> std::io::Result<()> {
    let folder = std::env::var("XDG_RUNTIME_DIR").unwrap_or_else(|_| "/run/user/1000".into());
    let control = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?;
    let address = SocketAddrUnix::new(format!("{folder}/bulkhead/compositor.sock"))?;
    rustix::net::connect(&control, &address)?;
    let _ = std::fs::remove_file(path);
    let listener = UnixListener::bind(path)?;
    let colour = match label {
        "red" => "#cc0000",
        "green" => "#73d216",
        "blue" => "#3465a4",
        _ => "#555753",
    };
    let mut answer = vec![0u8; 65536];
    // One that an earlier run left behind; there is none as a rule, and the answer says so.
    let leftover = serde_json::json!({"op": "remove_domain", "name": name}).to_string();
    rustix::net::send(&control, leftover.as_bytes(), SendFlags::NOSIGNAL)?;
    rustix::net::recv(&control, &mut answer[..], RecvFlags::empty())?;
    let request = serde_json::json!({
        "op": "add_domain", "name": name, "label": label, "colour": colour,
    })
    .to_string();
    let fds = [listener.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut rights = SendAncillaryBuffer::new(&mut space);
    rights.push(SendAncillaryMessage::ScmRights(&fds));
    rustix::net::sendmsg(
        &control,
        &[std::io::IoSlice::new(request.as_bytes())],
        &mut rights,
        SendFlags::NOSIGNAL,
    )?;
    let (_, length) = rustix::net::recv(&control, &mut answer[..], RecvFlags::empty())?;
    println!("{}", String::from_utf8_lossy(&answer[..length]));
    // Until the compositor goes or somebody ends this program.
    let (_, _) = rustix::net::recv(&control, &mut answer[..], RecvFlags::empty())?;
    Ok(())
}
