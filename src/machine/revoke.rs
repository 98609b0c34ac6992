//! The end of trust: what becomes of a peer's revocation, and how a peer that we revoked hears of it again.
#![forbid(unsafe_code)]

use core::time::Duration;

use super::arrival::latest_credible;
use super::effect::{Action, When};
use super::event::{ChangeReason, Event};
use super::outcome::{Outcome, Step};
use super::plan::Plan;
use super::rejection::Rejection;
use super::step::Standing;
use super::view::Nonce;
use crate::wire::message::Kind;

/// Rule R-35. The peer's own will leaves no mark: it may ask again.
pub(super) fn decide(mut plan: Plan<'_>, standing: Standing) -> Result<Step, Rejection> {
    if !standing.is_authentic() {
        return plan.drop_message(Rejection::NotAuthentic);
    }
    if plan.trusted.is_none() && plan.pending.is_none() && plan.outgoing.is_none() {
        return plan.drop_message(Rejection::NothingToRevoke);
    }
    let was = plan.lose_trust(ChangeReason::RevokedByPeer);
    plan.pending = None;
    plan.outgoing = None;
    plan.events.push(Event::RevokedByPeer { peer: plan.peer });
    plan.act(When::Now, Action::Disconnect { peer: plan.peer, within: Duration::ZERO });
    Ok(plan.finish(Outcome::RevokedByPeer { was }))
}

/// Rule R-36: whoever is revoked and still talks to us has perhaps missed the farewell.
///
/// The last stamp sent to the peer is the memory of when we last did: nothing but farewells and refusals goes to a
/// revoked peer. Two nodes that revoked each other therefore fall silent after one exchange.
pub(super) fn farewell_again(plan: &mut Plan<'_>, nonce: Nonce) {
    let last_sent = plan.floor.sent.min(latest_credible(plan.rules, plan.now));
    if plan.revoked.is_some() && plan.now.wall.millis_since(last_sent) >= FAREWELL_EVERY_MS {
        let draft = plan.draft(Kind::Revoke, nonce);
        plan.act(When::Now, Action::Send(draft));
    }
}

/// At most one farewell a minute to a peer that goes on talking.
const FAREWELL_EVERY_MS: i64 = 60_000;
