//! `probes`: the probes and their state.

use anyhow::Result;
use serde::Serialize;
use uptime_client::v1::{self, Freshness, Ineligibility};
use uptime_client::{Answer, Client};
use uptime_proto::Reason;
use uptime_proto::clock::{CONTRADICTS_MS, KernelClock};
use uptime_proto::words::{ahead_or_behind, gave_errors};

use crate::args::{Output, OutputArgs};
use crate::fresh::{FreshnessRecord, ago_s};
use crate::output::{self, Reply, field};
use crate::screen::{Colour, Screen};
use crate::table::{self, Cell, Column};
use crate::text::{brief, clean, number, second};

/// A probe as it stands in JSON. What is counted, is counted since the aggregator's start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct ProbeRecord {
    name: String,
    connected: bool,
    revoked: bool,
    eligible: bool,
    ineligibilities: Vec<String>,
    could_not_look: Vec<String>,
    last_report_unix_ms: Option<i64>,
    last_round_unix_s: Option<u64>,
    parts_accepted: u64,
    parts_refused: u64,
    conflicts: u64,
    assigned_nodes: u64,
    software_version: String,
    subnets: Vec<String>,
    gaps: Vec<GapRecord>,
    /// Nodes for which its daemon gave an error; this does not make it ineligible.
    failed_nodes: u64,
    /// Its clock less the aggregator's, right within `clock_error_ms`.
    clock_offset_ms: Option<i64>,
    clock_error_ms: Option<u64>,
    /// What its kernel says of its clock: synchronised, unsynchronised or unknown.
    kernel_clock: &'static str,
    /// Whether its clock counts in what the aggregator thinks of its own.
    clock_votes: bool,
}

/// Rounds for which a probe reported that it has no data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct GapRecord {
    from_unix_s: u64,
    /// Exclusive.
    to_unix_s: u64,
    reason: String,
}

impl From<&v1::ProbeGap> for GapRecord {
    fn from(gap: &v1::ProbeGap) -> Self {
        Self {
            from_unix_s: gap.from_round_unix_s,
            to_unix_s: gap.to_round_unix_s,
            reason: could_not_look(&[gap.reason]).concat(),
        }
    }
}

#[derive(Serialize)]
struct ProbesDocument {
    freshness: FreshnessRecord,
    probes: Vec<ProbeRecord>,
}

/// The stable texts of reasons not to count a probe's negative votes.
pub(crate) fn ineligibilities(wire: &[i32]) -> Vec<String> {
    let text = |value: &i32| match Ineligibility::try_from(*value) {
        Ok(reason) => {
            let name = reason.as_str_name();
            name.strip_prefix("INELIGIBILITY_").unwrap_or(name).to_lowercase()
        }
        Err(_) => format!("reason_{value}"),
    };
    wire.iter().map(text).collect()
}

/// The stable texts of reasons why a probe could not look.
pub(crate) fn could_not_look(wire: &[i32]) -> Vec<String> {
    let text = |value: &i32| {
        Reason::from_wire(*value).map_or_else(|| format!("reason_{value}"), |r| r.to_string())
    };
    wire.iter().map(text).collect()
}

impl From<v1::Probe> for ProbeRecord {
    fn from(probe: v1::Probe) -> Self {
        Self {
            connected: probe.connected,
            revoked: probe.revoked,
            eligible: probe.eligible,
            ineligibilities: ineligibilities(&probe.ineligibilities),
            could_not_look: could_not_look(&probe.could_not_look),
            last_report_unix_ms: Some(probe.last_report_unix_ms).filter(|ms| *ms != 0),
            last_round_unix_s: Some(probe.last_round_unix_s).filter(|s| *s != 0),
            parts_accepted: probe.parts_accepted,
            parts_refused: probe.parts_refused,
            conflicts: probe.conflicts,
            assigned_nodes: probe.assigned_nodes,
            name: probe.name,
            software_version: probe.software_version,
            subnets: probe.subnets,
            gaps: probe.gaps.iter().map(GapRecord::from).collect(),
            failed_nodes: probe.failed_nodes,
            clock_offset_ms: probe.clock_offset_ms,
            clock_error_ms: probe.clock_offset_ms.map(|_| probe.clock_error_ms),
            kernel_clock: KernelClock::from_wire(probe.kernel_clock).as_str(),
            clock_votes: probe.clock_votes,
        }
    }
}

