//! `watch`: changes as they come, as a view on a terminal or as lines for a program.
//!
//! Owns the terminal while it is drawn upon, and gives it back however the watch ends.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;
use uptime_client::v1::{Freshness, NodeFilter};
use uptime_client::{Client, Watched};

use crate::args::{Output, WatchArgs};
use crate::fresh;
use crate::live_view::{Line, View, change_text};
use crate::nodes::NodeRecord;
use crate::output::{self, field};
use crate::screen::Screen;
use crate::text::{clean, counted, stamp};
use crate::watch_state::{Change, NODES_MAX, WatchState, What};

/// Changes kept for the view: more than any terminal has lines.
const CHANGES_MAX: usize = 500;
/// How often ages are redrawn when nothing happens.
const TICK: Duration = Duration::from_secs(1);
/// Draws come no faster than this, however fast changes do.
const DRAW_GAP: Duration = Duration::from_millis(100);
/// An own page of the terminal, without the cursor; and back.
const ENTER: &str = "\u{1b}[?1049h\u{1b}[?25l";
const LEAVE: &str = "\u{1b}[?25h\u{1b}[?1049l";

/// A change as it stands in JSON, on a line of its own.
#[derive(Debug, Serialize)]
struct ChangeRecord {
    at_unix_s: u64,
    id: String,
    what: Vec<&'static str>,
    was: Option<&'static str>,
    node: Option<NodeRecord>,
}

/// Before those of a node.
const HEADER: [&str; 3] = ["at_unix_s", "what", "was"];
/// All columns of CSV.
const COLUMNS: usize = HEADER.len() + NodeRecord::HEADER.len();

/// The state of a watch, whatever becomes of it.
struct Watching {
    state: WatchState,
    fresh: Option<Freshness>,
    line: Line,
    /// When the last word came.
    told: Instant,
    /// When the next attempt is made.
    again_at: Instant,
}

impl Watching {
    fn new(args: &WatchArgs) -> Self {
        let now = Instant::now();
        let state = WatchState::new(&args.ids, NODES_MAX);
        Self { state, fresh: None, line: Line::Beginning, told: now, again_at: now }
    }

    /// Takes a word in; what changed.
    fn hear(&mut self, word: Watched, fresh: Option<&Freshness>) -> Result<Vec<Change>> {
        if let Watched::Interrupted { error, again_in } = word {
            self.again_at = Instant::now() + again_in;
            self.line = Line::Interrupted(error.to_string(), again_in.as_secs());
            return Ok(Vec::new());
        }
        if fresh.is_some() {
            self.fresh = fresh.cloned();
        }
        self.told = Instant::now();
        let none = Freshness::default();
        let fresh = self.fresh.as_ref().unwrap_or(&none);
        self.line = Line::Open;
        let changes = match word {
            Watched::Changed(nodes) => self.state.changed(nodes, fresh)?,
            Watched::Synced => self.state.synced(fresh),
            Watched::Reset { .. } => {
                self.state.reset();
                Vec::new()
            }
            _ => Vec::new(),
        };
        if !self.state.is_synced() {
            self.line = Line::Beginning;
        }
        Ok(changes)
    }
}

/// Answers `watch` until it is ended.
pub(crate) async fn run(client: &Client, args: &WatchArgs) -> Result<u8> {
    let drawn = args.output == Output::Table && !args.lines;
    match Screen::height_of_stdout().filter(|_| drawn) {
        Some(_) => view(client, args).await,
        None => lines(client, args).await,
    }
}

fn filter(args: &WatchArgs) -> NodeFilter {
    let one = match args.ids.as_slice() {
        [id] => id.to_string(),
        _ => String::new(),
    };
    NodeFilter {
        subnet: args.subnet.clone(),
        id_prefix: one,
        name_contains: args.name.clone(),
        // Else nobody would hear that a node was retired.
        include_retired: true,
        ..NodeFilter::default()
    }
}

