//! Tests: what each recorded run of yagna's command line is understood to mean.

use std::time::Duration;

use serde_json::Value;

use super::super::command::{Ended, parse_find, parse_sessions};
use super::{KILLED, LIVING, RELAYED, directory, told};

/// A recorded run.
fn ended(name: &str) -> Ended {
    let path = directory().join(format!("{name}.json"));
    let run: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let text = |field: &str| run[field].as_str().unwrap().as_bytes().to_vec();
    let exit_code = run["exit_code"].as_i64().map(|code| i32::try_from(code).unwrap());
    Ended { exit_code, stdout: text("stdout"), stderr: text("stderr") }
}

fn failed(exit_code: Option<i32>, stderr: &str) -> Ended {
    Ended { exit_code, stdout: Vec::new(), stderr: stderr.as_bytes().to_vec() }
}

#[test]
fn finding_a_node() {
    let known =
        |seen: i64, id: &str| format!("Known {{ seen_unix_s: {seen}, identities: [{id}] }}");
    let own = "0x02b825859950ee253c103a91e082d9670e3a45fa";
    let could_not = |reason: &str| format!("could not look: {reason}");
    for (name, meaning) in [
        ("70_net_find_online_json", known(1_795_469_057, LIVING)),
        ("72_net_find_self", known(1_795_469_066, own)),
        ("73_net_find_killed_json", known(1_795_469_022, KILLED)),
        ("78_net_find_upper", known(1_795_469_057, LIVING)),
        ("97a_nat_net_find", known(1_795_471_177, RELAYED)),
        ("73e_net_find_purged", "NotKnown".to_owned()),
        ("74_net_find_never_json", "NotKnown".to_owned()),
        ("75_net_find_never_text", "NotKnown".to_owned()),
        ("71_net_find_online_text", could_not("malformed_answer")), // no --json
        ("76_net_find_malformed", could_not("malformed_answer")),
        ("77_net_find_no0x", could_not("malformed_answer")),
        ("79_net_find_noarg", could_not("net_error")),
        ("7i_net_find_daemon_down", could_not("yagna_unreachable")),
        ("7j_net_find_daemon_down_tcp", could_not("yagna_unreachable")),
        ("94a_net_find_relay_down_0s", could_not("timed_out")),
        ("94d_net_find_relay_down_25s", could_not("timed_out")),
        ("94f_net_find_relay_down_50s", could_not("timed_out")),
        ("95b_relay_main_rejects_0176_find", could_not("net_error")),
        ("7c_net_sessions_json", could_not("malformed_answer")),
    ] {
        assert_eq!(told(parse_find(&ended(name))), meaning, "{name}");
    }
}

#[test]
fn only_the_last_error_of_the_program_is_believed() {
    let not_known = "Error: Request failed: Request failed with code 404\n";
    for (exit_code, stderr, meaning) in [
        (Some(1), not_known.to_owned(), "NotKnown"),
        (Some(1), "Error: a\n\nCaused by:\n    failed with code 404".to_owned(), "NotKnown"),
        // Another code, another end, and words that are not the error's.
        (Some(2), not_known.to_owned(), "could not look: net_error"),
        (None, not_known.to_owned(), "could not look: net_error"),
        (Some(1), "[WARN] failed with code 404\n".to_owned(), "could not look: net_error"),
        (
            Some(1),
            "[WARN] failed with code 404\nError: no space left\n".to_owned(),
            "could not look: net_error",
        ),
        (Some(1), format!("{not_known}Error: something else\n"), "could not look: net_error"),
        (Some(1), "Error: failed with code 4041".to_owned(), "could not look: net_error"),
        (
            Some(1),
            "Error: code 404, timed out after 3000 ms".to_owned(),
            "could not look: timed_out",
        ),
        (Some(1), String::new(), "could not look: net_error"),
    ] {
        let found = parse_find(&failed(exit_code, &stderr));
        assert_eq!(told(found), meaning, "{exit_code:?} {stderr}");
    }
}

#[test]
fn answers_half_understood_are_none() {
    for stdout in [
        "",
        "{}",
        "[]",
        r#"{"seen":1795469057}"#,
        r#"{"seen":"2026-11-23 21:24:17"}"#,
        r#"{"seen":"now"}"#,
        r#"{"seen":"2026-11-23 21:24:17 UTC"} and more"#,
    ] {
        let stdout = stdout.as_bytes().to_vec();
        let ended = Ended { exit_code: Some(0), stdout, stderr: Vec::new() };
        assert_eq!(told(parse_find(&ended)), "could not look: malformed_answer", "{ended:?}");
    }
}

#[test]
fn the_session_with_the_relay() {
    let age = |name| told(parse_sessions(&ended(name)));
    assert_eq!(age("7c_net_sessions_json"), "Some(497s)");
    assert_eq!(age("94g_net_sessions_relay_down"), "None", "sessions with peers stand");
    assert_eq!(age("7i_net_find_daemon_down"), "could not look: yagna_unreachable");
    assert_eq!(age("70_net_find_online_json"), "could not look: malformed_answer");
    let of = |stdout: &str| {
        let stdout = stdout.as_bytes().to_vec();
        parse_sessions(&Ended { exit_code: Some(0), stdout, stderr: Vec::new() })
    };
    let two = r#"[{"type":"relay","time":"1h"},{"type":"relay","time":"5s"}]"#;
    assert_eq!(of(two), Ok(Some(Duration::from_secs(5))));
    assert_eq!(of("[]"), Ok(None));
    for bad in [r#"[{"type":"relay"}]"#, r#"[{"type":"relay","time":"long"}]"#, "{}", ""] {
        assert_eq!(told(of(bad)), "could not look: malformed_answer", "{bad}");
    }
}

/// Puts a text through every parser, in every place; they may refuse it, never panic.
pub(super) fn every_parser(text: &[u8]) {
    for (exit_code, stdout, stderr) in
        [(Some(0), text, &b""[..]), (Some(1), b"", text), (None, text, text)]
    {
        let (stdout, stderr) = (stdout.to_vec(), stderr.to_vec());
        let ended = Ended { exit_code, stdout, stderr };
        let _ = told(parse_find(&ended));
        let _ = told(parse_sessions(&ended));
    }
}

#[test]
fn every_recorded_run_goes_through_every_parser() {
    let mut runs = 0;
    for entry in std::fs::read_dir(directory()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let Some(number) = name.strip_suffix(".json") else {
            continue;
        };
        let path = directory().join(&name);
        let file: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        if file.get("stdout").and_then(Value::as_str).is_some() {
            let run = ended(number);
            let _ = told(parse_sessions(&run));
            // None is read as "not known" but those.
            let found = told(parse_find(&run)) == "NotKnown";
            let unknown = ["net_find_never", "net_find_purged"].iter().any(|it| name.contains(it));
            assert_eq!(found, unknown, "{name}");
            runs += 1;
        }
    }
    assert!(runs > 20, "{runs}");
}
