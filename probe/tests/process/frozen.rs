//! Aggregators and daemons that accept and never answer.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use uptime_testkit::fake_yagna::{Fault, FaultKind};

use super::fake_collector::{Received, collector, daemon, probe, signal, wait_for};

const FIND_NODE: &str = "POST /_gsb/local/net/FindNode";
/// From when nothing is heard on a connection until it is given up: a keep-alive after ten seconds
/// that has ten seconds to be answered, and some for this machine.
const NOTICED_WITHIN: Duration = Duration::from_secs(25);

/// A way to an address that can be frozen: then it takes everything and passes nothing on, as a
/// process that was stopped or a firewall that forgot a connection.
struct Way {
    address: String,
    frozen: Arc<watch::Sender<bool>>,
    _tasks: JoinSet<()>,
}

impl Way {
    async fn to(address: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = format!("http://{}", listener.local_addr().unwrap());
        let frozen = Arc::new(watch::Sender::new(false));
        let (there, freeze) = (address.trim_start_matches("http://").to_owned(), frozen.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (near, _) = listener.accept().await.unwrap();
                let Ok(far) = TcpStream::connect(&there).await else { continue };
                let (near_in, near_out) = near.into_split();
                let (far_in, far_out) = far.into_split();
                connections.spawn(pass_on(near_in, far_out, freeze.subscribe()));
                connections.spawn(pass_on(far_in, near_out, freeze.subscribe()));
            }
        });
        Self { address: own, frozen, _tasks: tasks }
    }

    fn freeze(&self) {
        self.frozen.send_replace(true);
    }
}

async fn pass_on(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut frozen: watch::Receiver<bool>,
) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let Ok(length @ 1..) = from.read(&mut buffer).await else { return };
        // An error means that the test is over.
        if frozen.wait_for(|frozen| !frozen).await.is_err() {
            return;
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

async fn until(so: impl Fn() -> bool) {
    let wait = async {
        let mut tick = tokio::time::interval(Duration::from_millis(10));
        while !so() {
            tick.tick().await;
        }
    };
    tokio::time::timeout(NOTICED_WITHIN, wait).await.expect("rounds go on");
}

fn rounds(received: &Received) -> Vec<u64> {
    let rounds: BTreeSet<u64> = received.parts.keys().map(|key| key.round.start_s()).collect();
    rounds.into_iter().collect()
}

/// One that never answered, then one that stops answering: each is left for the next address, and
/// nothing that was scanned meanwhile is missing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_aggregator_is_left_for_the_next_and_scanning_goes_on() {
    let daemon = daemon().await;
    let (first, second) = (collector(true, None).await, collector(true, None).await);
    let hole = Way::to(&first.address).await;
    hole.freeze();
    let way = Way::to(&first.address).await;
    let spool = tempfile::tempdir().unwrap();
    let begun = Instant::now();
    let mut child = probe("run", &daemon, &hole.address, spool.path())
        .args(["--aggregator", &way.address, "--aggregator", &second.address])
        .spawn()
        .unwrap();
    wait_for(&first.received, |received| rounds(received).len() >= 2).await;
    assert!(begun.elapsed() < NOTICED_WITHIN, "{:?}", begun.elapsed());
    way.freeze();
    let begun = Instant::now();
    wait_for(&second.received, |received| rounds(received).len() >= 10).await;
    assert!(begun.elapsed() < NOTICED_WITHIN, "{:?}", begun.elapsed());
    child.kill().await.unwrap();
    // Rounds of two seconds, each of them scanned.
    let scanned = rounds(&second.received.borrow());
    assert!(scanned.windows(2).all(|pair| pair[1] == pair[0] + 2), "{scanned:?}");
    assert!(second.received.borrow().gaps.is_empty());
    let last = rounds(&first.received.borrow()).last().copied().unwrap();
    assert!(scanned[0] <= last + 2, "{scanned:?} after {last}");
}

/// Whatever stands still, a probe that is told to end ends within its bounds: five seconds for what
/// is open at the daemon, ten for what waits in the spool.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_ends_in_time_beside_a_frozen_daemon_and_a_frozen_aggregator() {
    const WITHIN: Duration = Duration::from_secs(18);
    let daemon = daemon().await;
    let collector = collector(true, None).await;
    let way = Way::to(&collector.address).await;
    let spool = tempfile::tempdir().unwrap();
    let mut child = probe("run", &daemon, &way.address, spool.path()).spawn().unwrap();
    wait_for(&collector.received, |received| rounds(received).len() >= 2).await;
    way.freeze();
    // A round more, so that something waits in the spool; and then in the middle of one that asks.
    let finds = daemon.count(FIND_NODE);
    until(|| daemon.count(FIND_NODE) >= finds + 16).await;
    let frozen = FaultKind::Latency(Duration::from_secs(3_600));
    daemon.set_fault(Some(Fault::new("/", frozen)));
    until(|| daemon.answering() > 0).await;
    let begun = Instant::now();
    signal(&child, "TERM").await;
    let ended = tokio::time::timeout(WITHIN, child.wait()).await;
    let ended = ended.unwrap_or_else(|_| panic!("it still runs after {:?}", begun.elapsed()));
    assert_eq!(ended.unwrap().code(), Some(0));
}
