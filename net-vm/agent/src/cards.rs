//! Which interface is which, by what the kernel says in `/sys/class/net`.

use std::fs;
use std::path::Path;

use bulkhead_mac::Mac;

/// Where the kernel lists interfaces.
pub const CLASS: &str = "/sys/class/net";
/// How VLANs are called that are made here: the name and the VLAN's number.
const VLAN_PREFIX: &str = "vlan";

/// The interface that is the card of this hardware address. VLANs have their card's address too,
/// but no device of their own.
pub fn by_mac(class: &Path, mac: Mac) -> Option<String> {
    let wanted = mac.to_string();
    names(class).into_iter().find(|name| {
        let folder = class.join(name);
        let address = fs::read_to_string(folder.join("address")).unwrap_or_default();
        address.trim() == wanted && folder.join("device").exists()
    })
}

/// The first network card that is none of `ours`, in the order of their names.
pub fn other_than(class: &Path, ours: &[Mac]) -> Option<String> {
    let ours: Vec<String> = ours.iter().map(ToString::to_string).collect();
    names(class).into_iter().find(|name| {
        let folder = class.join(name);
        let address = fs::read_to_string(folder.join("address")).unwrap_or_default();
        folder.join("device").exists() && !ours.iter().any(|mac| mac == address.trim())
    })
}

/// The VLANs that a card has, as far as they are called as ours are.
pub fn vlans(class: &Path, card: &str) -> Vec<u16> {
    let mut vlans: Vec<u16> = names(class)
        .iter()
        .filter(|name| class.join(name).join(format!("lower_{card}")).exists())
        .filter_map(|name| name.strip_prefix(VLAN_PREFIX)?.parse().ok())
        .collect();
    vlans.sort_unstable();
    vlans
}

/// The interface of a VLAN.
pub fn vlan_name(vlan: u16) -> String {
    format!("{VLAN_PREFIX}{vlan}")
}

fn names(class: &Path) -> Vec<String> {
    let entries = fs::read_dir(class).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort_unstable();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cards_are_found_by_their_address_and_vlans_by_their_card() {
        let folder = tempfile::tempdir().unwrap();
        let class = folder.path();
        let mac = "02:00:00:00:00:05";
        for (name, address, inside) in [
            ("lo", "00:00:00:00:00:00", "x"),
            // In the order of their names the VLANs come after; `b` is another card.
            ("a-vlan", mac, "lower_eth0"),
            ("b", "02:00:00:00:00:06", "device"),
            ("eth0", mac, "device"),
            ("vlan12", mac, "lower_eth0"),
            ("vlan7", mac, "lower_eth0"),
            ("vlan8", mac, "lower_b"),
            ("vlanx", mac, "lower_eth0"),
        ] {
            let folder = class.join(name);
            fs::create_dir_all(folder.join(inside)).unwrap();
            fs::write(folder.join("address"), format!("{address}\n")).unwrap();
        }
        assert_eq!(by_mac(class, mac.parse().unwrap()).unwrap(), "eth0");
        assert!(by_mac(class, "02:00:00:00:00:07".parse().unwrap()).is_none());
        let (first, other) = (mac.parse().unwrap(), "02:00:00:00:00:06".parse().unwrap());
        assert_eq!(other_than(class, &[first]).unwrap(), "b");
        assert_eq!(other_than(class, &[other]).unwrap(), "eth0");
        assert!(other_than(class, &[first, other]).is_none());
        assert_eq!(vlans(class, "eth0"), [7, 12]);
        assert_eq!(vlans(class, "b"), [8]);
        assert_eq!(vlan_name(7), "vlan7");
    }
}
