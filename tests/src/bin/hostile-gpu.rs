//! `hostile-gpu ATTACK`: a guest program that tries what is known to break rutabaga_gfx.
//!
//! `hostile-gpu list` names the attacks. After each attack a fresh context must still answer: the
//! exit status is 0 when it does, 1 when the attack has taken the device down.

use std::io;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use bulkhead_tests::hostile::gpu::{
    BLOB_GUEST, BLOB_HOST3D, CMD_POLL, CMD_REQUIREMENTS, CMD_SEND, CMD_WRITE, Gpu, command,
    init_command, requirements_command, send_command,
};

type Attack = fn() -> io::Result<String>;

const ATTACKS: &[(&str, Attack)] = &[
    ("size-zero", size_zero),
    ("size-lies", size_lies),
    ("rings-missing", rings_missing),
    ("rings-not-guest-memory", rings_not_guest_memory),
    ("second-init", second_init),
    ("before-init", before_init),
    ("requirement-flood", requirement_flood),
    ("requirement-nonsense", requirement_nonsense),
    ("blob-flood", blob_flood),
    ("blob-size-lies", blob_size_lies),
    ("keymap-too-long", keymap_too_long),
    ("wrong-pipes", wrong_pipes),
    ("too-many-identifiers", too_many_identifiers),
    ("peer-not-read", peer_not_read),
    ("poll-flood", poll_flood),
    ("forbidden-commands", forbidden_commands),
    ("noise", noise),
    ("context-flood", context_flood),
];

const XR24: u32 = u32::from_le_bytes(*b"XR24");
const SHORT: Duration = Duration::from_secs(3);

fn main() -> ExitCode {
    let wanted = std::env::args().nth(1).unwrap_or_default();
    if wanted == "list" {
        for (name, _) in ATTACKS {
            println!("{name}");
        }
        return ExitCode::SUCCESS;
    }
    let Some((name, attack)) = ATTACKS.iter().find(|(name, _)| *name == wanted) else {
        eprintln!("hostile-gpu: no attack {wanted:?}; `hostile-gpu list` names them");
        return ExitCode::from(2);
    };
    if std::env::args().nth(2).as_deref() == Some("only") {
        match attack() {
            Ok(seen) => println!("{name}: {seen}"),
            Err(error) => println!("{name}: ended by {error}"),
        }
        return ExitCode::SUCCESS;
    }
    // In a process of its own: a context lives for as long as anything of it is mapped, and the
    // attacker's own quota is no fault of the device.
    let attacker = std::env::current_exe()
        .and_then(|program| Command::new(program).args([*name, "only"]).status());
    if let Err(error) = attacker {
        eprintln!("hostile-gpu: cannot start the attack: {error}");
        return ExitCode::from(2);
    }
    match fresh_context_answers() {
        Ok(true) => {
            println!("a fresh context answers");
            ExitCode::SUCCESS
        }
        Ok(false) => {
            println!("a fresh context gets no answer");
            ExitCode::from(1)
        }
        Err(error) => {
            println!("no fresh context: {error}");
            ExitCode::from(1)
        }
    }
}

fn fresh_context_answers() -> io::Result<bool> {
    let gpu = Gpu::open()?;
    let mut rings = gpu.init()?;
    gpu.answers(&mut rings)
}

/// Submits one buffer in a fresh, initialised context and says whether that context lives on.
fn after(commands: &[u8], ring: u32) -> io::Result<&'static str> {
    let gpu = Gpu::open()?;
    let mut rings = gpu.init()?;
    let signalled = gpu.submit_and_wait(commands, ring, SHORT)?;
    let answers = gpu.answers(&mut rings)?;
    Ok(match (signalled, answers) {
        (true, true) => "refused, context lives",
        (true, false) => "context ended",
        (false, true) => "no fence, context lives",
        (false, false) => "no fence, context ended",
    })
}

/// Known fault: the parser never advances.
fn size_zero() -> io::Result<String> {
    let mut seen = Vec::new();
    for cmd in 0..=13u8 {
        seen.push(format!("{cmd}: {}", after(&command(cmd, 0, &[0; 100]), 0)?));
    }
    Ok(seen.join("; "))
}

