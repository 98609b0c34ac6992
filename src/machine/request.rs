//! What becomes of a request: the first of the rules that matches decides, and the last always does.
#![forbid(unsafe_code)]

use super::approval::{Approval, approval, contradicts_caller};
use super::deliver::refuse_as_owed;
use super::event::{ChangeReason, Event};
use super::input::Received;
use super::outcome::{Outcome, Step};
use super::plan::Plan;
use super::queue::enqueue;
use super::refused::is_refused;
use super::rejection::Rejection;
use super::revoke::farewell_as_owed;
use super::rotation;
use super::step::Standing;
use super::view::PendingKind;
use crate::peer::TrustRecord;
use crate::wire::message::Kind;

pub(super) fn decide(mut plan: Plan<'_>, received: &Received, standing: Standing) -> Result<Step, Rejection> {
    let (message, key) = (&received.message, *received.message.key());
    //
    let justification = message.justification().to_string();
    plan.events.push(Event::Received { peer: plan.peer, justification });

    // nobody knows that it is a request, or when it was one.
    if message.is_version_1() && !standing.is_authentic() {
        if plan.trusted.is_some_and(|record| record.public_key == Some(key)) {
            return Err(Rejection::NotAuthentic);
        }
        return wait_for_operator(plan, received, standing);
    }
    match plan.trusted {
        // this also cures an accept that was lost. The record stays as it is.
        Some(record) if record.public_key == Some(key) => {
            plan.send_accept(record, received.nonce, message.nonce());
            return Ok(plan.finish(Outcome::Confirmed(record)));
        }
        Some(record) if record.public_key.is_none() => {
            let is_marked = plan.marks(Some(&key)).is_any();
            let is_set_aside = plan.set_aside(&key).is_some();
            if standing.is_authentic() && !contradicts_caller(&plan, key) && !is_marked && !is_set_aside {
                let record = plan.adopt_key(record, key);
                plan.send_accept(record, received.nonce, message.nonce());
                return Ok(plan.finish(Outcome::Confirmed(record)));
            }
            return wait_for_operator(plan, received, standing);
        }
        //
        Some(_) if !standing.is_authentic() && rotation::is_taken(&plan, received) => {
            let mutual = plan.outgoing.is_some();
            return rotation::take(plan, received, mutual);
        }
        // nobody tears trust down without being vouched for.
        Some(_) if !standing.is_authentic() => return wait_for_operator(plan, received, standing),
        Some(_) if !plan.is_barred(&key) => {
            plan.lose_trust(ChangeReason::KeyChanged);
        }
        // the holder of a revoked key ends no trust in another.
        Some(_) | None => {}
    }
    // no rule trusts what an operator refused.
    if is_refused(&plan, received) {
        return refuse_again(plan);
    }
    //
    if refuse_as_owed(&mut plan, received) {
        plan.events.retain(|event| !matches!(event, Event::Received { .. }));
        return Ok(plan.finish(Outcome::Retried { kind: Kind::Reject }));
    }
    //
    if plan.is_barred(&key) || plan.is_doubtful {
        return wait_for_operator(plan, received, standing);
    }
    //
    if let Some(Approval { reason, network, label }) = approval(&plan, key, standing, &received.lookup) {
        let mutual = plan.asked().is_some();
        let record = TrustRecord::new(plan.peer, key).approved_at(plan.now.wall).mutual(mutual).network(network);
        let lift = plan.lift();
        if let Err(full) = plan.grant(record, ChangeReason::Auto(reason), lift) {
            return plan.drop_message(full);
        }
        // Whoever vouched for the key makes the message authentic in hindsight, and nothing older is believed.
        if !message.is_version_1() {
            plan.raise_floor(key, message.stamp());
        }
        plan.events.push(Event::AutoApproved { peer: plan.peer, reason, label });
        plan.send_accept(record, received.nonce, message.nonce());
        return Ok(plan.finish(Outcome::Trusted(record)));
    }
    wait_for_operator(plan, received, standing)
}

fn refuse_again(plan: Plan<'_>) -> Result<Step, Rejection> {
    plan.drop_message(Rejection::AlreadyRefused)
}

///
fn wait_for_operator(mut plan: Plan<'_>, received: &Received, standing: Standing) -> Result<Step, Rejection> {
    if is_refused(&plan, received) {
        return refuse_again(plan);
    }
    if !is_news(&plan, received, standing) {
        plan.events.retain(|event| !matches!(event, Event::Received { .. }));
    }
    match enqueue(&mut plan, received, standing, PendingKind::Request) {
        Ok(()) => {
            farewell_as_owed(&mut plan, received, standing);
            Ok(plan.finish(Outcome::Queued))
        }
        Err(rejection) => plan.drop_message(rejection),
    }
}

