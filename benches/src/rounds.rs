//! Rounds: every contestant in every round, in turn, and how long things take.
//!
//! What must hold: no contestant always comes first, all of them had a round that does not count, and what a clock adds to
//! a sample is known.
#![allow(clippy::disallowed_methods, reason = "measurements read the clock")]

use core::hint::black_box;
use core::time::Duration;
use std::sync::Barrier;
use std::time::Instant;

use hdrhistogram::Histogram;

/// Runs so many rounds of all contestants and returns the figures of each. The first round is thrown away; every other one
/// goes backwards.
pub fn alternate<T, const N: usize>(rounds: usize, mut contestants: [&mut dyn FnMut() -> T; N]) -> [Vec<T>; N] {
    let mut figures = [const { Vec::new() }; N];
    for round in 0..=rounds {
        let mut order: Vec<usize> = (0..N).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for at in order {
            if let (Some(contestant), Some(figures)) = (contestants.get_mut(at), figures.get_mut(at)) {
                let figure = contestant();
                if round > 0 {
                    figures.push(figure);
                }
            }
        }
    }
    figures
}

/// Nanoseconds for each of so many operations, taken together.
pub fn mean(operations: usize, work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    per_operation(start.elapsed(), operations)
}

/// Nanoseconds for each of so many operations, by the clock and by this thread's own time on a processor; the second is no
/// number where the system does not tell.
pub fn mean_both(operations: usize, work: impl FnOnce()) -> [f64; 2] {
    let before = processor_time();
    let by_clock = mean(operations, work);
    let used = before.zip(processor_time()).map(|(before, after)| after.saturating_sub(before));
    [by_clock, used.map_or(f64::NAN, |used| per_operation(used, operations))]
}

/// Does the work some way further down the stack: `DEPTHS` depths, the first of which is this one, are spread over a page.
///
/// Where the stack of a thread lies within a page is settled when the process starts, and differs from process to process.
/// Work that reads constants while it writes to the stack takes up to a quarter longer where the two happen to have the same
/// place in their pages. A figure that is to be the same tomorrow is taken at several depths.
pub fn at_depth<T>(depth: usize, work: impl FnOnce() -> T) -> T {
    let here = 0_u8;
    descend(core::ptr::from_ref(black_box(&here)).addr(), depth % DEPTHS * EIGHTH, work)
}

/// How many depths there are.
pub const DEPTHS: usize = 8;
const EIGHTH: usize = 4096 / DEPTHS;

/// Does the work at least so many bytes from this place of the stack. What a call takes of it differs with the compiler's
/// settings, so that the place is looked at and calls are not counted.
#[inline(never)]
fn descend<T>(start: usize, bytes: usize, work: impl FnOnce() -> T) -> T {
    let room = black_box([0_u8; 32]);
    let gone = start.abs_diff(core::ptr::from_ref(black_box(&room)).addr());
    let done = if gone >= bytes { work() } else { descend(start, bytes, work) };
    black_box(&room);
    done
}

/// How long this thread has run.
fn processor_time() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

/// A time spread over so many operations, in nanoseconds.
#[must_use]
pub fn per_operation(time: Duration, operations: usize) -> f64 {
    time.as_secs_f64() * 1e9 / operations.max(1) as f64
}

/// The same work on so many threads that begin together, each given its number: the mean of what they return.
pub fn on_threads(threads: usize, work: impl Fn(usize, &Barrier) -> f64 + Sync) -> f64 {
    if threads == 1 {
        return work(0, &Barrier::new(1));
    }
    let barrier = Barrier::new(threads);
    let figures: Vec<f64> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|thread| {
                let (work, barrier) = (&work, &barrier);
                scope.spawn(move || work(thread, barrier))
            })
            .collect();
        // A thread that panicked gives no figure, and so a round without one.
        running.into_iter().map(|thread| thread.join().unwrap_or(f64::NAN)).collect()
    });
    figures.iter().sum::<f64>() / figures.len() as f64
}

/// Nanoseconds of single operations.
#[derive(Clone, Debug)]
pub struct Tail(Histogram<u64>);

impl Tail {
    /// Times every single one of so many operations, each given its number.
    pub fn of(operations: usize, mut operation: impl FnMut(usize)) -> Self {
        let mut tail = Self::default();
        for number in 0..operations {
            let start = Instant::now();
            operation(number);
            tail.add(start.elapsed());
        }
        tail
    }

    /// One more.
    pub fn add(&mut self, time: Duration) {
        self.0.saturating_record(crate::nanos(time));
    }

