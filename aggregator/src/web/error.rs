//! Errors, as JSON for programs and for pages.
//!
//! Owns the one form of an error: a code of gRPC's list, the HTTP status that fits it, the field it
//! is about, and a sentence to act on; as JSON for programs and as a page for people. Refuses to
//! tell anything of the inside: what goes wrong here is logged, not shown.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tonic::{Code, Status};

/// Why a request was refused or failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WebError {
    pub(super) code: Code,
    pub(super) status: StatusCode,
    /// The parameter it is about.
    pub(super) field: Option<String>,
    pub(super) message: String,
}

/// The statuses of HTTP that gRPC's codes stand for, as google.rpc.Code has them.
pub(super) const STATUSES: [(Code, &str, StatusCode); 16] = [
    (Code::Cancelled, "CANCELLED", StatusCode::SERVICE_UNAVAILABLE),
    (Code::Unknown, "UNKNOWN", StatusCode::INTERNAL_SERVER_ERROR),
    (Code::InvalidArgument, "INVALID_ARGUMENT", StatusCode::BAD_REQUEST),
    (Code::DeadlineExceeded, "DEADLINE_EXCEEDED", StatusCode::GATEWAY_TIMEOUT),
    (Code::NotFound, "NOT_FOUND", StatusCode::NOT_FOUND),
    (Code::AlreadyExists, "ALREADY_EXISTS", StatusCode::CONFLICT),
    (Code::PermissionDenied, "PERMISSION_DENIED", StatusCode::FORBIDDEN),
    (Code::ResourceExhausted, "RESOURCE_EXHAUSTED", StatusCode::TOO_MANY_REQUESTS),
    (Code::FailedPrecondition, "FAILED_PRECONDITION", StatusCode::BAD_REQUEST),
    (Code::Aborted, "ABORTED", StatusCode::CONFLICT),
    (Code::OutOfRange, "OUT_OF_RANGE", StatusCode::BAD_REQUEST),
    (Code::Unimplemented, "UNIMPLEMENTED", StatusCode::NOT_IMPLEMENTED),
    (Code::Internal, "INTERNAL", StatusCode::INTERNAL_SERVER_ERROR),
    (Code::Unavailable, "UNAVAILABLE", StatusCode::SERVICE_UNAVAILABLE),
    (Code::DataLoss, "DATA_LOSS", StatusCode::INTERNAL_SERVER_ERROR),
    (Code::Unauthenticated, "UNAUTHENTICATED", StatusCode::UNAUTHORIZED),
];

/// Seconds after which a client may retry.
const RETRY_AFTER_S: &str = "1";

#[derive(Serialize)]
struct Body<'a> {
    code: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
}

impl WebError {
    /// An error with the status that fits its code.
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        let known = STATUSES.iter().find(|(known, ..)| *known == code);
        let status = known.map_or(StatusCode::INTERNAL_SERVER_ERROR, |(.., status)| *status);
        Self { code, status, field: None, message: message.into() }
    }

    /// A parameter with a wrong value.
    pub(super) fn of(field: &str, message: impl Into<String>) -> Self {
        let field = Some(field.to_owned());
        Self { field, ..Self::new(Code::InvalidArgument, message) }
    }

    /// An error in this program; the details go to the log.
    pub(super) fn internal(what: &str, error: &dyn std::fmt::Display) -> Self {
        tracing::error!(%error, what, "a page was not made");
        Self::new(Code::Internal, "something failed here; the aggregator's log says what")
    }

    /// Too many requests at once.
    pub(super) fn busy() -> Self {
        Self::new(Code::Unavailable, "too many requests at once; try again in a moment")
    }

    /// A refusal of the query service. Its messages begin with the field that they are about, which
    /// is told by the name of the parameter that fills it.
    pub(super) fn refused(status: &Status, parameters: &[&str]) -> Self {
        let message = status.message();
        let named = message.split_once(": ").and_then(|(field, rest)| {
            let field = field.split('[').next().unwrap_or(field);
            let field = match field {
                "window.from_unix_s" => "from",
                "window.to_unix_s" => "to",
                "round_unix_s" => "round",
                field => field.trim_start_matches("filter."),
            };
            parameters.contains(&field).then(|| (field.to_owned(), rest))
        });
        let rest = named.as_ref().map_or(message, |(_, rest)| rest);
        Self {
            field: named.as_ref().map(|(field, _)| field.clone()),
            ..Self::new(status.code(), rest)
        }
    }

    /// Its code's name on the wire.
    pub(super) fn code_name(&self) -> &'static str {
        STATUSES.iter().find(|(code, ..)| *code == self.code).map_or("UNKNOWN", |(_, name, _)| name)
    }

    /// As JSON.
    pub(super) fn into_json(self) -> Response {
        let body =
            Body { code: self.code_name(), message: &self.message, field: self.field.as_deref() };
        self.headed((self.status, Json(body)).into_response())
    }

    /// Adds the headers that the status needs.
    pub(super) fn headed(&self, mut response: Response) -> Response {
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            let wait = HeaderValue::from_static(RETRY_AFTER_S);
            response.headers_mut().insert(header::RETRY_AFTER, wait);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_name_and_a_status_that_is_an_error() {
        for code in (1..=16).map(Code::from) {
            let error = WebError::new(code, "x");
            assert_eq!(error.code_name().replace('_', ""), format!("{code:?}").to_uppercase());
            assert!(error.status.is_client_error() || error.status.is_server_error());
        }
    }

    #[test]
    fn a_refusal_names_its_field_when_that_is_one() {
        let status = Status::invalid_argument("page_token: give back what the last page said");
        let error = WebError::refused(&status, &["page_size", "page_token"]);
        assert_eq!(error.field.as_deref(), Some("page_token"));
        assert_eq!(error.message, "give back what the last page said");
        for (message, field) in [
            ("window.to_unix_s: it must lie after from_unix_s", "to"),
            ("round_unix_s: no round starts then", "round"),
            ("ids[3]: not an id", "ids"),
            ("filter.subnet: too long", "subnet"),
        ] {
            let known = ["to", "round", "ids", "subnet"];
            let error = WebError::refused(&Status::invalid_argument(message), &known);
            assert_eq!(error.field.as_deref(), Some(field), "{message}");
        }
        let status = Status::not_found("0x12: never seen");
        let error = WebError::refused(&status, &["id"]);
        assert_eq!((error.field, error.status.as_u16()), (None, 404));
        assert_eq!(error.message, "0x12: never seen");
    }
}
