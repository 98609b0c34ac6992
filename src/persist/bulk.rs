//! When a snapshot is due. Pure.
#![forbid(unsafe_code)]

/// What has been written since the newest snapshot, and how large that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bulk {
    /// How many journal files hold something that the newest snapshot does not.
    pub(crate) journals: usize,
    /// Bytes of groups since the newest snapshot.
    pub(crate) journal_bytes: u64,
    pub(crate) snapshot_bytes: u64,
}

/// Whether a snapshot is due: when the journals have outgrown it, so that both are written equally often byte for byte
/// and an opening reads at most twice the state; or when restarts have left many short journals. Those that are full do
/// not count as short, however many it takes to hold as much as a large snapshot.
pub(crate) fn wants_snapshot(bulk: Bulk, journal_bytes_min: u64) -> bool {
    let full = usize::try_from(bulk.journal_bytes / FULL_BYTES).unwrap_or(usize::MAX);
    bulk.journal_bytes >= bulk.snapshot_bytes.max(journal_bytes_min)
        || bulk.journals >= SHORT_JOURNALS_MAX.saturating_add(full)
}

const SHORT_JOURNALS_MAX: usize = 64;
/// A journal ends when the next group does not fit in its 1 MiB: two that follow each other hold more than that together.
const FULL_BYTES: u64 = 512 << 10;

#[cfg(all(test, not(trustkeep_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_due_when_the_journals_have_outgrown_it_or_are_many() {
        let bulk = Bulk { journals: 1, journal_bytes: 999, snapshot_bytes: 10 };
        assert!(!wants_snapshot(bulk, 1000));
        assert!(wants_snapshot(Bulk { journal_bytes: 1000, ..bulk }, 1000));
        let large = Bulk { journals: 2, journal_bytes: 4999, snapshot_bytes: 5000 };
        assert!(!wants_snapshot(large, 1000));
        assert!(wants_snapshot(Bulk { journal_bytes: 5000, ..large }, 1000));
        assert!(!wants_snapshot(Bulk { journals: 63, ..bulk }, 1000));
        assert!(wants_snapshot(Bulk { journals: 64, journal_bytes: 0, snapshot_bytes: 1 << 40 }, 1000));
        // Many that are full are not many short ones.
        let full = Bulk { journals: 463, journal_bytes: 400 * FULL_BYTES, snapshot_bytes: 1 << 40 };
        assert!(!wants_snapshot(full, 1000));
        assert!(wants_snapshot(Bulk { journals: 464, ..full }, 1000));
    }
}
