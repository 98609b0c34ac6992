//! When the keeper saves: at once for a restriction or a grant, within a second for floors and repeats alone, and again after a
//! failure with growing pauses. Pure: fed with ticks, owns no clock.
//!
//! INVARIANT I-P1: something unsaved is always followed by `Save` or by a wake-up time, never by an endless sleep.
//! INVARIANT I-P2: `Leave` comes only when everything is saved, or when one last attempt was made and leaving was ordered.
#![forbid(unsafe_code)]

use crate::time::Tick;

/// What the keeper sees in the writer's critical section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Situation {
    /// The newest generation.
    pub(crate) newest: u64,
    /// The newest generation that changed anything but floors and repeats, and is not put off.
    pub(crate) urgent: u64,
    /// The newest durable generation.
    pub(crate) durable: u64,
    /// Whether something that was put off has been in no save yet.
    pub(crate) deferred: bool,
    /// No further changes will come.
    pub(crate) closed: bool,
    /// Leave after one more attempt, whether it works or not.
    pub(crate) abandon: bool,
    /// Somebody asked for an attempt now, whatever the pause after a failure says.
    pub(crate) retry_now: bool,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Save the newest state.
    Save,
    /// Wait for the doorbell, at most until this tick.
    Sleep(Option<Tick>),
    /// Nothing is left to do, ever.
    Leave,
}

/// The plan's memory between two looks.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FlushPlan {
    failures: u32,
    retry_at: Tick,
    floors_since: Option<Tick>,
    last_attempt_made: bool,
}

impl FlushPlan {
    pub(crate) fn next(&mut self, now: Tick, seen: Situation) -> Next {
        if seen.newest == seen.durable {
            self.floors_since = None;
            return if seen.closed { Next::Leave } else { Next::Sleep(None) };
        }
        if seen.abandon {
            return if core::mem::replace(&mut self.last_attempt_made, true) { Next::Leave } else { Next::Save };
        }
        if self.failures > 0 && !seen.retry_now {
            return if now >= self.retry_at { Next::Save } else { Next::Sleep(Some(self.retry_at)) };
        }
        if seen.urgent > seen.durable || seen.closed || seen.retry_now {
            return Next::Save;
        }
        let due = self.floors_since.get_or_insert(now).saturating_add(FLOORS_WITHIN_MS);
        if now >= due { Next::Save } else { Next::Sleep(Some(due)) }
    }

    /// The save that was ordered worked.
    pub(crate) fn saved(&mut self) {
        *self = Self { last_attempt_made: self.last_attempt_made, ..Self::default() };
    }

    /// The save that was ordered failed.
    pub(crate) fn failed(&mut self, now: Tick) {
        let pause = FIRST_PAUSE_MS.checked_shl(self.failures.min(20)).unwrap_or(LONGEST_PAUSE_MS).min(LONGEST_PAUSE_MS);
        self.failures = self.failures.saturating_add(1);
        self.retry_at = now.saturating_add(pause);
    }
}

const FLOORS_WITHIN_MS: i64 = 1000;
const FIRST_PAUSE_MS: i64 = 50;
const LONGEST_PAUSE_MS: i64 = 5000;

#[cfg(all(test, not(trustkeep_loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CLEAN: Situation = Situation {
        newest: 5,
        urgent: 5,
        durable: 5,
        deferred: false,
        closed: false,
        abandon: false,
        retry_now: false,
    };

    fn at(millis: i64) -> Tick {
        Tick::new(millis)
    }

    #[test]
    fn nothing_unsaved_sleeps_and_a_closed_store_is_left() {
        assert_eq!(FlushPlan::default().next(at(0), CLEAN), Next::Sleep(None));
        assert_eq!(FlushPlan::default().next(at(0), Situation { closed: true, ..CLEAN }), Next::Leave);
        assert_eq!(FlushPlan::default().next(at(0), Situation { closed: true, newest: 6, ..CLEAN }), Next::Save);
    }

    #[test]
    fn floors_alone_wait_one_second_and_go_along_with_anything_else() {
        let mut plan = FlushPlan::default();
        let floors = Situation { newest: 6, ..CLEAN };
        assert_eq!(plan.next(at(100), floors), Next::Sleep(Some(at(1100))));
        assert_eq!(plan.next(at(1099), Situation { newest: 7, ..floors }), Next::Sleep(Some(at(1100))));
        assert_eq!(plan.next(at(1099), Situation { newest: 8, urgent: 8, ..floors }), Next::Save);
        assert_eq!(plan.next(at(1100), Situation { newest: 7, ..floors }), Next::Save);
        plan.saved();
        assert_eq!(plan.next(at(1200), Situation { newest: 8, durable: 7, ..floors }), Next::Sleep(Some(at(2200))));
    }

    #[test]
    fn pauses_double_up_to_a_limit_and_end_with_a_success_or_a_request() {
        let mut plan = FlushPlan::default();
        let dirty = Situation { newest: 6, urgent: 6, ..CLEAN };
        let mut pauses = Vec::new();
        for _ in 0..12 {
            plan.failed(at(0));
            let Next::Sleep(Some(until)) = plan.next(at(0), dirty) else { panic!("no pause after a failure") };
            pauses.push(until.as_millis());
            assert_eq!(plan.next(until, dirty), Next::Save);
        }
        assert_eq!(pauses[..8], [50, 100, 200, 400, 800, 1600, 3200, 5000]);
        assert_eq!(pauses[11], 5000);
        assert_eq!(plan.next(at(0), Situation { retry_now: true, ..dirty }), Next::Save);
        plan.saved();
        assert_eq!(plan.next(at(0), dirty), Next::Save);
    }

    #[test]
    fn an_abandoned_store_gets_one_attempt() {
        let mut plan = FlushPlan::default();
        let dirty = Situation { newest: 6, urgent: 6, closed: true, abandon: true, ..CLEAN };
        assert_eq!(plan.next(at(0), dirty), Next::Save);
        plan.failed(at(0));
        assert_eq!(plan.next(at(0), dirty), Next::Leave);
    }

    proptest! {
        #[test]
        fn whatever_is_unsaved_is_saved_or_has_a_wake_up_time(
            steps in proptest::collection::vec((0..3000i64, 0..3u64, any::<bool>(), any::<bool>()), 1..50),
        ) {
            let (mut plan, mut tick, mut seen) = (FlushPlan::default(), 0, CLEAN);
            for (pause, growth, urgent, fails) in steps {
                tick += pause;
                seen.newest += growth;
                if urgent && growth > 0 {
                    seen.urgent = seen.newest;
                }
                match plan.next(at(tick), seen) {
                    Next::Save if fails => plan.failed(at(tick)),
                    Next::Save => {
                        plan.saved();
                        seen.durable = seen.newest;
                    }
                    Next::Sleep(None) => prop_assert_eq!(seen.newest, seen.durable),
                    Next::Sleep(Some(until)) => prop_assert!(until > at(tick) && until <= at(tick + LONGEST_PAUSE_MS)),
                    Next::Leave => prop_assert!(false, "left an open store"),
                }
            }
        }
    }
}
