//! What a node tells over its control socket, without the socket.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests say what must hold by panicking")]

use std::cell::RefCell;
use std::io;
use std::time::Duration;

use super::perform::{Served, perform, watch};
use super::{Ask, PAGE_MAX, Reply, Until};
use crate::config::Limits;
use crate::node::{FileIdentity, HandshakeManager, Inbox, SendError, Transport};
use crate::peer::{NodeId, TrustRecord};
use crate::store::TrustStore;
use crate::sync::{Arc, Deadline, queue};
use crate::testing::sim_disk::SimDisk;

/// A transport that reaches no peer.
struct NoWire;

impl Transport for NoWire {
    fn start(&self, _: Arc<dyn Inbox>) -> io::Result<()> {
        Ok(())
    }
    fn send(&self, peer: NodeId, _: &[u8]) -> Result<(), SendError> {
        Err(SendError::NoAddress { peer })
    }
    fn disconnect(&self, _: NodeId) {}
    fn stop_receiving(&self, _: Duration) {}
    fn stop_sending(&self) {}
}

fn id(number: u32) -> NodeId {
    NodeId::new(number).unwrap()
}

/// What a watcher is told of a node that grants trust to so many peers while it does not look, and stops then.
fn told_of(grants: u32) -> Vec<String> {
    let limits = Limits { subscription_events_max: 4, ..Limits::default() };
    let store = Arc::new(TrustStore::options().limits(limits).in_memory().unwrap());
    let identity = Arc::new(FileIdentity::from_seed(id(1), &[1; 32]).unwrap());
    let manager = HandshakeManager::builder(Arc::clone(&store), identity, Arc::new(NoWire)).start().unwrap();
    let node = Served { manager: Arc::new(manager), listen: "127.0.0.1:1".parse().unwrap(), peers: None, seen: None };
    let told = RefCell::new(Vec::new());
    let tell = |event| {
        told.borrow_mut().push(serde_json::to_value(event).unwrap());
        Ok(())
    };
    let go_on = || {
        // Asked before the first look at events, so all of them happen before the node stops.
        for number in 0..grants {
            drop(store.grant(TrustRecord::new(id(2 + number), None)).unwrap());
        }
        false
    };
    watch(&node, &tell, &go_on, Duration::from_millis(100)).unwrap();
    told.into_inner().iter().map(|event| format!("{} {}", event["topic"], event["payload"]["lost"])).collect()
}

#[test]
fn a_watcher_hears_the_last_events_and_the_last_loss_before_the_node_stops() {
    let (begin, event) = (r#""watching" null"#, r#""trust.changed" null"#);
    assert_eq!(told_of(0), [begin]);
    assert_eq!(told_of(4), [begin, event, event, event, event]);
    assert_eq!(told_of(7), [begin, event, event, event, event, r#""lagged" 3"#]);
}

/// A wait is answered once what it waited for is durable.
#[test]
fn a_wait_for_what_is_so_already_waits_for_the_disk() {
    for until in [Until::Trusted, Until::Untrusted] {
        let disk = SimDisk::new();
        let store = Arc::new(TrustStore::options().open_storage(Arc::new(disk.clone())).unwrap());
        store.grant(TrustRecord::new(id(3), None)).unwrap().wait_durable().unwrap();
        let identity = Arc::new(FileIdentity::from_seed(id(1), &[1; 32]).unwrap());
        let manager = HandshakeManager::builder(Arc::clone(&store), identity, Arc::new(NoWire)).start().unwrap();
        let node =
            Served { manager: Arc::new(manager), listen: "127.0.0.1:1".parse().unwrap(), peers: None, seen: None };
        // As long as one end of this is there, the disk hangs.
        let (hangs, until_then) = queue::<()>(1);
        disk.on_sync(move || {
            let _ = until_then.recv(Deadline::NEVER);
        });
        let (peer, receipt) = match until {
            Until::Trusted => (2, store.grant(TrustRecord::new(id(2), None)).unwrap()),
            _ => (3, store.revoke(id(3)).unwrap().receipt),
        };
        std::thread::scope(|scope| {
            let wait = Ask::Wait { peer, until, timeout_ms: 60_000, asked: false };
            let waits = scope.spawn(|| perform(&node, wait, &|| true, Duration::from_millis(100)));
            let late = Deadline::after(Duration::from_secs(60));
            while store.health().waiting_for_disk == 0 && !waits.is_finished() {
                assert!(!late.has_passed(), "it does not ask for the disk");
                std::thread::yield_now();
            }
            let is_answered = waits.is_finished();
            drop(hangs);
            let answer = waits.join().unwrap();
            assert!(!is_answered, "{until:?}: {answer:?}");
            assert!(matches!(answer, Reply::Done { .. }) && receipt.is_durable(), "{until:?}: {answer:?}");
        });
    }
}

/// However many there are, and however many are asked for: neither end ever holds more of them.
#[test]
fn an_answer_of_a_listing_has_a_page_at_most() {
    let store = Arc::new(TrustStore::in_memory());
    let all = 2 * PAGE_MAX as u32 + 5;
    drop(
        store.update(|batch| (2..2 + all).for_each(|it| batch.grant(TrustRecord::new(id(it), None)).unwrap())).unwrap(),
    );
    let identity = Arc::new(FileIdentity::from_seed(id(1), &[1; 32]).unwrap());
    let manager = HandshakeManager::builder(Arc::clone(&store), identity, Arc::new(NoWire)).start().unwrap();
    let node = Served { manager: Arc::new(manager), listen: "127.0.0.1:1".parse().unwrap(), peers: None, seen: None };
    let ask = |after, limit| match perform(&node, Ask::List { after, limit }, &|| true, Duration::from_millis(100)) {
        Reply::Trusted { trusted, more, total } => {
            assert_eq!(total, u64::from(all));
            (trusted.iter().map(|row| row.node_id).collect::<Vec<_>>(), more)
        }
        other => panic!("{other:?}"),
    };
    let (mut listed, mut sizes) = (Vec::new(), Vec::new());
    loop {
        let (page, more) = ask(listed.last().copied(), Some(u64::MAX));
        sizes.push(page.len());
        listed.extend(page);
        if !more {
            break;
        }
    }
    assert_eq!(sizes, [PAGE_MAX, PAGE_MAX, 5]);
    assert!(listed.into_iter().eq(2..2 + all));
    assert_eq!(ask(None, None).0.len(), PAGE_MAX);
    assert_eq!(ask(Some(10), Some(3)), (vec![11, 12, 13], true));
}
