//! The timer that tries again what did not leave, and the word for callers who want to know whether a peer was told.
//!
//! One thread for all of it. The thread sleeps until the next try is due, and looks at the node's clock once a second
//! while anything is: that clock need not be the system's.
#![forbid(unsafe_code)]

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::effects::not_sent;
use super::manager::{HandshakeManager, sorted};
use super::registry::RegistryError;
use super::retry_table::{Entry, Key, RetryTable, Tried};
use super::shell::{NotDone, Shell};
use super::transport::SendError;
use crate::foreign;
use crate::machine::deliver::{Retried, Turn, turn_of_request};
use crate::machine::effect::Draft;
use crate::machine::input::Input;
use crate::machine::rejection::Rejection;
use crate::machine::view::View as _;
use crate::peer::{NodeId, Nonce};
use crate::sync::{Condvar, Deadline, Mutex, OneShot, spawn};
use crate::tables::{Outgoing, Owed};
use crate::time::{Tick, WallMillis};
use crate::wire::message::Kind;

/// Whether a peer has been told of a decision.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Told {
    /// The message left, directly or by a relay.
    Told,
    /// The message did not leave, for this reason. The node tries again.
    NotYet(String),
    /// The message did not leave, for this reason, and what it would tell is no longer so, or cannot be told: nothing is
    /// tried again.
    GivenUp(String),
    /// There is nothing that the peer has to be told.
    Nothing,
}

/// How the node fares with a message to a peer that was not told, or did not answer yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tries {
    /// How many tries have ended since the node started.
    pub tries: u32,
    /// Whether one of them left; unknown if none ended since the node started.
    pub sent: Option<bool>,
    /// Why the last try failed, if it did.
    pub last_error: Option<String>,
    /// When the next try begins, by our wall clock; none while one is under way, or if none will be made.
    pub next_try: Option<WallMillis>,
}

/// What is to be tried again, and the thread that does it.
pub(crate) struct Retries {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    table: RetryTable,
    /// The newest decision of each peer whose message is under way, and of some whose message has ended.
    decisions: HashMap<NodeId, Decision>,
    /// Of the decisions those that have ended, oldest first.
    ended: VecDeque<(NodeId, Nonce)>,
    stopped: bool,
}

struct Decision {
    nonce: Nonce,
    /// `None` while the message is under way.
    told: Option<Told>,
    waiters: Vec<Arc<OneShot<Told>>>,
}

