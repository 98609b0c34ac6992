//! Who is trusted for asking, without an operator, the first that matches.
#![forbid(unsafe_code)]

use super::event::AutoReason;
use super::input::Lookup;
use super::plan::Plan;
use super::refused::is_refused_key;
use super::step::Standing;
use crate::config::Allowed;
use crate::peer::PublicKey;

/// By which rule a peer is trusted when it asks.
pub(super) struct Approval {
    pub(super) reason: AutoReason,
    /// The network that both are in, or 0.
    pub(super) network: u16,
    /// Of the entry of the allow-list.
    pub(super) label: Option<String>,
}

/// The first of the rules that trust who asks.
pub(super) fn approval(plan: &Plan<'_>, key: PublicKey, standing: Standing, lookup: &Lookup) -> Option<Approval> {
    // a registry that could not be asked might contradict the key.
    // one that names a replaced key has not heard of what came after.
    let is_behind = matches!(lookup, Lookup::Found { key: known, .. } if plan.is_behind(known, &key));
    if contradicts_caller(plan, key) || *lookup == Lookup::Failed || is_behind {
        return None;
    }
    //
    if plan.is_kept_out(&key) {
        return None;
    }
    let by = |reason| Approval { reason, network: 0, label: None };
    let (policy, is_bound) = (&plan.rules.policy, standing == Standing::Bound);
    // we have asked it too, and the registry or our own caller vouches for the key.
    if plan.asked().is_some_and(|outgoing| is_bound || outgoing.expected_key == Some(key)) {
        return Some(by(AutoReason::Mutual));
    }
    // where our request lifts a mark, no rule but the one above counts.
    // nor for a replaced key that our caller names.
    if plan.marks(Some(&key)).is_any() || plan.set_aside(&key).is_some() {
        return None;
    }
    //
    if let (true, Lookup::Found { networks, .. }) = (is_bound, lookup) {
        let shared = |network: &&u16| **network != 0 && networks.contains(network);
        if let Some(network) = policy.own_networks.iter().find(shared) {
            return Some(Approval { network: *network, ..by(AutoReason::SameNetwork) });
        }
    }
    //
    let allows = |entry: &&Allowed| entry.key.map_or(is_bound, |allowed| allowed == key);
    if let Some(entry) = policy.allow_list.of(plan.peer).iter().find(allows) {
        return Some(Approval { label: entry.label.clone(), ..by(AutoReason::AllowListed) });
    }
    // nobody has named the key, and an operator has refused it.
    let is_welcome = policy.auto_approve && (standing.is_authentic() || !is_refused_key(plan, &key));
    is_welcome.then(|| by(AutoReason::AutoApprove))
}

