//! When each message that did not leave, and each request that was not answered, is tried again.
//!
//! Pure: what a clock, a lock or a random source would say is given.
//!
//! What must hold:
//!
//! - At most [`UNDER_WAY_MAX`] tries are under way, and at most [`PER_SECOND`] begin in a second, after a burst of
//!   [`UNDER_WAY_MAX`]. So what cannot be delivered costs the same however much of it there is.
//! - The table holds at most [`ENTRIES_MAX`] entries. Those that are due last give way.
#![forbid(unsafe_code)]

use std::collections::{BTreeSet, HashMap};

use crate::machine::deliver::Retried;
use crate::peer::{NodeId, Nonce};
use crate::time::Tick;

/// One of the two messages that may be outstanding with a peer.
pub(crate) type Key = (NodeId, Retried);

/// What is known about the tries of one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) nonce: Nonce,
    /// When the message was decided. The tries become seldom a day later.
    since: Tick,
    /// How many tries have ended since the node started.
    pub(crate) tries: u32,
    /// Why the last try failed, if it did.
    pub(crate) error: Option<String>,
    /// Whether a try has left since the node started; unknown before the first try of an entry that was loaded.
    pub(crate) sent: Option<bool>,
    /// When the next try begins; none while one is under way, or if a relay has the message.
    pub(crate) next: Option<Tick>,
    /// It is old, or has failed often: its pauses grow with the number of entries.
    patient: bool,
    /// It counts among the tries that are under way.
    counted: bool,
}

/// How a try ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Tried {
    /// It left, directly.
    Sent,
    /// A relay has it.
    Relayed,
    /// It did not leave.
    Failed(String),
}

/// Every message that is to be tried again.
#[derive(Debug)]
pub(crate) struct RetryTable {
    entries: HashMap<Key, Entry>,
    due: BTreeSet<(Tick, Key)>,
    under_way: usize,
    /// The earliest moment of the next try, were there no burst.
    paced: Tick,
}

impl RetryTable {
    pub(crate) fn new() -> Self {
        Self { entries: HashMap::new(), due: BTreeSet::new(), under_way: 0, paced: Tick::new(i64::MIN) }
    }

