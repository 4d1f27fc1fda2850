//! A dozen rounds in full, with the CSV that follows by hand from the accounting page.
//!
//! Owns the one example that can be checked without a computer. Refuses random input.

use uptime_proto::{Class, Kind, NodeId, Outcome, Part, PartKey, Period, Reason, Round, Sets};
use uptime_testkit::oracle::{OracleFact, csv, last_closed};

use crate::drive::Driver;
use crate::world::Rules;

/// 2026-01-31T12:00:00Z.
const NOON_S: u64 = 1_769_860_800;
const RULES: Rules = Rules { announced_slot: 0, period_s: 30, k: 1, retire_after_s: 30 * 86_400 };

/// Offers to everybody and is found by everybody.
const ALWAYS_UP: u8 = 0x11;
/// Is found in rounds 0 to 5 and never again; its offer outlives it.
const DIES: u8 = 0x22;
/// Is found in even rounds only. In round 11 only one probe asks for it.
const FLAPS: u8 = 0x33;
/// Offers to the first probe alone, and was never found.
const OFFERED_TO_ONE: u8 = 0x44;
/// Offers to two probes from round 3 on, and nobody ever looks it up.
const NEVER_LOOKED_UP: u8 = 0x55;
/// Buys and does not sell: the relay knows it, the market does not.
const REQUESTOR: u8 = 0x66;

/// Each probe looks at its own moment of a round.
const LOOKS_AT_MS: [i64; 3] = [20_000, 21_500, 22_250];

const AFTER_SIX_ROUNDS: &str = "\
issuer_id,is_online,last_seen,total_online_scans,uptime
0x1111111111111111111111111111111111111111,True,2026-01-31T12:02:52.250000+00:00,6,100.0
0x2222222222222222222222222222222222222222,True,2026-01-31T12:02:52.250000+00:00,6,100.0
0x3333333333333333333333333333333333333333,False,2026-01-31T12:02:22.250000+00:00,3,50.0
0x5555555555555555555555555555555555555555,False,,0,0.0
";

/// The second probe's report of round 7 is still missing; the two others are all who could look,
/// and both found the dead node unreachable. The node that flaps was asked for by one of three
/// eligible probes in round 11: unknown, so it is still what it was in round 10.
const AFTER_TWELVE_ROUNDS: &str = "\
issuer_id,is_online,last_seen,total_online_scans,uptime
0x1111111111111111111111111111111111111111,True,2026-01-31T12:05:52.250000+00:00,12,100.0
0x2222222222222222222222222222222222222222,False,2026-01-31T12:02:52.250000+00:00,6,50.0
0x3333333333333333333333333333333333333333,True,2026-01-31T12:05:22.250000+00:00,\
6,54.54545454545455
0x5555555555555555555555555555555555555555,False,,0,0.0
";

/// The second probe found the dead node in round 7 after all: 7 up, 5 down.
const AFTER_THE_LATE_REPORT: &str = "\
issuer_id,is_online,last_seen,total_online_scans,uptime
0x1111111111111111111111111111111111111111,True,2026-01-31T12:05:52.250000+00:00,12,100.0
0x2222222222222222222222222222222222222222,False,2026-01-31T12:03:51.500000+00:00,\
7,58.333333333333336
0x3333333333333333333333333333333333333333,True,2026-01-31T12:05:22.250000+00:00,\
6,54.54545454545455
0x5555555555555555555555555555555555555555,False,,0,0.0
";

fn round(number: u64) -> Round {
    Round::new(NOON_S + 30 * number, Period::new(30).unwrap()).unwrap()
}

fn fact(probe: u32, number: u64, kind: Kind, classes: &[(Class, Vec<u8>)]) -> OracleFact {
    let subnet = if kind == Kind::Market { "public" } else { "" };
    let mut sets = Sets::default();
    for (class, nodes) in classes {
        sets.set(*class, nodes.iter().map(|node| NodeId::new([*node; 20])).collect());
    }
    let part_number = u16::from(kind == Kind::Relay);
    let key = PartKey { subnet: subnet.to_owned(), round: round(number), number: part_number };
    let observed_at_ms = round(number).start_ms() + LOOKS_AT_MS[probe as usize - 1];
    let relay_session_age_s = Some(600);
    let outcome = Outcome::Looked;
    let part = Part { key, kind, outcome, observed_at_ms, relay_session_age_s, sets };
    OracleFact { probe, part }
}

/// What one probe sees of the story in one round.
fn reports(probe: u32, number: u64) -> Vec<OracleFact> {
    let mut offers = vec![ALWAYS_UP, DIES, FLAPS];
    if probe == 1 {
        offers.push(OFFERED_TO_ONE);
    }
    if probe <= 2 && number >= 3 {
        offers.push(NEVER_LOOKED_UP);
    }
    let (mut found, mut unreachable) = (vec![ALWAYS_UP], vec![OFFERED_TO_ONE]);
    let dies_late = probe == 2 && number == 7;
    if number <= 5 || dies_late { &mut found } else { &mut unreachable }.push(DIES);
    match number {
        11 if probe > 1 => {}
        _ if number.is_multiple_of(2) => found.push(FLAPS),
        _ => unreachable.push(FLAPS),
    }
    let class = if probe == 1 { Class::Answered } else { Class::Seen };
    let market = fact(probe, number, Kind::Market, &[(Class::Offer, offers)]);
    let evidence = [(class, found), (Class::Unreachable, unreachable)];
    let mut lookup = fact(probe, number, Kind::Lookup, &evidence);
    let relay = fact(probe, number, Kind::Relay, &[(Class::Seen, vec![REQUESTOR])]);
    // The third probe's daemon has just started; in round 8 it does not answer.
    if probe == 3 && number < 2 {
        lookup.part.relay_session_age_s = Some(29 + 30 * u32::try_from(number).unwrap());
    }
    if probe == 3 && number == 8 {
        lookup.part.outcome = Outcome::CouldNotLook(Reason::YagnaUnreachable);
        lookup.part.sets = Sets::default();
    }
    vec![market, lookup, relay]
}

#[tokio::test]
async fn twelve_rounds_by_hand() {
    let mut driver = Driver::new(&RULES.epoch(), 3, round(0).start_ms()).await;
    assert_eq!(driver.csv(), "issuer_id,is_online,last_seen,total_online_scans,uptime\n");
    for number in 0..12 {
        for probe in 1..=3 {
            if (probe, number) != (2, 7) {
                let now_ms = round(number).start_ms() + 25_000;
                driver.submit(&reports(probe, number), now_ms).await;
            }
        }
        // Its grace is 5 s: not yet closed, and closed.
        let before = driver.csv();
        driver.catch_up(round(number).end_ms() + 4_999).await;
        assert_eq!(driver.csv(), before);
        driver.catch_up(round(number).end_ms() + 5_000).await;
        if number == 5 {
            assert_eq!(driver.csv(), AFTER_SIX_ROUNDS);
        }
    }
    assert_eq!(driver.csv(), AFTER_TWELVE_ROUNDS);
    let now_ms = round(12).start_ms() + 6_000;
    driver.submit(&reports(2, 7), now_ms).await;
    driver.catch_up(now_ms).await;
    assert_eq!(driver.csv(), AFTER_THE_LATE_REPORT);
    let closed = last_closed(&driver.epochs, now_ms);
    assert_eq!(csv(&driver.accepted, &driver.epochs, closed), AFTER_THE_LATE_REPORT);
}
