//! What makes the test host run: KVM where a guest of it can have KVM too, else emulation.

use std::fs;

use bulkhead_image::emulator;

/// How QEMU runs the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// Nested virtualization by the processor.
    Kvm,
    /// A processor with SVM, emulated in software.
    Emulation,
}

/// The best accelerator here.
#[must_use]
pub fn best() -> Accelerator {
    if nested_kvm_is_usable() {
        Accelerator::Kvm
    } else {
        Accelerator::Emulation
    }
}

/// /dev/kvm alone says little: it may exist without any help of the processor, and then a Linux
/// guest never comes up. So the processor must name its extension, the kernel module that
/// drives it must allow nesting, and the device must be ours to open.
fn nested_kvm_is_usable() -> bool {
    let flags = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let nested = |module: &str| {
        fs::read_to_string(format!("/sys/module/{module}/parameters/nested")).unwrap_or_default()
    };
    may_nest(&flags, &nested("kvm_amd"), &nested("kvm_intel"))
        && fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/kvm")
            .is_ok()
}

fn may_nest(cpuinfo: &str, amd_nested: &str, intel_nested: &str) -> bool {
    let has = |flag: &str| {
        cpuinfo
            .lines()
            .filter(|line| line.starts_with("flags"))
            .any(|line| line.split_whitespace().any(|word| word == flag))
    };
    let on = |value: &str| matches!(value.trim(), "1" | "Y" | "y");
    (has("svm") && on(amd_nested)) || (has("vmx") && on(intel_nested))
}

/// The arguments for QEMU.
pub(super) fn arguments(accelerator: Accelerator) -> Vec<&'static str> {
    match accelerator {
        Accelerator::Kvm => vec!["-accel", "kvm", "-cpu", "host"],
        Accelerator::Emulation => {
            // A string instruction of bytes is emulated byte by byte. Told that it is not fast, kernels
            // and C libraries copy eight bytes and more at a time, at three times the speed; a guest
            // starts in two thirds of the time.
            //
            // QEMU before 8 emulates XSAVE in a way that nested guests trip over.
            let processor =
                if emulator::major_of(super::qemu::program()).is_some_and(|major| major >= 8) {
                    "max,+svm,-erms,-fsrm"
                } else {
                    "max,+svm,-erms,-xsave,-avx,-avx2,-fma,-f16c,-pku"
                };
            vec!["-accel", "tcg,thread=multi", "-cpu", processor]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kvm_needs_the_processor_and_nesting() {
        let svm = "processor: 0\nflags\t\t: fpu svm sse\n";
        assert!(may_nest(svm, "1\n", ""));
        assert!(!may_nest(svm, "0\n", "Y"));
        assert!(may_nest("flags : vmx", "", "Y\n"));
        assert!(!may_nest("flags : fpu svm_lock", "1", "1"));
    }
}
