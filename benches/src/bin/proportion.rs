//! Does each thing cost in proportion to what it is? One question per run, each of them of a thing that once cost more:
//!
//! | question | what is measured |
//! |---|---|
//! | `churn` | whole snapshots begun per megabyte of changes, for a store of `--records` |
//! | `failures` | files and bytes after 200 saves that fail because the directory cannot be synced |
//! | `held` | the longest and the median grant, and an update of 300 records, beside 0 to `--held` snapshots that are held |
//! | `waiters` | how long it takes to drop up to `--futures` futures of both kinds, while a disk hangs |
//! | `floors` | how often 2000 changes of floors, a millisecond apart, wake the keeper |
//! | `receipts` | memory that a kept receipt keeps, when the store of `--records` is dropped |
//! | `behind` | the longest of the grants right behind an update of `--records` |
//! | `sparse` | processor time a second while a snapshot pins memory that is used here and there |
//! | `open` | how long opening a store of `--records` takes, mapped and read in turn, its files in the page cache |
//! | `looked` | a grant beside threads that look, and after as many are gone |
//!
//! `proportion QUESTION [--records N] [--held N] [--futures N] [--dir D]`
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a measurement: it reads the clock, prints, and stops when something does not hold"
)]

use std::collections::BTreeSet;
use std::future::Future as _;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier, Mutex};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use trustkeep::clock::{Clock, SystemClock};
use trustkeep::testing::doors;
use trustkeep::testing::sim_disk::{Call, SimDisk, Verdict};
use trustkeep::time::Now;
use trustkeep::{LoadMode, NodeId, TrustRecord, TrustStore};
use trustkeep_benches::arguments::{Arguments, usage_error};
use trustkeep_benches::directory::temporary;
use trustkeep_benches::{Samples, Spread, filled_store, peers, resident};

const USAGE: &str = "proportion churn|failures|held|waiters|floors|receipts|behind|sparse|open|looked \
                     [--records N] [--held N] [--futures N] [--dir D]";
const QUESTIONS: [&str; 10] =
    ["churn", "failures", "held", "waiters", "floors", "receipts", "behind", "sparse", "open", "looked"];

fn main() {
    let arguments = Arguments::of_process(USAGE, &["--records", "--held", "--futures", "--dir"], &QUESTIONS);
    let asked: Vec<&str> = QUESTIONS.into_iter().filter(|question| arguments.has(question)).collect();
    let [question] = asked[..] else { usage_error(USAGE, "one question at a time: memory and threads stay") };
    match question {
        "churn" => churn(arguments.number("--records", 5_000_000, 10_000), &arguments),
        "failures" => failures(),
        "held" => held(arguments.number("--held", 400_000, 1)),
        "waiters" => waiters(arguments.number("--futures", 80_000, 8)),
        "floors" => floors(&arguments),
        "receipts" => receipts(arguments.number("--records", 2_000_000, 1)),
        "behind" => behind(arguments.number("--records", 1_000_000, 1)),
        "sparse" => sparse(arguments.number("--records", 2_000_000, 1)),
        "open" => open(arguments.number("--records", 2_000_000, 1), &arguments),
        _ => looked(),
    }
}

fn millis(nanos: u64) -> String {
    format!("{:.3} ms", Duration::from_nanos(nanos).as_secs_f64() * 1000.0)
}

fn nanos(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap()
}

/// Changes this peer's record, whatever it was.
fn change(store: &TrustStore, peer: NodeId, mark: u32) {
    drop(store.grant(TrustRecord::new(peer, None).network(u16::try_from(mark % 60_000 + 1).unwrap())).unwrap());
}

/// Changes records from `from` on, `count` of them, in one update.
fn change_many(store: &TrustStore, all: &[NodeId], from: usize, count: usize, mark: u32) {
    let network = u16::try_from(mark % 60_000 + 1).unwrap();
    let mut some = all.iter().cycle().skip(from % all.len()).take(count);
    let (fits, _) = store
        .update(|batch| some.all(|peer| batch.grant(TrustRecord::new(*peer, None).network(network)).is_ok()))
        .unwrap();
    assert!(fits);
}

