//! The uplink over TLS, with certificates made here.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::process::Command;
use tonic::transport::{Certificate, Identity, ServerTlsConfig};

use super::fake_collector::{collector, daemon, probe, wait_for};

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
        let cert = params.signed_by(&key, &self.0).unwrap();
        (cert.pem(), key.serialize_pem())
    }

    fn write(&self, path: PathBuf) -> PathBuf {
        fs::write(&path, self.0.pem()).unwrap();
        path
    }
}

fn written(directory: &Path, name: &str, text: &str) -> PathBuf {
    let path = directory.join(name);
    fs::write(&path, text).unwrap();
    path
}

/// Nothing is sent: 192.0.2.0/24 is nobody's.
#[tokio::test]
async fn secrets_leave_this_host_in_plaintext_only_where_a_flag_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let ca = Authority::new().write(directory.path().join("ca.pem"));
    let token = directory.path().join("token");
    let (there, here) = ("http://192.0.2.1:7640", "http://127.0.0.1:7640");
    let ran = async |command: &str, address: &str, more: &[&str]| {
        let mut probe = Command::new(env!("CARGO_BIN_EXE_uptime-probe"));
        probe.arg(command).args(more).env("UPTIME_AGGREGATOR", address);
        if command == "join" {
            probe.arg("--token-file").arg(&token);
        }
        probe.env("YAGNA_APPKEY", "the-key").env("UPTIME_TOKEN", "s3cret").stdin(Stdio::null());
        let output = probe.kill_on_drop(true).output().await.unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    for command in ["run", "check", "join"] {
        let (code, said) = ran(command, there, &[]).await;
        assert_eq!(code, Some(64), "{command}: {said}");
        assert!(said.contains("--insecure-plaintext-beyond-loopback"), "{command}: {said}");
        let (code, said) = ran(command, here, &["--ca-file", ca.to_str().unwrap()]).await;
        assert_eq!(code, Some(64), "{command}: {said}");
        assert!(said.contains("--ca-file: certificates"), "{command}: {said}");
    }
    // There is no ticket to send, and that is what is told.
    let (code, said) = ran("join", there, &["--insecure-plaintext-beyond-loopback"]).await;
    assert!(code == Some(1) && said.contains("the ticket, on standard input"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_right_authority_is_spoken_to_and_certificates_are_shown() {
    let directory = tempfile::tempdir().unwrap();
    let (authority, stranger) = (Authority::new(), Authority::new());
    let (cert, key) = authority.issue("localhost");
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(cert, key))
        .client_ca_root(Certificate::from_pem(authority.0.pem()));
    let (daemon, collector) = (daemon().await, collector(true, Some(tls)).await);
    let spool = directory.path().join("spool");
    let right = authority.write(directory.path().join("ca.pem"));
    let wrong = stranger.write(directory.path().join("stranger.pem"));
    let (own, own_key) = authority.issue("probe-1");
    let own = written(directory.path(), "own.pem", &own);
    let own_key = written(directory.path(), "own.key", &own_key);
    let check = |ca: &Path, own: Option<(&Path, &Path)>| {
        let mut command = probe("check", &daemon, &collector.address, &spool);
        command.arg("--ca-file").arg(ca);
        if let Some((cert, key)) = own {
            command.arg("--cert-file").arg(cert).arg("--key-file").arg(key);
        }
        command
    };
    for (ca, own) in [(&wrong, Some((own.as_path(), own_key.as_path()))), (&right, None)] {
        let output = check(ca, own).output().await.unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.contains("WRONG  aggregator"), "{said}");
        assert_eq!(collector.received.borrow().streams, 0, "{said}");
    }
    let mut child = probe("run", &daemon, &collector.address, &spool)
        .arg("--ca-file")
        .arg(&right)
        .arg("--cert-file")
        .arg(&own)
        .arg("--key-file")
        .arg(&own_key)
        .spawn()
        .unwrap();
    wait_for(&collector.received, |received| !received.parts.is_empty()).await;
    child.kill().await.unwrap();
}
