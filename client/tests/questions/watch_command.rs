//! `uptimectl watch` in a pipe.

use std::process::Stdio;
use std::sync::Arc;

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::Notify;
use tonic::Status;
use uptime_client::v1::watch_nodes_response::Event;
use uptime_client::v1::{self, Verdict};

use crate::contrary::{Contrary, Pieces, Script, only, then_silence};
use crate::help::run;
use crate::watching::word;
use crate::wire::Wire;
use crate::{DEADLINE, id};

fn changed(nodes: &[(u32, Verdict)]) -> Event {
    let node = |(number, verdict): &(u32, Verdict)| v1::Node {
        id: id(*number).to_string(),
        verdict: *verdict as i32,
        verdict_since_unix_s: 1_769_862_870,
        name: format!("\u{1b}[2Jn{number}"),
        ..v1::Node::default()
    };
    Event::Changed(v1::NodesChanged { nodes: nodes.iter().map(node).collect() })
}

fn synced() -> Event {
    Event::Synced(v1::Synced {})
}

/// Everything, a change; then an end, everything anew with what changed meanwhile, and one more.
fn script() -> Script {
    let resume = || Event::Resume(v1::Resume { detail: "too\u{7}slow".into() });
    Script {
        watch: Box::new(move |call, request| {
            assert!(request.filter.unwrap().include_retired);
            Ok(match (call, request.resume_token.as_ref()) {
                (0, b"") => only(vec![
                    Ok(word(changed(&[(1, Verdict::Up), (2, Verdict::Up)]), "a")),
                    Ok(word(changed(&[(3, Verdict::Up)]), "b")),
                    Ok(word(synced(), "c")),
                    Ok(word(changed(&[(1, Verdict::Down)]), "d")),
                ]),
                (1, b"d") => only(vec![Ok(word(resume(), ""))]),
                (2, b"") => then_silence(vec![
                    word(changed(&[(1, Verdict::Down), (2, Verdict::Unknown)]), "e"),
                    word(synced(), "f"),
                    word(changed(&[(1, Verdict::Up)]), "g"),
                    word(changed(&[(4, Verdict::Up)]), "h"),
                ]),
                other => panic!("unexpected {other:?}"),
            })
        }),
        ..Script::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_a_line_and_interruptions_cost_none() {
    let there = Contrary::start(script()).await;
    let ran = run(&["watch", "--count", "5", "--address", &there.url()]).await;
    assert_eq!(ran.status, 0, "{}", ran.err);
    let line = |number, what: &str| {
        let id = id(number);
        format!("2026-01-31 12:34:30 UTC  {id}  {what}  \\u{{1b}}[2Jn{number}\n")
    };
    let wanted = [
        line(1, "up -> down"),
        line(2, "up -> unknown"),
        line(3, "gone"),
        line(1, "down -> up"),
        line(4, "new, up"),
    ];
    assert_eq!(ran.out, wanted.concat());
    for words in [
        "watching 3 nodes, as of round 2026-01-31 12:34:30 UTC",
        "interrupted: the connection to",
        "starting over: too\\u{7}slow\n",
    ] {
        assert!(ran.err.contains(words), "{words}: {}", ran.err);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_are_for_programs_too() {
    let there = Contrary::start(script()).await;
    let url = there.url();
    let all = ["watch", "--initial", "--count", "4", "--output", "json", "--address", &url];
    let ran = run(&all).await;
    assert_eq!(ran.status, 0, "{}", ran.err);
    let lines: Vec<serde_json::Value> =
        ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let what: Vec<String> = lines.iter().map(|line| line["what"][0].to_string()).collect();
    assert_eq!(what, ["\"present\"", "\"present\"", "\"present\"", "\"verdict\""]);
    assert_eq!(lines[3]["was"], "up");
    assert_eq!(lines[3]["node"]["verdict"], "down");
    assert_eq!(lines[3]["node"]["name"], "\u{1b}[2Jn1");
    assert!(!ran.out.contains('\u{1b}'));

    let there = Contrary::start(script()).await;
    let ran = run(&["watch", "--count", "1", "--output", "csv", "--address", &there.url()]).await;
    let rows: Vec<&str> = ran.out.lines().collect();
    assert!(rows[0].starts_with("at_unix_s,what,was,id,name,is_online,verdict,"), "{}", rows[0]);
    assert!(rows[1].starts_with("1769862870,verdict,up,0x"), "{}", rows[1]);
    assert_eq!(rows.len(), 2);

    let there = Contrary::start(script()).await;
    let (second, url) = (id(2).to_string(), there.url());
    let ran = run(&["watch", &second, "--count", "1", "--address", &url]).await;
    assert!(ran.out.contains("up -> unknown") && ran.out.lines().count() == 1, "{}", ran.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_cannot_begin_fails() {
    let script = Script {
        watch: Box::new(|_, _| Err(Status::invalid_argument("filter.name_contains: too long"))),
        ..Script::default()
    };
    let there = Contrary::start(script).await;
    let ran = run(&["watch", "--address", &there.url()]).await;
    assert_eq!((ran.status, ran.out.as_str()), (1, ""));
    assert!(ran.err.contains("filter.name_contains: too long"), "{}", ran.err);
}

/// A watch as a process of its own.
fn spawn(url: &str) -> (Child, Lines<BufReader<ChildStdout>>) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_uptimectl"))
        .args(["watch", "--address", url])
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    (child, lines)
}

async fn line(lines: &mut Lines<BufReader<ChildStdout>>) -> String {
    let line = tokio::time::timeout(DEADLINE, lines.next_line()).await.expect("a line in time");
    line.unwrap().expect("the watch goes on")
}

/// Tells one change after each notice, whatever the token.
fn on_notice(notice: &Arc<Notify>) -> Script {
    let notice = Arc::clone(notice);
    Script {
        watch: Box::new(move |_, request| {
            let notice = Arc::clone(&notice);
            let from = match request.resume_token.as_ref() {
                b"" => 0,
                token => std::str::from_utf8(token).unwrap().parse::<u32>().unwrap(),
            };
            let first: Vec<v1::WatchNodesResponse> = match from {
                0 => vec![word(changed(&[(1, Verdict::Up)]), "0"), word(synced(), "1")],
                _ => Vec::new(),
            };
            let later = futures_util::stream::unfold(from.max(1), move |at| {
                let notice = Arc::clone(&notice);
                async move {
                    notice.notified().await;
                    let verdict = if at % 2 == 1 { Verdict::Down } else { Verdict::Up };
                    let next = at + 1;
                    Some((Ok(word(changed(&[(1, verdict)]), &next.to_string())), next))
                }
            });
            let first = tokio_stream::iter(first.into_iter().map(Ok));
            let all: Pieces<_> = Box::pin(tokio_stream::StreamExt::chain(first, later));
            Ok(all)
        }),
        ..Script::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_whose_line_is_cut_goes_on_and_ends_when_nobody_reads() {
    let notice = Arc::new(Notify::new());
    let there = Contrary::start(on_notice(&notice)).await;
    let wire = Wire::to(there.address).await;
    let (mut child, mut lines) = spawn(&wire.url());
    notice.notify_one();
    assert!(line(&mut lines).await.contains("up -> down"));
    wire.cut();
    // Whoever waits at the old end of the line takes no notice of ours: it has gone.
    let mut again = tokio::time::interval(std::time::Duration::from_millis(50));
    let heard = loop {
        tokio::select! {
            heard = line(&mut lines) => break heard,
            _ = again.tick() => if there.calls() > 1 { notice.notify_one() },
        }
    };
    assert!(heard.contains("down -> up"), "{heard}");
    drop(lines);
    let ended = loop {
        notice.notify_one();
        tokio::select! {
            ended = child.wait() => break ended.unwrap(),
            _ = again.tick() => {}
        }
    };
    assert_eq!(ended.code(), Some(0));
}
