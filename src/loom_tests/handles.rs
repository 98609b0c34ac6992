//! What a handle sees: every version that was published before it was asked, in order, and nothing less than what its
//! thread has seen in another way (C-11).
#![forbid(unsafe_code)]

use super::outcomes;
use crate::sync::{Arc, SnapshotCell, spawn};

#[test]
fn what_was_seen_in_the_cell_a_handle_shows_too() {
    let seen = outcomes(|| {
        let cell = Arc::new(SnapshotCell::new(Arc::new(0)));
        let mut own = cell.reader();
        let looker = {
            let (cell, mut handle) = (Arc::clone(&cell), cell.reader());
            spawn("looker", move || (*cell.load_full(), **handle.load(), **handle.load())).unwrap()
        };
        cell.store(Arc::new(1));
        assert_eq!((**own.load(), **cell.reader().load()), (1, 1));
        looker.join().unwrap()
    });
    let all = [(0, 0, 0), (0, 0, 1), (0, 1, 1), (1, 1, 1)];
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), all);
}
