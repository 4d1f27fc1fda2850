//! 35 days of 10,000 nodes fit in 40 MB.

use super::*;

const NODES: u32 = 10_000;
/// One node in two thousand changes from round to round.
const CHANGING: u32 = NODES / 2_000;
/// One hour, in which every kind of part is once a full set.
const ROUNDS: u64 = 120;
const ROUNDS_PER_DAY: u64 = 2_880;

/// A small fixed source of numbers that look like chance.
struct Chance(u64);

impl Chance {
    fn below(&mut self, most: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        u32::try_from((self.0 >> 33) % u64::from(most)).unwrap()
    }
}

fn id(node: u32) -> NodeId {
    let mut bytes = [0; 20];
    bytes[..4].copy_from_slice(&crc32fast::hash(&node.to_be_bytes()).to_be_bytes());
    bytes[16..].copy_from_slice(&node.to_be_bytes());
    NodeId::new(bytes)
}

fn round_of_parts(number: u64, offered: &[bool], up: &[bool]) -> [Part; 3] {
    let of = |flags: &[bool], wanted: bool| -> Vec<NodeId> {
        let ids = (0u32..).zip(flags).filter(|(_, flag)| **flag == wanted);
        ids.map(|(node, _)| id(node)).collect()
    };
    let plain = part(number, []);
    let market = Part {
        key: PartKey { subnet: "public".to_owned(), ..plain.key.clone() },
        kind: Kind::Market,
        relay_session_age_s: None,
        sets: Sets::default().with(Class::Offer, of(offered, true)),
        ..plain.clone()
    };
    let age = Some(u32::try_from(number * 30).unwrap());
    let looked = Part {
        relay_session_age_s: age,
        sets: Sets::default().with(Class::Seen, of(up, true)),
        ..plain
    };
    let suspects =
        Part { sets: Sets::default().with(Class::Unreachable, of(up, false)), ..looked.clone() };
    [market, looked, suspects]
}

#[test]
fn thirty_five_days_of_ten_thousand_nodes_fit_in_forty_megabytes() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open_quick(directory.path(), true);
    let mut chance = Chance(35);
    let mut offered: Vec<bool> = (0..NODES).map(|_| chance.below(50) > 0).collect();
    let mut up: Vec<bool> = (0..NODES).map(|_| chance.below(20) > 0).collect();
    let first_round = 1_800_000_000 / 30;
    let mut first_bytes = 0;
    for number in first_round..=first_round + ROUNDS {
        for part in round_of_parts(number, &offered, &up) {
            append(&spool, part);
        }
        if number == first_round {
            first_bytes = bytes_of(directory.path());
        }
        for _ in 0..CHANGING {
            let node = chance.below(NODES) as usize;
            up[node] = !up[node];
            let node = chance.below(NODES) as usize;
            offered[node] = !offered[node];
        }
    }
    assert_eq!(segment::list(directory.path()).unwrap().len(), 1);
    // The first round of a segment brings every id; the others are alike.
    let round_bytes = (bytes_of(directory.path()) - first_bytes) / ROUNDS;
    let segment_rounds = ((4 << 20) - first_bytes) / round_bytes;
    let day_bytes = ROUNDS_PER_DAY * round_bytes + ROUNDS_PER_DAY * first_bytes / segment_rounds;
    let all_bytes = day_bytes * 35;
    eprintln!(
        "{first_bytes} bytes for the first round of a segment, {round_bytes} for each other; \
         {day_bytes} a day, {all_bytes} in 35 days"
    );
    assert!(all_bytes <= 40_000_000, "{all_bytes} bytes in 35 days");
}
