//! What one change in a large store takes and writes, how long such a store takes to fill and to open, and what it needs.
//!
//! `scale [--records 1000000] [--rounds 5] [--changes 200] [--dir D] [--json]`; without `--dir` the files lie beside this
//! program.
//!
//! Opening is measured twice: right after a snapshot, and with a journal as long as it gets before the store writes the
//! next one (95 % of the length at which it was seen to do so), filled by single changes of which a thousand share a flush.
//! Files are read from the system's cache.
//!
//! The bytes of one change are those that this process handed to `write` and its relatives meanwhile (`wchar` in
//! `/proc/self/io`), counted while no snapshot was being written; their mean holds the space that is taken ahead now and
//! then, their median does not. Beside it stands what the disk received in that time (`/proc/diskstats`): in whole blocks,
//! with the file system's own records, and with whatever other processes wrote, so that the smallest figure says most.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a measurement: it reads the clock, prints, and stops when something does not hold"
)]

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use trustkeep::{LoadMode, NodeId, TrustStore};
use trustkeep_benches::arguments::Arguments;
use trustkeep_benches::changes::{Changes, provoke_snapshot, settle};
use trustkeep_benches::directory::{StoreFiles, Written, device, file_system, is_snapshot_being_written, temporary};
use trustkeep_benches::{Spread, decimal, fill, nanos};

const USAGE: &str = "scale [--records 1000000] [--rounds 5] [--changes 200] [--dir D] [--json]";

fn main() {
    // For the processes that this one starts, with a directory of its own making.
    if let [_, flag, dir] = std::env::args_os().collect::<Vec<_>>().as_slice()
        && flag == "--open"
    {
        return open_only(Path::new(dir));
    }
    let valued = ["--records", "--rounds", "--changes", "--dir"];
    let arguments = Arguments::of_process(USAGE, &valued, &["--json"]);
    let records = arguments.number("--records", 1_000_000, 1);
    let rounds = arguments.number("--rounds", 5, 1);
    let changes = arguments.number("--changes", 200, 1);
    let home = temporary(arguments.path("--dir")).unwrap();
    let dir = home.path().join("store");

    let store = TrustStore::open(&dir).unwrap();
    let start = Instant::now();
    fill(&store, records);
    let fill_ms = millis(start);
    let start = Instant::now();
    store.flush().unwrap();
    let flush_ms = millis(start);
    assert_eq!(store.snapshot().len(), usize::try_from(records).unwrap());

    let mut single = Changes::new(vec![NodeId::new(1).unwrap()], 0);
    let one = one_change(&store, &dir, &mut single, changes);

    // Two snapshots in a row: between them lies a journal of full length.
    let mut batches = Changes::dealt(records, 1, 1).remove(0);
    let _ = snapshot(&store, &dir, &mut batches);
    let begun = StoreFiles::read(&dir).unwrap().journal_bytes;
    let full = snapshot(&store, &dir, &mut batches).journal_bytes.saturating_sub(begun);
    store.close().unwrap();
    drop(store);
    let alone = (opened(&dir, rounds), 0);

    let store = TrustStore::options().create(false).open(&dir).unwrap();
    let journal_bytes = fill_journal(&store, &dir, &mut batches, full - full / 20);
    store.close().unwrap();
    drop(store);
    let behind = (opened(&dir, rounds), journal_bytes);

    let files = StoreFiles::read(&dir).unwrap();
    let measured = Measured {
        records,
        rounds,
        fill_ms,
        flush_ms,
        one,
        snapshot_bytes: files.snapshot_bytes(),
        file_system: file_system(&dir),
        opens: [alone, behind],
    };
    if arguments.has("--json") { measured.json() } else { measured.print() }
}

/// Figures of many single changes.
#[derive(Debug)]
struct OneChange {
    counted: usize,
    nanos: Spread,
    handed: Spread,
    handed_mean: u64,
    received: Option<Spread>,
}

fn one_change(store: &TrustStore, dir: &Path, single: &mut Changes, changes: u32) -> OneChange {
    settle(dir).unwrap();
    let disk = device(dir).unwrap();
    let (mut taken, mut handed, mut received) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..changes {
        let record = single.next().unwrap();
        let before = Written::now(disk).unwrap();
        let start = Instant::now();
        store.grant(record).unwrap().wait_durable().unwrap();
        let time = start.elapsed();
        let written = Written::now(disk).unwrap().since(before);
        // A snapshot beside it would be counted as its bytes.
        if !is_snapshot_being_written(dir).unwrap() {
            taken.push(nanos(time));
            handed.push(written.handed);
            received.extend(written.received);
        }
    }
    assert!(!taken.is_empty(), "a snapshot was being written all the time");
    OneChange {
        counted: taken.len(),
        nanos: Spread::of(taken),
        handed_mean: handed.iter().sum::<u64>() / handed.len() as u64,
        handed: Spread::of(handed),
        received: (!received.is_empty()).then(|| Spread::of(received)),
    }
}

