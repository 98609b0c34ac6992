//! What happens to a store before it crashes: a shuffled series of steps, different for each seed.
//!
//! What must hold: every published state is noted, and a generation is noted as acknowledged only when the owner was told
//! so. Each story has every kind of step, in an order, in portions and with journal sizes of its own; a snapshot thread
//! runs beside it, so that two runs of the same seed need not make the same calls.

use std::ops::AddAssign;
use std::sync::Arc;
use std::time::Duration;

use trustkeep::testing::sim_disk::{Call, CrashPoint, Fault, SimDisk};
use trustkeep::{Batch, OpenError, Receipt, Storage, TrustRecord, TrustStore, WallMillis};

use super::super::{Contents, contents, id, record};
use super::check::{States, is_as_it_was};

/// When the owner is told that a change is durable.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Acknowledge {
    WhenDurable,
    /// Wrong, to see that it is noticed.
    AtOnce,
}

/// How the store of a story saves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    ahead_bytes: u64,
    journal_bytes_min: u64,
    /// When journals get their watermarks.
    settle_after: Option<Duration>,
}

impl Sizes {
    pub(super) fn open(self, storage: Arc<dyn Storage>) -> Result<TrustStore, OpenError> {
        let options = TrustStore::options().journal_sizes(self.ahead_bytes, self.journal_bytes_min);
        options.settle_after(self.settle_after).open_storage(storage)
    }
}

/// What is decided before a story begins.
pub(super) struct Plan {
    pub(super) seed: u64,
    sizes: Sizes,
    write_bytes_max: Option<usize>,
    steps: Vec<Step>,
    random: Random,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Grant,
    Revoke,
    /// A group of several sectors.
    Grants,
    Revokes,
    /// Changes that nobody waits for, so that they share a group.
    Burst,
    /// A change while one call fails.
    Fault,
    /// Two changes, and then none for a while.
    Idle,
    /// A clean close; the next change begins a new journal.
    Reopen,
    /// Closes and opens twice without a change.
    ReopenIdle,
    /// The story goes on with something that a crash left.
    Crash,
}

impl Plan {
    pub(super) fn new(seed: u64) -> Self {
        use Step::{Burst, Crash, Fault, Grant, Grants, Idle, Reopen, ReopenIdle, Revoke, Revokes};
        let mut random = Random(seed);
        let mut steps = vec![
            Grant, Grant, Grant, Grant, Grant, Grant, Revoke, Revoke, Revoke, Grants, Grants, Revokes, Burst, Burst,
            Fault, Fault, Fault, Reopen, ReopenIdle, Crash, Crash, Idle, Idle, Idle,
        ];
        for at in (1..steps.len()).rev() {
            steps.swap(at, random.below(at as u32 + 1) as usize);
        }
        let sizes = Sizes {
            ahead_bytes: [0, 2048, 4096][random.below(3) as usize],
            journal_bytes_min: [300, 1000, 3000][random.below(3) as usize],
            settle_after: [None, Some(Duration::ZERO), Some(Duration::from_millis(1))][random.below(3) as usize],
        };
        let write_bytes_max = [None, Some(700), Some(512), Some(1500)][random.below(4) as usize];
        Self { seed, sizes, write_bytes_max, steps, random }
    }
}

/// One disk's part of a story: from a beginning or a crash to the next crash or the end.
pub(super) struct Part {
    pub(super) trail: Vec<CrashPoint>,
    /// What the store held at each generation.
    pub(super) states: States,
}

pub(super) struct Story {
    pub(super) parts: Vec<Part>,
    pub(super) sizes: Sizes,
    pub(super) happened: Happened,
    /// Why the story could not go on, if it could not.
    pub(super) wrong: Vec<String>,
}

impl Story {
    pub(super) fn points(&self) -> usize {
        self.parts.iter().map(|part| part.trail.len()).sum()
    }
}

/// How often the interesting things happened.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Happened {
    snapshots: u64,
    journals: u64,
    appends: u64,
    removals: u64,
    failures: u64,
    crashes: u64,
    watermarks: u64,
}

