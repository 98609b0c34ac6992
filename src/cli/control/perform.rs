//! What a node does when it is asked over its control socket.
//!
//! More than 450 lines because every question stands in one match, beside what answers it.
#![forbid(unsafe_code)]

use std::io;
use std::iter;
use std::net::SocketAddr;
use std::time::Duration;

use super::{
    Announcement, Ask, FailingSnapshots, FalseKeyShown, OlderStore, PAGE_MAX, RegistryDisagreement, Reply, Saving,
    Status, Until, known, marks,
};
use crate::cli::events::EventRow;
use crate::cli::peers::Peers;
use crate::cli::rows::{
    ContradictedRow, IgnoredKeyRow, IgnoredRow, OutgoingRow, OwedRow, PeerShown, PendingRow, RegisteredRow,
    RevokedKeyRow, RevokedRow, TrustedRow, by_id,
};
use crate::cli::store_seen::StoreSeen;
use crate::cli::{log, now};
use crate::error::PersistError;
use crate::machine::input::{LookedAt, PeerOrKey};
use crate::machine::rejection::Rejection;
use crate::machine::view::View as _;
use crate::node::{CommandError, HandshakeManager, RequestOptions, Told};
use crate::peer::{NodeId, RevocationId, TrustRecord};
use crate::store::Receipt;
use crate::sync::{Arc, Deadline};
use crate::tables::table::Table as _;
use crate::tables::{Outgoing, Owed, Refusal};
use crate::wire::open_key::parse_key;

/// A running node, as its control socket serves it.
#[derive(Clone, Debug)]
pub(crate) struct Served {
    pub(crate) manager: Arc<HandshakeManager>,
    pub(crate) listen: SocketAddr,
    /// None of a node that was made without a file.
    pub(crate) peers: Option<Arc<Peers>>,
    /// None of a node that was made without a home.
    pub(crate) seen: Option<Arc<StoreSeen>>,
}

