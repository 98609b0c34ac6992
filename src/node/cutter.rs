//! Cutting peers off in time: a revoked peer's connections are cut when the farewell has left, or when its time is up.
//!
//! Neither a peer that does not read nor a disk that does not answer can put it off: the deadlines have a thread of
//! their own, which waits for nothing else.
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
}

#[derive(Default)]
struct State {
    next: u64,
    // `None` sorts first: at once.
    due: BTreeSet<(Option<Instant>, u64, NodeId)>,
    cutting: Option<NodeId>,
    waiting: Vec<(NodeId, Arc<OneShot<()>>)>,
    closed: bool,
}

impl State {
    fn is_due(&self, peer: NodeId) -> bool {
        self.cutting == Some(peer) || self.due.iter().any(|(_, _, other)| *other == peer)
    }
}

/// Whoever holds a clone of this still has something to send first; when the last is dropped the peer is cut off.
pub(crate) struct Cut {
    shared: Arc<Shared>,
    entry: (Option<Instant>, u64, NodeId),
}

impl Cutter {
    pub(crate) fn start(transport: Arc<dyn Transport>) -> io::Result<Self> {
        let shared = Arc::new(Shared { transport, state: Mutex::new(State::default()), changed: Condvar::new() });
        let of_thread = Arc::clone(&shared);
        spawn("trustkeep-cut", move || run(&of_thread))?;
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

    /// Cuts the peer off on this thread.
    pub(crate) fn cut(&self, peer: NodeId) {
        disconnect(&self.shared, peer);
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

    /// Cuts off everybody who is due sooner or later, and ends the thread.
    pub(crate) fn close(&self) {
        let mut state = self.shared.state.lock();
        state.closed = true;
        let (due, waiting) = (std::mem::take(&mut state.due), std::mem::take(&mut state.waiting));
        drop(state);
        self.shared.changed.notify_one();
        for (_, _, peer) in due {
            disconnect(&self.shared, peer);
        }
        for (_, slot) in waiting {
            slot.put(());
        }
    }
}

impl Drop for Cutter {
    fn drop(&mut self) {
        self.close();
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

fn run(shared: &Shared) {
    let mut state = shared.state.lock();
    while !state.closed {
        let Some(&(at, id, peer)) = state.due.first() else {
            state = shared.changed.wait_until(state, Deadline::NEVER).0;
            continue;
        };
        let now = Deadline::after(Duration::ZERO).instant();
        let left = at.zip(now).map_or(Duration::ZERO, |(at, now)| at.saturating_duration_since(now));
        if !left.is_zero() {
            state = shared.changed.wait_until(state, Deadline::after(left)).0;
            continue;
        }
        state.due.remove(&(at, id, peer));
        state.cutting = Some(peer);
        drop(state);
        disconnect(shared, peer);
        state = shared.state.lock();
        state.cutting = None;
        if !state.is_due(peer) {
            for (_, slot) in state.waiting.extract_if(.., |(other, _)| *other == peer) {
                slot.put(());
            }
        }
    }
}

fn disconnect(shared: &Shared, peer: NodeId) {
    if foreign::run(|| shared.transport.disconnect(peer)).is_err() {
        tracing::error!(%peer, "the transport panicked while disconnecting a peer");
    }
}

/// Beyond this, whoever revokes cuts the peer off himself, rather without a farewell than later.
const DUE_MAX: usize = 16 * 1024;
