//! Identities on disk: an older store is taken over, changes are noted, names are used once.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;

async fn store(directory: &tempfile::TempDir) -> SqliteStore {
    SqliteStore::open(directory.path()).await.unwrap()
}

fn by(now_ms: i64) -> By {
    By { actor: "me".to_owned(), now_ms }
}

fn token(byte: u8) -> NewCredential {
    NewCredential { hash: [byte; 32], kind: CredentialKind::Token, valid_until_ms: None }
}

fn identity(name: &str, role: Role, byte: u8) -> NewIdentity {
    let (name, subnets_allowed) = (name.to_owned(), vec!["public".to_owned()]);
    NewIdentity { name, role, subnets_allowed, credential: Some(token(byte)) }
}

fn actions(audit_log: &[AuditRecord]) -> Vec<(&str, &str)> {
    audit_log.iter().map(|line| (line.action.as_str(), line.subject.as_str())).collect()
}

#[tokio::test]
async fn probes_of_an_older_store_keep_their_numbers_and_tokens() {
    let directory = tempfile::tempdir().unwrap();
    let mut older = store(&directory).await;
    // As version 3 had it.
    let back = "
        DROP TABLE node_block; DROP TABLE forgotten; ALTER TABLE subnet DROP COLUMN brought_by;
        CREATE TABLE node (
            number INTEGER PRIMARY KEY, id BLOB NOT NULL, brought_by INTEGER NOT NULL,
            forgotten_at_ms INTEGER
        ) STRICT;
        DROP TABLE probe; DROP TABLE caller; DROP TABLE credential; DROP TABLE audit;
        DROP TABLE authority;
        DROP INDEX part_position; ALTER TABLE part DROP COLUMN writer;
        ALTER TABLE part DROP COLUMN commit_number; DROP TABLE writer; DROP TABLE day_position;
        DROP TABLE lease;
        CREATE TABLE late_part (
            round INTEGER NOT NULL, subnet INTEGER NOT NULL, period INTEGER NOT NULL,
            probe INTEGER NOT NULL, number INTEGER NOT NULL,
            PRIMARY KEY (round, subnet, period, probe, number)
        ) WITHOUT ROWID, STRICT;
        CREATE TABLE probe (
            number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE,
            token_hash BLOB NOT NULL UNIQUE, subnets_allowed TEXT NOT NULL,
            enrolled_at_ms INTEGER NOT NULL, revoked INTEGER NOT NULL
        ) STRICT;
        INSERT INTO probe VALUES (7, 'alpha', randomblob(32), 'public', 5, 0),
            (9, 'gone', randomblob(32), '', 6, 1);
        PRAGMA user_version = 3;";
    sqlx::raw_sql(back).execute(&mut older.connection).await.unwrap();
    drop(older);
    let mut newer = store(&directory).await;
    let all = newer.identities().await.unwrap();
    let probe = &all.probes["alpha"];
    assert_eq!((probe.number, probe.enrolled_at_ms, probe.revoked), (7, 5, false));
    assert_eq!(probe.subnets_allowed, ["public"]);
    assert!(all.probes["gone"].revoked && all.probes["gone"].subnets_allowed.is_empty());
    let mut names: Vec<&str> = all.credentials.values().map(|one| one.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["alpha", "gone"]);
    assert!(newer.enrol(&identity("beta", Role::Probe, 1), &by(8)).await.unwrap());
    assert_eq!(newer.identities().await.unwrap().probes["beta"].number, 10);
}

