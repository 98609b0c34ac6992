//! Events as they are told, by a node to `watch` and by `watch` to whoever reads it.
#![forbid(unsafe_code)]

use core::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::print::{printable, rfc_3339};
use crate::machine::event::{AutoReason, ChangeReason, Event, TrustState};
use crate::peer::NodeId;
use crate::time::WallMillis;

/// One event. The names and values are promised in `docs/cli.md`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct EventRow {
    topic: String,
    /// Whom it is about; none of those that are about the watching itself.
    peer_node_id: Option<u32>,
    /// When the node told of it, by its wall clock.
    at: i64,
    payload: Map<String, Value>,
}

impl EventRow {
    /// That watching has begun.
    pub(super) fn watching(at: WallMillis, own_id: NodeId, generation: u64) -> Self {
        Self::with("watching", None, at, json!({ "node_id": own_id.get(), "generation": generation }))
    }

    pub(super) fn new(at: WallMillis, event: &Event) -> Self {
        let (peer, payload) = match event {
            Event::Received { peer, justification } => (peer, json!({ "justification": justification })),
            Event::Pending { peer, justification, fingerprint } => {
                (peer, json!({ "justification": justification, "fingerprint": fingerprint.to_string() }))
            }
            Event::AutoApproved { peer, reason, label } => {
                (peer, json!({ "reason": auto_reason(*reason), "label": label }))
            }
            Event::Rejected { peer, reason } => (peer, json!({ "reason": reason })),
            Event::TrustChanged { peer, state, reason } => {
                let state = match state {
                    TrustState::Granted => "granted",
                    TrustState::Revoked => "revoked",
                };
                (peer, json!({ "state": state, "reason": change_reason(*reason) }))
            }
            Event::Approved { peer } | Event::Revoked { peer } | Event::RevokedByPeer { peer } => (peer, json!({})),
            Event::Lagged { lost } => return Self::with(event.topic(), None, at, json!({ "lost": lost })),
        };
        Self::with(event.topic(), Some(peer.get()), at, payload)
    }

    fn with(topic: &str, peer_node_id: Option<u32>, at: WallMillis, payload: Value) -> Self {
        let payload = if let Value::Object(fields) = payload { fields } else { Map::new() };
        Self { topic: topic.to_owned(), peer_node_id, at: at.as_millis(), payload }
    }

    /// Whether something happened: anything but that watching has begun.
    pub(super) fn is_event(&self) -> bool {
        self.topic != "watching"
    }
}

/// For people: the time, the topic, the peer, and what else there is.
impl fmt::Display for EventRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let peer = self.peer_node_id.map_or_else(String::new, |id| format!("peer {id}"));
        let mut line = format!("{}  {:TOPIC_WIDTH$}  {peer:15}", rfc_3339(self.at), printable(&self.topic));
        for (name, value) in self.payload.iter().filter(|(_, value)| !value.is_null()) {
            // As JSON a text is quoted, and nothing in it commands a terminal.
            line.push_str(&format!("  {}={}", printable(name), printable(&value.to_string())));
        }
        f.write_str(line.trim_end())
    }
}

fn auto_reason(reason: AutoReason) -> &'static str {
    match reason {
        AutoReason::Mutual => "mutual",
        AutoReason::SameNetwork => "same_network",
        AutoReason::AllowListed => "allow_listed",
        AutoReason::AutoApprove => "auto_approve",
    }
}

fn change_reason(reason: ChangeReason) -> &'static str {
    match reason {
        ChangeReason::Direct => "direct",
        ChangeReason::Approved => "approved",
        ChangeReason::Auto(reason) => auto_reason(reason),
        ChangeReason::Accepted => "accepted",
        ChangeReason::FirstUse => "first_use",
        ChangeReason::Revoked => "revoked",
        ChangeReason::RevokedByPeer => "revoked_by_peer",
        ChangeReason::KeyChanged => "key_changed",
        ChangeReason::KeyAdopted => "key_adopted",
    }
}

/// Of the longest topic.
const TOPIC_WIDTH: usize = 23;
