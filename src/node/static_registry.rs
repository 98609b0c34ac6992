//! The registry that an operator writes by hand: a TOML file of peers, read once (`docs/peers.md`).
//!
//! A file with one bad line is refused as a whole, naming the line: half a list of peers would be worse than none.
//!
//! Some more than 450 lines because what a file says and what a name stands for are tried beside it.
#![forbid(unsafe_code)]

use core::fmt;
use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;

use super::address::Address;
use super::registry::{Registry, RegistryEntry, RegistryError};
use crate::peer::NodeId;
#[cfg(feature = "cli")]
use crate::peer::PublicKey;
use crate::sync::{Arc, Mutex};
use crate::wire::open_key::parse_key;
use crate::wire::text::one_line;

/// Peers, their addresses, keys and networks, as a file lists them; none of that ever changes.
///
/// An address may be a host name. Looking a peer up never asks the system for names: [`resolve`](Self::resolve) does, and
/// until then such a peer has no address.
///
/// ```toml
/// [[peer]]
/// id = 9
/// address = "127.0.0.1:4440"                                     # may be left out; a host name, or a list, will do
/// public_key = "0EqyMnQrtKs6E2i9RhXk5tAiSrcaAWuvhSCjMsl3hzc="    # may be left out; nothing is bound then
/// networks = [3, 5]                                              # may be left out
/// ```
#[derive(Clone, Default)]
pub struct StaticRegistry {
    peers: HashMap<NodeId, RegistryEntry>,
    /// Of peers that have host names among their addresses, all of these, in the order of the file.
    named: HashMap<NodeId, Vec<Address>>,
    /// What the names stood for when they were last asked for.
    resolved: Arc<Mutex<HashMap<String, Vec<SocketAddr>>>>,
}

/// A peer as the file lists it.
#[cfg(feature = "cli")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    /// In the order in which they are tried.
    pub(crate) addresses: Vec<String>,
    pub(crate) key: Option<PublicKey>,
    pub(crate) networks: Vec<u16>,
}

/// Of what a program knows by itself; of two entries of one peer the last counts.
impl FromIterator<(NodeId, RegistryEntry)> for StaticRegistry {
    fn from_iter<I: IntoIterator<Item = (NodeId, RegistryEntry)>>(entries: I) -> Self {
        Self { peers: entries.into_iter().collect(), ..Self::default() }
    }
}

