//! Entries of the tables as they are shown, offline and by a running node alike.
#![forbid(unsafe_code)]

use std::io::{self, Write};

use serde::{Deserialize, Serialize};

use super::print::{table, time};
use crate::machine::view::{Outgoing, Pending, PendingKind, Source};
use crate::peer::{PublicKey, TrustRecord};
use crate::time::WallMillis;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TrustedRow {
    pub(super) node_id: u32,
    public_key: Option<String>,
    fingerprint: Option<String>,
    approved_at: i64,
    mutual: bool,
    network: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PendingRow {
    pub(super) node_id: u32,
    public_key: String,
    pub(super) fingerprint: String,
    justification: String,
    received_at: i64,
    source: String,
    authentic: bool,
    conflicts: u32,
    /// `request`, or `answered, key unvouched`: an answer to our own request, under a key that nobody vouches for.
    kind: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct OutgoingRow {
    pub(super) node_id: u32,
    sent_at: i64,
    expected_key: Option<String>,
    fingerprint: Option<String>,
    justification: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RevokedRow {
    pub(super) node_id: u32,
    revoked_at: i64,
}

fn fingerprint(key: Option<&PublicKey>) -> Option<String> {
    key.map(|key| key.fingerprint().to_string())
}

impl From<&TrustRecord> for TrustedRow {
    fn from(record: &TrustRecord) -> Self {
        Self {
            node_id: record.node_id.get(),
            public_key: record.public_key.map(|key| key.to_base64()),
            fingerprint: fingerprint(record.public_key.as_ref()),
            approved_at: record.approved_at.as_millis(),
            mutual: record.mutual,
            network: record.network,
        }
    }
}

impl PendingRow {
    pub(super) fn new(peer: u32, entry: &Pending) -> Self {
        Self {
            node_id: peer,
            public_key: entry.key.to_base64(),
            fingerprint: entry.key.fingerprint().to_string(),
            justification: entry.justification.clone(),
            received_at: entry.received_at.as_millis(),
            source: match entry.source {
                Source::Node(node) => format!("node {node}"),
                Source::Address(address) => address.to_string(),
            },
            authentic: entry.authentic,
            conflicts: entry.conflicts,
            kind: match entry.kind {
                PendingKind::Request => "request".to_owned(),
                PendingKind::AnsweredUnvouched => "answered, key unvouched".to_owned(),
            },
        }
    }
}

impl OutgoingRow {
    pub(super) fn new(peer: u32, entry: &Outgoing) -> Self {
        Self {
            node_id: peer,
            sent_at: entry.sent_at.as_millis(),
            expected_key: entry.expected_key.map(|key| key.to_base64()),
            fingerprint: fingerprint(entry.expected_key.as_ref()),
            justification: entry.justification.clone(),
        }
    }
}

impl RevokedRow {
    pub(super) fn new(peer: u32, at: WallMillis) -> Self {
        Self { node_id: peer, revoked_at: at.as_millis() }
    }
}

fn dash(text: Option<&String>) -> String {
    text.cloned().unwrap_or_else(|| "-".to_owned())
}

fn yes(is: bool) -> String {
    (if is { "yes" } else { "no" }).to_owned()
}

pub(super) fn print_trusted(out: &mut dyn Write, rows: &[TrustedRow]) -> io::Result<()> {
    let cells = rows.iter().map(|row| {
        let network = if row.network == 0 { "-".to_owned() } else { row.network.to_string() };
        [row.node_id.to_string(), time(row.approved_at), yes(row.mutual), network, dash(row.fingerprint.as_ref())]
    });
    table(out, "TRUSTED", ["ID", "APPROVED", "MUTUAL", "NETWORK", "FINGERPRINT"], cells)
}

pub(super) fn print_pending(out: &mut dyn Write, rows: &[PendingRow]) -> io::Result<()> {
    let cells = rows.iter().map(|row| {
        let PendingRow { kind, source, justification, .. } = row.clone();
        let conflicts = row.conflicts.to_string();
        let (received, vouched) = (time(row.received_at), yes(row.authentic));
        [row.node_id.to_string(), received, source, vouched, conflicts, row.fingerprint.clone(), kind, justification]
    });
    let columns = ["ID", "RECEIVED", "FROM", "VOUCHED", "CONFLICTS", "FINGERPRINT", "KIND", "JUSTIFICATION"];
    table(out, "PENDING", columns, cells)
}

pub(super) fn print_outgoing(out: &mut dyn Write, rows: &[OutgoingRow]) -> io::Result<()> {
    let cells = rows.iter().map(|row| {
        [row.node_id.to_string(), time(row.sent_at), dash(row.fingerprint.as_ref()), row.justification.clone()]
    });
    table(out, "OUTGOING", ["ID", "SENT", "EXPECTED FINGERPRINT", "JUSTIFICATION"], cells)
}

pub(super) fn print_revoked(out: &mut dyn Write, rows: &[RevokedRow]) -> io::Result<()> {
    let cells = rows.iter().map(|row| [row.node_id.to_string(), time(row.revoked_at)]);
    table(out, "REVOKED", ["ID", "REVOKED"], cells)
}

/// The order of every listing.
pub(super) fn by_id<T>(mut rows: Vec<T>, id: impl Fn(&T) -> u32) -> Vec<T> {
    rows.sort_unstable_by_key(|row| id(row));
    rows
}
