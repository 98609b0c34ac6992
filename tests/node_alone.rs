//! One node against everybody else: hostile messages, registries and transports that hang or panic, a disk that does not
//! answer. Whatever must not get through has its twin that must.
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

use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use common::*;
use trustkeep::config::{Durability, HandshakeConfig, MESSAGE_BYTES_MAX};
use trustkeep::machine::event::Event;
use trustkeep::machine::view::{Nonce, Source};
use trustkeep::node::{CommandError, Identity as _, Received, RequestOptions};
use trustkeep::wire::message::Kind;
use trustkeep::{TrustRecord, TrustStore};

#[test]
fn every_hostile_message_is_counted_and_changes_nothing_and_a_good_one_is_shown() {
    let book = Arc::new(Book::default());
    let (two, forger) = (identity(2), identity(99));
    book.put(id(2), Some(two.public_key()), any_port());
    let (manager, _wire, ends) = alone(|builder| builder.registry(Arc::clone(&book) as _));
    let nobody_signed = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut value = serde_json::from_slice(&message_from(&two, Kind::Request, |_| {})).unwrap();
        change(&mut value);
        serde_json::to_vec(&value).unwrap()
    };
    let as_two = |change: &dyn Fn(&mut serde_json::Value)| {
        // The forger's own key and signature, under another's id.
        let forged = trustkeep::node::FileIdentity::from_seed(id(2), &[99; 32]).unwrap();
        assert_eq!(forged.public_key(), forger.public_key());
        let mut value = serde_json::from_slice(&message_from(&forged, Kind::Request, |_| {})).unwrap();
        change(&mut value);
        serde_json::to_vec(&value).unwrap()
    };
    let before = manager.store().generation();
    for (name, bytes) in [
        ("malformed", b"garbage".to_vec()),
        ("malformed", Vec::new()),
        ("malformed", message_from(&two, Kind::Request, |_| {})[..100].to_vec()),
        ("malformed", [message_from(&two, Kind::Request, |_| {}), b"x".to_vec()].concat()),
        ("too_large", vec![b' '; MESSAGE_BYTES_MAX + 1]),
        ("unknown_type", nobody_signed(&|value| value["type"] = "handshake_hello".into())),
        ("too_old", message_from(&two, Kind::Request, |draft| draft.stamp = now().saturating_add(-301_000))),
        ("from_future", message_from(&two, Kind::Request, |draft| draft.stamp = now().saturating_add(60_000))),
        ("sender_zero", nobody_signed(&|value| value["node_id"] = 0.into())),
        ("sender_is_us", message_from(&identity(1), Kind::Request, |_| {})),
        ("bad_key", nobody_signed(&|value| value["public_key"] = "".into())),
        ("bad_key", nobody_signed(&|v| v["public_key"] = "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".into())),
        ("bad_field", nobody_signed(&|value| value["nonce"] = "".into())),
        ("bad_signature", nobody_signed(&|value| value["justification"] = "other".into())),
        ("bad_signature", nobody_signed(&|value| value["type"] = "handshake_revoke".into())),
        ("bad_signature", message_from(&two, Kind::Request, |draft| draft.to = id(3))),
        ("key_mismatch", as_two(&|_| {})),
        ("not_asked", message_from(&two, Kind::Accept, |draft| draft.answers = Some(Nonce([1; 16])))),
        ("nothing_to_revoke", message_from(&two, Kind::Revoke, |draft| draft.stamp = now().saturating_add(5))),
    ] {
        let counted = count(&manager, name);
        let text = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
        manager.receive(arrived(bytes, 1));
        assert_eq!(count(&manager, name), counted + 1, "{name}: {text}: {:?}", manager.counters());
        assert!(manager.pending().is_empty() && manager.trusted().is_empty() && manager.revoked().is_empty());
    }
    // Authentic messages may move the peer's floor, and nothing else may.
    assert!(manager.store().generation().get() <= before.get() + 2);
    assert_eq!(ends.sent.try_recv().ok(), None, "nothing is answered");
    let good = message_from(&two, Kind::Request, |draft| {
        (draft.justification, draft.stamp) = ("feed".to_owned(), now().saturating_add(10));
    });
    manager.receive(arrived(good.clone(), 1));
    assert_eq!(manager.pending()[0].1.justification, "feed");
    // The same bytes again are stale; a newer message is not.
    manager.receive(arrived(good, 2));
    assert_eq!(count(&manager, "stale"), 1);
    let stamp = manager.pending()[0].1.stamp;
    manager.receive(arrived(message_from(&two, Kind::Request, |draft| draft.stamp = stamp.saturating_add(1)), 1));
    assert!(manager.pending()[0].1.stamp > stamp);
}

