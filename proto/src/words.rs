//! What was observed, in words for people.
//!
//! Owns the one table of sentences that pages and commands share, so that both say the same of the
//! same facts. Keeps apart what is so easily mixed up: asked and no answer; asked, but the probe's
//! own daemon gave an error; could not look at all; not asked. Refuses to decide anything, and to
//! write instants or foreign texts: whoever tells hands them in as it may show them. No sentence
//! has a character that HTML minds.

use crate::evidence::Reason;
use crate::v1::{self, EvidenceClass, Ineligibility, Outcome, PartEvidence, PartKind};

/// Whether a clock is ahead of another or behind it.
#[must_use]
pub const fn ahead_or_behind(ahead_ms: i64) -> &'static str {
    if ahead_ms < 0 { "behind" } else { "ahead of" }
}

/// Why a probe could not look.
#[must_use]
pub const fn reason(reason: Reason) -> &'static str {
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
        Reason::RelayError => "the relay could not be reached, or it answered with an error",
        Reason::SpoolFull => "its spool was full",
    }
}

/// The same for what stands on the wire.
#[must_use]
pub fn reason_on_wire(value: i32) -> &'static str {
    Reason::from_wire(value).map_or("it does not say why", reason)
}

/// Why a probe's word against a node does not count.
#[must_use]
pub const fn ineligibility(why: Ineligibility) -> &'static str {
    match why {
        Ineligibility::RelaySessionYoung => {
            "its session with the relay was too new, and living nodes are not found then"
        }
        Ineligibility::RelaySessionMissing => "it had no session with the relay",
        Ineligibility::MassLoss => {
            "it lost sight of more than half of all nodes at once, which is its own fault and not \
             theirs"
        }
        Ineligibility::DidNotLook => "none of its look-ups succeeded",
        Ineligibility::Unspecified => "the aggregator does not say why",
    }
}

/// All reasons of a probe why its word does not count.
#[must_use]
pub fn ineligibilities(wire: &[i32]) -> String {
    let known = |value: &i32| Ineligibility::try_from(*value).unwrap_or_default();
    let all: Vec<&str> = wire.iter().map(|value| ineligibility(known(value))).collect();
    if all.is_empty() {
        ineligibility(Ineligibility::Unspecified).to_owned()
    } else {
        all.join("; ")
    }
}

/// That a probe's daemon gave an error for this many nodes.
#[must_use]
pub fn gave_errors(nodes: u64) -> String {
    format!("its daemon gave an error for {}", counted(nodes, "node"))
}

/// `1 probe`, `2 probes`.
#[must_use]
pub fn counted(count: u64, noun: &str) -> String {
    let ending = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{ending}")
}

/// The text, begun with a capital letter.
#[must_use]
pub fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// A length of time, short: `45 ms`, `3.2 s`, `4 min 3 s`, `2 h 1 min`.
#[must_use]
pub fn duration(ms: u64) -> String {
    let pair = |great: u64, unit: &str, small: u64, small_unit: &str| match ms % (great * 1_000)
        / (small * 1_000)
    {
        0 => format!("{} {unit}", ms / (great * 1_000)),
        rest => format!("{} {unit} {rest} {small_unit}", ms / (great * 1_000)),
    };
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 if ms % 1_000 < 100 => format!("{} s", ms / 1_000),
        1_000..60_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        60_000..3_600_000 => pair(60, "min", 1, "s"),
        3_600_000..86_400_000 => pair(3_600, "h", 60, "min"),
        _ => pair(86_400, "d", 3_600, "h"),
    }
}

/// What a probe knows of a node after a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// It had a sign of life.
    Alive,
    /// It asked, or asked earlier, and no answer came.
    Unreachable,
    /// It asked, and its own daemon gave an error.
    DaemonError,
    /// It could not look, and had not asked about any node.
    CouldNotLook,
    /// It did not ask about this node.
    NotAsked,
    /// The operator took what it reported out of the count.
    TakenOut,
}

/// Whether a part enters the count.
fn counts(part: &PartEvidence) -> bool {
    !part.retracted && !part.conflict
}

fn has(part: &PartEvidence, class: EvidenceClass) -> bool {
    part.evidence.contains(&(class as i32))
}

/// Whether a part could not look at all: it had not asked about any node.
fn is_blind(part: &PartEvidence) -> bool {
    let failed = part.outcome == Outcome::CouldNotLook as i32;
    failed && part.failed_nodes == 0 && part.evidence.is_empty()
}

