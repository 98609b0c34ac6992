//! Files that are not what was written.

use trustkeep::testing::doors::{fix_checksums, snapshot_name};
use trustkeep::testing::sim_disk::{Image, SimDisk};
use trustkeep::{OpenError, RecoverPolicy, TrustStore, WriteError};

use super::{contents, id, open, open_with, record, records};

const GENESIS: &str = "GENESIS";
const POLICIES: [RecoverPolicy; 3] = [RecoverPolicy::Fail, RecoverPolicy::Previous, RecoverPolicy::Empty];

/// A store with the generations 2 (peers 1, 2) and 3 (peers 1, 3; 2 revoked), cleanly closed.
fn closed_store() -> Image {
    let disk = SimDisk::new();
    let store = open(&disk).unwrap();
    store.grant(record(1)).unwrap().wait_durable().unwrap();
    store.grant(record(2)).unwrap().wait_durable().unwrap();
    let (_, receipt) = store
        .update(|batch| {
            batch.revoke(id(2));
            batch.grant(record(3)).unwrap();
        })
        .unwrap();
    receipt.wait_durable().unwrap();
    store.close().unwrap();
    let image = disk.live_image();
    assert_eq!(image.keys().collect::<Vec<_>>(), [GENESIS, &snapshot_name(2), &snapshot_name(3)]);
    image
}

fn with(image: &Image, name: &str, bytes: Vec<u8>) -> Image {
    let mut image = image.clone();
    image.insert(name.to_owned(), bytes);
    image
}

/// Every single flipped bit, every shorter length and one byte too many, as (first wrong byte, content).
fn damages(bytes: &[u8]) -> impl Iterator<Item = (usize, Vec<u8>)> {
    let flips = (0..bytes.len() * 8).map(|bit| {
        let mut flipped = bytes.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        (bit / 8, flipped)
    });
    let cuts = (0..bytes.len()).map(|length| (length, bytes[..length].to_vec()));
    flips.chain(cuts).chain([(bytes.len(), [bytes, &[0]].concat())])
}

fn refused(image: &Image, policy: RecoverPolicy) -> OpenError {
    let disk = SimDisk::from_image(image);
    let error = open_with(&disk, policy).expect_err("opened");
    assert_eq!(&disk.live_image(), image, "a refusal changes nothing");
    error
}

fn opened(image: &Image, policy: RecoverPolicy) -> (TrustStore, SimDisk) {
    let disk = SimDisk::from_image(image);
    (open_with(&disk, policy).unwrap(), disk)
}

#[test]
fn every_flip_and_every_cut_is_an_error_that_names_file_and_offset() {
    let whole = closed_store();
    for name in [GENESIS, &snapshot_name(3)] {
        let mut count = 0;
        for (wrong, bytes) in damages(&whole[name]) {
            count += 1;
            match refused(&with(&whole, name, bytes), RecoverPolicy::Fail) {
                OpenError::Damaged { path, offset, reason } => {
                    assert!(path.ends_with(name), "{path:?}");
                    assert!(offset <= wrong as u64, "byte {wrong} is wrong, {offset} was named");
                    assert!(!reason.is_empty());
                }
                other => panic!("byte {wrong} of {name}: {other:?}"),
            }
        }
        assert_eq!(count, whole[name].len() * 9 + 1);
    }
    // And the twin: undamaged it opens, with the newest state.
    let (store, _) = opened(&whole, RecoverPolicy::Fail);
    assert_eq!((contents(&store), store.generation().get()), (records([1, 3]), 3));
}

#[test]
fn previous_falls_back_loudly_and_deletes_nothing() {
    let whole = closed_store();
    let newest = snapshot_name(3);
    for (wrong, bytes) in damages(&whole[&newest]).step_by(7) {
        let (store, disk) = opened(&with(&whole, &newest, bytes.clone()), RecoverPolicy::Previous);
        assert_eq!(contents(&store), records([1, 2]), "byte {wrong}");
        assert_eq!(store.generation().get(), 4, "no generation means two things");
        drop(store);
        let after = disk.live_image();
        assert_eq!(after[&format!("damaged-0-{newest}")], bytes, "what was damaged is kept");
        assert_eq!(after[&snapshot_name(2)], whole[&snapshot_name(2)]);
        // From then on the store opens without any policy.
        assert_eq!(contents(&open(&disk).unwrap()), records([1, 2]));
    }
}

#[test]
fn empty_begins_anew_only_when_nothing_is_whole() {
    let whole = closed_store();
    let (newest, older) = (snapshot_name(3), snapshot_name(2));
    let cut = |name: &str| whole[name][..70].to_vec();
    let one = with(&whole, &newest, cut(&newest));
    assert_eq!(contents(&opened(&one, RecoverPolicy::Empty).0), records([1, 2]), "the older one is whole");
    let both = with(&one, &older, cut(&older));
    assert!(
        matches!(refused(&both, RecoverPolicy::Previous), OpenError::Damaged { path, .. } if path.ends_with(&newest))
    );
    let (store, disk) = opened(&both, RecoverPolicy::Empty);
    assert_eq!((contents(&store), store.generation().get()), (records([]), 4));
    let after = disk.live_image();
    assert_eq!(after[&format!("damaged-0-{newest}")], cut(&newest));
    assert_eq!(after[&format!("damaged-0-{older}")], cut(&older));
}

