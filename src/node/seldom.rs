//! A warning that can come many times a second, told seldom: at the beginning, then once in a while with how many there were.
#![forbid(unsafe_code)]

use core::time::Duration;

use crate::sync::Deadline;

/// When one kind of warning was told last, and how many have come since.
#[derive(Debug)]
pub(crate) struct Seldom {
    every: Duration,
    again: Option<Deadline>,
    since: u64,
}

impl Seldom {
    pub(crate) const fn new(every: Duration) -> Self {
        Self { every, again: None, since: 0 }
    }

    /// Counts one; how many there were since the last that was told, this one included, if this one is to be told.
    pub(crate) fn tell(&mut self) -> Option<u64> {
        self.since = self.since.saturating_add(1);
        if self.again.is_some_and(|again| !again.has_passed()) {
            return None;
        }
        self.again = Some(Deadline::after(self.every));
        Some(core::mem::take(&mut self.since))
    }
}

#[cfg(all(test, not(trustkeep_loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_told_and_then_one_in_a_while_with_the_number_of_them() {
        let mut seldom = Seldom::new(Duration::from_secs(100_000));
        assert_eq!(seldom.tell(), Some(1));
        for _ in 0..1000 {
            assert_eq!(seldom.tell(), None);
        }
        seldom.again = Some(Deadline::after(Duration::ZERO));
        assert_eq!((seldom.tell(), seldom.tell()), (Some(1001), None));
    }
}
