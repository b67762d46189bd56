//! Streams that nobody honest writes: each is refused, and leaves the incoming folder as it was.

#[path = "../common/mod.rs"]
mod common;
mod damage;
mod names;
mod sizes;
mod streams;
