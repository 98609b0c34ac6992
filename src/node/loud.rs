//! How often a false or changed key is told of: no flood of them becomes a flood of events or of log lines,
//! and none that ends trust is left out.
//!
//! Pure: what a clock or a lock would say is given.
#![forbid(unsafe_code)]

use std::collections::HashMap;

use super::manager::HandshakeManager;
use super::shell::Shell;
use crate::machine::event::Event;
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

impl Shell {
    /// says what no line of the log has said yet.
    pub(crate) fn tell_left_out(&self) {
        let left_out = self.loud.lock().take_left_out();
        if left_out > 0 {
            tracing::warn!(
                left_out,
                "more peers had another key than the one known for them; no line of the log tells of those"
            );
        }
    }
}

impl HandshakeManager {
    /// The newest false or changed key since the start, also where a flood of them kept it from being told. How many
    /// there were is in [`counters`](Self::counters), as `key_mismatch`.
    #[must_use]
    pub fn newest_false_key(&self) -> Option<FalseKey> {
        *self.shell.newest_false_key.lock()
    }
}

/// A line of the log for what an operator should hear of. `left_out`: how many false keys had none since the last line.
pub(crate) fn tell_in_log(event: Event, left_out: u64) {
    match event {
        Event::KeyMismatch { peer, source, expected, shown, ended } => {
            tracing::warn!(%peer, ?source, %expected, %shown, ended, left_out, "a peer has another key than the one known for it");
        }
        // Once for each old key, and only its holder can bring that about.
        Event::RotationRefused { peer, old, new, fault } => {
            let reason = fault.name();
            tracing::warn!(%peer, %old, %new, reason, "an old key named a successor, and its word is refused");
        }
        _ => {}
    }
}

/// When each peer was told of last, and how many were told of since when.
#[derive(Debug, Default)]
pub(crate) struct Loud {
    last: HashMap<NodeId, Tick>,
    since: Option<Tick>,
    told: usize,
    /// The moment up to which the lines written so far have used up their time, one each [`EVERY_MS`].
    lines_until: Option<Tick>,
    /// Keys of which no line was written since the last line.
    left_out: u64,
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

    /// Whether the log gets a line of this key now; if so, how many keys got none since the last line. `is_told`: subscribers
    /// are told of it. What ended trust always gets one, and takes none from others.
    pub(crate) fn may_write(&mut self, is_told: bool, ended: bool, now: Tick) -> Option<u64> {
        if !ended {
            // Time that was not used counts for so many lines at most.
            let begin = now.saturating_add(-(LINES_MAX - 1) * EVERY_MS);
            let until = self.lines_until.map_or(begin, |until| until.max(begin));
            if !is_told || until > now {
                self.left_out = self.left_out.saturating_add(1);
                return None;
            }
            self.lines_until = Some(until.saturating_add(EVERY_MS));
        }
        Some(self.take_left_out())
    }

    /// How many keys got no line since the last line, for a line that says so.
    pub(crate) fn take_left_out(&mut self) -> u64 {
        core::mem::take(&mut self.left_out)
    }
}

/// Of one peer at most one is told in this time.
const EVERY_MS: i64 = 1000;
/// Of all peers together at most so many.
const TOLD_MAX: usize = 32;
/// So many lines of the log may follow each other at once; later ones each need [`EVERY_MS`].
const LINES_MAX: i64 = 8;

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
    #[test]
    fn a_flood_of_false_keys_has_eight_lines_and_then_one_a_second_that_counts_the_rest() {
        let mut loud = Loud::default();
        // 64 ids in turn, 160 a second, for ten seconds.
        let mut lines = Vec::new();
        for nth in 0..1600_u32 {
            let now = Tick::new(i64::from(nth) * 1000 / 160);
            let is_told = loud.may_tell(id(100 + nth % 64), false, now);
            lines.extend(loud.may_write(is_told, false, now));
        }
        assert_eq!(lines.len(), 8 + 9, "{lines:?}");
        assert!(lines.iter().take(8).all(|left_out| *left_out == 0), "{lines:?}");
        let told: u64 = lines.iter().sum();
        assert_eq!(told + loud.take_left_out() + 17, 1600, "each has a line or is counted in one");
        assert_eq!(loud.take_left_out(), 0);
        // Quiet makes room for eight and no more.
        let later = Tick::new(1_000_000);
        let burst = (0..100).filter_map(|_| loud.may_write(true, false, later)).count();
        assert_eq!(burst, 8);
    }

    #[test]
    fn what_ended_trust_is_written_in_any_flood_and_takes_no_line_from_others() {
        let mut loud = Loud::default();
        let now = Tick::new(5);
        for _ in 0..8 {
            assert_eq!(loud.may_write(true, false, now), Some(0));
        }
        assert_eq!((loud.may_write(true, false, now), loud.may_write(false, false, now)), (None, None));
        assert_eq!(loud.may_write(true, true, now), Some(2), "and it says how many had none");
        for _ in 0..100 {
            assert_eq!(loud.may_write(true, true, now), Some(0));
        }
        // A clock that stands still or a tick at either end of its range changes nothing.
        assert_eq!(loud.may_write(true, false, now), None);
        assert_eq!(loud.may_write(true, false, Tick::new(1005)), Some(1));
        let mut loud = Loud::default();
        assert_eq!(loud.may_write(true, false, Tick::new(i64::MIN)), Some(0));
        assert_eq!(loud.may_write(true, false, Tick::new(i64::MAX)), Some(0));
    }
}
