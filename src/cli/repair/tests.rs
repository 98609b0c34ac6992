//! What a repair keeps, after one bit of a store was flipped, after a part of it was overwritten, and after more.
//!
//! What must hold, as `docs/durability.md` says: every change whose bytes are whole is kept, in front of the damage and behind
//! it; of the one that is not, every restriction that can be read, and nothing else; and who is not kept is told by id.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests say what must hold by panicking"
)]

mod cut_journals;
mod cut_short;
mod snapshots;
mod uncertain;

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::peer::{NodeId, PublicKey, TrustRecord};
use crate::persist::recover::{journal_name, snapshot_name};
use crate::persist::salvage::{Of, What};
use crate::testing::sim_disk::{Image, SimDisk};

fn id(number: u32) -> NodeId {
    NodeId::new(number).unwrap()
}

fn key(number: u8) -> PublicKey {
    PublicKey::from_bytes(ed25519_dalek::SigningKey::from_bytes(&[number; 32]).verifying_key().to_bytes()).unwrap()
}

/// A change of the model, one generation each.
#[derive(Clone, Copy, Debug)]
enum Step {
    Grant(u32),
    Revoke(u32),
    /// Trusted no longer, without a mark.
    Remove(u32),
    RevokeKey(u8),
}

/// What a store holds of all that, in the words of the document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Model {
    trusted: BTreeSet<u32>,
    revoked: BTreeSet<u32>,
    keys: BTreeSet<[u8; 32]>,
}

impl Model {
    fn take(&mut self, step: Step) {
        match step {
            Step::Grant(peer) => drop(self.trusted.insert(peer)),
            Step::Revoke(peer) => {
                self.trusted.remove(&peer);
                self.revoked.insert(peer);
            }
            Step::Remove(peer) => drop(self.trusted.remove(&peer)),
            Step::RevokeKey(number) => drop(self.keys.insert(*key(number).as_bytes())),
        }
    }

    fn of(store: &TrustStore) -> Self {
        Self {
            trusted: store.snapshot().iter().map(|record| record.node_id.get()).collect(),
            revoked: store.revoked().iter().map(|(peer, _)| peer.get()).collect(),
            keys: store.revoked_keys().iter().map(|(key, _)| *key.as_bytes()).collect(),
        }
    }

    /// All of these steps but one; of that one what restricts, if it could be read.
    fn without(lost: Option<usize>, is_read: bool) -> Self {
        let mut model = Self::default();
        for (number, step) in steps().into_iter().enumerate() {
            let restricts = !matches!(step, Step::Grant(_));
            if lost != Some(number) || is_read && restricts {
                model.take(step);
            }
        }
        model
    }
}

/// By session.
const STEPS: [&[Step]; 3] = [
    &[Step::Grant(1), Step::Grant(2), Step::Grant(3), Step::Revoke(2)],
    &[Step::Grant(4), Step::RevokeKey(9), Step::Remove(1)],
    &[Step::Grant(5), Step::Revoke(3), Step::Grant(6)],
];

fn steps() -> Vec<Step> {
    STEPS.iter().flat_map(|steps| steps.iter().copied()).collect()
}

/// A store that went through all that, each session with a journal of its own, and closed in the end.
fn closed() -> Image {
    let disk = SimDisk::new();
    for steps in STEPS {
        let store = TrustStore::options().journal_sizes(2048, 1 << 30).open_storage(Arc::new(disk.clone())).unwrap();
        for step in steps {
            let receipt = match *step {
                Step::Grant(peer) => store.grant(TrustRecord::new(id(peer), None)).unwrap(),
                Step::Revoke(peer) => store.revoke(id(peer)).unwrap().receipt,
                Step::Remove(peer) => store.remove(id(peer)).unwrap().1,
                Step::RevokeKey(number) => store.revoke_key(&key(number)).unwrap().receipt,
            };
            receipt.wait_durable().unwrap();
        }
        store.close().unwrap();
    }
    assert_eq!(Model::of(&open_store(&disk).unwrap()), Model::without(None, true));
    disk.live_image()
}

