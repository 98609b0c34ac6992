//! Handshake messages from bytes to publish, without a network, next to the one signature check that each of them needs.
//!
//! What must hold: good messages are good (none is refused), bad ones are refused for the reason that their name says, and
//! no look-up is made for those. The messages of a goal are of one length. Answers are signed and sent by the node's own
//! threads to a transport that takes them; they are no part of the figure, which is that of the thread that receives.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_types,
    reason = "a measurement stops when something does not hold"
)]

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use trustkeep::clock::{Clock as _, SystemClock};
use trustkeep::machine::effect::Draft;
use trustkeep::machine::view::Source;
use trustkeep::node::{FileIdentity, Inbox, Received, Registry, RegistryEntry, RegistryError, SendError, Transport};
use trustkeep::wire::message::{Kind as Type, Message, Nonce};
use trustkeep::wire::sign::sign_draft;
use trustkeep::{HandshakeManager, NodeId, PublicKey, TrustRecord, TrustStore, WallMillis};

use super::{Kind, Plan, Wanted, goal, nanos};
use crate::figure::{Range, Side, Unit, three_digits};
use crate::goals::Line;
use crate::one_core::OneCore;
use crate::rounds::{DEPTHS, alternate, at_depth, mean_both};
use crate::workload::id;

pub(super) const REQUESTS: Kind = Kind { goals: &["requests_known"], measure: requests };
pub(super) const REJECTED: Kind = Kind {
    goals: &["message_stale", "message_replayed", "message_unknown_type", "message_bad_signature"],
    measure: rejected,
};

/// A network that takes everything and brings nothing.
#[derive(Debug, Default)]
struct Nowhere;

impl Transport for Nowhere {
    fn start(&self, _: Arc<dyn Inbox>) -> io::Result<()> {
        Ok(())
    }
    fn send(&self, _: NodeId, _: &[u8]) -> Result<(), SendError> {
        Ok(())
    }
    fn disconnect(&self, _: NodeId) {}
    fn stop_receiving(&self, _: Duration) {}
    fn stop_sending(&self) {}
}

/// A registry in memory that knows every peer, and counts how often it is asked.
#[derive(Debug, Default)]
struct Book {
    keys: std::collections::BTreeMap<NodeId, PublicKey>,
    // ORDERING: Relaxed throughout; a counter of the measurement. No partner in docs/concurrency.md.
    asked: AtomicU64,
}

impl Registry for Book {
    fn look_up(&self, peer: NodeId) -> Result<Option<RegistryEntry>, RegistryError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        Ok(self.keys.get(&peer).map(|key| RegistryEntry::new(*key)))
    }
    fn may_block(&self) -> bool {
        false
    }
    fn report_grant(&self, _: NodeId) -> Result<(), RegistryError> {
        Ok(())
    }
    fn report_revoke(&self, _: NodeId) -> Result<(), RegistryError> {
        Ok(())
    }
}

/// One check of a signature, with everything decoded beforehand.
struct Check {
    key: VerifyingKey,
    bytes: Vec<u8>,
    signature: Signature,
}

/// A node that trusts some peers, and those peers.
pub(crate) struct Scene {
    manager: HandshakeManager,
    book: Arc<Book>,
    peers: Vec<(NodeId, SigningKey, PublicKey)>,
    stamp: WallMillis,
    sent: u32,
}

impl core::fmt::Debug for Scene {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Scene").field("peers", &self.peers.len()).finish_non_exhaustive()
    }
}

impl Scene {
    /// With so many peers, each trusted under its key, and with a store in this directory.
    #[must_use]
    pub(crate) fn new(dir: &std::path::Path, peers: u32) -> Self {
        let peers: Vec<_> = (0..peers)
            .map(|number| {
                let mut seed = [7; 32];
                seed[..4].copy_from_slice(&number.to_le_bytes());
                let key = SigningKey::from_bytes(&seed);
                let public = PublicKey::from_bytes(key.verifying_key().to_bytes()).unwrap();
                (id(number), key, public)
            })
            .collect();
        let store = Arc::new(TrustStore::open(dir).unwrap());
        let (_, receipt) = store
            .update(|batch| peers.iter().for_each(|(peer, _, key)| batch.grant(TrustRecord::new(*peer, *key)).unwrap()))
            .unwrap();
        receipt.wait_durable().unwrap();
        let keys = peers.iter().map(|(peer, _, key)| (*peer, *key)).collect();
        let book = Arc::new(Book { keys, asked: AtomicU64::new(0) });
        let identity = Arc::new(FileIdentity::from_seed(US, &[9; 32]).unwrap());
        let manager = HandshakeManager::builder(store, identity, Arc::new(Nowhere))
            .registry(Arc::clone(&book) as Arc<dyn Registry>)
            .start()
            .unwrap();
        // Later than the floor that a record has by its age (30 s before it), and early enough that each message can be
        // newer than the last and none comes from the future.
        let stamp = SystemClock.now().wall.saturating_add(-20_000);
        let scene = Self { manager, book, peers, stamp, sent: 0 };
        // A node that starts compares its records with the registry: that is no part of any figure.
        while scene.looked_up() < scene.peers.len() as u64 {
            std::thread::yield_now();
        }
        scene.book.asked.store(0, Ordering::Relaxed);
        scene
    }

