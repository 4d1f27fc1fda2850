//! How many connections, how long they may do nothing, how fast an identity may hand in parts.
//!
//! Owns the numbers and what counts against them. Pure but for a lock: times come in.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metrics::{counter, gauge};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uptime_proto::convert::PartLimits;

pub use super::peer::REFUSALS_PER_CONNECTION_MAX;
use super::roles::Refusal;

/// From the first byte of a connection to the end of its handshake.
pub const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
/// A connection on which no call was let in is ended after this. Clients connect because they have
/// something to say.
pub const FIRST_CALL_WITHIN: Duration = Duration::from_secs(20);
/// A gRPC connection without a call is ended after this; programs keep one for their next question.
pub const GRPC_IDLE_MAX: Duration = Duration::from_secs(900);
/// The same for HTTP, where browsers open another at no cost.
pub const HTTP_IDLE_MAX: Duration = Duration::from_secs(60);
/// An HTTP answer that was not taken by then is cut: 100 MB at 2 Mbit/s.
pub const HTTP_ANSWER_WITHIN: Duration = Duration::from_secs(600);
/// A unary call, its message included; a message of 1 MiB at 500 kbit/s takes 17 s.
pub const CALL_WITHIN: Duration = Duration::from_secs(60);
/// So many connections are taken in one go; then others are served for a while. Two thousand that
/// come at once would else stand before every answer that is due.
pub const ACCEPTED_AT_ONCE: u32 = 16;
/// The while: some 3,000 connections a second at most. What comes faster waits where the system
/// keeps it, and comes again by itself when that is full.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(5);
/// Connections that the system keeps until they are accepted, if it may (`net.core.somaxconn`):
/// as many as come at once where everybody comes again.
pub const BACKLOG: u32 = 4_096;
/// Connections that have shown nothing yet, both ports together. The next one pushes the oldest
/// out: an honest one shows itself within milliseconds, so a flood has to turn all of them over
/// within that time to be in its way.
pub const NEWCOMERS_MAX: usize = 256;
/// Streams that one gRPC connection may have open; a native probe needs one.
pub const STREAMS_PER_CONNECTION_MAX: u32 = 200;
/// The names and values of one call's headers together; ours take some 300 bytes. No such list
/// needs more than five CONTINUATION frames: one more ends the connection, however little is in it.
pub const HEADER_LIST_BYTES_MAX: u32 = 16 * 1024;
/// One HTTP/2 frame; the least that the protocol allows.
pub const FRAME_BYTES_MAX: u32 = 16 * 1024;
/// What one stream has on its way to a peer that allows it more than it takes: a reader that does
/// not read costs no more, whatever window it opened. Two of a watcher's messages, and enough for a
/// file: what the connection has taken makes room at once.
pub const SEND_BUFFER_BYTES_MAX: usize = 64 * 1024;
/// Streams that a peer has reset and that were not looked at yet: beyond that it is flooding
/// ("rapid reset"), and its connection ends.
pub const RESET_STREAMS_MAX: usize = 20;
/// Streams that had to be reset because of what the peer sent; beyond that the connection ends.
pub const ERROR_STREAMS_MAX: usize = 64;
/// Header fields of one HTTP/1 request, and the bytes of all of them.
pub const HTTP_HEADERS_MAX: usize = 64;
/// See [`HTTP_HEADERS_MAX`].
pub const HTTP_HEAD_BYTES_MAX: usize = 16 * 1024;
/// Half-open connections are noticed within twice this. It also ends peers that dribble a frame:
/// in the midst of one they cannot answer.
pub const KEEPALIVE: Duration = Duration::from_secs(10);

/// Default of `--connections-max`, both ports together: at some 60 kB each below 200 MB.
pub const CONNECTIONS_MAX: u32 = 2_048;
/// Default of `--connections-per-address-max`.
pub const CONNECTIONS_PER_ADDRESS_MAX: u32 = 256;
/// Default of `--parts-per-s-max`: a probe makes some three a round.
pub const PARTS_PER_S_MAX: u32 = 2_000;
/// A probe that was away may hand in so many seconds' worth of parts at once.
const BURST_S: f64 = 10.0;

