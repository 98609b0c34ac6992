//! Performing what the machine asks for: sending, cutting off, reporting.
//!
//! What tells of a grant goes through [`Durable`](super::durable::Durable) first and looks again whether the grant still
//! stands, in the moment before it leaves. What restricts goes at once. Nothing here can fail in a way that a caller
//! would have to hear of: a lost message is made good by asking again, and is counted.
#![forbid(unsafe_code)]

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::cutter::Cut;
use super::outbox::Task;
use super::registry::RegistryError;
use super::shell::{Done, NotDone, Shell};
use super::transport::SendError;
use crate::machine::effect::{Action, Draft, When};
use crate::peer::{NodeId, TrustRecord};
use crate::wire::sign::{sign_draft, sign_draft_v1};
use std::sync::Arc;

impl Shell {
    /// The deadline of a cut, if this is one. It runs from here, not from when the farewell is sent.
    pub(crate) fn schedule_cut(&self, action: &Action) -> Option<(NodeId, Option<Arc<Cut>>)> {
        match action {
            Action::Disconnect { peer, within } => Some((*peer, self.cutter.schedule(*peer, *within).map(Arc::new))),
            _ => None,
        }
    }

    /// Performs effects in their order; returns once each is queued somewhere.
    pub(crate) fn perform(self: &Arc<Self>, done: Done) {
        let Done { effects, cuts, receipt, .. } = done;
        for (peer, _) in cuts.iter().filter(|(_, cut)| cut.is_none()) {
            self.cutter.cut(*peer);
        }
        for effect in effects {
            let still = match effect.when {
                When::Now => None,
                When::OnceDurable { still } => Some(still),
            };
            let (peer, reporting, task) = match effect.action {
                Action::Send(draft) => {
                    // The task holds the cut back until it ran, or was dropped.
                    let cut = cuts.iter().find(|(peer, _)| *peer == draft.to).and_then(|(_, cut)| cut.clone());
                    (draft.to, false, self.sending(draft, false, still, cut))
                }
                Action::SendVersion1(draft) => (draft.to, false, self.sending(draft, true, still, None)),
                Action::LookUp { peer } => (peer, true, self.looking_up(peer)),
                Action::ReportGrant { record } => (record.node_id, true, self.reporting(record.node_id, Some(record))),
                Action::ReportRevoke { peer } => (peer, true, self.reporting(peer, None)),
                Action::Disconnect { .. } => continue,
            };
            let queued = if still.is_some() {
                let shell = Arc::clone(self);
                let release: Task = Box::new(move || shell.queue(peer, reporting, task));
                self.durable.put(receipt.clone(), release)
            } else {
                self.queue(peer, reporting, task);
                true
            };
            if !queued {
                self.count("queue_full", &"too many answers wait for the disk; one was dropped");
            }
        }
    }

    fn queue(&self, peer: NodeId, reporting: bool, task: Task) {
        let queue = if reporting { &self.reports } else { &self.outbox };
        if !queue.put(peer, task) {
            self.count("queue_full", &"too many messages wait to be sent; one was dropped");
        }
    }

    fn sending(
        self: &Arc<Self>,
        draft: Draft,
        in_version_1: bool,
        still: Option<TrustRecord>,
        cut: Option<Arc<Cut>>,
    ) -> Task {
        let shell = Arc::clone(self);
        Box::new(move || {
            // Dropped last, however this ends.
            let _cut = cut;
            if still.is_some_and(|still| shell.store.get(still.node_id) != Some(still)) {
                return;
            }
            let sent = if in_version_1 { shell.send_v1(&draft) } else { shell.send(&draft) };
            if let Err(error) = sent {
                let to = draft.to;
                shell.count("not_sent", &format_args!("a message to node {to} was not sent: {error}"));
            }
        })
    }

    /// Has the registry asked for the key of a record that has none.
    fn looking_up(self: &Arc<Self>, peer: NodeId) -> Task {
        let shell = Arc::clone(self);
        Box::new(move || match shell.back_fill(peer) {
            Ok(done) => shell.perform(done),
            Err(NotDone::Refused(_)) => {}
            Err(error) => {
                shell.count("not_filled", &format_args!("node {peer} got no key from the registry: {error:?}"))
            }
        })
    }

    /// Reports the state of a peer if it is still as it was when the report was asked for. Reports about one peer run
    /// one at a time, so the last one to run finds the state that lasts, in whatever order they were queued.
    fn reporting(self: &Arc<Self>, peer: NodeId, granted: Option<TrustRecord>) -> Task {
        let shell = Arc::clone(self);
        Box::new(move || {
            let Some(registry) = &shell.registry else { return };
            let reported = match (granted, shell.store.get(peer)) {
                (Some(record), Some(current)) if record == current => {
                    catch_unwind(AssertUnwindSafe(|| registry.report_grant(peer)))
                }
                (None, None) => catch_unwind(AssertUnwindSafe(|| registry.report_revoke(peer))),
                _ => return,
            };
            if let Err(error) = reported.unwrap_or(Err(RegistryError::Panicked)) {
                shell
                    .count("not_reported", &format_args!("the registry did not take a report on node {peer}: {error}"));
            }
        })
    }

    /// Signs and sends a message, on this thread.
    pub(crate) fn send(&self, draft: &Draft) -> Result<(), SendError> {
        catch_unwind(AssertUnwindSafe(|| {
            let key = self.identity.public_key();
            let message = sign_draft(self.rules.own_id, &key, draft, |bytes| self.identity.sign(bytes));
            self.transport.send(draft.to, &message.to_json())
        }))
        .unwrap_or(Err(SendError::Panicked))
    }

    /// Signs and sends a message of version 1, to a peer that the transport authenticates or not at all.
    fn send_v1(&self, draft: &Draft) -> Result<(), SendError> {
        catch_unwind(AssertUnwindSafe(|| {
            let key = self.identity.public_key();
            let message = sign_draft_v1(self.rules.own_id, &key, draft, |bytes| self.identity.sign(bytes));
            self.transport.send_authenticated(draft.to, &message.to_json())
        }))
        .unwrap_or(Err(SendError::Panicked))
    }

    pub(crate) fn count(&self, name: &'static str, what: &dyn core::fmt::Display) {
        self.counters.add(name, self.clock.now().tick, what);
    }
}
