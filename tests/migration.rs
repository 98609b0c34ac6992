//! A node that is started on what `export` wrote and `import` read goes on as the old one would have: what was void, replaced,
//! refused or owed there is so here. Each must-not has its twin: the same document without the list that says so.
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
mod runs;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::*;
use runs::{Run, done, run_with, text};
use serde_json::Value;
use trustkeep::config::{OnRotation, Policy};
use trustkeep::node::{
    Builder, FileIdentity, HandshakeManager, Identity, Registry, RegistryEntry, RegistryError, Revision, SystemRandom,
};
use trustkeep::wire::message::{Kind, Message};
use trustkeep::{PublicKey, TrustRecord, TrustStore};

/// The homes of the old node and of those that follow it.
struct Homes(tempfile::TempDir);

impl Homes {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn old(&self) -> PathBuf {
        self.0.path().join("old")
    }

    /// A new store with what the old one exported, but for these lists, each of which was there.
    fn migrated(&self, but: &[&str], flags: &[&str]) -> PathBuf {
        let exported = done(&[&["export", "--dir", text(&self.old())], flags].concat());
        let mut document: Value = serde_json::from_str(&exported).unwrap();
        for list in but {
            assert!(document.as_object_mut().unwrap().remove(*list).is_some(), "{list}: {exported}");
        }
        let dir = self.0.path().join(format!("new{}{}", but.concat(), flags.concat()));
        let Run { code, err, .. } = run_with(&["import", "--strict", "--dir", text(&dir), "-"], &document.to_string());
        assert_eq!(code, 0, "{err}");
        dir
    }
}

/// A life of node 1 on this store.
fn life(dir: &Path, change: impl FnOnce(Builder) -> Builder) -> (HandshakeManager, Arc<Wire>, WireEnds) {
    alone_with(Arc::new(TrustStore::open(dir).unwrap()), change)
}

/// A life that begins with no way to anybody.
fn cut_off_life(dir: &Path) -> (HandshakeManager, Arc<Wire>, WireEnds) {
    let (manager, wire, ends) = life(dir, |builder| builder);
    *wire.cut_off.lock().unwrap() = true;
    (manager, wire, ends)
}

/// Node 2 before and after its key was replaced; the new one has the old one's statement.
fn renewed() -> (FileIdentity, FileIdentity) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("identity.key");
    let old = FileIdentity::create(&path, id(2), &SystemRandom).unwrap();
    (old, FileIdentity::rekey(&path, now(), &SystemRandom).unwrap())
}

/// A request of this identity, with the statement of its old key if it has one, so many milliseconds from now.
fn request(from: &FileIdentity, ahead: i64) -> Vec<u8> {
    let bytes = message_from(from, Kind::Request, |draft| draft.stamp = now().saturating_add(ahead));
    Message::parse(&bytes).unwrap().carrying(from.rotation().as_ref()).to_json()
}

/// A registry of which every answer is at hand.
#[derive(Debug)]
struct AtHand(RegistryEntry);

impl Registry for AtHand {
    fn look_up(&self, _: trustkeep::NodeId) -> Result<Option<RegistryEntry>, RegistryError> {
        Ok(Some(self.0.clone()))
    }
    fn may_block(&self) -> bool {
        false
    }
}

/// Trusts whom the registry names, which knows everybody under this key.
fn in_network_three(builder: Builder, key: PublicKey, revision: u64) -> Builder {
    let entry = RegistryEntry::new(key).network(3).revision(Revision(revision));
    builder.registry(Arc::new(AtHand(entry))).policy(Policy::default().own_networks([3]))
}

/// The old node: it trusts node 2 under its first key, and has approved the second one, which that has named.
fn approved_the_second(dir: &Path, first: &FileIdentity, second: &FileIdentity) -> HandshakeManager {
    let store = TrustStore::open(dir).unwrap();
    drop(store.grant(TrustRecord::new(id(2), first.public_key())).unwrap());
    let (manager, _, _) = alone_with(Arc::new(store), |builder| builder);
    manager.receive(arrived(request(second, 0), 2));
    assert_eq!(manager.pending()[0].1.proven_by, Some(first.public_key()));
    drop(manager.approve(id(2), Some(second.public_key().fingerprint())).unwrap());
    assert!(manager.is_trusted_with_key(id(2), &second.public_key()));
    manager
}

#[test]
fn a_void_statement_is_void_after_a_migration() {
    let (homes, (owner, thief)) = (Homes::new(), renewed());
    {
        let manager = approved_the_second(&homes.old(), &owner, &thief);
        drop(manager.revoke(id(2)).unwrap());
        // The operator lets the owner in again. That the thief's statement is void stays.
        drop(manager.forget_revocation(id(2)).unwrap());
        drop(manager.grant(TrustRecord::new(id(2), owner.public_key())).unwrap());
        manager.shutdown().unwrap();
    }
    for (but, is_taken) in [(&[][..], false), (&["successors"], true)] {
        let take = Policy::default().on_rotation(OnRotation::Take);
        let (manager, _wire, _ends) = life(&homes.migrated(but, &[]), |builder| builder.policy(take));
        manager.receive(arrived(request(&thief, 1000), 2));
        assert_eq!(manager.is_trusted_with_key(id(2), &thief.public_key()), is_taken, "{but:?}");
        assert_eq!(manager.is_trusted_with_key(id(2), &owner.public_key()), !is_taken, "{but:?}");
        assert_eq!(shown(&manager, id(2)), (!is_taken).then(|| thief.public_key().fingerprint()), "it is asked about");
    }
}

