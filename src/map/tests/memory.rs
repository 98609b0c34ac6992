//! Memory of old versions comes back when, and not before, nobody can reach it, and to the system after a large map has
//! become small.

use super::versions::{BOUNDS, Model, check_shape, gathered, node, record};
use crate::map::TrustMap;
use crate::map::change::Bounds;
use crate::map::mix::Mix;
use crate::map::pool::{Pool, Surplus};
use crate::peer::TrustRecord;

fn filled(len: u32) -> TrustMap {
    let mix = Mix::new(9);
    let mut records: Vec<TrustRecord> = (1..=len).map(|id| record(id, 0)).collect();
    records.sort_by_key(|record| mix.mix(record.node_id.get()));
    TrustMap::from_sorted(mix, records.into_iter())
}

#[test]
fn publishing_again_and_again_needs_no_more_memory() {
    let mut map = filled(10_000);
    let mut bytes = 0;
    for round in 0..20_000u32 {
        map = map.apply([(node(1 + round % 10_000), Some(record(1 + round % 10_000, 1)))]);
        if round == 1000 {
            bytes = map.usage().bytes;
        }
    }
    let usage = map.usage();
    assert!(usage.bytes <= bytes + (2 << 20), "{} bytes, then {}", bytes, usage.bytes);
    assert!(usage.versions <= 32, "{usage:?}");
}

#[test]
fn a_held_version_keeps_its_nodes_and_no_later_ones() {
    let old = filled(1000);
    let own = check_shape(&old, Bounds::FAST);
    let mut map = old.clone();
    for round in 0..5000u32 {
        map = map.apply([(node(1 + round % 1000), Some(record(1 + round % 1000, 1)))]);
    }
    map.sweep();
    let usage = map.usage();
    assert_eq!(usage.versions, 2);
    assert_eq!(usage.nodes, own + check_shape(&map, Bounds::FAST), "all replaced by now, and none in between kept");
    assert!(old.iter().all(|record| record.network == 0) && old.len() == 1000);
    drop(old);
    map.sweep();
    assert_eq!(map.usage().nodes, check_shape(&map, Bounds::FAST));
}

/// Versions go in an order that makes nodes wait for one version after another.
#[test]
fn nodes_move_from_version_to_version_until_the_last_goes() {
    for bounds in BOUNDS {
        let mut map = TrustMap::with_bounds(bounds, Mix::new(5), core::iter::empty());
        let mut held = Vec::new();
        for round in 0..40u32 {
            map = map.apply((1..60).map(|id| (node(id * (1 + round % 3)), Some(record(id * (1 + round % 3), 1)))));
            map = map.apply((1..30).map(|id| (node(id), None)));
            let model: Model = map.iter().map(|record| (record.node_id, record)).collect();
            held.push((map.clone(), model));
        }
        // First those in the middle, from both sides outwards.
        while !held.is_empty() {
            drop(held.remove(held.len() / 2));
            map.sweep();
            for (version, model) in &held {
                check_shape(version, bounds);
                assert!(
                    version.iter().map(|record| (record.node_id, record)).eq(model.clone()) || {
                        let again: Model = version.iter().map(|record| (record.node_id, record)).collect();
                        &again == model
                    }
                );
            }
        }
        let usage = map.usage();
        assert_eq!((usage.versions, usage.retired, usage.nodes), (1, 0, check_shape(&map, bounds)));
    }
}

#[test]
fn a_large_map_that_became_small_gives_its_memory_back() {
    let mut map = filled(300_000);
    let large = map.usage().bytes;
    assert!(large > 12 << 20, "{large}");
    for chunk in 0..290u32 {
        map = map.apply((chunk * 1000 + 1..=chunk * 1000 + 1000).map(|id| (node(id), None)));
    }
    map.sweep();
    assert!(map.trim(), "what is needed may be needed again: it is kept until the next time");
    assert!(!map.trim());
    let usage = map.usage();
    assert_eq!(map.len(), 10_000);
    assert!(map.iter().all(|record| record.node_id.get() > 290_000));
    assert_eq!(usage.nodes, check_shape(&map, Bounds::FAST));
    assert!(usage.bytes < large / 2, "{large} bytes, then {}", usage.bytes);
}

