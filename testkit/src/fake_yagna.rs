//! A faithful fake of the `yagna` daemon's REST API and the relay's HTTP listing.
//!
//! One [`World`] is the simulated network: providers that live, die, freeze, restart and withdraw.
//! Any number of [`Daemon`]s and a [`Relay`] serve it over real sockets on loopback, with the
//! answers and the delays of recorded daemons; `tests/fake_yagna_replay.rs` compares them with the
//! recordings. Numbers in brackets, here and in the files below, name recordings.
//!
//! ```no_run
//! # async fn example() -> std::io::Result<()> {
//! use uptime_testkit::fake_yagna::{Daemon, DaemonOptions, ProviderSpec, World};
//!
//! let world = World::new(7);
//! let dead = world.add_provider(ProviderSpec::in_subnet("public"));
//! let daemon = Daemon::start(world.clone(), DaemonOptions::default()).await?;
//! world.kill(&dead);
//! println!("{}", daemon.base_url());
//! # Ok(())
//! # }
//! ```
//!
//! Refuses to know the probe, and to print. Where there is no recording, the fake behaves in the
//! way that is harder for the probe.

mod bridge;
mod chance;
mod channel;
mod clock;
mod constraint;
mod core;
mod cursor;
mod daemon;
mod demand;
mod demonstration;
mod fate;
mod fault;
mod http;
mod link;
mod look_up;
mod market;
mod node;
mod offer;
mod options;
mod peer;
mod pings;
pub mod recording;
mod registry;
mod relay;
mod replies;
mod routes;
mod scan;
mod state;
mod timing;
mod traffic;
mod world;

pub use clock::UnixTime;
pub use daemon::Daemon;
pub use demonstration::{Death, Demonstration, Plan};
pub use fault::{Fault, FaultKind};
pub use link::Link;
pub use offer::ProviderSpec;
pub use options::{DaemonOptions, Limits, Restart, View};
pub use relay::{Flavour, Relay, RelayOptions};
pub use timing::NetTiming;
pub use traffic::Busiest;
pub use world::World;
