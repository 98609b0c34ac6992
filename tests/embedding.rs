//! What a program that embeds a node relies on: futures without a runtime, callbacks that can do no harm, automatic requests
//! that do not storm, and a stop that stops. Whatever must not happen has its twin that must.
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
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use common::*;
use trustkeep::clock::Clock;
use trustkeep::config::{HandshakeConfig, Limits};
use trustkeep::machine::event::{ChangeReason, Event, TrustState};
use trustkeep::node::{CommandError, RequestOptions};
use trustkeep::wire::message::Kind;
use trustkeep::{HandshakeManager, Now, PersistError, TrustRecord, TrustStore, WallMillis};

struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// The smallest runtime there is.
fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        std::thread::park();
    }
}

fn poll_once<F: Future + Unpin>(future: &mut F, waker: &Waker) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(waker))
}

/// Does something when it wakes, on the thread of whoever wakes it.
struct Does(Box<dyn Fn() + Send + Sync>);

impl Wake for Does {
    fn wake(self: Arc<Self>) {
        self.0();
    }
}

fn does(what: impl Fn() + Send + Sync + 'static) -> Waker {
    Waker::from(Arc::new(Does(Box::new(what))))
}

fn record(number: u32) -> TrustRecord {
    TrustRecord::new(id(number), None)
}

fn waiting(store: &TrustStore) -> usize {
    store.health().waiting_for_trust
}

#[test]
fn a_future_waits_for_the_grant_and_needs_no_runtime() {
    let (manager, _wire, _ends) = alone(|builder| builder);
    assert!(block_on(manager.trust_future(id(1))), "ourselves");
    assert_eq!(waiting(manager.store()), 0);
    std::thread::scope(|scope| {
        let waiters: Vec<_> = (0..4).map(|_| scope.spawn(|| block_on(manager.trust_future(id(2))))).collect();
        let other = scope.spawn(|| block_on(manager.store().trust_future(id(3))));
        eventually("all wait", || waiting(manager.store()) == 5);
        manager.receive(arrived(message_from(&identity(2), Kind::Request, |_| {}), 1));
        drop(manager.approve(id(2), shown(&manager, id(2))).unwrap());
        for waiter in waiters {
            assert!(waiter.join().unwrap());
        }
        // The other peer's waiter still waits, until the store closes.
        assert_eq!(waiting(manager.store()), 1);
        manager.shutdown().unwrap();
        assert!(!other.join().unwrap());
    });
    assert!(block_on(manager.trust_future(id(2))), "trusted already, and closed");
    assert!(!block_on(manager.trust_future(id(3))), "nothing will come any more");
}

#[test]
fn a_future_answers_again_and_outlives_the_store() {
    let store = TrustStore::in_memory();
    let mut future = store.trust_future(id(2));
    assert!(poll_once(&mut future, Waker::noop()).is_pending());
    drop(store.grant(record(2)).unwrap());
    assert_eq!(poll_once(&mut future, Waker::noop()), Poll::Ready(true));
    drop(store.revoke(id(2)).unwrap());
    assert_eq!(poll_once(&mut future, Waker::noop()), Poll::Ready(true));
    let mut left = store.trust_future(id(3));
    assert!(poll_once(&mut left, Waker::noop()).is_pending());
    drop(store);
    assert_eq!(poll_once(&mut left, Waker::noop()), Poll::Ready(false));
}

