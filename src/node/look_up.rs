//! Asking a registry that may be slow, hang or panic, without ever waiting longer than allowed.
//!
//! Every question that may block has a thread of its own, and both the threads and those who wait for them are bounded:
//! for one peer, for strangers, and altogether. So neither a registry that hangs, nor a flood of messages about peers
//! that it hangs on, takes what a peer we already know needs.
#![forbid(unsafe_code)]

use core::fmt;
use std::collections::HashMap;
use std::io;
use std::time::Duration;

use super::registry::{Registry, RegistryEntry, RegistryError, Revision};
use super::revisions::Revisions;
use crate::error::WriteError;
use crate::foreign;
use crate::machine::revision;
use crate::machine::view::{TableChange, View as _};
use crate::peer::NodeId;
use crate::store::{TransactError, Transaction, TrustStore};
use crate::sync::{Deadline, Mutex, OneShot, spawn};
use crate::tables::Tables;
use crate::tables::table::Table as _;
use std::sync::{Arc, Weak};

/// What a registry said of a peer, or why it said nothing.
pub(crate) type Answer = Result<Option<RegistryEntry>, RegistryError>;

/// For whom the registry is asked, and so of whose share of questions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whom {
    /// The sender of a message under a key that we do not hold for it, whatever id it writes.
    Stranger,
    /// The sender of a message under a key that we hold for it; an operator; or the node on its own account.
    Known,
}

/// A registry with a time limit.
pub(crate) struct LookUps {
    asked: Arc<Asked>,
    timeout: Duration,
    /// Questions running, and threads waiting for them, at a time; strangers may use half of either.
    max: usize,
    running: Arc<Mutex<Running>>,
}

/// What the threads of questions share; it must not keep a store open for a question that hangs.
struct Asked {
    registry: Arc<dyn Registry>,
    store: Weak<TrustStore>,
    newest: Mutex<Revisions>,
}

/// The questions that were not answered yet, each with those who wait for the answer.
#[derive(Default)]
struct Running {
    questions: HashMap<NodeId, Vec<Waiter>>,
    waiting: usize,
    strangers: usize,
}

struct Waiter {
    slot: Arc<OneShot<Answer>>,
    whom: Whom,
}

impl LookUps {
    /// `store` has the tables whose peers are ours; without one, everybody is a stranger.
    pub(crate) fn new(registry: Arc<dyn Registry>, timeout: Duration, max: usize, store: Weak<TrustStore>) -> Self {
        let newest = Mutex::new(Revisions::new(STRANGERS_REVISIONS_MAX));
        let asked = Arc::new(Asked { registry, store, newest });
        Self { asked, timeout, max, running: Arc::default() }
    }

    /// Whether a question may take a while.
    pub(crate) fn may_block(&self) -> bool {
        foreign::run(|| self.asked.registry.may_block()).unwrap_or(true)
    }

    /// What the registry knows of `peer`, within its time limit and within `limit`.
    ///
    /// # Errors
    /// The registry could not be asked. That is not the same as *unknown* (R-155).
    pub(crate) fn look_up(&self, peer: NodeId, whom: Whom, limit: Duration) -> Answer {
        self.look_up_until(peer, whom, limit, &|_| {})
    }

    /// The same; `begun` is given what is waited on, and may fill it to end the waiting.
    pub(crate) fn look_up_until(
        &self,
        peer: NodeId,
        whom: Whom,
        limit: Duration,
        begun: &dyn Fn(&Arc<OneShot<Answer>>),
    ) -> Answer {
        if !self.may_block() {
            return self.asked.ask(peer);
        }
        let slot = self.enlist(peer, whom)?;
        begun(&slot);
        let answer = slot.wait(Deadline::after(self.timeout.min(limit)));
        let mut running = self.running.lock();
        running.waiting = running.waiting.saturating_sub(1);
        if whom == Whom::Stranger {
            running.strangers = running.strangers.saturating_sub(1);
        }
        if let Some(waiters) = running.questions.get_mut(&peer) {
            waiters.retain(|waiter| !Arc::ptr_eq(&waiter.slot, &slot));
        }
        drop(running);
        foreign::let_go(slot);
        answer.unwrap_or(Err(RegistryError::TimedOut))
    }

    /// adds to the changes of a step the revisions of those who come to be trusted by it. Takes a lock inside the
    /// store's writer lock, and only where somebody does.
    pub(crate) fn save_with_grants(&self, tables: &Tables, changes: &mut Vec<TableChange>) {
        revision::save_with_grants(tables, changes, &|peer| {
            self.asked.newest.lock().newest(peer).map(|Revision(revision)| revision)
        });
    }

