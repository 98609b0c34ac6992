//! Maps from an id to the terms of a record, and how a thread reads them.
//!
//! What must hold: each hashes with foldhash's fast hasher; each holds the same records; and each is asked the same way, in
//! code that the compiler sees through.
#![allow(clippy::disallowed_types, reason = "peers are locks and cells of others")]

use arc_swap::{ArcSwap, Cache};
use core::borrow::Borrow;
use foldhash::fast::RandomState;
use std::sync::Arc;
use trustkeep::{NodeId, TrustReader, TrustStore};

use crate::workload::{Terms, records};

/// What is measured of a map by a reading thread.
pub trait Reader {
    /// Whether the peer is there.
    fn contains(&mut self, peer: NodeId) -> bool;
}

/// A map that threads read.
pub trait Map: Sync {
    /// What it is called in tables.
    const NAME: &'static str;

    /// With the records of this size.
    fn filled(size: u32) -> Self;

    /// What a thread reads with.
    fn reader(&self) -> impl Reader;
}

/// A map that a thread may write beside those that read.
pub trait Writable: Map {
    /// Makes one record visible to every reader that asks from now on.
    fn put(&self, peer: NodeId, terms: Terms);
}

/// Bare `hashbrown`, which every map that hashes is built on or compares itself with.
pub type Bare = hashbrown::HashMap<NodeId, Terms, RandomState>;
/// The same behind a lock of `parking_lot`.
pub type ParkingLot = parking_lot::RwLock<Bare>;
/// The same behind a lock of the standard library.
pub type StdLock = std::sync::RwLock<Bare>;
/// The sharded map of `dashmap`.
pub type Dash = dashmap::DashMap<NodeId, Terms, RandomState>;
/// The lock-free map of `papaya`.
pub type Papaya = papaya::HashMap<NodeId, Terms, RandomState>;
/// The map of `scc`, with a lock for each bucket.
pub type Scc = scc::HashMap<NodeId, Terms, RandomState>;
/// The persistent hash map of `imbl`.
pub type ImblHash = imbl::GenericHashMap<NodeId, Terms, RandomState, imbl::shared_ptr::DefaultSharedPtr>;
/// The persistent B-tree of `imbl`.
pub type ImblOrd = imbl::OrdMap<NodeId, Terms>;
/// The persistent hash map of `rpds`, to be shared among threads.
pub type Rpds = rpds::HashTrieMapSync<NodeId, Terms, RandomState>;

/// Ids and terms of a size.
pub fn entries(size: u32) -> impl Iterator<Item = (NodeId, Terms)> {
    records(size, crate::key()).map(|record| (record.node_id, Terms::of(&record)))
}

/// Anything that answers without being changed.
#[derive(Debug)]
pub struct Asking<F>(pub F);

impl<F: FnMut(NodeId) -> bool> Reader for Asking<F> {
    #[inline]
    fn contains(&mut self, peer: NodeId) -> bool {
        (self.0)(peer)
    }
}

impl Reader for TrustReader {
    #[inline]
    fn contains(&mut self, peer: NodeId) -> bool {
        self.is_trusted(peer)
    }
}

/// Ours, through a handle for each thread.
#[derive(Debug)]
pub struct Handle(pub TrustStore);

impl Map for Handle {
    const NAME: &'static str = "trustkeep, handle";

    fn filled(size: u32) -> Self {
        let store = TrustStore::in_memory();
        crate::workload::fill(&store, size);
        Self(store)
    }

    fn reader(&self) -> impl Reader {
        self.0.reader()
    }
}

/// Ours, through the store itself.
#[derive(Debug)]
pub struct Shared<'a>(pub &'a TrustStore);

impl Shared<'_> {
    /// What it is called in tables.
    pub const NAME: &'static str = "trustkeep, store";

    /// What a thread reads with.
    pub fn reader(&self) -> impl Reader {
        Asking(|peer| self.0.is_trusted(peer))
    }
}

impl Map for Bare {
    const NAME: &'static str = "hashbrown, no lock";

    fn filled(size: u32) -> Self {
        entries(size).collect()
    }

    fn reader(&self) -> impl Reader {
        Asking(|peer| self.contains_key(&peer))
    }
}

impl Map for ParkingLot {
    const NAME: &'static str = "parking_lot RwLock";

    fn filled(size: u32) -> Self {
        Self::new(Bare::filled(size))
    }

    fn reader(&self) -> impl Reader {
        Asking(|peer| self.read().contains_key(&peer))
    }
}

