//! The identity matrix, every cell over a real socket: refused with the right code, noted with the
//! right reason, and without a word that helps whoever tries.

use std::collections::BTreeSet;
use std::path::Path;

use sqlx::Connection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use tonic::{Code, Status};
use uptime_aggregator::access::authority::{Authority, Issued, Subject};
use uptime_aggregator::access::{Refusal, hash_token, new_token};
use uptime_aggregator::clock::now_unix_ms;
use uptime_aggregator::config::SettingArgs;
use uptime_aggregator::store::{
    By, CredentialKind, Ends, IdentityStore, NewCredential, NewIdentity, Role, STORE_FILE_NAME,
    SqliteStore,
};
use uptime_proto::v1::{self, RefusalReason, ReportStatus};

use super::reports::{ids, market, report};
use super::support::{Aggregator, Caller, Callers, Host, certificate_of, issue};

/// Refusals by reason and subject as the audit log has them.
fn refusals(audit_log: &[uptime_aggregator::store::AuditRecord]) -> BTreeSet<(String, String)> {
    let refused = audit_log.iter().filter_map(|line| {
        let reason = line.action.strip_prefix("refused: ")?;
        assert_eq!(line.actor, "127.0.0.1");
        Some((reason.to_owned(), line.subject.clone()))
    });
    refused.collect()
}

fn noted(refusal: Refusal, subject: &str) -> (String, String) {
    (refusal.as_str().to_owned(), subject.to_owned())
}

/// What nobody may read in the answer to a proof that was refused.
fn says_nothing(status: &Status) {
    assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
    for word in ["alpha", "beta", "gone", "revoked", "expired", "unknown", "rotat"] {
        assert!(!status.message().contains(word), "{word}: {}", status.message());
    }
    assert!(status.metadata().get("authorization").is_none());
}

#[tokio::test]
async fn proofs_that_are_none_are_refused_alike_and_told_apart_in_the_trail() {
    let host = Host::new();
    let beta = host.enrol("beta", Role::Probe).await;
    let gone = host.enrol("gone", Role::Probe).await;
    let stolen = host.enrol("alpha", Role::Probe).await;
    let alpha = host.rotate("alpha", 0).await;
    host.revoke("gone").await;
    let alpha_cert = host.also_by_certificate("alpha").await;
    let beta_cert = host.also_by_certificate("beta").await;
    let aggregator = Aggregator::start(host.with_tls()).await;
    let caller = || aggregator.tls_caller(&host);
    let odd = Subject::Server(vec!["alpha".to_owned(), "beta".to_owned()]);
    let odd = host.authority.issue(&odd, 5, now_unix_ms()).unwrap();
    let cells = [
        (caller(), noted(Refusal::NoProof, "")),
        (caller().token(&new_token()), noted(Refusal::UnknownToken, "")),
        (caller().token("x y"), noted(Refusal::UnknownToken, "")),
        (caller().token(&stolen), noted(Refusal::EndedToken, "alpha")),
        (caller().token(&gone), noted(Refusal::Revoked, "gone")),
        (caller().with(&host.client("alpha")), noted(Refusal::UnknownCertificate, "alpha")),
        (
            caller().with(&host.client("alpha")).token(&alpha),
            noted(Refusal::UnknownCertificate, "alpha"),
        ),
        (caller().with(&alpha_cert).token(&beta), noted(Refusal::Mismatch, "beta")),
        (caller().with(&beta_cert).token(&alpha), noted(Refusal::Mismatch, "alpha")),
        (caller().with(&alpha_cert).token(&stolen), noted(Refusal::EndedToken, "alpha")),
    ];
    let mut wanted = BTreeSet::new();
    let mut messages = BTreeSet::new();
    for (caller, cell) in cells {
        let refused = caller.submit(Vec::new()).await.unwrap_err();
        says_nothing(&refused);
        messages.insert(refused.message().to_owned());
        wanted.insert(cell);
    }
    assert_eq!(messages.len(), 1, "{messages:?}");
    // Those who prove who they are are let in, by one proof, the other, or both.
    for caller in [
        caller().token(&alpha),
        caller().with(&alpha_cert),
        caller().with(&alpha_cert).token(&alpha),
        caller().token(&beta),
    ] {
        caller.submit(Vec::new()).await.unwrap();
    }
    // A certificate for servers is none for clients; the handshake says so.
    assert!(caller().with(&odd).submit(Vec::new()).await.is_err());
    wanted.insert(noted(Refusal::BadCertificate, ""));
    aggregator.stop().await;
    assert_eq!(refusals(&host.audit_log().await), wanted);
}

