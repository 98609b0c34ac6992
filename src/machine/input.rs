//! What can happen to a node, as data: a message came, an operator called, or time has passed.
//!
//! Everything that the rules may depend on is in here or in the tables: look-ups have been made, nonces have been
//! drawn, texts have been filtered and clocks have been read before `step` is asked. So nothing in an input grows with a
//! message.
#![forbid(unsafe_code)]

use super::deliver::Retried;
use super::effect::Draft;
use super::replay::Seen;
use super::view::{Nonce, Pending, RevocationId, Source};
use crate::peer::{Fingerprint, NodeId, PublicKey, TrustRecord};
use crate::time::WallMillis;
use crate::wire::message::Kind;
use crate::wire::text::Text;
use crate::wire::verify::Verified;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[expect(clippy::large_enum_variant, reason = "one at a time, on the stack of whoever steps; never collected")]
pub enum Input {
    /// A message passed verification.
    Message(Received),
    /// An operator, or the program on its own account, asks for something.
    Operator(Command),
    /// The registry was asked about a peer on our own account, to give its record a key. Never creates a record.
    LookedUp {
        /// The peer.
        peer: NodeId,
        /// What the registry said.
        lookup: Lookup,
    },
    /// A trusted record was compared with the registry, and the registry names another key.
    Compared {
        /// The peer.
        peer: NodeId,
        /// The key that its record had when the registry was asked.
        was: PublicKey,
        /// The key that the registry names.
        found: PublicKey,
    },
    /// The registry contradicts so many records that none is to be ended before an operator says so.
    Disagreement {
        /// How many records were compared.
        compared: u64,
        /// How many of them the registry contradicts.
        contradicted: u64,
    },
    /// Our request to this peer is about to be handed to a relay, which may read its nonce and answer it. The hand-over waits
    /// until this is durable.
    Relaying {
        /// The peer that was asked.
        peer: NodeId,
        /// Of the request.
        nonce: Nonce,
    },
    /// The node stops in good order: nothing is sent after this.
    Stopping,
    /// It is time to try a message to a peer again.
    Retry {
        /// Whom it is for.
        peer: NodeId,
        /// Which of the two that may be outstanding.
        what: Retried,
        /// The nonce of the message, so that a newer one is not tried in place of it.
        nonce: Nonce,
    },
    /// A trusted peer is to hear that our key was replaced.
    Announce {
        /// Whom to tell.
        peer: NodeId,
        /// When the old key named the new one.
        since: WallMillis,
        /// 16 fresh random bytes, for the request that tells it.
        nonce: Nonce,
    },
    /// An accept, reject or farewell left.
    Delivered {
        /// Whom it was for.
        peer: NodeId,
        /// What it said.
        kind: Kind,
        /// Its stamp.
        stamp: WallMillis,
    },
    /// A message left neither directly nor by a relay.
    Undelivered {
        /// The message.
        draft: Draft,
    },
    /// [`housekeeping_every`](crate::config::HandshakeConfig::housekeeping_every) has passed.
    Housekeeping,
    /// The node starts, or housekeeping is due: entries about the node itself have no place in its tables.
    OwnEntries,
}

/// What an operator looked at before deciding, as far as that was said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LookedAt {
    /// Of the key that is meant.
    pub fingerprint: Option<Fingerprint>,
    /// The number of the entry; any will do if none is given.
    pub entry: Option<u64>,
}

impl LookedAt {
    /// Whether it can have been this entry. 0 is no number: an entry that has none is named by a fingerprint.
    pub(super) fn is_entry(&self, entry: &Pending) -> bool {
        self.entry.is_none_or(|number| number != 0 && number == entry.number)
    }
}

/// A verified message and what is known about where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// The message.
    pub message: Verified,
    /// How it came here.
    pub path: Path,
    /// What the registry said about the sender, asked after verification and without a lock.
    pub lookup: Lookup,
    /// 16 fresh random bytes, for the answer if there is one.
    pub nonce: Nonce,
    /// Whether the replay table has seen it; looked up in the critical section in which it is decided about. Of no
    /// consequence for version 2.
    pub seen: Seen,
}

/// How a message came here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// Over a connection of the sender's own.
    Direct {
        /// The node that the transport itself authenticated at the other end, if it does such a thing.
        authenticated: Option<NodeId>,
        /// Where it came from, as far as limits are concerned.
        source: Source,
    },
    /// By a relay, which is not believed: it proves nothing, and may hold a message back as long as it likes.
    Relayed {
        /// The node that the relay says it authenticated when the message was handed in. Limits are counted on its
        /// account; nothing else hangs on it.
        handed_in_by: NodeId,
    },
}

impl Path {
    /// Whether a relay stood between.
    #[must_use]
    pub const fn is_relayed(&self) -> bool {
        matches!(self, Self::Relayed { .. })
    }