fn open_store(disk: &SimDisk) -> Result<TrustStore, OpenError> {
    TrustStore::options().open_storage(Arc::new(disk.clone()))
}

/// Which bytes each step has: journal, where its group begins, where it ends.
fn places(image: &Image) -> Vec<(u64, usize, usize)> {
    let mut places = Vec::new();
    for (seq, steps) in (1u64..).zip(STEPS) {
        let bytes = &image[&journal_name(seq)];
        let (mut at, mut begin, before) = (1024, 1024, places.len());
        while bytes[at] != 0 {
            let kind = bytes[at + 8];
            at += 8 + u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
            if kind == 254 {
                places.push((seq, begin, at));
                begin = at;
            }
        }
        assert_eq!(places.len() - before, steps.len(), "a group for each change");
    }
    places
}

/// What was kept and what was not, and what the store holds afterwards; none if it opened as it was.
fn repaired(image: &Image) -> Option<(Option<Salvaged>, Model)> {
    let disk = SimDisk::from_image(image);
    match open_store(&disk) {
        Ok(store) => {
            assert_eq!(Model::of(&store), Model::without(None, true), "it opened, and something is missing");
            return None;
        }
        Err(error) => assert!(matches!(error, OpenError::Damaged { .. }), "{error:?}"),
    }
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let reached = would_reach(storage.as_ref(), RecoverPolicy::Previous, now()).unwrap();
    let found = salvaged(storage.as_ref(), reached.as_ref(), None, false).unwrap();
    let instead = found.as_ref().map(|found| found.tables.clone());
    open(&storage, RecoverPolicy::Previous, instead).unwrap();
    let after = disk.live_image();
    for (name, bytes) in image {
        assert!(after.values().any(|kept| kept == bytes), "{name} was deleted");
    }
    let store = open_store(&disk).unwrap();
    Some((found, Model::of(&store)))
}

fn spoilt(image: &Image, name: &str, spoil: impl Fn(&mut Vec<u8>)) -> Image {
    let mut image = image.clone();
    spoil(image.get_mut(name).unwrap());
    image
}

/// The ids that are told of with this word.
fn told(found: &Salvaged, what: What) -> Vec<Of> {
    found.lost.iter().filter(|(_, of)| *of == what).map(|(of, _)| of.clone()).collect()
}

#[test]
fn a_flipped_bit_anywhere_in_a_journal_costs_nothing() {
    let image = closed();
    let (places, steps) = (places(&image), steps());
    let mut repairs = BTreeMap::<&str, usize>::new();
    for seq in 1..=3 {
        let name = journal_name(seq);
        let end = places.iter().filter(|(of, _, _)| *of == seq).map(|(_, _, end)| *end).max().unwrap();
        for at in 0..end + 64 {
            let image = spoilt(&image, &name, |bytes| bytes[at] ^= 1 << (at % 8));
            let Some((found, model)) = repaired(&image) else { continue };
            let hit = places.iter().position(|(of, begin, end)| *of == seq && (*begin..*end).contains(&at));
            assert_eq!(model, Model::without(None, true), "journal {seq}, byte {at}");
            let found = found.unwrap();
            assert!(found.is_all() && found.uncertain.is_nothing(), "journal {seq}, byte {at}: {:?}", found.lost);
            let what = match hit.map(|hit| steps[hit]) {
                Some(Step::Grant(_)) => "grants",
                Some(_) => "restrictions",
                None => "headers",
            };
            if hit.is_some() {
                assert_eq!(found.righted, [(name.clone(), at as u64)]);
            }
            *repairs.entry(what).or_default() += 1;
        }
    }
    assert!(["grants", "restrictions", "headers"].iter().all(|what| repairs[what] > 100), "{repairs:?}");
}