/// Sizes that do not fit the command or the buffer.
fn size_lies() -> io::Result<String> {
    let mut seen = Vec::new();
    for size in [1, 7, 8, 9, 23, 25, 4095, u16::MAX] {
        seen.push(after(
            &command(CMD_REQUIREMENTS, size, &[64, 64, XR24, 0]),
            0,
        )?);
        seen.push(after(&command(CMD_SEND, size, &[0; 86]), 0)?);
    }
    seen.push(after(&[CMD_POLL], 0)?);
    seen.push(after(&[0; 3], 0)?);
    Ok(seen.join("; "))
}

/// Known fault: a ring without memory.
fn rings_missing() -> io::Result<String> {
    let mut seen = Vec::new();
    for (query, channel) in [(0, 0), (9999, 9998), (u32::MAX, u32::MAX)] {
        let gpu = Gpu::open()?;
        let done = gpu.submit_and_wait(&init_command(query, channel), 0, SHORT)?;
        let image = gpu.submit_and_wait(&requirements_command(8, 8, XR24), 0, SHORT)?;
        seen.push(format!("{query}: init fence {done}, query fence {image}"));
    }
    Ok(seen.join("; "))
}

/// Rings in memory that is not the guest's, or far too small.
fn rings_not_guest_memory() -> io::Result<String> {
    let gpu = Gpu::open()?;
    let tiny = gpu.blob(BLOB_GUEST, 0, 4096)?;
    let host = gpu.blob(BLOB_HOST3D, 77, 4096)?;
    let done = gpu.submit_and_wait(&init_command(host.resource, tiny.resource), 0, SHORT)?;
    let poll = gpu.submit_and_wait(&command(CMD_POLL, 8, &[]), 1, SHORT)?;
    Ok(format!("init fence {done}, poll fence {poll}"))
}

fn second_init() -> io::Result<String> {
    let gpu = Gpu::open()?;
    let mut rings = gpu.init()?;
    let again = init_command(rings.channel.resource, rings.query.resource);
    let done = gpu.submit_and_wait(&again, 0, SHORT)?;
    Ok(format!(
        "fence {done}, answers {}",
        gpu.answers(&mut rings)?
    ))
}

fn before_init() -> io::Result<String> {
    let mut seen = Vec::new();
    for commands in [
        requirements_command(8, 8, XR24),
        send_command(&[], &[0; 8], 0, 8),
        command(CMD_WRITE, 24, &[2, 0, 0, 0]),
    ] {
        let gpu = Gpu::open()?;
        seen.push(gpu.submit_and_wait(&commands, 0, SHORT)?.to_string());
    }
    let gpu = Gpu::open()?;
    seen.push(format!(
        "poll {}",
        gpu.submit_and_wait(&command(CMD_POLL, 8, &[]), 1, SHORT)?
    ));
    Ok(seen.join(" "))
}

/// Known fault: no quota on image requirements.
fn requirement_flood() -> io::Result<String> {
    let gpu = Gpu::open()?;
    let mut rings = gpu.init()?;
    let start = Instant::now();
    let mut asked = 0;
    for height in 1..400 {
        let mut many = Vec::new();
        for width in 1..100 {
            many.extend(requirements_command(width, height, XR24));
            asked += 1;
        }
        if !gpu.submit_and_wait(&many, 0, SHORT)? || start.elapsed() > Duration::from_secs(20) {
            break;
        }
    }
    Ok(format!(
        "{asked} asked, answers {}",
        gpu.answers(&mut rings)?
    ))
}

fn requirement_nonsense() -> io::Result<String> {
    let mut seen = Vec::new();
    for (width, height, format) in [
        (0, 0, XR24),
        (u32::MAX, u32::MAX, XR24),
        (65536, 65536, XR24),
        (64, 64, 0),
        (64, 64, u32::MAX),
        (1 << 20, 1 << 20, u32::from_le_bytes(*b"NV12")),
    ] {
        seen.push(after(&requirements_command(width, height, format), 0)?);
    }
    Ok(seen.join("; "))
}

