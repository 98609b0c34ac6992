//! What a store remembers beyond records, requests and marks comes along in a document, and restrictions of either side stand.
//!
//! More than 450 lines because each list is read against every state that can stand against it.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "tests say what must hold by panicking"
)]

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::config::Limits;
use crate::machine::view::View as _;
use crate::map::mix::Mix;
use crate::peer::RevocationId;
use crate::tables::{Owed, RefusedRequest, Succession, TableChange, Void};
use crate::time::{Now, Tick};
use crate::wire::message::Kind;

const NOW: Now = Now { wall: WallMillis::new(1_800_000_000_000), tick: Tick::new(0) };

pub(super) fn id(number: u32) -> NodeId {
    NodeId::new(number).unwrap()
}

pub(super) fn key(number: u8) -> PublicKey {
    PublicKey::from_bytes(ed25519_dalek::SigningKey::from_bytes(&[number; 32]).verifying_key().to_bytes()).unwrap()
}

pub(super) fn at(seconds: i64) -> WallMillis {
    WallMillis::new(1_700_000_000_000 + seconds * 1000)
}

pub(super) fn store(changes: &[TableChange]) -> Tables {
    Tables::new(Mix::new(1)).apply(changes).0
}

pub(super) fn read_with(before: &Tables, document: &str, limits: Limits) -> Taken {
    read_naming(before, document, limits, &[])
}

/// With these revocations named by who imports.
fn read_naming(before: &Tables, document: &str, limits: Limits, lifts: &[RevocationId]) -> Taken {
    let mut drawn = 0;
    let mut nonce = || {
        drawn += 1;
        Nonce([drawn; 16])
    };
    let into = Into { before, now: NOW, own_id: Some(id(7)), own_key: None, limits, lifts, nonce: &mut nonce };
    super::read(document.as_bytes(), into).unwrap().0
}

fn import(before: &Tables, document: &Value) -> Taken {
    read_with(before, &document.to_string(), Limits::default())
}

pub(super) fn export(tables: &Tables, nonces: Nonces) -> String {
    let mut out = Vec::new();
    write(&mut out, 3, tables, nonces, &mut || ()).unwrap();
    String::from_utf8(out).unwrap()
}

fn told(taken: &Taken) -> Vec<String> {
    taken.findings.iter().map(ToString::to_string).collect()
}

/// Taken, unchanged and skipped entries of a list.
fn counted(taken: &Taken, list: List) -> (u64, u64, u64) {
    let at = List::ALL.iter().position(|it| *it == list).unwrap();
    let Count { taken, unchanged, skipped } = taken.counts[at];
    (taken, unchanged, skipped)
}

fn trusted(number: u32, seed: u8) -> TableChange {
    TableChange::Trusted(id(number), Some(TrustRecord::new(id(number), key(seed)).approved_at(at(1))))
}

fn revoked(number: u32, mark: u64) -> TableChange {
    TableChange::Revoked(id(number), Some(Revocation::new(at(2), RevocationId::new(mark))))
}

fn statements(number: u32, all: &[Succession]) -> TableChange {
    TableChange::Successors(id(number), Some(all.into()))
}

fn statement(old: u8, new: u8) -> Succession {
    Succession::new(key(old), key(new))
}

fn replaced(old: u8, new: u8) -> Succession {
    Succession { replaced: true, ..statement(old, new) }
}

fn void(old: u8, new: u8, why: Void) -> Succession {
    Succession { void: Some(why), ..statement(old, new) }
}

fn refused(seed: u8, stamp: i64, when: i64) -> RefusedRequest {
    RefusedRequest { key: key(seed), stamp: at(stamp), at: at(when) }
}

fn owed(kind: Kind, for_key: Option<u8>) -> Owed {
    Owed {
        kind,
        nonce: Nonce([0xee; 16]),
        answers: (kind != Kind::Revoke).then_some(Nonce([0xad; 16])),
        reason: String::new(),
        since: at(3),
        since_tick: NOW.tick,
        for_key: for_key.map(key),
    }
}

fn owes(number: u32, entry: Owed) -> TableChange {
    TableChange::Owed(id(number), Some(Arc::new(entry)))
}

pub(super) fn waits(number: u32, seed: u8, stamp: i64) -> TableChange {
    let entry = Pending {
        key: key(seed),
        nonce: Some(Nonce([0xbe; 16])),
        stamp: at(stamp),
        justification: String::new(),
        received_at: at(stamp),
        received_tick: NOW.tick,
        source: crate::tables::Source::Node(id(number)),
        authentic: false,
        conflicts: 0,
        kind: PendingKind::Request,
        others: Vec::new(),
        proven_by: None,
        number: 0,
    };
    TableChange::Pending(id(number), Some(Arc::new(entry)))
}

/// A peer in each of the lists, with every field, as a store may hold it.
fn every_list() -> Vec<TableChange> {
    vec![
        trusted(11, 1),
        trusted(12, 2),
        revoked(13, 5),
        statements(11, &[replaced(3, 1), statement(1, 1), void(1, 4, Void::Refused)]),
        statements(13, &[void(2, 3, Void::Revoked), statement(2, 2)]),
        TableChange::Refused(id(14), Some([refused(9, 5, 30), refused(8, 900_000_000, 20), refused(7, 7, 10)].into())),
        owes(11, owed(Kind::Accept, Some(1))),
        owes(13, owed(Kind::Revoke, None)),
        owes(14, Owed { reason: "not now".to_owned(), ..owed(Kind::Reject, Some(9)) }),
        owes(15, Owed { answers: None, ..owed(Kind::Reject, Some(9)) }),
        TableChange::Revision(id(11), Some(u64::MAX)),
        TableChange::Revision(id(13), Some(1)),
    ]
}