/// Does what is asked. `go_on` is asked every `slice` while waiting, and says whether anybody still wants to know.
pub(super) fn perform(node: &Served, request: Ask, go_on: &dyn Fn() -> bool, slice: Duration) -> Reply {
    let done = |outcome: Result<Reply, String>| outcome.unwrap_or_else(|message| Reply::Failed { message });
    let manager = &node.manager;
    match request {
        Ask::Request { peer, justification, expected_key, force, lift } => done(id(peer).and_then(|peer| {
            let mut options = RequestOptions::default().force(force);
            if let Some(key) = expected_key {
                options = options.expected_key(parse_key(&key).map_err(|error| format!("--key: {error}"))?);
            }
            if let Some(lift) = revocation(lift)? {
                options = options.lift(lift);
            }
            let mut differs = None;
            let asked = manager.request_telling(peer, &justification, options, &mut differs);
            //
            let other_key = differs.map(|[named, registered]| {
                format!(
                    "peer {peer}: the request goes on expecting the key {named}, which was named for it; the registry or peers \
                     file names {registered}, under which no answer is trusted by itself: if that is the right one, name it \
                     with --key, or `trustkeep cancel {peer}` and ask again"
                )
            });
            match asked {
                Ok(receipt) => durable(receipt).map(|reply| match reply {
                    Reply::Done { generation, found, .. } => {
                        let warnings: Vec<String> = other_key.into_iter().chain(clock_warning(manager)).collect();
                        let warning = (!warnings.is_empty()).then(|| warnings.join("; "));
                        Reply::Done { generation, found, warning }
                    }
                    other => other,
                }),
                Err(error) => {
                    if let CommandError::NotSent { receipt, .. } = &error {
                        // That it is kept is true only now.
                        durable(receipt.clone())?;
                        let told: Vec<String> = iter::once(refused(peer, &error)).chain(other_key).collect();
                        return Ok(Reply::NotSent { message: told.join("; ") });
                    }
                    Err(refused(peer, &error))
                }
            }
        })),
        Ask::Approve { peer, fingerprint, entry, lift } => done(id(peer).and_then(|peer| {
            let LookedAt { fingerprint, entry } = looked_at(fingerprint, entry)?;
            let was_ignored = is_ignored(manager, peer);
            let approved = manager.approve_seen(peer, fingerprint, entry, revocation(lift)?);
            let done = decided(manager, peer, approved.map_err(|error| {
                let text = not_decided(peer, &error);
                let key = known::waiting_key(manager, peer, fingerprint);
                known::with_both_revoked(text, manager, peer, &error, key)
            })?)?;
            let done = heard_again(manager, peer, was_ignored, done);
            Ok(with_others_under_key(manager, peer, done))
        })),
        Ask::Grant { peer, key, lift } => done(id(peer).and_then(|peer| {
            let key = parse_key(&key).map_err(|error| format!("KEY: {error}"))?;
            let record = TrustRecord::new(peer, key).approved_at(now().wall);
            let was_ignored = is_ignored(manager, peer);
            let was = known::was(manager, peer, &key);
            let granted = match revocation(lift)? {
                Some(lift) => manager.grant_lifting(record, lift),
                None => manager.grant(record),
            };
            let granted = granted.map_err(|error| known::with_both_revoked(refused(peer, &error), manager, peer, &error, Some(key)))?;
            let done = heard_again(manager, peer, was_ignored, durable(granted)?);
            let done = match was {
                Some(was) => known::also(done, &format!("peer {peer}: {was}")),
                None => done,
            };
            Ok(with_others_under_key(manager, peer, done))
        })),
        Ask::Reject { peer, reason, fingerprint, entry } => done(id(peer).and_then(|peer| {
            let mut named = looked_at(fingerprint, entry)?;
            let waiting = manager.store().tables().and_then(|tables| tables.sides.pending.get(peer).cloned());
            if let Some(entry) = waiting.filter(|entry| named == LookedAt::default() && entry.number != 0) {
                if entry.proven_by.is_some() {
                    return Err(format!(
                        "peer {peer}: the trusted key has signed over to the key that waits, and refusing that holds for \
                         good: name the fingerprint of the key, or --entry; see `trustkeep pending {peer}`"
                    ));
                }
                // Not another one, if it comes right now.
                named.entry = Some(entry.number);
            }
            let rejected = manager.reject_seen(peer, named, &reason);
            let (receipt, keys) = rejected.map_err(|error| not_decided(peer, &error))?;
            let keys: Vec<_> = keys.iter().map(|key| format!("refused under the key {key}")).collect();
            marks::with(decided(manager, peer, receipt), format!("peer {peer}: {}", keys.join("; ")))
        })),
        Ask::Cancel { peer } => {
            done(id(peer).and_then(|peer| durable(manager.cancel(peer).map_err(|error| refused(peer, &error))?)))
        }
        Ask::Revoke { peer, key } => done(whom(peer, key).and_then(|of| marks::revoke(manager, of))),
        Ask::ForgetRevocation { peer, key } => done(whom(peer, key).and_then(|of| marks::forget(manager, of))),
        Ask::Ignore { peer, key } => done(
            whom(peer, key).and_then(|of| durable(manager.ignore(of).map_err(|error| marks::refused(of, &error))?)),
        ),
        Ask::Unignore { peer, key } => done(
            whom(peer, key).and_then(|of| durable(manager.unignore(of).map_err(|error| marks::refused(of, &error))?)),
        ),
        Ask::RevokedKeys => Reply::RevokedKeys {
            revoked_keys: manager.revoked_keys().iter().map(|(key, mark)| RevokedKeyRow::new(key, *mark)).collect(),
        },
        Ask::Ignored => Reply::Ignored {
            ignored: manager.ignored().iter().map(|(peer, at)| IgnoredRow::new(peer.get(), *at)).collect(),
            ignored_keys: manager.ignored_keys().iter().map(|(key, at)| IgnoredKeyRow::new(key, *at)).collect(),
        },
        Ask::List { after, limit } => {
            let snapshot = manager.store().snapshot();
            let ids = || snapshot.iter_unsorted().map(|record| record.node_id);
            let (page, more) = page(ids, after, limit);
            let trusted = page.into_iter().filter_map(|peer| snapshot.get(peer));
            let (tables, now) = (manager.store().tables(), now().wall);
            let row = |record: TrustRecord| Some(TrustedRow::of(tables.as_deref()?, &record, now));
            let trusted = trusted.filter_map(row).collect();
            Reply::Trusted { trusted, more, total: snapshot.len() as u64 }
        }
        Ask::Show { peer } => done(id(peer).map(|peer| Reply::Shown(Box::new(shown(node, peer))))),
        Ask::Check { peer, key } => done(id(peer).and_then(|peer| checked(manager, peer, key))),
        Ask::ReloadPeers => done(match &node.peers {
            None => Err("this node has no peers file".to_owned()),
            Some(peers) => peers.reload().map(|peers| Reply::Peers { peers }).map_err(|error| error.to_string()),
        }),
        Ask::Pending => Reply::Pending {
            // Of one moment: a mark is that of the entry which is shown with it.
            pending: manager.store().tables().map_or_else(Vec::new, |tables| {
                let rows = tables.sides.pending.iter().map(|(peer, entry)| PendingRow::of(&tables, peer, entry));
                by_id(rows.collect(), |row| row.node_id)
            }),
        },
        Ask::Outgoing => Reply::Outgoing {
            outgoing: manager.outgoing().iter().map(|(peer, entry)| outgoing(manager, *peer, entry)).collect(),
            owed: manager.owed().iter().map(|(peer, entry)| owed(manager, *peer, entry)).collect(),
        },
        Ask::Revoked { after, limit } => {
            let tables = manager.store().tables();
            let revoked = tables.as_ref().map(|tables| &tables.sides.revoked);
            let ids = || revoked.into_iter().flat_map(|revoked| revoked.iter()).map(|(peer, _)| peer);
            let (page, more) = page(ids, after, limit);
            let mark = |peer: NodeId| Some(RevokedRow::new(peer.get(), *revoked?.get(peer)?));
            let total = revoked.map_or(0, |revoked| revoked.len() as u64);
            Reply::Revoked { revoked: page.into_iter().filter_map(mark).collect(), more, total }
        }
        Ask::Wait { peer, until, timeout_ms, asked } => {
            let timeout = Duration::from_millis(timeout_ms);
            done(id(peer).and_then(|peer| wait(manager, &Wanted { peer, until, timeout, asked }, go_on, slice)))
        }
        Ask::Told { peer } => done(id(peer).map(|peer| {
            let (not_told, given_up) = match manager.wait_told(peer, TOLD_WITHIN) {
                Told::Nothing | Told::Told => (None, false),
                Told::NotYet(why) => (Some(why), false),
                Told::GivenUp(why) => (Some(why), true),
            };
            Reply::Told { not_told, given_up }
        })),
        Ask::RegistryList => {
            let held = manager.registry_disagreement();
            let compared = held.as_ref().map_or(0, |held| held.compared);
            let contradicted = held.iter().flat_map(|held| &held.contradicted).map(ContradictedRow::from).collect();
            Reply::Registry { compared, contradicted }
        }
        Ask::RegistryConfirm => done(
            manager
                .confirm_registry()
                .map_err(|error| match error {
                    CommandError::Refused(Rejection::NothingToDo) => "the registry needs no decision".to_owned(),
                    error => error.to_string(),
                })
                .and_then(|(_, receipt)| durable(receipt)),
        ),
        Ask::RegistryReset => done(
            manager
                .forget_revisions()
                .map_err(|error| match error {
                    CommandError::Refused(Rejection::NothingToDo) => {
                        "no answer of the registry had a revision, so none is refused for it".to_owned()
                    }
                    error => error.to_string(),
                })
                .and_then(|(_, receipt)| durable(receipt)),
        ),
        Ask::Status => Reply::Status(Box::new(status(node))),
        Ask::Watch => Reply::Failed { message: "a watch is no single question".to_owned() },
    }
}

