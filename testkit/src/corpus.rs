//! Fuzz targets without a fuzzer: each over its committed corpus and many changes of it.
//!
//! Owns the changes, drawn from a seed so that a failure can be repeated, and the generated files
//! of a corpus. A corpus is a directory `corpus/TARGET` with one input per file. Refuses to judge:
//! a target that finds a fault panics.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// A target: takes any bytes and panics if they are handled wrongly.
pub type Target = (&'static str, fn(&[u8]));

/// The default number of changed inputs per target: a dozen targets take a few seconds.
const CHANGED_INPUTS: u32 = 1_500;
/// Set to a number, it replaces [`CHANGED_INPUTS`].
const CHANGED_INPUTS_VARIABLE: &str = "UPTIME_TEST_CASES";
/// The seed of the changes, so that each run does the same.
const SEED: u64 = 0x5eed;
/// The maximum length of a changed input. The real fuzzer finds faults of longer ones.
const INPUT_BYTES_MAX: usize = 16 * 1024;

/// Runs the targets; `directory` holds `corpus/`.
///
/// # Panics
/// If a target panics, with its input; or if a corpus is missing or has no target.
pub fn run(directory: &Path, targets: &[Target]) {
    let corpus = directory.join("corpus");
    let mut kept: Vec<String> = entries(&corpus);
    kept.sort();
    let mut wanted: Vec<&str> = targets.iter().map(|(name, _)| *name).collect();
    wanted.sort_unstable();
    assert_eq!(kept, wanted, "the directories in {}, and the targets", corpus.display());
    let changed = std::env::var(CHANGED_INPUTS_VARIABLE).ok().and_then(|text| text.parse().ok());
    for target in targets {
        run_one(&corpus.join(target.0), target, changed.unwrap_or(CHANGED_INPUTS));
    }
}

fn run_one(directory: &Path, (name, target): &Target, changed: u32) {
    let mut files = entries(directory);
    files.sort();
    assert!(!files.is_empty(), "{} is empty", directory.display());
    let inputs: Vec<Vec<u8>> = files.iter().map(|file| read(&directory.join(file))).collect();
    for (file, input) in files.iter().zip(&inputs) {
        check(name, &format!("corpus/{name}/{file}"), *target, input);
    }
    eprintln!("target {name}: {} files, {changed} changes, seed {SEED:#x}", files.len());
    let mut dice = StdRng::seed_from_u64(SEED);
    for number in 0..changed {
        let input = changed_input(&mut dice, &inputs);
        check(name, &format!("seed {SEED:#x}, change {number}"), *target, &input);
    }
}

fn check(name: &str, origin: &str, target: fn(&[u8]), input: &[u8]) {
    let passed = catch_unwind(AssertUnwindSafe(|| target(input)));
    assert!(passed.is_ok(), "target {name}, {origin}: b\"{}\"", input.escape_ascii());
}

fn changed_input(dice: &mut StdRng, inputs: &[Vec<u8>]) -> Vec<u8> {
    let any = |dice: &mut StdRng| &inputs[dice.random_range(0..inputs.len())];
    let mut input = any(dice).clone();
    for _ in 0..dice.random_range(1..=4) {
        let start = dice.random_range(0..=input.len());
        let end = dice.random_range(start..=input.len()).min(start + 64);
        match dice.random_range(0..8) {
            0 => drop(input.drain(start..end)),
            1 => input.truncate(start),
            2 => {
                let again = input[start..end].to_vec();
                input.splice(start..start, again);
            }
            3 => {
                let other = any(dice);
                let from = dice.random_range(0..=other.len());
                let to = dice.random_range(from..=other.len());
                input.splice(start..end, other[from..to].iter().copied());
            }
            4 => {
                let edges: [&[u8]; 8] = [
                    b"0",
                    b"-1",
                    b"18446744073709551616",
                    b"null",
                    b"\"",
                    b"]",
                    &[0; 8],
                    &[255; 8],
                ];
                let edge = edges[dice.random_range(0..edges.len())];
                input.splice(start..end, edge.iter().copied());
            }
            5 => input.insert(start, dice.random()),
            6 if start < input.len() => input[start] = dice.random(),
            _ if start < input.len() => input[start] ^= 1 << dice.random_range(0..8),
            _ => {}
        }
    }
    input.truncate(INPUT_BYTES_MAX);
    input
}

/// Compares the generated files of a corpus with what their program makes: a target, a name, the
/// bytes. With `UPDATE_CORPUS` set it writes them first. It does not touch other files, such as the
/// finds of a fuzzer.
///
/// # Panics
/// If a file is missing or different.
pub fn hold_to(directory: &Path, files: &[(&str, &str, Vec<u8>)]) {
    for (target, name, bytes) in files {
        let path = directory.join("corpus").join(target).join(name);
        if std::env::var_os("UPDATE_CORPUS").is_some() {
            let made = path.parent().map_or(Ok(()), std::fs::create_dir_all);
            let written = made.and_then(|()| std::fs::write(&path, bytes));
            assert!(written.is_ok(), "{}: {written:?}", path.display());
        }
        assert!(
            std::fs::read(&path).is_ok_and(|kept| kept == *bytes),
            "{} is stale: run this test once with UPDATE_CORPUS=1",
            path.display()
        );
    }
}

/// Checks that `Cargo.toml` in the directory has a `[[bin]]` for each target.
///
/// # Panics
/// If the targets differ.
pub fn hold_manifest_to(directory: &Path, targets: &[Target]) {
    let manifest = String::from_utf8_lossy(&read(&directory.join("Cargo.toml"))).into_owned();
    let bins = manifest.split("[[bin]]").skip(1);
    let named: Vec<(&str, &str)> = bins
        .filter_map(|bin| {
            let value = |key: &str| {
                let line = bin.lines().find_map(|line| line.strip_prefix(key))?;
                Some(line.trim_matches([' ', '=', '"']))
            };
            Some((value("name")?, value("path")?))
        })
        .collect();
    let wanted: Vec<(&str, String)> =
        targets.iter().map(|(name, _)| (*name, format!("fuzz_targets/{name}.rs"))).collect();
    let wanted: Vec<(&str, &str)> =
        wanted.iter().map(|(name, path)| (*name, path.as_str())).collect();
    assert_eq!(named, wanted, "the [[bin]]s of {}, and the targets", directory.display());
    assert!(wanted.iter().all(|(_, path)| directory.join(path).is_file()), "a file is missing");
}

fn entries(directory: &Path) -> Vec<String> {
    let read = std::fs::read_dir(directory).into_iter().flatten().flatten();
    read.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn read(path: &Path) -> Vec<u8> {
    let bytes = std::fs::read(path);
    assert!(bytes.is_ok(), "{}: {bytes:?}", path.display());
    bytes.unwrap_or_default()
}
