//! The lists of what a store remembers beyond records, requests and marks: what an operator refused, which decisions peers
//! were not told yet, which keys named which, and how new the registry's word was.
//!
//! What must hold: a migration by export and import forgets none of it. `take_remembered` reads what is written here.
#![forbid(unsafe_code)]

use serde::Serialize;

use super::{Nonces, is_false, nonce, time};
use crate::machine::view::View as _;
use crate::peer::{NodeId, PublicKey};
use crate::tables::table::Table as _;
use crate::tables::{Outgoing, Owed, RefusedRequest, Succession, Tables, Void};
use crate::wire::message::Kind;

/// An entry's place among those of its list: its peer, and of a peer's several entries the oldest first.
type PeerPlace = (u32, usize);

/// Every statement of a key about its successor.
pub(super) fn statements(tables: &Tables) -> impl Iterator<Item = (PeerPlace, Succession)> {
    let all = tables.sides.successors.iter();
    all.flat_map(|(peer, all)| all.iter().enumerate().map(move |(at, it)| ((peer.get(), at), *it)))
}

/// Every request that an operator refused.
pub(super) fn refused(tables: &Tables) -> impl Iterator<Item = (PeerPlace, RefusedRequest)> {
    let all = tables.sides.refused.iter();
    all.flat_map(|(peer, all)| all.iter().enumerate().map(move |(at, it)| ((peer.get(), at), *it)))
}

/// Every decision that is owed still. One that is so no more, and waits for the next try to be cancelled, is none.
pub(super) fn owed(tables: &Tables) -> impl Iterator<Item = (u32, &Owed)> {
    let all = tables.sides.owed.iter().map(|(peer, entry)| (peer, entry.as_ref()));
    all.filter(|(peer, entry)| contradiction(tables, *peer, entry).is_none()).map(|(peer, entry)| (peer.get(), entry))
}

/// Why nothing of this kind is owed to this peer, as these tables are, if so.
pub(super) fn contradiction(tables: &Tables, peer: NodeId, owed: &Owed) -> Option<&'static str> {
    let record = tables.trusted(peer);
    let is_under_it = record.is_some_and(|record| record.public_key == owed.for_key);
    if record.is_none() && tables.ignored(peer).is_some() {
        return Some("the peer is ignored, and owed nothing");
    }
    let is_open = |entry: &Outgoing| entry.refused.as_ref().is_none_or(|refusal| !refusal.authentic);
    match owed.kind {
        Kind::Request => Some("a request is not owed"),
        Kind::Accept if !is_under_it => Some("the peer is not trusted under this key, so nothing tells it so"),
        Kind::Reject if is_under_it => Some("the peer is trusted under this key, so nothing refuses it"),
        Kind::Reject if tables.revoked(peer).is_some() => Some("the peer is revoked, which is more than refused"),
        Kind::Revoke if tables.revoked(peer).is_none() => Some("the peer is not revoked, so nothing tells it so"),
        Kind::Revoke if tables.outgoing(peer).is_some_and(is_open) => {
            Some("our own request to the peer is open, which takes a farewell back")
        }
        Kind::Accept | Kind::Reject | Kind::Revoke => None,
    }
}

/// How many entries these lists have together.
pub(super) fn len(tables: &Tables) -> usize {
    let sides = &tables.sides;
    let statements: usize = sides.successors.iter().map(|(_, all)| all.len()).sum();
    let refused: usize = sides.refused.iter().map(|(_, all)| all.len()).sum();
    statements + refused + owed(tables).count() + sides.revisions.len()
}

#[derive(Serialize)]
pub(super) struct SuccessorEntry {
    node_id: u32,
    old_key: String,
    new_key: String,
    #[serde(skip_serializing_if = "is_false")]
    replaced: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    void: Option<&'static str>,
}

impl SuccessorEntry {
    pub(super) fn new((node_id, _): PeerPlace, it: Succession) -> Self {
        let Succession { old, new, replaced, void } = it;
        Self { node_id, old_key: old.to_base64(), new_key: new.to_base64(), replaced, void: void.map(Void::name) }
    }
}

#[derive(Serialize)]
pub(super) struct RefusedEntry {
    node_id: u32,
    public_key: String,
    stamp: String,
    refused_at: String,
}

impl RefusedEntry {
    pub(super) fn new((node_id, _): PeerPlace, it: RefusedRequest) -> Self {
        Self { node_id, public_key: it.key.to_base64(), stamp: time(it.stamp), refused_at: time(it.at) }
    }
}

#[derive(Serialize)]
pub(super) struct OwedEntry<'a> {
    node_id: u32,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    public_key: Option<String>,
    decided_at: String,
    reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    nonce: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    answers: Option<String>,
    /// That there was an `answers`, which is left out.
    #[serde(skip_serializing_if = "is_false")]
    spoke_v2: bool,
}

impl<'a> OwedEntry<'a> {
    pub(super) fn new(node_id: u32, entry: &'a Owed, nonces: Nonces) -> Self {
        let are_written = nonces == Nonces::Written;
        Self {
            node_id,
            kind: kind_name(entry.kind),
            public_key: entry.for_key.as_ref().map(PublicKey::to_base64),
            decided_at: time(entry.since),
            reason: &entry.reason,
            nonce: are_written.then(|| nonce(&entry.nonce)),
            answers: entry.answers.as_ref().filter(|_| are_written).map(nonce),
            spoke_v2: !are_written && entry.answers.is_some(),
        }
    }
}

/// As a document and `inspect` have it.
pub(in crate::cli) const fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Request => "request",
        Kind::Accept => "accept",
        Kind::Reject => "reject",
        Kind::Revoke => "revoke",
    }
}

#[derive(Serialize)]
pub(super) struct RevisionEntry {
    pub(super) node_id: u32,
    pub(super) revision: u64,
}