    /// On whose account limits are counted.
    #[must_use]
    pub const fn source(&self) -> Source {
        match *self {
            Self::Direct { source, .. } => source,
            Self::Relayed { handed_in_by } => Source::Relay(handed_in_by),
        }
    }

    /// Whether the transport itself authenticated this node as the sender.
    #[must_use]
    pub fn authenticates(&self, peer: NodeId) -> bool {
        matches!(self, Self::Direct { authenticated: Some(other), .. } if *other == peer)
    }
}

/// What the registry said about a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Lookup {
    /// There is no registry.
    NotAsked,
    /// The registry does not know the peer, or no key of it.
    Unknown,
    /// The registry could not be asked: it was busy, failed, panicked, was too late, or said what is older than what it had
    /// said before. That is not *unknown*: while it is so, nobody new is trusted who would be if the registry had nothing
    /// to say against it.
    Failed,
    /// The registry knows the peer.
    Found {
        /// Its key.
        key: PublicKey,
        /// The networks that it is in, none of them 0.
        networks: Vec<u16>,
    },
}

/// What an operator asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Command {
    /// Ask a peer to trust us; ask again if we have asked before.
    Request {
        /// Whom.
        peer: NodeId,
        /// Why.
        justification: Text,
        /// The key that the peer must show, if the caller names one.
        expected_key: Option<PublicKey>,
        /// The key that the registry names: the one to show if neither this caller nor one before has named any.
        registered: Option<PublicKey>,
        /// 16 fresh random bytes.
        nonce: Nonce,
        /// Ask although the peer is trusted already: it may have lost its side of the trust.
        force: bool,
        /// Not an operator's own wish: refused for a revoked peer.
        automatic: bool,
        /// The revocation that the answer lifts, as the operator was shown it.
        lift: Option<RevocationId>,
    },
    /// Trust a pending peer under one of the keys that it waits with.
    Approve {
        /// Whom.
        peer: NodeId,
        /// Of the key; may be left out only where somebody vouches for the first key and no other is known.
        fingerprint: Option<Fingerprint>,
        /// The number of the entry that was looked at; any will do if none is given.
        entry: Option<u64>,
        /// 16 fresh random bytes.
        nonce: Nonce,
        /// What the registry says about the peer now.
        lookup: Lookup,
        /// The revocation to lift, as the operator was shown it.
        lift: Option<RevocationId>,
    },
    /// Refuse a pending peer.
    Reject {
        /// Whom.
        peer: NodeId,
        /// Why.
        reason: Text,
        /// 16 fresh random bytes.
        nonce: Nonce,
        /// What was looked at; all that waits if nothing is named.
        named: LookedAt,
    },
    /// Forget a request of ours.
    Cancel {
        /// To whom.
        peer: NodeId,
    },
    /// Trust a peer outright, as the record says; if it has no key, the registry is asked for one.
    Grant {
        /// The record.
        record: TrustRecord,
        /// The revocation to lift, as the operator was shown it.
        lift: Option<RevocationId>,
    },
    /// Something that is believed, such as a transport, has authenticated a trusted peer under this key: give its record
    /// the key if it has none.
    AdoptKey {
        /// Whose.
        peer: NodeId,
        /// The key.
        key: PublicKey,
    },
    /// Something that is believed has authenticated a peer under this key: if it is trusted under another, it is no
    /// longer.
    ReportKeyChange {
        /// Whose.
        peer: NodeId,
        /// The key that it has now.
        key: PublicKey,
    },
    /// Trust a peer no longer, and not again until an operator lifts that. Marks the peer whatever is known of it.
    Revoke {
        /// Whom.
        peer: NodeId,
        /// 16 fresh random bytes.
        nonce: Nonce,
    },
    /// Trust a peer no longer, without a mark.
    Remove {
        /// Whom.
        peer: NodeId,
    },
    /// Mark a key: nobody is trusted under it from now on. Records under it are ended by [`Command::EndUnderKey`].
    RevokeKey {
        /// The key.
        key: PublicKey,
        /// 16 fresh random bytes.
        nonce: Nonce,
    },
    /// End trust in a peer whose record is under this key, and make void what the peer's keys have said of the key, if the
    /// key is marked.
    EndUnderKey {
        /// Whose.
        peer: NodeId,
        /// The key.
        key: PublicKey,
        /// 16 fresh random bytes.
        nonce: Nonce,
    },
    /// Take the mark of a peer or a key away, and trust nobody by that.
    ForgetRevocation {
        /// Of whom.
        of: PeerOrKey,
    },
    /// Drop every message of a peer, or under a key, unseen.
    Ignore {
        /// Whose.
        of: PeerOrKey,
    },
    /// Hear a peer or a key again.
    Unignore {
        /// Whom.
        of: PeerOrKey,
    },
}

/// A peer under every key, or a key under every id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerOrKey {
    /// A peer.
    Peer(NodeId),
    /// A key.
    Key(PublicKey),
}
