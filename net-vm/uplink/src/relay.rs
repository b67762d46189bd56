//! Frames go in both directions, one waiting in each. Who does not take what is there makes the other
//! side wait, and then its guest: nothing is collected here.

use std::io;
use std::os::fd::OwnedFd;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use crate::stream::{self, Broken, Incoming, MAX_FRAME, MIN_FRAME};

/// `struct virtio_net_hdr_v1` (virtio 1.2, 5.1.6).
const HEADER: usize = 12;
/// The packet that tells a card that its cable is plugged in.
const PLUGGED: [u8; 1] = [1];
const CARD: u64 = 0;
const PASST: u64 = 1;

/// Why it ended.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// passt's stream cannot be followed.
    #[error(transparent)]
    Broken(#[from] Broken),
    /// passt is not there any more.
    #[error("passt has ended")]
    Ended,
    /// The kernel refused something.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// A card and its passt.
#[derive(Debug)]
pub struct Relay {
    card: OwnedFd,
    passt: OwnedFd,
    epoll: OwnedFd,
    /// What each side is waited for.
    waited: [EventFlags; 2],
    /// A frame on its way into the stream, and how much of it is there.
    outgoing: (Vec<u8>, usize),
    incoming: Incoming,
    /// The card takes no more now.
    card_is_full: bool,
}

impl Relay {
    /// Between these sockets; the card's cable is plugged in.
    pub fn new(card: OwnedFd, passt: OwnedFd) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        for (socket, number) in [(&card, CARD), (&passt, PASST)] {
            epoll::add(&epoll, socket, EventData::new_u64(number), EventFlags::IN)?;
        }
        send(&card, &PLUGGED, SendFlags::NOSIGNAL)?;
        Ok(Relay {
            card,
            passt,
            epoll,
            waited: [EventFlags::IN; 2],
            outgoing: (Vec::with_capacity(MAX_FRAME + 4), 0),
            incoming: Incoming::new(),
            card_is_full: false,
        })
    }

    /// Until the card is gone.
    pub fn run(&mut self) -> Result<(), RelayError> {
        let mut events = Vec::with_capacity(2);
        loop {
            if !self.card_to_passt()? {
                return Ok(());
            }
            self.passt_to_card()?;
            self.wait_for()?;
            events.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut events), None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(io::Error::from(error).into()),
            }
        }
    }

    /// Only what can be done is waited for.
    fn wait_for(&mut self) -> io::Result<()> {
        let is_sending = self.outgoing.1 < self.outgoing.0.len();
        let flags = |reads: bool, writes: bool| {
            let mut flags = EventFlags::empty();
            flags.set(EventFlags::IN, reads);
            flags.set(EventFlags::OUT, writes);
            flags
        };
        let wanted = [
            flags(!is_sending, self.card_is_full),
            flags(!self.card_is_full, is_sending),
        ];
        for (index, socket) in [&self.card, &self.passt].into_iter().enumerate() {
            if self.waited[index] != wanted[index] {
                let data = EventData::new_u64(index as u64);
                epoll::modify(&self.epoll, socket, data, wanted[index])?;
            }
        }
        self.waited = wanted;
        Ok(())
    }

    /// Whether the card is still there.
    fn card_to_passt(&mut self) -> Result<bool, RelayError> {
        let mut packet = [0; HEADER + MAX_FRAME + 1];
        loop {
            let (bytes, sent) = &mut self.outgoing;
            while let Some(rest) = bytes.get(*sent..).filter(|rest| !rest.is_empty()) {
                match send(&self.passt, rest, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                    Ok(count) => *sent += count,
                    Err(Errno::INTR) => {}
                    Err(Errno::AGAIN) => return Ok(true),
                    Err(Errno::PIPE | Errno::CONNRESET) => return Err(RelayError::Ended),
                    Err(error) => return Err(io::Error::from(error).into()),
                }
            }
            match recv(&self.card, &mut packet[..], RecvFlags::DONTWAIT) {
                Ok((_, 0)) => return Ok(false),
                Ok((_, length)) => {
                    let untrusted_packet = packet.get(..length).unwrap_or_default();
                    // What is no plain frame is lost, as frames may be.
                    if let Some(frame) = plain(untrusted_packet) {
                        stream::framed(frame, bytes);
                        *sent = 0;
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(true),
                Err(Errno::CONNRESET) => return Ok(false),
                Err(error) => return Err(io::Error::from(error).into()),
            }
        }
    }

    fn passt_to_card(&mut self) -> Result<(), RelayError> {
        let mut packet = Vec::with_capacity(HEADER + MAX_FRAME);
        loop {
            while let Some(frame) = self.incoming.frame()? {
                packet.clear();
                packet.resize(HEADER, 0);
                packet.extend(frame);
                match send(
                    &self.card,
                    &packet,
                    SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
                ) {
                    Err(Errno::INTR) => continue,
                    Err(Errno::AGAIN) => {
                        self.card_is_full = true;
                        return Ok(());
                    }
                    // Whether it is gone is seen where it is read from.
                    Ok(_) | Err(_) => self.incoming.taken(),
                }
            }
            self.card_is_full = false;
            match recv(&self.passt, self.incoming.room(), RecvFlags::DONTWAIT) {
                Ok((0, _)) => return Err(RelayError::Ended),
                Ok((count, _)) => self.incoming.filled(count),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::CONNRESET) => return Err(RelayError::Ended),
                Err(error) => return Err(io::Error::from(error).into()),
            }
        }
    }
}

