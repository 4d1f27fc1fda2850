//! The rules, as they change while the engine works: another process stores an epoch (`rules set`).
//!
//! Owns when it is taken over here. One that is learnt before it begins, as it should be, changes
//! nothing that was decided; one that is learnt late has all facts replayed. Refuses to make
//! any, but for the first of a new store.

use std::sync::Arc;

use uptime_proto::Epochs;

use super::core::{Engine, checked};
use super::urgency::Urgency;
use crate::store::{Store, StoreError};

impl<S: Store> Engine<S> {
    /// Reads the epochs anew: another process may have stored some.
    ///
    /// # Errors
    /// When they cannot be read, or cannot be; those known before go on to hold.
    pub async fn learn_epochs(&mut self) -> Result<(), StoreError> {
        let epochs = checked(self.store.epochs().await?)?;
        if epochs == self.epochs {
            return Ok(());
        }
        let last = epochs.all().last();
        let start_s = last.map(|epoch| epoch.start_s);
        let period_s = last.map(|epoch| epoch.period.seconds());
        tracing::info!(epochs = epochs.all().len(), start_s, period_s, "the rules changed");
        self.epochs = Arc::clone(&epochs);
        let from_s = differ_from_s(self.state.epochs(), &epochs);
        let later = self.state.window().last_key_value().is_none_or(|(last, _)| *last < from_s);
        if later && self.state.closed_end_s() <= from_s {
            self.state.set_epochs(epochs);
        } else {
            tracing::warn!(from_s, "rules that have begun already were learnt late");
            self.rebuild.want(Urgency::Now);
        }
        Ok(())
    }
}

/// The moment before which both say the same, unix seconds.
fn differ_from_s(a: &Epochs, b: &Epochs) -> u64 {
    let same = a.all().iter().zip(b.all()).take_while(|(a, b)| a == b).count();
    if same == 0 {
        // The first holds before its start, too.
        return 0;
    }
    let next = [a, b].into_iter().filter_map(|epochs| epochs.all().get(same));
    next.map(|epoch| epoch.start_s).min().unwrap_or(u64::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use uptime_proto::{Epoch, Period};

    use super::*;

    #[test]
    fn epochs_differ_from_the_first_start_that_only_one_of_them_has() {
        let epochs = |starts: &[(u64, u32)]| {
            let rules = |(start_s, period_s): &(u64, u32)| {
                let period = Period::new(*period_s).unwrap();
                Epoch { start_s: *start_s, ..Epoch::with_defaults(period) }
            };
            Epochs::new(starts.iter().map(rules).collect()).unwrap()
        };
        for (a, b, from_s) in [
            (&[(0, 30)][..], &[(0, 60)][..], 0),
            (&[(0, 30)], &[(0, 30)], u64::MAX),
            (&[(0, 30)], &[(0, 30), (600, 60)], 600),
            (&[(0, 30), (900, 10)], &[(0, 30), (600, 60)], 600),
            (&[(0, 30), (600, 10)], &[(0, 30), (600, 60)], 600),
        ] {
            assert_eq!(differ_from_s(&epochs(a), &epochs(b)), from_s, "{a:?} {b:?}");
            assert_eq!(differ_from_s(&epochs(b), &epochs(a)), from_s, "{b:?} {a:?}");
        }
    }
}
