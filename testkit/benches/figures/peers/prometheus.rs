//! Prometheus: blocks made by promtool, served and compacted by the server.

use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tempfile::TempDir;

use super::http::{Http, free_address, wait_for};
use super::samples::{Question, Stretch};
use super::{Answer, Peer, bytes_below, installed};
use crate::process::Running;
use crate::report::on_disk;

/// It looks for blocks to compact once a minute, and compacts all it finds before it looks again.
/// Two looks take two minutes, and what is done between them as long as it takes.
const COMPACTED_WITHIN: Duration = Duration::from_secs(1_200);
/// No sample is older than the round it is asked for.
const LOOK_BACK: &str = "--query.lookback-delta=29s";

pub(super) struct Prometheus {
    server: Option<(Running, Http)>,
    directory: TempDir,
}

impl Prometheus {
    pub(super) fn open() -> anyhow::Result<Self> {
        Ok(Self { server: None, directory: on_disk()? })
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn serve(&self) -> anyhow::Result<(Running, Http)> {
        let settings = self.directory.path().join("prometheus.yml");
        std::fs::write(&settings, "global: {}\n")?;
        let address = free_address()?;
        let mut command = Command::new(installed("prometheus")?);
        command
            .arg(format!("--config.file={}", settings.display()))
            .arg(format!("--storage.tsdb.path={}", self.data().display()))
            .arg(format!("--web.listen-address={address}"))
            .args(["--storage.tsdb.retention.time=100y", LOOK_BACK]);
        let log = self.directory.path().join("prometheus.log");
        let mut running = Running::spawn(&mut command, &log)?;
        let http = Http::to(&address)?;
        http.wait_ready("/-/ready", &mut running)
            .with_context(|| format!("see {}", log.display()))?;
        Ok((running, http))
    }

    fn blocks(&self) -> anyhow::Result<Vec<PathBuf>> {
        let mut blocks = Vec::new();
        for entry in std::fs::read_dir(self.data())? {
            let path = entry?.path();
            if path.join("meta.json").is_file() {
                blocks.push(path);
            }
        }
        Ok(blocks)
    }
}

fn samples_of(block: &Path) -> anyhow::Result<u64> {
    let meta = std::fs::read_to_string(block.join("meta.json"))?;
    let meta: serde_json::Value = serde_json::from_str(&meta)?;
    meta["stats"]["numSamples"].as_u64().context("a block without a number of samples")
}

impl Peer for Prometheus {
    fn take_in(&mut self, stretch: &Stretch) -> anyhow::Result<Duration> {
        let text = self.directory.path().join("stretch.om");
        let mut file = BufWriter::new(std::fs::File::create(&text)?);
        stretch.open_metrics(&mut file)?;
        file.into_inner()?;
        let mut command = Command::new(installed("promtool")?);
        command.args(["tsdb", "create-blocks-from", "openmetrics"]).arg(&text).arg(self.data());
        let started = Instant::now();
        let output = command.output()?;
        let took = started.elapsed();
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "promtool: {}", said.trim_end());
        std::fs::remove_file(&text)?;
        Ok(took)
    }

    fn settle(&mut self, observations: u64, compact: bool) -> anyhow::Result<()> {
        let (mut running, http) = self.serve()?;
        if compact {
            // Compaction is over when the look after the first begins.
            let looks = "prometheus_tsdb_compactions_triggered_total ";
            wait_for("its compaction", &mut running, COMPACTED_WITHIN, || {
                Ok(http.metric(looks)?.filter(|looks| *looks >= 2.0))
            })?;
            let failed = http.metric("prometheus_tsdb_compactions_failed_total ")?;
            ensure!(failed == Some(0.0), "compactions failed: {failed:?}");
        }
        let mut stored = 0;
        for block in self.blocks()? {
            stored += samples_of(&block)?;
        }
        ensure!(stored == observations, "{stored} samples were stored, not {observations}");
        self.server = Some((running, http));
        Ok(())
    }

    fn stored_bytes(&mut self) -> anyhow::Result<u64> {
        self.blocks()?.iter().map(|block| bytes_below(block)).sum()
    }

    fn uptimes(&mut self, question: &Question) -> anyhow::Result<Answer> {
        let (_, http) = self.server.as_ref().context("it was not started")?;
        http.ask(&question.promql(str::to_owned))
    }

    fn round_trip(&mut self) -> anyhow::Result<Duration> {
        let (_, http) = self.server.as_ref().context("it was not started")?;
        http.round_trip()
    }
}
