//! Special cases that random histories rarely have, each written out.
//!
//! Owns one case per test. The oracle gives the expected result; a test states it where it matters.

use uptime_aggregator::store::StoreError;
use uptime_proto::{Class, Epoch, Kind, NodeId, Outcome, Part, PartKey, Period, Round, Sets};
use uptime_testkit::oracle::OracleFact;

use crate::drive::Driver;
use crate::world::{BEGIN_S, Rules, node_id};

const RULES: Rules = Rules { announced_slot: 0, period_s: 30, k: 1, retire_after_s: 30 * 86_400 };

fn ids(nodes: std::ops::Range<u64>) -> Vec<NodeId> {
    nodes.map(node_id).collect()
}

fn round(slot: u64) -> Round {
    Round::new(BEGIN_S + slot * 30, Period::new(30).unwrap()).unwrap()
}

/// A moment in a slot, milliseconds after it begins.
fn moment(slot: u64, after_ms: i64) -> i64 {
    round(slot).start_ms() + after_ms
}

fn fact(probe: u32, slot: u64, kind: Kind, sets: Sets) -> OracleFact {
    let subnet = if kind == Kind::Market { "public" } else { "" };
    let key = PartKey { subnet: subnet.to_owned(), round: round(slot), number: 0 };
    let part = Part {
        key,
        kind,
        outcome: Outcome::Looked,
        observed_at_ms: moment(slot, 10_000),
        relay_session_age_s: Some(600),
        sets,
    };
    OracleFact { probe, part }
}

fn offers(probe: u32, slot: u64, nodes: std::ops::Range<u64>) -> OracleFact {
    fact(probe, slot, Kind::Market, Sets::default().with(Class::Offer, ids(nodes)))
}

fn lookup(
    probe: u32,
    slot: u64,
    seen: std::ops::Range<u64>,
    unreachable: std::ops::Range<u64>,
) -> OracleFact {
    let sets = Sets::default().with(Class::Seen, ids(seen));
    fact(probe, slot, Kind::Lookup, sets.with(Class::Unreachable, ids(unreachable)))
}

async fn driver() -> Driver {
    Driver::new(&RULES.epoch(), 2, moment(0, 0)).await
}

/// What mass loss looks back on may have come after its round closed, while there was nothing yet
/// in memory, or only later rounds were.
#[tokio::test]
async fn mass_loss_looks_back_on_late_rounds() {
    for begins_with_another_round in [false, true] {
        let mut driver = driver().await;
        if begins_with_another_round {
            driver.submit(&[offers(2, 2, 0..1)], moment(2, 11_000)).await;
        }
        driver.catch_up(moment(3, 10_000)).await;
        driver.submit(&[offers(1, 1, 0..12), lookup(1, 1, 0..12, 0..0)], moment(3, 11_000)).await;
        driver.catch_up(moment(3, 12_000)).await;
        driver.compare(moment(3, 12_000), "late, but there");
        driver.submit(&[lookup(1, 3, 0..0, 0..12)], moment(3, 13_000)).await;
        driver.catch_up(moment(4, 10_000)).await;
        driver.compare(moment(4, 10_000), "sight was lost: nobody is down");
        assert!(driver.csv().lines().skip(1).all(|row| row.contains(",True,")), "{}", driver.csv());
        driver.restart(true, moment(4, 11_000)).await;
        driver.compare(moment(4, 11_000), "after a restart");
    }
}

/// Of two facts with one key that fall into different rounds, the one with the smaller digest
/// counts, in its own round, whichever came first and whatever has been closed meanwhile.
#[tokio::test]
async fn conflicting_facts_may_fall_into_different_rounds() {
    for (first_after_ms, second_after_ms) in [(1_000, 17_000), (17_000, 1_000)] {
        for close_between in [false, true] {
            let mut driver = driver().await;
            let rules = Rules { period_s: 15, ..RULES };
            driver.submit(&[offers(1, 0, 0..3)], moment(0, 11_000)).await;
            driver.reopen(&rules.epoch(), true, moment(1, 0)).await;
            // Long after the change, from a probe that has not heard of it.
            let version = |after_ms, seen: std::ops::Range<u64>| {
                let mut fact = lookup(1, 20, seen, 0..0);
                fact.part.observed_at_ms = moment(20, after_ms);
                fact
            };
            let now_ms = if close_between { moment(22, 0) } else { moment(20, 18_000) };
            driver.submit(&[version(first_after_ms, 0..2)], now_ms).await;
            driver.catch_up(now_ms).await;
            driver.submit(&[version(second_after_ms, 1..3)], now_ms).await;
            driver.catch_up(moment(60, 0)).await;
            driver.compare(moment(60, 0), "one of them counts");
            driver.restart(true, moment(60, 1)).await;
            driver.compare(moment(60, 1), "after a restart");
        }
    }
}

