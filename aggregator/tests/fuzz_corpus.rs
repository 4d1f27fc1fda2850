//! The fuzz targets over their corpus; see `fuzz/targets.rs`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "../fuzz/targets.rs"]
mod targets;

use std::path::{Path, PathBuf};

use uptime_testkit::corpus;

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// As the script writes it, with what has to be mended.
const SCRIPT: &str = "issuer_id,is_online,last_seen,total_online_scans,uptime\r\n\
    0x11000000000000000000000000000000000000aa,True,2026-01-31 12:34:56.789012,970,97.0\r\n\
    0x22000000000000000000000000000000000000BB,False,2025-10-26 02:30:00,-8,-0.8\r\n\
    0x33000000000000000000000000000000000000cc,True,2026-03-29 02:30:00,1001,100.1\r\n";

/// This program's own.
const UTC: &str = "\u{feff}issuer_id,is_online,last_seen,total_online_scans,uptime\n\
    0x11000000000000000000000000000000000000aa,True,2026-01-31T12:34:56.789012+00:00,970,97.0\n\
    0x22000000000000000000000000000000000000bb,False,,0,0.0\n";

/// Columns in another order, quotes, an empty line, and a row too short.
const ODD: &str = "uptime,\"last_seen\",is_online,total_online_scans,issuer_id\n\
    1e-05,2026-01-31T12:34:56Z,\"True\",7,0x11000000000000000000000000000000000000aa\n\
    \n\
    0,yesterday,true\n";

/// As the form of the overview sends it.
const TABLE: &str =
    "find=a%22%3Cb+c&subnet=public&state=down&below=99.5&sort=-uptime&page=3&size=10";

/// A window by its ends, in two of their forms.
const ENDS: &str = "from=0001-01-01&to=2026-01-31T12:34:56.5%2B01:00";

/// As `the_format_is_fixed` beside the format has it, without the checksum.
const SETS: [u8; 23] =
    [1, 0, 3, 0, 0, 0, 0, 0xe0, 0x40, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 1, 0x60];

/// The two pieces of a golden kept state, each with its length before it, as the target takes them.
fn two_pieces(golden: &[u8]) -> Vec<u8> {
    let piece = |bytes: &'_ [u8]| {
        let (length, rest) = bytes.split_first_chunk::<4>().unwrap();
        let (piece, rest) = rest.split_at(u32::from_le_bytes(*length) as usize);
        (piece[..piece.len() - 4].to_vec(), rest.to_vec())
    };
    let (head, rest) = piece(golden);
    let (nodes, rest) = piece(&rest);
    assert!(rest.is_empty());
    let length = u16::try_from(head.len()).unwrap();
    [&length.to_le_bytes()[..], &head, &nodes].concat()
}

#[test]
fn the_corpus_is_fresh() {
    let sealed = |bytes: &[u8]| bytes[..bytes.len() - 4].to_vec();
    let segment = include_bytes!("../src/store/segment/golden-1.bin");
    let files = [
        ("checkpoint", "version", vec![2, 0, 8, 1]),
        (
            "checkpoint",
            "first",
            two_pieces(include_bytes!("../../accounting/src/checkpoint/golden-1.bin")),
        ),
        (
            "checkpoint",
            "golden",
            two_pieces(include_bytes!("../../accounting/src/checkpoint/golden-2.bin")),
        ),
        ("stored_segment", "golden", sealed(segment)),
        ("stored_sets", "full", SETS.to_vec()),
        ("query_string", "table", TABLE.as_bytes().to_vec()),
        ("query_string", "span", b"window=30d".to_vec()),
        ("query_string", "ends", ENDS.as_bytes().to_vec()),
        ("seed_file", "script", SCRIPT.as_bytes().to_vec()),
        ("seed_file", "utc", UTC.as_bytes().to_vec()),
        ("seed_file", "odd", ODD.as_bytes().to_vec()),
        ("stamp", "naive", b"2026-03-29 02:30:00.789012".to_vec()),
        ("stamp", "offset", b"2026-01-31T12:34:56.789012345-05:30:15".to_vec()),
        ("stamp", "day", b"2026-01-31".to_vec()),
        ("stamp", "scans", b"1000000000000\n".to_vec()),
    ];
    corpus::hold_to(&directory(), &files);
}

#[test]
fn the_manifest_has_every_target() {
    corpus::hold_manifest_to(&directory(), targets::TARGETS);
}

#[test]
fn targets_stand_their_corpus_and_changes_of_it() {
    for name in targets::TARGETS.iter().map(|(name, _)| name) {
        // By name, as the fuzzer calls them.
        targets::run(name, b"");
    }
    corpus::run(&directory(), targets::TARGETS);
}
