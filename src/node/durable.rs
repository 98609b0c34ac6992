//! Answers that wait for the disk: a peer hears of a grant only once the grant survives power loss.
//!
//! They wait here, on one thread, in the order in which they were made, and so hold up nothing that need not wait. What
//! is durable is a prefix of what happened, so waiting for the first of them never waits longer than the rest must.
//!
//! A peer has a bounded share of the queue, however often it asks while a disk hangs. Of its answers the oldest gives way:
//! only the newest request of a peer can still be answered.
#![forbid(unsafe_code)]

use std::collections::{HashMap, VecDeque};
use std::io;
use std::time::Duration;

use super::outbox::Placed;
use super::tcp::remaining;
use crate::error::PersistError;
use crate::foreign;
use crate::peer::NodeId;
use crate::store::Receipt;
use crate::sync::{Condvar, Deadline, Mutex, spawn};
use std::sync::Arc;

/// What is done once a generation is durable. It must not block.
pub(crate) type Release = Box<dyn FnOnce() + Send>;

struct Entry {
    peer: Option<NodeId>,
    receipt: Receipt,
    release: Release,
}

/// A bounded queue of what is to be done once a generation is durable.
pub(crate) struct Durable {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    work: Condvar,
    left: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Entry>,
    /// How many entries each peer has.
    of_peer: HashMap<NodeId, usize>,
    closing: Option<Deadline>,
    gone: bool,
}

impl State {
    /// Makes room for one more entry; the answer is what gave way, an error that nothing may.
    fn make_room(&mut self, peer: Option<NodeId>) -> Result<Option<Entry>, ()> {
        let own = peer.and_then(|peer| self.of_peer.get(&peer)).copied().unwrap_or(0);
        let victim = if own >= PER_PEER_MAX {
            peer
        } else if self.queue.len() < QUEUE_MAX {
            return Ok(None);
        } else {
            // The peer that holds most gives way, so that no peer's answers keep out those of a peer with fewer.
            let most = self.of_peer.iter().map(|(other, count)| (*count, *other)).max();
            Some(most.filter(|(count, _)| *count > own + 1).ok_or(())?.1)
        };
        let at = self.queue.iter().position(|entry| entry.peer == victim).ok_or(())?;
        let entry = self.queue.remove(at);
        self.left(victim);
        Ok(entry)
    }

    fn left(&mut self, peer: Option<NodeId>) {
        let Some(peer) = peer else { return };
        if let Some(count) = self.of_peer.get_mut(&peer) {
            *count -= 1;
            if *count == 0 {
                self.of_peer.remove(&peer);
            }
        }
    }
}

impl Durable {
    pub(crate) fn start() -> io::Result<Self> {
        let shared =
            Arc::new(Shared { state: Mutex::new(State::default()), work: Condvar::new(), left: Condvar::new() });
        let of_thread = Arc::clone(&shared);
        spawn("trustkeep-durable", move || run(&of_thread))?;
        Ok(Self { shared })
    }

    /// Runs `release` once what `receipt` stands for is durable. It counts against the share of `peer`, if one is named;
    /// the caller bounds what counts against nobody's.
    pub(crate) fn put(&self, peer: Option<NodeId>, receipt: Receipt, release: Release) -> Placed {
        let mut state = self.shared.state.lock();
        if state.closing.is_some() {
            return Placed::Refused;
        }
        let Ok(dropped) = state.make_room(peer) else { return Placed::Refused };
        if let Some(peer) = peer {
            *state.of_peer.entry(peer).or_insert(0) += 1;
        }
        state.queue.push_back(Entry { peer, receipt, release });
        drop(state);
        self.shared.work.notify_one();
        // What gave way ends with no lock held.
        if dropped.is_some() { Placed::Displaced } else { Placed::Queued }
    }

    /// Takes nothing more, and waits for what it has until the deadline; the rest is dropped.
    pub(crate) fn close(&self, deadline: Deadline) {
        let mut state = self.shared.state.lock();
        state.closing.get_or_insert(deadline);
        self.shared.work.notify_one();
        while !state.gone {
            let (guard, late) = self.shared.left.wait_until(state, deadline);
            state = guard;
            if late {
                break;
            }
        }
    }
}

impl Drop for Durable {
    fn drop(&mut self) {
        self.close(Deadline::after(Duration::ZERO));
    }
}

impl core::fmt::Debug for Durable {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Durable").field("waiting", &self.shared.state.lock().queue.len()).finish()
    }
}

fn run(shared: &Shared) {
    let mut state = shared.state.lock();
    loop {
        let closing = state.closing;
        let Some(Entry { peer, receipt, release }) = state.queue.pop_front() else {
            if closing.is_some() {
                break;
            }
            state = shared.work.wait_until(state, Deadline::NEVER).0;
            continue;
        };
        state.left(peer);
        drop(state);
        let kept = wait(shared, &receipt);
        // Before the lock is taken again: what a release owns ends with it, perhaps the node, which closes this queue.
        if foreign::run(|| if kept { release() } else { drop(release) }).is_err() {
            tracing::error!("a panic while an answer was released");
        }
        state = shared.state.lock();
    }
    state.gone = true;
    drop(state);
    shared.left.notify_one();
}

/// Whether the generation became durable; a failing disk is waited out, for as long as this is not closed.
fn wait(shared: &Shared, receipt: &Receipt) -> bool {
    loop {
        let closing = shared.state.lock().closing;
        let slice = closing.map_or(SLICE, |deadline| remaining(deadline).min(SLICE));
        match receipt.wait_durable_timeout(slice) {
            Ok(()) => return true,
            Err(PersistError::TimedOut { .. }) if closing.is_none() || slice == SLICE => {}
            // Never, or not in the time that is left.
            Err(_) => return false,
        }
    }
}

/// A lost answer is made good when the peer asks again.
const QUEUE_MAX: usize = 4096;
const PER_PEER_MAX: usize = 8;
/// How often a wait looks whether it is to end.
const SLICE: Duration = Duration::from_millis(100);