#[test]
fn a_flood_of_requests_fills_its_own_share_only() {
    let book = Arc::new(Book::default());
    book.put(id(50), Some(identity(50).public_key()), any_port());
    let (manager, _wire, _ends) = alone(|builder| builder.registry(book));
    for number in 2..42 {
        manager.receive(arrived(message_from(&identity(number), Kind::Request, |_| {}), 1));
    }
    assert_eq!(manager.pending().len(), 16);
    assert_eq!(count(&manager, "pending_source_full"), 24);
    manager.receive(arrived(message_from(&identity(50), Kind::Request, |_| {}), 2));
    manager.receive(Received::authenticated(message_from(&identity(51), Kind::Request, |_| {}), id(51)));
    let pending = manager.pending();
    assert_eq!(pending.len(), 18);
    assert!(pending.is_sorted_by_key(|(peer, _)| *peer));
    assert!(pending[16].1.authentic, "so many look-ups later the registry is still asked");
    assert_eq!((pending[17].1.source, pending[17].1.authentic), (Source::Node(id(51)), true));
}

#[test]
fn of_many_threads_with_one_message_exactly_one_wins() {
    let book = Arc::new(Book::default());
    book.put(id(2), Some(identity(2).public_key()), any_port());
    let (manager, _wire, _ends) = alone(|builder| builder.registry(book));
    let (events, message) = (manager.subscribe(), message_from(&identity(2), Kind::Request, |_| {}));
    std::thread::scope(|scope| {
        for host in 1..=8 {
            scope.spawn(|| manager.receive(arrived(message.clone(), 1)));
            let _ = host;
        }
    });
    assert_eq!(count(&manager, "stale"), 7);
    let received = std::iter::from_fn(|| events.try_recv()).filter(|event| matches!(event, Event::Received { .. }));
    assert_eq!(received.count(), 1);
}

#[test]
fn a_registry_that_hangs_or_panics_binds_nothing_and_holds_up_nobody() {
    let book = Arc::new(Book::default());
    *book.hangs_about.lock().unwrap() = Some(id(5));
    *book.panics_about.lock().unwrap() = Some(id(13));
    let _shut = book.gate.close();
    for number in [5, 6, 13] {
        book.put(id(number), Some(identity(number).public_key()), any_port());
    }
    let node = |time| {
        let registry = Arc::clone(&book);
        alone(move |builder| builder.registry(registry).look_up_timeout(time))
    };
    // As if for ever.
    let (manager, _wire, _ends) = node(SOON * 10);
    std::thread::scope(|scope| {
        let hanging: Vec<_> = (0..60_i64)
            .map(|nth| {
                let message = message_from(&identity(5), Kind::Request, |d| d.stamp = d.stamp.saturating_add(nth));
                let manager = &manager;
                scope.spawn(move || manager.receive(arrived(message, 1)))
            })
            .collect();
        // While they hang, another peer's message is handled, and operators work.
        manager.receive(arrived(message_from(&identity(6), Kind::Request, |_| {}), 1));
        assert!(manager.pending().iter().any(|(peer, entry)| *peer == id(6) && entry.authentic));
        drop(manager.approve(id(6), shown(&manager, id(6))).unwrap());
        assert!(manager.is_trusted(id(6)));
        book.gate.open();
        for thread in hanging {
            thread.join().unwrap();
        }
    });
    // Those whose time is over go on as if nobody vouched for the key.
    let _shut = book.gate.close();
    let (manager, _wire, _ends) = node(Duration::from_millis(50));
    for nth in 0..2 {
        let message = message_from(&identity(5), Kind::Request, |d| d.stamp = d.stamp.saturating_add(nth));
        manager.receive(arrived(message, 1));
    }
    let shown = manager.pending();
    assert!(shown.iter().any(|(peer, entry)| *peer == id(5) && !entry.authentic), "{shown:?}");
    manager.receive(arrived(message_from(&identity(13), Kind::Request, |_| {}), 1));
    assert!(manager.pending().iter().any(|(peer, entry)| *peer == id(13) && !entry.authentic));
    assert!(count(&manager, "look_up_failed") > 1);
    // Once it answers again, it vouches again.
    book.gate.open();
    *book.hangs_about.lock().unwrap() = None;
    let mut later = now().saturating_add(1000);
    eventually("the registry answers", || {
        later = later.saturating_add(1);
        manager.receive(arrived(message_from(&identity(5), Kind::Request, |draft| draft.stamp = later), 1));
        manager.pending().iter().any(|(peer, entry)| *peer == id(5) && entry.authentic)
    });
}

