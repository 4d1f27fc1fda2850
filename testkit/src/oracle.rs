//! The accounting method, slow and obvious: what the ledger must agree with, byte for byte.
//!
//! Owns a second reading of the accounting page, over plain lists, with nothing remembered from
//! one call to the next. Refuses to know the aggregator, to be quick, or to be incremental.

mod method;
mod windows;

pub use method::{Oracle, OracleFact, Retracted, Row, Verdict, csv, last_closed, standing};
pub use windows::Sums;
