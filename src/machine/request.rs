//! What becomes of a request: the first of the rules that matches decides, and the last always does.
#![forbid(unsafe_code)]

use super::event::{AutoReason, ChangeReason, Event};
use super::filter::filter;
use super::input::Received;
use super::outcome::{Outcome, Step};
use super::plan::Plan;
use super::queue::enqueue;
use super::rejection::Rejection;
use super::step::Standing;
use super::view::PendingKind;
use crate::peer::{PublicKey, TrustRecord};

pub(super) fn decide(mut plan: Plan<'_>, received: &Received, standing: Standing) -> Result<Step, Rejection> {
    let (message, key) = (&received.message, *received.message.key());
    //
    let justification = filter(message.justification());
    plan.events.push(Event::Received { peer: plan.peer, justification });

    match plan.trusted {
        // this also cures an accept that was lost. The record stays as it is.
        Some(record) if record.public_key == Some(key) => {
            plan.send_accept(record, received.nonce, message.nonce());
            return Ok(plan.finish(Outcome::Confirmed(record)));
        }
        Some(record) if record.public_key.is_none() => {
            if standing.is_authentic() && !contradicts_caller(&plan, key) {
                let record = plan.adopt_key(record, key);
                plan.send_accept(record, received.nonce, message.nonce());
                return Ok(plan.finish(Outcome::Confirmed(record)));
            }
            return wait_for_operator(plan, received, standing);
        }
        // nobody tears trust down without being vouched for.
        Some(_) if !standing.is_authentic() => return wait_for_operator(plan, received, standing),
        Some(_) => {
            plan.lose_trust(ChangeReason::KeyChanged);
        }
        None => {}
    }
    //
    if plan.revoked.is_some() {
        return wait_for_operator(plan, received, standing);
    }
    //
    if both_asked(&plan, key, standing) {
        let record = TrustRecord::new(plan.peer, key).approved_at(plan.now.wall).mutual(true);
        let auto = AutoReason::Mutual;
        if let Err(full) = plan.grant(record, ChangeReason::Auto(auto)) {
            return plan.drop_message(full);
        }
        plan.events.push(Event::AutoApproved { peer: plan.peer, reason: auto, label: None });
        plan.send_accept(record, received.nonce, message.nonce());
        return Ok(plan.finish(Outcome::Trusted(record)));
    }
    wait_for_operator(plan, received, standing)
}

/// We have asked this peer ourselves, and the registry or our own caller vouches for the key.
fn both_asked(plan: &Plan<'_>, key: PublicKey, standing: Standing) -> bool {
    let Some(outgoing) = &plan.outgoing else { return false };
    let expected = outgoing.expected_key == Some(key);
    (expected || standing == Standing::Bound) && !contradicts_caller(plan, key)
}

/// Whether our own caller named another key for this peer. Then no rule may trust this one; an operator can.
pub(super) fn contradicts_caller(plan: &Plan<'_>, key: PublicKey) -> bool {
    plan.outgoing.as_ref().and_then(|outgoing| outgoing.expected_key).is_some_and(|expected| expected != key)
}

///
fn wait_for_operator(mut plan: Plan<'_>, received: &Received, standing: Standing) -> Result<Step, Rejection> {
    match enqueue(&mut plan, received, standing, PendingKind::Request) {
        Ok(()) => Ok(plan.finish(Outcome::Queued)),
        Err(rejection) => plan.drop_message(rejection),
    }
}
