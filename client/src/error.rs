//! Why a question was not answered, so that the asker knows what to do.
//!
//! Owns the one translation of gRPC's failures. Each variant stands for a different thing to do.

use std::error::Error as StdError;
use std::time::Duration;

use tonic::{Code, Status};

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The URL cannot be one of an aggregator: give another.
    #[error("{url:?} is no address of an aggregator ({detail}); http://HOST:PORT is wanted")]
    Address {
        /// As it was given.
        url: String,
        /// What is wrong with it.
        detail: String,
    },
    /// No connection came about: the aggregator is not running, or is elsewhere.
    #[error("cannot reach an aggregator at {url}: {detail}")]
    Unreachable {
        /// Where.
        url: String,
        /// What the system said.
        detail: String,
    },
    /// Something else listens there, or the connection broke within an answer.
    #[error("the conversation with {url} broke: {detail}")]
    Broken {
        /// Where.
        url: String,
        /// What was seen of it.
        detail: String,
    },
    /// It did not answer in time.
    #[error("{url} did not answer {call} within {limit:?}")]
    TimedOut {
        /// Where.
        url: String,
        /// The question.
        call: &'static str,
        /// How long was waited.
        limit: Duration,
    },
    /// It cannot answer now; it was asked again a few times. Try later.
    #[error("the aggregator at {url} cannot answer now: {detail}")]
    Unavailable {
        /// Where.
        url: String,
        /// What it said.
        detail: String,
    },
    /// What was asked about is not there.
    #[error("{0}")]
    NotFound(String),
    /// The snapshot behind a listing is gone (the reader was too slow, or the aggregator was
    /// started anew). What was read so far is good for its round; a whole listing has to be begun
    /// anew.
    #[error("the listing cannot be continued, the aggregator no longer holds it: begin it anew")]
    ListingGone,
    /// This aggregator does not answer such questions: it is of another version.
    #[error("the aggregator at {url} does not answer {call}; is it of another version?")]
    NotServed {
        /// Where.
        url: String,
        /// The question.
        call: &'static str,
    },
    /// The question itself is wrong.
    #[error("the aggregator refused the question: {0}")]
    Refused(String),
    /// The answer lacks what it must have.
    #[error("{url} gave an answer that cannot be understood: {detail}")]
    Malformed {
        /// Where.
        url: String,
        /// What is wrong with it.
        detail: &'static str,
    },
    /// Anything else that went wrong at the aggregator; its log says more.
    #[error("the aggregator at {url} failed to answer {call}: {detail}")]
    Failed {
        /// Where.
        url: String,
        /// The question.
        call: &'static str,
        /// What it said.
        detail: String,
    },
}

/// The innermost cause: what the system said, without the layers around it.
pub(crate) fn root(error: &(dyn StdError + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

impl Error {
    pub(crate) fn from_status(url: &str, call: &'static str, status: &Status) -> Self {
        let (url, detail) = (url.to_owned(), status.message().to_owned());
        // A status with a source was made at this end: no word came from the other.
        if let Some(source) = status.source() {
            let detail = root(source);
            return match status.code() {
                Code::Unavailable => Self::Unreachable { url, detail },
                _ => Self::Broken { url, detail },
            };
        }
        // Nor is it an aggregator that answers in HTTP alone.
        if detail.starts_with("grpc-status header missing") {
            return Self::Broken { url, detail };
        }
        match status.code() {
            Code::NotFound => Self::NotFound(detail),
            Code::Aborted => Self::ListingGone,
            Code::Unimplemented => Self::NotServed { url, call },
            Code::InvalidArgument => Self::Refused(detail),
            Code::Unavailable => Self::Unavailable { url, detail },
            _ => Self::Failed { url, call, detail },
        }
    }
}
