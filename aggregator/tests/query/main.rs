//! The query service over real sockets: what it answers, what it refuses and how, pages that stay
//! consistent, and watchers that come, go, and fall behind.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../shared/fixture.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared by several test binaries")]
mod fixture;
mod paging;
mod service;
#[path = "../shared/stepping.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared by several test binaries")]
mod stepping;
mod watching;

use std::collections::BTreeSet;

use tonic::{Code, Status};
use tonic_types::StatusExt;
use uptime_proto::{v1, words};

use service::{PERIOD_S, Service, id, round_s};

fn window(from_unix_s: u64, to_unix_s: u64) -> Option<v1::Window> {
    Some(v1::Window { from_unix_s, to_unix_s })
}

/// The field that a refusal names.
fn field_of(status: &Status) -> String {
    let violations = status.get_details_bad_request().map(|it| it.field_violations);
    let fields = violations.into_iter().flatten().map(|violation| violation.field);
    fields.collect::<Vec<_>>().join(",")
}

/// Node 0 is always up; node 1 is down in rounds 2 and 3 and of unknown fate in round 4.
async fn told(service: &mut Service) {
    for at in 0..6u64 {
        match at {
            2 | 3 => service.round(at, 2, &[0], &[1]).await,
            4 => service.round(at, 2, &[0], &[]).await,
            _ => service.round(at, 2, &[0, 1], &[]).await,
        }
    }
}

#[tokio::test]
async fn any_window_is_answered_exactly() {
    let directory = tempfile::tempdir().unwrap();
    let mut service = Service::new(&directory, 3).await;
    told(&mut service).await;
    let ids = vec![id(1).to_string(), id(0).to_string(), id(99).to_string()];
    let mut ask = async |window| {
        let request = v1::GetUptimeRequest { ids: ids.clone(), window, ..Default::default() };
        service.query.get_uptime(request).await.map(tonic::Response::into_inner)
    };
    let all = ask(None).await.unwrap();
    let [one, zero, nobody] = all.nodes.as_slice() else { panic!("{all:?}") };
    let figures = one.figures.unwrap();
    let rounds = (figures.up_rounds, figures.down_rounds, figures.unknown_rounds);
    assert_eq!(rounds, (3, 2, 1));
    assert_eq!(figures.uptime_percent, Some(60.0));
    assert_eq!(figures.coverage_percent, Some(100.0 * 5.0 / 6.0));
    assert_eq!(figures.window, window(round_s(0), round_s(6)));
    assert_eq!(zero.figures.unwrap().uptime_percent, Some(100.0));
    assert_eq!((nobody.id.clone(), nobody.figures.is_none()), (id(99).to_string(), true));
    let fresh = all.freshness.unwrap();
    assert_eq!((fresh.last_closed_round_unix_s, fresh.method), (round_s(5), "fresh-v1".to_owned()));

    // Rounds whose start lies in the window; ends need not be on the grid.
    for (from_s, to_s, up, down, clipped) in [
        (round_s(1), round_s(4), 1, 2, (round_s(1), round_s(4))),
        (round_s(1) - 5, round_s(2) + 1, 1, 1, (round_s(1), round_s(3))),
        (1, round_s(0), 0, 0, (round_s(0), round_s(0))),
        (round_s(50), 0, 0, 0, (round_s(50), round_s(50))),
        (1, 253_402_300_799, 3, 2, (round_s(0), round_s(6))),
    ] {
        let answer = ask(window(from_s, to_s)).await.unwrap();
        let figures = answer.nodes[0].figures.unwrap();
        assert_eq!((figures.up_rounds, figures.down_rounds), (up, down), "[{from_s}, {to_s})");
        assert_eq!(figures.window, window(clipped.0, clipped.1), "[{from_s}, {to_s})");
        assert_eq!(figures.up_s, up * PERIOD_S);
    }
    // How it stood when a round of the past was the last one.
    let (up, down, unknown) = (v1::Verdict::Up, v1::Verdict::Down, v1::Verdict::Unknown);
    let span = |from, to| Some((round_s(from), round_s(to)));
    for (from_s, to_s, stood, ups) in [
        (1, round_s(6), Some((up, true)), span(0, 6)),
        (1, round_s(5), Some((unknown, false)), span(0, 2)),
        (1, round_s(3), Some((down, false)), span(0, 2)),
        (1, round_s(2), Some((up, true)), span(0, 2)),
        (round_s(2), round_s(5), Some((unknown, false)), None),
        (1, round_s(0), None, None),
    ] {
        let answer = ask(window(from_s, to_s)).await.unwrap();
        let one = &answer.nodes[0];
        let found = one.verdict.map(|_| one.verdict()).zip(one.is_online);
        let up = one.first_up_unix_s.zip(one.up_until_unix_s);
        assert_eq!((found, up), (stood, ups), "[{from_s}, {to_s})");
    }
    for (from_s, to_s) in [(9, 9), (10, 9), (0, u64::MAX)] {
        let refused = ask(window(from_s, to_s)).await.unwrap_err();
        assert_eq!(
            (refused.code(), field_of(&refused).as_str()),
            (Code::InvalidArgument, "window.to_unix_s")
        );
    }
    let bad =
        v1::GetUptimeRequest { ids: vec![ids[0].clone(), "0x12".into()], ..Default::default() };
    let refused = service.query.get_uptime(bad).await.unwrap_err();
    assert_eq!(field_of(&refused), "ids[1]");
    let many = v1::GetUptimeRequest { ids: vec![ids[0].clone(); 1_001], ..Default::default() };
    let refused = service.query.get_uptime(many).await.unwrap_err();
    assert_eq!(field_of(&refused), "ids");
}

