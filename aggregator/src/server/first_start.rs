//! The first start in a data directory, which makes the store.
//!
//! Owns the question whether that is meant: a table full of nodes is never replaced by the empty
//! one of a new store. Refuses to make anything.

use std::io::{BufRead, BufReader, ErrorKind};
use std::path::Path;

use anyhow::Context;

use super::listener;
use crate::config::Config;
use crate::publish::PublishedCsv;

/// What is configured cannot be meant; nothing was done.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Misconfigured(pub String);

/// Fails where the CSV has rows: they are of another store.
pub(super) fn empties_no_csv(config: &Config) -> Result<(), Misconfigured> {
    if !has_rows(&config.csv) {
        return Ok(());
    }
    let store = std::path::absolute(&config.data_dir).unwrap_or_else(|_| config.data_dir.clone());
    Err(Misconfigured(format!(
        "{csv} lists nodes, and the store in {store} is new and knows none: serve would put an \
         empty table in its place. If the store is elsewhere, name its directory with --data-dir; \
         if it is lost, restore a backup (uptime-aggregator restore --help); if the file is of the \
         script this replaces, take its totals over (uptime-aggregator import-csv --help); to \
         begin anew, move the file away or choose another with --csv",
        csv = config.csv.display(),
        store = store.display()
    )))
}

/// Fails where the CSV can never be written; of a full disk nothing is known yet.
pub(super) fn csv_can_be_written(csv: &PublishedCsv) -> Result<(), Misconfigured> {
    match csv.try_out() {
        Err(error) if error.kind() != ErrorKind::StorageFull => Err(Misconfigured(format!(
            "--csv: the CSV cannot be written: {error}; name a file in a directory that is there \
             and that this user may write"
        ))),
        _ => Ok(()),
    }
}

/// Whether a table has more than its header.
fn has_rows(csv: &Path) -> bool {
    let Ok(file) = std::fs::File::open(csv) else { return false };
    BufReader::new(file).lines().map_while(Result::ok).take(2).count() > 1
}

/// What `check` says where there is no store.
pub(super) fn check(config: &Config) -> anyhow::Result<String> {
    empties_no_csv(config)?;
    // Where it is in the data directory, that is made first.
    if config.csv.parent() != Some(&config.data_dir) {
        csv_can_be_written(&PublishedCsv { path: config.csv.clone(), seed: None })?;
    }
    for (name, addr) in [("grpc-addr", config.grpc_addr), ("http-addr", config.http_addr)] {
        listener::bind(addr)
            .with_context(|| format!("cannot bind {addr}; choose another with --{name}"))?;
    }
    Ok(format!(
        "no store in {} yet; serve creates it; gRPC {} and HTTP {} are free",
        config.data_dir.display(),
        config.grpc_addr,
        config.http_addr
    ))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::config::SettingArgs;

    #[test]
    fn a_full_table_is_not_replaced_by_that_of_a_new_store() {
        let directory = tempfile::tempdir().unwrap();
        let csv = directory.path().join("nodes_status.csv");
        let args = SettingArgs {
            data_dir: Some(directory.path().display().to_string()),
            ..SettingArgs::default()
        };
        let config = Config::read(&args).unwrap();
        empties_no_csv(&config).unwrap();
        std::fs::write(&csv, "issuer_id,is_online\n").unwrap();
        empties_no_csv(&config).unwrap();
        std::fs::write(&csv, "issuer_id,is_online\n0xaa,True\n").unwrap();
        let fault = empties_no_csv(&config).unwrap_err().to_string();
        for wanted in ["nodes_status.csv", "--data-dir", "restore", "import-csv", "--csv"] {
            assert!(fault.contains(wanted), "{fault}");
        }
    }
}
