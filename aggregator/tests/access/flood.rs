//! A crowd of idle and dribbling connections, and one honest probe that goes on.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use uptime_aggregator::store::Role;
use uptime_proto::v1::ReportStatus;

use super::frames::PATIENCE;
use super::reports::{ids, market, report};
use super::streams::Stream;
use super::support::{Caller, Host};

/// Connections that are held open against the aggregator, all at once.
const CROWD: u64 = 2_000;
/// Whoever was cut comes again after this: two hundred new connections a second, or two thousand.
const COMES_AGAIN: Duration = Duration::from_secs(10);
/// See [`COMES_AGAIN`].
const COMES_AGAIN_SOON: Duration = Duration::from_secs(1);
/// Reports whose acknowledgements are timed, before and while; at least, and for at least so long,
/// in which all of the crowd come again if they come again soon.
const REPORTS: u32 = 400;
/// See [`REPORTS`].
const TIMED_FOR: Duration = Duration::from_secs(2);

/// The shipped program, with TLS on both ports.
async fn serve(host: &Host) -> (Child, SocketAddr) {
    let settings = host.with_tls();
    let mut command = Command::new(env!("CARGO_BIN_EXE_uptime-aggregator"));
    command.args(["serve", "--grpc-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0"]);
    for (flag, value) in [
        ("--data-dir", settings.data_dir),
        ("--tls-cert-file", settings.tls_cert_file),
        ("--tls-key-file", settings.tls_key_file),
        // All of the crowd comes from one address here, which is the harder case.
        ("--connections-per-address-max", Some("100000".to_owned())),
    ] {
        command.arg(flag).arg(value.unwrap());
    }
    command.env("UPTIME_LOG", "off").stdout(std::process::Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let first = lines.next_line().await.unwrap().unwrap();
    (child, first.strip_prefix("grpc ").unwrap().parse().unwrap())
}

/// One of the crowd: connects, says nothing or a byte of a handshake now and then, and comes again
/// when it is cut.
async fn nuisance(
    address: SocketAddr,
    number: u64,
    comes_again: Duration,
    held: Arc<AtomicU64>,
    cut: Arc<AtomicU64>,
) {
    loop {
        if let Ok(mut stream) = TcpStream::connect(address).await {
            held.fetch_add(1, Ordering::Relaxed);
            if number.is_multiple_of(2) {
                stream.read_u8().await.ok();
            } else {
                // The head of a handshake record of 512 bytes, and then the record, slowly.
                let head = [22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3];
                let mut sent = stream.write_all(&head).await;
                while sent.is_ok() {
                    tokio::time::sleep(Duration::from_millis(500)).await;
                    sent = stream.write_all(&[7]).await;
                }
            }
            held.fetch_sub(1, Ordering::Relaxed);
            cut.fetch_add(1, Ordering::Relaxed);
        }
        tokio::time::sleep(comes_again).await;
    }
}

/// The times of acknowledgements one after the other, ascending.
async fn timed(stream: &mut Stream, first: u32) -> Vec<Duration> {
    let mut times = Vec::new();
    // Read once: a round that begins meanwhile would make the same keys again.
    let newest_s = market(0, Vec::new()).round_unix_s;
    let started = Instant::now();
    for number in 0.. {
        if number >= REPORTS && started.elapsed() >= TIMED_FOR {
            break;
        }
        let mut part = market(number % 60, ids(0, 100));
        // Rounds of the past, so that every part has a key of its own.
        let back = u64::from(first + 10 + number / 60) * super::fixture::PERIOD_S;
        part.round_unix_s = newest_s - back;
        part.observed_at_unix_ms = i64::try_from(part.round_unix_s).unwrap() * 1000 + 5;
        let began = Instant::now();
        let result = stream.report(report(vec![part])).await;
        times.push(began.elapsed());
        assert_eq!(result.status, ReportStatus::Accepted as i32, "{result:?}");
    }
    times.sort_unstable();
    times
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_that_says_nothing_is_in_nobodys_way() {
    crowd(COMES_AGAIN).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nor_is_a_crowd_that_comes_again_every_second() {
    crowd(COMES_AGAIN_SOON).await;
}

async fn crowd(comes_again: Duration) {
    let mut files = getrlimit(Resource::Nofile);
    files.current = files.maximum;
    setrlimit(Resource::Nofile, files).unwrap();
    assert!(files.current.is_none_or(|most| most > 3 * CROWD), "too few open files: {files:?}");
    let host = Host::new();
    let token = host.enrol("alpha", Role::Probe).await;
    let (mut child, address) = serve(&host).await;
    let honest = Caller {
        address: format!("https://{address}"),
        ca_pem: Some(host.authority.ca_pem.clone()),
        certificate: None,
        token: Some(token),
    };
    let mut stream = Stream::open(&honest).await;
    let before = timed(&mut stream, 0).await;

    let mut crowd = JoinSet::new();
    let (held, cut) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    for number in 0..CROWD {
        let (held, cut) = (Arc::clone(&held), Arc::clone(&cut));
        crowd.spawn(nuisance(address, number, comes_again, held, cut));
    }
    // Each of them has connected once, and most were pushed out or cut already.
    let began = Instant::now();
    while held.load(Ordering::Relaxed) + cut.load(Ordering::Relaxed) < CROWD {
        assert!(began.elapsed() < PATIENCE, "{held:?} {cut:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let during = timed(&mut stream, 400).await;
    let began = Instant::now();
    // One that comes while the crowd is there is let in as well.
    let mut newer = Stream::open(&honest).await;
    let result = newer.report(report(vec![market(63, ids(0, 10))])).await;
    assert_eq!(result.status, ReportStatus::Accepted as i32, "{result:?}");
    let newcomer = began.elapsed();
    let began = Instant::now();
    while cut.load(Ordering::Relaxed) < CROWD / 2 {
        assert!(began.elapsed() < PATIENCE, "the crowd is kept: {held:?} {cut:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let crowded = (held.load(Ordering::Relaxed), cut.load(Ordering::Relaxed));
    crowd.shutdown().await;
    child.kill().await.unwrap();
    let at = |times: &[Duration], share: usize| times[times.len() * share / 100];
    for share in [50, 99] {
        let (before, during) = (at(&before, share), at(&during, share));
        let ratio = during.as_secs_f64() / before.as_secs_f64();
        // For whoever looks: times on a machine that does other things prove nothing.
        eprintln!("p{share}: {before:?} before, {during:?} with the crowd, {ratio:.2} times");
    }
    eprintln!("{newcomer:?} until a newcomer has its first acknowledgement");
    eprintln!("held open at the end and cut until then: {crowded:?}");
}