#[test]
fn a_dropped_future_leaves_nothing_behind() {
    let store = TrustStore::in_memory();
    let woken = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&woken);
    let waker = does(move || assert!(count.fetch_add(1, Ordering::SeqCst) < 10_000));
    let futures: Vec<_> = (0..100)
        .map(|_| {
            let mut future = store.trust_future(id(2));
            assert!(poll_once(&mut future, &waker).is_pending());
            future
        })
        .collect();
    let mut kept = store.trust_future(id(2));
    assert!(poll_once(&mut kept, &waker).is_pending());
    assert_eq!(waiting(&store), 101);
    drop(futures);
    assert_eq!(waiting(&store), 1);
    drop(store.grant(record(2)).unwrap());
    assert_eq!((woken.load(Ordering::SeqCst), waiting(&store)), (1, 0), "the one that was kept is woken, once");
    assert_eq!(poll_once(&mut kept, &waker), Poll::Ready(true));
    // One that was never polled was never registered.
    drop(store.trust_future(id(3)));
    assert_eq!(waiting(&store), 0);
}

#[test]
fn a_future_inside_a_closure_neither_hangs_nor_leaks() {
    let store = TrustStore::in_memory();
    let mut waits = store.trust_future(id(2));
    assert!(poll_once(&mut waits, Waker::noop()).is_pending());
    let ((inside, other), _) = store
        .update(|_| {
            drop(waits);
            let mut inside = store.trust_future(id(3));
            (poll_once(&mut inside, Waker::noop()), store.is_trusted(id(3)))
        })
        .unwrap();
    assert_eq!((inside, other), (Poll::Ready(false), false));
    // It could not take itself out; the next who registers does.
    let mut next = store.trust_future(id(4));
    assert!(poll_once(&mut next, Waker::noop()).is_pending());
    assert_eq!(waiting(&store), 1);
    drop(store.grant(record(2)).unwrap());
    assert_eq!(waiting(&store), 1);
}

#[test]
fn a_future_dropped_inside_a_closure_wakes_nobody() {
    let store = TrustStore::in_memory();
    let woken = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&woken);
    let waker = does(move || assert!(count.fetch_add(1, Ordering::SeqCst) < 10_000));
    let (mut dropped, mut kept) = (store.trust_future(id(2)), store.trust_future(id(2)));
    assert!(poll_once(&mut dropped, &waker).is_pending() && poll_once(&mut kept, &waker).is_pending());
    // A waker may wait for whoever waits for the lock that is held here.
    store.update(|_| drop(dropped)).unwrap().1.wait_durable().unwrap();
    assert_eq!(woken.load(Ordering::SeqCst), 0);
    drop(store.grant(record(2)).unwrap());
    assert_eq!(woken.load(Ordering::SeqCst), 1, "the one that was kept");
}

#[test]
fn what_a_waker_panics_with_harms_nobody_when_it_goes() {
    let store = TrustStore::in_memory();
    let (mut panics, mut waits) = (store.trust_future(id(2)), store.trust_future(id(2)));
    assert!(poll_once(&mut panics, &does(|| go_off())).is_pending());
    assert!(poll_once(&mut waits, Waker::noop()).is_pending());
    store.grant(record(2)).unwrap().wait_durable().unwrap();
    assert_eq!(poll_once(&mut panics, Waker::noop()), Poll::Ready(true));
    assert_eq!(poll_once(&mut waits, Waker::noop()), Poll::Ready(true), "who is woken after it");
}

#[test]
fn a_waker_that_panics_or_calls_back_harms_nobody() {
    let store = Arc::new(TrustStore::in_memory());
    let mut panics = store.trust_future(id(2));
    assert!(poll_once(&mut panics, &does(|| panic!("as the test wants it"))).is_pending());
    let back = Arc::clone(&store);
    let mut calls = store.trust_future(id(2));
    let calls_back = does(move || {
        assert!(back.is_trusted(id(2)), "woken after the grant is visible");
        drop(back.grant(record(3)).unwrap());
        back.flush().unwrap();
    });
    assert!(poll_once(&mut calls, &calls_back).is_pending());
    std::thread::scope(|scope| {
        let blocking = scope.spawn(|| store.wait_for_trust(id(2), SOON));
        eventually("all wait", || waiting(&store) == 3);
        store.grant(record(2)).unwrap().wait_durable().unwrap();
        assert!(blocking.join().unwrap());
    });
    assert!(store.is_trusted(id(3)), "what it called did happen");
    assert_eq!(poll_once(&mut panics, Waker::noop()), Poll::Ready(true));
}

