//! What goes wrong: one call, once or until the disk is healed.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use trustkeep::testing::sim_disk::{Call, SimDisk, Verdict};
use trustkeep::{OpenError, PersistError};

pub(super) const EINTR: i32 = 4;

/// Who makes a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// Whoever opens the store, then its keeper.
    Main,
    Snapshot,
}

impl Lane {
    pub(super) fn here() -> Self {
        if std::thread::current().name() == Some("trustkeep-snapshot") { Self::Snapshot } else { Self::Main }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lasts {
    Once,
    UntilHealed,
    /// The same for the calls of this lane alone.
    InItsLane,
}

/// One call that goes wrong.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case {
    pub(super) lane: Lane,
    pub(super) index: usize,
    pub(super) call: Call,
    pub(super) verdict: Verdict,
    pub(super) lasts: Lasts,
}

impl Case {
    /// Whether nobody needs to notice: what was not taken is written again.
    pub(super) fn is_harmless(&self) -> bool {
        let interrupted_once = self.verdict == Verdict::Fails(EINTR) && self.lasts == Lasts::Once;
        self.call == Call::Write && (interrupted_once || matches!(self.verdict, Verdict::Takes(1..)))
    }

    pub(super) fn explains(&self, error: &std::io::Error) -> bool {
        match self.verdict {
            Verdict::Fails(errno) => error.raw_os_error() == Some(errno),
            _ => error.kind() == std::io::ErrorKind::WriteZero,
        }
    }

    pub(super) fn explains_save(&self, error: &PersistError) -> bool {
        match error {
            PersistError::Io { source, .. } => self.explains(source),
            PersistError::TimedOut { cause: Some(cause) } => self.explains_save(cause),
            _ => false,
        }
    }

    pub(super) fn explains_opening(&self, error: &OpenError) -> bool {
        match error {
            OpenError::Io { source, .. } => self.explains(source),
            OpenError::Persist(error) => self.explains_save(error),
            _ => false,
        }
    }
}

/// What the disk does.
#[derive(Debug, Default)]
pub(super) struct Weather {
    pub(super) case: Option<Case>,
    pub(super) calls: Mutex<Vec<(Lane, Call)>>,
    pub(super) numbers: [AtomicUsize; 2],
    pub(super) hits: AtomicUsize,
    pub(super) healed: AtomicBool,
}

impl Weather {
    pub(super) fn over(disk: &SimDisk, case: Option<Case>) -> Arc<Self> {
        let weather = Arc::new(Self { case, ..Self::default() });
        let judge = Arc::clone(&weather);
        disk.judge(move |call| judge.verdict(call));
        weather
    }

    pub(super) fn verdict(&self, call: Call) -> Verdict {
        let lane = Lane::here();
        self.calls.lock().unwrap().push((lane, call));
        let number = self.numbers[lane as usize].fetch_add(1, Ordering::SeqCst);
        let Some(case) = self.case else { return Verdict::Done };
        let hit = lane == case.lane && number == case.index;
        let struck = self.hits.load(Ordering::SeqCst) > 0;
        let hit = hit
            || match case.lasts {
                Lasts::Once => false,
                Lasts::UntilHealed => struck,
                Lasts::InItsLane => struck && lane == case.lane,
            };
        if !hit || self.healed.load(Ordering::SeqCst) {
            return Verdict::Done;
        }
        self.hits.fetch_add(1, Ordering::SeqCst);
        case.verdict
    }

    pub(super) fn heal(&self) {
        self.healed.store(true, Ordering::SeqCst);
    }

    /// Whether nothing more will go wrong.
    pub(super) fn is_over(&self) -> bool {
        let once = self.case.is_none_or(|case| case.lasts == Lasts::Once);
        self.healed.load(Ordering::SeqCst) || (once && self.hits.load(Ordering::SeqCst) > 0)
    }
}