#[tokio::test]
async fn a_round_is_explained_down_to_who_saw_what() {
    let directory = tempfile::tempdir().unwrap();
    let mut service = Service::new(&directory, 3).await;
    told(&mut service).await;
    service.sample(1, 2, 15_000, 4_321).await;
    let mut ask = async |node: u64, round_unix_s| {
        let request = v1::ExplainRequest { id: id(node).to_string(), round_unix_s };
        service.query.explain(request).await.map(tonic::Response::into_inner)
    };
    let account = ask(1, round_s(3)).await.unwrap();
    assert_eq!(account.verdict(), v1::Verdict::Down);
    assert_eq!(account.rule, "down: none of the 3 probes that looked could reach it");
    let counts = (account.eligible_probes, account.eligible_looked, account.eligible_unreachable);
    assert_eq!(counts, (3, 3, 3));
    assert_eq!(account.probes.len(), 3);
    let market = &account.probes[0].parts[1];
    assert_eq!(market.evidence().next(), Some(v1::EvidenceClass::Offer));
    assert_eq!((market.subnet.as_str(), market.kind()), ("public", v1::PartKind::Market));
    let lookup = &account.probes[2].parts[0];
    assert_eq!(lookup.evidence().next(), Some(v1::EvidenceClass::Unreachable));
    assert_eq!(lookup.observed_at_unix_ms, i64::try_from(round_s(3) * 1000).unwrap() + 20_000);
    assert_eq!(account.epoch.unwrap().positive_probes_min, 1);
    // An age was told in the round before, and has grown since.
    assert_eq!(account.probes[0].parts[0].seen_age_ms, Some(45_000));
    assert_eq!(account.probes[1].parts[0].seen_age_ms, None);
    assert!(account.probes[1].parts[0].age_kept, "the relay did not know it");
    let last = ask(1, 0).await.unwrap();
    assert_eq!((last.round_unix_s, last.verdict()), (round_s(5), v1::Verdict::Up));
    let unknown = ask(1, round_s(4)).await.unwrap();
    assert!(unknown.rule.contains("no probe that could see well looked"), "{}", unknown.rule);

    for (round_s, code) in [
        (round_s(6), Code::InvalidArgument),
        (round_s(3) + 1, Code::InvalidArgument),
        (u64::MAX, Code::InvalidArgument),
    ] {
        let refused = ask(1, round_s).await.unwrap_err();
        assert_eq!((refused.code(), field_of(&refused).as_str()), (code, "round_unix_s"));
    }
    assert_eq!(ask(9, 0).await.unwrap_err().code(), Code::NotFound);
    let before = ask(1, round_s(0) - PERIOD_S).await.unwrap();
    service.close(6).await;
    let request = v1::GetNodeRequest { id: id(1).to_string(), round_unix_s: 0 };
    let node = service.query.get_node(request).await.unwrap().into_inner().node.unwrap();
    assert_eq!(node.round_trip_us, Some(4_321));
    assert!(
        before.rule.ends_with(". The round lies before its first offer and does not count"),
        "{}",
        before.rule
    );
}

