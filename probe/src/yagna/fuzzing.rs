//! What comes from a yagna daemon, as fuzz targets; see `crate::fuzzing`.
//!
//! Each takes the body of an answer and reads it under every status the reader tells apart.

use std::collections::BTreeSet;
use std::time::Duration;

use uptime_proto::NodeId;

use super::CouldNotLook;
use super::command::{Ended, parse_find, parse_sessions};
use super::market::parse_own;
use super::net::{parse_found, parse_identity, parse_relay_session, parse_version};
use super::offer::{Form, Listing, Offer};
use super::open::{Collection, is_id, parse_deleted, parse_id};
use super::outcome::Found;
use super::peer::parse_scan_reply;
use super::ping::{judge_ping, parse_ping, parse_round_trips};
use super::sse::{SseEvent, SseParser, TooLong};

/// The statuses that mean something of their own anywhere, and one that does not.
const STATUSES: [u16; 7] = [200, 204, 401, 404, 410, 500, 504];
/// Of the recordings: the node that answers.
const NODE: &str = "0x85f06344fde97d390e87b0840b0325212f26eba7";
/// Of the recordings: the node that was killed.
const KILLED: &str = "0x73ad8b57b198631d45e2372581115c0602384f11";
/// Offers of one listing.
const OFFERS_MAX: usize = 50;

/// Reads the body under every status; a fault's detail must be fit for a log.
pub(super) fn read<T>(
    body: &[u8],
    parse: impl Fn(u16, &[u8]) -> Result<T, CouldNotLook>,
) -> Vec<T> {
    let mut taken = Vec::new();
    for status in STATUSES {
        match parse(status, body) {
            Ok(answer) => taken.push(answer),
            Err(fault) => fit(&fault.detail, 300),
        }
    }
    taken
}

/// Foreign text that goes to logs and tables.
fn fit(text: &str, bytes_max: usize) {
    assert!(text.len() <= bytes_max, "{} bytes", text.len());
    assert!(!text.chars().any(char::is_control), "{text:?}");
}

pub(crate) fn bus_find_node(body: &[u8]) {
    for found in read(body, parse_found) {
        if let Found::Known { identities, .. } = found {
            assert!(identities.len() <= body.len() / 40);
        }
    }
}

pub(crate) fn bus_ping(body: &[u8]) {
    if let Ok(node) = NODE.parse::<NodeId>() {
        for answered in read(body, |status, body| parse_ping(status, body, node)) {
            assert_eq!(judge_ping(answered, Duration::from_secs(5)).is_ok(), answered);
        }
    }
}

pub(crate) fn bus_sessions(body: &[u8]) {
    read(body, parse_relay_session);
}

pub(crate) fn demands(body: &[u8]) {
    for own in read(body, |status, body| parse_own(status, body, "default", i64::MAX)) {
        assert!(own.iter().all(|id| is_id(id)));
    }
}

/// The bytes of a stream, however they are cut.
pub(crate) fn events(bytes: &[u8]) {
    // A limit that is met, and one that is not.
    for bytes_max in [64, 4_096] {
        let whole = read_events(bytes_max, &[bytes]);
        if let Ok(events) = &whole {
            // The shortest event is `data` and two line ends; what is no text becomes three bytes.
            assert!(events.len() <= bytes.len() / 6);
            let bytes_of = |event: &SseEvent| event.event.len() + event.data.len();
            assert!(events.iter().all(|event| bytes_of(event) <= 3 * bytes_max));
        }
        for length in [1, 2, 3, 7] {
            let pieces: Vec<&[u8]> = bytes.chunks(length).collect();
            assert_eq!(read_events(bytes_max, &pieces), whole, "pieces of {length}");
        }
        assert_eq!(read_events(bytes_max, &pieces(bytes)), whole);
    }
}

/// Cut as the bytes themselves say, so that a fuzzer can choose; every other piece is empty.
fn pieces(bytes: &[u8]) -> Vec<&[u8]> {
    let mut pieces = Vec::new();
    let mut rest = bytes;
    while let Some(first) = rest.first() {
        let length = usize::from(first % 16).clamp(1, rest.len());
        let (piece, after) = rest.split_at(length);
        pieces.extend([piece, &[]]);
        rest = after;
    }
    pieces
}

