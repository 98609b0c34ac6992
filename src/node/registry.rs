//! Who vouches for peers, and who carries messages between those who cannot dial each other.
//!
//! A registry may be slow, wrong or gone. It can only ever *bind* a key or contradict one, and carry what others signed; a
//! failure binds nothing and loses nothing.
#![forbid(unsafe_code)]

use core::fmt;
use core::time::Duration;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::foreign;
use crate::peer::{NodeId, PublicKey};
use crate::wire::message::Kind;

/// A directory of nodes that this node believes, and perhaps a relay of messages between them, which it does not.
///
/// One question must be answered, [`look_up`](Self::look_up); whoever has nothing to say to the others leaves them as they
/// are. A registry that relays belongs to one node.
///
/// # Ordering
/// Every call may block, may be made from several threads at once, and is never made while a lock is held. The manager
/// waits for none longer than its time limit; a call that hangs occupies one of a bounded number of threads until it
/// returns, and holds up nothing else.
///
/// # Panics
/// A panic counts as a failure.
pub trait Registry: Send + Sync {
    /// What the registry knows of a peer, or `None` if it does not know the peer.
    ///
    /// # Errors
    /// The registry could not be asked. That is not *not known*: while it lasts nobody is trusted whom the registry might
    /// contradict, and the message in hand waits for the operator, or for later.
    fn look_up(&self, peer: NodeId) -> Result<Option<RegistryEntry>, RegistryError>;

    /// Whether [`look_up`](Self::look_up) may take long enough to need a thread of its own.
    fn may_block(&self) -> bool {
        true
    }

    /// Tells the registry that we trust a peer now. A registry that does not care need not listen.
    ///
    /// # Errors
    /// The registry did not take it; nothing here changes, and it is not told again.
    fn report_grant(&self, _peer: NodeId) -> Result<(), RegistryError> {
        Ok(())
    }

    /// Tells the registry that we no longer trust a peer. A registry that does not care need not listen.
    ///
    /// # Errors
    /// The registry did not take it; nothing here changes, and it is not told again.
    fn report_revoke(&self, _peer: NodeId) -> Result<(), RegistryError> {
        Ok(())
    }

    /// Whether it relays messages, and how they are had. Asked once, when the node starts.
    fn relaying(&self) -> Relaying {
        Relaying::No
    }

    /// Takes a signed request or answer of ours, and keeps it for `to` until that node acknowledges it.
    ///
    /// A newer message of the same kind to the same node may take the place of an older one: it is the only one that
    /// still means something.
    ///
    /// # Errors
    /// It was not taken, and will not arrive this way. [`RegistryError::NoRelay`], unless overridden.
    fn relay(&self, _to: NodeId, _kind: Kind, _message: &[u8]) -> Result<(), RegistryError> {
        Err(RegistryError::NoRelay)
    }

    /// The messages to us that were not acknowledged and are newer than `after`, the oldest first, at most `max`.
    ///
    /// A registry that can be watched waits up to `wait` for the first one. What it hands out it keeps: a node that stops
    /// before it acknowledges asks from [`Revision::NONE`] when it is back.
    fn fetch(&self, _after: Revision, _max: usize, _wait: Duration) -> Fetched {
        Fetched::default()
    }

    /// We have processed this message, and what came of it is durable: it need not be kept any longer. Acknowledging
    /// what is gone is no error.
    ///
    /// # Errors
    /// The registry did not take it; it is told again.
    fn acknowledge(&self, _message: Revision) -> Result<(), RegistryError> {
        Ok(())
    }

    /// The node stops: a [`fetch`](Self::fetch) that is waiting should return now. Must not block.
    fn interrupt(&self) {}
}

/// Whether a registry relays messages, and how they are had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Relaying {
    /// It relays nothing.
    No,
    /// [`Registry::fetch`] answers at once, so it is asked again and again.
    Poll,
    /// [`Registry::fetch`] waits for messages.
    Watch,
}

