//! What an opening left out, set aside or removed is told to who opened the store; and where there was nothing of that, so.

use std::path::PathBuf;
use std::sync::Arc;

use trustkeep::testing::doors::snapshot_name;
use trustkeep::testing::sim_disk::SimDisk;
use trustkeep::{RecoverPolicy, RecoveryReport, TrustStore};

use super::{grant, journal_name, open, open_with};

const GENESIS: &str = "GENESIS";

/// A running store with so many grants, as it is on its disk.
fn running(grants: u32) -> SimDisk {
    let disk = SimDisk::new();
    let options = TrustStore::options().journal_sizes(4096, 1 << 20);
    let store = options.open_storage(Arc::new(disk.clone())).unwrap();
    (1..=grants).for_each(|number| grant(&store, number));
    SimDisk::from_image(&disk.live_image())
}

fn names(files: &[PathBuf]) -> Vec<String> {
    files.iter().map(|file| file.file_name().unwrap().to_str().unwrap().to_owned()).collect()
}

fn report(store: &TrustStore) -> RecoveryReport {
    store.recovery().clone()
}

#[test]
fn a_store_that_is_whole_is_told_as_whole() {
    let disk = SimDisk::new();
    let store = open(&disk).unwrap();
    let found = report(&store);
    assert!(found.created && found.is_clean(), "{found:?}");
    assert_eq!((found.reached, found.generation.get(), found.files.len()), (None, 0, 0));
    (1..=3).for_each(|number| grant(&store, number));
    store.close().unwrap();
    let store = open(&disk).unwrap();
    let found = report(&store);
    assert!(!found.created && found.is_clean(), "{found:?}");
    assert_eq!(found.reached.map(|reached| reached.get()), Some(3));
    assert_eq!(found.generation, store.generation());
    assert_eq!(names(&found.files), [GENESIS, &snapshot_name(0), &journal_name(1)]);
    // It is about the opening, and no change makes it another.
    grant(&store, 4);
    assert_eq!(report(&store), found);
    assert_eq!(report(&TrustStore::in_memory()), RecoveryReport::default());
}

#[test]
fn a_change_that_is_cut_off_is_told_with_its_file_its_place_and_its_length() {
    let (before, disk) = (running(2).live_image(), running(3));
    let journal = journal_name(1);
    let mut bytes = disk.live_image()[&journal].to_vec();
    let last = |bytes: &[u8]| bytes.iter().rposition(|byte| *byte != 0).unwrap();
    let (begin, end) = (last(&before[&journal]) + 1, last(&bytes) + 1);
    bytes[end - 1] = 0;
    let expected = last(&bytes) + 1 - begin;
    disk.put(&journal, &bytes);
    let store = open(&disk).unwrap();
    let found = report(&store);
    let torn = found.torn.as_ref().unwrap();
    assert_eq!(names(std::slice::from_ref(&torn.file)), [journal]);
    assert!(torn.offset as usize >= begin && torn.offset as usize <= begin + 8, "{torn:?}, {begin}");
    assert_eq!(torn.bytes as usize + torn.offset as usize - begin, expected, "{torn:?}");
    assert!(!torn.reason.is_empty());
    assert_eq!((found.reached.map(|reached| reached.get()), found.is_clean(), found.is_lossy), (Some(2), false, false));
    // Once is enough: what was cut off is gone.
    drop(store);
    assert!(report(&open(&disk).unwrap()).is_clean());
}

#[test]
fn what_a_crash_left_half_written_is_told_and_is_no_loss() {
    let disk = running(2);
    let leftover = format!("{}.tmp0", snapshot_name(2));
    disk.put(&leftover, b"half");
    let found = report(&open(&disk).unwrap());
    assert!(names(&found.removed).contains(&leftover), "{found:?}");
    assert!(found.is_clean() && !names(&found.files).contains(&leftover), "{found:?}");
}

#[test]
fn what_a_policy_gives_up_is_told_with_its_new_name_and_what_it_means() {
    let journal = journal_name(1);
    let damaged = || {
        let disk = running(2);
        let mut bytes = disk.live_image()[&journal].to_vec();
        bytes[3] ^= 1;
        disk.put(&journal, &bytes);
        disk
    };
    assert!(open(&damaged()).is_err(), "no policy, no report");
    for policy in [RecoverPolicy::Previous, RecoverPolicy::Empty] {
        let disk = damaged();
        let store = open_with(&disk, policy).unwrap();
        let found = report(&store);
        assert!(found.is_lossy && !found.is_clean() && !found.created, "{found:?}");
        let aside = &found.set_aside[..];
        assert_eq!(aside.len(), 1, "{found:?}");
        assert_eq!(
            names(&[aside[0].file.clone(), aside[0].now.clone()]),
            [&*journal, &*format!("damaged-0-{journal}")]
        );
        assert!(disk.live_image().contains_key(&format!("damaged-0-{journal}")));
        assert_eq!((found.reached.map(|reached| reached.get()), found.generation), (Some(0), store.generation()));
        assert!(found.generation.get() >= 1 << 32);
    }
    // Nothing is whole.
    let disk = damaged();
    let snapshot = snapshot_name(0);
    disk.put(&snapshot, b"no snapshot");
    let store = open_with(&disk, RecoverPolicy::Empty).unwrap();
    let found = report(&store);
    assert!(found.is_lossy && found.reached.is_none(), "{found:?}");
    let files: Vec<PathBuf> = found.set_aside.iter().map(|aside| aside.file.clone()).collect();
    let mut files = names(&files);
    files.sort();
    assert_eq!(files, [journal, snapshot]);
}
