//! What the node and the program need of a store beyond what it offers to everybody.
#![forbid(unsafe_code)]

use super::TrustStore;
use super::deferral::Deferral;
use super::losses::{Enforcer, Losses};
use super::receipt::Receipt;
use super::shared::{Shared, TransactError, Transaction};
use crate::clock::Clock;
use crate::config::Limits;
use crate::sync::Arc;
use crate::tables::Tables;

impl TrustStore {
    /// Runs `decide` on the newest state of all tables and publishes what it asks for, in one critical section of the
    /// writer lock. If it refuses or panics, nothing has changed.
    pub(crate) fn transact<T, E>(
        &self,
        decide: impl FnOnce(&Tables) -> Result<Transaction<T>, E>,
    ) -> Result<(T, Receipt), TransactError<E>> {
        Shared::transact(&self.shared, None, decide)
    }

    /// The same for a watcher of losses, which enforces by itself whatever trust this ends. `decide` says, too, whether the
    /// change may be saved a moment later.
    pub(crate) fn transact_by<T, E>(
        &self,
        by: Enforcer,
        decide: impl FnOnce(&Tables) -> Result<(Transaction<T>, Option<Deferral>), E>,
    ) -> Result<(T, Receipt), TransactError<E>> {
        let decide = |tables: &Tables, _| {
            let (Transaction { changes, events, value }, deferral) = decide(tables)?;
            Ok((tables.draft(&changes), events, (value, deferral)))
        };
        let done = Shared::publish_deferring(&self.shared, Some(by), decide, |(_, deferral)| *deferral);
        done.map(|((value, _), receipt)| (value, receipt))
    }

    /// Tells from now on who is trusted no longer by a change that the watcher does not make itself.
    pub(crate) fn watch_losses(&self) -> Losses {
        self.shared.watch_losses()
    }

    /// Ends a subscription; what is queued for it stays.
    pub(crate) fn end_subscription(&self, subscription: u64) {
        self.shared.end_subscription(subscription);
    }

    /// The limits that it was opened with.
    pub(crate) fn limits(&self) -> Limits {
        self.shared.limits
    }

    /// The clock that entries were given their ticks by when they were loaded.
    pub(crate) fn clock(&self) -> std::sync::Arc<dyn Clock> {
        std::sync::Arc::clone(&self.shared.clock)
    }

    /// A receipt for everything that was published so far; `None` from inside a closure that runs under the writer lock,
    /// or once the store is closed.
    pub(crate) fn newest(&self) -> Option<Receipt> {
        let nothing = |_: &Tables| {
            let (changes, events) = (Vec::new(), Vec::new());
            Ok::<_, core::convert::Infallible>(Transaction { changes, events, value: () })
        };
        self.transact(nothing).ok().map(|((), receipt)| receipt)
    }

    /// All tables of one moment; `None` from inside a closure that runs under the writer lock.
    pub(crate) fn tables(&self) -> Option<Arc<Tables>> {
        self.shared.tables()
    }
}
