//! A node without threads: the real tables, the real log on the simulated disk, the real plan of the keeper, and clocks
//! that somebody else turns.
//!
//! What must hold: what is told to wait for the disk leaves when the save that covers it has ended, at a simulated time;
//! a crash leaves of the disk what was synced, and of everything else nothing.
//!
//! More than 450 lines because what a node is to find after a load is judged beside what it published.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::bend::Bend;
use super::chance::Chance;
use super::law::words::{is_contradicted, is_vouched_for};
use crate::machine::effect::{Effect, When};
use crate::machine::input::{Command, Input};
use crate::machine::outcome::{Rules, Step};
use crate::machine::replay::ReplayTable;
use crate::machine::step::step;
use crate::machine::view::Nonce;
use crate::map::mix::Mix;
use crate::peer::{NodeId, PublicKey};
use crate::persist::format::StoreId;
use crate::persist::load::{Loaded, Opening, load};
use crate::persist::log::{Log, Sizes};
use crate::persist::recover::RecoverPolicy;
use crate::store::keeper::plan::{FlushPlan, Next, Situation};
use crate::tables::Tables;
use crate::testing::actor::BEGIN_MS;
use crate::testing::model::PlainView;
use crate::testing::sim_disk::{CrashPoint, Fault, Lie, SimDisk};
use crate::time::{Now, Tick, WallMillis};
use crate::wire::verify::ReplayKey;

/// What a node's registry knows of one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Knows {
    Right,
    /// The attacker has got its own key registered.
    Wrong(PublicKey),
    Nothing,
    Fails,
}

/// A save under way.
#[derive(Debug)]
struct Saving {
    generation: u64,
    worked: bool,
    /// Where a crash during it may happen.
    trail: Vec<CrashPoint>,
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) rules: Rules,
    pub(super) tables: Tables,
    /// The same as `tables`, as plain maps that the same changes were applied to.
    pub(super) plain: PlainView,
    pub(super) generation: u64,
    /// The generation of the version that readers see.
    pub(super) version: u64,
    /// Everything that was promised to survive.
    pub(super) durable: u64,
    urgent: u64,
    /// Counts restarts: what belongs to an earlier life is void.
    pub(super) life: u32,
    pub(super) is_up: bool,
    began_at: i64,
    /// When it began this life, by its wall clock.
    pub(super) began: WallMillis,
    /// How wrong its wall clock is.
    pub(super) offset: i64,
    pub(super) registry: Option<BTreeMap<NodeId, Knows>>,
    /// Which messages of version 1 it has seen in this life.
    pub(super) replay: ReplayTable,
    /// Those that counted for something, and when; kept beside the node, to see that none counts twice.
    pub(super) counted: BTreeMap<ReplayKey, Tick>,
    /// Effects that wait for their generation.
    pub(super) waiting: VecDeque<(u64, Effect)>,
    /// What was published, from the durable generation on.
    published: BTreeMap<u64, PlainView>,
    /// Since which generation each trusted record is as it is.
    pub(super) since: BTreeMap<NodeId, u64>,
    /// The last stamp that was sent to each peer, for as long as the node has cause to remember it.
    pub(super) sent: BTreeMap<NodeId, WallMillis>,
    /// The newest stamp under each key that was ever vouched for, or that an operator began anew from.
    pub(super) newest: BTreeMap<(NodeId, [u8; 32]), WallMillis>,
    /// The times of entries as the file may hold them.
    on_file: BTreeMap<(WallMillis, NodeId), OnFile>,
    disk: SimDisk,
    log: Option<Log>,
    plan: FlushPlan,
    saving: Option<Saving>,
}

/// What the keeper would like to happen next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keeper {
    Idle,
    /// The save that it began ends after so many milliseconds.
    Saving,
    LookAt(Tick),
}

