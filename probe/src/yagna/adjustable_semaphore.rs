//! A semaphore whose number of permits can change while some are taken.
//!
//! Owns the permits. Never revokes one: when there are to be fewer, permits disappear as they are
//! returned.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Semaphore, SemaphorePermit};
use uptime_proto::Reason;

use super::fault::CouldNotLook;

/// Limits the questions in flight.
pub(super) struct AdjustableSemaphore {
    semaphore: Semaphore,
    count: Mutex<Count>,
}

struct Count {
    /// Permits that exist, taken ones included.
    total: usize,
    wanted: usize,
}

/// Permission for one question in flight.
pub(super) struct Permit<'a> {
    semaphore: &'a AdjustableSemaphore,
    permit: Option<SemaphorePermit<'a>>,
}

impl AdjustableSemaphore {
    pub(super) fn new(count: usize) -> Self {
        let state = Count { total: count, wanted: count };
        Self { semaphore: Semaphore::new(count), count: Mutex::new(state) }
    }

    /// Changes the number of permits, to at least one.
    pub(super) fn set(&self, wanted: usize) {
        let mut count = self.lock();
        count.wanted = wanted.clamp(1, Semaphore::MAX_PERMITS);
        if count.total < count.wanted {
            self.semaphore.add_permits(count.wanted - count.total);
            count.total = count.wanted;
        } else {
            count.total -= self.semaphore.forget_permits(count.total - count.wanted);
        }
    }

    /// Waits for a permit.
    pub(super) async fn take(&self) -> Result<Permit<'_>, CouldNotLook> {
        // This semaphore is never closed; if it were, the question was not asked.
        let permit = self.semaphore.acquire().await;
        let permit = permit.map_err(|_| CouldNotLook::new(Reason::Missed, "closed"))?;
        Ok(Permit { semaphore: self, permit: Some(permit) })
    }

    fn lock(&self) -> MutexGuard<'_, Count> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let mut count = self.semaphore.lock();
        if let Some(permit) = self.permit.take()
            && count.total > count.wanted
        {
            count.total -= 1;
            permit.forget();
        }
    }
}

/// Whether a semaphore can have this many permits, and has any.
pub(super) fn is_permit_count(count: usize) -> bool {
    (1..=Semaphore::MAX_PERMITS).contains(&count)
}

/// Waits for a permit.
pub(super) async fn acquire(semaphore: &Semaphore) -> Result<SemaphorePermit<'_>, CouldNotLook> {
    // These semaphores are never closed; if one were, the question was not asked.
    semaphore.acquire().await.map_err(|_| CouldNotLook::new(Reason::Missed, "closed"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn take(semaphore: &AdjustableSemaphore) -> Option<Permit<'_>> {
        semaphore.take().now_or_never().map(Result::unwrap)
    }

    #[test]
    fn permits_become_fewer_and_more_while_they_are_taken() {
        let semaphore = AdjustableSemaphore::new(3);
        let taken: Vec<Permit<'_>> = std::iter::from_fn(|| take(&semaphore)).collect();
        assert_eq!(taken.len(), 3);
        semaphore.set(1);
        let mut taken = taken.into_iter();
        drop(taken.next());
        assert!(take(&semaphore).is_none(), "two are under way, where one may be");
        drop(taken.next());
        assert!(take(&semaphore).is_none());
        drop(taken.next());
        let one = take(&semaphore);
        assert!(one.is_some() && take(&semaphore).is_none());
        semaphore.set(2);
        let two = take(&semaphore);
        assert!(two.is_some() && take(&semaphore).is_none());
        drop((one, two));
        semaphore.set(0);
        assert!(take(&semaphore).is_some(), "never none at all");
    }
}
