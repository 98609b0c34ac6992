//! The snapshot decoder never panics and never allocates beyond its input, whatever it is given: raw bytes, and a good
//! snapshot tampered with behind checksums that hold.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use trustkeep::testing::doors::{decode_snapshot, fix_checksums};

#[derive(Arbitrary, Debug)]
enum Input<'a> {
    Raw(&'a [u8]),
    Tampered { edits: Vec<(u16, u8)>, cut: Option<u16>, behind: &'a [u8] },
}

/// A snapshot with an entry in every table.
const GOOD: &[u8] = include_bytes!("../../tests/fixtures/v1/closed/snapshot-0000000000000004.tks");

fuzz_target!(|input: Input<'_>| {
    match input {
        Input::Raw(bytes) => check(bytes),
        Input::Tampered { edits, cut, behind } => {
            let mut bytes = GOOD.to_vec();
            for (at, value) in edits {
                let at = usize::from(at) % bytes.len();
                bytes[at] = value;
            }
            bytes.truncate(cut.map_or(usize::MAX, usize::from));
            bytes.extend_from_slice(behind);
            fix_checksums(&mut bytes);
            check(&bytes);
        }
    }
});

fn check(bytes: &[u8]) {
    match decode_snapshot(bytes) {
        Ok(trusted) => assert!(trusted <= bytes.len(), "more records than bytes"),
        Err((offset, reason)) => {
            assert!(offset.is_none_or(|offset| offset <= bytes.len() as u64), "damage behind the end");
            assert!(!reason.is_empty());
        }
    }
}