impl Retries {
    pub(crate) fn new() -> Self {
        let (table, decisions, ended) = (RetryTable::new(), HashMap::new(), VecDeque::new());
        let state = State { table, decisions, ended, stopped: false };
        Self { shared: Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() }) }
    }

    /// Takes up what the store holds, and starts the thread.
    pub(crate) fn start(&self, shell: &Arc<Shell>) -> io::Result<()> {
        let now = shell.clock.now().tick;
        if let Some(tables) = shell.store.tables() {
            let owed = tables.owed_iter().map(|(peer, it)| ((peer, Retried::Answer), it.nonce, it.since_tick));
            let asked = tables.outgoing_iter().filter(|(_, it)| turn_of_request(Some(it), it.nonce) != Turn::Over);
            let asked = asked.map(|(peer, it)| ((peer, Retried::Request), it.nonce, it.sent_tick));
            self.shared.state.lock().table.load(now, owed.chain(asked));
        }
        let (shared, shell) = (Arc::clone(&self.shared), Arc::downgrade(shell));
        spawn("trustkeep-retry", move || run(&shared, &shell)).map(drop)
    }

    pub(crate) fn stop(&self) {
        self.shared.state.lock().stopped = true;
        self.shared.changed.notify_one();
    }

    /// A first try of a request is under way.
    pub(crate) fn asking(&self, peer: NodeId, nonce: Nonce, now: Tick) {
        self.shared.state.lock().table.begin((peer, Retried::Request), nonce, now);
    }

    /// A new decision about a peer was made: what became of the one before is of no more interest.
    pub(crate) fn decided(&self, peer: NodeId) {
        let mut state = self.shared.state.lock();
        if state.decisions.get(&peer).is_some_and(|decision| decision.told.is_some()) {
            state.decisions.remove(&peer);
        }
    }

    /// A decision is on its way to its peer.
    pub(crate) fn telling(&self, draft: &Draft) {
        if draft.kind == Kind::Request {
            return;
        }
        let mut state = self.shared.state.lock();
        let decision = state.decisions.entry(draft.to).or_insert_with(|| Decision {
            nonce: draft.nonce,
            told: None,
            waiters: Vec::new(),
        });
        (decision.nonce, decision.told) = (draft.nonce, None);
    }

    /// A try ended.
    fn ended(&self, key: Key, nonce: Nonce, since: Tick, now: Tick, tried: Tried, random: u8) {
        self.shared.state.lock().table.ended(key, nonce, since, now, tried, random);
        self.shared.changed.notify_one();
    }

    fn over(&self, key: Key, nonce: Nonce) {
        self.shared.state.lock().table.over(key, nonce);
        self.shared.changed.notify_one();
    }

    /// Tells who waits for it what became of the newest decision.
    fn told(&self, peer: NodeId, nonce: Nonce, told: Told) {
        let mut state = self.shared.state.lock();
        let Some(decision) = state.decisions.get_mut(&peer).filter(|decision| decision.nonce == nonce) else { return };
        decision.told = Some(told.clone());
        let waiters = core::mem::take(&mut decision.waiters);
        state.ended.push_back((peer, nonce));
        if state.ended.len() > ENDED_MAX
            && let Some((oldest, nonce)) = state.ended.pop_front()
            && state.decisions.get(&oldest).is_some_and(|it| it.nonce == nonce && it.told.is_some())
        {
            state.decisions.remove(&oldest);
        }
        drop(state);
        for waiter in waiters {
            waiter.put(told.clone());
        }
    }

    /// Waits until the peer was told of the newest decision, or a try to do so failed.
    pub(crate) fn wait_told(&self, peer: NodeId, timeout: Duration) -> Told {
        let waiter = Arc::new(OneShot::new());
        match self.shared.state.lock().decisions.get_mut(&peer) {
            None => return Told::Nothing,
            Some(Decision { told: Some(told), .. }) => return told.clone(),
            Some(decision) => decision.waiters.push(Arc::clone(&waiter)),
        }
        let told = waiter.wait(Deadline::after(timeout));
        if told.is_none()
            && let Some(decision) = self.shared.state.lock().decisions.get_mut(&peer)
        {
            decision.waiters.retain(|other| !Arc::ptr_eq(other, &waiter));
        }
        told.or_else(|| waiter.take()).unwrap_or_else(|| Told::NotYet("it is still being sent".to_owned()))
    }

    /// How it fares with one message.
    pub(crate) fn tries(&self, peer: NodeId, what: Retried, nonce: Nonce, now: crate::time::Now) -> Tries {
        let state = self.shared.state.lock();
        let Some(entry) = state.table.get((peer, what)).filter(|entry| entry.nonce == nonce) else {
            return Tries::default();
        };
        let Entry { tries, error, sent, next, .. } = entry.clone();
        let next_try = next.map(|tick| now.wall.saturating_add(tick.millis_since(now.tick).max(0)));
        Tries { tries, sent, last_error: error, next_try }
    }
}

impl HandshakeManager {
    /// How the node fares with a request that was not answered yet.
    #[must_use]
    pub fn tries_of_request(&self, peer: NodeId, entry: &Outgoing) -> Tries {
        let now = self.shell.clock.now();
        let mut tries = self.shell.retries.tries(peer, Retried::Request, entry.nonce, now);
        // a refusal that nobody vouches for pauses them. The timer finds that out when it wakes.
        if let (Some(next), Turn::From(tick)) = (&mut tries.next_try, turn_of_request(Some(entry), entry.nonce)) {
            *next = (*next).max(now.wall.saturating_add(tick.millis_since(now.tick).max(0)));
        }
        tries
    }