#[test]
fn what_a_store_remembers_comes_back_as_it_was_and_again_is_no_change() {
    let ours = store(&every_list());
    let nothing = store(&[]);
    let document = export(&ours, Nonces::Written);
    let taken = read_with(&nothing, &document, Limits::default());
    assert_eq!(told(&taken), [""; 0]);
    assert!(taken.after.diff(&ours).is_empty(), "{}", export(&taken.after, Nonces::Written));
    assert_eq!(export(&taken.after, Nonces::Written), document);
    for (list, count) in [(List::Successors, 5), (List::Refused, 3), (List::Owed, 4), (List::Revisions, 2)] {
        assert_eq!(counted(&taken, list), (count, 0, 0), "{list:?}");
    }
    // Again, with and without nonces, and into a store that has it from elsewhere.
    for nonces in [Nonces::Written, Nonces::LeftOut] {
        let again = read_with(&ours, &export(&ours, nonces), Limits::default());
        assert!(again.after.diff(&ours).is_empty() && told(&again).is_empty(), "{nonces:?} {:?}", told(&again));
        assert_eq!((counted(&again, List::Owed), again.fresh_nonces), ((0, 4, 0), 0));
    }
    // A document without these lists, as older releases wrote it, takes nothing away.
    let mut older: Value = serde_json::from_str(&document).unwrap();
    for list in ["successors", "refused", "owed", "revisions"] {
        assert!(older.as_object_mut().unwrap().remove(list).is_some(), "{list}");
    }
    let taken = import(&ours, &older);
    assert!(taken.after.diff(&ours).is_empty() && told(&taken).is_empty(), "{:?}", told(&taken));
    let taken = import(&nothing, &older);
    assert!(told(&taken).is_empty() && taken.after.sides.revoked.len() == 1);
}

#[test]
fn without_nonces_what_is_owed_gets_fresh_ones_and_is_of_the_same_version() {
    let ours = store(&every_list());
    let document = export(&ours, Nonces::LeftOut);
    assert!(!document.contains("7u7u7u7") && !document.contains("ra2tra2"), "{document}");
    let taken = read_with(&store(&[]), &document, Limits::default());
    assert_eq!((told(&taken).len(), taken.fresh_nonces), (0, 2), "an accept and a reject answer something");
    for peer in [11, 13, 14, 15] {
        let (old, new) = (ours.owed(id(peer)).unwrap(), taken.after.owed(id(peer)).unwrap());
        assert!(old.nonce != new.nonce && old.answers.is_some() == new.answers.is_some(), "{peer}");
        let rest = Owed { nonce: old.nonce, answers: old.answers, ..new.clone() };
        assert_eq!((&rest, new.answers == old.answers), (old, old.answers.is_none()), "{peer}");
    }
}

#[test]
fn a_statement_that_either_side_holds_void_or_replaced_is_so_afterwards() {
    let forms = [
        statement(1, 2),
        replaced(1, 2),
        void(1, 2, Void::Revoked),
        void(1, 2, Void::Refused),
        Succession { replaced: true, ..void(1, 2, Void::Refused) },
    ];
    for held in forms {
        for said in forms {
            let before = store(&[statements(11, &[held])]);
            let document = export(&store(&[statements(11, &[said, statement(3, 4)])]), Nonces::Written);
            let taken = read_with(&before, &document, Limits::default());
            let both = Succession { replaced: held.replaced || said.replaced, void: held.void.or(said.void), ..held };
            assert_eq!(taken.after.successors(id(11)), [both, statement(3, 4)], "{held:?} {said:?}");
            let is_news = u64::from(both != held);
            assert_eq!(counted(&taken, List::Successors), (1 + is_news, 1 - is_news, 0), "{held:?} {said:?}");
            let again = read_with(&taken.after, &document, Limits::default());
            assert!(again.after.diff(&taken.after).is_empty());
        }
    }
}

#[test]
fn what_a_document_says_of_keys_is_void_where_the_store_has_revoked_the_peer() {
    let said = |extra: &[TableChange]| {
        let changes: Vec<_> = [statements(13, &[statement(1, 2)])].into_iter().chain(extra.iter().cloned()).collect();
        export(&store(&changes), Nonces::Written)
    };
    let after = |before: &[TableChange], document: &str| {
        let taken = read_with(&store(before), document, Limits::default());
        taken.after.successors(id(13)).to_vec()
    };
    // The statement may be older than the revocation, whatever mark the document has.
    assert_eq!(after(&[revoked(13, 5)], &said(&[])), [void(1, 2, Void::Revoked)]);
    assert_eq!(after(&[revoked(13, 5)], &said(&[revoked(13, 6)])), [void(1, 2, Void::Revoked)]);
    // The twins: that very mark, and none.
    assert_eq!(after(&[revoked(13, 5)], &said(&[revoked(13, 5)])), [statement(1, 2)]);
    assert_eq!(after(&[], &said(&[revoked(13, 5)])), [statement(1, 2)]);
    assert_eq!(after(&[], &said(&[])), [statement(1, 2)]);
    // What the store had seen before the document's revocation.
    let (before, document) = ([statements(13, &[statement(1, 2)])], said(&[revoked(13, 5)]));
    assert_eq!(after(&before, &document), [void(1, 2, Void::Revoked)]);
}

