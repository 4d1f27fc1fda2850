//! The table of nodes on the overview: its form, its rows, its pages.
//!
//! Owns the markup. Works by a form and links alone; what the script adds is speed.

use std::fmt::Write;

use uptime_accounting::snapshot::NodeView;

use super::chart::{Gauge, time};
use super::escape::Escaped;
use super::listing::{Page, STATES, State, Wanted, state_of};
use super::time_format::{self, age_s, length, percent};
use crate::engine::Snapshot;
use crate::query::rows::Order;

/// Subnets offered for choice; others are typed.
const SUBNETS_OFFERED_MAX: usize = 50;

/// The section.
pub(super) fn section(
    html: &mut String,
    snapshot: &Snapshot,
    page: &Page,
    wanted: &Wanted,
    now_ms: i64,
) {
    html.push_str(
        "<section class=\"card\" aria-labelledby=\"nodes\"><h2 id=\"nodes\">Nodes</h2>\n",
    );
    form(html, snapshot, wanted);
    html.push_str("<div data-part=\"nodes\">");
    count(html, page, wanted);
    if !page.nodes.is_empty() {
        rows(html, snapshot, page, wanted, now_ms);
        pages(html, page, wanted);
    }
    html.push_str("</div></section>\n");
}

fn form(html: &mut String, snapshot: &Snapshot, wanted: &Wanted) {
    let below = wanted.below.map_or_else(String::new, |below| below.to_string());
    // Writing to a String cannot fail.
    write!(
        html,
        "<form class=\"filter\" role=\"search\" action=\"/#nodes\" method=\"get\" data-filter>\
         <label class=\"grow\">Name or id<input type=\"search\" name=\"find\" value=\"{}\" \
         maxlength=\"100\" placeholder=\"part of a name, or 0x…\" autocomplete=\"off\"></label>\
         <label>Subnet<input name=\"subnet\" value=\"{}\" list=\"subnets\" maxlength=\"100\" \
         autocomplete=\"off\"></label><datalist id=\"subnets\">",
        Escaped(&wanted.find),
        Escaped(&wanted.subnet)
    )
    .ok();
    // Number 0 is the empty one.
    for subnet in snapshot.subnets.iter().skip(1).take(SUBNETS_OFFERED_MAX) {
        write!(html, "<option value=\"{}\"></option>", Escaped(subnet)).ok();
    }
    html.push_str(
        "</datalist><label>State<select name=\"state\"><option value=\"\">all but retired</option>",
    );
    for (word, _) in STATES {
        let chosen = if word == wanted.state_word() { " selected" } else { "" };
        write!(html, "<option{chosen}>{word}</option>").ok();
    }
    writeln!(
        html,
        "</select></label><label>Uptime below, %<input type=\"number\" name=\"below\" \
         value=\"{below}\" min=\"0\" max=\"100\" step=\"any\"></label>\
         <input type=\"hidden\" name=\"sort\" value=\"{}\">\
         <button type=\"submit\">Show</button></form>",
        wanted.sort_word()
    )
    .ok();
}

fn count(html: &mut String, page: &Page, wanted: &Wanted) {
    let number = |count: usize| time_format::count(count as u64);
    let size = wanted.size as usize;
    let first = (page.page - 1) as usize * size + 1;
    let text = match (page.total, page.nodes.len()) {
        (0, _) => "No matching nodes.".to_owned(),
        (1, _) => "One node.".to_owned(),
        (total, shown) if shown == total => format!("{} nodes.", number(total)),
        (total, shown) => format!(
            "Nodes {} to {} of {}.",
            number(first),
            number(first + shown - 1),
            number(total)
        ),
    };
    writeln!(html, "<p role=\"status\" class=\"soft small\">{text}</p>").ok();
}

fn heading(html: &mut String, wanted: &Wanted, name: &str, sort: Order, word: &str, class: &str) {
    let sorted = wanted.sort == sort;
    let (aria, mark) = match (sorted, wanted.descending) {
        (false, _) => ("none", ""),
        (true, false) => ("ascending", " <span aria-hidden=\"true\">▲</span>"),
        (true, true) => ("descending", " <span aria-hidden=\"true\">▼</span>"),
    };
    // What is sorted already turns round.
    let turned = if sorted && !wanted.descending { format!("-{word}") } else { word.to_owned() };
    write!(
        html,
        "<th scope=\"col\" class=\"{class}\" aria-sort=\"{aria}\"><a data-turn href=\"{}\">\
         {name}{mark}</a></th>",
        wanted.link(&turned, 1)
    )
    .ok();
}

