//! Errors that say what the caller can do.
//!
//! Owns the one translation of gRPC's failures. Each variant stands for a different thing to do.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use tokio::time::error::Elapsed;
use tonic::{Code, Status, TimeoutExpired};
use tonic_types::{FieldViolation, StatusExt};

/// Why a request has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The URL cannot be one of an aggregator or is plaintext to another host, or the certificates
    /// for it cannot be used.
    #[error("cannot use the address {url:?}: {detail}")]
    Address {
        /// As it was given.
        url: String,
        /// What is wrong with it.
        detail: String,
    },
    /// No connection: the aggregator is not running, or has another address.
    #[error("cannot reach an aggregator at {url}: {detail}")]
    Unreachable {
        /// The aggregator's URL.
        url: String,
        /// What the system said.
        detail: String,
    },
    /// Something else listens there, or the connection broke within an answer.
    #[error("the connection to {url} broke: {detail}")]
    Broken {
        /// The aggregator's URL.
        url: String,
        /// What was seen of it.
        detail: String,
    },
    /// It did not answer in time.
    #[error("{url} did not answer {call} within {limit:?}")]
    TimedOut {
        /// The aggregator's URL.
        url: String,
        /// The question.
        call: &'static str,
        /// How long was waited.
        limit: Duration,
    },
    /// It cannot answer now: it starts or stops (then it was asked again a few times), or it has
    /// too much to do. Try later.
    #[error("the aggregator at {url} cannot answer now: {detail}")]
    Unavailable {
        /// The aggregator's URL.
        url: String,
        /// What it said.
        detail: String,
    },
    /// What was asked about is not there.
    #[error("{0}")]
    NotFound(String),
    /// The snapshot behind a listing is gone (the reader was too slow, or the aggregator was
    /// restarted). What was read so far is valid for its round; for a complete listing start
    /// again.
    #[error("the aggregator no longer holds this listing: start it again")]
    ListingGone,
    /// This aggregator does not answer such questions: it is of another version.
    #[error("the aggregator at {url} does not know {call}; is it another version?")]
    NotServed {
        /// The aggregator's URL.
        url: String,
        /// The question.
        call: &'static str,
    },
    /// The aggregator wants to know who asks, or does not let this one ask: give a token or a
    /// certificate, or another.
    #[error("the aggregator at {url} denied {call}: {detail}")]
    Denied {
        /// The aggregator's URL.
        url: String,
        /// The question.
        call: &'static str,
        /// What it said.
        detail: String,
    },
    /// The question itself is wrong.
    #[error("the aggregator refused the request: {detail}")]
    Refused {
        /// What it said.
        detail: String,
        /// Which fields of the question are at fault, and why, where it said so.
        faults: Vec<FieldFault>,
    },
    /// The answer lacks what it must have.
    #[error("{url} sent a malformed answer: {detail}")]
    Malformed {
        /// The aggregator's URL.
        url: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The answer did not end where any honest one would have. What was read is good.
    #[error("{url} sent more than {limit} {what} for {call}: stopped")]
    Endless {
        /// The aggregator's URL.
        url: String,
        /// The question.
        call: &'static str,
        /// How much was taken.
        limit: u64,
        /// The unit of the limit.
        what: &'static str,
    },
    /// Anything else that went wrong at the aggregator; its log says more.
    #[error("the aggregator at {url} failed to answer {call}: {detail}")]
    Failed {
        /// The aggregator's URL.
        url: String,
        /// The question.
        call: &'static str,
        /// What it said.
        detail: String,
    },
}

/// One field of a question that the aggregator refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldFault {
    /// As the protos name it: `window.to_unix_s`, `ids[3]`.
    pub field: String,
    /// What is wrong with it.
    pub why: String,
}

/// Faults that are taken from one refusal; a question has fewer fields.
const FAULTS_MAX: usize = 32;

fn faults(status: &Status) -> Vec<FieldFault> {
    let violations = status.get_details_bad_request().map(|details| details.field_violations);
    let fault = |it: FieldViolation| FieldFault { field: it.field, why: it.description };
    violations.into_iter().flatten().take(FAULTS_MAX).map(fault).collect()
}

