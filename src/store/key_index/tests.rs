//! The index against a set: whatever goes in and out, while tables fill up, overflow and are replaced.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests say what must hold by panicking")]

use std::collections::BTreeSet;

use super::*;

fn peer(id: u32) -> NodeId {
    NodeId::new(id).unwrap()
}

fn empty() -> (KeyIndex, Upkeep) {
    KeyIndex::new(Mix::new(7), 0, core::iter::empty())
}

/// Numbers that repeat from run to run.
fn numbers() -> impl FnMut(u32) -> u32 {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    move |below| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        ((state >> 32) % u64::from(below)) as u32
    }
}

/// Ids whose places are the lowest of all: they want the same line.
fn crowded(count: usize) -> Vec<NodeId> {
    (0..u32::MAX).filter_map(|place| NodeId::new(Mix::new(7).unmix(place))).take(count).collect()
}

/// Every line counts those that passed it by, and no id stands twice.
fn check(index: &KeyIndex, upkeep: &Upkeep, model: &BTreeSet<u32>) {
    let lines = index.table(upkeep.current).unwrap();
    let all: Vec<(usize, u32)> = (0..lines.len())
        .flat_map(|number| ids(lines.get(number).unwrap()).filter(|id| *id != 0).map(move |id| (number, id)))
        .collect();
    assert_eq!(all.iter().map(|(_, id)| *id).collect::<BTreeSet<_>>(), *model);
    assert_eq!((all.len(), upkeep.len), (model.len(), model.len()));
    let mut passed = vec![0; lines.len()];
    for (at, id) in all {
        for (number, _) in way(lines, index.mix.mix(id)).take_while(|(number, _)| *number != at) {
            passed[number] += 1;
        }
    }
    let counted: Vec<u32> =
        (0..lines.len()).map(|number| high(lines.get(number).unwrap()[7].load(Ordering::Relaxed))).collect();
    assert_eq!(counted, passed);
}

#[test]
fn whatever_goes_in_and_out_it_answers_like_a_set_through_several_tables() {
    let (index, mut upkeep) = empty();
    let (mut model, mut number) = (BTreeSet::new(), numbers());
    for step in 0..60_000 {
        let id = 1 + number(20_000);
        // It grows at first, then shrinks.
        if number(10) < (if step < 40_000 { 7 } else { 3 }) {
            upkeep.insert(&index, peer(id));
            model.insert(id);
        } else {
            upkeep.remove(&index, peer(id));
            model.remove(&id);
        }
        let other = 1 + number(20_000);
        for id in [id, other] {
            assert_eq!(index.contains(peer(id)), Some(model.contains(&id)), "step {step}, id {id}");
        }
        if step % 3000 == 0 {
            check(&index, &upkeep, &model);
        }
    }
    check(&index, &upkeep, &model);
    assert!(upkeep.tables() >= 4, "only {} tables", upkeep.tables());
}

#[test]
fn ids_that_want_the_same_line_pass_it_by_and_are_found_and_forgotten() {
    let (index, mut upkeep) = empty();
    let crowd = crowded(60);
    assert!(crowd.iter().all(|peer| home(index.table(0).unwrap(), index.mix.mix(peer.get())) == 0));
    let mut model = BTreeSet::new();
    for peer in &crowd {
        upkeep.insert(&index, *peer);
        model.insert(peer.get());
        check(&index, &upkeep, &model);
    }
    assert!(high(index.table(0).unwrap().get(2).unwrap()[7].load(Ordering::Relaxed)) > 0, "nothing passed by");
    // The first ones go: those behind them stay where they are, and are found.
    for (at, gone) in crowd.iter().enumerate() {
        upkeep.remove(&index, *gone);
        model.remove(&gone.get());
        for (later, other) in crowd.iter().enumerate() {
            assert_eq!(index.contains(*other), Some(later > at));
        }
        check(&index, &upkeep, &model);
    }
}

#[test]
fn an_id_equal_to_the_number_of_those_that_passed_by_is_not_found_by_that() {
    let (index, mut upkeep) = empty();
    for peer in crowded(18) {
        upkeep.insert(&index, peer);
    }
    let lines = index.table(0).unwrap();
    let passed = high(lines.get(0).unwrap()[7].load(Ordering::Relaxed));
    assert_eq!(passed, 3);
    // Asked at the line itself, whatever the place of that id is.
    assert!(!look(lines.get(0).unwrap(), passed).0);
    assert!(look(lines.get(0).unwrap(), crowded(1)[0].get()).0);
}

/// These with their places, which ascend.
fn in_order(peers: impl IntoIterator<Item = NodeId>) -> impl Iterator<Item = (u32, NodeId)> {
    let mut peers: Vec<_> = peers.into_iter().map(|peer| (Mix::new(7).mix(peer.get()), peer)).collect();
    peers.sort_unstable();
    peers.into_iter()
}

#[test]
fn built_from_peers_it_has_them_and_room_for_more() {
    let peers = || (1..=10_000).map(peer);
    let (index, mut upkeep) = KeyIndex::new(Mix::new(7), 10_000, in_order(peers()));
    assert!(peers().all(|peer| index.contains(peer) == Some(true)));
    assert!((10_001..20_000).all(|id| index.contains(peer(id)) == Some(false)));
    assert_eq!((upkeep.len, upkeep.tables()), (10_000, 1));
    let bytes = index.table(0).unwrap().len() * 64;
    assert!(bytes <= 10_000 * 8, "{bytes} bytes");
    let mut model: BTreeSet<u32> = (1..=10_000).collect();
    check(&index, &upkeep, &model);
    // And it goes on like one that was filled one by one.
    upkeep.remove(&index, peer(7));
    upkeep.insert(&index, peer(10_001));
    model.remove(&7);
    model.insert(10_001);
    check(&index, &upkeep, &model);
}

#[test]
fn built_from_a_crowd_it_counts_whom_each_line_passed_by_and_goes_on_at_the_first_line_behind_the_last() {
    // Some that want the first line, some that want the last, and some in between.
    let last = (0..u32::MAX).filter_map(|back| NodeId::new(Mix::new(7).unmix(u32::MAX - back)));
    for (front, back) in [(0, 0), (0, 15), (15, 16), (16, 40), (60, 61), (200, 100)] {
        let some = (1..=50).map(peer).chain(crowded(front)).chain(last.clone().take(back));
        let model: BTreeSet<u32> = some.map(NodeId::get).collect();
        let peers = || model.iter().copied().map(peer);
        let (index, upkeep) = KeyIndex::new(Mix::new(7), model.len(), in_order(peers()));
        check(&index, &upkeep, &model);
        assert!(peers().all(|peer| index.contains(peer) == Some(true)), "{front} in front, {back} behind");
    }
}

#[test]
fn without_a_table_nobody_is_answered_wrongly() {
    let (index, mut upkeep) = empty();
    upkeep.insert(&index, peer(7));
    upkeep.give_up(&index);
    assert_eq!(index.contains(peer(7)), None);
    upkeep.insert(&index, peer(8));
    upkeep.remove(&index, peer(7));
    assert_eq!((index.contains(peer(7)), index.contains(peer(8))), (None, None));
}
