//! Properties of the bytes: what is written is read back, equal contents are equal bytes, and every other byte string is
//! refused. The example of `docs/format.md` is the one that is encoded here.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "helpers of tests")]

use std::net::IpAddr;
use std::sync::Arc;

use proptest::prelude::*;

use super::blocks::{BLOCK_BYTES_MAX, block_checksum};
use super::snapshot::file_tag;
use super::*;
use crate::map::mix::Mix;
use crate::peer::Kind as MessageKind;
use crate::peer::{NodeId, PublicKey, TrustRecord};
use crate::tables::Tables;
use crate::tables::table::Table as _;
use crate::tables::{
    Floor, Nonce, OtherKey, Outgoing, Owed, Pending, PendingKind, Refusal, RefusedRequest, Revocation, RevocationId,
    Source, Succession, TableChange, Void,
};
use crate::testing::model::PlainView;
use crate::time::{Now, Tick, WallMillis};

pub(super) const STORE: StoreId =
    StoreId { id: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15], seed: 0x0123_4567_89ab_cdef };

fn key(seed: u8) -> PublicKey {
    PublicKey::from_bytes(ed25519_dalek::SigningKey::from_bytes(&[seed; 32]).verifying_key().to_bytes()).unwrap()
}

pub(super) fn id(number: u32) -> NodeId {
    NodeId::new(number).unwrap()
}

pub(super) fn now() -> Now {
    Now { wall: WallMillis::new(1_772_532_000_000), tick: Tick::new(5_000) }
}

pub(super) fn encode(generation: u64, tables: &Tables) -> Vec<u8> {
    let mut file = Vec::new();
    let bytes = encode_snapshot::<()>(STORE, generation, tables, &mut |offset, bytes| {
        let (offset, end) = (offset as usize, offset as usize + bytes.len());
        file.resize(file.len().max(end), 0);
        file[offset..end].copy_from_slice(bytes);
        Ok(())
    });
    assert_eq!(bytes, Ok(file.len() as u64));
    file
}

fn other_key(seed: u8) -> OtherKey {
    OtherKey {
        key: key(seed),
        nonce: Some(Nonce([seed; 16])),
        stamp: WallMillis::new(1),
        source: Source::Relay(id(9)),
        first_seen: WallMillis::new(2),
        kind: PendingKind::AnsweredUnvouched,
    }
}

