//! Switching off, the power button, and reset: the ACPI PM1 registers (ACPI 6.5, 4.8.3) and the
//! reset line of the keyboard controller.

use std::sync::Arc;

use kvm_ioctls::VmFd;

use crate::arch::acpi::{RESET_VALUE, SLEEP_TYPE_S5};
use crate::arch::layout::IRQ_SCI;
use crate::bus::BusDevice;
use crate::exit::{ExitReason, ExitSignal};

/// Ports of the PM1a event block (status, enable) and control block.
pub const PM1_LENGTH: u64 = 6;
const POWER_BUTTON: u16 = 1 << 8;
const SCI_ENABLE: u16 = 1;
const SLEEP_ENABLE: u16 = 1 << 13;

/// The SCI line: the VM's, or a test's.
pub trait SciLine: Send {
    /// Raises or lowers the line.
    fn set(&self, active: bool);
}

impl SciLine for Arc<VmFd> {
    fn set(&self, active: bool) {
        if let Err(error) = self.set_irq_line(IRQ_SCI, active) {
            tracing::warn!("the ACPI interrupt could not be changed: {error}");
        }
    }
}

/// The PM1 registers.
pub struct Pm1 {
    status: u16,
    enable: u16,
    control: u16,
    line: Box<dyn SciLine>,
    exit: ExitSignal,
}

impl Pm1 {
    /// Registers as they are when the operating system starts: ACPI mode is on.
    pub fn new(line: Box<dyn SciLine>, exit: ExitSignal) -> Self {
        Self {
            status: 0,
            enable: 0,
            control: SCI_ENABLE,
            line,
            exit,
        }
    }

    /// Presses the power button. Returns whether the guest listens for it.
    pub fn press_power_button(&mut self) -> bool {
        self.status |= POWER_BUTTON;
        self.update_line();
        self.enable & POWER_BUTTON != 0
    }

    fn update_line(&self) {
        self.line.set(self.status & self.enable != 0);
    }

    fn write_control(&mut self, value: u16) {
        self.control = value & !SLEEP_ENABLE | SCI_ENABLE;
        let sleep_type = (value >> 10 & 7) as u8;
        if value & SLEEP_ENABLE != 0 && sleep_type == SLEEP_TYPE_S5 {
            self.exit.end(ExitReason::PoweredOff);
        }
    }
}

impl BusDevice for Pm1 {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        let mut registers = [0; PM1_LENGTH as usize];
        for (bytes, value) in registers
            .chunks_mut(2)
            .zip([self.status, self.enable, self.control])
        {
            bytes.copy_from_slice(&value.to_le_bytes());
        }
        for (byte, register) in data.iter_mut().zip(registers.iter().skip(offset as usize)) {
            *byte = *register;
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        // Words and double words only: the registers have no other width.
        for (bytes, at) in data.chunks_exact(2).zip((offset..).step_by(2)) {
            let value = u16::from_le_bytes([bytes[0], bytes[1]]);
            match at {
                0 => self.status &= !value,
                2 => self.enable = value,
                4 => self.write_control(value),
                _ => {}
            }
        }
        self.update_line();
    }
}

/// The keyboard controller's ports: a reset line, no keyboard.
pub struct ResetPort {
    exit: ExitSignal,
}

impl ResetPort {
    /// Ports 0x60 to 0x64.
    pub const LENGTH: u64 = 5;

    /// A reset line that ends the VM.
    pub fn new(exit: ExitSignal) -> Self {
        Self { exit }
    }
}

impl BusDevice for ResetPort {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        if offset == 4 {
            data.fill(0); // both buffers empty
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        if offset == 4 && data == [RESET_VALUE] {
            self.exit.end(ExitReason::Reboot);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    struct Line(Arc<AtomicBool>);
    impl SciLine for Line {
        fn set(&self, active: bool) {
            self.0.store(active, Ordering::Relaxed);
        }
    }

    #[test]
    fn the_button_interrupts_until_it_is_acknowledged() {
        let line = Arc::new(AtomicBool::new(false));
        let exit = ExitSignal::new().unwrap();
        let mut pm1 = Pm1::new(Box::new(Line(line.clone())), exit.clone());
        assert!(!pm1.press_power_button());
        pm1.write(0, &POWER_BUTTON.to_le_bytes());
        pm1.write(2, &0xffff_u16.to_le_bytes());
        assert!(!line.load(Ordering::Relaxed));
        assert!(pm1.press_power_button());
        assert!(line.load(Ordering::Relaxed));
        let mut status = [0; 2];
        pm1.read(0, &mut status);
        assert_eq!(u16::from_le_bytes(status), POWER_BUTTON);
        pm1.write(0, &POWER_BUTTON.to_le_bytes());
        assert!(!line.load(Ordering::Relaxed));
        pm1.write(4, &(SLEEP_ENABLE | 1 << 10).to_le_bytes());
        pm1.write(4, &[0x20]);
        assert!(exit.reason().is_none());
        pm1.write(4, &(SLEEP_ENABLE | 5 << 10).to_le_bytes());
        assert_eq!(exit.reason(), Some(ExitReason::PoweredOff));
    }
}
