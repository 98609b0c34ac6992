//! Several changes in one.
#![forbid(unsafe_code)]

use super::TrustStore;
use super::batch::{Batch, FreshMarks};
use super::receipt::Receipt;
use super::shared::{Shared, TransactError};
use crate::error::{UpdateError, WriteError};
use crate::time::WallMillis;

impl TrustStore {
    /// Makes several changes that readers see as one, under one generation.
    ///
    /// `f` runs under the writer lock: it should be short. If it panics, nothing has changed. Reading the store from it
    /// is fine and shows the state before; changing or waiting from it is an error, not a deadlock, and a subscription that
    /// begins in it has ended.
    ///
    /// # Ordering
    /// As [`TrustStore::grant`]. Subscribers are told of peers in the order in which `f` first named them.
    ///
    /// # Errors
    /// [`WriteError`]; nothing changed.
    pub fn update<R>(&self, f: impl FnOnce(&mut Batch<'_>) -> R) -> Result<(R, Receipt), WriteError<()>> {
        self.write(self.shared.now().wall, f)
    }

    /// The same for a closure that may think better of it: if it returns an error, nothing has changed, nothing is published and
    /// nobody is told.
    ///
    /// # Ordering
    /// As [`TrustStore::update`].
    ///
    /// # Errors
    /// [`UpdateError::Refused`] with the closure's error, [`UpdateError::Write`]; nothing changed.
    ///
    /// # Examples
    /// ```
    /// use trustkeep::{NodeId, TrustRecord, TrustStore, UpdateError, WriteError};
    /// let store = TrustStore::in_memory();
    /// let peers = [7, 8].map(|id| TrustRecord::new(NodeId::new(id).unwrap(), None));
    /// drop(store.revoke(peers[1].node_id)?);
    /// // All or none of them; the second is revoked.
    /// let granted = store.try_update(|batch| peers.into_iter().try_for_each(|peer| batch.grant(peer).map(drop)));
    /// assert!(matches!(granted, Err(UpdateError::Refused(WriteError::Revoked { .. }))));
    /// assert!(!store.is_trusted(peers[0].node_id));
    /// # Ok::<(), WriteError<NodeId>>(())
    /// ```
    pub fn try_update<R, E>(
        &self,
        f: impl FnOnce(&mut Batch<'_>) -> Result<R, E>,
    ) -> Result<(R, Receipt), UpdateError<E>> {
        self.try_write(self.shared.now().wall, f).map_err(|error| match error {
            TransactError::Refused(error) => UpdateError::Refused(error),
            TransactError::Write(error) => UpdateError::Write(error),
        })
    }

    pub(super) fn write<R>(
        &self,
        now: WallMillis,
        f: impl FnOnce(&mut Batch<'_>) -> R,
    ) -> Result<(R, Receipt), WriteError<()>> {
        let outcome = self.try_write(now, |batch| Ok::<_, core::convert::Infallible>(f(batch)));
        outcome.map_err(|error| match error {
            TransactError::Refused(never) => match never {},
            TransactError::Write(error) => error,
        })
    }

    /// `now`: when the peers that are revoked are.
    fn try_write<R, E>(
        &self,
        now: WallMillis,
        f: impl FnOnce(&mut Batch<'_>) -> Result<R, E>,
    ) -> Result<(R, Receipt), TransactError<E>> {
        Shared::publish(&self.shared, None, |tables, is_heard| {
            let fresh = FreshMarks { at: now, salt: self.shared.salt() };
            let mut batch = Batch::new(tables, fresh, &self.shared.limits);
            let value = f(&mut batch)?;
            let (draft, events) = batch.finish(is_heard);
            Ok((draft, events, value))
        })
    }
}
