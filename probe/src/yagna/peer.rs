//! The direct question: is this very node there to answer?
//!
//! Owns one question to one node, and the scan it is put over. The daemon passes
//! `GET …/scan/{id}/events?peerId=…` on to the node itself, so an answer, also an empty one, is
//! proof of life, and so is an error that the node itself wrote. Refuses to repeat a question and
//! to judge the node: both are the caller's.
//!
//! The scan is shared by all questions, opened when the first one needs it, and replaced
//! * when the daemon no longer knows it (it was restarted),
//! * after a minute, so that it never expires under a question,
//! * when a node that has answered over it is asked once more: the daemon keeps a place in each
//!   node's offers per scan, and an answer from that store would prove nothing. Since a node that
//!   answered is not asked again in the same round, this comes to about one scan per round.
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

/// How much longer than the daemon we wait: its answer, that the node is silent, must win over
/// our own giving up, which says nothing about the node.
pub(super) const MARGIN: Duration = Duration::from_secs(2);

/// The daemon gives up on a node after this long, whatever it is told.
const LIMIT_S_MAX: u64 = 30;

/// How long the daemon keeps the shared scan, in seconds; twice what we use it for.
const SCAN_LIVES_S: u64 = 120;

/// The direct questions about a node, as far as they have come. Holds the node's place among those
/// that are asked: with a place for each question, the second question of the first nodes would
/// stand in line behind the first of all others.
pub struct PeerQuestions<'a> {
    yagna: &'a Yagna,
    id: NodeId,
    _permit: SemaphorePermit<'a>,
}

impl PeerQuestions<'_> {
    /// Puts one question and waits for its answer for `limit`, which is rounded up to whole
    /// seconds, 1 to 30.
    ///
    /// # Errors
    /// When the daemon did not ask, or does not say what came of it.
    pub async fn ask(&self, limit: Duration) -> Result<PeerAnswer, CouldNotLook> {
        match self.yagna.ask_over_scan(self.id, limit).await? {
            Some(answer) => Ok(answer),
            None => self.yagna.ping(self.id, limit).await,
        }
    }
}

/// What came of asking over a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ScanReply {
    Answered,
    Unanswered,
    /// The daemon does not know the scan.
    ScanGone,
}

impl Yagna {
    /// A turn to ask this node; waits for it, see [`super::Limits`]. All questions about the node
    /// are asked in one turn.
    ///
    /// # Errors
    /// When the process is ending.
    pub async fn peer_questions(&self, id: NodeId) -> Result<PeerQuestions<'_>, CouldNotLook> {
        Ok(PeerQuestions { yagna: self, id, _permit: acquire(&self.inner.directs).await? })
    }

    /// Puts one question to one node, as [`PeerQuestions::ask`], when its turn comes.
    ///
    /// # Errors
    /// When the daemon did not ask, or does not say what came of it.
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
        // A scan may be gone because the daemon was restarted; a fresh one may not.
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
        // Those who stood in line while it could not be opened do not all try again one by one.
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