/// Has a snapshot written, and returns what the directory held just before.
fn snapshot(store: &TrustStore, dir: &Path, batches: &mut Changes) -> StoreFiles {
    let before = provoke_snapshot(store, dir, batches, 100_000).unwrap().unwrap();
    settle(dir).unwrap();
    before
}

/// Single changes until the journals have grown by so many bytes; returns by how many they did.
fn fill_journal(store: &TrustStore, dir: &Path, changes: &mut Changes, bytes: u64) -> u64 {
    let before = StoreFiles::read(dir).unwrap();
    loop {
        let now = StoreFiles::read(dir).unwrap();
        assert!(!now.writing && now.snapshot == before.snapshot, "a snapshot came earlier than the last time");
        let grown = now.journal_bytes.saturating_sub(before.journal_bytes);
        if grown >= bytes {
            return grown;
        }
        for record in changes.by_ref().take(1000) {
            let _ = store.grant(record).unwrap();
        }
        store.flush().unwrap();
    }
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap()
}

/// Opens the store, and prints how long it took and what is resident then.
fn open_only(dir: &Path) {
    let start = Instant::now();
    let store = TrustStore::options().create(false).load_mode(LoadMode::Map).open(dir).unwrap();
    let open_ms = millis(start);
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let resident_kib: u64 = line.trim().trim_end_matches("kB").trim().parse().unwrap();
    println!("{open_ms} {resident_kib}");
    drop(store);
}

/// Milliseconds and resident KiB of openings in processes of their own: this one's memory has seen the filling.
fn opened(dir: &Path, rounds: u32) -> [Spread; 2] {
    let opens: Vec<[u64; 2]> = (0..rounds)
        .map(|_| {
            let output = Command::new(std::env::current_exe().unwrap()).arg("--open").arg(dir).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let text = String::from_utf8(output.stdout).unwrap();
            let mut figures = text.split_whitespace().map(|figure| figure.parse().unwrap());
            [figures.next().unwrap(), figures.next().unwrap()]
        })
        .collect();
    [0, 1].map(|figure| Spread::of(opens.iter().map(|open| open[figure]).collect()))
}

#[derive(Debug)]
struct Measured {
    records: u32,
    rounds: u32,
    fill_ms: u64,
    flush_ms: u64,
    one: OneChange,
    snapshot_bytes: u64,
    file_system: String,
    /// With a snapshot alone, and with a full journal: time and memory, and the journal's bytes.
    opens: [([Spread; 2], u64); 2],
}

impl Measured {
    fn json(&self) {
        let opens = self.opens.map(|([time, resident], journal_bytes)| {
            serde_json::json!({
                "journal_bytes": journal_bytes, "open_ms": time.json(), "resident_kib": resident.json(),
            })
        });
        let all = serde_json::json!({
            "records": self.records, "rounds": self.rounds, "file_system": self.file_system, "fill_ms": self.fill_ms,
            "flush_ms": self.flush_ms, "snapshot_bytes": self.snapshot_bytes,
            "one_change": {
                "changes": self.one.counted, "ns": self.one.nanos.json(),
                "bytes_handed": self.one.handed.json(), "bytes_handed_mean": self.one.handed_mean,
                "bytes_received_by_disk": self.one.received.map(|received| received.json()),
            },
            "open_with_snapshot_alone": opens[0], "open_with_full_journal": opens[1],
        });
        println!("{all}");
    }

    fn print(&self) {
        let (one, count) = (&self.one, |figure: u64| figure.to_string());
        let share = |bytes: u64| match self.snapshot_bytes / bytes.max(1) {
            0 => "more than a snapshot".to_owned(),
            parts => format!("1/{parts} of a snapshot"),
        };
        let per_record = self.snapshot_bytes as f64 / f64::from(self.records);
        println!("{} records on {}; median [min, max]", self.records, self.file_system);
        println!(
            "fill, batches of 10 000           {} ms, and {} ms until durable (once)",
            self.fill_ms, self.flush_ms
        );
        println!("snapshot                          {} bytes, {per_record:.1} per record", self.snapshot_bytes);
        println!("one durable change, {:5} times   {} us", one.counted, one.nanos.show(decimal));
        println!(
            "  bytes handed to the system      {}, mean {}; {} (wanted: at most 1/10000)",
            one.handed.show(count),
            one.handed_mean,
            share(one.handed.median)
        );
        if let Some(received) = one.received {
            println!("  bytes received by the disk      {}, from everybody", received.show(count));
        }
        for (name, ([time, resident], journal_bytes)) in
            ["open, a snapshot alone", "open, a full journal"].into_iter().zip(self.opens)
        {
            println!("{name:33} {} ms, {} rounds", time.show(count), self.rounds);
            println!("  resident after that             {} KiB", resident.show(count));
            if journal_bytes > 0 {
                println!("  journal                         {journal_bytes} bytes");
            }
        }
    }
}
