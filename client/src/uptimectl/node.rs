//! `node`: everything about one node, in words its provider understands.

use anyhow::Result;
use serde::Serialize;
use uptime_client::v1::{self, Freshness, Verdict};
use uptime_client::{Answer, Client, Error};

use crate::args::{NodeArgs, Output};
use crate::explain::start_of;
use crate::fresh::{self, FreshnessRecord, ago_s};
use crate::nodes::{self, NodeRecord, verdict_colour, verdict_text};
use crate::output::{self, Reply};
use crate::screen::{Colour, Screen};
use crate::text::{clean, counted, number, percent, second, span, stamp};

/// With `--exit-status`: the node is down.
const EXIT_DOWN: u8 = 3;
/// With `--exit-status`: whether it is up cannot be told.
const EXIT_CANNOT_TELL: u8 = 4;
/// Where values begin.
const INDENT: usize = 12;

#[derive(Serialize)]
struct NodeDocument {
    freshness: FreshnessRecord,
    /// Of a node as it was: when which round was closed.
    #[serde(skip_serializing_if = "Option::is_none")]
    round_unix_s: Option<u64>,
    node: NodeRecord,
}

/// Answers `node`.
pub(crate) async fn reply(client: &Client, args: &NodeArgs, screen: &Screen) -> Result<Reply> {
    let round_unix_s = start_of(client, args.round).await?;
    let answer = match round_unix_s {
        None => client.node(&args.id).await,
        Some(round_unix_s) => client.node_at(&args.id, round_unix_s).await,
    };
    let Answer { value: node, freshness } = match answer {
        Err(Error::NotFound(detail)) if args.exit_status => {
            let reply = Reply::of_our_own(String::new());
            let note = Some(format!("uptimectl: {}", clean(&detail)));
            return Ok(Reply { status: EXIT_CANNOT_TELL, ..reply.note(note) });
        }
        answer => answer?,
    };
    let is_old = round_unix_s.is_none() && fresh::warning(&freshness).is_some();
    let status = if args.exit_status { exit_status(&node, is_old) } else { 0 };
    let text = match args.how.output {
        Output::Table => words(&node, round_unix_s, &freshness, screen),
        Output::Json => {
            let record = FreshnessRecord::from(&freshness);
            output::json(&NodeDocument { freshness: record, round_unix_s, node: node.into() })?
        }
        Output::Csv => nodes::csv(vec![node])?,
    };
    let says_freshness = args.how.output == Output::Table;
    Ok(Reply { says_freshness, status, ..Reply::new(text, freshness) })
}

/// What scripts are told. A node that was retired showed no life for a month; and of rounds long
/// ago nobody wants to hear that it was up in them.
fn exit_status(node: &v1::Node, is_old: bool) -> u8 {
    if is_old {
        return EXIT_CANNOT_TELL;
    }
    match node.verdict() {
        _ if node.retired => EXIT_DOWN,
        Verdict::Up => 0,
        Verdict::Down => EXIT_DOWN,
        Verdict::Unknown | Verdict::Unspecified => EXIT_CANNOT_TELL,
    }
}

/// Why the verdict is what it is, as far as one answer can say.
fn why(node: &v1::Node) -> &'static [&'static str] {
    let decided = node.all.as_ref().is_some_and(|all| all.up_rounds + all.down_rounds > 0);
    match node.verdict() {
        _ if node.retired => &[
            "It showed no life for so long that it is looked up no more.",
            "A new offer on the market brings it back.",
        ],
        Verdict::Up => &[
            "In the last closed round there was proof of life: the relay had just",
            "seen it, or it answered a probe itself.",
        ],
        Verdict::Down => &[
            "In the last closed round most probes that looked found it unreachable:",
            "the relay had not seen it lately, and it answered no direct question.",
            "Check that its daemon runs and has a session with the relay.",
        ],
        Verdict::Unknown | Verdict::Unspecified if decided => &[
            "In the last closed round too few probes could tell, which says nothing",
            "about it. It is shown as it last was; unknown time does not count.",
        ],
        Verdict::Unknown | Verdict::Unspecified => &[
            "No probe could tell yet. Until one can, it is not shown as online, and",
            "unknown time does not count.",
        ],
    }
}

