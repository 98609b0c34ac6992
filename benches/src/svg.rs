//! Small line charts as SVG, written by hand: an axis of powers of ten each way, a line for each contestant, a legend.
//!
//! What must hold: every point lies where its figures say, on axes that are labelled with their unit; what cannot be drawn
//! on an axis of powers (nothing, or less) is left out.

use core::fmt::Write as _;

use crate::figure::{Range, Unit};
use crate::results::Series;

/// How a series is drawn.
#[derive(Clone, Copy, Debug)]
pub struct Chart<'a> {
    /// Above everything.
    pub title: &'a str,
    /// What the axis along the bottom counts.
    pub across: &'a str,
    /// What the axis on the left counts.
    pub up: Unit,
    /// What stands at each place of the bottom axis, for places that are no powers of ten.
    pub places: &'a [(f64, &'a str)],
}

/// One axis: where a figure lies, between 0 and 1.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Axis {
    /// Exponents of ten at both ends.
    from: f64,
    to: f64,
}

impl Axis {
    /// Whole powers of ten around all of these.
    fn around(figures: impl Iterator<Item = f64> + Clone) -> Self {
        let drawn = figures.filter(|figure| *figure > 0.0 && figure.is_finite()).map(f64::log10);
        let from = drawn.clone().fold(f64::INFINITY, f64::min);
        let to = drawn.fold(f64::NEG_INFINITY, f64::max);
        if from > to {
            return Self { from: 0.0, to: 1.0 };
        }
        // A little below a power is counted as that power.
        let (from, to) = ((from + 1e-9).floor(), (to - 1e-9).ceil());
        Self { from, to: to.max(from + 1.0) }
    }

    fn place(self, figure: f64) -> Option<f64> {
        (figure > 0.0 && figure.is_finite()).then(|| (figure.log10() - self.from) / (self.to - self.from))
    }

    fn powers(self) -> impl Iterator<Item = f64> {
        (self.from as i32..=self.to as i32).map(|exponent| 10f64.powi(exponent))
    }
}

