//! What counts as a change, and what patches come to.

use super::draft::Touched;
use super::patch::{Patch, SideValues};
use super::table::Table as _;
use super::*;
use crate::map::Value;
use crate::peer::Kind;
use crate::testing::actor::{Actor, Way, at, mark};

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
    let calm = Touched { urgent: false, any: true, ..Touched::default() };
    assert_eq!(floor, calm);
    assert_eq!(touched(&[TableChange::Revision(peer, Some(3))]), calm);
    let both = [TableChange::Floor(peer, Some(Floor::EMPTY)), TableChange::Revision(peer, Some(3))];
    assert_eq!(touched(&both), calm);
    let revoked = granted.draft(&[TableChange::Revoked(peer, Some(mark(1)))]);
    assert!(revoked.touches_marks() && !draft.touches_marks());
    assert_eq!(revoked.touched(), Touched { trusted: false, urgent: true, any: true });
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
    let mut third = Actor::new(9, 0x33);
    assert_eq!(heard(&mut us, &mut third, 40, Way::from_host(3)), news, "one other key more");
    assert_eq!(heard(&mut us, &mut third, 41, Way::from_host(3)), repeat, "the same");
    assert_eq!(heard(&mut us, &mut peer, 42, Way::registered(key)), news, "somebody vouches for it");
    assert_eq!(heard(&mut us, &mut peer, 43, Way::registered(key)), repeat);
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

#[test]
fn a_saved_revision_goes_with_the_last_entry_of_its_peer() {
    let (nine, ten) = (NodeId::new(9).unwrap(), NodeId::new(10).unwrap());
    let trusted = |peer| TableChange::Trusted(peer, Some(TrustRecord::new(peer, None)));
    let untrusted = |peer| TableChange::Trusted(peer, None);
    let revision = |peer| TableChange::Revision(peer, Some(5));
    let floor = |peer| TableChange::Floor(peer, Some(Floor::EMPTY));
    let revoked = |peer| TableChange::Revoked(peer, Some(mark(1)));
    // The others that keep a revision, each as a peer has it alone.
    let mut us = Actor::new(7, 0xAA);
    us.is_asked(10, 9, 0x11, "", Way::open()).unwrap();
    let waits = TableChange::Pending(nine, us.tables.pending.remove(&nine).map(Arc::new));
    us.request(at(20), nine, None).unwrap();
    let asked = TableChange::Outgoing(nine, us.tables.outgoing.remove(&nine).map(Arc::new));
    let (kind, nonce, reason) = (Kind::Revoke, us.nonce(), String::new());
    let (since, since_tick) = (at(30).wall, at(30).tick);
    let owed = Owed { kind, nonce, answers: None, reason, since, since_tick, for_key: None };
    let owed = TableChange::Owed(nine, Some(Arc::new(owed)));
    let (no_more, not_asked, not_owed) =
        (TableChange::Pending(nine, None), TableChange::Outgoing(nine, None), TableChange::Owed(nine, None));
    // What is there, what changes, and whether the revision of 9 is there afterwards.
    let cases: Vec<(Vec<TableChange>, Vec<TableChange>, bool)> = vec![
        (vec![trusted(nine)], vec![untrusted(nine)], false),
        (vec![trusted(nine)], vec![trusted(nine), TableChange::Trusted(ten, None)], true),
        (vec![trusted(nine), floor(nine)], vec![untrusted(nine)], true),
        (vec![trusted(nine), floor(nine)], vec![untrusted(nine), TableChange::Floor(nine, None)], false),
        (vec![trusted(nine), floor(nine)], vec![TableChange::Floor(nine, None)], true),
        (vec![trusted(nine)], vec![untrusted(nine), revoked(nine)], true),
        (vec![revoked(nine)], vec![TableChange::Revoked(nine, None)], false),
        (vec![revoked(nine)], vec![TableChange::Revoked(nine, None), trusted(nine)], true),
        (vec![trusted(nine), trusted(ten), revision(ten)], vec![untrusted(nine), untrusted(ten)], false),
        (vec![waits.clone()], vec![no_more.clone()], false),
        (vec![waits.clone(), asked.clone()], vec![no_more.clone()], true),
        (vec![asked.clone()], vec![not_asked.clone()], false),
        (vec![asked.clone(), owed.clone()], vec![not_asked], true),
        (vec![owed.clone()], vec![not_owed.clone()], false),
        (vec![owed, waits.clone()], vec![not_owed], true),
        (vec![waits], vec![no_more, asked], true),
        // A newer one of the same moment goes as well, and once.
        (vec![trusted(nine)], vec![untrusted(nine), TableChange::Revision(nine, Some(6))], false),
        // In no table at all, as nothing of ours leaves it: it stays until something goes.
        (vec![], vec![trusted(ten)], true),
    ];
    for (number, (there, changes, stays)) in cases.into_iter().enumerate() {
        let mut before = vec![revision(nine)];
        before.extend(there);
        let (tables, _) = Tables::new(Mix::new(1)).apply(&before);
        let mut draft = tables.draft(&changes);
        tables.let_revisions_go(&mut draft);
        let after = tables.next(&mut draft);
        assert_eq!(after.sides.revisions.get(nine).is_some(), stays, "case {number}");
        assert_eq!(after.sides.revisions.get(ten), None, "case {number}");
    }
}

/// `verify` looks at each, as a store may hold keys that were damaged in memory before they were saved.
#[cfg(all(feature = "cli", feature = "__testing"))]
#[test]
fn every_key_of_every_entry_is_among_the_keys() {
    let key = |seed: u8| {
        let signing = ed25519_dalek::SigningKey::from_bytes(&[seed; 32]);
        PublicKey::from_bytes(signing.verifying_key().to_bytes()).unwrap()
    };
    let kept = crate::TrustStore::in_memory();
    drop(crate::testing::every_table::set_every_table(&kept, 1).unwrap());
    let tables = kept.tables().unwrap();
    let (peer, owed) = tables.sides.owed.iter().next().map(|(peer, it)| (peer, (**it).clone())).unwrap();
    let owed = crate::tables::Owed { for_key: Some(key(77)), ..owed };
    let tables = tables.apply(&[TableChange::Owed(peer, Some(Arc::new(owed)))]).0;
    let keys: Vec<PublicKey> = tables.sides.keys().collect();
    for seed in [1, 1 ^ 0x80, 77] {
        assert!(keys.contains(&key(seed)), "{seed}");
    }
}