#[test]
fn a_change_that_was_overwritten_costs_no_other_and_is_told_by_what_can_be_guessed() {
    let image = closed();
    let places = places(&image);
    let steps = steps();
    for (number, (seq, begin, end)) in places.iter().enumerate() {
        // Beyond what a checksum sets right.
        let image = spoilt(&image, &journal_name(*seq), |bytes| bytes[begin + 9..*end].fill(0x5a));
        let (found, model) = repaired(&image).unwrap();
        assert_eq!(model, Model::without(Some(number), false), "{:?}", steps[number]);
        let found = found.unwrap();
        assert_eq!(found.damaged.len(), 1, "{found:?}");
        assert!(!found.is_all() && found.damaged[0].0 == journal_name(*seq));
        // Behind the last one the mark tells of it.
        assert_eq!(found.gaps, [(number as u64, number as u64 + 1)], "{found:?}");
        // Zeros all over, as a block that was lost.
        let image = spoilt(&image, &journal_name(*seq), |bytes| bytes[*begin..*end].fill(0));
        let (_, model) = repaired(&image).unwrap();
        assert_eq!(model, Model::without(Some(number), false), "{:?}", steps[number]);
    }
}

#[test]
fn ids_in_a_block_that_cannot_be_set_right_are_told() {
    let image = closed();
    let (seq, begin, _) = places(&image)[3];
    // Two wrong bits, in the time of the first block's entry behind its id, or in its checksum.
    let image = spoilt(&image, &journal_name(seq), |bytes| {
        bytes[begin + 4] ^= 0x11;
        bytes[begin + 5] ^= 0x22;
    });
    let (found, model) = repaired(&image).unwrap();
    let found = found.unwrap();
    assert!(told(&found, What::Unreadable).contains(&Of::Peer(id(2))), "{found:?}");
    // The mark stands in a block of its own, which is whole.
    assert_eq!(model, Model::without(None, true));
    assert!(found.kept.contains(&(Of::Peer(id(2)), What::Revoked)), "{found:?}");
}

#[test]
fn a_store_without_a_whole_state_keeps_its_marks() {
    let image = closed();
    let image = spoilt(&image, &snapshot_name(0), |bytes| bytes.fill(0x5a));
    let disk = SimDisk::from_image(&image);
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    assert!(would_reach(storage.as_ref(), RecoverPolicy::Previous, now()).is_err());
    let reached = would_reach(storage.as_ref(), RecoverPolicy::Empty, now()).unwrap();
    let found = salvaged(storage.as_ref(), reached.as_ref(), None, true).unwrap().unwrap();
    open(&storage, RecoverPolicy::Empty, Some(found.tables.clone())).unwrap();
    let model = Model::of(&open_store(&disk).unwrap());
    let whole = Model::without(None, true);
    assert_eq!(model, Model { trusted: BTreeSet::new(), ..whole });
}

