//! The relay's listing as a fuzz target; see `crate::fuzzing`.

use super::super::fuzzing::read;
use super::page::{parse_page, parse_seen};
use super::prefix::Prefix;

/// A page, under every single digit it may be the answer to; and every text in it as an age.
pub(crate) fn relay_page(body: &[u8]) {
    for prefix in Prefix::roots() {
        for page in read(body, |status, body| parse_page(status, body, prefix)) {
            assert!(page.nodes.iter().all(|(id, _)| prefix.holds(*id)), "of another page");
            assert!(page.nodes.len() + page.malformed <= page.entries);
            assert!(page.malformed == 0 || page.malformed < page.entries);
            // The shortest entry is `"":[],`.
            assert!(page.entries <= body.len() / 5);
        }
    }
    for text in String::from_utf8_lossy(body).split(['"', '\n']) {
        if let Some(age) = parse_seen(text) {
            // Not the text itself: `0.5s` is printed as `500ms`.
            assert_eq!(parse_seen(&format!("{age:?}")), Some(age), "{text:?}");
            assert_eq!(age.is_zero(), !text.contains(|digit| matches!(digit, '1'..='9')));
        }
    }
}
