//! Who may have been revoked by a change that cannot be read.
//!
//! What must hold: whoever stays trusted though such a change may have revoked them is told, and nobody else is; with
//! `--untrust-uncertain` none of them stays trusted.

use super::*;
use crate::persist::salvage::Uncertain;

/// What a repair finds; panics if the store opens.
fn found(image: &Image) -> Salvaged {
    let disk = SimDisk::from_image(image);
    assert!(open_store(&disk).is_err());
    let (_, reached) = reach(&disk, false);
    salvaged(&disk, reached.unwrap().as_ref(), None, false).unwrap().unwrap()
}

fn ids(uncertain: &Uncertain) -> BTreeSet<u32> {
    uncertain.peers.iter().map(|peer| peer.get()).collect()
}

/// Who was granted in front of this step, and is trusted in the end without it.
fn in_doubt(lost: usize) -> BTreeSet<u32> {
    let behind: BTreeSet<u32> = steps()
        .into_iter()
        .skip(lost + 1)
        .filter_map(|step| if let Step::Grant(peer) = step { Some(peer) } else { None })
        .collect();
    Model::without(Some(lost), false).trusted.difference(&behind).copied().collect()
}

#[test]
fn whoever_a_change_that_cannot_be_read_may_have_revoked_is_told() {
    let image = closed();
    let mut revoked = 0;
    for (number, (seq, begin, end)) in places(&image).into_iter().enumerate() {
        for byte in [0x5a, 0, 0xff] {
            let image = spoilt(&image, &journal_name(seq), |bytes| bytes[begin..end].fill(byte));
            let found = found(&image);
            let uncertain = &found.uncertain;
            let generation = number as u64;
            assert_eq!(uncertain.generations, [(generation, Some(generation + 1))], "{number}: {uncertain:?}");
            assert_eq!(ids(uncertain), in_doubt(number), "{number}: {uncertain:?}");
            assert!(!found.is_all(), "{number}: {found:?}");
            let after = uncertain.untrusted(&found.tables);
            assert_eq!(after.trusted.len(), found.tables.trusted.len() - uncertain.peers.len());
            if let Step::Revoke(peer) | Step::Remove(peer) = steps()[number] {
                assert!(found.tables.trusted.contains(id(peer)) && ids(uncertain).contains(&peer), "{number}");
                assert!(!after.trusted.contains(id(peer)));
                revoked += 1;
            }
        }
    }
    assert_eq!(revoked, 9);
}

/// The twin: what was read leaves nothing open, though its grants are not kept.
#[test]
fn nobody_is_uncertain_where_all_restrictions_were_read() {
    let image = closed();
    let (_, begin, end) = places(&image)[3];
    for at in begin..end {
        let uncertain = found(&spoilt(&image, &journal_name(1), |bytes| bytes[at] ^= 1 << (at % 8))).uncertain;
        assert!(uncertain.is_nothing() && uncertain.peers.is_empty(), "byte {at}: {uncertain:?}");
    }
    // Nor by damage to headers and marks.
    for (seq, at) in [(2, 3), (1, 70), (3, 520)] {
        let found = found(&spoilt(&image, &journal_name(seq), |bytes| bytes[at] ^= 1));
        assert!(found.uncertain.is_nothing() && found.is_all(), "{found:?}");
    }
}

#[test]
fn who_is_granted_behind_what_cannot_be_read_is_not_uncertain() {
    let disk = SimDisk::new();
    let store = TrustStore::options().journal_sizes(1 << 16, 1 << 30).open_storage(Arc::new(disk.clone())).unwrap();
    let grant = |peer| store.grant(TrustRecord::new(id(peer), None)).unwrap().wait_durable().unwrap();
    grant(1);
    grant(2);
    grant(3);
    // Once more, under another key than none.
    store.grant(TrustRecord::new(id(1), key(5))).unwrap().wait_durable().unwrap();
    store.close().unwrap();
    let image = disk.live_image();
    let mut at = 1024;
    let mut groups = vec![at];
    while image[&journal_name(1)][at] != 0 {
        let bytes = &image[&journal_name(1)];
        let kind = bytes[at + 8];
        at += 8 + u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        if kind == 254 {
            groups.push(at);
        }
    }
    let image = spoilt(&image, &journal_name(1), |bytes| bytes[groups[2]..groups[3]].fill(0x5a));
    let uncertain = found(&image).uncertain;
    assert_eq!((ids(&uncertain), &*uncertain.generations), ([2].into(), &[(2, Some(3))][..]));
}

