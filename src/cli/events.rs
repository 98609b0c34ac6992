//! Events as they are told, by a node to `watch` and by `watch` to whoever reads it.
#![forbid(unsafe_code)]

use core::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::print::{printable, rfc_3339};
use crate::machine::event::Event;
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
        // Texts and numbers alone: that cannot fail.
        let payload = serde_json::to_value(event.payload()).unwrap_or_default();
        Self::with(event.topic(), event.peer().map(NodeId::get), at, payload)
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

/// Of the longest topic.
const TOPIC_WIDTH: usize = 23;
