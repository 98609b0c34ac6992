//! Where a node listens, as an operator writes it: an address or a host name, and a port; or a port alone, for every address.
//!
//! What must hold: a name is looked up once, when the node starts, and of several addresses the first that can be had is
//! taken; why none could be had is told of each.
#![forbid(unsafe_code)]

use core::fmt;
use core::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use core::str::FromStr;
use std::net::ToSocketAddrs as _;

use super::Failure;
use super::limits::LimitArguments;
use crate::config::DEFAULT_PORT;
use crate::node::{Address, Registry, TcpConfig, TcpTransport};
use crate::sync::Arc;

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Listen {
    At(SocketAddr),
    /// A host name, a colon and a port.
    Name(String),
    /// Every address of the machine.
    Every {
        port: u16,
    },
}

impl Default for Listen {
    fn default() -> Self {
        Self::At(SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT)))
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse() {
            return Ok(Self::At(address));
        }
        let wanted = || {
            "wanted is an IP address or a host name, and a port, such as 127.0.0.1:4440, [::1]:4440 or localhost:4440; \
             or a port alone, such as :4440, for every address"
                .to_owned()
        };
        let (host, port) = text.rsplit_once(':').ok_or_else(wanted)?;
        let port = port.bytes().all(|byte| byte.is_ascii_digit()).then(|| port.parse().ok()).flatten();
        let port = port.ok_or_else(wanted)?;
        match host {
            "" => Ok(Self::Every { port }),
            host if Address::is_host_name(host) => Ok(Self::Name(text.to_owned())),
            _ => Err(wanted()),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(address) => address.fmt(f),
            Self::Name(name) => f.write_str(name),
            Self::Every { port } => write!(f, ":{port}"),
        }
    }
}

impl Listen {
    /// The addresses to try, in this order.
    fn addresses(&self) -> Result<Vec<SocketAddr>, Failure> {
        match self {
            Self::At(address) => Ok(vec![*address]),
            // The first serves IPv4, too, unless the system keeps the two apart or has no IPv6.
            Self::Every { port } => Ok(vec![
                SocketAddr::from((Ipv6Addr::UNSPECIFIED, *port)),
                SocketAddr::from((Ipv4Addr::UNSPECIFIED, *port)),
            ]),
            Self::Name(name) => {
                let unknown = |why: &dyn fmt::Display| {
                    Failure::hint(
                        format_args!("the system does not know the address of {name}: {why}"),
                        "correct `--listen`, or give an IP address",
                    )
                };
                let addresses: Vec<SocketAddr> = name.to_socket_addrs().map_err(|error| unknown(&error))?.collect();
                if addresses.is_empty() { Err(unknown(&"it has none")) } else { Ok(addresses) }
            }
        }
    }

    /// Takes the port at the first address that can be had.
    pub(super) fn bind(&self, limits: LimitArguments, registry: &Arc<dyn Registry>) -> Result<TcpTransport, Failure> {
        let mut failed = Vec::new();
        for address in self.addresses()? {
            let config = limits.transport(TcpConfig::listen(address));
            match TcpTransport::bind(config, Arc::clone(registry)) {
                Ok(transport) => return Ok(transport),
                Err(error) => failed.push(error.to_string()),
            }
        }
        failed.dedup();
        let why = failed.join("; ");
        Err(Failure::new(if matches!(self, Self::At(_)) { why } else { format!("{self}: {why}") }))
    }
}

#[cfg(all(test, not(trustkeep_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_place_to_listen_is_an_address_a_name_or_a_port() {
        for (text, place) in [
            ("127.0.0.1:0", Listen::At(SocketAddr::from(([127, 0, 0, 1], 0)))),
            ("[::1]:4440", Listen::At(SocketAddr::from((Ipv6Addr::LOCALHOST, 4440)))),
            ("localhost:0", Listen::Name("localhost:0".to_owned())),
            ("seven.example.org:65535", Listen::Name("seven.example.org:65535".to_owned())),
            (":4440", Listen::Every { port: 4440 }),
            (":0", Listen::Every { port: 0 }),
        ] {
            assert_eq!(text.parse(), Ok(place.clone()), "{text}");
            assert_eq!(place.to_string(), text);
        }
        for bad in [
            "",
            ":",
            "localhost",
            "localhost:",
            ":65536",
            ":+1",
            "300.1.1.1:1",
            "::1:4440",
            "a b:1",
            "127.0.0.1",
            "h:x",
        ] {
            assert!(bad.parse::<Listen>().is_err_and(|why| why.contains("localhost:4440")), "{bad}");
        }
    }

    #[test]
    fn a_name_that_means_nothing_is_told() {
        let listen: Listen = "nowhere.invalid:0".parse().unwrap();
        let why = listen.addresses().unwrap_err().to_string();
        assert!(why.contains("nowhere.invalid:0") && why.contains("--listen"), "{why}");
        let local: Listen = "localhost:0".parse().unwrap();
        assert!(local.addresses().unwrap().iter().all(|it| it.ip().is_loopback()));
    }
}