/// Who was not asked again is told since when; and of rounds long ago nobody says that the relay
/// did not know a node. A daemon's error is told apart from silence, and makes no probe ail.
#[tokio::test]
async fn what_was_asked_is_told_from_what_was_not() {
    let directory = tempfile::tempdir().unwrap();
    let mut service = Service::new(&directory, 3).await;
    service.round(0, 3, &[0, 1, 2], &[]).await;
    service.round(1, 3, &[0, 2], &[1]).await;
    service.standing_round(2, 3, &[0], 1, 2).await;
    let mut ask = async |node: u64, round_unix_s| {
        let request = v1::ExplainRequest { id: id(node).to_string(), round_unix_s };
        service.query.explain(request).await.unwrap().into_inner()
    };
    let account = ask(1, 0).await;
    assert_eq!(account.verdict(), v1::Verdict::Down);
    for probe in &account.probes {
        let part = words::told_parts(probe).find(|part| part.kind() == v1::PartKind::Lookup);
        let part = part.unwrap();
        assert_eq!(
            part.evidence().collect::<Vec<_>>(),
            [v1::EvidenceClass::Unreachable, v1::EvidenceClass::AskedEarlier]
        );
        assert_eq!((part.asked_round_unix_s, part.age_kept), (Some(round_s(1)), true));
    }
    let account = ask(2, 0).await;
    assert_eq!(account.verdict(), v1::Verdict::Unknown);
    assert!(account.rule.contains("3 probes asked, but their own daemons"), "{}", account.rule);
    for probe in &account.probes {
        assert_eq!(words::Found::of(probe), words::Found::DaemonError, "{probe:?}");
    }
    let probes = service.query.list_probes(v1::ListProbesRequest {}).await.unwrap().into_inner();
    for probe in probes.probes {
        assert!(probe.eligible && probe.could_not_look.is_empty(), "{probe:?}");
        assert_eq!(probe.failed_nodes, 1);
    }
    let rounds = service.query.list_rounds(v1::ListRoundsRequest::default()).await.unwrap();
    let newest = &rounds.get_ref().rounds[0];
    assert!(newest.probes.iter().all(|probe| probe.failed_nodes == 1), "{newest:?}");
    // Twenty rounds later.
    service.round(22, 3, &[0, 1, 2], &[]).await;
    service.round(23, 3, &[0, 2], &[1]).await;
    for (at, kept) in [(1, false), (2, false), (23, true)] {
        let request = v1::ExplainRequest { id: id(1).to_string(), round_unix_s: round_s(at) };
        let account = service.query.explain(request).await.unwrap().into_inner();
        let gone = v1::EvidenceClass::Unreachable as i32;
        let mut told = words::told_parts(&account.probes[0]);
        assert_eq!(told.find(|part| part.evidence.contains(&gone)).unwrap().age_kept, kept, "{at}");
    }
}

/// An unknown round between two rounds up begins nothing anew, nor does one between two down.
#[tokio::test]
async fn an_unknown_round_does_not_end_a_stretch() {
    let directory = tempfile::tempdir().unwrap();
    let mut service = Service::new(&directory, 3).await;
    for (at, letter) in (0u64..).zip("+++ + - --  +".chars()) {
        let (seen, dead): (&[u64], &[u64]) = match letter {
            '+' => (&[0, 1], &[]),
            '-' => (&[0], &[1]),
            _ => (&[0], &[]),
        };
        service.round(at, 2, seen, dead).await;
    }
    let mut ask = async |at| {
        let request = v1::GetNodeRequest { id: id(1).to_string(), round_unix_s: round_s(at) };
        service.query.get_node(request).await.unwrap().into_inner().node.unwrap()
    };
    for (at, verdict_since, state_since, unknown_rounds) in [
        (0, 0, 0, 0),
        (2, 0, 0, 0),
        (3, 3, 0, 0),
        (4, 4, 0, 1),
        (5, 5, 0, 1),
        (6, 6, 6, 0),
        (7, 7, 6, 0),
        (9, 8, 6, 1),
        (11, 10, 6, 1),
        (12, 12, 12, 0),
    ] {
        let node = ask(at).await;
        assert_eq!(node.verdict_since_unix_s, round_s(verdict_since), "{at}");
        let found = (node.state_since_unix_s, node.state_unknown_rounds);
        assert_eq!(found, (round_s(state_since), unknown_rounds), "{at}");
    }
    let request = v1::ListOutagesRequest { id: id(1).to_string(), ..Default::default() };
    let outages = service.query.list_outages(request).await.unwrap().into_inner().outages;
    let [outage] = outages.as_slice() else { panic!("{outages:?}") };
    assert_eq!((outage.from_unix_s, outage.to_unix_s), (round_s(6), round_s(12)));
    let ids = vec![id(1).to_string()];
    let window = window(outage.from_unix_s, outage.to_unix_s);
    let request = v1::GetUptimeRequest { ids, window, ..Default::default() };
    let uptime = service.query.get_uptime(request).await.unwrap().into_inner();
    let unknown = outage.unknown_stretches.iter().map(|it| it.to_unix_s - it.from_unix_s);
    assert_eq!(uptime.nodes[0].figures.unwrap().unknown_s, unknown.sum::<u64>());
}

