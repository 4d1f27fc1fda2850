//! A probe that starts in the middle of a round joins it where its look-ups still fit.

use uptime_probe::clock::now_unix_ms;
use uptime_proto::{Class, Kind, NodeId, Outcome, Part};
use uptime_testkit::fake_yagna::World;

use super::fake_collector::{Manner, Received, collector_with, daemon_of, probe, wait_for};

/// Rounds of so many seconds, of which one is right for any time of the day.
const PERIODS_S: [u32; 6] = [60, 120, 300, 600, 3_600, 86_400];
/// Suspects are named so long after the probe was started: less than three seconds of it are needed
/// for the look-ups of a few nodes.
const NAMED_IN_MS: i64 = 9_000;

/// A round that is in its middle now, and has time left. Its period, its start and how far it is.
fn round_in_its_middle() -> (u32, i64, i64) {
    let now_ms = now_unix_ms();
    let of = |period_s: u32| (period_s, now_ms - now_ms % (i64::from(period_s) * 1_000));
    let rounds =
        PERIODS_S.map(of).map(|(period_s, start_ms)| (period_s, start_ms, now_ms - start_ms));
    let right = |(period_s, _, into_ms): &(u32, i64, i64)| {
        let period_ms = i64::from(*period_s) * 1_000;
        *into_ms > period_ms / 3 && period_ms - *into_ms > NAMED_IN_MS * 2
    };
    rounds.into_iter().find(right).unwrap_or(rounds[rounds.len() - 1])
}

fn parts(received: &Received) -> impl Iterator<Item = &Part> {
    received.parts.values().map(|copies| &copies[0].1)
}

fn seen<'a>(received: &'a Received) -> Option<&'a Part> {
    let looked = |part: &&'a Part| part.kind == Kind::Lookup && part.outcome == Outcome::Looked;
    parts(received).find(looked)
}

/// One that goes on, and one that does a single round and ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn look_ups_of_the_round_in_which_a_probe_starts_are_delivered() {
    let world = World::new(5);
    let daemon = daemon_of(&world).await;
    let mut nodes: Vec<NodeId> =
        world.subnet_ids("public").iter().map(|id| id.parse().unwrap()).collect();
    nodes.sort_unstable();
    let (period_s, start_ms, into_ms) = round_in_its_middle();
    let suspects_ms = into_ms + NAMED_IN_MS;
    let offsets_ms = [into_ms, suspects_ms].map(|ms| u32::try_from(ms).unwrap());
    let manner = Manner {
        standing: Some(nodes.clone()),
        rounds: Some((period_s, offsets_ms)),
        ..Manner::default()
    };
    let (on, once) = (
        collector_with(true, None, manner.clone()).await,
        collector_with(true, None, manner).await,
    );
    let directory = tempfile::tempdir().unwrap();
    let mut goes_on =
        probe("run", &daemon, &on.address, &directory.path().join("on")).spawn().unwrap();
    let mut does_one = probe("run", &daemon, &once.address, &directory.path().join("once"))
        .arg("--once")
        .spawn()
        .unwrap();
    for collector in [&on, &once] {
        wait_for(&collector.received, |received| seen(received).is_some()).await;
        let received = collector.received.borrow();
        let looked = seen(&received).unwrap();
        assert_eq!(looked.key.round.start_ms(), start_ms, "{into_ms} ms after its start");
        assert_eq!(looked.sets.of(Class::Seen), nodes);
        assert!(looked.observed_at_ms < start_ms + suspects_ms, "before suspects are named");
        // The market was listed first, and at once.
        let market = parts(&received).find(|part| part.kind == Kind::Market).unwrap();
        assert_eq!(market.key.round, looked.key.round);
        assert!(market.observed_at_ms <= looked.observed_at_ms);
        assert_eq!(market.sets.of(Class::Offer), nodes);
    }
    goes_on.kill().await.unwrap();
    let ended = does_one.wait().await.unwrap();
    assert_eq!(ended.code(), Some(0));
    let received = once.received.borrow();
    assert!(parts(&received).all(|part| part.key.round.start_ms() == start_ms));
}
