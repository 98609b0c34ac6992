//! Comparing trusted records with the registry when a node starts: a peer whose key was replaced while we
//! were away is not trusted under the old one until it happens to speak.
//!
//! INVARIANT: trust ends only where the registry names another key than the record has, twice if it may block, and only
//! if few enough of the records compared are contradicted, or an operator says so. No lock of the store is held for longer
//! than one record takes.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::look_up::{Answer, Whom};
use super::registry::{RegistryEntry, RegistryError};
use super::shell::{NotDone, Shell};
use super::tcp::remaining;
use crate::foreign;
use crate::machine::input::Input;
use crate::peer::{KeyFault, NodeId, PublicKey};
use crate::sync::{Condvar, Deadline, Mutex, OneShot, spawn};

/// A trusted record that the registry contradicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Contradiction {
    /// The peer.
    pub peer: NodeId,
    /// The key under which it is trusted.
    pub trusted: PublicKey,
    /// The key that the registry names.
    pub registered: PublicKey,
}

/// The registry contradicts so many trusted records that none of them was ended. Either it is wrong, or many keys
/// were replaced: an operator knows.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RegistryDisagreement {
    /// How many records were compared.
    pub compared: u64,
    /// Those that are contradicted, and are still trusted under that key.
    pub contradicted: Vec<Contradiction>,
}

/// The threads that compare.
pub(crate) struct Comparison {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// A thread that is woken and goes on, or leaves, wakes the next one.
    changed: Condvar,
    // Whoever stops waits here.
    left: Condvar,
}

#[derive(Default)]
struct State {
    stopped: bool,
    threads: usize,
    /// Whom to compare in this pass, and whom in the next because the registry gave no answer.
    todo: VecDeque<NodeId>,
    unanswered: VecDeque<NodeId>,
    /// How many are being compared.
    asking: usize,
    passes: u32,
    /// No look-up begins sooner.
    next: Option<Deadline>,
    slots: Vec<Arc<OneShot<Answer>>>,
    compared: u64,
    /// Contradictions that were not decided about, and how many were.
    contradicted: Vec<Contradiction>,
    decided: u64,
    /// Whether there are too many to end any.
    held: bool,
}

impl Comparison {
    /// Begins to compare, in the background.
    pub(crate) fn start(shell: &Arc<Shell>) -> io::Result<Option<Self>> {
        let Some(look_ups) = &shell.look_ups else { return Ok(None) };
        let may_block = look_ups.may_block();
        let shared = Shared { state: Mutex::new(State::default()), changed: Condvar::new(), left: Condvar::new() };
        let this = Self { shared: Arc::new(shared) };
        let threads = if may_block { LOOK_UPS_AT_A_TIME } else { 1 };
        this.shared.state.lock().threads = threads;
        for nth in 0..threads {
            let (leaving, shell) = (Leaving(Arc::clone(&this.shared)), Arc::downgrade(shell));
            spawn("trustkeep-compare", move || {
                if nth == 0 {
                    leaving.0.begin(&shell);
                }
                leaving.0.run(&shell, may_block);
            })?;
        }
        Ok(Some(this))
    }

    /// Compares nothing more.
    pub(crate) fn stop(&self) {
        let mut state = self.shared.state.lock();
        state.stopped = true;
        let slots = core::mem::take(&mut state.slots);
        drop(state);
        self.shared.changed.notify_one();
        for slot in slots {
            slot.put(Err(RegistryError::TimedOut));
        }
    }

    /// Waits until the threads have left; false if the deadline came first.
    pub(crate) fn wait(&self, until: Deadline) -> bool {
        let mut state = self.shared.state.lock();
        while state.threads > 0 {
            let (guard, late) = self.shared.left.wait_until(state, until);
            state = guard;
            if late {
                break;
            }
        }
        state.threads == 0
    }

    /// What an operator has to decide, if anything.
    pub(crate) fn disagreement(&self, shell: &Shell) -> Option<RegistryDisagreement> {
        let state = self.shared.state.lock();
        if !state.held {
            return None;
        }
        let (compared, mut contradicted) = (state.compared, state.contradicted.clone());
        drop(state);
        contradicted.retain(|it| key_of(shell, it.peer) == Some(it.trusted));
        contradicted.sort_by_key(|it| it.peer);
        (!contradicted.is_empty()).then_some(RegistryDisagreement { compared, contradicted })
    }