impl StaticRegistry {
    /// The peers that this file lists.
    ///
    /// # Errors
    /// [`PeersFileError`]: the file cannot be read, or a line of it is wrong. Correct the file.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, PeersFileError> {
        let path = path.as_ref();
        let io = |source| PeersFileError::Io { path: path.to_owned(), source };
        // A pipe that no process writes to would be waited for.
        let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0);
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(io)?;
        if !file.metadata().map_err(io)?.is_file() {
            return Err(io(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")));
        }
        let mut bytes = Vec::new();
        file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(io)?;
        let bad = |line, reason: String| PeersFileError::Bad { path: path.to_owned(), line, reason };
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(bad(1, format!("larger than {FILE_BYTES_MAX} bytes")));
        }
        let text = String::from_utf8(bytes).map_err(|error| {
            let good = error.utf8_error().valid_up_to();
            bad(line_of(error.as_bytes(), good), "not UTF-8".to_owned())
        })?;
        Self::parse(&text).map_err(|(line, reason)| bad(line, reason))
    }

    /// Asks the system what the host names in the file stand for, and remembers the answers; of a name that it cannot tell
    /// now, the answer before stays. Says how many names there are, and which could not be told, and why.
    ///
    /// # Ordering
    /// Blocks for as long as the system takes. Look-ups go on meanwhile.
    pub fn resolve(&self) -> (usize, Vec<(String, io::Error)>) {
        let mut names: Vec<&String> = self.named.values().flatten().filter_map(Address::name).collect();
        names.sort_unstable();
        names.dedup();
        let mut untold = Vec::new();
        for name in &names {
            match name.to_socket_addrs() {
                Ok(addresses) => {
                    let mut distinct: Vec<SocketAddr> = Vec::new();
                    for address in addresses {
                        if !distinct.contains(&address) {
                            distinct.push(address);
                        }
                    }
                    self.resolved.lock().insert((*name).clone(), distinct);
                }
                Err(error) => untold.push(((*name).clone(), error)),
            }
        }
        (names.len(), untold)
    }

    /// Knows what the names in another file were found to stand for.
    #[cfg(feature = "cli")]
    pub(crate) fn inherit(&self, older: &Self) {
        if !Arc::ptr_eq(&self.resolved, &older.resolved) {
            let known = older.resolved.lock().clone();
            self.resolved.lock().extend(known);
        }
    }

    /// A peer as the file lists it.
    #[cfg(feature = "cli")]
    pub(crate) fn listed(&self, peer: NodeId) -> Option<Listed> {
        let entry = self.peers.get(&peer)?;
        let addresses = match self.named.get(&peer) {
            Some(addresses) => addresses.iter().map(ToString::to_string).collect(),
            None => entry.addresses.iter().map(ToString::to_string).collect(),
        };
        Some(Listed { addresses, key: entry.key, networks: entry.networks.clone() })
    }

    /// The peers that it lists, by id.
    #[cfg(feature = "cli")]
    pub(crate) fn ids(&self) -> Vec<NodeId> {
        let mut ids: Vec<NodeId> = self.peers.keys().copied().collect();
        ids.sort_unstable();
        ids
    }

    /// How many peers it knows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.peers.len()
    }

    /// Whether it knows nobody.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    /// The peers of this text, or the first bad line (counted from 1) and what is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, (usize, String)> {
        let line = |span: Range<usize>| line_of(text.as_bytes(), span.start);
        let file: File = toml::from_str(text)
            .map_err(|error| (error.span().map_or(1, &line), one_line(&error.message().replace('\n', " "))))?;
        let mut peers = HashMap::with_capacity(file.peer.len());
        let mut lines = HashMap::with_capacity(file.peer.len());
        let mut named = HashMap::new();
        for peer in file.peer {
            let at = line(peer.id.span());
            let id = NodeId::new(*peer.id.get_ref()).ok_or_else(|| (at, "0 is no node id".to_owned()))?;
            let mut entry = RegistryEntry::default();
            let mut addresses = Vec::new();
            let at_address = peer.address.as_ref().map_or(at, |address| line(address.span()));
            let bad = |reason| (at_address, reason);
            for text in peer.address.as_ref().map(|address| address.get_ref().as_slice()).unwrap_or_default() {
                let parsed = Address::parse(text)
                    .ok_or_else(|| bad(format!("{text:?} is not an IP address or a host name, and a port")))?;
                if addresses.contains(&parsed) {
                    return Err(bad(format!("{text:?} is listed twice")));
                }
                if addresses.len() == ADDRESSES_MAX {
                    return Err(bad(format!("more than {ADDRESSES_MAX} addresses of one peer")));
                }
                addresses.push(parsed);
            }
            if addresses.iter().any(|address| address.name().is_some()) {
                named.insert(id, addresses);
            } else {
                entry.addresses.extend(addresses.iter().filter_map(Address::number));
            }
            if let Some(key) = peer.public_key {
                let refused = |reason| (line(key.span()), format!("{reason}"));
                entry.key = Some(parse_key(key.get_ref()).map_err(refused)?);
            }
            for network in peer.networks {
                let at = line(network.span());
                let network = network.into_inner();
                if network == 0 {
                    return Err((at, "0 is no network".to_owned()));
                }
                if entry.networks.contains(&network) {
                    return Err((at, format!("network {network} is listed twice")));
                }
                entry.networks.push(network);
            }
            if let Some(first) = lines.insert(id, at) {
                return Err((at, format!("node {id} is listed on line {first} already")));
            }
            peers.insert(id, entry);
        }
        Ok(Self { peers, named, resolved: Arc::default() })
    }
}

impl Registry for StaticRegistry {
    fn look_up(&self, peer: NodeId) -> Result<Option<RegistryEntry>, RegistryError> {
        let mut found = self.peers.get(&peer).cloned();
        if let (Some(entry), Some(addresses)) = (&mut found, self.named.get(&peer)) {
            let resolved = self.resolved.lock();
            for address in addresses {
                let of_name = address.name().and_then(|name| resolved.get(name)).into_iter().flatten().copied();
                // Two names, or a name and a number, may stand for the same.
                for address in address.number().into_iter().chain(of_name) {
                    if !entry.addresses.contains(&address) {
                        entry.addresses.push(address);
                    }
                }
            }
        }
        Ok(found)
    }

    fn may_block(&self) -> bool {
        false
    }
}

impl fmt::Debug for StaticRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StaticRegistry").field("peers", &self.peers.len()).finish()
    }
}

/// Why a peers file was refused; nothing of it is used.
#[derive(Debug)]
#[non_exhaustive]
pub enum PeersFileError {
    /// The file cannot be read.
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// A line is wrong.
    Bad {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
}

impl fmt::Display for PeersFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { path, source } => write!(f, "{}: {source}", path.display()),
            Self::Bad { path, line, reason } => write!(f, "{}: line {line}: {reason}", path.display()),
        }
    }
}

