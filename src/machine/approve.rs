//! What becomes of an approval: trust in the key that the operator looked at, and in no other.
//!
//! More than 450 lines because each thing that speaks against an approval is tried beside the rule that weighs it.
#![forbid(unsafe_code)]

use super::event::{ChangeReason, Event};
use super::input::{LookedAt, Lookup};
use super::known::{replaced_key, set_aside};
use super::outcome::{Outcome, Step};
use super::plan::Plan;
use super::refused;
use super::rejection::{FingerprintNeed, Rejection};
use super::view::{Nonce, OtherKey, Pending, PendingKind, RevocationId};
use crate::peer::{Fingerprint, Source, TrustRecord};

///
pub(super) fn approve(
    mut plan: Plan<'_>,
    fingerprint: Option<Fingerprint>,
    entry: Option<u64>,
    nonce: Nonce,
    lookup: &Lookup,
    lift: Option<RevocationId>,
) -> Result<Step, Rejection> {
    let pending = plan.pending.clone().ok_or(Rejection::NothingToDo)?;
    if !(LookedAt { fingerprint, entry }).is_entry(&pending) {
        return Err(Rejection::OtherEntry);
    }
    let (current, others) = pending.fingerprints();
    let meant = match fingerprint {
        Some(named) => pending.keys().find(|it| it.key.fingerprint() == named),
        None => pending.keys().next(),
    };
    let OtherKey { key, nonce: answers, stamp, kind, .. } =
        meant.ok_or(Rejection::WrongFingerprint { current, others })?;
    if let Some(marked) = plan.marks(Some(&key)).not_lifted_by(lift) {
        return Err(marked.into());
    }
    plan.proven = pending.proven_by.filter(|_| key == pending.key);
    let is_vouched_for = match lookup {
        Lookup::Found { key: registered, .. } if *registered == key => true,
        // a registry that has not heard of what came after a key does not contradict that.
        Lookup::Found { key: registered, .. } if plan.is_behind(registered, &key) => false,
        Lookup::Found { key: registered, .. } => {
            let (current, registered) = (key.fingerprint(), registered.fingerprint());
            return Err(Rejection::RegistryContradicts { current, registered });
        }
        Lookup::Failed => false,
        // What a registry said once is its word no longer: only what the transport saw for itself is left.
        Lookup::NotAsked | Lookup::Unknown => pending.authentic && pending.source == Source::Node(plan.peer),
    };
    if fingerprint.is_none()
        && let Some(why) = disputed(&plan, &pending).or_else(|| (!is_vouched_for).then(|| unvouched(lookup)))
    {
        return Err(Rejection::FingerprintRequired { why, current, others });
    }
    let mutual = plan.asked().is_some();
    let record = TrustRecord::new(plan.peer, key).approved_at(plan.now.wall).mutual(mutual);
    // A peer that proved the new key by the old one is the same peer: what was known of it besides its key stays.
    let record = match plan.trusted.filter(|was| plan.proven.is_some() && was.public_key == plan.proven) {
        Some(was) => record.mutual(mutual || was.mutual).network(was.network),
        None => record,
    };
    plan.grant(record, ChangeReason::Approved, lift)?;
    plan.events.push(Event::Approved { peer: plan.peer });
    // The operator vouches for the key, so the message that brought it is authentic in hindsight, and nothing older
    // is believed. Of version 1 nobody knows when it was written.
    if answers.is_some() {
        plan.restart_floor(Some(key));
        plan.raise_floor(key, stamp);
        plan.clamp_seen();
    }
    // Who approves one of several keys refuses the others.
    refused::remember(&mut plan, pending.keys().filter(|it| it.key != key));
    let others: Vec<_> = pending.keys().map(|it| it.key).filter(|other| *other != key).collect();
    plan.refuse_successors(&others);
    if kind == PendingKind::Request {
        plan.send_accept(record, nonce, answers);
    }
    Ok(plan.finish(Outcome::Approved(record)))
}

/// What else than this key there is.
fn disputed(plan: &Plan<'_>, pending: &Pending) -> Option<FingerprintNeed> {
    let (view, peer) = (plan.view, plan.peer);
    if set_aside(view, peer, &pending.key).is_some() {
        Some(FingerprintNeed::SetAside)
    } else if pending.proven_by.is_some() {
        Some(FingerprintNeed::Proven)
    } else if replaced_key(view, peer, &pending.key).is_some() {
        Some(FingerprintNeed::OtherKeyKnown)
    } else {
        (pending.conflicts > 0).then_some(FingerprintNeed::OtherKeySeen)
    }
}

