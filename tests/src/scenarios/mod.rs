//! Every end-to-end scenario, one question a file.

mod bad_input;
mod boot;
mod clipboard;
mod crossing;
mod half_message;
mod hostile_gpu;
mod hostile_wayland;
mod image;
mod isolation;
mod kill;
mod net;
mod performance;
mod pixels;
mod window;

use crate::e2e::Scenario;

/// All scenarios but [`long_only`], in the order they run.
pub fn all() -> Vec<Scenario> {
    vec![
        boot::SCENARIO,
        window::SCENARIO,
        isolation::SCENARIO,
        kill::SCENARIO,
        half_message::SCENARIO,
        clipboard::SCENARIO,
        pixels::SCENARIO,
        hostile_gpu::NATIVE,
        hostile_gpu::RUTABAGA,
        hostile_wayland::SCENARIO,
        bad_input::SCENARIO,
        crossing::disposables::SCENARIO,
        crossing::volumes::SCENARIO,
        crossing::standalone::SCENARIO,
        crossing::copy::SCENARIO,
        crossing::connect::SCENARIO,
        crossing::clipboard::SCENARIO,
        crossing::drag::SCENARIO,
        crossing::flood::SCENARIO,
        net::link::SCENARIO,
        net::nic::SCENARIO,
        net::outside::SCENARIO,
        net::lease::SCENARIO,
        net::rules::SCENARIO,
        net::host::SCENARIO,
        net::gateway::SCENARIO,
        net::tor::SCENARIO,
        net::wifi::SCENARIO,
        net::throughput::SCENARIO,
        performance::SCENARIO,
        image::menu::SCENARIO,
        image::desktop::SCENARIO,
        image::host::SCENARIO,
        image::tampered::SCENARIO,
        image::power_cut::SCENARIO,
        image::bad_disk::SMALL,
        image::bad_disk::DAMAGED,
        image::bad_disk::NO_SCREEN,
        image::outputs::UNPLUGGED,
        image::reproducible::SCENARIO,
    ]
}

/// Scenarios that take minutes even at their small size: they run by name, and with `--long`.
pub fn long_only() -> Vec<Scenario> {
    vec![crossing::power_cut::SCENARIO]
}
