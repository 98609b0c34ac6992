//! The calls of a manager that are about peers who wait for an operator: who they are, and which of their keys is trusted.
#![forbid(unsafe_code)]

use std::time::Duration;

use super::calls::CommandError;
use super::look_up::Whom;
use super::manager::HandshakeManager;
use crate::machine::input::{Command, LookedAt, Lookup};
use crate::machine::known;
use crate::machine::outcome::Outcome;
use crate::machine::view::View as _;
use crate::peer::{Fingerprint, NodeId, PublicKey, RevocationId};
use crate::store::Receipt;
use crate::tables::{Pending, Source, Tables};

impl HandshakeManager {
    /// Trusts a pending peer under a key that it waits with, and answers it once that is durable.
    ///
    /// `fingerprint` is that of the key which the operator means: of any that the entry shows. It may be left out only
    /// where somebody else than the peer vouches for the first key, no other is known for it, and the registry, if there
    /// is one, can be asked.
    ///
    /// # Ordering
    /// Blocks while the registry is asked about the peer, 2 seconds at most.
    ///
    /// # Errors
    /// [`CommandError::Refused`] with `NothingToDo`, `WrongFingerprint`, `FingerprintRequired`, `RegistryContradicts`,
    /// `StoreFull`, and `RevokedNeedsLift` or `KeyRevokedNeedsLift` if the peer or its key is revoked.
    pub fn approve(&self, peer: NodeId, fingerprint: Option<Fingerprint>) -> Result<Receipt, CommandError> {
        self.approve_seen(peer, fingerprint, None, None)
    }

    /// The same, and the entry must be the one whose [`number`](Pending::number) was seen: not one that came in its place
    /// since, though the key may be vouched for as well.
    ///
    /// # Errors
    /// As [`approve`](Self::approve), and `OtherEntry`.
    pub fn approve_entry(
        &self,
        peer: NodeId,
        entry: u64,
        fingerprint: Option<Fingerprint>,
    ) -> Result<Receipt, CommandError> {
        self.approve_seen(peer, fingerprint, Some(entry), None)
    }

    /// The same as [`approve`](Self::approve), lifting the revocation that the operator was shown.
    ///
    /// # Errors
    /// As [`approve`](Self::approve). The two about revocations name the one in force, if that is another.
    pub fn approve_lifting(
        &self,
        peer: NodeId,
        fingerprint: Option<Fingerprint>,
        lift: RevocationId,
    ) -> Result<Receipt, CommandError> {
        self.approve_seen(peer, fingerprint, None, Some(lift))
    }

    pub(crate) fn approve_seen(
        &self,
        peer: NodeId,
        fingerprint: Option<Fingerprint>,
        entry: Option<u64>,
        lift: Option<RevocationId>,
    ) -> Result<Receipt, CommandError> {
        let _inside = self.shell.enter()?;
        let nonce = self.shell.nonce()?;
        let lookup = if peer == self.shell.rules.own_id {
            Lookup::NotAsked
        } else {
            self.shell.ask_registry(peer, Whom::Known, APPROVE_LOOK_UP_MAX)
        };
        self.command(Command::Approve { peer, fingerprint, entry, nonce, lookup, lift }).map(|(_, receipt)| receipt)
    }

    /// Refuses a pending peer under every key that it waits with, and tells it so.
    ///
    /// # Errors
    /// [`CommandError::Refused`] with `NothingToDo` if the peer is not pending. What waits may have come after the operator
    /// looked: [`reject_key`](Self::reject_key) and [`reject_entry`](Self::reject_entry) refuse what was looked at.
    pub fn reject(&self, peer: NodeId, reason: &str) -> Result<Receipt, CommandError> {
        self.reject_seen(peer, LookedAt::default(), reason).map(|(receipt, _)| receipt)
    }

    /// Refuses one of the keys that a peer waits with, and tells it so. The others wait on; if the first key is refused, the
    /// oldest other takes its place, as an entry with another number.
    ///
    /// # Errors
    /// [`CommandError::Refused`] with `NothingToDo` and `WrongFingerprint`.
    pub fn reject_key(&self, peer: NodeId, fingerprint: Fingerprint, reason: &str) -> Result<Receipt, CommandError> {
        let looked_at = LookedAt { fingerprint: Some(fingerprint), entry: None };
        self.reject_seen(peer, looked_at, reason).map(|(receipt, _)| receipt)
    }

    /// Refuses a pending peer under every key that it waits with, if the entry is the one whose
    /// [`number`](Pending::number) was seen: not one that came in its place since.
    ///
    /// # Errors
    /// [`CommandError::Refused`] with `NothingToDo` and `OtherEntry`.
    pub fn reject_entry(&self, peer: NodeId, entry: u64, reason: &str) -> Result<Receipt, CommandError> {
        let looked_at = LookedAt { fingerprint: None, entry: Some(entry) };
        self.reject_seen(peer, looked_at, reason).map(|(receipt, _)| receipt)
    }

    /// The same for whatever was looked at. Says which keys were refused.
    pub(crate) fn reject_seen(
        &self,
        peer: NodeId,
        looked_at: LookedAt,
        reason: &str,
    ) -> Result<(Receipt, Vec<Fingerprint>), CommandError> {
        let nonce = self.shell.nonce()?;
        let command = Command::Reject { peer, reason: reason.into(), nonce, named: looked_at };
        let (outcome, receipt) = self.command(command)?;
        let refused = if let Outcome::Rejected(keys) = outcome { keys.into_iter().flatten().collect() } else { vec![] };
        Ok((receipt, refused))
    }

    /// Every peer that waits for an operator at one moment, by id. A key that is known for the peer by now, and is another,
    /// counts as a conflict.
    #[must_use]
    pub fn pending(&self) -> Vec<(NodeId, Pending)> {
        self.pending_and_replaced().into_iter().map(|(peer, entry, _)| (peer, entry)).collect()
    }

    /// The same, each with the key that approving the entry's first key would replace: the trusted record's, the last one
    /// that was vouched for, or the one that our own request expects.
    #[must_use]
    pub fn pending_and_replaced(&self) -> Vec<(NodeId, Pending, Option<PublicKey>)> {
        let Some(tables) = self.shell.store.tables() else { return Vec::new() };
        let tables: &Tables = &tables;
        let look = |(peer, entry): (NodeId, &Pending)| {
            (peer, known::shown(tables, peer, entry), known::replaced_key(tables, peer, &entry.key))
        };
        let mut entries: Vec<_> = tables.pending_iter().map(look).collect();
        entries.sort_by_key(|(peer, ..)| *peer);
        entries
    }

    /// From where peers asked for whom no room was left among the pending, and how often, the most refused first. At most
    /// 1024 sources are counted; the least refused gives way.
    #[must_use]
    pub fn refused_newcomers(&self) -> Vec<(Source, u64)> {
        self.shell.newcomers.list()
    }
}

/// How long an operator waits for the registry.
const APPROVE_LOOK_UP_MAX: Duration = Duration::from_secs(2);
