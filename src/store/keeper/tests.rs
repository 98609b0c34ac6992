//! When it is told that the keeper has left.
#![expect(clippy::disallowed_methods, reason = "a test, which waits for a thread to end")]

use core::time::Duration;
use std::sync::mpsc::{Receiver, Sender, channel};

use super::Saver;
use crate::clock::SystemClock;
use crate::config::Limits;
use crate::error::PersistError;
use crate::map::mix::Mix;
use crate::store::{KeeperState, TrustStore};
use crate::tables::Tables;

/// Holds a directory, so to speak, which takes its time to become free.
struct Slow {
    leaves: Sender<()>,
    is_free: Receiver<()>,
}

impl Saver for Slow {
    fn save(&mut self, _: u64, _: &Tables) -> Result<(), PersistError> {
        Ok(())
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        let _ = self.leaves.send(());
        let _ = self.is_free.recv_timeout(LONG);
    }
}

/// Callers who close together: each is told that the store is closed once its directory is free, and not before.
#[test]
fn nobody_hears_that_the_keeper_has_left_before_the_directory_is_free() {
    let ((leaves, leaving), (free, is_free)) = (channel(), channel());
    let saver = Box::new(Slow { leaves, is_free });
    let (tables, clock) = (Tables::new(Mix::new(7)), std::sync::Arc::new(SystemClock));
    let store = TrustStore::start(tables, 0, saver, Limits::default(), clock, Duration::ZERO).unwrap();
    // A test that fails must not hang: this goes before the store does.
    let free: Sender<()> = free;
    let is_refused = |outcome| matches!(outcome, Err(PersistError::TimedOut { .. }));
    assert!(is_refused(store.close()));
    assert_eq!(leaving.recv_timeout(LONG), Ok(()));
    assert_eq!(store.health().keeper, KeeperState::Running);
    assert!(is_refused(store.close()), "the second caller");
    // And the twin.
    free.send(()).unwrap();
    let begun = std::time::Instant::now();
    while store.close().is_err() {
        assert!(begun.elapsed() < LONG, "it never leaves");
        std::thread::yield_now();
    }
    assert_eq!(store.health().keeper, KeeperState::Left);
}

const LONG: Duration = Duration::from_secs(60);
