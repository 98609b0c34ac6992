//! The index against a set: whatever goes in and out, while tables fill up, overflow and are replaced.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests say what must hold by panicking"
)]

use std::collections::BTreeSet;

use super::ids::{self, Ids};
use super::remainders::{self, Remainders};
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

/// Every line counts those that are not on it, and no id stands twice.
fn check(index: &KeyIndex, upkeep: &Upkeep, model: &BTreeSet<u32>) {
    let all = match index.table(upkeep.current).unwrap() {
        Table::Ids(table) => check_ids(index.mix, table),
        Table::Remainders(table) => {
            let mut passed = vec![0; table.lines.len()];
            let mut all = check_ids(index.mix, &table.others);
            for id in &all {
                let place = index.mix.mix(*id);
                passed[home(&table.lines, place)] += u16::from(remainders::remainder(place) != 0);
            }
            let line = |number| table.lines.get(number).unwrap();
            for (number, passed) in passed.into_iter().enumerate() {
                assert_eq!(remainders::passed(line(number)), passed, "line {number}");
                for id in table.ids_on(number, index.mix) {
                    assert_eq!(home(&table.lines, index.mix.mix(id)), number);
                    all.push(id);
                }
            }
            all
        }
    };
    assert_eq!((all.len(), upkeep.len), (model.len(), model.len()));
    assert!(all.into_iter().collect::<BTreeSet<_>>() == *model);
}

fn check_ids(mix: Mix, table: &Ids) -> Vec<u32> {
    let line = |number| table.lines.get(number).unwrap();
    let mut passed = vec![0; table.lines.len()];
    let mut all = Vec::new();
    for number in 0..table.lines.len() {
        for id in ids::ids(line(number)).filter(|id| *id != 0) {
            for (before, _) in table.way(mix.mix(id)).take_while(|(before, _)| *before != number) {
                passed[before] += 1;
            }
            all.push(id);
        }
    }
    let counted: Vec<u32> = (0..passed.len()).map(|number| passed_by(line(number))).collect();
    assert_eq!(counted, passed);
    all
}

fn passed_by(line: &Line) -> u32 {
    ids::high(line[7].load(Ordering::Relaxed))
}

fn ids_of(index: &KeyIndex, number: usize) -> &Ids {
    match index.table(number).unwrap() {
        Table::Ids(table) => table,
        Table::Remainders(_) => panic!("a table of remainders"),
    }
}

