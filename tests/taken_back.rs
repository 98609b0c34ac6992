//! A peer that takes its word back and asks again, over and over: what is saved when, and what it is told when.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    missing_docs,
    reason = "tests say what must hold by panicking, and stand outside the fences of the library"
)]

mod common;

use std::sync::{Arc, Mutex};

use base64::Engine as _;
use common::{
    A_WHILE, Book, Disk, SOON, Wire, WireEnds, alone_with, arrived, eventually, id, identity, message_from, now,
};
use trustkeep::clock::Clock;
use trustkeep::config::Policy;
use trustkeep::machine::view::Nonce;
use trustkeep::node::{Identity as _, RegistryEntry};
use trustkeep::time::{Now, Tick};
use trustkeep::wire::message::Kind;
use trustkeep::{HandshakeManager, TrustRecord, TrustStore, WallMillis};

/// A clock that goes when it is told to: without that no alarm of the keeper is ever due.
#[derive(Debug)]
struct Wound(WallMillis, Mutex<i64>);

impl Wound {
    fn wind(&self, millis: i64) {
        *self.1.lock().unwrap() += millis;
    }
}

impl Clock for Wound {
    fn now(&self) -> Now {
        let millis = *self.1.lock().unwrap();
        Now { wall: self.0.saturating_add(millis), tick: Tick::new(millis) }
    }
}

/// Node 1, which trusts whoever is in network 3: node 9 is.
struct Alone {
    manager: HandshakeManager,
    clock: Arc<Wound>,
    disk: Arc<Disk>,
    ends: WireEnds,
    _wire: Arc<Wire>,
    said: std::cell::Cell<u8>,
}

fn alone(policy: Policy) -> Alone {
    let (clock, disk, book) = (Arc::new(Wound(now(), Mutex::new(0))), Arc::new(Disk::default()), Book::default());
    book.put_entry(id(9), RegistryEntry::new(identity(9).public_key()).network(3));
    let store = TrustStore::options().clock(Arc::clone(&clock) as _).open_storage(Arc::clone(&disk) as _).unwrap();
    let (manager, wire, ends) = alone_with(Arc::new(store), |builder| builder.registry(Arc::new(book)).policy(policy));
    Alone { manager, clock, disk, ends, _wire: wire, said: std::cell::Cell::new(0) }
}

impl Alone {
    /// Node 9 says something that it never said before.
    fn hears(&self, kind: Kind) {
        let nth = self.said.get() + 1;
        self.said.set(nth);
        let message = message_from(&identity(9), kind, |draft| {
            draft.nonce = Nonce([nth; 16]);
            draft.stamp = self.clock.now().wall.saturating_add(i64::from(nth));
        });
        self.manager.receive(arrived(message, 9));
    }

    fn is_trusted(&self) -> bool {
        self.manager.is_trusted(id(9))
    }

    /// Whether a crash at this moment would leave node 9 trusted.
    fn is_trusted_after_a_crash(&self) -> bool {
        self.disk.crashed_store().is_some_and(|store| store.is_trusted(id(9)))
    }

    fn all_is_saved(&self) -> bool {
        self.manager.store().durable_generation() == self.manager.store().generation()
    }

    /// The keeper may see only now what its alarm is for.
    fn is_saved_a_second_later(&self) -> bool {
        self.clock.wind(1000);
        std::thread::sleep(A_WHILE);
        self.all_is_saved()
    }

    /// The accept that answers the newest request leaves; others may do so before.
    fn accept_comes(&self) {
        let newest = base64::engine::general_purpose::STANDARD.encode([self.said.get(); 16]);
        loop {
            let (to, bytes) = self.ends.sent.recv_timeout(SOON).expect("no accept leaves");
            let message: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
            assert_eq!((to, message["type"].as_str()), (id(9), Some("handshake_accept")));
            if message["answers"] == newest.as_str() {
                return;
            }
        }
    }
}