fn outgoing(manager: &HandshakeManager, peer: NodeId, entry: &Outgoing) -> OutgoingRow {
    OutgoingRow::new(peer.get(), entry).tried(&manager.tries_of_request(peer, entry))
}

fn owed(manager: &HandshakeManager, peer: NodeId, entry: &Owed) -> OwedRow {
    OwedRow::new(peer.get(), entry, &manager.tries_of_owed(peer, entry))
}

fn id(peer: u32) -> Result<NodeId, String> {
    NodeId::try_from(peer).map_err(|error| error.to_string())
}

fn revocation(text: Option<String>) -> Result<Option<RevocationId>, String> {
    text.map(|text| text.parse().map_err(|error| format!("--lift: {error}"))).transpose()
}

fn whom(peer: Option<u32>, key: Option<String>) -> Result<PeerOrKey, String> {
    match (peer, key) {
        (Some(peer), None) => id(peer).map(PeerOrKey::Peer),
        (None, Some(key)) => parse_key(&key).map(PeerOrKey::Key).map_err(|error| format!("--key: {error}")),
        _ => Err("neither a peer nor a key, or both".to_owned()),
    }
}

fn refused(peer: NodeId, error: &CommandError) -> String {
    format!("peer {peer}: {error}")
}

fn is_ignored(manager: &HandshakeManager, peer: NodeId) -> bool {
    manager.store().tables().is_some_and(|tables| tables.sides.ignored.get(peer).is_some())
}