impl Node {
    pub(super) fn new(rules: Rules, offset: i64, registry: Option<BTreeMap<NodeId, Knows>>) -> Self {
        Self {
            id: rules.own_id,
            replay: ReplayTable::new(&rules),
            counted: BTreeMap::new(),
            rules,
            tables: Tables::new(Mix::new(0)),
            plain: PlainView::default(),
            generation: 0,
            version: 0,
            durable: 0,
            urgent: 0,
            life: 0,
            is_up: false,
            began_at: 0,
            began: WallMillis::new(i64::MIN),
            offset,
            registry,
            waiting: VecDeque::new(),
            published: BTreeMap::from([(0, PlainView::default())]),
            since: BTreeMap::new(),
            sent: BTreeMap::new(),
            newest: BTreeMap::new(),
            on_file: BTreeMap::new(),
            disk: SimDisk::new(),
            log: None,
            plan: FlushPlan::default(),
            saving: None,
        }
    }

    pub(super) fn now(&self, time: i64) -> Now {
        Now { wall: WallMillis::new(BEGIN_MS + time + self.offset), tick: Tick::new(time - self.began_at) }
    }

    pub(super) fn nonce(&self, chance: &mut Chance) -> Nonce {
        Nonce(chance.bytes())
    }

    /// Publishes what a step asks for, as the store does. Says what is wrong with how the tables took it.
    pub(super) fn publish(&mut self, step: &Step) -> Result<(), String> {
        let before = self.plain.trusted.clone();
        let (next, touched) = self.tables.apply(&step.changes);
        self.plain.apply(&step.changes);
        if touched.any {
            self.generation += 1;
            self.tables = next;
            if touched.urgent {
                self.urgent = self.generation;
            }
            if touched.trusted {
                self.version = self.generation;
            }
            self.published.insert(self.generation, self.plain.clone());
        }
        if step.effects.iter().any(|effect| matches!(effect.when, When::OnceDurable { .. })) {
            self.urgent = self.generation;
        }
        if touched.trusted != (before != self.plain.trusted) {
            return Err("readers get a new version exactly when trust changed".to_owned());
        }
        for peer in before.keys().chain(self.plain.trusted.keys()) {
            if before.get(peer) != self.plain.trusted.get(peer) {
                self.since.insert(*peer, self.generation);
            }
        }
        if PlainView::of(&self.tables) != self.plain {
            return Err("the tables differ from plain maps that took the same changes".to_owned());
        }
        Ok(())
    }

    /// The keeper looks, and begins a save if one is due.
    pub(super) fn look(&mut self, time: i64, chance: &mut Chance, faulty: bool, bend: Option<Bend>) -> Keeper {
        if self.saving.is_some() || !self.is_up {
            return Keeper::Idle;
        }
        let (newest, urgent, durable) = (self.generation, self.urgent, self.durable);
        let seen =
            Situation { newest, urgent, durable, deferred: false, closed: false, abandon: false, retry_now: false };
        match self.plan.next(self.now(time).tick, seen) {
            Next::Save => {
                self.begin_save(chance, faulty, bend);
                Keeper::Saving
            }
            Next::Sleep(Some(until)) => Keeper::LookAt(until),
            Next::Sleep(None) | Next::Leave => Keeper::Idle,
        }
    }

    fn begin_save(&mut self, chance: &mut Chance, faulty: bool, bend: Option<Bend>) {
        drop(self.disk.take_trail());
        let mut trail = vec![self.disk.crash_point()];
        if faulty && chance.one_in(12) {
            let call = self.disk.calls() + chance.below(4);
            self.disk.set_fault(Some(Fault { call, sticky: false, errno: 5 }));
        }
        let skip = bend == Some(Bend::DurableBeforeSaved) && chance.one_in(2);
        let log = self.log.as_mut().filter(|_| !skip);
        let worked = log.is_none_or(|log| log.save(self.generation, &self.tables).is_ok());
        self.disk.set_fault(None);
        trail.extend(self.disk.take_trail());
        self.saving = Some(Saving { generation: self.generation, worked, trail });
    }

    /// The save ends; says whether it worked.
    pub(super) fn end_save(&mut self, time: i64) -> Option<bool> {
        let Saving { generation, worked, .. } = self.saving.take()?;
        if worked {
            self.durable = generation;
            self.plan.saved();
            self.published = self.published.split_off(&generation);
        } else {
            self.plan.failed(self.now(time).tick);
        }
        Some(worked)
    }

