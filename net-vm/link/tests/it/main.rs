//! The real program between real sockets.

mod checker;
mod control;
mod fixture;
mod flow;
mod frames;
mod fuzz;
mod isolation;
mod kernel;
mod ring;
