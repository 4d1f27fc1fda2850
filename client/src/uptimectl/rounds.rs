//! `rounds`: what was decided lately, and by whom.

use anyhow::Result;
use serde::Serialize;
use uptime_client::{Answer, Client, v1};

use crate::args::{Output, RoundsArgs};
use crate::fresh::FreshnessRecord;
use crate::output::{self, Reply};
use crate::probes::{could_not_look, ineligibilities};
use crate::screen::Screen;
use crate::table::{self, Cell, Column};
use crate::text::{clean, number, span, stamp};

/// A round as it stands in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct RoundRecord {
    start_unix_s: u64,
    period_s: u32,
    up: u64,
    down: u64,
    unknown: u64,
    probes_reported: u32,
    probes_eligible: u32,
    probes: Vec<RoundProbeRecord>,
}

/// What one probe did in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct RoundProbeRecord {
    probe: String,
    eligible: bool,
    ineligibilities: Vec<String>,
    could_not_look: Vec<String>,
    offers: u64,
    looked: u64,
    found: u64,
    failed_nodes: u64,
}

#[derive(Serialize)]
struct RoundsDocument {
    freshness: FreshnessRecord,
    rounds: Vec<RoundRecord>,
}

/// The columns of CSV: the fields of JSON without the single probes.
const HEADER: [&str; 7] =
    ["start_unix_s", "period_s", "up", "down", "unknown", "probes_reported", "probes_eligible"];

impl From<v1::Round> for RoundRecord {
    fn from(round: v1::Round) -> Self {
        let probe = |probe: v1::RoundProbe| RoundProbeRecord {
            eligible: probe.eligible,
            ineligibilities: ineligibilities(&probe.ineligibilities),
            could_not_look: could_not_look(&probe.could_not_look),
            offers: probe.offers,
            looked: probe.looked,
            found: probe.found,
            failed_nodes: probe.failed_nodes,
            probe: probe.probe,
        };
        Self {
            start_unix_s: round.start_unix_s,
            period_s: round.period_s,
            up: round.up,
            down: round.down,
            unknown: round.unknown,
            probes_reported: round.probes_reported,
            probes_eligible: round.probes_eligible,
            probes: round.probes.into_iter().map(probe).collect(),
        }
    }
}

/// Answers `rounds`.
pub(crate) async fn reply(client: &Client, args: &RoundsArgs, screen: &Screen) -> Result<Reply> {
    let Answer { value: rounds, freshness } = client.rounds(args.limit as usize).await?;
    let mut notes = Vec::new();
    let records: Vec<RoundRecord> = rounds.into_iter().map(RoundRecord::from).collect();
    let text = match args.how.output {
        Output::Table => {
            let printed = table(&records, screen);
            notes.extend(printed.note());
            printed.text
        }
        Output::Json => {
            let freshness = FreshnessRecord::from(&freshness);
            output::json(&RoundsDocument { freshness, rounds: records })?
        }
        Output::Csv => output::csv(HEADER, records.iter().map(row))?,
    };
    Ok(Reply { notes, ..Reply::new(text, freshness) })
}

fn row(record: &RoundRecord) -> [String; 7] {
    [
        record.start_unix_s.to_string(),
        record.period_s.to_string(),
        record.up.to_string(),
        record.down.to_string(),
        record.unknown.to_string(),
        record.probes_reported.to_string(),
        record.probes_eligible.to_string(),
    ]
}

const COLUMNS: [Column; 8] = [
    Column::left("ROUND"),
    Column::right("LENGTH").spare(1),
    Column::right("UP"),
    Column::right("DOWN"),
    Column::right("UNKNOWN"),
    Column::right("PROBES"),
    Column::right("ELIGIBLE"),
    Column::left("REMARKS").cut_to(12).spare(0),
];

fn remarks(record: &RoundRecord) -> String {
    let mut remarks = Vec::new();
    for probe in &record.probes {
        let reasons = probe.ineligibilities.iter().chain(&probe.could_not_look);
        let reasons: Vec<&str> = reasons.map(String::as_str).collect();
        if !reasons.is_empty() {
            remarks.push(format!("{}: {}", clean(&probe.probe), reasons.join(", ")));
        }
    }
    remarks.join("; ")
}

fn table(records: &[RoundRecord], screen: &Screen) -> table::Printed {
    let row = |record: &RoundRecord| -> Vec<Cell> {
        vec![
            stamp(record.start_unix_s).into(),
            span(record.period_s.into()).into(),
            number(record.up).into(),
            number(record.down).into(),
            number(record.unknown).into(),
            number(record.probes_reported.into()).into(),
            number(record.probes_eligible.into()).into(),
            remarks(record).into(),
        ]
    };
    let rows: Vec<Vec<Cell>> = records.iter().map(row).collect();
    table::print(&COLUMNS, &rows, screen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round() -> v1::Round {
        let probe = |name: &str, ineligibilities| v1::RoundProbe {
            probe: name.to_owned(),
            eligible: true,
            ineligibilities,
            could_not_look: vec![],
            offers: 10,
            looked: 9,
            found: 8,
            failed_nodes: 1,
        };
        v1::Round {
            start_unix_s: 1_769_862_870,
            period_s: 30,
            up: 1_340,
            down: 12,
            unknown: 0,
            probes_reported: 2,
            probes_eligible: 1,
            probes: vec![probe("alpha", vec![]), probe("beta", vec![3])],
        }
    }

    #[test]
    fn a_round_names_the_probes_that_could_not() {
        let text = table(&[round().into()], &Screen { width: None, colours: false }).text;
        let row = "2026-01-31 12:34:30 UTC    30 s  1,340    12        0       2         1  beta: \
                   mass_loss";
        assert_eq!(text.lines().nth(1), Some(row));
    }

    #[test]
    fn csv_has_fields_of_json() {
        let record = RoundRecord::from(round());
        let value = serde_json::to_value(&record).unwrap();
        assert!(HEADER.iter().all(|name| value.get(name).is_some()));
        assert_eq!(row(&record).join(","), "1769862870,30,1340,12,0,2,1");
    }
}
