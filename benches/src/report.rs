//! The document `docs/benchmarks.md` and its plots, from raw results.
//!
//! What must hold: every figure comes from the results that were given, with its spread; what is not won is told as plainly
//! as what is; and a document from a rough or a changed state says so at its top.

use core::fmt::Write as _;

use crate::figure::{Range, Unit};
use crate::goals::Line;
use crate::results::{Curve, Results, Series, Setting};
use crate::series::SHARES;
use crate::svg::{Chart, count, draw};

/// A series as it is shown: its name, its chart, and what to say above it.
struct Shown {
    name: &'static str,
    chart: Chart<'static>,
    text: &'static str,
    /// Whether the smaller figure is the better one.
    is_less_better: bool,
}

const RECORDS: &str = "records";
const SAMPLES: &str = "share of all reads that took no longer";

const SHOWN: &[Shown] = &[
    Shown {
        name: "reads",
        chart: Chart { title: "One read, one thread", across: RECORDS, up: Unit::Nanos, places: &[] },
        text: "Mean time of a question whether a peer is trusted, half of which hit.",
        is_less_better: true,
    },
    Shown {
        name: "reads_two_threads",
        chart: Chart { title: "One read, two threads at once", across: RECORDS, up: Unit::Nanos, places: &[] },
        text: "The same on two threads: the mean time of each thread's questions.",
        is_less_better: true,
    },
    Shown {
        name: "latency_writer",
        chart: Chart {
            title: "Reads while another thread writes without a pause",
            across: SAMPLES,
            up: Unit::Nanos,
            places: SHARES,
        },
        text: "Every read is timed by itself, while one thread changes one record after the other, each published at once. \
               `max` is the slowest read of a round, and mostly the system giving the processor to somebody else.",
        is_less_better: true,
    },
    Shown {
        name: "latency_ours",
        chart: Chart {
            title: "Our reads, by what else the store does",
            across: SAMPLES,
            up: Unit::Nanos,
            places: SHARES,
        },
        text: "The same for our handle alone, with a store on a disk.",
        is_less_better: true,
    },
    Shown {
        name: "durable_change",
        chart: Chart { title: "One change, until it is durable", across: RECORDS, up: Unit::Nanos, places: &[] },
        text: "Models A and B are the designs that this project replaces: A writes the whole file as JSON within its mutex, B \
               in the background, under its lock for reading.",
        is_less_better: true,
    },
    Shown {
        name: "grants",
        chart: Chart {
            title: "Grants a second, with a reader beside",
            across: RECORDS,
            up: Unit::PerSecond,
            places: &[],
        },
        text: "One thread grants, one reads; the clock stops when the last grant is durable.",
        is_less_better: false,
    },
    Shown {
        name: "publish_threads",
        chart: Chart {
            title: "One grant among 10 k records, by threads that have asked once and live",
            across: "threads",
            up: Unit::Nanos,
            places: &[],
        },
        text: "Whoever publishes looks through the list of threads that ever loaded a version (with a snapshot, a handle, or \
               `get`); those that only ask `is_trusted` of the store are not in it.",
        is_less_better: true,
    },
];

/// A document and the files that belong to it, by name.
#[derive(Clone, Debug)]
pub struct Report {
    /// The text of `benchmarks.md`.
    pub text: String,
    /// Names and texts of plots, beside it in `plots`.
    pub plots: Vec<(String, String)>,
}

/// From the results of several runs. A goal that several of them measured is told by the rounds of all of them together;
/// of a series the last one counts.
///
/// # Errors
/// If there are none, or if they measured different commits: one document is about one state.
pub fn report(runs: &[Results]) -> Result<Report, String> {
    let setting = &runs.first().ok_or("no results were given")?.setting;
    let state = |setting: &Setting| (setting.commit.clone(), setting.changed);
    if let Some(other) = runs.iter().find(|run| state(&run.setting) != state(setting)) {
        return Err(format!("results of different states: {:?} and {:?}", state(setting), state(&other.setting)));
    }
    let mut text = heading(setting, runs);
    let (goals, series) = (measured(runs), newest(runs));
    text.push_str(&table(&goals));
    text.push_str(&not_won(&goals, &series));
    let mut plots = Vec::new();
    for shown in SHOWN {
        if let Some(series) = series.iter().find(|series| series.name == shown.name) {
            text.push_str(&section(shown, series));
            plots.push((format!("{}.svg", shown.name), draw(series, &shown.chart)));
        }
    }
    text.push_str(&method(setting));
    Ok(Report { text, plots })
}

/// A goal as several runs measured it.
struct Measured {
    /// By the rounds of all runs.
    line: Line,
    /// By those of each.
    runs: Vec<Line>,
}

fn measured(runs: &[Results]) -> Vec<Measured> {
    let mut found: Vec<Measured> = Vec::new();
    for line in runs.iter().flat_map(|run| &run.lines) {
        match found.iter_mut().find(|there| there.line.name == line.name) {
            Some(there) => {
                there.line.join(line);
                there.runs.push(line.clone());
            }
            None => found.push(Measured { line: line.clone(), runs: vec![line.clone()] }),
        }
    }
    found
}

