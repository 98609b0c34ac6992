//! What a change waits for while a whole snapshot is being written: durable grants at a steady pace, first while nothing
//! else happens, then while a snapshot of a large store is under way. Both in each round of one run.
//!
//! `flush_during_snapshot [--records 1000000] [--rounds 5] [--samples 300] [--pace-us 2000] [--limit-s 60] [--dir D] [--json]`
//!
//! A store writes a snapshot by itself when its journal has outgrown the latest one, so batches make it grow. They are
//! durable before anything is measured. A sample counts as "during" if a snapshot's temporary file was there when it
//! began, and as "idle" if none was there when it began and when it ended. A round ends a phase after so many samples, or
//! after `--limit-s` seconds with what it has; without one single sample there is no figure, and the exit code is 1.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a measurement: it reads the clock, keeps a pace, prints, and stops when something does not hold"
)]

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use trustkeep::{NodeId, TrustStore};
use trustkeep_benches::arguments::Arguments;
use trustkeep_benches::changes::{Changes, provoke_snapshot, settle};
use trustkeep_benches::directory::{StoreFiles, file_system, is_snapshot_being_written, temporary};
use trustkeep_benches::{Samples, Spread, decimal, fill, nanos, thousandths};

const USAGE: &str = "flush_during_snapshot [--records 1000000] [--rounds 5] [--samples 300] [--pace-us 2000] [--limit-s 60] \
                     [--dir D] [--json]";

/// How the samples are taken.
#[derive(Clone, Copy, Debug)]
struct Pace {
    samples: usize,
    every: Duration,
    limit: Duration,
}

/// Both phases of one round, and how many snapshots the second one met.
#[derive(Debug)]
struct Round {
    idle: Samples,
    during: Samples,
    snapshots: u64,
}

fn main() -> ExitCode {
    let valued = ["--records", "--rounds", "--samples", "--pace-us", "--limit-s", "--dir"];
    let arguments = Arguments::of_process(USAGE, &valued, &["--json"]);
    let records = arguments.number("--records", 1_000_000, 1);
    let rounds = arguments.number("--rounds", 5, 1);
    let pace = Pace {
        samples: usize::try_from(arguments.number("--samples", 300, 1)).unwrap(),
        every: Duration::from_micros(arguments.number("--pace-us", 2000, 1).into()),
        limit: Duration::from_secs(arguments.number("--limit-s", 60, 1).into()),
    };
    let home = temporary(arguments.path("--dir")).unwrap();
    let dir = home.path().join("store");

    let store = TrustStore::open(&dir).unwrap();
    fill(&store, records);
    store.flush().unwrap();
    let mut batches = Changes::dealt(records, 1, 0).remove(0);
    // A peer of its own, which no batch touches.
    let mut grants = Changes::new(vec![NodeId::new(2).unwrap()], 1);

    let mut all = Vec::new();
    for number in 1..=rounds {
        let idle = idle(&store, &dir, &mut grants, pace);
        let (during, snapshots) = during(&store, &dir, &mut batches, &mut grants, pace);
        eprintln!("round {number}: {} samples idle, {} during {snapshots} snapshots", idle.len(), during.len());
        all.push(Round { idle, during, snapshots });
    }
    settle(&dir).unwrap();
    store.close().unwrap();
    let bytes = StoreFiles::read(&dir).unwrap().snapshot_bytes();
    if all.iter().any(|round| round.idle.is_empty() || round.during.is_empty()) {
        eprintln!("a round caught no sample: there is nothing to compare");
        return ExitCode::FAILURE;
    }
    report(&all, records, bytes, pace, &file_system(home.path()), arguments.has("--json"));
    ExitCode::SUCCESS
}

fn idle(store: &TrustStore, dir: &Path, grants: &mut Changes, pace: Pace) -> Samples {
    settle(dir).unwrap();
    store.flush().unwrap();
    let mut taken = Vec::new();
    let (end, mut next) = (Instant::now() + pace.limit, Instant::now());
    while taken.len() < pace.samples && Instant::now() < end {
        next = keep_pace(next, pace.every);
        let quiet = !is_snapshot_being_written(dir).unwrap();
        let nanos = durable_grant(store, grants);
        if quiet && !is_snapshot_being_written(dir).unwrap() {
            taken.push(nanos);
        }
    }
    Samples::new(taken)
}

