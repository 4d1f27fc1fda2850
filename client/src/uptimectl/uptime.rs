//! `uptime`: how much of a window nodes were up, and how sure that is.

use std::collections::BTreeSet;

use anyhow::Result;
use serde::Serialize;
use uptime_client::{Answer, Client, NodeId, UptimeQuestion, v1};

use crate::args::{Output, UptimeArgs};
use crate::fresh::FreshnessRecord;
use crate::listing;
use crate::nodes::verdict_text;
use crate::output::{self, Reply, field};
use crate::screen::{Colour, Screen};
use crate::table::{self, Cell, Column};
use crate::text::{brief, clean, counted, number, percent, stamp};
use crate::window;

/// Some of the nodes that were named are not known.
const EXIT_NOT_KNOWN: u8 = 1;

/// A node's figures as they stand in JSON. Those of a node that is not known are null.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct UptimeRecord {
    id: String,
    known: bool,
    uptime_percent: Option<f64>,
    coverage_percent: Option<f64>,
    up_s: Option<u64>,
    down_s: Option<u64>,
    unknown_s: Option<u64>,
    up_rounds: Option<u64>,
    down_rounds: Option<u64>,
    unknown_rounds: Option<u64>,
    from_unix_s: Option<u64>,
    to_unix_s: Option<u64>,
    /// How it stood at the end of the window.
    verdict: Option<&'static str>,
    is_online: Option<bool>,
    first_up_unix_s: Option<u64>,
    up_until_unix_s: Option<u64>,
    /// Where they were asked for and there are any.
    round_trips: Option<u64>,
    round_trip_min_us: Option<u32>,
    round_trip_mean_us: Option<u32>,
    round_trip_max_us: Option<u32>,
}

#[derive(Serialize)]
struct UptimeDocument {
    freshness: FreshnessRecord,
    nodes: Vec<UptimeRecord>,
}

impl From<v1::NodeUptime> for UptimeRecord {
    fn from(node: v1::NodeUptime) -> Self {
        let figures = node.figures;
        let window = figures.and_then(|figures| figures.window);
        let verdict = node.verdict.map(|_| verdict_text(node.verdict()));
        Self {
            id: node.id,
            known: figures.is_some(),
            uptime_percent: figures.and_then(|figures| figures.uptime_percent),
            coverage_percent: figures.and_then(|figures| figures.coverage_percent),
            up_s: figures.map(|figures| figures.up_s),
            down_s: figures.map(|figures| figures.down_s),
            unknown_s: figures.map(|figures| figures.unknown_s),
            up_rounds: figures.map(|figures| figures.up_rounds),
            down_rounds: figures.map(|figures| figures.down_rounds),
            unknown_rounds: figures.map(|figures| figures.unknown_rounds),
            from_unix_s: window.map(|window| window.from_unix_s),
            to_unix_s: window.map(|window| window.to_unix_s),
            verdict,
            is_online: node.is_online,
            first_up_unix_s: node.first_up_unix_s,
            up_until_unix_s: node.up_until_unix_s,
            round_trips: node.latency.map(|latency| latency.samples),
            round_trip_min_us: node.latency.map(|latency| latency.min_us),
            round_trip_mean_us: node.latency.map(|latency| latency.mean_us),
            round_trip_max_us: node.latency.map(|latency| latency.max_us),
        }
    }
}

impl UptimeRecord {
    /// The columns of CSV: the fields of JSON.
    const HEADER: [&str; 20] = [
        "id",
        "known",
        "uptime_percent",
        "coverage_percent",
        "up_s",
        "down_s",
        "unknown_s",
        "up_rounds",
        "down_rounds",
        "unknown_rounds",
        "from_unix_s",
        "to_unix_s",
        "verdict",
        "is_online",
        "first_up_unix_s",
        "up_until_unix_s",
        "round_trips",
        "round_trip_min_us",
        "round_trip_mean_us",
        "round_trip_max_us",
    ];

    fn row(self) -> [String; 20] {
        [
            self.id,
            self.known.to_string(),
            field(self.uptime_percent),
            field(self.coverage_percent),
            field(self.up_s),
            field(self.down_s),
            field(self.unknown_s),
            field(self.up_rounds),
            field(self.down_rounds),
            field(self.unknown_rounds),
            field(self.from_unix_s),
            field(self.to_unix_s),
            field(self.verdict),
            field(self.is_online),
            field(self.first_up_unix_s),
            field(self.up_until_unix_s),
            field(self.round_trips),
            field(self.round_trip_min_us),
            field(self.round_trip_mean_us),
            field(self.round_trip_max_us),
        ]
    }
}

