//! `/`: the network at a glance, the last rounds, the probes, and the table of nodes.
//!
//! Owns the words and the order of the page. Its numbers are the snapshot's.

use std::fmt::Write;
use std::sync::Arc;

use uptime_accounting::evidence::ProbeRound;
use uptime_accounting::probe_status::ProbeStatus;
use uptime_accounting::state::RoundSummary;
use uptime_accounting::uptime::Tally;
use uptime_proto::clock::ClockState;
use uptime_proto::words::{counted, gave_errors, ineligibility, reason};

use super::chart::{Bar, Column, Columns, Counts, time};
use super::escape::Escaped;
use super::layout::Layout;
use super::listing::{Listings, Wanted};
use super::table;
use super::time_format::{age_s, count, ends, length, percent, stamp};
use crate::clock::Judged;
use crate::engine::Snapshot;

/// Probes shown; the API has them all.
const PROBES_SHOWN_MAX: usize = 100;
/// Units of a round's column.
const ROUND_WIDE: u64 = 10;

/// The page.
pub(super) fn page(
    snapshot: &Snapshot,
    listings: &Listings,
    wanted: &Wanted,
    now_ms: i64,
    clock: &Judged,
) -> String {
    let listed = listings.page(snapshot, wanted);
    let mut html = String::with_capacity(64 * 1024);
    html.push_str("<div data-part=\"live\" class=\"live\">\n");
    unsure(&mut html, clock);
    stale(&mut html, snapshot, now_ms);
    now(&mut html, snapshot, listed.retired, now_ms);
    rounds(&mut html, snapshot);
    probes(&mut html, snapshot, now_ms);
    html.push_str("</div>\n");
    table::section(&mut html, snapshot, &listed, wanted, now_ms);
    let every_s = snapshot.epochs.at(snapshot.closed_end_s()).period.seconds().max(10);
    Layout { title: "Overview", every_s }.around(&html)
}

/// Warns while the aggregator's clock is not sure.
fn unsure(html: &mut String, clock: &Judged) {
    let means = match clock.state {
        ClockState::Sure => return,
        ClockState::Doubtful => "The aggregator deletes nothing until its clock is sure.",
        ClockState::Wrong => {
            "Rounds close by the last trusted time, if there is one. The aggregator deletes \
             nothing until its clock is sure."
        }
    };
    // Writing to a String cannot fail.
    writeln!(
        html,
        "<p class=\"note\" role=\"status\"><strong>The clock of the aggregator is {}:</strong> {}. \
         {means}</p>",
        clock.state.as_str(),
        Escaped(&clock.why),
    )
    .ok();
}

/// When the round after the last closed one should be closed, a period of patience included.
pub(super) fn late_ms(snapshot: &Snapshot) -> Option<i64> {
    let epochs = &snapshot.epochs;
    let next = epochs.next(snapshot.closed?);
    Some(epochs.at(next.start_s()).closes_at_ms(next) + next.period().millis())
}

/// Warns while nothing is known, or when what is known is old.
pub(super) fn stale(html: &mut String, snapshot: &Snapshot, now_ms: i64) {
    // After a start the recent rounds may be unknown while the verdicts are known.
    let is_empty = snapshot.rounds.is_empty() && snapshot.confirmed.is_empty();
    let Some(closed) = snapshot.closed.filter(|_| !is_empty) else {
        html.push_str(
            "<p class=\"note\" role=\"status\"><strong>No round has closed yet.</strong> The first \
             round closes when its time is over and a probe has reported.</p>\n",
        );
        return;
    };
    if late_ms(snapshot).is_some_and(|late_ms| now_ms > late_ms) {
        // Writing to a String cannot fail.
        writeln!(
            html,
            "<p class=\"note\" role=\"alert\"><strong>This is old.</strong> The last closed \
             round ended {} ago, at {}. This page shows what was known then.</p>",
            length(age_s(closed.end_ms(), now_ms)),
            time(closed.end_s()),
        )
        .ok();
    }
}

