//! The gate that every call passes, gRPC and HTTP: who is it, may it, and does that still hold.
//!
//! Owns which call asks for what, the answers to those who may not, and the calls that are open.
//! What is not named here asks for a reader's proof: a service that is added later is closed
//! until someone opens it. Whoever is revoked while a call is open is cut within [`SWEEP_EVERY`].

pub(super) mod layers;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metrics::counter;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::audit::Auditor;
use super::limits::Limits;
use super::peer::Peer;
use super::roles::{Credentials, Identity, Permission, Refusal, Refused, authorize};
use crate::clock::now_unix_ms;
use crate::ledger::Ledger;
use crate::store::Identities;

/// Open calls are looked at so often: a revoked identity is cut within twice this, also one that
/// another process revoked.
pub const SWEEP_EVERY: Duration = Duration::from_secs(2);
/// Proofs that nobody knows make the identities be read again, as someone may just have been
/// enrolled; but not more often than this, however many guess.
const REFRESH_MIN: Duration = Duration::from_millis(200);

/// What a call carries once it was let in.
#[derive(Debug, Clone)]
pub struct CallContext {
    /// Who makes it; `None`: it takes nobody in particular.
    pub identity: Option<Arc<Identity>>,
    /// The ticket that it exchanges, where that is what it is for.
    pub ticket: Option<[u8; 32]>,
    /// The connection it came on.
    pub peer: Arc<Peer>,
    /// Cancelled when the identity may make it no more.
    pub ended: CancellationToken,
}

/// Who was let in, and with what.
#[derive(Debug, Default)]
struct Admitted {
    identity: Option<Arc<Identity>>,
    ticket: Option<[u8; 32]>,
}

/// A call that is open, of someone in particular.
struct Open {
    credentials: Credentials,
    permission: Permission,
    context: CallContext,
}

struct Inner {
    ledger: Ledger,
    auditor: Auditor,
    open: Mutex<(HashMap<u64, Open>, u64)>,
    refreshed: tokio::sync::Mutex<Option<Instant>>,
    call_within: Duration,
}

/// The gate of one port. A cheap handle.
#[derive(Clone)]
pub struct Gate {
    inner: Arc<Inner>,
    anonymous_reading: bool,
}

impl Gate {
    /// A gate through which nobody reads without a proof.
    #[must_use]
    pub fn new(ledger: Ledger, auditor: Auditor, limits: &Limits) -> Self {
        let (open, refreshed) = (Mutex::default(), tokio::sync::Mutex::new(None));
        let call_within = limits.call_within;
        let inner = Arc::new(Inner { ledger, auditor, open, refreshed, call_within });
        Self { inner, anonymous_reading: false }
    }

    /// The same gate at another port, where reading wants a proof or does not.
    #[must_use]
    pub fn with_anonymous_reading(&self, anonymous_reading: bool) -> Self {
        Self { inner: Arc::clone(&self.inner), anonymous_reading }
    }

    fn open(&self) -> MutexGuard<'_, (HashMap<u64, Open>, u64)> {
        // Each change is one insertion or removal, so a poisoned table is a whole table.
        self.inner.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn admit(
        &self,
        permission: Permission,
        credentials: &Result<Credentials, ()>,
    ) -> Result<Admitted, Refused> {
        if permission == Permission::Nothing {
            return Ok(Admitted::default());
        }
        let credentials =
            credentials.as_ref().map_err(|()| Refused::unnamed(Refusal::MalformedProof))?;
        let anyone = permission == Permission::Read && self.anonymous_reading;
        if credentials.is_empty() && anyone {
            return Ok(Admitted::default());
        }
        if permission == Permission::Ticket {
            let ticket = self.judged(|all, now_ms| credentials.judge_ticket(all, now_ms)).await?;
            return Ok(Admitted { ticket: Some(ticket), ..Admitted::default() });
        }
        let identity = self.judged(|all, now_ms| credentials.judge(all, now_ms)).await?;
        if anyone || authorize(identity.role, permission) {
            return Ok(Admitted { identity: Some(Arc::new(identity)), ticket: None });
        }
        Err(Refused { refusal: Refusal::Role, name: Some(identity.name) })
    }