fn newest(runs: &[Results]) -> Vec<&Series> {
    let mut found: Vec<&Series> = Vec::new();
    for series in runs.iter().flat_map(|run| &run.series) {
        match found.iter_mut().find(|there| there.name == series.name) {
            Some(there) => *there = series,
            None => found.push(series),
        }
    }
    found
}

fn heading(setting: &Setting, runs: &[Results]) -> String {
    let mut text = String::from("# Benchmarks\n\n");
    let commit = setting.commit.get(..12).unwrap_or(&setting.commit);
    let _ = write!(
        text,
        "Measured at commit `{commit}`{}",
        if setting.changed { " (with changes that were not committed)" } else { "" }
    );
    let loads: Vec<f64> = runs.iter().map(|run| run.setting.load_before).collect();
    let load = Range::of(&loads).map_or(f64::NAN, |range| range.max);
    let _ = writeln!(
        text,
        ", on {} x {}, {} of memory, Linux {}, {}, files on {}; {load:.1} other programs wanted to run when it began.",
        setting.processors,
        setting.processor,
        Unit::Bytes.show(setting.memory_bytes as f64),
        setting.kernel,
        setting.compiler,
        setting.file_system,
    );
    let rough = |run: &&Results| run.setting.quick;
    let mut parts: Vec<String> = Vec::new();
    if runs.iter().filter(rough).any(|run| !run.lines.is_empty()) {
        parts.push("the goals".to_owned());
    }
    let is_of = |run: &Results, shown: &Shown| run.series.iter().any(|series| series.name == shown.name);
    // Of a series the last result counts.
    let is_rough = |shown: &&Shown| runs.iter().rfind(|run| is_of(run, shown)).filter(rough).is_some();
    parts.extend(SHOWN.iter().filter(is_rough).map(|shown| format!("\"{}\"", shown.chart.title)));
    if !parts.is_empty() {
        text.push_str(&format!(
            "\n**Of a rough run (`--quick`), with fewer, shorter rounds and smaller sizes: {}. They show that the measurements \
             work, and no more.**\n",
            parts.join(", ")
        ));
    }
    text.push_str(
        "\nThis file is written by `cargo run --release -p trustkeep-benches --bin report`, from what the bins `ratios` and \
         `series` measured; the last section tells how. Every figure is `median [smallest, largest]` of its rounds. What a \
         read consists of, instruction by instruction, is in [hot_read.md](hot_read.md).\n",
    );
    text
}

fn table(goals: &[Measured]) -> String {
    let lines = || goals.iter().map(|goal| &goal.line);
    if goals.is_empty() {
        return String::new();
    }
    let met = lines().filter(|line| line.is_met()).count();
    let mut text = format!(
        "\n## Goals\n\n{met} of {} are met. A ratio is ours over the peer's in the same round, and its median decides.",
        goals.len()
    );
    let runs = goals.iter().map(|goal| goal.runs.len()).max().unwrap_or(0);
    if runs > 1 {
        let met_in = |run: usize| goals.iter().filter(|goal| goal.runs.get(run).is_some_and(Line::is_met)).count();
        let met: Vec<_> = (0..runs).map(|run| met_in(run).to_string()).collect();
        let _ = write!(
            text,
            " The rounds of {runs} runs are taken together; the last column has the median of each run by itself, of which {} \
             were met.",
            met.join(", ")
        );
    }
    let (head, rule) = if runs > 1 { (" run by run |", "---|") } else { ("", "") };
    let _ = write!(text, "\n\n| goal | ours | peer | ratio | target | |{head}\n|---|---|---|---|---|---|{rule}\n");
    for goal in goals {
        let line = &goal.line;
        let side = |side: &Option<crate::figure::Side>| {
            side.as_ref().map_or_else(|| "-".to_owned(), |side| format!("{}: {}", side.label, side.show()))
        };
        let note = if line.note.is_empty() { String::new() } else { format!(" ({})", line.note) };
        let mut cells = vec![
            format!("`{}`: {}{note}", line.name, line.what),
            side(&line.ours),
            side(&line.peer),
            line.show_ratio(),
            line.target.show(),
            if line.is_met() { "ok" } else { "**short**" }.to_owned(),
        ];
        if runs > 1 {
            cells.push(goal.runs.iter().map(Line::show_median).collect::<Vec<_>>().join(", "));
        }
        let cells: Vec<_> = cells.iter().map(|cell| cell_text(cell)).collect();
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    }
    let mut beside = lines().filter(|line| !line.others.is_empty()).peekable();
    if beside.peek().is_some() {
        text.push_str("\nMeasured in the same rounds:\n\n");
        for line in beside {
            let others: Vec<_> = line.others.iter().map(|side| format!("{} {}", side.label, side.show())).collect();
            let _ = writeln!(text, "- `{}`: {}", line.name, others.join("; "));
        }
    }
    text
}

