//! Who may speak, by what proof, and the audit log of what was done about it, in the embedded
//! store.
//!
//! Owns the tables `probe`, `caller`, `credential`, `authority` and `audit`. What changes an
//! identity writes its line of the audit log in the same transaction: it is done and noted, or
//! neither. Refuses to judge: whether a proof is good now is decided in `access`.

use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{Connection, Row};

use super::connection::{SqliteStore, signed};
use super::credentials::{CredentialKind, credential_id};
use super::credentials::{
    Ends, NewCredential, add_credential, end_at, end_older, read_authority, read_credential,
};
use super::damage::vital;
use super::error::StoreError;
use super::identity_store::{
    AuditRecord, By, CallerRecord, Changed, Identities, IdentityStore, NewIdentity, ON_THIS_HOST,
    REFUSED, Role,
};
use super::place::deliver;
use super::records::{ProbeRecord, Retraction};
use super::verbs::Registry;

/// What version 4 added. A `caller` reads or administers; its name is none of a probe's. Of tokens
/// and certificates only hashes stand in `credential` (kind 1: token, 2: certificate, 3: a ticket
/// that makes one token). Names are never given out twice, so nothing is ever deleted from `probe`
/// and `caller`.
pub(super) const SCHEMA_ACCESS: &str = "
CREATE TABLE caller (
    name TEXT PRIMARY KEY, role INTEGER NOT NULL, enrolled_at_ms INTEGER NOT NULL,
    revoked INTEGER NOT NULL
) WITHOUT ROWID, STRICT;
CREATE TABLE credential (
    hash BLOB PRIMARY KEY, name TEXT NOT NULL, kind INTEGER NOT NULL,
    made_at_ms INTEGER NOT NULL, valid_until_ms INTEGER
) WITHOUT ROWID, STRICT;
CREATE TABLE audit (
    number INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, actor TEXT NOT NULL,
    action TEXT NOT NULL, subject TEXT NOT NULL, detail TEXT NOT NULL, count INTEGER NOT NULL
) STRICT;
INSERT INTO credential SELECT token_hash, name, 1, enrolled_at_ms, NULL FROM probe;
CREATE TABLE enrolled (
    number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, subnets_allowed TEXT NOT NULL,
    enrolled_at_ms INTEGER NOT NULL, revoked INTEGER NOT NULL
) STRICT;
INSERT INTO enrolled SELECT number, name, subnets_allowed, enrolled_at_ms, revoked FROM probe;
DROP TABLE probe;
ALTER TABLE enrolled RENAME TO probe;
";

/// Lines of the audit log that are kept of each kind: the oldest go first. Refusals are apart,
/// because
/// anyone can cause them: no number of them pushes out what was done. At 200 bytes a line both
/// together take some 20 MB.
const CHANGES_KEPT: u32 = 50_000;
/// See [`CHANGES_KEPT`].
const REFUSALS_KEPT: u32 = 50_000;
/// The audit log is cut back once in so many lines: counting them takes some milliseconds.
const CUT_EVERY: i64 = 512;

pub(super) const PROBE_COLUMNS: &str =
    "SELECT number, name, subnets_allowed, enrolled_at_ms, revoked FROM probe ORDER BY number";

pub(super) fn read_probe(row: &SqliteRow) -> ProbeRecord {
    ProbeRecord {
        number: u32::try_from(row.get::<i64, _>(0)).unwrap_or(u32::MAX),
        name: row.get(1),
        subnets_allowed: super::connection::lines(row.get(2)),
        enrolled_at_ms: row.get(3),
        revoked: row.get::<i64, _>(4) != 0,
    }
}

