//! The power button, and the orderly end of the guest.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use bulkhead_protocol::Power;

use crate::console::say;
use crate::mounts;
use crate::reaper::Reaper;

/// How long programs have to end by themselves.
const PATIENCE: Duration = Duration::from_secs(3);
/// Linux's `struct input_event` on 64-bit machines.
const EVENT_BYTES: usize = 24;
const EV_KEY: u16 = 1;
const KEY_POWER: u16 = 116;

static GOING_DOWN: AtomicBool = AtomicBool::new(false);

/// Whether the end has begun; what ends now is not started again.
pub fn is_going_down() -> bool {
    GOING_DOWN.load(Ordering::SeqCst)
}

/// Watches every input device for the power key, a thread each.
pub fn watch_button(reaper: &Reaper) {
    let Ok(devices) = fs::read_dir("/dev/input") else {
        return;
    };
    for device in devices.flatten() {
        if !device.file_name().as_encoded_bytes().starts_with(b"event") {
            continue;
        }
        let Ok(mut file) = File::open(device.path()) else {
            continue;
        };
        if !has_power_key(&file) {
            continue;
        }
        let reaper = reaper.clone();
        let result = thread::Builder::new()
            .name("power-button".into())
            .spawn(move || {
                let mut event = [0; EVENT_BYTES];
                while file.read_exact(&mut event).is_ok() {
                    if is_power_press(&event) {
                        go_down(&reaper, Power::Off);
                    }
                }
            });
        if let Err(error) = result {
            say(&format!("thread: {error}"));
        }
    }
}

/// Whether an input device can send KEY_POWER at all.
fn has_power_key(file: &File) -> bool {
    let mut keys = [0u8; 96];
    // EVIOCGBIT(EV_KEY, 96): read, type 'E', number 0x20 + EV_KEY.
    let request: libc::c_ulong = (2 << 30) | (96 << 16) | (0x45 << 8) | 0x21;
    // SAFETY: the buffer has the 96 bytes that the request names.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), request, keys.as_mut_ptr()) };
    let (byte, bit) = (usize::from(KEY_POWER) / 8, KEY_POWER % 8);
    result >= 0 && keys.get(byte).is_some_and(|byte| byte & (1 << bit) != 0)
}

fn is_power_press(event: &[u8; EVENT_BYTES]) -> bool {
    let kind = u16::from_ne_bytes([event[16], event[17]]);
    let code = u16::from_ne_bytes([event[18], event[19]]);
    let value = i32::from_ne_bytes([event[20], event[21], event[22], event[23]]);
    kind == EV_KEY && code == KEY_POWER && value == 1
}

/// Ends all programs, writes everything to disk and switches off. It returns only to callers
/// that come while another one does it.
pub fn go_down(reaper: &Reaper, how: Power) {
    if GOING_DOWN.swap(true, Ordering::SeqCst) {
        return;
    }
    say("going down");
    // SAFETY: no pointers. As PID 1 this reaches every process but us.
    unsafe { libc::kill(-1, libc::SIGTERM) };
    // Shells ignore SIGTERM at a prompt, but not the end of their terminal.
    // SAFETY: as above.
    unsafe { libc::kill(-1, libc::SIGHUP) };
    if !reaper.wait_until_alone(PATIENCE) {
        // SAFETY: as above.
        unsafe { libc::kill(-1, libc::SIGKILL) };
        reaper.wait_until_alone(Duration::from_secs(1));
    }
    // SAFETY: no arguments.
    unsafe { libc::sync() };
    if Path::new("/home").exists() {
        mounts::unmount(Path::new("/home"));
    }
    let request = match how {
        Power::Off => libc::RB_POWER_OFF,
        Power::Reboot => libc::RB_AUTOBOOT,
    };
    // SAFETY: no pointers; everything was written.
    unsafe { libc::reboot(request) };
    say("the kernel refused to switch off");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_press_of_the_power_key_counts() {
        let event = |kind: u16, code: u16, value: i32| {
            let mut bytes = [0; EVENT_BYTES];
            bytes[16..18].copy_from_slice(&kind.to_ne_bytes());
            bytes[18..20].copy_from_slice(&code.to_ne_bytes());
            bytes[20..].copy_from_slice(&value.to_ne_bytes());
            bytes
        };
        assert!(is_power_press(&event(EV_KEY, KEY_POWER, 1)));
        assert!(!is_power_press(&event(EV_KEY, KEY_POWER, 0)));
        assert!(!is_power_press(&event(EV_KEY, 30, 1)));
        assert!(!is_power_press(&event(0, 0, 0)));
    }
}
