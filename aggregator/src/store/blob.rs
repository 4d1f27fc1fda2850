//! How the sets of a fact look on disk.
//!
//! Owns the format: version (u8); form (u8: 0 full, 1 difference); for a difference the first 4
//! bytes of the digest of its base, which is the fact of the same subnet, period, probe and number
//! one period earlier; per class in canonical order the length (u32) and the coded set (see
//! `uptime_proto::convert::runs`) of the node numbers, or of those that changed; CRC-32 (u32) of
//! everything before it. Integers are little-endian. Version 2 has every class. Version 1 has the
//! first four and is written where the others are empty or did not change. A change of this layout
//! is a new version, and the old ones stay readable.

use roaring::RoaringBitmap;
use uptime_proto::convert::runs;
use uptime_proto::{CLASSES, FIRST_CLASSES};

type Sets = [RoaringBitmap; CLASSES];

/// The version with the first four classes.
const FIRST_VERSION: u8 = 1;
/// The version with every class.
const VERSION: u8 = 2;
const FULL: u8 = 0;
const DIFFERENCE: u8 = 1;

/// Why bytes cannot be read as sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum BlobError {
    #[error("the checksum does not match: the bytes were damaged on disk")]
    Checksum,
    #[error("written in version {0} of the format, this program reads versions 1 and 2")]
    Version(u8),
    #[error("the layout is not that of its version")]
    Layout,
    #[error("it is a difference to a fact that is missing or damaged")]
    Base,
}

/// The first bytes of the base's digest.
pub(super) type BaseTag = [u8; 4];

pub(super) fn encode(sets: &Sets, base: Option<(BaseTag, &Sets)>) -> Vec<u8> {
    let differences: Vec<Vec<u8>> = sets
        .iter()
        .enumerate()
        .map(|(index, set)| match base {
            None => runs::encode(ranges(set)),
            Some((_, base)) => runs::encode(ranges(&(set ^ &base[index]))),
        })
        .collect();
    let (first, later) = differences.split_at(FIRST_CLASSES);
    let only_first = later.iter().all(Vec::is_empty);
    let (version, written) =
        if only_first { (FIRST_VERSION, first) } else { (VERSION, differences.as_slice()) };
    let mut bytes = vec![version];
    match base {
        None => bytes.push(FULL),
        Some((tag, _)) => {
            bytes.push(DIFFERENCE);
            bytes.extend(tag);
        }
    }
    for runs in written {
        bytes.extend(u32::try_from(runs.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend(runs);
    }
    let checksum = crc32fast::hash(&bytes);
    bytes.extend(checksum.to_le_bytes());
    bytes
}

/// Reads sets; `base` answers the base with this tag.
pub(super) fn decode<'a>(
    bytes: &[u8],
    base: impl FnOnce(BaseTag) -> Option<&'a Sets>,
) -> Result<Sets, BlobError> {
    let (body, checksum) = bytes.split_last_chunk::<4>().ok_or(BlobError::Layout)?;
    if crc32fast::hash(body) != u32::from_le_bytes(*checksum) {
        return Err(BlobError::Checksum);
    }
    let (head, mut rest) = body.split_first_chunk::<2>().ok_or(BlobError::Layout)?;
    let classes = match head[0] {
        FIRST_VERSION => FIRST_CLASSES,
        VERSION => CLASSES,
        other => return Err(BlobError::Version(other)),
    };
    let mut sets = match head[1] {
        FULL => Sets::default(),
        DIFFERENCE => {
            let (tag, after) = rest.split_first_chunk::<4>().ok_or(BlobError::Layout)?;
            rest = after;
            base(*tag).ok_or(BlobError::Base)?.clone()
        }
        _ => return Err(BlobError::Layout),
    };
    for set in sets.iter_mut().take(classes) {
        let (length, after) = rest.split_first_chunk::<4>().ok_or(BlobError::Layout)?;
        let length = u32::from_le_bytes(*length) as usize;
        let (coded, after) = after.split_at_checked(length).ok_or(BlobError::Layout)?;
        rest = after;
        let mut changed = RoaringBitmap::new();
        for run in runs::decode(coded, u32::MAX) {
            changed.insert_range(run.map_err(|_| BlobError::Layout)?);
        }
        *set ^= changed;
    }
    if rest.is_empty() { Ok(sets) } else { Err(BlobError::Layout) }
}

/// The members of a set as ranges.
pub(super) fn ranges(set: &RoaringBitmap) -> impl Iterator<Item = std::ops::Range<u32>> + '_ {
    let mut members = set.iter().peekable();
    std::iter::from_fn(move || {
        let start = members.next()?;
        let mut end = start + 1;
        while members.next_if_eq(&end).is_some() {
            end += 1;
        }
        Some(start..end)
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sets() -> impl Strategy<Value = Sets> {
        let set = || prop::collection::btree_set(0u32..2_000, 0..300);
        let later = prop::collection::btree_set(0u32..2_000, 0..3);
        (prop::array::uniform4(set()), prop::array::uniform2(later)).prop_map(|(first, later)| {
            let mut sets = first.into_iter().chain(later).map(|set| set.into_iter().collect());
            std::array::from_fn(|_| sets.next().unwrap_or_default())
        })
    }

    proptest! {
        #[test]
        fn sets_come_back(sets in sets(), base in sets()) {
            let full = encode(&sets, None);
            prop_assert_eq!(decode(&full, |_| None), Ok(sets.clone()));
            let difference = encode(&sets, Some(([7; 4], &base)));
            prop_assert_eq!(decode(&difference, |tag| (tag == [7; 4]).then_some(&base)), Ok(sets));
            prop_assert_eq!(decode(&difference, |_| None), Err(BlobError::Base));
        }

        #[test]
        fn any_damage_is_noticed(
            sets in sets(),
            at in any::<prop::sample::Index>(),
            bit in 0..8u8,
        ) {
            let mut bytes = encode(&sets, None);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(decode(&bytes, |_| None), Err(BlobError::Checksum));
            prop_assert!(decode(&bytes[..at], |_| None).is_err());
        }
    }

    #[test]
    fn the_format_is_fixed() {
        let hex = |sets: &Sets| -> String {
            encode(sets, None).iter().map(|byte| format!("{byte:02x}")).collect()
        };
        let mut sets = Sets::default();
        sets[0] = [0u32, 1, 2, 9].into_iter().collect();
        sets[3] = [3].into();
        assert_eq!(hex(&sets), "01000300000000e04000000000000000000200000001606fa6eb24");
        sets[5] = [3].into();
        assert_eq!(
            hex(&sets),
            "02000300000000e04000000000000000000200000001600000000002000000016052a8e6f3"
        );
    }
}
