//! The commands `rules show` and `rules set`, on the aggregator's own host, beside a running serve
//! or without one.
//!
//! Owns what they do and say. Refuses to make a store, or the first rules of one: serve does.

use std::fmt::Write;

use uptime_proto::Epoch;

use super::{Difference, GivenRules, Planned, RULES, differences, plan, stamp};
use crate::access::commands::{CommandError, Place, Said};
use crate::config::RulesCommand;
use crate::store::{EpochChange, FactLog, Registry};

/// Another change may be made at the same moment, but not for ever.
const ATTEMPTS: usize = 3;
/// So much may the newest stored part be ahead of the clock before a person is told.
const AHEAD_MS_MAX: i64 = 60_000;

/// What is done with the rules.
///
/// # Errors
/// Why nothing was done.
pub async fn rules(place: Place<'_>, command: &RulesCommand) -> Result<Said, CommandError> {
    match command {
        RulesCommand::Show => show(place).await,
        RulesCommand::Set(args) => {
            let faults = |faults: Vec<String>| CommandError::Usage(faults.join("\n"));
            set(place, &args.given().map_err(faults)?).await
        }
    }
}

async fn show(place: Place<'_>) -> Result<Said, CommandError> {
    let epochs = place.store().await?.epochs().await?;
    let mut said = Said { answer: table(&epochs, place.now_ms), ..Said::default() };
    if epochs.is_empty() {
        said.note = "No rules are stored yet: the first start of serve stores those it is \
                     configured with.\n"
            .to_owned();
    }
    Ok(said)
}

async fn set(place: Place<'_>, given: &GivenRules) -> Result<Said, CommandError> {
    let mut store = place.store().await?;
    for _ in 0..ATTEMPTS {
        let there = store.epochs().await?;
        let Some(last) = there.last() else {
            return Err(CommandError::Refused(
                "no rules are stored yet: the first start of serve stores those it is configured \
                 with; after that they change by rules set"
                    .to_owned(),
            ));
        };
        // A clock that is behind must not take what has begun for what has not.
        let newest_s = store.extent().await?.map_or(0, |(_, newest_s)| newest_s);
        let newest_ms = i64::try_from(newest_s.saturating_mul(1000)).unwrap_or(i64::MAX);
        let now_ms = place.now_ms.max(newest_ms);
        let Some(planned) = plan(&there, &given.over(last), now_ms) else {
            let note = "Nothing differs from the rules above, and nothing was changed.\n";
            let answer = table(&there, now_ms);
            return Ok(Said { answer, note: note.to_owned(), told: false });
        };
        let change = Change { there, planned };
        if store.change_epochs(&change.to_store(), &place.by()).await? {
            let mut said = change.said(now_ms);
            if now_ms > place.now_ms.saturating_add(AHEAD_MS_MAX) {
                said.note.push_str(
                    "This host's clock is behind the newest stored part: times count from that \
                     part. Is the clock right?\n",
                );
            }
            return Ok(said);
        }
    }
    Err(CommandError::Refused(
        "somebody else changed the rules at the same moment; see: rules show".to_owned(),
    ))
}

/// A change of the epochs, with those before it.
struct Change {
    there: Vec<Epoch>,
    planned: Planned,
}

impl Change {
    /// Those that stay, and those that go.
    fn stay_and_go(&self) -> (&[Epoch], &[Epoch]) {
        self.there.split_at(self.planned.kept.min(self.there.len()))
    }

    /// The rules in force and how those that follow differ from them.
    fn differences(&self) -> Vec<Difference> {
        let (stay, _) = self.stay_and_go();
        let both = stay.last().zip(self.planned.epoch.as_ref());
        both.map(|(in_force, epoch)| differences(in_force, epoch)).unwrap_or_default()
    }

    fn to_store(&self) -> EpochChange {
        let (_, go) = self.stay_and_go();
        let mut detail = match &self.planned.epoch {
            Some(epoch) => {
                let each = self.differences();
                let each = each.iter().map(|it| format!(", {} {}", it.name, it.second));
                format!("from {}{}", stamp(epoch.start_s), each.collect::<String>())
            }
            None => "the rules in force stay".to_owned(),
        };
        for gone in go {
            write!(detail, "; not from {} what was announced", stamp(gone.start_s)).ok();
        }
        let (there, Planned { kept, epoch }) = (self.there.clone(), self.planned.clone());
        EpochChange { there, kept, epoch, detail }
    }

    fn said(&self, now_ms: i64) -> Said {
        let (stay, go) = self.stay_and_go();
        let now = [stay, self.planned.epoch.as_slice()].concat();
        let mut note = String::new();
        for gone in go {
            let what = stamp(gone.start_s);
            writeln!(note, "The rules that were announced for {what} are withdrawn.").ok();
        }
        if let Some(epoch) = &self.planned.epoch {
            let each: Vec<String> = self
                .differences()
                .iter()
                .map(|it| format!("{} {} (now {})", it.name, it.second, it.first))
                .collect();
            let from = stamp(epoch.start_s);
            writeln!(note, "From {from} on: {}.", each.join(", ")).ok();
        }
        note.push_str(
            "A running serve takes this over when it closes the next round. Settings of serve that \
             say otherwise change nothing: serve and check name them.\n",
        );
        Said { answer: table(&now, now_ms), note, told: false }
    }
}

/// The rules in force and those announced, one epoch a line: state, since when, each rule.
fn table(epochs: &[Epoch], now_ms: i64) -> String {
    let now_s = super::second_of(now_ms);
    let begun = epochs.partition_point(|epoch| epoch.start_s <= now_s).max(1);
    let mut lines = String::new();
    for (number, epoch) in epochs.iter().enumerate().skip(begun - 1) {
        let state = if number < begun { "in-force" } else { "announced" };
        // The first holds for all that was before, too.
        let since = if number == 0 { "the-beginning".to_owned() } else { stamp(epoch.start_s) };
        write!(lines, "{state}\t{since}").ok();
        for rule in &RULES {
            write!(lines, "\t{}={}", rule.name, rule.of(epoch)).ok();
        }
        let fixed =
            [("direct-attempts", epoch.direct_attempts), ("retire-after-s", epoch.retire_after_s)];
        for (name, value) in fixed {
            write!(lines, "\t{name}={value}").ok();
        }
        lines.push('\n');
    }
    lines
}
