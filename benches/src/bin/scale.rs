//! What a store takes by how many records it holds: to fill, to ask, to change, to save and to open, and in memory.
//!
//! `scale [--records 1000000] [--rounds 5] [--changes 200] [--no-full-journal] [--dir D] [--json]`; `--records` may be several
//! numbers with commas between them, each measured in a process of its own. Prints a table with a column for each; without
//! `--dir` the files lie beside this program. With `--json`, one line for each size holds every round. 50 million records
//! want 8 GB of memory and 15 GB of disk.
//!
//! Reads and calls to change are measured in the store that was filled, with its keeper at work, but without a snapshot being
//! written. A change that is waited for begins with nothing else to save.
//!
//! Memory is anonymous resident memory of the whole process, without what it was before, once the store has given back what
//! it gives back by itself. The peak of an opening holds the mapped file too.
//!
//! Opening is measured twice: right after a snapshot, and with journals of nineteen twentieths of its bytes less 2 MiB, which
//! is about as long as they get before the next one is written. They are filled by batches of a thousandth of the records, at
//! least of a thousand, each of them one group. Files are read from the system's cache.
//!
//! The bytes of one change are those that this process handed to `write` and its relatives meanwhile (`wchar` in
//! `/proc/self/io`), counted while no snapshot was being written; their mean holds the space that is taken ahead now and
//! then, their median does not. Beside it stands what the disk received in that time (`/proc/diskstats`): in whole blocks,
//! with the file system's own records, and with whatever other processes wrote, so that the smallest figure says most.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a measurement: it reads the clock, prints, and stops when something does not hold"
)]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use trustkeep::config::Limits;
use trustkeep::{LoadMode, Options, TrustRecord, TrustStore};
use trustkeep_benches::arguments::Arguments;
use trustkeep_benches::changes::{Changes, provoke_snapshot_by, settle};
use trustkeep_benches::directory::{StoreFiles, Written, device, file_system, is_snapshot_being_written, temporary};
use trustkeep_benches::figure::{Side, Unit};
use trustkeep_benches::workload::{fill, id};
use trustkeep_benches::{at_scale, nanos, resident};

const USAGE: &str =
    "scale [--records 1000000[,...]] [--rounds 5] [--changes 200] [--no-full-journal] [--dir D] [--json]";

/// All figures of one size, in the order in which they are shown.
#[derive(Debug, Serialize, Deserialize)]
struct Measured {
    records: u32,
    file_system: String,
    seconds: f64,
    figures: Vec<Side>,
}

fn main() {
    // For the processes that this one starts, with a directory of its own making.
    if let [_, flag, dir] = std::env::args_os().collect::<Vec<_>>().as_slice()
        && flag == OPEN
    {
        return open_only(Path::new(dir));
    }
    let valued = ["--records", "--rounds", "--changes", "--dir"];
    let arguments = Arguments::of_process(USAGE, &valued, &["--json", "--no-full-journal"]);
    let sizes = arguments.numbers("--records", 1_000_000, 1);
    let is_json = arguments.has("--json");
    let show = |measured: &[Measured]| match is_json {
        true => measured.iter().for_each(|one| println!("{}", serde_json::to_string(one).unwrap())),
        false => print!("{}", table(measured)),
    };
    match sizes.as_slice() {
        [records] => show(&[measured(&arguments, *records)]),
        several => show(&several.iter().map(|records| by_another(*records)).collect::<Vec<_>>()),
    }
}