    /// All of both.
    pub fn join(&mut self, other: &Self) {
        // Both have the same bounds, so that nothing can be out of them.
        let _ = self.0.add(&other.0);
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What this share of them does not exceed, to three digits; 1 gives the maximum.
    #[must_use]
    pub fn quantile(&self, share: f64) -> f64 {
        self.0.value_at_quantile(share) as f64
    }
}

impl Default for Tail {
    #[expect(clippy::expect_used, reason = "the bounds are constants")]
    fn default() -> Self {
        Self(Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("bounds that are in order"))
    }
}

/// What the clock adds to a sample: the median and 99.9 % of many empty ones, in nanoseconds.
#[must_use]
pub fn clock_cost() -> [f64; 2] {
    let tail = Tail::of(200_000, |number| _ = black_box(number));
    [tail.quantile(0.5), tail.quantile(0.999)]
}

#[cfg(test)]
#[allow(clippy::disallowed_types, reason = "threads of a test meet")]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn contestants_take_turns_and_the_first_round_does_not_count() {
        let log = std::cell::RefCell::new(Vec::new());
        let (mut one, mut two, mut three) = (0.0, 10.0, 20.0);
        let figures = alternate(
            3,
            [
                &mut || {
                    log.borrow_mut().push('a');
                    one += 1.0;
                    one
                },
                &mut || {
                    log.borrow_mut().push('b');
                    two += 1.0;
                    two
                },
                &mut || {
                    log.borrow_mut().push('c');
                    three += 1.0;
                    three
                },
            ],
        );
        assert_eq!(log.into_inner().iter().collect::<String>(), "abccbaabccba");
        assert_eq!(figures, [vec![2.0, 3.0, 4.0], vec![12.0, 13.0, 14.0], vec![22.0, 23.0, 24.0]]);
    }

    #[test]
    fn threads_begin_together_and_their_mean_counts() {
        // Each waits for the other: threads that ran one behind the other would never end.
        let met = AtomicUsize::new(0);
        let mean = on_threads(2, |thread, barrier| {
            met.fetch_add(1, Ordering::SeqCst);
            barrier.wait();
            assert_eq!(met.load(Ordering::SeqCst), 2);
            [3.0, 5.0][thread]
        });
        assert!((mean - 4.0).abs() < 1e-9);
        assert!((on_threads(1, |thread, _| thread as f64 + 7.0) - 7.0).abs() < 1e-9);
        assert!(on_threads(2, |thread, _| [1.0][thread]).is_nan(), "a thread that panicked was left out");
    }

    #[test]
    fn a_tail_knows_its_quantiles_and_its_maximum() {
        let mut tail = Tail::default();
        assert!(tail.is_empty());
        for nanos in 1..=1000 {
            tail.add(Duration::from_nanos(nanos));
        }
        let mut other = Tail::default();
        other.add(Duration::from_millis(5));
        tail.join(&other);
        assert_eq!(tail.len(), 1001);
        assert_eq!([0.5, 0.999].map(|share| tail.quantile(share)), [501.0, 1000.0]);
        assert!((tail.quantile(1.0) - 5e6).abs() < 5e3, "{}", tail.quantile(1.0));
        let mut calls = Vec::new();
        assert_eq!(Tail::of(3, |number| calls.push(number)).len(), 3);
        assert_eq!(calls, [0, 1, 2]);
    }

    #[test]
    fn depths_are_spread_over_a_page() {
        let place = |depth| {
            let local = 0_u8;
            let here = core::ptr::from_ref(black_box(&local)).addr();
            let there = at_depth(depth, || {
                let local = 0_u8;
                core::ptr::from_ref(black_box(&local)).addr()
            });
            here - there
        };
        let places: Vec<usize> = (0..DEPTHS).map(place).collect();
        let eighths: std::collections::HashSet<usize> = places.iter().map(|at| (at - places[0]) % 4096 / 512).collect();
        assert!(eighths.len() >= 5, "{places:?}");
        assert_eq!(places[0], place(DEPTHS));
    }

    #[test]
    fn times_are_spread_over_operations() {
        assert!((per_operation(Duration::from_micros(1), 4) - 250.0).abs() < 1e-9);
        let slept = mean(2, || std::thread::sleep(Duration::from_millis(4)));
        assert!(slept >= 2e6, "{slept}");
        let [by_clock, used] = mean_both(2, || std::thread::sleep(Duration::from_millis(40)));
        assert!(by_clock >= 2e7 && used < by_clock / 2.0, "{by_clock} {used}");
        let [by_clock, used] = mean_both(1, || {
            let start = Instant::now();
            while start.elapsed() < Duration::from_millis(40) {}
        });
        // Others may have had most of the time, but hardly all of it.
        assert!(used > 1e5 && used < by_clock * 1.1, "{by_clock} {used}");
    }
}
