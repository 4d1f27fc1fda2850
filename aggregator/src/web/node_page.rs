//! `/nodes/{id}`: one node: its state, 90 days of history, its outages, and why it has its verdict.
//!
//! Owns the words and the order of the page. Numbers come from the snapshot, the node's details and
//! the account of the last round from the query service; foreign text goes through `escape`.

use std::fmt::Write;

use uptime_accounting::outage::Outage;
use uptime_accounting::snapshot::NodeView;
use uptime_accounting::uptime::Tally;
use uptime_proto::v1;
use uptime_proto::words::counted;

use super::chart::{Counts, Day, Gauge, Length, Strip, days, time};
use super::escape::Escaped;
use super::layout::Layout;
use super::listing::{State, state_of};
use super::overview::stale;
use super::table::{ago, state};
use super::time_format::{clock_time, date, length, percent};
use super::words;
use crate::engine::Snapshot;

const DAY_S: u64 = 86_400;
const HOUR_S: u64 = 3_600;
/// Days on the strip.
const DAYS: u64 = 90;
/// Outages shown, the last ones; the API has them all.
const OUTAGES_SHOWN_MAX: usize = 25;
/// Subnets and networks shown.
const NAMES_SHOWN_MAX: usize = 8;

/// The windows that have names.
const WINDOWS: [(&str, u64); 4] =
    [("24 hours", DAY_S), ("7 days", 7 * DAY_S), ("30 days", 30 * DAY_S), ("90 days", 90 * DAY_S)];

/// What the page needs besides the snapshot.
pub(super) struct Told {
    /// The node as the query service answers.
    pub(super) node: v1::Node,
    /// The account of the last closed round; a sentence where there is none.
    pub(super) account: Result<v1::ExplainResponse, &'static str>,
    pub(super) now_ms: i64,
}

/// The page of a node that the snapshot has.
pub(super) fn page(snapshot: &Snapshot, view: &NodeView<'_>, told: &Told) -> String {
    let mut html = String::with_capacity(48 * 1024);
    stale(&mut html, snapshot, told.now_ms);
    head(&mut html, snapshot, view, told);
    ninety_days(&mut html, snapshot, view);
    last_day(&mut html, snapshot, view);
    outages(&mut html, snapshot, view);
    why(&mut html, snapshot, view, told);
    let name = if told.node.name.trim().is_empty() { &told.node.id } else { &told.node.name };
    Layout { title: name, every_s: 0 }.around(&html)
}

fn names<'a>(all: impl ExactSizeIterator<Item = &'a str>) -> String {
    let count = all.len();
    let mut html = String::new();
    for (place, name) in all.take(NAMES_SHOWN_MAX).enumerate() {
        let gap = if place > 0 { ", " } else { "" };
        // Writing to a String cannot fail.
        write!(html, "{gap}<bdi>{}</bdi>", Escaped(name)).ok();
    }
    if count > NAMES_SHOWN_MAX {
        write!(html, " and {} more", count - NAMES_SHOWN_MAX).ok();
    }
    if count == 0 { "–".to_owned() } else { html }
}

/// Since when it has its state. Unknown rounds do not end a stretch of up or down.
fn since(snapshot: &Snapshot, view: &NodeView<'_>) -> String {
    let of = |start_s: u64| {
        let stood_s = snapshot.closed_end_s().saturating_sub(start_s);
        format!("since {} ({})", time(start_s), length(stood_s))
    };
    let between = match view.state_unknown_rounds {
        0 => String::new(),
        rounds => format!(", {} unknown in between", counted(rounds, "round")),
    };
    let before = if view.is_online { "up" } else { "down" };
    match state_of(view) {
        State::Retired => "no sign of life for so long that probes no longer look it up".to_owned(),
        _ if view.state_since_s == 0 => "no round has been decided yet".to_owned(),
        State::Unknown => format!(
            "{}; before that {before} since {}{between}",
            of(view.verdict_since_s),
            time(view.state_since_s)
        ),
        State::Up | State::Down => of(view.state_since_s) + &between,
    }
}

