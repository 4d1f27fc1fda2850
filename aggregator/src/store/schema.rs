//! The tables of the embedded store.
//!
//! Owns the schema and what each version added. A version that was released is never changed: what
//! comes later is a version of its own.

use super::credentials::SCHEMA_AUTHORITIES;
use super::identities::SCHEMA_ACCESS;
use super::ids::SCHEMA_IDS;
use super::positions::SCHEMA_POSITIONS;

/// Of the tables below.
pub(super) const SCHEMA_VERSION: i64 = 7;

/// What each version after the first added.
pub(super) const ADDED: [(i64, &str); 6] = [
    (2, SCHEMA_GAPS),
    (3, SCHEMA_LEDGER),
    (4, SCHEMA_ACCESS),
    (COMPACTED_IDS, SCHEMA_IDS),
    (6, SCHEMA_AUTHORITIES),
    (7, SCHEMA_POSITIONS),
];

/// The version that took the ids out of their rows.
pub(super) const COMPACTED_IDS: i64 = 5;

/// Version 1.
pub(super) const SCHEMA: &str = "
CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID, STRICT;
CREATE TABLE epoch (start_s INTEGER PRIMARY KEY, rules BLOB NOT NULL, crc INTEGER NOT NULL) STRICT;
CREATE TABLE probe (
    number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, token_hash BLOB NOT NULL UNIQUE,
    subnets_allowed TEXT NOT NULL, enrolled_at_ms INTEGER NOT NULL, revoked INTEGER NOT NULL
) STRICT;
CREATE TABLE subnet (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE node (
    number INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, brought_by INTEGER NOT NULL
) STRICT;
CREATE TABLE node_details (
    node INTEGER PRIMARY KEY, name TEXT NOT NULL, runtime TEXT NOT NULL,
    runtime_version TEXT NOT NULL, networks TEXT NOT NULL
) STRICT;
-- observed_ms counts from the round's start, received_ms from observed_ms: small numbers are small.
CREATE TABLE part (
    round INTEGER NOT NULL, subnet INTEGER NOT NULL, period INTEGER NOT NULL,
    probe INTEGER NOT NULL, number INTEGER NOT NULL, digest BLOB NOT NULL,
    kind INTEGER NOT NULL, reason INTEGER NOT NULL, observed_ms INTEGER NOT NULL,
    received_ms INTEGER NOT NULL, relay_session_age_s INTEGER, sets BLOB NOT NULL,
    PRIMARY KEY (round, subnet, period, probe, number, digest)
) WITHOUT ROWID, STRICT;
";

/// What version 2 added.
const SCHEMA_GAPS: &str = "
CREATE TABLE gap (
    probe INTEGER NOT NULL, from_s INTEGER NOT NULL, to_s INTEGER NOT NULL, reason INTEGER NOT NULL,
    PRIMARY KEY (probe, from_s, to_s, reason)
) WITHOUT ROWID, STRICT;
";

/// What version 3 added. `segment` holds compacted parts, `state` what is derived from them,
/// `late_part` (gone with version 7) the keys of parts that came after their round was part of a
/// checkpoint. `sample` is what travels beside parts, the last of each probe and node;
/// `latency_day` what is left of round trips; `opening` the totals of an imported CSV, one row per
/// node, `opening_head` what holds for all.
const SCHEMA_LEDGER: &str = "
CREATE TABLE segment (
    from_s INTEGER PRIMARY KEY, to_s INTEGER NOT NULL, parts INTEGER NOT NULL,
    digest BLOB NOT NULL, body BLOB NOT NULL
) STRICT;
CREATE TABLE state (
    name TEXT NOT NULL, piece INTEGER NOT NULL, body BLOB NOT NULL, PRIMARY KEY (name, piece)
) STRICT;
CREATE TABLE late_part (
    round INTEGER NOT NULL, subnet INTEGER NOT NULL, period INTEGER NOT NULL,
    probe INTEGER NOT NULL, number INTEGER NOT NULL,
    PRIMARY KEY (round, subnet, period, probe, number)
) WITHOUT ROWID, STRICT;
CREATE TABLE retraction (
    number INTEGER PRIMARY KEY, probe INTEGER NOT NULL, from_s INTEGER NOT NULL,
    to_s INTEGER NOT NULL, reason TEXT NOT NULL, made_at_ms INTEGER NOT NULL,
    undone_at_ms INTEGER
) STRICT;
CREATE TABLE sample (
    node INTEGER NOT NULL, probe INTEGER NOT NULL, seen_age_ms INTEGER, aged_round INTEGER,
    answered_in_ms INTEGER, answered_round INTEGER, PRIMARY KEY (node, probe)
) WITHOUT ROWID, STRICT;
CREATE TABLE latency_day (
    node INTEGER NOT NULL, day INTEGER NOT NULL, samples INTEGER NOT NULL,
    min_us INTEGER NOT NULL, max_us INTEGER NOT NULL, sum_us INTEGER NOT NULL,
    last_us INTEGER NOT NULL, last_at_ms INTEGER NOT NULL, PRIMARY KEY (node, day)
) WITHOUT ROWID, STRICT;
CREATE TABLE opening (
    id BLOB PRIMARY KEY, is_online INTEGER NOT NULL, last_seen_ms INTEGER,
    online_scans INTEGER NOT NULL
) WITHOUT ROWID, STRICT;
CREATE TABLE opening_head (
    one INTEGER PRIMARY KEY CHECK (one = 0), imported_at_ms INTEGER NOT NULL,
    scan_count INTEGER NOT NULL, time_zone TEXT NOT NULL, subnet TEXT, digest BLOB NOT NULL
) STRICT;
-- Without the index over ids: the ledger sees to it that each has one number.
CREATE TABLE named (
    number INTEGER PRIMARY KEY, id BLOB NOT NULL, brought_by INTEGER NOT NULL,
    forgotten_at_ms INTEGER
) STRICT;
ALTER TABLE node_details ADD COLUMN changed_s INTEGER NOT NULL DEFAULT 0;
INSERT INTO named SELECT number, id, brought_by, NULL FROM node;
DROP TABLE node;
ALTER TABLE named RENAME TO node;
";
