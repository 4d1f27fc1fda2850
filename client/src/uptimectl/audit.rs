//! `audit`: who did what about identities, and who was refused why.

use anyhow::Result;
use serde::Serialize;
use uptime_client::{Client, v1};

use crate::args::{AuditArgs, Output};
use crate::output::{self, Reply};
use crate::screen::Screen;
use crate::table::{self, Cell, Column};
use crate::text::{clean, number, second, stamp};

/// A line of the audit log as it stands in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct EventRecord {
    at_unix_ms: i64,
    actor: String,
    action: String,
    subject: String,
    count: u64,
    detail: String,
}

#[derive(Serialize)]
struct EventsDocument {
    events: Vec<EventRecord>,
}

/// The columns of CSV: the fields of JSON.
const HEADER: [&str; 6] = ["at_unix_ms", "actor", "action", "subject", "count", "detail"];

impl From<v1::AuditEvent> for EventRecord {
    fn from(event: v1::AuditEvent) -> Self {
        let v1::AuditEvent { at_unix_ms, actor, action, subject, detail, count } = event;
        Self { at_unix_ms, actor, action, subject, count, detail }
    }
}

/// Answers `audit`.
pub(crate) async fn reply(client: &Client, args: &AuditArgs, screen: &Screen) -> Result<Reply> {
    let events = client.audit_log(args.limit as usize).await?;
    let records: Vec<EventRecord> = events.into_iter().map(EventRecord::from).collect();
    let mut notes = Vec::new();
    let text = match args.how.output {
        Output::Table => {
            let printed = table(&records, screen);
            notes.extend(printed.note());
            printed.text
        }
        Output::Json => output::json(&EventsDocument { events: records })?,
        Output::Csv => output::csv(HEADER, records.iter().map(row))?,
    };
    Ok(Reply { notes, ..Reply::of_our_own(text) })
}

fn row(record: &EventRecord) -> [String; 6] {
    [
        record.at_unix_ms.to_string(),
        record.actor.clone(),
        record.action.clone(),
        record.subject.clone(),
        record.count.to_string(),
        record.detail.clone(),
    ]
}

const COLUMNS: [Column; 6] = [
    Column::left("AT"),
    Column::left("WHO").cut_to(12),
    Column::left("WHAT"),
    Column::left("WHOM").cut_to(8),
    Column::right("TIMES").spare(1),
    Column::left("MORE").cut_to(12).spare(0),
];

fn table(records: &[EventRecord], screen: &Screen) -> table::Printed {
    let row = |record: &EventRecord| -> Vec<Cell> {
        vec![
            stamp(second(record.at_unix_ms)).into(),
            clean(&record.actor).into_owned().into(),
            clean(&record.action).into_owned().into(),
            clean(&record.subject).into_owned().into(),
            number(record.count).into(),
            clean(&record.detail).into_owned().into(),
        ]
    };
    let rows: Vec<Vec<Cell>> = records.iter().map(row).collect();
    table::print(&COLUMNS, &rows, screen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> v1::AuditEvent {
        v1::AuditEvent {
            at_unix_ms: 1_769_862_870_123,
            actor: "10.0.0.7".to_owned(),
            action: "refused: ended-token".to_owned(),
            subject: "alpha".to_owned(),
            detail: "/golem.uptime.v1.Collector/Connect".to_owned(),
            count: 3,
        }
    }

    #[test]
    fn a_stolen_token_is_seen_at_a_glance() {
        let text = table(&[event().into()], &Screen { width: None, colours: false }).text;
        let row = "2026-01-31 12:34:30 UTC  10.0.0.7  refused: ended-token  alpha      3  \
                   /golem.uptime.v1.Collector/Connect";
        assert_eq!(text.lines().nth(1), Some(row));
    }

    #[test]
    fn csv_has_the_fields_of_json() {
        let record = EventRecord::from(event());
        let value = serde_json::to_value(&record).unwrap();
        assert!(HEADER.iter().all(|name| value.get(name).is_some()));
        let wanted = "1769862870123,10.0.0.7,refused: ended-token,alpha,3,\
                      /golem.uptime.v1.Collector/Connect";
        assert_eq!(row(&record).join(","), wanted);
    }
}