impl core::error::Error for PeersFileError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::Bad { .. } => None,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    peer: Vec<Peer>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Peer {
    id: Spanned<u32>,
    address: Option<Spanned<OneOrMore>>,
    public_key: Option<Spanned<String>>,
    #[serde(default)]
    networks: Vec<Spanned<u16>>,
}

/// A text, or a list of texts.
#[derive(Deserialize)]
#[serde(untagged, expecting = "an address is a text, or a list of texts")]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl OneOrMore {
    fn as_slice(&self) -> &[String] {
        match self {
            Self::One(one) => core::slice::from_ref(one),
            Self::More(more) => more,
        }
    }
}

fn line_of(bytes: &[u8], offset: usize) -> usize {
    1 + bytes.iter().take(offset).filter(|&&byte| byte == b'\n').count()
}

/// Addresses of one peer; each that is down costs who sends some seconds.
const ADDRESSES_MAX: usize = 16;
/// Some hundred thousand peers; beyond that a registry of another kind is wanted.
const FILE_BYTES_MAX: u64 = 32 * 1024 * 1024;

#[cfg(all(test, not(trustkeep_loom)))]
#[expect(clippy::unwrap_used, reason = "tests say what must hold by panicking")]
mod tests {
    use super::*;

    const KEY: &str = "0EqyMnQrtKs6E2i9RhXk5tAiSrcaAWuvhSCjMsl3hzc=";

    fn id(id: u32) -> NodeId {
        NodeId::new(id).unwrap()
    }

    #[test]
    fn a_good_file_is_read_whole() {
        let text = format!(
            "# two of us\n[[peer]]\nid = 9\naddress = \"127.0.0.1:4440\"\npublic_key = \"{KEY}\"\nnetworks = [3, 5]\n\
             [[peer]]\nid = 4294967295\naddress = \"[::1]:4441\"\n"
        );
        let registry = StaticRegistry::parse(&text).unwrap();
        assert_eq!(registry.len(), 2);
        let nine = registry.look_up(id(9)).unwrap().unwrap();
        assert_eq!(nine.key, Some(KEY.parse().unwrap()));
        assert_eq!(nine.addresses, ["127.0.0.1:4440".parse().unwrap()]);
        assert_eq!(nine.networks, [3, 5]);
        let last = registry.look_up(id(u32::MAX)).unwrap().unwrap();
        assert_eq!((last.key, last.networks.len()), (None, 0));
        assert_eq!(registry.look_up(id(8)).unwrap(), None);
        assert!(StaticRegistry::parse("").unwrap().is_empty());
    }

    #[test]
    fn a_bad_line_is_named_with_the_reason() {
        let weak = "public_key = \"AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\"";
        for (line, word, text) in [
            (2, "0 is no node id", "[[peer]]\nid = 0\n".to_owned()),
            (5, "listed on line 2", "[[peer]]\nid = 9\n\n[[peer]]\nid = 9\n".to_owned()),
            (3, "small order", format!("[[peer]]\nid = 9\n{weak}\n")),
            (3, "base64", format!("[[peer]]\nid = 9\npublic_key = \"{}\"\n", &KEY[1..])),
            (3, "and a port", "[[peer]]\nid = 9\naddress = \"localhost\"\n".to_owned()),
            (3, "and a port", "[[peer]]\nid = 9\naddress = \"127.0.0.1:0\"\n".to_owned()),
            (3, "IP address or a host name", "[[peer]]\nid = 9\naddress = \"300.1.1.1:4440\"\n".to_owned()),
            (3, "unknown field", "[[peer]]\nid = 9\nport = 4440\n".to_owned()),
            (1, "unknown field", "[[peers]]\nid = 9\n".to_owned()),
            (1, "missing field", "[[peer]]\naddress = \"127.0.0.1:4440\"\n".to_owned()),
            (3, "listed twice", "[[peer]]\nid = 9\naddress = [\"h:1\",\n\"h:1\"]\n".to_owned()),
            (3, "and a port", "[[peer]]\nid = 9\naddress = [\"h:1\", \"h\"]\n".to_owned()),
            (3, "a text, or a list of texts", "[[peer]]\nid = 9\naddress = [1]\n".to_owned()),
            (
                3,
                "more than 16",
                format!(
                    "[[peer]]\nid = 9\naddress = {:?}\n",
                    (1..18).map(|port| format!("h:{port}")).collect::<Vec<_>>()
                ),
            ),
            (2, "", "[[peer]]\nid = 4294967296\n".to_owned()),
            (2, "", "[[peer]]\nid = -1\n".to_owned()),
            (3, "duplicate key", "[[peer]]\nid = 9\nid = 9\n".to_owned()),
            (3, "0 is no network", "[[peer]]\nid = 9\nnetworks = [0]\n".to_owned()),
            (4, "listed twice", "[[peer]]\nid = 9\nnetworks = [1,\n1]\n".to_owned()),
            (3, "", "[[peer]]\nid = 9\nnetworks = [65536]\n".to_owned()),
            (2, "", "[[peer]]\nid = \n".to_owned()),
        ] {
            let (at, reason) = StaticRegistry::parse(&text).unwrap_err();
            assert_eq!(at, line, "{text}: {reason}");
            assert!(reason.contains(word), "{text}: {reason}");
            assert!(!reason.is_empty() && !reason.contains('\n'));
        }
    }