#[test]
fn a_transport_that_panics_loses_that_message_only() {
    let (manager, wire, ends) = alone(|builder| builder);
    *wire.panics_to.lock().unwrap() = Some(id(2));
    for number in [2, 3] {
        manager.receive(arrived(message_from(&identity(number), Kind::Request, |_| {}), 1));
    }
    drop(manager.reject(id(2), "").unwrap());
    eventually("it is counted", || count(&manager, "not_sent") == 1);
    drop(manager.reject(id(3), "").unwrap());
    assert_eq!(ends.next(), (id(2), "handshake_reject".to_owned()));
    assert_eq!(ends.next(), (id(3), "handshake_reject".to_owned()));
    let asked = manager.request(id(2), "", RequestOptions::default());
    assert!(matches!(asked, Err(CommandError::NotSent { .. })), "{asked:?}");
    *wire.panics_to.lock().unwrap() = None;
    drop(manager.request(id(2), "", RequestOptions::default()).unwrap());
    assert_eq!(ends.next().0, id(2), "the one that panicked");
    assert_eq!(ends.next().0, id(2), "the one that did not");
    // Nor is the peer held up, nor the end, by what the transport panicked with.
    manager.receive(arrived(message_from(&identity(2), Kind::Request, |_| {}), 1));
    drop(manager.reject(id(2), "").unwrap());
    assert_eq!(ends.next(), (id(2), "handshake_reject".to_owned()));
    let begun = Instant::now();
    manager.shutdown().unwrap();
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
}

/// Panics when asked for the first time.
struct Startled(std::sync::atomic::AtomicBool);

impl trustkeep::node::Random for Startled {
    fn fill(&self, bytes: &mut [u8]) -> std::io::Result<()> {
        if !self.0.swap(true, std::sync::atomic::Ordering::SeqCst) {
            go_off();
        }
        bytes.fill(7);
        Ok(())
    }
}

#[test]
fn a_panic_over_a_message_loses_that_message_only() {
    let random = Arc::new(Startled(false.into()));
    let (manager, _wire, _ends) = alone(|builder| builder.random(random));
    manager.receive(arrived(message_from(&identity(2), Kind::Request, |_| {}), 1));
    assert_eq!((count(&manager, "panicked"), manager.pending().len()), (1, 0));
    manager.receive(arrived(message_from(&identity(2), Kind::Request, |_| {}), 1));
    assert_eq!((count(&manager, "panicked"), manager.pending().len()), (1, 1));
}

