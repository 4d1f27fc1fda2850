//! `uptime-probe check`: tests everything the probe needs, in turn.
//!
//! Owns the order of the tests and the advice. Reports each finding at once, continues after a
//! fault, and lists what it did not test. Ends in time even if the other side is silent. Never
//! disturbs a running probe: it only exchanges greetings with the aggregator, and writes nothing
//! that the probe reads.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};
use uptime_proto::clock::{CONTRADICTS_MS, KernelClock, Measure};
use uptime_proto::v1::ClockState;
use uptime_proto::words::ahead_or_behind;
use uptime_proto::{NodeId, Reason};

use crate::clock::Timekeeper;
use crate::config::Config;
use crate::control_state::ControlState;
use crate::identity;
use crate::scan::{SuspectPlan, first_look_ups};
use crate::scan_command::{default_rules, too_young};
use crate::spool::{Spool, inspect};
use crate::uplink::{Greeting, Uplink, UplinkError, UplinkOptions};
use crate::yagna::{CouldNotLook, PeerAnswer, Relay, RelayOptions, Yagna};

/// Limit for the whole check. A service that runs it first has a limit on its start time.
pub const CHECK_WITHIN: Duration = Duration::from_secs(60);
/// Limit for closing demands at the daemon when the check has no time left.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);
/// Nodes of each subnet that are looked up.
const SAMPLE: usize = 20;
/// Among this many nodes on the market some are alive: if the relay sees none, something is wrong.
const SAMPLE_TELLS: usize = 10;
/// Limit for all look-ups.
const LOOK_UPS_WITHIN: Duration = Duration::from_secs(10);
/// Living nodes that are asked directly: one or two may have just stopped, three have not.
const ASKED_DIRECTLY: usize = 3;

/// The tests at the daemon, in order.
const AT_YAGNA: [&str; 6] = ["yagna", "key", "relay", "market", "look-up", "direct"];

/// The result of one test, as text for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// It works.
    Well(String),
    /// It does not work, and this is how to fix it.
    Wrong(String),
    /// The result is not clear, and this is why.
    Unsure(String),
    /// It was not tested, and this is why.
    NotTried(String),
}

/// The result of one test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The name of the test.
    pub what: &'static str,
    /// The result.
    pub said: Said,
}

/// The progress of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// This test begins.
    Trying(&'static str),
    /// A test ended.
    Found(Finding),
}

/// Runs all tests and reports each step. Returns whether nothing is wrong.
pub async fn check(config: &Config, tell: impl FnMut(Step)) -> bool {
    check_within(config, CHECK_WITHIN, tell).await
}

/// [`check`] with another limit than [`CHECK_WITHIN`]. A third of it is for the aggregators.
pub async fn check_within(config: &Config, within: Duration, mut tell: impl FnMut(Step)) -> bool {
    let began = Instant::now();
    let mut check = Check { config, within, tell: &mut tell, trying: None, well: true };
    let deadline = began + within * 2 / 3;
    check.yagna(deadline).await;
    if let Some(relay) = &config.relay {
        check.trying("listing");
        match timeout_at(deadline, listing(relay)).await {
            Ok(said) => check.found("listing", said),
            Err(_) => check.out_of_time(&["listing"]),
        }
    }
    check.trying("spool");
    check.found("spool", spool(&config.spool_dir));
    for address in &config.aggregators {
        check.aggregator(address, began + within).await;
    }
    check.well
}

/// A check under way.
struct Check<'a> {
    config: &'a Config,
    within: Duration,
    tell: &'a mut dyn FnMut(Step),
    trying: Option<&'static str>,
    well: bool,
}

