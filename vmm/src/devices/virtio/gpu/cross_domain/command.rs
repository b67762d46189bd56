//! The commands that a guest puts into an execbuffer, checked before any of them runs.
//!
//! The layout is that of the cross-domain protocol of rutabaga_gfx, version 1. A buffer with one
//! malformed command is refused as a whole.

use super::super::protocol::u32_at;

/// An execbuffer is no longer than this: it bounds what one request makes us copy.
pub const MAX_BUFFER_BYTES: usize = 256 << 10;
/// Bytes of a command's header.
pub const HEADER_BYTES: usize = 8;
/// Bytes before the data of a SEND and of a RECEIVE.
pub const SEND_BYTES: usize = 352;
/// Bytes before the data of a WRITE and of a READ.
pub const WRITE_BYTES: usize = 24;
/// Descriptors in one SEND or RECEIVE.
pub const MAX_IDENTIFIERS: usize = 28;
/// Identifier type: a blob resource.
pub const ID_BLOB: u32 = 1;
/// Identifier type: a pipe that the guest reads from.
pub const ID_READ_PIPE: u32 = 3;
/// Identifier type: a pipe that the guest writes to.
pub const ID_WRITE_PIPE: u32 = 4;
/// The channel type that we offer.
pub const CHANNEL_WAYLAND: u32 = 1;

const INIT: u8 = 1;
const GET_IMAGE_REQUIREMENTS: u8 = 2;
const POLL: u8 = 3;
const SEND: u8 = 4;
/// Sent by us.
pub const RECEIVE: u8 = 5;
/// Sent by us.
pub const READ: u8 = 6;
const WRITE: u8 = 7;

const IMAGE_BYTES: usize = 24;
/// INIT without a channel ring, with one, and with a socket's identifier.
const INIT_SIZES: [usize; 3] = [16, 20, 36];

/// What is wrong with a command buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// Bytes at the end that are no command, or a buffer that is too long.
    #[error("a command buffer of {0} bytes does not consist of whole commands")]
    Buffer(usize),
    /// `cmd_size` is smaller than the command or larger than the buffer. (With rutabaga a size of
    /// 0 is an endless loop.)
    #[error("command {command} has the impossible size {size}")]
    Size {
        /// The command's number.
        command: u8,
        /// Its `cmd_size`.
        size: usize,
    },
    /// Data longer than the command that carries it, or none where there must be some.
    #[error("command {command} cannot carry {data} bytes of data")]
    Data {
        /// The command's number.
        command: u8,
        /// Its `opaque_data_size`.
        data: u32,
    },
    /// More descriptors than the protocol has room for.
    #[error("a SEND with {0} descriptors")]
    TooManyIdentifiers(u32),
    /// A kind of descriptor that guests may not send.
    #[error("a SEND with a descriptor of type {0}")]
    IdentifierType(u32),
    /// A command that we do not offer.
    #[error("command {0} is not offered")]
    Unknown(u8),
}

/// A descriptor that goes to the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identifier {
    /// The memory of this resource.
    Blob(u32),
    /// The write end of a new pipe; the guest will know its read end by this number.
    ReadPipe(u32),
}

/// One command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// Connect to the compositor.
    Init {
        /// The resource that takes the answers to `ImageRequirements`.
        query_ring: u32,
        /// The resource that takes everything else.
        channel_ring: u32,
        /// [`CHANNEL_WAYLAND`] or something that we do not have.
        channel_type: u32,
    },
    /// How large is an image, and by which number can it be made?
    ImageRequirements {
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
        /// A DRM fourcc.
        format: u32,
    },
    /// Deliver one message; the fence of the request tells when.
    Poll,
    /// Bytes for the compositor.
    Send {
        /// Descriptors that go with the first byte.
        identifiers: Vec<Identifier>,
        /// At least one byte.
        data: &'a [u8],
    },
    /// Bytes for a pipe.
    Write {
        /// The pipe.
        pipe: u32,
        /// Whether the pipe ends after them.
        hang_up: bool,
        /// May be empty.
        data: &'a [u8],
    },
}

/// The commands of a buffer, one after the other. After an error it ends.
pub struct Commands<'a> {
    rest: &'a [u8],
}

impl<'a> Commands<'a> {
    /// Starts to read `untrusted`.
    pub fn new(untrusted: &'a [u8]) -> Self {
        Self { rest: untrusted }
    }

    /// Whether every command of the buffer is well formed.
    pub fn check(untrusted: &[u8]) -> Result<(), CommandError> {
        if untrusted.len() > MAX_BUFFER_BYTES {
            return Err(CommandError::Buffer(untrusted.len()));
        }
        Commands::new(untrusted).try_for_each(|command| command.map(drop))
    }
}

impl<'a> Iterator for Commands<'a> {
    type Item = Result<Command<'a>, CommandError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.len() < HEADER_BYTES {
            let padding = std::mem::take(&mut self.rest);
            return padding
                .iter()
                .any(|byte| *byte != 0)
                .then_some(Err(CommandError::Buffer(padding.len())));
        }
        match parse(self.rest) {
            Ok((command, rest)) => {
                self.rest = rest;
                Some(Ok(command))
            }
            Err(error) => {
                self.rest = &[];
                Some(Err(error))
            }
        }
    }
}

