//! A node whose key was replaced tells its trusted peers by itself: each once, at a bounded pace, also over a restart, and not
//! where an operator has switched it off.
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

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use common::*;
use trustkeep::config::{HandshakeConfig, Limits};
use trustkeep::node::{Builder, FileIdentity, HandshakeManager, Identity, RequestOptions, SystemRandom};
use trustkeep::{TrustRecord, TrustStore};

/// Node 1, whose key was replaced.
fn renewed() -> Arc<FileIdentity> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("identity.key");
    FileIdentity::create(&path, id(1), &SystemRandom).unwrap();
    Arc::new(FileIdentity::rekey(&path, now(), &SystemRandom).unwrap())
}

/// A store that trusts the peers from 2 to this one.
fn friends(last: u32, limits: Limits) -> Arc<TrustStore> {
    let store = TrustStore::options().limits(limits).in_memory().unwrap();
    let key = identity(9).public_key();
    let all = store.update(|batch| (2..=last).for_each(|peer| batch.grant(TrustRecord::new(id(peer), key)).unwrap()));
    drop(all.unwrap());
    Arc::new(store)
}

/// A life of the node; `cut_off` says that there is no way to anybody.
fn life(
    store: &Arc<TrustStore>,
    own: Arc<dyn Identity>,
    cut_off: bool,
    change: impl FnOnce(Builder) -> Builder,
) -> (HandshakeManager, WireEnds) {
    let (wire, ends) = Wire::new();
    *wire.cut_off.lock().unwrap() = cut_off;
    let builder = HandshakeManager::builder(Arc::clone(store), own, wire);
    (change(builder).start().unwrap(), ends)
}

fn so_far(manager: &HandshakeManager) -> (u64, u64) {
    manager.announcement().map(|it| (it.told, it.owed)).expect("it announces nothing")
}

/// To whom messages went, each of which was a request with the old key's statement.
fn told(ends: &WireEnds) -> Vec<u32> {
    let sent = ends.sent.try_iter().map(|(to, bytes)| {
        let message: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!((&message["type"], message["rotation"].is_object()), (&"handshake_request".into(), true));
        to.get()
    });
    sent.collect()
}

#[test]
fn trusted_peers_are_told_of_a_new_key_each_once_and_a_restart_tells_nobody_again() {
    let (store, own) = (friends(40, Limits::default()), renewed());
    let (manager, ends) = life(&store, Arc::clone(&own) as _, false, |builder| builder);
    eventually("all are told", || so_far(&manager) == (39, 0));
    let mut peers = told(&ends);
    peers.sort_unstable();
    assert_eq!(peers, (2..=40).collect::<Vec<_>>(), "each once");
    // Their operators decide some day. Until then the requests are open, and tried again like any other.
    assert_eq!(manager.outgoing().len(), 39);
    for peer in 2..=40 {
        drop(manager.cancel(id(peer)).unwrap());
    }
    drop(store.grant(TrustRecord::new(id(41), None)).unwrap());
    drop(manager);
    let (manager, ends) = life(&store, Arc::clone(&own) as _, false, |builder| builder);
    eventually("the new one is told, too", || so_far(&manager) == (40, 0));
    assert_eq!(told(&ends), [41]);
    drop(manager.cancel(id(41)).unwrap());
    drop(manager);
    // The next key is told to all again.
    let (manager, _ends) = life(&store, renewed(), false, |builder| builder);
    eventually("all are told", || so_far(&manager) == (40, 0));
    assert_eq!(manager.outgoing().len(), 40);
}

#[test]
fn who_cannot_be_reached_is_owed_it_over_a_restart() {
    let (store, own) = (friends(12, Limits::default()), renewed());
    let (manager, _ends) = life(&store, Arc::clone(&own) as _, true, |builder| builder);
    eventually("all are asked in vain", || {
        let asked = manager.outgoing();
        asked.len() == 11 && asked.iter().all(|(peer, it)| manager.tries_of_request(*peer, it).tries > 0)
    });
    assert_eq!(so_far(&manager), (0, 11));
    drop(manager);
    let (manager, ends) = life(&store, own, false, |builder| builder);
    eventually("all are told", || so_far(&manager) == (11, 0));
    assert_eq!(told(&ends).into_iter().collect::<BTreeSet<_>>(), (2..=12).collect());
}

#[test]
fn many_peers_are_told_in_little_room_and_no_request_of_an_operator_gives_way() {
    let mut limits = Limits::default();
    limits.outgoing_max = 8;
    let store = friends(60, limits);
    let (manager, ends) = life(&store, renewed(), false, |builder| builder);
    drop(manager.request(id(100), "", RequestOptions::default()).unwrap());
    let mut most = 0;
    eventually("all are told", || {
        most = most.max(manager.outgoing().len());
        // The operator's request counts as well if the announcement began behind it.
        matches!(so_far(&manager), (59 | 60, 0))
    });
    assert!(most <= 5, "{most}");
    assert!(manager.outgoing().iter().any(|(peer, _)| *peer == id(100)));
    let told: BTreeSet<_> = told(&ends).into_iter().collect();
    assert_eq!(told, (2..=60).chain([100]).collect());
}

#[test]
fn nothing_is_told_where_it_is_switched_off_or_no_key_was_replaced() {
    let store = friends(5, Limits::default());
    let mut config = HandshakeConfig::default();
    config.announce_rotation = false;
    for own in [renewed(), Arc::new(identity(1))] {
        let is_new = own.rotation().is_some();
        let (manager, ends) = life(&store, own, false, |builder| if is_new { builder.config(config) } else { builder });
        assert_eq!(manager.announcement(), None);
        assert!(ends.sent.recv_timeout(A_WHILE).is_err());
    }
}

#[test]
fn no_announcement_gives_way_that_has_not_left() {
    let mut limits = Limits::default();
    limits.outgoing_max = 8;
    let (manager, _ends) = life(&friends(20, limits), renewed(), true, |builder| builder);
    let asked = || manager.outgoing().into_iter().map(|(peer, it)| (peer, it.nonce)).collect::<Vec<_>>();
    eventually("four are tried in vain", || {
        let asked = manager.outgoing();
        asked.len() == 4 && asked.iter().all(|(peer, it)| manager.tries_of_request(*peer, it).tries > 0)
    });
    let before = asked();
    // As long as several more would take.
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!((asked(), so_far(&manager)), (before, (0, 19)));
}