#[test]
fn every_kind_of_restriction_is_kept_of_a_change_of_which_the_grants_are_damaged() {
    use crate::store::{TransactError, Transaction};
    use crate::tables::{Revocation, TableChange};

    let disk = SimDisk::new();
    let store = TrustStore::options().journal_sizes(1 << 16, 1 << 30).open_storage(Arc::new(disk.clone())).unwrap();
    store.grant(TrustRecord::new(id(1), None)).unwrap().wait_durable().unwrap();
    let at = crate::time::WallMillis::new(1_700_000_000_000);
    let mark = Revocation { at, id: crate::peer::RevocationId::new(7) };
    let grant = |number| TableChange::Trusted(id(number), Some(TrustRecord::new(id(number), None)));
    let changes = vec![
        grant(2),
        TableChange::Trusted(id(1), None),
        TableChange::Revoked(id(3), Some(mark)),
        TableChange::RevokedKey(key(4), Some(mark)),
        TableChange::Ignored(id(5), Some(at)),
        TableChange::IgnoredKey(key(6), Some(at)),
    ];
    let changed: Result<_, TransactError<()>> =
        store.transact(|_| Ok(Transaction { changes, events: Vec::new(), value: () }));
    changed.unwrap().1.wait_durable().unwrap();
    store.close().unwrap();
    // The block of grants comes first in the second change.
    let image = disk.live_image();
    let bytes = &image[&journal_name(1)];
    let len = |at: usize| 8 + u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    let second = 1024 + len(1024) + len(1024 + len(1024));
    let image = spoilt(&image, &journal_name(1), |bytes| bytes[second + 8..second + len(second)].fill(0x5a));
    let disk = SimDisk::from_image(&image);
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let reached = would_reach(storage.as_ref(), RecoverPolicy::Previous, now()).unwrap();
    let found = salvaged(storage.as_ref(), reached.as_ref(), None, false).unwrap().unwrap();
    let of_key = |number| Of::Key(key(number).to_base64());
    let kept = BTreeSet::from([
        (Of::Peer(id(1)), What::Untrusted),
        (Of::Peer(id(3)), What::Revoked),
        (of_key(4), What::Revoked),
        (Of::Peer(id(5)), What::Ignored),
        (of_key(6), What::Ignored),
    ]);
    assert_eq!(found.kept, kept);
    open(&storage, RecoverPolicy::Previous, Some(found.tables)).unwrap();
    let store = open_store(&disk).unwrap();
    let tables = store.tables().unwrap();
    let sides = &tables.sides;
    assert_eq!((sides.revoked.get(id(3)), sides.revoked_keys.get(key(4))), (Some(&mark), Some(&mark)));
    assert!(sides.ignored.get(id(5)).is_some() && sides.ignored_keys.get(key(6)).is_some());
    assert_eq!(tables.trusted.len(), 0, "the grant is not kept, and the first is taken back");
}

/// Until the state that was read is durable the store refuses to open; a repair that a crash cut short can be made again.
#[test]
fn a_crash_at_any_call_of_a_repair_leaves_a_store_that_refuses_or_all_that_it_keeps() {
    let image = closed();
    // The first grant of the second session: all behind it is read beyond the damage.
    let (seq, begin, _) = places(&image)[4];
    let image = spoilt(&image, &journal_name(seq), |bytes| bytes[begin + 15] ^= 0x11);
    let expected = Model::without(Some(4), true);
    let disk = SimDisk::from_image(&image);
    disk.record();
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let reached = would_reach(storage.as_ref(), RecoverPolicy::Previous, now()).unwrap();
    let found = salvaged(storage.as_ref(), reached.as_ref(), None, false).unwrap().unwrap();
    open(&storage, RecoverPolicy::Previous, Some(found.tables)).unwrap();
    let (mut refused, mut opened) = (0, 0);
    for point in disk.take_trail() {
        point.images(20, point.call as u64, &mut |image| {
            let disk = SimDisk::from_image(image);
            if let Ok(store) = open_store(&disk) {
                assert_eq!(Model::of(&store), expected, "call {}", point.call);
                opened += 1;
                return;
            }
            refused += 1;
            let storage: Arc<dyn Storage> = Arc::new(disk.clone());
            let reached = would_reach(storage.as_ref(), RecoverPolicy::Previous, now()).unwrap();
            let found = salvaged(storage.as_ref(), reached.as_ref(), None, false).unwrap();
            open(&storage, RecoverPolicy::Previous, found.map(|found| found.tables)).unwrap();
            assert_eq!(Model::of(&open_store(&disk).unwrap()), expected, "again, call {}", point.call);
        });
    }
    assert!(refused > 3 && opened > 3, "{refused} {opened}");
}

