//! Twenty peers that the registry knows become trusted in the middle of every kind of flood: each of them, each time.
//!
//! `--nocapture` tells how many were through after how long, and how much of the flood the node took in meanwhile.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    missing_docs,
    unreachable_pub,
    reason = "tests"
)]

mod common;

use std::collections::VecDeque;
use std::io::Write as _;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::*;
use trustkeep::config::Limits;
use trustkeep::machine::view::Nonce;
use trustkeep::node::{FileIdentity, Identity as _, RequestOptions, TcpConfig, TcpTransport};
use trustkeep::wire::message::Kind;
use trustkeep::{HandshakeManager, TrustStore};

/// The good peers have these numbers, and the node that is flooded has number 1.
const GOOD: core::ops::Range<u32> = 10..30;

fn node(number: u32, book: &Arc<Book>) -> (HandshakeManager, Arc<TcpTransport>) {
    let mut config = TcpConfig::listen(any_port());
    (config.look_up_timeout, config.connect_timeout, config.send_timeout) = (SOON, SOON, SOON);
    let transport = Arc::new(TcpTransport::bind(config, Arc::clone(book) as _).unwrap());
    let identity = Arc::new(identity(number));
    book.put(id(number), Some(identity.public_key()), transport.local_address());
    // The good peers of a test have one address, and none waits for another to be approved.
    let mut limits = Limits::default();
    limits.pending_per_source_max = 32;
    let store = Arc::new(TrustStore::options().limits(limits).in_memory().unwrap());
    let builder = HandshakeManager::builder(store, identity, Arc::clone(&transport) as _);
    (builder.registry(Arc::clone(book) as _).look_up_timeout(SOON).start().unwrap(), transport)
}

/// Somebody with this id and a key of their own.
fn stranger(number: u32) -> FileIdentity {
    FileIdentity::from_seed(id(number), &[252; 32]).unwrap()
}

/// Sends this from this address, and closes behind it.
fn deliver(host: [u8; 4], to: SocketAddr, bytes: &[u8]) -> Option<TcpStream> {
    let mut stream = try_to_connect_from(host, to).ok()?;
    // Whatever fails: the other side has closed already, which is its right.
    let _ = stream.write_all(bytes).and_then(|()| stream.shutdown(Shutdown::Write));
    Some(stream)
}

/// One part of the flood, by thread and number: a connection, if it is to be held until sixty newer ones are.
type Wave<'a> = &'a (dyn Fn(u8, usize, SocketAddr) -> Option<TcpStream> + Sync);

