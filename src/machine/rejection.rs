//! Why the rules refuse something: ordinary data, counted by name for messages, returned to operators.
//!
//! A dropped message is never answered, so a name here is all that anybody hears of it. Names are stable.
#![forbid(unsafe_code)]

use core::fmt;

use super::view::OTHER_KEYS_MAX;
use crate::event::RotationFault;
use crate::peer::{Fingerprint, InvalidKey, RevocationId};
use crate::tables::Marked;
use crate::wire::decode::Undecodable;
use crate::wire::message::ParseError;
use crate::wire::verify::BadSignature;

/// The rule that refused a message or a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rejection {
    // Of messages, in the order of the checks.
    /// More bytes than a message may have.
    TooLarge,
    /// Not one JSON object of the right shape.
    Malformed,
    /// A type that this release does not know.
    UnknownType,
    /// Older than a direct message may be.
    TooOld,
    /// Stamped further ahead of our clock than clocks may differ.
    FromFuture,
    /// The sender is node 0.
    SenderZero,
    /// The sender claims to be us.
    SenderIsUs,
    /// A message of version 1, which this node does not accept.
    Version1,
    /// A message of version 1 from a peer that has spoken version 2.
    Downgrade,
    /// A copy of a message of version 1.
    Replayed,
    /// A relay brought what may not be relayed: a revocation, or an answer of version 1.
    NotRelayable,
    /// Neither version 1 nor version 2.
    UnknownVersion,
    /// The key is absent, malformed or weak.
    BadKey(InvalidKey),
    /// A field is absent, not strict base64, of the wrong length, or at odds with another.
    BadField(&'static str),
    /// Not newer than the newest message seen from this peer under this key.
    Stale,
    /// The signature does not verify.
    BadSignature,
    /// Verified for another receiver than this node: a mistake of the shell.
    WrongReceiver,
    /// The registry knows the sender under another key.
    KeyMismatch,
    /// The newest stamp seen from this peer lay too far ahead of our clock; it was moved back, this message was lost.
    FloorClamped,
    /// Not newer than what was seen from this peer under this key before our clock stepped back.
    BelowFormerFloor,
    /// Nobody but the sender vouches for its key, and this kind of message needs that.
    NotAuthentic,
    /// An answer from a peer that we have not asked.
    NotAsked,
    /// An answer to another request than our newest one.
    WrongAnswer,
    /// An answer from a peer that we have revoked.
    PeerRevoked,
    /// An answer under a key that we have revoked.
    KeyRevoked,
    /// From a peer, or under a key, that an operator ignores.
    Ignored,
    /// An authentic answer under another key than the trusted record's: the record was dropped, no new trust given.
    KeyChanged,
    /// A revocation from a peer that has nothing to lose here.
    NothingToRevoke,
    /// An operator has refused this very message, or a later one under its key.
    AlreadyRefused,
    /// The key in the message named another as its successor.
    KeyReplaced,
    /// The key was named by another, and that was revoked or refused since: only an operator trusts it.
    KeySetAside,
    /// A trusted peer's new key, named by its old one, which this node was told not to take.
    RotationRefused,
    /// The key that named this one as its successor named another, too.
    SecondSuccessor,
    /// The key that named this one as its successor is revoked, or this one is.
    RotationRevokedKey,
    /// As many peers as allowed are waiting for an operator.
    PendingFull,
    /// As many peers as allowed from one source are waiting for an operator.
    PendingSourceFull,

    // Of messages and commands.
    /// As many peers as allowed are trusted.
    StoreFull,
    /// As many peers as allowed are owed a decision, all of them as urgent as this one.
    OwedFull,

    // Of commands.
    /// The peer is this node itself.
    PeerIsUs,
    /// The key is this node's own, and no peer's: whoever else has it is a copy of this node, or a thief.
    KeyIsOurs,
    /// The peer is in no table that the command concerns; nothing changed.
    NothingToDo,
    /// The peer is trusted already; force the request if it has lost its side of the trust.
    AlreadyTrusted,
    /// The peer was revoked: only an operator may ask it again.
    RevokedNeedsOperator,
    /// The peer is revoked, and the command lifts no revocation or another one. Look at the revocation (`trustkeep revoked`)
    /// and lift it by its id.
    RevokedNeedsLift {
        /// The revocation in force.
        current: RevocationId,
    },
    /// The same of the key.
    KeyRevokedNeedsLift {
        /// The revocation in force.
        current: RevocationId,
    },
    /// As many keys as allowed are revoked.
    RevokedKeysFull,
    /// As many peers, or keys, as allowed are ignored.
    IgnoredFull,
    /// The peer is trusted: revoke or remove it before it can be ignored.
    TrustedNotIgnored,
    /// The peer, or the key, is ignored, so no answer would be heard. Hear it again first.
    IgnoredNotAsked,
    /// The peer's record has another key already. If the peer has changed its key, report that.
    OtherKeyBound,
    /// Our own caller named another key for this peer: cancel that request, or name the other key.
    OtherKeyExpected,
    /// The fingerprint is not, or no longer, that of a key that waits.
    WrongFingerprint {
        /// The fingerprint of the first key that waits.
        current: Fingerprint,
        /// Those of the others, oldest first.
        others: [Option<Fingerprint>; OTHER_KEYS_MAX],
    },
    /// The fingerprint of the key to approve must be given. Ask the peer's operator for it.
    FingerprintRequired {
        /// What speaks against the key.
        why: FingerprintNeed,
        /// The fingerprint of the first key that waits.
        current: Fingerprint,
        /// Those of the others, oldest first.
        others: [Option<Fingerprint>; OTHER_KEYS_MAX],
    },
    /// The registry knows the pending peer under another key: refuse it, or correct the registry.
    RegistryContradicts {
        /// The fingerprint of the pending key.
        current: Fingerprint,
        /// The fingerprint of the key that the registry names.
        registered: Fingerprint,
    },
    /// The entry that was looked at waits no more; another one has its place.
    OtherEntry,
}

