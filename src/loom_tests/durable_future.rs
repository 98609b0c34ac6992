//! A task that waits for the disk: no save, no failure and no end is missed between registering and being polled again;
//! a future that is dropped leaves nothing behind (C-2, P6).
#![forbid(unsafe_code)]

use std::future::Future as _;
use std::pin::pin;
use std::task::{Context, Poll, Wake, Waker};

use super::{Disk, open, open_at_rest, outcomes, record};
use crate::error::PersistError;
use crate::store::DurableFuture;
use crate::sync::{Condvar, Deadline, Mutex};

/// A task that sleeps until it is woken, as a runtime would have it.
struct Task {
    woken: Mutex<bool>,
    changed: Condvar,
}

impl Wake for Task {
    fn wake(self: std::sync::Arc<Self>) {
        *self.woken.lock() = true;
        self.changed.notify_one();
    }
}

/// Polls with a new waker each time; returns the answer and whether it had to wait.
fn block_on(future: DurableFuture) -> (Result<(), PersistError>, bool) {
    let mut future = pin!(future);
    let mut waited = false;
    loop {
        let task = std::sync::Arc::new(Task { woken: Mutex::new(false), changed: Condvar::new() });
        let waker = Waker::from(std::sync::Arc::clone(&task));
        if let Poll::Ready(answer) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return (answer, waited);
        }
        waited = true;
        let mut woken = task.woken.lock();
        while !*woken {
            woken = task.changed.wait_until(woken, Deadline::NEVER).0;
        }
    }
}

#[test]
fn a_save_that_races_the_first_poll_is_not_missed() {
    let seen = outcomes(|| {
        let disk = Disk::default();
        let store = open(&disk);
        let receipt = store.grant(record(1)).unwrap();
        let (answer, waited) = block_on(receipt.durable_future());
        answer.unwrap();
        assert!(receipt.is_durable() && disk.newest() == 1);
        assert_eq!(store.health().waiting_for_disk, 0);
        store.close().unwrap();
        waited
    });
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [false, true]);
}

#[test]
fn a_failure_is_told_to_a_task_and_the_next_attempt_heals() {
    let seen = outcomes(|| {
        let store = open(&Disk::failing(1));
        let receipt = store.grant(record(1)).unwrap();
        let first = match block_on(receipt.durable_future()).0 {
            Ok(()) => true,
            Err(PersistError::Io { .. }) => false,
            Err(other) => panic!("{other:?}"),
        };
        store.close().unwrap();
        assert!(block_on(receipt.durable_future()).0.is_ok());
        first
    });
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [false, true]);
}

#[test]
fn a_future_that_is_dropped_while_the_save_ends_leaves_nothing_behind() {
    let seen = outcomes(|| {
        let store = open(&Disk::default());
        let receipt = store.grant(record(1)).unwrap();
        let mut future = receipt.durable_future();
        let waited = pin!(&mut future).poll(&mut Context::from_waker(Waker::noop())).is_pending();
        drop(future);
        assert_eq!(store.health().waiting_for_disk, 0);
        store.close().unwrap();
        waited
    });
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [false, true]);
}

#[test]
fn the_end_wakes_a_task_whose_change_was_given_up() {
    let seen = outcomes(|| {
        let store = open_at_rest(&Disk::failing(usize::MAX));
        let receipt = store.grant(record(1)).unwrap();
        let waiter = {
            let future = receipt.durable_future();
            crate::sync::spawn("waiter", move || match block_on(future).0 {
                Err(PersistError::Io { .. }) => "failed",
                Err(PersistError::Abandoned) => "abandoned",
                other => panic!("{other:?}"),
            })
            .unwrap()
        };
        drop(store);
        waiter.join().unwrap()
    });
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["abandoned", "failed"]);
}
