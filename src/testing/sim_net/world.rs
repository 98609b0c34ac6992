//! The clock, the nodes and the wires between them, and what happens to each message and each step.
//!
//! More than 450 lines because everything that happens goes through one queue, and each kind of it is a few lines there.
#![forbid(unsafe_code)]
#![allow(clippy::indexing_slicing, reason = "nodes are numbered from 0 and none is ever taken away")]

use core::cell::{OnceCell, RefCell};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::bend::Bend;
use super::chance::Chance;
use super::law::Seen;
use super::node::{Keeper, Knows, Node};
use super::people::{NODES_MAX, pair_of, policy};
use super::wires::{Handing, came_to, said};
use super::{Happened, attacker::Captured};
use crate::config::{Durability, HandshakeConfig, Limits};
use crate::machine::arrival;
use crate::machine::check;
use crate::machine::effect::{Action, Draft, Effect, When};

use crate::machine::input::{Command, Input, Lookup, Path, Received};
use crate::machine::outcome::{Outcome, Rules, Step};
use crate::machine::rejection::Rejection;
use crate::machine::replay::Seen as Heard;
use crate::machine::step::step;
use crate::machine::view::View as _;
use crate::peer::{NodeId, PublicKey};
use crate::testing::actor::node as id;
use crate::wire::message::{Kind, Message};
use crate::wire::verify::verify;

/// Something that will happen at its time. What belongs to a node's life is void if it has ended.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "a handful at a time")]
pub(super) enum Event {
    Deliver {
        to: NodeId,
        bytes: Vec<u8>,
        path: Path,
    },
    /// The registry has answered, or the time for that is over.
    Decide {
        node: usize,
        life: u32,
        received: Received,
    },
    /// The same, about a peer whose record has no key.
    LookedUp {
        node: usize,
        life: u32,
        peer: NodeId,
        lookup: Lookup,
    },
    /// A request that did not leave directly is for a relay.
    MeansToRelay {
        node: usize,
        life: u32,
        handing: Handing,
    },
    /// The relay gets it.
    Relays {
        node: usize,
        life: u32,
        generation: u64,
        handing: Handing,
    },
    SaveEnds {
        node: usize,
        life: u32,
    },
    KeeperLooks {
        node: usize,
        life: u32,
    },
    Starts {
        node: usize,
    },
    Housekeeping {
        node: usize,
        life: u32,
    },
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) chance: Chance,
    pub(super) bend: Option<Bend>,
    /// Milliseconds since the beginning, by the clock that nobody has.
    pub(super) time: i64,
    pub(super) nodes: Vec<Node>,
    queue: BTreeMap<(i64, u64), Event>,
    events: u64,
    /// Pairs of nodes between which the transport authenticates.
    pub(super) tunnels: BTreeSet<(NodeId, NodeId)>,
    /// Operators approve right keys only, callers name right keys only, registries hold right keys only.
    pub(super) honest: bool,
    /// The faults have stopped.
    pub(super) calm: bool,
    /// The next message like this is lost, calm or not.
    pub(super) lose: Option<(NodeId, Kind)>,
    pub(super) captured: Vec<Captured>,
    /// The nonces of all requests that a relay has had.
    pub(super) given: BTreeSet<[u8; 16]>,
    pub(super) happened: Happened,
    /// How often each rule had an occasion to be broken.
    pub(super) laws: BTreeMap<&'static str, u64>,
    pub(super) story: VecDeque<String>,
}

impl World {
    pub(super) fn new(seed: u64, bend: Option<Bend>) -> Self {
        let mut chance = Chance::new(seed);
        let count = 2 + chance.below(NODES_MAX as usize - 1);
        let honest = chance.one_in(2);
        let ids: Vec<NodeId> = (1..).map(id).take(count).collect();
        let mut tunnels = BTreeSet::new();
        for one in &ids {
            for other in ids.iter().filter(|other| one < other) {
                if chance.one_in(5) {
                    tunnels.extend([(*one, *other), (*other, *one)]);
                }
            }
        }
        let mut nodes = Vec::new();
        for own_id in &ids {
            let config = HandshakeConfig {
                durability: if chance.one_in(12) { Durability::Eventually } else { Durability::BeforeAnswer },
                // A month passes slowly where each minute is lived through.
                entry_lifetime: Duration::from_secs(if chance.one_in(3) { 900 } else { 30 * 24 * 3600 }),
                ..HandshakeConfig::default()
            };
            let limits = Limits {
                trusted_max: if chance.one_in(6) { 2 } else { 100 },
                pending_max: if chance.one_in(2) { 4 } else { 256 },
                pending_per_source_max: if chance.one_in(4) { 4 } else { 2 },
                outgoing_max: if chance.one_in(4) { 2 } else { 100 },
                floors_max: if chance.one_in(4) { 3 } else { 100 },
                ..Limits::default()
            };
            let policy = policy(&mut chance, &ids, honest);
            let registry = chance.one_in(2).then(BTreeMap::new);
            let offset = chance.between(-10_000, 10_000);
            nodes.push(Node::new(Rules { own_id: *own_id, config, policy, limits }, offset, registry));
        }
        let (queue, captured, story) = (BTreeMap::new(), Vec::new(), VecDeque::new());
        let (calm, lose, happened, given) = (false, None, Happened::default(), BTreeSet::new());
        let (time, events) = (0, 0);
        let mut world = Self {
            chance,
            bend,
            time,
            nodes,
            queue,
            events,
            tunnels,
            honest,
            calm,
            lose,
            captured,
            given,
            happened,
            laws: BTreeMap::new(),
            story,
        };
        for node in 0..world.nodes.len() {
            for peer in &ids {
                world.registry_learns(node, *peer);
            }
            world.at(0, Event::Starts { node });
        }
        world
    }

