//! Failed questions, and foreign text made safe for logs.

use uptime_proto::Reason;

/// Bytes of foreign text that enter an error's detail; enough for every message recorded.
pub(super) const DETAIL_BYTES_MAX: usize = 240;

/// A question failed. Says nothing about any node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {detail}")]
pub struct CouldNotLook {
    /// Why, of the closed list.
    pub reason: Reason,
    /// What happened, for the log and `check`. Never contains the key.
    pub detail: String,
}

impl CouldNotLook {
    pub(super) fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }
}

/// The fault of an answer with this status and this text.
pub(super) fn refused(reason: Reason, status: u16, body: &[u8]) -> CouldNotLook {
    let text = clean(&message(body), DETAIL_BYTES_MAX);
    CouldNotLook::new(reason, format!("status {status}: {text}"))
}

/// The fault of an answer that was not understood.
pub(super) fn malformed(what: impl std::fmt::Display) -> CouldNotLook {
    CouldNotLook::new(Reason::MalformedAnswer, clean(&what.to_string(), DETAIL_BYTES_MAX))
}

/// The text of an error body: its `message` if it is the usual JSON, else all of it.
pub(super) fn message(body: &[u8]) -> String {
    json_message(body).unwrap_or_else(|| String::from_utf8_lossy(body).into_owned())
}

/// The `message` of an error body in yagna's own form.
pub(super) fn json_message(body: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct ErrorBody {
        message: String,
    }
    serde_json::from_slice::<ErrorBody>(body).ok().map(|body| body.message)
}

/// Foreign text made safe for logs and tables: without control or direction characters, cut to
/// `bytes_max` between characters.
pub(super) fn clean(text: &str, bytes_max: usize) -> String {
    let mut cleaned = String::new();
    for character in text.chars() {
        let character = match character {
            '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => ' ',
            other if other.is_control() => ' ',
            other => other,
        };
        if cleaned.len() + character.len_utf8() > bytes_max {
            break;
        }
        cleaned.push(character);
    }
    cleaned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text() {
        assert_eq!(clean("a\nb\u{202e}c\u{7f}", 9), "a b c ");
        assert_eq!(clean("äöü", 5), "äö");
        assert_eq!(clean("abc", 0), "");
    }
}
