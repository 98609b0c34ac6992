//! `import`: a `trust.json` into a store that nobody has open.
//!
//! What must hold: the store is changed once, durably, or not at all; a store is created only for a document that could be
//! read; what was left out is told by name. Afterwards the store's generation is at least the document's, so that a
//! document which was read into a new store is what an export of it writes.
#![forbid(unsafe_code)]

use core::cell::Cell;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use serde::Serialize;

use super::arguments::Place;
use super::home::Home;
use super::progress::Bar;
use super::trust_json::{self, Count, Finding, Into, List, Taken};
use super::{Answer, Failure, complain, now, print};
use crate::config::Limits;
use crate::error::{OpenError, WriteError};
use crate::machine::view::Nonce;
use crate::map::mix::Mix;
use crate::node::{Identity as _, Random as _, SystemRandom};
use crate::peer::NodeId;
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
    findings: Vec<FindingRow>,
    /// How many more there were than are listed.
    findings_left_out: u64,
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

impl From<Count> for CountRow {
    fn from(Count { taken, unchanged, skipped }: Count) -> Self {
        Self { taken, unchanged, skipped }
    }
}

impl From<&Finding> for FindingRow {
    fn from(finding: &Finding) -> Self {
        let Finding { list, index, node_id, skipped, why } = finding.clone();
        Self { list: list.name(), index, node_id, skipped, why }
    }
}

/// Takes what can be taken; `No` if something could not.
pub(super) fn import(place: &Place, file: &Path, strict: bool, json: bool) -> Result<Answer, Failure> {
    let (dir, own_id) = find(place)?;
    let store = Store::open(&dir)?;
    let created = matches!(store, Store::Missing(_));
    let (taken, said) = read(file, store.tables(), own_id)?;
    let Taken { after, counts, findings, findings_left_out } = taken;
    let skipped: u64 = counts.iter().map(|count| count.skipped).sum();
    if strict && skipped > 0 {
        tell(&findings, findings_left_out);
        let which = if skipped == 1 { "1 entry" } else { &*format!("{skipped} entries") };
        let what = format!("{}: {which} cannot be taken, and with --strict nothing was changed", file.display());
        return Err(Failure::hint(what, "correct them, or import without --strict"));
    }
    let (generation, changed) = store.save(&dir, &after, said)?;
    let [trusted, pending, outgoing, revoked, floors] = counts.map(CountRow::from);
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
        findings: findings.iter().map(FindingRow::from).collect(),
        findings_left_out,
    };
    if json {
        print::json(&imported)?;
    } else {
        show(&imported)?;
        tell(&findings, findings_left_out);
    }
    if skipped == 0 {
        return Ok(Answer::Yes);
    }
    let was = if skipped == 1 { "1 entry was" } else { &*format!("{skipped} entries were") };
    complain(format_args!("{was} skipped; everything else is durable"));
    Ok(Answer::No)
}

/// The store's directory, and who lives there if that is known.
fn find(place: &Place) -> Result<(PathBuf, Option<NodeId>), Failure> {
    if let Some(home) = &place.home {
        let home = Home::new(home);
        return Ok((home.store(), Some(home.identity()?.node_id())));
    }
    // The command line has one of the two.
    Ok((place.dir.clone().unwrap_or_default(), None))
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
    fn save(self, dir: &Path, after: &Tables, said: u64) -> Result<(u64, bool), Failure> {
        let (mut loaded, created) = match self {
            Self::Open(loaded) => (*loaded, false),
            Self::Missing(missing) => (create(dir, missing.0)?, true),
        };
        let is_same = after.diff(&loaded.tables).is_empty();
        if is_same && said <= loaded.generation {
            return Ok((loaded.generation, created));
        }
        if loaded.generation >= GENERATION_MAX {
            return Err(Failure::new(WriteError::Full(())));
        }
        let generation = said.max(loaded.generation + u64::from(!is_same));
        loaded.saver.save(generation, after)?;
        loaded.saver.close();
        Ok((generation, true))
    }
}

/// Creates the store, unless somebody else did so meanwhile.
fn create(dir: &Path, id: StoreId) -> Result<Loaded, Failure> {
    let directory = Directory::own(dir, true, LoadMode::Read).map_err(|error| match &error {
        OpenError::Missing { .. } => Failure::hint(error, "the directory that it shall be in must exist"),
        _ => error.into(),
    })?;
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

/// Reads the document, and shows how far it is.
fn read(file: &Path, before: &Tables, own_id: Option<NodeId>) -> Result<(Taken, u64), Failure> {
    let fail = |error: &dyn core::fmt::Display| {
        let what = format!("{}: {}", file.display(), Text::filtered(&error.to_string()));
        Failure::hint(what, "nothing was changed")
    };
    let bar = Bar::new("importing");
    let from: Box<dyn Read> = if file == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        let opened = rustix::fs::open(file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map(File::from);
        let opened = opened.map_err(|error| fail(&error))?;
        bar.begin(opened.metadata().map_err(|error| fail(&error))?.len());
        Box::new(opened)
    };
    let mut no_random = None;
    let mut nonce = || {
        let mut bytes = [0; 16];
        if let Err(error) = SystemRandom.fill(&mut bytes) {
            no_random = Some(error);
        }
        Nonce(bytes)
    };
    let into = Into { before, now: now(), own_id, limits: Limits::default(), nonce: &mut nonce };
    let read = trust_json::read(BufReader::with_capacity(BLOCK_BYTES, Counted { from, bar: &bar }), into);
    let read = read.map_err(|error| fail(&error))?;
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

fn tell(findings: &[Finding], left_out: u64) {
    findings.iter().for_each(complain);
    if left_out > 0 {
        complain(format_args!("and {left_out} more"));
    }
}

fn show(imported: &Imported) -> Result<(), Failure> {
    let Imported { dir, created, changed, generation, trusted, pending, outgoing, revoked, floors, .. } = imported;
    let what = match (created, changed) {
        (true, _) => "created",
        (false, true) => "changed",
        (false, false) => "unchanged",
    };
    print::to_stdout(|out| {
        writeln!(out, "{dir}: {what}, durable as of generation {generation}")?;
        let rows = List::ALL.into_iter().zip([trusted, pending, outgoing, revoked, floors]);
        let cells = rows.map(|(list, count)| {
            let CountRow { taken, unchanged, skipped } = count;
            [list.name().to_owned(), taken.to_string(), unchanged.to_string(), skipped.to_string()]
        });
        print::table(out, "ENTRIES", ["LIST", "TAKEN", "UNCHANGED", "SKIPPED"], cells)
    })
}

const BLOCK_BYTES: usize = 64 << 10;