/// Whether our own caller named another key for this peer. Then no rule may trust this one; an operator can.
pub(super) fn contradicts_caller(plan: &Plan<'_>, key: PublicKey) -> bool {
    plan.asked().and_then(|outgoing| outgoing.expected_key).is_some_and(|expected| expected != key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Policy;
    use crate::machine::event::{ChangeReason, Event, TrustState};
    use crate::machine::outcome::{Outcome, Step};
    use crate::peer::TrustRecord;
    use crate::testing::actor::{Actor, Way, at, mark, node};
    use crate::wire::message::Kind;

    fn asker() -> Actor {
        Actor::new(7, 0xAA)
    }
    fn key() -> PublicKey {
        asker().public_key()
    }
    fn other_key() -> PublicKey {
        Actor::new(1, 0x22).public_key()
    }

    /// 9, with this policy, hears a request of 7.
    fn heard(policy: Policy, way: Way, prepare: impl FnOnce(&mut Actor)) -> (Step, Option<TrustRecord>) {
        let (mut asker, mut us) = (asker(), Actor::new(9, 0x11));
        us.rules.policy = policy;
        prepare(&mut us);
        let request = asker.draft(at(50), us.id(), Kind::Request, None);
        let step = us.hear_from(at(60), &asker, &request, way).unwrap();
        (step, us.tables.trusted.get(&asker.id()).copied())
    }

    fn approved(policy: Policy, way: Way) -> Option<(AutoReason, u16, Option<String>)> {
        let (step, record) = heard(policy, way, |_| {});
        let told = step.events.iter().find_map(|event| match event {
            Event::AutoApproved { reason, label, .. } => Some((*reason, label.clone())),
            _ => None,
        });
        assert_eq!(told.is_some(), record.is_some(), "trust is told, and only trust");
        assert_eq!(record.is_none(), step.outcome == Outcome::Queued);
        told.map(|(reason, label)| (reason, record.unwrap().network, label))
    }

    #[test]
    fn a_shared_network_is_the_first_of_ours_that_it_also_has() {
        let ours = || Policy::default().own_networks([30, 10, 20]);
        let through = |network| Some((AutoReason::SameNetwork, network, None));
        assert_eq!(approved(ours(), Way::in_networks(key(), &[20, 10])), through(10));
        assert_eq!(approved(ours(), Way::in_networks(key(), &[20, 10, 30])), through(30));
        assert_eq!(approved(ours(), Way::in_networks(key(), &[40])), None);
    }

    #[test]
    fn network_0_is_shared_by_nobody() {
        let ours = || Policy::default().own_networks([0, 5]);
        assert_eq!(approved(ours(), Way::in_networks(key(), &[0])), None);
        assert_eq!(
            approved(ours(), Way::in_networks(key(), &[0, 5])),
            Some((AutoReason::SameNetwork, 5, None)),
            "a 0 beside a network stands in the way of nothing"
        );
    }

    #[test]
    fn a_shared_network_counts_only_for_who_is_bound() {
        // That the transport authenticated it does not say which key the registry means.
        let policy = Policy::default().own_networks([5]);
        assert_eq!(approved(policy.clone(), Way::tunnel(node(7))), None);
        assert_eq!(approved(policy.clone(), Way::open()), None);
        assert!(approved(policy, Way::in_networks(key(), &[5])).is_some());
    }

    #[test]
    fn the_allow_list_takes_its_key_or_an_id_that_is_bound() {
        let by_key = || Policy::default().allow(Allowed::new(node(7), key()).label("gate"));
        let by_id = || Policy::default().allow(Allowed::new(node(7), None));
        let listed = |label: Option<&str>| Some((AutoReason::AllowListed, 0, label.map(str::to_owned)));
        assert_eq!(approved(by_key(), Way::open()), listed(Some("gate")));
        assert_eq!(approved(by_id(), Way::registered(key())), listed(None));
        assert_eq!(approved(by_id(), Way::open()), None, "an id alone can be claimed by anybody");
        assert_eq!(approved(by_id(), Way::tunnel(node(7))), None);
        assert_eq!(approved(Policy::default().allow(Allowed::new(node(7), other_key())), Way::open()), None);
        assert_eq!(approved(Policy::default().allow(Allowed::new(node(8), key())), Way::open()), None);
    }

    #[test]
    fn of_several_entries_of_one_peer_the_first_that_matches_counts() {
        let policy = Policy::default()
            .allow(Allowed::new(node(7), other_key()).label("old"))
            .allow(Allowed::new(node(7), key()).label("new"))
            .allow(Allowed::new(node(7), key()).label("again"));
        assert_eq!(approved(policy, Way::open()), Some((AutoReason::AllowListed, 0, Some("new".to_owned()))));
    }

    #[test]
    fn whoever_approves_everybody_approves_everybody_and_by_default_nobody_does() {
        let everybody = Policy::default().auto_approve(true);
        assert_eq!(approved(everybody, Way::open()), Some((AutoReason::AutoApprove, 0, None)));
        assert_eq!(approved(Policy::default(), Way::open()), None);
        assert_eq!(approved(Policy::default(), Way::in_networks(key(), &[1])), None);
    }

    #[test]
    fn the_rules_that_trust_are_asked_in_their_order() {
        let all = || Policy::default().own_networks([5]).allow(Allowed::new(node(7), key())).auto_approve(true);
        let way = || Way::in_networks(key(), &[5]);
        let (step, record) = heard(all(), way(), |us| {
            us.request(at(0), node(7), None).unwrap();
        });
        let mutual = Event::AutoApproved { peer: node(7), reason: AutoReason::Mutual, label: None };
        assert!(step.events.contains(&mutual));
        assert!(record.is_some_and(|record| record.mutual && record.network == 0));
        assert_eq!(approved(all(), way()).unwrap().0, AutoReason::SameNetwork);
        assert_eq!(approved(all(), Way::registered(key())).unwrap().0, AutoReason::AllowListed);
        assert_eq!(approved(all().own_networks([]), Way::open()).unwrap().0, AutoReason::AllowListed);
    }

    #[test]
    fn no_policy_trusts_a_revoked_peer_or_a_key_that_was_not_named() {
        let all = || Policy::default().own_networks([5]).allow(Allowed::new(node(7), None)).auto_approve(true);
        let way = || Way::in_networks(key(), &[5]);
        let revoked = heard(all(), way(), |us| {
            us.tables.revoked.insert(node(7), mark(0));
        });
        assert_eq!((revoked.0.outcome, revoked.1), (Outcome::Queued, None));
        let named = heard(all(), way(), |us| {
            us.request(at(0), node(7), Some(other_key())).unwrap();
        });
        assert_eq!((named.0.outcome, named.1), (Outcome::Queued, None));
        assert!(heard(all(), way(), |_| {}).1.is_some());
    }

    #[test]
    fn no_policy_lets_a_stranger_take_over_a_trusted_peer() {
        let all = || Policy::default().allow(Allowed::new(node(7), key())).auto_approve(true);
        for record_key in [None, Some(other_key())] {
            let (step, record) = heard(all(), Way::open(), |us| {
                us.trusts(node(7), record_key);
            });
            assert_eq!((step.outcome, record.unwrap().public_key), (Outcome::Queued, record_key));
        }
        // Its twin: vouched for, it loses the old record first and is then judged as anybody.
        let (step, record) = heard(all(), Way::registered(key()), |us| {
            us.trusts(node(7), Some(other_key()));
        });
        assert_eq!(record.unwrap().public_key, Some(key()));
        let lost = Event::TrustChanged { peer: node(7), state: TrustState::Revoked, reason: ChangeReason::KeyChanged };
        assert!(step.events.contains(&lost));
    }

    #[test]
    fn after_a_rule_approved_nothing_older_is_believed() {
        let (mut asker, mut us) = (asker(), Actor::new(9, 0x11));
        us.rules.policy = Policy::default().auto_approve(true);
        let revoke = asker.draft(at(10), us.id(), Kind::Revoke, None);
        let request = asker.draft(at(20), us.id(), Kind::Request, None);
        us.hear_from(at(30), &asker, &request, Way::open()).unwrap();
        assert_eq!(
            us.hear_from(at(40), &asker, &revoke, Way::open()),
            Err(crate::machine::rejection::Rejection::Stale)
        );
        assert!(us.tables.trusted.contains_key(&asker.id()));
    }
}