/// A number that a registry gives to each of its states or messages, rising; what it was given later has a higher one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl Revision {
    /// Before everything; of an entry: the registry does not number its entries.
    pub const NONE: Self = Self(0);
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
    /// As of when. An entry older than one that was seen before, as a replica that lags may give, is a failure
    /// ([`RegistryError::Outdated`]): it could bind a key that was replaced. Of trusted peers the newest one seen is saved, so
    /// a registry numbers on across its own restarts, or not at all; one that was put back on purpose is heard again after
    /// [`forget_revisions`](crate::HandshakeManager::forget_revisions).
    pub revision: Revision,
}

impl RegistryEntry {
    /// An entry that vouches for this key and knows nothing else.
    #[must_use]
    pub fn new(key: impl Into<Option<PublicKey>>) -> Self {
        Self { key: key.into(), ..Self::default() }
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

    /// The same entry, as of this revision.
    #[must_use]
    pub fn revision(mut self, revision: Revision) -> Self {
        self.revision = revision;
        self
    }
}

/// A message that a relay has for us.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Relayed {
    /// Its number in our inbox, under which it is acknowledged.
    pub revision: Revision,
    /// Who gave it to the relay, as the relay authenticated that: whom limits are charged to. It proves nothing else.
    pub from: NodeId,
    /// The bytes, as they were given.
    pub bytes: Vec<u8>,
}

impl Relayed {
    /// A message that `from` gave to the relay.
    #[must_use]
    pub const fn new(revision: Revision, from: NodeId, bytes: Vec<u8>) -> Self {
        Self { revision, from, bytes }
    }
}

/// What a relay had for us. Both may be there: what could be had, and why there may be more.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Fetched {
    /// Messages, the oldest first.
    pub messages: Vec<Relayed>,
    /// Why some may be missing. They are asked for again, from the same revision.
    pub failure: Option<RegistryError>,
}

impl Fetched {
    /// Everything there is.
    #[must_use]
    pub const fn all(messages: Vec<Relayed>) -> Self {
        Self { messages, failure: None }
    }

    /// What there is but for a failure.
    #[must_use]
    pub const fn partly(messages: Vec<Relayed>, failure: RegistryError) -> Self {
        Self { messages, failure: Some(failure) }
    }
}

/// Why a registry gave no answer, or did not do as it was asked.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum RegistryError {
    /// It took longer than the time allowed; the question may still be running, and a message may still be taken.
    TimedOut,
    /// Too many questions to it are still running, about this peer or altogether.
    Busy,
    /// It panicked.
    Panicked,
    /// Its answer is older than one that it gave before.
    Outdated,
    /// It relays no messages.
    NoRelay,
    /// It does not know the node that a message is for.
    UnknownNode {
        /// The node.
        node: NodeId,
    },
    /// The node that a message is for has too many waiting.
    InboxFull {
        /// The node.
        node: NodeId,
    },
    /// It relays signed requests and answers of ours, and this is none.
    NotRelayed,
    /// It no longer knows the revision that it was asked to go on from; ask from the beginning.
    RevisionUnknown,
    /// That a relay may know our request is not durable yet: a relay is not given it before.
    NotSaved,
    /// We are not the node that it gives this inbox to any more: another has taken our place.
    Replaced,
    /// It failed in its own way.
    Other(Arc<dyn core::error::Error + Send + Sync>),
}

impl fmt::Display for RegistryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut => f.write_str("the registry did not answer in the time allowed"),
            Self::Busy => f.write_str("too many questions to the registry are unanswered"),
            Self::Panicked => f.write_str("the registry panicked"),
            Self::Outdated => f.write_str("the registry gave an answer older than one before"),
            Self::NoRelay => f.write_str("the registry relays no messages"),
            Self::UnknownNode { node } => write!(f, "the registry does not know node {node}"),
            Self::InboxFull { node } => write!(f, "too many relayed messages wait for node {node}"),
            Self::NotRelayed => f.write_str("the registry relays signed requests and answers of its own nodes only"),
            Self::RevisionUnknown => f.write_str("the registry no longer knows the revision to go on from"),
            Self::NotSaved => f.write_str("the request was not saved in time, and is given to no relay before"),
            Self::Replaced => f.write_str("another has joined the registry as this node"),
            Self::Other(error) => f.write_str(&foreign::shown(error)),
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
