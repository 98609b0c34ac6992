//! What did not reach a peer is tried again without another command: requests until they are answered, decisions until they
//! left once. The clock goes when it is told to; nothing here depends on how busy the machine is.
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

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::*;
use trustkeep::clock::Clock;
use trustkeep::machine::event::Event;
use trustkeep::node::{CommandError, HandshakeManager, Identity as _, RequestOptions, Told};
use trustkeep::wire::message::Kind;
use trustkeep::{Now, Tick, TrustStore, WallMillis};

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;

/// A clock that goes when it is told to.
#[derive(Debug, Default)]
struct Wound(Mutex<i64>);

impl Wound {
    fn wind(&self, millis: i64) {
        *self.0.lock().unwrap() += millis;
    }
}

impl Clock for Wound {
    fn now(&self) -> Now {
        let millis = *self.0.lock().unwrap();
        // Messages of the tests are stamped by the system's clock, which is a little ahead at most.
        Now { wall: begin().saturating_add(millis), tick: Tick::new(millis) }
    }
}

fn begin() -> WallMillis {
    static BEGIN: std::sync::OnceLock<WallMillis> = std::sync::OnceLock::new();
    *BEGIN.get_or_init(now)
}

struct Alone {
    manager: HandshakeManager,
    wire: Arc<Wire>,
    ends: WireEnds,
    clock: Arc<Wound>,
}

fn start_in(home: &Path, clock: &Arc<Wound>, cut_off: bool) -> Alone {
    let store = TrustStore::options().clock(Arc::clone(clock) as _).open(home).unwrap();
    let (wire, ends) = Wire::new();
    *wire.cut_off.lock().unwrap() = cut_off;
    let builder = HandshakeManager::builder(Arc::new(store), Arc::new(identity(1)), Arc::clone(&wire) as _);
    let manager = builder.look_up_timeout(SOON).start().unwrap();
    Alone { manager, wire, ends, clock: Arc::clone(clock) }
}

impl Alone {
    fn cut_off(&self, is: bool) {
        *self.wire.cut_off.lock().unwrap() = is;
    }

    fn tries_of_request(&self) -> trustkeep::node::Tries {
        let (peer, entry) = self.manager.outgoing().remove(0);
        self.manager.tries_of_request(peer, &entry)
    }

    fn owed(&self) -> Option<Kind> {
        self.manager.owed().first().map(|(_, entry)| entry.kind)
    }

    /// Lets time pass until so many tries have failed.
    fn fails_until(&self, tries: u32) {
        eventually("it is tried again", || {
            self.clock.wind(1000);
            std::thread::sleep(Duration::from_millis(5));
            self.tries_of_request().tries >= tries
        });
    }

    /// Node 2 asks to be trusted.
    fn is_asked(&self, ahead: i64) -> trustkeep::machine::view::Nonce {
        let peer = identity(2);
        let stamp = self.clock.now().wall.saturating_add(ahead);
        let message = message_from(&peer, Kind::Request, |draft| draft.stamp = stamp);
        self.manager.receive(arrived(message, 2));
        assert_eq!(self.manager.pending().len(), 1);
        self.manager.pending()[0].1.nonce.unwrap()
    }

    fn approves(&self) -> Told {
        let fingerprint = Some(identity(2).public_key().fingerprint());
        self.manager.approve(id(2), fingerprint).unwrap().wait_durable().unwrap();
        self.manager.wait_told(id(2), SOON)
    }
}

fn field(bytes: &[u8], name: &str) -> String {
    let value: serde_json::Value = serde_json::from_slice(bytes).unwrap();
    value[name].as_str().map_or_else(|| value[name].to_string(), str::to_owned)
}

