//! Events as they are told, by a node to `watch` and by `watch` to whoever reads it.
#![forbid(unsafe_code)]

use core::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::control::OlderStore;
use super::print::{printable, rfc_3339};
use super::quoted;
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

    /// That the store is older than it was, for as long as no operator has accepted that.
    pub(super) fn older_store(at: WallMillis, older: OlderStore) -> Self {
        // Numbers alone: that cannot fail.
        Self::with("store.older", None, at, serde_json::to_value(older).unwrap_or_default())
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

    /// Whether it is about one of these peers, about the watching itself, or about the whole store; if there are none, whatever it is about.
    pub(super) fn is_about_any(&self, peers: &[NodeId]) -> bool {
        let is_one = |peer: u32| peers.iter().any(|id| id.get() == peer);
        peers.is_empty()
            || matches!(&*self.topic, "watching" | "lagged" | "store.older")
            || self.peer_node_id.is_some_and(is_one)
    }

    /// Whether something happened: anything but that watching has begun.
    pub(super) fn is_event(&self) -> bool {
        self.topic != "watching"
    }
}

/// For people: the time, the topic, the peer, and what else there is. Texts of peers stand below, on lines of their own
///
impl fmt::Display for EventRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let peer = self.peer_node_id.map_or_else(String::new, |id| format!("peer {id}"));
        let mut line = format!("{}  {:TOPIC_WIDTH$}  {peer:15}", rfc_3339(self.at), printable(&self.topic));
        let mut texts = Vec::new();
        for (name, value) in self.payload.iter().filter(|(_, value)| !value.is_null()) {
            if self.is_ours(name, value) {
                line.push_str(&format!("  {name}={value}"));
            } else {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                let name = if matches!(name.as_str(), "justification" | "reason") { "why" } else { name };
                texts.extend(quoted::lines(&printable(name), &text, quoted::columns()));
            }
        }
        f.write_str(line.trim_end())?;
        texts.iter().try_for_each(|text| write!(f, "\n{text}"))
    }
}

impl EventRow {
    /// Whether the value is of the node's own making, and short: a number, a name, a fingerprint. What is not known to be
    /// that is shown as a text.
    fn is_ours(&self, name: &str, value: &Value) -> bool {
        let is_text =
            matches!(name, "justification" | "label") || (name == "reason" && self.topic == "handshake.rejected");
        let is_word = |text: &str| {
            (1..=WORD_BYTES_MAX).contains(&text.len())
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':' | b'.'))
        };
        match value {
            Value::Number(_) | Value::Bool(_) => is_word(name),
            Value::String(text) => !is_text && is_word(name) && is_word(text),
            _ => false,
        }
    }
}

/// Of the longest topic.
const TOPIC_WIDTH: usize = 23;
/// A fingerprint has 39.
const WORD_BYTES_MAX: usize = 40;

#[cfg(all(test, not(trustkeep_loom)))]
mod tests {
    use super::*;

    fn shown(event: &Event) -> Vec<String> {
        EventRow::new(WallMillis::new(1_772_532_000_123), event).to_string().lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_text_of_a_peer_stands_below_its_event_and_our_own_words_beside_it() {
        let peer = NodeId::new(9).unwrap();
        let forged = || format!("{}2026-03-03T10:00:00.123Z  trust.changed  peer 9  state=\"granted\"", "x".repeat(60));
        let fingerprint = crate::testing::actor::Actor::new(9, 0x11).public_key().fingerprint();
        let (replaces, marks) = (None, crate::tables::Marks::default());
        for (event, beside) in [
            (Event::Received { peer, justification: forged() }, "peer 9"),
            (
                Event::Pending {
                    peer,
                    justification: forged(),
                    fingerprint,
                    replaces,
                    proven_by: None,
                    set_aside: None,
                    marks,
                },
                "fingerprint=\"10ba:682c",
            ),
            (Event::Rejected { peer, reason: forged(), fingerprint, authentic: false }, "authentic=false"),
        ] {
            let lines = shown(&event);
            assert!(
                lines[0].starts_with("2026-03-03T10:00:00.123Z  handshake.") && lines[0].contains(beside),
                "{lines:?}"
            );
            assert!(!lines[0].contains("granted") && lines.len() > 2, "{lines:?}");
            assert!(lines[1..].iter().all(|line| line.starts_with("      why | \"") && line.len() <= 60), "{lines:?}");
        }
        // A single word is a text too.
        let lines = shown(&Event::Rejected { peer, reason: "approved".to_owned(), fingerprint, authentic: true });
        assert_eq!((lines[0].contains("approved"), lines[1].as_str()), (false, "      why | \"approved\""));
        let (state, reason) =
            (crate::machine::event::TrustState::Granted, crate::machine::event::ChangeReason::Approved);
        let lines = shown(&Event::TrustChanged { peer, state, reason });
        assert!(lines.len() == 1 && lines[0].ends_with("  reason=\"approved\"  state=\"granted\""), "{lines:?}");
        assert_eq!(shown(&Event::Lagged { lost: 3 }).len(), 1);
    }
}