/// What comes and goes all the time stays: the system would have to give it again each time.
#[test]
fn memory_that_was_needed_since_the_last_look_is_kept() {
    let mut map = filled(200_000);
    let become_small = |mut map: TrustMap| {
        for chunk in 0..190u32 {
            map = map.apply((chunk * 1000 + 1..=chunk * 1000 + 1000).map(|id| (node(id), None)));
        }
        map.sweep();
        map
    };
    map = become_small(map);
    assert!(map.trim(), "there is much that is not needed now");
    for chunk in 0..190u32 {
        map = map.apply((chunk * 1000 + 1..=chunk * 1000 + 1000).map(|id| (node(id), Some(record(id, 1)))));
    }
    map = become_small(map);
    let before = map.usage().bytes;
    // Not all of it was, where the same records lie closer together than before.
    assert!(map.trim() && map.usage().bytes > before / 4 * 3, "{before} bytes, then {}", map.usage().bytes);
    // And the twin: not needed since, it goes.
    assert!(!map.trim() && map.usage().bytes < before / 2, "{before} bytes, then {}", map.usage().bytes);
}

/// Two may trim at once: what the one is about to give back, the other has nothing to do with.
#[test]
#[cfg(target_os = "linux")]
fn memory_whose_pages_are_being_given_back_does_not_go_meanwhile() {
    let (mut pool, mut last) = (Pool::default(), 0);
    for number in 0..3 {
        let memory = Pool::ready_memory();
        last = memory.address();
        let _ = pool.add(memory);
        if number == 0 {
            let _ = pool.end_trim();
        }
    }
    // Of the others only few are known to be spare yet: those that lie last.
    let Some(Surplus::Pages(pages)) = pool.surplus() else { panic!("no pages") };
    let _ = pool.end_trim();
    let Some(Surplus::Chunk(other)) = pool.surplus() else { panic!("no chunk") };
    assert_ne!(other.address(), last);
    let _ = pool.add(other);
    pages.give_back();
    pool.bare(&pages);
    let _ = pool.end_trim();
    let Some(Surplus::Chunk(all)) = pool.surplus() else { panic!("no chunk") };
    assert_eq!(all.address(), last, "now it may");
}

/// What a large map grows by is there before it is needed; a small one takes it as it goes.
#[test]
fn memory_is_made_ready_before_it_is_needed() {
    let small = filled(100).apply([(node(1), None)]);
    assert!(!small.is_short());
    let mut map = filled(50_000);
    let mut taken_late = 0;
    for chunk in 50..150u32 {
        let next = map.apply((chunk * 1000 + 1..=chunk * 1000 + 1000).map(|id| (node(id), Some(record(id, 1)))));
        drop(core::mem::replace(&mut map, next));
        let bytes = map.usage().bytes;
        map.make_ready();
        assert!(!map.is_short());
        // The next change takes nothing from the system but what is ready.
        let next = map.apply([(node(chunk), Some(record(chunk, 2)))]);
        taken_late += next.usage().bytes - bytes.max(map.usage().bytes);
        map = next;
    }
    assert_eq!(taken_late, 0);
}

/// Nothing is idle here: what is free lies between what is not.
#[test]
fn records_that_lie_far_apart_are_moved_together() {
    let old = filled(150_000);
    let dense = old.usage().bytes;
    assert!(old.begin_move(0).is_none(), "a map that was just built needs no moving");
    // A part of the leaves, each in other memory as long as the old version is held.
    let changes: Vec<_> = (1..=150_000).step_by(30).map(|id| (node(id), Some(record(id, 1)))).collect();
    let mut map = old.apply(changes);
    drop(old);
    map.sweep();
    assert!(map.begin_move(64 << 20).is_none(), "not for so little");
    while map.trim() {}
    let sparse = map.usage().bytes;
    assert!(sparse > dense + dense / 4, "{dense} bytes, then {sparse}");
    let held = map.clone();
    let contents: Vec<TrustRecord> = map.iter().collect();
    map = gathered(&map, 32);
    let mut differences = 0;
    map.diff(&held, &mut |_, _| differences += 1);
    assert_eq!(differences, 0);
    assert!(map.iter().eq(contents.iter().copied()) && held.iter().eq(contents));
    check_shape(&map, Bounds::FAST);
    assert!(held.moved(&[0]).is_none(), "there is a newer version");
    drop(held);
    map.sweep();
    let _ = map.trim();
    while map.trim() {}
    let usage = map.usage();
    assert_eq!(usage.nodes, check_shape(&map, Bounds::FAST));
    assert!(usage.bytes <= dense + dense / 8 + (2 << 20), "{dense} bytes, {sparse}, then {}", usage.bytes);
    assert!(map.begin_move(0).is_none(), "and need it no more");
}

#[test]
fn a_small_map_is_small() {
    let map = filled(100);
    assert!(map.usage().bytes <= 512 << 10, "{:?}", map.usage());
}

