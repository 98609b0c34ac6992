//! How fast a change becomes durable: 1, 8 and 64 threads, each waiting for each of its grants, beside a thread that does
//! nothing but append a record to a file and call fdatasync. All of them take turns, round by round in one run.
//!
//! `durable [--records 10000] [--rounds 7] [--round-ms 1000] [--bytes 64] [--dir D] [--json]`
//!
//! `--bytes` is the length of a bare record. Without `--dir` the files lie beside this program. Ratios are of the same
//! round.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a measurement: it reads the clock, prints, and stops when something does not hold"
)]

use std::path::Path;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use trustkeep::TrustStore;
use trustkeep_benches::arguments::{Arguments, usage_error};
use trustkeep_benches::changes::Changes;
use trustkeep_benches::directory::{file_system, temporary};
use trustkeep_benches::raw::RawFile;
use trustkeep_benches::{Samples, Spread, decimal, fill, nanos, thousandths};

const USAGE: &str = "durable [--records 10000] [--rounds 7] [--round-ms 1000] [--bytes 64] [--dir D] [--json]";
const THREADS: [usize; 3] = [1, 8, 64];
const NAMES: [&str; 5] = ["append, space ahead", "append, file grows", "1 thread", "8 threads", "64 threads"];
/// Which side comes when: each of ours next to a bare one. Every other round goes backwards, so that no side always comes
/// first.
const ORDER: [usize; 5] = [0, 2, 1, 3, 4];

/// One side in one round.
#[derive(Clone, Copy, Debug, Default)]
struct Figures {
    per_second: u64,
    p50: u64,
    p99: u64,
    max: u64,
}

fn main() {
    let valued = ["--records", "--rounds", "--round-ms", "--bytes", "--dir"];
    let arguments = Arguments::of_process(USAGE, &valued, &["--json"]);
    // Each of 64 threads has peers of its own.
    let records = arguments.number("--records", 10_000, 64);
    let rounds = arguments.number("--rounds", 7, 1);
    let time = Duration::from_millis(arguments.number("--round-ms", 1000, 1).into());
    let bytes = usize::try_from(arguments.number("--bytes", 64, 1)).unwrap();
    if bytes > 1 << 20 {
        usage_error(USAGE, "--bytes: at most 1 MiB");
    }
    let home = temporary(arguments.path("--dir")).unwrap();

    let store = TrustStore::open(home.path().join("store")).unwrap();
    fill(&store, records);
    store.flush().unwrap();
    let mut ours: Vec<Vec<Changes>> =
        THREADS.into_iter().zip(0..).map(|(threads, lane)| Changes::dealt(records, threads, lane)).collect();

    let mut all: Vec<[Figures; 5]> = Vec::new();
    for round in 0..rounds {
        let mut figures = [Figures::default(); 5];
        let mut order = ORDER;
        if round % 2 == 1 {
            order.reverse();
        }
        for side in order {
            figures[side] = match side {
                0 | 1 => bare(home.path(), side == 0, bytes, time),
                _ => durable_grants(&store, &mut ours[side - 2], time),
            };
        }
        all.push(figures);
    }
    store.close().unwrap();
    report(&all, records, time, bytes, &file_system(home.path()), arguments.has("--json"));
}

fn bare(home: &Path, ahead: bool, bytes: usize, time: Duration) -> Figures {
    let path = home.join("bare");
    let mut raw = if ahead { RawFile::taken_ahead(&path, bytes) } else { RawFile::growing(&path, bytes) }.unwrap();
    let start = Instant::now();
    let taken = repeat(start + time, || raw.append().unwrap());
    let elapsed = start.elapsed();
    std::fs::remove_file(path).unwrap();
    figures(taken, elapsed)
}

