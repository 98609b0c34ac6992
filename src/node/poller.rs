//! Fetching relayed messages: one thread asks the relay, has each message handled, and has it acknowledged once what came
//! of it is durable.
//!
//! INVARIANT: a message is acknowledged only after everything that was published up to the end of its handling is durable.
//! Until then it is *held*: fetched again, it is not handled again; and if the node stops before, its next life fetches it.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::outbox::{Lane, Placed, Task};
use super::pace::Pace;
use super::registry::{Fetched, Registry, RegistryError, Relayed, Relaying, Revision};
use super::shell::{Handled, Shell};
use super::tcp::remaining;
use crate::foreign;
use crate::sync::{Condvar, Deadline, Mutex, spawn};
use crate::time::Tick;

/// The thread that fetches.
pub(crate) struct Poller {
    shared: Arc<Shared>,
}

struct Shared {
    registry: Arc<dyn Registry>,
    state: Mutex<State>,
    changed: Condvar,
    // Whoever stops waits here.
    left: Condvar,
}

#[derive(Default)]
struct State {
    stopped: bool,
    gone: bool,
    hurry: bool,
    /// Handled, and not acknowledged yet.
    held: BTreeSet<Revision>,
    /// Of these, durable, and to be acknowledged now.
    due: VecDeque<Revision>,
    /// Of these, those whose acknowledgement the relay did not take.
    again: Vec<Revision>,
    /// Whether a task is on its way through `due`.
    acknowledging: bool,
}

impl Poller {
    /// Begins to fetch; `None` if the registry relays nothing.
    pub(crate) fn start(shell: &Arc<Shell>) -> io::Result<Option<Self>> {
        let relaying = shell.relaying;
        let Some(registry) = shell.registry.clone().filter(|_| relaying != Relaying::No) else { return Ok(None) };
        let config = &shell.rules.config;
        let pace = Pace::new(config.relay_poll_min, config.relay_poll_max);
        let shared =
            Shared { registry, state: Mutex::new(State::default()), changed: Condvar::new(), left: Condvar::new() };
        let shared = Arc::new(shared);
        let (of_thread, shell) = (Arc::clone(&shared), Arc::downgrade(shell));
        spawn("trustkeep-relay", move || {
            let end = Ending(Arc::clone(&of_thread));
            let (after, tries, later) = (Revision::NONE, BTreeMap::new(), Vec::new());
            Fetching { shared: of_thread, shell, pace, relaying, after, tries, later }.run();
            drop(end);
        })?;
        Ok(Some(Self { shared }))
    }

    /// A request of ours has left: an answer may come soon.
    pub(crate) fn hurry(&self) {
        self.shared.state.lock().hurry = true;
        self.shared.changed.notify_one();
    }

    /// Fetches nothing more.
    pub(crate) fn stop(&self) {
        self.shared.state.lock().stopped = true;
        self.shared.changed.notify_one();
        if foreign::run(|| self.shared.registry.interrupt()).is_err() {
            tracing::error!("the registry panicked while it was told to stop");
        }
    }

    /// Waits until the thread has left; false if the deadline came first.
    pub(crate) fn wait(&self, until: Deadline) -> bool {
        let mut state = self.shared.state.lock();
        while !state.gone {
            let (guard, late) = self.shared.left.wait_until(state, until);
            state = guard;
            if late {
                break;
            }
        }
        state.gone
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Says that the thread has left, however it does.
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.state.lock().gone = true;
        self.0.left.notify_one();
    }
}

/// What the thread works with.
struct Fetching {
    shared: Arc<Shared>,
    shell: Weak<Shell>,
    pace: Pace,
    relaying: Relaying,
    /// Everything up to here was handled, or is in `later`.
    after: Revision,
    /// How often the registry could not be asked about the sender of a message.
    tries: BTreeMap<Revision, u32>,
    /// Messages that may be taken later; their revisions are held.
    later: Vec<Later>,
}

/// A message for which there was no room, or which our clock says is from the future.
struct Later {
    message: Relayed,
    since: Tick,
    next: Tick,
}

