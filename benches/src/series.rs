//! The figures behind the plots: the same measurements as behind the goals, over sizes and over more contestants.
//!
//! What must hold: all contestants at one place of an axis are measured in the same rounds on the same data. A contestant
//! that is too slow or too large for a size is left out there, and its line ends.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "a measurement: it reads the clock, waits, and stops when something does not hold"
)]

use core::hint::black_box;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use trustkeep::{NodeId, TrustStore};

use crate::peers::maps::{
    Bare, Dash, Handle, ImblHash, ImblOrd, LeftRight, Map as _, Papaya, ParkingLot, Reader, Rpds, Scc, Shared, StdLock,
    Swapped, Writable,
};
use crate::peers::model_a::ModelA;
use crate::peers::model_b::ModelB;
use crate::results::{Curve, Point, Series};
use crate::rounds::{Tail, alternate, mean};
use crate::rows::Plan;
use crate::rows::grants::{MODEL_A, MODEL_B, OURS, of_model_a, of_model_b, of_ours, ours};
use crate::rows::reads::{MANY_NAME, hits, reading, reading_many};
use crate::rows::tails::{Sleepy, beside, reads, regrant};
use crate::workload::{Mix, Random, Terms, id, questions, questions_for, record};

/// How a series is measured.
pub type Measure = fn(&Plan) -> Series;

/// What can be measured, by name.
pub const SERIES: &[(&str, Measure)] = &[
    ("reads", |plan| reads_over_sizes(plan, 1, "reads")),
    ("reads_two_threads", |plan| reads_over_sizes(plan, 2, "reads_two_threads")),
    ("latency_writer", latency_writer),
    ("latency_ours", latency_ours),
    ("durable_change", durable_change),
    ("grants", grants),
    ("publish_threads", publish_threads),
];

/// The shares of samples that latency is told for; 1 is the maximum.
pub const SHARES: &[(f64, &str)] =
    &[(0.5, "p50"), (0.9, "p90"), (0.99, "p99"), (0.999, "p99.9"), (0.9999, "p99.99"), (1.0, "max")];

fn add(series: &mut Series, label: &str, at: f64, rounds: Vec<f64>) {
    let at_curve = series.curves.iter().position(|curve| curve.label == label).unwrap_or_else(|| {
        series.curves.push(Curve { label: label.to_owned(), points: Vec::new() });
        series.curves.len() - 1
    });
    if let Some(curve) = series.curves.get_mut(at_curve) {
        curve.points.push(Point { at, rounds });
    }
}

fn named(name: &str) -> Series {
    Series { name: name.to_owned(), curves: Vec::new() }
}

fn reads_over_sizes(plan: &Plan, threads: usize, name: &str) -> Series {
    let mut series = named(name);
    let sizes: &[u32] = if plan.quick { &[100, 10_000] } else { &[100, 10_000, 1_000_000, 10_000_000] };
    for &size in sizes {
        let questions = questions(size, Mix::Half, questions_for(size, plan.quick), 1);
        let (Handle(store), locked) = (Handle::filled(size), ParkingLot::filled(size));
        let (map, shared) = (locked.read(), Shared(&store));
        let run = Reads { threads, questions: &questions, found: hits(&map, &questions) };
        let (mut handle, mut shared) = (|| run.of(|| store.reader()), || run.of(|| shared.reader()));
        let mut many = || reading_many(threads, &questions, run.found, &store);
        let (mut bare, mut lock) = (|| run.of(|| map.reader()), || run.of(|| locked.reader()));
        let labels = [Handle::NAME, MANY_NAME, Shared::NAME, Bare::NAME, ParkingLot::NAME];
        if size > 1_000_000 {
            let rounds = alternate(plan.rounds(), [&mut handle, &mut many, &mut shared, &mut bare, &mut lock]);
            labels.into_iter().zip(rounds).for_each(|(label, rounds)| add(&mut series, label, size.into(), rounds));
            continue;
        }
        let (std, dash, papaya) = (StdLock::filled(size), Dash::filled(size), Papaya::filled(size));
        let (scc, left_right) = (Scc::filled(size), LeftRight::filled(size));
        let hash = Swapped::<ImblHash>::filled(size);
        let ord = Swapped::<ImblOrd>::filled(size);
        let rpds = Swapped::<Rpds>::filled(size);
        let rounds = alternate(
            plan.rounds(),
            [
                &mut handle,
                &mut many,
                &mut shared,
                &mut bare,
                &mut lock,
                &mut || run.of(|| std.reader()),
                &mut || run.of(|| dash.reader()),
                &mut || run.of(|| papaya.reader()),
                &mut || run.of(|| scc.reader()),
                &mut || run.of(|| left_right.reader()),
                &mut || run.of(|| hash.reader()),
                &mut || run.of(|| ord.reader()),
                &mut || run.of(|| rpds.reader()),
            ],
        );
        let others = [StdLock::NAME, Dash::NAME, Papaya::NAME, Scc::NAME, LeftRight::NAME].into_iter().chain([
            Swapped::<ImblHash>::NAME,
            Swapped::<ImblOrd>::NAME,
            Swapped::<Rpds>::NAME,
        ]);
        for (label, rounds) in labels.into_iter().chain(others).zip(rounds) {
            add(&mut series, label, size.into(), rounds);
        }
    }
    series
}

