//! Lives of one node among strangers, friends, forgers and relays: typed operations with small ranges, drawn by the random
//! walk of the tests and by the fuzz target `step_sequence`.
//!
//! After every step: nothing panics, the invariants hold (the actor checks them), the same input would have given the
//! same answer, and what the rules promise about trust holds whatever has happened before. The promises are told in the
//! words of the protocol, not by the code under test.
//!
//! Signatures are no part of it: what is decided here begins where they have been checked, and computing them took nearly
//! all the time. A stand-in for one tells messages apart as a signature does, and is believed.
//!
//! 470 lines because one life knows every command and every way a message comes.
#![forbid(unsafe_code)]
#![allow(clippy::expect_used, reason = "a test double: its own mistakes end the test")]

mod op;

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest as _, Sha256};

pub use op::OpBytes;
use op::{Heard, Op};

use super::actor::{Actor, Way, at, node};
use super::model::PlainView;
use crate::config::{Allowed, OnRotation, Policy};
use crate::machine::arrival;
use crate::machine::effect::{Action, When};
use crate::machine::event::Event;
use crate::machine::input::{Command, Input, Lookup, Path, PeerOrKey, Received};
use crate::machine::outcome::Step;
use crate::machine::replay::{ReplayTable, Seen};
use crate::machine::step::step;
use crate::machine::view::{Nonce, Revocation, RevocationId, TableChange, View as _};
use crate::peer::{NodeId, PublicKey, TrustRecord};
use crate::sync::OnceLock;
use crate::tables::{Outgoing, side_tables};
use crate::time::{Now, WallMillis};
use crate::wire::message::Kind;
use crate::wire::open_key::OpenKey;
use crate::wire::rotation::Rotation;
use crate::wire::sign::{Draft, sign_draft, sign_draft_v1};
use crate::wire::text::Text;
use crate::wire::verify::Verified;

/// A node and what was done to it.
#[derive(Debug)]
pub struct Life {
    us: Actor,
    now: Now,
    heard: Vec<Received>,
    sent: BTreeMap<NodeId, WallMillis>,
}

/// One of the two keys that peers have here.
fn open_key(which: u8) -> &'static OpenKey {
    static KEYS: OnceLock<[OpenKey; 2]> = OnceLock::new();
    let [first, second] = KEYS.get_or_init(|| {
        [0x40, 0x41].map(|seed| OpenKey::new(*Actor::new(1, seed).public_key().as_bytes()).expect("made from a seed"))
    });
    if which == 0 { first } else { second }
}

fn key(which: u8) -> PublicKey {
    *open_key(which).key()
}

/// What stands in the place of a signature: another for other bytes or under another key, the same for the same.
fn stand_in(key: &PublicKey, bytes: &[u8]) -> [u8; 64] {
    let digest = Sha256::new().chain_update(key.as_bytes()).chain_update(bytes).finalize();
    let mut signature = [0; 64];
    for (to, from) in signature.iter_mut().zip(digest) {
        *to = from;
    }
    signature
}

/// What a registry says: nothing, that it does not know or answer, or one of two keys and some networks.
fn lookup(known: u8) -> Lookup {
    let networks = [0, 5, 6].into_iter().enumerate().filter(|(bit, _)| known >> (2 + bit) & 1 == 1);
    let networks = networks.map(|(_, network)| network).collect();
    match known % 4 {
        0 => Lookup::NotAsked,
        1 => Lookup::Failed,
        which => Lookup::Found { key: key(which - 2), networks },
    }
}

fn policy(bits: u8) -> Policy {
    let on = |bit: u8| bits >> bit & 1 == 1;
    let mut policy = Policy::default().accept_v1(on(0)).trust_on_first_use(on(1)).auto_approve(on(2));
    if on(3) {
        policy = policy.own_networks([0, 6, 5]);
    }
    if on(4) {
        policy = policy.allow(Allowed::new(node(1), key(0)).label("first"));
    }
    if on(5) {
        policy = policy.allow(Allowed::new(node(2), None));
    }
    policy.on_rotation(match bits >> 6 {
        0 => OnRotation::Refuse,
        1 => OnRotation::Ask,
        _ => OnRotation::Take,
    })
}

impl Life {
    /// A node that has just begun, with small tables.
    #[must_use]
    pub fn new(policy_bits: u8) -> Self {
        let mut us = Actor::new(7, 0xAA);
        let limits = &mut us.rules.limits;
        (limits.trusted_max, limits.pending_max, limits.pending_per_source_max) = (3, 3, 2);
        (limits.outgoing_max, limits.floors_max, limits.successors_max) = (2, 2, 1);
        (limits.replay_max, limits.replay_per_node_max) = (4, 2);
        us.rules.policy = policy(policy_bits);
        us.replay = ReplayTable::new(&us.rules);
        Self { us, now: at(0), heard: Vec::new(), sent: BTreeMap::new() }
    }

