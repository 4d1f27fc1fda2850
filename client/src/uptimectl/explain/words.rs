//! An explanation in words, for a provider who thinks that his node is up.
//!
//! Pure. Owns what each fact means to him and what he can do. The decision is not made anew here:
//! the verdict and its rule are the aggregator's.

use unicode_width::UnicodeWidthStr;
use uptime_client::v1::{
    self, EvidenceClass, Freshness, Ineligibility, Outcome, PartKind, Verdict,
};
use uptime_proto::Reason;

use crate::fresh::{self, ago_s};
use crate::nodes::{verdict_colour, verdict_text};
use crate::screen::{Colour, Screen};
use crate::text::{clean, counted, second, span, stamp, wrap};

/// Where values begin.
const INDENT: usize = 12;
/// Facts that came later than this after they were observed waited in a probe's spool.
const LATE_MS: i64 = 60_000;
/// So many probes that could see well must have looked before a node is down, or all of them.
const LOOKED_MIN: u32 = 3;

/// What one probe found out about the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// A sign of life.
    Alive,
    /// None, though it looked and asked.
    Unreachable,
    /// Nothing, as it could not look.
    CouldNotLook,
    /// Nothing, as it did not ask for this node.
    Nothing,
}

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

fn found(probe: &v1::ProbeEvidence) -> Found {
    let counting = || probe.parts.iter().filter(|part| !part.retracted);
    let holds =
        |class: EvidenceClass| counting().any(|part| part.evidence.contains(&(class as i32)));
    // Within one probe's round a sign of life outweighs its absence.
    if holds(EvidenceClass::Seen) || holds(EvidenceClass::Answered) {
        return Found::Alive;
    }
    if holds(EvidenceClass::Unreachable) {
        return Found::Unreachable;
    }
    let market = PartKind::Market as i32;
    let failed = Outcome::CouldNotLook as i32;
    let mut looked = counting().filter(|part| part.kind != market).peekable();
    let could_not = looked.peek().is_some() && looked.all(|part| part.outcome == failed);
    if could_not { Found::CouldNotLook } else { Found::Nothing }
}

fn reason(reason: Ineligibility) -> &'static str {
    match reason {
        Ineligibility::RelaySessionYoung => {
            "its daemon had only just met the relay, and for half a minute after that living \
             nodes are not found"
        }
        Ineligibility::RelaySessionMissing => "its daemon had no session with the relay",
        Ineligibility::MassLoss => {
            "it lost sight of more than half of all nodes at once, which is its own trouble and \
             not theirs"
        }
        Ineligibility::DidNotLook => "none of its look-ups succeeded in this round",
        Ineligibility::Unspecified => "the aggregator does not say why",
    }
}

fn reasons(probe: &v1::ProbeEvidence) -> String {
    let known = |value: &i32| Ineligibility::try_from(*value).unwrap_or_default();
    let reasons: Vec<&str> =
        probe.ineligibilities.iter().map(|value| reason(known(value))).collect();
    match reasons.is_empty() {
        true => reason(Ineligibility::Unspecified).to_owned(),
        false => reasons.join("; "),
    }
}

fn could_not_look(value: i32) -> &'static str {
    match Reason::from_wire(value) {
        Some(Reason::YagnaUnreachable) => "its yagna daemon could not be reached",
        Some(Reason::Unauthorised) => "its yagna daemon refused the application key",
        Some(Reason::MarketError) => "its yagna daemon answered the market question with an error",
        Some(Reason::NetError) => "its yagna daemon answered the network question with an error",
        Some(Reason::RelaySessionMissing) => "its yagna daemon had no session with the relay",
        Some(Reason::TimedOut) => "no answer came in time",
        Some(Reason::MalformedAnswer) => "the answer could not be understood",
        Some(Reason::AnswerTooLarge) => "the answer was larger than it reads",
        Some(Reason::Clock) => "its clock is too far off",
        Some(Reason::Missed) => "the round was over before it came to it",
        Some(Reason::RelayError) => "the relay could not be reached or answered with an error",
        Some(Reason::SpoolFull) => "it had no room left to keep what it found",
        None => "it does not say why",
    }
}

