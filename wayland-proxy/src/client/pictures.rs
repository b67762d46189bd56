//! Commits: the one copy of changed pixels into host memory.

use std::time::Instant;

use wayland_server::Resource;
use wayland_server::protocol::wl_buffer::WlBuffer;
use wayland_server::protocol::wl_shm_pool::WlShmPool;

use super::objects::OwnObject;
use super::{Client, ClientError, STALL};
use crate::channel::{ChannelError, OutFd};
use crate::shm::Layout;
use crate::shm::blobs::{Blob, BlobId, Choice, MAX_FREE_BYTES, Picture, size_class};
use crate::shm::surface::{Attached, Surface};
use crate::stats::Stats;

/// Pictures of one surface that may be with the compositor before commits have to wait.
const MAX_BUSY_PICTURES: usize = 8;
/// A compositor that never releases anything gets no more than this.
const HARD_BUSY_PICTURES: usize = 64;

/// A picture about to be copied.
struct Next {
    /// The application's id of its surface.
    surface: u32,
    layout: Layout,
    /// Pixels that the application says have changed.
    changed: u64,
    /// The picture that it may be put over.
    drawn: Option<u64>,
}

impl Client {
    /// Whether a commit has to wait until the host releases a picture. Not for ever: a compositor
    /// may have its reasons to keep them.
    pub(super) fn must_stall(&mut self, surface: u32) -> bool {
        let waiting = self.stalled_until.take();
        let Some(surface) = self.surfaces.get(&surface) else {
            return false;
        };
        let shm = matches!(&surface.attach, Some(a) if matches!(a.what, Attached::Shm { .. }));
        if !shm || self.blobs.busy_for(surface.key) < MAX_BUSY_PICTURES {
            return false;
        }
        let now = Instant::now();
        if waiting.is_some_and(|until| until <= now) {
            return false;
        }
        if waiting.is_none() {
            Stats::add(&self.shared.stats.stalls, 1);
        }
        self.stalled_until = Some(waiting.unwrap_or(now + STALL));
        true
    }

    /// Does what has to precede the `commit` that is about to be sent on: copies the picture and
    /// attaches the host's buffer.
    pub(super) fn commit(&mut self, id: u32) -> Result<(), ClientError> {
        Stats::add(&self.shared.stats.commits, 1);
        let Some(surface) = self.surfaces.get_mut(&id) else {
            return Ok(());
        };
        let Some(attach) = surface.attach.take() else {
            surface.commit_without_picture();
            return Ok(());
        };
        let buffer = match attach.what {
            Attached::None => {
                surface.commit_other();
                0
            }
            Attached::Host(buffer) => {
                surface.commit_other();
                buffer
            }
            Attached::Shm {
                ref buffer,
                client_id,
            } => {
                let layout = buffer.layout;
                let drawn = surface.drawn();
                let (serial, changed_pixels) = surface.commit_picture(layout);
                let key = surface.key;
                let next = Next {
                    surface: id,
                    layout,
                    changed: changed_pixels,
                    drawn,
                };
                let (blob, since) = self.find_blob(next)?;
                let host_buffer = self.host_buffer(blob, layout)?;
                let Some(surface) = self.surfaces.get(&id) else {
                    return Ok(());
                };
                let (region, full) = surface.changed_since(since);
                let Some(target) = self.blobs.get(blob) else {
                    return Ok(());
                };
                let copied = buffer.copy_to(&target.memory.mapping, &region);
                self.blobs.show(
                    blob,
                    Picture {
                        surface: key,
                        serial,
                    },
                    layout,
                );
                let stats = &self.shared.stats;
                Stats::add(&stats.frames, 1);
                Stats::add(&stats.full_copies, u64::from(full));
                Stats::add(&stats.bytes_copied, copied);
                let pixel_bytes = u64::from(layout.pixel_bytes.unsigned_abs());
                Stats::add(&stats.damaged_bytes, changed_pixels * pixel_bytes);
                // The picture is copied: the application may draw the next one right away.
                if self
                    .buffers
                    .get(&client_id)
                    .is_some_and(|b| std::rc::Rc::ptr_eq(b, buffer))
                {
                    self.send_client(client_id, 0, |_| {})?;
                }
                host_buffer
            }
        };
        let Some(host) = self.objects.client(id).and_then(|o| o.host) else {
            return Ok(());
        };
        self.send_host(host, 1, |m| {
            m.uint(buffer);
            m.int(attach.x);
            m.int(attach.y);
        })
    }