    /// The next effect whose generation is durable.
    pub(super) fn released(&mut self, bend: Option<Bend>) -> Option<Effect> {
        let (generation, _) = self.waiting.front()?;
        let is_due = *generation <= self.durable || bend == Some(Bend::AcceptBeforeDurable);
        if is_due { self.waiting.pop_front().map(|(_, effect)| effect) } else { None }
    }

    /// Says whether it was in the middle of a save.
    pub(super) fn crash(&mut self, chance: &mut Chance) -> bool {
        let saving = self.saving.take();
        let point = match &saving {
            Some(saving) => saving.trail.get(chance.below(saving.trail.len())).cloned(),
            None => None,
        };
        let point = point.unwrap_or_else(|| self.disk.crash_point());
        self.log = None;
        self.disk = after_crash(&point, chance);
        self.is_up = false;
        self.life += 1;
        self.waiting.clear();
        saving.is_some()
    }

    /// Ends in good order, everything saved.
    pub(super) fn shut_down(&mut self, time: i64, bend: Option<Bend>) -> Result<(), String> {
        let stopped = step(&self.rules, &self.tables, self.now(time), Input::Stopping);
        let stopped = stopped.map_err(|rejection| format!("a node may not stop: {rejection}"))?;
        if bend != Some(Bend::ReserveStaysAtTheEnd) {
            self.publish(&stopped)?;
        }
        if let Some(floor) = self.plain.floor.values().find(|floor| floor.reserved != floor.sent) {
            return Err(format!("R-196: stopped in good order, and more is reserved than was sent: {floor:?}"));
        }
        // A save that is under way is waited for.
        if let Some(saving) = self.saving.take()
            && saving.worked
        {
            self.durable = saving.generation;
        }
        if let Some(mut log) = self.log.take() {
            if self.generation > self.durable {
                log.save(self.generation, &self.tables).map_err(|error| format!("the last save: {error}"))?;
                self.durable = self.generation;
            }
            log.close().map_err(|error| format!("at the end: {error}"))?;
        }
        // What is durable by now is not at the mercy of a crash while the next life recovers.
        drop(self.disk.take_trail());
        self.is_up = false;
        self.life += 1;
        self.waiting.clear();
        Ok(())
    }

    /// Starts on what the disk holds, and compares it with what was published. With `faulty`, crashes may come while it
    /// recovers from the first; returns how many did.
    pub(super) fn start(
        &mut self,
        time: i64,
        chance: &mut Chance,
        faulty: bool,
        bend: Option<Bend>,
    ) -> Result<u32, String> {
        self.began_at = time;
        // A replay table is not saved: what it protects from lasts five and a half minutes.
        self.replay = ReplayTable::new(&self.rules);
        self.counted.clear();
        let now = self.now(time);
        self.began = now.wall;
        let mut crashes = 0;
        let loaded = loop {
            self.disk.record();
            if bend == Some(Bend::DiskLies) {
                self.disk.set_lie(Some(Lie::DataSync));
            }
            let loaded = open(&self.disk, self.id, now)?;
            if faulty && crashes < 2 && chance.one_in(6) {
                drop(loaded);
                let trail = self.disk.take_trail();
                let point = trail.get(chance.below(trail.len())).cloned();
                let point = point.unwrap_or_else(|| self.disk.crash_point());
                self.disk = after_crash(&point, chance);
                crashes += 1;
                continue;
            }
            break loaded;
        };
        let Loaded { tables, generation, saver, .. } = loaded;
        if generation < self.durable {
            return Err(format!("generation {} was durable, and {generation} came back", self.durable));
        }
        let Some(published) = self.published.get(&generation).cloned() else {
            return Err(format!("generation {generation} came back, which was never published"));
        };
        let mut found = PlainView::of(&tables);
        if bend == Some(Bend::RestartForgetsRevoked) {
            found.revoked.clear();
        }
        let expected = self.as_loaded(&published, &found, now);
        if expected != found {
            let differs = difference(&expected, &found);
            return Err(format!("generation {generation} came back as something else than was published: {differs}"));
        }
        for (peer, last) in &mut self.sent {
            // what was sent after the last save is protected as far as its reserve went.
            *last = (*last).min(found.floor.get(peer).map_or(WallMillis::new(i64::MIN), |floor| floor.reserved));
        }
        self.newest.retain(|(peer, key), newest| {
            let floor = found.floor.get(peer).filter(|floor| floor.key.is_some_and(|it| it.as_bytes() == key));
            *newest = (*newest).min(floor.map_or(*newest, |floor| floor.seen.max(floor.before)));
            floor.is_some()
        });
        self.since = found.trusted.keys().map(|peer| (*peer, generation)).collect();
        (self.tables, self.plain, self.generation, self.version) = (tables, found, generation, generation);
        (self.durable, self.urgent) = (generation, generation);
        self.published = BTreeMap::from([(generation, self.plain.clone())]);
        (self.log, self.plan, self.is_up) = (Some(saver), FlushPlan::default(), true);
        Ok(crashes)
    }
}

