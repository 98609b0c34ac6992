//! A manager with a policy, a relay, a peer of version 1 and a registry that knows keys: what the rules decide reaches the
//! store, the wire and the subscribers.
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
use std::time::Duration;

use common::*;
use trustkeep::config::{Allowed, HandshakeConfig, Policy};
use trustkeep::machine::event::{AutoReason, ChangeReason, Event, TrustState};
use trustkeep::machine::rejection::Rejection;
use trustkeep::machine::view::Source;
use trustkeep::node::{CommandError, FileIdentity, Identity as _, Received, Registry, RegistryEntry};
use trustkeep::wire::message::Kind;
use trustkeep::{TrustRecord, TrustStore};

#[test]
fn a_policy_trusts_who_asks_and_tells_why() {
    let two = identity(2);
    let policy = Policy::default().allow(Allowed::new(id(2), two.public_key()).label("gate"));
    let (manager, _wire, ends) = alone(|builder| builder.policy(policy));
    let events = manager.subscribe();
    manager.receive(arrived(message_from(&identity(3), Kind::Request, |_| {}), 1));
    assert!(!manager.is_trusted(id(3)));
    manager.receive(arrived(message_from(&two, Kind::Request, |_| {}), 1));
    assert!(manager.is_trusted_with_key(id(2), &two.public_key()));
    let label = Some("gate".to_owned());
    let told = Event::AutoApproved { peer: id(2), reason: AutoReason::AllowListed, label };
    assert!(std::iter::from_fn(|| events.try_recv()).any(|event| event == told));
    assert_eq!(ends.next(), (id(2), "handshake_accept".to_owned()));
}

#[test]
fn the_registry_says_which_network_we_share() {
    let (book, two) = (Arc::new(Book::default()), identity(2));
    book.put_entry(id(2), RegistryEntry::new(two.public_key()).network(7).network(5));
    let policy = Policy::default().own_networks([5, 7]);
    let (manager, ..) = alone(|builder| builder.registry(Arc::clone(&book) as Arc<dyn Registry>).policy(policy));
    manager.receive(arrived(message_from(&two, Kind::Request, |_| {}), 1));
    assert_eq!(manager.trusted()[0].network, 5);
}

#[test]
fn a_relayed_message_may_be_old_and_is_charged_to_who_handed_it_in() {
    let (manager, ..) = alone(|builder| builder);
    let old = |number| {
        message_from(&identity(number), Kind::Request, |draft| draft.stamp = now().saturating_add(-86_400_000))
    };
    manager.receive(arrived(old(2), 1));
    assert_eq!((manager.pending().len(), count(&manager, "too_old")), (0, 1));
    manager.receive(Received::relayed(old(2), id(50)));
    let pending = manager.pending();
    assert_eq!((pending[0].1.source, pending[0].1.authentic), (Source::Relay(id(50)), false));
    manager.receive(Received::relayed(message_from(&identity(2), Kind::Revoke, |_| {}), id(50)));
    assert_eq!(count(&manager, "not_relayable"), 1);
}

#[test]
fn a_peer_of_version_1_is_answered_over_an_authenticated_connection_or_not_at_all() {
    for authenticates in [true, false] {
        let policy = Policy::default().accept_v1(true).auto_approve(true);
        let (manager, wire, ends) = alone(|builder| builder.policy(policy));
        *wire.authenticates.lock().unwrap() = authenticates;
        let request = || message_v1_from(&identity(2), Kind::Request);
        manager.receive(Received::authenticated(request(), id(2)));
        assert!(manager.is_trusted(id(2)));
        if authenticates {
            let (to, bytes) = ends.sent.recv_timeout(SOON).unwrap();
            let answer: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
            assert_eq!((to, kind_of(&bytes).as_str()), (id(2), "handshake_accept"));
            assert!(answer.get("v").is_none() && answer["signature"] != "", "{answer}");
        } else {
            eventually("an answer that cannot be sent is counted", || count(&manager, "not_sent") == 1);
            assert!(ends.sent.try_recv().is_err());
        }
        manager.receive(Received::authenticated(request(), id(2)));
        assert_eq!(count(&manager, "replayed"), 1, "a copy");
        // There is no other way to tell it, so nobody is owed it.
        let _ = manager.shutdown();
        assert_eq!(manager.owed(), []);
    }
    let (manager, ..) = alone(|builder| builder);
    manager.receive(Received::authenticated(message_v1_from(&identity(2), Kind::Request), id(2)));
    assert_eq!((count(&manager, "version_1"), manager.pending().len()), (1, 0));
}

#[test]
fn trust_without_a_key_gets_the_one_that_the_registry_knows() {
    let (book, two) = (Arc::new(Book::default()), identity(2));
    book.put(id(2), Some(two.public_key()), any_port());
    let (manager, ..) = alone(|builder| builder.registry(Arc::clone(&book) as Arc<dyn Registry>));
    let _ = manager.grant(TrustRecord::new(id(2), None)).unwrap();
    assert!(manager.is_trusted(id(2)), "whatever the registry does");
    eventually("the key is filled in", || manager.is_trusted_with_key(id(2), &two.public_key()));
    // Of a stranger nothing is made; and another key ends trust.
    book.put(id(3), Some(two.public_key()), any_port());
    assert!(matches!(manager.back_fill(id(3)), Err(CommandError::Refused(Rejection::NothingToDo))));
    assert!(matches!(manager.back_fill(id(2)), Err(CommandError::Refused(Rejection::NothingToDo))));
    book.put(id(2), Some(identity(99).public_key()), any_port());
    let _ = manager.back_fill(id(2)).unwrap();
    assert!(!manager.is_trusted(id(2)) && !manager.is_trusted(id(3)));
}

