//! The records that are trusted when a node starts, beside a registry that changes its mind or answers late.
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

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use common::*;
use trustkeep::node::{Identity as _, Registry, RegistryEntry, RegistryError};
use trustkeep::{HandshakeManager, NodeId, PublicKey, TrustRecord, TrustStore};

/// The key that a registry names for a peer when it is asked for the `nth` time, from 1; none: it could not be asked.
type Says = fn(u32, u32) -> Option<PublicKey>;

/// A registry whose answer depends on how often it was asked.
struct Fickle {
    says: Says,
    may_block: bool,
    asked: Mutex<HashMap<NodeId, u32>>,
}

impl Fickle {
    fn asked(&self, peer: u32) -> u32 {
        self.asked.lock().unwrap().get(&id(peer)).copied().unwrap_or(0)
    }
}

impl Registry for Fickle {
    fn look_up(&self, peer: NodeId) -> Result<Option<RegistryEntry>, RegistryError> {
        let nth = {
            let mut asked = self.asked.lock().unwrap();
            let nth = asked.entry(peer).or_insert(0);
            *nth += 1;
            *nth
        };
        (self.says)(peer.get(), nth).map(|key| Some(RegistryEntry::new(key))).ok_or(RegistryError::Busy)
    }
    fn may_block(&self) -> bool {
        self.may_block
    }
}

fn key_of(number: u32) -> PublicKey {
    identity(number).public_key()
}

/// A node that trusts the peers from 2 to this one.
fn trusting(last: u32, may_block: bool, says: Says) -> (HandshakeManager, Arc<Fickle>) {
    let fickle = Arc::new(Fickle { says, may_block, asked: Mutex::default() });
    let store = Arc::new(TrustStore::in_memory());
    for number in 2..=last {
        drop(store.grant(TrustRecord::new(id(number), key_of(number))).unwrap());
    }
    let registry = Arc::clone(&fickle) as _;
    let (manager, _wire, _ends) = alone_with(store, |builder| builder.registry(registry));
    (manager, fickle)
}

#[test]
fn what_a_registry_that_may_block_has_corrected_meanwhile_ends_no_trust() {
    let (manager, fickle) = trusting(2, true, |peer, nth| Some(key_of(if nth == 1 { 200 } else { peer })));
    eventually("it is asked a second time", || fickle.asked(2) == 2 || !manager.is_trusted(id(2)));
    manager.shutdown().unwrap();
    assert!(manager.is_trusted(id(2)), "the first answer alone ended it");
    // The twin: it says so again.
    let (manager, fickle) = trusting(2, true, |_, _| Some(key_of(200)));
    eventually("trust ends", || !manager.is_trusted(id(2)));
    assert_eq!(fickle.asked(2), 2);
}

#[test]
fn a_registry_that_contradicts_too_many_is_noticed_though_some_answers_come_late() {
    // Of each 12 records, 7 are contradicted at once. The other 5 cannot be asked about at first; then they are as well.
    let late: Says = |peer, nth| if peer <= 8 { Some(key_of(200)) } else { (nth > 1).then(|| key_of(200)) };
    let (manager, _) = trusting(13, false, late);
    eventually("the disagreement is noticed", || {
        manager.registry_disagreement().is_some() || manager.trusted().is_empty()
    });
    let held = manager.registry_disagreement().expect("all were ended");
    assert_eq!((held.compared, held.contradicted.len(), manager.trusted().len()), (12, 5, 5));
    // The twin: what comes late contradicts nothing.
    let late: Says = |peer, nth| if peer <= 8 { Some(key_of(200)) } else { (nth > 1).then(|| key_of(peer)) };
    let (manager, fickle) = trusting(13, false, late);
    eventually("the others are asked about again", || (9..=13).all(|peer| fickle.asked(peer) == 2));
    manager.shutdown().unwrap();
    assert_eq!((manager.registry_disagreement(), manager.trusted().len()), (None, 5));
}
