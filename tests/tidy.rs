//! The house rules, as assertions over the tracked files. A rule that finds nothing to look at fails too.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "tests say what must hold by panicking"
)]

use std::collections::BTreeMap;
use std::path::Path;

/// Every file of the repository by its path, as far as it is text and not built.
fn files() -> BTreeMap<String, String> {
    fn walk(root: &Path, at: &Path, into: &mut BTreeMap<String, String>) {
        for entry in std::fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/");
            let built = ["target", "fuzz/target", "fuzz/artifacts", "fuzz/corpus", "benches/results", ".git"];
            if built.contains(&name.as_str()) {
                continue;
            }
            if path.is_dir() {
                walk(root, &path, into);
            } else if let Ok(text) = std::fs::read_to_string(&path) {
                into.insert(name, text);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = BTreeMap::new();
    walk(root, root, &mut found);
    found
}

/// The Rust files under `src`.
fn sources() -> BTreeMap<String, String> {
    let found: BTreeMap<_, _> =
        files().into_iter().filter(|(name, _)| name.starts_with("src/") && name.ends_with(".rs")).collect();
    assert!(found.len() > 30, "only {} files under src", found.len());
    found
}

/// Lines that are code, with their numbers from 0: no comments, no text behind the first `mod tests` of a file.
fn code(text: &str) -> Vec<(usize, &str)> {
    text.lines()
        .enumerate()
        .take_while(|(_, line)| *line != "mod tests {")
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
        .map(|(number, line)| (number, line.split(" // ").next().unwrap()))
        .collect()
}

fn is_test_file(name: &str) -> bool {
    name.contains("/tests")
        || name.contains("/testing/")
        || name.contains("/loom_tests/")
        || name == "src/sync/model.rs"
}

/// Fails with all of them, so that one run shows everything.
#[track_caller]
fn none(rule: &str, broken: Vec<String>) {
    assert!(broken.is_empty(), "{rule}:\n  {}", broken.join("\n  "));
}

/// Lines of code in these files that contain one of these texts.
fn mentions(files: &BTreeMap<String, String>, texts: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for (name, text) in files {
        for (number, line) in code(text) {
            if texts.iter().any(|text| line.contains(text)) {
                found.push(format!("{name}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    found
}

#[test]
fn every_file_says_what_it_is_for_and_a_long_one_why() {
    let mut broken = Vec::new();
    for (name, text) in sources() {
        let header: Vec<&str> = text.lines().take_while(|line| line.starts_with("//!")).collect();
        if header.is_empty() {
            broken.push(format!("{name}: no header"));
        }
        let lines = text.lines().count();
        if lines > 450 && !header.iter().any(|line| line.contains("lines because")) {
            broken.push(format!("{name}: {lines} lines, and no \"lines because\" in its header"));
        }
    }
    none("a file opens with //! and has at most 450 lines, or says why not", broken);
}

#[test]
fn the_codec_is_named_in_one_place() {
    let sources = sources();
    let found = mentions(&sources, &["bincode"]);
    let (inside, outside): (Vec<_>, Vec<_>) = found.into_iter().partition(|at| at.starts_with("src/persist/format"));
    assert!(!inside.is_empty());
    none("bincode outside src/persist/format*", outside);
}

#[test]
fn directories_are_synced_through_one_door() {
    let found = mentions(&sources(), &["fs::fsync", "fcntl_fullfsync"]);
    let (inside, outside): (Vec<_>, Vec<_>) = found.into_iter().partition(|at| at.starts_with("src/persist/file.rs"));
    // For macOS, and for every other system.
    assert_eq!(inside.len(), 2, "{inside:?}");
    none("a sync of a directory that is no full one on macOS: use sync_directory of src/persist/file.rs", outside);
}

#[test]
fn every_ordering_and_every_unsafe_block_is_argued() {
    const ORDERINGS: [&str; 5] =
        ["Ordering::Relaxed", "Ordering::Acquire", "Ordering::Release", "Ordering::AcqRel", "Ordering::SeqCst"];
    let (mut looked_at, mut broken) = ([0, 0], Vec::new());
    for (name, text) in sources() {
        let lines: Vec<&str> = text.lines().collect();
        for (number, line) in code(&text) {
            let argued = |word: &str, within: usize| {
                lines[number.saturating_sub(within)..=number].iter().any(|above| above.contains(word))
            };
            // Models, and the model checker's twin of each primitive, explain their orderings as a whole, in their header.
            if ORDERINGS.iter().any(|ordering| line.contains(ordering)) && !is_test_file(&name) {
                looked_at[0] += 1;
                if !argued("ORDERING:", 5) {
                    broken.push(format!("{name}:{}: no ORDERING: within five lines above", number + 1));
                }
            }
            if line.contains("unsafe {") || line.contains("unsafe impl") {
                looked_at[1] += 1;
                if !argued("SAFETY:", 8) {
                    broken.push(format!("{name}:{}: no SAFETY: above", number + 1));
                }
            }
        }
    }
    assert!(looked_at[0] > 3 && looked_at[1] > 0, "{looked_at:?}");
    none("orderings and unsafe blocks", broken);
}

/// Files with unsafe code, and how many uses of it each may have: blocks, implementations, and functions that ask their
/// caller for something. To raise one, say in the commit why it cannot be safe.
const UNSAFE: [(&str, usize); 12] = [
    ("src/lanes.rs", 3),
    ("src/map/change.rs", 4),
    ("src/map/history.rs", 2),
    ("src/map/node.rs", 12),
    ("src/map/pack.rs", 3),
    ("src/map/memory.rs", 12),
    ("src/map/pool.rs", 3),
    ("src/map/probe.rs", 13),
    ("src/map/version.rs", 6),
    ("src/pages.rs", 1),
    ("src/persist/mapping.rs", 1),
    ("src/sync/model.rs", 1),
];

#[test]
fn unsafe_stays_within_its_budget() {
    let mut broken = Vec::new();
    for (name, text) in sources() {
        let uses =
            |(_, line): &(usize, &str)| ["unsafe {", "unsafe impl", "unsafe fn"].iter().any(|it| line.contains(it));
        let used = code(&text).iter().filter(|line| uses(line)).count();
        let allowed = UNSAFE.iter().find(|(file, _)| *file == name).map_or(0, |(_, allowed)| *allowed);
        // Less than allowed is told too, so that the budget follows down.
        if used != allowed {
            broken.push(format!("{name}: {used} uses of unsafe, {allowed} allowed"));
        }
    }
    none("unsafe is counted", broken);
}

#[test]
fn unsafe_is_forbidden_wherever_it_can_be() {
    // The modules above one that has unsafe code: a `forbid` would bind it too.
    const ABOVE: [&str; 4] = ["src/lib.rs", "src/map/mod.rs", "src/persist/mod.rs", "src/sync.rs"];
    let has_unsafe = |name: &str| UNSAFE.iter().any(|(file, _)| *file == name) || ABOVE.contains(&name);
    let broken = sources()
        .into_iter()
        .filter(|(name, text)| !has_unsafe(name) && !text.contains("#![forbid(unsafe_code)]"))
        // A file that is included as a module of a forbidding parent is bound by it.
        .filter(|(name, _)| !is_test_file(name))
        .map(|(name, _)| name)
        .collect();
    none("#![forbid(unsafe_code)] is missing", broken);
}

#[test]
fn the_pure_parts_touch_nothing() {
    const OUTSIDE: [&str; 16] = [
        "std::fs",
        "std::io",
        "std::thread",
        "std::process",
        "std::env",
        "TcpStream",
        "TcpListener",
        "UdpSocket",
        "UnixStream",
        "Instant::now",
        "SystemTime",
        "Mutex",
        "RwLock",
        "Atomic",
        "getrandom",
        "crate::sync",
    ];
    let pure = |name: &str| {
        ["src/machine/", "src/wire/", "src/text.rs", "src/persist/format", "src/persist/recover.rs"]
            .iter()
            .any(|place| name.starts_with(place))
            && !is_test_file(name)
    };
    let sources: BTreeMap<_, _> = sources().into_iter().filter(|(name, _)| pure(name)).collect();
    assert!(sources.len() >= 6, "{:?}", sources.keys());
    none("machine, wire, format and recover are pure", mentions(&sources, &OUTSIDE));
    // And the twin: elsewhere these names do occur, so looking for them finds something.
    let keeper: BTreeMap<_, _> =
        self::sources().into_iter().filter(|(name, _)| name.starts_with("src/store/")).collect();
    assert!(!mentions(&keeper, &OUTSIDE).is_empty());
}

#[test]
fn nothing_imports_upwards() {
    // From the bottom to the top. But in the lowest layer, rooms of one layer do not know each other either.
    const LAYERS: [&[&str]; 8] = [
        &["time", "peer", "config", "error", "clock", "foreign", "event", "text"],
        &["map", "wire"],
        &["tables"],
        &["persist"],
        &["machine", "store"],
        &["node"],
        &["cli"],
        &["bin"],
    ];
    // Errors carry what they are about: `error` may point at the rules' refusals in its documentation alone.
    let layer_of = |module: &str| LAYERS.iter().position(|layer| layer.contains(&module));
    let mut looked_at = 0;
    let mut broken = Vec::new();
    for (name, text) in sources() {
        let module = name["src/".len()..].trim_end_matches(".rs").split('/').next().unwrap();
        let Some(own) = layer_of(module) else { continue };
        for (number, line) in code(&text) {
            for after in line.split("crate::").skip(1) {
                let other = after.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap();
                let Some(layer) = layer_of(other) else { continue };
                looked_at += 1;
                if layer > own || layer == own && own > 0 && other != module {
                    broken.push(format!("{name}:{}: {}", number + 1, line.trim()));
                }
            }
        }
    }
    assert!(looked_at > 50, "{looked_at}");
    none("an import upwards", broken);
}

#[test]
fn concurrency_comes_through_one_door() {
    let upper = |name: &str| {
        const UPPER: [&str; 7] =
            ["src/map", "src/store", "src/node", "src/cli", "src/sync", "src/testing", "src/loom_tests"];
        // The log has a second thread write snapshots; versions of the pending table share what was counted of one of them.
        const THREADS: [&str; 3] = ["src/persist/log.rs", "src/persist/background.rs", "src/tables/queue.rs"];
        UPPER.iter().chain(&THREADS).any(|place| name.starts_with(place))
    };
    let lower: BTreeMap<_, _> = sources().into_iter().filter(|(name, _)| !upper(name)).collect();
    none("sync is for map, keeper, store and what stands on them", mentions(&lower, &["crate::sync"]));
    let sync: BTreeMap<_, _> = sources().into_iter().filter(|(name, _)| name.starts_with("src/sync")).collect();
    none(
        "sync imports nothing of ours but how to run a waker",
        mentions(&sync, &["crate::store", "crate::machine", "crate::map", "crate::persist"]),
    );
}

#[test]
fn nothing_is_left_for_later() {
    let rust: BTreeMap<_, _> =
        files().into_iter().filter(|(name, _)| name.ends_with(".rs") && name != "tests/tidy.rs").collect();
    assert!(rust.len() > 40);
    let mut broken = Vec::new();
    for (name, text) in rust {
        for (number, line) in text.lines().enumerate() {
            if ["todo!", "unimplemented!", "#[ignore", "FIXME", "XXX"].iter().any(|word| line.contains(word)) {
                broken.push(format!("{name}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    none("unfinished", broken);
}

#[test]
fn no_file_names_the_place_where_it_was_written() {
    let places = ["work", "root", "home"].map(|place| format!("/{place}/"));
    let mut broken = Vec::new();
    for (name, text) in files() {
        for (number, line) in text.lines().enumerate() {
            let names_it = |place: &String| {
                line.match_indices(place.as_str()).any(|(at, _)| {
                    // The start of an absolute path, not the middle of a relative one.
                    !line[..at].ends_with(|c: char| c.is_alphanumeric() || "._-~}*".contains(c))
                })
            };
            if places.iter().any(names_it) {
                broken.push(format!("{name}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    none("a path of somebody's machine", broken);
}

#[test]
fn what_may_panic_is_run_through_one_door() {
    let (door, rest): (BTreeMap<_, _>, BTreeMap<_, _>) =
        sources().into_iter().filter(|(name, _)| !is_test_file(name)).partition(|(name, _)| name == "src/foreign.rs");
    assert!(!mentions(&door, &["catch_unwind"]).is_empty(), "the door is elsewhere");
    none("a panic that is caught, and may panic again when it goes", mentions(&rest, &["catch_unwind"]));
}

/// The names of the public methods in `impl OF {` blocks.
fn public_methods(sources: &BTreeMap<String, String>, of: &str) -> Vec<String> {
    let mut found = Vec::new();
    for text in sources.iter().filter(|(name, _)| !is_test_file(name)).map(|(_, text)| text) {
        let mut inside = false;
        for (_, line) in code(text) {
            match line {
                "}" => inside = false,
                line if line == format!("impl {of} {{") => inside = true,
                line if inside => {
                    let name = line.strip_prefix("    pub fn ").or_else(|| line.strip_prefix("    pub const fn "));
                    found.extend(name.and_then(|name| name.split(['(', '<']).next()).map(str::to_owned));
                }
                _ => {}
            }
        }
    }
    found
}

#[test]
fn the_front_page_says_of_every_call_what_it_waits_for() {
    let sources = sources();
    let front = &sources["src/lib.rs"];
    let rows: Vec<&str> = front.lines().filter_map(|line| line.strip_prefix("//! | ")).collect();
    assert!(rows.len() >= 7, "the table is gone");
    let all = rows.join("\n");
    let mut broken = Vec::new();
    for of in ["TrustStore", "TrustReader", "Snapshot", "Receipt", "Subscription", "HandshakeManager"] {
        let methods = public_methods(&sources, of);
        assert!(methods.len() >= 3, "{of}: {methods:?}");
        let whole = format!("all of [`{of}`]");
        let missing = methods.into_iter().filter(|_| !all.contains(&whole)).filter(|name| {
            // In a row, behind the name of the type and before that of the next one; or of both types.
            !rows.iter().any(|row| {
                row.contains(&format!("`{name}` of both"))
                    || row
                        .split("; ")
                        .any(|part| part.contains(&format!("[`{of}`]")) && part.contains(&format!("`{name}`")))
            })
        });
        broken.extend(missing.map(|name| format!("{of}::{name}")));
    }
    none("what every public call waits for stands in the table of src/lib.rs", broken);
}
