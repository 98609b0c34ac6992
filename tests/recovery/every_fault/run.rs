//! A store goes through steps while something goes wrong, and is looked at all the while.

use std::sync::Arc;
use std::time::Duration;

use trustkeep::testing::doors;
use trustkeep::testing::sim_disk::SimDisk;
use trustkeep::{KeeperState, OpenError, Options, PersistError, Receipt, RecoverPolicy, TrustStore};

use super::super::{Contents, contents, id, record, records, wall};
use super::weather::{Case, Lane, Lasts, Weather};

const LONG: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    Open,
    /// These peers, as one change.
    GrantAll(u32, u32),
    Grant(u32),
    Revoke(u32),
    /// Waits until the latest change is durable.
    Acknowledge,
    /// Waits until the journal has its watermark, or something has gone wrong.
    Settle,
    Close,
    Compact,
}

/// How a store is opened.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setup {
    pub(super) policy: RecoverPolicy,
    /// A snapshot is not due before journals have this many bytes.
    pub(super) journal_bytes_min: u64,
    /// Whether journals get watermarks, as soon as the keeper has nothing else to do.
    pub(super) settles: bool,
}

impl Setup {
    pub(super) fn options(self) -> Options {
        let options = TrustStore::options().recover(self.policy).journal_sizes(0, self.journal_bytes_min);
        options.settle_after(self.settles.then_some(Duration::ZERO))
    }
}

pub(super) const QUIET: Setup = Setup { policy: RecoverPolicy::Fail, journal_bytes_min: 1 << 20, settles: false };
pub(super) const ROTATING: Setup = Setup { journal_bytes_min: 1, ..QUIET };
pub(super) const SETTLING: Setup = Setup { settles: true, ..QUIET };
pub(super) const REPAIRING: Setup = Setup { policy: RecoverPolicy::Previous, ..QUIET };

pub(super) struct Run {
    pub(super) disk: SimDisk,
    pub(super) weather: Arc<Weather>,
    pub(super) setup: Setup,
    pub(super) store: Option<TrustStore>,
    pub(super) receipt: Option<Receipt>,
    /// What the store holds.
    pub(super) now: Contents,
    /// States that a crash may leave; none is older than acknowledged.
    pub(super) published: Vec<(u64, Contents)>,
    pub(super) since: i64,
    /// What was seen going wrong.
    pub(super) told: usize,
}

impl Run {
    pub(super) fn new(disk: SimDisk, setup: Setup, published: Vec<(u64, Contents)>, case: Option<Case>) -> Self {
        let weather = Weather::over(&disk, case);
        let (store, receipt, now, told) = (None, None, Contents::new(), 0);
        Self { disk, weather, setup, store, receipt, now, published, since: wall(), told }
    }

    pub(super) fn store(&self) -> &TrustStore {
        self.store.as_ref().unwrap()
    }

    pub(super) fn case(&self) -> Case {
        self.weather.case.expect("nothing was to go wrong")
    }

    pub(super) fn options(&self) -> Options {
        let lasts = self.weather.case.is_some_and(|case| case.lasts != Lasts::Once);
        self.setup.options().close_deadline(if lasts { Duration::from_millis(25) } else { LONG })
    }

    pub(super) fn take(&mut self, step: Step) {
        match step {
            Step::Open => self.open(),
            Step::GrantAll(from, to) => {
                let grant = |store: &TrustStore| {
                    store.update(|batch| (from..=to).for_each(|number| batch.grant(record(number)).unwrap())).unwrap().1
                };
                self.change(grant, |now| now.extend(records(from..=to)));
            }
            Step::Grant(number) => self.grant(number),
            Step::Revoke(number) => {
                self.change(|store| store.revoke(id(number)).unwrap().receipt, |now| now.retain(|of, _| *of != number));
            }
            Step::Acknowledge => self.acknowledge(),
            Step::Settle => self.settle(),
            Step::Close => self.close(),
            Step::Compact => self.compact(),
        }
    }

    pub(super) fn grant(&mut self, number: u32) {
        self.change(|store| store.grant(record(number)).unwrap(), |now| now.extend(records([number])));
    }

