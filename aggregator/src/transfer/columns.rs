//! What the tables of an export have in their columns.
//!
//! Pure. Owns names, types and meanings, the same for every format. Instants are numbers with their
//! unit last in the name; what may be absent says so.

use std::fmt::Write;

/// The type of a column: in JSON, and in Parquet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// A string; BYTE_ARRAY (STRING).
    Text,
    /// A whole number; INT64.
    Number,
    /// A number; DOUBLE.
    Fraction,
    /// true or false; BOOLEAN.
    Flag,
    /// An array of strings; LIST of BYTE_ARRAY (STRING).
    Texts,
}

impl Type {
    /// How the help names it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Text => "string",
            Self::Number => "int64",
            Self::Fraction => "double",
            Self::Flag => "boolean",
            Self::Texts => "list of string",
        }
    }
}

/// A column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub kind: Type,
    /// Whether a row may have none: `null`.
    pub optional: bool,
    /// What it says.
    pub about: &'static str,
}

/// What stands in one column of one row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cell<'a> {
    /// Nothing.
    Absent,
    /// A text.
    Text(&'a str),
    /// A whole number.
    Number(i64),
    /// A number.
    Fraction(f64),
    /// Yes or no.
    Flag(bool),
    /// Some texts.
    Texts(&'a [&'a str]),
}

impl<'a> Cell<'a> {
    /// A number of seconds, rounds or the like: none comes near the end of 63 bits.
    #[must_use]
    pub fn count(value: impl Into<u64>) -> Self {
        Self::Number(i64::try_from(value.into()).unwrap_or(i64::MAX))
    }

    /// What may be absent.
    #[must_use]
    pub fn or_absent(cell: Option<Self>) -> Self {
        cell.unwrap_or(Self::Absent)
    }
}

macro_rules! columns {
    ($($name:literal: $kind:ident $(, $optional:ident)?; $about:literal)+) => {
        &[$(Column {
            name: $name,
            kind: Type::$kind,
            optional: columns!(@ $($optional)?),
            about: $about,
        },)+]
    };
    (@) => { false };
    (@ optional) => { true };
}

/// A row per observation.
pub const OBSERVATIONS: &[Column] = columns! {
    "round_unix_s": Number; "start of the round"
    "round_period_s": Number; "its length"
    "probe": Text; "name of the probe"
    "subnet": Text; "empty: the part concerns the whole network"
    "part": Number; "number of the part within the probe's round"
    "kind": Text; "market, lookup or relay"
    "outcome": Text; "looked or could_not_look"
    "reason": Text, optional; "why it could not look"
    "class": Text, optional; "offer, seen, answered or unreachable; absent: nothing observed"
    "node_id": Text, optional; "absent as class is"
    "observed_at_unix_ms": Number; "when the probe observed it, by the aggregator's clock"
    "received_at_unix_ms": Number; "when it was accepted"
    "relay_session_age_s": Number, optional; "age of the daemon's relay session"
    "counts": Flag; "false: retracted, or another part under the same key counts"
};

/// A row per node and run of equal verdicts.
pub const VERDICTS: &[Column] = columns! {
    "node_id": Text; "which node"
    "from_unix_s": Number; "start of the run's first round"
    "to_unix_s": Number; "end of its last"
    "verdict": Text; "up, down or unknown"
    "method": Text; "how it was decided"
};

/// A row per node.
pub const NODES: &[Column] = columns! {
    "issuer_id": Text; "which node"
    "is_online": Flag; "as in nodes_status.csv"
    "last_seen": Text, optional; "as in nodes_status.csv; absent: never"
    "total_online_scans": Number; "rounds in which it was up"
    "uptime": Fraction; "percent of the decided time; 0 if nothing was decided"
    "coverage": Fraction, optional; "percent of the time since first seen that was decided"
    "first_seen_unix_s": Number; "start of the round of its first offer"
    "last_seen_unix_ms": Number, optional; "its last sign of life"
    "verdict": Text; "of the last closed round: up, down or unknown"
    "retired": Flag; "looked up no more"
    "rounds": Number; "since first seen"
    "up_s": Number; "time up"
    "down_s": Number; "time down"
    "unknown_s": Number; "time undecided"
    "last_closed_round_unix_s": Number; "up to which all this is counted"
    "method": Text; "how it was decided"
    "epoch_start_unix_s": Number; "since when the rules of that round are in force"
    "subnets": Texts; "where it offered"
    "name": Text; "what it says of itself"
    "runtime": Text; "what it says of itself"
    "runtime_version": Text; "what it says of itself"
    "networks": Texts; "payment networks it says it takes"
};

/// The columns as `--help` shows them.
#[must_use]
pub fn help() -> String {
    let mut text = "Columns, the same in both formats. A number of unit _unix_s or _unix_ms is an \
                    instant, UTC."
        .to_owned();
    let tables = [("observations", OBSERVATIONS), ("verdicts", VERDICTS), ("nodes", NODES)];
    for (what, columns) in tables {
        text.push_str(&format!("\n\n{what}:"));
        for Column { name, kind, optional, about } in columns {
            let kind = kind.name();
            let optional = if *optional { ", optional" } else { "" };
            // Writing to a string does not fail.
            write!(text, "\n  {name} ({kind}{optional}): {about}").ok();
        }
    }
    text
}
