//! Whatever goes wrong has one reason of the closed list, fails the whole listing, and passes.

use super::*;

fn cases() -> Vec<(FaultKind, Reason)> {
    let status = |status, text: &str| FaultKind::Status(status, text.to_owned());
    vec![
        (status(500, ""), Reason::RelayError),
        (status(503, "<html>no</html>"), Reason::RelayError),
        (status(404, ""), Reason::RelayError),
        // The relay knows no key; whoever refuses one stands before it.
        (status(401, "denied"), Reason::RelayError),
        (status(302, ""), Reason::RelayError),
        (status(200, "[]"), Reason::MalformedAnswer),
        (status(200, ""), Reason::MalformedAnswer),
        (status(200, r#"{"0x85":[]}"#), Reason::MalformedAnswer),
        (FaultKind::MalformedJson, Reason::MalformedAnswer),
        (FaultKind::TruncatedJson, Reason::MalformedAnswer),
        (FaultKind::CloseWithoutByte, Reason::RelayError),
        (FaultKind::CutShort, Reason::RelayError),
        (FaultKind::SlowDrip(Duration::from_millis(400)), Reason::TimedOut),
        (FaultKind::Latency(Duration::from_secs(60)), Reason::TimedOut),
        (FaultKind::Endless, Reason::AnswerTooLarge),
    ]
}

fn impatient() -> RelayLimits {
    let answer_timeout = Duration::from_millis(300);
    RelayLimits { answer_timeout, answer_bytes_max: 20_000, ..brisk() }
}

#[tokio::test]
async fn one_page_that_fails() {
    let world = world();
    let node = add(&world, "85f", 1);
    let other = add(&world, "12", 1);
    let fake = fake_relay(&world, Flavour::Main).await;
    let hasty = relay_with(&fake, impatient());
    for (kind, expected) in cases() {
        fake.set_faults(vec![Fault::new("GET /nodes/8", kind.clone())]);
        let fault = hasty.list().await.unwrap_err();
        assert_eq!(fault.reason, expected, "{kind:?}: {fault}");
        assert!(fault.detail.contains("/nodes/8"), "{kind:?}: {fault}");
    }
    fake.set_faults(Vec::new());
    let listed = relay(&fake).list().await.unwrap();
    assert_eq!(ids(&listed), expected([&other, &node]), "and it passes");
}

#[tokio::test]
async fn a_little_later_is_no_fault() {
    let world = world();
    let node = world.add_requestor();
    let fake = fake_relay(&world, Flavour::Main).await;
    let late = FaultKind::Latency(Duration::from_millis(20));
    fake.set_faults(vec![Fault::new("/nodes", late)]);
    assert_eq!(ids(&relay(&fake).list().await.unwrap()), [id(&node)]);
}

#[tokio::test]
async fn a_failed_listing_changes_nothing_of_what_was_learnt() {
    let world = world();
    for number in 0..200 {
        add(&world, &format!("{:x}", number % 16), 0x1000 + number);
        add(&world, &format!("7{:x}", number % 16), number);
    }
    let fake = fake_relay(&world, Flavour::Main).await;
    // One at a time, so that a listing that failed leaves no question on its way.
    let relay = relay_with(&fake, RelayLimits { requests_in_flight_max: 1, ..brisk() });
    relay.list().await.unwrap();
    let learnt = {
        let before = pages(&fake);
        relay.list().await.unwrap();
        pages(&fake) - before
    };
    assert_eq!(learnt, 31, "fifteen digits, and sixteen below the seventh");
    fake.set_faults(vec![Fault::new("/nodes/77", FaultKind::TruncatedJson)]);
    assert!(relay.list().await.is_err());
    // Full pages everywhere, none of them true.
    let many: Vec<String> = (0..50).map(|number| format!(r#""{number}":[]"#)).collect();
    let full = FaultKind::Status(200, format!("{{{}}}", many.join(",")));
    fake.set_faults(vec![Fault::new("/nodes", full)]);
    assert_eq!(reason(relay.list().await), Reason::MalformedAnswer);
    fake.set_faults(Vec::new());
    let before = pages(&fake);
    assert_eq!(relay.list().await.unwrap().len(), 400);
    assert_eq!(pages(&fake) - before, learnt);
}

#[tokio::test]
async fn a_relay_stopped_and_started_again() {
    let world = world();
    let mut timing = world.timing();
    timing.register_again = (Duration::ZERO, Duration::ZERO);
    world.set_timing(timing);
    let node = world.add_requestor();
    let fake = fake_relay(&world, Flavour::Main).await;
    let relay = relay(&fake);
    assert_eq!(ids(&relay.list().await.unwrap()), [id(&node)]);
    fake.stop().await;
    assert_eq!(reason(relay.list().await), Reason::RelayError);
    fake.start_again().await.unwrap();
    assert_eq!(ids(&relay.list().await.unwrap()), [id(&node)]);
}

#[tokio::test]
async fn a_frozen_relay() {
    let world = world();
    world.add_requestor();
    let fake = fake_relay(&world, Flavour::Main).await;
    let hasty = relay_with(&fake, impatient());
    fake.freeze();
    assert_eq!(reason(hasty.list().await), Reason::TimedOut);
    fake.thaw();
    assert_eq!(relay(&fake).list().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_network_too_large_for_the_time() {
    let fake = fake_relay(&world(), Flavour::Main).await;
    let listing_timeout = Duration::from_millis(250);
    let slow = RelayLimits { requests_per_s_max: 10, listing_timeout, ..brisk() };
    let fault = relay_with(&fake, slow).list().await.unwrap_err();
    assert_eq!(fault.reason, Reason::TimedOut);
    assert!(fault.detail.contains("pages read in 250ms"), "{fault}");
}
