//! Files that are not what was written.

use trustkeep::testing::doors::{fix_checksums, snapshot_name};
use trustkeep::testing::sim_disk::{Call, Fault, Image, SimDisk};
use trustkeep::{OpenError, RecoverPolicy, TrustStore, WriteError};

use super::{Contents, contents, grant, id, in_parallel, journal_name, open, open_small, open_with, record, records};

const GENESIS: &str = "GENESIS";
const POLICIES: [RecoverPolicy; 3] = [RecoverPolicy::Fail, RecoverPolicy::Previous, RecoverPolicy::Empty];
const LEAP: u64 = 1 << 32;
/// The last byte of a journal's closing mark.
const MARK_ENDS: usize = 575;

/// What the store of [`closed_store`] held at each generation.
fn at(generation: u64) -> Contents {
    match generation {
        4 => records([1, 3, 4]),
        _ => records(1..=u32::try_from(generation).unwrap()),
    }
}

/// A store that went through the four generations of [`at`], cleanly closed twice. It has two snapshots and three
/// journals: 1 (generations 1 and 2) leads from the older snapshot to the newer, 2 (generation 3) and 3 (4) on from there.
fn closed_store() -> Image {
    let disk = rotated_store();
    let store = open_small(&disk);
    let (_, receipt) = store
        .update(|batch| {
            batch.revoke(id(2));
            batch.grant(record(4)).unwrap();
        })
        .unwrap();
    receipt.wait_durable().unwrap();
    store.close().unwrap();
    let image = disk.live_image();
    let names = [GENESIS, &journal_name(1), &journal_name(2), &journal_name(3), &snapshot_name(0), &snapshot_name(2)];
    assert_eq!(image.keys().collect::<Vec<_>>(), names);
    image
}

/// The same before its second session.
fn rotated_store() -> SimDisk {
    let disk = SimDisk::new();
    let store = open_small(&disk);
    (1..=3).for_each(|number| grant(&store, number));
    store.close().unwrap();
    disk
}

/// A running store, as it is on its disk after so many grants; and where each of its journal's groups begins and ends.
fn live_store(grants: u32, ahead_bytes: u64) -> (Image, Vec<(usize, usize)>) {
    let disk = SimDisk::new();
    let options = TrustStore::options().journal_sizes(ahead_bytes, 1 << 20);
    let store = options.open_storage(std::sync::Arc::new(disk.clone())).unwrap();
    (1..=grants).for_each(|number| grant(&store, number));
    let image = disk.live_image();
    let bytes = &image[&journal_name(1)];
    let (mut groups, mut at, mut begin) = (Vec::new(), 1024, 1024);
    while bytes[at] != 0 {
        let kind = bytes[at + 8];
        at += 8 + u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        if kind == 254 {
            groups.push((begin, at));
            begin = at;
        }
    }
    assert_eq!(groups.len(), grants as usize);
    (image, groups)
}

/// A running store whose first journal was full.
fn running_store_with_two_journals() -> Image {
    let disk = SimDisk::new();
    let options = TrustStore::options().journal_sizes(0, 1 << 20);
    let store = options.open_storage(std::sync::Arc::new(disk.clone())).unwrap();
    (1..=60).for_each(|number| grant(&store, number));
    let image = disk.live_image();
    let names = [GENESIS, &journal_name(1), &journal_name(2), &snapshot_name(0)];
    assert_eq!(image.keys().collect::<Vec<_>>(), names);
    image
}

/// Whether nothing stands at this byte of a closed journal.
fn holds_nothing(bytes: &[u8], at: usize) -> bool {
    let used = u64::from_le_bytes(bytes[536..544].try_into().unwrap());
    (128..512).contains(&at) || (576..1024).contains(&at) || at as u64 >= used
}

fn with(image: &Image, name: &str, bytes: Vec<u8>) -> Image {
    let mut image = image.clone();
    image.insert(name.to_owned(), bytes);
    image
}

fn without(image: &Image, name: &str) -> Image {
    let mut image = image.clone();
    image.remove(name).unwrap();
    image
}

