//! Journals that are shorter than they were, or whose newest changes are zeros.
//!
//! What must hold: where a change may be missing a repair says so, and who may have been revoked by it; where every one is there,
//! it loses nothing.

use super::*;

/// Looks at a repair of this image; says whether it tells of a loss.
fn tells(image: &Image, seen: Option<u64>, what: &str) -> bool {
    let disk = SimDisk::from_image(image);
    if let Ok(store) = open_store(&disk) {
        assert_eq!(Model::of(&store), Model::without(None, true), "{what}: it opened, and something is missing");
        return false;
    }
    let (_, reached) = reach(&disk, false);
    let reached = reached.unwrap();
    let found = salvaged(&disk, reached.as_ref(), seen, false).unwrap();
    let from = reached.map(|(generation, _, lossy)| (generation, lossy));
    let lost = lost(None, from, found.as_ref(), is_open(&disk).unwrap());
    let found = found.unwrap();
    let whole = Model::without(None, true);
    let trusted: BTreeSet<u32> = found.tables.trusted.iter().map(|record| record.node_id.get()).collect();
    let is_lost = trusted != whole.trusted || found.tables.sides.revoked.len() != whole.revoked.len();
    let told = lost.is_some_and(|lost| !lost.starts_with("nothing"));
    assert!(told || !is_lost, "{what}: lost without a word: {:?}", found.uncertain);
    assert_eq!(found.is_all(), !told, "{what}");
    let uncertain: BTreeSet<u32> = found.uncertain.peers.iter().map(|peer| peer.get()).collect();
    let back: Vec<_> = trusted.intersection(&whole.revoked).filter(|peer| !uncertain.contains(peer)).collect();
    assert!(back.is_empty(), "{what}: {back:?} are trusted again without a word");
    told
}

#[test]
fn a_cut_of_a_journal_anywhere_is_told_wherever_a_change_may_be_missing() {
    let image = closed();
    let name = journal_name(3);
    let (_, _, end) = places(&image)[9];
    let open = spoilt(&image, &name, |bytes| bytes[512..640].fill(0));
    for length in 0..end + 64 {
        let cut = spoilt(&image, &name, |bytes| bytes.truncate(length));
        assert_eq!(tells(&cut, None, &format!("closed, {length}")), length < end, "closed, {length}");
        // Without a mark it is not known what stood behind the cut.
        let cut = spoilt(&open, &name, |bytes| bytes.truncate(length));
        assert!(tells(&cut, None, &format!("open, {length}")), "open, {length}");
    }
    // One that another goes on from: that tells how much of it counts.
    let name = journal_name(2);
    let (_, _, end) = places(&image)[6];
    for length in 0..end + 64 {
        let cut = spoilt(&image, &name, |bytes| bytes.truncate(length));
        assert_eq!(tells(&cut, None, &format!("in the middle, {length}")), length < end, "in the middle, {length}");
    }
}

#[test]
fn zeros_in_place_of_the_newest_changes_are_told_by_the_mark_that_is_left() {
    let image = closed();
    let name = journal_name(3);
    for (_, begin, _) in &places(&image)[7..] {
        assert!(tells(&spoilt(&image, &name, |bytes| bytes[*begin..].fill(0)), None, "zeros"), "{begin}");
        // And with one wrong bit in the mark.
        let both = spoilt(&image, &name, |bytes| {
            bytes[*begin..].fill(0);
            bytes[530] ^= 4;
        });
        assert!(tells(&both, None, "zeros, and a bit of the mark"), "{begin}");
        // A mark that nothing can be read of is no sign that nothing is missing.
        let both = spoilt(&image, &name, |bytes| {
            bytes[*begin..].fill(0);
            bytes[512..576].fill(0x5a);
        });
        assert!(tells(&both, None, "zeros, and the mark"), "{begin}");
    }
    // Nothing but headers: there was at least one change.
    assert!(tells(&spoilt(&image, &name, |bytes| bytes[128..].fill(0)), None, "headers alone"));
}

/// What the home knows is known of the store.
#[test]
fn a_generation_that_the_home_saw_is_told_as_missing() {
    let image = closed();
    // One wrong bit, which costs nothing.
    let image = spoilt(&image, &journal_name(2), |bytes| bytes[1040] ^= 1);
    assert!(!tells(&image, Some(10), "as far as it came"));
    assert!(tells(&image, Some(12), "further"));
    let disk = SimDisk::from_image(&image);
    let reached = would_reach(&disk, RecoverPolicy::Previous, now()).unwrap();
    let found = salvaged(&disk, reached.as_ref(), Some(12), false).unwrap().unwrap();
    assert_eq!((&*found.gaps, &*found.uncertain.generations), (&[(10, 12)][..], &[(10, Some(12))][..]));
    assert_eq!(found.uncertain.peers.len(), Model::without(None, true).trusted.len());
}

/// Blocks as long as there are.
#[test]
fn a_flipped_bit_in_a_large_change_costs_nothing() {
    let disk = SimDisk::new();
    let store = TrustStore::options().journal_sizes(1 << 20, 1 << 30).open_storage(Arc::new(disk.clone())).unwrap();
    let grants = |batch: &mut crate::store::Batch<'_>| {
        (1..=3000).for_each(|peer| {
            let _ = batch.grant(TrustRecord::new(id(peer), None));
        });
    };
    store.update(grants).unwrap().1.wait_durable().unwrap();
    let revocations = |batch: &mut crate::store::Batch<'_>| {
        (1..=2000).for_each(|peer| {
            let _ = batch.revoke(id(peer));
        });
    };
    store.update(revocations).unwrap().1.wait_durable().unwrap();
    store.grant(TrustRecord::new(id(5000), None)).unwrap().wait_durable().unwrap();
    store.close().unwrap();
    let image = disk.live_image();
    let name = journal_name(1);
    let end = image[&name].iter().rposition(|byte| *byte != 0).unwrap();
    for (number, at) in (1024..end).step_by(end / 23).enumerate() {
        let image = spoilt(&image, &name, |bytes| bytes[at] ^= 1 << (number % 8));
        let disk = SimDisk::from_image(&image);
        assert!(open_store(&disk).is_err());
        let (_, reached) = reach(&disk, false);
        let found = salvaged(&disk, reached.unwrap().as_ref(), None, false).unwrap().unwrap();
        assert_eq!((found.tables.trusted.len(), found.tables.sides.revoked.len()), (1001, 2000), "byte {at}");
        assert!(found.is_all() && found.uncertain.is_nothing(), "byte {at}: {:?}", found.uncertain);
        assert_eq!(found.righted, [(name.clone(), at as u64)]);
    }
}
