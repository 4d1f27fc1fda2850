//! What can be asked on the command line.
//!
//! Owns names, defaults and bounds, and the help that documents them.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use uptime_client::v1::{NodeFilter, NodeOrder};
use uptime_client::{NodeId, Order};

use crate::connection::ConnectionArgs;
use crate::time_argument::{RoundChoice, round};
use crate::window::WindowArgs;

/// Asks a Golem Uptime aggregator which providers are up, since when, and how sure that is.
///
/// Answers go to standard output; what is said about them (how fresh they are, warnings) goes to
/// standard error. Instants are UTC and count by the aggregator's clock. Texts that providers
/// choose are shown with control and direction characters written out, such as \u{1b}; JSON keeps
/// them, escaped. On a terminal tables are cut to its width and coloured, unless NO_COLOR is set.
///
/// Exit status: 0 answered; 1 failed (no connection, no such node, no whole answer); with node
/// --exit-status 3 the node is down, 4 that cannot be told (unknown, never seen, or the answer is
/// out of date); 64 wrong usage.
#[derive(Debug, Parser)]
#[command(name = "uptimectl", version, max_term_width = 100)]
pub(crate) struct Cli {
    /// Where to ask.
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
    /// What to ask.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The questions.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The network in a few numbers
    Summary(OutputArgs),
    /// List nodes
    Nodes(NodesArgs),
    /// Say everything about one node: is it up, since when, and how sure is that
    Node(NodeArgs),
    /// Say why a node is shown as it is: who looked, what was found, which rule decided, what to do
    Explain(ExplainArgs),
    /// How much of a window of time nodes were up
    Uptime(UptimeArgs),
    /// List the outages of a node
    Outages(OutagesArgs),
    /// Watch nodes: a live view on a terminal, else a line for each change
    ///
    /// Goes on by itself when the connection breaks or the aggregator is started anew, without
    /// losing a change or telling it twice. Ends with Ctrl-C, or when nobody reads its lines.
    Watch(WatchArgs),
    /// List the probes and how they fare
    Probes(OutputArgs),
    /// List recent rounds, newest first
    Rounds(RoundsArgs),
    /// Print the aggregator's trail, newest first: who did what about identities, who was
    /// refused and why. For admins
    Audit(AuditArgs),
    /// Fetch the canonical nodes_status.csv
    Csv(CsvArgs),
    /// Print what a shell needs to complete these commands
    ///
    /// For bash: uptimectl completions bash > ~/.local/share/bash-completion/completions/uptimectl.
    /// For zsh, into a file _uptimectl in a directory of $fpath. For fish, into
    /// ~/.config/fish/completions/uptimectl.fish.
    Completions(CompletionsArgs),
}

/// How answers are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Args)]
pub(crate) struct OutputArgs {
    /// How to print the answer
    #[arg(long, value_enum, default_value = "table")]
    pub(crate) output: Output,
}

/// A way to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people; on a terminal cut to its width
    Table,
    /// One object, with the freshness of the answer; the names of its fields stay
    Json,
    /// With a header; the names of its columns stay
    Csv,
}

/// Arguments of `nodes`.
#[derive(Debug, Args)]
pub(crate) struct NodesArgs {
    /// Only nodes that are online
    #[arg(long, conflicts_with = "offline")]
    online: bool,
    /// Only nodes that are not online
    #[arg(long)]
    offline: bool,
    /// Only nodes that offered in this subnet
    #[arg(long, value_name = "SUBNET", default_value = "", hide_default_value = true)]
    subnet: String,
    /// Only nodes whose name contains this
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    name: String,
    /// Only nodes whose id begins so, with or without 0x
    #[arg(
        long,
        value_name = "HEX",
        default_value = "",
        hide_default_value = true,
        value_parser = id_prefix
    )]
    id_prefix: String,
    /// Nodes too that showed no life for so long that they are looked up no more
    #[arg(long)]
    retired: bool,
    /// Only nodes with an offer in the last 24 hours
    #[arg(long)]
    members: bool,
    /// Sort by this
    #[arg(long, value_enum, default_value = "id")]
    order: By,
    /// Sort descending
    #[arg(long)]
    desc: bool,
    /// At most so many nodes [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: Option<u32>,
    /// How to print.
    #[command(flatten)]
    pub(crate) how: OutputArgs,
}

