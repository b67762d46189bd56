//! The threads that run the guest's processors, and the gate that stops and restarts them.

use std::io;
use std::os::unix::thread::JoinHandleExt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

use kvm_ioctls::{VcpuExit, VcpuFd};
use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler};

use crate::bus::Bus;
use crate::exit::{ExitReason, ExitSignal};
use crate::memory::GuestMemory;

const SYSTEM_EVENT_SHUTDOWN: u32 = 1;
const SYSTEM_EVENT_RESET: u32 = 2;

/// The guest's two address spaces of devices.
pub struct Buses {
    /// I/O ports.
    pub ports: Bus,
    /// Memory-mapped devices.
    pub memory: Bus,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    Paused,
    Ended,
}

struct GateState {
    phase: Phase,
    /// Threads that wait at the gate.
    parked: usize,
    /// Threads that have not ended.
    alive: usize,
}

/// Where all processors stop when the VM is paused.
struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

impl Gate {
    fn lock(&self) -> std::sync::MutexGuard<'_, GateState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, phase: Phase) {
        let mut state = self.lock();
        if state.phase != Phase::Ended {
            state.phase = phase;
        }
        self.changed.notify_all();
    }

    /// Waits while paused. Returns what follows, and whether there was a pause.
    fn pass(&self) -> (Phase, bool) {
        let mut state = self.lock();
        let waited = state.phase == Phase::Paused;
        if waited {
            state.parked += 1;
            self.changed.notify_all();
            while state.phase == Phase::Paused {
                state = self
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            state.parked -= 1;
        }
        (state.phase, waited)
    }

    fn wait_until_parked(&self) {
        let mut state = self.lock();
        while state.phase == Phase::Paused && state.parked < state.alive {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Marks a thread as ended even if it panics.
struct Alive(Arc<Gate>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.lock().alive -= 1;
        self.0.changed.notify_all();
    }
}

/// A pointer to the flag that makes `KVM_RUN` return at once.
struct ImmediateExit {
    flag: *mut u8,
    /// Keeps the page that holds the flag mapped.
    _vcpu: Arc<Mutex<VcpuFd>>,
}

// SAFETY: the flag is only accessed atomically, and the page stays mapped while `_vcpu` lives.
unsafe impl Send for ImmediateExit {}

impl ImmediateExit {
    fn new(vcpu: &Arc<Mutex<VcpuFd>>) -> Self {
        let mut locked = vcpu.lock().unwrap_or_else(PoisonError::into_inner);
        let flag: *mut u8 = &raw mut locked.get_kvm_run().immediate_exit;
        drop(locked);
        Self {
            flag,
            _vcpu: vcpu.clone(),
        }
    }

    fn set(&self) {
        // SAFETY: points into the shared page of a processor that `_vcpu` keeps open.
        unsafe { AtomicU8::from_ptr(self.flag) }.store(1, Ordering::SeqCst);
    }
}

struct Processor {
    thread: JoinHandle<()>,
    immediate_exit: ImmediateExit,
}

/// The running processors.
pub struct Processors {
    gate: Arc<Gate>,
    processors: Vec<Processor>,
}

impl Processors {
    /// Starts a thread for each processor. `setup` runs first on each thread.
    pub fn start(
        vcpus: Vec<VcpuFd>,
        buses: Arc<Buses>,
        memory: &GuestMemory,
        exit: &ExitSignal,
    ) -> io::Result<Self> {
        extern "C" fn wake(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}
        register_signal_handler(SIGRTMIN(), wake).map_err(io::Error::from)?;
        let state = GateState {
            phase: Phase::Running,
            parked: 0,
            alive: vcpus.len(),
        };
        let gate = Arc::new(Gate {
            state: Mutex::new(state),
            changed: Condvar::new(),
        });
        let mut all = Self {
            gate: gate.clone(),
            processors: Vec::with_capacity(vcpus.len()),
        };
        for (index, vcpu) in vcpus.into_iter().enumerate() {
            let vcpu = Arc::new(Mutex::new(vcpu));
            let immediate_exit = ImmediateExit::new(&vcpu);
            let (buses, exit, gate) = (buses.clone(), exit.clone(), gate.clone());
            let memory = memory.clone();
            let thread = std::thread::Builder::new()
                .name(format!("cpu{index}"))
                .spawn(move || {
                    let alive = Alive(gate);
                    crate::emulated::share_one_processor();
                    let mut vcpu = vcpu.lock().unwrap_or_else(PoisonError::into_inner);
                    if let Some(reason) = run(index, &mut vcpu, &buses, &memory, &alive.0) {
                        exit.end(reason);
                    }
                })?;
            all.processors.push(Processor {
                thread,
                immediate_exit,
            });
        }
        Ok(all)
    }

    /// Stops all processors and returns when they stand still.
    pub fn pause(&self) {
        self.gate.set(Phase::Paused);
        self.kick();
        self.gate.wait_until_parked();
    }

    /// Lets them run again.
    pub fn resume(&self) {
        self.gate.set(Phase::Running);
    }

    /// Ends all threads and waits for them.
    pub fn end(&mut self) {
        self.gate.set(Phase::Ended);
        self.kick();
        for processor in self.processors.drain(..) {
            if processor.thread.join().is_err() {
                tracing::error!("a processor's thread panicked");
            }
        }
    }

    /// Makes all processors look at the gate: the flag catches those that are about to enter the
    /// guest, the signal those that are in it.
    fn kick(&self) {
        for processor in &self.processors {
            processor.immediate_exit.set();
            // SAFETY: the thread has not been joined, so its handle is valid.
            unsafe { libc::pthread_kill(processor.thread.as_pthread_t(), SIGRTMIN()) };
        }
    }
}

impl Drop for Processors {
    fn drop(&mut self) {
        self.end();
    }
}

/// Runs one processor until the gate closes or it cannot go on, for the reason returned.
fn run(
    index: usize,
    vcpu: &mut VcpuFd,
    buses: &Buses,
    memory: &GuestMemory,
    gate: &Gate,
) -> Option<ExitReason> {
    let crashed = |why: String| Some(ExitReason::Crashed(format!("processor {index}: {why}")));
    loop {
        match vcpu.run() {
            Ok(VcpuExit::IoIn(port, data)) => buses.ports.read(u64::from(port), data),
            Ok(VcpuExit::IoOut(port, data)) => buses.ports.write(u64::from(port), data),
            Ok(VcpuExit::MmioRead(address, data)) => buses.memory.read(address, data),
            Ok(VcpuExit::MmioWrite(address, data)) => buses.memory.write(address, data),
            Ok(VcpuExit::Intr) => {}
            Ok(VcpuExit::Shutdown) => return crashed("triple fault".into()),
            Ok(VcpuExit::SystemEvent(SYSTEM_EVENT_SHUTDOWN, _)) => {
                return Some(ExitReason::PoweredOff);
            }
            Ok(VcpuExit::SystemEvent(SYSTEM_EVENT_RESET, _)) => return Some(ExitReason::Reboot),
            Ok(VcpuExit::MemoryFault { gpa, .. }) => {
                return crashed(format!("touched memory at {gpa:#x} that is not there"));
            }
            Ok(VcpuExit::FailEntry(reason, _)) => {
                return crashed(format!("its state cannot be run ({reason:#x})"));
            }
            Ok(VcpuExit::InternalError) => return crashed("KVM cannot emulate it".into()),
            Ok(other) => return crashed(format!("stopped unexpectedly: {other:?}")),
            Err(error) => match error.errno() {
                libc::EINTR | libc::EAGAIN => {
                    // Cleared before the gate is read: a kick after that sets it again.
                    vcpu.set_kvm_immediate_exit(0);
                    let (phase, waited) = gate.pass();
                    if phase == Phase::Ended {
                        return None;
                    }
                    if waited {
                        // Tells the guest's watchdogs that it was stopped. Guests without the
                        // paravirtual clock have no place for that, which is an error here.
                        let _ = vcpu.kvmclock_ctrl();
                    }
                }
                libc::EFAULT => {
                    let place = crate::fault::describe(vcpu, memory);
                    return crashed(format!(
                        "touched memory that has nothing behind it: {place}"
                    ));
                }
                _ => {
                    return Some(ExitReason::HostError(format!(
                        "KVM: processor {index}: {error}"
                    )));
                }
            },
        }
    }
}
