//! Entries of the tables as they are shown, offline and by a running node alike.
//!
//! More than 450 lines because each row stands beside how it is printed.
#![forbid(unsafe_code)]

use std::io::{self, Write};

use serde::{Deserialize, Serialize};

use super::print::{Table, age, place_options, printable, table, table_with_texts, time};
use crate::machine::known;
use crate::node::{Contradiction, StaticRegistry, Tries};
use crate::peer::{KeyFault, NodeId, PublicKey, TrustRecord};
use crate::tables::{Marks, OTHER_KEYS_MAX, OtherKey, Outgoing, Owed, Pending, PendingKind, Revocation, Tables};
use crate::time::WallMillis;
use crate::wire::message::Kind;

/// Everything that a running node knows of a peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PeerShown {
    pub(super) node_id: u32,
    pub(super) is_this_node: bool,
    pub(super) trusted: Option<TrustedRow>,
    pub(super) pending: Option<PendingRow>,
    pub(super) outgoing: Option<OutgoingRow>,
    pub(super) owed: Option<OwedRow>,
    pub(super) revoked: Option<RevokedRow>,
    pub(super) ignored: Option<IgnoredRow>,
    pub(super) registry: Option<RegisteredRow>,
}

/// What a peers file says of a peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RegisteredRow {
    pub(super) node_id: u32,
    /// The first of them.
    pub(super) address: Option<String>,
    #[serde(default)]
    addresses: Vec<String>,
    public_key: Option<String>,
    fingerprint: Option<String>,
    networks: Vec<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TrustedRow {
    pub(super) node_id: u32,
    public_key: Option<String>,
    fingerprint: Option<String>,
    approved_at: i64,
    mutual: bool,
    network: u16,
    /// Of a revoked key that had named this one as its successor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    named_by_revoked: Option<String>,
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
    /// Names what was looked at; 16 hexadecimal digits.
    pub(super) entry: Option<String>,
    /// Of the key that approving this one would replace.
    replaces: Option<String>,
    /// Of the trusted record's key, if that key named this one as its successor.
    proven_by: Option<String>,
    /// Of the key that was trusted in place of this one.
    replaced_by: Option<String>,
    /// `revoked` or `refused`: what became of the statement that named this key.
    void: Option<String>,
    /// Since when the peer is revoked, and by which revocation; approving it has to name that.
    revoked_at: Option<i64>,
    revocation: Option<String>,
    /// The same of the key.
    key_revoked_at: Option<i64>,
    key_revocation: Option<String>,
    /// The other keys that the peer showed.
    others: Vec<OtherRow>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct OtherRow {
    public_key: String,
    fingerprint: String,
    source: String,
    first_seen: i64,
    kind: String,
    replaced_by: Option<String>,
    void: Option<String>,
    key_revoked_at: Option<i64>,
    key_revocation: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct OutgoingRow {
    pub(super) node_id: u32,
    sent_at: i64,
    expected_key: Option<String>,
    fingerprint: Option<String>,
    justification: String,
    /// The revocation that the answer lifts.
    lift: Option<String>,
    /// How the running node fares with it; `null` offline.
    #[serde(flatten)]
    tried: Option<TriesRow>,
    refused: Option<RefusedRow>,
}

/// How a running node fares with a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct TriesRow {
    /// `null` until the first try since the node started has ended.
    sent: Option<bool>,
    tries: u32,
    last_error: Option<String>,
    next_try: Option<i64>,
}

/// How a peer refused a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct RefusedRow {
    at: i64,
    reason: String,
    fingerprint: String,
    authentic: bool,
}