/// The node now, or as it was when a round was closed.
fn words(node: &v1::Node, round_unix_s: Option<u64>, fresh: &Freshness, screen: &Screen) -> String {
    let at = |unix_s: u64| format!("{}, {} ago", stamp(unix_s), span(ago_s(fresh, unix_s)));
    let all = node.all.unwrap_or_default();
    let never_decided = node.verdict() == Verdict::Unknown && node.state_since_unix_s == 0;
    let (online, colour) = match node.is_online {
        true => ("up", Colour::Green),
        false if never_decided => ("unknown", Colour::Yellow),
        false => ("down", Colour::Red),
    };
    let mut verdict =
        screen.paint(verdict_text(node.verdict()), Some(verdict_colour(node.verdict())));
    let since = nodes::since_s(node);
    if since > 0 {
        verdict += &match (round_unix_s, node.all.and_then(|all| all.window)) {
            (Some(_), Some(all)) => {
                let by_then_s = all.to_unix_s.saturating_sub(since);
                format!(" since round {}, for {} by then", stamp(since), span(by_then_s))
            }
            _ => format!(" since round {}, for {}", stamp(since), span(ago_s(fresh, since))),
        };
    }
    let before = nodes::before(node);
    if before.is_none() {
        verdict += &nodes::between(node);
    }
    let mut text = screen.paint(&clean(&node.id), Some(Colour::Bold));
    if !node.name.is_empty() {
        text += &format!("  {}", clean(&node.name));
    }
    text.push('\n');
    let mut line = |title: &str, value: &str| {
        if !value.is_empty() {
            text += &format!("{title:<INDENT$}{value}\n");
        }
    };
    line("Last known", &screen.paint(online, Some(colour)));
    line("Verdict", &verdict);
    line("", &before.unwrap_or_default());
    let reasons = if round_unix_s.is_none() { why(node) } else { &[] };
    for reason in reasons {
        line("", reason);
    }
    if !node.retired && node.verdict() != Verdict::Up {
        let round = round_unix_s.map_or_else(String::new, |round_s| format!(" {round_s}"));
        line("", &format!("Why: uptimectl explain {}{round}", clean(&node.id)));
    }
    if node.flapping {
        line("Flapping", "its verdict changed often of late");
    }
    let seen = node.last_seen_unix_ms.map(|ms| at(second(ms)));
    line("Last seen", seen.as_deref().unwrap_or("never: no proof of life yet"));
    line("Uptime", &uptime(&all));
    line("Coverage", &coverage(&all));
    line("First seen", &at(node.first_seen_unix_s));
    line("Subnets", &clean(&node.subnets.join(", ")));
    line("Runtime", &clean(format!("{} {}", node.runtime, node.runtime_version).trim()));
    line("Networks", &clean(&node.networks.join(", ")));
    let round_trip = node.round_trip_us.map(|us| format!("{}.{} ms", us / 1000, us % 1000 / 100));
    line("Round trip", &round_trip.unwrap_or_default());
    let as_of = match round_unix_s {
        None => fresh::words(fresh),
        Some(round_s) => {
            format!("the close of round {}, by what is known now", stamp(round_s))
        }
    };
    line("As of", &as_of);
    text
}

fn uptime(all: &v1::UptimeFigures) -> String {
    if all.uptime_percent.is_none() {
        return "not known: no round was decided yet".to_owned();
    }
    format!(
        "{} of the time that was decided ({} up, {} down)",
        percent(all.uptime_percent),
        counted(all.up_rounds, "round"),
        number(all.down_rounds)
    )
}

