//! passt's stream: before each frame its length, 32 bits with the highest first (as QEMU's socket
//! networks).

/// Two addresses and a type.
pub const MIN_FRAME: usize = 14;
/// The longest frame without segmentation: an Ethernet packet of 1500 bytes behind its addresses, and
/// a tag.
pub const MAX_FRAME: usize = 1518;
const LENGTH: usize = 4;
/// So much is read from the stream at once.
const ROOM: usize = 64 * 1024;

/// What came from the stream and is not a whole frame yet, or not taken yet.
#[derive(Debug)]
pub struct Incoming {
    bytes: Box<[u8]>,
    /// From where on it is not taken, and up to where it is filled.
    from: usize,
    to: usize,
}

/// The stream does not have its form any more: nobody knows where the next frame begins.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("passt announces a frame of {0} bytes")]
pub struct Broken(u32);

impl Incoming {
    /// Nothing yet.
    pub fn new() -> Self {
        Incoming {
            bytes: vec![0; ROOM].into_boxed_slice(),
            from: 0,
            to: 0,
        }
    }

    /// Where to put what comes next.
    pub fn room(&mut self) -> &mut [u8] {
        if self.from > 0 {
            self.bytes.copy_within(self.from..self.to, 0);
            (self.from, self.to) = (0, self.to - self.from);
        }
        self.bytes.get_mut(self.to..).unwrap_or_default()
    }

    /// So many bytes were put there.
    pub fn filled(&mut self, count: usize) {
        self.to = (self.to + count).min(self.bytes.len());
    }

    /// The next frame, if it is there whole.
    pub fn frame(&self) -> Result<Option<&[u8]>, Broken> {
        let untrusted = self.bytes.get(self.from..self.to).unwrap_or_default();
        let Some((length, rest)) = untrusted.split_first_chunk::<LENGTH>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*length);
        let bytes = usize::try_from(length).map_err(|_| Broken(length))?;
        // One frame always fits into the room.
        match (MIN_FRAME..=MAX_FRAME).contains(&bytes) {
            true => Ok(rest.get(..bytes)),
            false => Err(Broken(length)),
        }
    }

    /// The frame that is next was taken.
    pub fn taken(&mut self) {
        if let Ok(Some(frame)) = self.frame() {
            self.from += LENGTH + frame.len();
        }
    }
}

/// A frame as it goes into the stream.
pub fn framed(frame: &[u8], into: &mut Vec<u8>) {
    // Frames are checked to be short.
    let length = u32::try_from(frame.len()).unwrap_or(0);
    into.clear();
    into.extend(length.to_be_bytes());
    into.extend(frame);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// However the stream is cut, the same frames come out of it.
        #[test]
        fn frames_come_out_as_they_went_in(
            lengths in prop::collection::vec(MIN_FRAME..=MAX_FRAME, 1..40),
            cuts in prop::collection::vec(1_usize..5000, 1..40),
        ) {
            let frames: Vec<Vec<u8>> = lengths.iter().map(|length| vec![*length as u8; *length]).collect();
            let (mut stream, mut one) = (Vec::new(), Vec::new());
            for frame in &frames {
                framed(frame, &mut one);
                stream.extend(&one);
            }
            let (mut incoming, mut found) = (Incoming::new(), Vec::new());
            let mut rest = &stream[..];
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let room = incoming.room();
                let count = (*cut).min(rest.len()).min(room.len());
                room[..count].copy_from_slice(&rest[..count]);
                incoming.filled(count);
                rest = &rest[count..];
                while let Some(frame) = incoming.frame().unwrap() {
                    found.push(frame.to_vec());
                    incoming.taken();
                }
            }
            prop_assert_eq!(found, frames);
        }

        #[test]
        fn nothing_that_arrives_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut incoming = Incoming::new();
            incoming.room()[..bytes.len()].copy_from_slice(&bytes);
            incoming.filled(bytes.len());
            while let Ok(Some(_)) = incoming.frame() {
                incoming.taken();
            }
        }
    }

    #[test]
    fn lengths_that_cannot_be_break_the_stream() {
        for (length, broken) in [
            (13, true),
            (14, false),
            (1518, false),
            (1519, true),
            (u32::MAX, true),
        ] {
            let mut incoming = Incoming::new();
            incoming.room()[..4].copy_from_slice(&u32::to_be_bytes(length));
            incoming.filled(4);
            assert_eq!(incoming.frame() == Err(Broken(length)), broken, "{length}");
        }
    }
}
