//! Looking at a directory changes nothing, finds every flipped bit, and is not confused by files that rotate meanwhile.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_types,
    reason = "tests say what must hold by panicking; the double is no protocol"
)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;

use super::*;
use crate::map::mix::Mix;
use crate::peer::NodeId;
use crate::persist::StorageFile;
use crate::persist::format::{
    GROUPS_AT, JournalHead, Mark, Previous, VERSION, Watermark, encode_group, encode_snapshot,
};
use crate::persist::recover::{journal_name, snapshot_name};
use crate::tables::{Revocation, RevocationId, TableChange};
use crate::time::WallMillis;

const STORE: StoreId = StoreId { id: [7; 16], seed: 9 };

/// Files in memory; after a listing, `after_list` may change them, as a running store would.
#[derive(Default)]
struct Files {
    files: Mutex<BTreeMap<String, Vec<u8>>>,
    after_list: Mutex<Vec<Change>>,
}

type Change = fn(&mut BTreeMap<String, Vec<u8>>);

impl core::fmt::Debug for Files {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Files")
    }
}

impl Storage for Files {
    fn list(&self) -> io::Result<Vec<FileEntry>> {
        let mut files = self.files.lock().unwrap();
        let entry = |(name, bytes): (&String, &Vec<u8>)| FileEntry { name: name.clone(), bytes: bytes.len() as u64 };
        let entries = files.iter().map(entry).collect();
        if let Some(change) = self.after_list.lock().unwrap().pop() {
            change(&mut files);
        }
        Ok(entries)
    }

    fn read(&self, name: &str, look: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        let bytes = self.files.lock().unwrap().get(name).cloned().ok_or(io::ErrorKind::NotFound)?;
        look(&bytes);
        Ok(())
    }

    fn create(&self, _: &str) -> io::Result<Box<dyn StorageFile>> {
        unreachable!("I-E1")
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        unreachable!("I-E1")
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        unreachable!("I-E1")
    }

    fn sync_dir(&self) -> io::Result<()> {
        unreachable!("I-E1")
    }

    fn path(&self, name: &str) -> PathBuf {
        name.into()
    }
}

fn snapshot(store: StoreId, generation: u64, keys: &[[u8; 32]]) -> Vec<u8> {
    let mut tables = Tables::new(Mix::new(store.seed));
    for (number, key) in (1..).zip(keys) {
        let peer = NodeId::new(number).unwrap();
        let record = TrustRecord::new(peer, PublicKey::from_checksummed(*key).unwrap());
        tables = tables.apply(&[TableChange::Trusted(peer, Some(record))]).0;
    }
    let mut bytes = Vec::new();
    encode_snapshot(store, generation, &tables, &mut |at, part| {
        let at = at as usize;
        bytes.resize(bytes.len().max(at + part.len()), 0);
        bytes[at..at + part.len()].copy_from_slice(part);
        Ok::<(), ()>(())
    })
    .unwrap();
    bytes
}

fn key(number: u8) -> [u8; 32] {
    ed25519_dalek::SigningKey::from_bytes(&[number; 32]).verifying_key().to_bytes()
}

fn off_curve() -> [u8; 32] {
    (2..=255u8).map(|byte| [byte; 32]).find(|bytes| PublicKey::from_bytes(*bytes).is_err()).unwrap()
}

/// A store with the snapshots of generations 4 and 5.
fn store() -> Files {
    let files = Files::default();
    let header = Header { version: STATE_VERSION, kind: Kind::Genesis, store: STORE, generation: 0, file_bytes: 64 };
    put(&files, GENESIS, header.encode().to_vec());
    put(&files, LOCK, b"123\n".to_vec());
    put(&files, &snapshot_name(4), snapshot(STORE, 4, &[key(1)]));
    put(&files, &snapshot_name(5), snapshot(STORE, 5, &[key(1), key(2)]));
    files
}

fn put(files: &Files, name: &str, bytes: Vec<u8>) {
    files.files.lock().unwrap().insert(name.to_owned(), bytes);
}

