//! Performing what the machine asks for: sending, cutting off, reporting.
//!
//! What tells of a grant goes through [`Durable`](super::durable::Durable) first and looks again whether the grant still
//! stands, in the moment before it leaves. What restricts goes at once. What cannot be sent directly is left to the
//! registry's relay, if it has one. Nothing here can fail in a way that a caller would have to hear of: a lost message is
//! made good by asking again, and is counted.
#![forbid(unsafe_code)]

use super::cutter::Cut;
use super::outbox::Task;
use super::registry::{Registry, RegistryError, Relaying};
use super::shell::{Done, NotDone, Shell};
use super::transport::SendError;
use crate::foreign;
use crate::machine::effect::{Action, Draft, When};
use crate::peer::{NodeId, TrustRecord};
use crate::sync::{Deadline, OneShot};
use crate::wire::message::Kind;
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
            let to = draft.to;
            // A relay gets version 2 in any case.
            let signed = shell.sign(&draft);
            let sent = match &signed {
                _ if in_version_1 => shell.send_v1(&draft),
                Ok(bytes) => shell.send(to, bytes),
                Err(_) => Err(SendError::Panicked),
            };
            let Err(direct) = sent else { return };
            match signed {
                Ok(bytes) if relayable(draft.kind, &direct) && shell.relays_messages() => {
                    shell.relay_later(to, draft.kind, bytes, still, direct);
                }
                _ => shell.count("not_sent", &format_args!("a message to node {to} was not sent: {direct}")),
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
                (Some(record), Some(current)) if record == current => foreign::run(|| registry.report_grant(peer)),
                (None, None) => foreign::run(|| registry.report_revoke(peer)),
                _ => return,
            };
            if let Err(error) = reported.unwrap_or(Err(RegistryError::Panicked)) {
                shell
                    .count("not_reported", &format_args!("the registry did not take a report on node {peer}: {error}"));
            }
        })
    }

    /// The message as it goes out.
    pub(crate) fn sign(&self, draft: &Draft) -> Result<Vec<u8>, SendError> {
        foreign::run(|| {
            let key = self.identity.public_key();
            sign_draft(self.rules.own_id, &key, draft, |bytes| self.identity.sign(bytes)).to_json()
        })
        .map_err(|_| SendError::Panicked)
    }

    /// Sends a signed message, on this thread.
    pub(crate) fn send(&self, to: NodeId, bytes: &[u8]) -> Result<(), SendError> {
        foreign::run(|| self.transport.send(to, bytes)).unwrap_or(Err(SendError::Panicked))
    }

    /// Whether there is anybody to relay what we cannot send.
    pub(crate) fn relays_messages(&self) -> bool {
        self.relaying != Relaying::No
    }

    /// Has the registry relay a request of ours, and waits for its word as long as a look-up may take.
    pub(crate) fn relay(&self, to: NodeId, kind: Kind, bytes: Vec<u8>) -> Result<(), RegistryError> {
        let Some(registry) = self.registry.clone() else { return Err(RegistryError::NoRelay) };
        let answer = Arc::new(OneShot::new());
        let of_task = Arc::clone(&answer);
        let queued = self.relays.put(to, Box::new(move || of_task.put(hand_over(registry.as_ref(), to, kind, &bytes))));
        if !queued {
            return Err(RegistryError::Busy);
        }
        answer.wait(Deadline::after(self.registry_timeout)).unwrap_or(Err(RegistryError::TimedOut))
    }

    /// Has the registry relay an answer of ours when it comes to it, if what it tells of is still so.
    fn relay_later(
        self: &Arc<Self>,
        to: NodeId,
        kind: Kind,
        bytes: Vec<u8>,
        still: Option<TrustRecord>,
        direct: SendError,
    ) {
        let shell = Arc::clone(self);
        let queued = self.relays.put(
            to,
            Box::new(move || {
                let Some(registry) = &shell.registry else { return };
                if still.is_some_and(|still| shell.store.get(still.node_id) != Some(still)) {
                    return;
                }
                if let Err(relay) = hand_over(registry.as_ref(), to, kind, &bytes) {
                    let what = format_args!("a message to node {to} was not sent: {direct}; nor relayed: {relay}");
                    shell.count("not_sent", &what);
                }
            }),
        );
        if !queued {
            self.count("queue_full", &"too many messages wait to be relayed; one was dropped");
        }
    }

    /// Signs and sends a message of version 1, to a peer that the transport authenticates or not at all.
    fn send_v1(&self, draft: &Draft) -> Result<(), SendError> {
        foreign::run(|| {
            let key = self.identity.public_key();
            let message = sign_draft_v1(self.rules.own_id, &key, draft, |bytes| self.identity.sign(bytes));
            self.transport.send_authenticated(draft.to, &message.to_json())
        })
        .unwrap_or(Err(SendError::Panicked))
    }

    pub(crate) fn count(&self, name: &'static str, what: &dyn core::fmt::Display) {
        self.counters.add(name, self.clock.now().tick, what);
    }
}

/// Whether a message that could not be sent directly is one for a relay. A farewell is not: it is best effort, and what
/// was cut off on purpose stays so.
pub(crate) fn relayable(kind: Kind, direct: &SendError) -> bool {
    kind.may_be_relayed() && !matches!(direct, SendError::Cancelled | SendError::TooLarge { .. })
}

fn hand_over(registry: &dyn Registry, to: NodeId, kind: Kind, bytes: &[u8]) -> Result<(), RegistryError> {
    foreign::run(|| registry.relay(to, kind, bytes)).unwrap_or(Err(RegistryError::Panicked))
}
