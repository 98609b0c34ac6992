//! Random lives of one node among strangers, friends and forgers.
//!
//! After every step: nothing panics, the invariants hold (the actor checks them), the same input would have given the
//! same answer, and what the rules promise about trust holds whatever has happened before.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::actor::{Actor, Way, at, node};
use crate::machine::arrival;
use crate::machine::effect::{Action, When};
use crate::machine::event::Event;
use crate::machine::input::{Command, Input, Lookup, Received};
use crate::machine::outcome::Step;
use crate::machine::replay::Seen;
use crate::machine::step::step;
use crate::machine::view::{Nonce, TableChange, View as _};
use crate::peer::{NodeId, PublicKey};
use crate::time::{Now, WallMillis};
use crate::wire::message::{Kind, Message};
use crate::wire::sign::Draft;
use crate::wire::verify::verify;

#[derive(Clone, Debug)]
enum Op {
    Ask { peer: u32, expected: Option<u8>, force: bool, automatic: bool },
    Approve { peer: u32, fingerprint: Option<u8> },
    Reject { peer: u32 },
    Cancel { peer: u32 },
    Revoke { peer: u32 },
    Housekeeping,
    Hear { sender: u32, key: u8, kind: Kind, skew: i64, answers: bool, transport: bool, lookup: Option<u8>, host: u8 },
    HearAgain { which: prop::sample::Index },
    Pass { wall: i64, tick: i64 },
}

fn op() -> impl Strategy<Value = Op> {
    // Node 7 is ourselves: it must be refused as a peer.
    let peer = prop_oneof![6 => 1..5u32, 1 => Just(7)];
    let key = 0..2u8;
    let kind = prop_oneof![
        3 => Just(Kind::Request),
        3 => Just(Kind::Accept),
        1 => Just(Kind::Reject),
        1 => Just(Kind::Revoke)
    ];
    let skew = prop_oneof![6 => -1000..1000i64, 1 => Just(-300_001), 1 => Just(30_000), 1 => Just(30_001)];
    let wall = prop_oneof![8 => 0..70_000i64, 1 => -100_000..0i64, 1 => Just(1 << 40), 1 => Just(-(1 << 40))];
    let tick = prop_oneof![8 => 0..70_000i64, 1 => Just(31 * 24 * 3_600_000)];
    let maybe = || prop::option::of(0..2u8);
    prop_oneof![
        3 => (peer.clone(), maybe(), any::<bool>(), any::<bool>())
            .prop_map(|(peer, expected, force, automatic)| Op::Ask { peer, expected, force, automatic }),
        2 => (peer.clone(), maybe()).prop_map(|(peer, fingerprint)| Op::Approve { peer, fingerprint }),
        1 => peer.clone().prop_map(|peer| Op::Reject { peer }),
        1 => peer.clone().prop_map(|peer| Op::Cancel { peer }),
        1 => peer.clone().prop_map(|peer| Op::Revoke { peer }),
        1 => Just(Op::Housekeeping),
        9 => (peer, key, kind, skew, any::<bool>(), prop::bool::weighted(0.2), maybe(), 0..2u8).prop_map(
            |(sender, key, kind, skew, answers, transport, lookup, host)| {
                Op::Hear { sender, key, kind, skew, answers, transport, lookup, host }
            }
        ),
        2 => any::<prop::sample::Index>().prop_map(|which| Op::HearAgain { which }),
        3 => (wall, tick).prop_map(|(wall, tick)| Op::Pass { wall, tick }),
    ]
}

struct Life {
    us: Actor,
    now: Now,
    heard: Vec<Received>,
    sent: BTreeMap<NodeId, WallMillis>,
}

fn key(which: u8) -> PublicKey {
    Actor::new(1, 0x40 + which).public_key()
}

impl Life {
    fn new() -> Self {
        let mut us = Actor::new(7, 0xAA);
        let limits = &mut us.rules.limits;
        (limits.trusted_max, limits.pending_max, limits.pending_per_source_max) = (3, 3, 2);
        (limits.outgoing_max, limits.floors_max) = (2, 2);
        Self { us, now: at(0), heard: Vec::new(), sent: BTreeMap::new() }
    }