impl Node {
    /// Keeps what the law on old messages goes by, after a step that was taken.
    pub(super) fn remember(&mut self, before: &PlainView, input: &Input, now: Now) {
        let latest = now.wall.saturating_add(SKEW_MS);
        match input {
            Input::Message(it) if !it.message.is_version_1() => {
                let (peer, key) = (it.message.sender(), *it.message.key());
                let trusted = self.plain.trusted.get(&peer);
                let believed = trusted != before.trusted.get(&peer)
                    && trusted.is_some_and(|record| record.public_key == Some(key));
                if (is_vouched_for(before, it) && !is_contradicted(before, it)) || believed {
                    let newest = self.newest.entry((peer, *key.as_bytes())).or_insert(it.message.stamp());
                    *newest = (*newest).max(it.message.stamp());
                }
            }
            // an operator begins anew, from what is approved.
            Input::Operator(Command::Approve { peer, .. }) => {
                if let Some(entry) = before.pending.get(peer).filter(|entry| entry.nonce.is_some()) {
                    let newest = self.newest.entry((*peer, *entry.key.as_bytes())).or_insert(entry.stamp);
                    *newest = if *newest > latest { entry.stamp } else { (*newest).max(entry.stamp) };
                }
            }
            Input::Operator(Command::Grant { record, .. }) => {
                self.newest.iter_mut().filter(|((peer, _), _)| *peer == record.node_id).for_each(|(_, newest)| {
                    *newest = if *newest > latest { now.wall.saturating_add(-SKEW_MS) } else { *newest };
                });
            }
            _ => {}
        }
        // of each peer one key has a floor.
        let floors = &self.plain.floor;
        self.newest.retain(|(peer, key), _| {
            floors.get(peer).is_some_and(|floor| floor.key.is_some_and(|it| it.as_bytes() == key))
        });
    }

    /// What a saved state is to look like when it is loaded at this moment. A time from the future counts as now, in
    /// memory alone: the file keeps it, until the entry changes or is written again.
    fn as_loaded(&mut self, saved: &PlainView, found: &PlainView, now: Now) -> PlainView {
        let mut loaded = saved.clone();
        for (peer, it) in &mut loaded.pending {
            let found = found.pending.get(peer).map(|it| it.received_at);
            let on_file = self.on_file.entry((it.stamp, *peer)).or_default();
            (it.received_at, it.received_tick) = anew(it.received_at, on_file, found, now);
        }
        for (peer, it) in &mut loaded.outgoing {
            let found = found.outgoing.get(peer).map(|it| it.sent_at);
            let on_file = self.on_file.entry((WallMillis::new(i64::from(it.nonce.0[0])), *peer)).or_default();
            (it.sent_at, it.sent_tick) = anew(it.sent_at, on_file, found, now);
        }
        for (peer, it) in &mut loaded.outgoing {
            let Some(refusal) = &mut it.refused else { continue };
            let found = found.outgoing.get(peer).and_then(|it| it.refused.as_ref()).map(|it| it.at);
            // Of one entry some keys refuse it, one after the other.
            let which = i64::from(it.nonce.0[0]) + 1000 * (1 + i64::from(refusal.key.as_bytes()[0]));
            let on_file = self.on_file.entry((WallMillis::new(which), *peer)).or_default();
            (refusal.at, refusal.tick) = anew(refusal.at, on_file, found, now);
        }
        for (peer, it) in &mut loaded.owed {
            let found = found.owed.get(peer).map(|it| it.since);
            let on_file = self.on_file.entry((WallMillis::new(-1 - i64::from(it.nonce.0[0])), *peer)).or_default();
            (it.since, it.since_tick) = anew(it.since, on_file, found, now);
        }
        loaded.floor.values_mut().for_each(|it| it.sent = it.reserved);
        loaded
    }
}