fn counts_of(round: &RoundSummary) -> Counts {
    Counts { up: round.up, down: round.down, unknown: round.unknown }
}

/// The share of nodes that could be decided on: the formula of coverage, with nodes for seconds.
fn coverage(counts: Counts) -> Option<f64> {
    let Counts { up, down, unknown } = counts;
    Tally { up_s: up, down_s: down, unknown_s: unknown, ..Tally::default() }.coverage_percent()
}

fn now(html: &mut String, snapshot: &Snapshot, retired: usize, now_ms: i64) {
    html.push_str(
        "<section class=\"card\" aria-labelledby=\"now\"><h1 id=\"now\">Which providers are \
                   up?</h1>\n",
    );
    let (Some(closed), Some(last)) = (snapshot.closed, snapshot.rounds.last()) else {
        html.push_str("<p>No recent round to show.</p></section>\n");
        return;
    };
    let counts = counts_of(last);
    let healthy =
        snapshot.probes.iter().filter(|probe| health(probe, snapshot, now_ms).is_working()).count();
    let enrolled = snapshot.probes.iter().filter(|probe| !probe.revoked).count();
    let mut known = format!("of {} known nodes", count(counts.total()));
    if retired > 0 {
        // Writing to a String cannot fail.
        write!(known, ", {} of them retired", count(retired as u64)).ok();
    }
    let tiles = [
        ("is-up", "Up", count(counts.up), String::new()),
        ("is-down", "Down", count(counts.down), String::new()),
        ("is-unknown", "Unknown", count(counts.unknown), String::new()),
        ("", "Coverage", percent(coverage(counts)), known),
        ("", "Probes", format!("{healthy} of {enrolled}"), "are working".to_owned()),
    ];
    html.push_str("<p class=\"soft\">As of the last closed round, ");
    write!(
        html,
        "which lasted {} and ended {} ago at {}.</p>\n<dl class=\"tiles\">",
        length(u64::from(closed.period().seconds())),
        length(age_s(closed.end_ms(), now_ms)),
        time(closed.end_s()),
    )
    .ok();
    for (class, name, value, small) in tiles {
        write!(html, "<div><dt>{name}</dt><dd class=\"{class}\">{value}").ok();
        if !small.is_empty() {
            write!(html, "<small>{small}</small>").ok();
        }
        html.push_str("</dd></div>");
    }
    let title = format!("{} up, {} down, {} unknown", counts.up, counts.down, counts.unknown);
    write!(html, "</dl>\n{}</section>\n", Bar { counts, title: &title }).ok();
}

fn range(rounds: &[Arc<RoundSummary>], of: impl Fn(&RoundSummary) -> u64) -> String {
    let all = || rounds.iter().map(|round| of(round));
    let (low, high) = (all().min().unwrap_or(0), all().max().unwrap_or(0));
    if low == high { count(low) } else { format!("{} to {}", count(low), count(high)) }
}

