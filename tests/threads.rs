//! No thread of ours outlives its node, however the node ends. A program of its own, for the operating system counts the
//! threads of a whole program.
#![cfg(target_os = "linux")]
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
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use common::*;
use trustkeep::machine::event::Event;
use trustkeep::node::{
    Identity as _, InProcessRegistry, Inbox, Registry, RegistryEntry, RegistryError, RequestOptions, SendError,
    TcpConfig, TcpTransport, Transport,
};
use trustkeep::wire::message::Kind;
use trustkeep::{HandshakeManager, NodeId, TrustRecord, TrustStore};

/// The names of our threads, as the operating system has them (15 bytes at most).
fn ours() -> BTreeSet<String> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    // A thread may end while it is looked at.
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.map(|name| name.trim().to_owned()).filter(|name| name.starts_with("trustkeep")).collect()
}

/// How many of them have this name.
fn threads(wanted: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| name.trim() == wanted).count()
}

fn none_left(when: &str) {
    eventually(&format!("{when}: {:?}", ours()), || ours().is_empty());
}

fn open(home: &Path, hub: &InProcessRegistry, number: u32) -> HandshakeManager {
    let identity = Arc::new(identity(number));
    let registry = Arc::new(hub.join(identity.as_ref(), &[]).unwrap());
    let store = Arc::new(TrustStore::open(home.join(format!("store-{number}"))).unwrap());
    let transport = Arc::new(TcpTransport::bind(TcpConfig::listen(any_port()), Arc::clone(&registry) as _).unwrap());
    let sink = Arc::new(|_: Event| {});
    HandshakeManager::builder(store, identity, transport).registry(registry).event_sink(sink).start().unwrap()
}

/// Has every kind of thread work.
fn live(a: &HandshakeManager, b: &HandshakeManager) {
    let (one, two) = (a.node_id(), b.node_id());
    drop(a.request(two, "", RequestOptions::default().force(true)).unwrap());
    eventually("the request arrives", || !b.pending().is_empty() || b.is_trusted(one));
    drop(b.approve(one, shown(b, one)));
    assert!(a.wait_for_trust(two, SOON));
    drop(b.revoke(one).unwrap());
    b.store().flush().unwrap();
}

/// Does not begin to receive.
struct Refusing;

impl Transport for Refusing {
    fn start(&self, _: Arc<dyn Inbox>) -> std::io::Result<()> {
        Err(std::io::Error::other("as the test wants it"))
    }
    fn send(&self, _: NodeId, _: &[u8]) -> Result<(), SendError> {
        Ok(())
    }
    fn disconnect(&self, _: NodeId) {}
    fn stop_receiving(&self, _: std::time::Duration) {}
    fn stop_sending(&self) {}
}

