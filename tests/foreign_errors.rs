//! Errors of a registry, a relay, a transport and a source of random bytes that panic when they are shown or dropped, with
//! a log on: they cost their own text, and no thread of the node.
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

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::*;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};
use trustkeep::NodeId;
use trustkeep::config::HandshakeConfig;
use trustkeep::node::{
    Builder, CommandError, Fetched, Inbox, Random, Registry, RegistryEntry, RegistryError, Relayed, Relaying,
    RequestOptions, Revision, SendError, SystemRandom, Transport,
};
use trustkeep::wire::message::Kind;

/// An error that harms whoever looks at it, or lets go of it.
struct Bad;

impl fmt::Display for Bad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("half of it")?;
        go_off()
    }
}

impl fmt::Debug for Bad {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        go_off()
    }
}

impl std::error::Error for Bad {}

impl Drop for Bad {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            go_off();
        }
    }
}

fn bad() -> RegistryError {
    RegistryError::Other(Arc::new(Bad))
}

/// A log that shows everything, as one on a terminal does.
struct Log;

struct Shows(String);

impl Visit for Shows {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.push_str(&format!("{}={value:?} ", field.name()));
    }
}

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

impl Subscriber for Log {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut shows = Shows(String::new());
        event.record(&mut shows);
        LINES.lock().unwrap().push(shows.0);
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// Fails in every call but those that a test waits for, and those only after a while.
#[derive(Default)]
struct Failing {
    fetched: Mutex<usize>,
    refused: Mutex<usize>,
    acknowledged: Mutex<Vec<Revision>>,
    asked: Mutex<usize>,
}

impl Registry for Failing {
    fn look_up(&self, _: NodeId) -> Result<Option<RegistryEntry>, RegistryError> {
        *self.asked.lock().unwrap() += 1;
        Err(bad())
    }
    fn report_grant(&self, _: NodeId) -> Result<(), RegistryError> {
        Err(bad())
    }
    fn report_revoke(&self, _: NodeId) -> Result<(), RegistryError> {
        Err(bad())
    }
    fn relaying(&self) -> Relaying {
        Relaying::Poll
    }
    fn relay(&self, _: NodeId, _: Kind, _: &[u8]) -> Result<(), RegistryError> {
        Err(bad())
    }
    fn fetch(&self, after: Revision, _: usize, _: Duration) -> Fetched {
        let mut fetched = self.fetched.lock().unwrap();
        *fetched += 1;
        let message = |number: u32| {
            Relayed::new(
                Revision(number.into()),
                id(number),
                message_from(&identity(number), Kind::Request, |draft| draft.to = id(1)),
            )
        };
        match *fetched {
            1..4 => Fetched::partly(Vec::new(), bad()),
            // While the registry fails, a message is put off 8 times.
            4..16 => Fetched::partly(vec![message(2)], bad()),
            _ if after < Revision(3) => Fetched::all(vec![message(3)]),
            _ => Fetched::partly(Vec::new(), bad()),
        }
    }
    fn acknowledge(&self, message: Revision) -> Result<(), RegistryError> {
        let mut refused = self.refused.lock().unwrap();
        *refused += 1;
        if *refused <= 3 {
            return Err(bad());
        }
        self.acknowledged.lock().unwrap().push(message);
        Ok(())
    }
}

struct NoWay;

impl Transport for NoWay {
    fn start(&self, _: Arc<dyn Inbox>) -> io::Result<()> {
        Ok(())
    }
    fn send(&self, _: NodeId, _: &[u8]) -> Result<(), SendError> {
        Err(SendError::Other(Box::new(Bad)))
    }
    fn disconnect(&self, _: NodeId) {}
    fn stop_receiving(&self, _: Duration) {}
    fn stop_sending(&self) {}
}

/// Fails, but for the first calls of each kind that a message needs.
struct Unreliable;

impl Random for Unreliable {
    fn fill(&self, bytes: &mut [u8]) -> io::Result<()> {
        // What spreads a pause; nonces are longer.
        if bytes.len() == 1 {
            return Err(io::Error::other(Bad));
        }
        SystemRandom.fill(bytes)
    }
}

fn eager(builder: Builder) -> Builder {
    let mut config = HandshakeConfig::default();
    (config.relay_poll_min, config.relay_poll_max) = (Duration::from_millis(1), Duration::from_millis(5));
    builder.config(config)
}

#[test]
fn errors_that_panic_when_shown_or_dropped_cost_no_thread() {
    tracing::subscriber::set_global_default(Log).unwrap();
    let registry = Arc::new(Failing::default());
    let store = Arc::new(trustkeep::TrustStore::in_memory());
    let builder = trustkeep::HandshakeManager::builder(store, Arc::new(identity(1)), Arc::new(NoWay));
    let builder = builder.registry(Arc::clone(&registry) as Arc<dyn Registry>).random(Arc::new(Unreliable));
    let manager = eager(builder).start().unwrap();

    // Fetching goes on behind every failure, what came is shown to the operator, and is acknowledged in the end.
    eventually("the second message", || manager.pending().len() == 2);
    eventually("acknowledged", || {
        let mut acknowledged = registry.acknowledged.lock().unwrap().clone();
        acknowledged.sort_unstable();
        acknowledged.dedup();
        acknowledged == [Revision(2), Revision(3)]
    });
    assert!(count(&manager, "fetch_failed") >= 5 && count(&manager, "not_acknowledged") >= 3);
    // A look-up that failed so counts as one that failed, and the messages were not lost over it.
    assert!(count(&manager, "look_up_failed") >= 2 && *registry.asked.lock().unwrap() >= 2);

    // A call says what was wrong, as far as it can be said. Dropping that is the caller's own business.
    let error = Box::leak(Box::new(manager.request(id(9), "", RequestOptions::default()).unwrap_err()));
    assert!(matches!(error, CommandError::NotSent { relay: Some(_), .. }));
    let said = error.to_string();
    assert_eq!(said.matches("an error that cannot be shown").count(), 2, "{said}");

    // Answers and reports that fail are counted.
    drop(manager.approve(id(2), shown(&manager, id(2))).unwrap());
    eventually("not reported", || count(&manager, "not_reported") >= 1);
    eventually("not sent", || count(&manager, "not_sent") >= 1);
    drop(manager.revoke(id(2)).unwrap());
    eventually("the farewell was not sent", || count(&manager, "not_sent") >= 2);
    eventually("fetching still", || {
        let before = *registry.fetched.lock().unwrap();
        eventually("another", || *registry.fetched.lock().unwrap() > before + 2);
        true
    });
    manager.shutdown().unwrap();
    assert_eq!(count(&manager, "panicked"), 0, "{:?}", manager.counters());
    let lines = LINES.lock().unwrap().join("\n");
    for name in ["fetch_failed", "not_acknowledged", "look_up_failed", "not_reported", "not_sent"] {
        assert!(lines.lines().any(|line| line.contains(name) && line.contains("cannot be shown")), "{name}: {lines}");
    }
}
