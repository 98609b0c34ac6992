//! Values of a document's fields, each with what is noted of it.
#![forbid(unsafe_code)]

use super::fields::Fields;
use crate::peer::NodeId;
use crate::tables::Source;
use crate::time::WallMillis;
use crate::wire::text::Text;

pub(super) fn not_after(
    latest: WallMillis,
    name: &'static str,
    fields: &Fields,
    notes: &mut Vec<String>,
) -> Result<Option<WallMillis>, String> {
    let at = fields.time(name)?;
    if at.is_some_and(|at| at > latest) {
        notes.push(format!("`{name}` lies in the future, and was moved back"));
    }
    Ok(at.map(|at| at.min(latest)))
}

pub(super) fn text(name: &'static str, fields: &Fields, notes: &mut Vec<String>) -> Result<String, String> {
    let text = fields.text(name)?.unwrap_or_default();
    let kept = Text::filtered(text);
    if kept.as_str() != text {
        notes.push(format!("`{name}` was cut, or had characters that are never shown"));
    }
    Ok(kept.into_string())
}

/// Of an entry without a source, the peer itself: it is charged to nobody else.
pub(super) fn source(peer: NodeId, fields: &Fields, notes: &mut Vec<String>) -> Result<Source, String> {
    let text = fields.text_or_integer("source")?.filter(|text| !text.is_empty());
    let Some(text) = text else { return Ok(Source::Node(peer)) };
    // A number by itself names a node, too.
    let number = text.strip_prefix("node ").unwrap_or(&text);
    if let Ok(node) = number.parse() {
        return Ok(Source::Node(node));
    }
    if let Some(Ok(node)) = text.strip_prefix("relay, as node ").map(str::parse) {
        return Ok(Source::Relay(node));
    }
    let with_port = || text.parse::<std::net::SocketAddr>().map(|address| address.ip());
    if let Ok(address) = text.parse().or_else(|_| with_port()) {
        return Ok(Source::from_address(address));
    }
    notes.push("`source` is neither `node N` nor an address, and became the peer itself".to_owned());
    Ok(Source::Node(peer))
}

pub(super) fn full(max: usize) -> String {
    format!("the table is full ({max})")
}
