//! The rules as an operator meets them: shown, set, replaced, told to probes, and what serve and
//! check say of settings that differ.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "shared/fixture.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared by several test binaries")]
mod fixture;
#[path = "shared/program.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared by several test binaries")]
mod program;

use std::path::Path;
use std::time::Duration;

use fixture::with_token;
use program::{ANY_PORTS, Serving, run, serve_command};
use tempfile::TempDir;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use uptime_aggregator::ingest::schedule_for;
use uptime_aggregator::store::{Registry, SqliteStore};
use uptime_proto::v1::collector_client::CollectorClient;
use uptime_proto::v1::uptime_query_client::UptimeQueryClient;
use uptime_proto::v1::{self, aggregator_message, probe_message};
use uptime_proto::{Epoch, PROTOCOL_VERSION, Period};

const DONE: Option<i32> = Some(0);
const FAILED: Option<i32> = Some(1);
const USAGE: Option<i32> = Some(64);

fn rules(period_s: u32) -> Epoch {
    Epoch::with_defaults(Period::new(period_s).unwrap())
}

async fn stored(data_dir: &Path) -> Vec<Epoch> {
    SqliteStore::open_existing(data_dir).await.unwrap().epochs().await.unwrap()
}

/// A store with these epochs.
async fn with_epochs(epochs: &[Epoch]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let mut store = SqliteStore::open(directory.path()).await.unwrap();
    for epoch in epochs {
        store.add_epoch(epoch).await.unwrap();
    }
    store.close().await.unwrap();
    directory
}

#[tokio::test]
async fn rules_are_shown_set_replaced_and_withdrawn() {
    let directory = with_epochs(&[]).await;
    let place = directory.path();
    let (code, shown, said) = run(&["rules", "show"], place).await;
    assert_eq!((code, shown.as_str()), (DONE, ""), "{said}");
    assert!(said.contains("No rules are stored yet"), "{said}");
    let (code, _, said) = run(&["rules", "set", "--grace-s", "7"], place).await;
    assert!(code == FAILED && said.contains("first start of serve"), "{said}");
    assert_eq!(stored(place).await, [], "the first rules are made by serve");

    let directory = with_epochs(&[rules(30)]).await;
    let place = directory.path();
    let set = async |flags: &[&str]| run(&[&["rules", "set"], flags].concat(), place).await;
    let (code, in_force, _) = run(&["rules", "show"], place).await;
    assert_eq!(code, DONE);
    assert_eq!(
        in_force,
        "in-force\tthe-beginning\tround-period-s=30\tgrace-s=5\tpositive-probes-min=1\t\
         freshness-s=20\trelay-session-age-min-s=60\tdirect-timeout-ms=4000\tdirect-attempts=2\t\
         retire-after-s=2592000\n"
    );
    for (flags, code, wanted) in [
        (&[][..], USAGE, "--round-period-s"),
        (&["--round-period-s", "7", "--grace-s", "x"], USAGE, "grace-s"),
        (&["--round-period-s", "30"], DONE, "Nothing differs"),
    ] {
        let (found, _, said) = set(flags).await;
        assert_eq!(found, code, "{flags:?}: {said}");
        assert!(said.contains(wanted), "{flags:?}: {said}");
        assert_eq!(stored(place).await, [rules(30)], "{flags:?}");
    }
    // Each changes what is named, and takes the place of what was announced before.
    for (flags, period_s, grace_s) in
        [(&["--round-period-s", "60"][..], 60, 5), (&["--grace-s", "9"], 60, 9)]
    {
        let (code, shown, said) = set(flags).await;
        assert_eq!(code, DONE, "{said}");
        let epochs = stored(place).await;
        let start_s = epochs[1].start_s;
        let wanted = Epoch { start_s, grace_s, ..rules(period_s) };
        assert_eq!(epochs, [rules(30), wanted], "{flags:?}");
        let begins = chrono::DateTime::from_timestamp_secs(i64::try_from(start_s).unwrap());
        let begins = begins.unwrap().format("%Y-%m-%dT%H:%M:%S").to_string();
        assert!(said.contains(&format!("From {begins}")), "{said}");
        assert!(shown.starts_with(&in_force), "{shown}");
        let announced = format!("announced\t{begins}.000000+00:00\tround-period-s={period_s}");
        assert!(shown.contains(&announced), "{shown}");
    }
    let (code, shown, said) = set(&["--round-period-s", "30", "--grace-s", "5"]).await;
    assert!(code == DONE && said.contains("withdrawn"), "{said}");
    assert_eq!((shown, stored(place).await), (in_force, vec![rules(30)]));
    let (_, audit, _) = run(&["access", "audit"], place).await;
    let lines: Vec<&str> = audit.lines().collect();
    assert_eq!(lines.len(), 3, "{audit}");
    assert!(lines.iter().all(|line| line.contains("\tthis host\trules-set\trules\t")), "{audit}");
    assert!(lines[2].contains("round-period-s 60"), "{audit}");
}

