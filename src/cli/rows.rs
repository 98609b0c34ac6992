//! Entries of the tables as they are shown, offline and by a running node alike.
#![forbid(unsafe_code)]

use std::io::{self, Write};

use serde::{Deserialize, Serialize};

use super::print::{age, table, table_with_texts, time};
use crate::node::Contradiction;
use crate::peer::{PublicKey, TrustRecord};
use crate::tables::{Outgoing, Pending, PendingKind, Revocation};
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

/// A trusted peer that the registry knows under another key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ContradictedRow {
    node_id: u32,
    trusted_fingerprint: String,
    registered_fingerprint: String,
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
            source: entry.source.to_string(),
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
    pub(super) fn new(peer: u32, mark: Revocation) -> Self {
        Self { node_id: peer, revoked_at: mark.at.as_millis() }
    }
}

impl From<&Contradiction> for ContradictedRow {
    fn from(it: &Contradiction) -> Self {
        Self {
            node_id: it.peer.get(),
            trusted_fingerprint: it.trusted.fingerprint().to_string(),
            registered_fingerprint: it.registered.fingerprint().to_string(),
        }
    }
}

fn dash(text: Option<&String>) -> String {
    text.cloned().unwrap_or_else(|| "-".to_owned())
}

fn yes(is: bool) -> String {
    (if is { "yes" } else { "no" }).to_owned()
}

pub(super) fn print_trusted(out: &mut dyn Write, rows: &[TrustedRow], now: WallMillis) -> io::Result<()> {
    let cells = rows.iter().map(|row| {
        let network = if row.network == 0 { "-".to_owned() } else { row.network.to_string() };
        let (since, age) = (time(row.approved_at), age(row.approved_at, now));
        [row.node_id.to_string(), since, age, yes(row.mutual), network, dash(row.fingerprint.as_ref())]
    });
    table(out, "TRUSTED", ["ID", "APPROVED", "AGE", "MUTUAL", "NETWORK", "FINGERPRINT"], cells)
}

/// With a warning for each peer that showed more than one key.
pub(super) fn print_pending(out: &mut dyn Write, rows: &[PendingRow], now: WallMillis) -> io::Result<()> {
    let cells = rows.iter().map(|row| {
        let PendingRow { kind, source, fingerprint, .. } = row.clone();
        let (received, age, vouched) = (time(row.received_at), age(row.received_at, now), yes(row.authentic));
        ([row.node_id.to_string(), received, age, source, vouched, fingerprint, kind], row.justification.as_str())
    });
    let columns = ["ID", "RECEIVED", "AGE", "FROM", "VOUCHED", "FINGERPRINT", "KIND"];
    table_with_texts(out, "PENDING", columns, cells)?;
    for PendingRow { node_id, conflicts, .. } in rows.iter().filter(|row| row.conflicts > 0) {
        let times = if *conflicts == 1 { "once".to_owned() } else { format!("{conflicts} times") };
        writeln!(
            out,
            "\nWARNING: peer {node_id} showed another key as well, {times}. One of the two is an impostor's, or the peer has a\n  \
             new key: ask its operator for the fingerprint, and name it: `trustkeep approve {node_id} FINGERPRINT`."
        )?;
    }
    Ok(())
}

pub(super) fn print_outgoing(out: &mut dyn Write, rows: &[OutgoingRow], now: WallMillis) -> io::Result<()> {
    let cells = rows.iter().map(|row| {
        let (sent, age) = (time(row.sent_at), age(row.sent_at, now));
        ([row.node_id.to_string(), sent, age, dash(row.fingerprint.as_ref())], row.justification.as_str())
    });
    table_with_texts(out, "OUTGOING", ["ID", "SENT", "AGE", "EXPECTED FINGERPRINT"], cells)
}

pub(super) fn print_revoked(out: &mut dyn Write, rows: &[RevokedRow], now: WallMillis) -> io::Result<()> {
    let cells = rows.iter().map(|row| [row.node_id.to_string(), time(row.revoked_at), age(row.revoked_at, now)]);
    table(out, "REVOKED", ["ID", "REVOKED", "AGE"], cells)
}

pub(super) fn print_contradicted(out: &mut dyn Write, rows: &[ContradictedRow]) -> io::Result<()> {
    let cells = rows.iter().map(|row| {
        let ContradictedRow { node_id, trusted_fingerprint, registered_fingerprint } = row.clone();
        [node_id.to_string(), trusted_fingerprint, registered_fingerprint]
    });
    table(out, "CONTRADICTED", ["ID", "TRUSTED FINGERPRINT", "REGISTERED FINGERPRINT"], cells)
}

/// The order of every listing.
pub(super) fn by_id<T>(mut rows: Vec<T>, id: impl Fn(&T) -> u32) -> Vec<T> {
    rows.sort_unstable_by_key(|row| id(row));
    rows
}
