//! `/badge/{id}.svg`: the uptime of one node, small enough for a README.
//!
//! Owns the picture. A percentage with little coverage says so, and without a decided round the
//! badge says "unknown". An unknown id gets a grey badge with status 404, so that a browser shows a
//! picture and a program sees the error; a malformed id gets 400.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tonic::Code;

use super::api::node_id;
use super::error::WebError;
use super::query_params::{QUERY_BYTES_MAX, QueryParams};
use super::time_format::{percent, span};
use crate::engine::Snapshot;

/// The default window.
const WINDOW: &str = "30d";
/// The longest time for which a cache may keep a badge.
const KEPT_S_MAX: u32 = 300;
/// Below this coverage, in percent, the badge shows the coverage.
const COVERAGE_MIN: f64 = 90.0;

const GREY: &str = "#6b7280";
const GREEN: &str = "#2a7d4f";
const AMBER: &str = "#8a6100";
const RED: &str = "#b3341f";

/// A badge: what it says, and its colour.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Badge {
    label: String,
    value: String,
    colour: &'static str,
    /// For screen readers.
    title: String,
}

impl Badge {
    fn grey(value: &str) -> Self {
        let (label, title) = ("uptime".to_owned(), format!("uptime: {value}"));
        Self { label, value: value.to_owned(), colour: GREY, title }
    }

    /// The uptime of a node over the last so many seconds; all if not given.
    fn of(snapshot: &Snapshot, number: u32, span_s: Option<u64>, window: &str) -> Self {
        let end_s = snapshot.closed_end_s();
        let from_s = span_s.map_or(0, |span_s| end_s.saturating_sub(span_s));
        let tally = snapshot.windowed(number, from_s, end_s).tally;
        let label = if span_s.is_some() { format!("uptime {window}") } else { "uptime".to_owned() };
        let coverage = tally.coverage_percent();
        let Some(uptime) = tally.uptime_percent() else {
            let title = format!("{label}: unknown, no round was decided");
            return Self { label, value: "unknown".to_owned(), colour: GREY, title };
        };
        let colour = match uptime {
            uptime if uptime >= 99.0 => GREEN,
            uptime if uptime >= 95.0 => AMBER,
            _ => RED,
        };
        let mut value = percent(Some(uptime));
        if coverage.is_some_and(|coverage| coverage < COVERAGE_MIN) {
            value = format!("{value} of {:.0} % seen", coverage.unwrap_or(0.0).floor());
        }
        let title = format!("{label}: {}, coverage {}", percent(Some(uptime)), percent(coverage));
        Self { label, value, colour, title }
    }

    /// Needs no escaping: only our words, numbers, and a window that was parsed.
    fn draw(&self) -> String {
        let Self { label, value, colour, title } = self;
        let (left, right) = (wide(label), wide(value));
        let (all, text_left, text_right) = (left + right, left - 12, right - 12);
        let (at_left, at_right) = (left / 2, left + right / 2);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{all}\" height=\"20\" \
             viewBox=\"0 0 {all} 20\" role=\"img\" aria-label=\"{title}\"><title>{title}</title>\
             <rect width=\"{all}\" height=\"20\" rx=\"3\" fill=\"#2b3440\"/>\
             <path d=\"M{left} 0h{}a3 3 0 0 1 3 3v14a3 3 0 0 1-3 3h-{}z\" fill=\"{colour}\"/>\
             <g fill=\"#fff\" text-anchor=\"middle\" \
             font-family=\"Verdana,DejaVu Sans,sans-serif\" font-size=\"11\">\
             <text x=\"{at_left}\" y=\"14\" textLength=\"{text_left}\">{label}</text>\
             <text x=\"{at_right}\" y=\"14\" textLength=\"{text_right}\">\
         {value}</text></g></svg>\n",
            right - 3,
            right - 3,
        )
    }
}

/// The width of a text and its margins, in pixels, as Verdana at 11 has it.
fn wide(text: &str) -> u32 {
    let tenths = text.chars().map(|letter| match letter {
        'i' | 'l' | '.' | ' ' | 'f' | 't' | 'r' => 42,
        'm' | 'w' | '%' => 107,
        _ => 69,
    });
    tenths.sum::<u32>().div_ceil(10) + 12
}

/// The requested badge and its status.
fn badge(
    snapshot: &Snapshot,
    file: &str,
    query: Option<&str>,
) -> Result<(StatusCode, Badge), WebError> {
    let params = QueryParams::read(query, &["window"], QUERY_BYTES_MAX)?;
    let window = params.get("window").unwrap_or(WINDOW);
    let span_s = span("window", window)?;
    let name = file.strip_suffix(".svg").ok_or_else(|| {
        WebError::new(Code::NotFound, "a badge's address ends in .svg: /badge/0x….svg")
    })?;
    let id = node_id("id", name)?;
    let number = snapshot.node(&id).map(|view| view.number);
    Ok(match number {
        Some(number) => (StatusCode::OK, Badge::of(snapshot, number, span_s, window)),
        None => (StatusCode::NOT_FOUND, Badge::grey("node not known")),
    })
}

/// Answers with a badge, also on errors.
pub(super) fn respond(
    snapshot: &Snapshot,
    file: &str,
    query: Option<&str>,
    headers: &HeaderMap,
) -> Response {
    let (status, badge) = badge(snapshot, file, query).unwrap_or_else(|error| {
        let what = error.field.as_deref().unwrap_or("address");
        (error.status, Badge::grey(if what == "id" { "not a node id" } else { "wrong address" }))
    });
    let drawn = badge.draw();
    let tag = format!("\"{}\"", &blake3::hash(drawn.as_bytes()).to_hex()[..32]);
    let period_s = snapshot.epochs.at(snapshot.closed_end_s()).period.seconds();
    let kept = format!("public, max-age={}", period_s.min(KEPT_S_MAX));
    let mut answered = HeaderMap::new();
    for (name, value) in [(header::CACHE_CONTROL, kept), (header::ETAG, tag.clone())] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            answered.insert(name, value);
        }
    }
    if status == StatusCode::OK && super::download::names_tag(headers, &tag) {
        return (StatusCode::NOT_MODIFIED, answered).into_response();
    }
    answered.insert(header::CONTENT_TYPE, HeaderValue::from_static("image/svg+xml"));
    (status, answered, drawn).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_badge_is_as_wide_as_its_words_and_says_them_twice() {
        let drawn = Badge::grey("node not known").draw();
        assert_eq!(drawn.matches("uptime: node not known").count(), 2);
        assert!(drawn.contains("role=\"img\"") && drawn.contains("width=\"157\""), "{drawn}");
        assert!(wide("100 %") < wide("99.99 % of 40 % seen"));
    }
}
