//! What is copied and pasted.

use super::*;

/// Whose data an offer is.
#[derive(Clone)]
pub enum OfferFrom {
    Client(wl_data_source::WlDataSource),
    /// The host's own: so many bytes of a pattern.
    Host(usize),
}

/// The data of the host's own offers.
pub fn pattern(len: usize) -> Vec<u8> {
    (0..len)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 11) as u8)
        .collect()
}

impl State {
    /// Shows the selection to every client.
    pub fn show_selection(&mut self, display: &DisplayHandle, source: &OfferFrom) {
        for device in &self.devices {
            let Some(client) = device.client() else {
                continue;
            };
            let offer = client
                .create_resource::<wl_data_offer::WlDataOffer, OfferFrom, State>(
                    display,
                    3,
                    source.clone(),
                )
                .unwrap();
            device.data_offer(&offer);
            match source {
                OfferFrom::Client(source) => {
                    let mimes: &Mutex<Vec<String>> = source.data().unwrap();
                    mimes
                        .lock()
                        .unwrap()
                        .iter()
                        .for_each(|mime| offer.offer(mime.clone()));
                }
                OfferFrom::Host(_) => offer.offer("text/plain".into()),
            }
            device.selection(Some(&offer));
        }
    }
}

impl Dispatch<wl_data_device_manager::WlDataDeviceManager, ()> for State {
    fn request(
        state: &mut Self,
        _: &Client,
        _: &wl_data_device_manager::WlDataDeviceManager,
        request: wl_data_device_manager::Request,
        _: &(),
        _: &DisplayHandle,
        init: &mut DataInit<'_, Self>,
    ) {
        match request {
            wl_data_device_manager::Request::CreateDataSource { id } => {
                init.init(id, Mutex::new(Vec::new()));
            }
            wl_data_device_manager::Request::GetDataDevice { id, .. } => {
                let device = init.init(id, ());
                state.devices.push(device);
            }
            _ => {}
        }
    }
}

impl Dispatch<wl_data_source::WlDataSource, Mutex<Vec<String>>> for State {
    fn request(
        _: &mut Self,
        _: &Client,
        _: &wl_data_source::WlDataSource,
        request: wl_data_source::Request,
        mimes: &Mutex<Vec<String>>,
        _: &DisplayHandle,
        _: &mut DataInit<'_, Self>,
    ) {
        if let wl_data_source::Request::Offer { mime_type } = request {
            mimes.lock().unwrap().push(mime_type);
        }
    }
}

impl Dispatch<wl_data_device::WlDataDevice, ()> for State {
    fn request(
        state: &mut Self,
        _: &Client,
        _: &wl_data_device::WlDataDevice,
        request: wl_data_device::Request,
        _: &(),
        display: &DisplayHandle,
        _: &mut DataInit<'_, Self>,
    ) {
        if let wl_data_device::Request::SetSelection {
            source: Some(source),
            ..
        } = request
        {
            if let Some(old) = state.source.replace(source.clone()) {
                old.cancelled();
            }
            state.show_selection(display, &OfferFrom::Client(source));
        }
    }
}

impl Dispatch<wl_data_offer::WlDataOffer, OfferFrom> for State {
    fn request(
        _: &mut Self,
        _: &Client,
        _: &wl_data_offer::WlDataOffer,
        request: wl_data_offer::Request,
        from: &OfferFrom,
        _: &DisplayHandle,
        _: &mut DataInit<'_, Self>,
    ) {
        if let wl_data_offer::Request::Receive { mime_type, fd } = request {
            match from {
                OfferFrom::Client(source) => source.send(mime_type, fd.as_fd()),
                OfferFrom::Host(len) => {
                    let len = *len;
                    std::thread::spawn(move || {
                        let _ = std::fs::File::from(fd).write_all(&pattern(len));
                    });
                }
            }
        }
    }
}
