//! Threads and tasks that wait for a peer to become trusted. Lives under the writer lock.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::task::Waker;

use crate::peer::NodeId;
use crate::sync::{Arc, Deadline, OneShot, wake_all};

/// One waiting thread or task. Woken at most once.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    answer: Arc<OneShot<bool>>,
    /// No other has it.
    number: u64,
}

impl Waiting {
    /// What it was woken with; `None` if the deadline passed first.
    pub(super) fn wait(&self, deadline: Deadline) -> Option<bool> {
        self.answer.wait(deadline)
    }

    /// What it was woken with; if it was not, this task is the one that will be.
    pub(super) fn poll(&self, waker: &Waker) -> Option<bool> {
        self.answer.poll(waker)
    }

    /// Wakes all of them, threads first.
    pub(super) fn wake_all(all: Vec<Self>, granted: bool) {
        wake_all(all.into_iter().map(|waiting| (waiting.answer, granted)));
    }

    /// Nobody waits here any more, though it may still be registered; nobody is woken.
    pub(super) fn abandon(&self) {
        self.answer.abandon(false);
    }
}

/// Who waits for whom.
#[derive(Debug, Default)]
pub(super) struct TrustWaiters {
    /// By peer, and then in the order in which they came: one that gives up is found without a look at the others.
    waiting: BTreeMap<(NodeId, u64), Arc<OneShot<bool>>>,
    /// How many there have been.
    registered: u64,
}

impl TrustWaiters {
    pub(super) fn register(&mut self, peer: NodeId) -> Waiting {
        let waiting = Waiting { answer: Arc::new(OneShot::new()), number: self.registered };
        self.registered += 1;
        self.waiting.insert((peer, waiting.number), Arc::clone(&waiting.answer));
        waiting
    }

    /// Takes out all who wait for this peer.
    pub(super) fn take(&mut self, peer: NodeId, into: &mut Vec<Waiting>) {
        if self.waiting.is_empty() {
            return;
        }
        while let Some((key, _)) = self.waiting.range((peer, 0)..=(peer, u64::MAX)).next() {
            let (_, number) = *key;
            if let Some(answer) = self.waiting.remove(&(peer, number)) {
                into.push(Waiting { answer, number });
            }
        }
    }

    /// Takes out all that were abandoned.
    pub(super) fn purge(&mut self) {
        self.waiting.retain(|_, answer| !answer.is_full());
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn take_all(&mut self) -> Vec<Waiting> {
        let all = core::mem::take(&mut self.waiting);
        all.into_iter().map(|((_, number), answer)| Waiting { answer, number }).collect()
    }

    /// Takes out one who waits no longer; false if it was not there any more.
    pub(super) fn forget(&mut self, peer: NodeId, waiting: &Waiting) -> bool {
        self.waiting.remove(&(peer, waiting.number)).is_some()
    }
}
