//! `nodes`: many nodes, a line each; and the record that stands for a node in JSON and CSV.

use anyhow::Result;
use futures_util::TryStreamExt;
use serde::Serialize;
use uptime_client::v1::{self, Freshness, Verdict};
use uptime_client::{Answer, Client, Error, Nodes};

use crate::args::{NodesArgs, Output};
use crate::fresh::{FreshnessRecord, ago_s};
use crate::listing;
use crate::output::{self, Reply, field};
use crate::screen::{Colour, Screen};
use crate::table::{self, Cell, Column};
use crate::text::{brief, clean, counted, number, percent, second, stamp};

/// A node as it stands in JSON.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct NodeRecord {
    id: String,
    name: String,
    is_online: bool,
    verdict: &'static str,
    verdict_since_unix_s: Option<u64>,
    first_seen_unix_s: u64,
    last_seen_unix_ms: Option<i64>,
    uptime_percent: Option<f64>,
    coverage_percent: Option<f64>,
    up_rounds: u64,
    down_rounds: u64,
    unknown_rounds: u64,
    up_s: u64,
    down_s: u64,
    unknown_s: u64,
    retired: bool,
    flapping: bool,
    subnets: Vec<String>,
    runtime: String,
    runtime_version: String,
    networks: Vec<String>,
    round_trip_us: Option<u32>,
    state_since_unix_s: Option<u64>,
    state_unknown_rounds: u64,
}

#[derive(Serialize)]
struct NodesDocument {
    freshness: FreshnessRecord,
    total: u64,
    nodes: Vec<NodeRecord>,
}

/// The stable text of a verdict.
pub(crate) fn verdict_text(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Up => "up",
        Verdict::Down => "down",
        Verdict::Unknown | Verdict::Unspecified => "unknown",
    }
}

/// Since when a node stands as it does: unknown rounds do not end a stretch of up or of down. 0: it
/// was never decided.
pub(crate) fn since_s(node: &v1::Node) -> u64 {
    match node.verdict() {
        Verdict::Up | Verdict::Down if node.state_since_unix_s > 0 => node.state_since_unix_s,
        _ => node.verdict_since_unix_s,
    }
}

/// How many rounds of that stretch are unknown, to follow its begin.
pub(crate) fn between(node: &v1::Node) -> String {
    match node.state_unknown_rounds {
        0 => String::new(),
        rounds => format!(", {} unknown in between", counted(rounds, "round")),
    }
}

/// Of a node that is unknown: how it stood before.
pub(crate) fn before(node: &v1::Node) -> Option<String> {
    let unknown = matches!(node.verdict(), Verdict::Unknown | Verdict::Unspecified);
    (unknown && node.state_since_unix_s > 0).then(|| {
        let state = if node.is_online { Verdict::Up } else { Verdict::Down };
        let since = stamp(node.state_since_unix_s);
        format!("before that {} since {since}{}", verdict_text(state), between(node))
    })
}

/// The colour of a verdict.
pub(crate) fn verdict_colour(verdict: Verdict) -> Colour {
    match verdict {
        Verdict::Up => Colour::Green,
        Verdict::Down => Colour::Red,
        Verdict::Unknown | Verdict::Unspecified => Colour::Yellow,
    }
}

impl From<v1::Node> for NodeRecord {
    fn from(node: v1::Node) -> Self {
        let figures = node.all.unwrap_or_default();
        let since = node.verdict_since_unix_s;
        Self {
            verdict: verdict_text(node.verdict()),
            id: node.id,
            name: node.name,
            is_online: node.is_online,
            verdict_since_unix_s: (since > 0).then_some(since),
            first_seen_unix_s: node.first_seen_unix_s,
            last_seen_unix_ms: node.last_seen_unix_ms,
            uptime_percent: figures.uptime_percent,
            coverage_percent: figures.coverage_percent,
            up_rounds: figures.up_rounds,
            down_rounds: figures.down_rounds,
            unknown_rounds: figures.unknown_rounds,
            up_s: figures.up_s,
            down_s: figures.down_s,
            unknown_s: figures.unknown_s,
            retired: node.retired,
            flapping: node.flapping,
            subnets: node.subnets,
            runtime: node.runtime,
            runtime_version: node.runtime_version,
            networks: node.networks,
            round_trip_us: node.round_trip_us,
            state_since_unix_s: Some(node.state_since_unix_s).filter(|since| *since > 0),
            state_unknown_rounds: node.state_unknown_rounds,
        }
    }
}

