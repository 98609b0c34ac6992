//! Enforcing what ends trust by another door than the node's own: a change that a program makes through the store is cut off
//! and reported like any other.
//!
//! INVARIANT: each peer that the store tells of is cut off, however many there are and whatever the registry does. Cuts wait
//! for no report. Few reports are under way at a time, so that none pushes another out of its queue.
//!
//! The calls that send something look first whether there is a loss to enforce. So a cut that is due hits no message that
//! was sent after the change.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::effects::Queue;
use super::outbox::{Lane, Task};
use super::shell::Shell;
use crate::foreign;
use crate::peer::NodeId;
use crate::store::{Enforcer, Losses};
use crate::sync::{Condvar, Deadline, Mutex, spawn};

/// Who lost trust by the store's own changes, on the way to the cutter and the registry.
pub(crate) struct Enforcement {
    shared: Arc<Shared>,
}

struct Shared {
    losses: Losses,
    state: Mutex<State>,
    left: Condvar,
}

#[derive(Default)]
struct State {
    /// Whom the cutter had no room for; the thread cuts them itself.
    to_cut: Vec<NodeId>,
    to_report: BTreeSet<NodeId>,
    reports: usize,
    stopped: bool,
    runs: bool,
}

/// A report that is under way, until this is dropped.
struct UnderWay(Arc<Shared>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.reports = state.reports.saturating_sub(1);
        drop(state);
        self.0.losses.wake();
    }
}

impl Enforcement {
    pub(crate) fn new(losses: Losses) -> Self {
        let (state, left) = (Mutex::new(State::default()), Condvar::new());
        Self { shared: Arc::new(Shared { losses, state, left }) }
    }

    /// As whom the node changes the store: what it ends so, it enforces by itself.
    pub(crate) fn by(&self) -> Enforcer {
        self.shared.losses.enforcer()
    }

    /// Begins to enforce, on a thread of its own.
    pub(crate) fn start(&self, shell: &Arc<Shell>) -> io::Result<()> {
        let (of_thread, shell) = (Leaving(Arc::clone(&self.shared)), Arc::downgrade(shell));
        self.shared.state.lock().runs = true;
        spawn("trustkeep-end", move || run(&of_thread.0, &shell)).map(drop)
    }

    /// Has the thread enforce what was changed so far, and leave; waits for it until the deadline. Says whether it has left.
    pub(crate) fn close(&self, shell: &Shell, until: Deadline) -> bool {
        shell.enforce_losses();
        let mut state = self.shared.state.lock();
        state.stopped = true;
        self.shared.losses.wake();
        while state.runs {
            let (guard, late) = self.shared.left.wait_until(state, until);
            state = guard;
            if late {
                break;
            }
        }
        let (to_cut, left) = (core::mem::take(&mut state.to_cut), !state.runs);
        drop(state);
        to_cut.into_iter().for_each(|peer| shell.cutter.cut(peer));
        left
    }
}

/// Says that the thread has left, however it does.
struct Leaving(Arc<Shared>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.state.lock().runs = false;
        self.0.left.notify_one();
    }
}

fn run(shared: &Arc<Shared>, shell: &Weak<Shell>) {
    loop {
        shared.losses.wait();
        let Some(shell) = shell.upgrade() else { return };
        shell.enforce_losses();
        let (to_cut, stopped) = {
            let mut state = shared.state.lock();
            (core::mem::take(&mut state.to_cut), state.stopped)
        };
        for peer in to_cut {
            shell.cutter.cut(peer);
        }
        while let Some(peer) = shared.next_to_report(stopped) {
            let under_way = UnderWay(Arc::clone(shared));
            if foreign::run(|| shell.report_lost(peer, under_way)).is_err() {
                shell.count("not_reported", &format_args!("a panic while reporting the end of trust in node {peer}"));
            }
        }
        if stopped {
            return;
        }
    }
}

impl Shared {
    fn next_to_report(&self, stopped: bool) -> Option<NodeId> {
        let mut state = self.state.lock();
        // A node that stops gives its queue all there is.
        if state.reports >= REPORTS_MAX && !stopped {
            return None;
        }
        let peer = state.to_report.pop_first()?;
        state.reports += 1;
        Some(peer)
    }
}

impl Shell {
    /// Has everybody cut off, at once, who lost trust by a change of the store's own so far; reports follow.
    ///
    /// # Ordering
    /// When this returns the cuts are due, and [`Cutter::wait`](super::cutter::Cutter::wait) waits for them.
    pub(crate) fn enforce_losses(&self) {
        let shared = &self.enforcement.shared;
        // Held until the cuts are due: who looks next finds them so.
        let mut state = shared.state.lock();
        let Some(lost) = shared.losses.take() else { return };
        for peer in lost.peers() {
            // An entry about ourselves has no tunnel, and is not the registry's business.
            if peer == self.rules.own_id {
                continue;
            }
            match self.cutter.schedule(peer, Duration::ZERO) {
                Some(cut) => drop(cut),
                None => state.to_cut.push(peer),
            }
            if self.registry.is_some() {
                state.to_report.insert(peer);
            }
        }
        let excess = state.to_report.len().saturating_sub(TO_REPORT_MAX);
        for _ in 0..excess {
            state.to_report.pop_first();
        }
        drop(state);
        for _ in 0..excess {
            self.count("not_reported", &"too many ends of trust wait to be reported; one is not");
        }
    }

    /// Reports what has become of a peer that lost trust: that it is trusted no longer, or, once that is durable, that it is
    /// under another key.
    fn report_lost(self: &Arc<Self>, peer: NodeId, under_way: UnderWay) {
        let counted = |task: Task| -> Task {
            Box::new(move |turn| {
                let _under_way = under_way;
                task(turn);
            })
        };
        match self.store.get(peer) {
            None => self.queue(peer, Queue::Reports, Lane::First, counted(self.reporting(peer, None))),
            Some(record) => {
                let Some(receipt) = self.store.newest() else { return };
                let (shell, task) = (Arc::clone(self), counted(self.reporting(peer, Some(record))));
                let release = Box::new(move || shell.queue(peer, Queue::Reports, Lane::Ordinary, task));
                self.note_lost(self.durable.put(Some(peer), receipt, release), &"the report of a grant was dropped");
            }
        }
    }
}

/// Reports that are under way at a time: far fewer than the queue holds.
const REPORTS_MAX: usize = 64;
/// Beyond this a registry that takes no reports is not told of all of them.
const TO_REPORT_MAX: usize = 1 << 20;