/// whether a request that waits is told of, beside the entry that its sender may have already.
fn is_news(plan: &Plan<'_>, received: &Received, standing: Standing) -> bool {
    let Some(entry) = &plan.pending else { return true };
    if entry.key == *received.message.key() {
        return entry.kind != PendingKind::Request
            || plan.now.tick.millis_since(entry.received_tick) >= REPEAT_TOLD_AFTER_MS;
    }
    // The powers of two: the first conflict is told at once, and four thousand million of them as 32 events.
    let backed = standing.is_authentic() || plan.proven.is_some();
    let takes_the_place = (standing.is_authentic() && !entry.authentic) || (backed && !entry.is_backed());
    takes_the_place || entry.conflicts.saturating_add(1).is_power_of_two()
}

/// A repeat is told if the peer has been quiet for so long.
const REPEAT_TOLD_AFTER_MS: i64 = 1000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::effect::When;
    use crate::machine::event::TrustState;
    use crate::machine::input::Input;
    use crate::machine::replay::Seen;
    use crate::machine::step::step;
    use crate::peer::PublicKey;
    use crate::testing::actor::{Actor, Way, at, mark, sent};
    use crate::wire::decode::decode;
    use crate::wire::verify::verify;

    /// 9 hears a request of 7 after `prepare`.
    fn heard(way: fn(&Actor) -> Way, prepare: impl FnOnce(&mut Actor, &Actor)) -> (Actor, Result<Step, Rejection>) {
        let (mut asker, mut us) = (Actor::new(7, 0xAA), Actor::new(9, 0x11));
        prepare(&mut us, &asker);
        let request = asker.draft(at(50), us.id(), Kind::Request, None);
        let step = us.hear_from(at(60), &asker, &request, way(&asker));
        (us, step)
    }

    fn open(_: &Actor) -> Way {
        Way::open()
    }
    fn registered(asker: &Actor) -> Way {
        Way::registered(asker.public_key())
    }
    fn tunnel(asker: &Actor) -> Way {
        Way::tunnel(asker.id())
    }
    fn other_key() -> PublicKey {
        Actor::new(1, 0x22).public_key()
    }

    #[test]
    fn an_unbound_record_adopts_a_key_that_is_vouched_for_and_no_other() {
        for way in [registered, tunnel] {
            let (us, step) = heard(way, |us, asker| {
                us.trusts(asker.id(), None);
            });
            let asker = Actor::new(7, 0xAA);
            let record = us.tables.trusted[&asker.id()];
            assert_eq!(record.public_key, Some(asker.public_key()));
            assert_eq!(step.as_ref().unwrap().outcome, Outcome::Confirmed(record));
            assert_eq!(sent(step.as_ref().unwrap()).unwrap().kind, Kind::Accept);
        }
        let (us, step) = heard(open, |us, asker| {
            us.trusts(asker.id(), None);
        });
        let asker = Actor::new(7, 0xAA);
        assert_eq!(step.unwrap().outcome, Outcome::Queued);
        assert_eq!(us.tables.trusted[&asker.id()].public_key, None);
    }

    #[test]
    fn another_key_ends_trust_only_if_it_is_vouched_for() {
        let (us, step) = heard(open, |us, asker| {
            us.trusts(asker.id(), Some(other_key()));
        });
        let id = Actor::new(7, 0xAA).id();
        assert_eq!(step.unwrap().outcome, Outcome::Queued);
        assert_eq!(us.tables.trusted[&id].public_key, Some(other_key()), "a stranger tears nothing down");

        let (us, step) = heard(registered, |us, asker| {
            us.trusts(asker.id(), Some(other_key()));
        });
        let lost = Event::TrustChanged { peer: id, state: TrustState::Revoked, reason: ChangeReason::KeyChanged };
        assert!(step.unwrap().events.contains(&lost));
        assert!(us.tables.trusted.is_empty() && us.tables.pending.contains_key(&id));
    }

    #[test]
    fn a_request_under_a_revoked_key_ends_no_trust_though_the_registry_names_it() {
        let (us, step) = heard(registered, |us, asker| {
            us.revoke_key(at(1), asker.public_key()).unwrap();
            us.trusts(asker.id(), Some(other_key()));
        });
        let id = Actor::new(7, 0xAA).id();
        let step = step.unwrap();
        assert_eq!((step.outcome, sent(&step)), (Outcome::Queued, None));
        assert_eq!(us.tables.trusted[&id].public_key, Some(other_key()));
        assert!(us.tables.pending.contains_key(&id), "it waits, and is shown with the mark");
    }

    #[test]
    fn a_lost_record_stays_lost_though_the_queue_is_full() {
        let (us, step) = heard(registered, |us, asker| {
            us.trusts(asker.id(), Some(other_key()));
            us.rules.limits.pending_max = 0;
        });
        assert_eq!(step.unwrap().outcome, Outcome::Dropped(Rejection::PendingFull));
        assert!(us.tables.trusted.is_empty());
    }

    /// How often `handshake.received` is told if these peers ask at these times (ms), each by its key.
    fn times_told(asks: &[(u32, u8, i64)], way: fn(&Actor) -> Way) -> usize {
        let mut us = Actor::new(9, 0x11);
        let told = asks.iter().map(|(peer, seed, ms)| {
            let mut asker = Actor::new(*peer, *seed);
            let mut request = asker.draft(at(*ms), us.id(), Kind::Request, None);
            request.nonce.0[..8].copy_from_slice(&ms.to_le_bytes());
            let step = us.hear_from(at(*ms), &asker, &request, way(&asker)).unwrap();
            step.events.iter().filter(|event| matches!(event, Event::Received { .. })).count()
        });
        told.sum()
    }

    #[test]
    fn a_peer_that_waits_is_told_of_again_only_after_a_quiet_second() {
        for way in [open, registered, tunnel] {
            let flood: Vec<_> = (0..100).map(|nth| (7, 0xAA, 50 + nth * 10)).collect();
            assert_eq!(times_told(&flood, way), 1);
            assert_eq!(times_told(&[(7, 0xAA, 0), (7, 0xAA, 999)], way), 1);
            assert_eq!(times_told(&[(7, 0xAA, 0), (7, 0xAA, 1000), (7, 0xAA, 1999), (7, 0xAA, 2999)], way), 3);
            // Another peer is told of whoever waits.
            assert_eq!(times_told(&[(7, 0xAA, 0), (8, 0xBB, 1), (7, 0xAA, 2)], way), 2);
        }
    }

    #[test]
    fn conflicts_are_told_ever_more_seldom_and_the_first_at_once() {
        assert_eq!(times_told(&[(7, 1, 0), (7, 2, 1)], open), 2);
        // The conflicts 1, 2, 4, 8, 16, 32 and 64, however long they take.
        let flood: Vec<_> = (0..100).map(|nth| (7, u8::try_from(nth + 1).unwrap(), nth * 2000)).collect();
        assert_eq!(times_told(&flood, open), 1 + 7);
    }

    #[test]
    fn a_vouched_for_key_is_told_whatever_conflicts_came_before() {
        let mut us = Actor::new(9, 0x11);
        for (nth, way) in [open, open, open, registered].into_iter().enumerate() {
            let mut asker = Actor::new(7, 0xA0 + u8::try_from(nth).unwrap());
            let request = asker.draft(at(50), us.id(), Kind::Request, None);
            let step = us.hear_from(at(60), &asker, &request, way(&asker)).unwrap();
            assert_eq!(step.events.iter().filter(|event| matches!(event, Event::Received { .. })).count(), 1, "{nth}");
        }
        let mut asker = Actor::new(7, 0xB0);
        let request = asker.draft(at(50), us.id(), Kind::Request, None);
        assert!(us.hear_from(at(60), &asker, &request, open(&asker)).unwrap().events.len() == 1, "the fourth");
    }

    #[test]
    fn a_request_that_is_dropped_is_not_told_whatever_else_comes_of_it() {
        // For want of room, though the floor has moved.
        let (us, step) = heard(registered, |us, _| us.rules.limits.pending_max = 0);
        let step = step.unwrap();
        assert_eq!(step.outcome, Outcome::Dropped(Rejection::PendingFull));
        assert!(!us.tables.floor.is_empty() && step.events.is_empty(), "{:?}", step.events);
        // A copy of what waits, though the farewell is repeated.
        let (mut us, mut asker) = (Actor::new(9, 0x11), Actor::new(7, 0xAA));
        us.trusts(asker.id(), Some(asker.public_key()));
        us.revoke(at(0), asker.id()).unwrap();
        let request = asker.draft(at(50), us.id(), Kind::Request, None);
        let first = us.hear_from(at(60), &asker, &request, registered(&asker)).unwrap();
        assert!(matches!(first.events.first(), Some(Event::Received { .. })));
        us.tables.floor.get_mut(&asker.id()).unwrap().seen = at(0).wall;
        let copy = us.hear_from(at(120_000), &asker, &request, Way::open()).unwrap();
        assert_eq!(copy.outcome, Outcome::Dropped(Rejection::Stale));
        assert!(!copy.effects.is_empty() && copy.events.is_empty(), "{:?}", copy.events);
    }

    #[test]
    fn a_repeat_that_is_trusted_is_told_however_soon_it_comes() {
        let (mut us, mut asker) = (Actor::new(9, 0x11), Actor::new(7, 0xAA));
        let first = asker.draft(at(50), us.id(), Kind::Request, None);
        us.hear_from(at(60), &asker, &first, Way::open()).unwrap();
        us.request(at(61), asker.id(), None).unwrap();
        let again = asker.draft(at(62), us.id(), Kind::Request, None);
        let step = us.hear_from(at(63), &asker, &again, registered(&asker)).unwrap();
        assert!(matches!(step.outcome, Outcome::Trusted(_)));
        assert!(matches!(step.events.first(), Some(Event::Received { .. })), "{:?}", step.events);
    }

    #[test]
    fn having_asked_ourselves_we_trust_a_bound_or_expected_key_and_no_other() {
        let asked = |expected: fn(&Actor) -> Option<PublicKey>| {
            move |us: &mut Actor, asker: &Actor| {
                us.request(at(0), asker.id(), expected(asker)).unwrap();
            }
        };
        let is_trusted = |us: &Actor| !us.tables.trusted.is_empty();
        assert!(is_trusted(&heard(open, asked(|asker| Some(asker.public_key()))).0));
        assert!(is_trusted(&heard(registered, asked(|_| None)).0));
        assert!(!is_trusted(&heard(open, asked(|_| None)).0));
        assert!(!is_trusted(&heard(tunnel, asked(|_| None)).0), "a tunnel proves the node, nobody named its key");
        assert!(!is_trusted(&heard(registered, asked(|_| Some(other_key()))).0), "our caller named another key");
        assert!(!is_trusted(&heard(registered, |_, _| {}).0), "we have not asked");
    }

    #[test]
    fn the_revoked_mark_stands_above_every_rule_that_trusts() {
        // A revoked peer has no outgoing entry; that the mark wins does not hang on it.
        let (mut asker, mut us) = (Actor::new(7, 0xAA), Actor::new(9, 0x11));
        us.request(at(0), asker.id(), Some(asker.public_key())).unwrap();
        let request = asker.draft(at(50), us.id(), Kind::Request, None);
        let message = verify(decode(asker.sign(&request)).unwrap(), us.id()).unwrap();
        let Way { path, lookup } = registered(&asker);
        let input = Input::Message(Received { message, path, lookup, nonce: us.nonce(), seen: Seen::Never });
        let outcome = |us: &Actor| step(&us.rules, &us.tables, at(60), input.clone()).unwrap().outcome;
        assert!(matches!(outcome(&us), Outcome::Trusted(_)));
        us.tables.revoked.insert(asker.id(), mark(10));
        assert_eq!(outcome(&us), Outcome::Queued);
    }

    #[test]
    fn trust_by_mutual_request_is_mutual_cleared_and_answered_once_durable() {
        let (us, step) = heard(open, |us, asker| {
            us.request(at(0), asker.id(), Some(asker.public_key())).unwrap();
        });
        let (step, asker) = (step.unwrap(), Actor::new(7, 0xAA));
        let record = TrustRecord::new(asker.id(), asker.public_key()).approved_at(at(60).wall).mutual(true);
        assert_eq!(step.outcome, Outcome::Trusted(record));
        assert!(us.tables.outgoing.is_empty() && us.tables.pending.is_empty());
        assert!(step.effects.iter().all(|effect| effect.when == When::OnceDurable { still: record }));
        assert_eq!(us.tables.floor[&asker.id()].seen, at(50).wall);
    }

    #[test]
    fn who_prefers_latency_answers_a_grant_at_once() {
        let (_, step) = heard(open, |us, asker| {
            us.rules.config.durability = crate::config::Durability::Eventually;
            us.request(at(0), asker.id(), Some(asker.public_key())).unwrap();
        });
        assert!(step.unwrap().effects.iter().all(|effect| effect.when == When::Now));
    }

    #[test]
    fn a_full_store_trusts_nobody_new_and_still_answers_old_friends() {
        let (us, step) = heard(open, |us, asker| {
            us.rules.limits.trusted_max = 0;
            us.request(at(0), asker.id(), Some(asker.public_key())).unwrap();
        });
        assert_eq!(step, Err(Rejection::StoreFull));
        assert!(us.tables.outgoing.len() == 1, "the request can still be answered when there is room");
        let (_, step) = heard(open, |us, asker| {
            us.rules.limits.trusted_max = 1;
            us.trusts(asker.id(), Some(asker.public_key()));
        });
        assert!(matches!(step.unwrap().outcome, Outcome::Confirmed(_)));
    }
}
