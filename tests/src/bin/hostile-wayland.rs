//! `hostile-wayland ATTACK`: a guest application that breaks the rules of the Wayland protocol.
//!
//! `hostile-wayland list` names the attacks. Each one prints what it saw and exits with 0 when it
//! could carry out what it wanted to try (being disconnected counts), 1 otherwise.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::time::Duration;

use bulkhead_tests::hostile::wire::{DISPLAY, Message, Wire};

type Attack = fn() -> io::Result<String>;

const ATTACKS: &[(&str, Attack)] = &[
    ("half-message", half_message),
    ("bad-sizes", bad_sizes),
    ("garbage", garbage),
    ("bad-objects", bad_objects),
    ("never-reads", never_reads),
    ("pool-resize-zero", pool_resize_zero),
    ("pool-nonsense", pool_nonsense),
    ("pool-truncated", pool_truncated),
    ("many-surfaces", many_surfaces),
    ("many-descriptors", many_descriptors),
    ("many-connections", many_connections),
    ("evil-title", evil_title),
    ("fullscreen", fullscreen),
];

fn main() -> ExitCode {
    let wanted = std::env::args().nth(1).unwrap_or_default();
    if wanted == "list" {
        for (name, _) in ATTACKS {
            println!("{name}");
        }
        return ExitCode::SUCCESS;
    }
    let Some((name, attack)) = ATTACKS.iter().find(|(name, _)| *name == wanted) else {
        eprintln!("hostile-wayland: no attack {wanted:?}; `hostile-wayland list` names them");
        return ExitCode::from(2);
    };
    match attack() {
        Ok(seen) => {
            println!("{name}: {seen}");
            ExitCode::SUCCESS
        }
        // Being cut off in the middle of it is what a bad client has to expect.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::BrokenPipe
                    | io::ErrorKind::ConnectionReset
                    | io::ErrorKind::UnexpectedEof
            ) =>
        {
            println!("{name}: cut off ({error})");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("{name}: could not be tried: {error}");
            ExitCode::from(1)
        }
    }
}

/// What became of a connection after an attack.
fn verdict(wire: &mut Wire) -> String {
    match wire.round_trip() {
        Ok(events) => match events.iter().find(|e| e.object == DISPLAY && e.opcode == 0) {
            Some(error) => format!("protocol error {}: {}", error.word(1), error.text(2)),
            None => "still connected".to_owned(),
        },
        Err(error) => format!("disconnected ({error})"),
    }
}

fn memfd(bytes: u64) -> io::Result<OwnedFd> {
    let fd = rustix::fs::memfd_create("hostile", rustix::fs::MemfdFlags::CLOEXEC)?;
    rustix::fs::ftruncate(&fd, bytes)?;
    Ok(fd)
}

/// Dies in the middle of a message, many times, at every length.
fn half_message() -> io::Result<String> {
    for length in 1..32 {
        let mut wire = Wire::connect()?;
        wire.round_trip()?;
        // wl_display.get_registry cut short, or followed by the beginning of a longer message.
        let mut bytes = DISPLAY.to_ne_bytes().to_vec();
        bytes.extend_from_slice(&((400u32 << 16) | 1).to_ne_bytes());
        bytes.resize(length, 0x41);
        wire.send_raw(&bytes, &[])?;
    }
    Ok("died 31 times in mid-message".to_owned())
}

/// Says sizes that cannot be.
fn bad_sizes() -> io::Result<String> {
    let mut seen = Vec::new();
    for size in [0u32, 1, 7, 9, 10, 11, 0xffff] {
        let mut wire = Wire::connect()?;
        wire.round_trip()?;
        let mut bytes = DISPLAY.to_ne_bytes().to_vec();
        bytes.extend_from_slice(&((size << 16) | 1).to_ne_bytes());
        bytes.extend_from_slice(&[0; 64]);
        wire.send_raw(&bytes, &[])?;
        let events = wire.read_until(Duration::from_millis(500), |_| false);
        seen.push(format!(
            "{size}:{}",
            if events.is_err() { "cut" } else { "open" }
        ));
    }
    Ok(seen.join(" "))
}

/// Sends reproducible noise.
fn garbage() -> io::Result<String> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    for _ in 0..200 {
        let mut wire = Wire::connect()?;
        let mut bytes = Vec::new();
        for _ in 0..64 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            bytes.extend_from_slice(&state.to_ne_bytes());
        }
        // Make the first header plausible half of the time, so that deeper layers are reached.
        if state & 1 == 0 {
            bytes[..4].copy_from_slice(&DISPLAY.to_ne_bytes());
            bytes[4..8].copy_from_slice(&((12u32 << 16) | (state as u32 & 3)).to_ne_bytes());
        }
        let _ = wire.send_raw(&bytes, &[]);
        let _ = wire.read_until(Duration::from_millis(5), |_| false);
    }
    Ok("200 connections of noise".to_owned())
}