/// What to sort by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum By {
    Id,
    Uptime,
    LastSeen,
    Name,
}

/// Arguments of `node`.
#[derive(Debug, Args)]
pub(crate) struct NodeArgs {
    /// The node: 0x and 40 hex digits
    pub(crate) id: NodeId,
    /// As it was when this round was closed, by what is known now: last, -3 (the third before the
    /// last), or the one at 2026-01-31T12:34Z, '2h ago' or 1769862870 (unix seconds)
    #[arg(default_value = "last", value_parser = round, allow_hyphen_values = true)]
    pub(crate) round: RoundChoice,
    /// Exit with 0 only if the node is up; with 3 if it is down (or retired); with 4 if that cannot
    /// be told: unknown in the round, never seen, or, of the last round, the answer is out of date
    #[arg(long)]
    pub(crate) exit_status: bool,
    /// How to print.
    #[command(flatten)]
    pub(crate) how: OutputArgs,
}

/// Arguments of `explain`.
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// The node: 0x and 40 hex digits
    pub(crate) id: NodeId,
    /// The round: last, -3 (the third before the last), or the one at 2026-01-31T12:34Z, '2h ago'
    /// or 1769862870 (unix seconds)
    #[arg(default_value = "last", value_parser = round, allow_hyphen_values = true)]
    pub(crate) round: RoundChoice,
    /// How to print.
    #[command(flatten)]
    pub(crate) how: OutputArgs,
}

/// Arguments of `uptime`.
#[derive(Debug, Args)]
pub(crate) struct UptimeArgs {
    /// The nodes: 0x and 40 hex digits each [default: all nodes]. Exits with 1 if one of them is
    /// not known
    #[arg(value_name = "ID")]
    pub(crate) ids: Vec<NodeId>,
    /// The window.
    #[command(flatten)]
    pub(crate) window: WindowArgs,
    /// Also the round trips to each node, on the UTC days that the window touches: mean, and from
    /// the shortest to the longest. The last 90 days are kept
    #[arg(long)]
    pub(crate) latency: bool,
    /// At most so many nodes [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: Option<u32>,
    /// How to print.
    #[command(flatten)]
    pub(crate) how: OutputArgs,
}

/// Arguments of `outages`.
#[derive(Debug, Args)]
pub(crate) struct OutagesArgs {
    /// The node: 0x and 40 hex digits
    pub(crate) id: NodeId,
    /// The window.
    #[command(flatten)]
    pub(crate) window: WindowArgs,
    /// At most so many outages [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: Option<u32>,
    /// How to print.
    #[command(flatten)]
    pub(crate) how: OutputArgs,
}

/// Arguments of `watch`.
#[derive(Debug, Args)]
pub(crate) struct WatchArgs {
    /// Only these nodes: 0x and 40 hex digits each [default: all nodes]
    #[arg(value_name = "ID")]
    pub(crate) ids: Vec<NodeId>,
    /// Only nodes that offered in this subnet
    #[arg(long, value_name = "SUBNET", default_value = "", hide_default_value = true)]
    pub(crate) subnet: String,
    /// Only nodes whose name contains this
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(crate) name: String,
    /// As lines, all nodes first as they stand, then changes
    #[arg(long)]
    pub(crate) initial: bool,
    /// Lines on a terminal, too
    #[arg(long)]
    pub(crate) lines: bool,
    /// End after so many changes [default: never]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    /// How to print: table is the live view, or else a line for each change; json is an object for
    /// each, on a line of its own; csv is a header and a row for each
    #[arg(long, value_enum, default_value = "table", hide_possible_values = true)]
    pub(crate) output: Output,
}

