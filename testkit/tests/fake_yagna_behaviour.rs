//! Behaviour that single recordings do not show: faults, switches, restarts, views, cursors, the
//! cap of the relay, and traps for careless probes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(unreachable_pub, reason = "the parts of one test binary")]

#[path = "fake_yagna_behaviour/client.rs"]
mod client;
#[path = "fake_yagna_behaviour/closed.rs"]
mod closed;
#[path = "fake_yagna_behaviour/courses.rs"]
mod courses;
#[path = "fake_yagna_behaviour/links.rs"]
mod links;
#[path = "fake_yagna_behaviour/nodes.rs"]
mod nodes;
#[path = "fake_yagna_behaviour/switches.rs"]
mod switches;