    /// A change is accepted, whatever the disk does, and read at once.
    pub(super) fn change(&mut self, change: impl Fn(&TrustStore) -> Receipt, expected: impl Fn(&mut Contents)) {
        let receipt = change(self.store());
        expected(&mut self.now);
        assert_eq!(contents(self.store()), self.now);
        self.published.push((receipt.generation().get(), self.now.clone()));
        self.receipt = Some(receipt);
    }

    pub(super) fn open(&mut self) {
        let store = self.until_it_works(|run| run.options().open_storage(Arc::new(run.disk.clone())));
        self.found(store.generation().get(), contents(&store));
        assert_eq!(store.generation(), store.durable_generation());
        self.store = Some(store);
    }

    pub(super) fn compact(&mut self) {
        let generation = self.until_it_works(|run| doors::compact(Arc::new(run.disk.clone())));
        let contents = self.published.last().unwrap().1.clone();
        self.found(generation, contents);
        let files = self.disk.live_image().into_keys().filter(|name| name.ends_with(".tks") || name.ends_with(".tkj"));
        assert_eq!(files.count(), 1);
    }

    /// What fails says why, spoils nothing, and works when the disk does.
    pub(super) fn until_it_works<T>(&mut self, attempt: impl Fn(&Self) -> Result<T, OpenError>) -> T {
        for _ in 0..3 {
            match attempt(self) {
                Ok(done) => return done,
                Err(error) => {
                    let case = self.case();
                    assert!(case.explains_opening(&error), "{error:?}");
                    assert!(!case.is_harmless(), "{error:?}");
                    self.told += 1;
                    self.survives();
                    if self.told > 1 {
                        self.weather.heal();
                    }
                }
            }
        }
        panic!("no opening, though the disk is healed");
    }

    /// What was opened is one of the states that may be found, and from now on the only one.
    pub(super) fn found(&mut self, generation: u64, found: Contents) {
        if !self.published.is_empty() {
            assert!(self.may_be(generation, &found), "generation {generation}, {found:?}");
        }
        self.published = vec![(generation, found.clone())];
        self.now = found;
        self.survives();
    }

    /// Under a policy that accepts a loss the generation leaps.
    pub(super) fn may_be(&self, generation: u64, found: &Contents) -> bool {
        let leapt = |of: u64| self.setup.policy != RecoverPolicy::Fail && generation > of;
        self.published.iter().any(|(of, contents)| (*of == generation || leapt(*of)) && contents == found)
    }

    /// What a crash at this moment leaves opens as one of the states that may be found.
    pub(super) fn survives(&self) {
        let mut outcomes = 0;
        let images = std::env::var("TRUSTKEEP_FAULT_IMAGES").map_or(3, |images| images.parse().unwrap());
        self.disk.crash_point().outcomes(images, 1, &mut |outcome| {
            outcomes += 1;
            let store = self.setup.options().open_storage(Arc::new(outcome.disk())).unwrap();
            let (generation, found) = (store.generation().get(), contents(&store));
            assert!(self.published.is_empty() || self.may_be(generation, &found), "generation {generation}, {found:?}");
        });
        assert!(outcomes > 0);
    }

    /// Everything before it is durable as well.
    pub(super) fn acknowledged(&mut self) {
        let newest = self.store().generation().get();
        self.published.retain(|(generation, _)| *generation >= newest);
        assert_eq!(self.published.len(), 1);
        self.survives();
    }

    pub(super) fn acknowledge(&mut self) {
        match self.receipt.as_ref().unwrap().wait_durable() {
            Ok(()) => {
                let durable = self.receipt.as_ref().unwrap().generation().get();
                self.published.retain(|(generation, _)| *generation >= durable);
            }
            Err(error) => self.refused(&error),
        }
    }

