//! Pictures that are drawn anew on their way: by a manager of the test, whose disposable is the test.

use std::{
    fs::File,
    io::{Cursor, Read, Write},
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use bulkhead_compositor::CrossingLimits;
use rustix::pipe::{PipeFlags, pipe_with};
use serde_json::{Value, json};

use super::{CTRL, KEY_C, KEY_V, SHIFT, Three, assert_saw_nothing, read};
use crate::clients::Client;

const WIDTH: u32 = 64;
const HEIGHT: u32 = 48;

/// Its pixels, as red, green and blue.
fn pixels() -> Vec<u8> {
    (0..WIDTH * HEIGHT * 3)
        .map(|i| (i * i % 253) as u8)
        .collect()
}

/// The picture's file, with a text in it that must stay behind.
fn picture() -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, WIDTH, HEIGHT);
    encoder.set_color(png::ColorType::Rgb);
    encoder
        .add_text_chunk("Comment".into(), "stays behind".into())
        .unwrap();
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&pixels()).unwrap();
    writer.finish().unwrap();
    bytes
}

fn header(width: u32, height: u32, channels: u32) -> Vec<u8> {
    let numbers = [width, height, channels];
    let numbers = numbers.iter().flat_map(|number| number.to_le_bytes());
    b"BLKHPIX1".iter().copied().chain(numbers).collect()
}

fn good_answer() -> Vec<u8> {
    [header(WIDTH, HEIGHT, 3), pixels()].concat()
}

/// The disposable's ends.
struct Disposable {
    id: Value,
    picture: File,
    pixels: File,
}

impl Three {
    /// A picture is copied in work, and pasted with the keys in a domain.
    fn paste_picture(&mut self, domain: &str) -> Value {
        self.work.copy_as(&["text/html", "image/png"], &picture());
        let notice = self.copy_across();
        assert!(notice.starts_with("copied an image of ") && notice.ends_with(" from work"));
        self.paste_again(domain)
    }

    fn paste_again(&mut self, domain: &str) -> Value {
        self.focus(domain);
        self.desk.chord(&[CTRL, SHIFT, KEY_V]);
        let asked = self.event("paste");
        assert_eq!(asked["kind"], "image");
        asked["id"].clone()
    }

    /// The manager says yes, and has a disposable.
    fn allow(&mut self, id: Value, domain: &str) -> Disposable {
        let pipe = || pipe_with(PipeFlags::CLOEXEC).unwrap();
        let (picture, picture_there) = pipe();
        let (pixels_there, pixels) = pipe();
        let answer = self.answer(&id, true, &[picture_there, pixels_there]);
        assert_eq!(answer["ok"], true, "{answer}");
        assert_eq!(
            self.notice(),
            format!("pasting a picture from work into {domain}: it is redrawn in a disposable...")
        );
        Disposable {
            id,
            picture: picture.into(),
            pixels: pixels.into(),
        }
    }

    fn answer(&self, id: &Value, allow: bool, fds: &[OwnedFd]) -> Value {
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        let request = json!({
            "op": "answer_paste", "id": id, "allow": allow, "reason": "there is no memory for it"
        });
        self.desk.control_channel().ask(request, &fds)
    }

    /// What the manager is told of the end: why nothing was pasted, or nothing.
    fn ended(&self, id: &Value) -> String {
        let event = self.event("redrawn");
        assert_eq!(event["id"], *id);
        let why = event["text"].as_str().unwrap().to_owned();
        assert_eq!(event["pasted"], why.is_empty());
        why
    }
}

impl Disposable {
    /// Takes all of the picture, answers, and ends.
    fn decode(mut self, answer: &[u8]) -> Vec<u8> {
        let mut taken = Vec::new();
        self.picture.read_to_end(&mut taken).unwrap();
        self.pixels.write_all(answer).unwrap();
        taken
    }

