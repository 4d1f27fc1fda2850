//! Plots, drawn on the server as SVG.
//!
//! Owns shapes only: what stands in them is worked out by the pages. Every plot has a title for
//! those who do not see it, and a title on each piece that can be pointed at. No plot holds foreign
//! text. Widths stretch to the page; words stand beside a plot, not in it, so that they stay
//! readable.

use std::fmt::{self, Display, Formatter, Write};

use uptime_accounting::uptime::Tally;
use uptime_accounting::verdict::Verdict;

use super::time_format::{date, percent, stamp};

/// Height of the plots' own coordinates.
const HIGH: u64 = 100;
/// Whatever is there at all is drawn at least so high.
const LEAST: u64 = 3;

/// The class of a verdict in style sheets.
pub(super) fn class(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Up => "up",
        Verdict::Down => "down",
        Verdict::Unknown => "unknown",
    }
}

/// How many of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Counts {
    pub(super) up: u64,
    pub(super) down: u64,
    pub(super) unknown: u64,
}

impl Counts {
    pub(super) fn total(self) -> u64 {
        self.up + self.down + self.unknown
    }

    /// The parts of `whole` units, rounded so that they add up, and what is there is never nothing:
    /// down first, then unknown, the rest up.
    fn share(self, whole: u64, least: u64) -> [(u64, &'static str); 3] {
        let total = self.total();
        if total == 0 {
            return [(0, "down"), (0, "up"), (0, "unknown")];
        }
        let part = |count: u64| {
            let exact = u128::from(count) * u128::from(whole) / u128::from(total);
            let units = u64::try_from(exact).unwrap_or(whole);
            if count == 0 { 0 } else { units.max(least) }
        };
        let down = part(self.down).min(whole);
        let unknown = part(self.unknown).min(whole - down);
        let up = whole - down - unknown;
        if self.up == 0 && up > 0 {
            // What rounding left over belongs to the greater of the two.
            let [down, unknown] =
                if self.down >= self.unknown { [down + up, unknown] } else { [down, unknown + up] };
            return [(down, "down"), (0, "up"), (unknown, "unknown")];
        }
        [(down, "down"), (up, "up"), (unknown, "unknown")]
    }
}

impl From<&Tally> for Counts {
    fn from(tally: &Tally) -> Self {
        Self { up: tally.up_s, down: tally.down_s, unknown: tally.unknown_s }
    }
}

/// A horizontal bar of three parts.
pub(super) struct Bar<'a> {
    pub(super) counts: Counts,
    /// For screen readers; needs no escaping.
    pub(super) title: &'a str,
}

impl Display for Bar<'_> {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let title = self.title;
        write!(
            out,
            "<svg class=\"plot bar\" viewBox=\"0 0 1000 10\" preserveAspectRatio=\"none\" \
             role=\"img\" aria-label=\"{title}\"><title>{title}</title>\
             <rect class=\"ground\" width=\"1000\" height=\"10\"/>"
        )?;
        let mut x = 0;
        for (width, class) in self.counts.share(1_000, 4) {
            if width > 0 {
                write!(out, "<rect class=\"{class}\" x=\"{x}\" width=\"{width}\" height=\"10\"/>")?;
            }
            x += width;
        }
        out.write_str("</svg>")
    }
}

/// A percentage in words, and a small bar before it.
pub(super) struct Gauge(pub(super) Option<f64>);

impl Display for Gauge {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let words = percent(self.0);
        let Some(value) = self.0 else {
            return write!(out, "<span class=\"percent\">{words}</span>");
        };
        let width = value.clamp(0.0, 100.0);
        write!(
            out,
            "<svg class=\"plot gauge\" viewBox=\"0 0 100 10\" preserveAspectRatio=\"none\" \
             aria-hidden=\"true\"><rect class=\"ground\" width=\"100\" height=\"10\"/>\
             <rect class=\"up\" width=\"{width:.1}\" height=\"10\"/></svg>\
             <span class=\"percent\">{words}</span>"
        )
    }
}

/// One column of a plot over time.
pub(super) struct Column {
    /// Where it begins and how wide it is, in units of the plot.
    pub(super) x: u64,
    pub(super) width: u64,
    pub(super) counts: Counts,
    /// The tooltip; needs no escaping.
    pub(super) title: String,
}