fn head(html: &mut String, snapshot: &Snapshot, view: &NodeView<'_>, told: &Told) {
    let node = &told.node;
    let name = if node.name.trim().is_empty() { "Node without a name" } else { &node.name };
    let since = since(snapshot, view);
    write!(
        html,
        "<section class=\"card\" aria-labelledby=\"node\"><h1 id=\"node\"><bdi>{}</bdi></h1>\n\
         <p><code>{}</code></p>\n<p>{} <span class=\"soft\">{since}</span></p>\n",
        Escaped(name),
        view.id,
        state(state_of(view), view.flapping),
    )
    .ok();
    windows(html, snapshot, view);
    let runtime = format!("{} {}", node.runtime, node.runtime_version);
    let runtime = if runtime.trim().is_empty() { "–" } else { runtime.trim() };
    let seen = node.last_seen_unix_ms;
    let seen = seen.map_or_else(|| "never".to_owned(), |ms| ago(ms, told.now_ms));
    let mut facts = vec![
        ("Last sign of life", seen),
        ("First seen", time(view.first_seen_s)),
        ("Subnets", names(view.subnets.iter().copied())),
        ("Runtime", format!("<bdi>{}</bdi>", Escaped(runtime))),
        ("Payment networks", names(node.networks.iter().map(String::as_str))),
    ];
    if let Some(round_trip_us) = node.round_trip_us {
        let text = format!("{:.1} ms", f64::from(round_trip_us) / 1_000.0);
        facts.insert(1, ("Latency", text));
    }
    html.push_str("<dl class=\"facts\">");
    for (name, value) in facts {
        write!(html, "<dt>{name}</dt><dd>{value}</dd>").ok();
    }
    html.push_str("</dl></section>\n");
}

fn windows(html: &mut String, snapshot: &Snapshot, view: &NodeView<'_>) {
    html.push_str(
        "<div class=\"scroll\"><table><caption>Uptime, and coverage: the share of time in \
         which the node was up or down, not unknown</caption><thead><tr>\
         <th scope=\"col\">Window</th>\
         <th scope=\"col\" class=\"n\">Uptime</th><th scope=\"col\" class=\"n\">Coverage</th>\
         <th scope=\"col\" class=\"n wide\">Up</th><th scope=\"col\" class=\"n wide\">Down</th>\
         <th scope=\"col\" class=\"n wide\">Unknown</th></tr></thead><tbody>\n",
    );
    let end_s = snapshot.closed_end_s();
    let named = WINDOWS.map(|(name, span_s)| (name, end_s.saturating_sub(span_s)));
    for (name, from_s) in named.into_iter().chain([("all", 0)]) {
        let tally = snapshot.windowed(view.number, from_s, end_s).tally;
        writeln!(
            html,
            "<tr><th scope=\"row\">{name}</th><td class=\"n\">{}</td><td class=\"n\">{}</td>\
             <td class=\"n wide\">{}</td><td class=\"n wide\">{}</td><td class=\"n wide\">{}</td>\
             </tr>",
            Gauge(tally.uptime_percent()),
            percent(tally.coverage_percent()),
            length(tally.up_s),
            length(tally.down_s),
            length(tally.unknown_s)
        )
        .ok();
    }
    html.push_str("</tbody></table></div>\n");
}

/// The UTC days of the strip, the last one being that of the last closed round.
pub(super) fn days_of(snapshot: &Snapshot, number: u32) -> Vec<Day> {
    let end_s = snapshot.closed_end_s();
    let today_s = end_s.saturating_sub(1) / DAY_S * DAY_S;
    (0..DAYS)
        .rev()
        .filter_map(|back| today_s.checked_sub(back * DAY_S))
        .map(|start_s| {
            let tally = snapshot.windowed(number, start_s, start_s + DAY_S).tally;
            Day { start_s, tally }
        })
        .collect()
}

