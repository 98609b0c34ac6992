//! What peers still have to be told: rules.
//!
//! A request of ours is retried until its answer ends it; the outgoing entry itself is what is remembered. An accept, a
//! reject or a farewell is owed from the moment at which sending it failed, until it left once. So an answer that leaves at
//! once costs no write. A crash between decision and failure loses what would have been owed; cure that.
//!
//! More than 450 lines because what cancels a decision is tried by every door at once, beside the rules.
#![forbid(unsafe_code)]

use super::effect::{Action, Draft, Effect, When};
use super::input::Received;
use super::outcome::{Outcome, Step};
use super::plan::Plan;
use super::refused::remember;
use super::rejection::Rejection;
use super::view::{Nonce, OtherKey, Outgoing, Owed, PendingKind, TableChange};
use crate::peer::{NodeId, PublicKey};
use crate::time::{Now, Tick, WallMillis};
use crate::wire::message::Kind;

/// Which of the messages to a peer is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Retried {
    /// Our request.
    Request,
    /// The accept, reject or farewell that the peer is owed.
    Answer,
}

/// What is to be done about a request that is not answered yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Nothing: it is over, or a newer one took its place.
    Over,
    /// It may be tried again from this moment on.
    From(Tick),
}

/// When the request with this nonce may be tried again.
pub(crate) fn turn_of_request(entry: Option<&Outgoing>, nonce: Nonce) -> Turn {
    match entry.filter(|entry| entry.nonce == nonce) {
        None => Turn::Over,
        Some(Outgoing { refused: None, .. }) => Turn::From(Tick::new(i64::MIN)),
        Some(Outgoing { refused: Some(refusal), .. }) if refusal.authentic => Turn::Over,
        Some(Outgoing { refused: Some(refusal), .. }) => Turn::From(refusal.tick.saturating_add(UNVOUCHED_PAUSE_MS)),
    }
}

/// one more try, under the same nonce and a new stamp. What no longer has to be told is forgotten instead.
pub(super) fn retry(mut plan: Plan<'_>, what: Retried, nonce: Nonce) -> Result<Step, Rejection> {
    match what {
        Retried::Request => {
            let due = match turn_of_request(plan.outgoing.as_ref(), nonce) {
                Turn::Over => false,
                Turn::From(tick) => plan.now.tick >= tick,
            };
            let entry = plan.outgoing.as_ref().filter(|_| due).ok_or(Rejection::NothingToDo)?;
            let justification = entry.justification.clone();
            let draft = Draft { justification, ..plan.draft(Kind::Request, nonce) };
            plan.act(When::Now, Action::Send(draft));
            Ok(plan.finish(Outcome::Retried { kind: Kind::Request }))
        }
        Retried::Answer => {
            let owed = plan.owed.clone().filter(|owed| owed.nonce == nonce).ok_or(Rejection::NothingToDo)?;
            if !plan.still_owes(&owed) {
                return Ok(plan.finish(Outcome::NothingOwed));
            }
            let Owed { kind, answers, reason, for_key, .. } = owed;
            let when =
                plan.trusted.filter(|_| kind == Kind::Accept).map_or(When::Now, |record| plan.when_durable(record));
            // the key that an answer is for, whoever holds a connection to it.
            let key = if kind == Kind::Revoke { plan.known_key() } else { for_key };
            let draft = Draft { answers, reason, for_key, ..plan.draft(kind, nonce) };
            plan.effects.push(Effect { when, action: Action::Send(draft), answers: key });
            Ok(plan.finish(Outcome::Retried { kind }))
        }
    }
}

/// a peer repeats the request that an operator refused, before the peer was told. It is told now, and the repeat waits
/// no more than the one before: the operator has decided. Under another nonce it is another request: its sender would not take
/// this reject for an answer, and nobody has decided about it.
pub(super) fn refuse_as_owed(plan: &mut Plan<'_>, received: &Received) -> bool {
    let (message, key) = (&received.message, *received.message.key());
    let Some(owed) = plan.owed.clone().filter(|owed| owed.kind == Kind::Reject) else { return false };
    let Some(nonce) = owed.answers.filter(|nonce| message.nonce() == Some(*nonce)) else { return false };
    // A request of our own says that we would trust the peer.
    let is_told = owed.for_key == Some(key) && plan.still_owes(&owed) && plan.asked().is_none() && !plan.is_doubtful;
    if !is_told {
        return false;
    }
    let (stamp, source, first_seen) = (message.stamp(), received.path.source(), plan.now.wall);
    // no copy of this repeat comes back either.
    let asked = OtherKey { key, nonce: owed.answers, stamp, source, first_seen, kind: PendingKind::Request };
    remember(plan, [asked]);
    let draft = plan.draft(Kind::Reject, owed.nonce);
    let draft = Draft { answers: Some(nonce), reason: owed.reason, for_key: Some(key), ..draft };
    plan.effects.push(Effect { when: When::Now, action: Action::Send(draft), answers: Some(key) });
    true
}

