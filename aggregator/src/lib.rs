//! The aggregator of Golem Uptime: takes parts in, decides, publishes, answers.
//!
//! `ingest`, `query`, `web` and `publish` meet only in the ledger, but that `web` puts what is
//! asked of its API to `query`; only the ledger, and `transfer` beside it, talk to the store. See
//! ARCHITECTURE.md at the top of the repository.

pub mod access;
pub mod admin;
pub mod clock;
pub mod config;
pub mod disk;
pub mod engine;
pub mod ingest;
pub mod ledger;
pub mod lock;
pub mod publish;
pub mod query;
pub mod rules;
pub mod server;
pub mod store;
pub mod telemetry;
pub mod transfer;
pub mod upkeep;
pub mod web;