fn churn(records: u32, arguments: &Arguments) {
    let home = temporary(arguments.path("--dir")).unwrap();
    let dir = home.path().join("store");
    let all: Vec<NodeId> = peers(records).collect();
    let store = TrustStore::open(&dir).unwrap();
    for from in (0..all.len()).step_by(100_000) {
        change_many(&store, &all, from, 100_000.min(all.len()), 1);
    }
    store.flush().unwrap();
    let (mut seen, mut changed, mut journals) = (BTreeSet::new(), 0_u64, 0_u64);
    let saves = 3 * all.len() / 10_000;
    println!("{records} records; each snapshot begun, and what was saved since the one before:");
    let mut sizes = std::collections::HashMap::new();
    for save in 0..saves {
        let mark = u32::try_from(save / (all.len() / 10_000)).unwrap() + 2;
        change_many(&store, &all, save * 10_000, 10_000, mark);
        store.flush().unwrap();
        changed += 10_000;
        for entry in std::fs::read_dir(&dir).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            // A file may go while it is looked at.
            let bytes = entry.metadata().map_or(0, |metadata| metadata.len());
            if let Some(rest) = name.strip_prefix("snapshot-") {
                let generation = rest.split('.').next().unwrap().to_owned();
                if seen.insert(generation.clone()) && save > 0 {
                    println!("  snapshot {generation}: {changed} records, {:.1} MB of journals", megabytes(journals));
                    (changed, journals) = (0, 0);
                }
            } else if name.starts_with("journal-") && !name.contains(".tmp") && sizes.insert(name, bytes).is_none() {
                journals += bytes;
            }
        }
    }
    println!("  at the end: {changed} records, {:.1} MB of journals since", megabytes(journals));
    let total: u64 = sizes.values().sum();
    println!("{} snapshots for {:.1} MB of journals", seen.len().saturating_sub(1), megabytes(total));
}

fn megabytes(bytes: u64) -> f64 {
    Duration::from_micros(bytes).as_secs_f64()
}

fn failures() {
    let disk = SimDisk::new();
    let store = TrustStore::options().open_storage(Arc::new(disk.clone())).unwrap();
    for peer in peers(5000) {
        change(&store, peer, 1);
    }
    store.flush().unwrap();
    let show = |when: &str| {
        let image = disk.live_image();
        let bytes: u64 = image.values().map(|bytes| bytes.len() as u64).sum();
        let count = |prefix| image.keys().filter(|name| name.starts_with(prefix)).count();
        let (journals, snapshots) = (count("journal-"), count("snapshot-"));
        println!(
            "{when}: {journals} journals, {snapshots} snapshots, {} files, {:.1} MB",
            image.len(),
            megabytes(bytes)
        );
    };
    show("before");
    disk.judge(|call| if call == Call::SyncDir { Verdict::Fails(24) } else { Verdict::Done });
    // A full journal has the next save begin another.
    for (number, peer) in peers(20_000).enumerate() {
        change(&store, peer, u32::try_from(number).unwrap());
    }
    for _ in 0..200 {
        assert!(store.flush().is_err());
    }
    show("after 200 attempts that failed at the directory's sync");
    disk.judge(|_| Verdict::Done);
    store.flush().unwrap();
    show("after the one that worked");
    store.close().unwrap();
}

fn held(most: u32) {
    let home = temporary(None).unwrap();
    let all: Vec<NodeId> = peers(10_000).collect();
    let mut held = 0;
    while held <= most {
        let store = TrustStore::open(home.path().join(format!("store-{held}"))).unwrap();
        change_many(&store, &all, 0, all.len(), 1);
        let mut kept = Vec::new();
        for number in 0..held {
            change(&store, all[number as usize % all.len()], number + 2);
            kept.push(store.snapshot());
        }
        store.flush().unwrap();
        let (mut grants, begun, mut number) = (Vec::new(), Instant::now(), 0_u32);
        while begun.elapsed() < Duration::from_secs(4) {
            number += 1;
            let at = Instant::now();
            change(&store, all[number as usize % all.len()], number);
            grants.push(nanos(at));
            std::thread::sleep(Duration::from_micros(100));
        }
        let mut updates = Vec::new();
        for number in 0..50 {
            let at = Instant::now();
            change_many(&store, &all, number * 300, 300, 40_000 + u32::try_from(number).unwrap());
            updates.push(nanos(at));
        }
        let (grants, updates) = (Samples::new(grants), Samples::new(updates));
        println!(
            "{held} held: grant median {}, longest {}; update of 300 median {}, longest {}",
            millis(grants.per_mille(500)),
            millis(grants.per_mille(1000)),
            millis(updates.per_mille(500)),
            millis(updates.per_mille(1000)),
        );
        drop(kept);
        store.close().unwrap();
        if held == most {
            break;
        }
        held = (if held == 0 { 1000 } else { held * 10 }).min(most);
    }
}

