//! An operator's refusal, and what was refused: no copy of it waits again, or is trusted by a rule, for as long as a copy could pass the
//! checks of age.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::sync::Arc;

use super::answer::next_in_line;
use super::arrival::{latest_credible, millis};
use super::effect::{Draft, When};
use super::input::{LookedAt, Received};
use super::outcome::{Outcome, Rules, Step};
use super::plan::Plan;
use super::rejection::Rejection;
use super::view::{Nonce, OTHER_KEYS_MAX, OtherKey, PendingKind, RefusedRequest, TableChange, View};
use crate::peer::{NodeId, PublicKey};
use crate::tables::refuse::{self, Terms};
use crate::time::Now;
use crate::wire::message::Kind;
use crate::wire::text::Text;

/// Whether the message is one that an operator refused, or an older one under the same key. Version 1 has no stamp that
/// means anything; its copies are known by R-68.
///
/// A stamp further ahead than clocks may differ says that some clock was wrong once. A copy of that message is from the
/// future, and the stamp must not keep younger ones out.
pub(super) fn is_refused(plan: &Plan<'_>, received: &Received) -> bool {
    let (message, latest) = (&received.message, latest_credible(plan.rules, plan.now));
    let refused = |it: &RefusedRequest| it.key == *message.key() && message.stamp() <= it.stamp && it.stamp <= latest;
    !message.is_version_1() && plan.view.refused(plan.peer).iter().any(refused)
}

/// whether an operator refused anything that came under this key.
pub(super) fn is_refused_key(plan: &Plan<'_>, key: &PublicKey) -> bool {
    plan.view.refused(plan.peer).iter().any(|it| it.key == *key)
}

///
pub(super) fn reject(mut plan: Plan<'_>, reason: Text, nonce: Nonce, named: LookedAt) -> Result<Step, Rejection> {
    let mut pending = plan.pending.take().ok_or(Rejection::NothingToDo)?;
    if !named.is_entry(&pending) {
        return Err(Rejection::OtherEntry);
    }
    let (current, others) = pending.fingerprints();
    let refused: Vec<OtherKey> = match named.fingerprint {
        None => pending.keys().collect(),
        Some(key) => {
            let named = pending.keys().find(|it| it.key.fingerprint() == key);
            vec![named.ok_or(Rejection::WrongFingerprint { current, others })?]
        }
    };
    remember(&mut plan, refused.iter().copied());
    //
    let keys: Vec<_> = refused.iter().map(|it| it.key).collect();
    plan.refuse_successors(&keys);
    let mut told = [None; 1 + OTHER_KEYS_MAX];
    for (told, key) in told.iter_mut().zip(&keys) {
        *told = Some(key.fingerprint());
    }
    // Of several keys the first one's request is answered: the peer's that was looked at.
    let answered = refused.first().filter(|it| it.kind == PendingKind::Request).copied();
    // What was not refused waits still.
    pending.others.retain(|other| !keys.contains(&other.key));
    if keys.contains(&pending.key) {
        next_in_line(&mut plan, pending);
    } else {
        plan.pending = Some(pending);
    }
    if let Some(it) = answered {
        let draft = plan.draft(Kind::Reject, nonce);
        plan.answer(When::Now, Draft { reason: reason.into_string(), ..draft }, Some(it.key), it.nonce);
    }
    Ok(plan.finish(Outcome::Rejected(told)))
}

/// Remembers that an operator refused what these keys waited with.
pub(super) fn remember(plan: &mut Plan<'_>, keys: impl IntoIterator<Item = OtherKey>) {
    let refused = [(plan.peer, keys.into_iter().collect())];
    plan.others.extend(remembered(plan.rules, plan.view, plan.now, &refused));
}

/// The same of what several peers waited with.
pub(super) fn remembered(
    rules: &Rules,
    view: &dyn View,
    now: Now,
    refused: &[(NodeId, Vec<OtherKey>)],
) -> Vec<TableChange> {
    let terms = Terms::new(now.wall, latest_credible(rules, now), rules.limits.pending_max);
    refuse::remembered(|peer| view.refused(peer), view.refused_len(), || view.refused_iter(), refused, terms)
}

/// The refusals whose copies would be too old by now.
pub(super) fn forget(rules: &Rules, view: &dyn View, now: Now) -> Vec<TableChange> {
    // A relayed message may be as old as an entry; our clock may be as wrong as clocks may be.
    let passes = millis(rules.config.entry_lifetime).saturating_add(millis(rules.config.future_skew_max));
    let too_old = |it: &RefusedRequest| now.wall.millis_since(it.stamp) > passes;
    let concerned = view.refused_iter().filter(|(_, refused)| refused.iter().any(too_old));
    let left = |refused: &[RefusedRequest]| -> Option<Arc<[RefusedRequest]>> {
        let left: Vec<_> = refused.iter().copied().filter(|it| !too_old(it)).collect();
        if left.is_empty() { None } else { Some(left.into()) }
    };
    // In an order of their own, whatever order the table has.
    let changes: BTreeMap<NodeId, _> = concerned.map(|(peer, refused)| (peer, left(refused))).collect();
    changes.into_iter().map(|(peer, left)| TableChange::Refused(peer, left)).collect()
}

