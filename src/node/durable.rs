//! Answers that wait for the disk: a peer hears of a grant only once the grant survives power loss.
//!
//! They wait here, on one thread, in the order in which they were made, and so hold up nothing that need not wait. What
//! is durable is a prefix of what happened, so waiting for the first of them never waits longer than the rest must.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use super::outbox::Task;
use super::tcp::remaining;
use crate::error::PersistError;
use crate::store::Receipt;
use crate::sync::{Condvar, Deadline, Mutex, spawn};
use std::sync::Arc;

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
    queue: VecDeque<(Receipt, Task)>,
    closing: Option<Deadline>,
    gone: bool,
}

impl Durable {
    pub(crate) fn start() -> io::Result<Self> {
        let shared =
            Arc::new(Shared { state: Mutex::new(State::default()), work: Condvar::new(), left: Condvar::new() });
        let of_thread = Arc::clone(&shared);
        spawn("trustkeep-durable", move || run(&of_thread))?;
        Ok(Self { shared })
    }

    /// Runs `task` once what `receipt` stands for is durable; it must not block. False (and the task is dropped) if too
    /// many wait already, or this was closed.
    pub(crate) fn put(&self, receipt: Receipt, task: Task) -> bool {
        let mut state = self.shared.state.lock();
        if state.closing.is_some() || state.queue.len() >= QUEUE_MAX {
            return false;
        }
        state.queue.push_back((receipt, task));
        drop(state);
        self.shared.work.notify_one();
        true
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
        let Some((receipt, task)) = state.queue.pop_front() else {
            if closing.is_some() {
                break;
            }
            state = shared.work.wait_until(state, Deadline::NEVER).0;
            continue;
        };
        drop(state);
        let kept = wait(shared, &receipt);
        if kept {
            task();
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
/// How often a wait looks whether it is to end.
const SLICE: Duration = Duration::from_millis(100);
