//! The document of a state has everything that the state has, and says it in the same words whatever the history.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests say what must hold by panicking"
)]

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::changes::mark;
use super::*;
use crate::map::mix::Mix;
use crate::peer::{NodeId, RevocationId};
use crate::persist::format::{StoreId, encode_snapshot};
use crate::tables::{Owed, RefusedRequest, Source, Succession, TableChange, Void};
use crate::time::{Now, Tick};
use crate::wire::message::Kind;

fn id(number: u32) -> NodeId {
    NodeId::new(number).unwrap()
}

fn key(number: u8) -> PublicKey {
    PublicKey::from_bytes(ed25519_dalek::SigningKey::from_bytes(&[number; 32]).verifying_key().to_bytes()).unwrap()
}

fn wall(millis: i64) -> WallMillis {
    WallMillis::new(millis)
}

/// Every field with and without a value, and texts that JSON must escape.
fn changes() -> Vec<TableChange> {
    let mut changes = vec![
        TableChange::Trusted(
            id(12),
            Some(TrustRecord::new(id(12), key(1)).approved_at(wall(1_772_532_000_123)).network(7)),
        ),
        TableChange::Trusted(id(3), Some(TrustRecord::new(id(3), None).mutual(true))),
        TableChange::Trusted(id(u32::MAX), Some(TrustRecord::new(id(u32::MAX), key(2)).approved_at(wall(-1)))),
        TableChange::Revoked(id(5), Some(mark(id(5), wall(1_772_532_000_456)))),
        TableChange::Revoked(id(4), Some(mark(id(4), wall(0)))),
        TableChange::Floor(id(3), Some(Floor { key: Some(key(2)), spoke_v2: true, ..Floor::EMPTY })),
        TableChange::Revoked(id(6), Some(Revocation::new(wall(7), RevocationId::new(8)))),
        TableChange::RevokedKey(key(8), Some(Revocation::new(wall(9), RevocationId::new(10)))),
        TableChange::RevokedKey(key(9), Some(Revocation::new(wall(0), RevocationId::new(u64::MAX)))),
        TableChange::Ignored(id(7), Some(wall(11))),
        TableChange::IgnoredKey(key(9), Some(wall(12))),
    ];
    let floor = Floor {
        key: Some(key(1)),
        seen: wall(9),
        before: wall(3_600_000),
        sent: wall(10),
        reserved: wall(10),
        ..Floor::EMPTY
    };
    changes.push(TableChange::Floor(id(12), Some(floor)));
    changes.extend(remembered());
    let sources = ["10.1.2.3", "2001:db8::"].map(|text| Source::Address(text.parse().unwrap()));
    for (peer, source) in (20..).zip([Source::Node(id(9))].into_iter().chain(sources)) {
        let with_nonce = peer % 2 == 0;
        let entry = Pending {
            key: key(3),
            nonce: with_nonce.then_some(Nonce([0xfb; 16])),
            stamp: wall(1000 + i64::from(peer)),
            justification: "please \"\\\n\u{1f511}".to_owned(),
            received_at: wall(2000),
            received_tick: Tick::new(0),
            source,
            authentic: with_nonce,
            conflicts: peer,
            kind: if with_nonce { PendingKind::Request } else { PendingKind::AnsweredUnvouched },
            others: Vec::new(),
            proven_by: None,
            number: 0,
        };
        changes.push(TableChange::Pending(id(peer), Some(Arc::new(entry))));
        let entry = Outgoing {
            sent_at: wall(3000),
            sent_tick: Tick::new(0),
            nonce: Nonce([peer as u8; 16]),
            expected_key: with_nonce.then_some(key(4)),
            justification: String::new(),
            lift: with_nonce.then_some(RevocationId::new(77)),
            relayed: true,
            refused: None,
        };
        changes.push(TableChange::Outgoing(id(peer + 10), Some(Arc::new(entry))));
    }
    changes
}

