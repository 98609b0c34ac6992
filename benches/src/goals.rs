//! What this project set out to reach: one goal for each line of the table of targets, and the verdict on it.
//!
//! What must hold: a goal is met only by figures that were measured; what was not measured is short, and says why.

use serde::{Deserialize, Serialize};

use crate::figure::{Range, Side, three_digits};

/// What the median has to be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// Ours over the peer's, in the same round, at most.
    RatioAtMost(f64),
    /// Ours over the peer's, in the same round, at least.
    RatioAtLeast(f64),
    /// Our own figure, at least.
    AtLeast(f64),
}

impl Target {
    /// Whether a median meets it.
    #[must_use]
    pub fn is_met(self, median: f64) -> bool {
        match self {
            Self::RatioAtMost(most) => median <= most,
            Self::RatioAtLeast(least) | Self::AtLeast(least) => median >= least,
        }
    }

    /// For people.
    #[must_use]
    pub fn show(self) -> String {
        match self {
            Self::RatioAtMost(most) if most < 0.01 => format!("<= 1/{:.0}", 1.0 / most),
            Self::RatioAtMost(most) => format!("<= {most}"),
            Self::RatioAtLeast(least) => format!(">= {least}x"),
            Self::AtLeast(least) => format!(">= {least}"),
        }
    }
}

/// One goal.
#[derive(Clone, Copy, Debug)]
pub struct Goal {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What is measured, and against whom.
    pub what: &'static str,
    /// What counts as reached.
    pub target: Target,
}

impl Goal {
    /// The goal with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        GOALS.iter().find(|goal| goal.name == name)
    }

    /// The line of this goal, with figures.
    #[must_use]
    pub fn measured(&self, ours: Side, peer: Option<Side>) -> Line {
        Line { ours: Some(ours), peer, ..self.blank() }
    }

    /// The line of this goal, without figures and with the reason.
    #[must_use]
    pub fn not_measured(&self, reason: &str) -> Line {
        Line { note: reason.to_owned(), ..self.blank() }
    }

    fn blank(&self) -> Line {
        let (name, what) = (self.name.to_owned(), self.what.to_owned());
        Line {
            name,
            what,
            target: self.target,
            ours: None,
            peer: None,
            others: Vec::new(),
            failed: false,
            note: String::new(),
        }
    }
}

/// What became of a goal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// The goal's name.
    pub name: String,
    /// What was measured, and against whom.
    pub what: String,
    /// What counts as reached.
    pub target: Target,
    /// Ours, if it was measured.
    pub ours: Option<Side>,
    /// The peer that counts, if there is one and it was measured.
    pub peer: Option<Side>,
    /// Others that were measured in the same rounds.
    pub others: Vec<Side>,
    /// Something that had to hold did not, so that the figures count for nothing; the note says what.
    pub failed: bool,
    /// What a reader must know about the figures, or why there are none.
    pub note: String,
}

impl Line {
    /// The same line with others measured beside.
    #[must_use]
    pub fn beside(self, others: Vec<Side>) -> Self {
        Self { others, ..self }
    }

    /// The same line with a note.
    #[must_use]
    pub fn note(self, note: impl Into<String>) -> Self {
        Self { note: note.into(), ..self }
    }

    /// The same line, if this held; otherwise one that is short whatever its figures.
    #[must_use]
    pub fn provided(self, held: bool, otherwise: &str) -> Self {
        if held { self } else { Self { failed: true, note: otherwise.to_owned(), ..self } }
    }

    /// What is compared with the target: the ratio, or our own figure.
    #[must_use]
    pub fn ratio(&self) -> Option<Range> {
        let ours = self.ours.as_ref()?;
        match self.target {
            Target::AtLeast(_) => ours.range(),
            Target::RatioAtMost(_) | Target::RatioAtLeast(_) => Range::of(&ours.over(self.peer.as_ref()?)),
        }
    }

    /// Whether the goal is met, by the median.
    #[must_use]
    pub fn is_met(&self) -> bool {
        !self.failed && self.ratio().is_some_and(|ratio| self.target.is_met(ratio.median))
    }

