//! Properties of journals: what is written is read back, only the newest group of an unclosed one may be torn, and bytes
//! that no release writes are refused.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "helpers of tests")]

use proptest::prelude::*;

use super::replay::{How, Replay};
use super::tests::{STORE, assert_same, encode, full_tables, id, now};
use super::*;
use crate::map::Value;
use crate::map::mix::Mix;
use crate::peer::TrustRecord;
use crate::tables::Tables;
use crate::tables::{Revocation, RevocationId, TableChange};
use crate::time::WallMillis;

pub(super) const HEAD: JournalHead = JournalHead {
    version: VERSION,
    store: STORE,
    base: 0,
    seq: 1,
    file_seed: 0x1122_3344_5566_7788,
    previous: None,
    file_bytes: 4096,
};

pub(super) fn nothing() -> Tables {
    Tables::new(Mix::new(STORE.seed))
}

/// A journal of these states, the first being the one that it begins at; and where each group begins.
pub(super) fn journal(states: &[Tables], closed: Option<bool>) -> (Vec<u8>, Vec<usize>) {
    let groups: u64 = states.windows(2).map(|pair| group_bytes(&pair[1].diff(&pair[0]))).sum();
    let file_bytes = (GROUPS_AT + groups).next_multiple_of(4096);
    journal_with(JournalHead { file_bytes, ..HEAD }, states, closed)
}

/// Whether nothing stands at this byte, of a journal without a watermark whose last group ends at `end`.
pub(super) fn holds_nothing(at: usize, end: usize) -> bool {
    (128..512).contains(&at) || (576..1024).contains(&at) || at >= end
}

/// The same from the time when journals grew.
fn grown_journal(states: &[Tables], closed: Option<bool>) -> (Vec<u8>, Vec<usize>) {
    journal_with(JournalHead { file_bytes: 0, ..HEAD }, states, closed)
}

fn journal_with(head: JournalHead, states: &[Tables], closed: Option<bool>) -> (Vec<u8>, Vec<usize>) {
    let (tag, mut at) = (head.file_tag(), GROUPS_AT);
    let mut file = head.encode().to_vec();
    file.resize(1024, 0);
    let mut starts = Vec::new();
    for (from, pair) in states.windows(2).enumerate() {
        starts.push(at as usize);
        let from = from as u64;
        at = encode_group::<()>(tag, at, (from, from + 1), &pair[1].diff(&pair[0]), &mut |offset, bytes| {
            assert_eq!(offset, file.len() as u64);
            file.extend_from_slice(bytes);
            Ok(())
        })
        .unwrap();
    }
    file.resize(file.len().next_multiple_of(4096), 0);
    if let Some(continued) = closed {
        let generation = states.len() as u64 - 1;
        let mark = Mark { continued, generation, used_bytes: at, file_bytes: file.len() as u64 };
        file[512..576].copy_from_slice(&mark.encode(tag));
    }
    starts.push(at as usize);
    (file, starts)
}

pub(super) fn replay(file: &[u8], base: &Tables, generation: u64) -> Result<(Ending, Tables), FileError> {
    let mut replay = Replay::new(decode_snapshot(&encode(generation, base), now()).unwrap(), now());
    let ending = replay.journal(file, None)?;
    Ok((ending, replay.finish()?.tables))
}

pub(super) fn granted(tables: &Tables, numbers: core::ops::Range<u32>) -> Tables {
    let changes: Vec<_> = numbers.map(|n| TableChange::Trusted(id(n), Some(TrustRecord::new(id(n), None)))).collect();
    tables.apply(&changes).0
}

