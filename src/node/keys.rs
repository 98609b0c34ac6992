//! The calls of a manager that are about keys of trusted peers: who is trusted outright, and what a transport or a registry
//! has found out about a peer's key.
#![forbid(unsafe_code)]

use super::calls::CommandError;
use super::manager::HandshakeManager;
use crate::machine::input::Command;
use crate::peer::{NodeId, PublicKey, RevocationId, TrustRecord};
use crate::store::Receipt;

impl HandshakeManager {
    /// Trusts a peer outright, as the record says, and tells the registry; without a key, the registry is asked for one.
    ///
    /// That another peer is trusted under the same key is no error: its holder is each of them. Ask
    /// [`Snapshot::find_by_key`](crate::Snapshot::find_by_key) first where that must not be.
    ///
    /// # Errors
    /// [`CommandError::Refused`] with `AlreadyTrusted` if the record is there as it is, `StoreFull`, `PeerIsUs`, or
    /// `KeyIsOurs` if the key is this node's own;
    /// `RevokedNeedsLift` or `KeyRevokedNeedsLift` if the peer or the key is revoked.
    pub fn grant(&self, record: TrustRecord) -> Result<Receipt, CommandError> {
        self.command(Command::Grant { record, lift: None }).map(|(_, receipt)| receipt)
    }

    /// The same, lifting the revocation that an operator was shown.
    ///
    /// # Errors
    /// As [`grant`](Self::grant); `RevokedNeedsLift` or `KeyRevokedNeedsLift`, with the one in force, if another revocation
    /// stands in the way.
    pub fn grant_lifting(&self, record: TrustRecord, lift: RevocationId) -> Result<Receipt, CommandError> {
        self.command(Command::Grant { record, lift: Some(lift) }).map(|(_, receipt)| receipt)
    }

    /// Gives the record of a trusted peer its key, if it has none yet: for a transport that has authenticated the peer
    /// under this key.
    ///
    /// # Errors
    /// [`CommandError::Refused`] with `NothingToDo` if the peer is not trusted or has this key; `OtherKeyBound` if it has
    /// another; `OtherKeyExpected` if a request of ours to it names another; `KeyRevokedNeedsLift` if the key is revoked.
    pub fn adopt_key(&self, peer: NodeId, key: &PublicKey) -> Result<Receipt, CommandError> {
        self.command(Command::AdoptKey { peer, key: *key }).map(|(_, receipt)| receipt)
    }

    /// Ends trust in a peer that has another key now than its record: for a transport that has authenticated the peer
    /// under this key. It may ask again, as anybody may.
    ///
    /// # Errors
    /// [`CommandError::Refused`] with `NothingToDo` unless the peer is trusted under another key.
    pub fn report_key_change(&self, peer: NodeId, key: &PublicKey) -> Result<Receipt, CommandError> {
        self.command(Command::ReportKeyChange { peer, key: *key }).map(|(_, receipt)| receipt)
    }

    /// Asks the registry about a trusted peer: a record without a key gets the one that the registry knows; trust under
    /// another key ends.
    ///
    /// # Ordering
    /// Blocks while the registry is asked, within its timeout.
    ///
    /// # Errors
    /// [`CommandError::Refused`] with `NothingToDo` if the peer is not trusted, the registry does not know its key, or the
    /// record agrees with it; `OtherKeyExpected` as in [`adopt_key`](Self::adopt_key).
    pub fn back_fill(&self, peer: NodeId) -> Result<Receipt, CommandError> {
        let _inside = self.shell.enter()?;
        let done = self.shell.back_fill(peer)?;
        let receipt = done.receipt.clone();
        self.shell.perform(done);
        Ok(receipt)
    }
}