    /// Lives through one operation.
    ///
    /// # Panics
    /// If the rules broke a promise.
    pub fn live(&mut self, op: OpBytes) {
        let nonce = self.us.nonce();
        match Op::from_bytes(op) {
            Op::Pass { wall, tick } => {
                self.now.wall = self.now.wall.saturating_add(wall);
                self.now.tick = self.now.tick.saturating_add(tick);
            }
            Op::Hear(heard) => self.hear_new(heard, nonce),
            Op::HearAgain { which } => {
                let at = usize::from(which).checked_rem(self.heard.len());
                if let Some(received) = at.and_then(|at| self.heard.get(at)).cloned() {
                    self.hear(received);
                }
            }
            Op::Housekeeping => drop(self.act(Input::Housekeeping)),
            Op::Restart { policy: bits } => self.restart(bits),
            Op::LookedUp { peer, known } => self.trusts_nobody_new(Input::LookedUp { peer, lookup: lookup(known) }),
            Op::AdoptKey { peer, key } => {
                self.trusts_nobody_new(Input::Operator(Command::AdoptKey { peer, key: self::key(key) }));
            }
            Op::ReportKeyChange { peer, key } => {
                self.trusts_nobody_new(Input::Operator(Command::ReportKeyChange { peer, key: self::key(key) }));
            }
            Op::Grant { peer, key, lift } => {
                let record = TrustRecord::new(peer, key.map(self::key)).approved_at(self.now.wall);
                self.operate(Command::Grant { record, lift: self.shown(peer, record.public_key, lift) });
            }
            Op::Ask { peer, expected, force, automatic, text_bytes, lift } => {
                let (expected_key, justification) = (expected.map(key), Text::filtered(&"x".repeat(text_bytes.into())));
                let lift = self.shown(peer, expected_key, lift);
                self.operate(Command::Request { peer, justification, expected_key, nonce, force, automatic, lift });
            }
            Op::Approve { peer, fingerprint, lift } => {
                let fingerprint = fingerprint.map(|which| key(which).fingerprint());
                let lift = self.shown(peer, self.us.tables.pending.get(&peer).map(|entry| entry.key), lift);
                self.operate(Command::Approve {
                    peer,
                    fingerprint,
                    entry: None,
                    nonce,
                    lookup: Lookup::NotAsked,
                    lift,
                });
            }
            Op::Mark { what, peer, key } => {
                let key = self::key(key);
                let of = if what >= 128 { PeerOrKey::Key(key) } else { PeerOrKey::Peer(peer) };
                self.trusts_nobody_new(Input::Operator(match what % 8 {
                    0 | 1 => Command::RevokeKey { key, nonce },
                    2 => Command::EndUnderKey { peer, key, nonce },
                    3 | 4 => Command::ForgetRevocation { of },
                    5 => Command::Ignore { of },
                    6 => Command::Unignore { of },
                    _ => Command::Remove { peer },
                }));
            }
            Op::Reject { peer } => self.operate(Command::Reject { peer, reason: Text::default(), nonce }),
            Op::Cancel { peer } => self.operate(Command::Cancel { peer }),
            Op::Revoke { peer } => self.operate(Command::Revoke { peer, nonce }),
        }
    }

    /// The mark in force, as an operator is shown it; or none, for one who looks at nothing.
    fn shown(&self, peer: NodeId, key: Option<PublicKey>, looks: bool) -> Option<RevocationId> {
        let tables = &self.us.tables;
        let mark = tables.revoked(peer).or_else(|| tables.revoked_key(&key?));
        mark.filter(|_| looks).map(|mark| mark.id)
    }

    /// What is not saved is gone, what was reserved counts as sent, and the operator may have changed the policy.
    fn restart(&mut self, bits: u8) {
        self.us.rules.policy = policy(bits);
        self.us.replay = ReplayTable::new(&self.us.rules);
        for floor in self.us.tables.floor.values_mut() {
            floor.sent = floor.reserved;
        }
    }