#[cfg(test)]
mod key_tests;

#[cfg(test)]
mod tests {
    use crate::machine::input::{Command, LookedAt};
    use crate::machine::outcome::Outcome;
    use crate::machine::rejection::Rejection;
    use crate::peer::PublicKey;
    use crate::testing::actor::{Actor, Way, asked_by, at, dropped, node, sent, us};
    use crate::wire::message::Kind;

    #[test]
    fn what_an_operator_refused_does_not_come_back_by_a_copy() {
        let day = 24 * 60 * 60 * 1000;
        for other_way in [Way::open(), Way::from_host(7), Way::registered(Actor::new(9, 0x11).public_key())] {
            let (mut peer, mut rival) = (Actor::new(9, 0x11), Actor::new(9, 0xBB));
            let (mut us, request) = asked_by(&mut peer);
            us.rules.policy = crate::config::Policy::default().auto_approve(true);
            let theirs = rival.draft(at(11), us.id(), Kind::Request, None);
            us.rules.policy = crate::config::Policy::default();
            us.hear_from(at(11), &rival, &theirs, Way::from_host(2)).unwrap();
            us.refuse(at(50), peer.id(), "no").unwrap();
            us.rules.policy = crate::config::Policy::default().auto_approve(true);
            for (who, draft) in [(&peer, &request), (&rival, &theirs)] {
                let way = if who.public_key() == peer.public_key() { other_way.clone() } else { Way::open() };
                let copy = us.hear_from(at(60), who, draft, way);
                assert_eq!(dropped(&copy), Some(Rejection::AlreadyRefused), "{copy:?}");
            }
            let late = us.hear_from(at(29 * day), &rival, &theirs, Way::relayed(node(3)));
            assert_eq!(late, Err(Rejection::AlreadyRefused), "as late as a relay may bring it");
            assert!(us.tables.pending.is_empty() && us.tables.trusted.is_empty());
            // News is heard.
            let news = rival.draft(at(29 * day), us.id(), Kind::Request, None);
            assert!(us.hear_from(at(29 * day), &rival, &news, Way::open()).is_ok());
        }
    }

    #[test]
    fn a_refusal_by_a_clock_that_was_a_year_ahead_shuts_nobody_out() {
        let (mut us, mut peer) = (us(), Actor::new(9, 0x11));
        let year = 365 * 24 * 60 * 60 * 1000;
        let request = peer.draft(at(year), us.id(), Kind::Request, None);
        us.hear_from(at(year), &peer, &request, Way::open()).unwrap();
        us.refuse(at(50), peer.id(), "").unwrap();
        // All clocks are right again.
        let request = peer.draft(at(100), us.id(), Kind::Request, None);
        assert_eq!(us.hear_from(at(100), &peer, &request, Way::open()).unwrap().outcome, Outcome::Queued);
    }

    #[test]
    fn what_an_operator_refused_is_remembered_within_bounds() {
        let mut us = us();
        us.rules.limits.pending_max = 1;
        for id in 100..117 {
            let mut peer = Actor::new(id, 0x11);
            let request = peer.draft(at(i64::from(id)), us.id(), Kind::Request, None);
            us.hear_from(at(i64::from(id)), &peer, &request, Way::open()).unwrap();
            us.refuse(at(i64::from(id)), peer.id(), "").unwrap();
        }
        assert_eq!(us.tables.refused.keys().map(|id| id.get()).collect::<Vec<_>>(), (101..117).collect::<Vec<_>>());
        // One peer under ever new keys has its share.
        for seed in 0..20 {
            let (mut peer, ms) = (Actor::new(116, seed), 200 + i64::from(seed));
            let request = peer.draft(at(ms), us.id(), Kind::Request, None);
            us.hear_from(at(ms), &peer, &request, Way::open()).unwrap();
            us.refuse(at(ms), peer.id(), "").unwrap();
        }
        let of_peer = &us.tables.refused[&node(116)];
        assert_eq!((of_peer.len(), of_peer.last().unwrap().key), (16, Actor::new(116, 19).public_key()));
        // And all of it is forgotten once no copy could pass any more.
        let lifetime = 30 * 24 * 60 * 60 * 1000;
        let left = |us: &mut Actor, ms| {
            us.step(at(ms), crate::machine::input::Input::Housekeeping).unwrap();
            us.tables.refused.values().map(|refused| refused.len()).sum::<usize>()
        };
        assert_eq!(left(&mut us, lifetime + 30_101), 15 + 16);
        assert_eq!(left(&mut us, lifetime + 30_102), 14 + 16);
        assert_eq!(left(&mut us, lifetime + 30_210), 10);
        assert_eq!(left(&mut us, lifetime + 30_220), 0);
    }

