//! The scanner's state: what it works with, and what it remembers from round to round.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use uptime_proto::{NodeId, Reason, Round, Sample, v1};

use super::lookup::LookupDetail;
use super::node_cache::{Listing, NodeCache};
use super::sources::Sources;
use crate::clock::moment;
use crate::control_state::ControlState;
use crate::spool::Spool;
use crate::yagna::Offer;

/// Fewer look-ups than this do not show the rate of many.
const RATE_LOOKUPS_MIN: usize = 100;
/// How long the relay's first listing is expected to take: 500 pages at 100 a second.
const RELAY_TAKES: Duration = Duration::from_secs(5);

/// The scanner's state; clones share it.
#[derive(Clone)]
pub struct Scanner {
    pub(super) sources: watch::Receiver<Arc<Sources>>,
    pub(super) spool: Spool,
    pub(super) control: ControlState,
    /// 0 to 999: this probe's place in the jitter.
    pub(super) jitter_permille: u16,
    pub(super) cache: Arc<Mutex<NodeCache>>,
    /// When the scanner last began a round or saw that it has to wait for one, by the boot clock,
    /// in milliseconds.
    pub(super) alive_ms: Arc<AtomicU64>,
    /// The start of this run's first round while the last round of the previous run is unknown; 0:
    /// the gap between them is reported, or there is none.
    pub(super) owed_until_s: Arc<AtomicU64>,
}

impl Scanner {
    /// A scanner over these sources. `name` only decides the probe's place in the jitter.
    #[must_use]
    pub fn new(
        sources: watch::Receiver<Arc<Sources>>,
        spool: Spool,
        control: ControlState,
        name: &str,
    ) -> Self {
        let cache = NodeCache::new(name);
        let jitter = crc32fast::hash(name.as_bytes()) % 1000;
        Self {
            sources,
            spool,
            control,
            jitter_permille: u16::try_from(jitter).unwrap_or(0),
            cache: Arc::new(Mutex::new(cache)),
            alive_ms: Arc::new(AtomicU64::new(boot_ms())),
            owed_until_s: Arc::default(),
        }
    }

    /// For how many periods the scanner has neither begun a round nor waited for one; 0 while there
    /// is no schedule yet.
    #[must_use]
    pub fn behind_periods(&self) -> u64 {
        let state = self.control.now();
        let Some(plan) = state.plan else {
            return 0;
        };
        let period = plan.epochs.round_at_ms(moment().wall_ms).period();
        let since_ms = boot_ms().saturating_sub(self.alive_ms.load(Ordering::Relaxed));
        since_ms / 1_000 / u64::from(period.seconds())
    }

    pub(super) fn sources(&self) -> Arc<Sources> {
        self.sources.borrow().clone()
    }

    pub(super) fn cache(&self) -> MutexGuard<'_, NodeCache> {
        // A leaf: nothing is awaited while it is held, and each change to it is whole.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The nodes that a probe without an aggregator looks up.
    pub(super) fn remembered(&self) -> BTreeSet<NodeId> {
        self.cache().nodes().collect()
    }

    pub(super) fn take_offer(&self, listing: &mut Listing, offer: Offer, subnet: u16) {
        listing.take(offer, subnet, &self.cache());
    }

    /// Caches a whole listing. Returns its nodes.
    pub(super) fn note_offers(&self, listing: Listing, subnet: u16, round: Round) -> Vec<NodeId> {
        let (ids, changed) = listing.finish(subnet, round.start_s(), &mut self.cache());
        let no_room = self.spool.leave_details(changed);
        self.cache().details_not_queued(subnet, &no_room);
        ids
    }

    /// Queues what is new about these suspects.
    pub(super) fn note_lookup_details(&self, details: &[LookupDetail], round: Round) {
        let news = self.cache().news_of(details, round.start_s());
        self.leave_samples(news);
    }

    pub(super) fn leave_samples(&self, samples: Vec<Sample>) {
        let no_room = self.spool.leave_samples(samples);
        self.cache().samples_not_queued(&no_room);
    }

    pub(super) fn note_relay_took(&self, took: Duration) {
        self.cache().relay_took = Some(took);
    }

    /// Expected time of the relay's listing: that of the last one and a quarter more.
    pub(super) fn relay_takes_ms(&self) -> i64 {
        let took = self.cache().relay_took.unwrap_or(RELAY_TAKES) * 5 / 4;
        i64::try_from(took.as_millis()).unwrap_or(i64::MAX / 2)
    }

    /// Records the rate of look-ups: the relay may be far away.
    pub(super) fn note_find_rate(&self, asked: usize, took: Duration) {
        if asked < RATE_LOOKUPS_MIN {
            return;
        }
        let per_s = asked as u128 * 1_000 / took.as_millis().max(1);
        self.cache().found_per_s = Some(u32::try_from(per_s).unwrap_or(u32::MAX).max(1));
    }

    pub(super) fn note_unreachable(&self, ids: &[NodeId]) {
        self.cache().unreachable = ids.iter().copied().collect();
    }

    /// These nodes, with those first that were not unreachable in the last round.
    pub(super) fn likely_slow_first(&self, ids: &BTreeSet<NodeId>) -> Vec<NodeId> {
        let cache = self.cache();
        let (known, new): (Vec<NodeId>, Vec<NodeId>) =
            ids.iter().partition(|id| cache.unreachable.contains(id));
        new.into_iter().chain(known).collect()
    }
}

/// Rounds that were not scanned: from the start of the first to the end of the last.
pub(super) fn gap(from_s: u64, to_s: u64, reason: Reason) -> v1::Gap {
    let reason = reason.to_wire() as i32;
    v1::Gap { from_round_unix_s: from_s, to_round_unix_s: to_s, reason }
}

/// The boot clock, milliseconds.
pub(super) fn boot_ms() -> u64 {
    u64::try_from(moment().boot.as_millis()).unwrap_or(u64::MAX)
}