impl Happened {
    /// So many that none of these stories can have missed a part of the protocol.
    pub(super) fn is_rich(&self, stories: u64) -> bool {
        self.snapshots >= 3 * stories
            && self.journals >= 5 * stories
            && self.appends >= 3 * stories
            && self.removals >= 2 * stories
            && self.failures >= stories
            && self.crashes >= 2 * stories
            // In two of three stories, more or less, and each time that the disk is looked at at the end of a part.
            && self.watermarks > 0
    }
}

impl AddAssign for Happened {
    fn add_assign(&mut self, other: Self) {
        self.snapshots += other.snapshots;
        self.journals += other.journals;
        self.appends += other.appends;
        self.removals += other.removals;
        self.failures += other.failures;
        self.crashes += other.crashes;
        self.watermarks += other.watermarks;
    }
}

/// Tells a story. `storage` stands between the store and each of its disks.
pub(super) fn tell(plan: &Plan, acknowledge: Acknowledge, storage: &dyn Fn(&SimDisk) -> Arc<dyn Storage>) -> Story {
    let disk = SimDisk::new();
    let mut teller = Teller {
        store: None,
        states: vec![Arc::new(Contents::new())],
        random: plan.random,
        story: Story { parts: Vec::new(), sizes: plan.sizes, happened: Happened::default(), wrong: Vec::new() },
        write_bytes_max: plan.write_bytes_max,
        disk: disk.clone(),
        acknowledge,
        storage,
    };
    teller.begin(disk, None);
    for step in &plan.steps {
        if !teller.story.wrong.is_empty() {
            break;
        }
        teller.step(*step);
    }
    teller.end();
    teller.story
}

struct Teller<'a> {
    disk: SimDisk,
    store: Option<TrustStore>,
    states: States,
    random: Random,
    story: Story,
    write_bytes_max: Option<usize>,
    acknowledge: Acknowledge,
    storage: &'a dyn Fn(&SimDisk) -> Arc<dyn Storage>,
}

/// Trusts a peer that may have been revoked before.
fn grant(batch: &mut Batch<'_>, record: TrustRecord) {
    batch.forget_revocation(record.node_id);
    batch.grant(record).unwrap();
}

