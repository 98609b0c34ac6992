//! How often a false or changed key is told of: no flood of them becomes a flood of events and warnings, and none
//! that ends trust is left out.
//!
//! Pure: what a clock or a lock would say is given.
#![forbid(unsafe_code)]

use std::collections::HashMap;

use super::manager::HandshakeManager;
use crate::peer::{Fingerprint, NodeId, Source};
use crate::time::{Tick, WallMillis};

/// A false or changed key that was noticed: what `handshake.key_mismatch` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FalseKey {
    /// When.
    pub at: WallMillis,
    /// Whose key.
    pub peer: NodeId,
    /// Where the message came from that showed the key; `None` if no message did.
    pub source: Option<Source>,
    /// Of the key that is known for the peer.
    pub expected: Fingerprint,
    /// Of the key in the message; without a message, of the key in the trusted record.
    pub shown: Fingerprint,
    /// Whether trust in the peer ended by it.
    pub ended: bool,
}

impl HandshakeManager {
    /// The newest false or changed key since the start, also where a flood of them kept it from being told. How many
    /// there were is in [`counters`](Self::counters), as `key_mismatch`.
    #[must_use]
    pub fn newest_false_key(&self) -> Option<FalseKey> {
        *self.shell.newest_false_key.lock()
    }
}

/// When each peer was told of last, and how many were told of since when.
#[derive(Debug, Default)]
pub(crate) struct Loud {
    last: HashMap<NodeId, Tick>,
    since: Option<Tick>,
    told: usize,
}

impl Loud {
    /// Whether to tell of this peer now; if so, that counts as told. What ended trust is always told.
    pub(crate) fn may_tell(&mut self, peer: NodeId, ended: bool, now: Tick) -> bool {
        if ended {
            return true;
        }
        let is_over = |since: Tick| now.millis_since(since) >= EVERY_MS;
        if self.since.is_none_or(is_over) {
            (self.since, self.told) = (Some(now), 0);
            self.last.retain(|_, last| !is_over(*last));
        }
        if self.told >= TOLD_MAX || self.last.get(&peer).is_some_and(|last| !is_over(*last)) {
            return false;
        }
        self.told += 1;
        self.last.insert(peer, now);
        true
    }
}

/// Of one peer at most one is told in this time.
const EVERY_MS: i64 = 1000;
/// Of all peers together at most so many.
const TOLD_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn id(id: u32) -> NodeId {
        NodeId::new(id).unwrap()
    }

    #[test]
    fn a_key_is_told_of_once_a_second_for_each_peer_and_what_ended_trust_always() {
        let mut loud = Loud::default();
        for ms in 0..1000 {
            assert_eq!(loud.may_tell(id(2), false, Tick::new(ms)), ms == 0);
        }
        assert!(loud.may_tell(id(3), false, Tick::new(999)), "another peer");
        assert!(loud.may_tell(id(2), true, Tick::new(999)), "trust ended");
        assert!(loud.may_tell(id(2), false, Tick::new(1000)));
        assert!(!loud.may_tell(id(3), false, Tick::new(1998)) && loud.may_tell(id(3), false, Tick::new(1999)));
    }

    #[test]
    fn a_flood_of_ids_is_told_of_in_part_and_remembered_in_part() {
        let mut loud = Loud::default();
        let told = |loud: &mut Loud, from: u32, ms| {
            (from..from + 1000).filter(|peer| loud.may_tell(id(*peer), false, Tick::new(ms))).count()
        };
        assert_eq!(told(&mut loud, 1, 0), TOLD_MAX);
        assert_eq!(told(&mut loud, 5000, 500), 0);
        for second in 1..10 {
            assert_eq!(told(&mut loud, second * 10_000, i64::from(second) * 1000), TOLD_MAX);
        }
        assert!(loud.last.len() <= 2 * TOLD_MAX);
    }
}