/// A line, an object or a row for each change.
async fn lines(client: &Client, args: &WatchArgs) -> Result<u8> {
    let mut watch = client.watch(filter(args), Vec::new());
    let mut watching = Watching::new(args);
    let mut left = args.count.unwrap_or(u64::MAX);
    if args.output == Output::Csv {
        let header: Vec<String> = header().map(str::to_owned).collect();
        output::put(csv_line(header)?.as_bytes())?;
    }
    while let Some(word) = watch.next().await {
        let word = word?;
        let was_interrupted = matches!(watching.line, Line::Interrupted(..));
        let (began, synced) = (!watching.state.is_synced(), word == Watched::Synced);
        match &word {
            Watched::Interrupted { error, again_in } => {
                let error = error.to_string();
                eprintln!("interrupted: {}; again in {:.1?}", clean(&error), again_in);
            }
            Watched::Reset { detail } => eprintln!("starting over: {}", clean(detail)),
            _ if was_interrupted => eprintln!("heard again"),
            _ => {}
        }
        let changes = watching.hear(word, watch.freshness())?;
        for change in changes {
            if change.what == [What::Present] && !args.initial {
                continue;
            }
            if !output::put(change_line(change, args.output)?.as_bytes())? {
                return Ok(0);
            }
            left -= 1;
            if left == 0 {
                return Ok(0);
            }
        }
        if began && synced {
            let nodes = counted(watching.state.counts().nodes(), "node");
            let fresh = watching.fresh.clone().unwrap_or_default();
            eprintln!("watching {nodes}, as of {}", fresh::words(&fresh));
            if let Some(warning) = fresh::warning(&fresh) {
                eprintln!("{warning}");
            }
        }
    }
    bail!("the watch has ended")
}

fn header() -> impl Iterator<Item = &'static str> {
    HEADER.into_iter().chain(NodeRecord::HEADER)
}

fn csv_line(row: Vec<String>) -> Result<String> {
    let row: [String; COLUMNS] = row.try_into().ok().context("a row with all columns")?;
    output::csv_rows(std::iter::once(row))
}

fn change_line(change: Change, how: Output) -> Result<String> {
    let what = || change.what.iter().map(|what| what.text());
    match how {
        Output::Table => Ok(format!(
            "{}  {}  {}  {}",
            stamp(change.at_unix_s),
            clean(&change.id),
            change_text(&change),
            clean(&change.name)
        )
        .trim_end()
        .to_owned()
            + "\n"),
        Output::Json => output::json_line(&ChangeRecord {
            at_unix_s: change.at_unix_s,
            what: what().collect(),
            was: change.was,
            node: change.node.map(NodeRecord::from),
            id: change.id,
        }),
        Output::Csv => {
            let own = [
                change.at_unix_s.to_string(),
                what().collect::<Vec<_>>().join(";"),
                field(change.was),
            ];
            let node = match change.node {
                Some(node) => NodeRecord::from(node).row(),
                None => NodeRecord::row_of_gone(change.id, change.name),
            };
            csv_line(own.into_iter().chain(node).collect())
        }
    }
}

/// The terminal, given back when this ends.
struct Page;

impl Page {
    fn enter() -> Result<Self> {
        output::put(ENTER.as_bytes())?;
        Ok(Self)
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // Nothing more can be done when even this cannot be written.
        output::put(LEAVE.as_bytes()).ok();
    }
}

/// Waits for whatever ends a view.
struct Ends([Signal; 3]);

impl Ends {
    fn new() -> Result<Self> {
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let [interrupt, terminate, hangup] = kinds.map(signal);
        Ok(Self([interrupt?, terminate?, hangup?]))
    }

