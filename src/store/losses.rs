//! Who is trusted no longer by changes of the store: for a node that has to cut tunnels and report it.
//!
//! Every end of trust passes through [`Watchers::tell`], by whatever door it came: a grant under another key, a revocation, a
//! removal, a batch, an import, a message.
//!
//! INVARIANT: a watcher finds every peer whose trust ended, or went to another key, by a change that the watcher did not make
//! itself. A list of ids holds some thousands of them. From the change on that no longer fits, what the watcher missed is the
//! difference of two states: the one before that change, and the newest that ended trust. So the writer lock is held for
//! nothing that grows, no change is lost however many come, and no old state is kept while the watcher keeps up.
//!
//! A peer that lost trust and has it again under the same record between those two states is not found. Its tunnel belongs
//! to a trusted peer.
#![forbid(unsafe_code)]

use super::shared::Version;
use super::snapshot::{Change, Snapshot};
use crate::peer::NodeId;
use crate::sync::{Arc, Condvar, Deadline, Mutex};
use crate::tables::draft::Draft;

/// All who watch. Lives under the writer lock.
#[derive(Debug, Default)]
pub(super) struct Watchers {
    all: Vec<(u64, Arc<Queue>)>,
    next: u64,
}

/// Who changes the store, if it is a watcher that enforces what it changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Enforcer(u64);

/// The receiving end. Dropping it ends the watch.
#[derive(Debug)]
pub(crate) struct Losses {
    queue: Arc<Queue>,
    id: u64,
}

/// Who lost trust since the last look.
#[derive(Debug)]
pub(crate) struct Lost {
    ended: Vec<NodeId>,
    missed: Option<(Arc<Version>, Arc<Version>)>,
}

#[derive(Debug)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    ended: Vec<NodeId>,
    /// The state before the first change that found no room, and the one after the newest that ended trust.
    missed: Option<(Arc<Version>, Arc<Version>)>,
    /// The receiver has something to look at.
    news: bool,
    /// The receiver is gone.
    unheard: bool,
}

impl Watchers {
    pub(super) fn watch(&mut self) -> Losses {
        let ended = Vec::with_capacity(ENDED_MAX);
        let state = State { ended, missed: None, news: false, unheard: false };
        let queue = Arc::new(Queue { state: Mutex::new(state), changed: Condvar::new() });
        let id = self.next;
        self.next += 1;
        self.all.push((id, Arc::clone(&queue)));
        Losses { queue, id }
    }

    /// The one place that every end of trust passes through. Called when the change has been published. `by`: who enforces
    /// it already.
    pub(super) fn tell(&mut self, draft: &Draft, by: Option<Enforcer>, before: &Arc<Version>, after: &Arc<Version>) {
        if self.all.is_empty() || draft.ended_len() == 0 {
            return;
        }
        self.all.retain(|(id, queue)| by == Some(Enforcer(*id)) || queue.tell(draft, before, after));
    }
}

impl Queue {
    /// False if the receiver is gone.
    fn tell(&self, draft: &Draft, before: &Arc<Version>, after: &Arc<Version>) -> bool {
        let mut state = self.state.lock();
        if state.unheard {
            return false;
        }
        if state.missed.is_none() && state.ended.len() + draft.ended_len() <= ENDED_MAX {
            state.ended.extend(draft.ended());
        } else {
            let first = state.missed.take().map_or_else(|| Arc::clone(before), |(first, _)| first);
            state.missed = Some((first, Arc::clone(after)));
        }
        let was_news = core::mem::replace(&mut state.news, true);
        drop(state);
        if !was_news {
            self.changed.notify_one();
        }
        true
    }
}

impl Losses {
    /// As whom the watcher makes its own changes, which it is not told of.
    pub(crate) fn enforcer(&self) -> Enforcer {
        Enforcer(self.id)
    }

    /// Who lost trust since the last call. Never waits for a change.
    pub(crate) fn take(&self) -> Option<Lost> {
        let mut state = self.queue.state.lock();
        if state.ended.is_empty() && state.missed.is_none() {
            return None;
        }
        let room = Vec::with_capacity(ENDED_MAX);
        Some(Lost { ended: core::mem::replace(&mut state.ended, room), missed: state.missed.take() })
    }

    /// Blocks until there is something to look at, or [`wake`](Self::wake) was called.
    pub(crate) fn wait(&self) {
        let mut state = self.queue.state.lock();
        while !state.news {
            state = self.queue.changed.wait_until(state, Deadline::NEVER).0;
        }
        state.news = false;
    }

    /// Ends one wait.
    pub(crate) fn wake(&self) {
        self.queue.state.lock().news = true;
        self.queue.changed.notify_one();
    }
}

impl Drop for Losses {
    fn drop(&mut self) {
        let mut state = self.queue.state.lock();
        state.unheard = true;
        let (ended, missed) = (core::mem::take(&mut state.ended), state.missed.take());
        drop(state);
        drop((ended, missed));
    }
}

impl Lost {
    /// Every one of them; who lost trust twice may occur twice.
    ///
    /// # Complexity
    /// Proportional to what changed.
    pub(crate) fn peers(self) -> Vec<NodeId> {
        let Self { mut ended, missed } = self;
        if let Some((before, after)) = missed {
            ended.extend(Snapshot::new(after).diff(&Snapshot::new(before)).filter_map(|change| match change {
                Change::Removed(record) => Some(record.node_id),
                Change::Updated { old, new } if old.public_key.is_some() && old.public_key != new.public_key => {
                    Some(new.node_id)
                }
                Change::Updated { .. } | Change::Granted(_) => None,
            }));
        }
        ended
    }
}

/// So many ids are kept for each watcher, 16 KiB, before two states are compared instead.
const ENDED_MAX: usize = 4096;
