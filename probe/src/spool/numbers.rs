//! Used part numbers: no key is used twice.
//!
//! Owns which keys are known to be used. Refuses a round for which this is unknown.

use std::collections::BTreeMap;

use uptime_proto::convert::PartLimits;

/// Slots (round and subnet) with a known next number; the oldest are dropped. Rounds overlap only
/// by their grace, so this is enough even for sixty subnets.
const SLOTS_MAX: usize = 1_024;
/// The first number in rounds that may have parts from a clock that was ahead. A subnet has this
/// many parts in a round only with more than 600,000 nodes.
const AFTER_MADE_AHEAD: u16 = 16;

/// The next free part number of each slot, and up to which round it is unknown.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    next: BTreeMap<(u64, String), u16>,
    /// For rounds up to this start the used numbers are unknown.
    unknown_through_s: u64,
    /// Rounds up to this start may have parts from a clock that was ahead; new parts get numbers
    /// from this one on.
    made_ahead: (u64, u16),
}

impl Numbers {
    /// Whether the used numbers of a round are known.
    pub(super) fn known(&self, round_s: u64) -> bool {
        round_s > self.unknown_through_s
    }

    /// Marks rounds up to this start as unknown.
    pub(super) fn unknown_through(&mut self, round_s: u64) {
        self.unknown_through_s = self.unknown_through_s.max(round_s);
        self.next = self.next.split_off(&(self.unknown_through_s.saturating_add(1), String::new()));
    }

    /// Makes the rounds after this one, the current one, known again. Rounds up to `seen_s` may
    /// have parts from a clock that was ahead, and an aggregator whose clock was ahead, too, may
    /// have taken them: new parts get other numbers.
    pub(super) fn forget_future(&mut self, round_s: u64, seen_s: u64) {
        self.unknown_through_s = self.unknown_through_s.min(round_s);
        let ahead = self.next.split_off(&(round_s.saturating_add(1), String::new()));
        let highest = ahead.into_values().max().unwrap_or(0);
        let (through_s, first) = self.made_ahead;
        self.made_ahead = (through_s.max(seen_s), first.max(highest).max(AFTER_MADE_AHEAD));
    }

    /// Whether rounds up to this start are known to have parts from a clock that was ahead.
    pub(super) fn knows_ahead(&self, seen_s: u64) -> bool {
        self.made_ahead.0 >= seen_s
    }

    /// Takes the next number of a slot; `None`: the slot or the round is full.
    pub(super) fn take(&mut self, round_s: u64, subnet: &str, limits: &PartLimits) -> Option<u16> {
        if !self.known(round_s) {
            return None;
        }
        let (ahead_s, first) = self.made_ahead;
        let first = if round_s <= ahead_s { first } else { 0 };
        let next = self.next.get(&(round_s, subnet.to_owned())).copied().unwrap_or(0).max(first);
        let of_round = (round_s, String::new())..(round_s.saturating_add(1), String::new());
        let made = self.next.range(of_round).map(|(_, next)| u32::from(next.saturating_sub(first)));
        let made: u32 = made.sum();
        if next >= limits.part_numbers_max || made >= limits.parts_per_round_max {
            return None;
        }
        self.used_up_to(round_s, subnet.to_owned(), next + 1);
        Some(next)
    }

    /// Numbers of a slot below this one are used.
    pub(super) fn used_up_to(&mut self, round_s: u64, subnet: String, next: u16) {
        if !self.known(round_s) {
            return;
        }
        let slot = self.next.entry((round_s, subnet)).or_default();
        *slot = next.max(*slot);
        if self.next.len() > SLOTS_MAX
            && let Some(((oldest_s, _), _)) = self.next.pop_first()
        {
            self.unknown_through(oldest_s);
        }
    }

    /// Adds what a later segment says.
    pub(super) fn join(&mut self, other: Self) {
        self.unknown_through(other.unknown_through_s);
        for ((round_s, subnet), next) in other.next {
            self.used_up_to(round_s, subnet, next);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: PartLimits = PartLimits {
        observations_per_part_max: 1,
        part_numbers_max: 64,
        parts_per_round_max: 256,
        subnet_bytes_max: 64,
        compact_bases_max: 64,
        compact_nodes_max: 64,
    };

    #[test]
    fn numbers_are_given_out_once_and_old_rounds_become_unknown() {
        let mut numbers = Numbers::default();
        numbers.used_up_to(30, "public".to_owned(), 3);
        assert_eq!(numbers.take(30, "public", &LIMITS), Some(3));
        let four = PartLimits { part_numbers_max: 4, ..LIMITS };
        assert_eq!(numbers.take(30, "public", &four), None);
        assert_eq!(numbers.take(30, "", &LIMITS), Some(0));
        for round in 2..=SLOTS_MAX as u64 {
            numbers.take(round * 30, "", &LIMITS).expect("there is one");
        }
        assert!(!numbers.known(30) && numbers.known(60));
        assert_eq!(numbers.take(30, "", &LIMITS), None);
        assert_eq!(numbers.next.len(), SLOTS_MAX - 1);
    }

    #[test]
    fn rounds_that_were_made_ahead_of_their_time_get_numbers_of_their_own() {
        let mut numbers = Numbers::default();
        for round in 0..SLOTS_MAX as u64 {
            numbers.take(30_000 + round * 30, "", &LIMITS).expect("there is one");
        }
        let seen_s = 30_000 + (SLOTS_MAX as u64 - 1) * 30;
        assert!(!numbers.knows_ahead(seen_s));
        numbers.forget_future(300, seen_s);
        assert!(numbers.knows_ahead(seen_s));
        // Each round has all its slots, those that were made and those that were not.
        for round_s in [330, 360, 30_000, 30_030, seen_s] {
            for (subnet, wanted) in [("public", 16), ("", 16), ("", 17)] {
                assert_eq!(numbers.take(round_s, subnet, &LIMITS), Some(wanted), "{round_s}");
            }
        }
        assert_eq!(numbers.take(seen_s + 30, "", &LIMITS), Some(0));
        let mut numbers = Numbers::default();
        numbers.used_up_to(600, "public".to_owned(), 20);
        numbers.forget_future(300, 600);
        assert_eq!(numbers.take(600, "public", &LIMITS), Some(20));
    }

    #[test]
    fn a_round_has_no_more_parts_than_it_may_over_all_its_subnets() {
        let mut numbers = Numbers::default();
        let five = PartLimits { parts_per_round_max: 5, ..LIMITS };
        for (subnet, wanted) in
            [("", Some(0)), ("a", Some(0)), ("a", Some(1)), ("b", Some(0)), ("", Some(1))]
        {
            assert_eq!(numbers.take(30, subnet, &five), wanted, "{subnet}");
        }
        for subnet in ["", "a", "c"] {
            assert_eq!(numbers.take(30, subnet, &five), None, "{subnet}");
        }
        // Other rounds have their own, and a greater limit lets this one go on.
        assert_eq!(numbers.take(29, "", &five), Some(0));
        assert_eq!(numbers.take(60, "a", &five), Some(0));
        assert_eq!(numbers.take(30, "a", &LIMITS), Some(2));
    }
}
