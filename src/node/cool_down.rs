//! Storm control: a program that asks by itself asks a peer at most once in a while.
//!
//! Two nodes whose programs ask whenever they are not trusted would otherwise keep each other busy for ever. Operators are
//! never held up.
#![forbid(unsafe_code)]

use core::time::Duration;
use std::collections::HashMap;

use crate::peer::NodeId;
use crate::time::Tick;

/// When each peer was asked last, for as long as that matters.
#[derive(Debug, Default)]
pub(crate) struct CoolDown {
    asked: HashMap<NodeId, Tick>,
}

impl CoolDown {
    /// How long an automatic request to this peer has to wait; `None` if it may go.
    pub(crate) fn left(&self, peer: NodeId, now: Tick, pause: Duration) -> Option<Duration> {
        let since = u64::try_from(now.millis_since(*self.asked.get(&peer)?)).unwrap_or(0);
        pause.checked_sub(Duration::from_millis(since)).filter(|left| !left.is_zero())
    }

    /// The peer was asked.
    pub(crate) fn note(&mut self, peer: NodeId, now: Tick, pause: Duration) {
        if self.asked.len() >= ASKED_MAX && !self.asked.contains_key(&peer) {
            let before = self.asked.len();
            self.asked.retain(|_, at| u128::try_from(now.millis_since(*at)).unwrap_or(0) < pause.as_millis());
            // Still full of requests of the last moments: the oldest is the first that may be repeated anyway.
            if self.asked.len() == before
                && let Some(oldest) = self.asked.iter().min_by_key(|(_, at)| **at).map(|(peer, _)| *peer)
            {
                self.asked.remove(&oldest);
            }
        }
        self.asked.insert(peer, now);
    }
}

/// As many as there may be requests of ours.
const ASKED_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(30);

    fn peer(id: u32) -> NodeId {
        NodeId::new(id).unwrap()
    }

    #[test]
    fn a_peer_cools_down_for_as_long_as_it_is_told_and_no_other_does() {
        let mut cooling = CoolDown::default();
        assert_eq!(cooling.left(peer(2), Tick::new(0), PAUSE), None);
        cooling.note(peer(2), Tick::new(1000), PAUSE);
        assert_eq!(cooling.left(peer(2), Tick::new(1000), PAUSE), Some(PAUSE));
        assert_eq!(cooling.left(peer(2), Tick::new(30_999), PAUSE), Some(Duration::from_millis(1)));
        assert_eq!(cooling.left(peer(2), Tick::new(31_000), PAUSE), None);
        assert_eq!(cooling.left(peer(3), Tick::new(1000), PAUSE), None);
    }

    #[test]
    fn it_does_not_grow_beyond_its_limit_and_forgets_the_oldest() {
        let mut cooling = CoolDown::default();
        for id in 1..=5000 {
            cooling.note(peer(id), Tick::new(i64::from(id)), PAUSE);
        }
        assert_eq!(cooling.asked.len(), ASKED_MAX);
        assert_eq!(cooling.left(peer(1), Tick::new(5000), PAUSE), None);
        assert!(cooling.left(peer(5000), Tick::new(5000), PAUSE).is_some());
        cooling.note(peer(9999), Tick::new(40_000), PAUSE);
        assert_eq!(cooling.asked.len(), 1, "those whose time is over go first");
    }
}