impl ProbeRecord {
    /// The columns of CSV: the fields of JSON, lists joined by `;`.
    const HEADER: [&str; 20] = [
        "name",
        "connected",
        "revoked",
        "eligible",
        "ineligibilities",
        "could_not_look",
        "last_report_unix_ms",
        "last_round_unix_s",
        "parts_accepted",
        "parts_refused",
        "conflicts",
        "assigned_nodes",
        "software_version",
        "subnets",
        "gaps",
        "failed_nodes",
        "clock_offset_ms",
        "clock_error_ms",
        "kernel_clock",
        "clock_votes",
    ];

    fn row(self) -> [String; 20] {
        let gap = |gap: GapRecord| format!("{}-{} {}", gap.from_unix_s, gap.to_unix_s, gap.reason);
        let gaps: Vec<String> = self.gaps.into_iter().map(gap).collect();
        [
            self.name,
            self.connected.to_string(),
            self.revoked.to_string(),
            self.eligible.to_string(),
            self.ineligibilities.join(";"),
            self.could_not_look.join(";"),
            field(self.last_report_unix_ms),
            field(self.last_round_unix_s),
            self.parts_accepted.to_string(),
            self.parts_refused.to_string(),
            self.conflicts.to_string(),
            self.assigned_nodes.to_string(),
            self.software_version,
            self.subnets.join(";"),
            gaps.join(";"),
            self.failed_nodes.to_string(),
            field(self.clock_offset_ms),
            field(self.clock_error_ms),
            self.kernel_clock.to_owned(),
            self.clock_votes.to_string(),
        ]
    }
}

/// Answers `probes`.
pub(crate) async fn reply(client: &Client, args: OutputArgs, screen: &Screen) -> Result<Reply> {
    let Answer { value: probes, freshness } = client.probes().await?;
    let mut notes = Vec::new();
    if probes.is_empty() {
        notes.push("no probe is enrolled yet: uptime-aggregator probe add NAME".to_owned());
    }
    let records: Vec<ProbeRecord> = probes.into_iter().map(ProbeRecord::from).collect();
    let text = match args.output {
        Output::Table => {
            let printed = table(&records, &freshness, screen);
            notes.extend(printed.note());
            printed.text
        }
        Output::Json => {
            let freshness = FreshnessRecord::from(&freshness);
            output::json(&ProbesDocument { freshness, probes: records })?
        }
        Output::Csv => output::csv(ProbeRecord::HEADER, records.into_iter().map(ProbeRecord::row))?,
    };
    Ok(Reply { notes, ..Reply::new(text, freshness) })
}

const COLUMNS: [Column; 11] = [
    Column::left("PROBE").cut_to(12),
    Column::left("CONNECTED"),
    Column::left("ELIGIBLE"),
    Column::right("LAST REPORT"),
    Column::right("ACCEPTED").spare(2),
    Column::right("REFUSED").spare(1),
    Column::right("CONFLICTS").spare(1),
    Column::right("NODES").spare(3),
    Column::left("VERSION").cut_to(8).spare(5),
    Column::left("SUBNETS").cut_to(8).spare(4),
    Column::left("REMARKS").cut_to(16),
];

