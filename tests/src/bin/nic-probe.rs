//! `nic-probe ADDRESS SERVER:PORT BYTES`: gives the machine's one network card the IPv4 address
//! ADDRESS (a /24), sends BYTES bytes to an echo server, and compares what comes back.
//!
//! Runs as root, in a guest or in the test host. Prints one JSON object: the interface, its driver,
//! its PCI address, the bytes that came back, and how often it interrupted before and after.

use std::error::Error;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How long a card may take to appear, and its link to come up.
const PATIENCE: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    match run() {
        Ok(found) => {
            println!("nic-probe: {found}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("nic-probe failed: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<serde_json::Value, Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(address), Some(server), Some(bytes)) =
        (arguments.next(), arguments.next(), arguments.next())
    else {
        return Err("usage: nic-probe ADDRESS SERVER:PORT BYTES".into());
    };
    let address: Ipv4Addr = address.parse()?;
    let server: SocketAddrV4 = server.parse()?;
    let bytes: usize = bytes.parse()?;
    let deadline = Instant::now() + PATIENCE;
    let interface = loop {
        match card()? {
            Some(interface) => break interface,
            None if Instant::now() > deadline => return Err("there is no network card".into()),
            None => std::thread::sleep(Duration::from_millis(100)),
        }
    };
    let device = fs::canonicalize(format!("/sys/class/net/{interface}/device"))?;
    let driver = fs::read_link(device.join("driver"))?;
    // A virtio card's PCI function is its parent.
    let mut names = device.iter().rev().map(|name| name.to_string_lossy());
    let own = names.next().unwrap_or_default().into_owned();
    let pci = if own.starts_with("virtio") {
        names.next().unwrap_or_default().into_owned()
    } else {
        own.clone()
    };
    let count = || interrupts(&[&own, &pci, &interface]);
    let before = count()?;
    configure(&interface, address)?;
    let echoed = loop {
        match echo(server, bytes) {
            Ok(echoed) => break echoed,
            Err(error) if Instant::now() > deadline => {
                return Err(format!("{server}: {error}").into());
            }
            Err(_) => std::thread::sleep(Duration::from_millis(500)),
        }
    };
    let driver = driver.file_name().unwrap_or_default().to_string_lossy();
    Ok(serde_json::json!({
        "interface": interface,
        "driver": driver,
        "pci": pci,
        "echoed": echoed,
        "interrupts_before": before,
        "interrupts_after": count()?,
    }))
}

/// The first interface that is a device's.
fn card() -> std::io::Result<Option<String>> {
    for entry in fs::read_dir("/sys/class/net")?.flatten() {
        if entry.path().join("device").exists() {
            return Ok(Some(entry.file_name().to_string_lossy().into_owned()));
        }
    }
    Ok(None)
}

/// The sum of all counters of lines that carry one of these names.
fn interrupts(names: &[&str]) -> std::io::Result<u64> {
    let text = fs::read_to_string("/proc/interrupts")?;
    let processors = text.lines().next().unwrap_or("").split_whitespace().count();
    let lines = text.lines().filter(|line| {
        line.split_whitespace()
            .any(|word| names.iter().any(|name| word.contains(name)))
    });
    Ok(lines
        .flat_map(|line| line.split_whitespace().skip(1).take(processors))
        .filter_map(|word| word.parse::<u64>().ok())
        .sum())
}

/// Sets address and netmask and takes the interface up, as `ifconfig` does.
fn configure(interface: &str, address: Ipv4Addr) -> std::io::Result<()> {
    // SAFETY: no pointers; the result is checked.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and nobody else owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    let inet = |address: Ipv4Addr| {
        let mut bytes = [0; 14];
        for (to, from) in bytes.iter_mut().skip(2).zip(address.octets()) {
            *to = from.cast_signed();
        }
        libc::sockaddr {
            sa_family: libc::AF_INET as libc::sa_family_t,
            sa_data: bytes,
        }
    };
    // SAFETY: an ifreq is plain old data, for which zeroes are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let room = request.ifr_name.len() - 1;
    for (to, from) in request
        .ifr_name
        .iter_mut()
        .zip(interface.bytes().take(room))
    {
        *to = from.cast_signed();
    }
    let mut set = |what: libc::Ioctl, value: libc::__c_anonymous_ifr_ifru| {
        request.ifr_ifru = value;
        // SAFETY: these requests read an initialised ifreq.
        match unsafe { libc::ioctl(socket.as_raw_fd(), what, &raw const request) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    set(
        libc::SIOCSIFADDR as libc::Ioctl,
        libc::__c_anonymous_ifr_ifru {
            ifru_addr: inet(address),
        },
    )?;
    set(
        libc::SIOCSIFNETMASK as libc::Ioctl,
        libc::__c_anonymous_ifr_ifru {
            ifru_addr: inet(Ipv4Addr::new(255, 255, 255, 0)),
        },
    )?;
    set(
        libc::SIOCSIFFLAGS as libc::Ioctl,
        libc::__c_anonymous_ifr_ifru {
            ifru_flags: (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short,
        },
    )
}

/// Sends bytes to an echo server while it reads what comes back, and returns how many did, unchanged.
fn echo(server: SocketAddrV4, bytes: usize) -> std::io::Result<usize> {
    let mut receiver = TcpStream::connect_timeout(&server.into(), Duration::from_secs(3))?;
    receiver.set_read_timeout(Some(PATIENCE))?;
    let mut sender = receiver.try_clone()?;
    let pattern = |at: usize| (at ^ at >> 8 ^ at >> 16) as u8;
    let writer = std::thread::spawn(move || {
        let all: Vec<u8> = (0..bytes).map(pattern).collect();
        sender.write_all(&all)
    });
    let mut back = vec![0; bytes];
    receiver.read_exact(&mut back)?;
    writer
        .join()
        .map_err(|_| std::io::Error::other("the sender panicked"))??;
    match back
        .iter()
        .enumerate()
        .position(|(at, byte)| *byte != pattern(at))
    {
        None => Ok(back.len()),
        Some(at) => Err(std::io::Error::other(format!(
            "byte {at} came back changed"
        ))),
    }
}
