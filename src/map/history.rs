//! The versions of one map: which are live, what each of them alone keeps, and the memory of all.
//!
//! INVARIANT I-M3: history is linear. The next version is derived from the newest, or not here at all.
//! INVARIANT I-M4: a node that was born with version b and replaced with version r is given back only when no version
//! from b to r - 1 is live. It waits with the newest of those that is: a node is looked at again only when that one goes.
//!
//! Nodes have no counts. A version has one, that of its [`Pin`]; the last holder to go sets a flag, and whoever derives or
//! sweeps next sees it and gives memory back. So letting go of a version costs the same however much it keeps.
#![allow(unsafe_code, reason = "gives nodes back that no live version reaches")]

use super::change::{Bounds, Change, Draft, Set, Tree};
use super::held::Held;
use super::node::{Inner, Retired};
use super::pack::Filling;
use super::pool::{Pool, Surplus};
use super::value::Value;
use crate::sync::{Arc, AtomicU64, Mutex, Ordering, Witness};

/// Keeps a version alive: all nodes that its tree reaches.
#[derive(Debug)]
pub(super) struct Pin {
    number: u64,
    presence: Arc<Presence>,
    history: Arc<History>,
}

/// What the history knows of a version without holding it.
#[derive(Debug)]
struct Presence {
    /// 1 once nobody holds the version any more.
    gone: AtomicU64,
    /// Stands for the memory of all nodes that the version reaches.
    nodes: Witness,
}

/// Shared by all versions that come from one beginning. Its memory goes with the last of them, on whatever thread.
#[derive(Debug)]
struct History {
    bounds: Bounds,
    /// 1 if the pool is short of memory that is ready for use.
    short: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    pool: Pool,
    /// Versions that were not gone when they were looked at; ascending by number. They may be many, and are looked at again a
    /// few at a time.
    held: Held<Live>,
    /// Those that came since the last look; ascending, and behind all that are held. The last is the newest version, held or
    /// not.
    recent: Vec<Live>,
    /// Nodes that no version reaches: given back a few at a time.
    free: Vec<Retired>,
    /// How many nodes were replaced since the last look.
    replaced: usize,
    /// How many versions were found gone.
    let_go: u64,
    /// How many that were when there was nothing to move; none if there has been since.
    in_vain: Option<u64>,
    /// Empty lists, for the replaced nodes of the next versions.
    spare: Vec<Vec<Retired>>,
}

#[derive(Debug)]
struct Live {
    number: u64,
    presence: Arc<Presence>,
    /// Replaced, and this is the newest live version that reaches them.
    retired: Vec<Retired>,
}

/// What a map's memory is used for.
#[cfg(any(test, feature = "__testing"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Usage {
    /// From the system.
    pub(crate) bytes: usize,
    /// Versions that somebody holds, or that were not looked at since.
    pub(crate) versions: usize,
    /// Of live versions, and of those that were not looked at since.
    pub(crate) nodes: usize,
    /// Of these, nodes that wait for a version to go.
    pub(crate) retired: usize,
    /// Pieces of memory that are being left: none but during a move.
    pub(crate) leaving: usize,
}

