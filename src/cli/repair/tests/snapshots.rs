//! What a repair makes of a damaged snapshot behind which no other stands.
//!
//! What must hold: a single wrong bit costs nothing; what cannot be set right costs the blocks that it hits, and that is told; and
//! a repair that is cut short loses nothing.

use super::*;

/// Trusted peers 1 to `grants` but for 2, which is revoked, as is key 9; in one snapshot, and with `changes` a journal
/// behind it in which peer 1 is revoked and 7001 granted.
fn compacted(grants: u32, changes: bool) -> (Image, Model) {
    let disk = SimDisk::new();
    let store = TrustStore::options().open_storage(Arc::new(disk.clone())).unwrap();
    store
        .update(|batch| (1..=grants).for_each(|peer| batch.grant(TrustRecord::new(id(peer), key(7))).unwrap()))
        .unwrap()
        .1
        .wait_durable()
        .unwrap();
    store.revoke(id(2)).unwrap().receipt.wait_durable().unwrap();
    store.revoke_key(&key(9)).unwrap().receipt.wait_durable().unwrap();
    store.close().unwrap();
    drop(store);
    let random = || Ok(crate::persist::format::StoreId { id: [3; 16], seed: 3 });
    crate::persist::compact::compact(Arc::new(disk.clone()), now(), random).unwrap();
    if changes {
        let store = open_store(&disk).unwrap();
        store.revoke(id(1)).unwrap().receipt.wait_durable().unwrap();
        store.grant(TrustRecord::new(id(7001), None)).unwrap().wait_durable().unwrap();
        store.close().unwrap();
    }
    let model = Model::of(&open_store(&disk).unwrap());
    (disk.live_image(), model)
}

fn snapshot_of(image: &Image) -> String {
    image.keys().find(|name| name.ends_with(".tks")).unwrap().clone()
}

/// Where the blocks of a snapshot begin.
fn blocks(bytes: &[u8]) -> Vec<usize> {
    let mut blocks = vec![64];
    while let Some(head) = bytes.get(blocks[blocks.len() - 1]..).filter(|rest| rest.len() > 4) {
        let length = u32::from_le_bytes(head[..4].try_into().unwrap()) as usize;
        blocks.push(blocks[blocks.len() - 1] + 8 + length);
    }
    blocks
}

/// As the command does it; none if the store opens.
fn repair_all(disk: &SimDisk, empty: bool) -> Result<Option<Salvaged>, OpenError> {
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    if rehearse(&storage, RecoverPolicy::Fail, None).is_ok() {
        return Ok(None);
    }
    let (policy, reached) = reach(disk, empty);
    let found = salvaged(disk, reached?.as_ref(), None, empty)?;
    open(&storage, policy, found.as_ref().map(|found| found.tables.clone()))?;
    Ok(found)
}

fn repaired_all(image: &Image, empty: bool) -> (Salvaged, Model) {
    let disk = SimDisk::from_image(image);
    let found = repair_all(&disk, empty).unwrap().unwrap();
    let after = disk.live_image();
    assert!(image.values().all(|bytes| after.values().any(|kept| kept == bytes)), "a file was deleted");
    (found, Model::of(&open_store(&disk).unwrap()))
}

