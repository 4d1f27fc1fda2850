//! Every answer of a daemon or relay that this program interprets, in one table.
//!
//! Owns what status and words are taken for, and the recording of a real daemon that each row rests
//! on. Refuses everything else: an answer that no row matches is "could not look". Such answers are
//! counted and logged, so that a new one is noticed within an hour; see [`Strange`].

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use metrics::counter;
use serde::Deserialize;
use tokio::time::Instant;
use uptime_proto::Reason;

use super::fault::{CouldNotLook, clean, json_message, refused};

/// A question, as far as its answers are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Route {
    /// `GET /me`.
    Me,
    /// `GET /version/get`.
    Version,
    /// `POST /market-api/v1/scan`.
    OpenScan,
    /// `POST /market-api/v1/demands`.
    OpenDemand,
    /// `GET …/scan/{id}/events`.
    ScanPage,
    /// `GET …/demands/{id}/events`.
    DemandPage,
    /// `GET /market-api/v1/demands`.
    ListDemands,
    /// `DELETE` of a scan or demand.
    Delete,
    /// `GET …/scan/{id}/events?peerId=…`: the direct question.
    Direct,
    /// `POST /_gsb/local/net/FindNode`.
    FindNode,
    /// `POST /_gsb/local/net/GsbPing`.
    Ping,
    /// `POST /_gsb/local/net/Sessions`.
    Sessions,
    /// `yagna net find ID --json`; its status is the exit code.
    CommandFind,
    /// `yagna net sessions --json`; its status is the exit code.
    CommandSessions,
    /// The relay's `GET /nodes/{prefix}`.
    RelayNodes,
    /// The relay's `GET /events`.
    RelayEvents,
}

impl Route {
    /// Its name in metrics and logs.
    const fn name(self) -> &'static str {
        match self {
            Self::Me => "me",
            Self::Version => "version",
            Self::OpenScan => "open_scan",
            Self::OpenDemand => "open_demand",
            Self::ScanPage => "scan_page",
            Self::DemandPage => "demand_page",
            Self::ListDemands => "list_demands",
            Self::Delete => "delete",
            Self::Direct => "direct",
            Self::FindNode => "find_node",
            Self::Ping => "ping",
            Self::Sessions => "sessions",
            Self::CommandFind => "command_find",
            Self::CommandSessions => "command_sessions",
            Self::RelayNodes => "relay_nodes",
            Self::RelayEvents => "relay_events",
        }
    }

    /// The reason where an answer to this question is not in the table.
    const fn reason(self) -> Reason {
        match self {
            Self::OpenScan
            | Self::OpenDemand
            | Self::ScanPage
            | Self::DemandPage
            | Self::ListDemands
            | Self::Delete => Reason::MarketError,
            Self::RelayNodes | Self::RelayEvents => Reason::RelayError,
            _ => Reason::NetError,
        }
    }
}

/// What an answer is taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// The answer proper; the parser of the route reads its body.
    Answer,
    /// The node itself spoke.
    Life,
    /// The node was asked, or could not even be asked for want of it, and did not answer.
    Unanswered,
    /// The relay does not know the node.
    NotKnown,
    /// The scan or demand does not exist (any more).
    Gone,
    /// This daemon does not have what was asked for.
    Absent,
    /// Nothing can be said, for this reason.
    CouldNotLook(Reason),
}

/// What the words of an answer must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Words {
    /// Whatever they are.
    Any,
    /// An error in yagna's own form, `{"message":…}`: a proxy says 504, too.
    Own,
    /// An error in yagna's own form whose message has this in it.
    Message(&'static str),
    /// What the bus answers: its own error, with this in it.
    Bus(&'static str),
    /// What the bus answers: no error of its own.
    BusOk,
    /// Anything but an error of the bus.
    NotBus,
    /// The text of an error of the command line, with this in it.
    Text(&'static str),
}

/// The error code by which the relay says that it does not know a node.
const NOT_KNOWN: &str = "code 404";

struct Row {
    route: Route,
    status: u16,
    words: Words,
    taken: Taken,
    /// Recordings of real daemons, by the beginning of their names.
    #[cfg_attr(not(test), expect(dead_code, reason = "held against the recordings by a test"))]
    recordings: &'static [&'static str],
}

const fn row(
    route: Route,
    status: u16,
    words: Words,
    taken: Taken,
    recordings: &'static [&'static str],
) -> Row {
    Row { route, status, words, taken, recordings }
}