    /// Forgets what was held back: the operator has decided.
    pub(crate) fn settle(&self) {
        let mut state = self.shared.state.lock();
        state.held = false;
        state.decided += core::mem::take(&mut state.contradicted).len() as u64;
    }
}

impl Drop for Comparison {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Says that a thread has left, however it does.
struct Leaving(Arc<Shared>);

impl Drop for Leaving {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.threads = state.threads.saturating_sub(1);
        drop(state);
        self.0.changed.notify_one();
        self.0.left.notify_one();
    }
}

impl Shared {
    /// Everybody who is trusted is to be compared.
    fn begin(&self, shell: &Weak<Shell>) {
        let peers = shell.upgrade().map(|shell| shell.store.snapshot().iter().map(|record| record.node_id).collect());
        let mut state = self.state.lock();
        (state.todo, state.passes) = (peers.unwrap_or_default(), 1);
        drop(state);
        self.changed.notify_one();
    }

    fn run(&self, shell: &Weak<Shell>, may_block: bool) {
        while let Some(peer) = self.next(shell, may_block) {
            let Some(shell) = shell.upgrade() else { return };
            // A defect in a registry must not end the comparison, nor leave a question open.
            let found = foreign::run(|| self.compare(&shell, peer, may_block)).unwrap_or(Compared::NoAnswer);
            drop(shell);
            let mut state = self.state.lock();
            state.asking = state.asking.saturating_sub(1);
            match found {
                Compared::Nothing => {}
                Compared::NoAnswer => state.unanswered.push_back(peer),
                Compared::Same => state.compared += 1,
                Compared::Other(contradiction) => {
                    state.compared += 1;
                    state.contradicted.push(contradiction);
                }
            }
            drop(state);
            self.changed.notify_one();
        }
    }

    /// The next peer to compare; `None` when there is nothing left, or no time.
    fn next(&self, shell: &Weak<Shell>, may_block: bool) -> Option<NodeId> {
        let mut state = self.state.lock();
        loop {
            if state.stopped {
                return None;
            }
            let pause = state.next.map_or(Duration::ZERO, remaining);
            if !pause.is_zero() && !state.todo.is_empty() {
                let next = state.next.unwrap_or(Deadline::NEVER);
                state = self.changed.wait_until(state, next).0;
            } else if let Some(peer) = state.todo.pop_front() {
                state.asking += 1;
                if may_block {
                    state.next = Some(Deadline::after(PACE));
                }
                drop(state);
                self.changed.notify_one();
                return Some(peer);
            } else if state.passes == 0 || state.asking > 0 {
                // Somebody still lists the peers, or asks.
                state = self.changed.wait_until(state, Deadline::NEVER).0;
            } else {
                // Nobody else is asking: this thread ends the pass.
                state.asking = 1;
                drop(state);
                if let Some(shell) = shell.upgrade() {
                    self.decide(&shell, may_block);
                }
                state = self.state.lock();
                state.asking = 0;
                if state.unanswered.is_empty() {
                    // Nothing is left: every thread leaves.
                    state.stopped = true;
                    self.changed.notify_one();
                    return None;
                }
                state.todo = core::mem::take(&mut state.unanswered);
                state.next = Some(Deadline::after(PASS_PAUSE * (1 << state.passes.min(PAUSE_DOUBLINGS_MAX))));
                state.passes = state.passes.saturating_add(1);
                self.changed.notify_one();
            }
        }
    }

    /// Compares one record.
    fn compare(&self, shell: &Shell, peer: NodeId, may_block: bool) -> Compared {
        let Some(trusted) = key_of(shell, peer) else { return Compared::Nothing };
        match self.ask(shell, peer, may_block) {
            Ok(Some(RegistryEntry { key: Some(key), .. })) if key == trusted => Compared::Same,
            // it has not heard of what came after that key, and knows the peer.
            Ok(Some(RegistryEntry { key: Some(key), .. })) if was_replaced(shell, peer, &key) => Compared::Same,
            Ok(Some(RegistryEntry { key: Some(registered), .. })) => {
                Compared::Other(Contradiction { peer, trusted, registered })
            }
            Ok(_) => Compared::Nothing,
            Err(error) => {
                shell.note_outdated(&error);
                foreign::let_go(error);
                Compared::NoAnswer
            }
        }
    }