#[derive(Clone, Copy)]
struct Reads<'a> {
    threads: usize,
    questions: &'a [NodeId],
    found: usize,
}

impl Reads<'_> {
    fn of<R: Reader>(self, reader: impl Fn() -> R + Sync) -> f64 {
        reading(self.threads, self.questions, self.found, reader)
    }
}

/// Adds the quantiles of these tails, one tail a round.
fn add_tails(series: &mut Series, label: &str, tails: &[Tail]) {
    for (share, _) in SHARES {
        add(series, label, *share, tails.iter().map(|tail| tail.quantile(*share)).collect());
    }
}

/// Reads of one thread while another writes as fast as it can.
fn latency_writer(plan: &Plan) -> Series {
    let mut series = named("latency_writer");
    let size = latency_size(plan);
    // Some take tens of microseconds a read beside a writer.
    let questions = questions(size, Mix::Half, plan.or(100_000, 200_000), 9);
    let (Handle(store), bare) = (Handle::filled(size), Bare::filled(size));
    let (lock, dash, papaya) = (ParkingLot::filled(size), Dash::filled(size), Papaya::filled(size));
    let (scc, left_right) = (Scc::filled(size), LeftRight::filled(size));
    let (hash, ord) = (Swapped::<ImblHash>::filled(size), Swapped::<ImblOrd>::filled(size));
    let write = regrant(&store, size);
    let run = Tails { size, questions: &questions };
    let tails = alternate(
        plan.rounds(),
        [
            &mut || beside(&write, || reads(&mut store.reader(), &questions)).0,
            &mut || reads(&mut bare.reader(), &questions),
            &mut || run.of(&lock),
            &mut || run.of(&dash),
            &mut || run.of(&papaya),
            &mut || run.of(&scc),
            &mut || run.of(&left_right),
            &mut || run.of(&hash),
            &mut || run.of(&ord),
        ],
    );
    let labels = [
        Handle::NAME,
        "hashbrown, no lock, no writer",
        ParkingLot::NAME,
        Dash::NAME,
        Papaya::NAME,
        Scc::NAME,
        LeftRight::NAME,
        Swapped::<ImblHash>::NAME,
        Swapped::<ImblOrd>::NAME,
    ];
    labels.into_iter().zip(&tails).for_each(|(label, tails)| add_tails(&mut series, label, tails));
    series
}

#[derive(Clone, Copy)]
struct Tails<'a> {
    size: u32,
    questions: &'a [NodeId],
}

impl Tails<'_> {
    fn of<M: Writable>(self, map: &M) -> Tail {
        let key = crate::key();
        let write = |number: u32| {
            let network = u16::try_from(2 + number % 60_000).unwrap_or(2);
            let record = record(Random::new(number.into()).below(self.size), key, network);
            map.put(record.node_id, Terms::of(&record));
        };
        beside(write, || reads(&mut map.reader(), self.questions)).0
    }
}

const fn latency_size(plan: &Plan) -> u32 {
    if plan.quick { 10_000 } else { 1_000_000 }
}

/// Our own reads in every state of the store. It lies on a disk, but for the fsync that hangs: that one is simulated, since
/// no disk hangs when it is asked to.
fn latency_ours(plan: &Plan) -> Series {
    let mut series = named("latency_ours");
    let size = latency_size(plan);
    let questions = questions(size, Mix::Half, plan.or(100_000, 1_000_000), 10);
    let dir = plan.home.join("latency");
    std::fs::create_dir(&dir).unwrap();
    let store = ours(size, &dir);
    let write = regrant(&store, size);
    let read = || reads(&mut store.reader(), &questions);
    let sleepy = Sleepy::new(size);
    let (change, number) = (regrant(&sleepy.store, size), core::cell::Cell::new(0));
    let next = || {
        number.set(number.get() + 1);
        change(number.get());
    };
    let paced = |number| {
        write(number);
        std::thread::sleep(Duration::from_millis(1));
    };
    let durable = |number| {
        write(number);
        store.flush().unwrap();
    };
    let hanging = || sleepy.in_fsync(next, || reads(&mut sleepy.store.reader(), &questions));
    let (mut paced, mut durable) = (|| beside(paced, read).0, || beside(durable, read).0);
    let (mut quiet, mut without_pause, mut hanging) = (read, || beside(&write, read).0, hanging);
    let tails = alternate(plan.rounds(), [&mut quiet, &mut paced, &mut durable, &mut without_pause, &mut hanging]);
    let labels =
        ["nobody writes", "a grant every ms", "grants, each made durable", "grants without a pause", "an fsync hangs"];
    labels.into_iter().zip(&tails).for_each(|(label, tails)| add_tails(&mut series, label, tails));
    store.close().unwrap();
    std::fs::remove_dir_all(dir).unwrap();
    series
}

