//! Messages that wait to be sent, and the threads that send them.
//!
//! What must hold:
//!
//! - One message at a time goes to a peer, in the order in which they were put in. Stamps rise, and a message overtaken by
//!   a later one would be dropped as old.
//! - A restriction waits for no message to another peer: it has a queue and threads that no other message can take.
//! - A peer that was slow last time takes a bounded share of the turns, and its messages a queue of their own. It delays
//!   other such peers at most. A peer that refused at once is not slow.
//! - Everything is bounded: messages by class and by peer, turns of slow peers, threads.
//!
//! A task that only begins to send keeps its [`Turn`] and returns: the turn ends when the transport reports. A task that
//! blocks holds one thread until then. So a peer that does not read holds at most one thread, and none where the
//! transport does not block.
#![forbid(unsafe_code)]

use std::time::Duration;

use super::lines::{Class, Lines};
use crate::foreign;
use crate::peer::NodeId;
use crate::sync::{Condvar, Deadline, Mutex, spawn, thread_token};
use std::sync::Arc;

/// What a thread does for a peer. The task may block; the next task of this peer begins when the turn has ended.
pub(crate) type Task = Box<dyn FnOnce(Turn) + Send>;

pub(crate) use super::lines::Lane;

/// What became of a task that was put in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Placed {
    /// It waits, and every task before it does too.
    Queued,
    /// It waits, and an older task was dropped to make room.
    Displaced,
    /// It was dropped: the queue is full or closed.
    Refused,
}

/// A bounded queue with threads that come with the work and go when there is none.
pub(crate) struct Outbox {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    // Workers wait here for work.
    work: Condvar,
    // The closing thread waits here for the last worker and the last turn.
    idle: Condvar,
}

struct State {
    lines: Lines<Task>,
    workers: usize,
    idle: usize,
    closed: bool,
}

/// The right to be the one task that runs for a peer. It ends when this is dropped, on any thread.
pub(crate) struct Turn {
    shared: Arc<Shared>,
    peer: NodeId,
    class: Class,
    /// The worker that began it.
    worker: u64,
    late: Deadline,
    gave_up: Option<bool>,
}

impl Turn {
    /// Ends the turn. `gave_up` says that the peer was waited for in vain; that the peer refused at once is no such thing.
    pub(crate) fn end(mut self, gave_up: bool) {
        self.gave_up = Some(gave_up);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // A task that did not try says nothing about its peer, unless it took long all the same.
        let slow = match self.gave_up {
            Some(gave_up) => Some(gave_up || self.late.has_passed()),
            None => self.late.has_passed().then_some(true),
        };
        let mut state = self.shared.state.lock();
        state.lines.end_turn(self.peer, self.class, slow);
        // A worker looks for its next task by itself. Elsewhere the peer's next task, or one that waited for this turn, may
        // find no thread there.
        let elsewhere = thread_token() != self.worker;
        let hired = if elsewhere { hire(&self.shared, &mut state) } else { Ok(()) };
        drop(state);
        if let Err(error) = hired {
            tracing::warn!(%error, "no thread to send with");
        }
        self.shared.work.notify_one();
        self.shared.idle.notify_one();
    }
}

/// Starts a worker if more tasks may begin than there are idle workers.
///
/// The rooms of the classes bound the number of workers.
fn hire(shared: &Arc<Shared>, state: &mut State) -> std::io::Result<()> {
    // An idle worker that was woken for an earlier task still counts as idle.
    if state.idle >= state.lines.startable() {
        return Ok(());
    }
    let of_thread = Arc::clone(shared);
    match spawn("trustkeep-send", move || work(&of_thread)) {
        Ok(_) => {
            state.workers += 1;
            Ok(())
        }
        // Another worker will come to it.
        Err(_) if state.workers > 0 => Ok(()),
        Err(error) => Err(error),
    }
}

impl Outbox {
    /// Runs at most this many tasks of each lane at a time.
    pub(crate) fn new(threads_max: usize) -> Self {
        let (work, idle) = (Condvar::new(), Condvar::new());
        let state = State { lines: Lines::new(threads_max), workers: 0, idle: 0, closed: false };
        Self { shared: Arc::new(Shared { state: Mutex::new(state), work, idle }) }
    }

    /// Queues a task for a peer.
    ///
    /// # Ordering
    /// Never waits for a task. What it drops, it drops with no lock held.
    pub(crate) fn put(&self, peer: NodeId, lane: Lane, task: Task) -> Placed {
        let mut state = self.shared.state.lock();
        if state.closed {
            return Placed::Refused;
        }
        // Tasks may own what ends with them, and are dropped outside the lock.
        let mut dropped = Vec::new();
        if !state.lines.put(peer, lane, task, &mut dropped) {
            drop(state);
            return Placed::Refused;
        }
        if let Err(error) = hire(&self.shared, &mut state) {
            dropped.extend(state.lines.take_back(peer));
            drop(state);
            tracing::warn!(%error, "no thread to send with");
            return Placed::Refused;
        }
        drop(state);
        self.shared.work.notify_one();
        if dropped.is_empty() { Placed::Queued } else { Placed::Displaced }
    }

    /// Takes no more tasks, and waits until those it has are done or the deadline passes; true means all are done.
    pub(crate) fn close(&self, deadline: Deadline) -> bool {
        let mut state = self.shared.state.lock();
        state.closed = true;
        self.shared.work.notify_one();
        while state.workers > 0 || state.lines.turns() > 0 {
            let (guard, late) = self.shared.idle.wait_until(state, deadline);
            state = guard;
            if late {
                break;
            }
        }
        let done = state.workers == 0 && state.lines.turns() == 0;
        // A task that did not begin must not run behind the back of a caller who believes that the node stopped. It is
        // dropped outside the lock, because it may own what ends with it.
        let left = state.lines.take_all();
        drop(state);
        drop(left);
        self.shared.work.notify_one();
        self.shared.idle.notify_one();
        done
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.close(Deadline::after(Duration::ZERO));
    }
}

fn work(shared: &Arc<Shared>) {
    let mut state = shared.state.lock();
    loop {
        if let Some((peer, class, task)) = state.lines.next() {
            drop(state);
            let (of_turn, late) = (Arc::clone(shared), Deadline::after(SLOW));
            let turn = Turn { shared: of_turn, peer, class, worker: thread_token(), late, gave_up: None };
            // A panic loses this message, not the thread and what else it would send.
            if foreign::run(|| task(turn)).is_err() {
                tracing::error!(%peer, "a panic while sending");
            }
            state = shared.state.lock();
            state.lines.leave(class);
            continue;
        }
        if state.closed && state.lines.is_empty() {
            break;
        }
        state.idle += 1;
        let (guard, late) = shared.work.wait_until(state, Deadline::after(IDLE));
        state = guard;
        state.idle -= 1;
        if late && !state.closed && state.lines.startable() == 0 {
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
        f.debug_struct("Outbox")
            .field("turns", &state.lines.turns())
            .field("workers", &state.workers)
            .finish_non_exhaustive()
    }
}

/// Threads of each lane for messages to peers, beside those for slow peers. A transport that does not block needs few.
pub(crate) const SENDERS_MAX: usize = 160;
/// Threads of each lane for calls of a registry.
pub(crate) const CALLERS_MAX: usize = 16;
/// A peer whose turn lasts longer than this is slow.
const SLOW: Duration = Duration::from_secs(1);
/// How long a worker stays when there is nothing to do.
const IDLE: Duration = Duration::from_secs(5);
