//! `drag-client give TYPE FILE` and `drag-client take FOLDER`: the two ends of a drag, for pictures,
//! which no program of the templates drags, and to know everything that a target is told.
//!
//! `give` shows a blue window; a press on it begins a drag that offers FILE as TYPE. `take` shows a
//! white one; it writes each event of `wl_data_device` and of its offers to FOLDER/log, agrees to the
//! first type that it knows, and writes what is dropped to FOLDER/data.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::ExitCode;

use wayland_client::globals::{GlobalListContents, registry_queue_init};
use wayland_client::protocol::wl_data_device::{self, WlDataDevice};
use wayland_client::protocol::wl_data_device_manager::{DndAction, WlDataDeviceManager};
use wayland_client::protocol::wl_data_offer::{self, WlDataOffer};
use wayland_client::protocol::wl_data_source::{self, WlDataSource};
use wayland_client::protocol::wl_pointer::{self, ButtonState, WlPointer};
use wayland_client::protocol::{
    wl_buffer::WlBuffer, wl_compositor::WlCompositor, wl_registry::WlRegistry, wl_seat::WlSeat,
    wl_shm, wl_shm_pool::WlShmPool, wl_surface::WlSurface,
};
use wayland_client::{
    Connection, Dispatch, Proxy, QueueHandle, delegate_noop, event_created_child,
};
use wayland_protocols::xdg::shell::client::{
    xdg_surface::{self, XdgSurface},
    xdg_toplevel::{self, XdgToplevel},
    xdg_wm_base::{self, XdgWmBase},
};

type Error = Box<dyn std::error::Error>;

const WIDTH: i32 = 220;
const HEIGHT: i32 = 160;
/// What `take` agrees to, the best first.
const KNOWN: [&str; 3] = ["text/uri-list", "image/png", "text/plain;charset=utf-8"];

/// What the program is for.
enum Role {
    Give { mime: String, bytes: Vec<u8> },
    Take { folder: PathBuf, log: File },
}

struct Program {
    role: Role,
    surface: WlSurface,
    buffer: WlBuffer,
    manager: WlDataDeviceManager,
    device: WlDataDevice,
    connection: Connection,
    types: HashMap<u32, Vec<String>>,
    offer: Option<WlDataOffer>,
    chosen: Option<String>,
    ended: bool,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("drag-client: {error}");
            ExitCode::from(1)
        }
    }
}

fn run() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let role = match words.as_slice() {
        ["give", mime, file] => Role::Give {
            mime: (*mime).to_owned(),
            bytes: std::fs::read(file)?,
        },
        ["take", folder] => {
            std::fs::create_dir_all(folder)?;
            Role::Take {
                folder: PathBuf::from(folder),
                log: File::create(PathBuf::from(folder).join("log"))?,
            }
        }
        _ => return Err("usage: drag-client give TYPE FILE | drag-client take FOLDER".into()),
    };
    let connection = Connection::connect_to_env()?;
    let (globals, mut queue) = registry_queue_init::<Program>(&connection)?;
    let handle = queue.handle();
    let compositor: WlCompositor = globals.bind(&handle, 4..=4, ())?;
    let shm: wl_shm::WlShm = globals.bind(&handle, 1..=1, ())?;
    let shell: XdgWmBase = globals.bind(&handle, 1..=1, ())?;
    let seat: WlSeat = globals.bind(&handle, 1..=1, ())?;
    let manager: WlDataDeviceManager = globals.bind(&handle, 3..=3, ())?;
    seat.get_pointer(&handle, ());
    let surface = compositor.create_surface(&handle, ());
    let toplevel = shell
        .get_xdg_surface(&surface, &handle, ())
        .get_toplevel(&handle, ());
    let colour = match role {
        Role::Give { .. } => 0xff20_40a0_u32,
        Role::Take { .. } => 0xffff_ffff,
    };
    toplevel.set_title("drag-client".to_owned());
    toplevel.set_app_id("drag-client".to_owned());
    surface.commit();
    let mut program = Program {
        role,
        buffer: buffer(&shm, &handle, colour)?,
        device: manager.get_data_device(&seat, &handle, ()),
        surface,
        manager,
        connection: connection.clone(),
        types: HashMap::new(),
        offer: None,
        chosen: None,
        ended: false,
    };
    while !program.ended {
        queue.blocking_dispatch(&mut program)?;
    }
    Ok(())
}

