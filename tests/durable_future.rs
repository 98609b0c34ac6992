//! Waiting for the disk as a future: it is ready once the change is durable and not before, says what went wrong as the
//! blocking call does, needs no runtime, and leaves nothing behind.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    unreachable_pub,
    reason = "tests"
)]

mod common;

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use common::*;
use trustkeep::{DurableFuture, PersistError, TrustRecord, TrustStore};

/// Counts how often it was woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn poll(future: &mut DurableFuture, waker: &Waker) -> Poll<Result<(), PersistError>> {
    pin!(future).poll(&mut Context::from_waker(waker))
}

fn record(number: u32) -> TrustRecord {
    TrustRecord::new(id(number), None)
}

#[test]
fn a_future_is_ready_once_the_change_is_durable_and_not_before() {
    let disk = Arc::new(Disk::default());
    let store = TrustStore::options().open_storage(Arc::clone(&disk) as _).unwrap();
    let shut = disk.gate.close();
    let receipt = store.grant(record(2)).unwrap();
    let woken: Vec<_> = (0..100).map(|_| Arc::new(Woken::default())).collect();
    let mut futures: Vec<_> = woken.iter().map(|_| receipt.durable_future()).collect();
    for (future, woken) in futures.iter_mut().zip(&woken) {
        assert!(poll(future, &Waker::from(Arc::clone(woken))).is_pending());
        assert!(poll(future, &Waker::from(Arc::clone(woken))).is_pending());
    }
    assert_eq!(store.health().waiting_for_disk, 100);
    drop(futures.drain(50..));
    assert_eq!(store.health().waiting_for_disk, 50, "who was dropped waits no longer");
    assert!(woken.iter().all(|woken| woken.0.load(Ordering::SeqCst) == 0));
    drop(shut);
    receipt.wait_durable().unwrap();
    eventually("each is woken", || woken[..50].iter().all(|woken| woken.0.load(Ordering::SeqCst) == 1));
    for future in &mut futures {
        // And again: it answers the same.
        assert!(matches!(poll(future, Waker::noop()), Poll::Ready(Ok(()))));
        assert!(matches!(poll(future, Waker::noop()), Poll::Ready(Ok(()))));
    }
    assert_eq!(store.health().waiting_for_disk, 0);
    assert!(woken[50..].iter().all(|woken| woken.0.load(Ordering::SeqCst) == 0), "who was dropped is not woken");
    assert!(matches!(poll(&mut receipt.durable_future(), Waker::noop()), Poll::Ready(Ok(()))), "at once");
}

#[test]
fn a_future_says_what_the_blocking_call_would() {
    let disk = Arc::new(Disk::default());
    let store = TrustStore::options().open_storage(Arc::clone(&disk) as _).unwrap();
    *disk.full.lock().unwrap() = true;
    let receipt = store.grant(record(2)).unwrap();
    let mut future = receipt.durable_future();
    eventually("the failure is told", || {
        matches!(poll(&mut future, Waker::noop()), Poll::Ready(Err(PersistError::Io { .. })))
    });
    *disk.full.lock().unwrap() = false;
    store.flush().unwrap();
    assert!(matches!(poll(&mut receipt.durable_future(), Waker::noop()), Poll::Ready(Ok(()))));
    // Inside a closure nobody may wait, a task neither.
    let shut = disk.gate.close();
    let receipt = store.grant(record(3)).unwrap();
    let mut waiting = receipt.durable_future();
    assert!(poll(&mut waiting, Waker::noop()).is_pending());
    let (inside, _) = store
        .update(|_| {
            drop(waiting);
            poll(&mut receipt.durable_future(), Waker::noop())
        })
        .unwrap();
    assert!(matches!(inside, Poll::Ready(Err(PersistError::Reentrant))), "{inside:?}");
    assert_eq!(store.health().waiting_for_disk, 0);
    drop(shut);
    // It outlives the store.
    let mut future = receipt.durable_future();
    store.close().unwrap();
    drop(store);
    assert!(matches!(poll(&mut future, Waker::noop()), Poll::Ready(Ok(()))));
}

/// Does something when it wakes, on the thread of whoever wakes it.
struct Does(Box<dyn Fn() + Send + Sync>);

impl Wake for Does {
    fn wake(self: Arc<Self>) {
        self.0();
    }
}

#[test]
fn who_is_woken_may_be_the_last_to_hold_the_store() {
    let disk = Arc::new(Disk::default());
    let store = Arc::new(TrustStore::options().open_storage(Arc::clone(&disk) as _).unwrap());
    let shut = disk.gate.close();
    let receipt = store.grant(record(2)).unwrap();
    let mut future = receipt.durable_future();
    let (held, told) = (Mutex::new(Some(store)), channel());
    let waker = Does(Box::new(move || {
        let store = held.lock().unwrap().take();
        let gone = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(store)));
        let _ = told.0.send(gone.is_ok());
    }));
    assert!(poll(&mut future, &Waker::from(Arc::new(waker))).is_pending());
    drop(shut);
    assert_eq!(told.1.recv_timeout(SOON), Ok(true), "dropping a store never panics, nor waits for itself");
    assert!(matches!(poll(&mut future, Waker::noop()), Poll::Ready(Ok(()))));
    eventually("the keeper leaves and lets go of the disk", || Arc::strong_count(&disk) == 1);
}