impl Check<'_> {
    fn trying(&mut self, what: &'static str) {
        self.trying = Some(what);
        (self.tell)(Step::Trying(what));
    }

    fn found(&mut self, what: &'static str, said: Said) {
        self.trying = None;
        self.well &= !matches!(said, Said::Wrong(_));
        (self.tell)(Step::Found(Finding { what, said }));
    }

    fn not_tried(&mut self, whats: &[&'static str], why: &str) {
        for what in whats {
            self.found(what, Said::NotTried(why.to_owned()));
        }
    }

    /// The current test used up the time; of `whats`, those after it were not tested.
    fn out_of_time(&mut self, whats: &[&'static str]) {
        let Some(at) = self.trying else { return };
        let within_s = self.within.as_secs();
        let text = format!(
            "this did not finish in time; a whole check has {within_s} s. The other side is \
             frozen, overloaded or far away, or the limits in the settings (--answer-timeout-ms, \
             --market-timeout-ms, --relay-timeout-ms) are too long."
        );
        self.found(at, Said::Wrong(text));
        let after = whats.iter().position(|what| *what == at).map_or(0, |place| place + 1);
        self.not_tried(&whats[after..], "no time was left for it");
    }

    async fn yagna(&mut self, deadline: Instant) {
        self.trying("yagna");
        // Not the kept name: a probe may be running beside the same daemon.
        let yagna = match self.config.open_yagna(&identity::fresh()) {
            Ok(yagna) => yagna,
            Err(error) => {
                self.found("yagna", Said::Wrong(error.to_string()));
                let why = "the settings for yagna are invalid";
                return self.not_tried(&AT_YAGNA[1..], why);
            }
        };
        if timeout_at(deadline, self.daemon(&yagna)).await.is_err() {
            self.out_of_time(&AT_YAGNA);
        }
        // What stays open there the daemon closes itself after a while.
        timeout(CLOSE_WITHIN, yagna.close()).await.ok();
    }

    /// Everything that is asked of the daemon.
    async fn daemon(&mut self, yagna: &Yagna) {
        let url = &self.config.yagna.base_url;
        match yagna.version().await {
            Ok(version) => {
                self.found("yagna", Said::Well(format!("yagna {version} answers at {url}")));
            }
            Err(failure) => {
                let text = match failure.reason {
                    Reason::YagnaUnreachable | Reason::TimedOut => "yagna does not answer at",
                    _ => "yagna did not report its version at",
                };
                self.wrong("yagna", &format!("{text} {url}"), &failure);
                return self.not_tried(&AT_YAGNA[1..], "yagna does not answer as it should");
            }
        }
        self.trying("key");
        match yagna.identity().await {
            Ok(id) => {
                let text = format!("the daemon accepts the application key; its identity is {id}");
                self.found("key", Said::Well(text));
            }
            Err(failure) => {
                let text = match failure.reason {
                    Reason::Unauthorised => "the daemon refuses the application key",
                    _ => "the daemon did not report the identity of this application key",
                };
                self.wrong("key", text, &failure);
                let why = "the daemon does not accept the application key";
                return self.not_tried(&AT_YAGNA[2..], why);
            }
        }
        self.network(yagna).await;
    }

    /// What the daemon sees of the network.
    async fn network(&mut self, yagna: &Yagna) {
        let session = self.relay_session(yagna).await;
        let sample = self.markets(yagna).await;
        let why_not = match session {
            Session::Missing => Some("the daemon has no session with the relay"),
            _ if sample.is_empty() => Some("the market has no node to look up"),
            _ => None,
        };
        match why_not {
            Some(why) => self.not_tried(&AT_YAGNA[4..], why),
            None => self.look_ups(yagna, &sample, session).await,
        }
    }

    async fn relay_session(&mut self, yagna: &Yagna) -> Session {
        self.trying("relay");
        match yagna.relay_session_age().await {
            Ok(Some(age)) => match too_young(age) {
                Some(text) => {
                    self.found("relay", Said::Unsure(text));
                    Session::Young
                }
                None => {
                    let text = format!("the daemon's relay session is {} s old", age.as_secs());
                    self.found("relay", Said::Well(text));
                    Session::Old
                }
            },
            Ok(None) => {
                let text = "the daemon has no session with the relay, so it cannot look up any \
                            node. Run `yagna net status` to see what it knows of the relay, and \
                            let the daemon send and receive UDP. The relay refuses a daemon that \
                            is too old for it: update yagna then.";
                self.found("relay", Said::Wrong(text.to_owned()));
                Session::Missing
            }
            Err(failure) => {
                self.wrong("relay", "the daemon did not list its sessions", &failure);
                Session::Unknown
            }
        }
    }

    /// Lists every market; answers some nodes of each.
    async fn markets(&mut self, yagna: &Yagna) -> BTreeSet<NodeId> {
        let mut sample = BTreeSet::new();
        for subnet in &self.config.subnets {
            self.trying("market");
            let offers = match yagna.list_market(subnet).await {
                Ok(offers) => offers,
                Err(failure) => {
                    let text = format!("the daemon did not list the market of subnet {subnet}");
                    self.wrong("market", &text, &failure);
                    continue;
                }
            };
            let nodes: BTreeSet<NodeId> = offers.iter().map(|offer| offer.node_id).collect();
            let said = match nodes.len() {
                0 => Said::Wrong(format!(
                    "the daemon knows no offer in subnet {subnet}. A daemon that was started just \
                     now needs some minutes to learn of them: wait and try again. Otherwise \
                     compare --subnet-tag with the subnet that the providers name."
                )),
                count => Said::Well(format!(
                    "the market of subnet {subnet} has {} offers of {count} nodes",
                    offers.len()
                )),
            };
            sample.extend(nodes.into_iter().take(SAMPLE));
            self.found("market", said);
        }
        sample
    }

    /// Asks for some nodes as a round would, and some of those the relay sees for an answer.
    async fn look_ups(&mut self, yagna: &Yagna, sample: &BTreeSet<NodeId>, session: Session) {
        self.trying("look-up");
        let (fresh, plan) = default_rules();
        let deadline = Instant::now() + LOOK_UPS_WITHIN;
        let found = first_look_ups(yagna, sample.iter().copied(), fresh, deadline, || {}).await;
        let (seen, asked) = (found.seen.len(), sample.len());
        if found.ages.in_future() || found.ages.all_old() {
            let text = format!(
                "the clocks of this host and of the relay disagree: {}, by this host's clock. Run \
                 an NTP client on this host.",
                found.ages.told()
            );
            self.found("look-up", Said::Wrong(text));
        } else if let Some((reason, detail)) = found.main_failure() {
            let failure = CouldNotLook { reason, detail: detail.into() };
            let failed: usize = found.failed.values().map(|(ids, _)| ids.len()).sum();
            let text = format!("the look-ups of {failed} of {asked} nodes failed");
            self.wrong("look-up", &text, &failure);
        } else if seen > 0 {
            let text = format!("the relay sees {seen} of {asked} nodes that are on the market");
            self.found("look-up", Said::Well(text));
        } else {
            self.found("look-up", sees_none(asked, session));
        }
        if !self.config.enabled.direct {
            self.not_tried(&["direct"], "--sources leaves direct questions out");
        } else if seen == 0 {
            self.not_tried(&["direct"], "the relay sees no node to ask");
        } else {
            self.trying("direct");
            let nodes = &found.seen[..seen.min(ASKED_DIRECTLY)];
            let said = direct_questions(yagna, nodes, plan, session).await;
            self.found("direct", said);
        }
    }

    async fn aggregator(&mut self, address: &str, deadline: Instant) {
        if Instant::now() >= deadline {
            let why = format!("no time was left for {address}");
            return self.not_tried(&["aggregator", "clock"], &why);
        }
        self.trying("aggregator");
        let config = self.config;
        let options = UplinkOptions {
            aggregators: vec![address.to_owned()],
            tls: config.tls.clone(),
            token: config.token.clone(),
            subnets: config.subnets.clone(),
        };
        let timekeeper = Timekeeper::new(config.kernel_clock);
        let kernel = timekeeper.kernel();
        let uplink =
            Uplink::new(options, Spool::none(), ControlState::open(&config.spool_dir, timekeeper));
        let Ok(greeted) = timeout_at(deadline, uplink.greet()).await else {
            return self.out_of_time(&["aggregator", "clock"]);
        };
        match greeted {
            Ok(greeting) => {
                let period = greeting.plan.epochs.all().last().map_or(0, |e| e.period.seconds());
                let text = format!(
                    "{address} knows this probe as {}; its rounds last {period} s",
                    greeting.probe_name
                );
                self.found("aggregator", Said::Well(text));
                self.found("clock", clock(address, &greeting, kernel));
            }
            Err(error) => {
                self.found("aggregator", Said::Wrong(no_greeting(&error, config)));
                let why = format!("{address} did not greet this probe, so its time is not known");
                self.not_tried(&["clock"], &why);
            }
        }
    }

    fn wrong(&mut self, what: &'static str, text: &str, failure: &CouldNotLook) {
        let CouldNotLook { reason, detail } = failure;
        let mend = mend(*reason, &self.config.yagna.base_url);
        self.found(what, Said::Wrong(format!("{text} ({reason}: {detail}). {mend}")));
    }
}

/// The daemon's session with the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Session {
    Old,
    /// That a node is not found means nothing yet.
    Young,
    Missing,
    Unknown,
}