impl Fetching {
    fn run(mut self) {
        loop {
            let wait = if self.relaying == Relaying::Watch { WATCH } else { Duration::ZERO };
            let watched = Deadline::after(wait / 2);
            let registry = &self.shared.registry;
            let fetched = foreign::run(|| registry.fetch(self.after, BATCH_MAX, wait))
                .unwrap_or_else(|_| Fetched::partly(Vec::new(), RegistryError::Panicked));
            if self.shared.state.lock().stopped {
                return;
            }
            let Some(shell) = self.shell.upgrade() else { return };
            let found = !fetched.messages.is_empty();
            // A defect in handling must not end fetching for good.
            let whole = foreign::run(|| {
                let whole = self.take(&shell, fetched);
                self.take_later(&shell);
                whole
            })
            .unwrap_or_else(|_| {
                shell.count("panicked", &"a panic while handling what a relay had");
                false
            });
            self.acknowledge_again(&shell);
            // A watch that ends early with nothing is polled: it must not spin.
            let patient = self.relaying == Relaying::Watch && (found || remaining(watched).is_zero());
            if whole && patient {
                continue;
            }
            let mut random = [128];
            let filled = foreign::run(|| shell.random.fill(&mut random));
            if !matches!(filled, Ok(Ok(()))) {
                random = [128];
            }
            foreign::let_go(filled);
            drop(shell);
            if !self.pause(random[0]) {
                return;
            }
        }
    }

    /// Has everything handled that was fetched. False if something failed: the same is asked for again.
    fn take(&mut self, shell: &Arc<Shell>, fetched: Fetched) -> bool {
        let Fetched { messages, failure } = fetched;
        let mut whole = true;
        if let Some(error) = failure {
            whole = false;
            if matches!(error, RegistryError::RevisionUnknown) {
                self.after = Revision::NONE;
            }
            shell.count("fetch_failed", &format_args!("relayed messages could not be fetched: {error}"));
            foreign::let_go(error);
        }
        // What the relay hands out no longer is not waited for: there are never more of these than a batch has messages.
        self.tries.retain(|revision, _| messages.iter().take(BATCH_MAX).any(|message| message.revision == *revision));
        let mut newest = self.after;
        for message in messages.into_iter().take(BATCH_MAX) {
            let revision = message.revision;
            let state = self.shared.state.lock();
            let (stopped, held, room) = (state.stopped, state.held.contains(&revision), state.held.len() < HELD_MAX);
            drop(state);
            if held && !stopped {
                newest = newest.max(revision);
                continue;
            }
            if stopped || !room {
                return false;
            }
            if self.handle(shell, message) {
                newest = newest.max(revision);
            } else {
                whole = false;
            }
        }
        if whole {
            self.after = newest;
        }
        whole
    }

    /// Handles one message; false if that has to be done again.
    fn handle(&mut self, shell: &Arc<Shell>, message: Relayed) -> bool {
        let revision = message.revision;
        let tries = self.tries.get(&revision).copied().unwrap_or(0);
        let handled = shell.receive_relayed(message.from, message.bytes.clone(), tries < TRIES_MAX);
        match handled {
            Handled::Done | Handled::Later => {}
            Handled::NotNow => return false,
            Handled::NotAsked => {
                self.tries.insert(revision, tries + 1);
                return false;
            }
        }
        self.tries.remove(&revision);
        let is_kept = matches!(handled, Handled::Later) && self.keeps_for_later(shell, &message);
        is_kept || self.release(shell, revision)
    }

    /// false if that one is given up instead, as there are too many, or too many that this node handed in.
    fn keeps_for_later(&mut self, shell: &Shell, message: &Relayed) -> bool {
        let of_sender = self.later.iter().filter(|later| later.message.from == message.from).count();
        if self.later.len() >= LATER_MAX || of_sender >= LATER_PER_SENDER_MAX {
            return false;
        }
        let since = shell.clock.now().tick;
        self.shared.state.lock().held.insert(message.revision);
        self.later.push(Later { message: message.clone(), since, next: next_try(shell, since) });
        true
    }

    /// Tries again what there was no room for; what has been tried for an hour is given up, and acknowledged.
    fn take_later(&mut self, shell: &Arc<Shell>) {
        let now = shell.clock.now().tick;
        for mut later in core::mem::take(&mut self.later) {
            if now < later.next {
                self.later.push(later);
                continue;
            }
            let revision = later.message.revision;
            let again = match shell.receive_relayed(later.message.from, later.message.bytes.clone(), false) {
                Handled::Done => false,
                Handled::NotNow | Handled::NotAsked => true,
                Handled::Later => now.millis_since(later.since) < LATER_WITHIN_MS,
            };
            if again || !self.release(shell, revision) {
                self.shared.state.lock().held.insert(revision);
                later.next = next_try(shell, now);
                self.later.push(later);
            }
        }
    }

