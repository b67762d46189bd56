//! The real program and hostile pictures: each ends soon, with pixels or without. How much memory
//! it may have is a limit of its process; `there_is_no_way_out` sees that it holds.

use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// One second of processor time is allowed; other tests run beside this one.
const PATIENCE: Duration = Duration::from_secs(10);

struct Run {
    status: ExitStatus,
    pixels: Vec<u8>,
    message: String,
}

fn decode(bytes: &[u8]) -> Run {
    let start = Instant::now();
    let mut child = Command::new(env!("CARGO_BIN_EXE_bulkhead-icon"))
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A worker that has seen enough does not read the rest.
    let _ = child.stdin.take().unwrap().write_all(bytes);
    let mut pixels = Vec::new();
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_to_end(&mut pixels).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
    Run {
        status: output.status,
        pixels,
        message: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn pixels(bytes: &[u8]) -> Vec<[u8; 4]> {
    let run = decode(bytes);
    assert!(run.status.success(), "{}: {}", run.status, run.message);
    assert_eq!(run.pixels.len(), 48 * 48 * 4);
    run.pixels.as_chunks().0.to_vec()
}

fn fails(bytes: &[u8]) -> String {
    let run = decode(bytes);
    assert!(!run.status.success());
    assert!(run.pixels.is_empty());
    run.message
}

fn png(width: u32, height: u32, colour: png::ColorType) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(colour);
    encoder.set_compression(png::Compression::Balanced);
    let mut writer = encoder.write_header().unwrap();
    let length = width as usize * height as usize * colour.samples();
    writer.write_image_data(&vec![200; length]).unwrap();
    drop(writer);
    bytes
}

fn svg(content: &str) -> Vec<u8> {
    format!(
        "<svg xmlns='http://www.w3.org/2000/svg' xmlns:xlink='http://www.w3.org/1999/xlink' \
         width='16' height='16'>{content}</svg>"
    )
    .into_bytes()
}

const RED: &str = "<rect width='16' height='16' fill='#f00'/>";

#[test]
fn good_pictures() {
    for colour in [
        png::ColorType::Rgba,
        png::ColorType::Rgb,
        png::ColorType::Grayscale,
        png::ColorType::GrayscaleAlpha,
    ] {
        assert_eq!(pixels(&png(64, 64, colour))[0][0], 200);
    }
    pixels(&png(1024, 1024, png::ColorType::Rgba));
    assert_eq!(pixels(&svg(RED))[48 * 24 + 24], [255, 0, 0, 255]);
    let with_entity = "<!DOCTYPE svg [<!ENTITY red '#f00'>]><svg xmlns='http://www.w3.org/2000/svg' \
        viewBox='0 0 8 8'><rect width='8' height='8' fill='&red;'/></svg>";
    assert_eq!(pixels(with_entity.as_bytes())[0], [255, 0, 0, 255]);
}

#[test]
fn bitmap_bombs() {
    // 100 megapixels of one colour in a few hundred kilobytes.
    let bomb = png(10_000, 10_000, png::ColorType::Grayscale);
    assert!(bomb.len() < 256 * 1024, "{}", bomb.len());
    assert!(fails(&bomb).contains("10000x10000"));
    // The header lies: sizes that nothing could hold.
    let mut lying = png(16, 16, png::ColorType::Rgba);
    lying[16..24].copy_from_slice(&[0x7f, 0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff]);
    fails(&lying);
    fails(&vec![0; 300 * 1024]);
    fails(b"");
    fails(b"\x89PNG\r\n\x1a\n");
    let whole = png(64, 64, png::ColorType::Rgba);
    for length in (0..whole.len()).step_by(7) {
        // Where only the end is missing, there is a picture.
        decode(&whole[..length]);
    }
}

#[test]
fn vector_bombs() {
    let groups = "<g>".repeat(15_000) + RED + &"</g>".repeat(15_000);
    decode(&svg(&groups));
    fails(&svg(&"<g/>".repeat(40_000)));
    // Each level draws the one below twice: 2^40 rectangles.
    let mut uses = format!("<defs><g id='u0'>{RED}</g>");
    for level in 1..40 {
        let use_ = format!("<use xlink:href='#u{}'/>", level - 1);
        uses += &format!("<g id='u{level}'>{use_}{use_}</g>");
    }
    fails(&svg(&(uses + "</defs><use xlink:href='#u39'/>")));
    // It uses itself.
    decode(&svg(
        "<g id='a'><use xlink:href='#a'/></g><use xlink:href='#a'/>",
    ));
    // Each entity is ten of the one before.
    let mut entities = "<!DOCTYPE svg [<!ENTITY e0 'x'>".to_owned();
    for level in 1..30 {
        let ten = format!("&e{};", level - 1).repeat(10);
        entities += &format!("<!ENTITY e{level} '{ten}'>");
    }
    entities += "]><svg xmlns='http://www.w3.org/2000/svg' width='1' height='1'>&e29;</svg>";
    fails(entities.as_bytes());
    // Sizes, filters and patterns without measure.
    decode(&svg("<rect width='1e38' height='1e38' fill='#f00'/>"));
    decode(b"<svg xmlns='http://www.w3.org/2000/svg' width='1e30' height='1e30'/>");
    let filter = "<filter id='f' x='-1e9' y='-1e9' width='2e9' height='2e9'>\
        <feTurbulence numOctaves='1000000'/><feGaussianBlur stdDeviation='1e9'/>\
        <feMorphology radius='1e9'/></filter><rect width='16' height='16' filter='url(#f)'/>";
    decode(&svg(filter));
    let pattern = "<pattern id='p' width='1e-9' height='1e-9' patternUnits='userSpaceOnUse'>\
        <rect width='1' height='1'/></pattern><rect width='16' height='16' fill='url(#p)'/>";
    decode(&svg(pattern));
    let dashes = "<path d='M0 0L1e9 1e9' stroke='#f00' stroke-dasharray='1e-6'/>";
    decode(&svg(dashes));
}

#[test]
fn nothing_from_outside_is_drawn() {
    // A file that would be drawn if it were read.
    let folder = tempfile::tempdir().unwrap();
    let outside = folder.path().join("outside.svg");
    std::fs::write(&outside, svg(RED)).unwrap();
    let bitmap = folder.path().join("outside.png");
    std::fs::write(&bitmap, png(16, 16, png::ColorType::Rgb)).unwrap();
    for reference in [
        outside.display().to_string(),
        format!("file://{}", outside.display()),
        bitmap.display().to_string(),
        "http://127.0.0.1/x.svg".to_owned(),
        "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg'/%3E".to_owned(),
    ] {
        let image = format!("<image width='16' height='16' xlink:href=\"{reference}\"/>");
        let transparent = pixels(&svg(&image)).iter().all(|pixel| *pixel == [0; 4]);
        assert!(transparent, "{reference}");
    }
    let external = format!(
        "<!DOCTYPE svg [<!ENTITY x SYSTEM '{}'>]><svg xmlns='http://www.w3.org/2000/svg' width='1' \
         height='1'>&x;</svg>",
        outside.display()
    );
    decode(external.as_bytes());
}

#[test]
fn there_is_no_way_out() {
    let program = Path::new(env!("CARGO_BIN_EXE_bulkhead-icon")).with_file_name("examples/escape");
    let escape = |way: &str| {
        let start = Instant::now();
        let output = Command::new(&program).arg(way).output().unwrap();
        assert!(start.elapsed() < PATIENCE, "{way}");
        (output.status, output.stdout)
    };
    let (status, out) = escape("none");
    assert!(status.success());
    assert_eq!(out, b"out");
    for way in [
        "file", "socket", "unix", "program", "thread", "kill", "code",
    ] {
        let (status, out) = escape(way);
        assert_eq!(status.signal(), Some(libc::SIGSYS), "{way}: {status}");
        assert!(out.is_empty(), "{way}");
    }
    for way in ["memory", "time"] {
        let (status, out) = escape(way);
        assert!(status.signal().is_some(), "{way}: {status}");
        assert!(out.is_empty(), "{way}");
    }
}