/// Columns over time, each of three parts, all of full height: shares.
pub(super) struct Columns<'a> {
    pub(super) class: &'static str,
    pub(super) width: u64,
    /// Blank units at the right of each column.
    pub(super) gap: u64,
    pub(super) title: &'a str,
    pub(super) columns: &'a [Column],
}

impl Display for Columns<'_> {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let Self { class, width, title, .. } = self;
        write!(
            out,
            "<svg class=\"plot {class}\" viewBox=\"0 0 {width} {HIGH}\" \
             preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{title}\">\
         <title>{title}</title>"
        )?;
        let mut paths =
            [("down", String::new()), ("up", String::new()), ("unknown", String::new())];
        let mut empty = String::new();
        for column in self.columns {
            let wide = column.width.saturating_sub(self.gap).max(1);
            if column.counts.total() == 0 {
                write!(empty, "M{} {}h{wide}v4h-{wide}z", column.x, HIGH - 4)?;
            }
            let mut bottom = HIGH;
            for ((high, _), (_, path)) in column.counts.share(HIGH, LEAST).iter().zip(&mut paths) {
                if *high > 0 {
                    write!(path, "M{} {bottom}h{wide}v-{high}h-{wide}z", column.x)?;
                }
                bottom -= high;
            }
        }
        for (class, path) in paths.iter().chain([&("ground", empty)]) {
            if !path.is_empty() {
                write!(out, "<path class=\"{class}\" d=\"{path}\"/>")?;
            }
        }
        for Column { x, width, title, .. } in self.columns {
            write!(
                out,
                "<rect class=\"touch\" x=\"{x}\" width=\"{width}\" height=\"{HIGH}\">\
                 <title>{title}</title></rect>"
            )?;
        }
        out.write_str("</svg>")
    }
}

/// Stretches of equal verdict on one line, from one second to another.
pub(super) struct Strip<'a> {
    pub(super) from_s: u64,
    pub(super) to_s: u64,
    pub(super) stretches: &'a [(u64, u64, Verdict)],
    pub(super) title: &'a str,
    /// Of how many seconds the pieces are that can be pointed at.
    pub(super) step_s: u64,
    /// What is said of a piece.
    pub(super) told: &'a dyn Fn(u64, u64) -> String,
}

impl Display for Strip<'_> {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let Self { from_s, to_s, title, .. } = self;
        let width = to_s.saturating_sub(*from_s).max(1);
        write!(
            out,
            "<svg class=\"plot strip\" viewBox=\"0 0 {width} 10\" preserveAspectRatio=\"none\" \
             role=\"img\" aria-label=\"{title}\"><title>{title}</title>\
             <rect class=\"ground\" width=\"{width}\" height=\"10\"/>"
        )?;
        // What is short is drawn at least so wide, over what is beside it: the down last.
        let least = width / 600 + 1;
        for verdict in [Verdict::Unknown, Verdict::Up, Verdict::Down] {
            let mut path = String::new();
            for (start, end, _) in self.stretches.iter().filter(|(.., one)| *one == verdict) {
                let (x, wide) = (start.saturating_sub(*from_s), (end - start).max(least));
                write!(path, "M{x} 0h{wide}v10h-{wide}z")?;
            }
            if !path.is_empty() {
                write!(out, "<path class=\"{}\" d=\"{path}\"/>", class(verdict))?;
            }
        }
        let mut at = *from_s;
        while at < *to_s && self.step_s > 0 {
            let end = (at + self.step_s).min(*to_s);
            write!(
                out,
                "<rect class=\"touch\" x=\"{}\" width=\"{}\" height=\"10\">\
             <title>{}</title></rect>",
                at - from_s,
                end - at,
                (self.told)(at, end)
            )?;
            at = end;
        }
        out.write_str("</svg>")
    }
}

/// One UTC day of one node.
#[derive(Debug, Clone, Copy)]
pub(super) struct Day {
    pub(super) start_s: u64,
    pub(super) tally: Tally,
}

