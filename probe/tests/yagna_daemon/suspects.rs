//! Suspects, many at once: of the silent as many are asked to the end as there are places.

use tokio::time::Instant;
use uptime_probe::scan::{Fresh, SuspectPlan, suspects};
use uptime_testkit::fake_yagna::ProviderSpec;

use super::*;

const PLACES: usize = 3;

#[tokio::test]
async fn the_second_question_does_not_stand_in_line_behind_the_first_of_others() {
    let world = world();
    let ids: Vec<NodeId> = (0..3 * PLACES)
        .map(|_| {
            let id = world.add_provider(ProviderSpec::in_subnet("public"));
            world.kill_ago(&id, Duration::from_secs(60));
            id.parse().unwrap()
        })
        .collect();
    let living = world.add_provider(ProviderSpec::in_subnet("public"));
    let daemon = daemon(&world).await;
    let yagna = yagna_with(&daemon, Limits { direct_in_flight_max: PLACES, ..limits() });
    let fresh = Fresh { freshness_s: 20, now_ms: now_unix_ms, offset_ms: 0 };
    let plan = SuspectPlan {
        direct_timeout: Duration::from_secs(1),
        direct_attempts: 2,
        find_node: true,
        ..SuspectPlan::default()
    };
    // Time for both questions to the first ones and the second between them, and for no more nodes.
    let deadline = Instant::now() + Duration::from_millis(4_500);
    let asked = ids.iter().copied().chain([living.parse().unwrap()]);
    let found = suspects(&yagna, asked, fresh, &plan, deadline, || {}).await;
    assert_eq!(found.unreachable.len(), PLACES, "{found:?}");
    assert_eq!(found.seen, [living.parse().unwrap()], "the living do not wait for the silent");
    let (late, _) = &found.failed[&Reason::TimedOut];
    assert_eq!(late.len(), 2 * PLACES, "the others are listed as not looked at");
    assert!(found.details.iter().all(|detail| detail.seen.is_some()));
}
