//! Stands where `bulkhead-vmm` stands in the manager's tests on machines that cannot run guests.
//!
//! It takes the VMM's command line and configuration and keeps the promises of its sockets, but
//! instead of a guest there is a real `bulkhead-agent` process (BULKHEAD_TEST_AGENT) on this
//! machine. Everything above the virtual hardware is the real thing. How a domain's name begins
//! decides what goes wrong.

use std::error::Error;
use std::fs::File;
use std::io::{self, BufRead, BufReader, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, exit};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bulkhead_protocol::{CALL_PORT, CONTROL_PORT, Hello, Message, read_message};
use bulkhead_vmm_api::{
    ConsoleConfig, ControlCommand, ControlReply, ControlRequest, GuestConnections, Socket, Source,
    VmConfig, VmState,
};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn inherited(fd: i32) -> OwnedFd {
    // SAFETY: the configuration says that this descriptor was inherited for us, and each number
    // is taken once.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn listener(socket: &Socket) -> Result<UnixListener> {
    match socket {
        Socket::Fd(fd) => Ok(UnixListener::from(inherited(*fd))),
        Socket::Path(path) => Ok(UnixListener::bind(path)?),
    }
}

fn main() {
    if let Err(error) = run() {
        eprintln!("vmm-without-vm: {error}");
        exit(1);
    }
}

fn run() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, run, flag, config] = arguments.as_slice() else {
        return Err("usage".into());
    };
    let fd = config
        .strip_prefix("fd:")
        .ok_or("a configuration by descriptor")?;
    if run != "run" || flag != "--config" {
        return Err("usage".into());
    }
    let mut text = String::new();
    File::from(inherited(fd.parse()?)).read_to_string(&mut text)?;
    let config: VmConfig = serde_json::from_str(&text)?;
    if config.name.starts_with("broken") {
        return Err("/dev/kvm: permission denied; join the group kvm".into());
    }
    let mut kernel = [0; 4];
    let Source::Fd(fd) = config.kernel else {
        return Err("a kernel by descriptor".into());
    };
    File::from(inherited(fd)).read_exact(&mut kernel)?;
    assert_eq!(&kernel, b"\x7fELF", "the kernel is read from its beginning");
    let Some(Source::Fd(serial)) = config.serial else {
        return Err("a serial port".into());
    };
    let mut serial = File::from(inherited(serial));
    writeln!(serial, "a kernel boots: {}\x1b[2J", config.cmdline)?;

    let vsock = config.vsock.ok_or("a vsock")?;
    let Some(GuestConnections::Fd(fd)) = vsock.guest_connections else {
        return Err("guest connections by descriptor".into());
    };
    let connections = inherited(fd);
    let folder = std::env::temp_dir().join(format!("bulkhead-test-{}", std::process::id()));
    std::fs::create_dir(&folder)?;
    let control = listener(&config.control.ok_or("a control socket")?)?;
    let Some(ConsoleConfig::Path(console)) = config.console else {
        return Err("a console by path".into());
    };
    let console = UnixListener::bind(console)?;
    thread::spawn(move || echo(&console));

    let agent = if config.name.starts_with("silent") {
        Command::new("sleep").arg("1000").spawn()?
    } else {
        start_agent(&config.name, &folder, connections)?
    };
    let host = listener(&vsock.host_socket)?;
    let exec = folder.join("exec.sock");
    thread::spawn(move || bridge_exec(&host, &exec));
    let pid = agent.id();
    let stubborn = config.name.starts_with("stubborn");
    let marked = folder.clone();
    thread::spawn(move || serve_control(&control, pid, stubborn, &marked));
    let status = wait(agent);
    let _ = std::fs::remove_dir_all(&folder);
    writeln!(serial, "the guest ends")?;
    exit(if config.name.starts_with("crashing") {
        4
    } else {
        status
    });
}

fn wait(mut agent: Child) -> i32 {
    match agent.wait() {
        Ok(_) => 0,
        Err(_) => 1,
    }
}

fn start_agent(name: &str, folder: &Path, connections: OwnedFd) -> Result<Child> {
    let control = folder.join("control.sock");
    let listener = UnixListener::bind(&control)?;
    let name = name.to_owned();
    thread::spawn(move || {
        if name.starts_with("liar") {
            let (ours, mut guest) = UnixStream::pair().unwrap();
            hand_over(&connections, &ours);
            let hello = Hello {
                version: 999,
                agent: "\x1b[2J".into(),
                boot_ms: 0,
            };
            let _ = guest.write_all(&Message::Hello(hello).encode().unwrap());
            thread::sleep(Duration::from_secs(100));
        } else if name.starts_with("noise") {
            let (ours, mut guest) = UnixStream::pair().unwrap();
            hand_over(&connections, &ours);
            let _ = guest.write_all(&[0xff; 100_000]);
            thread::sleep(Duration::from_secs(100));
        }
        let connections = Arc::new(connections);
        let calls = connections.clone();
        thread::spawn(move || take_calls(&name, &calls));
        for stream in listener.incoming().flatten() {
            hand_over(&connections, &stream);
            // Programs of the guest may connect as well; the manager must not mind.
            let (ours, _guest) = UnixStream::pair().unwrap();
            hand_over(&connections, &ours);
        }
    });
    let agent = std::env::var_os("BULKHEAD_TEST_AGENT").ok_or("BULKHEAD_TEST_AGENT")?;
    let mut command = Command::new(agent);
    command
        .arg("--serve-exec")
        .arg(folder.join("exec.sock"))
        .arg("--control")
        .arg(control);
    // The test's guest has the home of the test, not of its user.
    command.env("BULKHEAD_TEST_GUEST", "yes");
    // SAFETY: prctl with these arguments only makes this process's end the child's end.
    unsafe {
        std::os::unix::process::CommandExt::pre_exec(&mut command, || {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        })
    };
    let child = command.spawn()?;
    Ok(child)
}