/// Every single flipped bit, every shorter length and one byte too many, as (first wrong byte, content).
fn damages(bytes: &[u8]) -> Vec<(usize, Vec<u8>)> {
    let flips = (0..bytes.len() * 8).map(|bit| (bit / 8, flipped(bytes, bit)));
    let cuts = (0..bytes.len()).map(|length| (length, bytes[..length].to_vec()));
    flips.chain(cuts).chain([(bytes.len(), [bytes, &[0]].concat())]).collect()
}

fn flipped(bytes: &[u8], bit: usize) -> Vec<u8> {
    let mut flipped = bytes.to_vec();
    flipped[bit / 8] ^= 1 << (bit % 8);
    flipped
}

fn refused(image: &Image, policy: RecoverPolicy) -> OpenError {
    let disk = SimDisk::from_image(image);
    let error = open_with(&disk, policy).expect_err("opened");
    assert_eq!(&disk.live_image(), image, "a refusal changes nothing");
    error
}

/// Refused for this file; says from which byte on.
fn refused_for(image: &Image, name: &str) -> (u64, String) {
    match refused(image, RecoverPolicy::Fail) {
        OpenError::Damaged { path, offset, reason } => {
            assert!(path.ends_with(name), "{path:?} instead of {name}");
            assert!(!reason.is_empty());
            (offset, reason)
        }
        other => panic!("{name}: {other:?}"),
    }
}

fn opened(image: &Image, policy: RecoverPolicy) -> (TrustStore, SimDisk) {
    let disk = SimDisk::from_image(image);
    (open_with(&disk, policy).unwrap(), disk)
}

#[test]
fn every_flip_and_every_cut_of_a_closed_store_is_an_error_that_names_file_and_offset() {
    let whole = closed_store();
    for name in [GENESIS, &snapshot_name(2), &journal_name(2), &journal_name(3)] {
        let all = damages(&whole[name]);
        assert_eq!(all.len(), whole[name].len() * 9 + 1);
        in_parallel(&all, 2, |(wrong, bytes)| {
            let same_length = bytes.len() == whole[name].len();
            let is_cut_short = *wrong == MARK_ENDS && bytes.get(MARK_ENDS) == Some(&0);
            if name.starts_with("journal") && same_length && (is_cut_short || holds_nothing(&whole[name], *wrong)) {
                // As if the mark had been cut short by its last byte, or where nothing stands. It hides nothing.
                let (store, _) = opened(&with(&whole, name, bytes.clone()), RecoverPolicy::Fail);
                return assert_eq!((contents(&store), store.generation().get()), (at(4), 4));
            }
            let (offset, reason) = refused_for(&with(&whole, name, bytes.clone()), name);
            assert!(offset <= *wrong as u64, "byte {wrong} of {name} is wrong, {offset} was named: {reason}");
        });
    }
    // And the twin: undamaged it opens, with the newest state.
    let (store, _) = opened(&whole, RecoverPolicy::Fail);
    assert_eq!((contents(&store), store.generation().get()), (at(4), 4));
}

#[test]
fn damage_to_a_running_stores_journal_cuts_its_newest_group_or_is_an_error() {
    let (whole, groups) = live_store(3, 0);
    let (name, (begin, end)) = (journal_name(1), groups[2]);
    let bytes = &whole[&name];
    // Of the zeros behind the last group not every single one.
    let flips = (0..end * 8 + 64).chain((end * 8 + 64..bytes.len() * 8).step_by(311));
    let damages: Vec<_> = flips.map(|bit| (bit / 8, flipped(bytes, bit))).collect();
    in_parallel(&damages, 2, |(wrong, bytes)| {
        let image = with(&whole, &name, bytes.clone());
        if *wrong < begin && !(128..1024).contains(wrong) {
            // In front of a group that is whole, above all in the group before the one before it.
            let (offset, _) = refused_for(&image, &name);
            assert!(offset <= *wrong as u64, "byte {wrong}: {offset}");
            return;
        }
        let (store, disk) = opened(&image, RecoverPolicy::Fail);
        let generation = if (begin..end).contains(wrong) { 2 } else { 3 };
        assert_eq!((store.generation().get(), contents(&store)), (generation, at(generation)), "byte {wrong}");
        drop(store);
        assert_eq!(contents(&open(&disk).unwrap()), at(generation), "byte {wrong}");
    });
}