/// Granted behind one gap is granted in front of the next.
#[test]
fn of_two_changes_that_cannot_be_read_the_later_one_says_who_is_uncertain() {
    let image = closed();
    let places = places(&image);
    let gone = |image: &Image, number: usize| {
        let (seq, begin, end) = places[number];
        spoilt(image, &journal_name(seq), |bytes| bytes[begin..end].fill(0x5a))
    };
    let found = found(&gone(&gone(&image, 1), 8));
    assert!(matches!(steps()[8], Step::Revoke(3)) && found.tables.trusted.contains(id(3)));
    assert_eq!(ids(&found.uncertain), [3, 4, 5].into(), "{:?}", found.uncertain);
    assert_eq!(found.uncertain.generations, [(1, Some(2)), (8, Some(9))]);
}

#[test]
fn restrictions_in_damaged_bytes_are_named_as_uncertain() {
    let image = closed();
    let (seq, begin, _) = places(&image)[3];
    let bytes = &image[&journal_name(seq)];
    let second = begin + 8 + u32::from_le_bytes(bytes[begin..begin + 4].try_into().unwrap()) as usize;
    assert_eq!((bytes[begin + 8], bytes[second + 8]), (101, 14), "one who is gone, and a mark");
    // Two wrong bits in the checksum of either block.
    let image = spoilt(&image, &journal_name(seq), |bytes| {
        bytes[begin + 4] ^= 0x11;
        bytes[second + 4] ^= 0x11;
    });
    let found = found(&image);
    let named = [(Of::Peer(id(2)), What::Revoked), (Of::Peer(id(2)), What::Untrusted)];
    assert_eq!(found.uncertain.named, named.into(), "{found:?}");
    assert!(found.kept.is_empty() && found.tables.trusted.contains(id(2)) && ids(&found.uncertain).contains(&2));
}

#[test]
fn behind_a_journal_that_is_missing_or_cannot_be_read_all_are_uncertain() {
    let whole = closed();
    let trusted = |number: usize| {
        let mut model = Model::default();
        steps().into_iter().take(number).for_each(|step| model.take(step));
        model.trusted
    };
    // The newest: nobody knows how far it led.
    let mut headless = spoilt(&whole, &journal_name(3), |bytes| bytes[..128].fill(0x5a));
    let uncertain = found(&headless).uncertain;
    assert_eq!((ids(&uncertain), &*uncertain.generations), (trusted(7), &[(7, None)][..]));
    // One in the middle: up to where the next one goes on.
    headless = spoilt(&whole, &journal_name(2), |bytes| bytes[..128].fill(0x5a));
    let mut missing = whole.clone();
    missing.remove(&journal_name(2));
    for image in [headless, missing] {
        let uncertain = found(&image).uncertain;
        assert_eq!(uncertain.generations, [(4, Some(7))], "{uncertain:?}");
        assert_eq!(ids(&uncertain), [1].into(), "{uncertain:?}");
    }
}

/// A repair that was cut short behind its new state left the damaged files under their names: all that can be read of them is in
/// that state, and the second run has nothing to be uncertain of.
#[test]
fn what_an_earlier_repair_has_read_is_uncertain_no_more() {
    let image = closed();
    let places = places(&image);
    let image = spoilt(&image, &journal_name(3), |bytes| {
        bytes[512..576].fill(0);
        bytes[places[7].2 - 40] ^= 0x5a;
        bytes[places[9].2 - 40..places[9].2 - 4].fill(0x5a);
    });
    let first = found(&image);
    assert_eq!(first.uncertain.generations, [(7, Some(8)), (9, None)], "{:?}", first.uncertain);
    let disk = SimDisk::from_image(&image);
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    open(&storage, RecoverPolicy::Previous, Some(first.tables)).unwrap();
    let mut left = image;
    left.extend(disk.live_image().into_iter().filter(|(name, _)| name.ends_with(".tks") && name.contains("-00000001")));
    let second = found(&left);
    assert!(second.uncertain.is_nothing(), "{:?} {:?} {}", second.uncertain, second.damaged, second.newest);
    assert!(second.kept.is_empty(), "{:?}", second.kept);
    assert_eq!(second.tables.trusted.len(), Model::of(&open_store(&disk).unwrap()).trusted.len());
}
