//! How much memory a record takes.
//!
//! What must hold: both sides are counted by the operating system, in a process of its own each: anonymous resident memory
//! (`RssAnon`) less what it was before the map was there. That counts what an allocator keeps for itself, what a growing
//! table has left behind and what a map takes past the allocator, on both sides alike; ours holds the whole store, with its
//! threads. A counting allocator would miss the last two.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement: it starts processes, prints, and stops when something does not hold"
)]

use core::hint::black_box;
use std::path::Path;
use std::process::Command;

use trustkeep::TrustStore;

use super::fixtures::MILLION;
use super::{Kind, Plan, Wanted, goal};
use crate::figure::{Side, Unit};
use crate::goals::Line;
use crate::peers::maps::{Bare, entries};
use crate::resident::{anonymous as resident, settle};
use crate::workload::{Terms, id, record};

pub(super) const MEMORY: Kind = Kind { goals: &["memory_built_1m", "memory_churned_1m"], measure: memory };

const SIZE: u32 = MILLION;
const PART: u32 = 10_000;

fn memory(plan: &Plan, _: &Wanted<'_>) -> Vec<Line> {
    let passes = plan.or(1, 3);
    let mut figures = [const { Vec::new() }; 4];
    // What is opened is the same each time, to a page; what is churned takes twenty seconds.
    for _ in 0..plan.or(1, 3) {
        // The child changes it.
        let dir = plan.fixtures.files(&plan.home, "memory");
        for (what, at) in [("store", 0), ("hashbrown", 2)] {
            let output = Command::new(std::env::current_exe().unwrap())
                .arg(CHILD)
                .arg(passes.to_string())
                .arg(what)
                .arg(&dir)
                .output()
                .unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let text = String::from_utf8(output.stdout).unwrap();
            let mut bytes = text.split_whitespace().map(|figure| figure.parse::<f64>().unwrap() / f64::from(SIZE));
            for side in figures.iter_mut().skip(at).take(2) {
                side.push(bytes.next().unwrap());
            }
        }
        std::fs::remove_dir_all(dir).unwrap();
    }
    let [ours_built, ours_churned, peer_built, peer_churned] = figures;
    let line = |name, ours, peer| {
        let side = |label, rounds| Side::new(label, Unit::Bytes, rounds);
        goal(name).measured(side("trustkeep, whole store", ours), Some(side("hashbrown", peer)))
    };
    vec![line("memory_built_1m", ours_built, peer_built), line("memory_churned_1m", ours_churned, peer_churned)]
}

/// The flag with which a measuring program starts itself again.
pub(crate) const CHILD: &str = "--memory-of";

/// What a child does if it was started as one: prints the bytes after building and after churning.
pub fn child() -> bool {
    let arguments: Vec<_> = std::env::args_os().collect();
    let [_, flag, passes, what, dir] = arguments.as_slice() else { return false };
    if flag != CHILD {
        return false;
    }
    let passes: u16 = passes.to_string_lossy().parse().unwrap();
    let [built, churned] = if what == "store" { of_store(Path::new(dir), passes) } else { of_hashbrown(passes) };
    println!("{built} {churned}");
    true
}

fn of_store(dir: &Path, passes: u16) -> [u64; 2] {
    let before = resident();
    let store = TrustStore::options().create(false).open(dir).unwrap();
    settle(&store);
    let built = resident().saturating_sub(before);
    let key = crate::key();
    for pass in 0..passes {
        for first in (0..SIZE).step_by(PART as usize) {
            let part = || first..first + PART;
            let _ = store.update(|batch| part().for_each(|number| _ = batch.remove(id(number)))).unwrap();
            let granted = |number| record(number, key, 2 + pass);
            let (fits, _) = store.update(|batch| part().all(|number| batch.grant(granted(number)).is_ok())).unwrap();
            assert!(fits);
        }
    }
    settle(&store);
    let churned = resident().saturating_sub(before);
    assert_eq!(store.snapshot().len(), SIZE as usize);
    // What was changed is not wanted in the next round.
    drop(store);
    [built, churned]
}

fn of_hashbrown(passes: u16) -> [u64; 2] {
    let before = resident();
    let mut map = Bare::with_capacity_and_hasher(SIZE as usize, Default::default());
    map.extend(entries(SIZE));
    let built = resident().saturating_sub(before);
    let key = crate::key();
    for pass in 0..passes {
        for first in (0..SIZE).step_by(PART as usize) {
            for number in first..first + PART {
                let _ = map.remove(&id(number));
            }
            for number in first..first + PART {
                map.insert(id(number), Terms::of(&record(number, key, 2 + pass)));
            }
        }
    }
    let churned = resident().saturating_sub(before);
    assert_eq!(black_box(&map).len(), SIZE as usize);
    [built, churned]
}