fn buffer(
    shm: &wl_shm::WlShm,
    handle: &QueueHandle<Program>,
    colour: u32,
) -> Result<WlBuffer, Error> {
    let bytes = WIDTH * HEIGHT * 4;
    let memory = rustix::fs::memfd_create("window", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut file = File::from(memory);
    let pixels = usize::try_from(WIDTH * HEIGHT)?;
    file.write_all(&colour.to_le_bytes().repeat(pixels))?;
    let pool = shm.create_pool(file.as_fd(), bytes, handle, ());
    let format = wl_shm::Format::Xrgb8888;
    let buffer = pool.create_buffer(0, WIDTH, HEIGHT, WIDTH * 4, format, handle, ());
    pool.destroy();
    Ok(buffer)
}

impl Program {
    fn note(&mut self, line: &str) {
        if let Role::Take { log, .. } = &mut self.role {
            // A log that cannot be written shows as one that lacks what the scenario expects.
            let _ = writeln!(log, "{line}");
        }
    }

    fn drop_here(&mut self) {
        let (Some(offer), Some(mime)) = (self.offer.clone(), self.chosen.clone()) else {
            return self.note("nothing was agreed on");
        };
        let Ok((read, write)) = std::io::pipe() else {
            return;
        };
        offer.receive(mime, OwnedFd::from(write).as_fd());
        let _ = self.connection.flush();
        let mut bytes = Vec::new();
        let _ = File::from(OwnedFd::from(read)).read_to_end(&mut bytes);
        offer.finish();
        let _ = self.connection.flush();
        if let Role::Take { folder, .. } = &self.role {
            let _ = std::fs::write(folder.join("data"), &bytes);
        }
        self.note(&format!("took {} bytes", bytes.len()));
    }
}

impl Dispatch<XdgSurface, ()> for Program {
    fn event(
        program: &mut Self,
        xdg: &XdgSurface,
        event: xdg_surface::Event,
        (): &(),
        _: &Connection,
        _: &QueueHandle<Self>,
    ) {
        if let xdg_surface::Event::Configure { serial } = event {
            xdg.ack_configure(serial);
            program.surface.attach(Some(&program.buffer), 0, 0);
            program.surface.damage(0, 0, WIDTH, HEIGHT);
            program.surface.commit();
        }
    }
}

impl Dispatch<XdgToplevel, ()> for Program {
    fn event(
        program: &mut Self,
        _: &XdgToplevel,
        event: xdg_toplevel::Event,
        (): &(),
        _: &Connection,
        _: &QueueHandle<Self>,
    ) {
        program.ended |= matches!(event, xdg_toplevel::Event::Close);
    }
}

impl Dispatch<XdgWmBase, ()> for Program {
    fn event(
        _: &mut Self,
        shell: &XdgWmBase,
        event: xdg_wm_base::Event,
        (): &(),
        _: &Connection,
        _: &QueueHandle<Self>,
    ) {
        if let xdg_wm_base::Event::Ping { serial } = event {
            shell.pong(serial);
        }
    }
}

impl Dispatch<WlPointer, ()> for Program {
    fn event(
        program: &mut Self,
        _: &WlPointer,
        event: wl_pointer::Event,
        (): &(),
        _: &Connection,
        handle: &QueueHandle<Self>,
    ) {
        let wl_pointer::Event::Button { serial, state, .. } = event else {
            return;
        };
        let pressed = state.into_result().is_ok_and(|s| s == ButtonState::Pressed);
        if let (true, Role::Give { mime, .. }) = (pressed, &program.role) {
            let source = program.manager.create_data_source(handle, ());
            source.offer(mime.clone());
            source.set_actions(DndAction::Copy);
            let device = &program.device;
            device.start_drag(Some(&source), &program.surface, None, serial);
        }
    }
}

impl Dispatch<WlDataSource, ()> for Program {
    fn event(
        program: &mut Self,
        source: &WlDataSource,
        event: wl_data_source::Event,
        (): &(),
        _: &Connection,
        _: &QueueHandle<Self>,
    ) {
        match event {
            wl_data_source::Event::Send { fd, .. } => {
                if let Role::Give { bytes, .. } = &program.role {
                    let _ = File::from(fd).write_all(bytes);
                }
            }
            wl_data_source::Event::Cancelled | wl_data_source::Event::DndFinished => {
                source.destroy();
            }
            _ => {}
        }
    }
}

impl Dispatch<WlDataDevice, ()> for Program {
    fn event(
        program: &mut Self,
        _: &WlDataDevice,
        event: wl_data_device::Event,
        (): &(),
        _: &Connection,
        _: &QueueHandle<Self>,
    ) {
        use wl_data_device::Event;
        match event {
            Event::DataOffer { .. } => program.note("data_offer"),
            Event::Enter { serial, id, .. } => {
                program.note("enter");
                if let Some(offer) = &id {
                    let number = offer.id().protocol_id();
                    let types = program.types.get(&number).cloned().unwrap_or_default();
                    let known = KNOWN.into_iter().find(|t| types.iter().any(|o| o == t));
                    program.chosen = known.map(str::to_owned);
                    offer.accept(serial, program.chosen.clone());
                    offer.set_actions(DndAction::Copy, DndAction::Copy);
                }
                program.offer = id;
            }
            Event::Leave => program.note("leave"),
            Event::Motion { .. } => program.note("motion"),
            Event::Drop => {
                program.note("drop");
                program.drop_here();
            }
            // What is in its own clipboard.
            Event::Selection { .. } => {}
            _ => program.note("something else"),
        }
    }

    event_created_child!(Program, WlDataDevice, [
        wl_data_device::EVT_DATA_OFFER_OPCODE => (WlDataOffer, ()),
    ]);
}

impl Dispatch<WlDataOffer, ()> for Program {
    fn event(
        program: &mut Self,
        offer: &WlDataOffer,
        event: wl_data_offer::Event,
        (): &(),
        _: &Connection,
        _: &QueueHandle<Self>,
    ) {
        if let wl_data_offer::Event::Offer { mime_type } = event {
            program.note(&format!("offer {mime_type}"));
            let types = program.types.entry(offer.id().protocol_id()).or_default();
            types.push(mime_type);
        }
    }
}

impl Dispatch<WlRegistry, GlobalListContents> for Program {
    fn event(
        _: &mut Self,
        _: &WlRegistry,
        _: wayland_client::protocol::wl_registry::Event,
        _: &GlobalListContents,
        _: &Connection,
        _: &QueueHandle<Self>,
    ) {
    }
}

delegate_noop!(Program: WlCompositor);
delegate_noop!(Program: WlShmPool);
delegate_noop!(Program: WlDataDeviceManager);
delegate_noop!(Program: ignore wl_shm::WlShm);
delegate_noop!(Program: ignore WlSeat);
delegate_noop!(Program: ignore WlSurface);
delegate_noop!(Program: ignore WlBuffer);
