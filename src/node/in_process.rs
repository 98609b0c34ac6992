//! The registry of nodes that live in one program: they find each other's keys in it, and their messages go through it.
//!
//! What must hold: a message waits until its receiver has acknowledged it, however often that node stops and starts again
//! meanwhile; a node that joins has proved its key, every time; nobody puts in what he did not sign; no inbox grows beyond
//! its limit, and no sender takes another's share.
#![forbid(unsafe_code)]

use core::fmt;
use core::time::Duration;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;

use super::identity::Identity;
use super::join_proof::{Challenge, RegistryName};
use super::random::{Random, SystemRandom};
use super::registry::{Fetched, Registry, RegistryEntry, RegistryError, Relayed, Relaying, Revision};
use crate::clock::{Clock as _, SystemClock};
use crate::foreign;
use crate::peer::{NodeId, PublicKey};
use crate::sync::{Condvar, Deadline, Mutex};
use crate::wire::decode::decode;
use crate::wire::message::{Kind, Message};
use crate::wire::verify::verify;

/// Where the nodes of one program meet. It keeps everything in memory, and goes when the program goes.
///
/// Nodes save the newest revision of a peer's entry, so entries are numbered from the time at which their node first
/// joined, in milliseconds since 1970: those of the next life of the program are newer, unless the clock was set back. Then
/// [`HandshakeManager::forget_revisions`](crate::HandshakeManager::forget_revisions) is the cure.
///
/// Code that holds the registry itself owns it: it may let any node in, and set any networks. Hand
/// [`InProcessMember`]s, not the registry, to code that may do neither.
///
/// # Examples
/// `examples/relay.rs`.
#[derive(Clone)]
pub struct InProcessRegistry {
    nodes: Arc<Mutex<HashMap<NodeId, Arc<Node>>>>,
    /// Drawn when the first node joins.
    name: Arc<Mutex<Option<RegistryName>>>,
    inbox_max: usize,
}

/// One node that has joined, through all of its lives.
struct Node {
    entry: Mutex<RegistryEntry>,
    inbox: Mutex<Inbox>,
    arrived: Condvar,
}

#[derive(Default)]
struct Inbox {
    messages: BTreeMap<Revision, Waiting>,
    newest: u64,
    /// How often the node has joined; only its last life has the inbox.
    life: u64,
}

struct Waiting {
    from: NodeId,
    kind: Kind,
    bytes: Vec<u8>,
}

/// One node's way into an [`InProcessRegistry`]: the [`Registry`] to give to its manager.
pub struct InProcessMember {
    nodes: Arc<Mutex<HashMap<NodeId, Arc<Node>>>>,
    inbox_max: usize,
    id: NodeId,
    key: PublicKey,
    node: Arc<Node>,
    life: u64,
    relaying: Relaying,
    interrupted: Mutex<bool>,
}

/// Why a node may not join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum JoinError {
    /// The identity does not prove that it holds the secret half of its key: its signature of the challenge does not
    /// verify.
    NotProven {
        /// The id.
        node: NodeId,
    },
    /// The identity panicked.
    Panicked,
    /// The operating system has no random bytes for a challenge. Try again later.
    NoRandom {
        /// Its answer.
        kind: io::ErrorKind,
    },
    /// Another key has joined under this id.
    OtherKey {
        /// The id.
        node: NodeId,
    },
}

impl InProcessRegistry {
    /// A registry that nobody has joined, with room for 256 messages in each inbox.
    #[must_use]
    pub fn new() -> Self {
        Self::with_inbox_max(INBOX_MAX)
    }

    /// A registry that nobody has joined, with room for so many messages in each inbox. A sender has three places in it.
    #[must_use]
    pub fn with_inbox_max(inbox_max: usize) -> Self {
        Self { nodes: Arc::default(), name: Arc::default(), inbox_max }
    }