/// says so where trust has ended the ignoring of the peer.
fn heard_again(manager: &HandshakeManager, peer: NodeId, was_ignored: bool, mut reply: Reply) -> Reply {
    if was_ignored
        && !is_ignored(manager, peer)
        && let Reply::Done { found, .. } | Reply::Decided { found, .. } = &mut reply
    {
        found.get_or_insert_with(|| format!("peer {peer}: was ignored, and is heard again"));
    }
    reply
}

/// With the command that shows what waits: no text has a stranger's fingerprint.
fn not_decided(peer: NodeId, error: &CommandError) -> String {
    use Rejection::{FingerprintRequired, OtherEntry, WrongFingerprint};
    let text = refused(peer, error);
    match error {
        CommandError::Refused(FingerprintRequired { .. } | WrongFingerprint { .. } | OtherEntry) => {
            format!("{text}; see `trustkeep pending {peer}`")
        }
        _ => text,
    }
}

fn looked_at(fingerprint: Option<String>, entry: Option<String>) -> Result<LookedAt, String> {
    let fingerprint = fingerprint.map(|text| text.parse()).transpose();
    let fingerprint = fingerprint.map_err(|error: crate::peer::InvalidFingerprint| error.to_string())?;
    Ok(LookedAt { fingerprint, entry: entry.map(|entry| number(&entry)).transpose()? })
}

/// The number of an entry, as `pending` shows it.
fn number(text: &str) -> Result<u64, String> {
    let is_number = text.len() == 16 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let number = if is_number { u64::from_str_radix(text, 16).ok() } else { None };
    number.ok_or_else(|| "--entry: an entry is named by 16 lower-case hexadecimal digits".to_owned())
}

/// Answers once the change is durable. It is in force either way.
pub(super) fn durable(receipt: Receipt) -> Result<Reply, String> {
    match receipt.wait_durable_timeout(DURABLE_WITHIN) {
        Ok(()) => Ok(Reply::Done { generation: receipt.generation().get(), found: None, warning: None }),
        Err(error) => Err(in_force(&error)),
    }
}

/// The same, with a warning if other peers are trusted under the key of this one.
fn with_others_under_key(manager: &HandshakeManager, peer: NodeId, mut reply: Reply) -> Reply {
    let snapshot = manager.store().snapshot();
    let key = snapshot.get(peer).and_then(|record| record.public_key);
    let mut others = key.map(|key| snapshot.find_by_key(&key)).unwrap_or_default();
    others.retain(|other| *other != peer);
    if let (Some(first), Reply::Done { warning, .. } | Reply::Decided { warning, .. }) = (others.first(), &mut reply) {
        let more = match others.len() {
            1 => String::new(),
            len => format!(" and {} more", len - 1),
        };
        let so = format!("peer {peer} has the key of peer {first}{more}: whoever holds it is each of them");
        *warning = Some(warning.take().map_or(so.clone(), |warning| format!("{warning}; {so}")));
    }
    reply
}

