//! What the recordings cannot show at one stroke: faults, switches, restarts, views, cursors,
//! the relay's cap, and the traps in which a careless probe is caught.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(unreachable_pub, reason = "the parts of one test binary")]

#[path = "standin_behaviour/client.rs"]
mod client;
#[path = "standin_behaviour/closed.rs"]
mod closed;
#[path = "standin_behaviour/courses.rs"]
mod courses;
#[path = "standin_behaviour/links.rs"]
mod links;
#[path = "standin_behaviour/nodes.rs"]
mod nodes;
#[path = "standin_behaviour/switches.rs"]
mod switches;