    /// Has a message acknowledged once all that was published is durable; false if that has to be tried again.
    fn release(&self, shell: &Arc<Shell>, revision: Revision) -> bool {
        // Also of a message that came to nothing: perhaps for what its copy did a moment ago.
        let Some(receipt) = shell.store.newest() else { return false };
        self.shared.state.lock().held.insert(revision);
        let release = {
            let (shell, shared) = (Arc::downgrade(shell), Arc::clone(&self.shared));
            Box::new(move || {
                shared.state.lock().due.push_back(revision);
                if let Some(shell) = shell.upgrade() {
                    acknowledge(&shell, &shared);
                }
            })
        };
        // Bounded by what is held, and nobody's share.
        let queued = shell.durable.put(None, receipt, release) != Placed::Refused;
        if !queued {
            self.shared.state.lock().held.remove(&revision);
            shell.count("queue_full", &"too many answers wait for the disk; a relayed message stays unacknowledged");
        }
        queued
    }

    fn acknowledge_again(&self, shell: &Arc<Shell>) {
        let mut state = self.shared.state.lock();
        let again = core::mem::take(&mut state.again);
        state.due.extend(again);
        drop(state);
        acknowledge(shell, &self.shared);
    }

    /// Waits until it is time to ask again; false if there is nothing to ask for any more.
    fn pause(&mut self, random: u8) -> bool {
        let mut until = Deadline::after(self.pace.pause(random));
        let mut state = self.shared.state.lock();
        loop {
            if state.stopped {
                return false;
            }
            if core::mem::take(&mut state.hurry) {
                self.pace.hurry();
                until = Deadline::after(self.pace.pause(random));
            }
            let (guard, late) = self.shared.changed.wait_until(state, until);
            state = guard;
            if late {
                return !state.stopped;
            }
        }
    }
}

/// What cannot be taken is tried as often as a calm relay is polled.
fn next_try(shell: &Shell, now: Tick) -> Tick {
    now.saturating_add(i64::try_from(shell.rules.config.relay_poll_max.as_millis()).unwrap_or(i64::MAX))
}

/// Acknowledges what is due, on one thread of those where the registry may take its time.
fn acknowledge(shell: &Arc<Shell>, shared: &Arc<Shared>) {
    let mut state = shared.state.lock();
    if state.acknowledging || state.due.is_empty() {
        return;
    }
    state.acknowledging = true;
    drop(state);
    let (of_task, counting) = (Arc::clone(shared), Arc::downgrade(shell));
    let task: Task = Box::new(move |_turn| {
        loop {
            let mut state = of_task.state.lock();
            let Some(revision) = state.due.pop_front() else {
                state.acknowledging = false;
                return;
            };
            drop(state);
            let told = foreign::run(|| of_task.registry.acknowledge(revision));
            let told = told.unwrap_or(Err(RegistryError::Panicked));
            let mut state = of_task.state.lock();
            match told {
                Ok(()) => {
                    state.held.remove(&revision);
                }
                Err(error) => {
                    state.again.push(revision);
                    drop(state);
                    if let Some(shell) = counting.upgrade() {
                        shell.count("not_acknowledged", &format_args!("the relay took no acknowledgement: {error}"));
                    }
                    // Or whoever comes next would find this still under way.
                    foreign::let_go(error);
                }
            }
        }
    });
    // No peer has our own id, so no report waits behind this.
    if shell.reports.put(shell.rules.own_id, Lane::Ordinary, task) == Placed::Refused {
        shared.state.lock().acknowledging = false;
    }
}

/// Messages that are fetched at a time.
const BATCH_MAX: usize = 64;
/// Messages that were handled and not acknowledged; a relay that takes no acknowledgement is asked for nothing more.
const HELD_MAX: usize = 1024;
/// How often a message is put off because the registry cannot be asked about its sender. Then it is handled without the
/// registry's word, which trusts nobody new.
const TRIES_MAX: u32 = 8;
/// Messages that may be taken later, altogether and of one who handed them in. Each is at most as long as a message.
const LATER_MAX: usize = 64;
const LATER_PER_SENDER_MAX: usize = 4;
/// How long a message that cannot be taken is tried again.
const LATER_WITHIN_MS: i64 = 60 * 60 * 1000;
/// How long one watch waits; an interruption ends it sooner.
const WATCH: Duration = Duration::from_secs(20);