fn during(store: &TrustStore, dir: &Path, batches: &mut Changes, grants: &mut Changes, pace: Pace) -> (Samples, u64) {
    let mut taken = Vec::new();
    let mut snapshots = 0;
    let end = Instant::now() + pace.limit;
    while taken.len() < pace.samples && Instant::now() < end {
        // In small portions, so that the limit is looked at.
        if provoke_snapshot(store, dir, batches, 10).unwrap().is_none() {
            continue;
        }
        snapshots += 1;
        let mut next = Instant::now();
        while taken.len() < pace.samples && is_snapshot_being_written(dir).unwrap() {
            taken.push(durable_grant(store, grants));
            next = keep_pace(next, pace.every);
        }
        // The next batches belong to another snapshot.
        while is_snapshot_being_written(dir).unwrap() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    (Samples::new(taken), snapshots)
}

fn durable_grant(store: &TrustStore, grants: &mut Changes) -> u64 {
    let start = Instant::now();
    store.grant(grants.next().unwrap()).unwrap().wait_durable().unwrap();
    nanos(start.elapsed())
}

/// Sleeps until the pace allows the next sample; returns when that was. A grant that took longer than the pace delays
/// those after it instead of having them follow in a burst.
fn keep_pace(last: Instant, every: Duration) -> Instant {
    let due = last + every;
    let now = Instant::now();
    if now < due {
        std::thread::sleep(due - now);
        return due;
    }
    now
}

fn report(all: &[Round], records: u32, bytes: u64, pace: Pace, file_system: &str, json: bool) {
    const RANKS: [(&str, usize); 3] = [("p50", 500), ("p99", 990), ("max", 1000)];
    let spread = |figure: &dyn Fn(&Round) -> u64| Spread::of(all.iter().map(figure).collect());
    let rows = RANKS.map(|(name, rank)| {
        let idle = spread(&|round| round.idle.per_mille(rank));
        let during = spread(&|round| round.during.per_mille(rank));
        let ratio = spread(&|round| thousandths(round.during.per_mille(rank), round.idle.per_mille(rank)));
        (name, idle, during, ratio)
    });
    let counts = |phase: &dyn Fn(&Round) -> usize| spread(&|round| phase(round) as u64);
    let (idle, during) = (counts(&|round| round.idle.len()), counts(&|round| round.during.len()));
    let snapshots = spread(&|round| round.snapshots);
    let pace_us = u64::try_from(pace.every.as_micros()).unwrap();
    if json {
        let figures: serde_json::Map<String, serde_json::Value> = rows
            .into_iter()
            .map(|(name, idle, during, ratio)| {
                let sides = serde_json::json!({
                    "idle_ns": idle.json(), "during_ns": during.json(), "ratio_in_thousandths": ratio.json(),
                });
                (name.to_owned(), sides)
            })
            .collect();
        let all = serde_json::json!({
            "records": records, "rounds": all.len(), "pace_us": pace_us, "file_system": file_system,
            "snapshot_bytes": bytes, "idle_samples": idle.json(), "during_samples": during.json(),
            "snapshots": snapshots.json(), "figures": figures,
        });
        println!("{all}");
        return;
    }
    let count = |figure: u64| figure.to_string();
    println!(
        "{records} records on {file_system}, a snapshot has {bytes} bytes; one durable grant every {pace_us} us; median \
         [min, max] of {} rounds",
        all.len()
    );
    println!(
        "samples a round: idle {}, during {} of {} snapshots",
        idle.show(count),
        during.show(count),
        snapshots.show(count)
    );
    println!("{:6} {:>34} {:>34} {:>24}  wanted", "", "idle us", "snapshot being written us", "during / idle");
    for (name, idle, during, ratio) in rows {
        let wanted = if name == "max" { "" } else { "<= 2.00" };
        println!(
            "{name:6} {:>34} {:>34} {:>24}  {wanted}",
            idle.show(decimal),
            during.show(decimal),
            ratio.show(decimal)
        );
    }
}