/// Why a key is approved by its fingerprint alone. Of several reasons the first in this order is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FingerprintNeed {
    /// The key was replaced by another, or what another key said of it was revoked or refused.
    SetAside,
    /// The peer's old key has named it: whoever has stolen that key can do the same.
    Proven,
    /// Another key is known for the peer: its record's, the last one that was vouched for, or the one that our caller named.
    OtherKeyKnown,
    /// Other keys were shown under the peer's id while it waited.
    OtherKeySeen,
    /// The registry names a key that this one came after.
    RegistryBehind,
    /// The registry could not be asked.
    RegistryNotAsked,
    /// Nobody but the peer itself vouches for its key.
    Unvouched,
}

impl FingerprintNeed {
    const fn told(self) -> &'static str {
        match self {
            Self::SetAside => "its key was replaced, refused or revoked before",
            Self::Proven => "its old key has named this one, as a thief of the old key could",
            Self::OtherKeyKnown => "another key is known for it",
            Self::OtherKeySeen => "it was seen under other keys, too",
            Self::RegistryBehind => "the registry still names a key that was replaced",
            Self::RegistryNotAsked => "the registry could not be asked",
            Self::Unvouched => "nobody vouches for its key",
        }
    }
}

impl Rejection {
    /// The name under which it is counted: stable, in snake case.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::Malformed => "malformed",
            Self::UnknownType => "unknown_type",
            Self::TooOld => "too_old",
            Self::FromFuture => "from_future",
            Self::SenderZero => "sender_zero",
            Self::SenderIsUs => "sender_is_us",
            Self::Version1 => "version_1",
            Self::Downgrade => "downgrade",
            Self::Replayed => "replayed",
            Self::NotRelayable => "not_relayable",
            Self::UnknownVersion => "unknown_version",
            Self::BadKey(_) => "bad_key",
            Self::BadField(_) => "bad_field",
            Self::Stale => "stale",
            Self::BadSignature => "bad_signature",
            Self::WrongReceiver => "wrong_receiver",
            Self::KeyMismatch => "key_mismatch",
            Self::FloorClamped => "floor_clamped",
            Self::BelowFormerFloor => "below_former_floor",
            Self::NotAuthentic => "not_authentic",
            Self::NotAsked => "not_asked",
            Self::WrongAnswer => "wrong_answer",
            Self::PeerRevoked => "peer_revoked",
            Self::KeyRevoked => "key_revoked",
            Self::Ignored => "ignored",
            Self::KeyChanged => "key_changed",
            Self::NothingToRevoke => "nothing_to_revoke",
            Self::AlreadyRefused => "already_refused",
            Self::KeyReplaced => "key_replaced",
            Self::KeySetAside => "key_set_aside",
            Self::RotationRefused => "rotation_refused",
            Self::SecondSuccessor => "second_successor",
            Self::RotationRevokedKey => "rotation_revoked_key",
            Self::PendingFull => "pending_full",
            Self::PendingSourceFull => "pending_source_full",
            Self::StoreFull => "store_full",
            Self::OwedFull => "owed_full",
            Self::PeerIsUs => "peer_is_us",
            Self::KeyIsOurs => "key_is_ours",
            Self::NothingToDo => "nothing_to_do",
            Self::AlreadyTrusted => "already_trusted",
            Self::RevokedNeedsOperator => "revoked_needs_operator",
            Self::RevokedNeedsLift { .. } => "revoked_needs_lift",
            Self::KeyRevokedNeedsLift { .. } => "key_revoked_needs_lift",
            Self::RevokedKeysFull => "revoked_keys_full",
            Self::IgnoredFull => "ignored_full",
            Self::TrustedNotIgnored => "trusted_not_ignored",
            Self::IgnoredNotAsked => "ignored_not_asked",
            Self::OtherKeyBound => "other_key_bound",
            Self::OtherKeyExpected => "other_key_expected",
            Self::WrongFingerprint { .. } => "wrong_fingerprint",
            Self::FingerprintRequired { .. } => "fingerprint_required",
            Self::RegistryContradicts { .. } => "registry_contradicts",
            Self::OtherEntry => "other_entry",
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLarge => "the message is too long",
            Self::Malformed => "the message is not one JSON object of the right shape",
            Self::UnknownType => "the message is of an unknown type",
            Self::TooOld => "the message is too old",
            Self::FromFuture => "the message is stamped too far ahead of our clock",
            Self::SenderZero => "node 0 is no sender",
            Self::SenderIsUs => "the sender claims to be this node",
            Self::Version1 => "messages of version 1 are not accepted",
            Self::Downgrade => "version 1 from a peer that has spoken version 2",
            Self::Replayed => "a copy of a message of version 1",
            Self::NotRelayable => "this kind of message may not come by a relay",
            Self::UnknownVersion => "the message is of an unknown version",
            Self::BadKey(error) => return write!(f, "the sender's key is refused: {error}"),
            Self::BadField(name) => return write!(f, "field `{name}` is missing, malformed or contradicts another"),
            Self::Stale => "a message at least as new was seen from this peer",
            Self::BadSignature => "the signature does not verify",
            Self::WrongReceiver => "the message was verified for another receiver",
            Self::KeyMismatch => "the registry knows the sender under another key",
            Self::FloorClamped => "the newest stamp seen from this peer lay too far ahead and was moved back",
            Self::BelowFormerFloor => "a message at least as new was seen from this peer before our clock stepped back",
            Self::NotAuthentic => "nobody vouches for the sender's key",
            Self::NotAsked => "an answer from a peer that was not asked",
            Self::WrongAnswer => "an answer to another request than the newest",
            Self::PeerRevoked => "an answer from a revoked peer",
            Self::KeyRevoked => "an answer under a revoked key",
            Self::Ignored => "the peer or its key is ignored",
            Self::KeyChanged => "the peer answered under a new key; its trust was dropped",
            Self::NothingToRevoke => "a revocation from a peer that is in no table",
            Self::AlreadyRefused => "an operator has refused this message",
            Self::KeyReplaced => "the key was replaced by another",
            Self::KeySetAside => "another key had named this one, and that was revoked or refused: approve it, or grant it, by name",
            Self::RotationRefused => "a new key that the old key named, which this node does not take",
            Self::SecondSuccessor => "the old key of the sender named another new key as well: it may be stolen",
            Self::RotationRevokedKey => "a new key that a revoked key named, or that is revoked",
            Self::PendingFull => "too many peers are pending",
            Self::PendingSourceFull => "too many peers from one source are pending",
            Self::StoreFull => "too many peers are trusted",
            Self::OwedFull => "too many peers are owed a decision",
            Self::PeerIsUs => {
                "the peer is this node itself; an entry about it, as an import may leave, goes when the node starts"
            }
            Self::KeyIsOurs => {
                "the key is this node's own, and no peer's; if a peer shows it, its home is a copy of this node's, or the \
                key was stolen: give one of the two a new home (trustkeep init), or this node a new key (trustkeep rekey)"
            }
            Self::NothingToDo => "nothing to do: the peer is in no table concerned",
            Self::AlreadyTrusted => "the peer is trusted already",
            Self::RevokedNeedsOperator => "the peer, or its key, was revoked: only an operator may ask it again",
            // No text has the id either: a lift says what its operator was shown.
            Self::RevokedNeedsLift { .. } => {
                "the peer is revoked: look at the revocation in force (trustkeep revoked) and lift it by its id (--lift)"
            }
            Self::KeyRevokedNeedsLift { .. } => {
                "the key is revoked: look at the revocation in force (trustkeep revoked --keys) and lift it by its id \
                 (--lift)"
            }
            Self::RevokedKeysFull => "too many keys are revoked; forget a revocation, or raise the limit",
            Self::IgnoredFull => "too many are ignored; hear one again, or raise the limit",
            Self::TrustedNotIgnored => "the peer is trusted; revoke it first",
            Self::IgnoredNotAsked => "the peer or its key is ignored, so no answer would be heard; unignore it first",
            Self::OtherKeyBound => "the peer's record has another key",
            Self::OtherKeyExpected => "a request to this peer names another key",
            // No text has a stranger's fingerprint: it would be pasted.
            Self::WrongFingerprint { .. } => {
                "no key that waits has this fingerprint; one key of each source is kept beside the first, so the right one may \
                 find no place: then grant the key, or name it in a request"
            }
            Self::FingerprintRequired { why, .. } => {
                return write!(f, "{}: ask its operator for the fingerprint, and name it", why.told());
            }
            Self::RegistryContradicts { .. } => {
                "the registry knows this peer under another key than the pending one: reject it, or correct the registry"
            }
            Self::OtherEntry => "the entry that was looked at waits no more, another has its place: look again",
        })
    }
}

