//! What is asked of a peer's web server, and where it may listen.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use tokio::runtime::Runtime;

use crate::process::Running;

/// How long a peer may take to be ready.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How long it may take to answer. Queries over much data take long.
const ANSWER_WITHIN: Duration = Duration::from_secs(300);
/// It is looked at again so often while it is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A loopback address that nobody listened on a moment ago.
pub(super) fn free_address() -> anyhow::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    Ok(listener.local_addr()?.to_string())
}

/// Tries until something is there, no longer than this. Ends early with the process.
pub(super) fn wait_for<T>(
    what: &str,
    running: &mut Running,
    within: Duration,
    mut attempt: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + within;
    loop {
        let last = match attempt() {
            Ok(Some(there)) => return Ok(there),
            Ok(None) => "not yet".to_owned(),
            Err(error) => format!("{error:#}"),
        };
        if let Some(status) = running.0.try_wait()? {
            bail!("{what}: the process ended, {status}; {last}");
        }
        ensure!(Instant::now() < deadline, "{what} was waited for in vain for {within:?}: {last}");
        std::thread::sleep(LOOK_EVERY);
    }
}

/// A client of one server.
pub(super) struct Http {
    runtime: Runtime,
    client: reqwest::Client,
    base: String,
}

impl Http {
    pub(super) fn to(address: &str) -> anyhow::Result<Self> {
        // Installed already where another client was first.
        rustls::crypto::ring::default_provider().install_default().ok();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let client = reqwest::Client::builder()
            .tls_certs_only([])
            .no_proxy()
            .timeout(ANSWER_WITHIN)
            .build()?;
        Ok(Self { runtime, client, base: format!("http://{address}") })
    }

    fn send(&self, request: reqwest::RequestBuilder) -> anyhow::Result<String> {
        self.runtime.block_on(async {
            let answer = request.send().await?;
            let status = answer.status();
            let text = answer.text().await?;
            ensure!(status.is_success(), "{status}: {}", text.trim_end());
            Ok(text)
        })
    }

    pub(super) fn get(&self, path: &str, query: &[(&str, &str)]) -> anyhow::Result<String> {
        let request = self.client.get(format!("{}{path}", self.base)).query(query);
        self.send(request).with_context(|| path.to_owned())
    }

    pub(super) fn post(&self, path: &str, body: Vec<u8>) -> anyhow::Result<String> {
        let request = self.client.post(format!("{}{path}", self.base)).body(body);
        self.send(request).with_context(|| path.to_owned())
    }

    /// Waits until a page answers.
    pub(super) fn wait_ready(&self, path: &str, running: &mut Running) -> anyhow::Result<()> {
        wait_for(path, running, READY_WITHIN, || self.get(path, &[]).map(Some))?;
        Ok(())
    }

    /// The sum over all series of the peer's own metrics whose names and labels begin so.
    pub(super) fn metric(&self, begins: &str) -> anyhow::Result<Option<f64>> {
        let page = self.get("/metrics", &[])?;
        let lines = page.lines().filter(|line| line.starts_with(begins));
        let values = lines.filter_map(|line| line.rsplit_once(' '));
        let values: Vec<f64> =
            values.map(|(_, value)| value.parse()).collect::<Result<_, _>>().context("a metric")?;
        Ok((!values.is_empty()).then(|| values.iter().sum()))
    }

    /// How long it takes to ask for nothing.
    pub(super) fn round_trip(&self) -> anyhow::Result<Duration> {
        let started = Instant::now();
        self.get("/api/v1/query", &[("query", "vector(1)")])?;
        Ok(started.elapsed())
    }

    /// Asks a question at a moment; answers what came of it for each node, and how long it took.
    pub(super) fn ask(
        &self,
        (query, time): &(String, String),
    ) -> anyhow::Result<(BTreeMap<String, f64>, Duration)> {
        let started = Instant::now();
        let text = self.get("/api/v1/query", &[("query", query), ("time", time)])?;
        let took = started.elapsed();
        let answer: serde_json::Value = serde_json::from_str(&text)?;
        let all = answer["data"]["result"].as_array().context("no result")?;
        let one = |row: &serde_json::Value| {
            let node = row["metric"]["node"].as_str()?.to_owned();
            Some((node, row["value"][1].as_str()?.parse().ok()?))
        };
        let by_node: Option<BTreeMap<String, f64>> = all.iter().map(one).collect();
        Ok((by_node.with_context(|| format!("not as expected: {query}"))?, took))
    }
}
