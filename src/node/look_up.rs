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

use super::registry::{Registry, RegistryEntry, RegistryError};
use super::revisions::Revisions;
use crate::foreign;
use crate::machine::view::View as _;
use crate::peer::NodeId;
use crate::store::TrustStore;
use crate::sync::{Deadline, Mutex, OneShot, spawn};
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
        let tables = self.store.upgrade().and_then(|store| store.tables());
        let is_ours = |peer: NodeId| {
            tables.as_ref().is_some_and(|tables| {
                tables.trusted(peer).is_some()
                    || tables.pending(peer).is_some()
                    || tables.outgoing(peer).is_some()
                    || tables.revoked(peer).is_some()
                    || tables.floor(peer).is_some()
            })
        };
        if self.newest.lock().is_news(peer, revision, &is_ours) { Ok(answer) } else { Err(RegistryError::Outdated) }
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
