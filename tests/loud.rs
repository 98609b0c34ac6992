//! What a node tells without being asked: the log's lines about false keys and about newcomers that found no room, each with
//! what the status and the events say of it; and what a command says of clocks that differ.
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
mod program;

use std::fmt;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, Once};

use base64::Engine as _;
use common::{A_WHILE, Book, alone, alone_with, arrived, count, eventually, id, identity, message_from, now};
use program::{Node, init, text};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Metadata, Subscriber};
use trustkeep::clock::{Clock, SystemClock};
use trustkeep::config::{HandshakeConfig, Limits};
use trustkeep::machine::view::Nonce;
use trustkeep::node::{FileIdentity, Identity as _, RegistryEntry};
use trustkeep::time::Now;
use trustkeep::wire::message::Kind;
use trustkeep::{Event, TrustRecord, TrustStore};

/// Keeps every line, for all tests of this program.
struct Log;

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());
static LOG: Once = Once::new();

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.push_str(&format!("{}={value:?} ", field.name()));
    }
}

impl Subscriber for Log {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = Line(format!("{} ", event.metadata().level()));
        event.record(&mut line);
        LINES.lock().unwrap().push(line.0);
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

fn log() {
    LOG.call_once(|| tracing::subscriber::set_global_default(Log).unwrap());
}

fn lines_with(text: &str) -> Vec<String> {
    LINES.lock().unwrap().iter().filter(|line| line.contains(text)).cloned().collect()
}

const FALSE_KEY: &str = "a peer has another key than the one known for it";

#[test]
fn a_false_key_is_in_the_log_the_event_and_the_status() {
    log();
    let (manager, _wire, _ends) = alone(|builder| builder);
    let (peer, thief) = (identity(77), FileIdentity::from_seed(id(77), &[177; 32]).unwrap());
    let false_one = |nonce| message_from(&thief, Kind::Revoke, |draft| draft.nonce = Nonce([nonce; 16]));
    drop(manager.store().grant(TrustRecord::new(id(77), peer.public_key())).unwrap());
    // The twin: the known key tells nothing.
    manager.receive(arrived(message_from(&peer, Kind::Request, |_| {}), 8));
    assert_eq!((manager.newest_false_key(), lines_with("peer=77 ").len()), (None, 0));

    let (events, before) = (manager.subscribe(), now());
    manager.receive(arrived(false_one(1), 9));
    let (expected, shown) = (peer.public_key().fingerprint(), thief.public_key().fingerprint());
    let source = arrived(Vec::new(), 9).path.source();
    let told = Event::KeyMismatch { peer: id(77), source: Some(source), expected, shown, ended: false };
    assert_eq!(events.try_recv(), Some(told));
    let lines = lines_with("peer=77 ");
    let [line] = &lines[..] else { panic!("{lines:?}") };
    assert!(line.starts_with("WARN ") && line.contains(FALSE_KEY), "{line}");
    for word in ["10.0.0.9", &format!("expected={expected} "), &format!("shown={shown} "), "ended=false "] {
        assert!(line.contains(word), "{word} is not in: {line}");
    }
    let newest = manager.newest_false_key().unwrap();
    assert!(newest.at >= before, "{newest:?}");
    assert_eq!((newest.peer, newest.source, newest.ended), (id(77), Some(source), false));
    assert_eq!((newest.expected, newest.shown), (expected, shown));
    assert_eq!(count(&manager, "key_mismatch"), 1);

    // A second one within the second is told to nobody, and is in the status all the same.
    for nonce in 2..=20 {
        manager.receive(arrived(false_one(nonce), 10));
    }
    let newest = manager.newest_false_key().unwrap();
    assert_eq!((newest.peer, newest.source), (id(77), Some(arrived(Vec::new(), 10).path.source())));
    assert_eq!(count(&manager, "key_mismatch"), 20);
}

/// A clock that stands still, so that a second never passes.
#[derive(Debug)]
struct Still(Now);

impl Clock for Still {
    fn now(&self) -> Now {
        self.0
    }
}

fn standing_still() -> Arc<TrustStore> {
    Arc::new(TrustStore::options().clock(Arc::new(Still(SystemClock.now()))).in_memory().unwrap())
}

#[test]
fn false_keys_under_many_ids_have_few_lines_of_the_log_and_an_end_of_trust_has_its_line() {
    log();
    let book = Arc::new(Book::default());
    let registry = Arc::clone(&book) as _;
    let (manager, _wire, _ends) = alone_with(standing_still(), |builder| builder.registry(registry));
    let mine = |lines: Vec<String>, ids: std::ops::Range<u32>| {
        lines
            .into_iter()
            .filter(|line| ids.clone().any(|peer| line.contains(&format!("peer={peer} "))))
            .collect::<Vec<_>>()
    };
    for number in 3000..3065 {
        drop(manager.store().grant(TrustRecord::new(id(number), identity(number).public_key())).unwrap());
    }
    let forged = |number, kind| {
        let thief = FileIdentity::from_seed(id(number), &[178; 32]).unwrap();
        message_from(&thief, kind, |_| {})
    };
    let events = manager.subscribe();
    for number in 3000..3064 {
        manager.receive(arrived(forged(number, Kind::Revoke), 30));
    }
    let lines = mine(lines_with(FALSE_KEY), 3000..3065);
    assert_eq!(lines.len(), 8, "{lines:?}");
    assert!(lines.iter().all(|line| line.contains("left_out=0 ")), "{lines:?}");
    // Subscribers and the count have what they had before.
    let told = std::iter::from_fn(|| events.try_recv()).count();
    assert_eq!((told, count(&manager, "key_mismatch")), (32, 64));

    // The twin: the registry says that this peer has another key now, which ends the trust under the old one.
    book.put_entry(id(3064), RegistryEntry::new(FileIdentity::from_seed(id(3064), &[178; 32]).unwrap().public_key()));
    manager.receive(arrived(forged(3064, Kind::Request), 30));
    assert!(!manager.store().is_trusted_with_key(id(3064), &identity(3064).public_key()));
    let lines = mine(lines_with(FALSE_KEY), 3064..3065);
    let [line] = &lines[..] else { panic!("{lines:?}") };
    assert!(line.contains("ended=true ") && line.contains("left_out=56 "), "{line}");
}

#[test]
fn false_keys_without_a_line_of_the_log_are_counted_there_when_no_other_comes() {
    log();
    let mut config = HandshakeConfig::default();
    config.housekeeping_every = A_WHILE;
    let (manager, _wire, _ends) = alone_with(standing_still(), |builder| builder.config(config));
    drop(manager.store().grant(TrustRecord::new(id(3100), identity(3100).public_key())).unwrap());
    let thief = FileIdentity::from_seed(id(3100), &[178; 32]).unwrap();
    for nonce in 1..=20 {
        manager.receive(arrived(message_from(&thief, Kind::Revoke, |draft| draft.nonce = Nonce([nonce; 16])), 31));
    }
    // In one line or in several: no other test waits for housekeeping.
    let left_out = || -> u32 {
        let of =
            |line: &String| line.split_once("left_out=").unwrap().1.split_once(' ').unwrap().0.parse::<u32>().unwrap();
        lines_with("no line of the log tells of those").iter().map(of).sum()
    };
    eventually("the log counts them", || left_out() == 19);
}

#[test]
fn a_newcomer_that_finds_no_room_is_told_to_the_log_with_its_source() {
    log();
    let mut limits = Limits::default();
    limits.pending_per_source_max = 1;
    let store = Arc::new(TrustStore::options().limits(limits).in_memory().unwrap());
    let (manager, _wire, _ends) = alone_with(store, |builder| builder);
    let of =
        |what: &str| lines_with(what).into_iter().filter(|line| line.contains("refused so far")).collect::<Vec<_>>();
    manager.receive(arrived(message_from(&identity(50), Kind::Request, |_| {}), 61));
    assert_eq!(of("10.0.0.61").len(), 0, "there is room");
    manager.receive(arrived(message_from(&identity(51), Kind::Request, |_| {}), 61));
    let lines = of("10.0.0.61");
    let [line] = &lines[..] else { panic!("{lines:?}") };
    assert!(line.contains("from 10.0.0.61, 1 refused so far"), "{line}");
    assert!(line.contains("name=\"pending_source_full\""), "{line}");
}

/// Node 7 asks node 9, which answers by a clock that is so many milliseconds ahead; what the command says, and the status.
fn asks(ahead: i64) -> (String, String) {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("seven");
    init(&home, "7");
    let nine = identity(9);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, key) = (listener.local_addr().unwrap(), nine.public_key().to_base64());
    std::fs::write(
        home.join("peers.toml"),
        format!("[[peer]]\nid = 9\naddress = \"{address}\"\npublic_key = \"{key}\"\n"),
    )
    .unwrap();
    let node = Node::start(&home, "127.0.0.1:0");
    let listen = node.listen.clone();
    let answers = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_to_end(&mut bytes).unwrap();
        let request: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        let nonce = request["nonce"].as_str().unwrap().to_owned();
        let accept = message_from(&nine, Kind::Accept, |draft| {
            (draft.to, draft.answers) = (id(7), Some(nonce_from(&nonce)));
            draft.stamp = now().saturating_add(ahead);
        });
        TcpStream::connect(&listen).unwrap().write_all(&accept).unwrap();
    });
    let (code, out, err) = program::run(&["request", "--home", text(&home), "9", "--wait", "60"]);
    answers.join().unwrap();
    assert_eq!(code, 0, "{out}{err}");
    (err, program::run(&node.args(&["status"])).1)
}

fn nonce_from(text: &str) -> Nonce {
    Nonce(base64::engine::general_purpose::STANDARD.decode(text).unwrap().try_into().unwrap())
}

#[test]
fn a_request_that_is_answered_warns_of_clocks_that_differ() {
    let (err, status) = asks(20_000);
    assert!(err.contains("the newest answer to a request was stamped ") && err.contains("ahead of our clock"), "{err}");
    assert!(
        status.contains("clocks       answer: the newest stamp was ") && status.contains("s ahead of our clock"),
        "{status}"
    );
    let (err, status) = asks(-60_000);
    assert!(err.contains("s behind our clock: one of the clocks is wrong"), "{err}");
    assert!(status.contains("s behind our clock"), "{status}");
    // The twin.
    let (err, status) = asks(0);
    assert!(err.is_empty() && !status.contains("clocks "), "{err}{status}");
}
