//! How many answers are made at once.
//!
//! Owns the bound on work that is done for visitors: so many at a time, so many that wait, and a
//! word to come back to the others. So a crowd at the page cannot take the machine from ingest.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::WebError;

/// Answers that are made at the same time.
const MADE_AT_ONCE: usize = 8;
/// Requests in work and waiting. Further ones get "try again".
const ADMITTED_MAX: usize = 512;

/// The gate.
#[derive(Debug, Clone)]
pub(super) struct Gate {
    admitted: Arc<Semaphore>,
    made: Arc<Semaphore>,
}

/// A place; given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    _made: OwnedSemaphorePermit,
    _admitted: OwnedSemaphorePermit,
}

impl Default for Gate {
    fn default() -> Self {
        Self::of(ADMITTED_MAX, MADE_AT_ONCE)
    }
}

impl Gate {
    fn of(admitted: usize, made: usize) -> Self {
        Self { admitted: Arc::new(Semaphore::new(admitted)), made: Arc::new(Semaphore::new(made)) }
    }

    /// Waits for a place.
    ///
    /// # Errors
    /// When too many wait already.
    pub(super) async fn enter(&self) -> Result<Place, WebError> {
        let admitted = Arc::clone(&self.admitted).try_acquire_owned();
        let admitted = admitted.map_err(|_| WebError::busy())?;
        let made = Arc::clone(&self.made).acquire_owned().await;
        // Nobody closes it.
        let made = made.map_err(|_| WebError::busy())?;
        Ok(Place { _made: made, _admitted: admitted })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_finds_it_full_is_sent_away_and_a_place_comes_back() {
        let gate = Gate::of(2, 1);
        let first = gate.enter().await.unwrap();
        let waiting = gate.enter();
        tokio::pin!(waiting);
        assert!(futures_util::poll!(&mut waiting).is_pending());
        let error = gate.enter().await.unwrap_err();
        assert_eq!(error.status.as_u16(), 503);
        drop(first);
        drop(waiting.await.unwrap());
        drop(gate.enter().await.unwrap());
    }
}
