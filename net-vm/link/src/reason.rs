//! Why a frame is not passed on.

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident => $text:literal,)*) => {
        /// Why a frame is not passed on.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
        #[repr(usize)]
        pub enum Reason {
            $($(#[$doc])* #[error($text)] $name,)*
        }

        impl Reason {
            /// All of them.
            pub const ALL: [Reason; [$($text),*].len()] = [$(Reason::$name),*];

            /// Its name in statistics.
            pub fn name(self) -> &'static str {
                match self { $(Reason::$name => $text,)* }
            }
        }
    };
}

reasons! {
    /// Shorter than a header and the shortest frame.
    Short => "short",
    /// Longer than the longest packet, or it would be with its tag.
    Long => "long",
    /// Longer than the network's packets, and not to be segmented.
    OverMtu => "over_mtu",
    /// A flag other than `NEEDS_CSUM`.
    HeaderFlags => "header_flags",
    /// A kind of segmentation that is not offered.
    HeaderGso => "header_gso",
    /// Segmentation without a checksum to be made.
    GsoWithoutChecksum => "gso_without_checksum",
    /// A size of segments that is too small or does not fit into the network's packets.
    GsoSize => "gso_size",
    /// The frame is not what its kind of segmentation asks for: one whole packet of TCP.
    GsoFrame => "gso_frame",
    /// The headers would be longer than the frame.
    HeaderLength => "header_length",
    /// The checksum would be outside of the packet, in the IP header, or in a fragment.
    ChecksumPlace => "checksum_place",
    /// Not from the port's own card.
    SourceMac => "source_mac",
    /// For another card.
    DestinationMac => "destination_mac",
    /// To all, and not ARP.
    Broadcast => "broadcast",
    /// A tag where none may be.
    Tag => "tag",
    /// A frame of the trunk without a tag.
    Untagged => "untagged",
    /// A VLAN that no client has.
    UnknownVlan => "unknown_vlan",
    /// IPv6, which is not carried.
    Ipv6 => "ipv6",
    /// Neither IPv4 nor ARP.
    EtherType => "ether_type",
    /// An IPv4 header that is wrong in itself or does not fit its frame.
    Ipv4Header => "ipv4_header",
    /// IPv4 options that are wrong.
    Ipv4Options => "ipv4_options",
    /// An IPv4 option that says the route (LSRR, SSRR).
    SourceRoute => "source_route",
    /// Not from the client's address.
    SourceAddress => "source_address",
    /// Not for the client's address.
    DestinationAddress => "destination_address",
    /// A fragment that cannot be, or that could overwrite the transport's header (RFC 1858, 3128).
    Fragment => "fragment",
    /// The transport's header is not whole in the first fragment (RFC 1858).
    TransportHeader => "transport_header",
    /// An answer of a DHCP server.
    DhcpServer => "dhcp_server",
    /// ARP that is not about Ethernet and IPv4, or too short.
    ArpFormat => "arp_format",
    /// ARP that speaks for another card or address.
    ArpSender => "arp_sender",
    /// The network domain is not there.
    NoTrunk => "no_trunk",
    /// The receiver does not keep up.
    QueueFull => "queue_full",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_different_and_places_are_theirs() {
        let mut names: Vec<_> = Reason::ALL.iter().map(|reason| reason.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Reason::ALL.len());
        for (place, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, place);
            assert_eq!(reason.to_string(), reason.name());
        }
    }
}
