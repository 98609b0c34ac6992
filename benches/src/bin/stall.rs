//! Do readers and writers feel a save that hangs? 10 000 reads and 10 000 grants while the storage sleeps in fsync, and
//! the same while it does not, round by round in one run.
//!
//! `stall [--rounds 7] [--records 10000] [--sleep-ms 1000] [--json]`
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a measurement: it reads the clock, prints, and stops when something does not hold"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use trustkeep::testing::sim_disk::SimDisk;
use trustkeep::{NodeId, PublicKey, TrustRecord, TrustStore};
use trustkeep_benches::arguments::Arguments;
use trustkeep_benches::{Samples, Spread, fill, key, peers, shuffled};

const OPERATIONS: usize = 10_000;
const USAGE: &str = "stall [--rounds 7] [--records 10000] [--sleep-ms 1000] [--json]";

/// One round's percentiles in nanoseconds: read p50, read p99.9, grant p50, grant p99.9.
type Round = [u64; 4];

fn main() {
    let arguments = Arguments::of_process(USAGE, &["--rounds", "--records", "--sleep-ms"], &["--json"]);
    let rounds = arguments.number("--rounds", 7, 1);
    let records = arguments.number("--records", 10_000, 1);
    let sleep = Duration::from_millis(arguments.number("--sleep-ms", 1000, 1).into());
    let disk = SimDisk::new();
    let store = TrustStore::options().open_storage(Arc::new(disk.clone())).unwrap();
    fill(&store, records);
    store.flush().unwrap();

    let sleepy = Arc::new(AtomicBool::new(false));
    let (entered, asleep) = channel();
    disk.on_sync({
        let sleepy = Arc::clone(&sleepy);
        move || {
            // ORDERING: SeqCst; a switch of the measurement, off the measured paths. No partner in docs/concurrency.md.
            if sleepy.swap(false, Ordering::SeqCst) {
                entered.send(()).unwrap();
                std::thread::sleep(sleep);
            }
        }
    });

    let (mut quiet, mut stalled) = (Vec::new(), Vec::new());
    for number in 0..rounds {
        quiet.push(round(&store, records, number * 4));
        store.flush().unwrap();
        // ORDERING: SeqCst; as above.
        sleepy.store(true, Ordering::SeqCst);
        grant(&store, NodeId::new(2).unwrap(), key(), number * 4 + 1);
        asleep.recv().unwrap();
        let (durable, began) = (store.durable_generation(), Instant::now());
        stalled.push(round(&store, records, number * 4 + 2));
        assert_eq!(store.durable_generation(), durable, "the save ended before the round: raise --sleep-ms");
        assert!(began.elapsed() < sleep);
        store.flush().unwrap();
    }
    report(&quiet, &stalled, rounds, records, sleep, arguments.has("--json"));
}

/// A grant that differs from the one before, so that it publishes.
fn grant(store: &TrustStore, peer: NodeId, key: PublicKey, mark: u32) {
    let network = u16::try_from(mark % 60_000).unwrap();
    let _ = store.grant(TrustRecord::new(peer, key).network(network + 2)).unwrap();
}

fn round(store: &TrustStore, records: u32, mark: u32) -> Round {
    let (mut reader, key) = (store.reader(), key());
    let questions: Vec<NodeId> =
        shuffled(records.saturating_mul(2)).into_iter().cycle().skip(mark as usize).take(OPERATIONS).collect();
    let granted: Vec<NodeId> = peers(records).cycle().take(OPERATIONS).collect();
    // A reader's first look may allocate.
    let _ = reader.is_trusted(NodeId::new(1).unwrap());
    let (reads, grants) = std::thread::scope(|scope| {
        let reads = scope.spawn(move || timed(questions, |peer| _ = core::hint::black_box(reader.is_trusted(peer))));
        let grants = scope.spawn(move || {
            // Smaller stores see a peer more than once: the second grant must differ too.
            let mut turn = 0u32;
            timed(granted, |peer| {
                turn += 1;
                grant(store, peer, key, mark + turn / records.max(1) * 4);
            })
        });
        (reads.join().unwrap(), grants.join().unwrap())
    });
    [reads.per_mille(500), reads.per_mille(999), grants.per_mille(500), grants.per_mille(999)]
}

fn timed(peers: Vec<NodeId>, mut operation: impl FnMut(NodeId)) -> Samples {
    let mut nanos = Vec::with_capacity(peers.len());
    for peer in peers {
        let start = Instant::now();
        operation(peer);
        nanos.push(u64::try_from(start.elapsed().as_nanos()).unwrap());
    }
    Samples::new(nanos)
}

fn report(quiet: &[Round], stalled: &[Round], rounds: u32, records: u32, sleep: Duration, json: bool) {
    let names = ["read p50", "read p99.9", "grant p50", "grant p99.9"];
    let spread = |rounds: &[Round], index: usize| {
        Spread::of(rounds.iter().filter_map(|round| round.get(index).copied()).collect())
    };
    let sleep_ms = u64::try_from(sleep.as_millis()).unwrap();
    if json {
        let figures: serde_json::Map<String, serde_json::Value> = names
            .iter()
            .enumerate()
            .map(|(index, name)| {
                let sides = serde_json::json!({
                    "without": spread(quiet, index).json(), "during_save": spread(stalled, index).json(),
                });
                ((*name).to_owned(), sides)
            })
            .collect();
        let all = serde_json::json!({
            "rounds": rounds, "records": records, "operations": OPERATIONS, "sleep_ms": sleep_ms, "unit": "ns",
            "figures": figures,
        });
        println!("{all}");
        return;
    }
    println!(
        "{records} records, {OPERATIONS} reads and {OPERATIONS} grants at once, {rounds} rounds; every one finished \
         while one save slept {sleep_ms} ms in fsync. Nanoseconds with the clock's own cost: median [min, max] of rounds"
    );
    println!("{:12} {:>32} {:>32}", "", "fsync returns at once", "one save sleeps");
    for (index, name) in names.iter().enumerate() {
        let cell = |side| {
            let Spread { median, min, max } = spread(side, index);
            format!("{median} [{min}, {max}]")
        };
        println!("{name:12} {:>32} {:>32}", cell(quiet), cell(stalled));
    }
}
