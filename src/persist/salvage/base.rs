//! What a damaged snapshot comes to, where a recovery finds no state that is whole, or an older one.
//!
//! INVARIANT I-V4: a snapshot counts as whole if one bit of its header and one of each block, set right where a checksum does not
//! hold, mend all of it, and then it passes every check of an opening. Otherwise, and only where no snapshot is whole, what
//! stands in its blocks that pass is kept, with what the whole changes behind it say.
#![forbid(unsafe_code)]

use crate::error::OpenError;
use crate::map::mix::Mix;
use crate::persist::Storage;
use crate::persist::format::StoreId;
use crate::persist::format::salvage::{Loose, Read, mended_snapshot, snapshot};
use crate::persist::load::{decode_named, list, read as lend};
use crate::persist::recover::Listing;
use crate::tables::Tables;
use crate::time::Now;

/// A state that was read of a damaged snapshot.
#[derive(Debug)]
pub(crate) struct Base {
    pub(crate) file: String,
    pub(crate) generation: u64,
    pub(crate) tables: Tables,
    /// The bytes of which a bit was set right.
    pub(crate) mended: Vec<u64>,
    /// If that did not mend all of it.
    pub(crate) rest: Option<Rest>,
}

/// What is not known of a snapshot.
#[derive(Debug)]
pub(crate) struct Rest {
    pub(crate) loose: Loose,
    /// How many trusted peers it had that are not among those that were read; none if that is not known.
    pub(crate) trusted: Option<u64>,
}

/// The newest snapshot beyond this generation that single bits mend.
///
/// # Errors
/// The operating system's.
pub(crate) fn mended(
    storage: &dyn Storage,
    above: Option<u64>,
    store: StoreId,
    now: Now,
) -> Result<Option<Base>, OpenError> {
    for (generation, file) in Listing::new(&list(storage)?).snapshots {
        if above.is_some_and(|above| generation <= above) {
            break;
        }
        let found = lend(storage, &file, |bytes| {
            let Some((bytes, places)) = mended_snapshot(bytes) else { return Ok(None) };
            let snapshot = decode_named(&file, &bytes, now)?;
            Ok((snapshot.header.store == store).then_some((snapshot.tables, places)))
        })?;
        if let Ok(Some((tables, mended))) = found {
            return Ok(Some(Base { file, generation, tables, mended, rest: None }));
        }
    }
    Ok(None)
}

/// What can be read of the newest snapshot of which anything can.
///
/// # Errors
/// The operating system's.
pub(crate) fn partial(storage: &dyn Storage, store: StoreId, now: Now) -> Result<Option<Base>, OpenError> {
    for (generation, file) in Listing::new(&list(storage)?).snapshots {
        let Ok(read) = lend(storage, &file, |bytes| Ok(snapshot(bytes, store, generation, now)))? else { continue };
        let Read { mut loose, is_known: true, trusted } = read else { continue };
        let patch = core::mem::take(&mut loose.read);
        if let Some(tables) = Tables::new(Mix::new(store.seed)).patched(patch) {
            let trusted = trusted.map(|trusted| trusted.saturating_sub(tables.trusted.len() as u64));
            let rest = Some(Rest { loose, trusted });
            return Ok(Some(Base { file, generation, tables, mended: Vec::new(), rest }));
        }
    }
    Ok(None)
}
