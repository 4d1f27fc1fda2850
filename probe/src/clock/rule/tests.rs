//! Which time is named, for each word of the kernel and each state of the aggregator.

use ClockState::{Doubtful, Sure, Unspecified, Wrong};
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

    fn moment(&self) -> Moment {
        Moment { wall_ms: self.wall_ms, boot: Duration::from_secs(self.boot_s) }
    }

    fn read(&mut self) -> Result<i64, NoTime> {
        self.rule.read(self.moment(), self.kernel)
    }

    fn pass(&mut self, seconds: u64) -> Result<i64, NoTime> {
        self.boot_s += seconds;
        self.wall_ms += i64::try_from(seconds).unwrap_or(0) * 1_000;
        self.read()
    }

    /// An exchange with a clock that is so far ahead, over a way of so long.
    fn exchange(&self, offset_ms: i64, way_ms: i64) -> Exchange {
        let there_ms = self.wall_ms - way_ms + offset_ms;
        Exchange {
            asked_ms: self.wall_ms - 2 * way_ms,
            received_ms: there_ms,
            answered_ms: there_ms,
            back_ms: self.wall_ms,
        }
    }

    fn connect(&mut self, state: ClockState, offset_ms: i64) -> Result<i64, NoTime> {
        self.rule.connected(state, self.exchange(offset_ms, 10), self.moment());
        self.read()
    }

    /// Compares every ten seconds for so long.
    fn compare(&mut self, seconds: u64, state: ClockState, offset_ms: i64) -> Result<i64, NoTime> {
        for _ in 0..seconds / 10 {
            self.pass(10).ok();
            self.rule.heard(state, Some(self.exchange(offset_ms, 10)), self.moment());
        }
        self.read()
    }
}

#[test]
fn the_time_for_each_word_of_the_kernel_and_each_state_of_the_aggregator() {
    let neither = Err(NoTime::Neither);
    let contradicts = Err(NoTime::Contradicts(9_000));
    for (kernel, aggregator, wanted) in [
        (Synchronised, None, Ok(0)),
        (Unknown, None, Ok(0)),
        (Unsynchronised, None, neither),
        (Synchronised, Some((Sure, 300)), Ok(0)),
        (Synchronised, Some((Sure, 9_000)), contradicts),
        (Synchronised, Some((Unspecified, 9_000)), contradicts),
        (Synchronised, Some((Doubtful, 9_000)), Ok(0)),
        (Synchronised, Some((Wrong, 9_000)), Ok(0)),
        (Unknown, Some((Sure, 9_000)), contradicts),
        (Unknown, Some((Doubtful, 9_000)), Ok(0)),
        (Unsynchronised, Some((Sure, 9_000)), Ok(9_000)),
        (Unsynchronised, Some((Unspecified, -HOUR_MS)), Ok(-HOUR_MS)),
        (Unsynchronised, Some((Doubtful, 300)), Ok(300)),
        (Unsynchronised, Some((Doubtful, 9_000)), neither),
        (Unsynchronised, Some((Wrong, 300)), neither),
    ] {
        let mut host = Host::new(kernel);
        let found = match aggregator {
            None => host.read(),
            Some((state, offset_ms)) => {
                host.connect(state, offset_ms).ok();
                host.compare(30, state, offset_ms)
            }
        };
        assert_eq!(found, wanted, "{kernel:?} {aggregator:?}");
    }
}

#[test]
fn one_slow_or_wrong_exchange_decides_nothing() {
    let mut host = Host::new(Synchronised);
    assert_eq!(host.connect(Sure, 9_000), Ok(0));
    assert_eq!(host.compare(10, Sure, 9_000), Ok(0));
    let mut host = Host::new(Unsynchronised);
    host.rule.connected(Sure, host.exchange(5_000, 2_000), host.moment());
    assert_eq!(host.read(), Err(NoTime::Neither), "it is right within two seconds only");
    assert_eq!(host.compare(10, Sure, 5_000), Ok(5_000));
}

#[test]
fn the_aggregator_s_time_is_carried_over_an_outage_and_a_step() {
    let mut host = Host::new(Unsynchronised);
    assert_eq!(host.connect(Sure, HOUR_MS), Ok(HOUR_MS));
    host.rule.disconnected();
    assert_eq!(host.pass(6 * 3_600 - 1), Ok(HOUR_MS));
    host.wall_ms += HOUR_MS;
    assert_eq!(host.read(), Ok(0), "somebody set the clock right");
    assert_eq!(host.rule.steps(), 1);
    assert_eq!(host.pass(2), Err(NoTime::Neither), "it is carried for six hours");
    // The next run of this boot goes on with it; of another boot it cannot know.
    let mut host = Host::new(Unsynchronised);
    host.rule.carry(Moment { wall_ms: NOW_MS + 500, boot: Duration::from_secs(900) });
    assert_eq!(host.read(), Ok(100_500));
    host.rule.carry(Moment { wall_ms: NOW_MS + 500, boot: Duration::from_secs(1_100) });
    assert_eq!(host.read(), Err(NoTime::Neither));
}

#[test]
fn an_aggregator_that_becomes_wrong_does_not_take_the_time_along() {
    let mut host = Host::new(Unsynchronised);
    assert_eq!(host.connect(Doubtful, 0), Ok(0));
    assert_eq!(host.compare(30, Doubtful, 0), Ok(0));
    // Its clock is set an hour ahead: it says wrong, and a minute later doubtful.
    assert_eq!(host.compare(60, Wrong, HOUR_MS), Ok(0));
    assert_eq!(host.compare(60, Doubtful, HOUR_MS), Ok(0));
    assert!(!host.rule.is_confirmed(Unsynchronised));
    assert_eq!(host.compare(10, Sure, HOUR_MS), Ok(HOUR_MS));
    assert!(host.rule.is_confirmed(Unsynchronised));
    assert!(!host.rule.is_confirmed(Synchronised), "its own clock is an hour behind");
}

#[test]
fn after_a_step_the_clocks_are_compared_anew_and_soon() {
    let mut host = Host::new(Synchronised);
    host.connect(Sure, 0).ok();
    host.compare(70, Sure, 0).ok();
    let boot = host.moment().boot;
    assert_eq!(host.rule.compare_after(boot), COMPARE_EVERY);
    host.wall_ms -= 30_000;
    assert_eq!(host.read(), Err(NoTime::WasSet), "no round goes by it unconfirmed");
    assert_eq!(host.rule.measure(), None);
    assert_eq!(host.rule.compare_after(boot), COMPARE_SOON);
    assert_eq!(host.compare(10, Sure, 30_000), Err(NoTime::Contradicts(30_000)), "at once");
    assert_eq!(host.compare(30, Sure, 30_000), Err(NoTime::Contradicts(30_000)));
    // Set right again: rounds go on as soon as the clocks were compared.
    host.wall_ms += 30_000;
    assert_eq!(host.read(), Err(NoTime::WasSet));
    assert_eq!(host.compare(10, Sure, 0), Ok(0));
    // Nobody who is sure says otherwise.
    host.wall_ms += HOUR_MS;
    assert_eq!(host.compare(10, Doubtful, -HOUR_MS), Ok(0));
    host.rule.disconnected();
    host.wall_ms += HOUR_MS;
    assert_eq!(host.read(), Ok(0));
    // It has to be confirmed when somebody can.
    assert_eq!(host.connect(Sure, -2 * HOUR_MS), Err(NoTime::Contradicts(-2 * HOUR_MS)));
}
