//! The one handle to the clock rule: it reads the clocks, judges them and tells when that changes.
//!
//! Owns the rule of this process, the log lines and the metric. Refuses to act on it: whoever
//! closes rounds, refuses parts or deletes asks first.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metrics::gauge;
use uptime_proto::clock::{ClockState, Exchange, KernelClock, Moment};
use uptime_proto::v1;

use super::reading::{kernel_clock, moment};
use super::rule::{Judged, PeerClock, Rule};
use crate::store::Delivery;

/// A shared clock with its rule.
#[derive(Debug)]
pub struct Timekeeper {
    /// What is taken for the kernel's word; `None`: its own.
    said: Option<KernelClock>,
    /// What both clocks say, where they stand still.
    still: Option<Moment>,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    rule: Rule,
    /// The state that was told last.
    told: Option<ClockState>,
}

impl Timekeeper {
    /// The clock of this host. `said` is taken for the kernel's word on it, if something is said.
    #[must_use]
    pub fn new(said: Option<KernelClock>) -> Self {
        Self { said, still: None, inner: Mutex::default() }
    }

    /// A clock that is taken to be synchronised, and to have been so since the host started.
    #[must_use]
    pub fn trusted() -> Self {
        let inner = Inner { rule: Rule::sure_since_boot(), told: None };
        let said = Some(KernelClock::Synchronised);
        Self { said, still: None, inner: Mutex::new(inner) }
    }

    /// As [`Timekeeper::trusted`], but it always is this moment, unix milliseconds: for whoever
    /// shows what another time left.
    #[must_use]
    pub fn standing_still(wall_ms: i64) -> Self {
        let boot = Duration::from_secs(86_400);
        Self { still: Some(Moment { wall_ms, boot }), ..Self::trusted() }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // A leaf: nothing is awaited while it is held, and each change to it is whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the clocks and judges them.
    pub fn now(&self) -> Judged {
        self.judge(&mut self.inner()).0
    }

    /// The same, and the boot clock as it was read.
    fn judge(&self, inner: &mut Inner) -> (Judged, Duration) {
        let kernel = self.said.unwrap_or_else(kernel_clock);
        let now = self.still.unwrap_or_else(moment);
        let judged = inner.rule.judge(now, kernel);
        if inner.told != Some(judged.state) {
            tell(inner.told.replace(judged.state), &judged);
        }
        (judged, now.boot)
    }

    /// A part is in the store.
    pub fn stored(&self, part: Delivery) {
        self.inner().rule.stored(part);
    }

    /// Parts up to this moment are in the store, of which nothing else is known.
    pub fn stored_until(&self, newest_ms: i64) {
        self.inner().rule.stored_until(newest_ms);
    }

    /// A probe's stream began.
    pub fn connected(&self, probe: u32, enrolled_at_ms: i64) {
        self.inner().rule.connected(probe, enrolled_at_ms, moment().boot);
    }

    /// A probe's stream ended.
    pub fn left(&self, probe: u32) {
        self.inner().rule.left(probe);
    }

    /// The clock of a connected probe.
    #[must_use]
    pub fn peer(&self, probe: u32) -> Option<PeerClock> {
        self.inner().rule.peer(probe)
    }

    /// Takes a probe's heartbeat in and makes the answer to it.
    pub fn answer(&self, probe: u32, beat: &v1::Heartbeat) -> v1::Heartbeat {
        let mut inner = self.inner();
        let (judged, boot) = self.judge(&mut inner);
        let compared = beat.echoed_unix_ms > 0 && beat.sent_unix_ms > 0;
        let exchange = compared.then_some(Exchange {
            asked_ms: beat.echoed_unix_ms,
            received_ms: beat.received_unix_ms,
            answered_ms: beat.sent_unix_ms,
            back_ms: judged.wall_ms,
        });
        let measure = exchange.and_then(Exchange::measure);
        let kernel = KernelClock::from_wire(beat.kernel_clock);
        inner.rule.heard(probe, kernel, measure, boot);
        v1::Heartbeat {
            sent_unix_ms: judged.wall_ms,
            echoed_unix_ms: beat.sent_unix_ms,
            received_unix_ms: judged.wall_ms,
            kernel_clock: v1::KernelClock::Unspecified as i32,
            clock_state: judged.state.to_wire() as i32,
        }
    }
}

fn tell(before: Option<ClockState>, judged: &Judged) {
    for state in [ClockState::Sure, ClockState::Doubtful, ClockState::Wrong] {
        let holds = if state == judged.state { 1.0 } else { 0.0 };
        gauge!("uptime_clock_state", "state" => state.as_str()).set(holds);
    }
    let why = judged.why.as_str();
    match judged.state {
        ClockState::Sure if before.is_none() => {}
        ClockState::Sure => tracing::info!("host clock is sure again"),
        ClockState::Doubtful => tracing::warn!(
            why,
            "the clock of this host is doubtful: nothing is deleted, and no part is refused for \
             its time"
        ),
        ClockState::Wrong => tracing::error!(
            why,
            "the clock of this host is wrong: rounds close by the last trusted time, if there is \
             one; nothing is deleted, and no part is refused for its time"
        ),
    }
}
