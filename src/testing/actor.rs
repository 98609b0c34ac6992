//! A node without threads, sockets or files: a key, plain tables and the rules. Tests play messages between actors by
//! hand, through the whole path that bytes take in a node.
#![forbid(unsafe_code)]
#![allow(clippy::expect_used, reason = "a test double: its own mistakes end the test")]

use std::cell::OnceCell;
use std::net::{IpAddr, Ipv4Addr};

use ed25519_dalek::{Signer as _, SigningKey};

use super::model::PlainView;
use crate::config::{HandshakeConfig, Limits, Policy};
use crate::machine::arrival;
use crate::machine::check;
use crate::machine::effect::{Action, Draft};
use crate::machine::event::Event;
use crate::machine::input::{Command, Input, LookedAt, Lookup, Path, Received};
use crate::machine::outcome::{Outcome, Rules, Step};
use crate::machine::rejection::Rejection;
use crate::machine::replay::{ReplayTable, Seen};
use crate::machine::rotation;
use crate::machine::step::step;
use crate::machine::view::{Nonce, Revocation, RevocationId, Source, View as _};
use crate::peer::{Fingerprint, NodeId, PublicKey, TrustRecord};
use crate::time::{Now, Tick, WallMillis};
use crate::wire::message::{Kind, Message};
use crate::wire::rotation::Rotation;
use crate::wire::sign::{sign_draft, sign_draft_v1};
use crate::wire::verify::verify;

/// A node of a test.
#[derive(Debug)]
pub struct Actor {
    /// What it goes by.
    pub rules: Rules,
    /// Its tables.
    pub tables: PlainView,
    /// Which messages of version 1 it has seen.
    pub replay: ReplayTable,
    /// What its messages carry.
    pub rotation: Option<Rotation>,
    seed: [u8; 32],
    // Made when it is first wanted: many never sign.
    key: OnceCell<SigningKey>,
    nonces: u64,
}

/// How a message reached an actor.
#[derive(Clone, Debug)]
pub struct Way {
    /// Over what.
    pub path: Path,
    /// What the registry said.
    pub lookup: Lookup,
}

impl Way {
    /// From an address that nobody vouches for.
    #[must_use]
    pub fn open() -> Self {
        Self::from_host(1)
    }

    /// The same, from the host 10.0.0.`host`.
    #[must_use]
    pub fn from_host(host: u8) -> Self {
        let source = Source::from_address(IpAddr::V4(Ipv4Addr::new(10, 0, 0, host)));
        Self { path: Path::Direct { authenticated: None, source }, lookup: Lookup::NotAsked }
    }

    /// The registry knows this key for the sender.
    #[must_use]
    pub fn registered(key: PublicKey) -> Self {
        Self::in_networks(key, &[])
    }

    /// The same, and the sender is in these networks.
    #[must_use]
    pub fn in_networks(key: PublicKey, networks: &[u16]) -> Self {
        Self { lookup: Lookup::Found { key, networks: networks.to_vec() }, ..Self::open() }
    }

    /// The transport authenticated this node.
    #[must_use]
    pub fn tunnel(peer: NodeId) -> Self {
        let path = Path::Direct { authenticated: Some(peer), source: Source::Node(peer) };
        Self { path, ..Self::open() }
    }

    /// The registry could not be asked.
    #[must_use]
    pub fn unasked() -> Self {
        Self { lookup: Lookup::Failed, ..Self::open() }
    }

    /// By a relay, which says that `handed_in_by` handed it in.
    #[must_use]
    pub fn relayed(handed_in_by: NodeId) -> Self {
        Self { path: Path::Relayed { handed_in_by }, ..Self::open() }
    }
}

impl Actor {
    /// Node `id`, whose key is made of 32 times `seed`.
    #[must_use]
    pub fn new(id: u32, seed: u8) -> Self {
        let (config, policy, limits) = (HandshakeConfig::default(), Policy::default(), Limits::default());
        let rules = Rules { own_id: node(id), config, policy, limits };
        let (replay, tables) = (ReplayTable::new(&rules), PlainView::default());
        Self { rules, tables, replay, rotation: None, seed: [seed; 32], key: OnceCell::new(), nonces: 0 }
    }

