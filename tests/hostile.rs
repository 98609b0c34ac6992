//! Hostile peers against a node that listens: whatever many of them do at once, memory stays flat, readers' version is not
//! even replaced, and a good peer gets through.
//!
//! `TRUSTKEEP_HOSTILE=100` makes every flood a hundred times as long; `TRUSTKEEP_LOAD_MS=60000` makes the one that goes by
//! time last a minute, and with `--nocapture` it tells its figures.
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

use std::io::Write as _;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use common::*;
use trustkeep::config::Limits;
use trustkeep::machine::view::Source;
use trustkeep::node::{Identity as _, Received, RequestOptions, TcpConfig, TcpTransport};
use trustkeep::wire::message::Kind;
use trustkeep::{HandshakeManager, TrustRecord, TrustStore};

/// How much longer than by default.
fn times() -> usize {
    std::env::var("TRUSTKEEP_HOSTILE").map_or(1, |text| text.parse().expect("TRUSTKEEP_HOSTILE is a number"))
}

/// The memory of this program that is in use, in KiB.
fn resident_kib() -> usize {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A node with this number that listens, and knows the way to every other in the book.
fn listening(number: u32, book: &Arc<Book>) -> (HandshakeManager, Arc<TcpTransport>) {
    listening_with(number, book, |_| {})
}

fn listening_with(
    number: u32,
    book: &Arc<Book>,
    change: impl FnOnce(&mut TcpConfig),
) -> (HandshakeManager, Arc<TcpTransport>) {
    let store = Arc::new(TrustStore::in_memory());
    let mut config = TcpConfig::listen(any_port());
    (config.look_up_timeout, config.connect_timeout, config.send_timeout) = (SOON, SOON, SOON);
    change(&mut config);
    let transport = Arc::new(TcpTransport::bind(config, Arc::clone(book) as _).unwrap());
    let identity = Arc::new(identity(number));
    book.put(id(number), Some(identity.public_key()), transport.local_address());
    let builder = HandshakeManager::builder(store, identity, Arc::clone(&transport) as _);
    (builder.registry(Arc::clone(book) as _).look_up_timeout(SOON).start().unwrap(), transport)
}

/// What a connection of a hostile peer does.
fn attack(nth: usize, host: [u8; 4], to: SocketAddr) -> Option<TcpStream> {
    let mut stream = try_to_connect_from(host, to).ok()?;
    // Whatever fails: the other side has closed already, which is its right.
    let _ = match nth % 6 {
        0 => return Some(stream),             // says nothing
        1 => stream.write_all(b"{\"type\":"), // stops in the middle, and is held open
        2 => stream.write_all(&[0xff; 8192]),
        3 => stream.write_all(&vec![b' '; 70_000]),
        4 => stream.shutdown(Shutdown::Both),
        _ => stream.write_all(b"[[[[[[[[{\"type\":null}").and_then(|()| stream.shutdown(Shutdown::Write)),
    };
    (nth % 6 == 1).then_some(stream)
}

#[test]
fn a_storm_of_connections_leaves_memory_flat_and_lets_a_good_peer_through() {
    let book = Arc::new(Book::default());
    let (b, transport) = listening(2, &book);
    let (a, _) = listening(1, &book);
    drop(b.store().grant(TrustRecord::new(id(77), None)).unwrap());
    let mut reader = b.store().reader();
    let generation = reader.generation();
    let to = transport.local_address();
    let most = AtomicUsize::new(0);
    let storm = |connections: usize, one_source: bool| {
        std::thread::scope(|scope| {
            for thread in 0..4_u8 {
                let (most, transport) = (&most, &transport);
                scope.spawn(move || {
                    // Each holds the last few open, until newer ones take their place.
                    let mut held = std::collections::VecDeque::new();
                    for nth in 0..connections / 4 {
                        let host = if one_source { [127, 0, 9, 1] } else { [127, 1, thread, (nth % 250) as u8 + 1] };
                        held.extend(attack(nth, host, to));
                        if held.len() > 90 {
                            held.pop_front();
                        }
                        if nth % 16 == 0 {
                            most.fetch_max(transport.counts().open, Ordering::SeqCst);
                        }
                    }
                });
            }
        });
    };
    // Once, so that what is made once is made.
    storm(400, false);
    let before = resident_kib();
    for one_source in [false, true] {
        storm(1000 * times(), one_source);
        assert!(b.is_trusted(id(77)));
    }
    let most = most.load(Ordering::SeqCst);
    assert!((1..=256).contains(&most), "{most} at a time");
    let grown = resident_kib().saturating_sub(before);
    assert!(grown < 32 * 1024, "{grown} KiB more");
    let counts = transport.counts();
    assert!(counts.accepted as usize >= 2000 * times(), "{counts:?}");
    assert_eq!(reader.generation(), generation, "readers' version was replaced");
    assert!(b.pending().is_empty());

    // The twin: in the middle of the next storm a good peer gets through, and becomes trusted.
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                storm(80, true);
            }
        });
        let asked = a.request(id(2), "weather feed", RequestOptions::default());
        eventually("the request arrives", || !b.pending().is_empty());
        drop(asked.unwrap());
        drop(b.approve(id(1), shown(&b, id(1))).unwrap());
        assert!(a.wait_for_trust(id(2), SOON));
        over.store(true, Ordering::SeqCst);
    });
    assert!(reader.generation() > generation);
}