/// what the newest answer to a request says of our clock.
fn clock_warning(manager: &HandshakeManager) -> Option<String> {
    let skews = manager.skews();
    let (_, millis) = skews.iter().find(|(name, _)| *name == "answer")?;
    let by = Duration::from_millis(millis.unsigned_abs()).as_secs_f64();
    let side = if *millis < 0 { "behind" } else { "ahead of" };
    Some(format!("the newest answer to a request was stamped {by:.1} s {side} our clock: one of the clocks is wrong"))
}

/// The same, and whether the peer was told already. That is not waited for; see [`Ask::Told`].
pub(super) fn decided(manager: &HandshakeManager, peer: NodeId, receipt: Receipt) -> Result<Reply, String> {
    let done = durable(receipt)?;
    let Reply::Done { generation, found, warning } = done else { return Ok(done) };
    Ok(match manager.wait_told(peer, Duration::ZERO) {
        Told::Nothing => Reply::Done { generation, found, warning },
        Told::Told => Reply::Decided { generation, found, not_told: None, given_up: false, warning },
        Told::NotYet(why) => Reply::Decided { generation, found, not_told: Some(why), given_up: false, warning },
        Told::GivenUp(why) => Reply::Decided { generation, found, not_told: Some(why), given_up: true, warning },
    })
}

fn in_force(error: &PersistError) -> String {
    format!("it is in force, but would not survive a crash yet: {error}; the node goes on trying to save it")
}

/// Waits until it is so and durably so. Events wake it, so nothing is polled; the slices are for `go_on` alone.
fn wait(
    manager: &HandshakeManager,
    wanted: &Wanted,
    go_on: &dyn Fn() -> bool,
    slice: Duration,
) -> Result<Reply, String> {
    let &Wanted { peer, until, timeout, .. } = wanted;
    let deadline = Deadline::after(timeout);
    // Subscribed before the first look: what happens in between is not missed.
    let events = manager.store().subscribe_to_any();
    let is_so = || match until {
        Until::Trusted => manager.is_trusted(peer) || peer == manager.node_id(),
        Until::Pending => manager.store().tables().is_some_and(|tables| tables.pending(peer).is_some()),
        Until::Untrusted => !manager.is_trusted(peer) && peer != manager.node_id(),
    };
    loop {
        if is_so() {
            let generation = manager.store().flush().map_err(|error| in_force(&error))?;
            // Still, now that it is durable?
            if is_so() {
                let (generation, warning) = (generation.get(), clock_warning(manager));
                return Ok(Reply::Done { generation, found: None, warning });
            }
        }
        // an authentic refusal is the answer. One that nobody vouches for is none.
        if let Some(refusal) = refusal(manager, peer).filter(|_| until == Until::Trusted) {
            let message = format!("peer {peer} refused");
            return Ok(Reply::Refused { message, reason: refusal.reason });
        }
        if let Some(why) = why_never(manager, wanted) {
            return Ok(Reply::No { message: format!("peer {peer} {why}") });
        }
        let left = deadline.remaining();
        if !go_on() {
            return Err("the node is stopping".to_owned());
        }
        if left.is_zero() {
            let state = format!("{until:?}").to_lowercase();
            return Ok(Reply::No { message: format!("peer {peer} is not {state} after {} s", timeout.as_secs_f64()) });
        }
        // Whatever happened, look again.
        drop(events.recv_timeout(left.min(slice)));
    }
}

/// What is waited for.
struct Wanted {
    peer: NodeId,
    until: Until,
    timeout: Duration,
    /// It was asked for trust.
    asked: bool,
}

/// Why that cannot come true any more without somebody's doing, if it cannot.
fn why_never(manager: &HandshakeManager, wanted: &Wanted) -> Option<&'static str> {
    let &Wanted { peer, until, asked, .. } = wanted;
    if peer == manager.node_id() {
        return (until != Until::Trusted).then_some("is this node itself, which always trusts itself and never waits");
    }
    if until == Until::Untrusted {
        return None;
    }
    let tables = manager.store().tables()?;
    if tables.sides.ignored.get(peer).is_some() {
        return Some("is ignored: nothing of it is heard; see `unignore`");
    }
    // The request is looked for first: trust takes its place in one step.
    let is_gone = asked && tables.outgoing(peer).is_none() && tables.pending(peer).is_none();
    (is_gone && until == Until::Trusted && !manager.is_trusted(peer))
        .then_some("is not trusted, and the request to it is gone: it was cancelled, or the peer was revoked")
}