/// The chart of a series. Each point is the median of its rounds, with a bar from the smallest to the largest.
#[must_use]
pub fn draw(series: &Series, chart: &Chart<'_>) -> String {
    let points = || series.curves.iter().flat_map(|curve| &curve.points);
    let ranges = || points().filter_map(|point| Range::of(&point.rounds));
    let up = Axis::around(ranges().flat_map(|range| [range.min, range.max]));
    let across = Across::of(chart, points().map(|point| point.at));
    let x = |at: f64| across.place(at).map(|place| LEFT + place * (RIGHT - LEFT));
    let y = |figure: f64| up.place(figure).map(|place| BOTTOM - place * (BOTTOM - TOP));

    let height = BOTTOM + 60.0 + 18.0 * (series.curves.len().div_ceil(2) as f64);
    let mut svg = String::new();
    // Writing to a string cannot fail.
    let _ = write!(
        svg,
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" font-family="sans-serif" font-size="12">"##
    );
    let _ = write!(
        svg,
        r##"<rect width="100%" height="100%" fill="#ffffff"/><text x="{LEFT}" y="24" font-size="15" font-weight="bold" fill="#222">{}</text>"##,
        escape(chart.title)
    );
    for power in up.powers() {
        if let Some(y) = y(power) {
            let label = tick(chart.up, power);
            let _ = write!(
                svg,
                r##"<path d="M{LEFT} {y:.1}H{RIGHT}" stroke="#ddd"/><text x="{:.1}" y="{:.1}" text-anchor="end" fill="#555">{label}</text>"##,
                LEFT - 8.0,
                y + 4.0
            );
        }
    }
    for (at, label) in across.ticks() {
        if let Some(x) = x(at) {
            let _ = write!(
                svg,
                r##"<path d="M{x:.1} {TOP}V{BOTTOM}" stroke="#eee"/><text x="{x:.1}" y="{:.1}" text-anchor="middle" fill="#555">{}</text>"##,
                BOTTOM + 18.0,
                escape(&label)
            );
        }
    }
    let _ = write!(
        svg,
        r##"<text x="{:.1}" y="{:.1}" text-anchor="middle" fill="#222">{}</text>"##,
        f64::midpoint(LEFT, RIGHT),
        BOTTOM + 38.0,
        escape(chart.across)
    );
    let _ = write!(svg, r##"<path d="M{LEFT} {TOP}V{BOTTOM}H{RIGHT}" fill="none" stroke="#888"/>"##);
    for (number, curve) in series.curves.iter().enumerate() {
        let (color, dash) = style(number);
        let mut line = String::new();
        for point in &curve.points {
            let Some(range) = Range::of(&point.rounds) else { continue };
            let (Some(x), Some(middle)) = (x(point.at), y(range.median)) else { continue };
            let _ = write!(line, "{}{x:.1} {middle:.1}", if line.is_empty() { "M" } else { "L" });
            if let (Some(low), Some(high)) = (y(range.min), y(range.max)) {
                let _ = write!(
                    svg,
                    r##"<path d="M{x:.1} {low:.1}V{high:.1}" stroke="{color}" stroke-opacity=".45" stroke-width="2"/>"##
                );
            }
            let _ = write!(svg, r##"<circle cx="{x:.1}" cy="{middle:.1}" r="3" fill="{color}"/>"##);
        }
        let _ = write!(
            svg,
            r##"<path d="{line}" fill="none" stroke="{color}" stroke-width="{}" stroke-dasharray="{dash}"/>"##,
            if number == 0 { 3.0 } else { 1.7 }
        );
        let (column, row) = ((number % 2) as f64, (number / 2) as f64);
        let (left, middle) = (LEFT + column * 330.0, BOTTOM + 62.0 + row * 18.0);
        let _ = write!(
            svg,
            r##"<path d="M{left:.1} {middle:.1}h26" stroke="{color}" stroke-width="3" stroke-dasharray="{dash}"/><text x="{:.1}" y="{:.1}" fill="#222">{}</text>"##,
            left + 34.0,
            middle + 4.0,
            escape(&curve.label)
        );
    }
    svg.push_str("</svg>\n");
    svg
}

/// The bottom axis: powers of ten, or named places at equal distances.
enum Across<'a> {
    Powers(Axis),
    Places(&'a [(f64, &'a str)]),
}

impl<'a> Across<'a> {
    fn of(chart: &Chart<'a>, at: impl Iterator<Item = f64> + Clone) -> Self {
        if chart.places.is_empty() { Self::Powers(Axis::around(at)) } else { Self::Places(chart.places) }
    }

    fn place(&self, at: f64) -> Option<f64> {
        match self {
            Self::Powers(axis) => axis.place(at),
            Self::Places(places) => {
                let number = places.iter().position(|(place, _)| (place - at).abs() < 1e-12)?;
                Some(number as f64 / places.len().saturating_sub(1).max(1) as f64)
            }
        }
    }

    fn ticks(&self) -> Vec<(f64, String)> {
        match self {
            Self::Powers(axis) => axis.powers().map(|power| (power, count(power))).collect(),
            Self::Places(places) => places.iter().map(|(at, name)| (*at, (*name).to_owned())).collect(),
        }
    }
}

/// A power of ten with its unit and without needless digits: `10 us`.
#[must_use]
pub fn tick(unit: Unit, power: f64) -> String {
    let shown = unit.show(power);
    let (number, name) = shown.split_once(' ').unwrap_or((&shown, ""));
    let number = if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { number };
    format!("{number} {name}")
}

