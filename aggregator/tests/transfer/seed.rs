//! The `seed` dialect: opening balance and observed rounds in one account.

use std::sync::Arc;
use std::time::Duration;

use uptime_aggregator::config::SettingArgs;
use uptime_aggregator::engine::replay::{Replayed, rebuild};
use uptime_aggregator::publish::seed_csv::{SeedBooks, SubnetFault, scan_count_path, subnet_of};
use uptime_aggregator::publish::{PublishedCsv, SeedTerms};
use uptime_aggregator::store::{Opening, OpeningRow, Registry, SqliteStore};
use uptime_proto::{Outcome, Reason, Sets};

use crate::fixture::{Aggregator, settings};
use crate::support::{Network, id, lookup, market, round};

/// Imported, and seen since.
pub(crate) const OLD: u8 = 0x11;
/// Imported, and never seen again.
pub(crate) const GONE: u8 = 0x22;
/// Never imported.
pub(crate) const NEW: u8 = 0x33;
/// Imported without a stamp, and on offer at one probe only: no listing shows it, but the import.
pub(crate) const RUMOUR: u8 = 0x44;
/// On offer at one probe only.
const INVENTED: u8 = 0x55;

pub(crate) fn opening() -> Opening {
    let row = |byte, is_online, last_seen_ms, online_scans| OpeningRow {
        id: id(byte),
        is_online,
        last_seen_ms,
        online_scans,
    };
    Opening {
        imported_at_ms: round(0).start_ms() - 60_000,
        scan_count: 90,
        time_zone: "Europe/Warsaw".to_owned(),
        subnet: None,
        rows: vec![
            row(OLD, false, Some(round(0).start_ms() - 3_600_000), 80),
            row(GONE, true, Some(round(0).start_ms() - 90_000), 45),
            row(RUMOUR, false, None, 0),
        ],
    }
}

async fn rebuilt(network: &Network, now_ms: i64) -> Replayed {
    let mut store = SqliteStore::open(network.data_dir()).await.unwrap();
    rebuild(&mut store, now_ms, true).await.unwrap().unwrap()
}

fn books<'a>(
    rebuilt: &'a Replayed,
    opening: Option<&'a Opening>,
    subnet: Option<u32>,
) -> SeedBooks<'a> {
    SeedBooks { snapshot: &rebuilt.snapshot, seed: rebuilt.state.seed().unwrap(), opening, subnet }
}

