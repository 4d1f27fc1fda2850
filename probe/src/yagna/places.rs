//! How many questions are under way at once: a number that may change while they are.
//!
//! Owns the places. Nobody is asked to leave: where there are to be fewer, those who leave take
//! their place with them.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Semaphore, SemaphorePermit};
use uptime_proto::Reason;

use super::fault::CouldNotLook;

/// Places for questions.
pub(super) struct Places {
    semaphore: Semaphore,
    count: Mutex<Count>,
}

struct Count {
    /// Taken ones included.
    there_are: usize,
    wanted: usize,
}

/// A place among the questions under way.
pub(super) struct Place<'a> {
    places: &'a Places,
    permit: Option<SemaphorePermit<'a>>,
}

impl Places {
    pub(super) fn new(count: usize) -> Self {
        let state = Count { there_are: count, wanted: count };
        Self { semaphore: Semaphore::new(count), count: Mutex::new(state) }
    }

    /// From now on so many, at least one.
    pub(super) fn set(&self, wanted: usize) {
        let mut count = self.lock();
        count.wanted = wanted.clamp(1, Semaphore::MAX_PERMITS);
        if count.there_are < count.wanted {
            self.semaphore.add_permits(count.wanted - count.there_are);
            count.there_are = count.wanted;
        } else {
            count.there_are -= self.semaphore.forget_permits(count.there_are - count.wanted);
        }
    }

    /// Waits for a place.
    pub(super) async fn take(&self) -> Result<Place<'_>, CouldNotLook> {
        // This semaphore is never closed; should it be, the question was not put.
        let permit = self.semaphore.acquire().await;
        let permit = permit.map_err(|_| CouldNotLook::new(Reason::Missed, "closed"))?;
        Ok(Place { places: self, permit: Some(permit) })
    }

    fn lock(&self) -> MutexGuard<'_, Count> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut count = self.places.lock();
        if let Some(permit) = self.permit.take()
            && count.there_are > count.wanted
        {
            count.there_are -= 1;
            permit.forget();
        }
    }
}

/// Whether a semaphore can have so many places and lets anybody in.
pub(super) fn places(count: usize) -> bool {
    (1..=Semaphore::MAX_PERMITS).contains(&count)
}

/// Waits for a place among the questions under way.
pub(super) async fn place(places: &Semaphore) -> Result<SemaphorePermit<'_>, CouldNotLook> {
    // No semaphore of this room is ever closed; should one be, the question was not put.
    places.acquire().await.map_err(|_| CouldNotLook::new(Reason::Missed, "closed"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn take(places: &Places) -> Option<Place<'_>> {
        places.take().now_or_never().map(Result::unwrap)
    }

    #[test]
    fn places_become_fewer_and_more_while_they_are_taken() {
        let places = Places::new(3);
        let taken: Vec<Place<'_>> = std::iter::from_fn(|| take(&places)).collect();
        assert_eq!(taken.len(), 3);
        places.set(1);
        let mut taken = taken.into_iter();
        drop(taken.next());
        assert!(take(&places).is_none(), "two are under way, where one may be");
        drop(taken.next());
        assert!(take(&places).is_none());
        drop(taken.next());
        let one = take(&places);
        assert!(one.is_some() && take(&places).is_none());
        places.set(2);
        let two = take(&places);
        assert!(two.is_some() && take(&places).is_none());
        drop((one, two));
        places.set(0);
        assert!(take(&places).is_some(), "never none at all");
    }
}