/// Calls of the guest's programs come in at `call-NAME.sock` in the folder for temporary files.
fn take_calls(name: &str, connections: &OwnedFd) {
    let socket = std::env::temp_dir().join(format!("call-{name}.sock"));
    let _ = std::fs::remove_file(&socket);
    let Ok(listener) = UnixListener::bind(&socket) else {
        return;
    };
    for stream in listener.incoming().flatten() {
        hand_over_to(CALL_PORT, connections, &stream);
    }
}

fn hand_over(connections: &OwnedFd, stream: &UnixStream) {
    hand_over_to(CONTROL_PORT, connections, stream);
}

/// A connection from the guest, as the VMM hands it to the manager.
fn hand_over_to(port: u32, connections: &OwnedFd, stream: &UnixStream) {
    let port = port.to_le_bytes();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let fds = [stream.as_fd()];
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(&fds)));
    let _ = sendmsg(
        connections,
        &[IoSlice::new(&port)],
        &mut ancillary,
        SendFlags::empty(),
    );
}

fn echo(console: &UnixListener) {
    for stream in console.incoming().flatten() {
        let mut reader = stream.try_clone().unwrap();
        let mut writer = stream;
        let _ = io::copy(&mut reader, &mut writer);
    }
}

fn bridge_exec(host: &UnixListener, exec: &Path) {
    for mut stream in host.incoming().flatten() {
        let exec = exec.to_owned();
        thread::spawn(move || {
            let mut line = Vec::new();
            let mut byte = [0];
            while !line.ends_with(b"\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
                line.push(byte[0]);
            }
            assert_eq!(line, b"CONNECT 1025\n");
            let Ok(agent) = UnixStream::connect(&exec) else {
                return;
            };
            stream.write_all(b"OK 1073741824\n").unwrap();
            let Ok(agent) = with_programs(&mut stream, agent) else {
                return;
            };
            let (mut from_host, mut to_agent) =
                (stream.try_clone().unwrap(), agent.try_clone().unwrap());
            thread::spawn(move || {
                let _ = io::copy(&mut from_host, &mut to_agent);
                let _ = to_agent.shutdown(Shutdown::Both);
            });
            let (mut from_agent, mut to_host) = (agent, stream);
            let _ = io::copy(&mut from_agent, &mut to_host);
            let _ = to_host.shutdown(Shutdown::Both);
        });
    }
}

/// A guest has Bulkhead's programs in a folder of its own. Where BULKHEAD_TEST_PROGRAMS names a folder,
/// the commands that want them get those there.
fn with_programs(host: &mut UnixStream, mut agent: UnixStream) -> Result<UnixStream> {
    let Some(folder) = std::env::var_os("BULKHEAD_TEST_PROGRAMS") else {
        return Ok(agent);
    };
    let mut message = read_message(host)?;
    if let Message::Exec(request) = &mut message
        && let Some(program) = request.argv.first_mut()
        && let Some(name) = program.strip_prefix("/run/bulkhead/bin/")
    {
        *program = Path::new(&folder).join(name).display().to_string();
    }
    agent.write_all(&message.encode()?)?;
    Ok(agent)
}

fn serve_control(control: &UnixListener, agent: u32, stubborn: bool, folder: &Path) {
    for stream in control.incoming().flatten() {
        let folder = folder.to_owned();
        thread::spawn(move || {
            let mut writer = stream.try_clone().unwrap();
            for line in BufReader::new(stream).lines().map_while(io::Result::ok) {
                let request: ControlRequest = serde_json::from_str(&line).unwrap();
                let reply = serde_json::to_string(&ControlReply::done(VmState::Running)).unwrap();
                writeln!(writer, "{reply}").unwrap();
                match request.cmd {
                    // SAFETY: no pointers; the agent is our child.
                    ControlCommand::PowerButton if !stubborn => unsafe {
                        libc::kill(agent as i32, libc::SIGTERM);
                    },
                    ControlCommand::Kill => {
                        let _ = std::fs::remove_dir_all(&folder);
                        exit(5);
                    }
                    _ => {}
                }
            }
        });
    }
}