fn waiters(most: u32) {
    let context = &mut Context::from_waker(Waker::noop());
    for count in [most / 8, most / 4, most / 2, most] {
        let store = TrustStore::in_memory();
        let peer = NodeId::new(9).unwrap();
        let mut futures: Vec<_> = (0..count).map(|_| Box::pin(store.trust_future(peer))).collect();
        assert!(futures.iter_mut().all(|future| future.as_mut().poll(context).is_pending()));
        let begun = Instant::now();
        drop(futures);
        let trust = nanos(begun);
        assert_eq!(store.health().waiting_for_trust, 0);

        let disk = SimDisk::new();
        let store = TrustStore::options().open_storage(Arc::new(disk.clone())).unwrap();
        let (hang, hung) = channel::<()>();
        let (entered, hanging) = channel();
        let (hung, entered) = (Mutex::new(hung), Mutex::new(entered));
        disk.on_sync(move || {
            let _ = entered.lock().unwrap().send(());
            let _ = hung.lock().unwrap().recv();
        });
        let receipt = store.grant(TrustRecord::new(peer, None)).unwrap();
        hanging.recv().unwrap();
        let mut futures: Vec<_> = (0..count).map(|_| Box::pin(receipt.durable_future())).collect();
        assert!(futures.iter_mut().all(|future| Pin::new(future).as_mut().poll(context).is_pending()));
        let begun = Instant::now();
        drop(futures);
        let durable = nanos(begun);
        assert_eq!(store.health().waiting_for_disk, 0);
        drop(hang);
        store.close().unwrap();
        println!("{count} futures dropped: for trust {}, for the disk {}", millis(trust), millis(durable));
    }
}

/// Counts how often the keeper looks: it asks the time once each.
#[derive(Debug, Default)]
struct Asked(AtomicU64);

impl Clock for Asked {
    fn now(&self) -> Now {
        if std::thread::current().name() == Some("trustkeep-keeper") {
            // ORDERING: Relaxed; a count that is read when its thread is still. No partner in docs/concurrency.md.
            self.0.fetch_add(1, Ordering::Relaxed);
        }
        SystemClock.now()
    }
}

fn floors(arguments: &Arguments) {
    let home = temporary(arguments.path("--dir")).unwrap();
    let asked = Arc::new(Asked::default());
    let store = TrustStore::options().clock(Arc::clone(&asked) as _).open(home.path().join("store")).unwrap();
    // ORDERING: Relaxed; as above.
    let (before, begun) = (asked.0.load(Ordering::Relaxed), Instant::now());
    for stamp in 1..=2000 {
        drop(doors::raise_floor(&store, NodeId::new(7).unwrap(), stamp));
        std::thread::sleep(Duration::from_millis(1));
    }
    // ORDERING: Relaxed; as above.
    let looked = asked.0.load(Ordering::Relaxed) - before;
    println!("2000 changes of floors in {}: the keeper looked {looked} times", millis(nanos(begun)));
    store.close().unwrap();
}

fn receipts(records: u32) {
    let before = resident::anonymous();
    let store = filled_store(records);
    let receipt = store.grant(TrustRecord::new(NodeId::new(2).unwrap(), None)).unwrap();
    let full = resident::anonymous();
    drop(store);
    let kept = resident::anonymous();
    drop(receipt);
    let end = resident::anonymous();
    let show = |bytes: u64| format!("{:.1} MB", megabytes(bytes.saturating_sub(before)));
    println!(
        "{records} records: {}; store dropped, a receipt kept: {}; without it: {}",
        show(full),
        show(kept),
        show(end)
    );
}

fn behind(records: u32) {
    let store = filled_store(records);
    let all: Vec<NodeId> = peers(records).collect();
    let mut longest = Vec::new();
    for round in 0..5 {
        change_many(&store, &all, 0, all.len(), round + 2);
        let mut grants = Vec::new();
        for number in 0..200 {
            let at = Instant::now();
            change(&store, all[number * 7 % all.len()], 50_000 + round);
            grants.push(nanos(at));
        }
        let grants = Samples::new(grants);
        longest.push(grants.per_mille(1000));
        println!(
            "200 grants behind an update of {records}: median {}, longest {}",
            millis(grants.per_mille(500)),
            millis(grants.per_mille(1000))
        );
        std::thread::sleep(Duration::from_secs(3));
    }
}

