//! What the project's tests and demonstrations need and nothing shipped may see.

pub mod corpus;
pub mod fake_yagna;
pub mod oracle;
