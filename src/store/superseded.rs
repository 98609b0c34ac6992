//! Old states, each kept until nobody else holds it. Lives under the writer lock.
#![forbid(unsafe_code)]

use super::shared::Version;
use crate::sync::Arc;
use crate::tables::Tables;

/// States that were replaced and that somebody may still hold.
#[derive(Debug, Default)]
pub(super) struct SupersededStates {
    all: Vec<Superseded>,
    /// How many of them were held when a writer looked last.
    held: usize,
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
        self.all.push(Superseded { version, tables });
        self.replaced += replaced;
        if self.all.len() >= 2 * self.held + LOOK_AT_LEAST || self.replaced >= LOOK_AT_REPLACED {
            self.free();
            (self.held, self.replaced) = (self.all.len(), 0);
        }
    }

    /// Frees what nobody holds any more.
    pub(super) fn free(&mut self) {
        self.all.retain_mut(|old| !old.is_free());
    }

    /// Puts others back that were taken out meanwhile.
    pub(super) fn put_back(&mut self, mut others: Self) {
        others.all.append(&mut self.all);
        self.all = others.all;
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }
}

/// Writers look for what can go when this many more old versions than were held at the last look have gathered: the
/// cost of looking is spread over as many publishes. Not many more: what is freed soon is still in the caches when it is
/// used again.
const LOOK_AT_LEAST: usize = 8;
/// They also look when so many entries were changed: a few large changes keep as much memory as many small ones.
const LOOK_AT_REPLACED: usize = 256;

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
        states.free();
        assert_eq!(states.len(), 0);
    }
}