/// Answers `uptime`.
pub(crate) async fn reply(client: &Client, args: &UptimeArgs, screen: &Screen) -> Result<Reply> {
    let window = args.window.resolve(client).await?;
    let question = UptimeQuestion { window, with_latency: args.latency };
    // Who names a node twice hears of it once.
    let mut named = BTreeSet::new();
    let ids: Vec<NodeId> = args.ids.iter().copied().filter(|id| named.insert(*id)).collect();
    let collect = async || {
        let pages = match ids.is_empty() {
            true => client.uptime_of_all(question),
            false => client.uptime(&ids, question),
        };
        listing::rows(pages, args.limit).await
    };
    let (Answer { value: nodes, freshness }, more) = listing::whole(collect).await?;
    let records: Vec<UptimeRecord> = nodes.into_iter().map(UptimeRecord::from).collect();
    let not_known = records.iter().filter(|record| !record.known).count() as u64;
    let mut notes = vec![window::words(&window, &freshness)];
    if more {
        notes.push(format!("the first {}", counted(records.len() as u64, "node")));
    }
    if not_known > 0 {
        let all = counted(records.len() as u64, "node");
        notes.push(format!("not known, as never seen or not confirmed: {not_known} of {all}"));
    } else if records.is_empty() {
        notes.push("no node is known yet".to_owned());
    }
    let status = if not_known > 0 { EXIT_NOT_KNOWN } else { 0 };
    let text = match args.how.output {
        Output::Table => {
            let printed = table(&records, args.latency, screen);
            notes.extend(printed.note());
            printed.text
        }
        Output::Json => {
            let freshness = FreshnessRecord::from(&freshness);
            output::json(&UptimeDocument { freshness, nodes: records })?
        }
        Output::Csv => {
            output::csv(UptimeRecord::HEADER, records.into_iter().map(UptimeRecord::row))?
        }
    };
    Ok(Reply { notes, status, ..Reply::new(text, freshness) })
}

/// The last only where latency is asked for.
const COLUMNS: [Column; 11] = [
    Column::left("ID").cut_to(12),
    Column::right("UPTIME"),
    Column::right("COVERAGE"),
    Column::right("UP").spare(1),
    Column::right("DOWN"),
    Column::right("UNKNOWN").spare(2),
    Column::right("ROUNDS").spare(0),
    Column::left("AT ITS END").spare(4),
    Column::left("UP UNTIL").spare(5),
    Column::left("FROM").spare(3),
    Column::left("ROUND TRIP"),
];

fn table(records: &[UptimeRecord], with_latency: bool, screen: &Screen) -> table::Printed {
    let row = |record: &UptimeRecord| -> Vec<Cell> {
        let time = |seconds: Option<u64>| seconds.map_or_else(|| "-".to_owned(), brief);
        let rounds = record.up_rounds.zip(record.down_rounds);
        let rounds = rounds.map(|(up, down)| number(up.saturating_add(down)));
        vec![
            clean(&record.id).into_owned().into(),
            match record.known {
                true => Cell::from(percent(record.uptime_percent)),
                false => Cell::coloured("not known", Colour::Yellow),
            },
            percent(record.coverage_percent).into(),
            time(record.up_s).into(),
            time(record.down_s).into(),
            time(record.unknown_s).into(),
            rounds.unwrap_or_else(|| "-".to_owned()).into(),
            record.verdict.unwrap_or_default().to_owned().into(),
            record.up_until_unix_s.map_or_else(String::new, stamp).into(),
            record.from_unix_s.map_or_else(String::new, stamp).into(),
        ]
    };
    let mut rows: Vec<Vec<Cell>> = records.iter().map(row).collect();
    if !with_latency {
        let columns = COLUMNS.split_last().map_or(&[][..], |(_, columns)| columns);
        return table::print(columns, &rows, screen);
    }
    for (row, record) in rows.iter_mut().zip(records) {
        row.push(round_trip(record).into());
    }
    table::print(&COLUMNS, &rows, screen)
}

fn round_trip(record: &UptimeRecord) -> String {
    let UptimeRecord { round_trip_min_us, round_trip_mean_us, round_trip_max_us, .. } = record;
    let (Some(min_us), Some(mean_us), Some(max_us)) =
        (round_trip_min_us, round_trip_mean_us, round_trip_max_us)
    else {
        return "-".to_owned();
    };
    let ms = |us: &u32| format!("{}.{}", us / 1000, us % 1000 / 100);
    format!("{} ms ({} to {})", ms(mean_us), ms(min_us), ms(max_us))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_has_the_fields_of_json() {
        let figures = Some(v1::UptimeFigures::default());
        let record =
            UptimeRecord::from(v1::NodeUptime { id: "0x1".into(), figures, ..Default::default() });
        let value = serde_json::to_value(&record).unwrap();
        let mut names: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
        let mut header = UptimeRecord::HEADER.to_vec();
        names.sort_unstable();
        header.sort_unstable();
        assert_eq!(names, header);
        assert_eq!(record.row().join(","), "0x1,true,,,0,0,0,0,0,0,,,,,,,,,,");
        let unknown = UptimeRecord::from(v1::NodeUptime { id: "0x1".into(), ..Default::default() });
        assert_eq!(unknown.row().join(","), "0x1,false,,,,,,,,,,,,,,,,,,");
    }

    #[test]
    fn round_trips_are_shown_in_milliseconds() {
        let latency = v1::Latency { samples: 3, min_us: 999, mean_us: 12_345, max_us: 1_000_060 };
        let node = v1::NodeUptime { latency: Some(latency), ..Default::default() };
        assert_eq!(round_trip(&node.into()), "12.3 ms (0.9 to 1000.0)");
        assert_eq!(round_trip(&v1::NodeUptime::default().into()), "-");
    }
}