impl Pin {
    /// A new history whose first version has what `put_all` puts in; its error if it has one.
    pub(super) fn first<E>(
        bounds: Bounds,
        expected: usize,
        put_all: impl FnOnce(&mut Filling<'_>) -> Result<(), E>,
    ) -> Result<(Tree, Arc<Self>), E> {
        let (mut pool, mut nothing) = (Pool::default(), Vec::new());
        let mut filling = Filling::new(Draft::new(&mut pool, bounds, FIRST, &mut nothing), expected);
        put_all(&mut filling)?;
        let tree = filling.finish();
        let presence = Presence::new();
        let recent = vec![Live { number: FIRST, presence: Arc::clone(&presence), retired: Vec::new() }];
        let (free, spare, held) = (Vec::new(), Vec::new(), Held::default());
        let state = State { pool, held, recent, free, replaced: 0, let_go: 0, in_vain: None, spare };
        let history = Arc::new(History { bounds, short: AtomicU64::new(0), state: Mutex::new(state) });
        Ok((tree, Arc::new(Self { number: FIRST, presence, history })))
    }

    /// The next version; none if this is not the newest.
    pub(super) fn next(&self, tree: Tree, changes: &[Change]) -> Option<(Tree, Arc<Self>)> {
        let derive = |draft: Draft<'_>, root: Inner<'_>| {
            let becomes = draft.change(root, tree.len, changes);
            Set::Done { becomes, was_there: false }
        };
        match self.derived(tree, changes.len(), derive)? {
            Set::Done { becomes, .. } => Some(becomes),
            Set::Same | Set::Full => None,
        }
    }

    /// The next version if one record becomes this value; none if this is not the newest.
    pub(super) fn set(&self, tree: Tree, place: u32, value: &Value) -> Option<Set<(Tree, Arc<Self>)>> {
        self.derived(tree, 1, |draft, root| draft.set(root, tree.len, place, value))
    }

    fn derived(
        &self,
        tree: Tree,
        changes: usize,
        derive: impl FnOnce(Draft<'_>, Inner<'_>) -> Set<Tree>,
    ) -> Option<Set<(Tree, Arc<Self>)>> {
        self.reads();
        let mut state = self.history.state.lock();
        // First what is free: it is taken again at once.
        if state.recent.len() > LOOK_AT || state.replaced >= LOOK_AT_REPLACED {
            state.look();
        }
        state.give_back(GIVE_BACK_PER_PUBLISH.saturating_add(changes.saturating_mul(GIVE_BACK_PER_CHANGE)));
        let State { pool, recent, spare, .. } = &mut *state;
        let newest = recent.last_mut().filter(|newest| newest.number == self.number)?;
        let number = self.number + 1;
        // SAFETY: the tree is this version's, which is live, since we hold it.
        let root = unsafe { Inner::at(tree.root, tree.levels, 0) };
        // What this replaces, this version still reaches: it waits with it.
        let draft = Draft::new(pool, self.history.bounds, number, &mut newest.retired);
        let (tree, was_there) = match derive(draft, root) {
            Set::Done { becomes, was_there } => (becomes, was_there),
            Set::Same => return Some(Set::Same),
            Set::Full => return Some(Set::Full),
        };
        let replaced = newest.retired.len();
        let presence = Presence::new();
        recent.push(Live { number, presence: Arc::clone(&presence), retired: spare.pop().unwrap_or_default() });
        state.replaced += replaced;
        if state.pool.is_short() {
            // ORDERING: Relaxed; it is a hint, and what hangs on it is looked at again under the lock.
            self.history.short.store(1, Ordering::Relaxed);
        }
        drop(state);
        let pin = Arc::new(Self { number, presence, history: Arc::clone(&self.history) });
        Some(Set::Done { becomes: (tree, pin), was_there })
    }

    /// Gives back what no live version reaches. Holds the lock for a short time only, again and again.
    pub(super) fn sweep(&self) {
        let mut passes = {
            let mut state = self.history.state.lock();
            state.look();
            // One that is under way has been past some of them.
            if state.held.is_being_looked_at() { 2 } else { 1 }
        };
        for _ in 0..SWEEP_AT_MOST.div_ceil(LOOK_AT_HELD) {
            let is_end = self.history.state.lock().look_at_held();
            passes -= usize::from(is_end);
            if passes == 0 {
                break;
            }
        }
        while self.history.state.lock().give_back(GIVE_BACK_EACH) {}
    }

    /// Whether memory should be made ready for the next changes.
    pub(super) fn is_short(&self) -> bool {
        // ORDERING: Relaxed; as in `next`.
        self.history.short.load(Ordering::Relaxed) != 0
    }

    /// Takes memory from the system, if the next changes may need some, so that they find it there.
    pub(super) fn make_ready(&self) {
        if self.is_short() {
            while self.history.state.lock().pool.is_short() {
                let memory = Pool::ready_memory();
                self.history.state.lock().pool.add(memory);
            }
            self.history.short.store(0, Ordering::Relaxed); // ORDERING: Relaxed; as in `next`.
        }
    }

    /// Gives memory that was not needed since the last trim to the system; true if there may be more next time.
    pub(super) fn trim(&self) -> bool {
        self.history.state.lock().begin_trim();
        loop {
            // Given back outside the lock: that takes the system some time.
            let surplus = self.history.state.lock().pool.surplus();
            match surplus {
                None => return self.history.state.lock().pool.end_trim(),
                Some(Surplus::Chunk(memory)) => drop(memory),
                Some(Surplus::Pages(pages)) => {
                    pages.give_back();
                    self.history.state.lock().pool.bare(&pages);
                }
            }
        }
    }

    /// If memory is used sparsely, and more than `worth` bytes can be had: from now on has the least used part of it left, until [`Self::end_move`], and tells
    /// which of the pool's slabs that is.
    pub(super) fn begin_move(&self, worth: usize) -> Option<Vec<bool>> {
        let mut state = self.history.state.lock();
        if state.in_vain == Some(state.let_go) {
            return None;
        }
        state.pool.begin_move(worth)
    }

    pub(super) fn end_move(&self) {
        self.history.state.lock().pool.end_move();
    }

    /// The same where there was nothing to move: what could be left is kept by versions that are held. So there is nothing to
    /// be had before one of them is let go of.
    pub(super) fn end_move_in_vain(&self) {
        let mut state = self.history.state.lock();
        state.pool.end_move();
        state.in_vain = Some(state.let_go);
    }

    #[cfg(any(test, feature = "__testing"))]
    pub(super) fn usage(&self) -> Usage {
        let state = self.history.state.lock();
        let live = state.held.iter().chain(&state.recent);
        let retired = live.map(|live| live.retired.len()).sum::<usize>() + state.free.len();
        let (pool, versions) = (&state.pool, state.held.len() + state.recent.len());
        Usage { bytes: pool.bytes(), versions, nodes: pool.taken(), retired, leaving: pool.leaving() }
    }

    /// For the model checker: this thread is about to read nodes of the version.
    #[inline(always)]
    pub(super) fn reads(&self) {
        self.presence.nodes.reads();
    }

    pub(super) fn bounds(&self) -> Bounds {
        self.history.bounds
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        // ORDERING: Release, pairs with the Acquire load in `is_gone` (C-8): all reads of the version's nodes, by whoever
        // held it (the count of the `Arc` around this orders them before this drop), come before their memory's reuse.
        self.presence.gone.store(1, Ordering::Release);
    }
}

impl Presence {
    fn new() -> Arc<Self> {
        let presence = Self { gone: AtomicU64::new(0), nodes: Witness::new() };
        presence.nodes.owns();
        Arc::new(presence)
    }

