//! Every state of the rule, and what follows from it.

use ClockState::{Doubtful, Sure, Wrong};
use KernelClock::{Synchronised, Unknown, Unsynchronised};

use super::*;

const NOW_MS: i64 = 1_800_000_000_000;
const HOUR_MS: i64 = 3_600_000;

/// A host whose wall clock can be set, with the rule.
struct Host {
    rule: Rule,
    wall_ms: i64,
    boot_s: u64,
    kernel: KernelClock,
}

impl Host {
    fn new(kernel: KernelClock) -> Self {
        Self { rule: Rule::default(), wall_ms: NOW_MS, boot_s: 1_000, kernel }
    }

    fn boot(&self) -> Duration {
        Duration::from_secs(self.boot_s)
    }

    /// Time passes, a second at a time, as the ledger reads the clock; answers the last judgement.
    fn pass(&mut self, seconds: u64) -> Judged {
        let mut judged = self.judge();
        for _ in 0..seconds {
            self.boot_s += 1;
            self.wall_ms += 1_000;
            judged = self.judge();
        }
        judged
    }

    fn judge(&mut self) -> Judged {
        let moment = Moment { wall_ms: self.wall_ms, boot: self.boot() };
        self.rule.judge(moment, self.kernel)
    }

    /// These probes have delivered a moment ago, by this offset of the clock.
    fn delivered(&mut self, probes: impl IntoIterator<Item = u32>, offset_ms: i64) {
        for probe in probes {
            let at_ms = self.wall_ms + offset_ms;
            self.rule.stored(Delivery::new(probe, at_ms, self.wall_ms));
        }
    }

    /// Connects probes that were enrolled long ago.
    fn connect(&mut self, probes: impl IntoIterator<Item = u32>) {
        for probe in probes {
            self.rule.connected(probe, NOW_MS - 2 * DAY_MS, self.boot());
        }
    }

    /// Time passes while these probes are compared every ten seconds.
    fn compare(&mut self, seconds: u64, probes: &[(u32, KernelClock, i64)]) -> Judged {
        for _ in 0..seconds / 10 {
            self.pass(10);
            for (probe, kernel, offset_ms) in probes {
                let measure = Measure { offset_ms: *offset_ms, error_ms: 20 };
                self.rule.heard(*probe, *kernel, Some(measure), self.boot());
            }
        }
        self.judge()
    }
}

#[test]
fn without_probes_the_kernel_decides() {
    for (kernel, wanted) in [(Synchronised, Sure), (Unsynchronised, Doubtful), (Unknown, Doubtful)]
    {
        let judged = Host::new(kernel).judge();
        assert_eq!(judged.state, wanted, "{kernel:?}");
        assert_eq!(judged.closing_ms, Some(NOW_MS));
        assert_eq!(judged.why.is_empty(), wanted == Sure, "{}", judged.why);
    }
}

#[test]
fn a_quorum_makes_an_unsynchronised_clock_sure_or_wrong() {
    // How many probes are compared, of how many that deliver; their offset; what comes of it.
    for (kernel, compared, delivering, offset_ms, wanted) in [
        (Unsynchronised, 2, 3, 300, Sure),
        (Unsynchronised, 2, 3, -9_000, Wrong),
        (Unsynchronised, 1, 1, 300, Doubtful),
        (Unsynchronised, 1, 1, 9_000, Doubtful),
        (Unsynchronised, 2, 4, 9_000, Doubtful),
        (Synchronised, 2, 3, 9_000, Doubtful),
        (Synchronised, 1, 1, 9_000, Sure),
        (Synchronised, 2, 4, 9_000, Sure),
        (Unknown, 2, 2, 0, Sure),
    ] {
        let mut host = Host::new(kernel);
        host.delivered(1..=delivering, 0);
        host.connect(1..=compared);
        let probes: Vec<_> = (1..=compared).map(|it| (it, Synchronised, offset_ms)).collect();
        let judged = host.compare(120, &probes);
        let told = format!("{compared} of {delivering} at {offset_ms} ms: {}", judged.why);
        assert_eq!(judged.state, wanted, "{told}");
    }
}

#[test]
fn only_the_old_the_connected_and_the_synchronised_vote() {
    let course = |enrolled_ms, kernel, seconds, apart_ms| {
        let mut host = Host::new(Unsynchronised);
        host.delivered(1..=2, 0);
        for probe in 1..=2 {
            host.rule.connected(probe, enrolled_ms, host.boot());
        }
        host.compare(seconds, &[(1, kernel, 0), (2, kernel, apart_ms)]).state
    };
    let old_ms = NOW_MS - DAY_MS;
    assert_eq!(course(old_ms, Synchronised, 70, 1_000), Sure);
    assert_eq!(course(old_ms + 1, Synchronised, 70, 0), Doubtful, "enrolled a day ago");
    assert_eq!(course(old_ms, Unsynchronised, 70, 0), Doubtful);
    assert_eq!(course(old_ms, Unknown, 70, 0), Doubtful);
    assert_eq!(course(old_ms, Synchronised, 50, 0), Doubtful, "connected for a minute");
    assert_eq!(course(old_ms, Synchronised, 70, 1_001), Doubtful, "they agree within a second");
}

