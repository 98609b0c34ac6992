//! Waiting for trust without a thread: a future for any runtime, or none.
//!
//! INVARIANT: it stands in the table of waiters from its first poll that found no trust until it was answered or dropped,
//! and never afterwards.
#![forbid(unsafe_code)]

use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};

use super::shared::{Looked, Shared};
use super::waiters::Waiting;
use crate::peer::NodeId;
use crate::sync::Arc;

/// Becomes true once the peer is trusted, and false if the store is closed first; made by
/// [`TrustStore::trust_future`](super::TrustStore::trust_future) and
/// [`HandshakeManager::trust_future`](crate::HandshakeManager::trust_future).
///
/// It needs no runtime: whoever polls it is woken. A time limit is the caller's, who drops it when the time is up, and
/// nothing of it is left behind then. It may outlive the store, whose memory it keeps until it is answered or dropped: after the
/// store is gone, a poll answers. Polled again after it was ready, it answers the same.
///
/// # Ordering
/// No grant is missed, whenever it happens; the newest waker is woken once, on the thread of whoever granted, after the
/// grant is visible and with no lock held. A poll may wait for other writers' publishes, never for the disk.
///
/// Polled or dropped inside the closure of `update`, it answers at once, as the blocking call does.
#[must_use = "a future does nothing unless it is polled"]
pub struct TrustFuture {
    peer: NodeId,
    state: State,
}

enum State {
    /// Not polled yet.
    New(Arc<Shared>),
    Waiting(Arc<Shared>, Waiting),
    Ready(bool),
}

impl TrustFuture {
    pub(crate) fn new(shared: Arc<Shared>, peer: NodeId) -> Self {
        Self { peer, state: State::New(shared) }
    }

    /// A future that has its answer.
    pub(crate) fn ready(peer: NodeId, is_trusted: bool) -> Self {
        Self { peer, state: State::Ready(is_trusted) }
    }
}

impl Future for TrustFuture {
    type Output = bool;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<bool> {
        if let State::Waiting(shared, _) = &self.state
            && shared.is_forked()
        {
            self.state = State::Ready(shared.is_trusted(self.peer));
        }
        if let State::New(shared) = &self.state {
            let shared = Arc::clone(shared);
            self.state = match shared.look_or_register(self.peer) {
                Looked::Known(is_trusted) => State::Ready(is_trusted),
                Looked::Registered(waiting) => State::Waiting(shared, waiting),
            };
        }
        let answer = match &self.state {
            // A grant between registering and this finds the slot, and this finds the grant in it.
            State::Waiting(_, waiting) => waiting.poll(context.waker()),
            State::Ready(is_trusted) => Some(*is_trusted),
            State::New(_) => None,
        };
        match answer {
            Some(is_trusted) => {
                // Whoever filled the slot has taken it out of the table.
                self.state = State::Ready(is_trusted);
                Poll::Ready(is_trusted)
            }
            None => Poll::Pending,
        }
    }
}

impl Drop for TrustFuture {
    fn drop(&mut self) {
        if let State::Waiting(shared, waiting) = &self.state {
            shared.forget(self.peer, waiting);
        }
    }
}

impl fmt::Debug for TrustFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ready = matches!(self.state, State::Ready(_));
        f.debug_struct("TrustFuture").field("peer", &self.peer).field("ready", &ready).finish()
    }
}
