//! The requests to the kernel, `netdevice(7)` and VLANs of 8021q. Few enough that the plain calls are
//! shorter than a netlink library.

use std::ffi::CString;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::routes::Route;

/// `linux/sockios.h`; the libc crate lacks it here.
const SIOCSIFVLAN: libc::c_ulong = 0x8983;
/// `linux/if_vlan.h`.
const ADD_VLAN: libc::c_int = 0;
const DELETE_VLAN: libc::c_int = 1;
const SET_NAME_TYPE: libc::c_int = 6;
/// Names like `vlan5`.
const VLAN_AND_NUMBER: libc::c_int = 2;

/// `struct vlan_ioctl_args` of `linux/if_vlan.h`.
#[repr(C)]
struct VlanRequest {
    command: libc::c_int,
    device: [u8; 24],
    /// The union of a second device's name, a VLAN and flags.
    argument: VlanArgument,
    priority: libc::c_short,
}

#[repr(C)]
union VlanArgument {
    number: libc::c_int,
    device: [u8; 24],
}

/// A socket through which interfaces are set up.
pub struct Network(OwnedFd);

impl Network {
    /// Opens it.
    pub fn open() -> io::Result<Self> {
        let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC;
        // SAFETY: no pointers; the result is checked.
        let socket = unsafe { libc::socket(libc::AF_INET, kind, 0) };
        if socket < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and nobody else owns it.
        Ok(Network(unsafe { OwnedFd::from_raw_fd(socket) }))
    }

    /// Takes an interface up.
    pub fn up(&self, interface: &str) -> io::Result<()> {
        let mut request = named(interface)?;
        self.ask(libc::SIOCGIFFLAGS, &mut request)?;
        // SAFETY: the kernel has just written the flags.
        let flags = unsafe { request.ifr_ifru.ifru_flags };
        let wanted = flags | libc::IFF_UP as libc::c_short;
        if flags == wanted {
            return Ok(());
        }
        request.ifr_ifru.ifru_flags = wanted;
        self.ask(libc::SIOCSIFFLAGS, &mut request)
    }

    /// Sets the longest packet of an interface.
    pub fn set_mtu(&self, interface: &str, mtu: u16) -> io::Result<()> {
        let mut request = named(interface)?;
        request.ifr_ifru.ifru_mtu = mtu.into();
        self.ask(libc::SIOCSIFMTU, &mut request)
    }