fn ninety_days(html: &mut String, snapshot: &Snapshot, view: &NodeView<'_>) {
    let all = days_of(snapshot, view.number);
    let mut sum = Tally::default();
    for day in &all {
        sum.merge(&day.tally);
    }
    let title = format!(
        "{} days: uptime {}, coverage {}",
        all.len(),
        percent(sum.uptime_percent()),
        percent(sum.coverage_percent())
    );
    let (first, last) = (all.first(), all.last());
    write!(
        html,
        "<section class=\"card\" aria-labelledby=\"days\"><h2 id=\"days\">The last {} days</h2>\n\
         <figure>{}<div class=\"axis\"><span>{}</span><span>{}</span></div>\n\
         <figcaption>{title}<br><span class=\"legend\"><span class=\"key k-up\">up</span>\
         <span class=\"key\">unknown</span><span class=\"key k-down\">down</span></span>\
         </figcaption></figure>\n<details><summary>The days as a table</summary>\
         <div class=\"scroll\"><table><thead><tr><th scope=\"col\">Day</th>\
         <th scope=\"col\" class=\"n\">Uptime</th><th scope=\"col\" class=\"n\">Coverage</th></tr>\
         </thead><tbody>\n",
        all.len(),
        days(&all, &title),
        first.map_or_else(String::new, |day| date(day.start_s)),
        last.map_or_else(String::new, |day| date(day.start_s)),
    )
    .ok();
    for day in all.iter().rev().filter(|day| Counts::from(&day.tally).total() > 0) {
        writeln!(
            html,
            "<tr><th scope=\"row\">{}</th><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
            date(day.start_s),
            percent(day.tally.uptime_percent()),
            percent(day.tally.coverage_percent())
        )
        .ok();
    }
    html.push_str("</tbody></table></div></details></section>\n");
}

fn last_day(html: &mut String, snapshot: &Snapshot, view: &NodeView<'_>) {
    let to_s = snapshot.closed_end_s();
    let from_s = to_s.saturating_sub(DAY_S);
    let known_s = from_s.max(view.first_seen_s).min(to_s);
    let told = |start_s: u64, end_s: u64| {
        let tally = snapshot.windowed(view.number, start_s, end_s).tally;
        format!(
            "{} to {}: uptime {}, coverage {}",
            clock_time(start_s),
            clock_time(end_s),
            percent(tally.uptime_percent()),
            percent(tally.coverage_percent())
        )
    };
    let tally = snapshot.windowed(view.number, from_s, to_s).tally;
    let title = format!(
        "24 hours: up {}, down {}, unknown {}",
        length(tally.up_s),
        length(tally.down_s),
        length(tally.unknown_s)
    );
    let stretches = snapshot.stretches(view.number, known_s, to_s);
    let strip =
        Strip { from_s, to_s, stretches: &stretches, title: &title, step_s: HOUR_S, told: &told };
    write!(
        html,
        "<section class=\"card\" aria-labelledby=\"day\"><h2 id=\"day\">The last 24 hours</h2>\n\
         <figure>{strip}<div class=\"axis\"><span>{}</span><span>{}</span></div>\n\
         <figcaption>{title}</figcaption></figure></section>\n",
        clock_time(from_s),
        clock_time(to_s)
    )
    .ok();
}

/// How much of an outage was unknown.
fn of_it_unknown(unknown_s: u64) -> String {
    if unknown_s == 0 { String::new() } else { format!(", {} of it unknown", length(unknown_s)) }
}

