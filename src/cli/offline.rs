//! `inspect` and `verify`: what a store directory holds, and whether it is whole. Neither locks or changes anything.
#![forbid(unsafe_code)]

use std::path::Path;

use serde::Serialize;

use super::remembered::Remembered;
use super::rows::{IgnoredKeyRow, IgnoredRow, OutgoingRow, PendingRow, RevokedKeyRow, RevokedRow, TrustedRow, by_id};
use super::{Answer, Failure, complain, now, print, progress, rows};
use crate::error::OpenError;
use crate::persist::Storage;
use crate::persist::examine::{self, FileInfo, Finding, Progress, Report};
use crate::persist::file::{Directory, LoadMode};
use crate::tables::table::Table as _;
use crate::wire::text::one_line;

#[derive(Serialize)]
struct Inspected {
    generation: u64,
    trusted: Vec<TrustedRow>,
    pending: Vec<PendingRow>,
    outgoing: Vec<OutgoingRow>,
    revoked: Vec<RevokedRow>,
    revoked_keys: Vec<RevokedKeyRow>,
    ignored: Vec<IgnoredRow>,
    ignored_keys: Vec<IgnoredKeyRow>,
    #[serde(flatten)]
    remembered: Remembered,
    files: Vec<FileRow>,
    notes: Vec<Note>,
}

#[derive(Serialize)]
struct FileRow {
    name: String,
    bytes: u64,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<u64>,
}

impl From<&FileInfo> for FileRow {
    fn from(file: &FileInfo) -> Self {
        let FileInfo { name, bytes, kind, generation, seq: _ } = file.clone();
        Self { name, bytes, kind: kind.name(), generation }
    }
}

#[derive(Serialize)]
struct Verified {
    ok: bool,
    accounted_for: bool,
    /// Of the newest whole snapshot.
    generation: Option<u64>,
    files: Vec<FileRow>,
    notes: Vec<Note>,
    faults: Vec<Fault>,
}

#[derive(Serialize)]
struct Note {
    /// None when it concerns the directory as a whole.
    file: Option<String>,
    note: String,
}

/// What is wrong with a file.
#[derive(Debug, Serialize)]
pub(super) struct Fault {
    pub(super) file: String,
    offset: Option<u64>,
    pub(super) reason: String,
    pub(super) message: String,
}

/// Bytes are read and not mapped: a bad sector is then an error and not a signal, and nothing needs to be known about
/// who else has the directory open.
pub(super) fn look(dir: &Path) -> Result<Directory, Failure> {
    Ok(Directory::look(dir, LoadMode::Read)?)
}

/// Prints the newest state and the files.
pub(super) fn inspect(dir: &Path, json: bool) -> Result<Answer, Failure> {
    let examine::Inspection { snapshot, files, newest } = examine::inspect(&look(dir)?, now())?;
    let note = newest.and_then(|(file, finding)| match finding {
        Finding::Note(note) | Finding::Unsure(note) => Some(Note { file: Some(file), note }),
        _ => None,
    });
    let tables = &snapshot.tables;
    let inspected = Inspected {
        generation: snapshot.header.generation,
        trusted: by_id(
            tables.trusted.iter().map(|record| TrustedRow::of(tables, &record, now().wall)).collect(),
            |row| row.node_id,
        ),
        pending: by_id(
            tables.sides.pending.iter().map(|(id, it)| PendingRow::of(tables, id, it)).collect(),
            |row: &PendingRow| row.node_id,
        ),
        outgoing: by_id(tables.sides.outgoing.iter().map(|(id, it)| OutgoingRow::new(id.get(), it)).collect(), |row| {
            row.node_id
        }),
        revoked: by_id(tables.sides.revoked.iter().map(|(id, at)| RevokedRow::new(id.get(), *at)).collect(), |row| {
            row.node_id
        }),
        revoked_keys: {
            let mut rows: Vec<_> =
                tables.sides.revoked_keys.iter().map(|(key, mark)| RevokedKeyRow::new(&key, *mark)).collect();
            rows.sort_unstable_by(|one, other| one.public_key.cmp(&other.public_key));
            rows
        },
        ignored: by_id(tables.sides.ignored.iter().map(|(id, at)| IgnoredRow::new(id.get(), *at)).collect(), |row| {
            row.node_id
        }),
        ignored_keys: {
            let mut rows: Vec<_> =
                tables.sides.ignored_keys.iter().map(|(key, at)| IgnoredKeyRow::new(&key, *at)).collect();
            rows.sort_unstable_by(|one, other| one.public_key.cmp(&other.public_key));
            rows
        },
        remembered: Remembered::of(tables),
        files: files.iter().map(FileRow::from).collect(),
        notes: note.into_iter().collect(),
    };
    if json {
        print::json(&inspected)?;
        return Ok(Answer::Printed);
    }
    let Inspected { generation, trusted, pending, outgoing, revoked, revoked_keys, ignored, ignored_keys, .. } =
        &inspected;
    let (remembered, files, notes) = (&inspected.remembered, &inspected.files, &inspected.notes);
    let at = now().wall;
    print::to_stdout(|out| {
        let (t, p, o, r) = (trusted.len(), pending.len(), outgoing.len(), revoked.len());
        writeln!(out, "generation {generation}: {t} trusted, {p} pending, {o} outgoing, {r} revoked")?;
        rows::print_trusted(out, trusted, at)?;
        rows::print_pending(out, pending, at)?;
        rows::print_marks(out, pending)?;
        rows::print_outgoing(out, outgoing, at)?;
        rows::print_revoked(out, revoked, at)?;
        rows::print_revoked_keys(out, revoked_keys, at)?;
        rows::print_ignored(out, ignored, ignored_keys, at)?;
        remembered.print(out, at)?;
        let generation = |file: &FileRow| file.generation.map_or_else(|| "-".to_owned(), |number| number.to_string());
        let cells = files
            .iter()
            .map(|file| [file.name.clone(), file.bytes.to_string(), file.kind.to_owned(), generation(file)]);
        print::table(out, "FILES", ["NAME", "BYTES", "KIND", "GENERATION"], cells)?;
        show_notes(out, notes)
    })?;
    Ok(Answer::Printed)
}

