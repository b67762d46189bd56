//! Events: from the host to the application.

use wayland_backend::protocol::MessageDesc;
use wayland_server::Resource;
use wayland_server::protocol::wl_shm::WlShm;

use super::objects::{ClientObject, Counterpart, DISPLAY_ID, HostObject, OwnObject, Role};
use super::{Client, ClientError, REPLY};
use crate::channel::{HostDescriptor, PipeId};
use crate::globals;
use crate::shm::pixel_bytes;
use crate::stats::Stats;
use crate::wire::{Arg, Header, MessageWriter, decode};

type Args<'a> = Vec<Arg<'a, HostDescriptor>>;

impl Client {
    /// Handles one event.
    pub(super) fn event(&mut self, header: Header, body: &[u8]) -> Result<(), ClientError> {
        let host_id = header.object;
        let Some(object) = self.objects.host(host_id).copied() else {
            return Err(ClientError::Host(format!(
                "an event of object {host_id}, which is not"
            )));
        };
        let name = object.interface.name;
        let Some(desc) = object.interface.events.get(usize::from(header.opcode)) else {
            return Err(ClientError::Host(format!(
                "{name} has no event {}",
                header.opcode
            )));
        };
        let args = decode(desc.signature, body, &mut self.from_host_fds)
            .map_err(|error| ClientError::Host(format!("{name}.{}: {error}", desc.name)))?;
        match object.counterpart {
            Counterpart::Client(DISPLAY_ID) => self.display_event(desc, &args),
            Counterpart::Own(own) => self.own_event(own, host_id, desc, &args),
            Counterpart::Client(id) => match self.objects.client(id).copied() {
                Some(client) if !client.destroyed => {
                    self.client_event(id, client, header.opcode, desc, args)
                }
                _ => self.drop_event(&object, desc, args),
            },
            Counterpart::Dead => self.drop_event(&object, desc, args),
        }
    }

