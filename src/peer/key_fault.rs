//! Why no rule trusts a key, though it belonged to the peer, or was named by a key that did.
#![forbid(unsafe_code)]

use super::PublicKey;

/// Why no rule trusts a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyFault {
    /// This key was trusted in its place.
    Replaced(PublicKey),
    /// The statement that named it is void.
    Void(Void),
}

/// Why a statement counts no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Void {
    /// The peer was revoked after it was seen.
    Revoked,
    /// An operator refused the key that it names, or passed it over.
    Refused,
}

impl Void {
    /// The word for it in JSON and in listings.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Revoked => "revoked",
            Self::Refused => "refused",
        }
    }
}
