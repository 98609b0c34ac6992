//! `repair`: makes a damaged store usable again, and says first and afterwards what that costs.
//!
//! What must hold: nothing is deleted; nothing is changed without `--yes`, nor in a store that opens as it is, nor where a
//! file is of a newer release or of another store. What would be done is found out by doing it in a rehearsal. Every whole
//! change and every restriction that can be read is kept; what is not is listed.
#![forbid(unsafe_code)]

#[cfg(all(test, feature = "__testing", not(trustkeep_loom)))]
mod tests;
mod told;

use std::path::Path;

use serde::Serialize;

use super::offline::{Fault, faults, verified};
use super::rehearsal::Rehearsal;
use super::store_seen::{Beside, Id, NO_HOME};
use super::watched::Watched;
use super::{Answer, Failure, complain, now, print};
use crate::error::OpenError;
use crate::persist::Storage;
use crate::persist::examine::{Report, would_reach};
use crate::persist::file::{Directory, LoadMode};
use crate::persist::load::{list, move_aside};
use crate::persist::recover::{Listing, RecoverPolicy, aside_name};
use crate::persist::salvage::{Ground, Salvaged, base, is_open, marked_store, salvage};
use crate::store::TrustStore;
use crate::sync::Arc;
use crate::tables::Tables;
use crate::tables::table::Table as _;
use told::{PlaceRow, SalvagedRow, UncertainRow};

#[derive(Serialize)]
struct Repair {
    outcome: Outcome,
    faults: Vec<Fault>,
    /// Files that cannot be used, and their names from now on.
    set_aside: Vec<SetAside>,
    /// Of the newest snapshot among these files; none if there is none.
    damaged_generation: Option<u64>,
    /// Of the state that was found whole; none if the store begins empty.
    recovered_generation: Option<u64>,
    /// Under which the store goes on: if something is lost, beyond every generation that may have been acknowledged.
    generation: u64,
    records: Records,
    /// What is lost, as far as can be known; none if nothing is.
    lost: Option<String>,
    /// What was read of files that cannot be used; none if all of them could be followed.
    salvaged: Option<SalvagedRow>,
    /// Restrictions that may be lost, and who may be trusted by that; none if nothing is uncertain.
    uncertain: Option<UncertainRow>,
    /// Whether the home is known, whose `store.seen` tells of an older copy.
    home_known: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    NothingToRepair,
    WouldRepair,
    Repaired,
}

#[derive(Serialize)]
struct SetAside {
    file: String,
    #[serde(rename = "as")]
    aside: String,
}

#[derive(Serialize)]
struct Records {
    trusted: usize,
    pending: usize,
    outgoing: usize,
    revoked: usize,
}

/// A store that was opened, and closed again.
struct Opened {
    id: Option<Id>,
    generation: u64,
    records: Records,
}

/// What an operator wants.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish {
    /// If no state is whole, begin an empty one.
    pub(super) empty: bool,
    /// Who may have been revoked by what cannot be read is trusted no longer.
    pub(super) untrust_uncertain: bool,
    /// Do it.
    pub(super) yes: bool,
}