/// What it means if the relay sees none of the nodes on the market.
fn sees_none(asked: usize, session: Session) -> Said {
    if session == Session::Young {
        return Said::Unsure(format!(
            "the relay sees none of {asked} nodes that are on the market, which means nothing yet: \
             the daemon's relay session is too young"
        ));
    }
    if asked < SAMPLE_TELLS {
        return Said::Unsure(format!(
            "the relay sees none of {asked} nodes that are on the market. So few nodes may all \
             have gone: offers stay on the market for up to an hour."
        ));
    }
    Said::Wrong(format!(
        "the relay sees none of {asked} nodes that are on the market. If the relay was started \
         within the last minute, wait and try again. Otherwise the daemon is connected to another \
         relay than these nodes: run `yagna net status`, and compare its setting YA_NET_RELAY_HOST \
         with theirs."
    ))
}

/// Asks these nodes, which live, one after another.
async fn direct_questions(
    yagna: &Yagna,
    nodes: &[NodeId],
    plan: SuspectPlan,
    session: Session,
) -> Said {
    let (asked, mut times, mut failed) = (nodes.len(), Vec::new(), None);
    for node in nodes {
        match yagna.ask_peer(*node, plan.direct_timeout).await {
            Ok(PeerAnswer::Answered { took }) => times.push(took),
            Ok(PeerAnswer::Unanswered) => {}
            Err(failure) => failed = Some(failure),
        }
    }
    if let Some(quickest) = times.iter().min() {
        return Said::Well(format!(
            "{} of {asked} nodes answered a direct question, the quickest within {} ms",
            times.len(),
            quickest.as_millis()
        ));
    }
    let detail = failed.map(|failure| format!(" ({failure})")).unwrap_or_default();
    let within_s = plan.direct_timeout.as_secs();
    let text = format!("0 of {asked} nodes answered a direct question within {within_s} s{detail}");
    if session == Session::Young {
        return Said::Unsure(format!(
            "{text}, which means nothing yet: the daemon's relay session is too young"
        ));
    }
    if asked < ASKED_DIRECTLY {
        return Said::Unsure(format!(
            "{text}. So few nodes may all have gone just now: try again later."
        ));
    }
    Said::Wrong(format!(
        "direct questions do not get through: {text}, although the relay sees them. Without such \
         answers the probe takes a living node for a dead one whenever the relay has not heard of \
         it for a while. Let the daemon send and receive UDP to and from anywhere, then restart it \
         and try again."
    ))
}

