//! Hostile guest programs: what an attacker who owns a guest would try.
//!
//! They are static binaries that run inside a real guest. Each attack is named; it prints one line
//! of what it saw. Surviving is judged from outside, by the scenario that started it.

pub mod frames;
pub mod gpu;
pub mod wire;
