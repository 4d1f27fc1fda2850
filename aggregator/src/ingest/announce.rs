//! The rules that probes are told, and the schedule that goes with them.
//!
//! Owns when each stream hears of what: of rules as soon as they are known, which is two rounds
//! before they begin, and of their schedule just before they do. Refuses to keep a list of streams:
//! each follows what is told by itself.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uptime_proto::{Epochs, v1};

use super::schedule::schedule_for;
use crate::ledger::Ledger;

/// A schedule is told so long before its rules begin: the round before goes on by the plan it began
/// with, and the next one is to begin with the new one.
const AHEAD_MS: i64 = 1_000;
/// The clock may be set, so it is looked at so often at least.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// What every probe is told, as it changes.
pub type Announced = watch::Receiver<Arc<v1::EpochAnnouncement>>;

/// Follows the rules of a ledger; the future does so until told to stop.
pub fn announcements(
    ledger: &Ledger,
    shutdown: CancellationToken,
) -> (Announced, impl Future<Output = ()> + Send + use<>) {
    let (mut epochs, clock) = (ledger.epochs_seen(), Arc::clone(ledger.clock()));
    let first = announcement(&ledger.epochs(), clock.now().wall_ms);
    let (announce, announced) = watch::channel(Arc::new(first));
    let follow = async move {
        loop {
            let there = Arc::clone(&epochs.borrow_and_update());
            let now_ms = clock.now().wall_ms;
            let next = announcement(&there, now_ms);
            announce.send_if_modified(|told| {
                let changed = **told != next;
                if changed {
                    *told = Arc::new(next);
                }
                changed
            });
            tokio::select! {
                () = shutdown.cancelled() => return,
                changed = epochs.changed() => if changed.is_err() {
                    // The ledger has gone; its end is told elsewhere.
                    return shutdown.cancelled().await;
                },
                () = tokio::time::sleep(until_next(&there, now_ms).min(LOOK_EVERY)) => {}
            }
        }
    };
    (announced, follow)
}

/// What is told at a moment.
fn announcement(epochs: &Epochs, now_ms: i64) -> v1::EpochAnnouncement {
    let soon_s = now_ms.saturating_add(AHEAD_MS).div_euclid(1000);
    let epoch = epochs.at(u64::try_from(soon_s).unwrap_or(0));
    v1::EpochAnnouncement {
        epochs: epochs.all().iter().map(v1::Epoch::from).collect(),
        schedule: Some(schedule_for(epoch)),
    }
}

/// How long it is until a schedule changes.
fn until_next(epochs: &Epochs, now_ms: i64) -> Duration {
    let starts = epochs.all().iter().map(|epoch| epoch.start_s.saturating_mul(1000));
    let from_now = starts.filter_map(|start_ms| {
        let switch_ms = i64::try_from(start_ms).ok()?.saturating_sub(AHEAD_MS);
        u64::try_from(switch_ms.saturating_sub(now_ms)).ok().filter(|wait_ms| *wait_ms > 0)
    });
    from_now.min().map_or(Duration::MAX, Duration::from_millis)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use uptime_proto::{Epoch, Period};

    use super::*;

    #[test]
    fn rules_are_told_at_once_and_their_schedule_just_before_they_begin() {
        let rules = |start_s, period_s| {
            let period = Period::new(period_s).unwrap();
            Epoch { start_s, ..Epoch::with_defaults(period) }
        };
        let (old, new) = (rules(0, 30), rules(600, 10));
        let epochs = Epochs::new(vec![old.clone(), new.clone()]).unwrap();
        for (now_ms, schedule_of, wait) in [
            (-1, &old, Duration::from_millis(599_001)),
            (598_999, &old, Duration::from_millis(1)),
            (599_000, &new, Duration::MAX),
            (700_000, &new, Duration::MAX),
        ] {
            let told = announcement(&epochs, now_ms);
            assert_eq!(told.epochs, [v1::Epoch::from(&old), v1::Epoch::from(&new)]);
            assert_eq!(told.schedule, Some(schedule_for(schedule_of)), "{now_ms}");
            assert_eq!(until_next(&epochs, now_ms), wait, "{now_ms}");
        }
    }
}