/// Entries of all tables, of which each change sets some and takes some away.
#[test]
fn what_is_kept_breaks_no_rule_of_the_tables() {
    use crate::machine::check::check;
    use crate::machine::outcome::Rules;
    use crate::testing::every_table::set_every_table;

    let disk = SimDisk::new();
    let store = TrustStore::options().journal_sizes(1 << 20, 1 << 30).open_storage(Arc::new(disk.clone())).unwrap();
    for number in 1..=12 {
        set_every_table(&store, number).unwrap().wait_durable().unwrap();
    }
    store.close().unwrap();
    drop(store);
    let limits = crate::config::Limits::default();
    let rules = Rules { own_id: id(u32::MAX), config: Default::default(), policy: Default::default(), limits };
    assert!(check(&rules, &*open_store(&disk).unwrap().tables().unwrap()).is_ok());
    let image = disk.live_image();
    let name = journal_name(1);
    let end = image[&name].iter().rposition(|byte| *byte != 0).unwrap();
    for at in (1024..end).step_by(29) {
        for wrong in [1, 0x5a] {
            let image = spoilt(&image, &name, |bytes| bytes[at] ^= wrong);
            let storage: Arc<dyn Storage> = Arc::new(SimDisk::from_image(&image));
            let reached = would_reach(storage.as_ref(), RecoverPolicy::Previous, now()).unwrap();
            let Some(found) = salvaged(storage.as_ref(), reached.as_ref(), None, false).unwrap() else { continue };
            if let Err(broken) = check(&rules, &found.tables) {
                panic!("byte {at}: {broken}");
            }
        }
    }
}

/// A peer was trusted, then no longer, then asked again under the same key. The change in between is overwritten: that it waits
/// for a decision that was made long ago fits no rule (I-4).
#[test]
fn what_does_not_fit_together_without_a_change_is_let_go_and_told() {
    use crate::machine::check::check;
    use crate::machine::outcome::Rules;
    use crate::store::Transaction;
    use crate::tables::{Pending, PendingKind, Source, TableChange};
    use crate::time::{Tick, WallMillis};

    let disk = SimDisk::new();
    let store = TrustStore::options().journal_sizes(1 << 16, 1 << 30).open_storage(Arc::new(disk.clone())).unwrap();
    let waits = Pending {
        key: key(7),
        nonce: None,
        stamp: WallMillis::new(1),
        justification: String::new(),
        received_at: WallMillis::new(1),
        received_tick: Tick::new(0),
        source: Source::Node(id(7)),
        authentic: false,
        conflicts: 0,
        kind: PendingKind::Request,
        others: Vec::new(),
        proven_by: None,
        number: 1,
    };
    for change in [
        TableChange::Trusted(id(7), Some(TrustRecord::new(id(7), key(7)))),
        TableChange::Trusted(id(7), None),
        TableChange::Pending(id(7), Some(Arc::new(waits))),
    ] {
        let transaction = |_: &Tables| {
            let changes = vec![change.clone()];
            Ok::<_, core::convert::Infallible>(Transaction { changes, events: Vec::new(), value: () })
        };
        store.transact(transaction).unwrap().1.wait_durable().unwrap();
    }
    store.close().unwrap();
    let image = disk.live_image();
    let bytes = &image[&journal_name(1)];
    // The second group has one block of 17 bytes and its commit.
    let gone = (1024..bytes.len()).find(|at| bytes[*at..].starts_with(&[9, 0, 0, 0]) && bytes[at + 8] == 101).unwrap();
    let image = spoilt(&image, &journal_name(1), |bytes| bytes[gone + 9..gone + 17].fill(0x5a));
    let storage: Arc<dyn Storage> = Arc::new(SimDisk::from_image(&image));
    let reached = would_reach(storage.as_ref(), RecoverPolicy::Previous, now()).unwrap();
    let found = salvaged(storage.as_ref(), reached.as_ref(), None, false).unwrap().unwrap();
    let limits = crate::config::Limits::default();
    let rules = Rules { own_id: id(u32::MAX), config: Default::default(), policy: Default::default(), limits };
    assert!(check(&rules, &found.tables).is_ok(), "{found:?}");
    assert_eq!((found.tables.trusted.len(), found.tables.sides.pending.len()), (1, 0));
    assert!(found.lost.contains(&(Of::Peer(id(7)), What::Other)), "{found:?}");
}
