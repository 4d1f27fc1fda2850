//! The way to the aggregator, from the command line and the environment.
//!
//! Owns reading the files it names. All faults are told at once; no secret stands on a command
//! line, where every user of the host could read it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use uptime_client::{Options, Tls, Token};
use uptime_proto::address::{AddressFault, Plaintext, Scheme, scheme};

use crate::output::Misuse;
use crate::time_argument::duration;

/// The longest timeout.
const TIMEOUT_S_MAX: u64 = 3_600;
/// Where a token may stand instead of in a file.
const TOKEN_VARIABLE: &str = "UPTIME_TOKEN";

/// Arguments that every question has.
#[derive(Debug, Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct ConnectionArgs {
    /// The aggregator: https://HOST:PORT, or http://HOST:PORT on this host
    #[arg(
        long,
        global = true,
        env = "UPTIME_ADDRESS",
        value_name = "URL",
        default_value = "http://127.0.0.1:7640"
    )]
    address: String,
    /// How long to wait for an answer
    #[arg(
        long,
        global = true,
        env = "UPTIME_TIMEOUT",
        value_name = "DURATION",
        default_value = "30s",
        value_parser = timeout
    )]
    timeout: Duration,
    /// File with the access token, instead of UPTIME_TOKEN
    #[arg(long, global = true, env = "UPTIME_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// CA certificates (PEM) to trust for https [default: the system's]
    #[arg(long, global = true, env = "UPTIME_CA_FILE", value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Client certificate chain (PEM)
    #[arg(long, global = true, env = "UPTIME_CERT_FILE", value_name = "FILE")]
    cert_file: Option<PathBuf>,
    /// Private key of the client certificate (PEM)
    #[arg(long, global = true, env = "UPTIME_KEY_FILE", value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Use http to other hosts, too: anyone on the way can read the token and forge answers
    #[arg(long, global = true)]
    insecure_plaintext_beyond_loopback: bool,
}

fn timeout(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        seconds @ 1..=TIMEOUT_S_MAX => Ok(Duration::from_secs(seconds)),
        _ => Err("1s to 1h are taken".to_owned()),
    }
}

impl ConnectionArgs {
    /// What they say.
    pub(crate) fn options(&self) -> Result<Options, Misuse> {
        let variable = std::env::var_os(TOKEN_VARIABLE);
        self.read(variable.map(|text| text.to_string_lossy().into_owned()))
    }

    fn read(&self, token: Option<String>) -> Result<Options, Misuse> {
        let mut faults = Vec::new();
        let mut read = |name: &str, path: Option<&Path>, pem: bool| {
            let path = path?;
            let fault = match std::fs::read_to_string(path) {
                Ok(text) if !pem || text.contains("-----BEGIN") => return Some(text),
                Ok(_) => format!("{name}: {} has nothing in PEM form", path.display()),
                Err(error) => format!("{name}: {}: {error}", path.display()),
            };
            faults.push(fault);
            None
        };
        let ca = read("--ca-file", self.ca_file.as_deref(), true);
        let cert = read("--cert-file", self.cert_file.as_deref(), true);
        let key = read("--key-file", self.key_file.as_deref(), true);
        let token = match &self.token_file {
            Some(path) => read("--token-file", Some(path), false),
            None => token,
        };
        if self.cert_file.is_some() != self.key_file.is_some() {
            faults.push("--cert-file and --key-file are of use only together".to_owned());
        }
        faults.extend(self.plaintext_faults());
        let mut options = Options::new(self.address.clone())
            .answer_within(self.timeout)
            .tls(Tls::new(ca, cert.zip(key)));
        if self.insecure_plaintext_beyond_loopback {
            options = options.insecure_plaintext_beyond_loopback();
        }
        match token.as_deref().map(Token::new) {
            Some(Ok(token)) => options = options.token(token),
            Some(Err(fault)) => faults.push(match &self.token_file {
                Some(path) => format!("--token-file: {}: {fault}", path.display()),
                None => format!("{TOKEN_VARIABLE}: {fault}"),
            }),
            None => {}
        }
        if faults.is_empty() { Ok(options) } else { Err(Misuse(faults.join("\n"))) }
    }

