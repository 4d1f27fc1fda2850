//! An explanation in words, for a provider who thinks that his node is up.
//!
//! Pure. Owns the order and what he can do. What each fact says is in `uptime_proto::words`, which
//! pages have, too. The decision is not made anew here: the verdict and its rule are the
//! aggregator's.

use unicode_width::UnicodeWidthStr;
use uptime_client::v1::{self, Freshness, Verdict};
use uptime_proto::words::{self, Found, Setting};

use crate::fresh::{self, ago_s};
use crate::nodes::{before, between, since_s, verdict_colour, verdict_text};
use crate::screen::{Colour, Screen};
use crate::text::{clean, counted, second, span, stamp, wrap};

/// Where values begin.
const INDENT: usize = 12;
/// Facts that came later than this after they were observed waited in a probe's spool.
const LATE_MS: i64 = 60_000;
/// So many probes that could see well must have looked before a node is down, or all of them.
const LOOKED_MIN: u32 = 3;

/// The whole story.
pub(super) fn tell(
    explanation: &v1::ExplainResponse,
    shown: Option<&v1::Node>,
    fresh: &Freshness,
    screen: &Screen,
) -> String {
    let teller = Teller { explanation, shown, fresh, screen };
    let mut text = teller.head();
    for probe in &explanation.probes {
        text.push('\n');
        text += &teller.probe(probe);
    }
    text.push('\n');
    let mut title = "What to do";
    for advice in teller.advice() {
        text += &teller.line(title, &advice);
        title = "";
    }
    text += &teller.line("As of", &fresh::words(fresh));
    text
}

/// The first sentence, without its full stop.
fn first_sentence(text: &str) -> &str {
    text.split(['.', ':']).next().unwrap_or_default()
}

struct Teller<'a> {
    explanation: &'a v1::ExplainResponse,
    /// As it is listed now.
    shown: Option<&'a v1::Node>,
    fresh: &'a Freshness,
    screen: &'a Screen,
}

