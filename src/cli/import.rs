//! `import`: a `trust.json` into a store that nobody has open.
//!
//! What must hold: the store is changed once, durably, or not at all; a store is created only for a document that could be
//! read; what was left out is told by name. Afterwards the store's generation is at least the document's, so that a
//! document which was read into a new store is what an export of it writes.
//!
//! More than 450 lines because what is read stands beside what is told of it.
#![forbid(unsafe_code)]

use core::cell::Cell;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use serde::Serialize;

use super::arguments::Place;
use super::home::Home;
use super::progress::Bar;
use super::store_seen::Beside;
use super::trust_json::{self, Count, Finding, FirstPeers, Into, List, SharedKey, Taken, Unknown};
use super::{Answer, Failure, complain, now, owner, print};
use crate::config::Limits;
use crate::error::{OpenError, WriteError};
use crate::machine::view::Nonce;
use crate::map::mix::Mix;
use crate::node::{Identity as _, Random as _, SystemRandom};
use crate::peer::{NodeId, PublicKey, RevocationId};
use crate::persist::file::{Directory, LoadMode};
use crate::persist::format::StoreId;
use crate::persist::load::{Loaded, Opening, load};
use crate::persist::log::Sizes;
use crate::persist::recover::{GENERATION_MAX, Listing, RecoverPolicy};
use crate::store::fresh_identity;
use crate::sync::Arc;
use crate::tables::Tables;
use crate::wire::text::Text;

#[derive(Serialize)]
struct Imported {
    dir: String,
    /// Whether there was no store before.
    created: bool,
    /// Whether anything was written.
    changed: bool,
    /// Durable.
    generation: u64,
    trusted: CountRow,
    pending: CountRow,
    outgoing: CountRow,
    revoked: CountRow,
    floors: CountRow,
    revoked_keys: CountRow,
    ignored: CountRow,
    ignored_keys: CountRow,
    successors: CountRow,
    refused: CountRow,
    owed: CountRow,
    revisions: CountRow,
    findings: Vec<FindingRow>,
    /// How many more there were than are listed.
    findings_left_out: u64,
    /// Names that mean nothing where they stand.
    unknown: Vec<UnknownRow>,
    /// How many fields had other such names.
    unknown_left_out: u64,
    /// Requests, and answers that are owed, that got a fresh nonce, because the document has none.
    fresh_nonces: u64,
    /// Newly trusted peers without a key.
    unbound: u64,
    /// The first of them.
    unbound_peers: Vec<u32>,
    /// Keys under which several peers are trusted now, at least one of them newly.
    shared_keys: Vec<SharedKeyRow>,
    shared_keys_left_out: u64,
}

#[derive(Serialize)]
struct SharedKeyRow {
    public_key: String,
    fingerprint: String,
    count: u64,
    /// The first of them.
    peers: Vec<u32>,
}

#[derive(Clone, Copy, Serialize)]
struct CountRow {
    taken: u64,
    unchanged: u64,
    skipped: u64,
}

#[derive(Serialize)]
struct FindingRow {
    list: &'static str,
    index: u64,
    node_id: Option<u32>,
    skipped: bool,
    why: String,
}

#[derive(Serialize)]
struct UnknownRow {
    /// None: at the top.
    list: Option<&'static str>,
    index: Option<u64>,
    name: String,
}

impl From<&Unknown> for UnknownRow {
    fn from(unknown: &Unknown) -> Self {
        let Unknown { list, index, name } = unknown.clone();
        Self { list: list.map(List::name), index, name }
    }
}

impl From<Count> for CountRow {
    fn from(Count { taken, unchanged, skipped }: Count) -> Self {
        Self { taken, unchanged, skipped }
    }
}

impl From<SharedKey> for SharedKeyRow {
    fn from(SharedKey { key, peers: FirstPeers { count, peers } }: SharedKey) -> Self {
        Self { public_key: key.to_base64(), fingerprint: key.fingerprint().to_string(), count, peers }
    }
}

impl From<&Finding> for FindingRow {
    fn from(finding: &Finding) -> Self {
        let Finding { list, index, node_id, skipped, why } = finding.clone();
        Self { list: list.name(), index, node_id, skipped, why }
    }
}

