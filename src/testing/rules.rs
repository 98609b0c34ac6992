//! `docs/protocol.md` and the code speak of the same rules and the same tests.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::path::Path;

/// All source text below `src/` and `tests/`.
fn sources() -> String {
    fn read(directory: &Path, all: &mut String) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                read(&path, all);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                all.push_str(&std::fs::read_to_string(&path).unwrap());
            }
        }
    }
    let mut all = String::new();
    for place in ["src", "tests"] {
        read(&Path::new(env!("CARGO_MANIFEST_DIR")).join(place), &mut all);
    }
    all
}

/// Every `R-n` in a text.
fn rules(text: &str) -> BTreeSet<u32> {
    let numbers = text.split("R-").skip(1);
    numbers.filter_map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()).collect()
}

#[test]
fn every_rule_names_tests_that_exist_and_every_rule_cited_is_one() {
    let (protocol, sources) = (include_str!("../../docs/protocol.md"), sources());
    let mut stated = BTreeSet::new();
    for row in protocol.lines().filter(|line| line.starts_with("| R-")) {
        let number = row.trim_start_matches("| R-").split(' ').next().unwrap().parse::<u32>().unwrap();
        assert!(stated.insert(number), "R-{number} is stated twice");
        let tests = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        let names: Vec<_> = tests.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "R-{number} has no test");
        for name in names {
            assert!(sources.contains(&format!("fn {name}(")), "R-{number} names {name}, which is no test");
        }
    }
    assert!(stated.len() > 40, "the tables were not found");
    for (place, text) in [("the code", sources.as_str()), ("docs/protocol.md", protocol)] {
        let unknown: Vec<_> = rules(text).difference(&stated).copied().filter(|rule| *rule != 0).collect();
        assert!(unknown.is_empty(), "{place} cites rules that are not stated: {unknown:?}");
    }
}
