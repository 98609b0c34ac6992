//! Cutting peers off in time: a revoked peer's connections are cut when the farewell has left, or when its time is up.
//!
//! Neither a peer that does not read nor a disk that does not answer can put it off: the deadlines have a thread of
//! their own, which waits for nothing else.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use super::transport::Transport;
use crate::peer::NodeId;
use crate::sync::{Condvar, Deadline, Mutex, spawn};
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
    closed: bool,
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

    /// Cuts the peer off within this time at the latest, and as soon as the answer was dropped.
    pub(crate) fn schedule(&self, peer: NodeId, within: Duration) -> Cut {
        let mut state = self.shared.state.lock();
        let entry = (Deadline::after(within).instant(), state.next, peer);
        state.next += 1;
        let full = state.closed || state.due.len() >= DUE_MAX;
        if !full {
            state.due.insert(entry);
        }
        drop(state);
        if full {
            // Nobody to leave it to: rather without a farewell than later.
            disconnect(&self.shared, peer);
        }
        self.shared.changed.notify_one();
        Cut { shared: Arc::clone(&self.shared), entry }
    }

    /// Cuts off everybody who is due sooner or later, and ends the thread.
    pub(crate) fn close(&self) {
        let mut state = self.shared.state.lock();
        state.closed = true;
        let due = std::mem::take(&mut state.due);
        drop(state);
        self.shared.changed.notify_one();
        for (_, _, peer) in due {
            disconnect(&self.shared, peer);
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
        drop(state);
        disconnect(shared, peer);
        state = shared.state.lock();
    }
}

fn disconnect(shared: &Shared, peer: NodeId) {
    if catch_unwind(AssertUnwindSafe(|| shared.transport.disconnect(peer))).is_err() {
        tracing::error!(%peer, "the transport panicked while disconnecting a peer");
    }
}

/// Beyond this, whoever revokes cuts the peer off himself.
const DUE_MAX: usize = 16 * 1024;
