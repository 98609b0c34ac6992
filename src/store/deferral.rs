//! Changes that the keeper need not save at once, although somebody may wait for them.
//!
//! What must hold: an end of trust is put off only where no state that was, or is being, saved has that trust, or where an
//! end that is saved at once comes after it. So a crash brings no trust back that had ended, and whoever waits for a grant
//! waits until it is saved.
//!
//! Why that holds: let an end take back what generation G gave, and let no state from G on have been taken to save. Had the
//! newest one that was taken the trust, then it ended between that one and G: by a change that is saved at once, which the end
//! then goes with, or by one that was put off and took back what an older generation had given, of which the same is true.
#![forbid(unsafe_code)]

use super::Generation;

/// A change that a peer brings about over and over, and that is saved within a second, together with what else there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deferral {
    /// The peer is given what it took back a moment ago.
    Given,
    /// The peer takes back what this generation gave it.
    TakenBack(Generation),
}

impl Deferral {
    /// Whether the change may wait; `taken` is the newest generation with something put off in it that was taken to save.
    pub(super) fn holds(self, taken: u64) -> bool {
        match self {
            Self::Given => true,
            Self::TakenBack(given) => given.get() > taken,
        }
    }
}

#[cfg(all(test, not(trustkeep_loom)))]
#[allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests, of what is saved when among others")]
mod tests {
    use core::convert::Infallible;
    use core::time::Duration;
    use std::sync::Arc;

    use super::*;
    use crate::clock::Clock;
    use crate::peer::{NodeId, TrustRecord};
    use crate::store::shared::Shared;
    use crate::store::{Receipt, TrustStore};
    use crate::tables::TableChange;
    use crate::time::Now;

    /// A clock that stands still: what waits for the keeper's alarm waits for ever.
    #[derive(Debug)]
    struct Still;

    impl Clock for Still {
        fn now(&self) -> Now {
            Now::default()
        }
    }

    fn change(store: &TrustStore, is_trusted: bool, deferral: Option<Deferral>) -> Receipt {
        let peer = NodeId::new(9).unwrap();
        let record = is_trusted.then(|| TrustRecord::new(peer, None));
        let publish = |tables: &crate::tables::Tables, _| {
            let draft = tables.draft(&[TableChange::Trusted(peer, record)]);
            Ok::<_, Infallible>((draft, Vec::new(), ()))
        };
        Shared::publish_deferring(&store.shared, None, publish, |()| deferral).unwrap().1
    }

    fn is_saved_at_once(receipt: &Receipt) -> bool {
        (0..6000).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            receipt.is_durable()
        })
    }

    /// Long enough for a keeper that saves at once, and no matter how much longer it takes.
    fn is_put_off(receipt: &Receipt) -> bool {
        std::thread::sleep(Duration::from_millis(200));
        !receipt.is_durable()
    }

    fn open(home: &tempfile::TempDir) -> TrustStore {
        TrustStore::options().clock(Arc::new(Still)).open(home.path().join("store")).unwrap()
    }

    #[test]
    fn what_is_put_off_waits_for_the_alarm_and_who_waits_for_it_waits_as_long() {
        let home = tempfile::tempdir().unwrap();
        let store = open(&home);
        assert!(is_saved_at_once(&change(&store, true, None)));
        assert!(is_saved_at_once(&change(&store, false, None)));
        let given = change(&store, true, Some(Deferral::Given));
        let answer = given.of_news();
        assert!(is_put_off(&given), "saved at once, as if it were urgent");
        assert_eq!((answer.generation(), answer.is_durable()), (given.generation(), false));
        // A crash now is as if nothing had been given.
        drop(given);
        let hurried = answer.wait_durable_timeout(Duration::from_millis(200));
        assert!(hurried.is_err(), "an answer hurries nobody");
        // What matters takes it along.
        drop(store.grant(TrustRecord::new(NodeId::new(8).unwrap(), None)).unwrap());
        assert!(is_saved_at_once(&answer));
        // Who waits for the change itself does not wait for the alarm.
        drop(change(&store, false, None));
        let given = change(&store, true, Some(Deferral::Given));
        given.wait_durable_timeout(Duration::from_secs(60)).unwrap();
    }

    #[test]
    fn an_end_of_trust_is_put_off_only_while_the_keeper_has_not_seen_what_it_ends() {
        let home = tempfile::tempdir().unwrap();
        let store = open(&home);
        let given = change(&store, true, Some(Deferral::Given)).generation();
        let ended = change(&store, false, Some(Deferral::TakenBack(given)));
        assert!(is_put_off(&ended));
        // Saved by somebody else: from here on it is on the disk, and its end is to be there at once.
        let given = change(&store, true, Some(Deferral::Given)).generation();
        store.flush().unwrap();
        let seen = store.generation();
        assert!(seen >= given);
        assert!(is_saved_at_once(&change(&store, false, Some(Deferral::TakenBack(given)))));
        // An end of what was there before is no end of what was given since.
        drop(change(&store, true, None));
        store.flush().unwrap();
        assert!(is_saved_at_once(&change(&store, false, Some(Deferral::TakenBack(seen)))));
    }

    #[test]
    fn what_the_keeper_takes_to_save_has_each_end_that_was_put_off_meanwhile() {
        let home = tempfile::tempdir().unwrap();
        let store = open(&home);
        let looked = || store.shared.pick_up();
        let (tables, seen) = looked();
        assert!(!seen.deferred);
        assert_eq!(store.shared.take_to_save(tables, &seen).1, seen.newest);
        let given = change(&store, true, Some(Deferral::Given)).generation();
        let (tables, seen) = looked();
        assert!(seen.deferred && tables.trusted.len() == 1);
        let ended = change(&store, false, Some(Deferral::TakenBack(given)));
        assert!(is_put_off(&ended));
        let (tables, generation) = store.shared.take_to_save(tables, &seen);
        assert_eq!((generation, tables.trusted.len()), (ended.generation().get(), 0));
        // From here on what was given may be on the disk.
        assert!(!looked().1.deferred);
        let given = change(&store, true, Some(Deferral::Given)).generation();
        let (tables, seen) = looked();
        drop(store.shared.take_to_save(tables, &seen));
        assert!(is_saved_at_once(&change(&store, false, Some(Deferral::TakenBack(given)))));
    }

    #[test]
    fn what_is_put_off_is_saved_by_the_alarm_though_nobody_waits() {
        let home = tempfile::tempdir().unwrap();
        let store = TrustStore::open(home.path().join("store")).unwrap();
        assert!(is_saved_at_once(&change(&store, true, Some(Deferral::Given))));
    }
}