#[tokio::test]
async fn a_node_is_shown_as_it_was_when_a_round_was_closed() {
    let directory = tempfile::tempdir().unwrap();
    let mut service = Service::new(&directory, 3).await;
    told(&mut service).await;
    service.round(6, 3, &[0, 2], &[1]).await;
    let mut ask = async |node: u64, round_unix_s| {
        let request = v1::GetNodeRequest { id: id(node).to_string(), round_unix_s };
        service.query.get_node(request).await.map(tonic::Response::into_inner)
    };
    let (up, down, unknown) = (v1::Verdict::Up, v1::Verdict::Down, v1::Verdict::Unknown);
    // By round: the verdict, since which round, online, last seen in which round, rounds up.
    for (at, verdict, since, online, seen, ups) in [
        (0, up, 0, true, 0, 1),
        (1, up, 0, true, 1, 2),
        (2, down, 2, false, 1, 2),
        (3, down, 2, false, 1, 2),
        (4, unknown, 4, false, 1, 2),
        (5, up, 5, true, 5, 3),
        (6, down, 6, false, 5, 3),
    ] {
        let answer = ask(1, round_s(at)).await.unwrap();
        assert_eq!(answer.round_unix_s, round_s(at));
        let node = answer.node.unwrap();
        assert_eq!((node.verdict(), node.is_online), (verdict, online), "{at}");
        assert_eq!(node.verdict_since_unix_s, round_s(since), "{at}");
        let seen_ms = i64::try_from(round_s(seen) * 1000).unwrap() + 20_000;
        assert_eq!(node.last_seen_unix_ms, Some(seen_ms), "{at}");
        let all = node.all.unwrap();
        assert_eq!((all.up_rounds, all.window), (ups, window(round_s(0), round_s(at + 1))), "{at}");
        assert_eq!((node.retired, node.subnets), (false, vec!["public".to_owned()]));
    }
    let now = ask(1, 0).await.unwrap();
    let last = ask(1, round_s(6)).await.unwrap();
    assert_eq!((now.node, now.round_unix_s), (last.node, last.round_unix_s));
    let before = ask(2, round_s(5)).await.unwrap_err();
    assert_eq!(before.code(), Code::NotFound);
    assert!(before.message().contains("not confirmed, by the end of round"), "{before:?}");
    assert!(ask(2, round_s(6)).await.unwrap().node.unwrap().last_seen_unix_ms.is_some());
    for round_s in [round_s(7), round_s(3) + 1, u64::MAX] {
        let refused = ask(1, round_s).await.unwrap_err();
        assert_eq!(field_of(&refused), "round_unix_s");
    }
}