    fn hear_new(&mut self, heard: Heard, nonce: Nonce) {
        let Heard { sender, key, kind, in_version_1, skew, answers, way, known, named_by } = heard;
        let path = match way {
            0 | 1 => Way::tunnel(sender),
            2 => Way::tunnel(node(3)),
            3 => Way::relayed(sender),
            4 => Way::relayed(node(2)),
            host => Way::from_host(host % 2),
        }
        .path;
        let answers = answers.then(|| self.us.tables.outgoing(sender).map(|entry| entry.nonce)).flatten();
        let (stamp, justification, reason) = (self.now.wall.saturating_add(skew), "why\n\u{202e}".into(), "no".into());
        let draft = Draft { to: self.us.id(), kind, justification, reason, nonce, answers, stamp };
        let from = open_key(key);
        let sign = |bytes: &[u8]| stand_in(from.key(), bytes);
        let message = if in_version_1 {
            sign_draft_v1(sender, from.key(), &draft, sign)
        } else {
            let old = named_by.map(open_key).filter(|old| old.key() != from.key());
            let rotation = old.map(|old| Rotation::stand_in(sender, *old.key(), *from.key(), WallMillis::new(0)));
            sign_draft(sender, from.key(), &draft, sign).carrying(rotation.as_ref())
        };
        let open = |bytes: &[u8; 32]| (bytes == from.key().as_bytes()).then_some(*from);
        let decoded = arrival::decode_with(&self.us.rules, self.now, message, path.is_relayed(), open);
        let Ok(decoded) = decoded else { return };
        let message = Verified::believed(decoded, self.us.id());
        let received = Received { message, path, lookup: lookup(known), nonce: self.us.nonce(), seen: Seen::Never };
        self.heard.push(received.clone());
        self.hear(received);
    }

    fn operate(&mut self, command: Command) {
        let _ = self.act(Input::Operator(command));
    }

    fn trusts_nobody_new(&mut self, input: Input) {
        let before = self.us.tables.trusted.clone();
        self.act(input);
        assert!(self.us.tables.trusted.keys().all(|peer| before.contains_key(peer)), "a record was created");
    }

    fn hear(&mut self, received: Received) {
        let (peer, before) = (received.message.sender(), self.us.tables.clone());
        let known = Known { us: &self.us, received: &received };
        let (is_vouched_for, may_be_trusted, network) =
            (known.is_vouched_for(), known.may_be_trusted(), known.network());
        let is_version_1 = received.message.is_version_1();
        let key = *received.message.key();
        // what the registry contradicts ends, whoever sent the message.
        let is_contradicted = before.trusted.get(&peer).is_some_and(|record| record.public_key == Some(key))
            && matches!(&received.lookup, Lookup::Found { key: known, .. } if *known != key);
        let clamped = self.act(Input::Message(received));
        let after = &self.us.tables;

        let (old, new) = (before.trusted.get(&peer), after.trusted.get(&peer));
        if let Some(new) = new.filter(|new| old != Some(new)) {
            let adopted = is_vouched_for && old.is_some_and(|old| old.public_key.is_none());
            assert!(may_be_trusted || adopted, "trusted for nothing: {new:?}");
            assert_eq!(new.public_key, Some(key), "trusted under a key that the message was not signed with");
            let marks = before.revoked.get(&peer).into_iter().chain(before.revoked_keys.get(key.as_bytes()));
            let lift = before.outgoing.get(&peer).and_then(|outgoing| outgoing.lift);
            assert!(marks.into_iter().all(|mark| lift == Some(mark.id)), "no message lifts our mark");
            let kept = old.map_or(0, |old| old.network);
            assert!([0, kept].contains(&new.network) || Some(new.network) == network, "not the network we share");
        } else if !is_vouched_for {
            assert!(old == new || (is_contradicted && new.is_none()), "trust was lost to an unvouched message");
            // a refusal that nobody vouches for is shown, and nothing else of the request changes.
            let unrefused = |tables: &PlainView| {
                let mut outgoing = tables.outgoing.clone();
                if let Some(entry) = outgoing.get_mut(&peer) {
                    entry.refused = None;
                }
                outgoing
            };
            assert_eq!(unrefused(&before), unrefused(after));
            let refused = |tables: &PlainView| tables.outgoing.get(&peer).and_then(|entry| entry.refused.clone());
            assert!(refused(&before) == refused(after) || refused(after).is_some_and(|it| !it.authentic));
            // A floor in the future may be moved back by any message under its key; never forward by an unvouched one. A
            // farewell may leave all the same, under the key that was vouched for last.
            let seen =
                |tables: &PlainView| tables.floor.get(&peer).map(|floor| (floor.key, floor.seen, floor.spoke_v2));
            assert!(clamped || seen(&before) == seen(after));
            let sent = |tables: &PlainView| tables.floor.get(&peer).map(|floor| floor.sent);
            let is_marked = before.revoked.contains_key(&peer) || before.revoked_keys.contains_key(key.as_bytes());
            let may_be_told = is_marked && before.floor.get(&peer).is_some_and(|floor| floor.key == Some(key));
            assert!(clamped || may_be_told || sent(&before) == sent(after), "an answer to nobody");
            assert!(
                !clamped || after.floor.get(&peer).map(|floor| floor.seen) < before.floor.get(&peer).map(|f| f.seen)
            );
        }
        if is_version_1 {
            let seen = |tables: &PlainView| {
                let floors = tables.floor.iter().map(|(peer, floor)| (*peer, (floor.key, floor.seen, floor.spoke_v2)));
                floors.filter(|(_, (key, ..))| key.is_some()).collect::<BTreeMap<_, _>>()
            };
            assert_eq!(seen(&before), seen(after), "version 1 moved a floor");
        }
        // the answer to a request that names the mark lifts it, with the trust that is given.
        let lift = before.outgoing.get(&peer).and_then(|outgoing| outgoing.lift);
        let trusted = after.trusted.get(&peer).is_some_and(|record| record.public_key == Some(key));
        let may_lift = |mark: &Revocation| trusted && lift == Some(mark.id);
        assert!(after.revoked.iter().all(|(of, mark)| before.revoked.get(of) == Some(mark)), "no message sets a mark");
        assert!(
            before.revoked.iter().all(|(of, mark)| after.revoked.contains_key(of) || (*of == peer && may_lift(mark))),
            "a message lifted our mark"
        );
        let key_marks = |tables: &PlainView| tables.revoked_keys.clone();
        assert!(
            key_marks(&before).iter().all(|(of, mark)| {
                key_marks(after).get(of) == Some(mark) || (of == key.as_bytes() && may_lift(mark))
            }),
            "a message lifted the mark of a key"
        );
        for (old, new) in &before.successors {
            let is = after.successors.get(old);
            assert!(is == Some(new) || is.is_some_and(|is| is.as_bytes() == old), "a successor was forgotten");
        }
        let others = |mut trusted: BTreeMap<_, _>| {
            trusted.remove(&peer);
            trusted
        };
        assert_eq!(others(before.trusted), others(after.trusted.clone()), "another peer's trust moved");
    }