#[tokio::test]
async fn certificates_that_are_none_end_the_handshake() {
    let host = Host::new();
    let good = host.enrol_by_certificate("alpha", Role::Probe).await;
    let aggregator = Aggregator::start(host.with_tls()).await;
    let elsewhere = tempfile::tempdir().unwrap();
    let stranger = Authority::create(elsewhere.path(), now_unix_ms()).unwrap();
    for (issued, refusal) in [
        (issue(&stranger, "alpha", 0), Refusal::WrongAuthority),
        (issue(&host.authority, "alpha", -10), Refusal::OutdatedCertificate),
        (issue(&host.authority, "alpha", 10), Refusal::EarlyCertificate),
    ] {
        let caller = aggregator.tls_caller(&host).with(&issued);
        let refused = caller.submit(Vec::new()).await.unwrap_err();
        // No call was made: there is nothing but a connection that ended.
        assert!(
            matches!(refused.code(), Code::Unavailable | Code::Unknown | Code::Internal),
            "{refusal:?}: {refused:?}"
        );
    }
    // A good one right after is let in.
    aggregator.tls_caller(&host).with(&good).submit(Vec::new()).await.unwrap();
    aggregator.stop().await;
    let wanted = [Refusal::WrongAuthority, Refusal::OutdatedCertificate, Refusal::EarlyCertificate];
    let wanted = wanted.map(|refusal| noted(refusal, ""));
    assert_eq!(refusals(&host.audit_log().await), BTreeSet::from(wanted));
}

#[tokio::test]
async fn a_certificate_that_was_replaced_is_as_good_as_none() {
    let host = Host::new();
    let older = host.enrol_by_certificate("alpha", Role::Probe).await;
    let newer = host.client("alpha");
    let aggregator = Aggregator::start(host.with_tls()).await;
    let caller = |issued| aggregator.tls_caller(&host).with(issued);
    caller(&older).submit(Vec::new()).await.unwrap();
    let by = Host::by();
    let renewed = certificate_of(&newer);
    host.store().await.renew("alpha", &renewed, Ends::All, by.now_ms, &by).await.unwrap();
    caller(&newer).submit(Vec::new()).await.unwrap();
    // It is refused as soon as the change was read, which the sweep does every two seconds.
    aggregator.ledger.refresh_identities().await;
    says_nothing(&caller(&older).submit(Vec::new()).await.unwrap_err());
    aggregator.stop().await;
    let wanted = BTreeSet::from([noted(Refusal::EndedCertificate, "alpha")]);
    assert_eq!(refusals(&host.audit_log().await), wanted);
}

