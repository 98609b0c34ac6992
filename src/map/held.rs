//! A list whose members go one by one, and which is looked through a few at a time to find those that went.
//!
//! INVARIANT: members before `kept` and from `looked` on are there, in the order in which they came; between the two there is
//! none. `kept <= looked <= all.len()`.
//!
//! Looking through all of it at once would hold up who waits for the lock that it is under, in proportion to its length.
#![forbid(unsafe_code)]

/// The list.
#[derive(Debug)]
pub(crate) struct Held<T> {
    all: Vec<Option<T>>,
    /// Of those that were looked at since a look last came to the end, how many stayed.
    kept: usize,
    /// The next to be looked at.
    looked: usize,
}

impl<T> Default for Held<T> {
    fn default() -> Self {
        Self { all: Vec::new(), kept: 0, looked: 0 }
    }
}

impl<T> Held<T> {
    pub(crate) fn len(&self) -> usize {
        self.all.len() - (self.looked - self.kept)
    }

    /// Whether a look is under way: it has been past some of them.
    pub(crate) fn is_being_looked_at(&self) -> bool {
        self.looked > 0
    }

    /// Puts one behind all others.
    pub(crate) fn push(&mut self, one: T) {
        self.all.push(Some(one));
    }

    /// Puts others behind all that are there.
    pub(crate) fn append(&mut self, others: Self) {
        self.all.extend(others.all.into_iter().filter(Option::is_some));
    }

    /// The one that came last.
    pub(crate) fn last_mut(&mut self) -> Option<&mut T> {
        let end = if self.looked == self.all.len() { self.kept } else { self.all.len() };
        self.all.get_mut(end.checked_sub(1)?)?.as_mut()
    }

    /// All of them, in order.
    #[cfg(any(test, feature = "__testing"))]
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.all.iter().flatten()
    }

    /// Looks at no more than so many, from where the last look ended; `goes(one, before)` says whether one goes, and is given
    /// the one before it that stays. True if it came to the end: the next look begins at the beginning.
    pub(crate) fn look(&mut self, at_most: usize, mut goes: impl FnMut(&mut T, Option<&mut T>) -> bool) -> bool {
        for _ in 0..at_most {
            let (before, from_here) = self.all.split_at_mut(self.looked);
            let Some(here) = from_here.first_mut() else {
                if self.kept == self.looked {
                    (self.kept, self.looked) = (0, 0);
                    return true;
                }
                // Nothing stands behind those that stayed; that goes a few at a time, too.
                self.all.pop();
                self.looked = self.all.len();
                continue;
            };
            let before = self.kept.checked_sub(1).and_then(|at| before.get_mut(at)?.as_mut());
            if here.as_mut().is_none_or(|one| goes(one, before)) {
                *here = None;
            } else {
                self.all.swap(self.kept, self.looked);
                self.kept += 1;
            }
            self.looked += 1;
        }
        false
    }
}

#[cfg(all(test, not(trustkeep_loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        /// Against a plain list that is looked through at once: the same members in the same order, each of them asked about
        /// with the one before it that is still there.
        #[test]
        fn a_few_at_a_time_come_to_the_same_as_all_at_once(
            steps in proptest::collection::vec((0..3u8, 0..40usize), 0..200),
        ) {
            let (mut held, mut model, mut next) = (Held::default(), Vec::<u32>::new(), 0);
            let mut doomed = BTreeSet::new();
            for (step, number) in steps {
                match step {
                    0 => for _ in 0..number {
                        held.push(next);
                        model.push(next);
                        next += 1;
                    },
                    1 => doomed.extend(model.iter().copied().skip(number).step_by(3)),
                    _ => {
                        held.look(number, |one, before| {
                            let at = model.iter().position(|other| other == one).unwrap();
                            assert_eq!(before.map(|before| *before), at.checked_sub(1).map(|at| model[at]));
                            let goes = doomed.contains(one);
                            if goes {
                                model.remove(at);
                            }
                            goes
                        });
                    }
                }
                prop_assert_eq!(held.iter().copied().collect::<Vec<_>>(), model.clone());
                prop_assert_eq!((held.len(), held.last_mut().copied()), (model.len(), model.last().copied()));
            }
            // One look may be under way; behind the end of the next, no doomed one is left.
            for _ in 0..2 {
                while !held.look(7, |one, _| doomed.contains(one)) {}
            }
            prop_assert!(held.iter().all(|one| !doomed.contains(one)));
        }
    }

    #[test]
    fn a_look_is_at_no_more_than_it_was_told_to() {
        let mut held = Held::default();
        (0..1000).for_each(|number| held.push(number));
        let mut looks = 0;
        while !held.look(10, |_, _| {
            looks += 1;
            true
        }) {
            assert!(looks % 10 == 0);
        }
        assert_eq!((looks, held.len(), held.last_mut()), (1000, 0, None));
    }
}
