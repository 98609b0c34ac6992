//! Each goal of the project, measured: ours, the peer, their ratio in the same rounds, the target, and whether it is met.
//!
//! `ratios [--only NAME] [--list] [--quick] [--json] [--out FILE] [--dir D]`
//!
//! One line a goal, with tabs in between: `name ours peer ratio target ok|short`, and a note behind where there is one.
//! Figures are `median [min, max]` of the rounds. `--only` takes a name or the beginning of one. `--quick` is a rough
//! check: fewer and shorter rounds, and without `--only` not the largest size. `--out` writes every round of every line. Without `--dir` files lie beside this
//! program. Exits with 1 if a line is short.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a measurement: it prints, writes its results, and stops when something does not hold"
)]

use std::process::ExitCode;
use std::time::Instant;

use trustkeep_benches::arguments::{Arguments, usage_error};
use trustkeep_benches::directory::temporary;
use trustkeep_benches::goals::GOALS;
use trustkeep_benches::results::{Results, Setting};
use trustkeep_benches::rows::{KINDS, Plan, Wanted, measure, memory_child};

const USAGE: &str = "ratios [--only NAME] [--list] [--quick] [--json] [--out FILE] [--dir D]";

fn main() -> ExitCode {
    // For the processes that this one starts.
    if memory_child() {
        return ExitCode::SUCCESS;
    }
    let arguments = Arguments::of_process(USAGE, &["--only", "--out", "--dir"], &["--list", "--quick", "--json"]);
    let only = arguments.path("--only").map(|name| name.to_string_lossy().into_owned());
    let is_wanted = |name: &str| only.as_ref().is_none_or(|only| name.starts_with(only.as_str()));
    if !GOALS.iter().any(|goal| is_wanted(goal.name)) {
        usage_error(USAGE, "--only: no goal is called that; --list tells all");
    }
    if arguments.has("--list") {
        for goal in GOALS.iter().filter(|goal| is_wanted(goal.name)) {
            println!("{}\t{}\t{}", goal.name, goal.target.show(), goal.what);
        }
        return ExitCode::SUCCESS;
    }
    let home = temporary(arguments.path("--dir")).unwrap();
    let plan = Plan::new(arguments.has("--quick"), only.is_none(), home.path().to_owned());
    let setting = Setting::now(plan.quick, home.path());
    let (start, json) = (Instant::now(), arguments.has("--json"));
    let mut lines = Vec::new();
    measure(&plan, &Wanted::new(&is_wanted), KINDS, |line, taken| {
        if !json {
            println!("{}", line.show());
        }
        if taken.as_secs() > 0 {
            eprintln!("{}: {:.1} s with those of its kind", line.name, taken.as_secs_f64());
        }
        lines.push(line);
    });
    let short = lines.iter().filter(|line| !line.is_met()).count();
    eprintln!("{} lines, {short} short, in {} s", lines.len(), start.elapsed().as_secs());
    let results = Results { setting, lines, series: Vec::new() };
    if json {
        println!("{}", serde_json::to_string(&results).unwrap());
    }
    if let Some(out) = arguments.path("--out") {
        std::fs::write(out, serde_json::to_string_pretty(&results).unwrap()).unwrap();
    }
    if short == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
