//! The only place where the rules are asked: one input, one consistent view, one answer.
//!
//! `step` runs in the critical section that publishes what it asks for, so of two threads with the same message exactly
//! one moves the floor, and the other finds the message stale.
#![forbid(unsafe_code)]

use super::arrival::{check_age, check_sender, check_stamp};
use super::input::{Input, Lookup, Received};
use super::outcome::{Rules, Step};
use super::plan::Plan;
use super::rejection::Rejection;
use super::view::View;
use super::{accept, housekeeping, operator, reject, request, revoke};
use crate::time::Now;
use crate::wire::message::Kind;

/// What the rules say about one input.
///
/// Pure: reads `view`, changes nothing; the same arguments give the same answer.
///
/// # Errors
/// [`Rejection`]: nothing is to be changed, done or told; count it, or hand it to the operator who asked.
///
/// # Complexity
/// A message or command costs a few look-ups; a full pending or outgoing table is scanned once to make room.
/// Housekeeping scans pending and outgoing, and the floors when they are at their limit.
///
/// # Panics
/// Never.
///
/// # Source
/// `docs/protocol.md`.
pub fn step(rules: &Rules, view: &dyn View, now: Now, input: Input) -> Result<Step, Rejection> {
    match input {
        Input::Message(received) => receive(rules, view, now, &received),
        Input::Operator(command) => operator::decide(rules, view, now, command),
        Input::Housekeeping => Ok(housekeeping::sweep(rules, view, now)),
    }
}

/// Who, besides the sender itself, says that the key in a message is the sender's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nobody.
    Unvouched,
    /// The transport, the trusted record, or the caller who made our request.
    Authentic,
    /// The registry.
    Bound,
}

impl Standing {
    pub(super) const fn is_authentic(self) -> bool {
        matches!(self, Self::Authentic | Self::Bound)
    }
}

fn receive(rules: &Rules, view: &dyn View, now: Now, received: &Received) -> Result<Step, Rejection> {
    let message = &received.message;
    if message.receiver() != rules.own_id {
        return Err(Rejection::WrongReceiver);
    }
    check_sender(rules, message.sender())?;
    check_age(rules, now, message.stamp())?;
    let mut plan = Plan::new(rules, view, now, message.sender());
    if plan.floor.key == Some(*message.key()) && plan.clamp_seen() {
        return plan.drop_message(Rejection::FloorClamped);
    }
    check_stamp(rules, now, plan.floor, message.key(), message.stamp())?;
    let standing = standing(&plan, received)?;
    if standing.is_authentic() {
        plan.raise_floor(*message.key(), message.stamp());
        revoke::farewell_again(&mut plan, received.nonce);
    }
    match message.kind() {
        Kind::Request => request::decide(plan, received, standing),
        Kind::Accept => accept::decide(plan, received, standing),
        Kind::Reject => reject::decide(plan, received, standing),
        Kind::Revoke => revoke::decide(plan, standing),
    }
}

/// Rules.
fn standing(plan: &Plan<'_>, received: &Received) -> Result<Standing, Rejection> {
    let (message, key) = (&received.message, received.message.key());
    match &received.lookup {
        Lookup::Found { key: known, .. } if known == key => return Ok(Standing::Bound),
        Lookup::Found { .. } => return Err(Rejection::KeyMismatch),
        Lookup::NotAsked | Lookup::Unknown | Lookup::Failed => {}
    }
    let by_transport = received.transport == Some(message.sender());
    let by_record = plan.trusted.is_some_and(|record| record.public_key == Some(*key));
    let by_caller = matches!(message.kind(), Kind::Accept | Kind::Reject)
        && plan
            .outgoing
            .as_ref()
            .is_some_and(|outgoing| outgoing.expected_key == Some(*key) && message.answers() == Some(outgoing.nonce));
    Ok(if by_transport || by_record || by_caller { Standing::Authentic } else { Standing::Unvouched })
}
