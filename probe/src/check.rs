//! `uptime-probe check`: tries everything the probe needs, in turn.
//!
//! Owns the order of the tries and the advice. Goes on after a fault, so that all are seen.

use std::path::Path;

use uptime_proto::Reason;

use crate::config::Config;
use crate::orders::{CLOCK_OFFSET_MS_MAX, Orders};
use crate::spool::{Spool, SpoolLimits};
use crate::uplink::{Uplink, UplinkError, UplinkOptions};
use crate::yagna::{CouldNotLook, Yagna};

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
    match config.open_yagna() {
        Err(error) => findings.push(Finding { what: "yagna", said: Err(error.to_string()) }),
        Ok(yagna) => check_yagna(&yagna, config, &mut findings).await,
    }
    findings.push(Finding { what: "spool", said: check_spool(&config.spool_dir, config) });
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
        Ok(Some(age)) if age.as_secs() < 60 => {
            Ok(format!("connected for {} s; its \"not found\" counts from 60 s on", age.as_secs()))
        }
        Ok(Some(age)) => Ok(format!("connected for {} s", age.as_secs())),
        Ok(None) => Err("the daemon has no session with the relay: nothing can be looked up. See \
                         `yagna net status`, and that UDP is let out; a daemon too old for the \
                         relay stays so for ever"
            .to_owned()),
        Err(error) => Err(mend(&error, url)),
    };
    findings.push(Finding { what: "relay", said });
    for subnet in &config.subnets {
        let said = match yagna.list_market(subnet).await {
            Ok(offers) if offers.is_empty() => Err(format!(
                "no offer in subnet {subnet}: a fresh daemon needs some minutes to learn them; \
                 else see that the tag is spelt as providers spell it"
            )),
            Ok(offers) => Ok(format!("{} offers in subnet {subnet}", offers.len())),
            Err(error) => Err(mend(&error, url)),
        };
        findings.push(Finding { what: "market", said });
    }
    yagna.close().await;
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

fn check_spool(directory: &Path, config: &Config) -> Result<String, String> {
    let limits = SpoolLimits { bytes_max: config.spool_bytes_max };
    match Spool::open(directory, limits) {
        Ok((_, found)) if found.damaged > 0 => Err(format!(
            "{} has {} damaged stretches; the rest, {} parts, will be delivered",
            directory.display(),
            found.damaged,
            found.waiting
        )),
        Ok((_, found)) => {
            Ok(format!("{} can be written; {} parts wait", directory.display(), found.waiting))
        }
        Err(error) => Err(format!(
            "{}: {error}; give a directory this user may write with --spool-dir",
            directory.display()
        )),
    }
}

async fn check_aggregator(config: &Config, findings: &mut Vec<Finding>) {
    for address in &config.aggregators {
        let limits = SpoolLimits { bytes_max: config.spool_bytes_max };
        // The uplink wants a spool; greeting alone sends nothing from it.
        let Ok((spool, _)) = Spool::open(&config.spool_dir, limits) else {
            return;
        };
        let options = UplinkOptions {
            aggregators: vec![address.clone()],
            tls: config.tls.clone(),
            token: config.token.clone(),
            subnets: config.subnets.clone(),
        };
        let uplink = Uplink::new(options, spool, Orders::open(&config.spool_dir));
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
