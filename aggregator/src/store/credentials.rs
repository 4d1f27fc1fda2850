//! What is kept of tokens, certificates and tickets, and of the built-in authorities: the tables
//! `credential` and `authority`.
//!
//! Refuses to judge: whether a proof is good now is decided in `access`.

use std::fmt::Write;

use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::error::StoreError;

/// What version 6 added. `not_after_ms` is what stands in a certificate, whatever became of it
/// here; of those on record before that is not known. In `authority` are hashes of the names of
/// authorities of which only what is on record passes.
pub(super) const SCHEMA_AUTHORITIES: &str = "
ALTER TABLE credential ADD COLUMN not_after_ms INTEGER;
CREATE TABLE authority (hash BLOB PRIMARY KEY) WITHOUT ROWID, STRICT;
";

/// A token or ticket that ended so long ago tells nobody anything any more. A certificate may be
/// shown until its own end, so what ended it is on record until then, too.
pub(super) const ENDED_KEPT_MS: i64 = 90 * 86_400_000;
/// Of so many bytes of its hash the id of a credential is made.
const ID_BYTES: usize = 6;
/// No certificate is issued for longer. Those of which no end is on record are kept so long.
const CERTIFICATE_MS_MAX: i64 = 3_650 * 86_400_000;

/// What a credential is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CredentialKind {
    /// A random text, of which the hash is kept.
    Token,
    /// A certificate that the built-in authority issued, by the hash of its DER form.
    Certificate,
    /// A text that is exchanged for a token, once.
    Ticket,
}

impl CredentialKind {
    pub(super) const fn code(self) -> i64 {
        match self {
            Self::Token => 1,
            Self::Certificate => 2,
            Self::Ticket => 3,
        }
    }

    const fn from_code(code: i64) -> Option<Self> {
        match code {
            1 => Some(Self::Token),
            2 => Some(Self::Certificate),
            3 => Some(Self::Ticket),
            _ => None,
        }
    }

    /// Its stable name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Certificate => "certificate",
            Self::Ticket => "ticket",
        }
    }
}

/// What is kept of a proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// Whose it is.
    pub name: String,
    /// What it is.
    pub kind: CredentialKind,
    /// Unix milliseconds.
    pub made_at_ms: i64,
    /// From then on it proves nothing; `None`: valid until revoked. Unix milliseconds.
    pub valid_until_ms: Option<i64>,
    /// When it would have ended by itself, where that is on record. Unix milliseconds.
    pub not_after_ms: Option<i64>,
}

impl Credential {
    /// Whether it proves nothing any more.
    #[must_use]
    pub fn is_over(&self, now_ms: i64) -> bool {
        self.valid_until_ms.is_some_and(|until_ms| until_ms <= now_ms)
    }
}

/// What people call a credential by: the first digits of its hash, which tell nothing of it.
#[must_use]
pub fn credential_id(hash: &[u8; 32]) -> String {
    let mut id = String::new();
    for byte in &hash[..ID_BYTES] {
        // Writing to a text cannot fail.
        write!(id, "{byte:02x}").ok();
    }
    id
}

/// A credential that is new.
#[derive(Clone, Copy)]
pub struct NewCredential {
    /// Of the token, the ticket or the certificate.
    pub hash: [u8; 32],
    /// What it is.
    pub kind: CredentialKind,
    /// See [`Credential::valid_until_ms`].
    pub valid_until_ms: Option<i64>,
}

pub(super) fn read_credential(row: &SqliteRow) -> Result<([u8; 32], Credential), StoreError> {
    let damaged = || StoreError::Damaged("a credential that is none".to_owned());
    let hash = row.get::<&[u8], _>(0).try_into().map_err(|_| damaged())?;
    let kind = CredentialKind::from_code(row.get(2)).ok_or_else(damaged)?;
    let (made_at_ms, valid_until_ms, not_after_ms) = (row.get(3), row.get(4), row.get(5));
    Ok((hash, Credential { name: row.get(1), kind, made_at_ms, valid_until_ms, not_after_ms }))
}

pub(super) fn read_authority(row: &SqliteRow) -> Result<[u8; 32], StoreError> {
    let damaged = |_| StoreError::Damaged("an authority that is none".to_owned());
    row.get::<&[u8], _>(0).try_into().map_err(damaged)
}

pub(super) async fn add_credential(
    connection: &mut SqliteConnection,
    name: &str,
    credential: &NewCredential,
    now_ms: i64,
) -> sqlx::Result<()> {
    sqlx::query("INSERT INTO credential VALUES (?1, ?2, ?3, ?4, ?5, ?5)")
        .bind(credential.hash.as_slice())
        .bind(name)
        .bind(credential.kind.code())
        .bind(now_ms)
        .bind(credential.valid_until_ms)
        .execute(&mut *connection)
        .await?;
    let delete = "DELETE FROM credential WHERE valid_until_ms < ?1
         AND (kind <> 2 OR coalesce(not_after_ms, made_at_ms + ?2) < ?1)";
    sqlx::query(delete)
        .bind(now_ms.saturating_sub(ENDED_KEPT_MS))
        .bind(CERTIFICATE_MS_MAX)
        .execute(connection)
        .await?;
    Ok(())
}

/// Which credentials a rotation ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ends {
    /// All there are.
    All,
    /// Those of the kind that is given anew.
    SameKind,
}

impl Ends {
    /// With `--keep-others`, and without.
    #[must_use]
    pub const fn keeping_others(keep_others: bool) -> Self {
        if keep_others { Self::SameKind } else { Self::All }
    }

    fn ends(self, older: CredentialKind, newer: CredentialKind) -> bool {
        // A ticket becomes a token.
        let made_of = |kind| match kind {
            CredentialKind::Ticket => CredentialKind::Token,
            other => other,
        };
        self == Self::All || made_of(older) == made_of(newer)
    }
}

/// Ends what an identity has, at `until_ms` at the latest; answers what that is. Tickets end at
/// once: what they are exchanged for would be newer than what takes their place.
pub(super) async fn end_older(
    connection: &mut SqliteConnection,
    name: &str,
    (newer, ends): (CredentialKind, Ends),
    (until_ms, now_ms): (i64, i64),
) -> Result<Vec<String>, StoreError> {
    let select = "SELECT hash, name, kind, made_at_ms, valid_until_ms, not_after_ms
         FROM credential WHERE name = ? ORDER BY made_at_ms, hash";
    let rows = sqlx::query(select).bind(name).fetch_all(&mut *connection).await?;
    let mut ended = Vec::new();
    for row in &rows {
        let (hash, older) = read_credential(row)?;
        if older.is_over(now_ms) || !ends.ends(older.kind, newer) {
            continue;
        }
        let until_ms = if older.kind == CredentialKind::Ticket { now_ms } else { until_ms };
        end_at(connection, &hash, until_ms).await?;
        ended.push(format!("{} {}", older.kind.as_str(), credential_id(&hash)));
    }
    Ok(ended)
}

/// Ends a credential at that time at the latest.
pub(super) async fn end_at(
    connection: &mut SqliteConnection,
    hash: &[u8; 32],
    until_ms: i64,
) -> sqlx::Result<()> {
    let update = "UPDATE credential SET valid_until_ms = ?1 WHERE hash = ?2
         AND (valid_until_ms IS NULL OR valid_until_ms > ?1)";
    sqlx::query(update).bind(until_ms).bind(hash.as_slice()).execute(connection).await?;
    Ok(())
}