impl Day {
    /// The day in words: date, uptime, coverage.
    pub(super) fn told(&self) -> String {
        let day = date(self.start_s);
        if Counts::from(&self.tally).total() == 0 {
            return format!("{day}: not known yet");
        }
        let coverage = percent(self.tally.coverage_percent());
        match self.tally.uptime_percent() {
            Some(uptime) => format!("{day}: uptime {}, coverage {coverage}", percent(Some(uptime))),
            None => format!("{day}: nobody could tell, coverage {coverage}"),
        }
    }
}

/// Units of a day's column; a fifth of it is blank.
const DAY_WIDE: u64 = 10;

/// Days side by side.
pub(super) fn days(days: &[Day], title: &str) -> String {
    let columns: Vec<Column> = (0..)
        .zip(days)
        .map(|(place, day)| Column {
            x: place * DAY_WIDE,
            width: DAY_WIDE,
            counts: Counts::from(&day.tally),
            title: day.told(),
        })
        .collect();
    let width = DAY_WIDE * columns.len().max(1) as u64;
    Columns { class: "days", width, gap: 2, title, columns: &columns }.to_string()
}

/// A bar whose length is a share of the longest.
pub(super) struct Length {
    pub(super) part: u64,
    pub(super) longest: u64,
}

impl Display for Length {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let exact = u128::from(self.part) * 1_000 / u128::from(self.longest.max(1));
        let width = u64::try_from(exact).unwrap_or(1_000).clamp(8, 1_000);
        write!(
            out,
            "<svg class=\"plot length\" viewBox=\"0 0 1000 10\" preserveAspectRatio=\"none\" \
             aria-hidden=\"true\"><rect class=\"down\" width=\"{width}\" height=\"10\" rx=\"4\"/>\
             </svg>"
        )
    }
}

/// `<time>` for a second.
pub(super) fn time(unix_s: u64) -> String {
    let machine = super::time_format::machine_stamp(unix_s);
    format!("<time datetime=\"{machine}\">{}</time>", stamp(unix_s))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_add_up_and_what_is_there_is_seen() {
        for (counts, wanted) in [
            ((0, 0, 0), [0, 0, 0]),
            ((1, 0, 0), [0, 100, 0]),
            ((999_999, 1, 0), [3, 97, 0]),
            ((999_999, 1, 1), [3, 94, 3]),
            ((0, 1, 0), [100, 0, 0]),
            ((0, 1, 2), [33, 0, 67]),
            ((0, 2, 1), [67, 0, 33]),
            ((1, 1_000_000, 0), [99, 1, 0]),
            ((u64::MAX / 4, u64::MAX / 4, u64::MAX / 4), [33, 34, 33]),
        ] {
            let (up, down, unknown) = counts;
            let parts = Counts { up, down, unknown }.share(HIGH, LEAST).map(|(part, _)| part);
            assert_eq!(parts, wanted, "{counts:?}");
        }
    }

    #[test]
    fn a_day_is_told_in_words() {
        let day = |up_s, down_s, unknown_s| Day {
            start_s: 1_767_225_600,
            tally: Tally { up_s, down_s, unknown_s, ..Tally::default() },
        };
        assert_eq!(day(0, 0, 0).told(), "2026-01-01: not known yet");
        assert_eq!(day(0, 0, 9).told(), "2026-01-01: nobody could tell, coverage 0.00 %");
        assert_eq!(day(75, 25, 100).told(), "2026-01-01: uptime 75.00 %, coverage 50.00 %");
        let drawn = days(&[day(75, 25, 100), day(0, 0, 0)], "two days");
        assert_eq!(drawn.matches("<title>").count(), 3);
        // Down below, up above it, unknown on top; the day not known is a low mark.
        assert!(drawn.contains("class=\"down\" d=\"M0 100h8v-12h-8z\""), "{drawn}");
        assert!(drawn.contains("class=\"up\" d=\"M0 88h8v-38h-8z\""), "{drawn}");
        assert!(drawn.contains("class=\"unknown\" d=\"M0 50h8v-50h-8z\""), "{drawn}");
        assert!(drawn.contains("class=\"ground\" d=\"M10 96h8v4h-8z\""), "{drawn}");
    }
}