    /// What a proof shows; one that nobody knows may be of someone who has just been enrolled.
    async fn judged<T>(
        &self,
        judge: impl Fn(&Identities, i64) -> Result<T, Refused>,
    ) -> Result<T, Refused> {
        let now = || judge(&self.inner.ledger.identities(), now_unix_ms());
        match now() {
            Err(Refused {
                refusal:
                    Refusal::UnknownToken
                    | Refusal::UnknownName
                    | Refusal::UnknownTicket
                    | Refusal::UnknownCertificate,
                ..
            }) => {
                self.refresh().await;
                now()
            }
            judged => judged,
        }
    }

    /// Has the identities read again. Any number of those who wait are served by one reading that
    /// begins after they came.
    async fn refresh(&self) {
        let came = Instant::now();
        let mut began = self.inner.refreshed.lock().await;
        if began.is_some_and(|began| began >= came) {
            return;
        }
        if let Some(began) = *began {
            tokio::time::sleep_until(began + REFRESH_MIN).await;
        }
        *began = Some(Instant::now());
        self.inner.ledger.refresh_identities().await;
    }

    fn enter(
        &self,
        permission: Permission,
        credentials: Credentials,
        context: &CallContext,
    ) -> OpenCall {
        let settles = !matches!(permission, Permission::Nothing | Permission::Ticket);
        context.peer.usage.send_modify(|usage| {
            usage.settled |= settles;
            usage.open += 1;
            usage.begun += 1;
        });
        let serial = context.identity.is_some().then(|| {
            let mut open = self.open();
            let serial = open.1;
            open.1 += 1;
            open.0.insert(serial, Open { credentials, permission, context: context.clone() });
            serial
        });
        OpenCall { gate: self.clone(), serial, peer: Arc::clone(&context.peer) }
    }

    fn refused(&self, refused: &Refused, peer: &Peer, path: &str) {
        peer.refused();
        let (address, name) = (peer.address.ip(), refused.name.as_deref());
        self.inner.auditor.refused(refused.refusal, address, name, path);
    }

    /// Ends the calls of those who may make them no more. One that was told so the time before and
    /// still has calls is not listening: its connection is cut.
    fn sweep(&self, now_ms: i64) {
        let identities = self.inner.ledger.identities();
        for call in self.open().0.values() {
            let Some(identity) = &call.context.identity else { continue };
            if call.context.ended.is_cancelled() {
                call.context.peer.cut.cancel();
                continue;
            }
            let refusal = match call.credentials.judge(&identities, now_ms) {
                Ok(now) if now.name == identity.name && now.role == identity.role => continue,
                Ok(_) => Refusal::Role,
                Err(refused) => refused.refusal,
            };
            let (address, name) = (call.context.peer.address.ip(), Some(identity.name.as_str()));
            let detail = format!("an open call ({:?}) was cut", call.permission);
            self.inner.auditor.refused(refusal, address, name, &detail);
            counter!("uptime_access_calls_cut_total").increment(1);
            call.context.ended.cancel();
        }
    }

    /// Keeps the identities fresh and ends what has to end, until told to stop.
    pub async fn run(self, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(SWEEP_EVERY) => {}
            }
            self.inner.ledger.refresh_identities().await;
            self.sweep(now_unix_ms());
        }
    }
}

/// A call from its beginning to the end of its answer.
struct OpenCall {
    gate: Gate,
    serial: Option<u64>,
    peer: Arc<Peer>,
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        self.peer.usage.send_modify(|usage| usage.open = usage.open.saturating_sub(1));
        if let Some(serial) = self.serial {
            self.gate.open().0.remove(&serial);
        }
    }
}
