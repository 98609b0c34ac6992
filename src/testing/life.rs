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
//! More than 450 lines because one life knows every command and every way a message comes.
#![forbid(unsafe_code)]
#![allow(clippy::expect_used, reason = "a test double: its own mistakes end the test")]

mod known;
mod names;
mod op;
pub mod reached;

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest as _, Sha256};

use known::Known;
pub use op::OpBytes;
use op::{Heard, Mistake, Op};
use reached::{Moment, Reached};

use super::actor::{Actor, Way, at, node};
use super::model::PlainView;
use crate::config::{Allowed, OnRotation, Policy};
use crate::machine::arrival;
use crate::machine::deliver::Retried;
use crate::machine::effect::{Action, When};
use crate::machine::event::Event;
use crate::machine::input::{Command, Input, LookedAt, Lookup, Path, PeerOrKey, Received};
use crate::machine::outcome::Step;
use crate::machine::replay::{ReplayTable, Seen};
use crate::machine::rotation;
use crate::machine::step::step;
use crate::machine::view::{Floor, Nonce, Revocation, RevocationId, TableChange, View as _};
use crate::peer::{NodeId, PublicKey, TrustRecord};
use crate::sync::OnceLock;
use crate::tables::side_tables;
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
    /// The newest messages that were to leave.
    leaving: Vec<Draft>,
    sent: BTreeMap<NodeId, WallMillis>,
    reached: Reached,
}

/// One of the six keys that peers have here.
fn open_key(which: u8) -> &'static OpenKey {
    static KEYS: OnceLock<[OpenKey; 6]> = OnceLock::new();
    let keys = KEYS.get_or_init(|| {
        [0x40, 0x41, 0x42, 0x43, 0x44, 0x45]
            .map(|seed| OpenKey::new(*Actor::new(1, seed).public_key().as_bytes()).expect("made from a seed"))
    });
    keys.iter().cycle().nth(usize::from(which)).expect("never none")
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

