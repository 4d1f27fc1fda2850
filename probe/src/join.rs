//! `uptime-probe join`: exchanges a ticket for this probe's token.
//!
//! Owns the token file. Creates it, empty and private, before using the ticket, because a ticket
//! works only once.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::uplink::{self, Tls, Token, UplinkError};

/// The most that is read of a ticket; real ones have 64 digits.
const TICKET_BYTES_MAX: u64 = 512;

/// Why the exchange failed.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The ticket cannot be read.
    #[error("the ticket, on standard input: {0}")]
    Ticket(String),
    /// The token file cannot be written.
    #[error("cannot write the token file {}: {source}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The aggregator gave no token.
    #[error(transparent)]
    Uplink(#[from] UplinkError),
}

/// Reads a ticket.
///
/// # Errors
/// When there is none, or it is not a single word.
pub fn read_ticket(from: impl Read) -> Result<Token, JoinError> {
    let mut text = String::new();
    let read = from.take(TICKET_BYTES_MAX).read_to_string(&mut text);
    read.map_err(|error| JoinError::Ticket(error.to_string()))?;
    if text.trim().is_empty() {
        return Err(JoinError::Ticket("it is empty".to_owned()));
    }
    Token::new(&text).map_err(JoinError::Ticket)
}

/// Exchanges the ticket and writes the token. Returns the probe's name.
///
/// # Errors
/// When the token was not written.
pub async fn join(
    address: &str,
    tls: &Tls,
    ticket: &Token,
    token_file: &Path,
) -> Result<String, JoinError> {
    let failed = |source| JoinError::File { path: token_file.to_owned(), source };
    let mut file = empty(token_file).map_err(failed)?;
    let joined = uplink::join(address, tls, ticket).await.inspect_err(|_| {
        // The empty file would block the next attempt.
        fs::remove_file(token_file).ok();
    });
    let (token, name) = joined?;
    writeln!(file, "{token}").and_then(|()| file.sync_all()).map_err(failed)?;
    Ok(name)
}

/// A new token file, or the empty one that an interrupted attempt left.
fn empty(token_file: &Path) -> io::Result<File> {
    let mut open = OpenOptions::new();
    open.write(true).mode(0o600);
    match open.clone().create_new(true).open(token_file) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let file = open.open(token_file)?;
            if file.metadata()?.len() > 0 {
                return Err(error);
            }
            file.set_permissions(Permissions::from_mode(0o600))?;
            Ok(file)
        }
        made => made,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_one_word_and_there() {
        assert!(read_ticket(&b"abc\n"[..]).is_ok());
        for bad in [&b""[..], b" \n", b"\xff\xfe", b"a\x01b"] {
            assert!(read_ticket(bad).is_err(), "{bad:?}");
        }
    }

    #[tokio::test]
    async fn a_file_that_is_there_is_never_written_over_and_one_in_vain_does_not_stay() {
        let directory = tempfile::tempdir().unwrap();
        let there = directory.path().join("there");
        fs::write(&there, "older").unwrap();
        let ticket = read_ticket(&b"abc"[..]).unwrap();
        // Nobody listens on port 9 of this host; the file is looked at before anybody is asked.
        let address = "http://127.0.0.1:9";
        let error = join(address, &Tls::default(), &ticket, &there).await.unwrap_err();
        assert!(matches!(error, JoinError::File { .. }), "{error}");
        assert_eq!(fs::read_to_string(&there).unwrap(), "older");
        // As an interrupted attempt leaves it.
        let left = directory.path().join("left");
        fs::write(&left, "").unwrap();
        assert!(empty(&left).is_ok() && empty(&there).is_err());
        assert_eq!(fs::metadata(&left).unwrap().permissions().mode() & 0o777, 0o600);
        let fresh = directory.path().join("fresh");
        let error = join(address, &Tls::default(), &ticket, &fresh).await.unwrap_err();
        assert!(matches!(error, JoinError::Uplink(_)), "{error}");
        assert!(!fresh.exists());
    }
}