    /// Forgets every revision, saved or remembered, and says how many were saved and how many remembered: whatever the
    /// registry says next counts.
    pub(crate) fn forget_revisions(&self) -> Result<(usize, usize), WriteError<()>> {
        let store = self.asked.store.upgrade().ok_or(WriteError::Closed(()))?;
        let mut saved = 0;
        loop {
            // A few at a time: the lock is held for no longer than these take.
            let forgotten = store.transact(|tables| {
                let peers = tables.sides.revisions.iter().take(FORGOTTEN_AT_ONCE).map(|(peer, _)| peer);
                let changes: Vec<_> = peers.map(|peer| TableChange::Revision(peer, None)).collect();
                let value = changes.len();
                Ok::<_, core::convert::Infallible>(Transaction { changes, events: Vec::new(), value })
            });
            match forgotten {
                Ok((0, _)) => break,
                Ok((some, _)) => saved += some,
                Err(TransactError::Refused(never)) => match never {},
                Err(TransactError::Write(error)) => return Err(error),
            }
        }
        // Behind what is saved: an answer that comes between is measured by the one or the other.
        let before = core::mem::replace(&mut *self.asked.newest.lock(), Revisions::new(STRANGERS_REVISIONS_MAX));
        Ok((saved, before.len()))
    }

    /// Joins the question about `peer` that is running, or begins one.
    fn enlist(&self, peer: NodeId, whom: Whom) -> Result<Arc<OneShot<Answer>>, RegistryError> {
        let is_stranger = whom == Whom::Stranger;
        let slot = Arc::new(OneShot::new());
        let waiter = Waiter { slot: Arc::clone(&slot), whom };
        let mut running = self.running.lock();
        let too_many = running.waiting >= self.max || (is_stranger && running.strangers >= self.max / 2);
        if too_many {
            return Err(RegistryError::Busy);
        }
        if let Some(waiters) = running.questions.get_mut(&peer) {
            // Of one peer, too: who writes its id takes nothing from who shows its key.
            if waiters.iter().filter(|other| other.whom == whom).count() >= WAITERS_PER_PEER_MAX / 2 {
                return Err(RegistryError::Busy);
            }
            waiters.push(waiter);
        } else {
            if running.questions.len() >= if is_stranger { self.max / 2 } else { self.max } {
                return Err(RegistryError::Busy);
            }
            // The answer waits for the lock, and so for its waiter.
            self.begin(peer).map_err(|error| RegistryError::Other(Arc::new(error)))?;
            running.questions.insert(peer, vec![waiter]);
        }
        running.waiting += 1;
        running.strangers += usize::from(is_stranger);
        Ok(slot)
    }

    /// Begins a question on a thread of its own.
    fn begin(&self, peer: NodeId) -> io::Result<()> {
        let (asked, table) = (Arc::clone(&self.asked), Arc::clone(&self.running));
        spawn("trustkeep-look-up", move || {
            let answer = asked.ask(peer);
            let waiters = table.lock().questions.remove(&peer).unwrap_or_default();
            for waiter in waiters {
                waiter.slot.put(answer.clone());
                // Its owner may have gone, and dropping an error of theirs may panic.
                foreign::let_go(waiter);
            }
            foreign::let_go(answer);
        })
        .map(drop)
    }
}

impl Asked {
    /// Asks, on this thread. A registry that panics is a registry that does not answer.
    fn ask(&self, peer: NodeId) -> Answer {
        let answer = foreign::run(|| self.registry.look_up(peer)).unwrap_or(Err(RegistryError::Panicked))?;
        let revision = answer.as_ref().map(|entry| entry.revision);
        let store = self.store.upgrade();
        let tables = store.as_ref().and_then(|store| store.tables());
        let saved = tables.as_ref().and_then(|tables| tables.revision(peer)).map(Revision);
        let is_ours = |peer: NodeId| {
            tables.as_ref().is_some_and(|tables| {
                tables.trusted(peer).is_some()
                    || tables.pending(peer).is_some()
                    || tables.outgoing(peer).is_some()
                    || tables.revoked(peer).is_some()
                    || tables.floor(peer).is_some()
                    || tables.revision(peer).is_some()
            })
        };
        if !self.newest.lock().is_news(peer, revision, saved, &is_ours) {
            return Err(RegistryError::Outdated);
        }
        // Looked at once more under the writer lock, which most answers need not take.
        if let (Some(store), Some(tables), Some(Revision(revision))) = (store, tables, revision)
            && revision::saved(tables.as_ref(), peer, revision).is_some()
        {
            let saved = store.transact(|tables| {
                let changes = revision::saved(tables, peer, revision).into_iter().collect();
                Ok::<_, core::convert::Infallible>(Transaction { changes, events: Vec::new(), value: () })
            });
            // A store that takes no more changes keeps what it has; this life remembers it all the same.
            drop(saved);
        }
        Ok(answer)
    }
}