fn unvouched(lookup: &Lookup) -> FingerprintNeed {
    match lookup {
        Lookup::Failed => FingerprintNeed::RegistryNotAsked,
        Lookup::Found { .. } => FingerprintNeed::RegistryBehind,
        Lookup::NotAsked | Lookup::Unknown => FingerprintNeed::Unvouched,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::event::TrustState;
    use crate::machine::input::Command;
    use crate::peer::NodeId;
    use crate::testing::actor::{Actor, Way, asked_by, at, dropped, mark, node, sent, us};
    use crate::wire::message::Kind;

    #[test]
    fn approval_takes_exactly_the_key_that_was_shown() {
        let mut peer = Actor::new(9, 0x11);
        let (mut us, _) = asked_by(&mut peer);
        let current = peer.public_key().fingerprint();
        let wrong = Actor::new(9, 0xBB).public_key().fingerprint();
        assert_eq!(
            us.approve(at(50), peer.id(), Some(wrong)),
            Err(Rejection::WrongFingerprint { current, others: [None; 4] })
        );
        assert!(us.tables.trusted.is_empty());
        us.approve(at(50), peer.id(), Some(current)).unwrap();
        assert_eq!(us.tables.trusted[&peer.id()].public_key, Some(peer.public_key()));
    }

    #[test]
    fn after_a_conflict_the_fingerprint_must_be_named_and_before_it_need_not() {
        for rivals in [false, true] {
            let (mut us, mut peer) = (us(), Actor::new(9, 0x11));
            let request = peer.draft(at(10), us.id(), Kind::Request, None);
            us.hear_from(at(10), &peer, &request, Way::registered(peer.public_key())).unwrap();
            let (current, other) = (peer.public_key().fingerprint(), Actor::new(9, 0xBB));
            if rivals {
                us.hear_from(at(20), &other, &request, Way::open()).unwrap();
                let others = [Some(other.public_key().fingerprint()), None, None, None];
                let why = FingerprintNeed::OtherKeySeen;
                let required = Err(Rejection::FingerprintRequired { why, current, others });
                assert_eq!(us.approve(at(50), peer.id(), None), required);
                assert!(us.approve(at(50), peer.id(), Some(current)).is_ok());
            } else {
                let lookup = Way::registered(peer.public_key()).lookup;
                assert!(us.approve_as(at(50), peer.id(), None, lookup).is_ok());
            }
        }
    }

    #[test]
    fn what_only_its_sender_vouches_for_is_approved_by_its_fingerprint_alone() {
        let mut peer = Actor::new(9, 0x11);
        let current = peer.public_key().fingerprint();
        let (mut us, _) = asked_by(&mut peer);
        let number = us.tables.pending[&peer.id()].number;
        let why = FingerprintNeed::Unvouched;
        let required = Err(Rejection::FingerprintRequired { why, current, others: [None; 4] });
        assert_eq!(us.approve(at(50), peer.id(), None), required);
        // Having looked at the entry is not having compared the key.
        assert_eq!(approve_entry(&mut us, peer.id(), None, number), required);
        assert!(us.tables.trusted.is_empty());
        assert!(us.approve(at(50), peer.id(), Some(current)).is_ok());

        // The transport's word, and the registry's, will do instead.
        for way in [Way::tunnel(node(9)), Way::registered(peer.public_key())] {
            let (mut us, mut peer) = (self::us(), Actor::new(9, 0x11));
            let request = peer.draft(at(10), us.id(), Kind::Request, None);
            us.hear_from(at(10), &peer, &request, way.clone()).unwrap();
            assert!(us.approve_as(at(50), peer.id(), None, way.lookup).is_ok());
        }
    }

    #[test]
    fn who_vouched_for_a_key_and_does_no_longer_leaves_its_fingerprint_to_be_compared() {
        let peer = Actor::new(9, 0x11);
        let by_both = Way { lookup: Way::registered(peer.public_key()).lookup, ..Way::tunnel(node(9)) };
        // By whom the key was vouched for, and whether that still counts once the registry says nothing.
        for (way, lasts) in [(Way::registered(peer.public_key()), false), (Way::tunnel(node(9)), true), (by_both, true)]
        {
            for lookup in [Lookup::Unknown, Lookup::NotAsked, Lookup::Failed] {
                let (mut us, mut peer) = (self::us(), Actor::new(9, 0x11));
                let request = peer.draft(at(10), us.id(), Kind::Request, None);
                us.hear_from(at(10), &peer, &request, way.clone()).unwrap();
                assert!(us.tables.pending[&peer.id()].authentic);
                let lasts = lasts && lookup != Lookup::Failed;
                assert_eq!(
                    us.approve_as(at(50), peer.id(), None, lookup.clone()).is_ok(),
                    lasts,
                    "{way:?}, {lookup:?}"
                );
            }
        }
    }

    fn approve_with(
        us: &mut Actor,
        peer: NodeId,
        fingerprint: Option<Fingerprint>,
        lift: Option<RevocationId>,
    ) -> Result<Step, Rejection> {
        let (nonce, lookup) = (us.nonce(), Lookup::NotAsked);
        us.command(at(50), Command::Approve { peer, fingerprint, entry: None, nonce, lookup, lift })
    }

    fn approve_entry(us: &mut Actor, peer: NodeId, named: Option<Fingerprint>, entry: u64) -> Result<Step, Rejection> {
        let nonce = us.nonce();
        us.command(
            at(50),
            Command::Approve {
                peer,
                fingerprint: named,
                entry: Some(entry),
                nonce,
                lookup: Lookup::NotAsked,
                lift: None,
            },
        )
    }

    #[test]
    fn no_text_has_the_fingerprint_of_a_key_that_waits() {
        let current = Actor::new(9, 0x11).public_key().fingerprint();
        let others = [0xBB, 0x22, 0x33, 0x44].map(|seed| Some(Actor::new(9, seed).public_key().fingerprint()));
        let refusals = NEEDS.map(|why| Rejection::FingerprintRequired { why, current, others });
        for refusal in refusals.into_iter().chain([Rejection::WrongFingerprint { current, others }]) {
            let text = refusal.to_string();
            let has = |part: &str| text.contains(part);
            let groups = |of: Fingerprint| of.to_string().split(':').map(str::to_owned).collect::<Vec<_>>();
            for key in others.into_iter().flatten().chain([current]) {
                assert!(!groups(key).iter().any(|group| has(group)), "{text}");
            }
        }
    }

    const NEEDS: [FingerprintNeed; 7] = [
        FingerprintNeed::SetAside,
        FingerprintNeed::Proven,
        FingerprintNeed::OtherKeyKnown,
        FingerprintNeed::OtherKeySeen,
        FingerprintNeed::RegistryBehind,
        FingerprintNeed::RegistryNotAsked,
        FingerprintNeed::Unvouched,
    ];

    #[test]
    fn a_refused_approval_tells_one_cause_and_the_remedy() {
        let current = Actor::new(9, 0x11).public_key().fingerprint();
        let mut told: Vec<String> = NEEDS
            .iter()
            .map(|why| Rejection::FingerprintRequired { why: *why, current, others: [None; 4] }.to_string())
            .collect();
        let remedy = ": ask its operator for the fingerprint, and name it";
        assert!(told.iter().all(|text| text.ends_with(remedy) && text.matches(':').count() == 1), "{told:?}");
        told.sort();
        told.dedup();
        assert_eq!(told.len(), NEEDS.len());
    }

    #[test]
    fn an_approval_names_the_entry_that_was_looked_at() {
        let (mut us, mut peer) = (us(), Actor::new(9, 0x11));
        let way = || Way::tunnel(node(9));
        let request = peer.draft(at(10), us.id(), Kind::Request, None);
        us.hear_from(at(10), &peer, &request, way()).unwrap();
        let looked_at = us.tables.pending[&peer.id()].number;
        // A repeat is the same entry.
        let repeat = peer.draft(at(11), us.id(), Kind::Request, None);
        us.hear_from(at(11), &peer, &repeat, way()).unwrap();
        assert_eq!(us.tables.pending[&peer.id()].number, looked_at);
        // Refused, and there again: another entry, though vouched for as well.
        us.refuse(at(50), peer.id(), "").unwrap();
        let again = peer.draft(at(60), us.id(), Kind::Request, None);
        us.hear_from(at(60), &peer, &again, way()).unwrap();
        let current = us.tables.pending[&peer.id()].number;
        let named = Some(peer.public_key().fingerprint());
        for (fingerprint, entry) in [(None, looked_at), (named, looked_at), (None, 0), (named, 0)] {
            assert_eq!(approve_entry(&mut us, peer.id(), fingerprint, entry), Err(Rejection::OtherEntry));
        }
        assert!(us.tables.trusted.is_empty() && current != looked_at);
        assert!(approve_entry(&mut us, peer.id(), None, current).is_ok());
        // One that an older release opened has no number to be named by.
        let (mut us, _) = asked_by(&mut peer);
        us.tables.pending.get_mut(&peer.id()).unwrap().number = 0;
        assert_eq!(approve_entry(&mut us, peer.id(), named, 0), Err(Rejection::OtherEntry));
        assert!(us.approve(at(50), peer.id(), named).is_ok());
    }

    /// `us`, which knows 9 under the key of 0x11 in one of the ways that there are, and before whom 9 waits under that of
    /// 0xBB, vouched for or not.
    fn known_otherwise(how: &str, way: Way) -> (Actor, Vec<Event>) {
        let (mut us, mut peer, mut other) = (us(), Actor::new(9, 0x11), Actor::new(9, 0xBB));
        let key = peer.public_key();
        match how {
            "record" => drop(us.trusts(peer.id(), Some(key))),
            "floor" => {
                us.trusts(peer.id(), Some(key));
                let revoke = peer.draft(at(1), us.id(), Kind::Revoke, None);
                us.hear_from(at(1), &peer, &revoke, Way::open()).unwrap();
            }
            "revoked" => {
                let request = peer.draft(at(1), us.id(), Kind::Request, None);
                us.hear_from(at(1), &peer, &request, Way::registered(key)).unwrap();
                us.approve_shown(at(1), peer.id()).unwrap();
                us.revoke(at(2), peer.id()).unwrap();
            }
            "caller" => drop(us.request(at(1), peer.id(), Some(key)).unwrap()),
            "imported" | "asked since" => {}
            _ => panic!("{how}"),
        }
        let (kind, answers) = match (how, us.tables.outgoing.get(&peer.id())) {
            ("caller", Some(outgoing)) => (Kind::Accept, Some(outgoing.nonce)),
            _ => (Kind::Request, None),
        };
        let draft = other.draft(at(20), us.id(), kind, answers);
        let events = us.hear_from(at(20), &other, &draft, way).unwrap().events;
        if how == "asked since" {
            us.request(at(30), peer.id(), Some(key)).unwrap();
        } else if how == "imported" {
            us.trusts(peer.id(), Some(key));
            us.tables.pending.get_mut(&peer.id()).unwrap().conflicts = 0;
        }
        (us, events)
    }

    #[test]
    fn a_key_other_than_a_known_one_is_a_conflict_from_the_start() {
        use super::super::known::shown;
        let (old, new) = (Actor::new(9, 0x11).public_key(), Actor::new(9, 0xBB).public_key());
        for how in ["record", "floor", "revoked", "caller", "imported", "asked since"] {
            let (mut us, events) = known_otherwise(how, Way::open());
            let entry = us.tables.pending[&node(9)].clone();
            assert_eq!(replaced_key(&us.tables, node(9), &entry.key), Some(old), "{how}");
            assert_eq!(shown(&us.tables, node(9), &entry).conflicts, 1, "{how}");
            let told = events.iter().find_map(|event| match event {
                Event::Pending { replaces, .. } => Some(*replaces),
                _ => None,
            });
            let in_time = !matches!(how, "imported" | "asked since");
            assert_eq!(told, Some(in_time.then(|| old.fingerprint())), "{how}");
            // A mark is lifted by its name; that says nothing about keys.
            let lift = us.tables.revoked.get(&node(9)).map(|mark| mark.id);
            let required = approve_with(&mut us, node(9), None, lift);
            let is_known =
                matches!(required, Err(Rejection::FingerprintRequired { why: FingerprintNeed::OtherKeyKnown, .. }));
            assert!(is_known, "{how}: {required:?}");
            let was = us.tables.trusted.get(&node(9)).copied();
            assert_eq!(was.map(|record| record.public_key), matches!(how, "record" | "imported").then_some(Some(old)));

            let approved = approve_with(&mut us, node(9), Some(new.fingerprint()), lift).unwrap();
            let of = |event: &Event| match event {
                Event::TrustChanged { state, reason, .. } => Some((*state, *reason)),
                _ => None,
            };
            let mut told = vec![(TrustState::Granted, ChangeReason::Approved)];
            if was.is_some() {
                told.insert(0, (TrustState::Revoked, ChangeReason::KeyChanged));
            }
            assert_eq!(approved.events.iter().filter_map(of).collect::<Vec<_>>(), told, "{how}");
        }
        // Vouched for, too: somebody else vouched for, or named, another.
        for how in ["floor", "revoked", "caller"] {
            let (mut us, _) = known_otherwise(how, Way::tunnel(node(9)));
            let lift = us.tables.revoked.get(&node(9)).map(|mark| mark.id);
            let required = approve_with(&mut us, node(9), None, lift);
            assert!(matches!(required, Err(Rejection::FingerprintRequired { .. })), "{how}");
        }
        // The known key itself is none.
        let (mut us, mut peer) = (us(), Actor::new(9, 0x11));
        us.request(at(1), peer.id(), Some(old)).unwrap();
        let request = peer.draft(at(20), us.id(), Kind::Request, None);
        us.tables.revoked.insert(node(9), mark(0));
        us.tables.outgoing.remove(&node(9));
        us.hear_from(at(20), &peer, &request, Way::tunnel(node(9))).unwrap();
        assert_eq!(us.tables.pending[&node(9)].conflicts, 0);
    }

    #[test]
    fn an_outright_grant_under_another_key_tells_the_loss_of_the_old_one_first() {
        let mut us = us();
        let (old, new) = (Actor::new(9, 0x11).public_key(), Actor::new(9, 0xBB).public_key());
        us.trusts(node(9), Some(old));
        let step = us.command(at(50), Command::Grant { record: TrustRecord::new(node(9), new), lift: None }).unwrap();
        let told = |state, reason| Event::TrustChanged { peer: node(9), state, reason };
        let lost = told(TrustState::Revoked, ChangeReason::KeyChanged);
        assert_eq!(step.events, [lost, told(TrustState::Granted, ChangeReason::Direct)]);
        let again = us
            .command(at(50), Command::Grant { record: TrustRecord::new(node(9), new).mutual(true), lift: None })
            .unwrap();
        assert_eq!(again.events, [told(TrustState::Granted, ChangeReason::Direct)], "the key is the same");
    }

    #[test]
    fn approval_takes_any_of_the_keys_that_wait_and_answers_its_own_request() {
        let (mut us, mut squatter, mut peer) = (us(), Actor::new(9, 0xBB), Actor::new(9, 0x11));
        let first = squatter.draft(at(10), us.id(), Kind::Request, None);
        us.hear_from(at(10), &squatter, &first, Way::from_host(1)).unwrap();
        let request = peer.draft(at(20), us.id(), Kind::Request, None);
        us.hear_from(at(20), &peer, &request, Way::from_host(2)).unwrap();
        let newer = peer.draft(at(30), us.id(), Kind::Request, None);
        us.hear_from(at(30), &peer, &newer, Way::from_host(2)).unwrap();
        let copy = us.hear_from(at(31), &peer, &request, Way::from_host(3)).unwrap();
        assert_eq!((copy.outcome, us.tables.pending[&node(9)].conflicts), (Outcome::Queued, 3), "copies count, too");

        let wrong = us.approve(at(50), node(9), Some(Actor::new(9, 0xCC).public_key().fingerprint()));
        let others = [Some(peer.public_key().fingerprint()), None, None, None];
        assert_eq!(wrong, Err(Rejection::WrongFingerprint { current: squatter.public_key().fingerprint(), others }));
        let step = us.approve(at(50), node(9), Some(peer.public_key().fingerprint())).unwrap();
        assert_eq!(us.tables.trusted[&node(9)].public_key, Some(peer.public_key()));
        assert_eq!(sent(&step).unwrap().answers, Some(newer.nonce));
        let floor = us.tables.floor[&node(9)];
        assert_eq!((floor.key, floor.seen), (Some(peer.public_key()), newer.stamp));
        // Who was not chosen was refused.
        let back = us.hear_from(at(60), &squatter, &first, Way::from_host(1));
        assert_eq!(dropped(&back), Some(Rejection::AlreadyRefused));
    }

    #[test]
    fn an_approval_heeds_what_the_registry_says_now() {
        let mut peer = Actor::new(9, 0x11);
        let (current, other) = (peer.public_key().fingerprint(), Actor::new(9, 0x22).public_key());
        let found = |key| Lookup::Found { key, networks: Vec::new() };
        // Another key: not even with the fingerprint.
        for fingerprint in [None, Some(current)] {
            let (mut us, _) = asked_by(&mut peer);
            let refused = Rejection::RegistryContradicts { current, registered: other.fingerprint() };
            assert_eq!(us.approve_as(at(50), peer.id(), fingerprint, found(other)), Err(refused));
            assert!(us.tables.trusted.is_empty() && us.tables.pending.contains_key(&peer.id()));
        }
        // No answer: with the fingerprint alone.
        let (mut us, _) = asked_by(&mut peer);
        let why = FingerprintNeed::RegistryNotAsked;
        let refused = Err(Rejection::FingerprintRequired { why, current, others: [None; 4] });
        assert_eq!(us.approve_as(at(50), peer.id(), None, Lookup::Failed), refused);
        assert!(us.approve_as(at(50), peer.id(), Some(current), Lookup::Failed).is_ok());
        // The same key: it is vouched for. Nothing to say: as ever.
        for (lookup, vouches) in [(found(peer.public_key()), true), (Lookup::Unknown, false), (Lookup::NotAsked, false)]
        {
            let (mut us, _) = asked_by(&mut peer);
            let bare = us.approve_as(at(50), peer.id(), None, lookup.clone());
            assert_eq!(bare.is_ok(), vouches, "{lookup:?}");
            if !vouches {
                us.approve_as(at(50), peer.id(), Some(current), lookup).unwrap();
            }
            assert_eq!(us.tables.trusted[&peer.id()].public_key, Some(peer.public_key()));
        }
        // What was vouched for once is asked about like anything else.
        let mut us = self::us();
        let request = peer.draft(at(10), us.id(), Kind::Request, None);
        us.hear_from(at(10), &peer, &request, Way::registered(peer.public_key())).unwrap();
        assert!(us.tables.pending[&peer.id()].authentic);
        let refused = us.approve_as(at(50), peer.id(), None, found(other));
        assert!(matches!(refused, Err(Rejection::RegistryContradicts { .. })));
    }

    #[test]
    fn approval_is_mutual_exactly_when_we_had_asked_too() {
        let mut peer = Actor::new(9, 0x11);
        let (mut us, _) = asked_by(&mut peer);
        us.approve_shown(at(50), peer.id()).unwrap();
        assert!(!us.tables.trusted[&peer.id()].mutual);

        let (mut us, _) = asked_by(&mut peer);
        us.request(at(40), peer.id(), None).unwrap();
        us.approve_shown(at(50), peer.id()).unwrap();
        assert!(us.tables.trusted[&peer.id()].mutual && us.tables.outgoing.is_empty());
    }

    #[test]
    fn after_approval_nothing_older_than_the_approved_request_is_believed() {
        let mut peer = Actor::new(9, 0x11);
        let earlier = peer.draft(at(5), node(7), Kind::Revoke, None);
        let (mut us, request) = asked_by(&mut peer);
        us.approve_shown(at(50), peer.id()).unwrap();
        assert_eq!(us.hear_from(at(60), &peer, &earlier, Way::open()), Err(Rejection::Stale));
        assert_eq!(us.hear_from(at(60), &peer, &request, Way::open()), Err(Rejection::Stale));
        let later = peer.draft(at(55), us.id(), Kind::Revoke, None);
        assert!(us.hear_from(at(60), &peer, &later, Way::open()).is_ok());
    }

    #[test]
    fn approval_needs_room_in_the_store() {
        let mut peer = Actor::new(9, 0x11);
        let (mut us, _) = asked_by(&mut peer);
        us.rules.limits.trusted_max = 0;
        assert_eq!(us.approve_shown(at(50), peer.id()), Err(Rejection::StoreFull));
        assert!(us.tables.pending.contains_key(&peer.id()));
        us.rules.limits.trusted_max = 1;
        assert!(us.approve_shown(at(50), peer.id()).is_ok());
    }
}
