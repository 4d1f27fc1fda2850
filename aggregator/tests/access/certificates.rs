//! The server's own certificate: what is refused at the start, and taking a new one without a
//! restart; and HTTP behind the same gate.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use uptime_aggregator::access::{Tls, TlsFiles};
use uptime_aggregator::config::SettingArgs;
use uptime_aggregator::store::Role;

use super::support::{Aggregator, Callers, Host, http_get, tls_stream};

/// The certificate that a port shows.
async fn shown(aggregator: &Aggregator, host: &Host) -> Vec<u8> {
    let stream = tls_stream(aggregator.http, &host.authority.ca_pem, None, b"http/1.1").await;
    let stream = stream.unwrap();
    let certificates = stream.get_ref().1.peer_certificates().unwrap();
    certificates[0].to_vec()
}

#[tokio::test]
async fn a_new_certificate_is_taken_while_the_old_connections_go_on() {
    let host = Host::new();
    let token = host.enrol("alpha", Role::Probe).await;
    let aggregator = Aggregator::start(host.with_tls()).await;
    let first = shown(&aggregator, &host).await;
    let caller = aggregator.tls_caller(&host).token(&token);
    let channel = caller.channel().await.unwrap();
    let mut client = uptime_proto::v1::collector_client::CollectorClient::new(channel);
    let submit = || caller.request(uptime_proto::v1::SubmitRequest { reports: Vec::new() });
    client.submit(submit()).await.unwrap();

    // Told to, as SIGHUP does.
    host.write_server_certificate(&["localhost", "127.0.0.1"]);
    aggregator.tls.as_ref().unwrap().reload();
    let began = Instant::now();
    let mut second = shown(&aggregator, &host).await;
    while second == first {
        assert!(began.elapsed() < Duration::from_secs(10));
        second = shown(&aggregator, &host).await;
    }
    // Half a file and a key of another certificate change nothing.
    std::fs::write(host.path("server.pem"), "-----BEGIN CERT").unwrap();
    aggregator.tls.as_ref().unwrap().reload();
    let key = std::fs::read(host.path("server.key")).unwrap();
    host.write_server_certificate(&["localhost"]);
    std::fs::write(host.path("server.key"), key).unwrap();
    aggregator.tls.as_ref().unwrap().reload();
    assert_eq!(shown(&aggregator, &host).await, second);
    // Not told to: the files are looked at every few seconds.
    host.write_server_certificate(&["localhost", "127.0.0.1"]);
    let began = Instant::now();
    while shown(&aggregator, &host).await == second {
        assert!(began.elapsed() < Duration::from_secs(20));
        tokio::task::yield_now().await;
    }
    client.submit(submit()).await.unwrap();
    aggregator.stop().await;
}

#[test]
fn files_that_make_no_tls_are_named() {
    let host = Host::new();
    host.write_server_certificate(&["localhost"]);
    let files = || TlsFiles {
        cert: host.path("server.pem"),
        key: host.path("server.key"),
        client_ca: Some(host.authority.ca_file.clone()),
    };
    assert!(Tls::open(files()).is_ok());
    let fault = |files: TlsFiles| Tls::open(files).unwrap_err().to_string();
    std::fs::write(host.path("empty"), "").unwrap();
    for (files, word) in [
        (TlsFiles { cert: host.path("missing"), ..files() }, "missing"),
        (TlsFiles { cert: host.path("empty"), ..files() }, "no certificate in it"),
        (TlsFiles { key: host.path("empty"), ..files() }, "mode"),
        (TlsFiles { key: host.path("authority/ca.key"), ..files() }, "ca.key"),
        (TlsFiles { client_ca: Some(host.path("server.key")), ..files() }, "no certificate in it"),
    ] {
        let said = fault(files);
        assert!(said.contains(word), "{word}: {said}");
    }
    let readable = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(host.path("server.key"), readable).unwrap();
    assert!(fault(files()).contains("chmod 600"));
}

#[tokio::test]
async fn http_stands_behind_the_same_gate() {
    let host = Host::new();
    let (reader, probe) =
        (host.enrol("eye", Role::Reader).await, host.enrol("alpha", Role::Probe).await);
    let settings = SettingArgs { readers_need_token: Some("true".into()), ..host.with_tls() };
    let aggregator = Aggregator::start(settings).await;
    let get = async |path: &str, authorization: Option<String>| {
        let ca = &host.authority.ca_pem;
        let stream = tls_stream(aggregator.http, ca, None, b"http/1.1").await.unwrap();
        http_get(stream, path, authorization.as_deref()).await
    };
    let bearer = |token: &str| Some(format!("Bearer {token}"));
    let basic = |token: &str| {
        use base64::Engine;
        let pair = base64::prelude::BASE64_STANDARD.encode(format!("anyone:{token}"));
        Some(format!("Basic {pair}"))
    };
    for path in ["/", "/metrics", "/nodes_status.csv", "/nothing"] {
        let (status, answer) = get(path, None).await;
        assert_eq!(status, 401, "{path}");
        assert!(answer.contains("www-authenticate: Basic"), "{answer}");
    }
    assert_eq!(get("/healthz", None).await.0, 200);
    assert_eq!(get("/", bearer("nonsense")).await.0, 401);
    assert_eq!(get("/", bearer(&probe)).await.0, 403);
    assert_eq!(get("/", bearer(&reader)).await.0, 200);
    assert_eq!(get("/", basic(&reader)).await.0, 200);
    let eye = host.also_by_certificate("eye").await;
    let ca = &host.authority.ca_pem;
    let stream = tls_stream(aggregator.http, ca, Some(&eye), b"http/1.1").await.unwrap();
    assert_eq!(http_get(stream, "/", None).await.0, 200);
    aggregator.stop().await;

    // On loopback without a word about it anyone may look.
    let aggregator = Aggregator::start(host.plain()).await;
    let stream = TcpStream::connect(aggregator.http).await.unwrap();
    assert_eq!(http_get(stream, "/", None).await.0, 200);
    let stream = TcpStream::connect(aggregator.http).await.unwrap();
    assert_eq!(http_get(stream, "/", bearer("nonsense").as_deref()).await.0, 401);
    aggregator.stop().await;
}

#[tokio::test]
async fn one_port_does_not_speak_the_other_ones_protocol() {
    let host = Host::new();
    let aggregator = Aggregator::start(host.with_tls()).await;
    let ca = &host.authority.ca_pem;
    assert!(tls_stream(aggregator.grpc, ca, None, b"http/1.1").await.is_err());
    assert!(tls_stream(aggregator.http, ca, None, b"h2").await.is_err());
    assert!(tls_stream(aggregator.grpc, ca, None, b"h2").await.is_ok());
    aggregator.stop().await;
}