#[tokio::test]
async fn round_trips_of_a_window_are_answered_where_they_are_wanted() {
    let directory = tempfile::tempdir().unwrap();
    let mut service = Service::new(&directory, 3).await;
    told(&mut service).await;
    service.sample(1, 2, 15_000, 4_321).await;
    service.sample(1, 4, 15_000, 6_322).await;
    let latency = v1::Latency { samples: 2, min_us: 4_321, mean_us: 5_321, max_us: 6_322 };
    let some = vec![id(0).to_string(), id(99).to_string(), id(1).to_string()];
    let mut ask = async |ids: &[String], with_latency, window| {
        let ids = ids.to_vec();
        let request = v1::GetUptimeRequest { ids, window, with_latency, ..Default::default() };
        let answer = service.query.get_uptime(request).await.unwrap().into_inner();
        answer.nodes.into_iter().map(|node| node.latency).collect::<Vec<_>>()
    };
    assert_eq!(ask(&some, true, None).await, [None, None, Some(latency)]);
    assert_eq!(ask(&some, false, None).await, [None; 3]);
    assert_eq!(ask(&[], true, None).await, [None, Some(latency)], "all nodes, by id");
    let another_day = window(round_s(0) + 86_400, 0);
    assert_eq!(ask(&some, true, another_day).await, [None; 3]);
    let same_day = window(round_s(5), round_s(6));
    assert_eq!(ask(&some, true, same_day).await, [None, None, Some(latency)]);
}

#[tokio::test]
async fn outages_come_with_what_is_not_known_of_them() {
    let directory = tempfile::tempdir().unwrap();
    let mut service = Service::new(&directory, 3).await;
    told(&mut service).await;
    for at in 6..12u64 {
        let dead: &[u64] = if at % 2 == 0 { &[1] } else { &[] };
        let seen: &[u64] = if at % 2 == 0 { &[0] } else { &[0, 1] };
        service.round(at, 2, seen, dead).await;
    }
    service.round(12, 2, &[0], &[1]).await;
    let mut ask = async |page_token: &str, window| {
        let page_token = page_token.to_owned();
        let id = id(1).to_string();
        let request = v1::ListOutagesRequest { id, window, page_size: 2, page_token };
        service.query.list_outages(request).await.map(tonic::Response::into_inner)
    };
    let first = ask("", None).await.unwrap();
    let outage = &first.outages[0];
    assert_eq!(
        (outage.from_unix_s, outage.to_unix_s, outage.open),
        (round_s(2), round_s(5), false)
    );
    assert_eq!(outage.unknown_stretches, [window(round_s(4), round_s(5)).unwrap()]);
    let second = ask(&first.next_page_token, None).await.unwrap();
    let third = ask(&second.next_page_token, None).await.unwrap();
    assert_eq!((first.outages.len(), second.outages.len(), third.outages.len()), (2, 2, 1));
    assert!(third.next_page_token.is_empty());
    let last = &third.outages[0];
    assert_eq!((last.from_unix_s, last.to_unix_s, last.open), (round_s(12), round_s(13), true));
    // One that began before the window is shown from its own beginning.
    let some = ask("", window(round_s(3), round_s(6))).await.unwrap();
    assert_eq!(some.outages, std::slice::from_ref(outage));
    let other = ask(&first.next_page_token, window(1, 2)).await.unwrap_err();
    assert_eq!(field_of(&other), "page_token");
}

/// A network larger than a page, listed while rounds close: each page is of the first page's
/// moment.
#[tokio::test]
async fn pages_are_consistent_while_rounds_close() {
    const NODES: u64 = 2_300;
    let directory = tempfile::tempdir().unwrap();
    let mut service = Service::new(&directory, 2).await;
    let half: Vec<u64> = (0..NODES / 2).collect();
    service.round(0, NODES, &half, &[]).await;
    for (order, descending) in [
        (v1::NodeOrder::Id, false),
        (v1::NodeOrder::Uptime, true),
        (v1::NodeOrder::LastSeen, true),
        (v1::NodeOrder::Name, false),
    ] {
        let at = 1 + order as u64 * 10;
        let (mut all, mut token, mut pages) = (Vec::new(), String::new(), 0u64);
        loop {
            let request = v1::ListNodesRequest {
                page_size: 1_000_000_000,
                page_token: token,
                order: order as i32,
                descending,
                ..Default::default()
            };
            let page = service.query.list_nodes(request).await.unwrap().into_inner();
            assert_eq!(page.total, NODES);
            all.extend(page.nodes);
            pages += 1;
            // Everybody changes sides between pages.
            let other: Vec<u64> = (0..NODES).filter(|node| (node + pages) % 2 == 0).collect();
            service.round(at + pages, NODES, &other, &[]).await;
            token = page.next_page_token;
            if token.is_empty() {
                break;
            }
        }
        assert_eq!(pages, 3, "a page has a thousand nodes at most");
        let distinct: BTreeSet<&str> = all.iter().map(|node| node.id.as_str()).collect();
        assert_eq!(distinct.len() as u64, NODES, "each once");
        let moments: BTreeSet<u64> = all
            .iter()
            .map(|node| node.all.as_ref().unwrap().window.as_ref().unwrap().to_unix_s)
            .collect();
        assert_eq!(moments.len(), 1, "all of one moment");
    }
    let zero = v1::ListNodesRequest::default();
    assert_eq!(service.query.list_nodes(zero).await.unwrap().into_inner().nodes.len(), 100);
    let bad = v1::ListNodesRequest { order: 77, ..Default::default() };
    assert_eq!(field_of(&service.query.list_nodes(bad).await.unwrap_err()), "order");
    let bad = v1::ListNodesRequest { page_token: "next".into(), ..Default::default() };
    assert_eq!(field_of(&service.query.list_nodes(bad).await.unwrap_err()), "page_token");
}