    /// `ok` or `short`.
    #[must_use]
    pub fn verdict(&self) -> &'static str {
        if self.is_met() { "ok" } else { "short" }
    }

    /// Adds another run's rounds of the same goal. The note stays this one's, unless the other's figures count for nothing.
    pub fn join(&mut self, other: &Self) {
        let join = |here: &mut Option<Side>, there: &Option<Side>| match (here.as_mut(), there) {
            (Some(here), Some(there)) => here.join(there),
            (None, Some(there)) => *here = Some(there.clone()),
            (_, None) => {}
        };
        join(&mut self.ours, &other.ours);
        join(&mut self.peer, &other.peer);
        for side in &mut self.others {
            if let Some(there) = other.others.iter().find(|there| there.label == side.label) {
                side.join(there);
            }
        }
        if other.failed && !self.failed {
            (self.failed, self.note) = (true, other.note.clone());
        }
    }

    /// The median of what is compared with the target, for people; a dash where there is none.
    #[must_use]
    pub fn show_median(&self) -> String {
        self.ratio().map_or_else(|| "-".to_owned(), |ratio| three_digits(ratio.median))
    }

    /// The ratio for people, with its spread; a dash where there is none.
    #[must_use]
    pub fn show_ratio(&self) -> String {
        match self.target {
            Target::AtLeast(_) => "-".to_owned(),
            _ => self.ratio().map_or_else(|| "-".to_owned(), |ratio| ratio.show(three_digits)),
        }
    }

    /// `name, ours, peer, ratio, target, ok or short`, with tabs in between, and the note behind a last one if there is one.
    #[must_use]
    pub fn show(&self) -> String {
        let side = |side: &Option<Side>| side.as_ref().map_or_else(|| "-".to_owned(), Side::show);
        let note = if self.note.is_empty() { String::new() } else { format!("\t{}", self.note) };
        let (ours, peer, target) = (side(&self.ours), side(&self.peer), self.target.show());
        format!("{}\t{ours}\t{peer}\t{}\t{target}\t{}{note}", self.name, self.show_ratio(), self.verdict())
    }
}