impl Teller<'_> {
    /// Opens what is on the disk, of which this much was acknowledged.
    fn begin(&mut self, disk: SimDisk, acknowledged: Option<u64>) {
        disk.record();
        disk.set_write_bytes_max(self.write_bytes_max);
        if let Some(acknowledged) = acknowledged {
            disk.acknowledge(acknowledged);
        }
        self.disk = disk;
        match self.story.sizes.open((self.storage)(&self.disk)) {
            Ok(store) => match is_as_it_was(&store, acknowledged, &self.states) {
                Ok(generation) => {
                    self.states.truncate(usize::try_from(generation).unwrap() + 1);
                    self.disk.acknowledge(generation);
                    self.store = Some(store);
                }
                Err(reason) => self.story.wrong.push(reason),
            },
            Err(error) => self.story.wrong.push(format!("does not open: {error}")),
        }
    }

    fn end(&mut self) {
        // Dropping closes; what that writes is part of the story.
        self.store = None;
        let happened = &mut self.story.happened;
        happened.appends += self.disk.log().iter().filter(|call| **call == Call::SyncData).count() as u64;
        happened.removals += self.disk.log().iter().filter(|call| **call == Call::Remove).count() as u64;
        for (name, bytes) in self.disk.live_image() {
            happened.watermarks += u64::from(name.ends_with(".tkj") && bytes.get(576).is_some_and(|byte| *byte != 0));
            // Names count on from part to part: what is there at the end of each shows how many there were since.
            happened.snapshots += u64::from(name.ends_with(".tks"));
            happened.journals += u64::from(name.ends_with(".tkj"));
        }
        self.story.parts.push(Part { trail: self.disk.take_trail(), states: self.states.clone() });
    }

    fn step(&mut self, step: Step) {
        let number = self.random.below(40) + 1;
        let at = self.states.len();
        match step {
            Step::Grant => self.change(|batch| grant(batch, fresh(at, number))),
            Step::Revoke => self.revoke_one(number),
            Step::Grants => {
                let count = 60 + self.random.below(160);
                self.change(|batch| (41..41 + count).for_each(|number| grant(batch, fresh(at, number))));
            }
            Step::Revokes => {
                let from = 30 + self.random.below(60);
                self.change(|batch| {
                    // One at least is there to be revoked.
                    grant(batch, fresh(at, 400));
                    (from..from + 60).for_each(|number| _ = batch.revoke(id(number)));
                });
            }
            Step::Burst => {
                let last = (0..4).map(|more| self.publish(|batch| grant(batch, fresh(at, 300 + more + number)))).last();
                self.wait(&last.unwrap());
            }
            Step::Fault => {
                let (calls, errno) = (self.disk.calls(), [5, 28][self.random.below(2) as usize]);
                let call = calls + self.random.below(5) as usize;
                self.disk.set_fault(Some(Fault { call, sticky: false, errno }));
                self.change(|batch| grant(batch, fresh(at, 500 + number)));
                self.disk.set_fault(None);
                // What comes behind a failure is where a journal could go on wrongly.
                self.change(|batch| grant(batch, fresh(at, 600 + number)));
            }
            Step::Idle => {
                for more in 0..2 {
                    self.change(|batch| grant(batch, fresh(at + more, 640 + number)));
                }
                // Whether it was long enough is nothing that a story relies on.
                std::thread::sleep(Duration::from_millis(5));
            }
            Step::Reopen => self.reopen(),
            Step::ReopenIdle => {
                self.reopen();
                if self.store.is_some() {
                    self.reopen();
                }
            }
            Step::Crash => self.crash(number),
        }
    }

    fn store(&self) -> &TrustStore {
        self.store.as_ref().unwrap()
    }

    fn publish(&mut self, change: impl FnOnce(&mut Batch<'_>)) -> Receipt {
        let (_, receipt) = self.store().update(change).unwrap();
        let generation = receipt.generation().get();
        assert_eq!(generation, self.states.len() as u64, "one generation a change");
        self.states.push(Arc::new(contents(self.store())));
        if self.acknowledge == Acknowledge::AtOnce {
            self.disk.acknowledge(generation);
        }
        receipt
    }

    fn wait(&mut self, receipt: &Receipt) {
        if receipt.wait_durable().is_err() {
            self.story.happened.failures += 1;
            // Who has patience is told of nothing but the success: a fault is over after one call.
            receipt.wait_durable_timeout(Duration::from_secs(60)).unwrap();
        }
        self.disk.acknowledge(receipt.generation().get());
    }

    fn change(&mut self, change: impl FnOnce(&mut Batch<'_>)) {
        let receipt = self.publish(change);
        self.wait(&receipt);
    }

    fn revoke_one(&mut self, number: u32) {
        let known: Vec<u32> = self.states.last().unwrap().keys().copied().collect();
        match known.get(number as usize % known.len().max(1)) {
            Some(number) => self.change(|batch| assert!(batch.revoke(id(*number)).is_some())),
            None => self.change(|batch| grant(batch, record(number))),
        }
    }

    fn reopen(&mut self) {
        let closed = self.store().close().unwrap().get();
        self.disk.acknowledge(closed);
        self.store = None;
        let disk = self.disk.clone();
        self.begin(disk, Some(closed));
    }

    /// Something crashes in or behind the next change, and the story goes on with one of the things that leaves.
    fn crash(&mut self, number: u32) {
        let (before, at) = (self.disk.crash_points(), self.states.len());
        self.change(|batch| grant(batch, fresh(at, 700 + number)));
        self.end();
        let trail = &self.story.parts.last().unwrap().trail;
        let during = &trail[before..];
        let point = &during[self.random.below(during.len() as u32) as usize];
        let mut outcomes = Vec::new();
        point.outcomes(12, self.random.next(), &mut |outcome| outcomes.push(outcome.clone()));
        let outcome = &outcomes[self.random.below(outcomes.len() as u32) as usize];
        let acknowledged = point.acknowledged;
        self.story.happened.crashes += 1;
        self.begin(outcome.disk(), acknowledged);
    }
}

/// A record that differs from those that were granted at other generations.
fn fresh(generation: usize, number: u32) -> TrustRecord {
    record(number).approved_at(WallMillis::new(i64::try_from(generation).unwrap()))
}

/// Sebastiano Vigna's splitmix64.
#[derive(Clone, Copy)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let word = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    pub(super) fn below(&mut self, limit: u32) -> u32 {
        (((self.next() >> 32) * u64::from(limit)) >> 32) as u32
    }
}
