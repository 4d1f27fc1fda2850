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

/// Asks a Golem Uptime aggregator which providers are up, since when, and why.
///
/// Answers go to standard output; warnings and the age of the answer go to standard error. Times
/// are UTC, by the aggregator's clock. Control and direction characters in texts from providers
/// are written out, such as \u{1b}; JSON escapes them. On a terminal, tables are cut to its width
/// and coloured, unless NO_COLOR is set.
///
/// Exit status: 0 success; 1 failure (no connection, no such node, incomplete answer); 64 wrong
/// usage. With node --exit-status: 3 the node is down; 4 it is unknown or never seen, or the answer
/// is out of date.
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
    /// Show the network in a few numbers
    Summary(OutputArgs),
    /// List nodes
    Nodes(NodesArgs),
    /// Show one node: its state, since when, and its uptime
    Node(NodeArgs),
    /// Explain a verdict: what each probe found, which rule decided, what the provider can do
    Explain(ExplainArgs),
    /// Show the uptime of nodes over a window of time
    Uptime(UptimeArgs),
    /// List the outages of a node
    Outages(OutagesArgs),
    /// Watch nodes: a live view on a terminal, otherwise a line for each change
    ///
    /// Reconnects by itself; no change is lost or shown twice. Ends with Ctrl-C, or when its output
    /// is closed.
    Watch(WatchArgs),
    /// List the probes and their state
    Probes(OutputArgs),
    /// List recent rounds, newest first
    Rounds(RoundsArgs),
    /// Print the aggregator's audit log, newest first: changes of identities, and refusals. For
    /// admins
    Audit(AuditArgs),
    /// Download nodes_status.csv
    Csv(CsvArgs),
    /// Print the completion script of a shell
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
    /// For people; on a terminal, cut to its width
    Table,
    /// One object, with the freshness of the answer; field names are stable
    Json,
    /// With a header; column names are stable
    Csv,
}

/// Arguments of `nodes`.
#[derive(Debug, Args)]
pub(crate) struct NodesArgs {
    /// Only nodes that are up, or were up when last known
    #[arg(long, conflicts_with = "offline")]
    online: bool,
    /// Only nodes that are down, or were not up when last known
    #[arg(long)]
    offline: bool,
    /// Only nodes with an offer in this subnet
    #[arg(long, value_name = "SUBNET", default_value = "", hide_default_value = true)]
    subnet: String,
    /// Only nodes whose name contains this
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    name: String,
    /// Only nodes whose id begins with this, with or without 0x
    #[arg(
        long,
        value_name = "HEX",
        default_value = "",
        hide_default_value = true,
        value_parser = id_prefix
    )]
    id_prefix: String,
    /// Include retired nodes: no sign of life for 30 days
    #[arg(long)]
    retired: bool,
    /// Only nodes with an offer in the last 24 hours
    #[arg(long)]
    members: bool,
    /// Sort key
    #[arg(long, value_enum, default_value = "id")]
    order: By,
    /// Sort descending
    #[arg(long)]
    desc: bool,
    /// Show at most this many nodes [default: all]
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
    /// The node as of this round, by what is known now: last, -3 (the third before the last), or
    /// the round at 2026-01-31T12:34Z, '2h ago' or 1769862870 (unix seconds)
    #[arg(default_value = "last", value_parser = round, allow_hyphen_values = true)]
    pub(crate) round: RoundChoice,
    /// Exit with 0 only if the node is up; with 3 if it is down or retired; with 4 if it is unknown
    /// or never seen, or if the answer about the last round is out of date
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
    /// The round: last, -3 (the third before the last), or the round at 2026-01-31T12:34Z, '2h ago'
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
    /// unknown
    #[arg(value_name = "ID")]
    pub(crate) ids: Vec<NodeId>,
    /// The window.
    #[command(flatten)]
    pub(crate) window: WindowArgs,
    /// Show round trip times, too: mean, minimum and maximum over the UTC days that the window
    /// touches. Kept for 90 days
    #[arg(long)]
    pub(crate) latency: bool,
    /// Show at most this many nodes [default: all]
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
    /// Show at most this many outages [default: all]
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
    /// Only nodes with an offer in this subnet
    #[arg(long, value_name = "SUBNET", default_value = "", hide_default_value = true)]
    pub(crate) subnet: String,
    /// Only nodes whose name contains this
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(crate) name: String,
    /// Print lines: first all nodes, then changes
    #[arg(long)]
    pub(crate) initial: bool,
    /// Print lines on a terminal, too
    #[arg(long)]
    pub(crate) lines: bool,
    /// Stop after this many changes [default: never]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    /// How to print changes: table is the live view or a line each; json is an object on a line
    /// each; csv is a header and a row each
    #[arg(long, value_enum, default_value = "table", hide_possible_values = true)]
    pub(crate) output: Output,
}

/// Arguments of `completions`.
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
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
    /// Show at most this many rounds
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
    /// Show at most this many lines
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
    /// Write to this file, whole or not at all [default: standard output]
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