/// One that gives up is found by its key. If it looked at all others, many would take far longer to go than they took to come.
#[test]
fn many_futures_that_are_dropped_take_as_long_as_they_took_to_come() {
    const COUNT: u32 = 30_000;
    let disk = Arc::new(Disk::default());
    let store = TrustStore::options().open_storage(Arc::clone(&disk) as _).unwrap();
    let shut = disk.gate.close();
    let receipt = store.grant(record(9)).unwrap();
    // The longest that coming took, and the shortest that going did, of some rounds: a busy machine makes no difference.
    fn rounds<F: Future + Unpin>(make: impl Fn() -> F) -> (Duration, Duration) {
        let (mut came, mut went) = (Duration::ZERO, Duration::MAX);
        for _ in 0..3 {
            let begun = Instant::now();
            let mut futures: Vec<F> = (0..COUNT).map(|_| make()).collect();
            assert!(
                futures
                    .iter_mut()
                    .all(|future| { Pin::new(future).poll(&mut Context::from_waker(Waker::noop())).is_pending() })
            );
            came = came.max(begun.elapsed());
            let begun = Instant::now();
            drop(futures);
            went = went.min(begun.elapsed());
        }
        (came, went)
    }
    for (came, went) in [rounds(|| store.trust_future(id(7))), rounds(|| receipt.durable_future())] {
        assert!(went < 10 * came, "{COUNT} futures came in {came:?} and went in {went:?}");
    }
    assert_eq!((store.health().waiting_for_trust, store.health().waiting_for_disk), (0, 0));
    drop(shut);
}

/// A task's waker is somebody else's code and may take its time. Threads, and the writer's other answers, do not wait for it.
#[test]
fn a_waker_that_takes_long_holds_up_no_thread() {
    let store = TrustStore::in_memory();
    let (entered, sleeping) = std::sync::mpsc::channel();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let (entered, released) = (Mutex::new(entered), Mutex::new(released));
    let slow = does(move || {
        entered.lock().unwrap().send(()).unwrap();
        let _ = released.lock().unwrap().recv_timeout(SOON);
    });
    let mut first = store.trust_future(id(2));
    assert!(poll_once(&mut first, &slow).is_pending());
    std::thread::scope(|scope| {
        let waiting_thread = scope.spawn(|| store.wait_for_trust(id(2), SOON));
        eventually("both wait", || waiting(&store) == 2);
        let granting = scope.spawn(|| drop(store.grant(record(2)).unwrap()));
        sleeping.recv_timeout(SOON).unwrap();
        eventually("the thread is told while the waker sleeps", || waiting_thread.is_finished());
        assert!(!granting.is_finished(), "the twin: it is the granting thread that calls the waker");
        release.send(()).unwrap();
        assert!(waiting_thread.join().unwrap());
    });
    assert_eq!(poll_once(&mut first, Waker::noop()), Poll::Ready(true));
}

#[test]
fn a_thousand_waiters_of_either_kind_are_woken_and_none_is_left() {
    let store = TrustStore::in_memory();
    let woken = Arc::new(AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..100).map(|_| scope.spawn(|| store.wait_for_trust(id(7), SOON))).collect();
        let count = Arc::clone(&woken);
        let waker = does(move || assert!(count.fetch_add(1, Ordering::SeqCst) < 10_000));
        let mut futures: Vec<_> = (0..900).map(|nth| store.trust_future(id(7 + nth % 9))).collect();
        for future in &mut futures {
            assert!(poll_once(future, &waker).is_pending());
        }
        eventually("all wait", || waiting(&store) == 1000);
        drop(store.grant(record(7)).unwrap());
        assert!(threads.into_iter().all(|thread| thread.join().unwrap()));
        assert_eq!((woken.load(Ordering::SeqCst), waiting(&store)), (100, 800));
        store.close().unwrap();
        assert_eq!((woken.load(Ordering::SeqCst), waiting(&store)), (900, 0));
        let trusted = futures.iter_mut().map(|future| poll_once(future, &waker));
        assert_eq!(trusted.filter(|answer| *answer == Poll::Ready(true)).count(), 100);
    });
}