const UNAUTHORISED: Taken = Taken::CouldNotLook(Reason::Unauthorised);
const MARKET_ERROR: Taken = Taken::CouldNotLook(Reason::MarketError);
const TIMED_OUT: Taken = Taken::CouldNotLook(Reason::TimedOut);

/// The table; the first row that matches counts.
const TABLE: &[Row] = &[
    row(Route::Me, 200, Words::Any, Taken::Answer, &["03"]),
    row(Route::Me, 401, Words::Any, UNAUTHORISED, &["04", "05", "06", "07", "09b"]),
    row(Route::Version, 200, Words::Any, Taken::Answer, &["01", "02"]),
    row(Route::OpenScan, 201, Words::Any, Taken::Answer, &["40", "49#1"]),
    // Daemons before 0.15 do not have the route.
    row(Route::OpenScan, 404, Words::Any, Taken::Absent, &["09_"]),
    row(Route::OpenScan, 401, Words::Any, UNAUTHORISED, &["48#6"]),
    row(Route::OpenDemand, 201, Words::Any, Taken::Answer, &["10", "11", "18"]),
    row(Route::OpenDemand, 401, Words::Any, UNAUTHORISED, &["1a", "1b"]),
    row(Route::ScanPage, 200, Words::Any, Taken::Answer, &["41", "42", "49#2"]),
    // The daemon was restarted, or somebody deleted it.
    row(Route::ScanPage, 404, Words::Any, MARKET_ERROR, &["48#3", "4b#3"]),
    row(Route::DemandPage, 404, Words::Any, MARKET_ERROR, &["2i", "33", "91"]),
    row(Route::DemandPage, 200, Words::Any, Taken::Answer, &["20", "29_", "2a", "80#1"]),
    row(Route::DemandPage, 401, Words::Any, UNAUTHORISED, &["2k"]),
    row(Route::ListDemands, 200, Words::Any, Taken::Answer, &["1i"]),
    row(Route::Delete, 204, Words::Any, Taken::Answer, &["31", "4b#1"]),
    row(Route::Delete, 404, Words::Any, Taken::Gone, &["32", "35", "4b#2"]),
    row(Route::Delete, 410, Words::Any, Taken::Gone, &["38", "39#2"]),
    row(Route::Delete, 401, Words::Any, UNAUTHORISED, &["36"]),
    // An empty list is an answer, too: the node itself gives it.
    row(
        Route::Direct,
        200,
        Words::Any,
        Taken::Answer,
        &["43", "44", "2y#2", "97e", "42", "a4#2", "b4#2"],
    ),
    row(
        Route::Direct,
        504,
        Words::Own,
        Taken::Unanswered,
        &["45", "47", "97g", "97h", "a2#3", "b1#7", "b2#1"],
    ),
    row(Route::Direct, 500, Words::Message(NOT_KNOWN), Taken::Unanswered, &["46", "a1#2", "a1#3"]),
    // The daemon once had a channel to the node, and the node has been away since.
    row(
        Route::Direct,
        500,
        Words::Message("session closed"),
        Taken::Unanswered,
        &["a0#2", "a0#3", "a0#6", "a0#16"],
    ),
    // Written by the node asked: it does not serve this identity's market yet, but it is there.
    row(Route::Direct, 500, Words::Message("Unknown address: /net/0x"), Taken::Life, &["a3#2"]),
    row(Route::Direct, 404, Words::Any, Taken::Gone, &["48#3", "4b#3"]),
    row(Route::Direct, 401, Words::Any, UNAUTHORISED, &["48#6"]),
    row(
        Route::FindNode,
        200,
        Words::BusOk,
        Taken::Answer,
        &["52", "53", "97c", "97i", "a2#2", "b0#1", "b4#1", "b6#4"],
    ),
    row(
        Route::FindNode,
        200,
        Words::Bus(NOT_KNOWN),
        Taken::NotKnown,
        &["54", "a0#1", "a0#5", "a1#1", "b0#4"],
    ),
    row(Route::FindNode, 200, Words::Bus("timed out after"), TIMED_OUT, &["94b", "b7#1", "b7#3"]),
    row(Route::FindNode, 401, Words::Any, UNAUTHORISED, &["57"]),
    row(Route::FindNode, 404, Words::NotBus, Taken::Absent, &["09_", "51"]),
    // Null round trips are judged by how long they took.
    row(
        Route::Ping,
        200,
        Words::BusOk,
        Taken::Answer,
        &["59", "5a", "5b", "5c", "97d", "97f", "94c", "a0#4", "a2#1", "b5#1", "b5#2"],
    ),
    row(Route::Ping, 200, Words::Bus("timed out after"), TIMED_OUT, &["94b"]),
    row(Route::Ping, 401, Words::Any, UNAUTHORISED, &["57"]),
    row(Route::Sessions, 200, Words::BusOk, Taken::Answer, &["5e"]),
    row(Route::Sessions, 401, Words::Any, UNAUTHORISED, &["57"]),
    row(Route::Sessions, 404, Words::NotBus, Taken::Absent, &["09_", "51"]),
    row(Route::CommandFind, 0, Words::Any, Taken::Answer, &["70", "72", "73_", "78", "97a"]),
    row(Route::CommandFind, 1, Words::Text("timed out after"), TIMED_OUT, &["94a", "94f"]),
    row(
        Route::CommandFind,
        1,
        Words::Text("is unavailable"),
        Taken::CouldNotLook(Reason::YagnaUnreachable),
        &["7i", "7j"],
    ),
    row(
        Route::CommandFind,
        1,
        Words::Text("expected length"),
        Taken::CouldNotLook(Reason::MalformedAnswer),
        &["76", "77"],
    ),
    row(
        Route::CommandFind,
        1,
        Words::Text("code 400"),
        Taken::CouldNotLook(Reason::NetError),
        &["95b"],
    ),
    // Last: should a fault speak of the same code, it is a fault.
    row(
        Route::CommandFind,
        1,
        Words::Text(NOT_KNOWN),
        Taken::NotKnown,
        &["73e", "74", "75", "a0#8"],
    ),
    row(
        Route::CommandSessions,
        1,
        Words::Text("is unavailable"),
        Taken::CouldNotLook(Reason::YagnaUnreachable),
        &["7i", "7j"],
    ),
    row(Route::CommandSessions, 0, Words::Any, Taken::Answer, &["7c", "94g"]),
    row(
        Route::RelayNodes,
        200,
        Words::Any,
        Taken::Answer,
        &["61", "62", "69", "6l", "6n", "6p", "73b", "73d", "73f"],
    ),
    row(Route::RelayEvents, 200, Words::Any, Taken::Answer, &[]),
    // Relays of 2025 do not have the route.
    row(Route::RelayEvents, 404, Words::Any, Taken::Absent, &["6m#5"]),
];

