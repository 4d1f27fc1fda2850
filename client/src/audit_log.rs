//! The audit log: who did what about identities, and who was refused why. For admins.
//!
//! Owns the one question that goes to the aggregator's Admin service. Everything else there changes
//! something and is no question.

use tokio::time::timeout;
use uptime_proto::v1;

use crate::connect::Client;
use crate::error::Error;

/// The aggregator takes no larger page.
const PAGE_MAX: u32 = 1_000;

impl Client {
    /// The newest events of the audit log, newest first, at most `count`. For admins.
    ///
    /// # Errors
    /// [`Error::Denied`] for everybody else; else when there is no answer.
    pub async fn audit_log(&self, count: usize) -> Result<Vec<v1::AuditEvent>, Error> {
        let mut events = Vec::new();
        let mut page_token = String::new();
        loop {
            let wanted = u32::try_from(count - events.len()).unwrap_or(PAGE_MAX);
            let page_size = wanted.clamp(1, PAGE_MAX);
            let mut admin = self.admin.clone();
            let request = v1::ListAuditRequest { page_size, page_token };
            let answer = timeout(self.bounds.answer_within, admin.list_audit(request)).await;
            let answer = answer.map_err(|_| self.timed_out("ListAudit"))?;
            let page = answer.map_err(|status| self.failure("ListAudit", &status))?.into_inner();
            if page.events.is_empty() && !page.next_page_token.is_empty() {
                return Err(self.malformed("an empty page that is not the last"));
            }
            events.extend(page.events);
            events.truncate(count);
            page_token = page.next_page_token;
            if events.len() == count || page_token.is_empty() {
                return Ok(events);
            }
        }
    }
}
