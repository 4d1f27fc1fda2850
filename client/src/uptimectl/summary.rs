//! `summary`: the network in a few numbers.

use anyhow::Result;
use serde::Serialize;
use uptime_client::v1::{self, Freshness};
use uptime_client::{Answer, Client};
use uptime_proto::clock::ClockState;

use crate::args::{Output, OutputArgs};
use crate::fresh::{self, FreshnessRecord};
use crate::output::{self, Reply, field};
use crate::screen::{Colour, Screen};
use crate::text::{clean, number, percent};

/// Where values begin.
const INDENT: usize = 15;

/// The numbers as they stand in JSON.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct SummaryRecord {
    nodes: u64,
    online: u64,
    retired: u64,
    unconfirmed: u64,
    coverage_percent: Option<f64>,
    probes_connected: u32,
    probes_eligible: u32,
    /// How far the aggregator trusts its clock: sure, doubtful or wrong; empty: it does not say.
    clock_state: &'static str,
    /// Why it is not sure.
    clock_detail: String,
}

#[derive(Serialize)]
struct SummaryDocument {
    freshness: FreshnessRecord,
    summary: SummaryRecord,
}

impl From<v1::GetSummaryResponse> for SummaryRecord {
    fn from(summary: v1::GetSummaryResponse) -> Self {
        Self {
            nodes: summary.nodes,
            online: summary.online,
            retired: summary.retired,
            unconfirmed: summary.unconfirmed,
            coverage_percent: summary.coverage_percent,
            probes_connected: summary.probes_connected,
            probes_eligible: summary.probes_eligible,
            clock_state: ClockState::from_wire(summary.clock_state).map_or("", ClockState::as_str),
            clock_detail: summary.clock_detail,
        }
    }
}

impl SummaryRecord {
    /// The columns of CSV: the fields of JSON.
    const HEADER: [&str; 9] = [
        "nodes",
        "online",
        "retired",
        "unconfirmed",
        "coverage_percent",
        "probes_connected",
        "probes_eligible",
        "clock_state",
        "clock_detail",
    ];

    fn row(&self) -> [String; 9] {
        [
            self.nodes.to_string(),
            self.online.to_string(),
            self.retired.to_string(),
            self.unconfirmed.to_string(),
            field(self.coverage_percent),
            self.probes_connected.to_string(),
            self.probes_eligible.to_string(),
            self.clock_state.to_owned(),
            self.clock_detail.clone(),
        ]
    }
}

/// Answers `summary`.
pub(crate) async fn reply(client: &Client, args: OutputArgs, screen: &Screen) -> Result<Reply> {
    let Answer { value: summary, freshness } = client.summary().await?;
    let record = SummaryRecord::from(summary);
    let text = match args.output {
        Output::Table => words(&record, &freshness, screen),
        Output::Json => {
            let freshness = FreshnessRecord::from(&freshness);
            output::json(&SummaryDocument { freshness, summary: record })?
        }
        Output::Csv => output::csv(SummaryRecord::HEADER, std::iter::once(record.row()))?,
    };
    let says_freshness = args.output == Output::Table;
    Ok(Reply { says_freshness, ..Reply::new(text, freshness) })
}

fn words(record: &SummaryRecord, fresh: &Freshness, screen: &Screen) -> String {
    let mut text = String::new();
    let mut line = |title: &str, value: &str| text += &format!("{title:<INDENT$}{value}\n");
    line("Nodes", &number(record.nodes));
    line("Last known up", &screen.paint(&number(record.online), Some(Colour::Green)));
    line("Retired", &number(record.retired));
    line("Unconfirmed", &number(record.unconfirmed));
    line("Coverage", &percent(record.coverage_percent));
    let (connected, eligible) = (record.probes_connected, record.probes_eligible);
    let colour = if eligible == 0 { Colour::Red } else { Colour::Green };
    let eligible = screen.paint(&format!("{eligible} counted"), Some(colour));
    line("Probes", &format!("{connected} connected, {eligible}"));
    if !record.clock_detail.is_empty() {
        let state = screen.paint(record.clock_state, Some(Colour::Yellow));
        line("Clock", &format!("{state}: {}", clean(&record.clock_detail)));
    }
    line("As of", &fresh::words(fresh));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_has_the_fields_of_json() {
        let record = SummaryRecord::from(v1::GetSummaryResponse::default());
        let value = serde_json::to_value(&record).unwrap();
        let mut names: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
        let mut header = SummaryRecord::HEADER.to_vec();
        names.sort_unstable();
        header.sort_unstable();
        assert_eq!(names, header);
        assert_eq!(record.row().join(","), "0,0,0,0,,0,0,,");
    }
}
