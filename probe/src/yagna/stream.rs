//! Listing the market as one stream of events.
//!
//! Owns reading the stream of a scan and when it has told everything. The stream itself never
//! ends and has no mark between the stock and what comes later, so a pause of a second ends the
//! listing, as an empty page does when polling. Three things look like that pause and are none:
//! * the stream ends: the daemon is going down, and what came is part of a listing,
//! * a pause in the middle of an event: the rest is still to come,
//! * a daemon that has stopped working: it is asked something else and must answer.
//!
//! Memory is bounded by one event and one piece off the wire; the number of events as offers are.

use std::time::Duration;

use tokio::time::Instant;
use uptime_proto::Reason;

use super::answers::Route;
use super::http::{self, Question, Streaming};
use super::market::{Gathering, POLL_S};
use super::offer::Form;
use super::open::Opened;
use super::sse::{SseEvent, SseParser, TooLong};
use super::{CouldNotLook, Yagna};

const MEDIA_TYPE: &str = "text/event-stream";

/// A pause of this long ends the listing.
const PAUSE: Duration = Duration::from_secs(POLL_S);

/// Bytes of one event: offers have 2 kB.
const EVENT_BYTES_MAX: usize = 1024 * 1024;

/// How long a daemon that does not stream waits before it answers with an empty page: its own
/// default, since no timeout is named. (What naming one does to a stream is not known.)
const PAGE_WAITS: Duration = Duration::from_secs(5);

impl Yagna {
    /// Reads the stream of a scan to its pause. False: this daemon does not stream, and there may
    /// be more to poll for.
    pub(super) async fn read_stream(
        &self,
        scan: &Opened,
        gathering: &mut Gathering<'_>,
    ) -> Result<bool, CouldNotLook> {
        let limits = &self.inner.limits;
        let path = format!("{}/events", scan.path());
        let limit = PAGE_WAITS + limits.answer_timeout;
        let question = Question::get_stream(Route::ScanPage, &path, MEDIA_TYPE);
        let mut answer = self.inner.http.begin(question, limit).await?;
        let status = answer.status();
        if !(200..=299).contains(&status) {
            let unauthorised = matches!(status, 401 | 403);
            // Whatever else it is, polling either works or says what is wrong.
            return if unauthorised { Err(refused(&mut answer, limit).await) } else { Ok(false) };
        }
        if !answer.is(MEDIA_TYPE) {
            let body = answer.rest(limit).await?;
            let taken = gathering.listing.take_page(Form::Scan, limits.offers_max, status, &body);
            gathering.pass_on();
            return taken.map(|count| count == 0).map_err(|fault| answer.failed(fault));
        }
        read_to_pause(&mut answer, gathering, limits.offers_max).await?;
        drop(answer);
        self.identity().await.map(|_| true)
    }
}

async fn refused(answer: &mut Streaming<'_>, limit: Duration) -> CouldNotLook {
    match answer.rest(limit).await {
        Ok(body) => answer.failed(http::refused(Reason::Unauthorised, answer.status(), &body)),
        Err(fault) => fault,
    }
}

async fn read_to_pause(
    answer: &mut Streaming<'_>,
    gathering: &mut Gathering<'_>,
    offers_max: usize,
) -> Result<(), CouldNotLook> {
    let mut parser = SseParser::new(EVENT_BYTES_MAX);
    let mut boundary = Boundary::default();
    let mut pause_over = Instant::now() + PAUSE;
    loop {
        let read = |bytes: &[u8]| {
            boundary.pass(bytes);
            parser.push(bytes)
        };
        let mut came = 0;
        if let Some(events) = answer.next(pause_over, read).await? {
            let taken = take_events(events, gathering, offers_max);
            came = taken.map_err(|fault| answer.failed(fault))?;
            gathering.pass_on();
        }
        if came > 0 {
            pause_over = Instant::now() + PAUSE;
            if gathering.stock.is_complete_with(came) {
                return Ok(());
            }
        } else if Instant::now() >= pause_over {
            if boundary.is_here {
                return Ok(());
            }
            pause_over = Instant::now() + PAUSE;
        }
    }
}

/// Takes in the events; returns how many offers they brought.
fn take_events(
    events: Result<Vec<SseEvent>, TooLong>,
    gathering: &mut Gathering<'_>,
    offers_max: usize,
) -> Result<usize, CouldNotLook> {
    let events =
        events.map_err(|fault| CouldNotLook::new(Reason::AnswerTooLarge, fault.to_string()))?;
    let mut came = 0;
    for SseEvent { event, data } in &events {
        came += gathering.listing.take_event(offers_max, event, data.as_ref())?;
    }
    Ok(came)
}

/// Whether the bytes so far end between two events.
struct Boundary {
    is_here: bool,
    /// What the last line break was; a line feed after a carriage return is the same break.
    last: u8,
}

impl Default for Boundary {
    fn default() -> Self {
        Self { is_here: true, last: b'\n' }
    }
}

impl Boundary {
    fn pass(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            let breaks = matches!(byte, b'\n' | b'\r');
            if !(byte == b'\n' && self.last == b'\r') {
                self.is_here = breaks && matches!(self.last, b'\n' | b'\r');
            }
            self.last = byte;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn between_events() {
        for (bytes, expected) in [
            ("", true),
            ("data: 1\n\n", true),
            ("data: 1\r\n\r\n", true),
            ("data: 1\r\r", true),
            (":\n\n", true),
            ("data: 1\n\n\n", true),
            ("d", false),
            ("data: 1", false),
            ("data: 1\n", false),
            ("data: 1\r\n", false),
            ("data: 1\r\n\r", true),
            ("data: 1\n\nevent: offer\n", false),
        ] {
            let mut boundary = Boundary::default();
            bytes.as_bytes().chunks(3).for_each(|piece| boundary.pass(piece));
            assert_eq!(boundary.is_here, expected, "{bytes:?}");
        }
    }
}