/// a message left, so that nothing older of its kind is owed any more.
pub(super) fn delivered(mut plan: Plan<'_>, kind: Kind, stamp: WallMillis) -> Result<Step, Rejection> {
    let tells = |owed: &Owed| owed.kind == kind && owed.since <= stamp;
    plan.owed.take_if(|owed| tells(owed)).ok_or(Rejection::NothingToDo)?;
    Ok(plan.finish(Outcome::NothingOwed))
}

/// a message of ours did not leave. It is owed from now on if what it tells is still so, and nothing newer is
/// owed.
pub(super) fn undelivered(mut plan: Plan<'_>, draft: Draft) -> Result<Step, Rejection> {
    let Draft { kind, nonce, answers, reason, stamp: since, for_key, .. } = draft;
    let owed = Owed { kind, nonce, answers, reason, since, since_tick: plan.now.tick, for_key };
    let is_newest = plan.owed.as_ref().is_none_or(|before| before.nonce != nonce && before.since <= since);
    if !(is_newest && plan.still_owes(&owed)) {
        return Err(Rejection::NothingToDo);
    }
    if plan.owed.is_none() {
        make_room(&mut plan, kind)?;
    }
    plan.owed = Some(owed);
    Ok(plan.finish(Outcome::Owed { kind }))
}

/// The oldest gives way; a farewell gives way to farewells only.
fn make_room(plan: &mut Plan<'_>, kind: Kind) -> Result<(), Rejection> {
    if plan.view.owed_len() < plan.rules.limits.owed_max {
        return Ok(());
    }
    let rank = |(peer, owed): (NodeId, &Owed)| (owed.kind == Kind::Revoke, owed.since, peer);
    let oldest = plan.view.owed_iter().map(rank).min();
    match oldest {
        Some((is_farewell, _, peer)) if kind == Kind::Revoke || !is_farewell => {
            plan.others.push(TableChange::Owed(peer, None));
            Ok(())
        }
        _ => Err(Rejection::OwedFull),
    }
}

/// whether an entry has shown a refusal for long enough.
pub(super) fn is_refusal_over(entry: &Outgoing, now: Now) -> bool {
    let authentic = entry.refused.as_ref().filter(|refusal| refusal.authentic);
    authentic.is_some_and(|refusal| now.tick.millis_since(refusal.tick) > REFUSAL_KEPT_MS)
}

impl Plan<'_> {
    /// Our request to this peer, if it still waits for an answer. An entry that the peer refused only shows that.
    pub(super) fn asked(&self) -> Option<&Outgoing> {
        let is_over = |entry: &&Outgoing| entry.refused.as_ref().is_some_and(|refusal| refusal.authentic);
        self.outgoing.as_ref().filter(|entry| !is_over(entry))
    }

    /// The key under which the peer is known: the record's, or the last one that was vouched for.
    fn known_key(&self) -> Option<PublicKey> {
        self.trusted.and_then(|record| record.public_key).or(self.floor.key)
    }

    /// Tells the peer that it is trusted no longer: whoever holds the key under which it is known. Comes before the
    /// record goes.
    pub(super) fn say_farewell(&mut self, nonce: Nonce) {
        let (key, draft) = (self.known_key(), self.draft(Kind::Revoke, nonce));
        self.effects.push(Effect { when: When::Now, action: Action::Send(draft), answers: key });
    }

    /// Whether what this would tell the peer is so, as the tables are to be after this step: any opposite decision cancels
    /// it, whichever way that decision came about.
    pub(super) fn still_owes(&self, owed: &Owed) -> bool {
        //
        if self.trusted.is_none() && self.view.ignored(self.peer).is_some() {
            return false;
        }
        match owed.kind {
            Kind::Request => false,
            // it was decided for one key.
            Kind::Accept => self.trusted.is_some_and(|record| record.public_key == owed.for_key),
            Kind::Reject => {
                self.revoked.is_none() && self.trusted.is_none_or(|record| record.public_key != owed.for_key)
            }
            // Our own request says that we would trust the peer again. A farewell behind it would take it back.
            Kind::Revoke => self.revoked.is_some() && self.asked().is_none(),
        }
    }
}

