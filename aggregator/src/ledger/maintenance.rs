//! Maintenance: compaction of days that are over, and expiry of facts beyond the retention.
//!
//! Owns the task that plans both on a connection of its own and hands the result to the ledger
//! task, so that neither delays an acknowledgement. Refuses to write.

use std::sync::Arc;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::handle::Ledger;
use crate::clock::Judged;
use crate::engine::{
    Retention, Snapshot, compaction_before_s, expiry_plan, has_expired, vouched_ms,
};
use crate::store::{Store, StoreError};

/// Compacts and expires once a day, after its end, until told to stop.
pub(super) async fn maintain(
    mut store: impl Store,
    ledger: Ledger,
    mut snapshots: watch::Receiver<Arc<Snapshot>>,
    retention: Retention,
    shutdown: CancellationToken,
) {
    let mut done_before_s = 0;
    let mut expiry_waits = false;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            changed = snapshots.changed() => if changed.is_err() { break },
        }
        let clock = ledger.clock().now();
        let now_ms = clock.wall_ms;
        let before_s = compaction_before_s(now_ms);
        let before_s = before_s - before_s % u64::from(uptime_proto::round::DAY_S);
        if before_s == done_before_s && !(expiry_waits && clock.may_delete) {
            continue;
        }
        let done = maintain_once(&mut store, &ledger, &retention, &clock, &shutdown).await;
        expiry_waits = matches!(done, Ok(Done::NotSure));
        if let Err(error) = done {
            tracing::error!(%error, "closed days were not compacted; tried again tomorrow");
        }
        done_before_s = before_s;
    }
}

/// What became of it.
enum Done {
    All,
    /// Facts have expired by this clock, and it has not been sure for long enough.
    NotSure,
}

async fn maintain_once(
    store: &mut impl Store,
    ledger: &Ledger,
    retention: &Retention,
    clock: &Judged,
    shutdown: &CancellationToken,
) -> Result<Done, StoreError> {
    let now_ms = clock.wall_ms;
    while !shutdown.is_cancelled()
        && let Some(planned) = store.plan_compaction(compaction_before_s(now_ms)).await?
    {
        let compacted = tokio::select! {
            () = shutdown.cancelled() => break,
            compacted = ledger.commit_compaction(planned) => compacted,
        };
        let Some(compacted) = compacted else { break };
        // Something came to the day meanwhile: it is compacted again.
        let Some(day) = compacted? else { continue };
        tracing::info!(
            day_s = day.day_s,
            parts = day.parts,
            bytes = day.bytes,
            before_bytes = day.before_bytes,
            "a day was compacted"
        );
    }
    if !has_expired(store, retention, now_ms).await? {
        return Ok(Done::All);
    }
    if !clock.may_delete {
        return Ok(Done::NotSure);
    }
    let Some(vouched_ms) = vouched_ms(store, now_ms).await? else {
        tracing::warn!(
            "facts beyond the retention stay: by this clock they are too old, but the parts of the \
             last 24 hours do not confirm it. Check the clock of this host"
        );
        return Ok(Done::All);
    };
    let plan = expiry_plan(store, &ledger.epochs(), retention, vouched_ms).await?;
    let Some(expiry) = plan else {
        return Ok(Done::All);
    };
    let before_s = expiry.before_s;
    let gone = tokio::select! {
        () = shutdown.cancelled() => None,
        gone = ledger.expire(expiry) => gone,
    };
    if let Some(gone) = gone {
        let gone = gone?;
        tracing::info!(before_s, gone, "facts beyond the retention expired; their totals stay");
    }
    Ok(Done::All)
}
