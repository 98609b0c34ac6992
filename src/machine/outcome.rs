//! The answer of one step: what to change, what to do, what to tell, and what it came to.
#![forbid(unsafe_code)]

use super::effect::Effect;
use super::event::Event;
use super::rejection::Rejection;
use super::replay::Noted;
use super::view::{Nonce, OTHER_KEYS_MAX, Revocation, TableChange};
use crate::config::{HandshakeConfig, Limits, Policy};
use crate::peer::{Fingerprint, NodeId, TrustRecord};
use crate::time::WallMillis;
use crate::wire::message::Kind;

/// What the rules go by besides the tables; fixed while a node runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// This node.
    pub own_id: NodeId,
    /// Times.
    pub config: HandshakeConfig,
    /// What the node takes and trusts of its own accord.
    pub policy: Policy,
    /// Sizes of the tables.
    pub limits: Limits,
}

/// What one input comes to. Shells apply all of it, in one critical section, or nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// To the tables, published under one generation; empty if nothing is to be published. A peer occurs at most once
    /// per table.
    pub changes: Vec<TableChange>,
    /// To be performed after publication, in this order.
    pub effects: Vec<Effect>,
    /// To be delivered, in this order.
    pub events: Vec<Event>,
    /// What it came to.
    pub outcome: Outcome,
    /// A stamp in a floor lay further ahead of the wall clock than clocks may differ and was moved back: some clock was
    /// wrong once. Shells report it.
    pub clamped: bool,
    /// A message of version 1 to be remembered in the table of [`replay`](super::replay), in the same critical section.
    pub noted: Option<Noted>,
}

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// A message was dropped, to be counted like any other, but something had to be recorded or answered even so.
    Dropped(Rejection),
    /// A peer that is trusted already asked again; it is told once more.
    Confirmed(TrustRecord),
    /// A message led to trust.
    Trusted(TrustRecord),
    /// A message was put before the operator: as a new entry, a newer copy of one, or a conflict with one.
    Queued,
    /// A peer refused our request.
    Refused,
    /// Our request was refused under a key that nobody vouches for: that is shown, and ends nothing.
    RefusedUnvouched,
    /// A peer revoked us.
    RevokedByPeer {
        /// The trust that was lost.
        was: Option<TrustRecord>,
    },
    /// Our request was entered and is to be sent.
    Requested {
        /// The nonce that its answer must carry.
        nonce: Nonce,
        /// Its stamp.
        stamp: WallMillis,
        /// The key that was named for the peer, and the other one that the registry names: the first stays.
        differs: Option<[Fingerprint; 2]>,
    },
    /// An operator approved a peer.
    Approved(TrustRecord),
    /// An operator refused these keys of a pending peer, the one whose request is answered first.
    Rejected([Option<Fingerprint>; 1 + OTHER_KEYS_MAX]),
    /// Our request was forgotten.
    Cancelled,
    /// A program or an operator granted trust outright.
    Granted(TrustRecord),
    /// A record that had no key is bound to one now.
    KeyAdopted(TrustRecord),
    /// A peer turned out to have another key than its record: it is no longer trusted.
    KeyChanged {
        /// The trust that it had.
        was: TrustRecord,
    },
    /// We revoked a peer: the mark is set.
    Revoked {
        /// The trust that it had.
        was: Option<TrustRecord>,
        /// Whether it waited for an operator.
        waited: bool,
        /// Whether we had asked it.
        asked: bool,
        /// The mark that it had already.
        marked: Option<Revocation>,
    },
    /// Entries about the node itself were found and forgotten.
    OwnEntriesForgotten {
        /// The trust in ourselves.
        was: Option<TrustRecord>,
    },
    /// Nothing came of it but an event.
    Told,
    /// A relay may have our newest request from now on.
    Relaying,
    /// What was sent is remembered, and nothing is reserved beyond it.
    Stopped,
    /// A message is to be sent once more.
    Retried {
        /// What it says.
        kind: Kind,
    },
    /// A decision of ours could not be told; the peer is owed it from now on.
    Owed {
        /// What it says.
        kind: Kind,
    },
    /// What a peer was owed has been told, or is no longer so.
    NothingOwed,
    /// Trust ended without a mark.
    Removed {
        /// The trust that there was.
        was: TrustRecord,
    },
    /// We revoked a key: the mark is set.
    KeyRevoked {
        /// The mark that it had already.
        marked: Option<Revocation>,
    },
    /// Trust under a key that we revoked ended, and what the peer's keys had said of that key is void.
    EndedUnderKey {
        /// The trust that there was, if the peer was trusted under that key.
        was: Option<TrustRecord>,
    },
    /// A mark was taken away.
    RevocationForgotten(Revocation),
    /// Messages are dropped unseen from now on.
    Ignored,
    /// Messages are heard again.
    Unignored,
    /// Time has passed.
    Kept {
        /// Pending entries that were too old.
        pending_expired: usize,
        /// Outgoing entries that were too old, and refusals that were shown for long enough.
        outgoing_expired: usize,
        /// Decisions that no try could tell for as long.
        owed_expired: usize,
        /// Floors of peers in no other table that were forgotten to make room.
        floors_forgotten: usize,
    },
}