/// Verifies, and checks on the way that what is told of the progress comes to the end and no further.
fn verify(files: &Files, now: Now) -> Result<Report, OpenError> {
    let (mut total, mut done) = (0, 0);
    let report = super::verify(files, now, &mut |progress| match progress {
        Progress::Begin { bytes } => (total, done) = (bytes, 0),
        Progress::Done { bytes } => done += bytes,
    })?;
    assert_eq!(done, total);
    Ok(report)
}

fn faults(report: &Report) -> Vec<String> {
    let findings = report.files.iter().map(|(_, finding)| finding).chain([&report.directory]);
    findings.filter_map(|it| if let Finding::Fault(error) = it { Some(error.to_string()) } else { None }).collect()
}

/// What is noted of the only file of which anything is.
fn note(report: &Report) -> &str {
    let notes: Vec<&String> = report
        .files
        .iter()
        .filter_map(|(_, finding)| match finding {
            Finding::Note(note) | Finding::Unsure(note) => Some(note),
            _ => None,
        })
        .collect();
    assert_eq!(notes.len(), 1, "{report:?}");
    notes[0]
}

#[test]
fn a_whole_store_is_whole_and_every_flipped_bit_of_a_snapshot_is_found() {
    let files = store();
    let report = verify(&files, Now::default()).unwrap();
    assert!(report.files.iter().all(|(_, finding)| matches!(finding, Finding::Whole)), "{report:?}");
    assert_eq!((report.generation, report.files.len()), (Some(5), 4));
    for name in [snapshot_name(4), snapshot_name(5), GENESIS.to_owned()] {
        let good = files.files.lock().unwrap().get(&name).cloned().unwrap();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            put(&files, &name, bad);
            let found = faults(&verify(&files, Now::default()).unwrap());
            assert!(found.len() == 1 && found[0].starts_with(&name), "{name}, bit {bit}: {found:?}");
        }
        put(&files, &name, good);
    }
}

#[test]
fn the_progress_of_a_long_check_is_told_on_the_way() {
    let files = store();
    let keys = vec![key(1); TELL_EVERY as usize * 3];
    put(&files, &snapshot_name(6), snapshot(STORE, 6, &keys));
    let bytes = files.files.lock().unwrap()[&snapshot_name(6)].len() as u64;
    let mut steps = Vec::new();
    super::verify(&files, Now::default(), &mut |progress| steps.push(progress)).unwrap();
    let parts =
        steps.iter().filter(|step| matches!(step, Progress::Done { bytes: part } if *part >= bytes / 4)).count();
    assert_eq!(parts, 3, "{steps:?}");
}

#[test]
fn a_key_off_the_curve_is_found_at_its_place_which_opening_would_not_see() {
    let files = store();
    let bytes = snapshot(STORE, 6, &[key(1), off_curve()]);
    let place = bytes.windows(32).position(|window| window == off_curve()).unwrap();
    put(&files, &snapshot_name(6), bytes);
    assert_eq!(inspect(&files, Now::default()).unwrap().snapshot.header.generation, 6);
    let found = faults(&verify(&files, Now::default()).unwrap());
    assert!(found.len() == 1 && found[0].contains(&format!("byte {place}: not a canonical")), "{found:?}");
}

#[test]
fn a_snapshot_under_another_name_or_of_another_store_is_a_fault() {
    let files = store();
    put(&files, &snapshot_name(6), snapshot(STORE, 5, &[]));
    let found = faults(&verify(&files, Now::default()).unwrap());
    assert!(found.len() == 1 && found[0].contains("byte 40: generation 5 under this name"), "{found:?}");
    put(&files, &snapshot_name(6), snapshot(StoreId { id: [8; 16], seed: 9 }, 6, &[]));
    let found = faults(&verify(&files, Now::default()).unwrap());
    assert!(found.len() == 1 && found[0].contains("belongs to another store"), "{found:?}");
}