/// Host memory without end.
fn blob_flood() -> io::Result<String> {
    let gpu = Gpu::open()?;
    let mut rings = gpu.init()?;
    gpu.submit_and_wait(&requirements_command(2048, 2048, XR24), 0, SHORT)?;
    let id = u32::from_le_bytes([
        rings.query_memory[48],
        rings.query_memory[49],
        rings.query_memory[50],
        rings.query_memory[51],
    ]);
    let mut made = 0;
    let mut mapped = 0;
    for _ in 0..2000 {
        let Ok(blob) = gpu.blob(BLOB_HOST3D, u64::from(id), 2048 * 2048 * 4) else {
            break;
        };
        made += 1;
        if gpu.map(blob).is_ok() {
            mapped += 1;
        }
    }
    Ok(format!(
        "{made} blobs of 16 MiB asked, {mapped} mapped, answers {}",
        gpu.answers(&mut rings)?
    ))
}

fn blob_size_lies() -> io::Result<String> {
    let gpu = Gpu::open()?;
    let mut rings = gpu.init()?;
    gpu.submit_and_wait(&requirements_command(64, 64, XR24), 0, SHORT)?;
    let id = u32::from_le_bytes([
        rings.query_memory[48],
        rings.query_memory[49],
        rings.query_memory[50],
        rings.query_memory[51],
    ]);
    let mut mapped = Vec::new();
    for (id, bytes) in [(id, 1 << 30), (id, 4096), (id + 1000, 16384), (0, 16384)] {
        let blob = gpu.blob(BLOB_HOST3D, u64::from(id), bytes)?;
        mapped.push(gpu.map(blob).is_ok().to_string());
    }
    Ok(format!(
        "mapped: {}, answers {}",
        mapped.join(" "),
        gpu.answers(&mut rings)?
    ))
}

/// Known fault: the host's short keymap file mapped as a long blob.
fn keymap_too_long() -> io::Result<String> {
    let gpu = Gpu::open()?;
    let mut rings = gpu.init()?;
    let mut registry = Vec::new();
    let mut say = |object: u32, opcode: u32, words: &[u32]| {
        registry.extend_from_slice(&object.to_le_bytes());
        let size = (8 + words.len() * 4) as u32;
        registry.extend_from_slice(&((size << 16) | opcode).to_le_bytes());
        for word in words {
            registry.extend_from_slice(&word.to_le_bytes());
        }
    };
    say(1, 1, &[2]);
    let data = registry.clone();
    gpu.submit_and_wait(&send_command(&[], &data, 0, data.len() as u32), 0, SHORT)?;
    let mut received = Vec::new();
    let mut keymap = None;
    let mut bound = false;
    for _ in 0..40 {
        rings.channel_memory[..16].fill(0);
        if !gpu.submit_and_wait(&command(CMD_POLL, 8, &[]), 1, SHORT)? {
            break;
        }
        if rings.channel_word(8) > 0 {
            keymap = Some(rings.channel_word(16));
            break;
        }
        let length = rings.channel_word(12) as usize;
        received.extend_from_slice(&rings.channel_memory[352..352 + length.min(8192)]);
        // The number of the global named wl_seat: registry.global(name, "wl_seat", version).
        let at = received.windows(8).position(|bytes| bytes == b"wl_seat\0");
        if let (Some(at), false) = (at, bound) {
            let name = u32::from_le_bytes(
                received[at - 8..at - 4]
                    .try_into()
                    .map_err(io::Error::other)?,
            );
            let seat = [
                name,
                8,
                u32::from_le_bytes(*b"wl_s"),
                u32::from_le_bytes(*b"eat\0"),
                5,
                3,
            ];
            let mut data = Vec::new();
            for (object, opcode, words) in [(2u32, 0u32, &seat[..]), (3, 1, &[4][..])] {
                data.extend_from_slice(&object.to_le_bytes());
                data.extend_from_slice(
                    &(((8 + words.len() as u32 * 4) << 16) | opcode).to_le_bytes(),
                );
                words
                    .iter()
                    .for_each(|word| data.extend_from_slice(&word.to_le_bytes()));
            }
            gpu.submit_and_wait(&send_command(&[], &data, 0, data.len() as u32), 0, SHORT)?;
            bound = true;
        }
    }
    let Some(id) = keymap else {
        return Err(io::Error::other("no keymap came, the attack was not tried"));
    };
    let blob = gpu.blob(BLOB_HOST3D, u64::from(id), 64 << 20)?;
    let mapped = gpu.map(blob).is_ok();
    Ok(format!(
        "64 MiB of a keymap mapped: {mapped}, answers {}",
        gpu.answers(&mut rings)?
    ))
}