    /// Lets a node in that proves its key. A node that has joined before takes its place again, with all that waits for
    /// it; the one that had it until now fetches nothing any more.
    ///
    /// `networks` are those of a node that joins for the first time; 0 is none. Joining again leaves them as they are:
    /// [`set_networks`](Self::set_networks) changes them.
    ///
    /// # Ordering
    /// The identity is called without a lock held, and signs a challenge that was drawn for this call.
    ///
    /// # Errors
    /// [`JoinError::OtherKey`]: the node that joined first under an id keeps it. [`JoinError::NotProven`],
    /// [`JoinError::Panicked`] and [`JoinError::NoRandom`]. After each of them nothing has changed.
    pub fn join(&self, identity: &dyn Identity, networks: &[u16]) -> Result<InProcessMember, JoinError> {
        let (id, key) = self.proven(identity)?;
        let mut nodes = self.nodes.lock();
        let node = nodes.entry(id).or_insert_with(|| {
            let mut entry = RegistryEntry::new(key);
            entry.networks = some_networks(networks);
            entry.revision = now();
            let (entry, inbox) = (Mutex::new(entry), Mutex::new(Inbox::default()));
            Arc::new(Node { entry, inbox, arrived: Condvar::new() })
        });
        let node = Arc::clone(node);
        drop(nodes);
        let mut known = node.entry.lock();
        if known.key != Some(key) {
            return Err(JoinError::OtherKey { node: id });
        }
        known.revision = Revision(known.revision.0 + 1);
        drop(known);
        let mut inbox = node.inbox.lock();
        inbox.life += 1;
        let life = inbox.life;
        drop(inbox);
        // Whoever had it until now stops waiting.
        node.arrived.notify_one();
        Ok(InProcessMember {
            nodes: Arc::clone(&self.nodes),
            inbox_max: self.inbox_max,
            id,
            key,
            node,
            life,
            relaying: Relaying::Watch,
            interrupted: Mutex::new(false),
        })
    }

    /// Sets the networks of a node that has joined, for whoever owns the registry; 0 is none. False if no node has
    /// joined under this id.
    ///
    /// # Ordering
    /// A look-up that begins after this returned sees them. Trust that a node has given by a network stays.
    pub fn set_networks(&self, node: NodeId, networks: &[u16]) -> bool {
        let Some(node) = self.nodes.lock().get(&node).cloned() else { return false };
        let mut entry = node.entry.lock();
        entry.networks = some_networks(networks);
        entry.revision = Revision(entry.revision.0 + 1);
        true
    }

    /// The id and key of an identity that signs for them, here and now.
    fn proven(&self, identity: &dyn Identity) -> Result<(NodeId, PublicKey), JoinError> {
        let named = foreign::run(|| (identity.node_id(), identity.public_key()));
        let (node, key) = named.map_err(|_| JoinError::Panicked)?;
        let challenge = self.challenge(node, key).map_err(|error| JoinError::NoRandom { kind: error.kind() })?;
        let bytes = challenge.bytes();
        let proof = foreign::run(|| identity.sign(&bytes)).map_err(|_| JoinError::Panicked)?;
        if challenge.is_answered_by(&proof) { Ok((node, key)) } else { Err(JoinError::NotProven { node }) }
    }

    fn challenge(&self, node: NodeId, key: PublicKey) -> io::Result<Challenge> {
        let random: &dyn Random = &SystemRandom;
        let mut name = self.name.lock();
        let registry = match *name {
            Some(registry) => registry,
            None => *name.insert(RegistryName::draw(random)?),
        };
        drop(name);
        Challenge::draw(registry, node, key, random)
    }

    /// How many messages wait for a node that has joined.
    #[must_use]
    pub fn waiting(&self, node: NodeId) -> usize {
        let node = self.nodes.lock().get(&node).cloned();
        node.map_or(0, |node| node.inbox.lock().messages.len())
    }
}

impl InProcessMember {
    /// The same member, but it must be polled, as a registry far away may have to be.
    #[must_use]
    pub fn polled(mut self) -> Self {
        self.relaying = Relaying::Poll;
        self
    }

    fn node(&self, id: NodeId) -> Option<Arc<Node>> {
        self.nodes.lock().get(&id).cloned()
    }
}

impl Registry for InProcessMember {
    fn look_up(&self, peer: NodeId) -> Result<Option<RegistryEntry>, RegistryError> {
        Ok(self.node(peer).map(|node| node.entry.lock().clone()))
    }

