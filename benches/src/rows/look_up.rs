//! The slowest thousandth of reads and approvals while the registry sits in a look-up, and while it does not.
//!
//! What must hold: the look-up began before the first sample and ended after the last, on both its threads: that of the
//! registry, and that of the message which waits for it. Both sides do the same work on the same node in the same rounds,
//! so that nothing but the hanging is between them. Each sample holds what it costs to read the clock once; that is told
//! beside the figures. The store is in memory: a disk would be in the tails of approvals, and is no part of the question; nor are answers,
//! so that each approval waits until that of the one before has left.
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a measurement: it reads the clock, sleeps, and stops when something does not hold"
)]

use core::hint::black_box;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use ed25519_dalek::{Signer as _, SigningKey};
use trustkeep::clock::{Clock as _, SystemClock};
use trustkeep::config::Limits;
use trustkeep::machine::view::Source;
use trustkeep::node::{FileIdentity, Inbox, Received, Registry, RegistryEntry, RegistryError, SendError, Transport};
use trustkeep::wire::message::{Kind as Type, Nonce};
use trustkeep::wire::sign::{Draft, sign_draft};
use trustkeep::{HandshakeManager, NodeId, PublicKey, TrustStore};

use super::handshake::US;
use super::tails::{clock_note, reads};
use super::{Kind, Plan, Wanted, goal, nanos};
use crate::fill;
use crate::goals::Line;
use crate::rounds::{Tail, alternate};
use crate::workload::{Mix, questions};

pub(super) const LOOK_UP: Kind = Kind {
    goals: &["read_tail_in_look_up", "store_read_tail_in_look_up", "approve_tail_in_look_up"],
    measure: look_up,
};

/// A network that takes everything, brings nothing, and counts.
#[derive(Debug, Default)]
struct Counted {
    // ORDERING: SeqCst throughout; a counter of the measurement. No partner in docs/concurrency.md.
    sent: AtomicU64,
}

impl Transport for Counted {
    fn start(&self, _: Arc<dyn Inbox>) -> io::Result<()> {
        Ok(())
    }
    fn send(&self, _: NodeId, _: &[u8]) -> Result<(), SendError> {
        self.sent.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
    fn disconnect(&self, _: NodeId) {}
    fn stop_receiving(&self, _: Duration) {}
    fn stop_sending(&self) {}
}

/// A registry that knows nobody, and that hangs over one peer when it is told to.
#[derive(Debug)]
struct Hanging {
    hangs: AtomicBool,
    inside: AtomicBool,
    /// How many nanoseconds it hung, the last time.
    hung: AtomicU64,
    at_least: Duration,
    entered: parking_lot::Mutex<Sender<()>>,
    awake: parking_lot::Mutex<Receiver<()>>,
}

impl Registry for Hanging {
    // ORDERING: SeqCst throughout; switches of the measurement, off the measured paths. No partner in docs/concurrency.md.
    fn look_up(&self, peer: NodeId) -> Result<Option<RegistryEntry>, RegistryError> {
        if peer == STUCK && self.hangs.swap(false, Ordering::SeqCst) {
            let start = Instant::now();
            self.inside.store(true, Ordering::SeqCst);
            self.entered.lock().send(()).unwrap();
            std::thread::sleep(self.at_least);
            // As long as the work takes; and no longer, whatever became of it.
            let _ = self.awake.lock().recv();
            self.hung.store(crate::nanos(start.elapsed()), Ordering::SeqCst);
            self.inside.store(false, Ordering::SeqCst);
        }
        Ok(None)
    }
    fn report_grant(&self, _: NodeId) -> Result<(), RegistryError> {
        Ok(())
    }
    fn report_revoke(&self, _: NodeId) -> Result<(), RegistryError> {
        Ok(())
    }
}

/// A node whose registry can be made to hang.
struct Scene {
    // Goes before the manager: whoever hangs is woken, and the node can stop.
    awake: Sender<()>,
    manager: HandshakeManager,
    registry: Arc<Hanging>,
    network: Arc<Counted>,
    entered: Receiver<()>,
    key: SigningKey,
    public: PublicKey,
    /// The next peer that never asked before.
    next: u32,
}

impl Scene {
    /// That trusts so many peers, and whose look-ups hang for this long at least.
    fn new(size: u32, pending: usize, at_least: Duration) -> Self {
        let mut limits = Limits::default();
        (limits.pending_max, limits.pending_per_source_max) = (pending, pending);
        let store = Arc::new(TrustStore::options().limits(limits).in_memory().unwrap());
        fill(&store, size);
        let ((entered, asleep), (awake, woken)) = (channel(), channel());
        let registry = Arc::new(Hanging {
            hangs: AtomicBool::new(false),
            inside: AtomicBool::new(false),
            hung: AtomicU64::new(0),
            at_least,
            entered: parking_lot::Mutex::new(entered),
            awake: parking_lot::Mutex::new(woken),
        });
        let identity = Arc::new(FileIdentity::from_seed(US, &[9; 32]).unwrap());
        let network = Arc::new(Counted::default());
        let manager = HandshakeManager::builder(store, identity, Arc::clone(&network) as Arc<dyn Transport>)
            .registry(Arc::clone(&registry) as Arc<dyn Registry>)
            // The message that asks waits for the whole hang too, as the worst registry would have it.
            .look_up_timeout(at_least * 100)
            .start()
            .unwrap();
        let key = SigningKey::from_bytes(&[8; 32]);
        let public = PublicKey::from_bytes(key.verifying_key().to_bytes()).unwrap();
        Self { awake, manager, registry, network, entered: asleep, key, public, next: 2 * size + 2 }
    }

