//! Errors of the query service: a standard code, a sentence, and which field is wrong and why.

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};
use uptime_proto::{NodeId, Round, v1};

/// The end of the year 9999, the largest accepted time.
const YEAR_10000_S: u64 = 253_402_300_800;

/// `INVALID_ARGUMENT` because of one field.
pub(super) fn bad_field(field: &str, why: impl Into<String>) -> Status {
    let why = why.into();
    let message = format!("{field}: {why}");
    let details = ErrorDetails::with_bad_request_violation(field, why);
    Status::with_error_details(Code::InvalidArgument, message, details)
}

/// Reads an id.
pub(super) fn node_id(field: &str, text: &str) -> Result<NodeId, Status> {
    text.parse().map_err(|error| bad_field(field, format!("{error}")))
}

/// A node that is not known, in words.
pub(super) fn not_found(id: &NodeId) -> Status {
    Status::not_found(format!(
        "{id} was never seen, or is not confirmed yet: an offer seen by one probe is not enough"
    ))
}

/// A node that is known, but was not when a round was closed.
pub(super) fn not_found_by(id: &NodeId, round: Round) -> Status {
    Status::not_found(format!(
        "{id} was not known, or not confirmed, by the end of round {}",
        round.start_s()
    ))
}

/// Reads a window; 0 at an end leaves it open. Answers `[from, to)` in unix seconds.
pub(super) fn window(window: Option<v1::Window>) -> Result<(u64, u64), Status> {
    let v1::Window { from_unix_s, to_unix_s } = window.unwrap_or_default();
    let to_s = if to_unix_s == 0 { u64::MAX } else { to_unix_s };
    if from_unix_s > YEAR_10000_S {
        return Err(bad_field("window.from_unix_s", "it lies after the year 9999; give seconds"));
    }
    if to_unix_s > YEAR_10000_S {
        return Err(bad_field("window.to_unix_s", "it lies after the year 9999; give seconds"));
    }
    if from_unix_s >= to_s {
        let why =
            format!("it must lie after from_unix_s, which is {from_unix_s}; it is {to_unix_s}");
        return Err(bad_field("window.to_unix_s", why));
    }
    Ok((from_unix_s, to_s))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_that_cannot_be_name_the_field() {
        let read = |from_unix_s, to_unix_s| window(Some(v1::Window { from_unix_s, to_unix_s }));
        assert_eq!(window(None).ok(), Some((0, u64::MAX)));
        assert_eq!(read(5, 0).ok(), Some((5, u64::MAX)));
        assert_eq!(read(0, YEAR_10000_S).ok(), Some((0, YEAR_10000_S)));
        for (from_s, to_s, field) in [
            (7, 7, "window.to_unix_s"),
            (8, 7, "window.to_unix_s"),
            (0, YEAR_10000_S + 1, "window.to_unix_s"),
            (u64::MAX, 0, "window.from_unix_s"),
        ] {
            let status = read(from_s, to_s).expect_err("it cannot be");
            assert_eq!(status.code(), Code::InvalidArgument);
            let violations = status.get_details_bad_request().map(|it| it.field_violations);
            let fields: Vec<String> =
                violations.into_iter().flatten().map(|violation| violation.field).collect();
            assert_eq!(fields, [field], "[{from_s}, {to_s})");
        }
    }
}