#[test]
fn a_damaged_mark_is_replaced_only_when_allowed() {
    let whole = closed_store();
    for (_, bytes) in damages(&whole[GENESIS]).step_by(11) {
        let (store, disk) = opened(&with(&whole, GENESIS, bytes.clone()), RecoverPolicy::Previous);
        assert_eq!((contents(&store), store.generation().get()), (records([1, 3]), 3));
        drop(store);
        let after = disk.live_image();
        assert_eq!(after["damaged-0-GENESIS"], bytes);
        assert_eq!(after[GENESIS], whole[GENESIS]);
    }
}

#[test]
fn a_mark_without_data_is_no_fresh_store() {
    let whole = closed_store();
    let mut marked = whole.clone();
    marked.retain(|name, _| name == GENESIS);
    for policy in [RecoverPolicy::Fail, RecoverPolicy::Previous] {
        assert!(matches!(refused(&marked, policy), OpenError::DataMissing { .. }));
    }
    assert_eq!(contents(&opened(&marked, RecoverPolicy::Empty).0), records([]));
    // And the twin: data without a mark is a creation cut short, which opens and gets its mark.
    let mut unmarked = whole.clone();
    unmarked.remove(GENESIS);
    let (store, disk) = opened(&unmarked, RecoverPolicy::Fail);
    assert_eq!(contents(&store), records([1, 3]));
    assert_eq!(disk.live_image()[GENESIS], whole[GENESIS]);
}

#[test]
fn a_file_of_another_store_is_refused_and_left_alone() {
    let (whole, other) = (closed_store(), closed_store());
    let foreign = with(&whole, &snapshot_name(9), other[&snapshot_name(3)].clone());
    assert!(
        matches!(refused(&foreign, RecoverPolicy::Fail), OpenError::Damaged { reason, .. } if reason.contains("3"))
    );
    let foreign = with(&whole, &snapshot_name(3), other[&snapshot_name(3)].clone());
    for policy in POLICIES {
        let error = refused(&foreign, policy);
        assert!(matches!(&error, OpenError::OtherStore { path } if path.ends_with(snapshot_name(3))), "{error:?}");
    }
    assert!(matches!(
        refused(&with(&whole, GENESIS, other[GENESIS].clone()), RecoverPolicy::Fail),
        OpenError::OtherStore { .. }
    ));
}

#[test]
fn a_newer_format_is_refused_and_left_alone() {
    let whole = closed_store();
    for name in [GENESIS, &snapshot_name(3)] {
        let mut bytes = whole[name].clone();
        bytes[8] = 2;
        fix_checksums(&mut bytes);
        for policy in POLICIES {
            let error = refused(&with(&whole, name, bytes.clone()), policy);
            assert!(
                matches!(&error, OpenError::NewerFormat { path, found: 2, supported: 1 } if path.ends_with(name)),
                "{error:?}"
            );
        }
    }
}

#[test]
fn a_generation_that_leaves_no_room_for_another_is_none_of_ours() {
    let whole = closed_store();
    let numbered = |generation: u64| {
        let mut bytes = whole[&snapshot_name(3)].clone();
        bytes[40..48].copy_from_slice(&generation.to_le_bytes());
        fix_checksums(&mut bytes);
        with(&whole, &snapshot_name(generation), bytes)
    };
    // Whoever put the file there, the next grant must have a number.
    for image in [numbered(u64::MAX), numbered(1 << 63), with(&whole, &snapshot_name(u64::MAX), vec![0])] {
        for policy in POLICIES {
            let (store, _) = opened(&image, policy);
            assert_eq!(store.generation().get(), 3);
            assert_eq!(store.grant(record(9)).unwrap().generation().get(), 4);
        }
    }
    // And the twin: a large number that leaves room.
    let large = (1 << 63) - 1;
    let (store, disk) = opened(&numbered(large), RecoverPolicy::Fail);
    assert_eq!(store.generation().get(), large);
    assert!(matches!(store.grant(record(9)), Err(WriteError::Full(_))), "and no number is used twice");
    assert_eq!(contents(&store), records([1, 3]));
    drop(store);
    assert_eq!(open(&disk).unwrap().generation().get(), large);
}

#[test]
fn leftovers_of_a_crash_are_cleaned_up_and_stand_in_nobodys_way() {
    let whole = closed_store();
    let mut littered = whole.clone();
    for name in [format!("{}.tmp0", snapshot_name(4)), format!("{}.tmp1", snapshot_name(4)), "GENESIS.tmp0".to_owned()]
    {
        littered.insert(name, vec![1, 2, 3]);
    }
    littered.insert("notes.txt".to_owned(), b"not ours".to_vec());
    let (store, disk) = opened(&littered, RecoverPolicy::Fail);
    store.grant(record(4)).unwrap().wait_durable().unwrap();
    drop(store);
    let after = disk.live_image();
    assert_eq!(
        after.keys().collect::<Vec<_>>(),
        [GENESIS, "notes.txt", &snapshot_name(3), &snapshot_name(4)],
        "what is not ours stays"
    );
}