/// The first sentence, without its full stop.
fn first_sentence(text: &str) -> &str {
    text.split(['.', ':']).next().unwrap_or_default()
}

/// A duration of milliseconds, short: `3.2 s`, `4 min 3 s`.
fn millis(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 if ms % 1_000 < 100 => format!("{} s", ms / 1_000),
        1_000..60_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        _ => span(ms / 1_000),
    }
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
        text += &self.line("Rule", &clean(&explanation.rule));
        text += &self.line("Votes", &self.votes(&epoch));
        text
    }

    fn shown(&self) -> String {
        match self.shown {
            None => "not at all: it was never seen, or is not confirmed yet by a sign of life or \
                     by offers at two probes"
                .to_owned(),
            Some(node) if node.retired => {
                "not online, and retired: it showed no life for so long that it is looked up no \
                 more; a new offer on the market brings it back"
                    .to_owned()
            }
            Some(node) => {
                let online = if node.is_online { "online" } else { "not online" };
                let verdict = verdict_text(node.verdict());
                match node.verdict() {
                    Verdict::Up | Verdict::Down if node.verdict_since_unix_s > 0 => {
                        let since = node.verdict_since_unix_s;
                        let ago = span(ago_s(self.fresh, since));
                        format!("{online}: {verdict} since {}, for {ago}", stamp(since))
                    }
                    Verdict::Up | Verdict::Down => format!("{online}: {verdict}"),
                    _ => format!("{online}: as it was when it could last be decided"),
                }
            }
        }
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
        let (vote, colour) = match found(probe) {
            Found::Alive => ("Found it alive. That counts.".to_owned(), Colour::Green),
            Found::Unreachable if probe.eligible => {
                ("Found it unreachable. That counts.".to_owned(), Colour::Red)
            }
            Found::Unreachable => (
                format!("Found it unreachable. That does not count: {}.", reasons(probe)),
                Colour::Yellow,
            ),
            Found::CouldNotLook => ("Could not look. It has no vote.".to_owned(), Colour::Yellow),
            Found::Nothing if probe.parts.iter().any(|part| part.retracted) => (
                "What it found was taken out of the count by the aggregator's operator.".to_owned(),
                Colour::Yellow,
            ),
            Found::Nothing => (
                "Says nothing of whether it lives: it did not ask for it. It has no vote."
                    .to_owned(),
                Colour::Yellow,
            ),
        };
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
        for part in &probe.parts {
            text += &self.line("", &self.part(part));
        }
        text
    }

    fn part(&self, part: &v1::PartEvidence) -> String {
        let at_s = second(part.observed_at_unix_ms);
        let stamp = stamp(at_s);
        let ago = span(ago_s(self.fresh, at_s));
        let subnet = clean(&part.subnet);
        let (source, quiet) = match part.kind() {
            PartKind::Market => (format!("market of {subnet}"), "no offer of it was there"),
            PartKind::Lookup => ("look-up".to_owned(), "nothing about this node"),
            PartKind::Relay => ("relay's listing".to_owned(), "nothing fresh about this node"),
            PartKind::Unspecified => (super::kind(part.kind), "nothing about this node"),
        };
        let mut facts: Vec<String> =
            part.evidence.iter().map(|class| self.fact(*class, part)).collect();
        if part.outcome == Outcome::CouldNotLook as i32 {
            facts.push(format!("could not look, because {}", could_not_look(part.reason)));
        } else if facts.is_empty() {
            facts.push(quiet.to_owned());
        }
        let mut text = format!("{stamp}, {ago} ago, {source}: {}.", facts.join("; "));
        let late_ms = part.received_at_unix_ms.saturating_sub(part.observed_at_unix_ms);
        if late_ms > LATE_MS {
            text += &format!(" It was reported {} later.", span(second(late_ms)));
        }
        if part.conflict {
            text += " The probe reported this twice with different content, which is held against \
                     it.";
        }
        if part.retracted {
            text += " The operator took this out of the count.";
        }
        text
    }

    fn fact(&self, class: i32, part: &v1::PartEvidence) -> String {
        let age = part.seen_age_ms.map(|ms| millis(u64::try_from(ms).unwrap_or(0)));
        let epoch = self.explanation.epoch.as_ref();
        match EvidenceClass::try_from(class) {
            Ok(EvidenceClass::Offer) => {
                "its offer was there, which proves no life: offers outlive \
                                         their node by up to an hour"
                    .to_owned()
            }
            Ok(EvidenceClass::Seen) => match age {
                Some(age) => format!("the relay had seen it {age} before"),
                None => "the relay had just seen it".to_owned(),
            },
            Ok(EvidenceClass::Answered) => match part.answered_in_ms {
                Some(ms) => format!("it answered a direct question in {}", millis(ms.into())),
                None => "it answered a direct question".to_owned(),
            },
            Ok(EvidenceClass::Unreachable) => {
                let relay = match (age, epoch.map(|epoch| epoch.freshness_s)) {
                    (Some(age), Some(limit)) => format!(
                        "the relay had last seen it {age} before, and {limit} s is the most for a \
                         sign of life"
                    ),
                    (Some(age), None) => format!("the relay had last seen it {age} before"),
                    (None, _) => "the relay did not know it".to_owned(),
                };
                let asked = epoch.map_or_else(String::new, |epoch| {
                    let times = counted(epoch.direct_attempts.into(), "time");
                    let limit = millis(epoch.direct_timeout_ms.into());
                    format!(" ({times}, with {limit} to answer)")
                });
                format!("{relay}; asked directly{asked} it did not answer")
            }
            Ok(EvidenceClass::Failed) => "asked, but its own daemon gave an error".to_owned(),
            Ok(EvidenceClass::AskedEarlier) => {
                "not asked again: an earlier question stands in".to_owned()
            }
            Ok(EvidenceClass::Unspecified) | Err(_) => super::class(&class),
        }
    }

    fn advice(&self) -> Vec<String> {
        let nothing = |why: &str| {
            vec![
                format!("Nothing on the node: {why}"),
                "Unknown time counts neither as up nor as down. Whoever runs the aggregator sees \
                 with `uptimectl probes` what keeps them."
                    .to_owned(),
            ]
        };
        let explanation = self.explanation;
        let k = explanation.epoch.as_ref().map_or(1, |epoch| epoch.positive_probes_min.max(1));
        let wanted = explanation.eligible_probes.min(LOOKED_MIN);
        match explanation.verdict() {
            Verdict::Up => vec!["Nothing: it was up.".to_owned()],
            Verdict::Down => self.mend(),
            _ if explanation.probes.is_empty() => nothing("no probe reported in this round."),
            _ if explanation.positive_probes > 0 && explanation.positive_probes < k => {
                nothing("it showed life, but to too few probes to be sure.")
            }
            _ if explanation.eligible_probes == 0 => {
                nothing("no probe could see well in this round, so that none can say it is down.")
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
            "1. Is the yagna daemon of this identity running on its host? `yagna id show` has to \
             print this id."
                .to_owned(),
            "2. Does it reach the relay? `yagna net status` tells. Its UDP must be let out by \
             firewalls and routers, and answers let in."
                .to_owned(),
            "3. Start the daemon anew if in doubt. Within two rounds after it is back, \
             `uptimectl explain` says so."
                .to_owned(),
        ];
        if let Some(seen_ms) = self.shown.and_then(|node| node.last_seen_unix_ms) {
            let at = stamp(second(seen_ms));
            advice
                .push(format!("It last gave a sign of life at {at}: what does its log say then?"));
        }
        advice
    }
}

#[cfg(test)]
mod tests;