/// With a long grace, a part on an outdated grid may have been made many rounds after its own.
#[tokio::test]
async fn a_late_fact_on_an_outdated_grid_is_found_again() {
    let with_grace = |period_s| {
        let rules = Rules { period_s, ..RULES };
        Epoch { grace_s: 900, ..rules.epoch() }
    };
    let mut driver = Driver::new(&with_grace(30), 2, moment(0, 0)).await;
    driver.submit(&[offers(1, 0, 0..3)], moment(0, 11_000)).await;
    driver.reopen(&with_grace(15), true, moment(1, 0)).await;
    let mut made_late = lookup(1, 20, 0..2, 2..3);
    made_late.part.observed_at_ms = moment(20, 920_000);
    driver.catch_up(moment(120, 0)).await;
    driver.submit(&[made_late], moment(120, 1)).await;
    driver.catch_up(moment(120, 2)).await;
    driver.compare(moment(120, 2), "late");
    driver.restart(true, moment(120, 3)).await;
    driver.compare(moment(120, 3), "after a restart");
}

/// Beyond the retention facts expire and totals stay: answers about all time do not change, in the
/// running state, from a checkpoint, or from a replay.
#[tokio::test]
async fn sums_outlive_their_facts() {
    const DAYS: u64 = 41;
    let mut driver = driver().await;
    for slot in 0..6 {
        let (seen, dead) = if slot < 3 { (0..12, 12..14) } else { (0..9, 9..14) };
        for probe in 1..=2 {
            let facts =
                [offers(probe, slot, 0..14), lookup(probe, slot, seen.clone(), dead.clone())];
            driver.submit(&facts, moment(slot, 11_000)).await;
        }
    }
    let recent = DAYS * 2_880;
    let late_ms = moment(recent, 0);
    driver.catch_up(late_ms).await;
    driver.submit(&[lookup(1, recent, 0..3, 0..0)], moment(recent, 11_000)).await;
    let now_ms = moment(recent + 3, 0);
    driver.catch_up(now_ms).await;
    let before = driver.csv();
    assert_eq!(driver.let_go(late_ms - 3 * 86_400_000).await, 0, "nothing is so old yet");
    assert!(driver.let_go(now_ms + 86_400_000).await > 0);
    assert_eq!(driver.csv(), before, "the state that ran");
    driver.restart(true, now_ms).await;
    assert_eq!(driver.csv(), before, "the state that was kept");
    driver.forget_kept().await;
    driver.restart(true, now_ms).await;
    assert_eq!(driver.csv(), before, "the state made anew");
    let snapshot = driver.snapshot();
    let number = snapshot.ids.number(&node_id(0)).unwrap();
    let all = snapshot.windowed(number, 0, u64::MAX);
    assert_eq!((all.from_s, all.tally.up_rounds), (BEGIN_S, 7));
    let rolled_up_to_s = snapshot.rolled_up_to_s();
    assert!(rolled_up_to_s > BEGIN_S + 6 * 30 && rolled_up_to_s < BEGIN_S + recent * 30);
    let since = snapshot.windowed(number, BEGIN_S + 30, u64::MAX);
    assert_eq!((since.from_s, since.tally.up_rounds), (rolled_up_to_s, 1), "no rounds are made up");
    let first_known =
        Round::containing(i64::try_from(rolled_up_to_s * 1000).unwrap(), Period::new(30).unwrap());
    for round in [first_known, round(recent - 1), round(recent)] {
        driver.compare_as_of(round, "with sums only before").await;
    }
    // What comes next counts on.
    driver.submit(&[lookup(1, recent + 4, 0..3, 0..0)], moment(recent + 4, 11_000)).await;
    driver.catch_up(moment(recent + 6, 0)).await;
    let up_rounds = driver.snapshot().view(number).unwrap().tally.up_rounds;
    assert_eq!(up_rounds, 8);
}