fn csv(books: &SeedBooks<'_>) -> String {
    let mut bytes = Vec::new();
    books.write_csv(&mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

/// Ten rounds. In rounds 4 and 5 no market part succeeded; the look-ups of those rounds found
/// everybody, which counts for nothing. From round 8 on the old node is gone.
pub(crate) async fn network() -> (Network, i64) {
    let mut network = Network::new().await;
    for number in 0..10 {
        let offers: &[u8] = if number < 8 { &[OLD, NEW] } else { &[NEW] };
        let mut listed = market("public", number, offers);
        if number == 4 || number == 5 {
            listed.outcome = Outcome::CouldNotLook(Reason::MarketError);
            listed.sets = Sets::default();
        }
        let only_alpha = market("public", number, &[offers, &[RUMOUR, INVENTED]].concat());
        let first = if number == 7 { only_alpha } else { listed.clone() };
        let found = lookup(number, &[NEW], &[], &[OLD]);
        network.submit(0, vec![first, found.clone()], number).await;
        network.submit(1, vec![listed, found], number).await;
    }
    let now_ms = network.close(9).await;
    (network, now_ms)
}

const HEADER: &str = "issuer_id,is_online,last_seen,total_online_scans,uptime\n";

#[tokio::test]
async fn imported_and_observed_rounds_are_one_account() {
    let (network, now_ms) = network().await;
    let rebuilt = rebuilt(&network, now_ms).await;
    let opening = opening();
    let subnet = subnet_of(&rebuilt.snapshot, None, Some(&opening)).unwrap();
    let books = books(&rebuilt, Some(&opening), subnet);
    // Eight covered rounds: 80 + 6 of 98, 45, 8, and one of the rumour.
    assert_eq!(books.scan_count(), 98);
    let wanted = format!(
        "{HEADER}\
         {},False,2026-01-31 00:03:30.000000,86,87.75510204081633\n\
         {},False,2026-01-30 23:58:30.000000,45,45.91836734693877\n\
         {},True,2026-01-31 00:04:50.500000,8,8.16326530612245\n\
         {},False,2026-01-31 00:03:30.000000,1,1.0204081632653061\n",
        id(OLD),
        id(GONE),
        id(NEW),
        id(RUMOUR)
    );
    assert_eq!(csv(&books), wanted);
}

#[tokio::test]
async fn without_a_balance_only_what_was_observed_is_there() {
    let (network, now_ms) = network().await;
    let rebuilt = rebuilt(&network, now_ms).await;
    let subnet = subnet_of(&rebuilt.snapshot, Some("public"), None).unwrap();
    let books = books(&rebuilt, None, subnet);
    assert_eq!(books.scan_count(), 8);
    let wanted = format!(
        "{HEADER}{},False,2026-01-31 00:03:30.000000,6,75.0\n\
         {},True,2026-01-31 00:04:50.500000,8,100.0\n",
        id(OLD),
        id(NEW)
    );
    assert_eq!(csv(&books), wanted);
}

#[tokio::test]
async fn before_any_round_it_is_what_was_imported() {
    let network = Network::new().await;
    let rebuilt = rebuilt(&network, round(0).start_ms()).await;
    let opening = opening();
    let subnet = subnet_of(&rebuilt.snapshot, None, Some(&opening)).unwrap();
    let books = books(&rebuilt, Some(&opening), subnet);
    assert_eq!((subnet, books.scan_count()), (None, 90));
    let wanted = format!(
        "{HEADER}\
         {},False,2026-01-30 23:00:00.000000,80,88.88888888888889\n\
         {},True,2026-01-30 23:58:30.000000,45,50.0\n\
         {},False,1970-01-01 00:00:00.000000,0,0.0\n",
        id(OLD),
        id(GONE),
        id(RUMOUR)
    );
    assert_eq!(csv(&books), wanted);
    let nothing = SeedBooks { opening: None, ..books };
    assert_eq!((csv(&nothing).as_str(), nothing.scan_count()), (HEADER, 0));
}

#[tokio::test]
async fn it_is_of_one_subnet() {
    let (mut network, _) = network().await;
    network.submit(0, vec![market("other", 10, &[INVENTED])], 10).await;
    network.submit(1, vec![market("other", 10, &[INVENTED])], 10).await;
    let now_ms = network.close(10).await;
    let rebuilt = rebuilt(&network, now_ms).await;
    let snapshot = &rebuilt.snapshot;
    let fault = subnet_of(snapshot, None, None).unwrap_err();
    assert_eq!(fault, SubnetFault::Several(vec!["public".into(), "other".into()]));
    assert!(fault.to_string().contains("--csv-subnet"), "{fault}");
    let other = subnet_of(snapshot, Some("other"), None).unwrap();
    let text = csv(&books(&rebuilt, None, other));
    assert_eq!(text, format!("{HEADER}{},True,2026-01-31 00:05:00.000000,1,100.0\n", id(INVENTED)));
    let public = subnet_of(snapshot, Some("public"), None).unwrap();
    // Two offers elsewhere made a node of it, so the one here is told.
    assert_eq!(csv(&books(&rebuilt, None, public)).lines().count(), 4);
    assert_eq!(subnet_of(snapshot, Some("none yet"), None), Ok(None));
    // The balance says of which subnet it is, and is added to no other.
    let of_public = Opening { subnet: Some("public".into()), ..opening() };
    assert_eq!(subnet_of(snapshot, None, Some(&of_public)), Ok(public));
    let fault = subnet_of(snapshot, Some("other"), Some(&of_public)).unwrap_err();
    assert!(fault.to_string().contains("--csv-subnet public"), "{fault}");
}

#[tokio::test]
async fn the_two_files_are_replaced_one_after_the_other() {
    let (network, now_ms) = network().await;
    let rebuilt = rebuilt(&network, now_ms).await;
    let opening = opening();
    let subnet = subnet_of(&rebuilt.snapshot, None, Some(&opening)).unwrap();
    let books = books(&rebuilt, Some(&opening), subnet);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("nodes_status.csv");
    books.replace(&path).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), csv(&books));
    assert_eq!(std::fs::read_to_string(scan_count_path(&path)).unwrap(), "98");
    // When the CSV cannot be written, the count is the one that is ahead.
    let nowhere = directory.path().join("taken");
    std::fs::create_dir(&nowhere).unwrap();
    let nothing = SeedBooks { opening: None, ..books };
    assert!(nothing.replace(&nowhere).is_err());
    assert_eq!(std::fs::read_to_string(scan_count_path(&path)).unwrap(), "8");
}

