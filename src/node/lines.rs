//! Who is next: the tasks that wait for each peer, in the order and within the bounds that [`outbox`](super::outbox) states.
//!
//! INVARIANT: a peer stands in the list of ready peers of one class if it has tasks and no turn, and in none otherwise.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::peer::NodeId;

/// Which messages go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Restrictions: a farewell, the report of a revocation.
    First,
    /// Everything else.
    Ordinary,
}

/// The lane of a task, and whether its peer was slow last time. Each class has its own bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Class {
    lane: Lane,
    slow: bool,
}

impl Class {
    /// In the order in which they are served.
    const ALL: [Self; 4] = [
        Self { lane: Lane::First, slow: false },
        Self { lane: Lane::First, slow: true },
        Self { lane: Lane::Ordinary, slow: false },
        Self { lane: Lane::Ordinary, slow: true },
    ];

    fn waiting_max(self) -> usize {
        match (self.lane, self.slow) {
            (Lane::First, _) => FIRST_MAX,
            (Lane::Ordinary, false) => ORDINARY_MAX,
            (Lane::Ordinary, true) => ORDINARY_SLOW_MAX,
        }
    }
}

/// One value for each class.
#[derive(Default)]
struct PerClass<T>([T; 4]);

impl<T> PerClass<T> {
    fn of(&self, class: Class) -> &T {
        let [first, first_slow, ordinary, ordinary_slow] = &self.0;
        match (class.lane, class.slow) {
            (Lane::First, false) => first,
            (Lane::First, true) => first_slow,
            (Lane::Ordinary, false) => ordinary,
            (Lane::Ordinary, true) => ordinary_slow,
        }
    }

    fn of_mut(&mut self, class: Class) -> &mut T {
        let [first, first_slow, ordinary, ordinary_slow] = &mut self.0;
        match (class.lane, class.slow) {
            (Lane::First, false) => first,
            (Lane::First, true) => first_slow,
            (Lane::Ordinary, false) => ordinary,
            (Lane::Ordinary, true) => ordinary_slow,
        }
    }
}

/// The tasks of one peer.
struct Line<T> {
    tasks: VecDeque<(Class, T)>,
    in_turn: bool,
    /// The list of ready peers that it stands in.
    ready: Option<Class>,
}

/// The tasks of all peers.
pub(crate) struct Lines<T> {
    threads_max: usize,
    lines: HashMap<NodeId, Line<T>>,
    /// Peers whose next task may begin; each peer stands in one of these at most.
    ready: PerClass<VecDeque<NodeId>>,
    waiting: PerClass<usize>,
    /// Turns that have not ended.
    turns: PerClass<usize>,
    /// Threads inside a task.
    inside: PerClass<usize>,
    slow: SlowPeers,
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self { tasks: VecDeque::new(), in_turn: false, ready: None }
    }
}

impl<T> Lines<T> {
    /// Lets at most this many tasks of each lane begin at a time, beside those of slow peers.
    pub(crate) fn new(threads_max: usize) -> Self {
        let (ready, waiting, turns, inside) = Default::default();
        Self { threads_max, lines: HashMap::new(), ready, waiting, turns, inside, slow: SlowPeers::default() }
    }

    /// Puts a task at the end of its peer's line; what gives way for it goes into `dropped`. False if nothing may give way.
    pub(crate) fn put(&mut self, peer: NodeId, lane: Lane, task: T, dropped: &mut Vec<T>) -> bool {
        let class = Class { lane, slow: self.slow.contains(peer) };
        if !self.make_room(peer, class, dropped) {
            dropped.push(task);
            return false;
        }
        self.lines.entry(peer).or_default().tasks.push_back((class, task));
        *self.waiting.of_mut(class) += 1;
        self.place(peer);
        true
    }

    /// Takes the newest task of a peer back.
    pub(crate) fn take_back(&mut self, peer: NodeId) -> Option<T> {
        let (class, task) = self.lines.get_mut(&peer)?.tasks.pop_back()?;
        *self.waiting.of_mut(class) -= 1;
        self.place(peer);
        Some(task)
    }

