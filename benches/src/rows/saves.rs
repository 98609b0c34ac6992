//! What saving and opening a large store costs.
//!
//! What must hold: the JSON holds the same records, and neither side waits for a disk where it says so; opening reads files
//! that are in the system's cache, and JSON is parsed from memory.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a measurement: it removes its files and stops when something does not hold"
)]

use core::hint::black_box;
use std::time::Instant;

use trustkeep::TrustStore;
use trustkeep::testing::doors::encode_snapshot;

use super::fixtures::MILLION;
use super::{Kind, Plan, Wanted, goal, nanos};
use crate::changes::settle;
use crate::directory::{StoreFiles, Written, device};
use crate::figure::{Range, Side, Unit};
use crate::goals::Line;
use crate::peers::old_json::{OldRecord, filled};
use crate::rounds::{alternate, mean};
use crate::workload::record;

pub(super) const SAVES: Kind = Kind { goals: &["bytes_one_change_1m", "save_1m", "open_1m"], measure: saves };

const SIZE: u32 = MILLION;

fn saves(plan: &Plan, wanted: &Wanted<'_>) -> Vec<Line> {
    let dir = plan.fixtures.files(&plan.home, "saves");
    let store = TrustStore::open(&dir).unwrap();
    settle(&dir).unwrap();
    let mut lines = Vec::new();
    if wanted.any(&["bytes_one_change_1m"]) {
        lines.push(one_change(plan, &store, &dir));
    }
    if !wanted.any(&["save_1m", "open_1m"]) {
        return lines;
    }
    let records: Vec<OldRecord> = filled(SIZE).into_values().collect();
    let (mut bytes, mut json) = (Vec::new(), Vec::new());
    let rounds = plan.or(2, 7);
    let [save, pretty] = alternate(
        rounds,
        [
            &mut || {
                // Into memory that is there, on both sides.
                bytes.clear();
                mean(1, || _ = encode_snapshot(&store, |part| bytes.extend_from_slice(part)).unwrap())
            },
            &mut || {
                json.clear();
                mean(1, || serde_json::to_writer_pretty(&mut json, &records).unwrap())
            },
        ],
    );
    drop(records);
    let sizes =
        format!("{} of ours, {} of JSON", Unit::Bytes.show(bytes.len() as f64), Unit::Bytes.show(json.len() as f64));
    lines.push(
        goal("save_1m").measured(nanos("trustkeep", save), Some(nanos("serde_json, pretty", pretty))).note(sizes),
    );
    if wanted.any(&["open_1m"]) {
        store.close().unwrap();
        drop((store, bytes));
        let [open, parse] = alternate(
            rounds,
            [
                &mut || {
                    let start = Instant::now();
                    let store = TrustStore::options().create(false).open(&dir).unwrap();
                    let taken = start.elapsed();
                    assert_eq!(store.snapshot().len(), SIZE as usize);
                    drop_all_of(store);
                    crate::nanos(taken) as f64
                },
                &mut || {
                    let start = Instant::now();
                    let records: Vec<OldRecord> = serde_json::from_slice(&json).unwrap();
                    let taken = start.elapsed();
                    assert_eq!(records.len(), SIZE as usize);
                    drop_all_of(records);
                    crate::nanos(taken) as f64
                },
            ],
        );
        lines.push(goal("open_1m").measured(nanos("trustkeep", open), Some(nanos("serde_json, parse alone", parse))));
    }
    std::fs::remove_dir_all(dir).unwrap();
    lines
}

/// Drops it, and has the allocator do at once what it would put off until somebody asks for a large piece. After a million
/// texts that takes it tens of milliseconds, and the next contestant would pay for them.
fn drop_all_of<T>(contents: T) {
    drop(contents);
    drop(black_box(Vec::<u8>::with_capacity(64 << 10)));
}

/// A round is the median of some changes, so that space taken ahead in one of them does not count for all.
fn one_change(plan: &Plan, store: &TrustStore, dir: &std::path::Path) -> Line {
    let (disk, key, mut network) = (device(dir).unwrap(), crate::key(), 1);
    let ours: Vec<f64> = (0..plan.rounds())
        .map(|_| {
            let handed: Vec<f64> = (0..21)
                .map(|_| {
                    network += 1;
                    let before = Written::now(disk).unwrap();
                    store.grant(record(u32::from(network), key, network)).unwrap().wait_durable().unwrap();
                    Written::now(disk).unwrap().since(before).handed as f64
                })
                .collect();
            Range::of(&handed).unwrap().median
        })
        .collect();
    let files = StoreFiles::read(dir).unwrap();
    assert!(!files.writing, "a snapshot was written meanwhile");
    let mut snapshot = 0.0;
    let _ = encode_snapshot(store, |part| snapshot += part.len() as f64).unwrap();
    let whole = Side::new("a whole snapshot", Unit::Bytes, vec![snapshot; ours.len()]);
    goal("bytes_one_change_1m").measured(Side::new("trustkeep, one change", Unit::Bytes, ours), Some(whole))
}
