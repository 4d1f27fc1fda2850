//! VictoriaMetrics: lines of JSON over HTTP, flushed and merged on its own orders.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tempfile::TempDir;

use super::http::{Http, free_address, wait_for};
use super::samples::{Question, Stretch};
use super::{Answer, Peer, bytes_below, installed};
use crate::process::Running;
use crate::report::on_disk;

/// Bytes of one request, about.
const REQUEST_BYTES: usize = 16_000_000;
/// How long flushing and merging may take.
const MERGED_WITHIN: Duration = Duration::from_secs(600);

pub(super) struct VictoriaMetrics {
    running: Running,
    http: Http,
    directory: TempDir,
}

impl VictoriaMetrics {
    pub(super) fn open() -> anyhow::Result<Self> {
        let directory = on_disk()?;
        let address = free_address()?;
        let mut command = Command::new(installed("victoria-metrics")?);
        command
            .arg(format!("-storageDataPath={}", directory.path().join("data").display()))
            .arg(format!("-httpListenAddr={address}"))
            // The same question is asked more than once, and is to be worked for each time.
            .args(["-retentionPeriod=100y", "-search.disableCache"]);
        let log = directory.path().join("victoria-metrics.log");
        let mut running = Running::spawn(&mut command, &log)?;
        let http = Http::to(&address)?;
        http.wait_ready("/health", &mut running)
            .with_context(|| format!("see {}", log.display()))?;
        Ok(Self { running, http, directory })
    }
}

impl Peer for VictoriaMetrics {
    fn take_in(&mut self, stretch: &Stretch) -> anyhow::Result<Duration> {
        let mut took = Duration::ZERO;
        for piece in stretch.json_lines(REQUEST_BYTES)? {
            let started = Instant::now();
            self.http.post("/api/v1/import", piece)?;
            took += started.elapsed();
        }
        Ok(took)
    }

    fn settle(&mut self, observations: u64, compact: bool) -> anyhow::Result<()> {
        let Self { running, http, .. } = self;
        http.get("/internal/force_flush", &[])?;
        let sum = |begins: &str| anyhow::Ok(http.metric(begins)?.unwrap_or_default());
        let ignored = sum("vm_rows_ignored_total{")?;
        ensure!(ignored == 0.0, "{ignored} samples were ignored; is the machine's clock right?");
        wait_for("all samples", running, MERGED_WITHIN, || {
            let stored = sum("vm_rows{type=\"storage/")?;
            ensure!(stored >= observations as f64, "{stored} samples of {observations}");
            Ok(Some(()))
        })?;
        if compact {
            // All samples are of one month, which is one partition, and is to become one part. What
            // is being merged already is left out by a forced merge, so there may be another.
            wait_for("its merge", running, MERGED_WITHIN, || {
                let parts = sum("vm_parts{type=\"storage/")?;
                let merges = sum("vm_active_merges{")? + sum("vm_active_force_merges ")?;
                if merges == 0.0 && parts > 1.0 {
                    http.get("/internal/force_merge", &[])?;
                }
                ensure!(merges == 0.0 && parts <= 1.0, "{merges} merges, {parts} parts");
                Ok(Some(()))
            })?;
        }
        let stored = sum("vm_rows{type=\"storage/")?;
        let exact = (stored - observations as f64).abs() < 0.5;
        ensure!(exact, "{stored} samples were stored, not {observations}");
        Ok(())
    }

    fn stored_bytes(&mut self) -> anyhow::Result<u64> {
        let data = self.directory.path().join("data");
        Ok(bytes_below(&data.join("data"))? + bytes_below(&data.join("indexdb"))?)
    }

    fn uptimes(&mut self, question: &Question) -> anyhow::Result<Answer> {
        let in_round = |series: &str| format!("last_over_time({series}[29s])");
        self.http.ask(&question.promql(in_round))
    }

    fn round_trip(&mut self) -> anyhow::Result<Duration> {
        self.http.round_trip()
    }
}
