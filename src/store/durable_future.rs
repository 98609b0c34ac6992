//! Waiting for the disk without a thread: a future for any runtime, or none.
//!
//! INVARIANT: it stands among the waiters of `progress` from its first poll that found the change not durable until it was
//! answered or dropped, and never afterwards.
#![forbid(unsafe_code)]

use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};

use super::progress::{OnFailure, Slot, TicketState};
use super::receipt::Receipt;
use crate::error::PersistError;

/// Becomes `Ok` once the change of a receipt survives kill and power loss, and an error as
/// [`Receipt::wait_durable`](super::Receipt::wait_durable) would give it; made by
/// [`Receipt::durable_future`](super::Receipt::durable_future).
///
/// It needs no runtime: whoever polls it is woken. A time limit is the caller's, who drops it when the time is up, and
/// nothing of it is left behind then. It may outlive the store, of whose memory it keeps nothing. Polled again after it was ready, it answers the same.
///
/// # Ordering
/// No save is missed, whenever it ends; the newest waker is woken once, on the thread that saves, with no lock held: it
/// may do anything but wait for that thread, as `flush` does, and may be the last to hold the store. A poll never waits
/// for the disk.
#[must_use = "a future does nothing unless it is polled"]
pub struct DurableFuture {
    receipt: Receipt,
    state: State,
}

enum State {
    /// Not polled yet.
    New,
    Waiting(Slot),
    Ready(Result<(), PersistError>),
}

impl DurableFuture {
    pub(super) fn new(receipt: Receipt) -> Self {
        Self { receipt, state: State::New }
    }

    fn begin(&self) -> State {
        if self.receipt.is_durable() {
            return State::Ready(Ok(()));
        }
        if self.receipt.is_inside() {
            return State::Ready(Err(PersistError::Reentrant));
        }
        match self.receipt.ticket(OnFailure::Report).into_state() {
            TicketState::Answered(answer) => State::Ready(answer),
            TicketState::Waiting(slot) => State::Waiting(slot),
        }
    }
}

impl Future for DurableFuture {
    type Output = Result<(), PersistError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if !matches!(self.state, State::Ready(_)) && self.receipt.is_forked() {
            self.state = State::Ready(Err(PersistError::Forked));
        }
        if let State::New = self.state {
            self.state = self.begin();
        }
        let answer = match &self.state {
            // A save that ends between registering and this finds the slot, and this finds the answer in it.
            State::Waiting(slot) => slot.answer.poll(context.waker()),
            State::Ready(answer) => Some(answer.clone()),
            State::New => None,
        };
        match answer {
            Some(answer) => {
                // Whoever filled the slot has taken it out of the waiters.
                self.state = State::Ready(answer.clone());
                Poll::Ready(answer)
            }
            None => Poll::Pending,
        }
    }
}

impl Drop for DurableFuture {
    fn drop(&mut self) {
        if let State::Waiting(slot) = &self.state
            && !self.receipt.is_forked()
        {
            self.receipt.forget(slot);
        }
    }
}

impl fmt::Debug for DurableFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ready = matches!(self.state, State::Ready(_));
        f.debug_struct("DurableFuture")
            .field("generation", &self.receipt.generation())
            .field("ready", &ready)
            .finish_non_exhaustive()
    }
}