fn read_events(bytes_max: usize, pieces: &[&[u8]]) -> Result<Vec<SseEvent>, TooLong> {
    let mut parser = SseParser::new(bytes_max);
    let mut events = Vec::new();
    for piece in pieces {
        events.extend(parser.push(piece)?);
    }
    Ok(events)
}

pub(crate) fn identity(body: &[u8]) {
    read(body, parse_identity);
    read(body, parse_version).iter().for_each(|version| fit(version, 64));
}

/// What the command line left behind: its exit code (255: a signal ended it), the length of its
/// standard output (u16, little-endian), that, and its standard error.
pub(crate) fn net_find(bytes: &[u8]) {
    let Some(([code, low, high], rest)) = bytes.split_first_chunk::<3>() else { return };
    let length = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
    let (stdout, stderr) = rest.split_at(length);
    let exit_code = (*code != u8::MAX).then_some(i32::from(*code));
    let ended = Ended { exit_code, stdout: stdout.to_vec(), stderr: stderr.to_vec() };
    match parse_find(&ended) {
        Ok(Found::Known { seen_unix_s, identities }) => {
            assert_eq!(exit_code, Some(0), "a program that failed has found nobody");
            assert!(seen_unix_s >= 0 && identities.len() <= stdout.len() / 40);
        }
        Ok(Found::NotKnown) => assert_eq!(exit_code, Some(1), "not known is an error"),
        Err(fault) => fit(&fault.detail, 300),
    }
    match parse_sessions(&ended) {
        Ok(_) => assert_eq!(exit_code, Some(0)),
        Err(fault) => fit(&fault.detail, 300),
    }
}

pub(crate) fn offers_events(body: &[u8]) {
    offers(body, Form::Events);
}

pub(crate) fn offers_scan(body: &[u8]) {
    offers(body, Form::Scan);
}

fn offers(body: &[u8], form: Form) {
    for status in STATUSES {
        let mut listing = Listing::new("public");
        let mut items = 0;
        // Twice, so that a page comes to others.
        for _ in 0..2 {
            match listing.take_page(form, OFFERS_MAX, status, body) {
                Ok(count) => items += count,
                Err(fault) => fit(&fault.detail, 300),
            }
        }
        assert!(items <= OFFERS_MAX);
        let offers = listing.finish().unwrap_or_default();
        assert!(offers.is_sorted());
        fit_offers(&offers, items);
    }
}

fn fit_offers(offers: &[Offer], items: usize) {
    assert!(offers.len() <= items);
    for offer in offers {
        assert_eq!(offer.subnet, "public");
        for text in [&offer.name, &offer.runtime, &offer.runtime_version] {
            fit(text, 128);
        }
        assert!(offer.networks.len() <= 32 && offer.networks.is_sorted_by(|a, b| a < b));
        offer.networks.iter().for_each(|network| fit(network, 128));
    }
}

pub(crate) fn opened(body: &[u8]) {
    for collection in [Collection::Scans, Collection::Demands] {
        let ids = read(body, |status, body| parse_id(collection, status, body));
        assert!(ids.iter().flatten().all(|id| is_id(id)));
    }
    read(body, parse_deleted);
}

pub(crate) fn round_trips(body: &[u8]) {
    let asked: BTreeSet<NodeId> = [NODE, KILLED].iter().flat_map(|id| id.parse()).collect();
    for trips in read(body, |status, body| parse_round_trips(status, body, asked.clone())) {
        let told: BTreeSet<NodeId> = trips.iter().map(|trip| trip.node_id).collect();
        assert!(told.len() == trips.len() && told.is_subset(&asked), "twice, or not asked for");
        for trip in &trips {
            let times = [trip.tcp, trip.udp];
            let believed = |time: &Duration| *time <= Duration::from_secs(60);
            assert!(times.iter().any(Option::is_some), "told of without a time");
            assert!(times.iter().flatten().all(believed));
        }
    }
    let nobody = |status, body: &[u8]| parse_round_trips(status, body, BTreeSet::new());
    assert!(read(body, nobody).iter().all(Vec::is_empty));
}

pub(crate) fn scan_reply(body: &[u8]) {
    read(body, parse_scan_reply);
}
