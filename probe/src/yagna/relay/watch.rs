//! The relay's events, between listings.
//!
//! Owns the connection to `/events`: reconnecting, applying events, and listing again after missed
//! ones. The relay sends no snapshot and no heartbeat, but reports dropped events to a slow reader;
//! so a listing follows every connection and every such report. Older relays have no events: then
//! only listings count.

use std::convert::Infallible;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metrics::counter;
use rand::Rng;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uptime_proto::{NodeId, Reason};

use super::super::answers::{self, Route, Taken};
use super::super::fault::{CouldNotLook, clean};
use super::super::http::{Question, Streaming};
use super::super::sse::{SseEvent, SseParser};
use super::client::Relay;
use super::moment::Listed;
use super::view::{News, View};

/// How often to ask a relay without events for them again: it may have been replaced.
const EVENTS_RETRY: Duration = Duration::from_secs(600);

/// A cheap handle to what is known of the relay's nodes; clones share it.
#[derive(Debug, Clone)]
pub struct RelayWatch {
    relay: Relay,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    view: Mutex<View>,
    /// Wakes the task that lists again after missed events.
    missed: Notify,
}

/// How the event stream ended.
enum Ended {
    /// The relay has no events.
    NoEvents,
    /// The connection failed.
    Broken(CouldNotLook),
}

impl Relay {
    /// A handle to the known nodes, and a future that follows the relay's events until `shutdown`,
    /// for the caller to run. Without it the handle knows only its own listings.
    pub fn watch(
        self,
        shutdown: CancellationToken,
    ) -> (RelayWatch, impl Future<Output = ()> + Send + 'static) {
        let view = Mutex::new(View::new(self.inner.limits.nodes_max));
        let shared = Arc::new(Shared { view, missed: Notify::new() });
        let watch = RelayWatch { relay: self, shared };
        let follower = Follower { watch: watch.clone(), last_listing: None };
        let run = async move {
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = follower.run() => {}
            }
        };
        (watch, run)
    }
}

impl RelayWatch {
    /// Lists the relay now and merges the events that came meanwhile: a node announced after its
    /// page was requested was seen at that moment, and a lost one is gone. Ascending, without
    /// duplicates.
    ///
    /// # Errors
    /// As [`Relay::list`]; what was known stays.
    pub async fn fresh_view(&self) -> Result<Vec<Listed>, CouldNotLook> {
        let _under_way = UnderWay::begin(self);
        let listing = self.relay.inner.listing().await?;
        let now = self.relay.inner.now();
        Ok(self.view().take_listing(listing, now))
    }

    /// What is known without asking, ascending; `None` before the first listing. Ages here grow
    /// between listings even if the relay hears of the node, so a large one means nothing.
    #[must_use]
    pub fn known(&self) -> Option<Vec<Listed>> {
        let now = self.relay.inner.now();
        self.view().known(now)
    }

    fn view(&self) -> MutexGuard<'_, View> {
        self.shared.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn news_missed(&self) {
        let now = self.relay.inner.now();
        self.view().news_missed(now);
        self.shared.missed.notify_one();
    }

    fn take_event(&self, event: &SseEvent) {
        let (label, news) = match event.event.as_str() {
            "new-node" => ("new-node", Some(News::New)),
            "lost-node" => ("lost-node", Some(News::Lost)),
            "drop" => ("drop", None),
            // The names are the relay's own choice, labels are ours.
            _ => ("other", None),
        };
        counter!("uptime_relay_events_total", "event" => label).increment(1);
        let Some(news) = news else {
            if label == "drop" {
                tracing::debug!(missed = %clean(&event.data, 20), "the relay dropped events");
                self.news_missed();
            }
            return;
        };
        let Ok(id) = event.data.trim().parse::<NodeId>() else {
            tracing::debug!(data = %clean(&event.data, 64), label, "event without a node id");
            return;
        };
        let now = self.relay.inner.now();
        let kept = self.view().take_news(id, news, now);
        if !kept {
            self.news_missed();
        }
    }
}

