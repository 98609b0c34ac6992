//! Writes `docs/benchmarks.md` and the plots beside it from raw results.
//!
//! `report FILE... [--docs D]`; without `--docs`, into the `docs` of this repository.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a program for those who work on this repository: it reads and writes files, and stops when it cannot"
)]

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use trustkeep_benches::arguments::{Arguments, usage_error};
use trustkeep_benches::report::report;
use trustkeep_benches::results::Results;

const USAGE: &str = "report FILE... [--docs D]";

fn main() {
    let (files, flags): (Vec<OsString>, Vec<OsString>) = {
        let all: Vec<OsString> = std::env::args_os().skip(1).collect();
        let first_flag =
            all.iter().position(|argument| argument.to_string_lossy().starts_with("--")).unwrap_or(all.len());
        (all.iter().take(first_flag).cloned().collect(), all.into_iter().skip(first_flag).collect())
    };
    let arguments = Arguments::parse(flags, &["--docs"], &[]).unwrap_or_else(|error| usage_error(USAGE, &error));
    let docs = arguments.path("--docs").unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs"));
    let runs: Vec<Results> = files.iter().map(|file| read(Path::new(file))).collect();
    let report = report(&runs).unwrap_or_else(|error| usage_error(USAGE, &error));
    let plots: PathBuf = docs.join("plots");
    std::fs::create_dir_all(&plots).unwrap();
    std::fs::write(docs.join("benchmarks.md"), report.text).unwrap();
    for (name, svg) in &report.plots {
        std::fs::write(plots.join(name), svg).unwrap();
    }
    eprintln!("{} and {} plots", docs.join("benchmarks.md").display(), report.plots.len());
}

fn read(file: &Path) -> Results {
    let text = std::fs::read_to_string(file)
        .unwrap_or_else(|error| usage_error(USAGE, &format!("{}: {error}", file.display())));
    serde_json::from_str(&text).unwrap_or_else(|error| usage_error(USAGE, &format!("{}: {error}", file.display())))
}
