//! Starts a compositor in a thread and talks to it through its own sockets.

use std::{
    io::{IoSlice, IoSliceMut},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixListener,
    },
    path::PathBuf,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use bulkhead_compositor::{CrossingLimits, Options, Server, Stopper, domain::Quota};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketAddrUnix, SocketType, connect, recvmsg, sendmsg, socket,
};
use serde_json::{Value, json};

pub const RED: [u8; 3] = [0xcc, 0, 0];
pub const GREEN: [u8; 3] = [0x73, 0xd2, 0x16];

pub struct Channel(OwnedFd);

impl Channel {
    pub fn open(path: &std::path::Path) -> Self {
        let socket = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
        connect(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
        rustix::net::sockopt::set_socket_timeout(
            &socket,
            rustix::net::sockopt::Timeout::Recv,
            Some(Duration::from_secs(30)),
        )
        .unwrap();
        Self(socket)
    }

    pub fn send(&self, message: &[u8], fds: &[BorrowedFd<'_>]) {
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            assert!(ancillary.push(SendAncillaryMessage::ScmRights(fds)));
        }
        sendmsg(
            &self.0,
            &[IoSlice::new(message)],
            &mut ancillary,
            SendFlags::empty(),
        )
        .unwrap();
    }

    pub fn receive(&self) -> Value {
        let mut bytes = vec![0; 70_000];
        let mut ancillary = RecvAncillaryBuffer::default();
        let flags = RecvFlags::empty();
        let got = recvmsg(
            &self.0,
            &mut [IoSliceMut::new(&mut bytes)],
            &mut ancillary,
            flags,
        )
        .unwrap();
        serde_json::from_slice(&bytes[..got.bytes]).unwrap()
    }

    pub fn ask(&self, request: Value, fds: &[BorrowedFd<'_>]) -> Value {
        self.send(request.to_string().as_bytes(), fds);
        self.receive()
    }
}

pub struct Desk {
    pub dir: tempfile::TempDir,
    control: Channel,
    test: Channel,
    stopper: Stopper,
    thread: Option<JoinHandle<()>>,
}

pub struct Picture {
    pub width: usize,
    pub height: usize,
    rgb: Vec<u8>,
}

impl Picture {
    pub fn at(&self, x: i32, y: i32) -> [u8; 3] {
        let (x, y) = (usize::try_from(x).unwrap(), usize::try_from(y).unwrap());
        assert!(
            x < self.width && y < self.height,
            "{x},{y} is outside the picture"
        );
        let i = (y * self.width + x) * 3;
        self.rgb[i..i + 3].try_into().unwrap()
    }

    pub fn count(&self, colour: [u8; 3]) -> usize {
        self.rgb
            .chunks_exact(3)
            .filter(|pixel| *pixel == colour)
            .count()
    }
}

#[derive(Clone, Debug)]
pub struct Seen {
    pub id: u64,
    pub x: i32,
    pub y: i32,
    pub w: i32,
    pub h: i32,
    pub all: Value,
}

impl Seen {
    pub fn centre(&self) -> (i32, i32) {
        (self.x + self.w / 2, self.y + self.h / 2)
    }
}

impl Desk {
    pub fn start() -> Self {
        Self::with_quota(Quota::default())
    }

    pub fn with_quota(quota: Quota) -> Self {
        Self::with(Options {
            quota,
            ..Options::default()
        })
    }

    pub fn with_crossing(crossing: CrossingLimits) -> Self {
        Self::with(Options {
            crossing,
            ..Options::default()
        })
    }

    /// A desk of 800x600 whose pictures have this many pixels to one of the desk.
    pub fn with_scale(scale: i32) -> Self {
        Self::with(Options {
            scale,
            ..Options::default()
        })
    }

    fn with(options: Options) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = Options {
            size: (800, 600),
            control: Some(dir.path().join("control")),
            host_socket: Some(dir.path().join("host.wayland")),
            test_socket: Some(dir.path().join("test")),
            ..options
        };
        let (send, receive) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let server = Server::new(options).unwrap();
            send.send(server.stopper()).unwrap();
            server.run().unwrap();
        });
        let stopper = receive.recv().unwrap();
        let control = Channel::open(&dir.path().join("control"));
        let test = Channel::open(&dir.path().join("test"));
        Self {
            dir,
            control,
            test,
            stopper,
            thread: Some(thread),
        }
    }

    /// A desk with two domains, work (red) and personal (green).
    pub fn two() -> Self {
        let desk = Self::start();
        desk.add_domain("work", "red", "#cc0000");
        desk.add_domain("personal", "green", "#73d216");
        desk
    }

    pub fn socket(&self, domain: &str) -> PathBuf {
        self.dir.path().join(format!("{domain}.wayland"))
    }

    pub fn add_domain(&self, name: &str, label: &str, colour: &str) {
        let path = self.socket(name);
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(path).unwrap();
        let request = json!({"op": "add_domain", "name": name, "label": label, "colour": colour});
        let answer = self.control.ask(request, &[listener.as_fd()]);
        assert_eq!(answer["ok"], true, "{answer}");
    }

    pub fn control(&self, request: Value) -> Value {
        self.control.ask(request, &[])
    }

    pub fn control_channel(&self) -> Channel {
        Channel::open(&self.dir.path().join("control"))
    }

    pub fn test(&self, request: Value) -> Value {
        let answer = self.test.ask(request, &[]);
        assert_eq!(answer["ok"], true, "{answer}");
        answer
    }

    pub fn try_test(&self, request: Value) -> Value {
        self.test.ask(request, &[])
    }

    pub fn windows(&self) -> Vec<Seen> {
        let answer = self.test(json!({"op": "windows"}));
        let int = |v: &Value| i32::try_from(v.as_i64().unwrap()).unwrap();
        answer["windows"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|w| w["mapped"] == true)
            .map(|w| Seen {
                id: w["id"].as_u64().unwrap(),
                x: int(&w["x"]),
                y: int(&w["y"]),
                w: int(&w["width"]),
                h: int(&w["height"]),
                all: w.clone(),
            })
            .collect()
    }

    pub fn window_of(&self, domain: &str) -> Option<Seen> {
        self.windows()
            .into_iter()
            .find(|w| w.all["domain"] == domain && w.all["kind"] == "toplevel")
    }

    pub fn popup(&self) -> Option<Seen> {
        self.windows()
            .into_iter()
            .find(|w| w.all["kind"] == "popup")
    }

    pub fn stats(&self, domain: &str) -> Value {
        let answer = self.test(json!({"op": "stats"}));
        let domains = answer["domains"].as_array().unwrap();
        domains
            .iter()
            .find(|d| d["domain"] == domain)
            .cloned()
            .unwrap_or(Value::Null)
    }

    pub fn picture(&self) -> Picture {
        self.read_picture(json!({"op": "screenshot", "path": self.dir.path().join("p.png")}))
    }

    pub fn crop(&self, id: u64) -> Picture {
        let path = self.dir.path().join("p.png");
        self.read_picture(json!({"op": "crop", "window": id, "path": path}))
    }

    fn read_picture(&self, request: Value) -> Picture {
        self.test(request);
        let file = std::fs::File::open(self.dir.path().join("p.png")).unwrap();
        let mut reader = png::Decoder::new(std::io::BufReader::new(file))
            .read_info()
            .unwrap();
        let mut rgb = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut rgb).unwrap();
        Picture {
            width: info.width as usize,
            height: info.height as usize,
            rgb,
        }
    }

    pub fn pointer(&self, x: i32, y: i32) {
        self.test(json!({"op": "pointer_move", "x": x, "y": y}));
    }

    pub fn button(&self, button: u32, pressed: bool) {
        self.test(json!({"op": "pointer_button", "button": button, "pressed": pressed}));
    }

    pub fn click(&self, x: i32, y: i32) {
        self.pointer(x, y);
        self.button(0x110, true);
        self.button(0x110, false);
    }

    pub fn key(&self, code: u32, pressed: bool) {
        self.test(json!({"op": "key", "code": code, "pressed": pressed}));
    }

    /// Keys that are pressed together and released.
    pub fn chord(&self, codes: &[u32]) {
        for code in codes {
            self.key(*code, true);
        }
        for code in codes.iter().rev() {
            self.key(*code, false);
        }
    }

    /// Waits until something is so.
    pub fn wait<T>(&self, what: &str, mut check: impl FnMut() -> Option<T>) -> T {
        let began = Instant::now();
        loop {
            if let Some(found) = check() {
                return found;
            }
            assert!(
                began.elapsed() < Duration::from_secs(20),
                "still waiting: {what}"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.stopper.stop();
        let result = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking()
            && let Some(result) = result
        {
            result.expect("the compositor panicked");
        }
    }
}