/// Several entries of a peer, in an order that is no other's, and every field with and without a value.
fn remembered() -> Vec<TableChange> {
    let replaced = Succession { replaced: true, ..Succession::new(key(7), key(1)) };
    let void = |why| Some(why);
    let refused = Succession { replaced: true, void: void(Void::Refused), ..Succession::new(key(2), key(7)) };
    let revoked = Succession { void: void(Void::Revoked), ..Succession::new(key(9), key(3)) };
    let contested = Succession::new(key(1), key(1));
    let request = |number, stamp| RefusedRequest { key: key(number), stamp: wall(stamp), at: wall(5000) };
    let owed = |kind, for_key, answers: Option<u8>| {
        let (nonce, answers) = (Nonce([0xee; 16]), answers.map(|byte| Nonce([byte; 16])));
        let (reason, since) = (if kind == Kind::Reject { "not \"now\"" } else { "" }.to_owned(), wall(6000));
        Some(Arc::new(Owed { kind, nonce, answers, reason, since, since_tick: Tick::new(0), for_key }))
    };
    vec![
        TableChange::Successors(id(12), Some([replaced, contested, refused].into())),
        TableChange::Successors(id(50), Some([revoked].into())),
        TableChange::Refused(id(51), Some([request(3, 4_102_444_800_000), request(1, 4000), request(2, 4001)].into())),
        TableChange::Refused(id(20), Some([request(3, 900)].into())),
        TableChange::Owed(id(12), owed(Kind::Accept, Some(key(1)), Some(0xad))),
        TableChange::Owed(id(52), owed(Kind::Reject, Some(key(3)), Some(0xad))),
        TableChange::Owed(id(53), owed(Kind::Reject, Some(key(3)), None)),
        TableChange::Owed(id(5), owed(Kind::Revoke, None, None)),
        TableChange::Revision(id(12), Some(9)),
        TableChange::Revision(id(5), Some(u64::MAX)),
    ]
}

fn tables(seed: u64, changes: &[TableChange]) -> Tables {
    Tables::new(Mix::new(seed)).apply(changes).0
}

fn document(tables: &Tables) -> String {
    let (mut out, mut told) = (Vec::new(), 0);
    write(&mut out, 3, tables, Nonces::Written, &mut || told += 1).unwrap();
    assert_eq!(told, entries(tables));
    String::from_utf8(out).unwrap()
}

/// The bytes of a snapshot are equal where contents are.
fn bytes(tables: &Tables) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_snapshot(StoreId { id: [0; 16], seed: 1 }, 3, tables, &mut |_, part| {
        bytes.extend_from_slice(part);
        Ok::<(), ()>(())
    })
    .unwrap();
    bytes
}

