//! A fake `yagna`: the handle that a test holds.
//!
//! Owns a daemon's life and its switches. Its state is in `core`, its routes are in `routes`,
//! `market`, `scan` and `bridge`; the network itself is the world's.
//! Several daemons may share one world; each has its own identity, key, view and memory.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::watch;

use super::channel;
use super::core::{Core, Memory};
use super::fault::Fault;
use super::http::Listening;
use super::link::Link;
use super::options::{DaemonOptions, Restart, View};
use super::traffic::{Busiest, Log, Traffic};
use super::world::World;

/// A running fake daemon. Dropping it stops it.
pub struct Daemon {
    pub(crate) core: Arc<Core>,
    listening: tokio::sync::Mutex<Option<Listening>>,
    port: u16,
}

impl Daemon {
    /// Binds on loopback and serves.
    ///
    /// # Errors
    /// If the port cannot be bound.
    pub async fn start(world: World, options: DaemonOptions) -> io::Result<Daemon> {
        let identity = world.take_part(options.identity.clone(), options.relay_session_age);
        let mut hasher = DefaultHasher::new();
        identity.hash(&mut hasher);
        let salt = hasher.finish();
        let memory = Memory {
            rng: StdRng::seed_from_u64(salt),
            salt,
            view: options.view,
            knows_from: Duration::ZERO,
            blind_until: Duration::ZERO,
            demands: BTreeMap::new(),
            scans: BTreeMap::new(),
            next_scan: 0,
            peers: BTreeMap::new(),
            traffic: Traffic::default(),
            log: Log::default(),
            relay_queries: 0,
            links: BTreeMap::new(),
            chances: BTreeMap::new(),
            faults: Vec::new(),
            key_refused: false,
            relay_refuses: false,
            has_scan_api: options.has_scan_api,
            has_bridge: options.has_bridge,
        };
        let core = Arc::new(Core {
            started: world.now(),
            world,
            identity,
            app_key: options.app_key,
            limits: options.limits,
            gossips: options.gossips,
            backtraces: options.backtraces,
            memory: Mutex::new(memory),
            changed: watch::Sender::new(0),
            frozen: watch::Sender::new(false),
            answering: AtomicUsize::new(0),
        });
        let frozen = core.frozen.subscribe();
        let listening = Listening::open(options.port, core.clone(), frozen).await?;
        let port = listening.address.port();
        Ok(Daemon { core, listening: tokio::sync::Mutex::new(Some(listening)), port })
    }

    /// `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn base_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Its own node id.
    #[must_use]
    pub fn identity(&self) -> &str {
        &self.core.identity
    }

    /// Freezes it: it accepts connections and does not answer.
    pub fn freeze(&self) {
        self.core.frozen.send_replace(true);
    }

    /// Undoes [`Daemon::freeze`]: it continues where it stopped.
    pub fn thaw(&self) {
        self.core.frozen.send_replace(false);
    }

    /// Its process dies: open connections end without a byte, new ones are refused.
    pub async fn stop_listening(&self) {
        if let Some(listening) = self.listening.lock().await.take() {
            listening.close().await;
        }
    }

    /// It listens again on the same port, with its memory as it was.
    ///
    /// # Errors
    /// If the port has been taken meanwhile.
    pub async fn listen(&self) -> io::Result<()> {
        let mut listening = self.listening.lock().await;
        if listening.is_none() {
            let frozen = self.core.frozen.subscribe();
            *listening = Some(Listening::open(self.port, self.core.clone(), frozen).await?);
        }
        Ok(())
    }

    /// Restarts: connections end, it forgets demands, scans and offers, and its session with the
    /// relay begins again.
    ///
    /// # Errors
    /// If the port has been taken meanwhile.
    pub async fn restart(&self, how: Restart) -> io::Result<()> {
        self.stop_listening().await;
        let now = self.core.world.now();
        self.core.world.begin_session(&self.core.identity, now);
        self.core.change(|memory| {
            memory.demands.clear();
            memory.scans.clear();
            memory.next_scan = 0;
            memory.peers.clear();
            memory.knows_from = now + how.relearn_after;
            memory.blind_until = now + how.blind_for;
        });
        self.thaw();
        self.listen().await
    }