#[tokio::test]
async fn a_second_subnet_leaves_the_last_file_until_somebody_says_which() {
    let (mut network, _) = network().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("nodes_status.csv");
    let csv = |subnet: Option<&str>| PublishedCsv {
        path: path.clone(),
        seed: Some(Arc::new(SeedTerms {
            opening: Some(opening()),
            subnet: subnet.map(Into::into),
        })),
    };
    csv(None).replace(&network.snapshot()).unwrap();
    let first = std::fs::read_to_string(&path).unwrap();
    assert_eq!(first.lines().count(), 5);
    network.submit(0, vec![market("other", 10, &[NEW]), market("public", 10, &[NEW])], 10).await;
    network.close(10).await;
    let fault = csv(None).replace(&network.snapshot()).unwrap_err();
    assert!(fault.to_string().contains("public, other: say which with --csv-subnet"), "{fault}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), first);
    assert_eq!(std::fs::read_to_string(scan_count_path(&path)).unwrap(), "98");
    csv(Some("public")).replace(&network.snapshot()).unwrap();
    assert_eq!(std::fs::read_to_string(scan_count_path(&path)).unwrap(), "99");
    assert_ne!(std::fs::read_to_string(&path).unwrap(), first);
}

#[tokio::test]
async fn a_serving_aggregator_publishes_what_was_imported() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = SqliteStore::open(directory.path()).await.unwrap();
    store.put_opening(&opening()).await.unwrap();
    drop(store);
    let settings = SettingArgs { csv_dialect: Some("seed".into()), ..settings(directory.path()) };
    let aggregator = Aggregator::start(settings).await;
    let path = directory.path().join("nodes_status.csv");
    let written = async {
        while !scan_count_path(&path).exists() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), written).await.unwrap();
    aggregator.stop().await;
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(&format!("{},True,2026-01-30 23:58:30.000000,45,50.0\n", id(GONE))));
    assert_eq!(std::fs::read_to_string(scan_count_path(&path)).unwrap(), "90");
}

#[tokio::test]
async fn one_subnet_at_once_says_what_one_node_at_a_time_says() {
    let (network, now_ms) = network().await;
    let rebuilt = rebuilt(&network, now_ms).await;
    let (snapshot, seed) = (&rebuilt.snapshot, rebuilt.state.seed().unwrap());
    let (end_s, epochs) = (snapshot.closed_end_s(), &snapshot.epochs);
    for subnet in 0..3 {
        let covered = seed.in_subnet(Some(subnet), end_s, epochs);
        assert_eq!(covered.scan_count(), seed.scan_count(subnet, end_s, epochs));
        for node in 0..6 {
            let alone = seed.online_scans(node, subnet, end_s, epochs);
            assert_eq!(covered.online_scans(node), alone, "{node} in {subnet}");
        }
    }
}
