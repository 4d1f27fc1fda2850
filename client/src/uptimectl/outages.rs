//! `outages`: when a node was down, and for how long.

use anyhow::Result;
use serde::Serialize;
use uptime_client::v1::{self, Freshness};
use uptime_client::{Answer, Client};

use crate::args::{OutagesArgs, Output};
use crate::fresh::FreshnessRecord;
use crate::listing;
use crate::output::{self, Reply};
use crate::screen::{Colour, Screen};
use crate::table::{self, Cell, Column};
use crate::text::{counted, span, stamp};
use crate::window;

/// An outage as it stands in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct OutageRecord {
    from_unix_s: u64,
    to_unix_s: u64,
    length_s: u64,
    open: bool,
    unknown_s: u64,
    unknown_stretches: Vec<StretchRecord>,
}

/// A stretch within an outage in which nobody could tell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct StretchRecord {
    from_unix_s: u64,
    to_unix_s: u64,
}

#[derive(Serialize)]
struct OutagesDocument {
    freshness: FreshnessRecord,
    id: String,
    outages: Vec<OutageRecord>,
}

impl From<v1::Outage> for OutageRecord {
    fn from(outage: v1::Outage) -> Self {
        let stretch = |window: v1::Window| StretchRecord {
            from_unix_s: window.from_unix_s,
            to_unix_s: window.to_unix_s,
        };
        let stretches: Vec<_> = outage.unknown_stretches.into_iter().map(stretch).collect();
        let lengths = stretches.iter().map(|s| s.to_unix_s.saturating_sub(s.from_unix_s));
        Self {
            from_unix_s: outage.from_unix_s,
            to_unix_s: outage.to_unix_s,
            length_s: outage.to_unix_s.saturating_sub(outage.from_unix_s),
            open: outage.open,
            unknown_s: lengths.fold(0, u64::saturating_add),
            unknown_stretches: stretches,
        }
    }
}

impl OutageRecord {
    /// The columns of CSV: the fields of JSON, stretches as FROM-TO joined by `;`.
    const HEADER: [&str; 6] =
        ["from_unix_s", "to_unix_s", "length_s", "open", "unknown_s", "unknown_stretches"];

    fn row(self) -> [String; 6] {
        let stretch = |s: &StretchRecord| format!("{}-{}", s.from_unix_s, s.to_unix_s);
        [
            self.from_unix_s.to_string(),
            self.to_unix_s.to_string(),
            self.length_s.to_string(),
            self.open.to_string(),
            self.unknown_s.to_string(),
            self.unknown_stretches.iter().map(stretch).collect::<Vec<_>>().join(";"),
        ]
    }
}

/// Answers `outages`.
pub(crate) async fn reply(client: &Client, args: &OutagesArgs, screen: &Screen) -> Result<Reply> {
    let window = args.window.resolve(client).await?;
    let collect = async || listing::rows(client.outages(&args.id, window), args.limit).await;
    let (Answer { value: outages, freshness }, more) = listing::whole(collect).await?;
    let records: Vec<OutageRecord> = outages.into_iter().map(OutageRecord::from).collect();
    let mut notes = vec![window::words(&window, &freshness)];
    notes.push(sum(&records, more));
    let text = match args.how.output {
        Output::Table => {
            let printed = table(&records, &freshness, screen);
            notes.extend(printed.note());
            printed.text
        }
        Output::Json => {
            let (id, freshness) = (args.id.to_string(), FreshnessRecord::from(&freshness));
            output::json(&OutagesDocument { freshness, id, outages: records })?
        }
        Output::Csv => {
            output::csv(OutageRecord::HEADER, records.into_iter().map(OutageRecord::row))?
        }
    };
    Ok(Reply { notes, ..Reply::new(text, freshness) })
}

/// What they come to. Length less what is unknown is what `uptime` counts as down.
fn sum(records: &[OutageRecord], more: bool) -> String {
    let sum = |of: fn(&OutageRecord) -> u64| records.iter().map(of).fold(0, u64::saturating_add);
    let unknown = match sum(|record| record.unknown_s) {
        0 => String::new(),
        unknown_s => format!(", {} of it unknown", span(unknown_s)),
    };
    match records.len() as u64 {
        0 => "no outage in it".to_owned(),
        count if more => format!("the first {} in it", counted(count, "outage")),
        count => {
            let length = span(sum(|record| record.length_s));
            format!("{} in it, {length} in all{unknown}", counted(count, "outage"))
        }
    }
}

