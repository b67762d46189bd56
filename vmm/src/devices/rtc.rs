//! The CMOS clock (MC146818): the host's time in UTC. Without it Linux waits for almost three
//! seconds while it starts. Alarms and memory are not offered, and writes do not set the clock.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::bus::BusDevice;

/// The register that holds the century, named in the FADT.
pub const CENTURY_REGISTER: u8 = 0x32;
const STATUS_A: u8 = 0x0a;
const STATUS_B: u8 = 0x0b;
const STATUS_D: u8 = 0x0d;

/// The two ports of the clock.
#[derive(Default)]
pub struct Rtc {
    index: u8,
}

impl Rtc {
    /// Index and data.
    pub const LENGTH: u64 = 2;

    fn register(&self) -> u8 {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |time| time.as_secs());
        register_at(self.index, now)
    }
}

impl BusDevice for Rtc {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        if let (1, [byte]) = (offset, data) {
            *byte = self.register();
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        if let (0, [index, ..]) = (offset, data) {
            self.index = index & 0x7f;
        }
    }
}

fn register_at(index: u8, unix_seconds: u64) -> u8 {
    let time = libc::time_t::try_from(unix_seconds).unwrap_or(0);
    // SAFETY: all fields of `tm` are integers and a pointer, for which zero is a value.
    let mut tm: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live values; gmtime_r keeps neither.
    if unsafe { libc::gmtime_r(&time, &mut tm) }.is_null() {
        return 0;
    }
    let year = tm.tm_year + 1900;
    let value = match index {
        0x00 => tm.tm_sec.min(59),
        0x02 => tm.tm_min,
        0x04 => tm.tm_hour,
        0x06 => tm.tm_wday + 1,
        0x07 => tm.tm_mday,
        0x08 => tm.tm_mon + 1,
        0x09 => year % 100,
        CENTURY_REGISTER => year / 100,
        STATUS_A => return 0x26, // 32.768 kHz, no update in progress
        STATUS_B => return 0x02, // 24 hours, BCD
        STATUS_D => return 0x80, // the battery is good
        _ => return 0,
    };
    let value = value.clamp(0, 99) as u8;
    ((value / 10) << 4) | (value % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_moment_in_bcd() {
        // 2024-02-29 23:59:58 UTC, a Thursday
        let registers = [0x32, 9, 8, 7, 6, 4, 2, 0].map(|index| register_at(index, 1_709_251_198));
        assert_eq!(registers, [0x20, 0x24, 0x02, 0x29, 0x05, 0x23, 0x59, 0x58]);
        assert_eq!(register_at(0x7f, 0), 0);
        register_at(9, u64::MAX);
    }
}
