//! Says whether a packet may come out of the link, in its own words: it shares no code with it.

/// Whom a packet came out to.
pub enum To<'a> {
    /// A trunk with these clients: VLAN, card, address.
    Trunk(&'a [(u16, [u8; 6], [u8; 4])]),
    /// One client.
    Client([u8; 6], [u8; 4]),
}

const TRUNK: [u8; 6] = [2, 0, 0, 0, 0, 1];
const MTU: usize = 1500;

fn le(bytes: &[u8], at: usize) -> usize {
    bytes[at] as usize + 256 * bytes[at + 1] as usize
}

fn be(bytes: &[u8], at: usize) -> usize {
    256 * bytes[at] as usize + bytes[at + 1] as usize
}

macro_rules! must {
    ($condition:expr) => {
        if !$condition {
            return Err(stringify!($condition));
        }
    };
}

/// Why it may not.
pub fn check(packet: &[u8], to: &To<'_>) -> Result<(), &'static str> {
    must!((26..=65561).contains(&packet.len()));
    let (header, frame) = packet.split_at(12);
    let mut shift = 0;
    let (card, address, is_up, rest) = match to {
        To::Client(card, address) => (*card, *address, false, &frame[12..]),
        To::Trunk(clients) => {
            must!(frame.len() >= 18);
            must!(be(frame, 12) == 0x8100);
            let client = clients
                .iter()
                .find(|(vlan, ..)| usize::from(*vlan) == be(frame, 14));
            let Some((_, card, address)) = client else {
                return Err("its VLAN is a client's, without a priority");
            };
            shift = 4;
            (*card, *address, true, &frame[16..])
        }
    };
    let (from, for_whom) = if is_up { (card, TRUNK) } else { (TRUNK, card) };
    must!(frame[6..12] == from);
    let to_all = frame[..6] == [0xff; 6];
    must!(to_all || frame[..6] == for_whom);
    let kind = be(rest, 0);
    let body = &rest[2..];
    let length = frame.len() - shift;
    must!(header[10..] == [0, 0]);
    if kind == 0x0806 {
        must!(header == [0; 12]);
        must!(length <= MTU + 14);
        return arp(body, from, is_up, address);
    }
    must!(kind == 0x0800 && !to_all);
    must!(body.len() >= 20 && body[0] >> 4 == 4);
    let ip_header = usize::from(body[0] & 15) * 4;
    let total = be(body, 2);
    must!(ip_header >= 20 && total >= ip_header && total <= body.len());
    options(&body[20..ip_header])?;
    if is_up {
        must!(body[12..16] == address);
    } else {
        must!(body[16..20] == address);
    }
    let contents = &body[ip_header..total];
    let offset = (be(body, 6) % 0x2000) * 8;
    let more = body[6] & 0x20 != 0;
    must!(offset + contents.len() + ip_header <= 65535);
    let whole = match body[9] {
        6 => 20,
        17 => 8,
        _ => 0,
    };
    must!(if offset == 0 {
        contents.len() >= whole
    } else {
        offset >= whole
    });
    let server = is_up && body[9] == 17 && offset == 0 && be(contents, 0) == 67;
    must!(!server);
    offload(header, shift, length, body, offset > 0 || more)
}

fn arp(body: &[u8], from: [u8; 6], is_up: bool, address: [u8; 4]) -> Result<(), &'static str> {
    must!(body.len() >= 28);
    must!(body[..6] == [0, 1, 8, 0, 6, 4]);
    must!(body[6..8] == [0, 1] || body[6..8] == [0, 2]);
    must!(body[8..14] == from);
    let speaker = &body[14..18];
    if is_up {
        must!(speaker == address || (speaker == [0; 4] && body[7] == 1));
    } else {
        must!(speaker != address);
    }
    Ok(())
}

fn options(list: &[u8]) -> Result<(), &'static str> {
    let mut at = 0;
    while at < list.len() && list[at] != 0 {
        must!(list[at] != 131 && list[at] != 137);
        if list[at] == 1 {
            at += 1;
            continue;
        }
        must!(at + 1 < list.len() && list[at + 1] >= 2);
        at += usize::from(list[at + 1]);
        must!(at <= list.len());
    }
    Ok(())
}

fn offload(
    header: &[u8],
    shift: usize,
    length: usize,
    body: &[u8],
    is_fragment: bool,
) -> Result<(), &'static str> {
    let (ip_header, total) = (usize::from(body[0] & 15) * 4, be(body, 2));
    must!(header[0] <= 1);
    if header[0] == 0 {
        must!(header == [0; 12]);
        must!(length <= MTU + 14);
        return Ok(());
    }
    must!(!is_fragment);
    let start = le(header, 6);
    must!(start >= shift + 14 + ip_header);
    must!(start + le(header, 8) + 2 <= shift + 14 + total);
    must!(header[1] <= 1);
    if header[1] == 0 {
        must!(header[2..6] == [0; 4]);
        must!(length <= MTU + 14);
        return Ok(());
    }
    must!(body[9] == 6);
    must!(total == body.len());
    let tcp_header = usize::from(body[ip_header + 12] >> 4) * 4;
    must!(tcp_header >= 20);
    let headers = 14 + ip_header + tcp_header;
    must!(headers < length);
    must!(le(header, 2) == headers + shift);
    must!(start == shift + 14 + ip_header && le(header, 8) == 16);
    let size = le(header, 4);
    must!(size >= 8 && headers + size <= MTU + 14);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames;

    #[test]
    fn it_knows_right_from_wrong() {
        let clients = [(9, frames::CARD, frames::ADDRESS)];
        let to_trunk = To::Trunk(&clients);
        let up = frames::up(1, 40);
        let good = frames::packet(frames::PLAIN, &frames::tag(9, &up[12..]));
        assert_eq!(check(&good, &to_trunk), Ok(()));
        let down = frames::down_frame(frames::CARD, frames::ADDRESS, 1, 40);
        let to_client = To::Client(frames::CARD, frames::ADDRESS);
        let down = frames::packet(frames::PLAIN, &down);
        assert_eq!(check(&down, &to_client), Ok(()));
        // Each byte of header, addresses, tag and type matters, and many of IP.
        for at in (0..31).chain([42, 45]) {
            let mut bad = good.clone();
            bad[at] ^= 0x40;
            assert!(check(&bad, &to_trunk).is_err(), "{at}");
        }
        for at in (0..27).chain([42, 45]) {
            let mut bad = down.clone();
            bad[at] ^= 0x40;
            assert!(check(&bad, &to_client).is_err(), "{at}");
        }
    }
}
