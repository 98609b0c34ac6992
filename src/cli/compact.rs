//! `compact`: as few bytes as a closed store can do with.
#![forbid(unsafe_code)]

use std::path::Path;

use serde::Serialize;

use super::watched::Watched;
use super::{Answer, Failure, now, print};
use crate::error::OpenError;
use crate::persist::Storage;
use crate::persist::compact::{self, Compacted};
use crate::persist::file::{Directory, LoadMode};
use crate::store::fresh_identity;
use crate::sync::Arc;

#[derive(Serialize)]
struct Printed {
    /// Whether anything was written or removed.
    compacted: bool,
    generation: u64,
    bytes_before: u64,
    bytes_after: u64,
}

/// Compacts, if that gains anything.
pub(super) fn compact(dir: &Path, json: bool) -> Result<Answer, Failure> {
    let directory: Arc<dyn Storage> = Arc::new(Directory::own(dir, false, LoadMode::Read)?);
    let watched = Watched::new(directory, "compacting").map_err(|error| OpenError::io("list", dir, error))?;
    let watched = Arc::new(watched);
    let Compacted { generation, bytes_before, bytes_after } =
        compact::compact(Arc::clone(&watched) as _, now(), fresh_identity)?;
    let printed = Printed { compacted: watched.has_changed(), generation, bytes_before, bytes_after };
    // Takes the bar away, and gives the directory free.
    drop(watched);
    if json {
        print::json(&printed)?;
        return Ok(Answer::Yes);
    }
    print::to_stdout(|out| {
        if printed.compacted {
            writeln!(out, "generation {generation}: {bytes_before} bytes before, {bytes_after} bytes after")
        } else {
            writeln!(out, "generation {generation}: {bytes_before} bytes; nothing to gain, and nothing was written")
        }
    })?;
    Ok(Answer::Yes)
}
