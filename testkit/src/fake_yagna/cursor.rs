//! A scan and how far it was read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::clock::UnixTime;
use super::constraint::Expression;
use super::offer::Offer;

/// A scan and its cursor.
#[derive(Debug)]
pub(crate) struct Scan {
    pub(crate) expression: Option<Expression>,
    pub(crate) passed: BTreeSet<String>,
    /// Offers that a direct question left for the next one, by peer.
    pub(crate) left: BTreeMap<String, Vec<Arc<Offer>>>,
    pub(crate) lifetime: Duration,
    pub(crate) ends: UnixTime,
}

impl Scan {
    pub(crate) fn wants(&self, offer: &Offer) -> bool {
        self.expression.as_ref().is_none_or(|it| it.matches(&offer.properties))
    }
}