/// Takes what can be taken; `No` if something could not.
pub(super) fn import(
    place: &Place,
    key_group: Option<u32>,
    file: &Path,
    lifts: &[RevocationId],
    strict: bool,
    json: bool,
) -> Result<Answer, Failure> {
    let document = Document::open(file)?;
    owner::work_on(&place.dir())?;
    let (dir, own) = find(place, key_group)?;
    let dir = owner::real(&dir);
    let seen = Beside::new(place.home.as_deref(), &place.dir());
    let store = Store::open(&dir)?;
    let created = matches!(store, Store::Missing(_));
    print::told_place(&[("--home", place.home.as_deref()), ("--dir", place.dir.as_deref())]);
    let (mut taken, said) = read(document, store.tables(), own, lifts)?;
    taken.findings.iter_mut().for_each(|finding| finding.why = print::with_place(&finding.why));
    let skipped: u64 = taken.counts.iter().map(|count| count.skipped).sum();
    if strict && let Some(why) = too_lax(&taken, skipped) {
        tell(&taken);
        let what = format!("{}: {why}, and with --strict nothing was changed", file.display());
        return Err(Failure::hint(what, "correct them, or import without --strict"));
    }
    let (generation, changed) = store.save(&dir, &taken.after, said, &seen)?;
    if !json {
        tell(&taken);
    }
    let Taken { counts, findings, findings_left_out, unknown, unknown_left_out, fresh_nonces, remarks, .. } = taken;
    let [trusted, pending, outgoing, revoked, floors, revoked_keys, ignored, ignored_keys, rest @ ..] =
        counts.map(CountRow::from);
    let [successors, refused, owed, revisions] = rest;
    let imported = Imported {
        dir: dir.display().to_string(),
        created,
        changed,
        generation,
        trusted,
        pending,
        outgoing,
        revoked,
        floors,
        revoked_keys,
        ignored,
        ignored_keys,
        successors,
        refused,
        owed,
        revisions,
        findings: findings.iter().map(FindingRow::from).collect(),
        findings_left_out,
        unknown: unknown.iter().map(UnknownRow::from).collect(),
        unknown_left_out,
        fresh_nonces,
        unbound: remarks.unbound.count,
        unbound_peers: remarks.unbound.peers,
        shared_keys: remarks.shared_keys.into_iter().map(SharedKeyRow::from).collect(),
        shared_keys_left_out: remarks.shared_keys_left_out,
    };
    if json {
        print::json(&imported)?;
    } else {
        show(&imported)?;
    }
    if skipped == 0 {
        return Ok(Answer::Yes);
    }
    let was = if skipped == 1 { "1 entry was" } else { &*format!("{skipped} entries were") };
    complain(format_args!("{was} skipped; everything else is durable"));
    Ok(Answer::No)
}

/// A node, and its key.
type Own = (NodeId, PublicKey);

/// Why `--strict` takes nothing of this, if so.
fn too_lax(taken: &Taken, skipped: u64) -> Option<String> {
    let mut why = Vec::new();
    if skipped > 0 {
        let which = if skipped == 1 { "1 entry" } else { &*format!("{skipped} entries") };
        why.push(format!("{which} cannot be taken"));
    }
    if !taken.unknown.is_empty() {
        why.push("some names are not known".to_owned());
    }
    if !taken.remarks.shared_keys.is_empty() {
        why.push("several peers have one key".to_owned());
    }
    (!why.is_empty()).then(|| why.join(", "))
}

/// The store's directory, and who lives there if that is known.
fn find(place: &Place, key_group: Option<u32>) -> Result<(PathBuf, Option<Own>), Failure> {
    if let Some(home) = &place.home {
        let home = Home::new(home).with_key_group(key_group);
        let identity = home.identity()?;
        return Ok((home.store(), Some((identity.node_id(), identity.public_key()))));
    }
    // The command line has one of the two.
    let dir = place.dir.clone().unwrap_or_default();
    let own = around(&dir, key_group)?;
    Ok((dir, own))
}

/// Who lives in the home that a store lies in, if it lies in one: by the path as it was given, or as it really is.
fn around(dir: &Path, key_group: Option<u32>) -> Result<Option<Own>, Failure> {
    let given = dir.file_name().and(dir.parent()).map(|parent| match parent.as_os_str().is_empty() {
        true => PathBuf::from("."),
        false => parent.to_owned(),
    });
    let real = dir.canonicalize().ok().and_then(|dir| dir.parent().map(Path::to_owned));
    for home in given.into_iter().chain(real) {
        if let Some(own) = Home::new(&home).with_key_group(key_group).resident()? {
            return Ok(Some(own));
        }
    }
    Ok(None)
}

