//! Which messages of version 1 were seen lately, so that a copy is known for one. Pure and bounded; not saved.
//!
//! A signature of version 1 covers neither type nor time: whoever has one can send it again. What makes it count is the
//! connection it comes over, and what stops the copy is this table. So a copy over an open connection, which
//! counts for little, must not use up the one over an authenticated connection: each entry says which of them it was, and
//! those that counted for little give way first.
//!
//! INVARIANT: never more entries than allowed, in all and of one node.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};

use super::arrival::millis;
use super::outcome::Rules;
use crate::peer::NodeId;
use crate::time::Tick;
use crate::wire::verify::ReplayKey;

/// What the table knows of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Seen {
    /// Nothing, or no longer.
    #[default]
    Never,
    /// It came, and nobody vouched for it.
    Unvouched,
    /// It came, and the transport authenticated its sender.
    Authentic,
}

/// A message to be remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Noted {
    /// What tells it from others.
    pub key: ReplayKey,
    /// Its sender.
    pub sender: NodeId,
    /// Whether the transport authenticated the sender.
    pub authentic: bool,
}

/// The table.
#[derive(Clone, Debug)]
pub struct ReplayTable {
    entries: BTreeMap<ReplayKey, Entry>,
    /// Every entry, the ones to give way first first; and the same of each sender.
    order: BTreeSet<Place>,
    of_node: BTreeMap<NodeId, BTreeSet<Place>>,
    entries_max: usize,
    per_node_max: usize,
    window_ms: i64,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    sender: NodeId,
    place: Place,
}

/// Unvouched ones give way before authentic ones, older before younger.
type Place = (bool, Tick, ReplayKey);

impl ReplayTable {
    /// An empty table. It remembers as long as the age and skew allowed to a message let a copy pass for new.
    #[must_use]
    pub fn new(rules: &Rules) -> Self {
        let window_ms = millis(rules.config.message_age_max).saturating_add(millis(rules.config.future_skew_max));
        Self {
            entries: BTreeMap::new(),
            order: BTreeSet::new(),
            of_node: BTreeMap::new(),
            entries_max: rules.limits.replay_max,
            per_node_max: rules.limits.replay_per_node_max,
            window_ms,
        }
    }

    /// The number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What is known of this message.
    #[must_use]
    pub fn seen(&self, now: Tick, key: &ReplayKey) -> Seen {
        match self.entries.get(key) {
            Some(Entry { place: (authentic, since, _), .. }) if now.millis_since(*since) <= self.window_ms => {
                if *authentic {
                    Seen::Authentic
                } else {
                    Seen::Unvouched
                }
            }
            _ => Seen::Never,
        }
    }

    /// Remembers a message. At a limit another entry is forgotten: the oldest unvouched one, or else the oldest.
    ///
    /// # Complexity
    /// Logarithmic in the number of entries.
    pub fn note(&mut self, now: Tick, noted: Noted) {
        let Noted { key, sender, authentic } = noted;
        let authentic = authentic || self.seen(now, &key) == Seen::Authentic;
        self.forget(&key);
        while self.of_node.get(&sender).is_some_and(|places| places.len() >= self.per_node_max) {
            let first = self.of_node.get(&sender).and_then(|places| places.first()).copied();
            self.forget_place(first);
        }
        while self.order.len() >= self.entries_max.max(1) {
            self.forget_place(self.order.first().copied());
        }
        if self.entries_max == 0 || self.per_node_max == 0 {
            return;
        }
        let place = (authentic, now, key);
        self.entries.insert(key, Entry { sender, place });
        self.order.insert(place);
        self.of_node.entry(sender).or_default().insert(place);
    }

    fn forget_place(&mut self, place: Option<Place>) {
        if let Some((_, _, key)) = place {
            self.forget(&key);
        }
    }

    fn forget(&mut self, key: &ReplayKey) {
        let Some(Entry { sender, place }) = self.entries.remove(key) else { return };
        self.order.remove(&place);
        if let Some(places) = self.of_node.get_mut(&sender) {
            places.remove(&place);
            if places.is_empty() {
                self.of_node.remove(&sender);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::actor::{Actor, node};

    fn table(entries_max: usize, per_node_max: usize) -> ReplayTable {
        let mut rules = Actor::new(7, 0xAA).rules;
        (rules.limits.replay_max, rules.limits.replay_per_node_max) = (entries_max, per_node_max);
        ReplayTable::new(&rules)
    }

    fn key(number: u32) -> ReplayKey {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        ReplayKey(bytes)
    }

    fn noted(number: u32, sender: u32, authentic: bool) -> Noted {
        Noted { key: key(number), sender: node(sender), authentic }
    }

    fn tick(millis: i64) -> Tick {
        Tick::new(millis)
    }

    fn known(table: &ReplayTable, numbers: core::ops::Range<u32>) -> Vec<u32> {
        numbers.filter(|number| table.seen(tick(0), &key(*number)) != Seen::Never).collect()
    }

    #[test]
    fn the_oldest_gives_way_and_the_table_never_grows_beyond_its_limit() {
        let mut table = table(4, 4);
        for number in 0..6 {
            table.note(tick(i64::from(number)), noted(number, 1 + number, true));
            assert!(table.len() <= 4);
        }
        assert_eq!(known(&table, 0..6), [2, 3, 4, 5]);
    }

    #[test]
    fn one_sender_has_its_share_and_pushes_out_nobody_else() {
        let mut table = table(8192, 256);
        table.note(tick(0), noted(1_000_000, 2, true));
        for number in 0..10_000 {
            table.note(tick(1 + i64::from(number)), noted(number, 1, true));
        }
        assert_eq!(table.len(), 257);
        assert_eq!(known(&table, 1_000_000..1_000_001), [1_000_000]);
        assert_eq!(known(&table, 0..10_000), (9744..10_000).collect::<Vec<_>>());
        for sender in 3..100 {
            for number in 0..256 {
                table.note(tick(20_000), noted(sender << 16 | number, sender, true));
            }
        }
        assert_eq!((table.len(), table.order.len()), (8192, 8192));
    }

    #[test]
    fn what_nobody_vouched_for_gives_way_first() {
        let mut table = table(3, 3);
        for (number, authentic) in [(0, true), (1, false), (2, true), (3, false), (4, true)] {
            table.note(tick(i64::from(number)), noted(number, 1 + number, authentic));
        }
        assert_eq!(known(&table, 0..5), [0, 2, 4]);
    }

    #[test]
    fn a_message_is_forgotten_when_its_copy_would_be_too_old_and_not_before() {
        let mut table = table(8, 8);
        table.note(tick(1000), noted(0, 1, true));
        assert_eq!(table.seen(tick(331_000), &key(0)), Seen::Authentic);
        assert_eq!(table.seen(tick(331_001), &key(0)), Seen::Never);
    }

    #[test]
    fn a_copy_that_nobody_vouches_for_does_not_lower_what_is_known() {
        let mut table = table(8, 8);
        table.note(tick(0), noted(0, 1, false));
        assert_eq!(table.seen(tick(0), &key(0)), Seen::Unvouched);
        table.note(tick(1), noted(0, 1, true));
        table.note(tick(2), noted(0, 1, false));
        assert_eq!((table.seen(tick(2), &key(0)), table.len()), (Seen::Authentic, 1));
    }

    #[test]
    fn a_table_without_room_remembers_nothing() {
        for (entries_max, per_node_max) in [(0, 4), (4, 0)] {
            let mut table = table(entries_max, per_node_max);
            table.note(tick(0), noted(0, 1, true));
            assert!(table.is_empty());
        }
    }
}
