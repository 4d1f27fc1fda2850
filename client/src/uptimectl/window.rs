//! Which window of time is asked about.
//!
//! Owns the arguments for it and what is wrong with them. Windows count by the aggregator's clock
//! and its last closed round, which it is asked for first; a wrong clock here misleads nobody.

use clap::Args;
use uptime_client::v1::{Freshness, Window};
use uptime_client::{Client, Error};

use crate::fresh::closed_end_s;
use crate::output::Misuse;
use crate::text::{second, span, stamp};
use crate::time_argument::{TimeArgument, duration, time_argument};

/// Arguments that say which window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Args)]
pub(crate) struct WindowArgs {
    /// Length of the window before --to or the last closed round: 24h, 7d, 30d, 90d, 2w, all
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "all",
        value_parser = length,
        conflicts_with = "from"
    )]
    window: Length,
    /// Start: 2026-01-31, 2026-01-31T12:00Z, '3 days ago', 7d, unix seconds; UTC without a zone
    #[arg(long, value_name = "TIME", value_parser = time_argument)]
    from: Option<TimeArgument>,
    /// End, exclusive; same forms [default: the end of the last closed round]
    #[arg(long, value_name = "TIME", value_parser = time_argument)]
    to: Option<TimeArgument>,
}

/// How long a window is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Length {
    All,
    Seconds(u64),
}

fn length(text: &str) -> Result<Length, String> {
    match text.trim() {
        "all" => Ok(Length::All),
        text => match duration(text)? {
            0 => Err("a window of no length has no round in it".to_owned()),
            seconds => Ok(Length::Seconds(seconds)),
        },
    }
}

impl WindowArgs {
    /// The window, after asking how late it is there if that matters.
    pub(crate) async fn resolve(&self, client: &Client) -> anyhow::Result<Window> {
        if *self == (Self { window: Length::All, from: None, to: None }) {
            return Ok(Window::default());
        }
        let fresh: Result<Freshness, Error> = client.rounds(1).await.map(|last| last.freshness);
        Ok(self.against(&fresh?)?)
    }

    fn against(&self, fresh: &Freshness) -> Result<Window, Misuse> {
        let misuse = |fault: String| Err(Misuse(fault));
        let closed_end_s = closed_end_s(fresh);
        if closed_end_s == 0 {
            return misuse("no round has closed yet: there is no window to ask about".to_owned());
        }
        let now_s = second(fresh.answered_at_unix_ms);
        let to_s = self.to.map(|to| to.unix_s(now_s));
        let end_s = to_s.unwrap_or(closed_end_s);
        let from_s = match (self.from, self.window) {
            (Some(from), _) => from.unix_s(now_s),
            (None, Length::All) => 0,
            (None, Length::Seconds(seconds)) => end_s.saturating_sub(seconds),
        };
        if from_s > end_s && to_s.is_some() {
            let (from, to) = (stamp(from_s), stamp(end_s));
            return misuse(format!("the window is reversed: it begins at {from}, ends at {to}"));
        }
        if from_s >= closed_end_s {
            return misuse(format!(
                "the window begins at {}, but the last closed round ended at {}: nothing is \
                 decided there yet",
                stamp(from_s),
                stamp(closed_end_s)
            ));
        }
        let period_s = u64::from(fresh.round_period_s).max(1);
        let known = from_s >= fresh.epoch_start_unix_s;
        if from_s == end_s || (known && from_s.next_multiple_of(period_s) >= end_s) {
            return misuse(format!(
                "the window from {} to {} is empty: no round starts in it, and a round is {} long",
                stamp(from_s),
                stamp(end_s),
                span(period_s)
            ));
        }
        // An end that is still to come is none.
        let to_unix_s = to_s.filter(|to_s| *to_s < closed_end_s).unwrap_or(0);
        Ok(Window { from_unix_s: from_s, to_unix_s })
    }
}