    /// The desktop has closed its ends.
    fn must_be_given_up(mut self) {
        let mut rest = Vec::new();
        self.picture.read_to_end(&mut rest).unwrap();
        let mut tries = 0;
        while self.pixels.write_all(&[0]).is_ok() {
            tries += 1;
            assert!(tries < 1000, "its pixels are still wanted");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn assert_has_the_picture(client: &mut Client) {
    client.until("the clipboard", |t| t.clipboard.is_some());
    let types: Vec<_> = client.told.offers.values().collect();
    assert_eq!(types, [&["image/png"]]);
    let bytes = read(client.paste_as("image/png").unwrap());
    assert!(!bytes.windows(6).any(|w| w == b"behind"));
    let mut reader = png::Decoder::new(Cursor::new(bytes)).read_info().unwrap();
    assert!(reader.info().uncompressed_latin1_text.is_empty());
    let mut drawn = vec![0; reader.output_buffer_size().unwrap()];
    let frame = reader.next_frame(&mut drawn).unwrap();
    assert_eq!((frame.width, frame.height), (WIDTH, HEIGHT));
    assert!(drawn == pixels());
}

#[test]
fn a_picture_arrives_with_the_same_pixels_and_nothing_else_of_it() {
    let mut three = Three::new();
    let id = three.paste_picture("personal");
    let disposable = three.allow(id.clone(), "personal");
    // Nothing is there before it is drawn.
    assert_saw_nothing(&mut three.personal);
    assert!(disposable.decode(&good_answer()) == picture());
    assert_eq!(three.ended(&id), "");
    let notice = three.notice();
    assert!(notice.starts_with("pasted an image of "), "{notice}");
    assert!(notice.ends_with(" from work into personal"), "{notice}");
    assert_has_the_picture(&mut three.personal);
    assert_saw_nothing(&mut three.watcher);
    // It has moved.
    three.focus("other");
    three.desk.chord(&[CTRL, SHIFT, KEY_V]);
    assert!(three.notice().starts_with("not pasted: nothing was copied"));
}

#[test]
fn it_never_arrives_as_it_is() {
    let mut three = Three::new();
    let id = three.paste_picture("personal");
    // One pipe is no way through a disposable.
    let (one, _other) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    assert_eq!(three.answer(&id, true, &[one])["ok"], false);
    assert_eq!(three.answer(&id, true, &[])["ok"], true);
    assert_eq!(
        three.notice(),
        "not pasted from work into personal: there is no disposable to redraw it in"
    );
    assert_saw_nothing(&mut three.personal);
}

#[test]
fn what_a_disposable_says_that_is_no_picture_is_refused() {
    let mut three = Three::new();
    let mut id = three.paste_picture("personal");
    let good = good_answer();
    for (answer, why) in [
        (
            header(WIDTH, HEIGHT + 1, 3),
            "gave a picture of another size",
        ),
        (header(16_384, 16_384, 4), "gave a picture of another size"),
        (header(WIDTH, HEIGHT, 7), "gave no picture"),
        (picture(), "gave no picture"),
        (Vec::new(), "gave no picture"),
        (good[..good.len() - 1].to_vec(), "gave too few pixels"),
        (
            [good.clone(), vec![0]].concat(),
            "gave more than the pixels",
        ),
    ] {
        let disposable = three.allow(id.clone(), "personal");
        disposable.decode(&answer);
        let why = format!("the disposable {why}");
        assert_eq!(three.ended(&id), why);
        assert_eq!(
            three.notice(),
            format!("not pasted from work into personal: {why}")
        );
        assert_saw_nothing(&mut three.personal);
        // It is still there to be pasted.
        id = three.paste_again("personal");
    }
    three.allow(id.clone(), "personal").decode(&good);
    assert_eq!(three.ended(&id), "");
    assert!(three.notice().starts_with("pasted"));
    assert_has_the_picture(&mut three.personal);
}

#[test]
fn a_disposable_that_hangs_must_be_given_up_and_the_desktop_goes_on() {
    let mut three = Three::with(CrossingLimits {
        redraw: Duration::from_millis(500),
        ..CrossingLimits::default()
    });
    let id = three.paste_picture("personal");
    let mut disposable = three.allow(id.clone(), "personal");
    disposable
        .pixels
        .write_all(&header(WIDTH, HEIGHT, 3))
        .unwrap();
    assert_eq!(three.desk.windows().len(), 3);
    assert_eq!(three.ended(&id), "the disposable took too long");
    assert!(three.notice().ends_with("the disposable took too long"));
    disposable.must_be_given_up();
    assert_saw_nothing(&mut three.personal);
}

#[test]
fn the_manager_says_why_it_failed() {
    let mut three = Three::new();
    let id = three.paste_picture("personal");
    let disposable = three.allow(id.clone(), "personal");
    assert_eq!(three.answer(&id, false, &[])["ok"], true);
    assert_eq!(three.ended(&id), "there is no memory for it");
    let notice = "not pasted from work into personal: there is no memory for it";
    assert_eq!(three.notice(), notice);
    disposable.must_be_given_up();
    // Only once, and not of another paste.
    assert_eq!(three.answer(&id, false, &[])["ok"], false);
    assert_saw_nothing(&mut three.personal);
}

#[test]
fn it_must_be_given_up_with_its_target() {
    let mut three = Three::new();
    let id = three.paste_picture("personal");
    let disposable = three.allow(id.clone(), "personal");
    three
        .desk
        .control(json!({"op": "remove_domain", "name": "personal"}));
    assert_eq!(three.ended(&id), "it has ended");
    assert_eq!(
        three.notice(),
        "not pasted from work into personal: it has ended"
    );
    disposable.must_be_given_up();
    let id = three.paste_again("other");
    three.allow(id.clone(), "other").decode(&good_answer());
    assert_eq!(three.ended(&id), "");
    assert_has_the_picture(&mut three.watcher);
}

#[test]
fn it_must_be_given_up_when_the_user_does_something_else() {
    let mut three = Three::new();
    let id = three.paste_picture("personal");
    let first = three.allow(id.clone(), "personal");
    // The same again: it goes on.
    three.desk.chord(&[CTRL, SHIFT, KEY_V]);
    assert_eq!(
        three.notice(),
        "not pasted yet: the picture is still redrawn"
    );
    // Elsewhere: that window is meant.
    let id_elsewhere = three.paste_again("other");
    first.must_be_given_up();
    let second = three.allow(id_elsewhere.clone(), "other");
    // Something else is copied.
    three.focus("personal");
    three.personal.copy(b"text");
    three.desk.chord(&[CTRL, SHIFT, KEY_C]);
    assert_eq!(
        three.ended(&id_elsewhere),
        "the user copied or pasted again"
    );
    assert_eq!(three.answer(&second.id, false, &[])["ok"], false);
    second.must_be_given_up();
    three.personal.until("somebody pastes", |t| t.has("send"));
    assert_eq!(three.notice(), "copied 4 bytes of text from personal");
    assert_saw_nothing(&mut three.watcher);
}

#[test]
fn within_its_domain_it_stays_as_it_is() {
    let mut three = Three::new();
    three.work.copy_as(&["image/png"], &picture());
    three.copy_across();
    three.desk.chord(&[CTRL, SHIFT, KEY_V]);
    assert!(three.notice().starts_with("pasted an image of "));
    // Before, its clipboard was its own, and reading that would wait for itself.
    three
        .work
        .until("its own is replaced", |t| t.has("cancelled"));
    assert!(three.work.sync());
    assert!(read(three.work.paste_as("image/png").unwrap()) == picture());
}