/// The limits in force. An operator may move the first four; the others are the constants above,
/// and shorter in tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections, both ports together.
    pub connections_max: u32,
    /// Connections from one address, or from one /64 of IPv6.
    pub connections_per_address_max: u32,
    /// Parts a second that one identity may hand in, on average.
    pub parts_per_s_max: u32,
    /// Parts of one round that one identity may have stored; see [`PartLimits`]. The store counts
    /// them, since only it knows what came before a restart.
    pub parts_per_round_max: u32,
    /// See [`HANDSHAKE_WITHIN`].
    pub handshake_within: Duration,
    /// See [`FIRST_CALL_WITHIN`].
    pub first_call_within: Duration,
    /// See [`GRPC_IDLE_MAX`].
    pub grpc_idle_max: Duration,
    /// See [`HTTP_IDLE_MAX`].
    pub http_idle_max: Duration,
    /// See [`HTTP_ANSWER_WITHIN`].
    pub http_answer_within: Duration,
    /// See [`CALL_WITHIN`].
    pub call_within: Duration,
    /// See [`KEEPALIVE`].
    pub keepalive: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: CONNECTIONS_MAX,
            connections_per_address_max: CONNECTIONS_PER_ADDRESS_MAX,
            parts_per_s_max: PARTS_PER_S_MAX,
            parts_per_round_max: PartLimits::default().parts_per_round_max,
            handshake_within: HANDSHAKE_WITHIN,
            first_call_within: FIRST_CALL_WITHIN,
            grpc_idle_max: GRPC_IDLE_MAX,
            http_idle_max: HTTP_IDLE_MAX,
            http_answer_within: HTTP_ANSWER_WITHIN,
            call_within: CALL_WITHIN,
            keepalive: KEEPALIVE,
        }
    }
}

/// Whom a connection counts for: of IPv6 the network, since a host may have all its addresses.
fn origin(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(ip) => ip.into(),
            None => IpAddr::from((ip.to_bits() >> 64 << 64).to_be_bytes()),
        },
    }
}

#[derive(Debug)]
struct Open {
    origin: IpAddr,
    /// Cancelled to push it out; gone once it has settled.
    newcomer: Option<CancellationToken>,
}

#[derive(Debug, Default)]
struct Table {
    /// By serial number, so the oldest first.
    open: BTreeMap<u64, Open>,
    by_origin: HashMap<IpAddr, u32>,
    newcomers: BTreeMap<u64, IpAddr>,
    next: u64,
}

impl Table {
    fn remove(&mut self, serial: u64) -> Option<Open> {
        let open = self.open.remove(&serial)?;
        self.newcomers.remove(&serial);
        if let Some(count) = self.by_origin.get_mut(&open.origin) {
            *count -= 1;
            if *count == 0 {
                self.by_origin.remove(&open.origin);
            }
        }
        Some(open)
    }

    /// Pushes the oldest newcomer out, of this origin or of any; answers whether there was one.
    fn push_out(&mut self, of: Option<IpAddr>) -> bool {
        let mut newcomers = self.newcomers.iter();
        let oldest = newcomers.find(|(_, origin)| of.is_none_or(|of| of == **origin));
        let Some(serial) = oldest.map(|(serial, _)| *serial) else {
            return false;
        };
        if let Some(token) = self.remove(serial).and_then(|open| open.newcomer) {
            token.cancel();
        }
        counter!("uptime_access_newcomers_pushed_out_total").increment(1);
        true
    }
}

/// Who is connected. A cheap handle.
#[derive(Debug, Clone)]
pub struct Slots {
    table: Arc<Mutex<Table>>,
    limits: Limits,
}