    fn is_gone(&self) -> bool {
        // ORDERING: Acquire, pairs with the Release store in `Pin::drop` (C-8).
        let is_gone = self.gone.load(Ordering::Acquire) != 0;
        if is_gone {
            self.nodes.owns();
        }
        is_gone
    }
}

impl State {
    /// Finds out which of the recent versions are gone, and of some of those that were held. What they kept moves to those
    /// before them that reach it too.
    fn look(&mut self) {
        let State { recent, held, free, spare, .. } = self;
        let newest = recent.pop();
        for mut live in recent.drain(..) {
            if live.presence.is_gone() {
                self.let_go += 1;
                pass_on(&mut live, held.last_mut(), free, spare);
            } else {
                held.push(live);
            }
        }
        recent.extend(newest);
        self.replaced = 0;
        self.look_at_held();
    }

    /// Goes on looking at those that were held; true if it came to their end.
    fn look_at_held(&mut self) -> bool {
        let State { held, free, spare, let_go, .. } = self;
        held.look(LOOK_AT_HELD, |live, before| {
            let is_gone = live.presence.is_gone();
            if is_gone {
                *let_go += 1;
                pass_on(live, before, free, spare);
            }
            is_gone
        })
    }

    fn begin_trim(&mut self) {
        self.pool.begin_trim();
        if self.free.is_empty() {
            // After large changes it has room for all that they replaced, which is megabytes.
            self.free = Vec::new();
        }
    }

    /// Gives back at most so many nodes; true if more are left.
    fn give_back(&mut self, at_most: usize) -> bool {
        for node in self.free.drain(self.free.len().saturating_sub(at_most)..) {
            // SAFETY: by I-M4 no live version reaches it, and its memory is that of this history's pool. Whoever read it
            // did so before its version was found gone (C-8).
            unsafe { self.pool.give_back(node.block) };
        }
        !self.free.is_empty()
    }
}

/// `live` is gone: the version before it that is live keeps on what it reaches too, and the rest is free.
fn pass_on(live: &mut Live, before: Option<&mut Live>, free: &mut Vec<Retired>, spare: &mut Vec<Vec<Retired>>) {
    match before {
        None => {
            if free.len() < live.retired.len() {
                // Whichever is the longer may be megabytes.
                core::mem::swap(free, &mut live.retired);
            }
            free.append(&mut live.retired);
        }
        Some(before) => {
            for node in live.retired.drain(..) {
                let to = if before.number >= node.birth { &mut before.retired } else { &mut *free };
                to.push(node);
            }
        }
    }
    let list = core::mem::take(&mut live.retired);
    if list.capacity() <= SPARE_NODES_MAX && spare.len() < SPARE_MAX {
        spare.push(list);
    }
}

/// The number of the first version.
const FIRST: u64 = 1;
/// A publish looks which versions are gone when so many have come since the last look.
const LOOK_AT: usize = 8;
/// It also looks when so many nodes were replaced: a few large changes keep as much memory as many small ones.
const LOOK_AT_REPLACED: usize = 1024;
/// A look is at so many of the versions that were held before: however many there are, a publish takes no longer for them
/// than some microseconds, and is past all of them before as many have come as an eighth of them.
const LOOK_AT_HELD: usize = 64;
/// A sweep looks at no more than so many of them, which takes some milliseconds.
const SWEEP_AT_MOST: usize = 64 << 10;
/// So many empty lists are kept: as many as one look leaves as a rule.
const SPARE_MAX: usize = 2 * LOOK_AT;
/// A list of replaced nodes with more room than this is not used again.
const SPARE_NODES_MAX: usize = 64;
/// A sweep gives back this many nodes each time it has the lock.
const GIVE_BACK_EACH: usize = 256;
/// A publish gives back this many, which takes about a microsecond.
const GIVE_BACK_PER_PUBLISH: usize = 64;
/// And for each change this many: more than it replaces, so that what waits to be given back becomes less with each publish,
/// and who comes behind a large change does not pay for it.
const GIVE_BACK_PER_CHANGE: usize = 8;