/// Whether a part of look-ups says nothing about the node, not even that it could not look.
fn is_silent(part: &PartEvidence) -> bool {
    part.kind == PartKind::Lookup as i32 && part.evidence.is_empty() && !is_blind(part)
}

impl Found {
    /// The result of one probe's round: a sign of life outweighs everything else.
    #[must_use]
    pub fn of(probe: &v1::ProbeEvidence) -> Self {
        let market = PartKind::Market as i32;
        let counting = || probe.parts.iter().filter(|part| counts(part) && part.kind != market);
        let holds = |class| counting().any(|part| has(part, class));
        if holds(EvidenceClass::Seen) || holds(EvidenceClass::Answered) {
            return Self::Alive;
        }
        if holds(EvidenceClass::Unreachable) {
            return Self::Unreachable;
        }
        if holds(EvidenceClass::Failed) {
            return Self::DaemonError;
        }
        let taken_out = |part: &PartEvidence| part.retracted && part.kind != market;
        if counting().next().is_none() && probe.parts.iter().any(taken_out) {
            return Self::TakenOut;
        }
        let lookup = |part: &PartEvidence| part.kind == PartKind::Lookup as i32;
        let mut blind = counting().filter(|part| is_blind(part)).peekable();
        let nothing_else = blind.peek().is_some() && counting().all(is_blind);
        let could_not = nothing_else || blind.any(lookup);
        if could_not { Self::CouldNotLook } else { Self::NotAsked }
    }

    /// The sentence, its subject being the probe, without a full stop.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Alive => "found it alive",
            Self::Unreachable => "found it unreachable",
            Self::DaemonError => "asked, but its daemon gave an error",
            Self::CouldNotLook => "could not look",
            Self::NotAsked => "did not ask about it",
            Self::TakenOut => "has no report that counts",
        }
    }
}

/// Whether what a probe found counts, as sentences of their own.
#[must_use]
pub fn vote(probe: &v1::ProbeEvidence) -> String {
    let did_not_look = Ineligibility::DidNotLook as i32;
    match Found::of(probe) {
        Found::Alive => "That counts.".to_owned(),
        Found::Unreachable if probe.eligible => "That counts.".to_owned(),
        Found::Unreachable => {
            format!("That does not count: {}.", ineligibilities(&probe.ineligibilities))
        }
        Found::TakenOut => "The operator took what it reported out of the count.".to_owned(),
        Found::DaemonError | Found::CouldNotLook | Found::NotAsked => {
            let mut others = probe.ineligibilities.clone();
            others.retain(|why| *why != did_not_look);
            if probe.eligible || others.is_empty() {
                return "It has no vote.".to_owned();
            }
            format!("It has no vote. It could not see well: {}.", ineligibilities(&others))
        }
    }
}

/// The parts of a probe to show: a part of look-ups that merely does not name the
/// node is left out where another one says what became of it.
pub fn told_parts(probe: &v1::ProbeEvidence) -> impl Iterator<Item = &PartEvidence> {
    let silent = |part: &PartEvidence| counts(part) && is_silent(part);
    let speaks = |part: &PartEvidence| match PartKind::try_from(part.kind) {
        Ok(PartKind::Market) => false,
        Ok(PartKind::Lookup) => counts(part) && !is_silent(part),
        _ => counts(part) && !part.evidence.is_empty(),
    };
    let mut silent_told = probe.parts.iter().any(speaks);
    probe.parts.iter().filter(move |part| {
        // Several that say nothing say it once.
        !silent(part) || !std::mem::replace(&mut silent_told, true)
    })
}

/// What a sentence needs besides the part; texts as they may be shown.
#[derive(Debug, Clone, Copy, Default)]
pub struct Setting<'a> {
    /// The rules in force.
    pub epoch: Option<&'a v1::Epoch>,
    /// The name of the part's subnet.
    pub subnet: &'a str,
    /// The round of the questions that still stand.
    pub asked_round: Option<&'a str>,
}

/// What one part says of the node: where it looked and what it found, without a full stop.
#[must_use]
pub fn part(part: &PartEvidence, setting: &Setting<'_>) -> String {
    let place = match PartKind::try_from(part.kind) {
        Ok(PartKind::Market) => format!("market of {}", setting.subnet),
        Ok(PartKind::Lookup) => "look-up".to_owned(),
        Ok(PartKind::Relay) => "list of the relay".to_owned(),
        Ok(PartKind::Unspecified) | Err(_) => format!("part of an unknown kind ({})", part.kind),
    };
    format!("{place}: {}", findings(part, setting).join("; "))
}

