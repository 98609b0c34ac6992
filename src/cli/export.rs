//! `export`: everything that a store holds as `trust.json`, from a store that may be running.
#![forbid(unsafe_code)]

use std::io::{self, IsTerminal as _, Write};
use std::path::Path;

use serde::Serialize;

use super::offline::look;
use super::progress::Bar;
use super::trust_json::Nonces;
use super::{Answer, Failure, new_file, now, print, trust_json};
use crate::persist::examine;
use crate::persist::format::Snapshot;
use crate::tables::table::Table as _;

#[derive(Serialize)]
struct Written {
    file: String,
    bytes: u64,
    generation: u64,
    trusted: usize,
    pending: usize,
    outgoing: usize,
    revoked: usize,
}

/// Writes the newest state to a file, or to standard output.
pub(super) fn export(
    dir: &Path,
    out: Option<&Path>,
    replace: bool,
    nonces: Nonces,
    json: bool,
) -> Result<Answer, Failure> {
    let examine::Inspection { snapshot, files, .. } = examine::inspect(&look(dir)?, now())?;
    // Of one state, about.
    let size = files.iter().map(|file| file.bytes).max().unwrap_or(0);
    let Some(path) = out else {
        // A bar would be drawn across what somebody reads.
        let is_read = io::stdout().is_terminal();
        print::to_stdout(|out| write(out, &snapshot, nonces, if is_read { 0 } else { size }))?;
        return Ok(Answer::Printed);
    };
    let bytes = new_file::write(path, replace, |out| write(out, &snapshot, nonces, size))?;
    let tables = &snapshot.tables;
    let written = Written {
        file: path.display().to_string(),
        bytes,
        generation: snapshot.header.generation,
        trusted: tables.trusted.len(),
        pending: tables.sides.pending.len(),
        outgoing: trust_json::open_requests(tables).count(),
        revoked: tables.sides.revoked.len(),
    };
    if json {
        print::json(&written)?;
        return Ok(Answer::Yes);
    }
    let Written { file, bytes, generation, trusted, pending, outgoing, revoked } = written;
    print::to_stdout(|out| {
        write!(out, "{file}: {bytes} bytes; generation {generation}: ")?;
        writeln!(out, "{trusted} trusted, {pending} pending, {outgoing} outgoing, {revoked} revoked")
    })?;
    Ok(Answer::Yes)
}

/// Writes the document; the bar counts the bytes of the state, of which there are so many, and is none if there are few.
fn write(out: &mut dyn Write, snapshot: &Snapshot, nonces: Nonces, state_bytes: u64) -> io::Result<()> {
    let bar = Bar::new("exporting");
    bar.begin(state_bytes);
    let each = state_bytes / (trust_json::entries(&snapshot.tables) as u64).max(1);
    trust_json::write(out, snapshot.header.generation, &snapshot.tables, nonces, &mut || bar.advance(each))
}
