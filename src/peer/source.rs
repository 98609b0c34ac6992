//! Where a message came from.
#![forbid(unsafe_code)]

use core::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::NodeId;

/// Where a message came from, as far as limits are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Source {
    /// The transport authenticated this node.
    Node(NodeId),
    /// An address without port; of an IPv6 address, the first 64 bits.
    Address(IpAddr),
    /// A relay says that this node handed the message in; nothing proves it.
    Relay(NodeId),
}

impl Source {
    /// The source of a connection from this address that authenticated nobody. An IPv6 address that stands for an IPv4
    /// address counts as that: mapped, compatible, SIIT, NAT64 (64:ff9b::/96, and any /96 of 64:ff9b:1::/48), 6to4, and
    /// the client of Teredo. ISATAP does not: a host chooses that half of its address.
    #[must_use]
    pub fn from_address(address: IpAddr) -> Self {
        Self::Address(match address {
            IpAddr::V4(_) => address,
            IpAddr::V6(v6) => match embedded(v6) {
                Some(v4) => IpAddr::V4(v4),
                None => IpAddr::V6((u128::from(v6) >> 64 << 64).into()),
            },
        })
    }

    /// The source of a message from this machine that came from no address and authenticated nobody, as over a Unix socket
    /// or a channel within the process: all of these count as one, which is the loopback address 127.0.0.1. A transport
    /// that knows which node it speaks to says [`Node`](Self::Node).
    #[must_use]
    pub const fn local() -> Self {
        Self::Address(IpAddr::V4(Ipv4Addr::LOCALHOST))
    }
}

/// The IPv4 address for which an IPv6 address stands, if it stands for one.
fn embedded(v6: Ipv6Addr) -> Option<Ipv4Addr> {
    let [_, _, c, d, e, f, .., w, x, y, z] = v6.octets();
    let last = Ipv4Addr::new(w, x, y, z);
    match v6.segments() {
        // The unspecified and the loopback address are no IPv4 addresses, and 0.0.0.0/8 names no host.
        [0, 0, 0, 0, 0, 0, ..] | [0x64, 0xff9b, 1, ..] => (w != 0).then_some(last),
        [0, 0, 0, 0, 0xffff, 0, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => Some(last),
        [0x2001, 0, ..] => Some(Ipv4Addr::new(!w, !x, !y, !z)),
        [0x2002, ..] => Some(Ipv4Addr::new(c, d, e, f)),
        _ => v6.to_ipv4_mapped(),
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(node) => write!(f, "node {node}"),
            Self::Address(address) => address.fmt(f),
            Self::Relay(node) => write!(f, "relay, as node {node}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_has_no_port_and_of_ipv6_the_network_half() {
        let of = |text: &str| Source::from_address(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_eq!(Source::local(), of("::ffff:127.0.0.1"));
    }

    #[test]
    fn a_source_says_whether_it_was_proved_or_a_relay_says_so() {
        let nine = NodeId::new(9).unwrap();
        assert_eq!(Source::Relay(nine).to_string(), "relay, as node 9");
        assert_eq!(Source::Node(nine).to_string(), "node 9");
        assert_eq!(Source::from_address("192.0.2.9".parse().unwrap()).to_string(), "192.0.2.9");
        assert_ne!(Source::Relay(nine), Source::Node(nine));
    }

    #[test]
    fn an_ipv6_address_that_stands_for_an_ipv4_address_counts_as_that() {
        let of = |text: &str| Source::from_address(text.parse().unwrap());
        for text in ["::ffff:192.0.2.9", "64:ff9b::192.0.2.9", "2002:c000:0209::1", "2002:c000:0209:ffff:1:2:3:4"] {
            assert_eq!(of(text), of("192.0.2.9"), "{text}");
        }
        // SIIT, IPv4-compatible, local NAT64 of any /96, and the client of Teredo (its bits are inverted).
        let more = ["::ffff:0:192.0.2.9", "::192.0.2.9", "64:ff9b:1::192.0.2.9", "64:ff9b:1:7:8:9:192.0.2.9"];
        for text in more.into_iter().chain(["2001:0:4136:e378:8000:63bf:3fff:fdf6", "2001::3fff:fdf6"]) {
            assert_eq!(of(text), of("192.0.2.9"), "{text}");
        }
        for text in ["64:ff9b:2::192.0.2.9", "64:ff9b::1:0:0:192.0.2.9", "2003:c000:0209::1", "2001:1::3fff:fdf6"] {
            assert_ne!(of(text), of("192.0.2.9"), "{text}");
        }
        // ISATAP: the host chooses its interface identifier, so one network would be 2^32 sources.
        assert_eq!(of("2001:db8::5efe:192.0.2.9"), of("2001:db8::200:5efe:192.0.2.10"));
        // Neither the loopback nor the unspecified address stands for one, nor a prefix that names no host.
        for text in ["::1", "::", "64:ff9b:1:c000:2:900::"] {
            assert!(matches!(of(text), Source::Address(IpAddr::V6(_))), "{text}");
        }
    }
}