/// Every goal, in the order of the table.
pub const GOALS: &[Goal] = &[
    most("handle_contains_1m_1t", 1.0, "handle `is_trusted`, 1 M records, half of the questions hit; bare hashbrown"),
    most("handle_contains_1m_1t_hits", 1.0, "the same, every question hits"),
    most("handle_contains_1m_2t", 1.3, "handle `is_trusted`, 1 M, two threads; bare hashbrown, two threads"),
    most("handle_contains_1m_2t_hits", 1.3, "the same, every question hits"),
    most("handle_contains_100", 0.75, "handle `is_trusted`, 100 records, half hit; bare hashbrown"),
    most("handle_contains_10k", 0.75, "handle `is_trusted`, 10 k records, half hit; bare hashbrown"),
    most("handle_contains_10m", 2.0, "handle `is_trusted`, 10 M records, half hit; bare hashbrown"),
    most("store_contains_1m_1t", 0.5, "`store.is_trusted(&self)`, 1 M, half hit; parking_lot RwLock"),
    most("store_contains_1m_2t", 0.15, "the same on two threads; parking_lot RwLock, two threads"),
    most("get_1m", 2.0, "handle `get`, 1 M records, every question hits; bare hashbrown"),
    most(
        "read_tail_writer_flat_out",
        1.5,
        "p99.9 of a handle's read while a writer publishes flat out, 1 M; bare hashbrown, no writer",
    ),
    most("read_tail_in_fsync", 1.2, "p99.9 of a handle's read while the keeper sits in fsync, 10 k; the same, no save"),
    most("grant_tail_in_fsync", 1.5, "p99.9 of a grant while the keeper sits in fsync, 10 k; the same, no save"),
    most(
        "read_tail_in_look_up",
        1.2,
        "p99.9 of a handle's `is_trusted` while a look-up at the registry hangs for 30 s, 10 k; the same, none hangs",
    ),
    most("store_read_tail_in_look_up", 1.2, "p99.9 of `is_trusted` without a handle meanwhile; the same, none hangs"),
    most("approve_tail_in_look_up", 1.2, "p99.9 of `approve` meanwhile; the same, none hangs"),
    most("update_1m", 0.2, "one grant with its publish, 1 M; ArcSwap<imbl::HashMap>"),
    most("batch_1000_1m", 0.15, "a batch of 1000 grants with its publish, 1 M; ArcSwap<imbl::HashMap>"),
    most(
        "last_drop_10k",
        1e-3,
        "a reader drops the last reference to an old version, 10 k of 1 M changed; imbl::HashMap",
    ),
    most(
        "memory_built_1m",
        0.5,
        "resident bytes per record of an opened store, 1 M; hashbrown with the capacity reserved",
    ),
    most(
        "memory_churned_1m",
        0.6,
        "the same after every record was revoked and granted again; hashbrown after the same",
    ),
    least(
        "grants_10k_model_a",
        5000.0,
        "grants/s until durable, a reader beside, 10 k records; model A (mutex, JSON, fsync inside)",
    ),
    least("grants_10k_model_b", 300.0, "the same; model B (RwLock, background save under the read lock)"),
    Goal {
        name: "grants_10k",
        what: "grants/s until durable, a reader beside, 10 k records",
        target: Target::AtLeast(400_000.0),
    },
    most("read_during_grants_10k", 1e-4, "mean read during those grants, 10 k; model B"),
    most("read_during_grants_1m", 1e-6, "the same, 1 M; model B"),
    least(
        "durable_64t_peers",
        3.0,
        "durable grants/s, 64 threads, each waits for its own; best of redb, fjall, SQLite, LMDB",
    ),
    least("durable_64t_1t", 16.0, "durable grants/s, 64 threads, each waits for its own; our own one thread"),
    most("durable_1t", 1.3, "a durable grant, one thread; bare append and fdatasync of as many bytes"),
    most("bytes_one_change_1m", 1e-4, "bytes handed to the system for one change in 1 M; bytes of a whole snapshot"),
    most("save_1m", 0.06, "walk, encode and checksum 1 M records into memory; serde_json, pretty, into memory"),
    most("open_1m", 0.15, "open a store of 1 M: map, verify, decode, build; serde_json parse alone of the same"),
    least(
        "requests_known",
        0.8,
        "version-2 requests/s from known peers, from bytes to publish, no TCP; verify_strict alone",
    ),
    most("message_stale", 0.1, "a message that is too old, 1 KiB; a good one"),
    most("message_replayed", 0.1, "a message that was seen before, 1 KiB; a good one"),
    most("message_unknown_type", 0.1, "a message of unknown type, 1 KiB; a good one"),
    most("message_bad_signature", 1.0, "a message with a bad signature, 1 KiB, no look-up made; a good one"),
];

const fn most(name: &'static str, ratio: f64, what: &'static str) -> Goal {
    Goal { name, what, target: Target::RatioAtMost(ratio) }
}