#[test]
fn a_sink_hears_everything_in_order_and_the_last_of_it_before_the_end() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let into = Arc::clone(&heard);
    let sink = move |event: Event| into.lock().unwrap().push(event);
    let (manager, _wire, _ends) = alone(|builder| builder.event_sink(Arc::new(sink)));
    for number in 2..202 {
        drop(manager.store().grant(record(number)).unwrap());
    }
    drop(manager.revoke(id(2)).unwrap());
    manager.shutdown().unwrap();
    let heard = heard.lock().unwrap();
    let granted: Vec<_> = heard
        .iter()
        .filter_map(|event| match event {
            Event::TrustChanged { peer, state: TrustState::Granted, .. } => Some(peer.get()),
            _ => None,
        })
        .collect();
    assert_eq!(granted, (2..202).collect::<Vec<_>>());
    let lost = Event::TrustChanged { peer: id(2), state: TrustState::Revoked, reason: ChangeReason::Revoked };
    assert_eq!(heard.last_chunk(), Some(&[Event::Revoked { peer: id(2) }, lost]));
}

#[test]
fn a_sink_that_panics_loses_that_event_only() {
    let (put, got) = channel();
    let put = Mutex::new(put);
    let sink = move |event: Event| match event {
        Event::TrustChanged { peer, .. } if peer == id(2) => go_off(),
        event => put.lock().unwrap().send(event).unwrap(),
    };
    let (manager, _wire, _ends) = alone(|builder| builder.event_sink(Arc::new(sink)));
    for number in [2, 3] {
        drop(manager.store().grant(record(number)).unwrap());
    }
    assert!(matches!(got.recv_timeout(SOON), Ok(Event::TrustChanged { peer, .. }) if peer == id(3)));
    assert_eq!(count(&manager, "sink_panicked"), 1);
}

#[test]
fn a_sink_that_blocks_hears_how_much_it_missed_and_slows_nobody() {
    let (gate, heard) = (Arc::new(Gate::default()), Arc::new(Mutex::new(Vec::new())));
    let quick = Arc::new(AtomicUsize::new(0));
    let mut limits = Limits::default();
    limits.subscription_events_max = 8;
    let store = Arc::new(TrustStore::options().limits(limits).in_memory().unwrap());
    let (held, into, counting) = (Arc::clone(&gate), Arc::clone(&heard), Arc::clone(&quick));
    let blocks = move |event: Event| {
        held.pass();
        into.lock().unwrap().push(event);
    };
    let counts = move |event: Event| {
        counting.fetch_add(events_of(&event), Ordering::SeqCst);
    };
    let (manager, _wire, _ends) =
        alone_with(Arc::clone(&store), |builder| builder.event_sink(Arc::new(blocks)).event_sink(Arc::new(counts)));
    let shut = gate.close();
    for number in 2..102 {
        drop(store.grant(record(number)).unwrap());
    }
    // The other sink is not held up by this one, nor is an operator.
    eventually("the other sink hears of all", || quick.load(Ordering::SeqCst) == 100);
    drop(shut);
    // Nothing more happens, and it hears of all of them nevertheless: one was in its hands, eight were kept, and how many
    // losses the rest is told as depends on when it takes what.
    let accounted = || heard.lock().unwrap().iter().map(events_of).sum::<usize>();
    eventually("the lag is told", || accounted() == 100);
    assert!(heard.lock().unwrap().iter().any(|event| matches!(event, Event::Lagged { .. })));
    // Peers come in order, and each loss stands where it happened.
    let mut next = 2;
    for event in heard.lock().unwrap().iter() {
        if let Event::TrustChanged { peer, .. } = event {
            assert_eq!(usize::try_from(peer.get()).unwrap(), next);
        }
        next += events_of(event);
    }
    manager.shutdown().unwrap();
}