    /// A blob for a surface's next picture, and which older picture of it it holds.
    fn find_blob(&mut self, next: Next) -> Result<(BlobId, Option<u64>), ClientError> {
        let layout = next.layout;
        let bytes = layout.stride as usize * layout.height as usize;
        let Some(class) = size_class(bytes) else {
            let message = format!("a picture of {bytes} bytes is larger than the host allows");
            return Err(ClientError::no_memory(message));
        };
        let Some(surface) = self.surfaces.get(&next.surface) else {
            return Err(ClientError::Host("a picture of no surface".into()));
        };
        let beside = self.blobs.choose(surface.key, layout, class, None);
        let choice = if next.drawn.is_some() && !self.pays(&beside, surface, &next, class) {
            self.blobs.choose(surface.key, layout, class, next.drawn)
        } else {
            beside
        };
        let surface = surface.key;
        match choice {
            Choice::Holds(id, serial) => return Ok((id, Some(serial))),
            Choice::Free(id) => return Ok((id, None)),
            Choice::None => {}
        }
        if self.blobs.busy_for(surface) >= HARD_BUSY_PICTURES {
            let message = "the host releases none of a surface's pictures".to_owned();
            return Err(ClientError::no_memory(message));
        }
        self.free_blobs(false)?;
        let memory = match self.channel.allocate(class) {
            Err(ChannelError::NoMemory(_)) => {
                self.free_blobs(true)?;
                self.channel.allocate(class)
            }
            other => other,
        };
        let memory = memory.map_err(|error| match error {
            ChannelError::NoMemory(_) => ClientError::no_memory(error.to_string()),
            other => other.into(),
        })?;
        let Some(shm) = self.host_shm else {
            return Err(ClientError::Host("there is no wl_shm".into()));
        };
        let size = memory.mapping.len();
        let pool = self.own_object(WlShmPool::interface(), 1, OwnObject::Pool);
        let id = self.blobs.insert(memory, pool);
        let start = self.to_host.bytes().len();
        if let Some(blob) = self.blobs.get(id) {
            self.to_host
                .push_fd(start, OutFd::Memory(blob.memory.clone()));
        }
        self.send_host(shm, 0, |m| {
            m.uint(pool);
            m.int(i32::try_from(size).unwrap_or(i32::MAX));
        })?;
        Ok((id, None))
    }

    /// Whether a picture goes beside the one that is shown rather than over it, which whoever looks
    /// there during the copy could see. Only where that costs no more copying; but where most of the
    /// picture changes it likely will again, so the second blob may cost one whole copy, once.
    fn pays(&self, beside: &Choice, surface: &Surface, next: &Next, class: usize) -> bool {
        match *beside {
            Choice::Holds(_, since) => surface.changed_since(Some(since)).0.area() <= next.changed,
            Choice::Free(_) | Choice::None => {
                let (whole, _) = surface.changed_since(None);
                let most = next.changed.saturating_mul(2) >= whole.area();
                // A blob that would be given back at once gains nothing.
                most && class <= MAX_FREE_BYTES && self.blobs.busy_for(surface.key) < 2
            }
        }
    }

    /// The host's `wl_buffer` of a blob in this layout.
    fn host_buffer(&mut self, id: BlobId, layout: Layout) -> Result<u32, ClientError> {
        let Some(blob) = self.blobs.get(id) else {
            return Ok(0);
        };
        let (pool, old) = (blob.host_pool, blob.host_buffer);
        if let Some((buffer, known)) = old {
            if known == layout {
                return Ok(buffer);
            }
            self.send_host(buffer, 0, |_| {})?;
        }
        let buffer = self.own_object(WlBuffer::interface(), 1, OwnObject::Buffer);
        self.send_host(pool, 0, |m| {
            m.uint(buffer);
            m.int(0);
            m.int(layout.width);
            m.int(layout.height);
            m.int(layout.stride);
            m.uint(layout.format);
        })?;
        if let Some(blob) = self.blobs.get(id) {
            blob.host_buffer = Some((buffer, layout));
        }
        Ok(buffer)
    }

    /// Gives free blobs back to the host: `all`, or those beyond the reserve.
    pub(super) fn free_blobs(&mut self, all: bool) -> Result<(), ClientError> {
        for Blob {
            host_pool,
            host_buffer,
            ..
        } in self.blobs.trim(all)
        {
            if let Some((buffer, _)) = host_buffer {
                self.send_host(buffer, 0, |_| {})?;
            }
            self.send_host(host_pool, 1, |_| {})?;
        }
        Ok(())
    }
}