/// How far clocks may differ.
const SKEW_MS: i64 = 30_000;

/// The times that the file may hold for one entry: a load changes memory, and only some writes carry that to the file.
type OnFile = BTreeSet<WallMillis>;

/// An entry's time after a load: what was saved or, if that is what was found, one that the file has kept from before.
/// What is found says which of them it may still be, for a later load never finds an older file.
fn anew(saved: WallMillis, on_file: &mut OnFile, found: Option<WallMillis>, now: Now) -> (WallMillis, Tick) {
    on_file.insert(saved);
    let mut ways = on_file.iter().map(|it| (*it).min(now.wall));
    let at = ways.find(|it| found == Some(*it)).unwrap_or_else(|| saved.min(now.wall));
    on_file.retain(|it| (*it).min(now.wall) == at);
    (at, now.tick.saturating_add(-now.wall.millis_since(at)))
}

fn open(disk: &SimDisk, id: NodeId, now: Now) -> Result<Loaded, String> {
    // Journals alone: snapshots are written by a thread, whose pace no seed decides. They have tests of their own.
    let sizes = Sizes { ahead_bytes_min: 0, ahead_bytes_max: 0, journal_bytes_min: u64::MAX, settle_after: None };
    let opening = Opening { create: true, policy: RecoverPolicy::Fail, sizes };
    let store = StoreId { id: [7; 16], seed: u64::from(id.get()) };
    load(Arc::new(disk.clone()), opening, now, || Ok(store)).map_err(|error| format!("does not open: {error}"))
}

/// One of the states that a crash at this point may leave.
fn after_crash(point: &CrashPoint, chance: &mut Chance) -> SimDisk {
    let mut disks = Vec::new();
    point.outcomes(6, chance.next(), &mut |outcome| disks.push(outcome.disk()));
    let chosen = chance.below(disks.len());
    disks.into_iter().nth(chosen).unwrap_or_default()
}

/// The tables in which two states differ, with what each has there.
fn difference(one: &PlainView, other: &PlainView) -> String {
    let tables: Vec<_> = one.named().into_iter().zip(other.named()).collect();
    let differing = tables.iter().filter(|((_, one), (_, other))| one != other);
    differing.map(|((table, one), (_, other))| format!("{table}: {one} is {other}")).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_goes_back_twice_finds_what_the_file_holds_and_nothing_else() {
        let load = |on_file: &mut OnFile, saved: i64, found: i64, now: i64| {
            let now = Now { wall: WallMillis::new(now), ..Now::default() };
            anew(WallMillis::new(saved), on_file, Some(WallMillis::new(found)), now).0.as_millis()
        };
        let mut on_file = OnFile::new();
        assert_eq!(load(&mut on_file, 900, 500, 500), 500);
        // Written anew as 500, or not; and loaded while the clock is further back still.
        assert_eq!(load(&mut on_file, 500, 200, 200), 200);
        let mut other = on_file.clone();
        assert_eq!(load(&mut on_file, 200, 500, 950), 500);
        assert_eq!(load(&mut other, 200, 900, 950), 900);
        // Once it is known what the file holds, nothing else is right, nor is what was never saved.
        assert_eq!(load(&mut on_file, 500, 900, 950), 500);
        assert_eq!(load(&mut other, 900, 700, 950), 900);
    }
}
