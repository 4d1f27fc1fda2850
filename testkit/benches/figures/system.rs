//! A whole system in real time: the shipped aggregator and three shipped probes, each beside a fake
//! yagna.
//!
//! Owns how they are started and ended. Refuses to measure.

use std::time::Duration;

use tempfile::TempDir;
use uptime_testkit::fake_yagna::{Daemon, DaemonOptions, World};

use super::process::{APP_KEY, Aggregator, Running, probe_log, start_probe};
use super::report::on_disk;

pub(crate) const PROBES: usize = 3;

pub(crate) struct System {
    pub(crate) aggregator: Aggregator,
    pub(crate) probes: Vec<Running>,
    pub(crate) daemons: Vec<Daemon>,
    directory: TempDir,
}

impl System {
    /// Starts everything. The daemons are as those that have talked to everybody for a while: each
    /// has a channel to every node.
    pub(crate) async fn start(world: &World, period_s: u32) -> anyhow::Result<Self> {
        let period = period_s.to_string();
        let settings = ["--round-period-s", period.as_str()];
        let aggregator = Aggregator::serve(on_disk()?, PROBES, &settings).await?;
        let directory = on_disk()?;
        let (mut daemons, mut probes) = (Vec::new(), Vec::new());
        for number in 0..PROBES {
            let options = DaemonOptions {
                app_key: APP_KEY.to_owned(),
                gossips: true,
                relay_session_age: Duration::from_secs(3_600),
                ..DaemonOptions::default()
            };
            let daemon = Daemon::start(world.clone(), options).await?;
            probes.push(start_probe(&aggregator, number, &daemon.base_url(), directory.path())?);
            daemons.push(daemon);
        }
        Ok(Self { aggregator, probes, daemons, directory })
    }

    /// The log of one probe; the others say the same in turn.
    pub(crate) fn log_of_a_probe(&self) -> String {
        std::fs::read_to_string(probe_log(self.directory.path(), 0)).unwrap_or_default()
    }

    /// Asks all programs to end.
    pub(crate) fn terminate(self) -> anyhow::Result<()> {
        for probe in self.probes {
            probe.terminate()?;
        }
        self.aggregator.terminate()
    }
}
