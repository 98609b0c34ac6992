//! The newest revision of what a registry said of each peer, so that a replica that lags cannot take it back.
//!
//! Of peers that are trusted the store saves it besides; what is saved counts here like what was said.
//!
//! INVARIANT: the revision of a peer in one of our tables is never forgotten for a stranger's sake. Strangers have a
//! bounded number of places of their own and push out only each other.
#![forbid(unsafe_code)]

use std::collections::{HashMap, VecDeque};

use super::registry::Revision;
use crate::peer::NodeId;

/// What was said of whom, in two parts: of peers in our tables, and of everybody else.
#[derive(Debug)]
pub(crate) struct Revisions {
    ours: Part,
    strangers: Part,
    strangers_max: usize,
}

#[derive(Debug, Default)]
struct Part {
    of: HashMap<NodeId, Revision>,
    /// Every peer of `of`, once; the one noted first is in front.
    order: VecDeque<NodeId>,
}

impl Part {
    fn note(&mut self, peer: NodeId, revision: Revision) {
        if self.of.insert(peer, revision).is_none() {
            self.order.push_back(peer);
        }
    }

    fn pop(&mut self) -> Option<(NodeId, Revision)> {
        let peer = self.order.pop_front()?;
        self.of.remove(&peer).map(|revision| (peer, revision))
    }
}

impl Revisions {
    /// Nothing was said yet; there is room for so many strangers.
    pub(crate) fn new(strangers_max: usize) -> Self {
        Self { ours: Part::default(), strangers: Part::default(), strangers_max }
    }

    /// The newest revision of the peer's entry, as far as it is remembered.
    pub(crate) fn newest(&self, peer: NodeId) -> Option<Revision> {
        self.ours.of.get(&peer).or_else(|| self.strangers.of.get(&peer)).copied()
    }

    /// How many peers' revisions are remembered.
    pub(crate) fn len(&self) -> usize {
        self.ours.of.len() + self.strangers.of.len()
    }

    /// Whether an answer is at least as new as those before; from now on it counts as said. `revision` is that of the
    /// entry, `None` if the registry does not know the peer; `saved` is what an earlier life saved, or this one. `is_ours`
    /// says whether a peer is in one of our tables.
    ///
    /// A registry that has numbered a peer's entry and does not know the peer now lags, or has forgotten it: both are
    /// no answer.
    ///
    /// # Complexity
    /// Constant but for places of strangers who have become ours since, each of which is moved once.
    pub(crate) fn is_news(
        &mut self,
        peer: NodeId,
        revision: Option<Revision>,
        saved: Option<Revision>,
        is_ours: &dyn Fn(NodeId) -> bool,
    ) -> bool {
        if saved.is_some() && revision < saved {
            return false;
        }
        let said = self.ours.of.get_mut(&peer).or_else(|| self.strangers.of.get_mut(&peer));
        match (said, revision) {
            (Some(_), None) => false,
            (Some(said), Some(revision)) if revision < *said => false,
            (Some(said), Some(revision)) => {
                *said = revision;
                true
            }
            (None, None | Some(Revision::NONE)) => true,
            (None, Some(revision)) if is_ours(peer) => {
                self.ours.note(peer, revision);
                self.let_go(is_ours);
                true
            }
            (None, Some(revision)) => {
                self.take_in(peer, revision, is_ours);
                true
            }
        }
    }

    /// Two of those in front that have left our tables become strangers: so the part that has no limit of its own stays
    /// about as small as the tables.
    fn let_go(&mut self, is_ours: &dyn Fn(NodeId) -> bool) {
        for _ in 0..2 {
            match self.ours.pop() {
                Some((peer, revision)) if is_ours(peer) => self.ours.note(peer, revision),
                Some((peer, revision)) => self.take_in(peer, revision, is_ours),
                None => {}
            }
        }
    }