/// Every goal that is short, and every place of a series where somebody else is better.
fn not_won(goals: &[Measured], series: &[&Series]) -> String {
    let mut items = Vec::new();
    for line in goals.iter().map(|goal| &goal.line).filter(|line| !line.is_met()) {
        let found = if line.failed || line.ours.is_none() {
            format!("does not count: {}", line.note)
        } else {
            format!("{} where {} was wanted", line.show_median(), line.target.show())
        };
        items.push(format!("`{}`: {found}", line.name));
    }
    for shown in SHOWN {
        let Some(series) = series.iter().find(|series| series.name == shown.name) else { continue };
        let Some((ours, peers)) = series.curves.split_first() else { continue };
        if shown.name == "latency_ours" {
            continue;
        }
        for point in &ours.points {
            let is_better = |peer: &&Curve| {
                !peer.label.starts_with("trustkeep") && is_better_at(point.at, peer, ours, shown.is_less_better)
            };
            let better: Vec<_> = peers.iter().filter(is_better).map(|peer| peer.label.as_str()).collect();
            if !better.is_empty() {
                let (title, at) = (shown.chart.title, place(&shown.chart, point.at));
                items.push(format!("{title}, {at}: {} did better than {}", better.join(", "), ours.label));
            }
        }
    }
    let mut text = String::from("\n## What we do not win\n\n");
    if items.is_empty() {
        text.push_str("Nothing that was measured.\n");
    }
    for item in items {
        let _ = writeln!(text, "- {item}");
    }
    text
}

/// Whether `one`'s median is better than the `other`'s at this place.
fn is_better_at(at: f64, one: &Curve, other: &Curve, is_less_better: bool) -> bool {
    let median = |curve: &Curve| {
        let point = curve.points.iter().find(|point| (point.at - at).abs() < 1e-12)?;
        Range::of(&point.rounds).map(|range| range.median)
    };
    let (Some(one), Some(other)) = (median(one), median(other)) else { return false };
    if is_less_better { one < other } else { one > other }
}

fn place(chart: &Chart<'_>, at: f64) -> String {
    let named = chart.places.iter().find(|(place, _)| (place - at).abs() < 1e-12);
    named.map_or_else(|| format!("{} {}", count(at), chart.across), |(_, name)| (*name).to_owned())
}

fn section(shown: &Shown, series: &Series) -> String {
    let mut places: Vec<f64> = series.curves.iter().flat_map(|curve| &curve.points).map(|point| point.at).collect();
    places.sort_by(f64::total_cmp);
    places.dedup();
    let chart = &shown.chart;
    let mut text =
        format!("\n## {}\n\n{}\n\n![{}](plots/{}.svg)\n\n|", chart.title, shown.text, chart.title, shown.name);
    for at in &places {
        let _ = write!(text, " | {}", place(chart, *at));
    }
    let _ = writeln!(text, " |\n|---{}|", "|---".repeat(places.len()));
    for curve in &series.curves {
        let _ = write!(text, "| {}", cell_text(&curve.label));
        for at in &places {
            let point = curve.points.iter().find(|point| (point.at - at).abs() < 1e-12);
            let range = point.and_then(|point| Range::of(&point.rounds));
            let shown = range.map_or_else(|| "-".to_owned(), |range| range.show(|figure| chart.up.show(figure)));
            let _ = write!(text, " | {shown}");
        }
        text.push_str(" |\n");
    }
    text
}

fn method(setting: &Setting) -> String {
    let versions: Vec<_> = setting.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
    format!(
        "\n## How\n\n\
         ```text\n\
         for run in 1 2 3; do\n\
         \x20 cargo run --release -p trustkeep-benches --bin ratios -- --out benches/results/ratios$run.json\n\
         done\n\
         cargo run --release -p trustkeep-benches --bin series -- --out benches/results/series.json\n\
         cargo run --release -p trustkeep-benches --bin report -- benches/results/*.json\n\
         ```\n\n\
         Both sides of a ratio run in one process, on the same data, with as many threads, in alternating rounds of which the \
         first does not count; every other round goes backwards. Ids are random, and questions come in random order from one \
         array for both. Every map that hashes uses foldhash's fast hasher. Memory is what the system counts as anonymous \
         and resident, in processes of their own. A sample of a latency holds the cost of the clock: {:.0} ns, and {:.0} ns \
         at p99.9. A maximum is called `max`; it is mostly the system's doing, and no goal looks at one. On a machine with \
         few processors the reader, the writer and the keeper share them, and so do other programs.\n\n\
         Peers: {}.\n",
        setting.clock_ns[0],
        setting.clock_ns[1],
        versions.join(", "),
    )
}

/// A text within a cell of a table.
fn cell_text(text: &str) -> String {
    // Within a table, a bar ends the cell; what looks like a tag would be taken for one.
    let mut plain = true;
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '`' => {
                plain = !plain;
                out.push(c);
            }
            '|' => out.push_str("\\|"),
            '<' if plain => out.push_str("&lt;"),
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests;