/// What checking every file comes to; shows how far it is.
pub(super) fn verified(storage: &dyn Storage) -> Result<Report, OpenError> {
    let bar = progress::Bar::new("checking");
    examine::verify(storage, now(), &mut |progress| match progress {
        Progress::Begin { bytes } => bar.begin(bytes),
        Progress::Done { bytes } => bar.advance(bytes),
    })
}

/// Checks every byte of every file; `No` if one of them is wrong.
pub(super) fn verify(dir: &Path, json: bool) -> Result<Answer, Failure> {
    let report = verified(&look(dir)?)?;
    let is_accounted_for = report.is_accounted_for();
    let unneeded = report.unneeded().len();
    let Report { generation, files, directory, .. } = report;
    let (mut notes, mut faults, mut is_damaged) = (Vec::new(), Vec::new(), false);
    let mut sort = |file: Option<&str>, finding: &Finding| match finding {
        Finding::Whole => "ok",
        Finding::Note(note) | Finding::Unsure(note) => {
            notes.push(Note { file: file.map(str::to_owned), note: note.clone() });
            "note"
        }
        Finding::Fault(error) => {
            is_damaged |= !matches!(error, OpenError::Foreign { .. });
            faults.push(fault(error));
            if matches!(error, OpenError::Foreign { .. }) { "ANOTHER'S" } else { "DAMAGED" }
        }
    };
    let mut cells = Vec::new();
    for (file, finding) in &files {
        let verdict = sort(Some(&file.name), finding).to_owned();
        cells.push([file.name.clone(), file.bytes.to_string(), file.kind.name().to_owned(), verdict]);
    }
    sort(None, &directory);
    let ok = faults.is_empty();
    let messages: Vec<String> = faults.iter().map(|fault| fault.message.clone()).collect();
    if json {
        let files = files.iter().map(|(file, _)| file.into()).collect();
        let accounted_for = ok && is_accounted_for;
        print::json(&Verified { ok, accounted_for, generation, files, notes, faults })?;
    } else {
        print::to_stdout(|out| {
            let generation = generation.map_or_else(|| "-".to_owned(), |number| number.to_string());
            writeln!(
                out,
                "generation {generation}: {}",
                match (ok, is_accounted_for) {
                    (true, true) => "every byte is accounted for",
                    (true, false) => "opens; what is not accounted for is noted below",
                    (false, _) if is_damaged => "DAMAGED",
                    (false, _) => "no store opens here: LOCK is another program's",
                }
            )?;
            print::table(out, "FILES", ["NAME", "BYTES", "KIND", "VERDICT"], cells)?;
            show_notes(out, &notes)
        })?;
    }
    messages.iter().for_each(complain);
    if unneeded > 0 && unneeded == messages.len() {
        complain(format_args!(
            "the store opens: its state needs none of what is damaged. `trustkeep repair --yes` sets that aside, and loses nothing"
        ));
    }
    Ok(if ok { Answer::Yes } else { Answer::No })
}

fn show_notes(out: &mut dyn std::io::Write, notes: &[Note]) -> std::io::Result<()> {
    for Note { file, note } in notes {
        // Whoever may write into the directory names files there.
        let line = format!("note: {}{note}", file.as_ref().map_or_else(String::new, |file| format!("{file}: ")));
        writeln!(out, "{}", one_line(&line))?;
    }
    Ok(())
}

/// Everything that is wrong.
pub(super) fn faults(report: &Report) -> Vec<Fault> {
    report.findings().filter_map(|it| if let Finding::Fault(error) = it { Some(fault(error)) } else { None }).collect()
}

fn fault(error: &OpenError) -> Fault {
    let message = error.to_string();
    let (file, offset, reason) = match error {
        OpenError::Damaged { path, offset, reason } => (path, Some(*offset), reason.clone()),
        OpenError::NewerFormat { path, found, .. } => (path, Some(8), format!("format version {found}")),
        OpenError::OtherStore { path } => (path, Some(16), "belongs to another store".to_owned()),
        OpenError::DataMissing { path } => (path, None, "the data files are gone".to_owned()),
        OpenError::Foreign { path, .. } => (path, None, "LOCK is another program's".to_owned()),
        other => return Fault { file: String::new(), offset: None, reason: other.to_string(), message },
    };
    Fault { file: file.display().to_string(), offset, reason, message }
}

/// Whether every byte of a store is accounted for, without printing anything.
pub(super) fn check(dir: &Path) -> Result<(), Failure> {
    let Report { files, directory, .. } = examine::verify(&look(dir)?, now(), &mut |_| {})?;
    for finding in files.iter().map(|(_, finding)| finding).chain([&directory]) {
        if let Finding::Fault(error) = finding {
            return Err(Failure::new(error));
        }
    }
    Ok(())
}