#[test]
fn no_cut_of_a_running_stores_journal_passes_for_a_crash() {
    let (whole, groups) = live_store(150, 10_000);
    let name = journal_name(1);
    let bytes = &whole[&name];
    assert_eq!(bytes.len(), 12_288);
    let in_page = |page: usize| groups.iter().filter(|(begin, _)| begin / 4096 == page).count();
    assert!((0..3).all(|page| in_page(page) > 20), "many groups in each of its pages");
    let cuts: Vec<usize> = (0..bytes.len()).collect();
    in_parallel(&cuts, 2, |length| {
        let (offset, reason) = refused_for(&with(&whole, &name, bytes[..*length].to_vec()), &name);
        assert!(offset <= *length as u64, "{length}: {offset}, {reason}");
    });
    for extra in [&[0][..], &[1], &[0; 4096]] {
        let (offset, _) = refused_for(&with(&whole, &name, [&bytes[..], extra].concat()), &name);
        assert_eq!(offset, bytes.len() as u64);
    }
    // And the twins: as long as it was it opens; and with the space of its newest groups never written, as far as those
    // before them lead: that is what a disk which honours no fsync leaves, and what no length tells.
    assert_eq!(contents(&opened(&whole, RecoverPolicy::Fail).0), at(150));
    let mut lost = bytes.clone();
    lost[groups[148].0..].fill(0);
    assert_eq!(contents(&opened(&with(&whole, &name, lost), RecoverPolicy::Fail).0), at(148));
}

#[test]
fn an_older_snapshot_and_the_journals_since_lose_nothing() {
    let whole = closed_store();
    let newest = snapshot_name(2);
    for (wrong, bytes) in damages(&whole[&newest]).into_iter().step_by(7) {
        let (store, disk) = opened(&with(&whole, &newest, bytes.clone()), RecoverPolicy::Previous);
        assert_eq!((contents(&store), store.generation().get()), (at(4), 4), "byte {wrong}");
        store.close().unwrap();
        let mut expected = without(&whole, &newest);
        expected.insert(format!("damaged-0-{newest}"), bytes);
        assert_eq!(disk.live_image(), expected, "everything is kept as it was");
        // From then on the store opens without any policy, and goes on.
        let store = open(&disk).unwrap();
        assert_eq!((contents(&store), store.generation().get()), (at(4), 4));
        grant(&store, 9);
        assert_eq!(store.generation().get(), 5);
    }
}

#[test]
fn what_is_lost_is_told_by_the_generation_and_nothing_is_deleted() {
    let whole = closed_store();
    let (older, newest) = (snapshot_name(0), snapshot_name(2));
    let spoil = |image: &Image, name: &str, bit: usize| with(image, name, flipped(&image[name], bit));
    let cut = |image: &Image, name: &str, length: usize| with(image, name, image[name][..length].to_vec());
    let [one, two, three] = [1, 2, 3].map(journal_name);
    let group = 1024 * 8 + 200;
    let no_snapshot = spoil(&whole, &newest, 900);
    // What is wrong, the generation that is used, and what is set aside.
    let cases = [
        (spoil(&whole, &three, group), 3, vec![&three]),
        (spoil(&whole, &three, 8 * 70), 3, vec![&three]),
        (spoil(&whole, &three, 8 * 520), 3, vec![&three]),
        (cut(&whole, &three, 1030), 3, vec![&three]),
        (cut(&whole, &three, 10), 3, vec![&three]),
        (spoil(&whole, &two, group), 2, vec![&two, &three]),
        (spoil(&whole, &two, 8 * 3), 2, vec![&two, &three]),
        (without(&whole, &two), 2, vec![&three]),
        (spoil(&no_snapshot, &one, group), 0, vec![&newest, &one, &two, &three]),
        (without(&no_snapshot, &one), 0, vec![&newest, &two, &three]),
        (spoil(&no_snapshot, &three, group), 3, vec![&newest, &three]),
    ];
    for (image, generation, aside) in cases {
        let case = format!("{aside:?}, {generation}");
        assert!(matches!(refused(&image, RecoverPolicy::Fail), OpenError::Damaged { .. }), "{case}");
        let (store, disk) = opened(&image, RecoverPolicy::Previous);
        let leapt = generation + LEAP;
        assert_eq!((store.generation().get(), contents(&store)), (leapt, at(generation)), "{case}");
        assert_eq!(store.durable_generation().get(), leapt);
        store.close().unwrap();
        let after = disk.live_image();
        for (name, bytes) in &image {
            let kept = if aside.contains(&name) { format!("damaged-0-{name}") } else { name.clone() };
            assert_eq!(&after[&kept], bytes, "{case}: {name}");
        }
        assert_eq!(after.len(), image.len() + 1, "one new snapshot: {case}");
        // From then on without any policy; and what comes then is not lost either.
        let store = open(&disk).unwrap();
        assert_eq!((store.generation().get(), contents(&store)), (leapt, at(generation)), "{case}");
        grant(&store, 9);
        drop(store);
        let store = open(&disk).unwrap();
        assert_eq!((store.generation().get(), store.is_trusted(id(9))), (leapt + 1, true), "{case}");
    }
    // Not needed, so not missed; but an operator may want it as long as there is no newer snapshot.
    for (image, name) in
        [(spoil(&whole, &one, 8 * 70), &one), (spoil(&whole, &one, group), &one), (cut(&whole, &older, 9), &older)]
    {
        let (store, disk) = opened(&image, RecoverPolicy::Fail);
        assert_eq!((store.generation().get(), contents(&store)), (4, at(4)));
        store.close().unwrap();
        assert_eq!(disk.live_image(), image);
        let store = open_small(&disk);
        (10..20).for_each(|number| grant(&store, number));
        store.close().unwrap();
        assert!(!disk.live_image().contains_key(name), "gone with the next snapshot");
    }
}

