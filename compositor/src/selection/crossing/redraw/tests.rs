//! Disposables of all kinds, each a thread at the other ends of the pipes.

use std::thread;

use super::*;
use crate::selection::crossing::parcel::Kind;

const LONG: Duration = Duration::from_secs(20);

/// A picture of so many pixels, with a text in it.
fn picture(width: u32, height: u32) -> Parcel {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Grayscale);
    encoder
        .add_text_chunk("Comment".into(), "from afar".into())
        .unwrap();
    let mut writer = encoder.write_header().unwrap();
    let pixels = vec![7; (width * height) as usize];
    writer.write_image_data(&pixels).unwrap();
    writer.finish().unwrap();
    Parcel::check(Kind::Image, bytes).unwrap()
}

fn header_of(numbers: [u32; 3]) -> Vec<u8> {
    let numbers = numbers.iter().flat_map(|number| number.to_le_bytes());
    MAGIC.into_iter().chain(numbers).collect()
}

/// What comes of it when a disposable does `act`, with its ends.
fn redrawn(
    picture: &Parcel,
    limit: Duration,
    act: impl FnOnce(File, File) + Send,
) -> Result<Parcel, NotRedrawn> {
    let pipe = || pipe_with(PipeFlags::CLOEXEC).unwrap();
    let (picture_there, picture_here) = pipe();
    let (pixels_here, pixels_there) = pipe();
    let (stop, _stop) = pipe();
    let ends = Ends {
        picture: picture_here,
        pixels: pixels_here,
    };
    thread::scope(|scope| {
        scope.spawn(move || act(picture_there.into(), pixels_there.into()));
        redraw(picture, ends, stop, Instant::now() + limit)
    })
}

/// What comes of such an answer.
fn answered(size: (u32, u32), answer: &[u8]) -> Result<Parcel, NotRedrawn> {
    redrawn(&picture(size.0, size.1), LONG, |mut from, mut to| {
        let mut taken = Vec::new();
        from.read_to_end(&mut taken).unwrap();
        let _ = to.write_all(answer);
    })
}

fn decoded(parcel: &Parcel) -> (png::ColorType, Vec<u8>) {
    let decoder = png::Decoder::new(io::Cursor::new(parcel.bytes()));
    let mut reader = decoder.read_info().unwrap();
    assert!(reader.info().uncompressed_latin1_text.is_empty());
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let frame = reader.next_frame(&mut pixels).unwrap();
    reader.finish().unwrap();
    (frame.color_type, pixels)
}

#[test]
fn pixels_become_a_picture_of_our_own() {
    for (channels, colour) in [
        (1, png::ColorType::Grayscale),
        (2, png::ColorType::GrayscaleAlpha),
        (3, png::ColorType::Rgb),
        (4, png::ColorType::Rgba),
    ] {
        let pixels: Vec<u8> = (0..5 * 4 * channels).map(|i| (i * 37) as u8).collect();
        let answer = [header_of([5, 4, channels]), pixels.clone()].concat();
        let parcel = answered((5, 4), &answer).unwrap();
        assert_eq!(decoded(&parcel), (colour, pixels));
        // It may cross again.
        let size = super::super::png::check(parcel.bytes()).unwrap();
        assert_eq!(Some(size), parcel.size());
    }
}

#[test]
fn the_disposable_has_all_of_the_picture() {
    let sent = picture(3, 3);
    let expected = sent.bytes().to_vec();
    let drawn = redrawn(&sent, LONG, |mut from, mut to| {
        let mut taken = Vec::new();
        from.read_to_end(&mut taken).unwrap();
        assert_eq!(taken, expected);
        let answer = [header_of([3, 3, 1]), vec![1; 9]].concat();
        // A byte at a time.
        for byte in answer {
            to.write_all(&[byte]).unwrap();
        }
    });
    assert_eq!(decoded(&drawn.unwrap()).1, [1; 9]);
}