/// The innermost cause: what the system said, without the layers around it. Of a limit on a
/// connection the transport says only that it has elapsed.
pub(crate) fn root(error: &(dyn StdError + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    let late = innermost.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    if late.is_some_and(|late| late.is::<Elapsed>()) {
        return "no connection came about in time".to_owned();
    }
    innermost.to_string()
}

/// How the transport begins to say that a message exceeds the limit, at either end.
const TOO_LARGE: &str = "message length too large";
/// How the transport begins to say that an answer is no message of its kind.
const NOT_DECODED: &str = "failed to decode Protobuf message";
/// How the aggregator's end says that the time it was given is over.
const LATE: &str = "Timeout expired";
/// How it says that who answers does not speak gRPC.
const NO_GRPC: &str = "grpc-status header missing";

/// Whether a status was made at this end, because the transport failed: no word came from the
/// other. One for an elapsed deadline does not count.
pub(crate) fn broke_here(status: &Status) -> bool {
    status.source().is_some() && !is_late(status)
}

/// Whether a page has to be asked for in halves.
pub(crate) fn is_too_large(status: &Status) -> bool {
    status.code() == Code::OutOfRange && status.message().contains(TOO_LARGE)
}

fn is_late(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<TimeoutExpired>() {
            return true;
        }
        cause = error.source();
    }
    match status.code() {
        Code::DeadlineExceeded => true,
        Code::Cancelled => status.message() == LATE,
        _ => false,
    }
}

impl Error {
    pub(crate) fn from_status(
        url: &str,
        call: &'static str,
        limit: Duration,
        status: &Status,
    ) -> Self {
        let (url, detail) = (url.to_owned(), status.message().to_owned());
        if is_late(status) {
            return Self::TimedOut { url, call, limit };
        }
        if let Some(source) = status.source() {
            let detail = root(source);
            return match status.code() {
                Code::Unavailable => Self::Unreachable { url, detail },
                _ => Self::Broken { url, detail },
            };
        }
        // A server without gRPC is no aggregator.
        if detail.starts_with(NO_GRPC) {
            return Self::Broken { url, detail };
        }
        match status.code() {
            Code::Internal if detail.starts_with(NOT_DECODED) => Self::Malformed { url, detail },
            Code::OutOfRange if is_too_large(status) => Self::Malformed { url, detail },
            Code::NotFound => Self::NotFound(detail),
            Code::Aborted => Self::ListingGone,
            Code::Unimplemented => Self::NotServed { url, call },
            Code::Unauthenticated | Code::PermissionDenied => Self::Denied { url, call, detail },
            Code::InvalidArgument | Code::OutOfRange | Code::FailedPrecondition => {
                Self::Refused { detail, faults: faults(status) }
            }
            Code::Unavailable | Code::ResourceExhausted => Self::Unavailable { url, detail },
            _ => Self::Failed { url, call, detail },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_aggregator_says_becomes_what_there_is_to_do() {
        let said = |code| {
            let status = Status::new(code, "detail");
            let error = Error::from_status("http://a", "GetNode", Duration::from_secs(1), &status);
            error.to_string()
        };
        for (code, words) in [
            (Code::NotFound, "detail"),
            (Code::Aborted, "start it again"),
            (Code::Unimplemented, "does not know GetNode"),
            (Code::Unauthenticated, "denied GetNode: detail"),
            (Code::PermissionDenied, "denied GetNode: detail"),
            (Code::InvalidArgument, "refused the request: detail"),
            (Code::OutOfRange, "refused the request: detail"),
            (Code::FailedPrecondition, "refused the request: detail"),
            (Code::Unavailable, "cannot answer now: detail"),
            (Code::ResourceExhausted, "cannot answer now: detail"),
            (Code::DeadlineExceeded, "did not answer GetNode within 1s"),
            (Code::Internal, "failed to answer GetNode: detail"),
            (Code::DataLoss, "failed to answer GetNode: detail"),
            (Code::Cancelled, "failed to answer GetNode: detail"),
        ] {
            assert!(said(code).contains(words), "{code:?}: {}", said(code));
        }
        let details = tonic_types::ErrorDetails::with_bad_request(
            (0..99)
                .map(|at| FieldViolation::new(format!("ids[{at}]"), "no id"))
                .collect::<Vec<_>>(),
        );
        let status = Status::with_error_details(Code::InvalidArgument, "no ids", details);
        let error = Error::from_status("http://a", "GetNode", Duration::from_secs(1), &status);
        let Error::Refused { detail, faults } = error else { panic!("{error}") };
        assert_eq!((detail.as_str(), faults.len()), ("no ids", FAULTS_MAX));
        let last = FieldFault { field: "ids[31]".to_owned(), why: "no id".to_owned() };
        assert_eq!(faults.last(), Some(&last));
        // Word for word what the transport says at the other end.
        let late = Status::cancelled(TimeoutExpired(()).to_string());
        assert!(is_late(&late) && !broke_here(&late));
    }
}
