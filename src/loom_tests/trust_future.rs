//! A task that waits for trust: no grant and no end is missed between looking, registering and being polled again; the
//! newest waker is the one that is woken; a future that is dropped leaves nothing behind (C-3, P14).
#![forbid(unsafe_code)]

use std::future::Future as _;
use std::pin::pin;
use std::task::{Context, Poll, Wake, Waker};

use super::{Disk, open, outcomes, peer, record};
use crate::store::TrustFuture;
use crate::sync::{Arc, Condvar, Deadline, Mutex, spawn};

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

fn task() -> (std::sync::Arc<Task>, Waker) {
    let task = std::sync::Arc::new(Task { woken: Mutex::new(false), changed: Condvar::new() });
    (std::sync::Arc::clone(&task), Waker::from(task))
}

impl Task {
    fn sleep(&self) {
        let mut woken = self.woken.lock();
        while !*woken {
            woken = self.changed.wait_until(woken, Deadline::NEVER).0;
        }
        *woken = false;
    }
}

/// Polls with a new waker each time; returns the answer and whether it had to wait.
fn block_on(future: TrustFuture) -> (bool, bool) {
    let mut future = pin!(future);
    let mut waited = false;
    loop {
        let (task, waker) = task();
        if let Poll::Ready(answer) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return (answer, waited);
        }
        waited = true;
        task.sleep();
    }
}

#[test]
fn a_grant_that_races_the_first_poll_is_not_missed() {
    let seen = outcomes(|| {
        let store = Arc::new(open(&Disk::default()));
        let writer = {
            let store = Arc::clone(&store);
            spawn("writer", move || drop(store.grant(record(1)).unwrap())).unwrap()
        };
        let outcome = block_on(store.trust_future(peer(1)));
        assert!(store.is_trusted(peer(1)));
        writer.join().unwrap();
        assert_eq!(store.health().waiting_for_trust, 0);
        outcome
    });
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [(true, false), (true, true)]);
}

#[test]
fn of_two_wakers_the_newer_is_woken_whenever_the_grant_comes() {
    let seen = outcomes(|| {
        let store = Arc::new(open(&Disk::default()));
        let mut future = pin!(store.trust_future(peer(1)));
        let (_older, waker) = task();
        assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        let writer = {
            let store = Arc::clone(&store);
            spawn("writer", move || drop(store.grant(record(1)).unwrap())).unwrap()
        };
        let (newer, waker) = task();
        let ready = future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
        if !ready {
            newer.sleep();
            assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready());
        }
        writer.join().unwrap();
        ready
    });
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [false, true]);
}

#[test]
fn a_future_that_is_dropped_while_the_grant_comes_leaves_nothing_behind() {
    let seen = outcomes(|| {
        let store = Arc::new(open(&Disk::default()));
        let mut future = store.trust_future(peer(1));
        let (task, waker) = task();
        assert!(pin!(&mut future).poll(&mut Context::from_waker(&waker)).is_pending());
        let writer = {
            let store = Arc::clone(&store);
            spawn("writer", move || drop(store.grant(record(1)).unwrap())).unwrap()
        };
        drop(future);
        let left = store.health().waiting_for_trust;
        writer.join().unwrap();
        let woken = *task.woken.lock();
        (left, woken)
    });
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [(0, false), (0, true)]);
}

#[test]
fn the_end_wakes_a_task_for_whom_nothing_came() {
    let seen = outcomes(|| {
        let store = Arc::new(open(&Disk::default()));
        let waiter = {
            let store = Arc::clone(&store);
            spawn("waiter", move || block_on(store.trust_future(peer(1)))).unwrap()
        };
        store.close().unwrap();
        waiter.join().unwrap()
    });
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [(false, false), (false, true)]);
}
