//! The live view: what a watcher knows, drawn on a terminal.
//!
//! Pure. Owns what finds a place on it: never more lines than the terminal has and none wider.

use uptime_client::v1::Freshness;

use crate::fresh;
use crate::nodes::{verdict_colour, verdict_text};
use crate::screen::{Colour, Screen};
use crate::table::{self, Cell, Column, cut};
use crate::text::{brief, clean, counted, number, second, stamp};
use crate::watch_state::{Change, Standing, WatchState, What};

/// A terminal lower than this shows the head only.
const TABLES_FROM_LINES: usize = 10;

/// How the watch itself fares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Line {
    /// Everything has not come yet.
    Beginning,
    /// All is well.
    Open,
    /// Interrupted: the reason, and the seconds until the next attempt.
    Interrupted(String, u64),
}

/// What is drawn.
#[derive(Debug)]
pub(crate) struct View<'a> {
    pub(crate) url: &'a str,
    pub(crate) state: &'a WatchState,
    /// The newest first.
    pub(crate) changes: &'a [Change],
    pub(crate) line: &'a Line,
    pub(crate) fresh: Option<&'a Freshness>,
    /// Seconds since that was told.
    pub(crate) since_told_s: u64,
}

const NOT_UP: [Column; 4] = [
    Column::left("NOT UP").cut_to(12),
    Column::left("VERDICT"),
    Column::right("FOR"),
    Column::left("NAME").cut_to(8),
];
const CHANGES: [Column; 4] = [
    Column::left("CHANGED").spare(1),
    Column::left("ID").cut_to(12),
    Column::left("WHAT"),
    Column::left("NAME").cut_to(8),
];

/// `up -> down`, `new, up`, `gone`, `details`.
pub(crate) fn change_text(change: &Change) -> String {
    let now = change.node.as_ref().map(|node| verdict_text(node.verdict()));
    let text = |what: &What| match (what, change.was, now) {
        (What::Verdict, Some(was), Some(now)) => format!("{was} -> {now}"),
        (What::New | What::Present, _, Some(now)) => format!("{}, {now}", what.text()),
        _ => what.text().to_owned(),
    };
    change.what.iter().map(text).collect::<Vec<_>>().join(", ")
}