fn rounds(html: &mut String, snapshot: &Snapshot) {
    let rounds = &snapshot.rounds;
    let (Some(first), Some(last)) = (rounds.first(), rounds.last()) else { return };
    let columns: Vec<Column> = (0..)
        .zip(rounds)
        .map(|(place, round)| Column {
            x: place * ROUND_WIDE,
            width: ROUND_WIDE,
            counts: counts_of(round),
            title: format!(
                "{}: {} up, {} down, {} unknown; {} of {} probes eligible",
                stamp(round.round.start_s()),
                count(round.up),
                count(round.down),
                count(round.unknown),
                round.probes.values().filter(|probe| probe.ballot.eligible).count(),
                round.probes.len(),
            ),
        })
        .collect();
    let title = format!(
        "{}: up {}, down {}, unknown {}",
        last_rounds(rounds.len()),
        range(rounds, |round| round.up),
        range(rounds, |round| round.down),
        range(rounds, |round| round.unknown)
    );
    let width = ROUND_WIDE * rounds.len() as u64;
    let (began, ended) = ends(first.round.start_s(), last.round.end_s());
    let plot = Columns { class: "rounds", width, gap: 1, title: &title, columns: &columns };
    write!(
        html,
        "<section class=\"card\" aria-labelledby=\"rounds\"><h2 id=\"rounds\">{}</h2>\n\
         <figure>{plot}<div class=\"axis\"><span>{}</span><span>{}</span></div>\n\
         <figcaption><span class=\"legend\"><span class=\"key k-up\">up {}</span>\
         <span class=\"key\">unknown {}</span><span class=\"key k-down\">down {}</span></span>\
         </figcaption></figure></section>\n",
        last_rounds(rounds.len()),
        began,
        ended,
        range(rounds, |round| round.up),
        range(rounds, |round| round.unknown),
        range(rounds, |round| round.down),
    )
    .ok();
}

fn last_rounds(count: usize) -> String {
    if count == 1 { "The last round".to_owned() } else { format!("The last {count} rounds") }
}

/// How a probe is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Health {
    Working,
    /// Why it could not look everywhere, or why its word does not count; needs no escaping.
    Limited(String),
    /// Neither connected nor heard of for a round; how long it has been silent.
    Offline(String),
    Revoked,
}

impl Health {
    fn is_working(&self) -> bool {
        *self == Self::Working
    }
}

fn health(probe: &ProbeStatus, snapshot: &Snapshot, now_ms: i64) -> Health {
    if probe.revoked {
        return Health::Revoked;
    }
    let round = snapshot.rounds.last().and_then(|last| last.probes.get(&probe.number));
    let silent_s = probe.last_report_ms.map(|ms| age_s(ms, now_ms));
    let period_s = u64::from(snapshot.epochs.at(snapshot.closed_end_s()).period.seconds());
    // A probe may report without staying connected, once in each round.
    if !probe.connected && (round.is_none() || silent_s.is_none_or(|age_s| age_s > period_s)) {
        let silent = |age_s| format!("no report for {}", length(age_s));
        return Health::Offline(silent_s.map_or_else(|| "no report yet".to_owned(), silent));
    }
    let Some(round) = round else {
        return Health::Limited("connected, but no report for the last round".to_owned());
    };
    // Errors about single nodes are shown beside: they do not limit the probe.
    let mut faults: Vec<&str> = round.could_not_look.iter().map(|why| reason(*why)).collect();
    faults.extend(round.ineligibilities.iter().map(|why| ineligibility(why.to_wire())));
    if faults.is_empty() { Health::Working } else { Health::Limited(faults.join("; ")) }
}

fn probes(html: &mut String, snapshot: &Snapshot, now_ms: i64) {
    html.push_str(
        "<section class=\"card\" aria-labelledby=\"probes\"><h2 id=\"probes\">Probes</h2>\n",
    );
    if snapshot.probes.is_empty() {
        html.push_str(
            "<p>There are no probes. <code>uptime-aggregator probe add NAME</code> adds one.</p>\
             </section>\n",
        );
        return;
    }
    html.push_str(
        "<div class=\"scroll\"><table><caption>What each probe did in the last round</caption>\
         <thead><tr><th scope=\"col\">Name</th><th scope=\"col\">State</th>\
         <th scope=\"col\" class=\"wide\">Recent rounds</th>\
         <th scope=\"col\" class=\"n\">Last report</th>\
         <th scope=\"col\" class=\"n wide\">Offers</th><th scope=\"col\" class=\"n wide\">Looked \
         up</th>\
         <th scope=\"col\" class=\"n wide\">Found</th></tr></thead><tbody>\n",
    );
    for status in snapshot.probes.iter().take(PROBES_SHOWN_MAX) {
        probe(html, snapshot, status, now_ms);
    }
    html.push_str("</tbody></table></div>");
    if snapshot.probes.len() > PROBES_SHOWN_MAX {
        write!(
            html,
            "<p class=\"soft small\">The first {PROBES_SHOWN_MAX} of {}; \
             <a href=\"/api/v1/probes\">all of them as JSON</a>.</p>",
            snapshot.probes.len()
        )
        .ok();
    }
    html.push_str("</section>\n");
}

