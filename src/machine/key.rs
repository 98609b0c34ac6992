//! Keys of trusted records: how one that has none gets one, and what becomes of one whose peer has another.
//!
//! INVARIANT: nothing here creates a record.
#![forbid(unsafe_code)]

use super::approval::contradicts_caller;
use super::event::{ChangeReason, Event};
use super::input::Lookup;
use super::outcome::{Outcome, Rules, Step};
use super::plan::Plan;
use super::rejection::Rejection;
use super::view::{KeyFault, View};
use crate::peer::{NodeId, PublicKey};
use crate::time::Now;

///
pub(super) fn adopt(mut plan: Plan<'_>, key: PublicKey) -> Result<Step, Rejection> {
    let record = plan.trusted.ok_or(Rejection::NothingToDo)?;
    match record.public_key {
        Some(bound) if bound == key => Err(Rejection::NothingToDo),
        Some(_) => Err(Rejection::OtherKeyBound),
        None if contradicts_caller(&plan, key) => Err(Rejection::OtherKeyExpected),
        None => {
            //
            if let Some(marked) = plan.marks(Some(&key)).not_lifted_by(None) {
                return Err(marked.into());
            }
            //
            match plan.set_aside(&key) {
                Some(KeyFault::Replaced(_)) => return Err(Rejection::KeyReplaced),
                Some(_) => return Err(Rejection::KeySetAside),
                None => {}
            }
            let record = plan.adopt_key(record, key);
            plan.begin_trust(record);
            Ok(plan.finish(Outcome::KeyAdopted(record)))
        }
    }
}

/// something that is believed has authenticated the peer under this key.
pub(super) fn change(mut plan: Plan<'_>, key: PublicKey) -> Result<Step, Rejection> {
    let bound = other_than(&plan, key)?;
    //
    if plan.has_replaced(&key) {
        return Err(Rejection::KeyReplaced);
    }
    plan.notice_key(None, bound, key);
    end(plan)
}

/// the registry names this key.
fn contradict(mut plan: Plan<'_>, key: PublicKey) -> Result<Step, Rejection> {
    let bound = other_than(&plan, key)?;
    // it has not heard of what came after that key.
    if plan.is_behind(&key, &bound) {
        return Err(Rejection::NothingToDo);
    }
    plan.notice_key(None, key, bound);
    end(plan)
}

/// The key of the record, if it has one and not this one.
fn other_than(plan: &Plan<'_>, key: PublicKey) -> Result<PublicKey, Rejection> {
    let bound = plan.trusted.and_then(|record| record.public_key);
    bound.filter(|bound| *bound != key).ok_or(Rejection::NothingToDo)
}

fn end(mut plan: Plan<'_>) -> Result<Step, Rejection> {
    let was = plan.lose_trust(ChangeReason::KeyChanged).ok_or(Rejection::NothingToDo)?;
    Ok(plan.finish(Outcome::KeyChanged { was }))
}

///
pub(super) fn back_fill(
    rules: &Rules,
    view: &dyn View,
    now: Now,
    peer: NodeId,
    lookup: &Lookup,
) -> Result<Step, Rejection> {
    let Lookup::Found { key, .. } = lookup else { return Err(Rejection::NothingToDo) };
    let plan = Plan::new(rules, view, now, peer);
    match plan.trusted.map(|record| record.public_key) {
        Some(None) => adopt(plan, *key),
        Some(Some(_)) => contradict(plan, *key),
        None => Err(Rejection::NothingToDo),
    }
}

/// only if the record still has the key that was compared.
pub(super) fn compared(
    rules: &Rules,
    view: &dyn View,
    now: Now,
    peer: NodeId,
    was: PublicKey,
    found: PublicKey,
) -> Result<Step, Rejection> {
    let plan = Plan::new(rules, view, now, peer);
    if plan.trusted.is_none_or(|record| record.public_key != Some(was)) {
        return Err(Rejection::NothingToDo);
    }
    contradict(plan, found)
}