    /// Its id.
    #[must_use]
    pub const fn id(&self) -> NodeId {
        self.rules.own_id
    }

    fn key(&self) -> &SigningKey {
        self.key.get_or_init(|| SigningKey::from_bytes(&self.seed))
    }

    /// Its public key.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        PublicKey::from_bytes(self.key().verifying_key().to_bytes()).expect("made from a seed")
    }

    /// A nonce that it has not used before.
    pub fn nonce(&mut self) -> Nonce {
        self.nonces += 1;
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&[self.nonces.to_le_bytes(), u64::from(self.id().get()).to_le_bytes()].concat());
        Nonce(bytes)
    }

    /// A draft of its own making, stamped `now`, that no rule has asked for.
    pub fn draft(&mut self, now: Now, to: NodeId, kind: Kind, answers: Option<Nonce>) -> Draft {
        let nonce = self.nonce();
        let (justification, reason) = (String::new(), String::new());
        Draft { to, kind, justification, reason, nonce, answers, stamp: now.wall, for_key: None }
    }

    /// Signs a draft.
    #[must_use]
    pub fn sign(&self, draft: &Draft) -> Message {
        let message = sign_draft(self.id(), &self.public_key(), draft, |bytes| self.signature(bytes));
        message.carrying(self.rotation.as_ref())
    }

    /// Its signature of these bytes.
    #[must_use]
    pub fn signature(&self, bytes: &[u8]) -> [u8; 64] {
        self.key().sign(bytes).to_bytes()
    }

    /// Its key names the other's as its successor.
    #[must_use]
    pub fn signs_over_to(&self, new: &Self, now: Now) -> Rotation {
        let keys = (self.public_key(), new.public_key());
        Rotation::sign(self.id(), keys.0, keys.1, now.wall, |bytes| self.signature(bytes)).expect("two keys")
    }

    /// Signs a draft in version 1.
    #[must_use]
    pub fn sign_v1(&self, draft: &Draft) -> Message {
        sign_draft_v1(self.id(), &self.public_key(), draft, |bytes| self.key().sign(bytes).to_bytes())
    }

    /// Fills in what the replay table knows of a message.
    pub fn recognise(&self, now: Now, input: &mut Input) {
        if let Input::Message(received) = input {
            let key = received.message.replay_key();
            received.seen = key.map_or(Seen::Never, |key| self.replay.seen(now.tick, &key));
        }
    }

    /// Takes one step and applies it; the invariants hold afterwards.
    pub fn step(&mut self, now: Now, mut input: Input) -> Result<Step, Rejection> {
        self.recognise(now, &mut input);
        let step = step(&self.rules, &self.tables, now, input)?;
        self.tables.apply(&step.changes);
        if let Some(noted) = step.noted {
            self.replay.note(now.tick, noted);
        }
        check::check(&self.rules, &self.tables).expect("the invariants hold after a step");
        for peer in self.tables.trusted.keys().chain(self.tables.revoked.keys()) {
            check::check_peer(&self.rules, &self.tables, *peer).expect("the invariants hold after a step");
        }
        Ok(step)
    }

    /// Hears a message, as bytes, through every check that a node makes.
    pub fn hear(&mut self, now: Now, bytes: &[u8], way: Way) -> Result<Step, Rejection> {
        let Way { path, lookup } = way;
        let decoded = arrival::decode(&self.rules, now, Message::parse(bytes)?, path.is_relayed())?;
        arrival::check_floor(&self.rules, now, self.tables.floor(decoded.sender()), &decoded)?;
        let is_of_use = rotation::is_of_use(&self.tables, &decoded);
        let decoded = if is_of_use { decoded } else { decoded.without_statement() };
        let message = verify(decoded, self.id())?;
        let nonce = self.nonce();
        self.step(now, Input::Message(Received { message, path, lookup, nonce, seen: Seen::Never }))
    }

    /// Hears what `from` sends with this draft in version 1.
    pub fn hear_v1(&mut self, now: Now, from: &Self, draft: &Draft, way: Way) -> Result<Step, Rejection> {
        self.hear(now, &from.sign_v1(draft).to_json(), way)
    }

    /// Hears what `from` sends with this draft.
    pub fn hear_from(&mut self, now: Now, from: &Self, draft: &Draft, way: Way) -> Result<Step, Rejection> {
        self.hear(now, &from.sign(draft).to_json(), way)
    }

    /// Its operator gives a command.
    pub fn command(&mut self, now: Now, command: Command) -> Result<Step, Rejection> {
        self.step(now, Input::Operator(command))
    }

    /// Puts a trusted record into its tables, as a program does through the store.
    pub fn trusts(&mut self, peer: NodeId, key: Option<PublicKey>) -> TrustRecord {
        let record = TrustRecord::new(peer, key).approved_at(WallMillis::new(1));
        self.tables.trusted.insert(peer, record);
        record
    }

    /// Its operator asks `peer` to trust it.
    pub fn request(&mut self, now: Now, peer: NodeId, expected_key: Option<PublicKey>) -> Result<Step, Rejection> {
        let (justification, nonce) = ("weather feed".into(), self.nonce());
        let (force, automatic, lift) = (false, false, None);
        self.command(
            now,
            Command::Request { peer, justification, expected_key, registered: None, nonce, force, automatic, lift },
        )
    }

    /// The same, lifting a revocation.
    pub fn request_lifting(
        &mut self,
        now: Now,
        peer: NodeId,
        expected_key: Option<PublicKey>,
        id: RevocationId,
    ) -> Result<Step, Rejection> {
        let (justification, nonce) = ("weather feed".into(), self.nonce());
        let (force, automatic, lift) = (false, false, Some(id));
        self.command(
            now,
            Command::Request { peer, justification, expected_key, registered: None, nonce, force, automatic, lift },
        )
    }

    /// Its operator approves `peer`.
    pub fn approve(&mut self, now: Now, peer: NodeId, fingerprint: Option<Fingerprint>) -> Result<Step, Rejection> {
        self.approve_as(now, peer, fingerprint, Lookup::NotAsked)
    }

    /// The same, after the registry was asked.
    pub fn approve_as(
        &mut self,
        now: Now,
        peer: NodeId,
        fingerprint: Option<Fingerprint>,
        lookup: Lookup,
    ) -> Result<Step, Rejection> {
        let nonce = self.nonce();
        self.command(now, Command::Approve { peer, fingerprint, entry: None, nonce, lookup, lift: None })
    }

    /// Its operator looks at `peer`'s entry and approves the first key that it shows.
    pub fn approve_shown(&mut self, now: Now, peer: NodeId) -> Result<Step, Rejection> {
        let shown = self.tables.pending(peer).map(|entry| (entry.key.fingerprint(), entry.number));
        let (fingerprint, entry) = shown.unzip();
        let (nonce, lookup) = (self.nonce(), Lookup::NotAsked);
        self.command(now, Command::Approve { peer, fingerprint, entry, nonce, lookup, lift: None })
    }

    /// The same, lifting a revocation.
    pub fn approve_lifting(&mut self, now: Now, peer: NodeId, id: RevocationId) -> Result<Step, Rejection> {
        let fingerprint = self.tables.pending(peer).map(|entry| entry.key.fingerprint());
        let (nonce, lookup) = (self.nonce(), Lookup::NotAsked);
        self.command(now, Command::Approve { peer, fingerprint, entry: None, nonce, lookup, lift: Some(id) })
    }

    /// Its operator refuses `peer`.
    pub fn refuse(&mut self, now: Now, peer: NodeId, reason: &str) -> Result<Step, Rejection> {
        let (reason, nonce) = (reason.into(), self.nonce());
        self.command(now, Command::Reject { peer, reason, nonce, named: LookedAt::default() })
    }

    /// It hears, at `ms`, a request of node `id` under the key of `seed`, whose nonce differs from one millisecond to the next.
    pub fn is_asked(&mut self, ms: i64, id: u32, seed: u8, text: &str, way: Way) -> Result<Step, Rejection> {
        let mut asker = Self::new(id, seed);
        let mut draft = asker.draft(at(ms), self.id(), Kind::Request, None);
        draft.justification = text.into();
        draft.nonce.0[15] = u8::try_from(ms % 251).expect("below 251");
        self.hear_from(at(ms), &asker, &draft, way)
    }

    /// Its operator revokes `peer`.
    pub fn revoke(&mut self, now: Now, peer: NodeId) -> Result<Step, Rejection> {
        let nonce = self.nonce();
        self.command(now, Command::Revoke { peer, nonce })
    }

    /// Its operator revokes `key`, and trust under it ends as a node ends it.
    pub fn revoke_key(&mut self, now: Now, key: PublicKey) -> Result<Step, Rejection> {
        let nonce = self.nonce();
        let step = self.command(now, Command::RevokeKey { key, nonce })?;
        for peer in self.tables.concerned_by(&key) {
            let nonce = self.nonce();
            self.command(now, Command::EndUnderKey { peer, key, nonce })?;
        }
        Ok(step)
    }
}

