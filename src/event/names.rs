//! The names that kinds of events and reasons have in JSON and in the log. No name changes within a major version.
#![forbid(unsafe_code)]

use super::{AutoReason, ChangeReason, Event, RotationFault, TrustState};
use crate::peer::NodeId;

impl AutoReason {
    /// Its name in JSON: `mutual`, `same_network`, `allow_listed` or `auto_approve`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mutual => "mutual",
            Self::SameNetwork => "same_network",
            Self::AllowListed => "allow_listed",
            Self::AutoApprove => "auto_approve",
        }
    }
}

impl ChangeReason {
    /// Its name in JSON: `direct`, `approved`, `accepted`, `first_use`, `revoked`, `revoked_by_peer`, `key_changed`,
    /// `key_revoked`, `removed`, `key_adopted`, `own_entry`, or one of those of [`AutoReason::name`].
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Approved => "approved",
            Self::Auto(reason) => reason.name(),
            Self::Accepted => "accepted",
            Self::FirstUse => "first_use",
            Self::Revoked => "revoked",
            Self::RevokedByPeer => "revoked_by_peer",
            Self::KeyChanged => "key_changed",
            Self::KeyRevoked => "key_revoked",
            Self::Removed => "removed",
            Self::KeyAdopted => "key_adopted",
            Self::KeyRotated => "key_rotated",
            Self::OwnEntry => "own_entry",
        }
    }
}

impl RotationFault {
    /// Its name in JSON: `second_successor` or `revoked_key`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SecondSuccessor => "second_successor",
            Self::RevokedKey => "revoked_key",
        }
    }
}

impl TrustState {
    /// Its name in JSON: `granted` or `revoked`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Granted => "granted",
            Self::Revoked => "revoked",
        }
    }
}

impl Event {
    /// Whom it is about; `None` for what is about the subscription itself.
    #[must_use]
    pub const fn peer(&self) -> Option<NodeId> {
        match self {
            Self::Received { peer, .. }
            | Self::Pending { peer, .. }
            | Self::AutoApproved { peer, .. }
            | Self::Approved { peer }
            | Self::Rejected { peer, .. }
            | Self::TrustChanged { peer, .. }
            | Self::RotationRefused { peer, .. }
            | Self::Revoked { peer }
            | Self::RevocationForgotten { peer }
            | Self::RevokedByPeer { peer }
            | Self::KeyMismatch { peer, .. } => Some(*peer),
            Self::KeyRevoked { .. }
            | Self::KeyRevocationForgotten { .. }
            | Self::RegistryDisagrees { .. }
            | Self::Lagged { .. } => None,
        }
    }
}