#[test]
fn a_step_of_a_synchronised_clock_is_confirmed_after_a_minute() {
    let mut host = Host::new(Synchronised);
    host.pass(700);
    assert!(host.judge().may_delete && host.judge().may_refuse);
    host.wall_ms -= HOUR_MS;
    let judged = host.judge();
    assert_eq!((judged.state, judged.may_delete), (Doubtful, false), "{}", judged.why);
    assert_eq!(host.pass(59).state, Doubtful);
    assert_eq!(host.pass(1).state, Sure);
    let soon = host.pass(179);
    assert!(!soon.may_refuse, "sure for three minutes");
    assert!(host.pass(1).may_refuse);
    assert!(!host.pass(419).may_delete, "sure for ten minutes");
    assert!(host.pass(1).may_delete);
}

#[test]
fn a_step_of_another_clock_is_passed_over_by_carried_time() {
    let mut host = Host::new(Synchronised);
    host.pass(10);
    // The NTP client dies, and somebody sets the clock.
    host.kernel = Unsynchronised;
    assert_eq!(host.pass(10).state, Doubtful);
    host.wall_ms += 40 * DAY_MS;
    let judged = host.pass(30);
    assert_eq!(judged.state, Wrong, "{}", judged.why);
    assert_eq!(judged.closing_ms, Some(NOW_MS + 50_000));
    // Nothing confirms and nothing contradicts it: that is all that is known.
    assert_eq!(host.pass(30).state, Doubtful);
    // It never was sure: nothing closes.
    let mut host = Host::new(Unsynchronised);
    host.pass(10);
    host.wall_ms += 5_000;
    assert_eq!(host.judge().closing_ms, None);
    // Two seconds are no step.
    let mut host = Host::new(Unsynchronised);
    host.pass(10);
    host.wall_ms += STEP_MS;
    assert_eq!(host.judge().state, Doubtful);
}

#[test]
fn a_step_that_a_quorum_contradicts_is_never_confirmed() {
    let mut host = Host::new(Unsynchronised);
    host.delivered(1..=2, 0);
    host.connect(1..=2);
    assert_eq!(host.compare(70, &[(1, Synchronised, 0), (2, Synchronised, 0)]).state, Sure);
    host.wall_ms += HOUR_MS;
    let behind = [(1, Synchronised, -HOUR_MS), (2, Synchronised, -HOUR_MS)];
    assert_eq!(host.compare(3_000, &behind).state, Wrong);
    let judged = host.judge();
    assert!(judged.why.contains("2 probes are 3600 s behind"), "{}", judged.why);
    assert_eq!(judged.closing_ms, Some(NOW_MS + 3_070_000), "by the time before the step");
    // Set right again: a minute and a half later all is as before.
    host.wall_ms -= HOUR_MS;
    assert_eq!(host.compare(90, &[(1, Synchronised, 0), (2, Synchronised, 0)]).state, Sure);
}

#[test]
fn a_clock_that_starts_before_the_newest_part_is_wrong_until_others_say_otherwise() {
    let mut host = Host::new(Unsynchronised);
    host.delivered(1..=2, 0);
    host.wall_ms -= HOUR_MS;
    let judged = host.judge();
    assert_eq!((judged.state, judged.closing_ms), (Wrong, None), "{}", judged.why);
    assert!(judged.why.contains("earlier than the newest stored part"), "{}", judged.why);
    host.kernel = Synchronised;
    assert_eq!(host.judge().state, Sure);
    host.kernel = Unsynchronised;
    host.connect(1..=2);
    assert_eq!(host.compare(70, &[(1, Synchronised, 0), (2, Synchronised, 0)]).state, Sure);
    // A part that waited in a spool says nothing of the clock it was received by.
    let mut host = Host::new(Unsynchronised);
    host.delivered(1..=2, -HOUR_MS);
    host.wall_ms -= HOUR_MS / 2;
    assert_eq!(host.judge().state, Doubtful);
}

#[test]
fn an_unsure_clock_closes_at_most_an_hour_past_the_newest_part() {
    let mut host = Host::new(Unsynchronised);
    host.delivered([1], 0);
    assert_eq!(host.pass(3_600).closing_ms, Some(NOW_MS + HOUR_MS));
    assert_eq!(host.pass(3_600).closing_ms, Some(NOW_MS + HOUR_MS));
    host.delivered([1], 0);
    assert_eq!(host.pass(1).closing_ms, Some(NOW_MS + 7_201_000));
    host.kernel = Synchronised;
    host.delivered([1], -4 * HOUR_MS);
    assert_eq!(host.pass(7_200).closing_ms, Some(NOW_MS + 14_401_000), "a sure one goes on");
}

#[test]
#[allow(clippy::expect_used, reason = "a test fails by panicking")]
fn what_is_known_of_a_probes_clock() {
    let mut host = Host::new(Unsynchronised);
    host.delivered([1], 0);
    host.connect([1]);
    assert_eq!(host.rule.peer(2), None);
    host.compare(30, &[(1, Synchronised, 1_500)]);
    let young = host.rule.peer(1).expect("it is connected");
    assert_eq!(young.measure.map(|it| (it.offset_ms, it.error_ms)), Some((1_500, 20)));
    assert_eq!((young.kernel, young.votes), (Synchronised, false));
    host.compare(60, &[(1, Synchronised, 1_500)]);
    assert!(host.rule.peer(1).is_some_and(|it| it.votes));
    host.rule.left(1);
    assert_eq!(host.rule.peer(1), None);
}
