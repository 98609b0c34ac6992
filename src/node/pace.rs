//! How soon to ask a relay again: soon after a request of ours, for its answer is on the way; seldom when all is quiet.
//!
//! Pure: what a clock, a lock or a random source would say is given.
#![forbid(unsafe_code)]

use core::time::Duration;

/// The pause before the next poll; it grows by half with each poll, from the shortest to the longest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    shortest_ms: u64,
    longest_ms: u64,
    next_ms: u64,
}

impl Pace {
    /// Begins calmly.
    pub(crate) fn new(shortest: Duration, longest: Duration) -> Self {
        let millis =
            |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).clamp(1, PAUSE_MS_MAX);
        let longest_ms = millis(longest);
        Self { shortest_ms: millis(shortest).min(longest_ms), longest_ms, next_ms: longest_ms }
    }

    /// A request of ours has left: its answer may come soon.
    pub(crate) fn hurry(&mut self) {
        self.next_ms = self.shortest_ms;
    }

    /// How long to wait now. `random` spreads it by a quarter either way, so that nodes that were started together do not
    /// all ask at the same moments.
    pub(crate) fn pause(&mut self, random: u8) -> Duration {
        let pause = self.next_ms;
        self.next_ms = (pause + pause / 2 + 1).min(self.longest_ms);
        // From 3/4 to nearly 5/4, in steps of 1/512.
        Duration::from_millis((pause * (384 + u64::from(random)) / 512).max(1))
    }
}

/// A day, so that no arithmetic overflows.
const PAUSE_MS_MAX: u64 = 24 * 60 * 60 * 1000;

#[cfg(test)]
mod tests {
    use super::*;

    fn pace() -> Pace {
        Pace::new(Duration::from_millis(200), Duration::from_secs(30))
    }

    #[test]
    fn polling_is_calm_speeds_up_after_a_request_and_calms_down_again() {
        let mut pace = pace();
        assert_eq!(pace.pause(128), Duration::from_secs(30));
        pace.hurry();
        assert_eq!(pace.pause(128), Duration::from_millis(200));
        let pauses: Vec<_> = (0..14).map(|_| pace.pause(128)).collect();
        assert!(pauses.is_sorted(), "{pauses:?}");
        assert_eq!(pauses.last(), Some(&Duration::from_secs(30)));
        let busy: Duration = pauses.iter().filter(|pause| **pause < Duration::from_secs(30)).sum();
        assert!((Duration::from_secs(45)..Duration::from_secs(120)).contains(&busy), "{busy:?}");
        // The twin: hurrying again is hurrying anew.
        pace.hurry();
        assert_eq!(pace.pause(128), Duration::from_millis(200));
    }

    #[test]
    fn chance_spreads_a_pause_by_a_quarter_and_no_more() {
        let all: Vec<_> = (0..=255)
            .map(|random| {
                let mut pace = pace();
                pace.pause(random)
            })
            .collect();
        assert!(all.is_sorted());
        assert_eq!(all.first(), Some(&Duration::from_millis(22_500)));
        assert!((Duration::from_millis(37_300)..Duration::from_millis(37_500)).contains(all.last().unwrap()));
    }

    #[test]
    fn no_setting_stops_polling_or_makes_it_spin() {
        for (shortest, longest) in [(0, 0), (5, 1), (u64::MAX, u64::MAX)] {
            let mut pace = Pace::new(Duration::from_millis(shortest), Duration::from_millis(longest));
            pace.hurry();
            for _ in 0..100 {
                let pause = pace.pause(255);
                assert!(pause < Duration::from_secs(2 * 24 * 60 * 60));
            }
        }
        assert!(Pace::new(Duration::ZERO, Duration::ZERO).pause(0) > Duration::ZERO);
    }
}
