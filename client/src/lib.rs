//! A client for a Golem Uptime aggregator.
//!
//! Owns the way from a URL to typed answers: connecting, deadlines, retries, pages,
//! watching through interruptions, and errors that say what to do. Refuses
//! to interpret an answer (that is the aggregator's method) and to read a clock: every answer says
//! in its [`Freshness`](v1::Freshness) when it was given.
//!
//! ```no_run
//! # async fn example() -> Result<(), uptime_client::Error> {
//! use futures_util::TryStreamExt;
//! use uptime_client::{Client, Order, v1::NodeFilter};
//!
//! let client = Client::connect("http://127.0.0.1:7640").await?;
//! let online = NodeFilter { is_online: Some(true), ..NodeFilter::default() };
//! let mut pages = client.nodes(online, Order::default(), 0);
//! while let Some(page) = pages.try_next().await? {
//!     for node in page.value.nodes {
//!         println!("{}", node.id);
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A watch reconnects by itself:
//!
//! ```no_run
//! # async fn example(client: uptime_client::Client) -> Result<(), uptime_client::Error> {
//! use std::collections::HashMap;
//! use uptime_client::{Watched, v1::NodeFilter};
//!
//! let mut nodes = HashMap::new();
//! let mut watch = client.watch(NodeFilter::default(), Vec::new());
//! while let Some(word) = watch.next().await {
//!     match word? {
//!         Watched::Changed(changed) => {
//!             nodes.extend(changed.into_iter().map(|node| (node.id.clone(), node)));
//!         }
//!         Watched::Reset { .. } => nodes.clear(),
//!         Watched::Synced => println!("{} nodes", nodes.len()),
//!         Watched::Interrupted { error, .. } => eprintln!("{error}"),
//!         _ => {}
//!     }
//! }
//! # Ok(())
//! # }
//! ```

mod audit_log;
mod connect;
mod error;
mod pages;
mod questions;
mod retry;
mod watch;

pub use connect::{Client, Options, Tls, Token};
pub use error::{Error, FieldFault};
pub use pages::UptimeQuestion;
pub use questions::{Answer, Nodes, Order};
pub use uptime_proto::{NodeId, v1};
pub use watch::{Watch, Watched};
