//! Lasting marks: who may not be trusted until an operator says so.
#![forbid(unsafe_code)]

use super::RevocationId;
use crate::time::WallMillis;

/// A lasting mark: a peer or a key that may not be trusted until an operator lifts the mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Revocation {
    /// When it was revoked, by our wall clock.
    pub at: WallMillis,
    /// Names this revocation: a lift has to name it.
    pub id: RevocationId,
}

impl Revocation {
    /// A revocation at this time, with this id.
    #[must_use]
    pub const fn new(at: WallMillis, id: RevocationId) -> Self {
        Self { at, id }
    }

    /// The mark after one more revocation. It keeps its time. It gets the id of the new revocation if that took an
    /// entry away, so that a lift of what an operator saw before lifts nothing.
    pub(crate) fn after(first: Option<Self>, fresh: Self, took_something: bool) -> Self {
        match first {
            None => fresh,
            Some(first) if took_something => Self { id: fresh.id, ..first },
            Some(first) => first,
        }
    }
}

/// The marks that stand in the way of trust in one peer under one key.
///
/// Meaning: trust is given only with a lift that names the mark in force. One lift names one revocation, so a peer
/// that is marked by its id and by its key needs one of the two forgotten first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Marks {
    /// Of the peer, under every key.
    pub peer: Option<Revocation>,
    /// Of the key, under every id.
    pub key: Option<Revocation>,
}

/// What a mark is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Marked {
    Peer(Revocation),
    Key(Revocation),
}

impl Marks {
    /// These two.
    #[must_use]
    pub const fn new(peer: Option<Revocation>, key: Option<Revocation>) -> Self {
        Self { peer, key }
    }

    /// Whether there is a mark at all.
    #[must_use]
    pub const fn is_any(&self) -> bool {
        self.peer.is_some() || self.key.is_some()
    }

    /// The first mark that this lift does not name.
    pub(crate) fn not_lifted_by(&self, lift: Option<RevocationId>) -> Option<Marked> {
        let stands = |mark: &Revocation| lift != Some(mark.id);
        self.peer.filter(stands).map(Marked::Peer).or(self.key.filter(stands).map(Marked::Key))
    }
}
