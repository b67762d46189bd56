//! Why there is no screen.

/// Why the desktop cannot be shown on a screen of its own.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ScreenError {
    #[error(
        "cannot take the seat: {0}; is seatd running, may this user use its socket (on Debian: is the user in the group 'video'), and has no other desktop the seat?"
    )]
    Seat(String),
    #[error(
        "the seat was lost: the program that gave it (seatd) ended; start it, and then this one"
    )]
    SeatLost,
    #[error("cannot ask udev for devices: {0}; is /sys mounted?")]
    Udev(std::io::Error),
    #[error(
        "no graphics device: looked for /dev/dri/card* of {seat} for {waited_s} s; load its driver (in QEMU virtio-gpu; 'dmesg | grep drm' shows what the kernel found), or use '--backend headless'"
    )]
    NoDevice { seat: String, waited_s: u64 },
    #[error("no graphics device can show the desktop: {0}; does another program use the screen?")]
    NoUsableDevice(String),
    #[error("cannot take the keyboards and pointers of {0}; is udev running?")]
    Input(String),
    #[error("cannot draw: {0}")]
    Renderer(String),
    #[error("the event loop failed: {0}")]
    EventLoop(String),
}

/// For errors of the event loop.
pub(super) fn event_loop(error: impl std::fmt::Display) -> ScreenError {
    ScreenError::EventLoop(error.to_string())
}