    /// Says whether a floor was moved back.
    fn act(&mut self, mut input: Input) -> bool {
        self.us.recognise(self.now, &mut input);
        let once = step(&self.us.rules, &self.us.tables, self.now, input.clone());
        let before = self.us.tables.trusted.clone();
        let twice = self.us.step(self.now, input);
        assert_eq!(once, twice);
        assert!(self.us.replay.len() <= self.us.rules.limits.replay_max);
        twice.is_ok_and(|step| {
            self.check(&step, &before);
            step.clamped
        })
    }

    fn check(&mut self, step: &Step, before: &BTreeMap<NodeId, TrustRecord>) {
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
                Action::Send(draft) | Action::SendVersion1(draft) => draft.kind == Kind::Accept,
                Action::ReportGrant { .. } => true,
                _ => false,
            };
            match effect.when {
                When::OnceDurable { still } => assert!(tells_of_a_grant && after.get(&still.node_id) == Some(&still)),
                When::Now => assert!(!tells_of_a_grant),
            }
            match &effect.action {
                Action::Send(draft) | Action::SendVersion1(draft) => {
                    let last = self.sent.insert(draft.to, draft.stamp);
                    // A floor that was moved back, or forgotten with everything else about a stranger, begins anew.
                    let begins_anew = step.clamped || self.us.tables.floor.len() >= self.us.rules.limits.floors_max;
                    assert!(begins_anew || last.is_none_or(|last| draft.stamp > last), "a stamp was used twice");
                }
                Action::LookUp { peer } => {
                    assert!(after.get(peer).is_some_and(|record| record.public_key.is_none()), "nothing to ask for");
                }
                _ => {}
            }
            let in_version_1 = matches!(effect.action, Action::SendVersion1(_));
            assert!(!in_version_1 || self.us.rules.policy.accept_v1, "version 1 without being told to");
        }
    }
}

/// A message and what is known when it comes.
struct Known<'a> {
    us: &'a Actor,
    received: &'a Received,
}