/// Why a part does not count, as a sentence of its own.
#[must_use]
pub const fn remark(part: &PartEvidence) -> Option<&'static str> {
    if part.retracted {
        Some("The operator took this out of the count.")
    } else if part.conflict {
        Some("The probe reported this twice with different content; the other report counts.")
    } else {
        None
    }
}

fn findings(part: &PartEvidence, setting: &Setting<'_>) -> Vec<String> {
    let unreachable = has(part, EvidenceClass::Unreachable);
    let mut all = Vec::new();
    for class in &part.evidence {
        match EvidenceClass::try_from(*class) {
            // Part of the other sentence.
            Ok(EvidenceClass::AskedEarlier) if unreachable => {}
            Ok(class) => all.push(finding(class, part, setting)),
            Err(_) => all.push(format!("evidence that this version does not know ({class})")),
        }
    }
    if part.outcome == Outcome::CouldNotLook as i32 && !has(part, EvidenceClass::Failed) {
        let why = reason_on_wire(part.reason);
        all.push(match (all.is_empty(), part.failed_nodes) {
            (true, 0) => format!("could not look: {why}"),
            (true, others) => {
                let others = counted(others, "other node");
                format!("not asked; its daemon gave an error for {others}: {why}")
            }
            (false, _) => format!("then it could not look: {why}"),
        });
    } else if all.is_empty() {
        all.push(match PartKind::try_from(part.kind) {
            Ok(PartKind::Market) => "no offer of it was there".to_owned(),
            Ok(PartKind::Relay) => "it was not there, or not fresh".to_owned(),
            _ => "not asked".to_owned(),
        });
    }
    all
}

fn finding(class: EvidenceClass, part: &PartEvidence, setting: &Setting<'_>) -> String {
    let freshness_s = setting.epoch.map(|epoch| epoch.freshness_s);
    match class {
        EvidenceClass::Offer => {
            "its offer was there, which is no sign of life: an offer outlives its node by up to an \
             hour"
                .to_owned()
        }
        EvidenceClass::Seen => match (part.seen_age_ms, freshness_s) {
            (Some(age_ms), _) => format!("the relay saw it {} before", age(age_ms)),
            (None, Some(limit)) => format!("the relay saw it at most {limit} s before"),
            (None, None) => "the relay had just seen it".to_owned(),
        },
        EvidenceClass::Answered => match part.answered_in_ms {
            Some(ms) => format!("asked directly: it answered in {}", duration(ms.into())),
            None => "asked directly: it answered".to_owned(),
        },
        EvidenceClass::Unreachable => {
            format!("{}; {}", relay_knew(part, freshness_s), silence(part, setting))
        }
        EvidenceClass::Failed => {
            let why = reason_on_wire(part.reason);
            format!(
                "asked, but its own daemon gave an error: {why}; that says nothing about the node"
            )
        }
        EvidenceClass::AskedEarlier => standing(setting),
        EvidenceClass::Unspecified => "it does not say what it found".to_owned(),
    }
}

fn age(age_ms: i32) -> String {
    duration(u64::try_from(age_ms).unwrap_or(0))
}

/// What the relay said of a node that did not answer.
fn relay_knew(part: &PartEvidence, freshness_s: Option<u32>) -> String {
    match (part.seen_age_ms, freshness_s) {
        (Some(age_ms), Some(limit)) => {
            format!(
                "the relay last saw it {} before (a sign of life is at most {limit} s old)",
                age(age_ms)
            )
        }
        (Some(age_ms), None) => format!("the relay last saw it {} before", age(age_ms)),
        (None, _) if part.age_kept => "the relay did not know it".to_owned(),
        (None, _) => "the relay had not seen it lately (the age is no longer kept)".to_owned(),
    }
}

fn silence(part: &PartEvidence, setting: &Setting<'_>) -> String {
    if has(part, EvidenceClass::AskedEarlier) {
        return standing(setting);
    }
    let Some(epoch) = setting.epoch else { return "asked directly: no answer".to_owned() };
    let limit = duration(epoch.direct_timeout_ms.into());
    match epoch.direct_attempts {
        1 => format!("asked directly (once, {limit}): no answer"),
        times => format!("asked directly ({times} times, {limit} each): no answer"),
    }
}

fn standing(setting: &Setting<'_>) -> String {
    match setting.asked_round {
        Some(round) => format!(
            "not asked again in this round: its questions of round {round} went unanswered and \
             still stand"
        ),
        None => "not asked again in this round: its earlier questions went unanswered and still \
                 stand; their round is no longer known"
            .to_owned(),
    }
}

#[cfg(test)]
mod tests;
