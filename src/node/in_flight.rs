//! The calls that are inside the node: counted, so that stopping lets nobody in any more and waits for those who are.
#![forbid(unsafe_code)]

use crate::sync::{Condvar, Deadline, Mutex, Process};

/// How many calls are inside, and whether more may come.
#[derive(Debug)]
pub(crate) struct InFlight {
    state: Mutex<State>,
    left: Condvar,
    /// That of the node's threads.
    process: Process,
}

#[derive(Debug, Default)]
struct State {
    inside: usize,
    closed: bool,
}

/// One call that is inside; it has left when this is dropped, by a panic too.
pub(crate) struct Pass<'a>(&'a InFlight);

impl InFlight {
    pub(crate) fn new() -> Self {
        Self { state: Mutex::new(State::default()), left: Condvar::new(), process: Process::this() }
    }

    /// Whether this process was forked from that of the node's threads. Here a lock may be held by one of them, so this is
    /// asked before any lock is taken.
    pub(crate) fn is_forked(&self) -> bool {
        !self.process.is_this()
    }

    /// Lets a call in; `None` once this was closed, and in a forked process.
    pub(crate) fn enter(&self) -> Option<Pass<'_>> {
        if self.is_forked() {
            return None;
        }
        let mut state = self.state.lock();
        if state.closed {
            return None;
        }
        state.inside += 1;
        Some(Pass(self))
    }

    /// Lets nobody in from now on.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
    }

    /// Waits until nobody is inside; false if the deadline came first.
    pub(crate) fn wait(&self, until: Deadline) -> bool {
        let mut state = self.state.lock();
        while state.inside > 0 {
            let (guard, late) = self.left.wait_until(state, until);
            state = guard;
            if late {
                break;
            }
        }
        state.inside == 0
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.inside -= 1;
        let last = state.inside == 0;
        drop(state);
        if last {
            self.0.left.notify_one();
        }
    }
}