#[test]
fn who_takes_trust_back_and_asks_again_is_saved_once_a_second_and_told_when_it_is() {
    let alone = alone(Policy::default().own_networks([3]));
    let store = alone.manager.store();
    // The twin: once up and once down are saved at once, and told at once, though no second ever passes.
    alone.hears(Kind::Request);
    assert!(alone.is_trusted());
    alone.accept_comes();
    assert!(alone.is_trusted_after_a_crash());
    alone.hears(Kind::Revoke);
    eventually("the end is saved", || alone.all_is_saved());
    assert!(!alone.is_trusted() && !alone.is_trusted_after_a_crash());

    let (saved, before) = (store.durable_generation(), store.generation().get());
    for _ in 0..50 {
        alone.hears(Kind::Request);
        assert!(alone.is_trusted(), "trust itself waits for nothing");
        alone.hears(Kind::Revoke);
        assert!(!alone.is_trusted());
    }
    alone.hears(Kind::Request);
    assert!(alone.is_trusted());
    std::thread::sleep(A_WHILE);
    assert!(store.generation().get() > before + 100);
    assert_eq!(store.durable_generation(), saved, "not one save");
    assert!(!alone.is_trusted_after_a_crash());
    assert!(alone.ends.sent.try_recv().is_err(), "nothing is told that could be lost");

    // A second later all of it is saved, and the answer comes.
    eventually("the alarm saves it", || alone.is_saved_a_second_later());
    alone.accept_comes();
    assert!(alone.is_trusted_after_a_crash());
    // What is on the disk now is taken back at once.
    alone.hears(Kind::Revoke);
    assert!(!alone.is_trusted());
    eventually("the end is saved", || alone.all_is_saved());
    assert!(!alone.is_trusted_after_a_crash());
    // Who asks again later is no longer one of these.
    alone.clock.wind(1000);
    alone.hears(Kind::Request);
    alone.accept_comes();
    assert!(alone.is_trusted_after_a_crash());
}

#[test]
fn what_is_taken_back_while_it_is_being_saved_is_saved_directly_after() {
    let alone = alone(Policy::default().own_networks([3]));
    for kind in [Kind::Request, Kind::Revoke] {
        alone.hears(kind);
        eventually("it is saved", || alone.all_is_saved());
    }
    alone.hears(Kind::Request);
    let shut = alone.disk.gate.close();
    // An operator's own change takes along what was put off.
    drop(alone.manager.store().grant(TrustRecord::new(id(10), None)).unwrap());
    eventually("it is being saved", || alone.disk.gate.waiting() > 0);
    alone.hears(Kind::Revoke);
    assert!(!alone.is_trusted());
    drop(shut);
    eventually("the end is saved", || alone.all_is_saved());
    assert!(!alone.is_trusted_after_a_crash());
}

#[test]
fn a_change_of_an_operators_own_takes_along_what_was_put_off() {
    let alone = alone(Policy::default().own_networks([3]));
    for kind in [Kind::Request, Kind::Revoke, Kind::Request] {
        alone.hears(kind);
    }
    assert!(alone.is_trusted());
    let revoked = alone.manager.revoke(id(9)).unwrap();
    drop(revoked);
    eventually("the revocation is saved", || alone.all_is_saved());
    assert!(!alone.is_trusted_after_a_crash() && alone.disk.crashed_store().unwrap().is_revoked(id(9)));
}

#[test]
fn who_waits_and_takes_that_back_over_and_over_is_saved_once_a_second() {
    let alone = alone(Policy::default());
    let store = alone.manager.store();
    alone.hears(Kind::Request);
    eventually("a new entry is saved", || alone.all_is_saved());
    alone.hears(Kind::Revoke);
    eventually("the end is saved", || alone.all_is_saved());
    let saved = store.durable_generation();
    for _ in 0..50 {
        alone.hears(Kind::Request);
        assert_eq!(alone.manager.pending().len(), 1);
        alone.hears(Kind::Revoke);
        assert!(alone.manager.pending().is_empty());
    }
    std::thread::sleep(A_WHILE);
    assert_eq!(store.durable_generation(), saved, "not one save");
    eventually("the alarm saves it", || alone.is_saved_a_second_later());
}
