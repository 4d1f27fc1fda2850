//! The rules that a program can check: dependencies between crates and modules, and the form of
//! files.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use cargo_metadata::{Dependency, DependencyKind, Metadata, MetadataCommand};

/// The maximum length of a file; generated files are not checked.
const LINES_MAX: usize = 700;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

fn metadata() -> Metadata {
    MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .no_deps()
        .other_options(vec!["--locked".to_owned(), "--offline".to_owned()])
        .exec()
        .unwrap()
}

/// What each crate of the workspace is built from, other crates of the workspace only.
fn shipped_edges() -> BTreeMap<String, BTreeSet<String>> {
    metadata()
        .packages
        .iter()
        .map(|package| {
            let edges = package.dependencies.iter().filter(|dependency| {
                dependency.path.is_some() && dependency.kind != DependencyKind::Development
            });
            let names = edges.map(|dependency| dependency.name.clone()).collect();
            (package.name.to_string(), names)
        })
        .collect()
}

#[test]
fn crates_look_one_way_only() {
    let none = BTreeSet::new();
    let proto = BTreeSet::from(["uptime-proto".to_owned()]);
    let wanted = BTreeMap::from([
        ("uptime-proto".to_owned(), none),
        ("uptime-probe".to_owned(), proto.clone()),
        ("uptime-accounting".to_owned(), proto.clone()),
        (
            "uptime-aggregator".to_owned(),
            BTreeSet::from(["uptime-accounting".to_owned(), "uptime-proto".to_owned()]),
        ),
        ("uptime-client".to_owned(), proto.clone()),
        ("uptime-testkit".to_owned(), proto),
    ]);
    assert_eq!(shipped_edges(), wanted);
}

/// Accounting is pure: nothing that waits, stores or reads a clock is built into it. `cargo tree`
/// is asked of this crate alone: in one tree for all crates their features would mix.
#[test]
fn accounting_is_built_without_io() {
    let tree = |package: &str| {
        let tree = Command::new(env!("CARGO"))
            .current_dir(root())
            .args(["tree", "--locked", "--offline", "--edges", "normal", "--prefix", "none"])
            .args(["--format", "{lib}", "--package", package])
            .output()
            .unwrap();
        assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
        let crates = String::from_utf8(tree.stdout).unwrap();
        crates.lines().map(str::to_owned).collect::<BTreeSet<String>>()
    };
    let (aggregator, accounting) = (tree("uptime-aggregator"), tree("uptime-accounting"));
    for impure in ["tokio", "sqlx", "mio", "chrono", "rustix", "tracing", "metrics", "tonic"] {
        assert!(aggregator.contains(impure), "{impure} is gone: fix this test");
        assert!(!accounting.contains(impure), "{impure} is built into accounting");
    }
}

/// The fuzz targets are workspaces of their own: what a crate is built from must be in their locks,
/// too, or their sources and licences cannot be checked.
#[test]
fn locks_of_fuzz_targets_know_what_their_crates_are_built_from() {
    for package in metadata().packages {
        let lock = package.manifest_path.with_file_name("fuzz").join("Cargo.lock");
        let Ok(lock) = std::fs::read_to_string(&lock) else { continue };
        let mut blocks = lock.split("[[package]]");
        let name = format!("\nname = \"{}\"\n", package.name);
        let block = blocks.find(|block| block.starts_with(&name)).unwrap();
        let normal = |it: &&Dependency| it.kind == DependencyKind::Normal && !it.optional;
        for dependency in package.dependencies.iter().filter(normal) {
            let (alone, of_several) =
                (format!(" \"{}\",\n", dependency.name), format!(" \"{} ", dependency.name));
            assert!(
                block.contains(&alone) || block.contains(&of_several),
                "{}/fuzz/Cargo.lock lacks {}: run `cargo update --workspace` there",
                package.name,
                dependency.name
            );
        }
    }
}

fn sources(below: &Path, endings: &[&str], found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(below).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            let skipped = ["target", "gen", "recordings", ".git", "node_modules"];
            if !skipped.contains(&name.as_str()) {
                sources(&path, endings, found);
            }
        } else if endings.iter().any(|ending| name.ends_with(ending)) {
            found.push(path);
        }
    }
}

fn rust_files() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for room in ["proto", "accounting", "probe", "aggregator", "client", "testkit"] {
        sources(&root().join(room), &[".rs"], &mut found);
    }
    assert!(found.len() > 50, "the search looks in the right place");
    found
}

#[test]
fn every_file_says_what_it_owns_and_is_short() {
    let mut faults = Vec::new();
    for path in rust_files() {
        let text = std::fs::read_to_string(&path).unwrap();
        if !text.starts_with("//!") {
            faults.push(format!("{}: does not open with //!", path.display()));
        }
        let lines = text.lines().count();
        if lines > LINES_MAX {
            faults.push(format!("{}: {lines} lines, at most {LINES_MAX}", path.display()));
        }
        for (number, line) in text.lines().enumerate() {
            if line.chars().count() > 100 && !line.contains("http") {
                faults.push(format!("{}:{}: over 100 columns", path.display(), number + 1));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Within one crate: which words a file must not have, and why.
#[test]
fn rooms_keep_their_absences() {
    let rules: [(&str, &[&str], &str); 10] = [
        ("proto/src", &["SystemTime", "std::fs", "tokio::"], "proto does no I/O and has no clock"),
        ("probe/src/scan", &["uplink", "serde_json"], "scan meets the uplink in the spool only"),
        ("probe/src/uplink.rs", &["yagna::", "scan::"], "the uplink knows no source"),
        ("probe/src/spool", &["uplink", "yagna::"], "the spool knows neither end"),
        (
            "accounting/src",
            &["SystemTime", "Instant::", "std::fs", "std::io", "async "],
            "accounting does no I/O and has no clock",
        ),
        ("aggregator/src/query.rs", &["crate::store", "crate::ingest"], "only the ledger stores"),
        (
            "aggregator/src/web",
            &["crate::store", "crate::ingest", "now_unix_ms()"],
            "it only reads",
        ),
        ("aggregator/src/ingest/stream.rs", &["sqlx", "crate::query"], "only the ledger stores"),
        ("aggregator/src/access/roles.rs", &["async ", "now_unix_ms", "metrics"], "it is pure"),
        ("aggregator/src/access/gate.rs", &["sqlx", "SqliteStore"], "only the ledger stores"),
    ];
    let mut faults = Vec::new();
    for (room, words, why) in rules {
        let place = root().join(room);
        let mut files = Vec::new();
        if place.is_dir() {
            sources(&place, &[".rs"], &mut files);
        } else {
            files.push(place);
        }
        assert!(!files.is_empty(), "{room} is gone: fix this rule");
        for file in files {
            if file.ends_with("tests.rs") || file.ends_with("gen") {
                continue;
            }
            let text = std::fs::read_to_string(&file).unwrap();
            let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            let code: Vec<&str> = code.take_while(|line| *line != "#[cfg(test)]").collect();
            for word in words {
                if code.iter().any(|line| line.contains(word)) {
                    faults.push(format!("{}: {word:?}: {why}", file.display()));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn no_test_is_ignored_and_nothing_is_left_unfinished() {
    // Spelt in pieces, so that this file does not name them.
    let words = [concat!("#[ig", "nore"), concat!("to", "do!("), concat!("unimpl", "emented!(")];
    let mut faults = Vec::new();
    for path in rust_files() {
        let text = std::fs::read_to_string(&path).unwrap();
        for word in words {
            if text.contains(word) {
                faults.push(format!("{}: {word}", path.display()));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
