//! The verbs of a store, in small traits by what they are about.
//!
//! When a call that writes returns `Ok`, what it wrote survives power loss. Refuses to interpret: a
//! store knows nothing of verdicts.

use std::collections::BTreeMap;
use std::path::Path;

use super::error::StoreError;
use super::identity_store::{By, IdentityStore};
use super::opening::Opening;
use super::records::{
    Batch, Catalogue, Checked, CompactedDay, CompactionPlan, Delivery, Details, EpochChange,
    Latency, NamesKnown, NewNames, NodeSamples, ProbeRecord, Progress, Read, Retraction, Since,
    Stored, Token,
};
use uptime_accounting::fact::Gap;
use uptime_accounting::position::Positions;
use uptime_proto::Epoch;

/// Facts: appended, read by the rounds they lie in, compacted, and dropped when they have expired.
pub trait FactLog {
    /// Writes a batch in one transaction, as the next commit of this writer; one answer per fact,
    /// in order.
    ///
    /// # Errors
    /// [`StoreError::NamesChanged`] when another process numbered ids or subnets: nothing was
    /// stored, and [`Registry::names_since`] tells them. After [`StoreError::Indeterminate`] the
    /// batch may be stored: [`FactLog::since`] tells. After any other error nothing was stored.
    fn put(&mut self, batch: &Batch) -> impl Future<Output = Result<Stored, StoreError>> + Send;

    /// The last commit of every writer.
    fn positions(&mut self) -> impl Future<Output = Result<Positions, StoreError>> + Send;

    /// What was committed after these positions, of rounds that start before a moment.
    fn since(
        &mut self,
        positions: &Positions,
        before_s: u64,
    ) -> impl Future<Output = Result<Since, StoreError>> + Send;

    /// Ends the writers that committed nothing since this moment, unix milliseconds: one that comes
    /// back begins as a new writer. Only then is what [`FactLog::since`] tells of them complete.
    fn end_writers(
        &mut self,
        before_ms: i64,
        token: Token,
    ) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// The facts of rounds that start in `[from_s, to_s)`, ascending by key, conflicting ones
    /// included. What is damaged is named and does not take the rest along.
    fn read(
        &mut self,
        from_s: u64,
        to_s: u64,
    ) -> impl Future<Output = Result<Vec<Read>, StoreError>> + Send;

    /// The gaps that have a part in `[from_s, to_s)`, ascending.
    fn gaps(
        &mut self,
        from_s: u64,
        to_s: u64,
    ) -> impl Future<Output = Result<Vec<Gap>, StoreError>> + Send;

    /// Unix seconds between which, both included, every round that has a fact starts. A compacted
    /// day counts to its end.
    fn extent(&mut self) -> impl Future<Output = Result<Option<(u64, u64)>, StoreError>> + Send;

    /// The newest times of each probe that handed something in, in the day before the newest part.
    /// Parts of compacted days are left out.
    fn deliveries(&mut self) -> impl Future<Output = Result<Vec<Delivery>, StoreError>> + Send;

    /// Compacts the first day that ends at or before this and is not compacted, without writing
    /// anything; `None`: there is none.
    fn plan_compaction(
        &mut self,
        before_s: u64,
    ) -> impl Future<Output = Result<Option<CompactionPlan>, StoreError>> + Send;

    /// Puts a planned day in the place of its rows. Nothing that can be read changes by it, but
    /// how much it takes on disk. `None`: something came to the day since it was planned.
    fn commit_compaction(
        &mut self,
        plan: &CompactionPlan,
        token: Token,
    ) -> impl Future<Output = Result<Option<CompactedDay>, StoreError>> + Send;

    /// Puts a roll-up in the place of all facts and gaps of rounds before this, in one transaction;
    /// answers how many rows and segments went.
    fn expire(
        &mut self,
        before_s: u64,
        roll_up: &[Vec<u8>],
        token: Token,
    ) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// The roll-up of expired facts; no pieces: none have expired.
    fn load_roll_up(&mut self) -> impl Future<Output = Result<Vec<Vec<u8>>, StoreError>> + Send;
}

/// What facts are read by: probes, subnets, node numbers, epochs, retractions; and what was told or
/// imported beside them.
pub trait Registry {
    /// Everything but the facts.
    fn catalogue(&mut self) -> impl Future<Output = Result<Catalogue, StoreError>> + Send;

    /// All probes.
    fn probes(&mut self) -> impl Future<Output = Result<Vec<ProbeRecord>, StoreError>> + Send;

    /// Enrols a probe by a token, or answers `None` when the name is taken; as whoever works on
    /// this host. See [`IdentityStore::enrol`].
    fn add_probe(
        &mut self,
        name: &str,
        token_hash: &[u8; 32],
        subnets_allowed: &[String],
        now_ms: i64,
    ) -> impl Future<Output = Result<Option<ProbeRecord>, StoreError>> + Send;

