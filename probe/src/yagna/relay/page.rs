//! One page of the relay's listing: what its bytes mean.
//!
//! Owns the reading of `/nodes/{prefix}`: sessions, the three shapes of nothing, and ages as the
//! relay prints them. Refuses a page that does not answer the question put. Pure.

use std::fmt;
use std::time::Duration;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use uptime_proto::NodeId;

use super::super::answers::{self, Route};
use super::super::fault::{CouldNotLook, malformed};
use super::prefix::Prefix;

/// The longest text an age can have: 20 digits, a point, 9 digits, one unit.
const SEEN_BYTES_MAX: usize = 32;

/// A page as it was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Page {
    /// Everything listed, nodes without a session and what could not be read included: this is
    /// what the relay's silent limit counts.
    pub(super) entries: usize,
    /// Nodes with a session, and how long before the answer the relay last heard of them.
    pub(super) nodes: Vec<(NodeId, Duration)>,
    /// Entries that could not be read.
    pub(super) malformed: usize,
}

/// Reads the answer to the question for `prefix`.
pub(super) fn parse_page(status: u16, body: &[u8], prefix: Prefix) -> Result<Page, CouldNotLook> {
    let body = answers::answer(Route::RelayNodes, status, body)?;
    let Entries(entries) = serde_json::from_slice(body).map_err(malformed)?;
    let mut page = Page { entries: entries.len(), nodes: Vec::new(), malformed: 0 };
    for (id, sessions) in &entries {
        match read_entry(id, sessions) {
            Some((id, _)) if !prefix.holds(id) => {
                return Err(malformed(format!("asked for {prefix}, told of {id}")));
            }
            Some((id, Some(seen))) => page.nodes.push((id, seen)),
            Some((_, None)) => {}
            None => page.malformed += 1,
        }
    }
    if page.malformed > 0 && page.malformed == page.entries {
        return Err(malformed("nothing of the page can be read"));
    }
    Ok(page)
}

/// The members of a JSON object in their order, repeated names too.
struct Entries<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Entries<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Entries<'de>;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("an object of nodes")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// A node and the age of its youngest session, if it has any. `None`: cannot be read.
fn read_entry(id: &str, sessions: &RawValue) -> Option<(NodeId, Option<Duration>)> {
    #[derive(Deserialize)]
    struct Session {
        seen: String,
    }
    let id = id.parse().ok()?;
    let sessions: Vec<&RawValue> = serde_json::from_str(sessions.get()).ok()?;
    let mut youngest: Option<Duration> = None;
    let mut unreadable = false;
    for session in sessions {
        match serde_json::from_str::<Option<Session>>(session.get()) {
            // What the relay shows for a session that is just ending.
            Ok(None) => {}
            Ok(Some(session)) => match parse_seen(&session.seen) {
                Some(seen) => youngest = Some(youngest.map_or(seen, |other| other.min(seen))),
                None => unreadable = true,
            },
            Err(_) => unreadable = true,
        }
    }
    (youngest.is_some() || !unreadable).then_some((id, youngest))
}

