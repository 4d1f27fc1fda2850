//! Compares the fake daemon and relay with the recordings of real ones.
//!
//! Each table names the recordings that are sent again, how their bodies are compared, and which
//! waits are scaled (`waits`: a limit of the fake is so low that seconds become milliseconds; the
//! order and the words stay). Not replayed, and why: 2x (raw bytes of one client's session; its
//! requests are those of 13 and 23), 5j's POST and 5k's first (services that the fake does not
//! have), 6g and 6m's metrics beyond their form, 7* and 94a/d/f/g, 95, 97a, part of a0 (the command
//! line's output), 83 (a poll of 75 s is a poll), 98 (a log; its forms of an empty answer are
//! checked here), 6j (its stream is checked here event by event). b1 to b3 are compared with the
//! model of a lossy link, without a daemon: that needs many questions.
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