/// The relay's own listing, where one is configured.
async fn listing(options: &RelayOptions) -> Said {
    let url = &options.base_url;
    let relay = match Relay::new(options.clone()) {
        Ok(relay) => relay,
        Err(error) => return Said::Wrong(error.to_string()),
    };
    match relay.list().await {
        Ok(nodes) => Said::Well(format!("the relay at {url} lists {} nodes", nodes.len())),
        Err(failure) => Said::Wrong(format!(
            "{url} gave no listing of the relay's nodes ({failure}). Set --relay-url to the \
             address of a relay's HTTP listing, or leave it out: the probe then asks the daemon \
             for every node."
        )),
    }
}

/// What to do about a failure of the daemon.
fn mend(reason: Reason, url: &str) -> String {
    match reason {
        Reason::YagnaUnreachable => format!(
            "Start yagna, or set YAGNA_API_URL to the address of its REST API if that is not {url}."
        ),
        Reason::Unauthorised => "Set YAGNA_APPKEY to a key that `yagna app-key list` shows.".into(),
        Reason::TimedOut => {
            "Run `yagna net status`: if it does not answer either, yagna is frozen \
                             or overloaded, and you should restart it; if it does, wait for the \
                             relay and try again."
                .into()
        }
        _ => "See yagna's log for what went wrong.".into(),
    }
}