/// The last-seen time is not invented if its facts cannot be read.
#[tokio::test]
async fn the_past_is_told_from_facts_or_not_at_all() {
    let mut driver = driver().await;
    for slot in 0..8 {
        let facts = [offers(1, slot, 0..3), lookup(1, slot, 0..2, 2..3)];
        driver.submit(&facts, moment(slot, 11_000)).await;
    }
    driver.catch_up(moment(9, 0)).await;
    let seen = Ok::<_, String>(Some(moment(4, 10_000)));
    let told = |told: Result<Option<i64>, _>| told.map_err(|error: StoreError| error.to_string());
    assert_eq!(told(driver.last_seen_by(node_id(1), round(4)).await), seen);
    assert_eq!(told(driver.last_seen_by(node_id(2), round(4)).await), Ok(None));
    driver.lose_facts(round(6).start_s()).await;
    let lost = told(driver.last_seen_by(node_id(1), round(4)).await).unwrap_err();
    assert!(lost.contains("cannot be read"), "{lost}");
    // What was last up in it, and what never was, is known without them.
    assert_eq!(told(driver.last_seen_by(node_id(1), round(7)).await), Ok(Some(moment(7, 10_000))));
    assert_eq!(told(driver.last_seen_by(node_id(2), round(4)).await), Ok(None));
}

/// Unconfirmed nodes of one probe are never shown, count against its limit, and are forgotten when
/// no more facts about them can come.
#[tokio::test]
async fn invented_ids_are_forgotten_in_the_end() {
    let mut driver = driver().await;
    driver.submit(&[offers(1, 0, 0..40)], moment(0, 11_000)).await;
    driver.submit(&[offers(2, 0, 0..10)], moment(0, 12_000)).await;
    driver.submit(&[lookup(1, 0, 0..10, 0..0)], moment(0, 21_000)).await;
    driver.catch_up(moment(1, 10_000)).await;
    let unconfirmed = |driver: &Driver| {
        let snapshot = driver.snapshot();
        (snapshot.confirmed.len(), snapshot.probes[0].unconfirmed_nodes)
    };
    assert_eq!(unconfirmed(&driver), (10, 30));
    let known = |driver: &Driver, node| driver.snapshot().ids.number(&node_id(node));
    assert!(known(&driver, 39).is_some() && driver.snapshot().node(&node_id(39)).is_none());
    let third = known(&driver, 3);
    let days = |days: u64| days * 2_880;
    driver.catch_up(moment(days(65), 0)).await;
    assert_eq!(unconfirmed(&driver), (10, 30), "something of them may still come");
    driver.catch_up(moment(days(67), 0)).await;
    assert_eq!(unconfirmed(&driver), (10, 30), "no part of the last day vouches for the clock");
    for hour in 0..24 {
        let slot = days(67) + hour * 120;
        for probe in 1..=2 {
            driver.submit(&[lookup(probe, slot, 0..10, 0..0)], moment(slot, 22_000)).await;
        }
    }
    driver.catch_up(moment(days(68), 0)).await;
    assert_eq!(unconfirmed(&driver), (10, 0));
    assert_eq!((known(&driver, 39), known(&driver, 3)), (None, third));
    driver.restart(true, moment(days(68), 1_000)).await;
    assert_eq!((known(&driver, 39), known(&driver, 3)), (None, third));
    // It begins anew when it comes again.
    driver.submit(&[offers(1, days(68), 39..40)], moment(days(68), 11_000)).await;
    driver.catch_up(moment(days(68) + 1, 10_000)).await;
    assert_eq!((known(&driver, 39), unconfirmed(&driver)), (Some(40), (10, 1)));
}

