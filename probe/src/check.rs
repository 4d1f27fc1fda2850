//! `uptime-probe check`: tries everything the probe needs, in turn.
//!
//! Owns the order of the tries and the advice. Goes on after a fault, so that all are seen.

use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;
use uptime_proto::{NodeId, Reason};

use crate::config::Config;
use crate::identity;
use crate::orders::{CLOCK_OFFSET_MS_MAX, Orders};
use crate::scan::first_look_ups;
use crate::spool::{Spool, inspect};
use crate::survey::{default_rules, session_age_min};
use crate::uplink::{Uplink, UplinkError, UplinkOptions};
use crate::yagna::{CouldNotLook, PeerAnswer, Relay, RelayOptions, Yagna};

/// Nodes of each subnet that are looked up.
const SAMPLE: usize = 20;
/// Of so many nodes on the market some live: where the relay sees none, something is wrong.
const SAMPLE_TELLS: usize = 10;
/// For all of them.
const LOOK_UPS_WITHIN: Duration = Duration::from_secs(10);

/// What came of one try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was tried.
    pub what: &'static str,
    /// What is so, or what is wrong and how to mend it.
    pub said: Result<String, String>,
}

/// Tries everything.
pub async fn check(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    // Not the kept name: a probe may be running beside the same daemon.
    match config.open_yagna(&identity::fresh()) {
        Err(error) => findings.push(Finding { what: "yagna", said: Err(error.to_string()) }),
        Ok(yagna) => check_yagna(&yagna, config, &mut findings).await,
    }
    if let Some(relay) = &config.relay {
        check_listing(relay, &mut findings).await;
    }
    findings.push(Finding { what: "spool", said: check_spool(&config.spool_dir) });
    check_aggregator(config, &mut findings).await;
    findings
}

async fn check_yagna(yagna: &Yagna, config: &Config, findings: &mut Vec<Finding>) {
    let url = &config.yagna.base_url;
    let version = yagna.version().await.map(|version| format!("yagna {version} at {url}"));
    let reachable = version.is_ok();
    findings.push(Finding { what: "yagna", said: version.map_err(|error| mend(&error, url)) });
    if !reachable {
        return;
    }
    let identity = yagna.identity().await.map(|id| format!("accepted; the daemon is {id}"));
    let accepted = identity.is_ok();
    findings.push(Finding { what: "key", said: identity.map_err(|error| mend(&error, url)) });
    if !accepted {
        return;
    }
    let said = match yagna.relay_session_age().await {
        Ok(Some(age)) if age < session_age_min() => Ok(format!(
            "connected for {} s; its \"not found\" counts from {} s on",
            age.as_secs(),
            session_age_min().as_secs()
        )),
        Ok(Some(age)) => Ok(format!("connected for {} s", age.as_secs())),
        Ok(None) => Err("the daemon has no session with the relay: nothing can be looked up. See \
                         `yagna net status`, and that UDP is let out; a daemon too old for the \
                         relay stays so for ever"
            .to_owned()),
        Err(error) => Err(mend(&error, url)),
    };
    findings.push(Finding { what: "relay", said });
    let mut sample = Vec::new();
    for subnet in &config.subnets {
        let listed = yagna.list_market(subnet).await;
        if let Ok(offers) = &listed {
            sample.extend(offers.iter().map(|offer| offer.node_id).take(SAMPLE));
        }
        let said = match listed {
            Ok(offers) if offers.is_empty() => Err(format!(
                "no offer in subnet {subnet}: a fresh daemon needs some minutes to learn them; \
                 else see that the tag is spelt as providers spell it"
            )),
            Ok(offers) => Ok(format!("{} offers in subnet {subnet}", offers.len())),
            Err(error) => Err(mend(&error, url)),
        };
        findings.push(Finding { what: "market", said });
    }
    if !sample.is_empty() {
        check_look_ups(yagna, &sample, url, findings).await;
    }
    yagna.close().await;
}