impl Words {
    fn match_body(self, body: &[u8]) -> bool {
        match self {
            Self::Any => true,
            Self::Own => json_message(body).is_some(),
            Self::Message(words) => json_message(body).is_some_and(|it| says(&it, words)),
            Self::Bus(words) => bus_error(body).is_some_and(|it| says(&it, words)),
            Self::BusOk => !body.is_empty() && bus_error(body).is_none(),
            Self::NotBus => bus_error(body).is_none(),
            Self::Text(words) => says(&String::from_utf8_lossy(body), words),
        }
    }
}

/// Whether a text has these words. A code is followed by no further digit.
fn says(text: &str, words: &str) -> bool {
    let is_code = words.ends_with(|last: char| last.is_ascii_digit());
    let mut rest = text;
    while let Some((_, after)) = rest.split_once(words) {
        if !(is_code && after.starts_with(|next: char| next.is_ascii_digit())) {
            return true;
        }
        rest = after;
    }
    false
}

/// The error of the bus, as text.
fn bus_error(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Failed {
        #[serde(rename = "Err")]
        error: serde_json::Value,
    }
    serde_json::from_slice::<Failed>(body).ok().map(|failed| failed.error.to_string())
}

fn find(route: Route, status: u16, body: &[u8]) -> Option<Taken> {
    let mut rows = TABLE.iter().filter(|row| row.route == route && row.status == status);
    rows.find(|row| row.words.match_body(body)).map(|row| row.taken)
}

