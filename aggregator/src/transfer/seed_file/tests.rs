//! What is read, what is mended and told, what is refused.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;

use super::*;

const HEADER_LINE: &str = "issuer_id,is_online,last_seen,total_online_scans,uptime\r\n";
const A: &str = "0xaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const B: &str = "0xbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
const STAMP: &str = "2026-01-31 12:34:56.789012";

fn terms() -> Terms {
    Terms {
        scan_count: 100,
        zone: Tz::Europe__Warsaw,
        now_ms: 1_800_000_000_000,
        limits: Limits::default(),
    }
}

fn check(rows: &str, terms: &Terms) -> Result<SeedFile, Faults> {
    read(format!("{HEADER_LINE}{rows}").as_bytes(), terms, |_| {})
}

fn faults(rows: &str) -> Vec<String> {
    check(rows, &terms()).unwrap_err().listed
}

#[test]
fn a_file_as_the_script_writes_it() {
    let upper = B.to_uppercase().replace("0X", "0x");
    let rows = format!("{upper},False,2026-01-30 01:02:03,0,0.0\r\n{A},True,{STAMP},97,97.0\r\n");
    let mut behind = 0;
    let text = format!("{HEADER_LINE}{rows}");
    let file = read(text.as_bytes(), &terms(), |bytes| behind = bytes).unwrap();
    let row = |text: &str, is_online, last_seen_ms, online_scans| OpeningRow {
        id: text.parse().unwrap(),
        is_online,
        last_seen_ms: Some(last_seen_ms),
        online_scans,
    };
    let wanted = [row(A, true, 1_769_859_296_789, 97), row(B, false, 1_769_731_323_000, 0)];
    assert_eq!(file, SeedFile { rows: wanted.to_vec(), notices: Vec::new() });
    assert!(behind > 100, "progress was told: {behind}");
}

#[test]
fn other_orders_line_ends_and_an_empty_stamp() {
    let text = format!(
        "\u{feff}uptime,total_online_scans,last_seen,is_online,issuer_id\n1e-05,7,,False,{A}\n"
    );
    let file = read(text.as_bytes(), &terms(), |_| {}).unwrap();
    let id = A.parse().unwrap();
    let wanted = OpeningRow { id, is_online: false, last_seen_ms: None, online_scans: 7 };
    assert_eq!(file.rows, [wanted]);
    assert_eq!(check("", &terms()), Ok(SeedFile::default()), "a header alone is a whole file");
}

#[test]
fn what_is_mended_is_told_with_its_line_and_both_values() {
    let rows = format!(
        "{A},False,2025-10-26 02:30:00,-8,-8.0\r\n{B},True,2026-03-29 02:30:00,101,101.0\r\n"
    );
    let file = check(&rows, &terms()).unwrap();
    let counts: Vec<u64> = file.rows.iter().map(|row| row.online_scans).collect();
    assert_eq!(counts, [0, 100]);
    let (a, b) = (A.parse().unwrap(), B.parse().unwrap());
    let resolved =
        |text: &str, reading, unix_ms| Notice::Resolved { text: text.into(), reading, unix_ms };
    let wanted = [
        (2, a, Notice::Clamped { from: -8, to: 0 }),
        (2, a, resolved("2025-10-26 02:30:00", Reading::Ambiguous, 1_761_438_600_000)),
        (3, b, Notice::Clamped { from: 101, to: 100 }),
        (3, b, resolved("2026-03-29 02:30:00", Reading::Skipped, 1_774_747_800_000)),
    ];
    assert_eq!(file.notices, wanted);
}

