//! A listing is whole, whatever the relay's pages look like.

use super::*;

#[tokio::test]
async fn both_revisions() {
    for flavour in [Flavour::Main, Flavour::Pinned] {
        let world = world();
        let nodes: Vec<String> = (0..30).map(|_| world.add_requestor()).collect();
        let fake = fake_relay(&world, flavour).await;
        let listed = relay(&fake).list().await.unwrap();
        assert_eq!(ids(&listed), expected(&nodes), "{flavour:?}");
        assert_eq!(pages(&fake), FIRST_PAGES);
    }
}

#[tokio::test]
async fn a_relay_that_knows_nobody() {
    let fake = fake_relay(&world(), Flavour::Main).await;
    assert_eq!(relay(&fake).list().await, Ok(Vec::new()));
}

#[tokio::test]
async fn ages_are_those_of_the_relay_and_never_too_small() {
    let world = world();
    let recent = world.add_requestor();
    let dead = world.add_requestor();
    world.set_seen_age(&recent, Duration::from_secs(7));
    world.kill_ago(&dead, Duration::from_secs(300));
    let fake = fake_relay(&world, Flavour::Main).await;
    let listed = relay(&fake).list().await.unwrap();
    for node in [&recent, &dead] {
        let age = listed.iter().find(|listed| listed.node_id == id(node)).unwrap().seen_ago;
        let now = world.seen_age(node).unwrap();
        // Both clocks run on; what lies between is how long the listing took.
        assert!(age <= now + Duration::from_secs(5), "{age:?} {now:?}");
        assert!(age + Duration::from_secs(5) >= now, "{age:?} {now:?}");
    }
    // The true answer, later: the age is counted from the question.
    let late = Duration::from_millis(200);
    fake.set_faults(vec![Fault::new("/nodes", FaultKind::Latency(late))]);
    let before = world.seen_age(&dead).unwrap();
    // All pages at once, so that none waits for others.
    let relay = relay_with(&fake, RelayLimits { requests_in_flight_max: 16, ..brisk() });
    let listed = relay.list().await.unwrap();
    let age = listed.iter().find(|listed| listed.node_id == id(&dead)).unwrap().seen_ago;
    assert!(age >= before + late, "{age:?} {before:?}");
}

#[tokio::test]
async fn thousands_of_nodes_and_none_is_lost() {
    let world = world();
    let mut nodes: Vec<String> = (0..2_500).map(|_| world.add_requestor()).collect();
    // Far too many for one page down to the sixth digit, and as many as fit at the eighth.
    nodes.extend((0..200).map(|number| add(&world, &format!("abcde{}", number % 10), number)));
    nodes.extend((0..49).map(|number| add(&world, "01234567", number)));
    let fake = fake_relay(&world, Flavour::Main).await;
    let relay = relay(&fake);
    let expected = expected(&nodes);
    assert_eq!(ids(&relay.list().await.unwrap()), expected);
    let first = pages(&fake);
    assert_eq!(ids(&relay.list().await.unwrap()), expected);
    let second = pages(&fake) - first;
    assert!(second < first && second > 256, "{first} {second}");
    assert_eq!(ids(&relay.clone().list().await.unwrap()), expected);
    assert_eq!(pages(&fake) - first - second, second, "as many leaves as before");
    // Most go away; the next listing learns it, the one after asks few questions again.
    for node in &nodes[100..] {
        world.purge(node);
    }
    let few = ids(&relay.list().await.unwrap());
    assert_eq!(few, super::expected(&nodes[..100]));
    let before = pages(&fake);
    assert_eq!(ids(&relay.list().await.unwrap()), few);
    assert_eq!(pages(&fake) - before, FIRST_PAGES);
}

#[tokio::test]
async fn eight_digits_that_too_many_share() {
    let world = world();
    for number in 0..50 {
        add(&world, "01234567", number);
    }
    let fake = fake_relay(&world, Flavour::Main).await;
    let fault = relay(&fake).list().await.unwrap_err();
    assert_eq!(fault.reason, Reason::RelayError);
    assert!(fault.detail.contains("/nodes/01234567: 50 nodes or more"), "{fault}");
}

#[tokio::test]
async fn ids_in_upper_case() {
    let fake = fake_relay(&world(), Flavour::Main).await;
    let answer = r#"{"0x85F06344FDE97D390E87B0840B0325212F26EBA7":[{"seen":"3s"}],
        "0x85f06344fde97d390e87b0840b0325212f26eba7":[{"seen":"2s"}]}"#;
    fake.set_faults(vec![Fault::new("/nodes/8", FaultKind::Status(200, answer.to_owned()))]);
    let listed = relay(&fake).list().await.unwrap();
    let [listed] = listed.as_slice() else { panic!("{listed:?}") };
    assert_eq!(listed.node_id.to_string(), "0x85f06344fde97d390e87b0840b0325212f26eba7");
    assert_eq!(listed.seen_ago.as_secs(), 2, "the younger of the two");
}

#[tokio::test]
async fn of_two_sessions_the_younger_counts() {
    let world = world();
    let node = world.add_requestor();
    world.kill_ago(&node, Duration::from_secs(120));
    world.revive_elsewhere(&node);
    let fake = fake_relay(&world, Flavour::Main).await;
    let listed = relay(&fake).list().await.unwrap();
    assert_eq!(ids(&listed), [id(&node)]);
    assert!(listed[0].seen_ago < Duration::from_secs(20), "{listed:?}");
}

#[tokio::test]
async fn the_three_shapes_of_nothing() {
    let world = world();
    let living = add(&world, "a7", 1);
    // As many as a page has, all in the same shape of nothing: the page is full all the same.
    let leaving: Vec<String> =
        (0..60).map(|number| add(&world, &format!("a{:x}", number % 16), number)).collect();
    let fake = fake_relay(&world, Flavour::Main).await;
    let relay = relay(&fake);
    assert_eq!(relay.list().await.unwrap().len(), 61);
    for node in &leaving {
        world.stop(node);
    }
    for shape in ["null", "empty", "absent"] {
        assert_eq!(ids(&relay.list().await.unwrap()), [id(&living)], "{shape}");
        world.advance(Duration::from_secs(if shape == "null" { 1 } else { 5 }));
    }
}

#[tokio::test]
async fn a_listing_that_is_too_large() {
    let world = world();
    let nodes: Vec<String> = (0..20).map(|_| world.add_requestor()).collect();
    let fake = fake_relay(&world, Flavour::Main).await;
    let limited = |nodes_max| relay_with(&fake, RelayLimits { nodes_max, ..brisk() });
    assert_eq!(reason(limited(19).list().await), Reason::AnswerTooLarge);
    assert_eq!(ids(&limited(20).list().await.unwrap()), expected(&nodes));
}

#[tokio::test]
async fn questions_are_spread_over_time() {
    let fake = fake_relay(&world(), Flavour::Main).await;
    let relay = relay_with(&fake, RelayLimits { requests_per_s_max: 100, ..brisk() });
    let begun = tokio::time::Instant::now();
    relay.list().await.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(150), "{:?}", begun.elapsed());
}
