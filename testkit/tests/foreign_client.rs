//! A foreign gRPC client, Python's grpcio through reflection, submits a report and reads it back;
//! then the example of docs/querying.md runs.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "../../aggregator/tests/shared/fixture.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared by several test binaries")]
mod aggregator;

use std::path::{Path, PathBuf};

use aggregator::{Aggregator, enrol, settings};
use uptime_aggregator::config::SettingArgs;

/// The Python of deploy/test.sh, with grpcio and its reflection.
fn python() -> PathBuf {
    let prepared = std::env::var_os("UPTIME_PYTHON").map(PathBuf::from).unwrap_or_else(|| {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/python/bin/python")
    });
    assert!(
        prepared.exists(),
        "{} is missing: `sh deploy/test.sh` makes it, or set UPTIME_PYTHON to a Python with the \
         packages of deploy/test-requirements.txt",
        prepared.display()
    );
    prepared
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_submits_by_reflection_and_reads_it_back() {
    let directory = tempfile::tempdir().unwrap();
    let token = enrol(directory.path(), "python", &[]).await;
    let aggregator = Aggregator::start(SettingArgs {
        round_period_s: Some("1".into()),
        grace_s: Some("1".into()),
        ..settings(directory.path())
    });
    let aggregator = aggregator.await;
    let address = aggregator.grpc.to_string();
    let page_address = address.clone();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/foreign_client.py");
    let output = tokio::process::Command::new(python())
        .arg(script)
        .arg(address)
        .env("UPTIME_TOKEN", token)
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let wrong = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{wrong}");
    assert_eq!(
        said,
        "0x000102030405060708090a0b0c0d0e0f10111213 True 1 a node that Python reported \
         ['public']\nfresh-v1 1\n",
        "{wrong}"
    );
    let page =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/querying.md"));
    let page = page.unwrap();
    let example = page.split("```python").nth(1).unwrap().split("```").next().unwrap();
    let output = tokio::process::Command::new(python())
        .arg("-c")
        .arg(example.replace("127.0.0.1:7640", &page_address))
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let wrong = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.starts_with("0x000102030405060708090a0b0c0d0e0f10111213 True 100.0 "),
        "{said}{wrong}"
    );
    aggregator.stop().await;
}
