//! What becomes of a reject: our request is forgotten, if it is that peer who refuses that request.
#![forbid(unsafe_code)]

use super::accept::answers_us;
use super::event::Event;
use super::filter::filter;
use super::input::Received;
use super::outcome::{Outcome, Step};
use super::plan::Plan;
use super::rejection::Rejection;
use super::step::Standing;
use super::view::PendingKind;

/// Rule R-34.
pub(super) fn decide(mut plan: Plan<'_>, received: &Received, standing: Standing) -> Result<Step, Rejection> {
    if !standing.is_authentic() {
        return plan.drop_message(Rejection::NotAuthentic);
    }
    if let Err(rejection) = answers_us(&plan, received) {
        return plan.drop_message(rejection);
    }
    plan.outgoing = None;
    forget_answer(&mut plan);
    let reason = filter(received.message.reason());
    plan.events.push(Event::Rejected { peer: plan.peer, reason });
    Ok(plan.finish(Outcome::Refused))
}

/// An answer that waits for the operator means nothing once the request that it answers is gone.
pub(super) fn forget_answer(plan: &mut Plan<'_>) {
    if plan.pending.as_ref().is_some_and(|pending| pending.kind == PendingKind::AnsweredUnvouched) {
        plan.pending = None;
    }
}