    fn display_event(&mut self, desc: &MessageDesc, args: &Args<'_>) -> Result<(), ClientError> {
        match (desc.name, &args[..]) {
            ("error", [Arg::Object(object), Arg::Uint(code), Arg::Str(Some(text))]) => {
                let object = match self.objects.host(*object).map(|o| o.counterpart) {
                    Some(Counterpart::Client(id)) => id,
                    _ => DISPLAY_ID,
                };
                let message = String::from_utf8_lossy(text).into_owned();
                Err(ClientError::Protocol {
                    object,
                    code: *code,
                    message,
                })
            }
            ("delete_id", [Arg::Uint(id)]) => {
                match self.objects.remove_host(*id).map(|o| o.counterpart) {
                    Some(Counterpart::Client(id)) => self.delete_id(id),
                    _ => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    fn own_event(
        &mut self,
        own: OwnObject,
        host_id: u32,
        desc: &MessageDesc,
        args: &Args<'_>,
    ) -> Result<(), ClientError> {
        match (own, desc.name, &args[..]) {
            (
                OwnObject::Registry,
                "global",
                [
                    Arg::Uint(name),
                    Arg::Str(Some(interface)),
                    Arg::Uint(version),
                ],
            ) => {
                let Some((interface, newest)) = globals::find(interface) else {
                    return Ok(());
                };
                let version = newest.min(*version);
                self.globals.insert(*name, (interface, version));
                if interface.name == WlShm::interface().name && self.host_shm.is_none() {
                    let shm = self.own_object(interface, 1, OwnObject::Shm);
                    self.host_shm = Some(shm);
                    return self.send_host(host_id, 0, |m| {
                        m.uint(*name);
                        m.string(Some(interface.name.as_bytes()));
                        m.uint(1);
                        m.uint(shm);
                    });
                }
                Ok(())
            }
            (OwnObject::SetupDone, "done", _) => {
                self.ready = true;
                Ok(())
            }
            (OwnObject::Shm, "format", [Arg::Uint(format)]) => {
                let format = *format;
                if pixel_bytes(format).is_none() || self.formats.contains(&format) {
                    return Ok(());
                }
                self.formats.push(format);
                let shms: Vec<u32> = self
                    .objects
                    .with_role(Role::Shm)
                    .map(|(id, _)| id)
                    .collect();
                for id in shms {
                    self.send_client(id, 0, |m| m.uint(format))?;
                }
                Ok(())
            }
            (OwnObject::Buffer, "release", _) => {
                if self.blobs.release(host_id) {
                    self.stalled_until = self.stalled_until.map(|_| std::time::Instant::now());
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn client_event(
        &mut self,
        id: u32,
        object: ClientObject,
        opcode: u16,
        desc: &'static MessageDesc,
        args: Args<'_>,
    ) -> Result<(), ClientError> {
        match (object.role, desc.name, &args[..]) {
            (
                Role::Registry,
                "global",
                [
                    Arg::Uint(name),
                    Arg::Str(Some(interface)),
                    Arg::Uint(version),
                ],
            ) => {
                let Some((interface, newest)) = globals::find(interface) else {
                    return Ok(());
                };
                let version = newest.min(*version);
                self.globals.insert(*name, (interface, version));
                self.send_client(id, opcode, |m| {
                    m.uint(*name);
                    m.string(Some(interface.name.as_bytes()));
                    m.uint(version);
                })
            }
            (Role::Registry, "global_remove", [Arg::Uint(name)])
                if !self.globals.contains_key(name) =>
            {
                Ok(())
            }
            (
                Role::Keyboard,
                "keymap",
                [Arg::Uint(format), Arg::Fd(descriptor), Arg::Uint(size)],
            ) => self.keymap(id, opcode, *format, *descriptor, *size),
            (Role::DataSource, "send", [Arg::Str(Some(mime)), Arg::Fd(descriptor)]) => {
                self.send_source(id, opcode, mime, *descriptor)
            }
            (Role::Callback, _, _) => {
                // Most often it is time to draw.
                self.reply_due = Some(std::time::Instant::now() + REPLY);
                if let Some(surface) = self.frames.remove(&id)
                    && let Some(surface) = self.surfaces.get_mut(&surface)
                {
                    surface.frame_done(id);
                }
                self.relay_event(id, object, opcode, desc, args)
            }
            (Role::DataSource, "cancelled", _) => {
                self.forget_source(id);
                self.relay_event(id, object, opcode, desc, args)
            }
            (Role::DataOffer, "offer", [Arg::Str(Some(mime))]) => {
                if self.is_marker(id, mime) {
                    return Ok(());
                }
                self.relay_event(id, object, opcode, desc, args)
            }
            _ => self.relay_event(id, object, opcode, desc, args),
        }
    }

    /// Sends an event on to the application, with the application's ids.
    fn relay_event(
        &mut self,
        id: u32,
        object: ClientObject,
        opcode: u16,
        desc: &'static MessageDesc,
        args: Args<'_>,
    ) -> Result<(), ClientError> {
        if args.iter().any(|arg| matches!(arg, Arg::Fd(_))) {
            let name = object.interface.name;
            tracing::warn!(
                "dropped {name}.{}: its descriptor cannot be relayed",
                desc.name
            );
            return self.close_descriptors(&args);
        }
        let mut message = MessageWriter::new(self.to_client.bytes(), id, opcode);
        for arg in &args {
            match *arg {
                Arg::Int(value) => message.int(value),
                Arg::Uint(value) | Arg::Fixed(value) => message.uint(value),
                Arg::Str(text) => message.string(text),
                Arg::Array(bytes) => message.array(bytes),
                Arg::Object(other) => {
                    let counterpart = self.objects.host(other).map(|o| o.counterpart);
                    message.uint(match counterpart {
                        Some(Counterpart::Client(other)) => other,
                        _ => 0,
                    });
                }
                Arg::NewId(new_host) => {
                    let unknown = || ClientError::Host(format!("{} makes {new_host}", desc.name));
                    let interface = desc.child_interface.ok_or_else(unknown)?;
                    let version = object.version;
                    let new = ClientObject::new(interface, version, Some(new_host));
                    let new = self.objects.add_offered(new).map_err(|_| unknown())?;
                    let counterpart = Counterpart::Client(new);
                    let host = HostObject {
                        interface,
                        version,
                        counterpart,
                    };
                    if !self.objects.add_host_offered(new_host, host) {
                        return Err(unknown());
                    }
                    message.uint(new);
                }
                Arg::Fd(_) => {}
            }
        }
        Stats::add(&self.shared.stats.events, 1);
        message
            .finish()
            .map_err(|error| ClientError::Host(error.to_string()))
    }

    /// An event for nobody. What it brings with it has to be cared for all the same.
    fn drop_event(
        &mut self,
        object: &HostObject,
        desc: &'static MessageDesc,
        args: Args<'_>,
    ) -> Result<(), ClientError> {
        for arg in &args {
            if let (Arg::NewId(new), Some(interface)) = (arg, desc.child_interface) {
                let version = object.version;
                let counterpart = Counterpart::Dead;
                let added = self.objects.add_host_offered(
                    *new,
                    HostObject {
                        interface,
                        version,
                        counterpart,
                    },
                );
                let destroy = interface.requests.iter().position(|request| {
                    request.is_destructor
                        && request.signature.is_empty()
                        && request.since <= version
                });
                if let (true, Some(opcode)) = (added, destroy) {
                    self.send_host(*new, opcode as u16, |_| {})?;
                }
            }
        }
        self.close_descriptors(&args)
    }

    fn close_descriptors(&mut self, args: &Args<'_>) -> Result<(), ClientError> {
        for arg in args {
            match arg {
                Arg::Fd(HostDescriptor::WritePipe(id)) => self.close_host_pipe(*id)?,
                // Reading it forgets it; there is nothing to be done if that fails.
                Arg::Fd(HostDescriptor::Memory { id, .. }) => {
                    let _ = self.channel.read_memory(*id, 0);
                }
                _ => {}
            }
        }
        Ok(())
    }

    pub(super) fn close_host_pipe(&mut self, id: PipeId) -> Result<(), ClientError> {
        self.channel.write_pipe(id, &[], true)?;
        Ok(())
    }

    /// A keymap becomes a sealed file, the same one for every keyboard that gets the same keymap.
    fn keymap(
        &mut self,
        id: u32,
        opcode: u16,
        format: u32,
        descriptor: HostDescriptor,
        untrusted_size: u32,
    ) -> Result<(), ClientError> {
        let bytes = match descriptor {
            HostDescriptor::Memory {
                id,
                untrusted_size_bytes,
            } => {
                let size = untrusted_size.min(untrusted_size_bytes);
                match self.shared.keymaps.size_is_sane(size) {
                    true => self.channel.read_memory(id, size as usize),
                    false => Ok(Vec::new()),
                }
            }
            // Without a keymap the descriptor is anything at all.
            _ => Ok(Vec::new()),
        };
        let file = match bytes {
            Ok(bytes) => self
                .shared
                .keymaps
                .file(&bytes)
                .map(|file| (file, bytes.len())),
            Err(error) => {
                tracing::warn!("a keymap cannot be had from the host: {error}");
                return Ok(());
            }
        };
        let (file, len) = file.map_err(ClientError::Socket)?;
        let start = self.to_client.bytes().len();
        self.to_client.push_fd(start, file);
        self.send_client(id, opcode, |m| {
            m.uint(format);
            m.uint(u32::try_from(len).unwrap_or(0));
        })
    }
}
