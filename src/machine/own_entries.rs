//! Entries about the node itself, which no rule makes: an import, or a call of the store, may have put them there.
//!
//! INVARIANT I-1 holds again after this step, whatever the tables held.
#![forbid(unsafe_code)]

use super::event::ChangeReason;
use super::outcome::{Outcome, Rules, Step};
use super::plan::Plan;
use super::rejection::Rejection;
use super::view::{Floor, TableChange, View};
use crate::time::Now;

/// Nobody is told over the wire: there is no peer.
pub(super) fn forget(rules: &Rules, view: &dyn View, now: Now) -> Result<Step, Rejection> {
    let mut plan = Plan::new(rules, view, now, rules.own_id);
    let was = plan.lose_trust(ChangeReason::OwnEntry);
    // There is no tunnel to ourselves, and the registry was never told of such trust.
    plan.effects.clear();
    (plan.pending, plan.outgoing, plan.revoked, plan.owed) = (None, None, None, None);
    if view.floor(rules.own_id).is_some() {
        // What the plan holds of a floor is written, and never taken out.
        plan.others.push(TableChange::Floor(rules.own_id, None));
        plan.floor = view.floor(rules.own_id).unwrap_or(Floor::EMPTY);
    }
    let own = rules.own_id;
    let others = [
        view.ignored(own).map(|_| TableChange::Ignored(own, None)),
        (!view.refused(own).is_empty()).then_some(TableChange::Refused(own, None)),
        (!view.successors(own).is_empty()).then_some(TableChange::Successors(own, None)),
        view.revision(own).map(|_| TableChange::Revision(own, None)),
    ];
    plan.others.extend(others.into_iter().flatten());
    let step = plan.finish(Outcome::OwnEntriesForgotten { was });
    if step.changes.is_empty() { Err(Rejection::NothingToDo) } else { Ok(step) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::check::check;
    use crate::machine::event::{Event, TrustState};
    use crate::machine::input::Input;
    use crate::machine::view::{Owed, RefusedRequest};
    use crate::peer::TrustRecord;
    use crate::testing::actor::{Actor, Way, at, node};
    use crate::wire::message::Kind;

    #[test]
    fn entries_about_ourselves_are_forgotten_from_every_table_and_no_others() {
        let (mut us, mut peer) = (Actor::new(7, 0xAA), Actor::new(9, 0x11));
        let request = peer.draft(at(0), us.id(), Kind::Request, None);
        us.hear_from(at(0), &peer, &request, Way::open()).unwrap();
        us.trusts(node(8), None);
        us.request(at(0), node(6), None).unwrap();
        us.trusts(node(5), None);
        us.revoke(at(0), node(5)).unwrap();
        assert_eq!(us.step(at(1), Input::OwnEntries), Err(Rejection::NothingToDo));
        let before = us.tables.clone();

        let own = us.id();
        let pending = us.tables.pending[&peer.id()].clone();
        let outgoing = us.tables.outgoing[&node(6)].clone();
        let floor = Floor { key: Some(us.public_key()), seen: at(0).wall, spoke_v2: true, ..Floor::EMPTY };
        let record = TrustRecord::new(own, us.public_key());
        let (since, since_tick) = (at(0).wall, at(0).tick);
        // While the node is in another table as well: what nobody would be told is forgotten anyway.
        let kind = Kind::Reject;
        let owed =
            Owed { kind, nonce: us.nonce(), answers: None, reason: String::new(), since, since_tick, for_key: None };
        let changed = Event::TrustChanged { peer: own, state: TrustState::Revoked, reason: ChangeReason::OwnEntry };
        // Each by itself, and all together.
        for which in [1, 2, 4, 8, 16, 32, 64, 128, 256, 511] {
            if which & 1 != 0 {
                us.tables.trusted.insert(own, record);
            }
            if which & 2 != 0 {
                us.tables.pending.insert(own, pending.clone());
            }
            if which & 4 != 0 {
                us.tables.outgoing.insert(own, outgoing.clone());
            }
            if which & 8 != 0 {
                us.tables.revoked.insert(own, us.tables.revoked[&node(5)]);
            }
            if which & 16 != 0 {
                us.tables.floor.insert(own, floor);
            }
            if which & 32 != 0 {
                us.tables.ignored.insert(own, at(0).wall);
            }
            if which & 64 != 0 {
                let refused = RefusedRequest { key: us.public_key(), stamp: at(0).wall, at: at(0).wall };
                us.tables.refused.insert(own, [refused].into());
            }
            if which & 128 != 0 {
                us.tables.owed.insert(own, owed.clone());
            }
            if which & 256 != 0 {
                us.tables.revisions.insert(own, 1);
            }
            assert!(which > 31 || check(&us.rules, &us.tables).is_err(), "{which}");
            // Not through the double's own look at the invariants, which do not hold before.
            let step = crate::machine::step::step(&us.rules, &us.tables, at(1), Input::OwnEntries).unwrap();
            let was = (which & 1 != 0).then_some(record);
            assert_eq!(step.outcome, Outcome::OwnEntriesForgotten { was });
            assert_eq!(step.events, was.map(|_| changed.clone()).into_iter().collect::<Vec<_>>());
            assert_eq!((step.effects.len(), step.changes.len() as u32), (0, u32::count_ones(which)));
            us.tables.apply(&step.changes);
            assert!(check(&us.rules, &us.tables).is_ok());
            assert_eq!(us.tables, before, "{which}");
        }
    }
}