    pub(super) fn tell(&mut self, line: String) {
        if self.story.len() >= 30 {
            self.story.pop_front();
        }
        self.story.push_back(format!("{:>10} {line}", self.time));
    }

    pub(super) fn at(&mut self, time: i64, event: Event) {
        self.events += 1;
        self.queue.insert((time.max(self.time), self.events), event);
    }

    /// Lets this much time pass, and everything happen that is due.
    pub(super) fn pass(&mut self, millis: i64) -> Result<(), String> {
        let until = self.time + millis;
        while let Some((&(time, number), _)) = self.queue.first_key_value()
            && time <= until
        {
            self.time = time;
            if let Some(event) = self.queue.remove(&(time, number)) {
                self.happen(event)?;
            }
        }
        self.time = until;
        Ok(())
    }

    fn happen(&mut self, event: Event) -> Result<(), String> {
        let lives = |node: &Node, life| node.is_up && node.life == life;
        match event {
            Event::Deliver { to, bytes, path } => self.deliver(to, &bytes, path),
            Event::Decide { node, life, received } if lives(&self.nodes[node], life) => {
                self.step(node, Input::Message(received), None).map(drop)
            }
            Event::LookedUp { node, life, peer, lookup } if lives(&self.nodes[node], life) => {
                self.step(node, Input::LookedUp { peer, lookup }, None).map(drop)
            }
            Event::MeansToRelay { node, life, handing } if lives(&self.nodes[node], life) => {
                self.means_to_relay(node, handing)
            }
            Event::Relays { node, life, generation, handing } if lives(&self.nodes[node], life) => {
                self.relays(node, generation, handing);
                Ok(())
            }
            Event::SaveEnds { node, life } if lives(&self.nodes[node], life) => {
                let worked = self.nodes[node].end_save(self.time);
                self.happened.note(if worked == Some(false) { "save: failed" } else { "save: worked" });
                self.release(node)?;
                self.keeper_looks(node);
                Ok(())
            }
            Event::KeeperLooks { node, life } if lives(&self.nodes[node], life) => {
                self.keeper_looks(node);
                Ok(())
            }
            Event::Starts { node } => self.start(node),
            Event::Housekeeping { node, life } if lives(&self.nodes[node], life) => {
                self.at(self.time + 300_000, Event::Housekeeping { node, life });
                self.step(node, Input::Housekeeping, None).map(drop)
            }
            _ => Ok(()),
        }
    }

    pub(super) fn start(&mut self, node: usize) -> Result<(), String> {
        if self.nodes[node].is_up {
            return Ok(());
        }
        let crashes = self.nodes[node].start(self.time, &mut self.chance, !self.calm, self.bend)?;
        let (id, life) = (self.nodes[node].id, self.nodes[node].life);
        self.tell(format!("{id} starts, after {crashes} crashes while it recovered"));
        (0..crashes).for_each(|_| self.happened.note("crash: during recovery"));
        self.at(self.time + 300_000, Event::Housekeeping { node, life });
        self.check(node)
    }

    fn keeper_looks(&mut self, node: usize) {
        let it = &mut self.nodes[node];
        let (life, now) = (it.life, it.now(self.time));
        match it.look(self.time, &mut self.chance, !self.calm, self.bend) {
            Keeper::Idle => {}
            Keeper::Saving => {
                let slow = !self.calm && self.chance.one_in(6);
                let lasts = if slow { self.chance.between(1000, 20_000) } else { self.chance.between(1, 80) };
                self.at(self.time + lasts, Event::SaveEnds { node, life });
            }
            Keeper::LookAt(tick) => {
                let wait = tick.millis_since(now.tick).max(1);
                self.at(self.time + wait, Event::KeeperLooks { node, life });
            }
        }
    }