impl View<'_> {
    /// The lines, at most so many.
    pub(crate) fn draw(&self, screen: &Screen, height: usize) -> Vec<String> {
        let mut lines = self.head(screen);
        if height >= TABLES_FROM_LINES {
            lines.push(String::new());
            let rest = height - lines.len();
            let not_up = self.not_up(screen, rest / 2);
            lines.extend(not_up);
            let rest = height - lines.len();
            lines.extend(self.latest(screen, rest));
        }
        lines.truncate(height);
        lines
    }

    fn head(&self, screen: &Screen) -> Vec<String> {
        let width = screen.width.unwrap_or(usize::MAX);
        let paint = |text: &str, colour| screen.paint(&cut(text, width), colour);
        let title = format!("{}  (Ctrl-C ends)", clean(self.url));
        let (state, colour) = match (self.line, self.fresh) {
            (Line::Interrupted(detail, again_in_s), _) => {
                let detail = clean(detail);
                let text = format!("interrupted, next attempt in {again_in_s} s: {detail}");
                (text, Some(Colour::Red))
            }
            (Line::Beginning, _) | (Line::Open, None) => {
                ("everything is coming".to_owned(), Some(Colour::Yellow))
            }
            (Line::Open, Some(told)) => self.as_of(told),
        };
        let counts = self.state.counts();
        let mut sums = format!(
            "{}: {} up, {} down, {} unknown",
            counted(counts.nodes(), "node"),
            number(counts.up),
            number(counts.down),
            number(counts.unknown)
        );
        if counts.retired > 0 {
            sums += &format!("; {} retired", number(counts.retired));
        }
        vec![paint(&title, Some(Colour::Bold)), paint(&state, colour), paint(&sums, None)]
    }

    /// A quiet network sends nothing, so the age of the last word is no fault.
    fn as_of(&self, told: &Freshness) -> (String, Option<Colour>) {
        let text = format!(
            "as of round {}, {}; last word {} ago",
            stamp(told.last_closed_round_unix_s),
            clean(&told.method),
            brief(self.since_told_s)
        );
        match fresh::warning(told) {
            Some(_) => (format!("out of date: {text}"), Some(Colour::Red)),
            None => (text, None),
        }
    }

    fn now_s(&self) -> u64 {
        let told_s = self.fresh.map_or(0, |told| second(told.answered_at_unix_ms));
        told_s.saturating_add(self.since_told_s)
    }

    /// Those that are down and those that are unknown, the shortest time first.
    fn not_up(&self, screen: &Screen, lines: usize) -> Vec<String> {
        let mut nodes: Vec<(&str, &Standing)> = self.state.not_up().collect();
        if nodes.is_empty() || lines < 3 {
            return Vec::new();
        }
        nodes.sort_unstable_by(|(a_id, a), (b_id, b)| {
            (b.stood_since_unix_s, *a_id).cmp(&(a.stood_since_unix_s, *b_id))
        });
        // A header, a blank line after it, and maybe one for those that find no place.
        let place = if nodes.len() > lines - 2 { lines - 3 } else { lines - 2 };
        let row = |(id, standing): &(&str, &Standing)| -> Vec<Cell> {
            let verdict = standing.verdict;
            let for_s = self.now_s().saturating_sub(standing.stood_since_unix_s);
            let known = standing.stood_since_unix_s > 0;
            vec![
                clean(id).into_owned().into(),
                Cell::coloured(verdict_text(verdict), verdict_colour(verdict)),
                if known { brief(for_s) } else { "-".to_owned() }.into(),
                clean(&standing.name).into_owned().into(),
            ]
        };
        let rows: Vec<Vec<Cell>> = nodes.iter().take(place).map(row).collect();
        let mut drawn = split(&table::print(&NOT_UP, &rows, screen).text);
        if nodes.len() > place {
            drawn.push(format!("and {} more", number((nodes.len() - place) as u64)));
        }
        drawn.push(String::new());
        drawn
    }

    fn latest(&self, screen: &Screen, lines: usize) -> Vec<String> {
        if self.changes.is_empty() {
            return vec!["no change yet".to_owned()];
        }
        let row = |change: &Change| -> Vec<Cell> {
            let verdict = change.node.as_ref().map(uptime_client::v1::Node::verdict);
            let what = change_text(change);
            let telling = change.what.iter().any(|w| matches!(w, What::Verdict | What::New));
            vec![
                stamp(change.at_unix_s).into(),
                clean(&change.id).into_owned().into(),
                match verdict {
                    Some(verdict) if telling => Cell::coloured(what, verdict_colour(verdict)),
                    _ => what.into(),
                },
                clean(&change.name).into_owned().into(),
            ]
        };
        let place = lines.saturating_sub(1);
        let rows: Vec<Vec<Cell>> = self.changes.iter().take(place).map(row).collect();
        split(&table::print(&CHANGES, &rows, screen).text)
    }
}

