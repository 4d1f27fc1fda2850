//! The scripts in deploy/: their usage, and the check of the CSV that the quickstart relies on.
//!
//! deploy/test.sh runs the quickstart itself. These tests show that its check fails on every kind
//! of wrong CSV.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

/// Runs a script with the POSIX shell of the system, as `sh` does.
fn sh(arguments: &[&Path]) -> Output {
    Command::new("/bin/sh").args(arguments).output().unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn every_script_parses() {
    let mut seen = 0;
    for room in ["", "lib"] {
        for entry in fs::read_dir(deploy().join(room)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|ending| ending == "sh") {
                let output = sh(&[Path::new("-n"), &path]);
                assert!(output.status.success(), "{}: {}", path.display(), err(&output));
                seen += 1;
            }
        }
    }
    assert!(seen >= 5, "the search looks in the right place: {seen}");
}

#[test]
fn commands_document_their_exit_status() {
    for (name, words) in [
        ("quickstart.sh", ["exit status: 0", "64   wrong usage", "csv: PATH"]),
        ("test.sh", ["exit status: 0", "64 wrong usage", "--long"]),
        ("fuzz.sh", ["exit status: 0", "64 wrong usage", "69 a requirement"]),
    ] {
        let output = sh(&[&deploy().join(name), Path::new("--help")]);
        assert!(output.status.success(), "{name}: {}", err(&output));
        let help = String::from_utf8(output.stdout).unwrap();
        for word in words {
            assert!(help.contains(word), "{name}: {word:?} is not in {help}");
        }
    }
}

#[test]
fn wrong_usage_is_refused_before_anything_happens() {
    let quickstart: &[&[&str]] = &[
        &["--round", "3"],
        &["--rounds"],
        &["--rounds", "0"],
        &["--rounds", "010"],
        &["--rounds", "many"],
        &["--period-s", "7"],
        &["--period-s", "5"],
        &["--dir", ""],
    ];
    let refused = |name: &str, arguments: &[&str]| {
        let mut command = Command::new("/bin/sh");
        let output = command.arg(deploy().join(name)).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(64), "{name} {arguments:?}: {}", err(&output));
        assert!(err(&output).contains(name), "{arguments:?}: {}", err(&output));
        assert!(output.stdout.is_empty(), "{arguments:?}");
    };
    for arguments in quickstart {
        refused("quickstart.sh", arguments);
    }
    refused("test.sh", &["--fast"]);
    refused("test.sh", &["--quick", "--long"]);
    refused("fuzz.sh", &["soon"]);
    refused("fuzz.sh", &["010"]);
    refused("fuzz.sh", &["10", "20"]);
}

const LIVING: &str = "0x00000000000000000000000000000000000000aa";
const DEAD: &str = "0x00000000000000000000000000000000000000bb";
const OTHER: &str = "0x00000000000000000000000000000000000000cc";
const HEADER: &str = "issuer_id,is_online,last_seen,total_online_scans,uptime";
const SEEN: &str = "2026-01-31T12:34:56.789000+00:00";

fn good() -> String {
    format!(
        "{HEADER}\n{LIVING},True,{SEEN},3,100.0\n{DEAD},False,,0,0.0\n{OTHER},True,{SEEN},1,100.0\n"
    )
}

/// Checks a CSV against a network of three, one of them dead.
fn check(csv: &str) -> Output {
    // A space and an equals sign: careless scripts fail on them.
    let directory = tempfile::Builder::new().prefix("a b=c").tempdir().unwrap();
    let network = directory.path().join("network");
    let lines = [(LIVING, "alive"), (DEAD, "dead"), (OTHER, "alive")]
        .map(|(id, state)| format!("provider {id} public {state}\n"));
    let announced =
        format!("daemon 0 http://127.0.0.1:1\ndead {DEAD} host-gone\n{}ready\n", lines.concat());
    fs::write(&network, announced).unwrap();
    let path = directory.path().join("nodes_status.csv");
    fs::write(&path, csv).unwrap();
    let script = deploy().join("lib/check_csv.sh");
    let mut command = Command::new("/bin/sh");
    command.arg(script).arg("--providers").arg(network).args(["--rounds-max", "4"]).arg(path);
    command.output().unwrap()
}

#[test]
fn a_right_csv_passes() {
    let output = check(&good());
    assert!(output.status.success(), "{}", err(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "3 rows, 2 True, 1 False\n");
}

#[test]
fn every_kind_of_wrong_csv_is_found() {
    let replaced = |there: &str, wrong: &str| {
        let text = good();
        assert!(text.contains(there), "{there}: fix this test");
        text.replacen(there, wrong, 1)
    };
    let row =
        |id: &str| good().lines().find(|line| line.starts_with(id)).unwrap().to_owned() + "\n";
    let swapped = format!("{HEADER}\n{}{}{}", row(DEAD), row(LIVING), row(OTHER));
    let stranger = LIVING.replace("aa", "ab");
    let cases = [
        ("empty", String::new(), "is empty"),
        ("no header", good().replace(&format!("{HEADER}\n"), ""), "header"),
        ("another header", replaced("issuer_id", "node_id"), "header"),
        ("only a header", format!("{HEADER}\n"), "has no row"),
        ("half a file", good().trim_end().to_owned(), "does not end with a newline"),
        ("CRLF", good().replace('\n', "\r\n"), "carriage returns"),
        ("a row missing", replaced(&row(OTHER), ""), "has no row"),
        ("the dead one missing", replaced(&row(DEAD), ""), "has no row"),
        ("unsorted", swapped, "not sorted"),
        ("twice", replaced(&row(DEAD), &(row(DEAD) + &row(DEAD))), "not sorted"),
        (
            "a stranger",
            replaced(&row(DEAD), &(row(LIVING).replace(LIVING, &stranger) + &row(DEAD))),
            "is not a provider of the network",
        ),
        ("the dead one up", replaced("False,,0,0.0", &format!("True,{SEEN},2,100.0")), "dead"),
        (
            "the dead one once seen",
            replaced("False,,0,0.0", &format!("False,{SEEN},1,50.0")),
            "dead",
        ),
        ("a living one down", replaced("True", "False"), "living provider is shown as False"),
        ("once down", replaced("3,100.0", "3,75.0"), "was down"),
        ("never up", replaced(",3,100.0", ",0,0.0"), "never seen"),
        ("too often up", replaced(",3,100.0", ",5,100.0"), "at most 4"),
        ("below zero", replaced(",3,100.0", ",-3,100.0"), "total_online_scans"),
        ("over a hundred", replaced(",3,100.0", ",3,100.5"), "uptime"),
        ("an exponent", replaced(",3,100.0", ",3,1e2"), "uptime"),
        ("a naive stamp", replaced("+00:00", ""), "last_seen"),
        ("lower case", replaced("True", "true"), "is_online"),
        ("upper-case id", good().replace("aa,", "AA,"), "lower-case"),
        ("a short id", replaced(LIVING, "0xaa"), "lower-case"),
        ("a column more", replaced(",3,100.0", ",3,100.0,1"), "6 columns"),
    ];
    for (what, csv, word) in cases {
        let output = check(&csv);
        assert_eq!(output.status.code(), Some(1), "{what} passed");
        assert!(err(&output).contains(word), "{what}: {}", err(&output));
        assert!(output.stdout.is_empty(), "{what}");
    }
}

#[test]
fn a_missing_csv_is_found() {
    let output = sh(&[&deploy().join("lib/check_csv.sh"), Path::new("/nowhere/nodes_status.csv")]);
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains("does not exist"), "{}", err(&output));
}