fn probe(html: &mut String, snapshot: &Snapshot, status: &ProbeStatus, now_ms: i64) {
    let last = snapshot.rounds.last();
    let round: Option<&ProbeRound> = last.and_then(|last| last.probes.get(&status.number));
    let (class, word, mut why) = match health(status, snapshot, now_ms) {
        Health::Working => ("is-up", "working", String::new()),
        Health::Revoked => ("is-unknown", "revoked", String::new()),
        Health::Limited(why) => ("is-down", "limited", why),
        Health::Offline(why) => ("is-down", "offline", why),
    };
    if let Some(round) = round.filter(|round| round.failed_nodes > 0) {
        let gap = if why.is_empty() { "" } else { "; " };
        // Writing to a String cannot fail.
        write!(why, "{gap}{}", gave_errors(round.failed_nodes)).ok();
    }
    let report = status
        .last_report_ms
        .map_or_else(|| "never".to_owned(), |ms| format!("{} ago", length(age_s(ms, now_ms))));
    // The last one; the API has some more.
    let gap = status.gaps.last().map_or_else(String::new, |gap| {
        format!(
            "<br><span class=\"small soft\">No report for {}, until {}: {}</span>",
            length(gap.to_s.saturating_sub(gap.from_s)),
            time(gap.to_s),
            reason(gap.reason)
        )
    });
    let (offers, looked, found) =
        round.map_or((0, 0, 0), |round| (round.offers, round.tallied.looked, round.tallied.found));
    writeln!(
        html,
        "<tr><th scope=\"row\"><bdi>{}</bdi></th><td><span class=\"state {class}\">{word}</span> \
         <span class=\"small soft\">{why}</span>{gap}</td><td class=\"wide\">{}</td>\
         <td class=\"n\">{report}</td><td class=\"n wide\">{}</td>\
         <td class=\"n wide\">{}</td><td class=\"n wide\">{}</td></tr>",
        Escaped(&status.name),
        history(snapshot, status),
        count(offers),
        count(looked),
        count(found)
    )
    .ok();
}

/// A probe's recent rounds as a plot: in each it was counted, not counted, or did not report.
fn history(snapshot: &Snapshot, status: &ProbeStatus) -> String {
    let mut well = 0;
    let mut columns: Vec<Column> = Vec::new();
    for (place, round) in (0..).zip(&snapshot.rounds) {
        let counts = match round.probes.get(&status.number) {
            None => Counts::default(),
            Some(there) if there.ballot.eligible => {
                well += 1;
                Counts { up: 1, ..Counts::default() }
            }
            Some(_) => Counts { down: 1, ..Counts::default() },
        };
        // Alike side by side is one piece.
        match columns.last_mut() {
            Some(before) if before.counts == counts => before.width += ROUND_WIDE,
            _ => {
                let (x, title) = (place * ROUND_WIDE, String::new());
                columns.push(Column { x, width: ROUND_WIDE, counts, title });
            }
        }
    }
    for column in &mut columns {
        let word = match column.counts {
            Counts { up: 1, .. } => "counted",
            Counts { down: 1, .. } => "not counted",
            _ => "no report",
        };
        column.title = format!("{word}, {}", counted(column.width / ROUND_WIDE, "round"));
    }
    let title = format!("counted in {well} of {}", counted(snapshot.rounds.len() as u64, "round"));
    let width = ROUND_WIDE * snapshot.rounds.len().max(1) as u64;
    Columns { class: "probe", width, gap: 0, title: &title, columns: &columns }.to_string()
}