#[test]
fn a_replaced_key_is_not_heard_after_a_migration() {
    // While its successor is trusted, and once nobody is.
    for ends in [false, true] {
        let (homes, (first, second)) = (Homes::new(), renewed());
        {
            let manager = approved_the_second(&homes.old(), &first, &second);
            if ends {
                drop(manager.store().remove(id(2)).unwrap());
            }
            manager.shutdown().unwrap();
        }
        for (but, is_heard) in [(&[][..], false), (&["successors"], true)] {
            // The registry lags.
            let change = |builder| in_network_three(builder, first.public_key(), 1);
            let (manager, _wire, _ends) = life(&homes.migrated(but, &[]), change);
            manager.receive(arrived(request(&first, 1000), 2));
            assert_eq!(manager.is_trusted_with_key(id(2), &first.public_key()), is_heard, "{ends} {but:?}");
            assert_eq!(manager.is_trusted_with_key(id(2), &second.public_key()), !is_heard && !ends, "{ends} {but:?}");
        }
    }
}

#[test]
fn a_refused_request_stays_refused_after_a_migration() {
    let (homes, peer) = (Homes::new(), identity(2));
    let refused = request(&peer, 0);
    {
        let (manager, _wire, _ends) = life(&homes.old(), |builder| builder);
        manager.receive(arrived(refused.clone(), 2));
        drop(manager.reject(id(2), "not now").unwrap());
        assert!(manager.pending().is_empty());
        manager.shutdown().unwrap();
    }
    for (but, waits) in [(&[][..], false), (&["refused"], true)] {
        let (manager, _wire, _ends) = life(&homes.migrated(but, &[]), |builder| builder);
        manager.receive(arrived(refused.clone(), 2));
        assert_eq!((!manager.pending().is_empty(), count(&manager, "already_refused")), (waits, u64::from(!waits)));
        // News is heard either way.
        manager.receive(arrived(request(&peer, 1000), 2));
        assert_eq!(shown(&manager, id(2)), Some(peer.public_key().fingerprint()));
    }
}

#[test]
fn a_farewell_is_owed_still_after_a_migration() {
    let homes = Homes::new();
    {
        let (manager, _wire, _ends) = cut_off_life(&homes.old());
        drop(manager.store().grant(TrustRecord::new(id(2), identity(2).public_key())).unwrap());
        drop(manager.revoke(id(2)).unwrap());
        eventually("the farewell is owed", || !manager.owed().is_empty());
        manager.shutdown().unwrap();
    }
    let (manager, _wire, ends) = life(&homes.migrated(&[], &[]), |builder| builder);
    assert_eq!(ends.next(), (id(2), "handshake_revoke".to_owned()));
    eventually("it is told", || manager.owed().is_empty());
    // The twin.
    let (manager, _wire, ends) = life(&homes.migrated(&["owed"], &[]), |builder| builder);
    assert!(ends.sent.recv_timeout(A_WHILE).is_err() && manager.owed().is_empty());
}

#[test]
fn a_refusal_that_is_owed_answers_its_request_after_a_migration_with_nonces() {
    let (homes, peer) = (Homes::new(), identity(2));
    let asked = request(&peer, 0);
    {
        let (manager, _wire, _ends) = cut_off_life(&homes.old());
        manager.receive(arrived(asked.clone(), 2));
        drop(manager.reject(id(2), "not now").unwrap());
        eventually("the refusal is owed", || !manager.owed().is_empty());
        manager.shutdown().unwrap();
    }
    // Without nonces it is told as well, and means nothing to the peer.
    for (flags, is_answer) in [(&["--with-nonces"][..], true), (&[], false)] {
        let (manager, _wire, ends) = life(&homes.migrated(&[], flags), |builder| builder);
        let (to, told) = ends.sent.recv_timeout(SOON).unwrap();
        let field = |bytes: &[u8], name: &str| serde_json::from_slice::<Value>(bytes).unwrap()[name].clone();
        assert_eq!(
            (to, field(&told, "type"), field(&told, "reason")),
            (id(2), "handshake_reject".into(), "not now".into())
        );
        assert_eq!(field(&told, "answers") == field(&asked, "nonce"), is_answer);
        eventually("it is told", || manager.owed().is_empty());
    }
}

#[test]
fn a_registry_that_lags_is_behind_after_a_migration_too() {
    let (homes, peer, replaced) = (Homes::new(), identity(2), renewed().0);
    {
        let change = |builder| in_network_three(builder, peer.public_key(), 9);
        let (manager, _wire, _ends) = life(&homes.old(), change);
        manager.receive(arrived(request(&peer, 0), 2));
        assert!(manager.is_trusted_with_key(id(2), &peer.public_key()));
        manager.shutdown().unwrap();
    }
    for (but, is_believed) in [(&[][..], false), (&["revisions"], true)] {
        let change = |builder| in_network_three(builder, replaced.public_key(), 8);
        let (manager, _wire, _ends) = life(&homes.migrated(but, &[]), change);
        manager.receive(arrived(request(&replaced, 1000), 2));
        assert_eq!(manager.is_trusted_with_key(id(2), &replaced.public_key()), is_believed, "{but:?}");
        assert_eq!(manager.is_trusted_with_key(id(2), &peer.public_key()), !is_believed, "{but:?}");
        assert_eq!(count(&manager, "registry_outdated") > 0, !is_believed, "{but:?}");
    }
}