    /// Takes every task that waits.
    pub(crate) fn take_all(&mut self) -> Vec<T> {
        let peers: Vec<NodeId> = self.lines.keys().copied().collect();
        let all =
            self.lines.values_mut().flat_map(|line| std::mem::take(&mut line.tasks)).map(|(_, task)| task).collect();
        self.waiting = PerClass::default();
        for peer in peers {
            self.place(peer);
        }
        all
    }

    /// The task of this peer that had its turn has ended. `slow` is what that says of the peer, if anything.
    pub(crate) fn end_turn(&mut self, peer: NodeId, class: Class, slow: Option<bool>) {
        *self.turns.of_mut(class) -= 1;
        if let Some(slow) = slow {
            self.slow.note(peer, slow);
        }
        if let Some(line) = self.lines.get_mut(&peer) {
            line.in_turn = false;
        }
        self.place(peer);
    }

    /// The thread that began a task of this class is free again.
    pub(crate) fn leave(&mut self, class: Class) {
        *self.inside.of_mut(class) -= 1;
    }

    /// How many more tasks of this class may begin.
    fn room(&self, class: Class) -> usize {
        if class.slow {
            SLOW_TURNS_MAX.min(self.threads_max).saturating_sub(*self.turns.of(class))
        } else {
            self.threads_max.saturating_sub(*self.inside.of(class))
        }
    }

    /// How many tasks wait for a thread and nothing else.
    pub(crate) fn startable(&self) -> usize {
        Class::ALL.iter().map(|class| self.ready.of(*class).len().min(self.room(*class))).sum()
    }

    /// Whether no task waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.0.iter().all(|waiting| *waiting == 0)
    }

    /// How many turns have not ended.
    pub(crate) fn turns(&self) -> usize {
        self.turns.0.iter().sum()
    }

    /// Takes the oldest task of the first class that may begin.
    pub(crate) fn next(&mut self) -> Option<(NodeId, Class, T)> {
        let class = *Class::ALL.iter().find(|class| self.room(**class) > 0 && !self.ready.of(**class).is_empty())?;
        let peer = self.ready.of_mut(class).pop_front()?;
        let line = self.lines.get_mut(&peer)?;
        let (counted, task) = line.tasks.pop_front()?;
        (line.in_turn, line.ready) = (true, None);
        *self.waiting.of_mut(counted) -= 1;
        *self.turns.of_mut(class) += 1;
        *self.inside.of_mut(class) += 1;
        Some((peer, class, task))
    }

    /// Puts a peer into the list of ready peers where it belongs now.
    fn place(&mut self, peer: NodeId) {
        let slow = self.slow.contains(peer);
        let Some(line) = self.lines.get_mut(&peer) else { return };
        let first = line.tasks.iter().any(|(class, _)| class.lane == Lane::First);
        let lane = if first { Lane::First } else { Lane::Ordinary };
        let wanted = (!line.in_turn && !line.tasks.is_empty()).then_some(Class { lane, slow });
        let now = std::mem::replace(&mut line.ready, wanted);
        if line.tasks.is_empty() && !line.in_turn {
            self.lines.remove(&peer);
        }
        if now == wanted {
            return;
        }
        if let Some(class) = now {
            self.ready.of_mut(class).retain(|other| *other != peer);
        }
        if let Some(class) = wanted {
            self.ready.of_mut(class).push_back(peer);
        }
    }

    /// Makes room for one more task of this peer; what gives way goes into `dropped`. False if nothing may give way.
    fn make_room(&mut self, peer: NodeId, class: Class, dropped: &mut Vec<T>) -> bool {
        let held = self.lines.get(&peer).map_or(0, |line| line.tasks.len());
        if held >= PER_PEER_MAX {
            // The newest answer is the one that a peer can still use, and no answer outweighs a restriction.
            let ordinary = self.take(peer, |other| other.lane == Lane::Ordinary);
            let victim =
                if class.lane == Lane::First { ordinary.or_else(|| self.take(peer, |_| true)) } else { ordinary };
            let Some(victim) = victim else { return false };
            dropped.push(victim);
        }
        if *self.waiting.of(class) >= class.waiting_max() {
            // The longest line gives way, so that no peer's messages keep out those of a peer with fewer.
            let of_class = |line: &Line<T>| line.tasks.iter().filter(|(other, _)| *other == class).count();
            let own = self.lines.get(&peer).map_or(0, of_class);
            let longest = self.lines.iter().map(|(other, line)| (of_class(line), *other)).max();
            let Some((_, other)) = longest.filter(|(count, _)| *count > own + 1) else { return false };
            dropped.extend(self.take(other, |held| *held == class));
            self.place(other);
        }
        true
    }

    /// Takes this peer's oldest task of such a class out of the queue.
    fn take(&mut self, peer: NodeId, which: impl Fn(&Class) -> bool) -> Option<T> {
        let line = self.lines.get_mut(&peer)?;
        let at = line.tasks.iter().position(|(class, _)| which(class))?;
        let (class, task) = line.tasks.remove(at)?;
        *self.waiting.of_mut(class) -= 1;
        Some(task)
    }
}