    /// The next signed request, from each peer in turn, newer than all before, with a reason of this length; and what it
    /// takes to check its signature.
    fn request(&mut self, reason_bytes: usize, stamp: Option<WallMillis>) -> (Message, Check) {
        let (peer, key, public) = &self.peers[self.sent as usize % self.peers.len()];
        self.sent += 1;
        if (self.sent as usize).is_multiple_of(self.peers.len()) {
            self.stamp = self.stamp.saturating_add(1);
        }
        let mut nonce = [0; 16];
        nonce[..4].copy_from_slice(&self.sent.to_le_bytes());
        let draft = Draft {
            to: US,
            kind: Type::Request,
            justification: "x".repeat(reason_bytes),
            reason: String::new(),
            nonce: Nonce(nonce),
            answers: None,
            stamp: stamp.unwrap_or(self.stamp),
            for_key: None,
        };
        let mut check = None;
        let message = sign_draft(*peer, public, &draft, |bytes| {
            let signature = key.sign(bytes);
            check = Some(Check { key: key.verifying_key(), bytes: bytes.to_vec(), signature });
            signature.to_bytes()
        });
        (message, check.unwrap())
    }

    /// Nanoseconds for each of these messages.
    fn receive(&self, messages: Vec<Vec<u8>>) -> f64 {
        self.receive_both(messages)[0]
    }

    /// The same, and by the processor time of the thread that receives.
    fn receive_both(&self, messages: Vec<Vec<u8>>) -> [f64; 2] {
        let count = messages.len();
        let received: Vec<Received> = messages.into_iter().map(|bytes| Received::new(bytes, SOURCE())).collect();
        mean_both(count, || received.into_iter().for_each(|message| self.manager.receive(message)))
    }

    /// How often messages were refused, by reason.
    fn refused(&self, reason: &str) -> u64 {
        self.manager.counters().into_iter().filter(|(name, _)| *name == reason).map(|(_, count)| count).sum()
    }

    fn refused_at_all(&self) -> u64 {
        self.manager.counters().into_iter().map(|(_, count)| count).sum()
    }

    fn looked_up(&self) -> u64 {
        self.book.asked.load(Ordering::Relaxed)
    }
}

const SOURCE: fn() -> Source = || Source::from_address(std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)));
/// Our own id.
pub(super) const US: NodeId = match NodeId::new(u32::MAX) {
    Some(id) => id,
    None => unreachable!(),
};

fn requests(plan: &Plan, _: &Wanted<'_>) -> Vec<Line> {
    let _one = OneCore::enter();
    let mut scene = Scene::new(&plan.home.join("requests"), 256);
    let count = plan.or(2000, 5000);
    let scene = core::cell::RefCell::new(&mut scene);
    let batch = || (0..count).map(|_| scene.borrow_mut().request(40, None)).collect::<Vec<_>>();
    // Each round at another depth of the stack, and both sides at the same: see `at_depth`.
    let rounds = plan.rounds();
    let (of_ours, of_peer) = (core::cell::Cell::new(0), core::cell::Cell::new(0));
    let depth = |round: &core::cell::Cell<usize>| round.replace(round.get() + 1) * DEPTHS / (rounds + 1);
    let [ours, peer] = alternate(
        rounds,
        [
            &mut || {
                let messages = batch().iter().map(|(message, ..)| message.to_json()).collect();
                at_depth(depth(&of_ours), || scene.borrow().receive_both(messages)).map(|nanos| 1e9 / nanos)
            },
            &mut || {
                let checks: Vec<Check> = batch().into_iter().map(|(_, check)| check).collect();
                let check = || {
                    assert!(checks.iter().all(|it| it.key.verify_strict(&it.bytes, &it.signature).is_ok()));
                };
                at_depth(depth(&of_peer), || mean_both(count, check)).map(|nanos| 1e9 / nanos)
            },
        ],
    );
    let scene = scene.into_inner();
    let (refused, looked_up) = (scene.refused_at_all(), scene.looked_up());
    // Those who sign the answers want the same core, and others of the machine do too: processor time leaves them out.
    let side = |label, rounds: &[[f64; 2]]| {
        Side::new(label, Unit::PerSecond, rounds.iter().map(|[_, of_thread]| *of_thread).collect())
    };
    let line = goal("requests_known").measured(side("trustkeep", &ours), Some(side("verify_strict", &peer)));
    let by_clock: Vec<f64> = ours.iter().zip(&peer).map(|([ours, _], [peer, _])| ours / peer).collect();
    let by_clock = Range::of(&by_clock).map_or_else(String::new, |it| it.show(three_digits));
    vec![
        line.note(format!(
            "all on one core, by the processor time of the receiving thread, each round at another depth of the stack; \
             others sign and send the answers, and with their time on that core the ratio is {by_clock}"
        ))
        .provided(refused == 0, &format!("{refused} good messages were refused"))
        .provided(looked_up > 0, "the registry was never asked"),
    ]
}