fn coverage(all: &v1::UptimeFigures) -> String {
    if all.coverage_percent.is_none() {
        return "not known: no round has closed since it was first seen".to_owned();
    }
    format!(
        "{} of the time since first seen was decided ({} unknown)",
        percent(all.coverage_percent),
        counted(all.unknown_rounds, "round")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fresh::tests::fresh;
    use crate::nodes::tests::node;

    const PIPE: Screen = Screen { width: None, colours: false };

    fn said(node: &v1::Node) -> String {
        words(node, None, &fresh(), &PIPE)
    }

    #[test]
    fn one_as_it_was() {
        let window = v1::Window { from_unix_s: 1_767_250_800, to_unix_s: 1_769_861_100 };
        let all = v1::UptimeFigures { window: Some(window), ..node().all.unwrap_or_default() };
        let then = v1::Node {
            all: Some(all),
            verdict: Verdict::Down as i32,
            is_online: false,
            round_trip_us: None,
            ..node()
        };
        let text = "\
0x85f06344fde97d390e87b0840b0325212f26eba7  a-node-with-a-long-name
Last known  down
Verdict     down since round 2026-01-31 12:00:00 UTC, for 5 min by then
            Why: uptimectl explain 0x85f06344fde97d390e87b0840b0325212f26eba7 1769861070
Last seen   2026-01-31 12:34:56 UTC, 11 s ago
Uptime      98.53 % of the time that was decided (1,234 rounds up, 18 down)
Coverage    99.50 % of the time since first seen was decided (6 rounds unknown)
First seen  2026-01-01 07:00:00 UTC, 30 d 5 h ago
Subnets     public
Runtime     vm 0.4.1
Networks    holesky, polygon
As of       the close of round 2026-01-31 12:04:30 UTC, by what is known now
";
        assert_eq!(words(&then, Some(1_769_861_070), &fresh(), &PIPE), text);
    }

    #[test]
    fn one_that_is_up() {
        let text = "\
0x85f06344fde97d390e87b0840b0325212f26eba7  a-node-with-a-long-name
Last known  up
Verdict     up since round 2026-01-31 12:00:00 UTC, for 35 min 7 s
            In the last closed round there was proof of life: the relay had just
            seen it, or it answered a probe itself.
Last seen   2026-01-31 12:34:56 UTC, 11 s ago
Uptime      98.53 % of the time that was decided (1,234 rounds up, 18 down)
Coverage    99.50 % of the time since first seen was decided (6 rounds unknown)
First seen  2026-01-01 07:00:00 UTC, 30 d 5 h ago
Subnets     public
Runtime     vm 0.4.1
Networks    holesky, polygon
Round trip  12.3 ms
As of       round 2026-01-31 12:34:30 UTC, ended 7 s ago, fresh-v1
";
        assert_eq!(said(&node()), text);
    }

    #[test]
    fn one_that_is_down_and_flaps() {
        let down =
            v1::Node { verdict: Verdict::Down as i32, is_online: false, flapping: true, ..node() };
        let text = said(&down);
        assert!(text.contains("Last known  down\nVerdict     down since round"), "{text}");
        assert!(text.contains("it answered no direct question.\n"), "{text}");
        assert!(text.contains("Flapping    its verdict changed often of late\n"), "{text}");
        assert!(said(&v1::Node { retired: true, ..down }).contains("looked up no more"));
    }

    #[test]
    fn an_unknown_round_begins_nothing_anew() {
        let up =
            v1::Node { verdict_since_unix_s: 1_769_862_870, state_unknown_rounds: 1, ..node() };
        let text = said(&up);
        let wanted = "Verdict     up since round 2026-01-31 12:00:00 UTC, for 35 min 7 s, 1 round \
                      unknown in between\n";
        assert!(text.contains(wanted), "{text}");
        // An older aggregator says no more than since when the verdict stands.
        let older = v1::Node { state_since_unix_s: 0, state_unknown_rounds: 0, ..up };
        assert!(said(&older).contains("up since round 2026-01-31 12:34:30 UTC, for 37 s\n"));
    }

    #[test]
    fn unknown_is_not_down() {
        let unknown = v1::Node { verdict: Verdict::Unknown as i32, ..node() };
        let text = said(&unknown);
        assert!(text.contains("Last known  up\nVerdict     unknown since round"), "{text}");
        assert!(
            text.contains("            before that up since 2026-01-31 12:00:00 UTC\n"),
            "{text}"
        );
        assert!(text.contains("It is shown as it last was"), "{text}");
        let never = v1::Node {
            is_online: false,
            verdict_since_unix_s: 0,
            state_since_unix_s: 0,
            last_seen_unix_ms: None,
            all: None,
            ..unknown
        };
        let text = said(&never);
        assert!(text.contains("Last known  unknown\nVerdict     unknown\n"), "{text}");
        assert!(text.contains("Last seen   never: no proof of life yet\n"), "{text}");
        assert!(text.contains("Uptime      not known: no round was decided yet\n"), "{text}");
    }

    #[test]
    fn scripts_can_tell_down_from_unknown_and_from_stale() {
        let status = |verdict: Verdict, retired, late_s: i64| {
            let node = v1::Node { verdict: verdict as i32, retired, ..node() };
            let answered_at_unix_ms = fresh().answered_at_unix_ms + late_s * 1000;
            let fresh = Freshness { answered_at_unix_ms, ..fresh() };
            exit_status(&node, fresh::warning(&fresh).is_some())
        };
        assert_eq!(status(Verdict::Up, false, 0), 0);
        assert_eq!(status(Verdict::Down, false, 0), 3);
        assert_eq!(status(Verdict::Unknown, true, 0), 3);
        assert_eq!(status(Verdict::Unknown, false, 0), 4);
        assert_eq!(status(Verdict::Unspecified, false, 0), 4);
        assert_eq!(status(Verdict::Up, false, 3_600), 4);
        assert_eq!(status(Verdict::Down, false, 3_600), 4);
    }

    #[test]
    fn lines_of_ours_fit_eighty_columns_and_foreign_texts_do_no_harm() {
        let verdicts = [Verdict::Up, Verdict::Down, Verdict::Unknown, Verdict::Unspecified];
        for verdict in verdicts {
            let node =
                v1::Node { verdict: verdict as i32, name: "\u{1b}]0;\u{7}".into(), ..node() };
            let text = said(&node);
            assert!(text.lines().all(|line| line.chars().count() < 88), "{text}");
            assert!(text.lines().filter(|line| line.starts_with(' ')).all(|l| l.len() <= 84));
            assert!(!text.contains('\u{1b}') && !text.contains('\u{7}'), "{text}");
        }
    }
}