/// The store that is imported into, and the lock on it.
enum Store {
    Open(Box<Loaded>),
    /// There is none; who it will be, and nothing.
    Missing(Box<(StoreId, Tables)>),
}

impl Store {
    fn open(dir: &Path) -> Result<Self, Failure> {
        let opened = Directory::own(dir, false, LoadMode::Map)
            .and_then(|directory| load(Arc::new(directory), opening(false), now(), fresh_identity));
        match opened {
            Ok(loaded) => Ok(Self::Open(Box::new(loaded))),
            Err(OpenError::Missing { .. }) => {
                let id = fresh_identity()?;
                Ok(Self::Missing(Box::new((id, Tables::new(Mix::new(id.seed))))))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn tables(&self) -> &Tables {
        match self {
            Self::Open(loaded) => &loaded.tables,
            Self::Missing(missing) => &missing.1,
        }
    }

    /// Makes `after` the store's state, durably; returns its generation, and whether anything was written.
    fn save(self, dir: &Path, after: &Tables, said: u64, seen: &Beside) -> Result<(u64, bool), Failure> {
        let (mut loaded, created) = match self {
            Self::Open(loaded) => (*loaded, false),
            Self::Missing(missing) => (create(dir, missing.0)?, true),
        };
        if let Some(store) = loaded.report.store {
            // A document that is older than what the home had is told when the node starts.
            if created { seen.replaced(store.id) } else { seen.opened(store.id, loaded.generation) }
        }
        let is_same = after.diff(&loaded.tables).is_empty();
        if is_same && said <= loaded.generation {
            return Ok((loaded.generation, created));
        }
        if loaded.generation >= GENERATION_MAX {
            return Err(Failure::new(WriteError::Full(())));
        }
        let generation = said.max(loaded.generation + u64::from(!is_same));
        loaded.saver.save(generation, after)?;
        loaded.saver.close()?;
        Ok((generation, true))
    }
}

/// Creates the store, unless somebody else did so meanwhile.
fn create(dir: &Path, id: StoreId) -> Result<Loaded, Failure> {
    let directory = Directory::own(dir, true, LoadMode::Read)?;
    let listing = Listing::new(&crate::persist::load::list(&directory)?);
    if listing.genesis || !listing.snapshots.is_empty() || !listing.journals.is_empty() {
        return Err(Failure::hint(format_args!("{}: a store appeared here meanwhile", dir.display()), "import again"));
    }
    // Its own id first; what is random besides is random each time.
    let first = Cell::new(Some(id));
    Ok(load(Arc::new(directory), opening(true), now(), || first.take().map_or_else(fresh_identity, Ok))?)
}

fn opening(create: bool) -> Opening {
    Opening { create, policy: RecoverPolicy::Fail, sizes: Sizes::default() }
}

/// What is imported, opened.
struct Document<'a> {
    file: &'a Path,
    /// With its length; or standard input.
    opened: Option<(File, u64)>,
}

impl<'a> Document<'a> {
    fn open(file: &'a Path) -> Result<Self, Failure> {
        if file == Path::new("-") {
            return Ok(Self { file, opened: None });
        }
        // A pipe that the operator names is waited for, as of the output of another command.
        let opened = rustix::fs::open(file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map(File::from);
        let opened = opened.map_err(io::Error::from).and_then(|opened| {
            let found = opened.metadata()?;
            if found.is_dir() {
                return Err(io::Error::other("a directory, and no document"));
            }
            Ok(Some((opened, found.len())))
        });
        Ok(Self { file, opened: opened.map_err(|error| unread(file, &error))? })
    }
}

fn unread(file: &Path, error: &dyn core::fmt::Display) -> Failure {
    let what = format!("{}: {}", file.display(), Text::filtered(&error.to_string()));
    Failure::hint(what, "nothing was changed")
}

/// Reads the document, and shows how far it is.
fn read(
    document: Document<'_>,
    before: &Tables,
    own: Option<Own>,
    lifts: &[RevocationId],
) -> Result<(Taken, u64), Failure> {
    let Document { file, opened } = document;
    let bar = Bar::new("importing");
    let from: Box<dyn Read> = match opened {
        None => Box::new(io::stdin().lock()),
        Some((opened, bytes)) => {
            bar.begin(bytes);
            Box::new(opened)
        }
    };
    let mut no_random = None;
    let mut nonce = || {
        let mut bytes = [0; 16];
        if let Err(error) = SystemRandom.fill(&mut bytes) {
            no_random = Some(error);
        }
        Nonce(bytes)
    };
    let (own_id, own_key) = own.unzip();
    let into = Into { before, now: now(), own_id, own_key, limits: Limits::default(), lifts, nonce: &mut nonce };
    let mut from = BufReader::with_capacity(BLOCK_BYTES, Counted { from, bar: &bar });
    // Some editors begin a text so.
    if from.fill_buf().is_ok_and(|first| first.starts_with(BYTE_ORDER_MARK)) {
        from.consume(BYTE_ORDER_MARK.len());
    }
    let read = trust_json::read(from, into);
    let read = read.map_err(|error| unread(file, &error))?;
    match no_random {
        Some(error) => Err(Failure::new(format_args!("no random bytes: {error}"))),
        None => Ok(read),
    }
}

/// Tells the bar what is read.
struct Counted<'a> {
    from: Box<dyn Read>,
    bar: &'a Bar,
}

impl Read for Counted<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(into)?;
        self.bar.advance(read as u64);
        Ok(read)
    }
}