    /// Every decision that its peer has not been told yet, at one moment, by id.
    #[must_use]
    pub fn owed(&self) -> Vec<(NodeId, Owed)> {
        let tables = self.shell.store.tables();
        sorted(tables.iter().flat_map(|tables| tables.owed_iter()).map(|(peer, entry)| (peer, entry.clone())))
    }

    /// How the node fares with a decision that its peer has not been told yet.
    #[must_use]
    pub fn tries_of_owed(&self, peer: NodeId, entry: &Owed) -> Tries {
        self.shell.retries.tries(peer, Retried::Answer, entry.nonce, self.shell.clock.now())
    }

    /// Waits until the peer was told of our newest decision about it (an accept, a reject or a farewell), or a try to do
    /// so failed, or the time is over.
    ///
    /// An accept leaves once it is durable: wait for that first. Of decisions that were settled long ago nothing is known
    /// any more ([`Told::Nothing`]).
    #[must_use]
    pub fn wait_told(&self, peer: NodeId, timeout: Duration) -> Told {
        self.shell.retries.wait_told(peer, timeout)
    }
}

fn run(shared: &Shared, shell: &Weak<Shell>) {
    loop {
        let Some(clock) = shell.upgrade().map(|shell| Arc::clone(&shell.clock)) else { return };
        let mut state = shared.state.lock();
        if state.stopped {
            return;
        }
        let now = clock.now().tick;
        let Some((key, nonce)) = state.table.take_due(now) else {
            let left = state.table.next().map(|next| u64::try_from(next.millis_since(now)).unwrap_or(0).max(1));
            let left = left.or((state.table.len() > 0).then_some(u64::MAX)).map(Duration::from_millis);
            let until = left.map_or(Deadline::NEVER, |left| Deadline::after(left.min(LOOK_EVERY)));
            drop(shared.changed.wait_until(state, until).0);
            continue;
        };
        drop(state);
        let Some(shell) = shell.upgrade() else { return };
        // A defect in a rule must not end the tries of all other messages.
        if foreign::run(|| shell.retry(key, nonce)).is_err() {
            shell.count("panicked", &"a panic while trying a message again");
        }
    }
}

/// What became of a message, as far as trying again goes.
pub(crate) enum Ended {
    /// It left, directly or by a relay.
    Left { relayed: bool },
    /// It did not leave, for this reason; `owed` says whether it is worth a try later.
    Failed { why: String, owed: bool },
}

/// How sending a request ended: whether a relay has it; or why it left neither way.
type Asked = Result<Result<bool, (SendError, Option<RegistryError>)>, SendError>;

impl Shell {
    /// Tries a message again.
    fn retry(self: &Arc<Self>, key: Key, nonce: Nonce) {
        let Some(_inside) = self.in_flight.enter() else { return };
        let ((peer, what), now) = (key, self.clock.now().tick);
        // Another thread sends a request at this moment; its outcome is the next thing to hear of.
        if what == Retried::Request && self.asking.lock().contains(&peer) {
            self.retries.shared.state.lock().table.later(key, nonce, now.saturating_add(1000));
            return;
        }
        match self.submit(Input::Retry { peer, what, nonce }) {
            Ok(done) if done.effects.is_empty() => {
                self.is_over(key, nonce);
                self.perform(done);
            }
            Ok(done) => self.perform(done),
            Err(NotDone::Refused(Rejection::NothingToDo)) => {
                let tables = self.store.tables();
                let entry = tables.as_ref().and_then(|tables| tables.outgoing(peer));
                match turn_of_request(entry, nonce) {
                    Turn::From(tick) if what == Retried::Request => {
                        let tick = tick.max(now.saturating_add(1000));
                        self.retries.shared.state.lock().table.later(key, nonce, tick);
                    }
                    _ => self.is_over(key, nonce),
                }
            }
            Err(error) => {
                self.count("not_retried", &format_args!("a message to node {peer} was not tried again: {error}"));
                self.retries.ended(key, nonce, now, now, Tried::Failed(error.to_string()), self.any_byte());
            }
        }
    }

