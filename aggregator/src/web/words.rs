//! What probes saw and why, in words for people.
//!
//! Owns the sentences of the node's page and of the table of probes. Decides nothing: which rule
//! decided is told by the query service's own account.

use std::fmt::Write;

use uptime_proto::Reason;
use uptime_proto::v1::{
    self, EvidenceClass, ExplainResponse, Outcome, PartEvidence, PartKind, ProbeEvidence,
};

use super::shown::{Sentence, Shown};
use crate::ledger::evidence::Ineligibility;

/// Parts of one probe that are told one by one; a round has a handful.
const PARTS_SHOWN_MAX: usize = 20;
/// Probes that are told one by one.
const PROBES_SHOWN_MAX: usize = 100;

/// Why a probe could not look.
pub(super) fn reason(reason: Reason) -> &'static str {
    match reason {
        Reason::YagnaUnreachable => "its yagna daemon could not be reached",
        Reason::Unauthorised => "its yagna daemon refused the application key",
        Reason::MarketError => "its yagna daemon answered the market question with an error",
        Reason::NetError => "its yagna daemon answered the network question with an error",
        Reason::RelaySessionMissing => "its yagna daemon had no session with the relay",
        Reason::TimedOut => "the answer did not come in time",
        Reason::MalformedAnswer => "the answer could not be understood",
        Reason::AnswerTooLarge => "the answer was larger than it reads",
        Reason::Clock => "its clock was off",
        Reason::Missed => "the round was over before it came to it",
        Reason::RelayError => "the relay could not be reached, or answered with an error",
        Reason::SpoolFull => "its spool was full",
    }
}

/// Why a probe's word against a node did not count.
pub(super) fn ineligibility(why: Ineligibility) -> &'static str {
    match why {
        Ineligibility::RelaySessionYoung => "its session with the relay was too young",
        Ineligibility::RelaySessionMissing => "it had no session with the relay",
        Ineligibility::MassLoss => "it had lost sight of most nodes at once",
        Ineligibility::DidNotLook => "it had not looked any node up",
    }
}

/// The same for what stands on the wire.
fn ineligibility_on_wire(why: v1::Ineligibility) -> &'static str {
    match why {
        v1::Ineligibility::RelaySessionYoung => ineligibility(Ineligibility::RelaySessionYoung),
        v1::Ineligibility::RelaySessionMissing => ineligibility(Ineligibility::RelaySessionMissing),
        v1::Ineligibility::MassLoss => ineligibility(Ineligibility::MassLoss),
        v1::Ineligibility::DidNotLook => ineligibility(Ineligibility::DidNotLook),
        v1::Ineligibility::Unspecified => "it is not said why",
    }
}

/// The rules that a sentence speaks of.
#[derive(Debug, Clone, Copy)]
struct Rules {
    freshness_s: u32,
    direct_attempts: u32,
}

/// The clock time of an instant, to the second.
fn second_of(unix_ms: i64) -> String {
    let stamp = super::when::stamp(u64::try_from(unix_ms.div_euclid(1000)).unwrap_or(0));
    stamp.split_once(' ').map_or_else(String::new, |(_, time)| time.to_owned())
}

/// What one part says of the node, as HTML.
fn part(part: &PartEvidence, rules: Rules) -> String {
    let at = second_of(part.observed_at_unix_ms);
    let place = match part.kind() {
        PartKind::Market => format!("the market of <bdi>{}</bdi>", Shown(&part.subnet)),
        PartKind::Relay => "the relay’s list".to_owned(),
        PartKind::Lookup | PartKind::Unspecified => "single nodes".to_owned(),
    };
    let mut text = if part.outcome() == Outcome::CouldNotLook {
        let why = Reason::from_wire(part.reason).map_or("it is not said why", reason);
        format!("{at}: could not look at {place}: {why}")
    } else if part.evidence.is_empty() {
        match part.kind() {
            PartKind::Market => format!("{at}: listed {place}, and found no offer of this node"),
            PartKind::Relay => format!("{at}: read {place}, and this node was not fresh in it"),
            _ => format!("{at}: looked up other nodes, not this one"),
        }
    } else {
        let says: Vec<String> =
            part.evidence().map(|class| evidence(class, part, rules, &place)).collect();
        format!("{at}: {}", says.join("; "))
    };
    if part.retracted {
        text.push_str(" (retracted: does not count)");
    } else if part.conflict {
        text.push_str(" (another report under the same key counts instead)");
    }
    text
}

fn evidence(class: EvidenceClass, part: &PartEvidence, rules: Rules, place: &str) -> String {
    let age = part.seen_age_ms.map_or_else(
        || format!("within {} s", rules.freshness_s),
        |ms| format!("{:.1} s before", f64::from(ms) / 1_000.0),
    );
    match class {
        EvidenceClass::Offer => format!("found its offer on {place}, which is no proof of life"),
        EvidenceClass::Seen if part.kind() == PartKind::Relay => {
            format!("the relay’s list had seen it {age}: up")
        }
        EvidenceClass::Seen => format!("the relay had seen it {age}: up"),
        EvidenceClass::Answered => match part.answered_in_ms {
            Some(ms) => format!("it answered a direct question in {ms} ms: up"),
            None => "it answered a direct question: up".to_owned(),
        },
        EvidenceClass::Unreachable => format!(
            "the relay had not seen it lately, and it did not answer the direct question, asked \
             {}: \
             not reachable",
            times(rules.direct_attempts)
        ),
        EvidenceClass::Failed => "asked about it, but its own daemon gave an error".to_owned(),
        EvidenceClass::AskedEarlier => "not asked again: an earlier question stands in".to_owned(),
        EvidenceClass::Unspecified => "it is not said what it found".to_owned(),
    }
}