#[test]
fn what_a_transport_reports_of_keys_binds_and_ends_trust() {
    let (manager, ..) = alone(|builder| builder);
    let (key, other) = (identity(2).public_key(), identity(99).public_key());
    assert!(matches!(manager.adopt_key(id(2), &key), Err(CommandError::Refused(Rejection::NothingToDo))));
    let _ = manager.grant(TrustRecord::new(id(2), None)).unwrap();
    let _ = manager.adopt_key(id(2), &key).unwrap();
    assert!(manager.is_trusted_with_key(id(2), &key));
    assert!(matches!(manager.adopt_key(id(2), &other), Err(CommandError::Refused(Rejection::OtherKeyBound))));
    assert!(matches!(manager.report_key_change(id(2), &key), Err(CommandError::Refused(Rejection::NothingToDo))));
    let _ = manager.report_key_change(id(2), &other).unwrap();
    assert!(!manager.wait_for_trust(id(2), Duration::ZERO));
}

#[test]
fn a_node_that_finds_itself_in_its_store_drops_that_loudly_and_starts() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Arc::new(TrustStore::open(dir.path()).unwrap());
    let store = open();
    let (own, other) = (TrustRecord::new(id(1), identity(1).public_key()), TrustRecord::new(id(2), None));
    drop(store.grant(other).unwrap());
    drop(store.grant(own).unwrap());
    store.close().unwrap();
    drop(store);

    let store = open();
    let subscription = store.subscribe();
    let (heard, hears) = std::sync::mpsc::channel();
    let heard = std::sync::Mutex::new(heard);
    let sink = Arc::new(move |event: Event| drop(heard.lock().unwrap().send(event)));
    let (manager, ..) = alone_with(Arc::clone(&store), |builder| builder.event_sink(sink));
    let (state, reason) = (TrustState::Revoked, ChangeReason::OwnEntry);
    let told = Event::TrustChanged { peer: id(1), state, reason };
    let events: Vec<_> = std::iter::from_fn(|| subscription.try_recv()).collect();
    assert_eq!(events, std::slice::from_ref(&told));
    assert_eq!(hears.recv_timeout(SOON).unwrap(), told);
    assert_eq!((manager.trusted(), count(&manager, "own_entry")), (vec![other], 1));
    let refused = manager.revoke(id(1)).unwrap_err();
    assert!(matches!(refused, CommandError::Refused(Rejection::PeerIsUs)), "{refused}");
    assert!(refused.to_string().contains("goes when the node starts"), "{refused}");
    manager.shutdown().unwrap();
    drop((manager, store, subscription));

    // It is gone for good; and the twin: a store without it is not changed by a start.
    let store = open();
    assert!(!store.is_trusted(id(1)) && store.is_trusted(id(2)));
    let before = store.generation();
    let (manager, ..) = alone_with(Arc::clone(&store), |builder| builder);
    assert_eq!((store.generation(), count(&manager, "own_entry")), (before, 0));
    manager.shutdown().unwrap();
}

#[test]
fn a_node_that_is_made_its_own_peer_while_it_runs_undoes_that() {
    let mut config = HandshakeConfig::default();
    config.housekeeping_every = Duration::from_millis(10);
    let (manager, ..) = alone(|builder| builder.config(config));
    drop(manager.store().grant(TrustRecord::new(id(2), None)).unwrap());
    drop(manager.store().grant(TrustRecord::new(id(1), None)).unwrap());
    eventually("not trusted", || !manager.is_trusted(id(1)));
    drop(manager.store().revoke(id(1)).unwrap());
    eventually("no mark", || manager.revoked().is_empty());
    assert!(manager.is_trusted(id(2)));
}

#[test]
fn no_command_takes_the_nodes_own_key_for_a_peers() {
    let (manager, ..) = alone(|builder| builder);
    let (own, other) = (manager.public_key(), identity(2).public_key());
    let is_refused = |error: CommandError| {
        let is = matches!(error, CommandError::Refused(Rejection::KeyIsOurs));
        is && error.to_string().contains("this node's own")
    };
    assert!(is_refused(manager.grant(TrustRecord::new(id(2), own)).unwrap_err()));
    let lift = manager.revoke(id(9)).unwrap();
    drop(lift);
    let mark = manager.revoked()[0].1.id;
    assert!(is_refused(manager.grant_lifting(TrustRecord::new(id(9), own), mark).unwrap_err()));
    drop(manager.grant(TrustRecord::new(id(3), None)).unwrap());
    assert!(is_refused(manager.adopt_key(id(3), &own).unwrap_err()));
    // A copy of this node that calls itself otherwise.
    let copy = FileIdentity::from_seed(id(4), &[1; 32]).unwrap();
    assert_eq!(copy.public_key(), own);
    manager.receive(arrived(message_from(&copy, Kind::Request, |_| {}), 1));
    assert!(is_refused(manager.approve(id(4), Some(own.fingerprint())).unwrap_err()));
    assert!(is_refused(manager.approve(id(4), None).unwrap_err()));
    assert_eq!(manager.store().find_by_key(&own), []);
    // Its twin: another's key is taken, by each of them.
    drop(manager.grant(TrustRecord::new(id(2), other)).unwrap());
    drop(manager.grant_lifting(TrustRecord::new(id(9), other), mark).unwrap());
    drop(manager.adopt_key(id(3), &other).unwrap());
    assert_eq!(manager.store().find_by_key(&other), [id(2), id(3), id(9)]);
}
