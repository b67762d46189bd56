//! `wl_compositor`, `wl_shm`: surfaces and buffers.

use smithay::{
    reexports::wayland_server::{
        Client,
        protocol::{wl_buffer::WlBuffer, wl_surface::WlSurface},
    },
    wayland::{
        buffer::BufferHandler,
        compositor::{CompositorClientState, CompositorHandler, CompositorState},
        shm::{ShmHandler, ShmState},
    },
};

use crate::{domain::ClientState, state::State};

impl CompositorHandler for State {
    fn compositor_state(&mut self) -> &mut CompositorState {
        &mut self.protocols.compositor
    }

    fn client_compositor_state<'a>(&self, client: &'a Client) -> &'a CompositorClientState {
        // Every client is made in `listen.rs`, with this data; there is no other way in.
        match client.get_data::<ClientState>() {
            Some(data) => &data.compositor,
            None => unreachable!("a client that came through no domain's socket"),
        }
    }

    fn commit(&mut self, surface: &WlSurface) {
        self.surface_committed(surface);
    }

    fn destroyed(&mut self, surface: &WlSurface) {
        self.surface_destroyed(surface);
    }
}

impl BufferHandler for State {
    fn buffer_destroyed(&mut self, _: &WlBuffer) {}
}

impl ShmHandler for State {
    fn shm_state(&self) -> &ShmState {
        &self.protocols.shm
    }
}