    pub(crate) fn get(&self, key: Key) -> Option<&Entry> {
        self.entries.get(&key)
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Takes what a store held when the node started: everything is tried soon, one after the other.
    pub(crate) fn load(&mut self, now: Tick, found: impl Iterator<Item = (Key, Nonce, Tick)>) {
        for (place, (key, nonce, since)) in (0_i64..).zip(found) {
            let next = Some(now.saturating_add(place * MILLIS_PER_TRY));
            let (error, sent, patient) = (None, None, true);
            self.put(key, Entry { nonce, since, tries: 0, error, sent, next, patient, counted: false });
        }
    }

    /// A first try is under way, which somebody else makes.
    pub(crate) fn begin(&mut self, key: Key, nonce: Nonce, now: Tick) {
        let (error, sent) = (None, Some(false));
        self.put(key, Entry { nonce, since: now, tries: 0, error, sent, next: None, patient: false, counted: false });
    }

    /// The next message to be tried now. Its try is under way from here until it [ended](Self::ended).
    pub(crate) fn take_due(&mut self, now: Tick) -> Option<(Key, Nonce)> {
        if self.next()? > now {
            return None;
        }
        let (_, key) = self.due.pop_first()?;
        let entry = self.entries.get_mut(&key)?;
        (entry.next, entry.counted) = (None, true);
        self.under_way += 1;
        self.paced = self.paced.max(now).saturating_add(MILLIS_PER_TRY);
        Some((key, entry.nonce))
    }

    /// When [`take_due`](Self::take_due) has something; `None` if that depends on more than the time.
    pub(crate) fn next(&self) -> Option<Tick> {
        if self.under_way >= UNDER_WAY_MAX {
            return None;
        }
        let (due, _) = self.due.first()?;
        Some((*due).max(self.paced.saturating_add(-BURST_MILLIS)))
    }

    /// A try ended. `random` spreads the pause by a quarter either way. A message that is unknown here was sent for the
    /// first time, at `since`.
    pub(crate) fn ended(&mut self, key: Key, nonce: Nonce, since: Tick, now: Tick, tried: Tried, random: u8) {
        if self.entries.get(&key).is_some_and(|entry| entry.nonce != nonce && key.1 == Retried::Request) {
            return;
        }
        let before = self.remove(key).filter(|entry| entry.nonce == nonce);
        let mut entry = before.unwrap_or(Entry {
            nonce,
            since,
            tries: 0,
            error: None,
            sent: Some(false),
            next: None,
            patient: false,
            counted: false,
        });
        entry.counted = false;
        entry.tries = entry.tries.saturating_add(1);
        match tried {
            Tried::Failed(error) => {
                entry.error = Some(error);
                entry.sent.get_or_insert(false);
            }
            Tried::Sent | Tried::Relayed if key.1 == Retried::Answer => return,
            Tried::Relayed => {
                (entry.error, entry.sent) = (None, Some(true));
                self.put(key, entry);
                return;
            }
            Tried::Sent => (entry.error, entry.sent) = (None, Some(true)),
        }
        let pause = self.pause(&entry, now);
        // From 3/4 to nearly 5/4, in steps of 1/512.
        entry.next = Some(now.saturating_add(pause * (384 + i64::from(random)) / 512));
        self.put(key, entry);
    }

    fn pause(&self, entry: &Entry, now: Tick) -> i64 {
        let doubled = PAUSE_MS_MIN << entry.tries.saturating_sub(1).min(16);
        let is_old = now.millis_since(entry.since) >= DAY_MS;
        let mut pause = if is_old { PAUSE_MS_OLD } else { doubled.min(PAUSE_MS_MAX) };
        if entry.sent == Some(true) && entry.error.is_none() {
            pause = pause.max(PAUSE_MS_SENT);
        }
        if entry.patient || entry.tries >= EAGER_TRIES {
            // A round of all entries takes as long as the pace allows. More often than that they would only queue.
            let round = i64::try_from(self.entries.len()).unwrap_or(i64::MAX).saturating_mul(MILLIS_PER_TRY);
            pause = pause.max(round.saturating_mul(5) / 4);
        }
        pause
    }

    /// A try that was due may not be made before `tick`.
    pub(crate) fn later(&mut self, key: Key, nonce: Nonce, tick: Tick) {
        if let Some(mut entry) = self.remove_if(key, nonce) {
            (entry.next, entry.counted) = (Some(tick), false);
            self.put(key, entry);
        }
    }

    /// This message needs no more tries.
    pub(crate) fn over(&mut self, key: Key, nonce: Nonce) {
        drop(self.remove_if(key, nonce));
    }

    fn remove_if(&mut self, key: Key, nonce: Nonce) -> Option<Entry> {
        let is_it = self.entries.get(&key).is_some_and(|entry| entry.nonce == nonce);
        if is_it { self.remove(key) } else { None }
    }

    fn remove(&mut self, key: Key) -> Option<Entry> {
        let entry = self.entries.remove(&key)?;
        if let Some(next) = entry.next {
            self.due.remove(&(next, key));
        }
        if entry.counted {
            self.under_way = self.under_way.saturating_sub(1);
        }
        Some(entry)
    }

    fn put(&mut self, key: Key, entry: Entry) {
        drop(self.remove(key));
        if self.entries.len() >= ENTRIES_MAX
            && let Some((_, last)) = self.due.last().copied()
        {
            drop(self.remove(last));
        }
        if let Some(next) = entry.next {
            self.due.insert((next, key));
        }
        self.entries.insert(key, entry);
    }
}

/// Tries that are under way at a time.
pub(crate) const UNDER_WAY_MAX: usize = 32;
/// How many tries begin in a second when many are due. All that may be owed is then tried once in four minutes.
const PER_SECOND: i64 = 16;
const MILLIS_PER_TRY: i64 = 1000 / PER_SECOND;
const BURST_MILLIS: i64 = 31 * MILLIS_PER_TRY;
/// Both tables that are retried, full, and what was answered or cancelled since and is not yet due.
const ENTRIES_MAX: usize = 16_384;
/// The first pause; each is twice the one before, up to the longest.
const PAUSE_MS_MIN: i64 = 1000;
const PAUSE_MS_MAX: i64 = 5 * 60 * 1000;
/// After a day.
const PAUSE_MS_OLD: i64 = 60 * 60 * 1000;
/// At least, for a request that left: its operator decides in no shorter time, and a connection over which the answer may
/// come stays open for 10 seconds.
const PAUSE_MS_SENT: i64 = 15_000;
/// So many tries come as soon as their own pauses say.
const EAGER_TRIES: u32 = 4;
const DAY_MS: i64 = 24 * 60 * 60 * 1000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::actor::node;