#[test]
fn one_request_to_a_peer_at_a_time() {
    let (manager, wire, ends) = alone(|builder| builder);
    *wire.hangs_to.lock().unwrap() = Some(id(2));
    std::thread::scope(|scope| {
        let _shut = wire.gate.close();
        let first = scope.spawn(|| manager.request(id(2), "", RequestOptions::default()).map(drop));
        assert_eq!(ends.next().0, id(2));
        let second = manager.request(id(2), "", RequestOptions::default());
        assert!(matches!(second, Err(CommandError::AlreadyInFlight)), "{second:?}");
        // Another peer's is no concern of it.
        drop(manager.request(id(3), "", RequestOptions::default()).unwrap());
        wire.gate.open();
        first.join().unwrap().unwrap();
    });
    let nonce = manager.outgoing()[0].1.nonce;
    drop(manager.request(id(2), "", RequestOptions::default()).unwrap());
    assert_ne!(manager.outgoing()[0].1.nonce, nonce, "asking again is a new request");
}

#[test]
fn a_revoked_peer_is_cut_off_in_time_whether_the_farewell_leaves_or_not() {
    let trusting = |number, farewell_max| {
        let mut config = HandshakeConfig::default();
        config.farewell_max = farewell_max;
        let (manager, wire, ends) = alone(|builder| builder.config(config));
        drop(manager.store().grant(TrustRecord::new(id(number), identity(number).public_key())).unwrap());
        (manager, wire, ends)
    };
    let (manager, _wire, ends) = trusting(2, SOON * 10);
    drop(manager.revoke(id(2)).unwrap());
    assert_eq!(ends.next(), (id(2), "handshake_revoke".to_owned()));
    assert_eq!(ends.cut.recv_timeout(SOON), Ok(id(2)), "at once when the farewell has left");

    let (manager, wire, ends) = trusting(3, Duration::from_millis(500));
    *wire.hangs_to.lock().unwrap() = Some(id(3));
    let _shut = wire.gate.close();
    let begun = Instant::now();
    drop(manager.revoke(id(3)).unwrap());
    assert!(!manager.is_trusted(id(3)));
    assert_eq!(ends.next(), (id(3), "handshake_revoke".to_owned()));
    assert_eq!(ends.cut.recv_timeout(SOON), Ok(id(3)));
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(450), "{took:?}");
    wire.gate.open();
    assert_eq!(ends.cut.recv_timeout(A_WHILE), Err(RecvTimeoutError::Timeout), "and only once");
}

#[test]
fn a_request_after_a_revocation_waits_until_the_peer_is_cut_off() {
    let (manager, wire, ends) = alone(|builder| builder);
    drop(manager.store().grant(TrustRecord::new(id(2), identity(2).public_key())).unwrap());
    *wire.hangs_to.lock().unwrap() = Some(id(2));
    let _shut = wire.gate.close();
    drop(manager.revoke(id(2)).unwrap());
    assert_eq!(ends.next(), (id(2), "handshake_revoke".to_owned()));
    *wire.hangs_to.lock().unwrap() = None;
    let lift = manager.store().revocation(id(2)).unwrap().id;
    drop(manager.request(id(2), "", RequestOptions::default().lift(lift)).unwrap());
    assert_eq!(ends.next(), (id(2), "handshake_request".to_owned()));
    assert_eq!(ends.cut.try_recv(), Ok(id(2)), "the request would be cut as well");
    wire.gate.open();
    // Nobody else waits for anything.
    drop(manager.request(id(3), "", RequestOptions::default()).unwrap());
    assert!(ends.cut.recv_timeout(A_WHILE).is_err());
    // A transport that hangs over it delays the request, and does not stop it.
    let _shut = wire.cutting.close();
    drop(manager.revoke(id(2)).unwrap());
    let lift = manager.store().revocation(id(2)).unwrap().id;
    drop(manager.request(id(2), "", RequestOptions::default().lift(lift)).unwrap());
    assert!(ends.cut.try_recv().is_err());
}