    /// Approves one, and says how long that took. Returns once its answer has left: signing it occupies another thread,
    /// which must not come to compete with the approvals after it.
    fn approve(&self, peer: NodeId) -> Duration {
        let sent = self.network.sent.load(Ordering::SeqCst);
        let start = Instant::now();
        drop(self.manager.approve(peer, Some(self.public.fingerprint())).unwrap());
        let took = start.elapsed();
        while self.network.sent.load(Ordering::SeqCst) == sent {
            std::thread::yield_now();
        }
        took
    }

    fn request(&self, from: NodeId) -> Received {
        let draft = Draft {
            to: US,
            kind: Type::Request,
            justification: "x".repeat(40),
            reason: String::new(),
            nonce: Nonce([7; 16]),
            answers: None,
            stamp: SystemClock.now().wall,
            for_key: None,
        };
        let message = sign_draft(from, &self.public, &draft, |bytes| self.key.sign(bytes).to_bytes());
        Received::new(message.to_json(), Source::from_address(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1))))
    }

    /// So many peers that wait to be approved.
    fn ask(&mut self, count: usize) -> Vec<NodeId> {
        let peers: Vec<NodeId> = (self.next..).take(count).map(|number| NodeId::new(number).unwrap()).collect();
        self.next += u32::try_from(count).unwrap();
        for peer in &peers {
            self.manager.receive(self.request(*peer));
        }
        assert_eq!(self.manager.pending().len(), count, "{:?}", self.manager.counters());
        peers
    }

    /// Does `work` while a look-up hangs, and a message waits for it; returns also how long it hung.
    fn in_look_up<R>(&self, work: impl FnOnce() -> R) -> (R, Duration) {
        // ORDERING: SeqCst; as above.
        self.registry.hangs.store(true, Ordering::SeqCst);
        let message = self.request(STUCK);
        let is_inside = || self.registry.inside.load(Ordering::SeqCst);
        std::thread::scope(|scope| {
            let manager = &self.manager;
            let asking = scope.spawn(move || manager.receive(message));
            self.entered.recv().unwrap();
            // Woken however the work ends, or the scope would never.
            let awake = Awake(&self.awake);
            let result = work();
            assert!(is_inside() && !asking.is_finished(), "the look-up ended before the samples");
            drop(awake);
            asking.join().unwrap();
            (result, Duration::from_nanos(self.registry.hung.load(Ordering::SeqCst)))
        })
    }
}

struct Awake<'a>(&'a Sender<()>);

impl Drop for Awake<'_> {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