#[test]
fn a_peer_that_was_down_for_ten_minutes_hears_of_a_request_without_another_command() {
    let (home, clock) = (tempfile::tempdir().unwrap(), Arc::new(Wound::default()));
    let node = start_in(home.path(), &clock, true);
    let asked = node.manager.request(id(2), "weather feed", RequestOptions::default());
    assert!(matches!(asked, Err(CommandError::NotSent { .. })), "{asked:?}");
    let tries = node.tries_of_request();
    assert_eq!((tries.sent, tries.tries), (Some(false), 1), "not sent yet");
    assert!(tries.last_error.is_some() && tries.next_try.is_some_and(|next| next > clock.now().wall));
    let nonce = node.manager.outgoing()[0].1.nonce;
    node.fails_until(3);
    clock.wind(10 * MINUTE);
    node.fails_until(4);

    node.cut_off(false);
    clock.wind(10 * MINUTE);
    let (to, bytes) = node.ends.sent.recv_timeout(SOON).expect("the request was not tried again");
    assert_eq!((to, kind_of(&bytes).as_str()), (id(2), "handshake_request"));
    assert_eq!(field(&bytes, "justification"), "weather feed");
    assert_eq!(node.manager.outgoing()[0].1.nonce, nonce, "its answer still counts");
    eventually("it is shown", || node.tries_of_request().sent == Some(true));
    assert_eq!(node.tries_of_request().last_error, None);
}

#[test]
fn a_request_that_left_is_tried_again_under_the_same_nonce_until_it_is_answered() {
    let (home, clock) = (tempfile::tempdir().unwrap(), Arc::new(Wound::default()));
    let node = start_in(home.path(), &clock, false);
    let options = RequestOptions::default().expected_key(identity(2).public_key());
    drop(node.manager.request(id(2), "", options).unwrap());
    let (_, first) = node.ends.sent.recv_timeout(SOON).unwrap();
    clock.wind(20_000);
    let (_, second) = node.ends.sent.recv_timeout(SOON).expect("it was not tried again");
    assert_eq!(field(&first, "nonce"), field(&second, "nonce"));
    assert!(field(&first, "stamp_ms") < field(&second, "stamp_ms"), "each try has a stamp of its own");

    let nonce = node.manager.outgoing()[0].1.nonce;
    let stamp = clock.now().wall;
    let change = |draft: &mut trustkeep::wire::sign::Draft| (draft.answers, draft.stamp) = (Some(nonce), stamp);
    node.manager.receive(arrived(message_from(&identity(2), Kind::Accept, change), 2));
    assert!(node.manager.is_trusted(id(2)));
    clock.wind(HOUR);
    assert!(node.ends.sent.recv_timeout(A_WHILE * 8).is_err(), "an answer ends it");
}

#[test]
fn a_request_that_was_cancelled_is_not_tried_again() {
    let (home, clock) = (tempfile::tempdir().unwrap(), Arc::new(Wound::default()));
    let node = start_in(home.path(), &clock, true);
    assert!(node.manager.request(id(2), "", RequestOptions::default()).is_err());
    drop(node.manager.cancel(id(2)).unwrap());
    node.cut_off(false);
    clock.wind(HOUR);
    assert!(node.ends.sent.recv_timeout(A_WHILE * 8).is_err(), "it was cancelled");
}

#[test]
fn an_accept_that_did_not_leave_is_owed_over_a_restart_and_told_once() {
    let (home, clock) = (tempfile::tempdir().unwrap(), Arc::new(Wound::default()));
    let node = start_in(home.path(), &clock, true);
    let nonce = node.is_asked(0);
    assert!(matches!(node.approves(), Told::NotYet(why) if why.contains("address")));
    assert_eq!(node.owed(), Some(Kind::Accept));
    node.manager.shutdown().unwrap();
    drop(node);

    let node = start_in(home.path(), &clock, false);
    let (to, bytes) = node.ends.sent.recv_timeout(SOON).expect("what is owed is tried when the node starts");
    assert_eq!((to, kind_of(&bytes).as_str()), (id(2), "handshake_accept"));
    let answers = base64(&nonce.0);
    assert_eq!(field(&bytes, "answers"), answers);
    eventually("nothing is owed any more", || node.owed().is_none());
    clock.wind(HOUR);
    assert!(node.ends.sent.recv_timeout(A_WHILE * 8).is_err(), "an accept that left is not sent again");
}

#[test]
fn an_answer_that_leaves_at_once_is_owed_at_no_time_and_costs_no_write() {
    let (home, clock) = (tempfile::tempdir().unwrap(), Arc::new(Wound::default()));
    let node = start_in(home.path(), &clock, false);
    node.is_asked(0);
    let before = node.manager.store().generation();
    assert_eq!(node.approves(), Told::Told);
    assert_eq!(node.manager.store().generation().get(), before.get() + 1, "the grant, and nothing more");
    assert_eq!((node.owed(), node.ends.next().1.as_str()), (None, "handshake_accept"));
}

