//! The tables of trust state: what one entry of each holds, what [`step`](super::step::step) may read of them, and the
//! changes that it may ask for.
//!
//! INVARIANT I-1: keys of every table are peers: never 0, never our own id.
//! INVARIANT I-2: no peer is both trusted and revoked. Whoever grants clears the peer's pending, outgoing and revoked
//! entries; afterwards a trusted peer may come to be pending under another key, or outgoing by a forced request.
//! INVARIANT I-3: a revoked peer has no outgoing entry; whoever revokes clears trusted, pending and outgoing.
//!
//! The rest of the list is in [`check`](super::check).
#![forbid(unsafe_code)]

use std::net::IpAddr;
use std::sync::Arc;

use crate::peer::{NodeId, PublicKey, TrustRecord};
use crate::time::{Tick, WallMillis};
pub use crate::wire::message::Nonce;

/// Where a message came from, as far as limits are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Source {
    /// The transport authenticated this node.
    Node(NodeId),
    /// An address without port; of an IPv6 address, the first 64 bits.
    Address(IpAddr),
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

/// Why a peer waits for an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PendingKind {
    /// It asked to be trusted.
    Request,
    /// It answered our request, but nobody vouches for its key; approving it sends no accept.
    AnsweredUnvouched,
}

/// A peer that waits for an operator's decision.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pending {
    /// The key it showed first (or the first authentic one): the key that an operator approves.
    pub key: PublicKey,
    /// Nonce of its newest request under that key; none from a version-1 peer.
    pub nonce: Option<Nonce>,
    /// Stamp of its newest request under that key, by its own clock.
    pub stamp: WallMillis,
    /// The text of its first request, filtered.
    pub justification: String,
    /// When the newest request arrived, by our wall clock.
    pub received_at: WallMillis,
    /// The same by the tick; not saved, made anew at load.
    pub received_tick: Tick,
    /// Where its first request came from: the entry stays charged to that source's limit for as long as it waits.
    pub source: Source,
    /// Whether somebody else than the sender vouched for the key.
    pub authentic: bool,
    /// How many requests under other keys came meanwhile.
    pub conflicts: u32,
    /// Why it waits.
    pub kind: PendingKind,
}

/// A request of ours that was not answered yet.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outgoing {
    /// When the newest request was made, by our wall clock.
    pub sent_at: WallMillis,
    /// The same by the tick; not saved, made anew at load.
    pub sent_tick: Tick,
    /// Nonce of the newest request.
    pub nonce: Nonce,
    /// The key that the caller, the registry or the peers file named.
    pub expected_key: Option<PublicKey>,
    /// What we gave as the reason, filtered.
    pub justification: String,
}

/// The newest stamps exchanged with a peer, so that nothing older is believed or sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Floor {
    /// The key that `seen` belongs to; `None` until an authentic message came.
    pub key: Option<PublicKey>,
    /// The newest authentic stamp seen from the peer under `key`, by the peer's clock; 0 for none.
    pub seen: WallMillis,
    /// The last stamp that we sent it, by our clock; 0 for none. Not saved: after a load it equals `reserved`.
    pub sent: WallMillis,
    /// At least `sent`, by a reserve whenever it is renewed: what the next save remembers as sent, so that a crash and
    /// a clock that steps back do not make us use a stamp twice.
    pub reserved: WallMillis,
    /// Whether it has spoken version 2; if so, version 1 is never believed from it again.
    pub spoke_v2: bool,
}

impl Floor {
    /// Nothing seen, nothing sent.
    pub const EMPTY: Self = Self {
        key: None,
        seen: WallMillis::new(0),
        sent: WallMillis::new(0),
        reserved: WallMillis::new(0),
        spoke_v2: false,
    };
}

/// What [`step`](super::step::step) may read of the state: one consistent moment of all tables.
pub trait View {
    /// The trusted record of a peer.
    fn trusted(&self, peer: NodeId) -> Option<TrustRecord>;
    /// How many peers are trusted.
    fn trusted_len(&self) -> usize;
    /// The pending entry of a peer.
    fn pending(&self, peer: NodeId) -> Option<&Pending>;
    /// Every pending entry, in no particular but repeatable order.
    fn pending_iter(&self) -> Box<dyn Iterator<Item = (NodeId, &Pending)> + '_>;
    /// How many entries are pending.
    fn pending_len(&self) -> usize;
    /// The outgoing entry of a peer.
    fn outgoing(&self, peer: NodeId) -> Option<&Outgoing>;
    /// Every outgoing entry, in no particular but repeatable order.
    fn outgoing_iter(&self) -> Box<dyn Iterator<Item = (NodeId, &Outgoing)> + '_>;
    /// How many entries are outgoing.
    fn outgoing_len(&self) -> usize;
    /// When we revoked a peer, if an operator has not lifted it since.
    fn revoked(&self, peer: NodeId) -> Option<WallMillis>;
    /// The floor of a peer.
    fn floor(&self, peer: NodeId) -> Option<Floor>;
    /// Every floor, in no particular but repeatable order.
    fn floor_iter(&self) -> Box<dyn Iterator<Item = (NodeId, Floor)> + '_>;
    /// How many floors there are.
    fn floor_len(&self) -> usize;
}

/// One change of one entry of one table: `None` removes it.
///
/// All changes of one step are published together, under one generation. A peer occurs at most once per table.
///
/// What is long and seldom lies behind a pointer: there are as many of these as a batch has records.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TableChange {
    /// Of the trusted table.
    Trusted(NodeId, Option<TrustRecord>),
    /// Of the pending table.
    Pending(NodeId, Option<Arc<Pending>>),
    /// Of the outgoing table.
    Outgoing(NodeId, Option<Arc<Outgoing>>),
    /// Of the revoked table.
    Revoked(NodeId, Option<WallMillis>),
    /// Of the floors. A step that changes floors alone does not ring the keeper.
    Floor(NodeId, Option<Floor>),
}

const _: () = assert!(size_of::<TableChange>() <= 72);

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