/// One round's p99.9: a handle's read, the store's read, an approval.
fn samples(scene: &Scene, questions: &[NodeId], asking: &[NodeId]) -> [f64; 3] {
    let (manager, store) = (&scene.manager, scene.manager.store());
    let handle = reads(&mut store.reader(), questions);
    let _ = black_box(manager.is_trusted(questions[0]));
    let own = Tail::of(questions.len(), |number| _ = black_box(manager.is_trusted(questions[number])));
    let mut approvals = Tail::default();
    asking.iter().for_each(|peer| approvals.add(scene.approve(*peer)));
    [handle, own, approvals].map(|tail| tail.quantile(0.999))
}

fn look_up(plan: &Plan, wanted: &Wanted<'_>) -> Vec<Line> {
    const SIZE: u32 = 10_000;
    let (count, approvals) = (plan.or(200_000, 2_000_000), plan.or(5_000, 20_000));
    let hang = Duration::from_secs(if plan.quick { 1 } else { 30 });
    let questions = questions(SIZE, Mix::Half, count, 5);
    let scene = core::cell::RefCell::new(Scene::new(SIZE, approvals + 1, hang));
    let mut shortest = Duration::MAX;
    let [during, quiet] = alternate(
        // A round of a full run takes most of a minute.
        plan.or(7, 5),
        [
            &mut || {
                let asking = scene.borrow_mut().ask(approvals);
                let scene = scene.borrow();
                let (figures, hung) = scene.in_look_up(|| samples(&scene, &questions, &asking));
                shortest = shortest.min(hung);
                drop(scene.manager.reject(STUCK, "").unwrap());
                figures
            },
            &mut || {
                let asking = scene.borrow_mut().ask(approvals);
                samples(&scene.borrow(), &questions, &asking)
            },
        ],
    );
    let failed = scene.borrow().manager.counters();
    let of = |rounds: &[[f64; 3]], which: usize| rounds.iter().map(|round| round[which]).collect();
    LOOK_UP
        .goals
        .iter()
        .enumerate()
        .filter(|(_, name)| wanted.any(&[name]))
        .map(|(which, name)| {
            let hanging = nanos("trustkeep, a look-up hangs", of(&during, which));
            let line = goal(name).measured(hanging, Some(nanos("trustkeep, none hangs", of(&quiet, which))));
            line.note(format!("each hung for at least {:.1} s; {}", shortest.as_secs_f64(), clock_note()))
                .provided(shortest >= hang, "the look-ups hardly hung")
                .provided(failed.is_empty(), &format!("something went wrong: {failed:?}"))
        })
        .collect()
}

/// The peer over which the registry hangs; none of those that are trusted or ask to be.
const STUCK: NodeId = match NodeId::new(u32::MAX - 1) {
    Some(id) => id,
    None => unreachable!(),
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::id;

    #[test]
    fn the_look_up_hangs_while_the_work_runs_and_not_before_or_after() {
        let mut scene = Scene::new(10, 10, Duration::from_millis(50));
        let asking = scene.ask(3);
        let is_inside = || scene.registry.inside.load(Ordering::SeqCst);
        assert!(!is_inside());
        let (inside, hung) = scene.in_look_up(|| {
            let before = is_inside();
            let figures = samples(&scene, &[id(1)], &asking);
            assert!(figures.iter().all(|figure| *figure > 0.0));
            before && is_inside()
        });
        assert!(inside && !is_inside() && hung >= Duration::from_millis(50));
        // Its message went on once it ended, as one that nobody vouches for.
        assert_eq!(scene.manager.pending().iter().map(|(peer, _)| *peer).collect::<Vec<_>>(), [STUCK]);
        assert!(asking.iter().all(|peer| scene.manager.is_trusted(*peer)));
        assert_eq!(scene.network.sent.load(Ordering::SeqCst), 3, "each was answered");
    }

    #[test]
    fn work_that_fails_leaves_nobody_hanging() {
        let scene = Scene::new(10, 10, Duration::from_millis(1));
        let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            scene.in_look_up(|| panic!("the work failed"));
        }));
        assert!(failed.is_err());
        // This would wait for ever.
        drop(scene);
    }
}