#[test]
fn a_sink_hears_how_much_it_missed_before_the_end() {
    let (gate, heard) = (Arc::new(Gate::default()), Arc::new(Mutex::new(Vec::new())));
    let mut limits = Limits::default();
    limits.subscription_events_max = 4;
    let store = Arc::new(TrustStore::options().limits(limits).in_memory().unwrap());
    let (held, into) = (Arc::clone(&gate), Arc::clone(&heard));
    let blocks = move |event: Event| {
        into.lock().unwrap().push(event);
        held.pass();
    };
    let mut config = HandshakeConfig::default();
    config.shutdown_wait = SOON;
    let (manager, _wire, _ends) =
        alone_with(Arc::clone(&store), |builder| builder.config(config).event_sink(Arc::new(blocks)));
    let shut = gate.close();
    drop(store.grant(record(2)).unwrap());
    eventually("the first is in its hands", || heard.lock().unwrap().len() == 1);
    for number in 3..20 {
        drop(store.grant(record(number)).unwrap());
    }
    std::thread::scope(|scope| {
        let stopping = scope.spawn(|| manager.shutdown());
        eventually("it stops", || matches!(manager.cancel(id(9)), Err(CommandError::Stopped)));
        drop(shut);
        stopping.join().unwrap().unwrap();
    });
    let heard = heard.lock().unwrap();
    assert_eq!(heard.len(), 6, "{heard:?}");
    assert_eq!(heard[5], Event::Lagged { lost: 13 });
}

/// How many events this one stands for.
fn events_of(event: &Event) -> usize {
    if let Event::Lagged { lost } = event { usize::try_from(*lost).unwrap() } else { 1 }
}

#[test]
fn a_sink_that_never_returns_does_not_hold_up_the_end() {
    let gate = Arc::new(Gate::default());
    let _shut = gate.close();
    let held = Arc::clone(&gate);
    let mut config = HandshakeConfig::default();
    // The sink costs the node this wait, and no more.
    config.shutdown_wait = Duration::from_millis(300);
    let (manager, _wire, _ends) =
        alone(|builder| builder.config(config).event_sink(Arc::new(move |_: Event| held.pass())));
    manager.store().grant(record(2)).unwrap().wait_durable().unwrap();
    let begun = Instant::now();
    manager.shutdown().unwrap();
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    drop(manager);
}

#[test]
fn a_dropped_manager_lets_go_of_its_sinks_though_the_store_goes_on() {
    let heard = Arc::new(AtomicUsize::new(0));
    let hears = Arc::clone(&heard);
    let sink: Arc<dyn trustkeep::node::EventSink> = Arc::new(move |_: Event| {
        hears.fetch_add(1, Ordering::SeqCst);
    });
    let store = Arc::new(TrustStore::in_memory());
    let (manager, _wire, _ends) = alone_with(Arc::clone(&store), |builder| builder.event_sink(Arc::clone(&sink)));
    drop(store.grant(record(2)).unwrap());
    eventually("it hears", || heard.load(Ordering::SeqCst) == 1);
    drop(manager);
    eventually("it is let go of", || Arc::strong_count(&sink) == 1);
    drop(store.grant(record(3)).unwrap());
    assert_eq!(heard.load(Ordering::SeqCst), 1);
}

