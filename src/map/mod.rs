//! The immutable map of trusted records, version by version.
//!
//! Laws, checked against `BTreeMap` in `tests` below: a version never changes once made, whatever is derived from it;
//! `apply` sees the version it is called on and nothing newer; iteration and `diff` are functions of the contents;
//! `diff` takes time in proportion to what changed. History is linear: only the store's writer derives versions, each
//! from the newest. Deriving from an older one is right too, but copies the whole map into a history of its own.
//!
//! How it is made: `word` and `node` are the layout, `probe` is the look-up, `change` and `pack` derive the next version,
//! `history` knows which versions are live and frees what they no longer reach, `pool` and `memory` are what it lies in,
//! `latest` gathers the changes of a long journal, `walk` goes through one version or two. `docs/design.md` says why.
//! `trie` is the safe map of the small tables, and this one's model.

mod change;
pub(crate) mod held;
mod history;
mod latest;
mod memory;
pub(crate) mod mix;
mod node;
mod pack;
mod pool;
mod probe;
mod slots;
pub(crate) mod trie;
mod value;
mod version;
mod walk;
mod word;

#[cfg(all(test, not(trustkeep_loom)))]
mod tests;

use crate::peer::{NodeId, TrustRecord};
pub(crate) use change::Change;
use change::{Becomes, Bounds, Set};
use core::convert::Infallible;
#[cfg(any(test, feature = "__testing"))]
pub(crate) use history::Usage;
pub(crate) use latest::Latest;
use mix::Mix;
pub(crate) use pack::Filling;
pub(crate) use value::Value;
use version::Version;

/// One version of the set of trusted records.
#[derive(Clone, Debug)]
pub(crate) struct TrustMap {
    version: Version,
    mix: Mix,
}

impl TrustMap {
    pub(crate) fn new(mix: Mix) -> Self {
        Self::from_sorted(mix, core::iter::empty())
    }

    /// The map of these records, which come in ascending order of place without repeats.
    pub(crate) fn from_sorted(mix: Mix, records: impl Iterator<Item = TrustRecord>) -> Self {
        Self::with_bounds(Bounds::FAST, mix, records)
    }

