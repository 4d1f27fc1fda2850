//! The overview page, drawn on the server.

use std::fmt::Write;

use crate::ledger::snapshot::Snapshot;
use crate::ledger::verdict::Verdict;
use crate::publish::utc_stamp;

/// Rows of the table of nodes; the CSV has them all.
const ROWS_MAX: usize = 500;

const STYLE: &str = "
:root{color-scheme:light dark}
body{font:16px/1.45 system-ui,sans-serif;max-width:70rem;margin:0 auto;padding:1rem}
h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}
.big{font-size:2rem;font-weight:600;margin-right:.3rem}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:.25rem .6rem;border-bottom:1px solid #8884}
td.id{font-family:ui-monospace,monospace;font-size:.85rem}
td.n{text-align:right;font-variant-numeric:tabular-nums}
.up{color:#0a7d36}.down{color:#c62828}.unknown{color:#8a6d00}
@media(prefers-color-scheme:dark){.up{color:#5ad18a}.down{color:#ff8a80}.unknown{color:#ffd54f}}
";

/// Text as HTML shows it, whatever it holds.
fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            // Marks that turn the direction of writing, or show nothing, could make a name look
            // like another one.
            '\u{200b}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{2069}'
            | '\u{feff}' => safe.push('\u{fffd}'),
            other => safe.push(other),
        }
    }
    safe
}

fn percent(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.2} %"))
}

/// The page.
pub(super) fn overview(snapshot: &Snapshot, now_ms: i64) -> String {
    let mut html = String::with_capacity(64 * 1024);
    // Writing to a String cannot fail.
    write_page(&mut html, snapshot, now_ms).ok();
    html
}

fn write_page(html: &mut String, snapshot: &Snapshot, now_ms: i64) -> std::fmt::Result {
    let period_s = snapshot.epochs.at(snapshot.closed_end_s()).period.seconds();
    write!(
        html,
        "<!doctype html><html lang=en><head><meta charset=utf-8><title>Golem Uptime</title>\
         <meta name=viewport content=\"width=device-width,initial-scale=1\">\
         <meta http-equiv=refresh content={period_s}><style>{STYLE}</style></head><body>\
         <h1>Golem Uptime</h1>"
    )?;
    write_counts(html, snapshot, now_ms)?;
    write_probes(html, snapshot)?;
    write_nodes(html, snapshot)?;
    html.push_str("</body></html>\n");
    Ok(())
}

fn write_counts(html: &mut String, snapshot: &Snapshot, now_ms: i64) -> std::fmt::Result {
    let Some(closed) = snapshot.closed else {
        html.push_str("<p>No round has closed yet.</p>");
        return Ok(());
    };
    let (up, down, unknown) =
        snapshot.rounds.last().map_or((0, 0, 0), |last| (last.up, last.down, last.unknown));
    let age_s = (now_ms - closed.end_ms()) / 1000;
    write!(
        html,
        "<p><span class=\"big up\">{up}</span>up <span class=\"big down\">{down}</span>down \
         <span class=\"big unknown\">{unknown}</span>unknown in the round of {} \
         ({} s long, ended {age_s} s ago)</p><p><a href=\"/nodes_status.csv\">nodes_status.csv</a> \
         · <a href=\"/metrics\">metrics</a></p>",
        utc_stamp(closed.start_ms()),
        closed.period().seconds()
    )
}

fn write_probes(html: &mut String, snapshot: &Snapshot) -> std::fmt::Result {
    html.push_str(
        "<h2>Probes</h2><div class=scroll><table><tr><th>Name<th>Connected<th>Last round\
         <th>Offers<th>Looked up<th>Found</tr>",
    );
    let last = snapshot.rounds.last();
    for status in &snapshot.probes {
        let round = last.and_then(|last| last.probes.get(&status.number));
        let state = match round {
            None => "did not report".to_owned(),
            Some(round) if !round.could_not_look.is_empty() => {
                let reasons = round.could_not_look.iter().map(|reason| reason.as_str());
                format!("could not look: {}", reasons.collect::<Vec<_>>().join(", "))
            }
            Some(round) if round.ballot.eligible => "eligible".to_owned(),
            Some(round) => format!("not eligible: {:?}", round.ineligibilities),
        };
        let (offers, looked, found) = round
            .map_or((0, 0, 0), |round| (round.offers, round.tallied.looked, round.tallied.found));
        write!(
            html,
            "<tr><td>{}<td>{}<td>{}<td class=n>{offers}<td class=n>{looked}<td class=n>{found}\
             </tr>",
            escape(&status.name),
            if status.connected { "yes" } else { "no" },
            escape(&state)
        )?;
    }
    html.push_str("</table></div>");
    Ok(())
}

fn write_nodes(html: &mut String, snapshot: &Snapshot) -> std::fmt::Result {
    let total = snapshot.confirmed.len();
    write!(
        html,
        "<h2>Nodes</h2><p>{total} confirmed; the first {} by id are shown.</p>\
         <div class=scroll><table><tr><th>Node<th>Name<th>Subnet<th>Now<th>Uptime<th>Coverage\
         <th>Rounds up<th>Last seen</tr>",
        total.min(ROWS_MAX as u64)
    )?;
    for view in snapshot.nodes().take(ROWS_MAX) {
        let (class, word) = match view.verdict {
            _ if view.retired => ("down", "retired"),
            Verdict::Up => ("up", "up"),
            Verdict::Down => ("down", "down"),
            Verdict::Unknown if view.is_online => ("unknown", "unknown, was up"),
            Verdict::Unknown => ("unknown", "unknown"),
        };
        write!(
            html,
            "<tr><td class=id>{}<td>{}<td>{}<td class={class}>{word}<td class=n>{}<td class=n>{}\
             <td class=n>{}<td>{}</tr>",
            view.id,
            escape(view.details.map_or("", |details| &details.name)),
            escape(&view.subnets.join(", ")),
            percent(view.tally.uptime_percent()),
            percent(view.tally.coverage_percent()),
            view.tally.up_rounds,
            view.last_seen_ms.map(utc_stamp).unwrap_or_default()
        )?;
    }
    html.push_str("</table></div>");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_stay_text() {
        assert_eq!(
            escape("<script>alert('x & \"y\"')</script>"),
            "&lt;script&gt;alert(&#39;x &amp; &quot;y&quot;&#39;)&lt;/script&gt;"
        );
        assert_eq!(escape("a\u{202e}b\u{200b}"), "a\u{fffd}b\u{fffd}");
    }
}
