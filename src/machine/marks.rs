//! What operators say about peers and keys besides trusting them: revocations of keys, forgetting a revocation, removing
//! without one, and ignoring.
//!
//! INVARIANT: nothing here creates a record.
#![forbid(unsafe_code)]

use super::event::{ChangeReason, Event};
use super::input::PeerOrKey;
use super::outcome::{Outcome, Rules, Step};
use super::plan::Plan;
use super::refused::remembered;
use super::rejection::Rejection;
use super::view::{Nonce, Revocation, RevocationId, TableChange, View};
use crate::peer::{NodeId, PublicKey};
use crate::tables::forget::forgotten;
use crate::tables::refuse::spoken_of;
use crate::tables::succession;
use crate::time::Now;
use crate::wire::message::Kind;

/// trust ends, and nothing bars the peer from coming back.
pub(super) fn remove(mut plan: Plan<'_>) -> Result<Step, Rejection> {
    let was = plan.lose_trust(ChangeReason::Removed).ok_or(Rejection::NothingToDo)?;
    Ok(plan.finish(Outcome::Removed { was }))
}

/// the mark, and the end of what waits under the key or asks for it. Records, and peers whose keys have named this one,
/// are many: a shell looks for them without a lock, and does with each as [`end_under_key`] says.
pub(super) fn revoke_key(
    rules: &Rules,
    view: &dyn View,
    now: Now,
    key: PublicKey,
    nonce: Nonce,
) -> Result<Step, Rejection> {
    let marked = view.revoked_key(&key);
    if marked.is_none() && view.revoked_keys_len() >= rules.limits.revoked_keys_max {
        return Err(Rejection::RevokedKeysFull);
    }
    let is_of = |_, shown| shown == Some(key);
    let mut changes = forgotten(view.pending_iter(), view.outgoing_iter(), is_of);
    let fresh = Revocation::new(now.wall, RevocationId::drawn_from(nonce));
    let mark = Revocation::after(marked, fresh, !changes.is_empty());
    //
    changes.extend(remembered(rules, view, now, &spoken_of(view.pending_iter(), is_of)));
    let mut events = Vec::new();
    if marked != Some(mark) {
        changes.push(TableChange::RevokedKey(key, Some(mark)));
        events.push(Event::KeyRevoked { fingerprint: key.fingerprint() });
    }
    Ok(Step { events, ..plain(changes, Outcome::KeyRevoked { marked }) })
}

/// trust in one peer under a key that is marked, and what the peer's keys had said of that key.
pub(super) fn end_under_key(mut plan: Plan<'_>, key: PublicKey, nonce: Nonce) -> Result<Step, Rejection> {
    let is_under_it = plan.is_of_record(&key);
    let is_concerned = is_under_it || succession::is_named(&plan.successors, &key);
    if !is_concerned || plan.view.revoked_key(&key).is_none() {
        return Err(Rejection::NothingToDo);
    }
    succession::key_revoked(&mut plan.successors, &key);
    if !is_under_it {
        return Ok(plan.finish(Outcome::EndedUnderKey { was: None }));
    }
    plan.say_farewell(nonce);
    let was = plan.lose_trust(ChangeReason::KeyRevoked);
    Ok(plan.finish(Outcome::EndedUnderKey { was }))
}

/// A request that would have lifted the mark stays: there is nothing left for it to lift.
pub(super) fn forget(view: &dyn View, of: PeerOrKey) -> Result<Step, Rejection> {
    let (mark, change, event) = match of {
        PeerOrKey::Peer(peer) => {
            (view.revoked(peer), TableChange::Revoked(peer, None), Event::RevocationForgotten { peer })
        }
        PeerOrKey::Key(key) => (
            view.revoked_key(&key),
            TableChange::RevokedKey(key, None),
            Event::KeyRevocationForgotten { fingerprint: key.fingerprint() },
        ),
    };
    let mark = mark.ok_or(Rejection::NothingToDo)?;
    let mut changes = vec![change];
    // nobody is owed the farewell of a revocation that is no more.
    if let PeerOrKey::Peer(peer) = of
        && view.owed(peer).is_some_and(|owed| owed.kind == Kind::Revoke)
    {
        changes.push(TableChange::Owed(peer, None));
    }
    Ok(Step { events: vec![event], ..plain(changes, Outcome::RevocationForgotten(mark)) })
}

/// what waits goes, what we asked too, and nothing more is heard.
pub(super) fn ignore(rules: &Rules, view: &dyn View, now: Now, of: PeerOrKey) -> Result<Step, Rejection> {
    let (limits, at) = (&rules.limits, Some(now.wall));
    let (is_ignored, is_full, change) = match of {
        PeerOrKey::Peer(peer) => {
            if peer == rules.own_id {
                return Err(Rejection::PeerIsUs);
            }
            if view.trusted(peer).is_some() {
                return Err(Rejection::TrustedNotIgnored);
            }
            let is_full = view.ignored_len() >= limits.ignored_max;
            (view.ignored(peer).is_some(), is_full, TableChange::Ignored(peer, at))
        }
        PeerOrKey::Key(key) => {
            let is_full = view.ignored_keys_len() >= limits.ignored_keys_max;
            (view.ignored_key(&key).is_some(), is_full, TableChange::IgnoredKey(key, at))
        }
    };
    if is_full && !is_ignored {
        return Err(Rejection::IgnoredFull);
    }
    let is_of = |peer: NodeId, key: Option<PublicKey>| match of {
        PeerOrKey::Peer(ignored) => ignored == peer,
        // Trust stands above an ignored key under that key alone: what a trusted peer shows besides is not heard.
        PeerOrKey::Key(ignored) => {
            Some(ignored) == key && view.trusted(peer).is_none_or(|record| record.public_key != Some(ignored))
        }
    };
    let mut changes = forgotten(view.pending_iter(), view.outgoing_iter(), is_of);
    //
    changes.extend(remembered(rules, view, now, &spoken_of(view.pending_iter(), is_of)));
    if !is_ignored {
        changes.push(change);
    }
    if let PeerOrKey::Peer(peer) = of
        && view.owed(peer).is_some()
    {
        changes.push(TableChange::Owed(peer, None));
    }
    if changes.is_empty() { Err(Rejection::NothingToDo) } else { Ok(plain(changes, Outcome::Ignored)) }
}

///
pub(super) fn unignore(view: &dyn View, of: PeerOrKey) -> Result<Step, Rejection> {
    let (is_ignored, change) = match of {
        PeerOrKey::Peer(peer) => (view.ignored(peer).is_some(), TableChange::Ignored(peer, None)),
        PeerOrKey::Key(key) => (view.ignored_key(&key).is_some(), TableChange::IgnoredKey(key, None)),
    };
    if is_ignored { Ok(plain(vec![change], Outcome::Unignored)) } else { Err(Rejection::NothingToDo) }
}

/// A step that changes tables, and does and tells nothing.
fn plain(changes: Vec<TableChange>, outcome: Outcome) -> Step {
    Step { changes, effects: Vec::new(), events: Vec::new(), outcome, clamped: false, noted: None }
}

#[cfg(test)]
mod ignore_tests;
#[cfg(test)]
mod tests;
