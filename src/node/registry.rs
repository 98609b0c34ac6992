//! Who vouches for peers: a registry knows keys, addresses and networks of nodes, and is told of grants and losses.
//!
//! A registry may be slow, wrong or gone. It can only ever *bind* a key or contradict one; a failure binds nothing.
#![forbid(unsafe_code)]

use core::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::peer::{NodeId, PublicKey};

/// A directory of nodes that this node believes.
pub trait Registry: Send + Sync {
    /// What the registry knows of a peer, or `None` if it does not know the peer.
    ///
    /// # Ordering
    /// May block; the manager never calls it while it holds a lock, and goes on without the answer when it takes too
    /// long. It may be called from several threads at once.
    ///
    /// # Errors
    /// The registry could not be asked. The message in hand is then treated as if no registry existed.
    fn look_up(&self, peer: NodeId) -> Result<Option<RegistryEntry>, RegistryError>;

    /// Whether [`look_up`](Self::look_up) may take long enough to need a thread of its own.
    fn may_block(&self) -> bool {
        true
    }

    /// Tells the registry that we trust a peer now.
    ///
    /// # Errors
    /// The registry did not take it; nothing here changes, and it is not told again.
    fn report_grant(&self, peer: NodeId) -> Result<(), RegistryError>;

    /// Tells the registry that we no longer trust a peer.
    ///
    /// # Errors
    /// The registry did not take it; nothing here changes, and it is not told again.
    fn report_revoke(&self, peer: NodeId) -> Result<(), RegistryError>;
}

/// What a registry knows of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RegistryEntry {
    /// Its key, if the registry vouches for one.
    pub key: Option<PublicKey>,
    /// Where it listens, the best first.
    pub addresses: Vec<SocketAddr>,
    /// The networks it belongs to, none of them 0, in the registry's order.
    pub networks: Vec<u16>,
}

impl RegistryEntry {
    /// An entry that vouches for this key and knows nothing else.
    #[must_use]
    pub fn new(key: impl Into<Option<PublicKey>>) -> Self {
        Self { key: key.into(), addresses: Vec::new(), networks: Vec::new() }
    }

    /// The same entry, with one more address.
    #[must_use]
    pub fn address(mut self, address: SocketAddr) -> Self {
        self.addresses.push(address);
        self
    }

    /// The same entry, in one more network.
    #[must_use]
    pub fn network(mut self, network: u16) -> Self {
        self.networks.push(network);
        self
    }
}

/// Why a registry gave no answer.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum RegistryError {
    /// It took longer than the time allowed; the question may still be running.
    TimedOut,
    /// Too many questions to it are still running, about this peer or altogether.
    Busy,
    /// It panicked.
    Panicked,
    /// It failed in its own way.
    Other(Arc<dyn core::error::Error + Send + Sync>),
}

impl fmt::Display for RegistryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut => f.write_str("the registry did not answer in the time allowed"),
            Self::Busy => f.write_str("too many questions to the registry are unanswered"),
            Self::Panicked => f.write_str("the registry panicked"),
            Self::Other(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for RegistryError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Other(error) => Some(error.as_ref()),
            _ => None,
        }
    }
}
