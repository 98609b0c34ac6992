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

/// Whether a test of this name is somewhere in the sources.
fn is_test(sources: &str, name: &str) -> bool {
    let function = format!("fn {name}(");
    sources.match_indices(&function).any(|(at, _)| {
        let above = sources.get(..at).unwrap_or_default().trim_end_matches(' ');
        let mut attributes = above.lines().rev().take_while(|line| line.trim_start().starts_with("#["));
        attributes.any(|line| line.trim() == "#[test]")
    })
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
            assert!(is_test(&sources, name), "R-{number} names {name}, which is no test");
        }
    }
    assert!(stated.len() > 60, "the tables were not found");
    let security = include_str!("../../docs/security.md");
    for (place, text) in
        [("the code", sources.as_str()), ("docs/protocol.md", protocol), ("docs/security.md", security)]
    {
        let unknown: Vec<_> = rules(text).difference(&stated).copied().filter(|rule| *rule != 0).collect();
        assert!(unknown.is_empty(), "{place} cites rules that are not stated: {unknown:?}");
    }
}

#[test]
fn every_attack_names_a_rule_or_a_promise_and_tests_that_exist() {
    let (security, sources) = (include_str!("../../docs/security.md"), sources());
    let section = security.split("\n## ").find(|section| section.starts_with("Attacks\n")).unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| attack"));
    let mut attacks = 0;
    for row in rows {
        let cells: Vec<_> = row.trim_matches('|').split(" | ").collect();
        let [attack, against, tests] = cells[..] else { panic!("not three cells: {row}") };
        let names_a_rule = ["R-", "Section", "all of them"].iter().any(|word| against.contains(word));
        assert!(names_a_rule, "nothing stands in the way of: {attack}");
        let names: Vec<_> = tests.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "no test of: {attack}");
        for name in names {
            assert!(is_test(&sources, name), "{attack}: {name} is no test");
        }
        attacks += 1;
    }
    assert!(attacks > 25, "the table was not found");
}

#[test]
fn what_is_no_test_is_told_from_what_is_one() {
    let sources = "fn helper() {}\n\n    #[test]\n    fn holds() {}\n\n    fn another() {}\n";
    assert!(is_test(sources, "holds"));
    assert!(!is_test(sources, "helper") && !is_test(sources, "another") && !is_test(sources, "missing"));
}
