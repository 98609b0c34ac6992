//! What happened, for whoever subscribes: one event for every grant, every loss and every request that was shown.
#![forbid(unsafe_code)]

#[cfg(feature = "serde")]
mod json;
mod names;

use crate::peer::{Fingerprint, KeyFault, Marks, NodeId, Source};

/// Which rule approved a request without an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AutoReason {
    /// We had asked it as well.
    Mutual,
    /// We share a network with it.
    SameNetwork,
    /// It is on the allow-list.
    AllowListed,
    /// The node approves everybody.
    AutoApprove,
}

/// Why trust was granted or lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChangeReason {
    /// A call to the store itself (`grant`, `revoke`, `update`).
    Direct,
    /// An operator approved a pending peer.
    Approved,
    /// A rule approved a request.
    Auto(AutoReason),
    /// The peer accepted our request.
    Accepted,
    /// The peer accepted our request, under a key that nobody vouches for, and the node trusts the first one that comes.
    FirstUse,
    /// We revoked it.
    Revoked,
    /// It revoked us.
    RevokedByPeer,
    /// It turned out to have another key than the record.
    KeyChanged,
    /// We revoked the key that it was trusted under.
    KeyRevoked,
    /// We ended it, without a mark.
    Removed,
    /// A record that had no key yet was bound to one.
    KeyAdopted,
    /// Its old key named another as its successor, and the node takes such keys.
    KeyRotated,
    /// The record was about the node itself, which is no peer.
    OwnEntry,
}

/// Why the statement of an old key about its successor counts no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RotationFault {
    /// The key named two successors: somebody else has it, too.
    SecondSuccessor,
    /// The old key or the new one is revoked.
    RevokedKey,
}

/// Whether trust was granted or lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrustState {
    /// The peer is trusted now (or under other terms than before).
    Granted,
    /// The peer is no longer trusted.
    Revoked,
}

/// One thing that happened, in the order of publication.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// `handshake.received`: a request passed every check.
    Received {
        /// Who asked.
        peer: NodeId,
        /// Why, filtered.
        justification: String,
    },
    /// `handshake.pending`: a peer waits for an operator.
    Pending {
        /// Who waits.
        peer: NodeId,
        /// Why, filtered.
        justification: String,
        /// Of the key that would be approved.
        fingerprint: Fingerprint,
        /// Of the key that this one would replace: the trusted record's, the last one that was vouched for, or the one that
        /// our own request expects.
        replaces: Option<Fingerprint>,
        /// Of the trusted record's key, if that key named the one that would be approved as its successor.
        proven_by: Option<Fingerprint>,
        /// Why no rule trusts that key, if none does.
        set_aside: Option<KeyFault>,
        /// The marks that approving it would have to lift.
        marks: Marks,
    },
    /// `handshake.auto_approved`: a rule approved a request.
    AutoApproved {
        /// Who asked.
        peer: NodeId,
        /// Which rule.
        reason: AutoReason,
        /// The label of the allow-list entry, if it has one.
        label: Option<String>,
    },
    /// `handshake.approved`: an operator approved a peer.
    Approved {
        /// Whom.
        peer: NodeId,
    },
    /// `handshake.rejected`: our request was refused.
    Rejected {
        /// Whom we had asked.
        peer: NodeId,
        /// The reason, filtered.
        reason: String,
        /// Of the key that signed the refusal.
        fingerprint: Fingerprint,
        /// Whether somebody else than the sender vouches for that key. Then the request has ended. If not, the request
        /// goes on: anybody who saw it can have sent this.
        authentic: bool,
    },
    /// `trust.changed`: on every grant and every loss.
    TrustChanged {
        /// Whose trust.
        peer: NodeId,
        /// Granted or lost.
        state: TrustState,
        /// Why.
        reason: ChangeReason,
    },
    /// `trust.rotation_refused`: no statement of this old key about a successor counts any more. Told once for each key.
    RotationRefused {
        /// In whose name the statement came.
        peer: NodeId,
        /// Of the old key, which signed it.
        old: Fingerprint,
        /// Of the new key, in the message that led to this.
        new: Fingerprint,
        /// Why.
        fault: RotationFault,
    },
    /// `trust.revoked`: we revoked a peer.
    Revoked {
        /// Whom.
        peer: NodeId,
    },
    /// `trust.key_revoked`: we revoked a key, under every id.
    KeyRevoked {
        /// Of the key.
        fingerprint: Fingerprint,
    },
    /// `trust.revocation_forgotten`: the mark of a peer was taken away, and nobody was trusted by that.
    RevocationForgotten {
        /// Whose.
        peer: NodeId,
    },
    /// `trust.key_revocation_forgotten`: the mark of a key was taken away.
    KeyRevocationForgotten {
        /// Of the key.
        fingerprint: Fingerprint,
    },
    /// `trust.revoked_by_peer`: a peer revoked us.
    RevokedByPeer {
        /// Who did.
        peer: NodeId,
    },
    /// `handshake.key_mismatch`: a peer has another key than the one that is known for it. Either the key is false, or it
    /// was changed. A shell tells of one peer at most once a second unless trust ended.
    KeyMismatch {
        /// Whose key.
        peer: NodeId,
        /// Where the message came from that showed the key; `None` if no message did.
        source: Option<Source>,
        /// Of the key that the registry, else the trusted record, else the caller of our request names.
        expected: Fingerprint,
        /// Of the key in the message; without a message, of the key in the trusted record.
        shown: Fingerprint,
        /// Whether trust in the peer ended by it.
        ended: bool,
    },
    /// `registry.disagrees`: the registry contradicts so many trusted records that none was ended. The operator decides.
    RegistryDisagrees {
        /// How many records were compared.
        compared: u64,
        /// How many of them the registry knows under another key.
        contradicted: u64,
    },
    /// `lagged`: this subscriber was too slow, and this many events are missing here.
    Lagged {
        /// How many.
        lost: u64,
    },
}

impl Event {
    /// The topic under which programs know this kind of event.
    #[must_use]
    pub const fn topic(&self) -> &'static str {
        match self {
            Self::Received { .. } => "handshake.received",
            Self::Pending { .. } => "handshake.pending",
            Self::AutoApproved { .. } => "handshake.auto_approved",
            Self::Approved { .. } => "handshake.approved",
            Self::Rejected { .. } => "handshake.rejected",
            Self::TrustChanged { .. } => "trust.changed",
            Self::RotationRefused { .. } => "trust.rotation_refused",
            Self::Revoked { .. } => "trust.revoked",
            Self::KeyRevoked { .. } => "trust.key_revoked",
            Self::RevocationForgotten { .. } => "trust.revocation_forgotten",
            Self::KeyRevocationForgotten { .. } => "trust.key_revocation_forgotten",
            Self::RevokedByPeer { .. } => "trust.revoked_by_peer",
            Self::KeyMismatch { .. } => "handshake.key_mismatch",
            Self::RegistryDisagrees { .. } => "registry.disagrees",
            Self::Lagged { .. } => "lagged",
        }
    }
}