fn times(count: u32) -> String {
    match count {
        1 => "once".to_owned(),
        2 => "twice".to_owned(),
        more => format!("{more} times"),
    }
}

/// What one probe says, as HTML.
fn probe(one: &ProbeEvidence, rules: Rules) -> String {
    let mut html = format!("<li><strong><bdi>{}</bdi></strong>", Shown(&one.probe));
    if one.eligible {
        html.push_str(" <span class=\"soft\">could see well</span>");
    } else {
        let why: Vec<&str> = one.ineligibilities().map(ineligibility_on_wire).collect();
        let why = if why.is_empty() { "no report of it counts".to_owned() } else { why.join("; ") };
        // Writing to a String cannot fail.
        write!(html, " <span class=\"soft\">cannot call a node down: {why}</span>").ok();
    }
    html.push_str("<ul>");
    for one in one.parts.iter().take(PARTS_SHOWN_MAX) {
        write!(html, "<li>{}</li>", part(one, rules)).ok();
    }
    if one.parts.len() > PARTS_SHOWN_MAX {
        write!(html, "<li>and {} more</li>", one.parts.len() - PARTS_SHOWN_MAX).ok();
    }
    html.push_str("</ul></li>");
    html
}

/// The whole account of a round, as HTML.
pub(super) fn account(account: &ExplainResponse) -> String {
    let epoch = account.epoch.clone().unwrap_or_default();
    let rules = Rules { freshness_s: epoch.freshness_s, direct_attempts: epoch.direct_attempts };
    let mut html = format!("<p><strong>{}.</strong></p>", Sentence(&capital(&account.rule)));
    if account.probes.is_empty() {
        return html;
    }
    html.push_str("<ul class=\"plain\">");
    for one in account.probes.iter().take(PROBES_SHOWN_MAX) {
        html.push_str(&probe(one, rules));
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

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// What a provider can do, step by step, as HTML. `id` is a node's own, checked.
pub(super) fn advice(id: &str, freshness_s: u32) -> String {
    format!(
        "<ol class=\"steps\">\
         <li>See whether the daemon runs on the provider’s machine: <code>golemsp status</code>, \
         or \
         <code>yagna id show</code>, which must print <code>{id}</code>.</li>\
         <li>See whether it has a session with the relay: <code>yagna net status</code> and \
         <code>yagna net sessions</code>. No open port is needed: a node behind a firewall is \
         reached \
         through the relay. But UDP to the outside must not be blocked.</li>\
         <li>Look from another machine with yagna: <code>yagna net find {id}</code>. What it \
         prints \
         as <code>seen</code> must be less than {freshness_s} s old, every time.</li>\
         <li>If that is not so though the daemon runs, restart it. It is shown as up in the round \
         in \
         which the first probe finds it, and the outage ends there.</li>\
         <li>If all of that is well and the node is still shown as down, see above which probes \
         could \
         not reach it, and tell whoever runs this page; the <a href=\"/api/v1/nodes/{id}/explain\">\
         account as JSON</a> has all the details.</li></ol>\
         <p class=\"soft small\">Shown is whether the <em>node</em> answers, that is its yagna \
         daemon, \
         not whether its provider agent takes work. Rounds in which nobody could tell count \
         neither \
         way.</p>"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_words_of_its_own() {
        let mut words: Vec<&str> = Reason::ALL.iter().map(|one| reason(*one)).collect();
        let all = words.len();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), all);
        assert_eq!(
            (times(1), times(2), times(5)),
            ("once".into(), "twice".into(), "5 times".into())
        );
        assert_eq!(capital("up: 1"), "Up: 1");
        assert_eq!(second_of(1_767_225_661_999), "00:01:01");
    }

    #[test]
    fn what_a_part_says_is_told_with_ages_where_they_are_known() {
        let rules = Rules { freshness_s: 20, direct_attempts: 2 };
        let of = |kind: PartKind, class: EvidenceClass| PartEvidence {
            kind: kind as i32,
            subnet: "a<b".to_owned(),
            outcome: Outcome::Looked as i32,
            evidence: vec![class as i32],
            observed_at_unix_ms: 1_767_225_661_999,
            ..PartEvidence::default()
        };
        let seen = of(PartKind::Lookup, EvidenceClass::Seen);
        let aged = PartEvidence { seen_age_ms: Some(3_250), ..seen.clone() };
        let answered = PartEvidence {
            answered_in_ms: Some(12),
            retracted: true,
            ..of(PartKind::Lookup, EvidenceClass::Answered)
        };
        for (one, wanted) in [
            (seen, "00:01:01: the relay had seen it within 20 s: up"),
            (aged, "00:01:01: the relay had seen it 3.2 s before: up"),
            (
                answered,
                "00:01:01: it answered a direct question in 12 ms: up (retracted: does not count)",
            ),
            (
                of(PartKind::Market, EvidenceClass::Offer),
                "00:01:01: found its offer on the market of <bdi>a&lt;b</bdi>, which is no proof \
                 of \
                 life",
            ),
            (
                of(PartKind::Relay, EvidenceClass::Seen),
                "00:01:01: the relay’s list had seen it within 20 s: up",
            ),
        ] {
            assert_eq!(part(&one, rules), wanted);
        }
    }
}