    fn live(&mut self, op: Op) {
        match op {
            Op::Pass { wall, tick } => {
                self.now.wall = self.now.wall.saturating_add(wall);
                self.now.tick = self.now.tick.saturating_add(tick);
            }
            Op::Hear { sender, key, kind, skew, answers, transport, lookup, host } => {
                let mut way = if transport { Way::tunnel(node(sender)) } else { Way::from_host(host) };
                if let Some(known) = lookup {
                    way.lookup = Lookup::Found { key: self::key(known), networks: Vec::new() };
                }
                let answers = answers.then(|| self.us.tables.outgoing(node(sender)).map(|entry| entry.nonce)).flatten();
                let stamp = self.now.wall.saturating_add(skew);
                let (nonce, justification) = (self.us.nonce(), "why\n\u{202e}".to_owned());
                let draft = Draft { to: self.us.id(), kind, justification, reason: "no".into(), nonce, answers, stamp };
                let message = Actor::new(sender, 0x40 + key).sign(&draft);
                let decoded =
                    arrival::decode(&self.us.rules, self.now, Message::parse(&message.to_json()).unwrap(), false);
                if let Ok(decoded) = decoded {
                    let message = verify(decoded, self.us.id()).unwrap();
                    let Way { path, lookup } = way;
                    let received = Received { message, path, lookup, nonce: self.us.nonce(), seen: Seen::Never };
                    self.heard.push(received.clone());
                    self.hear(received);
                }
            }
            Op::HearAgain { which } => {
                if !self.heard.is_empty() {
                    let received = which.get(&self.heard).clone();
                    self.hear(received);
                }
            }
            Op::Housekeeping => drop(self.act(Input::Housekeeping)),
            Op::Ask { peer, expected, force, automatic } => {
                let (expected_key, justification, nonce) = (expected.map(key), "x".repeat(2000), self.us.nonce());
                let peer = node(peer);
                self.operate(Command::Request { peer, justification, expected_key, nonce, force, automatic });
            }
            Op::Approve { peer, fingerprint } => {
                let (fingerprint, nonce) = (fingerprint.map(|which| key(which).fingerprint()), self.us.nonce());
                self.operate(Command::Approve { peer: node(peer), fingerprint, nonce });
            }
            Op::Reject { peer } => {
                let (reason, nonce) = (String::new(), self.us.nonce());
                self.operate(Command::Reject { peer: node(peer), reason, nonce });
            }
            Op::Cancel { peer } => self.operate(Command::Cancel { peer: node(peer) }),
            Op::Revoke { peer } => {
                let nonce = self.us.nonce();
                self.operate(Command::Revoke { peer: node(peer), nonce });
            }
        }
    }

    fn operate(&mut self, command: Command) {
        let _ = self.act(Input::Operator(command));
    }

    fn hear(&mut self, received: Received) {
        let (peer, before) = (received.message.sender(), self.us.tables.clone());
        let is_vouched_for = is_vouched_for(&self.us, &received);
        let clamped = self.act(Input::Message(received));
        let after = &self.us.tables;
        if !is_vouched_for {
            assert_eq!(before.trusted, after.trusted, "trust moved on an unvouched message");
            assert_eq!(before.outgoing, after.outgoing);
            // A floor in the future may be moved back by any message under its key; never forward by an unvouched one.
            assert!(clamped || before.floor == after.floor);
            assert!(
                !clamped || after.floor.get(&peer).map(|floor| floor.seen) < before.floor.get(&peer).map(|f| f.seen)
            );
        }
        assert_eq!(before.revoked, after.revoked, "no message sets or lifts our mark");
        let others = |mut trusted: BTreeMap<_, _>| {
            trusted.remove(&peer);
            trusted
        };
        assert_eq!(others(before.trusted), others(after.trusted.clone()), "another peer's trust moved");
    }