#[test]
fn messages_to_one_peer_keep_their_order_and_hold_up_no_other() {
    let (manager, wire, ends) = alone(|builder| builder);
    *wire.hangs_to.lock().unwrap() = Some(id(2));
    let _shut = wire.gate.close();
    for number in [2, 3] {
        manager.receive(arrived(message_from(&identity(number), Kind::Request, |_| {}), 1));
    }
    drop(manager.reject(id(2), "").unwrap());
    assert_eq!(ends.next(), (id(2), "handshake_reject".to_owned()));
    drop(manager.store().grant(TrustRecord::new(id(2), identity(2).public_key())).unwrap());
    drop(manager.revoke(id(2)).unwrap());
    drop(manager.reject(id(3), "").unwrap());
    assert_eq!(ends.next(), (id(3), "handshake_reject".to_owned()), "not held up");
    assert!(ends.sent.recv_timeout(A_WHILE).is_err(), "the farewell waits for the message before it");
    wire.gate.open();
    assert_eq!(ends.next(), (id(2), "handshake_revoke".to_owned()));
}

#[test]
fn an_answer_waits_for_the_disk_and_a_revocation_does_not() {
    let disk = Arc::new(Disk::default());
    let store = Arc::new(TrustStore::options().open_storage(Arc::clone(&disk) as _).unwrap());
    let (manager, _wire, ends) = alone_with(store, |builder| builder);
    let _shut = disk.gate.close();
    for number in [2, 3, 4] {
        manager.receive(arrived(message_from(&identity(number), Kind::Request, |_| {}), 1));
    }
    let approved = manager.approve(id(2), shown(&manager, id(2))).unwrap();
    drop(manager.approve(id(3), shown(&manager, id(3))).unwrap());
    assert!(manager.is_trusted(id(2)) && !approved.is_durable());
    assert!(ends.sent.recv_timeout(A_WHILE).is_err(), "a grant was told before it was durable");
    // What restricts does not wait behind it: neither the farewell nor the cut.
    drop(manager.revoke(id(3)).unwrap());
    assert_eq!(ends.next(), (id(3), "handshake_revoke".to_owned()));
    assert_eq!(ends.cut.recv_timeout(SOON), Ok(id(3)));
    drop(manager.reject(id(4), "").unwrap());
    assert_eq!(ends.next(), (id(4), "handshake_reject".to_owned()));
    disk.gate.open();
    approved.wait_durable().unwrap();
    assert_eq!(ends.next(), (id(2), "handshake_accept".to_owned()));
    // The accept to node 3 was overtaken by its revocation.
    assert!(ends.sent.recv_timeout(A_WHILE).is_err(), "a grant was told after it was taken back");
}

#[test]
fn whoever_prefers_latency_does_not_wait_for_the_disk() {
    let disk = Arc::new(Disk::default());
    let store = Arc::new(TrustStore::options().open_storage(Arc::clone(&disk) as _).unwrap());
    let mut config = HandshakeConfig::default();
    config.durability = Durability::Eventually;
    let (manager, _wire, ends) = alone_with(store, |builder| builder.config(config));
    let _shut = disk.gate.close();
    manager.receive(arrived(message_from(&identity(2), Kind::Request, |_| {}), 1));
    let approved = manager.approve(id(2), shown(&manager, id(2))).unwrap();
    assert_eq!(ends.next(), (id(2), "handshake_accept".to_owned()));
    assert!(!approved.is_durable());
    disk.gate.open();
    approved.wait_durable().unwrap();
}

#[test]
fn stopping_waits_no_longer_than_it_may_and_once_only() {
    let mut config = HandshakeConfig::default();
    config.shutdown_wait = Duration::from_secs(1);
    let book = Arc::new(Book::default());
    let registry = Arc::clone(&book);
    let (manager, wire, ends) = alone(|builder| builder.config(config).registry(registry));
    *wire.hangs_to.lock().unwrap() = Some(id(2));
    let _shut = wire.gate.close();
    let _shut = book.reporting.close();
    for number in [2, 3] {
        manager.receive(arrived(message_from(&identity(number), Kind::Request, |_| {}), 1));
    }
    drop(manager.approve(id(3), shown(&manager, id(3))).unwrap());
    assert_eq!(ends.next().0, id(3));
    drop(manager.reject(id(2), "").unwrap());
    assert_eq!(ends.next().0, id(2));
    let begun = Instant::now();
    manager.shutdown().unwrap();
    let took = begun.elapsed();
    assert!((Duration::from_millis(950)..SOON).contains(&took), "{took:?}");
    // The registry still hangs. So many calls that waited for a second each would take far longer than a hang.
    let begun = Instant::now();
    for _ in 0..200 {
        manager.shutdown().unwrap();
        assert!(begun.elapsed() < SOON, "waited again");
    }
    assert!(matches!(manager.reject(id(2), ""), Err(CommandError::Stopped)));
    book.reporting.open();
}