#[test]
fn empty_begins_anew_only_when_no_snapshot_is_whole() {
    let whole = closed_store();
    let (newest, older) = (snapshot_name(2), snapshot_name(0));
    let cut = |name: &str| whole[name][..70].to_vec();
    let one = with(&whole, &newest, cut(&newest));
    let (store, _) = opened(&one, RecoverPolicy::Empty);
    assert_eq!((contents(&store), store.generation().get()), (at(4), 4), "the older one is whole");
    let both = with(&one, &older, cut(&older));
    for policy in [RecoverPolicy::Fail, RecoverPolicy::Previous] {
        assert!(matches!(refused(&both, policy), OpenError::Damaged { path, .. } if path.ends_with(&newest)));
    }
    let (store, disk) = opened(&both, RecoverPolicy::Empty);
    assert_eq!((contents(&store), store.generation().get()), (records([]), 2 + LEAP));
    store.close().unwrap();
    let after = disk.live_image();
    for name in both.keys().filter(|name| *name != GENESIS) {
        assert_eq!(after[&format!("damaged-0-{name}")], both[name], "{name}");
    }
    assert_eq!(contents(&open(&disk).unwrap()), records([]));
}

#[test]
fn an_empty_store_takes_the_place_of_no_journal_of_another_store_or_of_a_newer_release() {
    let whole = closed_store();
    let mut damaged = whole.clone();
    for name in [snapshot_name(2), snapshot_name(0)] {
        damaged.get_mut(&name).unwrap().truncate(70);
    }
    let mut other = damaged.clone();
    other.insert(journal_name(3), closed_store()[&journal_name(3)].clone());
    assert!(matches!(refused(&other, RecoverPolicy::Empty), OpenError::OtherStore { .. }));
    let mut newer = damaged.clone();
    let bytes = newer.get_mut(&journal_name(3)).unwrap();
    bytes[8] = 4;
    fix_checksums(bytes);
    assert!(matches!(refused(&newer, RecoverPolicy::Empty), OpenError::NewerFormat { found: 4, .. }));
    // And the twin.
    assert_eq!(contents(&opened(&damaged, RecoverPolicy::Empty).0), records([]));
}