/// The peers whose last turn took long. The peer that was slow longest ago is forgotten first.
#[derive(Default)]
struct SlowPeers {
    since: HashMap<NodeId, u64>,
    order: BTreeMap<u64, NodeId>,
    next: u64,
}

impl SlowPeers {
    fn contains(&self, peer: NodeId) -> bool {
        self.since.contains_key(&peer)
    }

    fn note(&mut self, peer: NodeId, slow: bool) {
        if let Some(since) = self.since.remove(&peer) {
            self.order.remove(&since);
        }
        if !slow {
            return;
        }
        self.next += 1;
        self.since.insert(peer, self.next);
        self.order.insert(self.next, peer);
        if self.order.len() > REMEMBERED_MAX
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.since.remove(&oldest);
        }
    }
}

/// Messages that wait, for peers that were not slow last time.
const ORDINARY_MAX: usize = 1024;
/// The same, for slow peers.
const ORDINARY_SLOW_MAX: usize = 512;
/// Restrictions that wait, for slow peers; and as many for others.
const FIRST_MAX: usize = 16 * 1024;
const PER_PEER_MAX: usize = 8;
/// Turns that slow peers may have at a time, in each lane.
const SLOW_TURNS_MAX: usize = 32;
/// Peers that are remembered as slow.
const REMEMBERED_MAX: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(id: u32) -> NodeId {
        NodeId::new(id).unwrap()
    }

    fn puts(lines: &mut Lines<u32>, to: u32, lane: Lane, task: u32) -> (bool, Vec<u32>) {
        let mut dropped = Vec::new();
        (lines.put(peer(to), lane, task, &mut dropped), dropped)
    }

    #[test]
    fn restrictions_are_next_and_a_peer_keeps_its_order() {
        let mut lines = Lines::new(16);
        for (to, lane, task) in [
            (2, Lane::Ordinary, 1),
            (3, Lane::Ordinary, 2),
            (4, Lane::First, 3),
            (3, Lane::First, 4),
            (4, Lane::Ordinary, 5),
        ] {
            assert_eq!(puts(&mut lines, to, lane, task), (true, Vec::new()));
        }
        let mut began = Vec::new();
        while let Some((to, class, task)) = lines.next() {
            began.push(task);
            lines.end_turn(to, class, Some(false));
            lines.leave(class);
        }
        // Node 3's first task goes with the restriction that stands behind it.
        assert_eq!(began, [3, 2, 4, 1, 5]);
        assert!(lines.lines.is_empty() && lines.is_empty() && lines.turns() == 0);
    }

    #[test]
    fn a_peer_has_one_turn_and_a_lane_so_many_threads() {
        let mut lines = Lines::new(2);
        for to in [2, 2, 3, 4] {
            puts(&mut lines, to, Lane::Ordinary, to);
        }
        let (_, class, first) = lines.next().unwrap();
        let (_, _, second) = lines.next().unwrap();
        assert_eq!((first, second, lines.startable()), (2, 3, 0));
        assert!(lines.next().is_none(), "two threads are inside");
        puts(&mut lines, 5, Lane::First, 5);
        assert_eq!(lines.next().unwrap().2, 5, "a restriction has threads of its own");
        // A task that only began gives its thread back, and not its turn.
        lines.leave(class);
        assert_eq!((lines.next().unwrap().2, lines.startable()), (4, 0));
        lines.leave(class);
        assert!(lines.next().is_none(), "node 2 has its turn still");
        lines.end_turn(peer(2), class, None);
        assert_eq!(lines.next().unwrap().2, 2);
    }

    #[test]
    fn slow_peers_have_few_turns_until_they_are_quick_again() {
        let mut lines = Lines::new(160);
        let all = || 100..200;
        let round = |lines: &mut Lines<u32>, slow| {
            all().for_each(|to| drop(puts(lines, to, Lane::Ordinary, to)));
            let mut most = 0;
            loop {
                let began: Vec<_> = std::iter::from_fn(|| lines.next()).collect();
                if began.is_empty() {
                    return most;
                }
                most = most.max(began.len());
                for (to, class, _) in began {
                    lines.leave(class);
                    lines.end_turn(to, class, Some(slow));
                }
            }
        };
        assert_eq!(round(&mut lines, true), 100);
        assert_eq!(round(&mut lines, false), SLOW_TURNS_MAX);
        assert_eq!(round(&mut lines, false), 100);
    }

    #[test]
    fn every_bound_holds_and_restrictions_and_short_lines_are_kept() {
        let mut lines = Lines::new(1);
        for task in 0..8 {
            assert_eq!(puts(&mut lines, 2, Lane::Ordinary, task), (true, Vec::new()));
        }
        assert_eq!(puts(&mut lines, 2, Lane::Ordinary, 8), (true, vec![0]), "the oldest gives way");
        for task in 10..18 {
            assert_eq!(puts(&mut lines, 2, Lane::First, task), (true, vec![task - 9]), "to a restriction, too");
        }
        assert_eq!(puts(&mut lines, 2, Lane::Ordinary, 9), (false, vec![9]), "no restriction gives way to it");
        assert_eq!(puts(&mut lines, 2, Lane::First, 18), (true, vec![10]), "but to a newer one");
        assert_eq!(lines.take_back(peer(2)), Some(18));
        // All places of one lane are taken, by lines of 8 and of 1.
        let mut lines = Lines::new(1);
        for to in 0..128 {
            (0..8).for_each(|task| assert!(puts(&mut lines, 1000 + to, Lane::Ordinary, task).0));
        }
        for to in 0..896 {
            assert!(puts(&mut lines, 2000 + to, Lane::Ordinary, 99).0, "{to}");
        }
        assert!(!puts(&mut lines, 9999, Lane::Ordinary, 99).0, "every line has one by now");
        assert_eq!(*lines.waiting.0.iter().max().unwrap(), ORDINARY_MAX);
        assert!(!puts(&mut lines, 2000, Lane::Ordinary, 99).0, "it has one already");
        assert!(puts(&mut lines, 2000, Lane::First, 1).0, "another lane has room");
        assert_eq!(lines.take_all().len(), ORDINARY_MAX + 1);
        assert!(lines.is_empty() && lines.lines.is_empty() && lines.next().is_none());
    }

    #[test]
    fn no_more_slow_peers_are_remembered_than_may_be() {
        let mut slow = SlowPeers::default();
        for id in 1..=20_000 {
            slow.note(peer(id), true);
        }
        assert_eq!((slow.since.len(), slow.order.len()), (REMEMBERED_MAX, REMEMBERED_MAX));
        assert!(!slow.contains(peer(1)) && slow.contains(peer(20_000)));
        slow.note(peer(20_000), false);
        assert!(!slow.contains(peer(20_000)));
    }
}
