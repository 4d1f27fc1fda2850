//! `import-csv`: the totals of the script this project replaces become the opening balance.
//!
//! Owns the command: which files it reads, what it tells, and when it refuses to write. Refuses to
//! import anything of a file with a fault, to replace a balance unasked, and to work in a data
//! directory that a serving aggregator has: that one read the balance when it started.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono_tz::Tz;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::TransferError;
use super::seed_file::{Faults, Limits, Notice, SeedFile, Terms, read, read_scan_count};
use super::stamp::Reading;
use crate::disk::default_data_dir;
use crate::lock::{DirectoryLock, LockError};
use crate::publish::utc_stamp;
use crate::store::{Opening, Registry, SqliteStore, StoreError};

/// A number and some white space.
const SCAN_COUNT_FILE_BYTES_MAX: u64 = 64;
/// How often what is being done is drawn on a terminal.
const TICK: Duration = Duration::from_millis(100);

/// Options of `import-csv`.
#[derive(Debug, Clone, Args)]
pub struct ImportArgs {
    /// The nodes_status.csv to import
    pub file: PathBuf,
    /// Number of scans the script made
    #[arg(long, value_name = "N", conflicts_with = "scan_count_file")]
    pub scan_count: Option<u64>,
    /// File with the number of scans [default: scan_count.txt beside FILE]
    #[arg(long, value_name = "FILE")]
    pub scan_count_file: Option<PathBuf>,
    /// Time zone of the host that wrote the CSV, for example Europe/Warsaw or UTC
    #[arg(long, value_name = "ZONE", value_parser = time_zone)]
    pub time_zone: Tz,
    /// Subnet the script scanned; only a CSV of this subnet adds the totals
    #[arg(long, value_name = "NAME")]
    pub subnet: Option<String>,
    /// Data directory [default: ./uptime-data]
    #[arg(long, env = "UPTIME_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Replace the previous import
    #[arg(long)]
    pub replace: bool,
    /// Check the files and write nothing; the data directory is not read
    #[arg(long)]
    pub dry_run: bool,
}

fn time_zone(name: &str) -> Result<Tz, String> {
    name.parse()
        .map_err(|_| "unknown time zone; `timedatectl list-timezones` lists them".to_owned())
}

/// Imports, and tells on `out` what was mended and what was done.
///
/// # Errors
/// With what is wrong; then nothing was written.
pub async fn import_csv(
    args: &ImportArgs,
    now_ms: i64,
    out: &mut (impl Write + Send),
) -> Result<(), TransferError> {
    let scan_count = scan_count(args)?;
    let terms = Terms { scan_count, zone: args.time_zone, now_ms, limits: Limits::default() };
    let bytes = read_bounded(&args.file, terms.limits.file_bytes_max)?;
    let file = read_with_progress(&bytes, &terms)
        .map_err(|faults| faulty(&args.file, &faults, &terms.limits))?;
    drop(bytes);
    report(args, &terms, &file, out).map_err(super::written)?;
    let opening = Opening {
        imported_at_ms: now_ms,
        scan_count,
        time_zone: args.time_zone.name().to_owned(),
        subnet: args.subnet.clone(),
        rows: file.rows,
    };
    let done = if args.dry_run {
        "dry run: nothing was written".to_owned()
    } else {
        store(args, &opening).await?
    };
    writeln!(out, "{done}").map_err(super::written)
}

fn scan_count(args: &ImportArgs) -> Result<u64, TransferError> {
    if let Some(count) = args.scan_count {
        let text = count.to_string();
        return read_scan_count(&text)
            .map_err(|fault| TransferError::Usage(format!("--scan-count: {fault}")));
    }
    let beside = || args.file.with_file_name("scan_count.txt");
    let path = args.scan_count_file.clone().unwrap_or_else(beside);
    let hint = "without it nothing says of how many scans the counts are: give its number with \
                --scan-count, or the file with --scan-count-file";
    let fault = |detail| TransferError::File { path: path.clone(), detail };
    let bytes = match read_bounded(&path, SCAN_COUNT_FILE_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(TransferError::File { detail, .. }) => return Err(fault(format!("{detail}; {hint}"))),
        Err(other) => return Err(other),
    };
    read_scan_count(&String::from_utf8_lossy(&bytes)).map_err(fault)
}

fn read_bounded(path: &Path, bytes_max: u64) -> Result<Vec<u8>, TransferError> {
    let fault = |detail| TransferError::File { path: path.to_owned(), detail };
    let cannot = |error: io::Error| fault(format!("cannot be read: {error}"));
    let file = File::open(path).map_err(cannot)?;
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > bytes_max {
        return Err(fault(format!("longer than {bytes_max} bytes")));
    }
    Ok(bytes)
}