#[test]
fn a_damaged_mark_is_replaced_only_when_allowed() {
    let whole = closed_store();
    for (_, bytes) in damages(&whole[GENESIS]).into_iter().step_by(11) {
        let (store, disk) = opened(&with(&whole, GENESIS, bytes.clone()), RecoverPolicy::Previous);
        assert_eq!((contents(&store), store.generation().get()), (at(4), 4));
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
    let mut journals = whole.clone();
    journals.retain(|name, _| !name.starts_with("snapshot-"));
    for policy in [RecoverPolicy::Fail, RecoverPolicy::Previous] {
        assert!(matches!(refused(&marked, policy), OpenError::DataMissing { .. }));
        assert!(matches!(refused(&journals, policy), OpenError::DataMissing { .. }), "differences from what?");
    }
    assert_eq!(contents(&opened(&marked, RecoverPolicy::Empty).0), records([]));
    // And the twin: data without a mark is a creation cut short, which opens and gets its mark.
    let (store, disk) = opened(&without(&whole, GENESIS), RecoverPolicy::Fail);
    assert_eq!(contents(&store), at(4));
    assert_eq!(disk.live_image()[GENESIS], whole[GENESIS]);
}

#[test]
fn a_journal_that_is_missing_is_missed() {
    let whole = closed_store();
    let (offset, reason) = refused_for(&without(&whole, &journal_name(2)), &journal_name(3));
    assert_eq!((offset, reason), (80, format!("goes on from {}, which is missing", journal_name(2))));
    // The newest one: the one before it says that another follows.
    let rotated = rotated_store().live_image();
    let (offset, reason) = refused_for(&without(&rotated, &journal_name(2)), &journal_name(1));
    assert_eq!((offset, &*reason), (512, "another journal goes on from here, and is missing"));
    let (store, _) = opened(&without(&rotated, &journal_name(2)), RecoverPolicy::Previous);
    assert_eq!((store.generation().get(), contents(&store)), (2 + LEAP, at(2)));
    // Of a running store, too, as soon as it has gone on to another journal.
    let running = running_store_with_two_journals();
    let (offset, reason) = refused_for(&without(&running, &journal_name(2)), &journal_name(1));
    assert_eq!((offset, &*reason), (512, "another journal goes on from here, and is missing"));
    assert_eq!(contents(&opened(&running, RecoverPolicy::Fail).0), at(60));
    // And the twin: one that leads up to the newest snapshot alone is not.
    let (store, _) = opened(&without(&rotated, &journal_name(1)), RecoverPolicy::Fail);
    assert_eq!((store.generation().get(), contents(&store)), (3, at(3)));
}

#[test]
fn a_file_of_another_store_is_refused_and_left_alone() {
    let (whole, other) = (closed_store(), closed_store());
    let foreign = with(&whole, &snapshot_name(9), other[&snapshot_name(2)].clone());
    assert!(refused_for(&foreign, &snapshot_name(9)).1.contains('2'), "it is called by another generation");
    for name in [snapshot_name(2), journal_name(1), journal_name(3)] {
        let foreign = with(&whole, &name, other[&name].clone());
        for policy in POLICIES {
            let error = refused(&foreign, policy);
            assert!(matches!(&error, OpenError::OtherStore { path } if path.ends_with(&name)), "{error:?}");
        }
    }
    let foreign = with(&whole, GENESIS, other[GENESIS].clone());
    assert!(matches!(refused(&foreign, RecoverPolicy::Fail), OpenError::OtherStore { .. }));
}

#[test]
fn a_newer_format_is_refused_and_left_alone() {
    let whole = closed_store();
    for name in [GENESIS, &snapshot_name(2), &journal_name(1), &journal_name(3)] {
        let mut bytes = whole[name].clone();
        bytes[8] = 4;
        fix_checksums(&mut bytes);
        for policy in POLICIES {
            let error = refused(&with(&whole, name, bytes.clone()), policy);
            assert!(
                matches!(&error, OpenError::NewerFormat { path, found: 4, supported: 3 } if path.ends_with(name)),
                "{error:?}"
            );
        }
    }
}

#[test]
fn a_journal_under_another_name_is_damage() {
    let whole = closed_store();
    let image = with(&whole, &journal_name(7), whole[&journal_name(3)].clone());
    let (offset, reason) = refused_for(&image, &journal_name(7));
    assert_eq!((offset, &*reason), (64, "journal 3 under this name"));
    let (store, disk) = opened(&image, RecoverPolicy::Previous);
    assert_eq!((store.generation().get(), contents(&store)), (4 + LEAP, at(4)));
    assert_eq!(disk.live_image()[&format!("damaged-0-{}", journal_name(7))], image[&journal_name(7)]);
    // And the twin: a number beyond all that are ever given is no name of ours.
    let image = with(&whole, &journal_name(u64::MAX), whole[&journal_name(3)].clone());
    assert_eq!(contents(&opened(&image, RecoverPolicy::Fail).0), at(4));
}

#[test]
fn a_generation_that_leaves_no_room_for_another_is_none_of_ours() {
    let whole = closed_store();
    let numbered = |generation: u64| {
        let mut bytes = whole[&snapshot_name(2)].clone();
        bytes[40..48].copy_from_slice(&generation.to_le_bytes());
        fix_checksums(&mut bytes);
        with(&whole, &snapshot_name(generation), bytes)
    };
    // Whoever put the file there, the next grant must have a number.
    for image in [numbered(u64::MAX), numbered(1 << 63), with(&whole, &snapshot_name(u64::MAX), vec![0])] {
        for policy in POLICIES {
            let (store, _) = opened(&image, policy);
            assert_eq!(store.generation().get(), 4);
            assert_eq!(store.grant(record(9)).unwrap().generation().get(), 5);
        }
    }
    // A journal that leads there.
    let leading_to = |generation: u64| {
        let mut bytes = whole[&journal_name(3)].clone();
        let commit = bytes.windows(16).position(|it| it == [3u64.to_le_bytes(), 4u64.to_le_bytes()].concat()).unwrap();
        bytes[commit + 8..commit + 16].copy_from_slice(&generation.to_le_bytes());
        bytes[528..536].copy_from_slice(&generation.to_le_bytes());
        fix_checksums(&mut bytes);
        with(&whole, &journal_name(3), bytes)
    };
    for generation in [1 << 63, u64::MAX] {
        assert_eq!(refused_for(&leading_to(generation), &journal_name(3)).0, 1024);
    }
    // And the twins: a large number that leaves room, in either.
    let large = (1 << 63) - 1;
    for (image, expected) in [(numbered(large), at(2)), (leading_to(large), at(4))] {
        let (store, disk) = opened(&image, RecoverPolicy::Fail);
        assert_eq!(store.generation().get(), large);
        assert!(matches!(store.grant(record(9)), Err(WriteError::Full(_))), "and no number is used twice");
        assert_eq!(contents(&store), expected);
        drop(store);
        assert_eq!(open(&disk).unwrap().generation().get(), large);
    }
}

#[test]
fn leftovers_of_a_crash_are_cleaned_up_and_stand_in_nobodys_way() {
    let mut littered = closed_store();
    let whole = littered.clone();
    let (snapshot, journal) = (snapshot_name(5), journal_name(4));
    for leftover in [&*snapshot, &*journal, GENESIS] {
        littered.insert(format!("{leftover}.tmp0"), vec![1, 2, 3]);
        littered.insert(format!("{leftover}.tmp17"), vec![]);
    }
    littered.insert("notes.txt".to_owned(), b"not ours".to_vec());
    littered.insert(format!("{journal}.tmpx"), b"nor this".to_vec());
    let (store, disk) = opened(&littered, RecoverPolicy::Fail);
    grant(&store, 5);
    drop(store);
    let mut expected: Vec<&str> = whole.keys().map(String::as_str).chain(["notes.txt", &journal]).collect();
    let not_ours = format!("{journal}.tmpx");
    expected.push(&not_ours);
    expected.sort_unstable();
    assert_eq!(disk.live_image().keys().collect::<Vec<_>>(), expected, "what is not ours stays");
}

#[test]
fn leftovers_that_cannot_be_removed_stand_in_nobodys_way_either() {
    let leftover = format!("{}.tmp0", journal_name(4));
    let littered = with(&closed_store(), &leftover, vec![1, 2, 3]);
    let (_, disk) = opened(&littered, RecoverPolicy::Fail);
    let removal = disk.log().iter().position(|call| *call == Call::Remove).unwrap();
    let disk = SimDisk::from_image(&littered);
    disk.set_fault(Some(Fault { call: removal, sticky: false, errno: 5 }));
    let store = open(&disk).unwrap();
    assert_eq!(disk.live_image()[&leftover], [1, 2, 3], "the fault hit the removal");
    grant(&store, 5);
    drop(store);
    assert_eq!(contents(&open(&disk).unwrap()), records([1, 3, 4, 5]));
    assert!(!disk.live_image().contains_key(&leftover));
}