/// The lowest of these ids behind `after`, and whether there are more. Looks at every one and keeps no more than a page.
fn page<I: Iterator<Item = NodeId>>(
    ids: impl FnOnce() -> I,
    after: Option<u32>,
    limit: Option<u64>,
) -> (Vec<NodeId>, bool) {
    let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(PAGE_MAX).min(PAGE_MAX);
    let mut lowest = std::collections::BinaryHeap::new();
    let mut more = false;
    for id in ids().filter(|id| after.is_none_or(|after| id.get() > after)) {
        if lowest.len() < limit {
            lowest.push(id);
        } else {
            more = true;
            if let Some(mut highest) = lowest.peek_mut()
                && id < *highest
            {
                *highest = id;
            }
        }
    }
    (lowest.into_sorted_vec(), more)
}

fn checked(manager: &HandshakeManager, peer: NodeId, key: Option<String>) -> Result<Reply, String> {
    let key = key.map(|key| parse_key(&key)).transpose().map_err(|error| format!("--key: {error}"))?;
    let record = manager.store().snapshot().get(peer);
    let ours = (peer == manager.node_id()).then(|| manager.public_key());
    let held = record.and_then(|record| record.public_key).or(ours);
    let trusted = (record.is_some() || ours.is_some()) && key.is_none_or(|key| held == Some(key));
    let row = held.filter(|_| trusted);
    Ok(Reply::Checked {
        node_id: peer.get(),
        trusted,
        public_key: row.map(|key| key.to_base64()),
        fingerprint: row.map(|key| key.fingerprint().to_string()),
    })
}

/// Everything that is known of a peer.
fn shown(node: &Served, peer: NodeId) -> PeerShown {
    let Served { manager, peers, .. } = node;
    let tables = manager.store().tables();
    let tables = tables.as_deref();
    PeerShown {
        node_id: peer.get(),
        is_this_node: peer == manager.node_id(),
        trusted: tables.and_then(|it| Some(TrustedRow::of(it, &it.trusted.get(peer)?, now().wall))),
        pending: tables.and_then(|it| Some(PendingRow::of(it, peer, it.pending(peer)?))),
        outgoing: tables.and_then(|it| it.outgoing(peer)).map(|entry| outgoing(manager, peer, entry)),
        owed: tables.and_then(|it| it.sides.owed.get(peer)).map(|entry| owed(manager, peer, entry)),
        revoked: tables.and_then(|it| it.sides.revoked.get(peer)).map(|mark| RevokedRow::new(peer.get(), *mark)),
        ignored: tables.and_then(|it| it.sides.ignored.get(peer)).map(|at| IgnoredRow::new(peer.get(), *at)),
        registry: peers.as_ref().and_then(|peers| RegisteredRow::of(&peers.now(), peer)),
    }
}

/// The authentic refusal of our newest request to this peer, for as long as it stands.
fn refusal(manager: &HandshakeManager, peer: NodeId) -> Option<Refusal> {
    let tables = manager.store().tables()?;
    tables.outgoing(peer)?.refused.clone().filter(|refusal| refusal.authentic)
}

/// Tells of every event from now on, until `tell` fails or `go_on` says no. Events from before that moment are told, too.
pub(super) fn watch(
    node: &Served,
    tell: &dyn Fn(EventRow) -> io::Result<()>,
    go_on: &dyn Fn() -> bool,
    slice: Duration,
) -> io::Result<()> {
    // Subscribed before the first word: what happens after it is not missed.
    let events = node.manager.subscribe();
    let generation = node.manager.store().generation().get();
    tell(EventRow::watching(now().wall, node.manager.node_id(), generation))?;
    if let Some(older) = older_store(node) {
        tell(EventRow::older_store(now().wall, older))?;
    }
    while go_on() {
        if let Some(event) = events.recv_timeout(slice) {
            tell(EventRow::new(now().wall, &event))?;
        }
    }
    // The queue holds no more than its limit now, and a loss at its end is told before `recv` says that it ends.
    node.manager.store().end_subscription(events.id());
    while let Some(event) = events.recv() {
        tell(EventRow::new(now().wall, &event))?;
    }
    Ok(())
}