/// Arguments of `completions`.
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// For this shell
    #[arg(value_enum)]
    pub(crate) shell: Shells,
}

/// Shells that can be completed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shells {
    Bash,
    Zsh,
    Fish,
}

impl From<Shells> for Shell {
    fn from(shell: Shells) -> Self {
        match shell {
            Shells::Bash => Self::Bash,
            Shells::Zsh => Self::Zsh,
            Shells::Fish => Self::Fish,
        }
    }
}

/// Arguments of `rounds`.
#[derive(Debug, Args)]
pub(crate) struct RoundsArgs {
    /// At most so many rounds
    #[arg(
        long,
        value_name = "N",
        default_value = "20",
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub(crate) limit: u32,
    /// How to print.
    #[command(flatten)]
    pub(crate) how: OutputArgs,
}

/// Arguments of `audit`.
#[derive(Debug, Args)]
pub(crate) struct AuditArgs {
    /// At most so many lines
    #[arg(
        long,
        value_name = "N",
        default_value = "100",
        value_parser = clap::value_parser!(u32).range(1..=100_000)
    )]
    pub(crate) limit: u32,
    /// How to print.
    #[command(flatten)]
    pub(crate) how: OutputArgs,
}

/// Arguments of `csv`.
#[derive(Debug, Args)]
pub(crate) struct CsvArgs {
    /// Put it there, all or nothing [default: standard output]
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

impl NodesArgs {
    /// The nodes that are wanted.
    pub(crate) fn filter(&self) -> NodeFilter {
        NodeFilter {
            is_online: (self.online || self.offline).then_some(self.online),
            subnet: self.subnet.clone(),
            id_prefix: self.id_prefix.clone(),
            name_contains: self.name.clone(),
            include_retired: self.retired,
            members_only: self.members,
        }
    }

    /// Their order.
    pub(crate) fn order(&self) -> Order {
        let by = match self.order {
            By::Id => NodeOrder::Id,
            By::Uptime => NodeOrder::Uptime,
            By::LastSeen => NodeOrder::LastSeen,
            By::Name => NodeOrder::Name,
        };
        Order { by, descending: self.desc }
    }
}

fn id_prefix(text: &str) -> Result<String, String> {
    let lower = text.to_lowercase();
    let digits = lower.strip_prefix("0x").unwrap_or(&lower);
    if digits.len() <= 40 && digits.chars().all(|digit| digit.is_ascii_hexdigit()) {
        Ok(format!("0x{digits}"))
    } else {
        Err("at most 40 hex digits are wanted, after 0x or without it".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_taken_with_and_without_0x() {
        for text in ["0xAb", "ab", "0XaB"] {
            assert_eq!(id_prefix(text), Ok("0xab".to_owned()), "{text}");
        }
        assert_eq!(id_prefix("0x"), Ok("0x".to_owned()));
        for bad in ["xyz", "0x0x", "ä", &"0".repeat(41)] {
            assert!(id_prefix(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn neither_online_nor_offline_means_both() {
        let filter = |words: &[&str]| {
            let words = ["uptimectl", "nodes"].iter().chain(words);
            match Cli::try_parse_from(words).map(|cli| cli.command) {
                Ok(Command::Nodes(args)) => Ok(args.filter().is_online),
                Ok(_) => unreachable!("nodes was asked for"),
                Err(error) => Err(error.kind()),
            }
        };
        assert_eq!(filter(&[]), Ok(None));
        assert_eq!(filter(&["--online"]), Ok(Some(true)));
        assert_eq!(filter(&["--offline"]), Ok(Some(false)));
        let both = filter(&["--online", "--offline"]);
        assert_eq!(both, Err(clap::error::ErrorKind::ArgumentConflict));
    }
}
