//! Shared memory and the buffers in it.

use super::*;

impl State {
    pub(super) fn take_picture(
        &mut self,
        surface: &wl_surface::WlSurface,
        buffer: &wl_buffer::WlBuffer,
    ) {
        let data: &Buffer = buffer.data().unwrap();
        let mut bytes = vec![0; (data.stride * data.height) as usize];
        let n = rustix::io::pread(&*data.file, &mut bytes[..], data.offset as u64).unwrap();
        assert_eq!(n, bytes.len(), "the host's pool is shorter than its buffer");
        self.pictures.push(Picture {
            surface: surface.id(),
            width: data.width,
            height: data.height,
            stride: data.stride,
            bytes,
        });
    }
}

impl Dispatch<wl_shm::WlShm, ()> for State {
    fn request(
        state: &mut Self,
        _: &Client,
        _: &wl_shm::WlShm,
        request: wl_shm::Request,
        _: &(),
        _: &DisplayHandle,
        init: &mut DataInit<'_, Self>,
    ) {
        if let wl_shm::Request::CreatePool { id, fd, size } = request {
            let real = rustix::fs::fstat(&fd).unwrap().st_size;
            assert!(real >= i64::from(size), "the host was given a short pool");
            state.pools += 1;
            init.init(id, Arc::new(fd));
        }
    }
}

impl Dispatch<wl_shm_pool::WlShmPool, Arc<OwnedFd>> for State {
    fn request(
        _: &mut Self,
        _: &Client,
        _: &wl_shm_pool::WlShmPool,
        request: wl_shm_pool::Request,
        file: &Arc<OwnedFd>,
        _: &DisplayHandle,
        init: &mut DataInit<'_, Self>,
    ) {
        if let wl_shm_pool::Request::CreateBuffer {
            id,
            offset,
            width,
            height,
            stride,
            ..
        } = request
        {
            init.init(
                id,
                Buffer {
                    file: file.clone(),
                    offset,
                    width,
                    height,
                    stride,
                },
            );
        }
    }

    fn destroyed(
        state: &mut Self,
        _: wayland_server::backend::ClientId,
        _: &wl_shm_pool::WlShmPool,
        _: &Arc<OwnedFd>,
    ) {
        state.pools -= 1;
    }
}

impl Dispatch<wl_buffer::WlBuffer, Buffer> for State {
    fn request(
        _: &mut Self,
        _: &Client,
        _: &wl_buffer::WlBuffer,
        _: wl_buffer::Request,
        _: &Buffer,
        _: &DisplayHandle,
        _: &mut DataInit<'_, Self>,
    ) {
    }
}