#[test]
fn every_fault_is_told_with_its_line_and_nothing_is_taken() {
    let rows = format!(
        "{A},True,{STAMP},1,1.0\n\
         {A}0,true,yesterday,1.5,nan\n\
         {B},True,{STAMP},1\n\
         \n\
         {},True,{STAMP},1,1.0\n\
         {B},True,2027-01-15 12:34:56,99999999999999999999,\"1,0\"\n",
        A.to_uppercase().replace("0X", "0x")
    );
    let told = faults(&rows).join("\n");
    let wanted = format!(
        "line 3: issuer_id {:?}: a node id is 0x and 40 hex digits\n\
         line 3: is_online \"true\": True or False is wanted\n\
         line 3: last_seen \"yesterday\": a stamp as 2026-01-31 12:34:56.789012 is wanted\n\
         line 3: total_online_scans \"1.5\": a whole number is wanted\n\
         line 3: uptime \"nan\": a percentage is wanted\n\
         line 4: 4 columns, 5 wanted\n\
         line 6: {A} stands on line 2, too\n\
         line 7: last_seen \"2027-01-15 12:34:56\": 12896 s in the future when read in the time \
         zone Europe/Warsaw: is that the zone of the host that wrote it?\n\
         line 7: total_online_scans \"99999999999999999999\": a whole number is wanted\n\
         line 7: uptime \"1,0\": a percentage is wanted",
        format!("{A}0"),
    );
    assert_eq!(told, wanted);
}

#[test]
fn what_is_no_such_file_is_told_at_once() {
    let told = |text: &str| read(text.as_bytes(), &terms(), |_| {}).unwrap_err().listed.join("\n");
    for (text, wanted) in [
        ("", "copy it again"),
        ("issuer_id,is_online,last_seen,total_online_scans\n", "column uptime is missing"),
        ("issuer_id,is_online,last_seen,total_online_scans,uptime,more\n", "no column \"more\""),
        ("issuer_id,issuer_id,is_online,last_seen,total_online_scans,uptime\n", "stands twice"),
        ("PK\u{3}\u{4}\u{0}", "line 1: no column \"PK\\u{3}\\u{4}\\0\""),
    ] {
        assert!(told(text).contains(wanted), "{text}: {}", told(text));
    }
    let cut = format!("{A},True,{STAMP},97,9");
    assert!(faults(&cut)[0].contains("cut short"), "{:?}", faults(&cut));
    let quoted = format!("\"{A},True,{STAMP},97,97.0\r\n{B},True,{STAMP},97,97.0\r\n");
    assert!(faults(&quoted)[0].contains("1 columns"), "{:?}", faults(&quoted));
}

#[test]
fn the_limits_hold() {
    let rows: String =
        (10..40).map(|n| format!("0x{}{n},True,{STAMP},1,1.0\n", "a".repeat(38))).collect();
    let with = |limits| Terms { limits, ..terms() };
    let usual = Limits::default();
    assert_eq!(check(&rows, &with(Limits { rows_max: 30, ..usual })).unwrap().rows.len(), 30);
    let told = check(&rows, &with(Limits { rows_max: 29, ..usual })).unwrap_err().listed;
    assert_eq!(told, ["line 31: more than 29 rows"]);
    let bytes = (HEADER_LINE.len() + rows.len()) as u64;
    check(&rows, &with(Limits { file_bytes_max: bytes, ..usual })).unwrap();
    let told = check(&rows, &with(Limits { file_bytes_max: bytes - 1, ..usual })).unwrap_err();
    assert!(told.listed[0].contains("longer than"), "{told:?}");
    let wrong = rows.replace("True", "maybe");
    let told = check(&wrong, &with(Limits { faults_listed_max: 7, ..usual })).unwrap_err();
    assert_eq!((told.listed.len(), told.count), (7, 30));
    let long = format!("{A},{},{STAMP},1,1.0\n", "x".repeat(10_000));
    assert!(faults(&long)[0].len() < 200, "{:?}", faults(&long));
    assert_eq!(
        usual,
        Limits { file_bytes_max: 134_217_728, rows_max: 1_000_000, faults_listed_max: 100 }
    );
}

#[test]
fn the_number_of_scans() {
    assert_eq!(read_scan_count(" 12345\n"), Ok(12_345));
    assert_eq!(read_scan_count("1000000000000"), Ok(SCAN_COUNT_MAX));
    for wrong in ["", "-1", "1.0", "1000000000001", "many"] {
        assert!(read_scan_count(wrong).unwrap_err().contains("number of scans"), "{wrong}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        with_header in any::<bool>(),
    ) {
        let mut text = if with_header { HEADER_LINE.as_bytes().to_vec() } else { Vec::new() };
        text.extend(bytes);
        if let Ok(file) = read(&text, &terms(), |_| {}) {
            prop_assert!(file.rows.is_sorted_by(|a, b| a.id < b.id));
        }
    }
}