    /// What a node makes of bytes that reach it, up to the look-up.
    fn deliver(&mut self, to: NodeId, bytes: &[u8], path: Path) -> Result<(), String> {
        let Some(node) = self.nodes.iter().position(|it| it.id == to && it.is_up) else {
            self.happened.note("message: nobody there");
            return Ok(());
        };
        let it = &self.nodes[node];
        let now = it.now(self.time);
        let verified = Message::parse(bytes).map_err(Rejection::from).and_then(|message| {
            let decoded = arrival::decode(&it.rules, now, message, path.is_relayed())?;
            if !matches!(self.bend, Some(Bend::OldStampsBelieved | Bend::DowngradeAllowed)) {
                arrival::check_floor(&it.rules, now, it.tables.floor(decoded.sender()), &decoded)?;
                arrival::check_life(&it.rules, now, it.began, &decoded)?;
            }
            Ok(verify(decoded, it.id)?)
        });
        let message = match verified {
            Ok(message) => message,
            Err(rejection) => {
                self.happened.note(format!("rejected: {}", rejection.name()));
                return Ok(());
            }
        };
        let (lookup, takes) = self.look_up(node, message.sender());
        let nonce = self.nodes[node].nonce(&mut self.chance);
        let received = Received { message, path, lookup, nonce, seen: Heard::Never };
        let life = self.nodes[node].life;
        self.at(self.time + takes, Event::Decide { node, life, received });
        Ok(())
    }

    /// What the registry says, and after how long.
    pub(super) fn look_up(&mut self, node: usize, peer: NodeId) -> (Lookup, i64) {
        let Some(registry) = &self.nodes[node].registry else { return (Lookup::NotAsked, 0) };
        let knows = registry.get(&peer).copied().unwrap_or(Knows::Nothing);
        let networks = vec![0, 2];
        let lookup = match knows {
            Knows::Right => Lookup::Found { key: pair_of(peer).public, networks },
            Knows::Wrong(key) => Lookup::Found { key, networks },
            Knows::Nothing => Lookup::Unknown,
            Knows::Fails => Lookup::Failed,
        };
        let slow = !self.calm && self.chance.one_in(5);
        let takes = if slow { self.chance.between(100, 5000) } else { self.chance.between(0, 20) };
        // Nobody waits longer than that.
        if takes > LOOK_UP_MS { (Lookup::Failed, LOOK_UP_MS) } else { (lookup, takes) }
    }

    /// One step of one node, and everything that must hold after it.
    pub(super) fn step(
        &mut self,
        node: usize,
        mut input: Input,
        meant: Option<PublicKey>,
    ) -> Result<Result<Outcome, Rejection>, String> {
        let it = &mut self.nodes[node];
        let tick = it.now(self.time).tick;
        if let Input::Message(received) = &mut input
            && let Some(key) = received.message.replay_key()
        {
            received.seen = it.replay.seen(tick, &key);
        }
        let (now, before) = (it.now(self.time), it.plain.clone());
        let answer = match self.bend {
            Some(bend) => bend.step(&it.rules, &it.plain, now, input.clone()),
            None => {
                let answer = step(&it.rules, &it.tables, now, input.clone());
                if answer != step(&it.rules, &it.plain, now, input.clone()) {
                    return Err("the rules say different things of the same state".to_owned());
                }
                answer
            }
        };
        if let Ok(step) = &answer {
            it.publish(step)?;
            if let Some(noted) = step.noted {
                it.replay.note(tick, noted);
                let last = if noted.authentic { it.counted.insert(noted.key, tick) } else { None };
                if last.is_some_and(|last| tick.millis_since(last) <= COPY_MS) {
                    return Err(format!("a message of version 1 from {} counted twice", noted.sender));
                }
            }
        }
        let line = format!("{} {} -> {}", it.id, said(&input), came_to(&answer));
        let rules = it.rules.clone();
        let of_message = |received: &Received| {
            let (peer, key) = (received.message.sender(), *received.message.key().as_bytes());
            it.newest.get(&(peer, key)).copied()
        };
        let newest = if let Input::Message(received) = &input { of_message(received) } else { None };
        let after = &it.plain;
        let given = &self.given;
        let seen = Seen {
            rules: &rules,
            now,
            before: &before,
            input: &input,
            meant,
            answer: &answer,
            after,
            newest,
            given,
            began: it.began,
            applied: RefCell::default(),
            ruled: OnceCell::new(),
        };
        let judged = seen.judge();
        seen.applied.take().into_iter().for_each(|rule| *self.laws.entry(rule).or_default() += 1);
        if answer.is_ok() {
            it.remember(&before, &input, now);
        }
        self.tell(line);
        judged?;
        self.check(node)?;
        self.note(&input, &answer);
        if let Ok(step) = answer {
            let outcome = step.outcome;
            self.perform(node, step, &input)?;
            self.release(node)?;
            self.keeper_looks(node);
            return Ok(Ok(outcome));
        }
        Ok(answer.map(|step| step.outcome))
    }

