//! Keys that contradict each other: what the registry takes back, and what is told of any key that is
//! not the known one.
//!
//! Only the registry's word about the sender of a message is heeded here, whoever sent it: nothing of this makes a message
//! authentic, and nothing ends but what the registry contradicts.
#![forbid(unsafe_code)]

use super::event::ChangeReason;
use super::input::{Lookup, Received};
use super::plan::Plan;

/// Rule R-17: whether the registry knows the sender under another key. What else it takes back by that goes, too: trust
/// under the very key that it contradicts, and that a pending entry under another key counts as vouched for.
pub(super) fn is_contradicted(plan: &mut Plan<'_>, received: &Received) -> bool {
    let (key, Lookup::Found { key: known, .. }) = (*received.message.key(), &received.lookup) else { return false };
    if let Some(pending) = plan.pending.as_mut().filter(|pending| pending.key != *known) {
        pending.authentic = false;
    }
    //
    if *known == key || plan.is_behind(known, &key) {
        return false;
    }
    plan.notice_key(Some(received.path.source()), *known, key);
    if plan.trusted.is_some_and(|record| record.public_key == Some(key)) {
        plan.lose_trust(ChangeReason::KeyChanged);
    }
    true
}

/// a key other than that of the record, or other than our caller named, is told of loudly, whoever vouches.
pub(super) fn notice_other_key(plan: &mut Plan<'_>, received: &Received) {
    let key = *received.message.key();
    let of_record = plan.trusted.and_then(|record| record.public_key);
    let named = plan.asked().and_then(|outgoing| outgoing.expected_key);
    if let Some(expected) = of_record.or(named).filter(|expected| *expected != key) {
        plan.notice_key(Some(received.path.source()), expected, key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Allowed;
    use crate::machine::event::{Event, TrustState};
    use crate::machine::rejection::Rejection;
    use crate::machine::view::{PendingKind, Source};
    use crate::testing::actor::{Actor, Way, at, dropped, loud, node, sent};
    use crate::wire::message::Kind;
    use crate::wire::sign::Draft;

    fn two() -> (Actor, Actor) {
        (Actor::new(7, 0xAA), Actor::new(9, 0x11))
    }

    /// `us`, after each way in which a node may trust without an operator, and what the peer then sends.
    type Trusting = fn(&mut Actor, &mut Actor) -> Draft;

    fn request_of(us: &Actor, peer: &mut Actor) -> Draft {
        peer.draft(at(5), us.id(), Kind::Request, None)
    }

    fn accept_of(us: &mut Actor, peer: &mut Actor, named: bool) -> Draft {
        let expected = named.then(|| peer.public_key());
        let asked = us.request(at(0), peer.id(), expected).unwrap();
        peer.draft(at(5), us.id(), Kind::Accept, Some(sent(&asked).unwrap().nonce))
    }

    #[test]
    fn while_the_registry_cannot_be_asked_no_rule_trusts_whom_it_might_contradict() {
        let ways: [(&str, Trusting); 5] = [
            ("R-24", |us, peer| {
                us.request(at(0), peer.id(), Some(peer.public_key())).unwrap();
                request_of(us, peer)
            }),
            ("R-66, by key", |us, peer| {
                let entry = Allowed::new(peer.id(), peer.public_key());
                us.rules.policy.allow_list.insert(entry);
                request_of(us, peer)
            }),
            ("R-66, everybody", |us, peer| {
                us.rules.policy.auto_approve = true;
                request_of(us, peer)
            }),
            ("R-32, by our caller", |us, peer| accept_of(us, peer, true)),
            ("R-67", |us, peer| {
                us.rules.policy.trust_on_first_use = true;
                accept_of(us, peer, false)
            }),
        ];
        for (rule, prepare) in ways {
            for lookup in [Lookup::Failed, Lookup::Unknown, Lookup::NotAsked] {
                let (mut us, mut peer) = two();
                let draft = prepare(&mut us, &mut peer);
                let trusts = lookup != Lookup::Failed;
                us.hear_from(at(10), &peer, &draft, Way { lookup, ..Way::open() }).unwrap();
                assert_eq!(us.tables.trusted.contains_key(&peer.id()), trusts, "{rule}");
                let waits = us.tables.pending.get(&peer.id());
                assert_eq!(waits.is_some(), !trusts, "{rule}");
                if let Some(entry) = waits {
                    let answered = draft.kind == Kind::Accept;
                    assert_eq!(entry.kind == PendingKind::AnsweredUnvouched, answered, "{rule}");
                    assert!(
                        !entry.authentic && us.tables.floor.get(&peer.id()).is_none_or(|floor| floor.key.is_none())
                    );
                    assert_eq!(us.tables.outgoing.contains_key(&peer.id()), answered || rule == "R-24");
                    // The same bytes again, once the registry can be asked.
                    let lookup = Lookup::Found { key: peer.public_key(), networks: Vec::new() };
                    us.hear_from(at(20), &peer, &draft, Way { lookup, ..Way::open() }).unwrap();
                    assert!(us.tables.trusted.contains_key(&peer.id()), "{rule}");
                }
            }
        }
    }

    #[test]
    fn a_tunnel_vouches_for_an_accept_though_the_registry_cannot_be_asked() {
        let (mut us, mut peer) = two();
        let accept = accept_of(&mut us, &mut peer, false);
        us.hear_from(at(10), &peer, &accept, Way { lookup: Lookup::Failed, ..Way::tunnel(peer.id()) }).unwrap();
        assert!(us.tables.trusted.contains_key(&peer.id()));
        // And what is restrictive needs no registry: the peer takes it back, and refuses.
        let revoke = peer.draft(at(15), us.id(), Kind::Revoke, None);
        us.hear_from(at(20), &peer, &revoke, Way::unasked()).unwrap();
        assert!(us.tables.trusted.is_empty());
        let asked = us.request(at(30), peer.id(), Some(peer.public_key())).unwrap();
        let reject = peer.draft(at(35), us.id(), Kind::Reject, Some(sent(&asked).unwrap().nonce));
        us.hear_from(at(40), &peer, &reject, Way::unasked()).unwrap();
        let refused = us.tables.outgoing[&peer.id()].refused.clone();
        assert!(refused.is_some_and(|refusal| refusal.authentic));
    }

    #[test]
    fn a_registry_that_contradicts_the_record_ends_it_when_its_key_speaks_and_a_strangers_key_ends_nothing() {
        let (registered, stranger) = (Actor::new(9, 0x22), Actor::new(9, 0x33));
        for kind in [Kind::Request, Kind::Accept, Kind::Reject, Kind::Revoke] {
            let (mut us, mut thief) = two();
            us.trusts(thief.id(), Some(thief.public_key()));
            let draft = thief.draft(at(0), us.id(), kind, None);
            let way = || Way::registered(registered.public_key());
            let forged = us.hear_from(at(0), &stranger, &draft, way());
            assert_eq!(dropped(&forged), Some(Rejection::KeyMismatch));
            assert_eq!(us.tables.trusted.len(), 1, "a third key proves nothing");

            let step = us.hear_from(at(0), &thief, &draft, way()).unwrap();
            assert_eq!(step.outcome, crate::machine::outcome::Outcome::Dropped(Rejection::KeyMismatch));
            assert!(us.tables.trusted.is_empty() && us.tables.pending.is_empty() && us.tables.revoked.is_empty());
            assert!(us.tables.floor.is_empty(), "the message itself proves nothing");
            let reason = ChangeReason::KeyChanged;
            assert!(step.events.contains(&Event::TrustChanged { peer: node(9), state: TrustState::Revoked, reason }));
        }
        for lookup in [Lookup::Failed, Lookup::Unknown, Lookup::NotAsked, Way::registered(two().1.public_key()).lookup]
        {
            let (mut us, mut peer) = two();
            us.trusts(peer.id(), Some(peer.public_key()));
            let request = peer.draft(at(0), us.id(), Kind::Request, None);
            us.hear_from(at(0), &peer, &request, Way { lookup, ..Way::open() }).unwrap();
            assert_eq!(us.tables.trusted.len(), 1, "absence and failure end nothing");
        }
    }

    #[test]
    fn a_waiting_key_that_the_registry_contradicts_is_vouched_for_no_more_and_gives_way() {
        let (mut us, mut first) = two();
        let (second, stranger) = (Actor::new(9, 0x22), Actor::new(9, 0x33));
        let request = first.draft(at(0), us.id(), Kind::Request, None);
        us.hear_from(at(0), &first, &request, Way::registered(first.public_key())).unwrap();
        assert!(us.tables.pending[&node(9)].authentic);
        // The registry has changed its mind; whoever speaks, it is asked.
        let later = first.draft(at(10), us.id(), Kind::Request, None);
        us.hear_from(at(10), &stranger, &later, Way::registered(second.public_key())).unwrap();
        let entry = &us.tables.pending[&node(9)];
        assert_eq!((entry.key, entry.authentic), (first.public_key(), false));

        let (mut us, _) = two();
        us.hear_from(at(0), &first, &request, Way::registered(first.public_key())).unwrap();
        us.hear_from(at(10), &second, &later, Way::registered(second.public_key())).unwrap();
        let entry = &us.tables.pending[&node(9)];
        assert_eq!((entry.key, entry.authentic, entry.conflicts), (second.public_key(), true, 1));
    }

    #[test]
    fn a_key_other_than_the_known_one_is_told_loudly_and_the_known_one_is_not() {
        let (us, mut peer) = two();
        let (true_key, forger) = (peer.public_key(), Actor::new(9, 0x33));
        let print = |actor: &Actor| actor.public_key().fingerprint();
        let expected = (print(&peer), print(&forger), false);
        let hear = |prepare: &dyn Fn(&mut Actor), from: &Actor, kind, way: Way, peer: &mut Actor| {
            let mut us = Actor::new(7, 0xAA);
            prepare(&mut us);
            let draft = peer.draft(at(0), us.id(), kind, None);
            us.hear_from(at(0), from, &draft, way).ok().and_then(|step| loud(&step))
        };
        let trusting = |us: &mut Actor| {
            us.trusts(node(9), Some(true_key));
        };
        let asking = |us: &mut Actor| drop(us.request(at(0), node(9), Some(true_key)).unwrap());
        let nothing = |_: &mut Actor| {};
        for kind in [Kind::Request, Kind::Accept, Kind::Reject, Kind::Revoke] {
            assert_eq!(hear(&trusting, &forger, kind, Way::open(), &mut peer), Some(expected), "the record's");
            assert_eq!(hear(&asking, &forger, kind, Way::open(), &mut peer), Some(expected), "our caller's");
            let way = Way::registered(true_key);
            assert_eq!(hear(&nothing, &forger, kind, way, &mut peer), Some(expected), "the registry's");
            assert_eq!(hear(&nothing, &forger, kind, Way::open(), &mut peer), None, "nothing is known");
            let same = peer.public_key();
            let honest = Actor::new(9, 0x11);
            for prepare in [&trusting as &dyn Fn(&mut Actor), &asking, &nothing] {
                assert_eq!(hear(prepare, &honest, kind, Way::registered(same), &mut peer), None, "{kind:?}");
            }
        }
        // A key that was changed, and is vouched for: trust ends, and that is told, too.
        let way = Way::registered(forger.public_key());
        let changed = hear(&trusting, &forger, Kind::Request, way, &mut peer);
        assert_eq!(changed, Some((print(&peer), print(&forger), true)));
        // Behind the message, before what came of it; and it says where the key came from.
        let mut us = us;
        us.trusts(node(9), Some(true_key));
        let request = peer.draft(at(0), us.id(), Kind::Request, None);
        let step = us.hear_from(at(0), &forger, &request, Way::from_host(3)).unwrap();
        assert!(matches!(step.events[0], Event::Received { .. }));
        let Event::KeyMismatch { source: Some(Source::Address(address)), .. } = step.events[1] else {
            panic!("{:?}", step.events)
        };
        assert_eq!(address.to_string(), "10.0.0.3");
    }
}