fn read_caller(row: &SqliteRow) -> Result<CallerRecord, StoreError> {
    let name: String = row.get(0);
    let role = match row.get::<i64, _>(1) {
        2 => Role::Reader,
        3 => Role::Admin,
        other => return Err(StoreError::Damaged(format!("{name} has the role {other}"))),
    };
    let (enrolled_at_ms, revoked) = (row.get(2), row.get::<i64, _>(3) != 0);
    Ok(CallerRecord { name, role, enrolled_at_ms, revoked })
}

fn read_line(row: &SqliteRow) -> AuditRecord {
    let unsigned = |index| u64::try_from(row.get::<i64, _>(index)).unwrap_or(0);
    AuditRecord {
        number: unsigned(0),
        at_ms: row.get(1),
        actor: row.get(2),
        action: row.get(3),
        subject: row.get(4),
        detail: row.get(5),
        count: unsigned(6),
    }
}

/// Whether this name is in use, and if so whether it is revoked.
async fn standing(connection: &mut SqliteConnection, name: &str) -> sqlx::Result<Option<bool>> {
    let select = "SELECT revoked FROM probe WHERE name = ?1
         UNION ALL SELECT revoked FROM caller WHERE name = ?1";
    let revoked: Option<i64> =
        sqlx::query_scalar(select).bind(name).fetch_optional(connection).await?;
    Ok(revoked.map(|revoked| revoked != 0))
}

pub(super) async fn add_line(
    connection: &mut SqliteConnection,
    line: &AuditRecord,
) -> sqlx::Result<()> {
    let insert = "INSERT INTO audit (at_ms, actor, action, subject, detail, count)
         VALUES (?, ?, ?, ?, ?, ?)";
    let done = sqlx::query(insert)
        .bind(line.at_ms)
        .bind(&line.actor)
        .bind(&line.action)
        .bind(&line.subject)
        .bind(&line.detail)
        .bind(signed(line.count))
        .execute(&mut *connection)
        .await?;
    if done.last_insert_rowid() % CUT_EVERY == 0 {
        trim_audit_log(connection).await?;
    }
    Ok(())
}