/// One entry of every table, with every field set.
pub(super) fn full_tables() -> Tables {
    let pending = Pending {
        key: key(1),
        nonce: Some(Nonce([9; 16])),
        stamp: WallMillis::new(1_772_531_999_000),
        justification: "weather feed".into(),
        received_at: WallMillis::new(1_772_531_999_500),
        received_tick: Tick::new(4_500),
        source: Source::Address(IpAddr::from([10, 0, 0, 1])),
        authentic: true,
        conflicts: 2,
        kind: PendingKind::AnsweredUnvouched,
        others: vec![other_key(5), other_key(6)],
        proven_by: Some(key(7)),
        number: 0x0102_0304_0506_0708,
    };
    let outgoing = Outgoing {
        sent_at: WallMillis::new(1_772_531_000_000),
        sent_tick: Tick::new(-995_000),
        nonce: Nonce([8; 16]),
        expected_key: Some(key(2)),
        justification: "please".into(),
        lift: Some(RevocationId::new(77)),
        relayed: true,
        refused: Some(Refusal {
            at: WallMillis::new(1_772_531_999_900),
            tick: Tick::new(4_900),
            reason: "not you".into(),
            key: key(8),
            authentic: true,
        }),
    };
    let floor = Floor {
        key: Some(key(3)),
        seen: WallMillis::new(77),
        before: WallMillis::new(78),
        sent: WallMillis::new(99),
        reserved: WallMillis::new(99),
        spoke_v2: true,
    };
    let owed = Owed {
        kind: MessageKind::Revoke,
        nonce: Nonce([7; 16]),
        answers: Some(Nonce([6; 16])),
        reason: "no".into(),
        since: WallMillis::new(1_772_000_000_001),
        since_tick: Tick::new(-531_994_999),
        for_key: Some(key(15)),
    };
    let record = TrustRecord::new(id(7), key(4)).approved_at(WallMillis::new(-5)).mutual(true).network(513);
    let other = Pending { source: Source::Node(id(3)), nonce: None, kind: PendingKind::Request, ..pending.clone() };
    let third = Pending { source: Source::Address(IpAddr::from([7; 16])), ..pending.clone() };
    let changes = [
        TableChange::Trusted(id(7), Some(record)),
        TableChange::Trusted(id(6), Some(TrustRecord::new(id(6), None))),
        TableChange::Pending(id(u32::MAX), Some(Arc::new(pending))),
        TableChange::Pending(id(11), Some(Arc::new(other))),
        TableChange::Pending(id(12), Some(Arc::new(third))),
        TableChange::Outgoing(id(8), Some(Arc::new(outgoing))),
        TableChange::Revoked(id(9), Some(Revocation::new(WallMillis::new(1_772_000_000_000), RevocationId::new(5)))),
        TableChange::Floor(id(7), Some(floor)),
        TableChange::RevokedKey(key(9), Some(Revocation::new(WallMillis::new(1), RevocationId::new(2)))),
        TableChange::Ignored(id(13), Some(WallMillis::new(3))),
        TableChange::IgnoredKey(key(10), Some(WallMillis::new(4))),
        TableChange::Refused(
            id(14),
            Some([RefusedRequest { key: key(11), stamp: WallMillis::new(5), at: WallMillis::new(6) }].into()),
        ),
        TableChange::Owed(id(15), Some(Arc::new(owed))),
        TableChange::Successors(
            id(17),
            Some(
                [
                    Succession { replaced: true, ..Succession::new(key(12), key(13)) },
                    Succession { void: Some(Void::Revoked), ..Succession::new(key(13), key(14)) },
                    Succession { void: Some(Void::Refused), ..Succession::new(key(14), key(14)) },
                ]
                .into(),
            ),
        ),
        TableChange::Revision(id(16), Some(u64::MAX)),
    ];
    Tables::new(Mix::new(STORE.seed)).apply(&changes).0
}

pub(super) fn assert_same(a: &Tables, b: &Tables) {
    assert_eq!(PlainView::of(a), PlainView::of(b));
}

#[test]
fn every_field_of_every_table_is_read_back() {
    let tables = full_tables();
    let snapshot = decode_snapshot(&encode(42, &tables), now()).unwrap();
    assert_eq!((snapshot.header.generation, snapshot.header.store), (42, STORE));
    assert_same(&snapshot.tables, &tables);
}