#[test]
fn trust_in_a_key_stands_above_what_a_document_says_replaced_it() {
    // Of the store, and of the document.
    for (before, extra) in [(vec![trusted(11, 1)], vec![]), (vec![], vec![trusted(11, 1)])] {
        let said = [replaced(1, 2), statement(3, 1)];
        let changes: Vec<_> = [statements(11, &said)].into_iter().chain(extra).collect();
        let document = export(&store(&changes), Nonces::Written);
        let taken = read_with(&store(&before), &document, Limits::default());
        assert_eq!(taken.after.successors(id(11)), [statement(1, 2), replaced(3, 1)]);
        let why = "successors[0] (peer 11): `replaced` was not taken: the peer is trusted under this very key";
        assert_eq!(told(&taken), [why]);
    }
    // The twin: under another key it is taken.
    let document = export(&store(&[statements(11, &[replaced(1, 2)])]), Nonces::Written);
    let taken = read_with(&store(&[trusted(11, 2)]), &document, Limits::default());
    assert_eq!((taken.after.successors(id(11)), told(&taken).len()), (&[replaced(1, 2)][..], 0));
}

#[test]
fn a_document_brings_no_key_back_that_the_store_holds_replaced_or_void() {
    let asks = |number, expected: u8| {
        let (nonce, justification, sent_tick) = (Nonce([1; 16]), String::new(), NOW.tick);
        let (sent_at, expected_key) = (at(1), Some(key(expected)));
        let entry = Outgoing {
            sent_at,
            sent_tick,
            nonce,
            expected_key,
            justification,
            lift: None,
            relayed: true,
            refused: None,
        };
        TableChange::Outgoing(id(number), Some(Arc::new(entry)))
    };
    let whole = [trusted(11, 1), asks(12, 1)];
    let document = export(&store(&whole), Nonces::Written);
    for said in [replaced(1, 2), void(3, 1, Void::Revoked), void(3, 1, Void::Refused)] {
        let before = store(&[statements(11, &[said]), statements(12, &[said])]);
        let taken = read_with(&before, &document, Limits::default());
        assert!(taken.after.diff(&before).is_empty(), "{said:?}");
        let lines = told(&taken);
        assert!(
            lines.len() == 2 && lines.iter().all(|line| line.contains("replaced, refused or revoked")),
            "{lines:?}"
        );
        // The twin: an operator who named it has said so, and a document that says so again is no news.
        let before = before.apply(&whole).0;
        let taken = read_with(&before, &document, Limits::default());
        assert!(taken.after.diff(&before).is_empty() && told(&taken).is_empty(), "{:?}", told(&taken));
    }
    // And what the document alone says of it keeps out nobody whom it trusts.
    let all: Vec<_> = whole.iter().cloned().chain([statements(11, &[void(3, 1, Void::Refused)])]).collect();
    let taken = read_with(&store(&[]), &export(&store(&all), Nonces::Written), Limits::default());
    assert!(taken.after.trusted(id(11)).is_some() && told(&taken).is_empty(), "{:?}", told(&taken));
}

#[test]
fn a_statement_that_names_a_revoked_key_is_void_whichever_side_revoked_it() {
    let mark = TableChange::RevokedKey(key(2), Some(Revocation::new(at(2), RevocationId::new(5))));
    let held = [replaced(1, 2), statement(2, 3), statement(2, 2)];
    let said = export(&store(&[statements(11, &[statement(4, 2)])]), Nonces::Written);
    let revokes = export(&store(&[mark.clone(), statements(11, &[statement(4, 2)])]), Nonces::Written);
    let ended = Succession { replaced: true, ..void(1, 2, Void::Revoked) };
    let all = [ended, statement(2, 3), statement(2, 2), void(4, 2, Void::Revoked)];
    // Trusted under the key, or under another, or not at all.
    for record in [vec![trusted(11, 2)], vec![trusted(11, 9)], vec![]] {
        let before: Vec<_> = [statements(11, &held)].into_iter().chain(record).collect();
        let after = read_with(&store(&before), &revokes, Limits::default()).after;
        assert!(after.trusted(id(11)).is_none_or(|record| record.public_key == Some(key(9))));
        assert_eq!(after.successors(id(11)), all);
    }
    let after = read_with(&store(std::slice::from_ref(&mark)), &said, Limits::default()).after;
    assert_eq!(after.successors(id(11)), [void(4, 2, Void::Revoked)]);
    // Of a peer of which the document says nothing.
    let revokes = export(&store(&[mark]), Nonces::Written);
    let after = read_with(&store(&[statements(11, &held)]), &revokes, Limits::default()).after;
    assert_eq!(after.successors(id(11)), &all[..3]);
    // The twin.
    let after = read_with(&store(&[statements(11, &held)]), &said, Limits::default()).after;
    assert_eq!(after.successors(id(11)), [&held[..], &[statement(4, 2)]].concat());
}

