//! The calls of a manager that are about marks: revoked keys, forgetting a revocation, removing trust without one, and
//! ignoring.
#![forbid(unsafe_code)]

use super::calls::CommandError;
use super::manager::HandshakeManager;
use super::shell::NotDone;
use crate::error::WriteError;
use crate::machine::input::{Command, Input, PeerOrKey};
use crate::machine::outcome::Outcome;
use crate::machine::rejection::Rejection;
use crate::peer::{NodeId, PublicKey};
use crate::store::{KeyRevoked, Receipt, Revoked};
use crate::tables::{Marks, Revocation};
use crate::time::WallMillis;

impl HandshakeManager {
    /// Revokes a key: from now on nobody is trusted under it, whatever id it is shown for and whoever vouches for it, until an
    /// operator lifts that. Trust under it ends before this returns; each peer is told, cut off and reported as by
    /// [`revoke`](Self::revoke). What other keys have said of it is void for good.
    ///
    /// # Ordering
    /// The mark is in force first, and holds off every grant; then the records are searched without a lock, and ended one
    /// at a time. Every read that begins after this returned finds nobody trusted under the key.
    ///
    /// # Complexity
    /// Proportional to the trusted peers, and to those whose keys have named another.
    ///
    /// # Errors
    /// [`CommandError::Refused`] with `RevokedKeysFull`. [`CommandError::Store`] if the store was closed meanwhile: the mark
    /// may be set already, and what is left of the records ends when the store is opened again.
    pub fn revoke_key(&self, key: &PublicKey) -> Result<KeyRevoked, CommandError> {
        let shell = &self.shell;
        let _inside = shell.enter()?;
        let done = shell.submit(Input::Operator(Command::RevokeKey { key: *key, nonce: shell.nonce()? }))?;
        let marked = if let Outcome::KeyRevoked { marked } = done.outcome { marked } else { None };
        let mut receipt = done.receipt.clone();
        shell.perform(done);
        // Whoever was trusted before the mark is in this state, and nobody else comes to be trusted under the key.
        let tables = shell.store.tables().ok_or(CommandError::Store(WriteError::Reentrant(())))?;
        let under = tables.trusted.iter().filter(|record| record.public_key == Some(*key));
        let mut ended = Vec::new();
        for peer in under.map(|record| record.node_id).chain(tables.whose_keys_named(key)) {
            match shell.submit(Input::Operator(Command::EndUnderKey { peer, key: *key, nonce: shell.nonce()? })) {
                Ok(done) => {
                    receipt = done.receipt.clone();
                    let was_trusted = matches!(done.outcome, Outcome::EndedUnderKey { was: Some(_) });
                    ended.extend(was_trusted.then_some(peer));
                    shell.perform(done);
                }
                // It ended by itself.
                Err(NotDone::Refused(Rejection::NothingToDo)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        // Since the mark nobody comes to be trusted by the word of this key.
        let named = shell.store.tables().map(|tables| tables.trusted_by_word_of(key, shell.clock.now().wall));
        Ok(KeyRevoked::new(receipt, ended, named.unwrap_or_default(), marked))
    }

    /// Ends trust in a peer without a mark: it may ask again, as anybody may. It is told, cut off and reported.
    ///
    /// # Errors
    /// [`CommandError::Refused`] with `NothingToDo` if the peer is not trusted.
    pub fn remove(&self, peer: NodeId) -> Result<Receipt, CommandError> {
        self.command(Command::Remove { peer }).map(|(_, receipt)| receipt)
    }

    /// Takes the mark of a revoked peer away; nobody is trusted by that.
    ///
    /// # Errors
    /// [`CommandError::Refused`] with `NothingToDo` if the peer is not revoked.
    pub fn forget_revocation(&self, peer: NodeId) -> Result<Receipt, CommandError> {
        self.command(Command::ForgetRevocation { of: PeerOrKey::Peer(peer) }).map(|(_, receipt)| receipt)
    }

    /// The same of a key.
    ///
    /// # Errors
    /// [`CommandError::Refused`] with `NothingToDo` if the key is not revoked.
    pub fn forget_key_revocation(&self, key: &PublicKey) -> Result<Receipt, CommandError> {
        self.command(Command::ForgetRevocation { of: PeerOrKey::Key(*key) }).map(|(_, receipt)| receipt)
    }

    /// Hears nothing more of a peer that is not trusted, or under a key: no entry, no event and no answer comes of its
    /// messages, which are counted as `ignored`. What waits of it goes, and so does a request of ours to it.
    ///
    /// A peer that is trusted under an ignored key stays trusted, and is heard under that key.
    ///
    /// # Errors
    /// [`CommandError::Refused`] with `TrustedNotIgnored`, `PeerIsUs`, `IgnoredFull`, or `NothingToDo` if it is ignored.
    pub fn ignore(&self, of: PeerOrKey) -> Result<Receipt, CommandError> {
        self.command(Command::Ignore { of }).map(|(_, receipt)| receipt)
    }

    /// Hears a peer, or a key, again.
    ///
    /// # Errors
    /// [`CommandError::Refused`] with `NothingToDo` if it is not ignored.
    pub fn unignore(&self, of: PeerOrKey) -> Result<Receipt, CommandError> {
        self.command(Command::Unignore { of }).map(|(_, receipt)| receipt)
    }

    /// Every key that we revoked, with its mark, at one moment, by key.
    #[must_use]
    pub fn revoked_keys(&self) -> Vec<(PublicKey, Revocation)> {
        self.shell.store.revoked_keys()
    }

    /// The marks that trusting this peer under this key would have to lift.
    #[must_use]
    pub fn marks(&self, peer: NodeId, key: &PublicKey) -> Marks {
        self.shell.store.marks(peer, key)
    }

    /// Every ignored peer, with since when, at one moment, by id.
    #[must_use]
    pub fn ignored(&self) -> Vec<(NodeId, WallMillis)> {
        self.shell.store.ignored()
    }

    /// Every ignored key, with since when, at one moment, by key.
    #[must_use]
    pub fn ignored_keys(&self) -> Vec<(PublicKey, WallMillis)> {
        self.shell.store.ignored_keys()
    }
}

/// What a revocation came to, for who asked for it.
pub(super) fn revoked(receipt: Receipt, outcome: &Outcome) -> Revoked {
    let revoked = Revoked::new(receipt, None);
    match *outcome {
        Outcome::Revoked { was, waited, asked, marked } => Revoked { was, waited, asked, marked, ..revoked },
        _ => revoked,
    }
}
