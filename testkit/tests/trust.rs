//! The real probe and the real aggregator over TLS: joining with a ticket, a token, a certificate,
//! and the errors of both ends if the other end is wrong.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "../../aggregator/tests/shared/fixture.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared by several test binaries")]
mod aggregator;

use std::path::Path;
use std::time::Duration;

use aggregator::{Aggregator, settings};
use uptime_aggregator::access::commands::{self, Place};
use uptime_aggregator::clock::now_unix_ms;
use uptime_aggregator::config::{AuthorityCommand, CertificateArgs, ProbeCommand, SettingArgs};
use uptime_probe::clock::Timekeeper;
use uptime_probe::control_state::ControlState;
use uptime_probe::join::{JoinError, join, read_ticket};
use uptime_probe::spool::{Spool, SpoolLimits};
use uptime_probe::uplink::{Tls, Token, Uplink, UplinkError, UplinkOptions};
use uptime_proto::v1;

struct Fixture {
    directory: tempfile::TempDir,
    address: String,
    ca_pem: String,
    aggregator: Aggregator,
}

fn place(directory: &Path) -> Place<'_> {
    Place { data_dir: directory, now_ms: now_unix_ms(), tell: |_| Ok(()) }
}

fn add(name: &str, out: &Path, ticket: bool, certificate: bool) -> ProbeCommand {
    ProbeCommand::Add {
        name: name.to_owned(),
        subnets_allowed: Vec::new(),
        ticket,
        address: "https://localhost".to_owned(),
        certificate: CertificateArgs { certificate, out: out.to_owned(), days: 1 },
    }
}

impl Fixture {
    /// An aggregator with a certificate of its own authority, as the operator's commands make it.
    async fn open() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let there = place(directory.path());
        let ca_pem = commands::authority(there, &AuthorityCommand::Init).unwrap().answer;
        let names = vec!["localhost".to_owned()];
        commands::authority(there, &AuthorityCommand::IssueServer { names, days: 1 }).unwrap();
        let file =
            |name: &str| Some(directory.path().join("authority").join(name).display().to_string());
        let args = SettingArgs {
            tls_cert_file: file("server.pem"),
            tls_key_file: file("server.key"),
            client_ca_file: file("ca.pem"),
            ..settings(directory.path())
        };
        let aggregator = Aggregator::start(args).await;
        let address = format!("https://localhost:{}", aggregator.grpc.port());
        Self { directory, address, ca_pem, aggregator }
    }

    async fn close(self) {
        self.aggregator.stop().await;
    }

    async fn command(&self, command: ProbeCommand) -> String {
        commands::probe(place(self.directory.path()), &command).await.unwrap().answer
    }

    fn tls(&self, identity: Option<(String, String)>) -> Tls {
        Tls::new(Some(self.ca_pem.clone()), identity)
    }

    fn uplink(&self, tls: Tls, token: Option<&str>) -> (Uplink, Spool) {
        let directory = self.directory.path().join(format!("spool-{:08x}", rand::random::<u32>()));
        let (spool, _) = Spool::open(&directory, SpoolLimits::of_bytes(64 << 20)).unwrap();
        let options = UplinkOptions {
            aggregators: vec![self.address.clone()],
            tls,
            token: token.map(|token| Token::new(token).unwrap()),
            subnets: Vec::new(),
        };
        (
            Uplink::new(
                options,
                spool.clone(),
                ControlState::open(&directory, Timekeeper::trusted()),
            ),
            spool,
        )
    }

    /// The name that the aggregator gives this probe.
    async fn greet(&self, tls: Tls, token: Option<&str>) -> Result<String, UplinkError> {
        Ok(self.uplink(tls, token).0.greet().await?.probe_name)
    }
}

fn refused(error: &UplinkError) -> bool {
    matches!(error, UplinkError::Refused { status, .. }
        if status.code() == tonic::Code::Unauthenticated)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_is_pasted_once_and_the_token_works_from_then_on() {
    let fixture = Fixture::open().await;
    let text = fixture.command(add("alpha", fixture.directory.path(), true, false)).await;
    // As the shell would hand it over: what stands between the word END and the word END.
    let ticket = text.lines().skip_while(|line| !line.starts_with("uptime-probe join")).nth(1);
    let ticket = read_ticket(ticket.unwrap().as_bytes()).unwrap();
    let file = fixture.directory.path().join("alpha.token");
    let name = join(&fixture.address, &fixture.tls(None), &ticket, &file).await.unwrap();
    assert_eq!(name, "alpha");
    let token = std::fs::read_to_string(&file).unwrap();
    assert_eq!(fixture.greet(fixture.tls(None), Some(&token)).await.unwrap(), "alpha");

    let again = fixture.directory.path().join("again.token");
    let error = join(&fixture.address, &fixture.tls(None), &ticket, &again).await.unwrap_err();
    assert!(matches!(&error, JoinError::Uplink(error) if refused(error)), "{error}");
    assert!(!again.exists());

    // What waits in a spool arrives.
    let (uplink, spool) = fixture.uplink(fixture.tls(None), Some(&token));
    let from = u64::try_from(now_unix_ms() / 1000).unwrap() / 30 * 30 - 3_000;
    let reason = v1::CouldNotLookReason::Missed as i32;
    spool.report_gap(v1::Gap { from_round_unix_s: from, to_round_unix_s: from + 30, reason });
    assert_eq!(uplink.drain(Duration::from_secs(20)).await, 0);

    fixture.command(ProbeCommand::Revoke { name: "alpha".to_owned() }).await;
    let began = std::time::Instant::now();
    while fixture.greet(fixture.tls(None), Some(&token)).await.is_ok() {
        assert!(began.elapsed() < Duration::from_secs(20), "revoked and still let in");
    }
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_proof_enough_and_each_end_knows_the_other() {
    let fixture = Fixture::open().await;
    let out = fixture.directory.path();
    fixture.command(add("beta", out, false, true)).await;
    let read = |name: &str| std::fs::read_to_string(out.join(name)).unwrap();
    let identity = Some((read("beta.pem"), read("beta.key")));
    let name = fixture.greet(fixture.tls(identity.clone()), None).await.unwrap();
    assert_eq!(name, "beta");
    // Nothing shown; a token of nobody; both, of which one is none.
    for (identity, token) in
        [(None, None), (None, Some("nonsense")), (identity.clone(), Some("nonsense"))]
    {
        let error = fixture.greet(fixture.tls(identity), token).await.unwrap_err();
        assert!(refused(&error), "{error}");
    }
    // A probe that trusts someone else does not speak to this aggregator.
    let elsewhere = tempfile::tempdir().unwrap();
    let stranger = commands::authority(place(elsewhere.path()), &AuthorityCommand::Init).unwrap();
    let error = fixture.greet(Tls::new(Some(stranger.answer), identity), None).await.unwrap_err();
    assert!(
        matches!(&error, UplinkError::Unreachable { detail, .. }
        if detail.contains("certificate")),
        "{error}"
    );
    fixture.close().await;
}
