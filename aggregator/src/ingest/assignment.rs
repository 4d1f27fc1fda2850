//! Which probes look which nodes up: rendezvous hashing.
//!
//! Pure. Every node ranks the probes by a hash of both; the first so many get it. A probe that
//! comes or goes moves only its own share.

use std::collections::BTreeMap;

use roaring::RoaringBitmap;
use uptime_proto::NodeId;

/// A probe as far as sharing out is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) probe: u32,
    seed: u64,
}

impl Candidate {
    pub(super) fn new(probe: u32, name: &str) -> Self {
        let hash = blake3::hash(name.as_bytes());
        let (first, _) = hash.as_bytes().split_first_chunk::<8>().unwrap_or((&[0; 8], &[]));
        Self { probe, seed: u64::from_le_bytes(*first) }
    }

    fn rank(&self, node: &NodeId) -> u64 {
        // Ids are hashes already; folding all of one in keeps chosen prefixes from clustering.
        let (words, tail) = node.as_bytes().as_chunks::<8>();
        let folded =
            words.iter().fold(self.seed, |mixed, word| mix(mixed ^ u64::from_le_bytes(*word)));
        tail.iter().fold(folded, |mixed, byte| mix(mixed ^ u64::from(*byte)))
    }
}

/// The finaliser of `SplitMix64`.
fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// Gives every node to `copies` of the probes, or to all where there are fewer.
pub(super) fn share_out<'a>(
    nodes: impl Iterator<Item = (u32, &'a NodeId)>,
    probes: &[Candidate],
    copies: usize,
) -> BTreeMap<u32, RoaringBitmap> {
    let mut shares: BTreeMap<u32, RoaringBitmap> =
        probes.iter().map(|probe| (probe.probe, RoaringBitmap::new())).collect();
    let copies = copies.min(probes.len());
    let mut ranked: Vec<(u64, u32)> = Vec::with_capacity(probes.len());
    for (number, id) in nodes {
        ranked.clear();
        ranked.extend(probes.iter().map(|probe| (probe.rank(id), probe.probe)));
        if copies < ranked.len() && copies > 0 {
            ranked.select_nth_unstable(copies - 1);
        }
        for (_, probe) in &ranked[..copies] {
            if let Some(share) = shares.get_mut(probe) {
                share.insert(number);
            }
        }
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(count: u32) -> Vec<NodeId> {
        (0..count)
            .map(|number| {
                let mut bytes = [0; 20];
                bytes[16..].copy_from_slice(&number.to_be_bytes());
                NodeId::new(bytes)
            })
            .collect()
    }

    fn probes(count: u32) -> Vec<Candidate> {
        (1..=count).map(|number| Candidate::new(number, &format!("probe-{number}"))).collect()
    }

    #[test]
    fn everyone_is_looked_up_by_so_many_and_the_shares_are_even() {
        let nodes = nodes(3_000);
        let all = || (0u32..).zip(&nodes);
        for copies in [1, 2, 3, 9] {
            let shares = share_out(all(), &probes(5), copies);
            let total: u64 = shares.values().map(RoaringBitmap::len).sum();
            assert_eq!(total, 3_000 * copies.min(5) as u64);
            for share in shares.values() {
                let fair = total / 5;
                assert!(share.len().abs_diff(fair) < fair / 5 + 1, "{} of {fair}", share.len());
            }
        }
        assert_eq!(share_out(all(), &[], 1).len(), 0);
    }

    #[test]
    fn a_probe_that_goes_moves_only_its_own_share() {
        let nodes = nodes(1_000);
        let all = || (0u32..).zip(&nodes);
        let before = share_out(all(), &probes(4), 1);
        let after = share_out(all(), &probes(3), 1);
        for (probe, share) in &after {
            assert!(before[probe].is_subset(share));
        }
    }
}
