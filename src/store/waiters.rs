//! Threads and tasks that wait for a peer to become trusted. Lives under the writer lock.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::task::Waker;

use crate::peer::NodeId;
use crate::sync::{Arc, Deadline, OneShot};

/// One waiting thread or task. Woken at most once.
#[derive(Clone, Debug)]
pub(super) struct Waiting(Arc<OneShot<bool>>);

impl Waiting {
    /// What it was woken with; `None` if the deadline passed first.
    pub(super) fn wait(&self, deadline: Deadline) -> Option<bool> {
        self.0.wait(deadline)
    }

    /// What it was woken with; if it was not, this task is the one that will be.
    pub(super) fn poll(&self, waker: &Waker) -> Option<bool> {
        self.0.poll(waker)
    }

    pub(super) fn wake(self, granted: bool) {
        self.0.put(granted);
    }

    /// Nobody waits here any more, though it may still be registered; nobody is woken.
    pub(super) fn abandon(&self) {
        self.0.abandon(false);
    }
}

/// Who waits for whom.
#[derive(Debug, Default)]
pub(super) struct TrustWaiters(HashMap<NodeId, Vec<Waiting>>);

impl TrustWaiters {
    pub(super) fn register(&mut self, peer: NodeId) -> Waiting {
        let waiting = Waiting(Arc::new(OneShot::new()));
        self.0.entry(peer).or_default().push(waiting.clone());
        waiting
    }

    /// Takes out all who wait for this peer.
    pub(super) fn take(&mut self, peer: NodeId, into: &mut Vec<Waiting>) {
        if !self.0.is_empty() {
            into.extend(self.0.remove(&peer).into_iter().flatten());
        }
    }

    /// Takes out all that were abandoned.
    pub(super) fn purge(&mut self) {
        self.0.retain(|_, all| {
            all.retain(|waiting| !waiting.0.is_full());
            !all.is_empty()
        });
    }

    pub(super) fn len(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    pub(super) fn take_all(&mut self) -> Vec<Waiting> {
        core::mem::take(&mut self.0).into_values().flatten().collect()
    }

    /// Takes out one who waits no longer; false if it was not there any more.
    pub(super) fn forget(&mut self, peer: NodeId, waiting: &Waiting) -> bool {
        let Some(all) = self.0.get_mut(&peer) else { return false };
        let before = all.len();
        all.retain(|other| !Arc::ptr_eq(&other.0, &waiting.0));
        let found = all.len() < before;
        if all.is_empty() {
            self.0.remove(&peer);
        }
        found
    }
}
