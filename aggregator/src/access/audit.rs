//! The audit log of refusals: counted at once, written together.
//!
//! Owns what has not been written yet. A refusal costs whoever is refused more than it costs the
//! aggregator: equal ones become one line with a count, lines are bounded, and they are written
//! every few seconds in one transaction.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metrics::counter;
use tokio_util::sync::CancellationToken;

use super::roles::Refusal;
use crate::clock::now_unix_ms;
use crate::ledger::Ledger;
use crate::store::{AuditRecord, REFUSED};

/// Refusals are written so often; also when the process stops.
const WRITE_EVERY: Duration = Duration::from_secs(5);
/// Lines that wait to be written. Beyond that refusals are still counted, in one line per reason
/// that names no address: a crowd of addresses cannot push each other's lines out.
const LINES_WAITING_MAX: usize = 64;
/// A text in a line of the audit log.
const DETAIL_BYTES_MAX: usize = 200;
/// Who is named where there are too many to name.
const MANY: &str = "many addresses";

/// What makes two refusals equal.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    refusal: Refusal,
    actor: String,
    subject: String,
    detail: String,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: HashMap<Key, u64>,
}

/// Takes refusals. A cheap handle.
#[derive(Debug, Clone, Default)]
pub struct Auditor {
    waiting: Arc<Mutex<Waiting>>,
}

impl Auditor {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Each change is one insertion, so a poisoned table is a whole table.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a refusal: of whom as far as that is known, and what was tried.
    pub fn refused(&self, refusal: Refusal, address: IpAddr, subject: Option<&str>, detail: &str) {
        counter!("uptime_access_refused_total", "reason" => refusal.as_str()).increment(1);
        let mut waiting = self.waiting();
        let mut key = Key {
            refusal,
            actor: address.to_string(),
            subject: shortened(subject.unwrap_or_default()),
            detail: shortened(detail),
        };
        if waiting.lines.len() >= LINES_WAITING_MAX && !waiting.lines.contains_key(&key) {
            let (subject, detail) = (String::new(), String::new());
            key = Key { actor: MANY.to_owned(), subject, detail, ..key };
        }
        *waiting.lines.entry(key).or_default() += 1;
    }

    /// Writes what waits.
    async fn write(&self, ledger: &Ledger) {
        let lines = std::mem::take(&mut self.waiting().lines);
        if lines.is_empty() {
            return;
        }
        let at_ms = now_unix_ms();
        let mut records: Vec<AuditRecord> = lines
            .into_iter()
            .map(|(key, count)| AuditRecord {
                number: 0,
                at_ms,
                actor: key.actor,
                action: format!("{REFUSED}{}", key.refusal.as_str()),
                subject: key.subject,
                detail: key.detail,
                count,
            })
            .collect();
        records.sort_by(|a, b| (&a.action, &a.actor).cmp(&(&b.action, &b.actor)));
        for record in &records {
            let AuditRecord { actor, action, subject, detail, count, .. } = record;
            tracing::warn!(actor, action, subject, detail, count, "refused");
        }
        if let Err(error) = ledger.note(records).await {
            tracing::error!(%error, "cannot store refusals in the audit log");
        }
    }

    /// Works until told to stop, and then writes the rest.
    pub async fn run(self, ledger: Ledger, shutdown: CancellationToken) {
        let mut stopping = false;
        while !stopping {
            tokio::select! {
                () = shutdown.cancelled() => stopping = true,
                () = tokio::time::sleep(WRITE_EVERY) => {}
            }
            self.write(&ledger).await;
        }
    }
}

/// Foreign text, bounded and without control characters.
fn shortened(text: &str) -> String {
    let plain = text.chars().map(|letter| if letter.is_control() { '.' } else { letter });
    let mut short = String::new();
    for letter in plain {
        if short.len() + letter.len_utf8() > DETAIL_BYTES_MAX {
            break;
        }
        short.push(letter);
    }
    short
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn address(number: u32) -> IpAddr {
        Ipv4Addr::from(0x0A00_0000 + number).into()
    }

    #[test]
    fn equal_refusals_are_one_line_and_lines_are_bounded() {
        let auditor = Auditor::default();
        for _ in 0..1_000 {
            auditor.refused(Refusal::Revoked, address(0), Some("alpha"), "Connect");
        }
        for number in 0..10_000 {
            auditor.refused(Refusal::UnknownToken, address(number), None, "Submit");
        }
        let waiting = auditor.waiting();
        // One more line per reason stands for all that are too many.
        assert_eq!(waiting.lines.len(), LINES_WAITING_MAX + 1);
        assert_eq!(waiting.lines.values().sum::<u64>(), 11_000);
        let alpha = waiting.lines.iter().find(|(key, _)| key.subject == "alpha");
        assert_eq!(alpha.map(|(_, count)| *count), Some(1_000));
        let many = waiting.lines.iter().find(|(key, _)| key.actor == MANY);
        let first = LINES_WAITING_MAX as u64 - 1;
        assert_eq!(many.map(|(_, count)| *count), Some(10_000 - first));
    }

    #[test]
    fn foreign_text_is_short_and_plain() {
        assert_eq!(shortened("a\nb\u{7}"), "a.b.");
        assert_eq!(shortened(&"ä".repeat(500)).len(), DETAIL_BYTES_MAX);
    }
}