fn spool(directory: &Path) -> Said {
    let name = directory.display();
    match inspect::check(directory) {
        Ok(listing) if listing.damaged_stretches() > 0 => Said::Wrong(format!(
            "the spool in {name} is damaged in {} places. The probe will deliver the other parts, \
             {} of them. Run `uptime-probe spool verify` to see the damage, and `uptime-probe \
             spool repair` to set it aside.",
            listing.damaged_stretches(),
            listing.waiting()
        )),
        Ok(listing) => {
            let waiting = listing.waiting();
            Said::Well(match listing.in_use {
                true => format!("a running probe uses {name}; {waiting} parts wait there"),
                false => format!("the probe can write to {name}; {waiting} parts wait there"),
            })
        }
        Err(error) => Said::Wrong(format!(
            "the probe cannot use {name} for its spool: {error}. Make room on that disk, or set \
             --spool-dir to a directory that this user may write to."
        )),
    }
}

/// Which clock the probe would use: see the accounting page, "When a clock is wrong".
fn clock(address: &str, greeting: &Greeting, kernel: KernelClock) -> Said {
    let Some(Measure { offset_ms, error_ms }) = greeting.clock else {
        return Said::Unsure("this host's clock was set during the check; run it again".to_owned());
    };
    let apart_ms = offset_ms.unsigned_abs();
    let where_to = ahead_or_behind(-offset_ms);
    let agrees = offset_ms.abs() - error_ms <= CONTRADICTS_MS;
    let sure = matches!(greeting.clock_state, ClockState::Sure | ClockState::Unspecified);
    let text =
        format!("this host's clock is {apart_ms} ms {where_to} the aggregator's at {address}");
    match (kernel, agrees, sure) {
        (KernelClock::Synchronised | KernelClock::Unknown, true, _) => Said::Well(text),
        (KernelClock::Synchronised | KernelClock::Unknown, false, true) => Said::Wrong(format!(
            "{text}, which is sure of its clock. Beyond {CONTRADICTS_MS} ms the probe scans no \
             round. Check the NTP client of this host."
        )),
        (KernelClock::Synchronised | KernelClock::Unknown, false, false) => Said::Unsure(format!(
            "{text}, which is not sure of its clock. The probe goes by its own; the aggregator \
             keeps it waiting. Check the clock of the aggregator's host."
        )),
        (KernelClock::Unsynchronised, _, true) => Said::Unsure(format!(
            "{text}. The kernel says that this host's clock is not synchronised, so the probe goes \
             by the aggregator's. Run an NTP client on this host."
        )),
        (KernelClock::Unsynchronised, true, false) => Said::Unsure(format!(
            "{text}. The kernel says that this host's clock is not synchronised, and the \
             aggregator is not sure of its own. They agree, so the probe goes by them. Run an NTP \
             client on both hosts."
        )),
        (KernelClock::Unsynchronised, false, false) => Said::Wrong(format!(
            "{text}. The kernel says that this host's clock is not synchronised, and the \
             aggregator is not sure of its own, so the probe scans no round. Run an NTP client on \
             both hosts."
        )),
    }
}

/// Why there is no greeting, and what to do.
fn no_greeting(error: &UplinkError, config: &Config) -> String {
    let mend = match error {
        UplinkError::Refused { .. } if config.token.is_none() => {
            "This probe has no token: set UPTIME_TOKEN, or --token-file to a file with the token \
             that `uptime-aggregator probe add` printed."
        }
        UplinkError::Refused { .. } => {
            "Set UPTIME_TOKEN, or --token-file, to the token that `uptime-aggregator probe add` \
             printed."
        }
        UplinkError::Unreachable { .. } => {
            "Start the aggregator, let this host reach it, or set --aggregator to its address."
        }
        UplinkError::Ended(_) => "See the aggregator's log, and install the same version on both.",
    };
    format!("{error}. {mend}")
}
