//! Pictures arrive at the host exactly as the application drew them, whatever it does to its
//! buffers and whenever the host releases its own.
#![allow(missing_docs)]

mod common;

use common::Setup;
use common::host::Release;
use proptest::prelude::*;

const W: i32 = 40;
const H: i32 = 30;
const STRIDE: i32 = W * 4;
const PICTURE_BYTES: usize = (STRIDE * H) as usize;

#[derive(Clone, Debug)]
enum Op {
    /// Draws a rectangle and shows it by this buffer.
    Draw {
        buffer: usize,
        rect: [i32; 4],
        colour: u8,
        surface_damage: bool,
        asks_for_frame: bool,
    },
    /// Shows nothing.
    Hide,
    /// Sets the scale of buffers.
    Scale(i32),
    /// The host releases the held buffer of this number.
    Release(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let rect = [-3..W, -3..H, 0..W, 0..H].prop_map(|r| r);
    prop_oneof![
        8 => (0usize..3, rect, any::<u8>(), any::<bool>(), any::<bool>()).prop_map(
            |(buffer, rect, colour, surface_damage, asks_for_frame)| {
                Op::Draw { buffer, rect, colour, surface_damage, asks_for_frame }
            }
        ),
        1 => Just(Op::Hide),
        1 => (1i32..3).prop_map(Op::Scale),
        4 => (0usize..8).prop_map(Op::Release),
    ]
}

fn draw(canvas: &mut [u8], [x, y, w, h]: [i32; 4], colour: u8) {
    for row in y.max(0)..(y + h).min(H) {
        for column in x.max(0)..(x + w).min(W) {
            let at = (row * STRIDE + column * 4) as usize;
            canvas[at..at + 4].fill(colour);
        }
    }
}

fn run(ops: &[Op], release: Release, sealed: bool) {
    let setup = Setup::new();
    setup.host.set_release(release);
    let mut client = setup.client();
    let surface = client.surface();
    let (pool, file) = client.pool(PICTURE_BYTES * 3, sealed);
    let buffers: Vec<u32> = (0..3)
        .map(|i| client.buffer(pool, i * PICTURE_BYTES as i32, W, H, STRIDE))
        .collect();
    let mut canvas = vec![0u8; PICTURE_BYTES];
    let mut scale = 1;
    for op in ops {
        match op.clone() {
            Op::Draw {
                buffer,
                rect,
                colour,
                surface_damage,
                asks_for_frame,
            } => {
                if asks_for_frame {
                    client.frame(surface);
                }
                draw(&mut canvas, rect, colour);
                let offset = (buffer * PICTURE_BYTES) as u64;
                rustix::io::pwrite(&file, &canvas, offset).unwrap();
                client.attach(surface, buffers[buffer]);
                if surface_damage {
                    // Rounded outwards, as a client has to.
                    let [x, y, w, h] = rect;
                    let (x0, y0) = (x.div_euclid(scale), y.div_euclid(scale));
                    let (x1, y1) = ((x + w + scale - 1) / scale, (y + h + scale - 1) / scale);
                    let damage = [x0, y0, x1 - x0, y1 - y0];
                    client.request(surface, 2, |m| damage.into_iter().for_each(|n| m.int(n)));
                } else {
                    client.damage_buffer(surface, rect);
                }
                client.commit(surface);
                assert!(client.roundtrip());
                let (width, height, picture) = setup.host.last_picture().expect("no picture");
                assert_eq!((width, height), (W, H));
                assert!(picture == canvas, "the picture differs after {op:?}");
                let released = client.wait_for("wl_buffer.release").unwrap();
                assert_eq!(released.object, buffers[buffer]);
            }
            Op::Hide => {
                client.attach(surface, 0);
                client.commit(surface);
            }
            Op::Scale(new) => {
                scale = new;
                client.request(surface, 8, |m| m.int(new));
            }
            Op::Release(which) => {
                setup.host.with(move |state, _| {
                    if !state.held.is_empty() {
                        let buffer = state.held.remove(which % state.held.len());
                        buffer.release();
                    }
                });
                client.roundtrip();
            }
        }
    }
    let (copied, damaged) = (setup.stat("bytes_copied"), setup.stat("damaged_bytes"));
    let frames = setup.stat("frames");
    assert!(
        copied <= frames * PICTURE_BYTES as u64,
        "{copied} of {damaged} damaged"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Random damage, buffers used again out of order, releases out of order.
    #[test]
    fn every_picture_is_complete(
        ops in prop::collection::vec(op(), 1..40),
        release in prop_oneof![
            Just(Release::Replaced), Just(Release::ByAnother), Just(Release::Immediately),
            Just(Release::Held),
        ],
        sealed in any::<bool>(),
    ) {
        run(&ops, release, sealed);
    }
}

#[test]
fn only_damage_is_copied() {
    for (release, copies) in [(Release::Immediately, 1), (Release::Replaced, 2)] {
        let setup = Setup::new();
        setup.host.set_release(release);
        let mut client = setup.client();
        let surface = client.surface();
        let (pool, _file) = client.pool(PICTURE_BYTES, true);
        let buffer = client.buffer(pool, 0, W, H, STRIDE);
        // The first pictures are copied as a whole, one into each blob.
        for _ in 0..copies {
            client.attach(surface, buffer);
            client.commit(surface);
            client.roundtrip();
        }
        let before = setup.stat("bytes_copied");
        assert_eq!(before, PICTURE_BYTES as u64 * copies);
        for i in 0..10 {
            client.attach(surface, buffer);
            client.damage_buffer(surface, [i, 0, 1, 5]);
            // The same pixels twice are one copy.
            client.damage_buffer(surface, [i, 0, 1, 5]);
            client.commit(surface);
            client.roundtrip();
        }
        // Each damaged byte once, or once for each of two blobs that take turns.
        let first_turn = if copies == 2 { 20 } else { 0 };
        assert_eq!(
            setup.stat("bytes_copied") - before,
            10 * 20 * copies - first_turn
        );
        assert_eq!(setup.stat("full_copies"), copies);
    }
}

/// A client that waits for its frames has one blob, and each byte is copied once, although the host
/// keeps the picture until the next one.
#[test]
fn a_picture_that_was_drawn_is_drawn_over() {
    for release in [Release::Replaced, Release::ByAnother] {
        draws_over(release);
    }
}

fn draws_over(release: Release) {
    let setup = Setup::new();
    setup.host.set_release(release);
    let mut client = setup.client();
    let surface = client.surface();
    let (pool, _file) = client.pool(PICTURE_BYTES, true);
    let buffer = client.buffer(pool, 0, W, H, STRIDE);
    let mut show = |setup: &Setup, x: i32, frame: bool| {
        let before = (setup.stat("bytes_copied"), setup.host.pools());
        if frame {
            client.frame(surface);
        }
        client.attach(surface, buffer);
        client.damage_buffer(surface, [x, 0, 1, 5]);
        client.commit(surface);
        assert!(client.roundtrip());
        assert!(setup.host.last_picture().is_some());
        let after = (setup.stat("bytes_copied"), setup.host.pools());
        (after.0 - before.0, after.1 - before.1)
    };
    assert_eq!(show(&setup, 0, true), (PICTURE_BYTES as u64, 1));
    for x in 1..10 {
        assert_eq!(show(&setup, x, true), (20, 0));
    }
    // The last one was drawn; of this one nobody says so.
    assert_eq!(show(&setup, 10, false), (20, 0));
    assert_eq!(show(&setup, 11, true), (PICTURE_BYTES as u64, 1));
    assert_eq!(show(&setup, 12, true), (20, 0));
    // Two that take turns, as long as nobody says what was drawn: each is complete, no third is needed.
    assert_eq!(show(&setup, 13, false), (20, 0));
    for x in 14..20 {
        let (copied, pools) = show(&setup, x, false);
        assert!(
            (20..=100).contains(&copied) && pools == 0,
            "{copied} bytes, {pools} more pools"
        );
    }
}

/// Where most of a picture changes each time, it goes beside the one that is shown, and each byte is
/// still copied once. What changes little, or elsewhere, goes over it.
#[test]
fn a_picture_that_changes_whole_is_not_drawn_over() {
    let setup = Setup::new();
    setup.host.set_release(Release::Replaced);
    let mut client = setup.client();
    let surface = client.surface();
    let (pool, _file) = client.pool(PICTURE_BYTES, true);
    let buffer = client.buffer(pool, 0, W, H, STRIDE);
    let mut show = |rect: [i32; 4]| {
        let before = (setup.stat("bytes_copied"), setup.host.pools());
        client.frame(surface);
        client.attach(surface, buffer);
        client.damage_buffer(surface, rect);
        client.commit(surface);
        assert!(client.roundtrip());
        let after = (setup.stat("bytes_copied"), setup.host.pools());
        let shown = setup.host.shown();
        (after.0 - before.0, after.1 - before.1, shown)
    };
    let most = [1, 1, W - 2, H - 2];
    let most_bytes = ((W - 2) * (H - 2) * 4) as u64;
    let (copied, pools, first) = show(most);
    assert_eq!((copied, pools), (PICTURE_BYTES as u64, 1));
    // The second one is new: copied as a whole, this once.
    let (copied, pools, second) = show(most);
    assert_eq!((copied, pools), (PICTURE_BYTES as u64, 1));
    assert_ne!(first, second);
    for turn in 0..6 {
        let shown = if turn % 2 == 0 { &first } else { &second };
        assert_eq!(show(most), (most_bytes, 0, shown.clone()));
    }
    // Little, and the other one lacks much more: over what is shown.
    let little = [3, 3, 2, 2];
    assert_eq!(show(little), (16, 0, second));
    // Whole again: beside it.
    assert_eq!(show(most), (most_bytes, 0, first));
}

/// The picture of a subsurface may have to wait for its parent's.
#[test]
fn a_subsurface_is_not_drawn_over() {
    let setup = Setup::new();
    let mut client = setup.client();
    let (parent, surface) = (client.surface(), client.surface());
    client.subsurface(surface, parent);
    let (pool, _file) = client.pool(PICTURE_BYTES, true);
    let buffer = client.buffer(pool, 0, W, H, STRIDE);
    for _ in 0..4 {
        client.frame(surface);
        client.attach(surface, buffer);
        client.commit(surface);
        assert!(client.roundtrip());
    }
    assert_eq!(setup.host.pools(), 2);
}

#[test]
fn blobs_are_used_again_and_given_back() {
    let setup = Setup::new();
    let mut client = setup.client();
    let surface = client.surface();
    let (pool, _file) = client.pool(1 << 20, true);
    for size in (20..200).chain((20..200).rev()) {
        let buffer = client.buffer(pool, 0, size, size, size * 4);
        client.attach(surface, buffer);
        client.commit(surface);
        client.request(buffer, 0, |_| {});
        client.roundtrip();
        let (w, h, _) = setup.host.last_picture().unwrap();
        assert_eq!((w, h), (size, size));
    }
    let pools = setup.host.with(|state, _| state.pools);
    assert!(pools < 30, "{pools} pools for one window");
    assert_eq!(setup.stat("frames"), 360);
    drop(client);
    common::eventually("memory is given back", || setup.stat("blob_bytes") == 0);
}

#[test]
fn a_truncated_pool_hurts_only_its_picture() {
    let setup = Setup::new();
    let mut client = setup.client();
    let surface = client.surface();
    let (pool, file) = client.pool(PICTURE_BYTES, false);
    let buffer = client.buffer(pool, 0, W, H, STRIDE);
    rustix::io::pwrite(&file, &[9; PICTURE_BYTES], 0).unwrap();
    for len in [PICTURE_BYTES, 100, 0, PICTURE_BYTES] {
        rustix::fs::ftruncate(&file, len as u64).unwrap();
        client.attach(surface, buffer);
        client.damage_buffer(surface, [0, 0, W, H]);
        client.commit(surface);
        assert!(client.roundtrip());
        assert!(setup.host.last_picture().is_some());
    }
}

#[test]
fn a_host_that_releases_nothing_slows_a_client_down_and_then_ends_it() {
    let setup = Setup::new();
    setup.host.set_release(Release::Held);
    let mut client = setup.client();
    let surface = client.surface();
    let (pool, _file) = client.pool(PICTURE_BYTES, true);
    let buffer = client.buffer(pool, 0, W, H, STRIDE);
    let start = std::time::Instant::now();
    for _ in 0..10 {
        client.attach(surface, buffer);
        client.commit(surface);
        assert!(client.roundtrip());
    }
    assert!(start.elapsed().as_millis() > 250, "it did not have to wait");
    assert!(setup.stat("stalls") >= 1);
    // A release lets it go on at once.
    setup.host.with(|state, _| {
        state.release = Release::Replaced;
        state.held.drain(..).for_each(|buffer| buffer.release());
    });
    client.roundtrip();
    let start = std::time::Instant::now();
    for _ in 0..20 {
        client.attach(surface, buffer);
        client.commit(surface);
        assert!(client.roundtrip());
    }
    assert!(start.elapsed().as_millis() < 2000);
}
