//! What one peer says to another.
#![forbid(unsafe_code)]

/// What a message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Trust me.
    Request,
    /// I trust you; the answer to a request.
    Accept,
    /// I do not; the answer to a request.
    Reject,
    /// I no longer trust you.
    Revoke,
}

impl Kind {
    /// The kind with this name on the wire.
    #[must_use]
    pub fn from_wire(name: &str) -> Option<Self> {
        [Self::Request, Self::Accept, Self::Reject, Self::Revoke].into_iter().find(|kind| kind.as_wire() == name)
    }

    /// Whether a message of this kind may come, or go, by a relay. A revocation may not: it would be in the relay's hand
    /// when trust ends.
    #[must_use]
    pub const fn may_be_relayed(self) -> bool {
        !matches!(self, Self::Revoke)
    }

    /// Its name on the wire.
    #[must_use]
    pub const fn as_wire(self) -> &'static str {
        match self {
            Self::Request => "handshake_request",
            Self::Accept => "handshake_accept",
            Self::Reject => "handshake_reject",
            Self::Revoke => "handshake_revoke",
        }
    }
}