fn split(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use unicode_width::UnicodeWidthStr;
    use uptime_client::v1::{self, Verdict};

    use super::*;
    use crate::fresh::tests::fresh;
    use crate::nodes::tests::node as up;

    fn node(number: u8, verdict: Verdict) -> v1::Node {
        v1::Node {
            id: uptime_client::NodeId::new([number; 20]).to_string(),
            verdict: verdict as i32,
            verdict_since_unix_s: 1_769_862_000 + u64::from(number),
            name: format!("node-{number}"),
            ..up()
        }
    }

    /// Three are up, then some go down; one has a name that does harm.
    fn state(down: u8) -> (WatchState, Vec<Change>) {
        let mut state = WatchState::new(&[], 100);
        let mut nodes: Vec<v1::Node> = (0..20).map(|at| node(at, Verdict::Up)).collect();
        nodes.push(v1::Node { retired: true, ..node(99, Verdict::Unknown) });
        state.changed(nodes, &fresh()).unwrap();
        state.synced(&fresh());
        let mut changes = Vec::new();
        for number in 0..down {
            let name = if number == 1 { "\u{1b}[2J\n漢字".into() } else { String::new() };
            let gone = v1::Node { name, ..node(number, Verdict::Down) };
            changes.splice(0..0, state.changed(vec![gone], &fresh()).unwrap());
        }
        (state, changes)
    }

    fn drawn(down: u8, line: &Line, width: usize, height: usize) -> Vec<String> {
        let (state, changes) = state(down);
        let view = View {
            url: "http://127.0.0.1:7640",
            state: &state,
            changes: &changes,
            line,
            fresh: Some(&fresh()),
            since_told_s: 4,
        };
        view.draw(&Screen { width: Some(width), colours: false }, height)
    }

    fn check(down: u8, line: &Line, wanted: &Expect) {
        wanted.assert_eq(&(drawn(down, line, 80, 20).join("\n") + "\n"));
    }

    #[test]
    fn a_quiet_network() {
        check(
            0,
            &Line::Open,
            &expect![[r#"
            http://127.0.0.1:7640  (Ctrl-C ends)
            as of round 2026-01-31 12:34:30 UTC, fresh-v1; last word 4 s ago
            20 nodes: 20 up, 0 down, 0 unknown; 1 retired

            no change yet
        "#]],
        );
    }

    #[test]
    fn some_that_went_down() {
        check(
            3,
            &Line::Open,
            &expect![[r#"
                http://127.0.0.1:7640  (Ctrl-C ends)
                as of round 2026-01-31 12:34:30 UTC, fresh-v1; last word 4 s ago
                20 nodes: 17 up, 3 down, 0 unknown; 1 retired

                NOT UP                                      VERDICT     FOR  NAME
                0x0000000000000000000000000000000000000000  down     35 min
                0x0101010101010101010101010101010101010101  down     35 min  \u{1b}[2J\n漢字
                0x0202020202020202020202020202020202020202  down     35 min

                CHANGED                  ID                        WHAT                 NAME
                2026-01-31 12:20:02 UTC  0x020202020202020202020…  up -> down, details
                2026-01-31 12:20:01 UTC  0x010101010101010101010…  up -> down, details  \u{1b}[…
                2026-01-31 12:20:00 UTC  0x000000000000000000000…  up -> down, details
            "#]],
        );
    }

    #[test]
    fn more_than_find_a_place_while_nothing_can_be_heard() {
        let line = Line::Interrupted("cannot reach it:\n\u{1b}refused".into(), 3);
        check(
            12,
            &line,
            &expect![[r#"
                http://127.0.0.1:7640  (Ctrl-C ends)
                interrupted, next attempt in 3 s: cannot reach it:\n\u{1b}refused
                20 nodes: 8 up, 12 down, 0 unknown; 1 retired

                NOT UP                                      VERDICT     FOR  NAME
                0x0000000000000000000000000000000000000000  down     35 min
                0x0101010101010101010101010101010101010101  down     35 min  \u{1b}[2J\n漢字
                0x0202020202020202020202020202020202020202  down     35 min
                0x0303030303030303030303030303030303030303  down     35 min
                0x0404040404040404040404040404040404040404  down     35 min
                and 7 more

                CHANGED                  ID                            WHAT                 NAME
                2026-01-31 12:20:11 UTC  0x0b0b0b0b0b0b0b0b0b0b0b0b0…  up -> down, details
                2026-01-31 12:20:10 UTC  0x0a0a0a0a0a0a0a0a0a0a0a0a0…  up -> down, details
                2026-01-31 12:20:09 UTC  0x0909090909090909090909090…  up -> down, details
                2026-01-31 12:20:08 UTC  0x0808080808080808080808080…  up -> down, details
                2026-01-31 12:20:07 UTC  0x0707070707070707070707070…  up -> down, details
                2026-01-31 12:20:06 UTC  0x0606060606060606060606060…  up -> down, details
                2026-01-31 12:20:05 UTC  0x0505050505050505050505050…  up -> down, details
            "#]],
        );
    }

    #[test]
    fn no_terminal_is_too_small() {
        for height in 0..30 {
            for width in [20, 38, 80, 200] {
                let lines = drawn(12, &Line::Open, width, height);
                assert!(lines.len() <= height, "{width}x{height}: {lines:#?}");
                // What cannot be cut further stands out over the narrowest.
                let widest = lines.iter().map(|line| line.width()).max().unwrap_or(0);
                assert!(widest <= width.max(45), "{width}x{height}: {lines:#?}");
            }
        }
    }
}