/// Repairs, or tells what repairing would do.
pub(super) fn repair(dir: &Path, seen: &Beside, wish: Wish, json: bool) -> Result<Answer, Failure> {
    let Wish { empty, untrust_uncertain, yes } = wish;
    let directory: Arc<dyn Storage> = Arc::new(Directory::own(dir, false, LoadMode::Read)?);
    let report = verified(directory.as_ref())?;
    match rehearse(&directory, RecoverPolicy::Fail, None) {
        Ok((opened, _)) => return opens(directory.as_ref(), &report, opened, (seen, yes, json)),
        Err(OpenError::Damaged { .. } | OpenError::DataMissing { .. }) => {}
        // Of a newer release or another store, or not to be read at all: no policy covers that.
        Err(error) => return Err(error.into()),
    }
    let seen_at = marked_store(directory.as_ref())?.and_then(|store| seen.newest(store.id));
    let (policy, reach) = reach(directory.as_ref(), empty);
    let mut salvaged = match &reach {
        Ok(reached) => salvaged(directory.as_ref(), reached.as_ref(), seen_at, empty)?,
        Err(_) => None,
    };
    let uncertain = salvaged.as_ref().filter(|found| !found.uncertain.is_nothing());
    let uncertain = uncertain.map(|found| UncertainRow::new(&found.uncertain, untrust_uncertain));
    if let Some(found) = salvaged.as_mut().filter(|_| untrust_uncertain) {
        found.tables = found.uncertain.untrusted(&found.tables);
    }
    let is_not_closed = is_open(directory.as_ref())?;
    let instead = || salvaged.as_ref().map(|salvaged| salvaged.tables.clone());
    let (mut opened, mut renames) = rehearse(&directory, policy, instead()).map_err(|error| match &error {
        OpenError::Damaged { .. } | OpenError::DataMissing { .. } => Failure::hint(
            error,
            "no state is whole; `--empty` would begin a store without grants, and keep what marks of revocation can be read",
        ),
        _ => error.into(),
    })?;
    let reached = reach?.map(|(generation, _, lossy)| (generation, lossy));
    // A state that was read of a damaged snapshot takes the place of all files.
    let from = salvaged.as_ref().filter(|found| found.mended.is_some()).and_then(|found| found.from);
    let reached = from.map(|generation| (generation, true)).or(reached);
    if yes {
        (opened, renames) = open(&directory, policy, instead())?;
        if let Some(id) = opened.id {
            let whole = salvaged.as_ref().filter(|found| found.mended.is_some() && found.is_all());
            match whole.map(|found| found.newest).or(reached.map(|(kept, _)| kept)) {
                // What it is behind the one that the home had may be more than what was damaged.
                Some(kept) if !empty => seen.repaired(id, kept, opened.generation),
                // Everything was given up, which was told, and agreed to.
                _ => seen.gave_up(id, opened.generation),
            }
        }
    }
    let aside = set_aside(renames);
    let is_aside = |name: &String| aside.iter().any(|file| file.file == *name);
    let damaged = report.files.iter().filter(|(file, _)| is_aside(&file.name));
    let damaged_generation = damaged.filter_map(|(file, _)| file.generation).max();
    let recovered_generation = reached.map(|(generation, _)| generation);
    let repair = Repair {
        outcome: if yes { Outcome::Repaired } else { Outcome::WouldRepair },
        faults: faults(&report),
        lost: lost(damaged_generation, reached, salvaged.as_ref(), is_not_closed),
        salvaged: salvaged.as_ref().map(SalvagedRow::from),
        uncertain,
        home_known: seen.is_known(),
        set_aside: aside,
        damaged_generation,
        recovered_generation,
        generation: opened.generation,
        records: opened.records,
    };
    if json {
        print::json(&repair)?
    } else {
        show(&repair)?
    }
    if yes {
        return Ok(Answer::Yes);
    }
    complain("nothing was changed; the same with `--yes` does this, a copy from a backup may lose less");
    Ok(Answer::No)
}

/// The store opens. What is damaged of it, if anything, is no part of its state, and is set aside.
fn opens(
    storage: &dyn Storage,
    report: &Report,
    opened: Opened,
    (seen, yes, json): (&Beside, bool, bool),
) -> Result<Answer, Failure> {
    let seen_at = opened.id.and_then(|id| seen.newest(id)).filter(|seen| *seen > opened.generation);
    let unneeded = report.unneeded();
    let entries = list(storage)?;
    let set_aside: Vec<SetAside> =
        unneeded.iter().map(|(file, _)| SetAside { file: file.clone(), aside: aside_name(file, &entries) }).collect();
    if yes {
        move_aside(storage, &entries, &unneeded, false)?;
    }
    let outcome = match (set_aside.is_empty(), yes) {
        (true, _) => Outcome::NothingToRepair,
        (false, true) => Outcome::Repaired,
        (false, false) => Outcome::WouldRepair,
    };
    let repair = Repair {
        outcome,
        faults: faults(report),
        set_aside,
        damaged_generation: None,
        recovered_generation: Some(opened.generation),
        generation: opened.generation,
        records: opened.records,
        lost: seen_at.map(|seen| {
            let opened = opened.generation;
            format!("changes after generation {opened}: this home's store had come to generation {seen}, so this is an older copy")
        }),
        salvaged: None,
        uncertain: None,
        home_known: seen.is_known(),
    };
    if json {
        print::json(&repair)?
    } else {
        show(&repair)?
    }
    if outcome == Outcome::WouldRepair {
        complain("nothing was changed; the same with `--yes` does this, and the store's state stays as it is");
        return Ok(Answer::No);
    }
    Ok(Answer::Yes)
}

/// Opens the store as `policy` says, in a copy of its files in memory.
fn rehearse(
    directory: &Arc<dyn Storage>,
    policy: RecoverPolicy,
    instead: Option<Tables>,
) -> Result<(Opened, Renames), OpenError> {
    let rehearsal = Rehearsal::new(Arc::clone(directory)).map_err(|error| unlisted(directory, error))?;
    open(&(Arc::new(rehearsal) as _), policy, instead)
}