/// What the document says, read by other means than those that wrote it.
fn read(document: &str) -> Vec<TableChange> {
    let document: Value = serde_json::from_str(document).unwrap();
    let list = |name: &str| document[name].as_array().unwrap().clone();
    // Left out where they are empty.
    let perhaps = |name: &str| document.get(name).map_or_else(Vec::new, |list| list.as_array().unwrap().clone());
    let revocation = |entry: &Value| {
        Revocation::new(
            WallMillis::new(millis(entry["revoked_at"].as_str().unwrap())),
            entry["id"].as_str().unwrap().parse().unwrap(),
        )
    };
    let peer = |entry: &Value| id(entry["node_id"].as_u64().unwrap().try_into().unwrap());
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let key = |value: &Value| value.as_str().map(|text| text.parse::<PublicKey>().unwrap());
    let time = |value: &Value| value.as_str().map_or(wall(0), |text| wall(millis(text)));
    let nonce = |value: &Value| {
        let bytes = base64::engine::general_purpose::STANDARD.decode(value.as_str()?).unwrap();
        Some(Nonce(bytes.try_into().unwrap()))
    };
    let mut changes = Vec::new();
    for entry in list("trusted") {
        let network = entry.get("network").map_or(0, |network| network.as_u64().unwrap());
        let record = TrustRecord::new(peer(&entry), key(&entry["public_key"]))
            .approved_at(time(&entry["approved_at"]))
            .mutual(entry["mutual"].as_bool().unwrap())
            .network(network.try_into().unwrap());
        changes.push(TableChange::Trusted(peer(&entry), Some(record)));
    }
    for entry in list("pending") {
        let source = text(&entry["source"]);
        let pending = Pending {
            key: key(&entry["public_key"]).unwrap(),
            nonce: nonce(&entry["nonce"]),
            stamp: time(&entry["stamp"]),
            justification: text(&entry["justification"]),
            received_at: time(&entry["received_at"]),
            received_tick: Now::default().tick,
            source: match source.strip_prefix("node ") {
                Some(node) => Source::Node(node.parse().unwrap()),
                None => Source::Address(source.parse().unwrap()),
            },
            authentic: entry["authentic"].as_bool().unwrap(),
            conflicts: entry["conflicts"].as_u64().unwrap().try_into().unwrap(),
            kind: match entry["kind"].as_str().unwrap() {
                "request" => PendingKind::Request,
                "answered_unvouched" => PendingKind::AnsweredUnvouched,
                other => panic!("{other}"),
            },
            others: Vec::new(),
            proven_by: None,
            number: 0,
        };
        changes.push(TableChange::Pending(peer(&entry), Some(Arc::new(pending))));
    }
    for entry in list("outgoing") {
        let outgoing = Outgoing {
            sent_at: time(&entry["sent_at"]),
            sent_tick: Now::default().tick,
            nonce: nonce(&entry["nonce"]).unwrap(),
            expected_key: key(&entry["expected_key"]),
            justification: text(&entry["justification"]),
            lift: entry.get("lift").map(|id| text(id).parse().unwrap()),
            relayed: true,
            refused: None,
        };
        changes.push(TableChange::Outgoing(peer(&entry), Some(Arc::new(outgoing))));
    }
    for entry in list("revoked") {
        assert_eq!(entry["until"], "9999-12-31T23:59:59.999Z");
        changes.push(TableChange::Revoked(peer(&entry), Some(revocation(&entry))));
    }
    for entry in list("floors") {
        let reserved = time(&entry["reserved"]);
        let floor = Floor {
            key: key(&entry["public_key"]),
            seen: time(&entry["seen"]),
            sent: reserved,
            reserved,
            before: entry.get("before").map_or(wall(0), time),
            spoke_v2: entry["spoke_v2"].as_bool().unwrap(),
        };
        changes.push(TableChange::Floor(peer(&entry), Some(floor)));
    }
    for entry in perhaps("revoked_keys") {
        changes.push(TableChange::RevokedKey(key(&entry["public_key"]).unwrap(), Some(revocation(&entry))));
    }
    for entry in perhaps("ignored") {
        changes.push(TableChange::Ignored(peer(&entry), Some(time(&entry["ignored_at"]))));
    }
    for entry in perhaps("ignored_keys") {
        let key = key(&entry["public_key"]).unwrap();
        changes.push(TableChange::IgnoredKey(key, Some(time(&entry["ignored_at"]))));
    }
    // Several of a peer: in the order of the document.
    let mut statements = BTreeMap::<NodeId, Vec<Succession>>::new();
    for entry in perhaps("successors") {
        let void = entry.get("void").map(|void| match void.as_str().unwrap() {
            "revoked" => Void::Revoked,
            "refused" => Void::Refused,
            other => panic!("{other}"),
        });
        let replaced = entry.get("replaced").is_some_and(|it| it.as_bool().unwrap());
        let (old, new) = (key(&entry["old_key"]).unwrap(), key(&entry["new_key"]).unwrap());
        statements.entry(peer(&entry)).or_default().push(Succession { replaced, void, ..Succession::new(old, new) });
    }
    changes.extend(statements.into_iter().map(|(peer, all)| TableChange::Successors(peer, Some(all.into()))));
    let mut refused = BTreeMap::<NodeId, Vec<RefusedRequest>>::new();
    for entry in perhaps("refused") {
        let (stamp, at) = (time(&entry["stamp"]), time(&entry["refused_at"]));
        let key = key(&entry["public_key"]).unwrap();
        refused.entry(peer(&entry)).or_default().push(RefusedRequest { key, stamp, at });
    }
    changes.extend(refused.into_iter().map(|(peer, all)| TableChange::Refused(peer, Some(all.into()))));
    for entry in perhaps("owed") {
        let owed = Owed {
            kind: match entry["kind"].as_str().unwrap() {
                "accept" => Kind::Accept,
                "reject" => Kind::Reject,
                "revoke" => Kind::Revoke,
                other => panic!("{other}"),
            },
            nonce: nonce(&entry["nonce"]).unwrap(),
            answers: nonce(&entry["answers"]),
            reason: text(&entry["reason"]),
            since: time(&entry["decided_at"]),
            since_tick: Now::default().tick,
            for_key: key(&entry["public_key"]),
        };
        changes.push(TableChange::Owed(peer(&entry), Some(Arc::new(owed))));
    }
    for entry in perhaps("revisions") {
        changes.push(TableChange::Revision(peer(&entry), Some(entry["revision"].as_u64().unwrap())));
    }
    changes
}

