//! The table of nodes as it was asked for: filtered, sorted, one page of it.
//!
//! Owns the parameters of the table and what is kept between requests: a small row for every
//! confirmed node, made once per snapshot, by the first request after a round has closed.
//! What is shown of a node is taken from the snapshot. Pages go by number, as people turn them; the
//! listings of the API, consistent from page to page, are the query service's.

use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};

use roaring::RoaringBitmap;
use uptime_accounting::snapshot::NodeView;
use uptime_accounting::verdict::Verdict;

use super::error::WebError;
use super::escape::InLink;
use super::query_params::{QUERY_BYTES_MAX, QueryParams};
use crate::engine::Snapshot;

/// Rows of a page when none are asked for.
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

/// By what rows are sorted; equal ones go by id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    Id,
    Name,
    Subnet,
    Uptime,
    Seen,
}

/// The orders, as the parameter says them; a minus before one turns it round.
const SORTS: [(&str, (Sort, bool)); 10] = [
    ("id", (Sort::Id, false)),
    ("-id", (Sort::Id, true)),
    ("name", (Sort::Name, false)),
    ("-name", (Sort::Name, true)),
    ("subnet", (Sort::Subnet, false)),
    ("-subnet", (Sort::Subnet, true)),
    ("uptime", (Sort::Uptime, false)),
    ("-uptime", (Sort::Uptime, true)),
    ("seen", (Sort::Seen, false)),
    ("-seen", (Sort::Seen, true)),
];

/// What was asked for.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Wanted {
    /// The beginning of an id, or a piece of a name.
    pub(super) find: String,
    pub(super) subnet: String,
    /// Not given: all but the retired.
    pub(super) state: Option<State>,
    /// Only nodes with an uptime below this, percent.
    pub(super) below: Option<f64>,
    pub(super) sort: Sort,
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
        let (sort, descending) = params.choice("sort", &SORTS)?.unwrap_or((Sort::Id, false));
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
    /// The page it is; the last one when a later one was asked for.
    pub(super) page: u32,
    /// How many there are, at least 1.
    pub(super) pages: u32,
    /// Nodes of the whole network that are retired.
    pub(super) retired: usize,
}

/// What is kept of a node: enough to filter and to sort.
#[derive(Debug, Clone, Copy)]
struct Row {
    number: u32,
    /// Below zero: nothing was decided.
    uptime: f64,
    last_seen_ms: i64,
    /// Its first subnet's place in the snapshot's list.
    subnet: u32,
    state: State,
}

/// Rows of one snapshot, ascending by id.
#[derive(Debug)]
struct Rows {
    serial: u64,
    closed_s: u64,
    rows: Vec<Row>,
}

/// The rows of the last snapshot that was asked for.
#[derive(Debug, Default)]
pub(super) struct Listings(Mutex<Option<Arc<Rows>>>);

/// The state of a node, as the table has it.
pub(super) fn state_of(view: &NodeView<'_>) -> State {
    match view.verdict {
        _ if view.retired => State::Retired,
        Verdict::Up => State::Up,
        Verdict::Down => State::Down,
        Verdict::Unknown => State::Unknown,
    }
}

fn closed_s(snapshot: &Snapshot) -> u64 {
    snapshot.closed_end_s()
}

fn rows_of(snapshot: &Snapshot) -> Rows {
    let place = |name: &str| snapshot.subnets.iter().position(|there| there == name);
    // Most nodes are in the subnet of the one before.
    let mut before: (&str, u32) = ("", 0);
    let rows = snapshot.nodes().map(|view| {
        let subnet = view.subnets.first().copied().unwrap_or("");
        if subnet != before.0 {
            let found = place(subnet).and_then(|place| u32::try_from(place).ok());
            before = (subnet, found.unwrap_or(0));
        }
        Row {
            number: view.number,
            uptime: view.tally.uptime_percent().unwrap_or(-1.0),
            last_seen_ms: view.last_seen_ms.unwrap_or(i64::MIN),
            subnet: before.1,
            state: state_of(&view),
        }
    });
    Rows { rows: rows.collect(), serial: snapshot.serial, closed_s: closed_s(snapshot) }
}

impl Listings {
    fn rows(&self, snapshot: &Snapshot) -> Arc<Rows> {
        // Held while rows are made, so that many who ask at once make them once. Nothing is
        // awaited.
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (snapshot.serial, closed_s(snapshot));
        match &*kept {
            Some(rows) if (rows.serial, rows.closed_s) == key => Arc::clone(rows),
            _ => Arc::clone(kept.insert(Arc::new(rows_of(snapshot)))),
        }
    }

    /// The page that was asked for.
    pub(super) fn page(&self, snapshot: &Snapshot, wanted: &Wanted) -> Page {
        let all = self.rows(snapshot);
        let retired = all.rows.iter().filter(|row| row.state == State::Retired).count();
        let mut numbers = sorted(filtered(&all.rows, snapshot, wanted), snapshot, wanted.sort);
        if wanted.descending {
            numbers.reverse();
        }
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
            Some(state) => row.state == state,
            // Those that are gone for good are shown to whoever asks for them.
            None => row.state != State::Retired,
        })
        .filter(|row| wanted.below.is_none_or(|below| (0.0..below).contains(&row.uptime)))
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
        let id_begins = |number: &u32| {
            snapshot.ids.id(*number).is_some_and(|id| id.to_string().starts_with(&find))
        };
        // Ascending by id: those that begin alike stand together.
        let by_id = snapshot.ids.by_id();
        let id_before = |number: &u32| {
            snapshot.ids.id(*number).is_some_and(|id| id.to_string().as_str() < find.as_str())
        };
        let first = by_id.partition_point(id_before);
        found.extend(by_id.iter().skip(first).copied().take_while(id_begins));
    }
    found | snapshot.details.named(|name| name.to_lowercase().contains(&find))
}

/// Numbers in order; rows come ascending by id and sorting is stable.
fn sorted(mut rows: Vec<Row>, snapshot: &Snapshot, sort: Sort) -> Vec<u32> {
    match sort {
        Sort::Id => {}
        Sort::Uptime => rows.sort_by(|one, other| one.uptime.total_cmp(&other.uptime)),
        Sort::Seen => rows.sort_by_key(|row| row.last_seen_ms),
        Sort::Subnet => rows.sort_by_key(|row| snapshot.subnets.get(row.subnet as usize)),
        Sort::Name => {
            let names = snapshot.details.names();
            rows.sort_by(|one, other| names.of(one.number).cmp(names.of(other.number)));
        }
    }
    rows.into_iter().map(|row| row.number).collect()
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
