//! The whole device, driven through its queues, with a real socket for the compositor. Every test
//! runs with both backends.

// The same files twice is the point: they take `machine` from the `driver` beside them.
#![allow(clippy::duplicate_mod)]

pub mod driver;

macro_rules! with_backend {
    ($name:ident, $backend:ident) => {
        #[path = "."]
        mod $name {
            mod driver {
                use bulkhead_vmm_api::{GpuBackend, GpuConfig};

                pub use super::super::driver::*;

                pub fn machine() -> Machine {
                    machine_with(|_| {})
                }

                pub fn machine_with(change: impl FnOnce(&mut GpuConfig)) -> Machine {
                    super::super::driver::machine_with(|config| {
                        config.backend = GpuBackend::$backend;
                        change(config);
                    })
                }
            }
            #[path = "faults.rs"]
            mod faults;
            #[path = "fuzz.rs"]
            mod fuzz;
            #[path = "paths.rs"]
            mod paths;
        }
    };
}

with_backend!(native, Native);
with_backend!(rutabaga, Rutabaga);
