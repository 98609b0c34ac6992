//! Two nodes in one process, over TCP and with stores on disk: what they promise each other and their operators holds
//! from end to end.
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

use std::io::Write as _;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::*;
use trustkeep::machine::event::{ChangeReason, Event, TrustState};
use trustkeep::machine::rejection::Rejection;
use trustkeep::node::{
    CommandError, HandshakeManager, Identity as _, RequestOptions, SendError, StaticRegistry, TcpConfig, TcpTransport,
};
use trustkeep::{Subscription, TrustStore};

struct Node {
    manager: HandshakeManager,
    address: SocketAddr,
}

/// Opens the node whose home this is, and puts its address (and its key, if the book is to vouch for it) in the book.
fn open(home: &Path, number: u32, book: &Arc<Book>, vouched: bool) -> Node {
    let store = Arc::new(TrustStore::open(home.join(format!("store-{number}"))).unwrap());
    // What goes through does so in time, however busy the machine.
    let mut config = TcpConfig::listen(any_port());
    (config.look_up_timeout, config.connect_timeout, config.send_timeout) = (SOON, SOON, SOON);
    config.receive_timeout = SOON;
    let transport = Arc::new(TcpTransport::bind(config, Arc::clone(book) as _).unwrap());
    let address = transport.local_address();
    let identity = Arc::new(identity(number));
    book.put(id(number), vouched.then(|| identity.public_key()), address);
    let builder = HandshakeManager::builder(store, identity, transport).registry(Arc::clone(book) as _);
    let manager = builder.look_up_timeout(SOON).start().unwrap();
    Node { manager, address }
}

fn until(events: &Subscription, wanted: impl Fn(&Event) -> bool) -> Event {
    loop {
        let event = events.recv_timeout(SOON).expect("the event did not come");
        if wanted(&event) {
            return event;
        }
    }
}

fn ask() -> RequestOptions {
    RequestOptions::default()
}

/// The peer asked, the operator approved what was shown, and both trust each other.
fn befriend(asker: &Node, approver: &Node) {
    let events = approver.manager.subscribe();
    let (one, other) = (asker.manager.node_id(), approver.manager.node_id());
    drop(asker.manager.request(other, "weather feed", ask()).unwrap());
    let shown = until(&events, |event| matches!(event, Event::Pending { peer, .. } if *peer == one));
    let Event::Pending { fingerprint, justification, .. } = shown else { unreachable!() };
    assert_eq!(justification, "weather feed");
    approver.manager.approve(one, Some(fingerprint)).unwrap().wait_durable().unwrap();
    assert!(asker.manager.wait_for_trust(other, SOON), "the accept did not arrive");
}