#[test]
fn a_request_that_either_side_refused_is_refused_by_its_newest_stamp() {
    let both = |held: &[RefusedRequest], said: &[RefusedRequest]| {
        let document = export(&store(&[TableChange::Refused(id(14), Some(said.into()))]), Nonces::Written);
        let before = store(&[TableChange::Refused(id(14), Some(held.into()))]);
        let taken = read_with(&before, &document, Limits::default());
        (taken.after.refused(id(14)).to_vec(), counted(&taken, List::Refused))
    };
    let (old, new, other) = (refused(1, 10, 20), refused(1, 11, 19), refused(2, 1, 5));
    assert_eq!(both(&[old], &[new]), (vec![refused(1, 11, 20)], (1, 0, 0)));
    assert_eq!(both(&[new], &[old]), (vec![refused(1, 11, 20)], (1, 0, 0)));
    assert_eq!(both(&[old], &[old, other]), (vec![other, old], (1, 1, 0)), "the oldest refusal first");
    // A stamp that lies too far ahead keeps nothing out, and does not push out one that does.
    let ahead = refused(1, 900_000_000, 20);
    assert_eq!(both(&[old], &[ahead]), (vec![old], (0, 1, 0)));
    assert_eq!(both(&[ahead], &[old]), (vec![old], (1, 0, 0)));
    let many: Vec<_> = (1..=16).map(|seed| refused(seed, 1, i64::from(seed))).collect();
    let more = [refused(17, 1, 99), many[0]];
    assert_eq!(both(&many, &more), (many.clone(), (0, 1, 1)), "what the store holds stays");
}

#[test]
fn no_request_waits_that_an_operator_refused_and_a_newer_one_does() {
    let refusal = |stamp| TableChange::Refused(id(14), Some([refused(1, stamp, 50)].into()));
    let waiting = |before: &Tables, stamp| {
        let document = export(&store(&[waits(14, 1, 10), refusal(stamp)]), Nonces::Written);
        let taken = read_with(before, &document, Limits::default());
        (taken.after.pending(id(14)).is_some(), counted(&taken, List::Pending), told(&taken))
    };
    let why = "pending[0] (peer 14): skipped: an operator has refused this request, and that stands".to_owned();
    assert_eq!(waiting(&store(&[]), 10), (false, (0, 0, 1), vec![why.clone()]));
    assert_eq!(waiting(&store(&[]), 9), (true, (1, 0, 0), vec![]));
    assert!(waiting(&store(&[]), 900_000_000).0, "a stamp that lies too far ahead keeps nothing out");
    // Refused in the store alone.
    let document = export(&store(&[waits(14, 1, 10), waits(15, 1, 10)]), Nonces::Written);
    let taken = read_with(&store(&[refusal(10)]), &document, Limits::default());
    assert_eq!((taken.after.pending_len(), told(&taken)), (1, vec![why]));
    // What waits in the store already is not for a document to decide.
    let document = export(&store(&[refusal(10)]), Nonces::Written);
    assert_eq!(read_with(&store(&[waits(14, 1, 10)]), &document, Limits::default()).after.pending_len(), 1);
}

#[test]
fn nothing_is_owed_that_the_resulting_state_contradicts() {
    let ignored = TableChange::Ignored(id(11), Some(at(1)));
    let asks = |number: u32| {
        let (nonce, justification) = (Nonce([1; 16]), String::new());
        let lift = Some(RevocationId::new(5));
        let (sent_at, sent_tick) = (at(1), NOW.tick);
        let entry = Outgoing {
            sent_at,
            sent_tick,
            nonce,
            expected_key: None,
            justification,
            lift,
            relayed: true,
            refused: None,
        };
        TableChange::Outgoing(id(number), Some(Arc::new(entry)))
    };
    let (accept, reject, revoke) = (owed(Kind::Accept, Some(1)), owed(Kind::Reject, Some(1)), owed(Kind::Revoke, None));
    let cases: [(&[TableChange], &Owed, Option<&str>); 14] = [
        (&[trusted(11, 1)], &accept, None),
        (&[trusted(11, 2)], &accept, Some("not trusted under this key")),
        (&[], &accept, Some("not trusted under this key")),
        (&[revoked(11, 5)], &accept, Some("not trusted under this key")),
        (&[], &reject, None),
        (&[trusted(11, 2)], &reject, None),
        (&[trusted(11, 1)], &reject, Some("trusted under this key")),
        (&[revoked(11, 5)], &reject, Some("the peer is revoked")),
        (std::slice::from_ref(&ignored), &reject, Some("ignored")),
        (&[revoked(11, 5)], &revoke, None),
        (&[], &revoke, Some("not revoked")),
        (&[trusted(11, 1)], &revoke, Some("not revoked")),
        (&[revoked(11, 5), asks(11)], &revoke, Some("our own request")),
        (&[revoked(11, 5), ignored.clone()], &revoke, Some("ignored")),
    ];
    for (state, entry, why) in cases {
        // Said by the store, and by the document, of which the list comes first.
        let list = OwedEntry::new(11, entry, Nonces::Written);
        let said = format!("{{\"owed\":[{}]}}", serde_json::to_string(&list).unwrap());
        let all: Vec<_> = state.iter().cloned().chain([owes(11, entry.clone())]).collect();
        let whole = export(&store(&all), Nonces::Written);
        assert_eq!(whole.contains("\"owed\""), why.is_none(), "an export has what is owed still: {whole}");
        let first = format!("{},{}", said.strip_suffix('}').unwrap(), &export(&store(state), Nonces::Written)[1..]);
        for (before, document) in [(store(state), said), (store(&[]), first)] {
            // A request that lifts comes along only if its lift is named.
            let asks = state.iter().any(|change| matches!(change, TableChange::Outgoing(..)));
            let lifts = [RevocationId::new(5)];
            let taken = read_naming(&before, &document, Limits::default(), if asks { &lifts } else { &[] });
            let told = told(&taken);
            assert_eq!(taken.after.owed(id(11)), why.is_none().then_some(entry), "{state:?} {entry:?} {told:?}");
            match why {
                None => assert!(told.is_empty(), "{told:?}"),
                Some(why) => {
                    assert!(told.len() == 1 && told[0].starts_with("owed[0] (peer 11): skipped: "), "{told:?}");
                    assert!(told[0].contains(why), "{told:?}");
                }
            }
        }
    }
}

