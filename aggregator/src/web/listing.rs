//! One page of the table of nodes, filtered and sorted.
//!
//! Owns the parameters of the table and what is kept between requests: a small row for every
//! confirmed node, made once per snapshot by the first request. The order is that of `query::rows`.
//! Pages go by number; listings that stay the same from page to page are the query service's.

use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};

use roaring::RoaringBitmap;
use uptime_accounting::snapshot::NodeView;
use uptime_accounting::verdict::Verdict;

use super::error::WebError;
use super::escape::InLink;
use super::query_params::{QUERY_BYTES_MAX, QueryParams};
use crate::engine::Snapshot;
use crate::query::rows::{Order, Row, rows_of, sorted, with_id_prefix};

/// The default page size.
const SIZE: u32 = 50;
/// The most rows of a page.
const SIZE_MAX: u32 = 500;

/// The parameters of the overview.
const NAMES: [&str; 7] = ["find", "subnet", "state", "below", "sort", "page", "size"];

/// Which nodes are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Up,
    Down,
    Unknown,
    Retired,
}

/// The states, as the parameter says them.
pub(super) const STATES: [(&str, State); 4] = [
    ("up", State::Up),
    ("down", State::Down),
    ("unknown", State::Unknown),
    ("retired", State::Retired),
];

/// The orders, as the parameter says them; a minus before one turns it round.
const SORTS: [(&str, (Order, bool)); 10] = [
    ("id", (Order::Id, false)),
    ("-id", (Order::Id, true)),
    ("name", (Order::Name, false)),
    ("-name", (Order::Name, true)),
    ("subnet", (Order::Subnet, false)),
    ("-subnet", (Order::Subnet, true)),
    ("uptime", (Order::Uptime, false)),
    ("-uptime", (Order::Uptime, true)),
    ("seen", (Order::LastSeen, false)),
    ("-seen", (Order::LastSeen, true)),
];

/// What the visitor asked for.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Wanted {
    /// The beginning of an id, or a piece of a name.
    pub(super) find: String,
    pub(super) subnet: String,
    /// Not given: all but the retired.
    pub(super) state: Option<State>,
    /// Only nodes with an uptime below this, percent.
    pub(super) below: Option<f64>,
    pub(super) sort: Order,
    pub(super) descending: bool,
    /// From 1 on.
    pub(super) page: u32,
    pub(super) size: u32,
}

impl Wanted {
    /// Reads the query of the overview.
    pub(super) fn read(query: Option<&str>) -> Result<Self, WebError> {
        let params = QueryParams::read(query, &NAMES, QUERY_BYTES_MAX)?;
        let below = match params.get("below") {
            None => None,
            Some(text) => {
                let value = text.parse::<f64>().ok().filter(|value| (0.0..=100.0).contains(value));
                let error = || WebError::of("below", "must be a percentage, from 0 to 100");
                Some(value.ok_or_else(error)?)
            }
        };
        let (sort, descending) = params.choice("sort", &SORTS)?.unwrap_or((Order::Id, false));
        let size = match params.count("size")? {
            0 => SIZE,
            size if size <= SIZE_MAX => size,
            _ => return Err(WebError::of("size", format!("must be from 1 to {SIZE_MAX}"))),
        };
        Ok(Self {
            find: params.text("find")?.trim().to_owned(),
            subnet: params.text("subnet")?,
            state: params.choice("state", &STATES)?,
            below,
            sort,
            descending,
            page: params.count("page")?.max(1),
            size,
        })
    }

    /// The word of the order.
    pub(super) fn sort_word(&self) -> &'static str {
        let now = (self.sort, self.descending);
        SORTS.iter().find(|(_, sort)| *sort == now).map_or("id", |(word, _)| word)
    }

    /// The word of the state; empty: any.
    pub(super) fn state_word(&self) -> &'static str {
        let known = STATES.iter().find(|(_, state)| Some(*state) == self.state);
        known.map_or("", |(word, _)| word)
    }

    /// The link to this table with another order or page, safe in an attribute.
    pub(super) fn link(&self, sort: &str, page: u32) -> String {
        let mut link = String::from("/?");
        let mut put = |name: &str, value: &str| {
            if !value.is_empty() {
                let gap = if link.ends_with('?') { "" } else { "&amp;" };
                // Writing to a String cannot fail.
                write!(link, "{gap}{name}={}", InLink(value)).ok();
            }
        };
        put("find", &self.find);
        put("subnet", &self.subnet);
        put("state", self.state_word());
        put("below", &self.below.map_or_else(String::new, |below| below.to_string()));
        put("sort", if sort == "id" { "" } else { sort });
        put("page", &if page > 1 { page.to_string() } else { String::new() });
        put("size", &if self.size == SIZE { String::new() } else { self.size.to_string() });
        link.push_str("#nodes");
        link
    }
}

/// One page.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Page {
    /// Numbers of its nodes, in order.
    pub(super) nodes: Vec<u32>,
    /// Rows of all pages.
    pub(super) total: usize,
    /// Its number; the last page when a later one was requested.
    pub(super) page: u32,
    /// How many there are, at least 1.
    pub(super) pages: u32,
    /// Nodes of the whole network that are retired.
    pub(super) retired: usize,
}