/// Uses objects, opcodes and new ids that are not there.
fn bad_objects() -> io::Result<String> {
    let mut seen = Vec::new();
    let tries: [(u32, u16, Message); 6] = [
        (77, 0, Message::new()),
        (0, 0, Message::new()),
        (0xffff_ffff, 9, Message::new().uint(1)),
        (DISPLAY, 99, Message::new().uint(2)),
        (DISPLAY, 1, Message::new().uint(DISPLAY)),
        (DISPLAY, 1, Message::new().uint(0xff00_0001)),
    ];
    for (object, opcode, message) in tries {
        let mut wire = Wire::connect()?;
        wire.round_trip()?;
        wire.send(object, opcode, message)?;
        seen.push(verdict(&mut wire));
    }
    Ok(seen.join("; "))
}

/// Asks for ever and never reads an answer.
fn never_reads() -> io::Result<String> {
    let mut wire = Wire::connect()?;
    for n in 0..400_000u32 {
        let callback = wire.new_id();
        if let Err(error) = wire.send(DISPLAY, 0, Message::new().uint(callback)) {
            return Ok(format!("cut after {n} requests ({error})"));
        }
    }
    Ok("400000 requests were taken".to_owned())
}

/// smithay's known fault: a pool resized to nothing.
fn pool_resize_zero() -> io::Result<String> {
    let mut seen = Vec::new();
    for size in [0, -1, i32::MIN, 1] {
        let mut wire = Wire::connect()?;
        let shm = wire.bind("wl_shm")?;
        let pool = wire.new_id();
        let file = memfd(4096)?;
        wire.send_with(shm, 0, Message::new().uint(pool).int(4096), &[file.as_fd()])?;
        wire.send(pool, 2, Message::new().int(size))?;
        seen.push(format!("{size}: {}", verdict(&mut wire)));
    }
    Ok(seen.join("; "))
}

/// Pools and buffers whose numbers do not fit together.
fn pool_nonsense() -> io::Result<String> {
    let mut seen = Vec::new();
    for size in [0, -5, i32::MAX] {
        let mut wire = Wire::connect()?;
        let shm = wire.bind("wl_shm")?;
        let pool = wire.new_id();
        let file = memfd(100)?;
        wire.send_with(shm, 0, Message::new().uint(pool).int(size), &[file.as_fd()])?;
        seen.push(format!("pool {size}: {}", verdict(&mut wire)));
    }
    for (offset, width, height, stride) in [
        (0, 100_000, 100_000, 400_000),
        (-4, 8, 8, 32),
        (0, 8, 8, 4),
        (0, 0, 0, 0),
        (i32::MAX, 8, 8, 32),
        (0, 1 << 30, 1, i32::MAX),
    ] {
        let mut wire = Wire::connect()?;
        let shm = wire.bind("wl_shm")?;
        let pool = wire.new_id();
        let file = memfd(4096)?;
        wire.send_with(shm, 0, Message::new().uint(pool).int(4096), &[file.as_fd()])?;
        let buffer = wire.new_id();
        let message = Message::new()
            .uint(buffer)
            .int(offset)
            .int(width)
            .int(height)
            .int(stride);
        wire.send(pool, 0, message.uint(0))?;
        seen.push(format!("buffer {width}x{height}: {}", verdict(&mut wire)));
    }
    Ok(seen.join("; "))
}