#[tokio::test]
async fn the_network_in_a_few_numbers() {
    let directory = tempfile::tempdir().unwrap();
    let mut service = Service::new(&directory, 1).await;
    service.round(0, 4, &[0, 1], &[2]).await;
    let summary = service.query.get_summary(v1::GetSummaryRequest {}).await.unwrap().into_inner();
    // Two gave a sign of life; of the others one probe's offer alone is not enough.
    let numbers = (summary.nodes, summary.online, summary.retired, summary.unconfirmed);
    assert_eq!(numbers, (2, 2, 0, 2));
    assert_eq!((summary.probes_eligible, summary.freshness.is_some()), (1, true));
    // A day and a half later nobody is a member of the market any more.
    service.close(4_320).await;
    let mut count = async |members_only| {
        let filter = Some(v1::NodeFilter { members_only, ..Default::default() });
        let request = v1::ListNodesRequest { filter, ..Default::default() };
        service.query.list_nodes(request).await.unwrap().into_inner().total
    };
    assert_eq!((count(false).await, count(true).await), (2, 0));
}

/// What a probe says it has nothing of is told with it, also by a process that was started since:
/// the last of it, each once.
#[tokio::test]
async fn gaps_are_told_with_their_probe() {
    let directory = tempfile::tempdir().unwrap();
    let mut service = Service::new(&directory, 2).await;
    let told = async |service: &mut Service| {
        let request = v1::ListProbesRequest {};
        let probes = service.query.list_probes(request).await.unwrap().into_inner().probes;
        let gap = |gap: &v1::ProbeGap| {
            assert_eq!(gap.reason(), v1::CouldNotLookReason::SpoolFull);
            (gap.from_round_unix_s, gap.to_round_unix_s)
        };
        probes.iter().map(|probe| probe.gaps.iter().map(gap).collect()).collect::<Vec<Vec<_>>>()
    };
    // Out of order, one of them twice, and more than are shown.
    let ranges: Vec<(u64, u64)> =
        (0..10).map(|at| (round_s(at * 4), round_s(at * 4 + 2))).collect();
    for at in [3, 1, 0, 2, 2, 9, 7, 8, 4, 6, 5] {
        service.gap(1, ranges[at]).await;
    }
    service.close(50).await;
    let wanted = vec![vec![], ranges[2..].to_vec()];
    assert_eq!(told(&mut service).await, wanted);
    // Nor does whoever asks why a round is as it is have to guess.
    service.round(51, 1, &[0], &[]).await;
    service.gap(1, (round_s(52), round_s(53))).await;
    service.close(53).await;
    let mut why = async |at| {
        let request = v1::ExplainRequest { id: id(0).to_string(), round_unix_s: round_s(at) };
        service.query.explain(request).await.unwrap().into_inner().rule
    };
    let words = ". probe-1 has nothing of this round: its spool was full";
    let (within, after) = (why(52).await, why(53).await);
    assert!(within.ends_with(words) && !after.contains("nothing of this round"), "{within}");
    let wanted = vec![vec![], [&ranges[3..], &[(round_s(52), round_s(53))]].concat()];
    let store = service.end().await;
    let mut service = Service::over(store, round_s(60)).await;
    assert_eq!(told(&mut service).await, wanted);
    // What ended more than a week ago is not told after a start.
    let store = service.end().await;
    let mut service = Service::over(store, ranges[7].1 + 7 * 86_400).await;
    assert_eq!(told(&mut service).await, vec![vec![], wanted[1][5..].to_vec()]);
}
