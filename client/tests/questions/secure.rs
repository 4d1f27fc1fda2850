//! TLS and tokens, with certificates made here.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Certificate, Identity, ServerTlsConfig};
use uptime_client::{Client, Error, Options, Tls, Token, v1};

use crate::contrary::{Contrary, Script};
use crate::help::run;

/// An authority that makes certificates.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A certificate for this name and its key, in PEM form.
    fn issue(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }
}

fn script() -> Script {
    Script {
        summary: Box::new(|_, _| {
            Ok(v1::GetSummaryResponse { nodes: 7, ..v1::GetSummaryResponse::default() })
        }),
        ..Script::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_right_authority_is_spoken_to_and_certificates_are_shown() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let (cert, key) = authority.issue("localhost");
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(cert, key))
        .client_ca_root(Certificate::from_pem(authority.0.pem()));
    let there = Contrary::start_with(script(), Some(tls)).await;
    let url = format!("https://localhost:{}", there.address.port());
    let own = || Some(authority.issue("asker"));
    let asked = async |ca: &Authority, own| {
        let tls = Tls::new(Some(ca.0.pem()), own);
        Options::new(url.clone()).tls(tls).connect().await?.summary().await
    };
    assert_eq!(asked(&authority, own()).await.unwrap().value.nodes, 7);
    let failure = asked(&stranger, own()).await.unwrap_err();
    assert!(matches!(failure, Error::Unreachable { .. }), "{failure:?}");
    assert!(failure.to_string().contains("certificate"), "{failure}");
    assert!(asked(&authority, None).await.is_err());
    assert_eq!(there.calls(), 1);

    let directory = tempfile::tempdir().unwrap();
    let (own, own_key) = authority.issue("asker");
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (ca, own, own_key) =
        (write("ca.pem", &authority.0.pem()), write("own.pem", &own), write("own.key", &own_key));
    let summary = ["summary", "--address", &url, "--output", "csv"];
    let with = |more: &[&str]| [&summary[..], more].concat().join("\n");
    let say = async |arguments: String| run(&arguments.split('\n').collect::<Vec<_>>()).await;
    let ran = say(with(&["--ca-file", &ca, "--cert-file", &own, "--key-file", &own_key])).await;
    assert_eq!(ran.status, 0, "{}", ran.err);
    assert!(ran.out.contains("\n7,"), "{}", ran.out);
    let ran = say(with(&["--cert-file", &own, "--ca-file", &own_key])).await;
    assert_eq!((ran.status, ran.out.as_str()), (64, ""));
    assert!(ran.err.contains("--cert-file and --key-file"), "{}", ran.err);
    let ran = say(with(&["--ca-file", "/nonexistent/ca.pem"])).await;
    assert_eq!(ran.status, 64);
    assert!(ran.err.contains("--ca-file: /nonexistent/ca.pem"), "{}", ran.err);
}

/// Leads connections to an aggregator, but for the second one, on which nothing is said.
async fn second_is_silent(target: SocketAddr, cut: CancellationToken) -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut running = JoinSet::new();
    running.spawn(async move {
        let mut lines = JoinSet::new();
        for number in 0.. {
            let (mut near, _) = listener.accept().await.unwrap();
            let mut far = TcpStream::connect(target).await.unwrap();
            let cut = cut.clone();
            lines.spawn(async move {
                match number {
                    0 => tokio::select! {
                        _ = copy_bidirectional(&mut near, &mut far) => {}
                        () = cut.cancelled() => {}
                    },
                    1 => {
                        std::future::pending::<()>().await;
                        drop(near);
                    }
                    _ => {
                        copy_bidirectional(&mut near, &mut far).await.ok();
                    }
                }
            });
        }
    });
    (address, running)
}

/// TLS belongs to a connection, also where one is made anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_is_silent_under_tls_is_given_up_and_asked_again() {
    let authority = Authority::new();
    let (cert, key) = authority.issue("localhost");
    let tls = ServerTlsConfig::new().identity(Identity::from_pem(cert, key));
    let there = Contrary::start_with(script(), Some(tls)).await;
    let cut = CancellationToken::new();
    let (address, _running) = second_is_silent(there.address, cut.clone()).await;
    let url = format!("https://localhost:{}", address.port());
    let options = Options::new(url).tls(Tls::new(Some(authority.0.pem()), None));
    let client = options.answer_within(Duration::from_secs(2)).connect().await.unwrap();
    client.summary().await.unwrap();
    cut.cancel();
    let answered = async { while client.summary().await.is_err() {} };
    tokio::time::timeout(Duration::from_secs(30), answered).await.unwrap();
}

/// Nothing is sent: 192.0.2.0/24 is nobody's.
#[tokio::test(flavor = "multi_thread")]
async fn the_token_leaves_this_host_in_plaintext_only_where_a_flag_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (token, ca) = (file("token", "s3cret\n"), file("ca.pem", &Authority::new().0.pem()));
    let ran = run(&["summary", "--address", "http://192.0.2.1:7640", "--token-file", &token]).await;
    assert_eq!((ran.status, ran.out.as_str()), (64, ""));
    assert!(ran.err.contains("--insecure-plaintext-beyond-loopback"), "{}", ran.err);
    let there = Contrary::start(script()).await;
    let ran = run(&["summary", "--address", &there.url(), "--ca-file", &ca]).await;
    assert_eq!((ran.status, ran.out.as_str()), (64, ""));
    assert!(ran.err.contains("--ca-file: certificates"), "{}", ran.err);
    assert_eq!(there.calls(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_shown_and_never_printed() {
    let wanted = Script { authorization: Some("Bearer s3cret"), ..script() };
    let there = Contrary::start(wanted).await;
    let client = Client::connect(&there.url()).await.unwrap();
    let failure = client.summary().await.unwrap_err();
    assert!(matches!(failure, Error::Denied { call: "GetSummary", .. }), "{failure:?}");
    let options = Options::new(there.url()).token(Token::new("s3cret").unwrap());
    let client = options.connect().await.unwrap();
    assert_eq!(client.summary().await.unwrap().value.nodes, 7);
    assert!(!format!("{client:?}").contains("s3cret"));

    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    fs::write(&file, "s3cret\n").unwrap();
    let ask = async |file: &Path| {
        let url = there.url();
        run(&["summary", "--address", &url, "--token-file", file.to_str().unwrap()]).await
    };
    let ran = ask(&file).await;
    assert_eq!(ran.status, 0, "{}", ran.err);
    fs::write(&file, "wr0ng\n").unwrap();
    let ran = ask(&file).await;
    assert_eq!(ran.status, 1);
    assert!(ran.err.contains("--token-file") && !ran.err.contains("wr0ng"), "{}", ran.err);
    fs::write(&file, "\n").unwrap();
    let ran = ask(&file).await;
    assert_eq!(ran.status, 64);
    assert!(ran.err.contains("the token is empty"), "{}", ran.err);
}