#[test]
fn what_the_store_owes_stays_unless_it_is_so_no_more() {
    let said = |changes: &[TableChange]| export(&store(changes), Nonces::Written);
    let other = Owed { reason: "other".to_owned(), ..owed(Kind::Reject, Some(1)) };
    let taken = read_with(
        &store(&[owes(11, owed(Kind::Reject, Some(1)))]),
        &said(&[owes(11, other.clone())]),
        Limits::default(),
    );
    assert_eq!(
        (taken.after.owed(id(11)), counted(&taken, List::Owed)),
        (Some(&owed(Kind::Reject, Some(1))), (0, 0, 1))
    );
    assert!(told(&taken)[0].contains("the store says something else about this peer"), "{:?}", told(&taken));
    // The document revokes: the store's accept tells nothing any more, and the farewell takes its place.
    let before = store(&[trusted(11, 1), owes(11, owed(Kind::Accept, Some(1)))]);
    let document = said(&[revoked(11, 5), owes(11, owed(Kind::Revoke, None))]);
    let taken = read_with(&before, &document, Limits::default());
    assert_eq!((taken.after.owed(id(11)), counted(&taken, List::Owed)), (Some(&owed(Kind::Revoke, None)), (1, 0, 0)));
}

#[test]
fn the_newest_revision_counts_and_none_is_kept_of_who_is_in_no_table() {
    let revision = |number, of| TableChange::Revision(id(number), Some(of));
    let document = |of| export(&store(&[revision(11, of), revision(12, 3)]), Nonces::Written);
    let before = store(&[trusted(11, 1), revision(11, 5)]);
    for (said, after, counts) in [(4, 5, (0, 1, 1)), (5, 5, (0, 1, 1)), (6, 6, (1, 0, 1))] {
        let taken = read_with(&before, &document(said), Limits::default());
        assert_eq!((taken.after.revision(id(11)), counted(&taken, List::Revisions)), (Some(after), counts));
        assert_eq!((taken.after.revision(id(12)), told(&taken).len()), (None, 1));
        assert!(told(&taken)[0].contains("nothing else is known of this peer"), "{:?}", told(&taken));
    }
    // It goes with the last entry of its peer, and stays beside any.
    let mark = TableChange::RevokedKey(key(1), Some(Revocation::new(at(2), RevocationId::new(5))));
    let floor = TableChange::Floor(id(11), Some(Floor { key: Some(key(1)), seen: at(1), ..Floor::EMPTY }));
    let ends = export(&store(&[mark]), Nonces::Written);
    let both = [trusted(11, 1), revision(11, 5), floor];
    for (changes, left) in [(&both[..2], None), (&both[..], Some(5))] {
        let after = read_with(&store(changes), &ends, Limits::default()).after;
        assert_eq!((after.trusted(id(11)), after.revision(id(11))), (None, left));
    }
}

