//! The query string of a request, parsed strictly.
//!
//! Owns how a query string becomes values: its length is bounded before it is looked at, a name
//! that the route does not know is refused with the list of those it knows, a name comes once, and
//! what is not UTF-8 is not guessed. Refuses to give any value a meaning beyond flags, counts and
//! choices.

use tonic::Code;

use super::error::WebError;
use axum::http::StatusCode;

/// The longest query of most routes, in bytes as sent.
pub(super) const QUERY_BYTES_MAX: usize = 4 * 1024;
/// The longest query where many ids may be named: 250 of 42 letters, their commas, and the rest.
/// The listener takes no head of a request beyond 16 KiB.
pub(super) const QUERY_OF_IDS_BYTES_MAX: usize = 12 * 1024;
/// The longest value of a parameter that is a text, in bytes.
pub(super) const TEXT_BYTES_MAX: usize = 256;

/// The parameters of one request, each at most once.
#[derive(Debug, Clone, Default)]
pub(super) struct QueryParams(Vec<(String, String)>);

impl QueryParams {
    /// Reads a query string. `known` are the names the route knows.
    pub(super) fn read(
        query: Option<&str>,
        known: &[&str],
        bytes_max: usize,
    ) -> Result<Self, WebError> {
        let query = query.unwrap_or("");
        if query.len() > bytes_max {
            let message = format!("the query is {} bytes long, at most {bytes_max}", query.len());
            let error = WebError::new(Code::InvalidArgument, message);
            return Err(WebError { status: StatusCode::URI_TOO_LONG, ..error });
        }
        let mut all: Vec<(String, String)> = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decoded(name).ok_or_else(|| {
                WebError::new(Code::InvalidArgument, "the name of a parameter is not UTF-8")
            })?;
            if !known.contains(&name.as_str()) {
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                let short: String = name.chars().take(40).collect();
                let message = format!("there is no parameter {short:?} here; known: {known}");
                return Err(WebError::of(&short, message));
            }
            let value = decoded(value).ok_or_else(|| {
                WebError::of(&name, "is not UTF-8, or % is not followed by two digits")
            })?;
            if all.iter().any(|(there, _)| *there == name) {
                return Err(WebError::of(&name, "is given twice"));
            }
            all.push((name, value));
        }
        Ok(Self(all))
    }

    /// A value; one that is empty counts as not given, as forms send all their fields.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(there, _)| there == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// A text of bounded length; empty when not given.
    pub(super) fn text(&self, name: &str) -> Result<String, WebError> {
        let text = self.get(name).unwrap_or("");
        if text.len() > TEXT_BYTES_MAX {
            let message = format!("is {} bytes long, at most {TEXT_BYTES_MAX}", text.len());
            return Err(WebError::of(name, message));
        }
        Ok(text.to_owned())
    }

    /// Yes, no, or not given.
    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>, WebError> {
        match self.get(name) {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(_) => Err(WebError::of(name, "must be true or false")),
        }
    }

    /// A count; 0 when not given.
    pub(super) fn count(&self, name: &str) -> Result<u32, WebError> {
        let Some(text) = self.get(name) else { return Ok(0) };
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let count = text.parse().ok().filter(|_| digits);
        count
            .ok_or_else(|| WebError::of(name, format!("must be a whole number up to {}", u32::MAX)))
    }

    /// One of some words; `None` when not given.
    pub(super) fn choice<T: Copy>(
        &self,
        name: &str,
        choices: &[(&str, T)],
    ) -> Result<Option<T>, WebError> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let found = choices.iter().find(|(word, _)| *word == text);
        found.map(|(_, choice)| Some(*choice)).ok_or_else(|| {
            let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
            WebError::of(name, format!("must be one of {}", words.join(", ")))
        })
    }
}

/// The percent-decoded text; `None` if it is malformed.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                let (high, low) = (digit(rest.next())?, digit(rest.next())?);
                u8::try_from(high * 16 + low).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<QueryParams, WebError> {
        QueryParams::read(Some(query), &["name", "page_size"], QUERY_BYTES_MAX)
    }

    #[test]
    fn values_are_decoded_and_empty_ones_are_not_given() {
        let params = read("name=a%20b+c%26%C3%BC&page_size=7").unwrap();
        assert_eq!((params.get("name"), params.count("page_size")), (Some("a b c&ü"), Ok(7)));
        let params = read("name=&&page_size").unwrap();
        assert_eq!((params.get("name"), params.count("page_size")), (None, Ok(0)));
        assert_eq!(QueryParams::read(None, &[], 0).unwrap().text("name"), Ok(String::new()));
    }

    #[test]
    fn what_cannot_be_read_is_refused_and_named() {
        for (query, field, part) in [
            ("nam=1", Some("nam"), "known: name, page_size"),
            ("NAME=1", Some("NAME"), "known: name, page_size"),
            ("name=1&name=2", Some("name"), "twice"),
            ("name=%ff", Some("name"), "UTF-8"),
            ("name=%4", Some("name"), "two digits"),
            ("name=%zz", Some("name"), "two digits"),
            ("%ff=1", None, "UTF-8"),
        ] {
            let error = read(query).unwrap_err();
            assert_eq!((error.field.as_deref(), error.status.as_u16()), (field, 400), "{query}");
            assert!(error.message.contains(part), "{query}: {}", error.message);
        }
        let error = QueryParams::read(Some("x"), &[], 10).unwrap_err();
        assert!(error.message.ends_with("known: none"), "{}", error.message);
    }

    #[test]
    fn lengths_and_numbers_are_bounded() {
        let long = format!("name={}", "x".repeat(QUERY_BYTES_MAX));
        let error = read(&long).unwrap_err();
        assert_eq!(error.status, StatusCode::URI_TOO_LONG);
        let text = format!("name={}", "x".repeat(TEXT_BYTES_MAX + 1));
        assert!(read(&text).unwrap().text("name").unwrap_err().message.contains("at most 256"));
        let text = format!("name={}", "x".repeat(TEXT_BYTES_MAX));
        assert_eq!(read(&text).unwrap().text("name").unwrap().len(), TEXT_BYTES_MAX);
        for bad in ["-1", "+1", "1.5", "4294967296", "0x10", "a"] {
            let params = read(&format!("page_size={}", bad.replace('+', "%2b"))).unwrap();
            assert!(params.count("page_size").is_err(), "{bad}");
        }
        let params = read("page_size=1000000000").unwrap();
        assert_eq!(params.count("page_size"), Ok(1_000_000_000));
        assert!(params.flag("page_size").is_err());
        let error = params.choice("page_size", &[("up", 1), ("down", 2)]).unwrap_err();
        assert!(error.message.contains("up, down"), "{}", error.message);
    }
}
