//! What a durable change costs more because its owner looks, after the sync and before the acknowledgement, whether directory,
//! lock and journal are still its own.
//!
//! `ownership [--records 10000] [--rounds 15] [--changes 500] [--dir D] [--json]`
//!
//! Two stores lie side by side: one looks, the other does not. One thread makes a durable change in each in turn, so that
//! whatever slows the disk slows both; every other pair goes the other way round. A round's figure is the median of its
//! changes, and ratios are of the same round. The look alone is measured beside them. Without `--dir` the files lie beside
//! this program.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a measurement: it reads the clock, prints, and stops when something does not hold"
)]

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use trustkeep::testing::doors;
use trustkeep::{FileEntry, Left, OpenFile, Seen, Storage, StorageFile, TrustStore};
use trustkeep_benches::arguments::Arguments;
use trustkeep_benches::changes::Changes;
use trustkeep_benches::directory::{file_system, temporary};
use trustkeep_benches::{Samples, Spread, decimal, fill, nanos, peers, thousandths};

const USAGE: &str = "ownership [--records 10000] [--rounds 15] [--changes 500] [--dir D] [--json]";

/// A directory whose owner never looks.
#[derive(Debug)]
struct Unwatched(Arc<dyn Storage>);

impl Storage for Unwatched {
    fn list(&self) -> io::Result<Vec<FileEntry>> {
        self.0.list()
    }
    fn read(&self, name: &str, look: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        self.0.read(name, look)
    }
    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        self.0.create(name)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }
    fn sync_dir(&self) -> io::Result<()> {
        self.0.sync_dir()
    }
    fn path(&self, name: &str) -> PathBuf {
        self.0.path(name)
    }
}

/// Medians of one round, in nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
struct Round {
    looks: u64,
    does_not: u64,
    look: u64,
}

fn main() {
    let valued = ["--records", "--rounds", "--changes", "--dir"];
    let arguments = Arguments::of_process(USAGE, &valued, &["--json"]);
    let records = arguments.number("--records", 10_000, 1);
    let rounds = arguments.number("--rounds", 15, 1);
    let changes = arguments.number("--changes", 500, 1);
    let home = temporary(arguments.path("--dir")).unwrap();

    let open = |name: &str, looks: bool| {
        let directory = doors::own_directory(&home.path().join(name)).unwrap();
        let storage = if looks { directory } else { Arc::new(Unwatched(directory)) };
        let store = TrustStore::options().open_storage(storage).unwrap();
        fill(&store, records);
        store.flush().unwrap();
        store
    };
    let stores = [open("looks", true), open("does-not", false)];
    let mut grants = [0, 1].map(|lane| Changes::new(peers(records).collect(), lane));
    let look = look_alone(&home.path().join("alone"));

    let mut all = Vec::new();
    for _ in 0..rounds {
        let mut taken = [Vec::new(), Vec::new()];
        for pair in 0..changes {
            let mut order = [0, 1];
            if pair % 2 == 1 {
                order.reverse();
            }
            for side in order {
                let record = grants[side].next().unwrap();
                let begun = Instant::now();
                stores[side].grant(record).unwrap().wait_durable().unwrap();
                taken[side].push(nanos(begun.elapsed()));
            }
        }
        let [looks, does_not] = taken.map(|taken| Samples::new(taken).per_mille(500));
        all.push(Round { looks, does_not, look: look() });
    }
    for store in &stores {
        store.close().unwrap();
    }
    report(&all, records, changes, &file_system(home.path()), arguments.has("--json"));
}

/// Measures the look alone, a thousand at a time.
fn look_alone(dir: &Path) -> impl Fn() -> u64 + use<> {
    let directory = doors::own_directory(dir).unwrap();
    let name = "journal-0000000000000001.tkj";
    let mut file = directory.create(name).unwrap();
    file.write_at(0, &[0; 4096]).unwrap();
    let id = file.id();
    move || {
        let mut seen = Seen::default();
        let begun = Instant::now();
        for _ in 0..1000 {
            let left = Left { open: Some(OpenFile { name, id, bytes: 4096, now: file.bytes() }), others: &Vec::new };
            directory.confirm(&left, &mut seen).unwrap();
        }
        nanos(begun.elapsed()) / 1000
    }
}

fn report(all: &[Round], records: u32, changes: u32, file_system: &str, json: bool) {
    let spread = |figure: fn(&Round) -> u64| Spread::of(all.iter().map(figure).collect());
    let (looks, does_not, look) =
        (spread(|round| round.looks), spread(|round| round.does_not), spread(|round| round.look));
    let ratio = spread(|round| thousandths(round.looks, round.does_not));
    let share = spread(|round| thousandths(100 * round.look, round.does_not));
    if json {
        let all = serde_json::json!({
            "records": records, "rounds": all.len(), "changes": changes, "file_system": file_system,
            "looks_ns": looks.json(), "does_not_ns": does_not.json(), "look_ns": look.json(),
            "ratio_in_thousandths": ratio.json(), "look_in_thousandths_of_a_percent": share.json(),
        });
        println!("{all}");
        return;
    }
    println!(
        "{records} records on {file_system}; median [min, max] of {} rounds, of {changes} durable changes each",
        all.len()
    );
    println!("a durable change, with the look, us     {:>28}", looks.show(decimal));
    println!("a durable change, without it, us        {:>28}", does_not.show(decimal));
    println!("ratio of the same round                 {:>28}  wanted <= 1.03", ratio.show(decimal));
    println!("the look alone, us                      {:>28}", look.show(decimal));
    println!("the look alone, % of a change without   {:>28}  wanted <= 3.00", share.show(decimal));
}
