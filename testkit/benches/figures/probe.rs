//! What a probe weighs: `probe_binary` on disk, `probe_memory` while it works.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tonic::transport::{Channel, Endpoint};
use uptime_proto::v1;
use uptime_proto::v1::uptime_query_client::UptimeQueryClient;

use super::Extent;
use super::process::{Aggregator, Running, await_file, binary as binary_path};
use super::process::{megabytes, resident_bytes};
use super::report::{figure, on_disk, progress};

const PROVIDERS: u64 = 10_000;
const PERIOD_S: u64 = 10;
/// A key that only the stand-in network takes.
const APP_KEY: &str = "figures";

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

/// `probe_memory`, and the number of rounds it was after.
pub(crate) fn memory(extent: Extent) -> anyhow::Result<()> {
    let rounds = match extent {
        Extent::Quick => 3,
        Extent::Usual => 6,
        Extent::Full => 100,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (rounds, bytes) = runtime.block_on(Box::pin(measure(rounds)))?;
    figure("probe_memory", megabytes(bytes), "MB");
    figure("probe_memory_rounds", rounds as f64, "rounds");
    Ok(())
}

async fn measure(rounds: u64) -> anyhow::Result<(u64, u64)> {
    let directory = on_disk()?;
    let announced = directory.path().join("standin");
    let (place, providers) = (announced.display().to_string(), PROVIDERS.to_string());
    let arguments = ["--daemons", "1", "--providers", &providers, "--announce", &place];
    let log = directory.path().join("standin.log");
    let key = [("UPTIME_STANDIN_APPKEY", APP_KEY)];
    let mut standin = Running::start("uptime-standin", &arguments, &key, &log)?;
    let text = await_file(&announced, &mut standin)?;
    let yagna = text.lines().find_map(|line| line.strip_prefix("daemon 0 "));
    let yagna = yagna.context("the stand-in network has no daemon")?;
    let period = PERIOD_S.to_string();
    let settings = ["--round-period-s", period.as_str()];
    let aggregator = Aggregator::serve(on_disk()?, 1, &settings).await?;
    let spool = directory.path().join("spool").display().to_string();
    let arguments =
        ["run", "--aggregator", &aggregator.address, "--yagna-url", yagna, "--spool-dir", &spool];
    let token = aggregator.tokens.first().context("no token")?;
    let secrets = [("YAGNA_APPKEY", APP_KEY), ("UPTIME_TOKEN", token.as_str())];
    let log = directory.path().join("probe.log");
    let mut probe = Running::start("uptime-probe", &arguments, &secrets, &log)?;
    let watched = watch(&aggregator, &mut probe, rounds).await;
    let watched = watched.with_context(|| std::fs::read_to_string(&log).unwrap_or_default())?;
    probe.terminate()?;
    aggregator.terminate()?;
    drop(standin);
    Ok(watched)
}

/// Waits for so many full rounds; answers how many there were and what the probe then held.
async fn watch(
    aggregator: &Aggregator,
    probe: &mut Running,
    rounds: u64,
) -> anyhow::Result<(u64, u64)> {
    let endpoint = Endpoint::from_shared(aggregator.address.clone())?;
    let mut client = UptimeQueryClient::new(endpoint.connect().await?);
    let deadline = Instant::now() + Duration::from_secs((rounds + 6) * PERIOD_S);
    let (mut full, mut last, mut highest) = (0, 0, 0);
    while full < rounds {
        ensure!(Instant::now() < deadline, "only {full} full rounds in {:?}", rounds + 6);
        tokio::time::sleep(Duration::from_millis(500)).await;
        ensure!(probe.0.try_wait()?.is_none(), "the probe ended");
        highest = highest.max(resident_bytes(probe.0.id())?.0);
        let Some(round) = newest(&mut client).await?.filter(|round| round.start_unix_s > last)
        else {
            continue;
        };
        last = round.start_unix_s;
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
        full += u64::from(found.offers >= PROVIDERS * 99 / 100 && found.looked > 0);
    }
    Ok((full, resident_bytes(probe.0.id())?.0))
}

async fn newest(client: &mut UptimeQueryClient<Channel>) -> anyhow::Result<Option<v1::Round>> {
    let request = v1::ListRoundsRequest { page_size: 1, page_token: String::new() };
    Ok(client.list_rounds(request).await?.into_inner().rounds.into_iter().next())
}
