//! Cutting peers off in time: a revoked peer's connections are cut when the farewell has left, or when its time is up.
//!
//! Neither a peer that does not read nor a disk that does not answer can put it off: the deadlines have threads of their own,
//! which wait for nothing else. One more begins when all of them are inside the transport, so that a transport which hangs over a
//! few peers holds up no other.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::io;
use std::time::{Duration, Instant};

use super::transport::Transport;
use crate::foreign;
use crate::peer::NodeId;
use crate::sync::{Condvar, Deadline, Mutex, OneShot, spawn};
use std::sync::Arc;

/// The peers that are to be cut off, each with its deadline.
pub(crate) struct Cutter {
    shared: Arc<Shared>,
}

struct Shared {
    transport: Arc<dyn Transport>,
    state: Mutex<State>,
    changed: Condvar,
    left: Condvar,
}

#[derive(Default)]
struct State {
    next: u64,
    // `None` sorts first: at once.
    due: BTreeSet<(Option<Instant>, u64, NodeId)>,
    /// Those who are being cut off, one for each thread that is inside the transport.
    cutting: Vec<NodeId>,
    threads: usize,
    waiting: Vec<(NodeId, Arc<OneShot<()>>)>,
    closed: bool,
}

impl State {
    fn is_due(&self, peer: NodeId) -> bool {
        self.cutting.contains(&peer) || self.due.iter().any(|(_, _, other)| *other == peer)
    }
}

/// Whoever holds a clone of this still has something to send first; when the last is dropped the peer is cut off.
pub(crate) struct Cut {
    shared: Arc<Shared>,
    entry: (Option<Instant>, u64, NodeId),
}

impl Cutter {
    pub(crate) fn start(transport: Arc<dyn Transport>) -> io::Result<Self> {
        let state = Mutex::new(State { threads: 1, ..State::default() });
        let shared = Arc::new(Shared { transport, state, changed: Condvar::new(), left: Condvar::new() });
        begin(&shared)?;
        Ok(Self { shared })
    }

    /// Cuts the peer off within this time at the latest, and as soon as the answer was dropped; `None` if there is
    /// nobody to leave it to.
    ///
    /// # Ordering
    /// Takes a short lock and calls nobody: the store's writer lock may be held.
    pub(crate) fn schedule(&self, peer: NodeId, within: Duration) -> Option<Cut> {
        let mut state = self.shared.state.lock();
        if state.closed || state.due.len() >= DUE_MAX {
            return None;
        }
        let entry = (Deadline::after(within).instant(), state.next, peer);
        state.next += 1;
        state.due.insert(entry);
        drop(state);
        self.shared.changed.notify_one();
        Some(Cut { shared: Arc::clone(&self.shared), entry })
    }

    /// Cuts the peer off at once: on this thread if nobody else is there to do it.
    pub(crate) fn cut(&self, peer: NodeId) {
        if self.schedule(peer, Duration::ZERO).is_none() {
            disconnect(&self.shared, peer);
        }
    }

    /// Waits until the peer is not to be cut off any more: what is sent then will not be cut for what came before it.
    pub(crate) fn wait(&self, peer: NodeId, deadline: Deadline) {
        let mut state = self.shared.state.lock();
        if !state.is_due(peer) {
            return;
        }
        let slot = Arc::new(OneShot::new());
        state.waiting.push((peer, Arc::clone(&slot)));
        drop(state);
        if slot.wait(deadline).is_none() {
            self.shared.state.lock().waiting.retain(|(_, other)| !Arc::ptr_eq(other, &slot));
        }
    }

    /// Has everybody cut off who is due sooner or later, and the threads end; waits for that until the deadline. False if a
    /// transport that hangs did not let them.
    pub(crate) fn close(&self, until: Deadline) -> bool {
        let mut state = self.shared.state.lock();
        state.closed = true;
        self.shared.changed.notify_one();
        while state.threads > 0 {
            let (guard, late) = self.shared.left.wait_until(state, until);
            state = guard;
            if late {
                break;
            }
        }
        let (ended, waiting) = (state.threads == 0, std::mem::take(&mut state.waiting));
        drop(state);
        for (_, slot) in waiting {
            slot.put(());
        }
        ended
    }
}

impl Drop for Cutter {
    fn drop(&mut self) {
        self.close(Deadline::after(Duration::ZERO));
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        let (_, id, peer) = self.entry;
        let mut state = self.shared.state.lock();
        if state.due.remove(&self.entry) {
            state.due.insert((None, id, peer));
            drop(state);
            self.shared.changed.notify_one();
        }
    }
}

/// Starts a thread that the state counts already.
fn begin(shared: &Arc<Shared>) -> io::Result<()> {
    let of_thread = Arc::clone(shared);
    spawn("trustkeep-cut", move || run(&of_thread)).map(drop)
}

fn run(shared: &Arc<Shared>) {
    let mut state = shared.state.lock();
    loop {
        let Some(&(at, id, peer)) = state.due.first() else {
            // One stays, and one for when it is inside the transport.
            if state.closed || state.threads > state.cutting.len() + 2 {
                break;
            }
            state = shared.changed.wait_until(state, Deadline::NEVER).0;
            continue;
        };
        let now = Deadline::after(Duration::ZERO).instant();
        let left = at.zip(now).map_or(Duration::ZERO, |(at, now)| at.saturating_duration_since(now));
        if !left.is_zero() && !state.closed {
            state = shared.changed.wait_until(state, Deadline::after(left)).0;
            continue;
        }
        state.due.remove(&(at, id, peer));
        state.cutting.push(peer);
        // Somebody must be there for the others, should the transport hang over this one.
        let another = state.cutting.len() == state.threads && state.threads < THREADS_MAX;
        state.threads += usize::from(another);
        drop(state);
        let began = !another || begin(shared).is_ok();
        disconnect(shared, peer);
        state = shared.state.lock();
        state.threads -= usize::from(!began);
        if let Some(place) = state.cutting.iter().position(|other| *other == peer) {
            state.cutting.swap_remove(place);
        }
        if !state.is_due(peer) {
            for (_, slot) in state.waiting.extract_if(.., |(other, _)| *other == peer) {
                slot.put(());
            }
        }
    }
    state.threads -= 1;
    drop(state);
    // Pass the word on: one notification wakes one thread only.
    shared.changed.notify_one();
    shared.left.notify_one();
}

fn disconnect(shared: &Shared, peer: NodeId) {
    if foreign::run(|| shared.transport.disconnect(peer)).is_err() {
        tracing::error!(%peer, "the transport panicked while disconnecting a peer");
    }
}

/// Beyond this, whoever revokes cuts the peer off himself, rather without a farewell than later.
const DUE_MAX: usize = 16 * 1024;
/// How many peers a transport may hang over before it holds up the others.
const THREADS_MAX: usize = 8;
