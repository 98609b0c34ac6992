//! The protocols between writers, keeper, waiters and readers, under every interleaving up to a preemption bound.
//!
//! Run: `RUSTFLAGS="--cfg trustkeep_loom" cargo test --release --lib loom_tests` (bound 3; `LOOM_MAX_PREEMPTIONS=5` for
//! more). Every model notes the outcomes that it saw, and asserts that this is exactly the set of those that can be: a
//! model that explored one interleaving only would fail.
#![forbid(unsafe_code)]
#![expect(clippy::disallowed_types, reason = "bookkeeping of the models, which the checker must not see")]

mod durability;
mod durable_future;
mod events;
mod failure;
mod handles;
mod key_index;
mod moving;
mod order;
mod reclamation;
mod shutdown;
mod snapshot;
mod trust_future;
mod trust_waiters;

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::clock::Clock;
use crate::config::Limits;
use crate::error::PersistError;
use crate::map::mix::Mix;
use crate::peer::{NodeId, TrustRecord};
use crate::store::TrustStore;
use crate::store::keeper::Saver;
use crate::tables::Tables;
use crate::time::{Now, Tick, WallMillis};

/// Runs the model under every interleaving and returns what it noted in each.
pub(super) fn outcomes<T, F>(model: F) -> BTreeSet<T>
where
    T: Ord + Clone + Debug + Send + 'static,
    F: Fn() -> T + Send + Sync + 'static,
{
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    let executions = Arc::new(AtomicUsize::new(0));
    #[expect(clippy::disallowed_methods, reason = "how long a model took is for whoever reads the log")]
    let started = std::time::Instant::now();
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(3));
    // Some begin with a map of hundreds of records.
    builder.max_branches = builder.max_branches.max(20_000);
    builder.check({
        let (seen, executions) = (Arc::clone(&seen), Arc::clone(&executions));
        move || {
            executions.fetch_add(1, Ordering::Relaxed);
            let outcome = model();
            seen.lock().unwrap().insert(outcome);
        }
    });
    let executions = executions.load(Ordering::Relaxed);
    println!("{executions} executions in {:.1} s", started.elapsed().as_secs_f64());
    assert!(executions > 1, "the model explored a single interleaving");
    let seen = seen.lock().unwrap().clone();
    seen
}

/// What the checker says about a protocol broken in this way, by a test that asks [`wrong`] how to break it; `None` if it
/// finds nothing. In a process of its own: a deadlock that the checker finds ends the process, not only the test.
pub(super) fn verdict(test: &str, wrong: &str) -> Option<String> {
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(WRONG, wrong)
        .output()
        .unwrap();
    (!output.status.success()).then(|| String::from_utf8_lossy(&output.stderr).into_owned())
}

/// How this process is to break a protocol.
pub(super) fn wrong() -> Option<String> {
    std::env::var(WRONG).ok()
}

const WRONG: &str = "TRUSTKEEP_LOOM_WRONG";

pub(super) fn record(id: u32) -> TrustRecord {
    TrustRecord::new(NodeId::new(id).unwrap(), None)
}

pub(super) fn peer(id: u32) -> NodeId {
    NodeId::new(id).unwrap()
}

/// A disk that notes what it was given, and fails as often as it is told to.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk {
    /// Generation and number of trusted records of every successful save.
    saved: Arc<Mutex<Vec<(u64, usize)>>>,
    failures: Arc<AtomicUsize>,
}

impl Disk {
    pub(super) fn failing(times: usize) -> Self {
        Self { failures: Arc::new(AtomicUsize::new(times)), ..Self::default() }
    }

    /// The newest generation on disk; 0 for none.
    pub(super) fn newest(&self) -> u64 {
        self.saved.lock().unwrap().last().map_or(0, |(generation, _)| *generation)
    }

    pub(super) fn saves(&self) -> Vec<(u64, usize)> {
        self.saved.lock().unwrap().clone()
    }
}

impl Saver for Disk {
    fn save(&mut self, generation: u64, tables: &Tables) -> Result<(), PersistError> {
        let left = self.failures.load(Ordering::Relaxed);
        if left > 0 {
            self.failures.store(left - 1, Ordering::Relaxed);
            return Err(PersistError::io("write", "disk", std::io::ErrorKind::StorageFull.into()));
        }
        let mut saved = self.saved.lock().unwrap();
        assert!(saved.last().is_none_or(|(last, _)| *last < generation), "saved twice or backwards");
        saved.push((generation, tables.trusted.len()));
        Ok(())
    }
}

/// A clock that goes on by a fixed step each time it is looked at.
#[derive(Debug)]
struct Stepping {
    tick: AtomicI64,
    step: i64,
}

impl Clock for Stepping {
    fn now(&self) -> Now {
        let tick = self.tick.fetch_add(self.step, Ordering::Relaxed);
        Now { wall: WallMillis::new(tick), tick: Tick::new(tick) }
    }
}

/// A store on whose clock every pause after a failure is over at the next look.
pub(super) fn open(disk: &Disk) -> TrustStore {
    open_with(disk, 60_000)
}

/// A store on whose clock no pause after a failure ever ends by itself.
pub(super) fn open_at_rest(disk: &Disk) -> TrustStore {
    open_with(disk, 0)
}

fn open_with(disk: &Disk, step: i64) -> TrustStore {
    let (tables, clock) = (Tables::new(Mix::new(1)), Arc::new(Stepping { tick: AtomicI64::new(0), step }));
    TrustStore::start(tables, 0, Box::new(disk.clone()), Limits::default(), clock, Duration::from_secs(1)).unwrap()
}