    /// Says whether a floor was moved back.
    fn act(&mut self, input: Input) -> bool {
        let once = step(&self.us.rules, &self.us.tables, self.now, input.clone());
        let before = self.us.tables.trusted.clone();
        let twice = self.us.step(self.now, input);
        assert_eq!(once, twice);
        twice.is_ok_and(|step| {
            self.check(&step, &before);
            step.clamped
        })
    }

    fn check(&mut self, step: &Step, before: &BTreeMap<NodeId, crate::peer::TrustRecord>) {
        let places: BTreeSet<_> = step.changes.iter().map(place).collect();
        assert_eq!(places.len(), step.changes.len(), "a peer twice in one table");
        let after = &self.us.tables.trusted;
        let touched: BTreeSet<_> =
            before.keys().chain(after.keys()).filter(|peer| before.get(peer) != after.get(peer)).collect();
        for peer in touched {
            let told = |event: &Event| matches!(event, Event::TrustChanged { peer: of, .. } if of == peer);
            assert!(step.events.iter().any(told), "trust of {peer} moved untold");
        }
        for effect in &step.effects {
            let tells_of_a_grant = match &effect.action {
                Action::Send(draft) => draft.kind == Kind::Accept,
                Action::ReportGrant { .. } => true,
                _ => false,
            };
            match effect.when {
                When::OnceDurable { still } => assert!(tells_of_a_grant && after.get(&still.node_id) == Some(&still)),
                When::Now => assert!(!tells_of_a_grant),
            }
            if let Action::Send(draft) = &effect.action {
                let last = self.sent.insert(draft.to, draft.stamp);
                // A floor that was moved back, or forgotten with everything else about a stranger, begins anew.
                let begins_anew = step.clamped || self.us.tables.floor.len() >= self.us.rules.limits.floors_max;
                assert!(begins_anew || last.is_none_or(|last| draft.stamp > last), "a stamp was used twice");
            }
        }
    }
}

/// Told apart from the rules: in the words of the protocol, not by the code under test.
fn is_vouched_for(us: &Actor, received: &Received) -> bool {
    let (message, tables) = (&received.message, &us.tables);
    let (peer, key) = (message.sender(), *message.key());
    let by_registry = matches!(&received.lookup, Lookup::Found { key: known, .. } if *known == key);
    let by_record = tables.trusted.get(&peer).is_some_and(|record| record.public_key == Some(key));
    let answers = |nonce: Nonce| matches!(message.kind(), Kind::Request) || message.answers() == Some(nonce);
    let by_caller =
        tables.outgoing.get(&peer).is_some_and(|entry| entry.expected_key == Some(key) && answers(entry.nonce));
    by_registry || by_record || by_caller || received.path.authenticates(peer)
}

fn place(change: &TableChange) -> (u8, NodeId) {
    match change {
        TableChange::Trusted(peer, _) => (0, *peer),
        TableChange::Pending(peer, _) => (1, *peer),
        TableChange::Outgoing(peer, _) => (2, *peer),
        TableChange::Revoked(peer, _) => (3, *peer),
        TableChange::Floor(peer, _) => (4, *peer),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_rules_keep_their_promises(ops in prop::collection::vec(op(), 1..80)) {
        let mut life = Life::new();
        for op in ops {
            life.live(op);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), cut in 0..700usize) {
        let rules = Actor::new(9, 0x11).rules;
        let _ = Message::parse(&bytes);
        let mut peer = Actor::new(7, 0xAA);
        let draft = peer.draft(at(0), node(9), Kind::Request, None);
        let mut damaged = peer.sign(&draft).to_json();
        let cut = cut.min(damaged.len());
        let tail = damaged.split_off(cut);
        damaged.extend_from_slice(&bytes);
        damaged.extend(tail.into_iter().skip(bytes.len()));
        if let Ok(decoded) = Message::parse(&damaged).map_err(drop).and_then(|message| {
            arrival::decode(&rules, at(0), message, false).map_err(drop)
        }) {
            let _ = verify(decoded, node(9));
        }
    }
}
