//! What `inspect` shows of what a store remembers beyond records, requests and marks.
#![forbid(unsafe_code)]

use std::io::{self, Write};

use serde::Serialize;

use super::print::{age, table, time};
use super::rows::by_id;
use super::trust_json::kind_name;
use crate::tables::table::Table as _;
use crate::tables::{Tables, Void};
use crate::time::WallMillis;

/// These lists, each by peer, and of a peer the oldest first.
#[derive(Debug, Serialize)]
pub(super) struct Remembered {
    owed: Vec<OwedRow>,
    refused: Vec<RefusedRow>,
    successors: Vec<SuccessorRow>,
    revisions: Vec<RevisionRow>,
}

/// A decision that its peer has not been told yet.
#[derive(Debug, Serialize)]
struct OwedRow {
    node_id: u32,
    /// `accept`, `reject` or `revoke`.
    kind: &'static str,
    decided_at: i64,
    reason: String,
    /// Of the key that it was decided for; none of a revoke.
    fingerprint: Option<String>,
}

/// A request that an operator refused.
#[derive(Debug, Serialize)]
struct RefusedRow {
    node_id: u32,
    fingerprint: String,
    /// Nothing under the key that is not newer waits, by the peer's clock.
    stamp: i64,
    refused_at: i64,
}

/// A key of a peer that named another one.
#[derive(Debug, Serialize)]
struct SuccessorRow {
    node_id: u32,
    old_fingerprint: String,
    /// The same as the old one where statements of that were refused.
    new_fingerprint: String,
    replaced: bool,
    /// `revoked` or `refused`.
    void: Option<&'static str>,
}

/// The newest revision under which the registry told of a peer.
#[derive(Debug, Serialize)]
struct RevisionRow {
    node_id: u32,
    revision: u64,
}

impl Remembered {
    pub(super) fn of(tables: &Tables) -> Self {
        let sides = &tables.sides;
        let owed = sides.owed.iter().map(|(peer, it)| OwedRow {
            node_id: peer.get(),
            kind: kind_name(it.kind),
            decided_at: it.since.as_millis(),
            reason: it.reason.clone(),
            fingerprint: it.for_key.map(|key| key.fingerprint().to_string()),
        });
        let mut refused: Vec<RefusedRow> = Vec::new();
        for (peer, all) in sides.refused.iter() {
            refused.extend(all.iter().map(|it| RefusedRow {
                node_id: peer.get(),
                fingerprint: it.key.fingerprint().to_string(),
                stamp: it.stamp.as_millis(),
                refused_at: it.at.as_millis(),
            }));
        }
        let mut successors: Vec<SuccessorRow> = Vec::new();
        for (peer, all) in sides.successors.iter() {
            successors.extend(all.iter().map(|it| SuccessorRow {
                node_id: peer.get(),
                old_fingerprint: it.old.fingerprint().to_string(),
                new_fingerprint: it.new.fingerprint().to_string(),
                replaced: it.replaced,
                void: it.void.map(Void::name),
            }));
        }
        refused.sort_by_key(|row| row.node_id);
        successors.sort_by_key(|row| row.node_id);
        let revisions =
            sides.revisions.iter().map(|(peer, it)| RevisionRow { node_id: peer.get(), revision: *it }).collect();
        Self {
            owed: by_id(owed.collect(), |row| row.node_id),
            refused,
            successors,
            revisions: by_id(revisions, |row: &RevisionRow| row.node_id),
        }
    }

    /// Those that there are, each in a table.
    pub(super) fn print(&self, out: &mut dyn Write, now: WallMillis) -> io::Result<()> {
        let cells = self.owed.iter().map(|row| {
            let key = row.fingerprint.clone().unwrap_or_else(|| "-".to_owned());
            [row.node_id.to_string(), row.kind.to_owned(), time(row.decided_at), age(row.decided_at, now), key]
        });
        table(out, "OWED", ["ID", "KIND", "DECIDED", "AGE", "FINGERPRINT"], cells)?;
        let cells = self.refused.iter().map(|row| {
            let (refused, age) = (time(row.refused_at), age(row.refused_at, now));
            [row.node_id.to_string(), refused, age, row.fingerprint.clone()]
        });
        table(out, "REFUSED", ["ID", "REFUSED", "AGE", "FINGERPRINT"], cells)?;
        let cells = self.successors.iter().map(|row| {
            let replaced = if row.replaced { "yes" } else { "no" }.to_owned();
            let void = row.void.unwrap_or("-").to_owned();
            [row.node_id.to_string(), row.old_fingerprint.clone(), row.new_fingerprint.clone(), replaced, void]
        });
        table(out, "SUCCESSORS", ["ID", "OLD FINGERPRINT", "NEW FINGERPRINT", "REPLACED", "VOID"], cells)?;
        let cells = self.revisions.iter().map(|row| [row.node_id.to_string(), row.revision.to_string()]);
        table(out, "REVISIONS", ["ID", "REVISION"], cells)
    }
}