/// What a recovery reaches: generation, tables, and whether something is lost; none if the state begins without one.
type Reach = Result<Option<(u64, Tables, bool)>, OpenError>;

/// The policy that leads furthest, and how far that is. Where no state is whole but something of a snapshot can be read, the new
/// state takes the place of every file.
fn reach(storage: &dyn Storage, empty: bool) -> (RecoverPolicy, Reach) {
    let policy = if empty { RecoverPolicy::Empty } else { RecoverPolicy::Previous };
    let reach = would_reach(storage, policy, now());
    let is_damaged = matches!(reach, Err(OpenError::Damaged { .. } | OpenError::DataMissing { .. }));
    if is_damaged && matches!(salvaged(storage, None, None, empty), Ok(Some(_))) {
        return (RecoverPolicy::Empty, Ok(None));
    }
    (policy, reach)
}

/// What can be kept beyond what a recovery reaches; none if that loses nothing, or if nothing can. `seen`: a generation that the
/// home knows to have been durable.
fn salvaged(
    storage: &dyn Storage,
    reached: Option<&(u64, Tables, bool)>,
    seen: Option<u64>,
    empty: bool,
) -> Result<Option<Salvaged>, OpenError> {
    if let Some((reached, _, false)) = reached
        && seen.is_none_or(|seen| seen <= *reached)
    {
        return Ok(None);
    }
    let store = marked_store(storage)?;
    let mended = match store {
        Some(store) => base::mended(storage, reached.map(|(generation, ..)| *generation), store, now())?,
        None => None,
    };
    let ground = match (mended, reached, store) {
        (Some(base), ..) => Ground::Damaged(Box::new(base)),
        (None, Some((generation, tables, _)), _) => Ground::State(*generation, tables.clone()),
        // Without a state nothing but marks has a meaning, and those only in the store that the mark names.
        (None, None, Some(store)) if empty => Ground::Nothing(store),
        (None, None, Some(store)) => match base::partial(storage, store, now())? {
            Some(base) => Ground::Damaged(Box::new(base)),
            None => return Ok(None),
        },
        (None, None, None) => return Ok(None),
    };
    salvage(storage, ground, seen, now()).map(Some)
}

/// Opens the store as `policy` says, and closes it.
fn open(
    storage: &Arc<dyn Storage>,
    policy: RecoverPolicy,
    instead: Option<Tables>,
) -> Result<(Opened, Renames), OpenError> {
    let watched = Watched::new(Arc::clone(storage), "opening").map_err(|error| unlisted(storage, error))?;
    let watched = Arc::new(watched);
    let store =
        TrustStore::options().create(false).recover(policy).open_storage_as(Arc::clone(&watched) as _, instead)?;
    let generation = store.generation().get();
    let records =
        store.tables().map_or(Records { trusted: 0, pending: 0, outgoing: 0, revoked: 0 }, |tables| Records {
            trusted: tables.trusted.len(),
            pending: tables.sides.pending.len(),
            outgoing: tables.sides.outgoing.len(),
            revoked: tables.sides.revoked.len(),
        });
    store.close().map_err(OpenError::Persist)?;
    Ok((Opened { id: store.id(), generation, records }, watched.renames()))
}

fn unlisted(storage: &Arc<dyn Storage>, error: std::io::Error) -> OpenError {
    OpenError::io("list", storage.path(""), error)
}

type Renames = Vec<(String, String)>;

/// Those that set a file aside; the others give new files their names.
fn set_aside(renames: Renames) -> Vec<SetAside> {
    let is_aside = |name: &String| {
        let entry = crate::persist::FileEntry { name: name.clone(), bytes: 0 };
        !Listing::new(&[entry]).set_aside.is_empty()
    };
    renames.into_iter().filter(|(_, to)| is_aside(to)).map(|(file, aside)| SetAside { file, aside }).collect()
}