fn durable_grants(store: &TrustStore, threads: &mut [Changes], time: Duration) -> Figures {
    let (before, barrier) = (store.generation().get(), Barrier::new(threads.len() + 1));
    let (taken, elapsed) = std::thread::scope(|scope| {
        let running: Vec<_> = threads
            .iter_mut()
            .map(|changes| {
                let barrier = &barrier;
                scope.spawn(move || {
                    barrier.wait();
                    repeat(Instant::now() + time, || {
                        store.grant(changes.next().unwrap()).unwrap().wait_durable().unwrap();
                    })
                })
            })
            .collect();
        barrier.wait();
        let start = Instant::now();
        let taken: Vec<u64> = running.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        (taken, start.elapsed())
    });
    // Each of them was a change: what changes nothing is durable for nothing.
    assert_eq!(store.generation().get() - before, taken.len() as u64);
    figures(taken, elapsed)
}

/// The operation again and again until then, and how long each took.
fn repeat(until: Instant, mut operation: impl FnMut()) -> Vec<u64> {
    let mut taken = Vec::new();
    let mut before = Instant::now();
    while before < until {
        operation();
        let after = Instant::now();
        taken.push(nanos(after - before));
        before = after;
    }
    taken
}

fn figures(taken: Vec<u64>, elapsed: Duration) -> Figures {
    let per_second = (taken.len() as f64 / elapsed.as_secs_f64()).round() as u64;
    let taken = Samples::new(taken);
    Figures { per_second, p50: taken.per_mille(500), p99: taken.per_mille(990), max: taken.per_mille(1000) }
}

fn report(all: &[[Figures; 5]], records: u32, time: Duration, bytes: usize, file_system: &str, json: bool) {
    let spread = |figure: &dyn Fn(&[Figures; 5]) -> u64| Spread::of(all.iter().map(figure).collect());
    // Time per operation, not operations: more is slower.
    let slower = |ours: usize, than: usize| {
        spread(&|round: &[Figures; 5]| thousandths(round[than].per_second, round[ours].per_second))
    };
    let faster = |ours: usize, than: usize| slower(than, ours);
    let ratios = [
        ("1 thread, time per grant / per append, space ahead", slower(2, 0), "<= 1.30"),
        ("1 thread, time per grant / per append, file grows", slower(2, 1), ""),
        ("8 threads, grants/s / of 1 thread", faster(3, 2), ""),
        ("64 threads, grants/s / of 1 thread", faster(4, 2), ">= 16.00"),
    ];
    let time_ms = u64::try_from(time.as_millis()).unwrap();
    if json {
        let sides: serde_json::Map<String, serde_json::Value> = NAMES
            .into_iter()
            .enumerate()
            .map(|(side, name)| {
                let figures = serde_json::json!({
                    "per_second": spread(&|round| round[side].per_second).json(),
                    "p50_ns": spread(&|round| round[side].p50).json(),
                    "p99_ns": spread(&|round| round[side].p99).json(),
                    "max_ns": spread(&|round| round[side].max).json(),
                });
                (name.to_owned(), figures)
            })
            .collect();
        let ratios: serde_json::Map<String, serde_json::Value> =
            ratios.into_iter().map(|(name, ratio, _)| (name.to_owned(), ratio.json())).collect();
        let all = serde_json::json!({
            "records": records, "rounds": all.len(), "round_ms": time_ms, "bytes": bytes, "file_system": file_system,
            "sides": sides, "ratios_in_thousandths": ratios,
        });
        println!("{all}");
        return;
    }
    println!(
        "{records} records on {file_system}, bare records of {bytes} bytes; median [min, max] of {} rounds of {time_ms} ms",
        all.len()
    );
    println!("{:22} {:>24} {:>30} {:>34} {:>34}", "", "per second", "p50 us", "p99 us", "max us");
    for (side, name) in NAMES.into_iter().enumerate() {
        println!(
            "{name:22} {:>24} {:>30} {:>34} {:>34}",
            spread(&|round| round[side].per_second).show(|figure| figure.to_string()),
            spread(&|round| round[side].p50).show(decimal),
            spread(&|round| round[side].p99).show(decimal),
            spread(&|round| round[side].max).show(decimal),
        );
    }
    println!("{:52} {:>24}  wanted", "ratios of the same round", "");
    for (name, ratio, wanted) in ratios {
        println!("{name:52} {:>24}  {wanted}", ratio.show(decimal));
    }
}
