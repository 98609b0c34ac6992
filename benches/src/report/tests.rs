use super::*;
use crate::figure::Side;
use crate::goals::Goal;
use crate::results::Point;
use std::path::Path;

fn run(lines: Vec<Line>, series: Vec<Series>) -> Results {
    let mut setting = Setting::now(false, Path::new("/"));
    (setting.commit, setting.changed) = ("0123456789abcdef".to_owned(), false);
    Results { setting, lines, series }
}

fn line(name: &str, ours: f64, peer: f64) -> Line {
    let side = |label: &str, figure| Side::new(label, Unit::Nanos, vec![figure]);
    Goal::named(name).unwrap().measured(side("ours", ours), Some(side("Peer<T>", peer)))
}

fn curve(label: &str, points: &[(f64, f64)]) -> Curve {
    let points = points.iter().map(|(at, figure)| Point { at: *at, rounds: vec![*figure, figure * 2.0, figure / 2.0] });
    Curve { label: label.to_owned(), points: points.collect() }
}

fn series(name: &str, curves: Vec<Curve>) -> Series {
    Series { name: name.to_owned(), curves }
}

#[test]
fn goals_are_told_with_their_verdicts_and_those_that_are_short_again() {
    let lines = vec![
        line("get_1m", 10.0, 10.0),
        line("save_1m", 10.0, 100.0),
        Goal::named("open_1m").unwrap().not_measured("no disk"),
    ];
    let text = report(&[run(lines, Vec::new())]).unwrap().text;
    for part in [
        "1 of 3 are met",
        "| ours: 10.0 ns [10.0 ns, 10.0 ns] | Peer&lt;T>: 10.0 ns [10.0 ns, 10.0 ns] | 1.00 [1.00, 1.00] | &lt;= 2 | ok |",
        "| 0.100 [0.100, 0.100] | &lt;= 0.06 | **short** |",
        "\n## What we do not win\n\n- `save_1m`: 0.100 where <= 0.06 was wanted\n- `open_1m`: does not count: no disk\n",
        "Measured at commit `0123456789ab`, on",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert!(!text.contains("rough run") && !text.contains("not committed"));
}

#[test]
fn whoever_is_better_is_named_with_the_places() {
    let reads = series(
        "reads",
        vec![
            curve("trustkeep, handle", &[(100.0, 10.0), (10_000.0, 10.0), (1e6, 10.0)]),
            curve("trustkeep, store", &[(100.0, 1.0)]),
            curve("fast", &[(100.0, 9.0), (10_000.0, 11.0), (1e6, 9.0)]),
            curve("slow", &[(100.0, 11.0)]),
            curve("faster", &[(1e6, 2.0)]),
        ],
    );
    let grants = series("grants", vec![curve("trustkeep", &[(100.0, 10.0)]), curve("B", &[(100.0, 11.0)])]);
    let made = report(&[run(Vec::new(), vec![reads, grants])]).unwrap();
    let won = made.text.split("## What we do not win").nth(1).unwrap().split("\n## ").next().unwrap();
    let expected = [
        "- One read, one thread, 100 records: fast did better than trustkeep, handle",
        "- One read, one thread, 1 M records: fast, faster did better than trustkeep, handle",
        "- Grants a second, with a reader beside, 100 records: B did better than trustkeep",
    ];
    assert_eq!(won.trim(), expected.join("\n"));
    assert!(made.text.contains("| fast | 9.00 ns [4.50 ns, 18.0 ns] | 11.0 ns [5.50 ns, 22.0 ns] |"));
    assert!(made.text.contains("| slow | 11.0 ns [5.50 ns, 22.0 ns] | - | - |"));
    assert_eq!(made.plots.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["reads.svg", "grants.svg"]);
    assert!(made.text.contains("(plots/reads.svg)") && made.plots[0].1.starts_with("<svg"));
}

#[test]
fn a_document_is_about_one_state_and_says_which() {
    let (one, mut other) = (run(Vec::new(), Vec::new()), run(Vec::new(), Vec::new()));
    assert!(report(&[one.clone(), other.clone()]).is_ok());
    other.setting.commit = "else".to_owned();
    assert!(report(&[one.clone(), other.clone()]).unwrap_err().contains("different states"));
    assert!(report(&[]).is_err());
    other.setting.changed = true;
    let text = report(&[other]).unwrap().text;
    assert!(text.contains(" (with changes that were not committed), on "));
    assert!(text.contains("Nothing that was measured."));
}

#[test]
fn a_document_says_which_part_of_it_is_rough() {
    let of = |quick: bool, lines, series| {
        let mut run = run(lines, series);
        run.setting.quick = quick;
        run
    };
    let goal = |quick| of(quick, vec![line("get_1m", 1.0, 1.0)], Vec::new());
    let curves = |quick, name: &str| of(quick, Vec::new(), vec![series(name, Vec::new())]);
    let text = |runs: &[Results]| report(runs).unwrap().text;
    let says = |text: &str| text.lines().find(|line| line.starts_with("**Of a rough run")).map(str::to_owned);
    assert_eq!(says(&text(&[goal(false), curves(false, "reads"), curves(false, "grants")])), None);
    let found = says(&text(&[goal(true), curves(false, "reads"), curves(true, "grants")])).unwrap();
    assert!(found.contains("sizes: the goals, \"Grants a second, with a reader beside\"."), "{found}");
    let found = says(&text(&[goal(false), curves(true, "reads")])).unwrap();
    assert!(found.contains("sizes: \"One read, one thread\"."), "{found}");
    // A later run, which is not, stands in for it.
    assert_eq!(says(&text(&[goal(false), curves(true, "reads"), curves(false, "reads")])), None);
}

#[test]
fn the_rounds_of_several_runs_count_together_and_each_run_is_told() {
    let run = |ours| run(vec![line("get_1m", ours, 10.0), line("save_1m", 1.0, 100.0)], Vec::new());
    let text = report(&[run(10.0), run(40.0), run(30.0)]).unwrap().text;
    for part in [
        "1 of 2 are met.",
        "The rounds of 3 runs are taken together; the last column has the median of each run by itself, of which 2, 1, 1 were \
         met.",
        "| target | | run by run |\n|---|---|---|---|---|---|---|\n",
        "| ours: 30.0 ns [10.0 ns, 40.0 ns] | Peer&lt;T>: 10.0 ns [10.0 ns, 10.0 ns] | 3.00 [1.00, 4.00] | &lt;= 2 | \
         **short** | 1.00, 4.00, 3.00 |",
        "`get_1m`: 3.00 where <= 2 was wanted",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    // Alone, none has that column.
    assert!(!report(&[run(10.0)]).unwrap().text.contains("run by run"));
}

#[test]
fn of_a_series_the_last_result_counts() {
    let run = |figure| run(Vec::new(), vec![series("reads", vec![curve("trustkeep, handle", &[(100.0, figure)])])]);
    let text = report(&[run(10.0), run(40.0)]).unwrap().text;
    assert!(text.contains("40.0 ns") && !text.contains("10.0 ns"));
}

#[test]
fn a_place_is_named_after_what_the_axis_counts() {
    let publish = series("publish_threads", vec![curve("they loaded", &[(1.0, 1.0), (64.0, 2.0)])]);
    let text = report(&[run(Vec::new(), vec![publish])]).unwrap().text;
    assert!(text.contains("| 1 threads | 64 threads |"));
}

#[test]
fn cells_keep_their_bars_and_tags() {
    assert_eq!(cell_text("a|b <T> `x<T>`"), "a\\|b &lt;T> `x<T>`");
}