#[test]
fn trust_is_made_kept_over_a_restart_and_revoked() {
    let (home, book) = (tempfile::tempdir().unwrap(), Arc::new(Book::default()));
    let (a, b) = (open(home.path(), 1, &book, true), open(home.path(), 2, &book, true));
    befriend(&a, &b);
    let (of_a, of_b) = (a.manager.trusted(), b.manager.trusted());
    assert_eq!((of_a[0].node_id, of_a[0].public_key), (id(2), Some(b.manager.public_key())));
    assert_eq!((of_b[0].node_id, of_b[0].public_key), (id(1), Some(a.manager.public_key())));
    assert!(of_a[0].mutual && !of_b[0].mutual);
    assert!(b.manager.is_trusted_with_key(id(1), &a.manager.public_key()));
    assert!(!b.manager.is_trusted_with_key(id(1), &b.manager.public_key()));
    assert!(a.manager.outgoing().is_empty() && b.manager.pending().is_empty());
    eventually("the registry hears of both", || book.reports.lock().unwrap().len() == 2);

    b.manager.shutdown().unwrap();
    drop(b);
    let b = open(home.path(), 2, &book, true);
    assert!(b.manager.is_trusted(id(1)), "trust did not survive");

    let (events_a, events_b) = (a.manager.subscribe(), b.manager.subscribe());
    let revoked = b.manager.revoke(id(1)).unwrap();
    assert!(!b.manager.is_trusted(id(1)) && revoked.was.is_some());
    revoked.receipt.wait_durable().unwrap();
    until(&events_a, |event| *event == Event::RevokedByPeer { peer: id(2) });
    assert!(!a.manager.is_trusted(id(2)));
    assert_eq!(b.manager.revoked()[0].0, id(1));

    // After our revoke only an operator decides, vouched for or not.
    drop(a.manager.request(id(2), "again", ask()).unwrap());
    until(&events_b, |event| matches!(event, Event::Pending { .. }));
    assert!(!b.manager.is_trusted(id(1)) && !a.manager.is_trusted(id(2)));
    assert_eq!(b.manager.pending()[0].0, id(1));
    let current = b.manager.revoked()[0].1.id;
    let plain = b.manager.approve(id(1), shown(&b.manager, id(1)));
    let refused = Rejection::RevokedNeedsLift { current };
    assert!(matches!(plain, Err(CommandError::Refused(why)) if why == refused), "{plain:?}");
    drop(b.manager.approve_lifting(id(1), shown(&b.manager, id(1)), current).unwrap());
    assert!(a.manager.wait_for_trust(id(2), SOON));
    assert!(b.manager.revoked().is_empty());
}

#[test]
fn a_rejection_arrives_and_leaves_nothing_but_its_reason() {
    let (home, book) = (tempfile::tempdir().unwrap(), Arc::new(Book::default()));
    let (a, b) = (open(home.path(), 1, &book, true), open(home.path(), 2, &book, true));
    let (events_a, events_b) = (a.manager.subscribe(), b.manager.subscribe());
    drop(a.manager.request(id(2), "please", ask()).unwrap());
    let outgoing = a.manager.outgoing();
    assert_eq!((outgoing[0].0, outgoing[0].1.expected_key), (id(2), Some(b.manager.public_key())));
    until(&events_b, |event| matches!(event, Event::Pending { .. }));
    drop(b.manager.reject(id(1), "no room").unwrap());
    let fingerprint = b.manager.public_key().fingerprint();
    let rejected = Event::Rejected { peer: id(2), reason: "no room".to_owned(), fingerprint, authentic: true };
    until(&events_a, |event| *event == rejected);
    // What it leaves behind for a day says that, and counts for nothing.
    let refused = a.manager.outgoing()[0].1.refused.clone();
    assert!(refused.is_some_and(|refusal| refusal.authentic) && b.manager.pending().is_empty());
    assert!(!a.manager.is_trusted(id(2)) && !b.manager.is_trusted(id(1)));
}

#[test]
fn both_ask_and_trust_each_other_without_an_operator() {
    let (home, book) = (tempfile::tempdir().unwrap(), Arc::new(Book::default()));
    let (a, b) = (open(home.path(), 1, &book, true), open(home.path(), 2, &book, true));
    let events = b.manager.subscribe();
    drop(a.manager.request(id(2), "", ask()).unwrap());
    until(&events, |event| matches!(event, Event::Pending { .. }));
    drop(b.manager.request(id(1), "", ask()).unwrap());
    assert!(a.manager.wait_for_trust(id(2), SOON) && b.manager.wait_for_trust(id(1), SOON));
    assert!(a.manager.trusted()[0].mutual && b.manager.trusted()[0].mutual);
}