/// What a registry says: nothing, that it does not know or answer, or one of two keys and some networks; or a third key.
fn lookup(known: u8) -> Lookup {
    let networks = [0, 5, 6].into_iter().enumerate().filter(|(bit, _)| known >> (2 + bit) & 1 == 1);
    let networks = networks.map(|(_, network)| network).collect();
    match known % 4 {
        0 if known & 4 != 0 => Lookup::Unknown,
        0 if known == 24 => Lookup::Found { key: key(2), networks },
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
        (limits.trusted_max, limits.pending_max, limits.pending_per_source_max) = (3, 3, 3);
        (limits.outgoing_max, limits.floors_max, limits.successors_max) = (2, 2, 1);
        (limits.replay_max, limits.replay_per_node_max, limits.owed_max) = (4, 2, 2);
        (limits.revoked_keys_max, limits.ignored_max, limits.ignored_keys_max) = (2, 1, 1);
        us.rules.policy = policy(policy_bits);
        us.replay = ReplayTable::new(&us.rules);
        let reached = Reached::default();
        Self { us, now: at(0), heard: Vec::new(), leaving: Vec::new(), sent: BTreeMap::new(), reached }
    }

    /// The life that the bytes of an input of the fuzz target are: one of policy, then operations. `None` if it is empty.
    ///
    /// # Panics
    /// If the rules broke a promise.
    #[must_use]
    pub fn of_bytes(bytes: &[u8]) -> Option<Self> {
        let (policy, ops) = bytes.split_first()?;
        let mut life = Self::new(*policy);
        for op in ops.as_chunks().0.iter().take(OPS_MAX) {
            life.live(*op);
        }
        Some(life)
    }

    /// What it came to, so far.
    #[must_use]
    pub const fn reached(&self) -> &Reached {
        &self.reached
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
            Op::HearAgain { which, by } => {
                let at = usize::from(which).checked_rem(self.heard.len());
                if let Some(mut received) = at.and_then(|at| self.heard.get(at)).cloned() {
                    if let Some((way, known)) = by {
                        received.path = path(way, received.message.sender());
                        received.lookup = lookup(known);
                    }
                    self.hear(received);
                }
            }
            Op::Compared { peer, was, found } => {
                self.trusts_nobody_new(Input::Compared { peer, was: key(was), found: key(found) });
            }
            Op::Left { which, delivered } => {
                let at = usize::from(which).checked_rem(self.leaving.len());
                if let Some(draft) = at.and_then(|at| self.leaving.get(at)).cloned() {
                    self.trusts_nobody_new(if delivered {
                        Input::Delivered { peer: draft.to, kind: draft.kind, stamp: draft.stamp }
                    } else {
                        Input::Undelivered { draft }
                    });
                }
            }
            Op::Retry { peer, request, newest } => {
                let tables = &self.us.tables;
                let (what, of_today) = if request {
                    (Retried::Request, tables.outgoing.get(&peer).map(|entry| entry.nonce))
                } else {
                    (Retried::Answer, tables.owed.get(&peer).map(|owed| owed.nonce))
                };
                let nonce = of_today.filter(|_| newest).unwrap_or(nonce);
                self.trusts_nobody_new(Input::Retry { peer, what, nonce });
            }
            Op::Relaying { peer, newest } => {
                let of_today = self.us.tables.outgoing.get(&peer).map(|entry| entry.nonce);
                self.trusts_nobody_new(Input::Relaying { peer, nonce: of_today.filter(|_| newest).unwrap_or(nonce) });
            }
            Op::Announce { peer, ago } => {
                self.trusts_nobody_new(Input::Announce { peer, since: self.now.wall.saturating_add(-ago), nonce });
            }
            Op::Disagreement => self.trusts_nobody_new(Input::Disagreement { compared: 80, contradicted: 9 }),
            Op::Stopping => self.trusts_nobody_new(Input::Stopping),
            Op::OwnEntries { some } => self.start_with_own_entries(some),
            Op::Housekeeping => drop(self.act(Input::Housekeeping)),
            Op::Restart { policy: bits } => self.restart(bits),
            Op::LookedUp { peer, known } => self.trusts_nobody_new(Input::LookedUp { peer, lookup: lookup(known) }),
            Op::AdoptKey { peer, key } => {
                self.trusts_nobody_new(Input::Operator(Command::AdoptKey { peer, key: self::key(key) }));
            }
            Op::ReportKeyChange { peer, key } => {
                self.trusts_nobody_new(Input::Operator(Command::ReportKeyChange { peer, key: self::key(key) }));
            }
            Op::Grant { peer, key, lift, age } => {
                let since = age.map_or(WallMillis::default(), |age| self.now.wall.saturating_add(-age));
                let record = TrustRecord::new(peer, key.map(self::key)).approved_at(since);
                self.operate(Command::Grant { record, lift: self.shown(peer, record.public_key, lift) });
            }
            Op::Ask { peer, expected, force, automatic, text_bytes, lift } => {
                let (expected_key, justification) = (expected.map(key), Text::filtered(&"x".repeat(text_bytes.into())));
                let lift = self.shown(peer, expected_key, lift);
                let registered = (text_bytes % 7 == 3).then(|| key(text_bytes.to_le_bytes()[0]));
                self.operate(Command::Request {
                    peer,
                    justification,
                    expected_key,
                    registered,
                    nonce,
                    force,
                    automatic,
                    lift,
                });
            }
            Op::Approve { peer, fingerprint, lift, known, entry } => {
                let fingerprint = fingerprint.map(|which| key(which).fingerprint());
                let shown = self.us.tables.pending.get(&peer);
                let lift = self.shown(peer, shown.map(|entry| entry.key), lift);
                let entry = entry.and_then(|is_shown| shown.map(|entry| entry.number ^ u64::from(!is_shown)));
                self.operate(Command::Approve { peer, fingerprint, entry, nonce, lookup: lookup(known), lift });
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
            Op::Reject { peer } => {
                let named = self.looked_at(peer);
                self.operate(Command::Reject { peer, reason: Text::default(), nonce, named });
            }
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

    /// What an operator names who refuses a peer: nothing, the newest of its keys, or the entry.
    fn looked_at(&self, peer: NodeId) -> LookedAt {
        let mut named = LookedAt::default();
        if let Some(entry) = self.us.tables.pending.get(&peer) {
            match self.now.wall.as_millis().rem_euclid(5) {
                0 | 1 => {}
                2 | 3 => named.fingerprint = entry.keys().last().map(|it| it.key.fingerprint()),
                _ => named.entry = Some(entry.number),
            }
        }
        named
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
        let Heard { sender, key, kind, in_version_1, skew, answers, way, known, named_by, mistake } = heard;
        let path = path(way, sender);
        // a request that answers nothing is tried again under the nonce that was refused.
        let owed = self.us.tables.owed(sender).filter(|_| answers && kind == Kind::Request);
        let nonce = owed.and_then(|owed| owed.answers).unwrap_or(nonce);
        let answers = answers.then(|| self.us.tables.outgoing(sender).map(|entry| entry.nonce)).flatten();
        let (stamp, justification, reason) = (self.now.wall.saturating_add(skew), "why\n\u{202e}".into(), "no".into());
        let draft = Draft { to: self.us.id(), kind, justification, reason, nonce, answers, stamp, for_key: None };
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
        let decoded = if mistake == Mistake::Form {
            let mut lax = self.us.rules.clone();
            (lax.own_id, lax.policy) = (node(99), lax.policy.accept_v1(true));
            arrival::decode_with(&lax, self.now, message, false, open)
        } else {
            arrival::decode_with(&self.us.rules, self.now, message, path.is_relayed(), open)
        };
        let Ok(decoded) = decoded else { return };
        let is_of_use = rotation::is_of_use(&self.us.tables, &decoded);
        if !is_of_use {
            self.reached.rule(216);
        }
        let decoded = if is_of_use { decoded } else { decoded.without_statement() };
        let receiver = if mistake == Mistake::Receiver { node(99) } else { self.us.id() };
        let message = Verified::believed(decoded, receiver);
        let received = Received { message, path, lookup: lookup(known), nonce: self.us.nonce(), seen: Seen::Never };
        self.heard.push(received.clone());
        self.hear(received);
    }

    /// an import, or a call of the store, may have left anything about the node itself.
    fn start_with_own_entries(&mut self, some: u8) {
        let (own, us) = (self.us.id(), &mut self.us.tables);
        if some & 1 != 0 {
            us.trusted.insert(own, TrustRecord::new(own, key(some / 2)));
        } else if some & 2 != 0 {
            us.revoked.insert(own, Revocation::new(self.now.wall, RevocationId::new(1)));
        }
        if some & 4 != 0 {
            us.floor.insert(own, Floor { sent: self.now.wall, ..Floor::EMPTY });
        }
        if some & 8 != 0 {
            us.ignored.insert(own, self.now.wall);
        }
        let _ = self.act(Input::OwnEntries);
        let us = &self.us.tables;
        let is_gone = !us.trusted.contains_key(&own) && !us.revoked.contains_key(&own);
        assert!(is_gone && !us.floor.contains_key(&own) && !us.ignored.contains_key(&own), "we are no peer of ours");
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
        // a record under a revoked key ends with the next message under it.
        let is_revoked = before.trusted.get(&peer).is_some_and(|record| record.public_key == Some(key))
            && before.revoked_keys.contains_key(key.as_bytes());
        // one more try of what was refused hears the refusal that is owed.
        let is_refused_again = received.message.nonce().is_some_and(|nonce| {
            before.owed.get(&peer).is_some_and(|owed| owed.answers == Some(nonce) && owed.for_key == Some(key))
        });
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
            let may_end = is_contradicted || is_revoked;
            assert!(old == new || (may_end && new.is_none()), "trust was lost to an unvouched message");
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
            // One that only says what we sent says nothing of the peer.
            let seen = |tables: &PlainView| {
                let floor = tables.floor.get(&peer).copied().unwrap_or(Floor::EMPTY);
                (floor.key, floor.seen, floor.spoke_v2)
            };
            assert!(clamped || seen(&before) == seen(after));
            let sent = |tables: &PlainView| tables.floor.get(&peer).map(|floor| floor.sent);
            let is_marked = before.revoked.contains_key(&peer) || before.revoked_keys.contains_key(key.as_bytes());
            let may_be_told =
                is_refused_again || (is_marked && before.floor.get(&peer).is_some_and(|floor| floor.key == Some(key)));
            assert!(clamped || may_be_told || sent(&before) == sent(after), "an answer to nobody");
            // What was heard and what was reserved are held to the clock each by itself.
            assert!(!clamped || seen(after) < seen(&before) || sent(after) < sent(&before), "nothing was moved back");
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
        for (of, was) in &before.successors {
            let is = after.successors.get(of).map_or(&[][..], |is| is);
            let kept = was
                .iter()
                .zip(is)
                .all(|(was, is)| (was.old, was.new) == (is.old, is.new) && (was.void.is_none() || was.void == is.void));
            assert!(kept && is.len() >= was.len(), "a successor was forgotten, or a void statement counts again");
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
        let before = self.us.tables.clone();
        let twice = self.us.step(self.now, input.clone());
        assert_eq!(once, twice);
        let (us, now) = (&self.us, self.now);
        self.reached.add(&Moment { us, now, before: &before, input: &input, answer: &twice });
        let before = before.trusted;
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
                    self.leaving.insert(0, draft.clone());
                    self.leaving.truncate(LEAVING_MAX);
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

/// Most of the time goes into checks of whole tables; longer lives find nothing that shorter ones do not.
const OPS_MAX: usize = 64;
/// Of so many messages it can turn out later whether they left.
const LEAVING_MAX: usize = 4;

fn path(way: u8, sender: NodeId) -> Path {
    let way = match way {
        0 | 1 => Way::tunnel(sender),
        2 => Way::tunnel(node(3)),
        3 => Way::relayed(sender),
        4 => Way::relayed(node(2)),
        host => Way::from_host(host % 3),
    };
    way.path
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