/// An age as the relay prints it, which is as Rust prints a duration: `14.97s`, `969.7ms`,
/// `12.5µs`, `80ns`.
pub(super) fn parse_seen(text: &str) -> Option<Duration> {
    const UNITS: [(&str, usize); 4] = [("ns", 0), ("µs", 3), ("ms", 6), ("s", 9)];
    if text.len() > SEEN_BYTES_MAX {
        return None;
    }
    let unit = |&(unit, places)| text.strip_suffix(unit).map(|number: &str| (number, places));
    let (number, places): (&str, usize) = UNITS.iter().find_map(unit)?;
    let (whole, fraction) = match number.split_once('.') {
        Some((_, "")) => return None,
        Some(parts) => parts,
        None => (number, ""),
    };
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let leading_zero = whole.len() > 1 && whole.starts_with('0');
    if whole.is_empty() || leading_zero || !digits(whole) || !digits(fraction) {
        return None;
    }
    if fraction.len() > places {
        return None;
    }
    // What is too large for this number is too large for a duration.
    let nanos: u128 = format!("{whole}{fraction:0<places$}").parse().ok()?;
    const SECOND: u128 = 1_000_000_000;
    let seconds = u64::try_from(nanos / SECOND).ok()?;
    Some(Duration::new(seconds, u32::try_from(nanos % SECOND).ok()?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use proptest::prelude::*;

    use uptime_proto::Reason;

    use super::*;

    #[test]
    fn ages() {
        let nanos = Duration::from_nanos;
        for (text, expected) in [
            ("14.97s", nanos(14_970_000_000)),
            ("3.040223865s", nanos(3_040_223_865)),
            ("600.1s", nanos(600_100_000_000)),
            ("0s", nanos(0)),
            ("0ns", nanos(0)),
            ("969.7ms", nanos(969_700_000)),
            ("955.292116ms", nanos(955_292_116)),
            ("12.5µs", nanos(12_500)),
            ("12.050µs", nanos(12_050)),
            ("80ns", nanos(80)),
            ("18446744073709551615.999999999s", Duration::MAX),
        ] {
            assert_eq!(parse_seen(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_age() {
        for text in [
            "",
            "s",
            "ms",
            "1",
            "1.s",
            ".5s",
            "1..5s",
            "1.5.5s",
            "-1s",
            "+1s",
            " 1s",
            "1 s",
            "1S",
            "01s",
            "1m 2s",
            "1e3s",
            "1,5s",
            "1.5ns",
            "1.1234ms1",
            "1.1234µs",
            "1.1234567ms",
            "1.1234567890s",
            "18446744073709551616s",
            "١s",
            "1us",
            "infs",
            "NaNs",
            "1h",
            "0.00000000000000000000000000000000001s",
            "1111111111111111111111111111111111111111111111s",
        ] {
            assert_eq!(parse_seen(text), None, "{text}");
        }
    }

    const ID: &str = "0x85f06344fde97d390e87b0840b0325212f26eba7";

    fn read(body: &str) -> Result<Page, CouldNotLook> {
        parse_page(200, body.as_bytes(), Prefix::roots()[8])
    }

    fn check(sessions: &str, expected: Option<u64>) {
        let page = read(&format!("{{\"{ID}\":{sessions}}}")).unwrap();
        let expected: Vec<_> = expected
            .map(|ms| (ID.parse().unwrap(), Duration::from_millis(ms)))
            .into_iter()
            .collect();
        assert_eq!((page.entries, page.nodes, page.malformed), (1, expected, 0), "{sessions}");
    }

    #[test]
    fn sessions_and_nothing() {
        check(r#"[{"seen":"7.5s"}]"#, Some(7_500));
        check(
            r#"[{"seen":"7.5s"},{"peer":"a","seen":"1.5s","x":[{}]},{"seen":"9s"}]"#,
            Some(1_500),
        );
        check(r#"[null,{"seen":"2s"}]"#, Some(2_000));
        check(r#"[{"seen":"soon"},{"seen":"2s"}]"#, Some(2_000));
        check("[null]", None);
        check("[]", None);
        assert_eq!(read("{}").unwrap(), Page { entries: 0, nodes: Vec::new(), malformed: 0 });
    }

    #[test]
    fn entries_that_cannot_be_read_are_counted() {
        let other = ID.replace("85f", "8AF");
        for bad in ["{}", "null", "7", "[7]", "[{}]", r#"[{"seen":7}]"#, r#"[{"seen":"soon"}]"#] {
            let page = read(&format!(r#"{{"{ID}":{bad},"{other}":[{{"seen":"1s"}}]}}"#)).unwrap();
            assert_eq!((page.entries, page.nodes.len(), page.malformed), (2, 1, 1), "{bad}");
            assert_eq!(page.nodes[0].0.to_string(), other.to_lowercase());
            let alone = read(&format!(r#"{{"{ID}":{bad}}}"#)).unwrap_err();
            assert_eq!(alone.reason, Reason::MalformedAnswer, "{bad}");
        }
        let page = read(&format!(r#"{{"0x85":[],"{ID}":[]}}"#)).unwrap();
        assert_eq!((page.entries, page.malformed), (2, 1));
    }

    #[test]
    fn what_is_no_page() {
        for body in ["", "[]", "null", "7", "{", "{}x", "\"{}\""] {
            assert_eq!(read(body).unwrap_err().reason, Reason::MalformedAnswer, "{body}");
        }
        let elsewhere = format!(r#"{{"{}":[]}}"#, ID.replace("0x8", "0x9"));
        assert_eq!(read(&elsewhere).unwrap_err().reason, Reason::MalformedAnswer);
        for status in [302, 400, 401, 403, 404, 500, 503] {
            let fault = parse_page(status, b"{}", Prefix::roots()[8]).unwrap_err();
            assert_eq!(fault.reason, Reason::RelayError, "{status}");
        }
        // Nesting without end is passed over, not followed down.
        let deep = format!(r#"{{"{ID}":[{{"seen":"1s","x":{}}}]}}"#, "[".repeat(100_000));
        assert!(read(&deep).is_err());
    }

    #[test]
    fn a_name_that_comes_twice_counts_twice() {
        let page = read(&format!(r#"{{"{ID}":[{{"seen":"2s"}}],"{ID}":[{{"seen":"1s"}}]}}"#));
        let page = page.unwrap();
        assert_eq!((page.entries, page.nodes.len()), (2, 2));
    }

    proptest! {
        #[test]
        fn ages_come_back_as_they_were_printed(
            seconds in prop_oneof![Just(0), 0u64..1_000, any::<u64>()],
            nanos in prop_oneof![0u32..1_000, 0u32..1_000_000, 0u32..1_000_000_000],
        ) {
            let age = Duration::new(seconds, nanos);
            prop_assert_eq!(parse_seen(&format!("{age:?}")), Some(age));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}", body in prop::collection::vec(any::<u8>(), 0..99)) {
            parse_seen(&text);
            parse_page(200, &body, Prefix::roots()[0]).ok();
        }
    }
}
