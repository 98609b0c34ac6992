//! Old states, each kept until nobody else holds it. Lives under the writer lock.
#![forbid(unsafe_code)]

use super::shared::Version;
use crate::map::held::Held;
use crate::sync::Arc;
use crate::tables::Tables;

/// States that were replaced and that somebody may still hold.
#[derive(Debug, Default)]
pub(super) struct SupersededStates {
    /// Those that somebody held when they were looked at. They may be many, and are looked at again a few at a time.
    held: Held<Superseded>,
    /// Those that came since a writer looked last.
    recent: Vec<Superseded>,
    /// How many entries were changed since.
    replaced: usize,
}

#[derive(Debug)]
struct Superseded {
    version: Option<Arc<Version>>,
    tables: Arc<Tables>,
}

impl Superseded {
    /// Whether nobody else holds it. Nobody can begin to: it is no longer published, and what holds it is counted.
    fn is_free(&mut self) -> bool {
        self.version.as_mut().is_none_or(is_only_holder) && is_only_holder(&mut self.tables)
    }
}

/// What others did with it comes before its drop, by the fence that an `Arc` has before the last one's end. ThreadSanitizer
/// sees no fences; it is given an Acquire load of the count instead.
fn is_only_holder<T>(all: &mut Arc<T>) -> bool {
    if cfg!(trustkeep_tsan) { Arc::get_mut(all).is_some() } else { Arc::strong_count(all) == 1 }
}

impl SupersededStates {
    /// One more, in which the next one replaced so many entries. Frees what nobody holds any more, now and then.
    pub(super) fn push(&mut self, version: Option<Arc<Version>>, tables: Arc<Tables>, replaced: usize) {
        self.recent.push(Superseded { version, tables });
        self.replaced += replaced;
        if self.recent.len() >= LOOK_AT || self.replaced >= LOOK_AT_REPLACED {
            self.free(LOOK_AT_HELD);
        }
    }

    /// Frees what nobody holds any more, of those that came since the last look and of so many others.
    pub(super) fn free(&mut self, at_most: usize) {
        for mut old in self.recent.drain(..) {
            if !old.is_free() {
                self.held.push(old);
            }
        }
        self.replaced = 0;
        self.held.look(at_most, |old, _| old.is_free());
    }

    /// Puts others back that were taken out meanwhile.
    pub(super) fn put_back(&mut self, mut others: Self) {
        core::mem::swap(self, &mut others);
        self.held.append(others.held);
        self.recent.append(&mut others.recent);
        self.replaced = others.replaced;
    }

    pub(super) fn len(&self) -> usize {
        self.held.len() + self.recent.len()
    }
}

/// Writers look for what can go when so many more old versions have gathered: the cost of looking is spread over as many
/// publishes. Not many more: what is freed soon is still in the caches when it is used again.
const LOOK_AT: usize = 8;
/// They also look when so many entries were changed: a few large changes keep as much memory as many small ones.
const LOOK_AT_REPLACED: usize = 256;
/// Each look is at so many of those that were held before: a publish takes no longer for them, however many there are.
const LOOK_AT_HELD: usize = 64;

#[cfg(all(test, not(trustkeep_loom)))]
mod tests {
    use super::*;
    use crate::map::mix::Mix;

    #[test]
    fn a_large_change_has_the_writer_look_at_once_and_small_ones_only_now_and_then() {
        let tables = || Arc::new(Tables::new(Mix::new(1)));
        let mut states = SupersededStates::default();
        states.push(None, tables(), 1);
        assert_eq!(states.len(), 1);
        let held = tables();
        states.push(None, Arc::clone(&held), LOOK_AT_REPLACED);
        assert_eq!(states.len(), 1, "only what is held");
        drop(held);
        states.free(1);
        assert_eq!(states.len(), 0);
    }

    /// Counts of `Arc`s tell what was looked at: nothing that a look did not come to is let go of.
    #[test]
    fn a_writer_looks_at_a_few_of_many_that_are_held() {
        let tables = || Arc::new(Tables::new(Mix::new(1)));
        let mut states = SupersededStates::default();
        let held: Vec<_> = (0..10_000).map(|_| tables()).collect();
        held.iter().for_each(|old| states.push(None, Arc::clone(old), 1));
        assert_eq!(states.len(), 10_000);
        // What the keeper takes out and puts back is no reason to look at all of them, nor is a large change.
        let taken = core::mem::take(&mut states);
        states.put_back(taken);
        drop(held);
        let mut before = states.len();
        for replaced in [1, LOOK_AT_REPLACED, 1, LOOK_AT_REPLACED] {
            states.push(None, tables(), replaced);
            assert!(states.len() + LOOK_AT_HELD + LOOK_AT >= before, "{before}, then {}", states.len());
            before = states.len();
        }
        // And the twin: all of them go, a few with each look.
        for _ in 0..1000 {
            states.push(None, tables(), LOOK_AT_REPLACED);
        }
        assert!(states.len() <= LOOK_AT, "{} are left", states.len());
    }
    /// I-S3. The keeper looks through the old states without the lock. Writers add others meanwhile, which it puts its own
    /// back beside.
    #[test]
    fn what_comes_while_the_keeper_looks_is_kept_for_whoever_holds_it() {
        let tables = || Arc::new(Tables::new(Mix::new(1)));
        let held: Vec<_> = (0..4).map(|_| tables()).collect();
        let mut states = SupersededStates::default();
        // One that was looked at, one that was not; and the same again meanwhile.
        states.push(None, Arc::clone(&held[0]), LOOK_AT_REPLACED);
        states.push(None, Arc::clone(&held[1]), 1);
        let taken = core::mem::take(&mut states);
        states.push(None, Arc::clone(&held[2]), LOOK_AT_REPLACED);
        states.push(None, Arc::clone(&held[3]), LOOK_AT_REPLACED - 1);
        states.put_back(taken);
        let kept = |held: &[Arc<Tables>]| held.iter().filter(|tables| Arc::strong_count(tables) == 2).count();
        assert_eq!((states.len(), kept(&held)), (4, 4));
        // What was replaced meanwhile counts, too: one entry more, and a writer looks.
        states.push(None, tables(), 1);
        assert_eq!(states.len(), 4);
        // And the twin: nobody holds them any more.
        drop(held);
        states.free(LOOK_AT_HELD);
        assert_eq!(states.len(), 0);
    }
}
