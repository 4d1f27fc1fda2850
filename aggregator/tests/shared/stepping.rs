//! An engine led step by step, with the verbs that the ledger task calls.
//!
//! Owns the order of what is due at one moment. Refuses to hide an error: it panics.

use uptime_aggregator::engine::{
    Engine, PartOutcome, Submission, compaction_before_s, expiry_plan,
};
use uptime_aggregator::store::{CompactedDay, FactLog, SqliteStore};

/// Commits and applies one submission at a moment, unix milliseconds.
pub async fn submit(
    engine: &mut Engine<SqliteStore>,
    submission: Submission,
    now_ms: i64,
) -> Vec<PartOutcome> {
    engine.commit(vec![submission], now_ms).await.unwrap().outcomes.concat()
}

/// Does everything that is due at a moment: closes, makes the state anew where that is wanted, and
/// judges again all that came late. A rebuild that is under way is left alone.
pub async fn catch_up(engine: &mut Engine<SqliteStore>, now_ms: i64) {
    loop {
        engine.close_due(now_ms, true).await;
        if engine.rebuild_wanted().is_some() {
            if let Some(job) = engine.begin_rebuild(now_ms).await.unwrap() {
                engine.finish_rebuild(job.run().await, now_ms).await;
            }
        } else if engine.has_late_rounds() {
            engine.judge_late_rounds().await.unwrap();
        } else {
            break;
        }
    }
    engine.take_snapshot();
    engine.save_checkpoint_if_due().await;
}

/// Compacts every day that was over some time before a moment.
pub async fn compact(engine: &mut Engine<SqliteStore>, now_ms: i64) -> Vec<CompactedDay> {
    let mut reader = engine.reader().await.unwrap();
    let mut days = Vec::new();
    while let Some(plan) = reader.plan_compaction(compaction_before_s(now_ms)).await.unwrap() {
        days.extend(engine.commit_compaction(&plan, now_ms).await.unwrap());
    }
    days
}

/// Puts a roll-up in the place of the facts beyond the retention; answers how many rows and
/// segments went.
pub async fn expire(engine: &mut Engine<SqliteStore>, now_ms: i64) -> u64 {
    let (mut reader, retention) = (engine.reader().await.unwrap(), engine.retention());
    let epochs = engine.snapshot().epochs.clone();
    let plan = expiry_plan(&mut reader, &epochs, &retention, now_ms).await.unwrap();
    let gone = match plan {
        Some(expiry) => engine.expire(&expiry, now_ms).await.unwrap(),
        None => 0,
    };
    engine.take_snapshot();
    gone
}
