//! Opens what crashes leave.
//!
//! What must hold: exactly one published generation, not older than acknowledged, with the contents that it had. Some of
//! what opens is changed and crashes again, during recovery or later, and what that leaves must hold the same: what was
//! found counts as acknowledged, and what was cut off stays away.

use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use trustkeep::TrustStore;
use trustkeep::testing::sim_disk::{Outcome, SimDisk};

use super::super::{Contents, contents, id, record};
use super::story::{Random, Sizes, Story};

/// What the store held at each generation.
pub(super) type States = Vec<Arc<Contents>>;

/// Whether an opened store is one of these states; which.
pub(super) fn is_as_it_was(store: &TrustStore, acknowledged: Option<u64>, states: &States) -> Result<u64, String> {
    let generation = store.generation().get();
    if acknowledged.is_some_and(|acknowledged| generation < acknowledged) {
        return Err(format!("generation {generation}, though {acknowledged:?} was acknowledged"));
    }
    let expected = states.get(usize::try_from(generation).unwrap()).ok_or("a generation that never was")?;
    if contents(store) != **expected {
        return Err(format!("generation {generation} with contents that it never had"));
    }
    if store.durable_generation().get() != generation {
        return Err(format!("generation {generation} is not durable after opening"));
    }
    Ok(generation)
}

/// The images looked at, and what was wrong with them.
pub(super) struct Looking {
    /// With what had been acknowledged: the same image may be right before an acknowledgement and wrong after it.
    seen: Mutex<HashSet<(u64, Option<u64>)>>,
    /// By the number of crashes before.
    images: [AtomicUsize; CRASHES],
    wrong: Mutex<Vec<String>>,
}

impl fmt::Display for Looking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (all, twice, thrice) = (self.images(), self.images_after(1), self.images_after(2));
        write!(
            f,
            "{all} different images ({twice} of a second crash, {thrice} of a third), {} wrong",
            self.wrong().len()
        )
    }
}

impl Looking {
    pub(super) fn new() -> Self {
        Self { seen: Mutex::default(), images: [const { AtomicUsize::new(0) }; CRASHES], wrong: Mutex::default() }
    }

    pub(super) fn images(&self) -> usize {
        (0..CRASHES).map(|crashes| self.images_after(crashes)).sum()
    }

    pub(super) fn images_after(&self, crashes: usize) -> usize {
        self.images[crashes].load(Ordering::Relaxed)
    }

    pub(super) fn wrong(&self) -> Vec<String> {
        self.wrong.lock().unwrap().clone()
    }

    /// Looks at `budget` images of every crash point.
    pub(super) fn look_at(&mut self, story: &Story, budget: usize) {
        // Equal images of two stories are no more than a coincidence: each has an identity of its own.
        self.seen.lock().unwrap().clear();
        let points: Vec<_> =
            story.parts.iter().flat_map(|part| part.trail.iter().map(move |point| (part, point))).collect();
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while let Some((part, point)) = points.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let at = format!("call {}", point.call);
                        point.outcomes(budget, point.call as u64, &mut |outcome| {
                            self.look(outcome, point.acknowledged, &part.states, story.sizes, &at, 0);
                        });
                    }
                });
            }
        });
    }

    fn look(
        &self,
        outcome: &Outcome,
        acknowledged: Option<u64>,
        states: &States,
        sizes: Sizes,
        at: &str,
        crashes: usize,
    ) {
        let fingerprint = outcome.fingerprint();
        if !self.seen.lock().unwrap().insert((fingerprint, acknowledged)) {
            return;
        }
        self.images[crashes].fetch_add(1, Ordering::Relaxed);
        let again = crashes + 1 < CRASHES && fingerprint.is_multiple_of(AGAIN_ONE_IN);
        let disk = outcome.disk();
        if again {
            disk.record();
            if let Some(acknowledged) = acknowledged {
                disk.acknowledge(acknowledged);
            }
        }
        let opened = sizes.open(Arc::new(disk.clone())).map_err(|error| format!("does not open: {error}"));
        let opened = opened.and_then(|store| is_as_it_was(&store, acknowledged, states).map(|found| (store, found)));
        let (store, generation) = match opened {
            Ok(opened) => opened,
            Err(reason) => {
                let names: Vec<_> = outcome.image().iter().map(|(name, bytes)| (name.clone(), bytes.len())).collect();
                self.wrong.lock().unwrap().push(format!("{at}: {reason}; in {names:?}"));
                return;
            }
        };
        if again {
            let states = go_on(&disk, store, generation, states, fingerprint);
            for point in disk.take_trail() {
                let at = format!("{at}, then call {}", point.call);
                point.outcomes(AGAIN_BUDGET, fingerprint ^ point.call as u64, &mut |outcome| {
                    self.look(outcome, point.acknowledged, &states, sizes, &at, crashes + 1);
                });
            }
        }
    }
}

/// Makes a few changes after a recovery; the states that there are since.
fn go_on(disk: &SimDisk, store: TrustStore, generation: u64, states: &States, seed: u64) -> States {
    let mut states = states[..=usize::try_from(generation).unwrap()].to_vec();
    // Opened is as good as acknowledged.
    disk.acknowledge(generation);
    let mut random = Random(seed);
    for step in 0..random.below(3) {
        let number = 800 + 10 * step + random.below(10);
        let (_, receipt) = store
            .update(|batch| {
                batch.grant(record(number)).unwrap();
                let _ = batch.revoke(id(1 + random.below(40)));
            })
            .unwrap();
        // Granting and revoking again what is so already is no new generation.
        if receipt.generation().get() == states.len() as u64 {
            states.push(Arc::new(contents(&store)));
        }
        if random.below(2) == 0 {
            receipt.wait_durable().unwrap();
            disk.acknowledge(receipt.generation().get());
        }
    }
    drop(store);
    states
}

/// A crash, another one during recovery or later, and a third.
const CRASHES: usize = 3;
const AGAIN_ONE_IN: u64 = 64;
const AGAIN_BUDGET: usize = 4;
