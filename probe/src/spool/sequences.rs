//! A set of sequence numbers, kept as ranges: what waits is nearly always one stretch.

use std::collections::BTreeMap;

/// Sequence numbers, by the first of each range: its last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Sequences {
    ranges: BTreeMap<u64, u64>,
    count: u64,
}

impl Sequences {
    /// Adds a number. Returns whether it is new.
    pub(super) fn insert(&mut self, number: u64) -> bool {
        if self.contains(number) {
            return false;
        }
        let mut last = number;
        if let Some(after) = number.checked_add(1)
            && let Some(reaches) = self.ranges.remove(&after)
        {
            last = reaches;
        }
        let before = self.ranges.range_mut(..number).next_back();
        match before {
            Some((_, reaches)) if *reaches + 1 == number => *reaches = last,
            _ => {
                self.ranges.insert(number, last);
            }
        }
        self.count += 1;
        true
    }

    /// Removes a number. Returns whether it was there.
    pub(super) fn remove(&mut self, number: u64) -> bool {
        let Some((first, last)) = self.range_of(number) else {
            return false;
        };
        self.ranges.remove(&first);
        if first < number {
            self.ranges.insert(first, number - 1);
        }
        if number < last {
            self.ranges.insert(number + 1, last);
        }
        self.count -= 1;
        true
    }

    pub(super) fn contains(&self, number: u64) -> bool {
        self.range_of(number).is_some()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    pub(super) fn len(&self) -> u64 {
        self.count
    }

    pub(super) fn last(&self) -> Option<u64> {
        self.ranges.values().next_back().copied()
    }

    /// Whether a number between the first and the last is missing.
    pub(super) fn has_missing(&self) -> bool {
        self.ranges.len() > 1
    }

    /// Every number, ascending.
    pub(super) fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        self.ranges.iter().flat_map(|(first, last)| *first..=*last)
    }

    /// The numbers in this range, both ends included.
    pub(super) fn between(&self, first: u64, last: u64) -> Vec<u64> {
        let of = |(from, to): (&u64, &u64)| (*from).max(first)..=(*to).min(last);
        self.ranges.range(..=last).flat_map(of).collect()
    }

    /// How many numbers are in this range, both ends included.
    pub(super) fn count_between(&self, first: u64, last: u64) -> u64 {
        if first > last {
            return 0;
        }
        let within = |(from, to): (&u64, &u64)| {
            (*to).min(last).checked_sub((*from).max(first)).map_or(0, |more| more + 1)
        };
        self.ranges.range(..=last).map(within).sum()
    }

    fn range_of(&self, number: u64) -> Option<(u64, u64)> {
        let (first, last) = self.ranges.range(..=number).next_back()?;
        (*last >= number).then_some((*first, *last))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ranges_are_a_set(steps in prop::collection::vec((any::<bool>(), 0u64..24), 0..200)) {
            let (mut ranges, mut set) = (Sequences::default(), BTreeSet::new());
            for (put, number) in steps {
                let number = if number == 23 { u64::MAX } else { number };
                if put {
                    prop_assert_eq!(ranges.insert(number), set.insert(number));
                } else {
                    prop_assert_eq!(ranges.remove(number), set.remove(&number));
                }
                prop_assert!(ranges.iter().eq(set.iter().copied()));
                prop_assert!(ranges.between(5, 9).iter().eq(set.range(5..=9)));
                prop_assert_eq!(ranges.count_between(5, 9), set.range(5..=9).count() as u64);
                prop_assert_eq!(ranges.len(), set.len() as u64);
                prop_assert_eq!(ranges.last(), set.last().copied());
            }
        }
    }
}
