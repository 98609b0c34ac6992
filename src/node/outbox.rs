//! Messages that wait to be sent, and the threads that send them.
//!
//! One message at a time goes to a peer, in the order in which they were put in: stamps rise, and a message overtaken by
//! a later one would be dropped as old. A peer that does not read holds up its own messages only, and everything is
//! bounded: messages in all, messages per peer, threads.
#![forbid(unsafe_code)]

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use crate::foreign;
use crate::peer::NodeId;
use crate::sync::{Condvar, Deadline, Mutex, spawn};
use std::sync::Arc;

/// What is to be done for a peer, on a thread where it may block.
pub(crate) type Task = Box<dyn FnOnce() + Send>;

/// A bounded queue with threads that come with the work and go when there is none.
pub(crate) struct Outbox {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    // Workers wait here for work.
    work: Condvar,
    // Whoever closes waits here for the last worker.
    idle: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<(NodeId, Task)>,
    per_peer: HashMap<NodeId, usize>,
    busy: HashSet<NodeId>,
    workers: usize,
    idle: usize,
    closed: bool,
}

impl State {
    /// Takes the oldest task of a peer for whom none is running.
    fn next(&mut self) -> Option<(NodeId, Task)> {
        let at = self.queue.iter().position(|(peer, _)| !self.busy.contains(peer))?;
        let (peer, task) = self.queue.remove(at)?;
        self.busy.insert(peer);
        Some((peer, task))
    }

    fn done(&mut self, peer: NodeId) {
        self.busy.remove(&peer);
        if let Some(count) = self.per_peer.get_mut(&peer) {
            *count -= 1;
            if *count == 0 {
                self.per_peer.remove(&peer);
            }
        }
    }
}

impl Outbox {
    pub(crate) fn new() -> Self {
        let shared = Shared { state: Mutex::new(State::default()), work: Condvar::new(), idle: Condvar::new() };
        Self { shared: Arc::new(shared) }
    }

    /// Queues a task; false (and the task is dropped) if the queue, or this peer's share of it, is full or closed.
    ///
    /// # Ordering
    /// Never waits for a task.
    pub(crate) fn put(&self, peer: NodeId, task: Task) -> bool {
        let mut state = self.shared.state.lock();
        let waiting = state.per_peer.get(&peer).copied().unwrap_or(0);
        if state.closed || state.queue.len() >= QUEUE_MAX || waiting >= PER_PEER_MAX {
            return false;
        }
        // An idle worker that was woken for an earlier task still counts as idle.
        if state.idle <= state.queue.len() && state.workers < WORKERS_MAX {
            let shared = Arc::clone(&self.shared);
            match spawn("trustkeep-send", move || work(&shared)) {
                Ok(_) => state.workers += 1,
                // Some other worker will come to it.
                Err(_) if state.workers > 0 => {}
                Err(error) => {
                    tracing::warn!(%error, "no thread to send with");
                    return false;
                }
            }
        }
        state.queue.push_back((peer, task));
        *state.per_peer.entry(peer).or_insert(0) += 1;
        drop(state);
        self.shared.work.notify_one();
        true
    }

    /// Takes no more tasks, and waits until those it has are done or the deadline passes; true means all are done.
    pub(crate) fn close(&self, deadline: Deadline) -> bool {
        let mut state = self.shared.state.lock();
        state.closed = true;
        self.shared.work.notify_one();
        while state.workers > 0 {
            let (guard, late) = self.shared.idle.wait_until(state, deadline);
            state = guard;
            if late {
                break;
            }
        }
        let done = state.workers == 0;
        // What nobody came to is not done later, behind the back of whoever believes the node stopped. It is dropped
        // outside the lock, for a task may own what ends with it.
        let left = std::mem::take(&mut state.queue);
        drop(state);
        drop(left);
        self.shared.work.notify_one();
        done
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.close(Deadline::after(Duration::ZERO));
    }
}

fn work(shared: &Shared) {
    let mut state = shared.state.lock();
    loop {
        if let Some((peer, task)) = state.next() {
            drop(state);
            // A panic loses this message, not the thread and what else it would send.
            if foreign::run(task).is_err() {
                tracing::error!(%peer, "a panic while sending");
            }
            state = shared.state.lock();
            state.done(peer);
            continue;
        }
        if state.closed && state.queue.is_empty() {
            break;
        }
        state.idle += 1;
        let (guard, late) = shared.work.wait_until(state, Deadline::after(IDLE));
        state = guard;
        state.idle -= 1;
        if late && !state.closed {
            break;
        }
    }
    state.workers -= 1;
    drop(state);
    // Pass the word on: one notification wakes one worker only.
    shared.work.notify_one();
    shared.idle.notify_one();
}

impl core::fmt::Debug for Outbox {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let state = self.shared.state.lock();
        f.debug_struct("Outbox").field("queued", &state.queue.len()).field("workers", &state.workers).finish()
    }
}

const QUEUE_MAX: usize = 1024;
const PER_PEER_MAX: usize = 8;
const WORKERS_MAX: usize = 16;
/// How long a worker stays when there is nothing to do.
const IDLE: Duration = Duration::from_secs(5);