    /// All epochs, ascending; none in a new store.
    fn epochs(&mut self) -> impl Future<Output = Result<Vec<Epoch>, StoreError>> + Send;

    /// Adds an epoch: the first of a new store. Later ones: see [`Registry::change_epochs`].
    fn add_epoch(&mut self, epoch: &Epoch) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Puts an epoch, or nothing, in the place of all that have not begun, and adds a line to the
    /// audit log, all in one transaction. `false`: nothing was written, because other epochs are
    /// stored by now than the change was made from, or one that was to go has begun.
    ///
    /// # Errors
    /// When nothing was written: the store would not, or the epochs could not follow one another.
    fn change_epochs(
        &mut self,
        change: &EpochChange,
        by: &By,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// All retractions, the undone ones included, by number.
    fn retractions(&mut self) -> impl Future<Output = Result<Vec<Retraction>, StoreError>> + Send;

    /// What nodes say of themselves: of the first so many that say anything, from this number on.
    fn details(
        &mut self,
        from: u32,
        most: u32,
    ) -> impl Future<Output = Result<BTreeMap<u32, Details>, StoreError>> + Send;

    /// The ids and subnets that were numbered after those that are known, in order.
    fn names_since(
        &mut self,
        known: NamesKnown,
    ) -> impl Future<Output = Result<NewNames, StoreError>> + Send;

    /// Forgets ids; their numbers stay taken.
    fn forget_nodes(
        &mut self,
        numbers: &[u32],
        now_ms: i64,
        token: Token,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// The imported opening balance.
    fn opening(&mut self) -> impl Future<Output = Result<Option<Opening>, StoreError>> + Send;

    /// Puts an opening balance in the place of the one before, all or nothing.
    fn put_opening(
        &mut self,
        opening: &Opening,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// Ages and round trips of single nodes, which no verdict looks at.
pub trait Samples {
    /// What is kept of the samples of a node.
    fn samples(
        &mut self,
        node: u32,
    ) -> impl Future<Output = Result<NodeSamples, StoreError>> + Send;

    /// The round trips of these nodes on the UTC days that overlap `[from_s, to_s)`; `None` where
    /// there are none, in the order of the nodes.
    fn latency(
        &mut self,
        nodes: &[u32],
        from_s: u64,
        to_s: u64,
    ) -> impl Future<Output = Result<Vec<Option<Latency>>, StoreError>> + Send;

    /// The last round trip of each node that has one, by its number, microseconds.
    fn round_trips(&mut self) -> impl Future<Output = Result<Vec<(u32, u32)>, StoreError>> + Send;

    /// Drops samples that are kept no longer.
    fn drop_old_samples(
        &mut self,
        now_ms: i64,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// A saved state, which a store does not look into: so that a start need not replay all facts.
pub trait Checkpoints {
    /// Saves a checkpoint in place of the one saved before; no pieces: there is none any more.
    fn save_checkpoint(
        &mut self,
        pieces: &[Vec<u8>],
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// The saved checkpoint; no pieces: there is none.
    fn load_checkpoint(&mut self) -> impl Future<Output = Result<Vec<Vec<u8>>, StoreError>> + Send;
}

/// Who may destroy or decide: compaction, expiry, forgetting ids, ending writers. Those verbs take
/// the holder's token and refuse an older one with [`StoreError::LeaseLost`].
pub trait Lease {
    /// Takes the lease where nobody holds it. The embedded store gives it to whoever asks: the lock
    /// of its directory lets one process in.
    fn acquire_lease(
        &mut self,
        now_ms: i64,
    ) -> impl Future<Output = Result<Option<Token>, StoreError>> + Send;

    /// Holds it for longer; `false`: another process has it.
    fn renew_lease(
        &mut self,
        token: Token,
        now_ms: i64,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;
}

/// All of them on one connection, and what concerns the store as a whole.
pub trait Store: FactLog + Registry + Samples + Checkpoints + Lease + IdentityStore {
    /// Fails when what is written would not be found again under the store's name. Every write asks
    /// by itself.
    ///
    /// # Errors
    /// [`StoreError::Gone`].
    fn still_there(&self) -> Result<(), StoreError>;

    /// Another connection to the same store, for reading beside this one. What this one commits,
    /// the other sees.
    fn reader(&self) -> impl Future<Output = Result<Self, StoreError>> + Send
    where
        Self: Sized;

    /// From now on, until it is dropped, this store reads what is there at this moment, whatever
    /// others write meanwhile. For whoever reads much; it may not write any more.
    fn hold(&mut self) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Checks everything stored against itself, and names what does not agree; `told` hears how far
    /// it is, in parts. Works beside a writer.
    fn check(
        &mut self,
        told: &mut (dyn FnMut(Progress) + Send),
    ) -> impl Future<Output = Result<Checked, StoreError>> + Send;

    /// Writes a consistent copy of everything into a new file, beside a writer.
    fn copy_to(&mut self, path: &Path) -> impl Future<Output = Result<(), StoreError>> + Send;
}
