//! How many grants a second last, with a reader beside and everything saved, next to the designs that this one replaces.
//!
//! What must hold: the clock stops when the last grant is durable, on every side. The reader asks, pauses for 50 us and asks
//! again: one that never paused would ask thousands of times in each gap between two saves, and its mean would hide that it
//! waits most of its time; it would also take a processor from whoever saves.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    reason = "a measurement: it reads the clock, sleeps, and stops when something does not hold"
)]

use core::hint::black_box;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use trustkeep::{NodeId, PublicKey, TrustRecord, TrustStore};

use super::fixtures::MILLION;
use super::tails::regrant;
use super::{Kind, Plan, Wanted, goal, nanos};
use crate::figure::{Side, Unit};
use crate::goals::Line;
use crate::peers::model_a::ModelA;
use crate::peers::model_b::ModelB;
use crate::rounds::per_operation;
use crate::workload::{Mix, Random, fill, questions, record};

pub(super) const SMALL: Kind = Kind {
    goals: &["grants_10k_model_a", "grants_10k_model_b", "grants_10k", "read_during_grants_10k"],
    measure: small,
};
pub(super) const LARGE: Kind = Kind { goals: &["read_during_grants_1m"], measure: large };

/// One side in one round.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figures {
    /// Grants a second, until the last one was durable.
    pub(crate) per_second: f64,
    /// Nanoseconds of a read, on average.
    pub(crate) mean_read: f64,
}

/// One thread grants and one reads for this long; then everything is made durable.
pub(crate) fn contest(
    time: Duration,
    questions: &[NodeId],
    grant: impl Fn(u32) + Sync,
    mut read: impl FnMut(NodeId) -> bool + Send,
    settle: impl FnOnce(),
) -> Figures {
    let stop = AtomicBool::new(false);
    // ORDERING: Relaxed; a switch of the measurement. No partner in docs/concurrency.md.
    let stopped = || stop.load(Ordering::Relaxed);
    let start = Instant::now();
    let (granted, mean_read) = std::thread::scope(|scope| {
        let granting = scope.spawn(|| {
            let mut granted = 0;
            while !stopped() {
                grant(granted);
                granted += 1;
            }
            granted
        });
        let reading = scope.spawn(|| {
            let (mut waited, mut reads, mut found) = (Duration::ZERO, 0, 0);
            for peer in questions.iter().cycle() {
                std::thread::sleep(PAUSE);
                let start = Instant::now();
                found += usize::from(read(*peer));
                waited += start.elapsed();
                reads += 1;
                if stopped() {
                    break;
                }
            }
            let _ = black_box(found);
            per_operation(waited, reads)
        });
        std::thread::sleep(time);
        stop.store(true, Ordering::Relaxed);
        (granting.join().unwrap(), reading.join().unwrap())
    });
    settle();
    Figures { per_second: f64::from(granted) / start.elapsed().as_secs_f64(), mean_read }
}

/// Our side, with its files in this directory.
pub(crate) fn ours(size: u32, dir: &Path) -> TrustStore {
    let store = TrustStore::open(dir.join("store")).unwrap();
    fill(&store, size);
    store.flush().unwrap();
    store
}

/// One round of ours.
pub(crate) fn of_ours(store: &TrustStore, size: u32, time: Duration, questions: &[NodeId]) -> Figures {
    let mut reader = store.reader();
    contest(time, questions, regrant(store, size), move |peer| reader.is_trusted(peer), || _ = store.flush().unwrap())
}

/// One round of model A.
pub(crate) fn of_model_a(model: &ModelA, size: u32, time: Duration, questions: &[NodeId]) -> Figures {
    let key = crate::key();
    let grant = |number| model.grant(&changed(number, size, key)).unwrap();
    contest(time, questions, grant, |peer| model.is_trusted(peer), || ())
}

/// One round of model B.
pub(crate) fn of_model_b(model: &ModelB, size: u32, time: Duration, questions: &[NodeId]) -> Figures {
    let key = crate::key();
    let grant = |number| model.grant(&changed(number, size, key));
    contest(time, questions, grant, |peer| model.is_trusted(peer), || model.settle())
}