/// On a terminal a bar shows how far it is; in a pipe nothing is drawn.
fn read_with_progress(bytes: &[u8], terms: &Terms) -> Result<SeedFile, Faults> {
    let bar = ProgressBar::new(bytes.len() as u64);
    if let Ok(style) = ProgressStyle::with_template("reading {wide_bar} {bytes}/{total_bytes}") {
        bar.set_style(style);
    }
    let file = read(bytes, terms, |behind| bar.set_position(behind));
    bar.finish_and_clear();
    file
}

fn faulty(path: &Path, faults: &Faults, limits: &Limits) -> TransferError {
    let mut detail = String::new();
    for fault in &faults.listed {
        detail.push_str(&format!("\n  {fault}"));
    }
    if faults.count > faults.listed.len() as u64 {
        detail.push_str(&format!("\n  … the first {} of them", limits.faults_listed_max));
    }
    let detail = format!("nothing was imported; faults: {}{detail}", faults.count);
    TransferError::File { path: path.to_owned(), detail }
}

fn report(
    args: &ImportArgs,
    terms: &Terms,
    file: &SeedFile,
    out: &mut impl Write,
) -> io::Result<()> {
    let (mut clamped, mut twice, mut skipped) = (0u64, 0u64, 0u64);
    for (line, id, notice) in &file.notices {
        match notice {
            Notice::Clamped { from, to } => {
                clamped += 1;
                writeln!(out, "line {line}: {id}: total_online_scans {from} taken for {to}")?;
            }
            Notice::Resolved { text, reading, unix_ms } => {
                let why = if *reading == Reading::Skipped {
                    skipped += 1;
                    "the clock skipped it; moved forward"
                } else {
                    twice += 1;
                    "the clock showed it twice; the earlier"
                };
                let utc = utc_stamp(*unix_ms);
                writeln!(out, "line {line}: {id}: last_seen {text} taken for {utc}: {why}")?;
            }
        }
    }
    writeln!(
        out,
        "{}: {} nodes, {} scans, stamps in {}; counts clamped: {clamped}, stamps that the clock \
         showed twice: {twice}, that it skipped: {skipped}",
        args.file.display(),
        file.rows.len(),
        terms.scan_count,
        terms.zone
    )
}

async fn store(args: &ImportArgs, opening: &Opening) -> Result<String, TransferError> {
    let data_dir = args.data_dir.clone().unwrap_or_else(default_data_dir);
    let cannot = |error| TransferError::File { path: data_dir.clone(), detail: format!("{error}") };
    std::fs::create_dir_all(&data_dir).map_err(cannot)?;
    // Before anything in it is looked at, let alone made.
    let _lock = DirectoryLock::take(&data_dir).map_err(|error| match error {
        LockError::Held(path) => TransferError::Refused(format!(
            "{} is in use by a serving aggregator, which would not take note: stop it, import, \
             and start it again",
            path.display()
        )),
        other => other.into(),
    })?;
    let mut store = if SqliteStore::exists(&data_dir) {
        SqliteStore::open_existing(&data_dir).await?
    } else {
        SqliteStore::open(&data_dir).await?
    };
    let before = match store.opening().await {
        Ok(before) => before.map(|before| described(&before)),
        // What is damaged can be replaced like anything else.
        Err(StoreError::Damaged(what)) => Some(format!("a balance that is damaged ({what})")),
        Err(other) => return Err(other.into()),
    };
    if let Some(before) = before.as_ref().filter(|_| !args.replace) {
        return Err(TransferError::Refused(format!(
            "{} already has {before}; to put this in its place say --replace",
            data_dir.display()
        )));
    }
    let spinner = ProgressBar::new_spinner().with_message("storing");
    spinner.enable_steady_tick(TICK);
    let put = store.put_opening(opening).await;
    spinner.finish_and_clear();
    put?;
    let replaced = before.map_or_else(String::new, |before| format!(", in the place of {before}"));
    Ok(format!("imported into {}{replaced}", data_dir.display()))
}

