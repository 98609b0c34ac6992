//! Which peers have taken their word back a moment ago, so that what they ask anew is saved with other changes.
//!
//! What must hold: nothing is put off but what one message does for its own sender, and an end of trust only as
//! [`Deferral`] says. Memory is bounded: a peer stands here for a second at most, and no more than [`PEERS_MAX`] do.
//!
//! Pure: what a clock or a lock would say is given.
#![forbid(unsafe_code)]

use std::collections::HashMap;

use crate::machine::outcome::Outcome;
use crate::machine::view::{TableChange, View};
use crate::peer::NodeId;
use crate::store::Generation;
use crate::store::deferral::Deferral;
use crate::time::Tick;

/// The peers that took trust, or their request, back within the last second.
#[derive(Debug, Default)]
pub(crate) struct TakenBack {
    peers: HashMap<NodeId, Peer>,
    tidied: Option<Tick>,
}

#[derive(Debug)]
struct Peer {
    /// When it did so last.
    at: Tick,
    /// The newest change that gave it something and was put off.
    given: Option<Generation>,
}

impl TakenBack {
    /// Whether what a message of this peer comes to may be saved a moment later. `before` is what it changes.
    pub(crate) fn judge(
        &mut self,
        peer: NodeId,
        outcome: &Outcome,
        changes: &[TableChange],
        before: &dyn View,
        now: Tick,
    ) -> Option<Deferral> {
        let concerns_it_alone = changes.iter().all(|change| is_of(change, peer));
        match outcome {
            Outcome::RevokedByPeer { .. } => {
                let given = self.note(peer, now);
                given.filter(|_| concerns_it_alone).map(Deferral::TakenBack)
            }
            // What ends trust under another key is no gift.
            Outcome::Trusted(_) | Outcome::Queued if concerns_it_alone && before.trusted(peer).is_none() => {
                let is_fresh = |it: &Peer| now.millis_since(it.at) < WITHIN_MS;
                self.peers.get(&peer).filter(|it| is_fresh(it)).map(|_| Deferral::Given)
            }
            _ => None,
        }
    }

    /// What was given to the peer and put off is this generation.
    pub(crate) fn note_given(&mut self, peer: NodeId, generation: Generation) {
        if let Some(it) = self.peers.get_mut(&peer) {
            it.given = it.given.max(Some(generation));
        }
    }

    /// The peer takes its word back now. What it was given last and was put off.
    fn note(&mut self, peer: NodeId, now: Tick) -> Option<Generation> {
        if self.tidied.is_none_or(|last| now.millis_since(last) >= WITHIN_MS) {
            self.tidied = Some(now);
            self.peers.retain(|_, it| now.millis_since(it.at) < WITHIN_MS);
        }
        if self.peers.len() >= PEERS_MAX && !self.peers.contains_key(&peer) {
            return None;
        }
        let it = self.peers.entry(peer).or_insert(Peer { at: now, given: None });
        it.at = now;
        it.given
    }
}

/// Whether a change is about this peer alone, and about nothing that an operator said.
fn is_of(change: &TableChange, peer: NodeId) -> bool {
    match change {
        TableChange::Trusted(of, _)
        | TableChange::Pending(of, _)
        | TableChange::Floor(of, _)
        | TableChange::Owed(of, _)
        | TableChange::Revision(of, _) => *of == peer,
        _ => false,
    }
}