/// How long a refusal under a key that nobody vouches for stops the tries of a request.
pub(crate) const UNVOUCHED_PAUSE_MS: i64 = 60 * 60 * 1000;
/// How long a refusal is shown.
const REFUSAL_KEPT_MS: i64 = 24 * 60 * 60 * 1000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::input::{Command, Input};
    use crate::testing::actor::{Actor, Way, asked_by, at, node, sent};

    const HOUR: i64 = 60 * 60 * 1000;

    fn asks(us: &mut Actor, peer: &mut Actor, ms: i64) {
        let request = peer.draft(at(ms), us.id(), Kind::Request, None);
        us.hear_from(at(ms), peer, &request, Way::open()).unwrap();
    }

    /// The message of this step does not leave.
    fn fails(us: &mut Actor, ms: i64, step: &Step) -> Result<Outcome, Rejection> {
        let draft = sent(step).unwrap().clone();
        us.step(at(ms), Input::Undelivered { draft }).map(|step| step.outcome)
    }

    fn owed(us: &Actor) -> Option<Kind> {
        us.tables.owed.get(&node(9)).map(|owed| owed.kind)
    }

    fn try_again(us: &mut Actor, ms: i64) -> Result<Step, Rejection> {
        let nonce = us.tables.owed[&node(9)].nonce;
        us.step(at(ms), Input::Retry { peer: node(9), what: Retried::Answer, nonce })
    }

    #[test]
    fn what_did_not_leave_is_owed_and_tried_under_the_same_nonce_and_a_new_stamp() {
        let mut peer = Actor::new(9, 0x11);
        let mut us = asked_by(&mut peer).0;
        let approved = us.approve(at(50), peer.id(), Some(peer.public_key().fingerprint())).unwrap();
        let first = sent(&approved).unwrap().clone();
        assert_eq!(owed(&us), None, "an answer that leaves at once costs no write");
        assert_eq!(fails(&mut us, 60, &approved), Ok(Outcome::Owed { kind: Kind::Accept }));
        let again = try_again(&mut us, 5000).unwrap();
        let second = sent(&again).unwrap().clone();
        assert_eq!(Draft { stamp: first.stamp, ..second.clone() }, first);
        assert_eq!(second.stamp, at(5000).wall);
        let waits = When::OnceDurable { still: us.tables.trusted[&peer.id()] };
        assert!(again.effects.iter().all(|effect| effect.when == waits));
        // Failing again changes nothing.
        assert_eq!(fails(&mut us, 5010, &again), Err(Rejection::NothingToDo));
        let stamp = second.stamp;
        us.step(at(5020), Input::Delivered { peer: peer.id(), kind: Kind::Accept, stamp }).unwrap();
        assert_eq!(owed(&us), None);
    }

    #[test]
    fn a_refusal_and_a_farewell_are_owed_and_tried_at_once_whatever_the_disk_does() {
        let mut peer = Actor::new(9, 0x11);
        let mut us = asked_by(&mut peer).0;
        let refused = us.refuse(at(20), peer.id(), "no").unwrap();
        fails(&mut us, 30, &refused).unwrap();
        let again = try_again(&mut us, 1000).unwrap();
        let draft = sent(&again).unwrap();
        assert_eq!(
            (draft.kind, draft.reason.as_str(), draft.answers),
            (Kind::Reject, "no", sent(&refused).unwrap().answers)
        );
        assert!(again.effects.iter().all(|effect| effect.when == When::Now));

        us.trusts(peer.id(), Some(peer.public_key()));
        let revoked = us.revoke(at(2000), peer.id()).unwrap();
        assert_eq!(owed(&us), None, "the refusal is no longer owed");
        fails(&mut us, 2010, &revoked).unwrap();
        let again = try_again(&mut us, 3000).unwrap();
        assert_eq!(sent(&again).unwrap().kind, Kind::Revoke);
        assert!(again.effects.iter().all(|effect| effect.when == When::Now));
        assert_eq!(again.effects.len(), 1, "the tunnel was cut, and the registry told, when it was decided");
    }

    #[test]
    fn of_opposite_decisions_only_the_newest_is_owed() {
        let mut peer = Actor::new(9, 0x11);
        let fingerprint = Some(peer.public_key().fingerprint());
        // Accept, then revoke.
        let mut us = asked_by(&mut peer).0;
        let approved = us.approve(at(20), peer.id(), fingerprint).unwrap();
        fails(&mut us, 30, &approved).unwrap();
        let revoked = us.revoke(at(40), peer.id()).unwrap();
        assert_eq!(owed(&us), None);
        // Whichever try is reported first.
        fails(&mut us, 50, &revoked).unwrap();
        assert_eq!(fails(&mut us, 60, &approved), Err(Rejection::NothingToDo));
        assert_eq!(owed(&us), Some(Kind::Revoke));
        // Revoke, then approve.
        asks(&mut us, &mut peer, 70);
        let lift = us.tables.revoked[&peer.id()].id;
        let approved = us.approve_lifting(at(80), peer.id(), lift).unwrap();
        assert_eq!(fails(&mut us, 90, &revoked), Err(Rejection::NothingToDo));
        fails(&mut us, 90, &approved).unwrap();
        assert_eq!(owed(&us), Some(Kind::Accept));
        // Refuse, then grant outright.
        let mut us = asked_by(&mut peer).0;
        let refused = us.refuse(at(20), peer.id(), "no").unwrap();
        fails(&mut us, 30, &refused).unwrap();
        let record = crate::peer::TrustRecord::new(peer.id(), peer.public_key());
        us.command(at(40), Command::Grant { record, lift: None }).unwrap();
        assert_eq!(owed(&us), None);
        // Accept, then the peer takes it back.
        let mut us = asked_by(&mut peer).0;
        let approved = us.approve(at(20), peer.id(), fingerprint).unwrap();
        fails(&mut us, 30, &approved).unwrap();
        let revoke = peer.draft(at(40), us.id(), Kind::Revoke, None);
        us.hear_from(at(40), &peer, &revoke, Way::open()).unwrap();
        assert_eq!(owed(&us), None);
    }

    #[test]
    fn what_another_door_decided_cancels_what_is_owed_at_the_next_try() {
        let mut peer = Actor::new(9, 0x11);
        let mut us = asked_by(&mut peer).0;
        let approved = us.approve(at(20), peer.id(), Some(peer.public_key().fingerprint())).unwrap();
        fails(&mut us, 30, &approved).unwrap();
        // The store's own call, an import.
        us.tables.trusted.clear();
        let step = try_again(&mut us, 1000).unwrap();
        assert_eq!((step.outcome, sent(&step), owed(&us)), (Outcome::NothingOwed, None, None));
    }

    #[test]
    fn what_is_owed_is_good_for_the_key_that_it_was_decided_for() {
        type Door = fn(&mut Actor);
        let doors: [(&str, Door); 5] = [
            ("granted", |us| {
                let record = crate::peer::TrustRecord::new(node(9), Actor::new(9, 0x22).public_key());
                us.command(at(40), Command::Grant { record, lift: None }).unwrap();
            }),
            ("the store, an import", |us| {
                us.trusts(node(9), Some(Actor::new(9, 0x22).public_key()));
            }),
            ("the key is unbound", |us| {
                us.trusts(node(9), None);
            }),
            ("taken", |us| {
                us.rules.policy.on_rotation = crate::config::OnRotation::Take;
                let mut new = Actor::new(9, 0x22);
                new.rotation = Some(Actor::new(9, 0x11).signs_over_to(&new, at(0)));
                asks(us, &mut new, 40);
            }),
            ("the registry, and a rule", |us| {
                us.rules.policy = crate::config::Policy::default().own_networks([5]);
                let mut new = Actor::new(9, 0x22);
                let request = new.draft(at(40), us.id(), Kind::Request, None);
                us.hear_from(at(40), &new, &request, Way::in_networks(new.public_key(), &[5])).unwrap();
            }),
        ];
        for (what, door) in doors {
            for failed_before in [true, false] {
                let mut peer = Actor::new(9, 0x11);
                let mut us = asked_by(&mut peer).0;
                let approved = us.approve(at(20), peer.id(), Some(peer.public_key().fingerprint())).unwrap();
                if failed_before {
                    fails(&mut us, 30, &approved).unwrap();
                }
                door(&mut us);
                assert_ne!(us.tables.trusted[&node(9)].public_key, Some(peer.public_key()), "{what}");
                if !failed_before {
                    assert_eq!(fails(&mut us, 50, &approved), Err(Rejection::NothingToDo), "{what}");
                }
                if owed(&us).is_some() {
                    let step = try_again(&mut us, 1000).unwrap();
                    assert_eq!((step.outcome, sent(&step), owed(&us)), (Outcome::NothingOwed, None, None), "{what}");
                }
            }
        }
        // The twin: on other terms, and under the same key, it is still so.
        let mut peer = Actor::new(9, 0x11);
        let mut us = asked_by(&mut peer).0;
        let approved = us.approve(at(20), peer.id(), Some(peer.public_key().fingerprint())).unwrap();
        fails(&mut us, 30, &approved).unwrap();
        let record = us.tables.trusted[&node(9)].network(7);
        us.command(at(40), Command::Grant { record, lift: None }).unwrap();
        assert_eq!(sent(&try_again(&mut us, 1000).unwrap()).map(|draft| draft.for_key), Some(Some(peer.public_key())));
    }

    #[test]
    fn a_key_is_refused_though_its_peer_is_trusted_under_another() {
        let mut other = Actor::new(9, 0x22);
        let mut us = Actor::new(7, 0xAA);
        us.trusts(node(9), Some(Actor::new(9, 0x11).public_key()));
        asks(&mut us, &mut other, 10);
        let refused = us.refuse(at(20), node(9), "no").unwrap();
        assert_eq!(sent(&refused).map(|draft| draft.kind), Some(Kind::Reject));
        fails(&mut us, 30, &refused).unwrap();
        assert_eq!(sent(&try_again(&mut us, 1000).unwrap()).map(|draft| draft.kind), Some(Kind::Reject));
        // The twin: trusted under that very key.
        let record = crate::peer::TrustRecord::new(node(9), other.public_key());
        us.command(at(2000), Command::Grant { record, lift: None }).unwrap();
        assert_eq!(owed(&us), None);
    }

    #[test]
    fn asking_a_revoked_peer_again_takes_the_farewell_back() {
        let mut us = Actor::new(7, 0xAA);
        us.trusts(node(9), None);
        let revoked = us.revoke(at(10), node(9)).unwrap();
        fails(&mut us, 20, &revoked).unwrap();
        assert_eq!(owed(&us), Some(Kind::Revoke));
        let lift = us.tables.revoked[&node(9)].id;
        us.request_lifting(at(30), node(9), None, lift).unwrap();
        assert_eq!(owed(&us), None);
    }

    #[test]
    fn a_later_answer_that_left_is_enough_and_an_earlier_one_is_not() {
        let mut peer = Actor::new(9, 0x11);
        let mut us = asked_by(&mut peer).0;
        let approved = us.approve(at(20), peer.id(), Some(peer.public_key().fingerprint())).unwrap();
        fails(&mut us, 30, &approved).unwrap();
        let delivered = |kind, ms| Input::Delivered { peer: node(9), kind, stamp: at(ms).wall };
        assert!(us.step(at(40), delivered(Kind::Accept, 19)).is_err());
        assert!(us.step(at(40), delivered(Kind::Revoke, 40)).is_err());
        assert_eq!(owed(&us), Some(Kind::Accept));
        // it asked again and was answered.
        let request = peer.draft(at(50), us.id(), Kind::Request, None);
        let confirmed = us.hear_from(at(50), &peer, &request, Way::open()).unwrap();
        let stamp = sent(&confirmed).unwrap().stamp;
        us.step(at(60), Input::Delivered { peer: node(9), kind: Kind::Accept, stamp }).unwrap();
        assert_eq!(owed(&us), None);
        // Its twin did not leave either: the newer answer is owed.
        fails(&mut us, 70, &approved).unwrap();
        fails(&mut us, 80, &confirmed).unwrap();
        assert_eq!(us.tables.owed[&node(9)].answers, Some(request.nonce));
        assert_eq!(fails(&mut us, 90, &approved), Err(Rejection::NothingToDo), "never back to the older one");
    }

    #[test]
    fn as_many_peers_are_owed_something_as_may_be_and_a_farewell_gives_way_to_farewells_only() {
        let mut us = Actor::new(7, 0xAA);
        us.rules.limits.owed_max = 2;
        let owes = |us: &mut Actor, id: u32, ms: i64, farewell: bool| {
            us.trusts(node(id), None);
            let step = if farewell {
                us.revoke(at(ms), node(id)).unwrap()
            } else {
                us.tables.trusted.clear();
                let mut peer = Actor::new(id, 0x11);
                let request = peer.draft(at(ms), us.id(), Kind::Request, None);
                us.hear_from(at(ms), &peer, &request, Way::from_host(u8::try_from(id).unwrap())).unwrap();
                us.refuse(at(ms), node(id), "no").unwrap()
            };
            fails(us, ms, &step)
        };
        let ids = |us: &Actor| us.tables.owed.keys().map(|peer| peer.get()).collect::<Vec<_>>();
        for (id, ms, farewell) in [(11, 1, true), (12, 2, false), (13, 3, false)] {
            owes(&mut us, id, ms, farewell).unwrap();
        }
        assert_eq!(ids(&us), [11, 13], "the oldest that is no farewell went");
        owes(&mut us, 14, 4, true).unwrap();
        assert_eq!(ids(&us), [11, 14]);
        assert_eq!(owes(&mut us, 15, 5, false), Err(Rejection::OwedFull));
        owes(&mut us, 16, 6, true).unwrap();
        assert_eq!(ids(&us), [14, 16]);
    }

    #[test]
    fn what_cannot_be_told_is_owed_for_thirty_days_and_not_a_millisecond_more() {
        let mut peer = Actor::new(9, 0x11);
        let mut us = asked_by(&mut peer).0;
        let refused = us.refuse(at(0), peer.id(), "no").unwrap();
        fails(&mut us, 20, &refused).unwrap();
        us.step(at(20 + 30 * 24 * HOUR), Input::Housekeeping).unwrap();
        assert_eq!(owed(&us), Some(Kind::Reject));
        us.step(at(21 + 30 * 24 * HOUR), Input::Housekeeping).unwrap();
        assert_eq!(owed(&us), None);
    }

    #[test]
    fn a_request_is_tried_until_its_answer_ends_it() {
        let (mut us, mut peer) = (Actor::new(7, 0xAA), Actor::new(9, 0x11));
        let asked = us.request(at(0), peer.id(), None).unwrap();
        let first = sent(&asked).unwrap().clone();
        let retry = |us: &mut Actor, ms: i64| {
            us.step(at(ms), Input::Retry { peer: node(9), what: Retried::Request, nonce: first.nonce })
        };
        let before = us.tables.outgoing.clone();
        let again = retry(&mut us, 1000).unwrap();
        assert_eq!(Draft { stamp: first.stamp, ..sent(&again).unwrap().clone() }, first);
        assert!(sent(&again).unwrap().stamp > first.stamp);
        assert_eq!(us.tables.outgoing, before, "the entry is as old as it is");
        // an hour of silence after a refusal that nobody vouches for.
        let reject = peer.draft(at(2000), us.id(), Kind::Reject, Some(first.nonce));
        us.hear_from(at(2000), &peer, &reject, Way::open()).unwrap();
        assert_eq!(retry(&mut us, 1999 + HOUR), Err(Rejection::NothingToDo));
        assert!(retry(&mut us, 2000 + HOUR).is_ok());
        // one that somebody vouches for ends it.
        let reject = peer.draft(at(2010 + HOUR), us.id(), Kind::Reject, Some(first.nonce));
        us.hear_from(at(2010 + HOUR), &peer, &reject, Way::registered(peer.public_key())).unwrap();
        assert_eq!(retry(&mut us, 9 * HOUR), Err(Rejection::NothingToDo));
        // So do a cancellation and a newer request.
        let renewed = us.request(at(9 * HOUR), peer.id(), None).unwrap();
        assert_eq!(retry(&mut us, 9 * HOUR), Err(Rejection::NothingToDo));
        let nonce = sent(&renewed).unwrap().nonce;
        let input = Input::Retry { peer: node(9), what: Retried::Request, nonce };
        assert!(us.step(at(9 * HOUR), input.clone()).is_ok());
        // That a relay may have it ends nothing: perhaps the relay did not take it.
        us.tables.outgoing.get_mut(&node(9)).unwrap().relayed = true;
        assert!(us.step(at(9 * HOUR), input.clone()).is_ok());
        assert!(us.tables.outgoing[&node(9)].relayed, "the mark stays with the nonce");
        us.command(at(9 * HOUR), Command::Cancel { peer: node(9) }).unwrap();
        assert_eq!(us.step(at(9 * HOUR), input), Err(Rejection::NothingToDo));
    }
}
