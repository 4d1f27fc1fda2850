//! The generated messages, as `proto/golem/uptime/v1` says; clients and servers with the feature
//! `grpc`.
//!
//! Owns nothing: the code is generated, and a test proves that it is fresh.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    reason = "generated; documented in the .proto files"
)]

include!("gen/golem.uptime.v1.rs");