/// Who asks again later than this is saved at once.
const WITHIN_MS: i64 = 1000;
/// Of more peers all is saved at once.
const PEERS_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::input::Command;
    use crate::machine::outcome::Step;
    use crate::testing::actor::{Actor, Way, at, node, us};
    use crate::testing::model::PlainView;
    use crate::wire::message::Kind;

    fn asked(us: &mut Actor, ms: i64, kind: Kind) -> (Step, PlainView) {
        let before = us.tables.clone();
        let mut peer = Actor::new(9, 0x11);
        let draft = peer.draft(at(ms), us.id(), kind, None);
        let way = Way::in_networks(peer.public_key(), &[3]);
        (us.hear_from(at(ms), &peer, &draft, way).unwrap(), before)
    }

    fn judged(taken_back: &mut TakenBack, of: &(Step, PlainView), ms: i64) -> Option<Deferral> {
        let (Step { outcome, changes, .. }, before) = of;
        taken_back.judge(node(9), outcome, changes, before, Tick::new(ms))
    }

    fn given(generation: u64) -> Option<Deferral> {
        Some(Deferral::TakenBack(Generation::new(generation)))
    }

    #[test]
    fn what_is_asked_anew_within_a_second_is_put_off_and_so_is_its_end() {
        let (mut us, mut it) = (us(), TakenBack::default());
        us.rules.policy = crate::config::Policy::default().own_networks([3]);
        let mut says = |it: &mut TakenBack, ms, kind| judged(it, &asked(&mut us, ms, kind), ms);
        assert_eq!(says(&mut it, 0, Kind::Request), None, "the first");
        assert_eq!(says(&mut it, 10, Kind::Revoke), None, "what was not put off");
        assert_eq!(says(&mut it, 1008, Kind::Request), Some(Deferral::Given));
        it.note_given(node(9), Generation::new(7));
        it.note_given(node(9), Generation::new(6));
        assert_eq!(says(&mut it, 1009, Kind::Revoke), given(7));
        assert_eq!(says(&mut it, 2009, Kind::Request), None, "a second later");
        // It was forgotten meanwhile.
        assert_eq!(says(&mut it, 2010, Kind::Revoke), None);
        assert_eq!(says(&mut it, 2011, Kind::Request), Some(Deferral::Given));
    }

    #[test]
    fn what_concerns_anybody_or_anything_else_is_not_put_off() {
        let fresh = || {
            let (mut us, mut it) = (us(), TakenBack::default());
            us.rules.policy = crate::config::Policy::default().own_networks([3]);
            for (ms, kind) in [(0, Kind::Request), (1, Kind::Revoke)] {
                let of = asked(&mut us, ms, kind);
                judged(&mut it, &of, ms);
            }
            it.note_given(node(9), Generation::new(7));
            (us, it)
        };
        let (mut us, mut it) = fresh();
        let mut of = asked(&mut us, 2, Kind::Request);
        assert_eq!(judged(&mut it, &of, 2), Some(Deferral::Given), "the twin");
        of.0.changes.push(TableChange::Pending(node(8), None));
        assert_eq!(judged(&mut it, &of, 2), None, "another's entry gives way");
        assert_eq!(it.judge(node(8), &of.0.outcome, &of.0.changes, &of.1, Tick::new(2)), None, "another peer");
        let mut of = asked(&mut us, 3, Kind::Revoke);
        assert_eq!(judged(&mut it, &of, 3), given(7), "the twin");
        of.0.changes.push(TableChange::Revoked(node(9), None));
        assert_eq!(judged(&mut it, &of, 3), None, "a mark");

        // It settles what an operator asked.
        let (mut us, mut it) = fresh();
        us.request(at(2), node(9), None).unwrap();
        let of = asked(&mut us, 3, Kind::Request);
        assert!(us.tables.trusted.contains_key(&node(9)));
        assert_eq!(judged(&mut it, &of, 3), None);
        // An operator's own word is none of the peer's, whatever it comes to.
        let before = us.tables.clone();
        let of = (us.command(at(4), Command::Remove { peer: node(9) }).unwrap(), before);
        assert_eq!(judged(&mut it, &of, 4), None);
    }

    #[test]
    fn who_takes_back_is_remembered_within_a_bound() {
        let mut it = TakenBack::default();
        for id in 1..=5000 {
            it.note(node(id), Tick::new(0));
        }
        assert_eq!(it.peers.len(), PEERS_MAX);
        it.note_given(node(5000), Generation::new(3));
        assert_eq!(it.note(node(5000), Tick::new(1)), None);
        it.note(node(1), Tick::new(999));
        it.note(node(5000), Tick::new(1000));
        assert_eq!(it.peers.len(), 2);
    }
}