/// Shows a window and then takes the memory away under it.
fn pool_truncated() -> io::Result<String> {
    let mut wire = Wire::connect()?;
    let compositor = wire.bind("wl_compositor")?;
    let shm = wire.bind("wl_shm")?;
    let base = wire.bind("xdg_wm_base")?;
    let file = memfd(64 * 64 * 4)?;
    let (pool, buffer, surface) = (wire.new_id(), wire.new_id(), wire.new_id());
    let (xdg_surface, toplevel) = (wire.new_id(), wire.new_id());
    wire.send_with(
        shm,
        0,
        Message::new().uint(pool).int(64 * 64 * 4),
        &[file.as_fd()],
    )?;
    let message = Message::new()
        .uint(buffer)
        .int(0)
        .int(64)
        .int(64)
        .int(256)
        .uint(0);
    wire.send(pool, 0, message)?;
    wire.send(compositor, 0, Message::new().uint(surface))?;
    wire.send(base, 2, Message::new().uint(xdg_surface).uint(surface))?;
    wire.send(xdg_surface, 1, Message::new().uint(toplevel))?;
    wire.send(surface, 6, Message::new())?;
    let events = wire.read_until(Duration::from_secs(10), |e| {
        e.object == xdg_surface && e.opcode == 0
    })?;
    let serial = events.last().map_or(0, |e| e.word(0));
    wire.send(xdg_surface, 4, Message::new().uint(serial))?;
    for round in 0..20 {
        wire.send(surface, 1, Message::new().uint(buffer).int(0).int(0))?;
        wire.send(surface, 2, Message::new().int(0).int(0).int(64).int(64))?;
        wire.send(surface, 6, Message::new())?;
        rustix::fs::ftruncate(&file, if round % 2 == 0 { 0 } else { 64 * 64 * 4 })?;
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(verdict(&mut wire))
}

/// Creates surfaces without end.
fn many_surfaces() -> io::Result<String> {
    let mut wire = Wire::connect()?;
    let compositor = wire.bind("wl_compositor")?;
    for n in 0..20_000 {
        let surface = wire.new_id();
        if let Err(error) = wire.send(compositor, 0, Message::new().uint(surface)) {
            return Ok(format!("cut after {n} surfaces ({error})"));
        }
        if n % 1000 == 999
            && let Err(error) = wire.round_trip()
        {
            return Ok(format!("cut after {n} surfaces ({error})"));
        }
    }
    Ok(verdict(&mut wire))
}

/// Sends descriptors that no message asked for.
fn many_descriptors() -> io::Result<String> {
    let mut wire = Wire::connect()?;
    let file = memfd(16)?;
    let fds = [file.as_fd(); 20];
    for n in 0..500 {
        let callback = wire.new_id();
        let mut bytes = DISPLAY.to_ne_bytes().to_vec();
        bytes.extend_from_slice(&(12u32 << 16).to_ne_bytes());
        bytes.extend_from_slice(&callback.to_ne_bytes());
        if let Err(error) = wire.send_raw(&bytes, &fds) {
            return Ok(format!("cut after {} descriptors ({error})", n * fds.len()));
        }
    }
    Ok(verdict(&mut wire))
}

/// Opens connections without end and keeps them.
fn many_connections() -> io::Result<String> {
    let mut kept = Vec::new();
    for n in 0..600 {
        match Wire::connect() {
            Ok(mut wire) => {
                if wire.send(DISPLAY, 1, Message::new().uint(2)).is_err() {
                    return Ok(format!("refused after {n} connections"));
                }
                kept.push(wire);
            }
            Err(error) => return Ok(format!("refused after {n} connections ({error})")),
        }
    }
    let open = kept
        .iter_mut()
        .rev()
        .take(5)
        .filter_map(|wire| wire.round_trip().ok())
        .count();
    Ok(format!("{open} of the last 5 of 600 connections answer"))
}

/// A window whose title tries to look like another domain's.
fn evil_title() -> io::Result<String> {
    let mut wire = Wire::connect()?;
    let compositor = wire.bind("wl_compositor")?;
    let base = wire.bind("xdg_wm_base")?;
    let (surface, xdg_surface, toplevel) = (wire.new_id(), wire.new_id(), wire.new_id());
    wire.send(compositor, 0, Message::new().uint(surface))?;
    wire.send(base, 2, Message::new().uint(xdg_surface).uint(surface))?;
    wire.send(xdg_surface, 1, Message::new().uint(toplevel))?;
    let title = format!("\u{202e}lanosrep\u{200b}\u{7}\n{}", "A".repeat(3000));
    wire.send(toplevel, 2, Message::new().text(&title))?;
    wire.send(toplevel, 3, Message::new().text("org.bulkhead.\u{202e}x"))?;
    wire.send(surface, 6, Message::new())?;
    Ok(verdict(&mut wire))
}

/// Asks for fullscreen and reports the size it was given.
fn fullscreen() -> io::Result<String> {
    let mut wire = Wire::connect()?;
    let compositor = wire.bind("wl_compositor")?;
    let base = wire.bind("xdg_wm_base")?;
    let (surface, xdg_surface, toplevel) = (wire.new_id(), wire.new_id(), wire.new_id());
    wire.send(compositor, 0, Message::new().uint(surface))?;
    wire.send(base, 2, Message::new().uint(xdg_surface).uint(surface))?;
    wire.send(xdg_surface, 1, Message::new().uint(toplevel))?;
    wire.send(toplevel, 11, Message::new().uint(0))?;
    wire.send(surface, 6, Message::new())?;
    let events = wire.read_until(Duration::from_secs(5), |e| {
        e.object == xdg_surface && e.opcode == 0
    })?;
    let size = events
        .iter()
        .rev()
        .find(|e| e.object == toplevel && e.opcode == 0)
        .map_or((0, 0), |e| (e.word(0), e.word(1)));
    Ok(format!("{}x{}", size.0, size.1))
}