    fn check(&self, node: usize) -> Result<(), String> {
        let it = &self.nodes[node];
        check::check(&it.rules, &it.tables).map_err(|broken| broken.to_string())?;
        for peer in it.plain.trusted.keys().chain(it.plain.revoked.keys()) {
            check::check_peer(&it.rules, &it.tables, *peer).map_err(|broken| broken.to_string())?;
        }
        let truth = |(peer, record): (&NodeId, &crate::peer::TrustRecord)| {
            record.public_key.is_none_or(|key| key == pair_of(*peer).public)
        };
        if self.honest && !it.plain.trusted.iter().all(truth) {
            return Err("nobody was careless, and yet a wrong key is trusted".to_owned());
        }
        Ok(())
    }

    /// Does what a step asks for at once, and lets the rest wait for the disk.
    fn perform(&mut self, node: usize, step: Step, input: &Input) -> Result<(), String> {
        for effect in step.effects {
            if let Action::Send(draft) | Action::SendVersion1(draft) = &effect.action {
                self.stamp(node, draft, step.clamped)?;
            }
            match effect.when {
                When::Now => self.act(node, effect)?,
                When::OnceDurable { .. } => {
                    let generation = self.nodes[node].generation;
                    self.nodes[node].waiting.push_back((generation, effect));
                }
            }
        }
        if let Input::Operator(Command::Revoke { .. }) = input {
            self.happened.note("revoked by an operator");
        }
        // A stranger's floor may have been forgotten, and with it what was sent.
        let it = &mut self.nodes[node];
        let floors = &it.plain.floor;
        it.sent.retain(|peer, _| floors.contains_key(peer));
        Ok(())
    }

    /// No stamp is sent twice to the same peer, nor one that is older.
    fn stamp(&mut self, node: usize, draft: &Draft, clamped: bool) -> Result<(), String> {
        let last = self.nodes[node].sent.insert(draft.to, draft.stamp);
        if last.is_some_and(|last| draft.stamp <= last) && !clamped {
            return Err(format!("a stamp was used twice for {}", draft.to));
        }
        Ok(())
    }

    /// What has become durable may go out.
    pub(super) fn release(&mut self, node: usize) -> Result<(), String> {
        while let Some(effect) = self.nodes[node].released(self.bend) {
            self.act(node, effect)?;
        }
        Ok(())
    }

    fn act(&mut self, node: usize, effect: Effect) -> Result<(), String> {
        let it = &self.nodes[node];
        if let When::OnceDurable { still } = effect.when {
            let stands = it.plain.trusted.get(&still.node_id) == Some(&still);
            if !stands && self.bend != Some(Bend::AcceptThoughTakenBack) {
                self.happened.note("news of a grant: taken back before it left");
                return Ok(());
            }
            let since = it.since.get(&still.node_id).copied().unwrap_or(u64::MAX);
            if !stands || since > it.durable {
                return Err(format!("{} tells {} of a grant that might not survive", it.id, still.node_id));
            }
            self.happened.note("news of a grant: left once durable");
        }
        let (from, life) = (it.id, it.life);
        match effect.action {
            Action::Send(draft) if !self.calm && draft.kind != Kind::Request && self.chance.one_in(5) => {
                self.tell(format!("{from} cannot send {:?} to {}", draft.kind, draft.to));
                self.step(node, Input::Undelivered { draft }, None).map(drop)?;
            }
            Action::Send(draft) => {
                self.tell(format!("{from} sends {} {:?} stamped {:?}", draft.to, draft.kind, draft.stamp));
                self.send(from, draft.to, &pair_of(from).sign(from, &draft), draft.kind);
                let (peer, kind, stamp) = (draft.to, draft.kind, draft.stamp);
                if self.nodes[node].plain.owed.contains_key(&peer) {
                    self.step(node, Input::Delivered { peer, kind, stamp }, None).map(drop)?;
                }
            }
            // over a tunnel, or not at all.
            Action::SendVersion1(draft) if self.tunnels.contains(&(from, draft.to)) => {
                self.happened.note("answered in version 1");
                self.send(from, draft.to, &pair_of(from).sign_v1(from, &draft), draft.kind);
            }
            Action::LookUp { peer } => {
                let (lookup, takes) = self.look_up(node, peer);
                if lookup != Lookup::NotAsked {
                    self.at(self.time + takes, Event::LookedUp { node, life, peer, lookup });
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// How long a look-up may take.
const LOOK_UP_MS: i64 = 2000;
/// For so long a copy of a message of version 1 could pass for new: five minutes, and half of one of skew.
const COPY_MS: i64 = 330_000;
