//! The direct question: does this node answer?
//!
//! Owns one question to one node, and the scan that it uses. The daemon forwards
//! `GET …/scan/{id}/events?peerId=…` to the node itself, so an answer, even an empty one, is proof
//! of life, and so is an error written by the node. Does not repeat questions or judge nodes: the
//! caller does.
//!
//! The scan is shared by all questions, opened when the first one needs it, and replaced
//! * when the daemon no longer knows it (it was restarted),
//! * after a minute, so that it never expires under a question,
//! * when a node that has answered over it is asked once more: the daemon keeps a position in each
//!   node's offers per scan, and an answer from that store would prove nothing. A node that
//!   answered is not asked again in the same round, so this means about one scan per round.
//!
//! Daemons without the scan API are asked for a ping of the one node instead (`ping.rs`).

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::de::IgnoredAny;
use serde_json::json;
use tokio::sync::SemaphorePermit;
use tokio::time::Instant;
use uptime_proto::{NodeId, Reason};

use super::adjustable_semaphore::acquire;
use super::answers::{self, Route, Taken};
use super::client::Yagna;
use super::fault::{CouldNotLook, malformed};
use super::http::{self, Question};
use super::open::Collection;
use super::outcome::PeerAnswer;
use super::peer_scans::PeerScan;

/// How much longer than the daemon the probe waits: the daemon's answer that the node is silent
/// must arrive before the probe's own time limit, which says nothing about the node.
pub(super) const MARGIN: Duration = Duration::from_secs(2);

/// The daemon gives up on a node after this long at most.
const LIMIT_S_MAX: u64 = 30;

/// How long the daemon keeps the shared scan, in seconds: twice its time of use.
const SCAN_LIVES_S: u64 = 120;

/// The direct questions about one node. Holds one permit for all of them: with a permit per
/// question, second questions would queue behind the first ones of all other nodes.
pub struct PeerQuestions<'a> {
    yagna: &'a Yagna,
    id: NodeId,
    _permit: SemaphorePermit<'a>,
}

impl PeerQuestions<'_> {
    /// Asks once and waits for the answer up to `limit`, rounded up to whole seconds, 1 to 30.
    ///
    /// # Errors
    /// When the daemon did not ask, or did not report the outcome.
    pub async fn ask(&self, limit: Duration) -> Result<PeerAnswer, CouldNotLook> {
        match self.yagna.ask_over_scan(self.id, limit).await? {
            Some(answer) => Ok(answer),
            None => self.yagna.ping(self.id, limit).await,
        }
    }
}

/// The outcome of a question over a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ScanReply {
    Answered,
    Unanswered,
    /// The daemon does not know the scan.
    ScanGone,
}

impl Yagna {
    /// Waits for a permit to ask this node, see [`super::Limits`]. All questions about the node
    /// share it.
    ///
    /// # Errors
    /// When the process is ending.
    pub async fn peer_questions(&self, id: NodeId) -> Result<PeerQuestions<'_>, CouldNotLook> {
        Ok(PeerQuestions { yagna: self, id, _permit: acquire(&self.inner.directs).await? })
    }

    /// Asks one node once, like [`PeerQuestions::ask`], after waiting for a permit.
    ///
    /// # Errors
    /// When the daemon did not ask, or did not report the outcome.
    pub async fn ask_peer(&self, id: NodeId, limit: Duration) -> Result<PeerAnswer, CouldNotLook> {
        self.peer_questions(id).await?.ask(limit).await
    }

    /// `None`: the daemon has no scan API.
    async fn ask_over_scan(
        &self,
        id: NodeId,
        limit: Duration,
    ) -> Result<Option<PeerAnswer>, CouldNotLook> {
        let limit_s = whole_seconds(limit);
        let patience = Duration::from_secs(limit_s) + MARGIN;
        // A scan may be gone because the daemon restarted; a new one may not.
        for _ in 0..2 {
            let Some(scan) = self.peer_scan(id).await? else {
                return Ok(None);
            };
            let path = format!("{}/events?timeout={limit_s}&peerId={id}", scan.opened.path());
            let question = Question::get(Route::Direct, &path).at_most(http::NODES_BYTES_MAX);
            let ask = self.inner.http.ask(question, patience, parse_scan_reply);
            let answer = match ask.await? {
                (ScanReply::Answered, took) => {
                    scan.lock_answered().insert(id);
                    PeerAnswer::Answered { took }
                }
                (ScanReply::Unanswered, _) => PeerAnswer::Unanswered,
                (ScanReply::ScanGone, _) => {
                    let mut scans = self.inner.peers.lock().await;
                    scans.current.take_if(|current| Arc::ptr_eq(current, &scan));
                    continue;
                }
            };
            return Ok(Some(answer));
        }
        Err(CouldNotLook::new(Reason::NetError, "yagna forgot a scan that it had just opened"))
    }

    /// The scan to ask this node over, opened if need be. `None`: the daemon has no scan API.
    async fn peer_scan(&self, id: NodeId) -> Result<Option<Arc<PeerScan>>, CouldNotLook> {
        let inner = &self.inner;
        let wanted_at = Instant::now();
        let mut scans = inner.peers.lock().await;
        if let Some(scan) = scans.current.as_ref().filter(|scan| scan.fits(id)) {
            return Ok(Some(scan.clone()));
        }
        if inner.scan_api.is_absent(&inner.http) {
            return Ok(None);
        }
        // Callers that waited while opening failed must not all try again one by one.
        if let Some((failed_at, fault)) = &scans.failed
            && *failed_at >= wanted_at
        {
            return Err(fault.clone());
        }
        let body = json!({ "type": "offer", "timeout": SCAN_LIVES_S });
        match inner.openings.open(Collection::Scans, body).await {
            Ok(Some(opened)) => {
                let (since, answered) = (Instant::now(), Mutex::default());
                let scan = Arc::new(PeerScan { opened, since, answered });
                scans.current = Some(scan.clone());
                Ok(Some(scan))
            }
            Ok(None) => {
                inner.scan_api.found_absent(&inner.http);
                scans.forget();
                Ok(None)
            }
            Err(fault) => {
                scans.failed = Some((Instant::now(), fault.clone()));
                Err(fault)
            }
        }
    }
}

/// A limit as the scan API is known to take it.
fn whole_seconds(limit: Duration) -> u64 {
    let up = u64::from(limit.subsec_nanos() > 0);
    limit.as_secs().saturating_add(up).clamp(1, LIMIT_S_MAX)
}

pub(super) fn parse_scan_reply(status: u16, body: &[u8]) -> Result<ScanReply, CouldNotLook> {
    match answers::read(Route::Direct, status, body)? {
        Taken::Answer => {
            let _: Vec<IgnoredAny> = serde_json::from_slice(body).map_err(malformed)?;
            Ok(ScanReply::Answered)
        }
        Taken::Life => Ok(ScanReply::Answered),
        Taken::Unanswered => Ok(ScanReply::Unanswered),
        _ => Ok(ScanReply::ScanGone),
    }
}