#[test]
fn what_is_owed_when_a_node_stops_is_not_forgotten() {
    let (home, clock) = (tempfile::tempdir().unwrap(), Arc::new(Wound::default()));
    let node = start_in(home.path(), &clock, false);
    drop(node.manager.store().grant(trustkeep::TrustRecord::new(id(3), None)).unwrap());
    // The only message of this peer hangs, and its farewell waits behind it.
    *node.wire.hangs_to.lock().unwrap() = Some(id(3));
    let shut = node.wire.gate.close();
    drop(node.manager.revoke(id(3)).unwrap());
    eventually("the farewell hangs", || node.wire.gate.waiting() == 1);
    assert_eq!(node.manager.wait_told(id(3), A_WHILE), Told::NotYet("it is still being sent".to_owned()));
    let mark = node.manager.store().revocation(id(3)).unwrap().id;
    drop(node.manager.store().grant_lifting(trustkeep::TrustRecord::new(id(3), None), mark).unwrap());
    drop(node.manager.revoke(id(3)).unwrap());
    node.manager.shutdown().unwrap();
    drop(shut);
    drop(node);
    let node = start_in(home.path(), &clock, false);
    assert_eq!(node.ends.next(), (id(3), "handshake_revoke".to_owned()));
}

#[test]
fn an_opposite_decision_takes_back_what_is_owed() {
    let (home, clock) = (tempfile::tempdir().unwrap(), Arc::new(Wound::default()));
    let node = start_in(home.path(), &clock, true);
    node.is_asked(0);
    assert!(matches!(node.approves(), Told::NotYet(_)));
    drop(node.manager.revoke(id(2)).unwrap());
    assert!(matches!(node.manager.wait_told(id(2), SOON), Told::NotYet(_)));
    assert_eq!(node.owed(), Some(Kind::Revoke));
    node.cut_off(false);
    clock.wind(MINUTE);
    assert_eq!(node.ends.next(), (id(2), "handshake_revoke".to_owned()));
    eventually("nothing is owed any more", || node.owed().is_none());

    // The other way round: the peer is trusted again before it heard of the farewell.
    let (home, clock) = (tempfile::tempdir().unwrap(), Arc::new(Wound::default()));
    let node = start_in(home.path(), &clock, true);
    node.is_asked(0);
    assert!(matches!(node.approves(), Told::NotYet(_)));
    drop(node.manager.revoke(id(2)).unwrap());
    assert!(matches!(node.manager.wait_told(id(2), SOON), Told::NotYet(_)));
    let (mark, record) = (
        node.manager.store().revocation(id(2)).unwrap().id,
        trustkeep::TrustRecord::new(id(2), identity(2).public_key()),
    );
    drop(node.manager.store().grant_lifting(record, mark).unwrap());
    node.cut_off(false);
    clock.wind(MINUTE);
    eventually("nothing is owed any more", || node.owed().is_none());
    assert!(node.ends.sent.recv_timeout(A_WHILE * 8).is_err(), "a farewell would take the new trust back");
}

#[test]
fn what_was_called_off_is_not_said_to_be_tried_again() {
    let (home, clock) = (tempfile::tempdir().unwrap(), Arc::new(Wound::default()));
    let node = start_in(home.path(), &clock, false);
    // A refusal hangs, and an accept of the same peer waits behind it.
    *node.wire.hangs_to.lock().unwrap() = Some(id(2));
    let shut = node.wire.gate.close();
    node.is_asked(0);
    drop(node.manager.reject(id(2), "").unwrap());
    eventually("the refusal hangs", || node.wire.gate.waiting() == 1);
    node.is_asked(1);
    let fingerprint = Some(identity(2).public_key().fingerprint());
    node.manager.approve(id(2), fingerprint).unwrap().wait_durable().unwrap();
    // meanwhile the record gets another key by another door.
    let other = trustkeep::TrustRecord::new(id(2), identity(3).public_key());
    node.manager.store().grant(other).unwrap().wait_durable().unwrap();
    drop(shut);
    assert!(matches!(node.manager.wait_told(id(2), SOON), Told::GivenUp(_)));
    assert_eq!((node.owed(), node.ends.next().1.as_str()), (None, "handshake_reject"));
    assert!(node.ends.sent.recv_timeout(A_WHILE * 8).is_err(), "the accept was for another key");
}

