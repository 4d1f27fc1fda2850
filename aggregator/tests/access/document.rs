//! docs/threat-model.md states the limits that are in force.

use std::path::Path;

use uptime_aggregator::access::limits;
use uptime_proto::MESSAGE_BYTES_MAX;
use uptime_proto::convert::PartLimits;

/// A number as people write it.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[test]
fn the_limits_in_the_document_are_those_of_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/threat-model.md");
    let document = std::fs::read_to_string(path).unwrap();
    let seconds = |duration: std::time::Duration| format!("{} s", duration.as_secs());
    let head = u64::try_from(limits::HTTP_HEAD_BYTES_MAX).unwrap();
    for (limit, value) in [
        ("connections, both ports (`connections-max`)", grouped(limits::CONNECTIONS_MAX.into())),
        (
            "connections from one address, or one /64 (`connections-per-address-max`)",
            grouped(limits::CONNECTIONS_PER_ADDRESS_MAX.into()),
        ),
        ("connections that have shown nothing yet", limits::NEWCOMERS_MAX.to_string()),
        (
            "connections accepted in one go, then a pause; those the system keeps until then",
            format!(
                "{}, {} ms; {}",
                limits::ACCEPTED_AT_ONCE,
                limits::ACCEPT_PAUSE.as_millis(),
                grouped(limits::BACKLOG.into())
            ),
        ),
        ("handshake", seconds(limits::HANDSHAKE_WITHIN)),
        ("first call that is let in", seconds(limits::FIRST_CALL_WITHIN)),
        ("gRPC connection without a call", seconds(limits::GRPC_IDLE_MAX)),
        ("HTTP connection without a request", seconds(limits::HTTP_IDLE_MAX)),
        ("HTTP answer that is not taken", seconds(limits::HTTP_ANSWER_WITHIN)),
        ("peer that answers no ping", seconds(limits::KEEPALIVE * 2)),
        ("unary call with its message", seconds(limits::CALL_WITHIN)),
        ("refused calls on one connection", limits::REFUSALS_PER_CONNECTION_MAX.to_string()),
        ("streams on one connection", limits::STREAMS_PER_CONNECTION_MAX.to_string()),
        (
            "headers of one gRPC call",
            format!("{} bytes", grouped(limits::HEADER_LIST_BYTES_MAX.into())),
        ),
        ("HTTP/2 frame", format!("{} bytes", grouped(limits::FRAME_BYTES_MAX.into()))),
        (
            "resets not looked at yet, streams in error",
            format!("{}, {}", limits::RESET_STREAMS_MAX, limits::ERROR_STREAMS_MAX),
        ),
        (
            "headers of one HTTP request",
            format!("{}, and {} bytes", limits::HTTP_HEADERS_MAX, grouped(head)),
        ),
        ("message", format!("{} bytes", grouped(u64::try_from(MESSAGE_BYTES_MAX).unwrap()))),
        (
            "parts of a round from one probe, all subnets and contents (`parts-per-round-max`)",
            PartLimits::default().parts_per_round_max.to_string(),
        ),
        (
            "ids that one stream may number, some 40 bytes each",
            grouped(PartLimits::default().compact_nodes_max.into()),
        ),
        ("part numbers of a round and subnet", PartLimits::default().part_numbers_max.to_string()),
        (
            "parts a second from one probe (`parts-per-s-max`), ten seconds' worth at once",
            grouped(limits::PARTS_PER_S_MAX.into()),
        ),
    ] {
        let row = format!("| {limit} | {value} |");
        assert!(document.contains(&row), "docs/threat-model.md has no row {row}");
    }
}
