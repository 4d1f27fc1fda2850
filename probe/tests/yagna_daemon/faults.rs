//! Whatever goes wrong has one reason of the closed list, and passes.

use std::time::Duration;

use uptime_probe::yagna::{Limits, YagnaConfigError};
use uptime_proto::Reason;
use uptime_testkit::fake_yagna::{Fault, FaultKind, ProviderSpec};

use super::*;

const LIMIT: Duration = Duration::from_secs(1);

pub(super) fn cases() -> Vec<(FaultKind, Option<Reason>)> {
    let status = |status, text: &str| FaultKind::Status(status, text.to_owned());
    vec![
        // `None`: the reason of the route itself, market or net.
        (status(500, "{\"message\":\"no\"}"), None),
        (status(502, "<html>bad gateway</html>"), None),
        (status(503, ""), None),
        (status(504, "<html>gateway timeout</html>"), None),
        (status(302, ""), None),
        (status(401, "Invalid application key"), Some(Reason::Unauthorised)),
        (status(200, "{}"), Some(Reason::MalformedAnswer)),
        (FaultKind::MalformedJson, Some(Reason::MalformedAnswer)),
        (FaultKind::TruncatedJson, Some(Reason::MalformedAnswer)),
        (FaultKind::CloseWithoutByte, Some(Reason::YagnaUnreachable)),
        (FaultKind::CutShort, Some(Reason::YagnaUnreachable)),
        (FaultKind::SlowDrip(Duration::from_millis(400)), Some(Reason::TimedOut)),
        (FaultKind::Latency(Duration::from_secs(60)), Some(Reason::TimedOut)),
        (FaultKind::Endless, Some(Reason::AnswerTooLarge)),
    ]
}

pub(super) fn small() -> Limits {
    let market_timeout = Duration::from_millis(800);
    let answer_timeout = Duration::from_millis(300);
    Limits { answer_bytes_max: 20_000, market_timeout, answer_timeout, ..limits() }
}

#[tokio::test]
async fn market_faults() {
    let world = world();
    world.add_provider(ProviderSpec::in_subnet("public"));
    let daemon = daemon(&world).await;
    let yagna = yagna_with(&daemon, small());
    for route in ["POST /market-api/v1/scan", "GET /market-api/v1/scan"] {
        for (kind, expected) in cases() {
            daemon.set_fault(Some(Fault::new(route, kind.clone())));
            let listing = yagna.list_market("public").await;
            // What opens a scan answers with 201.
            let is_id = route.starts_with("POST") && matches!(kind, FaultKind::Status(200, _));
            let expected = expected.filter(|_| !is_id).unwrap_or(Reason::MarketError);
            assert_eq!(reason(listing), expected, "{route} {kind:?}");
        }
    }
    daemon.set_fault(None);
    let patient = yagna_with(&daemon, limits());
    assert_eq!(patient.list_market("public").await.unwrap().len(), 1, "and it passes");
}

#[tokio::test]
async fn net_faults() {
    let world = world();
    let node = world.add_provider(ProviderSpec::in_subnet("public"));
    let daemon = daemon(&world).await;
    let yagna = yagna_with(&daemon, small());
    for (kind, expected) in cases() {
        daemon.set_fault(Some(Fault::new("/", kind.clone())));
        let expected = expected.unwrap_or(Reason::NetError);
        assert_eq!(reason(yagna.find_node(id(&node)).await), expected, "find {kind:?}");
        assert_eq!(reason(yagna.relay_session_age().await), expected, "sessions {kind:?}");
        assert_eq!(reason(yagna.identity().await), expected, "me {kind:?}");
        assert_eq!(reason(yagna.version().await), expected, "version {kind:?}");
    }
    daemon.set_fault(None);
    assert!(yagna.find_node(id(&node)).await.is_ok(), "and it passes");
}

#[tokio::test]
async fn direct_question_faults() {
    let world = world();
    let node = world.add_provider(ProviderSpec::in_subnet("public"));
    let daemon = daemon(&world).await;
    let yagna = yagna_with(&daemon, small());
    let asked = cases().into_iter().map(|(kind, expected)| {
        let expected = expected.unwrap_or(Reason::NetError);
        (kind, expected)
    });
    // Those that take a time limit to show are with the market's; here they would take three
    // seconds each.
    let quick = asked.filter(|(_, expected)| *expected != Reason::TimedOut);
    for (kind, expected) in quick {
        daemon.set_fault(Some(Fault::new("GET /market-api/v1/scan", kind.clone())));
        assert_eq!(reason(yagna.ask_peer(id(&node), LIMIT).await), expected, "{kind:?}");
    }
    daemon.set_fault(None);
    assert!(yagna.ask_peer(id(&node), LIMIT).await.is_ok(), "and it passes");
}

#[tokio::test]
async fn an_answer_without_end_ends() {
    let world = world();
    let daemon = daemon(&world).await;
    let answer_timeout = Duration::from_millis(300);
    let yagna = yagna_with(&daemon, Limits { answer_timeout, ..limits() });
    daemon.set_fault(Some(Fault::new("/_gsb/local/net/Sessions", FaultKind::Endless)));
    assert_eq!(reason(yagna.relay_session_age().await), Reason::TimedOut, "4 MiB take longer");
}