/// `2026-01-24 12:35:00 UTC to 2026-01-31 12:35:00 UTC`; what is open is said.
pub(crate) fn words(window: &Window, fresh: &Freshness) -> String {
    let from = match window.from_unix_s {
        0 => "first seen".to_owned(),
        from_s => stamp(from_s),
    };
    let to_s = if window.to_unix_s == 0 { closed_end_s(fresh) } else { window.to_unix_s };
    format!("from {from} to {}", stamp(to_s))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::fresh::tests::fresh;

    #[derive(Debug, Parser)]
    struct Asked {
        #[command(flatten)]
        window: WindowArgs,
    }

    /// The window, or what is wrong with it. The last closed round ended at 12:35:00, and it is
    /// 12:35:07 there.
    fn window(words: &[&str]) -> Result<(u64, u64), String> {
        let asked = Asked::try_parse_from(["asked"].iter().chain(words));
        let asked = asked.map_err(|error| error.to_string())?;
        let window = asked.window.against(&fresh()).map_err(|misuse| misuse.0)?;
        Ok((window.from_unix_s, window.to_unix_s))
    }

    #[test]
    fn windows_count_back_from_the_last_closed_round() {
        const END_S: u64 = 1_769_862_900;
        const NOW_S: u64 = 1_769_862_907;
        for (words, wanted) in [
            (&[][..], (0, 0)),
            (&["--window", "all"], (0, 0)),
            (&["--window", "24h"], (END_S - 86_400, 0)),
            (&["--window", "7d"], (END_S - 604_800, 0)),
            (&["--window", "36525d"], (0, 0)),
            (&["--from", "2026-01-31"], (1_769_817_600, 0)),
            (&["--from", "3 days ago"], (NOW_S - 259_200, 0)),
            (&["--from", "2026-01-30", "--to", "2026-01-31"], (1_769_731_200, 1_769_817_600)),
            (&["--to", "2026-01-31T12:00Z"], (0, 1_769_860_800)),
            (&["--window", "1h", "--to", "2026-01-31T12:00Z"], (1_769_857_200, 1_769_860_800)),
            // An end to come is the last closed round's.
            (&["--from", "2026-01-31", "--to", "2199-12-31"], (1_769_817_600, 0)),
            (&["--from", "60s", "--to", "now"], (NOW_S - 60, 0)),
        ] {
            assert_eq!(window(words), Ok(wanted), "{words:?}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_window_is_told() {
        for (words, wanted) in [
            (&["--from", "2026-01-31", "--to", "2026-01-30"][..], "is reversed: it begins at 2026"),
            (&["--from", "2026-01-30", "--to", "2026-01-30"], "is empty: no round starts in it"),
            (&["--to", "1970-01-01"], "is empty"),
            (&["--from", "2026-01-31T12:00:01Z", "--to", "2026-01-31T12:00:30Z"], "is empty"),
            (&["--from", "now"], "nothing is decided there yet"),
            (&["--from", "2199-01-01"], "the last closed round ended at 2026-01-31 12:35:00 UTC"),
            (&["--from", "9999-01-01"], "the year 9999 is out of reach"),
            (&["--to", "9999-12-31"], "the year 9999 is out of reach"),
            (&["--window", "0s"], "a window of no length"),
            (&["--window", "-7d"], "unexpected argument"),
            (&["--window=-7d"], "is no duration"),
            (&["--window", ""], "is no duration"),
            (&["--window", "7d", "--from", "2026-01-01"], "cannot be used with"),
        ] {
            let fault = window(words).unwrap_err();
            assert!(fault.contains(wanted), "{words:?}: {fault}");
        }
        let asked = Asked::try_parse_from(["asked", "--window", "7d"]).unwrap();
        let none = Freshness { last_closed_round_unix_s: 0, ..fresh() };
        assert!(asked.window.against(&none).unwrap_err().0.contains("no round has closed yet"));
    }

    #[test]
    fn a_window_is_told_in_words() {
        let window = |from_unix_s, to_unix_s| Window { from_unix_s, to_unix_s };
        let all = "from first seen to 2026-01-31 12:35:00 UTC";
        assert_eq!(words(&window(0, 0), &fresh()), all);
        let day = "from 2026-01-30 00:00:00 UTC to 2026-01-31 00:00:00 UTC";
        assert_eq!(words(&window(1_769_731_200, 1_769_817_600), &fresh()), day);
    }
}
