//! What counts as a change, and what patches come to.

use super::draft::Touched;
use super::patch::{Patch, SideValues};
use super::*;
use crate::map::Value;
use crate::testing::actor::{Actor, Way, at, mark};
use crate::wire::message::Kind;

#[test]
fn only_what_differs_counts_as_touched() {
    let peer = NodeId::new(7).unwrap();
    let record = TrustRecord::new(peer, None);
    let empty = Tables::new(Mix::new(1));
    let mut draft = empty.draft(&[TableChange::Trusted(peer, Some(record))]);
    assert_eq!(draft.touched(), Touched { trusted: true, urgent: true, any: true });
    assert_eq!(draft.trusted_len(), 1);
    assert_eq!(draft.membership(), [(peer, true)]);
    let granted = empty.next(&mut draft);
    assert_eq!(granted.trusted.get(peer), Some(record));
    let touched = |changes: &[TableChange]| granted.draft(changes).touched();
    let nothing = touched(&[TableChange::Trusted(peer, Some(record)), TableChange::Revoked(peer, None)]);
    assert_eq!(nothing, Touched::default());
    let floor = touched(&[TableChange::Floor(peer, Some(Floor::EMPTY))]);
    assert_eq!(floor, Touched { trusted: false, urgent: false, any: true });
    let revoked = touched(&[TableChange::Revoked(peer, Some(mark(1)))]);
    assert_eq!(revoked, Touched { trusted: false, urgent: true, any: true });
    let removed = granted.draft(&[TableChange::Trusted(peer, None)]);
    assert_eq!((removed.trusted_len(), removed.membership()), (0, &[(peer, false)][..]));
    // Other terms are a change, but nobody comes or goes.
    let other = granted.draft(&[TableChange::Trusted(peer, Some(record.network(7)))]);
    assert!(other.touched().trusted && other.membership().is_empty());
}

#[test]
fn repeats_of_a_peer_that_waits_are_no_urgent_change_and_news_is() {
    let (mut us, mut peer) = (Actor::new(7, 0xAA), Actor::new(9, 0x11));
    let mut tables = Tables::new(Mix::new(1));
    // What the rules change when this is heard, as the keeper is told of it.
    let mut heard = |us: &mut Actor, peer: &mut Actor, ms, way: Way| {
        let request = peer.draft(at(ms), us.id(), Kind::Request, None);
        let step = us.hear_from(at(ms), peer, &request, way).unwrap();
        let (next, touched) = tables.apply(&step.changes);
        tables = next;
        touched
    };
    let (news, repeat) =
        (Touched { trusted: false, urgent: true, any: true }, Touched { trusted: false, urgent: false, any: true });
    assert_eq!(heard(&mut us, &mut peer, 0, Way::open()), news, "a new entry");
    for ms in 1..20 {
        assert_eq!(heard(&mut us, &mut peer, ms, Way::open()), repeat, "the same again");
    }
    let (mut other, key) = (Actor::new(9, 0x22), peer.public_key());
    assert_eq!(heard(&mut us, &mut other, 20, Way::open()), news, "the first conflict");
    for ms in 21..40 {
        assert!(!heard(&mut us, &mut other, ms, Way::open()).urgent, "one conflict more");
    }
    assert_eq!(heard(&mut us, &mut peer, 40, Way::registered(key)), news, "somebody vouches for it");
    assert_eq!(heard(&mut us, &mut peer, 41, Way::registered(key)), repeat);
    assert!(tables.apply(&[TableChange::Pending(peer.id(), None)]).1.urgent, "it waits no longer");
}

#[test]
fn the_last_value_of_a_patch_counts_and_repetitions_are_seen() {
    let peer = |number| NodeId::new(number).unwrap();
    let record = |number, network| (number, Some(Value::of(&TrustRecord::new(peer(number), None).network(network))));
    let mix = Mix::new(7);
    let once = Patch { trusted: vec![record(1, 1), record(2, 1), (3, None)], ..Patch::default() };
    assert!(!once.repeats_itself(mix) && !Patch::default().repeats_itself(mix));
    let mut twice = once.clone();
    twice.extend(Patch { trusted: vec![record(1, 2), (2, None), record(3, 2)], ..Patch::default() });
    assert!(twice.repeats_itself(mix));
    let patched = Tables::new(mix).patched(twice).unwrap();
    let value = |number| patched.trusted.get(peer(number)).as_ref().map(Value::of);
    assert_eq!(value(1), record(1, 2).1);
    assert_eq!(value(2), None);
    assert_eq!(value(3), record(3, 2).1);
    let both = Patch {
        sides: SideValues { revoked: vec![(peer(3), Some(mark(1)))], ..SideValues::default() },
        ..Patch::default()
    };
    assert!(patched.patched(both.clone()).is_none(), "trusted and revoked");
    let instead = Patch { trusted: vec![(3, None)], ..both };
    let revoked = patched.patched(instead).unwrap();
    // The other way round too: granted what is revoked.
    assert!(revoked.patched(Patch { trusted: vec![record(3, 3)], ..Patch::default() }).is_none());
    let again = Patch {
        trusted: vec![record(3, 3)],
        sides: SideValues { revoked: vec![(peer(3), None)], ..SideValues::default() },
    };
    assert!(revoked.patched(again).is_some());
}
