//! The figures behind the plots of `docs/benchmarks.md`: reads over sizes and contestants, latencies, durable changes and
//! grants over sizes.
//!
//! `series [--only NAME] [--list] [--quick] --out FILE [--dir D]`
//!
//! `--quick` is a rough check on smaller sizes. Without `--dir` files lie beside this program.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a measurement: it prints, writes its results, and stops when something does not hold"
)]

use std::time::Instant;

use trustkeep_benches::arguments::{Arguments, usage_error};
use trustkeep_benches::directory::temporary;
use trustkeep_benches::results::{Results, Setting};
use trustkeep_benches::rows::Plan;
use trustkeep_benches::series::SERIES;

const USAGE: &str = "series [--only NAME] [--list] [--quick] --out FILE [--dir D]";

fn main() {
    let arguments = Arguments::of_process(USAGE, &["--only", "--out", "--dir"], &["--list", "--quick"]);
    let only = arguments.path("--only").map(|name| name.to_string_lossy().into_owned());
    let wanted: Vec<_> =
        SERIES.iter().filter(|(name, _)| only.as_ref().is_none_or(|only| name.starts_with(only.as_str()))).collect();
    if wanted.is_empty() {
        usage_error(USAGE, "--only: no series is called that; --list tells all");
    }
    if arguments.has("--list") {
        wanted.iter().for_each(|(name, _)| println!("{name}"));
        return;
    }
    let Some(out) = arguments.path("--out") else { usage_error(USAGE, "--out is missing") };
    let home = temporary(arguments.path("--dir")).unwrap();
    let plan = Plan::new(arguments.has("--quick"), only.is_none(), home.path().to_owned());
    let setting = Setting::now(plan.quick, home.path());
    let series = wanted
        .into_iter()
        .map(|(name, measure)| {
            let start = Instant::now();
            let series = measure(&plan);
            eprintln!("{name}: {} s", start.elapsed().as_secs());
            series
        })
        .collect();
    let results = Results { setting, lines: Vec::new(), series };
    std::fs::write(out, serde_json::to_string_pretty(&results).unwrap()).unwrap();
}
