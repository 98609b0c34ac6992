//! A transport that hangs while it is to cut a peer off, or to stop, holds up that alone: other peers are cut off, and the
//! node stops.
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
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Gate, SOON, eventually, id, identity};
use trustkeep::config::HandshakeConfig;
use trustkeep::node::{Inbox, SendError, Transport};
use trustkeep::{HandshakeManager, NodeId, TrustRecord, TrustStore};

/// Takes every message. Cutting these peers off, and stopping, waits at the gate.
#[derive(Default)]
struct Hanging {
    gate: Gate,
    over: BTreeSet<NodeId>,
    cut: Mutex<BTreeSet<NodeId>>,
}

impl Transport for Hanging {
    fn start(&self, _: Arc<dyn Inbox>) -> io::Result<()> {
        Ok(())
    }
    fn send(&self, _: NodeId, _: &[u8]) -> Result<(), SendError> {
        Ok(())
    }
    fn disconnect(&self, peer: NodeId) {
        if self.over.contains(&peer) {
            self.gate.pass();
        }
        self.cut.lock().unwrap().insert(peer);
    }
    fn stop_receiving(&self, _: Duration) {
        self.gate.pass();
    }
    fn stop_sending(&self) {
        self.gate.pass();
    }
}

fn start(transport: &Arc<Hanging>) -> HandshakeManager {
    let mut config = HandshakeConfig::default();
    config.shutdown_wait = Duration::from_millis(100);
    let store = Arc::new(TrustStore::in_memory());
    let builder = HandshakeManager::builder(store, Arc::new(identity(1)), Arc::clone(transport) as _);
    let manager = builder.config(config).start().unwrap();
    for number in 100..130 {
        drop(manager.grant(TrustRecord::new(id(number), None)).unwrap());
    }
    manager
}

#[test]
fn a_transport_that_hangs_over_some_peers_cuts_the_others_off() {
    let over: BTreeSet<NodeId> = [100, 111, 129].into_iter().map(id).collect();
    let transport = Arc::new(Hanging { over: over.clone(), ..Hanging::default() });
    let manager = start(&transport);
    let shut = transport.gate.close();
    for number in 100..130 {
        drop(manager.revoke(id(number)).unwrap());
    }
    let all: BTreeSet<NodeId> = (100..130).map(id).collect();
    let others: BTreeSet<NodeId> = all.difference(&over).copied().collect();
    eventually("the others are cut off", || *transport.cut.lock().unwrap() == others);
    // One that comes later, too: nobody waits for those that hang.
    drop(manager.grant(TrustRecord::new(id(140), None)).unwrap());
    drop(manager.revoke(id(140)).unwrap());
    eventually("a later one is cut off", || transport.cut.lock().unwrap().contains(&id(140)));
    drop(shut);
    eventually("all are", || transport.cut.lock().unwrap().is_superset(&all));
    manager.shutdown().unwrap();
}

#[test]
fn a_node_stops_whatever_its_transport_hangs_over() {
    let transport = Arc::new(Hanging { over: (100..130).map(id).collect(), ..Hanging::default() });
    let manager = Arc::new(start(&transport));
    let shut = transport.gate.close();
    for number in 100..130 {
        drop(manager.revoke(id(number)).unwrap());
    }
    let (tell, told) = std::sync::mpsc::channel();
    let of_thread = Arc::clone(&manager);
    std::thread::spawn(move || {
        let stops = [of_thread.shutdown(), of_thread.shutdown()].map(|stopped| stopped.is_ok());
        tell.send(stops).unwrap();
    });
    assert_eq!(told.recv_timeout(SOON).unwrap(), [true, true], "although nothing of the transport has come back");
    assert!(transport.cut.lock().unwrap().is_empty());
    drop(shut);
    // And none is forgotten for it.
    eventually("all are cut off", || transport.cut.lock().unwrap().len() == 30);
}