#[test]
fn one_that_answers_before_it_has_read_does_not_stop_anything() {
    // Larger than pipes are: both sides would wait for each other.
    let noise: Vec<u8> = (0..600 * 600_u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 600, 600);
    encoder.set_color(png::ColorType::Grayscale);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&noise).unwrap();
    writer.finish().unwrap();
    let sent = Parcel::check(Kind::Image, bytes).unwrap();
    let drawn = redrawn(&sent, LONG, |mut from, mut to| {
        to.write_all(&header_of([600, 600, 1])).unwrap();
        to.write_all(&noise).unwrap();
        drop(to);
        let _ = io::copy(&mut from, &mut io::sink());
    });
    assert!(decoded(&drawn.unwrap()).1 == noise);
    // Nor does one that reads nothing.
    let drawn = redrawn(&sent, LONG, |from, mut to| {
        drop(from);
        to.write_all(&header_of([600, 600, 1])).unwrap();
        to.write_all(&noise).unwrap();
    });
    assert!(drawn.is_ok());
}

#[test]
fn a_header_may_say_nothing_new() {
    for numbers in [
        [4, 5, 1],
        [0, 0, 1],
        [5, 0, 1],
        [6, 4, 1],
        [5, 3, 1],
        [u32::MAX, u32::MAX, 4],
        [16_384, 16_384, 4],
    ] {
        let answer = [header_of(numbers), vec![0; 1000]].concat();
        let result = answered((5, 4), &answer);
        assert!(matches!(result, Err(NotRedrawn::Size)), "{numbers:?}");
    }
    for channels in [0, 5, 256, u32::MAX] {
        let answer = [header_of([5, 4, channels]), vec![0; 1000]].concat();
        let result = answered((5, 4), &answer);
        assert!(matches!(result, Err(NotRedrawn::Header)), "{channels}");
    }
    let whole = header_of([5, 4, 1]);
    for length in 0..whole.len() {
        let result = answered((5, 4), &whole[..length]);
        assert!(matches!(result, Err(NotRedrawn::Header)), "{length}");
    }
    let png = [b"\x89PNG\r\n\x1a\n".as_slice(), &[0; 100]].concat();
    assert!(matches!(answered((5, 4), &png), Err(NotRedrawn::Header)));
}

#[test]
fn exactly_so_many_pixels_are_taken() {
    let whole = [header_of([5, 4, 3]), vec![0; 60]].concat();
    assert!(answered((5, 4), &whole).is_ok());
    let short = answered((5, 4), &whole[..whole.len() - 1]);
    assert!(matches!(short, Err(NotRedrawn::Short)));
    let long = [whole, vec![0]].concat();
    assert!(matches!(answered((5, 4), &long), Err(NotRedrawn::Long)));
}

#[test]
fn one_that_hangs_is_given_up() {
    let soon = Duration::from_millis(50);
    for answer in [vec![], header_of([5, 4, 1]), {
        // All pixels, but no end.
        [header_of([5, 4, 1]), vec![0; 20]].concat()
    }] {
        let began = Instant::now();
        let result = redrawn(&picture(5, 4), soon, |_from, mut to| {
            to.write_all(&answer).unwrap();
            thread::sleep(Duration::from_millis(400));
            drop(to);
        });
        assert!(matches!(result, Err(NotRedrawn::Late)), "{result:?}");
        assert!(began.elapsed() >= soon);
    }
}

#[test]
fn nothing_goes_on_when_nobody_waits() {
    let pipe = || pipe_with(PipeFlags::CLOEXEC).unwrap();
    let (_picture_there, picture_here) = pipe();
    let (pixels_here, _pixels_there) = pipe();
    let (stop, stop_here) = pipe();
    let ends = Ends {
        picture: picture_here,
        pixels: pixels_here,
    };
    let thread = thread::spawn(move || redraw(&picture(5, 4), ends, stop, Instant::now() + LONG));
    drop(stop_here);
    let result = thread.join().unwrap();
    assert!(matches!(result, Err(NotRedrawn::Stopped)));
}

#[test]
fn too_large_a_file_is_not_kept() {
    let mut bounded = Bounded {
        bytes: vec![0; MAX_PNG_BYTES - 2],
        full: false,
    };
    assert!(bounded.write_all(&[0; 2]).is_ok() && !bounded.full);
    assert!(bounded.write_all(&[0]).is_err() && bounded.full);
}