    fn with_bounds(bounds: Bounds, mix: Mix, records: impl Iterator<Item = TrustRecord>) -> Self {
        let expected = records.size_hint().0;
        let put_all = |into: &mut Filling<'_>| -> Result<(), Infallible> {
            records.for_each(|record| into.push(mix.mix(record.node_id.get()), Value::of(&record)));
            Ok(())
        };
        let Ok(map) = Self::filled(bounds, mix, expected, put_all);
        map
    }

    /// The map of what `put_all` puts in, about `expected` records; its error if it has one.
    pub(crate) fn fill<E>(
        mix: Mix,
        expected: usize,
        put_all: impl FnOnce(&mut Filling<'_>) -> Result<(), E>,
    ) -> Result<Self, E> {
        Self::filled(Bounds::FAST, mix, expected, put_all)
    }

    fn filled<E>(
        bounds: Bounds,
        mix: Mix,
        expected: usize,
        put_all: impl FnOnce(&mut Filling<'_>) -> Result<(), E>,
    ) -> Result<Self, E> {
        Ok(Self { version: Version::first(bounds, expected, put_all)?, mix })
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.version.len()
    }

    /// The bijection that orders this map.
    #[inline]
    pub(crate) fn mix(&self) -> Mix {
        self.mix
    }

    #[inline(always)]
    pub(crate) fn contains(&self, peer: NodeId) -> bool {
        self.version.contains(self.mix.mix(peer.get()))
    }

    /// Answers for each peer, for as many as there are of both.
    #[inline]
    pub(crate) fn contains_each(&self, peers: &[NodeId], answers: &mut [bool]) {
        for (peers, answers) in peers.chunks(AT_ONCE).zip(answers.chunks_mut(AT_ONCE)) {
            let mut places = [0; AT_ONCE];
            for (place, peer) in places.iter_mut().zip(peers) {
                *place = self.mix.mix(peer.get());
            }
            let asked = answers.len().min(peers.len());
            self.version.contains_each(&places, answers.get_mut(..asked).unwrap_or_default());
        }
    }

    #[inline]
    pub(crate) fn get(&self, peer: NodeId) -> Option<TrustRecord> {
        self.version.get(self.mix.mix(peer.get())).map(|value| value.record(peer))
    }

    /// Where a peer's record lies in the order of the map, whether there is one or not. No two peers have the same place.
    #[inline]
    pub(crate) fn place(&self, peer: NodeId) -> u32 {
        self.mix.mix(peer.get())
    }

    /// A peer's record as it lies in the map.
    #[inline]
    pub(crate) fn value(&self, peer: NodeId) -> Option<&Value> {
        self.version.get(self.mix.mix(peer.get()))
    }

    /// Has what it takes to look a record up or change it fetched, without waiting for it.
    pub(crate) fn fetch(&self, peer: NodeId) {
        self.version.fetch(self.mix.mix(peer.get()));
    }

    /// The next version, as by [`TrustMap::changed`].
    #[cfg(any(test, feature = "__testing"))]
    pub(crate) fn apply(&self, changes: impl IntoIterator<Item = (NodeId, Option<TrustRecord>)>) -> Self {
        let change = |(peer, record): (NodeId, Option<TrustRecord>)| self.change(peer, record.as_ref());
        self.changed(&mut changes.into_iter().map(change).collect())
    }

    /// What is to become of a peer's record, for [`TrustMap::changed`].
    pub(crate) fn change(&self, peer: NodeId, record: Option<&TrustRecord>) -> Change {
        Change { place: self.mix.mix(peer.get()), becomes: record.map(Value::of).into() }
    }

    /// The next version. A peer occurs at most once among the changes; they are left in order of place.
    ///
    /// # Panics
    /// Never; without memory for it the process is aborted, as by the collections of the standard library.
    pub(crate) fn changed(&self, changes: &mut Vec<Change>) -> Self {
        if changes.is_empty() {
            return self.clone();
        }
        if changes.len() > 1 {
            let ordered = latest::in_order(changes);
            debug_assert_eq!(ordered.len(), changes.len(), "a peer occurs twice in one change");
            *changes = ordered;
        }
        Self { version: self.version.change(changes), mix: self.mix }
    }

    /// The next version, in which one peer has this record, and whether it had one; none if it has just this one.
    ///
    /// The same as by [`TrustMap::changed`], and faster: what can be done meanwhile is not kept waiting for the record's memory.
    pub(crate) fn with(&self, record: &TrustRecord) -> Option<(Self, bool)> {
        match self.version.set(self.place(record.node_id), &Value::of(record)) {
            Set::Done { becomes, was_there } => Some((Self { version: becomes, mix: self.mix }, was_there)),
            Set::Same | Set::Full => None,
        }
    }

    /// What these changes make of this map; `granted` is told the place of each peer that gets a record.
    ///
    /// If they are many, in a history of its own, for which everything is copied once, in order: nearly every leaf has
    /// changes then, and would be copied as well.
    pub(crate) fn patched(&self, latest: Latest, mut granted: impl FnMut(u32)) -> Self {
        let changes = latest.in_order();
        let (len, is_many) = (changes.len(), changes.len() > self.len() / MANY);
        let changes = changes.changes().inspect(|change| {
            if matches!(change.becomes, Becomes::Value(_)) {
                granted(change.place);
            }
        });
        let version = match len {
            0 => return self.clone(),
            _ if is_many => self.version.branch(self.len().max(len), changes),
            _ => self.version.change(&changes.collect::<Vec<_>>()),
        };
        Self { version, mix: self.mix }
    }

    /// All records in ascending order of place.
    pub(crate) fn iter(&self) -> impl Iterator<Item = TrustRecord> {
        self.version.all().filter_map(|(place, value)| self.record(place, Some(value)))
    }

    /// All records by their peers, as they lie in the map, in ascending order of place.
    pub(crate) fn values(&self) -> impl Iterator<Item = (NodeId, &Value)> {
        self.version.all().filter_map(|(place, value)| Some((NodeId::new(self.mix.unmix(place))?, value)))
    }

    /// All peers and their places, which ascend.
    pub(crate) fn peers(&self) -> impl Iterator<Item = (u32, NodeId)> {
        self.version.all().filter_map(|(place, _)| Some((place, NodeId::new(self.mix.unmix(place))?)))
    }

    /// Calls `found(old, new)` for every peer whose record differs.
    pub(crate) fn diff(&self, older: &Self, found: &mut dyn FnMut(Option<TrustRecord>, Option<TrustRecord>)) {
        self.diff_values(older, &mut |id, old, new| {
            let record = |value: Option<&Value>| Some(value?.record(NodeId::new(id)?));
            found(record(old), record(new));
        });
    }

    /// The same with ids, and with values where they lie.
    pub(crate) fn diff_values<'a>(
        &'a self,
        older: &'a Self,
        found: &mut dyn FnMut(u32, Option<&'a Value>, Option<&'a Value>),
    ) {
        debug_assert_eq!(self.mix, older.mix, "maps of different stores");
        self.version.diff(&older.version, &mut |place, old, new| found(self.mix.unmix(place), old, new));
    }

    /// Gives back the memory of versions that nobody holds any more. Deriving does so too, a little each time.
    pub(crate) fn sweep(&self) {
        self.version.sweep();
    }

    /// Whether memory should be made ready for the next changes.
    pub(crate) fn is_short(&self) -> bool {
        self.version.is_short()
    }

    /// Takes memory from the system, if the next changes may need some, so that they find it there.
    pub(crate) fn make_ready(&self) {
        self.version.make_ready();
    }

    /// Gives memory that was not needed since the last trim to the system; true if there may be more next time.
    pub(crate) fn trim(&self) -> bool {
        self.version.trim()
    }

    /// If its memory is used sparsely, since more than `worth` bytes were given back here and there: places to call [`TrustMap::moved`] with,
    /// some at a time, in this order, and then [`TrustMap::end_move`].
    pub(crate) fn begin_move(&self, worth: usize) -> Option<Vec<u32>> {
        self.version.begin_move(worth)
    }

    /// The next version, which has the same records and lies closer together; none if this is not the newest.
    pub(crate) fn moved(&self, places: &[u32]) -> Option<Self> {
        self.version.moved(places).map(|version| Self { version, mix: self.mix })
    }

    /// Ends what [`TrustMap::begin_move`] began.
    pub(crate) fn end_move(&self) {
        self.version.end_move();
    }

    /// What the memory of this map and the versions related to it is used for.
    #[cfg(any(test, feature = "__testing"))]
    pub(crate) fn usage(&self) -> Usage {
        self.version.usage()
    }

    /// No record has the id 0, so this gives one wherever there is a value.
    fn record(&self, place: u32, value: Option<&Value>) -> Option<TrustRecord> {
        Some(value?.record(NodeId::new(self.mix.unmix(place))?))
    }
}

/// Changes are many if they are more than this part of the records.
const MANY: usize = 8;
/// How many look-ups are under way at the same time when many are asked for: about as many as a core can wait for.
const AT_ONCE: usize = 16;
