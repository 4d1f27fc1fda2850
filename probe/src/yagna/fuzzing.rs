//! What comes from a yagna daemon, as fuzz targets; see `crate::fuzzing`.
//!
//! Each takes the body of an answer and reads it under every status the reader tells apart.

use std::time::Duration;

use uptime_proto::NodeId;

use super::CouldNotLook;
use super::market::parse_own;
use super::net::{Found, parse_found, parse_identity, parse_relay_session, parse_version};
use super::offer::{Form, Listing};
use super::open::{Collection, is_id, parse_deleted, parse_id};
use super::peer::parse_scan_reply;
use super::ping::{judge_ping, parse_ping};

/// The statuses that mean something of their own anywhere, and one that does not.
const STATUSES: [u16; 7] = [200, 204, 401, 404, 410, 500, 504];
/// Of the recordings: the node that answers.
const NODE: &str = "0x85f06344fde97d390e87b0840b0325212f26eba7";

/// Reads the body under every status; a fault's detail must be fit for a log.
fn read<T>(body: &[u8], parse: impl Fn(u16, &[u8]) -> Result<T, CouldNotLook>) -> Vec<T> {
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
            assert_eq!(judge_ping(answered, Duration::from_secs(1)).is_ok(), answered);
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

pub(crate) fn identity(body: &[u8]) {
    read(body, parse_identity);
    read(body, parse_version).iter().for_each(|version| fit(version, 64));
}

pub(crate) fn offers_events(body: &[u8]) {
    offers(body, Form::Events);
}

pub(crate) fn offers_scan(body: &[u8]) {
    offers(body, Form::Scan);
}

fn offers(body: &[u8], form: Form) {
    const OFFERS_MAX: usize = 50;
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
        assert!(offers.len() <= items && offers.is_sorted());
        for offer in offers {
            assert_eq!(offer.subnet, "public");
            for text in [&offer.name, &offer.runtime, &offer.runtime_version] {
                fit(text, 128);
            }
            assert!(offer.networks.len() <= 32 && offer.networks.is_sorted_by(|a, b| a < b));
            offer.networks.iter().for_each(|network| fit(network, 128));
        }
    }
}

pub(crate) fn opened(body: &[u8]) {
    for collection in [Collection::Scans, Collection::Demands] {
        let ids = read(body, |status, body| parse_id(collection, status, body));
        assert!(ids.iter().flatten().all(|id| is_id(id)));
    }
    read(body, parse_deleted);
}

pub(crate) fn scan_reply(body: &[u8]) {
    read(body, parse_scan_reply);
}