const fn least(name: &'static str, ratio: f64, what: &'static str) -> Goal {
    Goal { name, what, target: Target::RatioAtLeast(ratio) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figure::Unit;

    fn line(target: Target, ours: &[f64], peer: Option<&[f64]>) -> Line {
        let side = |rounds: &[f64]| Side::new("x", Unit::Nanos, rounds.to_vec());
        Goal { name: "goal", what: "what", target }.measured(side(ours), peer.map(side))
    }

    #[test]
    fn the_median_of_the_rounds_decides_both_ways() {
        let most = Target::RatioAtMost(0.5);
        assert_eq!(line(most, &[1.0, 1.0, 9.0], Some(&[2.0, 2.0, 2.0])).verdict(), "ok");
        assert_eq!(line(most, &[1.1, 1.1, 0.1], Some(&[2.0, 2.0, 2.0])).verdict(), "short");
        let least = Target::RatioAtLeast(3.0);
        assert_eq!(line(least, &[6.0, 6.0, 1.0], Some(&[2.0, 2.0, 2.0])).verdict(), "ok");
        assert_eq!(line(least, &[5.9, 5.9, 99.0], Some(&[2.0, 2.0, 2.0])).verdict(), "short");
        let own = Target::AtLeast(400.0);
        assert_eq!(line(own, &[400.0], None).verdict(), "ok");
        assert_eq!(line(own, &[399.0], None).verdict(), "short");
    }

    #[test]
    fn what_was_not_measured_is_short() {
        let goal = Goal { name: "goal", what: "what", target: Target::RatioAtMost(2.0) };
        let line = goal.not_measured("no such thing yet");
        assert_eq!(line.show(), "goal\t-\t-\t-\t<= 2\tshort\tno such thing yet");
        // Figures without a peer, without rounds, and with nothing to divide by.
        assert!(!self::line(Target::RatioAtMost(2.0), &[1.0], None).is_met());
        assert!(!self::line(Target::RatioAtMost(2.0), &[], Some(&[])).is_met());
        assert!(!self::line(Target::RatioAtMost(2.0), &[0.0], Some(&[0.0])).is_met());
    }

    #[test]
    fn figures_count_only_if_what_had_to_hold_held() {
        let good = line(Target::RatioAtMost(2.0), &[1.0], Some(&[1.0]));
        assert!(good.clone().provided(true, "a look-up was made").is_met());
        let failed = good.provided(false, "a look-up was made");
        assert!(!failed.is_met());
        assert!(failed.show().ends_with("\tshort\ta look-up was made"));
    }

    #[test]
    fn another_runs_rounds_are_added_and_what_failed_there_failed() {
        let target = Target::RatioAtMost(2.0);
        let mut both =
            line(target, &[1.0], Some(&[1.0])).note("one").beside(vec![Side::new("x", Unit::Nanos, vec![1.0])]);
        both.join(&line(target, &[9.0, 3.0], Some(&[1.0, 1.0])).note("two").beside(both.others.clone()));
        assert_eq!(both.ratio().map(|ratio| [ratio.median, ratio.min, ratio.max]), Some([3.0, 1.0, 9.0]));
        assert_eq!((both.note.as_str(), both.others[0].rounds.len()), ("one", 2));
        both.join(&Goal { name: "goal", what: "what", target }.not_measured("no disk"));
        assert_eq!(both.ratio().map(|ratio| ratio.median), Some(3.0));
        let mut good = line(target, &[1.0], Some(&[1.0]));
        good.join(&good.clone().provided(false, "a look-up was made"));
        assert_eq!((good.is_met(), good.note.as_str()), (false, "a look-up was made"));
        let mut first = Goal { name: "goal", what: "what", target }.not_measured("no disk");
        first.join(&line(target, &[1.0], Some(&[1.0])));
        assert!(first.is_met());
        // Whoever was the best peer in a run is named.
        let side = |label: &str| Some(Side::new(label, Unit::Nanos, vec![1.0]));
        let (mut one, mut other) = (line(target, &[1.0], None), line(target, &[1.0], None));
        (one.peer, other.peer) = (side("a"), side("b"));
        one.join(&other);
        one.join(&other);
        assert_eq!(one.peer.map(|peer| (peer.label, peer.rounds.len())), Some(("a / b".to_owned(), 3)));
    }

    #[test]
    fn a_line_has_six_columns_or_a_note_as_the_seventh() {
        let line = line(Target::RatioAtMost(1e-4), &[20.0], Some(&[40.0]));
        let shown =
            "goal\t20.0 ns [20.0 ns, 20.0 ns]\t40.0 ns [40.0 ns, 40.0 ns]\t0.500 [0.500, 0.500]\t<= 1/10000\tshort";
        assert_eq!(line.show(), shown);
        assert_eq!(line.note("by hand").show(), format!("{shown}\tby hand"));
        assert_eq!([Target::RatioAtLeast(5000.0), Target::AtLeast(4e5)].map(Target::show), [">= 5000x", ">= 400000"]);
    }

    #[test]
    fn every_goal_has_a_name_of_its_own() {
        let mut names: Vec<_> = GOALS.iter().map(|goal| goal.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), GOALS.len());
        assert_eq!(names.len(), 37);
        assert!(names.iter().all(|name| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')));
        assert_eq!(Goal::named("get_1m").map(|goal| goal.target), Some(Target::RatioAtMost(2.0)));
        assert!(Goal::named("get_1").is_none());
    }
}