fn tell(taken: &Taken) {
    taken.findings.iter().for_each(complain);
    if taken.findings_left_out > 0 {
        complain(format_args!("and {} more", taken.findings_left_out));
    }
    taken.unknown.iter().for_each(complain);
    if taken.unknown_left_out > 0 {
        complain(format_args!("{} more fields have names that are not known", taken.unknown_left_out));
    }
    let remarks = &taken.remarks;
    for SharedKey { key, peers } in &remarks.shared_keys {
        let fingerprint = key.fingerprint();
        complain(format_args!(
            "one key under {} peers, whose holder is each of them: {fingerprint}: {peers}",
            peers.count
        ));
    }
    if remarks.shared_keys_left_out > 0 {
        complain(format_args!("{} more keys stand under several peers", remarks.shared_keys_left_out));
    }
    if taken.fresh_nonces > 0 {
        let count = taken.fresh_nonces;
        complain(format_args!(
            "{count} requests and answers came without their nonce and got a fresh one: no answer that is under way \
            will count; ask again, or have the peer ask again"
        ));
    }
}

fn show(imported: &Imported) -> Result<(), Failure> {
    let Imported { dir, created, changed, generation, trusted, pending, outgoing, revoked, floors, .. } = imported;
    let Imported {
        unbound,
        unbound_peers,
        revoked_keys,
        ignored,
        ignored_keys,
        successors,
        refused,
        owed,
        revisions,
        ..
    } = imported;
    let what = match (created, changed) {
        (true, _) => "created",
        (false, true) => "changed",
        (false, false) => "unchanged",
    };
    print::to_stdout(|out| {
        writeln!(out, "{dir}: {what}, durable as of generation {generation}")?;
        let rows = List::ALL.into_iter().zip([
            trusted,
            pending,
            outgoing,
            revoked,
            floors,
            revoked_keys,
            ignored,
            ignored_keys,
            successors,
            refused,
            owed,
            revisions,
        ]);
        // The lists of documents of all times, and of those that are younger the ones that are used.
        let is_shown = |list: &List, count: &CountRow| {
            !list.is_left_out_if_empty() || count.taken + count.unchanged + count.skipped > 0
        };
        let cells = rows.filter(|(list, count)| is_shown(list, count)).map(|(list, count)| {
            let CountRow { taken, unchanged, skipped } = count;
            [list.name().to_owned(), taken.to_string(), unchanged.to_string(), skipped.to_string()]
        });
        print::table(out, "ENTRIES", ["LIST", "TAKEN", "UNCHANGED", "SKIPPED"], cells)?;
        if *unbound > 0 {
            let peers = FirstPeers { count: *unbound, peers: unbound_peers.clone() };
            writeln!(out, "unbound, without a `public_key`: {unbound} of the trusted: {peers}")?;
            writeln!(out, "  {UNBOUND}")?;
        }
        Ok(())
    })
}

const UNBOUND: &str = "the first key that somebody vouches for becomes that peer's own";
const BLOCK_BYTES: usize = 64 << 10;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