fn remarks(record: &ProbeRecord, fresh: &Freshness) -> String {
    let mut remarks = Vec::new();
    if record.revoked {
        remarks.push("revoked".to_owned());
    }
    if !record.ineligibilities.is_empty() {
        remarks.push(format!("not counted: {}", record.ineligibilities.join(", ")));
    }
    if !record.could_not_look.is_empty() {
        remarks.push(format!("could not look: {}", record.could_not_look.join(", ")));
    }
    if record.failed_nodes > 0 {
        remarks.push(gave_errors(record.failed_nodes));
    }
    if let Some(offset_ms) = record.clock_offset_ms.filter(|it| it.abs() > CONTRADICTS_MS) {
        let where_to = ahead_or_behind(offset_ms);
        let apart = brief(offset_ms.unsigned_abs() / 1_000);
        remarks.push(format!("its clock is {apart} {where_to} the aggregator's"));
    }
    // The last one: JSON and CSV have them all.
    if let Some(gap) = record.gaps.last() {
        let lasted = brief(gap.to_unix_s.saturating_sub(gap.from_unix_s));
        let ended = brief(ago_s(fresh, gap.to_unix_s));
        remarks.push(format!("no report for {lasted} until {ended} ago: {}", gap.reason));
    }
    remarks.join("; ")
}

fn table(records: &[ProbeRecord], fresh: &Freshness, screen: &Screen) -> table::Printed {
    let yes_no = |yes: bool| match yes {
        true => Cell::coloured("yes", Colour::Green),
        false => Cell::coloured("no", Colour::Yellow),
    };
    let row = |record: &ProbeRecord| {
        let report = record.last_report_unix_ms.map(|ms| ago_s(fresh, second(ms)));
        vec![
            clean(&record.name).into_owned().into(),
            yes_no(record.connected),
            yes_no(record.eligible),
            report.map_or_else(|| "never".to_owned(), |ago| brief(ago) + " ago").into(),
            number(record.parts_accepted).into(),
            number(record.parts_refused).into(),
            number(record.conflicts).into(),
            number(record.assigned_nodes).into(),
            clean(&record.software_version).into_owned().into(),
            clean(&record.subnets.join(",")).into_owned().into(),
            remarks(record, fresh).into(),
        ]
    };
    let rows: Vec<Vec<Cell>> = records.iter().map(row).collect();
    table::print(&COLUMNS, &rows, screen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fresh::tests::fresh;

    fn probe() -> v1::Probe {
        v1::Probe {
            name: "alpha".into(),
            connected: true,
            revoked: false,
            software_version: "0.1.0\u{1b}c".into(),
            subnets: vec!["public".into(), "test".into()],
            last_report_unix_ms: 1_769_862_900_000,
            last_round_unix_s: 0,
            eligible: false,
            ineligibilities: vec![Ineligibility::DidNotLook as i32, 77],
            could_not_look: vec![v1::CouldNotLookReason::TimedOut as i32, 78],
            parts_accepted: 1_200,
            parts_refused: 1,
            conflicts: 0,
            assigned_nodes: 340,
            unconfirmed_nodes: 0,
            gaps: Vec::new(),
            failed_nodes: 2,
            clock_offset_ms: Some(-9_500),
            clock_error_ms: 20,
            kernel_clock: v1::KernelClock::Synchronised as i32,
            clock_votes: true,
        }
    }

    #[test]
    fn a_probe_says_what_keeps_it() {
        let records = [ProbeRecord::from(probe())];
        let text = table(&records, &fresh(), &Screen { width: None, colours: false }).text;
        let row = "alpha  yes        no            7 s ago     1,200        1          0    340  \
                   0.1.0\\u{1b}c  public,test  not counted: did_not_look, reason_77; could not \
                   look: timed_out, reason_78; its daemon gave an error for 2 nodes; its clock is \
                   9 s behind the aggregator's";
        assert_eq!(text.lines().nth(1), Some(row));
        let narrow = table(&records, &fresh(), &Screen { width: Some(80), colours: false });
        assert!(narrow.text.lines().all(|line| line.chars().count() <= 80), "{}", narrow.text);
    }

    #[test]
    fn csv_has_the_fields_of_json() {
        let record = ProbeRecord::from(probe());
        let value = serde_json::to_value(&record).unwrap();
        let mut names: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
        let mut header = ProbeRecord::HEADER.to_vec();
        names.sort_unstable();
        header.sort_unstable();
        assert_eq!(names, header);
        assert_eq!(record.row()[4], "did_not_look;reason_77");
    }
}