impl Writable for ParkingLot {
    fn put(&self, peer: NodeId, terms: Terms) {
        self.write().insert(peer, terms);
    }
}

impl Map for StdLock {
    const NAME: &'static str = "std RwLock";

    fn filled(size: u32) -> Self {
        Self::new(Bare::filled(size))
    }

    fn reader(&self) -> impl Reader {
        Asking(|peer| self.read().is_ok_and(|map| map.contains_key(&peer)))
    }
}

impl Writable for StdLock {
    fn put(&self, peer: NodeId, terms: Terms) {
        if let Ok(mut map) = self.write() {
            map.insert(peer, terms);
        }
    }
}

impl Map for Dash {
    const NAME: &'static str = "dashmap";

    fn filled(size: u32) -> Self {
        entries(size).collect()
    }

    fn reader(&self) -> impl Reader {
        Asking(|peer| self.contains_key(&peer))
    }
}

impl Writable for Dash {
    fn put(&self, peer: NodeId, terms: Terms) {
        self.insert(peer, terms);
    }
}

impl Map for Papaya {
    const NAME: &'static str = "papaya";

    fn filled(size: u32) -> Self {
        entries(size).collect()
    }

    fn reader(&self) -> impl Reader {
        // Pinned for one question: a reader that stays pinned holds memory back.
        Asking(|peer| self.pin().contains_key(&peer))
    }
}

impl Writable for Papaya {
    fn put(&self, peer: NodeId, terms: Terms) {
        self.pin().insert(peer, terms);
    }
}

impl Map for Scc {
    const NAME: &'static str = "scc";

    fn filled(size: u32) -> Self {
        let map = Self::with_capacity_and_hasher(size as usize, RandomState::default());
        for (peer, terms) in entries(size) {
            let _ = map.insert_sync(peer, terms);
        }
        map
    }

    fn reader(&self) -> impl Reader {
        Asking(|peer| self.contains_sync(&peer))
    }
}

impl Writable for Scc {
    fn put(&self, peer: NodeId, terms: Terms) {
        self.upsert_sync(peer, terms);
    }
}

/// A persistent map behind an atomic pointer, which one writer replaces.
#[derive(Debug)]
pub struct Swapped<M> {
    cell: Arc<ArcSwap<M>>,
    newest: parking_lot::Mutex<M>,
}

/// A map whose clones share what they have in common.
pub trait Persistent: Clone + Send + Sync {
    /// What it is called in tables.
    const NAME: &'static str;
    /// With these records.
    fn of(entries: impl Iterator<Item = (NodeId, Terms)>) -> Self;
    /// Whether the peer is there.
    fn has(&self, peer: NodeId) -> bool;
    /// Sets one record.
    fn set(&mut self, peer: NodeId, terms: Terms);
}

impl Persistent for ImblHash {
    const NAME: &'static str = "ArcSwap<imbl::HashMap>";
    fn of(entries: impl Iterator<Item = (NodeId, Terms)>) -> Self {
        entries.collect()
    }
    fn has(&self, peer: NodeId) -> bool {
        self.contains_key(&peer)
    }
    fn set(&mut self, peer: NodeId, terms: Terms) {
        self.insert(peer, terms);
    }
}

impl Persistent for ImblOrd {
    const NAME: &'static str = "ArcSwap<imbl::OrdMap>";
    fn of(entries: impl Iterator<Item = (NodeId, Terms)>) -> Self {
        entries.collect()
    }
    fn has(&self, peer: NodeId) -> bool {
        self.contains_key(&peer)
    }
    fn set(&mut self, peer: NodeId, terms: Terms) {
        self.insert(peer, terms);
    }
}

impl Persistent for Rpds {
    const NAME: &'static str = "ArcSwap<rpds::HashTrieMapSync>";
    fn of(entries: impl Iterator<Item = (NodeId, Terms)>) -> Self {
        let mut map = Self::new_with_hasher_and_ptr_kind(RandomState::default());
        for (peer, terms) in entries {
            map.insert_mut(peer, terms);
        }
        map
    }
    fn has(&self, peer: NodeId) -> bool {
        self.contains_key(&peer)
    }
    fn set(&mut self, peer: NodeId, terms: Terms) {
        self.insert_mut(peer, terms);
    }
}

impl<M: Persistent> Swapped<M> {
    /// The map of this moment.
    #[must_use]
    pub fn load(&self) -> Arc<M> {
        self.cell.load_full()
    }