/// Known fault: pipe identifiers that were never given, or guessed wrongly.
fn wrong_pipes() -> io::Result<String> {
    let mut seen = Vec::new();
    for id in [0, 1, 2, 12345, 0x8000_0000, 0x8000_0001, u32::MAX] {
        seen.push(after(&command(CMD_WRITE, 24, &[id, 1, 0, 0]), 0)?);
    }
    for id in [0, 0x8000_0000, 0x8000_0005, 0x4000_0000] {
        seen.push(after(&send_command(&[(id, 3)], &[0; 12], 1, 12), 0)?);
    }
    for kind in [0, 2, 4, 5, 6, 7, 99] {
        seen.push(after(&send_command(&[(3, kind)], &[0; 12], 1, 12), 0)?);
    }
    Ok(seen.join("; "))
}

fn too_many_identifiers() -> io::Result<String> {
    let mut seen = Vec::new();
    for (identifiers, bytes) in [(29, 8), (u32::MAX, 8), (0, u32::MAX), (0, 9), (28, 1 << 20)] {
        seen.push(after(&send_command(&[], &[0; 8], identifiers, bytes), 0)?);
    }
    Ok(seen.join("; "))
}

/// Known fault: the peer's answers are never read, so that SEND would block.
fn peer_not_read() -> io::Result<String> {
    let gpu = Gpu::open()?;
    let _rings = gpu.init()?;
    let start = Instant::now();
    let mut sent = 0;
    // wl_display.get_registry over and over: each answer is a hundred times longer.
    for round in 0..400u32 {
        let mut data = Vec::new();
        for n in 0..100 {
            let id = 2 + round * 100 + n;
            data.extend_from_slice(&1u32.to_le_bytes());
            data.extend_from_slice(&((12u32 << 16) | 1).to_le_bytes());
            data.extend_from_slice(&id.to_le_bytes());
        }
        let length = data.len() as u32;
        if !gpu.submit_and_wait(&send_command(&[], &data, 0, length), 0, SHORT)? {
            return Ok(format!("the fence of SEND {round} stayed away"));
        }
        sent += 100;
        if start.elapsed() > Duration::from_secs(25) {
            break;
        }
        // Another context must be served all the while.
        if round % 50 == 49 && !fresh_context_answers()? {
            return Err(io::Error::other("other contexts waited too"));
        }
    }
    Ok(format!("{sent} requests sent, nothing read"))
}

fn poll_flood() -> io::Result<String> {
    let gpu = Gpu::open()?;
    let mut rings = gpu.init()?;
    let mut fences = Vec::new();
    for _ in 0..300 {
        match gpu.submit(&command(CMD_POLL, 8, &[]), 1) {
            Ok(fence) => fences.push(fence),
            Err(error) => return Ok(format!("cut after {} polls ({error})", fences.len())),
        }
    }
    Ok(format!(
        "{} polls, answers {}",
        fences.len(),
        gpu.answers(&mut rings)?
    ))
}

fn forbidden_commands() -> io::Result<String> {
    let mut seen = Vec::new();
    for cmd in [0u8, 5, 6, 8, 9, 10, 11, 12, 13, 14, 200, 255] {
        seen.push(format!("{cmd}: {}", after(&command(cmd, 40, &[1; 8]), 0)?));
    }
    Ok(seen.join("; "))
}

fn noise() -> io::Result<String> {
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut ended = 0;
    for round in 0..60 {
        let mut bytes = Vec::new();
        for _ in 0..(round % 40 + 2) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            bytes.extend_from_slice(&state.to_le_bytes());
        }
        // A plausible command number more often than not.
        bytes[0] %= 16;
        if after(&bytes, (state % 3) as u32)?.ends_with("ended") {
            ended += 1;
        }
    }
    Ok(format!("60 noisy buffers, {ended} contexts ended"))
}

fn context_flood() -> io::Result<String> {
    let mut kept = Vec::new();
    for n in 0..400 {
        let opened = Gpu::open().and_then(|gpu| gpu.init().map(|rings| (gpu, rings)));
        match opened {
            Ok(both) => kept.push(both),
            Err(error) => return Ok(format!("refused after {n} contexts ({error})")),
        }
    }
    let mut answering = 0;
    for (gpu, rings) in &mut kept {
        answering += usize::from(gpu.answers(rings)?);
    }
    Ok(format!("400 contexts opened, {answering} answer"))
}
