//! Asking a registry that may be slow, hang or panic, without ever waiting longer than allowed.
//!
//! Every question that may block has a thread of its own, and both the threads and those who wait for them are bounded:
//! for one peer, for strangers, and altogether. So neither a registry that hangs, nor a flood of messages about peers
//! that it hangs on, takes what a peer we already know needs.
#![forbid(unsafe_code)]

use core::fmt;
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use super::registry::{Registry, RegistryEntry, RegistryError, Revision};
use crate::foreign;
use crate::peer::NodeId;
use crate::sync::{Deadline, Mutex, OneShot, spawn};
use std::sync::Arc;

type Answer = Result<Option<RegistryEntry>, RegistryError>;

/// A registry with a time limit.
pub(crate) struct LookUps {
    registry: Arc<dyn Registry>,
    timeout: Duration,
    /// Questions running, and threads waiting for them, at a time; strangers may use half of either.
    max: usize,
    running: Arc<Mutex<Running>>,
    newest: Arc<Mutex<Newest>>,
}

/// The newest revision of what was said about each peer, so that a replica that lags cannot take it back.
#[derive(Default)]
struct Newest {
    of: HashMap<NodeId, Revision>,
    order: VecDeque<NodeId>,
}

/// The questions that were not answered yet, each with those who wait for the answer.
#[derive(Default)]
struct Running {
    questions: HashMap<NodeId, Vec<Arc<OneShot<Answer>>>>,
    waiting: usize,
}

impl LookUps {
    pub(crate) fn new(registry: Arc<dyn Registry>, timeout: Duration, max: usize) -> Self {
        Self { registry, timeout, max, running: Arc::default(), newest: Arc::default() }
    }

    /// What the registry knows of `peer`; `known` says that the peer stands in one of our tables, and so has a claim
    /// on the share of threads that strangers cannot use.
    ///
    /// # Errors
    /// Whatever goes wrong, the caller goes on as if there were no registry.
    pub(crate) fn look_up(&self, peer: NodeId, known: bool) -> Answer {
        if !self.registry.may_block() {
            return ask(self.registry.as_ref(), peer, &self.newest);
        }
        let slot = self.enlist(peer, known)?;
        let answer = slot.wait(Deadline::after(self.timeout));
        let mut running = self.running.lock();
        running.waiting = running.waiting.saturating_sub(1);
        if let Some(waiters) = running.questions.get_mut(&peer) {
            waiters.retain(|waiter| !Arc::ptr_eq(waiter, &slot));
        }
        drop(running);
        foreign::let_go(slot);
        answer.unwrap_or(Err(RegistryError::TimedOut))
    }

    /// Joins the question about `peer` that is running, or begins one.
    fn enlist(&self, peer: NodeId, known: bool) -> Result<Arc<OneShot<Answer>>, RegistryError> {
        let limit = if known { self.max } else { self.max / 2 };
        let slot = Arc::new(OneShot::new());
        let mut running = self.running.lock();
        if running.waiting >= limit {
            return Err(RegistryError::Busy);
        }
        if let Some(waiters) = running.questions.get_mut(&peer) {
            if waiters.len() >= WAITERS_PER_PEER_MAX {
                return Err(RegistryError::Busy);
            }
            waiters.push(Arc::clone(&slot));
            running.waiting += 1;
            return Ok(slot);
        }
        if running.questions.len() >= limit {
            return Err(RegistryError::Busy);
        }
        running.questions.insert(peer, vec![Arc::clone(&slot)]);
        running.waiting += 1;
        drop(running);

        let (registry, table) = (Arc::clone(&self.registry), Arc::clone(&self.running));
        let newest = Arc::clone(&self.newest);
        let asked = spawn("trustkeep-look-up", move || {
            let answer = ask(registry.as_ref(), peer, &newest);
            let waiters = table.lock().questions.remove(&peer).unwrap_or_default();
            for waiter in waiters {
                waiter.put(answer.clone());
                // Its owner may have gone, and dropping an error of theirs may panic.
                foreign::let_go(waiter);
            }
            foreign::let_go(answer);
        });
        if let Err(error) = asked {
            let error = RegistryError::Other(Arc::new(error));
            let waiters = self.running.lock().questions.remove(&peer).unwrap_or_default();
            for waiter in waiters {
                waiter.put(Err(error.clone()));
            }
        }
        Ok(slot)
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

/// A registry that panics is a registry that does not answer.
fn ask(registry: &dyn Registry, peer: NodeId, newest: &Mutex<Newest>) -> Answer {
    let answer = foreign::run(|| registry.look_up(peer)).unwrap_or(Err(RegistryError::Panicked))?;
    match answer {
        Some(entry) if !newest.lock().is_news(peer, entry.revision) => Err(RegistryError::Outdated),
        answer => Ok(answer),
    }
}

impl Newest {
    /// Whether this is at least as new as what was said before; from now on it counts as said.
    fn is_news(&mut self, peer: NodeId, revision: Revision) -> bool {
        match self.of.get_mut(&peer) {
            Some(newest) if revision < *newest => return false,
            Some(newest) => *newest = revision,
            None if revision == Revision::NONE => {}
            None => {
                if self.order.len() >= REVISIONS_MAX
                    && let Some(oldest) = self.order.pop_front()
                {
                    self.of.remove(&oldest);
                }
                self.order.push_back(peer);
                self.of.insert(peer, revision);
            }
        }
        true
    }
}

/// Questions about the senders of messages at a time.
///
/// Less than half of the handlers that a transport runs at a time, so that a hanging registry never occupies them all.
pub(crate) const LOOK_UPS_MAX: usize = 48;
const WAITERS_PER_PEER_MAX: usize = 8;
/// Peers whose newest revision is remembered; who was noted first is forgotten first.
const REVISIONS_MAX: usize = 64 * 1024;
