//! What a probe weighs: `probe_binary` on disk, `probe_memory` and `probe_cpu_per_round` while it
//! works.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tonic::transport::{Channel, Endpoint};
use uptime_proto::v1;
use uptime_proto::v1::uptime_query_client::UptimeQueryClient;

use super::Extent;
use super::process::{APP_KEY, Aggregator, Running, await_file, binary as binary_path};
use super::process::{megabytes, probe_log, processor_time, resident_bytes, start_probe};
use super::report::{figure, on_disk, progress};

const PROVIDERS: u64 = 10_000;

/// How many rounds, and how long they are. In ten seconds less than half of the nodes can be looked
/// up at the default pace, in thirty all of them.
struct Plan {
    rounds: u64,
    period_s: u64,
}

/// What a probe took.
struct Taken {
    rounds: u64,
    resident_bytes: u64,
    processor_rounds: u64,
    processor: Duration,
}

/// `probe_binary`.
pub(crate) fn binary(_: Extent) -> anyhow::Result<()> {
    let path = binary_path("uptime-probe")?;
    let bytes = std::fs::read(&path)?;
    ensure!(bytes.starts_with(b"\x7fELF"), "{} is no binary", path.display());
    // The name of the table of symbols, as the table of sections' names holds it.
    let symbols = bytes.windows(9).any(|window| window == b"\0.symtab\0");
    ensure!(!symbols, "{} is not stripped", path.display());
    figure("probe_binary", megabytes(bytes.len() as u64), "MB");
    Ok(())
}

/// `probe_memory`, the number of rounds it was after, and `probe_cpu_per_round`.
pub(crate) fn memory(extent: Extent) -> anyhow::Result<()> {
    let plan = match extent {
        Extent::Quick => Plan { rounds: 3, period_s: 10 },
        Extent::Usual => Plan { rounds: 6, period_s: 10 },
        Extent::Full => Plan { rounds: 100, period_s: 30 },
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let taken = runtime.block_on(Box::pin(measure(&plan)))?;
    let processor_ms = taken.processor.as_secs_f64() * 1_000.0;
    figure("probe_memory", megabytes(taken.resident_bytes), "MB");
    figure("probe_memory_rounds", taken.rounds as f64, "rounds");
    figure("probe_cpu_per_round", processor_ms / taken.processor_rounds as f64, "ms");
    Ok(())
}

async fn measure(plan: &Plan) -> anyhow::Result<Taken> {
    let directory = on_disk()?;
    let announced = directory.path().join("fake-yagna");
    let (place, providers) = (announced.display().to_string(), PROVIDERS.to_string());
    let arguments = ["--daemons", "1", "--providers", &providers, "--announce", &place];
    let log = directory.path().join("fake-yagna.log");
    let key = [("FAKE_YAGNA_APPKEY", APP_KEY)];
    let mut fake = Running::start("fake-yagna", &arguments, &key, &log)?;
    let text = await_file(&announced, &mut fake)?;
    let yagna = text.lines().find_map(|line| line.strip_prefix("daemon 0 "));
    let yagna = yagna.context("the fake network has no daemon")?;
    let period = plan.period_s.to_string();
    let settings = ["--round-period-s", period.as_str()];
    let aggregator = Aggregator::serve(on_disk()?, 1, &settings).await?;
    let mut probe = start_probe(&aggregator, 0, yagna, directory.path())?;
    let watched = watch(&aggregator, &mut probe, plan).await;
    let log = probe_log(directory.path(), 0);
    let watched = watched.with_context(|| std::fs::read_to_string(&log).unwrap_or_default())?;
    probe.terminate()?;
    aggregator.terminate()?;
    drop(fake);
    Ok(watched)
}

/// Waits for so many full rounds; answers what the probe took for them and then held. Its work is
/// counted from the close of the first of them to that of the last.
async fn watch(aggregator: &Aggregator, probe: &mut Running, plan: &Plan) -> anyhow::Result<Taken> {
    let endpoint = Endpoint::from_shared(aggregator.address.clone())?;
    let mut client = UptimeQueryClient::new(endpoint.connect().await?);
    let periods = plan.rounds + 6;
    let deadline = Instant::now() + Duration::from_secs(periods * plan.period_s);
    let (mut full, mut last, mut highest) = (0, 0, 0);
    let (mut first, mut processor) = (None, Duration::ZERO);
    while full < plan.rounds {
        ensure!(Instant::now() < deadline, "only {full} full rounds in {periods}");
        tokio::time::sleep(Duration::from_millis(500)).await;
        ensure!(probe.0.try_wait()?.is_none(), "the probe ended");
        highest = highest.max(resident_bytes(probe.0.id())?.0);
        let Some(round) = newest(&mut client).await?.filter(|round| round.start_unix_s > last)
        else {
            continue;
        };
        last = round.start_unix_s;
        processor = processor_time(probe.0.id())?;
        let Some(found) = round.probes.first() else {
            continue;
        };
        progress(&format!(
            "a round with {} offers, {} looked up, {} up; {:.1} MB now, {:.1} MB at most",
            found.offers,
            found.looked,
            round.up,
            megabytes(resident_bytes(probe.0.id())?.0),
            megabytes(highest)
        ));
        // The first round may have begun before the probe.
        if found.offers >= PROVIDERS * 99 / 100 && found.looked > 0 {
            full += 1;
            first = first.or(Some((last, processor)));
        }
    }
    let (first, before) = first.context("no full round")?;
    Ok(Taken {
        rounds: full,
        resident_bytes: resident_bytes(probe.0.id())?.0,
        processor_rounds: (last - first) / plan.period_s,
        processor: processor.saturating_sub(before),
    })
}

async fn newest(client: &mut UptimeQueryClient<Channel>) -> anyhow::Result<Option<v1::Round>> {
    let request = v1::ListRoundsRequest { page_size: 1, page_token: String::new() };
    Ok(client.list_rounds(request).await?.into_inner().rounds.into_iter().next())
}