#[test]
fn slow_connections_from_many_sources_keep_no_good_peer_waiting() {
    let book = Arc::new(Book::default());
    // Whoever waited for one of the slow connections would wait far longer than a test does.
    let (b, transport) = listening_with(2, &book, |config| config.receive_timeout = SOON * 10);
    let (a, _) = listening(1, &book);
    let to = transport.local_address();
    // As many as fit, each a byte now and then.
    let mut slow: Vec<_> =
        (0..300_u16).map(|nth| connect_from([127, 2, (nth / 250) as u8, (nth % 250) as u8 + 1], to)).collect();
    for _ in 0..3 {
        for stream in &mut slow {
            let _ = stream.write_all(b" ");
        }
    }
    drop(a.request(id(2), "", RequestOptions::default()).unwrap());
    eventually("the request arrives", || !b.pending().is_empty());
    drop(b.approve(id(1), shown(&b, id(1))).unwrap());
    assert!(a.wait_for_trust(id(2), SOON));
}

#[test]
fn a_flood_of_signed_requests_from_one_and_from_many_sources_fills_the_queue_and_nothing_else() {
    // A short queue, for signing takes most of this test's time.
    let mut limits = Limits::default();
    (limits.pending_max, limits.pending_per_source_max) = (32, 4);
    let store = Arc::new(TrustStore::options().limits(limits).in_memory().unwrap());
    let (manager, _wire, ends) = alone_with(store, |builder| builder);
    drop(manager.store().grant(TrustRecord::new(id(77), None)).unwrap());
    let mut reader = manager.store().reader();
    let generation = reader.generation();
    let flood = |from: u32, to: u32, source: &dyn Fn(u32) -> [u8; 4]| {
        for number in from..to {
            let bytes = message_from(&identity(number), Kind::Request, |draft| draft.justification = "x".repeat(1024));
            manager.receive(Received::new(bytes, Source::from_address(source(number).into())));
        }
    };
    flood(1000, 1010, &|_| [10, 0, 0, 1]);
    assert_eq!(manager.pending().len(), 4, "one source fills its share");
    assert_eq!(count(&manager, "pending_source_full"), 6);
    flood(1100, 1140, &|number| [10, 1, (number / 250) as u8, (number % 250) as u8]);
    let before = resident_kib();
    let many = 40 * u32::try_from(times()).unwrap();
    flood(2000, 2000 + many, &|number| [10, (number >> 16) as u8 + 2, (number >> 8) as u8, number as u8]);
    assert_eq!(manager.pending().len(), 32, "the queue is full");
    let grown = resident_kib().saturating_sub(before);
    assert!(grown < 16 * 1024, "{grown} KiB more");
    assert_eq!(
        count(&manager, "pending_full"),
        u64::from(many) + 40 - 30,
        "and two of the first source gave way (R-169)"
    );
    assert!(ends.sent.try_recv().is_err(), "nothing is answered");
    assert_eq!(reader.generation(), generation, "readers' version was replaced");
    // The twin: an operator still approves, and that readers do see.
    let waits = manager.pending()[0].0;
    drop(manager.approve(waits, shown(&manager, waits)).unwrap());
    assert!(reader.is_trusted(waits) && reader.generation() > generation);
    assert_eq!(ends.next().0, waits);
}