#[test]
fn files_that_are_no_part_of_the_state_are_notes() {
    let files = store();
    put(&files, &format!("{}.tmp0", snapshot_name(6)), vec![1]);
    put(&files, &format!("damaged-0-{}", snapshot_name(3)), vec![1]);
    put(&files, "notes.txt", vec![1]);
    files.files.lock().unwrap().remove(GENESIS);
    let report = verify(&files, Now::default()).unwrap();
    let notes = report.files.iter().filter(|(_, finding)| matches!(finding, Finding::Note(_))).count();
    assert_eq!((notes, faults(&report).len()), (3, 0), "{report:?}");
    assert!(matches!(report.directory, Finding::Note(_)));
    // But beside another program's lock no store opens.
    put(&files, LOCK, b"\xff\xff".to_vec());
    let found = faults(&verify(&files, Now::default()).unwrap());
    assert!(found.len() == 1 && found[0].contains("LOCK holds what this program never writes"), "{found:?}");
}

#[test]
fn a_mark_without_data_is_a_fault_and_nothing_at_all_is_no_store() {
    let files = store();
    files.files.lock().unwrap().retain(|name, _| name == GENESIS || name == LOCK);
    assert_eq!(faults(&verify(&files, Now::default()).unwrap()).len(), 1);
    assert!(matches!(inspect(&files, Now::default()), Err(OpenError::DataMissing { .. })));
    files.files.lock().unwrap().remove(GENESIS);
    assert!(matches!(verify(&files, Now::default()), Err(OpenError::Missing { .. })));
    assert!(matches!(inspect(&files, Now::default()), Err(OpenError::Missing { .. })));
    put(&files, "holiday.jpg", vec![1]);
    files.files.lock().unwrap().remove(LOCK);
    assert!(matches!(verify(&files, Now::default()), Err(OpenError::Foreign { .. })));
    assert!(matches!(inspect(&files, Now::default()), Err(OpenError::Foreign { .. })));
}

#[test]
fn files_that_rotate_between_listing_and_reading_are_looked_for_again() {
    let files = store();
    // Two saves: nothing that was listed is there any more.
    let rotate: Change = |files| {
        files.retain(|name, _| !name.starts_with("snapshot"));
        for generation in [8, 9] {
            files.insert(snapshot_name(generation), snapshot(STORE, generation, &[key(1)]));
        }
    };
    files.after_list.lock().unwrap().push(rotate);
    let found = inspect(&files, Now::default()).unwrap().snapshot;
    assert_eq!(found.header.generation, 9);
    // Only the older one goes away: no fault, and no reason to begin again.
    let drop_older: Change = |files| drop(files.remove(&snapshot_name(8)));
    files.after_list.lock().unwrap().push(drop_older);
    let report = verify(&files, Now::default()).unwrap();
    assert_eq!((report.generation, report.files.len(), faults(&report).len()), (Some(9), 3, 0));
}

/// A journal that leads on from generation 5 with one group for each of these keys of peers 10, 11 and so on; unclosed.
fn journal(keys: &[[u8; 32]]) -> (Vec<u8>, u64) {
    let head =
        JournalHead { version: VERSION, store: STORE, base: 5, seq: 1, file_seed: 3, previous: None, file_bytes: 4096 };
    let (mut bytes, mut at) = (head.encode().to_vec(), GROUPS_AT);
    bytes.resize(GROUPS_AT as usize, 0);
    let mut before = Tables::new(Mix::new(STORE.seed));
    for (number, key) in (0..).zip(keys) {
        let peer = NodeId::new(10 + number).unwrap();
        let record = TrustRecord::new(peer, PublicKey::from_checksummed(*key).unwrap());
        let after = before.apply(&[TableChange::Trusted(peer, Some(record))]).0;
        let from = 5 + u64::from(number);
        at = encode_group(head.file_tag(), at, (from, from + 1), &after.diff(&before), &mut |_, part| {
            bytes.extend_from_slice(part);
            Ok::<(), ()>(())
        })
        .unwrap();
        before = after;
    }
    bytes.resize(4096, 0);
    (bytes, at)
}