#[tokio::test]
async fn a_name_is_given_out_once_and_every_change_is_noted() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = store(&directory).await;
    for (one, free) in [
        (identity("alpha", Role::Probe, 1), true),
        (identity("alpha", Role::Probe, 2), false),
        (identity("alpha", Role::Admin, 3), false),
        (identity("boss", Role::Admin, 4), true),
        (identity("boss", Role::Probe, 5), false),
    ] {
        assert_eq!(store.enrol(&one, &by(10)).await.unwrap(), free);
    }
    assert_eq!(
        store.renew("nobody", &token(6), Ends::All, 20, &by(11)).await.unwrap(),
        Changed::NoSuchName
    );
    assert_eq!(
        store.renew("alpha", &token(7), Ends::All, 20, &by(11)).await.unwrap(),
        Changed::Done
    );
    let all = store.identities().await.unwrap();
    assert_eq!(all.credentials[&[1; 32]].valid_until_ms, Some(20));
    assert_eq!(all.credentials[&[7; 32]].valid_until_ms, None);
    // A shorter overlap shortens, a longer one does not lengthen.
    assert_eq!(
        store.renew("alpha", &token(8), Ends::All, 1_000, &by(12)).await.unwrap(),
        Changed::Done
    );
    let all = store.identities().await.unwrap();
    assert_eq!(all.credentials[&[1; 32]].valid_until_ms, Some(20));
    assert_eq!(store.revoke("alpha", &by(13)).await.unwrap(), Changed::Done);
    assert_eq!(store.revoke("alpha", &by(13)).await.unwrap(), Changed::Revoked);
    assert_eq!(store.revoke("nobody", &by(13)).await.unwrap(), Changed::NoSuchName);
    assert_eq!(
        store.renew("alpha", &token(9), Ends::All, 20, &by(14)).await.unwrap(),
        Changed::Revoked
    );
    assert!(!store.enrol(&identity("alpha", Role::Probe, 10), &by(15)).await.unwrap());
    let audit_log = store.audit_log(None, 100).await.unwrap();
    let wanted = [
        ("revoke", "alpha"),
        ("rotate", "alpha"),
        ("rotate", "alpha"),
        ("enrol", "boss"),
        ("enrol", "alpha"),
    ];
    assert_eq!(actions(&audit_log), wanted);
    assert_eq!(audit_log[4].detail, "as probe, by token, for public");
    assert!(audit_log.iter().all(|line| line.actor == "me" && line.count == 1));
    let page = store.audit_log(Some(audit_log[1].number), 2).await.unwrap();
    assert_eq!(page, audit_log[2..4]);
}

#[tokio::test]
async fn a_ticket_is_good_once() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = store(&directory).await;
    let ticket = |byte: u8, until_ms| NewCredential {
        hash: [byte; 32],
        kind: CredentialKind::Ticket,
        valid_until_ms: Some(until_ms),
    };
    for (name, byte, until_ms) in [("alpha", 1, 100), ("late", 2, 20), ("gone", 3, 100)] {
        let credential = Some(ticket(byte, until_ms));
        let one = NewIdentity { credential, ..identity(name, Role::Probe, 0) };
        assert!(store.enrol(&one, &by(0)).await.unwrap());
    }
    store.revoke("gone", &by(1)).await.unwrap();
    // What it would be exchanged for would be newer than what takes its place.
    let renewed =
        NewIdentity { credential: Some(ticket(4, 100)), ..identity("renewed", Role::Probe, 0) };
    assert!(store.enrol(&renewed, &by(0)).await.unwrap());
    store.renew("renewed", &token(44), Ends::All, 100, &by(2)).await.unwrap();
    let redeem = async |store: &mut SqliteStore, ticket: u8, token: u8| {
        store.redeem(&[ticket; 32], &[token; 32], &by(20)).await.unwrap()
    };
    let name = |name: &str| Some(name.to_owned());
    assert_eq!(redeem(&mut store, 1, 11).await, (Changed::Done, name("alpha")));
    assert_eq!(redeem(&mut store, 1, 12).await, (Changed::NoSuchTicket, name("alpha")));
    assert_eq!(redeem(&mut store, 2, 13).await, (Changed::NoSuchTicket, name("late")));
    assert_eq!(redeem(&mut store, 3, 14).await, (Changed::Revoked, name("gone")));
    assert_eq!(redeem(&mut store, 9, 15).await, (Changed::NoSuchTicket, None));
    assert_eq!(redeem(&mut store, 4, 17).await, (Changed::NoSuchTicket, name("renewed")));
    // A token is no ticket.
    assert_eq!(redeem(&mut store, 11, 16).await, (Changed::NoSuchTicket, None));
    let all = store.identities().await.unwrap();
    let alphas = all.credentials.values().filter(|one| one.name == "alpha");
    let tokens: Vec<&super::super::credentials::Credential> =
        alphas.filter(|one| one.kind == CredentialKind::Token).collect();
    assert_eq!(tokens.len(), 1);
    assert_eq!((tokens[0].name.as_str(), tokens[0].valid_until_ms), ("alpha", None));
    assert_eq!(actions(&store.audit_log(None, 1).await.unwrap()), [("join", "alpha")]);
}

#[tokio::test]
async fn retractions_are_noted_with_the_name_of_their_probe() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = store(&directory).await;
    assert!(store.enrol(&identity("alpha", Role::Probe, 1), &by(0)).await.unwrap());
    let probe = store.identities().await.unwrap().probes["alpha"].number;
    let retraction = Retraction {
        number: 0,
        probe,
        from_s: 30,
        to_s: 60,
        reason: "a broken clock".to_owned(),
        made_at_ms: 1,
        undone_at_ms: None,
    };
    let number = store.retract(&retraction, &by(1)).await.unwrap();
    assert!(store.undo_retraction(number, &by(2)).await.unwrap());
    assert!(!store.undo_retraction(number, &by(3)).await.unwrap());
    // Of nobody: neither done nor noted.
    let of_nobody = Retraction { probe: 99, ..retraction };
    assert!(store.retract(&of_nobody, &by(4)).await.is_err());
    assert_eq!(store.retractions().await.unwrap().len(), 1);
    let audit_log = store.audit_log(None, 100).await.unwrap();
    let wanted = [("undo-retraction", "alpha"), ("retract", "alpha"), ("enrol", "alpha")];
    assert_eq!(actions(&audit_log), wanted);
    assert!(audit_log[1].detail.contains("a broken clock"), "{}", audit_log[1].detail);
}

