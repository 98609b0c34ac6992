//! What one entry of each table holds.
//!
//! INVARIANT I-1: keys of every table are peers: never 0, never our own id.
//! INVARIANT I-2: no peer is both trusted and revoked. A grant clears the peer's pending, outgoing and revoked entries.
//! Afterwards a trusted peer may come to be pending under another key, or outgoing by a forced request.
//!
//! The rest of the list is in [`check`](crate::machine::check).
#![forbid(unsafe_code)]

pub(crate) use crate::peer::Marked;
use crate::peer::{Fingerprint, PublicKey};
pub use crate::peer::{Marks, Nonce, Revocation, RevocationId, Source};
use crate::time::{Tick, WallMillis};

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
    /// How many requests under other keys came meanwhile; a key other than one that is already known for this peer
    /// counts as one from the start.
    pub conflicts: u32,
    /// Why it waits.
    pub kind: PendingKind,
    /// The other keys that were shown for this peer, oldest first; at most [`OTHER_KEYS_MAX`], one per source.
    pub others: Vec<OtherKey>,
    /// The key that signed over to `key`, if the sender proved that: the entry is a rotation to be decided.
    pub proven_by: Option<PublicKey>,
    /// Names this entry: random, drawn when it was opened and again when its key was replaced. An approval names what was
    /// looked at by it. 0: the entry has no name, because an older release opened it or an import brought it.
    pub number: u64,
}

impl Pending {
    /// Every key that waits, the first one first: an operator may approve any of them.
    pub fn keys(&self) -> impl Iterator<Item = OtherKey> + '_ {
        let &Self { key, nonce, stamp, source, received_at, kind, .. } = self;
        core::iter::once(OtherKey { key, nonce, stamp, source, first_seen: received_at, kind })
            .chain(self.others.iter().copied())
    }
}

impl Pending {
    /// Whether an operator who decides about one decides about the other: they differ at most in when and how often the peer
    /// has spoken. `others` may differ too, as long as there are as many: one source must not make them news for ever.
    pub(crate) fn reads_like(&self, other: &Self) -> bool {
        let Self { key, justification, source, authentic, kind, proven_by, .. } = self;
        *key == other.key
            && *justification == other.justification
            && *source == other.source
            && *authentic == other.authentic
            && *kind == other.kind
            && *proven_by == other.proven_by
            && (self.conflicts == 0) == (other.conflicts == 0)
            && self.others.len() == other.others.len()
            && self.nonce.is_some() == other.nonce.is_some()
    }

    /// The fingerprints of its first key and of the others, in their order.
    pub(crate) fn fingerprints(&self) -> (Fingerprint, [Option<Fingerprint>; OTHER_KEYS_MAX]) {
        let mut others = self.others.iter().map(|other| other.key.fingerprint());
        (self.key.fingerprint(), core::array::from_fn(|_| others.next()))
    }

    /// Whether there is more behind its key than the sender: somebody vouched for it, or the trusted record's key named it.
    #[must_use]
    pub const fn is_backed(&self) -> bool {
        self.authentic || self.proven_by.is_some()
    }
}

/// A key that was shown for a pending peer besides the first one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OtherKey {
    /// The key.
    pub key: PublicKey,
    /// Nonce of the newest request under that key; none from a version-1 peer.
    pub nonce: Option<Nonce>,
    /// Stamp of that request, by the sender's clock.
    pub stamp: WallMillis,
    /// Where the first request under that key came from.
    pub source: Source,
    /// When the first request under that key arrived, by our wall clock.
    pub first_seen: WallMillis,
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
    /// The revocation that an answer to this request lifts. The mark stands until then.
    pub lift: Option<RevocationId>,
    /// Whether a relay has had the newest request, or may have had it.
    pub relayed: bool,
    /// How the peer refused it; the entry is kept for a day to show that, and waits for no answer any more.
    pub refused: Option<Refusal>,
}

/// A peer's refusal of our request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refusal {
    /// When it came, by our wall clock.
    pub at: WallMillis,
    /// The same by the tick; not saved, made anew at load.
    pub tick: Tick,
    /// The peer's reason, filtered.
    pub reason: String,
    /// The key that signed the refusal.
    pub key: PublicKey,
    /// Whether somebody else than the sender vouched for that key. If not, the refusal is shown and ends nothing.
    pub authentic: bool,
}

/// A request of a peer that an operator refused: no copy of it waits again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RefusedRequest {
    /// The key of the request.
    pub key: PublicKey,
    /// The stamp of the request, by the peer's clock.
    pub stamp: WallMillis,
    /// When the operator refused it, by our wall clock.
    pub at: WallMillis,
}

/// A decision of ours that the peer has not been told yet.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Owed {
    /// Accept, reject or revoke.
    pub kind: crate::peer::Kind,
    /// The nonce of the message; every try carries the same one.
    pub nonce: Nonce,
    /// The nonce of the request that the message answers, if it answers one.
    pub answers: Option<Nonce>,
    /// The reason of a reject, filtered.
    pub reason: String,
    /// When it was decided, by our wall clock: the stamp of the first message that told it.
    pub since: WallMillis,
    /// The same by the tick; not saved, made anew at load.
    pub since_tick: Tick,
    /// The peer's key that it was decided for; none of a revoke, which is for the peer.
    pub for_key: Option<crate::peer::PublicKey>,
}

/// The newest stamps exchanged with a peer, so that nothing older is believed or sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Floor {
    /// The key that `seen` belongs to; `None` until an authentic message came.
    pub key: Option<PublicKey>,
    /// The newest authentic stamp seen from the peer under `key`, by the peer's clock; 0 for none.
    pub seen: WallMillis,
    /// The floor as it was before a step of our clock moved it back; 0 if it never was. What lies at or below this may
    /// wait for an operator and decides nothing else.
    pub before: WallMillis,
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
        before: WallMillis::new(0),
        sent: WallMillis::new(0),
        reserved: WallMillis::new(0),
        spoke_v2: false,
    };
}

/// How many refused requests of one peer are remembered, oldest out first. One refusal may concern five keys.
pub const REFUSED_PER_PEER_MAX: usize = 16;

/// How many other keys a pending entry keeps.
pub const OTHER_KEYS_MAX: usize = 4;
