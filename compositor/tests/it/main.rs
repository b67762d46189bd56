//! The real compositor, drawing in memory, and real Wayland clients: one test for each promise.

mod clients;
mod fixture;
mod told;

mod borders;
mod control;
mod crossing;
mod dragging;
mod drags;
mod fuzz;
mod globals;
mod host;
mod hostile;
mod input;
mod popups;
mod quotas;
mod selections;
mod windows;
