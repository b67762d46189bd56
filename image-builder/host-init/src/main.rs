//! PID 1 of the test host; see the library.

use bulkhead_host_init::{boot, children, server};

fn main() {
    if std::process::id() != 1 {
        eprintln!("bulkhead-host-init is the first process of an emulated machine, nothing else");
        std::process::exit(2);
    }
    let result = boot::prepare().and_then(|port| {
        children::start_reaper();
        server::serve(port)
    });
    if let Err(error) = result {
        eprintln!("bulkhead-host-init: {error}");
    }
    boot::power_off();
}