    #[test]
    fn at_the_limit_who_was_refused_longest_ago_is_forgotten_whatever_its_number() {
        let mut us = us();
        us.rules.limits.pending_max = 1;
        for (ms, id) in (0..17).zip((100..117).rev()) {
            us.is_asked(ms, id, 0x11, "", Way::open()).unwrap();
            us.refuse(at(ms), node(id), "").unwrap();
        }
        assert_eq!(us.tables.refused.keys().map(|id| id.get()).collect::<Vec<_>>(), (100..116).collect::<Vec<_>>());
    }

    #[test]
    fn a_later_refusal_remembers_the_newest_stamp_that_a_right_clock_could_give() {
        let (mut us, mut peer) = (us(), Actor::new(9, 0x11));
        let year = 365 * 24 * 60 * 60 * 1000;
        let request = peer.draft(at(year), us.id(), Kind::Request, None);
        us.hear_from(at(year), &peer, &request, Way::open()).unwrap();
        us.refuse(at(year), peer.id(), "").unwrap();
        // All clocks are right again, and the operator refuses again: no copy of that comes back either.
        let request = peer.draft(at(100), us.id(), Kind::Request, None);
        us.hear_from(at(100), &peer, &request, Way::open()).unwrap();
        us.refuse(at(110), peer.id(), "").unwrap();
        assert_eq!(us.hear_from(at(120), &peer, &request, Way::open()), Err(Rejection::AlreadyRefused));
        // An older request, as an import may bring it back, does not undo the refusal of a newer one.
        let older = crate::machine::view::Pending {
            stamp: at(50).wall,
            ..{
                us.is_asked(200, 8, 0x22, "", Way::open()).unwrap();
                us.tables.pending[&node(8)].clone()
            }
        };
        us.tables.pending.insert(peer.id(), crate::machine::view::Pending { key: peer.public_key(), ..older });
        us.refuse(at(210), peer.id(), "").unwrap();
        assert_eq!(us.hear_from(at(220), &peer, &request, Way::open()), Err(Rejection::AlreadyRefused));
    }

    #[test]
    fn a_refusal_that_names_a_key_leaves_the_others_and_one_that_names_an_entry_takes_no_other() {
        let keys = [0xA0, 0xA1, 0xA2].map(|seed| Actor::new(8, seed).public_key());
        let waiting =
            |us: &Actor| us.tables.pending.get(&node(8)).map(|it| it.keys().map(|it| it.key).collect::<Vec<_>>());
        let asked = || {
            let mut us = us();
            for (host, seed) in [(1, 0xA0), (2, 0xA1), (3, 0xA2)] {
                us.is_asked(10 + i64::from(host), 8, seed, "why", Way::from_host(host)).unwrap();
            }
            us
        };
        let refuse = |us: &mut Actor, key: Option<PublicKey>, entry| {
            let (nonce, fingerprint) = (us.nonce(), key.map(|key| key.fingerprint()));
            let named = LookedAt { fingerprint, entry };
            us.command(at(50), Command::Reject { peer: node(8), reason: "".into(), nonce, named })
        };
        for named in 0..3 {
            let mut us = asked();
            let before = us.tables.pending[&node(8)].clone();
            let step = refuse(&mut us, Some(keys[named]), None).unwrap();
            let told = [Some(keys[named].fingerprint()), None, None, None, None];
            assert_eq!(step.outcome, Outcome::Rejected(told));
            let left: Vec<_> = keys.into_iter().filter(|key| *key != keys[named]).collect();
            assert_eq!(waiting(&us), Some(left));
            // The key that is refused is told so, and no other.
            let answered = before.keys().nth(named).unwrap().nonce;
            assert_eq!(sent(&step).map(|draft| (draft.kind, draft.answers)), Some((Kind::Reject, answered)));
            assert_eq!(us.tables.refused[&node(8)].iter().map(|it| it.key).collect::<Vec<_>>(), [keys[named]]);
            // An entry with another first key is none that anybody has looked at.
            assert_eq!(us.tables.pending[&node(8)].number == before.number, named != 0);
            let after = us.tables.pending[&node(8)].clone();
            assert!(!after.authentic && after.proven_by.is_none() && after.conflicts > 0);
        }
        let mut us = asked();
        let number = us.tables.pending[&node(8)].number;
        let (current, others) = us.tables.pending[&node(8)].fingerprints();
        let wrong = Actor::new(8, 0xA9).public_key();
        assert_eq!(refuse(&mut us, Some(wrong), None), Err(Rejection::WrongFingerprint { current, others }));
        for other in [0, number ^ 1] {
            assert_eq!(refuse(&mut us, None, Some(other)), Err(Rejection::OtherEntry));
        }
        assert_eq!(waiting(&us), Some(keys.to_vec()));
        let [first, second, third] = keys.map(|key| Some(key.fingerprint()));
        let step = refuse(&mut us, None, Some(number)).unwrap();
        assert_eq!((step.outcome, waiting(&us)), (Outcome::Rejected([first, second, third, None, None]), None));
    }
}