#[test]
fn a_journal_is_part_of_the_state_and_a_torn_end_is_a_note() {
    let files = store();
    let (mut bytes, end) = journal(&[key(3), key(4)]);
    put(&files, &journal_name(1), bytes.clone());
    let report = verify(&files, Now::default()).unwrap();
    assert_eq!((report.generation, faults(&report).len()), (Some(7), 0));
    assert!(note(&report).ends_with("a change of the last second that was lost as a whole would not be noticed"));
    assert_eq!(inspect(&files, Now::default()).unwrap().snapshot.tables.trusted.len(), 4);
    let mut torn = bytes.clone();
    torn[end as usize - 40] ^= 1;
    put(&files, &journal_name(1), torn);
    let report = verify(&files, Now::default()).unwrap();
    assert_eq!((report.generation, faults(&report).len()), (Some(6), 0));
    assert!(!report.is_accounted_for() && note(&report).contains("could be a torn write or damage"), "{report:?}");
    // In front of a watermark nothing is left open.
    let head = JournalHead::decode(&bytes).unwrap();
    let watermark = Watermark { generation: 7, used_bytes: end };
    bytes[576..640].copy_from_slice(&watermark.encode(head.file_tag()));
    bytes[end as usize - 40] ^= 1;
    put(&files, &journal_name(1), bytes.clone());
    let found = faults(&verify(&files, Now::default()).unwrap());
    assert!(found.len() == 1 && found[0].contains("was acknowledged"), "{found:?}");
    bytes[end as usize - 40] ^= 1;
    // Closed, every flipped bit is a fault; where nothing stands it is a note.
    let mark = Mark { continued: false, generation: 7, used_bytes: end, file_bytes: 4096 };
    bytes[512..576].copy_from_slice(&mark.encode(head.file_tag()));
    for bit in (0..4096 * 8).step_by(13) {
        let mut bad = bytes.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        put(&files, &journal_name(1), bad);
        let report = verify(&files, Now::default()).unwrap();
        let found = faults(&report);
        let at = bit / 8;
        if (128..512).contains(&at) || (576..1024).contains(&at) || at >= end as usize {
            assert!(found.is_empty() && !report.is_accounted_for(), "bit {bit}: {found:?}");
            // Of a watermark that is spoilt the first byte is named.
            let named = if (576..640).contains(&at) { 576 } else { at };
            assert!(note(&report).starts_with(&format!("byte {named} holds nothing")), "{report:?}");
        } else {
            assert!(found.len() == 1 && found[0].starts_with(&journal_name(1)), "bit {bit}: {found:?}");
        }
    }
    // A mark that was cut short is none.
    bytes[540..576].fill(0);
    put(&files, &journal_name(1), bytes);
    let report = verify(&files, Now::default()).unwrap();
    assert_eq!((report.generation, faults(&report).len()), (Some(7), 0));
}

/// Of a journal that leads to the older snapshot alone, as much counts as the next one says.
#[test]
fn what_an_older_journal_does_not_count_is_no_riddle() {
    let files = store();
    let (mut torn, end) = journal(&[key(3), key(4)]);
    let second = torn[GROUPS_AT as usize..].windows(9).position(|it| it[8] == 254 && it[..4] == [29, 0, 0, 0]).unwrap();
    let counted = GROUPS_AT + second as u64 + 8 + 29;
    torn[end as usize - 40] ^= 1;
    put(&files, &journal_name(1), torn);
    put(&files, &snapshot_name(6), snapshot(STORE, 6, &[key(1), key(2)]));
    let report = verify(&files, Now::default()).unwrap();
    assert!(!report.is_accounted_for(), "{report:?}");
    let previous = Some(Previous { seq: 1, bytes: counted });
    let head =
        JournalHead { version: VERSION, store: STORE, base: 6, seq: 2, file_seed: 3, previous, file_bytes: 4096 };
    let before = Tables::new(Mix::new(STORE.seed));
    let after = before
        .apply(&[TableChange::Revoked(
            NodeId::new(9).unwrap(),
            Some(Revocation::new(WallMillis::new(1), RevocationId::new(1))),
        )])
        .0;
    let mut bytes = head.encode().to_vec();
    bytes.resize(GROUPS_AT as usize, 0);
    encode_group(head.file_tag(), GROUPS_AT, (6, 7), &after.diff(&before), &mut |_, part| {
        bytes.extend_from_slice(part);
        Ok::<(), ()>(())
    })
    .unwrap();
    bytes.resize(4096, 0);
    put(&files, &journal_name(2), bytes);
    let report = verify(&files, Now::default()).unwrap();
    assert_eq!((report.generation, faults(&report).len()), (Some(7), 0), "{report:?}");
    let of = |seq| report.files.iter().find(|(file, _)| file.seq == Some(seq)).map(|(_, finding)| finding);
    assert!(matches!((of(1), of(2)), (Some(Finding::Whole), Some(Finding::Unsure(_)))), "{report:?}");
}

