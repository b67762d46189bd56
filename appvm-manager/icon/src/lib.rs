//! `bulkhead-icon`: decodes one icon from a template, PNG or SVG, in a process that can do nothing
//! else.
//!
//! Decoders of pictures are large, and a template's pictures come from strangers. So the manager
//! starts this program for each picture: bytes on standard input, 48×48 pixels (red, green, blue,
//! alpha; straight alpha) on standard output, nothing else.
//!
//! It trusts nobody. Before it reads the first byte it gives up everything ([`sandbox`]): it can
//! open no file and no socket, start no program, and use one second of processor time and a bounded
//! amount of memory. Whatever a picture makes of it, the manager sees a process that failed, or
//! 9,216 bytes, which are a picture whatever they are. It must never be given a descriptor other
//! than the three standard ones.
//!
//! Start reading at [`decode`].

pub mod decode;
pub mod error;
pub mod sandbox;

mod bitmap;
mod scale;
mod vector;

/// Width and height of the result, in pixels.
pub const SIZE: u32 = 48;
/// The longest input. A longer one is refused before it is looked at.
pub const MAX_INPUT: usize = 256 * 1024;
/// The longest side of a picture that is decoded, in pixels. Icons are smaller; a bomb is not.
pub const MAX_SIDE: u32 = 1024;
