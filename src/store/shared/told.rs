//! Who is told of changes: subscribers of events, and nodes that enforce the end of trust.
#![forbid(unsafe_code)]

use super::Shared;
use crate::store::events::Subscription;
use crate::store::losses::{Losses, Watchers};

impl Shared {
    /// With room for so many events.
    pub(crate) fn subscribe(&self, capacity: usize) -> Subscription {
        if self.is_forked() || self.is_inside() {
            return Subscription::ended();
        }
        let mut core = self.core.lock();
        if core.closed { Subscription::ended() } else { core.hub.subscribe(capacity) }
    }

    /// Who is trusted no longer from now on. From inside a closure that runs under the lock there is nothing to watch.
    pub(crate) fn watch_losses(&self) -> Losses {
        if self.is_forked() || self.is_inside() { Watchers::default().watch() } else { self.core.lock().losses.watch() }
    }

    /// No more events for this subscription; those that are queued stay, and then it ends.
    pub(crate) fn end_subscription(&self, id: u64) {
        if !self.is_forked() && !self.is_inside() {
            self.core.lock().hub.end_one(id);
        }
    }
}