fn parse(untrusted: &[u8]) -> Result<(Command<'_>, &[u8]), CommandError> {
    let short = CommandError::Buffer(untrusted.len());
    let (&[number, _, low, high], _) = untrusted.split_first_chunk::<4>().ok_or(short)?;
    let size = usize::from(u16::from_le_bytes([low, high]));
    let wrong_size = CommandError::Size {
        command: number,
        size,
    };
    let least = match number {
        INIT if INIT_SIZES.contains(&size) => size,
        INIT => return Err(wrong_size),
        GET_IMAGE_REQUIREMENTS => IMAGE_BYTES,
        POLL => HEADER_BYTES,
        SEND => SEND_BYTES,
        WRITE => WRITE_BYTES,
        unknown => return Err(CommandError::Unknown(unknown)),
    };
    if size < least {
        return Err(wrong_size);
    }
    let (bytes, rest) = untrusted.split_at_checked(size).ok_or(wrong_size)?;
    // `bytes` holds at least `least` bytes, so no field below is missing.
    let word = |offset: usize| u32_at(bytes, offset).ok_or(wrong_size);
    let data = |at: usize, length: u32| {
        usize::try_from(length)
            .ok()
            .and_then(|length| bytes.get(at..at.checked_add(length)?))
            .ok_or(CommandError::Data {
                command: number,
                data: length,
            })
    };
    let command = match number {
        INIT => Command::Init {
            query_ring: word(8)?,
            channel_ring: word(if size == 16 { 8 } else { 12 })?,
            channel_type: word(if size == 16 { 12 } else { 16 })?,
        },
        GET_IMAGE_REQUIREMENTS => Command::ImageRequirements {
            width: word(8)?,
            height: word(12)?,
            format: word(16)?,
        },
        POLL => Command::Poll,
        SEND => {
            let length = word(12)?;
            if length == 0 {
                return Err(CommandError::Data {
                    command: number,
                    data: 0,
                });
            }
            Command::Send {
                identifiers: identifiers(bytes)?,
                data: data(SEND_BYTES, length)?,
            }
        }
        _ => Command::Write {
            pipe: word(8)?,
            hang_up: word(12)? != 0,
            data: data(WRITE_BYTES, word(16)?)?,
        },
    };
    Ok((command, rest))
}

/// The descriptors of a SEND, which is at least [`SEND_BYTES`] long.
fn identifiers(bytes: &[u8]) -> Result<Vec<Identifier>, CommandError> {
    let untrusted_count = u32_at(bytes, 8).unwrap_or(u32::MAX);
    let count = usize::try_from(untrusted_count)
        .ok()
        .filter(|count| *count <= MAX_IDENTIFIERS)
        .ok_or(CommandError::TooManyIdentifiers(untrusted_count))?;
    (0..count)
        .map(|index| {
            let number = u32_at(bytes, 16 + index * 4).unwrap_or(0);
            let kind = u32_at(bytes, 16 + (MAX_IDENTIFIERS + index) * 4).unwrap_or(0);
            match kind {
                ID_BLOB => Ok(Identifier::Blob(number)),
                ID_READ_PIPE => Ok(Identifier::ReadPipe(number)),
                other => Err(CommandError::IdentifierType(other)),
            }
        })
        .collect()
}

/// INIT for the Wayland channel.
pub fn init(query_ring: u32, channel_ring: u32) -> Vec<u8> {
    finish(INIT, &[query_ring, channel_ring, CHANNEL_WAYLAND], &[])
}

/// GET_IMAGE_REQUIREMENTS.
pub fn image_requirements(width: u32, height: u32, format: [u8; 4]) -> Vec<u8> {
    let words = [width, height, u32::from_le_bytes(format), 0];
    finish(GET_IMAGE_REQUIREMENTS, &words, &[])
}

/// SEND, with at most 28 descriptors.
pub fn send(identifiers: &[Identifier], data: &[u8]) -> Vec<u8> {
    let mut words = [0; 2 + 3 * MAX_IDENTIFIERS];
    words[0] = identifiers.len() as u32;
    words[1] = data.len() as u32;
    for (index, identifier) in identifiers.iter().take(MAX_IDENTIFIERS).enumerate() {
        let (number, kind) = match *identifier {
            Identifier::Blob(number) => (number, ID_BLOB),
            Identifier::ReadPipe(number) => (number, ID_READ_PIPE),
        };
        words[2 + index] = number;
        words[2 + MAX_IDENTIFIERS + index] = kind;
    }
    finish(SEND, &words, data)
}

/// WRITE.
pub fn write(pipe: u32, hang_up: bool, data: &[u8]) -> Vec<u8> {
    let words = [pipe, u32::from(hang_up), data.len() as u32, 0];
    finish(WRITE, &words, data)
}

