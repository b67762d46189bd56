//! A client that writes the wire format itself, right or wrong.

use std::collections::{HashMap, VecDeque};
use std::io::{IoSlice, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use bulkhead_wayland_proxy::wire::{Arg, Header, MessageWriter, decode};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use wayland_backend::protocol::Interface;
use wayland_server::protocol::__interfaces as core;

#[derive(Debug)]
pub enum Value {
    Int(i32),
    Uint(u32),
    Str(Option<String>),
    Object(u32),
    Array(Vec<u8>),
    Fd(OwnedFd),
}

impl Value {
    pub fn uint(&self) -> u32 {
        match self {
            Value::Uint(v) | Value::Object(v) => *v,
            Value::Int(v) => *v as u32,
            other => panic!("{other:?} is no number"),
        }
    }

    pub fn text(&self) -> &str {
        match self {
            Value::Str(Some(text)) => text,
            other => panic!("{other:?} is no text"),
        }
    }
}

#[derive(Debug)]
pub struct Event {
    pub object: u32,
    pub name: String,
    pub args: Vec<Value>,
}

pub struct RawClient {
    pub stream: UnixStream,
    next: u32,
    free: Vec<u32>,
    objects: HashMap<u32, &'static Interface>,
    bytes: Vec<u8>,
    fds: VecDeque<OwnedFd>,
    pub globals: HashMap<String, (u32, u32)>,
    registry: u32,
    pub events: VecDeque<Event>,
    pub closed: bool,
}

impl RawClient {
    pub fn connect(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let mut client = Self {
            stream,
            next: 2,
            free: Vec::new(),
            objects: HashMap::from([(1, &core::WL_DISPLAY_INTERFACE)]),
            bytes: Vec::new(),
            fds: VecDeque::new(),
            globals: HashMap::new(),
            registry: 0,
            events: VecDeque::new(),
            closed: false,
        };
        client.registry = client.new_id(&core::WL_REGISTRY_INTERFACE);
        let registry = client.registry;
        client.request(1, 1, |m| m.uint(registry));
        client.roundtrip();
        client
    }

    pub fn new_id(&mut self, interface: &'static Interface) -> u32 {
        let id = self.free.pop().unwrap_or_else(|| {
            self.next += 1;
            self.next - 1
        });
        self.objects.insert(id, interface);
        id
    }

    pub fn send(&mut self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> bool {
        let mut sent = 0;
        let mut fds = fds;
        while sent < bytes.len() {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(28))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !fds.is_empty() {
                control.push(SendAncillaryMessage::ScmRights(fds));
            }
            let iov = [IoSlice::new(&bytes[sent..])];
            match rustix::net::sendmsg(&self.stream, &iov, &mut control, SendFlags::NOSIGNAL) {
                Ok(n) => sent += n,
                Err(_) => return false,
            }
            fds = &[];
        }
        true
    }

    pub fn request(&mut self, object: u32, opcode: u16, args: impl FnOnce(&mut MessageWriter<'_>)) {
        self.request_fd(object, opcode, None, args);
    }

    pub fn request_fd(
        &mut self,
        object: u32,
        opcode: u16,
        fd: Option<BorrowedFd<'_>>,
        args: impl FnOnce(&mut MessageWriter<'_>),
    ) {
        let mut bytes = Vec::new();
        let mut message = MessageWriter::new(&mut bytes, object, opcode);
        args(&mut message);
        message.finish().unwrap();
        self.send(&bytes, fd.as_slice());
    }

    /// Waits for the next event, in order; `None` when the connection is closed.
    pub fn read_event(&mut self) -> Option<Event> {
        loop {
            if let Some(header) = Header::read(&self.bytes).unwrap()
                && self.bytes.len() >= header.size_bytes
            {
                let message: Vec<u8> = self.bytes.drain(..header.size_bytes).collect();
                return Some(self.parse(header, &message[8..]));
            }
            let mut buffer = [0; 8192];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(28))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let iov = &mut [IoSliceMut::new(&mut buffer)];
            let flags = RecvFlags::CMSG_CLOEXEC;
            let n = match rustix::net::recvmsg(&self.stream, iov, &mut control, flags) {
                Ok(message) => message.bytes,
                Err(rustix::io::Errno::CONNRESET) => 0,
                Err(errno) => panic!("no event: {errno}"),
            };
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(fds) = message {
                    self.fds.extend(fds);
                }
            }
            if n == 0 {
                self.closed = true;
                return None;
            }
            self.bytes.extend_from_slice(&buffer[..n]);
        }
    }

    fn parse(&mut self, header: Header, body: &[u8]) -> Event {
        let interface = self.objects[&header.object];
        let desc = &interface.events[usize::from(header.opcode)];
        let args = decode(desc.signature, body, &mut self.fds).unwrap();
        let mut values = Vec::new();
        for arg in args {
            values.push(match arg {
                Arg::Int(v) => Value::Int(v),
                Arg::Uint(v) | Arg::Fixed(v) => Value::Uint(v),
                Arg::Str(v) => Value::Str(v.map(|v| String::from_utf8_lossy(v).into_owned())),
                Arg::Object(v) => Value::Object(v),
                Arg::NewId(v) => {
                    self.objects.insert(v, desc.child_interface.unwrap());
                    Value::Object(v)
                }
                Arg::Array(v) => Value::Array(v.to_vec()),
                Arg::Fd(v) => Value::Fd(v),
            });
        }
        let event = Event {
            object: header.object,
            name: format!("{}.{}", interface.name, desc.name),
            args: values,
        };
        match event.name.as_str() {
            "wl_display.delete_id" => {
                let id = event.args[0].uint();
                self.objects.remove(&id).expect("an id is given back twice");
                self.free.push(id);
            }
            "wl_registry.global" => {
                let (name, version) = (event.args[0].uint(), event.args[2].uint());
                self.globals
                    .insert(event.args[1].text().to_owned(), (name, version));
            }
            _ => {}
        }
        event
    }

    /// Reads events until one of this name comes; those before it are kept in `events`.
    pub fn wait_for(&mut self, name: &str) -> Option<Event> {
        if let Some(place) = self.events.iter().position(|event| event.name == name) {
            return self.events.remove(place);
        }
        while let Some(event) = self.read_event() {
            if event.name == name {
                return Some(event);
            }
            self.events.push_back(event);
        }
        None
    }

    /// Waits until the host has handled everything; `false` when the connection is closed.
    pub fn roundtrip(&mut self) -> bool {
        let callback = self.new_id(&core::WL_CALLBACK_INTERFACE);
        self.request(1, 0, |m| m.uint(callback));
        while let Some(event) = self.read_event() {
            if event.object == callback && event.name == "wl_callback.done" {
                return true;
            }
            self.events.push_back(event);
        }
        false
    }

    pub fn bind(&mut self, interface: &'static Interface, version: u32) -> u32 {
        let (name, _) = self.globals[interface.name];
        let id = self.new_id(interface);
        let registry = self.registry;
        self.request(registry, 0, |m| {
            m.uint(name);
            m.string(Some(interface.name.as_bytes()));
            m.uint(version);
            m.uint(id);
        });
        id
    }

    /// The protocol error that ends the connection: object, code, text.
    pub fn error(&mut self) -> (u32, u32, String) {
        let event = self
            .wait_for("wl_display.error")
            .expect("closed without an error");
        while self.read_event().is_some() {}
        (
            event.args[0].uint(),
            event.args[1].uint(),
            event.args[2].text().to_owned(),
        )
    }

    pub fn surface(&mut self) -> u32 {
        let compositor = self.bind(&core::WL_COMPOSITOR_INTERFACE, 6);
        let surface = self.new_id(&core::WL_SURFACE_INTERFACE);
        self.request(compositor, 0, |m| m.uint(surface));
        surface
    }

    /// Makes a surface a subsurface of another.
    pub fn subsurface(&mut self, surface: u32, parent: u32) {
        let subcompositor = self.bind(&core::WL_SUBCOMPOSITOR_INTERFACE, 1);
        let subsurface = self.new_id(&core::WL_SUBSURFACE_INTERFACE);
        self.request(subcompositor, 1, |m| {
            m.uint(subsurface);
            m.uint(surface);
            m.uint(parent);
        });
    }

    /// A pool of this size, and its file.
    pub fn pool(&mut self, size: usize, sealed: bool) -> (u32, OwnedFd) {
        let shm = self.bind(&core::WL_SHM_INTERFACE, 1);
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = rustix::fs::memfd_create("pool", flags).unwrap();
        rustix::fs::ftruncate(&file, size as u64).unwrap();
        if sealed {
            rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK).unwrap();
        }
        let pool = self.new_id(&core::WL_SHM_POOL_INTERFACE);
        self.request_fd(shm, 0, Some(file.as_fd()), |m| {
            m.uint(pool);
            m.int(size as i32);
        });
        (pool, file)
    }

    pub fn buffer(&mut self, pool: u32, offset: i32, width: i32, height: i32, stride: i32) -> u32 {
        let buffer = self.new_id(&core::WL_BUFFER_INTERFACE);
        self.request(pool, 0, |m| {
            m.uint(buffer);
            m.int(offset);
            m.int(width);
            m.int(height);
            m.int(stride);
            m.uint(1);
        });
        buffer
    }

    pub fn attach(&mut self, surface: u32, buffer: u32) {
        self.request(surface, 1, |m| {
            m.uint(buffer);
            m.int(0);
            m.int(0);
        });
    }

    pub fn damage_buffer(&mut self, surface: u32, [x, y, w, h]: [i32; 4]) {
        self.request(surface, 9, |m| {
            [x, y, w, h].into_iter().for_each(|n| m.int(n))
        });
    }

    /// `wl_surface.frame`.
    pub fn frame(&mut self, surface: u32) -> u32 {
        let callback = self.new_id(&core::WL_CALLBACK_INTERFACE);
        self.request(surface, 3, |m| m.uint(callback));
        callback
    }

    pub fn commit(&mut self, surface: u32) {
        self.request(surface, 6, |_| {});
    }
}

/// Reads a pipe to its end.
pub fn read_all(fd: OwnedFd) -> Vec<u8> {
    let mut all = Vec::new();
    std::fs::File::from(fd).read_to_end(&mut all).unwrap();
    all
}