    fn is_over(&self, key: Key, nonce: Nonce) {
        self.retries.over(key, nonce);
        if key.1 == Retried::Request {
            self.announcer.tried(key.0, false, true);
        }
    }

    /// Notes what became of a request that its caller has sent.
    pub(crate) fn note_asked(&self, draft: &Draft, sent: &Asked) {
        let failed = |source: &SendError, relay: Option<&RegistryError>| {
            let owed = !matches!(source, SendError::TooLarge { .. });
            Ended::Failed { why: not_sent(source, relay), owed }
        };
        let ended = match sent {
            Ok(Ok(relayed)) => Ended::Left { relayed: *relayed },
            Ok(Err((source, relay))) => failed(source, relay.as_ref()),
            Err(source) => failed(source, None),
        };
        self.note_ended(draft, ended);
    }

    /// Notes what became of a message: what is owed from now on, or no longer.
    pub(crate) fn note_ended(&self, draft: &Draft, ended: Ended) {
        let (peer, nonce, now) = (draft.to, draft.nonce, self.clock.now().tick);
        let what = if draft.kind == Kind::Request { Retried::Request } else { Retried::Answer };
        let (key, random) = ((peer, what), self.any_byte());
        match (what, ended) {
            (Retried::Request, Ended::Left { relayed }) => {
                let tried = if relayed { Tried::Relayed } else { Tried::Sent };
                self.announcer.tried(peer, true, false);
                self.retries.ended(key, nonce, now, now, tried, random);
            }
            (Retried::Request, Ended::Failed { why, owed }) => {
                self.announcer.tried(peer, false, !owed);
                if owed {
                    self.retries.ended(key, nonce, now, now, Tried::Failed(why), random);
                } else {
                    self.retries.over(key, nonce);
                }
            }
            (Retried::Answer, Ended::Left { .. }) => {
                self.retries.over(key, nonce);
                // Looked at first, so that an answer which leaves at once costs no step.
                if self.owed_nonce(peer).is_some() {
                    self.settle(Input::Delivered { peer, kind: draft.kind, stamp: draft.stamp });
                }
                self.retries.told(peer, nonce, Told::Told);
            }
            (Retried::Answer, Ended::Failed { why, owed }) => {
                if owed {
                    self.settle(Input::Undelivered { draft: draft.clone() });
                }
                let told = if self.owed_nonce(peer) == Some(nonce) {
                    self.retries.ended(key, nonce, now, now, Tried::Failed(why.clone()), random);
                    Told::NotYet(why)
                } else {
                    self.retries.over(key, nonce);
                    Told::GivenUp(why)
                };
                self.retries.told(peer, nonce, told);
            }
        }
    }

    fn owed_nonce(&self, peer: NodeId) -> Option<Nonce> {
        self.store.tables()?.owed(peer).map(|owed| owed.nonce)
    }

    /// Has the rules note an outcome. They send nothing for it.
    fn settle(&self, input: Input) {
        match self.submit(input) {
            Ok(_) | Err(NotDone::Refused(Rejection::NothingToDo)) => {}
            Err(NotDone::Refused(rejection)) => self.count(rejection.name(), &rejection),
            Err(error) => self.count("not_noted", &format_args!("what became of a message was not noted: {error}")),
        }
    }

    /// Spreads pauses; nothing depends on it.
    fn any_byte(&self) -> u8 {
        let mut byte = [128];
        let filled = foreign::run(|| self.random.fill(&mut byte));
        if !matches!(filled, Ok(Ok(()))) {
            byte = [128];
        }
        foreign::let_go(filled);
        byte[0]
    }
}

/// Decisions that were told, or were not, and are remembered for who asks.
const ENDED_MAX: usize = 1024;
/// How often the clock is looked at while something is to be tried again.
const LOOK_EVERY: Duration = Duration::from_secs(1);
