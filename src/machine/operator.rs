//! What an operator's commands come to: rules. A command that finds nothing to do says so and changes
//! nothing.
#![forbid(unsafe_code)]

use super::effect::{Action, Draft, When};
use super::event::{ChangeReason, Event, TrustState};
use super::filter::filter;
use super::input::Command;
use super::outcome::{Outcome, Rules, Step};
use super::plan::Plan;
use super::reject::forget_answer;
use super::rejection::Rejection;
use super::view::{Nonce, Outgoing, PendingKind, TableChange, View};
use crate::peer::{Fingerprint, NodeId, PublicKey, TrustRecord};
use crate::time::Now;
use crate::wire::message::Kind;

pub(super) fn decide(rules: &Rules, view: &dyn View, now: Now, command: Command) -> Result<Step, Rejection> {
    let plan = |peer: NodeId| {
        if peer == rules.own_id { Err(Rejection::PeerIsUs) } else { Ok(Plan::new(rules, view, now, peer)) }
    };
    match command {
        Command::Request { peer, justification, expected_key, nonce, force, automatic } => {
            let plan = plan(peer)?;
            if plan.trusted.is_some() && !force {
                return Err(Rejection::AlreadyTrusted);
            }
            if plan.revoked.is_some() && automatic {
                return Err(Rejection::RevokedNeedsOperator);
            }
            Ok(request(plan, &justification, expected_key, nonce))
        }
        Command::Approve { peer, fingerprint, nonce } => approve(plan(peer)?, fingerprint, nonce),
        Command::Reject { peer, reason, nonce } => reject(plan(peer)?, &reason, nonce),
        Command::Cancel { peer } => cancel(plan(peer)?),
        Command::Revoke { peer, nonce } => revoke(plan(peer)?, nonce),
    }
}

///
fn request(mut plan: Plan<'_>, justification: &str, expected_key: Option<PublicKey>, nonce: Nonce) -> Step {
    if plan.outgoing.is_none() {
        forget_oldest(&mut plan);
    }
    let justification = filter(justification);
    // A key that was named once stays named until the request is cancelled or another key is named.
    let expected_key = expected_key.or(plan.outgoing.as_ref().and_then(|outgoing| outgoing.expected_key));
    plan.outgoing = Some(Outgoing {
        sent_at: plan.now.wall,
        sent_tick: plan.now.tick,
        nonce,
        expected_key,
        justification: justification.clone(),
    });
    plan.revoked = None;
    let draft = plan.draft(Kind::Request, nonce);
    let stamp = draft.stamp;
    plan.act(When::Now, Action::Send(Draft { justification, ..draft }));
    plan.finish(Outcome::Requested { nonce, stamp })
}

/// Our own requests never fail for want of room: the oldest go.
fn forget_oldest(plan: &mut Plan<'_>) {
    let too_many = (plan.view.outgoing_len() + 1).saturating_sub(plan.rules.limits.outgoing_max);
    if too_many > 0 {
        let mut by_age: Vec<_> = plan.view.outgoing_iter().map(|(peer, entry)| (entry.sent_tick, peer)).collect();
        by_age.sort_unstable();
        plan.others.extend(by_age.into_iter().take(too_many).map(|(_, peer)| TableChange::Outgoing(peer, None)));
    }
}

///
fn approve(mut plan: Plan<'_>, fingerprint: Option<Fingerprint>, nonce: Nonce) -> Result<Step, Rejection> {
    let pending = plan.pending.clone().ok_or(Rejection::NothingToDo)?;
    let current = pending.key.fingerprint();
    match fingerprint {
        Some(shown) if shown != current => return Err(Rejection::WrongFingerprint { current }),
        None if pending.conflicts > 0 => return Err(Rejection::FingerprintRequired { current }),
        _ => {}
    }
    let mutual = plan.outgoing.is_some();
    let record = TrustRecord::new(plan.peer, pending.key).approved_at(plan.now.wall).mutual(mutual);
    plan.grant(record, ChangeReason::Approved)?;
    plan.events.push(Event::Approved { peer: plan.peer });
    // The operator vouches for the key, so the message that brought it is authentic in hindsight, and nothing older
    // is believed.
    plan.raise_floor(pending.key, pending.stamp);
    plan.clamp_seen();
    if let (PendingKind::Request, Some(answers)) = (pending.kind, pending.nonce) {
        plan.send_accept(record, nonce, answers);
    }
    Ok(plan.finish(Outcome::Approved(record)))
}

///
fn reject(mut plan: Plan<'_>, reason: &str, nonce: Nonce) -> Result<Step, Rejection> {
    let pending = plan.pending.take().ok_or(Rejection::NothingToDo)?;
    if let (PendingKind::Request, Some(answers)) = (pending.kind, pending.nonce) {
        let draft = plan.draft(Kind::Reject, nonce);
        plan.act(When::Now, Action::Send(Draft { reason: filter(reason), answers: Some(answers), ..draft }));
    }
    Ok(plan.finish(Outcome::Rejected))
}

///
fn cancel(mut plan: Plan<'_>) -> Result<Step, Rejection> {
    plan.outgoing.take().ok_or(Rejection::NothingToDo)?;
    forget_answer(&mut plan);
    Ok(plan.finish(Outcome::Cancelled))
}

/// INVARIANT I-3.
fn revoke(mut plan: Plan<'_>, nonce: Nonce) -> Result<Step, Rejection> {
    if plan.trusted.is_none() && plan.pending.is_none() && plan.outgoing.is_none() {
        return Err(Rejection::NothingToDo);
    }
    let (peer, was) = (plan.peer, plan.trusted.take());
    plan.pending = None;
    plan.outgoing = None;
    plan.revoked = Some(plan.now.wall);
    if was.is_some() {
        let (state, reason) = (TrustState::Revoked, ChangeReason::Revoked);
        plan.events.push(Event::TrustChanged { peer, state, reason });
    }
    plan.events.push(Event::Revoked { peer });
    let farewell = plan.draft(Kind::Revoke, nonce);
    plan.act(When::Now, Action::Send(farewell));
    plan.act(When::Now, Action::Disconnect { peer, within: plan.rules.config.farewell_max });
    plan.act(When::Now, Action::ReportRevoke { peer });
    Ok(plan.finish(Outcome::Revoked { was }))
}
