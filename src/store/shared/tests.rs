//! When the keeper is rung, and what those hear who wait. There is no keeper here: nothing depends on when it looks.
#![expect(clippy::disallowed_methods, clippy::unwrap_used, reason = "tests, one of which lets time run out")]

use core::convert::Infallible;
use core::time::Duration;
use std::future::Future as _;
use std::pin::pin;
use std::task::{Context, Poll, Wake, Waker};

use super::{Shared, TransactError, Transaction};
use crate::clock::SystemClock;
use crate::config::Limits;
use crate::map::mix::Mix;
use crate::peer::{NodeId, TrustRecord};
use crate::store::TrustFuture;
use crate::sync::{Arc, Deadline, Mutex, spawn};
use crate::tables::{TableChange, Tables};

fn shared(volatile: bool) -> Arc<Shared> {
    let tables = Tables::new(Mix::new(7));
    Arc::new(Shared::new(tables, 0, volatile, Limits::default(), std::sync::Arc::new(SystemClock)))
}

fn peer(number: u32) -> NodeId {
    NodeId::new(number).unwrap()
}

fn granting(number: u32) -> Transaction<()> {
    let changes = vec![TableChange::Trusted(peer(number), Some(TrustRecord::new(peer(number), None)))];
    Transaction { changes, events: Vec::new(), value: () }
}

fn grant(shared: &Arc<Shared>, number: u32) {
    drop(Shared::transact(shared, None, |_| Ok::<_, Infallible>(granting(number))).unwrap());
}

/// Whether the keeper was rung since the last look.
fn is_rung(shared: &Shared) -> bool {
    shared.listen(Deadline::after(Duration::ZERO))
}

/// A waker that looks whether the keeper was rung before it.
struct Looks(Arc<Shared>, Mutex<Vec<bool>>);

impl Wake for Looks {
    fn wake(self: std::sync::Arc<Self>) {
        self.1.lock().push(is_rung(&self.0));
    }
}

/// P6. A waker may take its time, or wait for the disk itself.
#[test]
fn the_keeper_is_rung_before_the_wakers_of_others_are_called() {
    let shared = shared(false);
    let looks = std::sync::Arc::new(Looks(Arc::clone(&shared), Mutex::new(Vec::new())));
    let waker = Waker::from(std::sync::Arc::clone(&looks));
    let (mut one, mut other) =
        (pin!(TrustFuture::new(Arc::clone(&shared), peer(1))), pin!(TrustFuture::new(Arc::clone(&shared), peer(2))));
    assert!(one.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    assert!(other.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    assert!(!is_rung(&shared));
    grant(&shared, 1);
    assert_eq!(*looks.1.lock(), [true], "by a grant");
    let _ = shared.close(false);
    assert_eq!(*looks.1.lock(), [true, true], "and by the end");
    let answers = [one.as_mut(), other.as_mut()].map(|it| it.poll(&mut Context::from_waker(Waker::noop())));
    assert_eq!(answers, [Poll::Ready(true), Poll::Ready(false)]);
}

/// C-1. The keeper of a store that saves nothing frees old versions. It sleeps without an alarm when there are none.
#[test]
fn the_keeper_of_a_volatile_store_is_rung_if_it_sleeps_without_an_alarm_and_else_not() {
    let shared = shared(true);
    let look = || {
        drop(shared.pick_up());
        shared.sweep()
    };
    for number in [1, 2] {
        assert!(!look(), "it has nothing to do and comes back when it is rung");
        grant(&shared, number);
        assert!(is_rung(&shared), "grant {number}");
    }
    // And the twin: as long as an old version is held it comes by itself.
    let held = shared.cell().load_full();
    grant(&shared, 3);
    assert!(!is_rung(&shared), "it was rung, and has not looked yet");
    assert!(look());
    grant(&shared, 4);
    assert!(!is_rung(&shared));
    drop(held);
    assert!(!look());
    grant(&shared, 5);
    assert!(is_rung(&shared));
    // Nor if it sees that something has changed since it looked: it looks again.
    drop(shared.pick_up());
    grant(&shared, 6);
    assert!(!is_rung(&shared));
    assert!(shared.sweep(), "what nobody rang for is not seen");
    assert_eq!(shared.superseded_len(), 0);
}

/// P14. The time runs out while a writer has the lock: the waiter is still in the table, and the grant finds it there.
#[test]
fn a_grant_that_comes_as_the_time_of_a_waiter_runs_out_is_told() {
    let mut told = 0;
    // A machine that is so busy that the waiter gives up before the lock is taken gets more time.
    for attempt in 0..12 {
        let shared = shared(true);
        let deadline = Deadline::after(Duration::from_millis(50 << attempt));
        let waiting = {
            let shared = Arc::clone(&shared);
            spawn("waits", move || shared.wait_for_trust(peer(1), deadline)).unwrap()
        };
        while shared.waiters_len() == 0 && !deadline.has_passed() {
            std::thread::yield_now();
        }
        let outcome = Shared::transact(&shared, None, |_| {
            if deadline.has_passed() {
                return Err(());
            }
            // Registered, and as long as this has the lock it cannot take itself out.
            while !deadline.has_passed() {
                std::thread::yield_now();
            }
            // Long enough for a waiter that gives up, and no matter how much longer it takes.
            std::thread::sleep(Duration::from_millis(100));
            Ok(granting(1))
        });
        let is_trusted = waiting.join().unwrap();
        match outcome {
            Ok(_) => assert!(is_trusted, "the peer was trusted while it waited"),
            Err(TransactError::Refused(())) => continue,
            Err(error) => panic!("{error:?}"),
        }
        told += 1;
        if told == 3 {
            break;
        }
    }
    assert!(told > 0);
    // And the twin: without a grant the time runs out, and nothing is left behind.
    let shared = shared(true);
    assert!(!shared.wait_for_trust(peer(1), Deadline::after(Duration::from_millis(1))));
    assert_eq!(shared.waiters_len(), 0);
}
