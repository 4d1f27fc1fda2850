//! Random numbers that depend only on the seed and on what they are drawn for.
//!
//! A generator gives its numbers in the order of the calls, and several daemons call at once. The
//! numbers here do not depend on that order. Refuses to keep state.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// A number from 0 to 1, drawn for `what`.
pub(crate) fn draw(seed: u64, what: impl Hash) -> f64 {
    let mut hasher = DefaultHasher::new();
    (seed, what).hash(&mut hasher);
    StdRng::seed_from_u64(hasher.finish()).random()
}

/// The time that lies so far between two bounds.
pub(crate) fn between((least, most): (Duration, Duration), share: f64) -> Duration {
    least + most.saturating_sub(least).mul_f64(share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_even_and_the_same_in_every_run() {
        let draws: Vec<f64> = (0..1000).map(|n| draw(7, ("x", n))).collect();
        assert!(draws.iter().all(|draw| (0.0..1.0).contains(draw)));
        let low = draws.iter().filter(|&&draw| draw < 0.3).count();
        assert!((250..350).contains(&low), "{low}");
        assert_eq!(draws[5].to_bits(), draw(7, ("x", 5)).to_bits());
        assert_ne!(draws[5].to_bits(), draw(8, ("x", 5)).to_bits());
        let bounds = (Duration::from_secs(12), Duration::from_secs(30));
        assert_eq!(between(bounds, 0.5), Duration::from_secs(21));
    }
}
