//! `/nodes_status.csv`: the canonical CSV as it lies on disk.
//!
//! Owns its validators. The entity tag is a digest of the bytes, so it is strong and the same for
//! the same content; it is worked out once for each file that is put there. The file is read in
//! pieces while it is sent: it is replaced by renaming, so what was opened stays whole whatever
//! comes after.

use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio_util::io::ReaderStream;
use tonic::Code;

use super::error::WebError;
use super::layout;
use super::time_format::{from_http_date, http_date};

/// Read and sent at a time.
const PIECE_BYTES: usize = 256 * 1024;
/// Entity tags of one request that are looked at.
const TAGS_MAX: usize = 64;

/// What tells one file from the one that replaces it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Version {
    inode: u64,
    bytes: u64,
    modified_s: i64,
    modified_ns: i64,
}

/// The digest of the last requested file.
#[derive(Debug, Default)]
pub(super) struct Digests(Mutex<Option<(Version, String)>>);

/// A file that is open, and what stands in its headers.
struct Opened {
    file: std::fs::File,
    bytes: u64,
    tag: String,
    modified_s: u64,
}

impl Digests {
    /// Blocks: reads the whole file where it is a new one.
    fn open(&self, path: &Path) -> std::io::Result<Opened> {
        let mut file = std::fs::File::open(path)?;
        let metadata = file.metadata()?;
        let version = Version {
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified_s: metadata.mtime(),
            modified_ns: metadata.mtime_nsec(),
        };
        // Held while a file is read, so that many who ask at once read it once.
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let tag = match &*kept {
            Some((there, tag)) if *there == version => tag.clone(),
            _ => {
                let mut hasher = blake3::Hasher::new();
                let mut piece = vec![0; PIECE_BYTES];
                loop {
                    let read = file.read(&mut piece)?;
                    if read == 0 {
                        break;
                    }
                    hasher.update(piece.get(..read).unwrap_or_default());
                }
                file.seek(SeekFrom::Start(0))?;
                let tag = format!("\"{}\"", &hasher.finalize().to_hex()[..32]);
                *kept = Some((version, tag.clone()));
                tag
            }
        };
        let modified_s = u64::try_from(version.modified_s).unwrap_or(0);
        Ok(Opened { file, bytes: version.bytes, tag, modified_s })
    }
}

/// Whether `If-None-Match` names this tag; compared weakly, as it is to be there.
pub(super) fn names_tag(headers: &HeaderMap, tag: &str) -> bool {
    let all = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut named = all.flat_map(|value| value.split(',')).map(str::trim).take(TAGS_MAX);
    named.any(|named| named == "*" || named.trim_start_matches("W/") == tag)
}

/// Whether what the asker has is what is there.
fn is_known(headers: &HeaderMap, tag: &str, modified_s: u64) -> bool {
    if headers.contains_key(header::IF_NONE_MATCH) {
        return names_tag(headers, tag);
    }
    let since = headers.get(header::IF_MODIFIED_SINCE).and_then(|value| value.to_str().ok());
    since.and_then(from_http_date).is_some_and(|since_s| modified_s <= since_s)
}

/// Answers the file.
pub(super) async fn respond(digests: &Arc<Digests>, csv: &Path, headers: &HeaderMap) -> Response {
    let (there, path) = (Arc::clone(digests), csv.to_owned());
    let opened = tokio::task::spawn_blocking(move || there.open(&path)).await;
    let opened = match opened.map_err(std::io::Error::other).and_then(|opened| opened) {
        Ok(opened) => opened,
        Err(error) => {
            tracing::error!(%error, path = %csv.display(), "the CSV cannot be read");
            let text = "the CSV is not available; the aggregator's log says why";
            return layout::error_page(WebError::new(Code::Unavailable, text));
        }
    };
    let mut answered = HeaderMap::new();
    let mut put = |name: HeaderName, value: String| {
        if let Ok(value) = HeaderValue::from_str(&value) {
            answered.insert(name, value);
        }
    };
    put(header::ETAG, opened.tag.clone());
    put(header::LAST_MODIFIED, http_date(opened.modified_s));
    put(header::CACHE_CONTROL, "no-cache".to_owned());
    if is_known(headers, &opened.tag, opened.modified_s) {
        return (StatusCode::NOT_MODIFIED, answered).into_response();
    }
    put(header::CONTENT_TYPE, "text/csv; charset=utf-8".to_owned());
    put(header::CONTENT_LENGTH, opened.bytes.to_string());
    let file = tokio::fs::File::from_std(opened.file);
    let pieces = ReaderStream::with_capacity(file, PIECE_BYTES);
    (answered, Body::from_stream(pieces)).into_response()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn asking(name: HeaderName, value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_str(value).unwrap());
        headers
    }

    #[test]
    fn what_the_asker_has_is_compared_as_http_says() {
        for (value, known) in [
            ("\"a\"", true),
            ("W/\"a\"", true),
            ("\"b\", \"a\"", true),
            ("*", true),
            ("\"b\"", false),
            ("a", false),
            ("", false),
        ] {
            let headers = asking(header::IF_NONE_MATCH, value);
            assert_eq!(is_known(&headers, "\"a\"", 100), known, "{value}");
        }
        for (second, known) in [(99, false), (100, true), (101, true)] {
            let headers = asking(header::IF_MODIFIED_SINCE, &http_date(second));
            assert_eq!(is_known(&headers, "\"a\"", 100), known, "{second}");
        }
        // Where both are there the tag decides.
        let mut headers = asking(header::IF_MODIFIED_SINCE, &http_date(200));
        headers.insert(header::IF_NONE_MATCH, HeaderValue::from_static("\"b\""));
        assert!(!is_known(&headers, "\"a\"", 100));
        assert!(!is_known(&HeaderMap::new(), "\"a\"", 100));
    }

    #[test]
    fn the_tag_is_of_the_bytes_and_a_replaced_file_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("nodes_status.csv");
        let digests = Digests::default();
        assert!(digests.open(&path).is_err());
        let put = |text: &str| {
            crate::publish::replace_file(&path, |out| out.write_all(text.as_bytes())).unwrap();
            let mut opened = digests.open(&path).unwrap();
            let mut read = String::new();
            opened.file.read_to_string(&mut read).unwrap();
            assert_eq!((read.as_str(), opened.bytes), (text, text.len() as u64));
            opened.tag
        };
        let (first, second, again) = (put("a"), put("b"), put("a"));
        assert_ne!(first, second);
        assert_eq!(first, again);
        assert_eq!(digests.open(&path).unwrap().tag, again);
    }
}