/// A command of these fields and data. What we make ourselves fits, as it was taken from a command
/// of the guest's.
fn finish(number: u8, words: &[u32], data: &[u8]) -> Vec<u8> {
    let size = HEADER_BYTES + words.len() * 4 + data.len();
    let [low, high] = u16::try_from(size).unwrap_or(u16::MAX).to_le_bytes();
    let mut bytes = Vec::with_capacity(size);
    bytes.extend([number, 0, low, high, 0, 0, 0, 0]);
    bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    bytes.extend(data);
    bytes
}

/// A RECEIVE's fixed part. `identifiers` are (number, type, size), at most 28.
pub fn receive_header(identifiers: &[(u32, u32, u32)], data: u32) -> [u8; SEND_BYTES] {
    let mut bytes = [0; SEND_BYTES];
    bytes[0] = RECEIVE;
    let count = u32::try_from(identifiers.len()).unwrap_or(0);
    bytes[8..12].copy_from_slice(&count.to_le_bytes());
    bytes[12..16].copy_from_slice(&data.to_le_bytes());
    for (index, (number, kind, size)) in identifiers.iter().take(MAX_IDENTIFIERS).enumerate() {
        for (row, value) in [number, kind, size].into_iter().enumerate() {
            let at = 16 + (row * MAX_IDENTIFIERS + index) * 4;
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
    }
    bytes
}

/// A READ's fixed part.
pub fn read_header(pipe: u32, hang_up: bool, data: u32) -> [u8; WRITE_BYTES] {
    let mut bytes = [0; WRITE_BYTES];
    bytes[0] = READ;
    bytes[8..12].copy_from_slice(&pipe.to_le_bytes());
    bytes[12..16].copy_from_slice(&u32::from(hang_up).to_le_bytes());
    bytes[16..20].copy_from_slice(&data.to_le_bytes());
    bytes
}

/// The capability set: version 1, Wayland, no dma-buf, no memory of a GPU.
pub fn capabilities() -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[0..4].copy_from_slice(&1u32.to_le_bytes());
    bytes[4..8].copy_from_slice(&(1u32 << CHANNEL_WAYLAND).to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn send(count: u32, kind: u32) -> Vec<u8> {
        let size = (SEND_BYTES + 4) as u16;
        let mut bytes = vec![0; SEND_BYTES + 4];
        bytes[0] = SEND;
        bytes[2..4].copy_from_slice(&size.to_le_bytes());
        bytes[8..12].copy_from_slice(&count.to_le_bytes());
        bytes[12..16].copy_from_slice(&4u32.to_le_bytes());
        for index in 0..MAX_IDENTIFIERS {
            let at = 16 + (MAX_IDENTIFIERS + index) * 4;
            bytes[at..at + 4].copy_from_slice(&kind.to_le_bytes());
        }
        bytes
    }

    #[test]
    fn descriptors_are_counted_and_of_known_kinds() {
        assert_eq!(Commands::check(&send(28, ID_BLOB)), Ok(()));
        assert_eq!(Commands::check(&send(28, ID_READ_PIPE)), Ok(()));
        for count in [29, u32::MAX] {
            assert_eq!(
                Commands::check(&send(count, ID_BLOB)),
                Err(CommandError::TooManyIdentifiers(count))
            );
        }
        for kind in [0, 2, ID_WRITE_PIPE, 5, 6, 7, u32::MAX] {
            assert_eq!(
                Commands::check(&send(1, kind)),
                Err(CommandError::IdentifierType(kind))
            );
        }
    }

    #[test]
    fn buffers_end_where_their_commands_end() {
        let mut bytes = send(0, 0);
        bytes.extend([0; 7]);
        assert_eq!(Commands::check(&bytes), Ok(()), "padding");
        bytes.push(1);
        assert!(Commands::check(&bytes).is_err());
        assert_eq!(
            Commands::check(&[POLL, 0, 0, 0, 0, 0, 0, 0]),
            Err(CommandError::Size {
                command: POLL,
                size: 0
            })
        );
        let long = vec![0; MAX_BUFFER_BYTES + 1];
        assert_eq!(
            Commands::check(&long),
            Err(CommandError::Buffer(long.len()))
        );
    }

    #[test]
    fn what_we_say_has_the_protocols_layout() {
        let bytes = receive_header(&[(7, ID_BLOB, 100), (8, ID_WRITE_PIPE, 0)], 5);
        let word = |at| u32_at(&bytes, at);
        assert_eq!((bytes[0], word(8), word(12)), (RECEIVE, Some(2), Some(5)));
        assert_eq!((word(16), word(20)), (Some(7), Some(8)));
        assert_eq!((word(128), word(132)), (Some(ID_BLOB), Some(ID_WRITE_PIPE)));
        assert_eq!((word(240), word(244)), (Some(100), Some(0)));
        let bytes = read_header(0x8000_0001, true, 9);
        assert_eq!(u32_at(&bytes, 8), Some(0x8000_0001));
        assert_eq!((u32_at(&bytes, 12), u32_at(&bytes, 16)), (Some(1), Some(9)));
    }
}
