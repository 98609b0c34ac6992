//! Where a peer listens, as a person writes it.
#![forbid(unsafe_code)]

use core::fmt;
use core::net::SocketAddr;

/// Where a peer listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    Number(SocketAddr),
    /// A host name and a port.
    Name(String),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(address) => address.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl Address {
    pub(super) fn number(&self) -> Option<SocketAddr> {
        if let Self::Number(address) = self { Some(*address) } else { None }
    }

    pub(super) fn name(&self) -> Option<&String> {
        if let Self::Name(name) = self { Some(name) } else { None }
    }

    /// None of what is neither, or has no port.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return (address.port() != 0).then_some(Self::Number(address));
        }
        let (host, port) = text.rsplit_once(':')?;
        let is_port = port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port != 0);
        (is_port && Self::is_host_name(host)).then(|| Self::Name(text.to_owned()))
    }

    /// Whether this can be the name of a host.
    pub(crate) fn is_host_name(host: &str) -> bool {
        let is_label = |label: &str| {
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
            (1..=63).contains(&label.len())
                && label.bytes().all(is_plain)
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        let host = host.strip_suffix('.').unwrap_or(host);
        // A last label of digits alone is an address that is none, as `300.1.1.1`.
        let is_number = host.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
        host.len() <= 253 && host.split('.').all(is_label) && !is_number
    }
}

#[cfg(all(test, not(trustkeep_loom)))]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_number_or_a_host_name_and_a_port() {
        for good in ["127.0.0.1:1", "[::1]:65535"] {
            assert_eq!(Address::parse(good), Some(Address::Number(good.parse().unwrap())));
        }
        for good in ["localhost:4440", "nine.example.org:4440", "nine.example.org.:4440", "my_node-2:1", "1.example:9"]
        {
            assert_eq!(Address::parse(good), Some(Address::Name(good.to_owned())));
        }
        let long = format!("{}:1", "x".repeat(64));
        for bad in [
            "",
            ":",
            ":1",
            "host",
            "host:",
            "host:0",
            "host:65536",
            "host:+1",
            "host:x",
            "127.0.0.1:0",
            "127.0.0.1",
            "300.1.1.1:1",
            "1:1",
            "::1:4440",
            "a..b:1",
            ".a:1",
            "-a:1",
            "a-:1",
            "a b:1",
            "a/b:1",
            "h\u{f6}st:1",
            &long,
        ] {
            assert_eq!(Address::parse(bad), None, "{bad}");
        }
    }
}