fn sizes(plan: &Plan) -> &'static [u32] {
    if plan.quick { &[100, 10_000] } else { &[100, 10_000, 1_000_000] }
}

/// Every contestant's files in a directory of their own.
fn contestants(plan: &Plan, name: &str, size: u32) -> (std::path::PathBuf, TrustStore, ModelA, ModelB) {
    let dir = plan.home.join(format!("{name}_{size}"));
    std::fs::create_dir(&dir).unwrap();
    let all = (ours(size, &dir), ModelA::filled(size, &dir).unwrap(), ModelB::filled(size, &dir).unwrap());
    (dir, all.0, all.1, all.2)
}

/// Nanoseconds until one change is durable, one after the other.
fn durable_change(plan: &Plan) -> Series {
    let mut series = named("durable_change");
    for &size in sizes(plan) {
        let (dir, store, a, b) = contestants(plan, "durable", size);
        let mut network = 1;
        let mut next = || {
            network += 1;
            record(0, crate::key(), network)
        };
        let next = core::cell::RefCell::new(&mut next);
        let time = |change: &dyn Fn()| {
            let start = Instant::now();
            change();
            crate::nanos(start.elapsed()) as f64
        };
        let rounds = alternate(
            plan.rounds(),
            [
                &mut || time(&|| store.grant((next.borrow_mut())()).unwrap().wait_durable().unwrap()),
                &mut || time(&|| a.grant(&(next.borrow_mut())()).unwrap()),
                &mut || {
                    time(&|| {
                        b.grant(&(next.borrow_mut())());
                        b.settle();
                    })
                },
            ],
        );
        for (label, rounds) in [OURS, MODEL_A, MODEL_B].into_iter().zip(rounds) {
            add(&mut series, label, size.into(), rounds);
        }
        store.close().unwrap();
        // The thread that saves may find one more signal, and would put a file there meanwhile.
        drop(b);
        std::fs::remove_dir_all(dir).unwrap();
    }
    series
}

/// Grants a second until durable, with a reader beside.
fn grants(plan: &Plan) -> Series {
    let mut series = named("grants");
    for &size in sizes(plan) {
        let (dir, store, a, b) = contestants(plan, "grants", size);
        let questions = questions(size, Mix::Half, 1 << 17, 7);
        // A save of a million records takes seconds.
        let time = if size < 1_000_000 { plan.time() } else { plan.time() * 5 };
        let [of_store, of_a, of_b] = alternate(
            plan.or(2, 5),
            [
                &mut || of_ours(&store, size, time, &questions).per_second,
                &mut || of_model_a(&a, size, time, &questions).per_second,
                &mut || of_model_b(&b, size, time, &questions).per_second,
            ],
        );
        for (label, rounds) in [(OURS, of_store), (MODEL_A, of_a), (MODEL_B, of_b)] {
            add(&mut series, label, size.into(), rounds);
        }
        store.close().unwrap();
        // The thread that saves may find one more signal, and would put a file there meanwhile.
        drop(b);
        std::fs::remove_dir_all(dir).unwrap();
    }
    series
}

/// Nanoseconds of a grant while so many threads live that have asked once. What they load with keeps a list of the threads
/// of the process, dead ones too, so that those which do not load come first.
fn publish_threads(plan: &Plan) -> Series {
    let mut series = named("publish_threads");
    let Handle(store) = Handle::filled(10_000);
    let (mut number, key) = (0, crate::key());
    for (label, loads) in [("they asked is_trusted of the store", false), ("they loaded the published version", true)] {
        for threads in [1, 64, 1024] {
            let (asked, measured) = (Barrier::new(threads + 1), Barrier::new(threads + 1));
            let rounds = std::thread::scope(|scope| {
                for _ in 0..threads {
                    let body = || {
                        let _ = black_box(if loads { store.get(id(0)).is_some() } else { store.is_trusted(id(0)) });
                        asked.wait();
                        measured.wait();
                    };
                    let _running = std::thread::Builder::new().stack_size(64 << 10).spawn_scoped(scope, body).unwrap();
                }
                asked.wait();
                let grants = plan.or(5_000, 20_000);
                let mut grant = || {
                    number += 1;
                    let _ = store.grant(record(number % 10_000, key, 2 + (number / 10_000) as u16)).unwrap();
                };
                let [rounds] = alternate(plan.rounds(), [&mut || mean(grants, || (0..grants).for_each(|_| grant()))]);
                measured.wait();
                rounds
            });
            add(&mut series, label, threads as f64, rounds);
        }
    }
    series
}
