//! The raw results of a run: every round of every line, and what they were measured on.
//!
//! What must hold: a file of results says which commit it measured, whether that commit was changed, and whether the run was
//! a rough one; nothing is rounded in it.

use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::directory::file_system;
use crate::goals::Line;
use crate::rounds::clock_cost;

/// One run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Results {
    /// What was measured, and on what.
    pub setting: Setting,
    /// What became of the goals.
    #[serde(default)]
    pub lines: Vec<Line>,
    /// What the plots show.
    #[serde(default)]
    pub series: Vec<Series>,
}

/// Points of several contestants over one axis.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// What it is called, also in file names.
    pub name: String,
    /// One for each contestant.
    pub curves: Vec<Curve>,
}

/// One contestant's points.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// Who.
    pub label: String,
    /// The points, in the order of the axis.
    pub points: Vec<Point>,
}

/// One point.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Where on the axis: records, or a share of all samples.
    pub at: f64,
    /// The figures of all rounds.
    pub rounds: Vec<f64>,
}

/// What was measured, and on what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Setting {
    /// The commit, as far as there was one to be told.
    pub commit: String,
    /// Whether files differed from that commit.
    pub changed: bool,
    /// Whether it was a rough run.
    pub quick: bool,
    /// The processor's name.
    pub processor: String,
    /// How many of it this program may use.
    pub processors: usize,
    /// How many programs wanted to run, on average over the minute before: more than none is noise.
    pub load_before: f64,
    /// Memory of the machine, in bytes.
    pub memory_bytes: u64,
    /// The system.
    pub kernel: String,
    /// The compiler.
    pub compiler: String,
    /// The kind of file system that stores lay on.
    pub file_system: String,
    /// What the clock adds to a sample: median and 99.9 %, in nanoseconds.
    pub clock_ns: [f64; 2],
    /// Versions of the peers.
    pub versions: Vec<(String, String)>,
}

impl Setting {
    /// Of this process, now.
    #[must_use]
    pub fn now(quick: bool, home: &Path) -> Self {
        let file = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let status = run("git", &["status", "--porcelain"]);
        Self {
            commit: run("git", &["rev-parse", "HEAD"]).unwrap_or_else(|| UNKNOWN.to_owned()),
            changed: status.is_none_or(|status| !status.is_empty()),
            quick,
            processor: value_of(&file("/proc/cpuinfo"), "model name").unwrap_or(UNKNOWN).to_owned(),
            processors: std::thread::available_parallelism().map_or(0, usize::from),
            load_before: file("/proc/loadavg").split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(f64::NAN),
            memory_bytes: value_of(&file("/proc/meminfo"), "MemTotal").and_then(kibibytes).unwrap_or(0),
            kernel: file("/proc/sys/kernel/osrelease").trim().to_owned(),
            compiler: run("rustc", &["--version"]).unwrap_or_else(|| UNKNOWN.to_owned()),
            file_system: file_system(home),
            clock_ns: clock_cost(),
            versions: versions(LOCK, PEERS),
        }
    }
}

/// The value behind `key:` at the start of a line.
fn value_of<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| Some(line.strip_prefix(key)?.trim_start().strip_prefix(':')?.trim()))
}

fn kibibytes(text: &str) -> Option<u64> {
    text.strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

fn run(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).arguments_in_package(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

trait InPackage {
    fn arguments_in_package(&mut self, arguments: &[&str]) -> &mut Self;
}

impl InPackage for Command {
    /// From the directory of the sources, wherever the program is run from.
    fn arguments_in_package(&mut self, arguments: &[&str]) -> &mut Self {
        self.args(arguments).current_dir(env!("CARGO_MANIFEST_DIR"))
    }
}

/// The versions of these packages in a lock file; the newest where there are several.
fn versions(lock: &str, names: &[&str]) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = lock
        .split("[[package]]")
        .filter_map(|package| {
            let text = |key| value_after(package, key);
            let name = text("name = ")?;
            names.contains(&name).then(|| text("version = ").map(|version| (name.to_owned(), version.to_owned())))?
        })
        .collect();
    found.sort();
    // hashbrown is there several times; what is measured is 0.16.
    found.retain(|(name, version)| name != "hashbrown" || version.starts_with("0.16."));
    found
}

fn value_after<'a>(package: &'a str, key: &str) -> Option<&'a str> {
    package.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('"')?.strip_suffix('"'))
}

const LOCK: &str = include_str!("../../Cargo.lock");
const UNKNOWN: &str = "unknown";
const PEERS: &[&str] = &[
    "arc-swap",
    "dashmap",
    "ed25519-dalek",
    "fjall",
    "foldhash",
    "hashbrown",
    "heed",
    "imbl",
    "left-right",
    "libsqlite3-sys",
    "papaya",
    "parking_lot",
    "redb",
    "rpds",
    "rusqlite",
    "scc",
    "serde_json",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figure::{Side, Unit};
    use crate::goals::Goal;

    #[test]
    fn results_are_read_as_they_were_written() {
        let setting = Setting::now(true, Path::new("/"));
        let side = |rounds: &[f64]| Side::new("x", Unit::Nanos, rounds.to_vec());
        let line = Goal::named("get_1m").unwrap().measured(side(&[1.0, 0.123_456_789]), Some(side(&[3.0, 7.0])));
        let point = Point { at: 100.0, rounds: vec![1.5, 2.5] };
        let series = Series { name: "s".into(), curves: vec![Curve { label: "c".into(), points: vec![point] }] };
        let results = Results { setting: setting.clone(), lines: vec![line.clone()], series: vec![series.clone()] };
        let read: Results = serde_json::from_str(&serde_json::to_string(&results).unwrap()).unwrap();
        assert_eq!((read.lines, read.series), (vec![line], vec![series]));
        assert_eq!(read.setting.commit, setting.commit);
    }

    #[test]
    fn a_setting_says_what_was_measured_and_on_what() {
        let setting = Setting::now(false, Path::new("/"));
        assert!(setting.processors > 0 && setting.memory_bytes > 1 << 28, "{setting:?}");
        assert!(setting.clock_ns[0] > 0.0 && setting.clock_ns[1] >= setting.clock_ns[0]);
        assert!(setting.compiler.starts_with("rustc 1."));
        assert_eq!(setting.versions.len(), PEERS.len(), "{:?}", setting.versions);
    }

    #[test]
    fn system_files_and_lock_files_are_read_by_name() {
        let memory = "MemTotal:       24000000 kB\nMemFree: 1 kB\n";
        assert_eq!(value_of(memory, "MemTotal").and_then(kibibytes), Some(24_000_000 * 1024));
        assert_eq!(value_of("model name\t: Fast 9000\n", "model name"), Some("Fast 9000"));
        assert_eq!(value_of(memory, "Mem"), None);
        let lock = "[[package]]\nname = \"a\"\nversion = \"1.2.3\"\n\n[[package]]\nname = \"b\"\nversion = \"4.5.6\"\n\
                    [[package]]\nname = \"hashbrown\"\nversion = \"0.15.1\"\n[[package]]\nname = \"hashbrown\"\nversion = \"0.16.1\"\n";
        let pair = |name: &str, version: &str| (name.to_owned(), version.to_owned());
        assert_eq!(versions(lock, &["b", "c", "hashbrown"]), [pair("b", "4.5.6"), pair("hashbrown", "0.16.1")]);
    }
}