async fn trim_audit_log(connection: &mut SqliteConnection) -> sqlx::Result<()> {
    for (refusals, kept) in [(true, REFUSALS_KEPT), (false, CHANGES_KEPT)] {
        let cut = "DELETE FROM audit WHERE number IN (
             SELECT number FROM audit WHERE (action GLOB ?) = ?
             ORDER BY number DESC LIMIT -1 OFFSET ?)";
        sqlx::query(cut)
            .bind(format!("{REFUSED}*"))
            .bind(refusals)
            .bind(kept)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

pub(super) fn line(by: &By, action: &str, subject: &str, detail: String) -> AuditRecord {
    AuditRecord {
        number: 0,
        at_ms: by.now_ms,
        actor: by.actor.clone(),
        action: action.to_owned(),
        subject: subject.to_owned(),
        detail,
        count: 1,
    }
}

async fn add_identity(
    connection: &mut SqliteConnection,
    identity: &NewIdentity,
    now_ms: i64,
) -> sqlx::Result<()> {
    let role = match identity.role {
        Role::Probe => {
            let insert = "INSERT INTO probe (name, subnets_allowed, enrolled_at_ms, revoked)
                 VALUES (?, ?, ?, 0)";
            sqlx::query(insert)
                .bind(&identity.name)
                .bind(identity.subnets_allowed.join("\n"))
                .bind(now_ms)
                .execute(connection)
                .await?;
            return Ok(());
        }
        Role::Reader => 2,
        Role::Admin => 3,
    };
    sqlx::query("INSERT INTO caller VALUES (?, ?, ?, 0)")
        .bind(&identity.name)
        .bind(role)
        .bind(now_ms)
        .execute(connection)
        .await?;
    Ok(())
}

impl SqliteStore {
    pub(super) async fn enrol_by_token(
        &mut self,
        name: &str,
        token_hash: &[u8; 32],
        subnets_allowed: &[String],
        now_ms: i64,
    ) -> Result<Option<ProbeRecord>, StoreError> {
        let (hash, kind) = (*token_hash, CredentialKind::Token);
        let identity = NewIdentity {
            name: name.to_owned(),
            role: Role::Probe,
            subnets_allowed: subnets_allowed.to_vec(),
            credential: Some(NewCredential { hash, kind, valid_until_ms: None }),
        };
        let by = By { actor: ON_THIS_HOST.to_owned(), now_ms };
        if !self.enrol(&identity, &by).await? {
            return Ok(None);
        }
        let probes = self.probes().await?;
        Ok(probes.into_iter().find(|probe| probe.name == name))
    }

    /// Ends a transaction that was begun by hand: with a commit if its work was done.
    async fn end<T>(&mut self, done: Result<T, StoreError>) -> Result<T, StoreError> {
        let how = if done.is_ok() { "COMMIT" } else { "ROLLBACK" };
        let ended = sqlx::raw_sql(how).execute(&mut self.connection).await;
        let done = done?;
        if let Err(error) = ended {
            // A commit that failed (disk full) leaves the transaction open.
            sqlx::raw_sql("ROLLBACK").execute(&mut self.connection).await.ok();
            return Err(error.into());
        }
        Ok(done)
    }

    async fn note_retraction(
        &mut self,
        action: &str,
        number: u64,
        by: &By,
    ) -> Result<(), StoreError> {
        let select = "SELECT name, from_s, to_s, reason FROM retraction
             JOIN probe ON probe.number = retraction.probe WHERE retraction.number = ?";
        let (name, from_s, to_s, reason): (String, i64, i64, String) =
            sqlx::query_as(select).bind(signed(number)).fetch_one(&mut self.connection).await?;
        let detail = format!("number {number}, rounds from {from_s} to {to_s}: {reason}");
        add_line(&mut self.connection, &line(by, action, &name, detail)).await?;
        Ok(())
    }
}

impl IdentityStore for SqliteStore {
    async fn identities(&mut self) -> Result<Identities, StoreError> {
        // One transaction, so that all of it is of one moment.
        let mut transaction = self.connection.begin().await?;
        let probes = sqlx::query(PROBE_COLUMNS).fetch_all(&mut *transaction).await;
        let select = "SELECT name, role, enrolled_at_ms, revoked FROM caller";
        let callers = sqlx::query(select).fetch_all(&mut *transaction).await;
        let select =
            "SELECT hash, name, kind, made_at_ms, valid_until_ms, not_after_ms FROM credential";
        let credentials = sqlx::query(select).fetch_all(&mut *transaction).await;
        let select = "SELECT hash FROM authority";
        let authorities = sqlx::query(select).fetch_all(&mut *transaction).await;
        // Before the end of the transaction, which a damaged page may stand in the way of.
        let probes = vital(probes, "the names of probes")?;
        let callers = vital(callers, "the names of readers and admins")?;
        let credentials = vital(credentials, "the hashes of tokens and certificates")?;
        let authorities = vital(authorities, "the built-in authorities")?;
        transaction.commit().await?;
        let probes = probes.iter().map(read_probe).map(|probe| (probe.name.clone(), probe));
        let callers = callers
            .iter()
            .map(|row| read_caller(row).map(|caller| (caller.name.clone(), caller)))
            .collect::<Result<_, _>>()?;
        let credentials = credentials.iter().map(read_credential).collect::<Result<_, _>>()?;
        let authorities = authorities.iter().map(read_authority).collect::<Result<_, _>>()?;
        Ok(Identities { probes: probes.collect(), callers, credentials, authorities })
    }

    async fn written_by_others(&mut self) -> Result<bool, StoreError> {
        let version: i64 =
            sqlx::query_scalar("PRAGMA data_version").fetch_one(&mut self.connection).await?;
        Ok(self.data_version.replace(version) != Some(version))
    }

    async fn add_authority(&mut self, authority: &[u8; 32]) -> Result<(), StoreError> {
        let mut transaction = self.opened.begin(&mut self.connection).await?;
        sqlx::query("INSERT OR IGNORE INTO authority VALUES (?)")
            .bind(authority.as_slice())
            .execute(&mut *transaction)
            .await?;
        self.opened.commit(transaction).await
    }

    async fn enrol(&mut self, identity: &NewIdentity, by: &By) -> Result<bool, StoreError> {
        let mut transaction = self.opened.begin(&mut self.connection).await?;
        let name = &identity.name;
        if standing(&mut transaction, name).await?.is_some() {
            return Ok(false);
        }
        add_identity(&mut transaction, identity, by.now_ms).await?;
        let proof = match &identity.credential {
            Some(credential) => {
                add_credential(&mut transaction, name, credential, by.now_ms).await?;
                credential.kind.as_str()
            }
            None => "certificate of another authority",
        };
        let detail = match identity.subnets_allowed.as_slice() {
            [] => format!("as {}, by {proof}", identity.role.as_str()),
            some => format!("as {}, by {proof}, for {}", identity.role.as_str(), some.join(", ")),
        };
        add_line(&mut transaction, &line(by, "enrol", name, detail)).await?;
        deliver(&mut self.delivery)?;
        self.opened.commit(transaction).await?;
        Ok(true)
    }

    async fn renew(
        &mut self,
        name: &str,
        credential: &NewCredential,
        ends: Ends,
        others_until_ms: i64,
        by: &By,
    ) -> Result<Changed, StoreError> {
        let mut transaction = self.opened.begin(&mut self.connection).await?;
        match standing(&mut transaction, name).await? {
            None => return Ok(Changed::NoSuchName),
            Some(true) => return Ok(Changed::Revoked),
            Some(false) => {}
        }
        let (what, times) = ((credential.kind, ends), (others_until_ms, by.now_ms));
        let ended = end_older(&mut transaction, name, what, times).await?;
        add_credential(&mut transaction, name, credential, by.now_ms).await?;
        let overlap_s = others_until_ms.saturating_sub(by.now_ms).max(0) / 1000;
        let (kind, id) = (credential.kind.as_str(), credential_id(&credential.hash));
        let older = match ended.as_slice() {
            [] => "no older one ends".to_owned(),
            ended => format!("within {overlap_s} s end: {}", ended.join(", ")),
        };
        let kept = if ends == Ends::SameKind { "; other kinds stay" } else { "" };
        let detail = format!("new {kind} {id}; {older}{kept}");
        add_line(&mut transaction, &line(by, "rotate", name, detail)).await?;
        deliver(&mut self.delivery)?;
        self.opened.commit(transaction).await?;
        Ok(Changed::Done)
    }

    async fn end_credential(&mut self, hash: &[u8; 32], by: &By) -> Result<Changed, StoreError> {
        let mut transaction = self.opened.begin(&mut self.connection).await?;
        let select = "SELECT hash, name, kind, made_at_ms, valid_until_ms, not_after_ms
             FROM credential WHERE hash = ?";
        let row =
            sqlx::query(select).bind(hash.as_slice()).fetch_optional(&mut *transaction).await?;
        let Some((_, credential)) = row.as_ref().map(read_credential).transpose()? else {
            return Ok(Changed::NoSuchCredential);
        };
        if credential.is_over(by.now_ms) {
            return Ok(Changed::Over);
        }
        end_at(&mut transaction, hash, by.now_ms).await?;
        let detail = format!("{} {}", credential.kind.as_str(), credential_id(hash));
        add_line(&mut transaction, &line(by, "end", &credential.name, detail)).await?;
        self.opened.commit(transaction).await?;
        Ok(Changed::Done)
    }

    async fn redeem(
        &mut self,
        ticket: &[u8; 32],
        token: &[u8; 32],
        by: &By,
    ) -> Result<(Changed, Option<String>), StoreError> {
        let mut transaction = self.opened.begin(&mut self.connection).await?;
        let select = "SELECT name, valid_until_ms FROM credential WHERE hash = ? AND kind = 3";
        let found: Option<(String, Option<i64>)> = sqlx::query_as(select)
            .bind(ticket.as_slice())
            .fetch_optional(&mut *transaction)
            .await?;
        let Some((name, valid_until_ms)) = found else {
            return Ok((Changed::NoSuchTicket, None));
        };
        if valid_until_ms.is_some_and(|until_ms| until_ms <= by.now_ms) {
            return Ok((Changed::NoSuchTicket, Some(name)));
        }
        if standing(&mut transaction, &name).await? != Some(false) {
            return Ok((Changed::Revoked, Some(name)));
        }
        // Not deleted: whoever comes with it again is to be known by name in the audit log.
        end_at(&mut transaction, ticket, by.now_ms).await?;
        let (kind, valid_until_ms) = (CredentialKind::Token, None);
        let credential = NewCredential { hash: *token, kind, valid_until_ms };
        add_credential(&mut transaction, &name, &credential, by.now_ms).await?;
        let detail = "its ticket was exchanged for a token".to_owned();
        add_line(&mut transaction, &line(by, "join", &name, detail)).await?;
        self.opened.commit(transaction).await?;
        Ok((Changed::Done, Some(name)))
    }

    async fn revoke(&mut self, name: &str, by: &By) -> Result<Changed, StoreError> {
        let mut transaction = self.opened.begin(&mut self.connection).await?;
        match standing(&mut transaction, name).await? {
            None => return Ok(Changed::NoSuchName),
            Some(true) => return Ok(Changed::Revoked),
            Some(false) => {}
        }
        for update in [
            "UPDATE probe SET revoked = 1 WHERE name = ?",
            "UPDATE caller SET revoked = 1 WHERE name = ?",
        ] {
            sqlx::query(update).bind(name).execute(&mut *transaction).await?;
        }
        add_line(&mut transaction, &line(by, "revoke", name, String::new())).await?;
        self.opened.commit(transaction).await?;
        Ok(Changed::Done)
    }

    async fn retract(&mut self, retraction: &Retraction, by: &By) -> Result<u64, StoreError> {
        self.opened.check()?;
        sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut self.connection).await?;
        let done = async {
            let number = self.add_retraction(retraction).await?;
            self.note_retraction("retract", number, by).await?;
            Ok(number)
        };
        let done = done.await;
        self.end(done).await
    }

    async fn undo_retraction(&mut self, number: u64, by: &By) -> Result<bool, StoreError> {
        self.opened.check()?;
        sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut self.connection).await?;
        let done = async {
            let undone = self.undo(number, by.now_ms).await?;
            if undone {
                self.note_retraction("undo-retraction", number, by).await?;
            }
            Ok(undone)
        };
        let done = done.await;
        self.end(done).await
    }

    async fn note(&mut self, lines: &[AuditRecord]) -> Result<(), StoreError> {
        let mut transaction = self.opened.begin(&mut self.connection).await?;
        for line in lines {
            add_line(&mut transaction, line).await?;
        }
        self.opened.commit(transaction).await?;
        Ok(())
    }

    async fn audit_log(
        &mut self,
        before: Option<u64>,
        count: u32,
    ) -> Result<Vec<AuditRecord>, StoreError> {
        let select = "SELECT number, at_ms, actor, action, subject, detail, count FROM audit
             WHERE number < ? ORDER BY number DESC LIMIT ?";
        let rows = sqlx::query(select)
            .bind(before.map_or(i64::MAX, signed))
            .bind(i64::from(count))
            .fetch_all(&mut self.connection)
            .await?;
        Ok(rows.iter().map(read_line).collect())
    }
}

#[cfg(test)]
#[path = "identities/tests.rs"]
mod tests;