    async fn next(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

/// A view that is redrawn.
async fn view(client: &Client, args: &WatchArgs) -> Result<u8> {
    let mut watch = client.watch(filter(args), Vec::new());
    let mut watching = Watching::new(args);
    let mut changes: VecDeque<Change> = VecDeque::new();
    let mut left = args.count.unwrap_or(u64::MAX);
    let mut ends = Ends::new()?;
    let page = Page::enter()?;
    let mut tick = tokio::time::interval(TICK);
    let mut next_draw = Instant::now();
    let (mut drawn, mut seen) = (false, 0_u64);
    let ended: Result<()> = loop {
        if !drawn && Instant::now() >= next_draw {
            if !draw(client, &watching, changes.make_contiguous())? {
                break Ok(());
            }
            (drawn, next_draw) = (true, Instant::now() + DRAW_GAP);
        }
        tokio::select! {
            () = ends.next() => break Ok(()),
            _ = tick.tick() => {}
            () = tokio::time::sleep_until(next_draw), if !drawn => continue,
            word = watch.next() => {
                let heard = match word {
                    Some(Ok(word)) => watching.hear(word, watch.freshness()),
                    Some(Err(error)) => Err(error.into()),
                    None => Ok(Vec::new()),
                };
                let heard = match heard {
                    Ok(heard) => heard,
                    Err(error) => break Err(error),
                };
                for change in heard.into_iter().filter(|c| c.what != [What::Present]) {
                    changes.push_front(change);
                    seen += 1;
                    left = left.saturating_sub(1);
                }
                changes.truncate(CHANGES_MAX);
                if left == 0 {
                    break Ok(());
                }
            }
        }
        drawn = false;
    };
    drop(page);
    ended?;
    eprintln!("{} seen", counted(seen, "change"));
    Ok(0)
}

/// Draws it; `false`: the terminal is closed.
fn draw(client: &Client, watching: &Watching, changes: &[Change]) -> Result<bool> {
    let Some(height) = Screen::height_of_stdout() else {
        return Ok(false);
    };
    let now = Instant::now();
    let line = match &watching.line {
        Line::Interrupted(detail, _) => {
            let again_in = watching.again_at.saturating_duration_since(now);
            Line::Interrupted(detail.clone(), again_in.as_secs())
        }
        line => line.clone(),
    };
    let view = View {
        url: client.url(),
        state: &watching.state,
        changes,
        line: &line,
        fresh: watching.fresh.as_ref(),
        since_told_s: now.saturating_duration_since(watching.told).as_secs(),
    };
    let lines = view.draw(&Screen::of_stdout(), height);
    // From the top, each line wiped to its end, and all below the last.
    output::put(format!("\u{1b}[H{}\u{1b}[K\u{1b}[J", lines.join("\u{1b}[K\r\n")).as_bytes())
}

#[cfg(test)]
mod tests {
    use uptime_client::v1;

    use super::*;
    use crate::nodes::tests::node;

    fn change(what: Vec<What>, node: Option<v1::Node>) -> Change {
        Change {
            at_unix_s: 1_769_862_870,
            id: "0x1".into(),
            name: "\u{1b}n".into(),
            what,
            was: Some("up"),
            node,
        }
    }

    #[test]
    fn a_change_is_a_line_whatever_its_form() {
        let down = v1::Node { verdict: v1::Verdict::Down as i32, name: "a\nb".into(), ..node() };
        let changes = [
            change(vec![What::Verdict, What::Details], Some(down)),
            change(vec![What::Gone], None),
        ];
        for how in [Output::Table, Output::Json, Output::Csv] {
            for change in &changes {
                let line = change_line(change.clone(), how).unwrap();
                assert_eq!(line.lines().count(), 1, "{line:?}");
                assert!(line.ends_with('\n') && !line.contains('\u{1b}'), "{line:?}");
            }
        }
        let [down, gone] = &changes;
        let text = change_line(down.clone(), Output::Table).unwrap();
        assert_eq!(text, "2026-01-31 12:34:30 UTC  0x1  up -> down, details  \\u{1b}n\n");
        let text = change_line(gone.clone(), Output::Table).unwrap();
        assert_eq!(text, "2026-01-31 12:34:30 UTC  0x1  gone  \\u{1b}n\n");
        let json = change_line(gone.clone(), Output::Json).unwrap();
        let wanted = "{\"at_unix_s\":1769862870,\"id\":\"0x1\",\"what\":[\"gone\"],\"was\":\"up\",\
                      \"node\":null}\n";
        assert_eq!(json, wanted);
        let csv = change_line(gone.clone(), Output::Csv).unwrap();
        assert!(csv.starts_with("1769862870,gone,up,0x1,\\u{1b}n,,,"), "{csv}");
        assert_eq!(csv.matches(',').count(), header().count() - 1);
    }

    #[test]
    fn changes_are_a_header_of_their_own_and_that_of_a_node() {
        let names: Vec<&str> = header().collect();
        assert_eq!(names[..5], ["at_unix_s", "what", "was", "id", "name"]);
        assert_eq!(names.len(), COLUMNS);
    }
}
