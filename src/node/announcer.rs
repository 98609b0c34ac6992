//! Telling peers of our new key, by itself and at a bounded pace.
//!
//! INVARIANT: at most [`FIRST_TRIES_MAX`] first tries are under way, and one begins in [`PACE`]. Announcements leave half of
//! the outgoing requests to operators: beyond that, the oldest request to a trusted peer that has left gives way.
//!
//! Nothing is saved for it. Whom the floors and the open requests show as told is not told again by the next life.
#![forbid(unsafe_code)]

use std::collections::{HashSet, VecDeque};
use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::manager::HandshakeManager;
use super::shell::{NotDone, Shell};
use crate::foreign;
use crate::machine::announce::{Told, told};
use crate::machine::deliver::Retried;
use crate::machine::effect::Action;
use crate::machine::input::{Command, Input};
use crate::machine::view::View as _;
use crate::peer::NodeId;
use crate::sync::{Condvar, Deadline, Mutex, spawn};
use crate::time::WallMillis;

/// How far a node has come with telling its peers of its new key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Announcement {
    /// To how many trusted or asked peers a message under the new key has left.
    pub told: u64,
    /// To how many none has left yet.
    pub owed: u64,
}

/// The thread that tells, and what it has done.
pub(crate) struct Announcer {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Whether there is anything to tell.
    runs: bool,
    todo: VecDeque<NodeId>,
    /// Asked, but nothing has left yet.
    unsent: HashSet<NodeId>,
    /// Of these, whose first try is under way.
    first: HashSet<NodeId>,
    told: u64,
    stopped: bool,
}

impl Announcer {
    pub(crate) fn new() -> Self {
        Self { shared: Arc::new(Shared { state: Mutex::new(State::default()), changed: Condvar::new() }) }
    }

    /// Begins to tell, in the background, if our key has replaced another.
    pub(crate) fn start(&self, shell: &Arc<Shell>) -> io::Result<()> {
        let own = foreign::run(|| shell.identity.rotation().filter(|it| *it.new_key() == shell.own_key));
        let Some(rotation) = own.ok().flatten().filter(|_| shell.rules.config.announce_rotation) else {
            return Ok(());
        };
        self.shared.state.lock().runs = true;
        let (shared, shell, since) = (Arc::clone(&self.shared), Arc::downgrade(shell), rotation.at());
        spawn("trustkeep-rekey", move || run(&shared, &shell, since)).map(drop)
    }

    pub(crate) fn stop(&self) {
        self.shared.state.lock().stopped = true;
        self.shared.changed.notify_one();
    }

    /// A try of a request to this peer ended.
    pub(crate) fn tried(&self, peer: NodeId, has_left: bool, is_over: bool) {
        let mut state = self.shared.state.lock();
        if !state.runs {
            return;
        }
        state.first.remove(&peer);
        if (has_left || is_over) && state.unsent.remove(&peer) {
            state.told += u64::from(has_left);
        }
        drop(state);
        self.shared.changed.notify_one();
    }

    fn so_far(&self) -> Option<Announcement> {
        let state = self.shared.state.lock();
        let owed = (state.todo.len() + state.unsent.len()) as u64;
        state.runs.then_some(Announcement { told: state.told, owed })
    }
}

impl HandshakeManager {
    /// How far the node has come with telling its peers of its new key; `None` if its key has replaced no other, or
    /// [`announce_rotation`](crate::config::HandshakeConfig::announce_rotation) is off.
    #[must_use]
    pub fn announcement(&self) -> Option<Announcement> {
        self.shell.announcer.so_far()
    }
}

impl Shared {
    /// Waits this long, or until something changed; false if the node stops.
    fn wait(&self, pause: Duration, whole: bool) -> bool {
        let until = Deadline::after(pause);
        let mut state = self.state.lock();
        loop {
            if state.stopped {
                return false;
            }
            let (guard, late) = self.changed.wait_until(state, until);
            state = guard;
            if late || !whole {
                return !state.stopped;
            }
        }
    }