#[tokio::test]
async fn rules_dated_by_a_wrong_clock_are_named_and_can_be_replaced() {
    let far = Epoch { start_s: 4_000_000_020, ..rules(60) };
    let directory = with_epochs(&[rules(30), far.clone()]).await;
    let check = [&["check"][..], &ANY_PORTS].concat();
    let (code, found, said) = run(&check, directory.path()).await;
    assert!(code == DONE && found.contains("rules set --round-period-s 60"), "{found}{said}");
    let (code, _, said) = run(&["rules", "set", "--round-period-s", "60"], directory.path()).await;
    assert_eq!(code, DONE, "{said}");
    let epochs = stored(directory.path()).await;
    assert!(epochs.len() == 2 && epochs[1].start_s < far.start_s, "{epochs:?}");
    let (_, found, _) = run(&check, directory.path()).await;
    assert!(!found.contains("rules set"), "{found}");
}

async fn serve(flags: &[&str], data_dir: &Path) -> Serving {
    Serving::start(&mut serve_command(flags, data_dir)).await
}

#[tokio::test]
async fn settings_make_the_first_rules_and_change_none_later() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path();
    let log = serve(&["--round-period-s", "1", "--grace-s", "0"], place).await.log().await;
    assert!(!log.contains("settings differ"), "{log}");
    let first = Epoch { grace_s: 0, ..rules(1) };
    let first = [first];
    assert_eq!(stored(place).await, first);
    let flags = ["--round-period-s", "2", "--grace-s", "0"];
    let wanted = format!(
        "settings differ from the stored rules, which stay: --round-period-s is 1 in the store and \
         2 here; to change the rules: uptime-aggregator rules set --round-period-s 2 --data-dir {}",
        place.display()
    );
    let log = serve(&flags, place).await.log().await;
    assert_eq!(log.matches("settings differ").count(), 1, "{log}");
    assert!(log.contains("WARN") && log.contains(&wanted), "{log}");
    let (code, found, said) = run(&[&["check"], &ANY_PORTS[..], &flags].concat(), place).await;
    assert!(code == DONE && found.contains(&wanted), "{found}{said}");
    // Nobody named a rule: the defaults are no wish.
    let (code, found, said) = run(&[&["check"], &ANY_PORTS[..]].concat(), place).await;
    assert!(code == DONE && !found.contains("differ"), "{found}{said}");
    assert_eq!(stored(place).await, first);
}

/// The next announcement on a stream.
async fn announced(stream: &mut tonic::Streaming<v1::AggregatorMessage>) -> v1::EpochAnnouncement {
    loop {
        let message = stream.message().await.unwrap().unwrap().message;
        if let Some(aggregator_message::Message::Epochs(announcement)) = message {
            return announcement;
        }
    }
}

#[tokio::test]
async fn a_running_serve_takes_new_rules_and_tells_its_probes() {
    let directory = with_epochs(&[Epoch { grace_s: 0, ..rules(1) }]).await;
    let place = directory.path();
    let (_, token, _) = run(&["probe", "add", "alpha"], place).await;
    let serving = serve(&[], place).await;
    let address = format!("http://{}", serving.grpc);
    let channel = Channel::from_shared(address).unwrap().connect().await.unwrap();
    let (sender, messages) = tokio::sync::mpsc::channel(1);
    let hello = v1::Hello { protocol_version: PROTOCOL_VERSION, ..v1::Hello::default() };
    let hello = probe_message::Message::Hello(hello);
    sender.send(v1::ProbeMessage { message: Some(hello) }).await.unwrap();
    let request = with_token(ReceiverStream::new(messages), token.trim());
    let mut collector = CollectorClient::new(channel.clone());
    let mut stream = collector.connect(request).await.unwrap().into_inner();
    let first = stream.message().await.unwrap().unwrap().message;
    let Some(aggregator_message::Message::Welcome(welcome)) = first else { panic!("{first:?}") };
    assert_eq!(welcome.epochs.len(), 1);

    let (code, _, said) = run(&["rules", "set", "--round-period-s", "2"], place).await;
    assert_eq!(code, DONE, "{said}");
    let epochs = stored(place).await;
    let told: Vec<v1::Epoch> = epochs.iter().map(v1::Epoch::from).collect();
    // At once, while the old rules are in force; then the new schedule, when they begin.
    for epoch in &epochs {
        let announcement = announced(&mut stream).await;
        assert_eq!(announcement.epochs, told);
        assert_eq!(announcement.schedule, Some(schedule_for(epoch)));
    }
    let mut query = UptimeQueryClient::new(channel);
    let mut looks = tokio::time::interval(Duration::from_millis(100));
    let fresh = loop {
        looks.tick().await;
        let summary = query.get_summary(v1::GetSummaryRequest::default()).await.unwrap();
        let fresh = summary.into_inner().freshness.unwrap();
        if fresh.last_closed_round_unix_s >= epochs[1].start_s {
            break fresh;
        }
    };
    assert_eq!(fresh.round_period_s, 2, "{fresh:?}");
    let log = serving.log().await;
    assert!(log.contains("the rules changed") && !log.contains("learnt late"), "{log}");
}
