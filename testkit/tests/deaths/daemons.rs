//! A probe's own daemon freezes, or starts anew with an empty memory: what it does not say is no
//! evidence.

use std::time::Duration;

use uptime_testkit::fake_yagna::Restart;

use super::fixture::{Closed, Fixture, PROBES, Rules};

const NODES: usize = 30;
/// Rounds through which a daemon is frozen.
const FROZEN: u64 = 2;
/// It begins between two questions about the suspects.
const MOMENT_MS: u64 = 3_700;
/// As little as a daemon knows after its start: nobody is found by it for that long.
const COLD: Restart =
    Restart { relearn_after: Duration::from_secs(2), blind_for: Duration::from_secs(4) };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_is_frozen_or_cold_makes_nobody_down_and_hides_nobody_dead() {
    let fixture = Fixture::open(&Rules::over_six(NODES)).await;
    let (dead, living) = fixture.ids.split_first().unwrap();
    let counts = |eligible: usize| {
        let wanted = (living.len() as u64, 1, eligible as u64);
        move |round: &Closed| (round.up, round.down, round.eligible) == wanted
    };
    let died_s = fixture.at_next_round(0).await;
    fixture.world.kill(dead);
    let begun_s = fixture.closed_with(died_s, "one is down", counts(PROBES)).await;

    // One is frozen, with and without channels: the two others decide. It goes on after the
    // suspects of a round were named, or early in it.
    for (number, thaws_ms) in [(0, MOMENT_MS), (1, 300)] {
        let frozen_s = fixture.at_next_round(MOMENT_MS).await;
        fixture.daemons[number].freeze();
        let thawed_s = frozen_s + FROZEN * fixture.period_s;
        fixture.at_round(thawed_s, thaws_ms).await;
        fixture.daemons[number].thaw();
        let after_s = thawed_s + fixture.period_s;
        let rounds = fixture.closed(after_s).await;
        // In the first one its questions about the dead failed. So they do in the one that is in
        // its grace when the daemon goes on: they are put, and too late.
        let in_grace_s = thawed_s - fixture.period_s;
        let too_late = |round_s: u64| round_s == in_grace_s && thaws_ms < MOMENT_MS;
        let judged = rounds.range(frozen_s + fixture.period_s..);
        for (round_s, round) in judged.filter(|(round_s, _)| !too_late(**round_s)) {
            let others = if *round_s < thawed_s { PROBES - 1 } else { PROBES };
            let said = format!("{round_s}, frozen in {frozen_s}: {round:?}");
            assert!(counts(others)(round) || counts(PROBES - 1)(round), "{said}");
        }
        fixture.closed_with(after_s, "all look again", counts(PROBES)).await;
    }

    // Two start anew, then all: nobody counts until their sessions are old enough.
    for cold in [&fixture.daemons[1..], &fixture.daemons[..]] {
        let cold_s = fixture.at_next_round(MOMENT_MS).await;
        for daemon in cold {
            let restarted = async {
                while daemon.restart(COLD).await.is_err() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            let port_is_free = tokio::time::timeout(super::PATIENCE, restarted).await;
            port_is_free.expect("the daemon listens again");
        }
        let others = (PROBES - cold.len()) as u64;
        let young = |round: &Closed| round.eligible == others && round.down <= others.min(1);
        fixture.closed_with(cold_s, "the cold do not count", young).await;
        fixture.closed_with(cold_s + fixture.period_s, "all count again", counts(PROBES)).await;
    }

    for (round_s, round) in fixture.rounds().range(begun_s..) {
        assert!(round.down <= 1, "{round_s}: {round:?}");
    }
    fixture.always_lived(living).await;
    fixture.nothing_was_strange().await;
    fixture.end().await;
}