/// One of several sizes: memory that a process has had before would be missing from the figures of the next.
fn by_another(records: u32) -> Measured {
    let mut given: Vec<_> = std::env::args_os().skip(1).filter(|argument| argument != "--json").collect();
    let at = given.iter().position(|argument| argument == "--records").unwrap();
    given[at + 1] = records.to_string().into();
    let child =
        Command::new(std::env::current_exe().unwrap()).args(given).arg("--json").stderr(Stdio::inherit()).output();
    let output = child.unwrap();
    assert!(output.status.success(), "{records} records: see above");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn measured(arguments: &Arguments, records: u32) -> Measured {
    let rounds = arguments.number("--rounds", 5, 1);
    let changes = arguments.number("--changes", 200, 1);
    let home = temporary(arguments.path("--dir")).unwrap();
    let dir = home.path().join("store");
    let begun = Instant::now();
    let mut figures = Vec::new();
    let mut tell = |sides: Vec<Side>| {
        for side in sides {
            eprintln!(
                "{records} records, after {:.0} s: {}: {}",
                begun.elapsed().as_secs_f64(),
                side.label,
                side.show()
            );
            figures.push(side);
        }
    };
    let per_record = |bytes: u64| bytes as f64 / f64::from(records);

    let before = resident::anonymous();
    let store = options(records).open(&dir).unwrap();
    let start = Instant::now();
    fill(&store, records);
    tell(vec![once("fill, batches of 10 000", Unit::Nanos, nanos(start.elapsed()) as f64)]);
    let start = Instant::now();
    store.flush().unwrap();
    tell(vec![once("until that is durable", Unit::Nanos, nanos(start.elapsed()) as f64)]);
    assert_eq!(store.snapshot().len(), records as usize);

    settle(&dir).unwrap();
    resident::settle(&store);
    let filled = resident::anonymous().saturating_sub(before);
    tell(vec![once("memory after the filling, per record", Unit::Bytes, per_record(filled))]);

    tell(at_scale::reads(&store, records, rounds as usize));
    tell(changes_alone(&store, &dir, records, rounds as usize));

    // From here on a snapshot is due only once as much has been written as it holds.
    let mut again = Changes::new((0..records).map(id).collect(), 1);
    let _ = provoke_snapshot_by(&store, &dir, &mut again, 100_000, at_once(records)).unwrap().unwrap();
    settle(&dir).unwrap();
    tell(one_change(&store, &dir, changes));
    store.close().unwrap();
    drop(store);
    let snapshot_bytes = StoreFiles::read(&dir).unwrap().snapshot_bytes();
    tell(vec![once("a snapshot, per record", Unit::Bytes, per_record(snapshot_bytes))]);
    tell(opened(&dir, records, rounds, "a snapshot alone"));

    if !arguments.has("--no-full-journal") {
        let store = options(records).create(false).open(&dir).unwrap();
        let full = (snapshot_bytes - snapshot_bytes / 20).saturating_sub(AHEAD);
        let bytes = fill_journal(&store, &dir, &mut again, full, records);
        store.close().unwrap();
        drop(store);
        tell(vec![once("full journals, per record", Unit::Bytes, per_record(bytes))]);
        tell(opened(&dir, records, rounds, "full journals"));
    }
    Measured { records, file_system: file_system(&dir), seconds: begun.elapsed().as_secs_f64(), figures }
}

/// With room for so many records.
fn options(records: u32) -> Options {
    let mut limits = Limits::default();
    limits.trusted_max = limits.trusted_max.max(records as usize);
    TrustStore::options().limits(limits)
}

fn once(label: &str, unit: Unit, figure: f64) -> Side {
    Side::new(label, unit, vec![figure])
}

/// Figures of calls to change records while no snapshot is written. If one came between, the next is some way off, unless the
/// store is so small that the calls themselves make it due.
fn changes_alone(store: &TrustStore, dir: &Path, records: u32, rounds: usize) -> Vec<Side> {
    let mut sides = Vec::new();
    for turn in 0..3 {
        settle(dir).unwrap();
        let before = StoreFiles::read(dir).unwrap().snapshot;
        sides = at_scale::changes(store, records, rounds, turn);
        let after = StoreFiles::read(dir).unwrap();
        if !after.writing && after.snapshot == before {
            return sides;
        }
    }
    eprintln!("{records} records: a snapshot was written beside the changes");
    sides
}

/// Figures of many single changes, of which each is waited for. Those beside which a snapshot was written do not count: it
/// would be counted as their bytes. A large store may have one due still, which the first of them then begins.
fn one_change(store: &TrustStore, dir: &Path, changes: u32) -> Vec<Side> {
    let mut single = Changes::new(vec![id(0)], 0);
    let disk = device(dir).unwrap();
    let (mut taken, mut handed, mut received) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..3 {
        settle(dir).unwrap();
        for _ in taken.len()..changes as usize {
            let record = single.next().unwrap();
            let before = Written::now(disk).unwrap();
            let start = Instant::now();
            store.grant(record).unwrap().wait_durable().unwrap();
            let time = start.elapsed();
            let written = Written::now(disk).unwrap().since(before);
            if !is_snapshot_being_written(dir).unwrap() {
                taken.push(nanos(time) as f64);
                handed.push(written.handed as f64);
                received.extend(written.received.map(|bytes| bytes as f64));
            }
        }
    }
    assert!(!taken.is_empty(), "a snapshot was being written all the time");
    let mean = handed.iter().sum::<f64>() / handed.len() as f64;
    let mut sides = vec![
        Side::new("one `grant` until it is durable", Unit::Nanos, taken),
        Side::new("bytes handed to the system for it", Unit::Bytes, handed),
        once("the same, mean", Unit::Bytes, mean),
    ];
    if !received.is_empty() {
        sides.push(Side::new("bytes received by the disk, from everybody", Unit::Bytes, received));
    }
    sides
}

/// How many changes a batch has that is there to fill journals.
fn at_once(records: u32) -> usize {
    (records as usize / 1000).max(1000)
}

/// What journals may hold already, and room taken ahead.
const AHEAD: u64 = 2 << 20;

/// Batches until the journals have grown by so many bytes; returns by how many they did.
fn fill_journal(store: &TrustStore, dir: &Path, changes: &mut Changes, bytes: u64, records: u32) -> u64 {
    let before = StoreFiles::read(dir).unwrap();
    loop {
        let now = StoreFiles::read(dir).unwrap();
        assert!(!now.writing && now.snapshot == before.snapshot, "a snapshot came before the journals were full");
        let grown = now.journal_bytes.saturating_sub(before.journal_bytes);
        if grown >= bytes {
            return grown;
        }
        let some: Vec<TrustRecord> = changes.by_ref().take(at_once(records)).collect();
        let (fits, receipt) = store.update(|batch| some.iter().all(|record| batch.grant(*record).is_ok())).unwrap();
        assert!(fits);
        receipt.wait_durable().unwrap();
    }
}

/// With this, the program opens a store and does no more.
const OPEN: &str = "--open";

/// Opens the store, and prints how long it took, what is resident then, and what was at most.
fn open_only(dir: &Path) {
    let before = resident::anonymous();
    let start = Instant::now();
    let store = TrustStore::options().create(false).load_mode(LoadMode::Map).open(dir).unwrap();
    let taken = nanos(start.elapsed());
    let most = resident::peak();
    resident::settle(&store);
    println!("{taken} {} {most}", resident::anonymous().saturating_sub(before));
    drop(store);
}

/// Openings in processes of their own: this one's memory has seen the filling.
fn opened(dir: &Path, records: u32, rounds: u32, with: &str) -> Vec<Side> {
    let mut figures = [const { Vec::new() }; 3];
    for _ in 0..rounds {
        let output = Command::new(std::env::current_exe().unwrap()).arg(OPEN).arg(dir).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        let mut told = text.split_whitespace().map(|figure| figure.parse::<f64>().unwrap());
        for (figures, by) in figures.iter_mut().zip([1.0, f64::from(records), f64::from(records)]) {
            figures.push(told.next().unwrap() / by);
        }
    }
    let [taken, after, most] = figures;
    vec![
        Side::new(&format!("open, {with}"), Unit::Nanos, taken),
        Side::new(&format!("memory after opening, {with}, per record"), Unit::Bytes, after),
        Side::new(&format!("most resident while opening, {with}, per record"), Unit::Bytes, most),
    ]
}

/// A row for each figure, a column for each size: what was measured once stands alone, all else with its spread.
fn table(measured: &[Measured]) -> String {
    let cell = |side: Option<&Side>| match side.map(|side| (side, side.rounds.as_slice())) {
        None => "-".to_owned(),
        Some((side, [figure])) => side.unit.show(*figure),
        Some((side, _)) => side.show(),
    };
    let row = |label: &str, cells: Vec<String>| format!("| {label} | {} |\n", cells.join(" | "));
    let of_each = |show: &dyn Fn(&Measured) -> String| measured.iter().map(show).collect::<Vec<_>>();
    let mut text = row("records", of_each(&|one| one.records.to_string()));
    text += &row("---", of_each(&|_| "---".to_owned()));
    // The sizes have the same figures, but for a disk that does not tell.
    let longest = measured.iter().max_by_key(|one| one.figures.len());
    for label in longest.into_iter().flat_map(|one| one.figures.iter().map(|side| &side.label)) {
        text += &row(label, of_each(&|one| cell(one.figures.iter().find(|side| side.label == *label))));
    }
    text += &row("file system", of_each(&|one| one.file_system.clone()));
    text += &row("the whole measurement", of_each(&|one| format!("{:.0} s", one.seconds)));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_a_column_for_each_size_and_tells_what_is_missing() {
        let of = |records, figures| Measured { records, file_system: "ext4".to_owned(), seconds: 7.2, figures };
        let reads = |rounds| Side::new("reads", Unit::Nanos, rounds);
        let one = of(5, vec![reads(vec![2.0, 1.0, 9.0]), once("bytes", Unit::Bytes, 98.0)]);
        let other = of(7, vec![reads(vec![4.0, 4.0])]);
        let expected = "| records | 5 | 7 |\n| --- | --- | --- |\n\
                        | reads | 2.00 ns [1.00 ns, 9.00 ns] | 4.00 ns [4.00 ns, 4.00 ns] |\n| bytes | 98.0 B | - |\n\
                        | file system | ext4 | ext4 |\n| the whole measurement | 7 s | 7 s |\n";
        assert_eq!(table(&[one, other]), expected);
    }
}