/// How many of the good peers became trusted on both sides while this went on.
fn through(flood: Wave<'_>, what: &str) -> usize {
    let book = Arc::new(Book::default());
    let (flooded, transport) = node(1, &book);
    let to = transport.local_address();
    // Let the flood arrive first, so that whatever it can fill is full.
    let (over, waves) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let (over, waves) = (&over, &waves);
            scope.spawn(move || {
                let mut held = VecDeque::new();
                let mut nth = 0;
                while !over.load(Ordering::SeqCst) {
                    held.extend(flood(thread, nth, to));
                    if held.len() > 60 {
                        held.pop_front();
                    }
                    nth += 1;
                    waves.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        eventually("the flood is there", || waves.load(Ordering::SeqCst) >= 400);
        let begun = Instant::now();
        let good: Vec<_> = GOOD.map(|number| (number, node(number, &book).0)).collect();
        let mut asked: Vec<_> = good.iter().map(|(_, it)| it.request(id(1), "in", RequestOptions::default())).collect();
        let count = || good.iter().filter(|(of, it)| it.is_trusted(id(1)) && flooded.is_trusted(id(*of))).count();
        // An operator who knows their keys. What the flood shows under their ids is not what is approved.
        while count() < good.len() && begun.elapsed() < SOON * 2 {
            for (waits, _) in flooded.pending() {
                let key = GOOD.contains(&waits.get()).then(|| identity(waits.get()).public_key().fingerprint());
                if let Some(shown) = key {
                    let _ = flooded.approve(waits, Some(shown));
                }
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let through = count();
        over.store(true, Ordering::SeqCst);
        println!(
            "{what}: {through} of {} in {:?}; {} waves, {:?}",
            good.len(),
            begun.elapsed(),
            waves.load(Ordering::SeqCst),
            flooded.counters()
        );
        asked.clear();
        through
    })
}

/// Many signed messages, made beforehand.
fn signed(kind: Kind, count: u32, senders: impl Fn(u32) -> FileIdentity, text: &str) -> Vec<Vec<u8>> {
    let make = |nth: u32| {
        message_from(&senders(nth), kind, |draft| {
            draft.justification = text.to_owned();
            draft.nonce = Nonce([(nth % 250) as u8; 16]);
        })
    };
    (0..count).map(make).collect()
}

/// An address for each thread and number.
fn any_host(thread: u8, nth: usize) -> [u8; 4] {
    [127, 3 + thread, (nth / 250 % 250) as u8, (nth % 250) as u8 + 1]
}

const ONE: [u8; 4] = [127, 0, 9, 1];
const ALL: usize = GOOD.end as usize - GOOD.start as usize;

#[test]
fn good_peers_get_through_connections_that_say_nothing_or_rubbish() {
    let attack = |nth: usize, host, to| {
        let mut stream = try_to_connect_from(host, to).ok()?;
        let _ = match nth % 5 {
            0 => return Some(stream),
            1 => stream.write_all(b"{\"type\":"),
            2 => stream.write_all(&[0xff; 8192]),
            3 => stream.write_all(&vec![b' '; 70_000]),
            _ => stream.write_all(b"[[[[[[[[{\"type\":null}").and_then(|()| stream.shutdown(Shutdown::Write)),
        };
        (nth % 5 == 1).then_some(stream)
    };
    assert_eq!(through(&|_, nth, to| attack(nth, ONE, to), "rubbish of one source"), ALL);
    assert_eq!(through(&|thread, nth, to| attack(nth, any_host(thread, nth), to), "rubbish of many"), ALL);
}

#[test]
fn good_peers_get_through_requests_of_strangers() {
    let requests = signed(Kind::Request, 600, |nth| stranger(1000 + nth), "let me in");
    let at = |thread: u8, nth: usize| &requests[(nth * 2 + usize::from(thread)) % requests.len()];
    let one: Wave<'_> = &|thread, nth, to| deliver(ONE, to, at(thread, nth)).and(None);
    assert_eq!(through(one, "requests of one source"), ALL);
    let many: Wave<'_> = &|thread, nth, to| deliver(any_host(thread, nth), to, at(thread, nth)).and(None);
    assert_eq!(through(many, "requests of many"), ALL);
    // Each waits for its answer, so that every place of those who may is taken.
    let held: Wave<'_> = &|thread, nth, to| deliver(any_host(thread, nth), to, at(thread, nth));
    assert_eq!(through(held, "requests that wait for an answer"), ALL);
}

#[test]
fn good_peers_get_through_sixty_kilobytes_of_nothing_at_a_time() {
    let text = "\u{200b}".repeat(20_000);
    let requests = signed(Kind::Request, 40, |nth| stranger(2000 + nth), &text);
    let flood: Wave<'_> = &|_, nth, to| deliver(ONE, to, &requests[nth % requests.len()]).and(None);
    assert_eq!(through(flood, "texts of what is dropped"), ALL);
}

#[test]
fn good_peers_get_through_those_who_speak_in_their_names() {
    let number = |nth: u32| GOOD.start + nth % ALL as u32;
    for (kind, what) in
        [(Kind::Request, "false requests"), (Kind::Accept, "false accepts"), (Kind::Revoke, "false revokes")]
    {
        let false_ones = signed(kind, 40, |nth| stranger(number(nth)), "it is me");
        let flood: Wave<'_> =
            &|thread, nth, to| deliver(any_host(thread, nth), to, &false_ones[nth % false_ones.len()]).and(None);
        assert_eq!(through(flood, what), ALL);
    }
    // Their own requests of a moment ago, which somebody overheard.
    let old = signed(Kind::Request, 40, |nth| identity(number(nth)), "in");
    let flood: Wave<'_> = &|thread, nth, to| deliver(any_host(thread, nth), to, &old[nth % old.len()]).and(None);
    assert_eq!(through(flood, "copies"), ALL);
}