impl Teller<'_> {
    /// Sentences under a title of their own.
    fn line(&self, title: &str, sentences: &str) -> String {
        let first = format!("{title:<INDENT$}");
        wrap(sentences, self.screen.sentence_width(), &first, &" ".repeat(INDENT))
    }

    fn head(&self) -> String {
        let Self { explanation, fresh, screen, .. } = self;
        let epoch = explanation.epoch.clone().unwrap_or_default();
        let mut text = screen.paint(&clean(&explanation.id), Some(Colour::Bold));
        if let Some(node) = self.shown.filter(|node| !node.name.is_empty()) {
            text += &format!("  {}", clean(&node.name));
        }
        text.push('\n');
        text += &self.line("Shown now", &self.shown());
        let period_s = u64::from(epoch.round_period_s.max(1));
        let end_s = explanation.round_unix_s.saturating_add(period_s);
        let (start, ago) = (stamp(explanation.round_unix_s), span(ago_s(fresh, end_s)));
        let length = span(period_s);
        text += &self.line("Round", &format!("{start}, {length} long, ended {ago} ago"));
        let verdict = explanation.verdict();
        let painted = screen.paint(verdict_text(verdict), Some(verdict_colour(verdict)));
        text += &format!("{:<INDENT$}{painted}\n", "Verdict");
        text += &self.line("Rule", &format!("{}.", clean(&explanation.rule)));
        text += &self.line("Votes", &self.votes(&epoch));
        text
    }

    fn shown(&self) -> String {
        let Some(node) = self.shown else {
            return "not at all: no probe ever saw it, or it is not confirmed yet by a sign of life \
                    or by offers at two probes"
                .to_owned();
        };
        if node.retired {
            return "retired: it showed no sign of life for so long that no probe looks it up any \
                    more. A new offer on the market brings it back"
                .to_owned();
        }
        let verdict = verdict_text(node.verdict());
        let mut text = match since_s(node) {
            0 => verdict.to_owned(),
            since => {
                format!("{verdict} since {}, for {}", stamp(since), span(ago_s(self.fresh, since)))
            }
        };
        match before(node) {
            Some(before) => text += &format!("; {before}"),
            None => text += &between(node),
        }
        text
    }

    fn votes(&self, epoch: &v1::Epoch) -> String {
        let v1::ExplainResponse { positive_probes, eligible_probes, eligible_looked, .. } =
            self.explanation;
        format!(
            "{} found it alive; {} is enough to be up. {} could see well; {} of those looked for \
             it, and {} found it unreachable.",
            counted((*positive_probes).into(), "probe"),
            epoch.positive_probes_min.max(1),
            counted((*eligible_probes).into(), "probe"),
            eligible_looked,
            self.explanation.eligible_unreachable
        )
    }

    fn probe(&self, probe: &v1::ProbeEvidence) -> String {
        let name = clean(&probe.probe);
        let found = Found::of(probe);
        let colour = match found {
            Found::Alive => Colour::Green,
            Found::Unreachable if probe.eligible => Colour::Red,
            _ => Colour::Yellow,
        };
        let vote = format!("{}. {}", words::capital(found.words()), words::vote(probe));
        // Short names stand where titles do. Only whole words are painted, and after the wrapping,
        // so that no line is shorter for its colour.
        let short = name.width() < INDENT - 1;
        let title = if short { &*name } else { "" };
        let vote = self.line(title, &vote).replacen(
            first_sentence(&vote),
            &self.screen.paint(first_sentence(&vote), Some(colour)),
            1,
        );
        let painted = self.screen.paint(&name, Some(Colour::Bold));
        let mut text = match vote.strip_prefix(&*name) {
            Some(rest) if short => painted + rest,
            _ => format!("{painted}\n{vote}"),
        };
        for part in words::told_parts(probe) {
            text += &self.line("", &self.part(part));
        }
        text
    }

    fn part(&self, part: &v1::PartEvidence) -> String {
        let at_s = second(part.observed_at_unix_ms);
        let stamp = stamp(at_s);
        let ago = span(ago_s(self.fresh, at_s));
        let subnet = clean(&part.subnet);
        let asked_round = part.asked_round_unix_s.map(crate::text::stamp);
        let epoch = self.explanation.epoch.as_ref();
        let setting = Setting { epoch, subnet: &subnet, asked_round: asked_round.as_deref() };
        let mut text = format!("{stamp}, {ago} ago, {}.", words::part(part, &setting));
        let late_ms = part.received_at_unix_ms.saturating_sub(part.observed_at_unix_ms);
        if late_ms > LATE_MS {
            text += &format!(" It was reported {} later.", span(second(late_ms)));
        }
        if let Some(remark) = words::remark(part) {
            text += &format!(" {remark}");
        }
        text
    }

    fn advice(&self) -> Vec<String> {
        let nothing = |why: &str| {
            vec![
                format!("You need do nothing on the node: {why}"),
                "Unknown time counts neither as up nor as down. `uptimectl probes` shows whoever \
                 runs the aggregator what keeps the probes."
                    .to_owned(),
            ]
        };
        let explanation = self.explanation;
        let k = explanation.epoch.as_ref().map_or(1, |epoch| epoch.positive_probes_min.max(1));
        let wanted = explanation.eligible_probes.min(LOOKED_MIN);
        let failed = |probe: &v1::ProbeEvidence| Found::of(probe) == Found::DaemonError;
        match explanation.verdict() {
            Verdict::Up => vec!["Nothing: it was up.".to_owned()],
            Verdict::Down => self.mend(),
            _ if explanation.probes.is_empty() => nothing("no probe reported in this round."),
            _ if explanation.positive_probes > 0 && explanation.positive_probes < k => {
                nothing("it showed life, but to too few probes to be sure.")
            }
            _ if explanation.eligible_probes == 0 => {
                nothing("no probe could see well in this round, so none can say that it is down.")
            }
            _ if explanation.eligible_looked < wanted && explanation.probes.iter().any(failed) => {
                nothing("probes asked about it, but their own daemons gave an error.")
            }
            _ if explanation.eligible_looked == 0 => {
                nothing("no probe that could see well looked for it in this round.")
            }
            _ if explanation.eligible_looked < wanted => {
                nothing("too few of the probes that could see well looked for it.")
            }
            _ => nothing("the probes that looked for it do not agree that it is unreachable."),
        }
    }

    /// For the provider of a node that is down.
    fn mend(&self) -> Vec<String> {
        let mut advice = vec![
            "1. Check that the yagna daemon of this identity runs on its host: `yagna id show` \
             must print this id."
                .to_owned(),
            "2. Check that it has a session with the relay: `yagna net status` shows it. Firewalls \
             and routers must let its UDP out, and the answers in."
                .to_owned(),
            "3. If in doubt, restart the daemon. When it is back, `uptimectl explain` shows it as \
             up within two rounds."
                .to_owned(),
        ];
        if let Some(seen_ms) = self.shown.and_then(|node| node.last_seen_unix_ms) {
            let at = stamp(second(seen_ms));
            advice.push(format!(
                "It last gave a sign of life at {at}. See what its log says of that time."
            ));
        }
        advice
    }
}

#[cfg(test)]
mod tests;