fn rows(html: &mut String, snapshot: &Snapshot, page: &Page, wanted: &Wanted, now_ms: i64) {
    html.push_str("<div class=\"scroll\"><table><thead><tr>");
    heading(html, wanted, "Name", Order::Name, "name", "");
    heading(html, wanted, "Id", Order::Id, "id", "wide");
    heading(html, wanted, "Subnet", Order::Subnet, "subnet", "wide");
    html.push_str("<th scope=\"col\">State</th>");
    heading(html, wanted, "Uptime", Order::Uptime, "uptime", "n");
    html.push_str("<th scope=\"col\" class=\"n wide\">Coverage</th>");
    html.push_str("<th scope=\"col\" class=\"n wide\">Known for</th>");
    heading(html, wanted, "Last seen", Order::LastSeen, "seen", "n wide");
    html.push_str("</tr></thead><tbody>\n");
    for view in page.nodes.iter().filter_map(|number| snapshot.view(*number)) {
        row(html, &view, snapshot, now_ms);
    }
    html.push_str("</tbody></table></div>");
}

/// A state as a word with its mark.
pub(super) fn state(state: State, flapping: bool) -> String {
    let (class, word) = match state {
        State::Up => ("is-up", "up"),
        State::Down => ("is-down", "down"),
        State::Unknown => ("is-unknown", "unknown"),
        State::Retired => ("is-unknown", "retired"),
    };
    let flapping = if flapping { " <span class=\"soft small\">flapping</span>" } else { "" };
    format!("<span class=\"state {class}\">{word}</span>{flapping}")
}

fn row(html: &mut String, view: &NodeView<'_>, snapshot: &Snapshot, now_ms: i64) {
    let id = view.id.to_string();
    let name = snapshot.details.get(view.number).map_or_else(String::new, |told| told.name);
    let label = if name.trim().is_empty() { "(no name)" } else { &name };
    let seen = view
        .last_seen_ms
        .map_or_else(|| "never".to_owned(), |ms| format!("{} ago", length(age_s(ms, now_ms))));
    write!(
        html,
        "<tr><th scope=\"row\"><a href=\"/nodes/{id}\"><bdi>{}</bdi></a></th>\
         <td class=\"wide\"><span class=\"id\">{id}</span></td><td class=\"wide\">",
        Escaped(label)
    )
    .ok();
    for (place, subnet) in view.subnets.iter().take(3).enumerate() {
        let gap = if place > 0 { ", " } else { "" };
        write!(html, "{gap}<bdi>{}</bdi>", Escaped(subnet)).ok();
    }
    if view.subnets.len() > 3 {
        write!(html, " and {} more", view.subnets.len() - 3).ok();
    }
    let known_s = snapshot.closed_end_s().saturating_sub(view.first_seen_s);
    writeln!(
        html,
        "</td><td>{}</td><td class=\"n\">{}</td><td class=\"n wide\">{}</td>\
         <td class=\"n wide\">{}</td><td class=\"n wide\">{seen}</td></tr>",
        state(state_of(view), view.flapping),
        Gauge(view.tally.uptime_percent()),
        percent(view.tally.coverage_percent()),
        length(known_s)
    )
    .ok();
}

fn pages(html: &mut String, page: &Page, wanted: &Wanted) {
    if page.pages < 2 {
        return;
    }
    let sort = wanted.sort_word();
    let link = |html: &mut String, to: u32, rel: &str, text: &str| {
        if to == page.page || to < 1 || to > page.pages {
            write!(html, "<span class=\"soft\">{text}</span>").ok();
        } else {
            let link = wanted.link(sort, to);
            write!(html, "<a data-turn{rel} href=\"{link}\">{text}</a>").ok();
        }
    };
    html.push_str("<nav class=\"pages\" aria-label=\"Pages of the table\">");
    link(html, 1, "", "First");
    link(html, page.page - 1, " rel=\"prev\"", "Previous");
    write!(
        html,
        "<span>Page {} of {}</span>",
        time_format::count(page.page.into()),
        time_format::count(page.pages.into())
    )
    .ok();
    link(html, page.page + 1, " rel=\"next\"", "Next");
    link(html, page.pages, "", "Last");
    html.push_str("</nav>");
}

/// A time and its age.
pub(super) fn ago(unix_ms: i64, now_ms: i64) -> String {
    let second = u64::try_from(unix_ms.div_euclid(1000)).unwrap_or(0);
    format!("{} ({} ago)", time(second), length(age_s(unix_ms, now_ms)))
}
