//! The wire and the vocabulary of Golem Uptime.
//!
//! Owns the generated messages of `golem.uptime.v1`, the typed words behind them (node id, round,
//! epoch, evidence) and the fallible ways from one to the other. Refuses to do I/O, to read a
//! clock, or to know any async runtime: everything here is a pure function of its arguments.

pub mod address;
pub mod clock;
pub mod convert;
pub mod evidence;
pub mod node_id;
pub mod round;
pub mod sample;
pub mod settings;
pub mod v1;
pub mod words;

pub use evidence::{
    CLASSES, Class, Digest, FIRST_CLASSES, Kind, Outcome, Part, PartKey, Reason, Sets,
};
pub use node_id::NodeId;
pub use round::{Epoch, Epochs, Period, Round};
pub use sample::Sample;

/// The version of the probe's protocol that this crate speaks; see `Hello.protocol_version`.
pub const PROTOCOL_VERSION: u32 = 2;

/// The largest message either end sends or takes, in bytes (the contract's 1 MiB).
pub const MESSAGE_BYTES_MAX: usize = 1024 * 1024;

/// The encoded `FileDescriptorSet` of every proto of this crate, for server reflection.
pub const DESCRIPTOR: &[u8] = include_bytes!("gen/descriptor.bin");