/// Where two must see a node for it to be up, one that a single probe saw before its first offer is
/// known by that instant alone: a state that is kept, and one beyond the retention, keep it, too.
#[tokio::test]
async fn what_was_seen_before_it_was_offered_outlives_restarts_and_its_facts() {
    let rules = Rules { k: 2, ..RULES };
    let mut driver = Driver::new(&rules.epoch(), 2, moment(0, 0)).await;
    driver.submit(&[offers(1, 0, 0..3), lookup(1, 0, 0..9, 0..0)], moment(0, 11_000)).await;
    driver.catch_up(moment(3, 0)).await;
    driver.keep().await;
    driver.restart(true, moment(3, 0)).await;
    driver.submit(&[offers(1, 4, 0..9)], moment(4, 11_000)).await;
    driver.catch_up(moment(7, 0)).await;
    driver.compare(moment(7, 0), "seen before a restart, offered after it");
    let before = driver.csv();
    assert_eq!(before.matches("2026-").count(), 9, "{before}");
    driver.restart(true, moment(7, 0)).await;
    assert_eq!(driver.csv(), before, "a restart changes nothing");
    // The sighting goes beyond the retention, the offer comes after it.
    let recent = 42 * 2_880;
    driver.submit(&[lookup(2, 8, 20..30, 0..0)], moment(8, 11_000)).await;
    driver.catch_up(moment(recent, 0)).await;
    assert!(driver.let_go(moment(recent, 0)).await > 0);
    driver.submit(&[offers(1, recent, 20..30)], moment(recent, 11_000)).await;
    driver.catch_up(moment(recent + 3, 0)).await;
    let before = driver.csv();
    assert_eq!(before.matches("2026-").count(), 19, "{before}");
    for kept in [true, false] {
        if !kept {
            driver.forget_kept().await;
        }
        driver.restart(true, moment(recent + 3, 0)).await;
        assert_eq!(driver.csv(), before, "kept: {kept}");
    }
}

/// A clock that was ahead closes rounds that are not over. When it is set back they are taken back,
/// whether or not a checkpoint was made, facts came to them, or the process was started again.
#[tokio::test]
async fn rounds_that_a_clock_closed_ahead_of_their_time_are_taken_back() {
    for (with_checkpoint, restarts, beside) in
        [(false, false, false), (true, false, false), (true, true, false), (true, false, true)]
    {
        let mut driver = driver().await;
        for slot in 0..4 {
            driver
                .submit(&[offers(1, slot, 0..3), lookup(1, slot, 0..2, 2..3)], moment(slot, 11_000))
                .await;
        }
        driver.catch_up(moment(4, 5_000)).await;
        driver.compare(moment(4, 5_000), "before");
        // Two hours ahead; a probe beside it is, too.
        driver
            .submit(&[offers(1, 241, 0..3), lookup(1, 241, 0..1, 1..3)], moment(241, 11_000))
            .await;
        driver.catch_up(moment(243, 0)).await;
        driver.compare(moment(243, 0), "ahead");
        if with_checkpoint {
            driver.keep().await;
        }
        let back_ms = moment(6, 5_000);
        if restarts {
            driver.restart(false, back_ms).await;
        }
        if beside {
            // Begun, folded, handed over.
            for _ in 0..3 {
                driver.refold(back_ms).await;
            }
        }
        driver.submit(&[offers(1, 5, 0..4), lookup(1, 5, 1..3, 0..1)], back_ms).await;
        driver.catch_up(back_ms).await;
        driver.compare(back_ms, "set back");
        // What was made ahead counts when its time comes.
        driver.catch_up(moment(244, 0)).await;
        driver.compare(moment(244, 0), "two hours later");
        driver.restart(true, moment(244, 1)).await;
        driver.compare(moment(244, 1), "after a restart");
    }
}

/// As 0.1.0 left it where the clock was far ahead for a moment: the facts are gone, and their sums
/// reach years beyond the newest part. Such sums are refused, or no later fact would ever count.
#[tokio::test]
async fn sums_that_reach_beyond_the_newest_part_are_refused() {
    let mut driver = driver().await;
    for slot in 0..4 {
        let facts = [offers(1, slot, 0..3), lookup(1, slot, 0..3, 0..0)];
        driver.submit(&facts, moment(slot, 11_000)).await;
    }
    driver.catch_up(moment(5, 0)).await;
    assert!(driver.let_go(moment(100 * 2_880, 0)).await > 0);
    for slot in 10..14 {
        let facts = [offers(1, slot, 0..3), lookup(1, slot, 0..2, 2..3)];
        driver.submit(&facts, moment(slot, 11_000)).await;
    }
    driver.forget_kept().await;
    driver.restart(true, moment(15, 0)).await;
    let up_rounds: Vec<String> =
        driver.csv().lines().skip(1).map(|row| row.split(',').nth(3).unwrap().to_owned()).collect();
    assert_eq!(up_rounds, ["4", "4"], "{}", driver.csv());
}
