//! What all pages share: head, navigation, foot, and the page of an error.
//!
//! Owns the headers that hold a browser to this origin. A page is a string that only this room
//! writes; foreign text gets into it through `escape` alone.

use std::fmt::Write;

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::assets::places;
use super::error::WebError;
use super::escape::{Escaped, Sentence};

/// What a page may do: its own style, script, icon and questions, and nothing of anybody else.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src \
    'self'; \
     connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
/// What everything else may do: nothing.
const BARE_POLICY: &str = "default-src 'none'; frame-ancestors 'none'";

/// A page before its content is known.
pub(super) struct Layout<'a> {
    /// May hold foreign text.
    pub(super) title: &'a str,
    /// How often the script refreshes the page, in seconds; 0: never.
    pub(super) every_s: u32,
}

impl Layout<'_> {
    /// The page around this `<main>`.
    pub(super) fn around(&self, content: &str) -> String {
        let places = places();
        let mut html = String::with_capacity(content.len() + 2_048);
        // Writing to a String cannot fail.
        write!(
            html,
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <title>{} · Golem Uptime</title>\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n\
             <link rel=\"icon\" href=\"{}\">\n<link rel=\"stylesheet\" href=\"{}\">\n\
             <script src=\"{}\" defer></script>\n</head>\n<body data-every-s=\"{}\">\n\
             <a class=\"skip\" href=\"#content\">Skip to content</a>\n\
             <header class=\"top\"><div><a class=\"brand\" href=\"/\">Golem Uptime</a>\
             <nav aria-label=\"Site\"><a href=\"/#probes\">Probes</a>\
             <a href=\"/#nodes\">Nodes</a>\
             <a href=\"/nodes_status.csv\">CSV</a><a href=\"/api/v1/openapi.json\">API</a>\
             </nav></div></header>\n<main id=\"content\">\n",
            Escaped(self.title),
            places.icon,
            places.style,
            places.script,
            self.every_s,
        )
        .ok();
        html.push_str(content);
        html.push_str(
            "</main>\n<footer><p>Up, down or unknown. Unknown time counts neither as up nor \
             as down. All times are UTC.</p></footer>\n</body>\n</html>\n",
        );
        html
    }
}

/// A page as an answer.
pub(super) fn respond(status: StatusCode, html: String) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(PAGE_POLICY)),
    ];
    (status, headers, html).into_response()
}

/// An error as a page.
pub(super) fn error_page(error: WebError) -> Response {
    let head = error.status.canonical_reason().unwrap_or("Error");
    let mut html = String::new();
    write!(html, "<section class=\"card\"><h1>{head}</h1><p>").ok();
    if let Some(field) = &error.field {
        write!(html, "<code>{}</code>: ", Escaped(field)).ok();
    }
    write!(html, "{}", Sentence(&error.message)).ok();
    html.push_str("</p><p><a href=\"/\">Back to the overview</a></p></section>\n");
    let layout = Layout { title: head, every_s: 0 };
    error.headed(respond(error.status, layout.around(&html)))
}

/// Headers that every answer carries, whatever it is.
pub(super) async fn guarded(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(HeaderValue::from_static(BARE_POLICY));
    let all: [(HeaderName, &str); 2] =
        [(header::X_CONTENT_TYPE_OPTIONS, "nosniff"), (header::REFERRER_POLICY, "no-referrer")];
    for (name, value) in all {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}
