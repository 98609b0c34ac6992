//! Keys that name their successor: what a receiver makes of the statement of a trusted peer's old key.
//!
//! INVARIANT: nothing here makes a message authentic. A statement says that the holder of the old key wanted the new one;
//! a thief of the old key can say so too. So the statement counts only where nobody else vouches for the new key, and
//! what is proven by it waits for the operator unless the node was told otherwise.
//!
//! What is remembered of a peer's keys is in `tables::succession`: which key each was seen to name, or
//! that it named two or that a revoked key is concerned, so that no statement of it counts; which of them are void;
//! and which keys were replaced.
#![forbid(unsafe_code)]

use super::approval::contradicts_caller;
use super::event::{ChangeReason, Event, RotationFault};
use super::input::{Lookup, Received};
use super::outcome::{Outcome, Step};
use super::plan::Plan;
use super::refused::is_refused_key;
use super::rejection::Rejection;
use super::step::Standing;
use super::view::View;
use crate::config::OnRotation;
use crate::peer::PublicKey;
use crate::tables::succession;
use crate::wire::decode::Decoded;
use crate::wire::message::Kind;
use crate::wire::open_key::OpenKey;

/// Whether a statement in this message says anything to us: it is about the key of the sender's record, about a key that
/// we have seen a statement of, or about a revoked key. If not it need not be checked.
#[must_use]
pub fn is_of_use(view: &dyn View, message: &Decoded) -> bool {
    let Some(old) = message.statement().and_then(|raw| OpenKey::new(*raw.old_key()).ok().map(|old| *old.key())) else {
        // What names no key at all must be refused, and not ignored.
        return true;
    };
    let sender = message.sender();
    view.trusted(sender).is_some_and(|record| record.public_key == Some(old))
        || view.successors(sender).iter().any(|it| it.old == old)
        || view.revoked_key(&old).is_some()
}

/// Looks at the statement in a message, before anything else is decided about it. One that is refused is so whatever becomes
/// of its message, and whoever contradicts that.
pub(super) fn look(plan: &mut Plan<'_>, received: &Received) {
    let Some(rotation) = received.message.rotation() else { return };
    match proof(plan, received) {
        Ok(proven) => plan.proven = proven,
        Err(fault) => {
            plan.rotation_fault = Some(fault);
            contest(plan, *rotation.old_key(), *rotation.new_key(), fault);
        }
    }
}

/// The key of the record, if it signed over to the key in the message and nothing speaks against that.
fn proof(plan: &Plan<'_>, received: &Received) -> Result<Option<PublicKey>, RotationFault> {
    let Some(rotation) = received.message.rotation() else { return Ok(None) };
    let (old, new, view) = (*rotation.old_key(), *rotation.new_key(), plan.view);
    let of_record = plan.is_of_record(&old);
    let all = &plan.successors;
    // what it said something to may be gone since it was checked.
    let says_something = of_record || all.iter().any(|it| it.old == old);
    //
    if view.revoked_key(&old).is_some() || (says_something && view.revoked_key(&new).is_some()) {
        return Err(RotationFault::RevokedKey);
    }
    //
    if succession::is_void(all, &old, &new) {
        return Ok(None);
    }
    if succession::is_disputed(all, &old, &new) {
        return Err(RotationFault::SecondSuccessor);
    }
    // what cannot be remembered proves nothing.
    Ok((of_record && plan.can_remember(&old, &new)).then_some(old))
}

/// What becomes of the statement, once it is known who vouches for the message otherwise. `Some`: the message is dropped.
pub(super) fn heed(plan: &mut Plan<'_>, received: &Received, standing: Standing) -> Option<Rejection> {
    let rotation = received.message.rotation()?;
    // Who is vouched for by somebody else needs no statement, and loses nothing by a bad one.
    if standing.is_authentic() {
        plan.proven = None;
        return None;
    }
    if let Some(fault) = plan.rotation_fault {
        return Some(fault.into());
    }
    if plan.proven.is_some() && matches!(received.message.kind(), Kind::Request | Kind::Accept) {
        //
        if plan.rules.policy.on_rotation == OnRotation::Refuse {
            return Some(Rejection::RotationRefused);
        }
        plan.remember_successor(*rotation.old_key(), *rotation.new_key());
    }
    None
}

/// from now on no statement of this key counts, and what waits by one is proven by nobody. Told once.
///
/// Whoever holds a revoked key can sign over with it under any id: of those that the key never belonged to, nothing is
/// remembered or told.
fn contest(plan: &mut Plan<'_>, old: PublicKey, new: PublicKey, fault: RotationFault) {
    let is_known = plan.is_of_record(&old) || plan.floor.key == Some(old);
    let is_known = is_known || plan.successors.iter().any(|it| it.old == old);
    // A void statement is decided: it is no news, and not to shut out what the owner of its key names next.
    let is_decided = succession::is_void(&plan.successors, &old, &new);
    if !is_known || is_decided || succession::stands(&plan.successors, &old, &old) || !plan.remember_successor(old, old)
    {
        return;
    }
    if let Some(pending) = plan.pending.as_mut().filter(|pending| pending.proven_by == Some(old)) {
        pending.proven_by = None;
        pending.conflicts = pending.conflicts.saturating_add(1);
    }
    let (old, new) = (old.fingerprint(), new.fingerprint());
    plan.events.push(Event::RotationRefused { peer: plan.peer, old, new, fault });
}

/// whether the node takes the new key without its operator. What speaks against it has the operator decide.
pub(super) fn is_taken(plan: &Plan<'_>, received: &Received) -> bool {
    let key = *received.message.key();
    // A registry that names the old key, or that could not be asked, is a second opinion that is missing.
    let unopposed = matches!(received.lookup, Lookup::NotAsked | Lookup::Unknown);
    // of a key whose holder has named a refused one, nothing more is taken.
    let counts = |old: PublicKey| {
        succession::stands(&plan.successors, &old, &key) && !succession::has_void(&plan.successors, &old)
    };
    plan.rules.policy.on_rotation == OnRotation::Take
        && unopposed
        //
        && !plan.is_doubtful
        && !contradicts_caller(plan, key)
        && plan.set_aside(&key).is_none()
        //
        && !is_refused_key(plan, &key)
        && plan.proven.is_some_and(counts)
}

/// Replaces the key of the record by the one in the message.
pub(super) fn take(mut plan: Plan<'_>, received: &Received, mutual: bool) -> Result<Step, Rejection> {
    let message = &received.message;
    let Some(was) = plan.lose_trust(ChangeReason::KeyChanged) else { return Err(Rejection::NotAuthentic) };
    let record = was.key(*message.key()).approved_at(plan.now.wall).mutual(was.mutual || mutual);
    if let Err(full) = plan.grant(record, ChangeReason::KeyRotated, None) {
        return plan.drop_message(full);
    }
    plan.raise_floor(*message.key(), message.stamp());
    if message.kind() == Kind::Request {
        plan.send_accept(record, received.nonce, message.nonce());
    }
    Ok(plan.finish(Outcome::Trusted(record)))
}

#[cfg(test)]
mod decided_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod void_tests;