/// Asks for some nodes as a round would, and some of those the relay sees for an answer.
async fn check_look_ups(yagna: &Yagna, sample: &[NodeId], url: &str, findings: &mut Vec<Finding>) {
    let (fresh, plan) = default_rules();
    let deadline = Instant::now() + LOOK_UPS_WITHIN;
    let found = first_look_ups(yagna, sample.iter().copied(), fresh, deadline, || {}).await;
    let said = match found.main_failure() {
        Some((reason, detail)) => Err(mend(&CouldNotLook { reason, detail: detail.into() }, url)),
        None if found.ages.in_future() || found.ages.all_old() => {
            Err(format!("{}, by this host's clock: run an NTP client", found.ages.told()))
        }
        None if found.seen.is_empty() && sample.len() >= SAMPLE_TELLS => Err(format!(
            "the relay sees none of {} nodes on the market. If it or the daemon was started within \
             the last minute, wait; else the daemon is connected to another relay than they are: \
             see `yagna net status`, and its settings (YA_NET_RELAY_HOST)",
            sample.len()
        )),
        None => Ok(format!("the relay sees {} of {} nodes", found.seen.len(), sample.len())),
    };
    findings.push(Finding { what: "look-up", said });
    let Some(node) = found.seen.first() else {
        return;
    };
    let said = match yagna.ask_peer(*node, plan.direct_timeout).await {
        Ok(PeerAnswer::Answered { took }) => {
            Ok(format!("{node} answered within {} ms", took.as_millis()))
        }
        Ok(PeerAnswer::Unanswered) => Ok(format!(
            "{node} did not answer; it may have gone just now, or accept no connections from here"
        )),
        Err(error) => Err(mend(&error, url)),
    };
    findings.push(Finding { what: "direct", said });
}

/// The relay's own listing, where one is configured.
async fn check_listing(options: &RelayOptions, findings: &mut Vec<Finding>) {
    let url = &options.base_url;
    let said = match Relay::new(options.clone()) {
        Err(error) => Err(error.to_string()),
        Ok(relay) => match relay.list().await {
            Ok(nodes) => Ok(format!("{url} lists {} nodes", nodes.len())),
            Err(error) => Err(format!(
                "{}: {}; is {url} the address of a relay's HTTP listing (--relay-url)? Without it \
                 the daemon is asked for every node",
                error.reason, error.detail
            )),
        },
    };
    findings.push(Finding { what: "listing", said });
}

fn mend(failure: &CouldNotLook, url: &str) -> String {
    let advice = match failure.reason {
        Reason::YagnaUnreachable => {
            format!("is yagna running, and is {url} its address (YAGNA_API_URL)?")
        }
        Reason::Unauthorised => {
            "the application key is not this daemon's: see `yagna app-key list` (YAGNA_APPKEY)"
                .to_owned()
        }
        Reason::TimedOut => "the daemon accepts connections and does not answer: is it frozen or \
                             overloaded? restart it"
            .to_owned(),
        _ => "the daemon answered with an error; see its log".to_owned(),
    };
    format!("{}: {}; {advice}", failure.reason, failure.detail)
}

fn check_spool(directory: &Path) -> Result<String, String> {
    let name = directory.display();
    match inspect::check(directory) {
        Ok(listing) if listing.damaged_stretches() > 0 => Err(format!(
            "{name} has {} damaged stretches; the rest, {} parts, will be delivered; see \
             `uptime-probe spool verify`",
            listing.damaged_stretches(),
            listing.waiting()
        )),
        Ok(listing) => {
            let how = if listing.in_use { "is used by a running probe" } else { "can be written" };
            Ok(format!("{name} {how}; {} parts wait", listing.waiting()))
        }
        Err(error) => Err(format!(
            "{name}: {error}; make room on its disk, or give a directory this user may write \
             with --spool-dir"
        )),
    }
}

async fn check_aggregator(config: &Config, findings: &mut Vec<Finding>) {
    for address in &config.aggregators {
        let options = UplinkOptions {
            aggregators: vec![address.clone()],
            tls: config.tls.clone(),
            token: config.token.clone(),
            subnets: config.subnets.clone(),
        };
        let uplink = Uplink::new(options, Spool::none(), Orders::open(&config.spool_dir));
        match uplink.greet().await {
            Ok(greeting) => {
                let period = greeting.plan.epochs.all().last().map_or(0, |e| e.period.seconds());
                let said =
                    format!("{address} knows us as {}; rounds of {period} s", greeting.probe_name);
                findings.push(Finding { what: "aggregator", said: Ok(said) });
                let offset = greeting.clock_offset_ms;
                let said = if offset.abs() > CLOCK_OFFSET_MS_MAX {
                    Err(format!(
                        "{offset} ms off the aggregator's: run an NTP client on both hosts"
                    ))
                } else {
                    Ok(format!("{offset} ms off the aggregator's"))
                };
                findings.push(Finding { what: "clock", said });
            }
            Err(error) => {
                let advice = match &error {
                    UplinkError::Refused { .. } => {
                        "set UPTIME_TOKEN or --token-file to what `uptime-aggregator probe \
                         add` printed"
                    }
                    _ => "is it running, and may this host reach it? (--aggregator)",
                };
                let said = Err(format!("{error}; {advice}"));
                findings.push(Finding { what: "aggregator", said });
            }
        }
    }
}