#[test]
fn a_flood_that_lasts_leaves_memory_flat_and_readers_alone() {
    let home = tempfile::tempdir().unwrap();
    let store = Arc::new(TrustStore::open(home.path().join("store")).unwrap());
    let (manager, _wire, ends) = alone_with(store, |builder| builder);
    drop(manager.store().grant(TrustRecord::new(id(77), None)).unwrap());
    // Signed beforehand, for that takes longer than all the rest. Nobody vouches for them, so that no floor stops their
    // copies: each goes the whole way, signature and rules included, whenever it comes.
    let messages: Vec<_> = (1000..3000)
        .map(|number| message_from(&identity(number), Kind::Request, |draft| draft.justification = "x".repeat(1024)))
        .collect();
    let source = |nth: usize| Source::from_address([10, (nth >> 16) as u8, (nth >> 8) as u8, nth as u8].into());
    let offer = |nth: usize| manager.receive(Received::new(messages[nth % messages.len()].clone(), source(nth)));
    // Once, so that what is made once is made: the queue is full afterwards.
    (0..messages.len()).for_each(offer);
    let full = manager.pending().len();
    assert_eq!(full, Limits::default().pending_max);
    let mut reader = manager.store().reader();
    let (generation, before) = (reader.generation(), resident_kib());
    let (begun, until) = (Instant::now(), Instant::now() + load());
    let offered = AtomicUsize::new(0);
    let mut residents = vec![before];
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let (offer, offered) = (&offer, &offered);
            scope.spawn(move || {
                let mut nth = thread;
                while Instant::now() < until || offered.load(Ordering::Relaxed) <= 100 {
                    offer(nth);
                    nth += 2;
                    offered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        // Looked at six times on the way.
        for sixth in 1..=6 {
            std::thread::sleep((begun + load() * sixth / 6).saturating_duration_since(Instant::now()));
            assert!(reader.is_trusted(id(77)) && manager.is_trusted(id(77)));
            residents.push(resident_kib());
        }
    });
    let (offered, took) = (offered.into_inner(), begun.elapsed());
    println!(
        "{offered} requests in {took:?}, {:.0} a second; resident {residents:?} KiB; generation {generation:?} and {:?}",
        offered as f64 / took.as_secs_f64(),
        reader.generation()
    );
    let most = residents.iter().max().unwrap().saturating_sub(before);
    assert!(most < 16 * 1024, "{most} KiB more: {residents:?}");
    assert_eq!(reader.generation(), generation, "readers' version was replaced");
    assert_eq!(manager.pending().len(), full);
    let refused: u64 = manager.counters().iter().map(|(_, count)| count).sum();
    assert!(refused >= offered as u64 / 2, "{:?}", manager.counters());
    assert!(ends.sent.try_recv().is_err(), "nothing is answered");
    // The twin: a grant is seen by the same reader.
    drop(manager.approve(manager.pending()[0].0, shown(&manager, manager.pending()[0].0)).unwrap());
    assert!(reader.generation() > generation);
}
