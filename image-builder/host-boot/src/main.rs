//! PID 1 of the desktop's initramfs; see the library.

use bulkhead_host_boot::{boot, screen::Consoles, watch};

fn main() {
    if std::env::args().nth(1).as_deref() == Some(watch::ARGUMENT) {
        if let Err(error) = watch::run() {
            eprintln!("bulkhead-host-boot: {error}");
            std::process::exit(1);
        }
        return;
    }
    if std::process::id() != 1 {
        eprintln!("bulkhead-host-boot is the first process of the desktop's initramfs");
        std::process::exit(2);
    }
    // A bug must end in a message as well: the kernel's panic tells a person nothing.
    let text = match std::panic::catch_unwind(boot::run) {
        Ok(Err(error)) => error.to_string(),
        Err(_) => "This is a fault in bulkhead-host-boot. Please report it.".to_owned(),
    };
    Consoles::open().stop(boot::TITLE, &text);
}
