//! Tools for the project's tests and demonstrations. Nothing shipped may depend on them.

pub mod corpus;
pub mod fake_yagna;
pub mod oracle;
