//! Opening a directory with any files in it never panics, and where a state was it never opens as an empty store.
#![no_main]

use std::sync::Arc;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use trustkeep::testing::doors::{decode_snapshot, fix_checksums, journal_name, snapshot_name};
use trustkeep::testing::sim_disk::{Image, SimDisk};
use trustkeep::{NodeId, RecoverPolicy, TrustRecord, TrustStore, WriteError};

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    policy: Policy,
    files: Vec<(Name<'a>, Content<'a>)>,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Policy {
    Fail,
    Previous,
    Empty,
}

#[derive(Arbitrary, Debug)]
enum Name<'a> {
    Genesis,
    Lock,
    Snapshot(u64),
    Journal(u64),
    /// The names that fit the good files.
    Fitting,
    FittingJournal(bool),
    Temporary(u8),
    Other(&'a str),
}

#[derive(Arbitrary, Debug)]
enum Content<'a> {
    Raw(&'a [u8]),
    Snapshot(Vec<(u16, u8)>, bool),
    Genesis(Vec<(u16, u8)>, bool),
    /// One of the two journals that go on from the good snapshot.
    Journal(bool, Vec<(u16, u8)>, bool),
    /// The good snapshot, under this generation.
    Generation(u64),
}

/// A snapshot of generation 4, the mark of the same store, and the journals that go on from it, to generations 9 and 11.
const SNAPSHOT: &[u8] = include_bytes!("../../tests/fixtures/v1/killed/snapshot-0000000000000004.tks");
const GENESIS: &[u8] = include_bytes!("../../tests/fixtures/v1/killed/GENESIS");
const JOURNALS: [&[u8]; 2] = [
    include_bytes!("../../tests/fixtures/v1/killed/journal-0000000000000002.tkj"),
    include_bytes!("../../tests/fixtures/v1/killed/journal-0000000000000003.tkj"),
];

impl Name<'_> {
    fn text(&self) -> String {
        match self {
            Self::Genesis => "GENESIS".to_owned(),
            Self::Lock => "LOCK".to_owned(),
            Self::Snapshot(generation) => snapshot_name(*generation),
            Self::Journal(seq) => journal_name(*seq),
            Self::Fitting => snapshot_name(4),
            Self::FittingJournal(second) => journal_name(2 + u64::from(*second)),
            Self::Temporary(attempt) => format!("{}.tmp{attempt}", snapshot_name(5)),
            Self::Other(text) => (*text).to_owned(),
        }
    }
}

impl Content<'_> {
    fn bytes(&self) -> Vec<u8> {
        let edited = |good: &[u8], edits: &[(u16, u8)], fixed| {
            let mut bytes = good.to_vec();
            for (at, value) in edits {
                let at = usize::from(*at) % bytes.len();
                bytes[at] = *value;
            }
            if fixed {
                fix_checksums(&mut bytes);
            }
            bytes
        };
        match self {
            Self::Raw(bytes) => bytes.to_vec(),
            Self::Snapshot(edits, fixed) => edited(SNAPSHOT, edits, *fixed),
            Self::Genesis(edits, fixed) => edited(GENESIS, edits, *fixed),
            Self::Journal(second, edits, fixed) => edited(JOURNALS[usize::from(*second)], edits, *fixed),
            Self::Generation(generation) => {
                let mut bytes = SNAPSHOT.to_vec();
                bytes[40..48].copy_from_slice(&generation.to_le_bytes());
                fix_checksums(&mut bytes);
                bytes
            }
        }
    }
}

fuzz_target!(|input: Input<'_>| {
    let image: Image = input.files.iter().take(8).map(|(name, content)| (name.text(), content.bytes())).collect();
    let policy = match input.policy {
        Policy::Fail => RecoverPolicy::Fail,
        Policy::Previous => RecoverPolicy::Previous,
        Policy::Empty => RecoverPolicy::Empty,
    };
    let disk = SimDisk::from_image(&image);
    let snapshots: Vec<&String> = image.keys().filter(|name| is_snapshot(name)).collect();
    let opened = TrustStore::options().recover(policy).open_storage(Arc::new(disk.clone()));
    let after = disk.live_image();
    let Ok(store) = opened else {
        for name in snapshots {
            assert!(after.values().any(|bytes| bytes == &image[name]), "{name} was lost by a refusal");
        }
        return;
    };
    let journals = image.keys().any(|name| is_journal(name));
    let whole: Vec<usize> = image.values().filter_map(|bytes| decode_snapshot(bytes).ok()).collect();
    if image.contains_key("GENESIS") || !snapshots.is_empty() || journals {
        let found = store.snapshot().len();
        let began_anew = matches!(policy, RecoverPolicy::Empty) && found == 0;
        assert!(journals || whole.contains(&found) || began_anew, "{found} records, which no file holds");
        if matches!(policy, RecoverPolicy::Fail) {
            let newest = snapshots.last().expect("opened without a snapshot");
            let generation = u64::from_str_radix(&newest[9..25], 16).unwrap();
            assert!(store.generation().get() >= generation, "older than the newest snapshot");
            assert!(journals || store.generation().get() == generation);
            assert!(journals || decode_snapshot(&image[*newest]) == Ok(found), "not the newest snapshot");
        }
    }
    // What opened goes on, and opens again.
    let peer = NodeId::new(77).unwrap();
    let before = store.generation();
    match store.grant(TrustRecord::new(peer, None).network(9)) {
        Ok(receipt) => {
            assert!(receipt.generation() >= before);
            receipt.wait_durable().expect("a disk without faults");
        }
        // What was read may have revoked it.
        Err(WriteError::Revoked { .. }) => {}
        Err(WriteError::Full(_)) => assert_eq!(before.get(), GENERATION_MAX, "full, though there is a next number"),
        Err(error) => panic!("{error}"),
    }
    let (contents, generation) = (store.snapshot().len(), store.generation());
    drop(store);
    let again = TrustStore::options().open_storage(Arc::new(disk)).expect("what was saved opens");
    assert_eq!((again.snapshot().len(), again.generation()), (contents, generation));
});

/// Whether a release could have written a snapshot under this name; any other file is none of ours.
fn is_snapshot(name: &str) -> bool {
    let number = name.get(9..25).and_then(|digits| u64::from_str_radix(digits, 16).ok());
    number.is_some_and(|number| number <= GENERATION_MAX && snapshot_name(number) == name)
}

fn is_journal(name: &str) -> bool {
    let number = name.get(8..24).and_then(|digits| u64::from_str_radix(digits, 16).ok());
    number.is_some_and(|number| number <= GENERATION_MAX && journal_name(number) == name)
}

/// The last generation that is ever published.
const GENERATION_MAX: u64 = (1 << 63) - 1;