#[test]
fn each_field_of_what_is_remembered_is_checked_by_name() {
    let (one, two) = (key(1).to_base64(), key(2).to_base64());
    let weak = "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let good = [
        ("successors", json!({"node_id": 11, "old_key": one, "new_key": two, "replaced": true, "void": "refused"})),
        (
            "refused",
            json!({"node_id": 11, "public_key": one, "stamp": "2026-01-01T00:00:00Z", "refused_at": "2026-01-01T00:00:01Z"}),
        ),
        (
            "owed",
            json!({"node_id": 11, "kind": "reject", "public_key": one, "decided_at": "2026-01-01T00:00:00Z",
            "reason": "no", "nonce": "7u7u7u7u7u7u7u7u7u7u7g==", "answers": "ra2tra2tra2tra2tra2trQ==", "spoke_v2": true}),
        ),
        ("revisions", json!({"node_id": 11, "revision": 18_446_744_073_709_551_615_u64})),
    ];
    let bad: [(&str, &str, Value, &str); 33] = [
        ("successors", "node_id", json!(null), "no `node_id`"),
        ("successors", "node_id", json!(7), "this node itself"),
        ("successors", "old_key", json!(null), "no `old_key`"),
        ("successors", "old_key", json!("x"), "`old_key`: a public key is 32 bytes"),
        ("successors", "new_key", json!(""), "no `new_key`"),
        ("successors", "new_key", json!(weak), "`new_key`: a public key of small order"),
        ("successors", "new_key", json!(one), "`replaced` of a key by itself"),
        ("successors", "replaced", json!("yes"), "`replaced` is neither true nor false"),
        ("successors", "void", json!("gone"), "`void` is neither `revoked` nor `refused`"),
        ("successors", "void", json!(true), "`void` is no text"),
        ("refused", "node_id", json!(0), "`node_id` is no number from 1"),
        ("refused", "node_id", json!(7), "this node itself"),
        ("refused", "public_key", json!(null), "no `public_key`"),
        ("refused", "public_key", json!(weak), "`public_key`: a public key of small order"),
        ("refused", "stamp", json!("yesterday"), "`stamp` is no time"),
        ("refused", "refused_at", json!(5), "`refused_at` is no text"),
        ("owed", "node_id", json!(7), "this node itself"),
        ("owed", "kind", json!(null), "no `kind`"),
        ("owed", "kind", json!("request"), "`kind` is neither `accept`, `reject` nor `revoke`"),
        ("owed", "kind", json!(3), "`kind` is no text"),
        ("owed", "kind", json!("revoke"), "a `revoke` is for the peer"),
        ("owed", "public_key", json!(weak), "`public_key`: a public key of small order"),
        ("owed", "decided_at", json!("soon"), "`decided_at` is no time"),
        ("owed", "reason", json!([]), "`reason` is no text"),
        ("owed", "nonce", json!("7u7u"), "`nonce` is not 16 bytes"),
        ("owed", "answers", json!("7u7u"), "`answers` is not 16 bytes"),
        ("owed", "spoke_v2", json!(1), "`spoke_v2` is neither true nor false"),
        ("revisions", "node_id", json!(7), "this node itself"),
        ("revisions", "revision", json!(null), "no `revision`"),
        ("revisions", "revision", json!(0), "no `revision`, or 0"),
        ("revisions", "revision", json!(-1), "`revision` is no number from 0 to 18446744073709551615"),
        ("revisions", "revision", json!(1.5), "`revision` is no number"),
        ("revisions", "revision", json!("1"), "`revision` is no number"),
    ];
    let entry = |list: &str| good.iter().find(|(name, _)| *name == list).unwrap().1.clone();
    let before = store(&[waits(11, 5, 1)]);
    for (list, field, value, why) in bad {
        let mut wrong = entry(list);
        wrong[field] = value.clone();
        let taken = import(&before, &json!({ list: [wrong] }));
        let told = told(&taken);
        assert!(taken.after.diff(&before).is_empty(), "{list} {field} {value}");
        assert!(told.len() == 1 && told[0].starts_with(&format!("{list}[0]")), "{list} {field} {value}: {told:?}");
        assert!(told[0].contains("skipped: ") && told[0].contains(why), "{list} {field} {value}: {told:?}");
    }
    for (list, entry) in &good {
        // The twin; the same twice; a field that it does not have; something else than an object, or than a list.
        let mut more = entry.clone();
        more["since"] = json!(1);
        let taken = import(&before, &json!({ *list: [more, entry, 5] }));
        assert!(!taken.after.diff(&before).is_empty(), "{list}");
        let told = told(&taken);
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].contains("in this list already"), "{told:?}");
        assert!(told[1].contains("[2]: skipped: not an object"), "{told:?}");
        let unknown: Vec<_> = taken.unknown.iter().map(ToString::to_string).collect();
        assert_eq!(unknown, [format!("`since` is no field of `{list}` (first in {list}[0]); it was ignored")]);
        let mut nonce = || Nonce([0; 16]);
        let limits = Limits::default();
        let into =
            Into { before: &before, now: NOW, own_id: None, own_key: None, limits, lifts: &[], nonce: &mut nonce };
        let error = super::read(json!({ *list: entry }).to_string().as_bytes(), into).unwrap_err().to_string();
        assert!(error.contains(&format!("`{list}` to be a list or null")), "{error}");
        assert!(told.iter().all(|line| !line.contains("null")));
        assert!(import(&before, &json!({ *list: null })).after.diff(&before).is_empty());
    }
}

#[test]
fn times_to_come_and_texts_of_what_is_remembered_are_mended_and_told() {
    let key = key(1).to_base64();
    let future = "2900-01-01T00:00:00Z";
    let document = json!({
        "refused": [{"node_id": 11, "public_key": key, "stamp": future, "refused_at": future}, {"node_id": 12, "public_key": key}],
        "owed": [{"node_id": 11, "kind": "reject", "public_key": key, "decided_at": future, "reason": " no\u{202e} "}, {"node_id": 12, "kind": "reject"}],
    });
    let taken = import(&store(&[]), &document);
    let lines = told(&taken);
    for line in [
        "refused[0] (peer 11): `refused_at` lies",
        "owed[0] (peer 11): `reason` was cut",
        "owed[0] (peer 11): `decided_at` lies",
    ] {
        assert!(lines.iter().any(|told| told.starts_with(line)), "{line}: {lines:?}");
    }
    assert_eq!(lines.len(), 3, "{lines:?}");
    let held = taken.after.refused(id(11))[0];
    assert!(
        held.at == NOW.wall && held.stamp > NOW.wall,
        "a stamp that lies too far ahead is kept, and keeps nothing out"
    );
    assert_eq!(taken.after.refused(id(12)), [RefusedRequest { key: self::key(1), stamp: NOW.wall, at: NOW.wall }]);
    let (told, bare) = (taken.after.owed(id(11)).unwrap(), taken.after.owed(id(12)).unwrap());
    assert_eq!((told.reason.as_str(), told.since, bare.since, bare.answers), ("no", NOW.wall, NOW.wall, None));
}