    /// Whether it refuses its own application key, as if the key had been deleted.
    pub fn refuse_key(&self, refuse: bool) {
        self.core.change(|memory| memory.key_refused = refuse);
    }

    /// Whether the relay refuses this daemon (too old a version): no session at all, look-ups
    /// fail with code 400, the market goes on.
    pub fn refuse_by_relay(&self, refuse: bool) {
        self.core.change(|memory| memory.relay_refuses = refuse);
    }

    /// Whether it has the scan API.
    pub fn set_scan_api(&self, present: bool) {
        self.core.change(|memory| memory.has_scan_api = present);
    }

    /// Whether it has the REST bridge to its bus.
    pub fn set_bridge(&self, present: bool) {
        self.core.change(|memory| memory.has_bridge = present);
    }

    /// Sets which providers' offers it knows.
    pub fn set_view(&self, view: View) {
        self.core.change(|memory| memory.view = view);
    }

    /// Sets how old its session with the relay is.
    pub fn set_relay_session_age(&self, age: Duration) {
        let since = self.core.world.now().saturating_sub(age);
        self.core.world.begin_session(&self.core.identity, since);
    }

    /// Opens a channel to a peer, as a first question would.
    pub fn connect(&self, id: &str) {
        if let Some(contact) = self.core.world.contact(id) {
            channel::open(&self.core, id, &contact);
        }
    }

    /// Sets how bad the link between this daemon and one node is, in addition to the node's own.
    pub fn set_link(&self, id: &str, link: Link) {
        self.core.change(|memory| memory.links.insert(id.to_owned(), link));
    }

    /// Injects a fault, or removes all faults.
    pub fn set_fault(&self, fault: Option<Fault>) {
        self.set_faults(fault.into_iter().collect());
    }

    /// Injects several; the first that concerns a request counts.
    pub fn set_faults(&self, faults: Vec<Fault>) {
        self.core.change(|memory| memory.faults = faults);
    }

    /// How often each route was asked, by `METHOD /path` with ids as `{id}` and a direct question
    /// as `GET /market-api/v1/scan/{id}/events?peerId`. Requests without a valid key count too.
    #[must_use]
    pub fn requests(&self) -> BTreeMap<String, u64> {
        self.core.lock().traffic.counts()
    }

    /// How often this route was asked.
    #[must_use]
    pub fn count(&self, route: &str) -> u64 {
        self.core.lock().traffic.count(route)
    }

    /// The most that this route was asked, at once and in a second.
    #[must_use]
    pub fn busiest(&self, route: &str) -> Busiest {
        self.core.lock().traffic.busiest(route)
    }

    /// Resets [`Daemon::busiest`].
    pub fn forget_busiest(&self) {
        self.core.lock().traffic.forget_busiest();
    }

    /// How many ERROR lines it has written into its operator's log: one or two for each direct
    /// question that failed.
    #[must_use]
    pub fn error_lines(&self) -> u64 {
        self.core.lock().log.lines
    }

    /// How many bytes these lines have.
    #[must_use]
    pub fn error_bytes(&self) -> u64 {
        self.core.lock().log.bytes
    }

    /// How many queries it has sent to the relay: one per look-up, three for a direct question
    /// that failed.
    #[must_use]
    pub fn relay_queries(&self) -> u64 {
        self.core.lock().relay_queries
    }

    /// How many requests are being answered at this moment, long polls included. A client that
    /// goes away takes its request with it.
    #[must_use]
    pub fn answering(&self) -> usize {
        self.core.answering.load(Ordering::SeqCst)
    }

    /// Demands that exist: neither deleted nor expired.
    #[must_use]
    pub fn open_demands(&self) -> usize {
        let (now, lifetime) = (self.core.world.now(), self.core.limits.demand_lifetime);
        let memory = self.core.lock();
        memory.demands.values().filter(|demand| demand.created + lifetime > now).count()
    }

    /// Scans that exist: neither deleted nor expired.
    #[must_use]
    pub fn open_scans(&self) -> usize {
        let now = self.core.world.now();
        self.core.lock().scans.values().filter(|scan| scan.ends > now).count()
    }

    /// Stops it for good.
    pub async fn shutdown(self) {
        self.stop_listening().await;
    }
}

impl fmt::Debug for Daemon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Daemon").field("port", &self.port).finish_non_exhaustive()
    }
}
