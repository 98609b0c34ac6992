//! What an import says about the peers that it made trusted, besides its entries: those without a key, and keys of several.
//!
//! What must hold: of what was trusted before nothing is said by itself; memory is bounded by the tables (I-T3), and no
//! choice of keys makes the search slow.
#![forbid(unsafe_code)]

use core::fmt::{self, Display};
use core::hash::BuildHasher as _;
use std::collections::hash_map::RandomState;

use crate::machine::view::View as _;
use crate::peer::{NodeId, PublicKey};
use crate::tables::Tables;

/// What an operator should know about newly trusted peers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Remarks {
    /// They have no key: the first one that somebody vouches for becomes theirs.
    pub(crate) unbound: FirstPeers,
    /// At most [`KEYS_MAX`], the key of the lowest peer first.
    pub(crate) shared_keys: Vec<SharedKey>,
    /// How many more there are.
    pub(crate) shared_keys_left_out: u64,
}

/// Some peers of a number of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FirstPeers {
    pub(crate) count: u64,
    /// The lowest, at most [`PEERS_MAX`].
    pub(crate) peers: Vec<u32>,
}

/// A key under which several peers are trusted, at least one of them newly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SharedKey {
    pub(crate) key: PublicKey,
    pub(crate) peers: FirstPeers,
}

impl FirstPeers {
    fn new(mut peers: Vec<u32>) -> Self {
        peers.sort_unstable();
        let count = peers.len() as u64;
        peers.truncate(PEERS_MAX);
        Self { count, peers }
    }
}

/// As `3, 4, 9 and 5 more`.
impl Display for FirstPeers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let peers: Vec<String> = self.peers.iter().map(u32::to_string).collect();
        f.write_str(&peers.join(", "))?;
        match self.count.saturating_sub(self.peers.len() as u64) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

impl Remarks {
    pub(super) fn new(before: &Tables, after: &Tables) -> Self {
        let is_new = |peer: u32| NodeId::new(peer).is_some_and(|peer| before.trusted(peer).is_none());
        let hasher = RandomState::new();
        let mut unbound = Vec::new();
        let mut keyed = Vec::new();
        for record in after.trusted.iter() {
            match record.public_key {
                Some(key) => keyed.push((hasher.hash_one(key), record.node_id.get())),
                None if is_new(record.node_id.get()) => unbound.push(record.node_id.get()),
                None => {}
            }
        }
        keyed.sort_unstable();
        let mut shared_keys = Vec::new();
        for group in keyed.chunk_by(|(one, _), (other, _)| one == other).filter(|group| group.len() > 1) {
            // As good as always one key.
            let key_of = |id: u32| NodeId::new(id).and_then(|peer| after.trusted(peer)).and_then(|it| it.public_key);
            let mut of_group: Vec<(PublicKey, u32)> =
                group.iter().filter_map(|(_, id)| Some((key_of(*id)?, *id))).collect();
            of_group.sort_unstable();
            for same in of_group.chunk_by(|(one, _), (other, _)| one == other) {
                if let [(key, _), _, ..] = same
                    && same.iter().any(|(_, id)| is_new(*id))
                {
                    let peers = FirstPeers::new(same.iter().map(|(_, id)| *id).collect());
                    shared_keys.push(SharedKey { key: *key, peers });
                }
            }
        }
        shared_keys.sort_unstable_by(|one, other| one.peers.peers.cmp(&other.peers.peers));
        let shared_keys_left_out = shared_keys.len().saturating_sub(KEYS_MAX) as u64;
        shared_keys.truncate(KEYS_MAX);
        Self { unbound: FirstPeers::new(unbound), shared_keys, shared_keys_left_out }
    }
}

/// Keys of several peers that are told.
const KEYS_MAX: usize = 1000;
/// Peers that are named in one place.
const PEERS_MAX: usize = 16;