    /// What must not be said in plaintext, and what is of no use there.
    fn plaintext_faults(&self) -> Vec<String> {
        let address = &self.address;
        let plaintext = match self.insecure_plaintext_beyond_loopback {
            true => Plaintext::Anywhere,
            false => Plaintext::Loopback,
        };
        let files = [
            ("--ca-file", &self.ca_file),
            ("--cert-file", &self.cert_file),
            ("--key-file", &self.key_file),
        ];
        let in_vain = |(name, file): (&str, &Option<PathBuf>)| {
            file.as_ref()?;
            Some(format!(
                "{name}: certificates are looked at over TLS only, and {address} does not begin \
                 with https://: give an address that does, or leave {name} out"
            ))
        };
        match scheme(address, plaintext) {
            Ok(Scheme::Http) => files.into_iter().filter_map(in_vain).collect(),
            Err(fault @ AddressFault::Plaintext) => vec![format!(
                "--address: {address:?}: {fault}: give its https:// address, or that of a \
                 tunnel's end on this host, or say --insecure-plaintext-beyond-loopback"
            )],
            Ok(Scheme::Https) | Err(AddressFault::Malformed) => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Asked {
        #[command(flatten)]
        connection: ConnectionArgs,
    }

    fn args(words: &[&str]) -> Result<ConnectionArgs, String> {
        let asked = Asked::try_parse_from(["asked"].iter().chain(words));
        asked.map(|asked| asked.connection).map_err(|error| error.to_string())
    }

    #[test]
    fn all_faults_are_told_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.pem");
        std::fs::write(&path, "no certificate").unwrap();
        let address = ["--address", "https://a.example"];
        let words = ["--ca-file", path.to_str().unwrap(), "--cert-file", "/nonexistent"];
        let words = [&address[..], &words[..]].concat();
        let faults = args(&words).unwrap().read(Some("a\nb".into())).unwrap_err().0;
        for words in ["has nothing in PEM form", "/nonexistent: ", "only together", "UPTIME_TOKEN"]
        {
            assert!(faults.contains(words), "{words}: {faults}");
        }
        assert_eq!(faults.lines().count(), 4, "{faults}");
    }

    #[test]
    fn plaintext_stays_on_this_host_and_takes_no_certificates() {
        let faults = |words: &[&str]| args(words).unwrap().read(None).map_err(|misuse| misuse.0);
        let plain = ["--address", "http://192.0.2.1:7640"];
        let refused = faults(&plain).unwrap_err();
        for words in ["--address", "plaintext", "--insecure-plaintext-beyond-loopback"] {
            assert!(refused.contains(words), "{words}: {refused}");
        }
        assert!(faults(&[plain[0], plain[1], "--insecure-plaintext-beyond-loopback"]).is_ok());
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.pem");
        std::fs::write(&path, "-----BEGIN CERTIFICATE-----").unwrap();
        let ca = ["--ca-file", path.to_str().unwrap()];
        let refused = faults(&ca).unwrap_err();
        assert!(refused.starts_with("--ca-file: certificates"), "{refused}");
        assert!(faults(&[&ca[..], &["--address", "https://a.example"]].concat()).is_ok());
    }

    #[test]
    fn a_file_goes_before_the_variable_and_a_timeout_has_bounds() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        std::fs::write(&path, "good\n").unwrap();
        let words = ["--token-file", path.to_str().unwrap()];
        assert!(args(&words).unwrap().read(Some("b\nad".into())).is_ok());
        assert_eq!(args(&["--timeout", "5s"]).unwrap().timeout, Duration::from_secs(5));
        for bad in ["0s", "2h", "5", "soon"] {
            assert!(args(&["--timeout", bad]).is_err(), "{bad}");
        }
    }
}