fn remainders_of(index: &KeyIndex, number: usize) -> &Remainders {
    match index.table(number).unwrap() {
        Table::Remainders(table) => table,
        Table::Ids(_) => panic!("a table of ids"),
    }
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
    assert!(crowd.iter().all(|peer| home(&ids_of(&index, 0).lines, index.mix.mix(peer.get())) == 0));
    let mut model = BTreeSet::new();
    for peer in &crowd {
        upkeep.insert(&index, *peer);
        model.insert(peer.get());
        check(&index, &upkeep, &model);
    }
    assert!(passed_by(ids_of(&index, 0).lines.get(2).unwrap()) > 0, "nothing passed by");
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
    let line = ids_of(&index, 0).lines.get(0).unwrap();
    let passed = passed_by(line);
    assert_eq!(passed, 3);
    // Asked at the line itself, whatever the place of that id is.
    assert!(!ids::look(line, passed).0);
    assert!(ids::look(line, crowded(1)[0].get()).0);
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
    let bytes = index.table(0).unwrap().lines() * 64;
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

/// With so many it begins with remainders.
const MANY: u32 = 400_000;

/// Of so many, built at once, and these besides.
fn many(besides: &[NodeId]) -> (KeyIndex, Upkeep, BTreeSet<u32>) {
    let model: BTreeSet<u32> = (1..=MANY).chain(besides.iter().map(|peer| peer.get())).collect();
    let (index, upkeep) = KeyIndex::new(Mix::new(7), model.len(), in_order(model.iter().copied().map(peer)));
    (index, upkeep, model)
}

/// Those that have the same remainder as this peer, and those that are on the same line or the next ones.
fn look_alikes(index: &KeyIndex, peer: NodeId) -> impl Iterator<Item = NodeId> {
    let place = index.mix.mix(peer.get());
    let others = (0..=9).flat_map(move |far| {
        [place.wrapping_add(far << 16), place.wrapping_sub(far << 16), place.wrapping_add(far), place.wrapping_sub(far)]
    });
    let mix = index.mix;
    others.filter_map(move |place| NodeId::new(mix.unmix(place)))
}

#[test]
fn many_are_told_apart_by_their_remainders() {
    let (index, _, model) = many(&[]);
    assert_eq!(remainders_of(&index, 0).lines.len(), remainders::LINES_MIN);
    assert!((1..2 * MANY).all(|id| index.contains(peer(id)) == Some(id <= MANY)));
    for id in (1..=MANY).step_by(97) {
        for other in look_alikes(&index, peer(id)) {
            assert_eq!(index.contains(other), Some(model.contains(&other.get())), "{other} like {id}");
        }
    }
}

#[test]
fn ids_that_a_full_line_has_no_room_for_and_those_of_no_remainder_are_among_the_others() {
    // The first one has the place 0.
    let crowd = crowded(70);
    for besides in [0, 1, 20, 31, 32, 33, 70] {
        let (index, mut upkeep, mut model) = many(&crowd[..besides]);
        check(&index, &upkeep, &model);
        for (at, peer) in crowd.iter().enumerate() {
            upkeep.insert(&index, *peer);
            model.insert(peer.get());
            let later = crowd.get(at + 1).map(|later| index.contains(*later) == Some(model.contains(&later.get())));
            assert!(index.contains(*peer) == Some(true) && later != Some(false), "{at} of {besides}");
        }
        check(&index, &upkeep, &model);
        let table = remainders_of(&index, 0);
        assert!(table.others.contains(crowd[0].get(), 0), "the place 0 has a remainder");
        assert!(remainders::passed(table.lines.get(0).unwrap()) >= 38);
        // The places of those that are taken out are used again, and the others stay where they are.
        for gone in crowd.iter().step_by(2) {
            upkeep.remove(&index, *gone);
            model.remove(&gone.get());
        }
        check(&index, &upkeep, &model);
        for peer in &crowd {
            assert_eq!(index.contains(*peer), Some(model.contains(&peer.get())));
            for other in look_alikes(&index, *peer) {
                assert_eq!(index.contains(other), Some(model.contains(&other.get())));
            }
        }
    }
}

#[test]
fn more_lines_have_remainders_too_and_those_of_fewer_lines_are_brought_over() {
    // From ids to remainders, and from these to twice as many lines: the next one begins each.
    let begins = [(327_680_usize, 1 << 15), (1_310_720, 1 << 16)];
    for (len, lines) in begins {
        let mut model: BTreeSet<u32> = crowded(40).into_iter().map(NodeId::get).collect();
        model.extend(1..len as u32 - 40);
        let (index, mut upkeep) = KeyIndex::new(Mix::new(7), len - 1, in_order(model.iter().copied().map(peer)));
        assert_eq!((index.table(0).unwrap().lines(), upkeep.tables()), (lines, 1), "{len}");
        let last = len as u32;
        for id in last..last + 20_000 {
            if id % 3 == 0 {
                upkeep.remove(&index, peer(1 + id - last));
                model.remove(&(1 + id - last));
            }
            upkeep.insert(&index, peer(id));
            model.insert(id);
        }
        assert_eq!((remainders_of(&index, 1).lines.len(), upkeep.tables()), (2 * lines, 2), "{len}");
        check(&index, &upkeep, &model);
        assert!((1..last + 40_000).step_by(7).all(|id| index.contains(peer(id)) == Some(model.contains(&id))));
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
