//! What probes saw and why, as HTML for people.
//!
//! Owns the form of a node's account and the advice to its provider. The sentences are those of
//! `uptime_proto::words`, which commands have, too. Decides nothing: which rule decided is told by
//! the query service's own account.

use std::fmt::Write;

use uptime_proto::v1::{self, ExplainResponse, PartEvidence, ProbeEvidence};
use uptime_proto::words::{self, Found, Setting};

use super::chart::time;
use super::escape::{Escaped, Sentence};

/// The most parts shown for one probe; a round has a handful.
const PARTS_SHOWN_MAX: usize = 20;
/// The most probes shown.
const PROBES_SHOWN_MAX: usize = 100;

/// The clock time of an instant, to the second.
fn second_of(unix_ms: i64) -> String {
    let stamp = super::time_format::stamp(u64::try_from(unix_ms.div_euclid(1000)).unwrap_or(0));
    stamp.split_once(' ').map_or_else(String::new, |(_, time)| time.to_owned())
}

/// What one part says of the node, as HTML.
fn part(part: &PartEvidence, epoch: Option<&v1::Epoch>) -> String {
    let at = second_of(part.observed_at_unix_ms);
    let subnet = format!("<bdi>{}</bdi>", Escaped(&part.subnet));
    let asked_round = part.asked_round_unix_s.map(time);
    let setting = Setting { epoch, subnet: &subnet, asked_round: asked_round.as_deref() };
    let mut text = format!("{at}, {}.", words::part(part, &setting));
    if let Some(remark) = words::remark(part) {
        // Writing to a String cannot fail.
        write!(text, " <strong>{remark}</strong>").ok();
    }
    text
}

/// What one probe says, as HTML.
fn probe(one: &ProbeEvidence, epoch: Option<&v1::Epoch>) -> String {
    let mut html = format!(
        "<li><strong><bdi>{}</bdi></strong> {}. <span class=\"soft\">{}</span><ul>",
        Escaped(&one.probe),
        Found::of(one).words(),
        words::vote(one)
    );
    let told: Vec<&PartEvidence> = words::told_parts(one).collect();
    for one in told.iter().take(PARTS_SHOWN_MAX) {
        write!(html, "<li>{}</li>", part(one, epoch)).ok();
    }
    if told.len() > PARTS_SHOWN_MAX {
        write!(html, "<li>and {} more</li>", told.len() - PARTS_SHOWN_MAX).ok();
    }
    html.push_str("</ul></li>");
    html
}

/// The whole account of a round, as HTML.
pub(super) fn account(account: &ExplainResponse) -> String {
    let epoch = account.epoch.as_ref();
    let mut html = format!("<p><strong>{}.</strong></p>", Sentence(&words::capital(&account.rule)));
    if account.probes.is_empty() {
        return html;
    }
    html.push_str("<ul class=\"plain\">");
    for one in account.probes.iter().take(PROBES_SHOWN_MAX) {
        html.push_str(&probe(one, epoch));
    }
    html.push_str("</ul>");
    if account.probes.len() > PROBES_SHOWN_MAX {
        write!(
            html,
            "<p class=\"soft small\">and {} more probes</p>",
            account.probes.len() - PROBES_SHOWN_MAX
        )
        .ok();
    }
    html
}

/// What a provider can do, step by step, as HTML. `id` is a node's own, checked.
pub(super) fn advice(id: &str, freshness_s: u32) -> String {
    format!(
        "<ol class=\"steps\">\
         <li>Check that yagna runs on your provider: <code>golemsp status</code>, or \
         <code>yagna id show</code>, which must print <code>{id}</code>.</li>\
         <li>Check that yagna has a session with the relay: <code>yagna net status</code> and \
         <code>yagna net sessions</code>. You need no open port, but your firewall \
         must let UDP out.</li>\
         <li>Search for your node from another machine with yagna: \
         <code>yagna net find {id}</code>. The age \
         under <code>seen</code> must nearly always be less than {freshness_s} s.</li>\
         <li>If it is not, restart yagna. The outage ends as soon as \
         enough probes find the node.</li>\
         <li>If all of this works and the page still says down, look above for the probes \
         that got no answer, and tell the operator of this page. The \
         <a href=\"/api/v1/nodes/{id}/explain\">explanation as JSON</a> has all the details.</li>\
         </ol>\
         <p class=\"soft small\">This page shows whether the node’s <em>yagna daemon</em> \
         answers, not whether its provider agent takes work. A probe that could not look, or whose \
         own daemon gave an error, says nothing about the node. Unknown rounds count neither as \
         up nor as down.</p>"
    )
}

#[cfg(test)]
mod tests {
    use uptime_proto::v1::{EvidenceClass, Outcome, PartKind};

    use super::*;

    #[test]
    fn sentences_begin_well_and_instants_are_short() {
        assert_eq!(words::capital("up: 1"), "Up: 1");
        assert_eq!(second_of(1_767_225_661_999), "00:01:01");
    }

    #[test]
    fn a_probe_is_told_with_what_it_found_first() {
        let of = |kind: PartKind, evidence: &[EvidenceClass]| PartEvidence {
            kind: kind as i32,
            subnet: "a<b".to_owned(),
            outcome: Outcome::Looked as i32,
            evidence: evidence.iter().map(|class| *class as i32).collect(),
            observed_at_unix_ms: 1_767_225_661_999,
            age_kept: true,
            ..PartEvidence::default()
        };
        let earlier = [EvidenceClass::Unreachable, EvidenceClass::AskedEarlier];
        let standing = PartEvidence {
            asked_round_unix_s: Some(1_767_225_600),
            ..of(PartKind::Lookup, &earlier)
        };
        let retracted = PartEvidence { retracted: true, ..of(PartKind::Relay, &[]) };
        let one = ProbeEvidence {
            probe: "<i>".to_owned(),
            eligible: true,
            parts: vec![of(PartKind::Lookup, &[]), standing, of(PartKind::Market, &[]), retracted],
            ..ProbeEvidence::default()
        };
        assert_eq!(
            probe(&one, None),
            "<li><strong><bdi>&lt;i&gt;</bdi></strong> found it unreachable. \
             <span class=\"soft\">That counts.</span><ul>\
             <li>00:01:01, look-up: the relay did not know it; not asked again in this round: its \
             questions of round <time datetime=\"2026-01-01T00:00:00Z\">2026-01-01 00:00:00</time> \
             went unanswered and still stand.</li>\
             <li>00:01:01, market of <bdi>a&lt;b</bdi>: no offer of it was there.</li>\
             <li>00:01:01, list of the relay: it was not there, or not fresh. <strong>The operator \
             took this out of the count.</strong></li></ul></li>"
        );
    }
}
