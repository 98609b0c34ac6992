//! What becomes of an accept: trust if it answers our newest request and somebody vouches for the key; the operator's
//! decision if nobody does.
#![forbid(unsafe_code)]

use super::event::ChangeReason;
use super::input::Received;
use super::outcome::{Outcome, Step};
use super::plan::Plan;
use super::queue::enqueue;
use super::rejection::Rejection;
use super::request::contradicts_caller;
use super::step::Standing;
use super::view::PendingKind;
use crate::peer::TrustRecord;

pub(super) fn decide(mut plan: Plan<'_>, received: &Received, standing: Standing) -> Result<Step, Rejection> {
    let key = *received.message.key();
    //
    if let Err(rejection) = answers_us(&plan, received) {
        return plan.drop_message(rejection);
    }
    // the peer is under a new key, vouched for. The old trust ends; no new trust comes of this message.
    let record = plan.trusted;
    let same_key = record.is_some_and(|record| record.public_key == Some(key));
    let other_key = record.is_some_and(|record| record.public_key.is_some_and(|old| old != key));
    if other_key && standing.is_authentic() {
        plan.lose_trust(ChangeReason::KeyChanged);
        return plan.drop_message(Rejection::KeyChanged);
    }
    // first contact, or a key other than our caller named. The request stays open, so that a forger who saw its
    // nonce cannot keep the genuine answer out.
    if !standing.is_authentic() || (contradicts_caller(&plan, key) && !same_key) {
        return match enqueue(&mut plan, received, standing, PendingKind::AnsweredUnvouched) {
            Ok(()) => Ok(plan.finish(Outcome::Queued)),
            Err(rejection) => plan.drop_message(rejection),
        };
    }
    // A record that was there stays as old as it is: trust has not lapsed.
    let record = record.unwrap_or_else(|| TrustRecord::new(plan.peer, None).approved_at(plan.now.wall));
    let record = record.key(key).mutual(true);
    match plan.grant(record, ChangeReason::Accepted) {
        Ok(()) => Ok(plan.finish(Outcome::Trusted(record))),
        Err(full) => plan.drop_message(full),
    }
}

/// Whether an accept or reject answers our newest request to this peer.
pub(super) fn answers_us(plan: &Plan<'_>, received: &Received) -> Result<(), Rejection> {
    if plan.revoked.is_some() {
        return Err(Rejection::PeerRevoked);
    }
    let outgoing = plan.outgoing.as_ref().ok_or(Rejection::NotAsked)?;
    if received.message.answers() == Some(outgoing.nonce) { Ok(()) } else { Err(Rejection::WrongAnswer) }
}
