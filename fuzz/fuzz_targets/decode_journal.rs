//! The journal decoder never panics and never allocates beyond its input, whatever it is given: raw bytes, and good
//! journals tampered with behind checksums that hold. Without forged checksums a change is noticed, or the newest group of
//! a journal without a closing mark is cut off (or more, if several places were changed), or nothing that counts was changed;
//! of a closed one nothing is changed unnoticed but zeros at the end of its mark.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use trustkeep::testing::doors::{JournalEnd, decode_journal, fix_checksums};

#[derive(Arbitrary, Debug)]
enum Input<'a> {
    Raw(&'a [u8], Option<u16>),
    Tampered { good: u8, edits: Vec<(u16, u8)>, cut: Option<u16>, behind: &'a [u8], forged: bool, counted: Option<u16> },
}

/// With a watermark, and one change later; closed, killed, continued; and from the time when journals grew, killed and closed.
const GOOD: [&[u8]; 7] = [
    include_bytes!("../../tests/fixtures/v3/idle/journal-0000000000000001.tkj"),
    include_bytes!("../../tests/fixtures/v3/idle_killed/journal-0000000000000001.tkj"),
    include_bytes!("../../tests/fixtures/v1/full/journal-0000000000000002.tkj"),
    include_bytes!("../../tests/fixtures/v1/full_killed/journal-0000000000000004.tkj"),
    include_bytes!("../../tests/fixtures/v1/full/journal-0000000000000001.tkj"),
    include_bytes!("../../tests/fixtures/v1/killed/journal-0000000000000003.tkj"),
    include_bytes!("../../tests/fixtures/v1/closed/journal-0000000000000001.tkj"),
];

fuzz_target!(|input: Input<'_>| {
    match input {
        Input::Raw(bytes, counted) => _ = check(bytes, counted),
        Input::Tampered { good, edits, cut, behind, forged, counted } => {
            let good = GOOD[usize::from(good) % GOOD.len()];
            let mut bytes = good.to_vec();
            let single = edits.len() <= 1;
            for (at, value) in edits {
                let at = usize::from(at) % bytes.len();
                bytes[at] = value;
            }
            bytes.truncate(cut.map_or(usize::MAX, usize::from));
            bytes.extend_from_slice(behind);
            if forged {
                fix_checksums(&mut bytes);
                let _ = check(&bytes, counted);
                return;
            }
            let whole = decode_journal(good, None).expect("a good journal");
            if let Some(found) = check(&bytes, None) {
                // Either nothing that counts was changed, or the newest group of an open journal was lost.
                let used = usize::try_from(found.bytes).unwrap();
                assert_eq!(bytes.get(1024..used), good.get(1024..used), "other bytes were believed");
                assert!(found.generation <= whole.generation);
                let is_spoilt = is_spoilt(&bytes, good, usize::try_from(whole.bytes).unwrap());
                let noticed = !whole.closed || bytes == good || is_cut_short(&bytes, good) || is_spoilt;
                assert!(noticed, "a change of a closed journal was not noticed");
                // What a watermark tells of is not cut off, as long as it is there.
                let is_marked = good[576] != 0 && bytes[576..640] == good[576..640];
                assert!(!is_marked || found.bytes >= u64::from_le_bytes(good[600..608].try_into().unwrap()));
                let grew = good[48..56] == [0; 8];
                assert!(grew || bytes.len() == good.len(), "another length was not noticed");
                assert!(!single || found.generation + 1 >= whole.generation, "more than the newest group was cut off");
            }
        }
    }
});

/// Whether all that differs is that the closing mark ends in zeros: as if its write had been cut short.
fn is_cut_short(bytes: &[u8], good: &[u8]) -> bool {
    let written = bytes[512..576].iter().rposition(|byte| *byte != 0).map_or(512, |last| 513 + last);
    bytes.len() == good.len() && bytes[..written] == good[..written] && bytes[576..] == good[576..]
}

/// Whether nothing differs that holds anything, of a closed journal without a watermark whose last group ends at `used`.
fn is_spoilt(bytes: &[u8], good: &[u8], used: usize) -> bool {
    bytes.len() == good.len()
        && [0..128, 512..576, 1024..used].into_iter().all(|range| bytes[range.clone()] == good[range])
}

fn check(bytes: &[u8], counted: Option<u16>) -> Option<JournalEnd> {
    match decode_journal(bytes, counted.map(u64::from)) {
        Ok(end) => {
            assert!(end.bytes <= bytes.len() as u64 && !(end.closed && end.torn));
            Some(end)
        }
        Err((offset, reason)) => {
            assert!(offset.is_none_or(|offset| offset <= bytes.len() as u64), "damage behind the end");
            assert!(!reason.is_empty());
            None
        }
    }
}
