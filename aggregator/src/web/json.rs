//! Messages of the wire as JSON.
//!
//! Owns the one way from a protobuf message to JSON: by its descriptor, so that no field is written
//! down a second time. Names are those of the protos; fields without a value stand with their
//! default, but those the protos call optional (and messages) are left out; enum values go by name;
//! bytes are base64.
//!
//! Numbers of 64 bits are JSON numbers, all their digits written. Readers that keep numbers as
//! doubles are exact up to 2^53, which no number here comes near: seconds and milliseconds of this
//! age, counts of rounds, nodes and parts. One beyond it would still be written exactly, and be
//! rounded by such a reader; it is not turned into a string, so that a field has one type for ever.

use std::sync::OnceLock;

use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, SerializeOptions};

/// The package of all messages.
const PACKAGE: &str = "golem.uptime.v1";

/// A message that could not be written as JSON; a fault of this program.
#[derive(Debug, thiserror::Error)]
pub(super) enum JsonError {
    /// The descriptors do not have it.
    #[error("there is no message {0} in the descriptors")]
    NoMessage(String),
    /// The descriptors do not read.
    #[error("the descriptors do not read: {0}")]
    Descriptors(String),
    /// Its bytes do not read back.
    #[error("an answer does not read back: {0}")]
    Decode(#[from] prost::DecodeError),
    /// It could not be written.
    #[error("an answer could not be written: {0}")]
    Write(#[from] serde_json::Error),
}

/// The descriptors of every message, read once.
pub(super) fn pool() -> Result<&'static DescriptorPool, JsonError> {
    static POOL: OnceLock<Result<DescriptorPool, String>> = OnceLock::new();
    POOL.get_or_init(|| {
        DescriptorPool::decode(uptime_proto::DESCRIPTOR).map_err(|error| error.to_string())
    })
    .as_ref()
    .map_err(|error| JsonError::Descriptors(error.clone()))
}

/// The descriptor of a message, by its short name.
pub(super) fn message(name: &str) -> Result<MessageDescriptor, JsonError> {
    let found = pool()?.get_message_by_name(&format!("{PACKAGE}.{name}"));
    found.ok_or_else(|| JsonError::NoMessage(name.to_owned()))
}

/// An encoded message, by its short name, as JSON.
pub(super) fn print(name: &str, encoded: &[u8]) -> Result<Vec<u8>, JsonError> {
    let options = SerializeOptions::new()
        .stringify_64_bit_integers(false)
        .use_proto_field_name(true)
        .skip_default_fields(false);
    let message = DynamicMessage::decode(message(name)?, encoded)?;
    let mut json = serde_json::Serializer::new(Vec::with_capacity(encoded.len() * 3));
    message.serialize_with_options(&mut json, &options)?;
    let mut bytes = json.into_inner();
    bytes.push(b'\n');
    Ok(bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use prost::Message;
    use serde_json::{Value, json};
    use uptime_proto::v1;

    use super::*;

    fn printed(name: &str, message: &impl Message) -> Value {
        serde_json::from_slice(&print(name, &message.encode_to_vec()).unwrap()).unwrap()
    }

    #[test]
    fn defaults_stand_and_what_is_absent_does_not() {
        let figures = v1::UptimeFigures { uptime_percent: Some(0.0), ..Default::default() };
        let wanted = json!({
            "uptime_percent": 0.0, "up_s": 0, "down_s": 0, "unknown_s": 0,
            "up_rounds": 0, "down_rounds": 0, "unknown_rounds": 0,
        });
        assert_eq!(printed("UptimeFigures", &figures), wanted);
    }

    #[test]
    fn numbers_stay_numbers_and_enums_have_names() {
        let freshness = v1::Freshness {
            last_closed_round_unix_s: 1_800_000_000,
            answered_at_unix_ms: -1,
            store_id: vec![255; 16].into(),
            // Nobody counts so far; if somebody did, every digit would be there.
            generation: u64::MAX,
            ..Default::default()
        };
        let json = printed("Freshness", &freshness);
        assert_eq!(json["last_closed_round_unix_s"], json!(1_800_000_000));
        assert_eq!(json["answered_at_unix_ms"], json!(-1));
        assert_eq!(json["store_id"], json!("/////////////////////w=="));
        assert_eq!(json["generation"], json!(u64::MAX));
        let node = v1::Node {
            verdict: v1::Verdict::Down as i32,
            name: "<b>\u{202e}\u{0}\"".into(),
            ..Default::default()
        };
        let text = String::from_utf8(print("Node", &node.encode_to_vec()).unwrap()).unwrap();
        assert!(text.contains(r#""verdict":"VERDICT_DOWN""#), "{text}");
        assert!(text.contains(r#"\u0000\"""#), "{text}");
        assert!(!text.contains("round_trip_us"), "{text}");
    }

    #[test]
    fn a_message_that_is_not_there_is_an_error() {
        assert!(matches!(print("Nonsense", &[]), Err(JsonError::NoMessage(_))));
        assert!(matches!(print("Node", &[255]), Err(JsonError::Decode(_))));
    }
}