/// A listing in progress: events are kept for it until it ends.
struct UnderWay<'a>(&'a RelayWatch);

impl<'a> UnderWay<'a> {
    fn begin(watch: &'a RelayWatch) -> Self {
        watch.view().begin_listing();
        Self(watch)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.view().end_listing();
    }
}

/// Follows the relay's events.
struct Follower {
    watch: RelayWatch,
    /// When it last began a listing of its own.
    last_listing: Option<Instant>,
}

impl Follower {
    async fn run(mut self) {
        let limits = self.watch.relay.inner.limits.clone();
        let mut backoff = limits.reconnect_first;
        let mut told_no_events = false;
        loop {
            let begun = Instant::now();
            let wait = match self.connection().await {
                Ended::NoEvents => {
                    if !std::mem::replace(&mut told_no_events, true) {
                        tracing::info!("this relay has no event stream; using listings only");
                    }
                    EVENTS_RETRY
                }
                Ended::Broken(fault) => {
                    told_no_events = false;
                    if begun.elapsed() > limits.reconnect_last {
                        backoff = limits.reconnect_first;
                    }
                    let wait = rand::rng().random_range(backoff / 2..=backoff);
                    backoff = (backoff * 2).min(limits.reconnect_last);
                    tracing::warn!(%fault, ?wait, "the relay's event stream ended; reconnecting");
                    wait
                }
            };
            tokio::time::sleep(wait).await;
            counter!("uptime_relay_reconnects_total").increment(1);
        }
    }

    /// Connects and follows the events until the connection ends.
    async fn connection(&mut self) -> Ended {
        let inner = self.watch.relay.inner.clone();
        let events = Question::get_stream(Route::RelayEvents, "/events", "text/event-stream");
        let mut opened = match inner.http.begin(events, inner.limits.answer_timeout).await {
            Ok(opened) => opened,
            Err(fault) => return Ended::Broken(fault),
        };
        match answers::read(Route::RelayEvents, opened.status(), b"") {
            Ok(Taken::Answer) => {}
            Ok(_) => return Ended::NoEvents,
            Err(fault) => {
                opened.note_strange(b"");
                return Ended::Broken(fault);
            }
        }
        self.watch.news_missed();
        let watch = self.watch.clone();
        tokio::select! {
            fault = read(&watch, &mut opened) => Ended::Broken(fault),
            never = self.list_when_missed() => match never {},
        }
    }

    /// Lists again whenever events were missed, with a pause in between. Never ends.
    async fn list_when_missed(&mut self) -> Infallible {
        let pause = self.watch.relay.inner.limits.relist_pause;
        loop {
            self.watch.shared.missed.notified().await;
            if let Some(last) = self.last_listing {
                tokio::time::sleep_until(last + pause).await;
            }
            // Another listing may have caught up meanwhile.
            if !self.watch.view().is_stale() {
                continue;
            }
            self.last_listing = Some(Instant::now());
            if let Err(fault) = self.watch.fresh_view().await {
                tracing::warn!(%fault, "cannot list the relay");
                self.watch.shared.missed.notify_one();
            }
        }
    }
}

/// Any long time will do.
const LISTEN_AGAIN: Duration = Duration::from_secs(3_600);

/// Reads events until the stream ends. Returns why it ended.
async fn read(watch: &RelayWatch, opened: &mut Streaming<'_>) -> CouldNotLook {
    let mut parser = SseParser::new(watch.relay.inner.limits.event_bytes_max);
    loop {
        // There is no heartbeat: silence means nothing, so wait for ever.
        let until = Instant::now() + LISTEN_AGAIN;
        match opened.next(until, |bytes| parser.push(bytes)).await {
            Ok(Some(Ok(events))) => events.iter().for_each(|event| watch.take_event(event)),
            Ok(Some(Err(too_long))) => {
                return CouldNotLook::new(Reason::AnswerTooLarge, format!("/events: {too_long}"));
            }
            Ok(None) => {}
            Err(fault) => return fault,
        }
    }
}
