//! Holds the fake daemon and relay to the recordings of real ones.
//!
//! Each table names the recordings that are sent again, how their bodies are compared, and which
//! waits are scaled (`waits`: a limit of the fake is set so low that what took seconds takes
//! milliseconds; the order of things and the words stay). Not replayed, and why: 2x (raw bytes
//! of one client's session; its requests are those of 13 and 23), 5j's POST and 5k's first
//! (services the fake has not), 6g and 6m's metrics beyond their form, 7* and 94a/d/f/g, 95,
//! 97a, part of a0 (the command line's output), 83 (a poll of 75 s is a poll), 98 (a log; its
//! shapes of nothing are checked here), 6j (its stream is checked here event by event). b1 to b3
//! are held against the model of a lossy link, without a daemon: only many questions tell.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(unreachable_pub, reason = "the parts of one test binary")]

#[path = "fake_yagna_replay/brief.rs"]
mod brief;
#[path = "fake_yagna_replay/closed.rs"]
mod closed;
#[path = "fake_yagna_replay/judge.rs"]
mod judge;
#[path = "fake_yagna_replay/lab.rs"]
mod lab;
#[path = "fake_yagna_replay/links.rs"]
mod links;
#[path = "fake_yagna_replay/market.rs"]
mod market;
#[path = "fake_yagna_replay/net.rs"]
mod net;
#[path = "fake_yagna_replay/relay.rs"]
mod relay;
#[path = "fake_yagna_replay/scan.rs"]
mod scan;