/// nothing is ended; the operator is told.
pub(super) fn disagreement(compared: u64, contradicted: u64) -> Step {
    Step {
        changes: Vec::new(),
        effects: Vec::new(),
        events: vec![Event::RegistryDisagrees { compared, contradicted }],
        outcome: Outcome::Told,
        clamped: false,
        noted: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::effect::{Action, When};
    use crate::machine::event::{Event, TrustState};
    use crate::machine::input::{Command, Input};
    use crate::peer::TrustRecord;
    use crate::testing::actor::{Actor, Way, at, loud, node, sent};
    use crate::wire::message::Kind;

    fn key() -> PublicKey {
        Actor::new(9, 0x11).public_key()
    }
    fn other_key() -> PublicKey {
        Actor::new(1, 0x22).public_key()
    }

    fn us(record_key: Option<Option<PublicKey>>) -> Actor {
        let mut us = Actor::new(7, 0xAA);
        if let Some(key) = record_key {
            us.trusts(node(9), key);
        }
        us
    }

    fn found(us: &mut Actor, lookup: Lookup) -> Result<Step, Rejection> {
        us.step(at(50), Input::LookedUp { peer: node(9), lookup })
    }

    fn known(key: PublicKey) -> Lookup {
        Lookup::Found { key, networks: Vec::new() }
    }

    fn changed(state: TrustState, reason: ChangeReason) -> Event {
        Event::TrustChanged { peer: node(9), state, reason }
    }

    #[test]
    fn a_look_up_gives_an_unbound_record_its_key_and_creates_none() {
        let mut unbound = us(Some(None));
        let step = found(&mut unbound, known(key())).unwrap();
        let record = unbound.tables.trusted[&node(9)];
        assert_eq!((step.outcome, record.public_key), (Outcome::KeyAdopted(record), Some(key())));
        assert_eq!(step.events, [changed(TrustState::Granted, ChangeReason::KeyAdopted)]);

        let mut stranger = us(None);
        assert_eq!(found(&mut stranger, known(key())), Err(Rejection::NothingToDo));
        assert!(stranger.tables.trusted.is_empty());
    }

    #[test]
    fn a_look_up_ends_trust_under_another_key_and_leaves_it_under_the_same() {
        let mut other = us(Some(Some(other_key())));
        let was = other.tables.trusted[&node(9)];
        let step = found(&mut other, known(key())).unwrap();
        assert_eq!(step.outcome, Outcome::KeyChanged { was });
        assert_eq!(loud(&step), Some((key().fingerprint(), other_key().fingerprint(), true)));
        assert_eq!(step.events[1..], [changed(TrustState::Revoked, ChangeReason::KeyChanged)]);
        assert!(other.tables.trusted.is_empty() && other.tables.revoked.is_empty());

        let mut same = us(Some(Some(key())));
        assert_eq!(found(&mut same, known(key())), Err(Rejection::NothingToDo));
        assert_eq!(same.tables.trusted.len(), 1);
    }

    #[test]
    fn a_comparison_ends_trust_under_the_key_that_was_compared_and_under_no_other() {
        let compare = |us: &mut Actor, was, found| us.step(at(50), Input::Compared { peer: node(9), was, found });
        let mut stolen = us(Some(Some(other_key())));
        let step = compare(&mut stolen, other_key(), key()).unwrap();
        assert_eq!(loud(&step), Some((key().fingerprint(), other_key().fingerprint(), true)));
        assert!(stolen.tables.trusted.is_empty() && stolen.tables.revoked.is_empty());
        // An operator was faster, or there is nothing to end.
        for (record_key, was, found) in [
            (Some(Some(key())), other_key(), key()),
            (Some(Some(us(None).public_key())), other_key(), key()),
            (Some(None), other_key(), key()),
            (None, other_key(), key()),
            (Some(Some(key())), key(), key()),
        ] {
            let mut us = us(record_key);
            assert_eq!(compare(&mut us, was, found), Err(Rejection::NothingToDo));
            assert_eq!(us.tables.trusted.len(), usize::from(record_key.is_some()));
        }
    }

    #[test]
    fn a_disagreement_is_told_and_ends_nothing() {
        let mut us = us(Some(Some(key())));
        let step = us.step(at(50), Input::Disagreement { compared: 80, contradicted: 9 }).unwrap();
        assert_eq!(step.events, [Event::RegistryDisagrees { compared: 80, contradicted: 9 }]);
        assert_eq!((step.changes.len(), step.effects.len(), us.tables.trusted.len()), (0, 0, 1));
    }

    #[test]
    fn trust_that_ends_for_whatever_reason_cuts_the_tunnel_and_is_reported() {
        let ended = |step: &Step| {
            let at = |which: &dyn Fn(&Action) -> bool| {
                step.effects.iter().filter(|effect| effect.when == When::Now && which(&effect.action)).count()
            };
            let cut = at(&|action| matches!(action, Action::Disconnect { peer, .. } if *peer == node(9)));
            (cut, at(&|action| *action == Action::ReportRevoke { peer: node(9) }))
        };
        let trusting = |peer: &Actor| {
            let mut us = us(None);
            us.trusts(node(9), Some(peer.public_key()));
            us
        };
        let (mut peer, other) = (Actor::new(9, 0x11), Actor::new(9, 0x22));
        let revoke = peer.draft(at(0), node(7), crate::wire::message::Kind::Revoke, None);
        let request = peer.draft(at(0), node(7), crate::wire::message::Kind::Request, None);
        // It took its trust back; it is under another key; the registry names another; a transport saw another.
        let steps = [
            trusting(&peer).hear_from(at(0), &peer, &revoke, Way::open()),
            trusting(&peer).hear_from(at(0), &other, &request, Way::registered(other.public_key())),
            trusting(&peer).hear_from(at(0), &peer, &request, Way::registered(other.public_key())),
            found(&mut trusting(&peer), known(other.public_key())),
            trusting(&peer).command(at(0), Command::ReportKeyChange { peer: node(9), key: other.public_key() }),
        ];
        for step in steps {
            assert_eq!(ended(&step.unwrap()), (1, 1));
        }
        // Nothing ends: a forger's revocation, and a key that is confirmed.
        let forged = trusting(&peer).hear_from(at(0), &other, &revoke, Way::open()).unwrap();
        assert_eq!(ended(&forged), (0, 0));
        let confirmed = trusting(&peer).hear_from(at(0), &peer, &request, Way::registered(peer.public_key())).unwrap();
        assert_eq!(ended(&confirmed), (0, 0));
    }

    #[test]
    fn a_look_up_without_an_answer_changes_nothing() {
        for lookup in [Lookup::NotAsked, Lookup::Unknown, Lookup::Failed] {
            for record_key in [None, Some(other_key())] {
                let mut us = us(Some(record_key));
                assert_eq!(found(&mut us, lookup.clone()), Err(Rejection::NothingToDo));
                assert_eq!(us.tables.trusted[&node(9)].public_key, record_key);
            }
        }
    }

    #[test]
    fn a_transport_binds_a_record_without_a_key_and_no_other() {
        let adopt = |us: &mut Actor| us.command(at(50), Command::AdoptKey { peer: node(9), key: key() });
        let mut unbound = us(Some(None));
        adopt(&mut unbound).unwrap();
        assert_eq!(unbound.tables.trusted[&node(9)].public_key, Some(key()));
        assert_eq!(adopt(&mut unbound), Err(Rejection::NothingToDo), "it has this key");
        assert_eq!(adopt(&mut us(Some(Some(other_key())))), Err(Rejection::OtherKeyBound));
        assert_eq!(adopt(&mut us(None)), Err(Rejection::NothingToDo), "adopting trusts nobody new");
    }

    #[test]
    fn no_key_is_adopted_that_our_caller_did_not_name() {
        let asking_for = |expected| {
            let (mut us, nonce) = (us(Some(None)), crate::machine::view::Nonce([1; 16]));
            let (peer, justification, expected_key) = (node(9), "".into(), Some(expected));
            let (force, automatic) = (true, false);
            us.command(
                at(0),
                Command::Request {
                    peer,
                    justification,
                    expected_key,
                    registered: None,
                    nonce,
                    force,
                    automatic,
                    lift: None,
                },
            )
            .unwrap();
            us
        };
        let adopt = |us: &mut Actor| us.command(at(50), Command::AdoptKey { peer: node(9), key: key() });
        assert_eq!(adopt(&mut asking_for(other_key())), Err(Rejection::OtherKeyExpected));
        assert_eq!(found(&mut asking_for(other_key()), known(key())), Err(Rejection::OtherKeyExpected));
        assert!(adopt(&mut asking_for(key())).is_ok());
        assert!(found(&mut asking_for(key()), known(key())).is_ok());
    }

    #[test]
    fn a_reported_change_of_key_ends_trust_under_another_key_only() {
        let report = |us: &mut Actor| us.command(at(50), Command::ReportKeyChange { peer: node(9), key: key() });
        let mut other = us(Some(Some(other_key())));
        let step = report(&mut other).unwrap();
        assert_eq!(loud(&step), Some((other_key().fingerprint(), key().fingerprint(), true)));
        assert_eq!(step.events[1..], [changed(TrustState::Revoked, ChangeReason::KeyChanged)]);
        assert!(other.tables.trusted.is_empty());
        for record_key in [Some(Some(key())), Some(None), None] {
            let mut us = us(record_key);
            let before = us.tables.clone();
            assert_eq!(report(&mut us), Err(Rejection::NothingToDo));
            assert_eq!(us.tables, before);
        }
    }

    #[test]
    fn adopting_a_key_takes_its_own_request_out_of_the_queue_and_leaves_another() {
        for (seed, stays) in [(0x11, false), (0xBB, true)] {
            let (mut us, mut peer) = (us(Some(None)), Actor::new(9, seed));
            let request = peer.draft(at(10), us.id(), Kind::Request, None);
            us.hear_from(at(10), &peer, &request, Way::open()).unwrap();
            us.command(at(50), Command::AdoptKey { peer: node(9), key: key() }).unwrap();
            assert_eq!(us.tables.pending.contains_key(&node(9)), stays);
        }
    }

    #[test]
    fn trusting_outright_clears_every_table_and_asks_for_the_key_that_is_missing() {
        for record_key in [None, Some(key())] {
            let mut us = us(None);
            us.request(at(0), node(9), None).unwrap();
            us.revoke(at(10), node(9)).unwrap();
            let record = TrustRecord::new(node(9), record_key);
            let lift = Some(us.tables.revoked[&node(9)].id);
            let step = us.command(at(20), Command::Grant { record, lift }).unwrap();
            assert_eq!(step.outcome, Outcome::Granted(record));
            assert_eq!(us.tables.trusted[&node(9)], record);
            assert!(us.tables.revoked.is_empty() && us.tables.outgoing.is_empty());
            assert_eq!(step.events, [changed(TrustState::Granted, ChangeReason::Direct)]);
            let asks = |effect: &crate::machine::effect::Effect| effect.action == Action::LookUp { peer: node(9) };
            assert_eq!(step.effects.iter().any(asks), record_key.is_none(), "a key is asked for where there is none");
            assert_eq!(sent(&step), None, "nobody asked, so nobody is answered");
            assert_eq!(us.command(at(30), Command::Grant { record, lift: None }), Err(Rejection::AlreadyTrusted));
        }
        let mut us = us(None);
        us.rules.limits.trusted_max = 0;
        let record = TrustRecord::new(node(9), None);
        assert_eq!(us.command(at(20), Command::Grant { record, lift: None }), Err(Rejection::StoreFull));
    }

    #[test]
    fn a_key_that_was_adopted_is_none_of_the_others_that_wait() {
        let mut us = us(Some(None));
        us.is_asked(10, 9, 0xBB, "", Way::from_host(1)).unwrap();
        us.is_asked(11, 9, 0x11, "", Way::from_host(2)).unwrap();
        us.is_asked(12, 9, 0xCC, "", Way::from_host(3)).unwrap();
        us.command(at(50), Command::AdoptKey { peer: node(9), key: key() }).unwrap();
        let left: Vec<_> = us.tables.pending[&node(9)].keys().map(|it| it.key).collect();
        assert_eq!(left, [0xBB, 0xCC].map(|seed| Actor::new(9, seed).public_key()));
    }
}