/// A number of things: `10 k`.
#[must_use]
pub fn count(of: f64) -> String {
    tick(Unit::PerSecond, of).replace("/s", "").trim().to_owned()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Colours that differ for most eyes; from the second round on, dashed.
fn style(number: usize) -> (&'static str, &'static str) {
    const COLORS: [&str; 8] = ["#0b6e4f", "#d1495b", "#30638e", "#edae49", "#7b4f9e", "#6b705c", "#00a6a6", "#a44200"];
    let dash = if number < COLORS.len() { "none" } else { "5 3" };
    (COLORS.get(number % COLORS.len()).copied().unwrap_or("#000"), dash)
}

const WIDTH: f64 = 760.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 735.0;
const TOP: f64 = 42.0;
const BOTTOM: f64 = 360.0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::{Curve, Point};

    fn series(points: &[(f64, &[f64])]) -> Series {
        let points = points.iter().map(|(at, rounds)| Point { at: *at, rounds: rounds.to_vec() }).collect();
        Series { name: "s".into(), curves: vec![Curve { label: "ArcSwap<Map> & co".into(), points }] }
    }

    const CHART: Chart<'_> = Chart { title: "a < b", across: "records", up: Unit::Nanos, places: &[] };

    #[test]
    fn points_lie_where_their_figures_say() {
        // From 10 to 1000 across and from 1 to 100 up: the middle of both, a corner, and a bar over the whole height.
        let svg = draw(&series(&[(10.0, &[1.0]), (100.0, &[10.0]), (1000.0, &[1.0, 100.0, 10.0])]), &CHART);
        let middle = (f64::midpoint(LEFT, RIGHT), f64::midpoint(TOP, BOTTOM));
        assert!(svg.contains(&format!(r#"cx="{LEFT:.1}" cy="{BOTTOM:.1}""#)), "{svg}");
        assert!(svg.contains(&format!(r#"cx="{:.1}" cy="{:.1}""#, middle.0, middle.1)));
        assert!(svg.contains(&format!(r#"cx="{RIGHT:.1}" cy="{:.1}""#, middle.1)));
        assert!(svg.contains(&format!(r#"d="M{RIGHT:.1} {BOTTOM:.1}V{TOP:.1}""#)));
        let line = format!("M{LEFT:.1} {BOTTOM:.1}L{:.1} {:.1}L{RIGHT:.1} {:.1}", middle.0, middle.1, middle.1);
        assert!(svg.contains(&line));
    }

    #[test]
    fn axes_are_labelled_and_texts_are_escaped() {
        let svg = draw(&series(&[(100.0, &[50.0]), (1e6, &[2e6])]), &CHART);
        for text in
            [">10 ns<", ">1 us<", ">10 ms<", ">100<", ">1 M<", ">records<", "a &lt; b", "ArcSwap&lt;Map&gt; &amp; co"]
        {
            assert!(svg.contains(text), "{text}\n{svg}");
        }
        assert_eq!(svg.matches("<svg").count(), svg.matches("</svg>").count());
    }

    #[test]
    fn named_places_stand_at_equal_distances() {
        let places = [(0.5, "p50"), (0.999, "p99.9"), (1.0, "max")];
        let svg = draw(&series(&[(0.5, &[1.0]), (0.999, &[1.0]), (0.7, &[1.0])]), &Chart { places: &places, ..CHART });
        assert!(
            svg.contains(&format!(r#"cx="{LEFT:.1}""#))
                && svg.contains(&format!(r#"cx="{:.1}""#, f64::midpoint(LEFT, RIGHT)))
        );
        // What has no place is left out.
        assert_eq!(svg.matches("<circle").count(), 2);
        assert!(svg.contains(">p99.9<") && svg.contains(">max<"));
    }

    #[test]
    fn what_cannot_be_drawn_is_left_out() {
        let svg = draw(
            &series(&[(0.0, &[1.0]), (10.0, &[0.0]), (10.0, &[]), (10.0, &[f64::INFINITY]), (10.0, &[5.0])]),
            &CHART,
        );
        assert_eq!(svg.matches("<circle").count(), 1, "{svg}");
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
        assert!(draw(&Series { name: "s".into(), curves: Vec::new() }, &CHART).ends_with("</svg>\n"));
    }
}