/// What the operator has not accepted yet.
fn older_store(node: &Served) -> Option<OlderStore> {
    node.seen.as_ref().and_then(|seen| seen.older()).map(OlderStore::from)
}

fn status(node: &Served) -> Status {
    let Served { manager, listen, .. } = node;
    let older_store = older_store(node);
    let peers_file_refused = node.peers.as_ref().and_then(|peers| peers.refused()).map(Into::into);
    let (store, health) = (manager.store(), manager.store().health());
    let registry_disagreement = manager.registry_disagreement().map(|held| {
        let contradicted = held.contradicted.len();
        RegistryDisagreement { compared: held.compared, contradicted }
    });
    Status {
        node_id: manager.node_id().get(),
        public_key: manager.public_key().to_base64(),
        fingerprint: manager.public_key().fingerprint().to_string(),
        listen: listen.to_string(),
        pid: Some(std::process::id()),
        generation: health.generation.get(),
        durable_generation: health.durable_generation.get(),
        healthy: health.is_ok()
            && registry_disagreement.is_none()
            && older_store.is_none()
            && peers_file_refused.is_none(),
        failing: health.failing.map(|failing| failing.error.to_string()),
        saving: health.saving.map(|saving| Saving { since: saving.since.as_millis(), overdue: saving.is_overdue }),
        failing_snapshots: health.failing_snapshots.map(|snapshots| FailingSnapshots {
            since: snapshots.since.as_millis(),
            attempts: snapshots.attempts,
            error: snapshots.error.to_string(),
            journal_bytes: snapshots.journal_bytes,
        }),
        registry_disagreement,
        trusted: store.snapshot().len(),
        pending: manager.pending().len(),
        outgoing: manager.outgoing().len(),
        revoked: manager.revoked().len(),
        refused_newcomers: manager
            .refused_newcomers()
            .into_iter()
            .map(|(source, count)| (source.to_string(), count))
            .collect(),
        revoked_keys: manager.revoked_keys().len(),
        ignored: manager.ignored().len() + manager.ignored_keys().len(),
        near_limits: health.near_limits.iter().map(|near| (near.limit.to_owned(), near.entries, near.max)).collect(),
        counters: counters(manager),
        skews: manager.skews().into_iter().map(|(name, millis)| (name.to_owned(), millis)).collect(),
        skewed_peers: manager.skewed_peers().into_iter().map(|(name, peer)| (name.to_owned(), peer.get())).collect(),
        announcement: manager.announcement().map(|it| Announcement { told: it.told, owed: it.owed }),
        older_store,
        false_key: false_key(manager),
        peers_file_refused,
    }
}

/// the newest, and how many there were.
fn false_key(manager: &HandshakeManager) -> Option<FalseKeyShown> {
    let newest = manager.newest_false_key()?;
    let count = manager.counters().into_iter().find(|(name, _)| *name == Rejection::KeyMismatch.name());
    Some(FalseKeyShown {
        at: newest.at.as_millis(),
        node_id: newest.peer.get(),
        source: newest.source.map(|source| source.to_string()),
        expected: newest.expected.to_string(),
        shown: newest.shown.to_string(),
        ended: newest.ended,
        count: count.map_or(1, |(_, count)| count),
    })
}

/// Those of the node, and what its log lost; in the order of the alphabet.
fn counters(manager: &HandshakeManager) -> Vec<(String, u64)> {
    let dropped = Some(("log_lines_dropped", log::dropped())).filter(|(_, count)| *count > 0);
    let mut counters: Vec<_> = manager.counters().into_iter().chain(dropped).collect();
    counters.sort_unstable_by_key(|(name, _)| *name);
    counters.into_iter().map(|(name, count)| (name.to_owned(), count)).collect()
}

/// How long is waited for the first try to tell a peer.
const TOLD_WITHIN: Duration = Duration::from_secs(1);
/// A disk that fails for longer is worth an answer.
const DURABLE_WITHIN: Duration = Duration::from_secs(10);
