//! The live streams, one per probe.
//!
//! Owns who is connected. One identity, one stream: the newer wins, the older is told why.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use uptime_proto::v1::{self, aggregator_message::Message};

/// What a stream sends to its probe.
pub(super) type Outbound = mpsc::Sender<Result<v1::AggregatorMessage, Status>>;

/// One live stream.
#[derive(Debug, Clone)]
pub(super) struct Live {
    pub(super) name: String,
    /// Tells this stream from an earlier one of the same probe.
    pub(super) serial: u64,
    pub(super) outbound: Outbound,
    superseded: CancellationToken,
}

/// All live streams. A cheap handle.
#[derive(Debug, Clone, Default)]
pub struct Connections {
    live: Arc<Mutex<Table>>,
    changed: Arc<Notify>,
    stopping: CancellationToken,
}

#[derive(Debug, Default)]
struct Table {
    by_probe: HashMap<u32, Live>,
    next_serial: u64,
}

/// A message to a probe.
pub(super) fn message(message: Message) -> v1::AggregatorMessage {
    v1::AggregatorMessage { message: Some(message) }
}

impl Connections {
    /// No streams yet; all end when `stopping` is cancelled.
    #[must_use]
    pub fn new(stopping: CancellationToken) -> Self {
        Self { stopping, ..Self::default() }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Each change is one insertion or removal, so a poisoned table is a whole table.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a stream and ends an older one of the same probe. Answers its serial number and the
    /// token that is cancelled when a newer one comes.
    pub(super) fn enter(
        &self,
        probe: u32,
        name: &str,
        outbound: Outbound,
    ) -> (u64, CancellationToken) {
        let superseded = CancellationToken::new();
        let mut table = self.table();
        table.next_serial += 1;
        let serial = table.next_serial;
        let live = Live { name: name.to_owned(), serial, outbound, superseded: superseded.clone() };
        if let Some(older) = table.by_probe.insert(probe, live) {
            older.superseded.cancel();
        }
        (serial, superseded)
    }

    /// Says that a stream is ready for assignments.
    pub(super) fn ready(&self) {
        self.changed.notify_one();
    }

    /// Removes a stream; answers whether it was still the probe's current one, after `then`, which
    /// no new stream of the probe comes before.
    pub(super) fn leave(&self, probe: u32, serial: u64, then: impl FnOnce()) -> bool {
        let mut table = self.table();
        let current = table.by_probe.get(&probe).is_some_and(|live| live.serial == serial);
        if current {
            table.by_probe.remove(&probe);
            then();
        }
        current
    }

    pub(super) fn all(&self) -> Vec<(u32, Live)> {
        self.table().by_probe.iter().map(|(probe, live)| (*probe, live.clone())).collect()
    }

    /// Waits until a stream was entered.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    pub(super) fn stopping(&self) -> &CancellationToken {
        &self.stopping
    }
}