impl fmt::Debug for LookUps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let running = self.running.lock();
        f.debug_struct("LookUps")
            .field("running", &running.questions.len())
            .field("waiting", &running.waiting)
            .finish_non_exhaustive()
    }
}

/// Questions about the senders of messages, running or waited for, at a time; strangers may use half of either.
///
/// Less than half of the handlers that a transport runs at a time, so that a hanging registry never occupies them all.
pub(crate) const LOOK_UPS_MAX: usize = 48;
/// Half of them for strangers, half for others.
const WAITERS_PER_PEER_MAX: usize = 16;
/// Peers in no table of ours whose newest revision is remembered.
const STRANGERS_REVISIONS_MAX: usize = 64 * 1024;
/// Saved revisions that are forgotten in one critical section of the writer lock.
const FORGOTTEN_AT_ONCE: usize = 1024;

#[cfg(all(test, not(trustkeep_loom)))]
mod tests {
    use super::*;
    use crate::machine::rejection::Rejection;
    use crate::machine::view::{Floor, TableChange};
    use crate::node::registry::Revision;
    use crate::testing::actor::{Actor, Way, at, node};
    use crate::time::WallMillis;

    /// Says of everybody what it was told last.
    struct Says {
        revision: Mutex<u64>,
        blocks: bool,
    }

    impl Registry for Says {
        fn look_up(&self, _: NodeId) -> Result<Option<RegistryEntry>, RegistryError> {
            Ok(Some(RegistryEntry { revision: Revision(*self.revision.lock()), ..RegistryEntry::default() }))
        }
        fn may_block(&self) -> bool {
            self.blocks
        }
    }

    fn says(blocks: bool) -> Arc<Says> {
        Arc::new(Says { revision: Mutex::new(5), blocks })
    }

    #[test]
    fn who_had_an_answer_takes_no_place_any_more() {
        let look_ups = LookUps::new(says(true), Duration::from_secs(60), 2, Weak::new());
        for peer in 1..=20 {
            for whom in [Whom::Stranger, Whom::Known] {
                assert!(look_ups.look_up(node(peer), whom, Duration::MAX).is_ok(), "{peer} {whom:?}");
            }
        }
        let running = look_ups.running.lock();
        assert_eq!((running.waiting, running.strangers), (0, 0));
    }

    #[test]
    fn the_revision_of_a_peer_in_any_table_of_ours_outlives_strangers() {
        let mut us = Actor::new(7, 0xAA);
        us.is_asked(10, 2, 0x11, "", Way::open()).unwrap();
        us.request(at(20), node(2), None).unwrap();
        let waits = us.tables.pending.remove(&node(2)).map(Arc::new);
        let asked = us.tables.outgoing.remove(&node(2)).map(Arc::new);
        let tables = [("none", false), ("trusted", true), ("revoked", true), ("floors", true), ("pending", true)];
        for (table, kept) in tables.into_iter().chain([("outgoing", true)]) {
            let (store, registry) = (Arc::new(TrustStore::in_memory()), says(false));
            match table {
                "trusted" => drop(store.grant(crate::peer::TrustRecord::new(node(2), None)).unwrap()),
                "revoked" => drop(store.revoke(node(2)).unwrap()),
                _ => {}
            }
            let floor = Floor { reserved: WallMillis::new(1), ..Floor::EMPTY };
            let changes = match table {
                "floors" => vec![TableChange::Floor(node(2), Some(floor))],
                "pending" => vec![TableChange::Pending(node(2), waits.clone())],
                "outgoing" => vec![TableChange::Outgoing(node(2), asked.clone())],
                _ => vec![],
            };
            let written =
                store.transact(|_| Ok::<_, Rejection>(Transaction { changes, events: Vec::new(), value: () }));
            assert!(written.is_ok());
            let look_ups = LookUps::new(Arc::clone(&registry) as _, Duration::from_secs(60), 2, Arc::downgrade(&store));
            let asks = |peer| look_ups.look_up(node(peer), Whom::Known, Duration::MAX);
            for peer in 2..STRANGERS_REVISIONS_MAX as u32 + 100 {
                assert!(asks(peer).is_ok());
            }
            *registry.revision.lock() = 4;
            assert_eq!(matches!(asks(2), Err(RegistryError::Outdated)), kept, "{table}");
        }
    }
}