/// Days are counted one by one, from 1970 on or back.
fn millis(text: &str) -> i64 {
    let number = |from: usize, to: usize| text[from..to].parse::<i64>().unwrap();
    assert_eq!((text.len(), &text[10..11], &text[23..]), (24, "T", "Z"));
    let leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let (year, month) = (number(0, 4), number(5, 7));
    let days_of = |year: i64| if leap(year) { 366 } else { 365 };
    let lengths = [31, if leap(year) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let years: i64 = (1970..year).map(days_of).sum::<i64>() - (year..1970).map(days_of).sum::<i64>();
    let days = years + lengths[..month as usize - 1].iter().sum::<i64>() + number(8, 10) - 1;
    ((days * 24 + number(11, 13)) * 60 + number(14, 16)) * 60_000 + number(17, 19) * 1000 + number(20, 23)
}

#[test]
fn a_state_can_be_made_again_from_its_document() {
    let original = tables(1, &changes());
    let again = tables(1, &read(&document(&original)));
    assert_eq!(entries(&original), 32);
    assert_eq!(bytes(&again), bytes(&original));
    let empty = tables(1, &[]);
    assert_eq!(bytes(&tables(1, &read(&document(&empty)))), bytes(&empty));
}

#[test]
fn equal_contents_give_equal_documents_sorted_by_id() {
    let mut reversed = changes();
    reversed.reverse();
    let document = document(&tables(1, &changes()));
    // Another seed is another order in the tables.
    assert_eq!(self::document(&tables(77, &reversed)), document);
    let parsed: Value = serde_json::from_str(&document).unwrap();
    let ids = |list: &str| parsed[list].as_array().unwrap().iter().map(|it| it["node_id"].as_u64().unwrap()).collect();
    let lists: [Vec<u64>; 5] = ["trusted", "pending", "outgoing", "revoked", "floors"].map(ids);
    assert!(lists.iter().all(|ids| ids.is_sorted() && ids.len() >= 2), "{lists:?}");
    assert_eq!((&parsed["version"], &parsed["generation"]), (&1.into(), &3.into()));
}

#[test]
fn times_that_the_form_cannot_express_become_its_ends() {
    for (at, text) in [
        (i64::MIN, "0000-01-01T00:00:00.000Z"),
        (FIRST_MILLIS, "0000-01-01T00:00:00.000Z"),
        (FIRST_MILLIS + 1, "0000-01-01T00:00:00.001Z"),
        (LAST_MILLIS - 1, "9999-12-31T23:59:59.998Z"),
        (LAST_MILLIS, "9999-12-31T23:59:59.999Z"),
        (i64::MAX, "9999-12-31T23:59:59.999Z"),
    ] {
        assert_eq!(time(wall(at)), text);
        assert_eq!(millis(text), at.clamp(FIRST_MILLIS, LAST_MILLIS));
    }
}

/// The example in the document is what is written.
#[test]
fn the_documented_example_is_true() {
    let documented = include_str!("../../../docs/trust_json.md");
    let example = documented.split("```json\n").nth(1).unwrap().split("```").next().unwrap();
    let again = tables(1, &read(example));
    assert_eq!(entries(&again), 15);
    let mut out = Vec::new();
    write(&mut out, 41, &again, Nonces::Written, &mut || ()).unwrap();
    assert_eq!(String::from_utf8(out).unwrap(), example);
}

/// Into a store that says it, a document that says so is no news; anywhere else nobody vouches.
#[test]
fn who_vouched_is_the_stores_word_alone() {
    // A text of a store is filtered; these are not, and would be another's.
    let plain = |change| match change {
        TableChange::Pending(peer, Some(entry)) => {
            let entry = Pending { justification: "please".to_owned(), ..Pending::clone(&entry) };
            TableChange::Pending(peer, Some(Arc::new(entry)))
        }
        change => change,
    };
    let ours = tables(1, &changes().into_iter().map(plain).collect::<Vec<_>>());
    let authentic = |tables: &Tables| tables.sides.pending.iter().filter(|(_, entry)| entry.authentic).count();
    assert_eq!(authentic(&ours), 2);
    let now = Now { wall: wall(1_800_000_000_000), tick: Tick::new(0) };
    let read_into = |before: &Tables, nonces: Nonces| {
        let mut document = Vec::new();
        write(&mut document, 3, &ours, nonces, &mut || ()).unwrap();
        let mut nonce = || Nonce([9; 16]);
        let into = Into {
            before,
            now,
            own_id: None,
            own_key: None,
            limits: Default::default(),
            lifts: &[],
            nonce: &mut nonce,
        };
        super::read(document.as_slice(), into).unwrap().0
    };
    let empty = tables(1, &[]);
    for nonces in [Nonces::Written, Nonces::LeftOut] {
        let same = read_into(&ours, nonces);
        assert!(same.after.diff(&ours).is_empty(), "{nonces:?} {:?}", same.findings);
        let unchanged = same.counts.map(|count| count.unchanged);
        assert_eq!(
            (authentic(&same.after), unchanged, same.findings.len()),
            (2, [3, 3, 3, 3, 2, 2, 1, 1, 4, 4, 4, 2], 0)
        );
        let fresh = read_into(&empty, nonces);
        let told = fresh.findings.iter().filter(|finding| finding.why.contains("`authentic`")).count();
        // One of the three answers a request that is in neither (R-170).
        let unasked = fresh.findings.iter().filter(|finding| finding.skipped && finding.why.contains("an answer to"));
        assert_eq!(unasked.count(), 1);
        assert_eq!((authentic(&fresh.after), told, fresh.after.sides.pending.len()), (0, 2, 2));
    }
}

#[test]
fn a_floor_that_lies_ahead_of_the_clock_says_itself_what_it_was() {
    let clock = now().wall;
    let hour = clock.saturating_add(3_600_000);
    let floor = |seen, before| Floor { key: Some(key(1)), seen, before, spoke_v2: true, ..Floor::EMPTY };
    let told = |floor: Floor| {
        let document: Value =
            serde_json::from_str(&document(&tables(1, &[TableChange::Floor(id(9), Some(floor))]))).unwrap();
        let time = |name| document["floors"][0].get(name).map(|at| wall(millis(at.as_str().unwrap())));
        (time("seen"), time("before"))
    };
    assert_eq!(told(floor(hour, wall(0))), (Some(hour), Some(hour)), "an import moves `seen` back");
    let later = hour.saturating_add(1);
    assert_eq!(told(floor(hour, later)), (Some(hour), Some(later)));
    // The twins: what lies where clocks agree says nothing, or what it said.
    assert_eq!(told(floor(clock, wall(0))), (Some(clock), None));
    assert_eq!(told(floor(clock, hour)), (Some(clock), Some(hour)));
}