#[test]
fn with_nobody_to_vouch_an_expected_key_decides() {
    let (home, book) = (tempfile::tempdir().unwrap(), Arc::new(Book::default()));
    let (a, b) = (open(home.path(), 1, &book, false), open(home.path(), 2, &book, false));
    let (events_a, events_b) = (a.manager.subscribe(), b.manager.subscribe());
    // Without one, the answer is shown to an operator and trusted by nobody.
    drop(a.manager.request(id(2), "", ask()).unwrap());
    until(&events_b, |event| matches!(event, Event::Pending { .. }));
    drop(b.manager.approve(id(1), shown(&b.manager, id(1))).unwrap());
    until(&events_a, |event| matches!(event, Event::Pending { .. }));
    assert!(!a.manager.is_trusted(id(2)));
    // With it, the answer counts.
    drop(a.manager.request(id(2), "", ask().expected_key(b.manager.public_key())).unwrap());
    assert!(a.manager.wait_for_trust(id(2), SOON));
}

#[test]
fn a_peers_file_is_enough() {
    let (home, book) = (tempfile::tempdir().unwrap(), Arc::new(Book::default()));
    let b = open(home.path(), 2, &book, true);
    let peers = home.path().join("peers.toml");
    let (address, key) = (b.address, b.manager.public_key().to_base64());
    std::fs::write(&peers, format!("[[peer]]\nid = 2\naddress = \"{address}\"\npublic_key = \"{key}\"\n")).unwrap();
    let registry = Arc::new(StaticRegistry::read(&peers).unwrap());
    let transport = Arc::new(TcpTransport::bind(TcpConfig::listen(any_port()), Arc::clone(&registry) as _).unwrap());
    book.put(id(1), Some(identity(1).public_key()), transport.local_address());
    let address = transport.local_address();
    let store = Arc::new(TrustStore::in_memory());
    let manager =
        HandshakeManager::builder(store, Arc::new(identity(1)), transport).registry(registry).start().unwrap();
    befriend(&Node { manager, address }, &b);
}

