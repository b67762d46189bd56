//! COM1: a 16550 whose output goes to a file. It exists for early kernel messages; the guest's
//! console is virtio.

use std::fs::File;
use std::io::{self, Write};

use vm_superio::serial::NoEvents;
use vm_superio::{Serial, Trigger};
use vmm_sys_util::eventfd::EventFd;

use crate::bus::BusDevice;

/// A guest could fill the host's disk with messages: the log of one run ends here.
const LOG_LIMIT_BYTES: u64 = 16 << 20;

/// The port's ports.
pub const LENGTH: u64 = 8;

/// Raises the port's interrupt.
pub struct Line(pub EventFd);

impl Trigger for Line {
    type E = io::Error;
    fn trigger(&self) -> io::Result<()> {
        self.0.write(1)
    }
}

/// Where output goes: a file up to a limit, or nowhere.
struct Log {
    file: Option<File>,
    left: u64,
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(file) = &mut self.file else {
            return Ok(bytes.len());
        };
        self.left = self.left.saturating_sub(bytes.len() as u64);
        if self.left == 0 {
            let _ = writeln!(file, "\n[the log ends here: {LOG_LIMIT_BYTES} bytes]");
            tracing::warn!("the serial log reached its limit; later output is dropped");
            self.file = None;
        } else if let Err(error) = file.write_all(bytes) {
            tracing::warn!("the serial log cannot be written: {error}; later output is dropped");
            self.file = None;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The serial port.
pub struct SerialPort(Serial<Line, NoEvents, Log>);

impl SerialPort {
    /// A port with its interrupt and log.
    pub fn new(line: Line, file: Option<File>) -> Self {
        Self(Serial::new(
            line,
            Log {
                file,
                left: LOG_LIMIT_BYTES,
            },
        ))
    }
}

impl BusDevice for SerialPort {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        if let [byte] = data {
            *byte = self.0.read(offset as u8);
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        if let [byte] = data
            && let Err(error) = self.0.write(offset as u8, *byte)
        {
            tracing::debug!("serial port: {error:?}");
        }
    }
}
