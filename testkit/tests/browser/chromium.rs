//! Debian's chromium, started for each page with a new profile and without background requests.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::process::Command;

/// The time limit of one page on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// The browser, if it is there.
pub(crate) fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|place| place.join("chromium")).find(|path| path.is_file())
}

/// A page in the browser.
#[derive(Debug)]
pub(crate) struct Look {
    /// The DOM when all was quiet.
    pub(crate) dom: String,
    /// Lines on the console.
    pub(crate) console: Vec<String>,
    /// Addresses that the page asked for.
    pub(crate) asked: Vec<String>,
}

/// A picture to be taken.
pub(crate) struct Shot<'a> {
    pub(crate) name: &'a str,
    pub(crate) path: &'a str,
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) dark: bool,
}

/// Starts it with a fresh profile; answers what it wrote to both ends.
async fn run(profile: &Path, arguments: &[String]) -> (String, String) {
    let running = Command::new(find().unwrap())
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            // Memory that containers are short of.
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            "--enable-logging=stderr",
            // Without this it sends requests to its vendor about every form.
            "--disable-features=AutofillServerCommunication",
            // What the browser wants for itself, and a page at fault, finds nobody.
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            "--virtual-time-budget=8000",
        ])
        .arg(format!("--user-data-dir={}", profile.display()))
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(PATIENCE, running).await;
    let output = output.unwrap_or_else(|_| panic!("not ended after {PATIENCE:?}")).unwrap();
    let (out, err) = (output.stdout, String::from_utf8_lossy(&output.stderr).into_owned());
    assert!(output.status.success(), "{}: {err}", output.status);
    (String::from_utf8_lossy(&out).into_owned(), err)
}

impl Look {
    /// Looks at an address.
    pub(crate) async fn at(address: &str) -> Self {
        let profile = tempfile::tempdir().unwrap();
        let log = profile.path().join("net.json");
        let arguments = [
            format!("--log-net-log={}", log.display()),
            "--dump-dom".to_owned(),
            address.to_owned(),
        ];
        let (dom, err) = run(profile.path(), &arguments).await;
        let console = err.lines().filter(|line| line.contains(":CONSOLE")).map(str::to_owned);
        let asked = addresses(&std::fs::read_to_string(&log).unwrap());
        Self { dom, console: console.collect(), asked }
    }
}

/// Every address that the browser's own log of the net names as a request of a page of ours. What
/// the browser asks for itself (updates, the time) belongs to no site of ours.
fn addresses(log: &str) -> Vec<String> {
    let log: Value = serde_json::from_str(log).unwrap_or_else(|error| panic!("{error}: {log}"));
    let of_page = |params: &Value| {
        let says = |name: &str| {
            params[name].as_str().is_some_and(|text| text.starts_with("http://127.0.0.1"))
        };
        says("initiator") || says("network_isolation_key")
    };
    let events = log["events"].as_array().unwrap().iter().map(|event| &event["params"]);
    let urls = events.filter(|params| of_page(params)).filter_map(|params| params["url"].as_str());
    let mut all: Vec<String> = urls.map(str::to_owned).collect();
    all.sort();
    all.dedup();
    all
}

impl Shot<'_> {
    /// Takes it into `target/browser`; answers its bytes.
    pub(crate) async fn take(&self, origin: &str) -> u64 {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../browser");
        std::fs::create_dir_all(&directory).unwrap();
        let file = directory.join(format!("{}.png", self.name));
        std::fs::remove_file(&file).ok();
        let profile = tempfile::tempdir().unwrap();
        let mut arguments = vec![
            format!("--screenshot={}", file.display()),
            format!("--window-size={},{}", self.width, self.height),
        ];
        if self.dark {
            arguments.push("--blink-settings=preferredColorScheme=0".to_owned());
        }
        arguments.push(format!("{origin}{}", self.path));
        run(profile.path(), &arguments).await;
        std::fs::metadata(&file).unwrap().len()
    }
}
