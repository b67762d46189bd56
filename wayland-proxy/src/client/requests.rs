//! Requests: from the application to the host.

use std::os::fd::OwnedFd;
use std::rc::Rc;

use wayland_backend::protocol::{Interface, MessageDesc};
use wayland_server::Resource;
use wayland_server::protocol::wl_buffer::WlBuffer;
use wayland_server::protocol::wl_shm_pool::WlShmPool;

use super::objects::{ClientObject, Counterpart, HostObject, Role};
use super::{Client, ClientError, Flow};
use crate::shm::damage::Rect;
use crate::shm::pool::{Buffer, Pool, PoolError};
use crate::shm::surface::{Attached, PendingAttach, Surface};
use crate::shm::{Layout, pixel_bytes};
use crate::wire::{Arg, Header, MessageWriter, SERVER_ID_START, decode};

/// `wl_shm.error` codes.
const SHM_INVALID_FORMAT: u32 = 0;
const SHM_INVALID_STRIDE: u32 = 1;
const SHM_INVALID_FD: u32 = 2;

/// A request that was taken apart.
struct Request<'a> {
    id: u32,
    object: ClientObject,
    opcode: u16,
    desc: &'static MessageDesc,
    args: Vec<Arg<'a, OwnedFd>>,
}

fn pool_error(object: u32, error: &PoolError) -> ClientError {
    let code = match error {
        PoolError::Size { from: 0, .. } => SHM_INVALID_STRIDE,
        PoolError::Size { .. } => SHM_INVALID_FD,
        PoolError::Buffer { .. } => SHM_INVALID_STRIDE,
    };
    ClientError::Protocol {
        object,
        code,
        message: error.to_string(),
    }
}

/// An argument list that does not match its own signature: not possible after decoding.
fn mismatch(desc: &MessageDesc) -> ClientError {
    ClientError::implementation(format!("unexpected arguments of {}", desc.name))
}

impl Client {
    /// Handles one request.
    pub(super) fn request(&mut self, header: Header, body: &[u8]) -> Result<Flow, ClientError> {
        let id = header.object;
        let object = match self.objects.client(id) {
            Some(object) if !object.destroyed => *object,
            _ => {
                return Err(ClientError::invalid_object(format!(
                    "there is no object {id}"
                )));
            }
        };
        let name = object.interface.name;
        let desc = object.interface.requests.get(usize::from(header.opcode));
        let Some(desc) = desc.filter(|desc| desc.since <= object.version) else {
            let message = format!("{name}#{id} has no request {}", header.opcode);
            return Err(ClientError::invalid_method(message));
        };
        if object.role == Role::Surface && desc.name == "commit" && self.must_stall(id) {
            return Ok(Flow::Stall);
        }
        let args = decode(desc.signature, body, &mut self.from_client_fds).map_err(|error| {
            ClientError::invalid_method(format!("{name}#{id}.{}: {error}", desc.name))
        })?;
        let request = Request {
            id,
            object,
            opcode: header.opcode,
            desc,
            args,
        };
        match (object.role, desc.name) {
            (Role::Registry, "bind") => self.bind(request)?,
            (Role::Shm, "create_pool") => self.create_pool(request)?,
            (Role::ShmPool, "create_buffer") => self.create_buffer(request)?,
            (Role::ShmPool, "resize") => self.resize_pool(&request)?,
            (Role::Surface, "attach") => self.attach(&request)?,
            (Role::Surface, "commit") => {
                self.commit(id)?;
                self.forward(request)?;
            }
            (Role::Surface, _) => {
                self.observe_surface(&request);
                self.forward(request)?;
            }
            (Role::Viewporter, "get_viewport") => {
                if let [_, Arg::Object(surface)] = *request.args
                    && let Some(surface) = self.surfaces.get_mut(&surface)
                {
                    surface.has_viewport = true;
                }
                self.forward(request)?;
            }
            (Role::Subcompositor, "get_subsurface") => {
                if let [_, Arg::Object(surface), _] = *request.args
                    && let Some(surface) = self.surfaces.get_mut(&surface)
                {
                    surface.is_subsurface = true;
                }
                self.forward(request)?;
            }
            (Role::DataOffer, "receive") => {
                let Request {
                    object,
                    opcode,
                    desc,
                    mut args,
                    ..
                } = request;
                match (args.pop(), args.pop()) {
                    (Some(Arg::Fd(fd)), Some(Arg::Str(Some(mime)))) => {
                        self.receive_offer(id, object, opcode, mime, fd)?;
                    }
                    _ => return Err(mismatch(desc)),
                }
            }
            _ if object.host.is_none() => self.local(&request)?,
            _ => self.forward(request)?,
        }
        Ok(Flow::Next)
    }