const COLUMNS: [Column; 5] = [
    Column::left("FROM"),
    Column::left("TO"),
    Column::right("LENGTH"),
    Column::right("UNKNOWN").spare(1),
    Column::left("REMARKS").cut_to(8).spare(0),
];

fn table(records: &[OutageRecord], fresh: &Freshness, screen: &Screen) -> table::Printed {
    let closed_end_s =
        fresh.last_closed_round_unix_s.saturating_add(u64::from(fresh.round_period_s));
    let row = |record: &OutageRecord| -> Vec<Cell> {
        let remark = match record.open {
            true if record.to_unix_s < closed_end_s => {
                Cell::coloured("open: unknown since", Colour::Yellow)
            }
            true => Cell::coloured("open: still down", Colour::Red),
            false => Cell::from(String::new()),
        };
        vec![
            stamp(record.from_unix_s).into(),
            stamp(record.to_unix_s).into(),
            span(record.length_s).into(),
            if record.unknown_s == 0 { String::new() } else { span(record.unknown_s) }.into(),
            remark,
        ]
    };
    let rows: Vec<Vec<Cell>> = records.iter().map(row).collect();
    table::print(&COLUMNS, &rows, screen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fresh::tests::fresh;

    fn outage() -> v1::Outage {
        let stretch = |from_unix_s, to_unix_s| v1::Window { from_unix_s, to_unix_s };
        v1::Outage {
            from_unix_s: 1_769_860_800,
            to_unix_s: 1_769_862_900,
            open: true,
            unknown_stretches: vec![
                stretch(1_769_861_000, 1_769_861_060),
                stretch(1_769_862_000, 1_769_862_030),
            ],
        }
    }

    #[test]
    fn what_nobody_could_tell_is_shown_within_an_outage() {
        let record = OutageRecord::from(outage());
        assert_eq!((record.length_s, record.unknown_s), (2_100, 90));
        let row = "1769860800,1769862900,2100,true,90,1769861000-1769861060;1769862000-1769862030";
        assert_eq!(record.clone().row().join(","), row);
        let value = serde_json::to_value(&record).unwrap();
        assert!(OutageRecord::HEADER.iter().all(|name| value.get(name).is_some()));
        assert_eq!(value.as_object().unwrap().len(), OutageRecord::HEADER.len());
    }

    #[test]
    fn figures_that_cannot_be_do_no_harm() {
        let stretch = v1::Window { from_unix_s: 0, to_unix_s: u64::MAX };
        let unknown_stretches = vec![stretch, stretch, v1::Window { from_unix_s: 9, to_unix_s: 1 }];
        let outage = v1::Outage { from_unix_s: 9, to_unix_s: 1, unknown_stretches, ..outage() };
        let record = OutageRecord::from(outage);
        assert_eq!((record.length_s, record.unknown_s), (0, u64::MAX));
        let screen = Screen { width: None, colours: false };
        let fresh = Freshness { round_period_s: u32::MAX, ..fresh() };
        assert_eq!(table(&[record], &fresh, &screen).text.lines().count(), 2);
    }

    #[test]
    fn an_open_outage_that_nobody_could_follow_is_not_said_to_go_on() {
        let screen = Screen { width: None, colours: false };
        let remark = |to_unix_s| {
            let record = OutageRecord::from(v1::Outage { to_unix_s, ..outage() });
            let text = table(&[record], &fresh(), &screen).text;
            text.lines().nth(1).unwrap().split("  ").last().unwrap().to_owned()
        };
        assert_eq!(remark(1_769_862_900), "open: still down");
        assert_eq!(remark(1_769_862_870), "open: unknown since");
    }

    #[test]
    fn unknown_time_is_told_apart_in_the_sum() {
        let closed = v1::Outage { unknown_stretches: vec![], ..outage() };
        let records = [outage(), closed].map(OutageRecord::from);
        assert_eq!(
            sum(&records, false),
            "2 outages in it, 1 h 10 min in all, 1 min 30 s of it unknown"
        );
        assert_eq!(sum(&records[1..], false), "1 outage in it, 35 min in all");
        assert_eq!(sum(&records, true), "the first 2 outages in it");
        assert_eq!(sum(&[], false), "no outage in it");
    }
}
