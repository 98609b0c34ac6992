//! A relay is trusted with no first use: not by the way of its own, nor by any other.
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

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::*;
use trustkeep::config::Policy;
use trustkeep::node::{
    CommandError, Fetched, Identity as _, Received, Registry, RegistryEntry, RegistryError, Relaying, RequestOptions,
    Revision,
};
use trustkeep::wire::message::Kind;
use trustkeep::{HandshakeManager, NodeId, TrustStore};

type Answer = fn() -> Result<(), RegistryError>;

/// A relay that knows nobody's key, and does with what it is given as the test says.
struct Sly {
    answer: Answer,
    had: Mutex<usize>,
    /// What a crash would have left when it was given a request.
    disk: Option<Arc<Disk>>,
    left: Mutex<Vec<Option<TrustStore>>>,
    gate: Gate,
}

impl Sly {
    fn new(answer: Answer, disk: Option<Arc<Disk>>) -> Arc<Self> {
        let (had, left, gate) = (Mutex::new(0), Mutex::new(Vec::new()), Gate::default());
        Arc::new(Self { answer, had, disk, left, gate })
    }

    fn had(&self) -> usize {
        *self.had.lock().unwrap()
    }
}

impl Registry for Sly {
    fn look_up(&self, _: NodeId) -> Result<Option<RegistryEntry>, RegistryError> {
        Ok(None)
    }
    fn relaying(&self) -> Relaying {
        Relaying::Poll
    }
    fn relay(&self, _: NodeId, _: Kind, _: &[u8]) -> Result<(), RegistryError> {
        *self.had.lock().unwrap() += 1;
        if let Some(disk) = &self.disk {
            self.left.lock().unwrap().push(disk.crashed_store());
        }
        self.gate.pass();
        (self.answer)()
    }
    fn fetch(&self, _: Revision, _: usize, _: Duration) -> Fetched {
        Fetched::default()
    }
    fn acknowledge(&self, _: Revision) -> Result<(), RegistryError> {
        Ok(())
    }
}

fn trusting() -> Policy {
    Policy::default().trust_on_first_use(true)
}

fn node(store: Arc<TrustStore>, sly: &Arc<Sly>, policy: Policy) -> (HandshakeManager, Arc<Wire>, WireEnds) {
    let (wire, ends) = Wire::new();
    let registry = Arc::clone(sly) as Arc<dyn Registry>;
    let builder = HandshakeManager::builder(store, Arc::new(identity(1)), Arc::clone(&wire) as _);
    let builder = builder.registry(registry).policy(policy).look_up_timeout(Duration::from_millis(700));
    (builder.start().unwrap(), wire, ends)
}

fn in_memory() -> Arc<TrustStore> {
    Arc::new(TrustStore::in_memory())
}

/// Asks node 2, directly or, if that cannot be done, by the relay.
fn ask(manager: &HandshakeManager, wire: &Wire, direct: bool) -> Result<(), CommandError> {
    *wire.cut_off.lock().unwrap() = !direct;
    manager.request(id(2), "", RequestOptions::default()).map(drop)
}

/// Anybody who knows the nonce of the newest request answers it, straight from a host of their own. Whether that is trusted.
fn is_believed(manager: &HandshakeManager) -> bool {
    let nonce = manager.outgoing()[0].1.nonce;
    let accept = message_from(&identity(2), Kind::Accept, |draft| draft.answers = Some(nonce));
    manager.receive(arrived(accept, 9));
    manager.is_trusted(id(2))
}

#[test]
fn a_relay_that_had_the_request_is_trusted_with_no_first_use_by_any_way() {
    // It takes the request, takes it and says no, or takes so long that nobody knows.
    let ways: [(&str, Answer, bool); 4] = [
        ("taken", || Ok(()), false),
        ("busy", || Err(RegistryError::Busy), false),
        ("panics", || go_off(), false),
        ("hangs", || Ok(()), true),
    ];
    for (name, answer, hangs) in ways {
        let sly = Sly::new(answer, None);
        let shut = hangs.then(|| sly.gate.close());
        let (manager, wire, _ends) = node(in_memory(), &sly, trusting());
        drop(ask(&manager, &wire, false));
        assert!(sly.had() == 1 && manager.outgoing()[0].1.relayed, "{name}");
        assert!(!is_believed(&manager), "{name}");
        assert_eq!(manager.pending().len(), 1, "{name}: it waits for the operator");
        drop(shut);
    }
    // The twin: directly, where nobody but who is on the path sees the nonce.
    let sly = Sly::new(|| Ok(()), None);
    let (manager, wire, _ends) = node(in_memory(), &sly, trusting());
    ask(&manager, &wire, true).unwrap();
    assert!(sly.had() == 0 && is_believed(&manager));
}