    /// Sends a request on to the host, with the host's ids.
    fn forward(&mut self, request: Request<'_>) -> Result<(), ClientError> {
        let Request {
            id,
            object,
            opcode,
            desc,
            args,
        } = request;
        let Some(host) = object.host else {
            return Err(mismatch(desc));
        };
        self.check_args(&object, desc, &args)?;
        let mut created = None;
        let mut message = MessageWriter::new(self.to_host.bytes(), host, opcode);
        for arg in &args {
            match *arg {
                Arg::Int(value) => message.int(value),
                Arg::Uint(value) | Arg::Fixed(value) => message.uint(value),
                Arg::Str(text) => message.string(text),
                Arg::Array(bytes) => message.array(bytes),
                Arg::Object(0) => message.uint(0),
                Arg::Object(other) => {
                    let other = self.objects.client(other).and_then(|o| o.host);
                    message.uint(other.ok_or_else(|| mismatch(desc))?);
                }
                Arg::NewId(new) => {
                    let interface = desc.child_interface.ok_or_else(|| mismatch(desc))?;
                    let version = object.version;
                    let counterpart = Counterpart::Client(new);
                    let new_host = self.objects.add_host(HostObject {
                        interface,
                        version,
                        counterpart,
                    });
                    created = Some((new, ClientObject::new(interface, version, Some(new_host))));
                    message.uint(new_host);
                }
                Arg::Fd(_) => return Err(mismatch(desc)),
            }
        }
        message
            .finish()
            .map_err(|error| ClientError::implementation(error.to_string()))?;
        if let Some((new, object)) = created {
            self.add_object(new, object)?;
        }
        if desc.is_destructor {
            self.destroyed(id, &object)?;
        }
        Ok(())
    }