/// A manager whose sink may call it.
fn with_sink_that_calls(
    call: impl Fn(&HandshakeManager, Event) + Send + Sync + 'static,
) -> (Arc<HandshakeManager>, Arc<Wire>, WireEnds) {
    let own: Arc<OnceLock<Weak<HandshakeManager>>> = Arc::default();
    let of_sink = Arc::clone(&own);
    let sink = move |event: Event| {
        if let Some(manager) = of_sink.wait().upgrade() {
            call(&manager, event);
        }
    };
    // A call out of the sink that waited for the sink would take far longer than a test waits.
    let mut config = HandshakeConfig::default();
    config.shutdown_wait = SOON * 10;
    let (manager, wire, ends) = alone(|builder| builder.config(config).event_sink(Arc::new(sink)));
    let manager = Arc::new(manager);
    own.set(Arc::downgrade(&manager)).unwrap();
    (manager, wire, ends)
}

#[test]
fn a_sink_may_call_the_manager() {
    let (manager, _wire, ends) = with_sink_that_calls(|manager, event| {
        if let Event::Pending { peer, fingerprint, .. } = event {
            manager.approve(peer, Some(fingerprint)).unwrap().wait_durable().unwrap();
            assert!(manager.wait_for_trust(peer, SOON));
        }
    });
    manager.receive(arrived(message_from(&identity(2), Kind::Request, |_| {}), 1));
    assert!(manager.wait_for_trust(id(2), SOON), "the sink approved it");
    assert_eq!(ends.next(), (id(2), "handshake_accept".to_owned()));
    assert_eq!(count(&manager, "sink_panicked"), 0);
}

#[test]
fn a_sink_may_stop_the_node_and_may_be_the_last_to_hold_it() {
    let (told, stopped) = channel();
    let told = Mutex::new(told);
    let (manager, _wire, _ends) = with_sink_that_calls(move |manager, event| {
        if matches!(event, Event::TrustChanged { .. }) {
            told.lock().unwrap().send(manager.shutdown().is_ok()).unwrap();
        }
    });
    drop(manager.store().grant(record(2)).unwrap());
    assert_eq!(stopped.recv_timeout(SOON), Ok(true), "it waited for itself");

    // The last reference goes inside the sink.
    let last: Arc<Mutex<Option<Arc<HandshakeManager>>>> = Arc::default();
    let (held, gone) = (Arc::clone(&last), Arc::new(OnceLock::new()));
    let tell = Arc::clone(&gone);
    let sink = move |_: Event| {
        drop(held.lock().unwrap().take());
        let _ = tell.set(());
    };
    let store = Arc::new(TrustStore::in_memory());
    let (manager, wire, _ends) = alone_with(Arc::clone(&store), |builder| builder.event_sink(Arc::new(sink)));
    *last.lock().unwrap() = Some(Arc::new(manager));
    drop(store.grant(record(2)).unwrap());
    eventually("it is gone", || gone.get().is_some() && *wire.stopped.lock().unwrap());
    drop(store.grant(record(3)).unwrap());
}

/// A clock that goes when it is told to.
#[derive(Debug, Default)]
struct Wound(Mutex<i64>);

impl Wound {
    fn wind(&self, millis: i64) {
        *self.0.lock().unwrap() += millis;
    }
}

impl Clock for Wound {
    fn now(&self) -> Now {
        let millis = *self.0.lock().unwrap();
        let begin = WallMillis::new(1_772_532_000_000);
        Now { wall: begin.saturating_add(millis), tick: trustkeep::Tick::new(millis) }
    }
}

