//! The log of connections (a service of the template): what the firewall tells the kernel's log of
//! clients' connections, in words for people.

use std::fs::File;
use std::io::{self, Read, Write};

use crate::run::Wanted;

const KERNEL_LOG: &str = "/dev/kmsg";
/// No record of the kernel's is longer (`CONSOLE_EXT_LOG_MAX`).
const MAX_RECORD: usize = 8192;

/// Writes the log, once there are clients.
pub fn serve() -> io::Result<()> {
    Wanted::wait_for("firewall", |wanted| wanted.forwards_dns.then_some(()))?;
    let mut log = File::open(KERNEL_LOG)?;
    let mut output = io::stdout().lock();
    let mut record = [0; MAX_RECORD];
    loop {
        match log.read(&mut record) {
            Ok(length) => {
                let text = String::from_utf8_lossy(record.get(..length).unwrap_or_default());
                if let Some(line) = line(&text) {
                    writeln!(output, "{line}")?;
                }
            }
            // Records were overwritten before they were read; the next one is there.
            Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {}
            Err(error) => return Err(error),
        }
    }
}

/// What a record of the kernel's says of a connection, if it does.
fn line(record: &str) -> Option<String> {
    let (_, message) = record.lines().next()?.split_once(';')?;
    let (what, packet) = message.split_once(": ")?;
    let (client, outcome) = what.split_once(' ')?;
    let vlan: u16 = client.strip_prefix("client")?.parse().ok()?;
    let outcome = ["dropped", "accepted"]
        .into_iter()
        .find(|o| *o == outcome)?;
    let field = |name: &str| {
        let mut words = packet.split(' ');
        words.find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    };
    let port = |name: &str| {
        field(name)
            .map(|port| format!(":{port}"))
            .unwrap_or_default()
    };
    Some(format!(
        "client {vlan} {outcome}: {} from {}{} to {}{}",
        field("PROTO")?.to_ascii_lowercase(),
        field("SRC")?,
        port("SPT"),
        field("DST")?,
        port("DPT"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_told_in_words() {
        let tcp = "4,507,61000000,-;client3 dropped: IN=vlan3 OUT=eth0 MAC=02:b0:1c:01:00:02 \
                   SRC=10.137.0.3 DST=198.51.100.81 LEN=60 TOS=0x00 PREC=0x00 TTL=63 ID=1 DF \
                   PROTO=TCP SPT=41926 DPT=7000 WINDOW=64240 RES=0x00 SYN URGP=0 \n SUBSYSTEM=x\n";
        assert_eq!(
            line(tcp).unwrap(),
            "client 3 dropped: tcp from 10.137.0.3:41926 to 198.51.100.81:7000"
        );
        let icmp = "4,508,61000000,-;client12 accepted: IN=vlan12 OUT=eth0 SRC=10.137.0.12 \
                    DST=198.51.100.81 LEN=84 PROTO=ICMP TYPE=8 CODE=0 ID=3 SEQ=1 \n";
        assert_eq!(
            line(icmp).unwrap(),
            "client 12 accepted: icmp from 10.137.0.12 to 198.51.100.81"
        );
        for other in [
            "6,1,0,-;Linux version 6.12",
            "6,1,0,-;client3 went: SRC=1 DST=2 PROTO=TCP",
            "6,1,0,-;clientx dropped: SRC=1 DST=2 PROTO=TCP",
            "6,1,0,-;client3 dropped: SRC=1 PROTO=TCP",
            "client3 dropped: SRC=1 DST=2 PROTO=TCP",
            "",
        ] {
            assert_eq!(line(other), None, "{other}");
        }
    }
}