/// The key is made once: to find out that a text is a point on the curve takes microseconds, which are no model's.
fn changed(number: u32, size: u32, key: PublicKey) -> TrustRecord {
    let network = u16::try_from(2 + number % 60_000).unwrap_or(2);
    record(Random::new(number.into()).below(size), key, network)
}

fn small(plan: &Plan, _: &Wanted<'_>) -> Vec<Line> {
    const SIZE: u32 = 10_000;
    let dir = plan.home.join("grants");
    std::fs::create_dir(&dir).unwrap();
    let (store, a, b) = (ours(SIZE, &dir), ModelA::filled(SIZE, &dir).unwrap(), ModelB::filled(SIZE, &dir).unwrap());
    let questions = questions(SIZE, Mix::Half, 1 << 17, 7);
    let time = plan.time() * 2;
    let (mut of_store, mut of_a, mut of_b) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..plan.or(3, 7) {
        of_store.push(of_ours(&store, SIZE, time, &questions));
        of_a.push(of_model_a(&a, SIZE, time, &questions));
        of_b.push(of_model_b(&b, SIZE, time, &questions));
    }
    store.close().unwrap();
    let rates = |label, figures: &[Figures]| {
        Side::new(label, Unit::PerSecond, figures.iter().map(|figures| figures.per_second).collect())
    };
    let reads = |label, figures: &[Figures]| nanos(label, figures.iter().map(|figures| figures.mean_read).collect());
    vec![
        goal("grants_10k_model_a").measured(rates(OURS, &of_store), Some(rates(MODEL_A, &of_a))),
        goal("grants_10k_model_b").measured(rates(OURS, &of_store), Some(rates(MODEL_B, &of_b))),
        goal("grants_10k").measured(rates(OURS, &of_store), None),
        goal("read_during_grants_10k")
            .measured(reads(HANDLE, &of_store), Some(reads(MODEL_B, &of_b)))
            .beside(vec![reads(MODEL_A, &of_a)]),
    ]
}

fn large(plan: &Plan, _: &Wanted<'_>) -> Vec<Line> {
    const SIZE: u32 = MILLION;
    let dir = plan.fixtures.files(&plan.home, "grants_large");
    let store = TrustStore::open(&dir).unwrap();
    let b = ModelB::filled(SIZE, &plan.home).unwrap();
    let questions = questions(SIZE, Mix::Half, 1 << 21, 8);
    let (ours_time, b_time) = (plan.time(), Duration::from_secs(if plan.quick { 3 } else { 6 }));
    let (mut of_store, mut of_b) = (Vec::new(), Vec::new());
    for _ in 0..plan.few_rounds() {
        of_store.push(of_ours(&store, SIZE, ours_time, &questions).mean_read);
        of_b.push(of_model_b(&b, SIZE, b_time, &questions).mean_read);
    }
    store.close().unwrap();
    std::fs::remove_dir_all(dir).unwrap();
    vec![goal("read_during_grants_1m").measured(nanos(HANDLE, of_store), Some(nanos(MODEL_B, of_b)))]
}

const PAUSE: Duration = Duration::from_micros(50);
/// What our side is called where it writes.
pub(crate) const OURS: &str = "trustkeep";
const HANDLE: &str = "trustkeep, handle";
/// What model A is called.
pub(crate) const MODEL_A: &str = "model A";
/// What model B is called.
pub(crate) const MODEL_B: &str = "model B";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn saving_what_is_left_counts_and_so_does_what_a_reader_waits() {
        let asked = questions(10, Mix::Half, 100, 1);
        let pause = |millis| std::thread::sleep(Duration::from_millis(millis));
        let run = |settle_ms: u64| {
            let read = move |_| {
                pause(3);
                true
            };
            contest(Duration::from_millis(100), &asked, |_| pause(1), read, || pause(settle_ms))
        };
        let (at_once, later) = (run(0), run(400));
        assert!((10.0..1001.0).contains(&at_once.per_second), "{at_once:?}");
        assert!(later.per_second < at_once.per_second / 2.0, "{at_once:?} {later:?}");
        assert!(at_once.mean_read >= 3e6, "{at_once:?}");
    }
}