    #[test]
    fn a_registry_of_what_a_program_knows_answers_by_the_last_entry_of_a_peer() {
        let entry = |network| RegistryEntry::new(None).network(network);
        let registry: StaticRegistry = [(id(9), entry(1)), (id(8), entry(2)), (id(9), entry(3))].into_iter().collect();
        assert_eq!((registry.len(), registry.look_up(id(9)).unwrap()), (2, Some(entry(3))));
        assert_eq!(registry.look_up(id(7)).unwrap(), None);
    }

    #[test]
    fn a_host_name_has_addresses_once_the_system_told_them() {
        let text =
            "[[peer]]\nid = 9\naddress = \"localhost:4440\"\n[[peer]]\nid = 10\naddress = \"nowhere.invalid:1\"\n";
        let registry = StaticRegistry::parse(text).unwrap();
        assert_eq!(registry.look_up(id(9)).unwrap().unwrap().addresses, []);
        let (names, untold) = registry.resolve();
        assert_eq!((names, untold.len(), untold[0].0.as_str()), (2, 1, "nowhere.invalid:1"));
        let found = registry.look_up(id(9)).unwrap().unwrap().addresses;
        assert!(!found.is_empty() && found.iter().all(|it| it.ip().is_loopback() && it.port() == 4440), "{found:?}");
        assert_eq!(registry.look_up(id(10)).unwrap().unwrap().addresses, []);
        // Another file knows it at once, and what a name stood for stays.
        #[cfg(feature = "cli")]
        {
            let newer = StaticRegistry::parse(text).unwrap();
            newer.inherit(&registry);
            assert_eq!(newer.look_up(id(9)).unwrap().unwrap().addresses, found);
        }
    }

    #[test]
    fn several_addresses_of_a_peer_are_told_in_their_order() {
        let text = "[[peer]]\nid = 9\naddress = [\"192.0.2.9:1\", \"[2001:db8::9]:2\"]\n[[peer]]\nid = 10\n\
                    address = [\"[::1]:9\", \"localhost:9\", \"192.0.2.10:9\"]\n[[peer]]\nid = 11\naddress = []\n";
        let registry = StaticRegistry::parse(text).unwrap();
        let addresses = |id: NodeId| registry.look_up(id).unwrap().unwrap().addresses;
        assert_eq!(addresses(id(9)), ["192.0.2.9:1".parse().unwrap(), "[2001:db8::9]:2".parse().unwrap()]);
        assert_eq!(addresses(id(11)), []);
        // Without the name at first; what the name stands for comes in its place, and once.
        let (first, last) = ("[::1]:9".parse().unwrap(), "192.0.2.10:9".parse().unwrap());
        assert_eq!(addresses(id(10)), [first, last]);
        assert_eq!(registry.resolve().0, 1);
        let found = addresses(id(10));
        assert_eq!((found.first(), found.last()), (Some(&first), Some(&last)));
        let distinct: std::collections::HashSet<&SocketAddr> = found.iter().collect();
        assert_eq!(distinct.len(), found.len(), "{found:?}");
        assert!(found.contains(&"127.0.0.1:9".parse().unwrap()) || found.len() == 2, "{found:?}");
        #[cfg(feature = "cli")]
        assert_eq!(registry.listed(id(10)).unwrap().addresses, ["[::1]:9", "localhost:9", "192.0.2.10:9"]);
    }

    #[test]
    fn errors_name_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("peers.toml");
        assert!(matches!(StaticRegistry::read(&path), Err(PeersFileError::Io { .. })));
        for (bytes, line) in [(&b"[[peer]]\nid = x\n"[..], "line 2: "), (b"# \n\n\xff", "line 3: not UTF-8")] {
            std::io::Write::write_all(
                &mut std::fs::OpenOptions::new().write(true).create(true).truncate(true).open(&path).unwrap(),
                bytes,
            )
            .unwrap();
            let text = StaticRegistry::read(&path).unwrap_err().to_string();
            assert!(text.starts_with(&path.display().to_string()) && text.contains(line), "{text}");
        }
    }
}
