//! What connects guests: our link, the kernel's bridge, `passt`.

use std::io::{self, IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use bulkhead_ring::Memory;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags,
    SocketType, recv, sendmsg, socketpair,
};
use serde_json::{Value, json};

use super::fail;
use super::machine::inherit;

/// Ends with this.
pub struct Process(Child);

impl Process {
    /// Its number.
    pub fn process(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Our link, as the manager runs it.
pub struct Link {
    process: Process,
    control: OwnedFd,
}

impl Link {
    /// A link without ports.
    pub fn start() -> io::Result<Link> {
        let (control, theirs) = pair()?;
        let mut command = Command::new("bulkhead-link");
        command.args(["--control-fd", &theirs.as_raw_fd().to_string()]);
        inherit(&mut command, std::slice::from_ref(&theirs));
        let process = Process(command.spawn()?);
        Ok(Link { process, control })
    }

    /// Its number.
    pub fn process(&self) -> u32 {
        self.process.process()
    }

    /// A card's end of a new cable: its socket and its ring, as the manager makes them.
    pub fn plug(&self, request: &Value) -> io::Result<[OwnedFd; 2]> {
        let (ours, card) = pair()?;
        let ring = Memory::create()?;
        let text = request.to_string();
        let descriptors = [ours.as_fd(), ring.as_fd()];
        send_with(self.control.as_fd(), text.as_bytes(), &descriptors)?;
        let mut answer = vec![0; 64 * 1024];
        let (_, length) = recv(&self.control, &mut answer[..], RecvFlags::empty())?;
        let told: Value = serde_json::from_slice(answer.get(..length).unwrap_or_default())?;
        match told["ok"] == json!(true) {
            true => Ok([card, ring]),
            false => Err(fail(format!("{request}: {told}"))),
        }
    }
}

fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC;
    Ok(socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        flags,
        None,
    )?)
}

fn send_with(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(fail("no room for a descriptor"));
    }
    let parts = [IoSlice::new(bytes)];
    sendmsg(socket, &parts, &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// A bridge on which each client has a VLAN of its own, as it has on our trunks, and two TAPs.
pub fn bridge(name: &str, client: &str, trunk: &str, vlan: u16) -> io::Result<()> {
    shell(&format!(
        "set -e
         echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6
         ip link add {name} type bridge vlan_filtering 1 vlan_default_pvid 0 stp_state 0 \
             mcast_snooping 0
         ip link set {name} up
         for tap in {client} {trunk}; do
             ip tuntap add dev $tap mode tap vnet_hdr
             ip link set $tap master {name} up
         done
         bridge vlan add dev {client} vid {vlan} pvid untagged
         bridge vlan add dev {trunk} vid {vlan}"
    ))
}

/// `passt` for one guest, whose gateway leads to this host's own loopback. Its socket.
pub fn passt(folder: &Path, address: &str, gateway: &str) -> io::Result<(Process, PathBuf)> {
    let socket = folder.join("passt.sock");
    let errors = std::fs::File::create(folder.join("passt.errors"))?;
    let child = Command::new("passt")
        .arg("--foreground")
        .args(["--runas", "0"])
        .arg("--socket")
        .arg(&socket)
        .args(["-4", "-a", address, "-n", "24", "-g", gateway])
        .args(["--map-host-loopback", gateway])
        .stderr(errors.try_clone()?)
        .stdout(errors)
        .spawn()?;
    let mut process = Process(child);
    for _ in 0..100 {
        if socket.exists() {
            return Ok((process, socket));
        }
        if process.0.try_wait()?.is_some() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let mut said = String::new();
    std::fs::File::open(folder.join("passt.errors"))?.read_to_string(&mut said)?;
    Err(fail(format!("passt: {said}")))
}

/// As the administrator.
fn shell(script: &str) -> io::Result<()> {
    let output = Command::new("sh").args(["-c", script]).output()?;
    match output.status.success() {
        true => Ok(()),
        false => Err(fail(format!(
            "{script}: {}",
            String::from_utf8_lossy(&output.stderr)
        ))),
    }
}
