//! Headers that a card may write, and those that it may not.

use std::net::Ipv4Addr;

use super::*;

fn header(flags: u8, kind: u8, numbers: [u16; 4]) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[0] = flags;
    bytes[1] = kind;
    for (place, number) in numbers.into_iter().enumerate() {
        bytes[2 + place * 2..4 + place * 2].copy_from_slice(&number.to_le_bytes());
    }
    // num_buffers, which nobody may believe.
    bytes[10..].copy_from_slice(&[0xff, 0xff]);
    bytes
}

/// A packet of TCP with a header of 32 bytes.
fn tcp(total_bytes: usize) -> Contents {
    Contents::Ipv4(Ipv4 {
        source: Ipv4Addr::LOCALHOST,
        destination: Ipv4Addr::LOCALHOST,
        header_bytes: 20,
        total_bytes,
        protocol: TCP,
        is_fragment: false,
        is_dhcp_server: false,
        tcp_header_bytes: Some(32),
    })
}

fn check(
    header: [u8; 12],
    frame_bytes: usize,
    tag: u16,
    contents: &Contents,
) -> Result<Offload, Reason> {
    Header::parse(&header, frame_bytes + usize::from(tag), tag)?.fit(frame_bytes, 1500, contents)
}

#[test]
fn a_plain_frame_has_an_empty_header_whatever_else_it_says() {
    let plain = header(0, 0, [9999, 9999, 9999, 9999]);
    let offload = check(plain, 1514, 0, &tcp(1500)).unwrap();
    assert_eq!(offload.header(4), Ok([0; 12]));
    assert_eq!(offload.wire_bytes, 1514);
    assert_eq!(check(plain, 1515, 0, &tcp(1501)), Err(Reason::OverMtu));
    assert_eq!(check(plain, 1514, 4, &tcp(1500)), Ok(offload));
}

#[test]
fn offsets_move_with_the_tag() {
    let sent = header(1, 1, [66, 1448, 34, 16]);
    let offload = check(sent, 14 + 60_000, 0, &tcp(60_000)).unwrap();
    let mut tagged = header(1, 1, [70, 1448, 38, 16]);
    tagged[10..].fill(0);
    assert_eq!(offload.header(4), Ok(tagged));
    let back = check(tagged, 14 + 60_000, 4, &tcp(60_000)).unwrap();
    assert_eq!(back, offload);
    let mut untagged = sent;
    untagged[10..].fill(0);
    assert_eq!(back.header(0), Ok(untagged));
    // 59,948 bytes of data are 42 segments.
    assert_eq!(offload.wire_bytes, 60_014 + 41 * 66);
}

#[test]
fn the_hint_of_the_headers_length_is_replaced_by_the_truth() {
    let mut right = header(1, 1, [66, 1448, 34, 16]);
    right[10..].fill(0);
    for hint in [0, 13, 66, 5014] {
        let offload = check(header(1, 1, [hint, 1448, 34, 16]), 5014, 0, &tcp(5000)).unwrap();
        assert_eq!(offload.header(0), Ok(right), "{hint}");
    }
    let long = header(1, 1, [5015, 1448, 34, 16]);
    assert_eq!(check(long, 5014, 0, &tcp(5000)), Err(Reason::HeaderLength));
}

#[test]
fn flags_and_kinds_that_are_not_offered_are_refused() {
    for flags in 2..=255 {
        let sent = header(flags, 0, [0; 4]);
        assert_eq!(check(sent, 100, 0, &tcp(86)), Err(Reason::HeaderFlags));
    }
    for kind in 0..=255 {
        let result = check(header(1, kind, [66, 500, 34, 16]), 1014, 0, &tcp(1000));
        match kind {
            0 | 1 => assert!(result.is_ok()),
            4 => assert_eq!(result, Err(Reason::GsoFrame)),
            _ => assert_eq!(result, Err(Reason::HeaderGso), "{kind}"),
        }
    }
}

#[test]
fn checksums_stay_in_their_packet() {
    let at = |start, offset| check(header(1, 0, [0, 0, start, offset]), 114, 0, &tcp(96));
    // 14 + 96: the last four bytes of the frame are padding.
    assert!(at(34, 16).is_ok());
    assert!(at(34, 74).is_ok());
    assert!(at(108, 0).is_ok());
    for (start, offset) in [
        (33, 16),
        (0, 0),
        (34, 75),
        (109, 0),
        (65535, 65535),
        (34, 65535),
    ] {
        assert_eq!(
            at(start, offset),
            Err(Reason::ChecksumPlace),
            "{start} {offset}"
        );
    }
    // With a tag, the offset counts from before it.
    let tagged = |start| check(header(1, 0, [0, 0, start, 16]), 114, 4, &tcp(96));
    assert!(tagged(38).is_ok());
    for start in [0, 3, 34, 37] {
        assert_eq!(tagged(start), Err(Reason::ChecksumPlace));
    }
    let sent = header(1, 0, [0, 0, 34, 16]);
    assert_eq!(
        check(sent, 60, 0, &Contents::Arp),
        Err(Reason::ChecksumPlace)
    );
    let Contents::Ipv4(mut fragment) = tcp(96) else {
        unreachable!()
    };
    fragment.is_fragment = true;
    assert_eq!(
        check(sent, 110, 0, &Contents::Ipv4(fragment)),
        Err(Reason::ChecksumPlace)
    );
}

#[test]
fn only_whole_tcp_packets_are_segmented() {
    let sent = |size, start, offset| header(1, 1, [66, size, start, offset]);
    let good = sent(1448, 34, 16);
    assert!(check(good, 5014, 0, &tcp(5000)).is_ok());
    let refused = |header, contents: &Contents| check(header, 5014, 0, contents).unwrap_err();
    assert_eq!(
        refused(header(0, 1, [66, 1448, 34, 16]), &tcp(5000)),
        Reason::GsoWithoutChecksum
    );
    assert_eq!(refused(good, &Contents::Arp), Reason::ChecksumPlace);
    assert_eq!(refused(good, &tcp(4999)), Reason::GsoFrame);
    for size in [0, 1, 7, 1449, 65535] {
        assert_eq!(refused(sent(size, 34, 16), &tcp(5000)), Reason::GsoSize);
    }
    for (start, offset) in [(35, 16), (34, 6), (54, 16)] {
        let reason = refused(sent(1448, start, offset), &tcp(5000));
        assert_eq!(reason, Reason::ChecksumPlace);
    }
    let Contents::Ipv4(ip) = tcp(5000) else {
        unreachable!()
    };
    let other = |change: fn(&mut Ipv4)| {
        let mut ip = ip;
        change(&mut ip);
        refused(good, &Contents::Ipv4(ip))
    };
    assert_eq!(other(|ip| ip.protocol = 17), Reason::GsoFrame);
    assert_eq!(other(|ip| ip.tcp_header_bytes = None), Reason::GsoFrame);
    assert_eq!(other(|ip| ip.is_fragment = true), Reason::ChecksumPlace);
    // Nothing to segment.
    let empty = check(good, 66, 0, &tcp(52));
    assert_eq!(empty, Err(Reason::GsoFrame));
}

#[test]
fn a_short_header_is_none() {
    for length in 0..10 {
        let sent = header(1, 1, [66, 1448, 34, 16]);
        assert_eq!(Header::parse(&sent[..length], 100, 0), Err(Reason::Short));
    }
}