impl Known<'_> {
    fn is_bound(&self) -> bool {
        let by_registry =
            matches!(&self.received.lookup, Lookup::Found { key, .. } if key == self.received.message.key());
        by_registry && (!self.received.message.is_version_1() || self.is_authenticated())
    }

    fn is_authenticated(&self) -> bool {
        let sender = self.received.message.sender();
        matches!(self.received.path, Path::Direct { authenticated: Some(other), .. } if other == sender)
    }

    fn is_vouched_for(&self) -> bool {
        let (message, tables) = (&self.received.message, &self.us.tables);
        let (peer, key) = (message.sender(), *message.key());
        let by_record = tables.trusted.get(&peer).is_some_and(|record| record.public_key == Some(key));
        let named = self.asked().is_some_and(|entry| entry.expected_key == Some(key));
        let heard = self.received.lookup != Lookup::Failed || message.kind() != Kind::Accept;
        let by_caller = named && message.kind() != Kind::Request && self.answers_us() && heard;
        let by_signature = !message.is_version_1() && (by_record || by_caller);
        by_signature || self.is_bound() || self.is_authenticated()
    }

    /// Our request to the sender, unless the sender refused it.
    fn asked(&self) -> Option<&Outgoing> {
        let is_open = |entry: &&Outgoing| entry.refused.as_ref().is_none_or(|refusal| !refusal.authentic);
        self.us.tables.outgoing.get(&self.received.message.sender()).filter(is_open)
    }

    fn answers_us(&self) -> bool {
        let message = &self.received.message;
        self.asked().is_some_and(|entry| message.is_version_1() || message.answers() == Some(entry.nonce))
    }

    /// The first of our networks that the sender has as well.
    fn network(&self) -> Option<u16> {
        let Lookup::Found { networks, .. } = &self.received.lookup else { return None };
        let ours = &self.us.rules.policy.own_networks;
        ours.iter().copied().find(|network| *network != 0 && networks.contains(network))
    }

    /// Whether the record's key named the key in the message, and the node takes such keys without asking.
    fn is_taken(&self) -> bool {
        let (message, tables) = (&self.received.message, &self.us.tables);
        let record = tables.trusted.get(&message.sender()).and_then(|record| record.public_key);
        let named = message.rotation().map(|rotation| *rotation.old_key());
        let once =
            tables.successors.get(named.unwrap_or(*message.key()).as_bytes()).is_none_or(|it| it == message.key());
        let unopposed = matches!(self.received.lookup, Lookup::NotAsked | Lookup::Unknown);
        self.us.rules.policy.on_rotation == OnRotation::Take && named.is_some() && named == record && once && unopposed
    }

    /// Whether anything in the protocol allows trusting the sender for this message.
    fn may_be_trusted(&self) -> bool {
        let (message, policy, tables) = (&self.received.message, &self.us.rules.policy, &self.us.tables);
        let (peer, key) = (message.sender(), *message.key());
        let asked = self.asked();
        let named = asked.and_then(|entry| entry.expected_key);
        let counts = !message.is_version_1() || self.is_authenticated();
        // what our request names is lifted by its own rules, and by no other.
        let lift = asked.and_then(|entry| entry.lift);
        let marks = tables.revoked.get(&peer).into_iter().chain(tables.revoked_keys.get(key.as_bytes()));
        let marks: Vec<_> = marks.map(|mark| mark.id).collect();
        let is_marked = !marks.is_empty();
        if !counts || marks.iter().any(|id| lift != Some(*id)) {
            return false;
        }
        match message.kind() {
            Kind::Request if named.is_some_and(|named| named != key) => false,
            Kind::Request if self.is_taken() => true,
            Kind::Accept if self.is_taken() && named.is_none_or(|named| named == key) && self.answers_us() => true,
            Kind::Request => {
                let mutual = asked.is_some() && (self.is_bound() || named == Some(key));
                let network = self.is_bound() && self.network().is_some();
                let entries = policy.allow_list.of(peer);
                let listed =
                    entries.iter().any(|entry| entry.key == Some(key) || (entry.key.is_none() && self.is_bound()));
                let by_policy = !is_marked && (network || listed || policy.auto_approve);
                (mutual || by_policy) && self.received.lookup != Lookup::Failed
            }
            Kind::Accept => {
                let is_relayed = matches!(self.received.path, Path::Relayed { .. });
                let heard = self.received.lookup != Lookup::Failed;
                let first_use = policy.trust_on_first_use && !is_relayed && named.is_none() && heard && !is_marked;
                self.answers_us() && (self.is_vouched_for() || first_use)
            }
            Kind::Reject | Kind::Revoke => false,
        }
    }
}

/// The table of the change, and the key in it.
fn place(change: &TableChange) -> String {
    macro_rules! place {
        ($($(#[$doc:meta])* $number:literal $field:ident $variant:ident $key:ty, $entry:ty => $table:ty;)*) => {
            match change {
                TableChange::Trusted(key, _) => format!("1 {key:?}"),
                $(TableChange::$variant(key, _) => format!("{} {key:?}", $number),)*
            }
        };
    }
    side_tables!(place)
}
