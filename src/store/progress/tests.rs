//! What those hear who wait for the disk, at the moment at which their time runs out.
#![expect(clippy::disallowed_methods, reason = "a test that lets time run out")]

use core::time::Duration;

use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use super::{OnFailure, Progress};
use crate::error::PersistError;
use crate::sync::{Arc, Deadline, Mutex, spawn};
use crate::time::WallMillis;

/// A log that holds up whoever writes to it until the deadline has passed, and says whether that was before.
struct Holds(Deadline, Arc<Mutex<Vec<bool>>>);

impl Subscriber for Holds {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {
        self.1.lock().push(!self.0.has_passed());
        while !self.0.has_passed() {
            std::thread::yield_now();
        }
        // Long enough for a waiter that gives up, and no matter how much longer it takes.
        std::thread::sleep(Duration::from_millis(100));
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// Between the moment at which a save takes out those who waited for it and that at which they are answered, the log is
/// told that it took long.
#[test]
fn a_save_that_ends_as_the_time_of_a_waiter_runs_out_is_told() {
    let mut told = 0;
    // A machine that is so busy that the waiter gives up before the save ends gets more time.
    for attempt in 0..12 {
        let progress = Arc::new(Progress::new(0));
        progress.limit_saves(Duration::from_millis(1));
        progress.begins(1, WallMillis::new(0));
        let deadline = Deadline::after(Duration::from_millis(50 << attempt));
        let waiting = {
            let progress = Arc::clone(&progress);
            spawn("waits", move || progress.ticket(1, OnFailure::RideOut).wait(deadline)).unwrap()
        };
        while progress.waiters_len() == 0 && !deadline.has_passed() {
            std::thread::yield_now();
        }
        // From now on the save has run for too long.
        std::thread::sleep(Duration::from_millis(5));
        let in_time = Arc::new(Mutex::new(Vec::new()));
        tracing::subscriber::with_default(Holds(deadline, Arc::clone(&in_time)), || progress.saved(1));
        let outcome = waiting.join().unwrap();
        if in_time.lock().first() == Some(&true) {
            assert!(outcome.is_ok(), "the change was durable while it waited: {outcome:?}");
            told += 1;
        }
        if told == 3 {
            break;
        }
    }
    assert!(told > 0);
    // And the twin: without a save the time runs out, and nothing is left behind.
    let progress = Progress::new(0);
    let outcome = progress.ticket(1, OnFailure::RideOut).wait(Deadline::after(Duration::from_millis(1)));
    assert!(matches!(outcome, Err(PersistError::TimedOut { cause: None })), "{outcome:?}");
    assert_eq!(progress.waiters_len(), 0);
}
