//! Bad links: packets lost and late, each way, between two nodes or a node and the relay.
//!
//! Owns the model, which is fitted to recordings [b1–b3, b5, b7]: from a link and random numbers it
//! computes how often a question is sent until it is answered, or that it is not answered. Pure, so
//! that a test can ask thousands of questions without waiting. Refuses to wait or to draw numbers.

use std::time::Duration;

/// A look-up fails after this number of attempts (b7).
pub(crate) const LOOK_UP_ATTEMPTS: usize = 4;
/// Up to this loss every direct question is answered quickly.
const LOSS_HARMLESS: f64 = 0.15;
/// From this loss on a peer is reached only through the relay.
const LOSS_RELAYED: f64 = 0.3;
/// The probability that a direct question fails, by loss: after an answered question, and after a
/// failed one. At 30 % these give 38 % answered and runs of five failures.
const FAILURES: [(f64, f64, f64); 4] =
    [(LOSS_HARMLESS, 0.0, 0.0), (0.3, 0.33, 0.8), (0.5, 0.97, 0.995), (1.0, 1.0, 1.0)];

/// How bad a link is, each way. The default is a clean one.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Link {
    /// The share of packets lost, 0 to 1.
    pub loss: f64,
    /// How much later the others arrive.
    pub delay: Duration,
}

impl Link {
    /// A link that loses this share of its packets.
    #[must_use]
    pub fn losing(loss: f64) -> Link {
        Link { loss, ..Link::default() }
    }

    /// Both links in a row.
    #[must_use]
    pub fn then(self, other: Link) -> Link {
        let passes = (1.0 - self.loss) * (1.0 - other.loss);
        Link { loss: 1.0 - passes, delay: self.delay + other.delay }
    }

    /// Asks a direct question over a reliable channel: how often it was sent again until it was
    /// answered, or `None` if it was not answered. A failure makes the next one likely, because the
    /// channel waits longer and longer before it sends again.
    #[must_use]
    pub fn question(self, failed_before: bool, fate: f64, luck: f64) -> Option<u32> {
        let (after_answer, after_failure) = failures(self.loss);
        if fate < if failed_before { after_failure } else { after_answer } {
            return None;
        }
        let again = (1.6 * self.lost()).min(0.8);
        let most = if self.loss <= LOSS_HARMLESS { 2 } else { 4 };
        let mut left = luck;
        let mut times = 0;
        while times < most && left < again {
            left /= again;
            times += 1;
        }
        Some(times)
    }

    /// Sends one packet and waits for one: whether it comes.
    #[must_use]
    pub fn echo(self, fate: f64) -> bool {
        fate >= self.lost()
    }

    /// Sends a look-up to the relay: how often it was sent again until it was answered, or `None`
    /// if it was not answered.
    #[must_use]
    pub fn look_up(self, fates: [f64; LOOK_UP_ATTEMPTS]) -> Option<u32> {
        let answered = fates.iter().position(|&fate| self.echo(fate))?;
        u32::try_from(answered).ok()
    }

    pub(crate) fn is_direct(self) -> bool {
        self.loss < LOSS_RELAYED
    }

    /// The probability that a packet or its answer is lost.
    fn lost(self) -> f64 {
        1.0 - (1.0 - self.loss).powi(2)
    }
}

fn failures(loss: f64) -> (f64, f64) {
    for pair in FAILURES.windows(2) {
        let [(from, answer, failure), (to, next_answer, next_failure)] = pair else { continue };
        if loss <= *to {
            let share = ((loss - from) / (to - from)).max(0.0);
            let at = |low: f64, high: f64| low + (high - low) * share;
            return (at(*answer, *next_answer), at(*failure, *next_failure));
        }
    }
    (1.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clean_link_loses_nothing() {
        let clean = Link::default();
        assert_eq!(clean.question(true, 0.0, 0.0), Some(0));
        assert_eq!(clean.look_up([0.0; 4]), Some(0));
        assert!(clean.echo(0.0));
        assert_eq!(Link::losing(1.0).question(false, 0.999, 0.5), None);
        assert_eq!(Link::losing(1.0).look_up([0.999; 4]), None);
    }

    #[test]
    fn losses_and_delays_add_up() {
        let one = Link { loss: 0.5, delay: Duration::from_millis(100) };
        assert_eq!(one.then(one), Link { loss: 0.75, delay: Duration::from_millis(200) });
        assert_eq!(one.then(Link::default()), one);
        assert_eq!(failures(0.1), (0.0, 0.0));
        assert_eq!(failures(0.3), (0.33, 0.8));
        let (answer, failure) = failures(0.4);
        assert!((answer - 0.65).abs() < 1e-9 && (failure - 0.8975).abs() < 1e-9);
    }
}
