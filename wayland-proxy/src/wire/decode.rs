//! Taking a message apart.

use std::collections::VecDeque;

use wayland_backend::protocol::{AllowNull, ArgumentType};

/// Why a message cannot be understood. Each ends the connection it came from.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum WireError {
    /// The header names a size that no message can have.
    #[error("a message claims a size of {0} bytes")]
    BadSize(usize),
    /// The arguments need more bytes than the message has.
    #[error("a message ends in the middle of an argument")]
    Short,
    /// The message has more bytes than its arguments need.
    #[error("a message has {0} bytes more than its arguments")]
    TrailingBytes(usize),
    /// A string is not NUL-terminated, or has a NUL in its middle.
    #[error("a string argument is not terminated by its only NUL")]
    BadString,
    /// Null where the protocol does not allow it.
    #[error("a null argument where the protocol allows none")]
    Null,
    /// The descriptor that belongs to the message has not arrived with it.
    #[error("a file descriptor is missing")]
    MissingDescriptor,
    /// The message that the proxy would have to write is larger than the format allows.
    #[error("a message would be larger than 65532 bytes")]
    TooLarge,
}

/// One argument. `F` is what stands for a descriptor: a file on the application's side, an
/// identifier of the channel on the host's.
#[derive(Debug)]
pub enum Arg<'a, F> {
    /// A signed number.
    Int(i32),
    /// An unsigned number.
    Uint(u32),
    /// A number with 8 bits of fraction, as it came.
    Fixed(u32),
    /// A string without its terminating NUL, `None` for null. Not necessarily UTF-8.
    Str(Option<&'a [u8]>),
    /// The id of an object, 0 for null.
    Object(u32),
    /// The id of an object that this message makes.
    NewId(u32),
    /// Bytes.
    Array(&'a [u8]),
    /// A descriptor.
    Fd(F),
}

/// Reads words from a message's body.
#[derive(Debug)]
pub struct Decoder<'a> {
    rest: &'a [u8],
}

impl<'a> Decoder<'a> {
    /// A decoder of a message without its header.
    pub fn new(untrusted_body: &'a [u8]) -> Self {
        Self {
            rest: untrusted_body,
        }
    }

    fn uint(&mut self) -> Result<u32, WireError> {
        let (word, rest) = self.rest.split_first_chunk::<4>().ok_or(WireError::Short)?;
        self.rest = rest;
        Ok(u32::from_ne_bytes(*word))
    }

    fn bytes(&mut self, untrusted_len: usize) -> Result<&'a [u8], WireError> {
        let padded = untrusted_len
            .checked_next_multiple_of(4)
            .ok_or(WireError::Short)?;
        if padded > self.rest.len() {
            return Err(WireError::Short);
        }
        let (taken, rest) = self.rest.split_at(padded);
        self.rest = rest;
        taken.get(..untrusted_len).ok_or(WireError::Short)
    }

    fn string(&mut self) -> Result<Option<&'a [u8]>, WireError> {
        let len = self.uint()? as usize;
        if len == 0 {
            return Ok(None);
        }
        match self.bytes(len)?.split_last() {
            Some((0, text)) if !text.contains(&0) => Ok(Some(text)),
            _ => Err(WireError::BadString),
        }
    }
}