#[test]
fn automatic_requests_cool_down_and_an_operators_never_do() {
    let clock = Arc::new(Wound::default());
    let store = TrustStore::options().clock(Arc::clone(&clock) as _).in_memory().unwrap();
    let (manager, _wire, ends) = alone_with(Arc::new(store), |builder| builder);
    let ask = |number, automatic| manager.request(id(number), "", RequestOptions::default().automatic(automatic));
    drop(ask(2, true).unwrap());
    assert_eq!(ends.next().0, id(2));
    let too_soon = |result: Result<_, CommandError>, seconds| match result {
        Err(CommandError::CoolingDown { left }) => assert_eq!(left, Duration::from_secs(seconds)),
        other => panic!("{other:?}"),
    };
    clock.wind(10_000);
    let generation = manager.store().generation();
    too_soon(ask(2, true), 20);
    assert_eq!(manager.store().generation(), generation, "nothing changed");
    assert!(ends.sent.try_recv().is_err(), "nothing was sent");
    // Another peer is no concern of it, and neither is an operator.
    drop(ask(3, true).unwrap());
    drop(ask(2, false).unwrap());
    // The operator's request counts as one.
    clock.wind(20_000);
    too_soon(ask(2, true), 10);
    clock.wind(10_000);
    drop(ask(2, true).unwrap());
    // What was refused for another reason heats nothing up.
    drop(manager.store().grant(record(4)).unwrap());
    assert!(matches!(ask(4, true), Err(CommandError::Refused(_))));
    assert!(matches!(ask(4, true), Err(CommandError::Refused(_))));
}

#[test]
fn stopping_lets_nobody_in_and_waits_for_who_is_inside() {
    let book = Arc::new(Book::default());
    *book.hangs_about.lock().unwrap() = Some(id(5));
    let shut = book.gate.close();
    let registry = Arc::clone(&book);
    let (manager, _wire, _ends) = alone(|builder| builder.registry(registry).look_up_timeout(SOON));
    let events = manager.subscribe();
    std::thread::scope(|scope| {
        let message = message_from(&identity(5), Kind::Request, |_| {});
        let inside = scope.spawn(|| manager.receive(arrived(message, 1)));
        eventually("it is inside", || book.asked_about.lock().unwrap().contains(&id(5)));
        let stopping = scope.spawn(|| manager.shutdown());
        eventually("it stops", || matches!(manager.cancel(id(9)), Err(CommandError::Stopped)));
        assert!(matches!(manager.request(id(9), "", RequestOptions::default()), Err(CommandError::Stopped)));
        assert!(matches!(manager.revoke(id(9)), Err(CommandError::Stopped)));
        manager.receive(arrived(message_from(&identity(6), Kind::Request, |_| {}), 1));
        assert_eq!(count(&manager, "stopping"), 1);
        assert!(!stopping.is_finished());
        drop(shut);
        inside.join().unwrap();
        stopping.join().unwrap().unwrap();
    });
    // The one who was inside was served to the end, the one who came later was not.
    let pending: Vec<_> = manager.pending().into_iter().map(|(peer, _)| peer).collect();
    assert_eq!(pending, [id(5)]);
    assert!(events.recv_timeout(SOON).is_some());
}

#[test]
fn a_second_shutdown_saves_what_the_first_could_not() {
    let disk = Arc::new(Disk::default());
    let store = TrustStore::options().close_deadline(Duration::from_millis(200));
    let store = Arc::new(store.open_storage(Arc::clone(&disk) as _).unwrap());
    let (manager, _wire, _ends) = alone_with(Arc::clone(&store), |builder| builder);
    *disk.full.lock().unwrap() = true;
    drop(store.grant(record(2)).unwrap());
    match manager.shutdown() {
        Err(PersistError::TimedOut { cause: Some(_) }) => {}
        other => panic!("{other:?}"),
    }
    assert!(disk.crashed_store().is_none_or(|store| !store.is_trusted(id(2))));
    *disk.full.lock().unwrap() = false;
    // Each call waits for 200 ms at most, and the keeper may need longer.
    eventually("it is saved", || manager.shutdown().is_ok());
    assert!(disk.crashed_store().unwrap().is_trusted(id(2)));
    // The third has nothing to do.
    let before = disk.bytes();
    manager.shutdown().unwrap();
    assert_eq!(disk.bytes(), before);
    std::thread::sleep(A_WHILE);
    assert_eq!(disk.bytes(), before);
}