    /// Whom to tell, as the tables show it.
    fn begin(&self, shell: &Shell, since: WallMillis) {
        let Some(tables) = shell.store.tables() else { return };
        let now = shell.clock.now();
        let asked = tables.outgoing_iter().map(|(peer, _)| peer);
        let peers = tables.trusted.iter().map(|record| record.node_id).chain(asked);
        let (mut todo, mut unsent, mut has_been) = (Vec::new(), HashSet::new(), 0);
        for peer in peers {
            match told(&shell.rules, tables.as_ref(), now, since, peer) {
                Told::Yes => has_been += 1,
                Told::No => todo.push(peer),
                Told::Asked => drop(unsent.insert(peer)),
                Told::Stranger => {}
            }
        }
        let mut state = self.state.lock();
        state.todo = todo.into();
        // Some of these may have been tried already: the thread that retries them began before.
        state.told = has_been;
        for peer in unsent {
            let entry = tables.outgoing(peer);
            let tries = entry.map(|entry| shell.retries.tries(peer, Retried::Request, entry.nonce, now));
            if tries.is_some_and(|tries| tries.sent == Some(true)) {
                state.told += 1;
            } else {
                state.unsent.insert(peer);
            }
        }
    }
}

fn run(shared: &Shared, shell: &Weak<Shell>, since: WallMillis) {
    if let Some(shell) = shell.upgrade() {
        shared.begin(&shell, since);
    }
    loop {
        let peer = {
            let mut state = shared.state.lock();
            if state.stopped || state.todo.is_empty() {
                return;
            }
            if state.first.len() < FIRST_TRIES_MAX { state.todo.pop_front() } else { None }
        };
        let Some(peer) = peer else {
            if shared.wait(LOOK_EVERY, false) {
                continue;
            }
            return;
        };
        let Some(shell) = shell.upgrade() else { return };
        // A defect in a rule must not end the announcement to everybody else.
        let done = foreign::run(|| shell.announce(shared, peer, since)).unwrap_or_else(|_| {
            shell.count("panicked", &"a panic while telling a peer of our new key");
            true
        });
        drop(shell);
        if !done {
            shared.state.lock().todo.push_front(peer);
        }
        if !shared.wait(if done { PACE } else { LOOK_EVERY }, true) {
            return;
        }
    }
}

impl Shell {
    /// Asks one peer; false if that has to wait.
    fn announce(self: &Arc<Self>, shared: &Shared, peer: NodeId, since: WallMillis) -> bool {
        let Some(_inside) = self.in_flight.enter() else { return false };
        if !self.has_room_to_announce() {
            return false;
        }
        // An operator asks it at this moment; the next look shows that.
        if self.asking.lock().contains(&peer) {
            return false;
        }
        let done = self.nonce().and_then(|nonce| self.submit(Input::Announce { peer, since, nonce }));
        match done {
            Ok(done) => {
                let now = self.clock.now().tick;
                let mut state = shared.state.lock();
                state.unsent.insert(peer);
                state.first.insert(peer);
                drop(state);
                for effect in &done.effects {
                    if let Action::Send(draft) = &effect.action {
                        self.retries.asking(peer, draft.nonce, now);
                    }
                }
                self.perform(done);
                true
            }
            Err(NotDone::Refused(_)) => true,
            Err(error) => {
                self.count("not_announced", &format_args!("node {peer} was not told of our new key yet: {error}"));
                false
            }
        }
    }

    /// Whether there is room for one more request beside those of operators. If not, one to a trusted peer that has left
    /// gives way: it has told what it had to tell.
    fn has_room_to_announce(self: &Arc<Self>) -> bool {
        let Some(tables) = self.store.tables() else { return false };
        if tables.outgoing_len() < (self.rules.limits.outgoing_max / 2).max(1) {
            return true;
        }
        let now = self.clock.now();
        let has_left = |peer, nonce| self.retries.tries(peer, Retried::Request, nonce, now).sent == Some(true);
        let told = tables
            .outgoing_iter()
            .filter(|(peer, entry)| tables.trusted.contains(*peer) && has_left(*peer, entry.nonce))
            .min_by_key(|(peer, entry)| (entry.sent_tick, *peer));
        let Some((peer, _)) = told else { return false };
        match self.submit(Input::Operator(Command::Cancel { peer })) {
            Ok(done) => {
                self.perform(done);
                true
            }
            Err(_) => false,
        }
    }
}

/// First tries that are under way at a time.
const FIRST_TRIES_MAX: usize = 32;
/// One first try begins in this time: 16 a second, as of retries.
const PACE: Duration = Duration::from_millis(62);
/// How often is looked whether there is room again.
const LOOK_EVERY: Duration = Duration::from_secs(1);
