//! The files that pages ask for: style, script and icon, built into the program.
//!
//! Owns their names, which carry a digest of what they hold, so that browsers may keep them for
//! ever and still never use an old one with a new page.

use std::sync::OnceLock;

use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use tonic::Code;

use super::error::WebError;

/// Its name carries what it holds, so it never changes.
const FOR_EVER: &str = "public, max-age=31536000, immutable";

struct Asset {
    stem: &'static str,
    ending: &'static str,
    kind: &'static str,
    bytes: &'static [u8],
}

const ASSETS: [Asset; 3] = [
    Asset {
        stem: "page",
        ending: "css",
        kind: "text/css; charset=utf-8",
        bytes: include_bytes!("page.css"),
    },
    Asset {
        stem: "page",
        ending: "js",
        kind: "text/javascript; charset=utf-8",
        bytes: include_bytes!("page.js"),
    },
    Asset { stem: "icon", ending: "svg", kind: "image/svg+xml", bytes: include_bytes!("icon.svg") },
];

/// Where the style, the script and the icon are.
pub(super) struct Places {
    pub(super) style: String,
    pub(super) script: String,
    pub(super) icon: String,
}

fn name(asset: &Asset) -> String {
    let digest = blake3::hash(asset.bytes).to_hex();
    format!("{}-{}.{}", asset.stem, &digest[..16], asset.ending)
}

/// Where the files are.
pub(super) fn places() -> &'static Places {
    static PLACES: OnceLock<Places> = OnceLock::new();
    PLACES.get_or_init(|| {
        let [style, script, icon] =
            ASSETS.each_ref().map(|asset| format!("/assets/{}", name(asset)));
        Places { style, script, icon }
    })
}

/// The file of this name.
pub(super) fn file(wanted: &str) -> Result<Response, WebError> {
    let Some(asset) = ASSETS.iter().find(|asset| name(asset) == wanted) else {
        let error = WebError::new(Code::NotFound, "there is no such file; reload the page");
        return Err(error);
    };
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(asset.kind)),
        (header::CACHE_CONTROL, HeaderValue::from_static(FOR_EVER)),
    ];
    Ok((headers, asset.bytes).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the pages promise: nothing is asked of anybody else.
    #[test]
    fn no_file_names_another_origin() {
        for asset in &ASSETS {
            let text = String::from_utf8_lossy(asset.bytes);
            let text = text.replace("http://www.w3.org/2000/svg", "");
            for word in ["http:", "https:", "//cdn", "@import", "url(", "eval(", "innerHTML"] {
                assert!(!text.contains(word), "{}: {word}", name(asset));
            }
        }
    }
}