    pub(super) fn settle(&self) {
        let deadline = std::time::Instant::now() + LONG;
        let has_gone_wrong = || self.weather.hits.load(std::sync::atomic::Ordering::SeqCst) > 0;
        while !super::super::idle::is_settled(&self.disk) && !has_gone_wrong() {
            assert!(std::time::Instant::now() < deadline, "no watermark");
            std::thread::sleep(Duration::from_millis(1));
        }
        // It is synced behind that.
        while self.store().health().saving.is_some() {
            std::thread::yield_now();
        }
    }

    pub(super) fn refused(&mut self, error: &PersistError) {
        let case = self.case();
        assert!(case.explains_save(error) && !case.is_harmless(), "{error:?}");
        self.told += 1;
        // Nothing is lost, in memory and on the disk, and both go on.
        self.survives();
        let receipt = self.receipt.clone().unwrap();
        let next = 1000 + self.now.keys().last().unwrap();
        self.grant(next);
        assert!(self.store().is_trusted(id(next)));
        let lasts = !self.weather.is_over();
        // A snapshot thread alone in trouble fails no save.
        assert!(case.lasts != Lasts::InItsLane || case.lane == Lane::Main, "{error:?}");
        if lasts {
            let health = self.store().health();
            let failing = health.failing.clone().expect("a failure stands");
            assert!(!health.is_ok() && health.keeper == KeeperState::Running);
            assert!(case.explains_save(&failing.error) && failing.attempts >= 1, "{failing:?}");
            assert!((self.since..=wall()).contains(&failing.since.as_millis()), "{failing:?}");
            let at_risk = health.generation.get() - health.durable_generation.get();
            assert_eq!(health.changes_at_risk, at_risk);
            assert!(at_risk >= 2, "{health:?}");
            assert!(case.explains_save(&self.store().flush().unwrap_err()));
            assert!(case.explains_save(&receipt.wait_durable().unwrap_err()));
            let timed_out = receipt.wait_durable_timeout(Duration::from_millis(1)).unwrap_err();
            assert!(matches!(timed_out, PersistError::TimedOut { .. }) && case.explains_save(&timed_out));
            let again = self.store().health().failing.expect("it still stands");
            assert!(again.attempts > failing.attempts && again.since == failing.since, "{again:?}");
        }
        // The fault ends while somebody waits: he is told of nothing but the success.
        let patient = self.receipt.clone().unwrap();
        std::thread::scope(|scope| {
            let patient = scope.spawn(|| patient.wait_durable_timeout(LONG));
            self.weather.heal();
            patient.join().unwrap().unwrap();
        });
        let health = self.store().health();
        assert!(health.failing.is_none() && health.changes_at_risk == 0, "{health:?}");
        self.acknowledged();
    }

    pub(super) fn close(&mut self) {
        let newest = self.store().generation().get();
        loop {
            match self.store().close() {
                Ok(generation) => {
                    assert_eq!(generation.get(), newest);
                    break;
                }
                // It waits for a snapshot, however long that takes.
                Err(PersistError::TimedOut { cause: None }) => {}
                Err(error) => {
                    let case = self.case();
                    assert!(case.lasts == Lasts::UntilHealed && !case.is_harmless(), "{error:?}");
                    assert!(case.explains_save(&error) && matches!(error, PersistError::TimedOut { .. }), "{error:?}");
                    assert!(self.store().health().changes_at_risk > 0);
                    assert_eq!(contents(self.store()), self.now);
                    self.told += 1;
                    self.survives();
                    self.weather.heal();
                }
            }
        }
        self.acknowledged();
        self.store = None;
    }

    /// Once the disk is healed: everything is durable, another store opens, and it works.
    pub(super) fn end(&mut self) {
        self.weather.heal();
        if self.store.is_some() {
            // An attempt that was made before may still be reported, once.
            if self.store().flush().is_err() {
                self.store().flush().unwrap();
            }
            assert_eq!(self.store().health().changes_at_risk, 0);
            self.acknowledged();
            self.store = None;
        }
        self.open();
        self.grant(2000);
        self.receipt.as_ref().unwrap().wait_durable().unwrap();
        self.acknowledged();
        self.close();
        self.open();
        self.store = None;
        assert_eq!(self.disk.misuse(), None, "a file was used after a write or a sync of it had failed");
    }
}