fn lost(
    damaged: Option<u64>,
    reached: Option<(u64, bool)>,
    salvaged: Option<&Salvaged>,
    is_not_closed: bool,
) -> Option<String> {
    let unknown = || {
        is_not_closed.then(|| {
            "nothing that is known; but the newest journal was not closed, and a change of its last second that was lost as a \
             whole would not be noticed"
                .to_owned()
        })
    };
    match (reached, salvaged) {
        (None, _) => Some(
            "every grant, and every revocation that is not listed as kept: the store begins empty, and a peer that was revoked \
             may be trusted again by whatever trusts peers unasked"
                .to_owned(),
        ),
        (Some((_, false)), None) => unknown(),
        (Some(_), Some(salvaged)) if salvaged.is_all() => unknown(),
        (Some((recovered, _)), salvaged) => {
            let newest = salvaged.map_or(recovered, |salvaged| salvaged.newest);
            let missing = salvaged.into_iter().flat_map(|salvaged| &salvaged.gaps);
            let mut missing: Vec<String> = missing.map(|(from, to)| format!("from {from} to {to}")).collect();
            let partly = salvaged.and_then(|salvaged| salvaged.partly).map(|trusted| {
                let of = trusted.map_or_else(|| "an unknown number".to_owned(), |trusted| trusted.to_string());
                format!(
                    "what stands in blocks of the snapshot of generation {recovered} that cannot be read: {of} of its grants, and \
                     perhaps marks of revocation, so that a peer that was revoked may be trusted again by whatever trusts peers \
                     unasked"
                )
            });
            // Nothing is missing behind that snapshot.
            if let (Some(partly), Some(Salvaged { uncertain, .. })) = (&partly, salvaged)
                && missing.is_empty()
                && uncertain.generations.is_empty()
            {
                return Some(partly.clone());
            }
            let partly = partly.map_or_else(String::new, |partly| format!("{partly}; and "));
            let is_endless = salvaged.is_none_or(|salvaged| {
                salvaged.is_cut || salvaged.uncertain.generations.iter().any(|(_, until)| until.is_none())
            });
            let damaged = damaged.filter(|damaged| *damaged > newest);
            if is_endless || damaged.is_some() || missing.is_empty() {
                let until = damaged.map_or_else(String::new, |damaged| format!(", up to {damaged} or later"));
                let until = if until.is_empty() && is_endless { ", as many as there were".to_owned() } else { until };
                missing.push(format!("after generation {newest}{until}"));
            }
            let missing = missing.join(", and ");
            Some(format!(
                "{partly}changes {missing}, but for restrictions that could be read: grants among them are gone, and a peer \
                 revoked by one of them is trusted again; revoke it anew"
            ))
        }
    }
}

fn show(repair: &Repair) -> Result<(), Failure> {
    let Repair {
        outcome,
        faults,
        set_aside,
        damaged_generation,
        recovered_generation,
        generation,
        records,
        lost,
        salvaged,
        uncertain,
        home_known,
    } = repair;
    let Records { trusted, pending, outgoing, revoked } = records;
    let counts = format!("{trusted} trusted, {pending} pending, {outgoing} outgoing, {revoked} revoked");
    print::to_stdout(|out| {
        for Fault { message, .. } in faults {
            writeln!(out, "found      {message}")?;
        }
        if *outcome == Outcome::NothingToRepair {
            writeln!(out, "state      generation {generation}: {counts}")?;
            if let Some(lost) = lost {
                writeln!(out, "lost       {lost}")?;
            }
            return writeln!(out, "nothing to repair: the store opens as it is");
        }
        for SetAside { file, aside } in set_aside {
            writeln!(out, "set aside  {file} as {aside}")?;
        }
        if let Some(damaged) = damaged_generation {
            writeln!(out, "damaged    generation {damaged}")?;
        }
        match recovered_generation {
            Some(recovered) => writeln!(out, "recovered  generation {recovered}: {counts}")?,
            None => writeln!(out, "recovered  nothing; an empty store")?,
        }
        if let Some(salvaged) = salvaged {
            let SalvagedRow { changes, newest_generation, kept, not_kept, unreadable, set_right, .. } = salvaged;
            for PlaceRow { file, offset, .. } in set_right {
                writeln!(out, "set right  {file}, one bit of byte {offset}: its checksum tells which")?;
            }
            if *changes > 0 {
                writeln!(out, "salvaged   {changes} whole changes, up to generation {newest_generation}")?;
            }
            for entry in kept {
                writeln!(out, "kept       {entry}")?;
            }
            for entry in not_kept {
                writeln!(out, "not kept   {entry}")?;
            }
            for PlaceRow { file, offset, bytes } in unreadable {
                writeln!(out, "no change  {file}, {bytes} bytes from byte {offset} on")?;
            }
        }
        if let Some(uncertain) = uncertain {
            uncertain.show(out)?;
        }
        if !home_known {
            writeln!(out, "home       {NO_HOME}")?;
        }
        writeln!(out, "goes on    as generation {generation}")?;
        writeln!(out, "lost       {}", lost.as_deref().unwrap_or("nothing"))?;
        match outcome {
            Outcome::Repaired => writeln!(out, "repaired; no file was deleted"),
            _ => Ok(()),
        }
    })
}
