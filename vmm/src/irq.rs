//! Message-signalled interrupts: which message each interrupt number of KVM delivers.
//!
//! KVM takes the whole routing table at once, so it is kept here. Messages come from the guest
//! and are checked: only those that name a local APIC are ever routed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER,
    KVM_IRQCHIP_PIC_SLAVE, KvmIrqRouting, kvm_irq_routing_entry, kvm_irq_routing_irqchip,
    kvm_irq_routing_msi,
};
use kvm_ioctls::VmFd;
use vmm_sys_util::eventfd::EventFd;

use crate::arch::layout;

/// A message as a driver wrote it into an MSI-X table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MsiMessage {
    /// Address, low half.
    pub address_low: u32,
    /// Address, high half.
    pub address_high: u32,
    /// Data.
    pub data: u32,
}

impl MsiMessage {
    /// Whether the message is an interrupt for a local APIC. Anything else would be a write to
    /// memory by the device, which is not offered.
    fn is_interrupt(&self) -> bool {
        self.address_low & 0xfff0_0000 == layout::LOCAL_APIC && self.address_high == 0
    }
}

/// Why a message could not be routed.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// The driver's message does not name a local APIC.
    #[error("message to {high:#x}:{low:#x} is not for a local APIC")]
    NotAnInterrupt {
        /// Address, low half.
        low: u32,
        /// Address, high half.
        high: u32,
    },
    /// KVM refused.
    #[error("KVM: {0}")]
    Kvm(#[from] kvm_ioctls::Error),
    /// The table could not be made.
    #[error("routing table: {0}")]
    Table(String),
}

/// The VM's table of interrupt routes.
pub struct IrqRouter {
    vm: Arc<VmFd>,
    routes: Mutex<Routes>,
}

struct Routes {
    next_gsi: u32,
    messages: BTreeMap<u32, MsiMessage>,
}

impl IrqRouter {
    /// A table with the pins of the PICs and the I/O APIC, which KVM sets up itself.
    pub fn new(vm: Arc<VmFd>) -> Self {
        let routes = Routes {
            next_gsi: layout::FIRST_MSI_GSI,
            messages: BTreeMap::new(),
        };
        Self {
            vm,
            routes: Mutex::new(routes),
        }
    }

    /// Takes a free interrupt number. Called while building the VM only.
    pub fn allocate(&self) -> u32 {
        let mut routes = self.lock();
        let gsi = routes.next_gsi;
        routes.next_gsi += 1;
        gsi
    }

    /// Lets `eventfd` deliver `message` as interrupt `gsi`. An event that is already pending is
    /// delivered at once.
    pub fn connect(
        &self,
        gsi: u32,
        message: MsiMessage,
        eventfd: &EventFd,
    ) -> Result<(), RouteError> {
        if !message.is_interrupt() {
            let MsiMessage {
                address_low: low,
                address_high: high,
                ..
            } = message;
            return Err(RouteError::NotAnInterrupt { low, high });
        }
        let mut routes = self.lock();
        if routes.messages.get(&gsi) != Some(&message) {
            let before = routes.messages.insert(gsi, message);
            if let Err(error) = self.commit(&routes) {
                match before {
                    Some(message) => routes.messages.insert(gsi, message),
                    None => routes.messages.remove(&gsi),
                };
                return Err(error);
            }
        }
        Ok(self.vm.register_irqfd(eventfd, gsi)?)
    }

    /// Stops delivering; events stay pending in `eventfd`.
    pub fn disconnect(&self, gsi: u32, eventfd: &EventFd) {
        if let Err(error) = self.vm.unregister_irqfd(eventfd, gsi) {
            tracing::warn!("interrupt {gsi} could not be disconnected: {error}");
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Routes> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn commit(&self, routes: &Routes) -> Result<(), RouteError> {
        let mut entries = Vec::with_capacity(40 + routes.messages.len());
        for pin in 0..layout::FIRST_MSI_GSI {
            match pin {
                0..8 => entries.push(pin_route(pin, KVM_IRQCHIP_PIC_MASTER, pin)),
                8..16 => entries.push(pin_route(pin, KVM_IRQCHIP_PIC_SLAVE, pin - 8)),
                _ => {}
            }
            entries.push(pin_route(pin, KVM_IRQCHIP_IOAPIC, pin));
        }
        entries.extend(
            routes
                .messages
                .iter()
                .map(|(gsi, message)| message_route(*gsi, message)),
        );
        let table = KvmIrqRouting::from_entries(&entries)
            .map_err(|error| RouteError::Table(format!("{error:?}")))?;
        Ok(self.vm.set_gsi_routing(&table)?)
    }
}

fn pin_route(gsi: u32, chip: u32, pin: u32) -> kvm_irq_routing_entry {
    let mut entry = kvm_irq_routing_entry {
        gsi,
        type_: KVM_IRQ_ROUTING_IRQCHIP,
        ..Default::default()
    };
    entry.u.irqchip = kvm_irq_routing_irqchip { irqchip: chip, pin };
    entry
}

fn message_route(gsi: u32, message: &MsiMessage) -> kvm_irq_routing_entry {
    let mut entry = kvm_irq_routing_entry {
        gsi,
        type_: KVM_IRQ_ROUTING_MSI,
        ..Default::default()
    };
    entry.u.msi = kvm_irq_routing_msi {
        address_lo: message.address_low,
        address_hi: message.address_high,
        data: message.data,
        ..Default::default()
    };
    entry
}