#[test]
fn a_request_that_does_not_leave_says_why_and_stays() {
    let (home, book) = (tempfile::tempdir().unwrap(), Arc::new(Book::default()));
    let a = open(home.path(), 1, &book, true);
    let free = TcpListener::bind(any_port()).unwrap().local_addr().unwrap();
    book.put(id(2), None, free);
    match a.manager.request(id(2), "", ask()) {
        Err(CommandError::NotSent { receipt, source: SendError::Unreachable { address, .. }, relay: None }) => {
            assert_eq!(address, free);
            receipt.wait_durable().unwrap();
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(
        a.manager.request(id(3), "", ask()),
        Err(CommandError::NotSent { source: SendError::NoAddress { .. }, relay: None, .. })
    ));
    let kept: Vec<_> = a.manager.outgoing().into_iter().map(|(peer, _)| peer).collect();
    assert_eq!(kept, [id(2), id(3)]);
    // Once the peer is there, asking again is enough.
    let b = open(home.path(), 2, &book, true);
    befriend(&a, &b);
}

#[test]
fn a_flood_over_tcp_of_every_kind_of_garbage_keeps_no_good_peer_out() {
    let (home, book) = (tempfile::tempdir().unwrap(), Arc::new(Book::default()));
    let (a, b) = (open(home.path(), 1, &book, true), open(home.path(), 2, &book, true));
    let silent: Vec<_> = (0..30).map(|_| TcpStream::connect(b.address).unwrap()).collect();
    for bytes in [&b"garbage"[..], b"", b"{}", b"[1]", b"{\"type\":\"handshake_request\"", &[0xff; 70_000]] {
        for _ in 0..5 {
            let mut stream = TcpStream::connect(b.address).unwrap();
            let _ = stream.write_all(bytes);
            let _ = stream.shutdown(Shutdown::Write);
        }
    }
    befriend(&a, &b);
    eventually("garbage is counted", || count(&b.manager, "malformed") >= 1);
    assert_eq!(b.manager.trusted().len(), 1);
    drop(silent);
}

#[test]
fn stopping_and_starting_without_a_change_writes_nothing() {
    let (home, book) = (tempfile::tempdir().unwrap(), Arc::new(Book::default()));
    let (a, b) = (open(home.path(), 1, &book, true), open(home.path(), 2, &book, true));
    befriend(&a, &b);
    a.manager.shutdown().unwrap();
    drop(a);
    let state = || {
        let mut files: Vec<_> = std::fs::read_dir(home.path().join("store-1"))
            .unwrap()
            .map(|entry| entry.unwrap())
            .filter(|entry| entry.file_name() != "LOCK")
            .map(|entry| {
                let bytes = std::fs::read(entry.path()).unwrap();
                (entry.file_name(), entry.metadata().unwrap().modified().unwrap(), bytes)
            })
            .collect();
        files.sort();
        files
    };
    let before = state();
    assert!(!before.is_empty());
    let a = open(home.path(), 1, &book, true);
    a.manager.shutdown().unwrap();
    a.manager.shutdown().unwrap();
    assert_eq!(state(), before);
    // What changes something is refused now, and reading goes on.
    assert!(matches!(a.manager.request(id(2), "", ask()), Err(CommandError::Stopped)));
    assert!(matches!(a.manager.revoke(id(2)), Err(CommandError::Stopped)));
    assert!(a.manager.is_trusted(id(2)));
    assert!(TcpStream::connect(a.address).is_err());
    drop(a);
    let a = open(home.path(), 1, &book, true);
    drop(a.manager.revoke(id(2)).unwrap());
    a.manager.shutdown().unwrap();
    assert_ne!(state(), before, "a change is written");
}

#[test]
fn operators_hear_what_there_was_nothing_to_do_about() {
    let (home, book) = (tempfile::tempdir().unwrap(), Arc::new(Book::default()));
    let (a, b) = (open(home.path(), 1, &book, true), open(home.path(), 2, &book, true));
    let before = b.manager.store().generation();
    let nothing = |result: Result<_, CommandError>| {
        assert!(matches!(result, Err(CommandError::Refused(Rejection::NothingToDo))), "{result:?}");
    };
    nothing(b.manager.approve(id(1), shown(&b.manager, id(1))));
    nothing(b.manager.reject(id(1), ""));
    nothing(b.manager.cancel(id(1)));
    nothing(b.manager.remove(id(1)));
    nothing(b.manager.forget_revocation(id(1)));
    let us = b.manager.request(id(2), "", ask());
    assert!(matches!(us, Err(CommandError::Refused(Rejection::PeerIsUs))), "{us:?}");
    assert_eq!(b.manager.store().generation(), before);
    assert!(b.manager.wait_for_trust(id(2), Duration::ZERO), "we trust ourselves");
    assert!(!b.manager.wait_for_trust(id(1), Duration::ZERO));

    // A revocation always does something: it marks, and says that nothing else was there.
    let revoked = b.manager.revoke(id(5)).unwrap();
    assert_eq!((revoked.was, revoked.waited, revoked.asked, revoked.marked), (None, false, false, None));
    assert_eq!(b.manager.revoked().len(), 1);

    let events = b.manager.subscribe();
    drop(a.manager.request(id(2), "", ask()).unwrap());
    until(&events, |event| matches!(event, Event::Pending { .. }));
    let wrong = b.manager.approve(id(1), Some(b.manager.public_key().fingerprint()));
    assert!(matches!(wrong, Err(CommandError::Refused(Rejection::WrongFingerprint { .. }))), "{wrong:?}");
    drop(b.manager.approve(id(1), Some(a.manager.public_key().fingerprint())).unwrap());
    let granted = until(&events, |event| matches!(event, Event::TrustChanged { .. }));
    let (state, reason) = (TrustState::Granted, ChangeReason::Approved);
    assert_eq!(granted, Event::TrustChanged { peer: id(1), state, reason });
    assert!(a.manager.wait_for_trust(id(2), SOON));
    let again = a.manager.request(id(2), "", ask());
    assert!(matches!(again, Err(CommandError::Refused(Rejection::AlreadyTrusted))), "{again:?}");
    drop(a.manager.request(id(2), "", ask().force(true)).unwrap());
    drop(a.manager.cancel(id(2)).unwrap());
}