fn rejected(plan: &Plan, wanted: &Wanted<'_>) -> Vec<Line> {
    // What makes a message of 1 KiB.
    let padding = {
        let mut scene = Scene::new(&plan.home.join("padding"), 1);
        KIB.saturating_sub(scene.request(0, None).0.to_json().len())
    };
    let mut scene = Scene::new(&plan.home.join("rejected"), 256);
    let count = plan.or(1000, 3000);
    let scene = core::cell::RefCell::new(&mut scene);
    let make = |stamp: Option<WallMillis>, change: &dyn Fn(&mut serde_json::Value)| -> Vec<Vec<u8>> {
        (0..count)
            .map(|_| {
                let (message, _) = scene.borrow_mut().request(padding, stamp);
                // Good ones go through this too, so that all are written alike.
                let mut message = serde_json::from_slice(&message.to_json()).unwrap();
                change(&mut message);
                let bytes = serde_json::to_vec(&message).unwrap();
                assert!(bytes.len().abs_diff(KIB) < 32, "{}", bytes.len());
                bytes
            })
            .collect()
    };
    let looked_up = core::cell::Cell::new(0);
    let quietly = |messages| {
        let before = scene.borrow().looked_up();
        let figure = scene.borrow().receive(messages);
        looked_up.set(looked_up.get() + scene.borrow().looked_up() - before);
        figure
    };
    let old = SystemClock.now().wall.saturating_add(-3_600_000);
    let last = core::cell::RefCell::new(make(None, &|_| ()));
    let _ = scene.borrow().receive(last.borrow().clone());
    let [good, stale, replayed, unknown, bad] = alternate(
        plan.rounds(),
        [
            &mut || {
                *last.borrow_mut() = make(None, &|_| ());
                scene.borrow().receive(last.borrow().clone())
            },
            &mut || quietly(make(Some(old), &|_| ())),
            &mut || quietly(last.borrow().clone()),
            &mut || quietly(make(None, &|message| message["type"] = "handshake_unknown".into())),
            // A signature of the right form, but of another message.
            &mut || quietly(make(None, &|message| message["nonce"] = "AAAAAAAAAAAAAAAAAAAAAA==".into())),
        ],
    );
    let scene = scene.into_inner();
    let rounds = (plan.rounds() as u64 + 1) * count as u64;
    let all = [
        ("message_stale", stale, "too_old"),
        ("message_replayed", replayed, "stale"),
        ("message_unknown_type", unknown, "unknown_type"),
        ("message_bad_signature", bad, "bad_signature"),
    ];
    let expected = scene.refused_at_all() == 4 * rounds;
    all.into_iter()
        .filter(|(name, ..)| wanted.any(&[name]))
        .map(|(name, figures, reason)| {
            let line = goal(name).measured(nanos(reason, figures), Some(nanos("a good one", good.clone())));
            line.provided(
                scene.refused(reason) == rounds,
                &format!("refused otherwise: {:?}", scene.manager.counters()),
            )
            .provided(expected, &format!("good ones were refused: {:?}", scene.manager.counters()))
            .provided(looked_up.get() == 0, &format!("{} look-ups were made", looked_up.get()))
        })
        .collect()
}

const KIB: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_requests_are_taken_and_looked_up_and_bad_ones_are_neither() {
        let home = crate::directory::temporary(None).unwrap();
        let mut scene = Scene::new(&home.path().join("store"), 2);
        let (first, check) = scene.request(10, None);
        assert!(check.key.verify_strict(&check.bytes, &check.signature).is_ok());
        let good: Vec<_> = (0..7).map(|_| scene.request(10, None).0.to_json()).collect();
        let _ = scene.receive(good.clone());
        assert_eq!((scene.refused_at_all(), scene.looked_up()), (0, 7), "{:?}", scene.manager.counters());
        // Seen before, and older than what was seen since.
        let _ = scene.receive(vec![good[6].clone(), first.to_json()]);
        let mut forged: serde_json::Value = serde_json::from_slice(&scene.request(10, None).0.to_json()).unwrap();
        forged["nonce"] = "AAAAAAAAAAAAAAAAAAAAAA==".into();
        let _ = scene.receive(vec![serde_json::to_vec(&forged).unwrap()]);
        assert_eq!((scene.refused("stale"), scene.refused("bad_signature"), scene.refused_at_all()), (2, 1, 3));
        assert_eq!(scene.looked_up(), 7);
    }
}