    fn ask(&self, shell: &Shell, peer: NodeId, may_block: bool) -> Answer {
        let look_ups = shell.look_ups.as_ref().ok_or(RegistryError::Busy)?;
        if !may_block {
            return look_ups.look_up(peer, Whom::Known, Duration::MAX);
        }
        let asked = Mutex::new(None);
        let answer = look_ups.look_up_until(peer, Whom::Known, Duration::MAX, &|slot| {
            let mut state = self.state.lock();
            if state.stopped {
                drop(state);
                slot.put(Err(RegistryError::TimedOut));
            } else {
                state.slots.push(Arc::clone(slot));
                *asked.lock() = Some(Arc::clone(slot));
            }
        });
        if let Some(slot) = &*asked.lock() {
            self.state.lock().slots.retain(|other| !Arc::ptr_eq(other, slot));
        }
        answer
    }

    /// Ends trust in who is contradicted, or in nobody.
    fn decide(&self, shell: &Arc<Shell>, may_block: bool) {
        let mut state = self.state.lock();
        let (compared, contradicted) = (state.compared, state.decided + state.contradicted.len() as u64);
        let too_many = contradicted >= TOO_MANY && contradicted.saturating_mul(10) > compared;
        let is_news = too_many && !state.held;
        state.held |= too_many;
        let found = if state.held { Vec::new() } else { core::mem::take(&mut state.contradicted) };
        state.decided += found.len() as u64;
        drop(state);
        if is_news {
            tracing::warn!(compared, contradicted, "the registry contradicts too many trusted records: none is ended");
            shell.counters.count("registry_disagrees");
            drop(shell.submit(Input::Disagreement { compared, contradicted }));
        }
        for contradiction in found {
            if self.state.lock().stopped {
                return;
            }
            // What a registry said hours ago may have been corrected since.
            let again =
                if may_block { self.compare(shell, contradiction.peer, true) } else { Compared::Other(contradiction) };
            if let Compared::Other(contradiction) = again {
                end(shell, contradiction);
            }
        }
    }
}

/// What became of one record.
enum Compared {
    /// There is nothing to compare: no record, no key in it, or the registry knows none.
    Nothing,
    NoAnswer,
    Same,
    Other(Contradiction),
}

/// Ends trust under the key that the registry contradicts, if the record still has that key.
pub(crate) fn end(shell: &Arc<Shell>, it: Contradiction) -> bool {
    let ended = shell.submit(Input::Compared { peer: it.peer, was: it.trusted, found: it.registered });
    match ended {
        Ok(done) => {
            shell.perform(done);
            true
        }
        Err(NotDone::Refused(_)) => false,
        Err(error) => {
            shell.count("not_ended", &format_args!("trust in node {} was not ended: {error:?}", it.peer));
            false
        }
    }
}

fn key_of(shell: &Shell, peer: NodeId) -> Option<PublicKey> {
    shell.store.get(peer).and_then(|record| record.public_key)
}

fn was_replaced(shell: &Shell, peer: NodeId, key: &PublicKey) -> bool {
    matches!(shell.set_aside(peer, key), Some(KeyFault::Replaced(_)))
}

/// Questions at a time, and how long after the last one begins: 50 a second.
const LOOK_UPS_AT_A_TIME: usize = 4;
const PACE: Duration = Duration::from_millis(20);
/// Fewer contradictions than this are ended whatever part of all they are.
const TOO_MANY: u64 = 8;
/// Records about which the registry gave no answer are asked about again: after a second, and then after twice as long each
/// time, up to 68 minutes.
const PASS_PAUSE: Duration = Duration::from_millis(500);
const PAUSE_DOUBLINGS_MAX: u32 = 13;