#[test]
fn no_thread_of_ours_is_left_however_a_node_ends() {
    assert_eq!(ours(), BTreeSet::new(), "nothing runs before a node does");
    let home = tempfile::tempdir().unwrap();

    let hub = InProcessRegistry::new();
    let (a, b) = (open(home.path(), &hub, 1), open(home.path(), &hub, 2));
    live(&a, &b);
    // The twin: they are there, and this test sees them.
    for part in ["keepe", "cut", "durab", "tidy", "accep", "relay", "event", "send", "tcp"] {
        let name = format!("trustkeep-{part}");
        assert!(ours().contains(&name), "{name} is not among {:?}", ours());
    }
    a.shutdown().unwrap();
    b.shutdown().unwrap();
    none_left("after a shutdown, the managers still held");
    drop((a, b));

    let (a, b) = (open(home.path(), &hub, 1), open(home.path(), &hub, 2));
    live(&a, &b);
    drop((a, b));
    none_left("after a drop");

    // What waits for the disk is let go by the thread that waits, and may be the last to hold the node.
    let disk = Arc::new(Disk::default());
    let store = Arc::new(TrustStore::options().open_storage(Arc::clone(&disk) as _).unwrap());
    let manager = HandshakeManager::builder(Arc::clone(&store), Arc::new(identity(1)), Wire::new().0).start().unwrap();
    let held = disk.gate.close();
    drop(manager.grant(TrustRecord::new(id(9), None)).unwrap());
    drop(manager);
    eventually("those of the node end without the disk", || threads("trustkeep-durab") == 0);
    drop(held);
    drop(store);
    none_left("after a drop with an answer that waited for the disk");

    let store = Arc::new(TrustStore::in_memory());
    let registry = Arc::new(hub.join(&identity(1), &[]).unwrap());
    let builder = HandshakeManager::builder(store, Arc::new(identity(1)), Arc::new(Refusing));
    let refused = builder.registry(registry).event_sink(Arc::new(|_: Event| {})).start();
    assert!(refused.is_err());
    drop(refused);
    none_left("after a start that failed");

    // Connections that nobody ends, look-ups that are slow.
    let book = Arc::new(Book::default());
    *book.hangs_about.lock().unwrap() = Some(id(5));
    let shut = book.gate.close();
    let transport = Arc::new(TcpTransport::bind(TcpConfig::listen(any_port()), Arc::clone(&book) as _).unwrap());
    let address = transport.local_address();
    let store = Arc::new(TrustStore::in_memory());
    let builder = HandshakeManager::builder(store, Arc::new(identity(1)), transport);
    let manager = builder.registry(Arc::clone(&book) as _).start().unwrap();
    let _silent: Vec<_> = (0..5).map(|_| TcpStream::connect(address).unwrap()).collect();
    manager.receive(arrived(message_from(&identity(5), Kind::Request, |_| {}), 1));
    manager.shutdown().unwrap();
    eventually("only the look-up is left", || ours().iter().all(|name| name == "trustkeep-look-"));
    assert!(!ours().is_empty(), "it hangs, and cannot be ended from here");
    drop(shut);
    none_left("once the registry has answered");

    bounded_by_a_registry_that_hangs_about_everybody();
    none_left("once it has answered everybody");
}

/// Hangs about everybody, and over every report.
struct Hanging(Gate);

impl Registry for Hanging {
    fn look_up(&self, _: NodeId) -> Result<Option<RegistryEntry>, RegistryError> {
        self.0.pass();
        Ok(None)
    }
    fn report_grant(&self, _: NodeId) -> Result<(), RegistryError> {
        self.0.pass();
        Ok(())
    }
}

fn bounded_by_a_registry_that_hangs_about_everybody() {
    let registry = Arc::new(Hanging(Gate::default()));
    let (manager, _wire, _ends) = alone(|builder| {
        builder.registry(Arc::clone(&registry) as _).look_up_timeout(std::time::Duration::from_millis(1500))
    });
    // Before it hangs, three peers ask.
    for number in [2, 3, 4] {
        manager.receive(arrived(message_from(&identity(number), Kind::Request, |_| {}), 1));
    }
    let shut = registry.0.close();
    std::thread::scope(|scope| {
        for number in 100..250 {
            let manager = &manager;
            scope.spawn(move || drop(manager.request(id(number), "", RequestOptions::default())));
        }
        eventually("as many as may ask do", || threads("trustkeep-look-") == 48);
        let refused = || count(&manager, "look_up_failed");
        eventually("the others go on without", || refused() >= 100);
        assert_eq!(threads("trustkeep-look-"), 48);
        // Meanwhile nobody else is held up; an approval needs the fingerprint.
        assert!(manager.approve(id(2), None).is_err());
        drop(manager.approve(id(2), Some(identity(2).public_key().fingerprint())).unwrap());
        assert!(manager.is_trusted(id(2)));
        manager.receive(arrived(message_from(&identity(3), Kind::Request, |d| d.stamp = d.stamp.saturating_add(9)), 1));
        drop(manager.approve(id(3), Some(identity(3).public_key().fingerprint())).unwrap());
        assert!(manager.is_trusted(id(3)));
    });
    assert_eq!(manager.outgoing().len(), 150, "asked without anybody to vouch");
    assert!(threads("trustkeep-look-") <= 48);
    drop(shut);
}