fn described(opening: &Opening) -> String {
    format!(
        "an opening balance of {} nodes and {} scans, imported {}",
        opening.rows.len(),
        opening.scan_count,
        utc_stamp(opening.imported_at_ms)
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    const NOW_MS: i64 = 1_800_000_000_000;
    const FILE: &str = "issuer_id,is_online,last_seen,total_online_scans,uptime\r\n\
        0xbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb,True,2026-01-31 12:34:56.789012,97,97.0\r\n\
        0xaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa,False,2025-10-26 02:30:00,-8,-8.0\r\n";

    struct Place {
        directory: tempfile::TempDir,
        args: ImportArgs,
    }

    fn place() -> Place {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("nodes_status.csv");
        std::fs::write(&file, FILE).unwrap();
        std::fs::write(directory.path().join("scan_count.txt"), "100").unwrap();
        let args = ImportArgs {
            file,
            scan_count: None,
            scan_count_file: None,
            time_zone: Tz::Europe__Warsaw,
            subnet: None,
            data_dir: Some(directory.path().join("data")),
            replace: false,
            dry_run: false,
        };
        Place { directory, args }
    }

    async fn run(args: &ImportArgs) -> Result<String, String> {
        let mut out = Vec::new();
        let done = import_csv(args, NOW_MS, &mut out).await;
        done.map(|()| String::from_utf8(out).unwrap()).map_err(|error| error.to_string())
    }

    async fn stored(args: &ImportArgs) -> Option<Opening> {
        let mut store = SqliteStore::open(args.data_dir.as_deref().unwrap()).await.unwrap();
        store.opening().await.unwrap()
    }

    #[tokio::test]
    async fn what_is_imported_is_stored_and_told() {
        let Place { directory, mut args } = place();
        args.subnet = Some("public".into());
        let told = run(&args).await.unwrap();
        let wanted = format!(
            "line 3: 0x{a}: total_online_scans -8 taken for 0\n\
             line 3: 0x{a}: last_seen 2025-10-26 02:30:00 taken for \
             2025-10-26T00:30:00.000000+00:00: the clock showed it twice; the earlier\n\
             {dir}/nodes_status.csv: 2 nodes, 100 scans, stamps in Europe/Warsaw; counts \
             clamped: 1, stamps that the clock showed twice: 1, that it skipped: 0\n\
             imported into {dir}/data\n",
            a = "a".repeat(40),
            dir = directory.path().display()
        );
        assert_eq!(told, wanted);
        let opening = stored(&args).await.unwrap();
        assert_eq!((opening.imported_at_ms, opening.scan_count), (NOW_MS, 100));
        assert_eq!(opening.time_zone, "Europe/Warsaw");
        assert_eq!(opening.subnet.as_deref(), Some("public"));
        let counts: Vec<u64> = opening.rows.iter().map(|row| row.online_scans).collect();
        assert_eq!(counts, [0, 97]);
    }

    #[tokio::test]
    async fn a_second_one_needs_to_be_wanted() {
        let Place { directory, mut args } = place();
        run(&args).await.unwrap();
        args.scan_count = Some(200);
        let refused = run(&args).await.unwrap_err();
        assert!(refused.contains("say --replace"), "{refused}");
        assert_eq!(stored(&args).await.unwrap().scan_count, 100);
        args.replace = true;
        let told = run(&args).await.unwrap();
        assert!(told.contains("in the place of an opening balance of 2 nodes and 100"), "{told}");
        assert_eq!(stored(&args).await.unwrap().scan_count, 200);
        drop(directory);
    }

    #[tokio::test]
    async fn a_serving_aggregator_is_in_the_way() {
        let Place { directory: _directory, args } = place();
        let data_dir = args.data_dir.clone().unwrap();
        std::fs::create_dir_all(&data_dir).unwrap();
        let lock = DirectoryLock::take(&data_dir).unwrap();
        let refused = run(&args).await.unwrap_err();
        assert!(refused.contains("stop it, import, and start it again"), "{refused}");
        assert_eq!(stored(&args).await, None);
        drop(lock);
        run(&args).await.unwrap();
    }

    #[tokio::test]
    async fn a_dry_run_and_a_fault_write_nothing() {
        let Place { directory, mut args } = place();
        args.dry_run = true;
        let told = run(&args).await.unwrap();
        assert!(told.ends_with("dry run: nothing was written\n"), "{told}");
        args.dry_run = false;
        std::fs::write(&args.file, FILE.replace("True", "yes")).unwrap();
        let told = run(&args).await.unwrap_err();
        assert!(told.contains("nothing was imported; faults: 1\n  line 2: is_online"), "{told}");
        assert!(!directory.path().join("data").exists());
    }

    #[tokio::test]
    async fn the_scan_count_must_be_somewhere() {
        let Place { directory, mut args } = place();
        let beside = directory.path().join("scan_count.txt");
        let elsewhere = directory.path().join("elsewhere.txt");
        std::fs::rename(&beside, &elsewhere).unwrap();
        let told = run(&args).await.unwrap_err();
        assert!(told.contains("scan_count.txt") && told.contains("--scan-count"), "{told}");
        args.scan_count_file = Some(elsewhere.clone());
        run(&args).await.unwrap();
        args.replace = true;
        std::fs::write(&elsewhere, format!("{}1", " ".repeat(63))).unwrap();
        run(&args).await.unwrap();
        std::fs::write(&elsewhere, format!("{}1", " ".repeat(64))).unwrap();
        let told = run(&args).await.unwrap_err();
        assert!(told.contains("longer than 64 bytes"), "{told}");
        args.scan_count = Some(super::super::seed_file::SCAN_COUNT_MAX + 1);
        assert!(run(&args).await.unwrap_err().contains("--scan-count"));
    }
}
