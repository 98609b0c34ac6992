//! A repair with `--empty` on a disk that is full, that fails at any call, and that loses power at any call.
//!
//! What must hold: before the new state is durable every file has its name; no file's bytes are lost at any time; and the same
//! command, given again, comes to what it would have come to.

use super::*;
use crate::testing::sim_disk::Fault;

/// Stores of which no state is whole, and what can be kept of them.
fn hopeless() -> Vec<(&'static str, Image, Model)> {
    let whole = closed();
    let snapshot = snapshot_name(0);
    let cut = spoilt(&whole, &snapshot, |bytes| bytes.truncate(50));
    let torn = spoilt(&cut, &journal_name(3), |bytes| bytes[1033] ^= 1);
    let mut none = whole.clone();
    none.remove(&snapshot);
    let unmarked = |image: &Image| {
        let mut image = image.clone();
        image.remove("GENESIS");
        image
    };
    let marks = Model { trusted: BTreeSet::new(), ..Model::without(None, true) };
    vec![
        ("snapshot", cut.clone(), marks.clone()),
        ("snapshot and journal", torn.clone(), marks.clone()),
        ("no snapshot", none.clone(), marks),
        // Nothing says which store the marks belong to.
        ("snapshot and mark", spoilt(&torn, "GENESIS", |bytes| bytes[20] ^= 1), Model::default()),
        ("snapshot, no mark", unmarked(&cut), Model::default()),
        ("journals alone", unmarked(&none), Model::default()),
    ]
}

/// As the command does it.
fn repair_to_empty(disk: &SimDisk) -> Result<(), OpenError> {
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    if rehearse(&storage, RecoverPolicy::Fail, None).is_ok() {
        return Ok(());
    }
    let reached = would_reach(disk, RecoverPolicy::Empty, now())?;
    let instead = salvaged(disk, reached.as_ref(), None, true)?.map(|found| found.tables);
    open(&storage, RecoverPolicy::Empty, instead).map(drop)
}

fn is_kept(before: &Image, after: &Image) -> bool {
    before.values().all(|bytes| after.values().any(|kept| kept == bytes))
}

fn has_names(before: &Image, after: &Image) -> bool {
    before.iter().all(|(name, bytes)| after.get(name) == Some(bytes))
}

#[test]
fn a_full_disk_sets_nothing_aside_and_the_second_run_goes_on() {
    for (what, image, expected) in hopeless() {
        let disk = SimDisk::from_image(&image);
        disk.set_write_bytes_max(Some(0));
        repair_to_empty(&disk).unwrap_err();
        assert!(has_names(&image, &disk.live_image()), "{what}: {:?}", disk.live_image().keys());
        disk.set_write_bytes_max(None);
        repair_to_empty(&disk).unwrap();
        assert!(is_kept(&image, &disk.live_image()), "{what}");
        assert_eq!(Model::of(&open_store(&disk).unwrap()), expected, "{what}");
    }
}

#[test]
fn an_error_of_any_call_loses_nothing_and_the_second_run_goes_on() {
    for (what, image, expected) in hopeless() {
        let (mut before, mut after) = (0, 0);
        for call in 0.. {
            let disk = SimDisk::from_image(&image);
            disk.set_fault(Some(Fault { call, sticky: call % 2 == 0, errno: 28 }));
            let failed = repair_to_empty(&disk).is_err();
            let is_over = disk.calls() <= call;
            disk.set_fault(None);
            let left = disk.live_image();
            assert!(is_kept(&image, &left), "{what}, call {call}");
            let is_there = left.keys().any(|name| name.ends_with(".tks") && name.contains("-00000001"));
            assert!(is_there || has_names(&image, &left), "{what}, call {call}: {:?}", left.keys());
            if failed {
                *(if is_there { &mut after } else { &mut before }) += 1;
            }
            repair_to_empty(&disk).unwrap_or_else(|error| panic!("{what}, call {call}: {error}"));
            assert!(is_kept(&image, &disk.live_image()), "{what}, call {call}");
            assert_eq!(Model::of(&open_store(&disk).unwrap()), expected, "{what}, call {call}");
            if is_over {
                break;
            }
        }
        assert!(before > 3 && after > 3, "{what}: {before} {after}");
    }
}

#[test]
fn a_crash_at_any_call_loses_nothing_and_the_second_run_goes_on() {
    for (what, image, expected) in hopeless() {
        let disk = SimDisk::from_image(&image);
        disk.record();
        repair_to_empty(&disk).unwrap();
        let (mut before, mut after) = (0, 0);
        for point in disk.take_trail() {
            point.images(20, point.call as u64, &mut |left| {
                let call = point.call;
                assert!(is_kept(&image, left), "{what}, call {call}: {:?}", left.keys());
                *(if has_names(&image, left) { &mut before } else { &mut after }) += 1;
                let disk = SimDisk::from_image(left);
                repair_to_empty(&disk)
                    .unwrap_or_else(|error| panic!("{what}, call {call}: {error}: {:?}", left.keys()));
                assert_eq!(Model::of(&open_store(&disk).unwrap()), expected, "{what}, call {call}");
            });
        }
        assert!(before > 3 && after > 3, "{what}: {before} {after}");
    }
}
