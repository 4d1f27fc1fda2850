//! The questions of a round to a real daemon, where one is named: no answer of it may be one that
//! the table does not have.
//!
//! `UPTIME_REAL_YAGNA` is its address and `UPTIME_REAL_YAGNA_APPKEY` its application key. Without
//! them the same questions go to a fake only, so that the test itself stays right.

use metrics_exporter_prometheus::PrometheusBuilder;
use uptime_probe::clock;
use uptime_probe::yagna::valid_url;
use uptime_testkit::fake_yagna::{Fault, FaultKind, ProviderSpec};

use super::*;

/// The counter of answers that are not in the table.
const NOT_UNDERSTOOD: &str = "uptime_yagna_answers_not_understood_total";
/// So little is asked that nobody is bothered: look-ups, and of them direct questions.
const LOOKED_UP: usize = 20;
const ASKED: usize = 3;

fn handle(base_url: String, key: String) -> Yagna {
    let now_unix_ms = clock::now_unix_ms;
    let (app_key, limits) = (AppKey::new(key), Limits::default());
    Yagna::new(YagnaOptions { base_url, app_key, limits, now_unix_ms }).unwrap()
}

/// Asks all that a round asks, of a few nodes. What single questions came to is told and not
/// judged: the network may be as it likes.
async fn ask_everything(yagna: &Yagna) {
    let identity = yagna.identity().await.expect("the daemon knows the key");
    let version = yagna.version().await.expect("the daemon tells its version");
    eprintln!("{identity}, version {version}; session: {:?}", yagna.relay_session_age().await);
    let offers = yagna.list_market("public").await;
    let offers = offers.inspect_err(|fault| eprintln!("market: {fault}")).unwrap_or_default();
    let mut ids: Vec<NodeId> = offers.iter().map(|offer| offer.node_id).collect();
    ids.sort_unstable();
    ids.dedup();
    eprintln!("{} nodes on the market of public", ids.len());
    for id in ids.iter().take(LOOKED_UP) {
        eprintln!("{id}: {:?}", yagna.find_node(*id).await);
    }
    for id in ids.iter().take(ASKED) {
        eprintln!("{id}: {:?}", yagna.ask_peer(*id, Duration::from_secs(4)).await);
    }
    yagna.close().await;
}

/// The lines of the counter after all questions to a daemon.
fn not_understood(yagna: &Yagna) -> Vec<String> {
    let recorder = PrometheusBuilder::new().build_recorder();
    let metrics = recorder.handle();
    // What is counted on this thread counts, and the runtime has no other.
    metrics::with_local_recorder(&recorder, || {
        tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(ask_everything(yagna));
        });
    });
    let lines = metrics.render();
    let lines = lines.lines().filter(|line| line.starts_with(NOT_UNDERSTOOD));
    lines.map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_of_a_real_daemon_is_in_the_table() {
    let none: [&str; 0] = [];
    let world = World::new(7);
    (0..30).for_each(|_| drop(world.add_provider(ProviderSpec::in_subnet("public"))));
    world.kill(&world.ids()[0]);
    let stand_in = daemon(&world).await;
    let yagna = handle(stand_in.base_url(), KEY.to_owned());
    assert_eq!(not_understood(&yagna), none);
    // An answer that is in no row would be seen.
    let strange = FaultKind::Status(418, "a teapot".into());
    stand_in.set_fault(Some(Fault::new("/_gsb/local/net/FindNode", strange)));
    assert_eq!(not_understood(&yagna).len(), 1);

    let Ok(url) = std::env::var("UPTIME_REAL_YAGNA") else {
        eprintln!("left out: no real daemon is named by UPTIME_REAL_YAGNA");
        return;
    };
    valid_url(&url).unwrap_or_else(|fault| panic!("UPTIME_REAL_YAGNA {fault}"));
    let key = std::env::var("UPTIME_REAL_YAGNA_APPKEY");
    let key = key.expect("UPTIME_REAL_YAGNA_APPKEY is the application key of UPTIME_REAL_YAGNA");
    assert_eq!(not_understood(&handle(url, key)), none);
}
