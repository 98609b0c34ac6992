//! Where a message came from.
#![forbid(unsafe_code)]

use core::fmt;
use std::net::IpAddr;

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
    /// The source of a connection from this address that authenticated nobody.
    #[must_use]
    pub fn from_address(address: IpAddr) -> Self {
        Self::Address(match address {
            IpAddr::V4(_) => address,
            IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
                Some(v4) => IpAddr::V4(v4),
                None => IpAddr::V6((u128::from(v6) >> 64 << 64).into()),
            },
        })
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
    }
}