#[test]
fn what_is_remembered_is_within_the_limits_of_a_store() {
    let mut limits = Limits::default();
    (limits.successors_max, limits.owed_max, limits.pending_max, limits.trusted_max) = (2, 2, 0, 2);
    let peers = |list: &str, entry: Value| {
        let entries = (11..15).map(|number| {
            let mut entry = entry.clone();
            entry["node_id"] = json!(number);
            entry
        });
        json!({ list: entries.collect::<Vec<_>>() }).to_string()
    };
    let (one, two) = (key(1).to_base64(), key(2).to_base64());
    let before = store(&[
        statements(14, &[statement(5, 6)]),
        owes(14, owed(Kind::Reject, Some(9))),
        TableChange::Floor(id(11), Some(Floor { reserved: at(1), sent: at(1), ..Floor::EMPTY })),
    ]);
    let skipped = |list, document: String| {
        let taken = read_with(&before, &document, limits);
        assert!(told(&taken).iter().any(|line| line.contains("the table is full (")), "{:?}", told(&taken));
        let (taken, unchanged, _) = counted(&taken, list);
        (taken, unchanged)
    };
    assert_eq!(skipped(List::Successors, peers("successors", json!({"old_key": one, "new_key": two}))), (2, 0));
    assert_eq!(skipped(List::Owed, peers("owed", json!({"kind": "reject"}))), (1, 0));
    assert_eq!(skipped(List::Refused, peers("refused", json!({"public_key": one}))), (0, 0));
    assert_eq!(skipped(List::Revisions, peers("revisions", json!({"revision": 1}))), (1, 0));
    // Of one peer.
    for (list, entry) in [("successors", "new_key"), ("refused", "public_key")] {
        let entries = (1..=20).map(|seed| {
            let mut it = json!({"node_id": 14, entry: key(seed).to_base64()});
            if list == "successors" {
                it["old_key"] = json!(key(5).to_base64());
            }
            it
        });
        let taken = import(&before, &json!({ list: entries.collect::<Vec<_>>() }));
        let count = taken.counts.iter().map(|count| count.taken).sum::<u64>();
        let len = taken.after.successors(id(14)).len().max(taken.after.refused(id(14)).len());
        assert_eq!((len, told(&taken)[0].contains("more than 16")), (16, true), "{list} {count}");
    }
}