#[test]
fn asking_again_directly_is_a_request_that_no_relay_had() {
    let sly = Sly::new(|| Ok(()), None);
    let (manager, wire, _ends) = node(in_memory(), &sly, trusting());
    ask(&manager, &wire, false).unwrap();
    let first = manager.outgoing()[0].1.nonce;
    ask(&manager, &wire, true).unwrap();
    assert!(!manager.outgoing()[0].1.relayed);
    // An answer to what the relay had is none to this.
    let accept = message_from(&identity(2), Kind::Accept, |draft| draft.answers = Some(first));
    manager.receive(arrived(accept, 9));
    assert_eq!((count(&manager, "wrong_answer"), manager.is_trusted(id(2))), (1, false));
    assert!(is_believed(&manager));
    // And the other way round.
    let (manager, wire, _ends) = node(in_memory(), &sly, trusting());
    ask(&manager, &wire, true).unwrap();
    ask(&manager, &wire, false).unwrap();
    assert!(!is_believed(&manager));
}

#[test]
fn that_a_relay_may_have_a_request_is_durable_before_it_has_it() {
    let disk = Arc::new(Disk::default());
    let open = || Arc::new(TrustStore::options().open_storage(Arc::clone(&disk) as _).unwrap());
    let sly = Sly::new(|| Ok(()), Some(Arc::clone(&disk)));
    let (manager, wire, _ends) = node(open(), &sly, trusting());
    ask(&manager, &wire, false).unwrap();
    let left = sly.left.lock().unwrap().remove(0).expect("a crash leaves a store");
    let (again, ..) = node(Arc::new(left), &sly, trusting());
    assert!(again.outgoing()[0].1.relayed && !is_believed(&again));
    drop(again);

    // A disk that hangs keeps the request from the relay, where that would be believed.
    let shut = disk.gate.close();
    let not_saved = ask(&manager, &wire, false);
    let is_told = |error: &RegistryError| matches!(error, RegistryError::NotSaved);
    assert!(
        matches!(&not_saved, Err(CommandError::NotSent { relay: Some(error), .. }) if is_told(error)),
        "{not_saved:?}"
    );
    assert_eq!(sly.had(), 1);
    drop(shut);
    ask(&manager, &wire, false).unwrap();
    assert_eq!(sly.had(), 2);
    manager.shutdown().unwrap();

    // Where no first use is trusted it does not.
    let (manager, wire, _ends) = node(open(), &sly, Policy::default());
    let _shut = disk.gate.close();
    ask(&manager, &wire, false).unwrap();
    assert_eq!(sly.had(), 3);
}

#[test]
fn what_was_called_off_goes_to_no_relay() {
    let sly = Sly::new(|| Ok(()), None);
    let (manager, wire, ends) = node(in_memory(), &sly, trusting());
    let (manager, wire) = (Arc::new(manager), wire);
    // The direct way hangs, and fails in the end; meanwhile the operator has cancelled.
    *wire.hangs_to.lock().unwrap() = Some(id(2));
    *wire.panics_to.lock().unwrap() = Some(id(2));
    let shut = wire.gate.close();
    let asking = {
        let manager = Arc::clone(&manager);
        std::thread::spawn(move || manager.request(id(2), "", RequestOptions::default()).map(drop))
    };
    assert_eq!(ends.next().0, id(2));
    drop(manager.cancel(id(2)).unwrap());
    drop(shut);
    let asked = asking.join().unwrap();
    assert!(matches!(asked, Err(CommandError::NotSent { relay: None, .. })), "{asked:?}");
    assert_eq!(sly.had(), 0);
}

#[test]
fn a_relayed_answer_is_no_first_use_either() {
    let sly = Sly::new(|| Ok(()), None);
    let (manager, wire, _ends) = node(in_memory(), &sly, trusting());
    ask(&manager, &wire, true).unwrap();
    let nonce = manager.outgoing()[0].1.nonce;
    let accept = message_from(&identity(2), Kind::Accept, |draft| draft.answers = Some(nonce));
    manager.receive(Received::relayed(accept, id(2)));
    assert!(!manager.is_trusted(id(2)));
    assert_eq!(manager.pending()[0].1.key, identity(2).public_key());
}

#[test]
fn a_try_that_goes_to_a_relay_waits_for_the_disk_like_the_first() {
    let disk = Arc::new(Disk::default());
    let open = || Arc::new(TrustStore::options().open_storage(Arc::clone(&disk) as _).unwrap());
    // The life that asked had no relay, and no way to the peer.
    let (manager, wire, _ends) = alone_with(open(), |builder| builder);
    drop(ask(&manager, &wire, false).unwrap_err());
    manager.shutdown().unwrap();
    let sly = Sly::new(|| Ok(()), Some(Arc::clone(&disk)));
    let (wire, _ends) = Wire::new();
    *wire.cut_off.lock().unwrap() = true;
    let store = open();
    let shut = disk.gate.close();
    let builder = HandshakeManager::builder(store, Arc::new(identity(1)), Arc::clone(&wire) as _);
    let builder = builder.registry(Arc::clone(&sly) as _).policy(trusting());
    let manager = builder.start().unwrap();
    eventually("the try is marked", || manager.outgoing()[0].1.relayed);
    eventually("the mark is being saved", || disk.gate.waiting() > 0);
    let had = sly.had();
    drop(shut);
    assert_eq!(had, 0, "before it is saved");
    eventually("the relay has it", || sly.had() == 1);
    let left = sly.left.lock().unwrap().remove(0).expect("a crash leaves a store");
    let (again, ..) = node(Arc::new(left), &sly, trusting());
    assert!(again.outgoing()[0].1.relayed);
}