impl core::error::Error for Rejection {}

impl From<Marked> for Rejection {
    fn from(marked: Marked) -> Self {
        match marked {
            Marked::Peer(mark) => Self::RevokedNeedsLift { current: mark.id },
            Marked::Key(mark) => Self::KeyRevokedNeedsLift { current: mark.id },
        }
    }
}

impl From<ParseError> for Rejection {
    fn from(error: ParseError) -> Self {
        match error {
            ParseError::TooLarge => Self::TooLarge,
            ParseError::Malformed { .. } => Self::Malformed,
        }
    }
}

impl From<Undecodable> for Rejection {
    fn from(error: Undecodable) -> Self {
        match error {
            Undecodable::Kind => Self::UnknownType,
            Undecodable::Sender => Self::SenderZero,
            Undecodable::Version => Self::UnknownVersion,
            Undecodable::Key(error) => Self::BadKey(error),
            Undecodable::Field(name) => Self::BadField(name),
        }
    }
}

impl From<RotationFault> for Rejection {
    fn from(fault: RotationFault) -> Self {
        match fault {
            RotationFault::SecondSuccessor => Self::SecondSuccessor,
            RotationFault::RevokedKey => Self::RotationRevokedKey,
        }
    }
}

impl From<BadSignature> for Rejection {
    fn from(_: BadSignature) -> Self {
        Self::BadSignature
    }
}