#[test]
fn a_key_off_the_curve_in_a_journal_is_found_at_its_place() {
    let files = store();
    let (bytes, _) = journal(&[key(3), off_curve()]);
    let place = bytes.windows(32).position(|window| window == off_curve()).unwrap();
    put(&files, &journal_name(1), bytes);
    assert_eq!(inspect(&files, Now::default()).unwrap().snapshot.header.generation, 7);
    let found = faults(&verify(&files, Now::default()).unwrap());
    assert!(found.len() == 1 && found[0].contains(&format!("byte {place}: not a canonical")), "{found:?}");
}

#[test]
fn a_journal_that_is_appended_to_while_it_is_looked_at_is_no_fault() {
    let files = store();
    put(&files, &journal_name(1), journal(&[key(3)]).0);
    let append: Change = |files| drop(files.insert(journal_name(1), journal(&[key(3), key(4)]).0));
    files.after_list.lock().unwrap().push(append);
    let report = verify(&files, Now::default()).unwrap();
    assert_eq!((report.generation, faults(&report).len()), (Some(7), 0), "{report:?}");
}

/// Zeros in place of all that was acknowledged behind a group look like a journal in which nothing followed: that nothing did is
/// known by the closing mark alone, whether the group is the first one, and whether a watermark names it or not.
#[test]
fn no_open_journal_is_accounted_for_and_every_closed_one_is() {
    for groups in 1..=3 {
        let keys = [key(3), key(4), key(6)];
        let (whole, end) = journal(&keys[..groups]);
        let tag = JournalHead::decode(&whole).unwrap().file_tag();
        let generation = 5 + groups as u64;
        // Of all three groups, as they were acknowledged, those behind this one are gone.
        let (all, _) = journal(&keys);
        let mut lost = all.clone();
        lost[end as usize..].fill(0);
        assert_eq!(lost, whole, "nothing in the file tells");
        for is_marked in [false, true] {
            let mut bytes = whole.clone();
            if is_marked {
                bytes[576..640].copy_from_slice(&Watermark { generation, used_bytes: end }.encode(tag));
            }
            let files = store();
            put(&files, &journal_name(1), bytes.clone());
            let report = verify(&files, Now::default()).unwrap();
            assert_eq!((report.generation, faults(&report).len()), (Some(generation), 0));
            assert!(!report.is_accounted_for(), "{groups}, {is_marked}: {report:?}");
            let said = note(&report);
            assert!(said.starts_with(&format!("every byte up to {end} is accounted for, but ")), "{said}");
            assert!(
                said.ends_with("a change of the last second that was lost as a whole would not be noticed"),
                "{said}"
            );
            let (_, finding) = inspect(&files, Now::default()).unwrap().newest.unwrap();
            assert!(matches!(finding, Finding::Unsure(found) if found == said));
            // A byte that is spoilt besides hides nothing of that.
            bytes[200] = 1;
            put(&files, &journal_name(1), bytes.clone());
            let report = verify(&files, Now::default()).unwrap();
            assert!(note(&report).starts_with("byte 200 holds nothing") && note(&report).contains("is not closed"));
            bytes[200] = 0;
            // And the twin.
            let mark = Mark { continued: false, generation, used_bytes: end, file_bytes: 4096 };
            bytes[512..576].copy_from_slice(&mark.encode(tag));
            put(&files, &journal_name(1), bytes);
            let report = verify(&files, Now::default()).unwrap();
            assert!(report.is_accounted_for(), "{report:?}");
        }
    }
}
