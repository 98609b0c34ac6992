//! What the rules ask shells to do, and when.
//!
//! INVARIANT: an effect that tells anybody of a grant waits for the disk (unless the configuration says otherwise); an
//! effect that enforces or tells of a restriction never does.
#![forbid(unsafe_code)]

use core::time::Duration;

use crate::peer::{NodeId, PublicKey, TrustRecord};
pub use crate::wire::sign::Draft;

/// Something to do outside the core, in the order of the list it stands in.
///
/// Effects are queued in the critical section that publishes the step, and performed after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effect {
    /// When.
    pub when: When,
    /// What.
    pub action: Action,
    /// Of a message that answers a request: the key that signed the request. The answer is for whoever holds it. Of a farewell:
    /// the last key that was vouched for.
    pub answers: Option<PublicKey>,
}

/// When an effect is to be performed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// At once.
    Now,
    /// Once everything that was decided up to this step is durable; and then only if the peer's trusted record still equals
    /// `still`: it tells of a grant that may have been taken back meanwhile. A step that moves floors alone, or what R-198
    /// calls no urgent change, has nothing that anybody need wait for.
    OnceDurable {
        /// The grant that the effect tells of.
        still: TrustRecord,
    },
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// Sign this and send it to the peer, with best effort: directly; if that fails, and a message of its kind
    /// [may be relayed](crate::wire::message::Kind::may_be_relayed), by a relay.
    Send(Draft),
    /// The same, for a peer that spoke version 1: in version 1, over a connection at whose other end the transport itself
    /// authenticates this peer; if there is no such thing, as a message of version 2 by a relay; or not at all.
    SendVersion1(Draft),
    /// Ask the registry about a peer, without a lock, and come back with the answer as
    /// [`Input::LookedUp`](super::input::Input::LookedUp). Of no consequence if there is no registry.
    LookUp {
        /// The peer.
        peer: NodeId,
    },
    /// Cut the peer's tunnel, when the messages before this were sent or this long has passed, whatever comes first.
    Disconnect {
        /// Whose.
        peer: NodeId,
        /// The longest that the tunnel may stay.
        within: Duration,
    },
    /// Tell the registry of a grant.
    ReportGrant {
        /// The grant.
        record: TrustRecord,
    },
    /// Tell the registry that we revoked a peer.
    ReportRevoke {
        /// Whom.
        peer: NodeId,
    },
}