    /// The address of an interface, if it has one.
    pub fn address(&self, interface: &str) -> io::Result<Option<Ipv4Addr>> {
        let mut request = named(interface)?;
        request.ifr_ifru.ifru_addr = socket_address(Ipv4Addr::UNSPECIFIED);
        match self.ask(libc::SIOCGIFADDR, &mut request) {
            // SAFETY: the kernel has just written an address.
            Ok(()) => Ok(Some(ip_address(unsafe { &request.ifr_ifru.ifru_addr }))),
            Err(error) if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Gives an interface one address, with nobody else on its cable: what is there is said by
    /// routes. Best done before it is up: the kernel first takes the address for one of a network.
    pub fn set_address(&self, interface: &str, address: Ipv4Addr) -> io::Result<()> {
        for (operation, value) in [
            (libc::SIOCSIFADDR, address),
            (libc::SIOCSIFNETMASK, Ipv4Addr::BROADCAST),
            // None: there is nobody to be told at once.
            (libc::SIOCSIFBRDADDR, Ipv4Addr::UNSPECIFIED),
        ] {
            let mut request = named(interface)?;
            request.ifr_ifru.ifru_addr = socket_address(value);
            self.ask(operation, &mut request)?;
        }
        Ok(())
    }

    /// Makes `vlanN` on a card.
    pub fn add_vlan(&self, card: &str, vlan: u16) -> io::Result<()> {
        self.ask_vlan(SET_NAME_TYPE, "", VLAN_AND_NUMBER)?;
        self.ask_vlan(ADD_VLAN, card, vlan.into())
    }

    /// Takes a VLAN's interface away.
    pub fn remove_vlan(&self, interface: &str) -> io::Result<()> {
        self.ask_vlan(DELETE_VLAN, interface, 0)
    }

    /// Adds a route over an interface.
    pub fn add_route(&self, interface: &str, route: Route) -> io::Result<()> {
        self.change_route(libc::SIOCADDRT, interface, route)
    }

    /// Takes a route over an interface away.
    pub fn remove_route(&self, interface: &str, route: Route) -> io::Result<()> {
        self.change_route(libc::SIOCDELRT, interface, route)
    }

    fn change_route(
        &self,
        operation: libc::c_ulong,
        interface: &str,
        route: Route,
    ) -> io::Result<()> {
        let device = CString::new(interface)?;
        // SAFETY: an rtentry is plain old data, for which zeroes are valid.
        let mut request: libc::rtentry = unsafe { std::mem::zeroed() };
        request.rt_dst = socket_address(route.destination);
        request.rt_genmask = socket_address(route.mask);
        request.rt_gateway = socket_address(route.gateway);
        request.rt_flags = libc::RTF_UP as libc::c_ushort;
        if route.mask == Ipv4Addr::BROADCAST {
            request.rt_flags |= libc::RTF_HOST as libc::c_ushort;
        }
        if route.gateway != Ipv4Addr::UNSPECIFIED {
            request.rt_flags |= libc::RTF_GATEWAY as libc::c_ushort;
        }
        request.rt_dev = device.as_ptr().cast_mut();
        // SAFETY: the request is an initialised rtentry; the kernel reads it and the interface's
        // name, a C string that lives until the call returns, and writes neither.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), operation, &request) };
        check(result)
    }

    fn ask(&self, operation: libc::c_ulong, request: &mut libc::ifreq) -> io::Result<()> {
        // SAFETY: all operations here read and write one ifreq.
        check(unsafe { libc::ioctl(self.0.as_raw_fd(), operation, request) })
    }

    fn ask_vlan(&self, command: libc::c_int, device: &str, number: libc::c_int) -> io::Result<()> {
        let mut request = VlanRequest {
            command,
            device: [0; 24],
            argument: VlanArgument { device: [0; 24] },
            priority: 0,
        };
        request.argument.number = number;
        let room = request.device.len() - 1;
        if device.len() > room {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        for (to, from) in request.device.iter_mut().zip(device.bytes()) {
            *to = from;
        }
        // SAFETY: the request is what SIOCSIFVLAN reads and writes.
        check(unsafe { libc::ioctl(self.0.as_raw_fd(), SIOCSIFVLAN, &mut request) })
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    match result {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn named(interface: &str) -> io::Result<libc::ifreq> {
    // SAFETY: an ifreq is plain old data, for which zeroes are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if interface.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from as libc::c_char;
    }
    Ok(request)
}

/// A `sockaddr_in` in its general form: family, port, and the address in the order of the network.
fn socket_address(address: Ipv4Addr) -> libc::sockaddr {
    // SAFETY: a sockaddr is plain old data, for which zeroes are valid.
    let mut general: libc::sockaddr = unsafe { std::mem::zeroed() };
    general.sa_family = libc::AF_INET as libc::sa_family_t;
    for (to, from) in general.sa_data.iter_mut().skip(2).zip(address.octets()) {
        *to = from as libc::c_char;
    }
    general
}

fn ip_address(general: &libc::sockaddr) -> Ipv4Addr {
    let mut octets = [0; 4];
    for (to, from) in octets.iter_mut().zip(general.sa_data.iter().skip(2)) {
        *to = *from as u8;
    }
    octets.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_keep_their_order() {
        let address = Ipv4Addr::new(10, 137, 200, 255);
        assert_eq!(ip_address(&socket_address(address)), address);
    }

    #[test]
    fn loopback_has_its_address_and_long_names_are_refused() {
        let network = Network::open().unwrap();
        // A machine may have it down, without an address.
        let address = network.address("lo").unwrap();
        assert!(address.is_none_or(|address| address.is_loopback()));
        let error = network.address("a-name-that-is-too-long").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
