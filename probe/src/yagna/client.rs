//! The handle to one daemon.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, Semaphore};

use super::adjustable_semaphore::AdjustableSemaphore;
use super::capability_cache::CapabilityCache;
use super::command::{CommandLine, CommandOptions};
use super::fault::{CouldNotLook, clean};
use super::http::Http;
use super::open::Openings;
use super::options::{Limits, YagnaConfigError, YagnaOptions};
use super::peer_scans::PeerScans;
use super::rate_limiter::RateLimiter;

/// A cheap handle to one daemon. Clones share the client, the limiters and the open demands.
#[derive(Clone)]
pub struct Yagna {
    pub(super) inner: Arc<Inner>,
    /// The value of [`MARKER_PROPERTY`] in our demands.
    pub(super) marker: Arc<str>,
    pub(super) command: Option<Arc<CommandLine>>,
}

pub(super) struct Inner {
    pub(super) http: Arc<Http>,
    pub(super) limits: Limits,
    pub(super) now_unix_ms: fn() -> i64,
    pub(super) scan_api: CapabilityCache,
    pub(super) bridge: CapabilityCache,
    pub(super) peers: Mutex<PeerScans>,
    pub(super) finds: AdjustableSemaphore,
    pub(super) find_limiter: RateLimiter,
    pub(super) directs: Semaphore,
    pub(super) openings: Arc<Openings>,
}

impl fmt::Debug for Yagna {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Yagna").field("base", &self.inner.http.base()).finish_non_exhaustive()
    }
}

impl Yagna {
    /// A handle; connects to nothing yet.
    ///
    /// Installs `ring` as this process's TLS provider unless `main` has installed one.
    ///
    /// # Errors
    /// When the address, the key or a limit is unusable.
    pub fn new(options: YagnaOptions) -> Result<Self, YagnaConfigError> {
        let YagnaOptions { base_url, app_key, limits, now_unix_ms } = options;
        if let Some(fault) = limits.fault() {
            return Err(YagnaConfigError::Limits(fault));
        }
        let http = Arc::new(Http::new(&base_url, &app_key, &limits)?);
        let inner = Inner {
            openings: Arc::new(Openings::new(http.clone(), limits.answer_timeout)),
            http,
            now_unix_ms,
            scan_api: CapabilityCache::of("no scan API: demands and pings are used instead"),
            bridge: CapabilityCache::of("no bridge to its bus: look-ups need its command line"),
            peers: Mutex::default(),
            finds: AdjustableSemaphore::new(limits.find_in_flight_max),
            find_limiter: RateLimiter::new(limits.finds_per_s_max),
            directs: Semaphore::new(limits.direct_in_flight_max),
            limits,
        };
        Ok(Self { inner: Arc::new(inner), marker: Arc::from("default"), command: None })
    }

    /// Marks the demands of this handle with this name. Needed if several probes share a daemon:
    /// each deletes only leftovers of its own name, so the name must stay the same across restarts.
    #[must_use]
    pub fn with_instance(mut self, instance: &str) -> Self {
        self.marker = Arc::from(clean(instance, 64).as_str());
        self
    }

    /// Adds the command line as a fallback for look-ups, for daemons without a bridge to their bus.
    /// Without it, look-ups of such a daemon fail.
    ///
    /// # Errors
    /// When a limit is invalid or the program has no name.
    pub fn with_command(mut self, options: CommandOptions) -> Result<Self, YagnaConfigError> {
        let command = CommandLine::new(options).map_err(YagnaConfigError::Command)?;
        self.command = Some(Arc::new(command));
        Ok(self)
    }

    /// The daemon's address, without a slash at its end.
    #[must_use]
    pub fn address(&self) -> &str {
        self.inner.http.base()
    }

    /// The limits in force.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.inner.limits
    }

    /// Limits `FindNode` questions per second, within the configured limit: an aggregator may ask
    /// for less.
    pub fn limit_find_rate(&self, per_s: u32) {
        self.inner.find_limiter.set(per_s.min(self.inner.limits.finds_per_s_max));
    }

    /// Limits `FindNode` questions in flight, within the configured limit.
    pub fn limit_finds_in_flight(&self, in_flight: usize) {
        self.inner.finds.set(in_flight.min(self.inner.limits.find_in_flight_max));
    }

    /// Deletes everything still open at the daemon, as far as possible within `answer_timeout`.
    /// Cancel all questions first: they may open new demands.
    pub async fn close(&self) {
        let limit = self.inner.limits.answer_timeout;
        let close = async {
            self.inner.peers.lock().await.forget();
            self.inner.openings.settle().await;
            if self.inner.openings.take_lost(Duration::ZERO) {
                self.delete_leftovers().await?;
            }
            Ok(())
        };
        let closed: Result<Result<(), CouldNotLook>, _> = tokio::time::timeout(limit, close).await;
        match closed {
            Ok(Ok(())) => {}
            Ok(Err(fault)) => {
                tracing::warn!(%fault, "cannot delete a demand at yagna; it expires by itself")
            }
            Err(_) => tracing::warn!(?limit, "yagna did not confirm all deletions in time"),
        }
    }
}