/// Takes the arguments of one message apart, by its signature from the generated tables.
///
/// Descriptors are taken from the front of `fds`. When the message turns out to be broken after
/// that, they are closed with the arguments that hold them: the connection ends anyway.
pub fn decode<'a, F>(
    signature: &[ArgumentType],
    untrusted_body: &'a [u8],
    fds: &mut VecDeque<F>,
) -> Result<Vec<Arg<'a, F>>, WireError> {
    let mut decoder = Decoder::new(untrusted_body);
    let mut args = Vec::with_capacity(signature.len());
    for kind in signature {
        args.push(match kind {
            ArgumentType::Int => Arg::Int(decoder.uint()?.cast_signed()),
            ArgumentType::Uint => Arg::Uint(decoder.uint()?),
            ArgumentType::Fixed => Arg::Fixed(decoder.uint()?),
            ArgumentType::Str(allow) => {
                let text = decoder.string()?;
                if text.is_none() && matches!(allow, AllowNull::No) {
                    return Err(WireError::Null);
                }
                Arg::Str(text)
            }
            ArgumentType::Object(allow) => {
                let id = decoder.uint()?;
                if id == 0 && matches!(allow, AllowNull::No) {
                    return Err(WireError::Null);
                }
                Arg::Object(id)
            }
            ArgumentType::NewId => {
                let id = decoder.uint()?;
                if id == 0 {
                    return Err(WireError::Null);
                }
                Arg::NewId(id)
            }
            ArgumentType::Array => {
                let len = decoder.uint()? as usize;
                Arg::Array(decoder.bytes(len)?)
            }
            ArgumentType::Fd => Arg::Fd(fds.pop_front().ok_or(WireError::MissingDescriptor)?),
        });
    }
    match decoder.rest.len() {
        0 => Ok(args),
        extra => Err(WireError::TrailingBytes(extra)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Header, MessageWriter};
    use proptest::prelude::*;

    fn kind() -> impl Strategy<Value = ArgumentType> {
        prop_oneof![
            Just(ArgumentType::Int),
            Just(ArgumentType::Uint),
            Just(ArgumentType::Fixed),
            Just(ArgumentType::Str(AllowNull::Yes)),
            Just(ArgumentType::Str(AllowNull::No)),
            Just(ArgumentType::Object(AllowNull::Yes)),
            Just(ArgumentType::NewId),
            Just(ArgumentType::Array),
            Just(ArgumentType::Fd),
        ]
    }

    proptest! {
        /// Any bytes under any signature give arguments or an error, never a panic.
        #[test]
        fn any_bytes(
            signature in prop::collection::vec(kind(), 0..8),
            body in prop::collection::vec(any::<u8>(), 0..256),
            fds in 0usize..4,
        ) {
            let mut fds: VecDeque<u32> = (0..fds as u32).collect();
            let _ = decode(&signature, &body, &mut fds);
            let _ = Header::read(&body);
        }

        /// What was decoded and is written again is the same message.
        #[test]
        fn round_trip(
            number in any::<u32>(),
            text in "[a-z]{0,40}",
            array in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let mut out = Vec::new();
            let mut writer = MessageWriter::new(&mut out, 7, 3);
            writer.uint(number);
            writer.string(Some(text.as_bytes()));
            writer.array(&array);
            writer.string(None);
            writer.finish().unwrap();
            let header = Header::read(&out).unwrap().unwrap();
            prop_assert_eq!(header, Header { object: 7, opcode: 3, size_bytes: out.len() });
            let signature = [
                ArgumentType::Uint,
                ArgumentType::Str(AllowNull::No),
                ArgumentType::Array,
                ArgumentType::Str(AllowNull::Yes),
            ];
            let mut none: VecDeque<u32> = VecDeque::new();
            let args = decode(&signature, &out[8..], &mut none).unwrap();
            prop_assert!(matches!(args[0], Arg::Uint(n) if n == number));
            prop_assert!(matches!(args[1], Arg::Str(Some(t)) if t == text.as_bytes()));
            prop_assert!(matches!(args[2], Arg::Array(a) if a == array));
            prop_assert!(matches!(args[3], Arg::Str(None)));
        }
    }

    #[test]
    fn lengths_beyond_the_message_are_refused() {
        let mut none: VecDeque<u32> = VecDeque::new();
        for len in [5u32, 0x7fff_ffff, u32::MAX, u32::MAX - 2] {
            let mut body = len.to_ne_bytes().to_vec();
            body.extend_from_slice(b"abc\0");
            for kind in [ArgumentType::Array, ArgumentType::Str(AllowNull::Yes)] {
                assert_eq!(
                    decode(&[kind], &body, &mut none).unwrap_err(),
                    WireError::Short
                );
            }
        }
    }

    #[test]
    fn strings_end_with_their_only_nul() {
        let mut none: VecDeque<u32> = VecDeque::new();
        let signature = [ArgumentType::Str(AllowNull::No)];
        for text in [b"abcd", b"a\0b\0"] {
            let mut body = 4u32.to_ne_bytes().to_vec();
            body.extend_from_slice(text);
            assert_eq!(
                decode(&signature, &body, &mut none).unwrap_err(),
                WireError::BadString
            );
        }
    }
}
