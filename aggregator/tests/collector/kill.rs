//! The aggregator killed without notice: nothing acknowledged is lost, nothing counts twice.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use tonic::transport::Channel;
use uptime_aggregator::store::{FactLog, SqliteStore};
use uptime_proto::v1::collector_client::CollectorClient;
use uptime_proto::v1::{self, ReportStatus};

use super::fixture::{PERIOD_S, enrol, with_token};
use super::program::{Serving, serve_command};
use super::reports::{ids, market, report, round_now_s};

async fn serve(data_dir: &Path) -> (Serving, CollectorClient<Channel>) {
    let mut command = serve_command(&[], data_dir);
    let serving = Serving::start(command.env("UPTIME_LOG", "error")).await;
    let address = format!("http://{}", serving.grpc);
    let channel = Channel::from_shared(address).unwrap().connect().await.unwrap();
    (serving, CollectorClient::new(channel))
}

/// Part `index` of this run, always the same.
fn part(index: u64, base_s: u64) -> v1::Part {
    let mut part = market(u32::try_from(index % 8).unwrap(), ids(0, 50));
    part.round_unix_s = base_s - (40 + index / 8) * PERIOD_S;
    part.observed_at_unix_ms = i64::try_from(part.round_unix_s * 1000).unwrap() + 7;
    part
}

/// Whatever the moment, the file that readers see is whole.
fn check_csv(data_dir: &Path) {
    let Ok(text) = std::fs::read_to_string(data_dir.join("nodes_status.csv")) else { return };
    assert!(text.starts_with("issuer_id,is_online,") && text.ends_with('\n'), "{text}");
    assert!(text.lines().all(|row| row.split(',').count() == 5), "{text}");
}

#[tokio::test]
async fn killed_at_any_moment_it_loses_nothing_and_counts_nothing_twice() {
    killed(6).await;
}

#[tokio::test]
async fn long_killed_hundreds_of_times_it_loses_nothing_and_counts_nothing_twice() {
    killed(400).await;
}

async fn killed(kills: u64) {
    let directory = tempfile::tempdir().unwrap();
    let token = enrol(directory.path(), "alpha", &[]).await;
    let base_s = round_now_s();
    let mut acknowledged = 0u64;
    for kill in 0..kills {
        let (mut serving, collector) = serve(directory.path()).await;
        let submit = |index| {
            let mut collector = collector.clone();
            let parts = report(vec![part(index, base_s)]);
            let request = with_token(v1::SubmitRequest { reports: vec![parts] }, &token);
            async move { collector.submit(request).await }
        };
        for _ in 0..=(kill * 7) % 23 {
            let status = submit(acknowledged).await.unwrap().into_inner().results[0].status;
            assert!(
                status == ReportStatus::Accepted as i32 || status == ReportStatus::Duplicate as i32
            );
            acknowledged += 1;
        }
        // Kill it while it works on the next one, at a moment that differs from time to time.
        let moment = Duration::from_micros((kill * 379) % 3_000);
        let killed = async {
            tokio::time::sleep(moment).await;
            serving.kill().await;
        };
        let (last, ()) = tokio::join!(submit(acknowledged), killed);
        acknowledged += u64::from(last.is_ok());
        check_csv(directory.path());
    }
    assert!(acknowledged > 0, "nothing was ever acknowledged");
    let mut store = SqliteStore::open(directory.path()).await.unwrap();
    let stored = store.read(0, base_s + 1).await.unwrap();
    let mut keys: BTreeMap<_, u64> = BTreeMap::new();
    for fact in stored {
        *keys.entry(fact.unwrap().key).or_default() += 1;
    }
    assert!(keys.values().all(|count| *count == 1), "a key is stored twice");
    // The last one sent may be stored and not acknowledged.
    let stored = keys.len() as u64;
    assert!(stored == acknowledged || stored == acknowledged + 1, "{stored} {acknowledged}");
}