/// Rows of one snapshot, ascending by id.
#[derive(Debug)]
struct Rows {
    serial: u64,
    closed_s: u64,
    rows: Vec<Row>,
}

/// The rows of the last requested snapshot.
#[derive(Debug, Default)]
pub(super) struct Listings(Mutex<Option<Arc<Rows>>>);

/// The state of a node, as the table has it.
pub(super) fn state_of(view: &NodeView<'_>) -> State {
    state(view.verdict, view.retired)
}

fn state(verdict: Verdict, retired: bool) -> State {
    match verdict {
        _ if retired => State::Retired,
        Verdict::Up => State::Up,
        Verdict::Down => State::Down,
        Verdict::Unknown => State::Unknown,
    }
}

impl Listings {
    fn rows(&self, snapshot: &Snapshot) -> Arc<Rows> {
        // Held while rows are made, so that many who ask at once make them once. Nothing is
        // awaited.
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (snapshot.serial, snapshot.closed_end_s());
        match &*kept {
            Some(rows) if (rows.serial, rows.closed_s) == key => Arc::clone(rows),
            _ => Arc::clone(kept.insert(Arc::new(Rows {
                rows: rows_of(snapshot, snapshot.nodes()),
                serial: snapshot.serial,
                closed_s: snapshot.closed_end_s(),
            }))),
        }
    }

    /// The requested page.
    pub(super) fn page(&self, snapshot: &Snapshot, wanted: &Wanted) -> Page {
        let all = self.rows(snapshot);
        let retired = all.rows.iter().filter(|row| row.retired).count();
        let rows = filtered(&all.rows, snapshot, wanted);
        let numbers = sorted(rows, snapshot, wanted.sort, wanted.descending);
        let total = numbers.len();
        let pages = u32::try_from(total).unwrap_or(u32::MAX).div_ceil(wanted.size).max(1);
        let page = wanted.page.min(pages);
        let skipped = (page - 1) as usize * wanted.size as usize;
        let nodes = numbers.into_iter().skip(skipped).take(wanted.size as usize).collect();
        Page { nodes, total, page, pages, retired }
    }
}

fn filtered(rows: &[Row], snapshot: &Snapshot, wanted: &Wanted) -> Vec<Row> {
    let found = (!wanted.find.is_empty()).then(|| found(snapshot, &wanted.find));
    let subnet = (!wanted.subnet.is_empty()).then_some(wanted.subnet.as_str());
    let is_in = |row: &Row, subnet: &str| {
        let first = snapshot.subnets.get(row.subnet as usize).is_some_and(|name| name == subnet);
        first || snapshot.view(row.number).is_some_and(|view| view.subnets.contains(&subnet))
    };
    rows.iter()
        .filter(|row| match wanted.state {
            Some(wanted) => state(row.verdict, row.retired) == wanted,
            // Retired nodes are shown only on request.
            None => !row.retired,
        })
        .filter(|row| wanted.below.is_none_or(|below| (0.0..below).contains(&row.uptime_percent)))
        .filter(|row| found.as_ref().is_none_or(|found| found.contains(row.number)))
        .filter(|row| subnet.is_none_or(|subnet| is_in(row, subnet)))
        .copied()
        .collect()
}

/// Numbers of the nodes whose id begins so, or whose name has this in it, whatever the case.
fn found(snapshot: &Snapshot, find: &str) -> RoaringBitmap {
    let find = find.to_lowercase();
    let mut found = RoaringBitmap::new();
    if find.starts_with("0x") {
        found.extend(with_id_prefix(snapshot, &find));
    }
    found | snapshot.details.named(|name| name.to_lowercase().contains(&find))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_link_asks_for_what_was_asked() {
        let query =
            "find=a%22%3Cb&subnet=pub%26lic&state=down&below=99.5&sort=-uptime&page=3&size=10";
        let wanted = Wanted::read(Some(query)).unwrap();
        assert_eq!((wanted.find.as_str(), wanted.subnet.as_str()), ("a\"<b", "pub&lic"));
        assert_eq!((wanted.sort_word(), wanted.state_word()), ("-uptime", "down"));
        let link = wanted.link(wanted.sort_word(), wanted.page);
        let params = link.trim_start_matches("/?").trim_end_matches("#nodes").replace("&amp;", "&");
        assert_eq!(Wanted::read(Some(&params)).unwrap(), wanted, "{link}");
        assert_eq!(Wanted::read(None).unwrap().link("id", 1), "/?#nodes");
    }

    #[test]
    fn what_cannot_be_asked_for_is_refused() {
        for (query, field) in [
            ("size=501", "size"),
            ("size=1000000000", "size"),
            ("page=-1", "page"),
            ("below=101", "below"),
            ("below=NaN", "below"),
            ("below=inf", "below"),
            ("sort=up", "sort"),
            ("state=dead", "state"),
            ("where=1", "where"),
        ] {
            let error = Wanted::read(Some(query)).unwrap_err();
            assert_eq!(error.field.as_deref(), Some(field), "{query}");
        }
        let wanted = Wanted::read(Some("page=4294967295&size=0")).unwrap();
        assert_eq!((wanted.page, wanted.size), (u32::MAX, SIZE));
    }
}