async fn forget_authorities(data_dir: &Path) {
    let file = data_dir.join(STORE_FILE_NAME);
    let options = SqliteConnectOptions::new().filename(file);
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::raw_sql("DELETE FROM authority").execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

/// Those of another authority pass by name: it answers for them.
#[tokio::test]
async fn of_the_built_in_authority_only_what_is_on_record_passes() {
    let host = Host::new();
    host.enrol_with("boss", Role::Admin, &[], None).await;
    let on_record = host.enrol_by_certificate("alpha", Role::Probe).await;
    let elsewhere = tempfile::tempdir().unwrap();
    let other = Authority::create(elsewhere.path(), now_unix_ms()).unwrap();
    let both = host.path("both.pem");
    std::fs::write(&both, format!("{}{}", host.authority.ca_pem, other.ca_pem)).unwrap();
    let settings = |data_dir: &Path| SettingArgs {
        client_ca_file: Some(both.display().to_string()),
        data_dir: Some(data_dir.display().to_string()),
        ..host.with_tls()
    };
    let aggregator = Aggregator::start(settings(host.directory.path())).await;
    let caller = |issued: &Issued| aggregator.tls_caller(&host).with(issued);
    caller(&on_record).submit(Vec::new()).await.unwrap();
    caller(&issue(&other, "alpha", 0)).submit(Vec::new()).await.unwrap();
    caller(&issue(&other, "boss", 0)).audit().await.unwrap();
    says_nothing(&caller(&host.client("alpha")).submit(Vec::new()).await.unwrap_err());
    says_nothing(&caller(&host.client("boss")).audit().await.unwrap_err());
    aggregator.stop().await;
    let mut wanted = BTreeSet::from([
        noted(Refusal::UnknownCertificate, "alpha"),
        noted(Refusal::UnknownCertificate, "boss"),
    ]);
    assert_eq!(refusals(&host.audit_log().await), wanted);

    // A restored backup of before knows the authority, and of its certificates those on record
    // then. Its folder need not be there.
    let backup = host.path("backup");
    let (data_dir, now_ms) = (host.directory.path(), now_unix_ms());
    uptime_aggregator::upkeep::backup(data_dir, &backup, None, now_ms).await.unwrap();
    let later = host.enrol_by_certificate("gamma", Role::Probe).await;
    let again = host.also_by_certificate("alpha").await;
    let restored = tempfile::tempdir().unwrap();
    uptime_aggregator::upkeep::restore(&backup, restored.path()).await.unwrap();
    let aggregator = Aggregator::start(settings(restored.path())).await;
    let caller = |issued: &Issued| aggregator.tls_caller(&host).with(issued);
    caller(&on_record).submit(Vec::new()).await.unwrap();
    caller(&issue(&other, "boss", 0)).audit().await.unwrap();
    says_nothing(&caller(&later).submit(Vec::new()).await.unwrap_err());
    says_nothing(&caller(&again).submit(Vec::new()).await.unwrap_err());
    aggregator.stop().await;
    // One of an older version does not say of which authority what it has on record is: then those
    // that are named as built-in ones are taken for such.
    forget_authorities(restored.path()).await;
    let aggregator = Aggregator::start(settings(restored.path())).await;
    let caller = |issued: &Issued| aggregator.tls_caller(&host).with(issued);
    caller(&on_record).submit(Vec::new()).await.unwrap();
    says_nothing(&caller(&again).submit(Vec::new()).await.unwrap_err());
    aggregator.stop().await;
    let mut store = SqliteStore::open(restored.path()).await.unwrap();
    wanted.insert(noted(Refusal::UnknownCertificate, "gamma"));
    assert_eq!(refusals(&store.audit_log(None, 1_000).await.unwrap()), wanted);
}

/// Long after a rotation what is left of a stolen certificate is as bad as on the first day.
#[tokio::test]
async fn a_certificate_that_was_replaced_long_ago_stays_as_good_as_none() {
    let host = Host::new();
    let at = |days: i64| By { now_ms: now_unix_ms() - days * 86_400_000, ..Host::by() };
    let issued_at = |days: i64| {
        let subject = Subject::Client("alpha".to_owned());
        host.authority.issue(&subject, 398, at(days).now_ms).unwrap()
    };
    let (stolen, newer) = (issued_at(300), issued_at(200));
    let identity = NewIdentity {
        name: "alpha".to_owned(),
        role: Role::Probe,
        subnets_allowed: Vec::new(),
        credential: Some(certificate_of(&stolen)),
    };
    let mut store = host.store().await;
    assert!(store.enrol(&identity, &at(300)).await.unwrap());
    let by = at(200);
    store.renew("alpha", &certificate_of(&newer), Ends::All, by.now_ms, &by).await.unwrap();
    // Whatever is enrolled later, the record stays as long as the certificate would be good.
    host.enrol("beta", Role::Probe).await;
    assert!(store.identities().await.unwrap().credential(&stolen.fingerprint).is_some());
    let aggregator = Aggregator::start(host.with_tls()).await;
    let caller = |issued| aggregator.tls_caller(&host).with(issued);
    caller(&newer).submit(Vec::new()).await.unwrap();
    says_nothing(&caller(&stolen).submit(Vec::new()).await.unwrap_err());
    aggregator.stop().await;
    let wanted = BTreeSet::from([noted(Refusal::EndedCertificate, "alpha")]);
    assert_eq!(refusals(&host.audit_log().await), wanted);
}

#[tokio::test]
async fn each_role_makes_its_own_calls_and_no_others() {
    let host = Host::new();
    let probe = host.enrol("alpha", Role::Probe).await;
    let reader = host.enrol("eye", Role::Reader).await;
    let admin = host.enrol("boss", Role::Admin).await;
    let settings = SettingArgs { readers_need_token: Some("true".into()), ..host.with_tls() };
    let aggregator = Aggregator::start(settings).await;
    let caller = |token: &str| aggregator.tls_caller(&host).token(token);
    let code = |result: Result<(), Status>| result.err().map_or(Code::Ok, |status| status.code());
    let mut found = Vec::new();
    for token in [&probe, &reader, &admin] {
        let caller = caller(token);
        found.push([
            code(caller.submit(Vec::new()).await.map(drop)),
            code(caller.probes().await.map(drop)),
            code(caller.audit().await.map(drop)),
        ]);
    }
    let (yes, no) = (Code::Ok, Code::PermissionDenied);
    assert_eq!(found, [[yes, no, no], [no, yes, no], [no, yes, yes]]);
    says_nothing(&aggregator.tls_caller(&host).probes().await.unwrap_err());
    says_nothing(&aggregator.tls_caller(&host).audit().await.unwrap_err());
    aggregator.stop().await;
    let wanted = BTreeSet::from([
        noted(Refusal::Role, "alpha"),
        noted(Refusal::Role, "eye"),
        noted(Refusal::Role, "boss"),
        noted(Refusal::NoProof, ""),
    ]);
    assert_eq!(refusals(&host.audit_log().await), wanted);
}

#[tokio::test]
async fn on_loopback_anyone_reads_and_nobody_else_administers() {
    let host = Host::new();
    let probe = host.enrol("alpha", Role::Probe).await;
    let aggregator = Aggregator::start(host.plain()).await;
    aggregator.caller().probes().await.unwrap();
    aggregator.caller().token(&probe).probes().await.unwrap();
    says_nothing(&aggregator.caller().audit().await.unwrap_err());
    // A token that is wrong is a mistake that someone wants to know of.
    says_nothing(&aggregator.caller().token(&new_token()).probes().await.unwrap_err());
    aggregator.stop().await;
}

#[tokio::test]
async fn plaintext_is_not_spoken_where_tls_is() {
    let host = Host::new();
    let token = host.enrol("alpha", Role::Probe).await;
    let aggregator = Aggregator::start(host.with_tls()).await;
    let refused = aggregator.caller().token(&token).submit(Vec::new()).await.unwrap_err();
    assert!(
        matches!(refused.code(), Code::Unavailable | Code::Unknown | Code::Internal),
        "{refused:?}"
    );
    let stream = tokio::net::TcpStream::connect(aggregator.http).await.unwrap();
    let (status, answer) = super::support::http_get(stream, "/healthz", None).await;
    assert_eq!((status, answer.as_str()), (0, ""));
    aggregator.stop().await;
    let wanted = BTreeSet::from([noted(Refusal::Plaintext, "")]);
    assert_eq!(refusals(&host.audit_log().await), wanted);
}

#[tokio::test]
async fn an_enrolment_is_used_once() {
    let host = Host::new();
    let admin = host.enrol("boss", Role::Admin).await;
    let ticket = |until_ms: i64| {
        let text = new_token();
        let (hash, kind) = (hash_token(&text), CredentialKind::Ticket);
        (text, NewCredential { hash, kind, valid_until_ms: Some(now_unix_ms() + until_ms) })
    };
    let ((good, credential), (late, ended)) = (ticket(60_000), ticket(-1));
    host.enrol_with("alpha", Role::Probe, &[], Some(credential)).await;
    host.enrol_with("beta", Role::Probe, &[], Some(ended)).await;
    let aggregator = Aggregator::start(host.with_tls()).await;
    let caller = |token: &str| aggregator.tls_caller(&host).token(token);
    // A ticket is no token.
    says_nothing(&caller(&good).submit(Vec::new()).await.unwrap_err());
    let joined = caller(&good).join().await.unwrap();
    assert_eq!(joined.probe_name, "alpha");
    caller(&joined.token).submit(Vec::new()).await.unwrap();
    for ticket in [&good, &late, &new_token(), &joined.token] {
        says_nothing(&caller(ticket).join().await.unwrap_err());
    }
    // The other kind of enrolment: a name is given out once.
    let enrol = || v1::EnrolProbeRequest { name: "gamma".into(), subnets_allowed: vec![] };
    let admin = caller(&admin);
    let first = admin.admin().await.enrol_probe(admin.request(enrol())).await.unwrap();
    caller(&first.into_inner().token).submit(Vec::new()).await.unwrap();
    let again = admin.admin().await.enrol_probe(admin.request(enrol())).await.unwrap_err();
    assert_eq!(again.code(), Code::AlreadyExists);
    aggregator.stop().await;
    let wanted = BTreeSet::from([
        noted(Refusal::UnknownToken, ""),
        noted(Refusal::EndedTicket, "alpha"),
        noted(Refusal::EndedTicket, "beta"),
        noted(Refusal::UnknownTicket, ""),
        noted(Refusal::NameTaken, "gamma"),
    ]);
    let audit_log = host.audit_log().await;
    assert_eq!(refusals(&audit_log), wanted);
    let join = audit_log.iter().find(|line| line.action == "join").unwrap();
    assert_eq!((join.actor.as_str(), join.subject.as_str()), ("127.0.0.1", "alpha"));
}

#[tokio::test]
async fn of_two_who_come_with_one_ticket_at_once_one_is_too_late() {
    let host = Host::new();
    let ticket = new_token();
    let (hash, kind) = (hash_token(&ticket), CredentialKind::Ticket);
    let credential = NewCredential { hash, kind, valid_until_ms: None };
    host.enrol_with("alpha", Role::Probe, &[], Some(credential)).await;
    let aggregator = Aggregator::start(host.plain()).await;
    let caller = aggregator.caller().token(&ticket);
    let attempts = (0..8).map(|_| caller.join());
    let joined = futures_util::future::join_all(attempts).await;
    let good: Vec<_> = joined.iter().filter_map(|joined| joined.as_ref().ok()).collect();
    assert_eq!(good.len(), 1);
    joined.iter().filter_map(|joined| joined.as_ref().err()).for_each(says_nothing);
    aggregator.stop().await;
}

#[tokio::test]
async fn a_probe_speaks_for_its_subnets_only() {
    let host = Host::new();
    let token = new_token();
    let credential = Some(super::support::token_of(&token));
    host.enrol_with("alpha", Role::Probe, &["public"], credential).await;
    let aggregator = Aggregator::start(host.plain()).await;
    let caller: Caller = aggregator.caller().token(&token);
    let foreign = v1::Part { subnet: "private".into(), ..market(0, ids(0, 2)) };
    let both = report(vec![foreign, market(0, ids(0, 2))]);
    let result = caller.submit(vec![both]).await.unwrap().results.remove(0);
    assert_eq!(result.status, ReportStatus::Refused as i32);
    assert_eq!(result.reason, RefusalReason::SubnetNotAllowed as i32);
    assert_eq!(result.parts[1].status, ReportStatus::Accepted as i32);
    aggregator.stop().await;
    let audit_log = host.audit_log().await;
    assert_eq!(refusals(&audit_log), BTreeSet::from([noted(Refusal::Subnet, "alpha")]));
    let line = audit_log.iter().find(|line| line.action.starts_with("refused")).unwrap();
    assert_eq!(line.detail, "private");
}