/// The frame in a card's packet that leaves nothing to be done by others.
fn plain(untrusted_packet: &[u8]) -> Option<&[u8]> {
    let (header, frame) = untrusted_packet.split_at_checked(HEADER)?;
    // Flags and kind of segmentation.
    let is_plain = matches!(header, [0, 0, ..]);
    (is_plain && (MIN_FRAME..=MAX_FRAME).contains(&frame.len())).then_some(frame)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::thread;

    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    fn cable() -> (OwnedFd, OwnedFd) {
        let flags = SocketFlags::CLOEXEC;
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap()
    }

    fn packet(fill: u8, frame: usize) -> Vec<u8> {
        [vec![0; HEADER], vec![fill; frame]].concat()
    }

    fn take(card: &OwnedFd) -> Vec<u8> {
        let mut packet = [0; 4096];
        let (_, length) = recv(card, &mut packet[..], RecvFlags::empty()).unwrap();
        packet[..length].to_vec()
    }

    #[test]
    fn frames_go_both_ways_and_the_end_is_noticed() {
        let ((guest, card), (ours, mut passt)) = (cable(), UnixStream::pair().unwrap());
        let mut relay = Relay::new(card, ours.into()).unwrap();
        let running = thread::spawn(move || relay.run());
        assert_eq!(take(&guest), PLUGGED);
        // Neither of the first is a plain frame.
        let mut left_to_others = packet(1, 60);
        left_to_others[0] = 1;
        for wrong in [left_to_others, packet(2, 13), packet(3, 1519), vec![0; 5]] {
            send(&guest, &wrong, SendFlags::empty()).unwrap();
        }
        for length in [14, 60, 1514] {
            send(&guest, &packet(7, length), SendFlags::empty()).unwrap();
            let mut framed = vec![0; 4 + length];
            passt.read_exact(&mut framed).unwrap();
            assert_eq!(framed[..4], (length as u32).to_be_bytes());
            assert_eq!(framed[4..], vec![7; length]);
        }
        // More than fits anywhere: it waits, and nothing is lost.
        let mut writer = passt.try_clone().unwrap();
        let sending = thread::spawn(move || {
            for number in 0..4000_u32 {
                let frame = [vec![9; 1000], number.to_be_bytes().to_vec()].concat();
                writer.write_all(&1004_u32.to_be_bytes()).unwrap();
                writer.write_all(&frame).unwrap();
            }
        });
        for number in 0..4000_u32 {
            let packet = take(&guest);
            assert_eq!(packet.len(), HEADER + 1004);
            assert_eq!(packet[HEADER + 1000..], number.to_be_bytes());
        }
        sending.join().unwrap();
        drop(guest);
        running.join().unwrap().unwrap();
    }

    #[test]
    fn a_passt_that_is_gone_or_talks_nonsense_is_the_end() {
        for nonsense in [None, Some(u32::MAX)] {
            let ((_guest, card), (ours, mut passt)) = (cable(), UnixStream::pair().unwrap());
            let mut relay = Relay::new(card, ours.into()).unwrap();
            match nonsense {
                Some(length) => passt.write_all(&length.to_be_bytes()).unwrap(),
                None => drop(passt.shutdown(std::net::Shutdown::Both)),
            }
            let error = relay.run().unwrap_err();
            match nonsense {
                Some(_) => assert!(matches!(error, RelayError::Broken(_)), "{error}"),
                None => assert!(matches!(error, RelayError::Ended), "{error}"),
            }
        }
    }
}