/// The last of all versions goes on another thread, after everything else of the map.
#[test]
fn any_thread_may_be_the_last() {
    let map = filled(50_000);
    let old = map.clone();
    let next = map.apply([(node(1), None)]);
    drop((map, next));
    std::thread::scope(|scope| {
        scope.spawn(move || {
            assert_eq!(old.iter().count(), 50_000);
            drop(old);
        });
    });
}

/// Eight versions and more are kept until somebody looks; of large changes that would be as many times what they touch.
#[test]
fn large_changes_do_not_pile_up() {
    const LEN: u32 = 20_000;
    let all = |network: u16| (1..=LEN).map(move |id| (node(id), Some(record(id, network))));
    let mut map = TrustMap::new(Mix::new(3)).apply(all(0));
    let once = map.usage().bytes;
    for network in 1..30 {
        map = map.apply(all(network));
    }
    let now = map.usage().bytes;
    assert!(now < 4 * once, "{once} bytes, then {now}");
}

/// However many versions are held, a change looks at a few of them.
#[test]
fn a_change_looks_at_a_few_of_the_versions_that_were_held() {
    const LEN: u32 = 100_000;
    let mut map = filled(LEN);
    let mut held = Vec::new();
    for id in 1..=5000 {
        held.push(map.clone());
        map = map.apply([(node(id), Some(record(id, 1)))]);
    }
    drop(held);
    let before = map.usage().versions;
    assert!(before >= 5000, "{before}");
    // So many nodes are replaced that the next change looks.
    map = map.apply((1..=LEN).map(|id| (node(id), Some(record(id, 2)))));
    map = map.apply([(node(1), Some(record(1, 3)))]);
    let now = map.usage().versions;
    assert!(now + 200 >= before, "{before} versions, and two changes later {now}");
    // And the twin: changes come by all of them, and so does a sweep.
    let swept = map.clone();
    for round in 0..2000u32 {
        map = map.apply([(node(1 + round), Some(record(1 + round, 4)))]);
    }
    assert!(map.usage().versions <= 32, "{:?}", map.usage());
    drop(swept);
    map.sweep();
    assert_eq!((map.usage().versions, map.usage().retired), (1, 0));
}

/// What a large change replaced is given back by those that change as much, and by the sweep.
#[test]
fn who_comes_behind_a_large_change_does_not_pay_for_it() {
    const LEN: u32 = 100_000;
    let mut map = filled(LEN);
    map = map.apply((1..=LEN).map(|id| (node(id), Some(record(id, 2)))));
    let before = map.usage().nodes;
    map = map.apply([(node(1), Some(record(1, 3)))]);
    let given_back = before + 8 - map.usage().nodes;
    assert!(given_back <= 300, "{given_back} of {before} nodes");
    assert!(map.usage().retired > 1000, "{:?}", map.usage());
    // And the twin.
    map.sweep();
    assert_eq!(map.usage().retired, 0);
    assert_eq!(map.usage().nodes, check_shape(&map, Bounds::FAST));
}

/// Memory that only a held version uses here and there cannot be had. That is found out once, and not again and again.
#[test]
fn what_a_held_version_pins_is_looked_for_once() {
    let mut map = filled(150_000);
    let all: Vec<TrustRecord> = map.iter().collect();
    let change = |map: &TrustMap, network: u16, of: &dyn Fn(usize) -> bool| {
        let chosen = all.iter().enumerate().filter(|(at, _)| of(at / 512 % 8));
        map.apply(chosen.map(|(_, old)| (old.node_id, Some(record(old.node_id.get(), network)))))
    };
    // All in other memory; then most of it back in the first, where the rest goes as well.
    map = change(&map, 1, &|_| true);
    map.sweep();
    map = change(&map, 2, &|part| part != 0);
    map.sweep();
    let pinning = map.clone();
    map = change(&map, 3, &|part| part == 0);
    map.sweep();
    // What can be moved is; then there is nothing more to be had.
    let mut moves = 0;
    while let Some(places) = map.begin_move(0) {
        for some in places.chunks(64) {
            map = map.moved(some).unwrap();
        }
        map.end_move();
        map.sweep();
        moves += 1;
        assert!(moves < 20, "it is moved again and again");
    }
    assert!(map.begin_move(0).is_none());
    assert_eq!(map.usage().leaving, 0, "and nothing is being left meanwhile");
    // And the twin: once the version is let go of, there is, or memory goes to the system at once.
    let before = map.usage().bytes;
    drop(pinning);
    map.sweep();
    map = gathered(&map, 64);
    map.sweep();
    while map.trim() {}
    let now = map.usage().bytes;
    assert!(now < before - before / 8, "{before} bytes, then {now}");
}