    /// Everything that could refuse a request, before any id is taken on the host's side.
    fn check_args(
        &self,
        object: &ClientObject,
        desc: &MessageDesc,
        args: &[Arg<'_, OwnedFd>],
    ) -> Result<(), ClientError> {
        let name = object.interface.name;
        let mut interfaces = desc.arg_interfaces.iter();
        for arg in args {
            match *arg {
                Arg::Object(id) => {
                    let wanted = interfaces.next();
                    if id == 0 {
                        continue;
                    }
                    let other = self.objects.client(id).filter(|o| !o.destroyed);
                    let fits = |o: &&ClientObject| {
                        wanted.is_none_or(|w| w.name == o.interface.name || w.version == 0)
                    };
                    let Some(other) = other.filter(fits) else {
                        let message =
                            format!("{name}.{}: object {id} is not what is needed", desc.name);
                        return Err(ClientError::invalid_object(message));
                    };
                    if other.host.is_none() {
                        let message = format!("{name}.{}: {id} is not relayed", desc.name);
                        return Err(ClientError::implementation(message));
                    }
                }
                Arg::NewId(id) => self
                    .objects
                    .check_new(id)
                    .map_err(|error| ClientError::invalid_object(error.to_string()))?,
                Arg::Fd(_) => {
                    let message = format!("{name}.{}: descriptors are not relayed", desc.name);
                    return Err(ClientError::implementation(message));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn add_object(&mut self, id: u32, object: ClientObject) -> Result<(), ClientError> {
        self.objects
            .add_client(id, object)
            .map_err(|error| ClientError::invalid_object(error.to_string()))?;
        match (object.role, object.host) {
            (Role::Surface, _) => {
                self.surfaces
                    .insert(id, Surface::new(self.shared.next_key()));
                Ok(())
            }
            (Role::DataSource, Some(host)) => self.add_source(id, host),
            _ => Ok(()),
        }
    }

    /// The application destroyed an object.
    fn destroyed(&mut self, id: u32, object: &ClientObject) -> Result<(), ClientError> {
        match object.role {
            Role::Surface => {
                if let Some(surface) = self.surfaces.remove(&id) {
                    self.blobs.forget_surface(surface.key);
                }
            }
            Role::ShmPool => drop(self.pools.remove(&id)),
            Role::Buffer => drop(self.buffers.remove(&id)),
            Role::DataSource => self.forget_source(id),
            Role::DataOffer => self.forget_offer(id),
            _ => {}
        }
        match object.host {
            None => self.delete_id(id),
            Some(host) if id >= SERVER_ID_START => {
                // Ids of the host's range are free at once, on both sides.
                self.objects.set_counterpart(host, Counterpart::Dead);
                self.objects.remove_client(id);
                Ok(())
            }
            Some(_) => {
                self.objects.mark_destroyed(id);
                Ok(())
            }
        }
    }

    /// A request on an object that the host does not have.
    fn local(&mut self, request: &Request<'_>) -> Result<(), ClientError> {
        match request.desc.is_destructor {
            true => self.destroyed(request.id, &request.object),
            false => Err(mismatch(request.desc)),
        }
    }

    fn bind(&mut self, request: Request<'_>) -> Result<(), ClientError> {
        let [
            Arg::Uint(name),
            Arg::Str(Some(interface)),
            Arg::Uint(version),
            Arg::NewId(new),
        ] = *request.args
        else {
            return Err(mismatch(request.desc));
        };
        let known = self.globals.get(&name).copied();
        let fits = |(known, newest): &(&'static Interface, u32)| {
            known.name.as_bytes() == interface && (1..=*newest).contains(&version)
        };
        let Some((interface, _)) = known.filter(fits) else {
            let interface = String::from_utf8_lossy(interface);
            let message = format!("there is no global {name} with {interface} version {version}");
            return Err(ClientError::invalid_object(message));
        };
        let refused =
            |error: super::objects::IdError| ClientError::invalid_object(error.to_string());
        self.objects.check_new(new).map_err(refused)?;
        let mut object = ClientObject::new(interface, version, None);
        if object.role == Role::Shm {
            self.add_object(new, object)?;
            for format in self.formats.clone() {
                self.send_client(new, 0, |m| m.uint(format))?;
            }
            return Ok(());
        }
        let Some(registry) = request.object.host else {
            return Err(mismatch(request.desc));
        };
        let counterpart = Counterpart::Client(new);
        let host = self.objects.add_host(HostObject {
            interface,
            version,
            counterpart,
        });
        object.host = Some(host);
        self.add_object(new, object)?;
        self.send_host(registry, request.opcode, |m| {
            m.uint(name);
            m.string(Some(interface.name.as_bytes()));
            m.uint(version);
            m.uint(host);
        })
    }

    fn create_pool(&mut self, request: Request<'_>) -> Result<(), ClientError> {
        let Request {
            id,
            object,
            desc,
            mut args,
            ..
        } = request;
        let (size, fd, new) = match (args.pop(), args.pop(), args.pop()) {
            (Some(Arg::Int(size)), Some(Arg::Fd(fd)), Some(Arg::NewId(new))) => (size, fd, new),
            _ => return Err(mismatch(desc)),
        };
        let pool = Pool::new(fd, size).map_err(|error| pool_error(id, &error))?;
        self.add_object(
            new,
            ClientObject::new(WlShmPool::interface(), object.version, None),
        )?;
        self.pools.insert(new, Rc::new(pool));
        Ok(())
    }

    fn create_buffer(&mut self, request: Request<'_>) -> Result<(), ClientError> {
        let [
            Arg::NewId(new),
            Arg::Int(offset),
            Arg::Int(width),
            Arg::Int(height),
            Arg::Int(stride),
            Arg::Uint(format),
        ] = *request.args
        else {
            return Err(mismatch(request.desc));
        };
        let pool = self
            .pools
            .get(&request.id)
            .ok_or_else(|| mismatch(request.desc))?
            .clone();
        let known = pixel_bytes(format).filter(|_| self.formats.contains(&format));
        let Some(pixel_bytes) = known else {
            let message = format!("the format {format:#x} was not announced");
            let code = SHM_INVALID_FORMAT;
            return Err(ClientError::Protocol {
                object: request.id,
                code,
                message,
            });
        };
        let layout = Layout {
            width,
            height,
            stride,
            format,
            pixel_bytes,
        };
        let buffer =
            Buffer::new(pool, offset, layout).map_err(|error| pool_error(request.id, &error))?;
        self.add_object(new, ClientObject::new(WlBuffer::interface(), 1, None))?;
        self.buffers.insert(new, Rc::new(buffer));
        Ok(())
    }

    fn resize_pool(&mut self, request: &Request<'_>) -> Result<(), ClientError> {
        match (&request.args[..], self.pools.get(&request.id)) {
            ([Arg::Int(size)], Some(pool)) => pool
                .resize(*size)
                .map_err(|error| pool_error(request.id, &error)),
            _ => Err(mismatch(request.desc)),
        }
    }

    /// Remembers a buffer until the commit: only then its picture is copied.
    fn attach(&mut self, request: &Request<'_>) -> Result<(), ClientError> {
        let [Arg::Object(buffer), Arg::Int(x), Arg::Int(y)] = *request.args else {
            return Err(mismatch(request.desc));
        };
        let attached = self.objects.client(buffer).filter(|o| !o.destroyed);
        let what = match (buffer, attached) {
            (0, _) => Attached::None,
            (
                _,
                Some(ClientObject {
                    role: Role::Buffer,
                    host: Some(host),
                    ..
                }),
            ) => Attached::Host(*host),
            _ => match self.buffers.get(&buffer) {
                Some(shm) => Attached::Shm {
                    buffer: shm.clone(),
                    client_id: buffer,
                },
                None => {
                    let message = format!("wl_surface.attach: {buffer} is not a buffer");
                    return Err(ClientError::invalid_object(message));
                }
            },
        };
        if let Some(surface) = self.surfaces.get_mut(&request.id) {
            surface.attach = Some(PendingAttach { what, x, y });
        }
        Ok(())
    }

    /// What a surface's other requests say about its damage.
    fn observe_surface(&mut self, request: &Request<'_>) {
        let Some(surface) = self.surfaces.get_mut(&request.id) else {
            return;
        };
        match (request.desc.name, &request.args[..]) {
            ("damage", &[Arg::Int(x), Arg::Int(y), Arg::Int(w), Arg::Int(h)]) => {
                surface.damage_surface(Rect::from_untrusted(x, y, w, h));
            }
            ("damage_buffer", &[Arg::Int(x), Arg::Int(y), Arg::Int(w), Arg::Int(h)]) => {
                surface.damage_buffer(Rect::from_untrusted(x, y, w, h));
            }
            ("frame", &[Arg::NewId(callback)]) => {
                surface.ask_frame(callback);
                self.frames.insert(callback, request.id);
            }
            ("set_buffer_scale", &[Arg::Int(scale)]) => surface.set_scale(scale),
            ("set_buffer_transform", &[Arg::Int(transform)]) => {
                surface.set_transform(transform.cast_unsigned());
            }
            ("set_buffer_transform", &[Arg::Uint(transform)]) => surface.set_transform(transform),
            _ => {}
        }
    }
}
