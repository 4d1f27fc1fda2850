//! How the canonical CSV writes a row: columns, instants, percentages.
//!
//! Owns the texts. Refuses to know where rows come from.

use std::fmt;

use chrono::{DateTime, Utc};

/// The columns, in order.
pub const HEADER: [&str; 5] =
    ["issuer_id", "is_online", "last_seen", "total_online_scans", "uptime"];

/// An instant as the `utc` dialect writes it: microseconds and an explicit offset of zero.
#[must_use]
pub fn utc_stamp(unix_ms: i64) -> String {
    DateTime::<Utc>::from_timestamp_millis(unix_ms)
        .map(|instant| instant.format("%Y-%m-%dT%H:%M:%S%.6f+00:00").to_string())
        .unwrap_or_default()
}

/// A number as the canonical CSV writes it: the shortest decimal that reads back the same, always
/// with a decimal point, never with an exponent.
#[derive(Debug, Clone, Copy)]
pub(super) struct ShortestDecimal(pub(super) f64);

impl fmt::Display for ShortestDecimal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(value) = self;
        write!(out, "{value}")?;
        if value.fract() == 0.0 { out.write_str(".0") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn stamps_are_utc_with_microseconds() {
        assert_eq!(utc_stamp(1_769_862_896_789), "2026-01-31T12:34:56.789000+00:00");
    }

    proptest! {
        #[test]
        fn the_decimal_reads_back_the_same(
            part in 0u32.., whole in 1u32..,
            some in prop::sample::select(vec![0.0, 100.0, 50.0, 1e-9, 100.0 / 3.0]),
        ) {
            for value in [100.0 * f64::from(part.min(whole)) / f64::from(whole), some] {
                let text = ShortestDecimal(value).to_string();
                prop_assert_eq!(text.parse::<f64>(), Ok(value));
                prop_assert!(text.contains('.') && !text.contains(['e', 'E']), "{}", text);
            }
        }
    }
}
