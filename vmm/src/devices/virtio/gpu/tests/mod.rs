//! The whole device, driven through its queues, with a real socket for the compositor.

mod driver;
mod faults;
mod fuzz;
mod paths;