#[tokio::test]
async fn the_trail_and_old_credentials_are_bounded() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = store(&directory).await;
    assert!(store.enrol(&identity("alpha", Role::Probe, 1), &by(0)).await.unwrap());
    // Far more refusals than are kept, after what was done, and the next line is one at which the
    // audit log is cut.
    let crowd = "WITH RECURSIVE crowd (number) AS (
             SELECT 2 UNION ALL SELECT number + 1 FROM crowd WHERE number < 50687)
         INSERT INTO audit SELECT number, 0, '10.0.0.1', 'refused: no-proof', '', '', 1 FROM crowd";
    sqlx::raw_sql(crowd).execute(&mut store.connection).await.unwrap();
    store.note(&[line(&by(1), "test", "", String::new())]).await.unwrap();
    let kept: (i64, i64, i64) = sqlx::query_as(
        "SELECT count(*), min(number), (SELECT count(*) FROM audit WHERE action = 'enrol')
         FROM audit WHERE action GLOB 'refused: *'",
    )
    .fetch_one(&mut store.connection)
    .await
    .unwrap();
    assert_eq!(kept, (50_000, 688, 1), "the oldest refusals have gone, and nothing that was done");
    store.renew("alpha", &token(2), Ends::All, 10, &by(5)).await.unwrap();
    assert_eq!(store.identities().await.unwrap().credentials.len(), 2);
    let later = by(10 + super::super::credentials::ENDED_KEPT_MS + 1);
    store.renew("alpha", &token(3), Ends::All, later.now_ms + 1, &later).await.unwrap();
    let all = store.identities().await.unwrap();
    assert!(!all.credentials.contains_key(&[1; 32]) && all.credentials.len() == 2);
}

#[tokio::test]
async fn a_certificate_is_on_record_as_long_as_it_can_be_shown() {
    const YEAR_MS: i64 = 365 * 86_400_000;
    let directory = tempfile::tempdir().unwrap();
    let mut store = store(&directory).await;
    let certificate = |byte: u8, until_ms| NewCredential {
        hash: [byte; 32],
        kind: CredentialKind::Certificate,
        valid_until_ms: Some(until_ms),
    };
    let first = Some(certificate(1, YEAR_MS));
    let one = NewIdentity { credential: first, ..identity("alpha", Role::Probe, 0) };
    assert!(store.enrol(&one, &by(0)).await.unwrap());
    store.renew("alpha", &certificate(2, 3 * YEAR_MS), Ends::All, 10, &by(10)).await.unwrap();
    let older = store.identities().await.unwrap().credentials[&[1; 32]].clone();
    assert_eq!((older.valid_until_ms, older.not_after_ms), (Some(10), Some(YEAR_MS)));
    let on_record = async |store: &mut SqliteStore, name: &str, now_ms| {
        assert!(
            store
                .enrol(&identity(name, Role::Reader, name.as_bytes()[0]), &by(now_ms))
                .await
                .unwrap()
        );
        store.identities().await.unwrap().credentials.contains_key(&[1; 32])
    };
    assert!(on_record(&mut store, "a", YEAR_MS).await);
    // One of before its end was noted may be of the longest kind.
    let unknown = "UPDATE credential SET not_after_ms = NULL WHERE kind = 2";
    sqlx::raw_sql(unknown).execute(&mut store.connection).await.unwrap();
    assert!(on_record(&mut store, "b", 3_650 * 86_400_000).await);
    assert!(!on_record(&mut store, "c", 3_650 * 86_400_000 + YEAR_MS).await);
}

#[tokio::test]
async fn what_another_process_writes_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let mut one = store(&directory).await;
    let mut other = store(&directory).await;
    assert!(one.written_by_others().await.unwrap(), "asked for the first time");
    assert!(!one.written_by_others().await.unwrap());
    assert!(one.enrol(&identity("alpha", Role::Probe, 1), &by(0)).await.unwrap());
    assert!(!one.written_by_others().await.unwrap(), "its own writing");
    assert!(other.enrol(&identity("beta", Role::Probe, 2), &by(0)).await.unwrap());
    assert!(one.written_by_others().await.unwrap());
    assert!(!one.written_by_others().await.unwrap());
}