/// The place of one connection; given back when dropped.
#[derive(Debug)]
pub struct Slot {
    slots: Slots,
    serial: u64,
    /// Cancelled when another one takes this place.
    pub pushed_out: CancellationToken,
}

impl Slots {
    /// No connections yet.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { table: Arc::default(), limits }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // A counter that a panic left too high only makes the limits a little tighter.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a connection that has just come. Where there is none, the oldest newcomer makes
    /// room: of the same address if that one has too many.
    ///
    /// # Errors
    /// When no newcomer could make room.
    pub fn take(&self, address: IpAddr) -> Result<Slot, Refusal> {
        let origin = origin(address);
        let mut table = self.table();
        let there = table.by_origin.get(&origin).copied().unwrap_or(0);
        if there >= self.limits.connections_per_address_max && !table.push_out(Some(origin)) {
            return Err(Refusal::ConnectionsOfAddress);
        }
        if table.open.len() >= self.limits.connections_max as usize && !table.push_out(None) {
            return Err(Refusal::Connections);
        }
        if table.newcomers.len() >= NEWCOMERS_MAX {
            table.push_out(None);
        }
        let serial = table.next;
        table.next += 1;
        let pushed_out = CancellationToken::new();
        table.open.insert(serial, Open { origin, newcomer: Some(pushed_out.clone()) });
        table.newcomers.insert(serial, origin);
        *table.by_origin.entry(origin).or_default() += 1;
        show(&table);
        Ok(Slot { slots: self.clone(), serial, pushed_out })
    }
}

impl Slot {
    /// A call was let in: from now on nobody pushes this connection out.
    pub fn settle(&self) {
        let mut table = self.slots.table();
        table.newcomers.remove(&self.serial);
        if let Some(open) = table.open.get_mut(&self.serial) {
            open.newcomer = None;
        }
        show(&table);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut table = self.slots.table();
        table.remove(self.serial);
        show(&table);
    }
}

#[expect(clippy::cast_precision_loss, reason = "numbers of connections")]
fn show(table: &Table) {
    gauge!("uptime_access_connections").set(table.open.len() as f64);
    gauge!("uptime_access_newcomers").set(table.newcomers.len() as f64);
}

/// What one identity may hand in: so many a second on average, more after a pause.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// What may still be handed in at once; below zero after a burst.
    level: f64,
    at: Instant,
}

/// How fast identities hand in parts. A cheap handle.
#[derive(Debug, Clone)]
pub struct Rates {
    buckets: Arc<Mutex<HashMap<u32, Bucket>>>,
    per_s: f64,
}

impl Rates {
    /// Nobody has handed in anything yet.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { buckets: Arc::default(), per_s: f64::from(limits.parts_per_s_max) }
    }

    /// Takes so many parts of a probe into account; answers how long it is not to be heard again.
    /// Buckets are as many as enrolled probes.
    pub fn charge(&self, probe: u32, parts: usize, now: Instant) -> Duration {
        #[expect(clippy::cast_precision_loss, reason = "a number of parts in a report")]
        self.take(probe, parts.max(1) as f64, now)
    }

    /// How long a probe is not to be heard, whatever it has to say.
    #[must_use]
    pub fn owed(&self, probe: u32, now: Instant) -> Duration {
        self.take(probe, 0.0, now)
    }

    fn take(&self, probe: u32, cost: f64, now: Instant) -> Duration {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let full = self.per_s * BURST_S;
        let bucket = buckets.entry(probe).or_insert(Bucket { level: full, at: now });
        let passed = now.saturating_duration_since(bucket.at).as_secs_f64();
        *bucket = Bucket {
            level: passed.mul_add(self.per_s, bucket.level).min(full) - cost,
            at: now.max(bucket.at),
        };
        Duration::from_secs_f64((-bucket.level).max(0.0) / self.per_s)
    }
}

#[cfg(test)]
#[path = "limits/tests.rs"]
mod tests;