    const HOUR: i64 = 60 * 60 * 1000;

    fn key(peer: u32) -> Key {
        (node(peer), Retried::Answer)
    }

    fn nonce(of: u32) -> Nonce {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&of.to_le_bytes());
        Nonce(bytes)
    }

    fn fail(table: &mut RetryTable, key: Key, nonce: Nonce, at: i64) {
        let failed = Tried::Failed("refused".to_owned());
        table.ended(key, nonce, Tick::new(0), Tick::new(at), failed, 128);
    }

    /// The pauses between the tries of one message, all of which fail, for so long.
    fn pauses(until: i64) -> Vec<i64> {
        let mut table = RetryTable::new();
        fail(&mut table, key(9), nonce(9), 0);
        let (mut at, mut pauses) = (0, Vec::new());
        while let Some(next) = table.next().map(Tick::as_millis).filter(|next| *next <= until) {
            pauses.push(next - at);
            at = next;
            assert_eq!(table.take_due(Tick::new(at - 1)), None, "not before its time");
            assert_eq!(table.take_due(Tick::new(at)), Some((key(9), nonce(9))));
            fail(&mut table, key(9), nonce(9), at);
        }
        pauses
    }

    #[test]
    fn tries_become_seldom_and_seldomer_after_a_day() {
        let pauses = pauses(30 * 24 * HOUR);
        let seconds: Vec<i64> = pauses.iter().map(|pause| pause / 1000).collect();
        assert_eq!(seconds[..10], [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]);
        assert!(pauses.is_sorted(), "{pauses:?}");
        let in_first_day = pauses.iter().take_while(|pause| **pause < HOUR).sum::<i64>();
        assert!((24 * HOUR..25 * HOUR).contains(&in_first_day), "{in_first_day}");
        assert_eq!(*pauses.last().unwrap(), HOUR);
        assert!((290 + 24 * 29..320 + 24 * 30).contains(&pauses.len()), "{}", pauses.len());
    }

    #[test]
    fn chance_spreads_a_pause_by_a_quarter() {
        let first = |random| {
            let mut table = RetryTable::new();
            let failed = Tried::Failed(String::new());
            table.ended(key(9), nonce(9), Tick::new(0), Tick::new(0), failed, random);
            table.next().unwrap().as_millis()
        };
        assert_eq!((first(0), first(128), first(255)), (750, 1000, 1248));
    }

    #[test]
    fn few_tries_are_under_way_and_few_begin_in_a_second_however_many_are_owed() {
        let mut table = RetryTable::new();
        table.load(Tick::new(0), (1..=4096).map(|peer| (key(peer), nonce(peer), Tick::new(0))));
        // Nothing ends: no more than 32 begin.
        let mut began = Vec::new();
        while let Some(next) = table.next() {
            began.extend(table.take_due(next));
        }
        assert_eq!((began.len(), table.next()), (UNDER_WAY_MAX, None));
        for (key, nonce) in began {
            fail(&mut table, key, nonce, 2000);
        }
        // Each try fails at once: in an hour every one is tried often, and never more than the pace allows.
        let mut tries = HashMap::<Key, usize>::new();
        let mut begun = Vec::new();
        while let Some(next) = table.next().filter(|next| next.as_millis() < HOUR) {
            let (key, nonce) = table.take_due(next).unwrap();
            *tries.entry(key).or_default() += 1;
            begun.push(next.as_millis());
            fail(&mut table, key, nonce, next.as_millis());
        }
        assert_eq!(tries.len(), 4096);
        assert!(tries.values().all(|count| (8..=16).contains(count)), "{:?}", tries.values().max());
        let in_a_second = |at: &i64| begun.iter().filter(|other| (*at..at + 1000).contains(*other)).count();
        let most = begun.iter().step_by(97).map(in_a_second).max().unwrap();
        assert!(most <= UNDER_WAY_MAX + 16, "{most}");
    }

    #[test]
    fn a_new_message_is_tried_soon_beside_thousands_that_fail() {
        let mut table = RetryTable::new();
        table.load(Tick::new(0), (1..=4096).map(|peer| (key(peer), nonce(peer), Tick::new(0))));
        let (new, mut waited) = (key(5000), None);
        for second in 0..600 {
            while let Some((key, nonce)) = table.take_due(Tick::new(second * 1000)) {
                if key == new {
                    waited.get_or_insert(second - 300);
                }
                fail(&mut table, key, nonce, second * 1000);
            }
            if second == 300 {
                fail(&mut table, new, nonce(5000), second * 1000);
            }
        }
        assert!(waited.is_some_and(|seconds| seconds < 20), "{waited:?}");
    }

    #[test]
    fn a_request_that_left_waits_longer_and_one_that_a_relay_has_waits_for_ever() {
        let key = (node(9), Retried::Request);
        let next = |tried: Tried| {
            let mut table = RetryTable::new();
            table.begin(key, nonce(1), Tick::new(0));
            assert_eq!(table.next(), None, "it is under way");
            table.ended(key, nonce(1), Tick::new(0), Tick::new(0), tried, 128);
            (table.next().map(Tick::as_millis), table.get(key).unwrap().sent)
        };
        assert_eq!(next(Tried::Failed(String::new())), (Some(1000), Some(false)));
        assert_eq!(next(Tried::Sent), (Some(15_000), Some(true)));
        assert_eq!(next(Tried::Relayed), (None, Some(true)));
    }

    #[test]
    fn a_newer_message_takes_the_place_of_an_older_and_not_the_other_way_round() {
        let key = (node(9), Retried::Request);
        let mut table = RetryTable::new();
        fail(&mut table, key, nonce(1), 0);
        assert!(table.take_due(Tick::new(5000)).is_some());
        table.begin(key, nonce(2), Tick::new(5000));
        fail(&mut table, key, nonce(1), 6000);
        assert_eq!((table.get(key).unwrap().nonce, table.next()), (nonce(2), None));
        fail(&mut table, key, nonce(2), 6000);
        assert_eq!(table.take_due(Tick::new(9000)), Some((key, nonce(2))));
        table.over(key, nonce(1));
        assert_eq!(table.len(), 1);
        table.over(key, nonce(2));
        assert_eq!((table.len(), table.under_way), (0, 0));
    }

    #[test]
    fn the_table_is_bounded() {
        let mut table = RetryTable::new();
        for peer in 1..=u32::try_from(ENTRIES_MAX + 10).unwrap() {
            fail(&mut table, key(peer), nonce(peer), 0);
        }
        assert_eq!((table.len(), table.due.len()), (ENTRIES_MAX, ENTRIES_MAX));
    }

    #[test]
    fn a_pause_becomes_an_hour_when_a_day_has_passed_and_no_sooner() {
        let pause = |at: i64| {
            let mut table = RetryTable::new();
            fail(&mut table, key(9), nonce(9), at);
            table.next().unwrap().as_millis() - at
        };
        assert_eq!((pause(24 * HOUR - 1), pause(24 * HOUR)), (1000, HOUR));
    }

    #[test]
    fn what_failed_four_times_waits_as_long_as_a_round_of_all() {
        let mut table = RetryTable::new();
        table.load(Tick::new(0), (1..=4096).map(|peer| (key(peer), nonce(peer), Tick::new(0))));
        let round = 4096 * MILLIS_PER_TRY;
        let mut pauses = Vec::new();
        for _ in 0..4 {
            fail(&mut table, key(5000), nonce(5000), 0);
            pauses.push(table.get(key(5000)).unwrap().next.unwrap().as_millis());
        }
        assert_eq!(pauses[..3], [1000, 2000, 4000]);
        assert!(pauses[3] >= round, "{pauses:?}");
    }
}
