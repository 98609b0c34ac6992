//! The measurements behind the goals, one file for each kind.
//!
//! What must hold: each goal belongs to exactly one measurement, both sides of a goal are measured in the same rounds, and
//! a measurement that fails says so in the lines of its goals and takes no other with it.

mod drops;
mod durable;
mod fixtures;
pub(crate) mod grants;
mod handshake;
mod look_up;
mod memory;
pub(crate) mod reads;
mod saves;
pub(crate) mod tails;
mod updates;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

pub use memory::child as memory_child;

use crate::figure::{Side, Unit};
use crate::goals::{Goal, Line};
use fixtures::Fixtures;

/// How measurements run.
#[derive(Debug)]
pub struct Plan {
    /// A rough check: fewer and shorter rounds.
    pub quick: bool,
    /// Whether every goal is wanted: a rough check of all of them leaves out what takes longest.
    pub all: bool,
    /// Where files are put; an empty directory.
    pub home: PathBuf,
    fixtures: Fixtures,
}

impl Plan {
    /// With files in this empty directory.
    #[must_use]
    pub fn new(quick: bool, all: bool, home: PathBuf) -> Self {
        Self { quick, all, home, fixtures: Fixtures::default() }
    }

    /// Rounds of cheap measurements.
    #[must_use]
    pub const fn rounds(&self) -> usize {
        if self.quick { 3 } else { 9 }
    }

    /// Rounds of those that take seconds each.
    #[must_use]
    pub const fn few_rounds(&self) -> usize {
        if self.quick { 1 } else { 7 }
    }

    /// How long a side runs in a round, where time decides.
    #[must_use]
    pub const fn time(&self) -> Duration {
        Duration::from_millis(if self.quick { 200 } else { 1000 })
    }

    /// The first of these in a quick run, the second in a full one.
    #[must_use]
    pub const fn or(&self, quick: usize, full: usize) -> usize {
        if self.quick { quick } else { full }
    }
}

/// One kind of measurement: the goals it is for, and how it is made, given those of them that are wanted.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    goals: &'static [&'static str],
    measure: fn(&Plan, &Wanted<'_>) -> Vec<Line>,
}

/// Which goals are asked for.
#[derive(Clone, Copy)]
pub struct Wanted<'a>(&'a dyn Fn(&str) -> bool);

impl<'a> Wanted<'a> {
    /// Those for which this is true.
    #[must_use]
    pub const fn new(which: &'a dyn Fn(&str) -> bool) -> Self {
        Self(which)
    }

    /// Whether one of these is asked for.
    #[must_use]
    pub fn any(&self, names: &[&str]) -> bool {
        names.iter().any(|name| (self.0)(name))
    }
}

impl core::fmt::Debug for Wanted<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Wanted")
    }
}

/// Every kind. Those that need quiet memory come first.
pub const KINDS: &[Kind] = &[
    reads::SMALL,
    reads::LARGE,
    reads::HUGE,
    tails::WRITER,
    tails::FSYNC,
    look_up::LOOK_UP,
    updates::UPDATES,
    drops::DROPS,
    memory::MEMORY,
    grants::SMALL,
    grants::LARGE,
    durable::DURABLE,
    saves::SAVES,
    handshake::REQUESTS,
    handshake::REJECTED,
];

/// Measures what is wanted, and hands over each line as it is there, with how long its kind took.
#[expect(clippy::disallowed_methods, reason = "a run tells where its time went")]
pub fn measure(plan: &Plan, wanted: &Wanted<'_>, kinds: &[Kind], mut done: impl FnMut(Line, Duration)) {
    for kind in kinds.iter().filter(|kind| wanted.any(kind.goals)) {
        let start = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(|| (kind.measure)(plan, wanted)));
        let (mut lines, reason) = match result {
            Ok(lines) => (lines, "its measurement left it out".to_owned()),
            Err(panic) => (Vec::new(), format!("its measurement failed: {}", text_of(panic.as_ref()))),
        };
        for name in kind.goals.iter().filter(|name| wanted.any(&[name])) {
            let at = lines.iter().position(|line| line.name == *name);
            match (at, Goal::named(name)) {
                (Some(at), _) => done(lines.swap_remove(at), start.elapsed()),
                (None, Some(goal)) => done(goal.not_measured(&reason), start.elapsed()),
                (None, None) => {}
            }
        }
    }
}

fn text_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic").lines().next().unwrap_or("a panic")
}

/// The goal of this name; only names of [`KINDS`] come here.
fn goal(name: &str) -> &'static Goal {
    debug_assert!(Goal::named(name).is_some(), "{name}");
    Goal::named(name).unwrap_or(&NO_GOAL)
}

const NO_GOAL: Goal = Goal { name: "?", what: "?", target: crate::goals::Target::AtLeast(f64::INFINITY) };

fn nanos(label: &str, rounds: Vec<f64>) -> Side {
    Side::new(label, Unit::Nanos, rounds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::goals::GOALS;

    fn run(kinds: &[Kind], which: &dyn Fn(&str) -> bool) -> Vec<Line> {
        let mut lines = Vec::new();
        measure(&Plan::new(true, false, PathBuf::new()), &Wanted::new(which), kinds, |line, _| lines.push(line));
        lines
    }

    #[test]
    fn every_goal_has_exactly_one_measurement() {
        let mut measured: Vec<&str> = KINDS.iter().flat_map(|kind| kind.goals).copied().collect();
        let mut goals: Vec<&str> = GOALS.iter().map(|goal| goal.name).collect();
        measured.sort_unstable();
        goals.sort_unstable();
        assert_eq!(measured, goals);
    }

    #[test]
    fn what_fails_or_is_left_out_is_told_and_takes_nothing_with_it() {
        fn fails(_: &Plan, _: &Wanted<'_>) -> Vec<Line> {
            panic!("no {}\nsecond line", "disk")
        }
        fn one(_: &Plan, _: &Wanted<'_>) -> Vec<Line> {
            vec![goal("save_1m").measured(nanos("x", vec![1.0]), Some(nanos("y", vec![100.0])))]
        }
        let kinds =
            [Kind { goals: &["get_1m"], measure: fails }, Kind { goals: &["save_1m", "open_1m"], measure: one }];
        let shown: Vec<_> =
            run(&kinds, &|_| true).into_iter().map(|line| (line.name.clone(), line.is_met(), line.note)).collect();
        let expected = [
            ("get_1m", false, "its measurement failed: no disk"),
            ("save_1m", true, ""),
            ("open_1m", false, "its measurement left it out"),
        ];
        assert_eq!(shown, expected.map(|(name, met, note)| (name.to_owned(), met, note.to_owned())));
    }

    #[test]
    fn only_what_is_wanted_is_measured() {
        fn both(_: &Plan, wanted: &Wanted<'_>) -> Vec<Line> {
            assert!(wanted.any(&["save_1m"]) && !wanted.any(&["open_1m"]));
            ["save_1m", "open_1m"].map(|name| goal(name).not_measured("x")).into()
        }
        fn never(_: &Plan, _: &Wanted<'_>) -> Vec<Line> {
            panic!("nobody asked")
        }
        let kinds =
            [Kind { goals: &["save_1m", "open_1m"], measure: both }, Kind { goals: &["get_1m"], measure: never }];
        let names: Vec<_> = run(&kinds, &|name| name == "save_1m").into_iter().map(|line| line.name).collect();
        assert_eq!(names, ["save_1m"]);
    }
}