fn outages(html: &mut String, snapshot: &Snapshot, view: &NodeView<'_>) {
    let end_s = snapshot.closed_end_s();
    let all = snapshot.outages(view.number, end_s.saturating_sub(DAYS * DAY_S), end_s);
    html.push_str(
        "<section class=\"card\" aria-labelledby=\"outages\">\
         <h2 id=\"outages\">Outages of the last \
         90 days</h2>\n",
    );
    if all.is_empty() {
        html.push_str("<p>None.</p></section>\n");
        return;
    }
    let lasted = |outage: &Outage| outage.to_s - outage.from_s;
    let longest = all.iter().map(lasted).max().unwrap_or(0);
    let unknown_s = |outage: &Outage| -> u64 {
        outage.unknown.iter().map(|(from_s, to_s)| to_s - from_s).sum()
    };
    let sum: u64 = all.iter().map(lasted).sum();
    let sum_unknown = of_it_unknown(all.iter().map(unknown_s).sum());
    let word = if all.len() == 1 { "One outage" } else { "Outages" };
    let count = if all.len() == 1 { String::new() } else { format!("{} ", all.len()) };
    writeln!(
        html,
        "<p class=\"soft small\">{count}{}, {} in all{sum_unknown}; the longest lasted {}.</p>\
         <div class=\"scroll\"><table><thead><tr><th scope=\"col\">Began</th>\
         <th scope=\"col\">Ended</th><th scope=\"col\" class=\"n\">Lasted</th>\
         <th scope=\"col\" class=\"wide\">Compared with the longest</th></tr></thead><tbody>",
        if count.is_empty() { word.to_owned() } else { word.to_lowercase() },
        length(sum),
        length(longest)
    )
    .ok();
    for outage in all.iter().rev().take(OUTAGES_SHOWN_MAX) {
        let unknown = match unknown_s(outage) {
            0 => String::new(),
            unknown_s => {
                format!("<br><span class=\"soft small\">{} of it unknown</span>", length(unknown_s))
            }
        };
        let ended = match outage.open {
            true if outage.to_s < end_s => {
                format!("not yet: down until {}, unknown since then", time(outage.to_s))
            }
            true => "not yet".to_owned(),
            false => time(outage.to_s),
        };
        writeln!(
            html,
            "<tr><td>{}</td><td>{ended}</td><td class=\"n\">{}{unknown}</td>\
             <td class=\"wide\">{}</td></tr>",
            time(outage.from_s),
            length(lasted(outage)),
            Length { part: lasted(outage), longest }
        )
        .ok();
    }
    html.push_str("</tbody></table></div>");
    if all.len() > OUTAGES_SHOWN_MAX {
        write!(
            html,
            "<p class=\"soft small\">The newest {OUTAGES_SHOWN_MAX}; \
             <a href=\"/api/v1/nodes/{}/outages\">all of them as JSON</a>.</p>",
            view.id
        )
        .ok();
    }
    html.push_str("</section>\n");
}

fn why(html: &mut String, snapshot: &Snapshot, view: &NodeView<'_>, told: &Told) {
    html.push_str(
        "<section class=\"card\" aria-labelledby=\"why\"><h2 id=\"why\">Why this verdict: \
         what each \
         probe found in the last round</h2>\n",
    );
    match &told.account {
        Ok(account) => {
            write!(
                html,
                "<p class=\"soft small\">The round of {}, {} long.</p>\n{}\n",
                time(account.round_unix_s),
                length(u64::from(account.epoch.as_ref().map_or(0, |epoch| epoch.round_period_s))),
                words::account(account)
            )
            .ok();
        }
        Err(why) => {
            writeln!(html, "<p>{why}</p>").ok();
        }
    }
    let open = if matches!(state_of(view), State::Down | State::Retired) { " open" } else { "" };
    let freshness_s = snapshot.epochs.at(snapshot.closed_end_s()).freshness_s;
    writeln!(
        html,
        "<details{open}><summary>Is this your node, and is it shown as down? \
         What you can do</summary>\
         {}</details>\
         </section>",
        words::advice(&view.id.to_string(), freshness_s)
    )
    .ok();
}
