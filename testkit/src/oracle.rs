//! The accounting method, slow and obvious: the ledger must agree with it, byte for byte.
//!
//! Owns a second implementation of the accounting page, over plain lists, without state between
//! calls. Refuses to know the aggregator, to be fast, or to be incremental.

mod method;
mod windows;

pub use method::{Oracle, OracleFact, Retracted, Row, Verdict, csv, last_closed, standing};
pub use windows::Sums;
