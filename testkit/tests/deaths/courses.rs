//! Random courses of deaths and trouble: what lives is never down, and what is dead is down as soon
//! as enough probes can say so.
//!
//! No time is waited for: the network's clock is pushed from one moment of a round to the next, in
//! rounds of half a minute and with all the network's measured times. The look-ups, the memory of
//! the long dead and the ledger are the shipped ones; the questions go to fake daemons over
//! sockets. `vantage` has what a probe does between them, `ledger` who is asked.

mod ledger;
mod network;
mod vantage;

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use uptime_accounting::verdict::Verdict;
use uptime_proto::NodeId;

use ledger::Ledger;
use network::{Network, Step};
use vantage::Vantage;

/// Courses tried, unless told otherwise.
const CASES: u32 = 8;
/// A course takes as long as so many histories of those that `UPTIME_TEST_CASES` counts.
const HISTORIES_PER_COURSE: u32 = 100;
/// When first look-ups are put and suspects are asked, in rounds of half a minute.
const LOOK_UPS: Duration = Duration::from_millis(22_500);
const SUSPECTS: Duration = Duration::from_millis(24_000);
/// From this round after a death on every one must be down that can be decided.
const DOWN_FROM: u64 = 3;

/// What happens in a round: before its look-ups, between the first ones and the suspects, after.
type Happens = [Vec<Step>; 3];

fn courses() -> impl Strategy<Value = (usize, u64, Vec<Happens>)> {
    let some = |most| prop::collection::vec(network::steps(), 0..=most);
    let round = (some(3), some(1), some(1)).prop_map(|(one, two, three)| [one, two, three]);
    (1..=4_usize, any::<u64>(), prop::collection::vec(round, 20..50))
}

/// What was judged, over all courses: a property that judges nothing proves nothing.
#[derive(Debug, Default)]
struct Census {
    living: u64,
    down: u64,
    /// Dead, and too few could say so.
    open: u64,
    /// Votes for which earlier questions stood in.
    stood_in: usize,
}

async fn run(probes: usize, seed: u64, course: &[Happens], census: &mut Census) {
    let mut network = Network::open(seed, probes).await;
    let mut ledger = Ledger::open(probes).await;
    let daemons = network.daemons.iter().enumerate();
    let mut vantages: Vec<Vantage> = daemons.map(|(at, it)| Vantage::new(at, it)).collect();
    for [before, between, after] in course {
        let round = ledger.round;
        network.pass_until(round, Duration::ZERO);
        network.take(before).await;
        ledger.offers(&network.nodes(), network.now_ms()).await;
        network.pass_until(round, LOOK_UPS);
        let asked = ledger.standing();
        let each = vantages.iter_mut().zip(&asked);
        let parts = join_all(each.map(|(it, ids)| it.first(&network, round, ids))).await;
        for (at, parts) in parts.into_iter().enumerate() {
            ledger.take(at, parts, network.now_ms()).await;
        }
        network.take(between).await;
        network.pass_until(round, SUSPECTS);
        let asked = ledger.suspects();
        let each = vantages.iter_mut().zip(&asked);
        let parts = join_all(each.map(|(it, ids)| it.suspects(&network, round, ids))).await;
        for (at, parts) in parts.into_iter().enumerate() {
            ledger.take(at, parts, network.now_ms()).await;
        }
        census.stood_in += vantages.iter().map(|vantage| vantage.stood_in).sum::<usize>();
        network.take(after).await;
        ledger.close().await;
        judge(&network, &ledger, &asked, census);
        ledger.next();
    }
}

/// Holds the round that has just closed to what happened.
fn judge(network: &Network, ledger: &Ledger, asked: &[BTreeSet<NodeId>], census: &mut Census) {
    let round = ledger.round;
    let eligible = ledger.eligible();
    for (id, verdict) in ledger.verdicts() {
        let said = format!("{id} in {}, {eligible:?}: {}", round.start_s(), network.told(id));
        if network.lived_through(id, round) {
            assert_ne!(verdict, Verdict::Down, "it lived: {said}");
            census.living += 1;
        } else if network.dead_for_rounds(id, round) >= Some(DOWN_FROM) {
            assert_ne!(verdict, Verdict::Up, "it was dead: {said}");
            let of_eligible = eligible.iter().filter(|at| asked[**at].contains(&id)).count();
            let enough = of_eligible > 0 && of_eligible >= eligible.len().min(3);
            if enough && !ledger.failed(id) {
                assert_eq!(verdict, Verdict::Down, "it was dead: {said}");
                census.down += 1;
            } else {
                census.open += 1;
            }
        }
    }
}

/// The ordinary suite tries the same courses in every run, the long one others each time.
fn check(cases: u32, rng: TestRng) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let census = std::cell::RefCell::new(Census::default());
    let config = ProptestConfig {
        source_file: Some(file!()),
        max_shrink_iters: 100,
        ..ProptestConfig::with_cases(cases)
    };
    let result = TestRunner::new_with_rng(config, rng).run(&courses(), |(probes, seed, course)| {
        runtime.block_on(run(probes, seed, &course, &mut census.borrow_mut()));
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    let census = census.into_inner();
    eprintln!("{cases} courses: {census:?}");
    assert!(census.down * 3 > census.open, "hardly anybody dead was decided: {census:?}");
    assert!(census.living > census.down && census.stood_in > 0, "{census:?}");
}

#[test]
fn whatever_happens_the_living_are_never_down_and_the_dead_are() {
    check(CASES, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
}

#[test]
fn long_whatever_happens_the_living_are_never_down_and_the_dead_are() {
    let told = std::env::var("UPTIME_TEST_CASES").ok().and_then(|cases| cases.parse().ok());
    let cases = told.map_or(CASES, |cases: u32| cases.div_ceil(HISTORIES_PER_COURSE));
    let seed: [u8; 32] = rand::random();
    eprintln!("seed: {seed:?}");
    check(cases, TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
}
