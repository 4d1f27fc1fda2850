//! The scan that all direct questions share.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use uptime_proto::NodeId;

use super::fault::CouldNotLook;
use super::open::Opened;

/// After this long the shared scan is replaced.
const SCAN_USED_MAX: Duration = Duration::from_secs(60);

/// The shared scan, if one is open, and why it could not be opened lately.
#[derive(Default)]
pub(super) struct PeerScans {
    pub(super) current: Option<Arc<PeerScan>>,
    pub(super) failed: Option<(Instant, CouldNotLook)>,
}

pub(super) struct PeerScan {
    pub(super) opened: Opened,
    pub(super) since: Instant,
    pub(super) answered: Mutex<HashSet<NodeId>>,
}

impl PeerScan {
    pub(super) fn fits(&self, id: NodeId) -> bool {
        self.since.elapsed() < SCAN_USED_MAX && !self.lock_answered().contains(&id)
    }

    pub(super) fn lock_answered(&self) -> std::sync::MutexGuard<'_, HashSet<NodeId>> {
        self.answered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PeerScans {
    /// Drops the scan; it is deleted when the last question over it has ended.
    pub(super) fn forget(&mut self) {
        self.current = None;
    }
}
