//! Who may say what, and what a hostile or broken peer can do.
//!
//! Owns identities, proofs, roles, the gate that every call passes, the audit log of what was done
//! and
//! refused, TLS, the small built-in authority, and the limits on peers. Refuses to know what a call
//! is about; and to give anybody who proved nothing a word to work with: every refusal of a proof
//! reads the same, whatever was wrong with it. The audit log says what it was.

pub mod audit;
pub mod authority;
pub mod commands;
mod gate;
pub mod limits;
mod peer;
mod roles;
mod tls;
mod tokens;

pub use gate::layers::{grpc_gate, http_gate};
pub use gate::{CallContext, Gate, SWEEP_EVERY};
pub(crate) use peer::Usage;
pub use peer::{Peer, PeerCertificate};
pub use roles::{Credentials, Identity, Refusal, Refused};
pub use tls::{Tls, TlsError, TlsFiles};
pub(crate) use tls::{handshake_refusal, peer_certificate};
pub use tokens::{check_name, check_subnet, hash_token, new_token};