    fn may_block(&self) -> bool {
        false
    }

    fn relaying(&self) -> Relaying {
        self.relaying
    }

    fn relay(&self, to: NodeId, kind: Kind, message: &[u8]) -> Result<(), RegistryError> {
        let parsed = Message::parse(message).ok().and_then(|message| decode(message).ok());
        let signed = parsed.and_then(|decoded| verify(decoded, to).ok()).ok_or(RegistryError::NotRelayed)?;
        let ours = (signed.sender(), *signed.key(), signed.kind()) == (self.id, self.key, kind);
        if !ours || kind == Kind::Revoke {
            return Err(RegistryError::NotRelayed);
        }
        let node = self.node(to).ok_or(RegistryError::UnknownNode { node: to })?;
        let mut inbox = node.inbox.lock();
        // The newest of each kind from each sender is all that means anything, so a sender has three places at most.
        let same = |waiting: &Waiting| waiting.from == self.id && waiting.kind == kind;
        inbox.messages.retain(|_, waiting| !same(waiting));
        if inbox.messages.len() >= self.inbox_max {
            return Err(RegistryError::InboxFull { node: to });
        }
        inbox.newest += 1;
        let revision = Revision(inbox.newest);
        inbox.messages.insert(revision, Waiting { from: self.id, kind, bytes: message.to_vec() });
        drop(inbox);
        node.arrived.notify_one();
        Ok(())
    }

    fn fetch(&self, after: Revision, max: usize, wait: Duration) -> Fetched {
        let until = Deadline::after(if self.relaying == Relaying::Watch { wait } else { Duration::ZERO });
        let mut inbox = self.node.inbox.lock();
        loop {
            if inbox.life != self.life {
                drop(inbox);
                // The word may have been meant for the one that took our place.
                self.node.arrived.notify_one();
                return Fetched::partly(Vec::new(), RegistryError::Replaced);
            }
            if after.0 > inbox.newest {
                return Fetched::partly(Vec::new(), RegistryError::RevisionUnknown);
            }
            let newer = inbox.messages.iter().filter(|(revision, _)| **revision > after).take(max);
            let messages: Vec<_> =
                newer.map(|(revision, waiting)| Relayed::new(*revision, waiting.from, waiting.bytes.clone())).collect();
            if !messages.is_empty() || *self.interrupted.lock() {
                return Fetched::all(messages);
            }
            let (guard, late) = self.node.arrived.wait_until(inbox, until);
            if late {
                return Fetched::default();
            }
            inbox = guard;
        }
    }

    fn acknowledge(&self, message: Revision) -> Result<(), RegistryError> {
        let mut inbox = self.node.inbox.lock();
        if inbox.life != self.life {
            return Err(RegistryError::Replaced);
        }
        inbox.messages.remove(&message);
        Ok(())
    }

    fn interrupt(&self) {
        let inbox = self.node.inbox.lock();
        *self.interrupted.lock() = true;
        drop(inbox);
        self.node.arrived.notify_one();
    }
}

impl Default for InProcessRegistry {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for InProcessRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InProcessRegistry").field("nodes", &self.nodes.lock().len()).finish()
    }
}

impl fmt::Debug for InProcessMember {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InProcessMember").field("node", &self.id).finish_non_exhaustive()
    }
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherKey { node } => write!(f, "another key has joined the registry as node {node}"),
            Self::NotProven { node } => write!(f, "node {node} does not prove that it holds its key"),
            Self::Panicked => f.write_str("the identity panicked"),
            Self::NoRandom { kind } => write!(f, "no random bytes for a challenge: {kind}"),
        }
    }
}

impl core::error::Error for JoinError {}

/// The first revision of an entry that begins now.
fn now() -> Revision {
    Revision(u64::try_from(SystemClock.now().wall.as_millis()).unwrap_or(0))
}

fn some_networks(networks: &[u16]) -> Vec<u16> {
    networks.iter().copied().filter(|network| *network != 0).collect()
}

/// Messages that may wait for one node, unless told otherwise.
const INBOX_MAX: usize = 256;
