//! What a watermark makes known: damage in front of it is damage, and it hides nothing behind it. One that is not whole is none.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "helpers of tests")]

use super::journal_tests::{HEAD, damage, granted, holds_nothing, journal, nothing, replay};
use super::replay::{How, Replay};
use super::tests::{assert_same, encode, now};
use super::*;
use crate::tables::Tables;

/// A journal of four groups, its states, where its groups begin and the last ends, and its watermark behind the third.
fn marked() -> (Vec<u8>, Vec<Tables>, Vec<usize>, Watermark) {
    let states: Vec<Tables> = (1..6).map(|n| granted(&nothing(), 1..n)).collect();
    let (file, starts) = journal(&states, None);
    let mark = Watermark { generation: 3, used_bytes: starts[3] as u64 };
    (with(&file, mark), states, starts, mark)
}

fn with(file: &[u8], mark: Watermark) -> Vec<u8> {
    let mut file = file.to_vec();
    file[576..640].copy_from_slice(&mark.encode(HEAD.file_tag()));
    file
}

#[test]
fn damage_in_front_of_a_watermark_is_told_from_a_torn_group() {
    let (file, states, starts, mark) = marked();
    let (ending, tables) = replay(&file, &nothing(), 0).unwrap();
    assert_same(&tables, &states[4]);
    assert_eq!((ending.how, ending.settled, ending.spoilt), (How::Open, mark.used_bytes, None));
    // Without the fourth group the third is the newest.
    let mut idle = file.clone();
    idle[starts[3]..].fill(0);
    for (whole, generation) in [(&file, 4), (&idle, 3)] {
        for at in 0..file.len() {
            let mut bad = whole.clone();
            bad[at] ^= 1 << (at % 8);
            // A byte alone is no closing mark that was begun.
            let is_free = (512..640).contains(&at) || holds_nothing(at, starts[3]);
            if !is_free {
                let found = damage(&bad);
                assert!(found.offset <= at as u64, "byte {at}: {found:?}");
                continue;
            }
            let (ending, tables) = replay(&bad, &nothing(), 0).unwrap();
            let kept = if generation == 4 && (starts[3]..starts[4]).contains(&at) { 3 } else { generation };
            assert_eq!(ending.generation, kept as u64, "byte {at}");
            assert_same(&tables, &states[kept]);
            let is_spoilt = at < starts[3];
            let named = if (576..640).contains(&at) { 576 } else { at };
            assert_eq!(ending.spoilt, is_spoilt.then_some(named as u64), "byte {at}");
        }
    }
    // Also where all of it is gone, which looks like a group that was never written.
    let mut lost = file.clone();
    lost[starts[2]..].fill(0);
    assert_eq!(damage(&lost).offset, starts[2] as u64);
    lost[576..640].fill(0);
    assert_same(&replay(&lost, &nothing(), 0).unwrap().1, &states[2]);
}

#[test]
fn a_watermark_that_was_cut_short_anywhere_is_none() {
    let (file, states, starts, mark) = marked();
    let later = with(&file, Watermark { generation: 4, used_bytes: starts[4] as u64 });
    assert_eq!(replay(&later, &nothing(), 0).unwrap().0.settled, starts[4] as u64);
    for cut in 0..64 {
        // Over zeros, and over the one before.
        for before in [&vec![0; 4096], &file] {
            let mut torn = later.clone();
            torn[576 + cut..640].copy_from_slice(&before[576 + cut..640]);
            let (ending, tables) = replay(&torn, &nothing(), 0).unwrap();
            assert_same(&tables, &states[4]);
            let whole = [starts[1] as u64, mark.used_bytes, starts[4] as u64];
            assert!(whole.contains(&ending.settled) && ending.how == How::Open, "{cut}: {ending:?}");
            // Nor does it hide what is noticed without one: a byte in front of a later group.
            torn[starts[1]] ^= 1;
            assert!(damage(&torn).offset <= starts[1] as u64);
        }
    }
}

#[test]
fn a_watermark_that_contradicts_its_journal_is_damage() {
    let (file, _, starts, mark) = marked();
    for wrong in [
        Watermark { generation: 2, ..mark },
        Watermark { generation: 4, ..mark },
        Watermark { used_bytes: mark.used_bytes - 1, ..mark },
        Watermark { used_bytes: mark.used_bytes + 1, ..mark },
    ] {
        assert_eq!(
            (damage(&with(&file, wrong)).offset, &*damage(&with(&file, wrong)).reason),
            (576, "the watermark does not match")
        );
    }
    let beyond = Watermark { generation: 5, used_bytes: starts[4] as u64 + 40 };
    assert_eq!(damage(&with(&file, beyond)).offset, starts[4] as u64);
    // Of another journal, or of a release that had none, it is none.
    let mut other = file.clone();
    other[576..640].copy_from_slice(&mark.encode(HEAD.file_tag() ^ 1));
    assert_eq!(replay(&other, &nothing(), 0).unwrap().0.settled, starts[1] as u64);
    let (closed, _) = journal(&(1..4).map(|n| granted(&nothing(), 1..n)).collect::<Vec<_>>(), Some(false));
    assert_eq!(damage(&with(&closed, mark)).offset, 576, "it names more than the closing mark does");
}

/// A recovery that saw no watermark writes the newest group again, in the journal that goes on from here.
#[test]
fn what_the_next_journal_does_not_count_a_watermark_may_tell_of() {
    let (file, states, starts, mark) = marked();
    let mut idle = file.clone();
    idle[starts[3]..].fill(0);
    for (counted, generation) in [(starts[2], 2), (starts[3], 3)] {
        let mut replay = Replay::new(decode_snapshot(&encode(0, &nothing()), now()).unwrap(), now());
        let ending = replay.journal(&idle, Some(counted as u64)).unwrap();
        assert_eq!((ending.generation, ending.settled), (generation, counted as u64));
        assert_same(&replay.finish().unwrap().tables, &states[generation as usize]);
    }
    assert_eq!(mark.used_bytes, starts[3] as u64);
}

/// As the document has it.
#[test]
fn the_watermark_of_the_document_is_what_is_written() {
    let document = include_str!("../../../docs/format.md");
    let example = document.split("<!-- watermark example -->").nth(1).unwrap();
    let mark = Watermark { generation: 1, used_bytes: 0x463 }.encode(HEAD.file_tag());
    let written: Vec<String> = mark
        .chunks(16)
        .zip(0x24u32..)
        .map(|(line, at)| {
            let hex: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{:04x}: {}", at * 16, hex.join(" "))
        })
        .collect();
    let lines = example.lines().filter(|line| line.contains(": ")).map(|line| line.split("  ").next().unwrap());
    assert_eq!(lines.collect::<Vec<_>>(), written);
}
