//! Settings from flags, the environment and a file, and everything that is wrong with them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;

struct Given(&'static [(&'static str, &'static str)]);

impl Surroundings for Given {
    fn variable(&self, name: &str) -> Option<String> {
        let found = self.0.iter().find(|(there, _)| *there == name);
        found.map(|(_, text)| (*text).to_owned())
    }

    fn read(&self, path: &Path) -> std::io::Result<String> {
        let found = self.0.iter().find(|(there, _)| Path::new(there) == path);
        found.map(|(_, text)| (*text).to_owned()).ok_or_else(|| std::io::ErrorKind::NotFound.into())
    }
}

#[test]
fn the_defaults_are_those_of_the_contract() {
    let around = Given(&[("YAGNA_APPKEY", "key")]);
    let config = Config::read(&SettingArgs::default(), &around).unwrap();
    assert_eq!(config.yagna.base_url, "http://127.0.0.1:7465");
    assert_eq!(config.subnets, ["public"]);
    assert_eq!(config.aggregators, ["http://127.0.0.1:7640"]);
}

/// Whether they are named on the command line, in the environment (which is the same to us) or
/// in the file.
#[test]
fn plaintext_leaves_this_host_only_where_a_flag_says_so() {
    let plain = "http://aggregator.example:7640";
    let around = Given(&[
        ("YAGNA_APPKEY", "key"),
        ("UPTIME_TOKEN", "token"),
        ("config", "aggregator = [\"https://a.example\", \"http://10.0.0.1:7640\"]\n"),
    ]);
    let said = SettingArgs { aggregator: vec![plain.into()], ..SettingArgs::default() };
    let filed = SettingArgs { config: Some("config".into()), ..SettingArgs::default() };
    for mut args in [said, filed] {
        let faults = Config::read(&args, &around).unwrap_err();
        assert_eq!(faults.len(), 1, "{faults:?}");
        for words in ["--aggregator", "plaintext", "--insecure-plaintext-beyond-loopback"] {
            assert!(faults[0].contains(words), "{words}: {faults:?}");
        }
        args.insecure_plaintext_beyond_loopback = true;
        assert!(Config::read(&args, &around).is_ok());
    }
    let mut join = JoinArgs {
        aggregator: plain.to_owned(),
        ca_file: None,
        token_file: "token".into(),
        insecure_plaintext_beyond_loopback: false,
    };
    assert_eq!(join.read(&around).unwrap_err().len(), 1);
    join.insecure_plaintext_beyond_loopback = true;
    assert_eq!(join.read(&around), Ok(Tls::default()));
}

#[test]
fn certificates_are_not_given_in_vain() {
    let around = Given(&[("YAGNA_APPKEY", "key"), ("pem", "-----BEGIN CERTIFICATE-----")]);
    let file = || Some("pem".to_owned());
    let args = |aggregators: &[&str]| SettingArgs {
        aggregator: aggregators.iter().map(|text| (*text).to_owned()).collect(),
        ca_file: file(),
        cert_file: file(),
        key_file: file(),
        ..SettingArgs::default()
    };
    let here = "http://127.0.0.1:7640";
    for in_vain in [args(&[]), args(&[here]), args(&[here, "http://localhost"])] {
        let faults = Config::read(&in_vain, &around).unwrap_err();
        for name in ["--ca-file", "--cert-file", "--key-file"] {
            assert!(faults.iter().any(|fault| fault.starts_with(name)), "{name}: {faults:?}");
        }
        assert_eq!(faults.len(), 3, "{faults:?}");
    }
    assert!(Config::read(&args(&[here, "https://a.example"]), &around).is_ok());
    let join = |aggregator: &str| JoinArgs {
        aggregator: aggregator.to_owned(),
        ca_file: Some("pem".into()),
        token_file: "token".into(),
        insecure_plaintext_beyond_loopback: false,
    };
    let faults = join(here).read(&around).unwrap_err();
    assert!(faults.len() == 1 && faults[0].starts_with("--ca-file"), "{faults:?}");
    assert!(join("https://a.example").read(&around).is_ok());
    let absent = JoinArgs { ca_file: Some("absent".into()), ..join("https://a.example") };
    assert_eq!(absent.read(&around).unwrap_err().len(), 1);
}

#[test]
fn every_fault_is_named_at_once_and_no_secret_is_printed() {
    let around = Given(&[("config", "spool_bytes_max = 5\nsubnets = [\"x\"]\n")]);
    let args = SettingArgs {
        config: Some("config".into()),
        subnet_tag: vec!["a)(b".into()],
        aggregator: vec!["ftp://x".into()],
        metrics_addr: Some("0.0.0.0:1".into()),
        sources: Some("market,moon".into()),
        yagna_url: Some("ftp://x".into()),
        cert_file: Some("config".into()),
        answer_timeout_ms: Some("0".into()),
        token_file: Some("absent".into()),
        ..SettingArgs::default()
    };
    let faults = Config::read(&args, &around).unwrap_err();
    let names = [
        "YAGNA_APPKEY",
        "subnet-tag",
        "aggregator",
        "metrics-addr",
        "moon",
        "yagna-url",
        "--cert-file: config has nothing",
        "answer-timeout-ms",
        "token-file",
        "spool-bytes-max",
        "\"subnets\"",
    ];
    for name in names {
        assert!(faults.iter().any(|fault| fault.contains(name)), "{name}: {faults:?}");
    }
    assert_eq!(faults.len(), names.len(), "{faults:?}");

    let around = Given(&[("YAGNA_APPKEY", "sesame-key"), ("UPTIME_TOKEN", "sesame-token")]);
    let config = Config::read(&SettingArgs::default(), &around).unwrap();
    assert!(!format!("{config:?}").contains("sesame"));
}