#[test]
fn a_flipped_bit_anywhere_in_a_lone_snapshot_costs_nothing() {
    for changes in [false, true] {
        let (image, model) = compacted(4, changes);
        let name = snapshot_of(&image);
        for bit in 0..image[&name].len() * 8 {
            // Each bit of the headers and checksums, every third of the others.
            if bit > 80 * 8 && bit % 3 != 0 {
                continue;
            }
            let image = spoilt(&image, &name, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
            let (found, after) = repaired_all(&image, bit % 2 == 0);
            assert_eq!(after, model, "bit {bit}");
            assert!(found.is_all() && found.uncertain.is_nothing(), "bit {bit}: {found:?}");
            assert_eq!(found.mended, Some((name.clone(), vec![bit as u64 / 8])), "bit {bit}");
        }
    }
}

/// Blocks of 64 KiB, and one bit of each.
#[test]
fn a_flipped_bit_in_each_block_of_a_large_snapshot_costs_nothing() {
    let (image, model) = compacted(3000, true);
    let name = snapshot_of(&image);
    let places = blocks(&image[&name]);
    assert!(places.windows(2).any(|pair| pair[1] - pair[0] > 65_000) && places.len() > 4, "{places:?}");
    let image = spoilt(&image, &name, |bytes| {
        bytes[37] ^= 4;
        places.windows(2).for_each(|pair| bytes[usize::midpoint(pair[0], pair[1])] ^= 2);
    });
    let (found, after) = repaired_all(&image, false);
    assert_eq!(after, model);
    assert!(found.is_all());
    assert_eq!(found.mended.unwrap().1.len(), places.len());
}

#[test]
fn blocks_that_pass_are_kept_where_others_cannot_be_set_right() {
    for changes in [false, true] {
        let (image, model) = compacted(3000, changes);
        let name = snapshot_of(&image);
        let places = blocks(&image[&name]);
        for (number, pair) in places.windows(2).enumerate() {
            let image = spoilt(&image, &name, |bytes| bytes[pair[0] + 9..pair[1]].fill(0x5a));
            let (found, after) = repaired_all(&image, false);
            assert!(!found.is_all() && found.partly.is_some(), "{number}: {found:?}");
            assert!(found.damaged.contains(&(name.clone(), pair[0] as u64, (pair[1] - pair[0]) as u64)), "{number}");
            assert!(after.trusted.is_subset(&model.trusted) && after.revoked.is_subset(&model.revoked), "{number}");
            let lost = model.trusted.len() - after.trusted.len() + (model.revoked.len() - after.revoked.len());
            let lost = lost + (model.keys.len() - after.keys.len());
            let is_last = number + 2 == places.len();
            assert_eq!(lost == 0, is_last, "{number}: the block had something, but for the closing one");
            assert!(after.trusted.len() > 1000, "{number}: the others are kept");
            if let (Some(Some(trusted)), false) = (found.partly, changes) {
                assert_eq!(trusted as usize, model.trusted.len() - after.trusted.len(), "{number}");
            }
            // Only marks, if that is what is asked for.
            let (_, empty) = repaired_all(&image, true);
            assert!(empty.trusted.is_empty(), "{number}");
        }
    }
}

#[test]
fn without_a_mark_or_anything_that_can_be_read_it_takes_the_word_of_an_operator() {
    let (image, _) = compacted(4, false);
    let name = snapshot_of(&image);
    let nothing = spoilt(&image, &name, |bytes| bytes.fill(0x5a));
    let mut unmarked = spoilt(&image, &name, |bytes| bytes[70] ^= 1);
    unmarked.insert("GENESIS".to_owned(), vec![0; 64]);
    for image in [nothing, unmarked] {
        let disk = SimDisk::from_image(&image);
        assert!(matches!(repair_all(&disk, false), Err(OpenError::Damaged { .. })));
        assert_eq!(disk.live_image(), image);
        repair_all(&disk, true).unwrap();
        assert!(open_store(&disk).unwrap().snapshot().iter().next().is_none());
    }
}

#[test]
fn a_crash_at_any_call_while_a_snapshot_is_mended_loses_nothing() {
    let (image, model) = compacted(4, true);
    let name = snapshot_of(&image);
    // A journal whose change can be read all the same, beside it.
    let journal = image.keys().find(|name| name.ends_with(".tkj")).unwrap().clone();
    let image = spoilt(&image, &name, |bytes| bytes[70] ^= 1);
    for image in [image.clone(), spoilt(&image, &journal, |bytes| bytes[3] ^= 1)] {
        let disk = SimDisk::from_image(&image);
        disk.record();
        repair_all(&disk, false).unwrap();
        let (mut again, mut done) = (0, 0);
        for point in disk.take_trail() {
            point.images(20, point.call as u64, &mut |left| {
                assert!(image.values().all(|bytes| left.values().any(|kept| kept == bytes)), "call {}", point.call);
                let disk = SimDisk::from_image(left);
                let found = repair_all(&disk, false).unwrap_or_else(|error| panic!("call {}: {error}", point.call));
                *(if found.is_some() { &mut again } else { &mut done }) += 1;
                assert_eq!(Model::of(&open_store(&disk).unwrap()), model, "call {}", point.call);
            });
        }
        assert!(again > 3 && done > 3, "{again} {done}");
    }
}

/// Entries of all tables in one snapshot, of which a block at a time is gone.
#[test]
fn what_is_kept_of_a_snapshot_breaks_no_rule_of_the_tables() {
    use crate::machine::check::check;
    use crate::machine::outcome::Rules;
    use crate::testing::every_table::set_every_table;

    let disk = SimDisk::new();
    let store = TrustStore::options().open_storage(Arc::new(disk.clone())).unwrap();
    for number in 1..=12 {
        set_every_table(&store, number).unwrap().wait_durable().unwrap();
    }
    store.close().unwrap();
    drop(store);
    let random = || Ok(crate::persist::format::StoreId { id: [3; 16], seed: 3 });
    crate::persist::compact::compact(Arc::new(disk.clone()), now(), random).unwrap();
    let image = disk.live_image();
    let name = snapshot_of(&image);
    let places = blocks(&image[&name]);
    assert!(places.len() > 9, "a block of each table: {places:?}");
    let limits = crate::config::Limits::default();
    let rules = Rules { own_id: id(u32::MAX), config: Default::default(), policy: Default::default(), limits };
    for one in 0..places.len() - 1 {
        for other in one..places.len() - 1 {
            let image = spoilt(&image, &name, |bytes| {
                for at in [one, other] {
                    bytes[places[at] + 9..places[at + 1]].fill(0x5a);
                }
            });
            let disk = SimDisk::from_image(&image);
            let found = salvaged(&disk, None, None, false).unwrap().unwrap();
            if let Err(broken) = check(&rules, &found.tables) {
                panic!("blocks {one} and {other}: {broken}");
            }
        }
    }
}
