//! Figures, their units and their spread over rounds.
//!
//! What must hold: a figure that is shown carries its unit, and a median never stands without the smallest and the largest
//! figure beside it.

use serde::{Deserialize, Serialize};

/// What a figure counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Nanoseconds for one operation.
    Nanos,
    /// Operations in a second.
    PerSecond,
    /// Bytes.
    Bytes,
}

impl Unit {
    /// The figure with three significant digits and the unit that suits its size.
    #[must_use]
    pub fn show(self, figure: f64) -> String {
        let steps: &[(f64, &str)] = match self {
            Self::Nanos => &[(1e9, "s"), (1e6, "ms"), (1e3, "us"), (1.0, "ns")],
            Self::PerSecond => &[(1e6, "M/s"), (1e3, "k/s"), (1.0, "/s")],
            Self::Bytes => &[(1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B")],
        };
        // What would be rounded up to 1000 of a unit is 1 of the next.
        let step = steps.iter().find(|(size, _)| figure / size >= 0.9995).or(steps.last());
        step.map_or_else(String::new, |(size, name)| format!("{} {name}", three_digits(figure / size)))
    }
}

/// Three significant digits, without an exponent: for ratios and for figures next to their unit.
#[must_use]
pub fn three_digits(figure: f64) -> String {
    if figure == 0.0 || !figure.is_finite() {
        return format!("{figure}");
    }
    // After rounding to three digits: 9.999 is 10.0, not 10.00.
    let rounded: f64 = format!("{figure:.2e}").parse().unwrap_or(figure);
    let exponent = rounded.abs().log10().floor() as i32;
    let decimals = usize::try_from((2 - exponent).max(0)).unwrap_or(0);
    format!("{rounded:.decimals$}")
}

/// Median, smallest and largest of some rounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Range {
    /// The middle one; of an even number, the mean of the two in the middle.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Range {
    /// Of these rounds; `None` if there are none, or if one is no number.
    #[must_use]
    pub fn of(rounds: &[f64]) -> Option<Self> {
        if rounds.iter().any(|round| round.is_nan()) {
            return None;
        }
        let mut sorted = rounds.to_vec();
        sorted.sort_by(f64::total_cmp);
        let upper = *sorted.get(sorted.len() / 2)?;
        let lower = *sorted.get(sorted.len().saturating_sub(1) / 2)?;
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        Some(Self { median: f64::midpoint(lower, upper), min, max })
    }

    /// For people: `median [min, max]`, each as `show` writes it.
    #[must_use]
    pub fn show(&self, show: impl Fn(f64) -> String) -> String {
        format!("{} [{}, {}]", show(self.median), show(self.min), show(self.max))
    }
}

/// What one contestant did, round by round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Side {
    /// Who.
    pub label: String,
    /// What its figures count.
    pub unit: Unit,
    /// One figure for each round.
    pub rounds: Vec<f64>,
}

impl Side {
    /// Of this contestant.
    #[must_use]
    pub fn new(label: &str, unit: Unit, rounds: Vec<f64>) -> Self {
        Self { label: label.to_owned(), unit, rounds }
    }

    /// Adds another run's rounds of the same contestant, or of the one that stood in its place there.
    pub fn join(&mut self, other: &Self) {
        if !self.label.split(" / ").any(|label| label == other.label) {
            self.label = format!("{} / {}", self.label, other.label);
        }
        self.rounds.extend_from_slice(&other.rounds);
    }

    /// Its spread.
    #[must_use]
    pub fn range(&self) -> Option<Range> {
        Range::of(&self.rounds)
    }

    /// Its spread, for people.
    #[must_use]
    pub fn show(&self) -> String {
        self.range().map_or_else(|| "-".to_owned(), |range| range.show(|figure| self.unit.show(figure)))
    }

    /// Its figures as multiples of another's in the same round.
    #[must_use]
    pub fn over(&self, other: &Self) -> Vec<f64> {
        self.rounds.iter().zip(&other.rounds).map(|(ours, theirs)| ours / theirs).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_shown_in_the_unit_that_suits_it() {
        let nanos = [17.26, 0.27, 999.6, 1_234.0, 84e6, 1.7e9, 0.0].map(|figure| Unit::Nanos.show(figure));
        assert_eq!(nanos, ["17.3 ns", "0.270 ns", "1.00 us", "1.23 us", "84.0 ms", "1.70 s", "0 ns"]);
        assert_eq!(
            [412_345.0, 79.0, 1.4e6].map(|figure| Unit::PerSecond.show(figure)),
            ["412 k/s", "79.0 /s", "1.40 M/s"]
        );
        assert_eq!([98.0, 178e6, 52.34].map(|figure| Unit::Bytes.show(figure)), ["98.0 B", "178 MB", "52.3 B"]);
    }

    #[test]
    fn three_digits_are_three_digits() {
        let shown = [9.999, 0.75, 1.0, 123_456.0, 0.000_012_34, -1.5, 99.95, f64::INFINITY].map(three_digits);
        assert_eq!(shown, ["10.0", "0.750", "1.00", "123000", "0.0000123", "-1.50", "100", "inf"]);
    }

    #[test]
    fn a_range_is_median_smallest_and_largest() {
        let range = |rounds: &[f64]| Range::of(rounds).map(|range| [range.median, range.min, range.max]);
        assert_eq!(range(&[3.0, 9.0, 1.0]), Some([3.0, 1.0, 9.0]));
        assert_eq!(range(&[4.0, 1.0, 2.0, 100.0]), Some([3.0, 1.0, 100.0]));
        assert_eq!(range(&[7.0]), Some([7.0, 7.0, 7.0]));
        assert_eq!(range(&[]), None);
        assert_eq!(range(&[1.0, f64::NAN]), None);
        let side = Side::new("x", Unit::Nanos, vec![3.0, 9.0, 1.0]);
        assert_eq!(side.show(), "3.00 ns [1.00 ns, 9.00 ns]");
        assert_eq!(Side::new("x", Unit::Nanos, vec![]).show(), "-");
    }

    #[test]
    fn a_ratio_is_of_the_same_round() {
        let ours = Side::new("ours", Unit::Nanos, vec![1.0, 4.0, 9.0]);
        let peer = Side::new("peer", Unit::Nanos, vec![2.0, 2.0, 3.0]);
        assert_eq!(ours.over(&peer), [0.5, 2.0, 3.0]);
    }
}