impl NodeRecord {
    /// The columns of CSV: the fields of JSON, lists joined by `;`.
    pub(crate) const HEADER: [&str; 24] = [
        "id",
        "name",
        "is_online",
        "verdict",
        "verdict_since_unix_s",
        "first_seen_unix_s",
        "last_seen_unix_ms",
        "uptime_percent",
        "coverage_percent",
        "up_rounds",
        "down_rounds",
        "unknown_rounds",
        "up_s",
        "down_s",
        "unknown_s",
        "retired",
        "flapping",
        "subnets",
        "runtime",
        "runtime_version",
        "networks",
        "round_trip_us",
        "state_since_unix_s",
        "state_unknown_rounds",
    ];

    pub(crate) fn row(self) -> [String; 24] {
        [
            self.id,
            self.name,
            self.is_online.to_string(),
            self.verdict.to_owned(),
            field(self.verdict_since_unix_s),
            self.first_seen_unix_s.to_string(),
            field(self.last_seen_unix_ms),
            field(self.uptime_percent),
            field(self.coverage_percent),
            self.up_rounds.to_string(),
            self.down_rounds.to_string(),
            self.unknown_rounds.to_string(),
            self.up_s.to_string(),
            self.down_s.to_string(),
            self.unknown_s.to_string(),
            self.retired.to_string(),
            self.flapping.to_string(),
            self.subnets.join(";"),
            self.runtime,
            self.runtime_version,
            self.networks.join(";"),
            field(self.round_trip_us),
            field(self.state_since_unix_s),
            self.state_unknown_rounds.to_string(),
        ]
    }
}

impl NodeRecord {
    /// The row of a node of which no more is known than this.
    pub(crate) fn row_of_gone(id: String, name: String) -> [String; 24] {
        let mut row: [String; 24] = std::array::from_fn(|_| String::new());
        let [first, second, ..] = &mut row;
        (*first, *second) = (id, name);
        row
    }
}

/// Nodes as CSV.
pub(crate) fn csv(nodes: Vec<v1::Node>) -> Result<String> {
    let rows = nodes.into_iter().map(|node| NodeRecord::from(node).row());
    output::csv(NodeRecord::HEADER, rows)
}

/// Answers `nodes`.
pub(crate) async fn reply(client: &Client, args: &NodesArgs, screen: &Screen) -> Result<Reply> {
    let Answer { value: Nodes { nodes, total }, freshness } =
        listing::whole(async || collect(client, args).await).await?;
    let mut notes = Vec::new();
    if total == 0 {
        notes.push("no node is like that".to_owned());
    } else if (nodes.len() as u64) < total {
        notes.push(format!("{} of {} nodes", number(nodes.len() as u64), number(total)));
    }
    let text = match args.how.output {
        Output::Table => {
            let printed = table(&nodes, &freshness, screen);
            notes.extend(printed.note());
            printed.text
        }
        Output::Json => {
            let record = FreshnessRecord::from(&freshness);
            let nodes = nodes.into_iter().map(NodeRecord::from).collect();
            output::json(&NodesDocument { freshness: record, total, nodes })?
        }
        Output::Csv => csv(nodes)?,
    };
    Ok(Reply { notes, ..Reply::new(text, freshness) })
}

async fn collect(client: &Client, args: &NodesArgs) -> Result<Answer<Nodes>, Error> {
    let limit = args.limit.map_or(usize::MAX, |limit| limit as usize);
    let mut pages = client.nodes(args.filter(), args.order(), args.limit.unwrap_or(0));
    let mut all = Answer {
        value: Nodes { nodes: Vec::new(), total: 0 },
        freshness: v1::Freshness::default(),
    };
    while let Some(page) = pages.try_next().await? {
        let mut nodes = std::mem::take(&mut all.value.nodes);
        nodes.extend(page.value.nodes);
        nodes.truncate(limit);
        all = Answer { value: Nodes { nodes, total: page.value.total }, freshness: page.freshness };
        if all.value.nodes.len() == limit {
            break;
        }
    }
    Ok(all)
}

const COLUMNS: [Column; 9] = [
    Column::left("ID").cut_to(12),
    Column::left("ONLINE"),
    Column::left("VERDICT").spare(1),
    Column::right("UPTIME"),
    Column::right("COVERAGE"),
    Column::right("ROUNDS").spare(0),
    Column::right("LAST SEEN"),
    Column::left("SUBNETS").cut_to(7).spare(2),
    Column::left("NAME").cut_to(8),
];