/// Written by hand in the document, so that neither can change alone.
#[test]
fn the_example_of_the_document_is_what_is_written() {
    let record = TrustRecord::new(id(7), key(0xaa)).approved_at(WallMillis::new(1_772_532_000_123)).mutual(true);
    let changes = [
        TableChange::Trusted(id(7), Some(record.network(3))),
        TableChange::Revoked(id(9), Some(Revocation::new(WallMillis::new(1_772_532_000_456), RevocationId::new(5)))),
    ];
    let (tables, _) = Tables::new(Mix::new(STORE.seed)).apply(&changes);
    let file = encode(3, &tables);
    let document = include_str!("../../../docs/format.md");
    let example = document.split("<!-- example -->").nth(1).unwrap();
    let hex: String = example
        .lines()
        .filter_map(|line| line.split_once(": ").map(|(_, rest)| rest.split("  ").next().unwrap_or_default()))
        .flat_map(|line| line.chars().filter(|c| c.is_ascii_hexdigit()))
        .collect();
    let bytes: Vec<u8> =
        (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect();
    let lines: Vec<String> = file
        .chunks(16)
        .enumerate()
        .map(|(line, bytes)| {
            let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{:04x}: {}", line * 16, hex.join(" "))
        })
        .collect();
    assert_eq!(bytes, file, "the file is\n{}", lines.join("\n"));
    assert_same(&decode_snapshot(&bytes, now()).unwrap().tables, &tables);
}

#[test]
fn every_flipped_bit_is_damage() {
    let file = encode(42, &full_tables());
    for bit in 0..file.len() * 8 {
        let mut flipped = file.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        match decode_snapshot(&flipped, now()) {
            Err(FileError::Damaged(damage)) => assert!(damage.offset <= (bit / 8) as u64, "bit {bit}: {damage:?}"),
            other => panic!("bit {bit}: {other:?}"),
        }
    }
}

#[test]
fn every_other_length_is_damage() {
    let file = encode(42, &full_tables());
    for len in 0..file.len() {
        assert!(matches!(decode_snapshot(&file[..len], now()), Err(FileError::Damaged(_))), "cut to {len}");
    }
    for extra in [0u8, 0xff] {
        let mut longer = file.clone();
        longer.push(extra);
        assert!(matches!(decode_snapshot(&longer, now()), Err(FileError::Damaged(_))));
    }
    assert!(decode_snapshot(&file, now()).is_ok());
}

/// Puts a block's checksum right after its payload was changed, and the header's: what a liar would do.
fn forge(file: &mut [u8], block_at: usize, change: impl FnOnce(&mut [u8])) {
    let bytes = u32::from_le_bytes(file[block_at..block_at + 4].try_into().unwrap()) as usize;
    let payload = &mut file[block_at + 8..block_at + 8 + bytes];
    change(payload);
    let checksum = block_checksum(file_tag(STORE, 42), block_at as u64, payload);
    file[block_at + 4..block_at + 8].copy_from_slice(&checksum.to_le_bytes());
}

#[test]
fn contents_that_no_release_writes_are_refused_though_every_checksum_holds() {
    let file = encode(42, &full_tables());
    let reason = |change: &dyn Fn(&mut [u8])| {
        let mut forged = file.clone();
        forge(&mut forged, HEADER_BYTES, change);
        match decode_snapshot(&forged, now()) {
            Err(FileError::Damaged(damage)) => damage.reason,
            other => panic!("{other:?}"),
        }
    };
    // Which of the two records comes first depends on the seed; both begin with their id.
    assert_eq!(reason(&|payload| payload[5..9].fill(0)), "an entry with node id 0");
    assert_eq!(reason(&|payload| payload[1..5].fill(0xff)), "a block holds something that is no entry");
    assert_eq!(reason(&|payload| payload[1..5].fill(0)), "a block's count does not match its entries");
    assert_eq!(reason(&|payload| payload[0] = 77), "the closing block does not match what came before");
    assert_eq!(reason(&|payload| payload[9] = 2), "a block holds something that is no entry");
    let weak = |payload: &mut [u8]| {
        let at = payload.windows(32).position(|window| window == key(4).as_bytes()).unwrap();
        payload[at..at + 32].copy_from_slice(&[&[1][..], &[0; 31]].concat());
    };
    assert_eq!(reason(&weak), "a key of small order");
    let swapped = |payload: &mut [u8]| {
        let (first, second) = if payload[9] == 0 { (16, 48) } else { (48, 16) };
        let entries = payload[5..].to_vec();
        assert_eq!(entries.len(), first + second);
        payload[5..5 + second].copy_from_slice(&entries[first..]);
        payload[5 + second..].copy_from_slice(&entries[..first]);
    };
    assert_eq!(reason(&swapped), "entries out of order");
    // And the twin: a change to something that is still a record is read as that record.
    let mut forged = file.clone();
    forge(&mut forged, HEADER_BYTES, |payload| *payload.last_mut().unwrap() ^= 1);
    assert!(decode_snapshot(&forged, now()).is_ok());
}

#[test]
fn a_peer_that_is_both_trusted_and_revoked_is_refused() {
    let changes = [
        TableChange::Trusted(id(7), Some(TrustRecord::new(id(7), None))),
        TableChange::Revoked(id(7), Some(Revocation::new(WallMillis::new(1), RevocationId::new(5)))),
    ];
    let (tables, _) = Tables::new(Mix::new(STORE.seed)).apply(&changes);
    let refused = decode_snapshot(&encode(1, &tables), now());
    assert!(matches!(refused, Err(FileError::Damaged(damage)) if damage.reason.contains("both trusted and revoked")));
}

#[test]
fn a_newer_version_is_named_only_if_its_checksum_holds() {
    let mut header =
        Header { version: STATE_VERSION, kind: Kind::Genesis, store: STORE, generation: 0, file_bytes: 64 }.encode();
    header[8] = 4;
    assert!(matches!(Header::decode(&header, Kind::Genesis), Err(FileError::Damaged(_))));
    let checksum = crc32fast::hash(&header[..60]);
    header[60..].copy_from_slice(&checksum.to_le_bytes());
    assert_eq!(Header::decode(&header, Kind::Genesis), Err(FileError::Newer(4)));
}

#[test]
fn a_snapshot_is_no_mark_and_a_mark_is_no_snapshot() {
    let mark =
        Header { version: STATE_VERSION, kind: Kind::Genesis, store: STORE, generation: 0, file_bytes: 64 }.encode();
    assert!(Header::decode(&mark, Kind::Genesis).is_ok());
    assert!(matches!(decode_snapshot(&mark, now()), Err(FileError::Damaged(damage)) if damage.offset == 12));
    assert!(matches!(Header::decode(&encode(1, &full_tables()), Kind::Genesis), Err(FileError::Damaged(_))));
}

#[test]
fn times_become_ages_that_are_never_negative() {
    let later = |millis| Now { wall: WallMillis::new(millis), tick: Tick::new(0) };
    let file = encode(42, &full_tables());
    let age = |at: Now| {
        let tables = decode_snapshot(&file, at).unwrap().tables;
        let entry = tables.sides.outgoing.get(id(8)).unwrap().clone();
        (entry.sent_at.as_millis(), -entry.sent_tick.as_millis())
    };
    assert_eq!(age(later(1_772_531_000_000 + 60_000)), (1_772_531_000_000, 60_000));
    // The clock went back by more than the entry's age: it counts as new.
    assert_eq!(age(later(1_000)), (1_000, 0));
}

/// A block ends with the last entry that fits, and tables of many blocks are read back whole.
#[test]
fn many_blocks_are_written_and_read() {
    let changes: Vec<_> = (1..=20_000)
        .map(|n| TableChange::Trusted(id(n), Some(TrustRecord::new(id(n), (n % 2 == 0).then(|| key(5))))))
        .collect();
    let (tables, _) = Tables::new(Mix::new(STORE.seed)).apply(&changes);
    let file = encode(7, &tables);
    assert!(file.len() > 5 * BLOCK_BYTES_MAX);
    assert_same(&decode_snapshot(&file, now()).unwrap().tables, &tables);
    // Two whole blocks exchanged: each is intact, and both are noticed.
    let bytes = u32::from_le_bytes(file[64..68].try_into().unwrap()) as usize + 8;
    let next = u32::from_le_bytes(file[64 + bytes..68 + bytes].try_into().unwrap()) as usize + 8;
    let mut exchanged = file.clone();
    exchanged[64..64 + next].copy_from_slice(&file[64 + bytes..64 + bytes + next]);
    exchanged[64 + next..64 + next + bytes].copy_from_slice(&file[64..64 + bytes]);
    assert!(matches!(decode_snapshot(&exchanged, now()), Err(FileError::Damaged(damage)) if damage.offset == 64));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn equal_contents_are_equal_bytes_whatever_the_history(
        history in proptest::collection::vec((1..50u32, any::<bool>(), any::<i64>()), 0..200),
    ) {
        let record = |n, at| TrustRecord::new(id(n), None).approved_at(WallMillis::new(at));
        let mut long = Tables::new(Mix::new(STORE.seed));
        let mut contents = std::collections::BTreeMap::new();
        for (n, grants, at) in history {
            let value = grants.then(|| record(n, at));
            long = long.apply(&[TableChange::Trusted(id(n), value)]).0;
            match value {
                Some(value) => drop(contents.insert(n, value)),
                None => drop(contents.remove(&n)),
            }
        }
        let changes: Vec<_> = contents.values().map(|r| TableChange::Trusted(r.node_id, Some(*r))).collect();
        let short = Tables::new(Mix::new(STORE.seed)).apply(&changes).0;
        prop_assert_eq!(encode(9, &long), encode(9, &short));
    }

    #[test]
    fn arbitrary_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400), magic: bool) {
        let mut bytes = bytes;
        if magic && bytes.len() >= 8 {
            bytes[..8].copy_from_slice(&MAGIC);
        }
        prop_assert!(decode_snapshot(&bytes, now()).is_err());
    }
}
