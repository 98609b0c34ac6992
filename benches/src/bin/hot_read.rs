//! How many instructions a read takes, as counted by `callgrind`: unlike a time, the same on a busy machine.
//!
//! `hot_read [--records N] [--questions 100000]`; without `--records` for 100, 10 k and 1 M. Prints one line for each read:
//! its name, the records, and instructions a question, where half of the questions hit and where all do. What the loop
//! around the question takes, some seven instructions, is in the figure. Needs `valgrind`.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a measurement: it prints, and stops when something does not hold"
)]

use core::hint::black_box;
use std::collections::HashMap;
use std::process::{Command, ExitCode};

use trustkeep::{NodeId, TrustReader, TrustStore};
use trustkeep_benches::arguments::Arguments;
use trustkeep_benches::peers::maps::{Bare, Handle, Map as _};
use trustkeep_benches::workload::{Mix, questions};

const USAGE: &str = "hot_read [--records N] [--questions 100000]";
/// With these, the program is what is counted.
const CHILD: &str = "--counted";
const HALF: &str = "half";
const HITS: &str = "hits";
const MANY: usize = 1000;
/// What is asked, and by which function.
const READS: [(&str, &str); 6] = [
    ("handle is_trusted", "asked_of_handle"),
    ("handle are_trusted, 1000 at once", "asked_of_handle_many"),
    ("handle get", "asked_of_handle_get"),
    ("store is_trusted", "asked_of_store"),
    ("hashbrown contains_key, no lock", "asked_of_bare"),
    ("hashbrown get, no lock", "asked_of_bare_get"),
];

fn main() -> ExitCode {
    if let [_, flag, records, count, mix] = std::env::args().collect::<Vec<_>>().as_slice()
        && flag == CHILD
    {
        child(records.parse().unwrap(), count.parse().unwrap(), if mix == HALF { Mix::Half } else { Mix::Hits });
        return ExitCode::SUCCESS;
    }
    let arguments = Arguments::of_process(USAGE, &["--records", "--questions"], &[]);
    let count = arguments.number("--questions", 100_000, 1);
    let sizes = match arguments.number("--records", 0, 0) {
        0 => vec![100, 10_000, 1_000_000],
        records => vec![records],
    };
    println!("read\trecords\thalf hit\tall hit");
    for records in sizes {
        let counts = [HALF, HITS].map(|mix| counted(records, count, mix));
        let [Ok(half), Ok(hits)] = counts else {
            counts.iter().filter_map(|counts| counts.as_ref().err()).for_each(|error| eprintln!("{error}"));
            return ExitCode::FAILURE;
        };
        for ((read, _), (half, hits)) in READS.iter().zip(half.iter().zip(hits)) {
            println!("{read}\t{records}\t{half:.1}\t{hits:.1}");
        }
    }
    ExitCode::SUCCESS
}