/// Processor time of this process. Linux counts in hundredths of a second.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    Duration::from_millis((fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()) * 10)
}

fn sparse(records: u32) {
    let store = filled_store(records);
    // In the order in which they lie, so that whole nodes are changed.
    let all: Vec<NodeId> = store.snapshot().iter().map(|record| record.node_id).collect();
    let part = |is_small: bool| {
        all.chunks(512)
            .enumerate()
            .filter(move |(number, _)| (number % 8 == 0) == is_small)
            .flat_map(|(_, some)| some.to_vec())
    };
    let (large, small): (Vec<_>, Vec<_>) = (part(false).collect(), part(true).collect());
    let pause = || std::thread::sleep(Duration::from_millis(1500));
    change_many(&store, &all, 0, all.len(), 2);
    pause();
    change_many(&store, &large, 0, large.len(), 3);
    let pinning = store.snapshot();
    change_many(&store, &small, 0, small.len(), 4);
    for held in [Some(pinning), None] {
        let is_held = held.is_some();
        std::thread::sleep(Duration::from_secs(8));
        let before = processor_time();
        std::thread::sleep(Duration::from_secs(10));
        let spent = (processor_time() - before).as_secs_f64() * 100.0;
        println!(
            "{records} records, sparse memory {}: {spent:.1} ms of processor time a second",
            if is_held { "pinned by a snapshot" } else { "given back" }
        );
    }
}

fn open(records: u32, arguments: &Arguments) {
    let home = temporary(arguments.path("--dir")).unwrap();
    let dir = home.path().join("store");
    let store = TrustStore::open(&dir).unwrap();
    trustkeep_benches::fill(&store, records);
    store.close().unwrap();
    drop(store);
    let (mut mapped, mut read) = (Vec::new(), Vec::new());
    for _ in 0..9 {
        for (mode, times) in [(LoadMode::Map, &mut mapped), (LoadMode::Read, &mut read)] {
            let begun = Instant::now();
            let store = TrustStore::options().load_mode(mode).open(&dir).unwrap();
            times.push(nanos(begun));
            drop(store);
        }
    }
    let show = |times| Spread::of(times).show(millis);
    println!("{records} records opened: mapped {}, read {} (median [min, max] of 9)", show(mapped), show(read));
}

fn looked() {
    let store = Arc::new(filled_store(10_000));
    let all: Vec<NodeId> = peers(10_000).collect();
    let grant = |when: &str| {
        let mut rounds = Vec::new();
        for round in 0..9 {
            let begun = Instant::now();
            for number in 0..200 {
                change(&store, all[number * 31 % all.len()], 100 + round);
            }
            rounds.push(nanos(begun) / 200);
        }
        rounds.sort_unstable();
        println!("{when}: a grant takes {} ns (median of 9 rounds of 200; {} to {})", rounds[4], rounds[0], rounds[8]);
    };
    grant("no thread has looked");
    let over = Arc::new(AtomicBool::new(false));
    let mut threads = Vec::new();
    for count in [16, 64, 256, 1024, 4096] {
        let more = count - threads.len();
        let ready = Arc::new(Barrier::new(more + 1));
        for _ in 0..more {
            let (store, over, ready) = (Arc::clone(&store), Arc::clone(&over), Arc::clone(&ready));
            let body = move || {
                // Through the published version, as `get` and `snapshot` do.
                drop(store.snapshot());
                let _ = store.get(NodeId::new(1).unwrap());
                ready.wait();
                // ORDERING: SeqCst; a switch of the measurement. No partner in docs/concurrency.md.
                while !over.load(Ordering::SeqCst) {
                    std::thread::park_timeout(Duration::from_secs(3600));
                }
            };
            threads.push(std::thread::Builder::new().stack_size(64 << 10).spawn(body).unwrap());
        }
        ready.wait();
        std::thread::sleep(Duration::from_millis(300));
        grant(&format!("{count} threads that looked, asleep"));
    }
    // ORDERING: SeqCst; as above.
    over.store(true, Ordering::SeqCst);
    for thread in threads {
        thread.thread().unpark();
        thread.join().unwrap();
    }
    grant("all of them gone");
}