#[test]
fn stopping_finishes_what_can_be_finished() {
    let (manager, wire, ends) = alone(|builder| builder);
    *wire.hangs_to.lock().unwrap() = Some(id(2));
    let _shut = wire.gate.close();
    manager.receive(arrived(message_from(&identity(2), Kind::Request, |_| {}), 1));
    drop(manager.reject(id(2), "").unwrap());
    assert_eq!(ends.next().0, id(2));
    manager.receive(arrived(message_from(&identity(2), Kind::Request, |d| d.stamp = d.stamp.saturating_add(9)), 1));
    drop(manager.reject(id(2), "").unwrap());
    std::thread::scope(|scope| {
        let stopping = scope.spawn(|| manager.shutdown());
        wire.gate.open();
        assert_eq!(ends.next(), (id(2), "handshake_reject".to_owned()), "the second was queued before the stop");
        stopping.join().unwrap().unwrap();
    });
}

#[test]
fn housekeeping_runs_by_itself() {
    let mut config = HandshakeConfig::default();
    config.housekeeping_every = Duration::from_millis(20);
    config.entry_lifetime = Duration::from_millis(1);
    let (manager, _wire, _ends) = alone(|builder| builder.config(config));
    drop(manager.request(id(2), "", RequestOptions::default()).unwrap());
    eventually("the entry expires", || manager.outgoing().is_empty());
}

#[test]
fn a_registry_that_hangs_or_panics_over_a_report_holds_up_no_message() {
    let book = Arc::new(Book::default());
    let registry = Arc::clone(&book);
    let (manager, _wire, ends) = alone(|builder| builder.registry(registry));
    let _shut = book.reporting.close();
    for number in [2, 3] {
        manager.receive(arrived(message_from(&identity(number), Kind::Request, |_| {}), 1));
    }
    drop(manager.approve(id(2), shown(&manager, id(2))).unwrap());
    assert_eq!(ends.next(), (id(2), "handshake_accept".to_owned()));
    drop(manager.approve(id(3), shown(&manager, id(3))).unwrap());
    assert_eq!(ends.next(), (id(3), "handshake_accept".to_owned()));
    // Whoever reports late reports what lasts: node 2 was trusted for a while, and the registry need not know.
    let events = manager.subscribe();
    drop(manager.revoke(id(2)).unwrap());
    assert!(events.recv_timeout(SOON).is_some());
    book.reporting.open();
    let told = |report| book.reports.lock().unwrap().contains(&report);
    eventually("the loss is reported", || told((id(2), false)) && told((id(3), true)));
    assert_eq!(book.reports.lock().unwrap().iter().rfind(|(peer, _)| *peer == id(2)), Some(&(id(2), false)));
    *book.panics_about.lock().unwrap() = Some(id(3));
    drop(manager.revoke(id(3)).unwrap());
    eventually("the panic is counted", || count(&manager, "not_reported") == 1);
}

#[test]
fn a_dropped_manager_leaves_the_store_open() {
    let store = Arc::new(TrustStore::in_memory());
    let (manager, wire, _ends) = alone_with(Arc::clone(&store), |builder| builder);
    drop(manager);
    assert!(*wire.stopped.lock().unwrap(), "nobody is there to receive for");
    drop(store.grant(TrustRecord::new(id(2), None)).unwrap());
    eventually("its threads let go of the transport", || Arc::strong_count(&wire) == 1);
    // A store that was shut down with its node takes nothing more.
    let (manager, _wire, _ends) = alone_with(Arc::clone(&store), |builder| builder);
    manager.shutdown().unwrap();
    assert!(store.grant(TrustRecord::new(id(3), None)).is_err());
}
