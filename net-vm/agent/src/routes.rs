//! The routes that there are, by what the kernel says in `/proc/net/route`.

use std::net::Ipv4Addr;

/// Where the kernel lists the routes of the main table.
pub const FILE: &str = "/proc/net/route";
const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const HOST: Ipv4Addr = Ipv4Addr::BROADCAST;

/// A route over a known interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Where it leads.
    pub destination: Ipv4Addr,
    /// 255.255.255.255 for one machine, 0.0.0.0 for all.
    pub mask: Ipv4Addr,
    /// Through whom; 0.0.0.0 where the destination is on the cable itself.
    pub gateway: Ipv4Addr,
}

impl Route {
    /// To one machine on the cable.
    pub fn to(machine: Ipv4Addr) -> Self {
        Route {
            destination: machine,
            mask: HOST,
            gateway: ANY,
        }
    }

    /// To everything else, through a machine on the cable.
    pub fn through(gateway: Ipv4Addr) -> Self {
        Route {
            destination: ANY,
            mask: ANY,
            gateway,
        }
    }
}

/// The routes over an interface, in a text like [`FILE`]'s: addresses are in hexadecimal, as the
/// machine has their bytes in memory.
pub fn over(text: &str, interface: &str) -> Vec<Route> {
    let address = |word: &str| {
        let number = u32::from_str_radix(word, 16).ok()?;
        Some(Ipv4Addr::from(number.to_ne_bytes()))
    };
    text.lines()
        .skip(1)
        .filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [name, destination, gateway, _, _, _, _, mask, ..] = words.as_slice() else {
                return None;
            };
            (*name == interface).then_some(Route {
                destination: address(destination)?,
                mask: address(mask)?,
                gateway: address(gateway)?,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn the_kernels_list_is_read() {
        let text = "\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t0100890A\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t0100890A\t00000000\t0005\t0\t0\t0\tFFFFFFFF\t0\t0\t0
vlan7\t0700890A\t00000000\t0005\t0\t0\t0\tFFFFFFFF\t0\t0\t0
eth0\tnonsense
";
        let gateway = Ipv4Addr::new(10, 137, 0, 1);
        let expected = [Route::through(gateway), Route::to(gateway)];
        assert_eq!(over(text, "eth0"), expected);
        let client = Ipv4Addr::new(10, 137, 0, 7);
        assert_eq!(over(text, "vlan7"), [Route::to(client)]);
        assert!(over(text, "eth1").is_empty());
    }
}