    /// Sets these records and publishes once.
    pub fn put_all(&self, entries: impl Iterator<Item = (NodeId, Terms)>) {
        let mut newest = self.newest.lock();
        for (peer, terms) in entries {
            newest.set(peer, terms);
        }
        self.cell.store(Arc::new(newest.clone()));
    }
}

impl<M: Persistent> Map for Swapped<M> {
    const NAME: &'static str = M::NAME;

    fn filled(size: u32) -> Self {
        let map = M::of(entries(size));
        Self { cell: Arc::new(ArcSwap::from_pointee(map.clone())), newest: parking_lot::Mutex::new(map) }
    }

    fn reader(&self) -> impl Reader {
        // What arc-swap has for readers that ask again and again.
        let mut cache = Cache::new(Arc::clone(&self.cell));
        Asking(move |peer| {
            let map: &Arc<M> = cache.load();
            let map: &M = map.borrow();
            map.has(peer)
        })
    }
}

impl<M: Persistent> Writable for Swapped<M> {
    fn put(&self, peer: NodeId, terms: Terms) {
        self.put_all(core::iter::once((peer, terms)));
    }
}

/// Two copies of a map, of which one is read while the other is written.
pub struct LeftRight {
    read: parking_lot::Mutex<left_right::ReadHandle<Bare>>,
    write: parking_lot::Mutex<left_right::WriteHandle<Bare, Put>>,
}

impl core::fmt::Debug for LeftRight {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("LeftRight")
    }
}

/// What is done to both copies.
#[derive(Clone, Copy, Debug)]
pub struct Put(NodeId, Terms);

impl left_right::Absorb<Put> for Bare {
    fn absorb_first(&mut self, put: &mut Put, _: &Self) {
        self.insert(put.0, put.1);
    }

    fn sync_with(&mut self, first: &Self) {
        self.clone_from(first);
    }
}

impl Map for LeftRight {
    const NAME: &'static str = "left-right";

    fn filled(size: u32) -> Self {
        let (write, read) = left_right::new_from_empty::<Bare, Put>(Bare::filled(size));
        Self { read: parking_lot::Mutex::new(read), write: parking_lot::Mutex::new(write) }
    }

    fn reader(&self) -> impl Reader {
        let handle = self.read.lock().clone();
        Asking(move |peer| handle.enter().is_some_and(|map| map.contains_key(&peer)))
    }
}

impl Writable for LeftRight {
    fn put(&self, peer: NodeId, terms: Terms) {
        let mut write = self.write.lock();
        write.append(Put(peer, terms));
        write.publish();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::{id, record};

    fn holds_what_it_should<M: Map>() {
        let map = M::filled(1000);
        let mut reader = map.reader();
        assert!((0..1000).all(|number| reader.contains(id(number))), "{}", M::NAME);
        assert!((1000..3000).all(|number| !reader.contains(id(number))), "{}", M::NAME);
    }

    fn shows_what_is_put<M: Writable>() {
        let map = M::filled(10);
        let mut reader = map.reader();
        for number in 10..300 {
            assert!(!reader.contains(id(number)), "{}", M::NAME);
            map.put(id(number), Terms::of(&record(number, crate::key(), 2)));
            assert!(reader.contains(id(number)), "{}", M::NAME);
        }
    }

    #[test]
    fn every_peer_holds_the_same_records() {
        holds_what_it_should::<Handle>();
        holds_what_it_should::<Bare>();
        holds_what_it_should::<ParkingLot>();
        holds_what_it_should::<StdLock>();
        holds_what_it_should::<Dash>();
        holds_what_it_should::<Papaya>();
        holds_what_it_should::<Scc>();
        holds_what_it_should::<Swapped<ImblHash>>();
        holds_what_it_should::<Swapped<ImblOrd>>();
        holds_what_it_should::<Swapped<Rpds>>();
        holds_what_it_should::<LeftRight>();
        let Handle(store) = Handle::filled(5);
        let shared = Shared(&store);
        assert!(shared.reader().contains(id(4)) && !shared.reader().contains(id(5)));
    }

    #[test]
    fn every_peer_shows_its_readers_what_is_put() {
        shows_what_is_put::<ParkingLot>();
        shows_what_is_put::<StdLock>();
        shows_what_is_put::<Dash>();
        shows_what_is_put::<Papaya>();
        shows_what_is_put::<Scc>();
        shows_what_is_put::<Swapped<ImblHash>>();
        shows_what_is_put::<Swapped<ImblOrd>>();
        shows_what_is_put::<Swapped<Rpds>>();
        shows_what_is_put::<LeftRight>();
    }
}
