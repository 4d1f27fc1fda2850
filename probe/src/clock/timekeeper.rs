//! The handle to the clock rule: reads the clocks and gives the time.
//!
//! Owns the rule of this process and the time stamps of heartbeats. Does not begin or end rounds.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metrics::gauge;
use tokio::sync::Notify;
use uptime_proto::clock::{Exchange, KernelClock, Moment};
use uptime_proto::v1::{self, ClockState};

use super::reading::{kernel_clock, moment};
pub use super::rule::NoTime;
use super::rule::Rule;

/// A cheap handle to this host's clock.
#[derive(Debug, Clone, Default)]
pub struct Timekeeper {
    inner: Arc<Mutex<Inner>>,
    was_set: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Overrides the kernel's state of the clock; `None`: asks the kernel.
    said: Option<KernelClock>,
    rule: Rule,
    /// `sent_unix_ms` of the last heartbeat that was sent and not answered.
    asked_ms: Option<i64>,
    /// `sent_unix_ms` of the aggregator's last heartbeat, and when it was received.
    theirs: Option<(i64, i64)>,
}

/// A reading.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// Both clocks.
    pub moment: Moment,
    /// Add this to the wall clock to get the time, milliseconds.
    pub offset_ms: Result<i64, NoTime>,
    /// How often the clock was set since the start.
    pub steps: u64,
    /// An aggregator that is sure of its clock tells the same time.
    pub is_confirmed: bool,
}

impl Now {
    /// The time, unix milliseconds.
    ///
    /// # Errors
    /// When nothing confirms this host's clock.
    pub fn time_ms(&self) -> Result<i64, NoTime> {
        Ok(self.moment.wall_ms.saturating_add(self.offset_ms?))
    }
}

impl Timekeeper {
    /// The clock of this host. `said` overrides the kernel's state of it.
    #[must_use]
    pub fn new(said: Option<KernelClock>) -> Self {
        let inner = Arc::new(Mutex::new(Inner { said, ..Inner::default() }));
        Self { inner, was_set: Arc::default() }
    }

    /// A clock that is taken to be synchronised.
    #[must_use]
    pub fn trusted() -> Self {
        Self::new(Some(KernelClock::Synchronised))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // A leaf: nothing is awaited while it is held, and each change to it is whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the clocks.
    #[must_use]
    pub fn now(&self) -> Now {
        let (now, was_set) = self.inner().now();
        if was_set {
            self.was_set.notify_one();
        }
        now
    }

    /// Waits until this host's clock was set since the last wait, as far as it was read.
    pub(crate) async fn was_set(&self) {
        self.was_set.notified().await;
    }

    /// The kernel's state of this host's clock, or its override.
    #[must_use]
    pub fn kernel(&self) -> KernelClock {
        self.inner().kernel()
    }

    /// A stream began: when Hello was sent, and what Welcome said.
    pub(crate) fn connected(&self, greeting: Exchange, state: ClockState) {
        let mut inner = self.inner();
        let now = inner.now().0.moment;
        (inner.asked_ms, inner.theirs) = (None, None);
        inner.rule.connected(state, greeting, now);
        inner.tell_offset();
    }

    /// The stream ended.
    pub(crate) fn disconnected(&self) {
        self.inner().rule.disconnected();
    }

    /// A heartbeat to send.
    pub(crate) fn heartbeat(&self) -> v1::Heartbeat {
        let mut inner = self.inner();
        let sent_ms = inner.now().0.moment.wall_ms;
        inner.asked_ms = Some(sent_ms);
        let (echoed_unix_ms, received_unix_ms) = inner.theirs.unwrap_or_default();
        v1::Heartbeat {
            sent_unix_ms: sent_ms,
            echoed_unix_ms,
            received_unix_ms,
            kernel_clock: inner.kernel().to_wire() as i32,
            clock_state: ClockState::Unspecified as i32,
        }
    }

    /// An answer to a heartbeat.
    pub(crate) fn heard(&self, theirs: &v1::Heartbeat) {
        let mut inner = self.inner();
        let (Now { moment: now, .. }, was_set) = inner.now();
        if was_set {
            self.was_set.notify_one();
        }
        inner.theirs = Some((theirs.sent_unix_ms, now.wall_ms));
        let asked_ms = inner.asked_ms.take();
        // 0.1 only tells when it answered.
        let received_ms = match theirs.received_unix_ms {
            0 => theirs.sent_unix_ms,
            received_ms => received_ms,
        };
        // The answer to an earlier heartbeat tells nothing; 0.1 does not say to which.
        let asked_ms = asked_ms.filter(|it| [*it, 0].contains(&theirs.echoed_unix_ms));
        let exchange = asked_ms.map(|asked_ms| Exchange {
            asked_ms,
            received_ms,
            answered_ms: theirs.sent_unix_ms,
            back_ms: now.wall_ms,
        });
        let state = ClockState::try_from(theirs.clock_state).unwrap_or_default();
        inner.rule.heard(state, exchange, now);
        inner.tell_offset();
    }

    /// How long after now the next heartbeat is due.
    pub(crate) fn heartbeat_after(&self) -> Duration {
        self.inner().rule.compare_after(moment().boot)
    }

    /// The aggregator's time when it was last known, in place of the wall clock.
    pub(crate) fn carried(&self) -> Option<Moment> {
        self.inner().rule.carried()
    }

    /// Takes over the time that an earlier run of this boot knew.
    pub(crate) fn carry(&self, carried: Moment) {
        self.inner().rule.carry(carried);
    }
}

impl Inner {
    fn kernel(&self) -> KernelClock {
        self.said.unwrap_or_else(kernel_clock)
    }

    /// A reading, and whether it found that the clock was set.
    fn now(&mut self) -> (Now, bool) {
        let (moment, kernel) = (moment(), self.kernel());
        let steps_before = self.rule.steps();
        let offset_ms = self.rule.read(moment, kernel);
        let steps = self.rule.steps();
        let was_set = steps > steps_before;
        if was_set {
            tracing::warn!("this host's clock was set");
            // Their stamps are of the clock before.
            (self.asked_ms, self.theirs) = (None, None);
        }
        gauge!("uptime_clock_usable").set(if offset_ms.is_ok() { 1.0 } else { 0.0 });
        let is_confirmed = self.rule.is_confirmed(kernel);
        (Now { moment, offset_ms, steps, is_confirmed }, was_set)
    }

    #[expect(clippy::cast_precision_loss, reason = "a gauge of milliseconds")]
    fn tell_offset(&self) {
        if let Some(measure) = self.rule.measure() {
            gauge!("uptime_uplink_clock_offset_seconds").set(measure.offset_ms as f64 / 1000.0);
        }
    }
}
