//! The slowest thousandth of reads and grants, while somebody writes and while the keeper sits in fsync.
//!
//! What must hold: what is called "while" was going on from the first sample to the last. Each sample holds
//! what it costs to read the clock once, on both sides; that is told beside the figures.
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a measurement: it reads the clock, sleeps, and stops when something does not hold"
)]

use core::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

use trustkeep::testing::sim_disk::SimDisk;
use trustkeep::{NodeId, TrustStore};

use super::fixtures::MILLION;
use super::{Kind, Plan, Wanted, goal, nanos};
use crate::goals::Line;
use crate::peers::maps::{Bare, Handle, Map as _, Reader};
use crate::rounds::{Tail, alternate, clock_cost};
use crate::workload::{Mix, Random, fill, questions, record};

pub(super) const WRITER: Kind = Kind { goals: &["read_tail_writer_flat_out"], measure: writer };
pub(super) const FSYNC: Kind = Kind { goals: &["read_tail_in_fsync", "grant_tail_in_fsync"], measure: fsync };

/// Times so many reads.
pub(crate) fn reads(reader: &mut impl Reader, questions: &[NodeId]) -> Tail {
    let _ = black_box(reader.contains(questions[0]));
    Tail::of(questions.len(), |number| _ = black_box(reader.contains(questions[number])))
}

/// Runs `work` while another thread does `write` again and again, given a number that grows; returns what `work` does, and
/// how often the other thread wrote.
pub(crate) fn beside<R>(write: impl Fn(u32) + Sync, work: impl FnOnce() -> R) -> (R, u64) {
    let (stop, writes) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // ORDERING: Relaxed; a switch and a counter of the measurement. No partner in docs/concurrency.md.
            let mut number = 0;
            while !stop.load(Ordering::Relaxed) {
                write(number);
                number = number.wrapping_add(1);
                writes.store(number.into(), Ordering::Relaxed);
            }
        });
        while writes.load(Ordering::Relaxed) < 3 {
            std::hint::spin_loop();
        }
        let result = work();
        stop.store(true, Ordering::Relaxed);
        (result, writes.load(Ordering::Relaxed))
    })
}

/// Grants records of a store of this size again and again, each with another network than before.
pub(crate) fn regrant(store: &TrustStore, size: u32) -> impl Fn(u32) + Sync {
    let key = crate::key();
    move |number| {
        let which = Random::new(number.into()).below(size);
        let network = u16::try_from(2 + number % 60_000).unwrap_or(2);
        let _ = store.grant(record(which, key, network)).unwrap();
    }
}

/// What the clock adds, for people.
pub(crate) fn clock_note() -> String {
    let [median, most] = clock_cost();
    format!("samples hold the clock's own {median:.0} ns (p99.9 {most:.0} ns)")
}

fn writer(plan: &Plan, _: &Wanted<'_>) -> Vec<Line> {
    const SIZE: u32 = MILLION;
    let (store, map) = (plan.fixtures.store(), plan.fixtures.locked().read());
    let questions = questions(SIZE, Mix::Half, plan.or(200_000, 2_000_000), 4);
    let (write, mut writes) = (regrant(store, SIZE), Vec::new());
    let [ours, peer] = alternate(
        plan.rounds(),
        [
            &mut || {
                let (tail, written) = beside(&write, || reads(&mut store.reader(), &questions));
                writes.push(written);
                tail.quantile(0.999)
            },
            &mut || reads(&mut map.reader(), &questions).quantile(0.999),
        ],
    );
    let fewest = writes.iter().min().copied().unwrap_or(0);
    let line = goal("read_tail_writer_flat_out").measured(nanos(Handle::NAME, ours), Some(nanos(Bare::NAME, peer)));
    let note = format!("{}; at least {fewest} publishes in each round", clock_note());
    vec![line.note(note).provided(fewest >= 1000, "the writer hardly published")]
}

/// A store on a simulated disk whose syncs can be made to hang.
pub(crate) struct Sleepy {
    // Goes before the store: whoever hangs is woken, and the store can be closed.
    awake: std::sync::mpsc::Sender<()>,
    pub(crate) store: TrustStore,
    asleep: std::sync::mpsc::Receiver<()>,
    sleepy: Arc<AtomicBool>,
}