/// The node that most tests are about: 7.
#[must_use]
pub fn us() -> Actor {
    Actor::new(7, 0xAA)
}

/// The same, before whom `peer` has been pending since 10; and the request.
pub fn asked_by(peer: &mut Actor) -> (Actor, Draft) {
    let mut us = us();
    let request = peer.draft(at(10), us.id(), Kind::Request, None);
    us.hear_from(at(10), peer, &request, Way::open()).expect("a first request waits");
    (us, request)
}

/// The one message that a step sends, if it sends one.
#[must_use]
pub fn sent(step: &Step) -> Option<&Draft> {
    let mut drafts = step.effects.iter().filter_map(|effect| match &effect.action {
        Action::Send(draft) | Action::SendVersion1(draft) => Some(draft),
        _ => None,
    });
    let first = drafts.next();
    assert!(drafts.next().is_none(), "a step sends at most one message");
    first
}

/// A mark set at `ms`.
#[must_use]
pub fn mark(ms: i64) -> Revocation {
    Revocation::new(at(ms).wall, RevocationId::new(1))
}

/// Why a message came to nothing, whether or not something was told of it.
#[must_use]
pub fn dropped(answer: &Result<Step, Rejection>) -> Option<Rejection> {
    match answer {
        Err(rejection) => Some(*rejection),
        Ok(step) => match step.outcome {
            Outcome::Dropped(rejection) => Some(rejection),
            _ => None,
        },
    }
}

/// The fingerprints, expected and shown, that a step is loud about, and whether trust ended by it.
#[must_use]
pub fn loud(step: &Step) -> Option<(Fingerprint, Fingerprint, bool)> {
    step.events.iter().find_map(|event| match event {
        Event::KeyMismatch { expected, shown, ended, .. } => Some((*expected, *shown, *ended)),
        _ => None,
    })
}

/// The node with this number, which is not 0.
#[must_use]
pub fn node(id: u32) -> NodeId {
    NodeId::new(id).expect("not 0")
}

/// A moment: the given number of milliseconds after the moment at which the tests begin, on both clocks.
#[must_use]
pub const fn at(millis: i64) -> Now {
    Now { wall: WallMillis::new(BEGIN_MS.saturating_add(millis)), tick: Tick::new(millis) }
}

/// When the tests begin: the stamp of the known answer of docs/protocol.md.
pub const BEGIN_MS: i64 = 1_772_532_000_123;