fn table(nodes: &[v1::Node], fresh: &Freshness, screen: &Screen) -> table::Printed {
    let row = |node: &v1::Node| {
        let figures = node.all.unwrap_or_default();
        let seen = node.last_seen_unix_ms.map(|ms| ago_s(fresh, second(ms)));
        let online = if node.retired {
            Cell::from("retired".to_owned())
        } else if node.is_online {
            Cell::coloured("yes", Colour::Green)
        } else {
            Cell::coloured("no", Colour::Red)
        };
        vec![
            clean(&node.id).into_owned().into(),
            online,
            Cell::coloured(verdict_text(node.verdict()), verdict_colour(node.verdict())),
            percent(figures.uptime_percent).into(),
            percent(figures.coverage_percent).into(),
            number(figures.up_rounds.saturating_add(figures.down_rounds)).into(),
            seen.map_or_else(|| "never".to_owned(), |ago| brief(ago) + " ago").into(),
            clean(&node.subnets.join(",")).into_owned().into(),
            clean(&node.name).into_owned().into(),
        ]
    };
    let rows: Vec<Vec<Cell>> = nodes.iter().map(row).collect();
    table::print(&COLUMNS, &rows, screen)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::fresh::tests::fresh;
    use crate::text::is_hostile;

    /// A node that is up.
    pub(crate) fn node() -> v1::Node {
        v1::Node {
            id: "0x85f06344fde97d390e87b0840b0325212f26eba7".into(),
            is_online: true,
            verdict: Verdict::Up as i32,
            verdict_since_unix_s: 1_769_860_800,
            first_seen_unix_s: 1_767_250_800,
            last_seen_unix_ms: Some(1_769_862_896_789),
            retired: false,
            all: Some(v1::UptimeFigures {
                uptime_percent: Some(98.526),
                coverage_percent: Some(99.5),
                up_s: 37_020,
                down_s: 540,
                unknown_s: 180,
                up_rounds: 1_234,
                down_rounds: 18,
                unknown_rounds: 6,
                window: None,
            }),
            subnets: vec!["public".into()],
            name: "a-node-with-a-long-name".into(),
            runtime: "vm".into(),
            runtime_version: "0.4.1".into(),
            networks: vec!["holesky".into(), "polygon".into()],
            round_trip_us: Some(12_345),
            flapping: false,
            state_since_unix_s: 1_769_860_800,
            state_unknown_rounds: 0,
        }
    }

    fn nodes() -> Vec<v1::Node> {
        let hostile = v1::Node {
            id: "0x0000000000000000000000000000000000000002".into(),
            is_online: false,
            verdict: Verdict::Unknown as i32,
            last_seen_unix_ms: None,
            all: None,
            subnets: vec!["a\u{202e}b".into(), "c".into()],
            name: "\u{1b}[31mred\nline".into(),
            ..node()
        };
        vec![node(), hostile]
    }

    fn printed(width: Option<usize>) -> table::Printed {
        table(&nodes(), &fresh(), &Screen { width, colours: false })
    }

    #[test]
    fn a_pipe_gets_everything_and_nothing_hostile() {
        let text = printed(None).text;
        assert_eq!(text.lines().count(), 3);
        assert!(!text.contains(|letter| is_hostile(letter) && letter != '\n'), "{text}");
        let first = "0x85f06344fde97d390e87b0840b0325212f26eba7  yes     up       98.53 %   \
                     99.50 %   1,252   11 s ago  public        a-node-with-a-long-name";
        assert_eq!(text.lines().nth(1), Some(first));
        let second = "0x0000000000000000000000000000000000000002  no      unknown        -         \
                      -       0      never  a\\u{202e}b,c  \\u{1b}[31mred\\nline";
        assert_eq!(text.lines().nth(2), Some(second));
    }

    #[test]
    fn eighty_columns_are_enough() {
        let printed = printed(Some(80));
        let text = "\
ID               ONLINE  VERDICT   UPTIME  COVERAGE  ROUNDS  LAST SEEN  NAME
0x85f06344fde9…  yes     up       98.53 %   99.50 %   1,252   11 s ago  a-node-…
0x000000000000…  no      unknown        -         -       0      never  \\u{1b}[…
";
        assert_eq!(printed.text, text);
        assert_eq!(printed.left_out, ["SUBNETS"]);
    }

    #[test]
    fn csv_has_the_fields_of_json() {
        let value = serde_json::to_value(NodeRecord::from(node())).unwrap();
        let mut names: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
        let mut header = NodeRecord::HEADER.to_vec();
        names.sort_unstable();
        header.sort_unstable();
        assert_eq!(names, header);
        let text = csv(nodes()).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        let row = "0x85f06344fde97d390e87b0840b0325212f26eba7,a-node-with-a-long-name,true,up,\
                   1769860800,1767250800,1769862896789,98.526,99.5,1234,18,6,37020,540,180,false,\
                   false,public,vm,0.4.1,holesky;polygon,12345,1769860800,0";
        assert_eq!(lines[1], row);
    }
}
