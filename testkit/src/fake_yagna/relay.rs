//! A fake of the relay's HTTP listing.
//!
//! Owns the two revisions' routes: prefixes, the silent cap, `seen` as Rust prints durations,
//! the three forms of an empty answer, and the event stream. The world knows what is registered.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt};
use tokio::sync::watch;

use super::clock;
use super::fault::{Fault, FaultKind};
use super::http::{Body, Listening, Reply, Request, Site};
use super::node::Nothing;
use super::registry::Registration;
use super::state::RelayEvent;
use super::world::World;

/// The listing silently shows no more nodes than this.
const NODES_MAX: usize = 50;
/// The relay reads a prefix as a number; more digits do not fit.
const PREFIX_DIGITS_MAX: usize = 8;

/// Which revision of the relay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flavour {
    /// The current one: full ids, `/status`, `/events`, `/metrics`.
    #[default]
    Main,
    /// The one yagna 0.17.6 pins: prefixes only, `/sessions`.
    Pinned,
}

/// What a fake relay starts with.
#[derive(Clone, Debug, Default)]
pub struct RelayOptions {
    /// Which revision.
    pub flavour: Flavour,
    /// 0 for any free port.
    pub port: u16,
    /// Whether callers are shown what only loopback callers see (session ids). The real relay
    /// goes by the caller's address; here every caller is on loopback, so it is a switch, and off
    /// by default as for a probe on another machine.
    pub trusts_caller: bool,
}

/// A running fake relay listing. Dropping it stops it.
#[derive(Debug)]
pub struct Relay {
    core: Arc<Core>,
    listening: tokio::sync::Mutex<Option<Listening>>,
    port: u16,
}

impl Relay {
    /// Binds on loopback and serves.
    ///
    /// # Errors
    /// If the port cannot be bound.
    pub async fn start(world: World, options: RelayOptions) -> io::Result<Relay> {
        let core = Arc::new(Core {
            world,
            flavour: options.flavour,
            trusts_caller: options.trusts_caller,
            memory: Mutex::new(Memory::default()),
            frozen: watch::Sender::new(false),
            lags: watch::Sender::new(0),
        });
        let frozen = core.frozen.subscribe();
        let listening = Listening::open(options.port, core.clone(), frozen).await?;
        let port = listening.address.port();
        Ok(Relay { core, listening: tokio::sync::Mutex::new(Some(listening)), port })
    }

    /// `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn base_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The relay dies, for the whole world: its listing is refused, look-ups get no answer.
    pub async fn stop(&self) {
        self.core.world.relay_down();
        if let Some(listening) = self.listening.lock().await.take() {
            listening.close().await;
        }
    }

    /// It is back, empty, on the same port; living nodes register again within half a minute.
    ///
    /// # Errors
    /// If the port has been taken meanwhile.
    pub async fn start_again(&self) -> io::Result<()> {
        self.core.world.relay_up();
        let mut listening = self.listening.lock().await;
        if listening.is_none() {
            let frozen = self.core.frozen.subscribe();
            *listening = Some(Listening::open(self.port, self.core.clone(), frozen).await?);
        }
        Ok(())
    }

    /// Its listing accepts connections and never answers.
    pub fn freeze(&self) {
        self.core.frozen.send_replace(true);
    }

    /// Undoes [`Relay::freeze`]: it continues where it stopped.
    pub fn thaw(&self) {
        self.core.frozen.send_replace(false);
    }

    /// Makes every reader of the event stream lag: events that were not sent are lost, and a `drop`
    /// event says so.
    pub fn lag(&self) {
        self.core.lags.send_modify(|count| *count += 1);
    }

    /// Injects faults; the first that concerns a request counts, an empty list heals.
    pub fn set_faults(&self, faults: Vec<Fault>) {
        self.core.lock().faults = faults;
    }

    /// How often each route was asked: `METHOD /path` with the prefix as `{prefix}`.
    #[must_use]
    pub fn requests(&self) -> BTreeMap<String, u64> {
        self.core.lock().requests.clone()
    }
}

