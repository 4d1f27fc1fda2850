//! The prefixes by which the relay is asked, and which of them to ask next time.
//!
//! Owns the invariant that a set of prefixes covers every id exactly once: it begins with the
//! sixteen single digits, a prefix is only ever replaced by its sixteen children, and sixteen
//! siblings only by their parent. Pure.

use std::collections::BTreeMap;
use std::fmt;

use uptime_proto::NodeId;

/// The relay reads a prefix into a number of 32 bits; more digits are an error.
const DIGITS_MAX: u8 = 8;
/// Sixteen siblings with at most so many nodes together become one page again. Half a page, so
/// that a network that grows or shrinks a little does not go to and fro.
const MERGED_ENTRIES_MAX: usize = 25;

/// One to eight hexadecimal digits. Ordered by the first id they cover.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Prefix {
    /// The digits, filled up with zeros to eight.
    first: u32,
    digits: u8,
}

impl Prefix {
    /// The sixteen single digits.
    pub(super) fn roots() -> [Prefix; 16] {
        Self::below(0, 0)
    }

    /// The sixteen prefixes one digit longer; `None` where the relay takes no more digits.
    pub(super) fn children(self) -> Option<[Prefix; 16]> {
        (self.digits < DIGITS_MAX).then(|| Self::below(self.first, self.digits))
    }

    fn below(first: u32, digits: u8) -> [Prefix; 16] {
        let digits = digits + 1;
        let mut digit = 0;
        [(); 16].map(|()| {
            let child = Prefix { first: first | digit << shift(digits), digits };
            digit += 1;
            child
        })
    }

    /// `None` for a single digit.
    fn parent(self) -> Option<Prefix> {
        let digits = self.digits.checked_sub(1).filter(|digits| *digits > 0)?;
        let first = self.first >> shift(digits) << shift(digits);
        Some(Prefix { first, digits })
    }

    /// Whether the id begins with these digits.
    pub(super) fn holds(self, id: NodeId) -> bool {
        head(id) >> shift(self.digits) == self.first >> shift(self.digits)
    }

    /// A value not below any prefix that the id begins with, and below all that follow.
    pub(super) fn last_of(id: NodeId) -> Prefix {
        Prefix { first: head(id), digits: DIGITS_MAX }
    }
}

/// How many bits follow after so many digits, 1 to 8.
fn shift(digits: u8) -> u32 {
    4 * u32::from(DIGITS_MAX - digits)
}

/// The first eight digits of an id.
fn head(id: NodeId) -> u32 {
    let [a, b, c, d, ..] = *id.as_bytes();
    u32::from_be_bytes([a, b, c, d])
}

impl fmt::Display for Prefix {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (value, width) = (self.first >> shift(self.digits), usize::from(self.digits));
        write!(out, "{value:0width$x}")
    }
}

/// Which prefixes to ask next time, when these had so many entries each this time.
pub(super) fn learnt(mut entries: BTreeMap<Prefix, usize>) -> Vec<Prefix> {
    for digits in (2..=DIGITS_MAX).rev() {
        let mut families: BTreeMap<Prefix, (usize, usize)> = BTreeMap::new();
        for (prefix, count) in entries.iter().filter(|(prefix, _)| prefix.digits == digits) {
            if let Some(parent) = prefix.parent() {
                let (siblings, sum) = families.entry(parent).or_default();
                *siblings += 1;
                *sum += count;
            }
        }
        families.retain(|_, (siblings, sum)| *siblings == 16 && *sum <= MERGED_ENTRIES_MAX);
        entries.retain(|prefix, _| {
            prefix.digits != digits || !prefix.parent().is_some_and(|it| families.contains_key(&it))
        });
        entries.extend(families.into_iter().map(|(parent, (_, sum))| (parent, sum)));
    }
    entries.into_keys().collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(head: u32) -> NodeId {
        let mut bytes = [0xab; 20];
        bytes[..4].copy_from_slice(&head.to_be_bytes());
        NodeId::new(bytes)
    }

    fn texts(prefixes: &[Prefix]) -> Vec<String> {
        prefixes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn prefixes_are_written_with_all_their_digits() {
        let roots = Prefix::roots();
        assert_eq!(texts(&roots).concat(), "0123456789abcdef");
        let children = roots[0].children().unwrap();
        assert_eq!(texts(&children)[..3], ["00", "01", "02"]);
        let mut prefix = roots[15];
        for _ in 0..7 {
            let child = prefix.children().unwrap()[5];
            assert_eq!(child.parent(), Some(prefix));
            prefix = child;
        }
        assert_eq!(prefix.to_string(), "f5555555");
        assert_eq!((prefix.children(), roots[3].parent()), (None, None));
        assert!(prefix.holds(id(0xf555_5555)) && !prefix.holds(id(0xf555_5554)));
        assert!(roots[15].holds(id(u32::MAX)) && !roots[15].holds(id(0)));
    }

    fn family(parent: Prefix, each: usize) -> BTreeMap<Prefix, usize> {
        parent.children().unwrap().into_iter().map(|child| (child, each)).collect()
    }

    #[test]
    fn siblings_with_few_entries_become_their_parent() {
        let [zero, rest @ ..] = Prefix::roots();
        let others: BTreeMap<Prefix, usize> = rest.into_iter().map(|root| (root, 30)).collect();
        let with = |mut family: BTreeMap<Prefix, usize>| {
            family.extend(others.clone());
            learnt(family)
        };
        assert_eq!(with(family(zero, 1)), Prefix::roots());
        let second = zero.children().unwrap()[0];
        let mut many = family(zero, 1);
        many.insert(second, 11);
        assert_eq!(with(many.clone()).len(), 31, "26 together stay apart");
        many.insert(second, 10);
        assert_eq!(with(many), Prefix::roots());
        // Over two levels at once, and not while a sibling is still split.
        let mut deep = family(zero, 0);
        deep.remove(&second);
        deep.extend(family(second, 1));
        assert_eq!(with(deep.clone()), Prefix::roots());
        deep.extend(family(second, 2));
        assert_eq!(with(deep).len(), 46);
    }

    proptest! {
        #[test]
        fn every_id_is_covered_exactly_once(
            splits in prop::collection::vec((any::<prop::sample::Index>(), 0usize..50), 0..60),
            heads in prop::collection::vec(any::<u32>(), 1..20),
        ) {
            let mut leaves: BTreeMap<Prefix, usize> =
                Prefix::roots().into_iter().map(|root| (root, 3)).collect();
            for (at, count) in splits {
                let prefix = *leaves.keys().nth(at.index(leaves.len())).unwrap();
                if let Some(children) = prefix.children() {
                    leaves.remove(&prefix);
                    leaves.extend(children.map(|child| (child, count / 16)));
                }
            }
            let learnt = learnt(leaves.clone());
            prop_assert!(learnt.len() <= leaves.len());
            for id in heads.into_iter().map(id) {
                prop_assert_eq!(learnt.iter().filter(|prefix| prefix.holds(id)).count(), 1);
                let found = leaves.range(..=Prefix::last_of(id)).next_back().unwrap();
                prop_assert!(found.0.holds(id));
            }
        }
    }
}
