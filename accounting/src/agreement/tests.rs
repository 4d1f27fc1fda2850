//! Agreement node by node, and what one liar can do to a verdict.

use proptest::prelude::*;

use super::*;
use crate::verdict::{Verdict, decide};

/// The rule, node by node, word for word.
fn obvious(ballots: &BTreeMap<u32, Ballot>, probe: u32) -> Compared {
    let vote = |ballot: &Ballot, node: u32| {
        if ballot.positive.contains(node) {
            1
        } else if ballot.eligible && ballot.negative.contains(node) {
            -1
        } else {
            0
        }
    };
    let mut compared = Compared::default();
    for node in 0..24 {
        let mine = vote(&ballots[&probe], node);
        let others = ballots.iter().filter(|(other, _)| **other != probe);
        let others: Vec<i32> =
            others.map(|(_, ballot)| vote(ballot, node)).filter(|vote| *vote != 0).collect();
        let sum: i32 = others.iter().sum();
        if mine != 0 && others.len() >= OTHERS_MIN && sum != 0 {
            compared.compared += 1;
            compared.agreed += u64::from(sum.signum() == mine);
        }
    }
    compared
}

fn ballot() -> impl Strategy<Value = Ballot> {
    let set = || prop::collection::btree_set(0u32..24, 0..24);
    (any::<bool>(), set(), set()).prop_map(|(eligible, positive, negative)| {
        let positive: RoaringBitmap = positive.into_iter().collect();
        let negative: RoaringBitmap = negative.into_iter().collect();
        Ballot { eligible, negative: &negative - &positive, positive }
    })
}

/// What honest probes say when nodes 0 to 11 live and the others are dead.
fn honest() -> Ballot {
    Ballot { eligible: true, positive: (0..12).collect(), negative: (12..24).collect() }
}

proptest! {
    #[test]
    fn whole_sets_compare_as_single_nodes_do(
        ballots in prop::collection::vec(ballot(), 0..9),
    ) {
        let ballots: BTreeMap<u32, Ballot> = (0..).zip(ballots).collect();
        for (probe, compared) in compare(&ballots) {
            prop_assert_eq!(compared, obvious(&ballots, probe), "{}", probe);
        }
    }

    /// With two honest ones or more a liar makes nobody down who lives; with `k` = 2 or more it
    /// makes nobody up who is dead; and with three honest ones it does not even hide the dead.
    #[test]
    fn one_liar_decides_nothing(liar in ballot(), honest_ones in 2usize..6, k in 1u32..4) {
        prop_assume!(honest_ones >= k as usize);
        let mut ballots = vec![honest(); honest_ones];
        ballots.push(liar);
        let decision = decide(&ballots, k);
        for living in 0..12 {
            prop_assert_eq!(decision.of(living), Verdict::Up);
        }
        for dead in 12..24 {
            let verdict = decision.of(dead);
            if k >= 2 {
                prop_assert_ne!(verdict, Verdict::Up);
                if honest_ones >= 3 {
                    prop_assert_eq!(verdict, Verdict::Down);
                }
            }
        }
    }
}

fn round(liars: u32, honest_ones: u32) -> BTreeMap<u32, Compared> {
    let Ballot { eligible, positive, negative } = honest();
    let liar = Ballot { eligible, positive: negative, negative: positive };
    let liars = (0..liars).map(|probe| (probe, liar.clone()));
    let honest_ones = (10..10 + honest_ones).map(|probe| (probe, honest()));
    compare(&liars.chain(honest_ones).collect())
}

#[test]
fn a_liar_disagrees_and_is_set_aside_only_where_the_policy_says_so() {
    let mut record = Record::default();
    let one = round(1, 3);
    assert_eq!(one[&0], Compared { compared: 24, agreed: 0 });
    assert_eq!(one[&10], Compared { compared: 24, agreed: 24 });
    record.note(&one);
    assert_eq!(record.standing(0), Standing::Unknown, "after one round nobody knows");
    (1..ROUNDS).for_each(|_| record.note(&one));
    assert_eq!(record.standing(0), Standing::Disagrees);
    assert_eq!(record.standing(10), Standing::Agrees);
    assert!(record.to_set_aside().is_empty(), "unless the policy says so");
    record.policy = Policy::SetAside;
    assert_eq!(record.to_set_aside(), [0]);
    record.forget(0);
    assert!(record.to_set_aside().is_empty());
    // What is long ago is forgotten: one that was mended agrees an hour later.
    let mut record = Record::default();
    (0..ROUNDS).for_each(|_| record.note(&one));
    (0..ROUNDS).for_each(|_| record.note(&BTreeMap::from([(0, one[&10])])));
    assert_eq!(record.standing(0), Standing::Agrees);
}

#[test]
fn where_there_is_no_majority_nobody_is_set_aside() {
    // Two against two: each has two of three others against it, and nobody knows who is right.
    let mut record = Record { policy: Policy::SetAside, ..Record::default() };
    (0..ROUNDS).for_each(|_| record.note(&round(2, 2)));
    assert_eq!(record.standing(0), Standing::Disagrees);
    assert_eq!(record.standing(10), Standing::Disagrees);
    assert!(record.to_set_aside().is_empty());
    // With one other alone nothing is compared.
    assert_eq!(round(1, 1)[&0], Compared::default());
    assert!((Compared::default().share() - 1.0).abs() < f64::EPSILON);
}