pub(super) fn damage(file: &[u8]) -> Damage {
    match replay(file, &nothing(), 0) {
        Err(FileError::Damaged(damage)) => damage,
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_field_of_every_table_is_read_back_and_removed_again() {
    let states = [nothing(), full_tables(), nothing()];
    let (file, starts) = journal(&states, Some(false));
    let (ending, tables) = replay(&file, &nothing(), 0).unwrap();
    assert_same(&tables, &nothing());
    let bytes = *starts.last().unwrap() as u64;
    assert_eq!((ending.how, ending.generation, ending.bytes, ending.newest_from), (How::Closed, 2, bytes, 1));
    let (file, _) = journal(&states[..2], Some(true));
    let (ending, tables) = replay(&file, &nothing(), 0).unwrap();
    assert_eq!(ending.how, How::Continued);
    assert_same(&tables, &full_tables());
    // Groups that the snapshot holds are passed over; a gap is damage.
    let (file, _) = journal(&states, None);
    assert_same(&replay(&file, &full_tables(), 1).unwrap().1, &nothing());
    assert_same(&replay(&file, &full_tables(), 2).unwrap().1, &full_tables());
}

#[test]
fn an_id_that_occurs_twice_in_a_group_is_damage_and_in_two_groups_the_later_one_counts() {
    let (one, other) = (TrustRecord::new(id(7), None).network(1), TrustRecord::new(id(7), None).network(2));
    let (before, after) = (nothing(), granted(&nothing(), 7..8));
    let group = |set: &[(u32, TrustRecord)], gone: Vec<u32>| {
        let set: Vec<_> = set.iter().map(|(id, record)| (*id, Value::of(record))).collect();
        let (file_tag, mut difference) = (HEAD.file_tag(), after.diff(&before));
        difference.trusted.set = set.iter().map(|(id, value)| (*id, value)).collect();
        difference.trusted.gone = gone;
        let mut file = HEAD.encode().to_vec();
        file.resize(1024, 0);
        let mut keep = |_, bytes: &[u8]| {
            file.extend_from_slice(bytes);
            Ok::<_, ()>(())
        };
        encode_group(file_tag, GROUPS_AT, (0, 1), &difference, &mut keep).unwrap();
        file.resize(4096, 0);
        file
    };
    assert_eq!(damage(&group(&[(7, one), (7, other)], Vec::new())).offset, GROUPS_AT);
    assert_eq!(damage(&group(&[(7, one)], vec![7])).offset, GROUPS_AT);
    let once = group(&[(7, one)], vec![8]);
    assert_eq!(replay(&once, &before, 0).unwrap().1.trusted.get(id(7)), Some(one));
    let with = |record| before.apply(&[TableChange::Trusted(id(7), Some(record))]).0;
    let (file, _) = journal(&[nothing(), with(one), with(other)], None);
    assert_same(&replay(&file, &before, 0).unwrap().1, &with(other));
}

/// Written by hand in the document, so that neither can change alone. Lines of zeros are left out there.
#[test]
fn the_example_of_the_document_is_what_is_written() {
    let changes = [
        TableChange::Trusted(id(7), Some(TrustRecord::new(id(7), None).network(3))),
        TableChange::Revoked(id(9), Some(Revocation::new(WallMillis::new(1_772_532_000_456), RevocationId::new(5)))),
    ];
    let (file, _) = journal(&[nothing(), nothing().apply(&changes).0], Some(false));
    let document = include_str!("../../../docs/format.md");
    let example = document.split("<!-- journal example -->").nth(1).unwrap();
    let mut bytes = vec![0; 4096];
    for (at, rest) in example.lines().filter_map(|line| line.split_once(": ")) {
        let at = usize::from_str_radix(at, 16).unwrap();
        for (index, hex) in rest.split("  ").next().unwrap().split(' ').enumerate() {
            bytes[at + index] = u8::from_str_radix(hex, 16).unwrap();
        }
    }
    let written = file.chunks(16).enumerate().filter(|(_, line)| line.iter().any(|byte| *byte != 0));
    let line = |(line, bytes): (usize, &[u8])| {
        let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{:04x}: {}", line * 16, hex.join(" "))
    };
    assert!(bytes == file, "the file is\n{}", written.map(line).collect::<Vec<_>>().join("\n"));
    let (ending, tables) = replay(&bytes, &nothing(), 0).unwrap();
    assert_eq!((ending.how, ending.generation), (How::Closed, 1));
    assert_same(&tables, &nothing().apply(&changes).0);
}

#[test]
fn a_group_of_many_blocks_counts_as_a_whole_or_not_at_all() {
    let states = [nothing(), granted(&nothing(), 1..3), granted(&nothing(), 1..20_000)];
    let (file, starts) = journal(&states, None);
    assert!(file.len() > 4 * 65_536);
    assert_same(&replay(&file, &nothing(), 0).unwrap().1, &states[2]);
    for at in (starts[1]..starts[2]).step_by(9973) {
        let mut torn = file.clone();
        torn[at] ^= 1;
        let (ending, tables) = replay(&torn, &nothing(), 0).unwrap();
        assert!(matches!(ending.how, How::Torn(damage) if damage.offset <= at as u64));
        assert_same(&tables, &states[1]);
    }
}

#[test]
fn only_the_newest_group_may_be_torn() {
    let states: Vec<Tables> = (1..5).map(|n| granted(&nothing(), 1..n)).collect();
    let (file, starts) = journal(&states, None);
    for at in starts[0]..file.len() {
        let mut bad = file.clone();
        bad[at] ^= 0x40;
        if at < starts[2] {
            assert!(damage(&bad).offset <= at as u64, "byte {at}");
        } else {
            let (ending, tables) = replay(&bad, &nothing(), 0).unwrap();
            assert!(matches!(ending.how, How::Torn(_)), "byte {at}");
            assert_same(&tables, &states[if at < starts[3] { 2 } else { 3 }]);
        }
    }
    // The commit of the torn group itself may have arrived; one that comes later may not.
    assert!(
        damage(&{
            let mut bad = file.clone();
            bad[starts[1]] ^= 1;
            bad
        })
        .reason
        .contains("a later group follows")
    );
    // Nor may any block behind the torn group's own commit, though the later group's commit is spoilt as well.
    let mut bad = file.clone();
    bad[starts[1]] ^= 1;
    bad[starts[3] - 1] ^= 1;
    assert!(damage(&bad).reason.contains(&format!("a later group follows at byte {}", starts[2])));
    let (closed, _) = journal(&states, Some(false));
    for at in 0..closed.len() {
        let mut bad = closed.clone();
        bad[at] ^= 0x08;
        if holds_nothing(at, starts[3]) {
            let (ending, tables) = replay(&bad, &nothing(), 0).unwrap();
            assert_eq!((ending.how, ending.spoilt), (How::Closed, Some(at as u64)));
            assert_same(&tables, &states[3]);
        } else {
            assert!(damage(&bad).offset <= at as u64, "byte {at}");
        }
    }
}

#[test]
fn a_journal_has_the_length_that_it_was_made_with_or_is_refused() {
    let states: Vec<Tables> = (1..150).map(|n| granted(&nothing(), 1..n)).collect();
    for closed in [None, Some(false), Some(true)] {
        let (file, starts) = journal(&states, closed);
        assert!(starts.len() == 149 && file.len() == 12_288, "groups in several pages");
        let longer = [&file[..], &[0; 4096]].concat();
        for length in (0..file.len()).chain([file.len() + 1, longer.len()]) {
            assert!(damage(&longer[..length]).offset <= length as u64, "{closed:?}: {length} bytes");
        }
        assert_same(&replay(&file, &nothing(), 0).unwrap().1, states.last().unwrap());
    }
}

#[test]
fn a_group_of_another_journal_does_not_pass() {
    let states = [nothing(), granted(&nothing(), 1..3)];
    let (file, starts) = journal(&states, None);
    let others = [
        JournalHead { file_seed: HEAD.file_seed + 1, ..HEAD },
        JournalHead { seq: 2, ..HEAD },
        JournalHead { file_bytes: 8192, ..HEAD },
        JournalHead { version: VERSION, store: StoreId { seed: STORE.seed ^ 1, ..STORE }, ..HEAD },
    ];
    for head in others {
        let mut other = journal_with(head, &states, None).0;
        other.resize(8192, 0);
        let mut mixed = file.clone();
        mixed[starts[0]..starts[1]].copy_from_slice(&other[starts[0]..starts[1]]);
        assert_eq!(damage(&mixed).offset, starts[0] as u64, "{head:?}");
    }
    // And the twin: of one with equal headers it is the same group.
    assert_eq!(journal(&states, None).0, file);
}

/// Written before journals had a length: what they need not notice is what a crash could do to them while they grew.
#[test]
fn a_journal_that_grew_may_end_behind_the_page_in_which_its_newest_group_begins() {
    let states: Vec<Tables> = (1..150).map(|n| granted(&nothing(), 1..n)).collect();
    let (file, starts) = grown_journal(&states, None);
    assert_same(&replay(&file, &nothing(), 0).unwrap().1, states.last().unwrap());
    for length in 0..file.len() {
        let whole = starts.iter().skip(1).filter(|end| **end <= length).count();
        match replay(&file[..length], &nothing(), 0) {
            Ok((_, tables)) => {
                assert!(length >= starts[whole - 1].next_multiple_of(4096), "{length}");
                assert_same(&tables, &states[whole]);
            }
            Err(_) => assert!(whole == 0 || length < starts[whole - 1].next_multiple_of(4096), "{length}"),
        }
    }
    let (file, _) = grown_journal(&states, Some(false));
    for length in 0..file.len() {
        assert!(damage(&file[..length]).offset <= length as u64, "{length}");
    }
    assert_same(&replay(&file, &nothing(), 0).unwrap().1, states.last().unwrap());
}

#[test]
fn a_mark_that_contradicts_its_journal_is_damage() {
    let states = [nothing(), granted(&nothing(), 1..3)];
    let (file, starts) = journal(&states, Some(false));
    let used_bytes = starts[1] as u64;
    let right = Mark { continued: false, generation: 1, used_bytes, file_bytes: file.len() as u64 };
    let with = |mark: Mark, tag| {
        let mut forged = file.clone();
        forged[512..576].copy_from_slice(&mark.encode(tag));
        forged
    };
    let tag = HEAD.file_tag();
    assert!(replay(&with(right, tag), &nothing(), 0).is_ok());
    assert_eq!(damage(&with(right, tag + 1)).reason, "the closing mark does not match");
    assert_eq!(damage(&with(Mark { generation: 2, ..right }, tag)).reason, "the closing mark names another generation");
    assert_eq!(damage(&with(Mark { used_bytes: used_bytes - 1, ..right }, tag)).offset, used_bytes - 37, "its commit");
    assert_eq!(damage(&with(Mark { used_bytes: used_bytes + 8, ..right }, tag)).offset, used_bytes);
    assert_eq!(damage(&with(Mark { file_bytes: 5000, ..right }, tag)).offset, 4096);
    assert_eq!(damage(&with(Mark { file_bytes: 0, ..right }, tag)).offset, 0);
    let mut replay = Replay::new(decode_snapshot(&encode(0, &nothing()), now()).unwrap(), now());
    assert!(matches!(replay.journal(&file, Some(used_bytes + 1)), Err(FileError::Damaged(it)) if it.offset == 512));
}

#[test]
fn a_mark_that_was_cut_short_is_as_none_and_hides_nothing() {
    let states = [nothing(), granted(&nothing(), 1..3), granted(&nothing(), 1..5)];
    for continued in [false, true] {
        let (whole, starts) = journal(&states, Some(continued));
        let (newest, end) = (starts[1], starts[2]);
        assert_ne!(whole[575], 0, "else 63 bytes of it would be all");
        let cut_to = |bytes: usize| {
            let mut file = whole.clone();
            file[512 + bytes..576].fill(0);
            file
        };
        for bytes in 0..64 {
            let (ending, tables) = replay(&cut_to(bytes), &nothing(), 0).unwrap();
            let says_so = continued && bytes > 8;
            assert_eq!(ending.how, if says_so { How::Continued } else { How::Open }, "{bytes}");
            assert_eq!((ending.generation, ending.bytes), (2, end as u64));
            assert_same(&tables, &states[2]);
            // Whether the one that goes on from it holds the newest group again or not.
            for (counted, generation) in [(newest, 1), (end, 2)] {
                let mut replay = Replay::new(decode_snapshot(&encode(0, &nothing()), now()).unwrap(), now());
                assert_eq!(replay.journal(&cut_to(bytes), Some(counted as u64)).unwrap().generation, generation);
            }
        }
        for bytes in 1..64 {
            // What there is of it is right. (One byte alone is no mark, whatever it is.)
            for bit in if bytes > 1 { 0..bytes * 8 } else { 0..0 } {
                let mut file = cut_to(bytes);
                file[512 + bit / 8] ^= 1 << (bit % 8);
                // Its last bits may as well not have been written.
                if file[512 + bit / 8..512 + bytes].iter().any(|byte| *byte != 0) {
                    assert_eq!(damage(&file).offset, 512, "{bytes}, bit {bit}");
                }
            }
            // Nothing stands behind what it marks, and what it names is there.
            let mut more = cut_to(bytes);
            more[end + 7] = 1;
            assert_eq!(damage(&more).offset, (end + 7) as u64);
            let mut less = cut_to(bytes);
            less[newest..].fill(0);
            assert_eq!(replay(&less, &nothing(), 0).is_err(), bytes > 16, "{bytes}");
            let mut torn = cut_to(bytes);
            torn[end - 1] ^= 1;
            assert!(damage(&torn).offset <= end as u64);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn differences_written_and_read_come_to_the_same_state(
        steps in proptest::collection::vec(proptest::collection::vec((1..40u32, 0..3u8, any::<i64>()), 1..8), 1..12),
    ) {
        let mut states = vec![nothing()];
        for step in steps {
            let mut next = states.last().unwrap().clone();
            for (n, what, at) in step {
                let at = WallMillis::new(at);
                let record = (what == 0).then(|| TrustRecord::new(id(n), None).approved_at(at));
                let revoked = (what == 1).then(|| Revocation::new(at, RevocationId::new(u64::from(n))));
                next = next.apply(&[TableChange::Trusted(id(n), record), TableChange::Revoked(id(n), revoked)]).0;
            }
            states.push(next);
        }
        let (file, _) = journal(&states, None);
        for (generation, base) in states.iter().enumerate() {
            assert_same(&replay(&file, base, generation as u64).unwrap().1, states.last().unwrap());
        }
    }

    #[test]
    fn arbitrary_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..6000)) {
        prop_assert!(replay(&bytes, &nothing(), 0).is_err());
        let mut forged = HEAD.encode().to_vec();
        forged.resize(1024, 0);
        forged.extend_from_slice(&bytes);
        prop_assert!(replay(&forged, &nothing(), 0).is_err());
    }
}