#[test]
fn an_authentic_refusal_is_told_and_ends_the_tries() {
    let (home, clock) = (tempfile::tempdir().unwrap(), Arc::new(Wound::default()));
    let node = start_in(home.path(), &clock, false);
    let events = node.manager.subscribe();
    let options = RequestOptions::default().expected_key(identity(2).public_key());
    drop(node.manager.request(id(2), "", options).unwrap());
    assert_eq!(node.ends.next().1, "handshake_request");
    let nonce = node.manager.outgoing()[0].1.nonce;
    let refuse = |draft: &mut trustkeep::wire::sign::Draft| {
        (draft.answers, draft.reason, draft.stamp) = (Some(nonce), "no room".to_owned(), clock.now().wall);
    };
    node.manager.receive(arrived(message_from(&identity(2), Kind::Reject, refuse), 2));
    let told = events.recv_timeout(SOON);
    assert!(matches!(&told, Some(Event::Rejected { authentic: true, reason, .. }) if reason == "no room"), "{told:?}");
    assert!(node.manager.outgoing()[0].1.refused.as_ref().is_some_and(|refusal| refusal.authentic));
    clock.wind(HOUR);
    assert!(node.ends.sent.recv_timeout(A_WHILE * 8).is_err(), "it was refused");
    // It stands in nobody's way.
    drop(node.manager.request(id(2), "", RequestOptions::default()).unwrap());
    assert_eq!(node.ends.next().1, "handshake_request");
}

#[test]
fn a_refusal_that_nobody_vouches_for_pauses_the_tries_for_an_hour() {
    let (home, clock) = (tempfile::tempdir().unwrap(), Arc::new(Wound::default()));
    let node = start_in(home.path(), &clock, false);
    drop(node.manager.request(id(2), "", RequestOptions::default()).unwrap());
    assert_eq!(node.ends.next().1, "handshake_request");
    let nonce = node.manager.outgoing()[0].1.nonce;
    let refuse = |draft: &mut trustkeep::wire::sign::Draft| {
        (draft.answers, draft.stamp) = (Some(nonce), clock.now().wall);
    };
    node.manager.receive(arrived(message_from(&identity(2), Kind::Reject, refuse), 2));
    assert!(node.manager.outgoing()[0].1.refused.as_ref().is_some_and(|refusal| !refusal.authentic));
    // What is shown of the next try heeds the pause, whether or not the timer has woken since.
    eventually("the next try is shown", || node.tries_of_request().next_try.is_some());
    assert_eq!(node.tries_of_request().next_try, Some(clock.now().wall.saturating_add(HOUR)));
    clock.wind(59 * MINUTE);
    assert!(node.ends.sent.recv_timeout(A_WHILE * 8).is_err(), "not within the hour");
    clock.wind(MINUTE);
    assert_eq!(node.ends.next().1, "handshake_request");
}

fn base64(bytes: &[u8]) -> String {
    use ::base64::Engine as _;
    ::base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[test]
fn a_decision_that_tells_nobody_is_not_taken_for_one_that_was_told() {
    let (home, clock) = (tempfile::tempdir().unwrap(), Arc::new(Wound::default()));
    let node = start_in(home.path(), &clock, false);
    assert_eq!(node.manager.wait_told(id(2), SOON), Told::Nothing);
    node.is_asked(0);
    drop(node.manager.reject(id(2), "not yet").unwrap());
    assert_eq!(node.manager.wait_told(id(2), SOON), Told::Told);
    // An answer under a key that nobody vouches for: approving it sends nothing.
    drop(node.manager.request(id(2), "", RequestOptions::default()).unwrap());
    let nonce = node.manager.outgoing()[0].1.nonce;
    let change = |draft: &mut trustkeep::wire::sign::Draft| {
        (draft.answers, draft.stamp) = (Some(nonce), clock.now().wall.saturating_add(1));
    };
    node.manager.receive(arrived(message_from(&identity(2), Kind::Accept, change), 2));
    assert_eq!(node.approves(), Told::Nothing);
    assert!(node.manager.is_trusted(id(2)));
}