impl Sleepy {
    pub(crate) fn new(size: u32) -> Self {
        let disk = SimDisk::new();
        // Never a snapshot beside the journal: it is the keeper's own sync that is to hang, not that of its helper.
        let store = TrustStore::options().journal_sizes(1 << 20, 1 << 40).open_storage(Arc::new(disk.clone())).unwrap();
        fill(&store, size);
        store.flush().unwrap();
        let sleepy = Arc::new(AtomicBool::new(false));
        let ((entered, asleep), (awake, woken)) = (channel(), channel());
        let woken = parking_lot::Mutex::new(woken);
        disk.on_sync({
            let sleepy = Arc::clone(&sleepy);
            // ORDERING: SeqCst; a switch of the measurement, off the measured paths. No partner in docs/concurrency.md.
            move || {
                if sleepy.swap(false, Ordering::SeqCst) {
                    entered.send(()).unwrap();
                    // As long as it takes, and a second at least.
                    std::thread::sleep(Duration::from_secs(1));
                    let _ = woken.lock().recv();
                }
            }
        });
        Self { store, asleep, sleepy, awake }
    }

    /// Runs `work` while the keeper sits in an fsync that takes a second, or longer if `work` does.
    pub(crate) fn in_fsync<R>(&self, change: impl FnOnce(), work: impl FnOnce() -> R) -> R {
        self.store.flush().unwrap();
        // ORDERING: SeqCst; as above.
        self.sleepy.store(true, Ordering::SeqCst);
        change();
        self.asleep.recv().unwrap();
        let durable = self.store.durable_generation();
        let result = work();
        assert_eq!(self.store.durable_generation(), durable, "the save ended before the samples");
        self.awake.send(()).unwrap();
        self.store.flush().unwrap();
        result
    }
}

fn fsync(plan: &Plan, wanted: &Wanted<'_>) -> Vec<Line> {
    const SIZE: u32 = 10_000;
    let sleepy = Sleepy::new(SIZE);
    let (grant, number) = (regrant(&sleepy.store, SIZE), std::cell::Cell::new(0));
    let next = || {
        number.set(number.get() + 1);
        grant(number.get());
    };
    let mut lines = Vec::new();
    if wanted.any(&["read_tail_in_fsync"]) {
        let questions = questions(SIZE, Mix::Half, plan.or(200_000, 2_000_000), 5);
        let read = || reads(&mut sleepy.store.reader(), &questions).quantile(0.999);
        let [during, quiet] = alternate(plan.rounds(), [&mut || sleepy.in_fsync(next, read), &mut || read()]);
        lines.push(line("read_tail_in_fsync", during, quiet));
    }
    if wanted.any(&["grant_tail_in_fsync"]) {
        let count = plan.or(20_000, 100_000);
        let grants = || Tail::of(count, |_| next()).quantile(0.999);
        let [during, quiet] = alternate(plan.rounds(), [&mut || sleepy.in_fsync(next, grants), &mut || grants()]);
        lines.push(line("grant_tail_in_fsync", during, quiet));
    }
    lines
}

fn line(name: &str, during: Vec<f64>, quiet: Vec<f64>) -> Line {
    goal(name)
        .measured(nanos("trustkeep, one fsync hangs", during), Some(nanos("trustkeep, no save hangs", quiet)))
        .note(clock_note())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn somebody_writes_from_before_the_work_begins_until_it_ends() {
        let last = AtomicU64::new(0);
        let ((begun, ended), writes) = beside(
            |number| last.store(number.into(), Ordering::SeqCst),
            || {
                let begun = last.load(Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(50));
                (begun, last.load(Ordering::SeqCst))
            },
        );
        assert!(begun >= 2 && ended > begun && writes >= ended, "{begun} {ended} {writes}");
    }

    #[test]
    fn the_keeper_sits_in_fsync_while_the_work_runs_and_not_before_or_after() {
        let sleepy = Sleepy::new(100);
        let grant = regrant(&sleepy.store, 100);
        let is_behind = || sleepy.store.durable_generation() < sleepy.store.generation();
        assert!(!is_behind());
        let number = std::cell::Cell::new(0);
        let next = || {
            number.set(number.get() + 1);
            grant(number.get());
        };
        assert!(sleepy.in_fsync(next, || {
            next();
            is_behind()
        }));
        assert!(!is_behind());
    }

    #[test]
    fn work_that_fails_in_an_fsync_leaves_nobody_hanging() {
        let sleepy = Sleepy::new(100);
        let grant = regrant(&sleepy.store, 100);
        let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            sleepy.in_fsync(|| grant(1), || panic!("the work failed"));
        }));
        assert!(failed.is_err());
        drop(grant);
        // This would wait for ever.
        drop(sleepy);
    }
}