/// Instructions a question of every read.
fn counted(records: u32, count: u32, mix: &str) -> Result<Vec<f64>, String> {
    let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
    let file = dir.path().join("counts");
    // The count goes on only within the functions that ask, and in what they call.
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--toggle-collect=*asked_of*"])
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(std::env::current_exe().map_err(|error| error.to_string())?)
        .args([CHILD, &records.to_string(), &count.to_string(), mix])
        .output()
        .map_err(|error| format!("valgrind cannot be run: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let counts = std::fs::read_to_string(file).map_err(|error| error.to_string())?;
    let each = |(_, function): &(&str, &str)| {
        let instructions = within(&counts, function);
        if instructions == 0 {
            return Err(format!("nothing was counted in {function}"));
        }
        Ok(instructions as f64 / f64::from(count))
    };
    READS.iter().map(each).collect()
}

/// The instructions of a function of this program and of what it calls, from callgrind's file: `fn=(id) name` once and
/// `fn=(id)` from then on, with lines of place and cost behind; the line behind `calls=` is the cost of a call.
fn within(counts: &str, function: &str) -> u64 {
    let (mut names, mut is_within, mut instructions) = (HashMap::new(), false, 0);
    for line in counts.lines() {
        if let Some((kind, function_named)) = line.split_once("fn=") {
            let (id, name) = function_named.split_once(' ').unwrap_or((function_named, ""));
            if !name.is_empty() {
                names.insert(id, name);
            }
            if kind.is_empty() {
                is_within = names.get(id).is_some_and(|name| name.rsplit("::").next() == Some(function));
            }
        } else if is_within && line.starts_with(|c: char| c.is_ascii_digit() || "+-*".contains(c)) {
            let cost = line.split(' ').nth(1).and_then(|cost| cost.parse::<u64>().ok());
            instructions += cost.unwrap_or_default();
        }
    }
    instructions
}

fn child(records: u32, count: usize, mix: Mix) {
    let (Handle(store), bare) = (Handle::filled(records), Bare::filled(records));
    let mut reader = store.reader();
    let peers = questions(records, mix, count, 1);
    let found = peers.iter().filter(|peer| bare.contains_key(*peer)).count();
    let mut answers = vec![false; MANY];
    assert_eq!(asked_of_handle(&mut reader, &peers), found);
    assert_eq!(asked_of_handle_many(&mut reader, &peers, &mut answers), found);
    assert_eq!(asked_of_handle_get(&mut reader, &peers), found);
    assert_eq!(asked_of_store(&store, &peers), found);
    assert_eq!(asked_of_bare(&bare, &peers), found);
    assert_eq!(asked_of_bare_get(&bare, &peers), found);
}

#[inline(never)]
fn asked_of_handle(reader: &mut TrustReader, peers: &[NodeId]) -> usize {
    let mut found = 0;
    for peer in peers {
        found += usize::from(reader.is_trusted(black_box(*peer)));
    }
    found
}

#[inline(never)]
fn asked_of_handle_many(reader: &mut TrustReader, peers: &[NodeId], answers: &mut [bool]) -> usize {
    let mut found = 0;
    for peers in peers.chunks(MANY) {
        reader.are_trusted(black_box(peers), answers);
        for answer in answers.iter().take(peers.len()) {
            found += usize::from(*answer);
        }
    }
    found
}

#[inline(never)]
fn asked_of_handle_get(reader: &mut TrustReader, peers: &[NodeId]) -> usize {
    let mut found = 0;
    for peer in peers {
        let record = reader.get(black_box(*peer));
        found += usize::from(black_box(&record).is_some());
    }
    found
}

#[inline(never)]
fn asked_of_store(store: &TrustStore, peers: &[NodeId]) -> usize {
    let mut found = 0;
    for peer in peers {
        found += usize::from(store.is_trusted(black_box(*peer)));
    }
    found
}

#[inline(never)]
fn asked_of_bare(map: &Bare, peers: &[NodeId]) -> usize {
    let mut found = 0;
    for peer in peers {
        found += usize::from(map.contains_key(black_box(peer)));
    }
    found
}

#[inline(never)]
fn asked_of_bare_get(map: &Bare, peers: &[NodeId]) -> usize {
    let mut found = 0;
    for peer in peers {
        let terms = map.get(black_box(peer)).copied();
        found += usize::from(black_box(&terms).is_some());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cost_of_a_function_holds_that_of_its_calls_and_no_other() {
        let counts = "fn=(1) hot_read::asked_of_bare\n12 5\n+1 7\ncfn=(2) other\ncalls=3 40\n* 100\n-1 1\n\nfn=(2)\n40 100\n\n\
                      fn=(3) hot_read::asked_of_bare_get\n20 1000\n\nfn=(1)\nfi=(9)\n3 2\n\ntotals: 1215\n";
        assert_eq!(within(counts, "asked_of_bare"), 115);
        assert_eq!(within(counts, "asked_of_bare_get"), 1000);
        assert_eq!(within(counts, "asked_of_store"), 0);
    }
}