/// An entry of every table, as far as a document can say it: whatever table a store gets, a migration does not forget it.
#[test]
fn an_entry_of_every_table_comes_along() {
    let kept = crate::TrustStore::in_memory();
    drop(crate::testing::every_table::set_every_table(&kept, 1).unwrap());
    let all = kept.tables().unwrap();
    let (peer, pending) = all.sides.pending.iter().next().map(|(peer, it)| (peer, (**it).clone())).unwrap();
    let (asked, outgoing) = all.sides.outgoing.iter().next().map(|(peer, it)| (peer, (**it).clone())).unwrap();
    let (floor_of, floor) = all.sides.floors.iter().next().map(|(peer, it)| (peer, *it)).unwrap();
    let (revoked_key, mark) = all.sides.revoked_keys.iter().next().map(|(key, mark)| (key, *mark)).unwrap();
    let (ignored, since) = all.sides.ignored_keys.iter().next().map(|(key, at)| (key, *at)).unwrap();
    let (unbound, _) = all.sides.revisions.iter().next().unwrap();
    // What a document has not: who vouched, other keys, and how a peer refused. What no store holds: a former floor below
    // the floor, what waits under an ignored key, a statement that names a revoked key and counts, and a revision of nobody.
    let pending = Pending { authentic: false, others: Vec::new(), proven_by: None, number: 0, ..pending };
    let changes = [
        TableChange::Pending(peer, Some(Arc::new(pending))),
        TableChange::Outgoing(asked, Some(Arc::new(Outgoing { refused: None, relayed: true, ..outgoing }))),
        TableChange::Floor(floor_of, Some(Floor { before: floor.seen.saturating_add(1), ..floor })),
        TableChange::RevokedKey(revoked_key, None),
        TableChange::RevokedKey(key(98), Some(mark)),
        TableChange::IgnoredKey(ignored, None),
        TableChange::IgnoredKey(key(99), Some(since)),
        TableChange::Trusted(unbound, Some(TrustRecord::new(unbound, None))),
    ];
    let ours = all.apply(&changes).0;
    macro_rules! none_is_empty {
        ($($(#[$doc:meta])* $number:literal $field:ident $variant:ident $key:ty, $entry:ty => $table:ty;)*) => {
            $(assert!(ours.sides.$field.len() > 0, stringify!($field));)*
        };
    }
    crate::tables::side_tables!(none_is_empty);
    let document = export(&ours, Nonces::Written);
    let lifts: Vec<_> = ours.sides.outgoing.iter().filter_map(|(_, entry)| entry.lift).collect();
    let taken = read_naming(&Tables::new(ours.trusted.mix()), &document, Limits::default(), &lifts);
    assert_eq!(told(&taken), [""; 0]);
    assert!(taken.after.diff(&ours).is_empty(), "{document}\n{}", export(&taken.after, Nonces::Written));
}

#[test]
fn an_older_document_brings_no_trust_back_that_the_peer_may_have_ended_since() {
    let (one, other) = (key(1).to_base64(), key(2).to_base64());
    let heard = |seed, seen, before| {
        let floor = Floor { key: Some(key(seed)), seen: at(seen), before: at(before), ..Floor::EMPTY };
        TableChange::Floor(id(9), Some(floor))
    };
    let text = |seconds| super::time(at(seconds));
    let record = |seconds| json!([{"node_id": 9, "public_key": one, "approved_at": text(seconds)}]);
    let floor =
        |key: &str, seconds| json!([{"node_id": 9, "public_key": key, "seen": text(seconds), "spoke_v2": true}]);
    let none = json!([]);
    for (held, trusted, floors, is_taken) in [
        // A farewell, say, that came when the document was written already.
        (heard(1, 100, 0), record(1), floor(&one, 50), false),
        (heard(1, 100, 0), record(1), floor(&one, 100), true),
        // Without floors, as in documents of other systems, the record's age says what it knows of.
        (heard(1, 100, 0), record(1), none.clone(), false),
        (heard(1, 100, 0), record(131), none.clone(), true),
        (heard(1, 100, 0), record(129), none.clone(), false),
        (heard(1, 100, 0), json!([{"node_id": 9, "public_key": one}]), none.clone(), false),
        // By another key, too, of which the document knows or not; and before our clock stepped back.
        (heard(2, 100, 0), record(1), floor(&one, 200), false),
        (heard(2, 100, 0), record(1), floor(&other, 100), true),
        (heard(1, 1, 100), record(1), floor(&one, 50), false),
        (heard(1, 1, 100), record(1), floor(&one, 100), true),
    ] {
        // Whichever list comes first.
        for document in [
            format!("{{\"trusted\": {trusted}, \"floors\": {floors}}}"),
            format!("{{\"floors\": {floors}, \"trusted\": {trusted}}}"),
        ] {
            let taken = read_with(&store(core::slice::from_ref(&held)), &document, Limits::default());
            assert_eq!(taken.after.trusted(id(9)).is_some(), is_taken, "{document}: {:?}", told(&taken));
            let skipped = told(&taken).iter().any(|line| line.contains("grant it by name"));
            assert_eq!(skipped, !is_taken, "{document}: {:?}", told(&taken));
            // To a store that has not heard the peer, or that trusts it, it says nothing new.
            let fresh = read_with(&store(&[]), &document, Limits::default());
            assert!(fresh.after.trusted(id(9)).is_some(), "{document}");
        }
    }
    // Who names the revocation has looked at this very peer.
    let held = store(&[heard(1, 100, 0), revoked(9, 5)]);
    let document = json!({"trusted": record(1)}).to_string();
    let taken = read_naming(&held, &document, Limits::default(), &[RevocationId::new(5)]);
    assert!(taken.after.trusted(id(9)).is_some(), "{:?}", told(&taken));
    let held = store(&[heard(1, 100, 0), trusted(9, 1)]);
    assert_eq!(counted(&read_with(&held, &document, Limits::default()), List::Trusted), (0, 1, 0));
}

#[test]
fn whom_a_document_trusts_the_store_ignores_no_longer() {
    let held = store(&[TableChange::Ignored(id(9), Some(at(1))), TableChange::Ignored(id(10), Some(at(1)))]);
    let record = json!([{"node_id": 9, "public_key": key(1).to_base64()}]);
    let taken = import(&held, &json!({"trusted": record}));
    assert!(taken.after.trusted(id(9)).is_some() && taken.after.ignored(id(9)).is_none());
    assert!(taken.after.ignored(id(10)).is_some());
    assert_eq!(
        told(&taken),
        ["trusted[0] (peer 9): the store ignored this peer, which is trusted now, and heard again"]
    );
    // Trust that the document itself ends leaves it as it was.
    let taken = import(&held, &json!({"trusted": record, "revoked": [{"node_id": 9}]}));
    assert!(taken.after.trusted(id(9)).is_none() && taken.after.ignored(id(9)).is_some());
}

#[test]
fn a_floor_that_is_moved_back_keeps_what_was_said_of_it() {
    let key = key(1).to_base64();
    let said = NOW.wall.saturating_add(200_000);
    for (seen, text, ahead) in [(said, "2027-01-15T08:03:20Z", true), (NOW.wall, "2027-01-15T08:00:00Z", false)] {
        let document = json!({"floors": [{"node_id": 9, "public_key": key, "seen": text, "spoke_v2": true}]});
        let taken = import(&store(&[]), &document);
        let floor = taken.after.floor(id(9)).unwrap_or_else(|| panic!("{:?}", told(&taken)));
        let (is, before) = if ahead { (NOW.wall.saturating_add(30_000), said) } else { (seen, WallMillis::default()) };
        assert_eq!((floor.seen, floor.before), (is, before), "{:?}", told(&taken));
    }
}

/// What the fuzz target `trust_json` begins with, which has hostile entries of every list.
#[test]
fn what_the_corpus_of_documents_comes_to_is_what_an_export_writes() {
    use crate::testing::doors::import_and_export;
    let corpus = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/trust_json")).unwrap();
    let (mut lists, mut left_out) = (std::collections::BTreeSet::new(), 0);
    for file in corpus {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        let Ok((exported, skipped)) = import_and_export(&bytes) else { continue };
        let (again, none) = import_and_export(&exported).unwrap();
        assert!(
            none == 0 && again == exported,
            "{none} {}\n{}\n{}",
            String::from_utf8_lossy(&bytes),
            String::from_utf8_lossy(&exported),
            String::from_utf8_lossy(&again)
        );
        let document: Value = serde_json::from_slice(&exported).unwrap();
        let used =
            List::ALL.into_iter().filter(|list| document[list.name()].as_array().is_some_and(|it| !it.is_empty()));
        lists.extend(used.map(List::name));
        left_out += skipped;
    }
    assert!(lists.len() == List::ALL.len() && left_out >= 20, "{lists:?} {left_out}");
}