    /// Finds a place for a stranger: the one that was noted first and is a stranger still gives way.
    fn take_in(&mut self, peer: NodeId, revision: Revision, is_ours: &dyn Fn(NodeId) -> bool) {
        while self.strangers.of.len() >= self.strangers_max.max(1) {
            let Some((oldest, known)) = self.strangers.pop() else { break };
            if is_ours(oldest) {
                self.ours.note(oldest, known);
            }
        }
        self.strangers.note(peer, revision);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(id: u32) -> NodeId {
        NodeId::new(id).unwrap()
    }

    const fn at(revision: u64) -> Option<Revision> {
        Some(Revision(revision))
    }

    fn nobody(_: NodeId) -> bool {
        false
    }

    #[test]
    fn the_revision_of_a_peer_of_ours_outlives_any_number_of_strangers() {
        let ours = |peer: NodeId| peer == id(1);
        let mut revisions = Revisions::new(4);
        assert!(revisions.is_news(id(1), at(9), None, &ours));
        for stranger in 2..100 {
            assert!(revisions.is_news(id(stranger), at(9), None, &ours));
        }
        assert!(!revisions.is_news(id(1), at(8), None, &ours), "it is remembered");
        assert!(revisions.is_news(id(1), at(9), None, &ours));
        assert!(revisions.is_news(id(2), at(8), None, &ours), "a stranger gives way to strangers");
        assert!(!revisions.is_news(id(99), at(8), None, &ours), "but not the newest of them");
        assert_eq!((revisions.ours.of.len(), revisions.strangers.of.len()), (1, 4));
    }

    #[test]
    fn a_stranger_who_enters_a_table_later_is_kept_as_well() {
        let mut revisions = Revisions::new(4);
        assert!(revisions.is_news(id(1), at(9), None, &nobody));
        let ours = |peer: NodeId| peer == id(1);
        for stranger in 2..100 {
            assert!(revisions.is_news(id(stranger), at(9), None, &ours));
        }
        assert!(!revisions.is_news(id(1), at(8), None, &ours));
    }

    #[test]
    fn those_who_leave_the_tables_make_room() {
        let mut revisions = Revisions::new(4);
        for peer in 1..=1000 {
            assert!(revisions.is_news(id(peer), at(9), None, &|_| true));
        }
        assert_eq!(revisions.ours.of.len(), 1000);
        for peer in 2001..=3000 {
            assert!(revisions.is_news(id(peer), at(9), None, &|peer| peer.get() > 2000));
        }
        assert_eq!(revisions.ours.of.len(), 1000, "those of before have left");
        assert_eq!((revisions.ours.order.len(), revisions.strangers.order.len()), (1000, 4));
    }

    #[test]
    fn a_peer_that_was_numbered_and_is_not_known_any_more_has_no_answer() {
        let mut revisions = Revisions::new(4);
        assert!(revisions.is_news(id(1), None, None, &nobody) && revisions.is_news(id(1), at(0), None, &nobody));
        assert!(revisions.is_news(id(1), at(1), None, &nobody));
        assert!(!revisions.is_news(id(1), None, None, &nobody) && !revisions.is_news(id(1), at(0), None, &nobody));
        assert!(revisions.is_news(id(1), at(1), None, &nobody));
    }

    #[test]
    fn what_was_saved_counts_like_what_was_said() {
        let ours = |peer: NodeId| peer == id(1);
        let mut revisions = Revisions::new(4);
        for older in [None, at(0), at(8)] {
            assert!(!revisions.is_news(id(1), older, at(9), &ours), "{older:?}");
        }
        assert_eq!((revisions.len(), revisions.newest(id(1))), (0, None), "what is no news is not remembered");
        assert!(revisions.is_news(id(1), at(9), at(9), &ours));
        assert!(revisions.is_news(id(1), at(10), at(9), &ours));
        assert_eq!(revisions.newest(id(1)), at(10));
        assert!(!revisions.is_news(id(1), at(9), at(9), &ours), "what could not be saved counts, too");
    }
}