/// What an answer is taken for, if it says anything at all.
///
/// # Errors
/// When it says that nothing can be said, or is not in the table.
pub(super) fn read(route: Route, status: u16, body: &[u8]) -> Result<Taken, CouldNotLook> {
    match find(route, status, body) {
        Some(Taken::CouldNotLook(reason)) => Err(refused(reason, status, body)),
        Some(taken) => Ok(taken),
        None => {
            let reason = match status {
                // 403 is not yagna's own; something that guards it may say so.
                401 | 403 if route.reason() != Reason::RelayError => Reason::Unauthorised,
                _ if says(&String::from_utf8_lossy(body), "timed out after") => Reason::TimedOut,
                _ => route.reason(),
            };
            Err(refused(reason, status, body))
        }
    }
}

/// The body of an answer proper.
///
/// # Errors
/// When the answer is taken for anything else.
pub(super) fn answer(route: Route, status: u16, body: &[u8]) -> Result<&[u8], CouldNotLook> {
    match read(route, status, body)? {
        Taken::Answer => Ok(body),
        _ => Err(refused(route.reason(), status, body)),
    }
}

/// Why an answer was not understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Class {
    /// No row of its route has its status.
    Status,
    /// A row has its status; the words are others.
    Words,
    /// It is an answer proper, and its body cannot be read.
    Form,
}

impl Class {
    const fn name(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Words => "words",
            Self::Form => "form",
        }
    }
}

/// The class of an answer that led to a failure; `None`: the table explains it.
fn class_of(route: Route, status: u16, body: &[u8]) -> Option<Class> {
    match find(route, status, body) {
        Some(Taken::CouldNotLook(_)) => None,
        Some(_) => Some(Class::Form),
        None if TABLE.iter().any(|row| row.route == route && row.status == status) => {
            Some(Class::Words)
        }
        None => Some(Class::Status),
    }
}

/// A text of each class is logged so often.
const LOGGED_EVERY: Duration = Duration::from_secs(3_600);
/// Bytes of foreign text in such a line.
const LOGGED_BYTES_MAX: usize = 200;
/// Statuses told apart in the metric and the log; all others are one.
const STATUSES: [u16; 14] = [0, 1, 200, 201, 204, 301, 302, 400, 401, 403, 404, 500, 502, 503];

/// Counts and logs the answers that were not understood.
#[derive(Debug, Default)]
pub(super) struct Strange {
    /// When a text of a class was last logged; as many entries as there are classes.
    logged: Mutex<HashMap<(Route, u16, Class), Instant>>,
}

impl Strange {
    /// Takes note of an answer that led to a failure, unless the table explains it.
    pub(super) fn note(&self, route: Route, status: u16, body: &[u8]) {
        self.note_at(route, status, body, Instant::now());
    }

    fn note_at(&self, route: Route, status: u16, body: &[u8], now: Instant) {
        let Some(class) = class_of(route, status, body) else {
            return;
        };
        let status = if STATUSES.contains(&status) { status } else { u16::MAX };
        let told = if status == u16::MAX { "other".to_owned() } else { status.to_string() };
        counter!(
            "uptime_yagna_answers_not_understood_total",
            "route" => route.name(), "status" => told.clone(), "class" => class.name()
        )
        .increment(1);
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        let last = logged.get(&(route, status, class));
        if last.is_some_and(|last| now - *last < LOGGED_EVERY) {
            return;
        }
        logged.insert((route, status, class), now);
        tracing::warn!(
            route = route.name(),
            status = told,
            class = class.name(),
            text = clean(&String::from_utf8_lossy(body), LOGGED_BYTES_MAX),
            "unknown answer; it counts as \"could not look\"; please report it"
        );
    }
}

#[cfg(test)]
#[path = "answers/tests.rs"]
mod tests;
