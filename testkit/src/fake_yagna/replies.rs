//! Replies in the daemon's own form.
//!
//! Owns the JSON of errors and strings, and how a JSON body is read. Refuses to know any route.

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::http::{Reply, Request};

/// The form of most errors.
pub(crate) fn message(status: u16, text: impl Into<String>) -> Reply {
    Reply::json(status, json!({"message": text.into()}))
}

/// Reads a JSON body, or refuses it in the daemon's words.
pub(crate) fn body_json<T: DeserializeOwned>(request: &Request) -> Result<T, Reply> {
    let content = request.header("content-type").unwrap_or_default();
    if !content.starts_with("application/json") {
        return Err(message(400, "Content type error"));
    }
    serde_json::from_slice(&request.body)
        .map_err(|error| message(400, format!("Json deserialize error: {error}")))
}

/// Writes a JSON string.
pub(crate) fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}