/// A decision that its peer has not been told yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct OwedRow {
    pub(super) node_id: u32,
    /// `accept`, `reject` or `revoke`.
    kind: String,
    decided_at: i64,
    reason: String,
    #[serde(flatten)]
    tried: TriesRow,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RevokedRow {
    pub(super) node_id: u32,
    revoked_at: i64,
    revocation: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RevokedKeyRow {
    pub(super) public_key: String,
    fingerprint: String,
    revoked_at: i64,
    revocation: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct IgnoredRow {
    pub(super) node_id: u32,
    ignored_at: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct IgnoredKeyRow {
    pub(super) public_key: String,
    fingerprint: String,
    ignored_at: i64,
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

impl TrustedRow {
    /// As of these tables.
    pub(super) fn of(tables: &Tables, record: &TrustRecord, now: WallMillis) -> Self {
        Self {
            node_id: record.node_id.get(),
            public_key: record.public_key.map(|key| key.to_base64()),
            fingerprint: fingerprint(record.public_key.as_ref()),
            approved_at: record.approved_at.as_millis(),
            mutual: record.mutual,
            network: record.network,
            named_by_revoked: fingerprint(tables.revoked_origin(record, now).as_ref()),
        }
    }
}

impl PendingRow {
    /// As of these tables: with the key that approving the first key would replace, and the marks that it would lift.
    pub(super) fn of(tables: &Tables, peer: NodeId, entry: &Pending) -> Self {
        let entry = &known::shown(tables, peer, entry);
        let replaces = known::replaced_key(tables, peer, &entry.key);
        let marks = |key: &PublicKey| tables.marks(peer, Some(key));
        let Marks { peer: of_peer, key: of_key, .. } = marks(&entry.key);
        let at = |mark: Option<Revocation>| mark.map(|mark| mark.at.as_millis());
        let id = |mark: Option<Revocation>| mark.map(|mark| mark.id.to_string());
        let kind = |kind| match kind {
            PendingKind::Request => "request".to_owned(),
            PendingKind::AnsweredUnvouched => "answered, key unvouched".to_owned(),
        };
        let replaced_by = |key: &PublicKey| match known::set_aside(tables, peer, key) {
            Some(KeyFault::Replaced(by)) => Some(by.fingerprint().to_string()),
            _ => None,
        };
        let void = |key: &PublicKey| match known::set_aside(tables, peer, key) {
            Some(KeyFault::Void(why)) => Some(why.name().to_owned()),
            _ => None,
        };
        let other = |other: &OtherKey| OtherRow {
            public_key: other.key.to_base64(),
            fingerprint: other.key.fingerprint().to_string(),
            source: other.source.to_string(),
            first_seen: other.first_seen.as_millis(),
            kind: kind(other.kind),
            replaced_by: replaced_by(&other.key),
            void: void(&other.key),
            key_revoked_at: at(marks(&other.key).key),
            key_revocation: id(marks(&other.key).key),
        };
        Self {
            node_id: peer.get(),
            public_key: entry.key.to_base64(),
            fingerprint: entry.key.fingerprint().to_string(),
            justification: entry.justification.clone(),
            received_at: entry.received_at.as_millis(),
            source: entry.source.to_string(),
            authentic: entry.authentic,
            conflicts: entry.conflicts,
            kind: kind(entry.kind),
            entry: (entry.number != 0).then(|| format!("{:016x}", entry.number)),
            replaces: fingerprint(replaces.as_ref()),
            revoked_at: at(of_peer),
            revocation: id(of_peer),
            key_revoked_at: at(of_key),
            key_revocation: id(of_key),
            others: entry.others.iter().map(other).collect(),
            proven_by: fingerprint(entry.proven_by.as_ref()),
            replaced_by: replaced_by(&entry.key),
            void: void(&entry.key),
        }
    }

    /// Whether it is approved without a fingerprint.
    pub(super) fn is_beyond_doubt(&self) -> bool {
        self.authentic && self.conflicts == 0 && self.replaces.is_none() && self.lift(&self.fingerprint).is_none()
    }

    /// The revocation that approving it under this key lifts, as it is shown.
    pub(super) fn lift(&self, fingerprint: &str) -> Option<&String> {
        let of_key = if self.fingerprint == fingerprint {
            self.key_revocation.as_ref()
        } else {
            let other = self.others.iter().find(|other| other.fingerprint == fingerprint);
            other.and_then(|other| other.key_revocation.as_ref())
        };
        self.revocation.as_ref().or(of_key)
    }

    /// Of every key that waits, the first one first.
    pub(super) fn fingerprints(&self) -> impl Iterator<Item = &str> {
        core::iter::once(&self.fingerprint)
            .chain(self.others.iter().map(|other| &other.fingerprint))
            .map(String::as_str)
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
            lift: entry.lift.map(|id| id.to_string()),
            tried: None,
            refused: entry.refused.as_ref().map(|refusal| RefusedRow {
                at: refusal.at.as_millis(),
                reason: refusal.reason.clone(),
                fingerprint: refusal.key.fingerprint().to_string(),
                authentic: refusal.authentic,
            }),
        }
    }

    pub(super) fn tried(self, tries: &Tries) -> Self {
        Self { tried: Some(tries.into()), ..self }
    }

    /// What becomes of it, in few words.
    fn state(&self, now: WallMillis) -> String {
        let sent = match &self.tried {
            None => "-".to_owned(),
            Some(TriesRow { sent: Some(true), last_error: None, next_try, .. }) => soon("sent", *next_try, now),
            Some(TriesRow { sent: Some(true), next_try, .. }) => soon("sent before", *next_try, now),
            Some(TriesRow { sent: Some(false), next_try, .. }) => soon("not sent yet", *next_try, now),
            Some(TriesRow { sent: None, next_try, .. }) => soon("not tried again yet", *next_try, now),
        };
        match &self.refused {
            Some(RefusedRow { authentic: true, .. }) => "refused".to_owned(),
            Some(RefusedRow { fingerprint, .. }) => format!("refused, unvouched, {fingerprint}"),
            None => sent,
        }
    }
}

impl From<&Tries> for TriesRow {
    fn from(it: &Tries) -> Self {
        let Tries { tries, sent, last_error, next_try, .. } = it.clone();
        Self { sent, tries, last_error, next_try: next_try.map(WallMillis::as_millis) }
    }
}

impl OwedRow {
    pub(super) fn new(peer: u32, entry: &Owed, tries: &Tries) -> Self {
        let kind = match entry.kind {
            Kind::Request => "request",
            Kind::Accept => "accept",
            Kind::Reject => "reject",
            Kind::Revoke => "revoke",
        };
        let (kind, decided_at) = (kind.to_owned(), entry.since.as_millis());
        Self { node_id: peer, kind, decided_at, reason: entry.reason.clone(), tried: tries.into() }
    }
}

fn soon(what: &str, next: Option<i64>, now: WallMillis) -> String {
    match next {
        None => what.to_owned(),
        Some(next) => format!("{what}, again in {} s", ((next - now.as_millis()).max(0) + 999) / 1000),
    }
}

/// Why the last try failed, below a table of what was tried.
fn print_errors<'a>(out: &mut dyn Write, tried: impl Iterator<Item = (u32, &'a TriesRow)>) -> io::Result<()> {
    for (node_id, row) in tried {
        if let Some(error) = &row.last_error {
            let times = if row.tries == 1 { "1 try".to_owned() } else { format!("{} tries", row.tries) };
            writeln!(out, "peer {node_id}, after {times}: {}", printable(error))?;
        }
    }
    Ok(())
}

impl RevokedRow {
    pub(super) fn new(peer: u32, mark: Revocation) -> Self {
        Self { node_id: peer, revoked_at: mark.at.as_millis(), revocation: mark.id.to_string() }
    }
}

impl RevokedKeyRow {
    pub(super) fn new(key: &PublicKey, mark: Revocation) -> Self {
        let (public_key, fingerprint) = (key.to_base64(), key.fingerprint().to_string());
        Self { public_key, fingerprint, revoked_at: mark.at.as_millis(), revocation: mark.id.to_string() }
    }
}

impl IgnoredRow {
    pub(super) fn new(peer: u32, at: WallMillis) -> Self {
        Self { node_id: peer, ignored_at: at.as_millis() }
    }
}

impl IgnoredKeyRow {
    pub(super) fn new(key: &PublicKey, at: WallMillis) -> Self {
        let (public_key, fingerprint) = (key.to_base64(), key.fingerprint().to_string());
        Self { public_key, fingerprint, ignored_at: at.as_millis() }
    }
}

impl RegisteredRow {
    /// None of a peer that the file does not list.
    pub(super) fn of(file: &StaticRegistry, peer: NodeId) -> Option<Self> {
        let listed = file.listed(peer)?;
        Some(Self {
            node_id: peer.get(),
            address: listed.addresses.first().cloned(),
            addresses: listed.addresses,
            public_key: listed.key.map(|key| key.to_base64()),
            fingerprint: fingerprint(listed.key.as_ref()),
            networks: listed.networks,
        })
    }
}

impl PeerShown {
    /// Whether nothing at all is known of it.
    pub(super) fn is_unknown(&self) -> bool {
        let Self { node_id: _, is_this_node, trusted, pending, outgoing, owed, revoked, ignored, registry } = self;
        let known = [trusted.is_some(), pending.is_some(), outgoing.is_some(), owed.is_some(), revoked.is_some()];
        !is_this_node && !known.contains(&true) && ignored.is_none() && registry.is_none()
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
    trusted_table().rows(out, trusted_cells(rows, now))?;
    print_named_by_revoked(out, rows)
}

/// what stands below those who are trusted.
pub(super) fn print_named_by_revoked(out: &mut dyn Write, rows: &[TrustedRow]) -> io::Result<()> {
    for row in rows {
        let (Some(old), Some(key)) = (&row.named_by_revoked, &row.fingerprint) else { continue };
        let (home, id) = (place_options(), row.node_id);
        writeln!(
            out,
            "\nWARNING: peer {id} is trusted under {key}, which the revoked key {old} had named.\n  \
             If that was stolen, this key may be the thief's: `trustkeep revoke {home} {id}`, unless its operator confirms the\n  \
             fingerprint: then `trustkeep grant {home} {id} KEY` says so."
        )?;
    }
    Ok(())
}

pub(super) fn trusted_table() -> Table<6> {
    Table::new("TRUSTED", ["ID", "APPROVED", "AGE", "BOTH ASKED", "NETWORK", "FINGERPRINT"])
}

pub(super) fn trusted_cells(rows: &[TrustedRow], now: WallMillis) -> impl Iterator<Item = [String; 6]> {
    rows.iter().map(move |row| {
        let network = if row.network == 0 { "-".to_owned() } else { row.network.to_string() };
        let (since, age) = (time(row.approved_at), age(row.approved_at, now));
        [row.node_id.to_string(), since, age, yes(row.mutual), network, dash(row.fingerprint.as_ref())]
    })
}

/// With a warning for each peer that showed more than one key, or another than is known.
pub(super) fn print_pending(out: &mut dyn Write, rows: &[PendingRow], now: WallMillis) -> io::Result<()> {
    let cells = rows.iter().map(|row| {
        let PendingRow { kind, source, fingerprint, .. } = row.clone();
        let (received, age, vouched) = (time(row.received_at), age(row.received_at, now), yes(row.authentic));
        ([row.node_id.to_string(), received, age, source, vouched, fingerprint, kind], row.justification.as_str())
    });
    let columns = ["ID", "RECEIVED", "AGE", "FROM", "VOUCHED", "FINGERPRINT", "KIND"];
    table_with_texts(out, "PENDING", columns, cells)?;
    let home = place_options();
    for PendingRow { node_id, proven_by, .. } in rows {
        if let Some(old) = proven_by {
            writeln!(
                out,
                "\nNEW KEY: peer {node_id} is trusted and shows a new key, proven by the old key {old}.\n  \
                 Whoever has stolen the old key can prove as much: ask its operator for the fingerprint of the new one, and\n  \
                 name it: `trustkeep approve {home} {node_id} FINGERPRINT`. Until then the old key counts."
            )?;
        }
    }
    for row in rows.iter().filter(|row| row.conflicts > 0) {
        let PendingRow { node_id, conflicts, replaces, others, .. } = row;
        let is_set_aside = row.replaced_by.is_some() || row.void.is_some();
        writeln!(out)?;
        if let Some(known) = replaces {
            writeln!(out, "WARNING: peer {node_id} replaces {known}: that key is known for it, and is another.")?;
        }
        print_set_aside(out, *node_id, &row.fingerprint, row.replaced_by.as_deref(), row.void.as_deref())?;
        let seen = conflicts - u32::from(replaces.is_some() || is_set_aside).min(*conflicts);
        if seen > 0 || !others.is_empty() {
            let times = if seen <= 1 { "once".to_owned() } else { format!("{seen} times") };
            writeln!(out, "WARNING: peer {node_id} showed another key as well, {times}.")?;
        }
        for OtherRow { fingerprint, source, first_seen, kind, replaced_by, void, .. } in others {
            writeln!(out, "  also {fingerprint}, first {}, from {}, {kind}", time(*first_seen), printable(source))?;
            print_set_aside(out, *node_id, fingerprint, replaced_by.as_deref(), void.as_deref())?;
        }
        writeln!(
            out,
            "  One of the keys is an impostor's, or the peer has a new key: ask its operator for the fingerprint, and name\n  \
             it: `trustkeep approve {home} {node_id} FINGERPRINT`."
        )?;
        if seen > 0 {
            writeln!(
                out,
                "  Beside the first, one key of each source is kept, and {OTHER_KEYS_MAX} in all. If the right one is not here:\n  \
                 `trustkeep grant {home} {node_id} KEY`, with the key that its operator says; or `trustkeep request {home} {node_id}\n  \
                 --key KEY`."
            )?;
        }
    }
    Ok(())
}

/// Why no rule trusts a key that waits, if none does.
fn print_set_aside(
    out: &mut dyn Write,
    node_id: u32,
    fingerprint: &str,
    replaced_by: Option<&str>,
    void: Option<&str>,
) -> io::Result<()> {
    if let Some(by) = replaced_by {
        writeln!(out, "WARNING: peer {node_id} shows {fingerprint}, which was replaced by {by}.")?;
    } else if let Some(void) = void {
        writeln!(out, "WARNING: peer {node_id} shows {fingerprint}, which an old key had named and which was {void}.")?;
    }
    Ok(())
}

/// What stands below a listing of those who wait: which of them are revoked, and what approving them takes.
pub(super) fn print_marks(out: &mut dyn Write, rows: &[PendingRow]) -> io::Result<()> {
    let home = place_options();
    for row in rows {
        let id = row.node_id;
        let first = (&row.fingerprint, row.key_revoked_at, &row.key_revocation);
        let others = row.others.iter().map(|it| (&it.fingerprint, it.key_revoked_at, &it.key_revocation));
        let of_keys = core::iter::once(first).chain(others);
        let of_keys =
            of_keys.map(|(key, at, revocation)| (format!("the key {key} of peer {id} is revoked"), at, revocation));
        let of_peer = (format!("peer {id} is revoked"), row.revoked_at, &row.revocation);
        for (what, at, revocation) in core::iter::once(of_peer).chain(of_keys) {
            let (Some(at), Some(revocation)) = (at, revocation) else { continue };
            writeln!(
                out,
                "\nREVOKED: {what}{}. Approving it lifts that revocation and has to name it:\n  \
                 `trustkeep approve {home} {id} FINGERPRINT --lift {}`.",
                since(at),
                printable(revocation)
            )?;
        }
    }
    Ok(())
}

/// Since when something is revoked, as far as that is known.
fn since(at: i64) -> String {
    if at == 0 { ", time unknown".to_owned() } else { format!(" since {}", time(at)) }
}

pub(super) fn print_outgoing(out: &mut dyn Write, rows: &[OutgoingRow], now: WallMillis) -> io::Result<()> {
    let cells = rows.iter().map(|row| {
        let (sent, age) = (time(row.sent_at), age(row.sent_at, now));
        let text = row.refused.as_ref().map_or(&row.justification, |refused| &refused.reason);
        ([row.node_id.to_string(), sent, age, dash(row.fingerprint.as_ref()), row.state(now)], text.as_str())
    });
    table_with_texts(out, "OUTGOING", ["ID", "ASKED", "AGE", "EXPECTED FINGERPRINT", "STATE"], cells)?;
    print_errors(out, rows.iter().filter_map(|row| Some((row.node_id, row.tried.as_ref()?))))
}

pub(super) fn print_owed(out: &mut dyn Write, rows: &[OwedRow], now: WallMillis) -> io::Result<()> {
    let cells = rows.iter().map(|row| {
        let (decided, age) = (time(row.decided_at), age(row.decided_at, now));
        let state = soon("not told yet", row.tried.next_try, now);
        [row.node_id.to_string(), row.kind.clone(), decided, age, state]
    });
    table(out, "OWED", ["ID", "KIND", "DECIDED", "AGE", "STATE"], cells)?;
    print_errors(out, rows.iter().map(|row| (row.node_id, &row.tried)))
}

pub(super) fn print_revoked(out: &mut dyn Write, rows: &[RevokedRow], now: WallMillis) -> io::Result<()> {
    revoked_table().rows(out, revoked_cells(rows, now))
}

pub(super) fn revoked_table() -> Table<4> {
    Table::new("REVOKED", ["ID", "REVOKED", "AGE", "REVOCATION"])
}

pub(super) fn revoked_cells(rows: &[RevokedRow], now: WallMillis) -> impl Iterator<Item = [String; 4]> {
    rows.iter().map(move |row| {
        [row.node_id.to_string(), time(row.revoked_at), age(row.revoked_at, now), row.revocation.clone()]
    })
}

pub(super) fn print_registered(out: &mut dyn Write, rows: &[RegisteredRow]) -> io::Result<()> {
    let cells = rows.iter().map(|row| {
        let networks: Vec<String> = row.networks.iter().map(u16::to_string).collect();
        let networks = if networks.is_empty() { "-".to_owned() } else { networks.join(",") };
        let addresses = if row.addresses.is_empty() { dash(row.address.as_ref()) } else { row.addresses.join(", ") };
        [row.node_id.to_string(), addresses, networks, dash(row.fingerprint.as_ref())]
    });
    table(out, "PEERS FILE", ["ID", "ADDRESS", "NETWORKS", "FINGERPRINT"], cells)
}

pub(super) fn print_revoked_keys(out: &mut dyn Write, rows: &[RevokedKeyRow], now: WallMillis) -> io::Result<()> {
    let cells = rows
        .iter()
        .map(|row| [row.fingerprint.clone(), time(row.revoked_at), age(row.revoked_at, now), row.revocation.clone()]);
    table(out, "REVOKED KEYS", ["FINGERPRINT", "REVOKED", "AGE", "REVOCATION"], cells)
}

pub(super) fn print_ignored(
    out: &mut dyn Write,
    peers: &[IgnoredRow],
    keys: &[IgnoredKeyRow],
    now: WallMillis,
) -> io::Result<()> {
    let rows = peers.iter().map(|row| [row.node_id.to_string(), time(row.ignored_at), age(row.ignored_at, now)]);
    table(out, "IGNORED", ["ID", "IGNORED", "AGE"], rows)?;
    let rows = keys.iter().map(|row| [row.fingerprint.clone(), time(row.ignored_at), age(row.ignored_at, now)]);
    table(out, "IGNORED KEYS", ["FINGERPRINT", "IGNORED", "AGE"], rows)
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

#[cfg(all(test, not(trustkeep_loom)))]
mod tests;