#[derive(Debug)]
struct Core {
    world: World,
    flavour: Flavour,
    trusts_caller: bool,
    memory: Mutex<Memory>,
    frozen: watch::Sender<bool>,
    lags: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Memory {
    requests: BTreeMap<String, u64>,
    faults: Vec<Fault>,
}

impl Site for Core {
    fn answer(self: Arc<Self>, request: Request) -> BoxFuture<'static, Reply> {
        async move {
            let fault = self.admit(&request);
            if let Some(reply) = fault.as_ref().and_then(|fault| fault.instead(&request)) {
                return reply;
            }
            let reply = self.dispatch(&request);
            match fault {
                Some(fault) => fault.damage(reply).await,
                None => reply,
            }
        }
        .boxed()
    }

    fn date(&self) -> String {
        clock::http_date(self.world.now())
    }
}

impl Core {
    fn lock(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn admit(&self, request: &Request) -> Option<FaultKind> {
        let path = match request.path().strip_prefix("/nodes/") {
            Some(prefix) if prefix != "all" => "/nodes/{prefix}",
            _ => request.path(),
        };
        let mut memory = self.lock();
        *memory.requests.entry(format!("{} {path}", request.method)).or_default() += 1;
        let concerned = |fault: &&Fault| fault.concerns(&request.method, &request.target);
        memory.faults.iter().find(concerned).map(|fault| fault.kind.clone())
    }

    fn dispatch(self: &Arc<Self>, request: &Request) -> Reply {
        let parts: Vec<&str> = request.path().split('/').skip(1).collect();
        let main = self.flavour == Flavour::Main;
        match (request.method.as_str(), parts.as_slice()) {
            ("GET", ["nodes", prefix]) if !prefix.is_empty() => self.nodes(prefix),
            ("GET", ["status"]) if main => self.status(),
            ("GET", ["events"]) if main => self.events(),
            ("GET", ["metrics"]) if main => self.metrics(),
            ("GET", [""]) => self.metrics(),
            ("GET", ["sessions"]) if !main => {
                Reply::text(200, format!("sessions: {}", self.counts().0))
            }
            ("GET" | "POST", ["sessions", ..]) if main && !self.trusts_caller => {
                Reply::text(403, "denied")
            }
            ("GET", ["sessions", id]) if main => self.session(id),
            ("POST", ["sessions", id, "check"]) if main => {
                Reply::json(200, self.find_session(id).is_some())
            }
            _ => Reply::empty(404),
        }
    }

    fn nodes(&self, prefix: &str) -> Reply {
        if prefix != "all" && !(self.flavour == Flavour::Main && prefix.len() == 40) {
            // The relay reads a prefix as a number: these are the messages of the number parser.
            if let Err(error) = u32::from_str_radix(prefix, 16) {
                return Reply::text(400, error.to_string());
            }
            if prefix.len() > PREFIX_DIGITS_MAX {
                return Reply::text(400, "number too large to fit in target type");
            }
        }
        let wanted = format!("0x{}", prefix.to_ascii_lowercase());
        let mut ids = self.world.registered();
        ids.retain(|id| prefix == "all" || id.starts_with(&wanted));
        // The real one walks a hash map: neither the order nor the choice has a meaning.
        ids.sort_by_cached_key(|id| {
            let mut hasher = DefaultHasher::new();
            id.hash(&mut hasher);
            hasher.finish()
        });
        ids.truncate(NODES_MAX);
        let entries: Vec<String> = ids.iter().map(|id| self.entry(id)).collect();
        Reply::json(200, format!("{{{}}}", entries.join(",")))
    }

    fn entry(&self, id: &str) -> String {
        let (sessions, nothing) = self.world.registrations(id);
        let listed: Vec<String> = sessions.iter().map(|it| self.session_json(it)).collect();
        match nothing {
            Nothing::Null if listed.is_empty() => format!(r#""{id}":[null]"#),
            _ => format!(r#""{id}":[{}]"#, listed.join(",")),
        }
    }

    fn session_json(&self, session: &Registration) -> String {
        let pinned = self.flavour == Flavour::Pinned;
        let own = if self.trusts_caller || pinned {
            format!(r#""sessionId":"{}","#, session.session_id)
        } else {
            String::new()
        };
        let encryptions = if pinned { r#","supportedEncryptions":[]"# } else { "" };
        let verdict = if session.firewalled { "invalid" } else { "valid" };
        let (peer, seen, checked) = (session.port, session.seen, session.checked);
        let address = format!(r#""addrStatus":"{verdict}({checked:?})""#);
        let times = format!(r#""peer":"127.0.0.1:{peer}","seen":"{seen:?}"{encryptions}"#);
        format!("{{{own}{times},{address}}}")
    }

    /// Sessions and nodes.
    fn counts(&self) -> (usize, usize) {
        let ids = self.world.registered();
        let sessions = ids.iter().flat_map(|id| self.world.registrations(id).0);
        let names: std::collections::BTreeSet<String> =
            sessions.map(|session| session.session_id).collect();
        (names.len(), ids.len())
    }

    fn status(&self) -> Reply {
        let (sessions, nodes) = self.counts();
        let auth = if self.trusts_caller { r#","auth":true"# } else { "" };
        Reply::json(200, format!(r#"{{"sessions":{sessions},"nodes":{nodes}{auth}}}"#))
    }

    fn metrics(&self) -> Reply {
        let created = self.counts().0;
        let lines = ["# TYPE ya_relay_packet_ping counter", "ya_relay_packet_ping 0", ""];
        let slots =
            format!("# TYPE ya_relay_slot_created counter\nya_relay_slot_created {created}");
        Reply::text(200, format!("{}\n{slots}\n", lines.join("\n")))
    }

    fn find_session(&self, id: &str) -> Option<Registration> {
        let ids = self.world.registered();
        let mut sessions = ids.iter().flat_map(|id| self.world.registrations(id).0);
        sessions.find(|session| session.session_id == id)
    }

    fn session(&self, id: &str) -> Reply {
        if id.len() % 2 == 1 {
            return Reply::text(400, "Odd number of digits");
        }
        let found = self.find_session(id).map(|session| self.session_json(&session));
        Reply::json(200, found.unwrap_or_else(|| "null".to_owned()))
    }

    /// Changes from now on: no snapshot, no heartbeat.
    fn events(self: &Arc<Self>) -> Reply {
        let reader = Reader {
            after: self.world.announcements(u64::MAX).0,
            changes: self.world.changes(),
            lags: self.lags.subscribe(),
            core: Arc::clone(self),
        };
        let chunks = stream::unfold(reader, |mut reader| async {
            let lines = reader.next().await;
            Some((lines.concat().into_bytes(), reader))
        });
        let headers = vec![
            ("cache-control", "no-cache".to_owned()),
            ("content-type", "text/event-stream".to_owned()),
        ];
        Reply { headers, body: Body::Stream(chunks.boxed()), ..Reply::empty(200) }
    }
}

/// One reader of the event stream.
struct Reader {
    core: Arc<Core>,
    after: u64,
    changes: watch::Receiver<u64>,
    lags: watch::Receiver<u64>,
}

impl Reader {
    /// Waits for the next event.
    async fn next(&mut self) -> Vec<String> {
        loop {
            let (newest, events) = self.core.world.announcements(self.after);
            let lagged = self.lags.has_changed().unwrap_or(false);
            self.lags.mark_unchanged();
            let lost = newest.saturating_sub(self.after).max(1);
            self.after = newest;
            match events.filter(|_| !lagged) {
                Some(events) if events.is_empty() => {}
                Some(events) => return events.iter().map(line).collect(),
                None => return vec![format!("event: drop\ndata: {lost}\n\n")],
            }
            let next = self.core.world.next_announcement().unwrap_or(Duration::MAX);
            tokio::select! {
                Ok(()) = self.changes.changed() => {}
                Ok(()) = self.lags.changed() => self.lags.mark_changed(),
                () = tokio::time::sleep_until(clock::deadline(next)) => {}
            }
        }
    }
}

fn line(event: &RelayEvent) -> String {
    match event {
        RelayEvent::New(id) => format!("event: new-node\ndata: {id}\n\n"),
        RelayEvent::Lost(id) => format!("event: lost-node\ndata: {id}\n\n"),
    }
}