/// What has to be read of an answer, by the kind of question: so much is read, a byte more is not.
#[tokio::test]
async fn each_kind_of_question_has_its_own_limit_of_bytes() {
    const SMALL: usize = 64 << 10;
    const NODES: usize = 256 << 10;
    const SESSIONS: usize = 4 << 20;
    const MARKET: usize = 16 << 20;
    let world = world();
    let node = world.add_provider(ProviderSpec::in_subnet("public"));
    let node = id(&node);
    let daemon = daemon(&world).await;
    let yagna = yagna(&daemon);
    let kinds = [
        ("GET /me", SMALL),
        ("GET /version/get", SMALL),
        ("POST /_gsb/local/net/FindNode", SMALL),
        ("POST /_gsb/local/net/Sessions", SESSIONS),
        ("POST /_gsb/local/net/GsbPing", NODES),
        ("POST /market-api/v1/scan", SMALL),
        ("GET /market-api/v1/scan", MARKET),
        ("GET /market-api/v1/demands", MARKET),
    ];
    for (route, most) in kinds {
        for (bytes, expected) in [(most, None), (most + 1, Some(Reason::AnswerTooLarge))] {
            daemon.set_fault(Some(Fault::new(route, FaultKind::Padded(bytes))));
            let failed = match route {
                "GET /me" => yagna.identity().await.err(),
                "GET /version/get" => yagna.version().await.err(),
                "POST /_gsb/local/net/FindNode" => yagna.find_node(node).await.err(),
                "POST /_gsb/local/net/Sessions" => yagna.relay_session_age().await.err(),
                "POST /_gsb/local/net/GsbPing" => yagna.round_trips(&[node]).await.err(),
                "GET /market-api/v1/demands" => yagna.delete_leftovers().await.err(),
                _ => yagna.list_market("public").await.err(),
            };
            assert_eq!(failed.map(|it| it.reason), expected, "{route} with {bytes} bytes");
        }
    }
    // The direct question goes the same way as the market's and may be answered by anybody.
    for (bytes, expected) in [(NODES, None), (NODES + 1, Some(Reason::AnswerTooLarge))] {
        daemon.set_fault(Some(Fault::new("GET /market-api/v1/scan", FaultKind::Padded(bytes))));
        let failed = yagna.ask_peer(node, LIMIT).await.err();
        assert_eq!(failed.map(|it| it.reason), expected, "direct with {bytes} bytes");
    }
}

#[tokio::test]
async fn an_answer_that_says_it_is_too_large_is_not_read() {
    let world = world();
    let daemon = daemon(&world).await;
    let yagna = yagna_with(&daemon, impatient());
    for kind in [FaultKind::Huge(1 << 30), FaultKind::Huge(1 << 60), FaultKind::Flood] {
        daemon.set_fault(Some(Fault::new("/me", kind.clone())));
        assert_eq!(reason(yagna.identity().await), Reason::AnswerTooLarge, "{kind:?}");
    }
}

#[tokio::test]
async fn a_daemon_that_is_down_or_frozen() {
    let world = world();
    let daemon = daemon(&world).await;
    let yagna = yagna_with(&daemon, impatient());
    assert!(yagna.identity().await.is_ok());
    daemon.freeze();
    assert_eq!(reason(yagna.identity().await), Reason::TimedOut);
    assert_eq!(reason(yagna.list_market("public").await), Reason::TimedOut);
    daemon.thaw();
    assert!(yagna.identity().await.is_ok());
    daemon.stop_listening().await;
    assert_eq!(reason(yagna.identity().await), Reason::YagnaUnreachable);
    assert_eq!(reason(yagna.list_market("public").await), Reason::YagnaUnreachable);
    assert_eq!(
        reason(yagna.ask_peer(id(daemon.identity()), LIMIT).await),
        Reason::YagnaUnreachable
    );
    assert_eq!(reason(yagna.delete_leftovers().await), Reason::YagnaUnreachable);
    yagna.close().await;
    daemon.listen().await.unwrap();
    assert!(yagna.identity().await.is_ok());
}

#[tokio::test]
async fn the_key_is_never_told() {
    let world = world();
    let daemon = daemon(&world).await;
    let yagna = yagna(&daemon);
    let echo = FaultKind::Status(500, format!("bad header: Bearer {KEY}"));
    daemon.set_fault(Some(Fault::new("/me", echo)));
    let fault = yagna.identity().await.unwrap_err();
    assert!(fault.detail.contains("bad header: Bearer ***"), "{fault}");
    let shown = format!("{yagna:?} {fault:?} {fault} {:?} {0}", AppKey::new(KEY.to_owned()));
    assert!(!shown.contains(KEY), "{shown}");
}

#[test]
fn useless_options_are_refused() {
    let make = |base_url: &str, key: &str, limits: Limits| {
        let (base_url, app_key) = (base_url.to_owned(), AppKey::new(key.to_owned()));
        Yagna::new(YagnaOptions { base_url, app_key, limits, now_unix_ms }).map(|_| ())
    };
    let url = "http://127.0.0.1:7465";
    assert!(make(url, "key", Limits::default()).is_ok());
    assert!(make("https://yagna.example/", "key", Limits::default()).is_ok());
    let fault = make("127.0.0.1:7465", "key", Limits::default());
    assert!(matches!(fault, Err(YagnaConfigError::BaseUrl { .. })), "{fault:?}");
    for key in ["", "a\nb"] {
        let fault = make(url, key, Limits::default());
        assert!(matches!(fault, Err(YagnaConfigError::AppKey(_))), "{fault:?}");
    }
    for limits in [
        Limits { find_in_flight_max: 0, ..Limits::default() },
        Limits { direct_in_flight_max: usize::MAX, ..Limits::default() },
        Limits { finds_per_s_max: 0, ..Limits::default() },
        Limits { page_offers_max: 101, ..Limits::default() },
        Limits { answer_timeout: Duration::ZERO, ..Limits::default() },
        Limits { ping_batch_max: 0, ..Limits::default() },
        Limits { ping_timeout: Duration::ZERO, ..Limits::default() },
    ] {
        let fault = make(url, "key", limits);
        assert!(matches!(fault, Err(YagnaConfigError::Limits(_))), "{fault:?}");
    }
}
