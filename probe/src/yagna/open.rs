//! What is open at the daemon on our behalf, and that it is deleted again.
//!
//! Owns opening (scans and demands alike: a POST that answers with an id) and the guard whose end
//! deletes. A scan or demand outlives neither an error, nor a time limit, nor the cancellation of
//! whoever asked for it: the POST runs in a task of its own, so that its answer, the id, is always
//! received, and if nobody wants it any more it is deleted at once.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use uptime_proto::Reason;

use super::answers::{self, Route, Taken};
use super::fault::{CouldNotLook, malformed};
use super::http::{Http, Question};

/// The longest id that is believed; a demand's has 97 characters.
const ID_BYTES_MAX: usize = 128;

/// A kind of thing that can be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Collection {
    /// From yagna 0.15 on.
    Scans,
    Demands,
}

impl Collection {
    pub(super) const fn path(self) -> &'static str {
        match self {
            Self::Scans => "/market-api/v1/scan",
            Self::Demands => "/market-api/v1/demands",
        }
    }

    /// The question that opens one.
    const fn route(self) -> Route {
        match self {
            Self::Scans => Route::OpenScan,
            Self::Demands => Route::OpenDemand,
        }
    }
}

/// Opens and deletes; shared by everything that is open.
pub(super) struct Openings {
    http: Arc<Http>,
    /// The openings and deletions under way.
    tracker: TaskTracker,
    /// For one opening, or one deletion.
    limit: Duration,
    /// When last a demand may have been left behind: the answer to its POST was lost, and with it
    /// the id, or its deletion failed. (A scan in that place ends by its own timeout.)
    demand_lost: Mutex<Option<Instant>>,
}

/// Something open at the daemon. Dropping it deletes it, in the background.
pub(super) struct Opened {
    collection: Collection,
    /// The path of the thing itself.
    path: String,
    openings: Arc<Openings>,
    runtime: Handle,
}

impl Opened {
    pub(super) fn path(&self) -> &str {
        &self.path
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        let (openings, collection) = (self.openings.clone(), self.collection);
        let path = std::mem::take(&mut self.path);
        let delete = async move {
            let question = Question::delete(&path);
            if let Err(fault) = openings.http.ask(question, openings.limit, parse_deleted).await {
                tracing::debug!(%fault, "cannot delete a scan or demand");
                openings.may_be_lost(collection);
            }
        };
        self.openings.tracker.spawn_on(delete, &self.runtime);
    }
}

impl Openings {
    pub(super) fn new(http: Arc<Http>, limit: Duration) -> Self {
        Self { http, tracker: TaskTracker::new(), limit, demand_lost: Mutex::default() }
    }

    /// Opens a scan or a demand. `None`: the daemon has no such collection.
    pub(super) async fn open(
        self: &Arc<Self>,
        collection: Collection,
        body: serde_json::Value,
    ) -> Result<Option<Opened>, CouldNotLook> {
        let (sender, receiver) = oneshot::channel();
        let openings = self.clone();
        self.tracker.spawn(async move {
            let opened = openings.post(collection, body).await;
            // Where nobody waits any more, this drops what was opened, and that deletes it.
            drop(sender.send(opened));
        });
        receiver.await.unwrap_or_else(|_| {
            Err(CouldNotLook::new(Reason::Missed, "the runtime is shutting down"))
        })
    }

    async fn post(
        self: &Arc<Self>,
        collection: Collection,
        body: serde_json::Value,
    ) -> Result<Option<Opened>, CouldNotLook> {
        let question = Question::post(collection.route(), collection.path(), &body);
        let parse = |status, body: &[u8]| parse_id(collection, status, body);
        let (id, _) = self.http.ask(question, self.limit, parse).await.inspect_err(|fault| {
            if !matches!(fault.reason, Reason::Unauthorised | Reason::MarketError) {
                self.may_be_lost(collection);
            }
        })?;
        Ok(id.map(|id| Opened {
            collection,
            path: format!("{}/{id}", collection.path()),
            openings: self.clone(),
            runtime: Handle::current(),
        }))
    }

    /// Waits until every opening and deletion under way has ended.
    pub(super) async fn settle(&self) {
        self.tracker.close();
        self.tracker.wait().await;
        self.tracker.reopen();
    }

    pub(super) fn may_be_lost(&self, collection: Collection) {
        if collection == Collection::Demands {
            *self.lock_lost() = Some(Instant::now());
        }
    }

    /// Whether a demand may have been left behind at least so long ago; asks only once.
    pub(super) fn take_lost(&self, age: Duration) -> bool {
        self.lock_lost().take_if(|at| at.elapsed() >= age).is_some()
    }

    fn lock_lost(&self) -> MutexGuard<'_, Option<Instant>> {
        self.demand_lost.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The id in the answer to a POST; `None` where there is no such collection.
pub(super) fn parse_id(
    collection: Collection,
    status: u16,
    body: &[u8],
) -> Result<Option<String>, CouldNotLook> {
    match answers::read(collection.route(), status, body)? {
        Taken::Answer => {}
        _ => return Ok(None),
    }
    let id: String = serde_json::from_slice(body).map_err(malformed)?;
    if is_id(&id) { Ok(Some(id)) } else { Err(malformed(format!("{id:?} is not an id"))) }
}

/// Whether a text can be an id and stand in a path.
pub(super) fn is_id(id: &str) -> bool {
    (1..=ID_BYTES_MAX).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// Whether the thing is gone: true if this deleted it, false if it was gone before.
pub(super) fn parse_deleted(status: u16, body: &[u8]) -> Result<bool, CouldNotLook> {
    answers::read(Route::Delete, status, body).map(|taken| taken == Taken::Answer)
}
