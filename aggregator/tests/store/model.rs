//! Any course of writing, compaction and opening again against a plain map.

use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use uptime_accounting::fact::{Fact, FactKey};
use uptime_aggregator::store::{FactLog, Lease, Put, Store};
use uptime_proto::Digest;

use crate::stage::{At, DAY_S, PERIOD_S, Provider, alike, fact, introduce, put};

const CASES: u32 = 24;
/// Rounds around the turn of the second day.
const FIRST: u64 = DAY_S / PERIOD_S - 6;

#[derive(Debug, Clone)]
enum Step {
    /// Facts committed together: where, what was seen, when.
    Put(Vec<(At, Vec<u32>, i64)>),
    /// Every day that is over is compacted.
    Compact,
    /// The store is closed and opened.
    Open,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let at = (FIRST..FIRST + 12, 0u32..3, 1u32..3, 0u16..2);
    let seen = prop::collection::vec(0u32..40, 0..12);
    let facts = prop::collection::vec((at, seen, prop_oneof![Just(100i64), Just(200)]), 1..8);
    let (compact, open) = (Just(Step::Compact), Just(Step::Open));
    let step = prop_oneof![6 => facts.prop_map(Step::Put), 1 => compact, 1 => open];
    prop::collection::vec(step, 1..24)
}

/// Under each key, by digest.
type Model = BTreeMap<FactKey, BTreeMap<Digest, Fact>>;

fn wanted(model: &mut Model, fact: &Fact) -> Put {
    let digest = fact.digest.unwrap();
    let there = model.entry(fact.key).or_default();
    let smallest = there.keys().next().copied();
    if there.contains_key(&digest) {
        return Put::Duplicate;
    }
    there.insert(digest, fact.clone());
    match smallest {
        None => Put::New,
        Some(smallest) if digest < smallest => Put::ConflictSmallest,
        Some(_) => Put::ConflictLarger,
    }
}

async fn course<P: Provider>(place: &Path, steps: &[Step]) {
    let mut store = P::open(place).await;
    introduce(&mut store).await;
    let mut model = Model::new();
    for step in steps {
        match step {
            Step::Put(facts) => {
                let facts: Vec<Fact> =
                    facts.iter().map(|(at, seen, ms)| fact(*at, seen, *ms)).collect();
                let outcomes: Vec<Put> =
                    facts.iter().map(|fact| wanted(&mut model, fact)).collect();
                assert_eq!(put(&mut store, facts).await, outcomes);
            }
            Step::Compact => {
                let token = store.acquire_lease(0).await.unwrap().unwrap();
                while let Some(day) = store.plan_compaction(3 * DAY_S).await.unwrap() {
                    assert!(store.commit_compaction(&day, token).await.unwrap().is_some());
                }
            }
            Step::Open => {
                drop(store);
                store = P::open(place).await;
            }
        }
        let all: Vec<Fact> = model.values().flat_map(BTreeMap::values).cloned().collect();
        alike(store.read(PERIOD_S, 3 * DAY_S).await.unwrap(), &all);
        let (from_s, to_s) = ((FIRST + 3) * PERIOD_S, (FIRST + 9) * PERIOD_S);
        let within = |fact: &&Fact| (from_s..to_s).contains(&fact.key.round.start_s());
        let some: Vec<Fact> = all.iter().filter(within).cloned().collect();
        alike(store.read(from_s, to_s).await.unwrap(), &some);
        let last = model.keys().next_back().map_or(0, |key| key.round.start_s());
        let (from_s, to_s) = store.extent().await.unwrap().unwrap();
        assert_eq!(from_s, 0);
        assert!((last..last - last % DAY_S + DAY_S).contains(&to_s), "{last} {to_s}");
    }
    assert_eq!(store.check(&mut |_| {}).await.unwrap().faults, Vec::<String>::new());
}

/// Facts, repetitions and contradictions in any order, days compacted and the store opened again at
/// any moment.
pub(crate) async fn any_course_of_events_reads_as_a_plain_map<P>(_: &Path)
where
    P: Provider + 'static,
{
    // A thread of its own: whoever shrinks a course drives a runtime by itself.
    let courses = std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let config = Config { failure_persistence: None, ..Config::with_cases(CASES) };
        let result = TestRunner::new(config).run(&steps(), |steps| {
            let place = tempfile::tempdir().unwrap();
            runtime.block_on(course::<P>(place.path(), &steps));
            Ok(())
        });
        result.unwrap();
    });
    courses.join().unwrap();
}
