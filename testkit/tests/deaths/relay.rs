//! The relay starts anew in the midst of a round: for a while the living are "not found".

use super::fixture::{Fixture, PROBES, Rules};

const NODES: usize = 30;
/// Milliseconds from a round's start: before its look-ups, between the first ones and the suspects,
/// and between two questions about a suspect (the suspects of these rounds are named after 3 s).
const MOMENTS_MS: [u64; 3] = [1_200, 2_600, 4_300];
/// The relay is away for so long.
const AWAY_MS: u64 = 400;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_restarts_in_mid_round_makes_nobody_down() {
    let fixture = Fixture::open(&Rules::over_six(NODES)).await;
    let (dead, living) = fixture.ids.split_first().unwrap();
    let died_s = fixture.at_next_round(0).await;
    fixture.world.kill_process(dead);
    let settled = |round: &super::fixture::Closed| {
        (round.up, round.down, round.eligible) == (living.len() as u64, 1, PROBES as u64)
    };
    let mut from_s = fixture.closed_with(died_s, "one is down", settled).await;
    for moment_ms in MOMENTS_MS {
        let restarted_s = fixture.at_next_round(moment_ms).await;
        fixture.world.relay_down();
        fixture.at_round(restarted_s, moment_ms + AWAY_MS).await;
        fixture.world.relay_up();
        let over_s =
            fixture.closed_with(restarted_s + fixture.period_s, "all is well", settled).await;
        let rounds = fixture.rounds();
        let during: Vec<_> = rounds.range(restarted_s..over_s).collect();
        assert!(during.iter().any(|(_, round)| round.eligible == 0), "{during:?}");
        for (round_s, round) in rounds.range(from_s..=over_s) {
            assert!(round.down <= 1, "after {moment_ms} ms: {round_s}: {round:?}");
        }
        from_s = over_s;
    }
    fixture.always_lived(living).await;
    fixture.nothing_was_strange().await;
    fixture.end().await;
}
